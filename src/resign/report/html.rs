//! The report in HTML: one file that loads nothing and runs nothing.

use std::io::{self, Write};

use super::escape::html as safe;
use super::write::{Page, counts, facts};
use super::{Head, Item};
use crate::resign::item::State;

pub(super) struct Html;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:100rem;padding:0 1rem;color:#1c2128;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{border-bottom:1px solid #d0d7de;padding:.35rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{background:#f6f8fa;position:sticky;top:0}
code{font:12px ui-monospace,monospace}small{color:#57606a}
.counts b{font-size:1.3rem}.counts span{margin-right:1.5rem}
.warn{border-left:4px solid #bf8700;background:#fff8c5;padding:.6rem 1rem}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th{background:#161b22}th,td{border-color:#30363d}\
small{color:#8b949e}.warn{background:#3a2d00}}
";

impl Page for Html {
    fn begin(&self, out: &mut dyn Write, head: &Head) -> io::Result<()> {
        let title = if head.dry_run { "Re-signing, a dry run: nothing was written" } else { "Re-signing" };
        write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        )?;
        if let Some(reason) = &head.incomplete {
            writeln!(out, "<p class=\"warn\"><b>Incomplete</b>: {}</p>", safe(reason))?;
        }
        let counts = counts(head).map(|(what, count)| format!("<span><b>{count}</b> {what}</span>"));
        writeln!(out, "<p class=\"counts\">{}</p>\n<h2>The job</h2>\n<table>", counts.join("\n"))?;
        for (name, value) in facts(head) {
            writeln!(out, "<tr><th>{}</th><td><code>{}</code></td></tr>", safe(name), safe(&value))?;
        }
        writeln!(out, "</table>")?;
        if !head.refusals.is_empty() {
            writeln!(out, "<h2>Reasons for refusals</h2>\n<table>\n<tr><th>times</th><th>reason</th></tr>")?;
            for (reason, count) in &head.refusals {
                writeln!(out, "<tr><td>{count}</td><td>{}</td></tr>", safe(reason))?;
            }
            writeln!(out, "</table>")?;
        }
        Ok(())
    }

    fn section(&self, out: &mut dyn Write, state: State, title: &str, count: u64) -> io::Result<()> {
        let columns: &[&str] = match state {
            State::Signed | State::Already => &["new name, from old name", "old signature", "new signatures"],
            _ => &["image", "its name", "reason"],
        };
        let columns: String = columns.iter().map(|column| format!("<th>{column}</th>")).collect();
        writeln!(out, "<h2>{title} ({count})</h2>\n<table>\n<tr>{columns}</tr>")
    }

    fn item(&self, out: &mut dyn Write, item: &Item) -> io::Result<()> {
        let text = |text: &Option<String>| safe(text.as_deref().unwrap_or("-"));
        let code = |text: &str| format!("<code>{}</code>", safe(text));
        let list = item.list.as_ref().map(|list| format!("<br><small>instance of</small> {}", code(&list.to_string())));
        let digest = code(&item.digest_text()) + &list.unwrap_or_default();
        let blob = code(item.blob.as_deref().unwrap_or("-"));
        let (old, reason, time) = (text(&item.old_reference), text(&item.reason), safe(&item.time));
        if !matches!(item.state, State::Signed | State::Already) {
            let repository = safe(&item.repository);
            return writeln!(
                out,
                "<tr><td>{repository}<br>{digest}<br><small>signature</small> {blob}</td><td>{old}</td>\
                 <td>{reason}<br><small>{time}</small></td></tr>"
            );
        }
        write!(
            out,
            "<tr><td><b>{}</b><br>{old}<br>{digest}<br><small>rule {}</small></td>\
             <td>{blob}<br><small>by</small> {}<br><small>scope {}</small></td><td>",
            text(&item.new_reference),
            text(&item.rule),
            code(item.signer.as_deref().unwrap_or("-")),
            text(&item.scope),
        )?;
        for (n, key) in item.signed_by.iter().enumerate() {
            let blob = item.new_blobs.get(n).map(|blob| format!("{}<br>", code(blob))).unwrap_or_default();
            write!(out, "{blob}<small>by</small> {}<br>", code(key))?;
        }
        if item.reason.is_some() {
            write!(out, "{reason}<br>")?;
        }
        writeln!(out, "<small>in {}, {time}</small></td></tr>", text(&item.place))
    }

    fn section_end(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "</table>")
    }

    fn end(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "</body>\n</html>")
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReportForm;
    use super::super::testing::{head_of, items};
    use super::super::write::render;

    #[test]
    fn a_report_for_a_browser() {
        let mut out = Vec::new();
        let mut head = head_of(&items());
        head.dry_run = true;
        render(&mut out, ReportForm::Html, &head, &items()).unwrap();
        let page = String::from_utf8(out).unwrap();
        assert!(!page.contains("<script") && !page.contains("\u{202e}"));
        let (_, body) = page.split_once("</style>").unwrap();
        insta::assert_snapshot!(body.trim(), @r#"
        </head>
        <body>
        <h1>Re-signing, a dry run: nothing was written</h1>
        <p class="counts"><span><b>2</b> would be signed</span>
        <span><b>1</b> already there</span>
        <span><b>1</b> refused</span>
        <span><b>1</b> failed</span>
        <span><b>1</b> not concerned</span></p>
        <h2>The job</h2>
        <table>
        <tr><th>made by</th><td><code>countersign 0</code></td></tr>
        <tr><th>began</th><td><code>2026-01-01T00:00:00Z</code></td></tr>
        <tr><th>ended</th><td><code>2026-01-02T01:00:00Z</code></td></tr>
        <tr><th>parts</th><td><code>1/1</code></td></tr>
        <tr><th>destination</th><td><code>new-tree</code></td></tr>
        <tr><th>rename rules</th><td><code>old.example=new.example</code></td></tr>
        <tr><th>source</th><td><code>old-tree</code></td></tr>
        </table>
        <h2>Reasons for refusals</h2>
        <table>
        <tr><th>times</th><th>reason</th></tr>
        <tr><td>1</td><td>key &amp; …</td></tr>
        </table>
        <h2>Failed: accepted, but not read or written; the next run tries again (1)</h2>
        <table>
        <tr><th>image</th><th>its name</th><th>reason</th></tr>
        <tr><td>a/b<br><code>sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881</code><br><small>signature</small> <code>-</code></td><td>old.example/a/c:1</td><td>cannot read: gone<br><small>2026-01-01T00:00:00Z</small></td></tr>
        </table>
        <h2>Refused: not accepted, so not signed (1)</h2>
        <table>
        <tr><th>image</th><th>its name</th><th>reason</th></tr>
        <tr><td>a/b<br><code>sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881</code><br><small>signature</small> <code>3333333333333333333333333333333333333333333333333333333333333333</code></td><td>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;|`*a*`</td><td>key &amp; co\u{a}\u{202e}[x](http://evil)<br><small>2026-01-01T00:00:00Z</small></td></tr>
        </table>
        <h2>Would be signed (2)</h2>
        <table>
        <tr><th>new name, from old name</th><th>old signature</th><th>new signatures</th></tr>
        <tr><td><b>new.example/a/b:1</b><br>old.example/a/b:1<br><code>sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881</code><br><small>rule old.example=new.example</small></td><td><code>0000000000000000000000000000000000000000000000000000000000000000</code><br><small>by</small> <code>AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA</code><br><small>scope default</small></td><td><code>1111111111111111111111111111111111111111111111111111111111111111</code><br><small>by</small> <code>BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB</code><br><small>in a/b@sha256=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881, 2026-01-01T00:00:00Z</small></td></tr>
        <tr><td><b>new.example/a/b:1</b><br>old.example/a/b:1<br><code>sha256:5e8c03a94c7835b87dd82c690f9f85c08592ef7433aa141ceaacb36a9f4da434</code><br><small>instance of</small> <code>sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881</code><br><small>rule old.example=new.example</small></td><td><code>0000000000000000000000000000000000000000000000000000000000000000</code><br><small>by</small> <code>AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA</code><br><small>scope default</small></td><td><code>1111111111111111111111111111111111111111111111111111111111111111</code><br><small>by</small> <code>BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB</code><br><small>in a/b@sha256=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881, 2026-01-01T00:00:00Z</small></td></tr>
        </table>
        <h2>Signed for the new name before (1)</h2>
        <table>
        <tr><th>new name, from old name</th><th>old signature</th><th>new signatures</th></tr>
        <tr><td><b>new.example/a/b:1</b><br>old.example/a/b:1<br><code>sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881</code><br><small>rule old.example=new.example</small></td><td><code>2222222222222222222222222222222222222222222222222222222222222222</code><br><small>by</small> <code>AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA</code><br><small>scope default</small></td><td><code>1111111111111111111111111111111111111111111111111111111111111111</code><br><small>by</small> <code>BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB</code><br><small>in a/b@sha256=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881, 2026-01-01T00:00:00Z</small></td></tr>
        </table>
        <h2>Not concerned (1)</h2>
        <table>
        <tr><th>image</th><th>its name</th><th>reason</th></tr>
        <tr><td>a/b<br><code>sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881</code><br><small>signature</small> <code>4444444444444444444444444444444444444444444444444444444444444444</code></td><td>z.example/a:1</td><td>no rename rule for this name<br><small>2026-01-01T00:00:00Z</small></td></tr>
        </table>
        </body>
        </html>
        "#);
    }
}
