//! The two readings of a report: the first hands its items to the checks, the second explains what
//! they had to leave open.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use tokio::sync::{mpsc, oneshot};

use super::check::explains;
use super::stores::is_signature;
use super::{Suspects, is_younger, stores};
use crate::resign::endpoint::Endpoint;
use crate::resign::item::Item;
use crate::resign::journal::{ItemKey, item_key};
use crate::resign::report::{self, Counter, Head, ReportError, Seen, Totals, key_of};
use crate::store::SetAddress;

/// How many items of one image are checked together; what goes beyond is another group.
const GROUP: usize = 1024;

/// What the reader of the report saw.
pub(super) struct Read {
    pub(super) items: u64,
    pub(super) signatures: u64,
    pub(super) totals: Totals,
    pub(super) refusals: BTreeMap<String, u64>,
    pub(super) suspects: HashMap<ItemKey, u64>,
}

/// Reads the report and sends its items, those of one image together where they stand together.
pub(super) fn send_groups(
    path: &Path,
    head: oneshot::Sender<Head>,
    groups: &mpsc::Sender<Vec<Item>>,
) -> Result<Read, ReportError> {
    let mut head_sender = Some(head);
    let mut on_head = |head| {
        let sent = head_sender.take().is_some_and(|sender| sender.send(head).is_ok());
        if sent { Ok(()) } else { Err(ReportError::Stopped) }
    };
    let (mut seen, mut counter) = (Seen::new(), Counter::default());
    let (mut items, mut signatures) = (0, 0);
    let mut group: Vec<Item> = Vec::new();
    let send = |group: &mut Vec<Item>| {
        let full = std::mem::take(group);
        if full.is_empty() { Ok(()) } else { groups.blocking_send(full).map_err(|_| ReportError::Stopped) }
    };
    report::read(path, &mut on_head, &mut |item| {
        seen.note(key_of(&item));
        counter.count(&item);
        items += 1;
        signatures += u64::from(is_signature(&item));
        let other = group.first().is_some_and(|one| one.repository != item.repository || one.digest != item.digest);
        if other || group.len() >= GROUP {
            send(&mut group)?;
        }
        group.push(item);
        Ok(())
    })?;
    send(&mut group)?;
    let (totals, refusals, _) = counter.end();
    Ok(Read { items, signatures, totals, refusals, suspects: seen.suspects() })
}

/// What the second reading leaves.
#[derive(Default)]
pub(super) struct Again {
    pub(super) doubled: Vec<Item>,
    pub(super) unexplained: Suspects,
    pub(super) untold: Suspects,
}

/// Decides what the first reading had to leave open.
///
/// That a signature by the job's keys was in the source explains it where its name is an old one
/// (a job may have one tree for both, and one key). A name that the rules make is explained by
/// nothing but an item that made it or found it; of what failed, only what the first reading found
/// `written` at its place counts.
pub(super) fn second(
    path: &Path,
    mut suspects: HashMap<ItemKey, u64>,
    (unexplained, untold): (Suspects, Suspects),
    written: &BTreeSet<ItemKey>,
    source: &Endpoint,
) -> Result<Again, ReportError> {
    let mut again = Again { unexplained, untold, ..Again::default() };
    if suspects.is_empty() && again.unexplained.is_empty() && again.untold.is_empty() {
        return Ok(again);
    }
    report::read(path, &mut |_| Ok(()), &mut |item| {
        if let Some(count) = suspects.get_mut(&key_of(&item)) {
            *count += 1;
            if *count == 2 {
                again.doubled.push(item.clone());
            }
        }
        let place = item.place.as_deref().unwrap_or_default();
        let set = SetAddress::parse_key(place).ok();
        for hash in &item.new_blobs {
            let key = item_key("", place, hash);
            if !explains(&item, key, written) {
                continue;
            }
            again.unexplained.remove(&key);
            if let Some(set) = &set {
                again.untold.remove(&item_key(set.path().as_str(), &set.digest().to_string(), hash));
            }
        }
        if let (Some(hash), Some(digest)) = (&item.blob, item.signed_digest()) {
            again.untold.remove(&item_key(&item.repository, &digest.to_string(), hash));
            if again.unexplained.is_empty() {
                return Ok(());
            }
            // Where both stores are one, it lies at its old place.
            let places = stores::sources(source, &item, digest).into_iter().map(|set| set.to_string());
            for at in places.chain([place.to_owned()]) {
                let key = item_key("", &at, hash);
                match again.unexplained.get_mut(&key) {
                    // It cannot have been there then.
                    Some(suspect) if is_younger(suspect.created, &item) => {}
                    Some(suspect) if suspect.made => suspect.told = true,
                    Some(_) => drop(again.unexplained.remove(&key)),
                    None => {}
                }
            }
        }
        Ok(())
    })?;
    Ok(again)
}
