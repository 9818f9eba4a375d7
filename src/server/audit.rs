//! The audit record: who added or removed which signature, from where, and what came of it.
//!
//! Always in the log, under the target `countersign::audit`; with `audit_log` also in a file of
//! JSON lines. There, a change has two lines: `admitted` is on the disk before the store is
//! touched, the outcome before the caller hears of it. So no change goes unrecorded, whatever
//! crashes; while the file cannot be written nothing is changed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use serde::Serialize;

use super::caller::{Caller, FORWARDED_FOR};
use super::error::{Problem, shorten};
use super::permit::Credential;
use crate::image::Digest;
use crate::store::Appended;

/// How much of a stranger's words is written.
const WORDS_SHOWN: usize = 512;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// A signature is to be stored.
    Add,
    /// A signature is to be removed.
    Remove,
}

/// One attempt to change something. No credentials.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) action: Action,
    /// `extension` or `lookaside`.
    pub(super) face: &'static str,
    /// `None` until the caller has shown who they are; of a refused upload to the extension, what
    /// they say of themselves.
    pub(super) who: Option<Credential>,
    /// The registry's name; empty for the default one.
    registry: Arc<str>,
    /// The repository's path there.
    pub(super) repository: String,
    /// The whole name by which the client calls the repository, if it goes below a component.
    pub(super) called: Option<String>,
    pub(super) digest: Digest,
    /// The SHA-256 of the signature's bytes, once known.
    pub(super) blob: Option<Digest>,
    from: IpAddr,
    peer: SocketAddr,
    forwarded_for: Option<String>,
    id: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome<'a> {
    /// About to be done.
    Admitted,
    /// Stored under this number.
    Stored(u32),
    /// The same bytes were there, under this number.
    AlreadyThere(u32),
    /// Removed; it was shown under this number.
    Removed(u32),
    /// Not done.
    Failed(&'a Problem),
}

impl From<Appended> for Outcome<'_> {
    fn from(appended: Appended) -> Self {
        match appended {
            Appended::Created(number) => Self::Stored(number),
            Appended::AlreadyThere(number) => Self::AlreadyThere(number),
        }
    }
}

impl Outcome<'_> {
    fn verdict(&self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Stored(_) => "stored",
            Self::AlreadyThere(_) => "already there",
            Self::Removed(_) => "removed",
            Self::Failed(problem) if problem.is_ours() => "failed",
            Self::Failed(_) => "refused",
        }
    }

    fn number(&self) -> Option<u32> {
        match self {
            Self::Stored(number) | Self::AlreadyThere(number) | Self::Removed(number) => Some(*number),
            Self::Admitted | Self::Failed(_) => None,
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Failed(problem) => Some(problem.reason()),
            _ => None,
        }
    }
}

/// One line of the file. The names are a contract.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    action: Action,
    verdict: &'static str,
    who: Option<&'a str>,
    way: Option<&'a str>,
    face: &'static str,
    registry: Option<&'a str>,
    repository: &'a str,
    digest: String,
    signature: Option<String>,
    number: Option<u32>,
    reason: Option<String>,
    client: String,
    peer: String,
    forwarded_for: Option<&'a str>,
    request_id: String,
}

impl Record {
    pub(super) fn new(
        action: Action,
        face: &'static str,
        registry: &Arc<str>,
        (repository, digest): (&str, &Digest),
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Self {
        Self {
            action,
            face,
            who: None,
            registry: registry.clone(),
            repository: repository.to_owned(),
            called: caller.below.as_ref().map(|below| format!("{}/{below}/{repository}", caller.client.authority())),
            digest: digest.clone(),
            blob: None,
            from: caller.from,
            peer: caller.peer,
            forwarded_for: headers.get(FORWARDED_FOR).and_then(|v| v.to_str().ok()).map(|v| shorten(v, WORDS_SHOWN)),
            id: caller.id,
        }
    }

    fn registry(&self) -> Option<&str> {
        Some(&*self.registry).filter(|name| !name.is_empty())
    }

    fn line(&self, outcome: Outcome<'_>) -> Result<Vec<u8>, serde_json::Error> {
        let line = Line {
            time: jiff::Timestamp::now().to_string(),
            action: self.action,
            verdict: outcome.verdict(),
            who: self.who.as_ref().map(|who| who.name.as_str()),
            way: self.who.as_ref().map(|who| who.way),
            face: self.face,
            registry: self.registry(),
            repository: &self.repository,
            digest: self.digest.to_string(),
            signature: self.blob.as_ref().map(ToString::to_string),
            number: outcome.number(),
            reason: outcome.reason().as_deref().map(|reason| shorten(reason, WORDS_SHOWN)),
            client: self.from.to_string(),
            peer: self.peer.to_string(),
            forwarded_for: self.forwarded_for.as_deref(),
            request_id: format!("{:016x}", self.id),
        };
        let mut bytes = crate::escape::json::to_string(&line)?.into_bytes();
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn log(&self, outcome: Outcome<'_>) {
        let what = match self.action {
            Action::Add => "signature upload",
            Action::Remove => "signature removal",
        };
        tracing::info!(
            target: "countersign::audit",
            who = self.who.as_ref().map_or("unknown", |who| who.name.as_str()),
            way = self.who.as_ref().map(|who| who.way),
            face = self.face,
            registry = self.registry(),
            repository = self.repository,
            digest = %self.digest,
            signature = self.blob.as_ref().map(tracing::field::display),
            verdict = outcome.verdict(),
            number = outcome.number(),
            reason = outcome.reason(),
            client = %self.from,
            peer = %self.peer,
            forwarded_for = self.forwarded_for,
            request_id = format_args!("{:016x}", self.id),
            "{what}"
        );
    }
}

/// Where records go. Clones write to the same file.
#[derive(Clone)]
pub(super) struct AuditLog {
    file: Option<Arc<AuditFile>>,
}

impl AuditLog {
    pub(super) fn new(path: Option<&Path>) -> Self {
        Self { file: path.map(|path| Arc::new(AuditFile { path: path.to_owned(), torn: Mutex::new(None) })) }
    }

    /// Records that something is about to be done.
    ///
    /// # Errors
    /// [`Problem::Unrecorded`]: it must not be done.
    pub(super) async fn begin(&self, record: &Record) -> Result<(), Problem> {
        self.write(record, Outcome::Admitted, true).await
    }

    /// Records what came of it.
    ///
    /// # Errors
    /// [`Problem::Unrecorded`] after a change: the caller must not be told that all is well.
    pub(super) async fn end(&self, record: &Record, outcome: Outcome<'_>) -> Result<(), Problem> {
        record.log(outcome);
        if let Outcome::Failed(_) = outcome {
            // There is nothing that could go unrecorded.
            let _ = self.write(record, outcome, false).await;
            return Ok(());
        }
        self.write(record, outcome, true).await
    }

    async fn write(&self, record: &Record, outcome: Outcome<'_>, durably: bool) -> Result<(), Problem> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let line = record.line(outcome).map_err(|_| Problem::Unrecorded)?;
        let path = file.path.clone();
        let written = tokio::task::spawn_blocking(move || file.append(&line, durably)).await;
        written.map_err(std::io::Error::other).flatten().map_err(|error| {
            tracing::error!(path = %path.display(), %error, "cannot write the audit log");
            Problem::Unrecorded
        })
    }
}

/// The file of JSON lines. It is opened for each line, so that it may be moved away at any time.
struct AuditFile {
    path: PathBuf,
    /// Whether the last line was not written whole; at first nobody knows, for an earlier process
    /// may have died over it.
    torn: Mutex<Option<bool>>,
}

impl AuditFile {
    /// Appends one line by one write, so that several processes may share the file.
    fn append(&self, line: &[u8], durably: bool) -> std::io::Result<()> {
        let mut torn = self.torn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = open(&self.path)?;
        let mut whole = Vec::with_capacity(line.len() + 1);
        let is_torn = match *torn {
            Some(false) => false,
            // Another process may have ended the line since.
            maybe => ends_torn(&self.path).unwrap_or(maybe == Some(true)),
        };
        if is_torn {
            whole.push(b'\n');
        }
        whole.extend_from_slice(line);
        let written = file.write(&whole)?;
        let is_torn = written < whole.len();
        *torn = Some(is_torn);
        if is_torn {
            return Err(std::io::Error::new(std::io::ErrorKind::StorageFull, "the line was not written whole"));
        }
        if durably {
            file.sync_data()?;
        }
        Ok(())
    }
}

/// Tells whether a file's last line has no end.
fn ends_torn(path: &Path) -> std::io::Result<bool> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() || found.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, found.len() - 1)?;
    Ok(last != *b"\n")
}

/// Opens the file; a new one is also made to stay in its folder.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let file = options.create(true).mode(0o640).open(path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
            Ok(file)
        }
        opened => opened,
    }
}

/// Makes sure that the audit log can be written.
///
/// # Errors
/// What the system says.
pub fn check_audit_log(path: &Path) -> std::io::Result<()> {
    open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, "203.0.113.1\"".parse().unwrap());
        let caller = Caller { from: [203, 0, 113, 1].into(), ..Caller::local(7) };
        let digest = Digest::sha256(b"x");
        let image = ("birds/bluebird", &digest);
        let mut record = Record::new(Action::Add, "lookaside", &"icr.io".into(), image, &headers, &caller);
        record.who = Some(Credential { way: "htpasswd", name: "bob\n".to_owned() });
        record
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_change_has_two_lines_and_a_refusal_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let log = AuditLog::new(Some(&path));
        let mut record = record();
        log.end(&record, Outcome::Failed(&Problem::Unauthorized)).await.unwrap();
        record.blob = Some(Digest::sha256(b"blob"));
        log.begin(&record).await.unwrap();
        // As logrotate does it.
        std::fs::rename(&path, dir.path().join("audit.1")).unwrap();
        log.end(&record, Outcome::Stored(3)).await.unwrap();
        let (old, new) = (lines(&dir.path().join("audit.1")), lines(&path));
        assert_eq!((old.len(), new.len()), (2, 1));
        assert_eq!((old[0]["verdict"].as_str(), old[1]["verdict"].as_str()), (Some("refused"), Some("admitted")));
        let mut line = new[0].clone();
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        line["time"] = "TIME".into();
        insta::assert_snapshot!(line.to_string(), @r#"{"action":"add","client":"203.0.113.1","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","face":"lookaside","forwarded_for":"203.0.113.1\"","number":3,"peer":"127.0.0.1:1234","reason":null,"registry":"icr.io","repository":"birds/bluebird","request_id":"0000000000000007","signature":"sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8","time":"TIME","verdict":"stored","way":"htpasswd","who":"bob\n"}"#);
    }

    #[tokio::test]
    async fn a_line_that_an_earlier_process_left_torn_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        for (before, lines) in [("{\"a\":1}\n{\"b", 3), ("{\"a\":1}\n", 2), ("", 1)] {
            std::fs::write(&path, before).unwrap();
            AuditLog::new(Some(&path)).begin(&record()).await.unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), lines, "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).is_ok(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_failing_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::new(Some(&dir.path().join("no/such/folder")));
        assert!(matches!(log.begin(&record()).await, Err(Problem::Unrecorded)));
        assert!(matches!(log.end(&record(), Outcome::Stored(1)).await, Err(Problem::Unrecorded)));
        assert!(log.end(&record(), Outcome::Failed(&Problem::Internal)).await.is_ok());
        assert!(matches!(AuditLog::new(Some(Path::new("/dev/full"))).begin(&record()).await, Err(Problem::Unrecorded)));
        AuditLog::new(None).begin(&record()).await.unwrap();
    }
}
