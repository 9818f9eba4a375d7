//! TLS on both sides: reload under load, client certificates, HTTP/2, and the real clients.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use countersign::registry::http::{HttpClient, empty};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::authority::Authority;
use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::{DockerRegistry, Settings, Tls};
use crate::support::image::image;
use crate::support::server::Server;

fn start(authority: &Authority, config: &str, args: &[&str]) -> Server {
    let file = authority.file("config.yaml");
    let (certificate, key) = (authority.file("server.cert"), authority.file("server.key"));
    let tls = format!("certificate: {}, key: {}", certificate.display(), key.display());
    std::fs::write(&file, config.replace("TLS", &tls)).unwrap();
    let store = authority.file("store");
    let mut all = vec!["--config", text(&file), "--store", text(&store)];
    all.extend(args);
    Server::start(&all)
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file("ca.crt")).unwrap()).unwrap();
    roots
}

/// Connects, offering one protocol.
async fn connect(authority: &Authority, server: &Server, alpn: &[u8]) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn shown(authority: &Authority, server: &Server) -> CertificateDer<'static> {
    let stream = connect(authority, server, b"http/1.1").await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn curl(server: &Server, authority: &Authority, args: &[&str]) -> Ran {
    let url = format!("https://{}/", server.address);
    let ca = authority.file("ca.crt");
    Ran::of(Command::new("curl").args(["-sS", "--cacert", text(&ca)]).args(args).arg(url).output().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_load() {
    let authority = Arc::new(Authority::new());
    authority.issue("second", "subjectAltName=IP:127.0.0.1");
    std::fs::copy(authority.file("server.cert"), authority.file("first.cert")).unwrap();
    std::fs::copy(authority.file("server.key"), authority.file("first.key")).unwrap();
    let server = start(&authority, "tls: {TLS}\n", &[]);
    let url = format!("https://{}/", server.address);

    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|n| {
            // Every second client keeps its connection, the others connect anew each time.
            let client = HttpClient::new(roots(&authority), false).unwrap();
            let (url, done) = (url.clone(), done.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while asked < 125 || !done.load(Ordering::Relaxed) {
                    let mut request = http::Request::builder().uri(&url);
                    if n % 2 == 0 {
                        request = request.header("connection", "close");
                    }
                    let answer = client.send(request.body(empty()).unwrap()).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for round in 0..20 {
        let name = ["second", "first"][round % 2];
        // Half-way first, with a signal in between: nobody may ever see a pair that does not fit.
        std::fs::copy(authority.file(&format!("{name}.cert")), authority.file("server.cert")).unwrap();
        server.signal("HUP");
        tokio::time::sleep(Duration::from_millis(50)).await;
        std::fs::copy(authority.file(&format!("{name}.key")), authority.file("server.key")).unwrap();
        server.signal("HUP");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    done.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for client in clients {
        asked += client.await.unwrap();
    }
    assert!(asked >= 1000, "{asked}");
    assert!(server.log().contains("the old one stays") && server.log().contains("was read anew"), "{}", server.log());

    // Without a signal, and through what is no certificate at all.
    let (first, second) = (authority.file("first.cert"), authority.file("second.cert"));
    assert_eq!(shown(&authority, &server).await, CertificateDer::from_pem_file(&first).unwrap());
    std::fs::write(authority.file("server.cert"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    std::fs::copy(authority.file("second.key"), authority.file("server.key")).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(shown(&authority, &server).await, CertificateDer::from_pem_file(&first).unwrap());
    // Renamed into place, as certbot and Kubernetes do.
    std::fs::copy(&second, authority.file("new")).unwrap();
    std::fs::rename(authority.file("new"), authority.file("server.cert")).unwrap();
    let begun = Instant::now();
    while shown(&authority, &server).await != CertificateDer::from_pem_file(&second).unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the change is not seen: {}", server.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn curl_speaks_both_versions() {
    let authority = Authority::new();
    let server = start(&authority, "tls: {TLS}\n", &[]);
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let ran = curl(&server, &authority, &[flag, "-w", "%{http_version} %{http_code}"]).accepted();
        assert!(ran.stdout.ends_with(&format!("{version} 200")), "{ran:?}");
        assert!(ran.stdout.contains(&format!("https://{}", server.address)), "it calls itself https: {ran:?}");
    }
    // Plain HTTP is not spoken where TLS is.
    let plain = Command::new("curl").args(["-sS", &format!("http://{}/", server.address)]).output().unwrap();
    assert!(!Ran::of(plain).ok);
}

#[test]
fn the_limit_of_headers_is_the_same_over_tls() {
    const LIMIT: usize = 20_000;
    let authority = Authority::new();
    let server = start(&authority, &format!("tls: {{TLS}}\nlimits: {{header_bytes: {LIMIT}}}\n"), &[]);
    let host = &server.address;
    // The bytes of HTTP/1.1; of HTTP/2 names and values, and 32 for each field (RFC 9113 6.5.2).
    let lines = format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: a\r\nAccept: */*\r\nX-Long: \r\n\r\n").len();
    let pairs = [(":method", "GET"), (":scheme", "https"), (":authority", host.as_str()), (":path", "/")];
    let pairs = pairs.iter().chain(&[("user-agent", "a"), ("accept", "*/*"), ("x-long", "")]);
    let counted: usize = pairs.map(|(name, value)| name.len() + value.len() + 32).sum();
    for (flag, fixed) in [("--http1.1", lines), ("--http2", counted)] {
        for (length, status) in [(LIMIT, "200"), (LIMIT + 1, "431"), (LIMIT + 5000, "431")] {
            let long = format!("X-Long: {}", "a".repeat(length - fixed));
            let args = [flag, "-A", "a", "-H", &long, "-o", "/dev/null", "-w", "%{http_code}"];
            let ran = curl(&server, &authority, &args);
            assert_eq!(ran.stdout, status, "{flag} {length}: {ran:?}");
        }
    }
}

#[test]
fn client_certificates() {
    let authority = Authority::new();
    let (cert, key, ca) = (authority.file("client.cert"), authority.file("client.key"), authority.file("ca.crt"));
    let mine = ["--cert", text(&cert), "--key", text(&key)];
    let stranger = Authority::new();
    let (cert, key) = (stranger.file("client.cert"), stranger.file("client.key"));
    let foreign = ["--cert", text(&cert), "--key", text(&key)];
    for (mode, without) in [("optional", true), ("required", false)] {
        let config = format!("tls: {{TLS, client_ca: {}, client_certificates: {mode}}}\n", ca.display());
        let server = start(&authority, &config, &[]);
        assert!(curl(&server, &authority, &mine).accepted().stdout.contains("countersign"));
        assert_eq!(curl(&server, &authority, &[]).ok, without, "{mode}");
        assert!(!curl(&server, &authority, &foreign).ok, "{mode}: by a stranger");
    }
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET / https x`, in HPACK.
const GET: &[u8] = b"\x82\x87\x84\x41\x01x";

#[tokio::test]
async fn a_rapid_reset_ends_the_connection() {
    let authority = Authority::new();
    let server = start(&authority, "tls: {TLS}\nlimits: {idle_seconds: 1, write_seconds: 1}\n", &[]);
    let mut attack = connect(&authority, &server, b"h2").await;
    attack.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
    let mut wave = Vec::new();
    for n in 0..5000u32 {
        wave.extend(frame(1, 5, 2 * n + 1, GET));
        wave.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let _ = attack.write_all(&wave).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), attack.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection is kept");
    curl(&server, &authority, &["--http2"]).accepted();

    // And one that never says more than hello.
    let mut idle = connect(&authority, &server, b"h2").await;
    idle.write_all(PREFACE).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), idle.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "an idle connection is kept");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends() {
    let authority = Authority::new();
    let server = start(&authority, "tls: {TLS}\nlimits: {write_seconds: 1}\n", &[]);
    let mut lazy = connect(&authority, &server, b"h2").await;
    // A window of no bytes.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    lazy.write_all(&[PREFACE, &settings, &frame(1, 5, 1, GET)].concat()).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), lazy.read_to_end(&mut Vec::new())).await;
    assert!(read.is_ok(), "the connection is kept");
}

#[test]
fn open_requests_of_http2_are_finished() {
    let authority = Authority::new();
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", slow.local_addr().unwrap());
    let (asked, came) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut stream = loop {
            let (mut stream, _) = slow.accept().unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or(0);
            if !String::from_utf8_lossy(&head[..length]).contains("countersign/") {
                break stream;
            }
            // The server's own question at its start.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        asked.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").unwrap();
    });
    let mut server = start(&authority, "tls: {TLS}\n", &["--upstream", &url]);
    let (ca, asked_for) = (authority.file("ca.crt"), format!("https://{}/v2/", server.address));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http2", "--cacert", text(&ca), &asked_for]);
    let client = std::thread::spawn(move || Ran::of(curl.output().unwrap()));
    came.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(server.stop("TERM").success());
    assert_eq!(client.join().unwrap().accepted().stdout, "late");
}

#[test]
fn skopeo_pulls_through_the_proxy_over_tls_on_both_sides() {
    let authority = Authority::new();
    let tls = Tls {
        certificate: authority.file("server.cert"),
        key: authority.file("server.key"),
        client_authority: Some(authority.file("ca.crt")),
    };
    let registry = Settings::default().tls(tls).start();
    let files = ["ca.crt", "client.cert", "client.key"];
    let upstream = authority.certs_d("upstream", registry.address(), &files);
    let config = format!("tls: {{TLS}}\ncerts_d: [{}]\n", upstream.display());
    let url = format!("https://{}", registry.address());
    let mut server = start(&authority, &config, &["--upstream", &url]);

    let host = Host::new(Path::new("/nonexistent"));
    let one = image(host.path(), "one", "one", "amd64");
    let mine = authority.certs_d("mine", "x", &["ca.crt"]).join("x");
    let name = format!("docker://{}/birds/bluebird:1", server.address);
    let source = format!("dir:{}", text(&one.dir));
    host.skopeo(&["--insecure-policy", "copy", "--dest-cert-dir", text(&mine), &source, &name]).accepted();
    let out = format!("dir:{}", text(&host.path().join("out")));
    host.skopeo(&["--insecure-policy", "copy", "--src-cert-dir", text(&mine), &name, &out]).accepted();
    let pulled = std::fs::read(host.path().join("out/manifest.json")).unwrap();
    assert_eq!(pulled, std::fs::read(one.dir.join("manifest.json")).unwrap());
    // Through HTTP/2 the same registry answers.
    let seen = curl(&server, &authority, &["--http2", "-w", "%{http_version}", "-o", "/dev/null"]).accepted();
    assert_eq!(seen.stdout, "2");
    let path = format!("https://{}/v2/birds/bluebird/tags/list", server.address);
    let ca = authority.file("ca.crt");
    let tags = Command::new("curl").args(["-sS", "--http2", "--cacert", text(&ca), &path]).output().unwrap();
    assert!(Ran::of(tags).accepted().stdout.contains("\"1\""));
    assert!(server.stop("TERM").success());

    // Without the client certificate the upstream does not let us in: told, not worked around.
    let upstream = authority.certs_d("poor", registry.address(), &["ca.crt"]);
    let config = format!("tls: {{TLS}}\ncerts_d: [{}]\n", upstream.display());
    let server = start(&authority, &config, &["--upstream", &url]);
    let name = format!("docker://{}/birds/bluebird:1", server.address);
    host.skopeo(&["--insecure-policy", "inspect", "--cert-dir", text(&mine), &name]).refused("502");
    drop::<DockerRegistry>(registry);
}
