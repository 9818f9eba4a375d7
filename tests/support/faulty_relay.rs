//! An HTTP relay that fails as far-away servers do: a plan says for each request how it goes.
//!
//! One request a connection. It ends with the test process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How one request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As it should.
    None,
    /// The server says this instead: a status line's end and a body.
    Says(&'static str, &'static str),
    /// After a while.
    Slow(Duration),
    /// The answer breaks off in the middle of its body.
    Torn,
    /// The server does it, and nobody ever hears of it.
    Lost,
    /// The server does it, and a 500 comes back.
    DoneAndDenied,
}

pub const SLOW_DOWN: Fault = Fault::Says(
    "503 Slow Down",
    "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
);
pub const INTERNAL: Fault = Fault::Says(
    "500 Internal Server Error",
    "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>",
);
pub const DENIED: Fault = Fault::Says(
    "403 Forbidden",
    "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
);

/// What the plan is told of a request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// The path and query.
    pub target: String,
    /// Counted from 0 over the relay's life.
    pub number: usize,
}

type Plan = dyn Fn(&Asked) -> Fault + Send + Sync;

pub struct Relay {
    pub address: String,
    faults: Arc<AtomicUsize>,
}

impl Relay {
    /// Listens on a free port before `to` (`host:port`).
    pub fn start(to: &str, plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (faults, counter) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let plan: Arc<Plan> = Arc::new(plan);
        let (to, counted) = (to.to_owned(), faults.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (to, plan, counter, faults) = (to.clone(), plan.clone(), counter.clone(), counted.clone());
                std::thread::spawn(move || serve(client.unwrap(), &to, &*plan, &counter, &faults));
            }
        });
        Self { address, faults }
    }

    /// Returns how many requests went wrong so far.
    pub fn faults(&self) -> usize {
        self.faults.load(Ordering::Relaxed)
    }
}

fn serve(mut client: TcpStream, to: &str, plan: &Plan, counter: &AtomicUsize, faults: &AtomicUsize) -> Option<()> {
    let (head, body) = request(&client)?;
    let mut words = head.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let fault = plan(&Asked { method, target, number: counter.fetch_add(1, Ordering::Relaxed) });
    faults.fetch_add(usize::from(fault != Fault::None), Ordering::Relaxed);
    match fault {
        Fault::Says(status, body) => return say(&mut client, status, body),
        Fault::Slow(pause) => std::thread::sleep(pause),
        Fault::None | Fault::Torn | Fault::Lost | Fault::DoneAndDenied => {}
    }
    let answer = ask(to, &head, &body)?;
    let length = match fault {
        Fault::Lost => 0,
        Fault::DoneAndDenied => return say(&mut client, "500 Internal Server Error", ""),
        Fault::Torn => {
            let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
            end + (answer.len() - end) / 2
        }
        _ => answer.len(),
    };
    client.write_all(&answer[..length]).ok()?;
    client.shutdown(Shutdown::Both).ok()
}

fn say(client: &mut TcpStream, status: &str, body: &str) -> Option<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes()).ok()?;
    client.shutdown(Shutdown::Write).ok()
}

/// Reads one request whose body has a length.
fn request(client: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn ask(to: &str, head: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut server = TcpStream::connect(to).ok()?;
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).ok()?;
    server.write_all(body).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    Some(answer)
}
