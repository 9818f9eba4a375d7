//! Extension, header, lookasides, mirrors and lists, each with what it takes to be told apart.

use super::super::testing::{Case, lookaside, names, requirements};
use super::*;
use crate::doctor::diagnose;
use crate::doctor::observation::{NamespaceSeen, WriteSeen};
use crate::image::{Digest, Instance, Reference};
use crate::policy::Reason;

const IMAGE: &str = "q.io/birds/bluebird:1";

fn with_extension(result: Result<usize, String>) -> Case {
    let mut case = Case::new(IMAGE);
    case.ping().signatures = true;
    let url = "https://q.io/extensions/v2/birds/bluebird/signatures/sha256:x".to_owned();
    case.place().extension = Some((url, result));
    case.place().lookaside = None;
    case
}

fn failed(failure: ReadFailure) -> Case {
    let mut case = Case::new(IMAGE);
    let mut seen = lookaside("https://sigs.s3.eu-de.amazonaws.com/base", 0);
    seen.outcome = ReadOutcome::Failed { at: "https://h/signature-1".into(), failure };
    case.place().lookaside = Some(seen);
    case.seen.judged.as_mut().unwrap().reason = Some(Reason::Fetch("reading signature".into()));
    case
}

#[test]
fn the_extension_hides_the_lookaside() {
    let mut case = with_extension(Ok(0));
    assert_eq!(names(&case.seen), ["not-signed"]);
    case.place().lookaside = Some(lookaside("https://h/base", 0));
    assert_eq!(names(&case.seen), ["not-signed", "note: extension-hides-lookaside"]);
    case.place().lookaside = Some(lookaside("file:///srv/sigs", 2));
    assert_eq!(names(&case.seen), ["extension-hides-lookaside"]);
    let finding = diagnose(&case.seen).remove(0);
    insta::assert_snapshot!(finding.sentence, @"https://q.io announces the signature extension, so clients ask that alone and never the lookaside file:///srv/sigs, which /etc/x.yaml names for q.io; 2 signature(s) of this image lie there unread.");
    insta::assert_snapshot!(finding.fix, @r"
    # either give the extension the lookaside's signatures: countersign serves one tree by both ways
    countersign serve --upstream REGISTRY-URL --store file:///srv/sigs
    # or let the registry no longer announce the extension; in nginx before it:
    proxy_hide_header X-Registry-Supports-Signatures;
    ");
    // Of the default folder nobody expects anything.
    case.place().lookaside.as_mut().unwrap().origin = Some(Origin::BuiltIn);
    assert!(!names(&case.seen).iter().any(|name| name.contains("hides")));
    case.seen.judged.as_mut().unwrap().accepted = true;
    case.place().lookaside = Some(lookaside("https://h/base", 2));
    assert_eq!(names(&case.seen), ["note: extension-hides-lookaside"]);
}

#[test]
fn the_extension_fails() {
    let mut case = with_extension(Err("downloading signatures: HTTP status 404".into()));
    assert_eq!(names(&case.seen), ["extension-fails"]);
    // Also under a policy that accepts anything.
    case.seen.judged.as_mut().unwrap().accepted = true;
    case.seen.requirements = requirements(r#"{"type":"insecureAcceptAnything"}"#);
    assert_eq!(case.seen.outcome(), Outcome::Failed);
    assert_eq!(names(&case.seen)[0], "extension-fails");
}

#[test]
fn the_header_is_not_where_clients_look() {
    let mut case = Case::new(IMAGE);
    let known =
        crate::registry::Ping { status: 200, signatures: true, announced: Some("1".into()), ..case.ping().clone() };
    case.seen.sources[0].with_credentials = Some(known);
    assert_eq!(names(&case.seen), ["header-missing-on-401"]);
    let finding = diagnose(&case.seen).remove(0);
    assert!(finding.fix.contains("add_header X-Registry-Supports-Signatures 1 always;"), "{}", finding.fix);
    assert!(finding.sentence.contains("`GET https://q.io/v2/` without credentials was answered 401"));
    let mut healthy = case.accepted();
    assert_eq!(names(&healthy.seen), ["note: header-missing-on-401"]);
    healthy.seen.sources[0].with_credentials.as_mut().unwrap().signatures = false;
    assert!(names(&healthy.seen).is_empty());

    let mut case = Case::new(IMAGE);
    case.ping().announced = Some("true".into());
    assert_eq!(names(&case.seen), ["header-value-not-1"]);
}

#[test]
fn lookasides_that_do_not_know_404() {
    for (failure, name) in [
        (ReadFailure::Status(403), "lookaside-forbidden"),
        (ReadFailure::Status(410), "lookaside-unexpected-status"),
        (ReadFailure::Html, "lookaside-html"),
        (ReadFailure::Empty, "lookaside-empty-body"),
        (ReadFailure::NotASignature("armour".into()), "lookaside-not-a-signature"),
        (ReadFailure::Unreachable("refused".into()), "lookaside-unreachable"),
        (ReadFailure::Unreadable("open: permission denied".into()), "lookaside-unreadable"),
        (ReadFailure::Url("Unsupported scheme".into()), "lookaside-url-unusable"),
        (ReadFailure::Endless, "lookaside-too-many-signatures"),
    ] {
        let mut case = failed(failure);
        assert_eq!((names(&case.seen), case.seen.outcome()), (vec![name.to_owned()], Outcome::Rejected));
        assert!(!diagnose(&case.seen)[0].fix.is_empty());
        // Signatures are copied along, so it is fatal under any policy.
        case.seen.judged.as_mut().unwrap().accepted = true;
        assert_eq!(case.seen.outcome(), Outcome::Failed);
        assert_eq!(names(&case.seen)[0], name);
    }
    insta::assert_snapshot!(diagnose(&failed(ReadFailure::Status(403)).seen)[0].fix, @r#"
    # either let readers list the bucket, in its policy:
    {"Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::sigs"}
    # or put countersign before it, which answers 404:
    countersign serve --store s3://sigs/PREFIX
    "#);
    assert!(bucket_policy("https://s3.eu-de.amazonaws.com/name/prefix").contains("arn:aws:s3:::name\""));
    assert!(bucket_policy("https://cdn.example/x").contains("arn:aws:s3:::BUCKET\""));
}

#[test]
fn an_unreadable_default_folder_is_left_for_another() {
    let mut case = failed(ReadFailure::Unreadable("open: permission denied".into()));
    assert!(diagnose(&case.seen)[0].fix.contains("chmod"));
    case.place().lookaside.as_mut().unwrap().origin = Some(Origin::BuiltIn);
    assert!(diagnose(&case.seen)[0].fix.contains("lookaside-staging: file:///home/u/signatures"));
}

#[test]
fn nothing_is_signed() {
    assert_eq!(names(&Case::new(IMAGE).seen), ["not-signed"]);
    let mut case = Case::new("registry.redhat.io/birds/bluebird:1");
    let mut nobody = lookaside("file:///var/lib/containers/sigstore", 0);
    nobody.origin = Some(Origin::BuiltIn);
    case.place().lookaside = Some(nobody);
    assert_eq!(names(&case.seen), ["lookaside-not-configured"]);
    insta::assert_snapshot!(diagnose(&case.seen)[0].fix, @r"
    # /etc/containers/registries.d/registry.redhat.io.yaml
    docker:
      registry.redhat.io:
        lookaside: https://registry.redhat.io/containers/sigstore
    ");
    case.seen.requirements = requirements(r#"{"type":"reject"}"#);
    assert_eq!(names(&case.seen), ["rejected-by-policy"], "a signature would not help");
}

#[test]
fn the_list_is_signed_and_its_member_is_not() {
    let mut case = Case::new(IMAGE);
    let member = |name: &str| Instance {
        digest: Digest::sha256(name.as_bytes()),
        platform: format!("linux/{name}"),
        media_type: String::new(),
    };
    case.seen.manifest.as_mut().unwrap().list = Some((Digest::sha256(b"list"), vec![member("amd64"), member("arm64")]));
    assert_eq!(names(&case.seen), ["not-signed"]);
    case.place().of_list = Some(0);
    assert_eq!(names(&case.seen), ["not-signed"]);
    case.place().of_list = Some(1);
    assert_eq!(names(&case.seen), ["instance-not-signed"]);
    let finding = diagnose(&case.seen).remove(0);
    for architecture in ["amd64", "arm64"] {
        let line = format!(
            "countersign sign q.io/birds/bluebird:1 --key SIGNER.asc --digest {} --to STORE",
            member(architecture).digest
        );
        assert!(finding.fix.contains(&line), "{}", finding.fix);
    }
}

#[test]
fn a_mirror_asks_by_its_own_path() {
    let mut case = Case::new("vendor.example/birds/bluebird:1");
    case.seen.manifest.as_mut().unwrap().physical = Reference::parse("mirror.x:5000/vendor/birds/bluebird:1").unwrap();
    assert_eq!(names(&case.seen), ["not-signed"]);
    case.place().logical = Some((lookaside("https://h/base/", 1), "birds/bluebird".to_owned()));
    assert_eq!(names(&case.seen), ["mirror-path-differs"]);
    insta::assert_snapshot!(diagnose(&case.seen)[0].fix, @r#"
    # copy the signatures to the path by which clients look:
    cd FOLDER-OF-THE-LOOKASIDE && mkdir -p vendor/birds && for set in birds/bluebird@*; do cp -an "$set" "vendor/birds/bluebird@${set##*@}"; done
    # or let its web server map the path; nginx:
    rewrite ^/base/vendor/birds/bluebird(@.*)$ /base/birds/bluebird$1 last;
    "#);
    case.place().logical = Some((lookaside("file:///srv/a b/", 1), "birds/bluebird".to_owned()));
    insta::assert_snapshot!(diagnose(&case.seen)[0].fix, @r#"
    # copy the signatures to the path by which clients look:
    cd '/srv/a b' && mkdir -p vendor/birds && for set in birds/bluebird@*; do cp -an "$set" "vendor/birds/bluebird@${set##*@}"; done
    # /etc/containers/registries.d/mirror.x-5000.yaml
    docker:
      mirror.x:5000:
        lookaside: "file:///srv/a b"
    "#);
}

#[test]
fn the_default_folder_cannot_be_written() {
    let mut case = Case::new(IMAGE).accepted();
    let folder = std::path::PathBuf::from("/var/lib/containers/sigstore");
    case.seen.write = Some(WriteSeen { default_store: Some(folder.clone()), unwritable: None });
    assert!(names(&case.seen).is_empty());
    case.seen.write = Some(WriteSeen { default_store: Some(folder), unwritable: Some("permission denied".into()) });
    assert_eq!(names(&case.seen), ["note: default-lookaside-unwritable"]);
    insta::assert_snapshot!(diagnose(&case.seen)[0].fix, @r"
    # /etc/containers/registries.d/q.io.yaml
    docker:
      q.io:
        lookaside: file:///home/u/signatures
        lookaside-staging: file:///home/u/signatures
    ");
    case.place().extension = Some(("https://q.io/extensions/".into(), Ok(1)));
    assert!(!names(&case.seen).iter().any(|name| name.contains("unwritable")), "the extension is written to");
}

#[test]
fn slash_too_much_is_named_and_nobody_signs_again() {
    let mut case = Case::new("q.io/birds/bluebird:1");
    case.place().lookaside = Some(lookaside("https://h/base/", 0));
    case.place().without_slash = Some(lookaside("https://h/base", 1));
    assert_eq!(names(&case.seen), ["lookaside-doubled-slash"]);
    let there =
        NamespaceSeen { path: "/etc/x.yaml".into(), lookaside: "https://h/base/".into(), ..NamespaceSeen::default() };
    case.seen.namespaces.insert("q.io".into(), there);
    insta::assert_snapshot!(diagnose(&case.seen)[0].fix, @r"
    # /etc/x.yaml: change the section q.io that is there (a second one in another file would fail every pull)
    -    lookaside: https://h/base/
    +    lookaside: https://h/base
    ");
}
