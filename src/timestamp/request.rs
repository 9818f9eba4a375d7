//! The question to a time stamping authority (RFC 3161, 2.4.1).

/// A question: may these bytes, known by their SHA-256, have a time stamp?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    sha256: [u8; 32],
    nonce: [u8; 8],
}

/// `AlgorithmIdentifier` of SHA-256, without parameters.
const SHA256: [u8; 13] = [0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

impl Request {
    /// The media type of a question.
    pub const MEDIA_TYPE: &'static str = "application/timestamp-query";

    /// Makes a question about bytes with this hash. `random` is what makes the answer one to this
    /// question and no other.
    pub fn new(sha256: [u8; 32], random: [u8; 8]) -> Self {
        // A positive number without zeros in front, so that its encoding is always these eight bytes.
        let [first, rest @ ..] = random;
        let mut nonce = [0; 8];
        nonce.iter_mut().zip([(first & 0x7f) | 0x40].into_iter().chain(rest)).for_each(|(to, from)| *to = from);
        Self { sha256, nonce }
    }

    /// Returns the hash.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Returns the number, as the bytes of an INTEGER.
    pub(super) fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// Writes the question in DER; it asks for the authority's certificates, too.
    pub fn to_der(&self) -> Vec<u8> {
        let imprint = sequence(&[&SHA256[..], &element(0x04, &self.sha256)].concat());
        sequence(&[&element(0x02, &[1])[..], &imprint, &element(0x02, &self.nonce), &element(0x01, &[0xff])].concat())
    }
}

fn sequence(inside: &[u8]) -> Vec<u8> {
    element(0x30, inside)
}

/// Writes an element; all that stand in a question are short.
fn element(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag, u8::try_from(value.len()).unwrap_or(0x7f)];
    bytes.extend_from_slice(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_have_one_form() {
        let der = Request::new([7; 32], [0; 8]).to_der();
        assert_eq!(der.len(), usize::from(der[1]) + 2);
        assert_eq!(&der[..5], [0x30, 0x41, 0x02, 0x01, 0x01]);
        for random in [[0xff; 8], [0; 8], [0x80; 8]] {
            let nonce = Request::new([7; 32], random).nonce;
            assert!((0x40..0x80).contains(&nonce[0]));
        }
    }
}
