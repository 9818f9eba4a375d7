//! The server over a store that fails. A failure is told as one: a client that is told 404 takes a
//! signed image for an unsigned one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign::image::Digest;

use crate::support::client::text;
use crate::support::docker_registry::DockerRegistry;
use crate::support::faulty_relay::{Asked, DENIED, Fault, INTERNAL, Relay, SLOW_DOWN};
use crate::support::http::{self, Answer};
use crate::support::moto::Moto;
use crate::support::registry_api::{entry, listed, push_image, signatures};
use crate::support::server::Server;
use crate::support::small_disk::SmallDisk;

const REPOSITORY: &str = "birds/bluebird";
const TOKEN: &str = "writer-token-of-many-letters";

/// A server that remembers nothing and takes any bytes for a signature.
struct World {
    server: Server,
    signed: Digest,
    unsigned: Digest,
    _registry: DockerRegistry,
    folder: tempfile::TempDir,
}

impl World {
    fn new<'a>(
        store: &str,
        audit: Option<&Path>,
        variables: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let registry = DockerRegistry::start();
        let push = |label| Digest::sha256(&push_image(registry.address(), REPOSITORY, &[], label));
        let (signed, unsigned) = (push("signed"), push("unsigned"));
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::write(&tokens, format!("ci:{TOKEN}\n")).unwrap();
        let audit = audit.map(|path| format!("audit_log: {}\n", text(path))).unwrap_or_default();
        let config = folder.path().join("c.yaml");
        let access = format!("access: {{write: [{{token: {}}}]}}\n{audit}", text(&tokens));
        std::fs::write(
            &config,
            format!("{access}gate: {{mode: off}}\ncache: {{set_seconds: 0, access_seconds: 60}}\n"),
        )
        .unwrap();
        let args =
            ["--store", store, "--config", text(&config), "--upstream", &registry.url(), "--admin", "127.0.0.1:0"];
        let server = Server::start_with(&args, variables);
        Self { server, signed, unsigned, _registry: registry, folder }
    }

    fn path(&self, digest: &Digest, last: &str) -> String {
        format!("/lookaside/{REPOSITORY}@{}/signature-{last}", digest.path_form())
    }

    fn get(&self, path: &str) -> Answer {
        http::get(&self.server.address, path)
    }

    fn put(&self, digest: &Digest, blob: &[u8]) -> Answer {
        let path = self.path(digest, &format!("new?token={TOKEN}"));
        http::request(&self.server.address, "PUT", &path, &[], blob)
    }

    fn put_by_extension(&self, digest: &Digest, blob: &[u8]) -> Answer {
        let body = entry(digest, blob);
        http::request(&self.server.address, "PUT", &signatures(REPOSITORY, digest), &[], &body)
    }

    /// All that is there, by both faces.
    fn stored(&self, digest: &Digest) -> Vec<Vec<u8>> {
        let walk = (1..).map(|n: u32| self.get(&self.path(digest, &n.to_string())));
        let found: Vec<_> = walk.take_while(|answer| answer.status == 200).map(|answer| answer.body).collect();
        assert_eq!(listed(&self.get(&signatures(REPOSITORY, digest))), found);
        found
    }

    /// Neither face says that there is nothing, of a signed image nor of an unsigned one.
    #[track_caller]
    fn tells_of_a_failure(&self, what: &str) {
        for digest in [&self.signed, &self.unsigned] {
            let plain = self.get(&self.path(digest, "1"));
            assert_eq!((plain.status, plain.header("retry-after").is_some()), (503, true), "{what}: {plain:?}");
            assert!(plain.text().contains("the signature store fails"), "{what}: {plain:?}");
            let list = self.get(&signatures(REPOSITORY, digest));
            assert_eq!((list.status, list.json()["errors"][0]["code"].as_str()), (503, Some("UNAVAILABLE")), "{what}");
        }
    }

    #[track_caller]
    fn refuses_uploads(&self, what: &str) {
        for answer in [self.put(&self.signed, b"\xa3no"), self.put_by_extension(&self.signed, b"\xa3no")] {
            assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{what}: {answer:?}");
            assert!(answer.text().contains("store fails"), "{what}: {answer:?}");
        }
    }

    /// Waits until readiness is as wanted, and returns what is said of the store.
    fn ready(&self, wanted: bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = http::get(&self.server.admin(), "/readyz");
            if (answer.status == 200) == wanted {
                return answer.json()["checks"][0]["reason"].as_str().unwrap_or_default().to_owned();
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

type Plan = dyn Fn(&Asked) -> Fault + Send + Sync;

/// A bucket behind a relay whose plan changes.
struct Bucket {
    world: World,
    plan: Arc<Mutex<Arc<Plan>>>,
}

impl Bucket {
    fn new() -> Self {
        let moto = Moto::shared();
        let plan: Arc<Mutex<Arc<Plan>>> = Arc::new(Mutex::new(Arc::new(|_: &Asked| Fault::None)));
        let followed = plan.clone();
        let relay = Relay::start(moto.endpoint().trim_start_matches("http://"), move |asked| {
            let plan = followed.lock().unwrap().clone();
            plan(asked)
        });
        let mut variables: BTreeMap<String, String> = moto.variables();
        variables.insert("AWS_ENDPOINT_URL_S3".to_owned(), format!("http://{}", relay.address));
        let world = World::new(&format!("s3://{}/p", moto.bucket()), None, &variables);
        Self { world, plan }
    }

    fn follow(&self, plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static) {
        *self.plan.lock().unwrap() = Arc::new(plan);
    }
}

fn lists(asked: &Asked) -> bool {
    asked.target.contains("list-type=2")
}

#[test]
fn a_failing_bucket_is_never_an_empty_one() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    assert_eq!(world.put(&world.signed, b"\xa3one").status, 201);
    let whole = || {
        bucket.follow(|_| Fault::None);
        assert_eq!(world.stored(&world.signed), [b"\xa3one"]);
        assert_eq!(world.get(&world.path(&world.unsigned, "1")).status, 404);
        assert_eq!(listed(&world.get(&signatures(REPOSITORY, &world.unsigned))), Vec::<Vec<u8>>::new());
    };
    whole();
    world.ready(true);

    // Every way in which the whole of it fails.
    for (what, fault) in [("denied", DENIED), ("500", INTERNAL), ("slow down", SLOW_DOWN), ("torn", Fault::Torn)] {
        bucket.follow(move |_| fault);
        world.tells_of_a_failure(what);
        world.refuses_uploads(what);
        whole();
    }
    // Without the right to list there is no telling what is missing: 403 for a key that is not
    // there is as good as for one that is.
    bucket.follow(|asked| if lists(asked) { DENIED } else { Fault::None });
    world.tells_of_a_failure("no right to list");
    let reason = world.ready(false);
    assert!(reason.contains("listing") && reason.contains("AccessDenied"), "{reason}");
    assert!(world.server.log().contains("AccessDenied"), "{}", world.server.log());
    whole();
    world.ready(true);

    // What is listed and cannot be read is not passed over.
    for (what, fault) in [
        ("denied object", DENIED),
        ("failing object", INTERNAL),
        ("torn object", Fault::Torn),
        ("no answer", Fault::Lost),
    ] {
        bucket.follow(move |asked| if lists(asked) { Fault::None } else { fault });
        let plain = world.get(&world.path(&world.signed, "1"));
        assert_eq!(plain.status, 503, "{what}: {plain:?}");
        let list = world.get(&signatures(REPOSITORY, &world.signed));
        assert_eq!(list.status, 503, "{what}: {list:?}");
        assert_eq!(world.get(&world.path(&world.unsigned, "1")).status, 404, "{what}: nothing is listed");
        whole();
    }
    // Slow is not failing, and a fault that passes is nobody's business.
    bucket.follow(|_| Fault::Slow(Duration::from_millis(300)));
    assert_eq!(world.stored(&world.signed), [b"\xa3one"]);
    bucket.follow(|asked| if asked.number % 3 == 0 { SLOW_DOWN } else { Fault::None });
    assert_eq!(world.stored(&world.signed), [b"\xa3one"]);
    whole();
}

#[test]
fn a_bucket_that_hangs_keeps_nobody_waiting_for_ever() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    assert_eq!(world.put(&world.signed, b"\xa3one").status, 201);
    bucket.follow(|_| Fault::Slow(Duration::from_secs(120)));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let by_extension = signatures(REPOSITORY, &world.signed);
        for path in [world.path(&world.signed, "1"), by_extension, world.path(&world.unsigned, "1")] {
            scope.spawn(move || {
                let answer = http::get(&world.server.address, &path);
                assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
            });
        }
        assert!(world.ready(false).contains("no answer within 2 seconds"));
    });
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    bucket.follow(|_| Fault::None);
    assert_eq!(world.stored(&world.signed), [b"\xa3one"]);
}

#[test]
fn an_upload_whose_end_is_unknown_is_stored_once() {
    let bucket = Bucket::new();
    let world = &bucket.world;
    for (n, fault) in [Fault::DoneAndDenied, Fault::Lost, Fault::Torn].into_iter().enumerate() {
        let blob = [b"\xa3".as_slice(), &[b'a'; 9], &[u8::try_from(n).unwrap()]].concat();
        bucket.follow(move |asked| if asked.method == "PUT" { fault } else { Fault::None });
        let first =
            if n % 2 == 0 { world.put(&world.signed, &blob) } else { world.put_by_extension(&world.signed, &blob) };
        assert!([201, 204, 503].contains(&first.status), "{fault:?}: {first:?}");
        bucket.follow(|_| Fault::None);
        // Acknowledged or not, it may be sent again, by either face.
        assert_eq!(world.put_by_extension(&world.signed, &blob).status, 201);
        assert_eq!(world.put(&world.signed, &blob).status, 204);
        let stored = world.stored(&world.signed);
        assert_eq!(stored.iter().filter(|stored| **stored == blob).count(), 1, "{fault:?}");
        assert_eq!(stored.len(), n + 1);
    }
}

/// The names of all files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[test]
fn a_disk_that_turns_read_only_serves_on() {
    let Some(disk) = SmallDisk::mount(1024) else { return };
    let store = disk.path().join("store");
    let world = World::new(text(&store), None, []);
    assert_eq!(world.put(&world.signed, b"\xa3one").status, 201);
    disk.read_only(true);
    assert_eq!(world.stored(&world.signed), [b"\xa3one"]);
    assert_eq!(world.get(&world.path(&world.unsigned, "1")).status, 404);
    world.refuses_uploads("read-only");
    let fresh = world.put(&world.unsigned, b"\xa3no");
    assert_eq!(fresh.status, 503, "a new folder: {fresh:?}");
    let path = world.path(&world.signed, &format!("1?token={TOKEN}"));
    assert_eq!(http::request(&world.server.address, "DELETE", &path, &[], b"").status, 503);
    // What is there already is there.
    assert_eq!(world.put_by_extension(&world.signed, b"\xa3one").status, 201);
    assert!(world.server.log().contains("Read-only file system"), "{}", world.server.log());
    world.ready(true);
    disk.read_only(false);
    assert_eq!(world.put(&world.signed, b"\xa3two").status, 201);
    assert_eq!(world.stored(&world.signed), [b"\xa3one", b"\xa3two"]);
    assert_eq!(files(&store).len(), 2, "nothing is left of what was refused");
}

#[test]
fn a_full_disk_takes_whole_signatures_or_none() {
    let Some(disk) = SmallDisk::mount(256) else { return };
    let store = disk.path().join("store");
    let world = World::new(text(&store), None, []);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let blob = [b"\xa3".as_slice(), &vec![u8::try_from(acknowledged.len()).unwrap(); 9000]].concat();
        let answer = match acknowledged.len() % 2 {
            0 => world.put(&world.signed, &blob),
            _ => world.put_by_extension(&world.signed, &blob),
        };
        if answer.status != 201 {
            break answer;
        }
        acknowledged.push(blob);
        assert!(acknowledged.len() < 100, "the disk does not fill");
    };
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true), "{refused:?}");
    assert!(world.server.log().contains("No space left on device"), "{}", world.server.log());
    assert!(acknowledged.len() > 5);
    assert_eq!(world.stored(&world.signed), acknowledged);
    // The rest of a page may take a small one; a large one never leaves a half behind.
    let large = [b"\xa3".as_slice(), &[b'x'; 100_000]].concat();
    assert_eq!(world.put(&world.unsigned, &large).status, 503);
    assert_eq!(world.get(&world.path(&world.unsigned, "1")).status, 404);
    assert_eq!(files(&store).len(), acknowledged.len());
    disk.grow(4096);
    assert_eq!(world.put(&world.unsigned, &large).status, 201);
    assert_eq!(world.stored(&world.unsigned), [large]);
    assert_eq!(world.stored(&world.signed), acknowledged);
}

#[test]
fn an_audit_log_without_room_stops_changes_and_heals() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let audit = disk.path().join("audit.jsonl");
    let store = tempfile::tempdir().unwrap();
    let world = World::new(text(store.path()), Some(&audit), []);
    assert_eq!(world.put(&world.signed, b"\xa3one").status, 201);
    // All but the last few bytes of the last page.
    let filler = disk.path().join("filler");
    let _ = std::fs::write(&filler, vec![0; 256 * 1024]);
    let mut acknowledged = vec![b"\xa3one".to_vec()];
    let refused = loop {
        let blob = format!("\u{a3}{}", acknowledged.len()).into_bytes()[1..].to_vec();
        let answer = world.put(&world.signed, &blob);
        if answer.status != 201 {
            break answer;
        }
        acknowledged.push(blob);
        assert!(acknowledged.len() < 100, "the disk does not fill");
    };
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true), "{refused:?}");
    assert!(refused.text().contains("audit log"), "{refused:?}");
    let at_least = world.stored(&world.signed);
    assert!(acknowledged.iter().all(|blob| at_least.contains(blob)));
    // A new process finds a line that was not written whole, and does not write on in it.
    let torn = !std::fs::read(&audit).unwrap().ends_with(b"\n");
    std::fs::remove_file(&filler).unwrap();
    let config = world.folder.path().join("c.yaml");
    let again = Server::start(&["--store", text(store.path()), "--config", text(&config)]);
    let path = world.path(&world.signed, &format!("new?token={TOKEN}"));
    assert_eq!(http::request(&again.address, "PUT", &path, &[], b"\xa3after").status, 201);
    assert_eq!(world.put(&world.signed, b"\xa3both").status, 201);
    let log = std::fs::read_to_string(&audit).unwrap();
    let broken = log.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).count();
    assert!(broken <= usize::from(torn), "{log}");
    for blob in acknowledged.iter().map(Vec::as_slice).chain([b"\xa3after".as_slice(), b"\xa3both"]) {
        let digest = Digest::sha256(blob).to_string();
        let line = log.lines().find(|line| line.contains(&digest) && line.contains("\"verdict\":\"stored\""));
        assert!(line.is_some_and(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{digest}: {log}");
    }
}
