//! The real clients, each test with a home of its own: skopeo, podman, countersign itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a client did.
#[derive(Debug)]
pub struct Ran {
    pub ok: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics with all output unless the client succeeded.
    #[track_caller]
    pub fn accepted(self) -> Self {
        assert!(self.ok, "should have succeeded: {self:#?}");
        self
    }

    /// Panics unless the client failed and said `why`.
    #[track_caller]
    pub fn refused(self, why: &str) -> Self {
        assert!(!self.ok && self.stderr.contains(why), "should have been refused for {why:?}: {self:#?}");
        self
    }
}

/// A user's machine: a home with its own configuration and container storage.
pub struct Host {
    home: tempfile::TempDir,
    gnupg: PathBuf,
}

impl Host {
    /// Makes a home; `gnupg` is the GNUPGHOME that `--sign-by` uses.
    pub fn new(gnupg: &Path) -> Self {
        let home = tempfile::Builder::new().prefix("cs-home").tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".config/containers/registries.d")).unwrap();
        Self { home, gnupg: gnupg.to_owned() }
    }

    pub fn path(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file below the home and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes the user's registries.d: the host's default lookaside, for reading and staging.
    pub fn registries_d(&self, registry: &str, lookaside: &str, staging: Option<&str>) {
        let staging = staging.map(|url| format!("    lookaside-staging: {url}\n")).unwrap_or_default();
        self.write(
            ".config/containers/registries.d/test.yaml",
            // Both spellings: skopeo 1.9.3 knows `lookaside`, podman 4.3 too; old clients `sigstore`.
            format!("docker:\n  {registry}:\n    lookaside: {lookaside}\n{staging}"),
        );
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.home.path())
            .env("GNUPGHOME", &self.gnupg)
            .env("XDG_RUNTIME_DIR", self.home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("REGISTRY_AUTH_FILE")
            .current_dir(self.home.path());
        command
    }

    pub fn skopeo(&self, args: &[&str]) -> Ran {
        Ran::of(self.command("skopeo").args(args).output().expect("skopeo is installed (make test installs it)"))
    }

    pub fn podman(&self, args: &[&str]) -> Ran {
        let storage = self.home.path().join("storage");
        let run = self.home.path().join("run");
        Ran::of(
            self.command("podman")
                .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--root"])
                .arg(storage)
                .arg("--runroot")
                .arg(run)
                .args(args)
                .output()
                .expect("podman is installed (make test installs it)"),
        )
    }

    pub fn countersign(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(env!("CARGO_BIN_EXE_countersign")).args(args).output().expect("countersign runs"))
    }

    /// Writes a policy.json that wants a signature by the keys in `keyring` on everything.
    pub fn signed_by_policy(&self, name: &str, keyring: &Path) -> PathBuf {
        self.write(
            name,
            serde_json::json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": keyring}]})
                .to_string(),
        )
    }
}

/// Returns a path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
