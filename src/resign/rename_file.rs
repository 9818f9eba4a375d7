//! A file of rename rules: general ones, and exceptions for the namespaces that moved elsewhere
//! (spec notary-dct 6: IBM's regions are no certain guide).
//!
//! ```yaml
//! rules:
//!   - ibm                                         # the built-in table
//!   - old.example/team=new.example
//! exceptions:
//!   registry.ng.bluemix.net/birds: de.icr.io/birds
//!   registry.ng.bluemix.net/private-team: null    # stays: never signed anew
//! ```

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use super::rename::Origin;
use crate::host::{NESTING_LIMIT, too_deep};

/// The largest file that is read.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// Why a file of rename rules cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RenameFileError {
    /// The system did not give it.
    #[error("rename file {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("rename file {path} is larger than {FILE_LIMIT} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// It is not of the form.
    #[error("rename file {path}: {reason}")]
    Form {
        /// Which, and the line where the parser was.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// A file of rename rules, its form checked; [`super::RenameMap::new`] checks the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenameFile {
    path: String,
    rules: Vec<(String, Option<usize>)>,
    exceptions: Vec<(String, Option<String>, Option<usize>)>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    rules: Vec<String>,
    #[serde(deserialize_with = "exceptions")]
    exceptions: Vec<(String, Option<String>)>,
}

impl RenameFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RenameFileError`].
    pub fn load(path: &Path) -> Result<Self, RenameFileError> {
        let io = |source| RenameFileError::Io { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(io)?;
        file.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > FILE_LIMIT {
            return Err(RenameFileError::TooLarge(path.to_owned()));
        }
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`RenameFileError::Form`], also for unknown and doubled members.
    pub fn parse(path: &str, text: &str) -> Result<Self, RenameFileError> {
        if let Some(line) = too_deep(text.as_bytes()) {
            let reason =
                format!("brackets lie deeper in each other than the {NESTING_LIMIT} that are read, or deep too often");
            return Err(RenameFileError::Form { path: format!("{path}:{line}"), reason });
        }
        // An empty document has no rules; a list or a word at the top is a mistake.
        let document: Option<Document> = serde_yaml::from_str(text).map_err(|e| {
            let line = e.location().map(|at| format!(":{}", at.line())).unwrap_or_default();
            RenameFileError::Form { path: format!("{path}{line}"), reason: e.to_string() }
        })?;
        let Document { rules, exceptions } = document.unwrap_or_default();
        let mut lines = Lines::after(text, "rules");
        let rules = rules.into_iter().map(|rule| (lines.of(&rule), rule)).map(|(line, rule)| (rule, line)).collect();
        let mut lines = Lines::after(text, "exceptions");
        let exceptions = exceptions.into_iter().map(|(old, new)| (lines.of(&old), old, new));
        Ok(Self {
            path: path.to_owned(),
            rules,
            exceptions: exceptions.map(|(line, old, new)| (old, new, line)).collect(),
        })
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = (&str, Origin)> {
        self.rules.iter().map(|(rule, line)| (rule.as_str(), Origin::file(&self.path, *line)))
    }

    pub(super) fn exceptions(&self) -> impl Iterator<Item = (&str, Option<&str>, Origin)> {
        self.exceptions.iter().map(|(old, new, line)| (old.as_str(), new.as_deref(), Origin::file(&self.path, *line)))
    }
}

/// Reads the exceptions in their order; one that is written twice would leave open which counts.
fn exceptions<'de, D>(deserializer: D) -> Result<Vec<(String, Option<String>)>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    struct Exceptions;

    impl<'de> Visitor<'de> for Exceptions {
        type Value = Vec<(String, Option<String>)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map from old names to new ones (or null, for names that stay)")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut seen = std::collections::HashSet::new();
            let mut all = Vec::new();
            while let Some(old) = map.next_key::<String>()? {
                if !seen.insert(old.clone()) {
                    return Err(M::Error::custom(format!("the exception {old} is there twice")));
                }
                all.push((old, map.next_value()?));
            }
            Ok(all)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }
    }
    deserializer.deserialize_any(Exceptions)
}

/// Finds the lines on which words stand, in their order: serde's model has no lines. Words in
/// unusual spellings (escapes) have none.
struct Lines<'a> {
    lines: Vec<&'a str>,
    next: usize,
}

impl<'a> Lines<'a> {
    fn after(text: &'a str, section: &str) -> Self {
        // Rules hold no `#`, so that all behind one is a comment.
        let lines: Vec<&str> = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
        let next = lines.iter().position(|line| has_word(line, section)).unwrap_or_default();
        Self { lines, next }
    }

    fn of(&mut self, word: &str) -> Option<usize> {
        let found = self.lines.iter().skip(self.next).position(|line| has_word(line, word))?;
        self.next += found;
        Some(self.next + 1)
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "._/-=".contains(c);
    !word.is_empty()
        && line.match_indices(word).any(|(at, _)| {
            let before = line.get(..at).and_then(|before| before.chars().next_back());
            let mut after = line.get(at + word.len()..).unwrap_or_default().chars();
            let goes_on = match after.next() {
                // A port goes on, the mark of a key does not.
                Some(':') => after.next().is_some_and(inside),
                after => after.is_some_and(inside),
            };
            !goes_on && !before.is_some_and(|c| inside(c) || c == ':')
        })
}

#[cfg(test)]
mod tests {
    use super::super::rename::{RenameMap, Renaming};
    use super::*;
    use crate::image::Reference;

    const MOVED: &str = "\
# IBM, with what moved
rules:
  - ibm
  - old.example=new.example   # ours
exceptions:
  registry.ng.bluemix.net/birds: de.icr.io/birds
  \"registry.ng.bluemix.net/private-team\": null
  registry.au-syd.bluemix.net: jp.icr.io
";

    fn map(text: &str) -> Result<RenameMap, String> {
        let file = RenameFile::parse("rules.yaml", text).map_err(|e| e.to_string())?;
        RenameMap::new::<&str>(&[], &[file]).map_err(|e| e.to_string())
    }

    fn renamed(map: &RenameMap, name: &str) -> String {
        match map.rename(&Reference::parse(name).unwrap()) {
            Renaming::To(renamed) => format!("{} by {}", renamed.reference, renamed.rule.origin()),
            Renaming::Stays(rule) => format!("stays by {}", rule.origin()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn namespaces_go_elsewhere() {
        let map = map(MOVED).unwrap();
        for (old, new) in [
            ("registry.ng.bluemix.net/fish/carp:1", "us.icr.io/fish/carp:1 by built-in ibm, rules.yaml:3"),
            ("registry.ng.bluemix.net/birds/x:1", "de.icr.io/birds/x:1 by rules.yaml:6"),
            ("private.registry.ng.bluemix.net/birds/x:1", "private.de.icr.io/birds/x:1 by rules.yaml:6, private twin"),
            ("registry.ng.bluemix.net/birdsong/x:1", "us.icr.io/birdsong/x:1 by built-in ibm, rules.yaml:3"),
            ("registry.ng.bluemix.net/private-team/x:1", "stays by rules.yaml:7"),
            ("private.registry.ng.bluemix.net/private-team/x:1", "stays by rules.yaml:7, private twin"),
            ("registry.au-syd.bluemix.net/x:1", "jp.icr.io/x:1 by rules.yaml:8"),
            ("old.example/x:1", "new.example/x:1 by rules.yaml:4"),
            ("elsewhere.example/x:1", "Unmatched"),
        ] {
            assert_eq!(renamed(&map, old), new, "{old}");
        }
        assert_eq!(map, {
            let words: Vec<String> = map.rules().iter().map(ToString::to_string).collect();
            let back = RenameMap::parse_recorded(&words.join(" ")).unwrap();
            assert_eq!(back.rules().iter().map(ToString::to_string).collect::<Vec<_>>(), words);
            map.clone()
        });
    }

    #[test]
    fn the_private_name_may_have_its_own_exception() {
        let text = "rules: [ibm]\nexceptions:\n  registry.ng.bluemix.net/a: de.icr.io/a\n  \
                    private.registry.ng.bluemix.net/a: us.icr.io/a\n";
        let map = map(text).unwrap();
        assert_eq!(renamed(&map, "private.registry.ng.bluemix.net/a/x:1"), "us.icr.io/a/x:1 by rules.yaml:4");
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let told = |text: &str| map(text).unwrap_err();
        insta::assert_snapshot!(told("rules:\n - a.b=c.d\nexceptions:\n a.b: e.f\n"), @"two rename rules for a.b: to c.d (rules.yaml:2) and to e.f (rules.yaml:4); keep one");
        insta::assert_snapshot!(told("exceptions:\n a.b: null\nrules:\n - a.b=c.d\n"), @"two rename rules for a.b: to c.d (rules.yaml:4) and it stays (rules.yaml:2); keep one");
        insta::assert_snapshot!(told("rules:\n - ibm\n - azure\n"), @r#"rules.yaml:3: rename rule "azure" is neither OLD=NEW nor the name of a built-in table (ibm)"#);
        insta::assert_snapshot!(told("exceptions:\n a.b/X: c.d\n"), @r#"rules.yaml:2: rename rule "a.b/X=c.d": "a.b/X" is not a registry (host[:port]) or host[:port]/path in lower case"#);
        insta::assert_snapshot!(told("exceptions:\n a.b: a.b\n"), @r#"rules.yaml:2: rename rule "a.b=a.b" maps a name to itself"#);
        insta::assert_snapshot!(told("rules:\n - a.b=c.d\n - c.d/x=e.f\n - e.f=a.b\n"), @"rename rule c.d/x=e.f (rules.yaml:3) makes names that rule e.f=a.b (rules.yaml:4) renames again; name the last name in one rule, or run two jobs");
        for (text, said) in [
            ("rule: [ibm]\n", "rules.yaml:1: unknown field `rule`"),
            ("rules: [ibm]\nexceptions:\n  a.b/x: c.d/x\n  a.b/x: c.d/y\n", "a.b/x is there twice"),
            ("rules: [ibm]\nrules: [ibm]\n", "duplicate"),
            ("exceptions: [a.b]\n", "a map from old names"),
            ("rules: {a.b: c.d}\n", "rules.yaml:1: rules: invalid type"),
            ("- a.b=c.d\n", "rules.yaml"),
            ("rules: [\n", "rules.yaml:2"),
            ("", "no rename rule"),
            ("exceptions: {a.b: }\n", "no rename rule"),
        ] {
            assert!(told(text).contains(said), "{text:?}: {}", told(text));
        }
    }

    #[test]
    fn words_end_where_names_end() {
        assert!(has_word("  a.b/birds: x", "a.b/birds") && has_word("{a.b:80/c: d}", "a.b:80/c"));
        assert!(
            !has_word("  a.b/birdsong: x", "a.b/birds")
                && !has_word("x.a.b: y", "a.b")
                && !has_word("a.b:80: c", "a.b")
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(rules|exceptions|[a-c]|[:\\- \\n\\[\\]{}.=/#\"&*])*") {
            let _ = map(&text);
        }
    }
}
