//! Who may read and write at the lookaside.

use super::store_scope::{BOB, EVE, Room, at, blob, digest, release, set};
use crate::image::Digest;
use crate::server::testing::{Fake, Server, config, registry, respond};

#[tokio::test]
async fn readers_show_who_they_are() {
    let room = Room::new(
        "access: {read: [USERS], namespaces: {open: {read: [anonymous]}, robots: {read: [TOKENS]}, shut: {read: []}}}",
    );
    let server = Server::start(&room.config, None).await;
    for path in ["x", "open/x", "robots/x", "shut/x"] {
        server.store.put(&set(path), &["one"]).await;
    }
    let token = ("authorization", "Bearer 0123456789abcdef");
    for (path, headers, status) in [
        ("x", &[][..], 401),
        ("x", &[EVE], 401),
        ("x", &[token], 401),
        ("x", &[BOB], 200),
        ("open/x", &[], 200),
        ("open/x", &[EVE], 200),
        ("robots/x", &[BOB], 403),
        ("robots/x", &[token], 200),
        ("shut/x", &[BOB], 403),
    ] {
        // The same for what is there and what is not: 404 is only for those who may know.
        for (last, missing) in [
            ("1", status),
            ("2", if status == 200 { 404 } else { status }),
            ("500", if status == 200 { 404 } else { status }),
        ] {
            let told = server.ask("GET", &at(&set(path), last), headers).await;
            assert_eq!(told.status, missing, "{path} {headers:?} {last}");
            assert_eq!(told.status == 401, told.header("www-authenticate").starts_with("Basic realm=\"countersign\""));
            let cached = told.header("cache-control");
            match status {
                200 if path == "open/x" => assert!(cached.starts_with("max-age")),
                200 => assert_eq!(cached, "private, no-cache"),
                _ => assert_eq!(cached, "no-store"),
            }
        }
    }
    let query = format!("{}?token=0123456789abcdef", at(&set("robots/x"), "1"));
    assert_eq!(server.ask("GET", &query, &[]).await.status, 200);
    assert_eq!(server.ask("HEAD", &at(&set("x"), "1"), &[BOB]).await.status, 200);
    // The release view is of what the caller may see.
    let root = at(&release(""), "1");
    assert_eq!(server.ask("GET", &root, &[]).await.status, 401);
    assert_eq!(server.ask("GET", &root, &[BOB]).await.text(), "one");
    assert_eq!(server.ask("GET", &at(&release("open"), "1"), &[]).await.text(), "one");
    assert_eq!(server.ask("GET", &at(&release("shut"), "1"), &[BOB]).await.status, 403);
}

#[tokio::test]
async fn the_release_view_hides_what_is_not_the_callers() {
    let room = Room::new("access: {namespaces: {secret: {read: [USERS]}}}");
    let server = Server::start(&room.config, None).await;
    server.store.put(&set("secret/x"), &["secret"]).await;
    let (one, two) = (at(&release(""), "1"), at(&release(""), "2"));
    assert_eq!(server.ask("GET", &one, &[]).await.status, 404);
    let told = server.ask("GET", &one, &[BOB]).await;
    assert_eq!((told.text(), told.header("cache-control")), ("secret", "private, no-cache"));
    for note in ["a", "b"] {
        server.store.put(&set("public/x"), &[note]).await;
    }
    let server = server.again(&room.config).await;
    assert_eq!(server.ask("GET", &one, &[]).await.text(), "a");
    assert_eq!(server.ask("GET", &two, &[]).await.text(), "b");
    assert_eq!(server.ask("GET", &two, &[EVE]).await.text(), "b");
    assert_eq!(server.ask("GET", &at(&release(""), "3"), &[]).await.status, 404);
    assert_eq!(server.ask("GET", &at(&release(""), "3"), &[BOB]).await.text(), "secret");
}

#[tokio::test]
async fn writers_need_a_name() {
    let room =
        Room::new("access: {write: [USERS, TOKENS], namespaces: {shut: {write: []}, robots: {write: [TOKENS]}}}");
    let mut server = Server::start(&room.config, None).await;
    let path = at(&set("x"), "new");
    assert_eq!(server.put(&path, &[], blob("a")).await.status, 401);
    assert_eq!(server.put(&path, &[EVE], blob("a")).await.status, 401);
    assert_eq!(server.ask("DELETE", &at(&set("x"), "1"), &[]).await.status, 401);
    assert_eq!(server.put(&at(&set("shut/x"), "1"), &[BOB], blob("a")).await.status, 403);
    assert_eq!(server.put(&at(&set("robots/x"), "1"), &[BOB], blob("a")).await.status, 403);
    assert_eq!(server.put(&path, &[BOB], blob("a")).await.status, 201);
    assert_eq!(server.put(&format!("{path}?token=0123456789abcdef"), &[], blob("b")).await.status, 201);
    assert_eq!(server.ask("DELETE", &at(&set("x"), "1"), &[BOB]).await.status, 204);
    server.stop().await;
    let audit: Vec<_> = room
        .audit()
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            let how = [text("action"), text("who"), text("way"), text("verdict")].join(" ");
            format!("{how} {} {}", line["number"], line["count"])
        })
        .collect();
    insta::assert_snapshot!(audit.join("\n"), @r"
    add bob htpasswd admitted null null
    add bob htpasswd stored 1 null
    add ci token admitted null null
    add ci token stored 2 null
    remove bob htpasswd admitted null null
    remove bob htpasswd removed 1 null
    add - - refused null 5
    ");
    let first = Digest::sha256(&blob("a")).to_string();
    assert!(room.audit().iter().filter(|line| line["signature"] == first).count() == 4);
    let text = std::fs::read_to_string(room.audit_path()).unwrap();
    assert!(!text.contains("0123456789abcdef"), "{text}");
}

#[tokio::test]
async fn the_registry_may_decide() {
    let fake = Fake::start(|request| async {
        match request.headers().get("authorization").and_then(|v| v.to_str().ok()) {
            Some(eve) if eve == EVE.1 => respond(403, &[], ""),
            _ => registry(request).await,
        }
    })
    .await;
    let mut room = Room::new("access: {read: [upstream], write: [upstream]}");
    room.config.upstream = config(Some(fake.addr)).upstream;
    let server = Server::start(&room.config, None).await;
    let path = at(&set("birds/a"), "1");
    assert_eq!(server.put(&path, &[BOB], blob("a")).await.status, 201);
    assert_eq!(server.ask("GET", &path, &[BOB]).await.status, 200);
    for headers in [&[][..], &[EVE], &[("authorization", "Bearer x")]] {
        for method in ["GET", "PUT", "DELETE"] {
            let told = server.ask(method, &path, headers).await;
            assert_eq!(told.status, 401, "{method} {headers:?}");
            assert!(told.header("www-authenticate").starts_with("Basic realm=\"countersign\""));
        }
    }
    assert_eq!((room.audit()[1]["who"].as_str(), room.audit()[1]["way"].as_str()), (Some("bob"), Some("upstream")));
    assert!(!fake.seen().iter().any(|seen| seen.headers.get("authorization").is_some_and(|v| v == "Bearer x")));
}

#[tokio::test]
async fn a_registry_that_knows_nobody_names_nobody() {
    let fake = Fake::start(|request| async move {
        match request.method().as_str() {
            "POST" => respond(202, &[("location", "/v2/x/blobs/uploads/1")], ""),
            _ if request.uri().path().contains("/manifests/") => respond(404, &[], ""),
            _ => respond(200, &[], ""),
        }
    })
    .await;
    let mut room = Room::new("access: {read: [upstream], write: [upstream]}");
    room.config.upstream = config(Some(fake.addr)).upstream;
    let server = Server::start(&room.config, None).await;
    let told = server.put(&at(&set("x"), "1"), &[BOB], blob("a")).await;
    assert!(told.status == 403 && told.text().contains("from anybody"), "{told:?}");
    let told = server.ask("GET", &at(&set("x"), "1"), &[BOB]).await;
    assert!(told.status == 403 && told.text().contains("no such image"), "{told:?}");
}

#[tokio::test]
async fn a_registry_of_tokens_may_decide() {
    // Its token server knows bob and gives eve a token that is good for nothing.
    let fake = Fake::start(|request| async move {
        let said = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let scope =
            request.uri().query().unwrap_or_default().replace("%3A", ":").replace("%2C", ",").replace("%2F", "/");
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"r\"");
        match (request.uri().path(), said) {
            ("/token", said) if said == BOB.1 && scope.contains("scope=repository:birds/a:pull") => {
                let right = if scope.contains(":pull,push") { "push" } else { "pull" };
                respond(200, &[], format!("{{\"token\":\"bob-{right}\"}}"))
            }
            ("/token", said) if said == EVE.1 => respond(200, &[], "{\"token\":\"nothing\"}"),
            ("/token", "") => respond(200, &[], "{\"token\":\"nobody\"}"),
            ("/token", _) => respond(401, &[], ""),
            (path, "Bearer bob-push") if path.ends_with("/uploads/") => respond(202, &[], ""),
            (path, "Bearer bob-pull") if path.contains("/manifests/") => respond(200, &[], ""),
            _ => respond(401, &[("www-authenticate", &challenge)], ""),
        }
    })
    .await;
    let mut room = Room::new("access: {read: [upstream], write: [upstream]}");
    room.config.upstream = config(Some(fake.addr)).upstream;
    let server = Server::start(&room.config, None).await;
    let path = at(&set("birds/a"), "1");
    assert_eq!(server.put(&path, &[BOB], blob("a")).await.status, 201);
    for _ in 0..3 {
        assert_eq!(server.ask("GET", &path, &[BOB]).await.status, 200);
    }
    let reads = fake.seen().iter().filter(|seen| seen.target.contains("manifests")).count();
    assert_eq!(reads, 1, "a granted right is remembered");
    assert_eq!(server.put(&at(&set("birds/b"), "1"), &[BOB], blob("a")).await.status, 401);
    let stranger = ("authorization", "Basic c3RyYW5nZXI6eA==");
    for headers in [&[][..], &[EVE], &[stranger]] {
        assert_eq!(server.ask("GET", &path, headers).await.status, 401, "{headers:?}");
        assert_eq!(server.put(&path, headers, blob("b")).await.status, 401, "{headers:?}");
    }
}

#[tokio::test]
async fn each_registry_has_its_room_in_the_store() {
    let fake = Fake::start(registry).await;
    let room = Room::new(&format!(
        "upstream: 'http://{addr}'\naccess: {{write: [USERS]}}\nregistries:\n  icr.io: {{upstream: 'http://{addr}', access: {{read: \
         [USERS], write: [TOKENS]}}}}\n  deep.io: {{upstream: 'http://{addr}', store_prefix: icr.io/deep}}",
        addr = fake.addr
    ));
    let server = Server::start(&room.config, None).await;
    let token = ("authorization", "Bearer 0123456789abcdef");
    for (path, read, bob, robot) in [
        ("x", 200, 201, 401),
        ("icr.iot/x", 200, 201, 401),
        ("icr.io/x", 401, 403, 201),
        ("icr.io/deeper/x", 401, 403, 201),
        ("icr.io/deep/x", 200, 201, 401),
    ] {
        server.store.put(&set(path), &["one"]).await;
        assert_eq!(server.ask("GET", &at(&set(path), "1"), &[]).await.status, read, "{path}");
        assert_eq!(server.put(&at(&set(path), "new"), &[BOB], blob("bob")).await.status, bob, "{path}");
        assert_eq!(server.put(&at(&set(path), "new"), &[token], blob("robot")).await.status, robot, "{path}");
    }
    // What a release address shows is of every room that the caller may read in.
    let everything = at(&release(""), "2");
    assert_eq!(server.ask("GET", &everything, &[]).await.status, 200);
    // A repository of one registry whose name leads into another's room: nobody is asked.
    for (repository, status, asked) in [("other/x", 200, 1), ("deep/x", 403, 1)] {
        let path = format!("/extensions/v2/{repository}/signatures/{}", digest());
        assert_eq!(server.ask("GET", &path, &[("host", "icr.io"), BOB]).await.status, status, "{repository}");
        assert_eq!(fake.asked(&http::Method::HEAD), asked, "{repository}");
    }
}
