//! The writing half of the lookaside: `PUT`, `DELETE` and `MKCOL` below `/lookaside/`.
//!
//! A PUT is a wish for a number, and the server gives it the next one: nothing is ever replaced,
//! and no number is left free. `Location` says which it got. At a release address it goes into
//! the set of exactly that key, which the release view shows first. A DELETE takes away what is
//! shown under a number, by its bytes: a race with another can remove nothing else.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, LOCATION};
use http::{HeaderValue, Method, Request, StatusCode, request};

use crate::image::Digest;
use crate::server::auth::access_rules::AccessRules;
use crate::server::auth::credentials::Credentials;
use crate::server::caller::Caller;
use crate::server::error::{ErrorFormat, Problem};
use crate::server::listener::request_body::ClientBody;
use crate::server::listener::response_body::{Answer, Body};
use crate::server::reads::lookaside::{matches_etag, position};
use crate::server::reads::set_cache::Entry;
use crate::server::route::WriteTarget;
use crate::server::uploads::audit_log::{Action, Outcome, Record};
use crate::server::uploads::message::SignatureMessage;
use crate::server::uploads::{UploadPermit, UploadPipeline, store_problem};
use crate::signature::BLOB_LIMIT;
use crate::store::{Appended, Layout, Removed, SetAddress, SignatureAddress, StoreError};

/// The methods below `/lookaside/`.
pub(crate) const METHODS: &str = "GET, HEAD, PUT, DELETE, MKCOL, OPTIONS";

/// Takes and removes signatures at the lookaside.
pub(crate) struct LookasideUploads {
    admission: Arc<UploadPipeline>,
    permit: Arc<AccessRules>,
}

impl LookasideUploads {
    pub(crate) fn new(admission: Arc<UploadPipeline>, permit: Arc<AccessRules>) -> Self {
        Self { admission, permit }
    }

    /// Answers what is neither GET nor HEAD of a signature; `place` is what the path names.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        place: Option<WriteTarget>,
        request: Request<ClientBody>,
        caller: &Caller,
    ) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        let served = match (&head.method, place) {
            (&Method::OPTIONS, _) => Ok(options()),
            (&Method::PUT, Some(WriteTarget::Signature(address))) => {
                self.put(address.set, Some(address.index.get()), head, body, caller).await
            }
            (&Method::PUT, Some(WriteTarget::Next(set))) => self.put(set, None, head, body, caller).await,
            (&Method::DELETE, Some(WriteTarget::Signature(address))) => self.remove(address, head, caller).await,
            (method, Some(WriteTarget::Folder(folder))) if is_mkcol(method) => {
                self.make_folder(&folder, &head, caller).await
            }
            (method, Some(WriteTarget::Next(_) | WriteTarget::Folder(_)) | None)
                if [Method::GET, Method::HEAD, Method::PUT, Method::DELETE].contains(method) || is_mkcol(method) =>
            {
                Err(Problem::NoSuchAddress(ErrorFormat::Plain))
            }
            _ => Err(Problem::Method(ErrorFormat::Plain, METHODS)),
        };
        served.map_err(Problem::plainly)
    }

    /// Folders come and go with their signatures, so there is nothing to make: scripts that make
    /// them first are told what they want to hear, where somebody may write at all.
    async fn make_folder(
        &self,
        folder: &SetAddress,
        head: &request::Parts,
        caller: &Caller,
    ) -> Result<Answer, Problem> {
        if !self.permit.is_writable() {
            self.permit.write(folder, Credentials::new(head, caller)).await?;
        }
        Ok(empty(StatusCode::CREATED))
    }

    fn record(&self, action: Action, set: &SetAddress, head: &request::Parts, caller: &Caller) -> Record {
        let repository = self.permit.repository(set.path()).unwrap_or(set.path().as_str());
        self.admission.record(action, "lookaside", (repository, set.digest()), &head.headers, caller)
    }

    async fn put(
        self: &Arc<Self>,
        set: SetAddress,
        number: Option<u32>,
        head: request::Parts,
        body: ClientBody,
        caller: &Caller,
    ) -> Result<Answer, Problem> {
        let mut record = self.record(Action::Add, &set, &head, caller);
        match self.receive(&mut record, &set, &head, body, caller).await {
            Ok((blob, turn)) => {
                // A task of its own: once the bytes are here, the end does not depend on the client.
                let writes = self.clone();
                let stored = tokio::spawn(async move {
                    let result = writes.store(&mut record, &set, number, blob, &head).await;
                    let outcome = result.as_ref().map_or_else(Outcome::Failed, |stored| stored.appended.into());
                    let recorded = writes.admission.audit.end(&record, outcome).await;
                    drop(turn);
                    let stored = result?;
                    recorded?;
                    Ok(stored.answer(&head))
                });
                stored.await.unwrap_or(Err(Problem::Internal))
            }
            Err(problem) => {
                self.admission.audit.end(&record, Outcome::Failed(&problem)).await?;
                Err(problem)
            }
        }
    }

    /// Everything up to the body: rights first, so that a stranger cannot fill our memory.
    async fn receive(
        &self,
        record: &mut Record,
        set: &SetAddress,
        head: &request::Parts,
        body: ClientBody,
        caller: &Caller,
    ) -> Result<(Bytes, UploadPermit), Problem> {
        self.admission.announced(&head.headers, BLOB_LIMIT)?;
        record.who = Some(self.permit.write(set, Credentials::new(head, caller)).await?);
        if head.headers.contains_key(CONTENT_RANGE) {
            return Err(Problem::Invalid("a part of a signature (Content-Range) cannot be stored".to_owned()));
        }
        self.admission.receive(body, BLOB_LIMIT, caller.from).await
    }

    async fn store(
        &self,
        record: &mut Record,
        set: &SetAddress,
        number: Option<u32>,
        blob: Bytes,
        head: &request::Parts,
    ) -> Result<Stored, Problem> {
        let message = SignatureMessage::parse(&blob).map_err(|error| Problem::Invalid(error.to_string()))?;
        let whole = message.bytes().len() == blob.len();
        self.not_from_below(set).await?;
        let wanted = number.and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
        let appended = self.admission.store(record, set, message.clone(), |stored| {
            let taken = wanted.and_then(|at| stored.get(at)).map(|stored| Entry::new(stored.bytes.clone()));
            may_take(&head.headers, taken.as_ref())
        });
        let appended = appended.await?;
        let entry = Entry::new(message.bytes().clone());
        // What the client will be shown it under; it may be gone again by now.
        let shown = match self.admission.sets.get(set.clone()).await {
            Ok(now) => now.entries.iter().position(|other| other.hash == entry.hash).map(|at| at + 1),
            Err(_) => None,
        };
        let (Appended::Created(stored) | Appended::AlreadyThere(stored)) = appended;
        let number = shown.and_then(|shown| u32::try_from(shown).ok()).unwrap_or(stored);
        Ok(Stored { appended, number, etag: whole.then_some(entry.etag) })
    }

    /// A first signature at a release address would hide what the view now shows there from the
    /// repositories below it.
    async fn not_from_below(&self, set: &SetAddress) -> Result<(), Problem> {
        if set.layout() != Layout::Release {
            return Ok(());
        }
        let UploadPipeline { releases, sets, .. } = &*self.admission;
        match releases.below(sets, set).await.map_err(|error| Problem::unread(&error, ErrorFormat::Plain))? {
            true => Err(Problem::Elsewhere),
            false => Ok(()),
        }
    }

    async fn remove(
        self: &Arc<Self>,
        address: SignatureAddress,
        head: request::Parts,
        caller: &Caller,
    ) -> Result<Answer, Problem> {
        let mut record = self.record(Action::Remove, &address.set, &head, caller);
        match self.permit.write(&address.set, Credentials::new(&head, caller)).await {
            Ok(who) => {
                record.who = Some(who);
                let writes = self.clone();
                let removed = tokio::spawn(async move {
                    let result = writes.take_away(&mut record, &address, &head.headers).await;
                    let outcome =
                        result.as_ref().map_or_else(Outcome::Failed, |()| Outcome::Removed(address.index.get()));
                    let recorded = writes.admission.audit.end(&record, outcome).await;
                    result?;
                    recorded?;
                    Ok(empty(StatusCode::NO_CONTENT))
                });
                removed.await.unwrap_or(Err(Problem::Internal))
            }
            Err(problem) => {
                self.admission.audit.end(&record, Outcome::Failed(&problem)).await?;
                Err(problem)
            }
        }
    }

    async fn take_away(
        &self,
        record: &mut Record,
        address: &SignatureAddress,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let UploadPipeline { sets, releases, audit, .. } = &*self.admission;
        let failing = |error: Arc<StoreError>| Problem::unread(&error, ErrorFormat::Plain);
        let (places, entry) = match (address.set.layout(), position(address)) {
            (_, None) => return Err(Problem::NoSuchSignature),
            (Layout::Image, Some(position)) => {
                let set = sets.get(address.set.clone()).await.map_err(failing)?;
                (vec![address.set.clone()], set.entries.get(position - 1).cloned())
            }
            (Layout::Release, Some(position)) => {
                self.not_from_below(&address.set).await?;
                let entry = releases.own(sets, &address.set, position).await.map_err(failing)?;
                let image = SetAddress::image(address.set.path().clone(), address.set.digest().clone());
                (std::iter::once(address.set.clone()).chain(image.ok()).collect(), entry)
            }
        };
        let entry = entry.ok_or(Problem::NoSuchSignature)?;
        let unwanted = Digest::sha256(&entry.bytes);
        record.blob = Some(unwanted.clone());
        if !matches_strongly(headers, &entry.etag) {
            return Err(Problem::Condition);
        }
        audit.begin(record).await?;
        let mut gone = false;
        // A copy in the other set would be shown in its place.
        for place in places {
            match sets.remove(&place, &unwanted).await {
                Ok(removed) => gone |= matches!(removed, Removed::Done(_)),
                Err(error) => {
                    tracing::error!(set = %place, %error, "cannot remove from the store");
                    return Err(store_problem(&error));
                }
            }
        }
        if gone { Ok(()) } else { Err(Problem::NoSuchSignature) }
    }
}

fn is_mkcol(method: &Method) -> bool {
    method.as_str() == "MKCOL"
}

/// Judges the conditions of a PUT over what has its number now, which is never the same bytes. As
/// nothing is replaced, a wish to replace something is never fulfilled.
fn may_take(headers: &HeaderMap, taken: Option<&Entry>) -> bool {
    let is_taken =
        taken.is_some_and(|entry| headers.get_all(IF_NONE_MATCH).iter().any(|v| matches_etag(v, &entry.etag)));
    !is_taken && !headers.contains_key(IF_MATCH)
}

/// Judges `If-Match`, which compares strongly: a weak tag matches nothing (RFC 9110, 13.1.1).
fn matches_strongly(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let mut conditions = headers.get_all(IF_MATCH).iter().peekable();
    conditions.peek().is_none()
        || conditions.any(|field| {
            let mut tags = field.to_str().unwrap_or_default().split(',').map(str::trim);
            tags.any(|one| one == "*" || one.as_bytes() == etag.as_bytes())
        })
}

struct Stored {
    appended: Appended,
    number: u32,
    /// Of the very bytes that were sent.
    etag: Option<HeaderValue>,
}

impl Stored {
    /// The path is the client's own with another number, so that it holds behind any front.
    fn answer(&self, head: &request::Parts) -> Answer {
        let mut answer = empty(match self.appended {
            Appended::Created(_) => StatusCode::CREATED,
            Appended::AlreadyThere(_) => StatusCode::NO_CONTENT,
        });
        let folder = head.uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        if let Ok(place) = HeaderValue::from_str(&format!("{folder}/signature-{}", self.number)) {
            answer.headers_mut().insert(LOCATION, place);
        }
        if let Some(etag) = &self.etag {
            answer.headers_mut().insert(ETAG, etag.clone());
        }
        answer
    }
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::new(Body::empty());
    *answer.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    answer
}

fn options() -> Answer {
    let mut answer = empty(StatusCode::OK);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        let entry = Entry::new(Bytes::from_static(b"a"));
        let with = |name, value: &str| HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
        let etag = entry.etag.to_str().unwrap();
        assert!(may_take(&HeaderMap::new(), Some(&entry)) && may_take(&with(IF_NONE_MATCH, "*"), None));
        for taken in ["*", etag, &format!("\"x\", W/{etag}")] {
            assert!(!may_take(&with(IF_NONE_MATCH, taken), Some(&entry)), "{taken}");
        }
        assert!(may_take(&with(IF_NONE_MATCH, "\"x\""), Some(&entry)));
        assert!(!may_take(&with(IF_MATCH, etag), Some(&entry)) && !may_take(&with(IF_MATCH, "*"), None));
        assert!(matches_strongly(&HeaderMap::new(), &entry.etag));
        for same in ["*", etag, &format!("\"x\", {etag}")] {
            assert!(matches_strongly(&with(IF_MATCH, same), &entry.etag), "{same}");
        }
        for other in ["", "\"x\"", &format!("W/{etag}")] {
            assert!(!matches_strongly(&with(IF_MATCH, other), &entry.etag), "{other}");
        }
    }
}
