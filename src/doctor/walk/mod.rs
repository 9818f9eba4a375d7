//! The walk: what a client does for an image, done and written down. Here is its course; the single
//! visits are in `visit`, the decision in `judge`; the files of this host were read by the caller.

mod judge;
mod visit;

#[cfg(test)]
pub(super) use judge::key_files;

use std::path::PathBuf;

use super::diagnose::diagnose;
use super::observation::{NamespaceSeen, Observations, Paths, SourceSeen, Stop};
use super::report::{Report, Step};
use crate::host::Environment;
use crate::image::{Digest, ImageReference, Reference};
use crate::lookup::OpenPgp;
use crate::lookup::Platform;
use crate::policy::{self, Policy, Requirement, SignatureBlob};
use crate::registries_conf::{self, ShortName};
use crate::registries_d::{self, LookasideBase};
use crate::registry::RegistryClient;

/// Two clients: registries.conf says of each source which of them is used.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Checks certificates, if the user did not say otherwise.
    pub secure: RegistryClient,
    /// Checks none, and tries plain http.
    pub insecure: RegistryClient,
}

/// What the user gave, which is then not asked for.
#[derive(Debug, Default)]
pub struct Given {
    /// The manifest.
    pub manifest: Option<Vec<u8>>,
    /// All signatures.
    pub signatures: Option<Vec<SignatureBlob>>,
    /// The lookaside, whatever registry and registries.d say.
    pub lookaside: Option<LookasideBase>,
}

/// All that a walk starts with.
#[derive(Debug)]
pub struct Walk {
    /// The image's full name.
    pub image: ImageReference,
    /// What the user wrote, if that was a short name, and how it was resolved.
    pub short_name: Option<(String, registries_conf::ShortName)>,
    /// Where this host's files are.
    pub paths: Paths,
    /// The policy and its file.
    pub policy: Result<(PathBuf, Policy), policy::LoadError>,
    /// registries.d.
    pub registries_d: Result<registries_d::Configuration, registries_d::ConfigurationError>,
    /// registries.conf.
    pub registries_conf: Result<registries_conf::Configuration, registries_conf::ConfigurationError>,
    /// Whose host it is.
    pub environment: Environment,
    /// The cryptography.
    pub mechanism: OpenPgp,
    /// How to talk to registries.
    pub clients: Clients,
    /// What the user gave.
    pub given: Given,
    /// For which platform.
    pub platform: Platform,
}

/// What has been found out, with the steps that showed it.
struct Chart {
    steps: Vec<Step>,
    seen: Observations,
}

impl Chart {
    fn step(&mut self, step: &'static str, request: impl Into<String>, answer: impl Into<String>, ok: bool) {
        self.steps.push(Step { step, request: request.into(), answer: answer.into(), ok });
    }

    fn stop(&mut self, step: &'static str, request: &str, sentence: String, stop: fn(String) -> Stop) {
        self.step(step, request, sentence.clone(), false);
        self.seen.stop = Some(stop(sentence));
    }
}

/// A manifest that was found, and where.
struct Found {
    physical: Reference,
    /// The URL below which everything of this registry is; absent when it was not asked.
    base: Option<String>,
    signatures: bool,
    client: RegistryClient,
    /// The bytes of what is judged; a given list's member is known by its digest only.
    bytes: Option<Vec<u8>>,
    digest: Digest,
    instance: bool,
}

impl Walk {
    /// Walks, and diagnoses what was seen.
    pub async fn run(self) -> Report {
        let mut chart = Chart { steps: Vec::new(), seen: self.start() };
        self.course(&mut chart).await;
        let findings = diagnose(&chart.seen);
        let decision = chart.seen.outcome();
        Report { reference: self.image.to_string(), steps: chart.steps, findings, decision }
    }

    fn start(&self) -> Observations {
        Observations {
            image: self.image.clone(),
            paths: self.paths.clone(),
            stop: None,
            scope: None,
            requirements: Vec::new(),
            docker_scopes: Vec::new(),
            namespaces: std::collections::BTreeMap::new(),
            sources: Vec::new(),
            manifest: None,
            place: None,
            write: None,
            judged: None,
        }
    }

    async fn course(&self, chart: &mut Chart) {
        if let Some((written, ShortName { full, from, is_alias, others })) = &self.short_name {
            let by = if *is_alias { "an alias" } else { "the first of unqualified-search-registries" };
            let mut answer = format!("{full}, by {by} in {}", from.display());
            if !others.is_empty() {
                answer.push_str(&format!("; podman tries {} next", others.join(", ")));
            }
            let request = format!("podman and CRI-O; skopeo and docker take {written} for docker.io's");
            chart.step("short-name", request, answer, true);
        }
        let Some(policy) = self.read_policy(chart) else { return };
        let Some(configuration) = self.read_registries_d(chart) else { return };
        let Some(sources) = self.read_registries_conf(chart) else { return };
        let Some(found) = self.find_manifest(chart, sources).await else { return };
        self.look_at_writing(chart, configuration, &found);
        // A policy that rejects anyway is asked before any signature is.
        let first = chart.seen.requirements.first();
        if matches!(first, Some(Requirement::Reject | Requirement::SignedBaseLayer(_))) {
            self.judge(chart, policy, &found, Ok(Vec::new()));
            return;
        }
        let signatures = self.find_signatures(chart, configuration, &found).await;
        self.judge(chart, policy, &found, signatures);
        self.look_around(chart, configuration, &found).await;
    }

    fn read_policy(&self, chart: &mut Chart) -> Option<&Policy> {
        let (path, policy) = match &self.policy {
            Ok(loaded) => loaded,
            Err(error) => {
                let missing = error.is_not_found() || matches!(error, policy::LoadError::Search(_));
                let stop = if missing { Stop::PolicyMissing } else { Stop::Policy };
                chart.stop("policy", "policy.json", error.to_string(), stop);
                return None;
            }
        };
        let (scope, requirements) = policy.docker_requirements(self.image.as_reference());
        let types: Vec<&str> = requirements.iter().map(Requirement::type_name).collect();
        chart.step("policy", path.display().to_string(), format!("scope {scope}: {}", types.join(", ")), true);
        chart.seen.scope = Some(scope);
        chart.seen.requirements = requirements.to_vec();
        chart.seen.docker_scopes =
            policy.transports.get("docker").map(|scopes| scopes.keys().cloned().collect()).unwrap_or_default();
        Some(policy)
    }

    fn read_registries_d(&self, chart: &mut Chart) -> Option<&registries_d::Configuration> {
        match &self.registries_d {
            Ok(configuration) => {
                let seen = |(namespace, placed): (&String, &registries_d::Placed)| {
                    let seen = NamespaceSeen {
                        path: placed.path.clone(),
                        lookaside: placed.section.lookaside.clone(),
                        attachments: placed.section.use_sigstore_attachments,
                    };
                    (namespace.clone(), seen)
                };
                chart.seen.namespaces = configuration.docker.iter().map(seen).collect();
                Some(configuration)
            }
            Err(error) => {
                chart.stop("registries.d", "registries.d", error.to_string(), Stop::RegistriesD);
                None
            }
        }
    }

    fn read_registries_conf(&self, chart: &mut Chart) -> Option<Vec<registries_conf::PullSource>> {
        let request = format!("registries.conf: sources of {}", self.image);
        let sources = match &self.registries_conf {
            Ok(configuration) => {
                configuration.pull_sources(&self.image).map_err(|error| format!("{}: {error}", error.from.display()))
            }
            Err(error) => Err(error.to_string()),
        };
        match sources {
            Ok(found) => {
                let names = found.sources.iter().map(|source| {
                    let marks = [
                        (source.is_mirror, "mirror"),
                        (source.insecure, "insecure"),
                        (source.blocked.is_some(), "blocked"),
                    ];
                    let marks: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
                    let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
                    format!("{}{marks}", source.reference)
                });
                let mut answer = names.collect::<Vec<_>>().join(", then ");
                if let Some(from) = found.sources.first().and_then(|source| source.from.as_ref()) {
                    answer = format!("{answer}; by {}", from.display());
                }
                chart.step("registries.conf", request, answer, true);
                Some(found.sources)
            }
            Err(sentence) => {
                chart.stop("registries.conf", &request, sentence, Stop::RegistriesConf);
                None
            }
        }
    }

    fn client(&self, source: &SourceSeen) -> &RegistryClient {
        if source.source.insecure { &self.clients.insecure } else { &self.clients.secure }
    }
}
