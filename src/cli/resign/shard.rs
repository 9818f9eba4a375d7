//! `--shard`: which part of a job this process does.

use crate::resign::Shard;

/// Reads `I/N`, or finds it in the environment for `auto`.
pub fn parse(text: &str) -> Result<Shard, String> {
    if text == "auto" {
        return of_job(|name| std::env::var(name).ok());
    }
    let wrong = || format!("{text:?} is not I/N with 1 <= I <= N");
    let (index, count) = text.split_once('/').ok_or_else(wrong)?;
    let shard = Shard { index: index.parse().map_err(|_| wrong())?, count: count.parse().map_err(|_| wrong())? };
    if (1..=shard.count).contains(&shard.index) { Ok(shard) } else { Err(wrong()) }
}

/// The part that a Kubernetes Indexed Job gives to this pod; Kubernetes counts from 0.
fn of_job(variable: impl Fn(&str) -> Option<String>) -> Result<Shard, String> {
    let number = |name: &str| {
        let text = variable(name).ok_or_else(|| format!("auto needs {name}, which is not set"))?;
        text.parse::<u32>().map_err(|_| format!("{name} is {text:?}, which is no number"))
    };
    let (index, count) = (number("JOB_COMPLETION_INDEX")?, number("COUNTERSIGN_SHARDS")?);
    if index < count {
        Ok(Shard { index: index + 1, count })
    } else {
        Err(format!("JOB_COMPLETION_INDEX is {index}, but there are only {count} parts (COUNTERSIGN_SHARDS)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_takes_the_part_of_its_index() {
        let shard = |index: &str, count: &str| {
            of_job(|name| Some(if name == "COUNTERSIGN_SHARDS" { count } else { index }.to_owned()))
        };
        assert_eq!(shard("0", "8").unwrap(), Shard { index: 1, count: 8 });
        assert_eq!(shard("7", "8").unwrap(), Shard { index: 8, count: 8 });
        insta::assert_snapshot!(shard("8", "8").unwrap_err(), @"JOB_COMPLETION_INDEX is 8, but there are only 8 parts (COUNTERSIGN_SHARDS)");
        assert!(shard("0", "0").is_err() && shard("-1", "8").is_err() && shard("", "8").is_err());
        insta::assert_snapshot!(of_job(|_| None).unwrap_err(), @"auto needs JOB_COMPLETION_INDEX, which is not set");
    }
}
