//! Small images and lists in skopeo's `dir:` layout, and skopeo itself to push them.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::image::Digest;

/// Docker's well-known empty layer, gzipped.
const EMPTY_LAYER: &str = "H4sIAAAJbogA/2IYBaNgFIxYAAgAAP//Lq+17wAEAAA=";
const OCI: &str = "application/vnd.oci.image";

/// A folder that `skopeo copy dir:…` reads, gone when dropped.
pub struct ImageFolder {
    dir: tempfile::TempDir,
    manifest: String,
    members: Vec<String>,
}

impl ImageFolder {
    /// An image whose digest depends on `label`.
    pub fn image(label: &str) -> Self {
        let dir = folder();
        let manifest = write_image(dir.path(), label, "amd64");
        std::fs::write(dir.path().join("manifest.json"), &manifest).unwrap();
        Self { dir, manifest, members: Vec::new() }
    }

    /// A list of two images, for amd64 and arm64.
    #[allow(dead_code, reason = "not every test file needs lists")]
    pub fn list(label: &str) -> Self {
        let dir = folder();
        let mut members = Vec::new();
        let mut entries = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let manifest = write_image(dir.path(), label, architecture);
            let digest = Digest::sha256(manifest.as_bytes());
            std::fs::write(dir.path().join(format!("{}.manifest.json", digest.hex())), &manifest).unwrap();
            entries.push(format!(
                r#"{{"mediaType":"{OCI}.manifest.v1+json","digest":"{digest}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                manifest.len()
            ));
            members.push(manifest);
        }
        let manifest =
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI}.index.v1+json","manifests":[{}]}}"#, entries.join(","));
        std::fs::write(dir.path().join("manifest.json"), &manifest).unwrap();
        Self { dir, manifest, members }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The manifest's (or list's) bytes.
    pub fn manifest(&self) -> &[u8] {
        self.manifest.as_bytes()
    }

    /// The manifest's (or list's) digest.
    pub fn digest(&self) -> Digest {
        Digest::sha256(self.manifest())
    }

    /// The manifests of a list's members.
    #[allow(dead_code, reason = "not every test file needs lists")]
    pub fn members(&self) -> &[String] {
        &self.members
    }

    /// Pushes it, all members included, to `host:port/path:tag`, with further skopeo arguments.
    pub fn push(&self, destination: &str, arguments: &[&str]) {
        let mut skopeo = self.skopeo();
        skopeo.args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]).args(arguments);
        skopeo.arg(format!("dir:{}", self.path().display())).arg(format!("docker://{destination}"));
        let output = skopeo.output().expect("skopeo must be installed (Debian package skopeo)");
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// skopeo with nothing of this machine's users in its configuration.
    fn skopeo(&self) -> Command {
        let home: PathBuf = self.path().join("home");
        let registries_d = home.join("registries.d");
        std::fs::create_dir_all(&registries_d).unwrap();
        let mut skopeo = Command::new("skopeo");
        skopeo.env("HOME", &home).env("XDG_RUNTIME_DIR", &home).env_remove("REGISTRY_AUTH_FILE");
        skopeo.arg("--registries.d").arg(&registries_d);
        skopeo
    }
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("version"), "Directory Transport Version: 1.1\n").unwrap();
    dir
}

/// Writes config and layer, and returns the manifest.
fn write_image(dir: &Path, label: &str, architecture: &str) -> String {
    let layer = STANDARD.decode(EMPTY_LAYER).unwrap();
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Labels":{{"label":"{label}"}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]}}}}"#
    );
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        std::fs::write(dir.join(digest.hex()), bytes).unwrap();
        format!(r#"{{"mediaType":"{OCI}.{media_type}","digest":"{digest}","size":{}}}"#, bytes.len())
    };
    let config = blob("config.v1+json", config.as_bytes());
    let layer = blob("layer.v1.tar+gzip", &layer);
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI}.manifest.v1+json","config":{config},"layers":[{layer}]}}"#)
}
