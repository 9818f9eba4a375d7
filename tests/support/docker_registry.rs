//! A real registry (Debian's `docker-registry`) on a free port of loopback, over a temporary folder.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What kind of registry to start.
#[derive(Default)]
pub struct Settings {
    htpasswd: Option<(String, String)>,
    token: Option<(String, PathBuf)>,
    autoredirect: bool,
    tls: Option<Tls>,
    headers: Vec<(String, String)>,
}

/// The files of a registry with TLS.
#[derive(Clone)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// If set, clients must show a certificate of this authority.
    pub client_authority: Option<PathBuf>,
}

#[allow(dead_code, reason = "not every test file needs every setting")]
impl Settings {
    /// Wants Basic authentication with this user.
    pub fn htpasswd(mut self, user: &str, password: &str) -> Self {
        self.htpasswd = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Wants tokens of `realm`, signed by `certificate`'s key.
    pub fn token(mut self, realm: &str, certificate: &Path) -> Self {
        self.token = Some((realm.to_owned(), certificate.to_owned()));
        self
    }

    /// Names its token server by the host of each request (`auth.token.autoredirect`).
    pub fn autoredirect(mut self) -> Self {
        self.autoredirect = true;
        self
    }

    /// Serves https.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Adds a header to every answer.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    pub fn start(self) -> DockerRegistry {
        let dir = tempfile::tempdir().unwrap();
        // Another process may take the port between our look and the registry's.
        for _ in 0..5 {
            if let Some((child, address)) = self.try_start(dir.path()) {
                return DockerRegistry { child, address, _dir: dir };
            }
        }
        panic!("docker-registry did not start: {}", log(dir.path()));
    }

    fn try_start(&self, dir: &Path) -> Option<(Child, String)> {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let config = dir.join("config.yml");
        std::fs::write(&config, self.config(dir, &address)).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        for (name, _) in std::env::vars_os() {
            // `REGISTRY_…` variables would override the configuration.
            if name.to_string_lossy().starts_with("REGISTRY_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry must be installed (Debian package docker-registry)");
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(&address).is_ok() {
                return Some((child, address));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }

    fn config(&self, dir: &Path, address: &str) -> String {
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {0}/data\n  delete:\n    enabled: true\n\
             http:\n  addr: {address}\n",
            dir.display()
        );
        if let Some(tls) = &self.tls {
            let _ = writeln!(
                config,
                "  tls:\n    certificate: {}\n    key: {}",
                tls.certificate.display(),
                tls.key.display()
            );
            if let Some(authority) = &tls.client_authority {
                let _ = writeln!(config, "    clientcas:\n      - {}", authority.display());
            }
        }
        if !self.headers.is_empty() {
            config.push_str("  headers:\n");
            for (name, value) in &self.headers {
                let _ = writeln!(config, "    {name}: [\"{value}\"]");
            }
        }
        if let Some((user, password)) = &self.htpasswd {
            let file = dir.join("htpasswd");
            let made = Command::new("htpasswd").args(["-Bbn", user, password]).output();
            let made = made.expect("htpasswd must be installed (Debian package apache2-utils)");
            std::fs::write(&file, made.stdout).unwrap();
            let _ = writeln!(config, "auth:\n  htpasswd:\n    realm: test\n    path: {}", file.display());
        }
        if let Some((realm, certificate)) = &self.token {
            let _ = writeln!(
                config,
                "auth:\n  token:\n    autoredirect: {}\n    realm: {realm}\n    service: test\n    issuer: test\n    rootcertbundle: {}",
                self.autoredirect,
                certificate.display()
            );
        }
        config
    }
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// A running registry; it stops when dropped.
pub struct DockerRegistry {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

#[allow(dead_code, reason = "not every test file needs every kind")]
impl DockerRegistry {
    /// Starts one over plain http, open to all.
    pub fn start() -> Self {
        Settings::default().start()
    }

    /// Starts one over plain http that wants Basic authentication.
    pub fn with_htpasswd(user: &str, password: &str) -> Self {
        Settings::default().htpasswd(user, password).start()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(dead_code, reason = "not every test file needs every kind")]
impl DockerRegistry {
    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it, so that connections are refused.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again over the same data, refusing all writes.
    pub fn restart_read_only(&mut self) {
        let config = self._dir.path().join("config.yml");
        let text = std::fs::read_to_string(&config).unwrap();
        let read_only = "  maintenance:\n    readonly:\n      enabled: true\nhttp:";
        std::fs::write(&config, text.replacen("http:", read_only, 1)).unwrap();
        self.restart();
    }

    /// Starts it again over the same data and on the same port.
    pub fn restart(&mut self) {
        self.stop();
        self.child = Command::new("docker-registry")
            .arg("serve")
            .arg(self._dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < end, "docker-registry did not start again");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
