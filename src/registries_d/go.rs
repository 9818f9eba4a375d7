//! Go's spellings: quoted text, cleaned paths, the words of system errors. The sentences of
//! containers/image contain them, and whoever compares ours with its own sees every letter.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Quotes as `%q` does (`strconv.Quote`), bytes that are no UTF-8 included.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut out = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn quote_char(c: char, out: &mut String) {
    let escape = match c {
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\u{c}' => 'f',
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\u{b}' => 'v',
        '\\' | '"' => c,
        _ if is_print(c) => return out.push(c),
        _ => {
            let code = u32::from(c);
            let _ = match code {
                0..0x20 | 0x7f => write!(out, "\\x{code:02x}"),
                0..0x1_0000 => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
            return;
        }
    };
    out.push('\\');
    out.push(escape);
}

/// `unicode.IsPrint`, as near as std's tables allow: no controls, no spaces but the ASCII one, no
/// format characters, nothing private.
fn is_print(c: char) -> bool {
    let format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..);
    c == ' ' || !(c.is_control() || c.is_whitespace() || format)
}

/// Joins as `filepath.Join` does: empty parts are left out, `..`, `.` and doubled slashes resolved
/// by their letters, never by asking the file system. An absolute part does not start anew.
pub(super) fn join<P: AsRef<Path>>(parts: impl IntoIterator<Item = P>) -> PathBuf {
    let mut joined = Vec::new();
    for part in parts {
        let part = part.as_ref().as_os_str().as_bytes();
        if part.is_empty() {
            continue;
        }
        if !joined.is_empty() {
            joined.push(b'/');
        }
        joined.extend_from_slice(part);
    }
    if joined.is_empty() {
        return PathBuf::new();
    }
    let rooted = joined.starts_with(b"/");
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in joined.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if kept.last().is_some_and(|last| *last != b"..") => {
                kept.pop();
            }
            b".." if rooted => {}
            _ => kept.push(part),
        }
    }
    let mut clean = if rooted { vec![b'/'] } else { Vec::new() };
    clean.extend(kept.join(&b'/'));
    if clean.is_empty() {
        clean.push(b'.');
    }
    PathBuf::from(OsString::from_vec(clean))
}

/// Gives a system error in Go's words: `permission denied` for `Permission denied (os error 13)`.
pub(super) fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_strconv_does() {
        for (text, quoted) in [
            (&b"/etc/x.yaml"[..], r#""/etc/x.yaml""#),
            (br#"a"b\c"#, r#""a\"b\\c""#),
            (b"\x07\x08\x0c\n\r\t\x0b\0\x7f", r#""\a\b\f\n\r\t\v\x00\x7f""#),
            ("é 世 ' \u{a0}\u{200b}\u{1f600}\u{10ffff}".as_bytes(), "\"é 世 ' \\u00a0\\u200b😀\\U0010ffff\""),
            (b"a\xffb", r#""a\xffb""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn joins_as_filepath_does() {
        for (parts, joined) in [
            (&["", "containers"][..], "containers"),
            (&["/x//y/", "containers"], "/x/y/containers"),
            (&["/root", "/etc/containers"], "/root/etc/containers"),
            (&["./d/", "a.yaml"], "d/a.yaml"),
            (&["/a/../..", "b"], "/b"),
            (&["../a/..", "b"], "../b"),
            (&["a", ".."], "."),
            (&["", ""], ""),
            (&["/"], "/"),
        ] {
            assert_eq!(join(parts.iter()), Path::new(joined), "{parts:?}");
        }
    }

    #[test]
    fn says_errors_in_gos_words() {
        assert_eq!(error_text(&io::Error::from_raw_os_error(13)), "permission denied");
        assert_eq!(error_text(&io::Error::from_raw_os_error(20)), "not a directory");
        assert_eq!(error_text(&io::Error::from_raw_os_error(21)), "is a directory");
        assert_eq!(error_text(&io::Error::other("")), "");
    }
}
