//! How a signature gets its place: body, form, claim, gate, limits, audit record, store. The same
//! for every face that takes one.

pub(super) mod audit_file;
pub(super) mod audit_log;
pub(super) mod extension;
pub(super) mod gate;
pub(super) mod lookaside;
pub(super) mod message;
pub(super) mod receive;
pub(super) mod refusal_summary;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;

use crate::config::{LimitConfig, ServerConfig};
use crate::image::Digest;
use crate::metrics::{self, GateVerdict};
use crate::server::caller::Caller;
use crate::server::error::{ErrorFormat, Problem};
use crate::server::listener::request_body::ClientBody;
use crate::server::reads::extension::{listing_fits, listing_length};
use crate::server::reads::release::ReleaseView;
use crate::server::reads::set_cache::SetCache;
use crate::server::uploads::audit_log::{Action, AuditLog, Record};
use crate::server::uploads::extension::{ClaimReader, NotAdmitted, Upload, UploadGate};
use crate::server::uploads::message::SignatureMessage;
use crate::server::uploads::receive::BodyReceiver;
pub(super) use crate::server::uploads::receive::{LongBodyPermit, UploadPermit};
use crate::signature::Claim;
use crate::store::{Appended, SetAddress, StoreError, StoredSignature};

/// What every signature for one registry must pass; all but the gate is shared by all of them.
#[derive(Clone)]
pub(super) struct UploadPipeline {
    /// The registry's name; empty for the default one.
    registry: Arc<str>,
    pub(super) sets: Arc<SetCache>,
    pub(super) releases: Arc<ReleaseView>,
    pub(super) audit: AuditLog,
    claims: ClaimReader,
    gate: Option<Arc<dyn UploadGate>>,
    limits: LimitConfig,
    /// Takes bodies, of all registries together.
    receiver: Arc<BodyReceiver>,
}

/// Why a well-formed signature does not get a place.
enum StoreRejection {
    Condition,
    Count,
    Size,
}

impl UploadPipeline {
    /// Makes the default registry's, without a gate.
    pub(super) fn new(
        config: &ServerConfig,
        sets: Arc<SetCache>,
        releases: Arc<ReleaseView>,
        claims: ClaimReader,
    ) -> Self {
        Self {
            registry: Arc::default(),
            sets,
            releases,
            audit: AuditLog::new(config),
            claims,
            gate: None,
            limits: config.limits.clone(),
            receiver: Arc::new(BodyReceiver::new(&config.limits)),
        }
    }

    /// Returns the one of the registry with this name and gate, over the same shared means.
    pub(super) fn of(&self, registry: &str, gate: Option<Arc<dyn UploadGate>>) -> Self {
        Self { registry: registry.into(), gate, ..self.clone() }
    }

    /// Begins the record of an attempt to change something.
    pub(super) fn record(
        &self,
        action: Action,
        face: &'static str,
        image: (&str, &Digest),
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Record {
        Record::new(action, face, &self.registry, image, headers, caller)
    }

    /// Refuses a body that is announced to be too long, before anybody is asked about anything.
    pub(super) fn announced(&self, headers: &HeaderMap, limit: usize) -> Result<(), Problem> {
        let limit = limit.min(self.limits.upload_bytes);
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit as u64) { Err(Problem::TooLarge(limit)) } else { Ok(()) }
    }

    /// Reads a body of at most `limit` bytes, or of what is configured if that is less; its turn to
    /// be judged, and the place that it takes in memory, are held by what is returned with it.
    pub(super) async fn receive(
        &self,
        body: ClientBody,
        limit: usize,
        from: IpAddr,
    ) -> Result<(Bytes, UploadPermit), Problem> {
        self.receiver.receive(body, limit.min(self.limits.upload_bytes), from).await
    }

    /// Reads a body as [`UploadPipeline::receive`] does; its turn is taken by [`UploadPipeline::turn_of`], once
    /// nobody else has to be asked about it.
    pub(super) async fn read(&self, body: ClientBody, from: IpAddr) -> Result<(Bytes, LongBodyPermit), Problem> {
        self.receiver.read(body, self.limits.upload_bytes, from).await
    }

    /// Waits for a body's turn to be judged.
    pub(super) async fn turn_of(&self, body: LongBodyPermit, from: IpAddr) -> Result<UploadPermit, Problem> {
        self.receiver.turn_of(body, from).await
    }

    /// Judges a message and stores it, recording first that it will be; the outcome is the
    /// caller's to record. `condition` may still refuse when it sees what is stored.
    pub(super) async fn store(
        self: &Arc<Self>,
        record: &mut Record,
        address: &SetAddress,
        message: SignatureMessage,
        condition: impl FnOnce(&[StoredSignature]) -> bool,
    ) -> Result<Appended, Problem> {
        record.blob = Some(Digest::sha256(message.bytes()));
        let (admission, judged) = (self.clone(), record.clone());
        let judged = tokio::task::spawn_blocking(move || admission.judge(&judged, message.bytes()).map(|()| message));
        let message = judged.await.unwrap_or(Err(Problem::Internal))?;
        let message = message.bytes();
        self.audit.begin(record).await?;
        let digest = &record.digest;
        let appended = self.sets.append(address, message, |stored| {
            let lengths = stored.iter().map(|s| s.bytes.len()).chain([message.len()]);
            if !condition(stored) {
                Err(StoreRejection::Condition)
            } else if stored.len() >= self.limits.signatures_per_digest {
                Err(StoreRejection::Count)
            } else if !listing_fits(listing_length(digest, lengths)) {
                Err(StoreRejection::Size)
            } else {
                Ok(())
            }
        });
        match appended.await {
            Ok(Ok(appended)) => {
                self.releases.note(address);
                Ok(appended)
            }
            Ok(Err(StoreRejection::Condition)) => Err(Problem::Condition),
            Ok(Err(StoreRejection::Count)) => Err(Problem::Denied(format!(
                "this image has {} signatures already, and clients fail beyond; remove one first",
                self.limits.signatures_per_digest
            ))),
            Ok(Err(StoreRejection::Size)) => Err(Problem::Denied(
                "with this signature the image would have more than clients read in one list (4 MiB)".to_owned(),
            )),
            Err(error) => {
                tracing::error!(set = %address, error = %error, "cannot write to the store");
                Err(store_problem(&error))
            }
        }
    }

    /// The part that takes computing time.
    fn judge(&self, record: &Record, message: &Bytes) -> Result<(), Problem> {
        let (repository, digest, called) = (record.repository.as_str(), &record.digest, record.called.as_deref());
        let gate = self.gate.as_ref();
        let count = |verdict| metrics::GATE_VERDICTS.inc(verdict);
        let claim = match gate {
            Some(gate) if !gate.reads_claims(repository) => None,
            _ => Some(self.claim(digest, message).inspect_err(|_| count(GateVerdict::Invalid))?),
        };
        let upload = Upload { repository, called, digest, message, claim: claim.as_ref() };
        let admitted = gate.map_or(Ok(()), |gate| gate.admit(&upload));
        count(match &admitted {
            Ok(()) => GateVerdict::Admitted,
            Err(NotAdmitted::Denied(_)) => GateVerdict::Denied,
            Err(NotAdmitted::Unavailable(_)) => GateVerdict::Unavailable,
        });
        admitted.map_err(|refusal| match refusal {
            NotAdmitted::Denied(reason) => Problem::Denied(reason),
            NotAdmitted::Unavailable(reason) => {
                tracing::error!(registry = %self.registry, repository, %digest, reason, "the upload gate cannot judge");
                Problem::Gate
            }
        })
    }

    fn claim(&self, digest: &Digest, message: &[u8]) -> Result<Claim, Problem> {
        let claim = (self.claims)(message).map_err(|error| Problem::Invalid(error.to_string()))?;
        if claim.digest != *digest {
            return Err(Problem::Invalid(format!("the signature is for {}, not for {digest}", claim.digest)));
        }
        Ok(claim)
    }
}

/// Turns a store's failure into what the caller is told.
pub(super) fn store_problem(error: &StoreError) -> Problem {
    match error {
        // Another process was faster, or the limit is set higher than clients read.
        StoreError::Full { .. } | StoreError::TooMany { .. } => Problem::Denied(error.to_string()),
        // Its own words name places on our disk.
        StoreError::Unwritable { .. } => Problem::Denied(
            "the store has no place under this name: it is too long, or something else is in its way".to_owned(),
        ),
        error if error.is_unavailable() => Problem::unread(error, ErrorFormat::Registry),
        _ => Problem::Internal,
    }
}
