//! What integration tests share.

pub mod moto;
