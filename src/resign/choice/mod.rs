//! Which of the claims that may be signed anew shall be: all, the newest of each name, or those
//! that the new registry still knows.

mod check;
mod newest;

use std::collections::BTreeMap;

use super::item::{Item, State};
use super::vouch::Vouched;
use crate::image::Digest;
use crate::store::{Layout, SetAddress};

pub use check::{Check, CheckKind};
pub(super) use newest::{Newest, settle};

/// What a job signs of all that it could.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only the newest accepted claim for each new name and tag, over all digests of the
    /// repository in the source. Of what was signed in the same second, all.
    ///
    /// "Newest" is what the old signature itself says of its time, verified with it, not the
    /// `timestamp` that anybody may put into a claim. A list and its instances that were signed
    /// one by one under one tag are several claims for it: only the last of them stays. Use
    /// [`CheckKind::Current`] for those, or [`CheckKind::Instances`] beside this.
    ///
    /// The newest is chosen first and checked then.
    pub newest: bool,
    /// What the new registry must say of an image.
    pub check: Option<Check>,
}

/// The new signatures that an image's old ones vouch for, by their place.
pub(super) type Wanted = BTreeMap<SetAddress, Vec<Candidate>>;

/// A new claim that somebody vouches for.
pub(super) struct Candidate {
    pub(super) item: Item,
    pub(super) vouched: Vouched,
    /// The accounts of further old signatures that vouch for the same claim: what becomes of it
    /// becomes of them.
    pub(super) others: Vec<Item>,
}

impl Choice {
    /// Tells whether what the journal says is settled need not be looked at again. A line for a
    /// list does not say that all its instances are done.
    pub(super) fn trusts_journal(&self) -> bool {
        !matches!(&self.check, Some(check) if check.kind() == CheckKind::Instances)
    }

    /// Asks the registry about each new claim; returns those to sign, and the accounts of the
    /// others.
    pub(super) async fn apply(&self, wanted: Wanted) -> (Wanted, Vec<Item>) {
        let Some(check) = &self.check else { return (wanted, Vec::new()) };
        let mut chosen = Wanted::new();
        let mut settled = Vec::new();
        let mut known = check::Known::default();
        for (place, candidates) in wanted {
            for candidate in candidates {
                let (state, reason) = match check.look(&candidate.vouched.new, place.digest(), &mut known).await {
                    Ok(check::Verdict::Leave(reason)) => (State::Unmatched, reason),
                    Ok(check::Verdict::Refuse(reason)) => (State::Refused, reason),
                    Err(error) => (State::Failed, format!("cannot ask the new registry: {error}")),
                    Ok(check::Verdict::Sign { instances, absent }) => {
                        let Candidate { item, vouched, .. } = &candidate;
                        let of_list = |digest| Item { digest: Some(digest), list: item.digest.clone(), ..item.clone() };
                        for digest in instances {
                            let Some(at) = sibling(&place, &digest) else { continue };
                            let item = Item { place: Some(at.to_string()), ..of_list(digest) };
                            let instance = Candidate { item, vouched: vouched.clone(), others: Vec::new() };
                            chosen.entry(at).or_default().push(instance);
                        }
                        settled.extend(absent.into_iter().map(|digest| {
                            let reason = "an instance of a signed list that the new registry does not have".to_owned();
                            Item { state: State::Unmatched, place: None, reason: Some(reason), ..of_list(digest) }
                        }));
                        chosen.entry(place.clone()).or_default().push(candidate);
                        continue;
                    }
                };
                let told = |item| Item { state, reason: Some(reason.clone()), ..item };
                settled.extend(std::iter::once(candidate.item).chain(candidate.others).map(told));
            }
        }
        (chosen, settled)
    }
}

/// The place of another digest in the same repository.
pub(super) fn sibling(place: &SetAddress, digest: &Digest) -> Option<SetAddress> {
    match place.layout() {
        Layout::Image => SetAddress::image(place.path().clone(), digest.clone()).ok(),
        Layout::Release => Some(SetAddress::release(place.path().clone(), digest.clone())),
    }
}
