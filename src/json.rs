//! Strict JSON objects, read as Go's containers/image reads them.
//!
//! `ParanoidUnmarshalJSONObject` refuses duplicate keys, unknown keys, other things than objects,
//! and trailing data; serde's derives let most of these pass (spec rust-stack 6). Strings follow
//! Go too: invalid UTF-8 and lone surrogates become U+FFFD instead of errors.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a JSON text is not the object that is due. Sentences are containers/image's own, but for
/// [`JsonError::Syntax`], whose text is serde_json's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON at all.
    #[error("{0}")]
    Syntax(String),
    /// JSON, but no object.
    #[error("JSON object expected, got {0}")]
    NotObject(String),
    /// A key stands there twice.
    #[error("Duplicate key \"{0}\"")]
    Duplicate(String),
    /// A key that has no meaning here.
    #[error("Unknown key \"{0}\"")]
    Unknown(String),
    /// A key that must be there is not.
    #[error("Key \"{0}\" missing in a JSON object")]
    Missing(&'static str),
    /// A value of the wrong kind.
    #[error("json: cannot unmarshal {found} into Go value of type {wanted}")]
    Type {
        /// What stands there, in Go's words: `string`, `number`, `object`, …
        found: &'static str,
        /// The Go type that was wanted.
        wanted: &'static str,
    },
}

/// Makes text out of bytes as Go's decoder does, so that [`object`] can borrow from it.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains("\\u") && !text.contains("\\U") { text } else { Cow::Owned(mend_surrogates(&text)) }
}

/// Replaces `\uXXXX` escapes that are half of a surrogate pair by `\ufffd`.
fn mend_surrogates(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let taken = match unit(escape) {
            Some(0xD800..=0xDBFF) => {
                let paired = escape.get(6..).and_then(unit).is_some_and(|low| (0xDC00..=0xDFFF).contains(&low));
                if paired { 12 } else { 0 }
            }
            Some(0xDC00..=0xDFFF) => 0,
            Some(_) => 6,
            // Any other escape is two characters; a `\` at the end is left to the parser.
            None => escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end),
        };
        if taken == 0 {
            out.push_str("\\ufffd");
            rest = escape.get(6..).unwrap_or_default();
        } else {
            let (kept, after) = escape.split_at_checked(taken).unwrap_or((escape, ""));
            out.push_str(kept);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn unit(escape: &str) -> Option<u32> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    if digits.bytes().all(|b| b.is_ascii_hexdigit()) { u32::from_str_radix(digits, 16).ok() } else { None }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, &RawValue>()? {
            members.push(member);
        }
        Ok(members)
    }
}

/// Reads one object, handing each member to `member` in the order of the text.
///
/// `member` answers `Ok(false)` for a key that it does not know.
///
/// # Errors
/// [`JsonError`] for what is no object, for a repeated and for an unknown key; else whatever
/// `member` returned.
pub fn object<'a, E: From<JsonError>>(
    text: &'a str,
    mut member: impl FnMut(&str, &'a RawValue) -> Result<bool, E>,
) -> Result<(), E> {
    let members = members(text)?;
    let mut seen = std::collections::HashSet::with_capacity(members.len());
    for (key, value) in members {
        if seen.contains(&key) {
            return Err(JsonError::Duplicate(key).into());
        }
        if !member(&key, value)? {
            return Err(JsonError::Unknown(key).into());
        }
        seen.insert(key);
    }
    Ok(())
}

/// Reads the members of one object in the order of the text, repeated and unknown ones too: what
/// Go's plain decoder sees, for the formats that containers/image reads leniently.
///
/// # Errors
/// [`JsonError::NotObject`] and [`JsonError::Syntax`].
pub fn members(text: &str) -> Result<Vec<(String, &RawValue)>, JsonError> {
    let trimmed = text.trim_start_matches([' ', '\t', '\r', '\n']);
    if !trimmed.starts_with('{') {
        return Err(not_an_object(trimmed));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(Members).map_err(|e| JsonError::Syntax(e.to_string()))?;
    deserializer.end().map_err(|e| JsonError::Syntax(e.to_string()))?;
    Ok(members)
}

/// Reads an object that has exactly the members `keys`, and returns their values in that order.
///
/// # Errors
/// [`JsonError`], as containers/image's `ParanoidUnmarshalJSONObjectExactFields`.
pub fn exact<'a, const N: usize>(text: &'a str, keys: [&'static str; N]) -> Result<[&'a RawValue; N], JsonError> {
    let mut found: [Option<&'a RawValue>; N] = [None; N];
    object(text, |key, value| {
        let slot = keys.iter().position(|k| *k == key).and_then(|i| found.get_mut(i));
        Ok::<_, JsonError>(slot.map(|slot| *slot = Some(value)).is_some())
    })?;
    let mut values = Vec::with_capacity(N);
    for (key, value) in keys.into_iter().zip(found) {
        values.push(value.ok_or(JsonError::Missing(key))?);
    }
    values.try_into().map_err(|_| JsonError::Syntax("member count".to_owned()))
}

/// Reads the elements of an array.
///
/// # Errors
/// [`JsonError::Type`] when the value is no array; `null` counts as an empty one, as in Go.
pub fn array(value: &RawValue) -> Result<Vec<&RawValue>, JsonError> {
    match kind(value.get()) {
        "null" => Ok(Vec::new()),
        "array" => serde_json::from_str(value.get()).map_err(|e| JsonError::Syntax(e.to_string())),
        found => Err(JsonError::Type { found, wanted: "[]json.RawMessage" }),
    }
}

/// Reads a string; `null` is `None`, which Go leaves as the empty string.
///
/// # Errors
/// [`JsonError::Type`] when the value is neither.
pub fn string(value: &RawValue) -> Result<Option<String>, JsonError> {
    match kind(value.get()) {
        "null" => Ok(None),
        "string" => serde_json::from_str(value.get()).map(Some).map_err(|e| JsonError::Syntax(e.to_string())),
        found => Err(JsonError::Type { found, wanted: "string" }),
    }
}

/// Reads a number as Go reads a `float64`; `null` is `None`.
///
/// # Errors
/// [`JsonError::Type`] when the value is neither, or out of a float's range.
pub fn float(value: &RawValue) -> Result<Option<f64>, JsonError> {
    let wrong = |found| JsonError::Type { found, wanted: "float64" };
    match kind(value.get()) {
        "null" => Ok(None),
        "number" => match value.get().trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(wrong("number")),
        },
        found => Err(wrong(found)),
    }
}

/// Names the kind of a valid JSON value in the words of Go's decoder.
pub fn kind(json: &str) -> &'static str {
    match json.trim_start().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// Says what stands where an object is due, in the form of Go's `%#v` of a decoder token.
fn not_an_object(text: &str) -> JsonError {
    let value: serde_json::Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if text.is_empty() => return JsonError::Syntax("unexpected end of JSON input".to_owned()),
        Err(e) => return JsonError::Syntax(e.to_string()),
    };
    JsonError::NotObject(match value {
        serde_json::Value::Null => "<nil>".to_owned(),
        serde_json::Value::Array(_) => "91".to_owned(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(json: &str) -> Result<Vec<String>, JsonError> {
        let mut keys = Vec::new();
        object(json, |key, _| {
            keys.push(key.to_owned());
            Ok::<_, JsonError>(key != "unknown")
        })?;
        Ok(keys)
    }

    #[test]
    fn strictness_is_gos() {
        assert_eq!(keys(r#" {"a":1,"b":{"a":[]}} "#), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(keys(r#"{"a":1,"\u0061":2}"#), Err(JsonError::Duplicate("a".to_owned())));
        assert_eq!(keys(r#"{"unknown":1}"#), Err(JsonError::Unknown("unknown".to_owned())));
        assert_eq!(keys("null"), Err(JsonError::NotObject("<nil>".to_owned())));
        assert_eq!(keys("[1]"), Err(JsonError::NotObject("91".to_owned())));
        assert_eq!(keys("7"), Err(JsonError::NotObject("7".to_owned())));
        for broken in ["", "{", "{}{}", "{} x", "{'a':1}", "{\"a\":1,}", "\u{feff}{}"] {
            assert!(matches!(keys(broken), Err(JsonError::Syntax(_))), "{broken}");
        }
    }

    #[test]
    fn exact_wants_all_and_no_more() {
        assert!(exact(r#"{"b":2,"a":1}"#, ["a", "b"]).is_ok_and(|[a, b]| a.get() == "1" && b.get() == "2"));
        assert_eq!(exact(r#"{"b":2}"#, ["a", "b"]).unwrap_err(), JsonError::Missing("a"));
        assert_eq!(exact(r#"{"a":1,"B":1}"#, ["a", "b"]).unwrap_err(), JsonError::Unknown("B".to_owned()));
    }

    #[test]
    fn broken_text_is_replaced_not_refused() {
        let read = |bytes: &[u8]| -> String {
            let text = text(bytes).into_owned();
            let [value] = exact(&text, ["a"]).unwrap();
            string(value).unwrap().unwrap()
        };
        assert_eq!(read(b"{\"a\":\"x\xffy\"}"), "x\u{fffd}y");
        assert_eq!(read(br#"{"a":"x\ud800y"}"#), "x\u{fffd}y");
        assert_eq!(read(br#"{"a":"\udc00\ud800"}"#), "\u{fffd}\u{fffd}");
        assert_eq!(read(br#"{"a":"\ud83d\ude00"}"#), "\u{1f600}");
        assert_eq!(read(br#"{"a":"\\ud800"}"#), "\\ud800");
    }

    #[test]
    fn values_have_gos_types() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        assert_eq!(string(&raw("null")), Ok(None));
        assert_eq!(string(&raw("1")), Err(JsonError::Type { found: "number", wanted: "string" }));
        assert_eq!(float(&raw("1e3")), Ok(Some(1000.0)));
        assert!(float(&raw("1e999")).is_err());
        assert!(float(&raw("\"1\"")).is_err());
        assert!(array(&raw("{}")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let text = text(&bytes);
            let _ = keys(&text);
        }

        #[test]
        fn never_panics_on_escapes(text in "[{}\"\\\\ud80c:, é]{0,40}") {
            let mended = super::text(text.as_bytes());
            let _ = keys(&mended);
        }
    }
}
