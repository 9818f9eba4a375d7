//! What the server's unit tests share: a store with faults, an upstream of our own making, a
//! running server and a client.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{HttpOrigin, ServerConfig};
use crate::image::Digest;
use crate::registry::http::{BoxError, HttpClient, RequestBody, empty, full};
use crate::registry::{RegistryClient, RegistryOptions};
use crate::server::reads::set_cache::Backend;
use crate::server::{App, ClaimReader, Listener, RegistryTools, UploadGate, serve};
use crate::signature::Claim;
use crate::store::{Appended, Removed, SetAddress, Store, StoreError, StorePath, StoredSignature};

/// A store in memory that fails and waits on command.
#[derive(Clone)]
pub(super) struct FaultyStore(Arc<Faults>);

struct Faults {
    store: Store,
    failing: AtomicBool,
    panicking: AtomicBool,
    failing_walks: AtomicBool,
    reads: AtomicUsize,
    walks: AtomicUsize,
    gate: Mutex<Option<Gate>>,
    foreign: Mutex<Vec<StoredSignature>>,
}

impl Default for FaultyStore {
    fn default() -> Self {
        Self(Arc::new(Faults {
            store: Store::memory(),
            failing: AtomicBool::default(),
            panicking: AtomicBool::default(),
            failing_walks: AtomicBool::default(),
            reads: AtomicUsize::default(),
            walks: AtomicUsize::default(),
            gate: Mutex::default(),
            foreign: Mutex::default(),
        }))
    }
}

/// Holds one read back, after it has read.
#[derive(Clone)]
pub(super) struct Gate {
    reached: Arc<Semaphore>,
    opened: Arc<Semaphore>,
}

impl Gate {
    pub(super) async fn reached(&self) {
        self.reached.acquire().await.unwrap().forget();
    }

    pub(super) fn open(&self) {
        self.opened.add_permits(1);
    }
}

impl FaultyStore {
    pub(super) fn fail(&self, yes: bool) {
        self.0.failing.store(yes, Ordering::SeqCst);
    }

    pub(super) fn panic(&self, yes: bool) {
        self.0.panicking.store(yes, Ordering::SeqCst);
    }

    pub(super) fn fail_walks(&self, yes: bool) {
        self.0.failing_walks.store(yes, Ordering::SeqCst);
    }

    pub(super) fn reads(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }

    pub(super) fn walks(&self) -> usize {
        self.0.walks.load(Ordering::SeqCst)
    }

    pub(super) fn hold_next_read(&self) -> Gate {
        let gate = Gate { reached: Arc::new(Semaphore::new(0)), opened: Arc::new(Semaphore::new(0)) };
        *self.0.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    pub(super) async fn put<B: AsRef<[u8]>>(&self, set: &SetAddress, blobs: &[B]) {
        for blob in blobs {
            self.0.store.append(set, blob.as_ref()).await.unwrap();
        }
    }

    /// Puts what only another tool would write behind every set.
    pub(super) fn lay(&self, blobs: impl IntoIterator<Item = String>) {
        let numbered = (1u32..).zip(blobs);
        let signatures = numbered.map(|(number, blob)| StoredSignature { number, bytes: blob.into() });
        self.0.foreign.lock().unwrap().extend(signatures);
    }

    pub(super) async fn stored(&self, set: &SetAddress) -> Vec<Bytes> {
        self.0.store.signatures(set).await.unwrap().into_iter().map(|s| s.bytes).collect()
    }

    fn fault() -> StoreError {
        StoreError::Unavailable { doing: "test".to_owned(), reason: "ordered to fail".to_owned() }
    }
}

impl Backend for FaultyStore {
    fn signatures<'a>(&'a self, set: &'a SetAddress) -> BoxFuture<'a, Result<Vec<StoredSignature>, StoreError>> {
        Box::pin(async move {
            self.0.reads.fetch_add(1, Ordering::SeqCst);
            assert!(!self.0.panicking.load(Ordering::SeqCst), "ordered to panic");
            if self.0.failing.load(Ordering::SeqCst) {
                return Err(Self::fault());
            }
            let mut read = self.0.store.signatures(set).await;
            if let Ok(read) = &mut read {
                read.extend(self.0.foreign.lock().unwrap().iter().cloned());
            }
            let gate = self.0.gate.lock().unwrap().take();
            if let Some(gate) = gate {
                gate.reached.add_permits(1);
                gate.opened.acquire().await.unwrap().forget();
            }
            read
        })
    }

    fn append<'a>(&'a self, set: &'a SetAddress, bytes: &'a [u8]) -> BoxFuture<'a, Result<Appended, StoreError>> {
        Box::pin(async move {
            if self.0.failing.load(Ordering::SeqCst) {
                return Err(Self::fault());
            }
            self.0.store.append(set, bytes).await
        })
    }

    fn remove<'a>(&'a self, set: &'a SetAddress, signature: &'a Digest) -> BoxFuture<'a, Result<Removed, StoreError>> {
        Box::pin(async move {
            if self.0.failing.load(Ordering::SeqCst) {
                return Err(Self::fault());
            }
            self.0.store.remove(set, signature).await
        })
    }

    fn walk(&self) -> BoxStream<'_, Result<SetAddress, StoreError>> {
        self.0.walks.fetch_add(1, Ordering::SeqCst);
        if self.0.failing_walks.load(Ordering::SeqCst) {
            return futures_util::stream::iter([Err(Self::fault())]).boxed();
        }
        self.0.store.walk(&StorePath::root())
    }
}

pub(super) type FakeBody = UnsyncBoxBody<Bytes, BoxError>;

/// What the fake upstream was asked.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
}

/// An upstream of our own making on loopback.
pub(super) struct Fake {
    pub(super) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: DropGuard,
}

impl Fake {
    pub(super) async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<FakeBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let stop = CancellationToken::new();
        let (noted, token) = (seen.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = token.cancelled() => return,
                };
                let (handler, noted) = (handler.clone(), noted.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        noted.lock().unwrap().push(Seen {
                            method: request.method().clone(),
                            target: request.uri().to_string(),
                            headers: request.headers().clone(),
                        });
                        let answer = handler(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { addr, seen, _stop: stop.drop_guard() }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn asked(&self, method: &Method) -> usize {
        self.seen().iter().filter(|seen| seen.method == *method).count()
    }
}

pub(super) fn respond(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<FakeBody> {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(full(body)).unwrap()
}

/// A registry that grants everything that has an `Authorization`, and knows every manifest.
pub(super) async fn registry(request: Request<Incoming>) -> Response<FakeBody> {
    if !request.headers().contains_key("authorization") {
        return respond(401, &[("www-authenticate", "Basic realm=\"r\"")], "");
    }
    match *request.method() {
        Method::POST => respond(202, &[("location", "/v2/x/blobs/uploads/1?_state=a%3D")], ""),
        Method::DELETE => respond(204, &[], ""),
        _ => respond(200, &[], ""),
    }
}

/// A running server.
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    pub(super) store: FaultyStore,
    pub(super) shutdown: CancellationToken,
    pub(super) ended: tokio::task::JoinHandle<()>,
    http: HttpClient,
}

pub(super) fn http_client() -> HttpClient {
    HttpClient::new(rustls::RootCertStore::empty(), false).unwrap()
}

pub(super) fn config(upstream: Option<SocketAddr>) -> ServerConfig {
    ServerConfig {
        upstream: upstream.map(|addr| HttpOrigin::parse(&format!("http://{addr}")).unwrap()),
        ..ServerConfig::default()
    }
}

/// A claim reader for messages such as `\xa3sha256:…`; everything else is broken.
pub(super) fn claims() -> ClaimReader {
    Arc::new(|message| {
        let text = message.strip_prefix(b"\xa3").and_then(|m| std::str::from_utf8(m).ok());
        let digest = text.and_then(|t| t.split(' ').next()).and_then(|t| Digest::parse(t).ok());
        let digest = digest.ok_or_else(|| "no OpenPGP message".to_owned())?;
        Ok(Claim { reference: "x".to_owned(), digest, creator: None, timestamp: None })
    })
}

impl Server {
    pub(super) async fn start(config: &ServerConfig, gate: Option<Arc<dyn UploadGate>>) -> Self {
        Self::over(FaultyStore::default(), config, gate).await
    }

    /// Starts another server over the same store, which remembers nothing.
    pub(super) async fn again(self, config: &ServerConfig) -> Self {
        Self::over(self.store.clone(), config, None).await
    }

    /// Starts another server beside `first`, over the same store.
    pub(super) async fn beside(first: &Self, config: &ServerConfig) -> Self {
        Self::over(first.store.clone(), config, None).await
    }

    async fn over(store: FaultyStore, config: &ServerConfig, gate: Option<Arc<dyn UploadGate>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let app = App::over(config, Arc::new(store.clone()), claims(), |site| {
            let source = site.settings.credentials.as_ref().map(|own| own.source().unwrap());
            let credentials = source
                .map(|credentials| RegistryClient::new(RegistryOptions { credentials, ..RegistryOptions::default() }));
            Ok::<_, Infallible>(RegistryTools { http: http_client(), gate: gate.clone(), credentials })
        });
        let Ok(app) = app;
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let ended = tokio::spawn(async move { serve(vec![Listener::plain(listener)], app, token).await.unwrap() });
        Self { addr, store, shutdown, ended, http: http_client() }
    }

    /// Stops it, and waits for its end.
    pub(super) async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.ended).await.unwrap();
    }

    pub(super) async fn send(&self, request: Request<RequestBody>) -> Response<Incoming> {
        self.http.send(request).await.unwrap()
    }

    pub(super) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    /// Asks without a body, and reads the whole answer.
    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Told {
        let request = self.request(method, path, headers).body(empty()).unwrap();
        Told::read(self.send(request).await).await
    }

    /// Sends a body, and reads the whole answer.
    pub(super) async fn put(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Told {
        let request = self.request("PUT", path, headers).body(full(body)).unwrap();
        Told::read(self.send(request).await).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Told {
    pub(super) async fn read(answer: Response<Incoming>) -> Self {
        let (head, body) = answer.into_parts();
        Self { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The code of the registry error shape.
    pub(super) fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
