//! A small web server of the test's own, for what no real program does on command.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Heard {
    pub method: String,
    pub path: String,
    pub headers: hyper::HeaderMap,
    pub body: Vec<u8>,
}

impl Heard {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An answer.
pub struct Said(Response<Full<Bytes>>);

impl Said {
    /// `404 Not Found` or another status line.
    pub fn new(status: &str) -> Self {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = status.split(' ').next().unwrap().parse().unwrap();
        Self(answer)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: hyper::header::HeaderName = name.parse().unwrap();
        self.0.headers_mut().insert(name, value.parse().unwrap());
        self
    }

    /// A header with bytes that are no text.
    #[allow(dead_code, reason = "benches have no use for it")]
    pub fn raw_header(mut self, name: &str, value: &[u8]) -> Self {
        let name: hyper::header::HeaderName = name.parse().unwrap();
        self.0.headers_mut().insert(name, hyper::header::HeaderValue::from_bytes(value).unwrap());
        self
    }

    pub fn body(mut self, bytes: &[u8]) -> Self {
        *self.0.body_mut() = Full::new(Bytes::copy_from_slice(bytes));
        self
    }
}

/// A running server on loopback; it stops when dropped.
pub struct Web {
    /// `127.0.0.1:port`.
    pub address: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Web {
    pub fn start(answer: impl Fn(&Heard) -> Said + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let (record, answer) = (heard.clone(), Arc::new(answer));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (record, answer) = (record.clone(), answer.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (record, answer) = (record.clone(), answer.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes().to_vec();
                        let path = parts.uri.path().to_owned();
                        let heard = Heard { method: parts.method.to_string(), path, headers: parts.headers, body };
                        let said = answer(&heard);
                        record.lock().unwrap().push(heard);
                        Ok::<_, hyper::Error>(said.0)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, heard, _runtime: runtime }
    }

    /// All requests so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}
