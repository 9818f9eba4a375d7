//! Requirements of a policy in JSON, as policy.json spells them, and in words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::escape;
use crate::policy::{
    Fulcio, IdentityMatch, KeySource, Material, Pki, Requirement, SigstoreKeys, SigstoreSigned, SigstoreTrust,
};

/// Spells a requirement as a policy file would; the default `signedIdentity` is written out.
pub fn json(requirement: &Requirement) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
    put("type", requirement.type_name().into());
    match requirement {
        Requirement::InsecureAcceptAnything | Requirement::Reject => {}
        Requirement::SignedBaseLayer(base) => put("baseLayerIdentity", identity(&base.identity)),
        Requirement::SignedBy(signed_by) => {
            put("keyType", signed_by.key_type.name().into());
            match &signed_by.keys {
                KeySource::Path(path) => put("keyPath", path.to_string_lossy().into()),
                KeySource::Paths(paths) => put("keyPaths", paths.iter().map(|path| path.to_string_lossy()).collect()),
                KeySource::Data(data) => put("keyData", STANDARD.encode(data).into()),
            }
            put("signedIdentity", identity(&signed_by.identity));
        }
        Requirement::SigstoreSigned(signed) => {
            sigstore(signed, &mut put);
            put("signedIdentity", identity(&signed.identity));
        }
    }
    Value::Object(object)
}

/// Says a requirement in a line.
pub fn words(requirement: &Requirement) -> String {
    let Value::Object(members) = json(requirement) else { return String::new() };
    let mut line = requirement.type_name().to_owned();
    for (key, value) in &members {
        let value = match (key.as_str(), value) {
            ("type", _) => continue,
            (key, Value::String(text)) if key.ends_with("Data") => format!("of {} characters", text.len()),
            (_, Value::String(text)) => escape::word(text),
            ("signedIdentity" | "baseLayerIdentity", Value::Object(identity)) => {
                let kind = identity.get("type").and_then(Value::as_str).unwrap_or_default();
                let rest = identity.iter().filter(|(key, _)| *key != "type").filter_map(|(_, value)| value.as_str());
                [kind].into_iter().chain(rest).map(escape::word).collect::<Vec<_>>().join(" ")
            }
            (_, value) => value.to_string(),
        };
        line.push_str(&format!(", {key} {value}"));
    }
    line
}

fn sigstore(signed: &SigstoreSigned, put: &mut dyn FnMut(&str, Value)) {
    match &signed.trust {
        SigstoreTrust::Keys(all) => {
            let (suffix, value) = keys(all);
            put(&format!("key{suffix}"), value);
        }
        SigstoreTrust::Fulcio(Fulcio { ca, oidc_issuer, subject_email }) => {
            let (suffix, value) = material(ca);
            put(
                "fulcio",
                json!({format!("ca{suffix}"): value, "oidcIssuer": oidc_issuer, "subjectEmail": subject_email}),
            );
        }
        SigstoreTrust::Pki(Pki { ca_roots, ca_intermediates, subject_email, subject_hostname }) => {
            let (suffix, value) = material(ca_roots);
            let mut pki = json!({format!("caRoots{suffix}"): value});
            let mut add = |key: String, value: Value| drop(pki.as_object_mut().map(|pki| pki.insert(key, value)));
            if let Some(between) = ca_intermediates {
                let (suffix, value) = material(between);
                add(format!("caIntermediates{suffix}"), value);
            }
            for (key, text) in [("subjectEmail", subject_email), ("subjectHostname", subject_hostname)] {
                if !text.is_empty() {
                    add(key.to_owned(), text.as_str().into());
                }
            }
            put("pki", pki);
        }
    }
    if let Some(rekor) = &signed.rekor {
        let (suffix, value) = keys(rekor);
        put(&format!("rekorPublicKey{suffix}"), value);
    }
}

fn keys(keys: &SigstoreKeys) -> (&'static str, Value) {
    match keys {
        SigstoreKeys::Path(path) => ("Path", path.to_string_lossy().into()),
        SigstoreKeys::Paths(paths) => ("Paths", paths.iter().map(|path| path.to_string_lossy()).collect()),
        SigstoreKeys::Data(data) => ("Data", STANDARD.encode(data).into()),
        SigstoreKeys::Datas(all) => ("Datas", all.iter().map(|data| STANDARD.encode(data)).collect()),
    }
}

fn material(material: &Material) -> (&'static str, Value) {
    match material {
        Material::Path(path) => ("Path", path.to_string_lossy().into()),
        Material::Data(data) => ("Data", STANDARD.encode(data).into()),
    }
}

fn identity(identity: &IdentityMatch) -> Value {
    match identity {
        IdentityMatch::MatchExact => json!({"type": "matchExact"}),
        IdentityMatch::MatchRepoDigestOrExact => json!({"type": "matchRepoDigestOrExact"}),
        IdentityMatch::MatchRepository => json!({"type": "matchRepository"}),
        IdentityMatch::ExactReference(name) => {
            json!({"type": "exactReference", "dockerReference": name.to_string()})
        }
        IdentityMatch::ExactRepository(name) => {
            json!({"type": "exactRepository", "dockerRepository": name.to_string()})
        }
        IdentityMatch::RemapIdentity { prefix, signed_prefix } => {
            json!({"type": "remapIdentity", "prefix": prefix, "signedPrefix": signed_prefix})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn what_is_spelled_is_read_again() {
        let identity = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let repo = identity(r#"{"type":"matchRepository"}"#);
        let remap = identity(r#"{"type":"remapIdentity","prefix":"a.example","signedPrefix":"b.example"}"#);
        let reference = identity(r#"{"type":"exactReference","dockerReference":"a.example/x:1"}"#);
        let requirements = json!([
            {"type": "insecureAcceptAnything"},
            {"type": "reject"},
            {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "signedIdentity": repo},
            {"type": "signedBy", "keyType": "signedByGPGKeys", "keyPaths": ["/k", "/l"], "signedIdentity": remap},
            {"type": "signedBy", "keyType": "GPGKeys", "keyData": "AAAA", "signedIdentity": reference},
            {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}},
            {"type": "sigstoreSigned", "keyDatas": ["AAAA", "AAAB"], "rekorPublicKeyPath": "/r", "signedIdentity": repo},
            {"type": "sigstoreSigned", "fulcio": {"caPath": "/ca", "oidcIssuer": "i", "subjectEmail": "s"},
             "rekorPublicKeyData": "AAAA", "signedIdentity": repo},
            {"type": "sigstoreSigned", "pki": {"caRootsPath": "/ca", "caIntermediatesData": "AAAA", "subjectHostname": "h"},
             "signedIdentity": repo},
        ]);
        let policy = Policy::parse(json!({"default": requirements}).to_string().as_bytes()).unwrap();
        let spelled: Vec<Value> = policy.default.iter().map(json).collect();
        assert_eq!(Value::Array(spelled), requirements);
        let lines: Vec<String> = policy.default.iter().map(words).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        insecureAcceptAnything
        reject
        signedBy, keyPath /k, keyType GPGKeys, signedIdentity matchRepository
        signedBy, keyPaths ["/k","/l"], keyType signedByGPGKeys, signedIdentity remapIdentity a.example b.example
        signedBy, keyData of 4 characters, keyType GPGKeys, signedIdentity exactReference a.example/x:1
        signedBaseLayer, baseLayerIdentity matchExact
        sigstoreSigned, keyDatas ["AAAA","AAAB"], rekorPublicKeyPath /r, signedIdentity matchRepository
        sigstoreSigned, fulcio {"caPath":"/ca","oidcIssuer":"i","subjectEmail":"s"}, rekorPublicKeyData of 4 characters, signedIdentity matchRepository
        sigstoreSigned, pki {"caIntermediatesData":"AAAA","caRootsPath":"/ca","subjectHostname":"h"}, signedIdentity matchRepository
        "#);
    }
}
