//! Whether a file system takes upper and lower case for the same.
//!
//! A store must not lie on one that does: access rules and gates are found by the exact path, so
//! `SECRET/app` would be read, and written, past the rules of `secret/`.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

/// What the probe does in a folder; tests stand for file systems that this machine has not.
pub(super) trait Names {
    /// Makes an empty file of this name, which must not be there.
    fn create(&self, name: &str) -> io::Result<()>;
    /// Removes it.
    fn remove(&self, name: &str);
    /// Tells whether the file system finds something by this name.
    fn exists(&self, name: &str) -> bool;
    /// Lists all names as they are spelled.
    fn listed(&self) -> Vec<String>;
}

/// Tells whether two spellings of a name stand for the same; `None` where nothing can be found out.
pub(super) fn folds_case(names: &impl Names) -> Option<bool> {
    let probe = format!(".countersign-case-{:016x}", RandomState::new().build_hasher().finish());
    if names.create(&probe).is_ok() {
        let folds = names.exists(&probe.to_ascii_uppercase());
        names.remove(&probe);
        return Some(folds);
    }
    // Of a tree that cannot be written to, what is there must do.
    let listed: HashSet<String> = names.listed().into_iter().collect();
    listed.iter().find_map(|name| {
        let other = other_case(name)?;
        // What is found under a spelling that is not listed is found by another one. (Not by its
        // inode: file systems in user space give one thing several.)
        Some(!listed.contains(&other) && names.exists(&other))
    })
}

/// Returns the name in another case; `None` if it has no letters.
fn other_case(name: &str) -> Option<String> {
    [name.to_ascii_uppercase(), name.to_ascii_lowercase()].into_iter().find(|other| other != name)
}

/// A folder of the disk.
pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Names for Folder<'_> {
    fn create(&self, name: &str) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).open(self.path(name)).map(drop)
    }

    fn remove(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.path(name)) {
            tracing::warn!(folder = %self.0.display(), name, %error, "a file made for a test could not be removed");
        }
    }

    fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    fn listed(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A file system that folds case or not, and can be written to or not.
    struct Fake {
        folds: bool,
        read_only: bool,
        names: RefCell<Vec<String>>,
    }

    impl Names for Fake {
        fn create(&self, name: &str) -> io::Result<()> {
            if self.read_only {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            self.names.borrow_mut().push(name.to_owned());
            Ok(())
        }

        fn remove(&self, name: &str) {
            self.names.borrow_mut().retain(|other| other != name);
        }

        fn exists(&self, name: &str) -> bool {
            let is_same = |other: &String| other == name || self.folds && other.eq_ignore_ascii_case(name);
            self.names.borrow().iter().any(is_same)
        }

        fn listed(&self) -> Vec<String> {
            self.names.borrow().clone()
        }
    }

    fn probe(folds: bool, read_only: bool, names: &[&str]) -> Option<bool> {
        let names = RefCell::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let fake = Fake { folds, read_only, names };
        let before = fake.listed();
        let found = folds_case(&fake);
        assert_eq!(fake.listed(), before, "nothing is left behind");
        found
    }

    #[test]
    fn a_file_is_looked_for_by_another_spelling() {
        for folds in [false, true] {
            assert_eq!(probe(folds, false, &[]), Some(folds));
            assert_eq!(probe(folds, false, &["icr.io"]), Some(folds));
            assert_eq!(probe(folds, true, &["icr.io"]), Some(folds));
            assert_eq!(probe(folds, true, &["ICR.io"]), Some(folds));
            assert_eq!(probe(folds, true, &["1234", "_"]), None, "no letters");
            assert_eq!(probe(folds, true, &[]), None);
        }
        assert_eq!(probe(false, true, &["icr.io", "ICR.IO"]), Some(false));
    }

    #[test]
    fn a_folder_of_this_machine_tells_them_apart() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(folds_case(&Folder(folder.path())), Some(false));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(folds_case(&Folder(&folder.path().join("nowhere"))), None);
        fs::write(folder.path().join("name"), "").unwrap();
        assert_eq!(Folder(folder.path()).listed(), ["name"]);
        assert!(Folder(folder.path()).exists("name") && !Folder(folder.path()).exists("NAME"));
    }
}
