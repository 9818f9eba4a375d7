//! Which directories and files are read, in two generations of containers/image
//! (spec containers-image 1.1): Podman 6 looks into many directories, from the user's to the
//! vendor's, and takes the nearest file of each name; Podman 5 takes one directory, whole.
//!
//! The list of directories is pure; [`Search::files`] alone touches the disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::go;

/// The largest file that is read; the reference has no limit, memory has.
const FILE_LIMIT: u64 = 8 * 1024 * 1024;
const SUFFIX: &[u8] = b".yaml";

/// Which release of the library is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Podman 6, Fedora 45: several directories, merged by file name.
    #[default]
    Podman6,
    /// Podman 5, RHEL 8 and 9, OpenShift: one directory, without `XDG_CONFIG_HOME`.
    Podman5,
}

/// What of the process decides where configuration is. A parameter, so that tests and `doctor` can
/// ask for other users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `HOME`, or the home directory of the user's account when that is unset.
    pub home: PathBuf,
    /// `XDG_CONFIG_HOME`; set but empty is not the same as unset.
    pub xdg_config_home: Option<PathBuf>,
    /// `_CONTAINERS_ROOTLESS_UID`: who the user was before podman entered its user namespace.
    pub rootless_uid: Option<OsString>,
    /// The user id, which chooses the rootful or a rootless directory.
    pub uid: u32,
    /// The effective user id, which chooses the built-in default store.
    pub euid: u32,
}

impl Environment {
    /// Reads this process's own.
    pub fn from_process() -> Self {
        let var = |name| std::env::var_os(name);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ids: Vec<u32> = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .map(|ids| ids.split_whitespace().filter_map(|id| id.parse().ok()).collect())
            .unwrap_or_default();
        // Without /proc (and without unsafe code) the owner of the home directory is the best guess.
        let owner = || var("HOME").and_then(|home| fs::metadata(home).ok()).map_or(0, |meta| meta.uid());
        let uid = ids.first().copied().unwrap_or_else(owner);
        let euid = ids.get(1).copied().unwrap_or(uid);
        let home = var("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).or_else(|| account_home(uid));
        Self {
            home: home.unwrap_or_default(),
            xdg_config_home: var("XDG_CONFIG_HOME").map(PathBuf::from),
            rootless_uid: var("_CONTAINERS_ROOTLESS_UID"),
            uid,
            euid,
        }
    }

    /// Returns `_CONTAINERS_ROOTLESS_UID` as Go's `Atoi` reads it: 0 for nonsense.
    fn rootless(&self) -> Option<i64> {
        let text = self.rootless_uid.as_ref().filter(|text| !text.is_empty())?.to_str().unwrap_or_default();
        Some(text.parse().unwrap_or_else(|error: std::num::ParseIntError| match error.kind() {
            std::num::IntErrorKind::PosOverflow => i64::MAX,
            std::num::IntErrorKind::NegOverflow => i64::MIN,
            _ => 0,
        }))
    }

    /// Returns the user id by which directories are chosen.
    pub fn search_uid(&self) -> i64 {
        self.rootless().unwrap_or_else(|| i64::from(self.uid))
    }

    /// Returns the built-in default store, which is used when nothing is configured
    /// (spec containers-image 1.4).
    pub fn default_store(&self) -> PathBuf {
        if self.rootless().unwrap_or_else(|| i64::from(self.euid)) == 0 {
            PathBuf::from("/var/lib/containers/sigstore")
        } else {
            go::join([self.home.as_path(), Path::new(".local/share/containers/sigstore")])
        }
    }
}

fn account_home(uid: u32) -> Option<PathBuf> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse::<u32>().ok()? == uid).then(|| PathBuf::from(fields.get(5).copied().unwrap_or_default()))
    })
}

/// Lists the drop-in directories of one name, the highest priority first. `stem` is the name
/// without its `.d`: `registries`, `registries.conf`, `certs`; `root` stands before `/etc` and
/// `/usr/share`.
///
/// For [`Generation::Podman5`] the first of them that exists is the only one that counts.
pub fn drop_in_directories(
    environment: &Environment,
    generation: Generation,
    root: Option<&Path>,
    stem: &str,
) -> Vec<PathBuf> {
    let root = root.unwrap_or(Path::new(""));
    let plain = format!("{stem}.d");
    if generation == Generation::Podman5 {
        let user = go::join([environment.home.as_path(), Path::new(".config/containers"), Path::new(&plain)]);
        return vec![user, go::join([root, Path::new("/etc/containers"), Path::new(&plain)])];
    }
    let user = match &environment.xdg_config_home {
        Some(config) => go::join([config.as_path(), Path::new("containers"), Path::new(&plain)]),
        None => go::join([environment.home.as_path(), Path::new(".config/containers"), Path::new(&plain)]),
    };
    // The word goes before the extension of the main file, if there is one: registries.rootless.conf.d.
    let special = |word: &str| match stem.strip_suffix(".conf") {
        Some(stem) => format!("{stem}.{word}.conf.d"),
        None => format!("{stem}.{word}.d"),
    };
    let uid = environment.search_uid();
    let mut directories = vec![user];
    for place in ["/etc/containers", "/usr/share/containers"] {
        let mut add = |name: &str| directories.push(go::join([root, Path::new(place), Path::new(name)]));
        if uid > 0 {
            let rootless = special("rootless");
            add(&format!("{rootless}/{uid}"));
            add(&rootless);
        } else {
            add(&special("rootful"));
        }
        add(&plain);
    }
    directories
}

/// Why the directories or files cannot be read; prints as Go's `PathError` does.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {}", .path.display(), go::error_text(.source))]
pub struct SearchError {
    /// What was tried: `open`, `read`, `readdirent`.
    operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    source: io::Error,
}

impl SearchError {
    fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }
}

/// Where to look for registries.d files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Exactly this directory and nothing else (`--registries.d`); not below `root`, not expanded.
    pub explicit: Option<PathBuf>,
    /// An alternate root for the system's directories.
    pub root: Option<PathBuf>,
    /// Which release is followed.
    pub generation: Generation,
    /// The user and his variables.
    pub environment: Environment,
}

impl Search {
    /// Looks into one directory only.
    pub fn explicit(directory: impl Into<PathBuf>) -> Self {
        Self { explicit: Some(directory.into()), ..Self::default() }
    }

    /// Lists the directories that are looked into, the highest priority first. For Podman 5 this
    /// asks which of the two exists.
    pub fn directories(&self) -> Vec<PathBuf> {
        if let Some(explicit) = self.explicit.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            return vec![explicit.clone()];
        }
        let mut all = drop_in_directories(&self.environment, self.generation, self.root.as_deref(), "registries");
        if self.generation == Generation::Podman5 {
            let chosen = all.iter().position(|path| path.exists()).unwrap_or(all.len().saturating_sub(1));
            all = all.drain(chosen..).take(1).collect();
        }
        all
    }

    /// Lists the files in the order in which they are read: sorted by name for Podman 6, in the
    /// directory's own order for Podman 5. Of one name only the file of the highest priority is there.
    ///
    /// # Errors
    /// [`SearchError`] when a directory is there but cannot be listed, or is no directory.
    pub fn files(&self) -> Result<Vec<PathBuf>, SearchError> {
        let directories = self.directories();
        if self.generation == Generation::Podman5 {
            let mut files = Vec::new();
            for directory in &directories {
                files.extend(
                    list(directory, Generation::Podman5)?
                        .into_iter()
                        .map(|name| go::join([directory, Path::new(&name)])),
                );
            }
            return Ok(files);
        }
        let mut nearest: BTreeMap<OsString, PathBuf> = BTreeMap::new();
        for directory in directories.iter().rev() {
            for name in list(directory, Generation::Podman6)? {
                let path = go::join([directory.as_path(), Path::new(&name)]);
                nearest.insert(name, path);
            }
        }
        Ok(nearest.into_values().collect())
    }
}

/// Lists the names of one directory that count; a missing directory has none.
fn list(directory: &Path, generation: Generation) -> Result<Vec<OsString>, SearchError> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            // The older library opens whatever is there and fails at the first entry.
            let is_file =
                generation == Generation::Podman5 && error.kind() == io::ErrorKind::NotADirectory && directory.exists();
            return Err(SearchError::new(if is_file { "readdirent" } else { "open" }, directory, error));
        }
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| SearchError::new("readdirent", directory, error))?;
        let name = entry.file_name();
        // A link counts as what it is, whatever it leads to: this is the entry's own kind.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_configuration(&name) && !(is_directory && generation == Generation::Podman6) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_configuration(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX)
}

/// Reads one file; `None` when it has vanished, or is a link that leads nowhere.
///
/// # Errors
/// [`SearchError`] for anything else than an ordinary file that can be read.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, SearchError> {
    let failed = |operation, error| Err(SearchError::new(operation, path, error));
    // Looked at before it is opened, for opening a pipe would wait for ever.
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return failed("open", error),
        Ok(meta) if meta.is_dir() => return failed("read", io::ErrorKind::IsADirectory.into()),
        Ok(meta) if !meta.is_file() => return failed("read", io::Error::other("not a regular file")),
        Ok(_) => {}
    }
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return failed("open", error),
    };
    let mut bytes = Vec::new();
    if let Err(error) = file.take(FILE_LIMIT + 1).read_to_end(&mut bytes) {
        return failed("read", error);
    }
    if bytes.len() as u64 > FILE_LIMIT {
        return failed("read", io::Error::other(format!("exceeds {FILE_LIMIT} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
