//! Scopes of policy.json that somebody meant for this image, and that never match it
//! (spec containers-image 5.4): scopes are compared as texts, nothing is expanded or cleaned.

use super::Findings;
use crate::doctor::finding::{Ailment, Severity};
use crate::doctor::fix;
use crate::doctor::observation::Observations;
use crate::doctor::report::Outcome;
use crate::escape;
use crate::image::{Reference, scopes};
use crate::policy::ScopeMatch;

pub(super) fn look(seen: &Observations, findings: &mut Findings) {
    let Some(applied) = &seen.scope else { return };
    let image = seen.image.as_reference();
    let wanted = scopes(image);
    let place = |scope: &str| wanted.iter().position(|wanted| wanted == scope);
    let applied_place = match applied {
        ScopeMatch::Scope(scope) => place(scope),
        ScopeMatch::TransportDefault | ScopeMatch::Default => None,
    };
    for scope in &seen.docker_scopes {
        let Some((meant, why)) = meant(scope, image) else { continue };
        // Only what would have been nearer than what applied, and is not there in its right form.
        let nearer = place(&meant) < applied_place || applied_place.is_none();
        if !nearer || seen.docker_scopes.contains(&meant) {
            continue;
        }
        let accepted = seen.outcome() == Outcome::Accepted;
        let came = if accepted { "accepted" } else { "judged" };
        findings.add(
            Ailment::ScopeNeverMatches,
            if seen.outcome() == Outcome::Rejected { Severity::Fails } else { Severity::Note },
            format!(
                "The scope {scope:?} in {} never matches {image}: {why}. The image was {came} under {} instead.",
                seen.paths.policy.display(),
                match applied {
                    ScopeMatch::Scope(scope) => format!("the scope {scope:?}"),
                    ScopeMatch::TransportDefault => "the scope \"\" of docker".to_owned(),
                    ScopeMatch::Default => "the default".to_owned(),
                }
            ),
            format!(
                "# {}, \"transports\", \"docker\": the scope must read\n-  {}: [\n+  {}: [",
                escape::path(&seen.paths.policy),
                fix::json(scope),
                fix::json(&meant)
            ),
        );
    }
}

/// Tells which scope of the image somebody meant, and why what he wrote is none.
fn meant(scope: &str, image: &Reference) -> Option<(String, &'static str)> {
    let wanted = scopes(image);
    let is_scope = |text: &str| wanted.iter().any(|wanted| wanted == text);
    if scope.is_empty() || is_scope(scope) {
        return None;
    }
    let found = |text: &str, why| is_scope(text).then(|| (text.to_owned(), why));
    let simpler = |text: &str, why| found(text, why).or_else(|| meant(text, image).map(|(meant, _)| (meant, why)));
    for scheme in ["docker://", "https://", "http://"] {
        if let Some(rest) = scope.strip_prefix(scheme) {
            return simpler(rest, "scopes have no scheme");
        }
    }
    if let Some(rest) = scope.strip_suffix('/') {
        return simpler(rest.trim_end_matches('/'), "scopes do not end in a slash");
    }
    if scope.chars().any(char::is_uppercase) {
        return simpler(&scope.to_lowercase(), "scopes are compared with upper and lower case");
    }
    let domain = image.repository().domain();
    let host = bare(domain);
    if let Some(rest) = scope.strip_prefix("*.") {
        let (wild, path) = rest.split_once('/').map_or((rest, false), |(wild, _)| (wild, true));
        let wildcard = format!("*.{}", bare(wild));
        if path {
            return found(&wildcard, "a wildcard stands for whole hosts, no path may follow it");
        }
        if bare(wild) != wild {
            return found(&wildcard, "wildcards are looked up without a port");
        }
        return (wild == host).then(|| (domain.to_owned(), "a wildcard does not match the domain itself"));
    }
    let (first, rest) = scope.split_once('/').map_or((scope, ""), |(first, _)| (first, &scope[first.len()..]));
    let ports = (bare(first) != first, host != domain);
    if bare(first) == host && ports.0 != ports.1 {
        let why = if ports.1 { "it lacks the port of the image's registry" } else { "the image's name has no port" };
        return found(&format!("{domain}{rest}"), why);
    }
    let short = "scopes are never expanded: short names must be written out in full";
    let expanded = Reference::parse(scope).ok().and_then(|reference| found(&reference.to_string(), short));
    expanded.or_else(|| found(&format!("docker.io/{scope}"), short))
}

/// A host without its port.
fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, names};
    use super::*;
    use crate::doctor::diagnose;

    fn meant_by(scope: &str, image: &str) -> Option<String> {
        let image = crate::image::ImageReference::parse(image).unwrap();
        meant(scope, image.as_reference()).map(|(meant, _)| meant)
    }

    #[test]
    fn near_misses() {
        for (scope, image, expected) in [
            ("example.com", "example.com:5000/ns/r:1", Some("example.com:5000")),
            ("example.com/ns", "example.com:5000/ns/r:1", Some("example.com:5000/ns")),
            ("example.com:5000", "example.com/ns/r:1", Some("example.com")),
            ("example.com:5001", "example.com:5000/ns/r:1", None),
            ("example.com/", "example.com/ns/r:1", Some("example.com")),
            ("example.com/ns/", "example.com:5000/ns/r:1", Some("example.com:5000/ns")),
            ("docker://example.com", "example.com/r:1", Some("example.com")),
            ("https://example.com/", "example.com/r:1", Some("example.com")),
            ("Example.com", "example.com/r:1", Some("example.com")),
            ("*.example.com:5000", "a.example.com:5000/r:1", Some("*.example.com")),
            ("*.example.com/ns", "a.example.com/ns/r:1", Some("*.example.com")),
            ("*.example.com", "example.com/r:1", Some("example.com")),
            ("*.example.com", "example.com:5000/r:1", Some("example.com:5000")),
            ("*.example.com", "a.example.com/r:1", None),
            ("busybox", "busybox:1", Some("docker.io/library/busybox")),
            ("busybox:1", "busybox:1", Some("docker.io/library/busybox:1")),
            ("library/busybox", "busybox:1", Some("docker.io/library/busybox")),
            ("library", "busybox:1", Some("docker.io/library")),
            ("docker.io/busybox", "busybox:1", Some("docker.io/library/busybox")),
            ("index.docker.io/library/busybox", "busybox:1", Some("docker.io/library/busybox")),
            ("alpine", "busybox:1", None),
            ("other.com", "example.com/r:1", None),
            ("example.com/other/", "example.com/r:1", None),
            ("example.com/r:2", "example.com/r:1", None),
            ("", "example.com/r:1", None),
            ("/", "example.com/r:1", None),
            ("*.", "example.com/r:1", None),
        ] {
            assert_eq!(meant_by(scope, image).as_deref(), expected, "{scope} {image}");
        }
    }

    #[test]
    fn said_only_where_it_would_have_mattered() {
        let case = |applied: ScopeMatch, scopes: &[&str]| {
            let mut case = Case::new("example.com:5000/ns/r:1").accepted();
            case.seen.scope = Some(applied);
            case.seen.docker_scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            case
        };
        let seen = case(ScopeMatch::Default, &["example.com"]).seen;
        assert_eq!(names(&seen), ["note: scope-never-matches"]);
        insta::assert_snapshot!(diagnose(&seen)[0].sentence, @r#"The scope "example.com" in /etc/containers/policy.json never matches example.com:5000/ns/r:1: it lacks the port of the image's registry. The image was accepted under the default instead."#);
        let narrow = ScopeMatch::Scope("example.com:5000/ns".into());
        assert!(names(&case(narrow.clone(), &["example.com:5000/ns", "example.com"]).seen).is_empty());
        let found = names(&case(narrow, &["example.com:5000/ns", "example.com/ns/r"]).seen);
        assert_eq!(found, ["note: scope-never-matches"]);
        let wide = ScopeMatch::Scope("example.com:5000".into());
        assert!(
            names(&case(wide, &["example.com", "example.com:5000"]).seen).is_empty(),
            "a scope for another registry"
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_meant_is_a_scope_and_what_matches_is_no_miss(
            scope in "(\\*\\.|docker://)?[a-cA]{0,2}([.:/][a-c0-9]{0,2}){0,4}/?",
            image in "[a-c]\\.[a-c]{1,2}(:[0-9])?/[a-c](/[a-c])?:[a-c]",
        ) {
            let image = Reference::parse(&image).unwrap();
            let wanted = scopes(&image);
            if let Some((meant, _)) = meant(&scope, &image) {
                proptest::prop_assert!(wanted.contains(&meant));
                proptest::prop_assert!(!wanted.contains(&scope));
            }
        }
    }
}
