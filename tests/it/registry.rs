//! The registry client against a real registry, filled by a real skopeo.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use countersign::image::{Digest, ManifestKind, Repository, Tag, inspect_list, kind};
use countersign::registry::{
    AuthFiles, Credential, CredentialSource, HostCertificates, RegistryClient, RegistryOptions, Selector,
};

use crate::support::authority::Authority;
use crate::support::docker_registry::{DockerRegistry, Settings, Tls};
use crate::support::image_folder::ImageFolder;

fn options() -> RegistryOptions {
    RegistryOptions { tls_verify: false, timeout: Duration::from_secs(20), ..RegistryOptions::default() }
}

fn repository(registry: &DockerRegistry, path: &str) -> Repository {
    Repository::parse(&format!("{}/{path}", registry.address())).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

#[tokio::test]
async fn reads_what_skopeo_pushed() {
    let registry = DockerRegistry::start();
    let image = ImageFolder::image("one");
    for name in ["birds/bluebird:build1", "birds/bluebird:build2", "top:latest"] {
        image.push(&format!("{}/{name}", registry.address()), &[]);
    }
    let client = RegistryClient::new(options());
    let birds = repository(&registry, "birds/bluebird");

    let build1 = tag("build1");
    let found = client.manifest(&birds, Selector::Tag(&build1)).await.unwrap();
    assert_eq!(found.bytes, image.manifest());
    assert_eq!(found.digest, image.digest());
    assert_eq!(found.media_type, "application/vnd.oci.image.manifest.v1+json");
    let again = client.manifest(&birds, Selector::Digest(&found.digest)).await.unwrap();
    assert_eq!(again, found);

    assert!(client.manifest_exists(&birds, Selector::Tag(&build1)).await.unwrap());
    assert!(!client.manifest_exists(&birds, Selector::Tag(&tag("build3"))).await.unwrap());
    let gone = client.manifest(&birds, Selector::Tag(&tag("build3"))).await.unwrap_err();
    assert!(gone.is_not_found(), "{gone}");
    assert_eq!(gone.refusal().unwrap().code(), Some("MANIFEST_UNKNOWN"));

    let tags = client.tags(&birds).await.unwrap();
    assert_eq!(tags, [tag("build1"), tag("build2")]);
    let repositories = client.catalog(registry.address()).await.unwrap();
    assert_eq!(repositories, [birds.clone(), repository(&registry, "top")]);
    assert!(client.tags(&repository(&registry, "absent")).await.unwrap_err().is_not_found());

    assert!(!client.supports_signatures(registry.address()).await.unwrap());
    // A registry without the extension answers 404, which is an error and not an empty list.
    assert!(client.signatures(&birds, &image.digest()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn lists_and_their_members() {
    let registry = DockerRegistry::start();
    let list = ImageFolder::list("many");
    list.push(&format!("{}/birds/flock:all", registry.address()), &[]);
    let client = RegistryClient::new(options());
    let flock = repository(&registry, "birds/flock");
    let found = client.manifest(&flock, Selector::Tag(&tag("all"))).await.unwrap();
    assert_eq!((found.digest, kind(&found.bytes)), (list.digest(), ManifestKind::List));
    let instances = inspect_list(&found.bytes).unwrap();
    assert_eq!(instances.len(), 2);
    for (instance, expected) in instances.iter().zip(list.members()) {
        let member = client.manifest(&flock, Selector::Digest(&instance.digest)).await.unwrap();
        assert_eq!(member.bytes, expected.as_bytes(), "{}", instance.platform);
    }
}

#[tokio::test]
async fn signs_in_with_basic() {
    let registry = DockerRegistry::with_htpasswd("jane", "pass:word");
    let image = ImageFolder::image("private");
    let name = format!("{}/birds/secret:1", registry.address());
    image.push(&name, &["--dest-creds", "jane:pass:word"]);
    let secret = repository(&registry, "birds/secret");
    let fetch = async |credentials| {
        let client = RegistryClient::new(RegistryOptions { credentials, ..options() });
        client.manifest(&secret, Selector::Tag(&tag("1"))).await
    };

    let error = fetch(CredentialSource::Anonymous).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().code(), Some("UNAUTHORIZED"), "{error}");
    let wrong = CredentialSource::Fixed(Credential::new("jane", "pass-wrong"));
    let error = fetch(wrong).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().status().as_u16(), 401);
    assert!(!error.to_string().contains("pass-wrong"), "{error}");
    let right = CredentialSource::Fixed(Credential::new("jane", "pass:word"));
    assert_eq!(fetch(right).await.unwrap().digest, image.digest());

    // The file that skopeo itself writes.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let login = Command::new("skopeo")
        .args(["login", "--tls-verify=false", "--username", "jane", "--password", "pass:word", "--authfile"])
        .arg(&file)
        .arg(registry.address())
        .output()
        .unwrap();
    assert!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
    let files = AuthFiles::from_environment(|name| (name == "REGISTRY_AUTH_FILE").then(|| file.clone().into()), 0);
    assert_eq!(fetch(CredentialSource::Files(files)).await.unwrap().digest, image.digest());

    // A key for the namespace beats one for the registry.
    let entry = |password: &str| base64::engine::general_purpose::STANDARD.encode(format!("jane:{password}"));
    let text = format!(
        r#"{{"auths":{{"{0}":{{"auth":"{1}"}},"{0}/birds":{{"auth":"{2}"}}}}}}"#,
        registry.address(),
        entry("wrong"),
        entry("pass:word")
    );
    std::fs::write(&file, text).unwrap();
    assert_eq!(fetch(CredentialSource::Files(AuthFiles::only(&file))).await.unwrap().digest, image.digest());
    let catalog = RegistryClient::new(RegistryOptions {
        credentials: CredentialSource::Files(AuthFiles::only(&file)),
        ..options()
    })
    .catalog(registry.address())
    .await;
    assert_eq!(catalog.unwrap_err().refusal().unwrap().status().as_u16(), 401);
}

#[tokio::test]
async fn certs_d_decides_over_tls() {
    let authority = Authority::new();
    let tls = |client_authority| Tls {
        certificate: authority.file("server.cert"),
        key: authority.file("server.key"),
        client_authority,
    };
    let registry = Settings::default().tls(tls(None)).start();
    let ping = async |registry: &DockerRegistry, tls_verify, certs_d: Option<&Path>| {
        let options =
            RegistryOptions { tls_verify, certs_d: certs_d.map(Path::to_owned).into_iter().collect(), ..options() };
        RegistryClient::new(options).ping(registry.address()).await
    };
    let trusting = authority.certs_d("trusting", registry.address(), &["ca.crt"]);
    ping(&registry, true, Some(&trusting)).await.unwrap();
    let other_host = authority.certs_d("other", "127.0.0.1", &["ca.crt"]);
    for certs_d in [None, Some(other_host.as_path())] {
        let error = ping(&registry, true, certs_d).await.unwrap_err().to_string();
        assert!(error.contains("UnknownIssuer"), "{error}");
    }
    ping(&registry, false, None).await.unwrap();

    let mutual = Settings::default().tls(tls(Some(authority.file("ca.crt")))).start();
    let without = authority.certs_d("without", mutual.address(), &["ca.crt"]);
    let with = authority.certs_d("with", mutual.address(), &["ca.crt", "client.cert", "client.key"]);
    assert_eq!(HostCertificates::load(std::slice::from_ref(&with), mutual.address()).unwrap().identities.len(), 1);
    assert!(ping(&mutual, true, Some(&without)).await.is_err());
    ping(&mutual, true, Some(&with)).await.unwrap();
    ping(&mutual, false, Some(&with)).await.unwrap();
    assert!(ping(&mutual, false, None).await.is_err());
}

#[tokio::test]
async fn credentials_stay_off_plain_connections() {
    let authority = Authority::new();
    let tls =
        Tls { certificate: authority.file("server.cert"), key: authority.file("server.key"), client_authority: None };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    let registry = Settings::default().tls(tls).token(&realm, &authority.file("ca.crt")).start();
    let client = RegistryClient::new(RegistryOptions {
        tls_verify: true,
        certs_d: vec![authority.certs_d("certs.d", registry.address(), &["ca.crt"])],
        credentials: CredentialSource::Fixed(Credential::new("jane", "pass-word")),
        ..options()
    });
    let error = client.tags(&repository(&registry, "x")).await.unwrap_err().to_string();
    assert!(error.contains("wants credentials sent to http://127.0.0.1:") && !error.contains("pass-word"), "{error}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody may have connected");
}

#[tokio::test]
async fn a_registry_that_announces_the_extension() {
    let registry = Settings::default().header("X-Registry-Supports-Signatures", "1").htpasswd("u", "p").start();
    // The header stands on the 401 of the ping, which is all that anybody looks at.
    let client = RegistryClient::new(options());
    assert!(client.supports_signatures(registry.address()).await.unwrap());
    let digest = Digest::sha256(b"");
    let error = client.signatures(&repository(&registry, "x"), &digest).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("downloading signatures for {digest} in ")), "{error}");
}
