//! The servers that are driven: countersign, and nginx set up as one sets it up for speed.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::server::Server;

/// A server under load.
pub struct Peer {
    pub name: &'static str,
    /// `http://127.0.0.1:port` or https.
    pub url: String,
    pids: Vec<u32>,
    _running: Running,
}

#[allow(dead_code, reason = "held for their end")]
enum Running {
    Ours(Server),
    Nginx(Nginx),
}

struct Nginx {
    child: Child,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // QUIT to the master ends the workers too; KILL would leave them behind.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// A certificate for loopback and its key.
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

pub fn certificate(work: &Path) -> Certificate {
    let (chain, key) = (work.join("bench.crt"), work.join("bench.key"));
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Certificate { chain, key }
}

impl Peer {
    /// Starts countersign with these flags.
    pub fn countersign(args: &[&str], tls: Option<&Certificate>) -> Self {
        // nginx writes no access log either.
        let mut all = [&["--log", "warn"], args].concat();
        if let Some(tls) = tls {
            all.extend(["--tls-cert", tls.chain.to_str().unwrap(), "--tls-key", tls.key.to_str().unwrap()]);
        }
        Self::ours(Server::start(&all), if tls.is_some() { "https" } else { "http" })
    }

    /// Starts countersign with these flags and variables.
    pub fn countersign_with(args: &[&str], variables: &BTreeMap<String, String>) -> Self {
        Self::ours(Server::start_with(&[&["--log", "warn"], args].concat(), variables), "http")
    }

    fn ours(server: Server, scheme: &str) -> Self {
        let url = format!("{scheme}://{}", server.address);
        Self { name: "countersign", url, pids: vec![server.pid()], _running: Running::Ours(server) }
    }

    /// Starts nginx with two workers and this inside its `server` block.
    pub fn nginx(work: &Path, inside: &str, tls: Option<&Certificate>) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::Builder::new().prefix("nginx").tempdir_in(work).unwrap().keep();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (flag, files) = match tls {
            Some(tls) => {
                // nginx' own default since 1.23.4; before, it spoke TLS 1.2 at most.
                let files = format!(
                    "ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {}; ssl_certificate_key {};",
                    tls.chain.display(),
                    tls.key.display()
                );
                (" ssl", files)
            }
            None => ("", String::new()),
        };
        let folder_text = folder.display();
        let config = format!(
            "user root; worker_processes 2; daemon off; pid {folder_text}/pid; error_log {folder_text}/error.log;\n\
             worker_rlimit_nofile 20000;\n\
             events {{ worker_connections 10000; }}\n\
             http {{\n  sendfile on; access_log off; keepalive_requests 1000000000;\n  \
             open_file_cache max=20000 inactive=300s; open_file_cache_valid 300s; open_file_cache_errors on;\n  \
             client_max_body_size 0; client_body_temp_path {folder_text}/body; proxy_temp_path {folder_text}/proxy;\n  \
             fastcgi_temp_path {folder_text}/f; uwsgi_temp_path {folder_text}/u; scgi_temp_path {folder_text}/s;\n  \
             default_type application/octet-stream;\n  \
             server {{ listen {address}{flag} backlog=1024; {files}\n{inside}\n  }}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed (Debian package nginx-light)");
        let nginx = Nginx { child };
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            let log = folder.join("error.log");
            assert!(Instant::now() < end, "nginx did not start: {}", std::fs::read_to_string(log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let master = nginx.child.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
        let pids = children.split_whitespace().map(|pid| pid.parse().unwrap()).chain([master]).collect();
        Self { name: "nginx", url: format!("{scheme}://{address}"), pids, _running: Running::Nginx(nginx) }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// What all of its processes have used of the processors.
    pub fn cpu_seconds(&self) -> f64 {
        self.pids.iter().map(|pid| cpu_seconds(*pid)).sum()
    }

    /// Its memory now, and at its peak, in KiB.
    pub fn memory(&self) -> (u64, u64) {
        let sum = |name: &str| self.pids.iter().map(|pid| status(*pid, name)).sum();
        (sum("VmRSS:"), sum("VmHWM:"))
    }
}

fn cpu_seconds(pid: u32) -> f64 {
    /// Linux' USER_HZ, the unit of /proc/PID/stat.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

fn status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
