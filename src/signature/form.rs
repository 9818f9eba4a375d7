//! Whether a signature's bytes are all there, by their form alone: files that other programs write
//! in place can be met half-written.

use std::io::ErrorKind;

use flate2::{FlushDecompress, Status};
use serde::de::IgnoredAny;

use super::blob::{BlobError, BlobKind, classify};

/// The most bytes that a compressed message is unpacked to for this.
const UNPACKED_LIMIT: usize = 1024 * 1024;

/// OpenPGP packet types (RFC 9580, 5) that make a signed message.
const SIGNATURE: u8 = 2;
const ONE_PASS: u8 = 4;
const COMPRESSED: u8 = 8;
const LITERAL: u8 = 11;

/// What the form of a signature says about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// It ends where its form says that it ends.
    Whole,
    /// Its form says that more bytes follow.
    CutOff,
    /// Its form does not tell.
    Unknown,
}

impl Form {
    /// Looks at the framing of a stored signature. Nothing is verified.
    pub fn of(blob: &[u8]) -> Self {
        match classify(blob) {
            Ok(BlobKind::SimpleSigning(message)) => message_form(message),
            Ok(BlobKind::SigstoreJson(json)) => json_form(json),
            Err(BlobError::Empty | BlobError::NoNewline) => Self::CutOff,
            Err(_) => Self::Unknown,
        }
    }
}

fn json_form(json: &[u8]) -> Form {
    match serde_json::from_slice::<IgnoredAny>(json) {
        Ok(_) => Form::Whole,
        Err(error) if error.is_eof() => Form::CutOff,
        Err(_) => Form::Unknown,
    }
}

/// Looks at the packets of a signed message: one that ends between two packets is not whole either.
fn message_form(message: &[u8]) -> Form {
    let mut rest = message;
    let (mut one_pass, mut signatures, mut data) = (0_usize, 0_usize, false);
    while !rest.is_empty() {
        let (tag, body) = match packet(&mut rest) {
            Ok(packet) => packet,
            Err(form) => return form,
        };
        match tag {
            ONE_PASS => one_pass += 1,
            SIGNATURE => signatures += 1,
            LITERAL => data = true,
            COMPRESSED => match body.map_or(Form::Whole, compressed_form) {
                Form::Whole => data = true,
                other => return other,
            },
            _ => return Form::Unknown,
        }
    }
    // A compressed message holds its signatures itself; else each one-pass packet announces one.
    match (one_pass, signatures, data) {
        (0, _, true) => Form::Whole,
        (announced, there, true) if announced == there => Form::Whole,
        (announced, there, _) if announced > there => Form::CutOff,
        (0, _, false) => Form::CutOff,
        _ => Form::Unknown,
    }
}

/// Takes one packet off `rest`. The body is returned where its own end is not known from outside.
fn packet<'a>(rest: &mut &'a [u8]) -> Result<(u8, Option<&'a [u8]>), Form> {
    let header = octet(rest)?;
    match header {
        0..=0x7F => Err(Form::Unknown),
        0x80..=0xBF => {
            let tag = (header >> 2) & 0x0F;
            match header & 3 {
                3 if tag == COMPRESSED => Ok((tag, Some(std::mem::take(rest)))),
                3 => Err(Form::Unknown),
                size => {
                    let length = number(rest, 1 << size)?;
                    skip(rest, length)?;
                    Ok((tag, None))
                }
            }
        }
        _ => {
            loop {
                let length = match octet(rest)? {
                    first @ 0..=191 => usize::from(first),
                    first @ 192..=223 => ((usize::from(first) - 192) << 8) + usize::from(octet(rest)?) + 192,
                    255 => number(rest, 4)?,
                    part => {
                        skip(rest, 1 << (part & 0x1F))?;
                        continue;
                    }
                };
                skip(rest, length)?;
                break;
            }
            Ok((header & 0x3F, None))
        }
    }
}

fn octet(rest: &mut &[u8]) -> Result<u8, Form> {
    let (first, behind) = rest.split_first().ok_or(Form::CutOff)?;
    *rest = behind;
    Ok(*first)
}

fn number(rest: &mut &[u8], octets: usize) -> Result<usize, Form> {
    (0..octets).try_fold(0, |number: usize, _| Ok((number << 8) | usize::from(octet(rest)?)))
}

fn skip(rest: &mut &[u8], length: usize) -> Result<(), Form> {
    *rest = rest.get(length..).ok_or(Form::CutOff)?;
    Ok(())
}

/// Looks for the end of a compressed stream: gpg writes such packets without a length.
fn compressed_form(body: &[u8]) -> Form {
    let Some((algorithm, stream)) = body.split_first() else { return Form::CutOff };
    match algorithm {
        1 | 2 => {
            let mut inflate = flate2::Decompress::new(*algorithm == 2);
            stream_form(stream, |input, output| {
                let (taken, made) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, output, FlushDecompress::None);
                let end = match status {
                    Ok(status) => status == Status::StreamEnd,
                    Err(error) => return Err(std::io::Error::new(ErrorKind::InvalidData, error)),
                };
                Ok((inflate.total_in() - taken, inflate.total_out() - made, end))
            })
        }
        3 => {
            let mut bunzip = bzip2::Decompress::new(false);
            stream_form(stream, |input, output| {
                let (taken, made) = (bunzip.total_in(), bunzip.total_out());
                let status = bunzip.decompress(input, output);
                let end = match status {
                    Ok(status) => status == bzip2::Status::StreamEnd,
                    Err(error) => return Err(std::io::Error::new(ErrorKind::InvalidData, error)),
                };
                Ok((bunzip.total_in() - taken, bunzip.total_out() - made, end))
            })
        }
        _ => Form::Unknown,
    }
}

/// One step of a decompressor: how much it took, how much it made, and whether that is the end.
fn stream_form(mut input: &[u8], mut step: impl FnMut(&[u8], &mut [u8]) -> std::io::Result<(u64, u64, bool)>) -> Form {
    let mut output = [0; 4096];
    let mut unpacked = 0_u64;
    while unpacked <= UNPACKED_LIMIT as u64 {
        let Ok((taken, made, end)) = step(input, &mut output) else { return Form::Unknown };
        let Some(behind) = usize::try_from(taken).ok().and_then(|taken| input.get(taken..)) else {
            return Form::Unknown;
        };
        input = behind;
        unpacked += made;
        match (end, input.is_empty()) {
            (true, true) => return Form::Whole,
            (true, false) => return Form::Unknown,
            (false, _) if taken == 0 && made == 0 => return Form::CutOff,
            (false, _) => {}
        }
    }
    Form::Unknown
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const CLAIM: &[u8] = br#"{"critical":{"identity":{"docker-reference":"x"}},"optional":{}}"#;

    /// A one-pass packet, the claim as literal data, and a signature packet, of no real key.
    fn signed() -> Vec<u8> {
        let mut message = vec![0xC4, 13, 3, 0, 8, 22];
        message.extend([7; 8]);
        message.extend([1, 0xCB, u8::try_from(CLAIM.len() + 6).unwrap(), b'b', 0, 0, 0, 0, 0]);
        message.extend(CLAIM);
        message.extend([0xC2, 5, 4, 0, 22, 8, 0]);
        message
    }

    fn compressed(algorithm: u8, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0xA3, algorithm];
        match algorithm {
            1 => {
                let mut packer = flate2::write::DeflateEncoder::new(&mut out, flate2::Compression::best());
                packer.write_all(data).unwrap();
                packer.finish().unwrap();
            }
            2 => {
                let mut packer = flate2::write::ZlibEncoder::new(&mut out, flate2::Compression::best());
                packer.write_all(data).unwrap();
                packer.finish().unwrap();
            }
            _ => {
                let mut packer = bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::best());
                packer.write_all(data).unwrap();
                packer.finish().unwrap();
            }
        }
        out
    }

    fn all_kinds() -> Vec<Vec<u8>> {
        let sigstore = [b"\0sigstore-json\n", &br#"{"mimeType":"a","payload":"eA=="}"#[..]].concat();
        let prefixed = [b"\0simple-signing\n", &signed()[..]].concat();
        let mut kinds: Vec<_> = [1, 2, 3].map(|algorithm| compressed(algorithm, &signed())).into();
        kinds.extend([signed(), sigstore, prefixed]);
        kinds
    }

    #[test]
    fn whole_signatures_are_whole_and_none_of_their_beginnings_is() {
        for blob in all_kinds() {
            assert_eq!(Form::of(&blob), Form::Whole, "{blob:x?}");
            for cut in 0..blob.len() {
                assert_eq!(Form::of(&blob[..cut]), Form::CutOff, "{cut} of {blob:x?}");
            }
        }
    }

    #[test]
    fn a_form_that_says_nothing_is_unknown() {
        let mut trailing = signed();
        trailing.extend(b"rest");
        let mut behind = compressed(1, &signed());
        behind.push(0);
        for blob in [&b"x"[..], b"-----BEGIN PGP", b"<html>", &trailing, &behind, &[0xA3, 9, 1], &[0x93, 1, 2]] {
            assert_eq!(Form::of(blob), Form::Unknown, "{blob:x?}");
        }
        assert_eq!(Form::of(&compressed(1, &vec![0; UNPACKED_LIMIT * 2])), Form::Unknown, "no bomb is unpacked");
        // Literal data in parts, as gpg writes it where it reads from a pipe.
        let mut parts = vec![0xC4, 13];
        parts.extend([3; 13]);
        parts.extend([0xCB, 0xE1, b'b', 0, 4, 0, 0, 0, 0, 0xC2, 1, 0]);
        assert_eq!(Form::of(&parts), Form::Whole);
        for cut in 0..parts.len() {
            assert_eq!(Form::of(&parts[..cut]), Form::CutOff, "{cut}");
        }
    }

    #[test]
    fn what_gpg_writes_is_whole() {
        let home = tempfile::tempdir().unwrap();
        let gpg = |arguments: &[&str]| {
            let mut command = std::process::Command::new("gpg");
            command.args(["--homedir", home.path().to_str().unwrap(), "--batch", "--passphrase", ""]);
            let output = command.args(arguments).stderr(std::process::Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{arguments:?}");
            output.stdout
        };
        gpg(&["--quick-generate-key", "form@example.com", "ed25519", "sign"]);
        let claim = home.path().join("claim");
        std::fs::write(&claim, CLAIM.repeat(40)).unwrap();
        for compress in ["uncompressed", "zip", "zlib", "bzip2"] {
            let message = gpg(&["--compress-algo", compress, "--sign", "-o", "-", claim.to_str().unwrap()]);
            assert_eq!(Form::of(&message), Form::Whole, "{compress}");
            for cut in 0..message.len() {
                assert_eq!(Form::of(&message[..cut]), Form::CutOff, "{compress} {cut}");
            }
        }
        let _ = std::process::Command::new("gpgconf")
            .args(["--homedir", home.path().to_str().unwrap(), "--kill", "all"])
            .status();
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), first in 0xA0u8..=0xC8) {
            let _ = Form::of(&bytes);
            let _ = Form::of(&[&[first], &bytes[..]].concat());
        }
    }
}
