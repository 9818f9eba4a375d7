//! One valid signature, damaged in every way that comes to mind: none is accepted as something else.

use countersign::openpgp::{Keyring, Signer, SoftSigner, Verified, verify};

use super::craft::packets;
use super::gpg::{Home, key, key_time};
use super::{CLAIM, now};

/// The valid signatures that are damaged: ours, and gpg's in its usual compression.
fn victims() -> Vec<(&'static str, Vec<u8>, Keyring)> {
    let mut victims = Vec::new();
    for kind in ["rsa2048", "ed25519", "nistp256"] {
        let exported = key(kind);
        let keyring = Keyring::parse([&exported.public]);
        let signer = SoftSigner::load(&exported.secret, None, key_time()).unwrap();
        victims.push(("ours", signer.sign(CLAIM, key_time()).unwrap(), keyring.clone()));
        let home = Home::with(&[exported]);
        for (name, options) in [("plain", ["-z", "0"]), ("zip", ["-z", "9"]), ("bzip2", ["--compress-algo", "bzip2"])] {
            let message = home.ok(&[&options[..], &["--sign"]].concat(), CLAIM);
            victims.push((name, message, keyring.clone()));
        }
    }
    victims
}

fn same(a: &Verified, b: &Verified) -> bool {
    a.content == b.content && a.signer == b.signer && a.signing_key == b.signing_key && a.created == b.created
}

#[test]
fn no_flipped_bit_changes_what_is_accepted() {
    for (name, message, keyring) in victims() {
        let original = verify(&message, &keyring, &now()).unwrap();
        let mut harmless = Vec::new();
        for position in 0..message.len() {
            for mask in (0..8).map(|bit| 1u8 << bit).chain([0xFF]) {
                let mut flipped = message.clone();
                flipped[position] ^= mask;
                if let Ok(verified) = verify(&flipped, &keyring, &now()) {
                    assert!(same(&verified, &original), "{name}: octet {position} xor {mask:#x}");
                    harmless.push(position);
                }
            }
        }
        harmless.dedup();
        if name == "ours" || name == "plain" {
            // What is left to flip is covered by no signature and used by nobody: the date of the
            // literal; the type of the unsigned subpacket with the key ID, which is a hint (the
            // signed fingerprint still names the key); unused bits in the length of a number.
            let parts = packets(&message);
            let literal = parts[0].len();
            let head = parts[1].len() - CLAIM.len();
            let id = [&[9, 16][..], &hex::decode(&original.signer.as_str()[24..]).unwrap()].concat();
            let issuer = message.windows(10).rposition(|window| window == id).unwrap();
            let first = issuer + 12;
            let bits = usize::from(u16::from_be_bytes([message[first], message[first + 1]]));
            let second = first + 2 + bits.div_ceil(8);
            let free = [issuer + 1, first, first + 1, second, second + 1];
            for position in harmless {
                let date = (literal + head - 4..literal + head).contains(&position);
                assert!(date || free.contains(&position), "{name}: octet {position} of {}", message.len());
            }
        }
    }
}

#[test]
fn no_cut_message_is_accepted() {
    for (name, message, keyring) in victims() {
        for length in 0..message.len() {
            assert!(verify(&message[..length], &keyring, &now()).is_err(), "{name} {length}");
            assert!(verify(&message[message.len() - length..], &keyring, &now()).is_err(), "{name} {length}");
        }
    }
}

#[test]
fn no_octet_may_be_added_or_lost() {
    for (name, message, keyring) in victims() {
        let original = verify(&message, &keyring, &now()).unwrap();
        for position in 0..=message.len() {
            for octet in [0, b' ', 0xFF] {
                let mut longer = message.clone();
                longer.insert(position, octet);
                if let Ok(verified) = verify(&longer, &keyring, &now()) {
                    assert!(same(&verified, &original) && position < message.len(), "{name}: {octet:#x} at {position}");
                }
            }
            if position < message.len() {
                let mut shorter = message.clone();
                shorter.remove(position);
                if let Ok(verified) = verify(&shorter, &keyring, &now()) {
                    assert!(same(&verified, &original), "{name}: without octet {position}");
                }
            }
        }
    }
}

#[test]
fn packets_dropped_doubled_and_shuffled() {
    let exported = key("rsa2048");
    let keyring = Keyring::parse([&exported.public]);
    let signer = SoftSigner::load(&exported.secret, None, key_time()).unwrap();
    let one = signer.sign(CLAIM, key_time()).unwrap();
    let two = signer.sign(b"{\"another\":\"claim\"}", key_time()).unwrap();
    let parts: Vec<Vec<u8>> = packets(&one).into_iter().chain(packets(&two)).collect();
    // Packets 0..3 are of the first message, 3..6 of the second; their one-pass packets are equal.
    assert_eq!(parts[0], parts[3]);
    let mut accepted = Vec::new();
    for length in 1..=4u32 {
        for number in 0..6usize.pow(length) {
            let order: Vec<usize> = (0..length).map(|digit| number / 6usize.pow(digit) % 6).collect();
            let bytes: Vec<u8> = order.iter().flat_map(|i| parts[*i].clone()).collect();
            for packed in [bytes.clone(), super::craft::frame(8, &[&[0], &bytes[..]].concat())] {
                if let Ok(verified) = verify(&packed, &keyring, &now()) {
                    let expected = if order.contains(&1) { CLAIM } else { b"{\"another\":\"claim\"}" };
                    assert_eq!(verified.content, expected, "{order:?}");
                    accepted.push(order.clone());
                }
            }
        }
    }
    accepted.dedup();
    accepted.sort();
    let expected = [vec![0, 1, 2], vec![0, 4, 5], vec![2, 1], vec![3, 1, 2], vec![3, 4, 5], vec![5, 4]];
    assert_eq!(accepted, expected);
}
