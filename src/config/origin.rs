//! An HTTP origin, `scheme://host[:port]`: what the server, its upstream and its public face are called by.

use std::fmt;

/// The scheme of an [`HttpOrigin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// Reads a scheme's name in any case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("http") {
            Some(Self::Http)
        } else if text.eq_ignore_ascii_case("https") {
            Some(Self::Https)
        } else {
            None
        }
    }

    /// Returns `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Returns the port that goes without saying.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Why a text is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Neither `http://` nor `https://` stands in front.
    #[error("expected http://host[:port] or https://host[:port], got {0:?}")]
    Scheme(String),
    /// What follows the scheme is no `host[:port]`.
    #[error("{0:?} is no host[:port]")]
    Authority(String),
    /// There is a path, a query or a fragment.
    #[error("{0:?} has a path or a query; only scheme, host and port have a meaning here")]
    Path(String),
}

/// A scheme, a host and perhaps a port; nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpOrigin {
    scheme: Scheme,
    /// `host[:port]` as it was written.
    authority: String,
    /// How many bytes of `authority` are the host.
    host_length: usize,
    port: Option<u16>,
}

/// Leaves out of what was given instead of an origin what may be secret: userinfo and a query.
fn shown(text: &str) -> String {
    let scheme = text.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at_checked(scheme).unwrap_or(("", text));
    let (hidden, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("xxxxx@", rest));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?xxxxx"));
    format!("{scheme}{hidden}{rest}{query}")
}

impl HttpOrigin {
    /// Parses `scheme://host[:port]`; one `/` at the end is let pass.
    ///
    /// # Errors
    /// [`OriginError`] for everything else, userinfo included.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = text
            .split_once("://")
            .and_then(|(scheme, rest)| Some((Scheme::parse(scheme)?, rest)))
            .ok_or_else(|| OriginError::Scheme(shown(text)))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(OriginError::Path(shown(text)));
        }
        Self::from_parts(scheme, authority)
    }

    /// Builds an origin from a scheme and `host[:port]`.
    ///
    /// # Errors
    /// [`OriginError::Authority`].
    pub fn from_parts(scheme: Scheme, authority: &str) -> Result<Self, OriginError> {
        let wrong = || OriginError::Authority(shown(authority));
        let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        let host = parsed.host();
        let port_text = authority.get(host.len()..).unwrap_or_default();
        let port = match port_text.strip_prefix(':') {
            Some(digits) => Some(digits.parse().map_err(|_| wrong())?),
            None if port_text.is_empty() => None,
            None => return Err(wrong()),
        };
        if host.is_empty() || authority.contains('@') {
            return Err(wrong());
        }
        Ok(Self { scheme, host_length: host.len(), authority: authority.to_owned(), port })
    }

    /// Returns `scheme://localhost`.
    pub fn localhost(scheme: Scheme) -> Self {
        const NAME: &str = "localhost";
        Self { scheme, authority: NAME.to_owned(), host_length: NAME.len(), port: None }
    }

    /// Returns the scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns `host[:port]`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the host; an IPv6 address has its brackets.
    pub fn host(&self) -> &str {
        self.authority.get(..self.host_length).unwrap_or_default()
    }

    /// Returns the port in use.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// Tells whether `other` is the same place, perhaps called by the other scheme: hosts are
    /// equal, and ports are equal or both the default ones of their schemes.
    ///
    /// A registry behind a TLS front calls itself `https://r.example` although it is reached as
    /// `http://r.example`, or the other way round (spec containers-image 3.6).
    pub fn same_place(&self, other: &Self) -> bool {
        self.host().eq_ignore_ascii_case(other.host())
            && (self.port() == other.port()
                || (self.port() == self.scheme.default_port() && other.port() == other.scheme.default_port()))
    }
}

impl fmt::Display for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority)
    }
}

impl<'de> serde::Deserialize<'de> for HttpOrigin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> HttpOrigin {
        HttpOrigin::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn parses_and_prints() {
        for (text, host, port) in [
            ("http://127.0.0.1:5000", "127.0.0.1", 5000),
            ("https://r.example", "r.example", 443),
            ("http://[::1]:5000", "[::1]", 5000),
        ] {
            let parsed = origin(text);
            assert_eq!((parsed.to_string().as_str(), parsed.host(), parsed.port()), (text, host, port));
        }
        assert_eq!(origin("HTTPS://r.example/").to_string(), "https://r.example");
    }

    #[test]
    fn refuses_what_is_more_or_less() {
        for text in [
            "",
            "r.example",
            "ftp://r",
            "http://",
            "http:///x",
            "http://r/x",
            "http://r?x",
            "http://u:p@r",
            "http://r:x",
            "http://r:",
            "http://r:99999",
            "http://a b",
        ] {
            assert!(HttpOrigin::parse(text).is_err(), "{text}");
        }
        for text in [
            "http://bob:secret@r",
            "https://bob:s/secret@r",
            "https://bob:?secret@r",
            "bob:secret@r",
            "http://r?token=secret",
        ] {
            let error = HttpOrigin::parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains("bob"), "{error}");
        }
    }

    #[test]
    fn the_same_place_by_two_schemes() {
        assert!(origin("http://r.example").same_place(&origin("https://R.example:443")));
        assert!(origin("http://r:5000").same_place(&origin("https://r:5000")));
        assert!(!origin("http://r:5000").same_place(&origin("http://r:5001")));
        assert!(!origin("http://r").same_place(&origin("http://r:5000")));
        assert!(!origin("http://r").same_place(&origin("http://r.example")));
    }
}
