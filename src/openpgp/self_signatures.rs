//! How gpg 2.2 combines the self-signatures of a primary key (its `merge_selfsigs_main`): the newest
//! direct key signature comes first, then the newest user ID that says anything at all. Sequoia goes
//! by the primary user ID. A key must be good by both (spec containers-image 4.4).

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

/// What a self-signature of one user ID, or one over the key itself, says.
#[derive(Clone)]
struct Said {
    created: u64,
    signs: Option<bool>,
    expires_after: Option<u64>,
}

/// More ways to read a certificate than these are not gone through: such a key may not sign.
const READINGS: usize = 256;

/// Reads it out of a certificate of which only the signatures are left that gpg keeps.
///
/// Of several signatures of one identity that were made in the same second, gpg takes one, by their
/// places in the file. All readings are gone through, and what allows least counts.
pub(super) fn primary_key(cert: &Cert, at: SystemTime) -> PrimaryKey {
    let now = unix(at);
    let primary = cert.primary_key();
    let mut identities: Vec<(bool, Vec<Said>)> = Vec::new();
    identities.push((true, newest(primary.self_signatures(), now)));
    for id in cert.userids() {
        let mut said = newest(id.self_signatures(), now);
        let revoked: Vec<u64> = id.self_revocations().filter_map(created).collect();
        said.retain(|said| !revoked.iter().any(|revoked| *revoked > said.created));
        identities.push((false, said));
    }
    identities.retain(|(_, said)| !said.is_empty());
    let created = unix(primary.key().creation_time());
    let readings = identities.iter().fold(1_usize, |all, (_, said)| all.saturating_mul(said.len()));
    if readings > READINGS {
        return PrimaryKey { expires: None, may_sign: false };
    }
    let all = (0..readings).map(|mut number| {
        let chosen: Vec<(bool, &Said)> = identities
            .iter()
            .filter_map(|(direct, said)| {
                let one = said.get(number % said.len());
                number /= said.len();
                one.map(|one| (*direct, one))
            })
            .collect();
        read(&chosen, created)
    });
    all.reduce(|one, other| PrimaryKey {
        expires: [one.expires, other.expires].into_iter().flatten().min(),
        may_sign: one.may_sign && other.may_sign,
    })
    .unwrap_or(PrimaryKey { expires: None, may_sign: true })
}

/// One reading: the direct signature first, then the newest user ID that says anything at all.
fn read(chosen: &[(bool, &Said)], created: u64) -> PrimaryKey {
    let direct = chosen.iter().find(|(direct, _)| *direct).map(|(_, said)| *said);
    let user_ids: Vec<&Said> = chosen.iter().filter(|(direct, _)| !direct).map(|(_, said)| *said).collect();
    let signs = direct.and_then(|said| said.signs).or_else(|| newest_that(&user_ids, |said| said.signs).min());
    let expires_after =
        direct.and_then(|said| said.expires_after).or_else(|| newest_that(&user_ids, |said| said.expires_after).min());
    PrimaryKey { expires: expires_after.map(|seconds| created + seconds), may_sign: signs.unwrap_or(true) }
}

/// What the newest user IDs say that say anything about it.
fn newest_that<'a, T: 'a>(
    user_ids: &'a [&'a Said],
    get: impl Fn(&Said) -> Option<T> + Copy + 'a,
) -> impl Iterator<Item = T> + 'a {
    let newest = user_ids.iter().filter(move |said| get(said).is_some()).map(|said| said.created).max();
    user_ids.iter().filter(move |said| Some(said.created) == newest).filter_map(move |said| get(said))
}

/// The signatures of the newest second that have not expired.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>, now: u64) -> Vec<Said> {
    let alive: Vec<(u64, &Signature)> =
        signatures.filter(|s| !has_expired(s, now)).filter_map(|s| Some((created(s)?, s))).collect();
    let newest = alive.iter().map(|(created, _)| *created).max();
    let of_newest = alive.iter().filter(|(created, _)| Some(*created) == newest);
    of_newest
        .map(|(created, signature)| Said {
            created: *created,
            signs: signature.key_flags().map(|flags| flags.for_signing()),
            expires_after: signature.key_validity_period().map(|d| d.as_secs()).filter(|seconds| *seconds > 0),
        })
        .collect()
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
