//! The signature extension: statuses, rights, uploads.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, Request};
use hyper::body::Incoming;

use crate::config::{HttpOrigin, ServerConfig};
use crate::image::Digest;
use crate::server::testing::{Fake, Server, config, registry, respond};
use crate::server::{NotAdmitted, Upload, UploadGate};
use crate::store::{SetAddress, StorePath};

const BOB: (&str, &str) = ("authorization", "Basic Ym9iOng=");
const EVE: (&str, &str) = ("authorization", "Basic ZXZlOng=");

fn digest() -> Digest {
    Digest::sha256(b"manifest")
}

fn path() -> String {
    format!("/extensions/v2/birds/bluebird/signatures/{}", digest())
}

fn set(path: &str) -> SetAddress {
    SetAddress::image(StorePath::parse(path).unwrap(), digest()).unwrap()
}

fn blob(note: &str) -> Vec<u8> {
    [b"\xa3", format!("{} {note}", digest()).as_bytes()].concat()
}

fn upload(content: &[u8]) -> String {
    let (name, content) = (format!("{}@{}", digest(), "0".repeat(32)), STANDARD.encode(content));
    format!(r#"{{"schemaVersion":2,"name":"{name}","type":"atomic","content":"{content}"}}"#)
}

#[tokio::test]
async fn lists_what_is_stored() {
    let fake = Fake::start(registry).await;
    let mut config = config(Some(fake.addr));
    config.store_prefix = StorePath::parse("icr").unwrap();
    let server = Server::start(&config, None).await;
    let told = server.ask("GET", &path(), &[BOB]).await;
    assert_eq!((told.status.as_u16(), told.text().trim()), (200, r#"{"signatures":[]}"#));
    assert_eq!(told.header("x-registry-supports-signatures"), "1");

    assert_eq!(server.put(&path(), &[BOB], upload(&blob("a"))).await.status, 201);
    let told = server.ask("GET", &path(), &[BOB]).await;
    let content = STANDARD.encode(blob("a"));
    assert!(told.text().contains(&content), "{}", told.text());
    let head = server.ask("HEAD", &path(), &[BOB]).await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, told.body.len().to_string().as_str()));
    assert!(head.body.is_empty());

    assert_eq!(server.store.stored(&set("icr/birds/bluebird")).await, [blob("a")]);
    let lookaside = format!("/lookaside/icr/birds/bluebird@sha256={}/signature-1", digest().hex());
    assert_eq!(server.ask("GET", &lookaside, &[]).await.body, blob("a"));
}

#[tokio::test]
async fn the_upstream_is_asked_with_the_callers_credentials() {
    let fake = Fake::start(registry).await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    server.ask("GET", &path(), &[BOB, ("if-none-match", "x"), ("range", "bytes=0-1"), ("cookie", "c")]).await;
    let seen = fake.seen().pop().unwrap();
    assert_eq!(seen.method, Method::HEAD);
    assert_eq!(seen.target, format!("/v2/birds/bluebird/manifests/{}", digest()));
    assert_eq!(seen.headers["authorization"], BOB.1);
    assert!(seen.headers["accept"].to_str().unwrap().contains("application/vnd.oci.image.index.v1+json"));
    assert_eq!(seen.headers["host"], fake.addr.to_string().as_str());
    for absent in ["if-none-match", "range", "cookie"] {
        assert!(!seen.headers.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn rights_are_not_asked_under_a_name_of_the_callers_choice() {
    let fake = Fake::start(registry).await;
    let public_url = Some(HttpOrigin::parse("https://r.example").unwrap());
    let config = ServerConfig { upstream_keep_host: true, public_url, ..config(Some(fake.addr)) };
    let server = Server::start(&config, None).await;
    server.ask("GET", &path(), &[BOB, ("host", "eve.example"), ("x-forwarded-host", "eve.example")]).await;
    let seen = fake.seen().pop().unwrap();
    assert_eq!(seen.headers["host"], "r.example");
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("x-forwarded")), "{:?}", seen.headers);
    server.ask("GET", "/v2/", &[BOB, ("host", "other.example")]).await;
    assert_eq!(fake.seen().pop().unwrap().headers["host"], "other.example");
}

/// Makes an upstream that answers everything with one status.
async fn always(status: u16, headers: &'static [(&'static str, &'static str)], body: &'static str) -> Fake {
    Fake::start(move |_: Request<Incoming>| async move { respond(status, headers, body) }).await
}

#[tokio::test]
async fn what_the_upstream_says_decides() {
    for (said, told, code, retry) in [
        (200, 200, "", ""),
        (404, 200, "", ""),
        (401, 401, "UNAUTHORIZED", ""),
        (403, 403, "DENIED", ""),
        (429, 429, "TOOMANYREQUESTS", ""),
        (500, 502, "UNAVAILABLE", "5"),
        (502, 502, "UNAVAILABLE", "5"),
        (503, 503, "UNAVAILABLE", "5"),
        (400, 502, "UNAVAILABLE", "5"),
        (204, 502, "UNAVAILABLE", "5"),
        (302, 502, "UNAVAILABLE", "5"),
    ] {
        let fake = always(said, &[], "").await;
        let server = Server::start(&config(Some(fake.addr)), None).await;
        let answer = server.ask("GET", &path(), &[BOB]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (told, code), "{said}");
        assert_eq!(answer.header("retry-after"), retry, "{said}");
        assert_eq!(answer.header("x-registry-supports-signatures"), "1", "{said}");
    }
}

/// Starts a registry that keeps its manifests at `/kept/`, and redirects there, or elsewhere.
async fn redirecting(location: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> Fake {
    Fake::start(move |request: Request<Incoming>| {
        let location = location(request.headers()["host"].to_str().unwrap());
        async move {
            match request.uri().path() {
                "/kept/good" => respond(200, &[("content-type", "application/vnd.oci.image.manifest.v1+json")], ""),
                "/kept/hop" => respond(302, &[("location", "good")], ""),
                "/kept/none" => respond(404, &[], ""),
                "/kept/loop" => respond(302, &[("location", "/kept/loop")], ""),
                "/kept/login" => respond(200, &[("content-type", "text/html")], "log in"),
                _ => respond(307, &[("location", &location)], ""),
            }
        }
    })
    .await
}

#[tokio::test]
async fn redirects_within_the_upstream_are_followed_with_the_callers_credentials() {
    for (place, told, listed) in [
        ("/kept/good", 200, true),
        ("/kept/hop", 200, true),
        ("/kept/none", 200, false),
        ("/kept/loop", 502, false),
        ("/kept/login", 502, false),
    ] {
        for absolute in [false, true] {
            let fake =
                redirecting(move |host| if absolute { format!("http://{host}{place}") } else { place.into() }).await;
            let server = Server::start(&config(Some(fake.addr)), None).await;
            server.store.put(&set("birds/bluebird"), &[blob("a")]).await;
            let answer = server.ask("GET", &path(), &[BOB]).await;
            assert_eq!(answer.status, told, "{place}");
            assert_eq!(answer.text().contains("atomic"), listed, "{place}");
            assert!(fake.seen().iter().all(|seen| seen.headers["authorization"] == BOB.1), "{place}");
        }
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_grants_nothing_unless_the_operator_names_it() {
    let elsewhere = redirecting(|_| String::new()).await;
    let place = format!("http://{}/kept/good", elsewhere.addr);
    for location in [place.clone(), place.replace("http://", "//"), "ftp://x/".to_owned()] {
        let fake = redirecting(move |_| location.clone()).await;
        let server = Server::start(&config(Some(fake.addr)), None).await;
        server.store.put(&set("birds/bluebird"), &[blob("a")]).await;
        assert_eq!(server.ask("GET", &path(), &[BOB]).await.status, 502);
    }
    assert_eq!(elsewhere.seen().len(), 0, "another origin is not even asked");

    let fake = redirecting(move |_| place.clone()).await;
    let named = HttpOrigin::parse(&format!("http://{}", elsewhere.addr)).unwrap();
    let config = ServerConfig { upstream_redirect_origins: vec![named], ..config(Some(fake.addr)) };
    let server = Server::start(&config, None).await;
    server.store.put(&set("birds/bluebird"), &[blob("a")]).await;
    assert!(server.ask("GET", &path(), &[BOB]).await.text().contains("atomic"));
    let seen = elsewhere.seen();
    assert!(!seen.is_empty() && seen.iter().all(|seen| !seen.headers.contains_key("authorization")));
}

#[tokio::test]
async fn refusals_are_handed_on() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let challenge = format!("Bearer realm=\"http://{host}/my/token\",service=\"s\",scope=\"repository:x:pull\"");
        let headers =
            [("www-authenticate", challenge.as_str()), ("content-type", "application/json"), ("retry-after", "7")];
        respond(401, &headers, r#"{"errors":[{"code":"UNAUTHORIZED","message":"mine"}]}"#)
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let told = server.ask("GET", &path(), &[("x-forwarded-proto", "https")]).await;
    let realm = format!("Bearer realm=\"https://{}/my/token\",service=\"s\",scope=\"repository:x:pull\"", server.addr);
    assert_eq!((told.status.as_u16(), told.header("www-authenticate")), (401, realm.as_str()));
    assert_eq!((told.code().as_str(), told.header("retry-after")), ("UNAUTHORIZED", "7"));
    let told = server.put(&path(), &[], upload(&blob("a"))).await;
    assert_eq!(told.status, 401);
    assert!(told.text().contains("mine"), "{}", told.text());
    // The path that the challenge named is now known to be the upstream's.
    assert_eq!(server.ask("GET", "/my/token?service=s", &[]).await.status, 401);
    assert_eq!(fake.seen().pop().unwrap().target, "/my/token?service=s");
}

#[tokio::test]
async fn rights_are_remembered_for_nobody_else() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        match request.headers().get("authorization") {
            Some(value) if value == BOB.1 => registry(request).await,
            Some(_) => respond(403, &[], ""),
            None => respond(401, &[], ""),
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    for _ in 0..3 {
        assert_eq!(server.ask("GET", &path(), &[BOB]).await.status, 200);
        assert_eq!(server.ask("GET", &path(), &[EVE]).await.status, 403);
        assert_eq!(server.ask("GET", &path(), &[]).await.status, 401);
        assert_eq!(server.ask("GET", &path(), &[EVE, BOB]).await.status, 400, "one of both credentials counts");
    }
    assert_eq!(fake.asked(&Method::HEAD), 1 + 3 * 2);
    let other = path().replace("bluebird", "other");
    assert_eq!(server.ask("GET", &other, &[BOB]).await.status, 200);
    assert_eq!(fake.asked(&Method::HEAD), 8, "another repository is another question");
    // The right to read is no right to write.
    assert_eq!(server.put(&path(), &[EVE], upload(&blob("a"))).await.status, 403);
    assert_eq!(server.put(&path(), &[BOB], upload(&blob("a"))).await.status, 201);
    assert_eq!(server.put(&path(), &[EVE], upload(&blob("a"))).await.status, 403);
}

#[tokio::test]
async fn a_right_is_not_remembered_beyond_its_token() {
    let fake = Fake::start(|_| async { respond(200, &[], "") }).await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let mut asked = 0;
    for (expires, asks) in [(1, 2), (4_000_000_000_u64, 1)] {
        let content = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{expires}}}"#));
        let token = ("authorization", &*format!("Bearer e30.{content}.c2ln"));
        for _ in 0..2 {
            assert_eq!(server.ask("GET", &path(), &[token]).await.status, 200);
        }
        asked += asks;
        assert_eq!(fake.asked(&Method::HEAD), asked, "{expires}");
    }
}

#[tokio::test]
async fn an_absent_manifest_is_not_remembered() {
    let there = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let knows = there.clone();
    let fake = Fake::start(move |request: Request<Incoming>| {
        let there = knows.load(std::sync::atomic::Ordering::SeqCst);
        async move {
            let is_manifest = request.uri().path().contains("/manifests/");
            if !there && is_manifest { respond(404, &[], "") } else { registry(request).await }
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    assert_eq!(server.ask("GET", &path(), &[BOB]).await.status, 200);
    let told = server.put(&path(), &[BOB], upload(&blob("a"))).await;
    assert_eq!((told.status.as_u16(), told.code().as_str()), (404, "MANIFEST_UNKNOWN"));
    there.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(server.put(&path(), &[BOB], upload(&blob("a"))).await.status, 201);
}

#[tokio::test]
async fn an_upload_is_exactly_201_and_idempotent() {
    let fake = Fake::start(registry).await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    for (note, count) in [("a", 1), ("a", 1), ("b", 2), ("a", 2)] {
        let told = server.put(&path(), &[BOB], upload(&blob(note))).await;
        assert_eq!((told.status.as_u16(), told.body.len()), (201, 0));
        assert_eq!((told.header("location"), told.header("content-length")), (path().as_str(), "0"));
        assert_eq!(server.store.stored(&set("birds/bluebird")).await.len(), count);
    }
    assert_eq!(fake.asked(&Method::POST), 1, "the right to write is remembered");
    for _ in 0..100 {
        if fake.asked(&Method::DELETE) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = fake.seen().into_iter().find(|seen| seen.method == Method::DELETE).unwrap();
    assert_eq!(seen.target, "/v2/x/blobs/uploads/1?_state=a%3D");
    assert_eq!(seen.headers["authorization"], BOB.1);
}

#[tokio::test]
async fn a_foreign_upload_location_gets_no_credentials() {
    let elsewhere = Fake::start(registry).await;
    let place = format!("http://{}/v2/x/blobs/uploads/1", elsewhere.addr);
    let fake = Fake::start(move |request: Request<Incoming>| {
        let place = place.clone();
        async move {
            match *request.method() {
                Method::POST => respond(202, &[("location", &place)], ""),
                _ => registry(request).await,
            }
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    assert_eq!(server.put(&path(), &[BOB], upload(&blob("a"))).await.status, 201);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(elsewhere.seen().is_empty() && fake.asked(&Method::DELETE) == 0);
}

#[tokio::test]
async fn what_an_upload_must_be() {
    let fake = Fake::start(registry).await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let other = Digest::sha256(b"other");
    let for_other = [b"\xa3", other.to_string().as_bytes()].concat();
    for (body, said) in [
        (String::new(), "end of JSON"),
        ("[]".to_owned(), "object expected"),
        (upload(b"-----BEGIN PGP MESSAGE-----"), "ASCII armour"),
        (upload(b"\0sigstore-json\n{}"), "sigstore-json"),
        (upload(b"\xa3garbage"), "no OpenPGP message"),
        (upload(&for_other), "the signature is for sha256:"),
        (upload(&blob("a")).replace(&format!("{}@", digest()), &format!("{other}@")), "another digest"),
    ] {
        let told = server.put(&path(), &[BOB], body).await;
        assert_eq!((told.status.as_u16(), told.code().as_str()), (400, "SIGNATURE_INVALID"), "{said}");
        let json: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
        assert!(json["errors"][0]["detail"].as_str().unwrap().contains(said), "{json} / {said}");
        assert!(json["errors"][0]["message"].as_str().unwrap().contains(said), "{json} / {said}");
    }
    assert!(server.store.stored(&set("birds/bluebird")).await.is_empty());
    for method in ["POST", "DELETE", "PATCH"] {
        let told = server.ask(method, &path(), &[BOB]).await;
        assert_eq!((told.status.as_u16(), told.header("allow")), (405, "GET, HEAD, PUT"), "{method}");
    }
    assert_eq!(server.ask("GET", "/extensions/v2/x/signatures/latest", &[BOB]).await.code(), "NAME_UNKNOWN");
}

#[tokio::test]
async fn an_upload_has_limits() {
    let fake = Fake::start(registry).await;
    let mut config = config(Some(fake.addr));
    config.limits.upload_bytes = 1000;
    config.limits.signatures_per_digest = 2;
    let server = Server::start(&config, None).await;
    let told = server.put(&path(), &[BOB], vec![b' '; 1001]).await;
    assert_eq!((told.status.as_u16(), told.code().as_str()), (413, "SIZE_INVALID"));
    assert!(fake.seen().is_empty(), "what is announced too long is refused at once");
    // The same without an announcement.
    let chunks =
        futures_util::stream::iter((0..20).map(|_| Ok(http_body::Frame::data(bytes::Bytes::from(vec![b' '; 100])))));
    let body = crate::registry::http::RequestBody::new(http_body_util::StreamBody::new(chunks));
    let answer = server.send(server.request("PUT", &path(), &[BOB]).body(body).unwrap()).await;
    assert_eq!(answer.status(), 413);

    for (note, status) in [("a", 201), ("b", 201), ("c", 403), ("a", 201)] {
        let told = server.put(&path(), &[BOB], upload(&blob(note))).await;
        assert_eq!(told.status, status, "{note}: {}", told.text());
    }
}

#[tokio::test]
async fn what_no_client_could_read_is_refused() {
    let fake = Fake::start(registry).await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    for (note, status, code) in [("a", 201, ""), ("b", 201, ""), ("c", 403, "DENIED")] {
        let told = server.put(&path(), &[BOB], upload(&blob(&note.repeat(1_200_000)))).await;
        assert_eq!((told.status.as_u16(), told.code().as_str()), (status, code), "{note}");
    }
}

#[tokio::test]
async fn racing_uploads_keep_the_limit_and_lose_nothing() {
    let fake = Fake::start(registry).await;
    let mut config = config(Some(fake.addr));
    config.limits.signatures_per_digest = 20;
    let server = Arc::new(Server::start(&config, None).await);
    let racers: Vec<_> = (0..40)
        .map(|n| {
            let server = server.clone();
            tokio::spawn(
                async move { server.put(&path(), &[BOB], upload(&blob(&n.to_string()))).await.status.as_u16() },
            )
        })
        .collect();
    let mut accepted = 0;
    for racer in racers {
        match racer.await.unwrap() {
            201 => accepted += 1,
            status => assert_eq!(status, 403),
        }
    }
    assert_eq!(accepted, 20);
    assert_eq!(server.store.stored(&set("birds/bluebird")).await.len(), 20);
}

#[tokio::test]
async fn a_failing_store_is_503() {
    let fake = Fake::start(registry).await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    server.store.fail(true);
    for told in [server.ask("GET", &path(), &[BOB]).await, server.put(&path(), &[BOB], upload(&blob("a"))).await] {
        assert_eq!((told.status.as_u16(), told.code().as_str()), (503, "UNAVAILABLE"));
        assert_eq!(told.header("retry-after"), "5");
    }
    server.store.fail(false);
    assert_eq!(server.ask("GET", &path(), &[BOB]).await.status, 200);
}

#[tokio::test]
async fn a_registry_that_takes_no_uploads() {
    for (said, told, code) in
        [(404, 403, "DENIED"), (405, 403, "DENIED"), (201, 502, "UNAVAILABLE"), (429, 429, "TOOMANYREQUESTS")]
    {
        let fake = always(said, &[], "").await;
        let server = Server::start(&config(Some(fake.addr)), None).await;
        let answer = server.put(&path(), &[BOB], upload(&blob("a"))).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (told, code), "{said}");
    }
}

#[tokio::test]
async fn the_gate_has_the_last_word() {
    struct NoBees;
    impl UploadGate for NoBees {
        fn admit(&self, upload: &Upload<'_>) -> Result<(), NotAdmitted> {
            assert_eq!((upload.repository, upload.digest), ("birds/bluebird", &super::extension::digest()));
            assert!(upload.claim.is_some_and(|claim| claim.digest == *upload.digest));
            match upload.message {
                blob if blob.ends_with(b"bee") => Err(NotAdmitted::Denied("bees are not admitted".to_owned())),
                blob if blob.ends_with(b"cat") => Err(NotAdmitted::Unavailable("/secret/path is gone".to_owned())),
                _ => Ok(()),
            }
        }
    }
    let fake = Fake::start(registry).await;
    let server = Server::start(&config(Some(fake.addr)), Some(Arc::new(NoBees))).await;
    assert_eq!(server.put(&path(), &[BOB], upload(&blob("bird"))).await.status, 201);
    let told = server.put(&path(), &[BOB], upload(&blob("bee"))).await;
    assert_eq!((told.status.as_u16(), told.code().as_str()), (403, "DENIED"));
    assert!(told.text().contains("bees are not admitted"));
    let told = server.put(&path(), &[BOB], upload(&blob("cat"))).await;
    assert_eq!((told.status.as_u16(), told.code().as_str(), told.header("retry-after")), (503, "UNAVAILABLE", "5"));
    assert!(!told.text().contains("secret"), "{}", told.text());
    assert_eq!(server.store.stored(&set("birds/bluebird")).await.len(), 1);
}

#[tokio::test]
async fn a_gate_may_do_without_claims() {
    struct Open;
    impl UploadGate for Open {
        fn reads_claims(&self, repository: &str) -> bool {
            repository != "birds/bluebird"
        }
        fn admit(&self, upload: &Upload<'_>) -> Result<(), NotAdmitted> {
            assert_eq!(upload.claim.is_none(), upload.repository == "birds/bluebird");
            Ok(())
        }
    }
    let fake = Fake::start(registry).await;
    let server = Server::start(&config(Some(fake.addr)), Some(Arc::new(Open))).await;
    assert_eq!(server.put(&path(), &[BOB], upload(b"\xa3no claim")).await.status, 201);
    let other = path().replace("bluebird", "other");
    let told = server.put(&other, &[BOB], upload(b"\xa3no claim")).await;
    assert_eq!((told.status.as_u16(), told.code().as_str()), (400, "SIGNATURE_INVALID"));
    // What every upload must fulfil.
    let foreign = upload(b"\xa3no claim").replace(digest().hex(), Digest::sha256(b"y").hex());
    assert_eq!(server.put(&path(), &[BOB], foreign).await.status, 400);
    assert_eq!(server.put(&path(), &[BOB], upload(b"<html>")).await.status, 400);
}

#[tokio::test]
async fn an_upstream_that_is_not_there() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(&config(Some(gone)), None).await;
    for told in [server.ask("GET", &path(), &[BOB]).await, server.put(&path(), &[BOB], upload(&blob("a"))).await] {
        assert_eq!((told.status.as_u16(), told.code().as_str()), (502, "UNAVAILABLE"));
        assert_eq!((told.header("retry-after"), told.header("x-registry-supports-signatures")), ("5", "1"));
    }
}

#[tokio::test]
async fn an_upstream_that_is_silent() {
    let fake = Fake::start(|_: Request<Incoming>| std::future::pending()).await;
    let mut config = config(Some(fake.addr));
    config.access_timeout_seconds = 1;
    let server = Server::start(&config, None).await;
    let told = server.ask("GET", &path(), &[BOB]).await;
    assert_eq!((told.status.as_u16(), told.code().as_str()), (504, "UNAVAILABLE"));
}
