//! What may be signed anew: a signature whose claim the old policy accepts, for the name that
//! the claim itself gives, and that a rename rule covers (design 5, rule 1).

use bytes::Bytes;

use crate::image::{Reference, Repository};
use crate::lookup::{self, Unverified};
use crate::policy::{Mechanism, Policy};
use crate::signature::{BlobKind, classify};
use crate::store::{Layout, SetAddress, StorePath};

use super::rename::{RenameMap, Renaming};

/// What was found out about one old signature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once; the large one is the usual one")]
pub enum Finding {
    /// It may be signed for the new name.
    Vouched(Vouched),
    /// It is none of this job's business.
    Unmatched {
        /// The name that it claims, unverified.
        old_reference: Option<String>,
        /// Why no rule concerns it.
        reason: String,
    },
    /// It must not be signed anew.
    Refused {
        /// The name that it claims, unverified.
        old_reference: Option<String>,
        /// Why not.
        reason: String,
    },
}

/// An old claim that holds, and its new name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The name in the old claim.
    pub old: Reference,
    /// The name for the new claim.
    pub new: Reference,
    /// The rule that renamed it.
    pub rule: String,
    /// Where the new signature belongs in a tree.
    pub place: SetAddress,
    /// Who made the old signature: the primary key's fingerprint.
    pub signer: String,
    /// The policy scope that accepted it.
    pub scope: String,
    /// When it was made, Unix seconds, by the verified signature itself.
    pub created: Option<i64>,
}

/// Judges one signature found in `set`.
///
/// The unverified claim is only used to find out what to ask the policy; nothing of it counts
/// before the policy has accepted the same bytes.
pub fn judge(
    blob: &Bytes,
    set: &SetAddress,
    renames: &RenameMap,
    old_policy: &Policy,
    mechanism: &dyn Mechanism,
) -> Finding {
    let refused = |old_reference: Option<String>, reason: String| Finding::Refused { old_reference, reason };
    if let Ok(BlobKind::SigstoreJson(_)) = classify(blob) {
        let reason = "a sigstore signature, no simple signing".into();
        return Finding::Unmatched { old_reference: None, reason };
    }
    let claim = match Unverified::read(blob) {
        Ok(unverified) => unverified.claim,
        Err(e) => return refused(None, e.to_string()),
    };
    let named = Some(claim.reference.clone());
    let old = match Reference::parse(&claim.reference) {
        Ok(old) => old,
        Err(e) => return refused(named, format!("the claim's name is no image name: {e}")),
    };
    if claim.digest != *set.digest() {
        return refused(named, format!("the claim is for {}, but is stored under {}", claim.digest, set.digest()));
    }
    if set.layout() == Layout::Image && prefix_before(set.path(), old.repository()).is_none() {
        return refused(named, format!("the claim names {old}, but is stored under {}", set.path()));
    }
    let unmatched = |old_reference, reason| Finding::Unmatched { old_reference, reason };
    let renamed = match renames.rename(&old) {
        Renaming::To(renamed) => renamed,
        Renaming::Unmatched => return unmatched(named, "no rename rule for this name".to_owned()),
        Renaming::Stays(rule) => return unmatched(named, format!("its name stays: an exception for {}", rule.old())),
        Renaming::NoName { rule, name } => return refused(named, format!("rule {rule} makes {name}, no image name")),
        Renaming::Again { renamed, next } => {
            let (new, rule) = (&renamed.reference, renamed.rule);
            return refused(named, format!("rule {rule} makes {new}, which rule {next} would rename again"));
        }
    };
    let Some(place) = place(set, &old, &renamed.reference) else {
        return refused(named, format!("no place in a tree for {}", renamed.reference));
    };

    match lookup::vouched(old_policy, mechanism, &claim, set.digest(), blob) {
        Ok(accepted) => Finding::Vouched(Vouched {
            new: renamed.reference,
            rule: renamed.rule.to_string(),
            old,
            place,
            signer: accepted.fingerprint.unwrap_or_default(),
            scope: accepted.scope.to_string(),
            created: accepted.created,
        }),
        Err(refusal) => refused(named, refusal.to_string()),
    }
}

/// What [`judge`] says in a fixed form, by the words that tell it from all others, and its kind.
const KINDS: [(&str, &str, &str); 12] = [
    ("a sigstore signature, no simple signing", "", "no simple signing"),
    ("no rename rule for this name", "", "no rule"),
    ("its name stays: ", "", "stays"),
    ("the claim's name ", "is no image name", "no name"),
    ("the claim is for ", "but is stored under", "another digest"),
    ("the claim names ", "but is stored under", "another place"),
    ("rule ", "no image name", "no new name"),
    ("rule ", "would rename again", "renamed again"),
    ("no place in a tree for ", "", "no place"),
    ("", "Key not found", "unknown key"),
    ("", "expired", "expired"),
    ("", " of the policy)", "not accepted"),
];

/// Tells of what kind a reason is that [`judge`] gave: another version may use other words about
/// names, keys and dates, but not about this.
pub(super) fn kind(reason: &str) -> &'static str {
    let is = |(start, within, _): &&(&str, &str, &'static str)| reason.starts_with(start) && reason.contains(within);
    KINDS.iter().find(is).map_or("unreadable, or not accepted", |(_, _, kind)| kind)
}

/// Returns the address for the new name: the repository's path replaced at the end of the old
/// path. What stands before it (a store prefix) stays, but for a prefix that is the old registry
/// itself, which becomes the new one.
fn place(set: &SetAddress, old: &Reference, new: &Reference) -> Option<SetAddress> {
    if set.layout() == Layout::Release {
        return Some(set.clone());
    }
    let prefix = prefix_before(set.path(), old.repository())?;
    let prefix = if prefix == old.repository().domain() { new.repository().domain() } else { prefix };
    let path = if prefix.is_empty() {
        new.repository().path().to_owned()
    } else {
        format!("{prefix}/{}", new.repository().path())
    };
    SetAddress::image(StorePath::parse(&path).ok()?, set.digest().clone()).ok()
}

/// Returns what stands before the repository's path in a store path, if it ends with it.
fn prefix_before<'a>(path: &'a StorePath, repository: &Repository) -> Option<&'a str> {
    let before = path.as_str().strip_suffix(repository.path())?;
    if before.is_empty() { Some("") } else { before.strip_suffix('/') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use crate::lookup::OpenPgp;
    use crate::openpgp::{Signer as _, SoftSigner};
    use crate::signature::Claim;

    fn placed(path: &str, old: &str, new: &str) -> Option<String> {
        let set = SetAddress::image(StorePath::parse(path).unwrap(), Digest::sha256(b"x")).unwrap();
        let place = place(&set, &Reference::parse(old).unwrap(), &Reference::parse(new).unwrap())?;
        Some(place.path().to_string())
    }

    #[test]
    fn what_is_said_has_a_kind() {
        let digest = Digest::sha256(b"x");
        let set = SetAddress::image(StorePath::parse("a/b").unwrap(), digest.clone()).unwrap();
        let renames = RenameMap::parse(&["old.example=new.example", "next.example=last.example"]).unwrap();
        let policy = |what: &str| Policy::parse(format!(r#"{{"default":[{what}]}}"#).as_bytes()).unwrap();
        let nobody = policy(r#"{"type":"reject"}"#);
        let key = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/alice.sec.asc")).unwrap();
        let now = std::time::SystemTime::now();
        let signer = SoftSigner::load(&key, None, now).unwrap();
        let said = |name: &str, digest: &Digest| {
            let claim = Claim { reference: name.to_owned(), digest: digest.clone(), creator: None, timestamp: None };
            let blob = signer.sign(&claim.render().unwrap(), now).unwrap().into();
            match judge(&blob, &set, &renames, &nobody, &OpenPgp::now()) {
                Finding::Refused { reason, .. } | Finding::Unmatched { reason, .. } => kind(&reason),
                Finding::Vouched(_) => "accepted",
            }
        };
        assert_eq!(said("old.example/a/b:1", &digest), "not accepted");
        assert_eq!(said("elsewhere.example/a/b:1", &digest), "no rule");
        assert_eq!(said("No Name", &digest), "no name");
        assert_eq!(said("old.example/a/b:1", &Digest::sha256(b"y")), "another digest");
        assert_eq!(said("old.example/a/c:1", &digest), "another place");
        let rubbish = judge(&Bytes::from_static(b"<html>"), &set, &renames, &nobody, &OpenPgp::now());
        let Finding::Refused { reason, .. } = rubbish else { panic!("{rubbish:?}") };
        assert_eq!(kind(&reason), "unreadable, or not accepted");
        assert_eq!(kind("its name stays: an exception for x.example"), "stays");
        assert_eq!(kind("Key not found for key ID X in signature (scope default of the policy)"), "unknown key");
    }

    #[test]
    fn the_new_place_follows_the_new_name() {
        let old = "registry.bluemix.net/a/b:1";
        assert_eq!(placed("a/b", old, "icr.io/a/b:1").as_deref(), Some("a/b"));
        assert_eq!(placed("a/b", old, "icr.io/team/b:1").as_deref(), Some("team/b"));
        assert_eq!(placed("mirror/a/b", old, "icr.io/a/c:1").as_deref(), Some("mirror/a/c"));
        assert_eq!(placed("registry.bluemix.net/a/b", old, "icr.io/a/b:1").as_deref(), Some("icr.io/a/b"));
        assert_eq!(placed("xa/b", old, "icr.io/a/b:1"), None);
        assert_eq!(placed("b", old, "icr.io/a/b:1"), None);
    }
}
