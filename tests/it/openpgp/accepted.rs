//! Everything that must be accepted.

use std::time::SystemTime;

use countersign::openpgp::{Fingerprint, Keyring, Signer, SoftSigner, inspect, verify};

use super::craft::{Craft, Key, frame, literal, packets, sub};
use super::gpg::{Home, KINDS, key};
use super::{CLAIM, check, now};

#[test]
fn every_kind_of_key_in_every_compression() {
    let keys: Vec<_> = KINDS.iter().map(|k| key(k)).collect();
    let home = Home::with(&keys);
    let keyring = Keyring::parse(keys.iter().map(|k| &k.public));
    assert_eq!(keyring.fingerprints().len(), KINDS.len());
    let ed25519 = &self::key("ed25519").fingerprint;
    for key in &keys {
        for options in [
            &[][..],
            &["-z", "0"],
            &["--compress-algo", "zip"],
            &["--compress-algo", "zlib"],
            &["--compress-algo", "bzip2"],
            &["--digest-algo", "SHA512"],
            &["--digest-algo", "SHA384"],
            &["--digest-algo", "SHA224"],
            &["--set-filename", "claim.json", "--compress-algo", "none"],
            &["--sig-notation", "name@example.com=value"],
            &["--sig-policy-url", "https://example.com/policy"],
            &["--sender", "test@example.com"],
            &["--default-sig-expire", "1y"],
        ] {
            let refused = [self::key("dsa2048"), self::key("nistp256")];
            if options.contains(&"SHA224") && refused.iter().any(|k| k.fingerprint == key.fingerprint) {
                continue; // gpg itself refuses the short hash for these keys.
            }
            let message = home.ok(&[options, &["-u", &key.fingerprint, "--sign"]].concat(), CLAIM);
            let verified = verify(&message, &keyring, &now()).unwrap_or_else(|e| panic!("{options:?}: {e}"));
            assert_eq!(verified.content, CLAIM, "{options:?}");
            assert_eq!(verified.signer.as_str(), key.fingerprint);
            assert_eq!(verified.signing_key, verified.signer);
            // A key that x/crypto cannot read makes it refuse all.
            let [warning] = &verified.warnings[..] else { panic!("{options:?}: {:?}", verified.warnings) };
            assert!(warning.contains("x/crypto"), "{warning}");
            let alone = check(&message, &key.public).unwrap();
            assert_eq!(alone.warnings.len(), usize::from(*ed25519 == key.fingerprint), "{:?}", alone.warnings);
            let shown = inspect(&message).unwrap();
            assert_eq!((shown.content, shown.created), (verified.content, Some(verified.created)));
            assert_eq!(shown.fingerprint, Some(verified.signer.clone()));
            assert_eq!(shown.key_id, verified.signer.key_id());
        }
    }
}

#[test]
fn text_mode() {
    let rsa = key("rsa2048");
    let home = Home::with(&[rsa]);
    for options in [&["--textmode"][..], &["--textmode", "-z", "0"]] {
        let message = home.ok(&[options, &["--sign"]].concat(), b"{\n \"a\": 1\n}\n");
        // What is in the message, and so what was signed, has network line ends.
        assert_eq!(check(&message, &rsa.public).unwrap().content, b"{\r\n \"a\": 1\r\n}\r\n");
        let message = home.ok(&[options, &["--sign"]].concat(), CLAIM);
        assert!(check(&message, &rsa.public).unwrap().content.starts_with(CLAIM));
    }
    // As other programs make it. A claim in one line has no line end at all.
    let crafted = Key::of(rsa, 0);
    let text = Craft { kind: 1, ..Craft::ordinary(&crafted) };
    for content in [CLAIM, b"{}", b"{\r\n}", b"{} \r\n ", b""] {
        let message = text.message(&crafted, content);
        assert_eq!(check(&message, &rsa.public).unwrap().content, content);
        assert!(home.accepts(&message).is_some());
    }
}

#[test]
fn a_signature_by_a_subkey_counts_as_the_primarys() {
    for (primary, subkey) in [("rsa2048", "rsa2048"), ("ed25519", "ed25519")] {
        let home = Home::new();
        let fingerprint = home.generate(&[], "Sub <sub@example.com>", primary, "cert", "never");
        let subkey = home.add_subkey(&[], &fingerprint, subkey, "sign", "never");
        let message = home.ok(&["--sign"], CLAIM);
        let verified = check(&message, &home.public(&fingerprint)).unwrap();
        assert_eq!(verified.signer, Fingerprint::parse(&fingerprint).unwrap());
        assert_eq!(verified.signing_key.as_str(), subkey);
        let [subkey, others @ ..] = &verified.warnings[..] else { panic!() };
        assert_eq!(subkey, "made by a subkey; clients with GnuPG from before mid-2025 refuse it");
        assert_eq!(others.len(), usize::from(primary == "ed25519"), "{others:?}");
    }
}

#[test]
fn forms_that_gpg_no_longer_writes() {
    for kind in ["rsa2048", "dsa2048"] {
        let exported = key(kind);
        let home = Home::with(&[exported]);
        let crafted = Key::of(exported, 0);
        let ordinary = Craft::ordinary(&crafted);
        let version_3 = Craft { version: 3, ..ordinary.clone() };
        let message = ordinary.message(&crafted, CLAIM);
        let marker = frame(10, b"PGP");
        let stored = |inner: &[u8]| frame(8, &[&[0], inner].concat());
        let old_style = [ordinary.signature(&crafted, CLAIM), literal(CLAIM)].concat();
        let mut open_end = ordinary.signature(&crafted, CLAIM);
        open_end.extend([&[0xAF, b't', 1, b'x', 9, 9, 9, 9], CLAIM].concat());
        let forms = [
            ("crafted", message.clone()),
            ("old style", old_style.clone()),
            ("old style, literal without length", open_end),
            ("version 3", version_3.message(&crafted, CLAIM)),
            ("version 3, old style", [version_3.signature(&crafted, CLAIM), literal(CLAIM)].concat()),
            ("version 3, text", Craft { kind: 1, ..version_3.clone() }.message(&crafted, CLAIM)),
            ("compressed with nothing", stored(&message)),
            ("compressed with nothing, old style", stored(&old_style)),
            ("markers", [&marker[..], &message, &marker].concat()),
            ("unknown subpacket", {
                Craft { hashed: [ordinary.hashed.clone(), sub(101, b"x")].concat(), ..ordinary.clone() }
                    .message(&crafted, CLAIM)
            }),
        ];
        for (name, message) in forms {
            let verified = check(&message, &exported.public).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!((&verified.content[..], verified.signer.as_str()), (CLAIM, &exported.fingerprint[..]), "{name}");
            assert_eq!(inspect(&message).unwrap().content, CLAIM, "{name}");
            assert_eq!(verified.warnings.len(), usize::from(name.contains("old style")), "{name}");
            assert_eq!(home.accepts(&message), Some((CLAIM.to_vec(), exported.fingerprint.clone())), "gpg: {name}");
        }
    }
}

#[test]
fn lengths_in_parts() {
    let rsa = key("rsa2048");
    let crafted = Key::of(rsa, 0);
    let message = Craft::ordinary(&crafted).message(&crafted, CLAIM);
    let [one_pass, _, signature] = &packets(&message)[..] else { panic!() };
    let body = [&[b'b', 0, 0, 0, 0, 0], CLAIM].concat();
    // 256 octets, then the rest.
    let (first, rest) = body.split_at(256);
    let parts = [&[0xCB, 0xE8], first, &[u8::try_from(rest.len()).unwrap()], rest].concat();
    let message = [&one_pass[..], &parts, signature].concat();
    assert_eq!(check(&message, &rsa.public).unwrap().content, CLAIM);
    let inner = [&[0][..], &message].concat();
    let (first, rest) = inner.split_at(512);
    let packed = [&[0xC8, 0xE9], first, &[255], &u32::try_from(rest.len()).unwrap().to_be_bytes()[..], rest].concat();
    assert_eq!(check(&packed, &rsa.public).unwrap().content, CLAIM);
}

#[test]
fn expiration_never_and_creation_in_the_future_are_accepted_with_a_warning() {
    let rsa = key("rsa2048");
    let crafted = Key::of(rsa, 0);
    let ordinary = Craft::ordinary(&crafted);
    let never = Craft { hashed: [ordinary.hashed.clone(), sub(3, &[0; 4])].concat(), ..ordinary };
    let message = never.message(&crafted, CLAIM);
    let warnings = check(&message, &rsa.public).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("never"), "{warnings:?}");
    let home = Home::with(&[rsa]);
    assert!(home.accepts(&message).is_some());

    let message = home.ok(&["--faked-system-time", "20900101T000000", "--sign"], CLAIM);
    let warnings = check(&message, &rsa.public).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("future"), "{warnings:?}");
}

#[test]
fn the_right_key_is_found_among_many_and_among_copies() {
    let keys: Vec<_> = KINDS.iter().map(|k| key(k)).collect();
    let home = Home::with(&keys);
    let armoured = home.ok(&["--armor", "--export", &keys[2].fingerprint], b"");
    let secret = home.ok(&["--armor", "--export-secret-keys", &keys[2].fingerprint], b"");
    let message = home.ok(&["-u", &keys[2].fingerprint, "--sign"], CLAIM);
    let all: Vec<u8> = keys.iter().flat_map(|k| k.public.clone()).collect();
    for blobs in [vec![&all], vec![&armoured], vec![&secret], vec![&all, &armoured, &secret, &keys[2].secret]] {
        let verified = verify(&message, &Keyring::parse(blobs), &now()).unwrap();
        assert_eq!(verified.signer.as_str(), keys[2].fingerprint);
    }
}

#[test]
fn verifying_leaves_nothing_behind() {
    // Sequoia's process-wide map of good signatures is never emptied, so we must not fill it.
    use sequoia_openpgp::packet::signature::cache::SignatureVerificationCache;
    let rsa = key("rsa2048");
    let signer = SoftSigner::load(&rsa.secret, None, SystemTime::now()).unwrap();
    let keyring = Keyring::parse([&rsa.public]);
    let before = SignatureVerificationCache::insertions();
    for n in 0..500 {
        let message = signer.sign(format!("{n}").as_bytes(), SystemTime::now()).unwrap();
        verify(&message, &keyring, &now()).unwrap();
    }
    // Other tests of this process may have looked at the self-signatures of their keys meanwhile.
    assert!(SignatureVerificationCache::insertions() - before < 400);
}
