//! Visits: registries, lookasides, files; each request of a client and its answer.

use std::num::NonZeroU32;

use super::{Chart, Found, Walk};
use crate::doctor::observation::{LookasideSeen, ManifestSeen, PlaceSeen, ReadFailure, ReadOutcome, SourceSeen};
use crate::doctor::report::Outcome;
use crate::image::{Digest, Instance, ManifestKind, Reference, Tag, inspect_list, kind, manifest_digest};
use crate::lookup::{LookupError, Signatures};
use crate::policy::{Origin, Requirement, SignatureBlob};
use crate::registries_conf::PullSource;
use crate::registries_d::{Configuration, LookasideBase, Mode, Origin as Configured};
use crate::registry::{Ping, RegistryClient, SIGNATURE_LIMIT, Selector, redact};

/// The name of steps that only the doctor takes.
const PROBE: &str = "probe";

/// What the policy judges: its bytes, unless only a list of which it is a member was given.
struct Fetched {
    bytes: Option<Vec<u8>>,
    digest: Digest,
    instance: bool,
}

/// A lookaside, and what is read of it.
struct Shelf<'a> {
    base: LookasideBase,
    origin: Option<Configured>,
    path: &'a str,
    digest: &'a Digest,
}

/// Why a source gives no manifest.
enum Refusal {
    /// The next source is asked.
    Next,
    /// The client ends.
    End,
}

impl Walk {
    /// Tries the sources in order; the first that has the manifest is used for everything.
    pub(super) async fn find_manifest(&self, chart: &mut Chart, sources: Vec<PullSource>) -> Option<Found> {
        for source in sources {
            let mut seen = SourceSeen::new(source);
            let found = self.try_source(chart, &mut seen).await;
            chart.seen.sources.push(seen);
            match found {
                Ok(found) => return Some(found),
                Err(Refusal::End) => return None,
                Err(Refusal::Next) => {}
            }
        }
        None
    }

    async fn try_source(&self, chart: &mut Chart, seen: &mut SourceSeen) -> Result<Found, Refusal> {
        let physical = seen.source.reference.clone();
        if let Some(blocked) = &seen.source.blocked {
            let answer = format!("registry {} is blocked in {}", blocked.prefix, blocked.from.display());
            chart.step("ping", physical.repository().domain(), answer, false);
            return Err(Refusal::Next);
        }
        let client = self.client(seen).clone();
        // Whoever gave all that a registry could tell wants none to be asked.
        let given = self.given.signatures.is_some() || self.given.lookaside.is_some();
        let ping = if self.given.manifest.is_some() && given {
            None
        } else {
            Some(self.ping(chart, seen, &client).await.ok_or(Refusal::Next)?)
        };
        let base = ping.as_ref().map(|ping| ping.url.trim_end_matches("v2/").to_owned());
        let mut fetched = match &self.given.manifest {
            Some(bytes) => {
                chart.step("manifest", "--manifest", format!("{} bytes", bytes.len()), true);
                self.of_platform(chart, seen, bytes.clone())?
            }
            None => {
                let selector = Selector::of(&physical).ok_or(Refusal::End)?;
                let bytes = self.fetch(chart, seen, &client, base.as_deref(), selector).await.ok_or(Refusal::Next)?;
                self.of_platform(chart, seen, bytes)?
            }
        };
        if fetched.bytes.is_none() && self.given.manifest.is_none() {
            let member = Selector::Digest(&fetched.digest);
            fetched.bytes = self.fetch(chart, seen, &client, base.as_deref(), member).await;
            if fetched.bytes.is_none() {
                chart.seen.manifest = None;
                return Err(Refusal::End);
            }
        }
        let Fetched { bytes, digest, instance } = fetched;
        let signatures = ping.is_some_and(|ping| ping.signatures);
        Ok(Found { physical, base, signatures, client, bytes, digest, instance })
    }

    async fn ping(&self, chart: &mut Chart, seen: &mut SourceSeen, client: &RegistryClient) -> Option<Ping> {
        let repository = seen.source.reference.repository();
        let registry = repository.domain().to_owned();
        let ping = match client.pinged(&registry).await {
            Ok(ping) => ping,
            Err(error) => {
                let host = if registry == "docker.io" { "registry-1.docker.io" } else { &registry };
                chart.step("ping", format!("GET https://{host}/v2/"), error.to_string(), false);
                seen.ping = Some(Err(error.to_string()));
                if let Ok(ping) = self.clients.insecure.pinged(&registry).await {
                    seen.plain_http = ping.url.starts_with("http://");
                    seen.untrusted_certificate = !seen.plain_http;
                    chart.step(PROBE, format!("GET {} without checking certificates", ping.url), answer(&ping), true);
                }
                return None;
            }
        };
        for failed in &ping.failed {
            chart.step("ping", format!("GET https://{registry}/v2/"), failed.clone(), true);
        }
        chart.step("ping", format!("GET {}", ping.url), answer(&ping), true);
        seen.ping = Some(Ok(ping.clone()));
        if ping.status == 401
            && !ping.signatures
            && let Ok(known) = client.ping_with_credentials(repository).await
        {
            chart.step(PROBE, format!("GET {} with credentials", known.url), answer(&known), true);
            seen.with_credentials = Some(known);
        }
        Some(ping)
    }

    async fn fetch(
        &self,
        chart: &mut Chart,
        seen: &mut SourceSeen,
        client: &RegistryClient,
        base: Option<&str>,
        selector: Selector<'_>,
    ) -> Option<Vec<u8>> {
        let repository = seen.source.reference.repository();
        let request = format!("GET {}v2/{}/manifests/{selector}", base.unwrap_or_default(), repository.path());
        match client.manifest(repository, selector).await {
            Ok(manifest) => {
                let length = manifest.bytes.len();
                let answer = format!("200, {length} bytes, {}, {}", manifest.media_type, manifest.digest);
                chart.step("manifest", request, answer, true);
                Some(manifest.bytes.to_vec())
            }
            Err(error) => {
                chart.step("manifest", request, error.to_string(), false);
                seen.manifest_failure = Some(error.to_string());
                None
            }
        }
    }

    /// Of a list, takes the member for the platform; its bytes are still to be fetched.
    fn of_platform(&self, chart: &mut Chart, source: &mut SourceSeen, bytes: Vec<u8>) -> Result<Fetched, Refusal> {
        let physical = source.source.reference.clone();
        let mut malformed = |chart: &mut Chart, sentence: String| {
            chart.step(
                "manifest",
                format!("reading the manifest of {}", source.source.reference),
                sentence.clone(),
                false,
            );
            source.manifest_failure = Some(sentence);
            Refusal::End
        };
        let digest = manifest_digest(&bytes).map_err(|error| malformed(chart, error.to_string()))?;
        let mut seen = ManifestSeen { physical, digest: digest.clone(), list: None, no_instance_for: None };
        if kind(&bytes) != ManifestKind::List {
            chart.seen.manifest = Some(seen);
            return Ok(Fetched { bytes: Some(bytes), digest, instance: false });
        }
        let instances = inspect_list(&bytes).map_err(|error| malformed(chart, error.to_string()))?;
        let request = format!("member of the list {digest} for {}", self.platform);
        let chosen = self.choose(&instances).cloned();
        seen.list = Some((digest, instances));
        match chosen {
            Some(instance) => {
                let answer = format!("{} ({}); only this one is checked", instance.digest, instance.platform);
                chart.step("instance", request, answer, true);
                seen.digest = instance.digest.clone();
                chart.seen.manifest = Some(seen);
                Ok(Fetched { bytes: None, digest: instance.digest, instance: true })
            }
            None => {
                chart.step("instance", request, "there is none", false);
                seen.no_instance_for = Some(self.platform.to_string());
                chart.seen.manifest = Some(seen);
                Err(Refusal::End)
            }
        }
    }

    /// Chooses the member of a list that a client takes.
    fn choose<'a>(&self, instances: &'a [Instance]) -> Option<&'a Instance> {
        let wanted = self.platform.wanted();
        let fits = |name: String| instances.iter().find(|instance| instance.platform == name);
        let fitting = wanted.iter().find_map(|platform| fits(platform.to_string()));
        fitting.or_else(|| instances.iter().find(|instance| instance.platform.is_empty()))
    }

    /// Reads the signatures where a client does.
    pub(super) async fn find_signatures(
        &self,
        chart: &mut Chart,
        configuration: &Configuration,
        found: &Found,
    ) -> Result<Vec<SignatureBlob>, String> {
        if let Some(signatures) = &self.given.signatures {
            return Ok(signatures.clone());
        }
        let mut place = PlaceSeen::default();
        // The lookaside's URL must be one even where the extension is used (spec 1.5).
        let mut result =
            match self.shelf(configuration, &found.physical, found.physical.repository().path(), &found.digest) {
                Err(sentence) => {
                    chart.step("lookaside", format!("registries.d for {}", found.physical), sentence.clone(), false);
                    let failure = ReadFailure::Url(sentence.clone());
                    place.lookaside = Some(LookasideSeen {
                        base: String::new(),
                        origin: None,
                        first: String::new(),
                        outcome: ReadOutcome::Failed { at: String::new(), failure },
                    });
                    Err(sentence)
                }
                Ok(_) if found.signatures && self.given.lookaside.is_none() => {
                    let (url, result) = extension(found, &found.digest).await;
                    let (answer, ok) = match &result {
                        Ok(signatures) => (format!("200, {} signature(s)", signatures.len()), true),
                        Err(sentence) => (sentence.clone(), false),
                    };
                    chart.step("extension", format!("GET {url}"), answer, ok);
                    place.extension = Some((url, result.as_ref().map(Vec::len).map_err(Clone::clone)));
                    result
                }
                Ok(shelf) => {
                    let (seen, read) = self.read(chart, found, shelf, "lookaside").await;
                    place.lookaside = Some(seen);
                    read
                }
            };
        if found.base.is_some() && self.given.lookaside.is_none() {
            place.attachments.enabled = configuration.attachments(&found.physical).enabled;
            if place.attachments.enabled && result.is_ok() {
                let read = self.attachments(chart, found, "attachments").await;
                place.attachments.result = Some(read.as_ref().map(Vec::len).map_err(Clone::clone));
                result = result.and_then(|mut blobs| {
                    blobs.extend(read?);
                    Ok(blobs)
                });
            }
        }
        chart.seen.place = Some(place);
        result
    }

    /// Reads the sigstore attachments beside the image.
    async fn attachments(
        &self,
        chart: &mut Chart,
        found: &Found,
        step: &'static str,
    ) -> Result<Vec<SignatureBlob>, String> {
        let lookup = self.lookup(found);
        let tag = format!("{}-{}.sig", found.digest.algorithm().name(), found.digest.hex());
        let (base, path) = (found.base.as_deref().unwrap_or_default(), found.physical.repository().path());
        let read = lookup.attachments(&found.physical, &found.digest).await.map_err(|error| error.to_string());
        let (answer, ok) = match &read {
            Ok(blobs) => (format!("{} sigstore signature(s)", blobs.len()), true),
            Err(sentence) => (sentence.clone(), false),
        };
        chart.step(step, format!("GET {base}v2/{path}/manifests/{tag}"), answer, ok);
        read
    }

    fn lookup(&self, found: &Found) -> Signatures {
        Signatures {
            client: found.client.clone(),
            configuration: Configuration::default(),
            environment: self.environment.clone(),
        }
    }

    /// Finds the lookaside of a name: the given one, or what registries.d says.
    fn shelf<'a>(
        &self,
        configuration: &Configuration,
        name: &Reference,
        path: &'a str,
        digest: &'a Digest,
    ) -> Result<Shelf<'a>, String> {
        if let Some(base) = &self.given.lookaside {
            return Ok(Shelf { base: base.clone(), origin: None, path, digest });
        }
        let lookup = configuration.lookaside(name, Mode::Read, &self.environment).map_err(|e| e.to_string())?;
        Ok(Shelf { base: lookup.base, origin: Some(lookup.from), path, digest })
    }

    /// Reads 1, 2, 3, … until one is missing.
    async fn read(
        &self,
        chart: &mut Chart,
        found: &Found,
        shelf: Shelf<'_>,
        step: &'static str,
    ) -> (LookasideSeen, Result<Vec<SignatureBlob>, String>) {
        let Shelf { base, origin, path, digest } = shelf;
        let lookup = self.lookup(found);
        let registry = found.physical.repository().domain();
        let shown = |index| without_secrets(base.redacted_url(path, digest, index));
        let (verb, good, none) = if base.is_http() { ("GET", "200, ", "404") } else { ("open", "", "no such file") };
        let mut blobs = Vec::new();
        let mut failed = None;
        for index in (1..=SIGNATURE_LIMIT).filter_map(NonZeroU32::new) {
            let url = shown(index);
            let request = format!("{verb} {url}");
            match lookup.one_of_lookaside(&base, (registry, path), digest, index).await {
                Ok(Some(blob)) => {
                    chart.step(step, request, format!("{good}{} bytes", blob.bytes.len()), true);
                    blobs.push(blob);
                }
                Ok(None) => {
                    chart.step(step, request, none, true);
                    break;
                }
                Err(error) => {
                    chart.step(step, request, error.to_string(), false);
                    failed = Some((url, ReadFailure::of(&error), error.to_string()));
                    break;
                }
            }
        }
        if blobs.len() >= SIGNATURE_LIMIT as usize {
            failed = Some((shown(NonZeroU32::MIN), ReadFailure::Endless, LookupError::TooMany.to_string()));
        }
        let first = shown(NonZeroU32::MIN);
        let seen = |outcome| LookasideSeen { base: without_secrets(base.to_string()), origin, first, outcome };
        match failed {
            None => (seen(ReadOutcome::Found(blobs.len())), Ok(blobs)),
            Some((at, failure, sentence)) => (seen(ReadOutcome::Failed { at, failure }), Err(sentence)),
        }
    }

    /// Looks where no client looks, to tell causes apart.
    pub(super) async fn look_around(&self, chart: &mut Chart, configuration: &Configuration, found: &Found) {
        let Some(mut place) = chart.seen.place.clone() else { return };
        let physical = &found.physical;
        let path = physical.repository().path();
        let ill = chart.seen.outcome() != Outcome::Accepted;
        let nothing = place.simple() == Some(0);
        let by_extension = place.extension.is_some();
        let list = chart.seen.manifest.as_ref().and_then(|seen| seen.list.as_ref()).map(|(list, _)| list.clone());
        if let (true, true, Some(list)) = (ill, nothing, list) {
            place.of_list = self.count(chart, configuration, found, by_extension, &list).await;
        }
        if by_extension
            && let Ok(shelf @ Shelf { origin: Some(Configured::File { .. }), .. }) =
                self.shelf(configuration, physical, path, &found.digest)
        {
            place.lookaside = Some(self.read(chart, found, shelf, PROBE).await.0);
        }
        let wants_sigstore =
            chart.seen.requirements.iter().any(|requirement| matches!(requirement, Requirement::SigstoreSigned(_)));
        if ill && wants_sigstore && found.base.is_some() {
            if !place.attachments.enabled {
                place.attachments.unread = self.attachments(chart, found, PROBE).await.ok().map(|blobs| blobs.len());
            }
            if place.attachments.unread.or(place.attachments.result.clone().and_then(Result::ok)) == Some(0) {
                place.attachments.has_bundle = self.has_bundle(chart, found).await;
            }
        }
        if ill
            && nothing
            && !by_extension
            && let Ok(shelf) = self.shelf(configuration, physical, path, &found.digest)
            && let Some(base) = shelf.base.without_slash()
        {
            let (seen, _) = self.read(chart, found, Shelf { base, ..shelf }, PROBE).await;
            place.without_slash = Some(seen).filter(|seen| seen.found().unwrap_or(0) > 0);
        }
        let logical = self.image.repository().path();
        if ill && nothing && !by_extension && logical != path {
            for name in [physical, self.image.as_reference()] {
                let Ok(shelf) = self.shelf(configuration, name, logical, &found.digest) else { continue };
                let (seen, _) = self.read(chart, found, shelf, PROBE).await;
                if seen.found().unwrap_or(0) > 0 {
                    place.logical = Some((seen, logical.to_owned()));
                    break;
                }
            }
        }
        chart.seen.place = Some(place);
    }

    /// Tells whether there is a bundle of cosign 3: an image or index tagged with the digest, without `.sig`.
    async fn has_bundle(&self, chart: &mut Chart, found: &Found) -> bool {
        let tag = format!("{}-{}", found.digest.algorithm().name(), found.digest.hex());
        let (base, path) = (found.base.as_deref().unwrap_or_default(), found.physical.repository().path());
        let Ok(wanted) = Tag::parse(&tag) else { return false };
        let exists = found.client.manifest_exists(found.physical.repository(), Selector::Tag(&wanted)).await;
        let exists = exists.unwrap_or(false);
        let answer = if exists { "a bundle of cosign 3, which no released client reads" } else { "none" };
        chart.step(PROBE, format!("HEAD {base}v2/{path}/manifests/{tag}"), answer, true);
        exists
    }

    /// Counts the signatures of another digest, in the same way.
    async fn count(
        &self,
        chart: &mut Chart,
        configuration: &Configuration,
        found: &Found,
        by_extension: bool,
        digest: &Digest,
    ) -> Option<usize> {
        if by_extension {
            let (url, result) = extension(found, digest).await;
            let count = result.as_ref().ok().map(Vec::len);
            let answer = result.map_or_else(|sentence| sentence, |list| format!("200, {} signature(s)", list.len()));
            chart.step(PROBE, format!("GET {url}, of the list itself"), answer, true);
            return count;
        }
        let path = found.physical.repository().path();
        let shelf = self.shelf(configuration, &found.physical, path, digest).ok()?;
        self.read(chart, found, shelf, PROBE).await.0.found()
    }
}

/// Hides what a lookaside's URL may keep in its query; its password is hidden already.
fn without_secrets(url: String) -> String {
    match url::Url::parse(&url) {
        Ok(parsed) if parsed.query().is_some() => redact(&parsed),
        _ => url,
    }
}

/// Asks the extension for the signatures of a manifest.
async fn extension(found: &Found, digest: &Digest) -> (String, Result<Vec<SignatureBlob>, String>) {
    let repository = found.physical.repository();
    let base = found.base.as_deref().unwrap_or_default();
    let url = format!("{base}extensions/v2/{}/signatures/{digest}", repository.path());
    let result = found.client.signatures(repository, digest).await.map_err(|e| e.to_string());
    let blob = |(n, bytes)| SignatureBlob { origin: Origin::Extension(format!("extension entry {}", n + 1)), bytes };
    (url, result.map(|list| list.into_iter().enumerate().map(blob).collect()))
}

/// The part of a ping's answer that matters.
fn answer(ping: &Ping) -> String {
    match &ping.announced {
        Some(value) => format!("{}, X-Registry-Supports-Signatures: {value}", ping.status),
        None => format!("{}, no X-Registry-Supports-Signatures", ping.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_lookasides_are_not_shown() {
        let shown = |text: &str| without_secrets(text.to_owned());
        assert_eq!(
            shown("https://u:xxxxx@h/b//x@sha256=0/signature-1?token=secret"),
            "https://u:xxxxx@h/b//x@sha256=0/signature-1?token=xxxxx"
        );
        for plain in ["https://h/b//x@sha256=0/signature-1", "file:///srv/a b", "relative"] {
            assert_eq!(shown(plain), plain);
        }
    }
}
