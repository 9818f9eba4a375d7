//! What a survey of a tree finds beside signature sets: files that no client asks for, and what
//! is left of crashed writers and removers.

use std::fmt;
use std::time::SystemTime;

use object_store::ObjectMeta;

use super::layout::{SetAddress, SignatureAddress, is_leftover};
use super::lease::LOCK_NAME;
use super::objects::{ObjectTree, modified};
use super::settled::is_young;

/// One thing found in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surveyed {
    /// A set with at least one signature; each is told once.
    Set(SetAddress),
    /// Something else. Folders without anything in them are not told.
    Foreign(Foreign),
}

/// Something in the tree that is no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its path in the tree; what is no text in it is replaced.
    pub key: String,
    /// What it is.
    pub what: Stray,
}

/// Kinds of things that are no signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stray {
    /// What a crash left in this set's folder; a repair of the set takes it away once it is old.
    Leftover(SetAddress),
    /// A file (or, in a set, a folder) that no client asks for.
    File,
    /// A folder, pipe or socket with a signature's name.
    Obstacle,
    /// A file with a signature's name that stays empty.
    Empty,
    /// A folder whose name has no place in a tree, for this reason; nothing in it is served.
    Name(String),
    /// A link that leads out of the tree, to nowhere, or back up.
    Link,
    /// A folder too deep to be looked into.
    Deep,
}

impl Stray {
    /// Returns one word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Leftover(_) => "leftover",
            Self::File => "file",
            Self::Obstacle => "obstacle",
            Self::Empty => "empty",
            Self::Name(_) => "name",
            Self::Link => "link",
            Self::Deep => "deep",
        }
    }
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leftover(_) => f.write_str("left by a crash; `store repair` takes it away when it is old enough"),
            Self::File => f.write_str("no client asks for it"),
            Self::Obstacle => f.write_str(
                "it has a signature's name and is no file: the server passes over it, but clients that read the folder \
                 themselves fail there; move it away",
            ),
            Self::Empty => f.write_str(
                "an empty file is no signature: the server passes over it, but clients that read the folder themselves \
                 fail there; write the signature again, or move the file away",
            ),
            Self::Name(reason) => write!(f, "nothing in it is served: {reason}"),
            Self::Link => f.write_str("a link out of the tree, to nowhere or back up; it is not followed"),
            Self::Deep => f.write_str("too deep; nothing in it is served"),
        }
    }
}

/// Tells whether an object with a signature's name is empty, and stays so.
pub(super) fn is_empty(meta: &ObjectMeta) -> bool {
    meta.size == 0 && !is_young(modified(meta), SystemTime::now())
}

/// Tells of an object that stays empty.
pub(super) fn empty(meta: &ObjectMeta) -> Surveyed {
    Surveyed::Foreign(Foreign { key: meta.location.to_string(), what: Stray::Empty })
}

/// Tells what an object is that is no signature; `None` for a removal under way.
pub(super) fn object(tree: &ObjectTree, meta: &ObjectMeta) -> Option<Surveyed> {
    let key = meta.location.as_ref();
    let what = match key.rsplit_once('/').map(|(set, name)| (SetAddress::parse_key(set), name)) {
        Some((Ok(_), LOCK_NAME)) if !tree.is_stale(meta) => return None,
        Some((Ok(set), name)) if name == LOCK_NAME || is_leftover(name) => Stray::Leftover(set),
        // The folder's name is the fault, not the file's.
        Some((Err(error), name)) if is_named_like_a_signature(name) => Stray::Name(error.to_string()),
        _ => Stray::File,
    };
    Some(Surveyed::Foreign(Foreign { key: key.to_owned(), what }))
}

fn is_named_like_a_signature(name: &str) -> bool {
    const ANY_SET: &str = "sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    SignatureAddress::parse(&format!("{ANY_SET}/{name}")).is_ok()
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use object_store::{ObjectStore, ObjectStoreExt as _};

    use super::*;
    use crate::store::{Store, StoreOptions, StorePath};

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    async fn survey(store: &Store, under: &str) -> (Vec<String>, Vec<String>) {
        let (mut sets, mut foreign) = (Vec::new(), Vec::new());
        for found in store.survey(&StorePath::parse(under).unwrap()).try_collect::<Vec<_>>().await.unwrap() {
            match found {
                Surveyed::Set(set) => sets.push(set.to_string()),
                Surveyed::Foreign(stray) => foreign.push(format!("{} {}", stray.what.name(), stray.key)),
            }
        }
        sets.sort();
        foreign.sort();
        (sets, foreign)
    }

    #[tokio::test]
    async fn a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let write = |key: &str| {
            let path = folder.path().join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, key).unwrap();
        };
        for name in ["signature-1", "signature-2", "signature-3#12", "signature-01", "notes/x", "signature-4/x"] {
            write(&format!("a/b@sha256={HEX}/{name}"));
        }
        write(&format!("sha256={HEX}/signature-7"));
        write(&format!("only@sha256={HEX}/signature-1#5"));
        write(&format!("old@sha256:{HEX}/signature-1"));
        write(&format!("bad@sha256={}/signature-1", HEX.to_uppercase()));
        write("index.html");
        write("a/robots.txt");
        std::fs::create_dir_all(folder.path().join(format!("empty@sha256={HEX}"))).unwrap();
        std::fs::create_dir_all(folder.path().join("empty")).unwrap();
        let link = |target: &std::path::Path, name: &str| {
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        };
        link(outside.path(), "out");
        link(folder.path(), "a/up");
        link(&folder.path().join("index.html"), "page");
        link(&folder.path().join("a"), "alias");
        link(outside.path(), &format!("a/b@sha256={HEX}/signature-9"));
        for (name, age) in [("signature-5", 60), ("signature-6", 0)] {
            let file = std::fs::File::create(folder.path().join(format!("a/b@sha256={HEX}/{name}"))).unwrap();
            file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
        }
        let pipe = folder.path().join(format!("a/b@sha256={HEX}/signature-7"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();

        let store = Store::open(folder.path().to_str().unwrap(), &StoreOptions::default()).await.unwrap();
        let (sets, foreign) = survey(&store, "").await;
        assert_eq!(sets, [format!("a/b@sha256={HEX}"), format!("alias/b@sha256={HEX}"), format!("sha256={HEX}")]);
        let in_set = |above: &str, kind: &str, name: &str| format!("{kind} {above}/b@sha256={HEX}/{name}");
        let mut expected = vec![
            "file a/robots.txt".to_owned(),
            "file alias/robots.txt".to_owned(),
            "file index.html".to_owned(),
            "file page".to_owned(),
            "link a/up".to_owned(),
            "link alias/up".to_owned(),
            "link out".to_owned(),
            format!("leftover only@sha256={HEX}/signature-1#5"),
            format!("name bad@sha256={}", HEX.to_uppercase()),
            format!("name old@sha256:{HEX}"),
        ];
        for above in ["a", "alias"] {
            expected.push(in_set(above, "file", "notes"));
            expected.push(in_set(above, "file", "signature-01"));
            expected.push(in_set(above, "leftover", "signature-3#12"));
            expected.push(in_set(above, "link", "signature-9"));
            expected.push(in_set(above, "obstacle", "signature-4"));
            expected.push(in_set(above, "obstacle", "signature-7"));
            expected.push(in_set(above, "empty", "signature-5"));
        }
        expected.sort();
        assert_eq!(foreign, expected);
        // The walk sees the same sets, and a repository is found by its own name.
        let mut walked: Vec<_> = store.walk(&StorePath::root()).map_ok(|s| s.to_string()).try_collect().await.unwrap();
        walked.sort();
        assert_eq!(walked, sets);
        let (sets, foreign) = survey(&store, "a/b").await;
        assert_eq!((sets.len(), foreign.len()), (1, 7), "{foreign:?}");
    }

    #[tokio::test]
    async fn a_bucket() {
        let memory = std::sync::Arc::new(object_store::memory::InMemory::new());
        for key in [
            format!("a/b@sha256={HEX}/.countersign-lock"),
            format!("a/b@sha256={HEX}/signature-1"),
            format!("a/b@sha256={HEX}/signature-2"),
            format!("a/b@sha256={HEX}/signature-2#1"),
            format!("a/b@sha256:{HEX}/signature-2"),
            "index.html".to_owned(),
        ] {
            let path = super::super::objects::path(&key).unwrap();
            memory.put(&path, "x".into()).await.unwrap();
        }
        // As a bucket that is mounted as a folder may leave it; it is too young to be told.
        let empty = super::super::objects::path(&format!("a/b@sha256={HEX}/signature-3")).unwrap();
        memory.put(&empty, "".into()).await.unwrap();
        let store: std::sync::Arc<dyn ObjectStore> = memory;
        let tree = super::super::objects::ObjectTree::new(store, true);
        let backend = super::super::backend::Backend::Objects(std::sync::Arc::new(tree));
        let (sets, foreign) = survey(&Store::new(backend, "memory:", 1 << 20), "").await;
        assert_eq!(sets, [format!("a/b@sha256={HEX}")]);
        let expected = [
            "file index.html".to_owned(),
            format!("leftover a/b@sha256={HEX}/signature-2#1"),
            format!("name a/b@sha256:{HEX}/signature-2"),
        ];
        assert_eq!(foreign, expected);
    }
}
