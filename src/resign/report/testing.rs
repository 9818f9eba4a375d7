//! Items and heads for the tests of this room.

use super::{Account, Head, Item, JobIdentity, ReportError, State, head};
use crate::image::Digest;

pub(super) fn job() -> JobIdentity {
    [("source", "old-tree"), ("destination", "new-tree"), ("rename rules", "old.example=new.example"), ("shard", "1/1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

pub(super) fn item() -> Item {
    Item {
        repository: "a/b".to_owned(),
        digest: Some(Digest::sha256(b"x")),
        list: None,
        blob: Some("00".repeat(32)),
        old_reference: Some("old.example/a/b:1".to_owned()),
        new_reference: Some("new.example/a/b:1".to_owned()),
        place: Some(format!("a/b@{}", Digest::sha256(b"x").path_form())),
        state: State::Signed,
        reason: None,
        rule: Some("old.example=new.example".to_owned()),
        signer: Some("A".repeat(40)),
        scope: Some("default".to_owned()),
        signed_by: vec!["B".repeat(40)],
        new_blobs: vec!["11".repeat(32)],
        time: "2026-01-01T00:00:00Z".to_owned(),
    }
}

/// An item that was not signed.
pub(super) fn other(state: State, old: &str, reason: &str) -> Item {
    let (old, reason) = (Some(old.to_owned()), Some(reason.to_owned()));
    let blank = Item { new_reference: None, place: None, rule: None, signer: None, scope: None, ..item() };
    Item { state, old_reference: old, reason, signed_by: Vec::new(), new_blobs: Vec::new(), ..blank }
}

impl Account for Vec<Item> {
    fn each(&self, take: &mut dyn FnMut(&Item) -> Result<(), ReportError>) -> Result<(), ReportError> {
        self.iter().try_for_each(take)
    }
}

/// One item of each kind, some by strangers who try their luck.
pub(super) fn items() -> Vec<Item> {
    vec![
        item(),
        Item { state: State::Already, blob: Some("22".repeat(32)), ..item() },
        Item {
            blob: Some("33".repeat(32)),
            ..other(State::Refused, "<script>alert('x')</script>|`*a*`", "key & co\n\u{202e}[x](http://evil)")
        },
        Item { blob: None, ..other(State::Failed, "old.example/a/c:1", "cannot read: gone") },
        Item {
            blob: Some("44".repeat(32)),
            ..other(State::Unmatched, "z.example/a:1", "no rename rule for this name")
        },
        Item { digest: Some(Digest::sha256(b"instance")), list: Some(Digest::sha256(b"x")), ..item() },
    ]
}

pub(super) fn head_of(account: &dyn Account) -> Head {
    let times = ("2026-01-02T00:00:00Z".to_owned(), "2026-01-02T01:00:00Z".to_owned());
    head(account, "countersign 0", &job(), times).unwrap()
}
