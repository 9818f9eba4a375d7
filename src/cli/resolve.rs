//! `countersign resolve`: where the signatures of a name are, which policy scope speaks of it, and
//! which file said so.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::host::HostArgs;
use super::output::{self, Answer, Format};
use super::requirement;
use super::subject::{Scope, SubjectArgs};
use super::verdict::scope_word;
use super::verify::parse_name;
use crate::escape;
use crate::host::Environment;
use crate::image::{Digest, ImageReference};
use crate::lookup::{Asked, Resolution, signature_urls};
use crate::registries_d::{LookasideError, Lookup, Operation, Origin};

/// Show where the signatures of an image are looked for, and which policy speaks of it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Resolve {
    /// The image's name, with or without docker://
    reference: String,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Digest of the image's manifest, for the addresses of its signatures
    #[arg(long, value_name = "ALGO:HEX", conflicts_with = "manifest", value_parser = Digest::parse)]
    digest: Option<Digest>,
    /// Ask the registry for the manifest, and whether it has the signature extension
    #[arg(long)]
    online: bool,
    #[command(flatten)]
    host: HostArgs,
}

const EXAMPLES: &str = "\
Examples:
  countersign resolve us.icr.io/birds/bluebird:build1
  countersign resolve us.icr.io/birds/bluebird:build1 --online --platform linux/s390x
  countersign resolve us.icr.io/birds/bluebird@sha256:… --format json

Without --online no registry is asked; the addresses then need a digest, --digest or --manifest.
Exit codes: 0 resolved; 2 a configuration file is broken or missing, or the registry did not answer.";

/// How many addresses are shown; a client goes on until it is told 404.
const SHOWN: u32 = 2;

/// The JSON document.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    /// The manifest whose signatures are looked for, if it is known.
    digest: Option<Digest>,
    /// The list that it was taken from.
    list: Option<Digest>,
    /// `extension` or `lookaside`; none if the registry was not asked.
    mechanism: Option<&'static str>,
    lookaside: Sides,
    use_sigstore_attachments: Attachments,
    /// The first addresses that a client asks.
    signature_urls: Vec<String>,
    /// Every namespace that registries.d is searched for, in order.
    candidates: Vec<String>,
    /// The same with what was found for each.
    searched: Vec<Searched>,
    policy: PolicyPart,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Sides {
    read: Side,
    write: Side,
}

/// One direction of the lookaside.
#[derive(Debug, Default, Serialize)]
struct Side {
    /// The base, a password replaced.
    url: Option<String>,
    /// The file that said so, or `built-in default`.
    from: Option<String>,
    namespace: Option<String>,
    key: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Attachments {
    enabled: bool,
    from: Option<String>,
    namespace: Option<String>,
}

#[derive(Debug, Serialize)]
struct Searched {
    namespace: String,
    file: Option<String>,
    read_key: Option<&'static str>,
    write_key: Option<&'static str>,
    use_sigstore_attachments: Option<bool>,
}

#[derive(Debug, Default, Serialize)]
struct PolicyPart {
    transport: &'static str,
    /// As in `verify`.
    scope: Option<String>,
    /// The file.
    from: Option<String>,
    /// As policy.json spells them.
    requirements: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    words: Vec<String>,
}

/// What the registry and the flags say of the manifest.
#[derive(Default)]
struct Manifest {
    digest: Option<Digest>,
    list: Option<Digest>,
    /// The address of the extension, if the registry has it.
    extension: Option<String>,
    mechanism: Option<&'static str>,
    notes: Vec<String>,
}

impl Resolve {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let reference = parse_name(&self.reference)?;
        let configuration = self.host.configuration()?;
        let resolution = Resolution::of(&configuration, reference.as_reference(), &Environment::from_process());
        let Resolution { read, write, attachments, asked } = resolution;
        let read = read?;
        let manifest = self.manifest(&reference).await?;
        let policy = self.host.policy().map_err(anyhow::Error::from);

        let mut notes = manifest.notes;
        let (mut urls, pattern) = addresses(&read, Operation::Read, &reference, manifest.digest.as_ref(), &mut notes);
        if let Ok(write) = &write {
            addresses(write, Operation::Write, &reference, manifest.digest.as_ref(), &mut notes);
        }
        if let Some(extension) = manifest.extension {
            let base = &read.base;
            notes.push(format!("the registry has the signature extension, so the lookaside {base} is not asked"));
            urls = vec![extension];
        }
        let report = Report {
            reference: reference.to_string(),
            digest: manifest.digest,
            list: manifest.list,
            mechanism: manifest.mechanism,
            lookaside: Sides { read: Side::of(Ok(&read)), write: Side::of(write.as_ref()) },
            use_sigstore_attachments: Attachments {
                enabled: attachments.enabled,
                from: attachments.from.as_ref().map(|(path, _)| path.display().to_string()),
                namespace: attachments.from.map(|(_, namespace)| namespace),
            },
            signature_urls: urls,
            candidates: asked.iter().map(|asked| asked.namespace.clone()).collect(),
            searched: asked.into_iter().map(Searched::of).collect(),
            policy: PolicyPart::of(&reference, &policy),
            notes,
        };
        output::result(format, &report.lines(&pattern), &report)?;
        // What can be said has been said; a host without a policy refuses every image all the same.
        policy.map(|_| Answer::Yes)
    }

    /// Finds the digest, by the flags or by asking.
    async fn manifest(&self, reference: &ImageReference) -> anyhow::Result<Manifest> {
        let client = self.host.client();
        let mut manifest = Manifest::default();
        let named = reference.as_reference().digest();
        if let Some(digest) = &self.digest {
            manifest.digest = Some(digest.clone());
        } else if self.online || self.subject.has_file() || named.is_some() {
            let found = self.subject.find(reference, &client, Scope::Chosen, !self.online).await?;
            manifest.list = found.list;
            manifest.notes = found.warnings;
            let subject = found.subjects.into_iter().next().unwrap_or_default();
            manifest.notes.extend(subject.fault.map(|fault| format!("a pull fails: {fault}")));
            manifest.digest = subject.digest;
        }
        if let (Some(digest), Some(named)) = (&self.digest, named) {
            let note = format!("Manifest does not match provided manifest digest {named}");
            manifest.notes.extend((digest != named).then_some(note));
        }
        if self.online {
            let repository = reference.repository();
            let extension = client.supports_signatures(repository.domain()).await?;
            manifest.mechanism = Some(if extension { "extension" } else { "lookaside" });
            if let Some(digest) = manifest.digest.as_ref().filter(|_| extension) {
                manifest.extension = Some(client.signatures_url(repository, digest).await?);
            }
        }
        Ok(manifest)
    }
}

/// The addresses below a base; without a digest only their pattern is known. What a client would
/// say against the base becomes a note.
fn addresses(
    lookup: &Lookup,
    operation: Operation,
    reference: &ImageReference,
    digest: Option<&Digest>,
    notes: &mut Vec<String>,
) -> (Vec<String>, String) {
    let unknown = Digest::sha256(b"");
    let known = digest.unwrap_or(&unknown);
    let (urls, error) = signature_urls(&lookup.base, operation, reference.as_reference(), known, SHOWN);
    let veil = |text: &str| if digest.is_some() { text.to_owned() } else { text.replace(unknown.hex(), "<hex>") };
    notes.extend(error.map(|error| veil(&error.to_string())));
    let pattern = urls.first().map(|url| veil(url)).unwrap_or_default();
    (if digest.is_some() { urls } else { Vec::new() }, pattern)
}

impl Side {
    fn of(lookup: Result<&Lookup, &LookasideError>) -> Self {
        let lookup = match lookup {
            Ok(lookup) => lookup,
            Err(error) => return Self { error: Some(error.to_string()), ..Self::default() },
        };
        let url = Some(lookup.base.to_string());
        match &lookup.from {
            Origin::BuiltIn => Self { url, from: Some("built-in default".to_owned()), ..Self::default() },
            Origin::File { path, namespace, key } => Self {
                url,
                from: Some(path.display().to_string()),
                namespace: Some(namespace.clone()),
                key: Some(key.name()),
                error: None,
            },
        }
    }

    fn lines(&self, name: &str, lines: &mut Vec<String>) {
        let what = self.url.as_ref().map(escape::text).or_else(|| self.error.clone()).unwrap_or_default();
        lines.push(format!("  {name:<11} {what}"));
        if let Some(from) = &self.from {
            let key = self.key.zip(self.namespace.as_ref());
            let key = key.map(|(key, namespace)| format!("{key} of {} in ", escape::word(namespace)));
            let from = escape::text(from);
            lines.push(format!("              by {}{from}", key.unwrap_or_else(|| "the ".to_owned())));
        }
    }
}

impl Searched {
    fn of(asked: Asked) -> Self {
        Self {
            namespace: asked.namespace,
            file: asked.file.map(|path| path.display().to_string()),
            read_key: asked.read.map(|key| key.name()),
            write_key: asked.write.map(|key| key.name()),
            use_sigstore_attachments: asked.attachments,
        }
    }

    fn line(&self) -> String {
        let said = match (&self.file, self.read_key, self.write_key) {
            (None, ..) => "not there".to_owned(),
            (Some(file), None, None) => format!("in {}, without a lookaside", escape::word(file)),
            (Some(file), read, write) => {
                let key = |key: Option<&'static str>| key.unwrap_or("nothing");
                format!("in {}: reads {}, writes {}", escape::word(file), key(read), key(write))
            }
        };
        format!("    {}  {said}", escape::word(&self.namespace))
    }
}

impl PolicyPart {
    fn of(reference: &ImageReference, policy: &anyhow::Result<(std::path::PathBuf, crate::policy::Policy)>) -> Self {
        let part = Self { transport: "docker", ..Self::default() };
        match policy {
            Err(e) => Self { error: Some(output::sentence(e)), ..part },
            Ok((path, policy)) => {
                let (scope, requirements) = policy.docker_requirements(reference.as_reference());
                Self {
                    scope: Some(scope_word(&scope).to_owned()),
                    from: Some(path.display().to_string()),
                    requirements: requirements.iter().map(requirement::json).collect(),
                    words: requirements.iter().map(requirement::words).collect(),
                    ..part
                }
            }
        }
    }
}

impl Report {
    fn lines(&self, pattern: &str) -> Vec<String> {
        let mut lines = vec![escape::text(&self.reference)];
        lines.extend(self.list.as_ref().map(|list| format!("  list        {list}")));
        lines.extend(self.digest.as_ref().map(|digest| format!("  digest      {digest}")));
        self.lookaside.read.lines("read", &mut lines);
        self.lookaside.write.lines("write", &mut lines);
        let mechanism = match self.mechanism {
            Some("extension") => "the registry's signature extension",
            Some(_) => "the lookaside; the registry has no signature extension",
            None => "the lookaside, unless the registry has the signature extension (--online asks)",
        };
        lines.push(format!("  mechanism   {mechanism}"));
        let attachments = &self.use_sigstore_attachments;
        let said = attachments.namespace.as_ref().zip(attachments.from.as_ref());
        let said = said.map(|(namespace, from)| format!(", by {} in {}", escape::word(namespace), escape::text(from)));
        let said = said.unwrap_or_default();
        lines
            .push(format!("  attachments {}{said}", if attachments.enabled { "looked for" } else { "not looked for" }));
        if self.signature_urls.is_empty() {
            lines.push(format!("  signatures  {}", escape::text(pattern)));
        }
        for (url, name) in self.signature_urls.iter().zip(["  signatures ", "             "]) {
            lines.push(format!("{name} {}", escape::text(url)));
        }
        if self.mechanism != Some("extension") {
            lines.push("              and so on, until one is missing".to_owned());
        }
        match (&self.policy.error, &self.policy.from, &self.policy.scope) {
            (None, Some(from), Some(scope)) => {
                lines.push(format!("  policy      {}, scope {}", escape::word(from), escape::word(scope)));
                lines.extend(self.policy.words.iter().map(|words| format!("              {words}")));
            }
            (error, ..) => lines.push(format!("  policy      {}", error.as_deref().unwrap_or("none"))),
        }
        lines.push("  registries.d was searched for".to_owned());
        lines.extend(self.searched.iter().map(Searched::line));
        lines.extend(self.notes.iter().map(|note| format!("  note: {note}")));
        lines
    }
}
