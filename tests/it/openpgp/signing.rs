//! What we sign, gpg accepts; what we cannot sign with, is said.

use std::time::{Duration, SystemTime};

use countersign::openpgp::{Keyring, SignError, Signer, SoftSigner, VerifyOptions, inspect, verify};

use super::gpg::{Home, KINDS, key, key_time};
use super::{CLAIM, check};

fn load(secret: &[u8]) -> Result<SoftSigner, SignError> {
    SoftSigner::load(secret, None, SystemTime::now())
}

#[test]
fn gpg_accepts_every_signature_of_ours() {
    let keys: Vec<_> = KINDS.iter().map(|k| key(k)).collect();
    let home = Home::with(&keys);
    for exported in keys {
        let signer = load(&exported.secret).unwrap();
        assert_eq!(signer.fingerprint().as_str(), exported.fingerprint);
        for payload in [CLAIM, b"", b"\0\xFF\r\n", &[b' '; 10_000]] {
            let message = signer.sign(payload, SystemTime::now()).unwrap();
            assert_eq!(message[0], 0xC4);
            assert_eq!(home.accepts(&message), Some((payload.to_vec(), exported.fingerprint.clone())));
            let verified = check(&message, &exported.public).unwrap();
            let warnings = usize::from(exported.fingerprint == key("ed25519").fingerprint);
            assert_eq!((&verified.content[..], verified.warnings.len()), (payload, warnings));
            assert_eq!(inspect(&message).unwrap().fingerprint.as_ref(), Some(signer.fingerprint()));
        }
        let armoured = home.ok(&["--armor", "--export-secret-keys", &exported.fingerprint], b"");
        assert_eq!(load(&armoured).unwrap().fingerprint().as_str(), exported.fingerprint);
    }
}

#[test]
fn other_curves_and_lengths_too() {
    for algorithm in ["nistp384", "nistp521", "rsa4096", "dsa3072"] {
        let home = Home::new();
        let fingerprint = home.generate(&[], "Other <other@example.com>", algorithm, "sign", "never");
        let signer = load(&home.secret(&fingerprint)).unwrap();
        let message = signer.sign(CLAIM, SystemTime::now()).unwrap();
        assert_eq!(home.accepts(&message), Some((CLAIM.to_vec(), fingerprint.clone())), "{algorithm}");
        check(&message, &home.public(&fingerprint)).unwrap();
    }
}

#[test]
fn numbers_with_leading_zeros() {
    // One in 128 Ed25519 signatures and one in 256 RSA signatures has a number that begins with zero.
    for kind in ["ed25519", "rsa2048"] {
        let exported = key(kind);
        let home = Home::with(&[exported]);
        let signer = load(&exported.secret).unwrap();
        let keyring = Keyring::parse([&exported.public]);
        let usual = if kind == "rsa2048" { 2048 / 8 } else { 64 };
        let mut short = 0;
        let shortest = |message: &[u8]| message.len() - CLAIM.len() - 8;
        let full = (0..20).map(|n| shortest(&sign_number(&signer, n))).max().unwrap();
        for n in 0..1200 {
            let message = sign_number(&signer, n);
            if shortest(&message) < full {
                short += 1;
                assert!(verify(&message, &keyring, &VerifyOptions::at(SystemTime::now())).is_ok());
                assert!(home.accepts(&message).is_some(), "{kind} {n}");
            }
        }
        assert!(short > 0, "{kind}: none of {usual} octets minus one");
    }
}

/// Signs a claim with a number in it; the length of the payload stays the same.
fn sign_number(signer: &SoftSigner, n: u32) -> Vec<u8> {
    let payload = [CLAIM, format!("{n:08}").as_bytes()].concat();
    signer.sign(&payload, SystemTime::now()).unwrap()
}

#[test]
fn protected_keys_need_their_passphrase() {
    let home = Home::new();
    let secret_word = "correct horse battery staple";
    let args = ["--status-fd", "1", "--quick-gen-key", "Locked <locked@example.com>", "rsa2048", "sign", "never"];
    home.ok_with(secret_word, &args, b"");
    let exported = home.ok_with(secret_word, &["--export-secret-keys"], b"");
    let fingerprint = Keyring::parse([&exported]).fingerprints()[0].clone();

    let error = load(&exported).unwrap_err();
    assert_eq!(error, SignError::PassphraseNeeded { key: fingerprint.clone() });
    for wrong in ["", "wrong passphrase", "correct horse battery staple\n"] {
        let error = SoftSigner::load(&exported, Some(wrong.as_bytes()), SystemTime::now()).unwrap_err();
        assert_eq!(error, SignError::PassphraseWrong { key: fingerprint.clone() });
        assert!(!error.to_string().contains("horse") && !format!("{error:?}").contains("horse"));
    }
    let signer = SoftSigner::load(&exported, Some(secret_word.as_bytes()), SystemTime::now()).unwrap();
    let message = signer.sign(CLAIM, SystemTime::now()).unwrap();
    assert!(home.accepts(&message).is_some());
    assert_eq!(format!("{signer:?}"), format!("SoftSigner {{ primary: {fingerprint}, key: {fingerprint}, .. }}"));
    // A passphrase for a key that needs none is ignored.
    SoftSigner::load(&key("ed25519").secret, Some(b"superfluous"), SystemTime::now()).unwrap();
}

#[test]
fn the_primary_key_signs_if_it_can_else_the_newest_subkey() {
    let home = Home::new();
    let old = ["--faked-system-time", "20240101T000000!"];
    let newer = ["--faked-system-time", "20240201T000000!"];
    let fingerprint = home.generate(&old, "Sub <sub@example.com>", "ed25519", "sign", "never");
    let first = home.add_subkey(&old, &fingerprint, "ed25519", "sign", "never");
    let second = home.add_subkey(&newer, &fingerprint, "rsa2048", "sign", "never");
    let third = home.add_subkey(&newer, &fingerprint, "rsa2048", "sign", "2024-06-01");
    let signer = load(&home.secret(&fingerprint)).unwrap();
    assert_eq!(signer.signing_key().as_str(), fingerprint);

    // The primary key offline: gpg writes a stub in its place. The third subkey has expired.
    let without_primary = home.ok(&["--export-secret-subkeys", &fingerprint], b"");
    let signer = load(&without_primary).unwrap();
    assert_eq!(signer.signing_key().as_str(), second);
    assert_eq!(signer.fingerprint().as_str(), fingerprint);
    let message = signer.sign(CLAIM, SystemTime::now()).unwrap();
    assert_eq!(home.accepts(&message), Some((CLAIM.to_vec(), fingerprint.clone())));

    let only_first = home.ok(&["--export-secret-subkeys", &format!("{first}!")], b"");
    assert_eq!(load(&only_first).unwrap().signing_key().as_str(), first);
    let only_third = home.ok(&["--export-secret-subkeys", &format!("{third}!")], b"");
    assert!(load(&only_third).is_err());
}

#[test]
fn files_without_the_one_secret_key() {
    let (rsa, ed) = (key("rsa2048"), key("ed25519"));
    assert_eq!(load(b"").unwrap_err(), SignError::NoSecretKey { public: false });
    assert_eq!(load(b"hello").unwrap_err(), SignError::NoSecretKey { public: false });
    assert_eq!(load(&rsa.public).unwrap_err(), SignError::NoSecretKey { public: true });
    let both = [&rsa.secret[..], &ed.secret].concat();
    assert!(matches!(load(&both).unwrap_err(), SignError::SeveralKeys(keys) if keys.len() == 2));
    // A stub only: the secret is on a card.
    let home = Home::with(&[ed]);
    home.add_subkey(&[], &ed.fingerprint, "cv25519", "encr", "never");
    let stub = home.ok(&["--export-secret-subkeys", &ed.fingerprint], b"");
    assert!(matches!(load(&stub).unwrap_err(), SignError::SecretElsewhere { .. }));
}

#[test]
fn damaged_secret_keys_are_noticed_before_they_sign() {
    for kind in ["rsa2048", "ed25519", "nistp256"] {
        let exported = key(kind);
        let mut loaded = 0;
        let end = exported.secret.len();
        for position in (0..end).step_by(if kind == "rsa2048" { 37 } else { 5 }) {
            let mut damaged = exported.secret.clone();
            damaged[position] ^= 0x04;
            if let Ok(signer) = load(&damaged) {
                let message = signer.sign(CLAIM, SystemTime::now()).unwrap();
                assert!(check(&message, &exported.public).is_ok(), "{kind} {position}");
                loaded += 1;
            }
        }
        assert!(loaded < end / 10, "{kind}: {loaded}");
    }
}

#[test]
fn times_that_make_no_sense() {
    let signer = load(&key("rsa2048").secret).unwrap();
    signer.sign(CLAIM, key_time()).unwrap();
    for bad in [key_time() - Duration::from_secs(1), SystemTime::UNIX_EPOCH - Duration::from_secs(1)] {
        assert!(matches!(signer.sign(CLAIM, bad), Err(SignError::Time(_))));
    }
    let too_late = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 32);
    assert!(matches!(signer.sign(CLAIM, too_late), Err(SignError::Time(_))));
    assert_eq!(signer.sign(&vec![0; 64 * 1024 + 1], key_time()), Err(SignError::PayloadTooLarge));
}

#[test]
fn many_threads_share_a_signer() {
    for kind in KINDS {
        let exported = key(kind);
        let signer = load(&exported.secret).unwrap();
        let keyring = Keyring::parse([&exported.public]);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (signer, keyring) = (&signer as &dyn Signer, keyring.clone());
                scope.spawn(move || {
                    for n in 0..5 {
                        let payload = format!("{thread} {n}");
                        let message = signer.sign(payload.as_bytes(), SystemTime::now()).unwrap();
                        let options = VerifyOptions::at(SystemTime::now());
                        assert_eq!(verify(&message, &keyring, &options).unwrap().content, payload.as_bytes());
                    }
                });
            }
        });
    }
}
