//! Clients that are slow, greedy or malicious, on real sockets; and servers that come and go.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::text;
use crate::support::http;
use crate::support::server::Server;

/// A server with short patience, before `upstream` if there is one.
fn start(dir: &Path, limits: &str, upstream: Option<&str>) -> Server {
    let config = dir.join("config.yaml");
    std::fs::write(&config, format!("drain_seconds: 2\nlimits: {{{limits}}}\n")).unwrap();
    let store = dir.join("store");
    let mut args = vec!["--config", text(&config), "--store", text(&store)];
    args.extend(upstream.iter().flat_map(|url| ["--upstream", url]));
    Server::start(&args)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Reads until the end, whichever way it comes.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("no end in time"),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn say(server: &Server, request: &str) -> String {
    let mut stream = connect(server);
    let _ = stream.write_all(request.as_bytes());
    rest(&mut stream)
}

#[test]
fn slow_headers_and_bodies_end() {
    let dir = tempfile::tempdir().unwrap();
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("http://{}", sink.local_addr().unwrap());
    let server = start(dir.path(), "header_seconds: 1, body_seconds: 1, idle_seconds: 2", Some(&upstream));

    // A byte a moment keeps no header open.
    let begun = Instant::now();
    let mut trickle = connect(&server);
    let mut sent = 0;
    for byte in b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ".iter().chain(std::iter::repeat_n(&b'a', 200)) {
        if trickle.write_all(&[*byte]).is_err() {
            break;
        }
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
        if begun.elapsed() > Duration::from_secs(10) {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{sent} bytes in {:?}", begun.elapsed());

    // A connection that never says anything, and one that is idle after an answer.
    let begun = Instant::now();
    assert_eq!(say(&server, ""), "");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let answer = say(&server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(10));

    // A body that stops, on its way to the upstream.
    let answer = say(&server, "PUT /v2/x/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // One that trickles.
    let mut trickle = connect(&server);
    trickle.write_all(b"PUT /v2/x/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n").unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) && trickle.write_all(b"a").is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "the least rate is kept up: {:?}", begun.elapsed());

    // Half-closed after a whole request: it is answered all the same, or ended; never kept.
    let mut half = connect(&server);
    half.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = rest(&mut half);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(http::get(&server.address, "/").status, 200);
}

#[test]
fn a_client_that_never_reads_ends() {
    let dir = tempfile::tempdir().unwrap();
    // An upstream that gives without end.
    let source = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("http://{}", source.local_addr().unwrap());
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = source.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").unwrap();
        while stream.write_all(&[0; 65536]).is_ok() {}
        done.send(()).unwrap();
    });
    let server = start(dir.path(), "write_seconds: 1", Some(&upstream));
    let mut lazy = connect(&server);
    lazy.write_all(b"GET /v2/x/blobs/sha256:1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    ended.recv_timeout(Duration::from_secs(30)).expect("the upstream is let go");
}

#[test]
fn smuggled_requests_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), "header_seconds: 1, idle_seconds: 1, body_seconds: 1", None);
    let refused = [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nab",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0 this is TLS",
    ];
    for request in refused {
        let answer = say(&server, request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
    }
    // Both framings: the chunks count, and what follows them is one more request, no more and no less.
    for both in ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\n{both}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = say(&server, &request);
        let statuses: Vec<&str> =
            answer.match_indices("HTTP/1.1 ").filter_map(|(at, _)| answer.get(at + 9..at + 12)).collect();
        assert!(matches!(statuses[..], ["400"] | ["405", "404"] | ["405"]), "{both}: {answer}");
    }
    // Bad chunks end the connection; nothing after them is read as a request.
    for chunks in ["x\r\n", "5\r\nab", "-1\r\n", "fffffffffffffffffff\r\n", "2\r\nabc\r\n0\r\n\r\n", "0x1\r\na\r\n"] {
        let request = format!(
            "PUT /extensions/v2/x/signatures/sha256:{} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}\
             GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "0".repeat(64)
        );
        assert!(!say(&server, &request).contains("200 OK"), "{chunks:?}");
    }
    let name = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: a\r\n\r\n", "x".repeat(70_000));
    assert!(say(&server, &name).starts_with("HTTP/1.1 431"), "a name without end");
    let path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000));
    assert!(say(&server, &path).starts_with("HTTP/1.1 4"), "a path without end");
    assert_eq!(http::get(&server.address, "/").status, 200);
}

#[test]
fn the_limit_of_headers_is_exact() {
    const LIMIT: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &format!("header_bytes: {LIMIT}"), None);
    let head = |path: &str, separator: &str, length: usize| {
        let start = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Long:{separator}");
        let fill = length - start.len() - 4;
        format!("{start}{}\r\n\r\n", "a".repeat(fill))
    };
    let small = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let statuses = |answer: &str| {
        let found = answer.match_indices("HTTP/1.1 ");
        found.filter_map(|(at, _)| answer.get(at + 9..at + 12)).map(str::to_owned).collect::<Vec<_>>()
    };
    let ask = |pieces: &[&[u8]]| {
        let mut stream = connect(&server);
        for piece in pieces {
            let _ = stream.write_all(piece);
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        statuses(&rest(&mut stream))
    };
    for (path, status) in [("/", "200"), ("/lookaside/x@sha256=0/signature-1", "404"), ("/v2/", "404")] {
        for separator in ["", " ", "   "] {
            let (fits, over) = (head(path, separator, LIMIT), head(path, separator, LIMIT + 1));
            assert_eq!(ask(&[fits.as_bytes()]), [status], "{path}");
            assert_eq!(ask(&[over.as_bytes()]), ["431"], "{path}");
            // However it is cut, and whatever came before it.
            for cut in [100, 8192, LIMIT - 1] {
                let (start, end) = fits.as_bytes().split_at(cut);
                assert_eq!(ask(&[start, end]), [status], "{path} {cut}");
                let (start, end) = over.as_bytes().split_at(cut);
                assert_eq!(ask(&[start, end]), ["431"], "{path} {cut}");
            }
        }
        assert_eq!(ask(&[small.as_bytes(), head(path, " ", LIMIT).as_bytes()]), ["200", status], "{path}");
        assert_eq!(ask(&[small.as_bytes(), head(path, " ", LIMIT + 1).as_bytes()]), ["200", "431"], "{path}");
    }
    // A hundred fields, and one more.
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(ask(&[fields(100).as_bytes()]), ["200"]);
    assert_eq!(ask(&[fields(101).as_bytes()]), ["431"]);
}

#[test]
fn floods_are_turned_away_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), "connections: 100, connections_per_client: 5, header_seconds: 20", None);
    let held: Vec<TcpStream> = (0..5).map(|_| connect(&server)).collect();
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    for _ in 0..20 {
        let told = http::get(&server.address, "/");
        assert_eq!((told.status, told.header("retry-after")), (429, Some("5")), "{told:?}");
        assert_eq!(told.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // More than can even be told are hung up on, and all of it ends.
    let flood: Vec<TcpStream> = (0..300).map(|_| connect(&server)).collect();
    drop((held, flood));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(http::get(&server.address, "/").status, 200);
    assert_eq!(server.log().matches("some are turned away").count(), 1, "{}", server.log());
}

#[test]
fn requests_in_flight_and_long_bodies_have_limits() {
    let dir = tempfile::tempdir().unwrap();
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("http://{}", deaf.local_addr().unwrap());
    let server = start(dir.path(), "requests: 2, body_bytes: 1000", Some(&upstream));
    let mut held: Vec<TcpStream> = (0..2).map(|_| connect(&server)).collect();
    for stream in &mut held {
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let told = http::get(&server.address, "/v2/");
    assert_eq!((told.status, told.header("retry-after")), (503, Some("5")), "{told:?}");
    drop(held);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(http::get(&server.address, "/").status, 200);

    let told = http::request(&server.address, "PUT", "/v2/x/blobs/uploads/1", &[], &[0; 1001]);
    assert_eq!((told.status, told.json()["errors"][0]["code"].as_str()), (413, Some("SIZE_INVALID")));
    let chunked =
        format!("PUT /v2/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{}", "a".repeat(2000));
    assert!(say(&server, &chunked).starts_with("HTTP/1.1 413"), "without a length too");
}

#[test]
fn the_drain_ends_by_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = start(dir.path(), "", Some(&format!("http://{}", deaf.local_addr().unwrap())));
    let mut open = connect(&server);
    open.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let idle = connect(&server);
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    assert!(server.stop("TERM").success());
    assert!(begun.elapsed() >= Duration::from_millis(1500) && begun.elapsed() < Duration::from_secs(10));
    assert_eq!(rest(&mut open), "");
    drop(idle);
}

/// Starts a server as systemd does, on a socket that is there already.
fn activated(socket: &TcpListener, dir: &Path, notify: &Path) -> Server {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec \"$0\" \"$@\"";
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_countersign"), "serve", "--store", text(dir)])
        .env("NOTIFY_SOCKET", notify)
        .stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    Server::of(command)
}

#[test]
fn a_restart_behind_a_socket_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let notify = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let length = systemd.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };

    let mut server = activated(&socket, dir.path(), &notify);
    assert_eq!(server.address, address);
    assert!(heard().starts_with("READY=1\n"));
    server.signal("HUP");
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(heard().starts_with("READY=1\n"));

    let stop = std::sync::atomic::AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        assert_eq!(http::get(&address, "/").status, 200);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(200));
            assert!(server.stop("TERM").success());
            assert!(heard().starts_with("STOPPING=1\n"));
            server = activated(&socket, dir.path(), &notify);
            assert!(heard().starts_with("READY=1\n"));
        }
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    assert!(asked > 20, "{asked}");
}
