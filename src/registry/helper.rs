//! Credential helpers: `docker-credential-X get`, bounded in time and output.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::secret::{Credential, Secret};

/// How long a helper may think; some ask the user or a cloud.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The most that a helper may say.
const OUTPUT_LIMIT: u64 = 64 * 1024;
/// What helpers print when they know nothing; exactly this text means "no credentials".
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Why a helper gave no credentials. Its output is never shown: it may hold the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    /// A name that would leave the search path.
    #[error("docker-credential-{0:?} is not a helper's name")]
    Name(String),
    /// No such program.
    #[error("docker-credential-{0} not found in $PATH")]
    Missing(String),
    /// The program could not be run or talked to.
    #[error("docker-credential-{name}: {reason}")]
    Run {
        /// The helper.
        name: String,
        /// What the system said.
        reason: String,
    },
    /// The program says that it failed.
    #[error("docker-credential-{name} get failed ({status}); run it by hand to see why")]
    Failed {
        /// The helper.
        name: String,
        /// Its exit status.
        status: String,
    },
    /// The program does not end.
    #[error("docker-credential-{name} did not answer within {} s", after.as_secs())]
    Timeout {
        /// The helper.
        name: String,
        /// The limit.
        after: Duration,
    },
    /// The answer is not the JSON that is due.
    #[error("docker-credential-{0} answered something else than credentials")]
    Answer(String),
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: Secret,
}

/// Asks `docker-credential-{name}`, found in `path`, for what it knows of `server`.
pub(super) async fn get(name: &str, server: &str, path: Option<&OsStr>) -> Result<Option<Credential>, HelperError> {
    let program = find(name, path)?;
    let run = |e: std::io::Error| HelperError::Run { name: name.to_owned(), reason: e.to_string() };
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(run)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        if let Some(mut stdin) = stdin {
            // A helper that does not read what it is asked may still answer.
            let _ = stdin.write_all(server.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
        let mut output = Zeroizing::new(Vec::new());
        if let Some(stdout) = stdout {
            stdout.take(OUTPUT_LIMIT).read_to_end(&mut output).await.map_err(run)?;
        }
        let status = child.wait().await.map_err(run)?;
        Ok((status, output))
    };
    let (status, output) = tokio::time::timeout(TIME_LIMIT, talk)
        .await
        .map_err(|_| HelperError::Timeout { name: name.to_owned(), after: TIME_LIMIT })??;
    if !status.success() {
        if String::from_utf8_lossy(&output).trim() == NOT_FOUND {
            return Ok(None);
        }
        return Err(HelperError::Failed { name: name.to_owned(), status: status.to_string() });
    }
    let answer: HelperAnswer = serde_json::from_slice(&output).map_err(|_| HelperError::Answer(name.to_owned()))?;
    if answer.username == "<token>" {
        return Ok(Some(Credential { identity_token: Some(answer.secret), ..Credential::default() }));
    }
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential { username: answer.username, password: answer.secret, identity_token: None }))
}

fn find(name: &str, path: Option<&OsStr>) -> Result<PathBuf, HelperError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(HelperError::Name(name.to_owned()));
    }
    std::env::split_paths(path.unwrap_or_default())
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(format!("docker-credential-{name}")))
        .find(|program| program.is_file())
        .ok_or_else(|| HelperError::Missing(name.to_owned()))
}
