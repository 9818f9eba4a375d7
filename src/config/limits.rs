//! `limits` in the server's configuration: against exhaustion, by greed or by slowness.
//!
//! No time here bounds a whole transfer: a blob of any size may take as long as it moves.

use serde::Deserialize;

use crate::store::MOST_SIGNATURES;

use super::server::time_limit;

/// Limits against exhaustion. Every field may be left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// Threads that serve. 0 (the default): one for each processor, up to 16.
    pub threads: usize,
    /// Connections at once; one more is told 503 and closed. Default 4096.
    pub connections: usize,
    /// Connections at once of one client (an IPv4 address, an IPv6 /64); one more is told 429 and
    /// closed. Set it to `connections` when all come through one front. Default 1024.
    pub connections_per_client: usize,
    /// Requests in flight at once; one more is 503. Default 8192.
    pub requests: usize,
    /// Requests in flight at once of one client; one more is 429. Default 1024.
    pub requests_per_client: usize,
    /// Requests at once on one HTTP/2 connection. Default 100.
    pub streams: u32,
    /// The size of a request's header, in bytes, with its first and its empty line; of HTTP/2 as RFC
    /// 9113 6.5.2 counts it (32 more for each field). More is 431, and so are more than 100 fields of
    /// HTTP/1.1. At least 8192. Default 65536.
    pub header_bytes: usize,
    /// How long a request's header may take to arrive, in seconds. Default 30.
    #[serde(deserialize_with = "time_limit")]
    pub header_seconds: u64,
    /// How long a connection may lie idle between requests, in seconds. Default 60.
    #[serde(deserialize_with = "time_limit")]
    pub idle_seconds: u64,
    /// How long a TLS handshake may take, in seconds. Default 10.
    #[serde(deserialize_with = "time_limit")]
    pub handshake_seconds: u64,
    /// The size of any request's body, blobs too, in bytes; more is 413. 0 (the default): the
    /// registry decides.
    pub body_bytes: u64,
    /// How long a client may pause within a request's body, in seconds. Default 30.
    #[serde(deserialize_with = "time_limit")]
    pub body_seconds: u64,
    /// The least bytes a second, beyond `body_seconds`, at which a body must come; 0 turns this
    /// off. Default 500.
    pub body_rate: u64,
    /// How long a client may not take a byte of its answer, in seconds. Default 60.
    #[serde(deserialize_with = "time_limit")]
    pub write_seconds: u64,
    /// Bytes a second that one client may send in bodies; faster ones are slowed down. 0 (the
    /// default): as fast as it goes.
    pub upload_rate: u64,
    /// The size of an uploaded signature's JSON, in bytes; more is 413. Default 6 MiB.
    pub upload_bytes: usize,
    /// How long an uploaded signature's body may take, in seconds. Default 30.
    #[serde(deserialize_with = "time_limit")]
    pub upload_seconds: u64,
    /// Upload bodies of more than 16 KiB that are held in memory at once, of one client half of them;
    /// and uploads that are judged and stored at once. More wait, clients in turn. Default 32.
    pub uploads: usize,
    /// Signatures of one digest, [`MOST_SIGNATURES`] at most: clients fail at one more. Default 127.
    #[serde(deserialize_with = "signatures_limit")]
    pub signatures_per_digest: usize,
    /// Whether reads of the lookaside are parsed and written by the server's own code, which is
    /// faster than hyper. `false` leaves every request to hyper; the answers are the same. Default true.
    pub fast_path: bool,
}

/// The most signatures of a digest that clients read.
const MOST: usize = MOST_SIGNATURES as usize;

/// Reads a limit of signatures that clients can keep to.
fn signatures_limit<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let limit = usize::deserialize(deserializer)?;
    if limit > MOST {
        let reason = format!("it must be {MOST} or less: clients fail the pull of an image with more signatures");
        return Err(serde::de::Error::custom(reason));
    }
    Ok(limit)
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            connections: 4096,
            connections_per_client: 1024,
            requests: 8192,
            requests_per_client: 1024,
            streams: 100,
            header_bytes: 64 * 1024,
            header_seconds: 30,
            idle_seconds: 60,
            handshake_seconds: 10,
            body_bytes: 0,
            body_seconds: 30,
            body_rate: 500,
            write_seconds: 60,
            upload_rate: 0,
            upload_bytes: 6 * 1024 * 1024,
            upload_seconds: 30,
            uploads: 32,
            signatures_per_digest: MOST,
            fast_path: true,
        }
    }
}
