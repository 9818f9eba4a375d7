//! The `admin` section: health and metrics, for those who run the server.

use std::net::SocketAddr;

use serde::Deserialize;

/// Where health and metrics are told. Every field may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where `/healthz`, `/readyz` and `/metrics` are served, `address:port`, over plain HTTP and
    /// to whoever can reach it. Default: nowhere.
    pub listen: Option<SocketAddr>,
    /// Whether `/healthz` and `/readyz` (one word each, no reasons) are served to all clients, too,
    /// for load balancers that check the port that they send requests to. Default false.
    pub public: bool,
    /// How long the server goes on as before when it is told to stop, but for `/readyz`, which
    /// says so, in seconds: load balancers need a moment to look elsewhere. Default 0.
    #[serde(deserialize_with = "super::server::seconds")]
    pub leave_seconds: u64,
}

#[cfg(test)]
mod tests {
    use crate::config::ServerConfig;

    #[test]
    fn silent_unless_told() {
        let admin = ServerConfig::parse("").unwrap().admin;
        assert!(admin.listen.is_none() && !admin.public && admin.leave_seconds == 0);
        let admin = ServerConfig::parse("admin: {listen: '[::1]:9090', public: true, leave_seconds: 5}").unwrap().admin;
        assert_eq!((admin.listen.unwrap().port(), admin.public, admin.leave_seconds), (9090, true, 5));
        for wrong in ["admin: {listen: 9090}", "admin: {metrics: true}", "admin: {leave_seconds: 99999999}"] {
            assert!(ServerConfig::parse(wrong).is_err(), "{wrong}");
        }
    }
}
