//! The base URL of a lookaside, and the address of each signature below it
//! (spec containers-image 1.5, 2.1).
//!
//! A base is taken as it stands: nothing is joined, cleaned or resolved, so that we ask for, and
//! serve, byte for byte the address that skopeo and podman ask for.

use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroU32;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::go_url::GoUrl;
use crate::go;
use crate::image::Digest;

/// What shall be done with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fetch it.
    Read,
    /// Store it.
    Write,
    /// Remove it.
    Delete,
}

/// Why a lookaside cannot be used. The sentences are containers/image's own, passwords left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookasideError {
    /// The configured text is no URL: an error as soon as an image is opened, whatever is used.
    #[error("Invalid signature storage URL {url}: parse {}: {reason}", go::quote(.parsed.as_bytes()))]
    Invalid {
        /// The text, its password replaced.
        url: String,
        /// What of it was being parsed: without the fragment, unless that is the fault.
        parsed: String,
        /// What is wrong, in the words of Go's net/url.
        reason: String,
    },
    /// A lookaside on HTTP is read-only.
    #[error("Writing directly to a {scheme} lookaside {url} is not supported. Configure a lookaside-staging: location")]
    ReadOnly {
        /// `http` or `https`.
        scheme: String,
        /// The address of the signature.
        url: String,
    },
    /// The URL says `http` but names no host.
    #[error("Get {}: http: no Host in request URL", go::quote(.url.as_bytes()))]
    NoHost {
        /// The address of the signature.
        url: String,
    },
    /// Neither a file nor HTTP; a bare path is such a one.
    #[error("Unsupported scheme when {verb} {url}")]
    Scheme {
        /// What was tried: `reading signature from`, `writing signature to`, `deleting signature from`.
        verb: &'static str,
        /// The address of the signature.
        url: String,
    },
}

/// Where one signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureLocation {
    /// A file, and so a place to write.
    File(PathBuf),
    /// An URL to GET: absolute, without userinfo and fragment.
    Http(String),
}

/// The base URL of a lookaside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookasideBase(GoUrl);

impl LookasideBase {
    /// Parses a configured URL as Go's `url.Parse` does. Any scheme, or none, will do; it matters
    /// only when the base is used.
    ///
    /// # Errors
    /// [`LookasideError::Invalid`].
    pub fn parse(text: &str) -> Result<Self, LookasideError> {
        GoUrl::parse(text).map(Self).map_err(|reason| {
            let shown = without_password(text);
            // Go names the text without its fragment, unless the fragment is at fault.
            let (before, _) = text.split_once('#').unwrap_or((text, ""));
            let whole = GoUrl::parse(before).is_ok();
            let parsed = if whole { shown.clone() } else { without_password(before) };
            LookasideError::Invalid { url: shown, parsed, reason }
        })
    }

    /// Makes a base of a directory, escaping nothing: the built-in defaults are made so.
    pub fn from_directory(path: &Path) -> Self {
        Self(GoUrl::file(path.as_os_str().as_bytes().to_vec()))
    }

    /// Returns the scheme in lower case; empty for a bare path.
    pub fn scheme(&self) -> &str {
        &self.0.scheme
    }

    /// Returns the base without the slashes at the end of its path; `None` if it has none there.
    pub fn without_slash(&self) -> Option<Self> {
        self.0.without_slash().map(Self)
    }

    /// Tells whether the base is on HTTP, with or without TLS.
    pub fn is_http(&self) -> bool {
        matches!(self.0.scheme.as_str(), "http" | "https")
    }

    /// Tells whether the base is a directory.
    pub fn is_file(&self) -> bool {
        self.0.scheme == "file"
    }

    /// Returns the value of the `Authorization` header that every request carries, if the URL has
    /// userinfo. It is a secret.
    pub fn authorization(&self) -> Option<String> {
        let user = self.0.user.as_ref()?;
        let plain = [user.name.as_slice(), b":", user.password.as_deref().unwrap_or_default()].concat();
        Some(format!("Basic {}", STANDARD.encode(plain)))
    }

    /// Returns the URL's userinfo, escaped as it stands in an URL. It is a secret.
    pub fn userinfo(&self) -> Option<String> {
        self.0.user.as_ref().map(super::go_url::Userinfo::escaped)
    }

    /// Builds the URL to GET for signature `index` of a manifest. `repository` is the path without
    /// the host. Userinfo goes into [`LookasideBase::authorization`], the fragment nowhere, the
    /// query stays, and the base path is escaped anew from its decoded form.
    ///
    /// Means nothing for other schemes than http and https, nor without a host; see
    /// [`LookasideBase::locate`], which knows.
    pub fn signature_url(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> String {
        let url = self.below(repository, digest, index);
        if url.host.is_empty() {
            return url.redacted();
        }
        format!("{}://{}{}", url.scheme, url.escaped_host(), url.request_uri())
    }

    /// As [`LookasideBase::signature_url`], with the userinfo in it. It is a secret.
    pub fn authorized_url(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> String {
        let url = self.signature_url(repository, digest, index);
        match (self.userinfo(), url.split_once("://")) {
            (Some(userinfo), Some((scheme, rest))) => format!("{scheme}://{userinfo}@{rest}"),
            _ => url,
        }
    }

    /// Builds the path of the file of signature `index`: the decoded base path is used as it is,
    /// the host is not looked at.
    pub fn file_path(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.below(repository, digest, index).path))
    }

    /// Returns the directory of all signatures of a manifest.
    pub fn directory(&self, repository: &str, digest: &Digest) -> PathBuf {
        let mut path = self.0.path.clone();
        path.extend_from_slice(format!("/{repository}@{}", digest.path_form()).as_bytes());
        PathBuf::from(std::ffi::OsString::from_vec(path))
    }

    /// Returns how messages name signature `index`: the whole URL, a password replaced.
    pub fn redacted_url(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> String {
        self.below(repository, digest, index).redacted()
    }

    /// Finds where signature `index` is, if the base's scheme allows for the operation.
    ///
    /// # Errors
    /// [`LookasideError::ReadOnly`] and [`LookasideError::Scheme`], in the reference's sentences.
    pub fn locate(
        &self,
        operation: Operation,
        repository: &str,
        digest: &Digest,
        index: NonZeroU32,
    ) -> Result<SignatureLocation, LookasideError> {
        let verb = match operation {
            _ if self.is_file() => return Ok(SignatureLocation::File(self.file_path(repository, digest, index))),
            Operation::Read if self.is_http() && self.0.host.is_empty() => {
                return Err(LookasideError::NoHost { url: self.redacted_url(repository, digest, index) });
            }
            Operation::Read if self.is_http() => {
                return Ok(SignatureLocation::Http(self.signature_url(repository, digest, index)));
            }
            Operation::Write | Operation::Delete if self.is_http() => {
                let url = self.redacted_url(repository, digest, index);
                return Err(LookasideError::ReadOnly { scheme: self.0.scheme.clone(), url });
            }
            Operation::Read => "reading signature from",
            Operation::Write => "writing signature to",
            Operation::Delete => "deleting signature from",
        };
        Err(LookasideError::Scheme { verb, url: self.redacted_url(repository, digest, index) })
    }

    fn below(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> GoUrl {
        let mut url = self.0.clone();
        url.path.extend_from_slice(format!("/{repository}@{}/signature-{index}", digest.path_form()).as_bytes());
        url
    }
}

/// Prints the URL as Go's `URL.Redacted` does: a password is `xxxxx`.
impl fmt::Display for LookasideBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.redacted())
    }
}

/// Replaces what may be a password in a text that is no URL. Here we say less than the reference,
/// which repeats the text with its secret.
fn without_password(text: &str) -> String {
    let start = text.find("//").map_or(0, |at| at + 2);
    let authority = text.get(start..).unwrap_or_default();
    let masked = authority.rsplit_once('@').and_then(|(user, host)| {
        let (name, _) = user.split_once(':')?;
        Some(format!("{}{name}:xxxxx@{host}", text.get(..start)?))
    });
    masked.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn digest() -> Digest {
        Digest::sha256(b"")
    }

    fn base(text: &str) -> LookasideBase {
        LookasideBase::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn locate(text: &str, operation: Operation) -> Result<SignatureLocation, String> {
        base(text)
            .locate(operation, "birds/bluebird", &digest(), NonZeroU32::MIN)
            .map_err(|error| error.to_string().replace(&tail(), "…"))
    }

    fn tail() -> String {
        format!("/birds/bluebird@sha256={EMPTY}/signature-1")
    }

    #[test]
    fn http_bases() {
        for (text, before, after) in [
            ("https://h/x", "https://h/x", ""),
            ("https://h/ok/", "https://h/ok/", ""),
            ("https://h", "https://h", ""),
            ("HTTP://h:8080/", "http://h:8080/", ""),
            ("http://h:80/", "http://h:80/", ""),
            ("http://H.example", "http://H.example", ""),
            ("http://h/o%6B", "http://h/ok", ""),
            ("http://h/a%2Fb", "http://h/a/b", ""),
            ("http://h/a b", "http://h/a%20b", ""),
            ("http://h/é%FF%3f%25", "http://h/%C3%A9%FF%3F%25", ""),
            ("http://h/@=:&+$,;", "http://h/@=:&+$,;", ""),
            ("http://h/!'()*[]", "http://h/%21%27%28%29%2A%5B%5D", ""),
            ("http://h/x/../y//./z", "http://h/x/../y//./z", ""),
            ("http://h/ok?token=a%2Fb&x=1", "http://h/ok", "?token=a%2Fb&x=1"),
            ("http://h/ok?", "http://h/ok", "?"),
            ("http://h/ok??a b", "http://h/ok", "??a b"),
            ("http://h/ok?x=1#part", "http://h/ok", "?x=1"),
            ("http://h/ok#part?x", "http://h/ok", ""),
            ("http://user:p%40ss@h/ok", "http://h/ok", ""),
            ("http://[::1]:8080/x", "http://[::1]:8080/x", ""),
            ("http://[fe80::1%25en0]/x", "http://[fe80::1%25en0]/x", ""),
            ("http://h:/x", "http://h:/x", ""),
        ] {
            let url = base(text).signature_url("birds/bluebird", &digest(), NonZeroU32::MIN);
            assert_eq!(url, format!("{before}{}{after}", tail()), "{text}");
            assert_eq!(locate(text, Operation::Read), Ok(SignatureLocation::Http(url)));
        }
        let third = base("http://h").signature_url("r", &digest(), NonZeroU32::new(127).unwrap());
        assert_eq!(third, format!("http://h/r@sha256={EMPTY}/signature-127"));
    }

    #[test]
    fn file_bases() {
        for (text, directory) in [
            ("file:///srv/x", "/srv/x"),
            ("file:///srv/x/", "/srv/x/"),
            ("file:/srv/x", "/srv/x"),
            ("FILE:///srv/x", "/srv/x"),
            ("file://host/srv/x", "/srv/x"),
            ("file:////srv/x", "//srv/x"),
            ("file:///srv/a%20b%2Fc", "/srv/a b/c"),
            ("file:///srv/a b?q#f", "/srv/a b"),
            ("file:///srv/../x", "/srv/../x"),
            ("file:relative", ""),
            ("file://", ""),
        ] {
            let path = format!("{directory}{}", tail());
            for operation in [Operation::Read, Operation::Write, Operation::Delete] {
                assert_eq!(locate(text, operation), Ok(SignatureLocation::File(path.clone().into())), "{text}");
            }
            let parent = base(text).directory("birds/bluebird", &digest());
            assert_eq!(Some(parent.as_path()), Path::new(&path).parent());
        }
        assert_eq!(LookasideBase::from_directory(Path::new("/a b/%41")).to_string(), "file:///a%20b/%2541");
    }

    #[test]
    fn operations_by_scheme() {
        use Operation::{Delete, Read, Write};
        let read_only = "Writing directly to a https lookaside https://u:xxxxx@h/x… is not supported. Configure a \
                         lookaside-staging: location";
        for (text, operation, sentence) in [
            ("https://u:p@h/x", Write, read_only),
            ("https://u:p@h/x", Delete, read_only),
            ("/mnt/x", Read, "Unsupported scheme when reading signature from /mnt/x…"),
            ("/mnt/x", Write, "Unsupported scheme when writing signature to /mnt/x…"),
            ("/mnt/x", Delete, "Unsupported scheme when deleting signature from /mnt/x…"),
            ("relative", Read, "Unsupported scheme when reading signature from relative…"),
            ("ftp://h/x", Read, "Unsupported scheme when reading signature from ftp://h/x…"),
            ("s3://b/x?q", Write, "Unsupported scheme when writing signature to s3://b/x…?q"),
            ("mailto:x", Read, "Unsupported scheme when reading signature from mailto:x"),
            ("//h/x", Read, "Unsupported scheme when reading signature from //h/x…"),
            ("http:h", Read, "Get \"http:h\": http: no Host in request URL"),
        ] {
            assert_eq!(locate(text, operation), Err(sentence.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_url() {
        for (text, reason) in [
            (":emptyscheme", "missing protocol scheme"),
            ("http://h:bad/", "invalid port \":bad\" after host"),
            ("http://h:1x", "invalid port \":1x\" after host"),
            ("http://[::1", "missing ']' in host"),
            ("http://[::1]x/", "invalid port \"x\" after host"),
            ("http://[nine]/", "invalid host: ParseAddr(\"nine\"): unable to parse IP"),
            ("http://h/%zz", "invalid URL escape \"%zz\""),
            ("http://h/%4", "invalid URL escape \"%4\""),
            ("http://h%41/", "invalid URL escape \"%41\""),
            ("http://a b/", "invalid character \" \" in host name"),
            ("http://u{}@h/", "net/url: invalid userinfo"),
            ("a:b/c:d", ""),
            ("a_b:c", "first path segment in URL cannot contain colon"),
            ("http://h/\u{7f}", "net/url: invalid control character in URL"),
            ("http://h/#%zz", "invalid URL escape \"%zz\""),
        ] {
            let result = LookasideBase::parse(text).map_err(|error| error.to_string());
            if reason.is_empty() {
                assert!(result.is_ok(), "{text}");
                continue;
            }
            let parsed = go::quote(text.as_bytes());
            let sentence = format!("Invalid signature storage URL {text}: parse {parsed}: {reason}");
            assert_eq!(result, Err(sentence));
        }
        let error = LookasideBase::parse(":x#part").unwrap_err().to_string();
        assert_eq!(error, "Invalid signature storage URL :x#part: parse \":x\": missing protocol scheme");
    }

    #[test]
    fn passwords_are_for_the_header_alone() {
        let with_password = base("https://us%65r:s%3Acret@h/x?y");
        assert_eq!(with_password.to_string(), "https://user:xxxxx@h/x?y");
        assert!(!format!("{with_password:?}").contains("cret"));
        assert_eq!(with_password.authorization().as_deref(), Some("Basic dXNlcjpzOmNyZXQ="));
        assert_eq!(base("https://user@h/x").authorization().as_deref(), Some("Basic dXNlcjo="));
        assert_eq!(base("https://h/x").authorization(), None);
        let error = LookasideBase::parse("https://user:secret@h:bad/").unwrap_err().to_string();
        assert!(error.contains("user:xxxxx@h:bad") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn prints_as_go_does() {
        for text in [
            "https://h/x",
            "https://h",
            "http://h/a%2Fb",
            "file:///srv/x",
            "file:/srv/x",
            "/mnt/x",
            "relative",
            "//h/x",
            "http://h/?q",
            "http://h/?",
            "mailto:x?y#z",
            "http://h/#a%20b",
            "*",
            "http://h/(x)",
            "",
        ] {
            assert_eq!(base(text).to_string(), text);
        }
        for (text, printed) in [("HTTP://h", "http://h"), ("http://h/a b", "http://h/a%20b"), ("x:", "x:")] {
            assert_eq!(base(text).to_string(), printed);
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,80}", index in 1u32..) {
            if let Ok(base) = LookasideBase::parse(&text) {
                let index = NonZeroU32::new(index).unwrap();
                for operation in [Operation::Read, Operation::Write, Operation::Delete] {
                    let _ = base.locate(operation, "a/b", &digest(), index);
                }
                let _ = (base.signature_url("a/b", &digest(), index), base.file_path("a/b", &digest(), index));
                let _ = (base.to_string(), base.authorization());
            }
        }

        #[test]
        fn never_panics_on_what_looks_like_urls(text in "(http|file|s3|:)?:?/{0,3}([a-z%@:?#\\[\\]/. é]|%[0-9a-fA-F]{0,2}){0,20}") {
            if let Ok(base) = LookasideBase::parse(&text) {
                // What is printed means the same base, but for the password.
                let printed = base.to_string();
                if !printed.contains("xxxxx") {
                    let again = LookasideBase::parse(&printed).unwrap();
                    proptest::prop_assert_eq!(
                        again.signature_url("a/b", &digest(), NonZeroU32::MIN),
                        base.signature_url("a/b", &digest(), NonZeroU32::MIN)
                    );
                }
            }
        }
    }
}
