//! The host whose configuration counts: whose home, which user, which release of containers/image.
//! A parameter everywhere, so that tests and `doctor` can ask for others.

mod file;
mod http_proxy;
mod nesting;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::go;

pub use file::SearchError;
pub(crate) use file::read;
pub use http_proxy::{HttpProxy, HttpProxyError, HttpProxyRules, ProxyProtocol};
pub(crate) use nesting::{NESTING_LIMIT, too_deep};

/// Which release of the library is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Podman 6, Fedora 45: several directories, merged by file name.
    #[default]
    Podman6,
    /// Podman 5, RHEL 8 and 9, OpenShift: one directory, without `XDG_CONFIG_HOME`.
    Podman5,
}

/// Enough to notice that a file was replaced or rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of a file with this metadata.
    pub fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
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
    /// `CONTAINERS_POLICY_JSON`: the one policy file that counts, for Podman 6.
    pub policy_json: Option<PathBuf>,
    /// `CONTAINERS_REGISTRIES_CONF`: takes the place of all registries.conf files, for Podman 6.
    pub registries_conf: Option<PathBuf>,
    /// `CONTAINERS_REGISTRIES_CONF_OVERRIDE`: a registries.conf read after all others, for Podman 6.
    pub registries_conf_override: Option<PathBuf>,
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
            policy_json: var("CONTAINERS_POLICY_JSON").map(PathBuf::from),
            registries_conf: var("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from),
            registries_conf_override: var("CONTAINERS_REGISTRIES_CONF_OVERRIDE").map(PathBuf::from),
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

/// Lists the `certs.d` directories, the most important first (spec containers-image 2.2).
pub fn certificate_directories(environment: &Environment, generation: Generation) -> Vec<PathBuf> {
    let mut directories = drop_in_directories(environment, generation, None, "certs");
    directories.push(PathBuf::from("/etc/docker/certs.d"));
    directories
}
