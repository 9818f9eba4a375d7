//! Strings from outside, made fit to be printed: the one place that says how.
//!
//! Names in claims, words of registries, file names and the like are written by strangers. Printed as
//! they are, a newline in them begins a line that the program seems to have written, and an ESC or a
//! direction mark rewrites what stands around it. So:
//!
//! - [`text`] escapes a value that ends a line, [`word`] one that other words follow: it is bare, or in
//!   quotation marks when it could be taken for more than one word. Both can be read back.
//! - [`line`] is what every line goes through before it is printed. What it leaves is one line.
//! - [`json`] writes JSON: there the value stays itself, only spelled in `\uXXXX`.
//! - [`shell`] is for lines that the reader pastes into a shell.

pub mod json;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Tells whether a character is obeyed, or shown as nothing, rather than seen: controls (C0, DEL, C1),
/// line and paragraph separators, format characters (those of direction and of no width, tags), spaces
/// other than the one of ASCII, fillers, variation selectors, and what is not assigned.
pub fn is_hidden(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // Letters and marks by their category, but without a shape of their own.
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' => true,
        '\u{3164}' | '\u{ffa0}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}' => true,
        c if c.is_ascii() => true,
        // Rust escapes all other such characters; behind a letter it leaves combining marks alone.
        c => format!("a{c}").escape_debug().nth(1) != Some(c),
    }
}

/// Escapes a value so that it stays on its line and can be read back: hidden characters become `\n`,
/// `\r`, `\t` or `\u{…}`, bytes that are no UTF-8 `\x…`, and a backslash is doubled.
pub fn text(value: impl AsRef<[u8]>) -> String {
    escaped(value.as_ref(), &['\\'])
}

/// Makes one word of a value: itself, or [`text`] in quotation marks if it is empty or holds a space, a
/// quotation mark or something to escape.
pub fn word(value: impl AsRef<[u8]>) -> String {
    let value = value.as_ref();
    match std::str::from_utf8(value) {
        Ok(bare) if !bare.is_empty() && !bare.chars().any(|c| matches!(c, ' ' | '"' | '\\') || is_hidden(c)) => {
            bare.to_owned()
        }
        _ => format!("\"{}\"", escaped(value, &['\\', '"'])),
    }
}

/// [`text`] of a file's name.
pub fn path(path: &Path) -> String {
    text(path.as_os_str().as_bytes())
}

/// [`word`] of a file's name.
pub fn path_word(path: &Path) -> String {
    word(path.as_os_str().as_bytes())
}

/// Makes one line of a sentence in which values may stand: hidden characters are escaped as by [`text`],
/// backslashes are left alone, because those of escaped values are there already.
pub fn line(sentence: &str) -> Cow<'_, str> {
    // Log lines and listings are many, and mostly of this kind.
    if sentence.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(sentence);
    }
    Cow::Owned(escaped(sentence.as_bytes(), &[]))
}

/// Makes one word of a value for a POSIX shell: as it is, or quoted. Hidden characters need the quotes
/// `$'…'`, which bash, zsh and ksh know.
pub fn shell(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !value.is_empty() && !value.starts_with('-') && value.chars().all(plain) {
        return value.to_owned();
    }
    if !value.chars().any(is_hidden) {
        return format!("'{}'", value.replace('\'', r"'\''"));
    }
    let mut quoted = String::from("$'");
    for c in value.chars() {
        let _ = match c {
            '\\' | '\'' => write!(quoted, "\\{c}"),
            c if !is_hidden(c) => write!(quoted, "{c}"),
            c if c.is_ascii() => write!(quoted, "\\x{:02x}", u32::from(c)),
            c => c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(quoted, "\\x{byte:02x}")),
        };
    }
    quoted.push('\'');
    quoted
}

/// Escapes what is hidden, what is no UTF-8, and these, which get a backslash.
fn escaped(value: &[u8], special: &[char]) -> String {
    let mut out = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            let _ = match c {
                '\n' => out.write_str("\\n"),
                '\r' => out.write_str("\\r"),
                '\t' => out.write_str("\\t"),
                c if special.contains(&c) => write!(out, "\\{c}"),
                c if is_hidden(c) => write!(out, "{}", c.escape_unicode()),
                c => out.write_char(c),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads back what [`text`] wrote.
    fn unescaped(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text.chars();
        let mut push = |c: char| out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        while let Some(c) = rest.next() {
            if c != '\\' {
                push(c);
                continue;
            }
            match rest.next().unwrap() {
                'n' => push('\n'),
                'r' => push('\r'),
                't' => push('\t'),
                'u' => {
                    assert_eq!(rest.next(), Some('{'));
                    let digits: String = rest.by_ref().take_while(|c| *c != '}').collect();
                    push(char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap());
                }
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    let byte = u8::from_str_radix(&digits, 16).unwrap();
                    return [out, vec![byte], unescaped(rest.as_str())].concat();
                }
                c @ ('\\' | '"') => push(c),
                c => panic!("\\{c}"),
            }
        }
        out
    }

    /// Reads back what [`word`] wrote.
    fn unquoted(word: &str) -> Vec<u8> {
        match word.strip_prefix('"') {
            Some(rest) => unescaped(rest.strip_suffix('"').unwrap()),
            None => word.as_bytes().to_vec(),
        }
    }

    #[test]
    fn what_is_seen_stays_and_what_is_hidden_is_shown() {
        for seen in ["us.icr.io/birds/bluebird:1", "Zoë Müller <z@x.example>", "漢字 かな 한국", "e\u{301}", "🐦", "x…"]
        {
            assert_eq!(text(seen), seen);
            assert_eq!(line(seen), seen);
        }
        let controls = (0..0x20).chain(0x7f..0xa0).map(|c| char::from_u32(c).unwrap());
        let others = "\u{a0}\u{ad}\u{61c}\u{180e}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\
            \u{202c}\u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{3164}\u{fe0f}\u{feff}\u{fff9}\u{e0001}\
            \u{e0041}\u{e007f}\u{e0100}\u{e000}\u{fffe}\u{10ffff}";
        for hidden in controls.chain(others.chars()) {
            assert!(is_hidden(hidden), "{hidden:?}");
            assert!(line(&hidden.to_string()).is_ascii(), "{hidden:?}");
        }
        assert_eq!(text("a\nb\r\t\u{1b}[31m\u{9b}\u{202e}\\n"), r"a\nb\r\t\u{1b}[31m\u{9b}\u{202e}\\n");
        assert_eq!(text(b"a\xff\xfeb\xc3"), r"a\xff\xfeb\xc3");
        assert_eq!(line("a\nb \\n \"c\""), "a\\nb \\n \"c\"");
        assert_eq!(path(Path::new("/etc/a\nb")), r"/etc/a\nb");
    }

    #[test]
    fn a_word_is_one_word() {
        for (value, shown) in [
            ("us.icr.io/birds:1", "us.icr.io/birds:1"),
            ("é漢", "é漢"),
            ("", r#""""#),
            ("a by b", r#""a by b""#),
            (r#"a"b\"#, r#""a\"b\\""#),
            ("a\nb", r#""a\nb""#),
            ("a\u{a0}b", r#""a\u{a0}b""#),
        ] {
            assert_eq!(word(value), shown);
        }
    }

    #[test]
    fn a_shell_takes_it_for_one_word() {
        for value in ["/a/b:c@1", "", "a b", "it's $(x) `y` \"z\" \\", "-x", "a\nb\u{1b}'\\\u{202e}é", "*~#;&|<>"] {
            let quoted = shell(value);
            assert!(!quoted.contains(is_hidden), "{quoted}");
            let script = format!("printf %s {quoted}");
            let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value, "{quoted}");
        }
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_and_nothing_is_lost(
            value in prop_oneof![
                any::<Vec<u8>>(),
                any::<String>().prop_map(String::into_bytes),
                "[\\x00-\\x7f\\u{80}-\\u{9f}\\u{200b}-\\u{202e}\\\\\"nu{}x]{0,40}".prop_map(String::into_bytes),
            ],
        ) {
            let (text, word) = (text(&value), word(&value));
            prop_assert!(!text.contains(is_hidden) && !word.contains(is_hidden));
            prop_assert!(word.starts_with('"') || !word.contains([' ', '"', '\\']));
            prop_assert_eq!(&unescaped(&text), &value);
            prop_assert_eq!(&unquoted(&word), &value);
            // What is escaped stays as it is on its way out.
            prop_assert_eq!(line(&text), text.as_str());
            let lossy = String::from_utf8_lossy(&value);
            prop_assert!(!line(&lossy).contains(is_hidden));
            prop_assert!(!shell(&lossy).contains(is_hidden));
        }
    }
}
