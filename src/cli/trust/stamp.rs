//! The time stamp over a manifest: fetched, verified, kept beside it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use url::Url;

use crate::cli::host::{ConfigSearch, registry_options};
use crate::cli::output::{self, Answer, Format};
use crate::escape;
use crate::registry::RegistryClient;
use crate::timestamp::{Request, Stamp};
use crate::trust::{Manifest, keep_stamp, stamp_of, write_manifest};

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
        let path = keep_stamp(manifest, &answer)?;
        Ok((path, stamp))
    }
}

/// A time stamp, for machines.
#[derive(Debug, Serialize)]
pub struct StampReport {
    file: String,
    time: String,
    authority: String,
}

impl StampReport {
    pub fn new(file: &Path, stamp: Stamp) -> Self {
        Self { file: file.to_string_lossy().into_owned(), time: stamp.time.to_string(), authority: stamp.authority }
    }

    /// The same for people.
    pub fn line(&self) -> String {
        let (authority, file) = (escape::word(&self.authority), escape::path_word(Path::new(&self.file)));
        format!("time stamp: {} by {authority}, in {file}", self.time)
    }
}

const EXAMPLES: &str = "\
Examples:
  countersign trust stamp ./trust --timestamp-authority http://timestamp.example/tsr --timestamp-ca authority.pem
  openssl ts -verify -data ./trust/manifest.json -in ./trust/manifest.json.tsr -CAfile authority.pem

The command writes manifest.json anew, from the files in the folder. An older manifest with a time stamp stays beside
it, as manifest-HASH.json and manifest-HASH.json.tsr.

Exit codes: 0 the manifest has a verified time stamp; 2 it has none.";

/// Put a time stamp on a fetched folder: proof that its files existed before that time
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StampArgs {
    /// The folder that `trust fetch` wrote
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Time stamping authority (RFC 3161)
    #[arg(long, value_name = "URL")]
    timestamp_authority: Url,
    /// File with the certificates (PEM) by which to trust the time stamp
    #[arg(long, value_name = "FILE")]
    timestamp_ca: PathBuf,
}

#[derive(Debug, Serialize)]
struct Report {
    manifest: String,
    timestamp: StampReport,
}

impl StampArgs {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let authority = Authority::open(&self.timestamp_authority, &self.timestamp_ca)?;
        let folder =
            std::fs::canonicalize(&self.folder).with_context(|| format!("opening {}", self.folder.display()))?;
        let manifest = tokio::task::spawn_blocking(move || write_manifest(&folder)).await??;
        anyhow::ensure!(manifest.guns > 0, "{} holds no repository that `trust fetch` wrote", self.folder.display());
        let client = RegistryClient::new(registry_options(true, ConfigSearch::default()));
        let (file, stamp) = authority.stamp(&client, &manifest).await?;
        let timestamp = StampReport::new(&file, stamp);
        let lines = [format!("manifest: {}", escape::path_word(&manifest.path)), timestamp.line()];
        let manifest = manifest.path.to_string_lossy().into_owned();
        output::result(format, &lines, &Report { manifest, timestamp })?;
        Ok(true.into())
    }
}
