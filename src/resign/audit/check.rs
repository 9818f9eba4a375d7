//! One image of a report against the stores, and against the new registry where only that can tell.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::stores::{Blobs, Stores, is_signature};
use super::{Desk, Found, Problem};
use crate::image::Reference;
use crate::lookup::{OpenPgp, Unverified, vouched};
use crate::resign::choice::sibling;
use crate::resign::item::{Item, State};
use crate::resign::vouch::{Finding, Vouched, judge};
use crate::store::SetAddress;

/// What only the registry of the new name can tell of an item.
struct Question {
    item: Item,
    new: Reference,
}

/// Checks the items of one image.
pub(super) async fn group(desk: Arc<Desk>, items: Vec<Item>) -> Found {
    let mut problems = Vec::new();
    let stores = Stores::read(&desk.audit, &items, &mut problems).await;
    let judging = desk.clone();
    let work = tokio::task::spawn_blocking(move || {
        let check = Check { desk: &judging, stores: &stores };
        let (mut problems, mut questions) = (Vec::new(), Vec::new());
        for item in items.iter().filter(|item| stores.has_all_of(item)) {
            let (wrong, question) = check.item(item);
            problems.extend(wrong.into_iter().map(|what| Problem::of(item, what)));
            questions.extend(question);
        }
        let unexplained = check.unexplained(&items);
        (Found { problems, unexplained }, questions)
    });
    let (mut found, questions) = match work.await {
        Ok(done) => done,
        Err(stopped) => {
            let problem = Problem { unknown: true, ..Problem::of_report(format!("a check stopped: {stopped}")) };
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

const NOT_REFUSED: &str = "the report says that it was refused, but the old policy accepts it";

struct Check<'a> {
    desk: &'a Desk,
    stores: &'a Stores,
}

impl Check<'_> {
    /// Says what is wrong with an item, and what is still to be asked.
    fn item(&self, item: &Item) -> (Vec<String>, Option<Question>) {
        let (mut wrong, question) = self.judged(item);
        wrong.extend(self.time(item));
        (wrong, question)
    }

    fn judged(&self, item: &Item) -> (Vec<String>, Option<Question>) {
        let question = |vouched: Vouched| Some(Question { item: item.clone(), new: vouched.new });
        match item.state {
            State::Signed | State::Already => match self.placed(item) {
                Ok((vouched, place)) => {
                    let mut wrong = self.differences(item, &vouched, &place);
                    wrong.extend(self.new_signatures(item, &vouched, &place));
                    (wrong, item.list.as_ref().and_then(|_| question(vouched)))
                }
                Err(wrong) => (vec![wrong], None),
            },
            // What was refused for its place would be so again.
            State::Refused => match self.placed(item).map(|(vouched, _)| vouched) {
                Ok(vouched) if self.desk.asks_for_instances() && item.list.is_none() => (Vec::new(), question(vouched)),
                Ok(_) => (vec![NOT_REFUSED.to_owned()], None),
                Err(_) => (Vec::new(), None),
            },
            State::Failed | State::Unmatched => (Vec::new(), None),
        }
    }

    /// Judges the old signature, and finds out where the new ones belong.
    fn placed(&self, item: &Item) -> Result<(Vouched, SetAddress), String> {
        let vouched = self.old_signature(item)?;
        let mut place = self.desk.audit.destination.place_of(&vouched)?;
        if let (Some(_), Some(instance)) = (&item.list, &item.digest) {
            place = sibling(&place, instance).ok_or_else(|| format!("{instance} has no place beside {place}"))?;
        }
        Ok((vouched, place))
    }

    /// Judges the old signature anew.
    fn old_signature(&self, item: &Item) -> Result<Vouched, String> {
        let hash = item.blob.as_deref().ok_or("the report does not say which old signature it was")?;
        // An instance has the old signature of its list, and no other digest's.
        let signed = item.signed_digest().ok_or("the report does not say of which image")?;
        let of_image = self.stores.old.iter().filter(|(set, _)| set.digest() == signed);
        let found = of_image.map(|(set, blobs)| (set, blobs.get(hash))).find_map(|(set, blob)| Some((set, blob?)));
        let (set, blob) = found.ok_or_else(|| format!("the old signature {hash} is not in the source"))?;
        let judge_by =
            |mechanism: &OpenPgp| match judge(blob, set, &self.desk.renames, &self.desk.audit.old_policy, mechanism) {
                Finding::Vouched(vouched) => Ok(vouched),
                Finding::Refused { reason, .. } => {
                    Err(format!("the old policy does not accept the old signature: {reason}"))
                }
                Finding::Unmatched { reason, .. } => {
                    Err(format!("the old signature does not concern the job: {reason}"))
                }
            };
        let found = judge_by(&self.desk.old_mechanism);
        // Without a time of the job's own, each was judged when it was settled: that counts where
        // the end of the job (which is asked first, for its keys are read once) says otherwise.
        let otherwise = found.is_ok() != is_signature(item);
        match time_of(&item.time).filter(|_| self.desk.audit.as_of.is_none() && otherwise) {
            Some(time) => judge_by(&OpenPgp::at(time).allow_weak(self.desk.audit.allow_weak)),
            None => found,
        }
    }

    /// Says when an item cannot have been settled when the report says.
    fn time(&self, item: &Item) -> Option<String> {
        let head = &self.desk.head;
        let within = (time_of(&head.started)..=time_of(&head.ended)).contains(&time_of(&item.time));
        let (time, started, ended) = (&item.time, &head.started, &head.ended);
        (!within).then(|| format!("its time {time:?} is not between {started} and {ended}, when the job ran"))
    }

    /// Compares what the report says with what was found out.
    fn differences(&self, item: &Item, vouched: &Vouched, place: &SetAddress) -> Vec<String> {
        let facts = [
            ("old name", &item.old_reference, vouched.old.to_string()),
            ("new name", &item.new_reference, vouched.new.to_string()),
            ("place", &item.place, place.to_string()),
            ("rule", &item.rule, vouched.rule.clone()),
            ("old signer", &item.signer, vouched.signer.clone()),
            ("policy scope", &item.scope, vouched.scope.clone()),
        ];
        facts
            .into_iter()
            .filter(|(_, said, found)| said.as_ref() != Some(found))
            .map(|(what, said, found)| {
                format!("the report says {what} {}, but it is {found}", said.as_deref().unwrap_or("(none)"))
            })
            .collect()
    }

    /// Verifies the new signatures.
    fn new_signatures(&self, item: &Item, vouched: &Vouched, place: &SetAddress) -> Vec<String> {
        let mut wrong = Vec::new();
        let wanted = self.desk.keys_for(vouched.new.repository().as_str());
        let none = Blobs::new();
        // The place that the report gives, as long as it is one; that it is the right one is
        // checked beside this.
        let blobs = item.place.as_ref().and_then(|place| self.stores.new.get(place)).unwrap_or(&none);
        if item.state == State::Already && item.new_blobs.is_empty() && item.signed_by.is_empty() {
            // Another old signature of the image gave the new name its signatures.
            let by: BTreeSet<String> =
                blobs.values().filter_map(|blob| self.new_signer(blob, item, &vouched.new).ok()).collect();
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
                Ok(key) if item.signed_by.get(number) == Some(&key) => {}
                Ok(key) => wrong.push(format!("the new signature {hash} is by {key}, not as the report says")),
                Err(reason) => wrong.push(format!("the new signature {hash}: {reason}")),
            }
        }
        wrong
    }

    /// Returns who made a new signature that says exactly what it should.
    fn new_signer(&self, blob: &Bytes, item: &Item, name: &Reference) -> Result<String, String> {
        let said = Unverified::read(blob).map_err(|e| e.to_string())?;
        let wanted = item.digest.as_ref().ok_or("the report does not say of which image")?;
        if said.claim.reference != name.to_string() || said.claim.digest != *wanted {
            let (other, digest) = (&said.claim.reference, &said.claim.digest);
            return Err(format!("it is for {other} and {digest}, not for {name} and {wanted}"));
        }
        let audit = &self.desk.audit;
        let accepted = vouched(&audit.new_policy, &self.desk.new_mechanism, &said.claim, wanted, blob)
            .map_err(|e| format!("the new policy does not accept it: {e}"))?;
        accepted.fingerprint.ok_or_else(|| "it is no simple signing".to_owned())
    }

    /// Finds signatures by the job's keys at the items' places that none of the items tells of.
    fn unexplained(&self, items: &[Item]) -> Vec<(String, String)> {
        let told: BTreeSet<&String> = items.iter().flat_map(|item| item.new_blobs.iter().chain(&item.blob)).collect();
        let Some(digest) = items.first().and_then(|item| item.digest.as_ref()) else { return Vec::new() };
        let (policy, mechanism) = (&self.desk.audit.new_policy, &self.desk.new_mechanism);
        let by_us = |blob: &Bytes| {
            let said = Unverified::read(blob).ok()?;
            let signer = vouched(policy, mechanism, &said.claim, digest, blob).ok()?.fingerprint?;
            self.desk.keys.values().flatten().any(|key| *key == signer).then_some(())
        };
        let mut found = Vec::new();
        for (place, blobs) in &self.stores.new {
            for (hash, blob) in blobs.iter().filter(|(hash, _)| !told.contains(hash)) {
                if by_us(blob).is_some() {
                    found.push((hash.clone(), place.clone()));
                }
            }
        }
        found
    }
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "(none)".to_owned() } else { keys.join(", ") }
}

fn time_of(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}
