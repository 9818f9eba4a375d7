//! Everything that registries.d says of one image: who was asked, who answered, and the addresses
//! that follow (spec containers-image 1.4, 2.1).

use std::num::NonZeroU32;
use std::path::PathBuf;

use crate::host::Environment;
use crate::image::{Digest, Reference, scopes};
use crate::registries_d::{
    Attachments, Configuration, DEFAULT_DOCKER, Key, LookasideBase, LookasideError, Lookup, Mode, Operation,
};

/// One name under which registries.d may speak of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The key under `docker`, or `default-docker`.
    pub namespace: String,
    /// The file that has it, if one has.
    pub file: Option<PathBuf>,
    /// Its key with an URL for reading.
    pub read: Option<Key>,
    /// Its key with an URL for writing.
    pub write: Option<Key>,
    /// What it says of Cosign-style attachments.
    pub attachments: Option<bool>,
}

/// What registries.d says of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Where signatures are read.
    pub read: Result<Lookup, LookasideError>,
    /// Where they are written.
    pub write: Result<Lookup, LookasideError>,
    /// Whether Cosign-style attachments are looked for.
    pub attachments: Attachments,
    /// Every name that may speak of the image, most specific first, whether or not it was reached.
    pub asked: Vec<Asked>,
}

impl Resolution {
    /// Asks the configuration about a name, which may have neither tag nor digest.
    pub fn of(configuration: &Configuration, reference: &Reference, environment: &Environment) -> Self {
        let lookaside = |mode| configuration.lookaside(reference, mode, environment);
        let named = scopes(reference).into_iter().map(|scope| {
            let placed = configuration.docker.get(&scope);
            (scope, placed)
        });
        let all = named.chain([(DEFAULT_DOCKER.to_owned(), configuration.default_docker.as_ref())]);
        let asked = all.map(|(namespace, placed)| {
            let key = |mode: Mode| {
                let section = &placed?.section;
                mode.keys().iter().copied().find(|key| !section.url(*key).is_empty())
            };
            Asked {
                namespace,
                file: placed.map(|placed| placed.path.clone()),
                read: key(Mode::Read),
                write: key(Mode::Write),
                attachments: placed.and_then(|placed| placed.section.use_sigstore_attachments),
            }
        });
        Self {
            asked: asked.collect(),
            read: lookaside(Mode::Read),
            write: lookaside(Mode::Write),
            attachments: configuration.attachments(reference),
        }
    }
}

/// The first `count` addresses below a base, as messages show them (passwords replaced), with the
/// sentence of a client that cannot use them.
pub fn signature_urls(
    base: &LookasideBase,
    operation: Operation,
    reference: &Reference,
    digest: &Digest,
    count: u32,
) -> (Vec<String>, Option<LookasideError>) {
    let path = reference.repository().path();
    let urls = (1..=count).filter_map(NonZeroU32::new).map(|index| base.redacted_url(path, digest, index)).collect();
    (urls, base.locate(operation, path, digest, NonZeroU32::MIN).err())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn all_who_may_speak_are_named() {
        let mut configuration = Configuration::default();
        let text = "default-docker: {lookaside: 'https://d/'}\n\
            docker:\n  a.example/ns: {sigstore-staging: 'file:///s', lookaside: 'https://l', use-sigstore-attachments: true}\n  \
            a.example/ns/r: {}\n";
        configuration.add(Path::new("/d/x.yaml"), text.as_bytes()).unwrap();
        let reference = Reference::parse("a.example/ns/r:t").unwrap();
        let resolution = Resolution::of(&configuration, &reference, &Environment::default());
        let names: Vec<&str> = resolution.asked.iter().map(|asked| asked.namespace.as_str()).collect();
        assert_eq!(
            names,
            ["a.example/ns/r:t", "a.example/ns/r", "a.example/ns", "a.example", "*.example", "default-docker"]
        );
        let keys: Vec<_> =
            resolution.asked.iter().map(|asked| (asked.file.is_some(), asked.read, asked.write)).collect();
        assert_eq!(keys[0], (false, None, None));
        assert_eq!(keys[1], (true, None, None), "there, but says nothing");
        assert_eq!(keys[2], (true, Some(Key::Lookaside), Some(Key::SigstoreStaging)));
        assert_eq!(keys[5], (true, Some(Key::Lookaside), Some(Key::Lookaside)));
        assert!(resolution.attachments.enabled);
        assert_eq!(resolution.read.unwrap().base.to_string(), "https://l");
        assert_eq!(resolution.write.unwrap().base.to_string(), "file:///s");
    }

    #[test]
    fn addresses_and_the_sentence_against_them() {
        let reference = Reference::parse("a.example/ns/r:t").unwrap();
        let digest = Digest::sha256(b"");
        let urls = |text: &str, operation| {
            let base = LookasideBase::parse(text).unwrap();
            let (urls, error) = signature_urls(&base, operation, &reference, &digest, 2);
            (urls.join(" ").replace(digest.hex(), "H"), error.map(|e| e.to_string().replace(digest.hex(), "H")))
        };
        assert_eq!(
            urls("https://u:p@h/x/?t=1", Operation::Read),
            (
                "https://u:xxxxx@h/x//ns/r@sha256=H/signature-1?t=1 https://u:xxxxx@h/x//ns/r@sha256=H/signature-2?t=1"
                    .to_owned(),
                None
            )
        );
        assert_eq!(urls("file:///s", Operation::Write).1, None);
        assert_eq!(
            urls("https://h", Operation::Write).1.unwrap(),
            "Writing directly to a https lookaside https://h/ns/r@sha256=H/signature-1 is not supported. Configure a lookaside-staging: location"
        );
        assert_eq!(
            urls("/s", Operation::Read).1.unwrap(),
            "Unsupported scheme when reading signature from /s/ns/r@sha256=H/signature-1"
        );
    }
}
