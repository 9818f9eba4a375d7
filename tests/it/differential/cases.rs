//! The questions: one list in which each ingredient appears by itself, and any number of random
//! mixtures of them.

use serde_json::{Value, json};

use countersign::image::Digest;

use super::claims::{self, EDITS};
use super::clients::Manifests;
use super::explained::Trait;
use super::keys::{KEYS, Keys, RINGS};
use super::messages::{self, FORMS, Form};
use super::random::Random;
use crate::openpgp::craft::{Craft, Key};

/// A question for both sides.
pub struct Case {
    pub number: usize,
    pub label: String,
    /// The image's name as a user writes it.
    pub image: String,
    /// Whether it is the list, of which an instance is chosen.
    pub of_list: bool,
    pub policy: Value,
    pub signatures: Vec<Vec<u8>>,
    /// What is in it about which the two sides may differ.
    pub traits: Vec<Trait>,
}

/// What cases are made of.
pub struct World {
    pub keys: Keys,
    crafter: Key,
    /// `127.0.0.1:port`.
    registry: String,
    /// The digests of the image, and of the list and its instance.
    digest: String,
    list: String,
    instance: String,
}

/// An image's name in parts.
#[derive(Clone)]
pub struct Name {
    /// As the user writes the repository, and in full.
    given: String,
    full: String,
    /// `:tag` or `@digest`, or nothing for the user who leaves it out.
    suffix: String,
}

/// Repositories that registries.conf sends to the one real one; as written, and in full.
pub const REPOSITORIES: &[(&str, &str)] = &[
    ("quay.example.com:8443/team/app", "quay.example.com:8443/team/app"),
    ("a.b.example.com/x/y/z", "a.b.example.com/x/y/z"),
    ("busybox", "docker.io/library/busybox"),
    ("index.docker.io/team/app", "docker.io/team/app"),
    ("localhost/app", "localhost/app"),
];

/// Tags of the image.
pub const TAGS: [&str; 3] = ["v1", "v2", "latest"];

impl Name {
    fn image(&self) -> String {
        format!("{}{}", self.given, self.suffix)
    }

    /// As identity and scope: what is left out is `latest`.
    fn identity(&self) -> String {
        let suffix = if self.suffix.is_empty() { ":latest" } else { &self.suffix };
        format!("{}{suffix}", self.full)
    }

    /// The scopes of spec 5.4, said anew.
    fn scopes(&self) -> Vec<String> {
        let mut scopes = vec![self.identity()];
        let ends = self.full.match_indices('/').map(|(at, _)| at).chain([self.full.len()]);
        scopes.extend(ends.collect::<Vec<_>>().into_iter().rev().map(|end| self.full[..end].to_owned()));
        let host = self.full.split(['/', ':']).next().unwrap();
        scopes.extend(host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..])));
        scopes
    }
}

fn signed_by(source: (&str, Value), identity: Option<Value>) -> Value {
    let mut requirement = json!({"type": "signedBy", "keyType": "GPGKeys", source.0: source.1});
    if let Some(identity) = identity {
        requirement["signedIdentity"] = identity;
    }
    requirement
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl World {
    pub fn new(registry: &str, manifests: &Manifests, list: &Digest) -> Self {
        let keys = Keys::make();
        Self {
            crafter: Key::of(&keys.exported("good"), 0),
            keys,
            registry: registry.to_owned(),
            digest: Digest::sha256(&manifests.image).to_string(),
            list: list.to_string(),
            instance: Digest::sha256(&manifests.instance).to_string(),
        }
    }

    fn name(&self, repository: usize, suffix: &str) -> Name {
        let (given, full) = match REPOSITORIES.get(repository) {
            Some((given, full)) => ((*given).to_owned(), (*full).to_owned()),
            None => (format!("{}/app", self.registry), format!("{}/app", self.registry)),
        };
        Name { given, full, suffix: suffix.to_owned() }
    }

    fn key_path(&self, ring: &str) -> (&'static str, Value) {
        ("keyPath", json!(self.keys.ring(ring)))
    }

    fn key_traits(key: &str) -> Vec<Trait> {
        match key {
            "rsa1024" => vec![Trait::ShortKey],
            "subkey" => vec![Trait::Subkey],
            _ => Vec::new(),
        }
    }

    fn sign(&self, key: &str, claim: &[u8]) -> Vec<u8> {
        self.keys.sign(&[key], &[], claim)
    }

    /// As [`Self::sign`] by `good`, without asking gpg: for the many cases that are not about messages.
    fn sign_quickly(&self, claim: &[u8]) -> Vec<u8> {
        Craft::ordinary(&self.crafter).message(&self.crafter, claim)
    }

    fn plain(&self, label: String, name: &Name, signatures: Vec<Vec<u8>>, requirement: Value) -> Case {
        let policy = json!({"default": [requirement]});
        Case { number: 0, label, image: name.image(), of_list: false, policy, signatures, traits: Vec::new() }
    }

    /// Each ingredient by itself.
    pub fn table(&self, random: &mut Random) -> Vec<Case> {
        let mut cases = Vec::new();
        self.claims(&mut cases);
        self.forms(&mut cases, random);
        self.key_states(&mut cases);
        self.key_sources(&mut cases);
        self.names(&mut cases);
        self.requirements(&mut cases);
        self.several(&mut cases);
        self.lists(&mut cases);
        for (number, case) in cases.iter_mut().enumerate() {
            case.number = number;
        }
        cases
    }

    /// All forms of messages, for whom no format is detected first, under one exact name.
    pub fn bare(&self, random: &mut Random) -> Vec<Case> {
        let mut cases = Vec::new();
        self.forms(&mut cases, random);
        let form = |case: &Case| FORMS.iter().find(|form| case.label == format!("message: {}", form.label));
        for case in &mut cases {
            if form(case).is_some_and(Form::is_text) {
                case.traits.push(Trait::Armour);
            }
            let exactly = json!({"type": "exactReference", "dockerReference": case.image});
            case.policy = json!({"default": [signed_by(self.key_path("good"), Some(exactly))]});
        }
        cases
    }

    fn claims(&self, cases: &mut Vec<Case>) {
        let name = self.name(0, ":v1");
        for edit in EDITS {
            let claim = edit.of(&quoted(&name.identity()), &self.digest);
            let signature = self.sign_quickly(&claim);
            let requirement = signed_by(self.key_path("good"), None);
            cases.push(self.plain(format!("claim: {}", edit.label), &name, vec![signature], requirement));
        }
    }

    fn forms(&self, cases: &mut Vec<Case>, random: &mut Random) {
        let name = self.name(0, ":v1");
        let claim = claims::good(&quoted(&name.identity()), &self.digest);
        for form in FORMS {
            let message = form.of(&self.keys, &self.crafter, "good", &claim, random);
            let requirement = signed_by(self.key_path("good"), None);
            let mut case = self.plain(format!("message: {}", form.label), &name, vec![message], requirement);
            case.traits.extend(form.differs);
            cases.push(case);
        }
        // One message, two signers; both keys are accepted by themselves.
        let message = self.keys.sign(&["good", "other"], &[], &claim);
        let requirement = signed_by(self.key_path("good-and-other"), None);
        cases.push(self.plain("message: two signers".to_owned(), &name, vec![message], requirement));
    }

    fn key_states(&self, cases: &mut Vec<Case>) {
        let name = self.name(0, ":v1");
        let claim = claims::good(&quoted(&name.identity()), &self.digest);
        for key in KEYS {
            let requirement = signed_by(self.key_path(key), None);
            let mut case = self.plain(format!("key: {key}"), &name, vec![self.sign(key, &claim)], requirement);
            case.traits = Self::key_traits(key);
            cases.push(case);
        }
        for ring in KEYS.iter().chain(&RINGS).filter(|ring| **ring != "good") {
            let requirement = signed_by(self.key_path(ring), None);
            cases.push(self.plain(format!("keyring: {ring}"), &name, vec![self.sign("good", &claim)], requirement));
        }
    }

    fn key_sources(&self, cases: &mut Vec<Case>) {
        let name = self.name(0, ":v1");
        let claim = claims::good(&quoted(&name.identity()), &self.digest);
        let paths = |rings: &[&str]| ("keyPaths", json!(rings.iter().map(|r| self.keys.ring(r)).collect::<Vec<_>>()));
        for rings in [
            &["good"][..],
            &["other", "good"],
            &["good", "other", "ed25519"],
            &["other"],
            &["missing", "good"],
            &["good", "missing"],
            &["good", "folder"],
            &["good", "empty"],
            &["garbage", "good"],
            &["empty", "garbage"],
            &["revoked", "good"],
            &[],
        ] {
            let requirement = signed_by(paths(rings), None);
            cases.push(self.plain(format!("keyPaths: {rings:?}"), &name, vec![self.sign("good", &claim)], requirement));
        }
        for ring in ["good", "other", "good-and-other", "two-blocks", "text-around", "empty", "garbage", "secret"] {
            let requirement = signed_by(("keyData", json!(self.keys.data(ring))), None);
            cases.push(self.plain(format!("keyData: {ring}"), &name, vec![self.sign("good", &claim)], requirement));
        }
        for kind in ["signedByGPGKeys", "X509Certificates", "signedByX509CAs"] {
            let mut requirement = signed_by(self.key_path("good"), None);
            requirement["keyType"] = json!(kind);
            cases.push(self.plain(format!("keyType: {kind}"), &name, vec![self.sign("good", &claim)], requirement));
        }
    }

    /// Every kind of identity against every kind of name.
    fn names(&self, cases: &mut Vec<Case>) {
        let digest = format!("@{}", self.digest);
        for (repository, suffix) in [(0, ":v1"), (0, &digest), (2, ""), (2, &digest), (5, ":v2")] {
            let name = self.name(repository, suffix);
            // What is remapped says the other name, and then only that one matches.
            for (label, identity) in self.identities(&name) {
                for (said, text) in self.spellings(&name) {
                    // All of them for one name; for the others what differs by the name.
                    let ordinary = ["same", "another tag", "by digest", "name only", "remapped"].contains(&said);
                    if (repository != 0 || suffix != ":v1") && !ordinary {
                        continue;
                    }
                    let signature = self.sign_quickly(&claims::good(&quoted(&text), &self.digest));
                    let requirement = signed_by(self.key_path("good"), identity.clone());
                    let label = format!("identity: {label}, image {}, says {said}", name.image());
                    cases.push(self.plain(label, &name, vec![signature], requirement));
                }
            }
        }
    }

    fn identities(&self, name: &Name) -> Vec<(&'static str, Option<Value>)> {
        let typed = |kind: &str| Some(json!({"type": kind}));
        let (parent, _) = name.full.rsplit_once('/').unwrap();
        vec![
            ("default", None),
            ("matchExact", typed("matchExact")),
            ("matchRepository", typed("matchRepository")),
            ("exactReference", Some(json!({"type": "exactReference", "dockerReference": name.identity()}))),
            ("exactRepository", Some(json!({"type": "exactRepository", "dockerRepository": name.full}))),
            (
                "remapIdentity",
                Some(json!({"type": "remapIdentity", "prefix": parent, "signedPrefix": "vendor.example.com/ns"})),
            ),
        ]
    }

    fn spellings(&self, name: &Name) -> Vec<(&'static str, String)> {
        let identity = name.identity();
        let (parent, last) = name.full.rsplit_once('/').unwrap();
        let other = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";
        vec![
            ("same", identity.clone()),
            ("another tag", format!("{}:v9", name.full)),
            ("another repository", format!("{parent}/other:v1")),
            ("longer repository", format!("{}/{last}:v1", name.full)),
            ("by digest", format!("{}@{}", name.full, self.digest)),
            ("by another digest", format!("{}@{other}", name.full)),
            ("tag and digest", format!("{}:v1@{}", name.full, self.digest)),
            ("name only", name.full.clone()),
            ("short", identity.trim_start_matches("docker.io/").trim_start_matches("library/").to_owned()),
            ("remapped", identity.replacen(parent, "vendor.example.com/ns", 1)),
            ("upper case", identity.to_uppercase()),
            ("with transport", format!("docker://{identity}")),
            ("64 digits", self.digest.replace("sha256:", "")),
            ("bad tag", format!("{}:-", name.full)),
            ("bad digest", format!("{}@sha256:abc", name.full)),
            ("trailing space", format!("{identity} ")),
            ("empty", String::new()),
        ]
    }

    fn requirements(&self, cases: &mut Vec<Case>) {
        let name = self.name(1, ":v1");
        let good = signed_by(self.key_path("good"), None);
        let other = signed_by(self.key_path("other"), None);
        let (anything, reject) = (json!({"type": "insecureAcceptAnything"}), json!({"type": "reject"}));
        let sigstore = json!({"type": "sigstoreSigned", "keyPath": "/missing.pub"});
        let base = json!({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchRepository"}});
        let claim = claims::good(&quoted(&name.identity()), &self.digest);
        for (label, list) in [
            ("anything", vec![&anything]),
            ("reject", vec![&reject]),
            ("anything, signed", vec![&anything, &good]),
            ("anything, signed by another", vec![&anything, &other]),
            ("signed by another, anything", vec![&other, &anything]),
            ("signed, signed by another", vec![&good, &other]),
            ("signed, signed", vec![&good, &good]),
            ("signed, reject", vec![&good, &reject]),
            ("sigstore", vec![&sigstore]),
            ("signed, sigstore", vec![&good, &sigstore]),
            ("base layer", vec![&base]),
            ("signed, base layer", vec![&good, &base]),
        ] {
            // Nothing signed is refused wherever anything is asked for.
            let unsigned = label.starts_with("anything") || label == "sigstore";
            for signers in [&[][..], &["good"], &["good", "other"]].into_iter().skip(usize::from(!unsigned)) {
                let signatures = signers.iter().map(|key| self.sign(key, &claim)).collect();
                let mut case =
                    self.plain(format!("requirements: {label}, by {signers:?}"), &name, signatures, json!({}));
                case.policy = json!({"default": list});
                cases.push(case);
            }
        }
    }

    /// Several signatures, good and bad, in both orders.
    fn several(&self, cases: &mut Vec<Case>) {
        let name = self.name(0, ":v1");
        let good = self.sign("good", &claims::good(&quoted(&name.identity()), &self.digest));
        let unnamed = self.sign("good", &claims::good(&quoted("x.example.com/y:z"), &self.digest));
        for (label, bad) in [
            ("another key's", self.sign("other", &claims::good(&quoted(&name.identity()), &self.digest))),
            ("another name's", unnamed),
            ("one of no known form", b"<html>".to_vec()),
            ("an empty one", Vec::new()),
            ("a broken one", b"\xa3\x01\x02".to_vec()),
            ("a sigstore one", b"\0sigstore-json\n{\"mimeType\":\"x\",\"payload\":\"\",\"annotations\":{}}".to_vec()),
        ] {
            for signatures in [vec![good.clone(), bad.clone()], vec![bad.clone(), good.clone()], vec![bad.clone(), bad]]
            {
                let requirement = signed_by(self.key_path("good"), None);
                let label = format!("several: {label}, {} at first", signatures[0].len());
                cases.push(self.plain(label, &name, signatures, requirement));
            }
        }
    }

    /// A list by tag and by digest: the instance is judged, under the list's name.
    fn lists(&self, cases: &mut Vec<Case>) {
        for suffix in [":list".to_owned(), format!("@{}", self.list)] {
            let name = self.name(0, &suffix);
            for (label, digest) in [("instance", &self.instance), ("list", &self.list), ("another", &self.digest)] {
                for says in [name.identity(), format!("{}@{}", name.full, self.instance), format!("{}:v1", name.full)] {
                    let signature = self.sign_quickly(&claims::good(&quoted(&says), digest));
                    let requirement = signed_by(self.key_path("good"), None);
                    let label = format!("list: {suffix:.6}, signature of the {label} as {says:.50}");
                    let mut case = self.plain(label, &name, vec![signature], requirement);
                    case.of_list = true;
                    cases.push(case);
                }
            }
        }
    }

    /// A mixture.
    pub fn random(&self, number: usize, random: &mut Random) -> Case {
        let suffix = match random.below(4) {
            0 => format!("@{}", self.digest),
            1 => String::new(),
            _ => format!(":{}", random.pick(&TAGS)),
        };
        let name = self.name(random.below(REPOSITORIES.len() + 1), &suffix);
        let mut traits = Vec::new();
        let count = [1, 1, 1, 1, 0, 2, 2, 3][random.below(8)];
        let identities = self.identities(&name);
        let (kind, identity) = random.pick(&identities).clone();
        let signatures = (0..count).map(|_| self.random_signature(&name, kind, random, &mut traits)).collect();
        let main = signed_by(self.random_source(random), identity);
        let policy = self.random_policy(&name, &main, random);
        Case {
            number,
            label: format!("random {number}"),
            image: name.image(),
            of_list: false,
            policy,
            signatures,
            traits,
        }
    }

    fn random_signature(&self, name: &Name, kind: &str, random: &mut Random, traits: &mut Vec<Trait>) -> Vec<u8> {
        let spellings = self.spellings(name);
        let wanted = if kind == "remapIdentity" { "remapped" } else { "same" };
        let spelling = match random.percent(65) {
            true => &spellings.iter().find(|(said, _)| *said == wanted).unwrap().1,
            false => &random.pick(&spellings).1,
        };
        let reference = quoted(spelling);
        let claim = match random.percent(80) {
            true => claims::good(&reference, &self.digest),
            false => random.pick(EDITS).of(&reference, &self.digest),
        };
        let signer = if random.percent(75) { "good" } else { *random.pick(&KEYS) };
        traits.extend(Self::key_traits(signer));
        let usable = |form: &&&Form| signer == "good" || form.is_by_any_key();
        let form = match random.percent(70) {
            true => messages::ordinary(),
            false => Some(random.pick(FORMS)).as_ref().filter(usable).copied().unwrap_or(messages::ordinary()),
        };
        traits.extend(form.differs);
        if signer == "good" && std::ptr::eq(form, messages::ordinary()) && random.percent(50) {
            return self.sign_quickly(&claim);
        }
        form.of(&self.keys, &self.crafter, signer, &claim, random)
    }

    fn random_source(&self, random: &mut Random) -> (&'static str, Value) {
        let ring = |random: &mut Random| match random.below(10) {
            0..7 => "good",
            7 => *random.pick(&KEYS),
            8 => "good-and-other",
            _ => *random.pick(&RINGS),
        };
        match random.below(4) {
            0 => ("keyData", json!(self.keys.data(ring(random)))),
            1 => {
                let rings: Vec<_> = (0..1 + random.below(3)).map(|_| self.keys.ring(ring(random))).collect();
                ("keyPaths", json!(rings))
            }
            _ => self.key_path(ring(random)),
        }
    }

    /// The main requirement at some of the scopes that cover the image, and decoys around it.
    fn random_policy(&self, name: &Name, main: &Value, random: &mut Random) -> Value {
        let (anything, reject) = (json!([{"type": "insecureAcceptAnything"}]), json!([{"type": "reject"}]));
        let several = json!([{"type": "insecureAcceptAnything"}, main, main]);
        let doubled = json!([main, signed_by(self.key_path("other"), None)]);
        let main = json!([main]);
        let decoys = [&anything, &reject, &main, &several, &doubled];
        let host = name.full.split(['/', ':']).next().unwrap().to_owned();
        let mut scopes = serde_json::Map::new();
        let covering = name.scopes();
        scopes.insert(random.pick(&covering).clone(), main.clone());
        for scope in covering.iter().chain([&String::new()]) {
            if random.percent(12) {
                scopes.insert(scope.clone(), (*random.pick(&decoys)).clone());
            }
        }
        // Near misses: none of them covers the image.
        let misses = [
            format!("{}:v9", name.full),
            format!("{}/", name.full),
            format!("{}x", name.full),
            format!("*.{host}"),
            format!("*{host}"),
            format!("{host}:1"),
            "*".to_owned(),
            format!("docker://{}", name.full),
            name.full.to_uppercase(),
        ];
        for miss in misses {
            if random.percent(30) {
                scopes.insert(miss, random.pick(&[&anything, &reject]).to_owned().clone());
            }
        }
        let default = (*random.pick(&decoys)).clone();
        let transport = if random.percent(90) { "docker" } else { "atomic" };
        if transport == "atomic" {
            // Scopes of this transport have a grammar; only hosts are sure to fit.
            scopes.retain(|scope, _| !scope.contains('/'));
        }
        json!({"default": default, "transports": {transport: scopes, "dir": {"": anything}}})
    }
}
