//! Keys and trees of signatures to be worked on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use countersign::image::Digest;
use countersign::openpgp::{Signer, SoftSigner};
use countersign::signature::Claim;

/// A key in its own GnuPG home, and the files that a job needs.
pub struct Key {
    pub home: PathBuf,
    pub secret: Vec<u8>,
    pub file: PathBuf,
    pub policy: PathBuf,
    pub signer: SoftSigner,
}

impl Key {
    pub fn generate(work: &Path, algorithm: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let home = work.join(format!("gnupg-{algorithm}"));
        std::fs::create_dir(&home).unwrap();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
        let made = gpg(&home).args(["--quick-gen-key", "bench@test.invalid", algorithm, "sign", "never"]).status();
        assert!(made.expect("gpg is installed").success());
        let secret = gpg(&home).args(["--export-secret-keys"]).output().unwrap().stdout;
        let file = work.join(format!("{algorithm}.key"));
        std::fs::write(&file, &secret).unwrap();
        let policy = work.join(format!("{algorithm}.json"));
        let requirement = serde_json::json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": file});
        std::fs::write(&policy, serde_json::json!({"default": [requirement]}).to_string()).unwrap();
        let signer = SoftSigner::load(&secret, None, SystemTime::now()).unwrap();
        Self { home, secret, file, policy, signer }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(&self.home).args(["--kill", "all"]).status();
    }
}

pub fn gpg(home: &Path) -> Command {
    let mut command = Command::new("gpg");
    command.arg("--homedir").arg(home).args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"]);
    command.args(["--passphrase", "", "--trust-model", "always"]);
    command
}

/// The n-th claim, with `each` claims an image, and the key of its file in a tree.
pub fn claim(n: usize, each: usize) -> (Claim, String) {
    let image = n / each;
    let digest = Digest::sha256(format!("image {image}").as_bytes());
    let path = format!("team{}/app{}", image % 97, image % 1009);
    let place = format!("{path}@{}/signature-{}", digest.path_form(), n % each + 1);
    (Claim { reference: format!("registry.ng.bluemix.net/{path}:b{n}"), digest, creator: None, timestamp: None }, place)
}

/// Writes a tree of `count` signatures.
pub fn generate(root: &Path, signer: &SoftSigner, count: usize, each: usize, cores: usize) {
    let now = SystemTime::now();
    std::thread::scope(|scope| {
        for part in 0..cores {
            scope.spawn(move || {
                for n in (part..count).step_by(cores) {
                    let (claim, place) = claim(n, each);
                    let file = root.join(place);
                    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                    std::fs::write(file, signer.sign(&claim.render().unwrap(), now).unwrap()).unwrap();
                }
            });
        }
    });
    // What the generator left to be written is not to be paid by the job.
    rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
}
