//! One registries.d file: its schema, decoded as yaml.v3 decodes it into containers/image's
//! structures (spec containers-image 1.3, rust-stack 4).
//!
//! Not strict: unknown keys are ignored, any scalar will do for a text, null is absent. But
//! duplicate keys, lists and mappings in the wrong place, and a `use-sigstore-attachments` that is
//! no word for a boolean refuse the file, each with its line.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::go;
use super::yaml::{self, Kind, Node, Step, YamlError};

/// No file is told more than so many errors at once.
const ERROR_LIMIT: usize = 100;
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
        let mut decoder = Decoder { source: bytes, path: Vec::new(), merge_depth: 0, errors: Vec::new() };
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
    errors: Vec<String>,
}

impl Decoder<'_> {
    fn under<R>(&mut self, step: Step, f: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(step);
        let result = f(self);
        self.path.pop();
        result
    }

    fn error(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.errors.len() < ERROR_LIMIT {
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
        let mut places: HashMap<(u8, &str), Vec<usize>> = HashMap::new();
        for (at, (key, _)) in entries.iter().enumerate() {
            // Keys are compared by kind and written text; all lists are alike, and all mappings.
            let kind = match key.kind {
                Kind::Sequence(_) => 1,
                Kind::Mapping(_) => 2,
                _ => 0,
            };
            places.entry((kind, &key.text)).or_default().push(at);
        }
        places.retain(|_, group| group.len() > 1);
        let mut unique = true;
        for (at, (key, _)) in entries.iter().enumerate() {
            let same = places.values().find(|group| group.contains(&at));
            for again in same.into_iter().flatten().filter(|again| **again > at) {
                unique = false;
                if self.errors.len() >= ERROR_LIMIT {
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
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, String> {
        Document::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    /// The lookaside of namespace `a` and its boolean.
    fn a(text: &str) -> (String, Option<bool>) {
        let document = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let section = document.docker.get("a").unwrap_or_else(|| panic!("{text}: {document:?}"));
        (section.lookaside.clone(), section.use_sigstore_attachments)
    }

    #[test]
    fn reads_every_key() {
        let document = parse(
            "default-docker:\n  sigstore: s\n  sigstore-staging: ss\ndocker:\n  a:\n    lookaside: l\n    \
             lookaside-staging: ls\n    use-sigstore-attachments: true\n    other: 1\nother: {x: [1]}\n",
        )
        .unwrap();
        let default = document.default_docker.unwrap();
        assert_eq!((default.url(Key::Sigstore), default.url(Key::SigstoreStaging)), ("s", "ss"));
        assert_eq!(default.use_sigstore_attachments, None);
        let a = &document.docker["a"];
        assert_eq!((a.url(Key::Lookaside), a.url(Key::LookasideStaging)), ("l", "ls"));
        assert_eq!(a.use_sigstore_attachments, Some(true));
    }

    #[test]
    fn what_is_empty_is_fine() {
        for text in [
            "",
            "\n",
            "# only a comment\n",
            "---\n",
            "--- ~\n",
            "null",
            "{}",
            "\u{feff}",
            "\u{feff}docker: {}\n",
            "docker:\n",
            "docker: ~\ndefault-docker:\n",
            "Docker: {a: {lookaside: x}}",
            "---\n...\n---\ndocker: {a: [}",
            "unknown: {a: 1, a: 2}",
            "unknown: !tag x",
            "~: x\nnull: y",
        ] {
            assert_eq!(parse(text), Ok(Document::default()), "{text:?}");
        }
        assert_eq!(parse("default-docker: {}").unwrap().default_docker, Some(Section::default()));
        assert_eq!(a("docker: {a: }"), (String::new(), None), "a null namespace is there, and empty");
        assert_eq!(a("docker: {a: {lookaside: , use-sigstore-attachments: }}"), (String::new(), None));
        assert_eq!(parse("docker: {~: {lookaside: x}}"), Ok(Document::default()), "a null key is no namespace");
    }

    #[test]
    fn any_scalar_is_a_text_as_it_is_written() {
        for (written, read) in [
            ("5000", "5000"),
            ("0755", "0755"),
            ("1.50", "1.50"),
            ("0x10", "0x10"),
            ("true", "true"),
            ("2020-01-01", "2020-01-01"),
            ("'~'", "~"),
            ("\"a\\tb\"", "a\tb"),
            ("!tag x", "x"),
            ("!tag 1.50", "1.50"),
            ("!!str 1.50", "1.50"),
            ("&x 1.50", "1.50"),
            ("|\n      x", "x\n"),
            (">-\n      x\n      y", "x y"),
        ] {
            assert_eq!(a(&format!("docker:\n  a:\n    lookaside: {written}\n")).0, read, "{written}");
        }
        let document = parse("docker: {1.10: {lookaside: x}, true: , 'null': }").unwrap();
        assert_eq!(document.docker.keys().collect::<Vec<_>>(), ["1.10", "null", "true"]);
    }

    #[test]
    fn booleans_are_yaml_v3s() {
        let read = |word: &str| parse(&format!("docker:\n  a:\n    use-sigstore-attachments: {word}\n"));
        for (words, value) in [
            ("true True TRUE y Y yes Yes YES on On ON !!bool_true", true),
            ("false False FALSE n N no No NO off Off OFF 'no'", false),
        ] {
            for word in words.split(' ') {
                let word = word.replace('_', " ");
                assert_eq!(read(&word).unwrap().docker["a"].use_sigstore_attachments, Some(value), "{word}");
            }
        }
        for (word, said) in [
            ("\"true\"", "!!str `true`"),
            ("'false'", "!!str `false`"),
            ("1", "!!int `1`"),
            ("0x10", "!!int `0x10`"),
            ("1.5", "!!float `1.5`"),
            ("maybe", "!!str `maybe`"),
            ("tRUE", "!!str `tRUE`"),
            ("yEs", "!!str `yEs`"),
            ("2020-01-01", "!!timestamp `2020-01-01`"),
            ("perhaps, or not", "!!str `perhaps...`"),
            ("!tag true", "!tag `true`"),
            ("[true]", "!!seq"),
            ("{true: 1}", "!!map"),
        ] {
            let sentence = format!("yaml: unmarshal errors:\n  line 3: cannot unmarshal {said} into bool");
            assert_eq!(read(word), Err(sentence), "{word}");
        }
    }

    #[test]
    fn shapes_are_named_with_their_lines() {
        for (text, lines) in [
            ("[a]", &["line 1: cannot unmarshal !!seq into docker.registryConfiguration"][..]),
            ("# x\nhello", &["line 2: cannot unmarshal !!str `hello` into docker.registryConfiguration"]),
            ("docker: 5", &["line 1: cannot unmarshal !!int `5` into map[string]docker.registryNamespace"]),
            ("docker: []", &["line 1: cannot unmarshal !!seq into map[string]docker.registryNamespace"]),
            ("default-docker: x", &["line 1: cannot unmarshal !!str `x` into docker.registryNamespace"]),
            ("docker:\n  a: x", &["line 2: cannot unmarshal !!str `x` into docker.registryNamespace"]),
            ("docker:\n  ? [a]\n  : {}", &["line 2: cannot unmarshal !!seq into string"]),
            (
                "docker:\n  a:\n    lookaside: [x]\n  b:\n    sigstore:\n      c: d\n",
                &["line 3: cannot unmarshal !!seq into string", "line 6: cannot unmarshal !!map into string"],
            ),
            ("docker: {}\nx: 1\ndocker: {}", &["line 3: mapping key \"docker\" already defined at line 1"]),
            ("x: 1\nx: 2", &["line 2: mapping key \"x\" already defined at line 1"]),
            (
                "docker:\n  a: {}\n  'a': {}\n  \"a\": {}",
                &[
                    "line 3: mapping key \"a\" already defined at line 2",
                    "line 4: mapping key \"a\" already defined at line 2",
                    "line 4: mapping key \"a\" already defined at line 3",
                ],
            ),
            (
                "docker:\n  a:\n    lookaside: x\n    lookaside: y\n",
                &["line 4: mapping key \"lookaside\" already defined at line 3"],
            ),
            ("docker: {a: {u: 1, u: 1}}", &["line 1: mapping key \"u\" already defined at line 1"]),
            ("docker:\n  a:\n    lookaside: {x: 1, x: 2}\n", &["line 3: mapping key \"x\" already defined at line 3"]),
        ] {
            let sentence = format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "));
            assert_eq!(parse(text), Err(sentence), "{text}");
        }
    }

    #[test]
    fn anchors_and_merges() {
        assert_eq!(a("x: &x {lookaside: l}\ndocker: {a: *x}").0, "l");
        let base = "base: &b {lookaside: base, use-sigstore-attachments: yes}\nnext: &n {lookaside: next}\n";
        for (section, wanted) in [
            ("{<<: *b}", ("base", Some(true))),
            ("{<<: *b, lookaside: own}", ("own", Some(true))),
            ("{lookaside: own, <<: *b}", ("own", Some(true))),
            ("{<<: [*n, *b]}", ("next", Some(true))),
            ("{<<: [*b, *n]}", ("base", Some(true))),
            ("{lookaside: , <<: *b}", ("", Some(true))),
            ("{<<: {<<: *b, lookaside: inner}}", ("inner", Some(true))),
            ("{'<<': *b}", ("", None)),
        ] {
            let (lookaside, attachments) = wanted;
            assert_eq!(a(&format!("{base}docker: {{a: {section}}}")), (lookaside.to_owned(), attachments), "{section}");
        }
        let whole = parse("m: &m {a: {lookaside: l}, b: }\ndocker: {<<: *m, a: {sigstore: s}}").unwrap();
        assert_eq!((whole.docker["a"].sigstore.as_str(), whole.docker["a"].lookaside.as_str()), ("s", ""));
        assert_eq!(whole.docker["b"], Section::default());
        assert_eq!(parse("m: &m {docker: {a: }}\n<<: *m").unwrap().docker.len(), 1);
        for merge in ["x", "[x]", "~", "[[]]"] {
            let error = parse(&format!("docker: {{<<: {merge}}}")).unwrap_err();
            assert_eq!(error, "yaml: map merge requires map or sequence of maps as the value", "{merge}");
        }
    }

    #[test]
    fn syntax_errors_have_yaml_v3s_form() {
        for (text, sentence) in [
            ("a: b: c", "yaml: mapping values are not allowed in this context"),
            ("x: 1\na: b: c", "yaml: line 2: mapping values are not allowed in this context"),
            ("docker:\n\tx: y", "yaml: line 2: found character that cannot start any token"),
            ("docker: [", "yaml: line 1: did not find expected node content"),
            ("a: 'x\n", "yaml: line 2: found unexpected end of stream"),
            ("docker: {a: *nowhere}", "yaml: unknown anchor 'nowhere' referenced"),
            ("x: \u{1}", "yaml: control characters are not allowed"),
        ] {
            assert_eq!(parse(text), Err(sentence.to_owned()), "{text:?}");
        }
        assert!(Document::parse(b"x: \xff").unwrap_err().to_string().starts_with("yaml: "));
        assert!(parse("docker: {a: {use-sigstore-attachments: !!int x}}").unwrap_err().starts_with("yaml: "));
    }

    #[test]
    fn bombs_and_depth_are_bounded() {
        let mut bomb = String::from("a0: &a0 {lookaside: x}\n");
        for n in 1..30 {
            bomb += &format!("a{n}: &a{n} {{a: *a{m}, b: *a{m}, c: *a{m}}}\n", m = n - 1);
        }
        assert_eq!(parse(&bomb), Ok(Document::default()), "what nobody looks at is not unfolded");
        let mut bomb = String::from("a0: &a0 {lookaside: x}\n");
        for n in 1..30 {
            bomb +=
                &format!("a{n}: &a{n} {{<<: [*a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}]}}\n", m = n - 1);
        }
        bomb += "docker: {a: *a29}";
        assert_eq!(parse(&bomb).unwrap_err(), "yaml: document contains excessive aliasing");
        assert!(parse("docker: &d {a: {}, <<: *d}").is_err());
        assert!(parse("&a [*a]").is_err());
        let deep = "[".repeat(20_000);
        assert!(parse(&format!("docker: {deep}")).is_err());
        assert_eq!(parse(&format!("x: {}{}", "[".repeat(5000), "]".repeat(5000))), Ok(Document::default()));
        let twice: String = (0..500).map(|_| "k: 1\n").collect();
        assert_eq!(parse(&twice).unwrap_err().lines().count(), 1 + ERROR_LIMIT);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_what_looks_like_yaml(
            text in "((docker|default-docker|lookaside|use-sigstore-attachments|<<|a|x|yes|~|!t|&a|\\*a|\"|')?[:\\-{}\\[\\],|>#? \n]{0,3}( |\n  |\n    |\n)?){0,25}"
        ) {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_bytes(bytes in proptest::collection::vec(0u8.., 0..200)) {
            let _ = Document::parse(&bytes);
        }

        #[test]
        fn reads_back_what_was_written(
            entries in proptest::collection::btree_map("[ -~é\n]{1,12}", ("[ -~\n]{0,12}", proptest::option::of(proptest::bool::ANY)), 0..6)
        ) {
            let quote = |text: &str| serde_json::to_string(text).unwrap();
            let mut yaml = String::from("docker:\n");
            for (namespace, (lookaside, attachments)) in &entries {
                yaml += &format!("  {}:\n    lookaside: {}\n", quote(namespace), quote(lookaside));
                if let Some(value) = attachments {
                    yaml += &format!("    use-sigstore-attachments: {value}\n");
                }
            }
            let document = parse(&yaml).unwrap();
            proptest::prop_assert_eq!(document.docker.len(), entries.len());
            for (namespace, (lookaside, attachments)) in &entries {
                let section = &document.docker[namespace];
                proptest::prop_assert_eq!(&section.lookaside, lookaside);
                proptest::prop_assert_eq!(&section.use_sigstore_attachments, attachments);
            }
        }
    }
}
