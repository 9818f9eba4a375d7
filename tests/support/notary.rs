//! The real trust server and its client (Debian's `notary`), over loopback.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::token_server::TokenServer;

/// All passphrases of all keys.
const PASSPHRASE: &str = "a long passphrase";

/// What kind of trust server to start.
#[derive(Default)]
pub struct Settings<'a> {
    /// Certificate and key in PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who hands out tokens.
    pub tokens: Option<&'a TokenServer>,
}

/// A running trust server with its own keys in memory; it stops when dropped.
pub struct NotaryServer {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl NotaryServer {
    /// Starts one over plain http, open to all.
    pub fn start() -> Self {
        Self::with(&Settings::default())
    }

    /// Starts one.
    pub fn with(settings: &Settings<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            if let Some((child, address)) = try_start(dir.path(), settings) {
                let scheme = if settings.tls.is_some() { "https" } else { "http" };
                return Self { child, url: format!("{scheme}://{address}"), _dir: dir };
            }
        }
        panic!("notary-server did not start: {}", std::fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    /// `http(s)://127.0.0.1:port`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for NotaryServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn try_start(dir: &Path, settings: &Settings<'_>) -> Option<(Child, String)> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut server = serde_json::json!({ "http_addr": address });
    if let Some((certificate, key)) = &settings.tls {
        server["tls_cert_file"] = certificate.to_str().unwrap().into();
        server["tls_key_file"] = key.to_str().unwrap().into();
    }
    let mut config = serde_json::json!({
        "server": server,
        "trust_service": {"type": "local", "hostname": "", "port": "", "key_algorithm": "ed25519"},
        "logging": {"level": "error"},
        "storage": {"backend": "memory"},
    });
    if let Some(tokens) = settings.tokens {
        config["auth"] = serde_json::json!({"type": "token", "options": {
            "realm": tokens.realm(), "service": "test", "issuer": "test", "rootcertbundle": tokens.certificate(),
        }});
    }
    let file = dir.join("server.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut child = Command::new("notary-server")
        .arg("-config")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("notary-server must be installed (Debian package notary)");
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

/// A user of the real `notary` client with a folder of keys and metadata.
pub struct Notary {
    dir: tempfile::TempDir,
    server: String,
    flags: Vec<String>,
    login: Option<String>,
}

impl Notary {
    /// A user of this server.
    pub fn new(server: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, server: server.to_owned(), flags: Vec::new(), login: None }
    }

    /// With this certificate of the server's authority.
    pub fn tls_ca(mut self, certificate: &Path) -> Self {
        self.flags = vec!["--tlscacert".to_owned(), certificate.to_str().unwrap().to_owned()];
        self
    }

    /// With these credentials.
    pub fn login(mut self, user: &str, password: &str) -> Self {
        use base64::Engine as _;
        self.login = Some(base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")));
        self
    }

    /// The folder of keys and metadata, as `~/.notary`.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the client, which must succeed, and returns what it says.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "notary {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// Runs the client.
    pub fn output(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new("notary");
        for role in ["ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"] {
            command.env(format!("NOTARY_{role}_PASSPHRASE"), PASSPHRASE);
        }
        if let Some(login) = &self.login {
            command.env("NOTARY_AUTH", login);
        }
        let folder = self.dir.path().to_str().unwrap();
        let command = command.args(["-s", &self.server, "-d", folder]).args(&self.flags).args(args);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("notary must be installed (Debian package notary)");
        // `key rotate` of a root asks, and without this rotates nothing.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"yes\n");
        child.wait_with_output().unwrap()
    }

    /// Makes a repository whose snapshots the server signs, and signs these tags.
    pub fn repository(&self, gun: &str, tags: &[&str]) {
        self.run(&["init", "-p", gun]);
        self.run(&["key", "rotate", gun, "snapshot", "-r"]);
        for tag in tags {
            self.add(gun, tag, &[]);
        }
    }

    /// Signs a tag, into these roles.
    pub fn add(&self, gun: &str, tag: &str, more: &[&str]) {
        let hash = digest(tag);
        self.run(&[&["addhash", "-p", gun, tag, "123", "--sha256", &hash], more].concat());
    }
}

/// The digest that a tag has in these tests.
pub fn digest(tag: &str) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(tag))
}

/// Serves a folder of trust data below `/v2/`, as any static web server would; it stops when dropped.
pub struct StaticServer {
    child: Child,
    pub url: String,
    _dir: tempfile::TempDir,
}

impl StaticServer {
    pub fn start(folder: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder, dir.path().join("v2")).unwrap();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = Command::new("python3")
                .args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string(), "-d"])
                .arg(dir.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("python3 starts");
            for _ in 0..500 {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, url: format!("http://127.0.0.1:{port}"), _dir: dir };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("python3 -m http.server did not start");
    }
}

impl Drop for StaticServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
