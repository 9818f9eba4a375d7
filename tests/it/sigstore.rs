//! Sigstore signatures by public keys, with and without a log: what is accepted, and that every
//! forgery is not. Certificates are in `certificates`.

mod certificates;
mod constraints;
mod support;

use countersign::image::Digest;
use countersign::signature::{SET_ANNOTATION, SIGNATURE_ANNOTATION, SigstoreAttachment};
use countersign::sigstore::{RekorError, SigstoreError, TrustRoot, TrustRootError, TrustedSigner, Verifier, verify};
use rcgen::KeyPair;
use serde_json::{Value, json};

use support::{NOW, REFERENCE, at, body, data, encode, key, payload, set, set_of, signed, with};

const KINDS: [&str; 5] = ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "ed25519"];

fn keys<K: AsRef<[u8]>>(pems: impl IntoIterator<Item = K>) -> TrustRoot {
    let pems = pems.into_iter().map(|pem| pem.as_ref().to_vec()).collect();
    TrustRoot { signer: TrustedSigner::Keys(pems), rekor_keys: None }
}

fn logged<K: AsRef<[u8]>>(pems: impl IntoIterator<Item = K>, logs: &[&KeyPair]) -> TrustRoot {
    let logs = logs.iter().map(|log| log.public_key_pem().into_bytes()).collect();
    TrustRoot { rekor_keys: Some(logs), ..keys(pems) }
}

fn refusal(blob: &SigstoreAttachment, root: &TrustRoot) -> String {
    verify(blob, root, at(NOW)).unwrap_err().to_string()
}

#[test]
fn openssl_signatures_of_every_kind_are_accepted() {
    let manifest = data("manifest.json");
    for kind in KINDS {
        let blob = support::stored(&data(&format!("{kind}.signature-1")));
        let own = data(&format!("{kind}.pub"));
        let verified = verify(&blob, &keys([&own]), at(NOW)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(verified.claim.reference, REFERENCE);
        assert_eq!(verified.claim.digest, Digest::sha256(&manifest));
        assert_eq!(verified.claim.creator.as_deref(), Some("containers/image 5.36.0"));
        assert_eq!((verified.claim.timestamp, verified.logged_at), (Some(NOW), None));

        let mut all: Vec<_> = KINDS.iter().map(|kind| data(&format!("{kind}.pub"))).collect();
        assert_eq!(verify(&blob, &keys(&all), at(NOW)).unwrap(), verified, "one of many keys");
        all.retain(|key| *key != own);
        let error = verify(&blob, &keys(&all), at(NOW)).unwrap_err();
        assert!(matches!(&error, SigstoreError::Unverified(reasons) if reasons.len() == 4), "{kind}: {error}");
    }
    let blob = support::stored(&data("rsa-2048.signature-1"));
    assert!(verify(&blob, &keys([data("rsa-2048.pkcs1.pub")]), at(NOW)).is_ok(), "PKCS #1 form");
}

#[test]
fn every_flipped_bit_is_noticed() {
    for kind in KINDS {
        let blob = support::stored(&data(&format!("{kind}.signature-1")));
        let verifier = Verifier::new(&keys([data(&format!("{kind}.pub"))])).unwrap();
        let accepted = |blob: &SigstoreAttachment| verifier.verify(blob, at(NOW)).is_ok();
        assert!(accepted(&blob));
        let signature = base64_of(&blob.annotations[SIGNATURE_ANNOTATION]);
        for bit in 0..signature.len() * 8 {
            let mut forged = signature.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !accepted(&with(blob.clone(), SIGNATURE_ANNOTATION, encode(&forged))),
                "{kind}: signature bit {bit}"
            );
        }
        for byte in 0..blob.payload.len() {
            let mut forged = blob.clone();
            forged.payload[byte] ^= 1 << (byte % 8);
            assert!(!accepted(&forged), "{kind}: payload byte {byte}");
        }
        for cut in [0, 1, signature.len() / 2, signature.len() - 1] {
            assert!(
                !accepted(&with(blob.clone(), SIGNATURE_ANNOTATION, encode(&signature[..cut]))),
                "{kind}: cut {cut}"
            );
        }
        let longer = [signature.as_slice(), &[0]].concat();
        assert!(!accepted(&with(blob.clone(), SIGNATURE_ANNOTATION, encode(&longer))), "{kind}: longer");
        let doubled = signature.repeat(2);
        assert!(!accepted(&with(blob.clone(), SIGNATURE_ANNOTATION, encode(&doubled))), "{kind}: doubled");
    }
}

fn base64_of(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn refusals_say_why() {
    let signer = key();
    let root = keys([signer.public_key_pem()]);
    let blob = signed(&signer, &payload());
    assert!(verify(&blob, &root, at(NOW)).is_ok());

    let mut other = blob.clone();
    other.mime_type = "application/json".to_owned();
    assert_eq!(refusal(&other, &root), "sigstore attachment of type \"application/json\" is no image signature");
    let mut other = blob.clone();
    other.annotations.clear();
    assert_eq!(refusal(&other, &root), "missing dev.cosignproject.cosign/signature annotation");
    let other = with(blob.clone(), SIGNATURE_ANNOTATION, "&");
    assert_eq!(refusal(&other, &root), "base64 decoding: illegal base64 data at input byte 0");
    assert_eq!(
        refusal(&blob, &keys([key().public_key_pem(), key().public_key_pem()])),
        "cryptographic signature verification failed: invalid signature when validating ASN.1 encoded signature, invalid signature when validating ASN.1 encoded signature"
    );
    // Good signatures over what is no claim.
    for (payload, reason) in [
        (&b"&"[..], "invalid character '&' looking for beginning of value"),
        (b"{}", "Key \"critical\" missing in a JSON object"),
    ] {
        assert_eq!(refusal(&signed(&signer, payload), &root), reason);
    }
    // A claim of simple signing, signed by a sigstore key, stays none.
    let atomic = String::from_utf8(payload()).unwrap().replace("cosign container image", "atomic container");
    let error = refusal(&signed(&signer, atomic.as_bytes()), &root);
    assert_eq!(error, "Unrecognized signature type atomic container signature");
    // PSS padding by the right RSA key.
    let pss = support::stored(&data("rsa-2048-pss.signature-1"));
    let error = refusal(&pss, &keys([data("rsa-2048.pub")]));
    assert_eq!(error, "cryptographic signature verification failed: crypto/rsa: verification error");
}

#[test]
fn one_bad_key_spoils_the_trust_root() {
    let good = data("ecdsa-p256.pub");
    let blob = support::stored(&data("ecdsa-p256.signature-1"));
    for (bad, reason) in [
        (b"no key".to_vec(), "parsing public key 2: PEM decoding failed"),
        (
            data("rsa-1024.pub"),
            "parsing public key 2: unsupported RSA public key: 1024 bits; 2048 to 8192 are supported",
        ),
        (
            data("ecdsa-p224.pub"),
            "parsing public key 2: unsupported public key type: algorithm ECDSA on curve 1.3.132.0.33;",
        ),
        (data("x25519.pub"), "parsing public key 2: unsupported public key type: algorithm 1.3.101.110;"),
        (
            key().serialize_pem().into_bytes(),
            "parsing public key 2: unknown Public key PEM file type: PRIVATE KEY. Are you passing the correct public key?",
        ),
    ] {
        let error = refusal(&blob, &keys([good.clone(), bad]));
        assert!(error.starts_with(reason), "{error}");
    }
    let none: [&[u8]; 0] = [];
    assert_eq!(Verifier::new(&keys(none)).unwrap_err(), TrustRootError::NoKeys);
    // Only the first block of a file counts.
    let two = [data("ed25519.pub"), good].concat();
    assert!(matches!(verify(&blob, &keys([two]), at(NOW)), Err(SigstoreError::Unverified(_))));
}

#[test]
fn a_log_must_vouch_when_it_is_asked() {
    let (signer, log) = (key(), key());
    let blob = signed(&signer, &payload());
    let own = signer.public_key_pem();
    let good = with(blob.clone(), SET_ANNOTATION, set(&log, &body(&blob, &own), NOW));

    let root = logged([&own], &[&log]);
    let verified = verify(&good, &root, at(NOW)).unwrap();
    assert_eq!((verified.claim.reference.as_str(), verified.logged_at), (REFERENCE, Some(NOW)));
    assert!(verify(&good, &logged([&own], &[&key(), &log]), at(NOW)).is_ok(), "one of two logs");
    assert!(verify(&good, &logged([&key().public_key_pem(), &own], &[&log]), at(NOW)).is_ok(), "one of two keys");
    assert!(verify(&blob, &keys([&own]), at(NOW)).is_ok(), "no log asked");

    assert_eq!(refusal(&blob, &root), "missing dev.sigstore.cosign/bundle annotation");
    let unverified =
        "No public key verified against the RekorSET: cryptographic signature verification of Rekor SET failed";
    assert_eq!(refusal(&good, &logged([&own], &[&key()])), unverified, "another log");
    assert_eq!(
        refusal(&with(blob.clone(), SET_ANNOTATION, "{}"), &root),
        "No public key verified against the RekorSET: Key \"SignedEntryTimestamp\" missing in a JSON object"
    );

    let rsa = TrustRoot { rekor_keys: Some(vec![data("rsa-2048.pub")]), ..keys([&own]) };
    assert_eq!(refusal(&good, &rsa), "Rekor public key 1 is not using ECDSA");
    let broken = TrustRoot { rekor_keys: Some(vec![Vec::new()]), ..keys([&own]) };
    assert_eq!(refusal(&good, &broken), "parsing Rekor public key 1: PEM decoding failed");
    let none = TrustRoot { rekor_keys: Some(Vec::new()), ..keys([&own]) };
    assert_eq!(Verifier::new(&none).unwrap_err(), TrustRootError::NoRekorKeys);
}

#[test]
fn the_log_vouches_for_one_signature_only() {
    let (signer, log) = (key(), key());
    let blob = signed(&signer, &payload());
    let own = signer.public_key_pem();
    let root = logged([&own], &[&log]);
    let good = body(&blob, &own);
    let under = |body: &Value| with(blob.clone(), SET_ANNOTATION, set(&log, body, NOW));
    assert!(verify(&under(&good), &root, at(NOW)).is_ok());

    let change = |at: &str, to: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(at).unwrap() = to;
        changed
    };
    let spec = "/spec/signature/publicKey/content";
    let other_hash = json!("aa".repeat(32));
    let twice = encode(own.repeat(2).as_bytes());
    for (body, reason) in [
        (change(spec, json!(encode(key().public_key_pem().as_bytes()))), RekorError::KeyMismatch),
        (change(spec, json!(encode(b"no PEM"))), RekorError::LoggedNotPem),
        (change(spec, json!("")), RekorError::LoggedNotPem),
        (change(spec, json!(twice)), RekorError::LoggedTrailing),
        (change(spec, json!(encode(format!("{own}\n").as_bytes()))), RekorError::LoggedTrailing),
        (change("/spec/signature/content", json!(encode(b"another"))), RekorError::SignatureMismatch),
        (change("/spec/signature/content", Value::Null), RekorError::SignatureMismatch),
        (change("/spec/data/hash/value", other_hash), RekorError::PayloadMismatch),
        (change("/spec/data/hash/algorithm", json!("sha512")), RekorError::HashAlgorithm("sha512".to_owned())),
        (change("/apiVersion", json!("0.0.2")), RekorError::Version("0.0.2".to_owned())),
        (change("/apiVersion", Value::Null), RekorError::NoVersion),
        (change("/spec/data", Value::Null), RekorError::Missing("data")),
        (change("/kind", json!("rekord")), RekorError::Body("invalid kind value: \"rekord\"".to_owned())),
    ] {
        assert_eq!(verify(&under(&body), &root, at(NOW)), Err(SigstoreError::NotLogged(vec![reason])), "{body}");
    }

    // The SET of one signature under another, each good by itself.
    let other = signed(&signer, &[payload(), b"\n".to_vec()].concat());
    let borrowed = with(other, SET_ANNOTATION, under(&good).annotations[SET_ANNOTATION].clone());
    assert_eq!(verify(&borrowed, &root, at(NOW)), Err(SigstoreError::NotLogged(vec![RekorError::SignatureMismatch])));
}

#[test]
fn a_set_is_bound_to_every_letter_of_its_entry() {
    let (signer, log) = (key(), key());
    let blob = signed(&signer, &payload());
    let own = signer.public_key_pem();
    let root = logged([&own], &[&log]);
    let good = set(&log, &body(&blob, &own), NOW);
    let verifier = Verifier::new(&root).unwrap();
    let accepted = |set: &str| verifier.verify(&with(blob.clone(), SET_ANNOTATION, set), at(NOW)).is_ok();
    assert!(accepted(&good));

    // Spelled otherwise, the entry is the same: its canonical form was signed.
    let entry = good.split_once("\"Payload\":").unwrap().1.strip_suffix('}').unwrap();
    let parsed: Value = serde_json::from_str(entry).unwrap();
    let respelled = format!(
        "{{ \"logIndex\": 8.949589e6,\n \"logID\": \"c0d23d6ad406973\\u0066\", \"integratedTime\": {NOW}.0, \"body\": {} }}",
        parsed["body"]
    );
    assert!(accepted(&good.replace(entry, &respelled)));

    assert!(!accepted(&good.replace(&NOW.to_string(), &(NOW + 1).to_string())), "another time");
    assert!(!accepted(&good.replace("8949589", "8949580")), "another place in the log");
    assert!(!accepted(&good.replace("c0d2", "c0d3")), "another log");
    assert!(!accepted(&good.replace("\"logIndex\"", "\"x\":1,\"logIndex\"")), "more members");
    assert!(!accepted(&set_of(&key(), entry, entry)), "signed by another");
    assert!(!accepted(&set_of(&log, &respelled, &respelled)), "signed over another form");
    let bytes = good.as_bytes();
    for at in 0..bytes.len() {
        // The lowest bits of base64's last letter before padding mean nothing, to Go as to us.
        if bytes.get(at + 1) == Some(&b'=') {
            continue;
        }
        let mut forged = bytes.to_vec();
        forged[at] ^= 1;
        if let Ok(forged) = String::from_utf8(forged) {
            assert!(!accepted(&forged), "byte {at}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_annotation_panics(set in "[{}\\[\\]\":,a-zA-Z0-9=]{0,80}", text in ".{0,80}", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
        let root = TrustRoot { rekor_keys: Some(vec![data("ecdsa-p256.pub")]), ..keys([data("rsa-2048.pub")]) };
        let verifier = Verifier::new(&root).unwrap();
        let mut blob = support::stored(&data("rsa-2048.signature-1"));
        blob.payload = bytes;
        for set in [set, text] {
            let blob = with(with(blob.clone(), SET_ANNOTATION, set.clone()), SIGNATURE_ANNOTATION, set);
            proptest::prop_assert!(verifier.verify(&blob, at(NOW)).is_err());
        }
    }
}
