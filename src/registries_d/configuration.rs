//! All files as one configuration: nothing may be defined twice
//! (spec containers-image 1.2).

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::document::{Document, Section};
use super::search::{self, Search};
use super::yaml::YamlError;
use crate::go;
use crate::host::SearchError;

/// Why there is no configuration. Any of these makes every operation on docker images fail, pulls
/// that need no signature too. The sentences are containers/image's own.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A directory or file cannot be read.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A file is not YAML, or not of the right shape.
    #[error("parsing {}: {source}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: YamlError,
    },
    /// Two files have `default-docker`.
    #[error(
        "Error parsing signature storage configuration: \"default-docker\" defined both in {} and {}",
        quoted(.first),
        quoted(.second)
    )]
    DefaultTwice {
        /// The file that was read first.
        first: PathBuf,
        /// The file that was read second.
        second: PathBuf,
    },
    /// Two files have the same key under `docker`.
    #[error(
        "Error parsing signature storage configuration: \"docker\" namespace {} defined both in {} and {}",
        go::quote(.namespace.as_bytes()),
        quoted(.first),
        quoted(.second)
    )]
    NamespaceTwice {
        /// The key.
        namespace: String,
        /// The file that was read first.
        first: PathBuf,
        /// The file that was read second.
        second: PathBuf,
    },
}

fn quoted(path: &Path) -> String {
    go::quote(path.as_os_str().as_bytes())
}

/// A section and the file that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The section.
    pub section: Section,
    /// The file.
    pub path: PathBuf,
}

/// The merged content of a registries.d search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// `default-docker`, if any file has it.
    pub default_docker: Option<Placed>,
    /// Each key under `docker`, as it is written.
    pub docker: BTreeMap<String, Placed>,
    /// The keys of each file: there can be thousands of both.
    by_file: HashMap<PathBuf, Vec<String>>,
}

impl Configuration {
    /// Finds, reads and merges the files.
    ///
    /// # Errors
    /// [`ConfigurationError`], the first that the reference would name.
    pub fn load(search: &Search) -> Result<Self, ConfigurationError> {
        let mut configuration = Self::default();
        for path in search.files()? {
            if let Some(bytes) = search::read(&path)? {
                configuration.add(&path, &bytes)?;
            }
        }
        Ok(configuration)
    }

    /// Lists what one file has under `docker`, in the order of the keys.
    pub fn of_file(&self, path: &Path) -> impl Iterator<Item = (&str, &Placed)> {
        let names = self.by_file.get(path).into_iter().flatten();
        names.filter_map(|name| Some((name.as_str(), self.docker.get(name)?)))
    }

    /// Adds one file's content.
    ///
    /// # Errors
    /// [`ConfigurationError`]: the content does not parse, or defines what is already defined.
    /// What was added before the error stays.
    pub fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), ConfigurationError> {
        let document =
            Document::parse(bytes).map_err(|source| ConfigurationError::Parse { path: path.to_owned(), source })?;
        let placed = |section| Placed { section, path: path.to_owned() };
        if let Some(section) = document.default_docker {
            if let Some(first) = &self.default_docker {
                let (first, second) = (first.path.clone(), path.to_owned());
                return Err(ConfigurationError::DefaultTwice { first, second });
            }
            self.default_docker = Some(placed(section));
        }
        for (namespace, section) in document.docker {
            if let Some(first) = self.docker.get(&namespace) {
                let (first, second) = (first.path.clone(), path.to_owned());
                return Err(ConfigurationError::NamespaceTwice { namespace, first, second });
            }
            self.by_file.entry(path.to_owned()).or_default().push(namespace.clone());
            self.docker.insert(namespace, placed(section));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::{Environment, Generation};

    fn merged(files: &[(&str, &str)]) -> Result<Configuration, String> {
        let mut configuration = Configuration::default();
        for (path, text) in files {
            configuration.add(Path::new(path), text.as_bytes()).map_err(|error| error.to_string())?;
        }
        Ok(configuration)
    }

    #[test]
    fn files_add_up() {
        let configuration = merged(&[
            ("/d/a.yaml", "docker: {a: {lookaside: x}}\ndefault-docker:\n"),
            ("/d/b.yaml", "docker: {b: , A: {}}\ndefault-docker: {}"),
            ("/d/c.yaml", ""),
        ])
        .unwrap();
        assert_eq!(configuration.docker.keys().collect::<Vec<_>>(), ["A", "a", "b"]);
        assert_eq!(configuration.docker["b"].path, Path::new("/d/b.yaml"));
        let of = |path: &str| configuration.of_file(Path::new(path)).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!((of("/d/a.yaml"), of("/d/b.yaml"), of("/d/c.yaml")), (vec!["a"], vec!["A", "b"], vec![]));
        assert_eq!(configuration.default_docker.unwrap().path, Path::new("/d/b.yaml"));
    }

    #[test]
    fn nothing_is_defined_twice() {
        let default = "default-docker: {}";
        assert_eq!(
            merged(&[("/d/a \"x\".yaml", default), ("/d/b.yaml", default)]).unwrap_err(),
            r#"Error parsing signature storage configuration: "default-docker" defined both in "/d/a \"x\".yaml" and "/d/b.yaml""#
        );
        assert_eq!(
            merged(&[("/d/a.yaml", "docker: {x.y/é: }"), ("/d/b.yaml", "docker: {x.y/é: {lookaside: l}}")])
                .unwrap_err(),
            r#"Error parsing signature storage configuration: "docker" namespace "x.y/é" defined both in "/d/a.yaml" and "/d/b.yaml""#
        );
        assert_eq!(
            merged(&[("/d/a.yaml", "[]")]).unwrap_err(),
            "parsing /d/a.yaml: yaml: unmarshal errors:\n  line 1: cannot unmarshal !!seq into docker.registryConfiguration"
        );
        assert_eq!(
            merged(&[("/d/a.yaml", "x: 1\na: b: c")]).unwrap_err(),
            "parsing /d/a.yaml: yaml: line 2: mapping values are not allowed in this context"
        );
    }

    #[test]
    fn loads_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        file("b.yaml", "docker: {x: }");
        file("a.yaml", "docker: {x: }");
        file("ignored.yml", "[");
        let search = Search::explicit(directory.path());
        let error = Configuration::load(&search).unwrap_err().to_string();
        let [a, b] = ["a", "b"].map(|name| directory.path().join(format!("{name}.yaml")).display().to_string());
        assert!(error.ends_with(&format!("\"x\" defined both in {a:?} and {b:?}")), "{error}");
        fs::remove_file(&b).unwrap();
        std::os::unix::fs::symlink("nowhere", &b).unwrap();
        assert_eq!(Configuration::load(&search).unwrap().docker.len(), 1);

        fs::create_dir(directory.path().join("x.yaml")).unwrap();
        assert!(Configuration::load(&search).is_ok());
        let old = Search { generation: Generation::Podman5, ..search };
        let error = Configuration::load(&old).unwrap_err().to_string();
        assert_eq!(error, format!("read {}/x.yaml: is a directory", directory.path().display()));
    }

    #[test]
    fn the_shipped_samples_load() {
        let configuration = Configuration::load(&Search::explicit("registries.d")).unwrap();
        assert!(configuration.default_docker.is_some());
        for namespace in ["registry.redhat.io", "registry.access.redhat.com", "*.icr.io", "icr.io"] {
            assert!(configuration.docker.contains_key(namespace), "{namespace}");
        }
        let environment = Environment::default();
        for (image, url) in [
            ("registry.redhat.io/ubi9/ubi:9", "https://registry.redhat.io/containers/sigstore"),
            ("us.icr.io/birds/bluebird:build1", "https://signatures.example.com/lookaside/icr"),
            ("busybox:1", "http://127.0.0.1:8080/lookaside"),
        ] {
            let reference = crate::image::Reference::parse(image).unwrap();
            for mode in [crate::registries_d::Mode::Read, crate::registries_d::Mode::Write] {
                let lookup = configuration.lookaside(&reference, mode, &environment).unwrap();
                assert!(lookup.base.is_file() || lookup.base.to_string() == url, "{image}: {}", lookup.base);
            }
        }
    }
}
