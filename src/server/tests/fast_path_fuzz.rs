//! The fast path against hyper: two servers over one store, one of them with `limits.fast_path:
//! false`, are sent the same bytes in the same pieces, and must answer alike, whatever the bytes are.
//!
//! The cases are made from a fixed seed, so that a failure can be repeated; FAST_PATH_CASES makes
//! more of them and FAST_PATH_SEED others.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::ServerConfig;
use crate::image::Digest;
use crate::server::testing::Server;
use crate::store::{SetAddress, StorePath};

/// How many cases one run has: a few seconds.
const CASES: u64 = 6000;
/// How many connections to each server there are at once.
const AT_ONCE: usize = 24;
/// How long nothing must come before the client says that it is done.
const QUIET: Duration = Duration::from_millis(700);

/// A small generator of numbers (splitmix64): reproducible, and nothing to depend on.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

fn set(path: &str) -> SetAddress {
    SetAddress::image(StorePath::parse(path).unwrap(), Digest::sha256(b"x")).unwrap()
}

fn request(numbers: &mut Numbers) -> String {
    let (open, shut) = (set("a"), set("shut/a"));
    let targets = [
        format!("/lookaside/{open}/signature-1"),
        format!("/lookaside/{open}/signature-2"),
        format!("/lookaside/{open}/signature-3"),
        format!("/lookaside//{open}//signature-1?token=x&a=%zz"),
        format!("/lookaside/{shut}/signature-1"),
        format!("/lookaside/{}/signature-1#x", open.to_string().replace('@', "%40")),
        format!("http://other.example/lookaside/{open}/signature-1"),
        "/lookaside/".to_owned(),
        "/lookaside/../v2/".to_owned(),
        "/lookaside/\u{e9}".to_owned(),
        format!("/lookaside/{}", "a".repeat(3000)),
        "/".to_owned(),
        "/v2/".to_owned(),
        "*".to_owned(),
    ];
    let target = &targets[numbers.below(targets.len())];
    let method = numbers.of(&["GET", "GET", "GET", "GET", "HEAD", "HEAD", "PUT", "get", "OPTIONS", "G ET"]);
    let version = numbers.of(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"]);
    let end = numbers.of(&["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n"]);
    let mut text = format!("{method} {target} {version}{end}");
    if !numbers.one_in(12) {
        text +=
            &format!("{}{end}", numbers.of(&["Host: x", "host:x", "HOST:\t x \t", "Host: a b", "Host: u@x", "Host:"]));
    }
    let etag = format!("If-None-Match: \"{}\"", Digest::sha256(b"one").hex());
    let many = format!("X: {}", "y".repeat(2000));
    for _ in 0..numbers.below(4) {
        let field = numbers.of(&[
            "Connection: close",
            "Connection: keep-alive",
            "Connection: Close, TE",
            "Content-Length: 0",
            "Content-Length: 3",
            "Content-Length: 3, 3",
            "Content-Length: -1",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Expect: 100-continue",
            "Upgrade: h2c",
            "TE: trailers",
            "Authorization: Basic eDp5",
            "Authorization: Bearer x",
            "Host: y",
            "X-Forwarded-For: 1.2.3.4",
            "X-Request-Id: r",
            " folded: value",
            "X : y",
            "X: \u{e9}",
            "X: a\0b",
            ": nothing",
            "no colon",
            "Range: bytes=0-1",
            &etag,
            &many,
        ]);
        text += field;
        text += end;
    }
    text += end;
    if numbers.one_in(8) {
        text += numbers.of(&["abc", "3\r\nabc\r\n0\r\n\r\n", "\r\n", "\0"]);
    }
    text
}

/// Makes the bytes of a connection, in the pieces in which they are sent.
fn case(numbers: &mut Numbers) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..=numbers.below(3) {
        bytes.extend_from_slice(request(numbers).as_bytes());
    }
    for _ in 0..numbers.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = numbers.below(bytes.len());
        match numbers.below(12) {
            0 => bytes.truncate(at),
            1 => bytes[at] = u8::try_from(numbers.below(256)).unwrap(),
            2 => {
                bytes.remove(at);
            }
            3 => bytes.insert(at, u8::try_from(numbers.below(256)).unwrap()),
            _ => {}
        }
    }
    // An end for every head: when hyper refuses a head that has none yet depends on the pieces.
    bytes.extend_from_slice(b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let length = if numbers.one_in(2) { bytes.len() } else { 1 + numbers.below(bytes.len()) };
        pieces.push(bytes.drain(..length).collect());
    }
    pieces
}

/// Sends the pieces, and reads all that is answered.
async fn talk(server: &Server, pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (mut read, mut write) = client.split();
    let sending = async {
        for piece in pieces {
            let _ = write.write_all(piece).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        // Until the end, or until nothing more comes.
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(QUIET, read.read(&mut buffer)).await {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::join!(sending, reading);
    answer
}

/// Splits what came into answers, each with its fields in order and without the date.
fn answers(mut bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end..];
        let (status, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        let mut fields: Vec<&str> = fields.split("\r\n").filter(|field| !field.starts_with("date: ")).collect();
        fields.sort_unstable();
        let length = fields.iter().find_map(|field| field.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        // After HEAD and with 304 the next answer, or nothing, follows at once.
        let body = if bytes.starts_with(b"HTTP/1.") { 0 } else { bytes.len().min(length) };
        all.push(format!("{status}\n{}\n{}", fields.join("\n"), String::from_utf8_lossy(&bytes[..body])));
        bytes = &bytes[body..];
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fast_path_answers_as_hyper_does_whatever_is_sent() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (cases, seed) = (number("FAST_PATH_CASES", CASES), number("FAST_PATH_SEED", 1));
    let rules = "access: {namespaces: {shut: {read: []}}}\nlimits: {connections_per_client: 4096}";
    let fast = Server::start(&ServerConfig::parse(rules).unwrap(), None).await;
    fast.store.put(&set("a"), &["one", "two"]).await;
    let without = format!("{}, fast_path: false}}", rules.trim_end_matches('}'));
    let hyper = Server::beside(&fast, &ServerConfig::parse(&without).unwrap()).await;
    let servers = Arc::new((fast, hyper));
    let mut numbers = Numbers(seed);
    let all: Vec<_> = (0..cases).map(|_| case(&mut numbers)).collect();
    let checks = futures_util::stream::iter(all.into_iter().map(|pieces| {
        let servers = servers.clone();
        async move {
            let (one, other) = tokio::join!(talk(&servers.0, &pieces), talk(&servers.1, &pieces));
            let shown: Vec<_> = pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect();
            assert_eq!(answers(&one), answers(&other), "seed {seed}: {shown:#?}");
            answers(&one)
        }
    }));
    let found: Vec<_> = checks.buffer_unordered(AT_ONCE).collect().await;
    let count = |status: &str| found.iter().flatten().filter(|answer| answer.starts_with(status)).count();
    // It would be no test if all were refused, or if nothing was.
    for status in ["HTTP/1.1 200", "HTTP/1.1 304", "HTTP/1.1 400", "HTTP/1.1 403", "HTTP/1.1 404"] {
        assert!(count(status) * 100 >= found.len().min(2000) / 10, "{status}: {}", count(status));
    }
}
