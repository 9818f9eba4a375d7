//! A bound for the nesting of YAML, looked at before the parser is: its time for brackets within
//! brackets grows with their square.

/// How deep brackets and braces may lie in each other, as in yaml.v3.
pub(crate) const NESTING_LIMIT: usize = 10_000;

/// How much work the parser may have with it: each bracket, comma and colon costs it as much as there
/// are brackets open. Twice what one nest of the greatest depth takes.
const WORK_LIMIT: usize = 2 * NESTING_LIMIT * NESTING_LIMIT;

/// Finds the line, from 1, at which a text has more brackets and braces within each other than are
/// read. Those in quotes and comments count, too: no file has so many.
pub(crate) fn too_deep(text: &[u8]) -> Option<usize> {
    let (mut open, mut line, mut work) = (0_usize, 1_usize, 0_usize);
    for byte in text {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            b',' | b':' => {}
            b'\n' => {
                line += 1;
                continue;
            }
            _ => continue,
        }
        work = work.saturating_add(open);
        if open > NESTING_LIMIT || work > WORK_LIMIT {
            return Some(line);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_at_once_counts() {
        let nested = |depth: usize| format!("a: 1\nx: {}{}\n", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(too_deep(nested(NESTING_LIMIT).as_bytes()), None);
        assert_eq!(too_deep(nested(NESTING_LIMIT + 1).as_bytes()), Some(2));
        assert_eq!(too_deep("- {a: [1]}\n".repeat(1_000_000).as_bytes()), None);
        assert_eq!(too_deep("{a: ".repeat(10_001).as_bytes()), Some(1));
        assert_eq!(too_deep(b"]]]]}}"), None);
    }

    #[test]
    fn many_deep_nests_are_too_much_work() {
        let nests = |count: usize| format!("- {}{}\n", "[".repeat(1000), "]".repeat(1000)).repeat(count);
        assert_eq!(too_deep(nests(100).as_bytes()), None);
        assert!(too_deep(nests(1000).as_bytes()).is_some());
        // A long list at the bottom of a deep nest.
        assert!(too_deep(format!("{}{}", "[".repeat(5000), "1, ".repeat(1_000_000)).as_bytes()).is_some());
    }
}
