//! As much of S3 as a job needs, in memory: list, get, head, create if absent. moto, which the tests
//! use, answers some hundred requests a second; that would be all that one measures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

#[derive(Default)]
pub struct Objects(Mutex<BTreeMap<String, Vec<u8>>>);

const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

impl Objects {
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Stores without being asked through the network.
    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        self.0.lock().unwrap().insert(key.to_owned(), bytes);
    }

    /// Listens on a free port until the process ends.
    pub fn serve(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let objects = self.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, objects) = (client.unwrap(), objects.clone());
                std::thread::spawn(move || objects.converse(client));
            }
        });
        address
    }

    fn converse(&self, client: TcpStream) -> Option<()> {
        client.set_nodelay(true).ok()?;
        let mut writer = client.try_clone().ok()?;
        let mut reader = BufReader::new(client);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            let mut words = line.split(' ');
            let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
            let (mut length, mut create) = (0, false);
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).ok()?;
                let Some((name, value)) = header.trim_end().split_once(':') else { break };
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().ok()?,
                    "if-none-match" => create = true,
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let (status, tag, answer) = self.answer(&method, &target, create, body);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{tag}\"\r\nLast-Modified: {DATE}\r\n\r\n",
                answer.len()
            );
            let mut whole = head.into_bytes();
            if method != "HEAD" {
                whole.extend_from_slice(&answer);
            }
            writer.write_all(&whole).ok()?;
        }
    }

    fn answer(&self, method: &str, target: &str, create: bool, body: Vec<u8>) -> (&'static str, String, Vec<u8>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut objects = self.0.lock().unwrap();
        let path = decoded(path);
        // After the bucket's name.
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        match method {
            "PUT" if create && objects.contains_key(key) => ("412 Precondition Failed", String::new(), Vec::new()),
            "PUT" => {
                let tag = tag(&body);
                objects.insert(key.to_owned(), body);
                ("200 OK", tag, Vec::new())
            }
            "GET" if key.is_empty() => ("200 OK", String::new(), list(&objects, query).into_bytes()),
            "GET" | "HEAD" => match objects.get(key) {
                Some(bytes) => ("200 OK", tag(bytes), bytes.clone()),
                None => ("404 Not Found", String::new(), Vec::new()),
            },
            _ => ("405 Method Not Allowed", String::new(), Vec::new()),
        }
    }
}

fn tag(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn list(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let parameters: BTreeMap<&str, String> =
        query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name, decoded(value))).collect();
    let get = |name: &str| parameters.get(name).map_or("", String::as_str);
    let prefix = get("prefix");
    let after = get("start-after").max(get("continuation-token"));
    let mut found = objects
        .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix))
        .filter(|(key, _)| key.as_str() > after);
    let page: Vec<_> = found.by_ref().take(1000).collect();
    let more = found.next().is_some();
    let mut xml = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
    if let Some((last, _)) = page.last().filter(|_| more) {
        let _ = write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>");
    }
    for (key, bytes) in page {
        let _ = write!(
            xml,
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{}&quot;</ETag>\
             <Size>{}</Size></Contents>",
            tag(bytes),
            bytes.len()
        );
    }
    xml + "</ListBucketResult>"
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok()).flatten();
        out.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap()
}
