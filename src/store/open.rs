//! From a location (`file:///dir`, `s3://bucket/prefix`, …) to an open store.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use url::Url;

use crate::host::HttpProxyRules;

use super::backend::Backend;
use super::error::StoreError;
use super::layout::StorePath;
use super::letter_case::{Folder, folds_case};
use super::local::LocalTree;
use super::objects::{ObjectTree, describe};
use super::signatures::Store;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Make a local directory that does not exist yet, and refuse one where upper and lower case are
    /// the same: for all that serves from it or writes to it.
    pub create: bool,
    /// Flush files and folders of a local store before an append is acknowledged.
    pub fsync: bool,
    /// The most bytes that are read of one set.
    pub read_limit: u64,
    /// Nobody waits for an answer: a failing cloud is asked again for a minute, not for seconds.
    pub patient: bool,
    /// Settings of a cloud store by the names of their environment variables
    /// (`AWS_ENDPOINT_URL_S3`, `AWS_SECRET_ACCESS_KEY`, …); they win over the environment.
    pub variables: BTreeMap<String, String>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { create: false, fsync: true, read_limit: 64 * 1024 * 1024, patient: false, variables: BTreeMap::new() }
    }
}

impl fmt::Debug for StoreOptions {
    /// Names the variables without their values: some are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("create", &self.create)
            .field("fsync", &self.fsync)
            .field("read_limit", &self.read_limit)
            .field("patient", &self.patient)
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Store {
    /// Opens a store: `file:///dir` or a bare directory, `s3://bucket/prefix`, `memory:`, and with
    /// the features of their names `gs://…` and `az://…`.
    ///
    /// Endpoint, region and credentials of a cloud store come from the usual environment
    /// variables; nothing is asked of it yet. A bucket must list in the order of keys (S3's
    /// directory buckets do not) and honour `If-None-Match: *`.
    ///
    /// # Errors
    /// [`StoreError::Location`], with what to do about it.
    pub async fn open(location: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let scheme = location.split_once(':').map(|(scheme, _)| scheme);
        let (backend, shown) = match scheme {
            Some("memory") => (memory(), "memory:".to_owned()),
            Some("file") => open_folder(location, file_path(location)?, options).await?,
            Some("s3") => cloud(location, |bucket| s3(bucket, options))?,
            Some("gs") => cloud(location, |bucket| google(bucket, options))?,
            Some("az") => cloud(location, |container| azure(container, options))?,
            _ if location.contains("://") => {
                let scheme = scheme.unwrap_or_default();
                let known = "file:///dir, a directory, s3://bucket/prefix, gs://…, az://… and memory:";
                return Err(StoreError::location(format!("{scheme}://…"), format!("a store is one of {known}")));
            }
            _ if location.is_empty() => return Err(StoreError::location("\"\"", "it is empty")),
            _ => open_folder(location, PathBuf::from(location), options).await?,
        };
        Ok(Self::new(backend, &shown, options.read_limit))
    }
}

fn memory() -> Backend {
    Backend::Objects(Arc::new(ObjectTree::new(Arc::new(object_store::memory::InMemory::new()), false)))
}

fn file_path(location: &str) -> Result<PathBuf, StoreError> {
    // A user and password have no place there, and least of all in an error.
    let rest = location.strip_prefix("file://").or_else(|| location.strip_prefix("file:")).unwrap_or(location);
    let shown = match rest.rsplit_once('@') {
        Some((before, after)) if !before.starts_with('/') => format!("file://xxxxx@{after}"),
        _ => location.to_owned(),
    };
    let wrong = |reason: &str| StoreError::location(shown.clone(), reason);
    let url = Url::parse(location).map_err(|error| StoreError::location(shown.clone(), error))?;
    if !location.starts_with("file:/") {
        return Err(wrong("a file URL is absolute: file:///dir"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("a file URL has no ? and no #; write %3F and %23 for them"));
    }
    url.to_file_path().map_err(|()| wrong("a file URL has no host: file:///dir"))
}

/// Why a folder is refused for writing and serving.
const FOLDS_CASE: &str = "its file system takes upper and lower case for the same, so that another spelling of a \
    repository's name would get past its access rules; put the store on a file system that tells them apart (an \
    ext4 folder does so without the attribute of `chattr +F`)";

async fn open_folder(location: &str, folder: PathBuf, options: &StoreOptions) -> Result<(Backend, String), StoreError> {
    let (create, fsync) = (options.create, options.fsync);
    let opened = tokio::task::spawn_blocking(move || {
        let tree = LocalTree::open(&folder, create, fsync)?;
        if create && folds_case(&Folder(tree.root())) == Some(true) {
            return Err(FOLDS_CASE.to_owned());
        }
        Ok(tree)
    })
    .await;
    let tree = opened
        .map_err(|stopped| stopped.to_string())
        .and_then(|tree| tree)
        .map_err(|reason| StoreError::location(location, reason))?;
    let shown = Url::from_file_path(tree.root()).map_or_else(|()| location.to_owned(), String::from);
    Ok((Backend::Local { tree: Arc::new(tree), here: false }, shown))
}

/// Takes a bucket's URL apart, and opens it by `build`.
fn cloud(
    location: &str,
    build: impl FnOnce(&str) -> Result<Arc<dyn ObjectStore>, String>,
) -> Result<(Backend, String), StoreError> {
    let url = Url::parse(location).map_err(|error| StoreError::location("the cloud store", error))?;
    let bucket = url.host_str().unwrap_or_default();
    // Without a host, what was meant for one stands in the path, keys and all.
    let path = if bucket.is_empty() { "…" } else { url.path().trim_end_matches('/') };
    let shown = format!("{}://{bucket}{path}", url.scheme());
    let wrong = |reason: &str| StoreError::location(shown.clone(), reason);
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("keys have no place in a store's location; put them into the environment"));
    }
    if bucket.is_empty() || url.port().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must have the form scheme://bucket/prefix; an endpoint is set in the environment"));
    }
    let prefix = StorePath::parse(url.path().trim_matches('/'))?;
    let store = build(bucket).map_err(|reason| wrong(&reason))?;
    let store: Arc<dyn ObjectStore> = if prefix.is_empty() {
        store
    } else {
        let prefix = ObjectPath::parse(prefix.as_str()).map_err(|error| wrong(&error.to_string()))?;
        Arc::new(PrefixStore::new(store, prefix))
    };
    Ok((Backend::Objects(Arc::new(ObjectTree::new(store, true))), shown))
}

/// A request must not wait for minutes, as object_store would by itself; a batch job may for one.
fn retries(options: &StoreOptions) -> RetryConfig {
    let (max_retries, seconds) = if options.patient { (8, 60) } else { (3, 10) };
    RetryConfig { max_retries, retry_timeout: Duration::from_secs(seconds), ..RetryConfig::default() }
}

const CONNECT_TIMEOUT: &str = "5 seconds";
const REQUEST_TIMEOUT: &str = "20 seconds";

fn s3(bucket: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    let client = AmazonS3ConfigKey::Client;
    let mut builder = AmazonS3Builder::new()
        .with_config(client(ClientConfigKey::ConnectTimeout), CONNECT_TIMEOUT)
        .with_config(client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    for (name, value) in settings("AWS_", options) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_retry(retries(options))
        // Creating without overwriting is what the store rests upon; it cannot be switched off.
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    let keys = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    if let Some(endpoint) = keys.iter().find_map(|key| builder.get_config_value(key)) {
        let url = Url::parse(&endpoint).map_err(|error| format!("the S3 endpoint is no URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the S3 endpoint must not hold a user or password; use AWS_ACCESS_KEY_ID".to_owned());
        }
        if url.scheme() == "http" {
            builder = builder.with_allow_http(true);
        }
    }
    if builder.get_config_value(&client(ClientConfigKey::ProxyUrl)).is_none() {
        let server = keys.iter().find_map(|key| builder.get_config_value(key));
        for (key, value) in proxy_settings(server.as_deref().unwrap_or("https://s3.amazonaws.com"))? {
            builder = builder.with_config(client(key), value);
        }
    }
    Ok(Arc::new(builder.build().map_err(|error| describe(&error))?))
}

/// The settings by which object_store uses the proxy that Go's rules choose for `server`, and no other: by itself it
/// reads the environment in its own way.
fn proxy_settings(server: &str) -> Result<[(ClientConfigKey, String); 2], String> {
    let url = Url::parse(server).map_err(|error| format!("the address of the bucket's server is no URL: {error}"))?;
    let proxy = HttpProxyRules::of_process().proxy_for(&url).map_err(|error| error.to_string())?;
    let (address, excluded) = match proxy {
        Some(proxy) => {
            let mut address = Url::parse(&proxy.to_string()).map_err(|error| error.to_string())?;
            if let Some((user, password)) = proxy.credentials() {
                // Both fail only for URLs without a host, which a proxy's has.
                let _ = address.set_username(user);
                let _ = address.set_password(Some(password));
            }
            (String::from(address), String::new())
        }
        // Everything is excluded from a proxy that is never used, and so no other is looked for.
        None => ("http://127.0.0.1:9".to_owned(), "*,0.0.0.0/0,::/0".to_owned()),
    };
    Ok([(ClientConfigKey::ProxyUrl, address), (ClientConfigKey::ProxyExcludes, excluded)])
}

/// The environment, and over it what the options say. Empty values count as unset.
fn settings(prefix: &str, options: &StoreOptions) -> Vec<(String, String)> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(prefix) && !options.variables.contains_key(name));
    environment.chain(options.variables.clone()).filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(feature = "gcp")]
fn google(bucket: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    let client = GoogleConfigKey::Client;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_config(client(ClientConfigKey::ConnectTimeout), CONNECT_TIMEOUT)
        .with_config(client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    for (name, value) in settings("GOOGLE_", options) {
        if name == "GOOGLE_APPLICATION_CREDENTIALS" {
            builder = builder.with_application_credentials(value);
        } else if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    for (key, value) in proxy_settings("https://storage.googleapis.com")? {
        builder = builder.with_config(client(key), value);
    }
    let store =
        builder.with_bucket_name(bucket).with_retry(retries(options)).build().map_err(|error| describe(&error))?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "gcp"))]
fn google(_bucket: &str, _options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    Err("this build has no Google Cloud Storage; build with `--features gcp`".to_owned())
}

#[cfg(feature = "azure")]
fn azure(container: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    let client = AzureConfigKey::Client;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_config(client(ClientConfigKey::ConnectTimeout), CONNECT_TIMEOUT)
        .with_config(client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    for (name, value) in settings("AZURE_", options) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let server = builder.get_config_value(&AzureConfigKey::Endpoint);
    for (key, value) in proxy_settings(server.as_deref().unwrap_or("https://blob.core.windows.net"))? {
        builder = builder.with_config(client(key), value);
    }
    let store = builder
        .with_container_name(container)
        .with_retry(retries(options))
        .build()
        .map_err(|error| describe(&error))?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "azure"))]
fn azure(_container: &str, _options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    Err("this build has no Azure Blob Storage; build with `--features azure`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(location: &str, variables: &[(&str, &str)]) -> String {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = StoreOptions { variables, ..StoreOptions::default() };
        Store::open(location, &options).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_a_location_and_no_secret() {
        let said = refused("s3://key:geheim@bucket/p", &[]).await;
        assert!(said.contains("keys have no place") && !said.contains("geheim"), "{said}");
        let said = refused("s3://bucket/p", &[("AWS_ENDPOINT_URL_S3", "http://u:geheim@h")]).await;
        assert!(said.contains("must not hold a user") && !said.contains("geheim"), "{said}");
        for location in ["s3:key:geheim@bucket", "s3:///key:geheim@bucket", "file://u:geheim@host/x", "file:u:geheim@h"]
        {
            let said = refused(location, &[]).await;
            assert!(!said.contains("geheim"), "{said}");
        }
        assert!(refused("http://host/x", &[]).await.contains("a store is one of"));
        assert!(refused("ftp://u:geheim@host/x", &[]).await.contains("ftp://…"));
        assert!(refused("s3://bucket/a//b", &[]).await.contains("empty component"));
        assert!(refused("s3:///x", &[]).await.contains("scheme://bucket/prefix"));
        assert!(refused("s3://bucket:80/x", &[]).await.contains("scheme://bucket/prefix"));
        assert!(refused("", &[]).await.contains("empty"));
        assert!(refused("file://host/dir", &[]).await.contains("no host"));
        assert!(refused("file:dir", &[]).await.contains("absolute"));
        assert!(refused("/no/such/dir", &[]).await.contains("create it first"));
        #[cfg(not(feature = "gcp"))]
        assert!(refused("gs://bucket", &[]).await.contains("--features gcp"));
        #[cfg(not(feature = "azure"))]
        assert!(refused("az://container", &[]).await.contains("--features azure"));
        let secret = StoreOptions {
            variables: [("AWS_SECRET_ACCESS_KEY".to_owned(), "geheim".to_owned())].into(),
            ..StoreOptions::default()
        };
        assert!(!format!("{secret:?}").contains("geheim"));
    }

    #[tokio::test]
    async fn opens_folders() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("a b/c");
        let options = StoreOptions { create: true, ..StoreOptions::default() };
        let url = Url::from_file_path(&wanted).unwrap().to_string();
        let store = Store::open(&url, &options).await.unwrap();
        assert!(wanted.is_dir());
        assert!(store.location().ends_with("/a%20b/c"), "{}", store.location());
        Store::open(wanted.to_str().unwrap(), &StoreOptions::default()).await.unwrap();
        assert_eq!(Store::open("memory:", &options).await.unwrap().location(), "memory:");
        std::fs::write(folder.path().join("file"), "").unwrap();
        let file = folder.path().join("file");
        let error = Store::open(file.to_str().unwrap(), &options).await.unwrap_err().to_string();
        assert!(error.contains("it is a file"), "{error}");
    }

    #[tokio::test]
    async fn shows_where_a_bucket_is() {
        let options = StoreOptions::default();
        let store = Store::open("s3://bucket/some/prefix/", &options).await.unwrap();
        assert_eq!(store.location(), "s3://bucket/some/prefix");
        assert_eq!(format!("{store:?}"), "Store(\"s3://bucket/some/prefix\")");
    }
}
