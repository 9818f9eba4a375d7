//! Writing a report: whole, or not at all.

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Serialize;

use super::html::Html;
use super::markdown::Markdown;
use super::{Account, FORMAT, Head, Item, ReportError, ReportForm};
use crate::escape;
use crate::resign::item::State;

/// What people look at first comes first.
const SECTIONS: [State; 5] = [State::Failed, State::Refused, State::Signed, State::Already, State::Unmatched];

/// How a section is called.
pub(super) fn title(state: State, dry_run: bool) -> &'static str {
    match state {
        State::Failed => "Failed: accepted, but not read or written; the next run tries again",
        State::Refused => "Refused: not accepted, so not signed",
        State::Signed if dry_run => "Would be signed",
        State::Signed => "New signatures",
        State::Already => "Signed for the new name before",
        State::Unmatched => "Not concerned",
    }
}

/// A form for people: sections with rows.
pub(super) trait Page {
    /// Writes all before the sections.
    fn begin(&self, out: &mut dyn Write, head: &Head) -> io::Result<()>;
    /// Begins a section of items that came to one end.
    fn section(&self, out: &mut dyn Write, state: State, title: &str, count: u64) -> io::Result<()>;
    /// Writes an item of the section.
    fn item(&self, out: &mut dyn Write, item: &Item) -> io::Result<()>;
    /// Ends a section.
    fn section_end(&self, out: &mut dyn Write) -> io::Result<()>;
    /// Writes all after the sections.
    fn end(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// The folder that a file is in.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a report beside its place and moves it there when it is whole.
///
/// # Errors
/// [`ReportError`]; then what was at `path` is still there.
pub fn write(path: &Path, head: &Head, account: &dyn Account) -> Result<(), ReportError> {
    let form = ReportForm::of(path)?;
    let failed = |source| ReportError::Io { path: path.to_owned(), source };
    let mut file = begin(path)?;
    let mut out = BufWriter::new(&mut file);
    render(&mut out, form, head, account).map_err(|error| match error {
        Failure::Report(error) => error,
        Failure::Io(source) => failed(source),
    })?;
    out.flush().map_err(failed)?;
    drop(out);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    std::fs::File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Tells whether a report can be written to `path`, before the work that it will tell of.
///
/// # Errors
/// [`ReportError::Io`].
pub fn writable(path: &Path) -> Result<(), ReportError> {
    if path.is_dir() {
        return Err(ReportError::Io { path: path.to_owned(), source: io::ErrorKind::IsADirectory.into() });
    }
    begin(path).map(drop)
}

fn begin(path: &Path) -> Result<tempfile::NamedTempFile, ReportError> {
    tempfile::Builder::new()
        .prefix(".countersign-report-")
        // As any file that the user makes: the umask decides.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder(path))
        .map_err(|source| ReportError::Io { path: path.to_owned(), source })
}

#[derive(Debug)]
pub(super) enum Failure {
    Report(ReportError),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) fn render(out: &mut dyn Write, form: ReportForm, head: &Head, account: &dyn Account) -> Result<(), Failure> {
    match form {
        ReportForm::Json => json(out, head, account),
        ReportForm::Markdown => page(out, &Markdown, head, account),
        ReportForm::Html => page(out, &Html, head, account),
    }
}

/// Hands the items to something that writes, keeping its failure apart from those of reading.
fn each(account: &dyn Account, write: &mut dyn FnMut(&Item) -> io::Result<()>) -> Result<(), Failure> {
    let mut failed = None;
    let outcome = account.each(&mut |item| {
        write(item).map_err(|error| {
            failed = Some(error);
            ReportError::Stopped
        })
    });
    match (failed, outcome) {
        (Some(error), _) => Err(Failure::Io(error)),
        (None, Err(error)) => Err(Failure::Report(error)),
        (None, Ok(())) => Ok(()),
    }
}

fn json(out: &mut dyn Write, head: &Head, account: &dyn Account) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Document<'a> {
        report: &'static str,
        #[serde(flatten)]
        head: &'a Head,
    }
    let start = escape::json::to_string(&Document { report: FORMAT, head }).map_err(io::Error::from)?;
    write!(out, "{},\"items\":[", start.strip_suffix('}').unwrap_or(&start))?;
    let mut comma = "\n";
    each(account, &mut |item| {
        out.write_all(comma.as_bytes())?;
        comma = ",\n";
        out.write_all(escape::json::to_string(item)?.as_bytes())
    })?;
    Ok(out.write_all(b"\n]}\n")?)
}

fn page(out: &mut dyn Write, page: &dyn Page, head: &Head, account: &dyn Account) -> Result<(), Failure> {
    page.begin(out, head)?;
    for state in SECTIONS.into_iter().filter(|state| head.totals.of(*state) > 0) {
        page.section(out, state, title(state, head.dry_run), head.totals.of(state))?;
        each(account, &mut |item| if item.state == state { page.item(out, item) } else { Ok(()) })?;
        page.section_end(out)?;
    }
    Ok(page.end(out)?)
}

/// The numbers of a head, as pages tell them.
pub(super) fn counts(head: &Head) -> [(&'static str, u64); 5] {
    let signed = if head.dry_run { "would be signed" } else { "signed" };
    [
        (signed, head.totals.signed),
        ("already there", head.totals.already),
        ("refused", head.totals.refused),
        ("failed", head.totals.failed),
        ("not concerned", head.totals.unmatched),
    ]
}

/// What names a job, as pages tell it.
pub(super) fn facts(head: &Head) -> Vec<(&str, String)> {
    let mut facts = vec![
        ("made by", head.creator.clone()),
        ("began", head.started.clone()),
        ("ended", head.ended.clone()),
        ("parts", head.shards.join(", ")),
    ];
    // The parts are told already.
    facts.extend(
        head.job.iter().filter(|(name, _)| *name != super::SHARD).map(|(name, value)| (name.as_str(), value.clone())),
    );
    facts
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head_of, items};
    use super::*;

    #[test]
    fn a_report_is_whole_or_not_there() {
        struct Broken;
        impl Account for Broken {
            fn each(&self, take: &mut dyn FnMut(&Item) -> Result<(), ReportError>) -> Result<(), ReportError> {
                take(&items()[0])?;
                Err(ReportError::Stopped)
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        std::fs::write(&path, "before").unwrap();
        assert!(write(&path, &head_of(&items()), &Broken).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&path, &head_of(&items()), &items()).unwrap();
        assert_eq!(super::super::read_head(&path).unwrap(), head_of(&items()));
        let refused = write(&folder.path().join("r.pdf"), &head_of(&items()), &items()).unwrap_err();
        assert!(refused.to_string().ends_with("its name must end in .json, .md or .html"), "{refused}");
    }
}
