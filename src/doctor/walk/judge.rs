//! The decision: the policy's, with all that a report wants to know of each signature.

use std::path::Path;

use super::{Chart, Found, Walk};
use crate::doctor::observation::{Judged, KeyFault, KeyFileSeen, KeyFileState, SignatureSeen, Untrusted, WriteSeen};
use crate::openpgp::{self, KEYRING_LIMIT, Keyring};
use crate::policy::{
    self, Image, KeySource, ManifestEvidence, Options, Origin, Policy, Requirement, SignatureBlob, SignatureVerdict,
    Signatures,
};
use crate::registries_d::{Configuration, Mode, Origin as Configured};
use crate::signature::{Claim, simple_signing};

impl Walk {
    pub(super) fn judge(
        &self,
        chart: &mut Chart,
        policy: &Policy,
        found: &Found,
        signatures: Result<Vec<SignatureBlob>, String>,
    ) {
        let evidence = match &found.bytes {
            Some(bytes) => ManifestEvidence::Bytes(bytes),
            None => ManifestEvidence::Digest(&found.digest),
        };
        let mut image = Image::docker(&self.image, evidence);
        if found.instance {
            image = image.with_instance(&found.digest);
        }
        let given = match &signatures {
            Ok(blobs) => Signatures::Found(blobs),
            Err(sentence) => Signatures::Failed(sentence),
        };
        let decision = policy::decide(policy, &image, given, &self.mechanism, Options::default());
        let blobs = signatures.as_deref().unwrap_or_default();
        let requirements = chart.seen.requirements.clone();
        let mut standings = Vec::new();
        for (verdict, blob) in decision.signatures.into_iter().zip(blobs) {
            let answer = told(&verdict);
            chart.step("signature", verdict.source.clone(), answer, verdict.accepted);
            standings.push(self.examine(verdict, blob, &requirements));
        }
        let answer = match (&decision.reason, &signatures) {
            (Some(reason), _) => format!("rejected: {reason}"),
            (None, Err(sentence)) => {
                format!("the policy accepts, but signatures are copied along with the image: {sentence}")
            }
            (None, Ok(_)) => "accepted".to_owned(),
        };
        let ok = decision.accepted && signatures.is_ok();
        let request = format!("{}: scope {}", self.paths.policy.display(), decision.scope);
        chart.step("decision", request, answer, ok);
        chart.seen.judged =
            Some(Judged { accepted: decision.accepted, reason: decision.reason, signatures: standings });
    }

    /// Asks the cryptography itself why it refuses, since the policy keeps only its sentence.
    fn examine(&self, verdict: SignatureVerdict, blob: &SignatureBlob, requirements: &[Requirement]) -> SignatureSeen {
        let message = match &blob.origin {
            Origin::Extension(_) => Some(&*blob.bytes),
            Origin::File(_) | Origin::Url(_) => simple_signing(&blob.bytes).ok(),
        };
        let Some(message) = message else { return SignatureSeen { verdict, fault: None, untrusted: None } };
        let keys = requirements.iter().filter_map(|requirement| match requirement {
            Requirement::SignedBy(signed_by) => Some(&signed_by.keys),
            _ => None,
        });
        let fault = keys.filter(|_| !verdict.accepted).find_map(|keys| {
            self.mechanism.examine(message, keys).err().map(|fault| KeyFault {
                fault,
                keys: keys.clone(),
                files: key_files(keys),
            })
        });
        let untrusted = openpgp::inspect(message).ok().map(|untrusted| Untrusted {
            reference: Claim::parse(&untrusted.content).map_or_else(|_| "no claim".to_owned(), |claim| claim.reference),
            key: untrusted
                .fingerprint
                .map_or_else(|| untrusted.key_id.to_string(), |fingerprint| fingerprint.to_string()),
        });
        SignatureSeen { verdict, fault, untrusted }
    }

    /// Where `--sign-by` would write, and whether it could.
    pub(super) fn look_at_writing(&self, chart: &mut Chart, configuration: &Configuration, found: &Found) {
        let Ok(lookup) = configuration.lookaside(&found.physical, Mode::Write, &self.environment) else { return };
        if lookup.from == Configured::BuiltIn {
            let folder = self.environment.default_store();
            let unwritable = unwritable(&folder);
            chart.seen.write = Some(WriteSeen { default_store: Some(folder), unwritable });
        }
    }
}

/// Looks at the key files of a requirement.
pub(in crate::doctor) fn key_files(keys: &KeySource) -> Vec<KeyFileSeen> {
    let paths = match keys {
        KeySource::Path(path) => std::slice::from_ref(path),
        KeySource::Paths(paths) => paths.as_slice(),
        KeySource::Data(_) => &[],
    };
    let state = |path: &Path| match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => KeyFileState::Missing,
        Err(error) => KeyFileState::Unreadable(error.to_string()),
        Ok(found) if !found.is_file() => KeyFileState::Unreadable("it is not a regular file".to_owned()),
        Ok(found) if found.len() > KEYRING_LIMIT as u64 => KeyFileState::Unreadable("it is too large".to_owned()),
        Ok(_) => match std::fs::read(path) {
            Ok(bytes) => {
                KeyFileState::Keys(Keyring::parse([bytes]).fingerprints().iter().map(ToString::to_string).collect())
            }
            Err(error) => KeyFileState::Unreadable(error.to_string()),
        },
    };
    paths.iter().map(|path| KeyFileSeen { path: path.clone(), state: state(path) }).collect()
}

fn told(verdict: &SignatureVerdict) -> String {
    let signed = match (&verdict.claimed_reference, &verdict.fingerprint) {
        (Some(name), Some(fingerprint)) => format!(", signed as {name} by {fingerprint}"),
        _ => String::new(),
    };
    match &verdict.reason {
        None => format!("accepted{signed}"),
        Some(reason) => format!("rejected: {reason}{signed}"),
    }
}

/// Tells why a folder cannot be made and written to. Nothing is left behind: the file has no name.
fn unwritable(folder: &Path) -> Option<String> {
    let nearest = folder.ancestors().find(|ancestor| ancestor.exists())?;
    tempfile::tempfile_in(nearest).err().map(|error| crate::go::error_text(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_can_be_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unwritable(&dir.path().join("not/yet/there")), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(unwritable(&file.join("below")).is_some());
        assert!(unwritable(Path::new("/proc/containers/sigstore")).is_some());
    }
}
