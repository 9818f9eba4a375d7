//! One YAML document as a tree that keeps what yaml.v3 decides by and serde's model loses: the
//! source text of numbers, duplicate keys, tags, whether `<<` was quoted, and on which line a node
//! stands.
//!
//! The parser is serde_yaml's (libyaml, as yaml.v3's is), run more than once over the text: first
//! for the kinds, then for the texts, and once more for each line number that an error names. What
//! the schema does not know is stepped over as yaml.v3 does: its syntax counts, its content not.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::host::{NESTING_LIMIT, too_deep};

/// How many nodes aliases may make of a document beyond its own bytes (yaml.v3 begins to doubt at
/// 400,000 too).
const NODE_BUDGET: usize = 400_000;
const EXCESSIVE: &str = "document contains excessive aliasing";

/// What a YAML text is refused for; prints as yaml.v3 does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// Not YAML, or YAML that cannot be decoded at all. The inner text is mostly libyaml's.
    #[error("yaml: {0}")]
    Syntax(String),
    /// YAML of the wrong shape: one line an error.
    #[error("yaml: unmarshal errors:\n  {}", .0.join("\n  "))]
    Shape(Vec<String>),
}

/// Where a node may stand in a registries.d file; decides what of it is looked at.
#[derive(Clone, Copy)]
enum Place {
    Document,
    Namespaces,
    Section,
    Leaf,
}

impl Place {
    /// Tells where the value of `key` stands; `None` is a value that nobody looks at.
    fn below(self, key: &Node) -> Option<Self> {
        match self {
            Self::Document | Self::Namespaces | Self::Section if key.is_merge() => Some(self),
            Self::Namespaces => Some(Self::Section),
            Self::Document => match key.text.as_str() {
                "default-docker" => Some(Self::Section),
                "docker" => Some(Self::Namespaces),
                _ => None,
            },
            Self::Section => super::document::is_section_key(&key.text).then_some(Self::Leaf),
            Self::Leaf => None,
        }
    }
}

/// What kind of node it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int,
    Float,
    /// Text, and whether it was quoted or a block.
    Text {
        quoted: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
    /// Stepped over.
    Unread,
}

/// A node of the tree. Aliases are already replaced by what they stand for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// The source text of a scalar, quotes and escapes resolved.
    pub(super) text: String,
    /// A tag of the file's own, `!so`.
    tag: Option<String>,
}

impl Node {
    fn new(kind: Kind) -> Self {
        Self { kind, text: String::new(), tag: None }
    }

    /// Tells whether this key merges its value into the mapping around it.
    pub(super) fn is_merge(&self) -> bool {
        self.text == "<<" && self.kind == Kind::Text { quoted: false } && self.tag.is_none()
    }

    /// Tells whether this is plain text with a `?` in it.
    pub(super) fn has_plain_question_mark(&self) -> bool {
        self.kind == Kind::Text { quoted: false } && self.text.contains('?')
    }

    /// Returns the tag as yaml.v3 names it in errors: `!!str`, `!!map`, …
    pub(super) fn short_tag(&self) -> &str {
        match &self.kind {
            _ if self.tag.is_some() => self.tag.as_deref().unwrap_or_default(),
            Kind::Null | Kind::Unread => "!!null",
            Kind::Bool(_) => "!!bool",
            Kind::Int => "!!int",
            Kind::Float => "!!float",
            Kind::Sequence(_) => "!!seq",
            Kind::Mapping(_) => "!!map",
            Kind::Text { quoted: false } if is_timestamp(&self.text) => "!!timestamp",
            Kind::Text { .. } if self.is_merge() => "!!merge",
            Kind::Text { .. } => "!!str",
        }
    }
}

/// yaml.v3's quick check (four digits and a dash) is near enough: this only names a tag in errors.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8
        && bytes.get(..4).is_some_and(|year| year.iter().all(u8::is_ascii_digit))
        && bytes.get(4) == Some(&b'-')
        && bytes.get(5).is_some_and(u8::is_ascii_digit)
}

/// One step down from a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The key of the entry of that number.
    Key(usize),
    /// The value of the entry of that number.
    Value(usize),
    /// The element of that number.
    Item(usize),
}

/// Parses the first document of a registries.d file.
///
/// # Errors
/// [`YamlError::Syntax`]: not YAML, an unknown anchor, aliases without measure.
pub(super) fn parse(bytes: &[u8]) -> Result<Node, YamlError> {
    if let Some(line) = too_deep(bytes) {
        return Err(YamlError::Syntax(format!("line {line}: exceeded max depth of {NESTING_LIMIT}")));
    }
    let budget = Cell::new(NODE_BUDGET.saturating_add(bytes.len()));
    let kinds = KindSeed { place: Place::Document, budget: &budget, source: bytes };
    let mut root = read(bytes, kinds)?;
    if root.kind != Kind::Null {
        read(bytes, TextSeed(&mut root))?;
    }
    Ok(root)
}

/// Where a node stands in the source, properties (anchor, tag) included.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// Counted from 1.
    pub(super) line: usize,
    index: usize,
}

/// Finds a node by its path from the root. Behind an alias this is where the anchor is.
pub(super) fn spot(bytes: &[u8], path: &[Step]) -> Option<Spot> {
    let found = Finder(path).deserialize(first_document(bytes)?).err()?.location()?;
    Some(Spot { line: found.line(), index: found.index() })
}

/// Finds the line of a node, counted from 1; 0 if there is none.
pub(super) fn line(bytes: &[u8], path: &[Step]) -> usize {
    spot(bytes, path).map_or(0, |spot| spot.line)
}

/// Refuses a plain scalar with a `?` in a flow mapping, as yaml.v3 does: there a `?` ends the scalar
/// (libyaml takes it in since 0.2). It bites URLs: `{lookaside: https://h/x?token=y}`.
pub(super) fn refuse_question_mark(bytes: &[u8], mapping: &[Step], scalar: &[Step]) -> Result<(), YamlError> {
    let (Some(mapping), Some(scalar)) = (spot(bytes, mapping), spot(bytes, scalar)) else { return Ok(()) };
    let properties = |rest: &&[u8]| rest.starts_with(b"&") || rest.starts_with(b"!");
    let mut parts = bytes.get(mapping.index..).unwrap_or_default().split(u8::is_ascii_whitespace);
    let is_flow = parts.find(|part| !part.is_empty() && !properties(part)).is_some_and(|part| part.starts_with(b"{"));
    // What stands before the mapping came by an alias and is read where its anchor is.
    if !is_flow || scalar.index < mapping.index {
        return Ok(());
    }
    let line = [mapping.line, scalar.line].into_iter().map(|line| line.saturating_sub(1)).find(|line| *line != 0);
    let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    Err(YamlError::Syntax(format!("{place}did not find expected ',' or '}}'")))
}

fn first_document(bytes: &[u8]) -> Option<serde_yaml::Deserializer<'_>> {
    serde_yaml::Deserializer::from_slice(bytes).next()
}

fn read<'de, S: DeserializeSeed<'de>>(bytes: &'de [u8], seed: S) -> Result<S::Value, YamlError> {
    let Some(document) = first_document(bytes) else { return Err(YamlError::Syntax("no document".to_owned())) };
    seed.deserialize(document).map_err(|error| YamlError::Syntax(syntax_text(&error, bytes)))
}

/// Says a parser's error in yaml.v3's form, `line N: problem`; N is counted as it counts.
fn syntax_text(error: &serde_yaml::Error, source: &[u8]) -> String {
    let text = error.to_string();
    if text.starts_with("repetition limit exceeded") || text.contains(EXCESSIVE) {
        return EXCESSIVE.to_owned();
    }
    if text.starts_with("recursion limit exceeded") {
        return "exceeded max depth, or an anchor's value contains itself".to_owned();
    }
    if text.starts_with("unknown anchor") {
        let name = error.location().and_then(|at| source.get(at.index()..)).unwrap_or_default();
        let name = name.strip_prefix(b"*").unwrap_or_default().split(|b| !b.is_ascii_alphanumeric() && *b != b'_');
        let name = String::from_utf8_lossy(name.into_iter().next().unwrap_or_default()).into_owned();
        return format!("unknown anchor '{name}' referenced");
    }
    // Its debug form alone tells scanner from parser and the two marks apart.
    let debug = format!("{error:?}");
    let zero_based = |mark: &str| {
        let (_, rest) = debug.rsplit_once(mark)?;
        let digits = rest.strip_prefix(" Mark { line: ")?.split(',').next()?;
        digits.parse::<usize>().ok()?.checked_sub(1)
    };
    let line = zero_based(" context_mark:").filter(|n| *n != 0).or_else(|| zero_based(" problem_mark:")).unwrap_or(0);
    let line = if line != 0 && debug.contains("kind: SCANNER") { line + 1 } else { line };
    let problem = [" at line ", " at position ", ", while "]
        .iter()
        .filter_map(|cut| text.find(cut))
        .min()
        .and_then(|end| text.get(..end))
        .unwrap_or(&text);
    if line == 0 { problem.to_owned() } else { format!("line {line}: {problem}") }
}

/// The first reading: what kind each node is.
#[derive(Clone, Copy)]
struct KindSeed<'a> {
    place: Place,
    budget: &'a Cell<usize>,
    source: &'a [u8],
}

impl<'a> KindSeed<'a> {
    fn spend<E: serde::de::Error>(&self) -> Result<(), E> {
        let left = self.budget.get().checked_sub(1).ok_or_else(|| E::custom(EXCESSIVE))?;
        self.budget.set(left);
        Ok(())
    }

    fn scalar<E: serde::de::Error>(self, kind: Kind) -> Result<Node, E> {
        self.spend()?;
        Ok(Node::new(kind))
    }
}

impl<'de> DeserializeSeed<'de> for KindSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KindSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any node")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.scalar(Kind::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.scalar(Kind::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Kind::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Node, E> {
        self.scalar(Kind::Int)
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Node, E> {
        self.scalar(Kind::Int)
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Node, E> {
        self.scalar(Kind::Int)
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Node, E> {
        self.scalar(Kind::Int)
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Node, E> {
        self.scalar(Kind::Float)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node, E> {
        // Only text that does not stand in the source as it reads comes here: escapes, folded lines.
        let mut node = self.scalar(Kind::Text { quoted: true })?;
        node.text = text.to_owned();
        Ok(node)
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Node, E> {
        let offset = (text.as_ptr() as usize).checked_sub(self.source.as_ptr() as usize);
        let before = offset.and_then(|at| at.checked_sub(1)).and_then(|at| self.source.get(at));
        let mut node = self.scalar(Kind::Text { quoted: matches!(before, Some(b'"' | b'\'')) })?;
        node.text = text.to_owned();
        Ok(node)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        self.spend()?;
        let mut items = Vec::new();
        match self.place {
            Place::Leaf => while sequence.next_element::<IgnoredAny>()?.is_some() {},
            _ => {
                while let Some(item) = sequence.next_element_seed(self)? {
                    items.push(item);
                }
            }
        }
        Ok(Node::new(Kind::Sequence(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        self.spend()?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(Self { place: Place::Leaf, ..self })? {
            let value = match self.place.below(&key) {
                Some(place) => map.next_value_seed(Self { place, ..self })?,
                None => map.next_value::<IgnoredAny>().map(|_| Node::new(Kind::Unread))?,
            };
            entries.push((key, value));
        }
        Ok(Node::new(Kind::Mapping(entries)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (tag, content) = tagged.variant::<String>()?;
        let mut node = content.newtype_variant_seed(self)?;
        if tag != "!" {
            // A tag that YAML does not know makes text of any scalar.
            if matches!(node.kind, Kind::Null | Kind::Bool(_) | Kind::Int | Kind::Float) {
                node.kind = Kind::Text { quoted: false };
            }
            node.tag = Some(format!("!{tag}"));
        }
        Ok(node)
    }
}

/// The second reading: the source text of each scalar.
struct TextSeed<'a>(&'a mut Node);

impl<'de> DeserializeSeed<'de> for TextSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0.kind {
            Kind::Sequence(_) => deserializer.deserialize_seq(self),
            Kind::Mapping(_) => deserializer.deserialize_map(self),
            Kind::Unread => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            _ => deserializer.deserialize_str(self),
        }
    }
}

impl<'de> Visitor<'de> for TextSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node of the first reading")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        text.clone_into(&mut self.0.text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        if let Kind::Sequence(items) = &mut self.0.kind {
            for item in items {
                sequence.next_element_seed(TextSeed(item))?;
            }
        }
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Kind::Mapping(entries) = &mut self.0.kind {
            for (key, value) in entries {
                map.next_key_seed(TextSeed(key))?;
                map.next_value_seed(TextSeed(value))?;
            }
        }
        Ok(())
    }
}

/// A reading for a line number: walks to the node and fails there, for errors alone carry a place.
#[derive(Clone, Copy)]
struct Finder<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0.first() {
            Some(Step::Item(_)) => deserializer.deserialize_seq(self),
            Some(_) => deserializer.deserialize_map(self),
            None => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing: the node is found")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Some((Step::Item(at), rest)) = self.0.split_first() else { return Err(A::Error::custom("found")) };
        for _ in 0..*at {
            sequence.next_element::<IgnoredAny>()?;
        }
        sequence.next_element_seed(Finder(rest)).map(|_| ())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Err(A::Error::custom("found")) };
        let (Step::Key(at) | Step::Value(at) | Step::Item(at)) = step;
        for _ in 0..*at {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if matches!(step, Step::Key(_)) {
            return map.next_key_seed(Finder(rest)).map(|_| ());
        }
        map.next_key::<IgnoredAny>()?;
        map.next_value_seed(Finder(rest))
    }
}
