//! The short way and hyper's: which of them answers is nothing that a client could tell.
//!
//! A question goes the short way, in one piece or in several; the same one with a `TE` field does not.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::ServerConfig;
use crate::image::Digest;
use crate::server::testing::{Server, config};
use crate::store::{SetAddress, StorePath};

fn set(path: &str) -> SetAddress {
    SetAddress::image(StorePath::parse(path).unwrap(), Digest::sha256(b"x")).unwrap()
}

/// Asks for a signature of the image `a`.
fn get(number: u32) -> String {
    format!("GET /lookaside/{}/signature-{number} HTTP/1.1\r\nHost: x\r\n\r\n", set("a"))
}

/// Asks for the first one, and for no more.
fn get_last() -> String {
    get(1).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
}

/// Reads to the end.
async fn rest(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends these pieces, a moment apart, and reads all that is answered.
async fn talk(server: &Server, pieces: &[&[u8]]) -> String {
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let _ = client.write_all(piece).await;
    }
    rest(&mut client).await
}

/// Puts the fields of an answer in order, and takes the date out.
fn sorted(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let (status, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let mut fields: Vec<&str> = fields.split("\r\n").filter(|field| !field.starts_with("date: ")).collect();
    assert_eq!(fields.len() + 1, head.split("\r\n").count() - 1, "one date: {answer}");
    fields.sort_unstable();
    format!("{status}\n{}\n\n{body}", fields.join("\n"))
}

#[tokio::test]
async fn both_ways_answer_alike() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "ci:a-token-of-many-letters\n").unwrap();
    let rules = format!("access: {{namespaces: {{shut: {{read: [{{token: {}}}]}}}}}}", token.path().display());
    let server = Server::start(&ServerConfig::parse(&rules).unwrap(), None).await;
    for path in ["open", "shut/in"] {
        server.store.put(&set(path), &["one", "two"]).await;
    }
    let (open, shut) = (format!("/lookaside/{}", set("open")), format!("/lookaside/{}", set("shut/in")));
    let host = "Host: x";
    let etag = format!("If-None-Match: W/\"{}\"", Digest::sha256(b"one").hex());
    let mut asked = vec![
        (format!("GET {open}/signature-1"), vec![host], "200 OK"),
        (format!("HEAD {open}/signature-2"), vec![host], "200 OK"),
        (format!("GET {open}/signature-1"), vec![host, &etag], "304 Not Modified"),
        (format!("HEAD {open}/signature-1"), vec![host, &etag], "304 Not Modified"),
        (format!("GET {open}/signature-1?a=b#c"), vec![host, "If-None-Match: \"other\""], "200 OK"),
        (format!("GET {open}/signature-3"), vec![host], "404 Not Found"),
        (format!("HEAD {open}/signature-3"), vec![host], "404 Not Found"),
        (format!("GET {open}/signature-128"), vec![host], "404 Not Found"),
        (format!("GET {open}"), vec![host], "404 Not Found"),
        (format!("GET {open}/"), vec![host], "404 Not Found"),
        ("GET /lookaside/".to_owned(), vec![host], "404 Not Found"),
        ("GET /lookaside/../v2/".to_owned(), vec![host], "404 Not Found"),
        ("GET /lookaside/%2e%2e/%00".to_owned(), vec![host], "404 Not Found"),
        (format!("GET {open}/signature-1"), vec![], "400 Bad Request"),
        (format!("GET {open}/signature-1"), vec![host, "Host: y"], "400 Bad Request"),
        (format!("GET {shut}/signature-1"), vec![host], "403 Forbidden"),
        (format!("HEAD {shut}/signature-9"), vec![host], "403 Forbidden"),
        (format!("GET {shut}/signature-1?token=a-token-of-many-letters"), vec![host], "200 OK"),
        (format!("GET {shut}/signature-1"), vec![host, "Authorization: Bearer a-token-of-many-letters"], "200 OK"),
        (format!("GET {shut}/signature-1"), vec![host, "Authorization: Bearer another"], "403 Forbidden"),
        (format!("GET {open}/signature-1"), vec![host, "Transfer-Encoding: chunked, x"], "400 Bad Request"),
        (format!("GET {open}/signature-1"), vec![host, "Content-Length: 1", "Content-Length: 2"], "400 Bad Request"),
        (format!("PUT {open}/signature-1"), vec![host], "403 Forbidden"),
    ];
    let many = (0..40).map(|number| format!("X-{number}: y")).collect::<Vec<_>>();
    asked.push((
        format!("GET {open}/signature-1"),
        [&[host][..], &many.iter().map(String::as_str).collect::<Vec<_>>()].concat(),
        "200 OK",
    ));
    for (line, fields, status) in asked {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let text = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        let (first, second) = text.as_bytes().split_at(text.len() - 3);
        let other = text.replace("Connection: close", "TE: trailers\r\nConnection: close");
        let (whole, torn, hypers) = ([text.as_bytes()], [first, second], [other.as_bytes()]);
        let (short, pieces, long) = tokio::join!(talk(&server, &whole), talk(&server, &torn), talk(&server, &hypers));
        assert_eq!(sorted(&short), sorted(&long), "{text}");
        assert_eq!(sorted(&pieces), sorted(&long), "{text}");
        assert!(short.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}: {short}");
    }
}

#[tokio::test]
async fn what_comes_together_is_answered_in_its_order() {
    let server = Server::start(&config(None), None).await;
    server.store.put(&set("a"), &["one", "two"]).await;
    let last = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let text =
        [get(1), get(3), get(2), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".to_owned(), get(1)]
            .concat()
            + last;
    for cut in [text.len(), 1, 40, get(1).len(), get(1).len() + 1, 400, 550, text.len() - 5] {
        let (first, second) = text.as_bytes().split_at(cut);
        let answers = talk(&server, &[first, second]).await;
        let statuses: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
        assert_eq!(statuses, ["200", "404", "200", "405", "200", "200"], "{cut}: {answers}");
        assert!(
            answers.contains("\r\n\r\noneHTTP/1.1 404") && answers.contains("\r\n\r\ntwoHTTP/1.1 405"),
            "{answers}"
        );
    }
    // No more than is read at once, and more.
    let many = get(1).repeat(200) + last;
    assert_eq!(talk(&server, &[many.as_bytes()]).await.matches("\r\n\r\none").count(), 200);
}

#[tokio::test]
async fn long_signatures_and_long_headers_are_whole() {
    let mut config = config(None);
    config.limits.header_bytes = 64 * 1024;
    let server = Server::start(&config, None).await;
    let long = "s".repeat(1 << 20);
    server.store.put(&set("a"), &[&long]).await;
    let path = format!("/lookaside/{}/signature-1", set("a"));
    for field in [String::new(), format!("X: {}\r\n", "x".repeat(20_000))] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{field}Connection: close\r\n\r\n");
        let answer = talk(&server, &[text.as_bytes()]).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{long}")), "{} bytes", answer.len());
    }
}

#[tokio::test]
async fn who_says_more_after_the_last_question_is_answered_all_the_same() {
    let server = Server::start(&config(None), None).await;
    server.store.put(&set("a"), &["one"]).await;
    let last = get_last();
    // Of the longest one only a part is ever read, and the connection is reset.
    for more in [0, 2, 5000, 100_000] {
        let answer = talk(&server, &[format!("{last}{}", "x".repeat(more)).as_bytes()]).await;
        assert!(answer.ends_with("\r\n\r\none"), "{more}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_signature_ends() {
    let mut config = config(None);
    config.limits.write_seconds = 1;
    let server = Server::start(&config, None).await;
    server.store.put(&set("a"), &["s".repeat(3 << 20)]).await;
    let mut lazy = TcpStream::connect(server.addr).await.unwrap();
    let text = get(1).repeat(8);
    lazy.write_all(text.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(rest(&mut lazy).await.len() < 8 * (3 << 20), "it was hung up on");
}

#[tokio::test]
async fn an_order_to_end_is_heard() {
    let server = Server::start(&config(None), None).await;
    server.store.put(&set("a"), &["one"]).await;
    let text = get(1);
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    idle.write_all(text.as_bytes()).await.unwrap();
    let mut piece = [0; 4096];
    let length = idle.read(&mut piece).await.unwrap();
    assert!(piece[..length].ends_with(b"one"));

    let gate = server.store.hold_next_read();
    let mut busy = TcpStream::connect(server.addr).await.unwrap();
    busy.write_all(text.replace("/a@", "/b@").as_bytes()).await.unwrap();
    gate.reached().await;
    server.shutdown.cancel();
    assert_eq!(rest(&mut idle).await, "", "nothing more is asked for");
    gate.open();
    let answer = rest(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn the_limit_of_headers_holds_for_pieces() {
    let mut config = config(None);
    config.limits.header_bytes = 8192;
    let server = Server::start(&config, None).await;
    let path = format!("/lookaside/{}/signature-1", set("a"));
    for (length, status) in [(7000, "404"), (10_000, "431")] {
        let field = "x".repeat(length);
        let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX: {field}\r\nConnection: close\r\n\r\n");
        let (first, second) = text.as_bytes().split_at(5000);
        let answer = talk(&server, &[first, second]).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {answer}");
    }
}

#[tokio::test]
async fn what_has_begun_when_the_order_to_end_comes_is_answered() {
    let server = Server::start(&config(None), None).await;
    let text = get(1);
    let (first, second) = text.as_bytes().split_at(40);
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.write_all(second).await.unwrap();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn a_head_that_trickles_has_its_time() {
    let mut config = config(None);
    (config.limits.header_seconds, config.limits.idle_seconds) = (1, 60);
    let server = Server::start(&config, None).await;
    let text = get(1);
    for before in [0, 1] {
        let mut client = TcpStream::connect(server.addr).await.unwrap();
        client.write_all(text.repeat(before).as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = std::time::Instant::now();
        let (mut reader, mut writer) = client.split();
        let trickle = async {
            for byte in text.as_bytes() {
                if writer.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        };
        let mut answers = Vec::new();
        tokio::select! {
            () = trickle => {}
            _ = reader.read_to_end(&mut answers) => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{before}: {:?}", begun.elapsed());
        assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 404 ").count(), before);
    }
}

#[tokio::test]
async fn a_panic_ends_one_connection() {
    let server = Server::start(&config(None), None).await;
    server.store.panic(true);
    let text = get_last();
    assert_eq!(talk(&server, &[text.as_bytes()]).await, "");
    server.store.panic(false);
    for _ in 0..20 {
        let answer = talk(&server, &[text.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
}

#[tokio::test]
async fn who_hangs_up_is_no_longer_answered() {
    let mut config = config(None);
    config.limits.requests_per_client = 1;
    let server = Server::start(&config, None).await;
    let text = get(1);
    let gate = server.store.hold_next_read();
    let mut gone = TcpStream::connect(server.addr).await.unwrap();
    gone.write_all(text.as_bytes()).await.unwrap();
    gate.reached().await;
    let full = get_last().replace("/a@", "/b@");
    assert!(talk(&server, &[full.as_bytes()]).await.starts_with("HTTP/1.1 429 "));
    drop(gone);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let answer = talk(&server, &[full.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "the place is free: {answer}");
    gate.open();
}

#[tokio::test]
async fn what_is_said_meanwhile_is_answered_afterwards() {
    let server = Server::start(&config(None), None).await;
    server.store.put(&set("a"), &["one"]).await;
    let text = get(1);
    let gate = server.store.hold_next_read();
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(text.as_bytes()).await.unwrap();
    gate.reached().await;
    client.write_all(text.repeat(2).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    gate.open();
    let answers = rest(&mut client).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4, "{answers}");
    assert_eq!(answers.matches("\r\n\r\none").count(), 3, "{answers}");
}
