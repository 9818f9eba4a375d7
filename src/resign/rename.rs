//! The domain map: which old names become which new ones (spec notary-dct 6).
//!
//! A rule `OLD=NEW` names a registry (`registry.ng.bluemix.net`) or a repository prefix
//! (`old.example/team`). It applies to a name that equals OLD or goes on with `/` after it;
//! of several that apply, the longest OLD wins.

use crate::image::{Reference, Repository};

/// IBM Cloud Container Registry: the deprecated names and their successors. Each has a
/// `private.` twin, which maps to the twin of the successor.
const IBM: [(&str, &str); 5] = [
    ("registry.bluemix.net", "icr.io"),
    ("registry.ng.bluemix.net", "us.icr.io"),
    ("registry.eu-gb.bluemix.net", "uk.icr.io"),
    ("registry.eu-de.bluemix.net", "de.icr.io"),
    ("registry.au-syd.bluemix.net", "au.icr.io"),
];

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
    #[error("two rename rules for {old}: to {first} and to {second}; keep one")]
    Ambiguous {
        /// The name that both rules rename.
        old: String,
        /// What the first makes of it.
        first: String,
        /// What the second makes of it.
        second: String,
    },
    /// There is no rule at all.
    #[error("no rename rule given; add --rename OLD=NEW or --rename ibm")]
    None,
}

/// One rule, both sides checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    old: String,
    new: String,
}

impl Rule {
    /// Returns the name or prefix that is renamed.
    pub fn old(&self) -> &str {
        &self.old
    }

    /// Returns what it becomes.
    pub fn new_name(&self) -> &str {
        &self.new
    }

    fn new(rule: &str, old: &str, new: &str) -> Result<Self, RenameError> {
        for side in [old, new] {
            // Made-up components make a prefix a repository name, which the grammar judges (two, since
            // docker.io/x would be expanded); a
            // registry without dot or port would be taken for a Docker Hub user.
            let name = format!("{side}/x/y");
            let valid = Repository::parse(&name).is_ok_and(|parsed| parsed.as_str() == name);
            if side.is_empty() || !valid {
                return Err(RenameError::Side { rule: rule.to_owned(), side: side.to_owned() });
            }
        }
        if old == new {
            return Err(RenameError::Identity(rule.to_owned()));
        }
        Ok(Self { old: old.to_owned(), new: new.to_owned() })
    }

    /// Returns what follows OLD in `name`: empty, or starting with `/`.
    fn remainder<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(&self.old).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A checked set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenameMap {
    /// Longest OLD first, so that the first that applies wins.
    rules: Vec<Rule>,
}

/// A reference under its new name, and the rule that made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed<'a> {
    /// The new name with the old tag and digest.
    pub reference: Reference,
    /// The rule that applied.
    pub rule: &'a Rule,
}

impl RenameMap {
    /// Parses rules as given on the command line: `OLD=NEW` each, or `ibm` for the built-in table.
    ///
    /// # Errors
    /// [`RenameError`], naming the rule.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, RenameError> {
        let mut rules: Vec<Rule> = Vec::new();
        for text in texts.iter().map(AsRef::as_ref) {
            if text == "ibm" {
                for (old, new) in IBM {
                    add(&mut rules, Rule::new(text, old, new)?)?;
                    add(&mut rules, Rule::new(text, &format!("private.{old}"), &format!("private.{new}"))?)?;
                }
                continue;
            }
            let (old, new) = text.split_once('=').ok_or_else(|| RenameError::Form(text.to_owned()))?;
            add(&mut rules, Rule::new(text, old, new)?)?;
        }
        if rules.is_empty() {
            return Err(RenameError::None);
        }
        rules.sort_by(|a, b| b.old.len().cmp(&a.old.len()).then_with(|| a.old.cmp(&b.old)));
        Ok(Self { rules })
    }

    /// Returns the rules, the one that is tried first being first.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Renames a reference, keeping its tag and digest; `None` when no rule applies, or when the
    /// new name would be none that a registry can have (too long).
    pub fn apply(&self, reference: &Reference) -> Option<Renamed<'_>> {
        let name = reference.repository().as_str();
        let (rule, rest) = self.rules.iter().find_map(|rule| Some((rule, rule.remainder(name)?)))?;
        let full = reference.to_string();
        let suffix = full.strip_prefix(name)?;
        let reference = Reference::parse_canonical(&format!("{}{rest}{suffix}", rule.new)).ok()?;
        Some(Renamed { reference, rule })
    }
}

fn add(rules: &mut Vec<Rule>, rule: Rule) -> Result<(), RenameError> {
    match rules.iter().find(|known| known.old == rule.old) {
        Some(known) if known.new == rule.new => Ok(()),
        Some(known) => Err(RenameError::Ambiguous { old: rule.old, first: known.new.clone(), second: rule.new }),
        None => {
            rules.push(rule);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(rules: &[&str], name: &str) -> Option<String> {
        let map = RenameMap::parse(rules).unwrap();
        map.apply(&Reference::parse(name).unwrap()).map(|renamed| renamed.reference.to_string())
    }

    #[test]
    fn ibm_moves_every_region() {
        for (old, new) in [
            ("registry.bluemix.net/a/b:1", "icr.io/a/b:1"),
            ("registry.ng.bluemix.net/birds/bluebird:build1", "us.icr.io/birds/bluebird:build1"),
            ("registry.eu-gb.bluemix.net/a/b:1", "uk.icr.io/a/b:1"),
            ("registry.eu-de.bluemix.net/a/b:1", "de.icr.io/a/b:1"),
            ("registry.au-syd.bluemix.net/a/b:1", "au.icr.io/a/b:1"),
            ("private.registry.ng.bluemix.net/a/b:1", "private.us.icr.io/a/b:1"),
        ] {
            assert_eq!(renamed(&["ibm"], old).as_deref(), Some(new));
        }
        assert_eq!(renamed(&["ibm"], "us.icr.io/a/b:1"), None);
        assert_eq!(renamed(&["ibm"], "evil-registry.bluemix.net/a/b:1"), None);
        assert_eq!(renamed(&["ibm"], "registry.bluemix.net:443/a/b:1"), None);
    }

    #[test]
    fn the_longest_rule_wins_at_a_path_boundary() {
        let rules = ["old.example=new.example", "old.example/team=team.example/x", "old.example/team/sub=z.example"];
        for (old, new) in [
            ("old.example/a:1", "new.example/a:1"),
            ("old.example/team/a:1", "team.example/x/a:1"),
            ("old.example/team:1", "team.example/x:1"),
            ("old.example/teamwork:1", "new.example/teamwork:1"),
            ("old.example/team/sub/deep:1", "z.example/deep:1"),
        ] {
            assert_eq!(renamed(&rules, old).as_deref(), Some(new), "{old}");
        }
        // A rule that would leave no repository name renames nothing.
        assert_eq!(renamed(&rules, "old.example/team/sub:1"), None);
    }

    #[test]
    fn tag_and_digest_stay() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(renamed(&["ibm"], &format!("registry.bluemix.net/a@{digest}")), Some(format!("icr.io/a@{digest}")));
        assert_eq!(
            renamed(&["docker.io=mirror.example"], "busybox:1"),
            Some("mirror.example/library/busybox:1".into())
        );
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let error = |rules: &[&str]| RenameMap::parse(rules).unwrap_err().to_string();
        insta::assert_snapshot!(error(&["azure"]), @r#"rename rule "azure" is neither OLD=NEW nor the name of a built-in table (ibm)"#);
        insta::assert_snapshot!(error(&["a.b=UPPER.case/X"]), @r#"rename rule "a.b=UPPER.case/X": "UPPER.case/X" is not a registry (host[:port]) or host[:port]/path in lower case"#);
        insta::assert_snapshot!(error(&["a.b=c.d", "a.b=e.f"]), @"two rename rules for a.b: to c.d and to e.f; keep one");
        insta::assert_snapshot!(error(&["a.b=a.b"]), @r#"rename rule "a.b=a.b" maps a name to itself"#);
        insta::assert_snapshot!(error(&[]), @"no rename rule given; add --rename OLD=NEW or --rename ibm");
        for bad in ["=x.y", "a.b=", "a.b/=c.d", "a.b=c.d:tag/x", "short=c.d", "a.b=c.d/x@sha256:1"] {
            assert!(RenameMap::parse(&[bad]).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        /// A second formulation: compare component by component.
        #[test]
        fn agrees_with_component_comparison(
            olds in proptest::collection::btree_set("h[.]x(/[ab]){0,2}", 1..4),
            name in "h[.]x(/[ab]){1,4}",
        ) {
            let rules: Vec<String> = olds.iter().enumerate().map(|(i, old)| format!("{old}=new{i}.y/z")).collect();
            let map = RenameMap::parse(&rules).unwrap();
            let parts: Vec<&str> = name.split('/').collect();
            let best = olds
                .iter()
                .enumerate()
                .filter(|(_, old)| { let o: Vec<&str> = old.split('/').collect(); parts.starts_with(&o) })
                .max_by_key(|(_, old)| old.split('/').count());
            let expected = best.map(|(i, old)| {
                let rest = parts[old.split('/').count()..].iter().map(|p| format!("/{p}")).collect::<String>();
                format!("new{i}.y/z{rest}:t")
            });
            let reference = Reference::parse(&format!("{name}:t")).unwrap();
            proptest::prop_assert_eq!(map.apply(&reference).map(|r| r.reference.to_string()), expected);
        }
    }
}
