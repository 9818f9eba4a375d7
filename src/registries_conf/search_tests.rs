//! Which files count, against real directories.

use super::*;
use crate::host::read;

struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new(files: &[&str]) -> Self {
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        for file in files {
            let path = disk.dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        disk
    }

    fn search(&self, generation: Generation) -> Search {
        let environment =
            Environment { home: self.dir.path().join("home"), uid: 1000, euid: 1000, ..Environment::default() };
        Search { explicit: None, root: Some(self.dir.path().to_owned()), generation, environment }
    }

    fn files(&self, search: &Search) -> Vec<String> {
        let shown = |path: &Path| path.strip_prefix(self.dir.path()).unwrap_or(path).display().to_string();
        search.files().unwrap().iter().map(|file| shown(&file.path)).collect()
    }
}

const EVERYTHING: [&str; 13] = [
    "home/.config/containers/registries.conf",
    "home/.config/containers/registries.conf.d/b.conf",
    "home/.config/containers/registries.conf.d/ignored.toml",
    "etc/containers/registries.conf",
    "etc/containers/registries.conf.d/a.conf",
    "etc/containers/registries.conf.d/b.conf",
    "etc/containers/registries.rootless.conf.d/1000/c.conf",
    "etc/containers/registries.rootless.conf.d/c.conf",
    "etc/containers/registries.rootful.conf.d/z.conf",
    "usr/share/containers/registries.conf",
    "usr/share/containers/registries.conf.d/c.conf",
    "usr/share/containers/registries.conf.d/d.conf",
    "usr/share/containers/registries.rootless.conf.d/d.conf",
];

#[test]
fn podman_6_masks_by_name() {
    let disk = Disk::new(&EVERYTHING);
    let search = disk.search(Generation::Podman6);
    assert_eq!(
        disk.files(&search),
        [
            "home/.config/containers/registries.conf",
            "etc/containers/registries.conf.d/a.conf",
            "home/.config/containers/registries.conf.d/b.conf",
            "etc/containers/registries.rootless.conf.d/1000/c.conf",
            "usr/share/containers/registries.rootless.conf.d/d.conf",
        ]
    );
    let root = Search { environment: Environment { uid: 0, ..search.environment.clone() }, ..search.clone() };
    assert!(disk.files(&root).contains(&"etc/containers/registries.rootful.conf.d/z.conf".to_owned()));
    let xdg = Environment {
        xdg_config_home: Some(disk.dir.path().join("elsewhere")),
        ..disk.search(search.generation).environment
    };
    let xdg = Search { environment: xdg, ..search };
    assert_eq!(disk.files(&xdg)[0], "etc/containers/registries.conf");
    fs::remove_file(disk.dir.path().join("etc/containers/registries.conf")).unwrap();
    assert_eq!(disk.files(&xdg)[0], "usr/share/containers/registries.conf");
}

#[test]
fn variables_replace_and_append() {
    let disk = Disk::new(&EVERYTHING);
    let mut search = disk.search(Generation::Podman6);
    search.environment.registries_conf_override = Some("/over.conf".into());
    assert_eq!(disk.files(&search).last().unwrap(), "/over.conf");
    assert_eq!(disk.files(&search).len(), 6);
    search.environment.registries_conf = Some("/one.conf".into());
    assert_eq!(disk.files(&search), ["/one.conf", "/over.conf"]);
    assert!(search.files().unwrap().iter().all(|file| file.named));
    search.environment.registries_conf = Some("".into());
    assert_eq!(disk.files(&search).len(), 6, "empty is unset");
    search.explicit = Some("/mine.conf".into());
    assert_eq!(disk.files(&search), ["/mine.conf"]);
    let old = Search { generation: Generation::Podman5, explicit: None, ..search };
    assert_eq!(disk.files(&old).len(), 2, "Podman 5 has no such variables");
}

#[test]
fn podman_5_takes_the_users_or_the_systems() {
    let disk = Disk::new(&EVERYTHING);
    let search = disk.search(Generation::Podman5);
    let user = ["home/.config/containers/registries.conf", "home/.config/containers/registries.conf.d/b.conf"];
    assert_eq!(disk.files(&search), user);
    fs::remove_file(disk.dir.path().join(user[0])).unwrap();
    let system = [
        "etc/containers/registries.conf",
        "etc/containers/registries.conf.d/a.conf",
        "etc/containers/registries.conf.d/b.conf",
        "home/.config/containers/registries.conf.d/b.conf",
    ];
    assert_eq!(disk.files(&search), system, "no masking: the user's comes last, and wins prefix by prefix");
    let files = search.files().unwrap();
    assert_eq!((files[0].form, files[1].form, files[0].named), (Form::V1OrV2, Form::V2DropIn, false));
    let explicit = Search { explicit: Some("/mine.conf".into()), ..search.clone() };
    assert_eq!(disk.files(&explicit)[1..], system[1..], "skopeo --registries-conf still reads the drop-ins");
    assert!(explicit.files().unwrap()[0].named);

    // A link to a directory is not entered.
    let linked = disk.dir.path().join("etc/containers/registries.conf.d");
    fs::rename(&linked, disk.dir.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(disk.dir.path().join("moved"), &linked).unwrap();
    assert_eq!(disk.files(&search), [system[0], system[3]]);
    let new = disk.search(Generation::Podman6);
    assert!(disk.files(&new).contains(&system[1].to_owned()));
}

#[test]
fn directories_with_the_name_of_a_file_do_not_count() {
    let disk = Disk::new(&["etc/containers/registries.conf.d/x.conf/y.conf"]);
    for generation in [Generation::Podman5, Generation::Podman6] {
        let files = disk.files(&disk.search(generation));
        assert!(files.iter().all(|file| !file.contains(".d/")), "{files:?}");
    }
    let disk = Disk::new(&["etc/containers/registries.conf.d"]);
    let error = disk.search(Generation::Podman6).files().unwrap_err().to_string();
    assert!(error.starts_with("open /") && error.ends_with("registries.conf.d: not a directory"), "{error}");
}

#[test]
fn only_ordinary_files_are_read() {
    let disk = Disk::new(&["x.conf"]);
    assert_eq!(read(&disk.dir.path().join("x.conf")).unwrap(), b"");
    let error = read(disk.dir.path()).unwrap_err().to_string();
    assert_eq!(error, format!("read {}: is a directory", disk.dir.path().display()));
    let missing = read(&disk.dir.path().join("y.conf")).unwrap_err();
    assert!(missing.is_not_found() && missing.is_open());
}
