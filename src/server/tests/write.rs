//! Writing and removing at the lookaside: which number, what is refused, what is recorded.

use std::sync::Arc;

use super::store_scope::{BOB, EVE, Room, at, blob, digest, placed, release, set};
use crate::image::Digest;
use crate::server::testing::Server;
use crate::server::{NotAdmitted, Upload, UploadGate};
use crate::store::StorePath;

#[tokio::test]
async fn the_server_gives_the_numbers() {
    let room = Room::new("access: {write: [USERS]}");
    let server = Server::start(&room.config, None).await;
    let set = set("birds/bluebird");
    let put = async |last: &str, note: &str| server.put(&at(&set, last), &[BOB], blob(note)).await;

    let told = put("7", "a").await;
    assert_eq!(told.header("location"), at(&set, "1"), "no gap");
    assert_eq!(told.header("etag"), format!("\"{}\"", Digest::sha256(&blob("a")).hex()));
    assert_eq!(placed(&told), (201, "signature-1"));
    assert_eq!(placed(&put("1", "a").await), (204, "signature-1"), "the same again");
    assert_eq!(placed(&put("1", "b").await), (201, "signature-2"), "taken");
    assert_eq!(placed(&put("new", "c").await), (201, "signature-3"));
    assert_eq!(placed(&put("new", "b").await), (204, "signature-2"));
    assert_eq!(placed(&put("4", "d").await), (201, "signature-4"));
    let escaped = format!("/lookaside//birds/bluebird%40sha256%3D{}/signature-new", digest().hex());
    let told = server.put(&escaped, &[BOB], blob("e")).await;
    assert_eq!(told.header("location"), escaped.replace("-new", "-5"), "under the client's own path");
    let prefixed = [b"\0simple-signing\n", blob("a").as_slice()].concat();
    let told = server.put(&at(&set, "1"), &[BOB], prefixed).await;
    assert_eq!((placed(&told), told.header("etag")), ((204, "signature-1"), ""), "stored without its prefix");

    let read = server.ask("GET", &at(&set, "2"), &[]).await;
    assert_eq!((read.status.as_u16(), read.body.as_ref()), (200, blob("b").as_slice()));
    let all = ["a", "b", "c", "d", "e"].map(blob);
    assert_eq!(server.store.stored(&set).await, all);
}

#[tokio::test]
async fn conditions_hold() {
    let room = Room::new("access: {write: [USERS]}");
    let server = Server::start(&room.config, None).await;
    let set = set("x");
    let put = async |last: &str, note: &str, name: &str, value: &str| {
        server.put(&at(&set, last), &[BOB, (name, value)], blob(note)).await.status.as_u16()
    };
    assert_eq!(put("1", "a", "if-none-match", "*").await, 201);
    assert_eq!(put("1", "a", "if-none-match", "*").await, 204, "a repetition is no conflict");
    assert_eq!(put("1", "b", "if-none-match", "*").await, 412);
    assert_eq!(put("2", "b", "if-none-match", "*").await, 201);
    assert_eq!(put("1", "c", "if-match", "*").await, 412, "nothing is replaced");
    assert_eq!(put("1", "c", "content-range", "bytes 0-1/2").await, 400);
    assert_eq!(server.store.stored(&set).await, ["a", "b"].map(blob));

    let etag = server.ask("GET", &at(&set, "1"), &[]).await.header("etag").to_owned();
    let remove = async |last: &str, etag: &str| {
        server.ask("DELETE", &at(&set, last), &[BOB, ("if-match", etag)]).await.status.as_u16()
    };
    assert_eq!(remove("2", &etag).await, 412);
    assert_eq!(remove("1", &etag).await, 204);
    assert_eq!(remove("1", &etag).await, 412, "another has moved there");
    assert_eq!(server.store.stored(&set).await, [blob("b")]);
    let told = server.ask("GET", &at(&set, "1"), &[]).await;
    assert_eq!(told.body.as_ref(), blob("b"), "seen at once");
    assert_eq!(remove("1", "*").await, 204);
    assert_eq!(server.ask("DELETE", &at(&set, "1"), &[BOB]).await.status, 404);
    assert_eq!(server.ask("GET", &at(&set, "1"), &[]).await.status, 404);
}

#[tokio::test]
async fn what_is_no_signature_for_the_digest_is_refused() {
    let mut room = Room::new("access: {write: [USERS]}");
    room.config.limits.signatures_per_digest = 2;
    let server = Server::start(&room.config, None).await;
    let set = set("x");
    let other = format!("\u{3}{}", Digest::sha256(b"other"));
    for (body, status, said) in [
        (b"".to_vec(), 400, "empty signature blob"),
        (b"<html>".to_vec(), 400, "0x3c"),
        (b"-----BEGIN PGP MESSAGE-----".to_vec(), 400, "ASCII armour"),
        (b"\0sigstore-json\n{}".to_vec(), 400, "sigstore-json"),
        (b"\xa3nonsense".to_vec(), 400, "no OpenPGP message"),
        ([b"\xa3", &other.as_bytes()[1..]].concat(), 400, "not for sha256:"),
        (vec![0xa3; 5 * 1024 * 1024], 413, "longer than 4194304 bytes"),
    ] {
        let told = server.put(&at(&set, "1"), &[BOB], body).await;
        assert_eq!(told.status, status, "{said}");
        assert!(told.text().contains(said) && told.header("content-type").starts_with("text/plain"), "{told:?}");
    }
    for (note, status) in [("a", 201), ("b", 201), ("c", 403), ("a", 204)] {
        assert_eq!(server.put(&at(&set, "new"), &[BOB], blob(note)).await.status, status, "{note}");
    }
    for path in ["/lookaside/x", "/lookaside/x/signature-1", "/lookaside/x@sha256=ab/signature-new", "/lookaside/"] {
        assert_eq!(server.put(path, &[BOB], blob("a")).await.status, 404, "{path}");
        assert_eq!(server.ask("DELETE", path, &[BOB]).await.status, 404, "{path}");
    }
    assert_eq!(server.ask("GET", &at(&set, "new"), &[]).await.status, 404);
    let verdicts: Vec<_> = room.audit().iter().map(|line| line["verdict"].as_str().unwrap().to_owned()).collect();
    assert_eq!(verdicts.iter().filter(|verdict| *verdict == "refused").count(), 7, "{verdicts:?}");
    assert_eq!(
        verdicts[6..],
        ["admitted", "stored", "admitted", "stored", "admitted", "refused", "admitted", "already there"]
    );
}

struct OnlyBirds;

impl UploadGate for OnlyBirds {
    fn admit(&self, upload: &Upload<'_>) -> Result<(), NotAdmitted> {
        if upload.repository.starts_with("birds/") {
            return Ok(());
        }
        Err(NotAdmitted::Denied(format!("no bird: {:?}", upload.repository)))
    }
}

#[tokio::test]
async fn the_gate_judges_by_the_repository_below_the_prefix() {
    let mut room = Room::new("access: {write: [USERS]}");
    room.config.store_prefix = StorePath::parse("icr").unwrap();
    let server = Server::start(&room.config, Some(Arc::new(OnlyBirds))).await;
    for (path, status, said) in [
        ("icr/birds/a", 201, ""),
        ("icr/fish/a", 403, "no bird: \"fish/a\""),
        ("icr", 403, "no bird: \"\""),
        ("birds/a", 403, "does not begin with icr/"),
        ("icrx/birds/a", 403, "does not begin with icr/"),
    ] {
        let told = server.put(&at(&set(path), "1"), &[BOB], blob("a")).await;
        assert!(told.status == status && told.text().contains(said), "{path}: {told:?}");
        if path != "icr" {
            let told = server.put(&at(&release(path), "1"), &[BOB], blob("a")).await;
            assert!(told.status == status && told.text().contains(said), "{path}: {told:?}");
        }
    }
    let audit = room.audit();
    assert_eq!((audit[1]["repository"].as_str(), audit[1]["verdict"].as_str()), (Some("birds/a"), Some("stored")));
}

#[tokio::test]
async fn nothing_changes_unrecorded() {
    let mut room = Room::new("access: {write: [USERS]}");
    room.config.audit_log = Some("/dev/full".into());
    let server = Server::start(&room.config, None).await;
    server.store.put(&set("x"), &[blob("a")]).await;
    let told = server.put(&at(&set("x"), "1"), &[BOB], blob("b")).await;
    assert!(told.status == 503 && told.text().contains("audit log"), "{told:?}");
    let told = server.ask("DELETE", &at(&set("x"), "1"), &[BOB]).await;
    assert!(told.status == 503 && told.text().contains("audit log"), "{told:?}");
    assert_eq!(server.put(&at(&set("x"), "1"), &[EVE], blob("b")).await.status, 401);
    assert_eq!(server.store.stored(&set("x")).await, [blob("a")]);
}

#[tokio::test]
async fn a_failing_store_is_told() {
    let room = Room::new("access: {write: [USERS]}");
    let server = Server::start(&room.config, None).await;
    server.store.fail(true);
    let told = server.put(&at(&set("x"), "1"), &[BOB], blob("b")).await;
    assert_eq!((told.status.as_u16(), told.header("retry-after")), (503, "5"));
    assert_eq!(server.ask("DELETE", &at(&set("x"), "1"), &[BOB]).await.status, 503);
    let verdicts: Vec<_> = room.audit().iter().map(|line| line["verdict"].to_string()).collect();
    assert_eq!(verdicts, ["\"admitted\"", "\"failed\"", "\"failed\""]);
}

#[tokio::test]
async fn release_addresses_are_written_as_they_are_called() {
    let room = Room::new("access: {write: [USERS]}");
    let server = Server::start(&room.config, None).await;
    let (view, image) = (release("ocp/release"), set("ocp/release"));
    server.store.put(&image, &[blob("image"), blob("both")]).await;
    let told = server.put(&at(&view, "3"), &[BOB], blob("release")).await;
    assert_eq!(placed(&told), (201, "signature-1"), "before what the view adds");
    assert_eq!(placed(&server.put(&at(&view, "new"), &[BOB], blob("both")).await), (201, "signature-2"));
    assert_eq!(server.store.stored(&view).await, ["release", "both"].map(blob));
    let shown = async || {
        let mut shown = Vec::new();
        loop {
            let told = server.ask("GET", &at(&view, &(shown.len() + 1).to_string()), &[]).await;
            if told.status != 200 {
                return shown;
            }
            shown.push(told.body.to_vec());
        }
    };
    assert_eq!(shown().await, ["release", "both", "image"].map(blob));
    // What is removed is not shown any more, wherever it lies.
    assert_eq!(server.ask("DELETE", &at(&view, "2"), &[BOB]).await.status, 204);
    assert_eq!(shown().await, ["release", "image"].map(blob));
    assert_eq!(server.ask("DELETE", &at(&view, "2"), &[BOB]).await.status, 204);
    assert_eq!(server.ask("DELETE", &at(&view, "2"), &[BOB]).await.status, 404);
    assert_eq!(server.store.stored(&image).await, Vec::<Vec<u8>>::new());
    // Above it, its signatures are shown, and a set there would hide them.
    for method in ["PUT", "DELETE"] {
        let told = server.ask(method, &at(&release("ocp"), "1"), &[BOB]).await;
        assert_eq!(told.status, if method == "PUT" { 400 } else { 404 }, "the release set is no image set");
    }
    server.store.put(&set("deep/er"), &[blob("deep")]).await;
    let server = server.again(&room.config).await;
    assert_eq!(server.put(&at(&release("deep"), "1"), &[BOB], blob("x")).await.status, 409);
    assert_eq!(server.ask("DELETE", &at(&release("deep"), "1"), &[BOB]).await.status, 409);
    assert_eq!(server.ask("GET", &at(&release("deep"), "1"), &[]).await.body.as_ref(), blob("deep"));
}

#[tokio::test]
async fn folders_need_not_be_made() {
    let room = Room::new("access: {write: [USERS]}");
    let server = Server::start(&room.config, None).await;
    let folder = set("birds/bluebird").to_string();
    for path in ["birds", "birds/", "/birds//bluebird", &folder, &format!("{folder}/"), ""] {
        let told = server.ask("MKCOL", &format!("/lookaside/{path}"), &[]).await;
        assert_eq!(told.status, 201, "{path}");
    }
    for path in ["..", "x/../y", "x%00", "x%20y"] {
        assert_eq!(server.ask("MKCOL", &format!("/lookaside/{path}"), &[]).await.status, 404, "{path}");
    }
    for path in [folder.as_str(), "birds", ""] {
        assert_eq!(server.ask("GET", &format!("/lookaside/{path}"), &[]).await.status, 404, "{path}");
        let told = server.ask("OPTIONS", &format!("/lookaside/{path}"), &[]).await;
        assert_eq!((told.status.as_u16(), told.header("dav")), (200, ""));
        assert_eq!(server.ask("PROPFIND", &format!("/lookaside/{path}"), &[BOB]).await.status, 405);
    }
    assert!(room.audit().is_empty());
}

#[tokio::test]
async fn many_writers_and_removers_lose_nothing() {
    let room = Room::new("access: {write: [USERS]}");
    let server = Arc::new(Server::start(&room.config, None).await);
    let set = set("x");
    let numbers: Vec<_> = (0..50)
        .map(|n| {
            let (server, path) = (server.clone(), at(&set, "1"));
            tokio::spawn(async move { server.put(&path, &[BOB], blob(&n.to_string())).await })
        })
        .collect();
    let mut seen = Vec::new();
    for number in numbers {
        let told = number.await.unwrap();
        assert_eq!(told.status, 201);
        seen.push(placed(&told).1.to_owned());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 50, "each writer got a number of its own");
    let stored = server.store.stored(&set).await;
    assert!((0..50).all(|n| stored.contains(&blob(&n.to_string()).into())) && stored.len() == 50);
    let etags: Vec<_> =
        (0..50).step_by(2).map(|n| format!("\"{}\"", Digest::sha256(&blob(&n.to_string())).hex())).collect();
    let removers: Vec<_> = etags
        .into_iter()
        .map(|etag| {
            let (server, set) = (server.clone(), set.clone());
            tokio::spawn(async move {
                // By its bytes, wherever they have moved meanwhile.
                for _ in 0..1000 {
                    for number in 1..=50 {
                        let path = at(&set, &number.to_string());
                        let told = server.ask("DELETE", &path, &[BOB, ("if-match", &etag)]).await;
                        match told.status.as_u16() {
                            204 => return,
                            404 => break,
                            412 => {}
                            other => panic!("{other}: {told:?}"),
                        }
                    }
                }
                panic!("never removed");
            })
        })
        .collect();
    let writers: Vec<_> = (50..70)
        .map(|n| {
            let (server, path) = (server.clone(), at(&set, "new"));
            tokio::spawn(async move { server.put(&path, &[BOB], blob(&n.to_string())).await.status })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 201);
    }
    for remover in removers {
        remover.await.unwrap();
    }
    let stored = server.store.stored(&set).await;
    let expected: Vec<_> = (0..50).filter(|n| n % 2 == 1).chain(50..70).map(|n| blob(&n.to_string())).collect();
    assert_eq!(stored.len(), expected.len());
    assert!(expected.iter().all(|one| stored.contains(&one.clone().into())));
    let last = server.ask("GET", &at(&set, &(stored.len() + 1).to_string()), &[]).await;
    assert_eq!(last.status, 404);
}
