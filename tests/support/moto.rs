//! A real S3 server (moto) on a free loopback port, one for the whole test process.
//!
//! It is a child that ends when its standard input closes, hence with the test process however
//! that ends; nobody has to find and kill it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Unlike S3, moto looks whether a key is there and then puts it, with other threads in between: two
/// `If-None-Match: *` may both win on a busy machine. So its PUTs take turns.
const SERVER: &str = "
import os, sys, threading
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
turn, put = threading.Lock(), S3Response.put_object
def put_in_turn(self):
    with turn:
        return put(self)
S3Response.put_object = put_in_turn
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print('%s:%d' % server.get_host_and_port(), flush=True)
sys.stdin.read()
os._exit(0)
";

/// A running server.
pub struct Moto {
    child: Child,
    address: String,
    buckets: AtomicU32,
}

/// Returns the Python environment that `make` prepares.
pub fn venv() -> PathBuf {
    match std::env::var_os("COUNTERSIGN_TEST_VENV") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/venv"),
    }
}

impl Moto {
    /// Returns the process' server, started by the first who asks.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts a server of one's own, stopped on drop.
    pub fn start() -> Self {
        let python = venv().join("bin/python");
        assert!(
            python.exists(),
            "{} is missing, and with it the S3 server of the tests: run `make test`",
            python.display()
        );
        let mut child = Command::new(&python)
            .args(["-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut address).expect("moto's address");
        let address = address.trim().to_owned();
        assert!(
            !address.is_empty(),
            "moto did not start: run `make test`, which installs moto[s3,server] into {}",
            venv().display()
        );
        Self { child, address, buckets: AtomicU32::new(0) }
    }

    /// Returns the server's base URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a new bucket and returns its name.
    pub fn bucket(&self) -> String {
        let name = format!("sigs-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        let status = self.put(&name, b"");
        assert_eq!(status, 200, "creating the bucket {name}");
        name
    }

    /// Stores an object (`bucket/key`) as any other program would; returns the HTTP status.
    pub fn put(&self, path: &str, body: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(&self.address).expect("moto listens");
        let head = format!(
            "PUT /{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0",
            body.len(),
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Returns the variables by which a client reaches it.
    pub fn variables(&self) -> BTreeMap<String, String> {
        [
            ("AWS_ENDPOINT_URL_S3", self.endpoint().as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
