//! Merging, the longest prefix, the order of sources, and what is blocked.

use super::*;
use crate::host::{Environment, Generation};

fn configuration(text: &str) -> Configuration {
    let mut configuration = Configuration::default();
    configuration.add(Path::new("/r.conf"), text.as_bytes(), Form::V2).unwrap_or_else(|e| panic!("{e}"));
    configuration
}

fn sources(text: &str, image: &str) -> Vec<String> {
    let image = ImageReference::parse(image).unwrap();
    let found = configuration(text).pull_sources(&image).unwrap_or_else(|e| panic!("{e}"));
    let show = |source: PullSource| {
        let mark = |yes, word| if yes { word } else { "" };
        let (mirror, insecure) = (mark(source.is_mirror, " mirror"), mark(source.insecure, " insecure"));
        format!("{}{mirror}{insecure}{}", source.reference, mark(source.blocked.is_some(), " blocked"))
    };
    found.sources.into_iter().map(show).collect()
}

#[test]
fn nobody_speaks_of_it() {
    let image = ImageReference::parse("busybox").unwrap();
    let found = configuration("[[registry]]\nlocation='q.io'").pull_sources(&image).unwrap();
    assert_eq!(found.prefix, None);
    let source = &found.sources[0];
    assert_eq!(source.reference.to_string(), "docker.io/library/busybox:latest");
    assert_eq!((source.insecure, source.is_mirror, &source.from), (false, false, &None));
}

#[test]
fn the_longest_prefix_wins() {
    let text = "[[registry]]\nprefix='aa.b'\nlocation='host.x'\n[[registry]]\nprefix='aa.b/n'\nlocation='ns.x'\n\
                [[registry]]\nprefix='aa.b/n/r'\nlocation='repo.x/y'\n[[registry]]\nprefix='*.b'\nlocation='wild.x'\n\
                [[registry]]\nprefix='cc.b'\nlocation='plain.x'\n[[registry]]\nprefix='*.z.b'\nlocation='wilder.x'\n\
                [[registry]]\nprefix='y.z.b'\nlocation='same.x'";
    for (image, physical) in [
        ("aa.b/other:1", "host.x/other:1"),
        ("aa.b/n/other:1", "ns.x/other:1"),
        ("aa.b/n/r:1", "repo.x/y:1"),
        ("aa.b/nn:1", "host.x/nn:1"),
        ("aa.b:5000/n/r:1", "host.x:5000/n/r:1"),
        ("d.b/n:1", "wild.x/n:1"),
        ("x.y.b:5000/n:1", "wild.x:5000/n:1"),
        ("cc.b/n:1", "plain.x/n:1"),
        ("x.z.b/n:1", "wilder.x/n:1"),
        // Of two prefixes of one length, the one that sorts first: the wildcard (as skopeo 1.9.3).
        ("y.z.b/n:1", "wilder.x/n:1"),
    ] {
        assert_eq!(sources(text, image), [physical], "{image}");
    }
}

#[test]
fn mirrors_come_first() {
    let digest = format!("@sha256:{}", "a".repeat(64));
    let text = |registry: &str, first: &str, second: &str| {
        format!(
            "[[registry]]\nprefix='a.b/foo'\nlocation='a.b/bar'\n{registry}\n[[registry.mirror]]\nlocation='m1.x'\n{first}\n\
             [[registry.mirror]]\nlocation='m2.x/p'\ninsecure=true\n{second}"
        )
    };
    let (digest_only, tag_only) = ("pull-from-mirror='digest-only'", "pull-from-mirror='tag-only'");
    let all = ["m1.x/i# mirror", "m2.x/p/i# mirror insecure", "a.b/bar/i#"];
    let check = |text: &str, tagged: &[&str], digested: &[&str]| {
        for (name, expected) in [(":t", tagged), (digest.as_str(), digested)] {
            let expected: Vec<String> = expected.iter().map(|e| e.replace('#', name)).collect();
            assert_eq!(sources(text, &format!("a.b/foo/i{name}")), expected, "{text}");
        }
    };
    check(&text("", "", ""), &all, &all);
    check(&text("mirror-by-digest-only=true", "", ""), &all[2..], &all);
    check(&text("", digest_only, "pull-from-mirror='all'"), &all[1..], &all);
    check(&text("", digest_only, tag_only), &all[1..], &[all[0], all[2]]);
    check(&text("", tag_only, tag_only), &all, &all[2..]);
}

#[test]
fn blocking_goes_by_the_physical_name() {
    // As skopeo 1.9.3 does: the first blocks nothing, the mirror of the second is refused alone.
    let moved = "[[registry]]\nprefix='x.y'\nlocation='z.y'\nblocked=true";
    assert_eq!(sources(moved, "x.y/a:1"), ["z.y/a:1"]);
    let plain = "[[registry]]\nlocation='x.y'\nblocked=true\n[[registry]]\nlocation='a.b'\n[[registry.mirror]]\nlocation='x.y/q'";
    assert_eq!(sources(plain, "x.y/a:1"), ["x.y/a:1 blocked"]);
    assert_eq!(sources(plain, "a.b/a:1"), ["x.y/q/a:1 mirror blocked", "a.b/a:1"]);
    let found = configuration(plain).pull_sources(&ImageReference::parse("a.b/a:1").unwrap()).unwrap();
    let blocked = found.sources[0].blocked.clone().unwrap();
    assert_eq!((blocked.prefix.as_str(), blocked.from), ("x.y", PathBuf::from("/r.conf")));
}

#[test]
fn one_bad_source_spoils_all() {
    let text = "[[registry]]\nlocation='a.b'\n[[registry.mirror]]\nlocation='short'";
    let error = configuration(text).pull_sources(&ImageReference::parse("a.b/x:1").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "rewriting reference: repository name must be canonical");
    assert_eq!((error.prefix.as_str(), error.from), ("a.b", PathBuf::from("/r.conf")));
}

#[test]
fn later_files_replace_prefix_by_prefix() {
    let mut merged = configuration(
        "[[registry]]\nlocation='a.b'\ninsecure=true\n[[registry.mirror]]\nlocation='m.x'\n[[registry]]\nlocation='c.d'",
    );
    merged.add(Path::new("/d.conf"), b"[[registry]]\nlocation='a.b'", Form::V2).unwrap();
    let a = &merged.registries["a.b"];
    assert_eq!((a.registry.insecure, a.registry.mirrors.len(), a.path.as_path()), (false, 0, Path::new("/d.conf")));
    assert_eq!(merged.registries["c.d"].path, Path::new("/r.conf"));
    assert_eq!(merged.files, [Path::new("/r.conf"), Path::new("/d.conf")]);
    let before = merged.clone();
    assert!(merged.add(Path::new("/e.conf"), b"[[registry]]\nlocation='e.f'\n[[registry]]", Form::V2).is_err());
    assert_eq!(merged, before);
}

#[test]
fn loading() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let search = |generation| Search {
        explicit: None,
        root: Some(root.path().to_owned()),
        generation,
        environment: Environment { home: root.path().join("home"), ..Environment::default() },
    };
    let load = |generation| Configuration::load(&search(generation)).map_err(|e| e.to_string());
    assert_eq!(load(Generation::Podman6), Ok(Configuration::default()), "no file is no error");
    assert_eq!(load(Generation::Podman5), Ok(Configuration::default()));

    let main = write("etc/containers/registries.conf", "[registries.insecure]\nregistries=['a.b']");
    assert!(load(Generation::Podman5).unwrap().registries["a.b"].registry.insecure);
    assert_eq!(
        load(Generation::Podman6),
        Err(format!(
            "loading registries configuration \"{}\": registries.conf must be in v2 format but is in v1",
            main.display()
        ))
    );
    let drop_in = write("etc/containers/registries.conf.d/x.conf", "[registries.insecure]\nregistries=['a.b']");
    assert_eq!(
        load(Generation::Podman5),
        Err(format!(
            "loading drop-in registries configuration \"{}\": registry must be in v2 format but is in v1",
            drop_in.display()
        ))
    );
    std::fs::remove_file(&drop_in).unwrap();
    std::os::unix::fs::symlink("nowhere", &drop_in).unwrap();
    assert!(load(Generation::Podman5).is_ok(), "a link that leads nowhere is passed by");
    let missing = |generation| {
        let search = Search { explicit: Some(root.path().join("none.conf")), ..search(generation) };
        Configuration::load(&search).unwrap_err().to_string().replace(&root.path().display().to_string(), "")
    };
    assert_eq!(missing(Generation::Podman6), "open /none.conf: no such file or directory");
    assert!(missing(Generation::Podman5).starts_with("loading registries configuration \""));
}

proptest::proptest! {
    /// The rule said backwards: no other prefix that matches is longer.
    #[test]
    fn nothing_longer_matches(
        prefixes in proptest::collection::btree_set("(\\*\\.b|\\*\\.a\\.b|[ab]\\.b)|[ab]\\.b(:1)?(/[ab]){0,2}", 0..6),
        image in "([ab]\\.)?[ab]\\.b(:1)?(/[ab]){1,3}:t",
    ) {
        let text: String =
            prefixes.iter().enumerate().map(|(n, p)| format!("[[registry]]\nprefix='{p}'\nlocation='h{n}.x'\n")).collect();
        let configuration = configuration(&text);
        let image = ImageReference::parse(&image).unwrap();
        let name = image.repository().as_str();
        let matching = || prefixes.iter().filter(|p| matching_length(name, p).is_some());
        let found = configuration.find(name).map(|placed| placed.registry.prefix.clone());
        proptest::prop_assert_eq!(found.is_some(), matching().next().is_some());
        if let Some(found) = found {
            proptest::prop_assert!(matching().all(|p| p.len() <= found.len()));
            let sources = configuration.pull_sources(&image);
            proptest::prop_assert!(sources.is_err() || sources.unwrap().sources.len() == 1);
        }
    }
}
