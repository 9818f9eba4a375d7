//! Sigstore signatures that lie in the registry itself: the layers of the image that is tagged
//! `sha256-{hex}.sig` (spec containers-image 3.2, 6).

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::client::{Call, RegistryClient, Scope};
use super::connection::Connection;
use super::error::{CallError, Refusal, RegistryError};
use super::manifests::Selector;
use crate::image::{Digest, Repository, Tag};
use crate::signature::{BLOB_LIMIT, SigstoreAttachment};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How many attachments are read of one image; each costs a request.
const ATTACHMENT_LIMIT: usize = 128;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl RegistryClient {
    /// Reads the sigstore attachments of the manifest `digest`; none if the tag is not there.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::Attachment`] for an attachment that is malformed, or
    /// whose bytes have not the digest that its manifest says.
    pub async fn attachments(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<SigstoreAttachment>, RegistryError> {
        let failed = |reason: String| RegistryError::Attachment {
            digest: digest.clone(),
            repository: repository.to_string(),
            reason,
        };
        let tag = format!("{}-{}.sig", digest.algorithm().name(), digest.hex());
        let tag = Tag::parse(&tag).map_err(|e| failed(e.to_string()))?;
        let manifest = match self.manifest(repository, Selector::Tag(&tag)).await {
            Ok(manifest) => manifest,
            Err(e) if e.refusal().is_some_and(Refusal::is_manifest_unknown) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        if manifest.media_type != OCI_MANIFEST {
            let media_type = crate::go::quote(&manifest.media_type);
            return Err(failed(format!("unexpected MIME type for sigstore attachment manifest {tag}: {media_type}")));
        }
        let manifest: Manifest = serde_json::from_slice(&manifest.bytes).map_err(|e| failed(e.to_string()))?;
        if manifest.layers.len() > ATTACHMENT_LIMIT {
            return Err(failed(format!("more than {ATTACHMENT_LIMIT} attachments")));
        }
        let connection = self.connection(repository.domain()).await?;
        let mut found = Vec::with_capacity(manifest.layers.len());
        for layer in manifest.layers {
            let wanted = Digest::parse(&layer.digest).map_err(|e| failed(format!("{:?}: {e}", layer.digest)))?;
            let payload = self.small_blob(&connection, repository, &wanted).await.map_err(|e| failed(e.to_string()))?;
            if !wanted.matches(&payload) {
                return Err(failed(format!("the blob {wanted} has another digest")));
            }
            let annotations = layer.annotations.unwrap_or_default();
            found.push(SigstoreAttachment { mime_type: layer.media_type, payload, annotations });
        }
        Ok(found)
    }

    async fn small_blob(
        &self,
        connection: &Connection,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<u8>, CallError> {
        let path = format!("/v2/{}/blobs/{digest}", repository.path());
        let scope = Scope::Pull(repository);
        let call = Call { method: Method::GET, path: &path, scope, accept: &[], body: None, limit: BLOB_LIMIT };
        let answer = self.call(connection, &call).await?;
        if answer.status == StatusCode::OK { Ok(answer.body.to_vec()) } else { Err(Refusal::of(&answer).into()) }
    }
}
