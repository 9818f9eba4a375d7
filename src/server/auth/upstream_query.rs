//! One question to the registry about what a caller may do, with the caller's own credentials.

use std::sync::Arc;

use http::StatusCode;
use zeroize::Zeroizing;

use crate::registry;
use crate::server::auth::credentials::Credentials;
use crate::server::auth::release_queries::QueryBudget;
use crate::server::auth::upstream_login::UpstreamLogin;
use crate::server::auth::upstream_permissions::{ManifestState, UpstreamPermissions};
use crate::server::error::Problem;
use crate::store::SetAddress;

/// What is wanted.
#[derive(Clone, Copy)]
pub(crate) enum Permission<'a> {
    Read,
    /// To read by the way, as one of many repositories below a release address.
    See(&'a QueryBudget),
    Write,
}

impl Permission<'_> {
    pub(crate) fn is_write(self) -> bool {
        matches!(self, Self::Write)
    }
}

/// User and password of HTTP Basic.
pub(crate) type BasicCredentials = (String, Zeroizing<Vec<u8>>);

/// A question to the registry about a caller's right.
#[derive(Clone, Copy)]
pub(crate) struct PermissionQuery<'a> {
    pub(crate) access: &'a Arc<UpstreamPermissions>,
    pub(crate) login: &'a UpstreamLogin,
    pub(crate) repository: &'a str,
    pub(crate) set: &'a SetAddress,
    pub(crate) credentials: Credentials<'a>,
    pub(crate) basic: Option<&'a BasicCredentials>,
}

impl PermissionQuery<'_> {
    /// Asks it; `false` is a refusal.
    pub(crate) async fn ask(&self, right: Permission<'_>) -> Result<bool, Problem> {
        let PermissionQuery { access, login, repository, set, credentials, basic } = *self;
        let caller = credentials.caller;
        let credential = basic.map(|(user, password)| {
            registry::Credential::new(user.as_str(), String::from_utf8_lossy(password).into_owned())
        });
        let actions = if right.is_write() { "pull,push" } else { "pull" };
        let headers = |credential| login.headers((repository, actions), credentials.headers, credential, caller.id);
        if right.is_write()
            && let Some(nobody) = headers(None).await?
        {
            match access.push(repository, &nobody, caller).await {
                Err(refused) if is_refusal(&refused) => {}
                Err(other) => return Err(other),
                Ok(()) => {
                    let reason =
                        "the registry takes uploads from anybody, so its word names nobody who could write here";
                    return Err(Problem::Denied(reason.to_owned()));
                }
            }
        }
        let asked = match headers(credential.as_ref()).await? {
            Some(headers) if right.is_write() => access.push(repository, &headers, caller).await.map(|()| true),
            Some(headers) => {
                let found = access.pull(repository, set.digest(), &headers, caller).await;
                found.map(|found| found == ManifestState::Readable)
            }
            None => return Ok(false),
        };
        match asked {
            Ok(true) => Ok(true),
            Ok(false) => Err(Problem::Denied("the registry has no such image for you".to_owned())),
            Err(refused) if is_refusal(&refused) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

fn is_refusal(problem: &Problem) -> bool {
    let refusals = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    matches!(problem, Problem::Unauthorized)
        || matches!(problem, Problem::PassedOn { status, .. } if refusals.contains(status))
}
