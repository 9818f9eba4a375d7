//! HTTP proxies of the environment, beside the real skopeo; certificates that are trusted themselves.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::authority::Authority;
use crate::support::client::text;
use crate::support::docker_registry::DockerRegistry;

/// A proxy that sends everything to one address, and remembers request lines and credentials.
struct Proxy {
    address: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, target) = (noted.clone(), target.clone());
                std::thread::spawn(move || serve(stream, &target, &noted));
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

fn serve(mut client: TcpStream, target: &str, noted: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next()?.to_owned();
    let credentials = text.lines().find(|line| line.to_lowercase().starts_with("proxy-authorization:"));
    noted.lock().unwrap().push(format!("{line} {}", credentials.unwrap_or_default()));
    let mut server = TcpStream::connect(target).ok()?;
    if line.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    } else {
        // One request a connection is enough here.
        let (method, url) = line.split_once(' ')?;
        let (url, version) = url.rsplit_once(' ')?;
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        let rest = text.split_once("\r\n")?.1;
        write!(server, "{method} /{path} {version}\r\nConnection: close\r\n{rest}").ok()?;
    }
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut server, &mut client).ok()?;
    let _ = client.shutdown(std::net::Shutdown::Both);
    Some(())
}

fn countersign(home: &std::path::Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(args).env("HOME", home).envs(variables.iter().copied()).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn registries_are_reached_through_the_proxy_as_skopeo_reaches_them() {
    let registry = DockerRegistry::start();
    let home = tempfile::tempdir().unwrap();
    let picture = crate::support::image::image(home.path(), "a", "a", "amd64");
    let source = format!("dir:{}", text(&picture.dir));
    let target = format!("docker://{}/birds/a:1", registry.address());
    let pushed = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &source, &target])
        .output()
        .unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let proxy = Proxy::start(registry.address().to_owned());
    let policy = home.path().join("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let with_user = format!("http://bob:hunter2@{}", proxy.address);
    let image = "registry.lab.test/birds/a:1";
    for (name, value, direct) in [
        ("HTTP_PROXY", proxy.address.as_str(), false),
        ("http_proxy", &with_user, false),
        ("NO_PROXY", "lab.test", true),
    ] {
        let variables = if direct {
            vec![("HTTP_PROXY", proxy.address.as_str()), ("HTTPS_PROXY", &proxy.address), (name, value)]
        } else {
            vec![(name, value)]
        };
        let skopeo = Command::new("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let by_skopeo = proxy.heard();
        let args = ["verify", image, "--policy", text(&policy), "--tls-verify=false"];
        let ours = countersign(home.path(), &variables, &args);
        let by_us = proxy.heard();
        assert_eq!((skopeo.status.success(), ours.status.success()), (!direct, !direct), "{name}: {ours:?}");
        assert_eq!((by_skopeo.is_empty(), by_us.is_empty()), (direct, direct), "{name}: {by_us:?}");
        let user = |heard: &[String]| heard.iter().any(|line| line.ends_with("Basic Ym9iOmh1bnRlcjI="));
        assert_eq!((user(&by_skopeo), user(&by_us)), (value == with_user, value == with_user), "{by_us:?}");
        assert!(!String::from_utf8_lossy(&ours.stderr).contains("hunter2"));
    }
    // This machine is never reached through a proxy.
    let local = format!("{}/birds/a:1", registry.address());
    let args = ["verify", &local, "--policy", text(&policy), "--tls-verify=false"];
    assert!(countersign(home.path(), &[("HTTP_PROXY", &proxy.address)], &args).status.success());
    assert!(proxy.heard().is_empty());
    // A proxy that cannot be used is no reason to go without one.
    let args = ["verify", image, "--policy", text(&policy), "--tls-verify=false"];
    let told = countersign(home.path(), &[("HTTP_PROXY", "ftp://bob:hunter2@x"), ("HTTPS_PROXY", "ftp://x")], &args);
    let said = String::from_utf8_lossy(&told.stderr).into_owned() + &String::from_utf8_lossy(&told.stdout);
    assert!(said.contains("ftp://") && !said.contains("hunter2"), "{said}");
}

#[test]
fn https_goes_through_a_tunnel() {
    let authority = Authority::new();
    authority.issue("web", "subjectAltName=DNS:notary.lab.test");
    let tls = Some((authority.file("web.cert"), authority.file("web.key")));
    let settings = crate::support::notary::Settings { tls, tokens: None };
    let server = crate::support::notary::NotaryServer::with(&settings);
    let ca = authority.file("ca.crt");
    let target = server.url().strip_prefix("https://").unwrap().to_owned();
    let proxy = Proxy::start(target);
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("to");
    let args = ["trust", "fetch", "--from", "https://notary.lab.test", "--to", text(&to), "--tls-ca", text(&ca), "a/b"];
    let told = countersign(home.path(), &[("HTTPS_PROXY", &format!("http://bob:x@{}", proxy.address))], &args);
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(said.contains("1 without trust data"), "{said}{}", String::from_utf8_lossy(&told.stderr));
    let heard = proxy.heard();
    assert!(heard.iter().all(|line| line.starts_with("CONNECT notary.lab.test:443 ")), "{heard:?}");
    assert!(heard.iter().all(|line| line.ends_with("Basic Ym9iOng=")), "{heard:?}");
}
