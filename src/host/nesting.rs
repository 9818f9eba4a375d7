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
    blocks_too_deep(text)
}

/// The same for blocks within blocks: each column further to the right, and each `- ` or `? `, opens one.
fn blocks_too_deep(text: &[u8]) -> Option<usize> {
    let mut open: Vec<usize> = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let mut column = line.iter().take_while(|byte| **byte == b' ').count();
        let mut rest = line.get(column..).unwrap_or_default();
        if rest.trim_ascii().is_empty() {
            continue;
        }
        while open.last().is_some_and(|last| *last > column) {
            open.pop();
        }
        loop {
            if open.last() != Some(&column) {
                open.push(column);
            }
            let [b'-' | b'?', behind @ ..] = rest else { break };
            let blanks = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            if blanks == 0 {
                break;
            }
            column += 1 + blanks;
            rest = behind.get(blanks..).unwrap_or_default();
        }
        if open.len() > NESTING_LIMIT {
            return Some(number + 1);
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
        let compact = |depth: usize| format!("a: 1\nx:\n  {}y\n", "- ".repeat(depth));
        assert_eq!(too_deep(compact(NESTING_LIMIT - 2).as_bytes()), None);
        assert_eq!(too_deep(compact(NESTING_LIMIT + 1).as_bytes()), Some(3));
        let steps: String = (0..=NESTING_LIMIT).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert_eq!(too_deep(steps.as_bytes()), Some(NESTING_LIMIT + 1));
        assert_eq!(too_deep("a:\n  - b: 1\n    c: 2\n".repeat(100_000).as_bytes()), None);
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
