//! Is this signature's author one whom the policy vouches for? Asked before a signature is made
//! anew, mirrored or admitted (spec containers-image 5.6, last paragraph).
//!
//! Stricter than the decision about an image: a policy that accepts anything vouches for nobody.

use super::document::Policy;
use super::evidence::{Form, Image, SignatureBlob};
use super::examine::Examiner;
use super::mechanism::{Mechanism, SignedContent};
use super::reason::Reason;
use super::requirement::Requirement;
use super::scope::ScopeMatch;
use crate::signature::Claim;

/// A signature that the policy vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedAuthor {
    /// Which part of the policy spoke.
    pub scope: ScopeMatch,
    /// The verified claim.
    pub claim: Claim,
    /// The fingerprint of the signer's primary key, upper-case hex.
    pub fingerprint: String,
    /// The fingerprint of the key that signed.
    pub signing_key: String,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// What the cryptography remarked.
    pub warnings: Vec<String>,
}

/// Why a signature is not vouched for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A requirement rejects it.
    #[error("{reason}")]
    Rejected {
        /// Which part of the policy spoke.
        scope: ScopeMatch,
        /// Which requirement of its list, from 0.
        requirement: usize,
        /// Why.
        reason: Reason,
    },
    /// No requirement has an opinion.
    #[error(
        "no signedBy requirement in scope {scope} of the policy, so nobody vouches for the signature; add one with the signer's key"
    )]
    NobodyVouches {
        /// Which part of the policy spoke.
        scope: ScopeMatch,
    },
    /// It is no signature.
    #[error("{0}")]
    Unreadable(Reason),
    /// It is a signature of another kind.
    #[error("it is a sigstore signature, simple signing expected")]
    NotSimpleSigning,
    /// Two requirements verified it with different contents, which cannot be.
    #[error("two requirements read different claims from the one signature")]
    Inconsistent,
}

/// Asks every requirement for its vote on one signature of an image: it is vouched for if at least
/// one accepts and none rejects. `insecureAcceptAnything` and `signedBaseLayer` have no opinion;
/// `reject` and `sigstoreSigned` reject.
///
/// # Errors
/// [`Refusal`], of the first requirement that rejects.
pub fn author_accepted(
    policy: &Policy,
    image: &Image<'_>,
    signature: &SignatureBlob,
    mechanism: &dyn Mechanism,
) -> Result<AcceptedAuthor, Refusal> {
    let message = match signature.form() {
        Ok(Form::Simple(message)) => message,
        Ok(Form::Sigstore(_)) => return Err(Refusal::NotSimpleSigning),
        Err(reason) => return Err(Refusal::Unreadable(reason)),
    };
    let namespaces = image.namespaces.iter().map(String::as_str);
    let (scope, requirements) = policy.requirements(image.transport, &image.identity, namespaces);
    let examiner = Examiner::new(image, mechanism);
    let mut vouched: Option<(SignedContent, Claim)> = None;
    for (number, requirement) in requirements.iter().enumerate() {
        let rejected = |reason| Refusal::Rejected { scope: scope.clone(), requirement: number, reason };
        let signed_by = match requirement {
            Requirement::InsecureAcceptAnything | Requirement::SignedBaseLayer(_) => continue,
            Requirement::Reject => return Err(rejected(Reason::SignaturesRejected { image: image.name.clone() })),
            Requirement::SigstoreSigned(_) => return Err(rejected(Reason::SigstoreAuthor)),
            Requirement::SignedBy(signed_by) => signed_by,
        };
        let examined = examiner.signed_by(signed_by, message);
        examined.verdict.map_err(rejected)?;
        let (Some(signed), Some(claim)) = (examined.signed, examined.claim) else { return Err(Refusal::Inconsistent) };
        match &vouched {
            Some((_, first)) if *first != claim => return Err(Refusal::Inconsistent),
            Some(_) => {}
            None => vouched = Some((signed, claim)),
        }
    }
    let Some((signed, claim)) = vouched else { return Err(Refusal::NobodyVouches { scope }) };
    let SignedContent { content: _, fingerprint, signing_key, warnings, created } = signed;
    Ok(AcceptedAuthor { scope, claim, fingerprint, signing_key, created, warnings })
}

#[cfg(test)]
#[path = "author_tests.rs"]
mod tests;
