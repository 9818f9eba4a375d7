//! Directories, masking, links and errors of the search, against real files.

use std::os::unix::fs::symlink;

use super::*;

fn user(uid: u32) -> Environment {
    Environment { home: "/home/u".into(), uid, euid: uid, ..Environment::default() }
}

fn directories(environment: &Environment, generation: Generation, root: Option<&str>, stem: &str) -> Vec<String> {
    drop_in_directories(environment, generation, root.map(Path::new), stem)
        .into_iter()
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn podman_6_looks_into_many() {
    let of = |environment: &Environment| directories(environment, Generation::Podman6, None, "registries");
    assert_eq!(
        of(&user(1000)),
        [
            "/home/u/.config/containers/registries.d",
            "/etc/containers/registries.rootless.d/1000",
            "/etc/containers/registries.rootless.d",
            "/etc/containers/registries.d",
            "/usr/share/containers/registries.rootless.d/1000",
            "/usr/share/containers/registries.rootless.d",
            "/usr/share/containers/registries.d",
        ]
    );
    assert_eq!(
        of(&user(0)),
        [
            "/home/u/.config/containers/registries.d",
            "/etc/containers/registries.rootful.d",
            "/etc/containers/registries.d",
            "/usr/share/containers/registries.rootful.d",
            "/usr/share/containers/registries.d",
        ]
    );
    let xdg = |value: &str| Environment { xdg_config_home: Some(value.into()), ..user(0) };
    assert_eq!(of(&xdg("/x//y/"))[0], "/x/y/containers/registries.d");
    assert_eq!(of(&xdg(""))[0], "containers/registries.d");
}

#[test]
fn who_the_user_is() {
    let as_uid = |value: &str| Environment { rootless_uid: Some(value.into()), ..user(0) };
    for (value, uid, store) in [
        ("1000", 1000, "/home/u/.local/share/containers/sigstore"),
        ("0", 0, "/var/lib/containers/sigstore"),
        ("", 0, "/var/lib/containers/sigstore"),
        ("nonsense", 0, "/var/lib/containers/sigstore"),
        ("-1", -1, "/home/u/.local/share/containers/sigstore"),
        ("99999999999999999999", i64::MAX, "/home/u/.local/share/containers/sigstore"),
    ] {
        let environment = as_uid(value);
        assert_eq!((environment.search_uid(), environment.default_store()), (uid, store.into()), "{value}");
    }
    let in_namespace = Environment { euid: 0, ..user(1000) };
    assert_eq!(
        (in_namespace.search_uid(), in_namespace.default_store()),
        (1000, "/var/lib/containers/sigstore".into())
    );
    let with_data_home = Environment { xdg_config_home: Some("/x".into()), ..user(5) };
    assert_eq!(with_data_home.default_store(), Path::new("/home/u/.local/share/containers/sigstore"));
    assert!(Environment::from_process().home.is_absolute());
}

#[test]
fn an_alternate_root_is_for_the_system_alone() {
    let listed = directories(&user(0), Generation::Podman6, Some("/alt"), "registries");
    assert_eq!(listed[0], "/home/u/.config/containers/registries.d");
    assert!(listed.iter().skip(1).all(|path| path.starts_with("/alt/etc/") || path.starts_with("/alt/usr/share/")));
    let old = directories(&user(0), Generation::Podman5, Some("/alt"), "registries");
    assert_eq!(old, ["/home/u/.config/containers/registries.d", "/alt/etc/containers/registries.d"]);
}

#[test]
fn other_names_are_searched_alike() {
    let conf = directories(&user(7), Generation::Podman6, None, "registries.conf");
    assert_eq!(
        conf[..3],
        [
            "/home/u/.config/containers/registries.conf.d",
            "/etc/containers/registries.rootless.conf.d/7",
            "/etc/containers/registries.rootless.conf.d",
        ]
    );
    assert_eq!(directories(&user(0), Generation::Podman6, None, "certs")[1], "/etc/containers/certs.rootful.d");
}

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[&str]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for file in files {
            let path = tree.0.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        tree
    }

    fn search(&self, generation: Generation) -> Search {
        let environment = Environment { home: self.0.path().join("home"), ..user(1000) };
        Search { explicit: None, root: Some(self.0.path().into()), generation, environment }
    }

    fn files(&self, search: &Search) -> Vec<String> {
        let short = |path: &PathBuf| path.strip_prefix(self.0.path()).unwrap().display().to_string();
        search.files().unwrap().iter().map(short).collect()
    }
}

const HOME: &str = "home/.config/containers/registries.d";

#[test]
fn the_nearest_file_of_each_name_is_read() {
    let tree = Tree::new(&[
        "usr/share/containers/registries.d/a.yaml",
        "usr/share/containers/registries.d/Z.yaml",
        "usr/share/containers/registries.d/b.yaml",
        "usr/share/containers/registries.d/no.yml",
        "usr/share/containers/registries.d/NO.YAML",
        "usr/share/containers/registries.d/.yaml",
        "usr/share/containers/registries.d/sub/no.yaml",
        "etc/containers/registries.d/a.yaml",
        "etc/containers/registries.yaml",
        "etc/containers/registries.rootless.d/b.yaml",
        "etc/containers/registries.rootless.d/1000/c.yaml",
        "etc/containers/registries.rootful.d/no.yaml",
        "home/.config/containers/registries.d/c.yaml",
        "home/.config/containers/registries.d/a.yaml/is-a-directory",
    ]);
    assert_eq!(
        tree.files(&tree.search(Generation::Podman6)),
        [
            "usr/share/containers/registries.d/.yaml",
            "usr/share/containers/registries.d/Z.yaml",
            "etc/containers/registries.d/a.yaml",
            "etc/containers/registries.rootless.d/b.yaml",
            "home/.config/containers/registries.d/c.yaml",
        ]
    );
    let mut old = tree.files(&tree.search(Generation::Podman5));
    old.sort();
    assert_eq!(old, [format!("{HOME}/a.yaml"), format!("{HOME}/c.yaml")]);
    fs::remove_dir_all(tree.0.path().join("home")).unwrap();
    assert_eq!(tree.files(&tree.search(Generation::Podman5)), ["etc/containers/registries.d/a.yaml"]);
}

#[test]
fn an_explicit_directory_is_the_only_one() {
    let tree = Tree::new(&["etc/containers/registries.d/a.yaml", "mine/b.yaml"]);
    for generation in [Generation::Podman6, Generation::Podman5] {
        let mut search = tree.search(generation);
        search.explicit = Some(tree.0.path().join("mine/../mine/"));
        assert_eq!(tree.files(&search), ["mine/b.yaml"]);
        search.explicit = Some(tree.0.path().join("missing"));
        assert!(search.files().unwrap().is_empty());
        search.explicit = Some(PathBuf::new());
        assert_eq!(tree.files(&search), ["etc/containers/registries.d/a.yaml"]);
    }
}

#[test]
fn a_file_in_place_of_a_directory_is_an_error() {
    let tree = Tree::new(&["mine"]);
    let path = tree.0.path().join("mine");
    for (generation, operation) in [(Generation::Podman6, "open"), (Generation::Podman5, "readdirent")] {
        let search = Search { generation, ..Search::explicit(&path) };
        let error = search.files().unwrap_err().to_string();
        assert_eq!(error, format!("{operation} {}: not a directory", path.display()));
    }
    let below = Search::explicit(path.join("below")).files().unwrap_err().to_string();
    assert_eq!(below, format!("open {}/below: not a directory", path.display()));
}

#[test]
fn links_and_vanished_files() {
    let tree = Tree::new(&["real/x.yaml", "d/a.yaml", "d/sub/x"]);
    let d = tree.0.path().join("d");
    symlink("nowhere", d.join("dangling.yaml")).unwrap();
    symlink("../real/x.yaml", d.join("link.yaml")).unwrap();
    symlink("sub", d.join("to-directory.yaml")).unwrap();
    symlink("loop.yaml", d.join("loop.yaml")).unwrap();
    let files = Search::explicit(&d).files().unwrap();
    assert_eq!(files.len(), 5, "{files:?}");
    assert_eq!(read(&d.join("link.yaml")).unwrap().unwrap(), b"real/x.yaml");
    assert!(read(&d.join("dangling.yaml")).unwrap().is_none());
    assert!(read(&d.join("vanished.yaml")).unwrap().is_none());
    let directory = read(&d.join("to-directory.yaml")).unwrap_err().to_string();
    assert_eq!(directory, format!("read {}/to-directory.yaml: is a directory", d.display()));
    let turning = read(&d.join("loop.yaml")).unwrap_err().to_string();
    assert_eq!(turning, format!("open {}/loop.yaml: too many levels of symbolic links", d.display()));
    assert!(read(Path::new("/dev/zero")).is_err());
}

proptest::proptest! {
    /// Masking said otherwise: a file is read unless a nearer directory has its name.
    #[test]
    fn masking_agrees_with_the_naive_rule(
        names in proptest::collection::btree_set((0usize..7, "[abAB]{1,2}(\\.yaml|\\.yml)?"), 0..20)
    ) {
        let tree = Tree::new(&[]);
        let search = tree.search(Generation::Podman6);
        let directories = search.directories();
        for (at, name) in &names {
            fs::create_dir_all(&directories[*at]).unwrap();
            fs::write(directories[*at].join(name), "").unwrap();
        }
        let mut naive: Vec<(&str, PathBuf)> = Vec::new();
        for (at, name) in &names {
            let masked = names.iter().any(|(nearer, other)| nearer < at && other == name);
            if name.ends_with(".yaml") && !masked {
                naive.push((name, directories[*at].join(name)));
            }
        }
        naive.sort();
        let naive: Vec<PathBuf> = naive.into_iter().map(|(_, path)| path).collect();
        proptest::prop_assert_eq!(search.files().unwrap(), naive);
    }
}
