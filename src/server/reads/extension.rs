//! The reading half of the signature extension: `GET|HEAD /extensions/v2/{name}/signatures/{digest}`.
//!
//! An unsigned image is 200 with an empty list, never 404: clients fail the pull on anything but
//! 200, under any policy (spec containers-image 3.3). So is an image that the caller cannot see.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::image::Digest;
use crate::server::auth::upstream_permissions::{ManifestState, UpstreamPermissions};
use crate::server::caller::Caller;
use crate::server::error::{ErrorFormat, Problem};
use crate::server::listener::response_body::Answer;
use crate::server::reads::set_cache::{Entry, SetCache, SignatureSet};
use crate::signature::{BlobKind, classify};
use crate::store::{SetAddress, StorePath};

/// The methods of this face.
pub(crate) const METHODS: &str = "GET, HEAD, PUT";
/// Clients read so many bytes of a list, and fail beyond.
const LISTING_LIMIT: usize = 4 * 1024 * 1024;
const OPENING: &str = "{\"signatures\":[";
const CLOSING: &str = "]}\n";
/// Everything of an entry but its digest and content, counted generously.
const ENTRY_OVERHEAD: usize = 128;

/// Where the signatures of a repository's manifest are kept.
pub(crate) fn address(prefix: &StorePath, name: &str, digest: &Digest) -> Result<SetAddress, Problem> {
    let path = StorePath::parse(name).and_then(|name| prefix.join(&name));
    path.and_then(|path| SetAddress::image(path, digest.clone()))
        .map_err(|_| Problem::NoSuchAddress(ErrorFormat::Registry))
}

/// Answers with the list.
pub(crate) async fn list(
    access: &UpstreamPermissions,
    sets: &SetCache,
    prefix: &StorePath,
    (name, digest): (&str, &Digest),
    headers: &HeaderMap,
    caller: &Caller,
) -> Result<Answer, Problem> {
    let listing = match access.pull(name, digest, headers, caller).await? {
        ManifestState::Absent => Bytes::from(format!("{OPENING}{CLOSING}")),
        ManifestState::Readable => {
            let address = address(prefix, name, digest)?;
            let set = sets.get_whole(address).await;
            let set: Arc<SignatureSet> = set.map_err(|error| Problem::unread(&error, ErrorFormat::Registry))?;
            set.listing.get_or_init(|| render(name, digest, &set.entries)).clone()
        }
    };
    let mut answer = Answer::new(listing.into());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    // What one caller may read is not for a shared cache.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(answer)
}

/// Tells how many bytes a list with signatures of these lengths has at most.
pub(crate) fn listing_length(digest: &Digest, lengths: impl Iterator<Item = usize>) -> usize {
    let entry = |length: usize| length.div_ceil(3) * 4 + digest.hex().len() + ENTRY_OVERHEAD;
    OPENING.len() + CLOSING.len() + lengths.map(entry).sum::<usize>()
}

/// Tells whether a list of so many bytes can be read by clients.
pub(crate) fn listing_fits(length: usize) -> bool {
    length < LISTING_LIMIT
}

/// Writes the list: simple-signing form only, without prefixes, since clients take the content of
/// this API as it is (spec containers-image 3.3).
fn render(name: &str, digest: &Digest, entries: &[Entry]) -> Bytes {
    let messages: Vec<&[u8]> = entries
        .iter()
        .filter_map(|entry| match classify(&entry.bytes) {
            Ok(BlobKind::SimpleSigning(message)) if !message.is_empty() => Some(message),
            _ => None,
        })
        .collect();
    let total = listing_length(digest, messages.iter().map(|m| m.len()));
    let mut text = String::with_capacity(total.min(LISTING_LIMIT));
    text.push_str(OPENING);
    let mut named = HashSet::with_capacity(messages.len());
    let mut left_out = 0usize;
    for message in messages {
        let length = listing_length(digest, std::iter::once(message.len()));
        if !listing_fits(text.len() + length) {
            left_out += 1;
            continue;
        }
        let hash = Digest::sha256(message);
        let short = hash.hex().get(..32).unwrap_or_default();
        if !named.insert(short.to_owned()) {
            continue;
        }
        if named.len() > 1 {
            text.push(',');
        }
        text.push_str(&format!(
            "{{\"schemaVersion\":2,\"name\":\"{digest}@{short}\",\"type\":\"atomic\",\"content\":\""
        ));
        STANDARD.encode_string(message, &mut text);
        text.push_str("\"}");
    }
    if left_out > 0 {
        tracing::warn!(
            repository = name, %digest, left_out,
            "more signatures than clients read in one list; some are left out"
        );
    }
    text.push_str(CLOSING);
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: &[u8]) -> Entry {
        Entry::new(Bytes::copy_from_slice(bytes))
    }

    fn read(listing: &Bytes) -> Vec<(String, Vec<u8>)> {
        let json: serde_json::Value = serde_json::from_slice(listing).unwrap();
        json["signatures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                assert_eq!((one["schemaVersion"].as_i64(), one["type"].as_str()), (Some(2), Some("atomic")));
                let content = STANDARD.decode(one["content"].as_str().unwrap()).unwrap();
                (one["name"].as_str().unwrap().to_owned(), content)
            })
            .collect()
    }

    #[test]
    fn simple_signing_form_only() {
        let digest = Digest::sha256(b"x");
        let entries = [
            entry(b"\xa3one"),
            entry(b"\0sigstore-json\n{}"),
            entry(b"\0simple-signing\n\xa3two"),
            entry(b"-----BEGIN PGP MESSAGE-----"),
            entry(b"\0simple-signing\n"),
            entry(b"\xa3two"),
        ];
        let name = |content: &[u8]| format!("{digest}@{}", &Digest::sha256(content).hex()[..32]);
        assert_eq!(
            read(&render("x", &digest, &entries)),
            [(name(b"\xa3one"), b"\xa3one".to_vec()), (name(b"\xa3two"), b"\xa3two".to_vec())]
        );
        assert_eq!(render("x", &digest, &[]), OPENING.to_owned() + CLOSING);
    }

    #[test]
    fn never_more_than_clients_read() {
        let digest = Digest::sha256(b"x");
        let big = |seed: u8| {
            let mut bytes = vec![seed; 1_200_000];
            bytes[0] = 0xa3;
            entry(&bytes)
        };
        let entries = [big(1), big(2), big(3), entry(b"\xa3small")];
        let listing = render("x", &digest, &entries);
        assert!(listing.len() < LISTING_LIMIT);
        let read = read(&listing);
        assert_eq!(read.iter().map(|(_, c)| c.len()).collect::<Vec<_>>(), [1_200_000, 1_200_000, 6]);
        let counted = listing_length(&digest, [1_200_000, 1_200_000, 6].into_iter());
        assert!(counted >= listing.len() && counted < listing.len() + 1000);
    }
}
