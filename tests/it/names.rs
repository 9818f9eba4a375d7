//! Names and identities against a second formulation: the expressions of distribution/reference
//! (`fuzz/src/grammar.rs`), and the table of spec containers-image 5.5 said with texts only.

use countersign::image::{Reference, Repository};
use countersign::policy::IdentityMatch;
use proptest::prelude::*;

use crate::corpus::targets::{self, grammar};

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Texts in and around the grammar.
fn text() -> impl Strategy<Value = String> {
    let host = "(([a-cA-C0-9-]{1,3}\\.){0,2}[a-cA-C0-9-]{1,3}|localhost|(index\\.)?docker\\.io|\\[[0-9a-f:]{0,4}\\])?(:[0-9]{0,3})?";
    let path = "(/?[a-c0-9]{1,3}([._-]{0,3}[a-c0-9A]{1,2}){0,2}){0,3}(library/)?";
    let suffix = "(:[a-cA0-9_.-]{0,4})?(@sha(256|512|1):([0-9a-f]{64}|[0-9a-f]{0,5}|[0-9a-f]{128}))?";
    prop_oneof![
        (host, path, suffix, "[ /:@é]?").prop_map(|(host, path, suffix, end)| host + &path + &suffix + &end),
        (path, suffix).prop_map(|(path, suffix)| path + &suffix),
        "[a-cA0-9./:@_\\-\\[\\]é]{0,24}",
        "[a-f0-9]{63,65}",
        "[ab]{1,3}/[ab]{240,260}(:[a.]{126,130})?",
    ]
}

/// Full names over so few letters that they often meet.
fn image() -> impl Strategy<Value = String> {
    ("(a\\.b|a\\.b:1|docker\\.io|localhost)", "(a|b|a/b|library/a|b/a/b)", suffix())
        .prop_map(|(host, path, suffix)| grammar::expanded(&format!("{host}/{path}{suffix}")))
}

fn suffix() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "(:a|:b)",
        2 => "[ab]".prop_map(|digit| format!("@sha256:{}", digit.repeat(64))),
        1 => "[ab]".prop_map(|digit| format!(":a@sha256:{}", digit.repeat(64))),
        1 => Just(String::new()),
    ]
}

/// What a signature might say: names, short or broken ones too.
fn said() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => image(),
        2 => image().prop_map(|name| name.replacen("docker.io/", "", 1).replacen("library/", "", 1)),
        1 => image().prop_map(|name| name.replacen("docker.io/", "index.docker.io/", 1)),
        1 => text(),
    ]
}

#[derive(Clone, Debug)]
enum Rule {
    Exact,
    Default,
    Repository,
    ExactReference(String),
    ExactRepository(String),
    Remap(String, String),
}

fn rule() -> impl Strategy<Value = Rule> {
    let prefix = || "(a\\.b|a\\.b:1|docker\\.io|localhost|a\\.b/a|docker\\.io/library|docker\\.io/library/a|a)";
    prop_oneof![
        Just(Rule::Exact),
        Just(Rule::Default),
        Just(Rule::Repository),
        image().prop_filter("needs a tag or a digest", |name| has_more(name)).prop_map(Rule::ExactReference),
        image().prop_map(|name| Rule::ExactRepository(name_of(&name).to_owned())),
        (prefix(), prefix()).prop_map(|(prefix, signed)| Rule::Remap(prefix, signed)),
    ]
}

fn name_of(full: &str) -> &str {
    let full = full.split('@').next().unwrap();
    let slash = full.rfind('/').unwrap_or(0);
    full[slash..].find(':').map_or(full, |at| &full[..slash + at])
}

fn has_more(full: &str) -> bool {
    name_of(full) != full
}

fn has_tag(full: &str) -> bool {
    full.split('@').next().unwrap() != name_of(full)
}

fn default_rule(image: &str, said: &str) -> bool {
    has_more(said) && has_more(image) && if has_tag(image) { image == said } else { name_of(image) == name_of(said) }
}

/// The table, row by row.
fn table(rule: &Rule, image: &str, said: &str) -> bool {
    if !grammar::is_reference(said) {
        return false;
    }
    let said = grammar::expanded(said);
    match rule {
        Rule::Exact => has_more(image) && image == said,
        Rule::Default => default_rule(image, &said),
        Rule::Repository => name_of(image) == name_of(&said),
        Rule::ExactReference(wanted) => *wanted == said,
        Rule::ExactRepository(wanted) => wanted == name_of(&said),
        Rule::Remap(prefix, signed) => {
            let name = name_of(image);
            if name != prefix && !name.starts_with(&format!("{prefix}/")) {
                return default_rule(image, &said);
            }
            let image = format!("{signed}{}", &image[prefix.len()..]);
            grammar::is_reference(&image) && grammar::expanded(&image) == image && default_rule(&image, &said)
        }
    }
}

fn ours(rule: &Rule) -> IdentityMatch {
    match rule.clone() {
        Rule::Exact => IdentityMatch::MatchExact,
        Rule::Default => IdentityMatch::MatchRepoDigestOrExact,
        Rule::Repository => IdentityMatch::MatchRepository,
        Rule::ExactReference(name) => IdentityMatch::ExactReference(Reference::parse(&name).unwrap()),
        Rule::ExactRepository(name) => IdentityMatch::ExactRepository(Repository::parse(&name).unwrap()),
        Rule::Remap(prefix, signed_prefix) => IdentityMatch::RemapIdentity { prefix, signed_prefix },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn names_are_those_of_the_grammar(text in text()) {
        targets::reference(text.as_bytes());
    }

    #[test]
    fn identities_are_those_of_the_table(rule in rule(), image in image(), said in said(), same in any::<bool>()) {
        let said = if same { image.clone() } else { said };
        let parsed = Reference::parse(&image).unwrap();
        prop_assert_eq!(parsed.to_string(), image.clone());
        prop_assert_eq!(ours(&rule).accepts(Some(&parsed), &said), table(&rule, &image, &said));
        let alone = matches!(rule, Rule::ExactReference(_) | Rule::ExactRepository(_)) && table(&rule, "", &said);
        prop_assert_eq!(ours(&rule).accepts(None, &said), alone, "without a name of the image");
    }
}

/// The generators reach both answers often.
#[test]
fn the_second_formulation_is_no_parrot() {
    for (text, good) in [
        ("busybox", true),
        ("a.b:1/c/d__e:T-1", true),
        ("[::1]:5000/x", false),
        ("A.b/c", true),
        ("A/b", false),
        ("a/B", false),
        ("a___b", false),
        ("a..b/c.d", false),
        ("", false),
        (HEX, false),
        ("x@sha256:abc", false),
    ] {
        assert_eq!(grammar::is_reference(text), good, "{text}");
    }
    assert_eq!(grammar::expanded("index.docker.io/x"), "docker.io/library/x");
}
