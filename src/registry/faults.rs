//! How the client fares with servers that misbehave, and with those that are only particular.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::RootCertStore;

use crate::image::{Digest, Repository, Tag};

use super::client::{CredentialSource, RegistryClient, RegistryOptions};
use super::extension::Uploaded;
use super::fake::{Fake, Heard, not_found, say};
use super::manifests::Selector;
use super::secret::{Credential, Secret};

const MANIFEST: &str = r#"{"schemaVersion":2}"#;

fn client(credentials: CredentialSource) -> RegistryClient {
    let options = RegistryOptions {
        tls_verify: false,
        credentials,
        roots: RootCertStore::empty(),
        timeout: Duration::from_secs(5),
        ..RegistryOptions::default()
    };
    RegistryClient::with_first_delay(options, Duration::from_millis(1))
}

fn anonymous() -> RegistryClient {
    client(CredentialSource::Anonymous)
}

fn user() -> CredentialSource {
    CredentialSource::Fixed(Credential::new("user", "pass-word"))
}

fn repository(fake: &Fake) -> Repository {
    Repository::parse(&format!("{}/birds/bluebird", fake.address)).unwrap()
}

fn tag() -> Tag {
    Tag::parse("build1").unwrap()
}

/// A registry without authentication whose `/v2/` has `headers`.
async fn open(
    headers: &'static [(&'static str, &'static str)],
    answer: impl Fn(&Heard) -> Vec<u8> + Send + Sync + 'static,
) -> Fake {
    Fake::start(move |heard| if heard.path() == "/v2/" { say("200 OK", headers, "{}") } else { answer(heard) }).await
}

const EXTENSION: &[(&str, &str)] = &[("X-Registry-Supports-Signatures", "1")];

#[tokio::test]
async fn pings_once_and_learns() {
    let fake = Fake::start(|_| say("401 Unauthorized", &[("X-Registry-Supports-Signatures", "1")], "")).await;
    let client = anonymous();
    let (a, b) = tokio::join!(client.supports_signatures(&fake.address), client.supports_signatures(&fake.address));
    assert!(a.unwrap() && b.unwrap());
    assert_eq!(fake.heard().len(), 1);
    assert_eq!(fake.heard()[0].header("docker-distribution-api-version"), Some("registry/2.0"));
    assert!(fake.heard()[0].header("user-agent").unwrap().starts_with("countersign/"));
    let fake = open(&[("X-Registry-Supports-Signatures", "true")], |_| not_found()).await;
    assert!(!client.supports_signatures(&fake.address).await.unwrap());
}

#[tokio::test]
async fn a_failed_ping_is_not_remembered() {
    let calls = AtomicUsize::new(0);
    let fake = Fake::start(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => say("503 Service Unavailable", &[], "<html>"),
        _ => say("200 OK", &[], ""),
    })
    .await;
    let client = anonymous();
    let error = client.ping(&fake.address).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("pinging container registry {}: ", fake.address)), "{error}");
    assert!(error.contains("received unexpected HTTP status: 503 Service Unavailable"), "{error}");
    client.ping(&fake.address).await.unwrap();
}

#[tokio::test]
async fn plain_http_only_when_insecure() {
    let fake = open(&[], |_| not_found()).await;
    let options = RegistryOptions { roots: RootCertStore::empty(), ..RegistryOptions::default() };
    assert!(RegistryClient::new(options).ping(&fake.address).await.is_err());
    assert!(fake.heard().is_empty());
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn manifests_are_checked() {
    let fake = open(&[], |heard| match heard.path() {
        "/v2/birds/bluebird/manifests/build1" => say(
            "200 OK",
            &[("Content-Type", "Application/vnd.oci.image.manifest.v1+json; charset=utf-8")],
            if heard.method == "HEAD" { "" } else { MANIFEST },
        ),
        path if path.contains("sha256:") => say("200 OK", &[], MANIFEST),
        "/v2/birds/bluebird/manifests/large" => say("200 OK", &[], vec![b' '; 4 * 1024 * 1024 + 1]),
        "/v2/birds/bluebird/manifests/torn" => b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_vec(),
        "/v2/birds/bluebird/manifests/zip" => {
            say("200 OK", &[("Content-Encoding", "gzip")], zipped(MANIFEST.as_bytes()))
        }
        "/v2/birds/bluebird/manifests/nozip" => say("200 OK", &[("Content-Encoding", "gzip")], MANIFEST),
        "/v2/birds/bluebird/manifests/bomb" => {
            say("200 OK", &[("Content-Encoding", "GZIP")], zipped(&[b' '; 4 * 1024 * 1024 + 1]))
        }
        "/v2/birds/bluebird/manifests/chunked" => say("200 OK", &[("Content-Encoding", "aws-chunked")], MANIFEST),
        "/v2/birds/bluebird/manifests/denied" => say(
            "403 Forbidden",
            &[],
            "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[31m entry\",\"detail\":{}}]}",
        ),
        _ => say("404 Not Found", &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
    })
    .await;
    let (client, repository) = (anonymous(), repository(&fake));
    let tag = tag();
    let found = client.manifest(&repository, Selector::Tag(&tag)).await.unwrap();
    assert_eq!(found.bytes, MANIFEST);
    assert_eq!(found.digest, Digest::sha256(MANIFEST.as_bytes()));
    assert_eq!(found.media_type, "application/vnd.oci.image.manifest.v1+json");
    assert!(client.manifest_exists(&repository, Selector::Tag(&tag)).await.unwrap());
    client.manifest(&repository, Selector::Digest(&found.digest)).await.unwrap();

    let other = Digest::sha256(b"other");
    let error = client.manifest(&repository, Selector::Digest(&other)).await.unwrap_err();
    let sentence = format!("Manifest does not match provided manifest digest {other}");
    assert!(error.to_string().ends_with(&sentence) && !error.is_not_found(), "{error}");

    let fetch =
        async |tag: &str| client.manifest(&repository, Selector::Tag(&Tag::parse(tag).unwrap())).await.unwrap_err();
    let gone = fetch("gone").await;
    assert!(gone.is_not_found());
    assert_eq!(gone.refusal().unwrap().code(), Some("MANIFEST_UNKNOWN"));
    assert_eq!(
        gone.to_string(),
        format!("reading manifest gone in {repository}: manifest unknown: manifest unknown (HTTP status 404)")
    );
    assert!(!client.manifest_exists(&repository, Selector::Tag(&Tag::parse("gone").unwrap())).await.unwrap());
    assert!(client.manifest_exists(&repository, Selector::Tag(&Tag::parse("denied").unwrap())).await.is_err());
    assert!(fetch("large").await.to_string().ends_with("exceeded maximum allowed size of 4194304 bytes"));
    assert!(fetch("torn").await.to_string().contains("GET http://"));
    assert!(fetch("nozip").await.to_string().contains("gzip encoding is broken"));
    assert!(fetch("bomb").await.to_string().ends_with("exceeded maximum allowed size of 4194304 bytes"));
    for encoded in ["zip", "chunked"] {
        let tag = Tag::parse(encoded).unwrap();
        assert_eq!(client.manifest(&repository, Selector::Tag(&tag)).await.unwrap().bytes, MANIFEST);
    }
    let denied = fetch("denied").await.to_string();
    assert!(denied.contains("denied: no\u{1b}[31m entry (HTTP status 403)"), "{denied}");
}

#[tokio::test]
async fn a_429_is_repeated_five_times_and_no_more() {
    for (good_after, ok) in [(4, true), (5, false)] {
        let calls = AtomicUsize::new(0);
        let fake = open(&[], move |_| {
            if calls.fetch_add(1, Ordering::SeqCst) < good_after {
                say("429 Too Many Requests", &[("Retry-After", "0")], "")
            } else {
                say("200 OK", &[], MANIFEST)
            }
        })
        .await;
        let found = anonymous().manifest(&repository(&fake), Selector::Tag(&tag())).await;
        assert_eq!(found.is_ok(), ok, "{found:?}");
        assert_eq!(fake.heard_at("/v2/birds/bluebird/manifests/build1").len(), 5);
    }
}

#[tokio::test]
async fn pages_are_followed_on_the_same_host_only() {
    let fake = open(&[], |heard| match heard.target.as_str() {
        "/v2/birds/bluebird/tags/list" => say(
            "200 OK",
            &[("Link", "<http://elsewhere.example/v2/birds/bluebird/tags/list?last=b&n=2>; rel=\"next\"")],
            r#"{"name":"x","tags":["a","b","not a tag"]}"#,
        ),
        "/v2/birds/bluebird/tags/list?last=b&n=2" => say("200 OK", &[], r#"{"tags":["c"]}"#),
        "/v2/_catalog?n=1000" => {
            say("200 OK", &[("Link", "</v2/_catalog?last=x>; rel=next")], r#"{"repositories":["a/b"]}"#)
        }
        "/v2/_catalog?last=x" => say("200 OK", &[("Link", "<_catalog?n=1000>")], r#"{"repositories":null}"#),
        _ => say("200 OK", &[], "<html>"),
    })
    .await;
    let client = anonymous();
    let tags = client.tags(&repository(&fake)).await.unwrap();
    assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
    let error = client.catalog(&fake.address).await.unwrap_err().to_string();
    assert!(error.contains("circle"), "{error}");
    let other = Repository::parse(&format!("{}/other", fake.address)).unwrap();
    let error = client.tags(&other).await.unwrap_err().to_string();
    assert!(error.starts_with("listing tags of ") && error.contains("not a list"), "{error}");
}

/// A registry with a token server of its own at `/token`.
fn token_realm(heard: &Heard) -> Vec<u8> {
    let realm = format!("http://{}/token", heard.header("host").unwrap());
    let challenge = format!("Negotiate, Bearer realm=\"{realm}\",service=\"reg, istry\"");
    say("401 Unauthorized", &[("WWW-Authenticate", &challenge)], "")
}

#[tokio::test]
async fn tokens_are_asked_once_for_a_scope() {
    let fake = Fake::start(|heard| match heard.path() {
        "/v2/" => token_realm(heard),
        "/token" => say("200 OK", &[], r#"{"access_token":"tok","expires_in":300}"#),
        _ if heard.header("authorization") == Some("Bearer tok") => say("200 OK", &[], MANIFEST),
        _ => say("401 Unauthorized", &[], ""),
    })
    .await;
    let (client, repository, tag) = (client(user()), repository(&fake), tag());
    let selector = Selector::Tag(&tag);
    let (a, b) = tokio::join!(client.manifest(&repository, selector), client.manifest(&repository, selector));
    a.unwrap();
    b.unwrap();
    client.manifest(&repository, selector).await.unwrap();
    let asked = fake.heard_at("/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "/token?account=user&service=reg%2C+istry&scope=repository%3Abirds%2Fbluebird%3Apull");
    assert_eq!(asked[0].header("authorization"), Some("Basic dXNlcjpwYXNzLXdvcmQ="));

    anonymous().manifest(&repository, selector).await.unwrap();
    let asked = fake.heard_at("/token");
    assert!(!asked[1].target.contains("account") && asked[1].header("authorization").is_none());
}

#[tokio::test]
async fn a_token_that_is_no_longer_taken_is_renewed() {
    let issued = AtomicUsize::new(0);
    let fake = Fake::start(move |heard| match heard.path() {
        "/v2/" => token_realm(heard),
        "/token" => say("200 OK", &[], format!(r#"{{"token":"tok{}"}}"#, issued.fetch_add(1, Ordering::SeqCst))),
        _ if heard.header("authorization") == Some("Bearer tok0") && issued.load(Ordering::SeqCst) == 1 => {
            // Good once, then revoked.
            issued.fetch_add(1, Ordering::SeqCst);
            say("200 OK", &[], MANIFEST)
        }
        _ if heard.header("authorization") == Some("Bearer tok2") => say("200 OK", &[], MANIFEST),
        _ => say("401 Unauthorized", &[], ""),
    })
    .await;
    let (client, repository, tag) = (anonymous(), repository(&fake), tag());
    client.manifest(&repository, Selector::Tag(&tag)).await.unwrap();
    client.manifest(&repository, Selector::Tag(&tag)).await.unwrap();
    assert_eq!(fake.heard_at("/token").len(), 2);
}

#[tokio::test]
async fn identity_tokens_are_posted_or_sent_as_a_password() {
    let credential = Credential { identity_token: Some(Secret::new("refresh")), ..Credential::default() };
    for post_status in ["200 OK", "404 Not Found", "405 Method Not Allowed"] {
        let fake = Fake::start(move |heard| match (heard.path(), heard.method.as_str()) {
            ("/v2/", _) => token_realm(heard),
            ("/token", "POST") => say(post_status, &[], r#"{"access_token":"tok"}"#),
            ("/token", _) => say("200 OK", &[], r#"{"token":"tok"}"#),
            _ => say("200 OK", &[], MANIFEST),
        })
        .await;
        let client = client(CredentialSource::Fixed(credential.clone()));
        client.manifest(&repository(&fake), Selector::Tag(&tag())).await.unwrap();
        let asked = fake.heard_at("/token");
        assert_eq!(asked[0].header("content-type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(
            asked[0].body,
            "client_id=containers%2Fimage&grant_type=refresh_token&refresh_token=refresh\
             &scope=repository%3Abirds%2Fbluebird%3Apull&service=reg%2C+istry"
        );
        assert_eq!(asked.len(), if post_status == "200 OK" { 1 } else { 2 });
        if let Some(second) = asked.get(1) {
            assert_eq!(second.header("authorization"), Some("Basic OnJlZnJlc2g="));
        }
    }
}

#[tokio::test]
async fn token_servers_fail_in_words() {
    for (answer, words) in [
        (say("401 Unauthorized", &[], ""), "unable to retrieve auth token: invalid username/password"),
        (say("200 OK", &[], "<html>"), "holds no usable token"),
        (say("200 OK", &[], r#"{"token":"a\nb"}"#), "holds no usable token"),
        (say("200 OK", &[], r#"{"token":""}"#), "holds no usable token"),
        (say("500 Oh Dear", &[], ""), "received unexpected HTTP status: 500 Oh Dear"),
    ] {
        let fake =
            Fake::start(move |heard| if heard.path() == "/v2/" { token_realm(heard) } else { answer.clone() }).await;
        let error = client(user()).manifest(&repository(&fake), Selector::Tag(&tag())).await.unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("pass-word"), "{error}");
    }
    let fake = Fake::start(|_| say("401 Unauthorized", &[("WWW-Authenticate", "Bearer")], "")).await;
    let error = anonymous().manifest(&repository(&fake), Selector::Tag(&tag())).await.unwrap_err().to_string();
    assert!(error.ends_with("missing realm in bearer auth challenge"), "{error}");
}

#[tokio::test]
async fn a_wider_scope_is_fetched_for_get_only() {
    let fake = Fake::start(|heard| match heard.path() {
        "/v2/" => token_realm(heard),
        "/token" if heard.target.contains("signature") => say("200 OK", &[], r#"{"token":"wide"}"#),
        "/token" => say("200 OK", &[], r#"{"token":"narrow"}"#),
        _ if heard.header("authorization") == Some("Bearer wide") => say("200 OK", &[], "{}"),
        _ if heard.method == "GET" || heard.method == "PUT" => say(
            "401 Unauthorized",
            &[(
                "WWW-Authenticate",
                "Bearer realm=\"x\",error=\"insufficient_scope\",scope=\"signature:birds/bluebird:get\"",
            )],
            "",
        ),
        _ => not_found(),
    })
    .await;
    let (client, digest) = (anonymous(), Digest::sha256(b""));
    assert!(client.signatures(&repository(&fake), &digest).await.unwrap().is_empty());
    assert_eq!(fake.heard_at("/token")[1].target.matches("scope=").count(), 2, "{:?}", fake.heard_at("/token"));
    let error = client.put_signature(&repository(&fake), &digest, b"x").await.unwrap_err().to_string();
    assert!(error.starts_with("uploading signature to /extensions/v2/birds/bluebird/signatures/sha256:"), "{error}");
    let path = format!("/extensions/v2/birds/bluebird/signatures/{digest}");
    assert_eq!(fake.heard_at(&path).iter().filter(|heard| heard.method == "PUT").count(), 1);
}

#[tokio::test]
async fn basic_is_sent_even_empty() {
    let fake = Fake::start(|heard| match heard.path() {
        "/v2/" => say("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"x\"")], ""),
        _ => say("200 OK", &[], MANIFEST),
    })
    .await;
    let tag = tag();
    anonymous().manifest(&repository(&fake), Selector::Tag(&tag)).await.unwrap();
    client(user()).manifest(&repository(&fake), Selector::Tag(&tag)).await.unwrap();
    let sent: Vec<_> = fake
        .heard_at("/v2/birds/bluebird/manifests/build1")
        .iter()
        .map(|heard| heard.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(sent, ["Basic Og==", "Basic dXNlcjpwYXNzLXdvcmQ="]);
}

#[tokio::test]
async fn authorization_stays_with_its_host() {
    let stranger = Fake::start(|_| say("200 OK", &[], MANIFEST)).await;
    // The same machine under another name.
    let elsewhere = format!("http://localhost:{}/x", stranger.address.rsplit(':').next().unwrap());
    let fake = Fake::start(move |heard| match heard.path() {
        "/v2/" => say("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"x\"")], ""),
        "/v2/birds/bluebird/manifests/build1" => say("307 Temporary Redirect", &[("Location", "/here")], ""),
        "/here" => say("302 Found", &[("Location", &elsewhere)], ""),
        _ => say("302 Found", &[("Location", &heard.target)], ""),
    })
    .await;
    let client = client(user());
    client.manifest(&repository(&fake), Selector::Tag(&tag())).await.unwrap();
    assert!(fake.heard_at("/here")[0].header("authorization").is_some());
    assert!(stranger.heard()[0].header("authorization").is_none());
    let circle = client.manifest(&repository(&fake), Selector::Tag(&Tag::parse("circle").unwrap())).await.unwrap_err();
    assert!(circle.to_string().ends_with("stopped after 10 redirects"), "{circle}");
    assert_eq!(fake.heard_at("/v2/birds/bluebird/manifests/circle").len(), 11);
}

#[tokio::test]
async fn the_extension_is_read_and_written() {
    let digest = Digest::sha256(b"m");
    let name = format!("{digest}@already");
    let fake = open(EXTENSION, move |heard| match heard.method.as_str() {
        "GET" => say(
            "200 OK",
            &[("Content-Type", "text/plain")],
            format!(r#"{{"signatures":[{{"schemaVersion":2,"name":"{name}","type":"atomic","content":"YWJj"}},{{"schemaVersion":1}}]}}"#),
        ),
        _ => say("201 Created", &[], "ignored"),
    })
    .await;
    let (client, repository) = (anonymous(), repository(&fake));
    assert!(client.supports_signatures(&fake.address).await.unwrap());
    assert_eq!(client.signatures(&repository, &digest).await.unwrap(), ["abc"]);
    assert_eq!(client.put_signature(&repository, &digest, b"abc").await.unwrap(), Uploaded::AlreadyThere);
    assert_eq!(client.put_signature(&repository, &digest, b"new").await.unwrap(), Uploaded::Created);
    let puts: Vec<_> = fake.heard().into_iter().filter(|heard| heard.method == "PUT").collect();
    assert_eq!(puts.len(), 1);
    assert_eq!(puts[0].header("content-type"), None);
    assert_eq!(puts[0].header("content-length"), Some(puts[0].body.len().to_string().as_str()));
    assert!(puts[0].body.starts_with(&format!(r#"{{"schemaVersion":2,"name":"{digest}@"#)), "{}", puts[0].body);
}

#[tokio::test]
async fn the_extension_fails_hard() {
    let digest = Digest::sha256(b"m");
    for status in ["201 Created", "204 No Content", "403 Forbidden", "404 Not Found", "500 Internal Server Error"] {
        let fake = open(EXTENSION, move |_| say(status, &[], "")).await;
        let error = anonymous().signatures(&repository(&fake), &digest).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "downloading signatures for {digest} in {}: received unexpected HTTP status: {status}",
                repository(&fake)
            )
        );
        assert!(anonymous().put_signature(&repository(&fake), &digest, b"x").await.is_err());
        assert!(fake.heard().iter().all(|heard| heard.method != "PUT"));
    }
    let fake = open(EXTENSION, |_| say("200 OK", &[], "[]")).await;
    let error = anonymous().signatures(&repository(&fake), &digest).await.unwrap_err().to_string();
    assert!(error.contains("decoding signature list: "), "{error}");
    for status in ["200 OK", "202 Accepted", "204 No Content", "409 Conflict", "429 Too Many Requests"] {
        let fake =
            open(
                EXTENSION,
                move |heard| {
                    if heard.method == "GET" { say("200 OK", &[], "null") } else { say(status, &[], "") }
                },
            )
            .await;
        let error = anonymous().put_signature(&repository(&fake), &digest, b"x").await.unwrap_err().to_string();
        assert!(error.ends_with(&format!("received unexpected HTTP status: {status}")), "{error}");
        assert_eq!(fake.heard().iter().filter(|heard| heard.method == "PUT").count(), 1);
    }
}

#[tokio::test]
async fn a_redirected_token_request_leaves_its_credentials_behind() {
    let stranger = Fake::start(|_| say("200 OK", &[], r#"{"token":"t"}"#)).await;
    let refresh = || {
        let identity = Credential { identity_token: Some(Secret::new("refresh")), ..Credential::new("user", "") };
        CredentialSource::Fixed(identity)
    };
    for (source, status) in
        [(user(), "307 Temporary Redirect"), (refresh(), "307 Temporary Redirect"), (refresh(), "302 Found")]
    {
        let before = stranger.heard().len();
        // Another port of the same machine is another server.
        let elsewhere = format!("http://{}/token", stranger.address);
        let fake = Fake::start(move |heard| {
            let realm = format!("Bearer realm=\"http://{}/auth\"", heard.header("host").unwrap());
            match heard.path() {
                "/auth" => say(status, &[("Location", &elsewhere)], ""),
                "/v2/" => say("401 Unauthorized", &[("WWW-Authenticate", &realm)], ""),
                _ => say("200 OK", &[], MANIFEST),
            }
        })
        .await;
        let _ = client(source).manifest(&repository(&fake), Selector::Tag(&tag())).await;
        assert!(!fake.heard_at("/auth").is_empty());
        for heard in stranger.heard().iter().skip(before) {
            assert_eq!(heard.header("authorization"), None, "{status}");
            assert!(!heard.body.contains("refresh"), "{status}");
        }
    }
}
