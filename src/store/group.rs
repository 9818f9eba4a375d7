//! Many appends with one barrier: how bulk work is durable at the speed of the disk.
//!
//! In a folder all files of a batch are first written beside their names and flushed by one
//! `syncfs`; only then do they get their names, and a second `syncfs` makes the names durable. So
//! a name never stands for bytes that a loss of power could take away, and a batch of a thousand
//! costs two flushes instead of three thousand. A bucket is durable by itself: there the batch is
//! just many appends at once.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use super::backend::{Backend, Found};
use super::error::StoreError;
use super::layout::{SetAddress, signature_name};
use super::local::{LocalTree, failed};
use super::settled::mark_whole;
use super::signatures::{Appended, Store};
use crate::signature::BLOB_LIMIT;

/// How many appends to a bucket are under way at a time.
const PARALLEL: usize = 64;
/// A number that others take time and again is left to the patient way.
const ATTEMPTS: u32 = 16;

/// One signature and where it belongs.
pub type Append = (SetAddress, Bytes);

impl Store {
    /// Stores many signatures, each as [`Store::append`] would; when this returns, all that
    /// succeeded are durable. The answers are in the order of the batch.
    ///
    /// # Errors
    /// Each entry has its own, as [`Store::append`]. After [`StoreError::Unavailable`] it is
    /// unknown whether that signature is stored; appending it again is safe.
    pub async fn append_many(&self, batch: Vec<Append>) -> Vec<Result<Appended, StoreError>> {
        let Backend::Local { tree, .. } = &self.backend else { return self.append_each(batch).await };
        let (tree, batch) = (Arc::clone(tree), Arc::new(batch));
        let work = {
            let batch = Arc::clone(&batch);
            tokio::task::spawn_blocking(move || tree.append_group(&batch))
        };
        let outcomes = match work.await {
            Ok(outcomes) => outcomes,
            Err(stopped) => {
                let failed = |_: &Append| Err(StoreError::unavailable("a file operation", stopped.to_string()));
                return batch.iter().map(failed).collect();
            }
        };
        // The ordinary way flushes for itself, and must not do so on the runtime's threads.
        let mut patient = self.clone();
        if let Backend::Local { here, .. } = &mut patient.backend {
            *here = false;
        }
        let mut results = Vec::with_capacity(outcomes.len());
        for (outcome, (at, blob)) in outcomes.into_iter().zip(batch.iter()) {
            results.push(match outcome {
                Outcome::Settled(result) => result,
                Outcome::BehindGap(number) => Ok(patient.behind_gap(at, blob, number).await),
                Outcome::Separately => patient.append(at, blob).await,
            });
        }
        results
    }

    async fn append_each(&self, batch: Vec<Append>) -> Vec<Result<Appended, StoreError>> {
        let one = |(at, blob): Append| async move { self.append(&at, &blob).await };
        stream::iter(batch.into_iter().map(one))
            .buffered(self.bulk.as_ref().map_or(PARALLEL, |bulk| bulk.at_once))
            .collect()
            .await
    }
}

/// What became of one entry of a batch.
enum Outcome {
    Settled(Result<Appended, StoreError>),
    /// Stored under this number, but the number before is free: that gap is ours to close.
    BehindGap(u32),
    /// Others are at work on the set, or it is special: it takes the ordinary way.
    Separately,
}

/// An entry whose bytes lie beside their name to be.
struct Staged {
    entry: usize,
    folder: PathBuf,
    file: PathBuf,
    number: u32,
}

/// What is known while a group is staged; for that moment only, since others write to the tree too.
#[derive(Default)]
struct Known<'b> {
    /// The next number of each set in this batch: several signatures may go to one.
    next: HashMap<&'b SetAddress, u32>,
    /// Folders above sets, without links and on the tree's own file system.
    above: HashMap<String, PathBuf>,
    device: u64,
}

impl LocalTree {
    fn append_group(&self, batch: &[Append]) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|_| None).collect();
        let mut staged = Vec::with_capacity(batch.len());
        let mut seen = HashSet::with_capacity(batch.len());
        // Opened before anything is written: a flush tells only of failures since then.
        let opened = File::open(&self.root).and_then(|disk| disk.metadata().map(|found| (found.dev(), disk)));
        let (device, disk) = match opened {
            Ok(opened) => opened,
            Err(error) => return fail_all(batch, &failed("opening", &self.root, &error)),
        };
        let mut known = Known { device, ..Known::default() };
        for (entry, ((at, blob), outcome)) in batch.iter().zip(&mut outcomes).enumerate() {
            if !seen.insert((at, blob)) {
                // Its twin is not to be seen yet; the ordinary way finds it afterwards.
                *outcome = Some(Outcome::Separately);
                continue;
            }
            match self.stage_one(entry, at, blob, &mut known) {
                Ok(Ok(ready)) => staged.push(ready),
                Ok(Err(settled)) => *outcome = Some(settled),
                Err(error) => *outcome = Some(Outcome::Settled(Err(error))),
            }
        }
        if let Err(error) = self.barrier(&disk) {
            for ready in &staged {
                let _ = fs::remove_file(&ready.file);
            }
            return fail_all(batch, &failed("flushing", &self.root, &error));
        }
        for ready in staged {
            let named = batch.get(ready.entry).map(|(at, blob)| self.name(&ready, at, blob));
            if let Some(outcome) = outcomes.get_mut(ready.entry) {
                *outcome = named;
            }
        }
        if let Err(error) = self.barrier(&disk) {
            return fail_all(batch, &failed("flushing", &self.root, &error));
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Separately)).collect()
    }

    /// Writes one entry beside its name; or settles it without writing.
    fn stage_one<'b>(
        &self,
        entry: usize,
        at: &'b SetAddress,
        blob: &[u8],
        known: &mut Known<'b>,
    ) -> Result<Result<Staged, Outcome>, StoreError> {
        if blob.is_empty() {
            return Err(StoreError::Empty);
        }
        if blob.len() > BLOB_LIMIT {
            return Err(StoreError::TooLarge(format!("the signature for {at}")));
        }
        if let Some(folder) = self.new_folder(at, known) {
            // Just made, so there is nothing in it that one would have to look at.
            let number = 1;
            let file = self.write_beside(&folder, number, blob)?;
            known.next.insert(at, number);
            return Ok(Ok(Staged { entry, folder, file, number }));
        }
        let found = self.look_for(at, blob, false)?;
        if found.unsettled {
            return Ok(Err(Outcome::Separately));
        }
        if let Some(number) = found.same {
            // The barrier at the end makes it durable, whoever wrote it.
            return Ok(Err(Outcome::Settled(Ok(Appended::AlreadyThere(number)))));
        }
        let folder = self.make_folder(at)?;
        // One barrier reaches one file system only.
        if fs::metadata(&folder).map(|found| found.dev()).ok() != Some(known.device) {
            return Ok(Err(Outcome::Separately));
        }
        let number = known.next.get(at).copied().unwrap_or(found.highest).max(found.highest);
        // A full set is refused in the ordinary way, after the others of the batch had their turn.
        let Some(number) = (Found { highest: number, ..found }).next_number() else {
            return Ok(Err(Outcome::Separately));
        };
        let file = self.write_beside(&folder, number, blob)?;
        known.next.insert(at, number);
        Ok(Ok(Staged { entry, folder, file, number }))
    }

    /// Makes the folder of a set that has none; `None` if it has one, or anything else is in the way.
    fn new_folder(&self, at: &SetAddress, known: &mut Known<'_>) -> Option<PathBuf> {
        let key = at.to_string();
        let (above, name) = key.rsplit_once('/').unwrap_or(("", &key));
        if !known.above.contains_key(above) {
            let folder = self.make_path(at, above).ok()?;
            fs::metadata(&folder).ok().filter(|found| found.dev() == known.device)?;
            known.above.insert(above.to_owned(), folder);
        }
        let folder = known.above.get(above)?.join(name);
        fs::create_dir(&folder).is_ok().then_some(folder)
    }

    fn write_beside(&self, folder: &Path, number: u32, blob: &[u8]) -> Result<PathBuf, StoreError> {
        let (mut file, path) = self.stage(&folder.join(signature_name(number)))?;
        if let Err(error) = file.write_all(blob) {
            drop(file);
            let _ = fs::remove_file(&path);
            return Err(failed("writing", &path, &error));
        }
        mark_whole(&file, blob);
        Ok(path)
    }

    /// Gives a staged file its name: the number that was free, or the next one that is.
    fn name(&self, ready: &Staged, at: &SetAddress, blob: &[u8]) -> Outcome {
        let mut number = ready.number;
        let outcome = 'named: {
            for _ in 0..ATTEMPTS {
                match give_name(&ready.file, &ready.folder.join(signature_name(number))) {
                    Ok(()) => {
                        return if self.has_gap_before(&ready.folder, number) {
                            Outcome::BehindGap(number)
                        } else {
                            Outcome::Settled(Ok(Appended::Created(number)))
                        };
                    }
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => break 'named Outcome::Settled(Err(failed("writing", &ready.folder, &error))),
                }
                // Somebody else was faster, perhaps with the same bytes.
                match self.look_for(at, blob, false) {
                    Ok(found) if found.unsettled => break 'named Outcome::Separately,
                    Ok(found) => match (found.same, found.next_number()) {
                        (Some(same), _) => break 'named Outcome::Settled(Ok(Appended::AlreadyThere(same))),
                        (None, Some(free)) => number = free,
                        (None, None) => break 'named Outcome::Separately,
                    },
                    Err(error) => break 'named Outcome::Settled(Err(error)),
                }
            }
            Outcome::Separately
        };
        unstage(&ready.file);
        outcome
    }

    /// Makes durable all that was written to the tree's file system before.
    fn barrier(&self, disk: &File) -> io::Result<()> {
        if self.fsync { rustix::fs::syncfs(disk).map_err(io::Error::from) } else { Ok(()) }
    }
}

/// Moves a staged file to its name unless the name exists: in one step where the file system can,
/// else by a second name and the removal of the first.
fn give_name(staged: &Path, name: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, staged, CWD, name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(staged, name)?;
            unstage(staged);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn unstage(staged: &Path) {
    if let Err(error) = fs::remove_file(staged) {
        tracing::warn!(file = %staged.display(), %error, "a staging file could not be removed; `store repair` does it");
    }
}

fn fail_all(batch: &[Append], error: &StoreError) -> Vec<Outcome> {
    batch.iter().map(|_| Outcome::Settled(Err(StoreError::unavailable("a group of appends", error)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use crate::store::{StoreOptions, StorePath};

    fn set(name: &str) -> SetAddress {
        SetAddress::image(StorePath::parse("org/app").unwrap(), Digest::sha256(name.as_bytes())).unwrap()
    }

    async fn local(folder: &std::path::Path) -> Store {
        let options = StoreOptions { create: true, ..StoreOptions::default() };
        Store::open(folder.to_str().unwrap(), &options).await.unwrap()
    }

    async fn settled(store: &Store, batch: &[(&str, &str)]) -> Vec<Appended> {
        let batch = batch.iter().map(|(at, blob)| (set(at), Bytes::copy_from_slice(blob.as_bytes()))).collect();
        store.append_many(batch).await.into_iter().map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn a_batch_is_many_appends() {
        let folder = tempfile::tempdir().unwrap();
        for store in [local(folder.path()).await, Store::memory()] {
            let first = settled(&store, &[("a", "1"), ("a", "2"), ("b", "1"), ("b", "1")]).await;
            let mut twins = [first[2], first[3]];
            twins.sort_by_key(|appended| format!("{appended:?}"));
            assert_eq!(twins, [Appended::AlreadyThere(1), Appended::Created(1)]);
            let mut numbers = [first[0], first[1]];
            numbers.sort_by_key(|appended| format!("{appended:?}"));
            assert_eq!(numbers, [Appended::Created(1), Appended::Created(2)]);
            let second = settled(&store, &[("b", "1"), ("b", "2"), ("a", "2")]).await;
            assert_eq!(second[..2], [Appended::AlreadyThere(1), Appended::Created(2)]);
            assert!(matches!(second[2], Appended::AlreadyThere(_)));
            assert_eq!(store.signatures(&set("a")).await.unwrap().len(), 2);
        }
        let files = fs::read_dir(folder.path().join(set("b").to_string())).unwrap().count();
        assert_eq!(files, 2, "nothing staged is left");
    }

    #[tokio::test]
    async fn one_bad_entry_does_not_spoil_the_batch() {
        let folder = tempfile::tempdir().unwrap();
        let store = local(folder.path()).await;
        fs::create_dir_all(folder.path().join("org")).unwrap();
        fs::write(folder.path().join(set("blocked").to_string()), "a file in the way").unwrap();
        let batch = [("x", "1"), ("blocked", "1"), ("y", ""), ("z", "1")];
        let batch = batch.iter().map(|(at, blob)| (set(at), Bytes::copy_from_slice(blob.as_bytes()))).collect();
        let results = store.append_many(batch).await;
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
    }

    #[tokio::test]
    async fn a_gap_before_a_new_signature_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let store = local(folder.path()).await;
        settled(&store, &[("a", "1"), ("a", "2")]).await;
        let Backend::Local { tree, .. } = &store.backend else { panic!() };
        let (at, blob) = (set("a"), Bytes::from_static(b"3"));
        let device = fs::metadata(folder.path()).unwrap().dev();
        let mut known = Known { device, ..Known::default() };
        let ready = tree.stage_one(0, &at, &blob, &mut known).unwrap().unwrap_or_else(|_| panic!("staged"));
        // Between staging and naming somebody removes the signature before.
        fs::remove_file(folder.path().join(at.to_string()).join("signature-2")).unwrap();
        let Outcome::BehindGap(3) = tree.name(&ready, &at, &blob) else { panic!("the gap is not seen") };
        assert_eq!(store.behind_gap(&at, &blob, 3).await, Appended::Created(2));
        let numbers: Vec<u32> = store.signatures(&at).await.unwrap().iter().map(|s| s.number).collect();
        assert_eq!(numbers, [1, 2]);
    }

    #[tokio::test]
    async fn a_128th_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for store in [local(folder.path()).await, Store::memory()] {
            let batch = (0..130).map(|n| (set("a"), Bytes::from(n.to_string()))).collect();
            let results = store.append_many(batch).await;
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 127);
            assert!(results.iter().flat_map(|r| r.as_ref().err()).all(|e| matches!(e, StoreError::Full { .. })));
            assert!(matches!(store.append(&set("a"), b"new").await, Err(StoreError::Full { .. })));
            assert!(matches!(store.append(&set("a"), b"7").await, Ok(Appended::AlreadyThere(_))));
            assert_eq!(store.signatures(&set("a")).await.unwrap().len(), 127);
        }
    }

    #[tokio::test]
    async fn racing_batches_lose_nothing_and_leave_no_gap() {
        let folder = tempfile::tempdir().unwrap();
        let store = local(folder.path()).await;
        let other = local(folder.path()).await;
        let batch = |who: u32| (0..40).map(|n| (set("a"), Bytes::from(format!("{who}-{n}")))).collect::<Vec<_>>();
        let (one, two, _) = tokio::join!(store.append_many(batch(1)), other.append_many(batch(2)), async {
            for n in 0..40 {
                store.append(&set("a"), format!("single-{n}").as_bytes()).await.unwrap();
            }
        });
        assert!(one.iter().chain(&two).all(Result::is_ok));
        let numbers: Vec<u32> = store.signatures(&set("a")).await.unwrap().iter().map(|s| s.number).collect();
        assert_eq!(numbers, (1..=120).collect::<Vec<_>>());
    }
}
