//! The lookaside and release faces, the page, and the server without an upstream.

use crate::image::Digest;
use crate::server::testing::{Fake, Server, config, registry};
use crate::store::{SetAddress, StorePath};

fn digest() -> Digest {
    Digest::sha256(b"manifest")
}

fn image(path: &str) -> SetAddress {
    SetAddress::image(StorePath::parse(path).unwrap(), digest()).unwrap()
}

#[tokio::test]
async fn a_walk_ends_with_404() {
    let server = Server::start(&config(None), None).await;
    server.store.put(&image("birds/bluebird"), &["one", "two"]).await;
    let path = |n: u32| format!("/lookaside/birds/bluebird@sha256={}/signature-{n}", digest().hex());
    for (n, body) in [(1, "one"), (2, "two")] {
        let told = server.ask("GET", &path(n), &[]).await;
        assert_eq!((told.status.as_u16(), told.text()), (200, body));
        assert_eq!(told.header("content-type"), "application/octet-stream");
        assert_eq!(told.header("etag"), format!("\"{}\"", Digest::sha256(body.as_bytes()).hex()));
        assert_eq!(told.header("cache-control"), "max-age=60, must-revalidate");
    }
    let told = server.ask("GET", &path(3), &[]).await;
    assert_eq!((told.status.as_u16(), told.header("cache-control")), (404, "max-age=5"));
    assert!(told.header("content-type").starts_with("text/plain"));
    assert_eq!(server.store.reads(), 1, "the whole walk is one visit");
    assert!(!told.headers.contains_key("x-registry-supports-signatures"));
}

#[tokio::test]
async fn head_and_conditions() {
    let server = Server::start(&config(None), None).await;
    server.store.put(&image("x"), &["12345"]).await;
    let path = format!("/lookaside/x@sha256={}/signature-1", digest().hex());
    let told = server.ask("HEAD", &path, &[]).await;
    assert_eq!((told.status.as_u16(), told.header("content-length"), told.body.len()), (200, "5", 0));
    let etag = told.header("etag").to_owned();
    for condition in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        let told = server.ask("GET", &path, &[("if-none-match", &condition)]).await;
        assert_eq!(
            (told.status.as_u16(), told.body.len(), told.header("etag")),
            (304, 0, etag.as_str()),
            "{condition}"
        );
    }
    let told = server.ask("GET", &path, &[("if-none-match", "\"x\"")]).await;
    assert_eq!((told.status.as_u16(), told.text()), (200, "12345"));
    // Some clients always send credentials; they mean nothing here.
    let told = server.ask("GET", &path, &[("authorization", "Basic !")]).await;
    assert_eq!(told.status, 200);
    let told = server.ask("HEAD", &path.replace("-1", "-2"), &[]).await;
    assert_eq!((told.status.as_u16(), told.body.len()), (404, 0));
}

#[tokio::test]
async fn other_methods_are_told_so() {
    let server = Server::start(&config(None), None).await;
    let path = format!("/lookaside/x@sha256={}/signature-1", digest().hex());
    for (method, status) in
        [("POST", 405), ("PATCH", 405), ("PROPFIND", 405), ("MKCOL", 405), ("TRACE", 405), ("OPTIONS", 200)]
    {
        let told = server.ask(method, &path, &[]).await;
        let allowed = "GET, HEAD, PUT, DELETE, MKCOL, OPTIONS";
        assert_eq!((told.status.as_u16(), told.header("allow")), (status, allowed), "{method}");
    }
    // Nobody writes unless the configuration says who.
    for method in ["PUT", "DELETE"] {
        let told = server.ask(method, &path, &[("authorization", "Basic Ym9iOng=")]).await;
        assert!(told.status == 403 && told.text().contains("access: write:"), "{method}: {told:?}");
    }
    assert_eq!(server.ask("MKCOL", "/lookaside/x", &[]).await.status, 403);
    assert_eq!(server.ask("POST", "/", &[]).await.status, 405);
}

#[tokio::test]
async fn a_failing_store_is_never_an_absence() {
    let server = Server::start(&config(None), None).await;
    server.store.fail(true);
    for address in [format!("x@sha256={}", digest().hex()), format!("x/sha256={}", digest().hex())] {
        let told = server.ask("GET", &format!("/lookaside/{address}/signature-1"), &[]).await;
        assert_eq!((told.status.as_u16(), told.header("retry-after")), (503, "5"));
        assert_eq!(told.header("cache-control"), "no-store");
    }
    server.store.fail(false);
    server.store.fail_walks(true);
    let told = server.ask("GET", &format!("/lookaside/x/sha256={}/signature-1", digest().hex()), &[]).await;
    assert_eq!(told.status, 503);
}

#[tokio::test]
async fn clients_never_see_a_128th() {
    let server = Server::start(&config(None), None).await;
    server.store.lay((0..130).map(|n| format!("blob {n}")));
    for (n, status) in [(127, 200), (128, 404), (4_294_967_295u32, 404)] {
        let told = server.ask("GET", &format!("/lookaside/x@sha256={}/signature-{n}", digest().hex()), &[]).await;
        assert_eq!(told.status, status, "{n}");
    }
}

#[tokio::test]
async fn releases_are_found_by_digest() {
    let server = Server::start(&config(None), None).await;
    server.store.put(&image("ocp/release/a"), &["one"]).await;
    for prefix in ["", "ocp/", "ocp/release/", "/ocp//release/"] {
        let told = server.ask("GET", &format!("/lookaside/{prefix}sha256={}/signature-1", digest().hex()), &[]).await;
        assert_eq!((told.status.as_u16(), told.text()), (200, "one"), "{prefix}");
    }
    let told = server.ask("GET", &format!("/lookaside/other/sha256={}/signature-1", digest().hex()), &[]).await;
    assert_eq!(told.status, 404);
}

#[tokio::test]
async fn hostile_paths_are_not_found() {
    let fake = Fake::start(registry).await;
    for config in [config(None), config(Some(fake.addr))] {
        let server = Server::start(&config, None).await;
        for path in [
            "/lookaside/",
            "/lookaside/..",
            "/lookaside/../../etc/passwd",
            "/lookaside/%2e%2e/%2e%2e/etc/passwd",
            "/lookaside/x%00",
            "/lookaside/x/signature-1",
            "/lookaside/%5c..%5cx",
            "/v2/../admin",
            "/v2/%2e%2e/admin",
            "/v2/x%00",
            "/v2/..%5cadmin",
            "/extensions/v2/../signatures/sha256:x",
            "/favicon.ico",
            "//v2/",
        ] {
            let told = server.ask("GET", path, &[]).await;
            assert_eq!(told.status, 404, "{path}");
        }
    }
    assert!(fake.seen().iter().all(|seen| seen.target == "/v2/"), "{:?}", fake.seen());
}

#[tokio::test]
async fn without_an_upstream() {
    let server = Server::start(&config(None), None).await;
    let signatures = format!("/extensions/v2/x/signatures/{}", digest());
    for path in ["/v2/", "/v2/x/manifests/latest", signatures.as_str(), "/extensions/x"] {
        let told = server.ask("GET", path, &[]).await;
        assert_eq!((told.status.as_u16(), told.code().as_str()), (404, "UNSUPPORTED"), "{path}");
        assert!(told.text().contains("no upstream registry is configured"), "{path}");
        assert!(!told.headers.contains_key("x-registry-supports-signatures"), "{path}");
    }
    let page = server.ask("GET", "/", &[("host", "sig.example"), ("x-forwarded-proto", "https")]).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("lookaside: https://sig.example/lookaside\n"), "{}", page.text());
}
