//! The upload gate as it is configured: off, claim or policy, by the repository.
//!
//! A policy is asked about a signature under the name in its own claim, for the digest that it is
//! uploaded for: the server cannot know under which host its clients will ask. That name's
//! *repository path* must be the one uploaded to (or its end, or any, by `claim_path`; or the whole
//! name is the one by which the client called a registry below a path), so that
//! who may sign for one repository cannot fill the sets of another.

use std::sync::Arc;

use crate::config::{ClaimPath, GateRule, GateRules};
use crate::lookup::{name_of, vouched};
use crate::policy::{Mechanism, Policy};
use crate::server::uploads::extension::{NotAdmitted, Upload, UploadGate};

/// The gate by its configured rules. Policies are read for each upload, which is rare and costs
/// less than the verification; key files are read again when they change.
pub struct ConfiguredGate {
    rules: GateRules,
    mechanism: Arc<dyn Mechanism>,
}

impl ConfiguredGate {
    /// Puts it together; `mechanism` judges by the time at which it is asked.
    pub fn new(rules: GateRules, mechanism: Arc<dyn Mechanism>) -> Self {
        Self { rules, mechanism }
    }
}

impl UploadGate for ConfiguredGate {
    fn reads_claims(&self, repository: &str) -> bool {
        !matches!(self.rules.of(repository), GateRule::Off)
    }

    fn admit(&self, upload: &Upload<'_>) -> Result<(), NotAdmitted> {
        match self.rules.of(upload.repository) {
            GateRule::Off | GateRule::Claim => Ok(()),
            GateRule::Policy { file, claim_path } => {
                let policy = Policy::load(file).map_err(|e| NotAdmitted::Unavailable(e.to_string()))?;
                self.ask(&policy, *claim_path, upload)
            }
        }
    }
}

impl ConfiguredGate {
    fn ask(&self, policy: &Policy, claim_path: ClaimPath, upload: &Upload<'_>) -> Result<(), NotAdmitted> {
        let denied = |reason: String| Err(NotAdmitted::Denied(format!("signature not admitted: {reason}")));
        let Some(claim) = upload.claim else { return denied("it has no claim".to_owned()) };
        let named = match name_of(claim) {
            Ok(named) => named,
            Err(not) => return denied(not.to_string()),
        };
        let called = upload.called.is_some_and(|called| called == named.repository().as_str());
        if !called && !claim_path.fits(named.repository(), upload.repository) {
            return denied(format!("it is for {named}, but was uploaded to the repository {}", upload.repository));
        }
        match vouched(policy, self.mechanism.as_ref(), claim, upload.digest, upload.message) {
            Ok(accepted) => {
                tracing::info!(
                    repository = upload.repository,
                    digest = %upload.digest,
                    signer = accepted.fingerprint.as_deref(),
                    scope = %accepted.scope,
                    name = claim.reference,
                    "the policy vouches for an upload"
                );
                Ok(())
            }
            Err(not) if not.is_without_keys() => Err(NotAdmitted::Unavailable(not.to_string())),
            Err(not) => denied(not.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::ServerConfig;
    use crate::image::Digest;
    use crate::policy::{KeySource, MechanismError, SignedContent};
    use crate::signature::Claim;

    /// Messages are their own content; the key file's name is the signer, in front of it.
    struct Plain;

    impl Mechanism for Plain {
        fn verify(&self, message: &[u8], keys: &KeySource) -> Result<SignedContent, MechanismError> {
            let KeySource::Path(path) = keys else { return Err(MechanismError::NoKeys) };
            let key = path.to_str().unwrap();
            if key == "/gone" {
                return Err(MechanismError::Keys("open /gone: no such file or directory".to_owned()));
            }
            let content = message.strip_prefix(format!("\u{3}{key}").as_bytes());
            let content = content.ok_or_else(|| MechanismError::Signature("by another key".to_owned()))?.to_vec();
            let name = key.to_owned();
            Ok(SignedContent { content, fingerprint: name.clone(), signing_key: name, warnings: vec![], created: 0 })
        }
    }

    struct World {
        _folder: tempfile::TempDir,
        policy: std::path::PathBuf,
        gate: ConfiguredGate,
    }

    const POLICY: &str = r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{
        "r.example":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/alice"}],
        "r.example/gone":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/gone"}]}}}"#;

    fn world(yaml: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.json");
        std::fs::write(&policy, POLICY).unwrap();
        let yaml = yaml.replace("POLICY", policy.to_str().unwrap());
        let rules = ServerConfig::parse(&yaml).unwrap().gate.rules().unwrap();
        World { _folder: folder, policy, gate: ConfiguredGate::new(rules, Arc::new(Plain)) }
    }

    impl World {
        fn put(&self, key: &str, name: &str, repository: &str) -> Result<(), NotAdmitted> {
            let digest = Digest::sha256(b"x");
            let claim = Claim { reference: name.to_owned(), digest: digest.clone(), creator: None, timestamp: None };
            // 0xA3 would be the prefix of a real message; the plain one needs the format line.
            let content = [format!("\0simple-signing\n\u{3}{key}").as_bytes(), &claim.render().unwrap()].concat();
            let message = Bytes::from(content);
            let upload = Upload {
                repository,
                called: Some("sig.example/r.example/a/b"),
                digest: &digest,
                message: &message,
                claim: Some(&claim),
            };
            self.gate.admit(&upload)
        }
    }

    fn denied(result: Result<(), NotAdmitted>) -> String {
        match result {
            Err(NotAdmitted::Denied(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_policy_vouches_for_signer_and_name() {
        let world = world("gate: {policy: POLICY}");
        assert_eq!(world.put("/alice", "r.example/a/b:1", "a/b"), Ok(()));
        insta::assert_snapshot!(denied(world.put("/bob", "r.example/a/b:1", "a/b")), @"signature not admitted: by another key (scope r.example of the policy)");
        insta::assert_snapshot!(denied(world.put("/alice", "r.example/a/c:1", "a/b")), @"signature not admitted: it is for r.example/a/c:1, but was uploaded to the repository a/b");
        insta::assert_snapshot!(denied(world.put("/alice", "elsewhere.example/a/b:1", "a/b")), @"signature not admitted: no signedBy requirement in scope default of the policy, so nobody vouches for the signature; add one with the signer's key");
        // The policy must vouch for the whole name by which the client called it, too.
        insta::assert_snapshot!(denied(world.put("/alice", "sig.example/r.example/a/b:1", "a/b")), @"signature not admitted: no signedBy requirement in scope default of the policy, so nobody vouches for the signature; add one with the signer's key");
        assert!(denied(world.put("/alice", "r.example/A", "a/b")).contains("is no image name"));
        let gone = world.put("/gone", "r.example/gone:1", "gone");
        assert!(matches!(gone, Err(NotAdmitted::Unavailable(reason)) if reason.contains("/gone")));
    }

    #[test]
    fn a_changed_policy_counts_at_once() {
        let world = world("gate: {policy: POLICY}");
        assert_eq!(world.put("/alice", "r.example/a/b:1", "a/b"), Ok(()));
        std::fs::write(&world.policy, POLICY.replace("/alice", "/carol")).unwrap();
        assert!(world.put("/alice", "r.example/a/b:1", "a/b").is_err());
        assert_eq!(world.put("/carol", "r.example/a/b:1", "a/b"), Ok(()));
        for broken in ["", "{", "{}"] {
            std::fs::write(&world.policy, broken).unwrap();
            let result = world.put("/carol", "r.example/a/b:1", "a/b");
            assert!(matches!(result, Err(NotAdmitted::Unavailable(_))), "{broken:?}: {result:?}");
        }
        std::fs::remove_file(&world.policy).unwrap();
        assert!(matches!(world.put("/carol", "r.example/a/b:1", "a/b"), Err(NotAdmitted::Unavailable(_))));
    }

    #[test]
    fn namespaces_have_their_own_rules() {
        let world = world(
            "gate:\n  policy: POLICY\n  namespaces: {dev/: {mode: claim}, dev/off: {mode: off}, mirror: {claim_path: end}, any: {claim_path: any}}",
        );
        assert_eq!(world.put("/bob", "x.example/whatever:1", "dev/b"), Ok(()));
        assert!(world.gate.reads_claims("dev/b") && !world.gate.reads_claims("dev/off/b"));
        assert!(world.gate.reads_claims("dev/offer") && world.gate.reads_claims("prod"));
        assert!(world.put("/alice", "r.example/a/b:1", "prod/a/b").is_err());
        assert_eq!(world.put("/alice", "r.example/a/b:1", "mirror/a/b"), Ok(()));
        assert!(world.put("/alice", "r.example/a/b:1", "mirror/b").is_err());
        assert!(world.put("/bob", "r.example/a/b:1", "mirror/a/b").is_err());
        assert_eq!(world.put("/alice", "r.example/a/b:1", "any/b"), Ok(()));
        assert!(world.put("/bob", "r.example/a/b:1", "any/b").is_err());
    }
}
