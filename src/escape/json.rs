//! JSON that can be shown: every value stays itself, but what a terminal obeys is spelled `\uXXXX`.
//!
//! serde_json leaves DEL, C1, marks of direction and separators of lines as they are. Everything that
//! people may look at (results, reports, records, logs, answers to clients) is written by these.
//! Bytes that are signed, hashed or compared are not.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

use super::is_hidden;

/// Writes a value as JSON without hidden characters.
///
/// # Errors
/// As `serde_json::to_string`.
pub fn to_string(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    Ok(match visible(&json) {
        Cow::Borrowed(_) => json,
        Cow::Owned(visible) => visible,
    })
}

/// Spells the hidden characters of a JSON text `\uXXXX`: outside of strings there can be none but the
/// white space of ASCII, which is left, and inside of strings they mean the same.
pub fn visible(json: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c >= '\u{7f}' && is_hidden(c);
    if !json.contains(obeyed) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if obeyed(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hidden_characters_are_spelled() {
        let value = "a\n\u{1b}\u{7f}\u{85}\u{9b}\u{202e}\u{2028}\u{e0041}é漢\\";
        let json = to_string(value).unwrap();
        assert_eq!(json, r#""a\n\u001b\u007f\u0085\u009b\u202e\u2028\udb40\udc41é漢\\""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
        let pretty = "{\n \"a\": \"\u{2029}\"\n}";
        assert_eq!(visible(pretty), "{\n \"a\": \"\\u2029\"\n}");
    }

    proptest! {
        #[test]
        fn the_value_stays_itself(value in any::<Vec<(String, String)>>()) {
            let json = to_string(&value).unwrap();
            prop_assert!(!json.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<Vec<(String, String)>>(&json).unwrap(), value);
        }
    }
}
