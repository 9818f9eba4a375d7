//! What clients read: the lookaside, the list of the signature extension, the release view, the index page,
//! and the cache of signature sets behind them.

pub(super) mod extension;
pub(super) mod index_page;
pub(super) mod lookaside;
pub(super) mod release;
pub(super) mod set_cache;
