//! One image of a report against the stores.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::{Desk, Found, Problem};
use crate::image::{Digest, Reference};
use crate::lookup::{OpenPgp, Unverified, vouched};
use crate::resign::endpoint::EndpointError;
use crate::resign::item::{Item, State};
use crate::resign::vouch::{Finding, Vouched, judge};
use crate::store::{Layout, SetAddress, StorePath};

type Blobs = HashMap<String, Bytes>;

fn by_hash(blobs: Vec<Bytes>) -> Blobs {
    blobs.into_iter().map(|blob| (Digest::sha256(&blob).hex().to_owned(), blob)).collect()
}

/// Checks the items of one image.
pub(super) async fn group(desk: Arc<Desk>, items: Vec<Item>) -> Found {
    let mut found = Found::default();
    let mut unknown = |item: &Item, store: &str, error: &EndpointError| {
        found
            .problems
            .push(Problem { unknown: true, ..Problem::of(item, format!("cannot read the {store}: {error}")) });
    };
    let Some(first) = items.first() else { return found };
    let mut old: Vec<(SetAddress, Blobs)> = Vec::new();
    for set in sources(&items) {
        match desk.audit.source.signatures(&set).await {
            Ok(blobs) => old.push((set, by_hash(blobs))),
            Err(error) => {
                unknown(first, "source", &error);
                return found;
            }
        }
    }
    let mut new: BTreeMap<String, Blobs> = BTreeMap::new();
    let mut unread = BTreeSet::new();
    for item in items.iter().filter(|item| is_signature(item)) {
        let place = item.place.clone().unwrap_or_default();
        // A place that cannot be is told by the check of the item.
        let Ok(set) = SetAddress::parse_key(&place) else { continue };
        if new.contains_key(&place) || unread.contains(&place) {
            continue;
        }
        match desk.audit.destination.signatures(&set).await {
            Ok(blobs) => drop(new.insert(place, by_hash(blobs))),
            Err(error) => {
                unknown(item, "destination", &error);
                unread.insert(place);
            }
        }
    }
    let work = tokio::task::spawn_blocking(move || {
        let check = Check { desk: &desk, old: &old, new: &new };
        for item in items.iter().filter(|item| !unread.contains(item.place.as_deref().unwrap_or_default())) {
            found.problems.extend(check.item(item).into_iter().map(|what| Problem::of(item, what)));
        }
        found.unexplained = check.unexplained(&items);
        found
    });
    match work.await {
        Ok(found) => found,
        Err(stopped) => {
            let problem = Problem { unknown: true, ..Problem::of_report(format!("a check stopped: {stopped}")) };
            Found { problems: vec![problem], ..Found::default() }
        }
    }
}

fn is_signature(item: &Item) -> bool {
    matches!(item.state, State::Signed | State::Already)
}

/// Where the old signatures of an image may lie: the report tells path and digest, not the layout.
fn sources(items: &[Item]) -> Vec<SetAddress> {
    let Some(first) = items.first() else { return Vec::new() };
    let (Ok(path), Some(digest)) = (StorePath::parse(&first.repository), &first.digest) else { return Vec::new() };
    let release = SetAddress::release(path.clone(), digest.clone());
    let is_release = |item: &Item| {
        let place = item.place.as_deref().and_then(|place| SetAddress::parse_key(place).ok());
        place.is_some_and(|place| place.layout() == Layout::Release)
    };
    if items.iter().any(is_release) {
        return vec![release];
    }
    let image = SetAddress::image(path, digest.clone()).ok();
    // All of them were refused: it may have been either.
    let either = (!items.iter().any(is_signature)).then_some(release);
    image.into_iter().chain(either).collect()
}

struct Check<'a> {
    desk: &'a Desk,
    old: &'a [(SetAddress, Blobs)],
    new: &'a BTreeMap<String, Blobs>,
}

impl Check<'_> {
    /// Says what is wrong with an item.
    fn item(&self, item: &Item) -> Vec<String> {
        let mut wrong = self.judged(item);
        wrong.extend(self.time(item));
        wrong
    }

    fn judged(&self, item: &Item) -> Vec<String> {
        match item.state {
            State::Signed | State::Already => match self.old_signature(item) {
                Ok(vouched) => {
                    let mut wrong = self.differences(item, &vouched);
                    wrong.extend(self.new_signatures(item, &vouched));
                    wrong
                }
                Err(wrong) => vec![wrong],
            },
            State::Refused => match self.old_signature(item) {
                Ok(_) => vec!["the report says that it was refused, but the old policy accepts it".to_owned()],
                Err(_) => Vec::new(),
            },
            State::Failed | State::Unmatched => Vec::new(),
        }
    }

    /// Judges the old signature anew.
    fn old_signature(&self, item: &Item) -> Result<Vouched, String> {
        let hash = item.blob.as_deref().ok_or("the report does not say which old signature it was")?;
        let found = self.old.iter().find_map(|(set, blobs)| Some((set, blobs.get(hash)?)));
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
    fn differences(&self, item: &Item, vouched: &Vouched) -> Vec<String> {
        let facts = [
            ("old name", &item.old_reference, vouched.old.to_string()),
            ("new name", &item.new_reference, vouched.new.to_string()),
            ("place", &item.place, vouched.place.to_string()),
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
    fn new_signatures(&self, item: &Item, vouched: &Vouched) -> Vec<String> {
        let mut wrong = Vec::new();
        let wanted = self.desk.keys_for(vouched.new.repository().as_str());
        let place = vouched.place.to_string();
        let none = Blobs::new();
        // The place that the report gives, as long as it is one; that it is the right one is
        // checked beside this.
        let blobs = item.place.as_ref().and_then(|place| self.new.get(place)).unwrap_or(&none);
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
        for (place, blobs) in self.new {
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
