//! The server under load, the registry behind it, and all that is put there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, RwLock};

use base64::Engine as _;
use countersign::image::Digest;
use countersign::signature::Claim;

use crate::Random;
use crate::model::{Image, Known, Model};
use crate::support::docker_registry::DockerRegistry;
use crate::support::keys;
use crate::support::registry_api::push_image;
use crate::support::server::Server;

const EXACT: usize = 24;
const CROWDED: usize = 6;
/// Fewer than an image may have.
const POOL: usize = 60;
/// So many that the disk does not fill, however long it lasts: the registry keeps each once.
const BLOBS: usize = 120;
pub const TOKEN: &str = "soak-token-of-many-letters";

pub struct World {
    pub server: Server,
    pub model: Model,
    pub blobs: Vec<Blob>,
    /// `Authorization` of the registry's user, and of the lookaside's.
    pub alice: String,
    pub bob: String,
    pub audit: PathBuf,
    _registry: DockerRegistry,
    _work: tempfile::TempDir,
}

pub struct Blob {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    /// Whether it is at the registry. Who uploads is alone: docker-registry rewrites the link to a
    /// blob in place, and answers 500 to who reads it at that moment.
    pub uploaded: RwLock<bool>,
}

impl World {
    pub fn start() -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        std::fs::create_dir_all(&target).unwrap();
        let work = tempfile::Builder::new().prefix("countersign-soak").tempdir_in(target).unwrap();
        let write = |name: &str, content: &[u8]| {
            std::fs::write(work.path().join(name), content).unwrap();
            work.path().join(name).display().to_string()
        };
        let made = Command::new("htpasswd").args(["-Bbn", "bob", "p@ss/word"]).output();
        let users = write("htpasswd", &made.expect("htpasswd (Debian package apache2-utils)").stdout);
        let tokens = write("tokens", format!("ci:{TOKEN}\n").as_bytes());
        let audit = work.path().join("audit.jsonl");
        let access = format!("[{{htpasswd: {users}}}, {{token: {tokens}}}]");
        let config = format!("access: {{read: {access}, write: {access}}}\naudit_log: {}\n", audit.display());
        let config = write("countersign.yaml", config.as_bytes());
        let registry = DockerRegistry::with_htpasswd("alice", "secret");
        let store = work.path().join("store").display().to_string();
        let args = ["--log", "warn", "--store", &store, "--config", &config, "--upstream", &registry.url()];
        let server = Server::start(&args);
        let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let alice = basic("alice:secret");
        let model = model(&server.address, &alice);
        Self {
            server,
            model,
            blobs: (0..BLOBS).map(blob).collect(),
            alice,
            bob: basic("bob:p@ss/word"),
            audit,
            _registry: registry,
            _work: work,
        }
    }

    /// What the server itself found wrong.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.server.log();
        let bad = log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR"));
        bad.take(5).map(|line| format!("the server says: {line}")).collect()
    }
}

/// Pushes the images through the server, and signs for each.
fn model(server: &str, alice: &str) -> Model {
    let carol = keys::signer("carol");
    let made = |n: usize| {
        let repository = format!("soak/app{}", n % 5);
        let manifest = push_image(server, &repository, &[("Authorization", alice)], &format!("image {n}"));
        let digest = Digest::sha256(&manifest);
        let sign = |tag: usize| {
            let reference = format!("registry.example/{repository}:{n}-{tag}");
            keys::signed(&carol, &Claim { reference, digest: digest.clone(), creator: None, timestamp: None })
        };
        let pool = (0..POOL).map(sign).collect();
        (repository, manifest, pool)
    };
    let exact = (0..EXACT).map(|n| {
        let (repository, manifest, pool) = made(n);
        Image::new(repository, manifest, pool, RwLock::new(Known::default()))
    });
    let crowded = (EXACT..EXACT + CROWDED).map(|n| {
        let (repository, manifest, pool) = made(n);
        Image::new(repository, manifest, pool, Mutex::default())
    });
    Model { exact: exact.collect(), crowded: crowded.collect() }
}

/// A kibibyte to a mebibyte that nothing compresses.
fn blob(n: usize) -> Blob {
    let mut random = Random::new(n as u64 + 1000);
    let length = 1 << (10 + n % 11);
    let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap_or(0)).collect();
    Blob { digest: Digest::sha256(&bytes), bytes, uploaded: RwLock::default() }
}
