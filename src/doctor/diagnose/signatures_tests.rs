//! Every refusal of a signature, and what is told about it.

use std::time::{Duration, SystemTime};

use super::super::testing::{Case, names, requirements, verdict};
use super::*;
use crate::doctor::diagnose;
use crate::doctor::observation::{AttachmentsSeen, Untrusted};
use crate::image::Digest;
use crate::lookup::OpenPgp;
use crate::openpgp::{Signer as _, SoftSigner};
use crate::policy::KeySource;
use crate::signature::Claim;

const IMAGE: &str = "us.icr.io/birds/bluebird:build1";

fn key(name: &str, part: &str) -> std::path::PathBuf {
    format!("{}/tests/data/keys/{name}.{part}.asc", env!("CARGO_MANIFEST_DIR")).into()
}

fn faulty(fault: Fault, keys: KeySource) -> Case {
    let untrusted = Some(Untrusted { reference: "x/y:z".into(), key: "ABCD".into() });
    let verdict = verdict(Some(Reason::Claim(crate::signature::ClaimError::Empty)));
    let files = crate::doctor::walk::key_files(&keys);
    Case::new(IMAGE).rejected(SignatureSeen { verdict, fault: Some(KeyFault { fault, keys, files }), untrusted })
}

fn mismatched(reason: Reason) -> Case {
    Case::new(IMAGE).rejected(SignatureSeen { verdict: verdict(Some(reason)), fault: None, untrusted: None })
}

#[test]
fn keys_that_do_not_do() {
    let claim =
        Claim { reference: IMAGE.to_owned(), digest: Digest::sha256(b"manifest"), creator: None, timestamp: None };
    let now = SystemTime::now();
    let signer = SoftSigner::load(&std::fs::read(key("alice", "sec")).unwrap(), None, now).unwrap();
    let message = signer.sign(&claim.render().unwrap(), now).unwrap();
    let examine = |keys: KeySource| {
        let fault = OpenPgp::at(now).examine(&message, &keys).unwrap_err();
        (names(&faulty(fault.clone(), keys.clone()).seen), diagnose(&faulty(fault, keys).seen).remove(0))
    };
    let (found, finding) = examine(KeySource::Path(key("bob", "pub")));
    assert_eq!(found, ["key-missing"]);
    assert!(finding.fix.contains("gpg --export ") && finding.fix.contains("bob.pub.asc.new"), "{}", finding.fix);
    assert!(!finding.fix.lines().any(|line| line.ends_with("> bob.pub.asc") || line.contains(">>")), "{}", finding.fix);
    assert!(finding.sentence.contains("unverified: x/y:z by ABCD"), "{}", finding.sentence);
    assert_eq!(examine(KeySource::Data(b"rubbish".to_vec())).0, ["keyring-empty"]);
    assert_eq!(examine(KeySource::Path("/nowhere".into())).0, ["keyring-unreadable"]);
    assert!(OpenPgp::at(now).examine(&message, &KeySource::Path(key("alice", "pub"))).is_ok());
    assert_eq!(
        names(
            &faulty(
                OpenPgp::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
                    .examine(&message, &KeySource::Path(key("alice", "pub")))
                    .unwrap_err(),
                KeySource::Path(key("alice", "pub"))
            )
            .seen
        ),
        ["key-unusable"]
    );
}

#[test]
fn each_fault_has_its_name() {
    let fingerprint = || crate::openpgp::Fingerprint::parse(&"A".repeat(40)).unwrap();
    let at = jiff::Timestamp::from_second(0).unwrap();
    for (error, name) in [
        (VerifyError::Key(Standing::Expired { key: fingerprint(), at }), "key-expired"),
        (VerifyError::Key(Standing::Revoked { key: fingerprint() }), "key-revoked"),
        (VerifyError::Key(Standing::Weak { key: fingerprint(), algorithm: "RSA", bits: 1024 }), "signature-weak"),
        (VerifyError::Key(Standing::CannotSign { key: fingerprint() }), "key-unusable"),
        (VerifyError::Sha1, "signature-weak"),
        (VerifyError::WeakHash("MD5"), "signature-weak"),
        (VerifyError::Expired { at }, "signature-expired"),
        (VerifyError::Bad { key: fingerprint() }, "signature-broken"),
        (VerifyError::NoIssuer, "signature-broken"),
    ] {
        let case = faulty(Fault::Verify(error), KeySource::Path("/keys/alice.asc".into()));
        assert_eq!(names(&case.seen), [name]);
        let finding = diagnose(&case.seen).remove(0);
        assert!(!finding.fix.is_empty() && finding.sentence.contains("/keys/alice.asc"), "{finding:?}");
    }
}

#[test]
fn names_that_differ() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let domain = |old: &str, new: &str| Names::Domain { old: old.to_owned(), new: new.to_owned() };
    let prefix = |prefix: &str, signed_prefix: &str| Names::Prefix {
        prefix: prefix.to_owned(),
        signed_prefix: signed_prefix.to_owned(),
    };
    for (image, claimed, expected) in [
        (IMAGE, "registry.ng.bluemix.net/birds/bluebird:build1", domain("registry.ng.bluemix.net", "us.icr.io")),
        (IMAGE, "us.icr.io:443/birds/bluebird:build1", domain("us.icr.io:443", "us.icr.io")),
        (&format!("us.icr.io/a/b@{digest}"), "old.x/a/b:any", domain("old.x", "us.icr.io")),
        (IMAGE, "registry.ng.bluemix.net/birds/bluebird:build2", Names::Other),
        (IMAGE, "us.icr.io/birds/bluebird:build2", Names::Other),
        (IMAGE, "us.icr.io/birds/bluejay:build1", Names::Other),
        (IMAGE, "registry.ng.bluemix.net/birds/bluebird", Names::Other),
        (IMAGE, "not a name!", Names::Other),
        (
            "mirror.x:5000/vendor/ns/img:1",
            "vendor.example.com/ns/img:1",
            prefix("mirror.x:5000/vendor", "vendor.example.com"),
        ),
        ("mirror.x/hub/img:1", "docker.io/library/img:1", prefix("mirror.x/hub", "docker.io/library")),
        ("mirror.x/one/img:1", "mirror.x/two/img:1", prefix("mirror.x/one", "mirror.x/two")),
    ] {
        assert_eq!(compare(&Reference::parse(image).unwrap(), claimed), expected, "{image} {claimed}");
    }
}

#[test]
fn an_old_domain_is_signed_again() {
    let case = mismatched(Reason::Identity("registry.ng.bluemix.net/birds/bluebird:build1".into()));
    assert_eq!(names(&case.seen), ["old-domain"]);
    let finding = diagnose(&case.seen).remove(0);
    assert!(
        finding.fix.contains(
            "countersign resign --from STORE --to STORE --rename registry.ng.bluemix.net=us.icr.io --policy \
             /etc/containers/policy.json --key NEW-KEY.asc"
        ),
        "{}",
        finding.fix
    );
}

#[test]
fn a_copy_is_remapped() {
    let mut case = mismatched(Reason::Identity("vendor.example.com/bluebird:build1".into()));
    assert_eq!(names(&case.seen), ["mirror-path-differs"]);
    insta::assert_snapshot!(diagnose(&case.seen)[0].fix, @r#"
    # /etc/containers/policy.json, below "transports", "docker"
    "us.icr.io/birds": [
      {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/keys/alice.asc",
       "signedIdentity": {"type": "remapIdentity", "prefix": "us.icr.io/birds", "signedPrefix": "vendor.example.com"}}
    ]
    "#);
    case.seen.requirements = requirements(r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"AAAA"}"#);
    assert!(diagnose(&case.seen)[0].fix.contains("\"keyData\": \"AS BEFORE\""));
}

#[test]
fn other_things_are_signed() {
    assert_eq!(names(&mismatched(Reason::Identity("other.x/y:z".into())).seen), ["signed-for-another-name"]);
    let other = Digest::sha256(b"other");
    let case = mismatched(Reason::Digest(other.clone()));
    assert_eq!(names(&case.seen), ["signed-for-another-digest"]);
    let finding = diagnose(&case.seen).remove(0);
    assert!(finding.sentence.contains(&other.to_string()));
    assert!(finding.fix.contains(&Digest::sha256(b"manifest").to_string()));
}

#[test]
fn policies_that_do_not_look() {
    let mut case = Case::new(IMAGE).accepted();
    case.seen.requirements = requirements(r#"{"type":"insecureAcceptAnything"}"#);
    assert_eq!(names(&case.seen), ["note: signatures-not-required"]);
    let mut case = Case::new(IMAGE);
    case.seen.requirements = requirements(r#"{"type":"reject"}"#);
    assert_eq!(names(&case.seen), ["rejected-by-policy"]);
    case.seen.requirements = requirements(r#"{"type":"sigstoreSigned","keyData":"AAAA"}"#);
    case.place().attachments.unread = Some(2);
    assert_eq!(names(&case.seen), ["attachments-not-used"]);
    case.place().attachments = AttachmentsSeen { enabled: true, result: Some(Ok(0)), ..AttachmentsSeen::default() };
    assert_eq!(names(&case.seen), ["attachment-missing"]);
    case.place().attachments.result = Some(Err("404".into()));
    assert!(names(&case.seen).contains(&"attachments-unreadable".to_owned()));
}

#[test]
fn subkeys_are_noted() {
    let mut case = Case::new(IMAGE).accepted();
    let judged = case.seen.judged.as_mut().unwrap();
    judged.signatures[0].verdict.signing_key = Some("BBBB".into());
    assert_eq!(names(&case.seen), ["note: subkey-signature"]);
    // Where a primary key signed too, older clients have what they need.
    let judged = case.seen.judged.as_mut().unwrap();
    judged.signatures.push(SignatureSeen { verdict: verdict(None), fault: None, untrusted: None });
    assert!(names(&case.seen).is_empty());
}
