//! The report in Markdown: tables that a repository or a ticket shows.

use std::io::{self, Write};

use super::escape::markdown as safe;
use super::write::{Page, counts, facts};
use super::{Head, Item};
use crate::resign::item::State;

pub(super) struct Markdown;

/// Says of which signed list an image is an instance.
fn of_list(item: &Item) -> String {
    item.list.as_ref().map(|list| format!("<br>instance of {}", safe(&list.to_string()))).unwrap_or_default()
}

impl Page for Markdown {
    fn begin(&self, out: &mut dyn Write, head: &Head) -> io::Result<()> {
        let title = if head.dry_run { "Re-signing, a dry run: nothing was written" } else { "Re-signing" };
        writeln!(out, "# {title}\n")?;
        if let Some(reason) = &head.incomplete {
            writeln!(out, "**Incomplete**: {}\n", safe(reason))?;
        }
        let counts = counts(head).map(|(what, count)| format!("{what}: **{count}**"));
        writeln!(out, "{}\n\n| the job | |\n| --- | --- |", counts.join(", "))?;
        for (name, value) in facts(head) {
            writeln!(out, "| {} | {} |", safe(name), safe(&value))?;
        }
        if !head.refusals.is_empty() {
            writeln!(out, "\n## Reasons for refusals\n\n| times | reason |\n| ---: | --- |")?;
            for (reason, count) in &head.refusals {
                writeln!(out, "| {count} | {} |", safe(reason))?;
            }
        }
        Ok(())
    }

    fn section(&self, out: &mut dyn Write, state: State, title: &str, count: u64) -> io::Result<()> {
        writeln!(out, "\n## {title} ({count})\n")?;
        match state {
            State::Signed | State::Already => out.write_all(
                b"| digest | old name | new name | rule | old signature, signer, scope | new signatures | place | time |\n\
                  | --- | --- | --- | --- | --- | --- | --- | --- |\n",
            ),
            _ => out.write_all(b"| image | old signature | its name | reason | time |\n| --- | --- | --- | --- | --- |\n"),
        }
    }

    fn item(&self, out: &mut dyn Write, item: &Item) -> io::Result<()> {
        let text = |text: &Option<String>| safe(text.as_deref().unwrap_or("-"));
        if !matches!(item.state, State::Signed | State::Already) {
            let image = format!("{}{}", safe(&item.image()), of_list(item));
            let (blob, old, reason) = (text(&item.blob), text(&item.old_reference), text(&item.reason));
            return writeln!(out, "| {image} | {blob} | {old} | {reason} | {} |", safe(&item.time));
        }
        let new: Vec<String> = item
            .signed_by
            .iter()
            .enumerate()
            .map(|(n, key)| {
                let blob = item.new_blobs.get(n).map(|blob| format!(" {}", safe(blob))).unwrap_or_default();
                format!("by {}{blob}", safe(key))
            })
            .chain(item.reason.iter().map(|reason| safe(reason)))
            .collect();
        writeln!(
            out,
            "| {}{} | {} | {} | {} | {} by {}, {} | {} | {} | {} |",
            safe(&item.digest_text()),
            of_list(item),
            text(&item.old_reference),
            text(&item.new_reference),
            text(&item.rule),
            text(&item.blob),
            text(&item.signer),
            text(&item.scope),
            new.join("<br>"),
            text(&item.place),
            safe(&item.time),
        )
    }

    fn section_end(&self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn end(&self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReportForm;
    use super::super::testing::{head_of, items};
    use super::super::write::render;

    #[test]
    fn a_report_for_a_ticket() {
        let mut out = Vec::new();
        let mut head = head_of(&items());
        head.incomplete = Some("part 2/3 is missing".to_owned());
        render(&mut out, ReportForm::Markdown, &head, &items()).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        # Re-signing

        **Incomplete**: part 2/3 is missing

        signed: **2**, already there: **1**, refused: **1**, failed: **1**, not concerned: **1**

        | the job | |
        | --- | --- |
        | made by | countersign 0 |
        | began | 2026-01-01T00:00:00Z |
        | ended | 2026-01-02T01:00:00Z |
        | parts | 1/1 |
        | destination | new-tree |
        | rename rules | old.example=new.example |
        | source | old-tree |

        ## Reasons for refusals

        | times | reason |
        | ---: | --- |
        | 1 | key &amp; … |

        ## Failed: accepted, but not read or written; the next run tries again (1)

        | image | old signature | its name | reason | time |
        | --- | --- | --- | --- | --- |
        | a/b@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | - | old.example/a/c:1 | cannot read: gone | 2026-01-01T00:00:00Z |

        ## Refused: not accepted, so not signed (1)

        | image | old signature | its name | reason | time |
        | --- | --- | --- | --- | --- |
        | a/b@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | 3333333333333333333333333333333333333333333333333333333333333333 | &lt;script&gt;alert\('x'\)&lt;/script&gt;\|\`\*a\*\` | key &amp; co\\u\{a\}\\u\{202e\}\[x\]\(http&#58;//evil\) | 2026-01-01T00:00:00Z |

        ## New signatures (2)

        | digest | old name | new name | rule | old signature, signer, scope | new signatures | place | time |
        | --- | --- | --- | --- | --- | --- | --- | --- |
        | sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | old.example/a/b:1 | new.example/a/b:1 | old.example=new.example | 0000000000000000000000000000000000000000000000000000000000000000 by AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, default | by BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB 1111111111111111111111111111111111111111111111111111111111111111 | a/b@sha256=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | 2026-01-01T00:00:00Z |
        | sha256:5e8c03a94c7835b87dd82c690f9f85c08592ef7433aa141ceaacb36a9f4da434<br>instance of sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | old.example/a/b:1 | new.example/a/b:1 | old.example=new.example | 0000000000000000000000000000000000000000000000000000000000000000 by AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, default | by BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB 1111111111111111111111111111111111111111111111111111111111111111 | a/b@sha256=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | 2026-01-01T00:00:00Z |

        ## Signed for the new name before (1)

        | digest | old name | new name | rule | old signature, signer, scope | new signatures | place | time |
        | --- | --- | --- | --- | --- | --- | --- | --- |
        | sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | old.example/a/b:1 | new.example/a/b:1 | old.example=new.example | 2222222222222222222222222222222222222222222222222222222222222222 by AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, default | by BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB 1111111111111111111111111111111111111111111111111111111111111111 | a/b@sha256=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | 2026-01-01T00:00:00Z |

        ## Not concerned (1)

        | image | old signature | its name | reason | time |
        | --- | --- | --- | --- | --- |
        | a/b@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 | 4444444444444444444444444444444444444444444444444444444444444444 | z.example/a:1 | no rename rule for this name | 2026-01-01T00:00:00Z |
        "#);
    }
}
