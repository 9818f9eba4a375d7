//! A connection to gpg-agent: Assuan, one command and its answer after the other over a Unix socket
//! ("Assuan protocol" in libassuan's manual).
//!
//! Everything that is read is bounded, and nothing that is read is trusted: what comes of it is a
//! signature, which either verifies or not.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

/// libassuan's longest line, with its line feed.
const LINE_LIMIT: usize = 1002;
/// A signature of RSA-16384 has 2 KiB.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Lines of one answer, the agent's remarks about its progress included.
const LINES_LIMIT: usize = 10_000;
/// How long the agent may think: a person may have to find a card and enter its PIN.
const PATIENCE: Duration = Duration::from_secs(180);

/// Why a command had no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The connection is gone.
    Lost(String),
    /// No answer in time.
    Silent,
    /// An answer that is none of the protocol.
    Protocol(&'static str),
    /// The agent says no, and the connection lives on.
    Refused(Refusal),
}

/// The agent's `ERR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// libgpg-error's number, its source taken off.
    pub code: u32,
    /// Who says so: 4 is the agent, 5 pinentry, 6 scdaemon.
    pub source: u32,
    /// The agent's words, printable and short.
    pub text: String,
}

/// libgpg-error's `GPG_ERR_BAD_PASSPHRASE`.
pub(super) const BAD_PASSPHRASE: u32 = 11;

/// An open connection.
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects, and hears the agent's greeting.
    pub fn open(socket: &Path) -> Result<Self, Trouble> {
        let stream = UnixStream::connect(socket).map_err(|e| Trouble::Lost(e.to_string()))?;
        let patient = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        patient.map_err(|e| Trouble::Lost(e.to_string()))?;
        let mut connection = Self { stream: BufReader::new(stream) };
        connection.answer(None)?;
        Ok(connection)
    }

    /// Gives a command and returns the data of the answer. `passphrase` is told if the agent asks for
    /// it, once.
    ///
    /// After [`Trouble::Refused`] the connection can be used again, after anything else it cannot.
    pub fn command(&mut self, command: &str, passphrase: Option<&[u8]>) -> Result<Vec<u8>, Trouble> {
        if command.len() >= LINE_LIMIT - 1 || command.contains(['\n', '\r', '\0']) {
            return Err(Trouble::Protocol("a command of ours is malformed"));
        }
        self.send(format!("{command}\n").as_bytes())?;
        self.answer(passphrase)
    }

    fn answer(&mut self, mut passphrase: Option<&[u8]>) -> Result<Vec<u8>, Trouble> {
        let mut data = Vec::new();
        let mut told = false;
        let mut asked_again = false;
        for _ in 0..LINES_LIMIT {
            let line = self.line()?;
            let (word, rest) = match line.iter().position(|b| *b == b' ') {
                Some(space) => (line.get(..space).unwrap_or_default(), line.get(space + 1..).unwrap_or_default()),
                None => (&line[..], &[][..]),
            };
            match word {
                b"OK" => return Ok(data),
                b"ERR" => {
                    let mut refusal = refusal(rest)?;
                    if asked_again {
                        refusal.code = BAD_PASSPHRASE;
                    }
                    return Err(Trouble::Refused(refusal));
                }
                b"D" => {
                    unescape(rest, &mut data)?;
                    if data.len() > ANSWER_LIMIT {
                        return Err(Trouble::Protocol("its answer is too long"));
                    }
                }
                b"S" => {}
                b"INQUIRE" if rest.starts_with(b"PASSPHRASE") => match passphrase.take() {
                    Some(passphrase) => {
                        self.send(&told_as_data(passphrase))?;
                        told = true;
                    }
                    None => {
                        // Asking twice means that the first answer was wrong. A third is never given:
                        // a card locks itself.
                        asked_again = told;
                        self.send(b"CAN\n")?;
                    }
                },
                b"INQUIRE" if rest.starts_with(b"PINENTRY_LAUNCHED") => self.send(b"END\n")?,
                b"INQUIRE" => self.send(b"CAN\n")?,
                _ if word.starts_with(b"#") => {}
                _ => return Err(Trouble::Protocol("it sent a line that is none of Assuan's")),
            }
        }
        Err(Trouble::Protocol("its answer does not end"))
    }

    fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut line = Vec::new();
        self.stream.by_ref().take(LINE_LIMIT as u64).read_until(b'\n', &mut line).map_err(lost)?;
        match line.pop() {
            Some(b'\n') => {}
            None => return Err(Trouble::Lost("it closed the connection".to_owned())),
            Some(_) if line.len() + 1 == LINE_LIMIT => return Err(Trouble::Protocol("it sent a line too long")),
            Some(_) => return Err(Trouble::Lost("it closed the connection within a line".to_owned())),
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream.get_mut().write_all(bytes).map_err(lost)
    }
}

// By value, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
fn lost(error: std::io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Trouble::Silent,
        _ => Trouble::Lost(error.to_string()),
    }
}

fn refusal(text: &[u8]) -> Result<Refusal, Trouble> {
    let text = String::from_utf8_lossy(text);
    let (number, words) = text.split_once(' ').unwrap_or((&text, ""));
    let number: u32 = number.parse().map_err(|_| Trouble::Protocol("its error has no number"))?;
    Ok(Refusal { code: number & 0xFFFF, source: (number >> 24) & 0x7F, text: printable(words) })
}

/// Makes words of another program fit for a line of ours.
pub(super) fn printable(words: &str) -> String {
    words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

fn unescape(text: &[u8], out: &mut Vec<u8>) -> Result<(), Trouble> {
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| hex::decode(digits).ok()).unwrap_or_default();
        let [octet] = digits[..] else { return Err(Trouble::Protocol("its data is not escaped rightly")) };
        out.push(octet);
        rest = rest.get(2..).unwrap_or_default();
    }
    Ok(())
}

/// The passphrase as lines of data and their end, in one buffer that never grows (what it left behind
/// would not be wiped).
fn told_as_data(passphrase: &[u8]) -> Zeroizing<Vec<u8>> {
    const AT_ONCE: usize = 300;
    let digit = |n: u8| char::from_digit(u32::from(n & 15), 16).unwrap_or('0').to_ascii_uppercase() as u8;
    let lines = passphrase.len() / AT_ONCE + 1;
    let mut out = Zeroizing::new(Vec::with_capacity(3 * passphrase.len() + 3 * lines + 4));
    for part in passphrase.chunks(AT_ONCE) {
        out.extend_from_slice(b"D ");
        for octet in part {
            match octet {
                b'%' | 0..=0x1F | 0x7F.. => out.extend_from_slice(&[b'%', digit(octet >> 4), digit(*octet)]),
                _ => out.push(*octet),
            }
        }
        out.push(b'\n');
    }
    out.extend_from_slice(b"END\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays an agent that says `script` after the greeting whatever it hears.
    fn hears(script: &[u8], passphrase: Option<&[u8]>) -> (Result<Vec<u8>, Trouble>, Vec<u8>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(script).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let mut connection = Connection { stream: BufReader::new(ours) };
        let result = connection.command("PKSIGN", passphrase);
        drop(connection);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).unwrap();
        (result, heard)
    }

    #[test]
    fn answers_are_put_together() {
        let script = b"# comment\nS PROGRESS tick\nD a%25b%0A\nD c\nOK closing\n";
        assert_eq!(hears(script, None), (Ok(b"a%b\nc".to_vec()), b"PKSIGN\n".to_vec()));
        let script = b"S INQUIRE_MAXLEN 255\nINQUIRE PASSPHRASE\nOK\n";
        let (result, heard) = hears(script, Some(b"p%\xC3\n"));
        assert_eq!((result, &heard[..]), (Ok(Vec::new()), &b"PKSIGN\nD p%25%C3%0A\nEND\n"[..]));
        let (_, heard) = hears(script, Some(b""));
        assert_eq!(heard, b"PKSIGN\nEND\n");
    }

    #[test]
    fn a_passphrase_is_told_once() {
        let script = b"INQUIRE PASSPHRASE\nINQUIRE PASSPHRASE\nERR 67108963 Operation cancelled <GPG Agent>\n";
        let (result, heard) = hears(script, Some(b"one"));
        assert!(matches!(result, Err(Trouble::Refused(refusal)) if refusal.code == BAD_PASSPHRASE));
        assert_eq!(heard, b"PKSIGN\nD one\nEND\nCAN\n");
        let script = b"INQUIRE NEW_PASSPHRASE\nERR 67108963 Operation cancelled <GPG Agent>\n";
        let (result, heard) = hears(script, Some(b"one"));
        let text = "Operation cancelled <GPG Agent>".to_owned();
        assert_eq!(result, Err(Trouble::Refused(Refusal { code: 99, source: 4, text })));
        assert_eq!(heard, b"PKSIGN\nCAN\n");
    }

    #[test]
    fn other_answers_are_trouble() {
        let closed = |script: &[u8]| matches!(hears(script, None).0, Err(Trouble::Lost(_)));
        assert!(closed(b"") && closed(b"OK") && closed(b"D abc\n"));
        let wrong = |script: &[u8]| matches!(hears(script, None).0, Err(Trouble::Protocol(_)));
        assert!(wrong(b"HTTP/1.1 400 Bad Request\n") && wrong(b"\n") && wrong(b"D %4\n") && wrong(b"ERR what\n"));
        assert!(wrong(&[b'D'; 3000]));
        assert!(wrong(&b"S x\n".repeat(LINES_LIMIT)));
        assert!(wrong(&[b"D ", &[b'a'; 900][..], b"\n"].concat().repeat(ANSWER_LIMIT / 900 + 1)));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection { stream: BufReader::new(ours) };
        assert!(matches!(connection.command("A\nB", None), Err(Trouble::Protocol(_))));
    }

    proptest! {
        #[test]
        fn whatever_an_agent_says_is_survived(script in "(OK|ERR|D|S|INQUIRE PASSPHRASE| |%|[0-9a]|\n){0,60}") {
            let _ = hears(script.as_bytes(), Some(b"x"));
        }

        #[test]
        fn passphrases_arrive_as_they_are(passphrase in proptest::collection::vec(any::<u8>(), 0..900)) {
            let told = told_as_data(&passphrase);
            prop_assert!(told.capacity() <= 3 * passphrase.len() + 3 * (passphrase.len() / 300 + 1) + 4);
            let mut read = Vec::new();
            for line in told.split(|b| *b == b'\n') {
                prop_assert!(line.len() < LINE_LIMIT - 1);
                if let Some(data) = line.strip_prefix(b"D ") {
                    unescape(data, &mut read).unwrap();
                }
            }
            prop_assert_eq!(read, passphrase);
        }
    }
}
