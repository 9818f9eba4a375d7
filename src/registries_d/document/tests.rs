//! Every statement of the schema (spec containers-image 1.3), and YAML that parsers read differently.

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
fn a_question_mark_ends_a_plain_scalar_in_a_flow_mapping() {
    let url = "https://h/x?t=y";
    for fine in [
        format!("docker:\n  a:\n    lookaside: {url}\n"),
        format!("docker: {{a: {{lookaside: '{url}'}}}}"),
        format!("docker: {{a: {{lookaside: \"{url}\"}}}}"),
        format!("u: &u {url}\ndocker: {{a: {{lookaside: *u}}}}"),
        format!("s: &s\n  lookaside: {url}\ndocker: {{a: {{<<: *s}}}}"),
        format!("s: &s\n  lookaside: {url}\ndocker:\n  a: *s\n"),
    ] {
        assert_eq!(a(&fine).0, url, "{fine}");
    }
    for (text, place) in [
        (format!("docker: {{a: {{lookaside: {url}}}}}"), ""),
        (format!("docker:\n  a: {{lookaside: {url}}}"), "line 1: "),
        (format!("docker:\n  a: &x !t\n    {{lookaside: {url}}}"), "line 1: "),
        ("docker:\n  {a?b: }".to_owned(), "line 1: "),
        (format!("s: &s {{lookaside: {url}}}\ndocker:\n  a:\n    <<: *s\n"), ""),
    ] {
        assert_eq!(parse(&text), Err(format!("yaml: {place}did not find expected ',' or '}}'")), "{text}");
    }
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
        bomb += &format!("a{n}: &a{n} {{<<: [*a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}]}}\n", m = n - 1);
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

#[test]
fn many_keys_and_deep_nests_are_bounded() {
    let keys = |count: usize, same: usize| {
        let section = |n: usize| format!("  h{}.example: {{lookaside: 'https://h/{n}'}}\n", n / same);
        format!("docker:\n{}", (0..count).map(section).collect::<String>())
    };
    assert_eq!(Document::parse(keys(20_000, 1).as_bytes()).unwrap().docker.len(), 20_000);
    let Err(YamlError::Shape(errors)) = Document::parse(keys(20_000, 2).as_bytes()) else { panic!("all are doubled") };
    assert!((3..=100).contains(&errors.len()) && errors[0].contains("already defined at line 2"), "{errors:?}");
    let Err(YamlError::Shape(errors)) = Document::parse(keys(300, 2).as_bytes()) else { panic!("all are doubled") };
    assert_eq!(errors.len(), 100, "a small file is told as many as ever");
    for deep in ["[".repeat(1 << 20), format!("x: {}{}", "{a: ".repeat(1 << 18), "}".repeat(1 << 18))] {
        let error = Document::parse(deep.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "yaml: line 1: exceeded max depth of 10000");
    }
    let indented = format!("docker:\n {}x\n", "- ".repeat(100_000));
    let error = Document::parse(indented.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("max depth"), "{error}");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..20 {
        let above = format!("*a{}", n - 1);
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", [above.as_str(); 9].join(", ")));
    }
    bomb.push_str("docker: *a19\n");
    let error = Document::parse(bomb.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("excessive aliasing"), "{error}");
}

#[test]
fn deep_nesting_needs_no_deep_stack() {
    let work = || {
        for text in ["- ".repeat(100_000), format!("docker:\n {}x", "? ".repeat(50_000)), "[".repeat(250)] {
            Document::parse(text.as_bytes()).unwrap_err();
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
}
