//! The methods by which a caller proves an identity. A further method, such as OIDC bearer tokens, is one more
//! file here and one more value of `access:` in the configuration.

mod certificate;
mod htpasswd;
mod token;
mod upstream;

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

pub(crate) use certificate::Certificate;
pub(crate) use htpasswd::Htpasswd;
pub(crate) use token::Token;
pub(crate) use upstream::{UpstreamAccess, UpstreamRegistry};

use crate::server::auth::credentials::Credentials;
use crate::server::auth::htpasswd::PasswordChecker;
use crate::server::auth::reloading_file::CredentialsFileError;
use crate::server::auth::upstream_query::{BasicCredentials, Permission};
use crate::server::error::Problem;
use crate::server::shown_name::ShownName;
use crate::store::SetAddress;

/// A caller who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The method, as the configuration calls it.
    pub(crate) way: &'static str,
    /// The name there; no secret.
    pub(crate) name: ShownName,
}

/// What a method decides by.
pub(crate) struct AccessAttempt<'a> {
    pub(crate) permission: Permission<'a>,
    pub(crate) set: &'a SetAddress,
    /// The repository of the set; `None` for a path outside of the registry's prefix.
    pub(crate) repository: Option<&'a str>,
    pub(crate) credentials: Credentials<'a>,
    pub(crate) basic: Option<BasicCredentials>,
    /// Read only where a method reads tokens.
    pub(crate) tokens: Vec<Zeroizing<String>>,
    pub(crate) checker: &'a PasswordChecker,
    /// Whom [`UpstreamRegistry`] asks.
    pub(crate) upstream: Option<&'a UpstreamAccess>,
}

/// What an attempt by a method costs; cheap methods are tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cost {
    /// Compares what the request already holds.
    Certificate,
    /// Computes a hash.
    Token,
    /// Computes a slow hash.
    Password,
    /// Asks another server.
    Network,
}

/// A method by which a caller proves an identity.
pub(crate) trait AccessMethod: Send + Sync {
    fn cost(&self) -> Cost;

    /// Tells whether the method lets anybody in.
    fn is_anonymous(&self) -> bool {
        false
    }

    /// Tells whether a caller without credentials could come again with a password.
    fn takes_passwords(&self) -> bool {
        false
    }

    /// Tells whether the method compares tokens. Wrong ones count as failed attempts.
    fn reads_tokens(&self) -> bool {
        false
    }

    /// Returns who calls; `None` if this method does not know the caller.
    ///
    /// # Errors
    /// A refusal that no other method may overrule, or why the method cannot decide.
    fn authenticate<'a>(&'a self, attempt: &'a AccessAttempt<'_>) -> BoxFuture<'a, Result<Option<Identity>, Problem>>;
}

/// Lets anybody read. Rules for anybody are applied before credentials are read, so nothing is left to do here.
pub(crate) struct Anonymous;

impl AccessMethod for Anonymous {
    fn cost(&self) -> Cost {
        Cost::Certificate
    }

    fn is_anonymous(&self) -> bool {
        true
    }

    fn authenticate<'a>(&'a self, _: &'a AccessAttempt<'_>) -> BoxFuture<'a, Result<Option<Identity>, Problem>> {
        Box::pin(async { Ok(None) })
    }
}

/// Reports that nobody can be let in by a file of credentials.
fn unusable(error: CredentialsFileError) -> Problem {
    tracing::error!(%error, "nobody can be let in by a file of credentials");
    Problem::Credentials
}
