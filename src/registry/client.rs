//! The client of container registries: one for all registries a program talks to. Here are its
//! options and the one way in which every call is authenticated and repeated.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Method, StatusCode};
use rustls::RootCertStore;

use crate::image::Repository;

use super::challenge::{Challenge, challenges};
use super::connection::{self, API_VERSION, Connection, PING_LIMIT, PING_PATH, Ping};
use super::credentials::{AuthFiles, CredentialsError};
use super::error::{CallError, ConnectError};
use super::fetch::{self, Answer, Exchange};
use super::lookaside::LookasideReader;
use super::pace::Pace;
use super::patience::{FIRST_DELAY, Patience, retry_after};
use super::secret::{Credential, basic};
use super::tls::system_roots;
use super::token::{TokenRequest, Tokens};

/// How long a ping's findings are kept, so that a long-lived program notices changes.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
const CREDENTIAL_LIFE: Duration = Duration::from_secs(60);

/// Where credentials come from.
#[derive(Clone, Debug, Default)]
pub enum CredentialSource {
    /// No credentials.
    #[default]
    Anonymous,
    /// These for every registry (`--creds`). Use only with a client for one registry.
    Fixed(Credential),
    /// The files that `podman login` writes.
    Files(AuthFiles),
}

/// How to talk to registries.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Whether certificates are checked. If not, plain http is tried where https fails.
    pub tls_verify: bool,
    /// Where credentials come from.
    pub credentials: CredentialSource,
    /// What we call ourselves.
    pub user_agent: String,
    /// The `certs.d` folders, most important first (spec containers-image 2.2); none by default.
    pub certs_d: Vec<std::path::PathBuf>,
    /// The authorities trusted besides those of `certs.d`.
    pub roots: RootCertStore,
    /// The time for one exchange, body and redirects included; its turn by `pace` not.
    pub timeout: Duration,
    /// How fast each host is asked.
    pub pace: Option<Pace>,
    /// Whether what may be a bad moment of a server's (5xx, a broken connection) is tried again,
    /// uploads of signatures included: for long jobs.
    pub patient: bool,
}

impl Default for RegistryOptions {
    /// TLS verified against the system's roots, no credentials, 60 s for an exchange.
    fn default() -> Self {
        Self {
            tls_verify: true,
            credentials: CredentialSource::default(),
            user_agent: concat!("countersign/", env!("CARGO_PKG_VERSION")).to_owned(),
            certs_d: Vec::new(),
            roots: system_roots(),
            timeout: Duration::from_secs(60),
            pace: None,
            patient: false,
        }
    }
}

/// A client of any number of registries. Cloning shares connections, tokens and credentials.
///
/// Each registry is pinged once (again after ten minutes); calls at the same time share the ping.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: RegistryOptions,
    pub(super) user_agent: HeaderValue,
    connections: moka::future::Cache<String, Arc<Connection>>,
    credentials: moka::future::Cache<String, Option<Arc<Credential>>>,
    pub(super) tokens: Tokens,
    first_delay: Duration,
}

/// What a call is about, which decides its token's scope and its credentials.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    Pull(&'a Repository),
    Push(&'a Repository),
    Catalog(&'a str),
    /// Reading a repository's trust data. Stored credentials are sent only if they are those of `registry`.
    Trust {
        server: &'a str,
        registry: Option<&'a str>,
        gun: &'a str,
    },
}

impl Scope<'_> {
    pub(super) fn registry(&self) -> &str {
        match self {
            Self::Pull(repository) | Self::Push(repository) => repository.domain(),
            Self::Catalog(registry) => registry,
            Self::Trust { server, .. } => server,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Pull(repository) => format!("repository:{}:pull", repository.path()),
            Self::Push(repository) => format!("repository:{}:pull,push", repository.path()),
            Self::Catalog(_) => "registry:catalog:*".to_owned(),
            Self::Trust { gun, .. } => format!("repository:{gun}:pull"),
        }
    }
}

/// One call to a registry.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// The absolute path, with its query.
    pub(super) path: &'a str,
    pub(super) scope: Scope<'a>,
    pub(super) accept: &'a [&'static str],
    pub(super) body: Option<Bytes>,
    /// The largest body of a good answer.
    pub(super) limit: usize,
}

impl RegistryClient {
    /// Makes a client; nothing is sent yet.
    pub fn new(options: RegistryOptions) -> Self {
        Self::with_first_delay(options, FIRST_DELAY)
    }

    /// For tests that cannot wait two seconds for a repeated 429.
    pub(super) fn with_first_delay(options: RegistryOptions, first_delay: Duration) -> Self {
        // A name that is no header value is replaced by ours rather than failing every call.
        let user_agent = HeaderValue::from_str(&options.user_agent).unwrap_or(HeaderValue::from_static("countersign"));
        let cache = |life| moka::future::Cache::builder().max_capacity(10_000).time_to_live(life);
        Self {
            shared: Arc::new(Shared {
                options,
                user_agent,
                connections: moka::future::Cache::builder().max_capacity(1_000).time_to_live(CONNECTION_LIFE).build(),
                credentials: cache(CREDENTIAL_LIFE).build(),
                tokens: Tokens::new(),
                first_delay,
            }),
        }
    }

    /// Pings `registry` (`host` or `host:port`) unless that was done already.
    ///
    /// # Errors
    /// [`ConnectError`], with containers/image's sentence.
    pub async fn ping(&self, registry: &str) -> Result<(), ConnectError> {
        self.connection(registry).await.map(drop)
    }

    /// Tells whether `registry` has the signature extension, and so whether lookasides count at
    /// all for its images (spec containers-image 3.2).
    ///
    /// # Errors
    /// [`ConnectError`] when the ping fails.
    pub async fn supports_signatures(&self, registry: &str) -> Result<bool, ConnectError> {
        Ok(self.connection(registry).await?.ping.signatures)
    }

    /// Returns what `registry` answered to the ping.
    ///
    /// # Errors
    /// [`ConnectError`] when the ping fails.
    pub async fn pinged(&self, registry: &str) -> Result<Ping, ConnectError> {
        Ok(self.connection(registry).await?.ping.clone())
    }

    /// Pings once more with the credentials for pulling from `repository`. No client does so; it
    /// shows what a registry tells those whom it knows.
    ///
    /// # Errors
    /// [`CallError`] when there is no answer or no token; every answer is one.
    pub async fn ping_with_credentials(&self, repository: &Repository) -> Result<Ping, CallError> {
        let connection = self.connection(repository.domain()).await.map_err(|e| CallError::Connect(e.into()))?;
        let call = Call {
            method: Method::GET,
            path: PING_PATH,
            scope: Scope::Pull(repository),
            accept: &[],
            body: None,
            limit: PING_LIMIT,
        };
        let answer = self.call(&connection, &call).await?;
        Ok(Ping::of(&connection.url(PING_PATH)?, &answer, Vec::new()))
    }

    /// Returns the reader of the http lookasides of `registry`'s images, which has that
    /// registry's TLS settings, as in containers/image; the registry must answer its ping.
    ///
    /// # Errors
    /// [`ConnectError`] when the ping fails.
    pub async fn lookaside(&self, registry: &str) -> Result<LookasideReader, ConnectError> {
        let connection = self.connection(registry).await?;
        Ok(LookasideReader::new(connection.http.clone(), self.shared.options.timeout))
    }

    pub(super) async fn connection(&self, registry: &str) -> Result<Arc<Connection>, ConnectError> {
        let open =
            async { Connection::open(registry, &self.shared.options, &self.shared.user_agent).await.map(Arc::new) };
        self.shared.connections.try_get_with(registry.to_owned(), open).await.map_err(|e| (*e).clone())
    }

    /// Returns the reader of a lookaside that belongs to no registry: `host[:port]`'s own TLS
    /// settings, nothing is pinged.
    ///
    /// # Errors
    /// [`ConnectError`] for certificates that cannot be used.
    pub async fn lookaside_alone(&self, host: &str) -> Result<LookasideReader, ConnectError> {
        connection::base("https", host)?;
        let http = connection::client(host, &self.shared.options).await?;
        Ok(LookasideReader::new(http, self.shared.options.timeout).patient(self.patience()))
    }

    /// The credentials for `host[:port]` itself.
    pub(super) async fn credential_of_host(&self, host: &str) -> Result<Option<Arc<Credential>>, CredentialsError> {
        self.credential(Scope::Catalog(host)).await
    }

    pub(super) fn checks_certificates(&self) -> bool {
        self.shared.options.tls_verify
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.shared.first_delay, self.shared.options.patient)
    }

    /// Tells whether an upload that failed may be made again.
    pub(super) fn is_patient(&self) -> bool {
        self.shared.options.patient
    }

    /// Calls, authenticates, and repeats: what patience allows (not with a body), a 401 once with
    /// a new token or with the scope that the registry asks for.
    pub(super) async fn call(&self, connection: &Connection, call: &Call<'_>) -> Result<Answer, CallError> {
        let credential = self.credential(call.scope).await?;
        let scopes = [call.scope.text()];
        let mut patience = self.patience();
        let mut renewed = false;
        loop {
            let (mut answer, from_cache) = match self.once(connection, call, &scopes, credential.as_deref()).await {
                Ok(answered) => answered,
                Err(CallError::Fetch(error)) if call.body.is_none() && error.is_passing() => {
                    let Some(wait) = patience.after_silence() else { return Err(error.into()) };
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Err(CallError::Token(error)) if call.body.is_none() && self.is_patient() => {
                    let Some(wait) = error.passing().and_then(|failure| patience.after_token_failure(failure)) else {
                        return Err(CallError::Token(error));
                    };
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if answer.status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                // A trust server never gets a token that permits more than reading this one repository.
                let wanted = if matches!(call.scope, Scope::Trust { .. }) { None } else { wanted_scope(&answer) };
                match wanted {
                    // Only without a body, as in containers/image: no server may count on more.
                    Some(more) if call.body.is_none() => {
                        let [own] = &scopes;
                        let both = [own.clone(), more];
                        (answer, _) = self.once(connection, call, &both, credential.as_deref()).await?;
                    }
                    Some(_) => {}
                    None if from_cache => {
                        self.forget(connection, &scopes, call, credential.as_deref()).await;
                        (answer, _) = self.once(connection, call, &scopes, credential.as_deref()).await?;
                    }
                    None => {}
                }
            }
            if call.body.is_some() {
                return Ok(answer);
            }
            let Some(wait) = patience.after(&answer) else { return Ok(answer) };
            self.slow_down(connection, &answer, wait).await;
        }
    }

    /// Waits before a call is made again; if the server named the time, all others wait, too.
    pub(super) async fn slow_down(&self, connection: &Connection, answer: &Answer, wait: Duration) {
        tracing::debug!(url = %connection.ping.url, status = %answer.status, ?wait, "the server asks to slow down");
        if let (Some(pace), Ok(url)) = (&self.shared.options.pace, connection.url(PING_PATH))
            && retry_after(answer, std::time::SystemTime::now()).is_some()
        {
            pace.hold(&url, wait);
        }
        tokio::time::sleep(wait).await;
    }

    async fn once(
        &self,
        connection: &Connection,
        call: &Call<'_>,
        scopes: &[String],
        credential: Option<&Credential>,
    ) -> Result<(Answer, bool), CallError> {
        let mut headers = fetch::headers(&self.shared.user_agent);
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        for accept in call.accept {
            headers.append(ACCEPT, HeaderValue::from_static(accept));
        }
        let url = connection.url(call.path)?;
        // Before the token is taken: it may not live as long as the queue is.
        fetch::turn(&connection.http, &url).await;
        let mut from_cache = false;
        if let Some(challenge) = known_challenge(&connection.challenges) {
            let is_trust = matches!(call.scope, Scope::Trust { .. });
            if is_trust && credential.is_some_and(Credential::is_secret) && !fetch::hides_passwords(&url) {
                return Err(CallError::PlainPassword { url: fetch::redact(&url) });
            }
            let authorization = if challenge.scheme() == "basic" {
                let empty = Credential::default();
                let credential = credential.unwrap_or(&empty);
                basic(credential.username.as_bytes(), credential.password.expose().as_bytes())
            } else {
                let request = self.token_request(connection, challenge, call, scopes, credential);
                let (token, known) = self.shared.tokens.get(&request).await.map_err(CallError::Token)?;
                from_cache = known;
                token
            };
            headers.insert(AUTHORIZATION, authorization);
        }
        let exchange = Exchange {
            method: call.method.clone(),
            url,
            headers,
            body: call.body.clone(),
            limit: call.limit,
            timeout: self.shared.options.timeout,
            keep_credentials: match call.scope {
                Scope::Trust { .. } => fetch::KeepCredentials::SameOrigin,
                _ => fetch::KeepCredentials::SameHost,
            },
        };
        Ok((fetch::exchange_in_turn(&connection.http, exchange).await?, from_cache))
    }

    fn token_request<'a>(
        &'a self,
        connection: &'a Connection,
        challenge: &'a Challenge,
        call: &'a Call<'a>,
        scopes: &'a [String],
        credential: Option<&'a Credential>,
    ) -> TokenRequest<'a> {
        TokenRequest {
            http: &connection.http,
            registry: call.scope.registry(),
            challenge,
            scopes,
            credential,
            user_agent: &self.shared.user_agent,
            timeout: self.shared.options.timeout,
            plain_allowed: match call.scope {
                // Only on this machine, and only if the server itself has no TLS either.
                Scope::Trust { .. } => {
                    let realm = challenge.parameter("realm").and_then(|realm| fetch::parse_url(realm).ok());
                    connection.is_plain() && realm.is_some_and(|realm| fetch::hides_passwords(&realm))
                }
                _ => connection.is_plain() || !self.shared.options.tls_verify,
            },
        }
    }

    async fn forget(
        &self,
        connection: &Connection,
        scopes: &[String],
        call: &Call<'_>,
        credential: Option<&Credential>,
    ) {
        if let Some(challenge) = known_challenge(&connection.challenges) {
            self.shared.tokens.forget(&self.token_request(connection, challenge, call, scopes, credential)).await;
        }
    }

    pub(super) async fn credential(&self, scope: Scope<'_>) -> Result<Option<Arc<Credential>>, CredentialsError> {
        let files = match &self.shared.options.credentials {
            CredentialSource::Anonymous => return Ok(None),
            CredentialSource::Fixed(credential) => return Ok(Some(Arc::new(credential.clone()))),
            CredentialSource::Files(files) => files,
        };
        let key = match scope {
            Scope::Pull(repository) | Scope::Push(repository) => repository.as_str(),
            Scope::Trust { registry: None, .. } => return Ok(None),
            Scope::Catalog(registry) | Scope::Trust { registry: Some(registry), .. } => registry,
        };
        let lookup = async {
            let found = match scope {
                Scope::Pull(repository) | Scope::Push(repository) => files.for_repository(repository).await,
                Scope::Catalog(_) | Scope::Trust { .. } => files.for_registry(key).await,
            };
            found.map(|credential| credential.map(Arc::new))
        };
        self.shared.credentials.try_get_with(key.to_owned(), lookup).await.map_err(|e| (*e).clone())
    }
}

/// The first challenge that we can answer, as containers/image chooses it.
pub(super) fn known_challenge(challenges: &[Challenge]) -> Option<&Challenge> {
    challenges.iter().find(|challenge| matches!(challenge.scheme(), "basic" | "bearer"))
}

/// The scope that a 401 with `error="insufficient_scope"` asks for: exactly three parts.
fn wanted_scope(answer: &Answer) -> Option<String> {
    challenges(&answer.headers)
        .iter()
        .filter(|challenge| challenge.scheme() == "bearer")
        .filter(|challenge| challenge.parameter("error") == Some("insufficient_scope"))
        .filter_map(|challenge| challenge.parameter("scope"))
        .find(|scope| scope.split(':').count() == 3)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_spelled_as_tokens_want_them() {
        let repository = Repository::parse("h.example:5000/a/b").unwrap();
        assert_eq!(Scope::Pull(&repository).text(), "repository:a/b:pull");
        assert_eq!(Scope::Push(&repository).text(), "repository:a/b:pull,push");
        assert_eq!(Scope::Catalog("h.example").text(), "registry:catalog:*");
    }
}
