//! The canonical S-expressions in which gpg-agent answers: `(7:sig-val(3:rsa(1:s256:…)))`.
//!
//! The grammar is libgcrypt's ("S-expressions" in its manual), canonical form only: lengths before
//! octets, no spaces, no display hints.

use sequoia_openpgp::crypto::mpi::{self, MPI};

/// Signatures are three lists deep.
const DEPTH_LIMIT: usize = 6;

/// An expression: octets, or a list of expressions.
#[derive(Debug, PartialEq, Eq)]
enum Sexp<'a> {
    Atom(&'a [u8]),
    List(Vec<Sexp<'a>>),
}

/// Reads the answer to `PKSIGN`; `None` for anything that is no signature of the OpenPGP algorithm
/// `key_algorithm`.
pub(super) fn signature(answer: &[u8], key_algorithm: u8) -> Option<mpi::Signature> {
    let (expression, rest) = read(answer, DEPTH_LIMIT)?;
    if !rest.is_empty() {
        return None;
    }
    let inside = expression.list_named(b"sig-val")?;
    let number = |kind: &[u8], name: &[u8]| {
        let numbers = inside.iter().find_map(|part| part.list_named(kind))?;
        match numbers.iter().find_map(|part| part.list_named(name))? {
            [Sexp::Atom(octets)] if !octets.is_empty() => Some(MPI::new(octets)),
            _ => None,
        }
    };
    match key_algorithm {
        1 | 3 => Some(mpi::Signature::RSA { s: number(b"rsa", b"s")? }),
        17 => Some(mpi::Signature::DSA { r: number(b"dsa", b"r")?, s: number(b"dsa", b"s")? }),
        19 => Some(mpi::Signature::ECDSA { r: number(b"ecdsa", b"r")?, s: number(b"ecdsa", b"s")? }),
        22 => Some(mpi::Signature::EdDSA { r: number(b"eddsa", b"r")?, s: number(b"eddsa", b"s")? }),
        _ => None,
    }
}

impl<'a> Sexp<'a> {
    /// What follows the name in the list of that name.
    fn list_named(&self, name: &[u8]) -> Option<&[Sexp<'a>]> {
        match self {
            Self::List(parts) => match parts.split_first()? {
                (Self::Atom(first), rest) if *first == name => Some(rest),
                _ => None,
            },
            Self::Atom(_) => None,
        }
    }
}

/// Reads one expression and returns what follows it.
fn read(text: &[u8], depth: usize) -> Option<(Sexp<'_>, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"(") else { return atom(text) };
    let depth = depth.checked_sub(1)?;
    let mut parts = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(b")") {
            return Some((Sexp::List(parts), after));
        }
        let (part, after) = read(rest, depth)?;
        parts.push(part);
        rest = after;
    }
}

fn atom(text: &[u8]) -> Option<(Sexp<'_>, &[u8])> {
    let colon = text.iter().take(8).position(|b| *b == b':')?;
    let (digits, rest) = text.split_at_checked(colon)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (octets, after) = rest.get(1..)?.split_at_checked(length)?;
    Some((Sexp::Atom(octets), after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_kinds_of_signatures() {
        let one = |n: u8| MPI::new(&[n]);
        assert_eq!(signature(b"(7:sig-val(3:rsa(1:s2:\0\x05)))", 1), Some(mpi::Signature::RSA { s: one(5) }));
        let pair = |name: &str| format!("(7:sig-val({}:{name}(1:r1:\x01)(1:s1:\x02))(4:hash6:sha256))", name.len());
        let (r, s) = (one(1), one(2));
        let dsa = mpi::Signature::DSA { r: r.clone(), s: s.clone() };
        assert_eq!(signature(pair("dsa").as_bytes(), 17), Some(dsa));
        let ecdsa = mpi::Signature::ECDSA { r: r.clone(), s: s.clone() };
        assert_eq!(signature(pair("ecdsa").as_bytes(), 19), Some(ecdsa));
        assert_eq!(signature(pair("eddsa").as_bytes(), 22), Some(mpi::Signature::EdDSA { r, s }));
        // Of another algorithm than the key's.
        assert_eq!(signature(pair("eddsa").as_bytes(), 19), None);
        assert_eq!(signature(pair("dsa").as_bytes(), 1), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "()",
            "(",
            "7:sig-val",
            "(7:sig-val)",
            "(7:sig-val(3:rsa))",
            "(7:sig-val(3:rsa(1:s)))",
            "(7:sig-val(3:rsa(1:s0:)))",
            "(7:sig-val(3:rsa(1:s9:x)))",
            "(7:sig-val(3:rsa(1:s1:x)))x",
            "(7:sig-val(3:rsa(1:s1:x1:y)))",
            "(7:sig-val(3:rsa(1:s99999999999:x)))",
            "(7:sig-val(3:rsa(1:s-1:x)))",
            "(7:sig-val (3:rsa(1:s1:x)))",
            "(7:sig-bad(3:rsa(1:s1:x)))",
        ] {
            assert_eq!(signature(bad.as_bytes(), 1), None, "{bad}");
        }
        assert_eq!(signature(&[b'('; 1 << 20], 1), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\(|\\)|[0-9]{1,3}:|7:sig-val|3:rsa|1:s|[a-z]){0,40}", bytes: Vec<u8>) {
            let _ = signature(text.as_bytes(), 1);
            let _ = signature(&bytes, 22);
        }

        #[test]
        fn what_is_written_is_read(octets in proptest::collection::vec(any::<u8>(), 1..600)) {
            let answer = [format!("(7:sig-val(3:rsa(1:s{}:", octets.len()).as_bytes(), &octets, b")))"].concat();
            prop_assert_eq!(signature(&answer, 1), Some(mpi::Signature::RSA { s: MPI::new(&octets) }));
        }
    }
}
