//! Strict JSON objects, read as Go's containers/image reads them.
//!
//! `ParanoidUnmarshalJSONObject` refuses duplicate keys, unknown keys, other things than objects,
//! and trailing data; serde's derives accept duplicate keys and unknown keys. Strings follow
//! Go too: invalid UTF-8 and lone surrogates become U+FFFD instead of errors.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

mod scan;

use crate::go;

pub use scan::validate;

/// Why a JSON text is not the object that is due. Sentences are containers/image's own and those
/// of Go's decoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON at all.
    #[error("{0}")]
    Syntax(String),
    /// JSON, but no object.
    #[error("JSON object expected, got {0}")]
    NotObject(String),
    /// A key stands there twice.
    #[error("Duplicate key {}", go::quote(.0))]
    Duplicate(String),
    /// A key that has no meaning here.
    #[error("Unknown key {}", go::quote(.0))]
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
    /// A value of the wrong kind in a member that is read by name alone.
    #[error("json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")]
    Field {
        /// What stands there, in Go's words.
        found: &'static str,
        /// The Go struct and the member: `prCommon.type`.
        field: &'static str,
        /// The Go type that was wanted.
        wanted: &'static str,
    },
    /// A number that does not fit.
    #[error("json: cannot unmarshal number {literal} into Go value of type {wanted}")]
    Number {
        /// The number as written.
        literal: String,
        /// The Go type that was wanted.
        wanted: &'static str,
    },
    /// Not base64, from this byte on.
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
}

/// Makes text out of bytes as Go's decoder does, so that [`object`] can borrow from it.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    let text = lossy(bytes);
    if !text.contains("\\u") && !text.contains("\\U") { text } else { Cow::Owned(mend_surrogates(&text)) }
}

/// Go replaces each byte that is not UTF-8, where Rust's own function replaces each run of them.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(out)
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
    let trimmed = text.trim_start_matches([' ', '\t', '\r', '\n']);
    if !trimmed.starts_with('{') {
        return Err(not_an_object(trimmed).into());
    }
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

/// Reads the members of an object in the order of the text, repeated ones too.
///
/// # Errors
/// [`JsonError::Syntax`] when the text is no object.
pub fn members(text: &str) -> Result<Vec<(String, &RawValue)>, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(Members).and_then(|members| deserializer.end().map(|()| members));
    read.map_err(|error| syntax(text, &error))
}

/// Go's sentence for what serde_json refused.
fn syntax(text: &str, error: &serde_json::Error) -> JsonError {
    validate(text.as_bytes()).err().unwrap_or_else(|| JsonError::Syntax(error.to_string()))
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
    Ok(elements(value, "[]json.RawMessage")?.unwrap_or_default())
}

fn elements<'a>(value: &'a RawValue, wanted: &'static str) -> Result<Option<Vec<&'a RawValue>>, JsonError> {
    match kind(value.get()) {
        "null" => Ok(None),
        "array" => serde_json::from_str(value.get()).map(Some).map_err(|e| syntax(value.get(), &e)),
        found => Err(JsonError::Type { found, wanted }),
    }
}

/// Reads a Go `[]string`: `null` is `None`, a `null` inside it the empty string.
///
/// # Errors
/// [`JsonError::Type`] for anything else.
pub fn strings(value: &RawValue) -> Result<Option<Vec<String>>, JsonError> {
    let Some(elements) = elements(value, "[]string")? else { return Ok(None) };
    elements.into_iter().map(|element| Ok(string(element)?.unwrap_or_default())).collect::<Result<_, _>>().map(Some)
}

/// Reads a Go `[]byte`: base64 in a string, or (as Go takes it too) an array of small numbers;
/// `null` is `None`.
///
/// # Errors
/// [`JsonError::Base64`], [`JsonError::Number`], [`JsonError::Type`].
pub fn bytes(value: &RawValue) -> Result<Option<Vec<u8>>, JsonError> {
    if let "string" = kind(value.get()) {
        let text = string(value)?.unwrap_or_default();
        return go::base64(text.as_bytes()).map(Some).map_err(JsonError::Base64);
    }
    let Some(elements) = elements(value, "[]uint8")? else { return Ok(None) };
    elements.into_iter().map(byte).collect::<Result<_, _>>().map(Some)
}

fn byte(value: &RawValue) -> Result<u8, JsonError> {
    match kind(value.get()) {
        "null" => Ok(0),
        "number" => {
            let literal = value.get().trim();
            literal.parse().map_err(|_| JsonError::Number { literal: literal.to_owned(), wanted: "uint8" })
        }
        found => Err(JsonError::Type { found, wanted: "uint8" }),
    }
}

/// Reads a Go `[][]byte`; `null` is `None`, a `null` inside it nothing at all.
///
/// # Errors
/// As [`bytes`].
pub fn byte_strings(value: &RawValue) -> Result<Option<Vec<Vec<u8>>>, JsonError> {
    let Some(elements) = elements(value, "[][]uint8")? else { return Ok(None) };
    elements.into_iter().map(|element| Ok(bytes(element)?.unwrap_or_default())).collect::<Result<_, _>>().map(Some)
}

/// Reads a string; `null` is `None`, which Go leaves as the empty string.
///
/// # Errors
/// [`JsonError::Type`] when the value is neither.
pub fn string(value: &RawValue) -> Result<Option<String>, JsonError> {
    match kind(value.get()) {
        "null" => Ok(None),
        "string" => serde_json::from_str(value.get()).map(Some).map_err(|e| syntax(value.get(), &e)),
        found => Err(JsonError::Type { found, wanted: "string" }),
    }
}

/// Reads a number as Go reads a `float64`; `null` is `None`.
///
/// # Errors
/// [`JsonError::Type`] when the value is neither, or out of a float's range.
pub fn float(value: &RawValue) -> Result<Option<f64>, JsonError> {
    match kind(value.get()) {
        "null" => Ok(None),
        "number" => number(value.get()).map(Some),
        found => Err(JsonError::Type { found, wanted: "float64" }),
    }
}

fn number(literal: &str) -> Result<f64, JsonError> {
    let literal = literal.trim();
    let wanted = "float64";
    let parsed = literal.parse::<f64>().ok().filter(|number| number.is_finite());
    parsed.ok_or_else(|| JsonError::Number { literal: literal.to_owned(), wanted })
}

/// Checks a value that is ignored as Go checks it when it decodes into `any`: every number in it
/// must fit a float.
///
/// # Errors
/// [`JsonError::Number`].
pub fn any(value: &RawValue) -> Result<(), JsonError> {
    let mut rest = value.get();
    while let Some(at) = rest.find(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        rest = rest.get(at..).unwrap_or_default();
        rest = match rest.strip_prefix('"') {
            Some(string) => after_string(string),
            None => {
                let end = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
                let (literal, after) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, ""));
                number(literal)?;
                after
            }
        };
    }
    Ok(())
}

/// Skips to behind the quotation mark that ends a string.
fn after_string(text: &str) -> &str {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return text.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
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
    if let Err(error) = validate(text.as_bytes()) {
        return error;
    }
    JsonError::NotObject(match kind(text) {
        "null" => "<nil>".to_owned(),
        "array" => "91".to_owned(),
        "number" => match number(text) {
            Ok(number) => go::number(number),
            Err(error) => return error,
        },
        "string" => go::quote(serde_json::from_str::<String>(text).unwrap_or_default()),
        _ => text.trim().to_owned(),
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
        assert_eq!(strings(&raw(r#"["a",null]"#)), Ok(Some(vec!["a".to_owned(), String::new()])));
        assert_eq!(bytes(&raw(r#""YQ==""#)), Ok(Some(b"a".to_vec())));
        assert_eq!(bytes(&raw("[1,255,null]")), Ok(Some(vec![1, 255, 0])));
        assert_eq!(byte_strings(&raw(r#"["YQ==",[],null]"#)), Ok(Some(vec![b"a".to_vec(), vec![], vec![]])));
        for (value, sentence) in [
            ("[256]", "json: cannot unmarshal number 256 into Go value of type uint8"),
            ("[1.0]", "json: cannot unmarshal number 1.0 into Go value of type uint8"),
            ("[true]", "json: cannot unmarshal bool into Go value of type uint8"),
            ("7", "json: cannot unmarshal number into Go value of type []uint8"),
            ("\"YQ\"", "illegal base64 data at input byte 0"),
        ] {
            assert_eq!(bytes(&raw(value)).unwrap_err().to_string(), sentence);
        }
    }

    #[test]
    fn ignored_values_hold_numbers_that_fit() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        for fine in ["1", "\"1e999\"", r#"{"a":["\"1e999",-1.5e+3,{"1e999":null}]}"#, "[1e-999]"] {
            assert_eq!(any(&raw(fine)), Ok(()), "{fine}");
        }
        for wrong in ["1e999", "[0,-1e999]", r#"{"a\\":1e999}"#] {
            assert!(any(&raw(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_stands_in_place_of_an_object() {
        for (text, got) in
            [("null", "<nil>"), ("[]", "91"), ("true", "true"), ("1.50", "1.5"), (r#""a\n""#, r#""a\n""#)]
        {
            assert_eq!(keys(text).unwrap_err().to_string(), format!("JSON object expected, got {got}"));
        }
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
