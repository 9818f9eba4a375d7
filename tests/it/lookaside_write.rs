//! Writing to the lookaside over HTTP, with the real curl, htpasswd, skopeo and registry.

use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::image::Digest;

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::image::{DirImage, image};
use crate::support::keys::{self, GpgHome};
use crate::support::server::Server;

const TOKEN: &str = "ci-token-of-many-letters";

struct World {
    registry: DockerRegistry,
    host: Host,
    store: tempfile::TempDir,
    one: DirImage,
    _gpg: GpgHome,
}

impl World {
    fn new(registry: DockerRegistry) -> Self {
        let gpg = GpgHome::with(&["alice"]);
        let host = Host::new(gpg.path());
        let one = image(host.path(), "one", "one", "amd64");
        let made = Command::new("htpasswd").args(["-Bbn", "bob", "p@ss/word"]).output();
        let made = made.expect("htpasswd is installed (Debian package apache2-utils)").stdout;
        host.write("htpasswd", made);
        host.write("tokens", format!("ci:{TOKEN}\n"));
        Self { registry, host, store: tempfile::tempdir().unwrap(), one, _gpg: gpg }
    }

    fn file(&self, name: &str) -> String {
        self.host.path().join(name).display().to_string()
    }

    fn serve(&self, access: &str) -> Server {
        let access = access
            .replace("USERS", &format!("{{htpasswd: {}}}", self.file("htpasswd")))
            .replace("TOKENS", &format!("{{token: {}}}", self.file("tokens")));
        let config = format!("access: {access}\naudit_log: {}\n", self.file("audit.jsonl"));
        let config = self.host.write("countersign.yaml", config);
        Server::start(&[
            "--store",
            text(self.store.path()),
            "--config",
            text(&config),
            "--upstream",
            &self.registry.url(),
        ])
    }

    /// Makes a signature of the image by `key`.
    fn signature(&self, key: &str, reference: &str) -> PathBuf {
        let file = self.host.path().join(format!("{key}-{}", Digest::sha256(reference.as_bytes()).hex()));
        let manifest = self.one.dir.join("manifest.json");
        let key = keys::secret(key);
        self.host
            .countersign(&["sign", reference, "--key", text(&key), "--manifest", text(&manifest), "-o", text(&file)])
            .accepted();
        file
    }

    fn path(&self, repository: &str, last: &str) -> String {
        format!("/lookaside/{repository}@{}/signature-{last}", self.one.digest.path_form())
    }

    fn stored(&self, repository: &str) -> usize {
        let folder = self.store.path().join(format!("{repository}@{}", self.one.digest.path_form()));
        std::fs::read_dir(folder).map_or(0, |entries| entries.count())
    }

    fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.file("audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn push(&self, name: &str, credentials: &[&str]) {
        let (from, to) = (format!("dir:{}", text(&self.one.dir)), format!("docker://{name}"));
        let args = ["--insecure-policy", "copy", "--dest-tls-verify=false"];
        self.host.skopeo(&[&args, credentials, &[from.as_str(), to.as_str()]].concat()).accepted();
    }

    fn pull(&self, policy: &Path, name: &str, credentials: &[&str]) -> Ran {
        let out = tempfile::tempdir().unwrap();
        let registries_d = self.host.path().join(".config/containers/registries.d");
        let args = ["--policy", text(policy), "--registries.d", text(&registries_d), "copy", "--src-tls-verify=false"];
        let (from, to) = (format!("docker://{name}"), format!("dir:{}", text(out.path())));
        self.host.skopeo(&[&args, credentials, &[from.as_str(), to.as_str()]].concat())
    }
}

/// Runs curl; returns the status and the head of the answer.
fn curl(args: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--output", "/dev/null", "--dump-header", "-"])
        .args(["--write-out", "\nSTATUS %{http_code}"])
        .args(args)
        .output()
        .expect("curl is installed (make test installs it)");
    let told = String::from_utf8(output.stdout).unwrap();
    let (head, status) = told.rsplit_once("STATUS ").unwrap_or_else(|| panic!("{:?}", output.stderr));
    (status.parse().unwrap(), head.to_ascii_lowercase())
}

#[test]
fn curl_uploads_and_skopeo_reads_with_userinfo_and_token() {
    let world = World::new(DockerRegistry::start());
    let server = world.serve("{read: [USERS, TOKENS], write: [USERS]}");
    let name = format!("{}/birds/bluebird:build1", world.registry.address());
    world.push(&name, &[]);
    let signature = world.signature("alice", &name);
    let url = |last: &str| server.url(&world.path("birds/bluebird", last));

    assert_eq!(curl(&["-T", text(&signature), &url("1")]).0, 401);
    assert_eq!(curl(&["-u", "bob:wrong", "-T", text(&signature), &url("1")]).0, 401);
    // What a WebDAV script does: folders first, then the file.
    let folder = url("1").replace("/signature-1", "");
    assert_eq!(curl(&["-u", "bob:p@ss/word", "-X", "MKCOL", &folder]).0, 201);
    let (status, head) = curl(&["-u", "bob:p@ss/word", "-T", text(&signature), &url("1")]);
    let first = format!("location: {}", world.path("birds/bluebird", "1"));
    assert!(status == 201 && head.contains(&first), "{status} {head}");
    // As chunks, of unknown length, and again.
    let chunked = ["-u", "bob:p@ss/word", "-H", "Transfer-Encoding: chunked", "-T", text(&signature), &url("new")];
    assert_eq!(curl(&chunked).0, 204);
    let other = world.signature("alice", &format!("{}/birds/bluebird:build2", world.registry.address()));
    let (status, head) = curl(&["-u", "bob:p@ss/word", "-T", text(&other), &url("1")]);
    assert!(status == 201 && head.contains(&first.replace("signature-1", "signature-2")), "{status} {head}");
    assert_eq!(curl(&["-u", "bob:p@ss/word", "-H", "If-None-Match: *", "-T", text(&signature), &url("2")]).0, 204);
    assert_eq!(world.stored("birds/bluebird"), 2);

    // skopeo reads with the credentials of its lookaside's URL, and with none it is no "unsigned".
    let policy = world.host.signed_by_policy("alice.json", &keys::public("alice"));
    let base = |url: &str| world.host.registries_d(world.registry.address(), url, None);
    base(&format!("http://bob:p%40ss%2Fword@{}/lookaside", server.address));
    world.pull(&policy, &name, &[]).accepted();
    base(&format!("http://{}/lookaside?token={TOKEN}", server.address));
    world.pull(&policy, &name, &[]).accepted();
    base(&format!("http://{}/lookaside", server.address));
    world.pull(&policy, &name, &[]).refused("401");
    base(&format!("http://bob:wrong@{}/lookaside", server.address));
    world.pull(&policy, &name, &[]).refused("401");

    // Removal closes the gap, and the last one makes the image unsigned.
    assert_eq!(curl(&["-u", "bob:p@ss/word", "-X", "DELETE", &url("1")]).0, 204);
    base(&format!("http://bob:p%40ss%2Fword@{}/lookaside", server.address));
    world.pull(&policy, &name, &[]).refused("is not accepted");
    assert_eq!(curl(&["-u", "bob:p@ss/word", "-X", "DELETE", &url("1")]).0, 204);
    world.pull(&policy, &name, &[]).refused("A signature was required, but no signature exists");
    assert_eq!(curl(&["-u", "bob:p@ss/word", "-X", "DELETE", &url("1")]).0, 404);

    let audit = world.audit();
    let done: Vec<_> = audit.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(done.iter().filter(|verdict| **verdict == "removed").count(), 2, "{done:?}");
    assert!(audit.iter().filter(|line| line["verdict"] == "stored").all(|line| line["who"] == "bob"));
    for secret in ["p@ss/word", "p%40ss", TOKEN, "Ym9iOn"] {
        assert!(!server.log().contains(secret) && !format!("{audit:?}").contains(secret), "{secret}");
    }
}

#[test]
fn the_gate_and_the_extension_share_one_audit_log() {
    let world = World::new(DockerRegistry::start());
    let policy = world.host.signed_by_policy("gate.json", &keys::public("alice"));
    let server = world.serve(&format!("{{write: [TOKENS]}}\ngate: {{policy: {}}}", text(&policy)));
    let put = |file: &Path, repository: &str, digest: &str| {
        let path = format!("/lookaside/{repository}@{digest}/signature-new?token={TOKEN}");
        http::request(&server.address, "PUT", &path, &[], &std::fs::read(file).unwrap())
    };
    let digest = world.one.digest.path_form();
    let good = world.signature("alice", "registry.example/birds/bluebird:1");
    assert_eq!(put(&good, "birds/bluebird", &digest).status, 201);
    let carol = world.signature("carol", "registry.example/birds/bluebird:1");
    let answer = put(&carol, "birds/bluebird", &digest);
    assert!(answer.status == 403 && answer.text().contains("signature not admitted"), "{answer:?}");
    let answer = put(&good, "fish/carp", &digest);
    assert!(answer.status == 403 && answer.text().contains("uploaded to the repository fish/carp"), "{answer:?}");
    let answer = put(&good, "birds/bluebird", &Digest::sha256(b"other").path_form());
    assert!(answer.status == 400 && answer.text().contains("the signature is for"), "{answer:?}");
    assert_eq!(world.stored("fish/carp"), 0);

    let through = format!("{}/birds/bluebird:1", server.address);
    world.push(&through, &["--sign-by", &GpgHome::user("alice")]);
    let lines: Vec<_> = world
        .audit()
        .iter()
        .map(|line| format!("{} {} {}", line["face"], line["verdict"], line["way"]).replace('"', ""))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    lookaside admitted token
    lookaside stored token
    lookaside refused token
    lookaside refused token
    lookaside refused token
    extension admitted upstream
    extension stored upstream
    ");
}

#[test]
fn the_registry_s_own_users() {
    let world = World::new(DockerRegistry::with_htpasswd("alice", "secret"));
    let server = world.serve("{read: [upstream], write: [upstream]}");
    let name = format!("{}/birds/bluebird:build1", world.registry.address());
    world.push(&name, &["--dest-creds", "alice:secret"]);
    let signature = world.signature("alice", &name);
    let url = server.url(&world.path("birds/bluebird", "new"));
    assert_eq!(curl(&["-T", text(&signature), &url]).0, 401);
    assert_eq!(curl(&["-u", "alice:wrong", "-T", text(&signature), &url]).0, 401);
    assert_eq!(curl(&["-u", "alice:secret", "-T", text(&signature), &url]).0, 201);
    let policy = world.host.signed_by_policy("alice.json", &keys::public("alice"));
    for (userinfo, says) in [("alice:secret@", None), ("alice:wrong@", Some("401")), ("", Some("401"))] {
        let base = format!("http://{userinfo}{}/lookaside", server.address);
        world.host.registries_d(world.registry.address(), &base, None);
        let ran = world.pull(&policy, &name, &["--src-creds", "alice:secret"]);
        match says {
            None => ran.accepted(),
            Some(why) => ran.refused(why),
        };
    }
    let stored = world.audit().into_iter().find(|line| line["verdict"] == "stored").unwrap();
    assert_eq!((stored["who"].as_str(), stored["way"].as_str()), (Some("alice"), Some("upstream")));
}

#[test]
fn fifty_uploads_at_once_over_a_real_folder() {
    let world = World::new(DockerRegistry::start());
    let server = world.serve("{write: [TOKENS]}\ngate: {mode: off}");
    let path = format!("{}?token={TOKEN}", world.path("x", "1"));
    let blob = |n: usize| [&[0xA3][..], format!("blob {n}").as_bytes()].concat();
    let locations: Vec<_> = std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..50)
            .map(|n| {
                let (address, path) = (&server.address, &path);
                scope.spawn(move || http::request(address, "PUT", path, &[], &blob(n)))
            })
            .collect();
        uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
    });
    let mut numbers: Vec<usize> = locations
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, 201, "{}", answer.text());
            answer.header("location").unwrap().rsplit('-').next().unwrap().parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    let mut read: Vec<_> =
        (1..=50).map(|n: usize| http::get(&server.address, &world.path("x", &n.to_string())).body).collect();
    let mut sent: Vec<_> = (0..50).map(blob).collect();
    read.sort();
    sent.sort();
    assert_eq!(read, sent);
    assert_eq!(http::get(&server.address, &world.path("x", "51")).status, 404);
}

#[test]
fn what_cannot_work_is_found_at_the_start() {
    let host = Host::new(Path::new("/nowhere"));
    let start = |yaml: &str| {
        let config = host.write("countersign.yaml", yaml);
        host.countersign(&["serve", "--listen", "127.0.0.1:0", "--store", text(host.path()), "--config", text(&config)])
    };
    let apr1 = host.write("apr1", "bob:$apr1$x$y\n");
    let ran = start(&format!("access: {{write: [{{htpasswd: {}}}]}}", text(&apr1))).refused("htpasswd -B");
    assert_eq!(ran.code, Some(2));
    start("access: {write: [anonymous]}").refused("needs a name");
    start("access: {read: [upstream]}").refused("set `upstream`");
    start("access: {read: [{token: /no/such}]}").refused("/no/such");
    start("audit_log: /no/such/file").refused("cannot write the audit log /no/such/file");
}
