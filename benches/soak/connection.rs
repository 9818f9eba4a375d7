//! A client's connection: kept for the next request, or made anew for each.

use std::io::{BufRead as _, BufReader, Error, Read as _, Result, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::http::Answer;

pub struct Connection {
    address: String,
    kept: Option<BufReader<TcpStream>>,
}

/// One request.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl<'a> Ask<'a> {
    pub fn get(path: &'a str, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { method: "GET", path, headers, body: b"" }
    }

    pub fn put(path: &'a str, headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Self {
        Self { method: "PUT", path, headers, body }
    }

    /// As it goes onto the wire, without the body.
    pub fn head(&self, address: &str) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {address}\r\n", self.method, self.path);
        self.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if matches!(self.method, "PUT" | "POST") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head + "\r\n"
    }
}

impl Connection {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), kept: None }
    }

    /// Forgets the kept connection, so that the next request makes a new one.
    pub fn renew(&mut self) {
        self.kept = None;
    }

    /// Opens a connection that nobody keeps.
    pub fn fresh(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// Sends a request and reads the whole answer; the error names the request.
    pub fn ask(&mut self, ask: Ask<'_>) -> std::result::Result<Answer, String> {
        self.exchange(ask).map_err(|error| format!("{} {}: {error}", ask.method, ask.path))
    }

    fn exchange(&mut self, ask: Ask<'_>) -> Result<Answer> {
        let mut reader = match self.kept.take() {
            Some(kept) => kept,
            None => BufReader::new(self.fresh()?),
        };
        let head = ask.head(&self.address);
        reader.get_mut().write_all(&[head.as_bytes(), ask.body].concat())?;
        let answer = read(&mut reader, ask.method)?;
        if answer.header("connection") != Some("close") {
            self.kept = Some(reader);
        }
        Ok(answer)
    }
}

/// Reads one answer, to its end and no further.
pub fn read(reader: &mut BufReader<TcpStream>, method: &str) -> Result<Answer> {
    let status = line(reader)?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = status.ok_or_else(|| Error::other("no HTTP"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if method == "HEAD" || matches!(status, 204 | 304) {
        return Ok(answer);
    }
    if answer.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16).map_err(Error::other)?;
            take(reader, &mut answer.body, size)?;
            line(reader)?;
            if size == 0 {
                return Ok(answer);
            }
        }
    }
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    let length = length.ok_or_else(|| Error::other(format!("an answer without a length: {answer:?}")))?;
    take(reader, &mut answer.body, length)?;
    Ok(answer)
}

fn line(reader: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(Error::other("the connection was closed"));
    }
    Ok(line.trim_end().to_owned())
}

fn take(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>, length: usize) -> Result<()> {
    let begun = body.len();
    body.resize(begun + length, 0);
    reader.read_exact(&mut body[begun..])
}
