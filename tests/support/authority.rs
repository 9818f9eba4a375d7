//! A private certificate authority.

use std::path::PathBuf;
use std::process::Command;

/// A private authority and what it issued, made by openssl.
pub struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self { dir: tempfile::tempdir().unwrap() };
        authority.openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt");
        for (name, extension) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
        {
            authority.issue(name, extension);
        }
        authority
    }

    /// Makes `<name>.key` and `<name>.cert`.
    pub fn issue(&self, name: &str, extension: &str) {
        std::fs::write(self.file("extensions"), extension).unwrap();
        self.openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.cert"
        ));
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").current_dir(&self.dir).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes `<certs.d>/<host>` with the named files, and returns `certs.d`.
    pub fn certs_d(&self, name: &str, host: &str, files: &[&str]) -> PathBuf {
        let certs_d = self.file(name);
        std::fs::create_dir_all(certs_d.join(host)).unwrap();
        for file in files {
            std::fs::copy(self.file(file), certs_d.join(host).join(file)).unwrap();
        }
        certs_d
    }
}
