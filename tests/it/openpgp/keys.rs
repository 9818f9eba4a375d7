//! The standing of keys: expiry, revocation, capability, strength. Judged now, whenever it signed.

use std::time::{Duration, SystemTime};

use countersign::openpgp::{KeyFault, Keyring, SignError, SoftSigner, VerifyError, VerifyOptions, inspect, verify};
use sequoia_openpgp::cert::{CertBuilder, CertRevocationBuilder};
use sequoia_openpgp::packet::signature::SignatureBuilder;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::{HashAlgorithm, ReasonForRevocation, SignatureType};
use sequoia_openpgp::{Cert, Packet};

use super::craft::{Craft, Key};
use super::gpg::{Home, key};
use super::{CLAIM, check, now};

const OLD: [&str; 2] = ["--faked-system-time", "20240101T000000!"];

fn fault(result: Result<countersign::openpgp::Verified, VerifyError>) -> KeyFault {
    match result {
        Err(VerifyError::Key(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_that_expired_since() {
    let home = Home::new();
    let fingerprint = home.generate(&OLD, "Old <old@example.com>", "rsa2048", "sign", "2024-06-01");
    let message = home.ok(&["--faked-system-time", "20240201T000000", "--sign"], CLAIM);
    let public = home.public(&fingerprint);
    let found = fault(check(&message, &public));
    assert!(matches!(&found, KeyFault::Expired { key, .. } if key.as_str() == fingerprint), "{found}");
    assert!(found.to_string().contains("expired on 2024-06-01"), "{found}");
    assert!(home.accepts(&message).is_none() && inspect(&message).is_ok());
    let then = VerifyOptions::at(inspect(&message).unwrap().created.unwrap().into());
    verify(&message, &Keyring::parse([&public]), &then).unwrap();

    let secret = home.secret(&fingerprint);
    let error = SoftSigner::load(&secret, None, SystemTime::now()).unwrap_err();
    assert!(matches!(error, SignError::Key(KeyFault::Expired { .. })), "{error}");
    // Loaded while valid, used too late.
    let signer = SoftSigner::load(&secret, None, then.at).unwrap();
    let late = countersign::openpgp::Signer::sign(&signer, CLAIM, SystemTime::now()).unwrap_err();
    assert!(matches!(late, SignError::Key(KeyFault::Expired { .. })), "{late}");

    // Extended by its owner, and with the new public key the old signature counts again.
    home.ok(&["--quick-set-expire", &fingerprint, "2y"], b"");
    check(&message, &home.public(&fingerprint)).unwrap();
    let merged = Keyring::parse([home.public(&fingerprint), public]);
    verify(&message, &merged, &now()).unwrap();
}

#[test]
fn nothing_made_after_expiry_counts_as_of_an_earlier_time() {
    let home = Home::new();
    let fingerprint = home.generate(&OLD, "Old <old@example.com>", "rsa2048", "sign", "2024-06-01");
    let public = home.public(&fingerprint);
    // Whoever has found an expired key can extend it for himself, but not in our keyring.
    home.ok(&["--faked-system-time", "20240501T000000", "--quick-set-expire", &fingerprint, "2y"], b"");
    for (made, good) in [("20240301T000000", true), ("20240801T000000", false)] {
        let message = home.ok(&["--faked-system-time", made, "--sign"], CLAIM);
        let as_of = SystemTime::UNIX_EPOCH + Duration::from_secs(1_711_929_600); // 2024-04-01
        let verified = verify(&message, &Keyring::parse([&public]), &VerifyOptions::at(as_of));
        assert_eq!(verified.is_ok(), good, "{verified:?}");
        assert!(good || matches!(verified, Err(VerifyError::YoungerThanKey { .. })));
    }
}

#[test]
fn a_subkey_that_expired_or_was_revoked_and_its_primary_did_not() {
    let home = Home::new();
    let fingerprint = home.generate(&OLD, "Sub <sub@example.com>", "ed25519", "cert", "never");
    let subkey = home.add_subkey(&OLD, &fingerprint, "ed25519", "sign", "2024-06-01");
    let message = home.ok(&["--faked-system-time", "20240201T000000", "--sign"], CLAIM);
    let found = fault(check(&message, &home.public(&fingerprint)));
    assert!(matches!(&found, KeyFault::Expired { key, .. } if key.as_str() == subkey), "{found}");

    home.ok(&["--quick-set-expire", &fingerprint, "2y", &subkey], b"");
    check(&message, &home.public(&fingerprint)).unwrap();
    // Reason 3, no longer used: a soft revocation; it counts all the same.
    let script = b"key 1\nrevkey\ny\n3\n\ny\nsave\n";
    home.ok(&["--no-batch", "--command-fd", "0", "--edit-key", &fingerprint], script);
    let public = home.public(&fingerprint);
    let found = fault(check(&message, &public));
    assert!(matches!(&found, KeyFault::Revoked { key } if key.as_str() == subkey), "{found}");
    assert!(home.accepts(&message).is_none());
    let error = SoftSigner::load(&home.secret(&fingerprint), None, SystemTime::now()).unwrap_err();
    assert!(matches!(error, SignError::Key(KeyFault::Revoked { .. })), "{error}");
}

#[test]
fn revoked_keys_for_every_reason() {
    for reason in ["0", "1", "2", "3"] {
        let home = Home::new();
        let fingerprint = home.generate(&OLD, "Rev <rev@example.com>", "ed25519", "sign", "never");
        let message = home.ok(&["--faked-system-time", "20240201T000000", "--sign"], CLAIM);
        let before = home.public(&fingerprint);
        check(&message, &before).unwrap();
        let script = format!("y\n{reason}\n\ny\n");
        let revocation = home.ok(&["--no-batch", "--command-fd", "0", "--gen-revoke", &fingerprint], script.as_bytes());
        home.ok(&["--import"], &revocation);
        let after = home.public(&fingerprint);
        for keyring in [vec![&after], vec![&before, &after], vec![&after, &before]] {
            // Also at a time before the revocation, and before the key's newer self-signatures.
            for at in [SystemTime::now(), inspect(&message).unwrap().created.unwrap().into()] {
                let found = fault(verify(&message, &Keyring::parse(&keyring), &VerifyOptions::at(at)));
                assert!(matches!(&found, KeyFault::Revoked { key } if key.as_str() == fingerprint), "{found}");
            }
        }
        assert!(home.accepts(&message).is_none(), "{reason}");
        let error = SoftSigner::load(&home.secret(&fingerprint), None, SystemTime::now()).unwrap_err();
        assert!(error.to_string().contains("revoked"), "{error}");
    }
}

#[test]
fn a_designated_revoker_counts_if_its_key_is_there() {
    let (revoker, _) = CertBuilder::new().add_userid("revoker").generate().unwrap();
    let (cert, _) =
        CertBuilder::general_purpose(Some("revoked")).set_revocation_keys(vec![(&revoker).into()]).generate().unwrap();
    let secret = cert.as_tsk().to_vec().unwrap();
    let signer = SoftSigner::load(&secret, None, SystemTime::now()).unwrap();
    let message = countersign::openpgp::Signer::sign(&signer, CLAIM, SystemTime::now()).unwrap();
    let mut pair = revoker.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let revocation = CertRevocationBuilder::new()
        .set_reason_for_revocation(ReasonForRevocation::KeyRetired, b"")
        .unwrap()
        .build(&mut pair, &cert, None)
        .unwrap();
    let revoked = cert.clone().insert_packets(revocation).unwrap().0.to_vec().unwrap();
    let revoker = revoker.to_vec().unwrap();
    verify(&message, &Keyring::parse([&cert.to_vec().unwrap(), &revoker]), &now()).unwrap();
    verify(&message, &Keyring::parse([&revoked]), &now()).unwrap();
    let found = fault(verify(&message, &Keyring::parse([&revoked, &revoker]), &now()));
    assert!(matches!(found, KeyFault::Revoked { .. }));
}

#[test]
fn keys_that_are_not_meant_for_signing() {
    let home = Home::new();
    let fingerprint = home.generate(&OLD, "Cert <cert@example.com>", "rsa2048", "cert", "never");
    home.add_subkey(&OLD, &fingerprint, "rsa2048", "encr", "never");
    let exported = home.exported(&fingerprint);
    for index in [0, 1] {
        let crafted = Key::of(&exported, index);
        let message = Craft::ordinary(&crafted).message(&crafted, CLAIM);
        let found = fault(check(&message, &exported.public));
        assert!(matches!(found, KeyFault::CannotSign { .. }), "{found}");
    }
    let error = SoftSigner::load(&exported.secret, None, SystemTime::now()).unwrap_err();
    assert!(matches!(error, SignError::Key(KeyFault::CannotSign { .. })), "{error}");
}

#[test]
fn a_primary_key_without_flags_may_sign_and_a_subkey_may_not() {
    let policy = StandardPolicy::new();
    let (cert, _) = CertBuilder::new().add_userid("x").add_signing_subkey().generate().unwrap();
    let primary = cert.primary_key().key().clone().parts_into_secret().unwrap();
    let mut pair = primary.clone().into_keypair().unwrap();
    let userid = cert.userids().next().unwrap();
    let certification = SignatureBuilder::new(SignatureType::PositiveCertification)
        .sign_userid_binding(&mut pair, cert.primary_key().key(), userid.userid())
        .unwrap();
    let subkey = cert.keys().subkeys().next().unwrap().key().clone();
    let binding = SignatureBuilder::new(SignatureType::SubkeyBinding)
        .sign_subkey_binding(&mut pair, cert.primary_key().key(), &subkey)
        .unwrap();
    let bare = Cert::from_packets(
        vec![
            Packet::from(primary),
            userid.userid().clone().into(),
            certification.into(),
            subkey.clone().parts_into_secret().unwrap().into(),
            binding.into(),
        ]
        .into_iter(),
    )
    .unwrap();
    assert!(bare.with_policy(&policy, None).unwrap().primary_key().key_flags().is_none());
    let exported = super::gpg::Exported {
        fingerprint: bare.fingerprint().to_hex(),
        public: bare.to_vec().unwrap(),
        secret: bare.as_tsk().to_vec().unwrap(),
    };
    let recent = u32::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let sign = |index| {
        let crafted = Key::of(&exported, index);
        let hashed = super::craft::sub(2, &recent.to_be_bytes());
        check(&Craft { hashed, ..Craft::ordinary(&crafted) }.message(&crafted, CLAIM), &exported.public)
    };
    assert_eq!(sign(0).unwrap().signer.as_str(), exported.fingerprint);
    assert!(matches!(fault(sign(1)), KeyFault::CannotSign { .. }));
}

#[test]
fn a_subkey_stolen_from_another_key_proves_nothing() {
    // Mallory binds Alice's signing subkey to a key of her own; Alice's signature is not Mallory's.
    let (alice, _) = CertBuilder::new().add_userid("alice").add_signing_subkey().generate().unwrap();
    let (mallory, _) = CertBuilder::new().add_userid("mallory").generate().unwrap();
    let mut pair = mallory.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let stolen = alice.keys().subkeys().next().unwrap().key().clone();
    let theirs = alice.keys().subkeys().next().unwrap();
    let original = theirs.self_signatures().next().unwrap();
    let flags = original.key_flags().unwrap();
    let binding = SignatureBuilder::new(SignatureType::SubkeyBinding)
        .set_key_flags(flags)
        .unwrap()
        .set_embedded_signature(original.embedded_signatures().next().unwrap().clone())
        .unwrap()
        .sign_subkey_binding(&mut pair, mallory.primary_key().key(), &stolen)
        .unwrap();
    let public: Vec<Packet> = vec![stolen.clone().take_secret().0.into(), binding.into()];
    let mallory = mallory.insert_packets(public).unwrap().0;
    let only_sub = alice.as_tsk().to_vec().unwrap();
    let signer = SoftSigner::load(&only_sub, None, SystemTime::now() + Duration::from_secs(1)).unwrap();
    assert_eq!(signer.signing_key().as_str(), stolen.fingerprint().to_hex());
    let message = countersign::openpgp::Signer::sign(&signer, CLAIM, SystemTime::now()).unwrap();
    let (alice, mallory) = (alice.to_vec().unwrap(), mallory.to_vec().unwrap());
    assert!(matches!(fault(check(&message, &mallory)), KeyFault::Invalid { .. }));
    for both in [[&alice, &mallory], [&mallory, &alice]] {
        let verified = verify(&message, &Keyring::parse(both), &now()).unwrap();
        assert_eq!(Some(verified.signer), Keyring::parse([&alice]).fingerprints().first().cloned());
    }
}

#[test]
fn weak_keys_by_switch_only() {
    for algorithm in ["rsa1024", "dsa1024"] {
        let home = Home::new();
        let fingerprint = home.generate(&OLD, "Weak <weak@example.com>", algorithm, "sign", "never");
        let message = home.ok(&["--digest-algo", "SHA256", "--sign"], CLAIM);
        let public = home.public(&fingerprint);
        let found = fault(check(&message, &public));
        assert!(matches!(found, KeyFault::Weak { bits: 1024, .. }), "{found}");
        let allowed = VerifyOptions { allow_weak_keys: true, ..now() };
        let verified = verify(&message, &Keyring::parse([&public]), &allowed).unwrap();
        assert_eq!(verified.warnings.len(), 1);
        let error = SoftSigner::load(&home.secret(&fingerprint), None, SystemTime::now()).unwrap_err();
        assert!(matches!(error, SignError::Key(KeyFault::Weak { .. })), "{error}");
    }
}

#[test]
fn old_keys_with_sha1_self_signatures_are_keys() {
    let home = Home::new();
    let options = [&OLD[..], &["--cert-digest-algo", "SHA1"]].concat();
    let fingerprint = home.generate(&options, "Sha1 <sha1@example.com>", "rsa2048", "sign", "never");
    let public = home.public(&fingerprint);
    let cert = Cert::from_bytes(&public).unwrap();
    let binding = cert.userids().next().unwrap().self_signatures().next().unwrap();
    assert_eq!(binding.hash_algo(), HashAlgorithm::SHA1);
    check(&home.ok(&["--digest-algo", "SHA256", "--sign"], CLAIM), &public).unwrap();
}

#[test]
fn keys_of_the_future_and_the_far_past() {
    let rsa = key("rsa2048");
    let home = Home::with(&[rsa]);
    let message = home.ok(&["--sign"], CLAIM);
    let keyring = Keyring::parse([&rsa.public]);
    for at in [
        super::gpg::key_time() - Duration::from_secs(60),
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH - Duration::from_secs(1),
    ] {
        let found = fault(verify(&message, &keyring, &VerifyOptions::at(at)));
        assert!(matches!(found, KeyFault::NotYetValid { .. }), "{found}");
    }
    // No algorithm goes out of fashion by the calendar alone.
    for kind in super::gpg::KINDS {
        let home = Home::with(&[key(kind)]);
        let message = home.ok(&["--sign"], CLAIM);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        verify(&message, &Keyring::parse([&key(kind).public]), &VerifyOptions::at(far)).unwrap();
    }
}
