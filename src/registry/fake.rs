//! A server for tests that says whatever it is told, well-formed or not.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came in.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Heard {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// What to answer: the raw bytes, after which the connection is closed.
pub(super) fn say(status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        answer += &format!("{name}: {value}\r\n");
    }
    answer += "\r\n";
    [answer.as_bytes(), body].concat()
}

pub(super) fn not_found() -> Vec<u8> {
    say("404 Not Found", &[], "nothing here")
}

/// A running server; it ends with the test's runtime.
pub(super) struct Fake {
    /// `127.0.0.1:port`.
    pub(super) address: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Fake {
    pub(super) async fn start(answer: impl Fn(&Heard) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (record, answer) = (heard.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, record.clone(), answer.clone()));
            }
        });
        Self { address, heard }
    }

    /// All requests so far; TLS attempts are not among them.
    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The requests to one path.
    pub(super) fn heard_at(&self, path: &str) -> Vec<Heard> {
        self.heard().into_iter().filter(|heard| heard.path() == path).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    record: Arc<Mutex<Vec<Heard>>>,
    answer: Arc<impl Fn(&Heard) -> Vec<u8> + Send + Sync>,
) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 && (!bytes.is_empty() || buffer[0].is_ascii_uppercase()) => {
                bytes.extend_from_slice(&buffer[..count]);
            }
            // A TLS greeting, or nothing: hang up.
            _ => return,
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut heard = Heard { method, target, headers, body: String::new() };
    let length: usize = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head_end + length {
        let count = stream.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..count]);
    }
    heard.body = String::from_utf8(bytes[head_end..].to_vec()).unwrap();
    let said = answer(&heard);
    record.lock().unwrap().push(heard);
    let _ = stream.write_all(&said).await;
    let _ = stream.shutdown().await;
}
