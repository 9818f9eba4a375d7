//! How Go spells things in its messages, and how it reads base64: `%q`, `%#v` of a number,
//! `encoding/base64`. Users compare our sentences with those of podman and skopeo.

use std::fmt::Write as _;

/// Quotes a text as Go's `%q` does.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\u{7}' => out.write_str("\\a"),
            '\u{8}' => out.write_str("\\b"),
            '\u{c}' => out.write_str("\\f"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\u{b}' => out.write_str("\\v"),
            c if printable(c) => out.write_char(c),
            c if u32::from(c) < 0x80 => write!(out, "\\x{:02x}", u32::from(c)),
            c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    out.push('"');
    out
}

/// Rust escapes just what Go's `unicode.IsPrint` does not count, but for combining marks, which it
/// leaves alone behind another character.
fn printable(c: char) -> bool {
    matches!(c, ' '..='~') || (!c.is_ascii() && format!("a{c}").escape_debug().nth(1) == Some(c))
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
