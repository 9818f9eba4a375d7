//! How gpg 2.2 combines the self-signatures of a primary key (its `merge_selfsigs_main`): the newest
//! direct key signature comes first, then the newest user ID that says anything at all. Sequoia goes
//! by the primary user ID. A key must be good by both (docs/spec/containers-image.md 4.4).

use std::time::{SystemTime, UNIX_EPOCH};

use sequoia_openpgp::Cert;
use sequoia_openpgp::packet::Signature;

/// What gpg makes of a primary key.
pub(super) struct PrimaryKey {
    /// In seconds since 1970; may be more than gpg can hold.
    pub expires: Option<u64>,
    /// Whether it may sign data.
    pub may_sign: bool,
}

/// What the newest self-signatures of one user ID, or those over the key itself, say.
struct Said {
    created: u64,
    signs: Option<bool>,
    expires_after: Option<u64>,
}

/// Reads it out of a certificate of which only the signatures are left that gpg keeps.
pub(super) fn primary_key(cert: &Cert, at: SystemTime) -> PrimaryKey {
    let now = unix(at);
    let primary = cert.primary_key();
    let direct = newest(primary.self_signatures(), now);
    let user_ids: Vec<Said> = cert
        .userids()
        .filter_map(|id| {
            let said = newest(id.self_signatures(), now)?;
            let revoked = id.self_revocations().filter_map(created).any(|revoked| revoked > said.created);
            (!revoked).then_some(said)
        })
        .collect();
    let signs = direct.as_ref().and_then(|said| said.signs);
    let expires_after = direct.as_ref().and_then(|said| said.expires_after);
    let signs = signs.or_else(|| newest_that(&user_ids, |said| said.signs).min());
    let expires_after = expires_after.or_else(|| newest_that(&user_ids, |said| said.expires_after).min());
    PrimaryKey {
        expires: expires_after.map(|seconds| unix(primary.key().creation_time()) + seconds),
        may_sign: signs.unwrap_or(true),
    }
}

/// What the newest user IDs say that say anything about it.
fn newest_that<'a, T: 'a>(
    user_ids: &'a [Said],
    get: impl Fn(&Said) -> Option<T> + Copy + 'a,
) -> impl Iterator<Item = T> + 'a {
    let newest = user_ids.iter().filter(move |said| get(said).is_some()).map(|said| said.created).max();
    user_ids.iter().filter(move |said| Some(said.created) == newest).filter_map(get)
}

/// Joins the newest signatures that have not expired: of several made in the same second, what
/// allows least counts.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>, now: u64) -> Option<Said> {
    let alive: Vec<(u64, &Signature)> =
        signatures.filter(|s| !has_expired(s, now)).filter_map(|s| Some((created(s)?, s))).collect();
    let newest = alive.iter().map(|(created, _)| *created).max()?;
    let all = || alive.iter().filter(|(created, _)| *created == newest).map(|(_, signature)| *signature);
    let signs = all().filter_map(|s| s.key_flags().map(|flags| flags.for_signing())).min();
    let expires_after = all().filter_map(|s| s.key_validity_period()).map(|d| d.as_secs()).filter(|s| *s > 0).min();
    Some(Said { created: newest, signs, expires_after })
}

/// As gpg computes it, in 32 bits.
fn has_expired(signature: &Signature, now: u64) -> bool {
    let seconds = signature.signature_validity_period().map_or(0, |period| period.as_secs());
    let end = (created(signature).unwrap_or_default() + seconds) & u64::from(u32::MAX);
    seconds > 0 && end > 0 && end <= now
}

fn created(signature: &Signature) -> Option<u64> {
    signature.signature_creation_time().map(unix)
}

/// Seconds since 1970.
pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
