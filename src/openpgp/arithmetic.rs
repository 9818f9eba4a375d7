//! Whether a key made a signature over a digest. Ed25519 is asked of aws-lc, which needs a third
//! of the time, everything else of Sequoia. What both are asked is the bare
//! arithmetic: see the header of this room for why not `Signature::verify_*`.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use sequoia_openpgp::crypto::mpi;
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{KeyParts, KeyRole};
use sequoia_openpgp::types::{Curve, HashAlgorithm};

/// Tells whether `key` made `signature` over this digest. What cannot be computed is no.
pub(super) fn holds<P: KeyParts, R: KeyRole>(
    key: &Key<P, R>,
    signature: &mpi::Signature,
    hash: HashAlgorithm,
    digest: &[u8],
) -> bool {
    match (key.mpis(), signature) {
        (mpi::PublicKey::EdDSA { curve: Curve::Ed25519, q }, mpi::Signature::EdDSA { r, s }) => {
            let Some(public) = q.value().strip_prefix(&[0x40]) else { return false };
            let (Some(r), Some(s)) = (padded(r), padded(s)) else { return false };
            UnparsedPublicKey::new(&ED25519, public).verify(digest, &[r, s].concat()).is_ok()
        }
        _ => key.verify(signature, hash, digest).is_ok(),
    }
}

/// An MPI has lost its leading zeros.
fn padded(number: &mpi::MPI) -> Option<[u8; 32]> {
    number.value_padded(32).ok()?.as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use sequoia_openpgp::crypto::Signer as _;
    use sequoia_openpgp::packet::key::{Key4, PrimaryRole, SecretParts};

    use super::*;

    #[test]
    fn ed25519_says_what_sequoia_says() {
        let key: Key<SecretParts, PrimaryRole> = Key4::generate_ecc(true, Curve::Ed25519).unwrap().into();
        let mut pair = key.clone().into_keypair().unwrap();
        let mut shortened = 0;
        // Enough for numbers that have lost a leading zero.
        for n in 0..700_u32 {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &n.to_be_bytes());
            let signature = pair.sign(HashAlgorithm::SHA256, digest.as_ref()).unwrap();
            let mpi::Signature::EdDSA { r, s } = &signature else { panic!("{signature:?}") };
            shortened += usize::from(r.value().len() < 32 || s.value().len() < 32);
            assert!(holds(&key, &signature, HashAlgorithm::SHA256, digest.as_ref()));
            assert!(!holds(&key, &signature, HashAlgorithm::SHA256, &[n.to_be_bytes()[3]; 32]));
            let swapped = mpi::Signature::EdDSA { r: s.clone(), s: r.clone() };
            assert!(!holds(&key, &swapped, HashAlgorithm::SHA256, digest.as_ref()));
            let long = mpi::Signature::EdDSA { r: mpi::MPI::new(&[1; 33]), s: s.clone() };
            assert!(!holds(&key, &long, HashAlgorithm::SHA256, digest.as_ref()));
            let other = mpi::Signature::RSA { s: r.clone() };
            assert!(!holds(&key, &other, HashAlgorithm::SHA256, digest.as_ref()));
        }
        assert!(shortened > 0);
    }
}
