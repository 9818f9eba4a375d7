//! Which HTTP proxy a request goes through: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` as Go's
//! `golang.org/x/net/http/httpproxy` reads them, and with it podman, skopeo, CRI-O and docker.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use url::{Host, Url};
use zeroize::Zeroizing;

/// The protocols that are spoken to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// HTTP: `CONNECT` for https, the absolute form of the target for http.
    Http,
    /// The same over TLS.
    Https,
    /// SOCKS version 5; the proxy resolves names.
    Socks5,
}

/// A proxy's address with its credentials, which are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    protocol: ProxyProtocol,
    /// `host:port`.
    authority: String,
    credentials: Option<(String, Zeroizing<String>)>,
}

impl HttpProxy {
    /// Returns the protocol that is spoken to the proxy.
    pub fn protocol(&self) -> ProxyProtocol {
        self.protocol
    }

    /// Returns `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns user and password.
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }
}

impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            ProxyProtocol::Http => "http",
            ProxyProtocol::Https => "https",
            ProxyProtocol::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpProxy({self})")
    }
}

/// Why a request cannot be sent through the configured proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpProxyError {
    /// The value is no address of a proxy. It may hold a password, so it is not shown.
    #[error("the environment variable {0} is not the address of a proxy; expected http://host:port")]
    Address(&'static str),
    /// The proxy speaks something else.
    #[error("the environment variable {variable} names a proxy by {scheme}://; supported are http, https and socks5")]
    Scheme {
        /// `HTTP_PROXY` or `HTTPS_PROXY`.
        variable: &'static str,
        /// The scheme.
        scheme: String,
    },
    /// In a CGI program the variable comes from the client's header `Proxy`.
    #[error("HTTP_PROXY is not used in a CGI environment (REQUEST_METHOD is set)")]
    Cgi,
}

type Configured = Option<Result<Arc<HttpProxy>, HttpProxyError>>;

/// The rules by which a proxy is chosen.
#[derive(Clone, Debug, Default)]
pub struct HttpProxyRules {
    http: Configured,
    https: Configured,
    is_cgi: bool,
    excluded: Vec<Exclusion>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exclusion {
    All,
    Network(IpNet),
    Address(IpAddr, Option<String>),
    /// The name, without a dot in front; whether the name itself is meant, or only what is below it.
    Domain {
        name: String,
        itself: bool,
        port: Option<String>,
    },
}

impl HttpProxyRules {
    /// Returns the rules of this process, read once, as Go does.
    pub fn of_process() -> &'static Self {
        static RULES: LazyLock<HttpProxyRules> =
            LazyLock::new(|| HttpProxyRules::read(|name| std::env::var(name).ok()));
        &RULES
    }

    /// Reads the variables. Upper case comes first; an empty value counts as unset.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&str; 2]| names.into_iter().filter_map(&variable).find(|value| !value.is_empty());
        let excluded = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Self {
            http: first(["HTTP_PROXY", "http_proxy"]).and_then(|value| proxy("HTTP_PROXY", &value)),
            https: first(["HTTPS_PROXY", "https_proxy"]).and_then(|value| proxy("HTTPS_PROXY", &value)),
            is_cgi: variable("REQUEST_METHOD").is_some_and(|method| !method.is_empty()),
            excluded: exclusions(&excluded),
        }
    }

    /// Returns the proxy for a URL; `None` means that the server is reached directly.
    ///
    /// # Errors
    /// [`HttpProxyError`] when a proxy is configured that cannot be used. A direct connection instead would tell
    /// the network what the operator wanted to hide from it.
    pub fn proxy_for(&self, url: &Url) -> Result<Option<Arc<HttpProxy>>, HttpProxyError> {
        let configured = match url.scheme() {
            "https" => &self.https,
            "http" => &self.http,
            _ => &None,
        };
        let Some(configured) = configured else { return Ok(None) };
        if url.scheme() == "http" && self.is_cgi {
            return Err(HttpProxyError::Cgi);
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return Ok(None) };
        if self.is_direct(&host, port) { Ok(None) } else { configured.clone().map(Some) }
    }

    fn is_direct(&self, host: &Host<&str>, port: u16) -> bool {
        let address = match host {
            Host::Domain(name) => name.parse::<IpAddr>().ok(),
            Host::Ipv4(address) => Some(IpAddr::from(*address)),
            Host::Ipv6(address) => Some(IpAddr::from(*address)),
        };
        let address = address.map(|address| address.to_canonical());
        let name = match host {
            Host::Domain(name) => name.to_ascii_lowercase(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let port = port.to_string();
        let fits = |wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| *wanted == port);
        self.excluded.iter().any(|exclusion| match exclusion {
            Exclusion::All => true,
            Exclusion::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Exclusion::Address(wanted, port) => address == Some(*wanted) && fits(port),
            Exclusion::Domain { name: wanted, itself, port } => {
                let below = name.strip_suffix(wanted.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (below || (*itself && name == *wanted)) && fits(port)
            }
        })
    }
}

/// Reads a proxy's address. A value without a scheme is an HTTP proxy.
fn proxy(variable: &'static str, value: &str) -> Configured {
    let whole = Url::parse(value).ok().filter(|url| url.has_host() && url.host_str() != Some(""));
    let without_scheme = || if value.contains("://") { None } else { Url::parse(&format!("http://{value}")).ok() };
    let Some(url) = whole.or_else(without_scheme) else {
        return Some(Err(HttpProxyError::Address(variable)));
    };
    let (protocol, port) = match url.scheme() {
        "http" => (ProxyProtocol::Http, 80),
        "https" => (ProxyProtocol::Https, 443),
        "socks5" | "socks5h" => (ProxyProtocol::Socks5, 1080),
        scheme => return Some(Err(HttpProxyError::Scheme { variable, scheme: scheme.to_owned() })),
    };
    let Some(host) = url.host_str() else { return Some(Err(HttpProxyError::Address(variable))) };
    let has_user = !url.username().is_empty() || url.password().is_some();
    let credentials = has_user.then(|| {
        let password = url.password().unwrap_or_default();
        (decode(url.username()), Zeroizing::new(decode(password)))
    });
    let authority = format!("{host}:{}", url.port().unwrap_or(port));
    Some(Ok(Arc::new(HttpProxy { protocol, authority, credentials })))
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Reads `NO_PROXY`. Entries that make no sense are passed over, as in Go.
fn exclusions(value: &str) -> Vec<Exclusion> {
    let mut found = Vec::new();
    for entry in value.split(',') {
        let entry = entry.trim().to_lowercase();
        if entry == "*" {
            return vec![Exclusion::All];
        }
        found.extend(exclusion(&entry));
    }
    found
}

fn exclusion(entry: &str) -> Option<Exclusion> {
    if let Ok(network) = entry.parse::<IpNet>() {
        return Some(Exclusion::Network(network));
    }
    let (host, port) = match split_port(entry) {
        Some((host, port)) => (host, Some(port.to_owned())),
        None => (entry, None),
    };
    let port = port.filter(|port| !port.is_empty());
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(Exclusion::Address(address.to_canonical(), port));
    }
    let host = host.strip_prefix("*.").map(|rest| format!(".{rest}")).unwrap_or(host.to_owned());
    let (name, itself) = host.strip_prefix('.').map_or((host.as_str(), true), |name| (name, false));
    if name.is_empty() {
        return None;
    }
    // Names in other letters are compared in their ASCII form.
    let name = match Host::parse(name) {
        Ok(Host::Domain(ascii)) => ascii,
        _ => name.to_owned(),
    };
    Some(Exclusion::Domain { name, itself, port })
}

/// Splits `host:port` as Go's `net.SplitHostPort` does; `None` if there is no port.
fn split_port(entry: &str) -> Option<(&str, &str)> {
    let (host, port) = entry.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').map(|host| (host, port)),
        None => (!host.is_empty() && !host.contains([':', '[', ']'])).then_some((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(variables: &[(&str, &str)]) -> HttpProxyRules {
        HttpProxyRules::read(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn chosen(rules: &HttpProxyRules, url: &str) -> String {
        match rules.proxy_for(&Url::parse(url).unwrap()) {
            Ok(Some(proxy)) => proxy.to_string(),
            Ok(None) => "direct".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn chooses_the_proxy_of_the_scheme() {
        let both = rules(&[("HTTP_PROXY", "a:1"), ("http_proxy", "b:1"), ("https_proxy", "https://c.example")]);
        assert_eq!(chosen(&both, "http://x.example/"), "http://a:1");
        assert_eq!(chosen(&both, "https://x.example/"), "https://c.example:443");
        let empty = rules(&[("HTTP_PROXY", ""), ("http_proxy", "socks5://u:p%40@b")]);
        assert_eq!(chosen(&empty, "http://x.example/"), "socks5://b:1080");
        assert_eq!(chosen(&empty, "https://x.example/"), "direct");
        let proxy = empty.proxy_for(&Url::parse("http://x.example").unwrap()).unwrap().unwrap();
        assert_eq!(proxy.credentials(), Some(("u", "p@")));
        assert!(!format!("{proxy:?} {proxy}").contains("p@"));
        for local in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:5"] {
            assert_eq!(chosen(&both, local), "direct", "{local}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_use_instead_of_going_direct() {
        let cgi = rules(&[("HTTP_PROXY", "a:1"), ("HTTPS_PROXY", "a:1"), ("REQUEST_METHOD", "GET")]);
        assert!(chosen(&cgi, "http://x.example").contains("CGI"));
        assert_eq!(chosen(&cgi, "https://x.example"), "http://a:1");
        assert!(chosen(&rules(&[("HTTP_PROXY", "ftp://u:secret@a")]), "http://x.example").contains("by ftp://"));
        let broken = chosen(&rules(&[("HTTP_PROXY", "http://u:secret@[")]), "http://x.example");
        assert!(broken.contains("HTTP_PROXY") && !broken.contains("secret"), "{broken}");
    }

    #[test]
    fn no_proxy_names_hosts_networks_and_ports() {
        for (excluded, url, direct) in [
            ("example.com", "http://example.com", true),
            ("example.com", "http://a.example.com", true),
            ("example.com", "http://aexample.com", false),
            (".example.com", "http://example.com", false),
            (".example.com", "http://a.b.example.com", true),
            ("*.example.com", "http://a.example.com", true),
            ("*.example.com", "http://example.com", false),
            ("EXAMPLE.com:8080, other", "http://example.com:8080", true),
            ("example.com:8080", "http://example.com", false),
            ("example.com:443", "https://example.com", true),
            ("10.0.0.0/8", "http://10.1.2.3:5000", true),
            ("10.1.2.3/8", "http://10.9.9.9", true),
            ("10.1.2.3", "http://10.1.2.3:5000", true),
            ("10.1.2.3:5000", "http://10.1.2.3", false),
            ("[2001:db8::1]:80", "http://[2001:db8::1]", true),
            ("2001:db8::/32", "http://[2001:db8:1::1]", true),
            ("*", "http://anything.example", true),
            ("a,*,b", "http://anything.example", true),
            (" , ,:80", "http://x.example", false),
            ("bücher.example", "http://xn--bcher-kva.example", true),
        ] {
            let rules = rules(&[("HTTP_PROXY", "p:1"), ("HTTPS_PROXY", "p:1"), ("NO_PROXY", excluded)]);
            assert_eq!(chosen(&rules, url) == "direct", direct, "{excluded} {url}");
        }
    }
}
