//! Is this one valid JSON text? Asked as Go's decoder asks it: before anything is decoded, over the
//! whole text, byte by byte, with Go's sentences and Go's limit of nesting.

use super::JsonError;
use crate::go::quote;

/// Go's `encoding/json` gives up beyond this depth ("exceeded max depth").
const DEPTH_LIMIT: usize = 10_000;

/// What the next byte may be.
#[derive(Clone, Copy)]
enum State {
    Value,
    /// Just after `[`.
    ValueOrEnd,
    /// Just after `{`.
    KeyOrEnd,
    /// After `,` in an object.
    Key,
    /// After a value, or a key: what follows depends on what is open.
    Done,
    String,
    Escape,
    /// This many hex digits of `\uXXXX` are still due.
    Hex(u8),
    /// Rest of a literal, and its whole name.
    Literal(&'static str, &'static str),
    Minus,
    /// After a leading `0`.
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// What is open around the current place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Key,
    Member,
    Element,
}

/// Checks that `bytes` are one JSON text with nothing but white space around it.
///
/// # Errors
/// [`JsonError::Syntax`] with the sentence that Go's `json.Unmarshal` gives.
pub fn validate(bytes: &[u8]) -> Result<(), JsonError> {
    let mut scanner = Scanner { state: State::Value, open: Vec::new() };
    for byte in bytes {
        scanner.step(*byte)?;
    }
    // Go's way to end a number or find a literal cut short.
    scanner.step(b' ')?;
    if matches!(scanner.state, State::Done) && scanner.open.is_empty() {
        return Ok(());
    }
    Err(JsonError::Syntax("unexpected end of JSON input".to_owned()))
}

struct Scanner {
    state: State,
    open: Vec<Open>,
}

impl Scanner {
    fn step(&mut self, byte: u8) -> Result<(), JsonError> {
        let space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let digit = byte.is_ascii_digit();
        self.state = match self.state {
            State::Value | State::ValueOrEnd | State::KeyOrEnd | State::Key | State::Done if space => return Ok(()),
            State::ValueOrEnd if byte == b']' => return self.close(),
            State::Value | State::ValueOrEnd => self.begin(byte)?,
            State::KeyOrEnd if byte == b'}' => return self.close(),
            State::KeyOrEnd | State::Key => {
                if byte != b'"' {
                    return invalid(byte, "looking for beginning of object key string");
                }
                State::String
            }
            State::Done => return self.after(byte),
            State::String => match byte {
                b'"' => State::Done,
                b'\\' => State::Escape,
                0..0x20 => return invalid(byte, "in string literal"),
                _ => State::String,
            },
            State::Escape => match byte {
                b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => State::String,
                b'u' => State::Hex(4),
                _ => return invalid(byte, "in string escape code"),
            },
            State::Hex(due) if byte.is_ascii_hexdigit() => {
                if due > 1 {
                    State::Hex(due - 1)
                } else {
                    State::String
                }
            }
            State::Hex(_) => return invalid(byte, "in \\u hexadecimal character escape"),
            State::Literal(rest, name) => match rest.bytes().next() {
                Some(due) if due == byte => match rest.get(1..) {
                    Some("") | None => State::Done,
                    Some(rest) => State::Literal(rest, name),
                },
                due => {
                    let due = char::from(due.unwrap_or_default());
                    return invalid(byte, &format!("in literal {name} (expecting '{due}')"));
                }
            },
            State::Minus if byte == b'0' => State::Zero,
            State::Minus if digit => State::Integer,
            State::Minus => return invalid(byte, "in numeric literal"),
            State::Integer if digit => State::Integer,
            State::Zero | State::Integer if byte == b'.' => State::Point,
            State::Zero | State::Integer | State::Fraction if matches!(byte, b'e' | b'E') => State::Exponent,
            State::Point | State::Fraction if digit => State::Fraction,
            State::Point => return invalid(byte, "after decimal point in numeric literal"),
            State::Exponent if matches!(byte, b'+' | b'-') => State::ExponentSign,
            State::Exponent | State::ExponentSign | State::ExponentDigits if digit => State::ExponentDigits,
            State::Exponent | State::ExponentSign => return invalid(byte, "in exponent of numeric literal"),
            // A number ends with whatever cannot continue it.
            State::Zero | State::Integer | State::Fraction | State::ExponentDigits => {
                self.state = State::Done;
                return self.step(byte);
            }
        };
        Ok(())
    }

    fn begin(&mut self, byte: u8) -> Result<State, JsonError> {
        Ok(match byte {
            b'{' => self.descend(Open::Key, State::KeyOrEnd)?,
            b'[' => self.descend(Open::Element, State::ValueOrEnd)?,
            b'"' => State::String,
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Integer,
            b't' => State::Literal("rue", "true"),
            b'f' => State::Literal("alse", "false"),
            b'n' => State::Literal("ull", "null"),
            _ => return invalid(byte, "looking for beginning of value"),
        })
    }

    fn descend(&mut self, open: Open, state: State) -> Result<State, JsonError> {
        self.open.push(open);
        if self.open.len() > DEPTH_LIMIT {
            return Err(JsonError::Syntax("exceeded max depth".to_owned()));
        }
        Ok(state)
    }

    fn close(&mut self) -> Result<(), JsonError> {
        self.open.pop();
        self.state = State::Done;
        Ok(())
    }

    fn after(&mut self, byte: u8) -> Result<(), JsonError> {
        match (self.open.last_mut(), byte) {
            (Some(open @ Open::Key), b':') => {
                *open = Open::Member;
                self.state = State::Value;
                Ok(())
            }
            (Some(open @ Open::Member), b',') => {
                *open = Open::Key;
                self.state = State::Key;
                Ok(())
            }
            (Some(Open::Element), b',') => {
                self.state = State::Value;
                Ok(())
            }
            (Some(Open::Member), b'}') | (Some(Open::Element), b']') => self.close(),
            (Some(Open::Key), _) => invalid(byte, "after object key"),
            (Some(Open::Member), _) => invalid(byte, "after object key:value pair"),
            (Some(Open::Element), _) => invalid(byte, "after array element"),
            (None, _) => invalid(byte, "after top-level value"),
        }
    }
}

fn invalid<T>(byte: u8, context: &str) -> Result<T, JsonError> {
    let character = match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        _ => format!("'{}'", quote(char::from(byte).encode_utf8(&mut [0; 4])).trim_matches('"')),
    };
    Err(JsonError::Syntax(format!("invalid character {character} {context}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_gos() {
        for (text, sentence) in [
            ("", "unexpected end of JSON input"),
            (" ", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("[1,", "unexpected end of JSON input"),
            ("\"abc", "unexpected end of JSON input"),
            ("&", "invalid character '&' looking for beginning of value"),
            ("\u{feff}{}", "invalid character 'ï' looking for beginning of value"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{}{}", "invalid character '{' after top-level value"),
            ("{} // x", "invalid character '/' after top-level value"),
            ("01", "invalid character '1' after top-level value"),
            ("tru", "invalid character ' ' in literal true (expecting 'e')"),
            ("nil", "invalid character 'i' in literal null (expecting 'u')"),
            ("-", "invalid character ' ' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1e", "invalid character ' ' in exponent of numeric literal"),
            ("\"\n\"", r"invalid character '\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u12g4""#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("\u{1}", r"invalid character '\x01' looking for beginning of value"),
        ] {
            assert_eq!(validate(text.as_bytes()), Err(JsonError::Syntax(sentence.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn depth_is_limited_as_in_go() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(validate(nested(10_000).as_bytes()), Ok(()));
        assert_eq!(validate(nested(10_001).as_bytes()), Err(JsonError::Syntax("exceeded max depth".to_owned())));
        assert!(validate(&vec![b'['; 1_000_000]).is_err());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_serde_on_what_is_json(text in "[\\[\\]{}\":, 0-2a\\\\u.eE+\\-tfn]{0,12}|(true|false|null|1\\.5e3|\"a\"|[\\[\\]{}:,]){0,9}") {
            let serde = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            proptest::prop_assert_eq!(validate(text.as_bytes()).is_ok(), serde, "{}", text);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let _ = validate(&bytes);
        }
    }
}
