//! What release addresses have the registry asked, and how often.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};

use super::store_scope::{BOB, EVE, Room, at, release, set};
use crate::server::testing::{Fake, Server, config, registry, respond};

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A server with so many repositories below `secret`, each with the same image, before a registry
/// where bob may pull all but `refused`.
async fn many(count: usize, refused: &'static [&'static str]) -> (Fake, Server, Room) {
    let fake = Fake::start(move |request| async move {
        match request.headers().get("authorization").and_then(|v| v.to_str().ok()) {
            Some(bob) if bob == BOB.1 => {
                let is_refused = refused.iter().any(|name| request.uri().path().contains(&format!("/{name}/")));
                if is_refused { respond(403, &[], "") } else { respond(200, &[], "") }
            }
            _ => respond(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        }
    })
    .await;
    let mut room = Room::new("access: {namespaces: {secret: {read: [upstream]}}}");
    room.config.upstream = config(Some(fake.addr)).upstream;
    let server = Server::start(&room.config, None).await;
    for n in 0..count {
        server.store.put(&set(&format!("secret/r{n:02}")), &[format!("signature {n:02}")]).await;
    }
    (fake, server, room)
}

#[tokio::test]
async fn guesses_by_a_release_address_count() {
    let (fake, server, _room) = many(3, &[]).await;
    let path = at(&release(""), "1");
    let mut locked = 0;
    for n in 0..40 {
        let guess = basic("bob", &format!("guess {n}"));
        match server.ask("GET", &path, &[("authorization", &guess)]).await.status {
            StatusCode::NOT_FOUND => {}
            StatusCode::TOO_MANY_REQUESTS => locked += 1,
            other => panic!("{other}"),
        }
    }
    let mut tried: Vec<_> = fake.seen().iter().filter_map(|seen| seen.headers.get("authorization").cloned()).collect();
    tried.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    tried.dedup();
    assert!(tried.len() <= 10 && locked >= 30, "{} passwords were tried, {locked} not", tried.len());
    // The same limit holds at the repository itself: they are counted together.
    let at_image = server.ask("GET", &at(&set("secret/r00"), "1"), &[BOB]).await;
    assert_eq!(at_image.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_right_password_without_all_rights_is_no_guess() {
    let (_fake, server, _room) =
        many(15, &["r00", "r01", "r02", "r03", "r04", "r05", "r06", "r07", "r08", "r09", "r10", "r11", "r12"]).await;
    for _ in 0..3 {
        let told = server.ask("GET", &at(&release(""), "1"), &[BOB]).await;
        assert_eq!((told.status, told.text()), (StatusCode::OK, "signature 13"));
    }
    for n in 0..13 {
        let told = server.ask("GET", &at(&set(&format!("secret/r{n:02}")), "1"), &[BOB]).await;
        assert_eq!(told.status, StatusCode::UNAUTHORIZED, "refused, and not locked out");
    }
    assert_eq!(server.ask("GET", &at(&set("secret/r13"), "1"), &[BOB]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn many_repositories_are_asked_about_some_at_a_time() {
    let (fake, server, _room) = many(40, &[]).await;
    let path = at(&release(""), "1");
    let asked = |fake: &Fake| fake.asked(&Method::HEAD);
    for (who, headers) in [("nobody", &[][..]), ("eve", &[EVE])] {
        let before = asked(&fake);
        let mut told = Vec::new();
        for _ in 0..3 {
            let answer = server.ask("GET", &path, headers).await;
            told.push((answer.status.as_u16(), answer.headers.contains_key("retry-after"), asked(&fake) - before));
        }
        // Not "no signatures" before all were asked about.
        assert_eq!(told, [(503, true, 16), (503, true, 32), (404, false, 40)], "{who}");
        for _ in 0..20 {
            assert_eq!(server.ask("GET", &path, headers).await.status, 404);
        }
        assert_eq!(asked(&fake) - before, 40, "{who}: what was refused is remembered");
    }
    // Who may read has an answer by the first repository.
    let before = asked(&fake);
    assert_eq!(server.ask("GET", &path, &[BOB]).await.text(), "signature 00");
    assert_eq!(asked(&fake) - before, 1);
}

#[tokio::test]
async fn more_than_are_asked_about_at_once_may_be_read() {
    let (_fake, server, _room) = many(20, &[]).await;
    for n in 0..16 {
        let told = server.ask("GET", &at(&release(""), &(n + 1).to_string()), &[BOB]).await;
        assert_eq!(told.text(), format!("signature {n:02}"));
    }
    for n in 16..20 {
        let told = server.ask("GET", &at(&release(""), &(n + 1).to_string()), &[BOB]).await;
        assert_eq!(told.text(), format!("signature {n:02}"), "what was granted is no new question");
    }
    assert_eq!(server.ask("GET", &at(&release(""), "21"), &[BOB]).await.status, 404);
}

#[tokio::test]
async fn a_registry_that_does_not_say_is_no_refusal() {
    let fake = Fake::start(|request| async {
        if request.method() == Method::HEAD { respond(500, &[], "") } else { registry(request).await }
    })
    .await;
    let mut room = Room::new("access: {namespaces: {m: {read: [upstream]}}}");
    room.config.upstream = config(Some(fake.addr)).upstream;
    let server = Server::start(&room.config, None).await;
    for path in ["a", "m", "z"] {
        server.store.put(&set(&format!("{path}/x")), &[path]).await;
    }
    assert_eq!(server.ask("GET", &at(&release(""), "1"), &[BOB]).await.text(), "a");
    // Whether it is m's or z's depends on an answer that there is not.
    let told = server.ask("GET", &at(&release(""), "2"), &[BOB]).await;
    assert_eq!((told.status, told.header("content-type")), (StatusCode::BAD_GATEWAY, "text/plain; charset=utf-8"));
}
