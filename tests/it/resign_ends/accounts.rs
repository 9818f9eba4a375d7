//! Accounts of jobs whose ends are no trees, and of lists with their instances: checked, and not to
//! be deceived.

use countersign::image::Digest;
use serde_json::{Value, json};

use super::uploads::Uploads;
use super::{Desk, totals};
use crate::support::client::{Ran, text};
use crate::support::http;
use crate::support::image_folder::ImageFolder;
use crate::support::keys;
use crate::support::web::{Said, Web};

fn read(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn accounts_of_registries_and_lookasides_are_checked() {
    let desk = Desk::new();
    let mut digests = Vec::new();
    for name in ["birds/robin", "other/robin"] {
        let digest = desk.push(&ImageFolder::image(name), &format!("{name}:1"));
        desk.sign(&format!("{name}:1"), &digest);
        digests.push(digest);
    }
    // Unknown to the policy, and what has no signature at all.
    let bad = desk.push(&ImageFolder::image("bad"), "birds/bad:1");
    let (key, digest) = (keys::secret("carol"), bad.to_string());
    let name = "registry.ng.bluemix.net/birds/bad:1";
    desk.host
        .countersign(&["sign", name, "--key", text(&key), "--digest", &digest, "--to", text(&desk.store)])
        .accepted();
    desk.push(&ImageFolder::image("none"), "birds/none:1");
    let right = |report: &str, extra: &[&str], signatures: u64| {
        let ran = desk.audit(report, extra).accepted();
        let told = super::json(&ran);
        assert_eq!((&told["signatures"], &told["wrong"], &told["unknown"]), (&json!(signatures), &json!(0), &json!(0)));
    };

    // From a registry to a part of it: one new name is outside, and so would it be again.
    let report = desk.path("registry.json");
    let ran = desk.resign(&desk.docker(""), &desk.docker("/birds"), &["--discover", "catalog", "--report", &report]);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [1, 0, 1, 2, 0]), "{ran:?}");
    right(&report, &[], 1);
    // A place elsewhere is told.
    let mut edited = read(&report);
    let items = edited["items"].as_array_mut().unwrap();
    let signed = items.iter_mut().find(|item| item["state"] == "signed").unwrap();
    signed["place"] = json!(format!("other/robin@{}", digests[0].path_form()));
    let ran = desk.audit(&desk.report("edited.json", &edited), &[]);
    assert!(ran.code == Some(1) && ran.stdout.contains("the report says place other/robin@"), "{ran:?}");

    // From a lookaside on the web to a tree, and to another lookaside with a password.
    let images = desk.list(&format!("birds/robin@{}\nother/robin@{}\nbirds/bad@{bad}\n", digests[0], digests[1]));
    let (from, report) = (desk.server.url("/lookaside"), desk.path("web.json"));
    let ran = desk.resign(&from, &desk.path("new"), &["--images", &images, "--report", &report]);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [2, 0, 1, 1, 0]), "{ran:?}");
    right(&report, &[], 2);
    let uploads = Uploads::start(desk.host.path().join("uploaded"), 0);
    let base = format!("http://user:pass-word@{}/lookaside", uploads.web.address);
    let ran = desk.resign(&from, &base, &["--images", &images, "--report", &report]);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [2, 0, 1, 1, 0]), "{ran:?}");
    right(&report, &["--to", &base], 2);
    assert!(!std::fs::read_to_string(&report).unwrap().contains("pass-word"));
    let ran = desk.audit(&report, &["--to", &desk.server.url("/lookaside")]);
    assert!(ran.code == Some(1) && ran.stdout.contains("is not at other/robin@"), "{ran:?}");
}

/// A list with a list in it, in the registry and signed.
struct Nested {
    outer: Digest,
    inner: Digest,
    members: Vec<Digest>,
    single: Digest,
}

impl Nested {
    fn push(desk: &Desk, repository: &str) -> Self {
        let (list, single) = (ImageFolder::list("inner"), ImageFolder::image("single"));
        let (inner, alone) =
            (desk.push(&list, &format!("{repository}:inner")), desk.push(&single, &format!("{repository}:x")));
        let entry = |kind: &str, digest: &Digest, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}.v1+json"), "digest": digest.to_string(), "size": bytes.len()});
        let media_type = "application/vnd.oci.image.index.v1+json";
        let manifests = [entry("index", &inner, list.manifest()), entry("manifest", &alone, single.manifest())];
        let outer = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).to_string();
        let path = format!("/v2/{repository}/manifests/1");
        let put =
            http::request(desk.registry.address(), "PUT", &path, &[("Content-Type", media_type)], outer.as_bytes());
        assert_eq!(put.status, 201, "{}", put.text());
        let members = list.members().iter().map(|member| Digest::sha256(member.as_bytes())).collect();
        Self { outer: Digest::sha256(outer.as_bytes()), inner, members, single: alone }
    }

    fn all(&self) -> Vec<&Digest> {
        [&self.outer, &self.inner, &self.single].into_iter().chain(&self.members).collect()
    }
}

#[test]
fn lists_in_lists_are_signed_to_the_bottom_and_their_account_is_checked() {
    let desk = Desk::new();
    let tree = desk.host.path().join("old");
    let nested = Nested::push(&desk, "birds/many");
    desk.sign_into(&tree, "birds/many:1", &nested.outer);
    let stranger = desk.push(&ImageFolder::image("stranger"), "birds/many:stranger");
    desk.sign_into(&tree, "birds/many:stranger", &stranger);
    let report = desk.path("report.json");
    let fixed = ["--check", "instances", "--check-registry", desk.registry.address(), "--report"];
    let resign = |report: &str| desk.resign(text(&tree), &desk.path("new"), &[&fixed[..], &[report]].concat());
    let ran = resign(&report);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [6, 0, 0, 0, 0]), "{ran:?}");
    for digest in nested.all() {
        assert_eq!(desk.claims("new", "birds/many", digest), ["us.icr.io/birds/many:1"]);
    }
    for page in ["page.md", "page.html"] {
        assert_eq!(totals(&resign(&desk.path(page))), [0, 6, 0, 0, 0]);
        let page = std::fs::read_to_string(desk.path(page)).unwrap();
        assert_eq!(page.matches("instance of").count(), 4, "{page}");
    }
    let told = super::json(&desk.audit(&report, &[]).accepted());
    assert_eq!((&told["signatures"], &told["wrong"], &told["unexplained"]), (&json!(6), &json!(0), &json!(0)));

    let good = read(&report);
    let of = |digest: &Digest| {
        let items = good["items"].as_array().unwrap();
        items.iter().position(|item| item["digest"] == digest.to_string()).unwrap()
    };
    let audit = |edit: &dyn Fn(&mut Value), extra: &[&str]| {
        let mut edited = good.clone();
        edit(&mut edited);
        desk.audit(&desk.report("edited.json", &edited), extra)
    };
    #[track_caller]
    fn says(ran: &Ran, code: i32, what: &str) {
        assert!(ran.code == Some(code) && ran.stdout.contains(what), "{what}: {ran:#?}");
    }
    // The old signature is the list's, and nobody else's.
    let (member, other) = (of(&nested.members[0]), of(&stranger));
    let without = |report: &mut Value| drop(report["items"][member].as_object_mut().unwrap().remove("list"));
    says(&audit(&without, &[]), 1, "is not in the source");
    let of_other = |report: &mut Value| report["items"][member]["list"] = json!(nested.inner.to_string());
    says(&audit(&of_other, &[]), 1, "is not in the source");
    let elsewhere = |report: &mut Value| report["items"][member]["place"] = good["items"][other]["place"].clone();
    says(&audit(&elsewhere, &[]), 1, "the report says place birds/many@");
    // A stranger, signed as if it were of the list.
    let (key, digest, new) = (keys::secret("bob"), stranger.to_string(), desk.path("new"));
    let sign = ["sign", "us.icr.io/birds/many:1", "--key", text(&key), "--digest", &digest, "--to", &new];
    desk.host.countersign(&sign).accepted();
    let forged = std::fs::read(format!("{new}/birds/many@{}/signature-2", stranger.path_form())).unwrap();
    let smuggled = |report: &mut Value| {
        let mut item = report["items"][member].clone();
        item["digest"] = json!(digest);
        item["place"] = good["items"][other]["place"].clone();
        item["new_blobs"] = json!([Digest::sha256(&forged).hex()]);
        report["items"].as_array_mut().unwrap().push(item);
        report["totals"]["signed"] = json!(7);
    };
    says(&audit(&smuggled, &[]), 1, "it is no instance of the signed list");
    assert_eq!(super::json(&audit(&|_| {}, &[]))["unexplained"], 1);
    // A refusal that nobody would repeat.
    let refused = |report: &mut Value| {
        report["items"][other]["state"] = json!("refused");
        (report["totals"]["signed"], report["totals"]["refused"]) = (json!(5), json!(1));
    };
    says(&audit(&refused, &[]), 1, "but the old policy accepts it");

    // A registry that cannot be asked, or that has no such list, tells nothing.
    says(&audit(&|_| {}, &["--check-registry", "127.0.0.1:1"]), 2, "cannot ask the new registry");
    let empty = Web::start(|heard| Said::new(if heard.path == "/v2/" { "200 OK" } else { "404 Not Found" }));
    says(&audit(&|_| {}, &["--check-registry", &empty.address]), 2, "no longer has the list");
    let lying = Web::start(|_| Said::new("200 OK").body(b"{}"));
    let ran = audit(&|_| {}, &["--check-registry", &lying.address]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
}

#[test]
fn what_vouches_for_one_claim_has_one_fate() {
    let desk = Desk::new();
    let tree = desk.host.path().join("old");
    let (one, two) = (ImageFolder::image("one"), ImageFolder::image("two"));
    let old = desk.push(&one, "birds/robin:1");
    let new = desk.push(&two, "birds/robin:1");
    let copy = |digest: &Digest| {
        // The same repository below the old registry's name, as a mirror has it.
        let from = tree.join(format!("birds/robin@{}", digest.path_form()));
        let to = tree.join(format!("registry.ng.bluemix.net/birds/robin@{}", digest.path_form()));
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    for _ in 0..2 {
        desk.sign_into(&tree, "birds/robin:1", &old);
        desk.sign_into(&tree, "birds/robin:1", &new);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    copy(&old);
    copy(&new);
    // Left out, all of them: none is said to be there because another would be.
    let report = desk.path("current.json");
    let check = ["--check", "current", "--check-registry", desk.registry.address(), "--report", &report];
    let ran = desk.resign(text(&tree), &desk.docker(""), &check);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [1, 3, 4, 0, 0]), "{ran:?}");
    desk.audit(&report, &[]).accepted();
    assert_eq!(desk.claims("store", "birds/robin", &new), ["us.icr.io/birds/robin:1"]);
    // Failed, all of them.
    let broken = Web::start(|heard| match (heard.method.as_str(), heard.path.as_str()) {
        ("GET", "/v2/") => Said::new("200 OK").header("X-Registry-Supports-Signatures", "1"),
        ("GET", _) => Said::new("200 OK").body(b"{\"signatures\":[]}"),
        _ => Said::new("403 Forbidden"),
    });
    let ran = desk.resign(text(&tree), &format!("docker://{}", broken.address), &[]);
    assert_eq!((ran.code, totals(&ran)), (Some(1), [0, 0, 0, 0, 8]), "{ran:?}");
}
