//! `net/url` of Go, as far as a lookaside base needs it: what parses, in which words it fails, and
//! how the parts are decoded and written again. WHATWG's rules (the `url` crate) would resolve
//! `..`, drop default ports and keep `%2F`, which the reference does not (spec containers-image 2.1).

use std::net::Ipv6Addr;

use crate::go;

/// Where in a URL some bytes stand; each part has its own set of bytes that need no escape.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Host,
    Zone,
    Userinfo,
    Fragment,
}

/// A parsed URL. Path, host and userinfo are decoded, the query is as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GoUrl {
    /// In lower case; empty when there is none.
    pub(super) scheme: String,
    pub(super) opaque: String,
    pub(super) user: Option<Userinfo>,
    pub(super) host: Vec<u8>,
    pub(super) path: Vec<u8>,
    /// Whether it was `scheme:/path`, without the slashes of an empty authority.
    omit_host: bool,
    /// How the path was written, if that is not how it would be written again.
    raw_path: Vec<u8>,
    /// Without the `?`; `Some("")` for a bare `?` at the end.
    pub(super) query: Option<String>,
    fragment: Vec<u8>,
    raw_fragment: Vec<u8>,
}

/// A user name and perhaps a password, decoded.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Userinfo {
    pub(super) name: Vec<u8>,
    pub(super) password: Option<Vec<u8>>,
}

impl Userinfo {
    /// Returns the form that stands in an URL, password included.
    pub(super) fn escaped(&self) -> String {
        let mut out = escape(&self.name, Part::Userinfo);
        if let Some(password) = &self.password {
            out.push(':');
            out.push_str(&escape(password, Part::Userinfo));
        }
        out
    }
}

/// Says that there is a password, never which.
impl std::fmt::Debug for Userinfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = self.password.as_ref().map(|_| "xxxxx");
        f.debug_struct("Userinfo")
            .field("name", &String::from_utf8_lossy(&self.name))
            .field("password", &password)
            .finish()
    }
}

impl GoUrl {
    /// Returns the URL without the slashes at the end of its path; `None` if it has none there.
    pub(super) fn without_slash(&self) -> Option<Self> {
        let mut url = Self { raw_path: Vec::new(), ..self.clone() };
        while url.path.ends_with(b"/") {
            url.path.pop();
        }
        (url.path != self.path).then_some(url)
    }

    /// Makes a `file` URL of a decoded path.
    pub(super) fn file(path: Vec<u8>) -> Self {
        Self { scheme: "file".to_owned(), path, ..Self::default() }
    }

    /// `url.Parse`; the error is the sentence after `parse "…": `.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let mut url = Self::parse_without_fragment(rest)?;
        if !fragment.is_empty() {
            url.fragment = unescape(fragment.as_bytes(), Part::Fragment)?;
            if escape(&url.fragment, Part::Fragment) != fragment {
                url.raw_fragment = fragment.as_bytes().to_vec();
            }
        }
        Ok(url)
    }

    fn parse_without_fragment(text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        if text == "*" {
            return Ok(Self { path: b"*".to_vec(), ..Self::default() });
        }
        let (scheme, rest) = split_scheme(text)?;
        let mut url = Self { scheme: scheme.to_ascii_lowercase(), ..Self::default() };
        let (mut rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        // An empty query is kept only where it ends the text, which is the only place it can be.
        url.query = query.map(str::to_owned);

        if !rest.starts_with('/') {
            if !url.scheme.is_empty() {
                rest.clone_into(&mut url.opaque);
                return Ok(url);
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
        }
        let has_authority = !url.scheme.is_empty() || !rest.starts_with("///");
        if let Some(authority) = rest.strip_prefix("//").filter(|_| has_authority) {
            let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
            (url.user, url.host) = parse_authority(authority)?;
            rest = path;
        } else if !url.scheme.is_empty() {
            url.omit_host = true;
        }
        url.path = unescape(rest.as_bytes(), Part::Path)?;
        if escape(&url.path, Part::Path) != rest {
            url.raw_path = rest.as_bytes().to_vec();
        }
        Ok(url)
    }

    /// `URL.EscapedPath`.
    fn escaped_path(&self) -> String {
        if let Some(raw) = still_valid(&self.raw_path, &self.path, Part::Path) {
            return raw;
        }
        if self.path == b"*" { "*".to_owned() } else { escape(&self.path, Part::Path) }
    }

    /// Returns the host as it is written, port and brackets included.
    pub(super) fn escaped_host(&self) -> String {
        escape(&self.host, Part::Host)
    }

    /// `URL.Redacted`: the whole URL, a password replaced by `xxxxx`.
    pub(super) fn redacted(&self) -> String {
        let mut out = String::new();
        if !self.scheme.is_empty() {
            out.push_str(&self.scheme);
            out.push(':');
        }
        if self.opaque.is_empty() {
            self.write_hierarchy(&mut out);
        } else {
            out.push_str(&self.opaque);
        }
        if let Some(query) = &self.query {
            out.push('?');
            out.push_str(query);
        }
        if !self.fragment.is_empty() {
            out.push('#');
            let raw = still_valid(&self.raw_fragment, &self.fragment, Part::Fragment);
            out.push_str(&raw.unwrap_or_else(|| escape(&self.fragment, Part::Fragment)));
        }
        out
    }

    fn write_hierarchy(&self, out: &mut String) {
        let empty_authority = !self.scheme.is_empty() && !self.path.is_empty() && !self.omit_host;
        if !self.host.is_empty() || self.user.is_some() || empty_authority {
            out.push_str("//");
            if let Some(user) = &self.user {
                out.push_str(&escape(&user.name, Part::Userinfo));
                out.push_str(if user.password.is_some() { ":xxxxx@" } else { "@" });
            }
            out.push_str(&self.escaped_host());
        }
        let path = self.escaped_path();
        if !path.is_empty() && !path.starts_with('/') && !self.host.is_empty() {
            out.push('/');
        }
        if out.is_empty() && path.split('/').next().is_some_and(|segment| segment.contains(':')) {
            out.push_str("./");
        }
        out.push_str(&path);
    }

    /// `URL.RequestURI`: what stands in the request line of an HTTP request.
    pub(super) fn request_uri(&self) -> String {
        let mut target = if self.opaque.is_empty() {
            self.escaped_path()
        } else if self.opaque.starts_with("//") {
            format!("{}:{}", self.scheme, self.opaque)
        } else {
            self.opaque.clone()
        };
        if target.is_empty() {
            target.push('/');
        }
        if let Some(query) = &self.query {
            target.push('?');
            target.push_str(query);
        }
        target
    }
}

/// Gives back how a part was written, if that is well formed and still means the same.
fn still_valid(raw: &[u8], decoded: &[u8], part: Part) -> Option<String> {
    let well_formed = !raw.is_empty()
        && raw.iter().all(|b| {
            matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
                || matches!(b, b'[' | b']' | b'%')
                || !should_escape(*b, part)
        });
    let same = well_formed && unescape(raw, part).is_ok_and(|again| again == decoded);
    if same { String::from_utf8(raw.to_vec()).ok() } else { None }
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => {
                return Ok((text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()));
            }
            _ => break,
        }
    }
    Ok(("", text))
}

fn parse_authority(text: &str) -> Result<(Option<Userinfo>, Vec<u8>), String> {
    let Some((user, host)) = text.rsplit_once('@') else { return Ok((None, parse_host(text)?)) };
    let host = parse_host(host)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
    if !user.bytes().all(allowed) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
    let decode = |text: &str| unescape(text.as_bytes(), Part::Userinfo);
    Ok((Some(Userinfo { name: decode(name)?, password: password.map(decode).transpose()? }), host))
}

fn parse_host(text: &str) -> Result<Vec<u8>, String> {
    let check_port = |port: &str| match port.strip_prefix(':') {
        _ if port.is_empty() => Ok(()),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
        _ => Err(format!("invalid port {} after host", go::quote(port.as_bytes()))),
    };
    let Some(open) = text.rfind('[') else {
        if let Some(colon) = text.rfind(':') {
            check_port(text.get(colon..).unwrap_or_default())?;
        }
        return unescape(text.as_bytes(), Part::Host);
    };
    let Some(close) = text.rfind(']').filter(|close| *close > open) else {
        return Err("missing ']' in host".to_owned());
    };
    let port = text.get(close + 1..).unwrap_or_default();
    check_port(port)?;
    if open != 0 {
        return Err("invalid IP-literal".to_owned());
    }
    let inner = text.get(open + 1..close).unwrap_or_default();
    let (address, zone) = inner.split_at(inner.find("%25").unwrap_or(inner.len()));
    let address = unescape(address.as_bytes(), Part::Host)?;
    let zone = unescape(zone.as_bytes(), Part::Zone)?;
    // Brackets are for IPv6 alone, since Go 1.25.2.
    let parsed = std::str::from_utf8(&address).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
    if parsed.is_none() || zone.len() == 1 {
        let given = go::quote([address.as_slice(), &zone].concat());
        return Err(format!("invalid host: ParseAddr({given}): unable to parse IP"));
    }
    Ok([b"[", address.as_slice(), &zone, b"]", port.as_bytes()].concat())
}

fn should_escape(byte: u8, part: Part) -> bool {
    match byte {
        _ if byte.is_ascii_alphanumeric() => false,
        b'-' | b'_' | b'.' | b'~' => false,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'[' | b']' | b'<'
        | b'>' | b'"'
            if matches!(part, Part::Host | Part::Zone) =>
        {
            false
        }
        b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'?' | b'@' => match part {
            Part::Path => byte == b'?',
            Part::Userinfo => matches!(byte, b'@' | b'/' | b'?' | b':'),
            Part::Fragment => false,
            Part::Host | Part::Zone => true,
        },
        b'!' | b'(' | b')' | b'*' if part == Part::Fragment => false,
        _ => true,
    }
}

fn escape(bytes: &[u8], part: Part) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if should_escape(*byte, part) {
            out.push_str(&format!("%{byte:02X}"));
        } else {
            out.push(char::from(*byte));
        }
    }
    out
}

fn unescape(text: &[u8], part: Part) -> Result<Vec<u8>, String> {
    let bad = |escape: &[u8]| Err(format!("invalid URL escape {}", go::quote(escape)));
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            if matches!(part, Part::Host | Part::Zone) && *first < 0x80 && should_escape(*first, part) {
                return Err(format!("invalid character {} in host name", go::quote([*first])));
            }
            out.push(*first);
            rest = tail;
            continue;
        }
        let (escape, after) = rest.split_at_checked(3).unwrap_or((rest, &[]));
        let mut byte = [0u8];
        if hex::decode_to_slice(escape.get(1..).unwrap_or_default(), &mut byte).is_err() {
            return bad(escape);
        }
        let [byte] = byte;
        // Hosts may escape bytes beyond ASCII alone; zones what a host could also hold as it is.
        let refused = match part {
            Part::Host => byte < 0x80 && escape != b"%25",
            Part::Zone => escape != b"%25" && byte != b' ' && should_escape(byte, Part::Host),
            Part::Path | Part::Userinfo | Part::Fragment => false,
        };
        if refused {
            return bad(escape);
        }
        out.push(byte);
        rest = after;
    }
    Ok(out)
}
