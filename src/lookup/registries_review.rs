//! What valid registries.d files do that their author hardly wanted: keys that nobody reads,
//! namespaces that never match, URLs that fail when they are used.

use std::path::Path;

use super::policy_review::never_matches;
use crate::go;
use crate::registries_d::{Configuration, DEFAULT_DOCKER, Key, LookasideBase, Mode, Placed};

/// Looks over what one file contributed to a configuration, a sentence each. `bytes` is the file,
/// for the keys that the configuration does not know.
pub fn review_registries(configuration: &Configuration, path: &Path, bytes: &[u8]) -> Vec<String> {
    let mut warnings = unknown_keys(bytes);
    let own = |placed: &&Placed| placed.path == path;
    if let Some(placed) = configuration.default_docker.as_ref().filter(own) {
        review_section(DEFAULT_DOCKER, placed, &mut warnings);
    }
    for (namespace, placed) in configuration.of_file(path) {
        let place = format!("docker namespace {}", go::quote(namespace));
        let never = if namespace.is_empty() { Some("images have names".to_owned()) } else { never_matches(namespace) };
        warnings.extend(never.map(|why| format!("{place}: never matches: {why}")));
        review_section(&place, placed, &mut warnings);
    }
    warnings
}

fn review_section(place: &str, placed: &Placed, warnings: &mut Vec<String>) {
    let section = &placed.section;
    let mut warn = |sentence: String| warnings.push(format!("{place}: {sentence}"));
    for key in Key::ALL {
        let text = section.url(key);
        if text.is_empty() {
            continue;
        }
        match LookasideBase::parse(text) {
            Err(error) => warn(format!("{}: {error}", key.name())),
            Ok(base) if !base.is_http() && !base.is_file() => {
                warn(format!("{}: {} is neither http(s):// nor file://, and fails when it is used", key.name(), base));
            }
            Ok(base) if base.is_http() && matches!(key, Key::LookasideStaging | Key::SigstoreStaging) => {
                warn(format!("{}: nobody can write to {base}; staging needs file://", key.name()));
            }
            Ok(_) => {}
        }
        if matches!(key, Key::Sigstore | Key::SigstoreStaging) {
            let modern = if key == Key::Sigstore { Key::Lookaside } else { Key::LookasideStaging };
            warn(format!("{} is the old name of {}", key.name(), modern.name()));
        }
    }
    if !section.lookaside.is_empty() && !section.sigstore.is_empty() {
        warn("sigstore is never read beside lookaside".to_owned());
    }
    if section.lookaside_staging.is_empty() && !section.sigstore_staging.is_empty() && !section.lookaside.is_empty() {
        warn("the old sigstore-staging goes before lookaside for writing".to_owned());
    }
    let empty = Mode::Write.keys().iter().all(|key| section.url(*key).is_empty());
    if empty && section.use_sigstore_attachments.is_none() {
        warn("says nothing; an empty lookaside does not switch lookasides off, the search goes on".to_owned());
    }
}

/// Clients pass over keys that they do not know, and with them every misspelled one.
fn unknown_keys(bytes: &[u8]) -> Vec<String> {
    use serde::Deserialize as _;
    use serde_yaml::Value;
    let mut warnings = Vec::new();
    let Some(document) = serde_yaml::Deserializer::from_slice(bytes).next() else { return warnings };
    // What cannot be read here was read (or refused) by the strict reader.
    let Ok(Value::Mapping(top)) = Value::deserialize(document) else { return warnings };
    let known = |name: &str| name == "use-sigstore-attachments" || Key::ALL.iter().any(|key| key.name() == name);
    let mut section = |place: &str, value: &Value| {
        for key in value.as_mapping().into_iter().flat_map(|section| section.keys()).filter_map(Value::as_str) {
            if !known(key) && key != "<<" {
                warnings.push(format!("{place}: nobody reads the key {}", go::quote(key)));
            }
        }
    };
    let mut unread = Vec::new();
    for (key, value) in &top {
        match key.as_str() {
            Some(DEFAULT_DOCKER) => section(DEFAULT_DOCKER, value),
            Some("docker") => {
                for (namespace, value) in value.as_mapping().into_iter().flatten() {
                    let namespace = namespace.as_str().unwrap_or_default();
                    section(&format!("docker namespace {}", go::quote(namespace)), value);
                }
            }
            // Anchors are often kept under keys of their own.
            Some(other) if other.starts_with("x-") || other == "<<" => {}
            Some(other) => unread.push(format!("nobody reads the key {}", go::quote(other))),
            None => {}
        }
    }
    unread.append(&mut warnings);
    unread
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(text: &str) -> String {
        let mut configuration = Configuration::default();
        let path = Path::new("/d/x.yaml");
        configuration.add(path, text.as_bytes()).unwrap();
        review_registries(&configuration, path, text.as_bytes()).join("\n")
    }

    #[test]
    fn what_deserves_a_second_look() {
        let text = "
dokcer: {}
x-base: &base {lookaside: 'https://h'}
default-docker: {lookasid: 'https://h', sigstore: 'file:///s'}
docker:
  busybox: {<<: *base}
  a.example: {lookaside: '/bare', lookaside-staging: 'https://h'}
  b.example: {lookaside: ':emptyscheme'}
  c.example: {lookaside: ''}
  d.example: {lookaside: 'https://h', sigstore: 'https://i', sigstore-staging: 'file:///s'}
";
        insta::assert_snapshot!(review(text), @r#"
        nobody reads the key "dokcer"
        default-docker: nobody reads the key "lookasid"
        default-docker: sigstore is the old name of lookaside
        docker namespace "a.example": lookaside: /bare is neither http(s):// nor file://, and fails when it is used
        docker namespace "a.example": lookaside-staging: nobody can write to https://h; staging needs file://
        docker namespace "b.example": lookaside: Invalid signature storage URL :emptyscheme: parse ":emptyscheme": missing protocol scheme
        docker namespace "busybox": never matches: short names are expanded before the search; write "docker.io/library/busybox"
        docker namespace "c.example": says nothing; an empty lookaside does not switch lookasides off, the search goes on
        docker namespace "d.example": sigstore is the old name of lookaside
        docker namespace "d.example": sigstore-staging is the old name of lookaside-staging
        docker namespace "d.example": sigstore is never read beside lookaside
        docker namespace "d.example": the old sigstore-staging goes before lookaside for writing
        "#);
    }

    #[test]
    fn ten_thousand_files_are_looked_over_in_time() {
        let begun = std::time::Instant::now();
        let mut configuration = Configuration::default();
        let files: Vec<_> = (0..10_000)
            .map(|n| (format!("/d/{n}.yaml"), format!("docker: {{h{n}.example: {{sigstore: 'https://h'}}}}")))
            .collect();
        for (path, text) in &files {
            configuration.add(Path::new(path), text.as_bytes()).unwrap();
        }
        for (path, text) in &files {
            assert_eq!(review_registries(&configuration, Path::new(path), text.as_bytes()).len(), 1);
        }
        let doubled: String =
            (0..20_000).map(|n| format!("  h{}.example: {{lookaside: 'https://h'}}\n", n / 2)).collect();
        for wrong in [format!("docker:\n{doubled}"), format!("x: {}{}", "{a: ".repeat(1 << 18), "}".repeat(1 << 18))] {
            configuration.add(Path::new("/d/wrong.yaml"), wrong.as_bytes()).unwrap_err();
        }
        // With each file against all namespaces, and each key against all, it was minutes.
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    }

    #[test]
    fn nothing_to_say() {
        assert_eq!(review(""), "");
        assert_eq!(
            review("default-docker:\ndocker: {a.example: {lookaside: 'https://h', lookaside-staging: 'file:///s'}}"),
            ""
        );
        assert_eq!(review("docker: {a.example: {use-sigstore-attachments: true}}"), "");
    }
}
