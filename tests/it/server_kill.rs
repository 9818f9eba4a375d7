//! The server killed in the middle of its work: what it has acknowledged is there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use countersign::image::Digest;
use countersign::openpgp::SoftSigner;
use countersign::signature::Claim;

use crate::support::client::{Host, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::keys;
use crate::support::registry_api::{entry, listed, push_image, signatures};
use crate::support::server::Server;

const ROUNDS: usize = 20;
/// Each round has images of its own, so that none gets more signatures than one may have.
const IMAGES: usize = 3;
const WRITERS: usize = 6;
const REPOSITORY: &str = "birds/bluebird";
const TOKEN: &str = "writer-token-of-many-letters";

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    digest: Digest,
    blob: Vec<u8>,
}

/// What the writers know.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<Sent>,
    /// Sent, and no answer came: it may be there or not.
    unanswered: BTreeSet<Sent>,
}

struct World {
    registry: DockerRegistry,
    host: Host,
    images: Vec<Digest>,
    told: Mutex<Told>,
}

impl World {
    fn new() -> Self {
        let registry = DockerRegistry::start();
        let host = Host::new(Path::new("/nonexistent"));
        let images = (0..ROUNDS * IMAGES)
            .map(|n| Digest::sha256(&push_image(registry.address(), REPOSITORY, &[], &format!("image {n}"))))
            .collect();
        host.write("tokens", format!("ci:{TOKEN}\n"));
        Self { registry, host, images, told: Mutex::default() }
    }

    fn file(&self, name: &str) -> String {
        self.host.path().join(name).display().to_string()
    }

    fn serve(&self) -> Server {
        let config = self.host.write(
            "countersign.yaml",
            format!(
                "access: {{write: [{{token: {}}}]}}\naudit_log: {}\n",
                self.file("tokens"),
                self.file("audit.jsonl")
            ),
        );
        let store = self.file("store");
        Server::start(&["--store", &store, "--config", text(&config), "--upstream", &self.registry.url()])
    }

    /// Sends one signature by one of the two faces; tells whether the server lives.
    fn put(&self, server: &str, sent: &Sent, by_extension: bool) -> bool {
        let answer = if by_extension {
            let body = entry(&sent.digest, &sent.blob);
            http::try_request(server, "PUT", &signatures(REPOSITORY, &sent.digest), &[], &body)
        } else {
            let last = ["new", "1"][sent.blob.len() % 2];
            let path = format!("/lookaside/{REPOSITORY}@{}/signature-{last}?token={TOKEN}", sent.digest.path_form());
            http::try_request(server, "PUT", &path, &[], &sent.blob)
        };
        let mut told = self.told.lock().unwrap();
        let Some(answer) = answer else {
            if !told.acknowledged.contains(sent) {
                told.unanswered.insert(sent.clone());
            }
            return false;
        };
        // 204: the lookaside has the same bytes already.
        assert!(matches!((answer.status, by_extension), (201, _) | (204, false)), "{answer:?}");
        told.unanswered.remove(sent);
        told.acknowledged.insert(sent.clone());
        true
    }

    /// Writes until the server dies, first what was left unanswered when the last one did.
    fn write(&self, server: &str, round: usize, writer: usize, carol: &SoftSigner) {
        let by_extension = writer.is_multiple_of(2);
        let left: Vec<Sent> = self.told.lock().unwrap().unanswered.iter().cloned().collect();
        for sent in left {
            // Two send the same at the same time.
            if writer < 4 && !self.put(server, &sent, by_extension) {
                return;
            }
        }
        for n in 0.. {
            let digest = self.images[round * IMAGES + (writer + n) % IMAGES].clone();
            let reference = format!("registry.example/{REPOSITORY}:{round}-{writer}-{n}");
            let claim = Claim { reference, digest: digest.clone(), creator: None, timestamp: None };
            let sent = Sent { digest, blob: keys::signed(carol, &claim) };
            if !self.put(server, &sent, by_extension) || n > 40 {
                return;
            }
        }
    }

    fn served(&self, server: &Server, digest: &Digest) -> Vec<Vec<u8>> {
        let path = |n: usize| format!("/lookaside/{REPOSITORY}@{}/signature-{n}", digest.path_form());
        let answers = (1..).map(|n| http::get(&server.address, &path(n)));
        let mut found: Vec<Vec<u8>> = answers
            .take_while(|answer| {
                assert!([200, 404].contains(&answer.status), "{answer:?}");
                answer.status == 200
            })
            .map(|answer| answer.body)
            .collect();
        let mut by_extension = listed(&http::get(&server.address, &signatures(REPOSITORY, digest)));
        found.sort();
        by_extension.sort();
        assert_eq!(found.len(), by_extension.len());
        assert!(found == by_extension, "the two faces differ");
        found
    }

    /// Compares what is served with what was acknowledged; returns how much it is.
    fn check(&self, server: &Server, images: &[Digest]) -> usize {
        let told = self.told.lock().unwrap();
        let mut count = 0;
        for digest in images {
            let found = self.served(server, digest);
            let once: BTreeSet<_> = found.iter().collect();
            assert_eq!(once.len(), found.len(), "a signature is there twice");
            for sent in told.acknowledged.iter().filter(|sent| sent.digest == *digest) {
                assert!(once.contains(&sent.blob), "a signature was acknowledged and is lost: {}", server.log());
            }
            for blob in &found {
                let sent = Sent { digest: digest.clone(), blob: blob.clone() };
                assert!(
                    told.acknowledged.contains(&sent) || told.unanswered.contains(&sent),
                    "{} bytes that nobody sent",
                    blob.len()
                );
            }
            count += found.len();
        }
        count
    }

    /// Every acknowledged write is in the log, and every line is whole.
    fn check_audit(&self) {
        let log = std::fs::read_to_string(self.file("audit.jsonl")).unwrap();
        let mut recorded: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            assert_eq!((text("repository").as_str(), line["who"].is_string()), (REPOSITORY, true), "{line}");
            recorded.entry(text("signature")).or_default().insert(text("verdict"));
        }
        for sent in &self.told.lock().unwrap().acknowledged {
            let verdicts = recorded.get(&Digest::sha256(&sent.blob).to_string());
            let verdicts = verdicts.unwrap_or_else(|| panic!("an acknowledged write without a record"));
            assert!(verdicts.contains("admitted"), "{verdicts:?}");
            assert!(verdicts.contains("stored") || verdicts.contains("already there"), "{verdicts:?}");
        }
    }
}

#[test]
fn killed_twenty_times_it_keeps_what_it_acknowledged() {
    let world = World::new();
    let carol = keys::signer("carol");
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..ROUNDS {
        let mut server = world.serve();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (world, address, carol) = (&world, server.address.clone(), &carol);
                scope.spawn(move || world.write(&address, round, writer, carol));
            }
            std::thread::sleep(Duration::from_millis(40 + random.below(160)));
            server.stop("KILL");
        });
        if round % 5 == 4 {
            world.check(&world.serve(), &world.images[round * IMAGES..(round + 1) * IMAGES]);
        }
    }
    let server = world.serve();
    // What nobody heard of is sent once more, as clients do; nothing gets doubled by it.
    let left: Vec<Sent> = world.told.lock().unwrap().unanswered.iter().cloned().collect();
    let unanswered = left.len();
    assert!(left.iter().all(|sent| world.put(&server.address, sent, true)));
    let count = world.check(&server, &world.images);
    assert_eq!(count, world.told.lock().unwrap().acknowledged.len(), "all that was sent, once");
    assert!(count > ROUNDS * 5, "only {count} signatures were written, {unanswered} answers were lost");
    world.check_audit();
}
