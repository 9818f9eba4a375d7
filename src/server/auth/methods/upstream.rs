//! The upstream registry's word about the caller: who may push there may write here, who may pull may read.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{AccessAttempt, AccessMethod, Cost, Identity};
use crate::server::auth::release_queries::QueryCache;
use crate::server::auth::upstream_login::UpstreamLogin;
use crate::server::auth::upstream_permissions::UpstreamPermissions;
use crate::server::auth::upstream_query::{Permission, PermissionQuery};
use crate::server::error::Problem;
use crate::server::shown_name::ShownName;

/// How a registry is asked, and what it has answered.
pub(crate) struct UpstreamAccess {
    permissions: Arc<UpstreamPermissions>,
    login: UpstreamLogin,
    answers: QueryCache,
}

impl UpstreamAccess {
    pub(crate) fn new(permissions: Arc<UpstreamPermissions>, login: UpstreamLogin) -> Self {
        Self { permissions, login, answers: QueryCache::default() }
    }
}

/// Lets in whom the upstream registry lets pull or push.
pub(crate) struct UpstreamRegistry;

impl AccessMethod for UpstreamRegistry {
    fn cost(&self) -> Cost {
        Cost::Network
    }

    fn takes_passwords(&self) -> bool {
        true
    }

    fn authenticate<'a>(&'a self, attempt: &'a AccessAttempt<'_>) -> BoxFuture<'a, Result<Option<Identity>, Problem>> {
        Box::pin(identity(attempt))
    }
}

/// Asks the registry, with Basic credentials or none: a token of ours means nothing to it.
async fn identity(attempt: &AccessAttempt<'_>) -> Result<Option<Identity>, Problem> {
    let Some(UpstreamAccess { permissions, login, answers }) = attempt.upstream else { return Ok(None) };
    let Some(repository) = attempt.repository.filter(|name| !name.is_empty()) else { return Ok(None) };
    let (basic, set, permission) = (attempt.basic.as_ref(), attempt.set, attempt.permission);
    // A registry that lets anybody push never looks at names.
    if permission.is_write() && basic.is_none() {
        return Ok(None);
    }
    let query =
        PermissionQuery { access: permissions, login, repository, set, credentials: attempt.credentials, basic };
    let Permission::See(budget) = permission else { return ask(attempt, query).await };
    let digest = set.digest().to_string();
    let mut parts: Vec<&[u8]> = vec![b"see", repository.as_bytes(), digest.as_bytes()];
    // All of the caller's that the registry is shown.
    match basic {
        Some((user, password)) => parts.extend([user.as_bytes(), password]),
        None => parts.push(b"nobody"),
    }
    answers.ask(attempt.checker.key(&parts), budget, ask(attempt, query)).await
}

/// Asks the registry, and counts the credentials as right or wrong.
async fn ask(attempt: &AccessAttempt<'_>, query: PermissionQuery<'_>) -> Result<Option<Identity>, Problem> {
    let (checker, permission) = (attempt.checker, attempt.permission);
    let Some((user, password)) = query.basic else {
        let granted = query.ask(permission).await?;
        return Ok(granted.then(|| Identity { way: "upstream", name: ShownName::anonymous() }));
    };
    let from = attempt.credentials.caller.from;
    let Some(counted) = checker.begin(from, user, password).await else { return Err(Problem::TooManyFailures) };
    let known = checker.key(&[b"upstream", user.as_bytes(), password]);
    match query.ask(permission).await {
        Ok(true) => {
            counted.right();
            checker.note_right(known).await;
            let name = ShownName::given(user.as_bytes(), password);
            Ok(Some(Identity { way: "upstream", name }))
        }
        // Registries also answer 401 to users without permission. Credentials that were right for another
        // repository are not a guess.
        Ok(false) | Err(Problem::Denied(_)) if checker.is_right(&known).await => {
            counted.right();
            Ok(None)
        }
        Ok(false) => {
            counted.wrong();
            Ok(None)
        }
        Err(problem @ Problem::Denied(_)) => {
            counted.wrong();
            Err(problem)
        }
        Err(problem) => {
            counted.undecided();
            Err(problem)
        }
    }
}
