//! What a valid policy.json does that its author hardly wanted: scopes that never match, keys that
//! are not there, requirements that always reject or never ask.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::go;
use crate::image::{Reference, is_name_prefix};
use crate::openpgp::{KEYRING_LIMIT, Keyring};
use crate::policy::{
    Fulcio, IdentityMatch, KeySource, KeyType, Material, Pki, Policy, Requirement, SigstoreKeys, SigstoreSigned,
    SigstoreTrust,
};
use crate::sigstore;

/// The transports of containers/image.
const TRANSPORTS: [&str; 11] = [
    "atomic",
    "containers-storage",
    "dir",
    "docker",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

/// Looks a policy over and says what deserves a second look, a sentence each. Reads the key files.
pub fn review_policy(policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    if policy.default.iter().all(|requirement| *requirement == Requirement::InsecureAcceptAnything) {
        warnings.push(
            "default: accepts anything, so whatever no scope names is taken unsigned; consider \"reject\"".to_owned(),
        );
    }
    review_requirements("default", &policy.default, &mut warnings);
    for (transport, scopes) in &policy.transports {
        if !TRANSPORTS.contains(&transport.as_str()) {
            warnings.push(format!("transport {}: there is no such transport, it never applies", go::quote(transport)));
        }
        for (scope, requirements) in scopes {
            let place = format!("{transport} scope {}", go::quote(scope));
            if transport == "docker" {
                warnings.extend(never_matches(scope).map(|why| format!("{place}: never matches: {why}")));
                if scope.is_empty() && requirements.iter().all(|r| *r == Requirement::InsecureAcceptAnything) {
                    warnings.push(format!("{place}: accepts anything from every registry that no other scope names"));
                }
            }
            review_requirements(&place, requirements, &mut warnings);
        }
    }
    warnings
}

/// Tells why no image of a registry ever asks for a scope (or for a key under `docker` of
/// registries.d, which are looked up by the same names); `None` when one may.
pub fn never_matches(scope: &str) -> Option<String> {
    if scope.is_empty() {
        return None;
    }
    if let Some((scheme, rest)) = scope.split_once("://") {
        return Some(format!("names have no scheme; write {:?} instead of {scheme}://…", rest.trim_end_matches('/')));
    }
    if scope.ends_with('/') {
        return Some(format!("names do not end with a slash; write {:?}", scope.trim_end_matches('/')));
    }
    if let Some(domain) = scope.strip_prefix("*.") {
        let wrong = domain.contains(['/', ':', '*']) || !is_name_prefix(domain);
        return wrong.then(|| "after \"*.\" only a domain may follow, without port and path".to_owned());
    }
    if scope.contains('*') {
        return Some("\"*\" means something only at the beginning, as *.example.com".to_owned());
    }
    let (host, path) = scope.split_once('/').map_or((scope, None), |(host, path)| (host, Some(path)));
    let registry = host.contains(['.', ':']) || host == "localhost";
    if !registry {
        let full = Reference::parse(scope).map(|name| name.to_string());
        return Some(match full {
            Ok(full) => format!("short names are expanded before the search; write {full:?}"),
            Err(_) => format!("{host:?} is no host of a registry"),
        });
    }
    if host == "index.docker.io" {
        return Some("images of index.docker.io are looked up as docker.io".to_owned());
    }
    if path.is_some_and(|path| path.chars().any(char::is_uppercase)) && !path.is_some_and(|path| path.contains(':')) {
        return Some("repository names have no capital letters".to_owned());
    }
    if is_name_prefix(scope) {
        return None;
    }
    match Reference::parse_canonical(scope) {
        Ok(name) if name.tag().is_some() && name.digest().is_some() => {
            Some("no image is looked up by tag and digest at once".to_owned())
        }
        Ok(_) => None,
        Err(e) => Some(format!("it is no name of a registry, a namespace, a repository or an image ({e})")),
    }
}

fn review_requirements(place: &str, requirements: &[Requirement], warnings: &mut Vec<String>) {
    let mut warn = |sentence: String| warnings.push(format!("{place}: {sentence}"));
    if requirements.len() > 1 && requirements.contains(&Requirement::Reject) {
        warn("\"reject\" rejects whatever the other requirements say".to_owned());
    }
    if requirements.len() > 1 && requirements.contains(&Requirement::InsecureAcceptAnything) {
        warn("\"insecureAcceptAnything\" beside other requirements has no effect: all must be fulfilled".to_owned());
    }
    let verifying: Vec<&str> =
        requirements.iter().filter(|one| one.verifies_signatures()).map(Requirement::type_name).collect();
    if verifying.len() > 1 {
        warn(format!(
            "an image must fulfil all {} requirements of the list ({}), not one of them; to accept any of several keys, \
             list them as keyPaths of one requirement",
            verifying.len(),
            verifying.join(", ")
        ));
    }
    for requirement in requirements {
        match requirement {
            Requirement::InsecureAcceptAnything | Requirement::Reject => {}
            Requirement::SignedBaseLayer(_) => warn("signedBaseLayer is not implemented and always rejects".to_owned()),
            Requirement::SignedBy(signed_by) => {
                if signed_by.key_type == KeyType::GpgKeys {
                    review_keys(&signed_by.keys).into_iter().for_each(&mut warn);
                } else {
                    warn(format!("keyType {} is not implemented and always rejects", signed_by.key_type));
                }
                identity(&signed_by.identity).into_iter().for_each(&mut warn);
            }
            Requirement::SigstoreSigned(signed) => {
                review_sigstore(signed).into_iter().for_each(&mut warn);
                identity(&signed.identity).into_iter().for_each(&mut warn);
            }
        }
    }
}

/// Reads keyrings as an evaluation would.
fn review_keys(keys: &KeySource) -> Vec<String> {
    let mut warnings = Vec::new();
    let blobs: Vec<(String, Vec<u8>)> = match keys {
        KeySource::Data(data) => vec![("keyData".to_owned(), data.clone())],
        KeySource::Path(path) => read(path, &mut warnings).into_iter().collect(),
        KeySource::Paths(paths) => paths.iter().filter_map(|path| read(path, &mut warnings)).collect(),
    };
    let one_missing = warnings.iter().any(|warning| warning.starts_with("open "));
    let mut none = true;
    for (name, bytes) in blobs {
        let ring = Keyring::parse([bytes]);
        none &= ring.is_empty();
        if ring.is_empty() {
            warnings.push(format!("{name} holds no public key that clients import"));
        }
        warnings.extend(ring.notes().iter().map(|note| format!("{name}: {note}")));
        warnings.extend(ring.warnings().map(|(_, warning)| format!("{name}: {warning}")));
        warnings.extend(review_standings(&name, &ring));
    }
    if none {
        warnings.push("there is no key, so it always rejects".to_owned());
    } else if one_missing {
        warnings.push("one key file that cannot be read makes it always reject".to_owned());
    }
    warnings
}

fn read(path: &Path, warnings: &mut Vec<String>) -> Option<(String, Vec<u8>)> {
    if let Some(sentence) = unreadable(path) {
        warnings.push(sentence);
        return None;
    }
    if !path.is_absolute() {
        warnings.push(format!("{} is read from the working directory of whoever pulls", path.display()));
    }
    match std::fs::read(path) {
        Ok(bytes) => Some((path.display().to_string(), bytes)),
        Err(e) => {
            warnings.push(format!("open {}: {}", path.display(), go::error_text(&e)));
            None
        }
    }
}

/// Why a file of the policy cannot be used, asked without opening pipes or devices.
fn unreadable(path: &Path) -> Option<String> {
    let failed = |reason: String| Some(format!("open {}: {reason}", path.display()));
    match std::fs::metadata(path) {
        Err(e) => failed(go::error_text(&e)),
        Ok(meta) if !meta.is_file() => failed("not a regular file".to_owned()),
        Ok(meta) if meta.len() > KEYRING_LIMIT as u64 => failed(format!("larger than {KEYRING_LIMIT} bytes")),
        Ok(_) => std::fs::File::open(path).err().and_then(|e| failed(go::error_text(&e))),
    }
}

/// How long before its end a key deserves a warning.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Tells of keys that have expired, are revoked, or will soon expire.
fn review_standings(name: &str, ring: &Keyring) -> Vec<String> {
    let now = SystemTime::now();
    let warn = |(key, standing)| match standing {
        Err(fault) => Some(format!("{name}: {fault}")),
        Ok(Some(expires)) if expires <= now + SOON => {
            let at = jiff::Timestamp::try_from(expires).map(|at| at.to_string()).unwrap_or_default();
            Some(format!("{name}: key {key} expires soon, on {at}; after that it accepts no image"))
        }
        Ok(_) => None,
    };
    ring.standings(now).into_iter().filter_map(warn).collect()
}

/// Reads keys and certificates of a sigstoreSigned requirement as an evaluation would.
fn review_sigstore(signed: &SigstoreSigned) -> Vec<String> {
    let mut warnings = Vec::new();
    match &signed.trust {
        SigstoreTrust::Keys(keys) => sigstore_keys(keys, &mut warnings),
        SigstoreTrust::Fulcio(Fulcio { ca, subject_email, .. }) => {
            certificates(ca, &mut warnings);
            subject(subject_email, &mut warnings);
        }
        SigstoreTrust::Pki(Pki { ca_roots, ca_intermediates, subject_email, .. }) => {
            certificates(ca_roots, &mut warnings);
            ca_intermediates.iter().for_each(|material| certificates(material, &mut warnings));
            subject(subject_email, &mut warnings);
        }
    }
    if let Some(rekor) = &signed.rekor {
        sigstore_keys(rekor, &mut warnings);
    }
    warnings
}

/// A CI job's URL stands in another field of its certificate, which clients do not compare.
fn subject(email: &str, warnings: &mut Vec<String>) {
    if email.contains("://") || (!email.is_empty() && !email.contains('@')) {
        warnings.push(format!(
            "subjectEmail {email:?} is no mail address; clients compare it with the mail addresses of the certificate \
             only, so certificates of CI jobs, which hold a URL instead, are never accepted"
        ));
    }
}

fn sigstore_keys(keys: &SigstoreKeys, warnings: &mut Vec<String>) {
    let paths = match keys {
        SigstoreKeys::Path(path) => std::slice::from_ref(path),
        SigstoreKeys::Paths(paths) => paths.as_slice(),
        SigstoreKeys::Data(data) => return sigstore_key("keyData", data, warnings),
        SigstoreKeys::Datas(all) => return all.iter().for_each(|data| sigstore_key("keyDatas", data, warnings)),
    };
    for path in paths {
        if let Some((name, bytes)) = read(path, warnings) {
            sigstore_key(&name, &bytes, warnings);
        }
    }
}

fn sigstore_key(name: &str, bytes: &[u8], warnings: &mut Vec<String>) {
    let warning = match (sigstore::check_public_keys(bytes), sigstore::pem_labels(bytes).first()) {
        (Ok(1), _) => return,
        (Ok(count), _) => format!(
            "{name} holds {count} PEM blocks, of which clients read the first only; give each key a file of its own, and \
             list them as keyPaths"
        ),
        (Err(_), Some(label)) if label.contains("PRIVATE KEY") => format!(
            "{name} is a private key, which must not be here, and accepts no image; write the public key to another \
             file: cosign public-key --key FILE, or openssl pkey -in FILE -pubout"
        ),
        (Err(_), Some(label)) if label == "CERTIFICATE" => format!(
            "{name} is a certificate, where a public key is wanted, and accepts no image: openssl x509 -in FILE -pubkey \
             -noout; to trust a certificate authority, use pki or fulcio"
        ),
        (Err(_), _) if !Keyring::parse([bytes]).is_empty() || bytes.starts_with(b"-----BEGIN PGP ") => format!(
            "{name} is an OpenPGP key, which sigstoreSigned does not read; use it with signedBy, or name the PEM public \
             key of cosign"
        ),
        (Err(error), _) => format!("{name} is no public key that clients read, and accepts no image: {error}"),
    };
    warnings.push(warning);
}

fn certificates(material: &Material, warnings: &mut Vec<String>) {
    let (name, bytes) = match material {
        Material::Data(data) => ("the certificates".to_owned(), data.clone()),
        Material::Path(path) => match read(path, warnings) {
            Some(read) => read,
            None => return,
        },
    };
    if !sigstore::pem_labels(&bytes).iter().any(|label| label == "CERTIFICATE") {
        warnings.push(format!("{name} holds no certificate in PEM, and accepts no image"));
    }
}

fn identity(identity: &IdentityMatch) -> Vec<String> {
    let IdentityMatch::RemapIdentity { prefix, signed_prefix } = identity else { return Vec::new() };
    let mut warnings = Vec::new();
    if let Some(why) = never_matches(prefix) {
        warnings.push(format!("prefix {prefix:?} of remapIdentity never applies: {why}"));
    }
    if let Some(why) = never_matches(signed_prefix) {
        warnings.push(format!("signedPrefix {signed_prefix:?} of remapIdentity matches no signature: {why}"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_never_match() {
        let hex = "0".repeat(64);
        for good in [
            "",
            "docker.io",
            "docker.io/library",
            "docker.io/library/busybox",
            "docker.io/library/busybox:1",
            "localhost",
            "localhost:5000/x",
            "us.icr.io:8443/birds",
            "*.icr.io",
            "*.com",
            "Quay.IO/x",
            "quay.io/x/y:Tag",
            &format!("quay.io/x/y@sha256:{hex}"),
        ] {
            assert_eq!(never_matches(good), None, "{good}");
        }
        for (bad, hint) in [
            ("busybox", "write \"docker.io/library/busybox\""),
            ("library/busybox:1", "write \"docker.io/library/busybox:1\""),
            ("https://quay.io/x", "write \"quay.io/x\""),
            ("quay.io/", "write \"quay.io\""),
            ("*.quay.io/x", "without port and path"),
            ("*.quay.io:5000", "without port and path"),
            ("quay.*.io", "only at the beginning"),
            ("*", "only at the beginning"),
            ("index.docker.io/x", "as docker.io"),
            ("quay.io/Birds", "no capital letters"),
            ("quay.io//x", "is no name"),
            ("[::1]:5000/x", "is no name"),
            ("[::1]:5000", "is no name"),
            ("Registry/x", "is no host"),
            ("quay.io/x:a:b", "is no name"),
            (&format!("quay.io/x/y:t@sha256:{hex}"), "tag and digest at once"),
        ] {
            let why = never_matches(bad).unwrap_or_else(|| panic!("{bad} passes"));
            assert!(why.contains(hint), "{bad}: {why}");
        }
    }

    #[test]
    fn a_policy_with_everything_wrong() {
        let alice = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/alice.pub.asc");
        let policy = serde_json::json!({
            "default": [{"type": "insecureAcceptAnything"}],
            "transports": {
                "dokcer": {"": [{"type": "reject"}]},
                "docker": {
                    "busybox": [{"type": "reject"}],
                    "a.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [alice, "/missing.gpg"]}],
                    "b.example": [{"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/x"}],
                    "c.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": "AAAA"}],
                    "d.example": [{"type": "reject"}, {"type": "insecureAcceptAnything"}],
                    "e.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": alice}],
                    "f.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []}],
                    "g.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": alice,
                        "signedIdentity": {"type": "remapIdentity", "prefix": "short", "signedPrefix": "x.example"}}],
                }
            }
        });
        let policy = Policy::parse(policy.to_string().as_bytes()).unwrap();
        insta::assert_snapshot!(review_policy(&policy).join("\n"), @r#"
        default: accepts anything, so whatever no scope names is taken unsigned; consider "reject"
        docker scope "a.example": open /missing.gpg: no such file or directory
        docker scope "a.example": one key file that cannot be read makes it always reject
        docker scope "b.example": keyType X509Certificates is not implemented and always rejects
        docker scope "busybox": never matches: short names are expanded before the search; write "docker.io/library/busybox"
        docker scope "c.example": keyData holds no public key that clients import
        docker scope "c.example": keyData: a keyring without any OpenPGP key was skipped: it has no armoured key block that begins at the start of a line
        docker scope "c.example": there is no key, so it always rejects
        docker scope "d.example": "reject" rejects whatever the other requirements say
        docker scope "d.example": "insecureAcceptAnything" beside other requirements has no effect: all must be fulfilled
        docker scope "f.example": there is no key, so it always rejects
        docker scope "g.example": prefix "short" of remapIdentity never applies: short names are expanded before the search; write "docker.io/library/short"
        transport "dokcer": there is no such transport, it never applies
        "#);
        let good = Policy::parse(br#"{"default":[{"type":"reject"}]}"#).unwrap();
        assert_eq!(review_policy(&good), Vec::<String>::new());
    }
}
