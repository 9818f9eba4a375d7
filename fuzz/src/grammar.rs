//! The grammar of image names said a second time, as containers/image's `docker/reference` says it:
//! regular expressions. A matcher of such expressions by sets of ends, so that nothing is shared with the
//! parser in `src/image`.

/// A regular expression over bytes.
enum Re {
    /// One byte of a class.
    Class(fn(u8) -> bool),
    /// This text.
    Text(&'static str),
    /// One after the other.
    All(Vec<Re>),
    /// Any one of them.
    Any(Vec<Re>),
    /// So many times, at least and at most.
    Times(Box<Re>, usize, usize),
}

use Re::{All, Any, Class, Text, Times};

impl Re {
    /// Returns all places at which a match that begins at `start` can end.
    fn ends(&self, text: &[u8], start: usize) -> Vec<usize> {
        let mut ends = match self {
            Class(holds) => text.get(start).filter(|b| holds(**b)).map(|_| start + 1).into_iter().collect(),
            Text(wanted) => {
                let found = text.get(start..).is_some_and(|rest| rest.starts_with(wanted.as_bytes()));
                if found { vec![start + wanted.len()] } else { Vec::new() }
            }
            All(parts) => parts.iter().fold(vec![start], |starts, part| step(part, text, &starts)),
            Any(parts) => parts.iter().flat_map(|part| part.ends(text, start)).collect(),
            Times(part, least, most) => {
                let mut all = if *least == 0 { vec![start] } else { Vec::new() };
                let mut current = vec![start];
                for count in 1..=*most {
                    current = step(part, text, &current);
                    if current.is_empty() {
                        break;
                    }
                    if count >= *least {
                        all.extend(&current);
                    }
                }
                all
            }
        };
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    fn matches(&self, text: &str) -> bool {
        self.ends(text.as_bytes(), 0).contains(&text.len())
    }
}

fn step(part: &Re, text: &[u8], starts: &[usize]) -> Vec<usize> {
    let mut ends: Vec<usize> = starts.iter().flat_map(|start| part.ends(text, *start)).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn times(part: Re, least: usize) -> Re {
    Times(Box::new(part), least, usize::MAX)
}

fn optional(part: Re) -> Re {
    Times(Box::new(part), 0, 1)
}

fn digit(b: u8) -> bool {
    b.is_ascii_digit()
}

fn hex(b: u8) -> bool {
    b.is_ascii_hexdigit()
}

fn letter_or_digit(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

fn small_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]`, dots between; a port.
fn domain() -> Re {
    let label = || {
        let inner = times(Class(|b| letter_or_digit(b) || b == b'-'), 0);
        All(vec![Class(letter_or_digit), optional(All(vec![inner, Class(letter_or_digit)]))])
    };
    let name = All(vec![label(), times(All(vec![Text("."), label()]), 0)]);
    All(vec![name, optional(All(vec![Text(":"), times(Class(digit), 1)]))])
}

/// `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`, slashes between.
fn path() -> Re {
    let component = || {
        let separator = Any(vec![Text("."), Text("_"), Text("__"), times(Text("-"), 1)]);
        let more = All(vec![separator, times(Class(small_or_digit), 1)]);
        All(vec![times(Class(small_or_digit), 1), times(more, 0)])
    };
    All(vec![component(), times(All(vec![Text("/"), component()]), 0)])
}

/// `[\w][\w.-]{0,127}`.
fn tag() -> Re {
    let rest = Class(|b| letter_or_digit(b) || matches!(b, b'_' | b'.' | b'-'));
    All(vec![Class(|b| letter_or_digit(b) || b == b'_'), Times(Box::new(rest), 0, 127)])
}

/// Of all digests of the grammar only those that go-digest knows remain.
fn digest() -> Re {
    let of = |name: &'static str, length: usize| {
        All(vec![Text(name), Text(":"), Times(Box::new(Class(|b| hex(b) && !b.is_ascii_uppercase())), length, length)])
    };
    Any(vec![of("sha256", 64), of("sha384", 96), of("sha512", 128)])
}

/// What stands after the name.
fn suffix() -> Re {
    All(vec![optional(All(vec![Text(":"), tag()])), optional(All(vec![Text("@"), digest()]))])
}

/// Writes a short name out, whether it is one or not.
pub fn expanded(text: &str) -> String {
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest)) if first.contains('.') || first.contains(':') => (first, rest),
        Some(("localhost", rest)) => ("localhost", rest),
        _ => ("docker.io", text),
    };
    match (domain, rest.contains('/')) {
        ("docker.io" | "index.docker.io", false) => format!("docker.io/library/{rest}"),
        ("index.docker.io", true) => format!("docker.io/{rest}"),
        _ => format!("{domain}/{rest}"),
    }
}

/// Tells whether a text is an image name.
pub fn is_reference(text: &str) -> bool {
    let id = Times(Box::new(Class(|b| hex(b) && !b.is_ascii_uppercase())), 64, 64);
    if id.matches(text) {
        return false;
    }
    let text = expanded(text);
    let name = All(vec![domain(), Text("/"), path()]);
    // Neither names nor tags have an `@`, and no name a `:` behind its first slash.
    let start = text.split('@').next().unwrap_or_default();
    let slash = start.find('/').unwrap_or(start.len());
    let end = start[slash..].find(':').map_or(start.len(), |at| slash + at);
    end <= 255 && All(vec![name, suffix()]).matches(&text)
}

/// Tells whether a text may be a prefix in `remapIdentity`.
pub fn is_name_prefix(text: &str) -> bool {
    All(vec![domain(), optional(All(vec![Text("/"), path()]))]).matches(text)
}
