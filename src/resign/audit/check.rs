//! One image of a report against the stores, and against the new registry where only that can tell.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::stores::{Blobs, Stores, is_signature};
use super::{Desk, Found, Problem, Suspect, is_younger, seconds, set_key, time_of};
use crate::image::Reference;
use crate::lookup::{OpenPgp, Unverified, vouched};
use crate::resign::choice::sibling;
use crate::resign::item::{Item, State};
use crate::resign::journal::{ItemKey, item_key};
use crate::resign::vouch::{Finding, Vouched, judge};
use crate::store::SetAddress;

/// What only the registry of the new name can tell of an item.
pub(super) struct Question {
    pub(super) item: Item,
    pub(super) new: Reference,
}

/// Checks the items of one image.
pub(super) async fn group(desk: Arc<Desk>, items: Vec<Item>) -> Found {
    let mut problems = Vec::new();
    let stores = Stores::read(&desk.audit, &items, &mut problems).await;
    let judging = desk.clone();
    let work = tokio::task::spawn_blocking(move || {
        let check = Check { desk: &judging, stores: &stores };
        let mut found = Found::default();
        let mut questions = Vec::new();
        for item in items.iter().filter(|item| stores.has_all_of(item)) {
            let Checked { wrong, question, trusted, signed, late, written } = check.item(item);
            // What is wrong in itself vouches for no time.
            found.signed = found.signed.into_iter().chain(signed.filter(|_| wrong.is_empty())).min();
            found.untold.extend(late);
            let place = item.place.as_deref().unwrap_or_default();
            found.written.extend(written.iter().map(|hash| item_key("", place, hash)));
            found.problems.extend(wrong.into_iter().map(|what| Problem::of(item, what)));
            found.trusted += u64::from(trusted);
            questions.extend(question);
        }
        check.unexplained(&items, &mut found);
        check.untold(&items, &mut found);
        let read = stores.old.iter().map(|(set, _)| set).chain(&stores.given_up);
        found.visited.0.extend(read.map(|set| set_key(&set.to_string())));
        found.visited.1.extend(stores.new.keys().map(|place| set_key(place)));
        (found, questions)
    });
    let (mut found, questions) = match work.await {
        Ok(done) => done,
        Err(stopped) => {
            let problem = Problem::unknown_of_report(format!("a check stopped: {stopped}"));
            (Found { problems: vec![problem], ..Found::default() }, Vec::new())
        }
    };
    found.problems.append(&mut problems);
    for question in questions {
        found.problems.extend(ask(&desk, &question).await);
    }
    found
}

/// Asks the registry of the new name.
async fn ask(desk: &Desk, Question { item, new }: &Question) -> Option<Problem> {
    let check = &desk.audit.check;
    let (digest, list) = (item.digest.as_ref()?, item.list.as_ref());
    let answer = match list {
        Some(list) => check.names(new, list, digest).await.map(|named| match named {
            Some(true) => None,
            Some(false) => Some(Problem::of(item, format!("it is no instance of the signed list {list}"))),
            None => {
                let what = format!("the new registry no longer has the list {list} with all that it names");
                Some(Problem::unknown(item, format!("{what}, so whether it is an instance cannot be told")))
            }
        }),
        None => check
            .refuses(new, digest)
            .await
            .map(|refused| (!refused).then(|| Problem::of(item, NOT_REFUSED.to_owned()))),
    };
    answer.unwrap_or_else(|error| {
        let what = format!("cannot ask the new registry: {error}");
        Some(if error.is_final() { Problem::of(item, what) } else { Problem::unknown(item, what) })
    })
}

pub(super) const NOT_REFUSED: &str = "the report says that it was refused, but the old policy accepts it";

pub(super) struct Check<'a> {
    pub(super) desk: &'a Desk,
    pub(super) stores: &'a Stores,
}

/// What became of the check of an item.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) wrong: Vec<String>,
    /// Still to be asked.
    pub(super) question: Option<Question>,
    /// Its end is taken at the report's word.
    pub(super) trusted: bool,
    /// When the first of its new signatures was made, where the job made them.
    pub(super) signed: Option<SystemTime>,
    /// Signatures that it says were not there, and that say they came after the job began.
    pub(super) late: Vec<(ItemKey, Suspect)>,
    /// Of what failed: new signatures that are at its place all the same, and as they should be.
    pub(super) written: Vec<String>,
}

impl Checked {
    pub(super) fn wrong(what: impl Into<String>) -> Self {
        Self { wrong: vec![what.into()], ..Self::default() }
    }
}

impl Check<'_> {
    /// Says what is wrong with an item, and what is still to be asked.
    fn item(&self, item: &Item) -> Checked {
        let mut checked = match item.state {
            State::Signed | State::Already => self.made(item),
            State::Refused | State::Failed | State::Unmatched => self.left(item),
        };
        checked.wrong.extend(self.time(item));
        if !self.desk.parts.may_have(item) {
            let parts = self.desk.head.shards.join(", ");
            checked.wrong.push(format!("it is of no part of the job that the report tells of ({parts})"));
        }
        checked
    }

    fn made(&self, item: &Item) -> Checked {
        let placed = self.accepted(item).and_then(|vouched| Ok((self.place(item, &vouched)?, vouched)));
        let (place, vouched) = match placed {
            Ok(placed) => placed,
            Err(wrong) => return Checked::wrong(wrong),
        };
        let mut wrong = self.differences(item, &vouched, Some(&place));
        let mut made = None;
        wrong.extend(self.new_signatures(item, &vouched, &place, &mut made));
        let signed = made.filter(|_| item.state == State::Signed);
        let question = item.list.as_ref().map(|_| Question { item: item.clone(), new: vouched.new });
        Checked { wrong, question, signed, ..Checked::default() }
    }

    /// Finds out where the new signatures belong.
    pub(super) fn place(&self, item: &Item, vouched: &Vouched) -> Result<SetAddress, String> {
        let place = self.desk.audit.destination.place_of(vouched)?;
        match (&item.list, &item.digest) {
            (Some(_), Some(instance)) => {
                sibling(&place, instance).ok_or_else(|| format!("{instance} has no place beside {place}"))
            }
            _ => Ok(place),
        }
    }

    /// Insists that the old signature may be signed anew.
    pub(super) fn accepted(&self, item: &Item) -> Result<Vouched, String> {
        match self.finding(item, |finding| matches!(finding, Finding::Vouched(_)))? {
            Finding::Vouched(vouched) => Ok(vouched),
            Finding::Refused { reason, .. } => {
                Err(format!("the old policy does not accept the old signature: {reason}"))
            }
            Finding::Unmatched { reason, .. } => Err(format!("the old signature does not concern the job: {reason}")),
        }
    }

    /// Judges the old signature anew. Without a time of the job's own, each run judged as of its
    /// begin: between the begin of the job and when it settled the signature. Both count where the
    /// end of the job (which is asked first, for its keys are read once) says otherwise than `expected`.
    pub(super) fn finding(&self, item: &Item, expected: impl Fn(&Finding) -> bool) -> Result<Finding, String> {
        let hash = item.blob.as_deref().ok_or("the report does not say which old signature it was")?;
        // An instance has the old signature of its list, and no other digest's.
        let signed = item.signed_digest().ok_or("the report does not say of which image")?;
        let of_image = self.stores.old.iter().filter(|(set, _)| set.digest() == signed);
        let found = of_image.map(|(set, blobs)| (set, blobs.get(hash))).find_map(|(set, blob)| Some((set, blob?)));
        let (set, blob) = found.ok_or_else(|| format!("the old signature {hash} is not in the source"))?;
        let (renames, policy) = (&self.desk.renames, &self.desk.audit.old_policy);
        let found = judge(blob, set, renames, policy, &self.desk.old_mechanism);
        if self.desk.audit.as_of.is_some() || expected(&found) {
            return Ok(found);
        }
        let mut said = found;
        for time in [time_of(&item.time), self.desk.started].into_iter().flatten() {
            let then = OpenPgp::at(time).allow_weak(self.desk.audit.allow_weak);
            let found = judge(blob, set, renames, policy, &then);
            if expected(&found) {
                return Ok(found);
            }
            said = found;
        }
        Ok(said)
    }

    /// Says when an item cannot have been settled when the report says.
    fn time(&self, item: &Item) -> Option<String> {
        let head = &self.desk.head;
        let (time, started, ended) = (&item.time, &head.started, &head.ended);
        let times = [started, time, ended].map(|text| time_of(text));
        let within = times.iter().all(Option::is_some) && times.is_sorted();
        (!within).then(|| format!("its time {time:?} is not between {started} and {ended}, when the job ran"))
    }

    /// Compares what the report says with what was found out.
    pub(super) fn differences(&self, item: &Item, vouched: &Vouched, place: Option<&SetAddress>) -> Vec<String> {
        facts([
            ("old name", &item.old_reference, Some(vouched.old.to_string())),
            ("new name", &item.new_reference, Some(vouched.new.to_string())),
            ("place", &item.place, place.map(ToString::to_string)),
            ("rule", &item.rule, Some(vouched.rule.clone())),
            ("old signer", &item.signer, Some(vouched.signer.clone())),
            ("policy scope", &item.scope, Some(vouched.scope.clone())),
        ])
    }

    /// Verifies the new signatures, and finds out when the first of them was `made`.
    fn new_signatures(
        &self,
        item: &Item,
        vouched: &Vouched,
        place: &SetAddress,
        made: &mut Option<SystemTime>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let wanted = self.desk.keys_for(vouched.new.repository().as_str());
        let none = Blobs::new();
        // The place that the report gives, as long as it is one; that it is the right one is
        // checked beside this.
        let blobs = item.place.as_ref().and_then(|place| self.stores.new.get(place)).unwrap_or(&none);
        if item.state == State::Already && item.new_blobs.is_empty() && item.signed_by.is_empty() {
            // Another old signature of the image gave the new name its signatures.
            let by: BTreeSet<String> =
                blobs.values().filter_map(|blob| Some(self.new_signer(blob, item, &vouched.new).ok()?.0)).collect();
            for key in wanted.iter().filter(|key| !by.contains(*key)) {
                wrong.push(format!("no signature for {} by {key} is at {place}", vouched.new));
            }
            return wrong;
        }
        let said: BTreeSet<&String> = item.signed_by.iter().collect();
        if said != wanted.iter().collect() || item.signed_by.len() != item.new_blobs.len() {
            wrong.push(format!(
                "the report names the new signers {}, but the job's keys for this name are {}",
                list(&item.signed_by),
                list(wanted)
            ));
        }
        for (number, hash) in item.new_blobs.iter().enumerate() {
            let Some(blob) = blobs.get(hash) else {
                wrong.push(format!(
                    "the new signature {hash} is not at {}",
                    item.place.as_deref().unwrap_or("(no place)")
                ));
                continue;
            };
            match self.new_signer(blob, item, &vouched.new) {
                Ok((key, created)) if item.signed_by.get(number) == Some(&key) => {
                    *made = made.iter().copied().chain(created).min();
                }
                Ok((key, _)) => wrong.push(format!("the new signature {hash} is by {key}, not as the report says")),
                Err(reason) => wrong.push(format!("the new signature {hash}: {reason}")),
            }
        }
        wrong
    }

    /// Returns who made a new signature that says exactly what it should, and when.
    fn new_signer(&self, blob: &Bytes, item: &Item, name: &Reference) -> Result<(String, Option<SystemTime>), String> {
        let said = Unverified::read(blob).map_err(|e| e.to_string())?;
        let wanted = item.digest.as_ref().ok_or("the report does not say of which image")?;
        if said.claim.reference != name.to_string() || said.claim.digest != *wanted {
            let (other, digest) = (&said.claim.reference, &said.claim.digest);
            return Err(format!("it is for {other} and {digest}, not for {name} and {wanted}"));
        }
        let audit = &self.desk.audit;
        let accepted = vouched(&audit.new_policy, &self.desk.new_mechanism, &said.claim, wanted, blob)
            .map_err(|e| format!("the new policy does not accept it: {e}"))?;
        let created = accepted.created.and_then(seconds);
        if is_younger(created, item) {
            return Err(format!("it was made after {}, when the report says that it was there", item.time));
        }
        let signer = accepted.fingerprint.ok_or_else(|| "it is no simple signing".to_owned())?;
        Ok((signer, created))
    }

    /// Of what failed, some may be `written` all the same; then it must be what was meant.
    pub(super) fn perhaps_written(&self, item: &Item, vouched: &Vouched, written: &mut Vec<String>) -> Vec<String> {
        let there = item.place.as_ref().and_then(|place| self.stores.new.get(place));
        let wanted = self.desk.keys_for(vouched.new.repository().as_str());
        let mut wrong = Vec::new();
        for hash in &item.new_blobs {
            let Some(blob) = there.and_then(|blobs| blobs.get(hash)) else { continue };
            match self.new_signer(blob, item, &vouched.new) {
                Ok((key, _)) if wanted.contains(&key) => written.push(hash.clone()),
                Ok((key, _)) => {
                    wrong.push(format!("the new signature {hash} is by {key}, which the job has no key of"))
                }
                Err(reason) => wrong.push(format!("the new signature {hash}: {reason}")),
            }
        }
        wrong
    }

    /// The new signatures, by place and hash, that items made or found. (Those of `Signed` and
    /// `Already` are verified, or told as wrong; of a failure, nothing is expected to be there.)
    fn explained<'i>(&self, items: &'i [Item], written: &BTreeSet<ItemKey>) -> BTreeSet<(&'i str, &'i str)> {
        let all = items.iter().filter_map(|item| Some((item, item.place.as_deref()?)));
        let all = all.flat_map(|(item, place)| item.new_blobs.iter().map(move |hash| (item, place, hash.as_str())));
        let explains = |(item, place, hash): &(&Item, &str, &str)| explains(item, item_key("", place, hash), written);
        all.filter(explains).map(|(_, place, hash)| (place, hash)).collect()
    }

    /// Finds signatures by the job's keys at the items' places that none of the items made or found.
    fn unexplained(&self, items: &[Item], found: &mut Found) {
        let told = self.explained(items, &found.written);
        for (place, blobs) in &self.stores.new {
            let Ok(set) = SetAddress::parse_key(place) else { continue };
            let others = blobs.iter().filter(|(hash, _)| !told.contains(&(place.as_str(), hash.as_str())));
            found.unexplained.extend(others.filter_map(|(hash, blob)| self.desk.own(&set, hash, blob, false)));
        }
    }

    /// Finds signatures in the source that none of the items tells of, where the job read all.
    fn untold(&self, items: &[Item], found: &mut Found) {
        let old: BTreeSet<&String> = items.iter().filter_map(|item| item.blob.as_ref()).collect();
        let new = self.explained(items, &found.written);
        let new: Vec<_> =
            new.into_iter().filter_map(|(at, hash)| Some((SetAddress::parse_key(at).ok()?, hash))).collect();
        for (set, blobs) in &self.stores.old {
            let was_read = self.desk.went_through_all() || blobs.keys().any(|hash| old.contains(hash));
            if !was_read || self.stores.given_up.contains(set) || self.desk.head.incomplete.is_some() {
                continue;
            }
            // What the job wrote to this very set.
            let new: BTreeSet<&str> = new
                .iter()
                .filter(|(at, _)| at.path() == set.path() && at.digest() == set.digest())
                .map(|(_, hash)| *hash)
                .collect();
            let others = blobs.iter().filter(|(hash, _)| !old.contains(hash) && !new.contains(hash.as_str()));
            found.untold.extend(others.filter_map(|(hash, blob)| self.desk.untold(set, hash, blob)));
        }
    }
}

/// Tells whether an item explains the new signature that it names with this key, of its place and hash:
/// it made or found it, or failed and it is `written` there all the same.
pub(super) fn explains(item: &Item, named: ItemKey, written: &BTreeSet<ItemKey>) -> bool {
    is_signature(item) || (item.state == State::Failed && written.contains(&named))
}

/// Says which facts are not as the report has them.
pub(super) fn facts<const N: usize>(facts: [(&str, &Option<String>, Option<String>); N]) -> Vec<String> {
    let other = facts.into_iter().filter(|(_, said, found)| *said != found);
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "(none)".to_owned());
    other
        .map(|(what, said, found)| format!("the report says {what} {}, but it is {}", shown(said), shown(&found)))
        .collect()
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "(none)".to_owned() } else { keys.join(", ") }
}
