//! Where `podman login`, `skopeo login` and `docker login` keep credentials, read as
//! containers/image reads them: which files, in what order, and which key of a file applies.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::go;
use crate::image::Repository;

use super::helper::{self, HelperError};
use super::secret::{Credential, Secret};

/// The largest file that is read.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// What `docker login` calls Docker Hub.
const DOCKER_HUB_LEGACY: &str = "https://index.docker.io/v1/";

/// Why credentials cannot be told. Never shows a file's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there but cannot be read.
    #[error("reading credentials from {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is not JSON of its shape.
    #[error("unmarshaling JSON at {}: line {line}, column {column}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the parser stopped.
        line: usize,
        /// Where the parser stopped.
        column: usize,
    },
    /// An `auth` member that is not base64 of `user:password`.
    #[error("{}: \"auth\" of {key:?} is not base64 of user:password; log in again", path.display())]
    Auth {
        /// The file.
        path: PathBuf,
        /// The key in `auths`.
        key: String,
    },
    /// A credential helper failed.
    #[error("credentials of {server}: {source}")]
    Helper {
        /// What it was asked for.
        server: String,
        /// How it failed.
        source: HelperError,
    },
}

/// The credential files, in the order in which they are searched.
#[derive(Clone, Debug, Default)]
pub struct AuthFiles {
    files: Vec<PathBuf>,
    helper_path: Option<OsString>,
}

impl AuthFiles {
    /// Reads one file only, as `--authfile` does.
    pub fn only(path: impl Into<PathBuf>) -> Self {
        Self { files: vec![path.into()], helper_path: None }
    }

    /// Makes the search list of containers/image out of environment variables and the user's id.
    ///
    /// `$REGISTRY_AUTH_FILE` alone if set; else `${XDG_RUNTIME_DIR}/containers/auth.json` (or
    /// `/run/containers/<uid>/auth.json`), `${XDG_CONFIG_HOME:-~/.config}/containers/auth.json`,
    /// `${DOCKER_CONFIG:-~/.docker}/config.json`. Helpers are searched in `$PATH`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let helper_path = get("PATH");
        if let Some(file) = get("REGISTRY_AUTH_FILE") {
            return Self { files: vec![file.into()], helper_path };
        }
        let home = get("HOME").map(PathBuf::from);
        let runtime = get("XDG_RUNTIME_DIR")
            .map(|dir| PathBuf::from(dir).join("containers"))
            .unwrap_or_else(|| PathBuf::from("/run/containers").join(uid.to_string()));
        let config = get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".config")));
        let docker = get("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".docker")));
        let mut files = vec![runtime.join("auth.json")];
        files.extend(config.map(|dir| dir.join("containers/auth.json")));
        files.extend(docker.map(|dir| dir.join("config.json")));
        Self { files, helper_path }
    }

    /// Returns the files, in order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Finds the credentials for `repository`: the first file that knows any.
    ///
    /// # Errors
    /// [`CredentialsError`]; a missing file is none.
    pub async fn for_repository(&self, repository: &Repository) -> Result<Option<Credential>, CredentialsError> {
        self.lookup(repository.as_str(), repository.domain()).await
    }

    /// Finds the credentials for a whole registry, `host[:port]`.
    ///
    /// # Errors
    /// As [`AuthFiles::for_repository`].
    pub async fn for_registry(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        self.lookup(registry, registry).await
    }

    async fn lookup(&self, name: &str, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        for path in &self.files {
            let Some(file) = load(path).await? else { continue };
            if let Some(found) = self.in_file(path, &file, name, registry).await? {
                tracing::debug!(registry, file = %path.display(), "credentials found");
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn in_file(
        &self,
        path: &Path,
        file: &AuthFile,
        name: &str,
        registry: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
        // Helpers know registries only, and come first, as in containers/image.
        if let Some(helper) = file.helpers.as_ref().and_then(|helpers| helpers.get(registry)) {
            return self.ask(helper, registry).await;
        }
        if let Some(found) =
            file.entry(name, registry).map(|(key, entry)| entry.decode(path, key)).transpose()?.flatten()
        {
            return Ok(Some(found));
        }
        match file.store.as_deref().filter(|store| !store.is_empty()) {
            Some(store) => match self.ask(store, registry).await? {
                None if registry == "docker.io" => self.ask(store, DOCKER_HUB_LEGACY).await,
                found => Ok(found),
            },
            None => Ok(None),
        }
    }

    async fn ask(&self, name: &str, server: &str) -> Result<Option<Credential>, CredentialsError> {
        helper::get(name, server, self.helper_path.as_deref())
            .await
            .map_err(|source| CredentialsError::Helper { server: server.to_owned(), source })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthFile {
    auths: Option<BTreeMap<String, Option<AuthEntry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<Secret>,
    identitytoken: Option<Secret>,
}

impl AuthFile {
    /// The longest of `host/ns/repo`, `host/ns`, `host` that is a key; else a key that means the
    /// same registry in the older spellings (`https://host/v1/`).
    fn entry(&self, name: &str, registry: &str) -> Option<(&str, &AuthEntry)> {
        let auths = self.auths.as_ref()?;
        let mut key = name;
        loop {
            if let Some((key, Some(entry))) = auths.get_key_value(key) {
                return Some((key, entry));
            }
            match key.rsplit_once('/') {
                Some((parent, _)) => key = parent,
                None => break,
            }
        }
        let wanted = normal_registry(registry);
        auths
            .iter()
            .find(|(key, _)| normal_key(key) == wanted)
            .and_then(|(key, entry)| Some((key.as_str(), entry.as_ref()?)))
    }
}

impl AuthEntry {
    fn decode(&self, path: &Path, key: &str) -> Result<Option<Credential>, CredentialsError> {
        let malformed = || CredentialsError::Auth { path: path.to_owned(), key: key.to_owned() };
        let identity_token = self.identitytoken.clone().filter(|token| !token.is_empty());
        let auth = self.auth.as_ref().map(Secret::expose).unwrap_or_default();
        if auth.is_empty() {
            return Ok(identity_token.map(|token| Credential { identity_token: Some(token), ..Credential::default() }));
        }
        let decoded = Zeroizing::new(go::base64(auth.as_bytes()).map_err(|_| malformed())?);
        let text = std::str::from_utf8(&decoded).map_err(|_| malformed())?;
        let (username, password) = text.split_once(':').ok_or_else(malformed)?;
        let mut credential = Credential::new(username, password.trim_end_matches('\0'));
        credential.identity_token = identity_token;
        Ok(Some(credential))
    }
}

fn normal_registry(registry: &str) -> &str {
    match registry {
        "registry-1.docker.io" | "docker.io" => "index.docker.io",
        other => other,
    }
}

fn normal_key(key: &str) -> &str {
    let stripped = key.strip_prefix("http://").unwrap_or(key);
    let stripped = stripped.strip_prefix("https://").unwrap_or(stripped);
    let host = if stripped.len() == key.len() {
        stripped
    } else {
        stripped.split_once('/').map_or(stripped, |(host, _)| host)
    };
    normal_registry(host)
}

async fn load(path: &Path) -> Result<Option<AuthFile>, CredentialsError> {
    let unreadable = |reason: String| CredentialsError::Read { path: path.to_owned(), reason };
    let bytes = match read_bounded(path).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e.to_string())),
    };
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(unreadable(format!("larger than {FILE_LIMIT} bytes")));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        // `podman login` makes the file empty first.
        return Ok(None);
    }
    // serde_json's own text may quote the file, so only the place is told.
    let file = serde_json::from_slice(&bytes).map_err(|e| CredentialsError::Json {
        path: path.to_owned(),
        line: e.line(),
        column: e.column(),
    })?;
    Ok(Some(file))
}

async fn read_bounded(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    use tokio::io::AsyncReadExt as _;
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    fn environment(variables: &[(&str, &str)]) -> AuthFiles {
        AuthFiles::from_environment(
            |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()),
            1000,
        )
    }

    fn shown(files: &AuthFiles) -> Vec<&str> {
        files.files().iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn searches_where_podman_does() {
        assert_eq!(shown(&environment(&[])), ["/run/containers/1000/auth.json"]);
        assert_eq!(
            shown(&environment(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")])),
            ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
        assert_eq!(
            shown(&environment(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")])),
            ["/run/containers/1000/auth.json", "/c/containers/auth.json", "/d/config.json"]
        );
        assert_eq!(shown(&environment(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a")])), ["/a"]);
    }

    async fn find(json: &str, repository: &str) -> Result<Option<Credential>, CredentialsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, json).unwrap();
        AuthFiles::only(path).for_repository(&Repository::parse(repository).unwrap()).await
    }

    fn auth(user: &str, password: &str) -> String {
        STANDARD.encode(format!("{user}:{password}"))
    }

    #[tokio::test]
    async fn the_longest_key_wins() {
        let json = format!(
            r#"{{"auths":{{"h:5/a/b":{{"auth":"{}"}},"h:5/a":{{"auth":"{}"}},"h:5":{{"auth":"{}"}}}}}}"#,
            auth("repo", "1:2"),
            auth("ns", ""),
            auth("host", "p\0\0"),
        );
        for (repository, user, password) in
            [("h:5/a/b", "repo", "1:2"), ("h:5/a/c/d", "ns", ""), ("h:5/x", "host", "p")]
        {
            let found = find(&json, repository).await.unwrap().unwrap();
            assert_eq!((found.username.as_str(), found.password.expose()), (user, password), "{repository}");
        }
        assert_eq!(find(&json, "other/x").await, Ok(None));
        assert_eq!(find(&json, "h/x").await, Ok(None));
    }

    #[tokio::test]
    async fn old_spellings_and_tokens_are_known() {
        let json = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"http://h.example/v2/":{{"identitytoken":"t"}},"e.example":{{}},"n.example":null}}}}"#,
            auth("hub", "p")
        );
        assert_eq!(find(&json, "busybox").await.unwrap().unwrap().username, "hub");
        let token = find(&json, "h.example/x").await.unwrap().unwrap();
        assert_eq!(token.identity_token, Some(Secret::new("t")));
        assert_eq!(find(&json, "e.example/x").await, Ok(None));
        assert_eq!(find(&json, "n.example/x").await, Ok(None));
        assert_eq!(find("", "n.example/x").await, Ok(None));
        assert_eq!(find("{\"auths\":null}", "n.example/x").await, Ok(None));
        assert_eq!(AuthFiles::only("/nowhere/auth.json").for_registry("h").await, Ok(None));
    }

    #[tokio::test]
    async fn broken_files_are_named_and_not_quoted() {
        for json in [
            r#"{"auths":{"h.example":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"h.example":{"auth":"!secret!"}}}"#,
            r#"{"auths":"secret"}"#,
            r#"{"auths":{"h.example":"secret"}}"#,
            "secret",
        ] {
            let error = find(json, "h.example/x").await.unwrap_err().to_string();
            assert!(error.contains("auth.json") && !error.contains("secret") && !error.contains("c2Vj"), "{error}");
        }
    }

    #[tokio::test]
    async fn helpers_come_before_and_stores_after_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("docker-credential-fake");
        std::fs::write(
            &script,
            "#!/bin/sh\nread server\n[ \"$1\" = get ] || exit 3\ncase \"$server\" in\n\
             h.example) echo '{\"Username\":\"helped\",\"Secret\":\"s\"}';;\n\
             *v1/) echo '{\"Username\":\"<token>\",\"Secret\":\"hubtoken\"}';;\n\
             bad.example) echo boom-secret; exit 1;;\n\
             *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n",
        )
        .unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("config.json");
        let file_auth = auth("file", "p");
        std::fs::write(
            &path,
            format!(
                r#"{{"auths":{{"h.example":{{"auth":"{file_auth}"}},"f.example":{{"auth":"{file_auth}"}}}},
                "credHelpers":{{"h.example":"fake","bad.example":"fake","gone.example":"missing","up.example":"../x"}},
                "credsStore":"fake"}}"#
            ),
        )
        .unwrap();
        let files = AuthFiles {
            files: vec![path],
            helper_path: Some(format!("{}:/usr/bin:/bin", dir.path().display()).into()),
        };
        let user = async |registry: &str| files.for_registry(registry).await.map(|c| c.map(|c| c.username));
        assert_eq!(user("h.example").await, Ok(Some("helped".to_owned())));
        assert_eq!(user("f.example").await, Ok(Some("file".to_owned())));
        assert_eq!(user("unknown.example").await, Ok(None));
        let hub = files.for_registry("docker.io").await.unwrap().unwrap();
        assert_eq!(hub.identity_token, Some(Secret::new("hubtoken")));
        for registry in ["bad.example", "gone.example", "up.example"] {
            let error = user(registry).await.unwrap_err().to_string();
            assert!(error.contains("docker-credential-") && !error.contains("boom"), "{error}");
        }
    }
}
