//! How a decision is told: the JSON of `verify`, and the text for people.

use serde::Serialize;

use crate::image::{Digest, ImageReference};
use crate::policy::{Decision, Requirement, SignatureVerdict};

/// The JSON document of `verify`.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The image's expanded name.
    pub reference: String,
    /// The manifest that was judged.
    pub digest: Digest,
    /// `accepted` or `rejected`.
    pub decision: &'static str,
    /// The policy scope that applied, with its transport; `default` if none.
    pub scope: String,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// The file that the policy was read from.
    pub policy: String,
    /// The types of the requirements that applied.
    pub requirements: Vec<&'static str>,
    /// What came of each signature.
    pub signatures: Vec<SignatureStanding>,
}

/// What came of one signature.
#[derive(Debug, Serialize)]
pub struct SignatureStanding {
    /// File, URL or entry.
    pub source: String,
    /// The name in the claim, if the signature was verified.
    pub claimed_reference: Option<String>,
    /// The digest in the claim, if the signature was verified.
    pub claimed_digest: Option<Digest>,
    /// The signer's primary key, if the signature was verified.
    pub fingerprint: Option<String>,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// `accepted` or `rejected`.
    pub decision: &'static str,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// What is good to know about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Says yes or no in the words of the JSON documents.
pub fn word(accepted: bool) -> &'static str {
    if accepted { "accepted" } else { "rejected" }
}

impl From<SignatureVerdict> for SignatureStanding {
    fn from(verdict: SignatureVerdict) -> Self {
        Self {
            source: verdict.source,
            claimed_reference: verdict.claimed_reference,
            claimed_digest: verdict.claimed_digest,
            fingerprint: verdict.fingerprint,
            created: verdict.created.and_then(time),
            decision: word(verdict.accepted),
            reason: verdict.reason.map(|reason| reason.to_string()),
            warnings: verdict.warnings,
        }
    }
}

/// Writes Unix seconds as RFC 3339.
pub fn time(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

impl Verdict {
    /// Puts a decision into its JSON shape.
    pub fn new(
        reference: &ImageReference,
        digest: &Digest,
        decision: Decision,
        policy: &std::path::Path,
        requirements: &[Requirement],
    ) -> Self {
        let scope = match decision.scope.scope() {
            Some(scope) => scope.to_owned(),
            None => "default".to_owned(),
        };
        Self {
            reference: reference.to_string(),
            digest: digest.clone(),
            decision: word(decision.accepted),
            scope,
            reason: decision.reason.map(|reason| reason.to_string()),
            policy: policy.display().to_string(),
            requirements: requirements.iter().map(Requirement::type_name).collect(),
            signatures: decision.signatures.into_iter().map(Into::into).collect(),
        }
    }

    /// Puts it into words.
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!("{} {}", if self.decision == "accepted" { "Accepted" } else { "Rejected" }, self.reference),
            format!("  digest  {}", self.digest),
            format!("  policy  {}, scope {}: {}", self.policy, self.scope, self.requirements.join(", ")),
        ];
        if let Some(reason) = &self.reason {
            lines.push(format!("  reason  {reason}"));
        }
        for signature in &self.signatures {
            lines.push(signature.text());
        }
        super::output::plain(&lines.join("\n"))
    }
}

impl SignatureStanding {
    /// Puts it into words, a few indented lines.
    pub fn text(&self) -> String {
        let mut lines = vec![format!("  {} {}", self.decision, self.source)];
        if let (Some(reference), Some(fingerprint)) = (&self.claimed_reference, &self.fingerprint) {
            let created = self.created.as_deref().unwrap_or("an unknown time");
            lines.push(format!("    signed as {reference} by {fingerprint} at {created}"));
        }
        lines.extend(self.reason.iter().map(|reason| format!("    {reason}")));
        lines.extend(self.warnings.iter().map(|warning| format!("    note: {warning}")));
        lines.join("\n")
    }
}
