//! One registry as its ping shows it: scheme, challenges, and whether it has the signature
//! extension (spec containers-image 3.1).

use http::{HeaderValue, Method, StatusCode};
use url::Url;

use super::challenge::{Challenge, challenges};
use super::client::{RegistryOptions, known_challenge};
use super::error::{ConnectError, Refusal, tame};
use super::fetch::{self, Answer, Exchange, FetchError};
use super::http::{HttpClient, HttpSetupError};
use super::patience::Patience;

/// The header by which a registry says that it has the signature extension.
pub const SUPPORTS_SIGNATURES: &str = "x-registry-supports-signatures";
pub(super) const API_VERSION: &str = "docker-distribution-api-version";
pub(super) const PING_LIMIT: usize = 1024 * 1024;

/// Tells whether the headers of a ping's answer announce the signature extension: the first
/// value must be exactly `1` (spec containers-image 3.1).
pub fn announces_signatures(headers: &http::HeaderMap) -> bool {
    headers.get(SUPPORTS_SIGNATURES).is_some_and(|value| value.as_bytes().trim_ascii() == b"1")
}

/// The answer to a ping, for those who want to know why a registry is used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// The URL that answered: `https://host:port/v2/`.
    pub url: String,
    /// Its status: 200 or 401, unless it was asked with credentials.
    pub status: u16,
    /// The value of [`SUPPORTS_SIGNATURES`]; the first, if there are several.
    pub announced: Option<String>,
    /// Whether that value announces the signature extension.
    pub signatures: bool,
    /// Why https was not used, if http was.
    pub failed: Vec<String>,
}

impl Ping {
    pub(super) fn of(url: &Url, answer: &Answer, failed: Vec<String>) -> Self {
        let announced = answer.headers.get(SUPPORTS_SIGNATURES);
        Self {
            url: url.to_string(),
            status: answer.status.as_u16(),
            announced: announced.map(|value| tame(&String::from_utf8_lossy(value.as_bytes()))),
            signatures: announces_signatures(&answer.headers),
            failed,
        }
    }
}

/// A registry that answered its ping.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) http: HttpClient,
    /// `https://host:port/`.
    base: Url,
    pub(super) challenges: Vec<Challenge>,
    pub(super) ping: Ping,
}

impl Connection {
    /// Loads the registry's certificates and pings it: https first, http only if that failed and
    /// the user said that it may be insecure.
    pub(super) async fn open(
        registry: &str,
        options: &RegistryOptions,
        user_agent: &HeaderValue,
    ) -> Result<Self, ConnectError> {
        // First of all, since the name becomes part of a path in certs.d.
        base("https", registry)?;
        let http = client(registry, options).await?;
        let mut reasons = Vec::new();
        for scheme in ["https", "http"] {
            if scheme == "http" && options.tls_verify {
                break;
            }
            let base = base(scheme, registry)?;
            match ping(&http, &base, options, user_agent).await {
                Ok(answer) => {
                    return Ok(Self {
                        http,
                        challenges: challenges(&answer.headers),
                        ping: Ping::of(&ping_url(&base), &answer, reasons),
                        base,
                    });
                }
                Err(reason) => reasons.push(reason),
            }
        }
        Err(ConnectError::Ping { registry: registry.to_owned(), reason: reasons.join("; ") })
    }

    /// Connects to `url`, `http(s)://host[:port]`, by that scheme only. Any response to the ping will do; only a
    /// 401 has challenges. A ping that fails in a way that may pass is repeated as `patience` allows.
    ///
    /// A redirect to another origin is an error: its challenges would decide where passwords go.
    pub(super) async fn open_at(
        url: &Url,
        options: &RegistryOptions,
        user_agent: &HeaderValue,
        mut patience: Patience,
    ) -> Result<Self, ConnectError> {
        let host = url.authority();
        let base = base(url.scheme(), host)?;
        let http = client(host, options).await?;
        let failed = |reason: String| ConnectError::Ping { registry: host.to_owned(), reason };
        let answer = loop {
            let wait = match fetch::exchange(&http, ping_exchange(&base, options, user_agent)).await {
                Ok(answer) => match patience.after(&answer) {
                    Some(wait) => wait,
                    None => break answer,
                },
                Err(error) => match patience.after_silence().filter(|_| error.is_passing()) {
                    Some(wait) => wait,
                    None => return Err(failed(error.to_string())),
                },
            };
            tokio::time::sleep(wait).await;
        };
        if answer.url.origin() != base.origin() {
            let to = answer.url.origin().ascii_serialization();
            return Err(failed(format!(
                "the server redirects its ping to {to}; if you trust that server, name it instead"
            )));
        }
        let challenges =
            if answer.status == StatusCode::UNAUTHORIZED { challenges(&answer.headers) } else { Vec::new() };
        Ok(Self { http, challenges, ping: Ping::of(&ping_url(&base), &answer, Vec::new()), base })
    }

    /// The same connection with the challenges of `answer`, if it is from this server and has some that we know.
    pub(super) fn with_challenges_of(&self, answer: &Answer) -> Option<Self> {
        let found = challenges(&answer.headers);
        let usable = answer.url.origin() == self.base.origin() && known_challenge(&found).is_some();
        usable.then(|| Self {
            http: self.http.clone(),
            base: self.base.clone(),
            challenges: found,
            ping: self.ping.clone(),
        })
    }

    /// Returns the URL of an absolute path with an optional query on this registry.
    pub(super) fn url(&self, path: &str) -> Result<Url, FetchError> {
        // Never `join(path)`: `//host/` would leave the registry.
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.base.clone();
        url.set_path(path);
        url.set_query(query);
        Ok(url)
    }

    pub(super) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }
}

pub(super) fn base(scheme: &str, registry: &str) -> Result<Url, ConnectError> {
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let wrong = || ConnectError::Name(registry.to_owned());
    if host.is_empty() || host == ".." || host.contains(['/', '@', '?', '#', '\\']) {
        return Err(wrong());
    }
    Url::parse(&format!("{scheme}://{host}/")).map_err(|_| wrong())
}

pub(super) async fn client(registry: &str, options: &RegistryOptions) -> Result<HttpClient, ConnectError> {
    let (directories, host) = (options.certs_d.clone(), registry.to_owned());
    // certs.d is a handful of small files, but still a disk.
    let (roots, insecure) = (options.roots.clone(), !options.tls_verify);
    let made = tokio::task::spawn_blocking(move || HttpClient::for_registry(&host, &directories, roots, insecure));
    match made.await {
        Ok(Ok(client)) => Ok(client.paced(options.pace.clone())),
        Ok(Err(HttpSetupError::Certificates(error))) => Err(ConnectError::Certificates(error.into())),
        Ok(Err(source)) => Err(ConnectError::Setup { registry: registry.to_owned(), source: source.into() }),
        Err(e) => Err(ConnectError::Ping { registry: registry.to_owned(), reason: e.to_string() }),
    }
}

/// The path of the ping.
pub(super) const PING_PATH: &str = "/v2/";

fn ping_url(base: &Url) -> Url {
    let mut url = base.clone();
    url.set_path(PING_PATH);
    url
}

fn ping_exchange(base: &Url, options: &RegistryOptions, user_agent: &HeaderValue) -> Exchange {
    let mut headers = fetch::headers(user_agent);
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    Exchange {
        method: Method::GET,
        url: ping_url(base),
        headers,
        body: None,
        limit: PING_LIMIT,
        timeout: options.timeout,
        keep_credentials: fetch::KeepCredentials::SameHost,
    }
}

async fn ping(
    http: &HttpClient,
    base: &Url,
    options: &RegistryOptions,
    user_agent: &HeaderValue,
) -> Result<Answer, String> {
    let answer = fetch::exchange(http, ping_exchange(base, options, user_agent)).await.map_err(|e| e.to_string())?;
    match answer.status {
        StatusCode::OK | StatusCode::UNAUTHORIZED => Ok(answer),
        _ => Err(format!("{}: {}", base.scheme(), Refusal::of(&answer))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_one_announces() {
        for (value, announced) in
            [("1", true), ("true", false), ("01", false), ("2", false), ("1,1", false), ("", false)]
        {
            let mut headers = http::HeaderMap::new();
            assert!(!announces_signatures(&headers));
            headers.append(SUPPORTS_SIGNATURES, value.parse().unwrap());
            assert_eq!(announces_signatures(&headers), announced, "{value}");
            headers.append(SUPPORTS_SIGNATURES, "1".parse().unwrap());
            assert_eq!(announces_signatures(&headers), announced, "{value}, then 1");
        }
    }

    #[test]
    fn names_become_addresses() {
        assert_eq!(base("https", "docker.io").unwrap().as_str(), "https://registry-1.docker.io/");
        assert_eq!(base("http", "[::1]:5000").unwrap().as_str(), "http://[::1]:5000/");
        for wrong in ["", "a/b", "u@h", "h?x", "h:port", "h#", "..", "../x", "/etc"] {
            assert!(base("https", wrong).is_err(), "{wrong}");
        }
    }
}
