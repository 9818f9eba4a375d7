//! What is tried again, how often, and after what time.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::RETRY_AFTER;

use super::fetch::Answer;
use super::token::PassingFailure;

/// How often a call is made that is answered 429, as containers/image.
const ATTEMPTS: u32 = 5;
/// How often a patient client makes one that fails without a word about when to come back.
const SILENT_ATTEMPTS: u32 = 3;
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that a patient client obeys. Asked for more, it gives up.
const LONGEST_REQUESTED_DELAY: Duration = Duration::from_secs(15 * 60);
pub(super) const FIRST_DELAY: Duration = Duration::from_secs(2);

/// One call's patience.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    attempt: u32,
    delay: Duration,
    patient: bool,
}

impl Patience {
    /// A 429 is tried again, as containers/image does; if `patient`, also an answer or a broken
    /// connection that may only be a bad moment of the server's.
    pub(super) fn new(first_delay: Duration, patient: bool) -> Self {
        Self { attempt: 0, delay: first_delay, patient }
    }

    /// Returns after what time the call is worth making again; `None` when its answer is final.
    pub(super) fn after(&mut self, answer: &Answer) -> Option<Duration> {
        let asked = retry_after(answer, SystemTime::now());
        let most = match answer.status {
            StatusCode::TOO_MANY_REQUESTS => ATTEMPTS,
            status if !self.patient || !is_passing(status) => return None,
            _ if asked.is_some() => ATTEMPTS,
            _ => SILENT_ATTEMPTS,
        };
        self.next(most, asked)
    }

    /// The same for a call without any answer.
    pub(super) fn after_silence(&mut self) -> Option<Duration> {
        if self.patient { self.next(SILENT_ATTEMPTS, None) } else { None }
    }

    /// The same for a call whose token server failed.
    pub(super) fn after_token_failure(&mut self, failure: PassingFailure) -> Option<Duration> {
        let often = failure.retry_after.is_some() || failure.status == Some(StatusCode::TOO_MANY_REQUESTS);
        self.next(if often { ATTEMPTS } else { SILENT_ATTEMPTS }, failure.retry_after)
    }

    fn next(&mut self, most: u32, asked: Option<Duration>) -> Option<Duration> {
        self.attempt += 1;
        if self.attempt >= most {
            return None;
        }
        let wait = match asked {
            Some(asked) if self.patient && asked > LONGEST_REQUESTED_DELAY => return None,
            // Asking earlier than the server wants only makes it refuse for longer.
            Some(asked) if self.patient => asked,
            asked => asked.unwrap_or(self.delay).min(LONGEST_DELAY),
        };
        self.delay = wait.saturating_mul(2).min(LONGEST_DELAY);
        Some(wait)
    }
}

/// A status that says more of the moment than of the question.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After`: seconds, or a date.
pub(super) fn retry_after(answer: &Answer, now: SystemTime) -> Option<Duration> {
    parse_retry_after(answer.header(RETRY_AFTER)?.trim(), now)
}

fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    SystemTime::from(date.timestamp()).duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_440);
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(40)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", None),
            ("soon", None),
            ("-1", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(parse_retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn patient_clients_wait_as_long_as_the_server_asks_within_reason() {
        let wait = |patient, seconds| {
            let status = Some(StatusCode::TOO_MANY_REQUESTS);
            let retry_after = Some(Duration::from_secs(seconds));
            let mut patience = Patience::new(FIRST_DELAY, patient);
            patience.after_token_failure(PassingFailure { status, retry_after }).map(|wait| wait.as_secs())
        };
        assert_eq!((wait(true, 3), wait(true, 300), wait(true, 901)), (Some(3), Some(300), None));
        assert_eq!(wait(false, 300), Some(60));
    }

    #[test]
    fn silence_tries_nobodys_patience_for_long() {
        let mut patience = Patience::new(FIRST_DELAY, true);
        let waits = [patience.after_silence(), patience.after_silence(), patience.after_silence()];
        assert_eq!(waits.map(|wait| wait.map(|wait| wait.as_secs())), [Some(2), Some(4), None]);
        assert_eq!(Patience::new(FIRST_DELAY, false).after_silence(), None);
    }
}
