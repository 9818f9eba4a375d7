//! Which lookaside serves an image, and who said so (spec containers-image 1.4, 8.3).
//!
//! The reference given must be the *physical* one: of the mirror, when a mirror serves the image.

use std::path::PathBuf;

use super::configuration::{Configuration, Placed};
use super::document::Key;
use super::url::{LookasideBase, LookasideError};
use crate::host::Environment;
use crate::image::{Reference, scopes};

/// The name under which the section for all other images appears among the candidates.
pub const DEFAULT_DOCKER: &str = "default-docker";

/// What the lookaside is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Fetching signatures: staging keys are never looked at.
    Read,
    /// Storing or removing them.
    Write,
}

impl Mode {
    /// Returns the keys of a section in the order in which they are asked. A deprecated
    /// `sigstore-staging` comes before a modern `lookaside`.
    pub fn keys(self) -> &'static [Key] {
        match self {
            Self::Read => &[Key::Lookaside, Key::Sigstore],
            Self::Write => &[Key::LookasideStaging, Key::SigstoreStaging, Key::Lookaside, Key::Sigstore],
        }
    }
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A key in a file.
    File {
        /// The file.
        path: PathBuf,
        /// The key under `docker`, or [`DEFAULT_DOCKER`].
        namespace: String,
        /// The key of the section.
        key: Key,
    },
    /// Nobody: the built-in default directory.
    BuiltIn,
}

/// One place that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The key under `docker`, or [`DEFAULT_DOCKER`].
    pub namespace: String,
    /// The file that has it; `None` when none has.
    pub path: Option<PathBuf>,
    /// The key that has an URL for this mode. A section that is there without one falls through.
    pub key: Option<Key>,
}

impl Candidate {
    /// Tells whether any file speaks of this namespace.
    pub fn found(&self) -> bool {
        self.path.is_some()
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The base; the repository's path is not part of it.
    pub base: LookasideBase,
    /// Who said so.
    pub from: Origin,
    /// Who was asked, in order, the last being the one who answered (unless nobody did).
    pub tried: Vec<Candidate>,
}

/// Whether Cosign-style attachments are looked for, and who said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    /// False when nobody says.
    pub enabled: bool,
    /// The file and the namespace that said so.
    pub from: Option<(PathBuf, String)>,
}

impl Configuration {
    /// Finds the lookaside of an image. There always is one: the built-in default directory, if
    /// nothing else.
    ///
    /// # Errors
    /// [`LookasideError::Invalid`] when what the winning key says is no URL.
    pub fn lookaside(
        &self,
        reference: &Reference,
        mode: Mode,
        environment: &Environment,
    ) -> Result<Lookup, LookasideError> {
        let mut tried = Vec::new();
        for (namespace, placed) in self.candidates(reference) {
            let key = placed.and_then(|placed| mode.keys().iter().find(|key| !placed.section.url(**key).is_empty()));
            tried.push(Candidate {
                namespace: namespace.clone(),
                path: placed.map(|placed| placed.path.clone()),
                key: key.copied(),
            });
            if let (Some(placed), Some(key)) = (placed, key) {
                let base = LookasideBase::parse(placed.section.url(*key))?;
                return Ok(Lookup {
                    base,
                    from: Origin::File { path: placed.path.clone(), namespace, key: *key },
                    tried,
                });
            }
        }
        let base = LookasideBase::from_directory(&environment.default_store());
        Ok(Lookup { base, from: Origin::BuiltIn, tried })
    }

    /// Tells whether `use-sigstore-attachments` holds for an image: the first candidate that has
    /// the key decides, whatever is said of URLs.
    pub fn attachments(&self, reference: &Reference) -> Attachments {
        self.candidates(reference)
            .find_map(|(namespace, placed)| {
                let placed = placed?;
                let enabled = placed.section.use_sigstore_attachments?;
                Some(Attachments { enabled, from: Some((placed.path.clone(), namespace)) })
            })
            .unwrap_or_default()
    }

    /// Lists all that may speak of an image, most specific first, `default-docker` last.
    fn candidates(&self, reference: &Reference) -> impl Iterator<Item = (String, Option<&Placed>)> {
        let named = scopes(reference).into_iter().map(|scope| {
            let placed = self.docker.get(&scope);
            (scope, placed)
        });
        named.chain([(DEFAULT_DOCKER.to_owned(), self.default_docker.as_ref())])
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn configuration(text: &str) -> Configuration {
        let mut configuration = Configuration::default();
        configuration.add(Path::new("/d/x.yaml"), text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        configuration
    }

    fn lookup(text: &str, image: &str, mode: Mode) -> Lookup {
        let environment = Environment { home: "/home/u".into(), uid: 1000, euid: 1000, ..Environment::default() };
        configuration(text).lookaside(&Reference::parse(image).unwrap(), mode, &environment).unwrap()
    }

    fn read(text: &str, image: &str) -> String {
        lookup(text, image, Mode::Read).base.to_string()
    }

    fn write(text: &str, image: &str) -> String {
        lookup(text, image, Mode::Write).base.to_string()
    }

    #[test]
    fn the_most_specific_namespace_wins() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let text = format!(
            "default-docker: {{lookaside: 'd:'}}\ndocker:\n  a.b.c:8443/n/r:t: {{lookaside: 'identity:'}}\n  \
             \"a.b.c:8443/n/r@{digest}\": {{lookaside: 'digest:'}}\n  a.b.c:8443/n/r: {{lookaside: 'repository:'}}\n  \
             a.b.c:8443/n: {{lookaside: 'namespace:'}}\n  a.b.c:8443: {{lookaside: 'host:'}}\n  \"*.b.c\": {{lookaside: \
             'wild:'}}\n  \"*.c\": {{lookaside: 'wilder:'}}\n  a.b.c: {{lookaside: 'portless:'}}\n  docker.io/library/busybox: \
             {{lookaside: 'busybox:'}}\n  alpine: {{lookaside: 'short:'}}\n  docker.io/library/: {{lookaside: 'slash:'}}\n"
        );
        for (image, url) in [
            ("a.b.c:8443/n/r:t", "identity:"),
            (&format!("a.b.c:8443/n/r@{digest}"), "digest:"),
            ("a.b.c:8443/n/r:other", "repository:"),
            ("a.b.c:8443/n/other:t", "namespace:"),
            ("a.b.c:8443/other:t", "host:"),
            ("a.b.c:1/n:t", "wild:"),
            ("x.a.b.c/n:t", "wild:"),
            ("x.c/n:t", "wilder:"),
            ("b.c/n:t", "wilder:"),
            ("c/n:t", "d:"),
            ("a.b.c/n:t", "portless:"),
            ("busybox", "busybox:"),
            ("alpine", "d:"),
            ("a.b.c:8443/nn/r:t", "host:"),
        ] {
            assert_eq!(read(&text, image), url, "{image}");
        }
    }

    #[test]
    fn what_says_nothing_falls_through() {
        let text = "default-docker: {lookaside: 'd:'}\ndocker:\n  q.io/n/r: {lookaside: '', use-sigstore-attachments: true}\n  \
                    q.io/n: {lookaside-staging: 'n:'}\n  q.io: ~\n";
        let found = lookup(text, "q.io/n/r:t", Mode::Read);
        assert_eq!(found.base.to_string(), "d:");
        let origin =
            |namespace: &str, key| Origin::File { path: "/d/x.yaml".into(), namespace: namespace.to_owned(), key };
        assert_eq!(found.from, origin(DEFAULT_DOCKER, Key::Lookaside));
        let tried: Vec<(&str, bool, Option<Key>)> = found
            .tried
            .iter()
            .map(|candidate| (candidate.namespace.as_str(), candidate.found(), candidate.key))
            .collect();
        assert_eq!(
            tried,
            [
                ("q.io/n/r:t", false, None),
                ("q.io/n/r", true, None),
                ("q.io/n", true, None),
                ("q.io", true, None),
                ("*.io", false, None),
                (DEFAULT_DOCKER, true, Some(Key::Lookaside)),
            ]
        );
        let found = lookup(text, "q.io/n/r:t", Mode::Write);
        assert_eq!((found.base.to_string(), found.tried.len()), ("n:".to_owned(), 3));
        assert_eq!(found.from, origin("q.io/n", Key::LookasideStaging));
    }

    #[test]
    fn keys_inside_a_namespace() {
        let all = [
            ("lookaside-staging", "one:"),
            ("sigstore-staging", "two:"),
            ("lookaside", "three:"),
            ("sigstore", "four:"),
        ];
        for present in 0u32..16 {
            let section: Vec<(&str, &str)> =
                (0..4).filter(|n| present & (1 << n) != 0).map(|n| all[n as usize]).collect();
            let written: Vec<String> = section.iter().rev().map(|(key, url)| format!("{key}: '{url}'")).collect();
            let text = format!("default-docker: {{lookaside: 'd:'}}\ndocker: {{q.io: {{{}}}}}", written.join(", "));
            let expected = |urls: &[&str]| {
                urls.iter()
                    .find(|url| section.iter().any(|(_, present)| present == *url))
                    .map_or("d:", |url| *url)
                    .to_owned()
            };
            assert_eq!(write(&text, "q.io/r"), expected(&["one:", "two:", "three:", "four:"]), "{text}");
            assert_eq!(read(&text, "q.io/r"), expected(&["three:", "four:"]), "{text}");
        }
    }

    #[test]
    fn nothing_configured_is_the_built_in_default() {
        for text in ["", "default-docker: {lookaside: ''}", "docker: {docker.io: {lookaside-staging: ''}}"] {
            for mode in [Mode::Read, Mode::Write] {
                let found = lookup(text, "busybox", mode);
                assert_eq!(found.from, Origin::BuiltIn);
                assert_eq!(found.base.to_string(), "file:///home/u/.local/share/containers/sigstore");
            }
        }
        let root = Environment::default();
        let found = configuration("").lookaside(&Reference::parse("x").unwrap(), Mode::Read, &root).unwrap();
        assert_eq!(found.base.to_string(), "file:///var/lib/containers/sigstore");
    }

    #[test]
    fn a_bad_url_is_an_error_only_where_it_wins() {
        let text = "docker: {q.io: {lookaside: ':emptyscheme', lookaside-staging: 'file:///x'}}";
        let reference = Reference::parse("q.io/r").unwrap();
        let find = |mode| configuration(text).lookaside(&reference, mode, &Environment::default());
        assert_eq!(
            find(Mode::Read).unwrap_err().to_string(),
            "Invalid signature storage URL :emptyscheme: parse \":emptyscheme\": missing protocol scheme"
        );
        assert!(find(Mode::Write).is_ok());
    }

    #[test]
    fn attachments_are_searched_on_their_own() {
        let text = "default-docker: {use-sigstore-attachments: true}\ndocker:\n  q.io/n/r: {lookaside: 'x:'}\n  q.io/n: \
                    {use-sigstore-attachments: false}\n  q.io: {use-sigstore-attachments: true}\n";
        let of = |image: &str| configuration(text).attachments(&Reference::parse(image).unwrap());
        assert_eq!(of("q.io/n/r:t").from, Some(("/d/x.yaml".into(), "q.io/n".to_owned())));
        assert!(!of("q.io/n/r:t").enabled);
        assert!(of("q.io/m/r:t").enabled && of("busybox").enabled);
        assert_eq!(
            configuration("docker: {q.io: {}}").attachments(&Reference::parse("q.io/r").unwrap()),
            Attachments::default()
        );
    }
}
