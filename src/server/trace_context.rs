//! What ties a request to those before and after it: its own number, the client's number for it
//! (`X-Request-Id`) and the trace that it is part of (`traceparent`, W3C Trace Context).

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");
/// The longest request id that is taken from a client.
const ID_LIMIT: usize = 128;

/// Returns the client's own number of a request, if there is one and it is fit for a log.
pub(super) fn client_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(&REQUEST_ID).iter();
    let id = values.next()?.to_str().ok()?;
    let sane = !id.is_empty()
        && id.len() <= ID_LIMIT
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'='));
    (sane && values.next().is_none()).then_some(id)
}

/// Returns the trace's id, 32 digits, if the request is part of one.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    parent(headers).map(|parent| parent.trace)
}

/// Makes the headers of a request to the upstream: the client's number, else ours; in the same
/// trace, as a span of our own, which is called by our number for the request.
pub(super) fn pass_on(headers: &mut HeaderMap, id: u64) {
    if client_id(headers).is_none()
        && let Ok(own) = HeaderValue::from_str(&format!("{id:016x}"))
    {
        headers.insert(REQUEST_ID, own);
    }
    let own = parent(headers).map(|Parent { trace, flags, .. }| format!("00-{trace}-{:016x}-{flags}", id.max(1)));
    #[cfg(feature = "otlp")]
    let own = crate::server::span::current().or(own);
    match own.and_then(|own| HeaderValue::from_str(&own).ok()) {
        Some(next) => {
            headers.insert(TRACE_PARENT, next);
        }
        None => {
            // The one means nothing without the other.
            headers.remove(TRACE_PARENT);
            headers.remove(TRACE_STATE);
        }
    }
}

/// The span that a request belongs to, in hex digits.
pub(super) struct Parent<'a> {
    pub(super) trace: &'a str,
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "our own number is the parent of what follows"))]
    pub(super) span: &'a str,
    pub(super) flags: &'a str,
}

/// Reads `traceparent`: `version-trace-span-flags`, lower case hex digits only, exactly one. Of a
/// version that is not known yet, the part that this version defines is read.
pub(super) fn parent(headers: &HeaderMap) -> Option<Parent<'_>> {
    let mut values = headers.get_all(&TRACE_PARENT).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let set = |part: &str| part.bytes().any(|b| b != b'0');
    let well_formed = hex(version, 2) && hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2);
    let ended = if version == "00" { parts.next().is_none() } else { version != "ff" };
    (well_formed && ended).then_some(Parent { trace, span, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap()));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(n, v)| {
            headers.append(n, v);
        });
        headers
    }

    #[test]
    fn only_well_formed_parents() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(trace_id(&headers(&[("traceparent", &good)])), Some(TRACE));
        assert_eq!(trace_id(&headers(&[("traceparent", &format!("cc{}-what", &good[2..]))])), Some(TRACE));
        for bad in [
            "",
            "00",
            &good[..54],
            &format!("{good}-x"),
            &format!("{good} "),
            &format!("ff{}", &good[2..]),
            &good.to_uppercase(),
            &good.replace(TRACE, &"0".repeat(32)),
            &good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &good.replace("00-4", "0-04"),
            &good.replace('-', "_"),
        ] {
            assert_eq!(trace_id(&headers(&[("traceparent", bad)])), None, "{bad}");
        }
        assert_eq!(trace_id(&headers(&[("traceparent", &good), ("traceparent", &good)])), None, "two parents");
    }

    #[test]
    fn the_upstream_gets_a_child_or_nothing() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let mut passed = headers(&[("traceparent", &parent), ("tracestate", "a=b"), ("x-request-id", "r-1")]);
        pass_on(&mut passed, 0xabc);
        assert_eq!(passed["traceparent"], format!("00-{TRACE}-0000000000000abc-01"));
        assert_eq!((passed["tracestate"].as_bytes(), passed["x-request-id"].as_bytes()), (&b"a=b"[..], &b"r-1"[..]));
        let mut passed = headers(&[("traceparent", "junk"), ("tracestate", "a=b"), ("x-request-id", "no \"good\"")]);
        pass_on(&mut passed, 1);
        assert_eq!(passed["x-request-id"], "0000000000000001");
        assert_eq!(passed.len(), 1);
    }

    #[test]
    fn sane_ids_only() {
        for (id, sane) in [("a", true), ("1f3e-9_8.7:6/+=", true), ("", false), ("a b", false), ("a\tb", false)] {
            assert_eq!(client_id(&headers(&[("x-request-id", id)])).is_some(), sane, "{id}");
        }
        assert!(client_id(&headers(&[("x-request-id", &"a".repeat(129))])).is_none());
        assert!(client_id(&headers(&[("x-request-id", "a"), ("x-request-id", "b")])).is_none());
    }
}
