//! Headers by which a front proxy tells who a client is and where a request came from. From a peer
//! that is no trusted proxy they are a stranger's claim: a registry behind us might believe them,
//! since it sees one trusted neighbour only.

use std::net::IpAddr;
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::HeaderName;

use crate::config::{HeaderPattern, Network};

/// Every header that is taken off; SECURITY.md has the same table, and a test compares them.
pub(crate) const CLIENT_HEADERS: [&str; 55] = [
    "CF-Access-*",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "Client-Cert*",
    "Client-IP",
    "Fastly-Client-IP",
    "Fly-Client-IP",
    "Forwarded",
    "Front-End-Https",
    "Impersonate-*",
    "OIDC-*",
    "Proxy-Client-IP",
    "Remote-*",
    "SSL-*",
    "Tailscale-User-*",
    "True-Client-IP",
    "WL-Proxy-*",
    "X-Amzn-Oidc-*",
    "X-AppEngine-User-IP",
    "X-ARR-ClientCert",
    "X-Auth-Request-*",
    "X-Authelia-*",
    "X-Authenticated-*",
    "X-Authentik-*",
    "X-Azure-ClientIP",
    "X-Client-Cert*",
    "X-Client-DN",
    "X-Client-IP",
    "X-Client-Subject*",
    "X-Client-Verify",
    "X-Cluster-Client-IP",
    "X-Consumer-*",
    "X-Credential-*",
    "X-Email",
    "X-Envoy-External-Address",
    "X-Forwarded",
    "X-Forwarded-*",
    "X-Goog-Authenticated-*",
    "X-Goog-IAP-*",
    "X-Impersonate-*",
    "X-Jwt-Assertion",
    "X-MS-Client-Principal*",
    "X-Original-*",
    "X-Pomerium-*",
    "X-ProxyUser-IP",
    "X-Real-IP",
    "X-Remote-*",
    "X-Rewrite-URL",
    "X-Scheme",
    "X-SSL-*",
    "X-Tailscale-*",
    "X-Url-Scheme",
    "X-User",
    "X-Vouch-*",
    "X-Webauth-*",
];

static BUILT_IN: LazyLock<Vec<HeaderPattern>> =
    LazyLock::new(|| CLIENT_HEADERS.iter().filter_map(|text| text.parse().ok()).collect());

/// Whose headers about a client are believed, and which headers these are.
pub(crate) struct ClientHeaders {
    trusted: Vec<Network>,
    /// What the operator has added to the table.
    added: Vec<HeaderPattern>,
}

impl ClientHeaders {
    pub(crate) fn new(trusted: Vec<Network>, added: Vec<HeaderPattern>) -> Self {
        Self { trusted, added }
    }

    /// Returns the proxies whose word counts.
    pub(crate) fn trusted(&self) -> &[Network] {
        &self.trusted
    }

    /// Takes off what `peer` may not say. Afterwards every header of the table may be believed;
    /// what `Host` says is checked by the listener.
    pub(crate) fn remove_untrusted(&self, headers: &mut HeaderMap, peer: IpAddr) {
        if self.trusted.iter().any(|network| network.contains(peer)) {
            return;
        }
        let is_one = |name: &&HeaderName| BUILT_IN.iter().chain(&self.added).any(|one| one.matches(name.as_str()));
        let found: Vec<HeaderName> = headers.keys().filter(is_one).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn left(names: &[&str], peer: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("evil"));
        }
        let rules = ClientHeaders::new(vec!["10.0.0.0/8".parse().unwrap()], vec!["X-Team-*".parse().unwrap()]);
        rules.remove_untrusted(&mut headers, peer.parse().unwrap());
        headers.keys().map(|name| name.as_str().to_owned()).collect()
    }

    #[test]
    fn every_row_of_the_table_is_a_pattern() {
        assert_eq!(BUILT_IN.len(), CLIENT_HEADERS.len());
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let document = include_str!("../../../SECURITY.md");
        let (_, table) = document.split_once("| taken off unless a trusted proxy sends it |\n| --- |\n").unwrap();
        let rows = table.lines().map_while(|line| line.strip_prefix("| `")?.strip_suffix("` |"));
        assert_eq!(rows.collect::<Vec<_>>(), CLIENT_HEADERS);
    }

    #[test]
    fn removes_what_an_untrusted_peer_says_of_a_client() {
        let said = [
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "X_Forwarded_User",
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "remote-user",
            "REMOTE_USER",
            "x-remote-group",
            "x-remote-extra-scopes",
            "x-client-cert",
            "x-client-cert-chain",
            "ssl-client-s-dn",
            "SSL_CLIENT_VERIFY",
            "x-ssl-client-cn",
            "x-auth-request-email",
            "x-authenticated-userid",
            "x-original-url",
            "x-webauth-user",
            "true-client-ip",
            "cf-connecting-ip",
            "x-client-ip",
            "x-goog-authenticated-user-email",
            "x-team-name",
        ];
        let kept = ["via", "authorization", "host", "x-request-id", "user-agent", "remote", "x-forward"];
        let all: Vec<&str> = said.iter().chain(&kept).copied().collect();
        let mut expected = kept.map(str::to_owned).to_vec();
        let mut found = left(&all, "192.0.2.1");
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        for peer in ["10.1.2.3", "::ffff:10.1.2.3"] {
            assert_eq!(left(&all, peer).len(), all.len(), "{peer}");
        }
    }
}
