//! What a run tells of each old signature: what a person has to look at; in a dry run all that
//! would be signed, too.

use crate::cli::output::{self, Format};
use crate::cli::progress::Display;
use crate::escape;
use crate::resign::{Item, State};

/// Tells of an item. What a dry run found out is its result, so it goes to stdout, unless that is
/// one JSON document.
pub(super) fn item(display: &Display, item: &Item, dry_run: bool, format: Format) {
    let Some(line) = line(item, dry_run) else { return };
    display.beside(|| {
        if dry_run && format == Format::Text {
            // A reader that went away does not stop the judging.
            let _ = output::result(format, &[&line], &());
        } else {
            output::talk(&line);
        }
    });
}

fn line(item: &Item, dry_run: bool) -> Option<String> {
    let text = |text: &Option<String>| text.as_ref().map_or_else(|| "?".to_owned(), escape::word);
    let old = item.old_reference.as_ref().map_or_else(|| "(no readable claim)".to_owned(), escape::word);
    let image = escape::word(item.image());
    let reason = item.reason.as_deref().unwrap_or_default();
    Some(match item.state {
        State::Refused => format!("refused {image}: {old}: {reason}"),
        State::Failed => format!("failed  {image}: {old}: {reason}"),
        State::Signed if dry_run => format!(
            "would sign {}: {old} -> {} (rule {}) by {}; the old signature is by {}, accepted by scope {}",
            item.digest_text(),
            text(&item.new_reference),
            text(&item.rule),
            item.signed_by.join(", "),
            text(&item.signer),
            text(&item.scope),
        ),
        State::Signed | State::Already | State::Unmatched => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn a_dry_run_says_all_that_decides() {
        let item = Item {
            repository: "birds/bluebird".to_owned(),
            digest: Some(Digest::sha256(b"x")),
            list: None,
            blob: None,
            old_reference: Some("old.example/birds/bluebird:1".to_owned()),
            new_reference: Some("new.example/birds/bluebird:1".to_owned()),
            place: None,
            state: State::Signed,
            reason: None,
            rule: Some("old.example=new.example".to_owned()),
            signer: Some("A".repeat(40)),
            scope: Some("old.example".to_owned()),
            signed_by: vec!["B".repeat(40), "C".repeat(40)],
            new_blobs: Vec::new(),
            time: String::new(),
        };
        insta::assert_snapshot!(line(&item, true).unwrap(), @r#"would sign sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881: old.example/birds/bluebird:1 -> new.example/birds/bluebird:1 (rule old.example=new.example) by BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB, CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC; the old signature is by AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, accepted by scope old.example"#);
        assert!(line(&item, false).is_none());
        let refused = Item { state: State::Refused, reason: Some("no".to_owned()), ..item };
        insta::assert_snapshot!(line(&refused, true).unwrap(), @r#"refused birds/bluebird@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881: old.example/birds/bluebird:1: no"#);
    }
}
