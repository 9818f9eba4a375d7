//! The lookaside face: `GET|HEAD /lookaside/{key}/signature-N` (spec containers-image 2).
//!
//! N is a position in the ordered set, so that a gap in the store hides nothing from a client.
//! 404 means "no more" and nothing else; a failing store is 503, which ends a pull with an error
//! instead of a wrong "unsigned".

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::body::{Answer, Body};
use super::cache::{Entry, SetCache};
use super::error::{Problem, Shape};
use super::release::ReleaseView;
use crate::store::{Layout, SignatureAddress};

/// The methods of this face.
pub(super) const METHODS: &str = "GET, HEAD";
/// The highest number that is ever served: newer clients take a 128th signature for a fault of the
/// server and fail the pull (spec containers-image 2.3).
const POSITIONS: usize = 127;

/// Answers a GET or HEAD.
pub(super) async fn serve(
    sets: &SetCache,
    releases: &ReleaseView,
    method: &Method,
    headers: &HeaderMap,
    address: SignatureAddress,
) -> Result<Answer, Problem> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Problem::Method(Shape::Plain, METHODS));
    }
    let position = usize::try_from(address.index.get()).unwrap_or(usize::MAX);
    if position > POSITIONS {
        return Err(Problem::NoSuchSignature);
    }
    let entry = match address.set.layout() {
        Layout::Image => {
            let set = sets.get(address.set).await.map_err(|_| Problem::Store(Shape::Plain))?;
            set.entries.get(position - 1).cloned()
        }
        Layout::Release => releases.at(sets, address.set, position).await.map_err(|_| Problem::Store(Shape::Plain))?,
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
fn matches_etag(field: &HeaderValue, etag: &HeaderValue) -> bool {
    field.to_str().is_ok_and(|field| {
        field.split(',').map(str::trim).any(|one| {
            let one = one.strip_prefix("W/").unwrap_or(one);
            one == "*" || one.as_bytes() == etag.as_bytes()
        })
    })
}
