//! What an upload of a signature must fulfil: `gate` in the server's configuration, with rules of
//! their own for parts of the registry.
//!
//! ```yaml
//! gate:
//!   policy: /etc/countersign/policy.json      # hence mode: policy
//!   namespaces:
//!     birds/: {mode: claim}                   # birds and all below; the longest prefix wins
//!     mirror/: {claim_path: end}              # the rest as above
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::namespaces::{self, Namespaces};
use crate::image::Repository;
use crate::store::StorePath;

/// How much of an upload is checked. Size, form and the digest in its name always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateMode {
    /// Nothing more: what is signed, by whom and whether at all is not looked at.
    Off,
    /// It can be read what is signed, and it is the digest that it is uploaded for.
    Claim,
    /// Also, a policy vouches for the signer and for the name.
    Policy,
}

impl GateMode {
    /// Returns the word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Claim => "claim",
            Self::Policy => "policy",
        }
    }
}

impl std::str::FromStr for GateMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Off, Self::Claim, Self::Policy]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| "expected off, claim or policy".to_owned())
    }
}

/// Which repository the name in a claim may be of, compared with the one that the signature is for.
///
/// Only paths are compared: clients reach one registry under several hosts (its own name, the
/// proxy's, those of registries.conf), but under one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClaimPath {
    /// The same path: `us.icr.io/birds/bluebird:1` in `birds/bluebird`.
    #[default]
    Same,
    /// The path's end, at a slash: also in `mirror/birds/bluebird`.
    End,
    /// Any path: also in `elsewhere`, for mirrors that rename what they keep.
    Any,
}

impl ClaimPath {
    /// Tells whether a claim for `claimed` has a place at `path`, a repository's path without host.
    pub fn fits(self, claimed: &Repository, path: &str) -> bool {
        let claimed = claimed.path();
        match self {
            Self::Same => path == claimed,
            Self::End => path.strip_suffix(claimed).is_some_and(|before| before.is_empty() || before.ends_with('/')),
            Self::Any => true,
        }
    }
}

/// The `gate` section. Every field may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateConfig {
    /// Default: `policy` if there is a `policy`, else `claim`.
    pub mode: Option<GateMode>,
    /// The policy.json of mode `policy`; it and its keys are read anew for every upload.
    pub policy: Option<PathBuf>,
    /// Which repositories' names mode `policy` takes in a claim. Default `same`.
    pub claim_path: Option<ClaimPath>,
    /// Other rules for repositories by the start of their path, at a slash; the longest wins, and
    /// what it leaves out is as above. A `policy` without a `mode` means `mode: policy`.
    #[serde(deserialize_with = "namespaces::deserialize")]
    pub namespaces: BTreeMap<StorePath, GateRuleConfig>,
}

/// One of the `namespaces`. Every field may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateRuleConfig {
    /// As [`GateConfig::mode`].
    pub mode: Option<GateMode>,
    /// As [`GateConfig::policy`].
    pub policy: Option<PathBuf>,
    /// As [`GateConfig::claim_path`].
    pub claim_path: Option<ClaimPath>,
}

/// A gate that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// Mode `policy` without a policy.
    #[error("the upload gate {0} is to ask a policy, but none is named: set `policy` (or --policy FILE)")]
    NoPolicy(String),
}

/// What goes for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateRule {
    /// [`GateMode::Off`].
    Off,
    /// [`GateMode::Claim`].
    Claim,
    /// [`GateMode::Policy`].
    Policy {
        /// The policy.json.
        file: PathBuf,
        /// Which repositories' names are taken.
        claim_path: ClaimPath,
    },
}

impl GateRule {
    /// Returns the mode.
    pub fn mode(&self) -> GateMode {
        match self {
            Self::Off => GateMode::Off,
            Self::Claim => GateMode::Claim,
            Self::Policy { .. } => GateMode::Policy,
        }
    }
}

/// The gate's rules, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateRules(Namespaces<GateRule>);

impl GateConfig {
    /// Completes the rules.
    ///
    /// # Errors
    /// [`GateError`], naming the namespace.
    pub fn rules(&self) -> Result<GateRules, GateError> {
        let implied = if self.policy.is_some() { GateMode::Policy } else { GateMode::Claim };
        let mode = self.mode.unwrap_or(implied);
        let claim_path = self.claim_path.unwrap_or_default();
        let default = rule(mode, self.policy.as_deref(), claim_path, || "of the server".to_owned())?;
        let complete = |(path, own): (&StorePath, &GateRuleConfig)| {
            let implied = if own.policy.is_some() { GateMode::Policy } else { mode };
            let policy = own.policy.as_deref().or(self.policy.as_deref());
            let claim_path = own.claim_path.unwrap_or(claim_path);
            let rule = rule(own.mode.unwrap_or(implied), policy, claim_path, || format!("of {path}/"))?;
            Ok((path.clone(), rule))
        };
        let rules = self.namespaces.iter().map(complete).collect::<Result<Vec<_>, _>>()?;
        Ok(GateRules(Namespaces::new(default, rules)))
    }
}

fn rule(
    mode: GateMode,
    policy: Option<&Path>,
    claim_path: ClaimPath,
    whose: impl FnOnce() -> String,
) -> Result<GateRule, GateError> {
    Ok(match (mode, policy) {
        (GateMode::Off, _) => GateRule::Off,
        (GateMode::Claim, _) => GateRule::Claim,
        (GateMode::Policy, Some(file)) => GateRule::Policy { file: file.to_owned(), claim_path },
        (GateMode::Policy, None) => return Err(GateError::NoPolicy(whose())),
    })
}

impl GateRules {
    /// Finds what goes for the repository with this path, `birds/bluebird`.
    pub fn of(&self, repository: &str) -> &GateRule {
        self.0.of(repository)
    }

    /// Returns what goes where no namespace has a rule of its own.
    pub fn default_rule(&self) -> &GateRule {
        self.0.default_rule()
    }

    /// Returns every policy file, each once.
    pub fn policies(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = self
            .0
            .iter()
            .filter_map(|rule| match rule {
                GateRule::Policy { file, .. } => Some(file.as_path()),
                GateRule::Off | GateRule::Claim => None,
            })
            .collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;

    fn gate(yaml: &str) -> GateConfig {
        ServerConfig::parse(yaml).unwrap().gate
    }

    fn policy(file: &str, claim_path: ClaimPath) -> GateRule {
        GateRule::Policy { file: file.into(), claim_path }
    }

    #[test]
    fn what_is_not_said_follows() {
        assert_eq!(gate("").rules().unwrap().default_rule(), &GateRule::Claim);
        assert_eq!(gate("gate: {mode: off}").rules().unwrap().default_rule(), &GateRule::Off, "no YAML boolean");
        let rules = gate("gate: {policy: p.json}").rules().unwrap();
        assert_eq!(rules.default_rule(), &policy("p.json", ClaimPath::Same));
        let rules = gate("gate: {policy: p.json, mode: claim}").rules().unwrap();
        assert_eq!(rules.default_rule(), &GateRule::Claim, "what is said counts");
        assert!(rules.policies().is_empty());
        assert_eq!(gate("gate: {namespaces: }").rules().unwrap().default_rule(), &GateRule::Claim);
    }

    #[test]
    fn the_longest_namespace_wins_at_a_slash() {
        let rules = gate(
            "gate:\n  policy: p.json\n  namespaces:\n    birds/: {mode: claim}\n    birds/of/prey: {mode: policy}\n\
             \x20   fish: {policy: q.json, claim_path: end}\n    mirror/: {claim_path: any}\n    off/: {mode: off}\n",
        )
        .rules()
        .unwrap();
        for (name, expected) in [
            ("x", policy("p.json", ClaimPath::Same)),
            ("birds", GateRule::Claim),
            ("birds/bluebird", GateRule::Claim),
            ("birdsong", policy("p.json", ClaimPath::Same)),
            ("x/birds", policy("p.json", ClaimPath::Same)),
            ("birds/of", GateRule::Claim),
            ("birds/of/prey/eagle", policy("p.json", ClaimPath::Same)),
            ("fish/carp", policy("q.json", ClaimPath::End)),
            ("mirror/x", policy("p.json", ClaimPath::Any)),
            ("off/x", GateRule::Off),
        ] {
            assert_eq!(rules.of(name), &expected, "{name}");
        }
        assert_eq!(rules.policies(), [Path::new("p.json"), Path::new("q.json")]);
    }

    #[test]
    fn a_namespace_with_a_policy_asks_it() {
        let rules = gate("gate: {namespaces: {birds/: {policy: q.json}}}").rules().unwrap();
        assert_eq!(rules.of("birds/bluebird"), &policy("q.json", ClaimPath::Same));
        assert_eq!(rules.default_rule(), &GateRule::Claim);
    }

    #[test]
    fn says_what_is_wrong() {
        for (yaml, said) in [
            ("gate: {mode: on}", "unknown variant"),
            ("gate: {polices: x}", "unknown field `polices`"),
            ("gate: {namespaces: {birds/: {modus: off}}}", "unknown field `modus`"),
            ("gate: {namespaces: {birds/: {}, birds: {}}}", "birds is there twice"),
            ("gate: {namespaces: {/birds: {}}}", "empty component"),
            ("gate: {namespaces: {../birds: {}}}", "dot component"),
            ("gate: {namespaces: {/: {}}}", "a namespace is empty"),
            ("gate: {namespaces: [birds]}", "a map from"),
        ] {
            let error = ServerConfig::parse(yaml).unwrap_err().to_string();
            assert!(error.contains(said), "{yaml}: {error}");
        }
        let error = |yaml: &str| gate(yaml).rules().unwrap_err().to_string();
        insta::assert_snapshot!(error("gate: {mode: policy}"), @"the upload gate of the server is to ask a policy, but none is named: set `policy` (or --policy FILE)");
        insta::assert_snapshot!(error("gate: {namespaces: {birds: {mode: policy}}}"), @"the upload gate of birds/ is to ask a policy, but none is named: set `policy` (or --policy FILE)");
    }

    #[test]
    fn claims_have_their_place() {
        let claimed = Repository::parse("us.icr.io/birds/bluebird").unwrap();
        let fits = |path| [ClaimPath::Same, ClaimPath::End, ClaimPath::Any].map(|rule| rule.fits(&claimed, path));
        assert_eq!(fits("birds/bluebird"), [true, true, true]);
        assert_eq!(fits("mirror/birds/bluebird"), [false, true, true]);
        assert_eq!(fits("redbirds/bluebird"), [false, false, true]);
        assert_eq!(fits("bluebird"), [false, false, true]);
        assert_eq!(fits("birds/bluebird/x"), [false, false, true]);
        let official = Repository::parse("busybox").unwrap();
        assert!(ClaimPath::Same.fits(&official, "library/busybox"));
    }
}
