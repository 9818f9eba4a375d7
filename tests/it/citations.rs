//! Comments cite the specifications in `docs/spec` as `spec containers-image 4.3`; each citation must name a
//! section that exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the sections of each document: `4`, `4.3`, `(a)`.
fn sections() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("docs/spec")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let sections = text.lines().filter(|line| line.starts_with('#')).filter_map(|line| {
            let title = line.trim_start_matches('#').trim_start();
            let number = title.split_whitespace().next()?;
            let is_number = number.starts_with('(') || number.starts_with(|c: char| c.is_ascii_digit());
            is_number.then(|| number.trim_end_matches('.').to_owned())
        });
        found.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), sections.collect());
    }
    found
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the comments of a file as running text: a citation may be broken over two lines.
fn comments(text: &str) -> String {
    let lines = text.lines().filter_map(|line| {
        let (_, comment) = line.split_once("//")?;
        Some(comment.trim_start_matches(['/', '!']).trim())
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// Returns the citations in a text: the document and the sections named after it.
fn citations(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("spec ") {
        if at > 0 && text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '/') {
            continue;
        }
        let mut words = text[at + "spec ".len()..].split(' ').filter(|word| !word.is_empty());
        let document = words.next().unwrap_or_default();
        if !document.contains(|c: char| c.is_ascii_lowercase())
            || document.contains(|c: char| !c.is_ascii_lowercase() && c != '-')
        {
            continue;
        }
        let mut cited = Vec::new();
        for word in words {
            let number = if word.starts_with('(') {
                word.split_inclusive(')').next().unwrap_or_default()
            } else {
                word.trim_end_matches(|c: char| !c.is_ascii_digit())
            };
            let is_number = number.starts_with('(') && number.len() == 3
                || number.starts_with(|c: char| c.is_ascii_digit())
                    && number.chars().all(|c| c.is_ascii_digit() || c == '.');
            if !is_number {
                break;
            }
            cited.push(number.to_owned());
            if !word.ends_with(',') {
                break;
            }
        }
        found.push((document.to_owned(), cited));
    }
    found
}

#[test]
fn every_citation_names_a_section_that_exists() {
    let sections = sections();
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        rust_files(&root().join(folder), &mut files);
    }
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files.iter().filter(|file| !file.ends_with("citations.rs")) {
        for (document, cited) in citations(&comments(&std::fs::read_to_string(file).unwrap())) {
            count += 1;
            let at = file.strip_prefix(root()).unwrap().display();
            match sections.get(&document) {
                None => wrong.push(format!("{at}: docs/spec has no {document}")),
                Some(_) if cited.is_empty() => wrong.push(format!("{at}: which section of {document}?")),
                Some(known) => {
                    let missing = cited.iter().filter(|section| !known.contains(*section));
                    wrong.extend(missing.map(|section| format!("{at}: {document} has no section {section}")));
                }
            }
        }
    }
    assert!(count > 80, "only {count} citations were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn citations_are_found_in_all_their_forms() {
    let text = "read (spec containers-image 4.3, 5.2), as spec peers (b): x says. The spec says. docs/spec x 1";
    let wanted = [("containers-image", &["4.3", "5.2"][..]), ("peers", &["(b)"]), ("says.", &[])];
    let found = citations(text);
    assert_eq!(found.len(), 2, "{found:?}");
    for ((document, cited), (wanted, sections)) in found.iter().zip(wanted) {
        assert_eq!(
            (document.as_str(), cited.iter().map(String::as_str).collect::<Vec<_>>()),
            (wanted, sections.to_vec())
        );
    }
}
