//! Bounded decompression that knows where a stream ends, so that bytes hidden behind it are seen.

use flate2::{FlushDecompress, Status};

/// Why compressed data was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecompressError {
    #[error("algorithm {0} is not known")]
    Algorithm(u8),
    #[error("the compressed data is damaged or cut off")]
    Damaged,
    #[error("it unpacks to more than {0} bytes")]
    TooLarge(usize),
}

/// What came out of a compressed packet.
pub(super) struct Inflated {
    pub bytes: Vec<u8>,
    /// Something follows the end of the compressed stream, inside the same packet.
    pub trailing: bool,
}

/// One step of a decompressor: took some input, appended some output, and is it the end?
type Step<'a> = dyn FnMut(&[u8], &mut Vec<u8>) -> Option<(usize, bool)> + 'a;

/// Unpacks the body of a compressed data packet (RFC 9580, 5.6): algorithm octet, then the stream.
/// Never holds more than `limit` bytes of output.
pub(super) fn decompress(body: &[u8], limit: usize) -> Result<Inflated, DecompressError> {
    let (&algorithm, stream) = body.split_first().ok_or(DecompressError::Damaged)?;
    match algorithm {
        0 if stream.len() > limit => Err(DecompressError::TooLarge(limit)),
        0 => Ok(Inflated { bytes: stream.to_vec(), trailing: false }),
        1 | 2 => {
            let mut inflate = flate2::Decompress::new(algorithm == 2);
            run(stream, limit, &mut |input, output| {
                let before = inflate.total_in();
                let status = inflate.decompress_vec(input, output, FlushDecompress::None).ok()?;
                let taken = usize::try_from(inflate.total_in() - before).ok()?;
                Some((taken, status == Status::StreamEnd))
            })
        }
        3 => {
            let mut bunzip = bzip2::Decompress::new(false);
            run(stream, limit, &mut |input, output| {
                let before = bunzip.total_in();
                let status = bunzip.decompress_vec(input, output).ok()?;
                let taken = usize::try_from(bunzip.total_in() - before).ok()?;
                Some((taken, status == bzip2::Status::StreamEnd))
            })
        }
        other => Err(DecompressError::Algorithm(other)),
    }
}

fn run(mut input: &[u8], limit: usize, step: &mut Step<'_>) -> Result<Inflated, DecompressError> {
    // One octet more than allowed, to tell "full" from "too much".
    let mut bytes = Vec::new();
    let mut room = limit.min(4096) + 1;
    loop {
        bytes.reserve_exact(room.saturating_sub(bytes.len()));
        let before = bytes.len();
        let (taken, end) = step(input, &mut bytes).ok_or(DecompressError::Damaged)?;
        input = input.get(taken..).ok_or(DecompressError::Damaged)?;
        if bytes.len() > limit {
            return Err(DecompressError::TooLarge(limit));
        }
        if end {
            return Ok(Inflated { bytes, trailing: !input.is_empty() });
        }
        if bytes.len() >= room {
            room = (room * 4).min(limit + 1);
        } else if taken == 0 && bytes.len() == before {
            return Err(DecompressError::Damaged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LIMIT: usize = 100_000;

    fn packed(algorithm: u8, data: &[u8]) -> Vec<u8> {
        let mut out = vec![algorithm];
        match algorithm {
            0 => out.extend_from_slice(data),
            1 => {
                let mut w = flate2::write::DeflateEncoder::new(&mut out, flate2::Compression::best());
                w.write_all(data).unwrap();
                w.finish().unwrap();
            }
            2 => {
                let mut w = flate2::write::ZlibEncoder::new(&mut out, flate2::Compression::best());
                w.write_all(data).unwrap();
                w.finish().unwrap();
            }
            _ => {
                let mut w = bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::best());
                w.write_all(data).unwrap();
                w.finish().unwrap();
            }
        }
        out
    }

    #[test]
    fn round_trips_and_sees_what_follows() {
        for algorithm in 0..=3 {
            for length in [0, 1, 4096, 4097, 70_000, LIMIT] {
                let data: Vec<u8> = (0..length).map(|i| (i * i % 251) as u8).collect();
                let mut body = packed(algorithm, &data);
                let out = decompress(&body, LIMIT).unwrap();
                assert!(out.bytes == data && !out.trailing, "{algorithm} {length}");
                if algorithm != 0 {
                    body.push(0);
                    let out = decompress(&body, LIMIT).unwrap();
                    assert!(out.bytes == data && out.trailing, "{algorithm} {length}");
                    body.extend(packed(algorithm, &data));
                    assert!(decompress(&body, LIMIT).unwrap().trailing);
                }
            }
        }
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        for algorithm in 0..=3 {
            for length in [LIMIT + 1, 10_000_000] {
                let body = packed(algorithm, &vec![0; length]);
                assert!(matches!(decompress(&body, LIMIT), Err(DecompressError::TooLarge(LIMIT))), "{algorithm}");
            }
            if algorithm != 0 {
                let body = packed(algorithm, b"hello hello hello");
                for cut in 1..body.len() {
                    assert!(
                        matches!(decompress(&body[..cut], LIMIT), Err(DecompressError::Damaged)),
                        "{algorithm} {cut}"
                    );
                }
            }
        }
        // The checksum at the end of ZLIB and BZip2 streams is looked at.
        let mut body = packed(2, b"hello");
        *body.last_mut().unwrap() ^= 1;
        assert!(decompress(&body, LIMIT).is_err());
        assert!(matches!(decompress(&[4, 1, 2], LIMIT), Err(DecompressError::Algorithm(4))));
        assert!(decompress(&[], LIMIT).is_err());
    }
}
