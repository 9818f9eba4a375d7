//! What must be there: kept by those who write, asked by all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use countersign::image::Digest;

/// After so long, what a client sent and did not wait for does not arrive any more.
const LATEST: Duration = Duration::from_secs(60);

pub struct Model {
    /// Images of which one writer at a time makes and removes signatures: what is there is known.
    pub exact: Vec<Image<RwLock<Known>>>,
    /// Images to which many write at the same time and from which nobody removes.
    pub crowded: Vec<Image<Mutex<BTreeSet<usize>>>>,
}

/// An image, and the signatures that may come to be on it.
pub struct Image<S> {
    pub repository: String,
    pub digest: Digest,
    pub manifest: Vec<u8>,
    pub pool: Vec<Vec<u8>>,
    numbers: HashMap<Vec<u8>, usize>,
    pub state: S,
}

/// The signatures of an image, by their number in its pool.
#[derive(Default)]
pub struct Known {
    pub present: BTreeSet<usize>,
    /// Sent by a client that did not wait; sent once, so it arrives once if ever.
    pub maybe: BTreeMap<usize, Instant>,
    /// Changed by every writer.
    pub writes: u64,
}

impl<S> Image<S> {
    pub fn new(repository: String, manifest: Vec<u8>, pool: Vec<Vec<u8>>, state: S) -> Self {
        let numbers = pool.iter().cloned().enumerate().map(|(n, blob)| (blob, n)).collect();
        Self { repository, digest: Digest::sha256(&manifest), manifest, pool, numbers, state }
    }

    /// Where the lookaside has it; `last` is a number or `new`.
    pub fn path(&self, last: &str) -> String {
        format!("/lookaside/{}@{}/signature-{last}", self.repository, self.digest.path_form())
    }

    /// Tells which signatures these are.
    pub fn recognise(&self, found: &[Vec<u8>]) -> Result<BTreeSet<usize>, String> {
        let mut seen = BTreeSet::new();
        for blob in found {
            let n = self.numbers.get(blob).ok_or_else(|| self.about(&format!("has {} foreign bytes", blob.len())))?;
            if !seen.insert(*n) {
                return Err(self.about(&format!("has signature {n} twice")));
            }
        }
        Ok(seen)
    }

    pub fn about(&self, what: &str) -> String {
        format!("{}@{} {what}", self.repository, self.digest)
    }
}

impl Known {
    /// Compares what was found with what must and may be there; returns what may be and is.
    pub fn agrees(&self, seen: &BTreeSet<usize>) -> Result<Vec<usize>, String> {
        let lost: Vec<_> = self.present.difference(seen).collect();
        if !lost.is_empty() {
            return Err(format!("lacks {lost:?}, which were acknowledged"));
        }
        let others: Vec<usize> = seen.difference(&self.present).copied().collect();
        match others.iter().find(|n| !self.maybe.contains_key(n)) {
            Some(n) => Err(format!("has signature {n}, which was removed or never sent whole")),
            None => Ok(others),
        }
    }

    /// What may be there and is stays there.
    pub fn confirm(&mut self, arrived: &[usize]) {
        for n in arrived {
            self.maybe.remove(n);
            self.present.insert(*n);
        }
        self.maybe.retain(|_, sent| sent.elapsed() < LATEST);
    }

    /// A signature that is not there and not on its way.
    pub fn absent(&self, from: usize, count: usize) -> Option<usize> {
        let mut all = (0..count).map(|n| (from + n) % count);
        all.find(|n| !self.present.contains(n) && !self.maybe.contains_key(n))
    }
}
