//! The time stamp over a manifest: fetched, verified, kept beside it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use crate::registry::RegistryClient;
use crate::timestamp::{Request, Stamp};
use crate::trust::{Manifest, stamp_of, write};

/// Who puts the time stamp on, and by which certificates it is verified.
#[derive(Debug)]
pub struct Authority {
    url: Url,
    certificates: Vec<Vec<u8>>,
}

impl Authority {
    /// Reads the trusted certificates, before anything is fetched.
    pub fn open(url: &Url, file: &Path) -> anyhow::Result<Self> {
        let certificates = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("reading --timestamp-ca {}", file.display()))?;
        anyhow::ensure!(!certificates.is_empty(), "--timestamp-ca {} holds no certificate in PEM", file.display());
        let certificates = certificates.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Self { url: url.clone(), certificates })
    }

    /// Returns the time stamp of a manifest: the one that it has, if that is good, else a new one.
    pub async fn stamp(&self, client: &RegistryClient, manifest: &Manifest) -> anyhow::Result<(PathBuf, Stamp)> {
        let path = stamp_of(&manifest.path);
        if manifest.unchanged
            && let Ok(kept) = std::fs::read(&path)
            && let Ok(stamp) = Stamp::verify_kept(&kept, &manifest.sha256, &self.certificates)
        {
            return Ok((path, stamp));
        }
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        let request = Request::new(manifest.sha256, random);
        let answer = client.time_stamp(&self.url, request.to_der()).await;
        let answer =
            answer.with_context(|| format!("asking {} for a time stamp", crate::registry::redact(&self.url)))?;
        let stamp = Stamp::verify(&answer, &request, &self.certificates)?;
        write(&path, &answer)?;
        Ok((path, stamp))
    }
}
