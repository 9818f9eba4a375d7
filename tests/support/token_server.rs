//! A token server for the real registry: signs what it grants, as docker's specification says.
//!
//! The user gets what is asked for; nobody in particular may pull below `public/`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::docker_registry::{DockerRegistry, Settings};

pub struct TokenServer {
    address: String,
    certificate: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
    life: Arc<AtomicU64>,
}

struct Signer {
    key: EcdsaKeyPair,
    certificate: String,
    basic: String,
    serial: AtomicUsize,
    asked: Arc<Mutex<Vec<String>>>,
    life: Arc<AtomicU64>,
}

/// The real registry takes a token that much longer than it says.
const LEEWAY: u64 = 60;

impl TokenServer {
    /// Starts one that knows one user; its thread ends with the process.
    pub fn start(user: &str, password: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["token.example".to_owned()]).unwrap().self_signed(&pair).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let certificate = dir.path().join("token.crt");
        std::fs::write(&certificate, made.pem()).unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let life = Arc::new(AtomicU64::new(300 + LEEWAY));
        let signer = Arc::new(Signer {
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der()).unwrap(),
            certificate: STANDARD.encode(made.der()),
            basic: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            serial: AtomicUsize::new(0),
            asked: asked.clone(),
            life: life.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let signer = signer.clone();
                std::thread::spawn(move || signer.serve(stream));
            }
        });
        Self { address, certificate, asked, life, _dir: dir }
    }

    /// Starts a registry that wants this server's tokens.
    pub fn registry(&self) -> DockerRegistry {
        Settings::default().token(&self.realm(), &self.certificate).start()
    }

    /// Starts a registry that wants this server's tokens, and names whichever host it is asked by as
    /// the place for them.
    pub fn autoredirecting_registry(&self) -> DockerRegistry {
        Settings::default().token(&self.realm(), &self.certificate).autoredirect().start()
    }

    /// From now on the registry takes tokens for so many seconds only, whatever they are said to live.
    pub fn shorten(&self, life: u64) {
        self.life.store(life, Ordering::SeqCst);
    }

    /// `http://127.0.0.1:port/token`.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The certificate of the key that signs its tokens.
    pub fn certificate(&self) -> &std::path::Path {
        &self.certificate
    }

    /// The targets of all requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Signer {
    fn serve(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        let mut buffer = [0; 4096];
        while !head.windows(4).any(|w| w == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push(target.clone());
        let authorization = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_owned())
        });
        let (status, body) = match authorization {
            Some(given) if given != self.basic => (
                "401 Unauthorized",
                serde_json::json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}),
            ),
            given => ("200 OK", serde_json::json!({"token": self.token(&target, given.is_some()), "expires_in": 300})),
        };
        let body = body.to_string();
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }

    fn token(&self, target: &str, known: bool) -> String {
        let url = url::Url::parse(&format!("http://x{target}")).unwrap();
        let mut access = Vec::new();
        for (_, scope) in url.query_pairs().filter(|(key, _)| key == "scope") {
            // The name may have a host with a port.
            let (kind, rest) = scope.split_once(':').unwrap();
            let (name, wanted) = rest.rsplit_once(':').unwrap();
            let actions: Vec<&str> = match (known, name.starts_with("public/")) {
                (true, _) => wanted.split(',').collect(),
                (false, true) => vec!["pull"],
                (false, false) => continue,
            };
            access.push(serde_json::json!({"type": kind, "name": name, "actions": actions}));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = serde_json::json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = serde_json::json!({
            "iss": "test", "sub": "", "aud": "test", "exp": now + self.life.load(Ordering::SeqCst) - LEEWAY, "nbf": now - 5, "iat": now,
            "jti": self.serial.fetch_add(1, Ordering::SeqCst).to_string(), "access": access,
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
