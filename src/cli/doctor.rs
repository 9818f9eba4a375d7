//! `countersign doctor`: walk what a client would do for an image on this host, and name the fix.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::host::HostArgs;
use super::output::{self, Answer, Format};
use super::sources::SourceArgs;
use crate::doctor::{Clients, Finding, Outcome, Paths, Report, Severity, Step, Walk};
use crate::escape;
use crate::host::{Environment, Generation};
use crate::image::ImageReference;
use crate::policy;
use crate::registries_conf::{self, Configuration};

/// Walk what podman, skopeo or CRI-O would do for an image on this host, and name the fix
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    /// The image's name, with or without docker://
    reference: String,
    #[command(flatten)]
    sources: SourceArgs,
    /// registries.conf to follow, instead of the host's
    #[arg(long, value_name = "FILE")]
    registries_conf: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  countersign doctor us.icr.io/birds/bluebird:build1
  countersign doctor us.icr.io/birds/bluebird:build1 --policy policy.json --registries-d registries.d
  countersign doctor mirror.example:5000/birds/bluebird:build1 --config-search podman5 --format json

Steps called `probe` are no client's: they tell causes apart once a client would have failed.

Exit codes: 0 a client accepts the image; 1 it does not, and the findings say why; 2 could not run.";

impl Doctor {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let host = &self.sources.host;
        let platform = self.sources.subject.platform();
        let environment = Environment::from_process();
        let policy = host.policy();
        let search = registries_conf::Search {
            explicit: self.registries_conf.clone(),
            root: None,
            generation: host.generation(),
            environment: environment.clone(),
        };
        let registries_conf = Configuration::load(&search);
        let short_name = registries_conf.as_ref().ok().and_then(|conf| conf.resolve_short_name(&self.reference));
        let name = short_name.as_ref().map_or(&self.reference, |short_name| &short_name.full);
        let image = ImageReference::parse(name).with_context(|| format!("image name {name:?}"))?;
        let short_name = short_name.map(|short_name| (self.reference.clone(), short_name));
        let walk = Walk {
            paths: paths(&environment, host, policy.as_ref().ok(), self.registries_conf.as_deref()),
            policy,
            registries_d: host.configuration(),
            registries_conf,
            environment,
            mechanism: self.sources.mechanism(),
            clients: Clients { secure: host.client(), insecure: host.client_that(false) },
            given: self.sources.given()?,
            platform,
            image,
            short_name,
        };
        let report = walk.run().await;
        output::result(format, &lines(&report), &report)?;
        Ok((report.decision == Outcome::Accepted).into())
    }
}

/// Where a fix belongs on this host.
fn paths(
    environment: &Environment,
    host: &HostArgs,
    policy: Option<&(PathBuf, policy::Policy)>,
    registries_conf: Option<&Path>,
) -> Paths {
    let system = PathBuf::from("/etc/containers");
    let own =
        environment.xdg_config_home.clone().unwrap_or_else(|| environment.home.join(".config")).join("containers");
    // Podman 5 passes by the system's folder as soon as the user has one: never tell him to make one.
    let rootless = environment.search_uid() != 0;
    let own_counts = rootless && host.generation() == Generation::Podman6;
    let folder = if own_counts { own } else { system };
    Paths {
        policy: policy
            .map(|(path, _)| path.clone())
            .or_else(|| host.policy_path())
            .unwrap_or_else(|| folder.join("policy.json")),
        registries_d: host.registries_d_path().unwrap_or_else(|| folder.join("registries.d")),
        registries_conf: registries_conf
            .map_or_else(|| folder.join("registries.conf.d/countersign.conf"), Path::to_owned),
        home: environment.home.clone(),
    }
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("What a client does for {}", escape::text(&report.reference))];
    lines.extend(report.steps.iter().flat_map(step));
    let decision = match report.decision {
        Outcome::Accepted => "Healthy: a client accepts the image",
        Outcome::Rejected => "A client rejects the image",
        Outcome::Failed => "A client fails",
    };
    lines.extend([String::new(), decision.to_owned()]);
    lines.extend(report.findings.iter().flat_map(finding));
    lines
}

fn step(step: &Step) -> [String; 2] {
    let mark = match (step.step, step.ok) {
        ("probe", _) => "?",
        (_, true) => "+",
        (_, false) => "!",
    };
    [format!("{mark} {:<15} {}", step.step, step.request), format!("    {}", step.answer)]
}

fn finding(finding: &Finding) -> Vec<String> {
    let kind = if finding.severity == Severity::Fails { "" } else { "note: " };
    let mut lines = vec![String::new(), format!("{kind}{}", finding.ailment), format!("  {}", finding.sentence)];
    // The lines of a fix are the doctor's: it quotes every value as what it is pasted into wants it.
    lines.extend(finding.fix.split('\n').map(|line| format!("    {line}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Ailment;

    #[test]
    fn a_report_for_people() {
        let step = |step, request: &str, answer: &str, ok| Step {
            step,
            request: request.to_owned(),
            answer: answer.to_owned(),
            ok,
        };
        let report = Report {
            reference: "q.io/a:1".to_owned(),
            steps: vec![
                step("policy", "/etc/containers/policy.json", "scope default: signedBy", true),
                step("lookaside", "GET https://h/signature-1", "403\nForbidden", false),
                step("probe", "GET https://h/", "404", true),
            ],
            findings: vec![
                Finding {
                    ailment: Ailment::LookasideForbidden,
                    severity: Severity::Fails,
                    sentence: "403.".to_owned(),
                    fix: "one\ntwo".to_owned(),
                },
                Finding {
                    ailment: Ailment::SubkeySignature,
                    severity: Severity::Note,
                    sentence: "A subkey.".to_owned(),
                    fix: "three".to_owned(),
                },
            ],
            decision: Outcome::Rejected,
        };
        insta::assert_snapshot!(output::rendered(&lines(&report)), @r"
        What a client does for q.io/a:1
        + policy          /etc/containers/policy.json
            scope default: signedBy
        ! lookaside       GET https://h/signature-1
            403\nForbidden
        ? probe           GET https://h/
            404

        A client rejects the image

        lookaside-forbidden
          403.
            one
            two

        note: subkey-signature
          A subkey.
            three
        ");
        insta::assert_snapshot!(serde_json::to_string(&report.findings).unwrap(), @r#"[{"ailment":"lookaside-forbidden","severity":"fails","sentence":"403.","fix":"one\ntwo"},{"ailment":"subkey-signature","severity":"note","sentence":"A subkey.","fix":"three"}]"#);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["decision"], &json["reference"]), (&"rejected".into(), &"q.io/a:1".into()));
        assert_eq!(json["steps"][0]["ok"], true);
    }
}
