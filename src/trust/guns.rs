//! Where the names of repositories come from, beside the command line: a list, and the folder in which
//! docker and notary clients keep what they know.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::gun::{Gun, GunError};

/// The most of a key file that is read; its header stands in front.
const KEY_HEAD: u64 = 4096;
/// How deep repositories' folders may lie.
const DEPTH: usize = 64;

/// Why names cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GunListError {
    /// A line of a list is no name.
    #[error("line {line} of the list: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: GunError,
    },
    /// A folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder is no client's.
    #[error("{} has neither a folder `tuf` nor a folder `private`; expected a folder such as ~/.docker/trust or ~/.notary", .0.display())]
    NoClient(PathBuf),
}

/// Reads a list with one name a line; empty lines and those that begin with `#` do not count.
///
/// # Errors
/// [`GunListError::Line`].
pub fn guns_in_list(text: &str, parse: impl Fn(&str) -> Result<Gun, GunError>) -> Result<Vec<Gun>, GunListError> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            found.push(parse(line).map_err(|source| GunListError::Line { line: number + 1, source })?);
        }
    }
    Ok(found)
}

/// Finds the repositories of which a client's folder (`~/.docker/trust`, `~/.notary`) has metadata,
/// pending changes or a key (spec notary-dct 3). The folder is only read. Names that are no GUNs come second.
///
/// # Errors
/// [`GunListError`].
pub fn guns_in_client_folder(folder: &Path) -> Result<(Vec<Gun>, Vec<GunError>), GunListError> {
    let (tuf, private) = (folder.join("tuf"), folder.join("private"));
    if !tuf.is_dir() && !private.is_dir() {
        return Err(GunListError::NoClient(folder.to_owned()));
    }
    let mut names = BTreeSet::new();
    if tuf.is_dir() {
        repositories(&tuf, &tuf, 0, &mut names)?;
    }
    if private.is_dir() {
        keys(&private, &private, 0, &mut names)?;
    }
    let (mut guns, mut wrong) = (Vec::new(), Vec::new());
    for name in names {
        match Gun::parse(&name) {
            Ok(gun) => guns.push(gun),
            Err(error) => wrong.push(error),
        }
    }
    Ok((guns, wrong))
}

fn entries(folder: &Path) -> Result<Vec<std::fs::DirEntry>, GunListError> {
    let failed = |source| GunListError::Read { path: folder.to_owned(), source };
    std::fs::read_dir(folder).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// Finds folders that hold `metadata` or `changelist`, which are those of repositories. A repository may itself be
/// called `metadata`: then that folder holds a folder `metadata` of its own, and no file.
fn repositories(top: &Path, folder: &Path, depth: usize, names: &mut BTreeSet<String>) -> Result<(), GunListError> {
    for entry in entries(folder)? {
        // Links are not followed: they could lead in a circle.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let is_marker = matches!(entry.file_name().to_str(), Some("metadata" | "changelist"));
        let (mut has_file, mut has_folder) = (false, false);
        if is_marker {
            for inside in entries(&entry.path())? {
                let is_folder = inside.file_type().is_ok_and(|kind| kind.is_dir());
                has_file |= !is_folder;
                // Delegations lie in `metadata/targets/`.
                has_folder |= is_folder && inside.file_name() != "targets";
            }
        }
        if is_marker && (has_file || !has_folder) {
            let name = folder.strip_prefix(top).unwrap_or(folder).to_string_lossy();
            if !name.is_empty() {
                names.insert(name.into_owned());
            }
        }
        if (!is_marker || has_folder) && depth < DEPTH {
            repositories(top, &entry.path(), depth + 1, names)?;
        }
    }
    Ok(())
}

/// Returns the repository of a key of old clients: `tuf_keys/{gun}/{id}_{role}.key` (spec notary-dct 3).
fn legacy_gun(private: &Path, key: &Path) -> Option<String> {
    let gun = key.parent()?.strip_prefix(private.join("tuf_keys")).ok()?.to_str()?;
    (!gun.is_empty()).then(|| gun.to_owned())
}

/// Reads the `gun:` header of key files.
fn keys(private: &Path, folder: &Path, depth: usize, names: &mut BTreeSet<String>) -> Result<(), GunListError> {
    for entry in entries(folder)? {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEPTH {
            keys(private, &path, depth + 1, names)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "key") {
            let mut head = zeroize::Zeroizing::new(Vec::new());
            let read = std::fs::File::open(&path).and_then(|file| file.take(KEY_HEAD).read_to_end(&mut head));
            read.map_err(|source| GunListError::Read { path: path.clone(), source })?;
            let head = zeroize::Zeroizing::new(String::from_utf8_lossy(&head).into_owned());
            // PEM headers end at the first empty line.
            let header =
                head.lines().take_while(|line| !line.trim().is_empty()).find_map(|line| line.strip_prefix("gun:"));
            let header = header.map(str::trim).filter(|gun| !gun.is_empty()).map(str::to_owned);
            names.extend(header.or_else(|| legacy_gun(private, &path)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_comments_and_say_which_line_is_wrong() {
        let found = guns_in_list("# mine\n\n  a.example/b  \r\nc\n", Gun::parse).unwrap();
        assert_eq!(found.iter().map(Gun::as_str).collect::<Vec<_>>(), ["a.example/b", "c"]);
        let error = guns_in_list("a\nb c\n", Gun::parse).unwrap_err().to_string();
        assert!(error.starts_with("line 2 of the list: \"b c\""), "{error}");
    }

    #[test]
    fn client_folders_name_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("tuf/docker.io/library/alpine/metadata")).unwrap();
        std::fs::create_dir_all(at("tuf/localhost:5000/a/b/changelist")).unwrap();
        std::fs::create_dir_all(at("tuf/odd name/metadata")).unwrap();
        std::fs::create_dir_all(at("private/tuf_keys")).unwrap();
        std::fs::create_dir_all(at("tuf/c.example/metadata/metadata/targets")).unwrap();
        std::fs::write(at("tuf/c.example/metadata/metadata/root.json"), "{}").unwrap();
        std::fs::create_dir_all(at("private/tuf_keys/old.example/y")).unwrap();
        let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n";
        std::fs::write(at("private/tuf_keys/old.example/y/ab_targets.key"), legacy).unwrap();
        let key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\ngun: us.icr.io/x\nrole: targets\n\nAAAA\ngun: no\n";
        std::fs::write(at("private/tuf_keys/1.key"), key).unwrap();
        std::fs::write(at("private/2.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\nrole: root\n\nAAAA\n").unwrap();
        let (guns, wrong) = guns_in_client_folder(folder.path()).unwrap();
        let names: Vec<_> = guns.iter().map(Gun::as_str).collect();
        assert_eq!(
            names,
            ["c.example/metadata", "docker.io/library/alpine", "localhost:5000/a/b", "old.example/y", "us.icr.io/x"]
        );
        assert_eq!(wrong.len(), 1);
        assert!(matches!(guns_in_client_folder(&at("tuf")), Err(GunListError::NoClient(_))));
    }
}
