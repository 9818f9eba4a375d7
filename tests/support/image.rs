//! Tiny images for the `dir:` transport, made by hand so that no network is needed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign::image::Digest;

/// One image as a `dir:` folder.
pub struct DirImage {
    pub dir: PathBuf,
    pub manifest: Vec<u8>,
    pub digest: Digest,
}

/// Makes an image whose single layer holds `content`, for linux on `architecture`.
pub fn image(parent: &Path, name: &str, content: &str, architecture: &str) -> DirImage {
    let dir = parent.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let tar = tar_of(parent, name, content);
    let gzip = gzip(&tar);
    let layer = put(&dir, &gzip);
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&tar)]},
        "history": [{"created_by": "countersign test"}],
    })
    .to_string();
    let config_digest = put(&dir, config.as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": config_digest},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": gzip.len(), "digest": layer}],
    })
    .to_string()
    .into_bytes();
    std::fs::write(dir.join("manifest.json"), &manifest).unwrap();
    std::fs::write(dir.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    let digest = Digest::sha256(&manifest);
    DirImage { dir, manifest, digest }
}

/// Makes a manifest list over `members` (architecture, image); all blobs lie in one folder.
pub fn list(parent: &Path, name: &str, members: &[(&str, &DirImage)]) -> DirImage {
    let dir = parent.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let mut entries = Vec::new();
    for (architecture, member) in members {
        for file in std::fs::read_dir(&member.dir).unwrap() {
            let file = file.unwrap();
            if file.file_name() != "manifest.json" {
                std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
            }
        }
        std::fs::write(dir.join(format!("{}.manifest.json", member.digest.hex())), &member.manifest).unwrap();
        entries.push(serde_json::json!({
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": member.manifest.len(), "digest": member.digest,
            "platform": {"architecture": architecture, "os": "linux"},
        }));
    }
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": entries,
    })
    .to_string()
    .into_bytes();
    std::fs::write(dir.join("manifest.json"), &manifest).unwrap();
    let digest = Digest::sha256(&manifest);
    DirImage { dir, manifest, digest }
}

fn put(dir: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    std::fs::write(dir.join(digest.hex()), bytes).unwrap();
    digest
}

fn tar_of(parent: &Path, name: &str, content: &str) -> Vec<u8> {
    let tree = parent.join(format!("{name}.tree"));
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("hello"), content).unwrap();
    let output = Command::new("tar")
        .args(["--mtime=@0", "--owner=0", "--group=0", "-c", "hello"])
        .current_dir(&tree)
        .output()
        .expect("tar runs");
    assert!(output.status.success());
    output.stdout
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new("gzip").arg("-nc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip runs");
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}
