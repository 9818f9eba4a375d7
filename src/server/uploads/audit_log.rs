//! The audit record: who added or removed which signature, from where, and what came of it.
//!
//! Always in the log, under the target `countersign::audit`; with `audit_log` also in a file of
//! JSON lines. There, a change has two lines: `admitted` is on the disk before the store is
//! touched, the outcome before the caller hears of it. So no change goes unrecorded, whatever
//! crashes; while the file cannot be written nothing is changed.
//!
//! What is refused before anybody has shown who they are is anybody's to repeat, so it has one line
//! a client and minute, see `refusals`. And refusals are not written while the disk has less left
//! than `audit_reserve_mib`: that is for changes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use serde::Serialize;

use crate::config::ServerConfig;
use crate::image::Digest;
use crate::metrics::{self, Recorded};
use crate::server::auth::methods::Identity;
use crate::server::caller::{self, Caller};
use crate::server::error::{Problem, shorten};
use crate::server::shown_name::ShownName;
use crate::server::uploads::audit_file::AuditFile;
use crate::server::uploads::refusal_summary::{Refusals, Summary};
use crate::store::Appended;

/// How much of a stranger's words is written.
const WORDS_SHOWN: usize = 512;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// A signature is to be stored.
    Add,
    /// A signature is to be removed.
    Remove,
}

/// One attempt to change something. No credentials.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) action: Action,
    /// `extension` or `lookaside`.
    pub(crate) face: &'static str,
    /// `None` until the caller has shown who they are.
    pub(crate) who: Option<Identity>,
    /// The registry's name; empty for the default one.
    registry: Arc<str>,
    /// The repository's path there.
    pub(crate) repository: String,
    /// The whole name by which the client calls the repository, if it goes below a component.
    pub(crate) called: Option<String>,
    pub(crate) digest: Digest,
    /// The SHA-256 of the signature's bytes, once known.
    pub(crate) blob: Option<Digest>,
    pub(crate) from: IpAddr,
    peer: SocketAddr,
    forwarded_for: Option<String>,
    id: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
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

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Failed(problem) => Some(problem.kind()),
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Failed(problem) => problem.detail(),
            _ => None,
        }
    }
}

/// One line of the file. The names are a contract.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
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
    /// A stable word (docs/access.md).
    reason: Option<&'static str>,
    /// A sentence about this request, where the word does not say it all.
    detail: Option<String>,
    pub(crate) client: String,
    peer: String,
    forwarded_for: Option<&'a str>,
    request_id: String,
}

impl Record {
    pub(crate) fn new(
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
            forwarded_for: caller::forwarded_for(headers),
            id: caller.id,
        }
    }

    /// Tells whether anybody could have made this attempt: nobody has shown who they are, or a
    /// registry that lets anybody push has been asked.
    fn is_anybodys(&self) -> bool {
        self.who.as_ref().is_none_or(|who| who.name == ShownName::anonymous())
    }

    fn registry(&self) -> Option<&str> {
        Some(&*self.registry).filter(|name| !name.is_empty())
    }

    /// Returns the line for the file.
    pub(crate) fn line(&self, verdict: &'static str, number: Option<u32>, problem: Option<&Problem>) -> Line<'_> {
        Line {
            time: jiff::Timestamp::now().to_string(),
            action: self.action,
            verdict,
            who: self.who.as_ref().map(|who| who.name.as_str()),
            way: self.who.as_ref().map(|who| who.way),
            face: self.face,
            registry: self.registry(),
            repository: &self.repository,
            digest: self.digest.to_string(),
            signature: self.blob.as_ref().map(ToString::to_string),
            number,
            reason: problem.map(Problem::kind),
            detail: problem.and_then(Problem::detail).map(|detail| shorten(&detail, WORDS_SHOWN)),
            client: self.from.to_string(),
            peer: self.peer.to_string(),
            forwarded_for: self.forwarded_for.as_deref(),
            request_id: format!("{:016x}", self.id),
        }
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
            detail = outcome.detail(),
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
pub(crate) struct AuditLog {
    file: Option<Arc<AuditFile>>,
    refusals: Arc<Refusals>,
}

impl AuditLog {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let file = config.audit_log.as_ref().map(|path| {
            let reserve = config.audit_reserve_mib.saturating_mul(1 << 20);
            Arc::new(AuditFile::new(path, reserve))
        });
        Self { file, refusals: Arc::default() }
    }

    /// Records that something is about to be done. For those who have not shown who they are the reserve
    /// is not touched: they may be very many.
    ///
    /// # Errors
    /// [`Problem::Unrecorded`]: it must not be done.
    pub(crate) async fn begin(&self, record: &Record) -> Result<(), Problem> {
        self.write(record, Outcome::Admitted).await
    }

    /// Records what came of it.
    ///
    /// # Errors
    /// [`Problem::Unrecorded`] after a change: the caller must not be told that all is well.
    pub(crate) async fn end(&self, record: &Record, outcome: Outcome<'_>) -> Result<(), Problem> {
        let Outcome::Failed(problem) = outcome else {
            record.log(outcome);
            return self.write(record, outcome).await;
        };
        // There is nothing that could go unrecorded.
        if record.is_anybodys() {
            if record.who.is_some() {
                // The registry was asked, and the upload judged: nobody has very many of those.
                record.log(outcome);
            }
            if self.refusals.note(record, problem) {
                self.write_refusals_later();
            }
            return Ok(());
        }
        record.log(outcome);
        if let Some(line) = line(&record.line(outcome.verdict(), None, Some(problem))) {
            self.write_refused(vec![(1, line)]).await;
        }
        Ok(())
    }

    /// Writes what was refused to strangers and is not written yet: when the server ends.
    pub(crate) async fn finish(&self) {
        let refusals = self.refusals.take();
        refusals.iter().for_each(Summary::log);
        let lines = refusals.iter().filter_map(|refused| Some((refused.count(), line(&refused.line())?)));
        self.write_refused(lines.collect()).await;
    }

    /// Does the same when the minute is over.
    fn write_refusals_later(&self) {
        let audit = self.clone();
        // Without a runtime nothing is served.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(crate::server::uploads::refusal_summary::TOGETHER).await;
                audit.finish().await;
            });
        }
    }

    /// Writes lines about so many refusals each, unless the room is needed for changes.
    async fn write_refused(&self, lines: Vec<(u64, Vec<u8>)>) {
        let Some(file) = self.file.clone().filter(|_| !lines.is_empty()) else { return };
        // Nobody waits for it but the one who is refused.
        let _ = tokio::task::spawn_blocking(move || {
            for (count, line) in lines {
                let recorded = if file.append_refused(&line) { Recorded::Yes } else { Recorded::No };
                metrics::AUDIT_REFUSALS.add(recorded, count);
            }
        })
        .await;
    }

    /// Writes a line that must be on the disk.
    async fn write(&self, record: &Record, outcome: Outcome<'_>) -> Result<(), Problem> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let line = line(&record.line(outcome.verdict(), outcome.number(), None)).ok_or(Problem::Unrecorded)?;
        let path = file.path().to_owned();
        let spares_reserve = matches!(outcome, Outcome::Admitted) && record.is_anybodys();
        let written = tokio::task::spawn_blocking(move || {
            if spares_reserve {
                file.check_reserve()?;
            }
            file.append(&line, true)
        });
        let written = written.await;
        written.map_err(std::io::Error::other).flatten().map_err(|error| {
            tracing::error!(path = %path.display(), %error, "cannot write the audit log");
            Problem::Unrecorded
        })
    }
}

/// Writes a line down; fails for nothing that is in one.
fn line(line: &impl Serialize) -> Option<Vec<u8>> {
    let mut bytes = crate::escape::json::to_string(line).ok()?.into_bytes();
    bytes.push(b'\n');
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::server::caller::FORWARDED_FOR;

    fn log(path: &Path) -> AuditLog {
        AuditLog::new(&ServerConfig { audit_log: Some(path.to_owned()), ..ServerConfig::default() })
    }

    fn record() -> Record {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, "203.0.113.1, secret\"".parse().unwrap());
        let caller = Caller { from: [203, 0, 113, 1].into(), ..Caller::local(7) };
        let digest = Digest::sha256(b"x");
        let image = ("birds/bluebird", &digest);
        let mut record = Record::new(Action::Add, "lookaside", &"icr.io".into(), image, &headers, &caller);
        record.who = Some(Identity { way: "htpasswd", name: ShownName::configured("bob\n") });
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
        let audit = log(&path);
        let mut record = record();
        audit.end(&record, Outcome::Failed(&Problem::Unauthorized)).await.unwrap();
        record.blob = Some(Digest::sha256(b"blob"));
        audit.begin(&record).await.unwrap();
        // As logrotate does it.
        std::fs::rename(&path, dir.path().join("audit.1")).unwrap();
        audit.end(&record, Outcome::Stored(3)).await.unwrap();
        let (old, new) = (lines(&dir.path().join("audit.1")), lines(&path));
        assert_eq!((old.len(), new.len()), (2, 1));
        assert_eq!((old[0]["verdict"].as_str(), old[1]["verdict"].as_str()), (Some("refused"), Some("admitted")));
        let mut line = new[0].clone();
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        line["time"] = "TIME".into();
        insta::assert_snapshot!(line.to_string(), @r#"{"action":"add","client":"203.0.113.1","detail":null,"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","face":"lookaside","forwarded_for":"203.0.113.1, unknown","number":3,"peer":"127.0.0.1:1234","reason":null,"registry":"icr.io","repository":"birds/bluebird","request_id":"0000000000000007","signature":"sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8","time":"TIME","verdict":"stored","way":"htpasswd","who":"bob\n"}"#);
    }

    #[tokio::test]
    async fn a_line_that_an_earlier_process_left_torn_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        for (before, lines) in [("{\"a\":1}\n{\"b", 3), ("{\"a\":1}\n", 2), ("", 1)] {
            std::fs::write(&path, before).unwrap();
            log(&path).begin(&record()).await.unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), lines, "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).is_ok(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_failing_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let audit = log(&dir.path().join("no/such/folder"));
        assert!(matches!(audit.begin(&record()).await, Err(Problem::Unrecorded)));
        assert!(matches!(audit.end(&record(), Outcome::Stored(1)).await, Err(Problem::Unrecorded)));
        assert!(audit.end(&record(), Outcome::Failed(&Problem::Internal)).await.is_ok());
        assert!(matches!(log(Path::new("/dev/full")).begin(&record()).await, Err(Problem::Unrecorded)));
        AuditLog::new(&ServerConfig::default()).begin(&record()).await.unwrap();
    }

    #[tokio::test]
    async fn refusals_of_strangers_are_one_line_a_client() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = log(&path);
        let mut stranger = record();
        stranger.who = None;
        for n in 0..1000u32 {
            stranger.face = if n % 4 == 0 { "lookaside" } else { "extension" };
            let problem = if n % 2 == 0 { Problem::Unauthorized } else { Problem::Denied("no".to_owned()) };
            audit.end(&stranger, Outcome::Failed(&problem)).await.unwrap();
        }
        assert!(!path.exists(), "not a line each");
        stranger.from = "2001:db8::1".parse().unwrap();
        audit.end(&stranger, Outcome::Failed(&Problem::UpstreamTimeout)).await.unwrap();
        stranger.from = "2001:db8::2".parse().unwrap();
        audit.end(&stranger, Outcome::Failed(&Problem::UpstreamTimeout)).await.unwrap();
        // What is known of somebody who showed who they are is told at once.
        audit.end(&record(), Outcome::Failed(&Problem::Denied("no".to_owned()))).await.unwrap();
        assert_eq!(lines(&path).len(), 1);
        audit.finish().await;
        audit.finish().await;
        let mut told = lines(&path);
        assert_eq!(told.len(), 3);
        for line in &mut told[1..] {
            for time in ["time", "first", "last"] {
                assert!(line[time].as_str().unwrap().ends_with('Z'));
                line[time] = "TIME".into();
            }
        }
        told.sort_by_key(|line| line["count"].as_u64());
        assert_eq!(
            (&told[1]["count"], &told[1]["client"], &told[1]["verdict"]),
            (&2.into(), &"2001:db8::1".into(), &"failed".into())
        );
        insta::assert_snapshot!(told[2].to_string(), @r#"{"action":"add","actions":{"add":1000},"client":"203.0.113.1","count":1000,"detail":null,"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","face":"lookaside","faces":{"extension":750,"lookaside":250},"first":"TIME","forwarded_for":"203.0.113.1, unknown","last":"TIME","number":null,"peer":"127.0.0.1:1234","reason":"unauthorized","reasons":{"denied":500,"unauthorized":500},"registry":"icr.io","repository":"birds/bluebird","request_id":"0000000000000007","signature":null,"time":"TIME","verdict":"refused","way":null,"who":null}"#);
    }

    #[tokio::test]
    async fn the_reserve_is_for_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let config =
            ServerConfig { audit_log: Some(path.clone()), audit_reserve_mib: u64::MAX, ..ServerConfig::default() };
        let audit = AuditLog::new(&config);
        audit.end(&record(), Outcome::Failed(&Problem::Unauthorized)).await.unwrap();
        let mut stranger = record();
        stranger.who = None;
        audit.end(&stranger, Outcome::Failed(&Problem::Unauthorized)).await.unwrap();
        audit.finish().await;
        stranger.who = Some(Identity { way: "upstream", name: ShownName::anonymous() });
        assert!(matches!(audit.begin(&stranger).await, Err(Problem::Unrecorded)), "a change by anybody");
        assert!(!path.exists(), "no disk has so much left");
        audit.begin(&record()).await.unwrap();
        audit.end(&record(), Outcome::Stored(1)).await.unwrap();
        let verdicts: Vec<_> = lines(&path).iter().map(|line| line["verdict"].to_string()).collect();
        assert_eq!(verdicts, ["\"admitted\"", "\"stored\""]);
    }
}
