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
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn user(uid: u32) -> Environment {
        Environment { home: "/home/u".into(), uid, euid: uid, ..Environment::default() }
    }

    fn directories(environment: &Environment, generation: Generation, root: Option<&str>, stem: &str) -> Vec<String> {
        drop_in_directories(environment, generation, root.map(Path::new), stem)
            .into_iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn podman_6_looks_into_many() {
        let of = |environment: &Environment| directories(environment, Generation::Podman6, None, "registries");
        assert_eq!(
            of(&user(1000)),
            [
                "/home/u/.config/containers/registries.d",
                "/etc/containers/registries.rootless.d/1000",
                "/etc/containers/registries.rootless.d",
                "/etc/containers/registries.d",
                "/usr/share/containers/registries.rootless.d/1000",
                "/usr/share/containers/registries.rootless.d",
                "/usr/share/containers/registries.d",
            ]
        );
        assert_eq!(
            of(&user(0)),
            [
                "/home/u/.config/containers/registries.d",
                "/etc/containers/registries.rootful.d",
                "/etc/containers/registries.d",
                "/usr/share/containers/registries.rootful.d",
                "/usr/share/containers/registries.d",
            ]
        );
        let xdg = |value: &str| Environment { xdg_config_home: Some(value.into()), ..user(0) };
        assert_eq!(of(&xdg("/x//y/"))[0], "/x/y/containers/registries.d");
        assert_eq!(of(&xdg(""))[0], "containers/registries.d");
    }

    #[test]
    fn who_the_user_is() {
        let as_uid = |value: &str| Environment { rootless_uid: Some(value.into()), ..user(0) };
        for (value, uid, store) in [
            ("1000", 1000, "/home/u/.local/share/containers/sigstore"),
            ("0", 0, "/var/lib/containers/sigstore"),
            ("", 0, "/var/lib/containers/sigstore"),
            ("nonsense", 0, "/var/lib/containers/sigstore"),
            ("-1", -1, "/home/u/.local/share/containers/sigstore"),
            ("99999999999999999999", i64::MAX, "/home/u/.local/share/containers/sigstore"),
        ] {
            let environment = as_uid(value);
            assert_eq!((environment.search_uid(), environment.default_store()), (uid, store.into()), "{value}");
        }
        let in_namespace = Environment { euid: 0, ..user(1000) };
        assert_eq!(
            (in_namespace.search_uid(), in_namespace.default_store()),
            (1000, "/var/lib/containers/sigstore".into())
        );
        let with_data_home = Environment { xdg_config_home: Some("/x".into()), ..user(5) };
        assert_eq!(with_data_home.default_store(), Path::new("/home/u/.local/share/containers/sigstore"));
        assert!(Environment::from_process().home.is_absolute());
    }

    #[test]
    fn an_alternate_root_is_for_the_system_alone() {
        let listed = directories(&user(0), Generation::Podman6, Some("/alt"), "registries");
        assert_eq!(listed[0], "/home/u/.config/containers/registries.d");
        assert!(listed.iter().skip(1).all(|path| path.starts_with("/alt/etc/") || path.starts_with("/alt/usr/share/")));
        let old = directories(&user(0), Generation::Podman5, Some("/alt"), "registries");
        assert_eq!(old, ["/home/u/.config/containers/registries.d", "/alt/etc/containers/registries.d"]);
    }

    #[test]
    fn other_names_are_searched_alike() {
        let conf = directories(&user(7), Generation::Podman6, None, "registries.conf");
        assert_eq!(
            conf[..3],
            [
                "/home/u/.config/containers/registries.conf.d",
                "/etc/containers/registries.rootless.conf.d/7",
                "/etc/containers/registries.rootless.conf.d",
            ]
        );
        assert_eq!(directories(&user(0), Generation::Podman6, None, "certs")[1], "/etc/containers/certs.rootful.d");
    }

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[&str]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for file in files {
                let path = tree.0.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, file).unwrap();
            }
            tree
        }

        fn search(&self, generation: Generation) -> Search {
            let environment = Environment { home: self.0.path().join("home"), ..user(1000) };
            Search { explicit: None, root: Some(self.0.path().into()), generation, environment }
        }

        fn files(&self, search: &Search) -> Vec<String> {
            let short = |path: &PathBuf| path.strip_prefix(self.0.path()).unwrap().display().to_string();
            search.files().unwrap().iter().map(short).collect()
        }
    }

    const HOME: &str = "home/.config/containers/registries.d";

    #[test]
    fn the_nearest_file_of_each_name_is_read() {
        let tree = Tree::new(&[
            "usr/share/containers/registries.d/a.yaml",
            "usr/share/containers/registries.d/Z.yaml",
            "usr/share/containers/registries.d/b.yaml",
            "usr/share/containers/registries.d/no.yml",
            "usr/share/containers/registries.d/NO.YAML",
            "usr/share/containers/registries.d/.yaml",
            "usr/share/containers/registries.d/sub/no.yaml",
            "etc/containers/registries.d/a.yaml",
            "etc/containers/registries.yaml",
            "etc/containers/registries.rootless.d/b.yaml",
            "etc/containers/registries.rootless.d/1000/c.yaml",
            "etc/containers/registries.rootful.d/no.yaml",
            "home/.config/containers/registries.d/c.yaml",
            "home/.config/containers/registries.d/a.yaml/is-a-directory",
        ]);
        assert_eq!(
            tree.files(&tree.search(Generation::Podman6)),
            [
                "usr/share/containers/registries.d/.yaml",
                "usr/share/containers/registries.d/Z.yaml",
                "etc/containers/registries.d/a.yaml",
                "etc/containers/registries.rootless.d/b.yaml",
                "home/.config/containers/registries.d/c.yaml",
            ]
        );
        let mut old = tree.files(&tree.search(Generation::Podman5));
        old.sort();
        assert_eq!(old, [format!("{HOME}/a.yaml"), format!("{HOME}/c.yaml")]);
        fs::remove_dir_all(tree.0.path().join("home")).unwrap();
        assert_eq!(tree.files(&tree.search(Generation::Podman5)), ["etc/containers/registries.d/a.yaml"]);
    }

    #[test]
    fn an_explicit_directory_is_the_only_one() {
        let tree = Tree::new(&["etc/containers/registries.d/a.yaml", "mine/b.yaml"]);
        for generation in [Generation::Podman6, Generation::Podman5] {
            let mut search = tree.search(generation);
            search.explicit = Some(tree.0.path().join("mine/../mine/"));
            assert_eq!(tree.files(&search), ["mine/b.yaml"]);
            search.explicit = Some(tree.0.path().join("missing"));
            assert!(search.files().unwrap().is_empty());
            search.explicit = Some(PathBuf::new());
            assert_eq!(tree.files(&search), ["etc/containers/registries.d/a.yaml"]);
        }
    }

    #[test]
    fn a_file_in_place_of_a_directory_is_an_error() {
        let tree = Tree::new(&["mine"]);
        let path = tree.0.path().join("mine");
        for (generation, operation) in [(Generation::Podman6, "open"), (Generation::Podman5, "readdirent")] {
            let search = Search { generation, ..Search::explicit(&path) };
            let error = search.files().unwrap_err().to_string();
            assert_eq!(error, format!("{operation} {}: not a directory", path.display()));
        }
        let below = Search::explicit(path.join("below")).files().unwrap_err().to_string();
        assert_eq!(below, format!("open {}/below: not a directory", path.display()));
    }

    #[test]
    fn links_and_vanished_files() {
        let tree = Tree::new(&["real/x.yaml", "d/a.yaml", "d/sub/x"]);
        let d = tree.0.path().join("d");
        symlink("nowhere", d.join("dangling.yaml")).unwrap();
        symlink("../real/x.yaml", d.join("link.yaml")).unwrap();
        symlink("sub", d.join("to-directory.yaml")).unwrap();
        symlink("loop.yaml", d.join("loop.yaml")).unwrap();
        let files = Search::explicit(&d).files().unwrap();
        assert_eq!(files.len(), 5, "{files:?}");
        assert_eq!(read(&d.join("link.yaml")).unwrap().unwrap(), b"real/x.yaml");
        assert!(read(&d.join("dangling.yaml")).unwrap().is_none());
        assert!(read(&d.join("vanished.yaml")).unwrap().is_none());
        let directory = read(&d.join("to-directory.yaml")).unwrap_err().to_string();
        assert_eq!(directory, format!("read {}/to-directory.yaml: is a directory", d.display()));
        let turning = read(&d.join("loop.yaml")).unwrap_err().to_string();
        assert_eq!(turning, format!("open {}/loop.yaml: too many levels of symbolic links", d.display()));
        assert!(read(Path::new("/dev/zero")).is_err());
    }

    proptest::proptest! {
        /// Masking said otherwise: a file is read unless a nearer directory has its name.
        #[test]
        fn masking_agrees_with_the_naive_rule(
            names in proptest::collection::btree_set((0usize..7, "[abAB]{1,2}(\\.yaml|\\.yml)?"), 0..20)
        ) {
            let tree = Tree::new(&[]);
            let search = tree.search(Generation::Podman6);
            let directories = search.directories();
            for (at, name) in &names {
                fs::create_dir_all(&directories[*at]).unwrap();
                fs::write(directories[*at].join(name), "").unwrap();
            }
            let mut naive: Vec<(&str, PathBuf)> = Vec::new();
            for (at, name) in &names {
                let masked = names.iter().any(|(nearer, other)| nearer < at && other == name);
                if name.ends_with(".yaml") && !masked {
                    naive.push((name, directories[*at].join(name)));
                }
            }
            naive.sort();
            let naive: Vec<PathBuf> = naive.into_iter().map(|(_, path)| path).collect();
            proptest::prop_assert_eq!(search.files().unwrap(), naive);
        }
    }
}
