//! Everything that must be refused, and why.

use std::io::Write;

use countersign::openpgp::{InspectError, Keyring, MessageError, VerifyError, VerifyOptions, inspect, verify};

use super::craft::{Craft, Key, frame, literal, packets, sub};
use super::gpg::{Home, key};
use super::{CLAIM, check, now};

#[test]
fn other_forms_of_openpgp() {
    let (rsa, ed) = (key("rsa2048"), key("ed25519"));
    let home = Home::with(&[ed, rsa]);
    home.add_subkey(&[], &rsa.fingerprint, "cv25519", "encr", "never");
    let sign = |args: &[&str]| home.ok(&[args, &["-r", &rsa.fingerprint]].concat(), CLAIM);
    let both: &[&str] = &["-u", &rsa.fingerprint, "-u", &ed.fingerprint];
    for (message, expected, shown) in [
        (sign(&["--clearsign"]), MessageError::Cleartext, false),
        (sign(&["--armor", "--sign"]), MessageError::Armoured, false),
        (sign(&["--detach-sign"]), MessageError::Detached, false),
        (sign(&["--encrypt"]), MessageError::Encrypted, false),
        (sign(&["--sign", "--encrypt"]), MessageError::Encrypted, false),
        (sign(&["--store"]), MessageError::NotSigned, false),
        (sign(&["--store", "-z", "0"]), MessageError::NotSigned, false),
        (home.ok(&[both, &["--sign"]].concat(), CLAIM), MessageError::ManySignatures, true),
        (home.ok(&[both, &["-z", "0", "--sign"]].concat(), CLAIM), MessageError::ManySignatures, true),
        (Vec::new(), MessageError::Empty, false),
        (CLAIM.to_vec(), MessageError::NotOpenPgp(b'{'), false),
        (rsa.public.clone(), MessageError::Unexpected(6), false),
    ] {
        assert_eq!(check(&message, &rsa.public), Err(VerifyError::Message(expected.clone())));
        match inspect(&message) {
            Ok(untrusted) => assert!(shown && untrusted.content == CLAIM, "{expected}"),
            Err(error) => assert!(!shown && error == InspectError::Message(expected.clone()), "{expected}: {error}"),
        }
    }
}

#[test]
fn anything_after_the_message() {
    let rsa = key("rsa2048");
    let home = Home::with(&[rsa]);
    let plain = home.ok(&["-z", "0", "--sign"], CLAIM);
    let trailing = Err(VerifyError::Message(MessageError::Trailing));
    let tails: [&[u8]; 7] = [&[0], &[0; 8], b"\n", b"garbage", &frame(21, b"padding"), &literal(b"{}"), &plain];
    let crafted = [
        home.ok(&["--compress-algo", "zip", "--sign"], CLAIM),
        home.ok(&["--compress-algo", "zlib", "--sign"], CLAIM),
        home.ok(&["--compress-algo", "bzip2", "--sign"], CLAIM),
        plain.clone(),
    ];
    for message in &crafted {
        check(message, &rsa.public).unwrap();
        for tail in tails {
            let longer = [&message[..], tail].concat();
            assert_eq!(check(&longer, &rsa.public), trailing, "{:#x} {tail:x?}", message[0]);
            assert_eq!(inspect(&longer).unwrap().content, CLAIM);
        }
        assert_eq!(check(&[&message[..], message].concat(), &rsa.public), trailing);
    }
    // Behind the end of the compressed stream but inside a packet with a length.
    let mut zip = flate2::write::DeflateEncoder::new(vec![1u8], flate2::Compression::default());
    zip.write_all(&plain).unwrap();
    let zip = zip.finish().unwrap();
    check(&frame(8, &zip), &rsa.public).unwrap();
    for tail in tails {
        assert_eq!(check(&frame(8, &[&zip[..], tail].concat()), &rsa.public), trailing, "{tail:x?}");
        // Inside the compressed stream, behind the message.
        let mut inner = flate2::write::DeflateEncoder::new(vec![1u8], flate2::Compression::default());
        inner.write_all(&[&plain[..], tail].concat()).unwrap();
        assert_eq!(check(&frame(8, &inner.finish().unwrap()), &rsa.public), trailing, "{tail:x?}");
    }
}

#[test]
fn bombs_and_too_much_content() {
    let rsa = key("rsa2048");
    let home = Home::with(&[rsa]);
    let much = vec![b' '; 64 * 1024];
    let message = home.ok(&["--sign"], &much);
    assert_eq!(check(&message, &rsa.public).unwrap().content, much);
    let more = home.ok(&["--sign"], &[&much[..], b" "].concat());
    assert_eq!(check(&more, &rsa.public), Err(VerifyError::Message(MessageError::ContentTooLarge)));
    for algorithm in ["zip", "zlib", "bzip2"] {
        let bomb = home.ok(&["--compress-algo", algorithm, "--sign"], &vec![b' '; 20_000_000]);
        assert!(matches!(check(&bomb, &rsa.public), Err(VerifyError::Message(MessageError::Compression(_)))));
        assert!(inspect(&bomb).is_err());
    }
}

#[test]
fn expired_signatures() {
    let rsa = key("rsa2048");
    let home = Home::with(&[rsa]);
    let old = ["--faked-system-time", "20240201T000000", "--default-sig-expire", "1m", "--sign"];
    for extra in [&[][..], &["-z", "0"]] {
        let message = home.ok(&[extra, &old].concat(), CLAIM);
        let error = check(&message, &rsa.public).unwrap_err();
        assert!(matches!(error, VerifyError::Expired { .. }), "{error}");
        assert!(error.to_string().starts_with("Signature expired on 2024-03-"), "{error}");
        assert!(inspect(&message).is_ok());
        // The time is the caller's: the same signature was good when it was fresh.
        let created = inspect(&message).unwrap().created.unwrap();
        let then = VerifyOptions::at(created.into());
        verify(&message, &Keyring::parse([&rsa.public]), &then).unwrap();
    }
}

#[test]
fn weak_hashes() {
    for kind in ["rsa2048", "ed25519"] {
        let exported = key(kind);
        let home = Home::with(&[exported]);
        let keyring = Keyring::parse([&exported.public]);
        let message = home.ok(&["--digest-algo", "SHA1", "--sign"], CLAIM);
        assert_eq!(verify(&message, &keyring, &now()), Err(VerifyError::Sha1));
        let verified = verify(&message, &keyring, &VerifyOptions { allow_sha1: true, ..now() }).unwrap();
        assert!(verified.warnings[0].contains("SHA-1"), "{:?}", verified.warnings);
        let crafted = Key::of(exported, 0);
        for (hash, name) in [(1, "MD5"), (3, "RIPEMD-160")] {
            let message = Craft { hash, ..Craft::ordinary(&crafted) }.message(&crafted, CLAIM);
            let all = VerifyOptions { allow_sha1: true, allow_weak_keys: true, ..now() };
            assert_eq!(verify(&message, &keyring, &all), Err(VerifyError::WeakHash(name)));
        }
        let message = home.ok(&["--digest-algo", "RIPEMD160", "--sign"], CLAIM);
        assert_eq!(verify(&message, &keyring, &now()), Err(VerifyError::WeakHash("RIPEMD-160")));
        assert!(inspect(&message).is_ok());
    }
}

#[test]
fn critical_notations_and_subpackets() {
    let rsa = key("rsa2048");
    let home = Home::with(&[rsa]);
    let message = home.ok(&["--sig-notation", "!name@example.com=value", "--sign"], CLAIM);
    assert_eq!(check(&message, &rsa.public), Err(VerifyError::CriticalNotation("name@example.com".to_owned())));
    assert!(inspect(&message).is_ok());

    let crafted = Key::of(rsa, 0);
    let ordinary = Craft::ordinary(&crafted);
    // What a client with x/crypto does not know is refused although gpg knows it.
    let message = home.ok(&["--sig-policy-url", "!https://example.com/policy", "--sign"], CLAIM);
    assert!(home.accepts(&message).is_some());
    assert_eq!(check(&message, &rsa.public), Err(VerifyError::CriticalSubpacket(26)));
    for (kind, body, known) in subpackets(&crafted) {
        let critical = sub(0x80 | kind, &body);
        let hashed = match kind {
            2 => sub(33, &[&[4], &crafted.fingerprint[..]].concat()),
            33 => sub(2, &ordinary.created.to_be_bytes()),
            _ => ordinary.hashed.clone(),
        };
        let hashed = Craft { hashed: [&hashed[..], &critical].concat(), ..ordinary.clone() };
        let unhashed = if kind == 16 { Vec::new() } else { ordinary.unhashed.clone() };
        let unhashed = Craft { unhashed: [&unhashed[..], &critical].concat(), ..ordinary.clone() };
        for (craft, area) in [(hashed, "hashed"), (unhashed, "unhashed")] {
            let message = craft.message(&crafted, CLAIM);
            let accepted = check(&message, &rsa.public);
            assert_eq!(home.accepts(&message).is_some(), known, "gpg: {kind}, {area}");
            let ours = [3, 16].contains(&kind) || kind == 2 && area == "hashed";
            assert_eq!(accepted.is_ok(), ours, "{kind}, {area}: {accepted:?}");
        }
    }
}

/// Every type with a body that makes sense, and whether gpg knows it when it is critical.
fn subpackets(key: &Key) -> Vec<(u8, Vec<u8>, bool)> {
    let far = 2_000_000_000_u32.to_be_bytes();
    let fingerprint = [&[4], &key.fingerprint[..]].concat();
    let known: &[(u8, &[u8])] = &[
        (2, &1_704_240_000_u32.to_be_bytes()),
        (3, &far),
        (4, &[1]),
        (5, &[1, 1]),
        (6, b"x\0"),
        (7, &[1]),
        (9, &far),
        (11, &[9]),
        (12, &[&[0x80, 1], &key.fingerprint[..]].concat()),
        (16, key.id()),
        (21, &[8]),
        (22, &[1]),
        (24, b"https://k.example"),
        (25, &[1]),
        (26, b"https://p.example"),
        (27, &[3]),
        (29, &[0]),
        (30, &[1]),
        (32, &Craft { kind: 0x19, ..Craft::ordinary(key) }.signature(key, b"")[6..]),
        (33, &fingerprint),
    ];
    let unknown: &[(u8, &[u8])] = &[
        (20, &[0x80, 0, 0, 0, 0, 1, 0, 1, b'n', b'v']),
        (23, &[0x80]),
        (28, b"Test <rsa2048@example.com>"),
        (31, &[1, 8, 0]),
        (34, &[2]),
        (35, &fingerprint),
    ];
    (0..128)
        .map(|kind| match known.iter().find(|(known, _)| *known == kind) {
            Some((_, body)) => (kind, body.to_vec(), true),
            None => {
                let body = unknown.iter().find(|(unknown, _)| *unknown == kind).map_or(&b"x"[..], |(_, body)| body);
                (kind, body.to_vec(), false)
            }
        })
        .collect()
}

#[test]
fn expiry_beyond_the_32_bits_of_gpg() {
    let rsa = key("rsa2048");
    let home = Home::with(&[rsa]);
    let crafted = Key::of(rsa, 0);
    let ordinary = Craft::ordinary(&crafted);
    let last = u32::MAX - ordinary.created;
    // gpg takes the second after 2106 for "never".
    for (seconds, gpg, ours) in
        [(last, true, true), (last + 1, true, false), (last + 2, false, false), (u32::MAX, false, false)]
    {
        let hashed = [ordinary.hashed.clone(), sub(3, &seconds.to_be_bytes())].concat();
        let message = Craft { hashed, ..ordinary.clone() }.message(&crafted, CLAIM);
        assert_eq!(home.accepts(&message).is_some(), gpg, "{seconds}");
        let verdict = check(&message, &rsa.public);
        assert_eq!(verdict.is_ok(), ours, "{seconds}: {verdict:?}");
        assert!(ours || verdict == Err(VerifyError::ExpiryTooFar));
    }
}

#[test]
fn subpackets_that_x_crypto_refuses_in_any_case() {
    let rsa = key("rsa2048");
    let crafted = Key::of(rsa, 0);
    let ordinary = Craft::ordinary(&crafted);
    for (kind, body) in [(9, &b"xyz"[..]), (25, b"xy"), (27, b""), (29, b""), (32, b"junk"), (32, b"")] {
        let hashed = [ordinary.hashed.clone(), sub(kind, body)].concat();
        let message = Craft { hashed, ..ordinary.clone() }.message(&crafted, CLAIM);
        assert!(matches!(check(&message, &rsa.public), Err(VerifyError::Subpacket(_))), "{kind}");
    }
}

#[test]
fn signatures_that_gpg_does_not_make() {
    let rsa = key("rsa2048");
    let crafted = Key::of(rsa, 0);
    let other = Key::of(key("rsa3072"), 0);
    let good = Craft::ordinary(&crafted);
    let refusal = |craft: &Craft| check(&craft.message(&crafted, CLAIM), &rsa.public).unwrap_err();
    let created = sub(2, &good.created.to_be_bytes());
    let fingerprint = sub(33, &[&[4], &crafted.fingerprint[..]].concat());

    assert!(check(&good.message(&crafted, CLAIM), &rsa.public).is_ok());
    for kind in [2, 0x10, 0x13, 0x18, 0x1F, 0x20, 0x40, 0x50, 0xFF] {
        assert_eq!(refusal(&Craft { kind, ..good.clone() }), VerifyError::Kind(kind));
    }
    // Nobody vouches for a time outside the hashed area.
    let craft =
        Craft { hashed: fingerprint.clone(), unhashed: [&good.unhashed[..], &created].concat(), ..good.clone() };
    assert!(matches!(refusal(&craft), VerifyError::Subpacket(_)));
    let craft = Craft { hashed: fingerprint.clone(), ..good.clone() };
    assert_eq!(refusal(&craft), VerifyError::NoCreationTime);
    let craft = Craft { unhashed: [&good.unhashed[..], &created].concat(), ..good.clone() };
    assert!(matches!(refusal(&craft), VerifyError::Subpacket(_)));
    let craft = Craft { hashed: [&good.hashed[..], &created].concat(), ..good.clone() };
    assert!(matches!(refusal(&craft), VerifyError::Message(MessageError::Malformed(_))));
    // Who made it must be said, once.
    let craft = Craft { hashed: created.clone(), unhashed: Vec::new(), ..good.clone() };
    assert_eq!(refusal(&craft), VerifyError::NoIssuer);
    let craft = Craft { unhashed: sub(16, other.id()), ..good.clone() };
    assert_eq!(refusal(&craft), VerifyError::IssuersDiffer);
    let craft = Craft { hashed: created.clone(), ..Craft::ordinary(&other) };
    assert_eq!(refusal(&craft), VerifyError::OnePassDiffers("the key"));
    // Fingerprint of another key with the same ID: not this key.
    let mut lookalike = crafted.fingerprint.clone();
    lookalike[0] ^= 1;
    let craft = Craft { hashed: [&sub(33, &[&[4], &lookalike[..]].concat())[..], &created].concat(), ..good.clone() };
    assert!(matches!(refusal(&craft), VerifyError::KeyNotFound { .. }));
    // Older than its key.
    let early = 1_700_000_000u32;
    let craft = Craft { hashed: [&fingerprint[..], &sub(2, &early.to_be_bytes())].concat(), ..good.clone() };
    assert!(matches!(refusal(&craft), VerifyError::OlderThanKey { .. }));
    assert!(matches!(refusal(&Craft { version: 3, created: early, ..good.clone() }), VerifyError::OlderThanKey { .. }));
    // One-pass packets that lie.
    let (content, signature) = (literal(CLAIM), good.signature(&crafted, CLAIM));
    for (one_pass, expected) in [
        (good.one_pass(&crafted, 0), VerifyError::Message(MessageError::Nested)),
        (good.one_pass(&other, 1), VerifyError::OnePassDiffers("the key")),
        (Craft { hash: 10, ..good.clone() }.one_pass(&crafted, 1), VerifyError::OnePassDiffers("the hash algorithm")),
        (
            Craft { kind: 1, ..good.clone() }.one_pass(&crafted, 1),
            VerifyError::OnePassDiffers("the type of the signature"),
        ),
    ] {
        assert_eq!(check(&[&one_pass[..], &content, &signature].concat(), &rsa.public), Err(expected));
    }
    // Text with a stray carriage return is hashed in two ways out there.
    let text = Craft { kind: 1, ..good.clone() };
    for content in [&b"a\rb"[..], b"a\r"] {
        assert_eq!(check(&text.message(&crafted, content), &rsa.public), Err(VerifyError::StrayCarriageReturn));
    }
    // So is text with a bare line feed: gpg refuses what x/crypto takes, and the other way round.
    let home = Home::with(&[rsa]);
    for (content, canonical) in [(&b"{\n}"[..], &b"{\r\n}"[..]), (b"{}\n", b"{}\r\n"), (b"{\r\n}\n", b"{\r\n}\r\n")] {
        for version in [4, 3] {
            let text = Craft { version, ..text.clone() };
            for (signed, taken) in [(content, true), (canonical, false)] {
                let message = [text.one_pass(&crafted, 1), literal(content), text.signature(&crafted, signed)].concat();
                assert_eq!(home.accepts(&message).is_some(), taken, "version {version}, {content:?}");
                assert_eq!(check(&message, &rsa.public), Err(VerifyError::BareLineFeed));
            }
        }
    }
    // A version 4 signature may not be passed off as one of version 3 over longer content.
    let head_end = 6 + good.hashed.len();
    let head = &packets(&signature)[0][6..6 + head_end];
    let longer = [CLAIM, head, &[4]].concat();
    let craft = Craft { version: 3, kind: 0xFF, created: u32::try_from(head_end).unwrap(), ..good.clone() };
    assert_eq!(check(&craft.message(&crafted, &longer), &rsa.public), Err(VerifyError::Kind(0xFF)));
}

#[test]
fn unknown_keys_and_empty_keyrings() {
    let (rsa, ed) = (key("rsa2048"), key("ed25519"));
    let home = Home::with(&[rsa]);
    let message = home.ok(&["--sign"], CLAIM);
    let error = check(&message, &ed.public).unwrap_err();
    let id = rsa.fingerprint[24..].to_lowercase();
    let expected = format!("Key not found for key ID {id} in signature (fingerprint {})", rsa.fingerprint);
    assert_eq!(error.to_string(), expected);
    for nothing in [&b""[..], b"no key", &message] {
        assert_eq!(check(&message, nothing).unwrap_err().to_string(), "No public keys imported");
    }
    // Another key's public part under this name, in vain.
    let forged = Craft::ordinary(&Key::of(rsa, 0)).message(&Key::of(ed, 0), CLAIM);
    assert!(check(&forged, &rsa.public).is_err() && check(&forged, &ed.public).is_err());
}
