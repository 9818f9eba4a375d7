//! The account of a job: what became of each old signature, and the totals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::journal::{ItemKey, item_key};
use crate::image::Digest;

/// What became of one old signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Signed for the new name (in a dry run: would be).
    Signed,
    /// The new signature was there already.
    Already,
    /// No rule concerns it, or a choice of the job left it out.
    #[default]
    Unmatched,
    /// Not accepted, so not signed.
    Refused,
    /// Accepted, but reading or writing failed; the next run tries again.
    Failed,
}

/// The account of one old signature under one new name. A line of the journal, an entry of the
/// report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Path of the image in the source, without the digest.
    pub repository: String,
    /// The image; absent only where a list names a tag whose digest could not be found out.
    #[serde(with = "digest_text")]
    pub digest: Option<Digest>,
    /// The signed list that the image is an instance of, where the old signature is the list's.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "digest_text")]
    pub list: Option<Digest>,
    /// SHA-256 of the old signature's bytes; absent where none could be read.
    pub blob: Option<String>,
    /// The name in the old claim.
    pub old_reference: Option<String>,
    /// The name in the new claim.
    pub new_reference: Option<String>,
    /// Where the new signature belongs: the key of its set in a tree.
    pub place: Option<String>,
    /// What became of it.
    pub state: State,
    /// Why, where it was not signed.
    pub reason: Option<String>,
    /// The rule that applied.
    pub rule: Option<String>,
    /// Who made the old signature: the primary key's fingerprint.
    pub signer: Option<String>,
    /// The policy scope that accepted the old signature.
    pub scope: Option<String>,
    /// Who made the new ones: the primary keys' fingerprints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// SHA-256 of the new signatures' bytes, in the order of `signed_by`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_blobs: Vec<String>,
    /// When it was settled, RFC 3339.
    pub time: String,
}

/// Totals of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// New signatures made (in a dry run: that would be).
    pub signed: u64,
    /// New signatures that were there before.
    pub already: u64,
    /// Old signatures that no rule concerns, or that a choice of the job left out.
    pub unmatched: u64,
    /// Old signatures that were not accepted, by this run or an earlier one that it goes on from.
    pub refused: u64,
    /// Old signatures that could not be read or new ones that could not be written, and parts of the
    /// source that could not be listed.
    pub failed: u64,
    /// Old signatures that the journal says were settled by an earlier run.
    pub resumed: u64,
    /// Why parts of the source could not be listed; of so many that they fit a hundred.
    #[serde(default)]
    pub unlisted: Vec<String>,
    /// Wall time.
    pub seconds: f64,
    /// How often each reason for a refusal was given; the rarest are left out beyond a hundred.
    pub refusals: BTreeMap<String, u64>,
}

/// How many different reasons, of a kind, a summary holds.
const REASONS: usize = 100;

impl Item {
    /// Names the image for people: `repository@digest`, or what the list says.
    pub fn image(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.repository),
            None => self.repository.clone(),
        }
    }

    /// Returns the digest that the old signature is for: the image's own, or its list's.
    pub fn signed_digest(&self) -> Option<&Digest> {
        self.list.as_ref().or(self.digest.as_ref())
    }

    /// Returns the digest as text; empty where it could not be found out.
    pub fn digest_text(&self) -> String {
        self.digest.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Names the old signature; `None` where there is none.
    pub fn key(&self) -> Option<ItemKey> {
        let digest = self.digest.as_ref()?.to_string();
        Some(item_key(&self.repository, &digest, self.blob.as_ref()?))
    }
}

impl Summary {
    /// Tells whether all that had to be signed is signed.
    pub fn complete(&self) -> bool {
        self.refused == 0 && self.failed == 0
    }

    /// Adds a part of the source that could not be listed.
    pub fn cannot_list(&mut self, why: String) {
        self.failed += 1;
        if self.unlisted.len() < REASONS {
            self.unlisted.push(why);
        }
    }

    /// Says what could not be listed; `None` if all was.
    pub fn incomplete(&self) -> Option<String> {
        let list = self.unlisted.join("; ");
        (!list.is_empty()).then(|| format!("not all of the source could be listed: {list}"))
    }

    /// Adds one settled item.
    pub fn count(&mut self, item: &Item) {
        match item.state {
            State::Signed => self.signed += 1,
            State::Already => self.already += 1,
            State::Unmatched => self.unmatched += 1,
            State::Refused => {
                self.refused += 1;
                let reason = general(item.reason.as_deref().unwrap_or_default());
                if self.refusals.len() < REASONS || self.refusals.contains_key(&reason) {
                    *self.refusals.entry(reason).or_default() += 1;
                }
            }
            State::Failed => self.failed += 1,
        }
    }
}

/// A reason without what is only true of one signature: names, digests and keys.
fn general(reason: &str) -> String {
    let particular = |word: &str| {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        let hex = core.len() >= 16 && core.bytes().all(|b| b.is_ascii_hexdigit());
        hex || core.contains("sha256") || (core.contains('/') && core.len() > 1)
    };
    reason.split(' ').map(|word| if particular(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

mod digest_text {
    //! Digests as their text.
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::image::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Option<Digest>, serializer: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => serializer.collect_str(digest),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Digest::parse(&text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_without_their_particulars() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            general(&format!("the claim is for sha256:{hex}, but is stored under sha256:{hex}")),
            "the claim is for … but is stored under …"
        );
        assert_eq!(
            general("Key not found for key ID 072e80c800ade2e2 in signature"),
            "Key not found for key ID … in signature"
        );
    }
}
