//! One registries.d file: its schema, decoded as yaml.v3 decodes it into containers/image's
//! structures (spec containers-image 1.3, rust-stack 4).
//!
//! Not strict: unknown keys are ignored, any scalar will do for a text, null is absent. But
//! duplicate keys, lists and mappings in the wrong place, and a `use-sigstore-attachments` that is
//! no word for a boolean refuse the file, each with its line.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::yaml::{self, Kind, Node, Step, YamlError};
use crate::go;

/// No file is told more than so many errors at once, a large one less: each line number costs a
/// reading of the file.
const ERROR_LIMIT: usize = 100;
/// How many bytes are read again for line numbers, about.
const READ_AGAIN: usize = 4 * 1024 * 1024;
/// How many plain scalars with a `?` are looked at closer; more stand in no file of a sane mind.
const DOUBT_LIMIT: usize = 256;
/// How deep mappings may merge into each other.
const MERGE_DEPTH: usize = 64;

/// A key of a section that holds a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `lookaside`: for reading, and for writing when nothing stages.
    Lookaside,
    /// `lookaside-staging`: for writing only.
    LookasideStaging,
    /// `sigstore`: the old name of `lookaside`.
    Sigstore,
    /// `sigstore-staging`: the old name of `lookaside-staging`.
    SigstoreStaging,
}

impl Key {
    /// Every key.
    pub const ALL: [Self; 4] = [Self::Lookaside, Self::LookasideStaging, Self::Sigstore, Self::SigstoreStaging];

    /// Returns the name as files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookaside => "lookaside",
            Self::LookasideStaging => "lookaside-staging",
            Self::Sigstore => "sigstore",
            Self::SigstoreStaging => "sigstore-staging",
        }
    }
}

const ATTACHMENTS: &str = "use-sigstore-attachments";

/// Tells whether a section's key has a meaning.
pub(super) fn is_section_key(name: &str) -> bool {
    name == ATTACHMENTS || Key::ALL.iter().any(|key| key.name() == name)
}

/// What is said of one namespace. An empty text is the same as an absent one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// `lookaside`.
    pub lookaside: String,
    /// `lookaside-staging`.
    pub lookaside_staging: String,
    /// `sigstore`, deprecated.
    pub sigstore: String,
    /// `sigstore-staging`, deprecated.
    pub sigstore_staging: String,
    /// `use-sigstore-attachments`; absent is not the same as false.
    pub use_sigstore_attachments: Option<bool>,
}

impl Section {
    /// Returns the text of one key.
    pub fn url(&self, key: Key) -> &str {
        match key {
            Key::Lookaside => &self.lookaside,
            Key::LookasideStaging => &self.lookaside_staging,
            Key::Sigstore => &self.sigstore,
            Key::SigstoreStaging => &self.sigstore_staging,
        }
    }

    fn url_mut(&mut self, key: Key) -> &mut String {
        match key {
            Key::Lookaside => &mut self.lookaside,
            Key::LookasideStaging => &mut self.lookaside_staging,
            Key::Sigstore => &mut self.sigstore,
            Key::SigstoreStaging => &mut self.sigstore_staging,
        }
    }
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// `default-docker`; null counts as absent.
    pub default_docker: Option<Section>,
    /// `docker`: namespace to section, the names as they are written.
    pub docker: BTreeMap<String, Section>,
}

impl Document {
    /// Decodes the first YAML document of a file.
    ///
    /// # Errors
    /// [`YamlError`], which prints as `yaml: …` as yaml.v3's errors do.
    pub fn parse(bytes: &[u8]) -> Result<Self, YamlError> {
        let root = yaml::parse(bytes)?;
        let error_limit = READ_AGAIN.checked_div(bytes.len()).unwrap_or(ERROR_LIMIT).clamp(3, ERROR_LIMIT);
        let mut decoder =
            Decoder { source: bytes, path: Vec::new(), merge_depth: 0, doubts: 0, errors: Vec::new(), error_limit };
        if !bytes.contains(&b'{') {
            decoder.doubts = DOUBT_LIMIT;
        }
        let mut document = Self::default();
        decoder.fill(&root, &mut document, None)?;
        if decoder.errors.is_empty() { Ok(document) } else { Err(YamlError::Shape(decoder.errors)) }
    }
}

/// Something that a mapping is decoded into.
trait Target {
    /// Its Go type, which errors name.
    const TYPE: &'static str;

    /// Takes one entry that is neither a merge nor hidden by a key nearer by.
    fn take(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node) -> Result<(), YamlError>;
}

impl Target for Document {
    const TYPE: &'static str = "docker.registryConfiguration";

    fn take(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node) -> Result<(), YamlError> {
        match name {
            "default-docker" if value.kind != Kind::Null => {
                decoder.fill(value, self.default_docker.insert(Section::default()), None)?;
            }
            "docker" => {
                decoder.fill(value, &mut self.docker, None)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Target for BTreeMap<String, Section> {
    const TYPE: &'static str = "map[string]docker.registryNamespace";

    fn take(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node) -> Result<(), YamlError> {
        let mut section = Section::default();
        // A namespace with a null value is there, and says nothing.
        if decoder.fill(value, &mut section, None)? || value.kind == Kind::Null {
            self.insert(name.to_owned(), section);
        }
        Ok(())
    }
}

impl Target for Section {
    const TYPE: &'static str = "docker.registryNamespace";

    fn take(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node) -> Result<(), YamlError> {
        if let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) {
            if let Some(text) = decoder.text(value) {
                text.clone_into(self.url_mut(key));
            }
        } else if name == ATTACHMENTS
            && let Some(value) = decoder.boolean(value)
        {
            self.use_sigstore_attachments = Some(value);
        }
        Ok(())
    }
}

struct Decoder<'a> {
    source: &'a [u8],
    /// Where the node at hand stands.
    path: Vec<Step>,
    merge_depth: usize,
    /// How many plain scalars had a `?`, each of which costs a reading of the file.
    doubts: usize,
    errors: Vec<String>,
    error_limit: usize,
}

impl Decoder<'_> {
    fn under<R>(&mut self, step: Step, f: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(step);
        let result = f(self);
        self.path.pop();
        result
    }

    fn error(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.errors.len() < self.error_limit {
            let text = text(self);
            self.errors.push(text);
        }
    }

    fn wrong_kind(&mut self, node: &Node, wanted: &str) {
        let value = match &node.kind {
            Kind::Sequence(_) | Kind::Mapping(_) => String::new(),
            _ if node.text.len() > 10 => {
                let head = node.text.as_bytes().get(..7).unwrap_or_default();
                format!(" `{}...`", String::from_utf8_lossy(head))
            }
            _ => format!(" `{}`", node.text),
        };
        self.error(|decoder| {
            let line = yaml::line(decoder.source, &decoder.path);
            format!("line {line}: cannot unmarshal {}{value} into {wanted}", node.short_tag())
        });
    }

    /// Decodes a mapping into `target`; false when it is none. `hidden` are the names that keys
    /// nearer by have taken, when this mapping is being merged.
    fn fill<T: Target>(
        &mut self,
        node: &Node,
        target: &mut T,
        mut hidden: Option<&mut HashSet<String>>,
    ) -> Result<bool, YamlError> {
        let entries = match &node.kind {
            Kind::Mapping(entries) => entries,
            Kind::Null | Kind::Unread => return Ok(false),
            _ => {
                self.wrong_kind(node, T::TYPE);
                return Ok(false);
            }
        };
        for (at, (key, value)) in entries.iter().enumerate() {
            for (node, step) in [(key, Step::Key(at)), (value, Step::Value(at))] {
                if node.has_plain_question_mark() && self.doubts < DOUBT_LIMIT {
                    self.doubts += 1;
                    let mapping = self.path.clone();
                    self.under(step, |decoder| yaml::refuse_question_mark(decoder.source, &mapping, &decoder.path))?;
                }
            }
        }
        if !self.keys_are_unique(entries) {
            return Ok(false);
        }
        let mut merged = None;
        for (at, (key, value)) in entries.iter().enumerate() {
            if key.is_merge() {
                merged = Some((at, value));
                continue;
            }
            let Some(name) = self.under(Step::Key(at), |decoder| decoder.text(key)) else { continue };
            if hidden.as_mut().is_some_and(|hidden| !hidden.insert(name.to_owned())) {
                continue;
            }
            self.under(Step::Value(at), |decoder| target.take(decoder, name, value))?;
        }
        if let Some((at, value)) = merged {
            let mut own = HashSet::new();
            let hidden = match hidden {
                Some(hidden) => hidden,
                None => {
                    own.extend(entries.iter().filter(|(key, _)| key.kind != Kind::Null).map(|(k, _)| k.text.clone()));
                    &mut own
                }
            };
            self.under(Step::Value(at), |decoder| decoder.merge(value, target, hidden))?;
        }
        Ok(true)
    }

    /// Merges one mapping or a list of them: what comes first wins.
    fn merge<T: Target>(
        &mut self,
        value: &Node,
        target: &mut T,
        hidden: &mut HashSet<String>,
    ) -> Result<(), YamlError> {
        let want_map = || YamlError::Syntax("map merge requires map or sequence of maps as the value".to_owned());
        if self.merge_depth >= MERGE_DEPTH {
            return Err(YamlError::Syntax(format!("exceeded max depth of {MERGE_DEPTH} merges")));
        }
        self.merge_depth += 1;
        match &value.kind {
            Kind::Mapping(_) => {
                self.fill(value, target, Some(hidden))?;
            }
            Kind::Sequence(items) => {
                for (at, item) in items.iter().enumerate() {
                    if !matches!(item.kind, Kind::Mapping(_)) {
                        return Err(want_map());
                    }
                    self.under(Step::Item(at), |decoder| decoder.fill(item, target, Some(hidden)))?;
                }
            }
            _ => return Err(want_map()),
        }
        self.merge_depth -= 1;
        Ok(())
    }

    fn keys_are_unique(&mut self, entries: &[(Node, Node)]) -> bool {
        // Keys are compared by kind and written text; all lists are alike, and all mappings.
        fn compared(key: &Node) -> (u8, &str) {
            let kind = match key.kind {
                Kind::Sequence(_) => 1,
                Kind::Mapping(_) => 2,
                _ => 0,
            };
            (kind, &key.text)
        }
        let mut places: HashMap<(u8, &str), Vec<usize>> = HashMap::new();
        for (at, (key, _)) in entries.iter().enumerate() {
            places.entry(compared(key)).or_default().push(at);
        }
        places.retain(|_, group| group.len() > 1);
        let mut unique = true;
        for (at, (key, _)) in entries.iter().enumerate() {
            let same = places.get(&compared(key));
            let later = same.map(|group| group.get(group.partition_point(|other| *other <= at)..).unwrap_or_default());
            for again in later.unwrap_or_default() {
                unique = false;
                if self.errors.len() >= self.error_limit {
                    return false;
                }
                let first = self.under(Step::Key(at), |decoder| yaml::line(decoder.source, &decoder.path));
                let second = self.under(Step::Key(*again), |decoder| yaml::line(decoder.source, &decoder.path));
                let key = go::quote(key.text.as_bytes());
                self.error(|_| format!("line {second}: mapping key {key} already defined at line {first}"));
            }
        }
        unique
    }

    /// Takes any scalar for a text, as it is written; null is none.
    fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.kind {
            Kind::Null | Kind::Unread => None,
            Kind::Mapping(entries) if !self.keys_are_unique(entries) => None,
            Kind::Mapping(_) | Kind::Sequence(_) => {
                self.wrong_kind(node, "string");
                None
            }
            _ => Some(&node.text),
        }
    }

    /// YAML 1.2's booleans, and the words of YAML 1.1, which (unlike `true`) may be quoted.
    fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.kind {
            Kind::Bool(value) => Some(*value),
            Kind::Null | Kind::Unread => None,
            Kind::Mapping(entries) if !self.keys_are_unique(entries) => None,
            Kind::Text { .. } => match node.text.as_str() {
                "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
                "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
                _ => {
                    self.wrong_kind(node, "bool");
                    None
                }
            },
            _ => {
                self.wrong_kind(node, "bool");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
