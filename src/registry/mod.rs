//! The client side of registries and of http lookasides.

pub mod http;
mod insecure;
