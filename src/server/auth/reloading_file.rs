//! A small file of credentials, read again when it changes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::host::Stamp;

/// How long such a file may be.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// Why a file of credentials cannot be used. Never shows a secret of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsFileError {
    /// It cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// Which file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// One of its lines cannot be understood.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// Which file.
        path: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// Reads the text of a file; the error is a line and a reason.
pub(crate) type Parse<T> = fn(&str) -> Result<T, (usize, String)>;

/// A file's content, as of its last change.
pub(crate) struct ReloadingFile<T> {
    path: PathBuf,
    parse: Parse<T>,
    known: RwLock<Option<(Stamp, Arc<T>)>>,
}

impl<T> ReloadingFile<T> {
    pub(crate) fn new(path: &Path, parse: Parse<T>) -> Self {
        Self { path: path.to_owned(), parse, known: RwLock::default() }
    }

    /// Returns the content. A file that cannot be read any more counts for nothing: what it held
    /// before may have been withdrawn.
    ///
    /// # Errors
    /// [`CredentialsFileError`].
    pub(crate) fn get(&self) -> Result<Arc<T>, CredentialsFileError> {
        let unreadable =
            |error: std::io::Error| CredentialsFileError::Read { path: self.shown(), reason: error.to_string() };
        let stamp = Stamp::of(&std::fs::metadata(&self.path).map_err(unreadable)?);
        if let Some((known, content)) = &*self.known.read().unwrap_or_else(PoisonError::into_inner)
            && *known == stamp
        {
            return Ok(content.clone());
        }
        let mut file = std::fs::File::open(&self.path).map_err(unreadable)?;
        // Of the file that is really read; it may have been replaced since the first look.
        let stamp = Stamp::of(&file.metadata().map_err(unreadable)?);
        let mut text = String::new();
        file.by_ref().take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_LIMIT {
            let reason = format!("it is longer than {FILE_LIMIT} bytes");
            return Err(CredentialsFileError::Read { path: self.shown(), reason });
        }
        let content = (self.parse)(&text).map_err(|(line, reason)| CredentialsFileError::Line {
            path: self.shown(),
            line,
            reason,
        })?;
        let content = Arc::new(content);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some((stamp, content.clone()));
        Ok(content)
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// Lists the lines that say something, as `name:rest` with their numbers.
pub(crate) fn entries(text: &str) -> impl Iterator<Item = (usize, Option<(&str, &str)>)> {
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.trim();
        let named = line.split_once(':').filter(|(name, _)| !name.is_empty());
        (!line.is_empty() && !line.starts_with('#')).then_some((number, named))
    })
}
