//! A running `countersign serve`, stopped by its own pid when dropped.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub struct Server {
    child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
    log: PathBuf,
    talk: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server on a free port with further flags; waits until it says where it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, [("", ""); 0])
    }

    /// Starts it in an environment with further variables.
    pub fn start_with<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        args: &[&str],
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(args).envs(variables).stdin(Stdio::null());
        Self::of(command)
    }

    /// Starts a server by a command that leads to one.
    pub fn of(mut command: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut child = command
            .env("HOME", dir.path())
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("countersign starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.strip_prefix("countersign serves on http")?.split_once("://").map(|(_, rest)| rest.to_owned())
            })
            .unwrap_or_else(|| panic!("no address: {}", std::fs::read_to_string(&log).unwrap_or_default()));
        // The rest of the talk is drained, so that the server never blocks on a full pipe.
        let talk = Arc::new(Mutex::new(Vec::new()));
        let heard = talk.clone();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| heard.lock().unwrap().push(line)));
        Self { child, address, log, talk, _dir: dir }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the `127.0.0.1:port` of the admin listener of a server that was started with one.
    #[allow(dead_code, reason = "benches have no use for it")]
    pub fn admin(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let talk = self.talk.lock().unwrap();
            let admin = talk.iter().find_map(|line| line.strip_prefix("Admin")?.split("http://").nth(1));
            if let Some(admin) = admin {
                return admin.split('/').next().unwrap().to_owned();
            }
            drop(talk);
            assert!(Instant::now() < deadline, "no admin listener");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns what was logged up to now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by name and does not wait.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Sends a signal by name (`TERM`, `KILL`) and waits for the end.
    pub fn stop(&mut self, signal: &str) -> std::process::ExitStatus {
        self.signal(signal);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server did not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
