//! Several registries behind one server, by Host and by path, with real registries and clients.

use std::path::Path;

use base64::Engine as _;

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::image::{DirImage, image};
use crate::support::keys::{self, GpgHome};
use crate::support::server::Server;
use crate::support::token_server::TokenServer;

struct World {
    server: Server,
    gpg: GpgHome,
    store: tempfile::TempDir,
    _config: tempfile::TempDir,
}

impl World {
    /// Starts a server with this configuration; `{…}` in it are flow maps of YAML.
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "pass word\n").unwrap();
        let file = folder.path().join("countersign.yaml");
        std::fs::write(&file, config.replace("FOLDER", text(folder.path()))).unwrap();
        let store = tempfile::tempdir().unwrap();
        let server = Server::start(&["--config", text(&file), "--store", text(store.path())]);
        Self { server, gpg: GpgHome::with(&["alice"]), store, _config: folder }
    }

    fn host(&self) -> Host {
        Host::new(self.gpg.path())
    }

    fn port(&self) -> &str {
        self.server.address.rsplit(':').next().unwrap()
    }

    fn stored(&self, key: &str, image: &DirImage) -> bool {
        self.store.path().join(format!("{key}@{}/signature-1", image.digest.path_form())).is_file()
    }
}

fn push(host: &Host, image: &DirImage, name: &str, more: &[&str]) -> Ran {
    let (source, target) = (format!("dir:{}", text(&image.dir)), format!("docker://{name}"));
    let user = GpgHome::user("alice");
    let fixed = ["--insecure-policy", "copy", "--dest-tls-verify=false", "--sign-by", &user];
    host.skopeo(&[&fixed[..], more, &[&source, &target]].concat())
}

fn pull(host: &Host, policy: &Path, name: &str, more: &[&str]) -> Ran {
    let out = tempfile::tempdir().unwrap();
    let (source, target) = (format!("docker://{name}"), format!("dir:{}", text(out.path())));
    let fixed = ["--policy", text(policy), "copy", "--src-tls-verify=false"];
    host.skopeo(&[&fixed[..], more, &[&source, &target]].concat())
}

#[test]
fn two_open_registries_by_path_and_by_host() {
    let (one, two) = (DockerRegistry::start(), DockerRegistry::start());
    let world = World::new(&format!(
        "registries:\n  icr.example: {{upstream: '{}', hosts: [localhost]}}\n  quay.example: {{upstream: '{}'}}\n",
        one.url(),
        two.url()
    ));
    let (host, address) = (world.host(), &world.server.address);
    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));
    let (a, b) = (image(host.path(), "a", "a", "amd64"), image(host.path(), "b", "b", "amd64"));

    // By path: pushed and pulled under the server's own name.
    let by_path = format!("{address}/icr.example/birds/bluebird:1");
    push(&host, &a, &by_path, &[]).accepted();
    pull(&host, &alice, &by_path, &[]).accepted();
    assert!(world.stored("icr.example/birds/bluebird", &a));
    let other = format!("{address}/quay.example/birds/bluebird:1");
    pull(&host, &alice, &other, &[]).refused("manifest unknown");
    push(&host, &b, &other, &[]).accepted();
    assert!(world.stored("quay.example/birds/bluebird", &b) && !world.stored("quay.example/birds/bluebird", &a));

    // By host: the same registry, the same signatures.
    let by_host = format!("localhost:{}/birds/bluebird:2", world.port());
    push(&host, &b, &by_host, &[]).accepted();
    pull(&host, &alice, &by_host, &[]).accepted();
    assert!(world.stored("icr.example/birds/bluebird", &b));
    // A blob from another repository of the same registry, and from another registry.
    push(&host, &a, &format!("{address}/icr.example/birds/copy:1"), &[]).accepted();
    push(&host, &a, &format!("{address}/quay.example/birds/copy:1"), &[]).accepted();

    // By registries.conf: signed for the registry's own name.
    push(&host, &a, &format!("{address}/icr.example/birds/named:1"), &["--sign-identity", "icr.example/birds/named:1"])
        .accepted();
    host.write(
        ".config/containers/registries.conf",
        format!("[[registry]]\nprefix = \"icr.example\"\nlocation = \"{address}/icr.example\"\ninsecure = true\n"),
    );
    pull(&host, &alice, "icr.example/birds/named:1", &[]).accepted();
    pull(&host, &alice, "icr.example/birds/bluebird:1", &[]).refused("Source image rejected");

    // Pages keep to the path.
    let tags = http::get(address, "/v2/icr.example/birds/bluebird/tags/list").json();
    assert_eq!(tags["tags"].as_array().unwrap().len(), 2);
    let catalog = http::get(address, "/v2/icr.example/_catalog?n=1");
    assert!(catalog.header("link").unwrap().starts_with("</v2/icr.example/_catalog?"), "{catalog:?}");
    // And nothing is found that is nobody's.
    assert_eq!(http::get(address, "/v2/birds/bluebird/tags/list").status, 404);
    assert_eq!(http::get(address, "/v2/elsewhere.example/birds/tags/list").status, 404);
    let page = http::get(address, "/").text();
    assert!(page.contains(&format!("{address}/quay.example/REPOSITORY")), "{page}");
    let lookaside = format!("/lookaside/icr.example/birds/bluebird@{}/signature-1", a.digest.path_form());
    assert_eq!(http::get(address, &lookaside).status, 200);
}

#[test]
fn registries_with_passwords_and_tokens_by_path() {
    let tokens = TokenServer::start("token-user", "secret");
    let (basic, bearer) = (DockerRegistry::with_htpasswd("basic-user", "pass~w:rd"), tokens.registry());
    let open = DockerRegistry::start();
    let world = World::new(&format!(
        "upstream: '{}'\nregistries:\n  basic.example: {{upstream: '{}'}}\n  token.example: {{upstream: '{}', hosts: [localhost]}}\n",
        open.url(),
        basic.url(),
        bearer.url()
    ));
    let (host, address) = (world.host(), &world.server.address);
    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));
    let a = image(host.path(), "a", "a", "amd64");
    for (name, right) in
        [("basic.example/x/private", "basic-user:pass~w:rd"), ("token.example/x/private", "token-user:secret")]
    {
        let name = format!("{address}/{name}:1");
        push(&host, &a, &name, &["--dest-creds", "basic-user:wrong"]).refused("unable to retrieve auth token");
        push(&host, &a, &name, &["--dest-creds", right]).accepted();
        pull(&host, &alice, &name, &["--src-creds", right]).accepted();
        pull(&host, &alice, &name, &["--src-creds", "token-user:wrong"]).refused("unable to retrieve auth token");
        pull(&host, &alice, &name, &[]).refused("unauthorized");
    }
    assert!(world.stored("basic.example/x/private", &a) && world.stored("token.example/x/private", &a));
    assert!(tokens.asked().iter().any(|target| target.contains("scope=repository%3Ax%2Fprivate%3Apull%2Cpush")));

    // What is public at the registry is public here.
    let public = format!("{address}/token.example/public/x:1");
    push(&host, &a, &public, &["--dest-creds", "token-user:secret"]).accepted();
    pull(&host, &alice, &public, &[]).accepted();
    push(&host, &a, &public, &[]).refused("unauthorized");
    // By host the registry is as it is, its token server included.
    pull(&host, &alice, &format!("localhost:{}/x/private:1", world.port()), &["--src-creds", "token-user:secret"])
        .refused("Source image rejected");

    // The open default beside them.
    let own = format!("{address}/birds/bluebird:1");
    push(&host, &a, &own, &[]).accepted();
    pull(&host, &alice, &own, &[]).accepted();
    assert!(world.stored("birds/bluebird", &a));

    // podman: a login by path, then a pull.
    let registry = format!("{address}/basic.example");
    host.podman(&["login", "--tls-verify=false", "-u", "basic-user", "-p", "pass~w:rd", &registry]).accepted();
    let name = format!("{registry}/x/private:1");
    host.podman(&["pull", "--signature-policy", text(&alice), "--tls-verify=false", &name]).accepted();

    // A challenge names our endpoint and the client's own name, for those who read it there.
    let refused = http::get(address, "/v2/token.example/x/private/manifests/1");
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains(&format!("realm=\"http://{address}/v2/_token\"")), "{challenge}");
    assert!(challenge.contains("scope=\"repository:token.example/x/private:pull\""), "{challenge}");
}

#[test]
fn own_credentials_let_anybody_pull_and_nobody_push() {
    let tokens = TokenServer::start("puller", "pass word");
    let (basic, bearer) = (DockerRegistry::with_htpasswd("puller", "pass word"), tokens.registry());
    let credentials = "credentials: {username: puller, password_file: FOLDER/password}";
    let world = World::new(&format!(
        "upstream: '{}'\n{credentials}\nregistries:\n  token.example: {{upstream: '{}', hosts: [localhost], {credentials}}}\n",
        basic.url(),
        bearer.url(),
    ));
    let (host, address) = (world.host(), &world.server.address);
    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));
    let (a, b) = (image(host.path(), "a", "a", "amd64"), image(host.path(), "b", "b", "amd64"));
    let by_host = format!("localhost:{}/x/private:1", world.port());
    let names = [format!("{address}/x/private:1"), format!("{address}/token.example/x/private:1"), by_host];
    for name in &names {
        push(&host, &a, name, &["--dest-creds", "puller:pass word"]).accepted();
        pull(&host, &alice, name, &[]).accepted();
        pull(&host, &alice, name, &["--src-creds", "puller:wrong"]).refused("unable to retrieve auth token");
        push(&host, &b, name, &[]).refused("unauthorized");
    }
    // Signed under two names, by path and by host.
    for (prefix, signatures) in [("", 1), ("token.example/", 2)] {
        let path = format!("/extensions/v2/{prefix}x/private/signatures/{}", a.digest);
        let list = http::get(address, &path);
        assert_eq!((list.status, list.json()["signatures"].as_array().unwrap().len()), (200, signatures), "{prefix}");
        let entry = list.json()["signatures"][0].to_string();
        assert_eq!(http::request(address, "PUT", &path, &[], entry.as_bytes()).status, 401, "{prefix}");
        // Nor by a token that holds nothing.
        let scope = format!("/v2/_token?scope=repository:{prefix}x/private:pull,push");
        let token = http::get(address, &scope).json()["token"].as_str().unwrap().to_owned();
        let nobody = format!("Bearer {token}");
        let put = http::request(address, "PUT", &path, &[("Authorization", &nobody)], entry.as_bytes());
        assert_eq!(put.status, 401, "{prefix}");
        let upload = format!("/v2/{prefix}x/private/blobs/uploads/");
        assert_eq!(http::request(address, "POST", &upload, &[("Authorization", &nobody)], b"").status, 401);
        assert_eq!(http::request(address, "POST", &upload, &[], b"").status, 401);
        assert_eq!(
            http::request(address, "DELETE", &format!("/v2/{prefix}x/private/manifests/{}", a.digest), &[], b"").status,
            401
        );
        // Only what pulls ask for.
        assert_eq!(http::get(address, &format!("/v2/{prefix}x/private/tags/list")).status, 200);
        assert_eq!(http::get(address, &format!("/v2/{prefix}_catalog")).status, 401);
        let wrong = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("puller:wrong"));
        assert_eq!(http::request(address, "GET", &path, &[("Authorization", &wrong)], b"").status, 401, "{prefix}");
    }
    assert!(!world.server.log().contains("pass word"));
}

#[test]
fn the_old_and_the_new_name_of_a_registry_share_signatures() {
    let registry = DockerRegistry::start();
    let world = World::new(&format!(
        "registries:\n  icr.example: {{upstream: '{0}'}}\n  bluemix.example: {{upstream: '{0}', store_prefix: icr.example}}\n",
        registry.url()
    ));
    let (host, address) = (world.host(), &world.server.address);
    let a = image(host.path(), "a", "a", "amd64");
    push(&host, &a, &format!("{address}/bluemix.example/birds/x:1"), &["--sign-identity", "icr.example/birds/x:1"])
        .accepted();
    assert!(world.stored("icr.example/birds/x", &a));
    let policy = host.signed_by_policy("alice.json", &keys::public("alice"));
    host.write(
        ".config/containers/registries.conf",
        format!("[[registry]]\nprefix = \"icr.example\"\nlocation = \"{address}/icr.example\"\ninsecure = true\n"),
    );
    pull(&host, &policy, "icr.example/birds/x:1", &[]).accepted();
    let list = http::get(address, &format!("/extensions/v2/bluemix.example/birds/x/signatures/{}", a.digest));
    assert_eq!(list.json()["signatures"].as_array().unwrap().len(), 1);
}

#[test]
fn a_configuration_that_clashes_is_refused_with_both_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    std::fs::write(&file, "registries: {a.example: {hosts: [m.example]}, b.example: {hosts: [m.example]}}").unwrap();
    let host = Host::new(folder.path());
    let ran = host.countersign(&["serve", "--config", text(&file)]);
    assert_eq!(ran.code, Some(2));
    ran.refused("the host m.example is claimed by both registries a.example and b.example");
}
