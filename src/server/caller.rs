//! Who asks, how the request came, and whose word about it is believed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderName};

use crate::config::{HttpOrigin, Network, Scheme};
use crate::server::error::shorten;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How much of what proxies say of a request's way is written.
const WAY_SHOWN: usize = 512;

/// Who asks, and how the request came.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The other end of the connection.
    pub(super) peer: SocketAddr,
    /// The client's address, by the word of trusted proxies.
    pub(super) from: IpAddr,
    /// The request's number in the log.
    pub(super) id: u64,
    /// Ourselves, as the client calls us.
    pub(super) client: HttpOrigin,
    /// The path component by which the client named the registry; answers get it back.
    pub(super) below: Option<Arc<str>>,
    /// Whether tokens for this registry are handed out by us (see `token`).
    pub(super) fronted: bool,
    /// Whether the server's own credentials may serve this request: a pull by somebody without any.
    pub(super) own: bool,
}

#[cfg(test)]
impl Caller {
    /// Somebody at this machine.
    pub(super) fn local(id: u64) -> Self {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1234));
        let client = HttpOrigin::localhost(Scheme::Http);
        Self { peer, from: peer.ip(), id, client, below: None, fronted: false, own: false }
    }
}

/// Returns what proxies say of a request's way: addresses, and nothing else that may stand there.
pub(super) fn forwarded_for(headers: &HeaderMap) -> Option<String> {
    let fields = headers.get_all(&FORWARDED_FOR);
    let hops = fields.iter().flat_map(|field| field.to_str().unwrap_or_default().split(',')).map(str::trim);
    let shown = hops.map(|said| if hop(said).is_some() { said } else { "unknown" }).collect::<Vec<_>>();
    (!shown.is_empty()).then(|| shorten(&shown.join(", "), WAY_SHOWN))
}

/// Returns the client's address: the other end of the connection, or, of what trusted proxies have
/// written, the last address that is none of theirs. What a client itself has sent in the header
/// stands before that and does not count.
pub(super) fn address(headers: &HeaderMap, peer: IpAddr, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut from = peer;
    if !is_trusted(peer) {
        return from;
    }
    for field in headers.get_all(FORWARDED_FOR).iter().rev() {
        for said in field.to_str().unwrap_or_default().rsplit(',') {
            let Some(address) = hop(said.trim()) else { return from };
            from = address;
            if !is_trusted(from) {
                return from;
            }
        }
    }
    from
}

/// Reads one address of the header: some proxies write a port, and brackets round IPv6.
pub(super) fn hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok()).and_then(|v| v.split(',').next()).map(str::trim)
}

/// Returns the hosts by which the client may have called this server, the likeliest first.
pub(super) fn called(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    [first(headers, &FORWARDED_HOST), first(headers, &HOST)].into_iter().flatten()
}

/// Returns how the client calls this server: the configured name, else what the headers say.
pub(super) fn client_origin(
    headers: &HeaderMap,
    spoken: Scheme,
    public: Option<&HttpOrigin>,
    listen: SocketAddr,
) -> HttpOrigin {
    if let Some(public) = public {
        return public.clone();
    }
    let scheme = first(headers, &FORWARDED_PROTO).and_then(Scheme::parse).unwrap_or(spoken);
    called(headers)
        .find_map(|authority| HttpOrigin::from_parts(scheme, authority).ok())
        .or_else(|| HttpOrigin::from_parts(scheme, &listen.to_string()).ok())
        .unwrap_or_else(|| HttpOrigin::localhost(scheme))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn the_name_that_the_client_uses() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let public = HttpOrigin::parse("https://public.example").unwrap();
        for (given, expected) in [
            (&[][..], "http://127.0.0.1:8080"),
            (&[("host", "a:1")], "http://a:1"),
            (&[("host", "a"), ("x-forwarded-proto", "https")], "https://a"),
            (&[("host", "a"), ("x-forwarded-proto", "HTTPS, http"), ("x-forwarded-host", "b, c")], "https://b"),
            (&[("host", "a b"), ("x-forwarded-proto", "gopher")], "http://127.0.0.1:8080"),
            (&[("host", "user@a")], "http://127.0.0.1:8080"),
        ] {
            assert_eq!(client_origin(&headers(given), Scheme::Http, None, listen).to_string(), expected, "{given:?}");
            assert_eq!(client_origin(&headers(given), Scheme::Http, Some(&public), listen), public);
        }
    }

    #[test]
    fn the_address_that_may_be_believed() {
        let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
        for (peer, said, from) in [
            ("192.0.2.1", &["1.2.3.4"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6", "1.2.3.4", "10.0.0.2,10.0.0.3"], "1.2.3.4"),
            ("10.0.0.1", &["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            ("10.0.0.1", &["1.2.3.4, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["1.2.3.4:5678"], "1.2.3.4"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            let pairs: Vec<(&'static str, &'static str)> =
                said.iter().map(|value| ("x-forwarded-for", *value)).collect();
            let from: IpAddr = from.parse().unwrap();
            assert_eq!(address(&headers(&pairs), peer.parse().unwrap(), &trusted), from, "{peer} {said:?}");
        }
    }

    #[test]
    fn the_way_of_a_request_is_addresses() {
        let headers = |values: &[&str]| {
            let pairs = values.iter().map(|value| (FORWARDED_FOR, value.parse().unwrap()));
            let mut headers = HeaderMap::new();
            pairs.for_each(|(name, value)| {
                headers.append(name, value);
            });
            headers
        };
        assert_eq!(forwarded_for(&headers(&[])), None);
        let said = headers(&["192.0.2.1, secret", "[2001:db8::1]:80,bob:secret@x"]);
        assert_eq!(forwarded_for(&said).unwrap(), "192.0.2.1, unknown, [2001:db8::1]:80, unknown");
        assert!(forwarded_for(&headers(&[&"192.0.2.1,".repeat(500)])).unwrap().len() < 520);
    }
}
