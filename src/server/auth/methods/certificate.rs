//! Client certificates, by fingerprint, subject or subject alternative name.

use futures_util::future::BoxFuture;

use super::{AccessAttempt, AccessMethod, Cost, Identity};
use crate::config::CertificateName;
use crate::server::auth::credentials::called;
use crate::server::error::Problem;
use crate::server::shown_name::ShownName;

/// Lets in who has connected with one of these certificates; with no names, any that TLS has verified.
pub(crate) struct Certificate(Vec<CertificateName>);

impl Certificate {
    pub(crate) fn new(names: Vec<CertificateName>) -> Self {
        Self(names)
    }
}

impl AccessMethod for Certificate {
    fn cost(&self) -> Cost {
        Cost::Certificate
    }

    fn authenticate<'a>(&'a self, attempt: &'a AccessAttempt<'_>) -> BoxFuture<'a, Result<Option<Identity>, Problem>> {
        let name = attempt.credentials.certificate.and_then(|certificate| called(certificate, &self.0));
        let identity = name.map(|name| Identity { way: "certificate", name: ShownName::configured(name) });
        Box::pin(async { Ok(identity) })
    }
}
