//! The lines to paste. Comments in them say where they belong; words in capitals are for the reader
//! to fill in.

use super::observation::{KeyFileSeen, KeyFileState, Observations, Paths};
use crate::escape;
use crate::image::Digest;
use crate::policy::KeySource;

/// Lookasides that publishers run.
const KNOWN: [(&str, &str); 2] = [
    ("registry.access.redhat.com", "https://access.redhat.com/webassets/docker/content/sigstore"),
    ("registry.redhat.io", "https://registry.redhat.io/containers/sigstore"),
];

/// Returns the lookaside that a publisher runs for a registry.
pub(super) fn known_lookaside(registry: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(host, _)| *host == registry).map(|(_, base)| *base)
}

/// Gives a namespace of registries.d its lookaside: a line in the file that defines it, else a new file. A second
/// definition of a namespace fails every pull of the host.
pub(super) fn registries_d(seen: &Observations, namespace: &str, lookaside: &str, staging: Option<&str>) -> String {
    let mut lines = vec![("lookaside", scalar(lookaside))];
    lines.extend(staging.map(|url| ("lookaside-staging", scalar(url))));
    namespace_lines(seen, namespace, &lines)
}

/// The same for other settings of a namespace. The values are YAML.
pub(super) fn namespace_lines(seen: &Observations, namespace: &str, settings: &[(&str, String)]) -> String {
    if let Some(defined) = seen.namespaces.get(namespace) {
        let mut lines = vec![format!(
            "# {}: change the section {} that is there (a second one in another file would fail every pull)",
            escape::path(&defined.path),
            scalar(namespace)
        )];
        for (key, value) in settings {
            let old = match *key {
                "lookaside" if !defined.lookaside.is_empty() => Some(scalar(&defined.lookaside)),
                "use-sigstore-attachments" => defined.attachments.map(|value| value.to_string()),
                _ => None,
            };
            lines.extend(old.map(|old| format!("-    {key}: {old}")));
            lines.push(format!("+    {key}: {value}"));
        }
        return lines.join("\n");
    }
    let stem = namespace.replace(['/', ':', '*'], "-");
    let taken = |file: &std::path::PathBuf| seen.namespaces.values().any(|known| known.path == *file);
    let names =
        (1..1000).map(|number| if number == 1 { format!("{stem}.yaml") } else { format!("{stem}-{number}.yaml") });
    let file = names.map(|name| seen.paths.registries_d.join(name)).find(|file| !taken(file));
    let file = file.unwrap_or_else(|| seen.paths.registries_d.join("NEW.yaml"));
    let mut lines =
        vec![format!("# {}", escape::path(&file)), "docker:".to_owned(), format!("  {}:", scalar(namespace))];
    lines.extend(settings.iter().map(|(key, value)| format!("    {key}: {value}")));
    lines.join("\n")
}

/// A name or a URL as YAML takes it for a key or a value: bare where nothing in it means something to
/// YAML, else in JSON's quotation marks, which YAML reads too.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@~%=".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    // A colon means something before a space or at the end only.
    let colons = text.split(':').all(|part| part.chars().all(plain)) && !text.ends_with(':');
    if begins && colons { text.to_owned() } else { json(text) }
}

/// An `[[registry]]` table.
pub(super) fn registry_table(paths: &Paths, lines: &[String]) -> String {
    format!("# {}\n[[registry]]\n{}", escape::path(&paths.registries_conf), lines.join("\n"))
}

/// A member of policy.json: `signedBy` for a scope, with a `signedIdentity` if one is given.
pub(super) fn signed_by(paths: &Paths, scope: &str, keys: Option<&KeySource>, identity: Option<&str>) -> String {
    let keys = match keys {
        Some(KeySource::Path(path)) => format!("\"keyPath\": {}", json(&path.to_string_lossy())),
        Some(KeySource::Paths(list)) => {
            format!(
                "\"keyPaths\": [{}]",
                list.iter().map(|path| json(&path.to_string_lossy())).collect::<Vec<_>>().join(", ")
            )
        }
        Some(KeySource::Data(_)) => "\"keyData\": \"AS BEFORE\"".to_owned(),
        None => "\"keyPath\": \"/PATH/OF/THE/SIGNERS/KEY.asc\"".to_owned(),
    };
    let identity = identity.map(|identity| format!(",\n   \"signedIdentity\": {identity}")).unwrap_or_default();
    format!(
        "# {}, below \"transports\", \"docker\"\n{}: [\n  {{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", {keys}{identity}}}\n]",
        escape::path(&paths.policy),
        json(scope)
    )
}

/// The `signedIdentity` that reads an image's name as another.
pub(super) fn remap(prefix: &str, signed_prefix: &str) -> String {
    format!("{{\"type\": \"remapIdentity\", \"prefix\": {}, \"signedPrefix\": {}}}", json(prefix), json(signed_prefix))
}

/// A text as JSON takes it.
pub(super) fn json(text: &str) -> String {
    escape::json::to_string(text).unwrap_or_default()
}

/// A signature for one manifest.
pub(super) fn sign(reference: &str, digest: &Digest, store: &str) -> String {
    format!("countersign sign {reference} --key SIGNER.asc --digest {digest} --to {}", escape::shell(store))
}

/// Names the files of a key source.
pub(super) fn key_files(keys: &KeySource) -> String {
    match keys {
        KeySource::Path(path) => path.display().to_string(),
        KeySource::Paths(paths) => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        KeySource::Data(_) => "the policy's keyData".to_owned(),
    }
}

/// Puts a key into a file that lacks it, or makes the file: written beside, looked at, moved. Appending would make a
/// binary file unreadable, and writing over it would lose its other keys.
pub(super) fn add_key(file: &KeyFileSeen, key: &str) -> String {
    let path = file.path.to_string_lossy();
    let (there, new) = (escape::shell(&path), escape::shell(&format!("{path}.new")));
    let show = format!("gpg --show-keys {new}   # are these all keys that clients must trust?");
    match &file.state {
        KeyFileState::Missing => format!("gpg --export {key} > {new}\n{show}\nchmod a+r {new} && mv -n {new} {there}"),
        KeyFileState::Unreadable(_) => format!("ls -l {there}\nchmod a+r {there}"),
        KeyFileState::Keys(keys) if keys.is_empty() => {
            format!("gpg --export {key} > {new}\n{show}\nchmod a+r {new} && mv {new} {there}")
        }
        KeyFileState::Keys(_) => format!(
            "home=$(mktemp -d) && gpg --export {key} > \"$home/key\"\n\
             gpg --homedir \"$home\" --import {there} \"$home/key\" && gpg --homedir \"$home\" --export > {new}\n{show}\n\
             chmod a+r {new} && mv {new} {there}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::doctor::observation::NamespaceSeen;

    /// All fixes about a name, a place and files that hold `odd`.
    fn fixes(odd: &str) -> Vec<String> {
        let file = |name: &str| PathBuf::from(format!("/etc/{odd}/{name}"));
        let mut seen = crate::doctor::diagnose::testing::Case::new("q.io/a:1").seen;
        seen.paths = Paths {
            policy: file("policy.json"),
            registries_d: file("d"),
            registries_conf: file("r.conf"),
            home: file("home"),
        };
        let keys = KeySource::Paths(vec![PathBuf::from(format!("/k{odd}")), PathBuf::from("/l")]);
        let (scope, url) = (format!("q.io/a{odd}"), format!("https://q.io/a{odd}"));
        let key_file = KeyFileSeen { path: format!("/k{odd}").into(), state: KeyFileState::Missing };
        vec![
            registries_d(&seen, &scope, &url, Some(&url)),
            registry_table(&seen.paths, &["insecure = true".to_owned()]),
            signed_by(&seen.paths, &scope, Some(&keys), Some(&remap(&scope, &scope))),
            sign("q.io/a:1", &Digest::sha256(b"x"), &url),
            add_key(&key_file, "SIGNER"),
        ]
    }

    #[test]
    fn changes_the_section_that_is_there_instead_of_a_second_one() {
        let mut seen = crate::doctor::diagnose::testing::Case::new("q.io/a:1").seen;
        let there = NamespaceSeen { path: "/d/a.yaml".into(), lookaside: "/look".into(), attachments: None };
        seen.namespaces.insert("q.io".into(), there);
        insta::assert_snapshot!(registries_d(&seen, "q.io", "https://h/b", None), @r"
        # /d/a.yaml: change the section q.io that is there (a second one in another file would fail every pull)
        -    lookaside: /look
        +    lookaside: https://h/b
        ");
        seen.paths.registries_d = "/d".into();
        let taken = NamespaceSeen { path: "/d/r.io.yaml".into(), ..NamespaceSeen::default() };
        seen.namespaces.insert("other.io".into(), taken);
        assert!(registries_d(&seen, "r.io", "https://h/b", None).starts_with("# /d/r.io-2.yaml\n"));
    }

    #[test]
    fn a_value_is_one_value_in_what_it_is_pasted_into() {
        let plain = fixes("");
        for odd in ["\nx: y\n[[registry]]", "\u{85}\u{202e}", "'\"\\ # $(x) `y`; z: ", "{a: *b}, [c]", ": "] {
            let fixes = fixes(odd);
            for (fix, plain) in fixes.iter().zip(&plain) {
                assert_eq!(fix.lines().count(), plain.lines().count(), "{fix}");
                assert!(!fix.contains(|c| c != '\n' && escape::is_hidden(c)), "{fix:?}");
            }
            let yaml: serde_json::Value = serde_yaml::from_str(&fixes[0]).unwrap();
            let url = format!("https://q.io/a{odd}");
            assert_eq!(yaml["docker"][format!("q.io/a{odd}")]["lookaside"], url, "{}", fixes[0]);
            assert_eq!(yaml["docker"][format!("q.io/a{odd}")]["lookaside-staging"], url);
            let (_, member) = fixes[2].split_once('\n').unwrap();
            let json: serde_json::Value = serde_json::from_str(&format!("{{{member}}}")).unwrap();
            assert_eq!(json[format!("q.io/a{odd}")][0]["keyPaths"][0], format!("/k{odd}"));
            let words = format!("set -- {}; printf '%s %s' \"$#\" \"$9\"", fixes[3]);
            let said = std::process::Command::new("bash").args(["-c", &words]).output().unwrap().stdout;
            assert_eq!(String::from_utf8(said).unwrap(), format!("9 {url}"), "{words}");
        }
    }
}
