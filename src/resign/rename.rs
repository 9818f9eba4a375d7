//! The domain map: which old names become which new ones (spec notary-dct 6).
//!
//! A rule `OLD=NEW` names a registry (`registry.ng.bluemix.net`) or a repository prefix
//! (`old.example/team`). It applies to a name that equals OLD or goes on with `/` after it;
//! of several that apply, the longest OLD wins. It is applied once: a name that it makes and that
//! another rule would rename again is refused, for the next run would do so.

use std::collections::HashMap;
use std::fmt;

use super::rename_file::RenameFile;
use crate::image::{Reference, Repository, is_within};

/// IBM Cloud Container Registry: the deprecated names and their successors. Each has a
/// `private.` twin, which maps to the twin of the successor.
const IBM: [(&str, &str); 5] = [
    ("registry.bluemix.net", "icr.io"),
    ("registry.ng.bluemix.net", "us.icr.io"),
    ("registry.eu-gb.bluemix.net", "uk.icr.io"),
    ("registry.eu-de.bluemix.net", "de.icr.io"),
    ("registry.au-syd.bluemix.net", "au.icr.io"),
];
const PRIVATE: &str = "private.";
/// How a rule that keeps its names is written where there is a rule a word.
const STAYS: &str = "null";

/// Why a set of rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenameError {
    /// Not of the form `OLD=NEW`.
    #[error("rename rule {0:?} is neither OLD=NEW nor the name of a built-in table (ibm)")]
    Form(String),
    /// One side is no registry and no repository prefix.
    #[error("rename rule {rule:?}: {side:?} is not a registry (host[:port]) or host[:port]/path in lower case")]
    Side {
        /// The whole rule.
        rule: String,
        /// The side that is wrong.
        side: String,
    },
    /// OLD and NEW are one name.
    #[error("rename rule {0:?} maps a name to itself")]
    Identity(String),
    /// Two rules for one OLD that disagree.
    #[error("two rename rules for {old}: {first} and {second}; keep one")]
    Ambiguous {
        /// The name that both rules rename.
        old: String,
        /// What the first makes of it, and where it was given.
        first: String,
        /// What the second makes of it, and where it was given.
        second: String,
    },
    /// NEW lies below OLD.
    #[error("rename rule {rule} ({origin}) makes names that it would rename again at the next run")]
    Nested {
        /// The rule.
        rule: String,
        /// Where it was given.
        origin: String,
    },
    /// The names that one rule makes are renamed by another.
    #[error(
        "rename rule {rule} ({origin}) makes names that rule {next} ({next_origin}) renames again; \
         name the last name in one rule, or run two jobs"
    )]
    Chain {
        /// The first rule.
        rule: String,
        /// Where it was given.
        origin: String,
        /// The second rule.
        next: String,
        /// Where it was given.
        next_origin: String,
    },
    /// A rule of a file is wrong.
    #[error("{origin}: {error}")]
    At {
        /// Which file, which line.
        origin: String,
        /// What is wrong.
        error: Box<RenameError>,
    },
    /// There is no rule at all.
    #[error("no rename rule given; add --rename OLD=NEW, --rename ibm or --rename-file F")]
    None,
}

/// Where a rule was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file and the line, if it was not the command line.
    place: Option<(String, Option<usize>)>,
    /// It is of the built-in table.
    builtin: bool,
    /// It follows from an exception for the name without `private.`.
    twin: bool,
}

impl Origin {
    const COMMAND_LINE: Self = Self { place: None, builtin: false, twin: false };

    /// Names a line of a file.
    pub(super) fn file(path: &str, line: Option<usize>) -> Self {
        Self { place: Some((path.to_owned(), line)), builtin: false, twin: false }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.builtin { "built-in ibm, " } else { "" })?;
        match &self.place {
            None => f.write_str("command line")?,
            Some((path, None)) => f.write_str(path)?,
            Some((path, Some(line))) => write!(f, "{path}:{line}")?,
        }
        f.write_str(if self.twin { ", private twin" } else { "" })
    }
}

/// One rule, both sides checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    old: String,
    new: Option<String>,
    origin: Origin,
}

impl fmt::Display for Rule {
    /// `OLD=NEW`, or `OLD=null` for names that stay: as jobs and reports record it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.old, self.new.as_deref().unwrap_or(STAYS))
    }
}

impl Rule {
    /// Returns the name or prefix that is renamed.
    pub fn old(&self) -> &str {
        &self.old
    }

    /// Returns what it becomes; `None` for names that stay, and are not signed anew.
    pub fn new_name(&self) -> Option<&str> {
        self.new.as_deref()
    }

    /// Returns where the rule was given.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    fn new(old: &str, new: Option<&str>, origin: Origin) -> Result<Self, RenameError> {
        let rule = Self { old: old.to_owned(), new: new.map(str::to_owned), origin };
        let wrong = |error: RenameError| rule.origin.at(error);
        for side in [Some(old), new].into_iter().flatten() {
            // Made-up components make a prefix a repository name, which the grammar judges (two, since
            // docker.io/x would be expanded); a registry without dot or port would be taken for a
            // Docker Hub user.
            let name = format!("{side}/x/y");
            let valid = Repository::parse(&name).is_ok_and(|parsed| parsed.as_str() == name);
            if side.is_empty() || !valid {
                return Err(wrong(RenameError::Side { rule: rule.to_string(), side: side.to_owned() }));
            }
        }
        if new == Some(old) {
            return Err(wrong(RenameError::Identity(rule.to_string())));
        }
        Ok(rule)
    }

    fn told(&self) -> String {
        match &self.new {
            Some(new) => format!("to {new} ({})", self.origin),
            None => format!("it stays ({})", self.origin),
        }
    }
}

impl Origin {
    fn at(&self, error: RenameError) -> RenameError {
        match self.place {
            Some(_) => RenameError::At { origin: self.to_string(), error: Box::new(error) },
            None => error,
        }
    }
}

/// A checked set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenameMap {
    /// Longest OLD first.
    rules: Vec<Rule>,
    /// Where the rule for an OLD is.
    index: HashMap<String, usize>,
}

/// A reference under its new name, and the rule that made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed<'a> {
    /// The new name with the old tag and digest.
    pub reference: Reference,
    /// The rule that applied.
    pub rule: &'a Rule,
}

/// What the rules say of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renaming<'a> {
    /// Nothing.
    Unmatched,
    /// It stays as it is: an exception says so.
    Stays(&'a Rule),
    /// It has a new name.
    To(Renamed<'a>),
    /// The rule makes something that is no image name: too long, or a registry alone.
    NoName {
        /// The rule.
        rule: &'a Rule,
        /// What it makes.
        name: String,
    },
    /// The new name would be renamed again by the next run.
    Again {
        /// What was made.
        renamed: Renamed<'a>,
        /// The rule that would rename it.
        next: &'a Rule,
    },
}

impl RenameMap {
    /// Parses rules as given on the command line: `OLD=NEW` each, or `ibm` for the built-in table.
    ///
    /// # Errors
    /// [`RenameError`], naming the rule.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, RenameError> {
        Self::new(texts, &[])
    }

    /// Joins the rules of the command line with those of files.
    ///
    /// An exception of a file goes before the built-in table, and covers the `private.` twin of an
    /// IBM name too; otherwise two rules for one OLD must agree.
    ///
    /// # Errors
    /// [`RenameError`], naming the rules and where they were given.
    pub fn new<S: AsRef<str>>(command_line: &[S], files: &[RenameFile]) -> Result<Self, RenameError> {
        let mut map = Self { rules: Vec::new(), index: HashMap::new() };
        for text in command_line {
            map.general(text.as_ref(), Origin::COMMAND_LINE)?;
        }
        for (text, origin) in files.iter().flat_map(RenameFile::rules) {
            map.general(text, origin)?;
        }
        let mut twins = Vec::new();
        for (old, new, origin) in files.iter().flat_map(RenameFile::exceptions) {
            let exception = Rule::new(old, new, origin)?;
            twins.extend(private_twin(&exception));
            map.add(exception, |known| known.origin.builtin)?;
        }
        for twin in twins {
            // What is said of the private name itself goes before what follows for it.
            let said = map.index.get(&twin.old).and_then(|at| map.rules.get(*at));
            if said.is_none_or(|known| known.origin.builtin) {
                map.add(twin, |known| known.origin.builtin)?;
            }
        }
        map.checked()
    }

    /// Reads back what the rules of a job were, a word each, from the account of the job.
    ///
    /// # Errors
    /// [`RenameError`].
    pub fn parse_recorded(text: &str) -> Result<Self, RenameError> {
        let mut map = Self { rules: Vec::new(), index: HashMap::new() };
        for word in text.split_whitespace() {
            let (old, new) = word.split_once('=').ok_or_else(|| RenameError::Form(word.to_owned()))?;
            map.add(Rule::new(old, Some(new).filter(|new| *new != STAYS), Origin::COMMAND_LINE)?, |_| false)?;
        }
        map.checked()
    }

    fn general(&mut self, text: &str, origin: Origin) -> Result<(), RenameError> {
        if text == "ibm" {
            let origin = Origin { builtin: true, ..origin };
            for (old, new) in IBM {
                self.add(Rule::new(old, Some(new), origin.clone())?, |_| false)?;
                let (old, new) = (format!("{PRIVATE}{old}"), format!("{PRIVATE}{new}"));
                self.add(Rule::new(&old, Some(&new), origin.clone())?, |_| false)?;
            }
            return Ok(());
        }
        let (old, new) = text.split_once('=').ok_or_else(|| origin.at(RenameError::Form(text.to_owned())))?;
        self.add(Rule::new(old, Some(new), origin)?, |_| false)
    }

    fn add(&mut self, rule: Rule, replaces: impl FnOnce(&Rule) -> bool) -> Result<(), RenameError> {
        match self.index.get(&rule.old).and_then(|at| self.rules.get_mut(*at)) {
            Some(known) if known.new == rule.new => {}
            Some(known) if replaces(known) => *known = rule,
            Some(known) => {
                return Err(RenameError::Ambiguous { first: known.told(), second: rule.told(), old: rule.old });
            }
            None => {
                self.index.insert(rule.old.clone(), self.rules.len());
                self.rules.push(rule);
            }
        }
        Ok(())
    }

    fn checked(mut self) -> Result<Self, RenameError> {
        if self.rules.iter().all(|rule| rule.new.is_none()) {
            return Err(RenameError::None);
        }
        self.rules.sort_by(|a, b| b.old.len().cmp(&a.old.len()).then_with(|| a.old.cmp(&b.old)));
        self.index = self.rules.iter().enumerate().map(|(at, rule)| (rule.old.clone(), at)).collect();
        for rule in &self.rules {
            let Some(next) = rule.new.as_deref().and_then(|new| self.find(new)) else { continue };
            let (said, origin) = (rule.to_string(), rule.origin.to_string());
            match next.new {
                None => {}
                Some(_) if next.old == rule.old => return Err(RenameError::Nested { rule: said, origin }),
                Some(_) => {
                    let (next, next_origin) = (next.to_string(), next.origin.to_string());
                    return Err(RenameError::Chain { rule: said, origin, next, next_origin });
                }
            }
        }
        Ok(self)
    }

    /// Returns the rules, longest OLD first.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Finds the rule with the longest OLD that `name` is or lies below.
    fn find(&self, name: &str) -> Option<&Rule> {
        let mut prefix = name;
        loop {
            if let Some(at) = self.index.get(prefix) {
                return self.rules.get(*at);
            }
            prefix = prefix.rsplit_once('/')?.0;
        }
    }

    /// Renames a reference, keeping its tag and digest; `None` whenever there is no new name for it.
    pub fn apply(&self, reference: &Reference) -> Option<Renamed<'_>> {
        match self.rename(reference) {
            Renaming::To(renamed) => Some(renamed),
            _ => None,
        }
    }

    /// Says what becomes of a reference; its tag and digest stay.
    pub fn rename(&self, reference: &Reference) -> Renaming<'_> {
        let name = reference.repository().as_str();
        let Some(rule) = self.find(name) else { return Renaming::Unmatched };
        let Some(new) = &rule.new else { return Renaming::Stays(rule) };
        let full = reference.to_string();
        let text = format!("{new}{}", full.strip_prefix(&rule.old).unwrap_or_default());
        let Ok(reference) = Reference::parse_canonical(&text) else { return Renaming::NoName { rule, name: text } };
        let next = self.find(reference.repository().as_str()).filter(|next| next.new.is_some());
        let renamed = Renamed { reference, rule };
        match next {
            Some(next) => Renaming::Again { renamed, next },
            None => Renaming::To(renamed),
        }
    }

    /// Tells whether a name is one that the rules can make.
    pub(super) fn makes(&self, name: &str) -> bool {
        let repository = Reference::parse(name).map(|name| name.repository().as_str().to_owned());
        repository.is_ok_and(|name| self.rules.iter().filter_map(Rule::new_name).any(|new| is_within(&name, new)))
    }

    /// Tells of rules by which several old names become one new name: legal, but then different
    /// images may have claimed it.
    pub fn collisions(&self) -> Vec<String> {
        let renaming = || self.rules.iter().filter_map(|rule| Some((rule, rule.new.as_deref()?)));
        let mut by_new: HashMap<&str, Vec<&Rule>> = HashMap::new();
        for (rule, new) in renaming() {
            by_new.entry(new).or_default().push(rule);
        }
        let mut found = Vec::new();
        for (rule, new) in renaming() {
            let mut above = Some(new);
            while let Some(prefix) = above {
                for other in by_new.get(prefix).into_iter().flatten() {
                    let rest = new.strip_prefix(prefix).unwrap_or_default();
                    let same_new = format!("{}{rest}", other.old);
                    // Each pair once; not what says the same, nor what another rule takes elsewhere.
                    let pair = !rest.is_empty() || rule.old < other.old;
                    if pair && same_new != rule.old && self.find(&same_new) == Some(*other) {
                        found.push(format!("{} and {same_new} both become {new}", rule.old));
                    }
                }
                above = prefix.rsplit_once('/').map(|(parent, _)| parent);
            }
        }
        found.sort_unstable();
        found
    }
}

/// What an exception for an IBM name means for its `private.` twin.
fn private_twin(exception: &Rule) -> Option<Rule> {
    let registry = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    IBM.iter().find(|(old, _)| *old == registry(&exception.old))?;
    let is_ibm = |name: &String| {
        let registry = registry(name);
        !registry.starts_with(PRIVATE) && (registry == "icr.io" || registry.ends_with(".icr.io"))
    };
    let new = exception.new.as_ref().map(|new| if is_ibm(new) { format!("{PRIVATE}{new}") } else { new.clone() });
    let origin = Origin { twin: true, ..exception.origin.clone() };
    Some(Rule { old: format!("{PRIVATE}{}", exception.old), new, origin })
}
