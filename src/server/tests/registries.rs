//! Several registries: which one a request goes to, and that nothing of one goes to another.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::config::ServerConfig;
use crate::server::testing::{Fake, Server, respond};

/// A registry with a token server of its own at `/t`, which answers with what it was asked.
async fn bearer(name: &'static str) -> Fake {
    Fake::start(move |request: Request<Incoming>| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        match request.uri().path() {
            "/v2/" => {
                let challenge = format!("Bearer realm=\"http://{host}/t?r=1\",service=\"{name}\"");
                respond(401, &[("www-authenticate", &challenge)], "")
            }
            "/t" => {
                let query = request.uri().query().unwrap_or_default().to_owned();
                let form = request.into_body().collect().await.unwrap().to_bytes();
                let asked = format!("{query} {}", String::from_utf8_lossy(&form));
                let said =
                    serde_json::json!({"access_token": name, "refresh_token": "r1", "asked": asked, "expires_in": 60});
                respond(200, &[], said.to_string())
            }
            _ => respond(200, &[], name),
        }
    })
    .await
}

fn config(registries: &[(&str, SocketAddr)], more: &str) -> ServerConfig {
    let one = |(name, addr): &(&str, SocketAddr)| format!("  {name}: {{upstream: 'http://{addr}'}}\n");
    let registries: String = registries.iter().map(one).collect();
    ServerConfig::parse(&format!("{more}\nregistries:\n{registries}")).unwrap()
}

fn sent(fake: &Fake) -> (String, Option<String>) {
    let seen = fake.seen().pop().unwrap();
    (seen.target, seen.headers.get("authorization").map(|v| v.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn hosts_and_paths_find_their_registry() {
    let (a, b, top) = (bearer("a").await, bearer("b").await, bearer("top").await);
    let registries = [("a.example", a.addr), ("b.example:8443", b.addr)];
    let top_url = format!("upstream: 'http://{}'", top.addr);
    let server = Server::start(&config(&registries, &top_url), None).await;
    let untrusting = Server::start(&config(&registries, &format!("{top_url}\ntrusted_proxies: []")), None).await;
    for (host, forwarded, path, found) in [
        ("a.example", "", "/v2/x/tags/list", "a"),
        ("A.Example:8443", "", "/v2/x/tags/list", "a"),
        ("b.example:8443", "", "/v2/x/tags/list", "b"),
        ("b.example", "", "/v2/x/tags/list", "top"),
        ("sig.example", "", "/v2/x/tags/list", "top"),
        ("sig.example", "", "/v2/a.example/x/tags/list", "a"),
        ("sig.example", "", "/v2/a.example", "denied"),
        ("sig.example", "", "/v2/b.example/x/tags/list", "top"),
        ("a.example", "", "/v2/b.example/x/tags/list", "a"),
        ("sig.example", "a.example, sig.example", "/v2/x/tags/list", "a"),
        ("a.example", "sig.example", "/v2/a.example/x/tags/list", "a"),
        ("[::1]:80", "", "/v2/x/tags/list", "top"),
    ] {
        let headers: Vec<(&str, &str)> =
            [("host", host), ("x-forwarded-host", forwarded)].into_iter().filter(|(_, v)| !v.is_empty()).collect();
        let told = server.ask("GET", path, &headers).await;
        let said = if told.status == 401 { "denied" } else { told.text() };
        assert_eq!(said, found, "{host} {forwarded} {path}");
        if !forwarded.is_empty() {
            let told = untrusting.ask("GET", path, &headers).await;
            assert_eq!(told.text(), if host == "a.example" { "a" } else { "top" }, "{host} {forwarded}");
        }
    }
    let spoofed = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "host=evil"), ("host", "a.example")];
    untrusting.ask("GET", "/v2/x/tags/list", &spoofed).await;
    let seen = a.seen().pop().unwrap();
    assert_eq!(
        (&seen.headers["x-forwarded-for"], seen.headers.get("forwarded")),
        (&"127.0.0.1".parse().unwrap(), None)
    );
}

#[tokio::test]
async fn requests_lose_the_component_and_answers_get_it_back() {
    let fake = Fake::start(|request: Request<Incoming>| async move {
        let forwarded = request.headers()["x-forwarded-host"].to_str().unwrap().to_owned();
        let location = format!("http://{forwarded}/v2/x/blobs/uploads/1?_state=a%2F");
        respond(202, &[("location", &location), ("link", "</v2/x/tags/list?last=a>; rel=\"next\"")], "")
    })
    .await;
    let server = Server::start(&config(&[("a.example", fake.addr)], ""), None).await;
    let told = server.ask("POST", "/v2/a.example/x/blobs/uploads/?from=a.example%2Fy&mount=sha256:1", &[]).await;
    assert_eq!(told.header("location"), "/v2/a.example/x/blobs/uploads/1?_state=a%2F");
    assert_eq!(told.header("link"), "</v2/a.example/x/tags/list?last=a>; rel=\"next\"");
    assert_eq!(sent(&fake).0, "/v2/x/blobs/uploads/?from=y&mount=sha256:1");
    server.ask("PATCH", "/v2/a.example/x/blobs/uploads/1?_state=a%2Fb%3D%3D&&x=%20", &[]).await;
    assert_eq!(sent(&fake).0, "/v2/x/blobs/uploads/1?_state=a%2Fb%3D%3D&&x=%20");
}

#[tokio::test]
async fn what_is_one_registrys_goes_to_no_other() {
    let (a, b) = (bearer("a").await, bearer("b").await);
    let server = Server::start(&config(&[("a.example", a.addr), ("b.example", b.addr)], ""), None).await;
    let get = |target: String| {
        let server = &server;
        async move { serde_json::from_slice::<serde_json::Value>(&server.ask("GET", &target, &[]).await.body).unwrap() }
    };
    let told = get(
        "/v2/_token?account=u&service=countersign&scope=repository:a.example/x:pull,push&scope=repository:b.example/y:pull"
            .to_owned(),
    )
    .await;
    assert_eq!(told["asked"], "r=1&account=u&service=a&scope=repository%3Ax%3Apull%2Cpush ");
    assert_eq!(b.seen().len(), 0, "a token is for one registry");
    let token = format!("Bearer {}", told["access_token"].as_str().unwrap());
    for (path, fake, authorization) in
        [("/v2/a.example/x/tags/list", &a, Some("Bearer a")), ("/v2/b.example/y/tags/list", &b, None)]
    {
        server.ask("GET", path, &[("authorization", &token)]).await;
        assert_eq!(sent(fake).1.as_deref(), authorization, "{path}");
    }
    // What is not ours is the client's own, for the registry that it names.
    server.ask("GET", "/v2/a.example/x/tags/list", &[("authorization", "Basic dTpw")]).await;
    assert_eq!(sent(&a).1.as_deref(), Some("Basic dTpw"));

    // Refresh tokens in forms, several scopes in one field.
    let refresh = told["refresh_token"].as_str().unwrap();
    let post = async |registry: &str| {
        let form = format!(
            "grant_type=refresh_token&refresh_token={refresh}&service=x&scope=repository:{registry}/x:pull%20repository:{registry}/z:pull"
        );
        let body = crate::registry::http::full(form);
        let request = server.request("POST", "/v2/_token", &[]).body(body).unwrap();
        crate::server::testing::Told::read(server.send(request).await).await
    };
    let told = post("a.example").await;
    assert!(
        told.text().contains("refresh_token=r1&service=a&scope=repository%3Ax%3Apull+repository%3Az%3Apull"),
        "{told:?}"
    );
    let asked = b.asked(&Method::POST);
    assert_eq!((post("b.example").await.status.as_u16(), b.asked(&Method::POST)), (401, asked));
}

#[tokio::test]
async fn a_login_and_a_ping_need_no_registry() {
    let a = bearer("a").await;
    let server = Server::start(&config(&[("a.example", a.addr)], ""), None).await;
    let ping = server.ask("GET", "/v2/", &[("host", "sig.example")]).await;
    assert_eq!(ping.status, 401);
    assert_eq!(
        ping.header("www-authenticate"),
        "Bearer realm=\"http://sig.example/v2/_token\",service=\"countersign\""
    );
    assert_eq!((ping.header("x-registry-supports-signatures"), ping.code().as_str()), ("1", "UNAUTHORIZED"));
    let told = server.ask("GET", "/v2/_token?service=countersign", &[("authorization", "Basic dTpw")]).await;
    let token: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
    assert!(!told.text().contains("dTpw"), "nobody can use it");
    let token = format!("Bearer {}", token["token"].as_str().unwrap());
    assert_eq!(server.ask("GET", "/v2/", &[("authorization", &token)]).await.status, 200);
    assert_eq!(server.ask("PUT", "/v2/", &[]).await.status, 405);
    assert_eq!(server.ask("PUT", "/v2/_token", &[]).await.status, 405);
    assert!(a.seen().is_empty());
    // By host, the registry is as it is.
    assert!(
        server
            .ask("GET", "/v2/", &[("host", "a.example")])
            .await
            .header("www-authenticate")
            .contains("http://a.example/t")
    );
    assert_eq!(server.ask("GET", "/v2/x/tags/list", &[]).await.code(), "UNSUPPORTED");
}

#[tokio::test]
async fn a_registry_that_hangs_keeps_nobody_waiting_in_a_row() {
    let fake = Fake::start(|_: Request<Incoming>| std::future::pending()).await;
    let server = Server::start(&config(&[("a.example", fake.addr)], "access_timeout_seconds: 1"), None).await;
    let begun = Instant::now();
    let ask = || server.ask("GET", "/v2/_token?scope=repository:a.example/x:pull", &[]);
    let (one, two, three, four) = tokio::join!(ask(), ask(), ask(), ask());
    for told in [one, two, three, four] {
        assert!([502, 504].contains(&told.status.as_u16()), "{told:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
