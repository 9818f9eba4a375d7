//! How a decision is told: the JSON of `verify`, and the text for people.

use serde::Serialize;

use crate::escape;
use crate::image::Digest;
use crate::policy::{Requirement, ScopeMatch, SignatureVerdict};

/// The JSON document of `verify`.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The image's expanded name.
    pub reference: String,
    /// The manifest that was judged; the list's when all of its instances were. None for a
    /// manifest that has no digest.
    pub digest: Option<Digest>,
    /// `accepted` or `rejected`.
    pub decision: &'static str,
    /// The policy scope that applied: its text, `""` for a transport's default, else `default`.
    pub scope: String,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// Which requirement rejected it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_requirement: Option<FailedRequirement>,
    /// The file that the policy was read from.
    pub policy: String,
    /// The types of the requirements that applied.
    pub requirements: Vec<&'static str>,
    /// The list that the manifest was taken from.
    pub list: Option<Digest>,
    /// What the manifest runs on, if it was taken from a list.
    pub platform: Option<String>,
    /// Each instance, if all were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<InstanceVerdict>>,
    /// What came of each signature.
    pub signatures: Vec<SignatureStanding>,
    /// What does not change the decision, but may fail a pull.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The requirement of a list that rejected an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedRequirement {
    /// Its number in the list, from 1.
    pub number: usize,
    /// How many the list has; all must be fulfilled.
    pub of: usize,
    /// `signedBy`, `sigstoreSigned`, …
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// What came of one instance of a list.
#[derive(Debug, Serialize)]
pub struct InstanceVerdict {
    /// Its manifest.
    pub digest: Option<Digest>,
    /// What it runs on; none for the list itself.
    pub platform: Option<String>,
    /// `accepted` or `rejected`.
    pub decision: &'static str,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// Which requirement rejected it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_requirement: Option<FailedRequirement>,
    /// What came of each of its signatures.
    pub signatures: Vec<SignatureStanding>,
}

/// What came of one signature.
#[derive(Clone, Debug, Serialize)]
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

/// Names a scope in the words of the JSON documents.
pub fn scope_word(scope: &ScopeMatch) -> &str {
    scope.scope().unwrap_or("default")
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
    /// Makes the verdict about the image of that name, of which nothing is known yet.
    pub fn new(reference: String, policy: String, scope: &ScopeMatch, requirements: &[Requirement]) -> Self {
        Self {
            reference,
            policy,
            scope: scope_word(scope).to_owned(),
            requirements: requirements.iter().map(Requirement::type_name).collect(),
            digest: None,
            decision: word(false),
            reason: None,
            failed_requirement: None,
            list: None,
            platform: None,
            instances: None,
            signatures: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Puts what came of the one manifest that counts into the verdict.
    #[must_use]
    pub fn about(self, judged: InstanceVerdict) -> Self {
        let InstanceVerdict { digest, platform, decision, reason, failed_requirement, signatures } = judged;
        Self { digest, platform, decision, reason, failed_requirement, signatures, ..self }
    }

    /// Puts what came of all instances of a list into the verdict: one that is rejected rejects all.
    #[must_use]
    pub fn about_all(self, list: Option<Digest>, instances: Vec<InstanceVerdict>) -> Self {
        let rejected = instances.iter().find(|instance| instance.decision != word(true));
        let decision = word(rejected.is_none());
        let reason = rejected.and_then(|instance| instance.reason.clone());
        let failed_requirement = rejected.and_then(|instance| instance.failed_requirement.clone());
        let signatures = instances.iter().flat_map(|instance| instance.signatures.clone()).collect();
        Self { digest: list, decision, reason, failed_requirement, signatures, instances: Some(instances), ..self }
    }

    /// Puts it into words.
    pub fn lines(&self) -> Vec<String> {
        let shown = |digest: &Option<Digest>| digest.as_ref().map_or_else(|| "none".to_owned(), Digest::to_string);
        let yes = |decision: &str| if decision == word(true) { "Accepted" } else { "Rejected" };
        let mut lines = vec![format!("{} {}", yes(self.decision), escape::text(&self.reference))];
        if self.instances.is_none() {
            lines.push(format!("  digest  {}", shown(&self.digest)));
        }
        if self.list.is_some() && (self.list != self.digest || self.instances.is_some()) {
            let platform = self.platform.as_ref().map(|platform| format!(", instance for {}", escape::text(platform)));
            lines.push(format!("  list    {}{}", shown(&self.list), platform.unwrap_or_default()));
        }
        let (policy, scope) = (escape::word(&self.policy), escape::word(&self.scope));
        lines.push(format!("  policy  {policy}, scope {scope}: {}", self.requirements.join(", ")));
        if let Some(reason) = self.reason.as_ref().filter(|_| self.instances.is_none()) {
            lines.push(format!("  reason  {reason}"));
            lines.extend(self.failed_requirement.iter().filter(|failed| failed.of > 1).map(|failed| {
                let FailedRequirement { number, of, kind } = failed;
                format!("          by requirement {number} of {of}, {kind}; an image must fulfil all of them")
            }));
        }
        lines.extend(self.warnings.iter().map(|warning| format!("  warning {warning}")));
        match &self.instances {
            None => lines.extend(self.signatures.iter().flat_map(SignatureStanding::lines)),
            Some(instances) => lines.extend(instances.iter().flat_map(|instance| {
                let platform = instance.platform.as_ref().map_or_else(|| "the list".to_owned(), escape::word);
                let first = format!("  {} {platform}  {}", yes(instance.decision), shown(&instance.digest));
                let reason = instance.reason.iter().map(|reason| format!("    reason  {reason}"));
                let signatures = instance.signatures.iter().flat_map(SignatureStanding::lines);
                [first].into_iter().chain(reason).chain(signatures.map(|line| format!("  {line}"))).collect::<Vec<_>>()
            })),
        }
        lines
    }
}

impl SignatureStanding {
    /// Puts it into words, a few indented lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("  {} {}", self.decision, escape::text(&self.source))];
        if let (Some(reference), Some(fingerprint)) = (&self.claimed_reference, &self.fingerprint) {
            let created = self.created.as_deref().unwrap_or("an unknown time");
            let reference = escape::word(reference);
            lines.push(format!("    signed as {reference} by {fingerprint} at {created}"));
        }
        lines.extend(self.reason.iter().map(|reason| format!("    {reason}")));
        lines.extend(self.warnings.iter().map(|warning| format!("    warning: {warning}")));
        lines
    }
}
