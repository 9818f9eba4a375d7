//! Where the system's policy.json is (spec containers-image 5.1).
//!
//! Two generations of clients look in different places: Podman 6 (and what is built with it) and
//! Podman 5 and older, which includes all of RHEL 8 and 9 and OpenShift 4.

use std::path::{Path, PathBuf};

use super::document::{LoadError, Policy};
use crate::go::quote;
use crate::host::{Environment, Generation};

/// There is no policy file where one could be. The sentences are containers/image's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// Of the Podman 6 generation.
    #[error("config file not found: no policy.json file found; searched paths: [{}]", quoted(.0, " "))]
    Podman6(Vec<PathBuf>),
    /// Of the Podman 5 generation.
    #[error("no policy.json file found at any of the following: {}", quoted(.0, ", "))]
    Podman5(Vec<PathBuf>),
}

fn quoted(paths: &[PathBuf], separator: &str) -> String {
    paths.iter().map(|path| quote(path.as_os_str().as_encoded_bytes())).collect::<Vec<_>>().join(separator)
}

/// The files that are tried, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    paths: Vec<PathBuf>,
    generation: Generation,
    /// The one path was named by the environment: nothing else counts, and it must be there.
    named: bool,
}

impl SearchPath {
    /// Returns the files, best first.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Returns the file that a client would read, given which of them exist. A file named by
    /// `CONTAINERS_POLICY_JSON` is returned in any case; reading it then says that it is missing.
    ///
    /// # Errors
    /// [`SearchError`] when none is there.
    pub fn find(&self, exists: impl Fn(&Path) -> bool) -> Result<&Path, SearchError> {
        let found = self.paths.iter().find(|path| self.named || exists(path));
        found.map(PathBuf::as_path).ok_or_else(|| self.nothing())
    }

    fn nothing(&self) -> SearchError {
        match self.generation {
            Generation::Podman6 => SearchError::Podman6(self.paths.clone()),
            Generation::Podman5 => SearchError::Podman5(self.paths.clone()),
        }
    }
}

/// Lists the files that a client of this generation tries. A pure function.
pub fn search_path(environment: &Environment, generation: Generation) -> SearchPath {
    let named = environment.policy_json.as_ref().filter(|path| !path.as_os_str().is_empty());
    let in_home = |home: &PathBuf| home.join(".config/containers/policy.json");
    let system = || PathBuf::from("/etc/containers/policy.json");
    match (generation, named) {
        (Generation::Podman6, Some(path)) => SearchPath { paths: vec![path.clone()], generation, named: true },
        (Generation::Podman6, None) => {
            // Set but empty makes a relative path, in Go as here.
            let xdg = environment.xdg_config_home.as_ref().map(|config| config.join("containers/policy.json"));
            let user = xdg.unwrap_or_else(|| in_home(&environment.home));
            let share = PathBuf::from("/usr/share/containers/policy.json");
            SearchPath { paths: vec![user, system(), share], generation, named: false }
        }
        (Generation::Podman5, _) => {
            let user = in_home(&environment.home);
            SearchPath { paths: vec![user, system()], generation, named: false }
        }
    }
}

/// Reads the policy that a client of this generation would read, and says which file it was.
///
/// # Errors
/// [`LoadError`]. A file that is there but cannot be read or is no policy is an error; the next one
/// is not tried then.
pub fn load_default(environment: &Environment, generation: Generation) -> Result<(PathBuf, Policy), LoadError> {
    load_first(&search_path(environment, generation))
}

fn load_first(search: &SearchPath) -> Result<(PathBuf, Policy), LoadError> {
    for path in &search.paths {
        // Podman 5 asks whether a file is there, and passes by one that it may not even look at.
        if search.generation == Generation::Podman5 && std::fs::metadata(path).is_err() {
            continue;
        }
        match Policy::load(path) {
            Err(error) if error.is_not_found() && !search.named => {}
            result => return result.map(|policy| (path.clone(), policy)),
        }
    }
    Err(search.nothing().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(home: Option<&str>, xdg: Option<&str>, named: Option<&str>) -> Environment {
        Environment {
            home: home.map(Into::into).unwrap_or_default(),
            xdg_config_home: xdg.map(Into::into),
            policy_json: named.map(Into::into),
            ..Environment::default()
        }
    }

    fn paths(generation: Generation, home: Option<&str>, xdg: Option<&str>, named: Option<&str>) -> Vec<String> {
        let search = search_path(&environment(home, xdg, named), generation);
        search.paths().iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn podman_6() {
        let paths = |home, xdg, named| paths(Generation::Podman6, home, xdg, named);
        let system = ["/etc/containers/policy.json", "/usr/share/containers/policy.json"];
        let with = |user: &str| std::iter::once(user).chain(system).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(paths(Some("/h"), None, None), with("/h/.config/containers/policy.json"));
        assert_eq!(paths(Some("/h"), Some("/x"), None), with("/x/containers/policy.json"));
        assert_eq!(paths(Some("/h"), Some(""), None), with("containers/policy.json"));
        assert_eq!(paths(Some("/h"), Some("/x"), Some("")), with("/x/containers/policy.json"));
        assert_eq!(paths(Some("/h"), Some("/x"), Some("/p.json")), ["/p.json"]);
    }

    #[test]
    fn podman_5() {
        let paths = |home, xdg, named| paths(Generation::Podman5, home, xdg, named);
        let expected = ["/h/.config/containers/policy.json", "/etc/containers/policy.json"];
        assert_eq!(paths(Some("/h"), Some("/x"), Some("/p.json")), expected);
    }

    #[test]
    fn nothing_found_names_what_was_tried() {
        let environment = environment(Some("/h"), None, None);
        let nothing = |generation| search_path(&environment, generation).find(|_| false).unwrap_err().to_string();
        insta::assert_snapshot!(nothing(Generation::Podman6), @r#"config file not found: no policy.json file found; searched paths: ["/h/.config/containers/policy.json" "/etc/containers/policy.json" "/usr/share/containers/policy.json"]"#);
        insta::assert_snapshot!(nothing(Generation::Podman5), @r#"no policy.json file found at any of the following: "/h/.config/containers/policy.json", "/etc/containers/policy.json""#);
        let search = search_path(&environment, Generation::Podman6);
        assert_eq!(search.find(|path| path.starts_with("/usr")), Ok(Path::new("/usr/share/containers/policy.json")));
    }

    #[test]
    fn the_first_file_counts_even_if_it_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment { xdg_config_home: Some(folder.path().to_owned()), ..Environment::default() };
        let path = folder.path().join("containers/policy.json");
        std::fs::create_dir(folder.path().join("containers")).unwrap();
        std::fs::write(&path, r#"{"default":[{"type":"reject"}]}"#).unwrap();
        assert_eq!(load_default(&environment, Generation::Podman6).unwrap().0, path);
        std::fs::write(&path, "{}").unwrap();
        let broken = load_default(&environment, Generation::Podman6).unwrap_err();
        assert!(broken.to_string().starts_with("invalid policy in "));

        let missing = folder.path().join("missing.json");
        let environment = Environment { policy_json: Some(missing.clone()), ..environment };
        let error = load_default(&environment, Generation::Podman6).unwrap_err();
        assert_eq!(error.to_string(), format!("open {}: no such file or directory", missing.display()));

        let nowhere = SearchPath { paths: vec![missing], generation: Generation::Podman6, named: false };
        assert!(matches!(load_first(&nowhere), Err(LoadError::Search(_))));
    }
}
