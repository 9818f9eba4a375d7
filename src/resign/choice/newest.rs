//! The newest claim of each name: a first look at all of one repository, before any of it is
//! signed. Memory holds one repository's sets and names, not its signatures.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::Semaphore;

use crate::resign::endpoint::{EndpointError, Image};
use crate::resign::pipeline::Job;
use crate::resign::vouch::{Finding, Vouched, judge};
use crate::store::{Layout, SetAddress, StorePath};

type Listed = Result<Image, EndpointError>;

/// Which claims of a repository are the newest for their new names.
#[derive(Debug)]
pub(crate) enum Newest {
    /// Nobody asks.
    Any,
    /// When the newest claim for each new name was made.
    Made(HashMap<String, i64>),
    /// It cannot be told: a part of the repository cannot be read.
    Unknown(String),
}

impl Newest {
    /// Tells why a claim is not to be signed, if it is not; the error is for another time.
    pub(crate) fn leaves_out(&self, vouched: &Vouched) -> Result<Option<String>, String> {
        match self {
            Self::Any => Ok(None),
            Self::Made(times) => {
                let newest = times.get(&vouched.new.to_string());
                let older = newest.is_some_and(|newest| time_of(vouched) < *newest);
                Ok(older.then(|| format!("a newer signature names {}", vouched.old)))
            }
            Self::Unknown(reason) => Err(format!("the newest claim cannot be told: {reason}")),
        }
    }
}

fn time_of(vouched: &Vouched) -> i64 {
    vouched.created.unwrap_or(i64::MIN)
}

/// Adds to each image what is the newest in its repository. Images of one repository must follow
/// each other.
pub(crate) fn settle(
    job: Arc<Job>,
    images: BoxStream<'static, Listed>,
) -> BoxStream<'static, Result<(Image, Arc<Newest>), EndpointError>> {
    let jobs = job.jobs.max(1);
    let turns = Arc::new(Semaphore::new(jobs));
    by_repository(images)
        .map(move |images| {
            let (job, turns) = (job.clone(), turns.clone());
            async move {
                let newest = Arc::new(of_repository(job, turns, &images).await);
                stream::iter(images).map(move |image| image.map(|image| (image, newest.clone())))
            }
        })
        .buffered(jobs)
        .flatten()
        .boxed()
}

/// Reads and judges all sets, a bounded number at a time over all repositories.
async fn of_repository(job: Arc<Job>, turns: Arc<Semaphore>, images: &[Listed]) -> Newest {
    let mut sets = Vec::new();
    for image in images {
        match image {
            Ok(Image::Found(set)) => sets.push(set.clone()),
            Ok(Image::Left(_)) => {}
            Err(error) => return Newest::Unknown(error.to_string()),
        }
    }
    let jobs = job.jobs.max(1);
    let mut claims = stream::iter(sets)
        .map(|set| {
            let (job, turns) = (job.clone(), turns.clone());
            async move {
                let _turn = turns.acquire().await.map_err(|e| e.to_string())?;
                claims(job, set).await
            }
        })
        .buffer_unordered(jobs);
    let mut times = HashMap::new();
    while let Some(found) = claims.next().await {
        match found {
            Ok(found) => {
                for (name, made) in found {
                    let newest = times.entry(name).or_insert(made);
                    *newest = made.max(*newest);
                }
            }
            Err(reason) => return Newest::Unknown(reason),
        }
    }
    Newest::Made(times)
}

async fn claims(job: Arc<Job>, set: SetAddress) -> Result<Vec<(String, i64)>, String> {
    let blobs = job.source.signatures(&set).await.map_err(|e| e.to_string())?;
    let judged = tokio::task::spawn_blocking(move || {
        let found = blobs.iter().filter_map(|blob| {
            match judge(blob, &set, &job.renames, &job.old_policy, job.mechanism.as_ref()) {
                Finding::Vouched(vouched) => Some((vouched.new.to_string(), time_of(&vouched))),
                Finding::Unmatched { .. } | Finding::Refused { .. } => None,
            }
        });
        found.collect()
    });
    judged.await.map_err(|e| e.to_string())
}

/// Gathers what belongs to one repository; what could not be listed goes with what stands before
/// it, and nothing of that repository is sure then.
fn by_repository(images: BoxStream<'static, Listed>) -> BoxStream<'static, Vec<Listed>> {
    let start = (images.fuse(), None::<Listed>);
    stream::unfold(start, |(mut images, pending)| async move {
        let first = match pending {
            Some(image) => image,
            None => images.next().await?,
        };
        let owner = owner(&first);
        let mut group = vec![first];
        let mut pending = None;
        while let Some(image) = images.next().await {
            if image.is_err() || owner.is_some() && self::owner(&image) == owner {
                group.push(image);
            } else {
                pending = Some(image);
                break;
            }
        }
        Some((group, (images, pending)))
    })
    .boxed()
}

fn owner(image: &Listed) -> Option<(StorePath, Layout)> {
    match image {
        Ok(Image::Found(set)) => Some((set.path().clone(), set.layout())),
        Ok(Image::Left(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use crate::resign::endpoint::{Left, Why};

    fn found(path: &str, seed: &str) -> Listed {
        let path = StorePath::parse(path).unwrap();
        Ok(Image::Found(SetAddress::image(path, Digest::sha256(seed.as_bytes())).unwrap()))
    }

    #[tokio::test]
    async fn images_are_gathered_by_repository() {
        let why = Why::Absent("gone".into());
        let left = Ok(Image::Left(Left { image: "x:1".into(), part: "x".into(), digest: None, why }));
        let fault = Err(EndpointError::Location("x".into()));
        let images = vec![found("a", "1"), found("a", "2"), found("b", "1"), fault, left, found("b/c", "1")];
        let groups: Vec<_> = by_repository(stream::iter(images).boxed()).map(|group| group.len()).collect().await;
        assert_eq!(groups, [2, 2, 1, 1]);
    }
}
