//! Whether a file's bytes are all there. This store links whole files to their names, but skopeo and
//! podman truncate `signature-N` and then fill it: for a moment it is empty, or a part of itself.
//!
//! Clocks jump, and a file server's may be wrong: a time of change that lies further in the future than
//! a file stays young says nothing, and counts as long ago.

use std::fs::File;
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;

use crate::signature::Form;

/// Nobody writes a signature for so long: what is empty or cut off after this time stays so.
const YOUNG: Duration = Duration::from_secs(5);
/// What does not tell by its form whether it is whole must rest for so long.
const REST: Duration = Duration::from_millis(900);
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

/// Returns when a file was changed last.
fn modified(found: &Stat) -> SystemTime {
    // The time may lie before 1970, and the fraction always counts upwards.
    let seconds = Duration::from_secs(found.st_mtime.unsigned_abs());
    let whole = if found.st_mtime < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let fraction = Duration::from_nanos(found.st_mtime_nsec);
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

/// Judges the bytes that were read of a file, and what the system said of it afterwards.
pub(super) fn standing(bytes: &[u8], found: &Stat) -> Standing {
    standing_at(bytes, found, SystemTime::now())
}

fn standing_at(bytes: &[u8], found: &Stat, now: SystemTime) -> Standing {
    let modified = modified(found);
    let young = is_young(modified, now);
    if bytes.is_empty() {
        return if young { Standing::Unfinished } else { Standing::Empty };
    }
    if !young {
        return Standing::Whole;
    }
    if u64::try_from(found.st_size).is_ok_and(|length| length != bytes.len() as u64) {
        return Standing::Unfinished;
    }
    let rested = now.duration_since(modified).is_ok_and(|age| age >= REST);
    match Form::of(bytes) {
        Form::Whole => Standing::Whole,
        Form::Unknown if rested => Standing::Whole,
        Form::Unknown | Form::CutOff => Standing::Unfinished,
    }
}

/// Says of a file that was written as one piece, and has no name of a signature yet, that it is
/// whole, where its form does not: a server without a gate stores anything.
///
/// What tells readers is the time of its last change, which is set back a little.
pub(super) fn mark_whole(file: &File, bytes: &[u8]) {
    if Form::of(bytes) == Form::Whole {
        return;
    }
    let marked = SystemTime::now().checked_sub(2 * YOUNG).map(|back| file.set_modified(back));
    if let Some(Err(error)) = marked {
        tracing::debug!(%error, "readers wait until this file is old enough");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CUT_OFF: &[u8] = &[0xC4, 13, 3, 0];
    const WHOLE: &[u8] = b"\0sigstore-json\n{}";
    const UNKNOWN: &[u8] = b"no signature";

    /// Judges a file of these bytes that is so old, in milliseconds.
    fn judged(bytes: &[u8], age: i64) -> Standing {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, bytes).unwrap();
        let found = rustix::fs::stat(&path).unwrap();
        let shift = Duration::from_millis(age.unsigned_abs());
        let now = if age < 0 { modified(&found) - shift } else { modified(&found) + shift };
        standing_at(bytes, &found, now)
    }

    #[test]
    fn age_and_form_decide() {
        use Standing::{Empty, Unfinished, Whole};
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
            let standings = [&[][..], CUT_OFF, UNKNOWN, WHOLE].map(|bytes| judged(bytes, age));
            assert_eq!(standings, [empty, cut_off, unknown, Whole], "{age}");
        }
    }

    #[test]
    fn what_changed_since_it_was_read_is_unfinished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [WHOLE, WHOLE].concat()).unwrap();
        let found = rustix::fs::stat(&path).unwrap();
        assert_eq!(standing_at(WHOLE, &found, modified(&found)), Standing::Unfinished);
    }

    #[test]
    fn our_own_are_whole_until_somebody_writes_them_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bytes in [CUT_OFF, UNKNOWN] {
            let look = || standing(bytes, &rustix::fs::stat(&path).unwrap());
            fs::write(&path, bytes).unwrap();
            assert_eq!(look(), Standing::Unfinished);
            mark_whole(&File::options().write(true).open(&path).unwrap(), bytes);
            assert_eq!(look(), Standing::Whole);
            fs::write(&path, bytes).unwrap();
            assert_eq!(look(), Standing::Unfinished);
        }
        fs::write(&path, WHOLE).unwrap();
        mark_whole(&File::options().write(true).open(&path).unwrap(), WHOLE);
        assert!(is_young_file(&rustix::fs::stat(&path).unwrap()), "what tells by its form keeps its time");
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
