//! A real registry that names its token server by the host of each request: nobody's password goes to
//! a host that a client chose.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::client::text;
use crate::support::http;
use crate::support::server::Server;
use crate::support::token_server::TokenServer;

/// Listens as a token server that a stranger has set up; returns its address and what it was sent.
fn listen() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sent: Arc<Mutex<String>> = Arc::default();
    let noted = sent.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap_or(0);
            noted.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"token\":\"evil\"}");
        }
    });
    (address, sent)
}

#[test]
fn no_password_goes_to_the_host_that_a_stranger_asked_by() {
    let token_server = TokenServer::start("puller", "pass word");
    let registry = token_server.autoredirecting_registry();
    let (stranger, sent) = listen();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "pass word\n").unwrap();
    let config = folder.path().join("countersign.yaml");
    let base = format!(
        "upstream: '{}'\nstore: {}\naccess: {{read: [upstream]}}\n",
        registry.url(),
        text(&folder.path().join("store"))
    );
    let own = format!("credentials: {{username: puller, password_file: {}/password}}\n", text(folder.path()));
    let digest = "0".repeat(64);
    let paths = [
        "/v2/".to_owned(),
        "/v2/birds/bluebird/manifests/1".to_owned(),
        "/v2/_token?scope=repository:birds/bluebird:pull".to_owned(),
        format!("/extensions/v2/birds/bluebird/signatures/sha256:{digest}"),
        format!("/lookaside/birds/bluebird@sha256={digest}/signature-1"),
    ];
    let user = format!("Basic {}", STANDARD.encode("user:another password"));
    for text_of_config in [base.clone(), base.clone() + &own, base + &own + "upstream_keep_host: true\n"] {
        std::fs::write(&config, text_of_config).unwrap();
        let server = Server::start(&["--config", text(&config)]);
        for path in &paths {
            http::request(&server.address, "GET", path, &[("Host", &stranger), ("X-Forwarded-Host", &stranger)], b"");
        }
        for path in &paths {
            http::request(&server.address, "GET", path, &[("Authorization", &user)], b"");
        }
    }
    let sent = sent.lock().unwrap();
    assert!(sent.is_empty(), "{sent}");
}
