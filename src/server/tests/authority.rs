//! With whose authority the server asks its upstream, and where it sends passwords: no caller
//! chooses that (SECURITY.md, "What the server sends where").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request};
use hyper::body::Incoming;

use super::store_scope::{at, digest, release, set};
use crate::config::{CredentialConfig, HttpOrigin, ServerConfig};
use crate::server::testing::{Fake, Seen, Server, config, respond};

const VICTIM: (&str, &str) = ("authorization", "Basic dmljdGltOnBhc3N3b3Jk");
const MANIFEST: (&str, &str) = ("content-type", "application/vnd.oci.image.manifest.v1+json");

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A registry that makes the address of its token server out of the request, as OpenShift's does.
async fn mirroring() -> Fake {
    Fake::start(|request: Request<Incoming>| async move {
        if request.uri().path().starts_with("/token") {
            return respond(200, &[("content-type", "application/json")], r#"{"token":"good"}"#);
        }
        let headers = request.headers();
        if said(headers, "authorization") == Some("Bearer good") {
            return respond(200, &[MANIFEST], "{}");
        }
        let host = said(headers, "x-forwarded-host").or(said(headers, "host")).unwrap_or_default();
        respond(401, &[("www-authenticate", &format!("Bearer realm=\"http://{host}/token\",service=\"r\""))], "{}")
    })
    .await
}

/// Takes whatever is sent to it.
async fn thief() -> Fake {
    Fake::start(|_| async { respond(200, &[("content-type", "application/json")], r#"{"token":"evil"}"#) }).await
}

/// A configuration with credentials of the server's own; the folder holds the password.
fn with_own(config: ServerConfig) -> (ServerConfig, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "own-password\n").unwrap();
    let own = CredentialConfig { username: Some("puller".to_owned()), password_file: Some(file), ..Default::default() };
    (ServerConfig { credentials: Some(own), ..config }, folder)
}

fn manifest() -> String {
    format!("/v2/birds/bluebird/manifests/{}", digest())
}

/// Every face that makes the server ask its upstream.
fn faces() -> Vec<String> {
    vec![
        "/v2/".to_owned(),
        manifest(),
        "/v2/_token?scope=repository:birds/bluebird:pull".to_owned(),
        format!("/extensions/v2/birds/bluebird/signatures/{}", digest()),
        at(&set("birds/bluebird"), "1"),
        at(&release("birds"), "1"),
        "/unknown/token".to_owned(),
    ]
}

#[tokio::test]
async fn no_password_goes_to_a_token_server_of_a_callers_choice() {
    let right = HttpOrigin::parse("http://right.example").unwrap();
    for own in [false, true] {
        for (keep, public) in [(false, None), (true, None), (false, Some(&right)), (true, Some(&right))] {
            let (upstream, thief) = (mirroring().await, thief().await);
            let rules = ServerConfig::parse("access: {read: [upstream], write: [upstream]}").unwrap().access;
            let base = ServerConfig {
                upstream_keep_host: keep,
                public_url: public.cloned(),
                access: rules,
                ..config(Some(upstream.addr))
            };
            let (configured, _folder) = if own { with_own(base) } else { (base, tempfile::tempdir().unwrap()) };
            let server = Server::start(&configured, None).await;
            server.store.put(&set("birds/bluebird"), &["one"]).await;
            let evil = thief.addr.to_string();
            // The stranger's host, then others' passwords under the right one: nothing is remembered of the first.
            for credentials in [None, Some(VICTIM)] {
                for face in faces() {
                    for name in ["host", "x-forwarded-host"] {
                        let headers: Vec<_> = [(name, evil.as_str())].into_iter().chain(credentials).collect();
                        server.ask("GET", &face, if credentials.is_some() { &headers[1..] } else { &headers }).await;
                    }
                }
            }
            let stolen: Vec<Seen> = thief.seen();
            assert!(stolen.is_empty(), "own: {own}, keep: {keep}, public: {public:?}: {stolen:?}");
        }
    }
}

#[tokio::test]
async fn the_servers_own_requests_carry_nothing_of_any_caller() {
    let upstream = mirroring().await;
    let (configured, _folder) = with_own(config(Some(upstream.addr)));
    let server = Server::start(&configured, None).await;
    let strange = [
        ("host", "strange.example"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "strange.example"),
        ("forwarded", "host=strange.example"),
        ("user-agent", "strange"),
        ("cookie", "strange=1"),
        ("x-request-id", "strange"),
        ("x-strange", "1"),
        ("via", "1.1 strange"),
        ("accept", "application/wanted"),
        ("range", "bytes=0-1"),
    ];
    for face in faces() {
        server.ask("GET", &face, &strange).await;
    }
    let seen = upstream.seen();
    // The manifest itself is pulled with our credentials, so it is a request of ours.
    let pulls: Vec<&Seen> = seen.iter().filter(|seen| seen.method == "GET" && seen.target == manifest()).collect();
    assert!(!pulls.is_empty() && seen.len() > pulls.len());
    for one in &pulls {
        assert_eq!(said(&one.headers, "accept"), Some("application/wanted"), "what is wanted goes on");
        assert_eq!(said(&one.headers, "range"), Some("bytes=0-1"));
    }
    for one in &seen {
        for (name, value) in &one.headers {
            let value = value.to_str().unwrap();
            assert!(!value.contains("strange") && !value.contains("6.6.6.6"), "{} {name}: {value}", one.target);
            assert!(!name.as_str().contains("strange") && !name.as_str().starts_with("x-forwarded"), "{name}");
        }
        assert_eq!(said(&one.headers, "host"), Some(upstream.addr.to_string().as_str()), "{}", one.target);
    }
}

#[tokio::test]
async fn a_callers_query_chooses_no_token_server_for_the_servers_own_credentials() {
    let thief = thief().await;
    let evil = thief.addr.to_string();
    // A mirror that serves the registry which the query names, as containerd's convention has it.
    let upstream = Fake::start(|request: Request<Incoming>| async move {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let own = said(request.headers(), "host").unwrap_or_default().to_owned();
        let host = query.strip_prefix("ns=").map_or(own, str::to_owned);
        match request.uri().path() {
            "/token" => respond(200, &[("content-type", "application/json")], r#"{"token":"good"}"#),
            _ if said(request.headers(), "authorization") == Some("Bearer good") && !query.starts_with("ns=") => {
                respond(200, &[MANIFEST], query)
            }
            _ => respond(401, &[("www-authenticate", &format!("Bearer realm=\"http://{host}/token\""))], ""),
        }
    })
    .await;
    let (configured, _folder) = with_own(config(Some(upstream.addr)));
    let server = Server::start(&configured, None).await;
    for path in [manifest(), "/v2/birds/bluebird/tags/list".to_owned()] {
        assert_eq!(server.ask("GET", &format!("{path}?ns={evil}"), &[]).await.status, 200, "{path}");
    }
    let told = server.ask("GET", &format!("/v2/birds/bluebird/tags/list?n=2&ns={evil}&last=a%2Fb"), &[]).await;
    assert_eq!(told.text(), "n=2&last=a%2Fb", "the page that is asked for goes along");
    assert_eq!(thief.seen().len(), 0);
}

#[tokio::test]
async fn questions_for_a_caller_carry_only_their_authorization() {
    let upstream = Fake::start(|request: Request<Incoming>| async move {
        match request.method().as_str() {
            "POST" => respond(202, &[("location", "/v2/birds/bluebird/blobs/uploads/1")], ""),
            "DELETE" => respond(204, &[], ""),
            _ if said(request.headers(), "authorization").is_none() => {
                respond(401, &[("www-authenticate", "Basic realm=\"r\"")], "")
            }
            _ => respond(200, &[MANIFEST], ""),
        }
    })
    .await;
    let server = Server::start(&ServerConfig { upstream_keep_host: true, ..config(Some(upstream.addr)) }, None).await;
    let headers = [
        VICTIM,
        ("host", "strange.example"),
        ("x-forwarded-for", "6.6.6.6"),
        ("user-agent", "strange"),
        ("cookie", "strange=1"),
        ("x-request-id", "strange"),
    ];
    let path = format!("/extensions/v2/birds/bluebird/signatures/{}", digest());
    assert_eq!(server.ask("GET", &path, &headers).await.status, 200);
    server.put(&path, &headers, "{}").await;
    // The cancelling of the upload comes after the answer.
    while upstream.asked(&http::Method::DELETE) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for one in upstream.seen() {
        assert_eq!(said(&one.headers, "authorization"), Some(VICTIM.1));
        assert_eq!(said(&one.headers, "host"), Some(upstream.addr.to_string().as_str()));
        assert!(one.headers.iter().all(|(_, value)| !value.to_str().unwrap().contains("strange")), "{one:?}");
        assert!(!one.headers.contains_key("x-forwarded-for"), "{one:?}");
    }
}

#[tokio::test]
async fn a_token_endpoint_that_only_repositories_name_is_found_by_a_request_of_our_own() {
    // The ping is open to all; the path is the registry's own, its host the caller's.
    let upstream = Fake::start(|request: Request<Incoming>| async move {
        let host = said(request.headers(), "host").unwrap_or_default();
        match request.uri().path() {
            "/v2/" => respond(200, &[], ""),
            "/my/token" => respond(200, &[], r#"{"token":"t"}"#),
            path => {
                // To requests under a strange host the registry names a path that it does not name to us.
                let place = if host.contains("strange") { "admin" } else { "my/token" };
                let challenge = format!("Bearer realm=\"http://{host}/{place}\",service=\"{path}\"");
                respond(401, &[("www-authenticate", &challenge)], "")
            }
        }
    })
    .await;
    let server = Server::start(&ServerConfig { upstream_keep_host: true, ..config(Some(upstream.addr)) }, None).await;
    let path = manifest();
    let told = server.ask("GET", &path, &[("host", "strange.example")]).await;
    assert_eq!(told.header("www-authenticate").split('"').nth(1), Some("http://strange.example/admin"));
    assert_eq!(
        server.ask("GET", "/admin", &[]).await.status,
        404,
        "a path that is no token endpoint of the upstream's"
    );
    assert_eq!(server.ask("GET", "/my/token", &[]).await.status, 200);
    let before = upstream.asked(&http::Method::HEAD);
    for _ in 0..5 {
        server.ask("GET", &path, &[("host", "strange.example")]).await;
    }
    assert_eq!(upstream.asked(&http::Method::HEAD), before, "what was not confirmed is not asked again at once");
}

#[tokio::test]
async fn tokens_of_ours_reach_no_registry_in_any_spelling() {
    let upstream = mirroring().await;
    let rules = ServerConfig::parse("access: {read: [upstream], write: [upstream]}").unwrap().access;
    let server = Server::start(&ServerConfig { access: rules, ..config(Some(upstream.addr)) }, None).await;
    let token = "cs1~0123456789abcdef~t~secret";
    let pair = STANDARD.encode(format!("user:{token}"));
    for value in [
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("BEARER  {token}"),
        format!("Bearer\t{token}"),
        format!("Token {token}"),
        token.to_owned(),
        format!("Bearer CS1~{}", &token[4..]),
        format!("Basic {pair}"),
        format!("basic {pair}"),
        format!("Basic {}", pair.trim_end_matches('=')),
        format!("Basic {} {}", &pair[..8], &pair[8..]),
        format!("Basic {}", pair.replace('+', "-").replace('/', "_")),
        format!("Bearer {}", token.replace('~', "%7E")),
        format!("Bearer {}", STANDARD.encode(token)),
    ] {
        for face in faces().iter().map(String::as_str).chain(["/token", "/v2/x/blobs/uploads/"]) {
            for method in ["GET", "HEAD", "POST", "PUT"] {
                server.ask(method, face, &[("authorization", &value)]).await;
            }
        }
    }
    let seen = upstream.seen();
    assert!(seen.len() > 20);
    for one in seen {
        let sent = said(&one.headers, "authorization").unwrap_or_default().to_ascii_lowercase();
        // The only credentials that go anywhere are the token that the registry's token server gave.
        assert!(matches!(&*sent, "" | "bearer good"), "{one:?}");
        assert!(!one.target.contains("cs1~"), "{one:?}");
    }
}

#[tokio::test]
async fn two_credentials_in_one_request_are_malformed() {
    let upstream = Fake::start(|_| async { respond(200, &[], "{}") }).await;
    let server = Server::start(&config(Some(upstream.addr)), None).await;
    for face in faces() {
        let told = server.ask("GET", &face, &[VICTIM, ("Authorization", "Bearer x")]).await;
        assert_eq!(told.status, 400, "{face}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn via_names_all_proxies_and_ours_last() {
    let upstream = Fake::start(|_| async { respond(200, &[], "{}") }).await;
    let server = Server::start(&config(Some(upstream.addr)), None).await;
    server.ask("GET", "/v2/", &[("via", "1.1 front")]).await;
    let seen = upstream.seen().pop().unwrap();
    let via: Vec<_> = seen.headers.get_all("via").iter().collect();
    assert_eq!(via, ["1.1 front", "1.1 countersign"]);
}
