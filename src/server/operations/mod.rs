//! What operators look at: the admin listener, health, the request log and traces.

pub(super) mod admin;
pub(super) mod health;
pub(super) mod request_log;
