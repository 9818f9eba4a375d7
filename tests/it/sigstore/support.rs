//! Makers of sigstore signatures, log entries and certificates.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::signature::{MIME_TYPE, SIGNATURE_ANNOTATION, SigstoreAttachment};
use rcgen::{CertificateParams, CustomExtension, Issuer, KeyPair, SigningKey as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub const REFERENCE: &str = "signed.example/birds/bluebird:build1";
/// When the tests play: 2026-01-01.
pub const NOW: i64 = 1_767_225_600;

pub fn at(unix: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix.try_into().unwrap())
}

pub fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/sigstore/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub fn payload() -> Vec<u8> {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(b"manifest")));
    json!({
        "critical": {
            "identity": { "docker-reference": REFERENCE },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

pub fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

/// Reads a stored signature, format line included.
pub fn stored(blob: &[u8]) -> SigstoreAttachment {
    match countersign::signature::classify(blob) {
        Ok(countersign::signature::BlobKind::SigstoreJson(json)) => SigstoreAttachment::parse(json).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A signature of `payload` by `key`, and nothing else.
pub fn signed(key: &KeyPair, payload: &[u8]) -> SigstoreAttachment {
    let signature = encode(&key.sign(payload).unwrap());
    let annotations = BTreeMap::from([(SIGNATURE_ANNOTATION.to_owned(), signature)]);
    SigstoreAttachment { mime_type: MIME_TYPE.to_owned(), payload: payload.to_vec(), annotations }
}

pub fn with(mut blob: SigstoreAttachment, name: &str, value: impl Into<String>) -> SigstoreAttachment {
    blob.annotations.insert(name.to_owned(), value.into());
    blob
}

/// The body of the log entry for `blob`, made by the holder of `maker` (a key or certificate).
pub fn body(blob: &SigstoreAttachment, maker: &str) -> Value {
    json!({
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": { "hash": { "algorithm": "sha256", "value": hex::encode(Sha256::digest(&blob.payload)) } },
            "signature": {
                "content": blob.annotations[SIGNATURE_ANNOTATION],
                "publicKey": { "content": encode(maker.as_bytes()) },
            },
        },
    })
}

/// The SET with which `log` vouches for `body`.
pub fn set(log: &KeyPair, body: &Value, time: i64) -> String {
    let body = encode(body.to_string().as_bytes());
    // Written by hand, as the log writes it, so that the code under test is not its own judge.
    let canonical =
        format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"c0d23d6ad406973f","logIndex":8949589}}"#);
    set_of(log, &canonical, &canonical)
}

/// A SET by `log` over the text `canonical`, that shows `entry` instead.
pub fn set_of(log: &KeyPair, canonical: &str, entry: &str) -> String {
    let timestamp = encode(&log.sign(canonical.as_bytes()).unwrap());
    format!(r#"{{"SignedEntryTimestamp":"{timestamp}","Payload":{entry}}}"#)
}

/// A certificate's parameters: valid an hour around [`NOW`].
pub fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let now = rcgen::date_time_ymd(2026, 1, 1);
    params.not_before = now - Duration::from_secs(1800);
    params.not_after = now + Duration::from_secs(1800);
    params
}

pub fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
}

/// A certificate authority: its key, its certificate, and what it needs to issue.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn root(params: CertificateParams) -> Self {
        let key = key();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn under(&self, params: CertificateParams) -> Self {
        let key = key();
        let pem = self.issue(&params, &key);
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, params: &CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &self.issuer).unwrap().pem()
    }
}

pub fn email(address: &str) -> rcgen::SanType {
    rcgen::SanType::Rfc822Name(address.try_into().unwrap())
}

pub fn host(name: &str) -> rcgen::SanType {
    rcgen::SanType::DnsName(name.try_into().unwrap())
}

const FULCIO: [u64; 8] = [1, 3, 6, 1, 4, 1, 57264, 1];

fn fulcio_extension(last: u64, value: Vec<u8>) -> CustomExtension {
    let oid: Vec<u64> = FULCIO.into_iter().chain([last]).collect();
    CustomExtension::from_oid_content(&oid, value)
}

pub fn issuer_v1(issuer: &str) -> CustomExtension {
    fulcio_extension(1, issuer.into())
}

pub fn issuer_v2(issuer: &str) -> CustomExtension {
    fulcio_extension(8, utf8(issuer))
}

pub fn issuer_v2_raw(value: &[u8]) -> CustomExtension {
    fulcio_extension(8, value.to_vec())
}

pub fn build_signer(uri: &str) -> CustomExtension {
    fulcio_extension(9, utf8(uri))
}

fn utf8(text: &str) -> Vec<u8> {
    [&[0x0c, text.len().try_into().unwrap()], text.as_bytes()].concat()
}
