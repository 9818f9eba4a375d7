//! Both formats, every rule for a file and its sentence.

use super::*;

fn parse(text: &str) -> Result<Document, String> {
    Document::parse(text.as_bytes(), Form::V2).map_err(|e| e.to_string())
}

fn error(text: &str) -> String {
    parse(text).map_or_else(|e| e, |_| "accepted".to_owned())
}

#[test]
fn all_that_counts_is_read() {
    let document = parse(
        r#"
unqualified-search-registries = ["docker.io", "q.io:5000/"]
credential-helpers = ["containers-auth.json"]
short-name-mode = "enforcing"
unknown = { key = 1 }
[aliases]
"x" = "q.io/x"
[[registry]]
prefix = "example.com/foo/"
location = "internal.example:5000/bar"
insecure = true
Blocked = true
mirror-by-digest-only = true
unknown = 1
[[registry.mirror]]
location = "m1.example/"
[[registry.mirror]]
location = "m2.example/x"
insecure = true
[[registry]]
location = "q.io"
mirror = [{ location = "a.b", pull-from-mirror = "tag-only" }, { location = "a.c", pull-from-mirror = "digest-only" }]
[[registry]]
prefix = "*.wild.example"
"#,
    )
    .unwrap();
    let mirror = |location: &str, insecure, pull_from| Mirror { location: location.to_owned(), insecure, pull_from };
    let foo = Registry {
        prefix: "example.com/foo".into(),
        location: "internal.example:5000/bar".into(),
        insecure: true,
        blocked: true,
        mirror_by_digest_only: true,
        mirrors: vec![
            mirror("m1.example", false, PullFromMirror::All),
            mirror("m2.example/x", true, PullFromMirror::All),
        ],
    };
    let q = Registry {
        prefix: "q.io".into(),
        location: "q.io".into(),
        mirrors: vec![mirror("a.b", false, PullFromMirror::TagOnly), mirror("a.c", false, PullFromMirror::DigestOnly)],
        ..Registry::default()
    };
    let wild = Registry { prefix: "*.wild.example".into(), ..Registry::default() };
    assert_eq!(document.registries.into_values().collect::<Vec<_>>(), [wild, foo, q]);
    assert_eq!(parse(""), Ok(Document::default()));
    assert_eq!(parse("# nothing\n[registries]\nsearch = {}"), Ok(Document::default()));
}

#[test]
fn the_first_of_a_prefix_counts() {
    let document =
        parse("[[registry]]\nprefix='a.b'\nlocation='c.d'\n[[registry]]\nprefix='a.b/'\nlocation='e.f'").unwrap();
    assert_eq!(document.registries["a.b"].location, "c.d");
}

#[test]
fn what_a_file_may_not_say() {
    for (text, sentence) in [
        ("[[registry]]\nlocation='https://a.b/'", "invalid location 'https://a.b/': URI schemes are not supported"),
        (
            "[[registry]]\nlocation='a.b'\nprefix='http://a'",
            "invalid location 'http://a': URI schemes are not supported",
        ),
        ("[[registry]]\ninsecure=true", "invalid condition: both location and prefix are unset"),
        (
            "[[registry]]\nprefix='a.b'",
            "invalid condition: location is unset and prefix is not in the format: *.example.com",
        ),
        (
            "[[registry]]\nlocation='a.b'\npull-from-mirror='all'",
            r#"pull-from-mirror must not be set for a non-mirror registry "a.b""#,
        ),
        ("[[registry]]\nlocation='a.b'\n[[registry.mirror]]", "invalid condition: mirror location is unset"),
        (
            "[[registry]]\nlocation='a.b'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='c.d'\npull-from-mirror='all'",
            r#"cannot set mirror usage mirror-by-digest-only for the registry ("a.b") and pull-from-mirror for per-mirror ("c.d") at the same time"#,
        ),
        (
            "[[registry]]\nlocation='a.b'\n[[registry.mirror]]\nlocation='c.d'\npull-from-mirror='none'",
            r#"unsupported pull-from-mirror value "none" for mirror "c.d""#,
        ),
        (
            "[[registry]]\nlocation='a.b'\n[[registry]]\nlocation='a.b'\nprefix='c.d'\ninsecure=true",
            "registry 'a.b' is defined multiple times with conflicting 'insecure' setting",
        ),
        (
            "[[registry]]\nlocation='a.b'\n[[registry]]\nlocation='a.b'\nblocked=true",
            "registry 'a.b' is defined multiple times with conflicting 'blocked' setting",
        ),
        ("unqualified-search-registries=['a.b/c']", r#"Invalid unqualified-search-registries entry "a.b/c""#),
        ("unqualified-search-registries=['']", r#"Invalid unqualified-search-registries entry """#),
        ("short-name-mode='x'", r#"invalid short-name mode: "x""#),
        (
            "[[registry]]\nprefix='*.a.b/c'",
            r#"Wildcarded prefix should be in the format: *.example.com. Current prefix "*.a.b/c" is incorrectly formatted"#,
        ),
        ("[registries.search]\nregistries=[]", "registries.conf must be in v2 format but is in v1"),
        ("[registries.block]\nregistries=['q.io']", "registries.conf must be in v2 format but is in v1"),
        (
            "\n[[registry]]\nlocation=3",
            r#"toml: line 3 (last key "registry.location"): incompatible types: TOML value has type int64; destination has type string"#,
        ),
        (
            "[[registry]]\nlocation='q'\ninsecure='true'",
            r#"toml: line 3 (last key "registry.insecure"): incompatible types: TOML value has type string; destination has type boolean"#,
        ),
        (
            "[registry]\nlocation='q'",
            r#"toml: line 1 (last key "registry"): incompatible types: TOML value has type map[string]interface {}; destination has type slice"#,
        ),
        (
            "[[registry]]\nlocation='q'\nmirror='x'",
            r#"toml: line 3 (last key "registry.mirror"): incompatible types: TOML value has type string; destination has type slice"#,
        ),
    ] {
        assert_eq!(error(text), sentence, "{text}");
    }
    for broken in ["[[registry]", "a=1\na=2", "x='\n'", "[[registry]]\nmirror=[{location='x'}"] {
        assert!(error(broken).starts_with("toml: line "), "{broken}");
    }
    let binary = Document::parse(b"a=1\nb='\xff'", Form::V2).unwrap_err().to_string();
    assert_eq!(binary, "toml: line 2: invalid UTF-8");
}

#[test]
fn the_old_format() {
    let text = "[registries.search]\nregistries=['docker.io']\n[registries.insecure]\nregistries=['a.b/','c.d']\n\
                [registries.block]\nregistries=['c.d']";
    let document = Document::parse(text.as_bytes(), Form::V1OrV2).unwrap();
    let found: Vec<_> = document.registries.values().map(|r| (r.prefix.as_str(), r.insecure, r.blocked)).collect();
    assert_eq!(found, [("a.b", true, false), ("c.d", true, true)]);
    assert_eq!(document.registries["a.b"].location, "a.b");
    let refused = |text: &str, form| Document::parse(text.as_bytes(), form).unwrap_err().to_string();
    assert_eq!(refused(text, Form::V2), "registries.conf must be in v2 format but is in v1");
    assert_eq!(refused(text, Form::V2DropIn), "registry must be in v2 format but is in v1");
    let mixed = format!("{text}\n[[registry]]\nlocation='a.b'");
    assert_eq!(refused(&mixed, Form::V1OrV2), "mixing sysregistry v1/v2 is not supported");
    let url = "[registries.block]\nregistries=['https://a.b']";
    assert_eq!(refused(url, Form::V1OrV2), "invalid location 'https://a.b': URI schemes are not supported");
}

#[test]
fn hostile_files_are_refused_without_harm() {
    for text in [format!("a={}", "[".repeat(200_000)), "[".repeat(200_000), format!("a{}=1", ".a".repeat(200_000))] {
        assert!(parse(&text).is_err());
    }
    let many: String = (0..20_000).map(|n| format!("[[registry]]\nlocation='h{n}.x'\n")).collect();
    assert_eq!(parse(&many).unwrap().registries.len(), 20_000);
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "(\\[\\[registry\\]\\]|\\[registry.mirror\\]|\\[registries.search\\]|registries|location|prefix|insecure|mirror|=|'a.b'|'\\*.a'|''|true|\\[|\\]|\\{|\\}|,|\n|é){0,24}") {
        let _ = parse(&text);
        let _ = Document::parse(text.as_bytes(), Form::V1OrV2);
    }

    #[test]
    fn what_is_written_is_read(
        registries in proptest::collection::btree_map("[a-c]{1,3}\\.[a-c]{1,3}(:[0-9])?(/[a-c]{1,2})?", ("[a-c]\\.x", proptest::bool::ANY), 0..5)
    ) {
        // One location each, for two prefixes may not disagree about one.
        let text: String = registries.iter().enumerate().map(|(n, (prefix, (location, insecure)))| {
            format!("[[registry]]\nprefix={prefix:?}\nlocation=\"{location}/{n}\"\ninsecure={insecure}\n")
        }).collect();
        let document = parse(&text).unwrap();
        let read: Vec<_> = document.registries.into_iter().map(|(p, r)| (p, r.insecure)).collect();
        let written: Vec<_> = registries.into_iter().map(|(p, (_, i))| (p, i)).collect();
        proptest::prop_assert_eq!(read, written);
    }
}
