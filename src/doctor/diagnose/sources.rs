//! The way to the manifest: blocked registries, pings, manifests, members of lists.

use super::Findings;
use crate::doctor::finding::{Ailment, Severity};
use crate::doctor::fix;
use crate::doctor::observation::{Observations, SourceSeen};
use crate::escape;

pub(super) fn look(seen: &Observations, findings: &mut Findings) {
    // A source that failed is only worth a word when another one served.
    let severity = if seen.manifest.is_some() { Severity::Note } else { Severity::Fails };
    for source in &seen.sources {
        look_at(seen, source, severity, findings);
    }
    let Some(manifest) = &seen.manifest else { return };
    if let (Some(platform), Some((list, instances))) = (&manifest.no_instance_for, &manifest.list) {
        let platforms: Vec<&str> = instances.iter().map(|instance| instance.platform.as_str()).collect();
        findings.add(
            Ailment::NoInstance,
            Severity::Fails,
            format!("The list {list} has no image for {platform}; it has {}.", platforms.join(", ")),
            override_platform(platforms.first().copied().unwrap_or("linux/amd64"), &seen.image.to_string()),
        );
    }
}

fn override_platform(platform: &str, image: &str) -> String {
    // Words of a stranger in a line to paste: nothing but letters and digits.
    let harmless = |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let mut parts = platform.split('/').filter(harmless);
    let (os, architecture) = (parts.next().unwrap_or("linux"), parts.next().unwrap_or("amd64"));
    format!("skopeo --override-os {os} --override-arch {architecture} copy docker://{image} DESTINATION")
}

fn look_at(seen: &Observations, source: &SourceSeen, severity: Severity, findings: &mut Findings) {
    let name = &source.source.reference;
    let registry = name.repository().domain();
    if let Some(blocked) = &source.source.blocked {
        findings.add(
            Ailment::RegistryBlocked,
            severity,
            format!(
                "registries.conf blocks {name}: `blocked = true` for {} in {}.",
                blocked.prefix,
                blocked.from.display()
            ),
            format!(
                "# {}: in the table of {}\nblocked = false",
                escape::path(&blocked.from),
                escape::text(&blocked.prefix)
            ),
        );
    }
    match &source.ping {
        Some(Err(sentence)) if source.plain_http => findings.add(
            Ailment::RegistryPlainHttp,
            severity,
            format!("{registry} answers on plain http only, which clients do not try unless told so: {sentence}"),
            match &source.source.from {
                Some(file) => {
                    format!("# {}: in the [[registry]] or [[registry.mirror]] of {registry}\ninsecure = true", escape::path(file))
                }
                None => fix::registry_table(
                    &seen.paths,
                    &[format!("location = \"{registry}\""), "insecure = true".to_owned()],
                ),
            },
        ),
        Some(Err(sentence)) if source.untrusted_certificate => findings.add(
            Ailment::RegistryCertificate,
            severity,
            format!("{registry} answers, but its certificate is not trusted on this host: {sentence}"),
            format!(
                "mkdir -p /etc/containers/certs.d/{registry}\ncp AUTHORITY.crt /etc/containers/certs.d/{registry}/ca.crt"
            ),
        ),
        Some(Err(sentence)) => findings.add(
            Ailment::RegistryUnreachable,
            severity,
            format!("{registry} does not answer the ping as a registry does: {sentence}"),
            format!("curl -v https://{}/v2/   # 200 or 401 is wanted", contact(registry)),
        ),
        _ => {}
    }
    if let Some(sentence) = &source.manifest_failure {
        findings.add(
            Ailment::ManifestUnavailable,
            severity,
            format!("{registry} does not give the manifest of {name}: {sentence}"),
            format!(
                "podman login {registry}   # if it wants credentials\nskopeo list-tags docker://{}",
                name.repository()
            ),
        );
    }
}

fn contact(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, names};
    use crate::doctor::diagnose;
    use crate::doctor::observation::SourceSeen;
    use crate::doctor::report::Outcome;
    use crate::image::{Digest, Instance};
    use crate::registries_conf::Blocked;

    #[test]
    fn no_way_to_the_manifest() {
        let mut case = Case::new("q.io/a:1");
        case.seen.manifest = None;
        case.seen.place = None;
        case.seen.judged = None;
        let source = case.seen.sources.remove(0);
        let with = |change: &dyn Fn(&mut SourceSeen)| {
            let mut seen = case.seen.clone();
            let mut source = source.clone();
            change(&mut source);
            seen.sources.push(source);
            assert_eq!(seen.outcome(), Outcome::Failed);
            (names(&seen), diagnose(&seen).remove(0).fix)
        };
        let refused = || Some(Err("pinging container registry q.io: refused".to_owned()));
        assert_eq!(with(&|source| source.ping = refused()).0, ["registry-unreachable"]);
        let (name, fix) = with(&|source| {
            source.ping = refused();
            source.plain_http = true;
        });
        assert_eq!(name, ["registry-plain-http"]);
        insta::assert_snapshot!(fix, @r#"
        # /etc/containers/registries.conf.d/countersign.conf
        [[registry]]
        location = "q.io"
        insecure = true
        "#);
        let (name, fix) = with(&|source| {
            source.ping = refused();
            source.untrusted_certificate = true;
        });
        assert_eq!(name, ["registry-certificate-not-trusted"]);
        assert!(fix.contains("/etc/containers/certs.d/q.io/ca.crt"));
        assert_eq!(with(&|source| source.manifest_failure = Some("unknown".into())).0, ["manifest-unavailable"]);
        let blocked = Blocked { prefix: "q.io".into(), from: "/r.conf".into() };
        assert_eq!(with(&|source| source.source.blocked = Some(blocked.clone())).0, ["registry-blocked"]);
    }

    #[test]
    fn a_mirror_that_fails_is_a_note_when_another_source_served() {
        let mut case = Case::new("q.io/a:1").accepted();
        let mut mirror = case.seen.sources[0].clone();
        mirror.source.is_mirror = true;
        mirror.manifest_failure = Some("unknown".into());
        case.seen.sources.insert(0, mirror);
        assert_eq!(names(&case.seen), ["note: manifest-unavailable"]);
    }

    #[test]
    fn no_member_for_this_platform() {
        let mut case = Case::new("q.io/a:1");
        let members =
            vec![Instance { digest: Digest::sha256(b"m"), platform: "linux/s390x".into(), media_type: String::new() }];
        let manifest = case.seen.manifest.as_mut().unwrap();
        manifest.list = Some((Digest::sha256(b"list"), members));
        manifest.no_instance_for = Some("linux/amd64".into());
        case.seen.place = None;
        case.seen.judged = None;
        assert_eq!(names(&case.seen), ["no-instance-for-platform"]);
        let members = &mut case.seen.manifest.as_mut().unwrap().list.as_mut().unwrap().1;
        members.insert(
            0,
            Instance { digest: Digest::sha256(b"m"), platform: "$(reboot)/`reboot`".into(), media_type: String::new() },
        );
        assert!(!diagnose(&case.seen).remove(0).fix.contains("reboot"));
        case.seen.manifest.as_mut().unwrap().list.as_mut().unwrap().1.remove(0);
        let fix = diagnose(&case.seen).remove(0).fix;
        assert_eq!(fix, "skopeo --override-os linux --override-arch s390x copy docker://q.io/a:1 DESTINATION");
    }
}
