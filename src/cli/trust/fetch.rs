//! `countersign trust fetch`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use url::Url;

use super::progress::Progress;
use super::stamp::{Authority, StampReport};
use crate::cli::host::{ConfigSearch, registry_options};
use crate::cli::output::{self, Answer, Format};
use crate::escape;
use crate::registry::{Credential, CredentialSource, Pace, RegistryClient, RegistryOptions, TrustLogin};
use crate::trust::{
    FAILURES_LIMIT, Fetch, FetchOptions, Gun, GunError, GunRecord, Journal, State, Totals, guns_in_client_folder,
    guns_in_list, write_manifest,
};

/// Docker Hub's trust server. Names for it may be written as docker's users write them.
const DOCKER_HUB: &str = "notary.docker.io";
/// The wait before a file that should be there is asked for once more.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest list of names.
const LIST_LIMIT: u64 = 256 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  countersign trust fetch --from https://notary.docker.io --to ./trust docker.io/library/alpine you/app
  countersign trust fetch --from https://notary.docker.io --to ./trust --guns-from ~/.docker/trust
  countersign trust fetch --from https://you.azurecr.io --to ./trust --catalog you.azurecr.io \\
      --journal fetch.journal --rate 10

The folder has the layout that notary clients read from a web server: serve it as /v2/.
The login that `docker login` or `podman login` stored for a registry is sent to the trust server on the same host
(Docker Hub's to notary.docker.io). For a trust server on another host, name the login by --registry.
The signatures are not verified: what is broken or expired is copied, too.

Exit codes: 0 everything was copied; 1 something was not, and the output says what; 2 could not begin.";

/// Copy trust data from a trust server into a folder, byte for byte
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct FetchArgs {
    /// Repositories, by their full names (GUNs): docker.io/library/alpine
    #[arg(value_name = "GUN")]
    names: Vec<String>,
    /// File with one repository a line; - is standard input
    #[arg(long, value_name = "FILE")]
    guns: Option<PathBuf>,
    /// Folder of a docker or notary client (~/.docker/trust, ~/.notary) that knows the repositories; it is only read
    #[arg(long, value_name = "FOLDER")]
    guns_from: Option<PathBuf>,
    /// Registry, host[:port], all of whose repositories to ask for; it is asked with its own stored login
    #[arg(long, value_name = "HOST")]
    catalog: Option<String>,
    /// The trust server, http(s)://host[:port]
    #[arg(long, value_name = "URL")]
    from: Url,
    /// Registry, host[:port], whose stored login to use at the trust server, if it is another host
    #[arg(long, value_name = "HOST", conflicts_with = "username")]
    registry: Option<String>,
    /// Also copy the older versions of targets, snapshot and timestamp that the server still has
    #[arg(long)]
    history: bool,
    /// The folder to copy to; created if it does not exist
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// File that remembers which repositories are complete, so that the next run leaves them out
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Requests a second at most
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Repositories at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// How long one request may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// User at the trust server, instead of the stored credentials
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// File with the user's password; white space at its end does not count
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// File with further certificates (PEM) by which to trust the server
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Check the server's certificate
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    tls_verify: bool,
    /// Time stamping authority (RFC 3161) that puts a time stamp on the manifest
    #[arg(long, value_name = "URL", requires = "timestamp_ca")]
    timestamp_authority: Option<Url>,
    /// File with the certificates (PEM) by which to trust the time stamp
    #[arg(long, value_name = "FILE", requires = "timestamp_authority")]
    timestamp_ca: Option<PathBuf>,
}

/// What the command found, for machines.
#[derive(Debug, Serialize)]
struct Report<'a> {
    totals: Totals,
    /// Repositories that are not complete.
    repositories: &'a [GunRecord],
    /// Names from --guns-from and --catalog that cannot be requested, with the reason.
    left_out: &'a [String],
    manifest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<StampReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp_error: Option<String>,
}

impl FetchArgs {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        // Not shown: it holds a secret.
        anyhow::ensure!(
            self.from.username().is_empty() && self.from.password().is_none(),
            "--from must not contain a user or password; use --username and --password-file"
        );
        anyhow::ensure!(
            matches!(self.from.scheme(), "http" | "https")
                && matches!(self.from.path(), "" | "/")
                && self.from.query().is_none(),
            "--from {} must be http(s)://host[:port], without a path",
            crate::registry::redact(&self.from)
        );
        let authority = match (&self.timestamp_authority, &self.timestamp_ca) {
            (Some(url), Some(file)) => Some(Authority::open(url, file)?),
            _ => None,
        };
        let client = self.client(true)?;
        let (guns, left_out) = self.gather().await?;
        anyhow::ensure!(
            !guns.is_empty() || !left_out.is_empty(),
            "no repository is named: give names, --guns FILE, --guns-from FOLDER or --catalog HOST"
        );
        std::fs::create_dir_all(&self.to).with_context(|| format!("creating {}", self.to.display()))?;
        let to = std::fs::canonicalize(&self.to).with_context(|| format!("opening {}", self.to.display()))?;
        let server = client.trust_server(&self.from, TrustLogin::new(&self.from, self.registry.clone())).await?;
        let journal = self.journal.as_deref().map(|path| Journal::open(path, server.name(), &to)).transpose()?;
        let options = FetchOptions { pause: PAUSE, history: self.history };
        let fetch = Fetch { server, to, journal, jobs: self.jobs.into(), options, done: Arc::default() };
        let progress = Progress::start(fetch.done.clone(), guns.len() as u64);
        let mut lacking = Vec::new();
        let totals = fetch.run(guns, |mut record| {
            if record.state != State::Complete {
                if format == Format::Text {
                    output::talk_lines(&describe(&record));
                } else {
                    record.files.clear();
                    lacking.push(record);
                }
            }
        });
        let totals = totals.await?;
        drop(progress);
        let folder = fetch.to.clone();
        let manifest = tokio::task::spawn_blocking(move || write_manifest(&folder)).await??;
        let mut lines = vec![summary(&totals, left_out.len())];
        if totals.not_requested > 0 {
            lines.push(format!(
                "stopped after {FAILURES_LIMIT} repositories in a row failed; run the same command again when the \
                 server answers"
            ));
        }
        lines.push(format!("manifest: {}", escape::path_word(&manifest.path)));
        let (mut timestamp, mut timestamp_error) = (None, None);
        if let Some(authority) = authority {
            // What was fetched is reported also without a time stamp, which can be had later.
            match authority.stamp(&client, &manifest).await {
                Ok((file, stamp)) => {
                    let report = StampReport::new(&file, stamp);
                    lines.push(report.line());
                    timestamp = Some(report);
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    lines.push(format!("no time stamp: {}", escape::line(&reason)));
                    lines.push("try again with `countersign trust stamp`".to_owned());
                    timestamp_error = Some(reason);
                }
            }
        }
        let complete = totals.all_had() && left_out.is_empty() && timestamp_error.is_none();
        let manifest = manifest.path.to_string_lossy().into_owned();
        let (repositories, left_out) = (&*lacking, &*left_out);
        output::result(
            format,
            &lines,
            &Report { totals, repositories, left_out, manifest, timestamp, timestamp_error },
        )?;
        Ok(complete.into())
    }

    /// Makes a client. The credentials of the command line are for the trust server only.
    fn client(&self, for_trust_server: bool) -> anyhow::Result<RegistryClient> {
        let mut options = registry_options(self.tls_verify, ConfigSearch::default());
        if let Some(file) = &self.tls_ca {
            use rustls::pki_types::pem::PemObject as _;
            let certificates = rustls::pki_types::CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .with_context(|| format!("reading --tls-ca {}", file.display()))?;
            anyhow::ensure!(!certificates.is_empty(), "--tls-ca {} holds no certificate in PEM", file.display());
            options.roots.add_parsable_certificates(certificates);
        }
        // Where docker keeps the certificates of trust servers.
        let docker = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        options.certs_d.extend(docker.or(home).map(|folder| folder.join("tls")));
        if for_trust_server && let (Some(username), Some(file)) = (&self.username, &self.password_file) {
            let password = zeroize::Zeroizing::new(
                std::fs::read_to_string(file).with_context(|| format!("reading --password-file {}", file.display()))?,
            );
            let password = password.trim_end();
            anyhow::ensure!(!password.is_empty(), "--password-file {} is empty", file.display());
            options.credentials = CredentialSource::Fixed(Credential::new(username, password));
        }
        let pace = match self.rate {
            Some(rate) => {
                Pace::per_second(rate).with_context(|| format!("--rate must be at least {}", Pace::LOWEST_RATE))?
            }
            None => Pace::unlimited(),
        };
        let timeout = Duration::from_secs(self.timeout);
        Ok(RegistryClient::new(RegistryOptions { pace: Some(pace), patient: true, timeout, ..options }))
    }

    /// Gathers the names from everywhere, each once, and tells which names cannot be requested.
    async fn gather(&self) -> anyhow::Result<(Vec<Gun>, Vec<String>)> {
        let hub = self.from.host_str() == Some(DOCKER_HUB);
        let parse = |name: &str| -> Result<Gun, GunError> {
            if hub { Gun::parse_for_docker_hub(name) } else { Gun::parse(name) }
        };
        let (mut guns, mut left_out) = (Vec::new(), Vec::new());
        for name in &self.names {
            guns.push(parse(name)?);
        }
        if let Some(file) = &self.guns {
            guns.extend(guns_in_list(&read_list(file)?, parse).with_context(|| format!("--guns {}", file.display()))?);
        }
        if let Some(folder) = &self.guns_from {
            let (found, wrong) = guns_in_client_folder(folder)?;
            left_out.extend(wrong.iter().map(ToString::to_string));
            anyhow::ensure!(
                !found.is_empty() || !left_out.is_empty(),
                "--guns-from {} knows no repository",
                folder.display()
            );
            guns.extend(found);
        }
        if let Some(host) = &self.catalog {
            let repositories = self.client(false)?.catalog(host).await?;
            anyhow::ensure!(
                !repositories.is_empty(),
                "--catalog {host}: the registry lists no repository. Many registries list only what the login may \
                 read; log in with `docker login {host}`, or name the repositories by --guns"
            );
            for repository in repositories {
                match Gun::parse(repository.as_str()) {
                    Ok(gun) => guns.push(gun),
                    Err(error) => left_out.push(error.to_string()),
                }
            }
        }
        let mut seen = BTreeSet::new();
        guns.retain(|gun| seen.insert(gun.clone()));
        for reason in &left_out {
            output::talk(&format!("trust fetch: left out: {}", escape::line(reason)));
        }
        Ok((guns, left_out))
    }
}

fn read_list(file: &std::path::Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = if file == std::path::Path::new("-") {
        std::io::stdin().lock().take(LIST_LIMIT).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LIST_LIMIT).read_to_string(&mut text))
    };
    read.with_context(|| format!("reading --guns {}", file.display()))?;
    Ok(text)
}

fn summary(totals: &Totals, left_out: usize) -> String {
    let Totals { complete, already, incomplete, missing, forbidden, failed, not_requested } = *totals;
    let mut text = format!("{complete} complete");
    let rest = [
        (already, "complete before"),
        (incomplete, "incomplete"),
        (missing, "without trust data"),
        (forbidden, "forbidden"),
        (failed, "failed"),
        (not_requested, "not requested"),
        (left_out as u64, "left out"),
    ];
    for (count, what) in rest {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

/// Describes a repository that is not complete.
fn describe(record: &GunRecord) -> Vec<String> {
    let state = match record.state {
        State::Complete => "complete",
        State::Incomplete => "incomplete",
        State::Missing => "the server has no trust data",
        State::Forbidden => "not allowed",
        State::Failed => "failed",
    };
    let mut lines = vec![format!("{}: {state}", escape::word(&record.gun))];
    lines.extend(record.problems.iter().map(|problem| format!("  {}", escape::line(&problem.to_string()))));
    lines
}
