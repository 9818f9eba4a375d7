//! Go's spellings: quoted text, numbers, base64, cleaned paths, the words of system errors. The
//! sentences of containers/image contain them, and whoever compares ours with its own sees every
//! letter.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Quotes as `%q` does (`strconv.Quote`), bytes that are no UTF-8 included.
pub fn quote(text: impl AsRef<[u8]>) -> String {
    let mut out = String::from('"');
    for chunk in text.as_ref().utf8_chunks() {
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

/// Rust escapes just what Go's `unicode.IsPrint` does not count, but for combining marks, which it
/// leaves alone behind another character.
fn is_print(c: char) -> bool {
    matches!(c, ' '..='~') || (!c.is_ascii() && format!("a{c}").escape_debug().nth(1) == Some(c))
}

/// Joins as `filepath.Join` does: empty parts are left out, `..`, `.` and doubled slashes resolved
/// by their letters, never by asking the file system. An absolute part does not start anew.
pub fn join<P: AsRef<Path>>(parts: impl IntoIterator<Item = P>) -> PathBuf {
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

/// Folds a member's name as Go's JSON decoder compares it: without regard to case, and two odd
/// letters taken for their likes.
pub fn folded(key: &str) -> String {
    key.chars()
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

/// Gives a system error in Go's words: `permission denied` for `Permission denied (os error 13)`.
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Writes a number as Go's `%v` does: shortest digits, an exponent below 1e-4 and from 1e6 on.
pub fn number(value: f64) -> String {
    let scientific = format!("{value:e}");
    match scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?))) {
        Some((digits, exponent)) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

/// Decodes standard base64 with padding; CR and LF are skipped anywhere, as in Go.
///
/// # Errors
/// The offset that Go names in `illegal base64 data at input byte N`.
pub fn base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut input = text.iter().copied().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
    loop {
        let mut quantum = 0u32;
        let mut taken = 0usize;
        while taken < 4 {
            match input.next() {
                None if taken == 0 => return Ok(out),
                // Go counts back from the end of the input, line ends included.
                None => return Err(text.len() - taken),
                Some((at, b'=')) => {
                    if taken < 2 {
                        return Err(at);
                    }
                    if taken == 2 {
                        match input.next() {
                            Some((_, b'=')) => {}
                            // Go names the place just before the wrong character.
                            Some((wrong, _)) => return Err(wrong - 1),
                            None => return Err(text.len()),
                        }
                    }
                    if let Some((trailing, _)) = input.next() {
                        return Err(trailing);
                    }
                    push(&mut out, quantum << (6 * (4 - taken)), taken - 1);
                    return Ok(out);
                }
                Some((at, byte)) => {
                    quantum = quantum << 6 | u32::from(sextet(byte).ok_or(at)?);
                    taken += 1;
                }
            }
        }
        push(&mut out, quantum, 3);
    }
}

fn push(out: &mut Vec<u8>, quantum: u32, count: usize) {
    out.extend(quantum.to_be_bytes().iter().skip(1).take(count));
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
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

#[cfg(test)]
mod json_tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn quotes_as_go() {
        for (text, quoted) in [
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a\"b\\c'd", r#""a\"b\\c'd""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}\0\u{7f}", r#""\a\b\f\n\r\t\v\x00\x7f""#),
            ("é\u{a0}\u{fffd}\u{200b}\u{1f600}e\u{301}", "\"é\\u00a0\u{fffd}\\u200b\u{1f600}e\u{301}\""),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn numbers_as_go() {
        for (value, text) in [
            (7.0, "7"),
            (-0.5, "-0.5"),
            (0.0, "0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (100_000.0, "100000"),
            (1_234_567.0, "1.234567e+06"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn base64_as_go() {
        for (text, result) in [
            ("", Ok("")),
            ("bm9u", Ok("non")),
            ("bm9uc2Vuc2U=", Ok("nonsense")),
            ("bm9u\r\nc2Vu\nc2U\n=\n", Ok("nonsense")),
            ("bm9uc2Vuc2V=", Ok("nonsense")), // loose trailing bits pass
            ("bm9uc2Vuc2U", Err(8)),
            ("abc", Err(0)),
            ("a", Err(0)),
            ("bm9uc2Vuc2U==", Err(12)),
            ("bm9uYQ=", Err(7)),
            ("bm9uYQ=x", Err(6)),
            ("bm9u=", Err(4)),
            ("bm9ua===", Err(5)),
            ("bm9u-_-_", Err(4)),
            ("bm9u c2V", Err(4)),
            ("bm9uYQ==x", Err(8)),
        ] {
            assert_eq!(base64(text.as_bytes()), result.map(|s| s.as_bytes().to_vec()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn base64_agrees_with_the_crate(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let text = STANDARD.encode(&bytes);
            proptest::prop_assert_eq!(super::base64(text.as_bytes()), Ok(bytes));
        }

        #[test]
        fn base64_refuses_what_the_crate_refuses(text in "[A-Ca-c0-2+/=\\-_]{0,14}") {
            // The crate is stricter about loose trailing bits only.
            if STANDARD.decode(&text).is_ok() {
                proptest::prop_assert!(super::base64(text.as_bytes()).is_ok());
            } else if let Ok(bytes) = super::base64(text.as_bytes()) {
                proptest::prop_assert_eq!(STANDARD.encode(bytes).len(), text.len());
            }
        }
    }
}
