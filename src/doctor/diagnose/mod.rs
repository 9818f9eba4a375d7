//! From what was seen to what is wrong. Pure: no I/O, no clock.

mod places;
mod scopes;
mod signatures;
mod sources;

#[cfg(test)]
pub(super) mod testing;

use super::finding::{Ailment, Finding, Severity};
use super::observation::{Observations, Stop};
use super::report::Outcome;
use crate::escape;

impl Observations {
    /// Tells what a client ends with.
    pub fn outcome(&self) -> Outcome {
        let Some(judged) = self.judged.as_ref().filter(|_| self.stop.is_none()) else { return Outcome::Failed };
        // Signatures are copied along with an image, so a client that cannot read them fails even
        // where the policy does not ask for them (spec containers-image 5.6).
        match (judged.accepted, self.place.as_ref().is_some_and(|place| place.count().is_none())) {
            (true, false) => Outcome::Accepted,
            (true, true) => Outcome::Failed,
            (false, _) => Outcome::Rejected,
        }
    }

    /// How much an ailment matters that would explain a failure.
    fn severity(&self) -> Severity {
        if self.outcome() == Outcome::Accepted { Severity::Note } else { Severity::Fails }
    }
}

/// Finds what is wrong: the causes of failure first, then what is good to know.
pub fn diagnose(seen: &Observations) -> Vec<Finding> {
    let mut findings = Findings::default();
    match &seen.stop {
        Some(stop) => stopped(seen, stop, &mut findings),
        None => {
            sources::look(seen, &mut findings);
            places::look(seen, &mut findings);
            signatures::look(seen, &mut findings);
            scopes::look(seen, &mut findings);
        }
    }
    findings.list.sort_by_key(|finding| finding.severity);
    findings.list
}

#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, ailment: Ailment, severity: Severity, sentence: String, fix: String) {
        let finding = Finding { ailment, severity, sentence, fix };
        if !self.list.contains(&finding) {
            self.list.push(finding);
        }
    }
}

fn stopped(seen: &Observations, stop: &Stop, findings: &mut Findings) {
    let (ailment, sentence, fix) = match stop {
        Stop::PolicyMissing(sentence) => (
            Ailment::PolicyMissing,
            format!("There is no policy.json, so every pull fails: {sentence}"),
            format!(
                "# {}: start from one that rejects what nobody speaks of\n{{\"default\": [{{\"type\": \"reject\"}}],\n \
                 \"transports\": {{\"docker\": {{\"{}\": [\n   {{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \
                 \"keyPath\": \"/PATH/OF/THE/SIGNERS/KEY.asc\"}}]}}}}}}",
                escape::path(&seen.paths.policy),
                seen.image.repository().domain()
            ),
        ),
        Stop::Policy(sentence) => (
            Ailment::PolicyInvalid,
            format!("policy.json cannot be used, so every pull fails: {sentence}"),
            format!("# {}: exact key names, no comments, no unknown keys", escape::path(&seen.paths.policy)),
        ),
        Stop::RegistriesD(sentence) => (
            Ailment::RegistriesDInvalid,
            format!("registries.d cannot be used, so every pull fails, of unsigned images too: {sentence}"),
            "# correct the file that the sentence names; each namespace and default-docker may be there once"
                .to_owned(),
        ),
        Stop::RegistriesConf(sentence) => (
            Ailment::RegistriesConfInvalid,
            format!("registries.conf cannot be used, so every pull fails: {sentence}"),
            conf_fix(sentence),
        ),
    };
    findings.add(ailment, Severity::Fails, sentence, fix);
}

fn conf_fix(sentence: &str) -> String {
    if sentence.contains("but is in v1") {
        return "# the old lists [registries.search], [registries.insecure], [registries.block] become:\n\
                unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nlocation = \"HOST\"\ninsecure = true"
            .to_owned();
    }
    "# correct the file that the sentence names; locations are host[:port][/path], without https://".to_owned()
}

#[cfg(test)]
mod tests {
    use super::testing::{Case, names};
    use super::*;

    #[test]
    fn a_healthy_image_has_no_findings() {
        let seen = Case::new("q.io/birds/bluebird:1").accepted().seen;
        assert_eq!(seen.outcome(), Outcome::Accepted);
        assert_eq!(diagnose(&seen), []);
    }

    #[test]
    fn files_that_fail_everything() {
        for (stop, name) in [
            (Stop::PolicyMissing("config file not found".to_owned()), "policy-missing"),
            (Stop::Policy("invalid policy".to_owned()), "policy-invalid"),
            (Stop::RegistriesD("parsing".to_owned()), "registries-d-invalid"),
            (Stop::RegistriesConf("must be in v2 format but is in v1".to_owned()), "registries-conf-invalid"),
        ] {
            let mut seen = Case::new("q.io/birds/bluebird:1").seen;
            seen.stop = Some(stop);
            assert_eq!((names(&seen), seen.outcome()), (vec![name.to_owned()], Outcome::Failed));
            let found = diagnose(&seen).remove(0);
            assert!(found.severity == Severity::Fails && !found.fix.is_empty());
        }
    }
}
