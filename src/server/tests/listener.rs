//! Connections: slow and greedy peers, panics, an orderly end.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::image::Digest;
use crate::server::testing::{Fake, Server, config, registry, respond};
use crate::server::{NotAdmitted, Upload, UploadGate};

async fn talk(server: &Server, text: &[u8]) -> String {
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let _ = client.write_all(text).await;
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn headers_have_limits() {
    let mut config = config(None);
    config.limits.header_bytes = 8192;
    config.limits.header_seconds = 1;
    config.limits.idle_seconds = 1;
    let server = Server::start(&config, None).await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(20_000));
    assert!(talk(&server, long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: a\r\n".repeat(500));
    assert!(talk(&server, many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let begun = std::time::Instant::now();
    let slow = talk(&server, b"GET / HTTP/1.1\r\nHost: x\r\n").await;
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408 "), "{slow}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // An idle connection ends too.
    talk(&server, b"").await;
    assert!(talk(&server, b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 40"));
    assert_eq!(server.ask("GET", "/", &[]).await.status, 200);
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    struct Panics;
    impl UploadGate for Panics {
        fn admit(&self, _: &Upload<'_>) -> Result<(), NotAdmitted> {
            panic!("ordered");
        }
    }
    let fake = Fake::start(registry).await;
    let server = Server::start(&config(Some(fake.addr)), Some(Arc::new(Panics))).await;
    let digest = Digest::sha256(b"x");
    let content = STANDARD.encode([b"\xa3", digest.to_string().as_bytes()].concat());
    let body = format!(r#"{{"schemaVersion":2,"name":"{digest}@x","content":"{content}"}}"#);
    let path = format!("/extensions/v2/x/signatures/{digest}");
    let told = server.put(&path, &[("authorization", "Bearer x")], body).await;
    assert_eq!((told.status.as_u16(), told.code().as_str()), (500, "UNKNOWN"));
    assert_eq!(server.ask("GET", "/", &[]).await.status, 200);
}

#[tokio::test]
async fn open_requests_are_finished() {
    let fake = Fake::start(|_: Request<Incoming>| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        respond(200, &[], "late")
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let stop = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.shutdown.cancel();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(TcpStream::connect(server.addr).await.is_err(), "no new connections");
    };
    let (told, ()) = tokio::join!(server.ask("GET", "/v2/", &[]), stop);
    assert_eq!((told.status.as_u16(), told.text()), (200, "late"));
    for _ in 0..200 {
        if server.ended.is_finished() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the server does not end");
}

#[tokio::test]
async fn the_drain_has_a_deadline() {
    let fake = Fake::start(|_: Request<Incoming>| std::future::pending()).await;
    let mut config = config(Some(fake.addr));
    config.drain_seconds = 1;
    let server = Server::start(&config, None).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.shutdown.cancel();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut answer)).await;
    assert!(read.is_ok() && answer.is_empty());
}

#[tokio::test]
async fn who_is_not_listened_to_hears_why() {
    let server = Server::start(&config(None), None).await;
    let digest = Digest::sha256(b"x");
    let head =
        format!("PUT /extensions/v2/x/signatures/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n");
    for path in [head.clone(), head.replace("Host: x\r\n", "")] {
        for _ in 0..20 {
            let whole = [path.as_bytes(), &[b'x'; 8 << 20]].concat();
            // All of it is sent before anything is read, as simple clients do.
            let answer = talk(&server, &whole).await;
            assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
    }
    // But not for as long as they please.
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(head.replace("Host: x\r\n", "").as_bytes()).await.unwrap();
    let begun = std::time::Instant::now();
    while client.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
}
