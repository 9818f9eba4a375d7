//! The forms that an OpenPGP message over a claim can have: as gpg makes them, as nobody makes
//! them (any more), and damaged.

use super::explained::Trait;
use super::keys::Keys;
use super::random::Random;
use crate::openpgp::craft::{Craft, Key, frame, literal, packets, sub};

/// A form and, if the two sides differ about it, why.
pub struct Form {
    pub label: &'static str,
    pub differs: Option<Trait>,
    make: Make,
}

enum Make {
    /// gpg with these options.
    Gpg(&'static [&'static str]),
    /// A change to what gpg makes with its defaults, or without compression.
    Changed(Start, fn(Vec<u8>) -> Vec<u8>),
    /// Octet by octet, by the key called `good`.
    Crafted(fn(&Key, &[u8]) -> Vec<u8>),
    /// No signature at all.
    Fixed(&'static [u8]),
    /// One octet is changed somewhere.
    Flipped(Start),
    /// The end is missing.
    Cut(Start),
}

#[derive(Clone, Copy)]
enum Start {
    Compressed,
    Plain,
}

impl Start {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Compressed => &[],
            Self::Plain => PLAIN,
        }
    }
}

const PLAIN: &[&str] = &["--compress-algo", "none"];

impl Form {
    /// Makes the message; `crafter` is the secret of the key `good`.
    pub fn of(&self, keys: &Keys, crafter: &Key, signer: &str, claim: &[u8], random: &mut Random) -> Vec<u8> {
        match &self.make {
            Make::Gpg(options) => keys.sign(&[signer], options, claim),
            Make::Changed(start, change) => change(keys.sign(&[signer], start.options(), claim)),
            Make::Crafted(craft) => craft(crafter, claim),
            Make::Fixed(bytes) => bytes.to_vec(),
            Make::Flipped(start) => {
                let mut message = keys.sign(&[signer], start.options(), claim);
                let at = random.below(message.len());
                message[at] ^= 1 << random.below(8);
                message
            }
            Make::Cut(start) => {
                let mut message = keys.sign(&[signer], start.options(), claim);
                message.truncate(random.below(message.len()));
                message
            }
        }
    }

    /// Whether it is text. Such forms differ only where no format is detected first.
    pub fn is_text(&self) -> bool {
        matches!(self.label, "armour" | "cleartext")
    }

    /// Whether another key than `good` can make it; not every key goes with every hash.
    pub fn is_by_any_key(&self) -> bool {
        !matches!(self.make, Make::Crafted(_) | Make::Gpg(["--digest-algo", ..]))
    }
}

const fn gpg(label: &'static str, options: &'static [&'static str]) -> Form {
    Form { label, differs: None, make: Make::Gpg(options) }
}

const fn changed(label: &'static str, start: Start, change: fn(Vec<u8>) -> Vec<u8>) -> Form {
    Form { label, differs: None, make: Make::Changed(start, change) }
}

const fn crafted(label: &'static str, craft: fn(&Key, &[u8]) -> Vec<u8>) -> Form {
    Form { label, differs: None, make: Make::Crafted(craft) }
}

const fn fixed(label: &'static str, bytes: &'static [u8]) -> Form {
    Form { label, differs: None, make: Make::Fixed(bytes) }
}

const fn differs(form: Form, differs: Trait) -> Form {
    Form { differs: Some(differs), ..form }
}

/// An ordinary signature with one more hashed subpacket.
fn with_subpacket(key: &Key, claim: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut craft = Craft::ordinary(key);
    craft.hashed.extend(sub(kind, body));
    craft.message(key, claim)
}

#[rustfmt::skip]
pub const FORMS: &[Form] = &[
    gpg("as gpg makes it", &[]),
    gpg("not compressed", PLAIN),
    gpg("zlib", &["--compress-algo", "zlib"]),
    gpg("bzip2", &["--compress-algo", "bzip2"]),
    gpg("text mode", &["--textmode"]),
    gpg("sha512", &["--digest-algo", "SHA512"]),
    gpg("sha384", &["--digest-algo", "SHA384"]),
    differs(gpg("sha1", &["--digest-algo", "SHA1"]), Trait::Sha1),
    differs(gpg("ripemd160", &["--digest-algo", "RIPEMD160"]), Trait::Ripemd160),
    gpg("expired signature", &["--default-sig-expire", "1m"]),
    gpg("signature that will expire", &["--default-sig-expire", "90y"]),
    gpg("notation", &["--sig-notation", "x@example.com=1"]),
    gpg("critical notation", &["--sig-notation", "!x@example.com=1"]),
    gpg("policy URL", &["--sig-policy-url", "https://example.com"]),
    differs(gpg("critical policy URL", &["--sig-policy-url", "!https://example.com"]), Trait::Critical),
    gpg("armour", &["--armor"]),
    gpg("cleartext", &["--clear-sign"]),
    gpg("detached", &["--detach-sign"]),
    gpg("literal only", &["--store"]),
    gpg("literal only, not compressed", &["--store", "--compress-algo", "none"]),
    changed("prefix simple-signing", Start::Compressed, |m| [b"\0simple-signing\n", &m[..]].concat()),
    changed("prefix simple-signing without newline", Start::Compressed, |_| b"\0simple-signing".to_vec()),
    changed("prefix unknown format", Start::Compressed, |m| [b"\0other\n", &m[..]].concat()),
    changed("prefix newline", Start::Compressed, |m| [b"\n", &m[..]].concat()),
    changed("prefix sigstore-json", Start::Compressed, |m| [b"\0sigstore-json\n", &m[..]].concat()),
    changed("prefix marker packet", Start::Compressed, |m| [b"\xca\x03PGP", &m[..]].concat()),
    changed("marker packet behind, not compressed", Start::Plain, |m| [&m[..], b"\xca\x03PGP"].concat()),
    differs(changed("marker packet behind", Start::Compressed, |m| [&m[..], b"\xca\x03PGP"].concat()), Trait::Trailing),
    differs(changed("garbage behind", Start::Compressed, |m| [&m[..], b"garbage"].concat()), Trait::Trailing),
    differs(changed("a second time", Start::Compressed, |m| [&m[..], &m[..]].concat()), Trait::Trailing),
    changed("garbage behind, not compressed", Start::Plain, |m| [&m[..], b"garbage"].concat()),
    changed("zeros behind, not compressed", Start::Plain, |m| [&m[..], &[0; 16]].concat()),
    changed("a second time, not compressed", Start::Plain, |m| [&m[..], &m[..]].concat()),
    changed("signature first", Start::Plain, |m| { let p = packets(&m); [&p[2][..], &p[1]].concat() }),
    changed("signature twice", Start::Plain, |m| { let p = packets(&m); [&p[0][..], &p[1], &p[2], &p[2]].concat() }),
    changed("literal twice", Start::Plain, |m| { let p = packets(&m); [&p[0][..], &p[1], &p[1], &p[2]].concat() }),
    changed("no one-pass packet", Start::Plain, |m| { let p = packets(&m); [&p[1][..], &p[2]].concat() }),
    changed("no signature packet", Start::Plain, |m| { let p = packets(&m); [&p[0][..], &p[1]].concat() }),
    changed("no literal", Start::Plain, |m| { let p = packets(&m); [&p[0][..], &p[2]].concat() }),
    changed("signature only", Start::Plain, |m| packets(&m)[2].clone()),
    changed("last octet missing", Start::Compressed, |mut m| { m.pop(); m }),
    changed("last octet missing, not compressed", Start::Plain, |mut m| { m.pop(); m }),
    crafted("crafted", |key, claim| Craft::ordinary(key).message(key, claim)),
    crafted("crafted, version 3", |key, claim| Craft { version: 3, ..Craft::ordinary(key) }.message(key, claim)),
    differs(crafted("one-pass says that another follows", |key, claim| {
        let craft = Craft::ordinary(key);
        [craft.one_pass(key, 0), literal(claim), craft.signature(key, claim)].concat()
    }), Trait::OnePassFlag),
    crafted("signed twice", |key, claim| {
        let craft = Craft::ordinary(key);
        let (first, last) = (craft.one_pass(key, 0), craft.one_pass(key, 1));
        let signature = craft.signature(key, claim);
        [first, last, literal(claim), signature.clone(), signature].concat()
    }),
    crafted("expires with 0", |key, claim| with_subpacket(key, claim, 3, &[0; 4])),
    crafted("expires after a day", |key, claim| with_subpacket(key, claim, 3, &[0, 1, 0x51, 0x80])),
    crafted("unknown subpacket", |key, claim| with_subpacket(key, claim, 60, b"x")),
    crafted("unknown critical subpacket", |key, claim| with_subpacket(key, claim, 0x80 | 60, b"x")),
    crafted("certification, not data", |key, claim| Craft { kind: 0x10, ..Craft::ordinary(key) }.message(key, claim)),
    crafted("standalone, not data", |key, claim| Craft { kind: 0x02, ..Craft::ordinary(key) }.message(key, claim)),
    crafted("empty content, unsigned claim before", |key, claim| {
        [literal(claim), Craft::ordinary(key).message(key, b"")].concat()
    }),
    crafted("unsigned claim behind", |key, claim| [Craft::ordinary(key).message(key, b"{}"), literal(claim)].concat()),
    differs(crafted("a user attribute behind", |key, claim| {
        [Craft::ordinary(key).message(key, claim), frame(17, b"x")].concat()
    }), Trait::Trailing),
    fixed("empty", b""),
    fixed("HTML", b"<html>Not found</html>"),
    fixed("JSON", b"{}"),
    fixed("one zero", b"\0"),
    fixed("sigstore", b"\0sigstore-json\n{\"mimeType\":\"application/vnd.dev.cosign.simplesigning.v1+json\",\"payload\":\"e30=\",\"annotations\":{}}"),
    fixed("OpenPGP's first octet alone", b"\xa3"),
    fixed("0x93", b"\x93\x01"),
    fixed("0x3D", b"\x3d\x01"),
    Form { label: "an octet flipped", differs: None, make: Make::Flipped(Start::Compressed) },
    Form { label: "an octet flipped, not compressed", differs: None, make: Make::Flipped(Start::Plain) },
    Form { label: "cut", differs: None, make: Make::Cut(Start::Compressed) },
    Form { label: "cut, not compressed", differs: None, make: Make::Cut(Start::Plain) },
];

/// The form that clients write.
pub fn ordinary() -> &'static Form {
    &FORMS[0]
}
