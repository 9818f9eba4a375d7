//! May this image run, as containers/image decides it: all requirements must allow it, each by at
//! least one signature (spec containers-image 5.6).

use super::document::Policy;
use super::evidence::{Form, Image, SignatureBlob, Signatures};
use super::examine::{Examined, Examiner};
use super::mechanism::Mechanism;
use super::reason::Reason;
use super::requirement::Requirement;
use super::scope::ScopeMatch;
use crate::image::Digest;

/// What the caller wants besides the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--require-signed`: an image that no requirement verified a signature of is rejected.
    pub require_signed: bool,
    /// Stop at what decides, as clients do; the signatures that were not reached have the verdict
    /// [`Reason::NotExamined`]. Otherwise each signature is examined under each requirement.
    pub decision_only: bool,
}

/// The answer, and how it came about.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether the image may run.
    pub accepted: bool,
    /// The image's transport.
    pub transport: String,
    /// Which part of the policy spoke.
    pub scope: ScopeMatch,
    /// Why the image is rejected.
    pub reason: Option<Reason>,
    /// Which requirement of the list rejected it first, from 0.
    pub failed: Option<usize>,
    /// What came of each signature, in their order. Empty when they could not be fetched.
    pub signatures: Vec<SignatureVerdict>,
    /// Whether the image is accepted and a signature of it was verified for that. An accepted image
    /// without is one that the policy accepts unseen.
    pub required_signature: bool,
}

/// What came of one signature. All but `source`, `accepted` and `reason` is there only if the
/// cryptography held, and then it is what the signer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureVerdict {
    /// Where it came from.
    pub source: String,
    /// Whether at least one requirement accepted it.
    pub accepted: bool,
    /// Why the first requirement that looked at it rejected it, if none accepted it.
    pub reason: Option<Reason>,
    /// The name that it is for.
    pub claimed_reference: Option<String>,
    /// The digest that it is for.
    pub claimed_digest: Option<Digest>,
    /// The fingerprint of the signer's primary key.
    pub fingerprint: Option<String>,
    /// The fingerprint of the key that signed.
    pub signing_key: Option<String>,
    /// When it was made, Unix seconds.
    pub created: Option<i64>,
    /// What the cryptography remarked.
    pub warnings: Vec<String>,
}

/// Decides whether an image may run.
///
/// The decision is that of containers/image's `IsRunningImageAllowed`; the verdicts about single
/// signatures are for reports and never change it. Without [`Options::decision_only`] signatures
/// behind the first accepted one and requirements behind the first denial are examined too.
pub fn decide(
    policy: &Policy,
    image: &Image<'_>,
    signatures: Signatures<'_>,
    mechanism: &dyn Mechanism,
    options: Options,
) -> Decision {
    let namespaces = image.namespaces.iter().map(String::as_str);
    let (scope, requirements) = policy.requirements(image.transport, &image.identity, namespaces);
    let mut court = Court::new(image, signatures, mechanism, options);
    let mut denied = None;
    if requirements.is_empty() {
        denied = Some(Reason::NoRequirements);
    }
    let mut failed = None;
    for (number, requirement) in requirements.iter().enumerate() {
        let outcome = court.allows(requirement);
        if denied.is_none() && outcome.is_err() {
            failed = Some(number);
        }
        denied = denied.or(outcome.err());
        if denied.is_some() && options.decision_only {
            break;
        }
    }
    let verifies = requirements.iter().any(Requirement::verifies_signatures);
    if denied.is_none() && options.require_signed && !verifies {
        denied = Some(Reason::NoVerification { image: format!("{}:{}", image.transport, image.identity) });
    }
    Decision {
        accepted: denied.is_none(),
        transport: image.transport.to_owned(),
        scope,
        required_signature: denied.is_none() && verifies,
        reason: denied,
        failed,
        signatures: court.verdicts(),
    }
}

/// The signatures of one image with what has been found out about each.
struct Court<'a> {
    examiner: Examiner<'a>,
    image: &'a Image<'a>,
    entries: Vec<Entry<'a>>,
    /// Why no signature can be had at all.
    unavailable: Option<Reason>,
    options: Options,
}

struct Entry<'a> {
    blob: &'a SignatureBlob,
    form: Result<Form<'a>, Reason>,
    /// The best that came of it so far.
    best: Option<Examined>,
}

impl<'a> Court<'a> {
    fn new(image: &'a Image<'a>, signatures: Signatures<'a>, mechanism: &'a dyn Mechanism, options: Options) -> Self {
        let (blobs, failed) = match signatures {
            Signatures::Found(blobs) => (blobs, None),
            Signatures::Failed(sentence) => (&[][..], Some(Reason::Fetch(sentence.to_owned()))),
        };
        let entries: Vec<Entry<'a>> = blobs.iter().map(|blob| Entry { blob, form: blob.form(), best: None }).collect();
        // One blob of no known form fails the reading of all.
        let unavailable = failed.or_else(|| entries.iter().find_map(|entry| entry.form.as_ref().err().cloned()));
        Self { examiner: Examiner::new(image, mechanism), image, entries, unavailable, options }
    }

    fn allows(&mut self, requirement: &Requirement) -> Result<(), Reason> {
        match requirement {
            Requirement::InsecureAcceptAnything => Ok(()),
            Requirement::Reject => Err(Reason::Rejected { image: self.image.name.clone() }),
            Requirement::SignedBaseLayer(_) => Err(Reason::SignedBaseLayer),
            Requirement::SignedBy(_) | Requirement::SigstoreSigned(_) => {
                let by_signatures = self.by_signatures(requirement);
                self.unavailable.clone().map_or(by_signatures, Err)
            }
        }
    }

    /// One accepted signature is enough.
    fn by_signatures(&mut self, requirement: &Requirement) -> Result<(), Reason> {
        let mut accepted = false;
        let mut reasons = Vec::new();
        if self.unavailable.is_some() && self.options.decision_only {
            return Ok(());
        }
        for entry in &mut self.entries {
            if accepted && self.options.decision_only {
                break;
            }
            let Ok(form) = &entry.form else { continue };
            let Some(examined) = self.examiner.examine(requirement, form) else { continue };
            match &examined.verdict {
                Ok(()) => accepted = true,
                Err(reason) => reasons.push(reason.clone()),
            }
            let better = entry.best.as_ref().is_none_or(|best| best.verdict.is_err() && examined.verdict.is_ok());
            if better {
                entry.best = Some(examined);
            }
        }
        match (accepted, reasons.len()) {
            (true, _) => Ok(()),
            (false, 0) => Err(self.no_signature(requirement)),
            (false, 1) => Err(reasons.swap_remove(0)),
            (false, _) => Err(Reason::Several(reasons)),
        }
    }

    fn no_signature(&self, requirement: &Requirement) -> Reason {
        let count = |wanted: fn(&Form<'_>) -> bool| {
            self.entries.iter().filter(|entry| entry.form.as_ref().is_ok_and(wanted)).count()
        };
        let others = count(|form| matches!(form, Form::Simple(_)));
        let attachments = count(|form| matches!(form, Form::Sigstore(attachment) if !attachment.is_signature()));
        match requirement {
            Requirement::SigstoreSigned(_) if others + attachments > 0 => {
                Reason::NoSigstoreSignature { others, attachments }
            }
            _ => Reason::NoSignature,
        }
    }

    fn verdicts(self) -> Vec<SignatureVerdict> {
        self.entries.into_iter().map(Entry::verdict).collect()
    }
}

impl Entry<'_> {
    fn verdict(self) -> SignatureVerdict {
        let source = self.blob.origin.to_string();
        let (verdict, signed, claim) = match (self.form, self.best) {
            (_, Some(examined)) => (examined.verdict, examined.signed, examined.claim),
            (Err(reason), None) => (Err(reason), None, None),
            (Ok(_), None) => (Err(Reason::NotExamined), None, None),
        };
        let (claimed_reference, claimed_digest) = claim.map(|claim| (claim.reference, claim.digest)).unzip();
        let mut report = SignatureVerdict {
            source,
            accepted: verdict.is_ok(),
            reason: verdict.err(),
            claimed_reference,
            claimed_digest,
            fingerprint: None,
            signing_key: None,
            created: None,
            warnings: Vec::new(),
        };
        if let Some(signed) = signed {
            report.fingerprint = Some(signed.fingerprint);
            report.signing_key = Some(signed.signing_key);
            report.created = Some(signed.created);
            report.warnings = signed.warnings;
        }
        report
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
pub(crate) mod tests;
