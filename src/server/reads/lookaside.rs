//! The lookaside face: `GET|HEAD /lookaside/{key}/signature-N` (spec containers-image 2).
//!
//! N is a position in the ordered set, so that a gap in the store hides nothing from a client.
//! 404 means "no more" and nothing else; a failing store is 503, which ends a pull with an error
//! instead of a wrong "unsigned". So is a file that another program is writing in place.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::server::error::{ErrorFormat, Problem};
use crate::server::listener::response_body::{Answer, Body};
use crate::server::reads::release::{ReleaseView, Visible};
use crate::server::reads::set_cache::{Entry, SetCache};
use crate::store::{Layout, MOST_SIGNATURES, SignatureAddress};

/// The highest number that is ever served: newer clients take a 128th signature for a fault of the
/// server and fail the pull (spec containers-image 2.3).
pub(super) const POSITIONS: usize = MOST_SIGNATURES as usize;

/// Returns the position that an address names, if it is one that is ever served.
pub(crate) fn position(address: &SignatureAddress) -> Option<usize> {
    usize::try_from(address.index.get()).ok().filter(|position| (1..=POSITIONS).contains(position))
}

/// Answers a GET or HEAD of a caller who may read the address; `visible` is for what a release
/// address shows beyond it.
pub(crate) async fn serve(
    sets: &SetCache,
    releases: &ReleaseView,
    method: &Method,
    headers: &HeaderMap,
    address: SignatureAddress,
    visible: Option<&Visible<'_>>,
) -> Result<Answer, Problem> {
    let position = position(&address).ok_or(Problem::NoSuchSignature)?;
    let entry = match address.set.layout() {
        Layout::Image => {
            let set = sets
                .get_at(address.set, position)
                .await
                .map_err(|error| Problem::unread(&error, ErrorFormat::Plain))?;
            set.entries.get(position - 1).cloned()
        }
        Layout::Release => Box::pin(releases.at(sets, address.set, position, visible)).await?,
    };
    Ok(answer(method, headers, entry.ok_or(Problem::NoSuchSignature)?))
}

fn answer(method: &Method, asked: &HeaderMap, entry: Entry) -> Answer {
    let unchanged = asked.get_all(IF_NONE_MATCH).iter().any(|v| matches_etag(v, &entry.etag));
    let length = entry.bytes.len();
    let mut answer =
        if unchanged || method == Method::HEAD { Answer::new(Body::empty()) } else { Answer::new(entry.bytes.into()) };
    let headers = answer.headers_mut();
    headers.insert(ETAG, entry.etag);
    // A removal moves later signatures to other numbers, so a stale copy must not be used.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60, must-revalidate"));
    if unchanged {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        return answer;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    answer
}

/// Compares weakly, as RFC 9110 wants it for `If-None-Match`.
pub(crate) fn matches_etag(field: &HeaderValue, etag: &HeaderValue) -> bool {
    field.to_str().is_ok_and(|field| {
        field.split(',').map(str::trim).any(|one| {
            let one = one.strip_prefix("W/").unwrap_or(one);
            one == "*" || one.as_bytes() == etag.as_bytes()
        })
    })
}
