//! Key files against the real gpg: what `gpg --import` makes a usable key of, and nothing else, is a
//! key here. What x/crypto makes of the same files was asked of golang.org/x/crypto 0.4.0; each
//! table says it (spec containers-image 4.4).

use std::time::SystemTime;

use countersign::openpgp::{Keyring, SoftSigner};

use super::craft::{Craft, Key, frame, sub};
use super::gpg::{Exported, Home, key};
use super::{CLAIM, check};

const ID: &[u8] = b"Test <rsa2048@example.com>";
const OTHER_ID: &[u8] = b"Other <other@example.com>";
const CREATED: u32 = 1_704_067_200;
const MONTH: [u8; 4] = 2_592_000_u32.to_be_bytes();

/// Whether a client with gpgme and whether one with x/crypto accepts by the file.
type Clients = (bool, bool);

const BOTH: Clients = (true, true);
const GPG: Clients = (true, false);
const X_CRYPTO: Clients = (false, true);
const NONE: Clients = (false, false);

/// Asks gpg and us about a message by a key file, and compares with what the table says.
fn compare(label: &str, file: &[u8], message: &[u8], (gpg, x_crypto): Clients) {
    let home = Home::new();
    home.run(&["--import"], file);
    assert_eq!(home.accepts(message).is_some(), gpg, "gpg: {label}");
    match check(message, file) {
        Ok(verified) => {
            assert!(gpg, "{label} is accepted");
            let warned = verified.warnings.iter().any(|warning| warning.contains("x/crypto"));
            assert_eq!(warned, !x_crypto, "{label}: {:?}", verified.warnings);
        }
        Err(error) => assert!(!gpg, "{label}: {error}"),
    }
}

fn armoured(exported: &Exported) -> String {
    String::from_utf8(Home::with(&[exported]).ok(&["--armor", "--export", &exported.fingerprint], b"")).unwrap()
}

#[test]
fn armour_is_read_as_gpg_reads_it() {
    let (rsa, other) = (key("rsa2048"), key("rsa3072"));
    let message = Home::with(&[rsa]).ok(&["--sign"], CLAIM);
    let good = armoured(rsa);
    let second = armoured(other);
    let line = good.lines().nth(4).unwrap();
    let checksum = good.lines().find(|line| line.starts_with('=')).unwrap();
    let indented = |by: &str| good.lines().map(|line| format!("{by}{line}\n")).collect::<String>();
    let wrong = |text: &str| text.replace(checksum, "=AAAA");
    let files = [
        ("as gpg wrote it", good.clone(), BOTH),
        ("CR LF", good.replace('\n', "\r\n"), BOTH),
        ("no checksum", good.replace(&format!("{checksum}\n"), ""), BOTH),
        ("text around", format!("Our key:\n\n{good}That was it.\n"), BOTH),
        ("header", good.replace("\n\n", "\nComment: x\n\n"), BOTH),
        ("another END line", good.replace("END PGP PUBLIC KEY BLOCK", "END PGP MESSAGE"), BOTH),
        ("curly quotes before", format!("\u{201c}our key\u{201d}\n{good}"), BOTH),
        ("followed by another", format!("{good}{second}"), BOTH),
        ("behind another", format!("{second}{good}"), GPG),
        ("no END line", good.split("-----END").next().unwrap().to_owned(), GPG),
        ("no empty line", good.replace("\n\n", "\n"), GPG),
        ("a line indented", good.replace(line, &format!("  {line}")), GPG),
        ("a line ends in spaces", good.replace(line, &format!("{line}  ")), GPG),
        ("a long line", good.replace(&format!("{line}\n"), line), GPG),
        ("checksum behind data", good.replace(&format!("\n{checksum}"), checksum), GPG),
        ("line behind the checksum", good.replace("-----END", "\n-----END"), GPG),
        ("message before", format!("-----BEGIN PGP MESSAGE-----\n\n-----END PGP MESSAGE-----\n{good}"), GPG),
        ("wrong checksum", wrong(&good), NONE),
        ("short checksum", good.replace(checksum, "=AA"), NONE),
        ("wrong checksum in a second one", format!("{good}{}", second.replace("\n=", "\n=AAAA\n#")), X_CRYPTO),
        ("no empty line in a second one", format!("{good}{}", second.replace("\n\n", "\n")), X_CRYPTO),
        ("by the second one without empty line", format!("{second}{}", good.replace("\n\n", "\n")), NONE),
        ("byte order mark", format!("\u{feff}{good}"), NONE),
        ("umlaut before", format!("\u{fc}\n{good}"), X_CRYPTO),
        ("indented by four", indented("    "), NONE),
        ("indented by a tab", indented("\t"), NONE),
        ("quoted", indented("> "), NONE),
        ("BEGIN line indented", format!(" {good}"), X_CRYPTO),
        ("text before BEGIN on its line", format!("key: {good}"), NONE),
        ("text behind BEGIN on its line", good.replacen("-----\n", "----- x\n", 1), NONE),
        ("six dashes", good.replacen('-', "--", 1), NONE),
        ("CR only", good.replace('\n', "\r"), NONE),
        ("kind MESSAGE", good.replace("PUBLIC KEY BLOCK", "MESSAGE"), NONE),
        ("kind ARMORED FILE", good.replace("PUBLIC KEY BLOCK", "ARMORED FILE"), NONE),
        ("header without value", good.replace("\n\n", "\nnonsense\n\n"), NONE),
        ("no END line and no line end", good.split("\n-----END").next().unwrap().to_owned(), NONE),
        ("base64 alone", good.lines().filter(|l| !l.starts_with(['-', '='])).collect(), NONE),
        ("empty", String::new(), NONE),
    ];
    for (label, file, clients) in files {
        compare(label, file.as_bytes(), &message, clients);
    }
}

#[test]
fn binary_files_are_read_as_gpg_reads_them() {
    let (rsa, other) = (key("rsa2048"), key("rsa3072"));
    let message = Home::with(&[rsa]).ok(&["--sign"], CLAIM);
    let good = &rsa.public[..];
    let cut = &other.public[..other.public.len() - 5];
    let files: [(&str, Vec<u8>, Clients); 20] = [
        ("unknown packet before", [&frame(40, b"x"), good].concat(), X_CRYPTO),
        ("private packet before", [&frame(63, b"x"), good].concat(), X_CRYPTO),
        ("comment before", [&frame(61, b"x"), good].concat(), BOTH),
        ("marker of other letters before", [&frame(10, b"XYZ"), good].concat(), X_CRYPTO),
        ("marker of other letters behind", [good, &frame(10, b"XYZ")].concat(), X_CRYPTO),
        ("marker of other letters between keys", [good, &frame(10, b"XYZ"), &other.public].concat(), X_CRYPTO),
        ("good", good.to_vec(), BOTH),
        ("behind another", [&other.public, good].concat(), BOTH),
        ("trust packet before", [&frame(12, b"\0\0"), good].concat(), BOTH),
        ("marker before", [&frame(10, b"PGP"), good].concat(), BOTH),
        ("user ID before", [&frame(13, ID), good].concat(), BOTH),
        ("unknown packet behind", [good, &frame(60, b"x")].concat(), BOTH),
        ("another that is cut off behind", [good, cut].concat(), GPG),
        ("another that is cut off before", [cut, good].concat(), NONE),
        ("armour behind", [good, armoured(other).as_bytes()].concat(), NONE),
        ("text behind", [good, b"hello"].concat(), NONE),
        ("zeros behind", [good, &[0; 4]].concat(), NONE),
        ("cut off", good[..good.len() - 5].to_vec(), NONE),
        ("text before", [b"hello", good].concat(), NONE),
        ("line end before", [b"\n", good].concat(), X_CRYPTO),
    ];
    for (label, file, clients) in files {
        compare(label, &file, &message, clients);
    }
    // What only gpg takes there is no key file that anybody writes.
    for strange in [frame(11, b"b\0\0\0\0\0x"), frame(8, &[&[0], good].concat())] {
        assert!(check(&message, &[&strange[..], good].concat()).is_err());
    }
    // x/crypto loses the key before one that it cannot read.
    let ed25519 = &key("ed25519").public[..];
    compare("before an Ed25519 key", &[good, ed25519].concat(), &message, GPG);
    compare_one_of_two("behind an Ed25519 key", &[ed25519, good].concat(), &message);
}

/// As [`compare`], where only the other of two keys is worth a warning.
fn compare_one_of_two(label: &str, file: &[u8], message: &[u8]) {
    assert_eq!(check(message, file).unwrap().warnings, [""; 0], "{label}");
    assert_eq!(Keyring::parse([file]).warnings().count(), 1, "{label}");
}

struct Crafted {
    key: Key,
    other: Key,
}

impl Crafted {
    /// A self-signature with these hashed subpackets besides time and fingerprint.
    fn made(&self, created: u32, hashed: &[u8]) -> Craft {
        let fingerprint = sub(33, &[&[4], &self.key.fingerprint[..]].concat());
        let hashed = [&fingerprint[..], &sub(2, &created.to_be_bytes()), hashed].concat();
        Craft { version: 4, kind: 0x13, hash: 8, created, hashed, unhashed: sub(16, self.key.id()) }
    }

    fn sign(&self) -> Craft {
        self.made(CREATED, &sub(27, &[3]))
    }

    fn of(&self, id: &[u8], craft: &Craft) -> Vec<u8> {
        [frame(13, id), craft.certification(&self.key, id)].concat()
    }

    fn direct(&self, created: u32, hashed: &[u8]) -> Vec<u8> {
        Craft { kind: 0x1F, ..self.made(created, hashed) }.signature(&self.key, &self.key.hashed_form())
    }

    /// A certificate: the primary key and what belongs to it.
    fn cert(&self, parts: &[&[u8]]) -> Vec<u8> {
        [self.key.packet(), parts.concat()].concat()
    }
}

#[test]
fn certificates_are_judged_as_gpg_judges_them() {
    let rsa = key("rsa2048");
    let message = Home::with(&[rsa]).ok(&["--sign"], CLAIM);
    let c = Crafted { key: Key::of(rsa, 0), other: Key::of(key("rsa3072"), 0) };
    let flags = |hashed: &[u8]| [&sub(27, &[3])[..], hashed].concat();
    let only = |craft: &Craft| c.cert(&[&c.of(ID, craft)]);
    let good = c.sign();
    let mut bad = c.of(OTHER_ID, &good);
    *bad.last_mut().unwrap() ^= 1;
    let certify = sub(27, &[1]);
    let with = |hashed: &[u8]| only(&c.made(CREATED, &flags(hashed)));
    let issuer = |hashed: &[u8], unhashed: &[u8]| {
        let made = c.made(CREATED, &flags(hashed));
        only(&Craft { unhashed: unhashed.to_vec(), ..made })
    };
    let expires = flags(&sub(9, &MONTH));
    let long = vec![b'x'; 2049];
    let by_other = |craft: Craft| [frame(13, ID), craft.certification(&c.other, ID)].concat();
    let unknown_version = frame(2, &[&[6][..], &[b'x'; 30]].concat());
    let mut cut = c.made(CREATED + 9, &[&certify[..], &[32, 1, 1]].concat());
    cut.kind = 0x13;
    let bound = {
        let craft = Craft { kind: 0x18, ..c.made(CREATED, &sub(27, &[0x0C])) };
        let both = [c.key.hashed_form(), c.other.hashed_form()].concat();
        [frame(14, &c.other.hashed_form()[3..]), craft.signature(&c.key, &both)].concat()
    };
    let revoked = Craft { kind: 0x30, ..c.made(CREATED + 9, &sub(29, &[0])) }.certification(&c.key, ID);
    let files = [
        ("good", only(&good), BOTH),
        ("no user ID", c.cert(&[]), NONE),
        ("direct signature, no user ID", c.cert(&[&c.direct(CREATED, &sub(27, &[3]))]), NONE),
        ("user ID without self-signature", c.cert(&[&frame(13, ID)]), NONE),
        ("direct, user ID without self-signature", c.cert(&[&c.direct(CREATED, &sub(27, &[3])), &frame(13, ID)]), NONE),
        ("user ID with a bad self-signature", c.cert(&[&bad]), NONE),
        ("user ID signed by another only", c.cert(&[&by_other(Craft::ordinary(&c.other))]), NONE),
        ("one of two user IDs without self-signature", c.cert(&[&frame(13, OTHER_ID), &c.of(ID, &good)]), BOTH),
        ("one of two user IDs with a bad one", c.cert(&[&bad, &c.of(ID, &good)]), GPG),
        ("user ID revoked", c.cert(&[&c.of(ID, &good), &revoked]), BOTH),
        ("user ID too long", c.cert(&[&c.of(&long, &good)]), X_CRYPTO),
        ("MD5", only(&Craft { hash: 1, ..good.clone() }), X_CRYPTO),
        ("SHA-1", only(&Craft { hash: 2, ..good.clone() }), BOTH),
        ("before its key", only(&c.made(CREATED - 5, &sub(27, &[3]))), X_CRYPTO),
        ("for here only", with(&sub(4, &[0])), X_CRYPTO),
        ("casual certification", only(&Craft { kind: 0x12, ..good.clone() }), GPG),
        ("generic certification", only(&Craft { kind: 0x10, ..good.clone() }), BOTH),
        ("issuer as fingerprint only", issuer(b"", b""), NONE),
        ("another issuer", issuer(b"", &sub(16, c.other.id())), NONE),
        ("another issuer before the own", issuer(&sub(16, c.other.id()), &sub(16, c.key.id())), X_CRYPTO),
        ("another issuer behind the own", issuer(&sub(16, c.key.id()), &sub(16, c.other.id())), GPG),
        ("critical signer's user ID", with(&sub(0x80 | 28, ID)), NONE),
        ("critical features", with(&sub(0x80 | 30, &[1])), BOTH),
        ("critical key server", with(&sub(0x80 | 24, b"https://k.example")), GPG),
        ("critical revocable", with(&sub(0x80 | 7, &[1])), GPG),
        ("critical preferences of key server", with(&sub(0x80 | 23, &[0x80])), NONE),
        ("critical unknown", with(&sub(0x80 | 99, b"x")), NONE),
        ("critical unknown, unhashed", issuer(b"", &[sub(16, c.key.id()), sub(0x80 | 99, b"x")].concat()), NONE),
        (
            "critical in another's signature",
            {
                let theirs = Craft::ordinary(&c.other);
                let hashed = [&theirs.hashed[..], &sub(0x80 | 28, ID)].concat();
                let theirs = Craft { kind: 0x10, hashed, ..theirs }.certification(&c.other, ID);
                c.cert(&[&c.of(ID, &good), &theirs])
            },
            GPG,
        ),
        ("signature of version 6", c.cert(&[&c.of(ID, &good), &unknown_version]), NONE),
        ("no key flags", only(&c.made(CREATED, b"")), BOTH),
        ("certifies only", only(&c.made(CREATED, &certify)), NONE),
        ("direct: certifies only", c.cert(&[&c.direct(CREATED, &certify), &c.of(ID, &good)]), X_CRYPTO),
        (
            "a newer user ID certifies only",
            {
                let first = c.made(CREATED, &flags(&sub(25, &[1])));
                c.cert(&[&c.of(ID, &first), &c.of(OTHER_ID, &c.made(CREATED + 100, &certify))])
            },
            X_CRYPTO,
        ),
        (
            "a newer user ID says that it expired",
            {
                let first = c.made(CREATED, &flags(&sub(25, &[1])));
                c.cert(&[&c.of(ID, &first), &c.of(OTHER_ID, &c.made(CREATED + 100, &expires))])
            },
            X_CRYPTO,
        ),
        (
            "an older user ID says that it expired",
            {
                let newer = c.made(CREATED + 100, &sub(27, &[3]));
                c.cert(&[&c.of(ID, &c.made(CREATED, &expires)), &c.of(OTHER_ID, &newer)])
            },
            X_CRYPTO,
        ),
        ("direct: expired", c.cert(&[&c.direct(CREATED, &expires), &c.of(ID, &good)]), X_CRYPTO),
        ("expires at the last second", with(&sub(9, &(u32::MAX - CREATED).to_be_bytes())), BOTH),
        ("expires after 2106", with(&sub(9, &u32::MAX.to_be_bytes())), X_CRYPTO),
        ("user ID behind a subkey", c.cert(&[&bound, &c.of(ID, &good)]), X_CRYPTO),
        (
            "a newer user ID behind a subkey certifies only",
            c.cert(&[&c.of(ID, &good), &bound, &c.of(OTHER_ID, &c.made(CREATED + 100, &certify))]),
            BOTH,
        ),
        (
            "self-signature behind another user ID",
            c.cert(&[&frame(13, ID), &c.of(OTHER_ID, &good), &good.certification(&c.key, ID)]),
            GPG,
        ),
        ("subkey without a signature", c.cert(&[&c.of(ID, &good), &frame(14, &c.other.hashed_form()[3..])]), GPG),
    ];
    for (label, file, clients) in files {
        compare(label, &file, &message, clients);
    }
    // gpg passes over a signature that is cut off inside and goes by an older one; we do not guess.
    assert!(check(&message, &c.cert(&[&c.of(ID, &good), &cut.certification(&c.key, ID)])).is_err());
    // gpg takes the second after 2106 for "never", which nobody means.
    assert!(check(&message, &with(&sub(9, &(u32::MAX - CREATED + 1).to_be_bytes()))).is_err());
}

#[test]
fn a_binding_that_ends_after_2106() {
    let home = Home::new();
    let primary =
        home.generate(&["--faked-system-time", "20240101T000000!"], "P <p@example.com>", "rsa2048", "cert", "never");
    let then = ["--faked-system-time", "20240101T000000!"];
    home.add_subkey(&then, &primary, "rsa2048", "sign", "never");
    let exported = home.exported(&primary);
    let (main, subkey) = (Key::of(&exported, 0), Key::of(&exported, 1));
    let message = home.ok(&["--sign"], CLAIM);
    let packets = super::craft::packets(&exported.public);
    let both = [main.hashed_form(), subkey.hashed_form()].concat();
    let craft_at = |created: u32, by: &Key, kind: u8, hashed: &[u8]| {
        let fingerprint = sub(33, &[&[4], &by.fingerprint[..]].concat());
        let hashed = [&fingerprint[..], &sub(2, &created.to_be_bytes()), hashed].concat();
        Craft { version: 4, kind, hash: 8, created, hashed, unhashed: sub(16, by.id()) }.signature(by, &both)
    };
    let craft = |by: &Key, kind: u8, hashed: &[u8]| craft_at(CREATED, by, kind, hashed);
    let back = &craft(&subkey, 0x19, b"")[6..];
    for (seconds, gpg) in [(0, true), (u32::MAX - CREATED, true), (u32::MAX, false)] {
        let binding = craft(&main, 0x18, &[sub(27, &[2]), sub(32, back), sub(3, &seconds.to_be_bytes())].concat());
        let file = [&packets[..4].concat()[..], &binding].concat();
        let judge = Home::new();
        judge.run(&["--import"], &file);
        assert_eq!(judge.accepts(&message).is_some(), gpg, "{seconds}");
        assert_eq!(check(&message, &file).is_ok(), gpg, "{seconds}");
    }
    // gpg goes by the newest binding, whatever is wrong with it.
    let good = craft(&main, 0x18, &[sub(27, &[2]), sub(32, back)].concat());
    let mut bad_back = back.to_vec();
    *bad_back.last_mut().unwrap() ^= 1;
    let newer = |hashed: &[u8]| craft_at(CREATED + 100, &main, 0x18, hashed);
    for (label, second, gpg) in [
        ("a newer good one", newer(&[sub(27, &[2]), sub(32, back)].concat()), true),
        ("a newer one without back-signature", newer(&sub(27, &[2])), false),
        ("a newer one with a bad back-signature", newer(&[sub(27, &[2]), sub(32, &bad_back)].concat()), false),
        (
            "a newer one that has expired",
            newer(&[sub(27, &[2]), sub(32, back), sub(3, &[0, 0, 0, 60])].concat()),
            false,
        ),
    ] {
        let file = [&packets[..4].concat()[..], &good, &second].concat();
        let judge = Home::new();
        judge.run(&["--import"], &file);
        assert_eq!(judge.accepts(&message).is_some(), gpg, "gpg: {label}");
        assert_eq!(check(&message, &file).is_ok(), gpg, "{label}");
    }
}

#[test]
fn a_key_that_no_client_imports_is_not_signed_with() {
    let rsa = key("rsa2048");
    let packets = super::craft::packets(&rsa.secret);
    let without_user_id = SoftSigner::load(&packets[0], None, SystemTime::now()).unwrap_err();
    assert!(without_user_id.to_string().contains("no client imports its public key"), "{without_user_id}");
    assert!(without_user_id.to_string().contains("no user ID"), "{without_user_id}");
}
