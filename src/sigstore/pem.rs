//! PEM as Go's `encoding/pem` reads it.
//!
//! Own code because the rules of sigstore verification rest on what Go tells and the PEM readers at
//! hand do not: the label (`RSA PUBLIC KEY`, a private key given by mistake), whether there were
//! headers, and above all what follows the block, since containers/image refuses trailing data.

use crate::go;

/// One PEM block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The word between `BEGIN` and the dashes.
    pub label: String,
    /// Whether RFC 1421 headers stood before the data.
    pub headers: bool,
    /// The data.
    pub der: Vec<u8>,
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Finds the first whole block of `text` and returns it with all that follows its last line, or
/// `None` if there is no block. What stands before it, damaged blocks too, is skipped.
pub(super) fn decode(text: &[u8]) -> Option<(Block, &[u8])> {
    let mut rest = text;
    // The label and the lines of the block that has been begun.
    let mut open: Option<(&[u8], Vec<&[u8]>)> = None;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        rest = after;
        if let Some(label) = line.strip_prefix(BEGIN).and_then(|tail| tail.strip_suffix(DASHES)) {
            open = Some((label, Vec::new()));
        } else if let Some(tail) = line.strip_prefix(END) {
            if let Some((label, lines)) = open.take()
                && tail.strip_suffix(DASHES) == Some(label)
                && let Some(block) = body(label, &lines)
            {
                return Some((block, rest));
            }
        } else if let Some((_, lines)) = &mut open {
            lines.push(line);
        }
    }
    None
}

/// Lists the labels of all whole blocks.
pub fn labels(text: &[u8]) -> Vec<String> {
    let (mut rest, mut labels) = (text, Vec::new());
    while let Some((block, after)) = decode(rest) {
        labels.push(block.label);
        rest = after;
    }
    labels
}

fn body(label: &[u8], lines: &[&[u8]]) -> Option<Block> {
    let headers = lines.iter().take_while(|line| line.contains(&b':')).count();
    let mut data = Vec::new();
    for line in lines.iter().skip(headers) {
        data.extend(line.iter().copied().filter(|byte| !matches!(byte, b' ' | b'\t')));
        data.push(b'\n');
    }
    let der = go::base64(&data).ok()?;
    Some(Block { label: String::from_utf8_lossy(label).into_owned(), headers: headers > 0, der })
}

/// Splits off a line, without its end and without white space before that.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match text.iter().position(|byte| *byte == b'\n') {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, &[][..]),
    };
    let mut line = line.strip_suffix(b"\r").unwrap_or(line);
    while let [head @ .., b' ' | b'\t'] = line {
        line = head;
    }
    (line, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, Vec<u8>, String)> {
        decode(text.as_bytes())
            .map(|(block, rest)| (block.label, block.der, String::from_utf8_lossy(rest).into_owned()))
    }

    #[test]
    fn reads_what_go_reads() {
        let found = |label: &str, der: &[u8], rest: &str| Some((label.to_owned(), der.to_vec(), rest.to_owned()));
        assert_eq!(read("-----BEGIN X-----\nYWI=\n-----END X-----\n"), found("X", b"ab", ""));
        assert_eq!(read("-----BEGIN X-----\r\nYWI=\r\n-----END X-----"), found("X", b"ab", ""));
        assert_eq!(read("talk\n-----BEGIN X-----\nY W\nI =\n-----END X-----  \nmore"), found("X", b"ab", "more"));
        assert_eq!(read("-----BEGIN X-----\nYWI=\n-----END X-----\n\n"), found("X", b"ab", "\n"));
        assert_eq!(read("-----BEGIN X-----\n-----END X-----\n"), found("X", b"", ""));
        let headed = "-----BEGIN X-----\nProc-Type: 4\n\nYWI=\n-----END X-----\n";
        assert!(decode(headed.as_bytes()).is_some_and(|(block, _)| block.headers && block.der == b"ab"));
    }

    #[test]
    fn skips_damaged_blocks() {
        let good = "-----BEGIN X-----\nYWI=\n-----END X-----\n";
        for bad in [
            "-----BEGIN X-----\nYWI=\n-----END Y-----\n",
            "-----BEGIN X-----\nYW*=\n-----END X-----\n",
            "-----BEGIN X-----\nYWI=\n",
            "-----BEGIN X\nYWI=\n-----END X-----\n",
            " -----BEGIN X-----\nYWI=\n-----END X-----\n",
        ] {
            assert_eq!(read(bad), None, "{bad}");
            assert!(read(&format!("{bad}{good}")).is_some_and(|(_, der, _)| der == b"ab"), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(-----BEGIN X-----|-----END X-----|-----|YWI=|A: b|[ \\r\\n:=a-])*") {
            let _ = decode(text.as_bytes());
        }
    }
}
