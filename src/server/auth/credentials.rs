//! What a caller shows of themselves: credentials in the header or the query, a certificate.

use http::{HeaderMap, request};
use zeroize::Zeroizing;

use crate::config::CertificateName;
use crate::server::authorization::Authorization;
use crate::server::caller::Caller;
use crate::server::listener::peer::{ClientCertificate, PeerIdentity};
use crate::server::upstream::scoped_token;

/// What a caller shows of themselves.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a> {
    pub(crate) headers: &'a HeaderMap,
    query: Option<&'a str>,
    pub(crate) certificate: Option<&'a ClientCertificate>,
    pub(crate) caller: &'a Caller,
}

impl<'a> Credentials<'a> {
    pub(crate) fn new(head: &'a request::Parts, caller: &'a Caller) -> Self {
        let identity = head.extensions.get::<PeerIdentity>();
        let certificate = identity.and_then(|identity| identity.certificate.as_deref());
        Self { headers: &head.headers, query: head.uri.query(), certificate, caller }
    }

    /// User and password; a name that is no UTF-8 is nobody's, nor is a token of ours a password.
    pub(crate) fn basic(&self) -> Option<(String, Zeroizing<Vec<u8>>)> {
        let pair = Authorization::of(self.headers)?.basic()?;
        if scoped_token::holds_token(pair.as_bytes()) {
            return None;
        }
        Some((std::str::from_utf8(pair.user()).ok()?.to_owned(), Zeroizing::new(pair.password().to_vec())))
    }

    /// The tokens of the query and of the header; a `+` is a `+`, as clients keep a query byte for
    /// byte and tokens hold no spaces.
    pub(crate) fn tokens(&self) -> Vec<Zeroizing<String>> {
        let query = Zeroizing::new(self.query.unwrap_or_default().replace('+', "%2B"));
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let given = pairs.filter(|(name, _)| name == "token").map(|(_, value)| Zeroizing::new(value.into_owned()));
        let bearer = Authorization::of(self.headers).and_then(Authorization::bearer);
        given.chain(bearer.map(|token| Zeroizing::new(token.to_owned()))).take(MOST_TOKENS).collect()
    }
}

/// More tokens than these are not looked at.
const MOST_TOKENS: usize = 2;

/// Finds the name by which a certificate is let in; with no names given, any is.
pub(crate) fn called(certificate: &ClientCertificate, names: &[CertificateName]) -> Option<String> {
    let fingerprint = hex::encode(certificate.sha256);
    let own = || {
        let mut own = certificate.sans.iter().chain([&certificate.subject]).filter(|name| !name.is_empty());
        own.next().cloned().unwrap_or_else(|| format!("sha256:{fingerprint}"))
    };
    if names.is_empty() {
        return Some(own());
    }
    names.iter().find_map(|name| match name {
        CertificateName::Fingerprint(hex) => (*hex == fingerprint).then(own),
        CertificateName::Name(name) => {
            (certificate.subject == *name || certificate.sans.contains(name)).then(|| name.clone())
        }
    })
}
