//! Upstreams that redirect, or refuse HEAD.

use http::{Method, Request};
use hyper::body::Incoming;

use crate::image::Digest;
use crate::server::testing::{Fake, Server, config, respond};

const BOB: (&str, &str) = ("authorization", "Basic Ym9iOng=");
const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

fn list() -> String {
    format!("/extensions/v2/birds/bluebird/signatures/{}", Digest::sha256(MANIFEST.as_bytes()))
}

#[tokio::test]
async fn relays_paths_of_the_upstream_that_it_handed_out_and_no_others() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let path = request.uri().path().to_owned();
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        match path.as_str() {
            "/v2/x/blobs/sha256:1" => respond(307, &[("location", "/downloads/1?sig=a%2Fb")], ""),
            "/v2/x/blobs/sha256:2" => respond(307, &[("location", &format!("http://{host}/downloads/2"))], ""),
            "/v2/x/blobs/sha256:3" => respond(307, &[("location", "https://elsewhere.example/downloads/3")], ""),
            "/downloads/1" => respond(200, &[], request.uri().query().unwrap().to_owned()),
            "/downloads/2" | "/downloads/3" | "/admin" => respond(200, &[], "layer"),
            _ => respond(404, &[], ""),
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    for path in ["/downloads/1", "/downloads/2", "/admin"] {
        assert_eq!(server.ask("GET", path, &[]).await.status, 404, "{path} was not handed out");
    }
    for (blob, location, body) in [("1", "/downloads/1?sig=a%2Fb", "sig=a%2Fb"), ("2", "/downloads/2", "layer")] {
        let told = server.ask("GET", &format!("/v2/x/blobs/sha256:{blob}"), &[]).await;
        assert_eq!((told.status.as_u16(), told.header("location")), (307, location));
        let told = server.ask("GET", location, &[BOB]).await;
        assert_eq!((told.status.as_u16(), told.text()), (200, body));
    }
    let told = server.ask("GET", "/v2/x/blobs/sha256:3", &[]).await;
    assert_eq!(told.header("location"), "https://elsewhere.example/downloads/3");
    for path in ["/downloads/3", "/admin", "/downloads/../admin"] {
        assert_eq!(server.ask("GET", path, &[]).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn ping_is_never_a_redirect() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        match request.uri().path() {
            "/v2/" => respond(301, &[("location", "/registry/v2/")], ""),
            "/registry/v2/" => respond(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
            _ => respond(404, &[], ""),
        }
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let told = server.ask("GET", "/v2/", &[]).await;
    assert_eq!((told.status.as_u16(), told.header("x-registry-supports-signatures")), (401, "1"));

    let fake =
        Fake::start(|_: Request<Incoming>| async { respond(301, &[("location", "https://up.example/v2/")], "") });
    let fake = fake.await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let told = server.ask("GET", "/v2/", &[]).await;
    assert_eq!(told.status, 502);
    assert!(told.text().contains("set `upstream` to that address") && told.text().contains("https://up.example"));
    assert!(!told.headers.contains_key("location"));

    let fake = Fake::start(|_: Request<Incoming>| async { respond(302, &[("location", "/v2/")], "") }).await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    assert_eq!(server.ask("GET", "/v2/", &[("content-length", "0")]).await.status, 502, "a circle ends");
}

#[tokio::test]
async fn head_that_is_refused_is_asked_again_by_get() {
    for (head, get, body, status) in [
        (403, 200, MANIFEST, 200),
        (404, 200, MANIFEST, 200),
        (405, 200, MANIFEST, 200),
        (501, 200, MANIFEST, 200),
        (404, 404, "", 200),
        (403, 403, "", 403),
        (405, 401, "", 401),
        // A web server that has one page for everything.
        (404, 200, "<html>", 502),
        (405, 200, r#"{"schemaVersion":2}"#, 502),
    ] {
        let fake = Fake::start(move |request: Request<Incoming>| async move {
            match *request.method() {
                Method::HEAD => respond(head, &[], ""),
                _ => respond(get, &[], body),
            }
        })
        .await;
        let server = Server::start(&config(Some(fake.addr)), None).await;
        let told = server.ask("GET", &list(), &[BOB]).await;
        assert_eq!(told.status, status, "HEAD {head}, GET {get} {body}: {}", told.text());
        let gets: Vec<_> = fake.seen().into_iter().filter(|seen| seen.method == Method::GET).collect();
        assert_eq!(gets.len(), 1);
        assert_eq!(gets[0].headers["authorization"], BOB.1);
    }
}

#[tokio::test]
async fn headers_about_the_upstreams_own_name_are_not_passed_on() {
    let fake = Fake::start(|_: Request<Incoming>| async {
        let own = [("alt-svc", "h3=\":443\""), ("strict-transport-security", "max-age=1"), ("x-kept", "1")];
        respond(200, &own, "")
    })
    .await;
    let server = Server::start(&config(Some(fake.addr)), None).await;
    let told = server.ask("GET", "/v2/x/tags/list", &[]).await;
    assert!(!told.headers.contains_key("alt-svc") && !told.headers.contains_key("strict-transport-security"));
    assert_eq!(told.header("x-kept"), "1");
}
