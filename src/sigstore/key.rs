//! Public keys that sign payloads and log entries: ECDSA, RSA (PKCS #1 v1.5) and Ed25519.
//!
//! The hash is always SHA-256, whatever the curve, as containers/image fixes it. Key and signature
//! formats are checked by aws-lc; here only the kind of key is read.

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use sha2::{Digest as _, Sha256};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::pem;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ELLIPTIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const EDWARDS_25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// The least RSA modulus that is trusted, and the most that is computed with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a text or a certificate holds no key to trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM block.
    #[error("PEM decoding failed")]
    Pem,
    /// The block is something else than a public key.
    #[error("unknown Public key PEM file type: {0}. Are you passing the correct public key?")]
    Label(String),
    /// The key's ASN.1 is broken.
    #[error("x509: malformed public key: {0}")]
    Malformed(String),
    /// The algorithm, or the curve, is none of those that can be verified here.
    #[error("unsupported public key type: algorithm {0}; ECDSA P-256, P-384, P-521, RSA and Ed25519 are supported")]
    Unsupported(String),
    /// The RSA modulus is too short to trust or too long to compute with.
    #[error("unsupported RSA public key: {0} bits; 2048 to 8192 are supported")]
    RsaSize(usize),
}

/// Reads a key file as a policy uses it, and returns how many PEM blocks it has: only the first counts.
///
/// # Errors
/// [`KeyError`] if no signature is ever accepted by it.
pub fn check_public_keys(text: &[u8]) -> Result<usize, KeyError> {
    PublicKey::from_pem(text)?;
    Ok(pem::labels(text).len())
}

/// A parsed public key.
#[derive(Clone)]
pub(super) struct PublicKey {
    kind: Kind,
    parsed: ParsedPublicKey,
    /// The key as SubjectPublicKeyInfo, encoded anew, so that one key has one encoding.
    spki: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ecdsa,
    Rsa,
    Ed25519,
}

impl PublicKey {
    /// Reads the first PEM block; what follows it is ignored, as there.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let (block, _) = pem::decode(text).ok_or(KeyError::Pem)?;
        match block.label.as_str() {
            "PUBLIC KEY" => Self::from_spki(&block.der),
            "RSA PUBLIC KEY" => Self::rsa(&block.der),
            _ => Err(KeyError::Label(block.label)),
        }
    }

    /// Reads a SubjectPublicKeyInfo.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|e| KeyError::Malformed(e.to_string()))?;
        let malformed = |what: &str| KeyError::Malformed(what.to_owned());
        let bits = spki.subject_public_key.as_bytes().ok_or_else(|| malformed("key is no whole number of bytes"))?;
        let parameters = spki.algorithm.parameters;
        match spki.algorithm.oid {
            RSA if parameters.is_some_and(|any| any.is_null()) => Self::rsa(bits),
            RSA => Err(malformed("RSA key missing NULL parameters")),
            ELLIPTIC => {
                let curve = parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
                let curve = curve.ok_or_else(|| malformed("elliptic key without a named curve"))?;
                let algorithm: &'static dyn VerificationAlgorithm = match curve {
                    P256 => &ECDSA_P256_SHA256_ASN1,
                    P384 => &ECDSA_P384_SHA256_ASN1,
                    P521 => &ECDSA_P521_SHA256_ASN1,
                    other => return Err(KeyError::Unsupported(format!("ECDSA on curve {other}"))),
                };
                if bits.first() != Some(&4) {
                    return Err(malformed("failed to unmarshal elliptic curve point"));
                }
                Self::parsed(Kind::Ecdsa, algorithm, bits)
            }
            EDWARDS_25519 if parameters.is_none() && bits.len() == 32 => Self::parsed(Kind::Ed25519, &ED25519, bits),
            EDWARDS_25519 => Err(malformed("wrong Ed25519 public key encoding")),
            other => Err(KeyError::Unsupported(other.to_string())),
        }
    }

    fn rsa(der: &[u8]) -> Result<Self, KeyError> {
        let malformed = |_| KeyError::Malformed("failed to parse RSA public key".to_owned());
        let key = rsa::PublicKey::from_der(der).map_err(malformed)?;
        let modulus = key.modulus();
        let modulus = modulus.big_endian_without_leading_zero();
        let spare = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        let bits = (modulus.len() * 8).saturating_sub(spare);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        Self::parsed(Kind::Rsa, &RSA_PKCS1_2048_8192_SHA256, der)
    }

    fn parsed(kind: Kind, algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        let parsed =
            ParsedPublicKey::new(algorithm, bytes).map_err(|rejected| KeyError::Malformed(rejected.to_string()))?;
        let spki = parsed.as_der().map_err(|_| KeyError::Malformed("key cannot be encoded".to_owned()))?;
        Ok(Self { kind, spki: spki.as_ref().to_vec(), parsed })
    }

    /// Tells whether this is an ECDSA key, the only kind that Rekor may sign with.
    pub fn is_ecdsa(&self) -> bool {
        self.kind == Kind::Ecdsa
    }

    /// Returns the key as SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Returns the SHA-256 of [`PublicKey::spki`] in hex, by which people tell keys apart.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.spki))
    }

    /// Verifies `signature` over `message`; the error is the sentence that Go has for it.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), &'static str> {
        self.parsed.verify_sig(message, signature).map_err(|_| match self.kind {
            Kind::Ecdsa => "invalid signature when validating ASN.1 encoded signature",
            Kind::Rsa => "crypto/rsa: verification error",
            Kind::Ed25519 => "failed to verify signature",
        })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?} {})", self.kind, self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armour(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        rcgen::KeyPair::generate_for(algorithm).unwrap().public_key_pem()
    }

    #[test]
    fn reads_the_kinds_that_sign() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let text = pem(algorithm);
            let key = PublicKey::from_pem(text.as_bytes()).unwrap();
            let (block, _) = pem::decode(text.as_bytes()).unwrap();
            assert_eq!(key.spki(), block.der, "the encoding is kept");
            assert_eq!(key.is_ecdsa(), key.kind == Kind::Ecdsa);
            assert_eq!(key.fingerprint().len(), 64);
        }
    }

    #[test]
    fn refuses_what_is_no_key_or_too_weak() {
        assert_eq!(PublicKey::from_pem(b"").unwrap_err(), KeyError::Pem);
        let private = armour("ENCRYPTED SIGSTORE PRIVATE KEY", b"x");
        assert_eq!(
            PublicKey::from_pem(private.as_bytes()).unwrap_err().to_string(),
            "unknown Public key PEM file type: ENCRYPTED SIGSTORE PRIVATE KEY. Are you passing the correct public key?"
        );
        let good = PublicKey::from_pem(pem(&rcgen::PKCS_ECDSA_P256_SHA256).as_bytes()).unwrap();
        let mut trailing = good.spki().to_vec();
        trailing.push(0);
        assert!(matches!(PublicKey::from_spki(&trailing), Err(KeyError::Malformed(_))));
        // The last byte of the point: no longer on the curve.
        let mut off = good.spki().to_vec();
        *off.last_mut().unwrap() ^= 1;
        assert!(matches!(PublicKey::from_spki(&off), Err(KeyError::Malformed(_))));
        // secp256k1 instead of P-256 (same length of the whole, other OID): openssl's own encoding.
        let k1 = hex::decode("3056301006072a8648ce3d020106052b8104000a03420004").unwrap();
        let k1 = [k1, vec![7; 64]].concat();
        assert!(matches!(PublicKey::from_spki(&k1), Err(KeyError::Unsupported(_))));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(at in 0usize..91, with in proptest::prelude::any::<u8>(), bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            let mut der = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
            der.extend([4; 65]);
            der[at] = with;
            let _ = PublicKey::from_spki(&der);
            let _ = PublicKey::from_spki(&bytes);
            let _ = PublicKey::from_pem(&bytes);
        }
    }
}
