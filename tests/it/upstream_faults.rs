//! Upstreams that no real registry is: they hang, die in the middle, send garbage, and never stop
//! redirecting. A client must see a failure as one, and the server must stay alive.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::{Host, text};
use crate::support::http;
use crate::support::image::image;
use crate::support::keys::GpgHome;
use crate::support::server::Server;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An upstream made by hand: it reads the head of a request and does what the test wants.
struct Upstream {
    address: String,
    targets: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// Starts one; `answer` gets the request's method and target.
    fn start(answer: impl Fn(&str, &str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let targets: Arc<Mutex<Vec<String>>> = Arc::default();
        let (noted, answer) = (targets.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (noted, answer) = (noted.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(head) = head(&mut stream) else { return };
                    let mut words = head.split(' ');
                    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                    noted.lock().unwrap().push(target.to_owned());
                    answer(method, target, &mut stream);
                });
            }
        });
        Self { address, targets }
    }

    /// Always sends the same bytes and closes.
    fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_, _, stream| drop(stream.write_all(&bytes)))
    }

    fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().clone()
    }

    fn asked(&self) -> usize {
        self.targets().len()
    }
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn hang() {
    std::thread::sleep(Duration::from_secs(30));
}

/// A server that waits for one second only.
struct World {
    server: Server,
    _folder: tempfile::TempDir,
}

fn before(upstream: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    let limits = "upstream_timeout_seconds: 1\naccess_timeout_seconds: 1\n";
    std::fs::write(&config, format!("upstream: http://{upstream}\n{limits}")).unwrap();
    let store = folder.path().join("store");
    let server = Server::start(&["--config", text(&config), "--store", text(&store)]);
    World { server, _folder: folder }
}

impl World {
    fn get(&self, path: &str) -> http::Answer {
        http::get(&self.server.address, path)
    }

    fn signatures(&self) -> http::Answer {
        self.get(&format!("/extensions/v2/birds/bluebird/signatures/{DIGEST}"))
    }

    /// The server goes on: what needs no upstream is answered.
    fn lives(&self) {
        assert_eq!(self.get("/").status, 200, "{}", self.server.log());
        assert!(!self.server.log().contains("panicked"), "{}", self.server.log());
    }
}

#[test]
fn an_upstream_that_refuses_connections() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let world = before(&gone);
    for answer in [world.get("/v2/"), world.get(&format!("/v2/x/blobs/{DIGEST}")), world.signatures()] {
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (502, true), "{answer:?}");
        assert_eq!(answer.json()["errors"][0]["code"], "UNAVAILABLE");
    }
    world.lives();
}

#[test]
fn an_upstream_that_hangs_before_its_answer() {
    let upstream = Upstream::start(|_, _, _| hang());
    let world = before(&upstream.address);
    let begun = Instant::now();
    for answer in [world.get("/v2/"), world.signatures()] {
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (504, true), "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    world.lives();
}

/// Reads an answer to its end, whatever that is: all bytes of the body that came, and whether it was cut off.
fn raw(address: &str, path: &str) -> (String, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let timed_out = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    (String::from_utf8_lossy(&bytes).into_owned(), !timed_out)
}

#[test]
fn an_upstream_that_hangs_in_the_middle_of_an_answer() {
    let upstream = Upstream::start(|_, target, stream| {
        let head = if target.contains("chunked") {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello"
        };
        let _ = stream.write_all(head.as_bytes());
        hang();
    });
    let world = before(&upstream.address);
    for kind in ["sized", "chunked"] {
        let begun = Instant::now();
        let (answer, closed) = raw(&world.server.address, &format!("/v2/{kind}/blobs/{DIGEST}"));
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hello"), "{answer}");
        assert!(closed && begun.elapsed() < Duration::from_secs(10), "{kind}: the client waits for ever");
        // Neither form is complete: too few bytes, or no last chunk.
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    }
    world.lives();
}

#[test]
fn an_upstream_that_is_slow_but_alive() {
    let upstream = Upstream::start(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        for byte in b"hello" {
            std::thread::sleep(Duration::from_millis(500));
            let _ = stream.write_all(&[*byte]);
        }
    });
    let world = before(&upstream.address);
    assert_eq!(world.get(&format!("/v2/x/blobs/{DIGEST}")).text(), "hello");
}

#[test]
fn an_upstream_that_dies_in_the_middle_of_a_blob() {
    let upstream = Upstream::start(|_, target, stream| {
        let head = if target.contains("chunked") {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nx"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello"
        };
        let _ = stream.write_all(head.as_bytes());
    });
    let world = before(&upstream.address);
    for kind in ["sized", "chunked"] {
        let (answer, closed) = raw(&world.server.address, &format!("/v2/{kind}/blobs/{DIGEST}"));
        assert!(closed && answer.contains("hello"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "a short success: {answer}");
        let length = answer.to_lowercase().contains("content-length: 1000");
        assert_eq!(length, kind == "sized", "{answer}");
    }
    world.lives();
}

#[test]
fn an_upstream_that_dies_in_the_middle_of_a_token() {
    let upstream = Upstream::start(|_, target, stream| {
        let said: &[u8] = match target {
            "/v2/" => b"HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm=\"REALM\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"token\":\"abc\"",
        };
        let host = stream.local_addr().unwrap();
        let said = String::from_utf8_lossy(said).replace("REALM", &format!("http://{host}/token"));
        let _ = stream.write_all(said.as_bytes());
    });
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, format!("registries: {{r.example: {{upstream: 'http://{}'}}}}", upstream.address)).unwrap();
    let server = Server::start(&["--config", text(&config), "--store", text(&folder.path().join("store"))]);
    let answer = http::get(&server.address, "/v2/_token?scope=repository:r.example/x:pull");
    assert_eq!(answer.status, 502, "{answer:?}");
}

#[test]
fn garbage_in_the_head_of_an_answer() {
    let many = "X-Y: z\r\n".repeat(2000);
    let long = format!("X-Y: {}\r\n", "z".repeat(2 * 1024 * 1024));
    for garbage in [
        "\r\n\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        "HTTP/1.1 999999 X\r\n\r\n".to_owned(),
        "HTTP/9.9 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX\0Y: z\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("HTTP/1.1 200 OK\r\n{long}\r\n"),
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(50),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
        String::new(),
    ] {
        let shown: String = garbage.chars().take(60).collect();
        let upstream = Upstream::saying(garbage);
        let world = before(&upstream.address);
        let answer = world.get("/v2/");
        assert!([502, 503, 504].contains(&answer.status), "{shown:?}: {answer:?}");
        assert_eq!(answer.header("x-registry-supports-signatures"), Some("1"), "{shown:?}");
        // The question is a HEAD, for which the length of a body says nothing.
        if !shown.contains("Content-Length") {
            assert!([502, 503, 504].contains(&world.signatures().status), "{shown:?}");
        }
        world.lives();
    }
}

#[test]
fn both_lengths_in_an_answer_are_no_way_to_smuggle() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nsmuggled";
    let upstream = Upstream::saying(both);
    let world = before(&upstream.address);
    let answer = http::get(&world.server.address, "/v2/");
    assert_eq!(answer.text(), "abc", "{answer:?}");
    // One way of saying the length is left, and it is the true one.
    assert!(answer.header("content-length").is_none() || answer.header("transfer-encoding").is_none(), "{answer:?}");
}

#[test]
fn endless_redirects_are_the_clients_to_follow() {
    let upstream = Upstream::start(|_, target, stream| {
        let host = stream.local_addr().unwrap();
        let next = format!("http://{host}{target}x");
        let _ = write!(stream, "HTTP/1.1 307 X\r\nLocation: {next}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let world = before(&upstream.address);
    let blob = world.get(&format!("/v2/x/blobs/{DIGEST}"));
    assert_eq!((blob.status, blob.header("location").unwrap()), (307, format!("/v2/x/blobs/{DIGEST}x").as_str()));
    let blobs = upstream.targets().iter().filter(|target| target.contains("/blobs/")).count();
    assert_eq!(blobs, 1, "what is the client's to follow was followed");
    // Our own question follows a few, and then knows nothing: not an empty list.
    let list = world.signatures();
    assert_eq!(list.status, 502, "{list:?}");
    assert!(upstream.asked() < 20, "{} requests", upstream.asked());
    let gpg = GpgHome::with(&[]);
    let host = Host::new(gpg.path());
    let source = format!("docker://{}/birds/bluebird:1", world.server.address);
    host.skopeo(&["inspect", "--tls-verify=false", &source]).refused("502 (Bad Gateway)");
    world.lives();
}

#[test]
fn wrong_digests_pass_and_clients_notice() {
    let gpg = GpgHome::with(&[]);
    let host = Host::new(gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    let manifest = one.manifest.clone();
    let upstream = Upstream::start(move |method, target, stream| {
        let (kind, body): (&str, &[u8]) = match target {
            "/v2/" => ("application/json", b"{}"),
            _ if target.contains("/manifests/") => ("application/vnd.docker.distribution.manifest.v2+json", &manifest),
            _ => ("application/octet-stream", b"not what was asked for"),
        };
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if method != "HEAD" {
            let _ = stream.write_all(body);
        }
    });
    let world = before(&upstream.address);
    let out = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", text(out.path()));
    let copy = |name: &str| {
        let source = format!("docker://{}/birds/{name}", world.server.address);
        host.skopeo(&["--insecure-policy", "copy", "--src-tls-verify=false", &source, &target])
    };
    let blob = copy("bluebird:1");
    assert!(!blob.ok && blob.stderr.contains("did not match"), "{blob:?}");
    let other = copy(&format!("bluebird@{DIGEST}"));
    assert!(!other.ok && other.stderr.contains("does not match"), "{other:?}");
    assert_eq!(world.get(&format!("/v2/x/blobs/{DIGEST}")).text(), "not what was asked for");
}
