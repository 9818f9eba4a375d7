//! What a set looks like from outside, by which a reader notices that another program changed it.

use std::time::{Duration, SystemTime};

use rustix::fs::Stat;

/// How long a change must be over before the next one is sure to have another time: file systems note times by the
/// kernel's tick, which is up to 10 ms long.
const TICK: Duration = Duration::from_millis(50);

/// The folder and files of a set: numbers, sizes, inodes and times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetState {
    looks: Vec<(u32, [i128; 6])>,
    newest: i128,
    taken: i128,
}

impl SetState {
    pub(super) fn new(folder: &Stat) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut state = Self { taken: i128::try_from(now.as_nanos()).unwrap_or_default(), ..Self::default() };
        state.add(0, folder);
        state
    }

    pub(super) fn add(&mut self, number: u32, found: &Stat) {
        let nanos = |seconds: i128, nanos: i128| seconds * 1_000_000_000 + nanos;
        let changed = nanos(found.st_ctime.into(), i128::from(found.st_ctime_nsec));
        let modified = nanos(found.st_mtime.into(), i128::from(found.st_mtime_nsec));
        let (device, inode) = (i128::from(found.st_dev), i128::from(found.st_ino));
        self.newest = self.newest.max(changed);
        self.looks.push((number, [device, inode, i128::from(found.st_size), changed, modified, 0]));
    }

    /// Tells whether nothing has changed since `earlier` was taken. In doubt, as just after a change, it has.
    pub fn is_unchanged_since(&self, earlier: &Self) -> bool {
        let tick = i128::try_from(TICK.as_nanos()).unwrap_or_default();
        let settled = earlier.looks.is_empty() || earlier.newest + tick < earlier.taken;
        settled && self.looks == earlier.looks
    }
}
