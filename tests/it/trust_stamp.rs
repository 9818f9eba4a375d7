//! The time stamp over a manifest, by an authority that is `openssl ts` behind a small web server.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::client::text;
use crate::support::notary::{Notary, NotaryServer};

/// Changes an answer on its way; gets the authority's folder, the question's file and the right answer.
type Change = fn(&Tsa, &Path, Vec<u8>) -> Vec<u8>;

/// A time stamping authority with a root certificate.
struct Tsa {
    dir: tempfile::TempDir,
}

impl Tsa {
    /// Makes one with keys of this kind, and a certificate of the same root for signing code.
    fn new(key: &[&str]) -> Self {
        Self::with_digest(key, "sha256")
    }

    /// The same; time stamps are signed with this digest.
    fn with_digest(key: &[&str], digest: &str) -> Self {
        let tsa = Self { dir: tempfile::tempdir().unwrap() };
        let config = "[tsa]\ndefault_tsa = t\n[t]\nserial = serial\nsigner_cert = tsa.crt\ncerts = ca.crt\n\
             signer_key = tsa.key\nsigner_digest = sha256\ndefault_policy = 1.2.3.4\ndigests = sha256\n\
             accuracy = secs:1\nordering = no\ntsa_name = yes\ness_cert_id_chain = no\ness_cert_id_alg = sha256\n\
             clock_precision_digits = 3\n\
             [usage]\nextendedKeyUsage = critical,timeStamping\nkeyUsage = digitalSignature\n\
             [code]\nextendedKeyUsage = critical,codeSigning\nkeyUsage = digitalSignature\n";
        let config = config.replace("signer_digest = sha256", &format!("signer_digest = {digest}"));
        std::fs::write(tsa.file("tsa.cnf"), config).unwrap();
        std::fs::write(tsa.file("serial"), "01\n").unwrap();
        let new = [&["req", "-nodes", "-days", "2", "-newkey"], key].concat();
        tsa.openssl(&[&new[..], &["-x509", "-subj", "/CN=tsa root", "-keyout", "ca.key", "-out", "ca.crt"]].concat());
        for (name, section) in [("tsa", "usage"), ("code", "code")] {
            let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
            tsa.openssl(&[&new[..], &["-subj", "/CN=tsa", "-keyout", &key, "-out", &request]].concat());
            let issue =
                ["x509", "-req", "-in", &request, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
            tsa.openssl(&[&issue[..], &["-extfile", "tsa.cnf", "-extensions", section, "-out", &certificate]].concat());
        }
        tsa
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, args: &[&str]) -> Output {
        let output = Command::new("openssl").current_dir(&self.dir).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn answer(&self, query: &Path) -> Vec<u8> {
        self.openssl(&["ts", "-reply", "-config", "tsa.cnf", "-queryfile", text(query), "-out", "answer.tsr"]);
        std::fs::read(self.file("answer.tsr")).unwrap()
    }

    /// Serves it; returns its address.
    fn serve(self: &Arc<Self>, change: Change) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/tsr", listener.local_addr().unwrap());
        let tsa = self.clone();
        let turn = Mutex::new(());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _turn = turn.lock().unwrap();
                let query = tsa.file("query.tsq");
                std::fs::write(&query, body(&mut stream)).unwrap();
                let answer = change(&tsa, &query, tsa.answer(&query));
                let _ =
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
                let _ = stream.write_all(&answer);
            }
        });
        url
    }
}

fn body(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..count]);
        let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
        assert!(head.contains("content-type: application/timestamp-query"), "{head}");
        let length: usize = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        if bytes.len() >= at + 4 + length {
            return bytes[at + 4..].to_vec();
        }
    }
}

fn fetch(from: &str, to: &Path, authority: &str, ca: &Path, gun: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["trust", "fetch", "--from", from, "--to", text(to), gun])
        .args(["--timestamp-authority", authority, "--timestamp-ca", text(ca)])
        .env("HOME", to)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), said)
}

fn openssl_verifies(manifest: &Path, stamp: &Path, tsa: &Tsa) -> bool {
    let verify =
        ["ts", "-verify", "-data", text(manifest), "-in", text(stamp), "-CAfile", "ca.crt", "-untrusted", "tsa.crt"];
    Command::new("openssl").current_dir(&tsa.dir).args(verify).output().unwrap().status.success()
}

#[test]
fn a_manifest_gets_a_time_stamp_that_openssl_verifies_and_that_outlives_a_newer_manifest() {
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    for gun in ["registry.example/a", "registry.example/b"] {
        notary.run(&["init", "-p", gun]);
    }
    let keys: [(&[&str], &str); 6] = [
        (&["rsa:3072"], "sha256"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "sha256"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "sha512"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"], "sha256"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"], "sha512"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"], "sha384"),
    ];
    for (key, digest) in keys {
        let tsa = Arc::new(Tsa::with_digest(key, digest));
        let url = tsa.serve(|_, _, answer| answer);
        let to = tempfile::tempdir().unwrap();
        let (code, said) = fetch(server.url(), to.path(), &url, &tsa.file("ca.crt"), "registry.example/a");
        assert_eq!(code, 0, "{key:?}: {said}");
        assert!(said.contains("time stamp: 20") && said.contains("CN=tsa"), "{said}");
        let (manifest, stamp) = (to.path().join("manifest.json"), to.path().join("manifest.json.tsr"));
        assert!(openssl_verifies(&manifest, &stamp, &tsa), "{key:?}");
        let first = std::fs::read(&stamp).unwrap();
        // Another repository makes another manifest; what the first stamp proves stays provable.
        let (code, said) = fetch(server.url(), to.path(), &url, &tsa.file("ca.crt"), "registry.example/b");
        assert_eq!(code, 0, "{said}");
        assert!(openssl_verifies(&manifest, &stamp, &tsa));
        let kept: Vec<PathBuf> = std::fs::read_dir(to.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| text(path).contains("/manifest-") && text(path).ends_with(".json"))
            .collect();
        // Each of the two, the newer one under both names.
        assert_eq!(kept.len(), 2);
        for kept in &kept {
            assert!(openssl_verifies(kept, Path::new(&format!("{}.tsr", text(kept))), &tsa));
        }
        let stamps: Vec<Vec<u8>> =
            kept.iter().map(|kept| std::fs::read(format!("{}.tsr", text(kept))).unwrap()).collect();
        assert!(stamps.contains(&first));
    }
}

/// The same time stamp, signed by the certificate for signing code.
fn by_code_signer(tsa: &Tsa, _: &Path, _: Vec<u8>) -> Vec<u8> {
    tsa.openssl(&["ts", "-reply", "-in", "answer.tsr", "-token_out", "-out", "token"]);
    tsa.openssl(&["cms", "-verify", "-noverify", "-inform", "DER", "-in", "token", "-out", "info"]);
    let kind = ["-econtent_type", "1.2.840.113549.1.9.16.1.4"];
    let sign =
        ["cms", "-sign", "-cades", "-binary", "-nodetach", "-in", "info", "-signer", "code.crt", "-inkey", "code.key"];
    tsa.openssl(&[&sign[..], &kind, &["-outform", "DER", "-out", "token"]].concat());
    let token = std::fs::read(tsa.file("token")).unwrap();
    let status = [0x30, 0x03, 0x02, 0x01, 0x00];
    let length = u16::try_from(status.len() + token.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82][..], &length, &status, &token].concat()
}

#[test]
fn a_time_stamp_that_proves_nothing_is_not_kept() {
    let server = NotaryServer::start();
    Notary::new(server.url()).run(&["init", "-p", "registry.example/a"]);
    let key: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let good = Arc::new(Tsa::new(key));
    let cases: [(&str, Change, &str); 7] = [
        ("own", |_, _, _| b"<html>".to_vec(), "cannot be read"),
        ("own", |_, _, answer| answer[..answer.len() - 9].to_vec(), "cannot be read"),
        (
            "own",
            |_, _, mut answer| {
                // The last byte of the signature.
                *answer.last_mut().unwrap() ^= 1;
                answer
            },
            "the signature does not verify",
        ),
        (
            "own",
            |tsa, _, _| {
                std::fs::write(tsa.file("other"), "other bytes").unwrap();
                tsa.openssl(&["ts", "-query", "-data", "other", "-sha256", "-cert", "-out", "other.tsq"]);
                tsa.answer(&tsa.file("other.tsq"))
            },
            "the time stamp is for other bytes",
        ),
        (
            "own",
            |_, _, _| {
                // PKIStatus 2, rejection.
                vec![0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02]
            },
            "refuses: status 2",
        ),
        ("own", by_code_signer, "not marked as one for time stamps only"),
        ("good", |_, _, answer| answer, "is not trusted"),
    ];
    for (trusted, change, why) in cases {
        let tsa = Arc::new(Tsa::new(key));
        let url = tsa.serve(change);
        let to = tempfile::tempdir().unwrap();
        let ca = if trusted == "own" { tsa.file("ca.crt") } else { good.file("ca.crt") };
        let (code, said) = fetch(server.url(), to.path(), &url, &ca, "registry.example/a");
        assert_eq!(code, 1, "{why}: {said}");
        assert!(said.contains(why) && said.contains("1 complete"), "{why}: {said}");
        assert!(!to.path().join("manifest.json.tsr").exists(), "{why}");
        assert!(to.path().join("registry.example/a/_trust/tuf/root.json").is_file(), "what was fetched stays");
    }
    // A later command adds what the fetch could not get.
    let to = tempfile::tempdir().unwrap();
    let (code, said) =
        fetch(server.url(), to.path(), "http://127.0.0.1:9/", &good.file("ca.crt"), "registry.example/a");
    assert!(code == 1 && said.contains("countersign trust stamp"), "{said}");
    let stamp = |url: &str, ca: &Path| {
        Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["trust", "stamp", text(to.path()), "--timestamp-authority", url, "--timestamp-ca", text(ca)])
            .env("HOME", to.path())
            .output()
            .unwrap()
    };
    let url = good.serve(|_, _, answer| answer);
    let done = stamp(&url, &good.file("ca.crt"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(openssl_verifies(&to.path().join("manifest.json"), &to.path().join("manifest.json.tsr"), &good));
    assert_eq!(stamp(&url, &Tsa::new(key).file("ca.crt")).status.code(), Some(2));
    let to = tempfile::tempdir().unwrap();
    let (code, said) =
        fetch(server.url(), to.path(), "http://127.0.0.1:9/", &good.file("tsa.cnf"), "registry.example/a");
    assert_eq!((code, said.contains("holds no certificate")), (2, true), "{said}");
}
