//! Users and passwords of an htpasswd file, in `Authorization: Basic`.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{AccessAttempt, AccessMethod, Cost, Identity, unusable};
use crate::server::auth::htpasswd::{HtpasswdFile, PasswordCheck};
use crate::server::error::Problem;
use crate::server::shown_name::ShownName;

/// Lets in the users of a file.
pub(crate) struct Htpasswd(Arc<HtpasswdFile>);

impl Htpasswd {
    pub(crate) fn new(file: Arc<HtpasswdFile>) -> Self {
        Self(file)
    }

    async fn identity(&self, attempt: &AccessAttempt<'_>) -> Result<Option<Identity>, Problem> {
        let Some((user, password)) = &attempt.basic else { return Ok(None) };
        let from = attempt.credentials.caller.from;
        match self.0.verify(attempt.checker, (user, password), from).await.map_err(unusable)? {
            PasswordCheck::Right => Ok(Some(Identity { way: "htpasswd", name: ShownName::configured(user.as_str()) })),
            PasswordCheck::Wrong => Ok(None),
            PasswordCheck::TooMany => Err(Problem::TooManyFailures),
            PasswordCheck::Crowded => Err(Problem::TooManyRequests),
            PasswordCheck::Busy => Err(Problem::Busy),
        }
    }
}

impl AccessMethod for Htpasswd {
    fn cost(&self) -> Cost {
        Cost::Password
    }

    fn takes_passwords(&self) -> bool {
        true
    }

    fn authenticate<'a>(&'a self, attempt: &'a AccessAttempt<'_>) -> BoxFuture<'a, Result<Option<Identity>, Problem>> {
        Box::pin(self.identity(attempt))
    }
}
