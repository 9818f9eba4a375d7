//! A job that outlives its tokens.

use countersign::image::Digest;

use crate::support::client::{Host, text};
use crate::support::image_folder::ImageFolder;
use crate::support::keys;
use crate::support::server::Server;
use crate::support::token_server::TokenServer;

#[test]
fn a_job_goes_on_when_its_tokens_end() {
    let tokens = TokenServer::start("robin", "geheim");
    let registry = tokens.registry();
    let host = Host::new(std::path::Path::new("/nonexistent"));
    let store = host.path().join("store");
    let server = Server::start(&["--store", text(&store), "--upstream", &registry.url()]);
    let policy = host.signed_by_policy("old.json", &keys::public("alice"));
    let mut lines = String::new();
    for number in 1..=6 {
        let image = ImageFolder::image(&number.to_string());
        image.push(&format!("{}/birds/robin:{number}", registry.address()), &["--dest-creds", "robin:geheim"]);
        let (name, key) = (format!("registry.ng.bluemix.net/birds/robin:{number}"), keys::secret("alice"));
        let digest = Digest::sha256(image.manifest()).to_string();
        host.countersign(&["sign", &name, "--key", text(&key), "--digest", &digest, "--to", text(&store)]).accepted();
        lines.push_str(&format!("birds/robin:{number}\n"));
    }
    let images = host.write("images.txt", lines);
    // base64 of robin:geheim
    host.write(
        "containers/auth.json",
        serde_json::json!({"auths": {&server.address: {"auth": "cm9iaW46Z2VoZWlt"}}}).to_string(),
    );
    tokens.shorten(2);
    let before = tokens.asked().len();
    let (here, key) = (format!("docker://{}", server.address), keys::secret("bob"));
    let fixed = ["--format", "json", "resign", "--from", &here, "--to", &here, "--rename", "ibm", "--rate", "5"];
    let insecure = ["--from-tls-verify=false", "--to-tls-verify=false", "--images", text(&images)];
    let ran = host
        .countersign(&[&fixed[..], &insecure, &["--policy", text(&policy), "--key", text(&key)]].concat())
        .accepted();
    assert_eq!(super::totals(&ran), [6, 0, 0, 0, 0], "{ran:?}");
    let asked = tokens.asked();
    let pulls =
        asked[before..].iter().filter(|target| target.contains("birds%2Frobin") || target.contains("birds/robin"));
    assert!(pulls.count() > 2, "tokens are asked for again: {asked:?}");
    let stored = super::walk_count(&store);
    assert_eq!(stored, 12, "each has its two signatures");
}
