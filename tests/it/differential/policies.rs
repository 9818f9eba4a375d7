//! Texts of policy.json, good and bad. Each accepts any image, or is no policy.

use super::explained::Trait;

/// A text, and why the two sides differ about it if they do.
pub struct Text {
    pub text: String,
    pub differs: Option<Trait>,
}

const ANY: &str = r#"[{"type":"insecureAcceptAnything"}]"#;

/// A policy whose docker transport has this requirement.
fn with(requirement: &str) -> String {
    format!(r#"{{"default":{ANY},"transports":{{"docker":{{"x.example.com":[{requirement}]}}}}}}"#)
}

/// A policy whose docker transport has a signedBy with this identity.
fn identity(identity: &str) -> String {
    with(&format!(r#"{{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","signedIdentity":{identity}}}"#))
}

const WHOLE: &[&str] = &[
    "",
    "null",
    "[]",
    "1",
    "\"x\"",
    "{}",
    "{\"default\":[]}",
    "{\"default\":null}",
    "{\"default\":{}}",
    "{\"default\":ANY}",
    " \t\r\n{\"default\":ANY} \t\r\n",
    "\u{feff}{\"default\":ANY}",
    "{\"default\":ANY}x",
    "{\"default\":ANY}{}",
    "{\"default\":ANY}\0",
    "{\"default\":ANY,}",
    "{\"default\":ANY /* comment */}",
    "{'default':ANY}",
    "{\"default\":ANY,\"default\":ANY}",
    "{\"Default\":ANY}",
    "{\"def\\u0061ult\":ANY}",
    "{\"default\":ANY,\"x\":1}",
    "{\"default\":ANY,\"\":1}",
    "{\"default\":ANY,\"transports\":{}}",
    "{\"default\":ANY,\"transports\":null}",
    "{\"default\":ANY,\"transports\":[]}",
    "{\"default\":ANY,\"transports\":{},\"transports\":{}}",
    "{\"default\":ANY,\"transports\":{\"docker\":{}}}",
    "{\"default\":ANY,\"transports\":{\"docker\":null}}",
    "{\"default\":ANY,\"transports\":{\"docker\":ANY}}",
    "{\"default\":ANY,\"transports\":{\"docker\":{},\"docker\":{}}}",
    "{\"default\":ANY,\"transports\":{\"docker\":{\"\":ANY}}}",
    "{\"default\":ANY,\"transports\":{\"docker\":{\"x\":[]}}}",
    "{\"default\":ANY,\"transports\":{\"docker\":{\"x\":null}}}",
    "{\"default\":ANY,\"transports\":{\"docker\":{\"x\":ANY,\"x\":ANY}}}",
    "{\"default\":ANY,\"transports\":{\"docker\":{\"x\":ANY,\"\\u0078\":ANY}}}",
    "{\"default\":ANY,\"transports\":{\"docker\":{\"Not A Scope \\n\":ANY}}}",
    "{\"default\":ANY,\"transports\":{\"nonsense\":{\"x y\":ANY}}}",
    "{\"default\":ANY,\"transports\":{\"\":{\"x y\":ANY}}}",
    "{\"default\":[{\"type\":\"insecureAcceptAnything\"},null]}",
    "{\"default\":[null]}",
    "{\"default\":[[]]}",
    "{\"default\":[{}]}",
];

const REQUIREMENTS: &[&str] = &[
    r#"{"type":"insecureAcceptAnything","x":1}"#,
    r#"{"type":"insecureAcceptAnything","type":"insecureAcceptAnything"}"#,
    r#"{"Type":"insecureAcceptAnything"}"#,
    r#"{"type":"InsecureAcceptAnything"}"#,
    r#"{"type":"reject","type":"reject"}"#,
    r#"{"type":"reject"}"#,
    r#"{"type":"reject","keyType":"GPGKeys"}"#,
    r#"{"type":""}"#,
    r#"{"type":null}"#,
    r#"{"type":1}"#,
    r#"{"type":"unknown"}"#,
    r#"{"type":"signedBaseLayer"}"#,
    r#"{"type":"signedBaseLayer","baseLayerIdentity":null}"#,
    r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#,
    r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"},"x":1}"#,
    r#"{"type":"signedBy"}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys"}"#,
    r#"{"type":"signedBy","keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":"","keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":null,"keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":1,"keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":"gpgkeys","keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":"X509Certificates","keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":"signedByX509CAs","keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":"signedByGPGKeys","keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":""}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":null}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":1}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyPath":"/k"}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyData":""}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyData":null}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyPaths":null}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyPaths":[]}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"","keyData":""}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":[]}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":null}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":[""]}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k",null]}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k",1]}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":"/k"}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":{}}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":""}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":null}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"AA=="}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"AA="}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"AA"}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"AB=="}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"A\nA\r=="}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"A A=="}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"_-=="}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"AA==AA=="}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"====="}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyData":[0]}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","x":1}"#,
    r#"{"type":"signedBy","keyType":"GPGKeys","KeyPath":"/k"}"#,
    r#"{"type":"sigstoreSigned"}"#,
    r#"{"type":"sigstoreSigned","keyPath":"/k"}"#,
    r#"{"type":"sigstoreSigned","keyData":"AA=="}"#,
    r#"{"type":"sigstoreSigned","keyPath":"/k","keyData":"AA=="}"#,
    r#"{"type":"sigstoreSigned","keyPath":"/k","keyType":"GPGKeys"}"#,
];

/// Requirements that came after skopeo 1.9.3.
const LATER: &[&str] = &[
    r#"{"type":"sigstoreSigned","keyPaths":["/k"]}"#,
    r#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r"}"#,
];

const IDENTITIES: &[&str] = &[
    "null",
    "{}",
    "[]",
    r#""matchExact""#,
    r#"{"type":"matchExact"}"#,
    r#"{"type":"matchExact","x":1}"#,
    r#"{"type":"matchExact","type":"matchExact"}"#,
    r#"{"Type":"matchExact"}"#,
    r#"{"type":"matchRepoDigestOrExact"}"#,
    r#"{"type":"matchRepository"}"#,
    r#"{"type":"matchRepository","dockerRepository":"x"}"#,
    r#"{"type":"unknown"}"#,
    r#"{"type":"exactReference"}"#,
    r#"{"type":"exactReference","dockerReference":"busybox"}"#,
    r#"{"type":"exactReference","dockerReference":"busybox:1"}"#,
    r#"{"type":"exactReference","dockerReference":"busybox:1","dockerReference":"busybox:1"}"#,
    r#"{"type":"exactReference","dockerReference":"Busybox:1"}"#,
    r#"{"type":"exactReference","dockerReference":"docker://busybox:1"}"#,
    r#"{"type":"exactReference","dockerReference":"x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
    r#"{"type":"exactReference","dockerReference":"x:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
    r#"{"type":"exactReference","dockerReference":"x@sha256:e3b0"}"#,
    r#"{"type":"exactReference","dockerReference":"x@sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
    r#"{"type":"exactReference","dockerReference":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
    r#"{"type":"exactReference","dockerReference":null}"#,
    r#"{"type":"exactReference","dockerReference":1}"#,
    r#"{"type":"exactRepository"}"#,
    r#"{"type":"exactRepository","dockerRepository":"busybox"}"#,
    r#"{"type":"exactRepository","dockerRepository":"busybox:1"}"#,
    r#"{"type":"exactRepository","dockerRepository":"a//b"}"#,
    r#"{"type":"exactRepository","dockerRepository":"a__b/c"}"#,
    r#"{"type":"exactRepository","dockerRepository":"a___b/c"}"#,
    r#"{"type":"exactRepository","dockerRepository":"a.-b/c"}"#,
    r#"{"type":"exactRepository","dockerRepository":"a---b/c"}"#,
    r#"{"type":"exactRepository","dockerRepository":""}"#,
    r#"{"type":"remapIdentity"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b:1","signedPrefix":"c.d:2/e"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b/","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b/c:t","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b/c","signedPrefix":"c.d/e@sha256:e3b0"}"#,
    r#"{"type":"exactReference","dockerReference":"HOST/busybox:1"}"#,
    r#"{"type":"exactReference","dockerReference":"HOST.b/busybox:1"}"#,
    r#"{"type":"exactReference","dockerReference":"[::1]/x:1"}"#,
    r#"{"type":"exactReference","dockerReference":"[::1]:5000/x:1"}"#,
    r#"{"type":"exactReference","dockerReference":"::1/x:1"}"#,
    r#"{"type":"exactRepository","dockerRepository":"[::1]/x"}"#,
    r#"{"type":"exactRepository","dockerRepository":"[2001:db8::1]:443/x"}"#,
    r#"{"type":"remapIdentity","prefix":"[::1]","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"[::1]:5000/x","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b","signedPrefix":"[::1]:5000"}"#,
    r#"{"type":"remapIdentity","prefix":"shortname","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"SHORT","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b/C","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a_b","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a_b/c","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b","signedPrefix":""}"#,
    r#"{"type":"remapIdentity","prefix":"*.b","signedPrefix":"c.d"}"#,
    r#"{"type":"remapIdentity","prefix":"a.b","signedPrefix":"c.d","x":1}"#,
    r#"{"type":"remapIdentity","prefix":"a.b","prefix":"a.b","signedPrefix":"c.d"}"#,
];

/// Scopes of transports that have a grammar for them.
const SCOPES: &[(&str, &[&str])] = &[
    ("dir", &["", "/", "/a", "/a/", "/a/../b", "/a//b", "a", "/a b", "."]),
    ("oci", &["", "/", "/a", "/a:tag", "/a/", "a", "/a:"]),
    ("oci-archive", &["/a", "a"]),
    ("sif", &["", "/a", "a"]),
    ("docker-archive", &["", "/a"]),
    ("tarball", &["", "/a"]),
    (
        "docker-daemon",
        &["", "busybox", "sha256:abc", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ),
    ("containers-storage", &["", "busybox", "[overlay@/a]busybox", "[/a]", "[a]", "/a"]),
    ("atomic", &["", "h", "h:1/ns/stream:tag"]),
];

/// All of them.
pub fn texts() -> Vec<Text> {
    let mut texts = Vec::new();
    let mut add = |text: String, differs| texts.push(Text { text, differs });
    for text in WHOLE {
        add(text.replace("ANY", ANY), None);
    }
    for requirement in REQUIREMENTS {
        add(with(requirement), None);
    }
    for requirement in LATER {
        add(with(requirement), Some(Trait::Later));
    }
    add(with(r#"{"type":"sigstoreSigned","keyPath":""}"#), Some(Trait::EmptyKeyPath));
    for text in IDENTITIES {
        add(identity(text), None);
    }
    for (transport, scopes) in SCOPES {
        for scope in *scopes {
            add(format!(r#"{{"default":{ANY},"transports":{{"{transport}":{{"{scope}":{ANY}}}}}}}"#), None);
        }
    }
    // Debian's skopeo is built without this transport, and what is unknown is not looked at.
    let atomic = r#"{"default":ANY,"transports":{"atomic":{"h/a/b/c/d":ANY}}}"#.replace("ANY", ANY);
    add(atomic, Some(Trait::NoAtomic));
    texts
}
