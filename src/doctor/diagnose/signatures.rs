//! Why the policy does not take the signatures that were found: keys, names, digests.

use super::Findings;
use crate::doctor::finding::{Ailment, Severity};
use crate::doctor::fix;
use crate::doctor::observation::{Judged, KeyFault, Observations, SignatureSeen};
use crate::escape;
use crate::image::Reference;
use crate::lookup::Fault;
use crate::openpgp::{KeyFault as Standing, VerifyError};
use crate::policy::{IdentityMatch, KeySource, Reason, Requirement};

pub(super) fn look(seen: &Observations, findings: &mut Findings) {
    let Some(judged) = &seen.judged else { return };
    if judged.accepted {
        accepted(seen, judged, findings);
        return;
    }
    for requirement in &seen.requirements {
        match requirement {
            Requirement::Reject | Requirement::SignedBaseLayer(_) => rejected(seen, requirement, findings),
            Requirement::SigstoreSigned(_) => findings.add(
                Ailment::NotCheckedHere,
                Severity::Fails,
                format!(
                    "{} wants a sigstore signature (sigstoreSigned). Those that lie in the registry beside the image are \
                     not looked at here: the decision above may differ from a client's.",
                    seen.paths.policy.display()
                ),
                format!("countersign verify {}", seen.image),
            ),
            Requirement::InsecureAcceptAnything | Requirement::SignedBy(_) => {}
        }
    }
    for signature in judged.signatures.iter().filter(|signature| !signature.verdict.accepted) {
        match &signature.fault {
            Some(fault) => faulty(seen, signature, fault, findings),
            None => mismatched(seen, signature, findings),
        }
    }
}

fn accepted(seen: &Observations, judged: &Judged, findings: &mut Findings) {
    if !seen.requirements.iter().any(Requirement::verifies_signatures) {
        let scope = seen.scope.as_ref().map(ToString::to_string).unwrap_or_default();
        findings.add(
            Ailment::NotVerified,
            Severity::Note,
            format!(
                "{} accepts {} without looking at signatures (scope {scope}).",
                seen.paths.policy.display(),
                seen.image
            ),
            fix::signed_by(&seen.paths, seen.image.repository().as_str(), None, None),
        );
    }
    let only_subkeys = judged.signatures.iter().filter(|s| s.verdict.accepted).all(by_subkey);
    for verdict in judged.signatures.iter().filter(|s| only_subkeys && by_subkey(s)).map(|s| &s.verdict) {
        let key = verdict.signing_key.as_deref().unwrap_or_default();
        let primary = verdict.fingerprint.as_deref().unwrap_or_default();
        findings.add(
            Ailment::SubkeySignature,
            Severity::Note,
            format!(
                "{} was made by the subkey {key} of {primary}; clients from before mid-2025 refuse signatures of subkeys.",
                verdict.source
            ),
            format!("# sign with the primary key, for all clients:\nskopeo copy --sign-by '{primary}!' SOURCE docker://{}", seen.image),
        );
    }
}

fn by_subkey(signature: &SignatureSeen) -> bool {
    let verdict = &signature.verdict;
    verdict.accepted && verdict.signing_key.is_some() && verdict.signing_key != verdict.fingerprint
}

fn rejected(seen: &Observations, requirement: &Requirement, findings: &mut Findings) {
    let scope = seen.scope.as_ref().map(ToString::to_string).unwrap_or_default();
    findings.add(
        Ailment::RejectedByPolicy,
        Severity::Fails,
        format!(
            "{} rejects {} whatever its signatures: scope {scope} says {}.",
            seen.paths.policy.display(),
            seen.image,
            requirement.type_name()
        ),
        fix::signed_by(&seen.paths, seen.image.repository().as_str(), None, None),
    );
}

/// The cryptography says no.
fn faulty(seen: &Observations, signature: &SignatureSeen, fault: &KeyFault, findings: &mut Findings) {
    let KeyFault { fault, keys } = fault;
    let source = &signature.verdict.source;
    let files = fix::key_files(keys);
    let claimed = match &signature.untrusted {
        Some(untrusted) => format!(" It says of itself, unverified: {} by {}.", untrusted.reference, untrusted.key),
        None => String::new(),
    };
    let again = || match &seen.manifest {
        Some(manifest) => fix::sign(&seen.image.to_string(), &manifest.digest, "STORE"),
        None => String::new(),
    };
    let (ailment, fix) = match fault {
        Fault::Keys(_) => (
            Ailment::KeyringUnreadable,
            format!("gpg --armor --export SIGNER > {}\nchmod a+r {0}", fix::key_file(keys)),
        ),
        Fault::Verify(VerifyError::NoKeys) => {
            (Ailment::KeyringEmpty, format!("gpg --armor --export SIGNER > {}", fix::key_file(keys)))
        }
        Fault::Verify(VerifyError::KeyNotFound { key_id, fingerprint }) => {
            let key = fingerprint.as_ref().map_or_else(|| key_id.to_string(), ToString::to_string);
            (Ailment::KeyMissing, missing(seen, &key, keys))
        }
        Fault::Verify(VerifyError::Key(Standing::Expired { key, .. })) => (
            Ailment::KeyExpired,
            format!(
                "# the key's owner extends it; the new public key goes to every client\ngpg --quick-set-expire {key} 2y\n\
                 gpg --armor --export {key} > {}",
                fix::key_file(keys)
            ),
        ),
        Fault::Verify(VerifyError::Key(Standing::Revoked { .. })) => {
            (Ailment::KeyRevoked, format!("# sign again with a key that is not revoked, and trust that\n{}", again()))
        }
        Fault::Verify(VerifyError::Sha1 | VerifyError::WeakHash(_) | VerifyError::Key(Standing::Weak { .. })) => {
            (Ailment::SignatureWeak, format!("# sign again, with SHA-256 and a key of 2048 bits or more\n{}", again()))
        }
        Fault::Verify(VerifyError::Key(_)) => (Ailment::KeyUnusable, again()),
        Fault::Verify(VerifyError::Expired { .. }) => (Ailment::SignatureExpired, again()),
        Fault::Verify(_) => (Ailment::SignatureBroken, again()),
    };
    let sentence = format!("{source}: {fault} (keys: {files}).{claimed}");
    findings.add(ailment, Severity::Fails, sentence, fix);
}

fn missing(seen: &Observations, key: &str, keys: &KeySource) -> String {
    let add = match keys {
        KeySource::Data(_) => {
            format!("# and give it to keyData in {}\ngpg --export {key} | base64 -w0", escape::path(&seen.paths.policy))
        }
        KeySource::Path(_) | KeySource::Paths(_) => format!("gpg --armor --export {key} >> {}", fix::key_file(keys)),
    };
    format!("# only if you know from the signer that this is the key\n{add}")
}

/// The signature is good; it is for something else.
fn mismatched(seen: &Observations, signature: &SignatureSeen, findings: &mut Findings) {
    let verdict = &signature.verdict;
    let Some(reason) = &verdict.reason else { return };
    let by = verdict.fingerprint.as_deref().unwrap_or("an unknown key");
    match reason {
        Reason::Identity(claimed) => name(seen, &verdict.source, claimed, by, findings),
        Reason::Digest(digest) => {
            let actual = seen.manifest.as_ref().map(|manifest| manifest.digest.to_string()).unwrap_or_default();
            findings.add(
                Ailment::OtherDigest,
                Severity::Fails,
                format!(
                    "{} is a good signature by {by}, but for {digest}; the image here is {actual}.",
                    verdict.source
                ),
                match &seen.manifest {
                    Some(manifest) => fix::sign(&seen.image.to_string(), &manifest.digest, "STORE"),
                    None => String::new(),
                },
            );
        }
        // Said where it belongs: no signatures, or none that could be read.
        Reason::NotExamined | Reason::NoSignature | Reason::Fetch(_) | Reason::Rejected { .. } => {}
        Reason::SignedBaseLayer | Reason::NoSigstoreSignature { .. } => {}
        other => findings.add(
            Ailment::SignatureBroken,
            Severity::Fails,
            format!("{}: {other}.", verdict.source),
            format!("countersign inspect {}", escape::shell(&verdict.source)),
        ),
    }
}

fn name(seen: &Observations, source: &str, claimed: &str, by: &str, findings: &mut Findings) {
    let image = seen.image.as_reference();
    let keys = seen.requirements.iter().find_map(|requirement| match requirement {
        Requirement::SignedBy(signed_by) => Some(&signed_by.keys),
        _ => None,
    });
    match compare(image, claimed) {
        Names::Domain { old, new } => findings.add(
            Ailment::OldDomain,
            Severity::Fails,
            format!(
                "{source} is a good signature by {by}, but for the old name {claimed}; the image is now called {image}, and \
                 a signature is for one name only."
            ),
            format!(
                "# sign every image of the old domain again for the new one; the old signatures are verified first\n\
                 countersign resign --from STORE --to STORE --rename {old}={new} --policy {} --key NEW-KEY.asc --dry-run\n\
                 countersign resign --from STORE --to STORE --rename {old}={new} --policy {0} --key NEW-KEY.asc",
                escape::shell(&seen.paths.policy.to_string_lossy())
            ),
        ),
        Names::Prefix { prefix, signed_prefix } => findings.add(
            Ailment::MirrorPathDiffers,
            Severity::Fails,
            format!(
                "{source} is a good signature by {by} for {claimed}, of which {image} is a copy in another place; without \
                 remapIdentity the names must be equal."
            ),
            fix::signed_by(&seen.paths, &prefix, keys, Some(&fix::remap(&prefix, &signed_prefix))),
        ),
        Names::Other => findings.add(
            Ailment::OtherName,
            Severity::Fails,
            format!("{source} is a good signature by {by}, but for {claimed}, not for {image}."),
            match &seen.manifest {
                Some(manifest) => fix::sign(&image.to_string(), &manifest.digest, "STORE"),
                None => String::new(),
            },
        ),
    }
}

/// How the signed name differs from the image's.
#[derive(Debug, PartialEq, Eq)]
enum Names {
    /// By the registry only.
    Domain { old: String, new: String },
    /// By what stands before some common end of the path.
    Prefix { prefix: String, signed_prefix: String },
    /// Otherwise.
    Other,
}

fn compare(image: &Reference, claimed: &str) -> Names {
    let Ok(signed) = Reference::parse(claimed) else { return Names::Other };
    let (ours, theirs) = (image.repository(), signed.repository());
    let common = ours.path().rsplit('/').zip(theirs.path().rsplit('/')).take_while(|(a, b)| a == b).count();
    if common == 0 || ours == theirs {
        return Names::Other;
    }
    let before = |name: &str| name.rsplitn(common + 1, '/').nth(common).unwrap_or_default().to_owned();
    let (prefix, signed_prefix) = (before(ours.as_str()), before(theirs.as_str()));
    // The policy's own rule decides whether the rest is equal: tags, or a digest.
    let remap = IdentityMatch::RemapIdentity { prefix: prefix.clone(), signed_prefix: signed_prefix.clone() };
    if !remap.accepts(Some(image), claimed) {
        return Names::Other;
    }
    if ours.path() == theirs.path() {
        return Names::Domain { old: signed_prefix, new: prefix };
    }
    Names::Prefix { prefix, signed_prefix }
}

#[cfg(test)]
#[path = "signatures_tests.rs"]
mod tests;
