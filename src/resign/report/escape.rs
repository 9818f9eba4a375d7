//! Names and reasons come from strangers: in a page they are text and nothing else.

use crate::escape::is_hidden;

/// Makes a text safe between tags and in attributes of HTML.
pub(super) fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if is_hidden(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// Makes a text safe in a cell of a Markdown table.
pub(super) fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // No web address becomes a link by itself.
            ':' if chars.peek() == Some(&'/') => safe.push_str("&#58;"),
            c if is_hidden(c) => c.escape_unicode().for_each(|c| push(&mut safe, c)),
            c => push(&mut safe, c),
        }
    }
    safe
}

/// Pushes a character as itself, whatever Markdown takes it for.
fn push(safe: &mut String, c: char) {
    if "\\`*_{}[]()#!|~$^".contains(c) {
        safe.push('\\');
    }
    safe.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_write_text() {
        assert_eq!(html("<a href='x'>&\u{202e}\n"), "&lt;a href=&#39;x&#39;&gt;&amp;\\u{202e}\\u{a}");
        assert_eq!(markdown("|<b>`[x](http://y)\n"), "\\|&lt;b&gt;\\`\\[x\\]\\(http&#58;//y\\)\\\\u\\{a\\}");
    }

    proptest::proptest! {
        #[test]
        fn nothing_gets_out(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}|.{0,40}|[\\u{80}-\\u{9f}\\u{200b}-\\u{202e}x|]{0,40}") {
            proptest::prop_assert!(!html(&text).contains(is_hidden) && !markdown(&text).contains(is_hidden));
            let safe = html(&text);
            proptest::prop_assert!(!safe.contains(['<', '>', '"', '\'', '\n']));
            let safe = markdown(&text);
            proptest::prop_assert!(!safe.contains(['<', '>', '\n', '\r']) && !safe.contains(":/"));
            let bare = safe.replace("\\\\", "").replace("\\|", "").replace("\\`", "");
            proptest::prop_assert!(!bare.contains(['|', '`']));
        }
    }
}
