//! Which parts of a job a report tells of: what it says of them must agree with itself and with
//! its items, or whole images could be left out under the name of a part.

use super::{Head, Item, SHARD};
use crate::resign::pipeline::Shard;

/// The parts that a report says it tells of, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// In the order of the report, each once.
    pub shards: Vec<Shard>,
    /// They are all.
    pub whole: bool,
}

impl Parts {
    /// Reads the parts of a report.
    ///
    /// # Errors
    /// A sentence about what cannot be: no parts, one that is not `I/N`, one twice, parts of different
    /// divisions, others than the job says, or several that are not all without the report saying
    /// that it is incomplete.
    pub fn of(head: &Head) -> Result<Self, String> {
        let mut shards: Vec<Shard> = Vec::with_capacity(head.shards.len());
        for text in &head.shards {
            let part = parse(text).ok_or_else(|| format!("part {text:?} is not I/N with 1 <= I <= N"))?;
            shards.push(part);
        }
        let first = shards.first().ok_or("it tells of no part of the job")?;
        let count = first.count;
        let mut indices: Vec<u32> = shards.iter().map(|part| part.index).collect();
        indices.sort_unstable();
        if shards.iter().any(|part| part.count != count) || indices.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(format!("its parts {} are not different parts of one job", head.shards.join(" ")));
        }
        let whole = indices.len() == usize::try_from(count).unwrap_or(usize::MAX);
        // A whole job has one part, or was joined of all.
        let job = head.job.get(SHARD).map_or("1/1", String::as_str);
        let agrees = if job == "1/1" { whole } else { !whole && head.shards.join(" ") == job };
        if !agrees {
            return Err(format!("it tells of the parts {}, but its job is part {job}", head.shards.join(" ")));
        }
        if !whole && shards.len() > 1 && head.incomplete.is_none() {
            return Err(format!("it is joined of the parts {job} only, and does not say that it is incomplete"));
        }
        Ok(Self { shards, whole })
    }

    /// Tells whether a repository belongs to one of the parts.
    pub fn has(&self, repository: &str) -> bool {
        self.whole || self.shards.iter().any(|part| part.has(repository))
    }

    /// Tells whether an item may be in the report: an old signature is in its repository's part. (Of
    /// what only a list named, not even the repository may be known.)
    pub fn may_have(&self, item: &Item) -> bool {
        item.blob.is_none() || self.has(&item.repository)
    }
}

/// Reads `I/N`, as the program writes it and nothing else.
pub(super) fn parse(text: &str) -> Option<Shard> {
    let (index, count) = text.split_once('/')?;
    let (index, count) = (index.parse().ok()?, count.parse().ok()?);
    ((1..=count).contains(&index) && format!("{index}/{count}") == text).then_some(Shard { index, count })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head_of, item};
    use super::*;

    #[test]
    fn parts_agree_with_the_job() {
        let told = |shards: &[&str], job: &str, incomplete: bool| {
            let mut head = head_of(&vec![item()]);
            head.shards = shards.iter().map(|&text| text.to_owned()).collect();
            head.job.insert(SHARD.to_owned(), job.to_owned());
            head.incomplete = incomplete.then(|| "no report of part 3/3".to_owned());
            Parts::of(&head)
        };
        assert!(told(&["1/1"], "1/1", false).unwrap().has("a/b"));
        assert!(told(&["1/2", "2/2"], "1/1", false).unwrap().has("a/b"));
        let part = |index: u32| told(&[&format!("{index}/7")], &format!("{index}/7"), false).unwrap();
        assert_eq!((1..=7).filter(|index| part(*index).may_have(&item())).count(), 1);
        assert!((1..=7).all(|index| part(index).may_have(&Item { blob: None, ..item() })));
        told(&["1/3", "2/3"], "1/3 2/3", true).unwrap();
        for (shards, job, incomplete, why) in [
            (&["1/3", "2/3"][..], "1/3 2/3", false, "does not say that it is incomplete"),
            (&["2/3"], "1/1", false, "its job is part 1/1"),
            (&["2/3"], "1/3", false, "its job is part 1/3"),
            (&["1/2", "2/2"], "1/2", false, "its job is part 1/2"),
            (&["1/2", "1/2"], "1/1", false, "not different parts"),
            (&["1/2", "2/3"], "1/1", false, "not different parts"),
            (&["3/2"], "3/2", false, "is not I/N"),
            (&["0/1"], "0/1", false, "is not I/N"),
            (&["+1/1"], "1/1", false, "is not I/N"),
            (&[], "1/1", false, "no part"),
        ] {
            let said = told(shards, job, incomplete).unwrap_err();
            assert!(said.contains(why), "{shards:?} {job}: {said}");
        }
    }
}
