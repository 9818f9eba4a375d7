//! The reports of a job's parts, joined: the same job in all, each part once, and what is missing
//! told.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::parts::Parts;
use super::read::{read, read_head};
use super::seen::{Seen, key_of};
use super::{Account, Counter, Head, Item, ReportError, SHARD};
use crate::resign::journal::ItemKey;

/// Why reports cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// One cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// There is none.
    #[error("no report given")]
    None,
    /// They tell of different jobs.
    #[error(
        "{one} and {other} are of different jobs: {what} is {ours:?} in the first, {theirs:?} in the second",
        one = one.display(), other = other.display()
    )]
    OtherJob {
        /// The first report.
        one: PathBuf,
        /// The one that differs.
        other: PathBuf,
        /// What differs.
        what: String,
        /// What the first says.
        ours: String,
        /// What the other says.
        theirs: String,
    },
    /// What a report says of its parts cannot be.
    #[error("{path}: {reason}; it was changed after it was written", path = path.display())]
    Part {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Two reports tell of the same part.
    #[error("{one} and {other} both tell of part {part}", one = one.display(), other = other.display())]
    Overlap {
        /// The first report.
        one: PathBuf,
        /// The second.
        other: PathBuf,
        /// The part.
        part: String,
    },
    /// A report's totals are not those of its items.
    #[error("the totals of {path} are not those of its items: it was changed after it was written", path = .0.display())]
    Totals(PathBuf),
}

/// Reports that make one.
#[derive(Debug)]
pub struct Merged {
    /// What stands before the joined items.
    pub head: Head,
    /// Which parts nobody told of.
    pub missing: Vec<String>,
    /// How many items several reports tell of; the first of each stays.
    pub doubled: u64,
    files: Vec<PathBuf>,
    /// What may be there several times.
    suspects: HashMap<ItemKey, u64>,
}

impl Account for Merged {
    fn each(&self, take: &mut dyn FnMut(&Item) -> Result<(), ReportError>) -> Result<(), ReportError> {
        let mut counts = self.suspects.clone();
        for path in &self.files {
            read(path, &mut |_| Ok(()), &mut |item| match counts.get_mut(&key_of(&item)) {
                Some(1..) => Ok(()),
                Some(count) => {
                    *count += 1;
                    take(&item)
                }
                None => take(&item),
            })?;
        }
        Ok(())
    }
}

/// Joins the reports of the parts of one job. Reads each of them twice, and once more whenever the
/// items are wanted.
///
/// # Errors
/// [`MergeError`].
pub fn merge(files: &[PathBuf]) -> Result<Merged, MergeError> {
    let first_path = files.first().ok_or(MergeError::None)?;
    let first = read_head(first_path)?;
    let mut told: Vec<(u32, u32, &Path)> = Vec::new();
    let mut creators = BTreeSet::new();
    let mut head = first.clone();
    let mut incomplete = Vec::new();
    for path in files {
        let part = read_head(path)?;
        same_job(first_path, &first, path, &part)?;
        let parts = Parts::of(&part).map_err(|reason| MergeError::Part { path: path.clone(), reason })?;
        for shard in &parts.shards {
            let (index, count) = (shard.index, shard.count);
            if let Some((_, other, _)) = told.first().filter(|(_, other, _)| *other != count) {
                let (ours, theirs) = (format!("one of {other}"), format!("one of {count}"));
                let (one, other) = (first_path.clone(), path.clone());
                return Err(MergeError::OtherJob { one, other, what: SHARD.to_owned(), ours, theirs });
            }
            if let Some((_, _, one)) = told.iter().find(|(other, ..)| *other == index) {
                let (one, other, part) = (one.to_path_buf(), path.clone(), format!("{index}/{count}"));
                return Err(MergeError::Overlap { one, other, part });
            }
            told.push((index, count, path));
        }
        creators.insert(part.creator);
        head.started = head.started.min(part.started);
        head.ended = head.ended.max(part.ended);
        // What was missing in a join before may be here now; what a run could not do is not.
        incomplete.extend(part.incomplete.filter(|_| part.shards.len() == 1));
    }
    let count = told.first().map_or(1, |(_, count, _)| *count);
    let here: BTreeSet<u32> = told.iter().map(|(index, ..)| *index).collect();
    let missing: Vec<String> = missing(&here, count);
    if !missing.is_empty() {
        incomplete.push(format!("no report of part {}", missing.join(", ")));
    }
    head.creator = creators.into_iter().collect::<Vec<_>>().join(", ");
    head.shards = here.iter().map(|index| format!("{index}/{count}")).collect();
    head.job.insert(SHARD.to_owned(), if missing.is_empty() { "1/1".to_owned() } else { head.shards.join(" ") });
    head.incomplete = Some(incomplete.join("; ")).filter(|text| !text.is_empty());

    let mut seen = Seen::new();
    let mut all = 0u64;
    for path in files {
        let mut counter = Counter::default();
        let (mut said, mut foreign) = (None, None);
        let parts = Parts::of(&read_head(path)?).map_err(|reason| MergeError::Part { path: path.clone(), reason })?;
        read(
            path,
            &mut |head| {
                said = Some(head.totals);
                Ok(())
            },
            &mut |item| {
                if foreign.is_none() && !parts.may_have(&item) {
                    foreign = Some(item.image());
                }
                seen.note(key_of(&item));
                counter.count(&item);
                all += 1;
                Ok(())
            },
        )?;
        if let Some(image) = foreign {
            let reason = format!("{image} is of no part of the job that it tells of");
            return Err(MergeError::Part { path: path.clone(), reason });
        }
        if said != Some(counter.end().0) {
            return Err(MergeError::Totals(path.clone()));
        }
    }
    let mut merged = Merged { head, missing, doubled: 0, files: files.to_vec(), suspects: seen.suspects() };
    let (mut counter, mut kept) = (Counter::default(), 0u64);
    merged.each(&mut |item| {
        counter.count(item);
        kept += 1;
        Ok(())
    })?;
    (merged.head.totals, merged.head.refusals, _) = counter.end();
    merged.doubled = all.saturating_sub(kept);
    Ok(merged)
}

/// How many missing parts are named.
const NAMED: usize = 100;

fn missing(here: &BTreeSet<u32>, count: u32) -> Vec<String> {
    let mut missing: Vec<String> =
        (1..=count).filter(|index| !here.contains(index)).take(NAMED).map(|index| format!("{index}/{count}")).collect();
    let all = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(here.len());
    if all > missing.len() {
        missing.push(format!("and {} more", all - missing.len()));
    }
    missing
}

fn same_job(one: &Path, ours: &Head, other: &Path, theirs: &Head) -> Result<(), MergeError> {
    let differ = |what: &str, ours: String, theirs: String| {
        let (one, other) = (one.to_owned(), other.to_owned());
        Err(MergeError::OtherJob { one, other, what: what.to_owned(), ours, theirs })
    };
    if ours.dry_run != theirs.dry_run {
        return differ("dry run", ours.dry_run.to_string(), theirs.dry_run.to_string());
    }
    for what in ours.job.keys().chain(theirs.job.keys()).filter(|what| *what != SHARD) {
        let (ours, theirs) = (ours.job.get(what), theirs.job.get(what));
        if ours != theirs {
            return differ(what, ours.cloned().unwrap_or_default(), theirs.cloned().unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head_of, item, items};
    use super::super::write::write;
    use super::*;

    fn part(folder: &Path, name: &str, shard: &str, items: &Vec<Item>) -> PathBuf {
        let mut head = head_of(items);
        head.shards = vec![shard.to_owned()];
        head.job.insert(SHARD.to_owned(), shard.to_owned());
        let path = folder.join(name);
        write(&path, &head, items).unwrap();
        path
    }

    /// A repository of a third of a job.
    fn of_part(index: u32) -> String {
        let part = crate::resign::pipeline::Shard { index, count: 3 };
        (0..).map(|n| format!("a/{n}")).find(|path| part.has(path)).unwrap()
    }

    fn items_of(index: u32) -> Vec<Item> {
        items().into_iter().map(|item| Item { repository: of_part(index), ..item }).collect()
    }

    #[test]
    fn parts_make_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let one = part(folder.path(), "1.json", "1/3", &items_of(1));
        // Of an image of which nothing could be read, several parts may tell.
        let unread = items_of(1).into_iter().find(|item| item.blob.is_none()).unwrap();
        let other = vec![Item { repository: of_part(2), ..item() }];
        let two = part(folder.path(), "2.json", "2/3", &other);
        let three = part(folder.path(), "3.json", "3/3", &Vec::new());
        let merged = merge(&[one.clone(), two.clone(), three.clone()]).unwrap();
        assert!(merged.missing.is_empty() && merged.doubled == 0 && merged.head.incomplete.is_none());
        assert_eq!((merged.head.totals.signed, merged.head.totals.refused), (3, 1));
        assert_eq!(merged.head.job[SHARD], "1/1");
        // Joined in two steps it is the same.
        let partly = merge(&[three, one.clone()]).unwrap();
        assert_eq!(partly.missing, ["2/3"]);
        assert_eq!(partly.head.incomplete.as_deref(), Some("no report of part 2/3"));
        let path = folder.path().join("partly.json");
        write(&path, &partly.head, &partly).unwrap();
        assert_eq!(merge(&[path, two.clone()]).unwrap().head, merged.head);
        let twice = part(folder.path(), "again.json", "2/3", &vec![unread.clone()]);
        assert_eq!(merge(&[one.clone(), twice.clone()]).unwrap().doubled, 1);
        assert!(matches!(merge(&[two, twice]), Err(MergeError::Overlap { .. })));
    }

    #[test]
    fn what_does_not_belong_together_stays_apart() {
        let folder = tempfile::tempdir().unwrap();
        let one = part(folder.path(), "1.json", "1/3", &items_of(1));
        let four = part(folder.path(), "4.json", "2/4", &Vec::new());
        let error = |files: &[&PathBuf]| {
            let files: Vec<PathBuf> = files.iter().map(|path| path.to_path_buf()).collect();
            merge(&files).unwrap_err().to_string().replace(&folder.path().display().to_string(), "")
        };
        insta::assert_snapshot!(error(&[&one, &four]), @r#"/1.json and /4.json are of different jobs: shard is "one of 3" in the first, "one of 4" in the second"#);
        let bad = part(folder.path(), "bad.json", "5/4", &Vec::new());
        insta::assert_snapshot!(error(&[&bad]), @r#"/bad.json: part "5/4" is not I/N with 1 <= I <= N; it was changed after it was written"#);
        let text = std::fs::read_to_string(&one).unwrap();
        let edited = folder.path().join("edited.json");
        std::fs::write(&edited, text.replace("\"signed\":2", "\"signed\":3")).unwrap();
        insta::assert_snapshot!(error(&[&edited]), @r#"the totals of /edited.json are not those of its items: it was changed after it was written"#);
        std::fs::write(&edited, text.replace("old-tree", "other-tree").replace("1/3", "2/3")).unwrap();
        insta::assert_snapshot!(error(&[&one, &edited]), @r#"/1.json and /edited.json are of different jobs: source is "old-tree" in the first, "other-tree" in the second"#);
        // An item of another part, and a part that the job is not.
        let foreign = part(folder.path(), "foreign.json", "2/3", &items_of(3));
        let said = error(&[&foreign]);
        assert!(said.starts_with("/foreign.json: a/") && said.contains("is of no part of the job"), "{said}");
        std::fs::write(&edited, text.replace("\"shards\":[\"1/3\"]", "\"shards\":[\"2/3\"]")).unwrap();
        insta::assert_snapshot!(error(&[&edited]), @"/edited.json: it tells of the parts 2/3, but its job is part 1/3; it was changed after it was written");
        assert!(merge(&[]).is_err());
    }
}
