//! What the doctor hands back: the steps, the findings and the decision, in the shape of the JSON
//! document of `countersign doctor`.

use serde::Serialize;

use super::finding::Finding;

/// One thing that a client does, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `policy`, `registries.d`, `registries.conf`, `ping`, `manifest`, `instance`, `extension`,
    /// `lookaside`, `signature`, `decision`; `probe` for what only the doctor does.
    pub step: &'static str,
    /// What was asked: a file, a request, a question.
    pub request: String,
    /// The answer.
    pub answer: String,
    /// Whether a client goes on.
    pub ok: bool,
}

/// What a client would end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It pulls the image.
    Accepted,
    /// The policy says no.
    Rejected,
    /// It fails before, or apart from, the policy's decision.
    Failed,
}

/// The whole account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The image's expanded name.
    pub reference: String,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// What is wrong, the causes of failure first.
    pub findings: Vec<Finding>,
    /// What a client would end with.
    pub decision: Outcome,
}
