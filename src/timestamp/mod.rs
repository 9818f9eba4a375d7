//! Time stamps of a time stamping authority (RFC 3161): the question, and the verification of the
//! answer. A time stamp proves that some bytes existed before a moment. Pure: bytes in, verdict out.

mod element;
mod request;
mod response;

pub use request::Request;
pub use response::{Stamp, TimestampError};
