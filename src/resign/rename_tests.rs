//! The domain map, rule by rule.

use super::rename::{RenameMap, Renaming};
use crate::image::Reference;

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
    assert_eq!(renamed(&["docker.io=mirror.example"], "busybox:1"), Some("mirror.example/library/busybox:1".into()));
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let error = |rules: &[&str]| RenameMap::parse(rules).unwrap_err().to_string();
    insta::assert_snapshot!(error(&["azure"]), @r#"rename rule "azure" is neither OLD=NEW nor the name of a built-in table (ibm)"#);
    insta::assert_snapshot!(error(&["a.b=UPPER.case/X"]), @r#"rename rule "a.b=UPPER.case/X": "UPPER.case/X" is not a registry (host[:port]) or host[:port]/path in lower case"#);
    insta::assert_snapshot!(error(&["a.b=c.d", "a.b=e.f"]), @"two rename rules for a.b: to c.d (command line) and to e.f (command line); keep one");
    insta::assert_snapshot!(error(&["a.b=a.b"]), @r#"rename rule "a.b=a.b" maps a name to itself"#);
    insta::assert_snapshot!(error(&[]), @"no rename rule given; add --rename OLD=NEW, --rename ibm or --rename-file F");
    insta::assert_snapshot!(error(&["a.b=a.b/x"]), @"rename rule a.b=a.b/x (command line) makes names that it would rename again at the next run");
    insta::assert_snapshot!(error(&["a.b=c.d", "c.d=e.f"]), @"rename rule a.b=c.d (command line) makes names that rule c.d=e.f (command line) renames again; name the last name in one rule, or run two jobs");
    assert!(RenameMap::parse(&["a.b=c.d", "c.d=a.b"]).is_err(), "a swap");
    assert!(RenameMap::parse(&["a.b=c.d", "a.b/team=a.b/other"]).is_err());
    for bad in ["=x.y", "a.b=", "a.b/=c.d", "a.b=c.d:tag/x", "short=c.d", "a.b=c.d/x@sha256:1"] {
        assert!(RenameMap::parse(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn a_rule_is_applied_once() {
    let map = RenameMap::parse(&["ng.example=us.example", "us.example/birds=de.example/birds"]).unwrap();
    let rename = |name: &str| map.rename(&Reference::parse(name).unwrap());
    assert!(matches!(rename("ng.example/fish:1"), Renaming::To(_)));
    assert!(matches!(rename("us.example/birds/x:1"), Renaming::To(_)));
    assert!(matches!(rename("ng.example/birds/x:1"), Renaming::Again { .. }), "the next run would move it on");
    let flat = RenameMap::parse(&["a.b/team=a.b"]).unwrap();
    assert!(matches!(flat.rename(&Reference::parse("a.b/team/team/x:1").unwrap()), Renaming::Again { .. }));
    assert!(matches!(flat.rename(&Reference::parse("a.b/team:1").unwrap()), Renaming::NoName { .. }));
    assert_eq!(RenameMap::parse_recorded("a.b/team=a.b").unwrap(), flat);
    assert!(RenameMap::parse_recorded("").is_err());
}

#[test]
fn names_that_meet_are_told() {
    let told = |rules: &[&str]| RenameMap::parse(rules).unwrap().collisions();
    assert!(told(&["ibm"]).is_empty());
    assert_eq!(told(&["a.b=x.y", "c.d=x.y"]), ["a.b and c.d both become x.y"]);
    assert!(told(&["a.b=x.y", "a.b/t=x.y/t"]).is_empty(), "they agree");
    assert_eq!(
        told(&["ibm", "registry.ng.bluemix.net/birds=de.icr.io/birds"]),
        ["registry.ng.bluemix.net/birds and registry.eu-de.bluemix.net/birds both become de.icr.io/birds"]
    );
    let elsewhere = ["a.b=x.y", "c.d/t=x.y/t", "a.b/t=z.y"];
    assert!(told(&elsewhere).is_empty(), "a longer rule takes it away");
}

proptest::proptest! {
    #[test]
    fn never_panics(rules in proptest::collection::vec("[a-c./=:]{0,12}|ibm", 0..5), name in "[a-c./:]{1,12}") {
        if let Ok(map) = RenameMap::parse(&rules) {
            if let Ok(name) = Reference::parse(&name) {
                let _ = map.rename(&name);
            }
            map.collisions();
            let words: Vec<String> = map.rules().iter().map(ToString::to_string).collect();
            proptest::prop_assert!(RenameMap::parse_recorded(&words.join(" ")).is_ok());
        }
    }

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
