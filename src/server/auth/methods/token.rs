//! Tokens of a file, in `Authorization: Bearer` or in the query.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{AccessAttempt, AccessMethod, Cost, Identity, unusable};
use crate::server::auth::token_file::TokenFile;
use crate::server::error::Problem;
use crate::server::shown_name::ShownName;

/// Lets in who has one of the file's tokens.
pub(crate) struct Token(Arc<TokenFile>);

impl Token {
    pub(crate) fn new(file: Arc<TokenFile>) -> Self {
        Self(file)
    }

    fn identity(&self, attempt: &AccessAttempt<'_>) -> Result<Option<Identity>, Problem> {
        for token in &attempt.tokens {
            if let Some(name) = self.0.whose(token.as_bytes()).map_err(unusable)? {
                return Ok(Some(Identity { way: "token", name: ShownName::configured(name) }));
            }
        }
        Ok(None)
    }
}

impl AccessMethod for Token {
    fn cost(&self) -> Cost {
        Cost::Token
    }

    fn reads_tokens(&self) -> bool {
        true
    }

    fn authenticate<'a>(&'a self, attempt: &'a AccessAttempt<'_>) -> BoxFuture<'a, Result<Option<Identity>, Problem>> {
        Box::pin(async { self.identity(attempt) })
    }
}
