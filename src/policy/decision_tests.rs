//! The decision table, with a mechanism that needs no key: a message is `0x90`, the letter of the
//! key that made it, and the payload; the key file `/keys/ab` holds the keys `a` and `b`.

use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::image::{ImageReference, Reference};
use crate::policy::evidence::{ManifestEvidence, Origin};
use crate::policy::{KeySource, MechanismError, SignedContent, SigstoreSigned};
use crate::signature::SigstoreAttachment;

pub(crate) const MANIFEST: &[u8] = b"{\"schemaVersion\":2}";
const IMAGE: &str = "testing/manifest:latest";

pub(crate) struct Fake;

impl Mechanism for Fake {
    fn verify(&self, message: &[u8], keys: &KeySource) -> Result<SignedContent, MechanismError> {
        let files: Vec<PathBuf> = match keys {
            KeySource::Path(path) => vec![path.clone()],
            KeySource::Paths(paths) => paths.clone(),
            KeySource::Data(_) => return Err(MechanismError::NoKeys),
        };
        let mut known = String::new();
        for file in files {
            match file.to_str().and_then(|file| file.strip_prefix("/keys/")) {
                Some(letters) => known.push_str(letters),
                None => {
                    return Err(MechanismError::Keys(format!("open {}: no such file or directory", file.display())));
                }
            }
        }
        if known.is_empty() {
            return Err(MechanismError::NoKeys);
        }
        let (key, content) = match message {
            [0x90, key, content @ ..] => (char::from(*key), content.to_vec()),
            _ => return Err(MechanismError::Signature("Unexpected GPG signature count 0".to_owned())),
        };
        if !known.contains(key) {
            return Err(MechanismError::Signature(format!("Key not found for key ID {key} in signature")));
        }
        Ok(SignedContent {
            content,
            fingerprint: key.to_uppercase().to_string(),
            signing_key: format!("{key}-sub"),
            warnings: vec!["made in the future".to_owned()],
            created: 7,
        })
    }
}

pub(crate) fn digest() -> Digest {
    Digest::sha256(MANIFEST)
}

pub(crate) fn payload(reference: &str, digest: &Digest) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"atomic container signature"}},"optional":{{}}}}"#
    )
}

pub(crate) fn signed(key: char, payload: &str) -> SignatureBlob {
    let bytes: Vec<u8> = [0x90, key as u8].into_iter().chain(payload.bytes()).collect();
    SignatureBlob { origin: Origin::Url("http://l/signature-1".to_owned()), bytes: bytes.into() }
}

fn good(key: char) -> SignatureBlob {
    signed(key, &payload("docker.io/testing/manifest:latest", &digest()))
}

fn sigstore(json: &str) -> SignatureBlob {
    let bytes = Bytes::from(format!("\0sigstore-json\n{json}"));
    SignatureBlob { origin: Origin::File("/l/signature-1".into()), bytes }
}

const ATTACHED: &str = r#"{"mimeType":"application/vnd.dev.cosign.simplesigning.v1+json"}"#;

pub(crate) fn by(keys: &str) -> String {
    format!(r#"{{"type":"signedBy","keyType":"GPGKeys","keyPath":"/keys/{keys}"}}"#)
}

pub(crate) fn policy(requirements: &[&str]) -> Policy {
    Policy::parse(format!(r#"{{"default":[{}]}}"#, requirements.join(",")).as_bytes()).unwrap()
}

const ANY: &str = r#"{"type":"insecureAcceptAnything"}"#;
const REJECT: &str = r#"{"type":"reject"}"#;
const BASE: &str = r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#;
const SIGSTORE: &str = r#"{"type":"sigstoreSigned","keyPath":"/k"}"#;

fn ask_with(requirements: &[&str], image: &str, signatures: Signatures<'_>, options: Options) -> Decision {
    let reference = ImageReference::parse(image).unwrap();
    let image = Image::docker(&reference, ManifestEvidence::Bytes(MANIFEST));
    decide(&policy(requirements), &image, signatures, &Fake, options)
}

/// The reason, or `accepted`; the way that stops early must agree with the way that reports all.
fn ask(requirements: &[&str], signatures: &[SignatureBlob]) -> String {
    let [full, short] = [false, true].map(|decision_only| {
        let options = Options { decision_only, require_signed: false };
        let decision = ask_with(requirements, IMAGE, Signatures::Found(signatures), options);
        assert_eq!(decision.accepted, decision.reason.is_none());
        assert_eq!(decision.signatures.len(), signatures.len());
        decision.reason.map_or_else(|| "accepted".to_owned(), |reason| reason.to_string())
    });
    assert_eq!(full, short);
    full
}

const NONE: &str = "A signature was required, but no signature exists";
const REJECTED: &str = "Running image docker://testing/manifest:latest is rejected by policy.";

#[test]
fn requirements_that_look_at_no_signature() {
    assert_eq!(ask(&[ANY], &[]), "accepted");
    assert_eq!(ask(&[REJECT], &[good('a')]), REJECTED);
    assert_eq!(ask(&[ANY, REJECT], &[]), REJECTED);
    assert_eq!(ask(&[BASE], &[good('a')]), "signedBaseLayer not implemented yet!");
    assert_eq!(ask(&[REJECT, BASE], &[]), REJECTED, "the first denial counts");
}

#[test]
fn one_accepted_signature_is_enough() {
    assert_eq!(ask(&[&by("a")], &[]), NONE);
    assert_eq!(ask(&[&by("a")], &[good('a')]), "accepted");
    assert_eq!(ask(&[&by("a")], &[good('x'), good('a')]), "accepted");
    assert_eq!(ask(&[&by("a")], &[good('a'), good('x')]), "accepted");
    assert_eq!(ask(&[&by("a")], &[good('x')]), "Key not found for key ID x in signature");
}

#[test]
fn all_requirements_must_hold_each_by_its_own_signature() {
    assert_eq!(ask(&[&by("a"), &by("b")], &[good('a'), good('b')]), "accepted");
    assert_eq!(
        ask(&[&by("a"), &by("b")], &[good('a')]),
        "Key not found for key ID a in signature",
        "the second requirement's reason"
    );
    assert_eq!(ask(&[&by("ab"), &by("ab")], &[good('a')]), "accepted");
    assert_eq!(ask(&[ANY, &by("a")], &[]), NONE);
    assert_eq!(ask(&[&by("a"), REJECT], &[good('a')]), REJECTED);
}

#[test]
fn reasons_of_single_signatures() {
    let other = Digest::sha256(b"other");
    for (signature, reason) in [
        (signed('a', "{}"), "Key \"critical\" missing in a JSON object".to_owned()),
        (signed('a', ""), "unexpected end of JSON input".to_owned()),
        (
            signed('a', &payload("testing/manifest:other", &digest())),
            r#"Signature for identity "testing/manifest:other" is not accepted"#.to_owned(),
        ),
        (signed('a', &payload("q\\\"", &digest())), r#"Signature for identity "q\"" is not accepted"#.to_owned()),
        (
            signed('a', &payload("testing/manifest:latest", &other)),
            format!("Signature for digest {other} does not match"),
        ),
        // The digest is looked at before the name.
        (signed('a', &payload("x:y", &other)), format!("Signature for digest {other} does not match")),
    ] {
        assert_eq!(ask(&[&by("a")], &[signature]), reason);
    }
    let sha512 = Digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap();
    assert!(ask(&[&by("a")], &[signed('a', &payload("testing/manifest", &sha512))]).contains("does not match"));
}

#[test]
fn reasons_are_combined() {
    let wrong = signed('a', &payload("testing/manifest:other", &digest()));
    insta::assert_snapshot!(
        ask(&[&by("a")], &[good('x'), wrong, signed('a', "[]")]),
        @r#"None of the signatures were accepted, reasons: Key not found for key ID x in signature; Signature for identity "testing/manifest:other" is not accepted; JSON object expected, got 91"#
    );
}

#[test]
fn keys_are_looked_at_for_each_signature() {
    let paths = |list: &str| format!(r#"{{"type":"signedBy","keyType":"GPGKeys","keyPaths":{list}}}"#);
    assert_eq!(ask(&[&paths("[]")], &[good('a')]), "No public keys imported");
    assert_eq!(ask(&[&paths("[]")], &[]), NONE);
    assert_eq!(ask(&[&paths(r#"["/keys/a","/none"]"#)], &[good('a')]), "open /none: no such file or directory");
    assert_eq!(ask(&[&paths(r#"["/keys/a","/keys/b"]"#)], &[good('b')]), "accepted");
    let data = r#"{"type":"signedBy","keyType":"GPGKeys","keyData":""}"#;
    assert_eq!(ask(&[data], &[good('a')]), "No public keys imported");
    for key_type in ["signedByGPGKeys", "X509Certificates", "signedByX509CAs"] {
        let requirement = format!(r#"{{"type":"signedBy","keyType":"{key_type}","keyPath":"/keys/a"}}"#);
        assert_eq!(ask(&[&requirement], &[good('a')]), format!("Unimplemented \"keyType\" value \"{key_type}\""));
        assert_eq!(ask(&[&requirement], &[]), NONE);
    }
}

#[test]
fn the_two_kinds_of_signatures_ignore_each_other() {
    let other = r#"{"mimeType":"text/plain"}"#;
    assert_eq!(ask(&[&by("a")], &[sigstore(ATTACHED)]), NONE);
    assert_eq!(ask(&[&by("a")], &[sigstore(ATTACHED), good('a')]), "accepted");
    assert_eq!(ask(&[SIGSTORE], &[]), NONE);
    assert_eq!(
        ask(&[SIGSTORE], &[good('a'), sigstore(other), good('b')]),
        "A signature was required, but no signature exists (2 non-sigstore signatures, 1 sigstore non-signature attachments)"
    );
    insta::assert_snapshot!(
        ask(&[SIGSTORE], &[good('a'), sigstore(ATTACHED)]),
        @"sigstoreSigned by public keys is not supported here: only signedBy with GPGKeys can be verified"
    );
}

#[test]
fn a_mechanism_that_knows_sigstore_is_asked() {
    struct Trusting;
    impl Mechanism for Trusting {
        fn verify(&self, _: &[u8], _: &KeySource) -> Result<SignedContent, MechanismError> {
            Err(MechanismError::NoKeys)
        }
        fn verify_sigstore(
            &self,
            signature: &SigstoreAttachment,
            _: &SigstoreSigned,
        ) -> Result<Vec<u8>, MechanismError> {
            Ok(signature.payload.clone())
        }
    }
    let ask = |payload: &str| {
        let json = ATTACHED.replace(
            '}',
            &format!(r#","payload":[{}]}}"#, payload.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(",")),
        );
        let reference = ImageReference::parse(IMAGE).unwrap();
        let image = Image::docker(&reference, ManifestEvidence::Bytes(MANIFEST));
        let blobs = [sigstore(&json)];
        let decision = decide(&policy(&[SIGSTORE]), &image, Signatures::Found(&blobs), &Trusting, Options::default());
        decision.reason.map_or_else(|| "accepted".to_owned(), |reason| reason.to_string())
    };
    let cosign = |reference: &str| payload(reference, &digest()).replace("atomic container", "cosign container image");
    assert_eq!(ask(&cosign(IMAGE)), "accepted");
    assert_eq!(ask(&cosign("x:y")), r#"Signature for identity "x:y" is not accepted"#);
    assert_eq!(ask(&payload(IMAGE, &digest())), "Unrecognized signature type atomic container signature");
}

#[test]
fn images_by_digest_are_compared_with_their_digest() {
    let ask = |image: &str, signatures: &[SignatureBlob], requirement: &str| {
        let decision = ask_with(&[requirement], image, Signatures::Found(signatures), Options::default());
        decision.reason.map_or_else(|| "accepted".to_owned(), |reason| reason.to_string())
    };
    let right = format!("testing/manifest@{}", digest());
    let other = Digest::sha256(b"other");
    let wrong = format!("testing/manifest@{other}");
    let mismatch = format!("Manifest does not match provided manifest digest {other}");
    assert_eq!(ask(&right, &[good('a')], &by("a")), "accepted");
    assert_eq!(ask(&wrong, &[good('a')], &by("a")), mismatch);
    assert_eq!(ask(&wrong, &[good('x')], &by("a")), "Key not found for key ID x in signature");
    assert_eq!(ask(&wrong, &[], ANY), "accepted", "nothing reads the manifest then");
    assert_eq!(ask(&wrong, &[], &by("a")), NONE);
    // A signature for the digest that was asked for does not help either.
    assert_eq!(ask(&wrong, &[signed('a', &payload(&wrong, &other))], &by("a")), mismatch);
    let sha512 = format!("testing/manifest@sha512:{}", "0".repeat(128));
    assert!(ask(&sha512, &[good('a')], &by("a")).starts_with("Manifest does not match"));
}

#[test]
fn instances_of_lists_have_their_own_digest() {
    let list = Digest::sha256(b"list");
    let reference = ImageReference::parse(&format!("testing/manifest@{list}")).unwrap();
    let (manifest, blobs) = (digest(), [good('a')]);
    let ask = |image: Image<'_>| {
        decide(&policy(&[&by("a")]), &image, Signatures::Found(&blobs), &Fake, Options::default()).accepted
    };
    assert!(!ask(Image::docker(&reference, ManifestEvidence::Bytes(MANIFEST))));
    assert!(ask(Image::docker(&reference, ManifestEvidence::Bytes(MANIFEST)).with_instance(&manifest)));
    assert!(ask(Image::docker(&reference, ManifestEvidence::Digest(&manifest)).with_instance(&manifest)));
    assert!(!ask(Image::docker(&reference, ManifestEvidence::Bytes(MANIFEST)).with_instance(&list)));
}

#[test]
fn schema_1_is_compared_without_its_own_signatures() {
    let broken = br#"{"schemaVersion":1,"signatures":[]}"#;
    let raw = Digest::sha256(broken);
    let reference = ImageReference::parse(IMAGE).unwrap();
    let image = Image::docker(&reference, ManifestEvidence::Bytes(broken));
    let blobs = [signed('a', &payload(IMAGE, &raw))];
    let decision = decide(&policy(&[&by("a")]), &image, Signatures::Found(&blobs), &Fake, Options::default());
    assert!(decision.reason.unwrap().to_string().starts_with("computing manifest digest: "));
}

#[test]
fn images_without_a_docker_name_match_exact_names_only() {
    let ask = |identity: &str| {
        let requirement = by("a").replace('}', &format!(r#","signedIdentity":{identity}}}"#));
        let image = Image {
            transport: "dir",
            identity: "/a/b".to_owned(),
            namespaces: vec!["/a".to_owned()],
            reference: None,
            name: "dir:/a/b".to_owned(),
            manifest: ManifestEvidence::Bytes(MANIFEST),
            instance: None,
        };
        let blobs = [good('a')];
        decide(&policy(&[&requirement]), &image, Signatures::Found(&blobs), &Fake, Options::default()).accepted
    };
    assert!(!ask(r#"{"type":"matchRepository"}"#));
    assert!(ask(r#"{"type":"exactReference","dockerReference":"testing/manifest:latest"}"#));
    assert!(ask(r#"{"type":"exactRepository","dockerRepository":"testing/manifest"}"#));
}

#[test]
fn signatures_that_cannot_be_had_deny_where_they_are_asked_for() {
    let failed = Signatures::Failed("reading signature from http://l: received unexpected HTTP status: 403");
    let ask = |requirement: &str| ask_with(&[requirement], IMAGE, failed, Options::default());
    let reason = ask(&by("a")).reason.unwrap().to_string();
    assert_eq!(reason, "reading signature from http://l: received unexpected HTTP status: 403");
    assert!(!ask(SIGSTORE).accepted);
    assert!(ask(ANY).accepted);
    assert_eq!(ask(REJECT).reason.unwrap().to_string(), REJECTED);
}

#[test]
fn one_blob_of_no_form_spoils_all() {
    let at = |origin: Origin, bytes: &'static [u8]| SignatureBlob { origin, bytes: Bytes::from_static(bytes) };
    let html = at(Origin::Url("https://l/p/signature-2".to_owned()), b"<html>");
    let empty = at(Origin::File("/l/signature-2".into()), b"");
    let armoured = at(Origin::Extension("sha256:x@y".to_owned()), b"-----BEGIN");
    assert_eq!(
        ask(&[&by("a")], &[good('a'), html.clone()]),
        "parsing signature https://l/p/signature-2: unrecognized signature format, starting with binary 0x3c"
    );
    assert_eq!(ask(&[&by("a")], &[empty, html.clone()]), r#"parsing signature "/l/signature-2": empty signature blob"#);
    assert!(ask(&[&by("a")], &[sigstore("[")]).starts_with(r#"parsing signature "/l/signature-1": "#));
    assert_eq!(ask(&[ANY], &[html]), "accepted");
    // The extension knows one form only, so its blobs are never refused by their first byte.
    assert_eq!(ask(&[&by("a")], &[armoured.clone(), good('a')]), "accepted");
    assert_eq!(ask(&[&by("a")], &[armoured]), "Unexpected GPG signature count 0");
}

#[test]
fn required_signatures() {
    let options = Options { require_signed: true, decision_only: false };
    let ask = |requirements: &[&str], blobs: &[SignatureBlob]| {
        let decision = ask_with(requirements, IMAGE, Signatures::Found(blobs), options);
        (decision.required_signature, decision.reason.map(|reason| reason.to_string()).unwrap_or_default())
    };
    let missing = "No signature verification policy found for image docker:docker.io/testing/manifest:latest";
    assert_eq!(ask(&[ANY], &[good('a')]), (false, missing.to_owned()));
    assert_eq!(ask(&[REJECT], &[]), (false, REJECTED.to_owned()));
    assert_eq!(ask(&[&by("a")], &[good('a')]), (true, String::new()));
    assert_eq!(ask(&[ANY, &by("a")], &[good('a')]), (true, String::new()));
    assert_eq!(ask(&[&by("a")], &[]), (false, NONE.to_owned()));
    let loose = ask_with(&[ANY], IMAGE, Signatures::Found(&[]), Options::default());
    assert!(loose.accepted && !loose.required_signature);
}

#[test]
fn verdicts_tell_of_every_signature() {
    let wrong = signed('a', &payload("testing/manifest:other", &digest()));
    let blobs = [good('a'), good('x'), wrong, sigstore(ATTACHED), good('b')];
    let decision = ask_with(&[&by("a"), &by("ab")], IMAGE, Signatures::Found(&blobs), Options::default());
    assert!(decision.accepted && decision.required_signature);
    assert_eq!((decision.transport.as_str(), &decision.scope), ("docker", &ScopeMatch::Default));
    let told: Vec<String> = decision
        .signatures
        .iter()
        .map(|s| {
            let reason = s.reason.as_ref().map_or_else(|| "-".to_owned(), Reason::to_string);
            format!(
                "{} {} {} | {reason}",
                s.accepted,
                s.fingerprint.as_deref().unwrap_or("-"),
                s.claimed_reference.as_deref().unwrap_or("-")
            )
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    true A docker.io/testing/manifest:latest | -
    false - - | Key not found for key ID x in signature
    false A testing/manifest:other | Signature for identity "testing/manifest:other" is not accepted
    false - - | not examined: the policy verifies no signatures of this kind for the image
    true B docker.io/testing/manifest:latest | -
    "#);
    let first = &decision.signatures[0];
    assert_eq!(first.claimed_digest, Some(digest()));
    assert_eq!((first.signing_key.as_deref(), first.created), (Some("a-sub"), Some(7)));
    assert_eq!((first.source.as_str(), first.warnings.len()), ("http://l/signature-1", 1));
}

#[test]
fn the_scope_is_told() {
    let json = format!(
        r#"{{"default":[{REJECT}],"transports":{{"docker":{{"docker.io/testing":[{}],"*.io":[{ANY}]}}}}}}"#,
        by("a")
    );
    let policy = Policy::parse(json.as_bytes()).unwrap();
    let reference = Reference::parse(IMAGE).unwrap();
    assert_eq!(policy.docker_requirements(&reference).0, ScopeMatch::Scope("docker.io/testing".to_owned()));
    let reference = ImageReference::parse(IMAGE).unwrap();
    let image = Image::docker(&reference, ManifestEvidence::Bytes(MANIFEST));
    let blobs = [good('a')];
    let decision = decide(&policy, &image, Signatures::Found(&blobs), &Fake, Options::default());
    assert_eq!(decision.scope.to_string(), "docker.io/testing");
    assert!(decision.accepted);
}

proptest::proptest! {
    /// The rule of 5.6 said in one line: every requirement is allowed, a `signedBy` by any
    /// signature whose key it knows and whose claim is right.
    #[test]
    fn agrees_with_the_rule_in_one_line(
        requirements in proptest::collection::vec("any|reject|base|a|b|ab", 1..4),
        signatures in proptest::collection::vec(("[abx]", proptest::bool::ANY, proptest::bool::ANY), 0..4),
    ) {
        let texts: Vec<String> = requirements.iter().map(|r| match r.as_str() {
            "any" => ANY.to_owned(),
            "reject" => REJECT.to_owned(),
            "base" => BASE.to_owned(),
            keys => by(keys),
        }).collect();
        let other = Digest::sha256(b"other");
        let blobs: Vec<SignatureBlob> = signatures.iter().map(|(key, name, manifest)| {
            let name = if *name { IMAGE } else { "testing/manifest:other" };
            signed(key.chars().next().unwrap(), &payload(name, if *manifest { &MANIFEST_DIGEST } else { &other }))
        }).collect();
        let expected = requirements.iter().all(|r| r == "any" || (r != "reject" && r != "base"
            && signatures.iter().any(|(key, name, manifest)| r.contains(key.as_str()) && *name && *manifest)));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        proptest::prop_assert_eq!(ask(&texts, &blobs) == "accepted", expected);
    }
}

static MANIFEST_DIGEST: std::sync::LazyLock<Digest> = std::sync::LazyLock::new(digest);
