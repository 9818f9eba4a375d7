//! Why the policy does not take the signatures that were found: keys, names, digests.

use super::Findings;
use crate::doctor::finding::{Ailment, Severity};
use crate::doctor::fix;
use crate::doctor::observation::{Judged, KeyFault, KeyFileSeen, KeyFileState, Observations, SignatureSeen};
use crate::escape;
use crate::image::Reference;
use crate::lookup::Fault;
use crate::openpgp::{KeyFault as Standing, VerifyError};
use crate::policy::{IdentityMatch, Reason, Requirement};

pub(super) fn look(seen: &Observations, findings: &mut Findings) {
    let Some(judged) = &seen.judged else { return };
    if judged.accepted {
        accepted(seen, judged, findings);
        return;
    }
    for requirement in &seen.requirements {
        match requirement {
            Requirement::Reject | Requirement::SignedBaseLayer(_) => rejected(seen, requirement, findings),
            Requirement::SigstoreSigned(_) => sigstore(seen, findings),
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

/// Whether there is a sigstore signature where clients look.
fn sigstore(seen: &Observations, findings: &mut Findings) {
    let (Some(place), Some(manifest)) = (&seen.place, &seen.manifest) else { return };
    let attachments = &place.attachments;
    let domain = manifest.physical.repository().domain();
    let tag = format!("{}-{}.sig", manifest.digest.algorithm().name(), manifest.digest.hex());
    let bundle = "Beside it is a bundle of cosign 3, which no released client reads; ";
    match &attachments.result {
        None if !attachments.enabled => {
            let there = match attachments.unread {
                Some(0) if attachments.has_bundle => format!(" {bundle}sign again with --new-bundle-format=false."),
                Some(0) => " There is none either.".to_owned(),
                Some(count) => format!(" {count} lie(s) there unread."),
                None => String::new(),
            };
            findings.add(
                Ailment::AttachmentsNotUsed,
                Severity::Fails,
                format!(
                    "{} wants a sigstore signature, but registries.d does not set use-sigstore-attachments for {domain}, \
                     so clients look at none.{there}",
                    seen.paths.policy.display()
                ),
                fix::namespace_lines(seen, domain, &[("use-sigstore-attachments", "true".to_owned())]),
            );
        }
        Some(Ok(0)) => findings.add(
            Ailment::AttachmentMissing,
            Severity::Fails,
            format!(
                "{} wants a sigstore signature, and the tag {tag} does not exist beside the image. {}",
                seen.paths.policy.display(),
                if attachments.has_bundle { format!("{bundle}sign in the older form.") } else { String::new() }
            )
            .trim_end()
            .to_owned(),
            format!(
                "# by whoever has the key; the older form, which clients read:\n\
                 cosign sign --key cosign.key --new-bundle-format=false --use-signing-config=false {}@{}",
                manifest.physical.repository(),
                manifest.digest
            ),
        ),
        Some(Err(sentence)) => findings.add(
            Ailment::AttachmentsUnreadable,
            Severity::Fails,
            format!(
                "The sigstore attachments cannot be read, which fails the pull, of unsigned images too: {sentence}"
            ),
            format!("skopeo inspect --raw docker://{}:{tag}", manifest.physical.repository()),
        ),
        Some(Ok(_)) | None => {}
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
            format!(
                "# skopeo and podman always take a subkey that can sign; for all clients, sign with a key without one:\n\
                 gpg --quick-generate-key 'NAME <MAIL>' rsa3072 sign\n\
                 skopeo copy --sign-by MAIL SOURCE docker://{}",
                seen.image
            ),
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
    let KeyFault { fault, keys, files: key_files } = fault;
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
        Fault::Keys(_) => {
            let broken = |file: &KeyFileSeen| !matches!(file.state, KeyFileState::Keys(_));
            (Ailment::KeyringUnreadable, in_files(seen, key_files, broken, "SIGNER"))
        }
        Fault::Verify(VerifyError::NoKeys) => {
            let empty = |file: &KeyFileSeen| matches!(&file.state, KeyFileState::Keys(keys) if keys.is_empty());
            (Ailment::KeyringEmpty, in_files(seen, key_files, empty, "SIGNER"))
        }
        Fault::Verify(VerifyError::KeyNotFound { key_id, fingerprint }) => {
            let key = fingerprint.as_ref().map_or_else(|| key_id.to_string(), ToString::to_string);
            let add = in_files(seen, key_files, |_| true, &key);
            (Ailment::KeyMissing, format!("# only if you know from the signer that this is the key\n{add}"))
        }
        Fault::Verify(VerifyError::Key(Standing::Expired { key, .. })) => {
            let key = key.to_string();
            let holds = |file: &KeyFileSeen| matches!(&file.state, KeyFileState::Keys(keys) if keys.contains(&key));
            let add = in_files(seen, key_files, holds, &key);
            (
                Ailment::KeyExpired,
                format!(
                    "# the key's owner extends it; the new public key goes to every client\n\
                     gpg --quick-set-expire {key} 2y\n{add}"
                ),
            )
        }
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

/// Puts a key into the file that lacks it: the first that `wanted` names, else the first.
fn in_files(seen: &Observations, files: &[KeyFileSeen], wanted: impl Fn(&KeyFileSeen) -> bool, key: &str) -> String {
    match files.iter().find(|file| wanted(file)).or(files.first()) {
        Some(file) => fix::add_key(file, key),
        None => format!(
            "# this is the value of keyData in {}\ngpg --export {key} | base64 -w0",
            escape::path(&seen.paths.policy)
        ),
    }
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
        other if is_attachment(&verdict.source) => findings.add(
            Ailment::SignatureBroken,
            Severity::Fails,
            format!("{}: {other}.", verdict.source),
            format!(
                "# which key made it? If you trust that one, name it in {}\n\
                 cosign verify --key THE-SIGNERS-KEY.pub {}",
                escape::path(&seen.paths.policy),
                seen.image
            ),
        ),
        other => findings.add(
            Ailment::SignatureBroken,
            Severity::Fails,
            format!("{}: {other}.", verdict.source),
            format!("countersign inspect {}", escape::shell(&verdict.source)),
        ),
    }
}

/// Tells whether a signature is a sigstore attachment.
fn is_attachment(source: &str) -> bool {
    source.contains(": sigstore attachment ")
}

fn name(seen: &Observations, source: &str, claimed: &str, by: &str, findings: &mut Findings) {
    let image = seen.image.as_reference();
    let keys = seen.requirements.iter().find_map(|requirement| match requirement {
        Requirement::SignedBy(signed_by) => Some(&signed_by.keys),
        _ => None,
    });
    if is_attachment(source) && claimed == image.repository().as_str() {
        findings.add(
            Ailment::SignedWithoutTag,
            Severity::Fails,
            format!(
                "{source} is a good signature, but for the repository {claimed} without a tag, as cosign makes it; the \
                 policy wants the tag, too, as it does by default."
            ),
            format!(
                "# {}: add this to the sigstoreSigned requirement that applies\n\
                 \"signedIdentity\": {{\"type\": \"matchRepository\"}}",
                escape::path(&seen.paths.policy)
            ),
        );
        return;
    }
    match compare(image, claimed) {
        Names::Domain { old, new } => findings.add(
            Ailment::OldDomain,
            Severity::Fails,
            format!(
                "{source} is a good signature by {by}, but for the old name {claimed}; the image is now called {image}, and \
                 a signature is for one name only."
            ),
            format!(
                "# either {new} is a mirror of {old}, whose signatures you trust as they are:\n{}\n\
                 # or the registry has moved, and you sign its images again; the old signatures are verified first:\n\
                 countersign resign --from STORE --to STORE --rename {old}={new} --policy {} --key NEW-KEY.asc --dry-run\n\
                 countersign resign --from STORE --to STORE --rename {old}={new} --policy {1} --key NEW-KEY.asc",
                fix::signed_by(&seen.paths, &new, keys, Some(&fix::remap(&new, &old))),
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
                Some(manifest) if is_attachment(source) => format!(
                    "cosign sign --key cosign.key --sign-container-identity {image} {}@{}",
                    image.repository(),
                    manifest.digest
                ),
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
