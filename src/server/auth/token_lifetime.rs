//! How long the token lives that a caller shows, as far as anybody but its registry can know: a
//! JSON Web Token (RFC 7519, section 4.1.4) says so. It is not verified, and need not be: it only
//! makes a remembered right shorter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap};

use crate::server::authorization::Authorization;

#[derive(serde::Deserialize)]
struct Claims {
    exp: f64,
}

/// Returns what is left of the shortest life of the bearer tokens in a request; `None` where none says.
pub(crate) fn left(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let ends = headers.get_all(AUTHORIZATION).iter().filter_map(end);
    let left = |end: f64| Duration::try_from_secs_f64((end - now).max(0.0)).unwrap_or(Duration::MAX);
    ends.map(left).min()
}

fn end(value: &HeaderValue) -> Option<f64> {
    let mut parts = Authorization::parse(value)?.bearer()?.split('.');
    let (_, content, _) = (parts.next()?, parts.next()?, parts.next()?);
    let content = URL_SAFE_NO_PAD.decode(content).ok()?;
    serde_json::from_slice::<Claims>(&content).ok().map(|claims| claims.exp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(authorization: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        left(&headers, UNIX_EPOCH + Duration::from_secs(1000))
    }

    fn jwt(content: &str) -> String {
        format!("Bearer e30.{}.c2ln", URL_SAFE_NO_PAD.encode(content))
    }

    #[test]
    fn a_json_web_token_says_when_it_ends() {
        assert_eq!(of(&jwt(r#"{"exp":1003,"sub":"x"}"#)), Some(Duration::from_secs(3)));
        assert_eq!(of(&jwt(r#"{"exp":1000.5}"#)), Some(Duration::from_millis(500)));
        assert_eq!(of(&jwt(r#"{"exp":7}"#)), Some(Duration::ZERO));
        assert_eq!(of(&jwt(r#"{"exp":1e300}"#)), Some(Duration::MAX));
        for silent in [&jwt("{}"), &jwt(r#"{"exp":"1003"}"#), "Bearer opaque", "Bearer a.b", "Basic dTpw", "Bearer"] {
            assert_eq!(of(silent), None, "{silent}");
        }
        let mut two = HeaderMap::new();
        two.append(AUTHORIZATION, jwt(r#"{"exp":1009}"#).parse().unwrap());
        two.append(AUTHORIZATION, jwt(r#"{"exp":1002}"#).parse().unwrap());
        assert_eq!(left(&two, UNIX_EPOCH + Duration::from_secs(1000)), Some(Duration::from_secs(2)));
    }

    proptest! {
        #[test]
        fn anything_is_taken(text in "[ -~]{0,80}", content in "[ -~]{0,60}") {
            of(&text);
            of(&jwt(&content));
        }
    }
}
