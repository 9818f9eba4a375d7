//! Whether a file's bytes are all there. This store links whole files to their names, but skopeo and
//! podman truncate `signature-N` and then fill it: for a moment it is empty, or a part of itself.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::Stat;

use crate::signature::Form;

/// Nobody writes a signature for so long: what is empty or cut off after this time stays so.
const YOUNG: Duration = Duration::from_secs(5);
/// What does not tell by its form whether it is whole must rest for so long.
const REST: Duration = Duration::from_millis(900);
/// How many files of our own are remembered.
const REMEMBERED: usize = 1024;

/// What a file is, by its bytes and its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// All its bytes are there.
    Whole,
    /// It is empty and stays so.
    Empty,
    /// Somebody may be writing it.
    Unfinished,
}

/// Judges files. Clocks jump, and a file server's may be wrong: a time of change that lies further in
/// the future than a file stays young says nothing, and counts as long ago.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Files that this process wrote as one piece although their form does not tell: a server
    /// without a gate stores anything.
    own: Mutex<VecDeque<(Instant, Identity)>>,
}

/// A file in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: SystemTime,
}

impl Identity {
    fn of(found: &Stat) -> Self {
        Self {
            device: found.st_dev,
            inode: found.st_ino,
            length: u64::try_from(found.st_size).unwrap_or_default(),
            modified: modified(found),
        }
    }
}

/// Returns when a file was changed last.
fn modified(found: &Stat) -> SystemTime {
    // The time may lie before 1970, and the fraction always counts upwards.
    let seconds = Duration::from_secs(found.st_mtime.unsigned_abs());
    let whole = if found.st_mtime < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let fraction = Duration::from_nanos(u64::try_from(found.st_mtime_nsec).unwrap_or_default());
    whole.and_then(|whole| whole.checked_add(fraction)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Tells whether somebody may still be at work on an empty file that was changed then.
pub(super) fn is_young(modified: SystemTime, now: SystemTime) -> bool {
    now.duration_since(modified).unwrap_or_else(|ahead| ahead.duration()) < YOUNG
}

/// As [`is_young`], by what the system says of a file.
pub(super) fn is_young_file(found: &Stat) -> bool {
    is_young(modified(found), SystemTime::now())
}

impl Judge {
    /// Judges the bytes that were read of a file, and what the system said of it afterwards.
    pub(super) fn standing(&self, bytes: &[u8], found: &Stat) -> Standing {
        self.at(bytes, found, SystemTime::now())
    }

    fn at(&self, bytes: &[u8], found: &Stat, now: SystemTime) -> Standing {
        let modified = modified(found);
        let young = is_young(modified, now);
        if bytes.is_empty() {
            return if young { Standing::Unfinished } else { Standing::Empty };
        }
        if !young {
            return Standing::Whole;
        }
        if found.st_size >= 0 && u64::try_from(found.st_size).ok() != u64::try_from(bytes.len()).ok() {
            return Standing::Unfinished;
        }
        let rested = now.duration_since(modified).is_ok_and(|age| age >= REST);
        match Form::of(bytes) {
            Form::Whole => Standing::Whole,
            Form::Unknown if rested => Standing::Whole,
            _ if self.is_own(&Identity::of(found)) => Standing::Whole,
            Form::Unknown | Form::CutOff => Standing::Unfinished,
        }
    }

    /// Notes a file that this process has just written as one piece.
    pub(super) fn wrote(&self, bytes: &[u8], found: impl FnOnce() -> Option<Stat>) {
        if Form::of(bytes) == Form::Whole {
            return;
        }
        let Some(identity) = found().map(|found| Identity::of(&found)) else { return };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        while own.front().is_some_and(|(written, _)| written.elapsed() >= 2 * YOUNG) || own.len() >= REMEMBERED {
            own.pop_front();
        }
        own.push_back((Instant::now(), identity));
    }

    fn is_own(&self, identity: &Identity) -> bool {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.iter().any(|(_, known)| known == identity)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    const CUT_OFF: &[u8] = &[0xC4, 13, 3, 0];
    const WHOLE: &[u8] = b"\0sigstore-json\n{}";
    const UNKNOWN: &[u8] = b"no signature";

    /// Judges a file of these bytes that is so old, in milliseconds.
    fn judged(judge: &Judge, bytes: &[u8], age: i64) -> Standing {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, bytes).unwrap();
        let found = rustix::fs::stat(&path).unwrap();
        let shift = Duration::from_millis(age.unsigned_abs());
        let now = if age < 0 { modified(&found) - shift } else { modified(&found) + shift };
        judge.at(bytes, &found, now)
    }

    #[test]
    fn age_and_form_decide() {
        use Standing::{Empty, Unfinished, Whole};
        let judge = Judge::default();
        for (age, empty, cut_off, unknown) in [
            (0, Unfinished, Unfinished, Unfinished),
            (800, Unfinished, Unfinished, Unfinished),
            (1000, Unfinished, Unfinished, Whole),
            (4900, Unfinished, Unfinished, Whole),
            (5000, Empty, Whole, Whole),
            (1 << 40, Empty, Whole, Whole),
            // The file's clock is a little ahead; then so far that it says nothing.
            (-3000, Unfinished, Unfinished, Unfinished),
            (-6000, Empty, Whole, Whole),
            (-(1 << 40), Empty, Whole, Whole),
        ] {
            let standings = [&[][..], CUT_OFF, UNKNOWN, WHOLE].map(|bytes| judged(&judge, bytes, age));
            assert_eq!(standings, [empty, cut_off, unknown, Whole], "{age}");
        }
    }

    #[test]
    fn what_changed_since_it_was_read_is_unfinished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [WHOLE, WHOLE].concat()).unwrap();
        let found = rustix::fs::stat(&path).unwrap();
        assert_eq!(Judge::default().at(WHOLE, &found, modified(&found)), Standing::Unfinished);
    }

    #[test]
    fn our_own_are_whole_until_somebody_changes_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let judge = Judge::default();
        let look = |judge: &Judge, bytes: &[u8]| {
            let found = rustix::fs::stat(&path).unwrap();
            judge.at(bytes, &found, modified(&found))
        };
        fs::write(&path, CUT_OFF).unwrap();
        assert_eq!(look(&judge, CUT_OFF), Standing::Unfinished);
        judge.wrote(CUT_OFF, || rustix::fs::stat(&path).ok());
        assert_eq!(look(&judge, CUT_OFF), Standing::Whole);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
        assert_eq!(look(&judge, CUT_OFF), Standing::Unfinished, "the same file, written again");
        judge.wrote(WHOLE, || panic!("of what tells by its form nothing is remembered"));
        for _ in 0..2 * REMEMBERED {
            judge.wrote(UNKNOWN, || rustix::fs::stat(&path).ok());
        }
        assert_eq!(judge.own.lock().unwrap().len(), REMEMBERED);
    }

    #[test]
    fn times_before_1970_are_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_millis(1500)).unwrap();
        let found = rustix::fs::stat(&path).unwrap();
        assert_eq!(modified(&found), SystemTime::UNIX_EPOCH - Duration::from_millis(1500));
        assert!(!is_young_file(&found));
    }
}
