//! The registry face: heads that change, bodies that do not, faults of the upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::registry::http::{BoxError, RequestBody, empty};
use crate::server::testing::{Fake, FakeBody, Server, config, respond};

#[tokio::test]
async fn requests_arrive_as_they_were_sent() {
    let fake = Fake::start(|_: Request<Incoming>| async { respond(200, &[], "") }).await;
    let mut config = config(Some(fake.addr));
    config.upstream_keep_host = true;
    let server = Server::start(&config, None).await;
    let target = "/v2/a/b/blobs/uploads/1%2f?_state=a%2Fb%3D%3D&x=%20&&y";
    let headers = [
        ("host", "sig.example:8443"),
        ("authorization", "Bearer t"),
        ("accept", "a/b"),
        ("accept", "c/d"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("connection", "x-private"),
        ("x-private", "1"),
        ("proxy-authorization", "secret"),
        ("te", "trailers"),
    ];
    assert_eq!(server.ask("GET", target, &headers).await.status, 200);
    let seen = fake.seen().pop().unwrap();
    assert_eq!(seen.target, target);
    let value = |name: &str| seen.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(value("host"), ["sig.example:8443"]);
    assert_eq!(value("authorization"), ["Bearer t"]);
    assert_eq!(value("accept"), ["a/b", "c/d"]);
    assert_eq!(value("x-forwarded-for"), ["10.0.0.1, 127.0.0.1"]);
    assert_eq!(value("x-forwarded-proto"), ["https"]);
    assert_eq!(value("x-forwarded-host"), ["sig.example:8443"]);
    assert_eq!(value("x-request-id").len(), 1);
    for gone in ["x-private", "proxy-authorization", "te", "connection", "content-length", "transfer-encoding"] {
        assert!(value(gone).is_empty(), "{gone}");
    }
}

#[tokio::test]
async fn the_upstream_sees_its_own_name_unless_told() {
    let fake = Fake::start(|_: Request<Incoming>| async { respond(200, &[], "") }).await;
    let mut config = config(Some(fake.addr));
    for (keep, host) in [(false, fake.addr.to_string()), (true, "sig.example".to_owned())] {
        config.upstream_keep_host = keep;
        let server = Server::start(&config, None).await;
        server.ask("GET", "/v2/", &[("host", "sig.example")]).await;
        assert_eq!(fake.seen().pop().unwrap().headers["host"], host.as_str());
    }
    let seen = fake.seen().pop().unwrap();
    assert_eq!(seen.headers["x-forwarded-host"], "sig.example");
}

#[tokio::test]
async fn answers_change_only_where_they_must() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let upstream = request.headers()["x-up"].to_str().unwrap().to_owned();
        respond(
            202,
            &[
                ("location", &format!("http://{upstream}/v2/x/blobs/uploads/1?_state=a%2Fb%3D")),
                ("www-authenticate", &format!("Bearer realm=\"http://{upstream}/t\",service=\"s, x\"")),
                ("www-authenticate", "Basic realm=\"r\""),
                ("docker-content-digest", "sha256:x"),
                ("content-encoding", "gzip"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("x-registry-supports-signatures", "0"),
                ("x-registry-supports-signatures", "1"),
            ],
            "not gzip",
        )
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let up = fake.addr.to_string();
    let told = server.ask("POST", "/v2/x/blobs/uploads/", &[("x-up", &up), ("host", "sig.example")]).await;
    assert_eq!((told.status.as_u16(), told.text()), (202, "not gzip"));
    assert_eq!(told.header("location"), "/v2/x/blobs/uploads/1?_state=a%2Fb%3D");
    let challenges: Vec<_> = told.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, ["Bearer realm=\"http://sig.example/t\",service=\"s, x\"", "Basic realm=\"r\""]);
    assert_eq!((told.header("docker-content-digest"), told.header("content-encoding")), ("sha256:x", "gzip"));
    assert!(!told.headers.contains_key("x-hop"));
    assert_eq!(told.headers.get_all("x-registry-supports-signatures").iter().collect::<Vec<_>>(), ["1"]);
}

#[tokio::test]
async fn statuses_and_heads_pass() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let status = request.uri().path().rsplit('/').next().unwrap().parse().unwrap();
        match status {
            307 => respond(307, &[("location", "https://s3.example/b?sig=a%2F")], ""),
            206 => respond(206, &[("content-range", "bytes 0-2/9")], "abc"),
            _ if *request.method() == Method::HEAD => respond(status, &[("content-length", "12345")], ""),
            _ => respond(status, &[], if status == 304 { "" } else { "body" }),
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    for status in [200, 201, 206, 304, 307, 400, 401, 404, 429, 500, 503] {
        let told = server.ask("GET", &format!("/v2/{status}"), &[]).await;
        assert_eq!((told.status.as_u16(), told.header("x-registry-supports-signatures")), (status, "1"));
        match status {
            307 => assert_eq!(told.header("location"), "https://s3.example/b?sig=a%2F"),
            206 => assert_eq!((told.header("content-range"), told.text()), ("bytes 0-2/9", "abc")),
            304 => assert!(told.body.is_empty()),
            _ => assert_eq!(told.text(), "body"),
        }
    }
    let told = server.ask("HEAD", "/v2/200", &[]).await;
    assert_eq!((told.header("content-length"), told.body.len()), ("12345", 0));
    assert_eq!(server.ask("TRACE", "/v2/200", &[]).await.status, 405);
}

#[tokio::test]
async fn token_endpoints_pass() {
    let fake = Fake::start(|_: Request<Incoming>| async { respond(200, &[], "{}") }).await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    for path in ["/token?scope=a%3Ab", "/oauth/token", "/auth/token", "/service/token", "/v2/token", "/jwt/auth"] {
        assert_eq!(server.ask("POST", path, &[]).await.status, 200, "{path}");
        assert_eq!(fake.seen().pop().unwrap().target, path);
    }
    assert_eq!(server.ask("GET", "/admin", &[]).await.status, 404);
}

#[tokio::test]
async fn a_token_endpoint_is_learned_when_it_is_asked_for() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        match request.uri().path() {
            "/v2/" => respond(401, &[("www-authenticate", &format!("Bearer realm=\"http://{host}/my/own\""))], ""),
            _ => respond(200, &[], "token"),
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    assert_eq!(server.ask("GET", "/my/own?x", &[]).await.text(), "token");
    assert_eq!(server.ask("GET", "/my/other", &[]).await.status, 404);
    assert!(!fake.seen().iter().any(|seen| seen.target == "/my/other"));
}

#[tokio::test]
async fn all_who_ask_for_a_token_wait_until_its_endpoint_is_learned() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        match request.uri().path() {
            "/v2/" => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                respond(401, &[("www-authenticate", &format!("Bearer realm=\"http://{host}/my/own\""))], "")
            }
            _ => respond(200, &[], "token"),
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    // A browser's question comes first, the pulls of a cluster right after it.
    let ask = |path: &'static str| server.ask("GET", path, &[]);
    let (icon, one, two) = tokio::join!(ask("/favicon.ico"), ask("/my/own"), ask("/my/own"));
    assert_eq!((icon.status.as_u16(), one.text(), two.text()), (404, "token", "token"));
    assert_eq!(fake.seen().iter().filter(|seen| seen.target == "/v2/").count(), 1);
}

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 2048;

fn endless(sent: Arc<AtomicUsize>) -> FakeBody {
    let chunk = Bytes::from(vec![7; CHUNK]);
    let stream = futures_util::stream::iter(0..CHUNKS).map(move |_| {
        sent.fetch_add(1, Ordering::SeqCst);
        Ok::<_, BoxError>(Frame::data(chunk.clone()))
    });
    FakeBody::new(StreamBody::new(stream))
}

#[tokio::test]
async fn a_large_answer_streams() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let fake = Fake::start(move |_: Request<Incoming>| {
        let body = endless(counter.clone());
        async move { http::Response::new(body) }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let answer = server.send(server.request("GET", "/v2/x/blobs/big", &[]).body(empty()).unwrap()).await;
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap();
    assert!(first.is_data());
    tokio::time::sleep(Duration::from_millis(300)).await;
    // 128 MiB wait; what has left the upstream is what the sockets and a few buffers hold.
    let ahead = sent.load(Ordering::SeqCst) * CHUNK;
    assert!(ahead < 48 * 1024 * 1024, "{ahead} bytes are somewhere in memory");
    let mut total = first.into_data().unwrap().len();
    while let Some(frame) = body.frame().await {
        total += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    assert_eq!(total, CHUNK * CHUNKS);
}

#[tokio::test]
async fn a_large_upload_streams() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let mut body = request.into_body();
        let mut total = 0;
        // The upstream takes its time at first.
        tokio::time::sleep(Duration::from_millis(300)).await;
        while let Some(frame) = body.frame().await {
            total += frame.unwrap().into_data().map_or(0, |data| data.len());
        }
        respond(202, &[], total.to_string())
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let body: RequestBody = endless(sent.clone());
    let request = server.request("PATCH", "/v2/x/blobs/uploads/1", &[]).body(body).unwrap();
    let sending = server.send(request);
    let watch = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        sent.load(Ordering::SeqCst) * CHUNK
    };
    let (answer, ahead) = tokio::join!(sending, watch);
    assert!(ahead < 48 * 1024 * 1024, "{ahead} bytes are somewhere in memory");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, (CHUNK * CHUNKS).to_string());
}

#[tokio::test]
async fn an_upload_may_be_slow_but_not_silent() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if body.is_empty() {
            std::future::pending::<()>().await;
        }
        respond(202, &[], body)
    })
    .await;
    let mut config = config(Some(fake.addr));
    config.upstream_timeout_seconds = 1;
    let server = Server::start(&config, None).await;
    let drip = futures_util::stream::iter(0..6).then(|n| async move {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Ok::<_, BoxError>(Frame::data(Bytes::from(n.to_string())))
    });
    let request = server.request("PATCH", "/v2/x", &[]).body(RequestBody::new(StreamBody::new(drip))).unwrap();
    let answer = server.send(request).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "012345");
    let told = server.ask("GET", "/v2/", &[]).await;
    assert_eq!((told.status.as_u16(), told.code().as_str()), (504, "UNAVAILABLE"));
}

#[tokio::test]
async fn an_upstream_that_is_not_there() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(&config(Some(gone)), None).await;
    let told = server.ask("GET", "/v2/", &[]).await;
    assert_eq!((told.status.as_u16(), told.code().as_str()), (502, "UNAVAILABLE"));
    assert_eq!(told.header("x-registry-supports-signatures"), "1");
}

#[tokio::test]
async fn a_pooled_connection_that_the_upstream_gave_up() {
    // Answers one request a connection, promises to keep it, and closes at the next request.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                let _ = stream.read(&mut buffer).await;
            });
        }
    });
    let server = Server::start(&config(Some(addr)), None).await;
    for _ in 0..5 {
        let told = server.ask("GET", "/v2/", &[]).await;
        assert_eq!((told.status.as_u16(), told.text()), (200, "ok"));
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_the_upstream() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (begun, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (b, d) = (begun.clone(), dropped.clone());
    let fake = Fake::start(move |_: Request<Incoming>| {
        b.fetch_add(1, Ordering::SeqCst);
        let guard = Dropped(d.clone());
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            respond(200, &[], "")
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let reached = |counter: Arc<AtomicUsize>| async move {
        for _ in 0..200 {
            if counter.load(Ordering::SeqCst) == 1 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    };
    assert!(reached(begun).await);
    drop(client);
    assert!(reached(dropped).await, "the upstream still works for nobody");
}

#[tokio::test]
async fn an_expectation_is_met() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        assert!(!request.headers().contains_key("expect"));
        respond(201, &[], request.into_body().collect().await.unwrap().to_bytes())
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let head =
        "PUT /v2/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 64];
    let n = client.read(&mut interim).await.unwrap();
    assert!(interim[..n].starts_with(b"HTTP/1.1 100 "), "{:?}", String::from_utf8_lossy(&interim[..n]));
    client.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 ") && answer.ends_with("body"), "{answer}");
}
