//! ASCII armour of key files, read as `gpg --import` reads it: a file out of which gpg gets no key
//! gives none here, and where x/crypto gets less than gpg, that is said
//! (spec containers-image 4.4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The blocks that hold keys. gpg looks for no other kind in a key file.
const KEY_BLOCKS: [&[u8]; 2] = [b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----BEGIN PGP PRIVATE KEY BLOCK-----"];
const BEGIN: &[u8] = b"-----BEGIN ";
/// x/crypto gives up on longer lines inside a block.
const LINE_LIMIT: usize = 96;

/// Why a file has no readable armour. gpg gets no key out of the whole file then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArmorError {
    #[error("it has no armoured key block that begins at the start of a line")]
    NoBlock,
    #[error("the checksum of an armoured key block is wrong")]
    Checksum,
    #[error("a later armoured key block has no empty line before its data")]
    NoEmptyLine,
    #[error("an armoured key block is damaged: it holds something other than base64")]
    Damaged,
}

/// What the armour of a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dearmored {
    /// The octets of all key blocks, one after another, as gpg reads them.
    pub bytes: Vec<u8>,
    /// How many of them are of the first block, the only one that x/crypto reads.
    pub first_block: usize,
    /// What makes x/crypto refuse the first block.
    pub x_crypto: Option<&'static str>,
}

/// Decodes the armoured key blocks of a file.
pub(super) fn decode(text: &[u8]) -> Result<Dearmored, ArmorError> {
    let mut out = Dearmored { bytes: Vec::new(), first_block: 0, x_crypto: None };
    let mut blocks = 0;
    let mut lines = text.split_inclusive(|octet| *octet == b'\n');
    let mut other_before = false;
    while let Some(line) = lines.next() {
        let line = line.trim_ascii_end();
        if !KEY_BLOCKS.contains(&line) {
            other_before |= line.trim_ascii_start().starts_with(BEGIN);
            continue;
        }
        let (bytes, fault) = block(&mut lines, blocks == 0)?;
        blocks += 1;
        out.bytes.extend(bytes);
        if blocks == 1 {
            out.first_block = out.bytes.len();
            out.x_crypto =
                if other_before { Some("another armoured block stands before that of the key") } else { fault };
        }
    }
    if blocks == 0 { Err(ArmorError::NoBlock) } else { Ok(out) }
}

/// Reads one block behind its first line: its octets, and what makes x/crypto refuse it.
fn block<'a>(
    lines: &mut impl Iterator<Item = &'a [u8]>,
    first: bool,
) -> Result<(Vec<u8>, Option<&'static str>), ArmorError> {
    let mut fault = None;
    let mut complain = |why: &'static str| {
        fault.get_or_insert(why);
    };
    let mut in_headers = true;
    let mut ended = false;
    let mut data = Vec::new();
    let mut line_of_checksum = false;
    let mut whole_line = true;
    for whole in lines {
        whole_line = whole.ends_with(b"\n");
        let line = whole.trim_ascii();
        if in_headers {
            if line.is_empty() {
                in_headers = false;
                continue;
            }
            let spaced = whole.windows(2).position(|pair| pair == b": ");
            if spaced.is_some_and(|at| whole.iter().position(|octet| *octet == b':') == Some(at)) {
                if !line.windows(2).any(|pair| pair == b": ") {
                    complain("a header of the armour is empty");
                }
                continue;
            }
            // Without an empty line before it, gpg takes this for the first line of data; in a later block
            // it gives up the whole file.
            if !first {
                return Err(ArmorError::NoEmptyLine);
            }
            complain("the armour has no empty line before its data");
            in_headers = false;
        }
        if whole.starts_with(b"-----") {
            ended = true;
            if !whole.starts_with(b"-----END PGP ") {
                complain("the armour has no END line");
            }
            break;
        }
        let printed = whole.strip_suffix(b"\n").unwrap_or(whole);
        let printed = printed.strip_suffix(b"\r").unwrap_or(printed);
        if printed != line || printed.len() > LINE_LIMIT || line.contains(&b' ') {
            complain("lines of the armour are indented, end in spaces or are too long");
        }
        if line_of_checksum {
            complain("something stands between the checksum of the armour and its END line");
        }
        line_of_checksum |= line.starts_with(b"=") && line.len() == 5;
        data.extend(line.iter().filter(|octet| !octet.is_ascii_whitespace()));
    }
    if !ended && !whole_line {
        // gpg reads a last line without a line end only if it is the END line.
        return Err(ArmorError::Damaged);
    }
    if !ended {
        complain("the armour has no END line");
    }
    let (encoded, checksum) = part(&data);
    if checksum.is_some() && !line_of_checksum {
        complain("the checksum of the armour has no line of its own");
    }
    let bytes = STANDARD.decode(encoded).map_err(|_| ArmorError::Damaged)?;
    if let Some(checksum) = checksum {
        let said = STANDARD.decode(checksum).map_err(|_| ArmorError::Checksum)?;
        if said != crc24(&bytes) {
            return Err(ArmorError::Checksum);
        }
    }
    Ok((bytes, fault))
}

/// Parts the data from its checksum: `=` and four characters, where data ends with four whole ones.
fn part(data: &[u8]) -> (&[u8], Option<&[u8]>) {
    match data.len() % 4 {
        1 => match data.split_last_chunk::<5>() {
            Some((encoded, [b'=', ..])) => (encoded, data.get(data.len() - 4..)),
            _ => (data, None),
        },
        _ => (data, None),
    }
}

/// The checksum of armour (RFC 9580, 6.1).
fn crc24(bytes: &[u8]) -> [u8; 3] {
    let mut crc: u32 = 0x00B7_04CE;
    for octet in bytes {
        crc ^= u32::from(*octet) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4CFB;
            }
        }
    }
    let [_, high, middle, low] = crc.to_be_bytes();
    [high, middle, low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn armor(bytes: &[u8]) -> String {
        let data = STANDARD.encode(bytes);
        let lines: Vec<&str> = data.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let checksum = STANDARD.encode(crc24(bytes));
        format!(
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{}\n={checksum}\n-----END PGP PUBLIC KEY BLOCK-----\n",
            lines.join("\n")
        )
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc24(b""), [0xB7, 0x04, 0xCE]);
        assert_eq!(crc24(b"123456789"), [0x21, 0xCF, 0x02]);
    }

    #[test]
    fn what_both_clients_read_is_read_without_a_word() {
        let bytes = [7; 200];
        let good = armor(&bytes);
        for text in [
            good.clone(),
            good.replace('\n', "\r\n"),
            good.replace("\n\n", "\nVersion: x\nComment: a: b\n\n"),
            good.replace("\n\n", "\n  \n"),
            good.replace("\n=", "\n\n="),
            format!("Our key:\n\n{good}That was it.\n-----\n"),
            good.replace("BLOCK-----\n\n", "BLOCK----- \n\n"),
            good.trim_end().to_owned(),
        ] {
            let expected = Dearmored { bytes: bytes.to_vec(), first_block: 200, x_crypto: None };
            assert_eq!(decode(text.as_bytes()), Ok(expected), "{text}");
        }
        let without: String = good.lines().filter(|line| !line.starts_with('=')).map(|l| format!("{l}\n")).collect();
        assert_eq!(decode(without.as_bytes()).unwrap().bytes, bytes);
    }

    #[test]
    fn what_only_gpg_reads_says_so() {
        let bytes = [7; 200];
        let good = armor(&bytes);
        let data = good.lines().nth(3).unwrap();
        for text in [
            good.replace("-----END", "\n-----END"),
            good.split("-----END").next().unwrap().to_owned(),
            good.replace("END PGP PUBLIC KEY BLOCK", "END"),
            good.replace("\n\n", "\n"),
            good.replace("\n\n", "\nVersion: x\n"),
            good.replace("\n\n", "\nComment: \n\n"),
            good.replace(data, &format!("  {data}")),
            good.replace(data, &format!("{data} ")),
            good.replace(&format!("{data}\n"), data),
            good.replace("\n=", "="),
            format!("-----BEGIN PGP MESSAGE-----\n\n-----END PGP MESSAGE-----\n{good}"),
        ] {
            let found = decode(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert_eq!(found.bytes, bytes, "{text}");
            assert!(found.x_crypto.is_some(), "{text}");
        }
        let two = decode(format!("{good}and\n{good}").as_bytes()).unwrap();
        assert_eq!((two.bytes.len(), two.first_block, two.x_crypto), (400, 200, None));
    }

    #[test]
    fn what_gpg_does_not_read_is_not_read() {
        let good = armor(&[7; 200]);
        let indented: String = good.lines().map(|line| format!("    {line}\n")).collect();
        for text in [
            indented,
            format!("\u{feff}{good}"),
            format!("key: {good}"),
            format!(" {good}"),
            good.replace('\n', "\r"),
            good.replace("BEGIN PGP PUBLIC KEY BLOCK", "BEGIN PGP MESSAGE"),
            good.replace("BEGIN PGP PUBLIC KEY BLOCK", "BEGIN PGP ARMORED FILE"),
            good.replace("-----BEGIN", "------BEGIN"),
            good.replace("BLOCK-----\n\n", "BLOCK----- x\n\n"),
            "no key".to_owned(),
            String::new(),
        ] {
            assert_eq!(decode(text.as_bytes()), Err(ArmorError::NoBlock), "{text}");
        }
        let checksum = good.find("\n=").unwrap() + 2;
        let mut wrong = good.clone();
        wrong.replace_range(checksum..checksum + 4, "AAAA");
        assert_eq!(decode(wrong.as_bytes()), Err(ArmorError::Checksum));
        // gpg drops the keys of the other blocks, too.
        assert_eq!(decode(format!("{good}{wrong}").as_bytes()), Err(ArmorError::Checksum));
        wrong.replace_range(checksum..checksum + 4, "!!!!");
        assert_eq!(decode(wrong.as_bytes()), Err(ArmorError::Checksum));
        for text in [
            good.replace("\n\n", "\nnonsense\n\n"),
            good.replace("\n\n", "\nVersion:x\n\n"),
            good.replacen("BwcH", "BwcH!", 1),
            good.split("-----END").next().unwrap().to_owned() + "hello\n",
            good.split("\n-----END").next().unwrap().to_owned(),
        ] {
            assert!(matches!(decode(text.as_bytes()), Err(ArmorError::Damaged | ArmorError::Checksum)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decode(armor(&bytes).as_bytes()).unwrap().bytes, bytes);
        }

        #[test]
        fn never_panics(text in "(-----BEGIN PGP PUBLIC KEY BLOCK-----\n)?[A-Za-z0-9+/=:\r\n -]{0,200}") {
            let _ = decode(text.as_bytes());
        }
    }
}
