//! Items that made no new signature: what was refused, what failed, what was left alone. A report
//! could hide behind them what it should tell of, so each is found out anew as far as that can be.

use super::Suspect;
use super::check::{Check, Checked, NOT_REFUSED, Question, facts};
use crate::image::Digest;
use crate::resign::item::{Item, State};
use crate::resign::journal::ItemKey;
use crate::resign::vouch::{Finding, Vouched, kind};

impl Check<'_> {
    /// Says what is wrong with an item without new signatures.
    pub(super) fn left(&self, item: &Item) -> Checked {
        if item.blob.is_none() {
            return self.without_signature(item);
        }
        let mut checked = match self.finding(item, |finding| agrees(item, finding)) {
            Ok(Finding::Vouched(vouched)) => self.left_though_accepted(item, vouched),
            Ok(Finding::Refused { old_reference, reason }) => match item.state {
                State::Refused => not_accepted(item, old_reference, &reason),
                _ => Checked::wrong(format!("the report says that it {}, but it is refused: {reason}", done(item))),
            },
            Ok(Finding::Unmatched { old_reference, reason }) => match item.state {
                State::Unmatched => not_accepted(item, old_reference, &reason),
                _ => Checked::wrong(format!(
                    "the report says that it {}, but it is none of the job's: {reason}",
                    done(item)
                )),
            },
            Err(wrong) => Checked::wrong(wrong),
        };
        if item.state != State::Failed && !(item.new_blobs.is_empty() && item.signed_by.is_empty()) {
            checked.wrong.push(format!("the report names new signatures of what it says {}", done(item)));
        }
        checked
    }

    /// The old policy accepts it, and a rule renames it.
    fn left_though_accepted(&self, item: &Item, vouched: Vouched) -> Checked {
        let place = self.place(item, &vouched);
        let said = item.place.as_ref().and(place.as_ref().ok());
        let wrong = self.differences(item, &vouched, said);
        match item.state {
            State::Failed => {
                let mut written = Vec::new();
                let other = self.perhaps_written(item, &vouched, &mut written);
                Checked { wrong: [wrong, other].concat(), trusted: true, written, ..Checked::default() }
            }
            // What was refused for its place would be so again.
            State::Refused if place.is_err() => Checked { wrong, ..Checked::default() },
            State::Refused if self.desk.asks_for_instances() && item.list.is_none() => {
                let question = Some(Question { item: item.clone(), new: vouched.new });
                Checked { wrong, question, ..Checked::default() }
            }
            State::Refused => Checked::wrong(NOT_REFUSED),
            _ if self.desk.chose() => Checked { wrong, trusted: true, ..Checked::default() },
            _ => Checked::wrong(
                "the report says that it was left alone, but a rule renames it, the old policy accepts it, and the \
                 job left nothing out",
            ),
        }
    }

    /// An image without any signature: only a list names such, or it could not be read.
    fn without_signature(&self, item: &Item) -> Checked {
        let mut wrong = names(item, None);
        let mut late = Vec::new();
        match item.state {
            State::Failed => {}
            _ if !self.desk.is_listed() => {
                wrong.push(format!(
                    "the report says that it {}, but not which signature, and the job had no list of images",
                    done(item)
                ));
            }
            State::Unmatched => {
                let found = item.digest.as_ref().map(|digest| self.in_source(digest)).unwrap_or_default();
                let (later, before): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, said)| said.later);
                if !before.is_empty() {
                    let count = before.len();
                    wrong.push(format!("the report says that the source has no signatures of it, but it has {count}"));
                }
                late = later;
            }
            _ => {}
        }
        Checked { wrong, trusted: true, late, ..Checked::default() }
    }

    /// The signatures of a digest that the source has.
    fn in_source(&self, digest: &Digest) -> Vec<(ItemKey, Suspect)> {
        let of_image = self.stores.old.iter().filter(|(set, _)| set.digest() == digest);
        let blobs = of_image.flat_map(|(set, blobs)| blobs.iter().map(move |(hash, blob)| (set, hash, blob)));
        blobs.filter_map(|(set, hash, blob)| self.desk.untold(set, hash, blob)).collect()
    }
}

/// Tells whether what was found out now is what the report says, so that no other time is asked.
fn agrees(item: &Item, finding: &Finding) -> bool {
    let same = |reason: &str| item.reason.as_deref().is_some_and(|said| kind(said) == kind(reason));
    match (item.state, finding) {
        (State::Refused, Finding::Refused { reason, .. }) => same(reason),
        (State::Unmatched, Finding::Unmatched { reason, .. }) => same(reason),
        (State::Failed, Finding::Vouched(_)) => true,
        // Refused for its place, or left out by a choice.
        (_, Finding::Vouched(_)) => item.rule.is_some(),
        _ => false,
    }
}

/// Compares an item that was not accepted with why it is not.
fn not_accepted(item: &Item, old_reference: Option<String>, reason: &str) -> Checked {
    let mut wrong = names(item, old_reference);
    let said = kind(item.reason.as_deref().unwrap_or_default());
    if said != kind(reason) {
        wrong.push(format!("the report gives a reason of another kind ({said}) than there is: {reason}"));
    }
    Checked { wrong, ..Checked::default() }
}

/// Of what no policy accepted, only the name in the claim is known.
fn names(item: &Item, old_reference: Option<String>) -> Vec<String> {
    facts([
        ("old name", &item.old_reference, old_reference),
        ("new name", &item.new_reference, None),
        ("place", &item.place, None),
        ("rule", &item.rule, None),
        ("old signer", &item.signer, None),
        ("policy scope", &item.scope, None),
    ])
}

fn done(item: &Item) -> &'static str {
    match item.state {
        State::Refused => "was refused",
        State::Failed => "was accepted and failed",
        _ => "was left alone",
    }
}
