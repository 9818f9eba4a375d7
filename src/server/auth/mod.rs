//! Who may read and write: the operator's access rules, the ways to prove an identity (passwords, tokens,
//! certificates), and what the upstream registry lets a caller do.

pub(super) mod access_rules;
pub(super) mod attempts;
pub(super) mod credentials;
pub(super) mod htpasswd;
pub(super) mod methods;
pub(super) mod release_queries;
pub(super) mod reloading_file;
pub(super) mod token_file;
pub(super) mod token_lifetime;
pub(super) mod upstream_login;
pub(super) mod upstream_permissions;
pub(super) mod upstream_query;
