//! Where signatures were looked for: the extension and its header, lookasides and what they answer,
//! paths of mirrors, members of lists.

use super::Findings;
use crate::doctor::finding::{Ailment, Severity};
use crate::doctor::fix;
use crate::doctor::observation::{LookasideSeen, ManifestSeen, Observations, PlaceSeen, ReadFailure, ReadOutcome};
use crate::doctor::report::Outcome;
use crate::escape;
use crate::registries_d::Origin;

const STORE: &str = "STORE";

pub(super) fn look(seen: &Observations, findings: &mut Findings) {
    let header = header(seen, findings);
    if let (Some(place), Some(manifest)) = (&seen.place, &seen.manifest) {
        match &place.extension {
            Some((url, result)) => extension(seen, place, url, result, findings),
            None => {
                if let Some(lookaside) = &place.lookaside {
                    read(seen, lookaside, findings);
                }
            }
        }
        if !header && place.simple() == Some(0) && seen.outcome() == Outcome::Rejected && wants_signatures(seen) {
            nothing_found(seen, place, manifest, findings);
        }
    }
    write(seen, findings);
}

/// Tells whether the policy wants a simple signature.
fn wants_signatures(seen: &Observations) -> bool {
    seen.requirements.iter().any(|requirement| matches!(requirement, crate::policy::Requirement::SignedBy(_)))
}

/// The extension's header where clients do not see it. Tells whether that is the cause of all.
fn header(seen: &Observations, findings: &mut Findings) -> bool {
    let Some(source) = seen.sources.last() else { return false };
    let Some(Ok(ping)) = &source.ping else { return false };
    let registry = source.source.reference.repository().domain();
    let severity = seen.severity();
    let nginx = "# at the registry; in nginx, which without `always` adds it to good answers only:\n\
                 add_header X-Registry-Supports-Signatures 1 always;";
    if ping.signatures {
        return false;
    }
    if source.with_credentials.as_ref().is_some_and(|known| known.signatures) {
        findings.add(
            Ailment::HeaderMissingOn401,
            severity,
            format!(
                "{registry} has the signature extension, but says so only to those who are logged in: `GET {}` without \
                 credentials was answered {} without X-Registry-Supports-Signatures. Clients look at that answer only, \
                 and so do not use the extension.",
                ping.url, ping.status
            ),
            nginx.to_owned(),
        );
        return severity == Severity::Fails;
    }
    if let Some(value) = &ping.announced {
        findings.add(
            Ailment::HeaderValue,
            severity,
            format!(
                "{registry} sends X-Registry-Supports-Signatures: {value:?}; clients take only exactly 1, once, and so \
                 do not use the extension."
            ),
            nginx.to_owned(),
        );
        return severity == Severity::Fails;
    }
    false
}

fn extension(
    seen: &Observations,
    place: &PlaceSeen,
    url: &str,
    result: &Result<usize, String>,
    findings: &mut Findings,
) {
    if let Err(sentence) = result {
        findings.add(
            Ailment::ExtensionFails,
            Severity::Fails,
            format!(
                "`GET {url}` must be answered 200 with a list, which is empty where there are no signatures; everything \
                 else fails the pull, of unsigned images too: {sentence}"
            ),
            "# at the registry: answer 200 {\"signatures\":[]} for what is not signed, or do not announce the extension;\n\
             # countersign before it does so:\ncountersign serve --upstream REGISTRY-URL --store STORE"
                .to_owned(),
        );
    }
    let Some(LookasideSeen { base, origin: Some(Origin::File { path, namespace, .. }), outcome, .. }) =
        &place.lookaside
    else {
        return;
    };
    let (severity, there) = match outcome {
        ReadOutcome::Found(0) => (Severity::Note, "nothing of this image is there either".to_owned()),
        ReadOutcome::Found(count) => (seen.severity(), format!("{count} signature(s) of this image lie there unread")),
        ReadOutcome::Failed { .. } => (Severity::Note, "it could not be read either".to_owned()),
    };
    let registry = url.split("/extensions/").next().unwrap_or(url);
    findings.add(
        Ailment::ExtensionHidesLookaside,
        severity,
        format!(
            "{registry} announces the signature extension, so clients ask that alone and never the lookaside {base}, \
             which {} names for {namespace}; {there}.",
            path.display()
        ),
        format!(
            "# either give the extension the lookaside's signatures: countersign serves one tree by both ways\n\
             countersign serve --upstream REGISTRY-URL --store {}\n\
             # or let the registry no longer announce the extension; in nginx before it:\n\
             proxy_hide_header X-Registry-Supports-Signatures;",
            escape::shell(folder(base).unwrap_or(STORE))
        ),
    );
}

/// A folder as `--store` takes it.
fn folder(base: &str) -> Option<&str> {
    base.starts_with("file://").then_some(base)
}

fn read(seen: &Observations, lookaside: &LookasideSeen, findings: &mut Findings) {
    let ReadOutcome::Failed { at, failure } = &lookaside.outcome else { return };
    let configured = match &lookaside.origin {
        Some(Origin::File { path, namespace, .. }) => {
            format!(" ({} names {} for {namespace})", path.display(), lookaside.base)
        }
        Some(Origin::BuiltIn) | None => String::new(),
    };
    let rule = "clients take only 404 for \"no more signatures\" and fail the pull, of unsigned images too";
    let get = format!("`GET {at}`");
    let (ailment, sentence, fix) = match failure {
        ReadFailure::Status(403) => (
            Ailment::LookasideForbidden,
            format!(
                "{get} was answered 403 Forbidden; {rule}{configured}. Buckets answer so for what is not there, unless \
                 the reader may list them."
            ),
            bucket_policy(&lookaside.base),
        ),
        ReadFailure::Status(status) => (
            Ailment::LookasideStatus,
            format!("{get} was answered {status}; {rule}{configured}."),
            "# at the web server: 200 with the signature, or 404; no logins, no redirects to pages".to_owned(),
        ),
        ReadFailure::Html => (
            Ailment::LookasideHtml,
            format!(
                "{get} was answered 200 with a web page, not a signature{configured}: the base is no lookaside, or the \
                 server shows a page instead of 404. {}{rule}.",
                "As it stands, "
            ),
            format!(
                "# at the web server, nginx: 404 for what is not there\nlocation / {{ try_files $uri =404; }}\n# or, if \
                 the base is wrong:\n{}",
                fix::registries_d(seen, namespace(seen), "https://HOST/BASE", None)
            ),
        ),
        ReadFailure::Empty => (
            Ailment::LookasideEmptyBody,
            format!("{get} was answered 200 with an empty body, which is no signature; {rule}{configured}."),
            "# at the store: remove empty objects; in a folder:\nfind FOLDER -name 'signature-*' -empty -delete"
                .to_owned(),
        ),
        ReadFailure::NotASignature(sentence) => (
            Ailment::LookasideNotASignature,
            format!("{at} is no signature: {sentence}; one such fails the pull{configured}. Armour is not taken."),
            format!(
                "gpg --dearmor < signature > signature.bin   # if it is armoured\ncountersign inspect {}",
                escape::shell(file(at))
            ),
        ),
        ReadFailure::Unreachable(sentence) => (
            Ailment::LookasideUnreachable,
            format!("The lookaside does not answer, which fails the pull{configured}: {sentence}"),
            format!("curl -v {}   # 200 or 404 is wanted", escape::shell(at)),
        ),
        ReadFailure::Unreadable(sentence) => (
            Ailment::LookasideUnreadable,
            format!("A file is there but cannot be read, which fails the pull{configured}: {sentence}"),
            if lookaside.origin == Some(Origin::BuiltIn) {
                // Nobody chose that folder: any other place will do.
                let own = format!("file://{}", seen.paths.home.join("signatures").display());
                fix::registries_d(seen, namespace(seen), &own, Some(&own))
            } else {
                format!("ls -la {0}\nchmod -R a+rX {0}", escape::shell(folder_of(at)))
            },
        ),
        ReadFailure::Url(sentence) => (
            Ailment::LookasideUrl,
            format!("The lookaside's URL cannot be used, which fails the pull{configured}: {sentence}"),
            fix::registries_d(seen, namespace(seen), "https://HOST/BASE", None)
                + "   # or file:///FOLDER; a bare path is none",
        ),
        ReadFailure::Endless => (
            Ailment::LookasideEndless,
            format!(
                "The lookaside has 128 signatures or more for one manifest; clients stop there with an error{configured}."
            ),
            "# remove signatures that nobody needs; 127 for one digest is the most that clients read".to_owned(),
        ),
    };
    findings.add(ailment, Severity::Fails, sentence, fix);
}

fn file(at: &str) -> &str {
    at.strip_prefix("file://").unwrap_or(at)
}

fn folder_of(at: &str) -> &str {
    let path = file(at);
    path.rsplit_once('/').map_or(path, |(folder, _)| folder)
}

/// Tells whether a part of a URL means nothing to nginx, to JSON or to a shell.
fn harmless(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
}

/// The registry whose images are read, as registries.d names it.
fn namespace(seen: &Observations) -> &str {
    match &seen.manifest {
        Some(manifest) => manifest.physical.repository().domain(),
        None => seen.image.repository().domain(),
    }
}

/// Lets everybody list a bucket, or puts countersign before it.
fn bucket_policy(base: &str) -> String {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let bucket = match host.split_once(".s3").filter(|(_, after)| after.ends_with(".amazonaws.com")) {
        Some((bucket, _)) => bucket,
        None if host.starts_with("s3") && host.ends_with(".amazonaws.com") => path.split('/').next().unwrap_or(path),
        None => "BUCKET",
    };
    let bucket = if harmless(bucket) { bucket } else { "BUCKET" };
    format!(
        "# either let readers list the bucket, in its policy:\n{{\"Effect\": \"Allow\", \"Principal\": \"*\", \"Action\": \
         \"s3:ListBucket\", \"Resource\": \"arn:aws:s3:::{bucket}\"}}\n# or put countersign before it, which answers \
         404:\ncountersign serve --store s3://{bucket}/PREFIX"
    )
}

/// There is no signature where clients look, and the policy wants one.
fn nothing_found(seen: &Observations, place: &PlaceSeen, manifest: &ManifestSeen, findings: &mut Findings) {
    let at = match (&place.extension, &place.lookaside) {
        (Some((url, _)), _) => url.clone(),
        (None, Some(lookaside)) => lookaside.first.clone(),
        (None, None) => return,
    };
    let store = place.lookaside.as_ref().and_then(|lookaside| folder(&lookaside.base)).unwrap_or(STORE);
    let hidden = place.extension.is_some() && place.lookaside.as_ref().is_some_and(|l| l.found().unwrap_or(0) > 0);
    if let (Some(count @ 1..), Some((list, instances))) = (place.of_list, &manifest.list) {
        let sign = |digest| fix::sign(&seen.image.to_string(), digest, store);
        let lines: Vec<String> = instances.iter().map(|instance| sign(&instance.digest)).collect();
        findings.add(
            Ailment::InstanceNotSigned,
            Severity::Fails,
            format!(
                "{} is a list: {list} has {count} signature(s), but its member for this host, {}, has none at {at}. \
                 Clients check the member only, never the list.",
                seen.image, manifest.digest
            ),
            format!(
                "# sign every member, for the same name:\n{}\n# or, when pushing:\nskopeo copy --all --sign-by KEY SOURCE \
                 docker://{}",
                lines.join("\n"),
                seen.image
            ),
        );
    } else if let Some((lookaside, path)) = place.logical.as_ref().filter(|(l, _)| l.found().unwrap_or(0) > 0) {
        mirror(seen, manifest, lookaside, path, &at, findings);
    } else if let Some((without, configured)) = place.without_slash.as_ref().zip(place.lookaside.as_ref()) {
        let base = configured.base.trim_end_matches('/');
        let whose = match &configured.origin {
            Some(Origin::File { namespace, .. }) => namespace.as_str(),
            _ => namespace(seen),
        };
        findings.add(
            Ailment::LookasideDoubledSlash,
            Severity::Fails,
            format!(
                "The lookaside {} ends in a slash, so clients ask for {at}, with two slashes, and that does not exist; \
                 {} signature(s) are at {}.",
                configured.base,
                without.found().unwrap_or(0),
                without.first
            ),
            fix::registries_d(seen, whose, base, None),
        );
    } else if hidden {
        // Said already: the signature is where the extension keeps clients from looking.
    } else if let (None, Some(LookasideSeen { origin: Some(Origin::BuiltIn), base, .. })) =
        (&place.extension, &place.lookaside)
    {
        let registry = namespace(seen);
        let known = fix::known_lookaside(registry).unwrap_or("https://HOST/BASE");
        findings.add(
            Ailment::LookasideNotConfigured,
            Severity::Fails,
            format!(
                "No registries.d file names a lookaside for {registry}, and it has no signature extension; so clients \
                 looked into the default folder {base}, where nothing of this image is."
            ),
            fix::registries_d(seen, registry, known, None),
        );
    } else {
        findings.add(
            Ailment::NotSigned,
            Severity::Fails,
            format!("The policy wants a signature of {}, and there is none at {at}.", manifest.digest),
            fix::sign(&seen.image.to_string(), &manifest.digest, store),
        );
    }
}

fn mirror(
    seen: &Observations,
    manifest: &ManifestSeen,
    lookaside: &LookasideSeen,
    path: &str,
    at: &str,
    findings: &mut Findings,
) {
    let physical = manifest.physical.repository();
    let base = lookaside.base.trim_end_matches('/');
    let is_folder = base.starts_with("file://");
    let root = if is_folder { escape::shell(file(base)) } else { "FOLDER-OF-THE-LOOKASIDE".to_owned() };
    let folder = physical.path().rsplit_once('/').map_or(".", |(folder, _)| folder);
    // Paths of repositories mean nothing to a shell.
    let mut fix = format!(
        "# copy the signatures to the path by which clients look:\n\
         cd {root} && mkdir -p {folder} && for set in {path}@*; do cp -an \"$set\" \"{}@${{set##*@}}\"; done",
        physical.path()
    );
    let location = |base: &str| {
        let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
        rest.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}"))
    };
    if let Some(prefix) = Some(location(base)).filter(|prefix| !is_folder && harmless(prefix)) {
        fix.push_str(&format!(
            "\n# or let its web server map the path; nginx:\nrewrite ^{prefix}/{}(@.*)$ {prefix}/{path}$1 last;",
            physical.path()
        ));
    }
    // Clients may look into another lookaside for the mirror.
    let looked_into = seen.place.as_ref().and_then(|place| place.lookaside.as_ref());
    if looked_into.is_some_and(|there| there.base.trim_end_matches('/') != base) {
        fix = format!("{fix}\n{}", fix::registries_d(seen, physical.domain(), base, None));
    }
    findings.add(
        Ailment::MirrorPathDiffers,
        Severity::Fails,
        format!(
            "{} comes from {physical}, and clients look its signatures up by that path, at {at}; but they lie under {path}, \
             at {}.",
            seen.image, lookaside.first
        ),
        fix,
    );
}

/// The folder into which `--sign-by` would write, if nothing else is configured.
fn write(seen: &Observations, findings: &mut Findings) {
    let extension = seen.place.as_ref().is_some_and(|place| place.extension.is_some());
    let Some(write) = seen.write.as_ref().filter(|_| !extension) else { return };
    if let (Some(folder), Some(reason)) = (&write.default_store, &write.unwritable) {
        let own = format!("file://{}", seen.paths.home.join("signatures").display());
        findings.add(
            Ailment::DefaultLookasideUnwritable,
            Severity::Note,
            format!(
                "Signing a push to {} would fail after the push: no registries.d file says where its signatures are \
                 written, and the default folder {} cannot be written ({reason}).",
                namespace(seen),
                folder.display()
            ),
            fix::registries_d(seen, namespace(seen), &own, Some(&own)),
        );
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
