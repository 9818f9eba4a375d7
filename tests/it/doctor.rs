//! The doctor against a real registry and a running server, and against the real skopeo: what it
//! decides is what skopeo does.

mod advice;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::{DockerRegistry, Settings};
use crate::support::image::{DirImage, image, list};
use crate::support::keys::{self, GpgHome};
use crate::support::server::Server;

/// A registry with one image, a store, and a host whose registries.d leads to it.
struct Ward {
    registry: DockerRegistry,
    store: tempfile::TempDir,
    host: Host,
    image: DirImage,
    name: String,
}

impl Ward {
    fn new(settings: Settings) -> Self {
        let registry = settings.start();
        let gpg = GpgHome::with(&[]);
        let host = Host::new(gpg.path());
        let image = image(host.path(), "one", "one", "amd64");
        let name = format!("{}/birds/bluebird:build1", registry.address());
        push(&host, &image, &name, &[]);
        let store = tempfile::tempdir().unwrap();
        Self { registry, store, host, image, name }
    }

    fn sign(&self, name: &str, key: &str, digest: &str) {
        let store = text(self.store.path());
        let key = keys::secret(key);
        self.host.countersign(&["sign", name, "--key", text(&key), "--digest", digest, "--to", store]).accepted();
    }

    fn policy(&self, key: &str) -> PathBuf {
        self.host.signed_by_policy("policy.json", &keys::public(key))
    }

    fn registries_d(&self) -> PathBuf {
        self.host.path().join(".config/containers/registries.d")
    }

    /// Runs the doctor, and insists that skopeo comes to the same end.
    fn doctor(&self, name: &str, policy: &Path, extra: &[&str]) -> serde_json::Value {
        let folder = self.registries_d();
        let mut args = vec!["--format", "json", "doctor", name, "--tls-verify=false"];
        if !extra.contains(&"--platform") {
            args.extend(["--platform", "linux/amd64"]);
        }
        args.extend(["--policy", text(policy), "--registries-d", text(&folder)]);
        args.extend_from_slice(extra);
        let ran = self.host.countersign(&args);
        let report = json(&ran);
        assert_eq!(ran.code, Some(i32::from(report["decision"] != "accepted")), "{ran:?}");
        report
    }

    fn skopeo(&self, name: &str, policy: &Path, global: &[&str]) -> Ran {
        let out = tempfile::tempdir().unwrap();
        let folder = self.registries_d();
        let mut args = vec!["--policy", text(policy), "--registries.d", text(&folder), "--override-arch", "amd64"];
        args.extend_from_slice(global);
        let (from, to) = (format!("docker://{name}"), format!("dir:{}", text(out.path())));
        args.extend(["copy", "--src-tls-verify=false", &from, &to]);
        self.host.skopeo(&args)
    }

    fn agrees(&self, report: &serde_json::Value, name: &str, policy: &Path) {
        let ran = self.skopeo(name, policy, &[]);
        assert_eq!(ran.ok, report["decision"] == "accepted", "{report:#}\n{ran:#?}");
    }
}

fn push(host: &Host, image: &DirImage, name: &str, extra: &[&str]) {
    let (from, to) = (format!("dir:{}", text(&image.dir)), format!("docker://{name}"));
    let mut args = vec!["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"];
    args.extend_from_slice(extra);
    args.extend([from.as_str(), &to]);
    host.skopeo(&args).accepted();
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

fn ailments(report: &serde_json::Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap();
    let name = |finding: &serde_json::Value| {
        assert!(!finding["fix"].as_str().unwrap().is_empty() && !finding["sentence"].as_str().unwrap().is_empty());
        let note = if finding["severity"] == "note" { "note: " } else { "" };
        format!("{note}{}", finding["ailment"].as_str().unwrap())
    };
    findings.iter().map(name).collect()
}

fn steps(report: &serde_json::Value) -> Vec<(String, bool)> {
    let step = |s: &serde_json::Value| (s["step"].as_str().unwrap().to_owned(), s["ok"].as_bool().unwrap());
    report["steps"].as_array().unwrap().iter().map(step).collect()
}

fn fix(report: &serde_json::Value) -> &str {
    report["findings"][0]["fix"].as_str().unwrap()
}

#[test]
fn healthy_by_lookaside_and_by_extension() {
    let ward = Ward::new(Settings::default());
    let policy = ward.policy("alice");
    ward.sign(&ward.name, "alice", &ward.image.digest.to_string());
    let server = Server::start(&["--store", text(ward.store.path())]);
    ward.host.registries_d(ward.registry.address(), &server.url("/lookaside"), None);
    let report = ward.doctor(&ward.name, &policy, &[]);
    assert_eq!((&report["decision"], ailments(&report)), (&"accepted".into(), vec![]), "{report:#}");
    let names: Vec<String> =
        steps(&report).into_iter().map(|(name, ok)| if ok { name } else { format!("{name}!") }).collect();
    assert_eq!(
        names,
        ["policy", "registries.conf", "ping", "ping", "manifest", "lookaside", "lookaside", "signature", "decision"]
    );
    let walk: Vec<&serde_json::Value> =
        report["steps"].as_array().unwrap().iter().filter(|step| step["step"] == "lookaside").collect();
    assert!(walk[0]["request"].as_str().unwrap().starts_with("GET http://") && walk[1]["answer"] == "404", "{walk:?}");
    ward.agrees(&report, &ward.name, &policy);

    // The same store through the proxy: no configuration at the client at all.
    let proxy = Server::start(&["--upstream", &ward.registry.url(), "--store", text(ward.store.path())]);
    let through = format!("{}/birds/bluebird:build1", proxy.address);
    ward.sign(&through, "alice", &ward.image.digest.to_string());
    let report = ward.doctor(&through, &policy, &[]);
    assert_eq!((&report["decision"], ailments(&report)), (&"accepted".into(), vec![]), "{report:#}");
    assert!(steps(&report).contains(&("extension".to_owned(), true)));
    ward.agrees(&report, &through, &policy);
    let folder = ward.registries_d();
    let human = ["doctor", &through, "--tls-verify=false", "--policy", text(&policy), "--registries-d", text(&folder)];
    assert!(ward.host.countersign(&human).accepted().stdout.contains("Healthy: a client accepts the image"));
}

#[test]
fn keys_and_names_that_do_not_fit() {
    let ward = Ward::new(Settings::default());
    let server = Server::start(&["--store", text(ward.store.path())]);
    ward.host.registries_d(ward.registry.address(), &server.url("/lookaside"), None);
    ward.sign(&ward.name, "alice", &ward.image.digest.to_string());
    let bob = ward.policy("bob");
    let report = ward.doctor(&ward.name, &bob, &[]);
    assert_eq!((&report["decision"], ailments(&report)), (&"rejected".into(), vec!["key-missing".to_owned()]));
    assert!(fix(&report).contains("gpg --export ") && fix(&report).contains("bob.pub.asc.new"), "{report:#}");
    ward.agrees(&report, &ward.name, &bob);

    // Signed under the name that the registry once had.
    let old = "registry.ng.bluemix.net/birds/bluebird:build1";
    let moved = Ward::new(Settings::default());
    let server = Server::start(&["--store", text(moved.store.path())]);
    moved.host.registries_d(moved.registry.address(), &server.url("/lookaside"), None);
    moved.sign(old, "alice", &moved.image.digest.to_string());
    let alice = moved.policy("alice");
    let report = moved.doctor(&moved.name, &alice, &[]);
    assert_eq!((&report["decision"], ailments(&report)), (&"rejected".into(), vec!["old-domain".to_owned()]));
    moved.agrees(&report, &moved.name, &alice);
    let line = format!(
        "countersign resign --from STORE --to STORE --rename registry.ng.bluemix.net={}",
        moved.registry.address()
    );
    assert!(fix(&report).contains(&line), "{report:#}");

    // The line works once its blanks are filled in.
    let store = text(moved.store.path());
    let key = keys::secret("alice");
    let line = fix(&report).lines().last().unwrap().replace("STORE", store).replace("NEW-KEY.asc", text(&key));
    let args: Vec<&str> = line.split_whitespace().skip(1).collect();
    moved.host.countersign(&args).accepted();
    let server = Server::start(&["--store", store]);
    moved.host.registries_d(moved.registry.address(), &server.url("/lookaside"), None);
    let report = moved.doctor(&moved.name, &alice, &[]);
    assert_eq!(report["decision"], "accepted", "{report:#}");
}

#[test]
fn the_extension_hides_the_lookaside() {
    let ward = Ward::new(Settings::default());
    let alice = ward.policy("alice");
    let empty = tempfile::tempdir().unwrap();
    let proxy = Server::start(&["--upstream", &ward.registry.url(), "--store", text(empty.path())]);
    let name = format!("{}/birds/bluebird:build1", proxy.address);
    let report = ward.doctor(&name, &alice, &[]);
    assert_eq!(ailments(&report), ["not-signed"]);
    ward.sign(&name, "alice", &ward.image.digest.to_string());
    ward.host.registries_d(&proxy.address, &format!("file://{}", text(ward.store.path())), None);
    let report = ward.doctor(&name, &alice, &[]);
    assert_eq!(
        (&report["decision"], ailments(&report)),
        (&"rejected".into(), vec!["extension-hides-lookaside".to_owned()])
    );
    ward.agrees(&report, &name, &alice);
}

#[test]
fn the_member_of_a_list_is_not_signed() {
    let ward = Ward::new(Settings::default());
    let other = image(ward.host.path(), "two", "two", "arm64");
    let both = list(ward.host.path(), "list", &[("amd64", &ward.image), ("arm64", &other)]);
    let name = format!("{}/birds/both:1", ward.registry.address());
    push(&ward.host, &both, &name, &[]);
    let store = format!("file://{}", text(ward.store.path()));
    ward.host.registries_d(ward.registry.address(), &store, None);
    let alice = ward.policy("alice");
    ward.sign(&name, "alice", &both.digest.to_string());
    let report = ward.doctor(&name, &alice, &[]);
    assert_eq!((&report["decision"], ailments(&report)), (&"rejected".into(), vec!["instance-not-signed".to_owned()]));
    ward.agrees(&report, &name, &alice);
    for digest in [&ward.image.digest, &other.digest] {
        let line = format!("countersign sign {name} --key SIGNER.asc --digest {digest} --to {store}");
        assert!(fix(&report).contains(&line), "{report:#}");
    }
    ward.sign(&name, "alice", &ward.image.digest.to_string());
    let report = ward.doctor(&name, &alice, &[]);
    assert_eq!((&report["decision"], ailments(&report)), (&"accepted".into(), vec![]));
    ward.agrees(&report, &name, &alice);
    let report = ward.doctor(&name, &alice, &["--platform", "linux/arm64"]);
    assert_eq!((&report["decision"], ailments(&report)), (&"rejected".into(), vec!["instance-not-signed".to_owned()]));
    let report = ward.doctor(&name, &alice, &["--platform", "linux/s390x"]);
    assert_eq!(
        (&report["decision"], ailments(&report)),
        (&"failed".into(), vec!["no-instance-for-platform".to_owned()])
    );
}

#[test]
fn buckets_that_do_not_know_404() {
    let ward = Ward::new(Settings::default());
    let alice = ward.policy("alice");
    let anything = ward.host.write("anything.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    for (answer, ailment) in [
        ("403 Forbidden\r\nContent-Type: application/xml\r\n\r\n<Error/>", "lookaside-forbidden"),
        ("200 OK\r\nContent-Type: text/html\r\n\r\n<html></html>", "lookaside-html"),
        ("200 OK\r\n\r\n", "lookaside-empty-body"),
        ("410 Gone\r\n\r\n", "lookaside-unexpected-status"),
    ] {
        let bucket = stub(move |_| answer.to_owned());
        ward.host.registries_d(ward.registry.address(), &format!("http://{bucket}/base"), None);
        let report = ward.doctor(&ward.name, &alice, &[]);
        assert_eq!(
            (&report["decision"], ailments(&report)),
            (&"rejected".into(), vec![ailment.to_owned()]),
            "{report:#}"
        );
        ward.agrees(&report, &ward.name, &alice);
        // Also where nobody asks for signatures.
        let report = ward.doctor(&ward.name, &anything, &[]);
        assert_eq!(report["decision"], "failed", "{report:#}");
        assert_eq!(ailments(&report)[0], ailment);
        ward.agrees(&report, &ward.name, &anything);
    }
}

#[test]
fn a_mirror_asks_by_its_own_path() {
    let ward = Ward::new(Settings::default());
    let mirrored = format!("{}/mirror/birds/bluebird:build1", ward.registry.address());
    push(&ward.host, &ward.image, &mirrored, &[]);
    let name = "vendor.example/birds/bluebird:build1";
    let conf = ward.host.write(
        "registries.conf",
        format!(
            "[[registry]]\nprefix='vendor.example'\nlocation='{}/mirror'\ninsecure=true\n",
            ward.registry.address()
        ),
    );
    let store = format!("file://{}", text(ward.store.path()));
    ward.host.registries_d(ward.registry.address(), &store, None);
    ward.sign(name, "alice", &ward.image.digest.to_string());
    let alice = ward.policy("alice");
    let extra = ["--registries-conf", text(&conf)];
    let report = ward.doctor(name, &alice, &extra);
    assert_eq!((&report["decision"], ailments(&report)), (&"rejected".into(), vec!["mirror-path-differs".to_owned()]));
    assert!(!ward.skopeo(name, &alice, &extra).ok);
    // Where the mirror's path leads to the signatures, all is well: names are compared as the user gave them.
    let pasted = std::process::Command::new("bash").args(["-e", "-c", fix(&report)]).status().unwrap();
    assert!(pasted.success(), "{report:#}");
    let report = ward.doctor(name, &alice, &extra);
    assert_eq!((&report["decision"], ailments(&report)), (&"accepted".into(), vec![]), "{report:#}");
    assert!(ward.skopeo(name, &alice, &extra).ok);

    // Named by the mirror's own name, the signature is for another; remapIdentity helps.
    let report = ward.doctor(&mirrored, &alice, &[]);
    assert_eq!(ailments(&report), ["mirror-path-differs"]);
    let scopes: String = fix(&report).lines().filter(|line| !line.starts_with('#')).collect();
    let remapped = format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{{scopes}}}}}}}"#);
    let remapped = ward.host.write("remapped.json", remapped);
    let report = ward.doctor(&mirrored, &remapped, &[]);
    assert_eq!(report["decision"], "accepted", "{report:#}");
    ward.agrees(&report, &mirrored, &remapped);
}

#[test]
fn a_header_that_only_the_known_see() {
    let manifest =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
    let body = String::from_utf8(manifest.to_vec()).unwrap();
    let registry = stub(move |request| {
        let known = request.to_lowercase().contains("\r\nauthorization: ");
        match request.split(' ').nth(1).unwrap() {
            _ if !known => "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n".to_owned(),
            "/v2/" => "200 OK\r\nX-Registry-Supports-Signatures: 1\r\n\r\n{}".to_owned(),
            path if path.contains("/manifests/") => {
                format!("200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n{body}")
            }
            _ => "200 OK\r\n\r\n{\"signatures\":[]}".to_owned(),
        }
    });
    let ward = Ward::new(Settings::default());
    let alice = ward.policy("alice");
    let name = format!("{registry}/birds/bluebird:1");
    let report = ward.doctor(&name, &alice, &[]);
    assert_eq!(
        (&report["decision"], ailments(&report)),
        (&"rejected".into(), vec!["header-missing-on-401".to_owned()]),
        "{report:#}"
    );
    assert!(fix(&report).contains("add_header X-Registry-Supports-Signatures 1 always;"));
    ward.agrees(&report, &name, &alice);
}

#[test]
fn configuration_that_stops_every_client() {
    let ward = Ward::new(Settings::default());
    let alice = ward.policy("alice");
    let old = ward.host.write("old.conf", "[registries.insecure]\nregistries=['q.io']\n");
    let report = ward.doctor(&ward.name, &alice, &["--registries-conf", text(&old)]);
    assert_eq!(
        (&report["decision"], ailments(&report)),
        (&"failed".into(), vec!["registries-conf-invalid".to_owned()])
    );
    let report = ward.doctor(&ward.name, &alice, &["--registries-conf", text(&old), "--config-search", "podman5"]);
    assert!(!ailments(&report).contains(&"registries-conf-invalid".to_owned()), "{report:#}");
    let report = ward.doctor(&ward.name, &ward.host.path().join("none.json"), &[]);
    assert_eq!(ailments(&report), ["policy-missing"]);
    let strange = ward.host.write("strange.json", r#"{"default":[{"type":"reject"}],"x":1}"#);
    assert_eq!(ailments(&ward.doctor(&ward.name, &strange, &[])), ["policy-invalid"]);
    ward.host.write(".config/containers/registries.d/broken.yaml", "[");
    assert_eq!(ailments(&ward.doctor(&ward.name, &alice, &[])), ["registries-d-invalid"]);

    let secure = ["doctor", &ward.name, "--policy", text(&alice), "--registries-d", "/nowhere", "--format", "json"];
    let report = json(&ward.host.countersign(&secure));
    assert_eq!(ailments(&report), ["registry-plain-http"], "{report:#}");
    let blocking = format!("[[registry]]\nlocation='{}'\nblocked=true\n", ward.registry.address());
    let blocking = ward.host.write("blocking.conf", blocking);
    let report = json(&ward.host.countersign(&[&secure[..], &["--registries-conf", text(&blocking)]].concat()));
    assert_eq!(ailments(&report), ["registry-blocked"]);
    let wrong = ward.host.countersign(&["doctor", "UPPER CASE"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

/// A web server that answers by the request; gone with the test process.
fn stub(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(5)));
            let mut request = Vec::new();
            let mut byte = [0u8];
            while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                request.push(byte[0]);
                // A TLS hello is no request.
                if request[0] == 0x16 {
                    break;
                }
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            if request.ends_with("\r\n\r\n") {
                let (head, body) = {
                    let text = answer(&request);
                    let (head, body) = text.split_once("\r\n\r\n").unwrap();
                    (head.to_owned(), body.to_owned())
                };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        }
    });
    address
}
