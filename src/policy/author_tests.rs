//! Votes of requirements on one signature.

use super::*;
use crate::image::ImageReference;
use crate::policy::decision::tests::{Fake, MANIFEST, by, digest, payload, policy, signed};
use crate::policy::evidence::{ManifestEvidence, Origin};

const ANY: &str = r#"{"type":"insecureAcceptAnything"}"#;
const REJECT: &str = r#"{"type":"reject"}"#;
const BASE: &str = r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#;
const SIGSTORE: &str = r#"{"type":"sigstoreSigned","keyPath":"/k"}"#;

fn ask_about(requirements: &[&str], signature: &SignatureBlob) -> Result<AcceptedAuthor, String> {
    let reference = ImageReference::parse("testing/manifest:latest").unwrap();
    let image = Image::docker(&reference, ManifestEvidence::Bytes(MANIFEST));
    author_accepted(&policy(requirements), &image, signature, &Fake).map_err(|refusal| refusal.to_string())
}

fn ask(requirements: &[&str]) -> Result<String, String> {
    let good = signed('a', &payload("testing/manifest:latest", &digest()));
    ask_about(requirements, &good).map(|author| author.fingerprint)
}

#[test]
fn one_must_accept_and_none_reject() {
    let (a, ab, b) = (by("a"), by("ab"), by("b"));
    let yes = Ok("A".to_owned());
    assert_eq!(ask(&[&a]), yes);
    assert_eq!(ask(&[ANY, &a]), yes);
    assert_eq!(ask(&[&a, BASE, ANY]), yes);
    assert_eq!(ask(&[&a, &ab]), yes);
    // As an image it would need one signature a requirement; one signature alone fails here.
    assert_eq!(ask(&[&a, &b]), Err("Key not found for key ID a in signature".to_owned()));
    let nobody = "no signedBy requirement in scope default of the policy, so nobody vouches for the signature; add one with the signer's key";
    assert_eq!(ask(&[ANY]), Err(nobody.to_owned()));
    assert_eq!(ask(&[ANY, BASE]), Err(nobody.to_owned()));
    let rejected = "Any signatures for image docker://testing/manifest:latest are rejected by policy.";
    assert_eq!(ask(&[REJECT]), Err(rejected.to_owned()));
    assert_eq!(ask(&[&a, REJECT]), Err(rejected.to_owned()));
    assert_eq!(ask(&[&a, SIGSTORE]), Err("isSignatureAuthorAccepted is not implemented for sigstore".to_owned()));
}

#[test]
fn the_whole_claim_must_be_right() {
    let a = by("a");
    let wrong_name = signed('a', &payload("testing/manifest:other", &digest()));
    assert!(ask_about(&[&a], &wrong_name).unwrap_err().contains("identity"));
    let wrong_digest = signed('a', &payload("testing/manifest:latest", &crate::image::Digest::sha256(b"x")));
    assert!(ask_about(&[&a], &wrong_digest).unwrap_err().contains("does not match"));
    let good = signed('a', &payload("testing/manifest:latest", &digest()));
    let author = ask_about(&[&a], &good).unwrap();
    assert_eq!((author.claim.reference.as_str(), author.scope), ("testing/manifest:latest", ScopeMatch::Default));
    assert_eq!((author.claim.digest, author.signing_key.as_str(), author.created), (digest(), "a-sub", 7));
}

#[test]
fn other_things_are_no_signatures() {
    let blob = |bytes: &'static [u8]| SignatureBlob { origin: Origin::Url("u".to_owned()), bytes: bytes.into() };
    let a = by("a");
    assert_eq!(ask_about(&[&a], &blob(b"")), Err("parsing signature u: empty signature blob".to_owned()));
    let sigstore = ask_about(&[&a], &blob(b"\0sigstore-json\n{}"));
    assert_eq!(sigstore, Err("it is a sigstore signature, simple signing expected".to_owned()));
}
