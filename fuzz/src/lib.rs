//! What is fuzzed, and what must hold: one function a target, called by `fuzz_targets/` with what
//! libFuzzer thinks up and by `tests/it/corpus.rs` with what is kept in `corpus/`. None may panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken promise must fail")]

pub mod grammar;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use countersign::config::{Network, ServerConfig};
use countersign::host::Environment;
use countersign::image::{
    Digest, ImageReference, Reference, inspect_list, is_name_prefix, kind, manifest_digest, namespaces, scopes,
};
use countersign::openpgp::{Keyring, VerifyOptions, inspect, verify};
use countersign::policy::Policy;
use countersign::registries_d::{Configuration, Document, LookasideBase, Mode, Operation};
use countersign::registry::{parse_challenges, parse_signature_list};
use countersign::resign::RenameMap;
use countersign::server::fuzzing;
use countersign::signature::{BlobKind, Claim, classify, simple_signing};
use countersign::store::{SetAddress, SignatureAddress};
use countersign::timestamp::{Request, Stamp};
use countersign::trust::{Gun, Kind, Metadata};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("address", address),
    ("blob", blob),
    ("challenge", challenge),
    ("claim", claim),
    ("json", json),
    ("keyring", keyring),
    ("lookaside_url", lookaside_url),
    ("manifest", manifest),
    ("message", message),
    ("policy", policy),
    ("reference", reference),
    ("registries_d", registries_d),
    ("rename", rename),
    ("server_config", server_config),
    ("server_path", server_path),
    ("server_question", server_question),
    ("server_scope", server_scope),
    ("signature_list", signature_list),
    ("signature_upload", signature_upload),
    ("time_stamp", time_stamp),
    ("trust_metadata", trust_metadata),
];

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A store key says one thing only, and nothing outside the store.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = SignatureAddress::parse(text) {
        assert_eq!(address.to_string(), text);
        assert!(!text.starts_with('/') && text.split('/').all(|part| !matches!(part, "" | "." | "..")));
        assert!(!text.contains(['\\', '\0', '%']));
    }
    if let Ok(set) = SetAddress::parse_key(text) {
        assert_eq!(set.to_string(), text);
    }
}

/// The form of a blob is told without changing it.
pub fn blob(data: &[u8]) {
    let simple = simple_signing(data);
    match classify(data) {
        Ok(BlobKind::SimpleSigning(inner)) => {
            assert_eq!(simple, Ok(inner));
            assert!(data.ends_with(inner));
        }
        Ok(BlobKind::SigstoreJson(inner)) => assert!(simple.is_err() && data.ends_with(inner)),
        Err(_) => assert!(simple.is_err()),
    }
}

/// WWW-Authenticate headers.
pub fn challenge(data: &[u8]) {
    for challenge in parse_challenges(data) {
        assert!(!challenge.scheme().is_empty());
        let _ = (challenge.parameter("realm"), challenge.parameter("scope"), challenge.token68());
    }
}

/// What parses is written and parsed as the same.
pub fn claim(data: &[u8]) {
    let _ = Claim::parse_sigstore(data);
    let Ok(claim) = Claim::parse(data) else { return };
    if claim.reference.is_empty() {
        return;
    }
    let rendered = claim.render().unwrap();
    assert_eq!(Claim::parse(&rendered).unwrap(), claim);
}

/// Go takes all JSON that others take; what both take are the same members.
pub fn json(data: &[u8]) {
    use countersign::json as go;
    let valid = go::validate(data).is_ok();
    let text = go::text(data);
    assert_eq!(valid, go::validate(text.as_bytes()).is_ok(), "invalid UTF-8 is replaced, no more");
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        assert!(valid, "valid JSON is refused");
        if let (Some(object), Ok(members)) = (value.as_object(), go::members(&text)) {
            // Members come with their repetitions, of which others keep the last.
            let mut read = serde_json::Map::new();
            for (key, raw) in members {
                read.insert(key, serde_json::from_str(raw.get()).unwrap());
            }
            assert_eq!(&read, object);
        }
    }
    if let Ok(raw) = serde_json::from_str::<&serde_json::value::RawValue>(&text) {
        let _ = (go::array(raw), go::strings(raw), go::bytes(raw), go::byte_strings(raw));
        let _ = (go::string(raw), go::float(raw), go::any(raw), go::kind(raw.get()));
        let _ = go::exact(raw.get(), ["a", "b"]);
    }
}

const ALICE: &[u8] = include_bytes!("../../tests/data/keys/alice.pub.asc");
const SIGNED: &[u8] = include_bytes!("../data/signed.gpg");
const CLAIM: &[u8] = include_bytes!("../data/claim.json");

fn alice() -> &'static Keyring {
    static ALICES: OnceLock<Keyring> = OnceLock::new();
    ALICES.get_or_init(|| Keyring::parse([ALICE]))
}

/// Long after the keys and signatures of the corpus were made, and always the same.
fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// No change to alice's keyring or to a stranger's makes her message another's.
pub fn keyring(data: &[u8]) {
    let keyring = Keyring::parse([data]);
    assert_eq!(keyring.is_empty(), keyring.fingerprints().is_empty());
    if let Ok(verified) = verify(SIGNED, &keyring, &VerifyOptions::at(time())) {
        assert_eq!(verified.content, CLAIM);
        assert_eq!(alice().fingerprints(), std::slice::from_ref(&verified.signer));
        assert!(keyring.fingerprints().contains(&verified.signer));
    }
    // In either order with a good keyring, the good key is not lost.
    for rings in [[ALICE, data], [data, ALICE]] {
        let both = Keyring::parse(rings);
        assert!(both.fingerprints().contains(&alice().fingerprints()[0]));
    }
}

/// A forgery is anything that alice did not sign.
pub fn message(data: &[u8]) {
    let _ = inspect(data);
    for allow in [false, true] {
        let options = VerifyOptions { allow_sha1: allow, allow_weak_keys: allow, ..VerifyOptions::at(time()) };
        if let Ok(verified) = verify(data, alice(), &options) {
            assert_eq!(verified.content, CLAIM, "a forgery");
            assert_eq!(alice().fingerprints(), [verified.signer]);
        }
    }
}

/// Whatever the base, the address ends as it should.
pub fn lookaside_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(base) = LookasideBase::parse(text) else { return };
    let digest = Digest::parse(DIGEST).unwrap();
    let index = NonZeroU32::new(12).unwrap();
    let path = base.file_path("birds/bluebird", &digest, index);
    assert!(path.to_string_lossy().ends_with(&format!("/birds/bluebird@{}/signature-12", digest.path_form())));
    assert_eq!(path.parent(), Some(&*base.directory("birds/bluebird", &digest)));
    let _ = (base.redacted_url("birds/bluebird", &digest, index), base.authorization(), base.to_string());
    for operation in [Operation::Read, Operation::Write, Operation::Delete] {
        let _ = base.locate(operation, "birds/bluebird", &digest, index);
    }
    if base.is_http() && base.locate(Operation::Read, "birds/bluebird", &digest, index).is_ok() {
        let url = base.signature_url("birds/bluebird", &digest, index);
        let before_query = url.split('?').next().unwrap_or_default();
        assert!(before_query.ends_with(&format!("/birds/bluebird@{}/signature-12", digest.path_form())), "{url}");
        assert!(!url.contains(|c: char| c.is_ascii_control()), "{url:?}");
    }
}

/// Digests and lists.
pub fn manifest(data: &[u8]) {
    let _ = kind(data);
    if let Ok(digest) = manifest_digest(data) {
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
    }
    for instance in inspect_list(data).unwrap_or_default() {
        assert_eq!(Digest::parse(&instance.digest.to_string()), Ok(instance.digest));
    }
}

/// What parses decides about any image without a panic, and has requirements for it.
pub fn policy(data: &[u8]) {
    let Ok(policy) = Policy::parse(data) else { return };
    for name in ["busybox:1", "a.b.example.com:8443/ns/r:t", "localhost/x:1"] {
        let reference = Reference::parse(name).unwrap();
        let (_, requirements) = policy.docker_requirements(&reference);
        assert!(!requirements.is_empty());
        for requirement in requirements {
            assert!(!requirement.type_name().is_empty());
        }
    }
}

/// Names agree with the grammar said another way, and are what they are written as.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = Reference::parse(text);
    assert_eq!(parsed.is_ok(), grammar::is_reference(text), "{text:?}: {parsed:?}");
    assert_eq!(is_name_prefix(text), grammar::is_name_prefix(text), "{text:?}");
    let _ = (ImageReference::parse(text), Digest::parse(text));
    let Ok(parsed) = parsed else { return };
    let full = parsed.to_string();
    assert_eq!(Reference::parse_canonical(&full).as_ref(), Ok(&parsed));
    // Go's short names are not always its own: a path on Docker Hub may begin like another host.
    let first = parsed.repository().path().split('/').next().unwrap_or_default();
    if parsed.repository().domain() != "docker.io" || !(first.contains('.') || first == "localhost") {
        assert_eq!(Reference::parse(&parsed.familiar()).as_ref(), Ok(&parsed), "the short name is another's");
    }
    assert_eq!(grammar::expanded(text), full);
    let list = scopes(&parsed);
    assert!(list.ends_with(&namespaces(&parsed)));
    let mut unique = list.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), list.len(), "{list:?}");
}

/// YAML, and what it says of an image.
pub fn registries_d(data: &[u8]) {
    let _ = Document::parse(data);
    let mut configuration = Configuration::default();
    if configuration.add(Path::new("/a.yaml"), data).is_err() {
        return;
    }
    let twice = configuration.clone().add(Path::new("/b.yaml"), data);
    assert_eq!(
        twice.is_ok(),
        configuration.docker.is_empty() && configuration.default_docker.is_none(),
        "what is defined twice is noticed"
    );
    let environment = Environment::default();
    for name in ["docker.io/library/busybox:1", "a.b.example.com:8443/ns/r:t"] {
        let reference = Reference::parse(name).unwrap();
        for mode in [Mode::Read, Mode::Write] {
            let _ = configuration.lookaside(&reference, mode, &environment);
        }
        let _ = configuration.attachments(&reference);
    }
}

/// Rules one a line, the last line a name to rename: only the repository changes.
pub fn rename(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut rules: Vec<&str> = text.lines().collect();
    let Some(name) = rules.pop() else { return };
    let Ok(map) = RenameMap::parse(&rules) else { return };
    let Ok(reference) = Reference::parse(name) else { return };
    if let Some(renamed) = map.apply(&reference) {
        assert_eq!(renamed.reference.tag(), reference.tag());
        assert_eq!(renamed.reference.digest(), reference.digest());
        assert!(renamed.reference.repository().as_str().starts_with(renamed.rule.new_name().unwrap_or("nothing")));
        assert!(reference.repository().as_str().starts_with(renamed.rule.old()));
        let again = renamed.reference.to_string();
        assert_eq!(Reference::parse_canonical(&again).as_ref(), Ok(&renamed.reference));
    }
}

/// The extension's list.
pub fn signature_list(data: &[u8]) {
    let _ = parse_signature_list(data);
}

/// The server's configuration: no host is two registries', and each has an upstream.
pub fn server_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    let Ok(config) = ServerConfig::parse(text) else { return };
    let sites = config.sites();
    let mut hosts: Vec<&String> = sites.iter().flat_map(|site| &site.hosts).collect();
    hosts.sort_unstable();
    let all = hosts.len();
    hosts.dedup();
    assert_eq!(hosts.len(), all, "one host, two registries");
    for site in &sites {
        // Only the part of the store that is no registry's has no upstream.
        assert!(site.settings.upstream.is_some() || site.name.is_empty());
        assert!(site.settings.registries.is_empty());
        assert!(site.name.is_empty() || !site.settings.store_prefix.is_empty() || text.contains("store_prefix"));
    }
}

/// Paths of requests.
pub fn server_path(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(fuzzing::path(text), "{text:?}");
    }
}

/// The beginning of a connection, as the short way reads it.
pub fn server_question(data: &[u8]) {
    assert!(fuzzing::question(data), "{:?}", String::from_utf8_lossy(data));
}

/// Scopes of tokens and queries of uploads.
pub fn server_scope(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(fuzzing::scope(text), "{text:?}");
    }
}

/// What is uploaded to the extension.
pub fn signature_upload(data: &[u8]) {
    fuzzing::upload(data, &Digest::parse(DIGEST).unwrap());
}

/// No answer is a good time stamp where no authority is trusted.
pub fn time_stamp(data: &[u8]) {
    assert!(Stamp::verify(data, &Request::new([7; 32], [1; 8]), &[]).is_err());
    assert!(Stamp::verify_kept(data, &[7; 32], &[data.to_vec()]).is_err());
}

/// What metadata names stays below its folder; a name of a repository does, too.
pub fn trust_metadata(data: &[u8]) {
    let clean = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    for kind in [Kind::Root, Kind::Timestamp, Kind::Snapshot, Kind::Targets] {
        if let Ok(read) = Metadata::parse(data, kind) {
            assert!(read.meta.iter().all(|(role, named)| clean(role) && named.sha256.len() == 64));
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        for gun in [Gun::parse(text), Gun::parse_for_docker_hub(text)].into_iter().flatten() {
            assert!(clean(gun.as_str()) && gun.folder().is_relative());
        }
    }
}
