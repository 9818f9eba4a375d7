//! Re-signing from and to registries and lookasides on the web, with the real registry behind our
//! own server, and the choices that ask the new registry.

mod accounts;
mod lookaside;
mod tokens;
mod uploads;

use std::path::PathBuf;

use countersign::image::Digest;
use serde_json::Value;

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::image_folder::ImageFolder;
use crate::support::keys::{self, GpgHome};
use crate::support::server::Server;
use crate::support::web::{Said, Web};

/// A host with an old policy (alice), a store, and our server with the real registry behind it.
struct Desk {
    host: Host,
    registry: DockerRegistry,
    server: Server,
    store: PathBuf,
    policy: PathBuf,
    _gpg: GpgHome,
}

impl Desk {
    fn new() -> Self {
        let gpg = GpgHome::with(&["alice"]);
        let host = Host::new(gpg.path());
        let store = host.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let registry = DockerRegistry::start();
        let server = Server::start(&["--store", text(&store), "--upstream", &registry.url()]);
        let policy = host.signed_by_policy("old.json", &keys::public("alice"));
        Self { host, registry, server, store, policy, _gpg: gpg }
    }

    /// Pushes past the server's store, with no signature.
    fn push(&self, image: &ImageFolder, name: &str) -> Digest {
        image.push(&format!("{}/{name}", self.registry.address()), &[]);
        Digest::sha256(image.manifest())
    }

    /// Signs by alice into a tree, for the old registry.
    fn sign_into(&self, tree: &std::path::Path, name: &str, digest: &Digest) {
        let key = keys::secret("alice");
        let name = format!("registry.ng.bluemix.net/{name}");
        let digest = digest.to_string();
        let args = ["sign", &name, "--key", text(&key), "--digest", &digest, "--to", text(tree)];
        self.host.countersign(&args).accepted();
    }

    fn sign(&self, name: &str, digest: &Digest) {
        self.sign_into(&self.store, name, digest);
    }

    /// Runs a job that renames by IBM's table and signs by bob.
    fn resign(&self, from: &str, to: &str, extra: &[&str]) -> Ran {
        let (policy, key) = (text(&self.policy), keys::secret("bob"));
        let fixed = ["--format", "json", "resign", "--from", from, "--to", to, "--rename", "ibm", "--policy", policy];
        let insecure = ["--from-tls-verify=false", "--to-tls-verify=false", "--key", text(&key)];
        self.host.countersign(&[&fixed[..], &insecure, extra].concat())
    }

    /// Checks a report against the ends that it names, and the new key.
    fn audit(&self, report: &str, extra: &[&str]) -> Ran {
        let key = keys::public("bob");
        let fixed =
            ["--format", "json", "resign", "audit", report, "--policy", text(&self.policy), "--tls-verify=false"];
        self.host.countersign(&[&fixed[..], &["--new-key", text(&key)], extra].concat())
    }

    /// Writes a report that was changed.
    fn report(&self, name: &str, report: &Value) -> String {
        crate::resign_report::write(&self.host.path().join(name), report);
        self.path(name)
    }

    fn list(&self, lines: &str) -> String {
        text(&self.host.write("images.txt", lines)).to_owned()
    }

    fn path(&self, name: &str) -> String {
        text(&self.host.path().join(name)).to_owned()
    }

    fn docker(&self, namespace: &str) -> String {
        format!("docker://{}{namespace}", self.server.address)
    }

    /// The names in the claims of a set, sorted; `new/` for a tree of that name.
    fn claims(&self, tree: &str, name: &str, digest: &Digest) -> Vec<String> {
        let folder = self.host.path().join(tree).join(format!("{name}@{}", digest.path_form()));
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| {
                let shown = self.host.countersign(&["--format", "json", "inspect", text(&entry.unwrap().path())]);
                json(&shown.accepted())["reference"].as_str().unwrap().to_owned()
            })
            .collect();
        names.sort();
        names
    }
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

/// How many files a tree has.
fn walk_count(root: &std::path::Path) -> usize {
    crate::resign::walk(root).len()
}

/// signed, already, unmatched, refused, failed
#[track_caller]
fn totals(ran: &Ran) -> [u64; 5] {
    let json = json(ran);
    ["signed", "already", "unmatched", "refused", "failed"].map(|name| json[name].as_u64().unwrap())
}

#[test]
fn a_registry_moves_in_place_and_clients_accept_it() {
    let desk = Desk::new();
    let (one, two) = (ImageFolder::image("one"), ImageFolder::image("two"));
    let digest_one = desk.push(&one, "birds/bluebird:build1");
    desk.push(&one, "birds/bluebird:latest");
    let digest_two = desk.push(&two, "birds/robin:1");
    desk.push(&two, "other/robin:1");
    desk.sign("birds/bluebird:build1", &digest_one);
    desk.sign("birds/robin:1", &digest_two);
    desk.sign("other/robin:1", &digest_two);

    let new_policy = desk.host.signed_by_policy("new.json", &keys::public("bob"));
    let conf = desk.host.write(
        "registries.conf",
        format!("[[registry]]\nprefix = \"us.icr.io\"\nlocation = \"{}\"\ninsecure = true\n", desk.server.address),
    );
    let pull = |name: &str| {
        let out = tempfile::tempdir().unwrap();
        let (name, to) = (format!("docker://{name}"), format!("dir:{}", text(out.path())));
        desk.host.skopeo(&["--policy", text(&new_policy), "--registries-conf", text(&conf), "copy", &name, &to])
    };
    pull("us.icr.io/birds/bluebird:build1").refused("");

    // A list: two tags of one image, a comment, a tag that is gone, a stranger, what is outside.
    let images = desk.list(&format!(
        "# moved in 2020\n\nregistry.ng.bluemix.net/birds/bluebird:build1\n{}/birds/bluebird:latest\nbirds/robin@{digest_two}\n\
         us.icr.io/birds/robin:gone\nevil.example/birds/robin:1\nother/robin:1\nbirds/Robin\n",
        desk.server.address
    ));
    let here = desk.docker("/birds");
    let journal = desk.path("journal");
    let arguments = ["--images", &images, "--journal", &journal];
    let dry = desk.resign(&here, &here, &["--images", &images, "--dry-run"]);
    assert_eq!((dry.code, totals(&dry)), (Some(1), [2, 0, 0, 3, 1]), "{dry:?}");
    let ran = desk.resign(&here, &here, &arguments);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [2, 0, 0, 3, 1]), "{ran:?}");
    for said in [
        "images.txt:7: evil.example is neither the source's registry nor a side of a rename rule",
        "images.txt:8: other/robin is outside of docker://",
        "images.txt:9: no image name",
        "birds/robin:gone",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    pull("us.icr.io/birds/bluebird:build1").accepted();
    pull("us.icr.io/birds/robin:1").accepted();
    assert_eq!(desk.claims("store", "other/robin", &digest_two).len(), 1);

    // Again: one failed, so the job is not at its end and goes on after what is settled. The source
    // now has the new signatures, too, which are no old ones.
    let again = desk.resign(&here, &here, &arguments);
    assert_eq!((totals(&again), &json(&again)["resumed"]), ([0, 0, 2, 3, 1], &2.into()), "{again:?}");
    // Without a journal all is compared, and all is there.
    let compared = desk.resign(&here, &here, &["--images", &images]);
    assert_eq!(totals(&compared), [0, 2, 2, 3, 1], "{compared:?}");
    assert_eq!(desk.claims("store", "birds/bluebird", &digest_one).len(), 2);
    // The same journal is not for other images or choices.
    let other = desk.resign(&here, &here, &["--discover", "catalog", "--journal", &journal]);
    assert!(other.code == Some(2) && other.stderr.contains("belongs to another job"), "{other:?}");

    // Two processes share a list: everything is accounted for once.
    let parts = ["1/2", "2/2"]
        .map(|shard| totals(&desk.resign(&here, &desk.path("shards"), &["--images", &images, "--shard", shard])));
    let sum: Vec<u64> = parts[0].iter().zip(&parts[1]).map(|(a, b)| a + b).collect();
    assert_eq!(sum, [2, 0, 2, 3, 1], "{parts:?}");

    // By the catalog, into a tree; and the whole registry, the rest.
    let ran = desk.resign(&desk.docker("/birds"), &desk.path("new"), &["--discover", "catalog"]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [2, 0, 2, 0, 0]), "{ran:?}");
    assert_eq!(desk.claims("new", "birds/bluebird", &digest_one), ["us.icr.io/birds/bluebird:build1"]);
    assert_eq!(desk.claims("new", "other/robin", &digest_two), [""; 0]);
    let ran = desk.resign(&desk.docker(""), &desk.docker("/birds"), &["--discover", "catalog"]);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [0, 2, 2, 1, 0]), "outside of the destination: {ran:?}");
    let images = desk.list("other/robin\nbirds/none\n");
    let ran = desk.resign(&desk.docker(""), &desk.path("new"), &["--images", &images, "--discover", "tags"]);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [1, 0, 0, 0, 1]), "{ran:?}");
    assert_eq!(desk.claims("new", "other/robin", &digest_two), ["us.icr.io/other/robin:1"]);
}

#[test]
fn a_web_lookaside_is_read_by_a_list_and_trees_can_be_narrowed() {
    let desk = Desk::new();
    let (one, two) = (ImageFolder::image("one"), ImageFolder::image("two"));
    let digest_one = desk.push(&one, "birds/bluebird:build1");
    let digest_two = desk.push(&two, "birds/robin:1");
    for (name, digest) in [("birds/bluebird:build1", &digest_one), ("birds/robin:1", &digest_two)] {
        desk.sign(name, digest);
    }
    // What no client would take is refused alone.
    let folder = desk.store.join(format!("birds/bluebird@{}", digest_one.path_form()));
    std::fs::write(folder.join("signature-2"), "<html>").unwrap();
    let base = format!("{}/lookaside", desk.server.url(""));
    let unsigned = Digest::sha256(b"unsigned");
    let images = desk
        .list(&format!("birds/bluebird@{digest_one}\nbirds/robin@{unsigned}\nbirds/robin:1\nus.icr.io/birds/robin\n"));
    let ran = desk.resign(&base, &desk.path("new"), &["--images", &images]);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [1, 0, 1, 3, 0]), "{ran:?}");
    assert!(ran.stderr.contains("images.txt:3: only a registry knows what its tags are"), "{ran:?}");
    assert!(ran.stderr.contains("images.txt:4: it has neither tag nor digest"), "{ran:?}");
    assert_eq!(desk.claims("new", "birds/bluebird", &digest_one), ["us.icr.io/birds/bluebird:build1"]);

    // A tree: one repository of it, one digest of it, a tag that the named registry resolves.
    let rule = format!("registry.ng.bluemix.net={}", desk.registry.address());
    let narrowed = |lines: &str, to: &str| {
        let (images, policy, key) = (desk.list(lines), text(&desk.policy), keys::secret("bob"));
        let (from, to) = (text(&desk.store), desk.path(to));
        desk.host.countersign(
            &[
                &["--format", "json", "resign", "--from", from, "--to", &to, "--rename", &rule, "--policy", policy][..],
                &["--images", &images, "--key", text(&key), "--from-tls-verify=false"],
            ]
            .concat(),
        )
    };
    let ran = narrowed("birds/robin\nbirds/none\n", "a");
    assert_eq!((ran.code, totals(&ran)), (Some(0), [1, 0, 1, 0, 0]), "{ran:?}");
    let ran = narrowed(&format!("registry.ng.bluemix.net/birds/robin@{digest_two}\n"), "b");
    assert_eq!((ran.code, totals(&ran)), (Some(0), [1, 0, 0, 0, 0]), "{ran:?}");
    let ran = narrowed(&format!("{}/birds/robin:1\nbirds/robin:1\n", desk.registry.address()), "c");
    assert_eq!((ran.code, totals(&ran)), (Some(1), [1, 0, 0, 1, 0]), "{ran:?}");
}

#[test]
fn a_list_comes_through_standard_input_too() {
    use std::io::Write as _;
    let desk = Desk::new();
    let digest = desk.push(&ImageFolder::image("one"), "birds/bluebird:build1");
    desk.sign("birds/bluebird:build1", &digest);
    let (from, to, key) = (desk.docker(""), desk.path("new"), keys::secret("bob"));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["resign", "--from", &from, "--to", &to, "--rename", "ibm", "--policy", text(&desk.policy)])
        .args(["--key", text(&key), "--from-tls-verify=false", "--images", "-"])
        .env("HOME", desk.host.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"birds/bluebird:build1").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap()).accepted();
    assert!(ran.stdout.starts_with("Signed: 1,"), "{ran:?}");
}

#[test]
fn mistakes_stop_a_job_before_it_starts() {
    let desk = Desk::new();
    let (here, tree, plain) = (desk.docker(""), text(&desk.store), format!("docker://{}", desk.registry.address()));
    let images = desk.list("a/b:1\n");
    let web = desk.server.url("/lookaside");
    for (from, to, extra, said) in [
        (plain.as_str(), tree, &["--images", &images][..], "does not announce X-Registry-Supports-Signatures"),
        (tree, plain.as_str(), &[], "does not announce X-Registry-Supports-Signatures"),
        (&here, tree, &[], "add --images FILE or --discover catalog"),
        (&web, tree, &[], "add --images FILE"),
        (tree, tree, &["--discover", "catalog"], "the source is none"),
        (tree, tree, &["--discover", "tags"], "needs --images"),
        (&here, tree, &["--images", &images, "--discover", "catalog"], "leave --images out"),
        (&here, tree, &["--images", "/no/such/file"], "list of images /no/such/file"),
        ("docker://h.example/UPPER", tree, &["--images", &images], "is no registry"),
        (tree, tree, &["--rate", "0"], "not a number above zero"),
        (tree, tree, &["--check-registry", "h.example"], "--check"),
        #[cfg(not(feature = "gcp"))]
        ("gs://bucket", tree, &[], "--features gcp"),
        #[cfg(not(feature = "azure"))]
        (tree, "az://container", &[], "--features azure"),
    ] {
        let ran = desk.resign(from, to, extra);
        assert!(ran.code == Some(2) && ran.stderr.contains(said), "{said}: {ran:?}");
    }
}

#[test]
fn the_newest_claim_of_a_name_is_found_over_all_digests() {
    let desk = Desk::new();
    let tree = desk.host.path().join("old");
    let digest = |seed: u32| Digest::sha256(&seed.to_be_bytes());
    // Each repository: the tag moved from 1 to 2; 3 has a tag of its own. Beside them, a neighbour.
    for repository in ["a/b", "a/b-c", "a/b/c"] {
        desk.sign_into(&tree, &format!("{repository}:latest"), &digest(1));
        desk.sign_into(&tree, &format!("{repository}:v3"), &digest(3));
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    for repository in ["a/b", "a/b-c", "a/b/c"] {
        desk.sign_into(&tree, &format!("{repository}:latest"), &digest(2));
    }
    let ran = desk.resign(text(&tree), &desk.path("new"), &["--newest"]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [6, 0, 3, 0, 0]), "{ran:?}");
    for repository in ["a/b", "a/b-c", "a/b/c"] {
        assert_eq!(desk.claims("new", repository, &digest(1)), [""; 0]);
        assert_eq!(desk.claims("new", repository, &digest(2)), [format!("us.icr.io/{repository}:latest")]);
        assert_eq!(desk.claims("new", repository, &digest(3)), [format!("us.icr.io/{repository}:v3")]);
    }
    // What nobody accepts is not the newest.
    let all = desk.resign(text(&tree), &desk.path("all"), &[]);
    assert_eq!(totals(&all), [9, 0, 0, 0, 0]);
    // A list must keep repositories together, or it cannot be told.
    let line = |repository: &str, seed| format!("{repository}@{}\n", digest(seed));
    let sorted = desk.list(&(line("a/b", 1) + &line("a/b", 2) + &line("a/b/c", 1)));
    let ran = desk.resign(text(&tree), &desk.path("sorted"), &["--newest", "--images", &sorted]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [2, 0, 1, 0, 0]), "{ran:?}");
    let mixed = desk.list(&(line("a/b", 2) + &line("a/b/c", 1) + &line("a/b", 1)));
    let ran = desk.resign(text(&tree), &desk.path("mixed"), &["--newest", "--images", &mixed]);
    assert!(ran.code == Some(1) && ran.stderr.contains("sort the list"), "{ran:?}");
    assert_eq!(desk.claims("mixed", "a/b", &digest(1)), [""; 0]);
}

#[test]
fn the_new_registry_is_asked() {
    let desk = Desk::new();
    let tree = desk.host.path().join("old");
    let (one, two, list) = (ImageFolder::image("one"), ImageFolder::image("two"), ImageFolder::list("many"));
    let old = desk.push(&one, "birds/robin:1");
    let new = desk.push(&two, "birds/robin:1");
    list.push(&format!("{}/birds/many:1", desk.registry.address()), &[]);
    let many = Digest::sha256(list.manifest());
    let members: Vec<Digest> = list.members().iter().map(|member| Digest::sha256(member.as_bytes())).collect();
    let gone = Digest::sha256(b"gone");
    for digest in [&old, &new, &gone] {
        desk.sign_into(&tree, "birds/robin:1", digest);
    }
    desk.sign_into(&tree, "birds/robin:untagged", &new);
    desk.sign_into(&tree, "birds/many:1", &many);
    desk.sign_into(&tree, "birds/many:1", &members[0]);
    let check = |what: &str, to: &str, extra: &[&str]| {
        let arguments = ["--check", what, "--check-registry", desk.registry.address()];
        desk.resign(text(&tree), &desk.path(to), &[&arguments[..], extra].concat())
    };

    // The tag moved on; an instance is current through its list.
    let ran = check("current", "current", &[]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [3, 0, 3, 0, 0]), "{ran:?}");
    assert_eq!(desk.claims("current", "birds/robin", &new), ["us.icr.io/birds/robin:1"]);
    assert_eq!(desk.claims("current", "birds/many", &members[0]).len(), 1);
    let ran = check("exists", "exists", &[]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [5, 0, 1, 0, 0]), "{ran:?}");
    assert_eq!(desk.claims("exists", "birds/robin", &gone), [""; 0]);

    // Both instances, one of which has an old signature of its own: one claim each.
    let journal = desk.path("journal");
    let ran = check("instances", "instances", &["--journal", &journal]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [6, 1, 1, 0, 0]), "{ran:?}");
    for digest in [&many, &members[0], &members[1]] {
        assert_eq!(desk.claims("instances", "birds/many", digest), ["us.icr.io/birds/many:1"]);
    }
    // A list's line in the journal does not speak for its instances.
    let lost = desk.host.path().join(format!("instances/birds/many@{}", members[1].path_form()));
    std::fs::remove_dir_all(&lost).unwrap();
    let lines = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, lines.strip_suffix("{\"finished\":true}\n").unwrap()).unwrap();
    let ran = check("instances", "instances", &["--journal", &journal]);
    assert_eq!((ran.code, totals(&ran)[0]), (Some(0), 1), "{ran:?}");
    assert_eq!(desk.claims("instances", "birds/many", &members[1]).len(), 1);

    // skopeo takes the instance of another platform by the new signatures.
    let server = Server::start(&["--store", &desk.path("instances"), "--upstream", &desk.registry.url()]);
    let policy = desk.host.signed_by_policy("new.json", &keys::public("bob"));
    let conf = desk.host.write(
        "registries.conf",
        format!("[[registry]]\nprefix = \"us.icr.io\"\nlocation = \"{}\"\ninsecure = true\n", server.address),
    );
    for architecture in ["amd64", "arm64"] {
        let out = tempfile::tempdir().unwrap();
        let to = format!("dir:{}", text(out.path()));
        let fixed = ["--policy", text(&policy), "--registries-conf", text(&conf), "--override-os", "linux"];
        let copy = ["--override-arch", architecture, "copy", "docker://us.icr.io/birds/many:1", &to];
        desk.host.skopeo(&[&fixed[..], &copy].concat()).accepted();
    }

    // A registry that fails says nothing of what exists.
    let broken = Web::start(|_| Said::new("403 Forbidden"));
    let (from, to) = (text(&tree), desk.path("broken"));
    let ran = desk.resign(from, &to, &["--check", "exists", "--check-registry", &broken.address]);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [0, 0, 0, 0, 6]), "{ran:?}");
    assert!(!PathBuf::from(to).join("birds").exists());
}
