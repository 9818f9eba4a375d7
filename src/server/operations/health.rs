//! Whether the server can do its work: what `/readyz` says, and why not.
//!
//! Everybody may ask at any time, so the answer is remembered for a moment, there is one check at
//! a time, and a store that hangs is not asked anew before it has answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::server::listener::response_body::Answer;
use crate::server::operations::request_log;
use crate::server::reads::set_cache::SetCache;
use crate::server::upstream::Upstream;

/// How long an answer is good.
const REMEMBERED: Duration = Duration::from_secs(3);
/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks once; the error is a reason for the operator.
pub(crate) type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What readiness depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing goes without it.
    Always,
    /// One of those is enough: a registry that is down must not take the others away.
    OneOf,
}

/// Something that the server depends on.
struct Target {
    name: String,
    need: Need,
    probe: Probe,
    /// A question that is not answered yet.
    pending: Option<JoinHandle<Result<(), String>>>,
}

/// The state of the server's health.
pub(crate) struct Health {
    leaving: AtomicBool,
    targets: Mutex<Targets>,
}

struct Targets {
    all: Vec<Target>,
    last: Option<(Instant, Report)>,
}

/// What `/readyz` says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    status: &'static str,
    #[serde(skip)]
    ready: bool,
    checks: Vec<Check>,
}

#[derive(Clone, Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip)]
    need: Need,
}

impl Health {
    pub(crate) fn new(targets: Vec<(String, Need, Probe)>) -> Self {
        let all = targets.into_iter().map(|(name, need, probe)| Target { name, need, probe, pending: None }).collect();
        Self { leaving: AtomicBool::new(false), targets: Mutex::new(Targets { all, last: None }) }
    }

    /// From now on the server is not ready, whatever it depends on.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Finds out whether the server is ready.
    pub(crate) async fn report(&self) -> Report {
        if self.leaving.load(Ordering::Acquire) {
            return Report { status: "leaving", ready: false, checks: Vec::new() };
        }
        let mut targets = self.targets.lock().await;
        if let Some((_, report)) = targets.last.as_ref().filter(|(at, _)| at.elapsed() < REMEMBERED) {
            return report.clone();
        }
        let checks = join_all(targets.all.iter_mut().map(Target::check)).await;
        let mut one_of = checks.iter().filter(|check| check.need == Need::OneOf).peekable();
        let enough = one_of.peek().is_none() || one_of.any(|check| check.ok);
        let ready = enough && checks.iter().all(|check| check.ok || check.need == Need::OneOf);
        for check in checks.iter().filter(|check| !check.ok) {
            tracing::warn!(check = check.name, reason = check.reason, "not reachable");
        }
        let report = Report { status: if ready { "ready" } else { "not ready" }, ready, checks };
        targets.last = Some((Instant::now(), report.clone()));
        report
    }
}

impl Target {
    async fn check(&mut self) -> Check {
        let task = self.pending.get_or_insert_with(|| tokio::spawn((self.probe)()));
        let asked = match tokio::time::timeout(PATIENCE, task).await {
            Ok(ended) => {
                self.pending = None;
                ended.unwrap_or_else(|stopped| Err(stopped.to_string()))
            }
            Err(_) => Err(format!("no answer within {} seconds", PATIENCE.as_secs())),
        };
        Check { name: self.name.clone(), ok: asked.is_ok(), reason: asked.err(), need: self.need }
    }
}

impl Report {
    /// The answer for the operator.
    pub(crate) fn answer(&self) -> Answer {
        let text = crate::escape::json::to_string(self).unwrap_or_default();
        answer(self.code(), "application/json", text + "\n")
    }

    /// The answer for everybody: one word.
    pub(crate) fn short_answer(&self) -> Answer {
        answer(self.code(), "text/plain; charset=utf-8", format!("{}\n", self.status))
    }

    fn code(&self) -> StatusCode {
        if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }
}

/// The answer of `/healthz`: who can say it lives.
pub(crate) fn alive() -> Answer {
    answer(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned())
}

pub(crate) fn answer(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Answer::new(text.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// What `/readyz` asks: the store, and each registry; one that has several names once.
pub(crate) fn targets<'a>(
    sets: &Arc<SetCache>,
    upstreams: impl Iterator<Item = &'a Arc<Upstream>>,
) -> Vec<(String, Need, Probe)> {
    let sets = sets.clone();
    let store: Probe = Box::new(move || {
        let sets = sets.clone();
        Box::pin(async move { sets.reach().await.map_err(|error| error.to_string()) })
    });
    let mut targets = vec![("store".to_owned(), Need::Always, store)];
    for upstream in upstreams {
        let name = format!("upstream {}", upstream.origin);
        if targets.iter().all(|(known, ..)| *known != name) {
            let upstream = upstream.clone();
            let probe: Probe = Box::new(move || {
                let upstream = upstream.clone();
                Box::pin(async move { upstream.reach(request_log::request_id()).await })
            });
            targets.push((name, Need::OneOf, probe));
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    type Asked = Arc<AtomicUsize>;

    fn probe(result: Result<(), &'static str>, asked: &Asked) -> Probe {
        let asked = asked.clone();
        Box::new(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { result.map_err(str::to_owned) })
        })
    }

    async fn ready(checks: &[(Need, Result<(), &'static str>)]) -> bool {
        let asked = Asked::default();
        let targets = checks.iter().map(|(need, result)| ("x".to_owned(), *need, probe(*result, &asked))).collect();
        Health::new(targets).report().await.ready
    }

    #[tokio::test]
    async fn one_registry_down_is_not_all() {
        let (store, one, other) = ((Need::Always, Ok(())), (Need::OneOf, Ok(())), (Need::OneOf, Err("down")));
        assert!(ready(&[store]).await && ready(&[store, one]).await && ready(&[store, other, one]).await);
        assert!(!ready(&[store, other]).await && !ready(&[store, other, other]).await);
        assert!(!ready(&[(Need::Always, Err("down"))]).await && !ready(&[(Need::Always, Err("down")), one]).await);
    }

    #[tokio::test]
    async fn a_crowd_asks_once() {
        let asked = Asked::default();
        let health = Arc::new(Health::new(vec![("store".to_owned(), Need::Always, probe(Ok(()), &asked))]));
        join_all((0..50).map(|_| health.report())).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        health.leave();
        assert_eq!(health.report().await.status, "leaving");
    }

    #[tokio::test]
    async fn who_hangs_is_asked_once_and_named() {
        let asked = Asked::default();
        let counted = asked.clone();
        let hang: Probe = Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::pending())
        });
        let health = Health::new(vec![("store".to_owned(), Need::Always, hang)]);
        for _ in 0..2 {
            health.targets.lock().await.last = None;
            let report = health.report().await;
            let text = serde_json::to_string(&report).unwrap();
            assert_eq!(
                text,
                r#"{"status":"not ready","checks":[{"name":"store","ok":false,"reason":"no answer within 2 seconds"}]}"#
            );
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
