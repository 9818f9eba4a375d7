//! The list of images: a file or standard input, read line by line in memory that does not grow
//! with it.

use std::io::{BufRead, BufReader, Read as _};
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::EndpointError;
use super::line::{ImageLine, LINE_LIMIT, LineError};
use crate::resign::pipeline::Shard;

/// Lines that are read ahead.
const AHEAD: usize = 256;

/// What is found out by asking registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discover {
    /// All tags of the repositories that a list names.
    Tags,
    /// All repositories of the source's registry, and their tags.
    Catalog,
}

/// Where a job gets the names of its images from.
#[derive(Clone, Debug)]
pub enum Lister {
    /// A list of images, and of whole repositories; of which all tags, if those are to be looked for.
    File {
        /// The list.
        file: ImageFile,
        /// Whether names without tag and digest stand for all tags.
        discover_tags: bool,
    },
    /// The source's registry itself.
    Catalog,
}

/// A file of names, one a line.
#[derive(Clone, Debug)]
pub struct ImageFile(PathBuf);

/// A line that says something, or cannot be understood.
pub(super) struct Line {
    /// `images.txt:12`.
    pub(super) place: String,
    /// Its text, as far as it is fit to be shown.
    pub(super) text: String,
    pub(super) image: Result<ImageLine, LineError>,
}

impl Line {
    /// Tells whether the line is of a part of the work.
    pub(super) fn is_of(&self, shard: Shard) -> bool {
        shard.has(self.image.as_ref().map_or(self.text.as_str(), |line| line.path.as_str()))
    }
}

impl ImageFile {
    /// Takes a file's path; `-` is standard input.
    ///
    /// # Errors
    /// [`EndpointError::Images`] for a file that is not there.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, EndpointError> {
        let file = Self(path.into());
        if !file.is_standard_input() {
            // Not opened yet: a pipe can be read only once.
            std::fs::metadata(&file.0).map_err(|e| file.failed(e))?;
        }
        Ok(file)
    }

    fn is_standard_input(&self) -> bool {
        self.0.as_os_str() == "-"
    }

    /// Names the file, for messages.
    pub(super) fn name(&self) -> String {
        if self.is_standard_input() { "standard input".to_owned() } else { self.0.display().to_string() }
    }

    fn failed(&self, source: std::io::Error) -> EndpointError {
        EndpointError::Images { file: self.name(), source }
    }

    /// Reads on a thread of its own, since standard input may keep us waiting.
    pub(super) fn lines(&self) -> mpsc::Receiver<Result<Line, EndpointError>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let file = self.clone();
        std::thread::spawn(move || {
            let reader: Box<dyn BufRead> = if file.is_standard_input() {
                Box::new(std::io::stdin().lock())
            } else {
                match std::fs::File::open(&file.0) {
                    Ok(opened) => Box::new(BufReader::new(opened)),
                    Err(error) => {
                        let _ = sender.blocking_send(Err(file.failed(error)));
                        return;
                    }
                }
            };
            let name = file.name();
            let lines = Numbered { reader, number: 0 };
            for line in lines {
                let line = match line {
                    Ok((number, bytes)) => read(&name, number, &bytes),
                    Err(error) => Some(Err(file.failed(error))),
                };
                if line.is_some_and(|line| sender.blocking_send(line).is_err()) {
                    return;
                }
            }
        });
        receiver
    }
}

fn read(name: &str, number: u64, bytes: &[u8]) -> Option<Result<Line, EndpointError>> {
    let image = ImageLine::parse(bytes).transpose()?;
    let shown = String::from_utf8_lossy(bytes);
    let text = shown.trim().chars().take(200).collect();
    Some(Ok(Line { place: format!("{name}:{number}"), text, image }))
}

/// The lines with their numbers; of one that is too long, the beginning.
struct Numbered {
    reader: Box<dyn BufRead>,
    number: u64,
}

impl Iterator for Numbered {
    type Item = std::io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::new();
        let most = u64::try_from(LINE_LIMIT).unwrap_or(u64::MAX).saturating_add(2);
        match self.reader.by_ref().take(most).read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        self.number += 1;
        if bytes.pop_if(|last| *last == b'\n').is_none()
            && bytes.len() > LINE_LIMIT
            && let Err(error) = self.reader.skip_until(b'\n')
        {
            return Some(Err(error));
        }
        Some(Ok((self.number, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(text: Vec<u8>) -> Vec<(u64, Vec<u8>)> {
        Numbered { reader: Box::new(std::io::Cursor::new(text)), number: 0 }.map(Result::unwrap).collect()
    }

    #[test]
    fn lines_have_their_numbers_whatever_their_length() {
        let long = vec![b'x'; 3 * LINE_LIMIT];
        let text = [b"a\n\n".as_slice(), &long, b"\nb"].concat();
        let lines = numbered(text);
        let numbers: Vec<_> = lines.iter().map(|(number, line)| (*number, line.len())).collect();
        assert_eq!(numbers, [(1, 1), (2, 0), (3, LINE_LIMIT + 2), (4, 1)]);
        assert_eq!(numbered(Vec::new()), []);
        let exact = [vec![b'x'; LINE_LIMIT + 1], b"\nb\n".to_vec()].concat();
        assert_eq!(numbered(exact).len(), 2);
    }

    #[tokio::test]
    async fn a_file_is_read_once_and_missing_ones_are_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images");
        assert!(ImageFile::new(&path).unwrap_err().to_string().contains("list of images"));
        std::fs::write(&path, "# all\na/b:1\nA/b:1\x1b\n").unwrap();
        let mut lines = ImageFile::new(&path).unwrap().lines();
        let good = lines.recv().await.unwrap().unwrap();
        assert!(good.place.ends_with("/images:2") && good.image.is_ok());
        let bad = lines.recv().await.unwrap().unwrap();
        assert!(bad.place.ends_with("/images:3") && bad.image.is_err());
        assert_eq!(bad.text, "A/b:1\u{1b}");
        assert!(lines.recv().await.is_none());
    }
}
