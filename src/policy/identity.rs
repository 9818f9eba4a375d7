//! `signedIdentity`: which names a signature may say for an image (spec containers-image 5.2, 5.5).

use serde_json::value::RawValue;

use super::document::PolicyError;
use super::requirement::type_of;
use crate::image::{Reference, Repository, is_name_prefix, is_within};
use crate::json::{self, JsonError};

/// How the name in a signature is compared with the image's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IdentityMatch {
    /// Both have a tag or a digest, and are equal.
    MatchExact,
    /// As [`Self::MatchExact`] for an image by tag; the same repository for an image by digest.
    #[default]
    MatchRepoDigestOrExact,
    /// The same repository.
    MatchRepository,
    /// The signature says exactly this name, whatever the image is called.
    ExactReference(Reference),
    /// The signature says any name of this repository, whatever the image is called.
    ExactRepository(Repository),
    /// As [`Self::MatchRepoDigestOrExact`] after the image's name has been rewritten.
    RemapIdentity {
        /// The start of the image's name: a host, or a host and some of the path.
        prefix: String,
        /// What takes its place.
        signed_prefix: String,
    },
}

impl IdentityMatch {
    /// Reads a `signedIdentity` or `baseLayerIdentity`.
    ///
    /// # Errors
    /// [`PolicyError`] with the sentence of containers/image.
    pub(super) fn parse(value: &RawValue) -> Result<Self, PolicyError> {
        let kind = type_of(value, "signature.prmCommon", "prmCommon.type", "signature.prmTypeIdentifier")?;
        let fields = |names: [&'static str; 2]| read_fields(value, names);
        Ok(match kind.as_str() {
            "matchExact" => fields(["", ""]).map(|_| Self::MatchExact)?,
            "matchRepoDigestOrExact" => fields(["", ""]).map(|_| Self::MatchRepoDigestOrExact)?,
            "matchRepository" => fields(["", ""]).map(|_| Self::MatchRepository)?,
            "exactReference" => {
                let [text, _] = fields(["dockerReference", ""])?;
                let reference = parse_reference("dockerReference", &text)?;
                if reference.is_name_only() {
                    return Err(PolicyError::NameOnly(text));
                }
                Self::ExactReference(reference)
            }
            "exactRepository" => {
                let [text, _] = fields(["dockerRepository", ""])?;
                Self::ExactRepository(parse_reference("dockerRepository", &text)?.repository().clone())
            }
            "remapIdentity" => {
                let [prefix, signed_prefix] = fields(["prefix", "signedPrefix"])?;
                if let Some(wrong) = [&prefix, &signed_prefix].into_iter().find(|text| !is_name_prefix(text)) {
                    return Err(PolicyError::Prefix(wrong.clone()));
                }
                Self::RemapIdentity { prefix, signed_prefix }
            }
            _ => return Err(PolicyError::UnknownMatchType(kind)),
        })
    }

    /// Tells whether a signature that says `signed` is accepted for an image.
    ///
    /// `image` is the name that the user gave, with a tag or a digest; `None` for images without
    /// a docker name (`dir:`, `oci:`), which only the two exact types can accept.
    pub fn accepts(&self, image: Option<&Reference>, signed: &str) -> bool {
        let Ok(signed) = Reference::parse(signed) else { return false };
        match self {
            Self::ExactReference(wanted) => exactly(wanted, &signed),
            Self::ExactRepository(wanted) => wanted == signed.repository(),
            Self::MatchExact => image.is_some_and(|image| exactly(image, &signed)),
            Self::MatchRepository => image.is_some_and(|image| image.repository() == signed.repository()),
            Self::MatchRepoDigestOrExact => image.is_some_and(|image| repo_digest_or_exact(image, &signed)),
            Self::RemapIdentity { prefix, signed_prefix } => {
                image.is_some_and(|image| match remap(image, prefix, signed_prefix) {
                    Remapped::Untouched => repo_digest_or_exact(image, &signed),
                    Remapped::To(image) => repo_digest_or_exact(&image, &signed),
                    Remapped::Broken => false,
                })
            }
        }
    }
}

/// Reads an object with `type` and the named members only, all of them required. An empty name
/// stands for no member.
fn read_fields(value: &RawValue, names: [&'static str; 2]) -> Result<[String; 2], PolicyError> {
    let mut found: [Option<String>; 2] = [None, None];
    json::object(value.get(), |key, value| {
        let slot = names.iter().zip(&mut found).find(|(name, _)| !name.is_empty() && **name == key);
        match slot {
            Some((_, slot)) => *slot = Some(json::string(value)?.unwrap_or_default()),
            None if key == "type" => drop(json::string(value)?),
            None => return Ok(false),
        }
        Ok::<_, JsonError>(true)
    })?;
    let [first, second] = names;
    let take = |name: &'static str, found: Option<String>| match found {
        None if !name.is_empty() => Err(JsonError::Missing(name)),
        found => Ok(found.unwrap_or_default()),
    };
    let [a, b] = found;
    Ok([take(first, a)?, take(second, b)?])
}

fn parse_reference(field: &'static str, text: &str) -> Result<Reference, PolicyError> {
    Reference::parse(text).map_err(|source| PolicyError::Reference { field, text: text.to_owned(), source })
}

fn exactly(wanted: &Reference, signed: &Reference) -> bool {
    !wanted.is_name_only() && wanted == signed
}

/// For an image by digest the repository is enough: the digest itself is compared with the
/// manifest, and so is the signature's.
fn repo_digest_or_exact(image: &Reference, signed: &Reference) -> bool {
    if signed.is_name_only() {
        return false;
    }
    match (image.tag(), image.digest()) {
        (Some(_), _) => image == signed,
        (None, Some(_)) => image.repository() == signed.repository(),
        (None, None) => false,
    }
}

enum Remapped {
    Untouched,
    To(Reference),
    /// The rewritten name is none, or not one written out in full.
    Broken,
}

fn remap(image: &Reference, prefix: &str, signed_prefix: &str) -> Remapped {
    if !is_within(image.repository().as_str(), prefix) {
        return Remapped::Untouched;
    }
    let rewritten = image.to_string().replacen(prefix, signed_prefix, 1);
    Reference::parse_canonical(&rewritten).map_or(Remapped::Broken, Remapped::To)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn parse(json: &str) -> Result<IdentityMatch, String> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        IdentityMatch::parse(&raw).map_err(|e| e.to_string())
    }

    fn accepts(json: &str, image: &str, signed: &str) -> bool {
        let image = (!image.is_empty()).then(|| Reference::parse(&image.replace("@A", &format!("@{A}"))).unwrap());
        let signed = signed.replace("@A", &format!("@{A}")).replace("@B", &format!("@{B}"));
        parse(json).unwrap().accepts(image.as_ref(), &signed)
    }

    #[test]
    fn grammar() {
        for (json, sentence) in [
            ("null", r#"Unknown policy reference match type """#),
            ("{}", r#"Unknown policy reference match type """#),
            (r#"{"type":"x"}"#, r#"Unknown policy reference match type "x""#),
            ("[]", "json: cannot unmarshal array into Go value of type signature.prmCommon"),
            (r#""matchExact""#, "json: cannot unmarshal string into Go value of type signature.prmCommon"),
            (
                r#"{"type":1}"#,
                "json: cannot unmarshal number into Go struct field prmCommon.type of type signature.prmTypeIdentifier",
            ),
            (r#"{"type":"matchExact","x":1}"#, r#"Unknown key "x""#),
            (r#"{"type":"matchExact","":1}"#, r#"Unknown key """#),
            (r#"{"Type":"matchExact"}"#, r#"Unknown key "Type""#),
            (r#"{"type":"matchExact","type":"matchExact"}"#, r#"Duplicate key "type""#),
            (r#"{"type":"exactReference"}"#, r#"Key "dockerReference" missing in a JSON object"#),
            (
                r#"{"type":"exactReference","dockerReference":1,"x":2}"#,
                "json: cannot unmarshal number into Go value of type string",
            ),
            (
                r#"{"type":"exactReference","dockerReference":"UPPER"}"#,
                r#"Invalid format of dockerReference "UPPER": invalid reference format: repository name must be lowercase"#,
            ),
            (
                r#"{"type":"exactReference","dockerReference":null}"#,
                r#"Invalid format of dockerReference "": invalid reference format"#,
            ),
            (
                r#"{"type":"exactReference","dockerReference":"busybox"}"#,
                r#"dockerReference "busybox" contains neither a tag nor digest"#,
            ),
            (
                r#"{"type":"exactRepository","dockerRepository":"a b"}"#,
                r#"Invalid format of dockerRepository "a b": invalid reference format"#,
            ),
            (r#"{"type":"remapIdentity","prefix":"a"}"#, r#"Key "signedPrefix" missing in a JSON object"#),
            (r#"{"type":"remapIdentity","prefix":"a.b/","signedPrefix":"c"}"#, r#"prefix "a.b/" is not valid"#),
            (r#"{"type":"remapIdentity","prefix":"a.b","signedPrefix":"c/d:t"}"#, r#"prefix "c/d:t" is not valid"#),
            (r#"{"type":"remapIdentity","prefix":"","signedPrefix":"c"}"#, r#"prefix "" is not valid"#),
            (r#"{"type":"remapIdentity","prefix":"a_b/c","signedPrefix":"c"}"#, r#"prefix "a_b/c" is not valid"#),
            (
                r#"{"type":"exactReference","dockerReference":"[::1]/a:1"}"#,
                r#"Invalid format of dockerReference "[::1]/a:1": invalid reference format"#,
            ),
            (
                r#"{"type":"exactRepository","dockerRepository":"[::1]/a"}"#,
                r#"Invalid format of dockerRepository "[::1]/a": invalid reference format"#,
            ),
            (
                r#"{"type":"remapIdentity","prefix":"[::1]:5000","signedPrefix":"a.b"}"#,
                r#"prefix "[::1]:5000" is not valid"#,
            ),
            (r#"{"type":"remapIdentity","prefix":"a.b","signedPrefix":"[::1]"}"#, r#"prefix "[::1]" is not valid"#),
            (r#"{"type":"remapIdentity","prefix":"a/B","signedPrefix":"c"}"#, r#"prefix "a/B" is not valid"#),
        ] {
            assert_eq!(parse(json), Err(sentence.to_owned()), "{json}");
        }
        for fine in [
            r#"{"type":"exactRepository","dockerRepository":"busybox:tag"}"#,
            r#"{"type":"remapIdentity","prefix":"shortname","signedPrefix":"ns/shortname"}"#,
            r#"{"type":"remapIdentity","prefix":"host:5000","signedPrefix":"Host.b/a__b/c"}"#,
        ] {
            assert!(parse(fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn every_row_of_the_matching_table() {
        let exact = r#"{"type":"matchExact"}"#;
        let default = r#"{"type":"matchRepoDigestOrExact"}"#;
        let repository = r#"{"type":"matchRepository"}"#;
        // image, signed, matchExact, matchRepoDigestOrExact, matchRepository
        for (image, signed, row) in [
            ("busybox:1", "busybox:1", [true, true, true]),
            ("busybox:1", "docker.io/library/busybox:1", [true, true, true]),
            ("busybox:1", "index.docker.io/busybox:1", [true, true, true]),
            ("busybox:1", "busybox:2", [false, false, true]),
            ("busybox:1", "busybox", [false, false, true]),
            ("busybox:1", "busybox@A", [false, false, true]),
            ("busybox:latest", "busybox", [false, false, true]),
            ("busybox@A", "busybox:1", [false, true, true]),
            ("busybox@A", "busybox@A", [true, true, true]),
            ("busybox@A", "busybox@B", [false, true, true]),
            ("busybox@A", "busybox", [false, false, true]),
            ("busybox:1@A", "busybox:1", [false, false, true]),
            ("busybox:1@A", "busybox@A", [false, false, true]),
            ("busybox:1@A", "busybox:1@A", [true, true, true]),
            ("busybox:1", "busybox:1@A", [false, false, true]),
            ("busybox@A", "busybox:1@B", [false, true, true]),
            ("busybox", "busybox", [false, false, true]),
            ("busybox:1", "other:1", [false, false, false]),
            ("a.b:5000/x:1", "a.b/x:1", [false, false, false]),
            ("a.b/x:1", "a.b/x/y:1", [false, false, false]),
            ("busybox:1", "", [false, false, false]),
            ("busybox:1", "Busybox:1", [false, false, false]),
            ("busybox:1", "busybox:1 ", [false, false, false]),
            ("busybox:1", "docker://busybox:1", [false, false, false]),
            ("", "busybox:1", [false, false, false]),
            ("a.b/x:1", "[::1]/x:1", [false, false, false]),
        ] {
            let got = [exact, default, repository].map(|json| accepts(json, image, signed));
            assert_eq!(got, row, "image {image:?}, signed {signed:?}");
        }
    }

    #[test]
    fn exact_names_do_not_look_at_the_image() {
        let reference = r#"{"type":"exactReference","dockerReference":"busybox:1"}"#;
        let repository = r#"{"type":"exactRepository","dockerRepository":"busybox:1"}"#;
        for image in ["", "busybox:1", "other.com/x@A"] {
            assert!(accepts(reference, image, "docker.io/library/busybox:1"));
            assert!(!accepts(reference, image, "busybox:2") && !accepts(reference, image, "busybox"));
            assert!(accepts(repository, image, "busybox:2") && accepts(repository, image, "busybox"));
            assert!(!accepts(repository, image, "busybox/x:1") && !accepts(repository, image, "!"));
        }
    }

    #[test]
    fn remapping() {
        let remap = |prefix: &str, signed: &str| {
            format!(r#"{{"type":"remapIdentity","prefix":"{prefix}","signedPrefix":"{signed}"}}"#)
        };
        let vendor = remap("mirror.example:5000/vendor", "vendor.example.com");
        for (image, signed, accepted) in [
            ("mirror.example:5000/vendor/x:1", "vendor.example.com/x:1", true),
            ("mirror.example:5000/vendor/x:1", "vendor.example.com/x:2", false),
            ("mirror.example:5000/vendor/x:1", "mirror.example:5000/vendor/x:1", false),
            ("mirror.example:5000/vendor/x@A", "vendor.example.com/x:2", true),
            ("mirror.example:5000/vendor/x@A", "vendor.example.com/x", false),
            ("mirror.example:5000/vendors/x:1", "mirror.example:5000/vendors/x:1", true),
            ("mirror.example:5000/vendors/x:1", "vendor.example.coms/x:1", false),
            // The whole repository is the prefix: the new name is a mere host, which is no
            // canonical name.
            ("mirror.example:5000/vendor:1", "vendor.example.com:1", false),
            ("mirror.example/vendor/x:1", "mirror.example/vendor/x:1", true),
            ("", "vendor.example.com/x:1", false),
        ] {
            assert_eq!(accepts(&vendor, image, signed), accepted, "{image} {signed}");
        }
        assert!(accepts(&remap("a.b/x", "c.d/y"), "a.b/x:1", "c.d/y:1"));
        assert!(accepts(&remap("a.b", "docker.io/library"), "a.b/x:1", "x:1"));
        assert!(!accepts(&remap("a.b", "library"), "a.b/x:1", "library/x:1"), "not canonical");
        assert!(!accepts(&remap("library", "c.d"), "busybox:1", "c.d/busybox:1"), "prefixes are of the full name");
        assert!(accepts(&remap("a", "b.c"), "a.b/a:1", "a.b/a:1"), "only whole components");
        assert!(accepts(&remap("localhost", "b.c"), "localhost/localhost:1", "b.c/localhost:1"), "only the first");
    }

    /// The table of spec 5.5 said again on bare strings, with no parsed names.
    fn naive(kind: &str, image: &str, signed: &str) -> bool {
        let name = |text: &str| -> String {
            let text = text.split('@').next().unwrap_or_default();
            match text.rfind(':') {
                Some(colon) if !text[colon..].contains('/') => text[..colon].to_owned(),
                _ => text.to_owned(),
            }
        };
        let bare = |text: &str| name(text) == text;
        let digest_only = |text: &str| text.split('@').next() == Some(name(text).as_str()) && text.contains('@');
        match kind {
            "matchExact" => !bare(image) && image == signed,
            "matchRepository" => name(image) == name(signed),
            _ if bare(signed) => false,
            _ if digest_only(image) => name(image) == name(signed),
            _ => !bare(image) && image == signed,
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(3000))]
        #[test]
        fn agrees_with_the_table_on_strings(
            image in "a\\.b(:1)?/[ab]{1,2}(:[ab])?(@A)?",
            signed in "a\\.b(:1)?/[ab]{1,2}(:[ab])?(@[AB])?",
            kind in "matchExact|matchRepoDigestOrExact|matchRepository",
        ) {
            let full = |text: &str| text.replace("@A", &format!("@{A}")).replace("@B", &format!("@{B}"));
            let json = format!(r#"{{"type":"{kind}"}}"#);
            proptest::prop_assert_eq!(accepts(&json, &image, &signed), naive(&kind, &full(&image), &full(&signed)));
        }

        #[test]
        fn remap_is_a_replacement_of_text(
            image in "a\\.b/[ab]{1,2}(/[ab]{1,2})?(:[ab]|@A)",
            prefix in "a\\.b(/[ab]{1,2}){0,2}",
            signed_prefix in "(c\\.d|docker\\.io)(/[ab]{1,2}){0,1}",
            signed in "(a\\.b|c\\.d|docker\\.io)(/[ab]{1,2}){1,3}(:[ab]|@[AB])",
        ) {
            let full = |text: &str| text.replace("@A", &format!("@{A}")).replace("@B", &format!("@{B}"));
            let json = format!(r#"{{"type":"remapIdentity","prefix":"{prefix}","signedPrefix":"{signed_prefix}"}}"#);
            let (text, said) = (full(&image), full(&signed));
            let touched = [":", "@", "/"].iter().any(|end| text.starts_with(&format!("{prefix}{end}")));
            let mapped = if touched { format!("{signed_prefix}{}", &text[prefix.len()..]) } else { text };
            let strict = |text: &str| Reference::parse(text).is_ok_and(|parsed| parsed.to_string() == text);
            let said = Reference::parse(&said).unwrap().to_string();
            let expected = strict(&mapped) && naive("", &mapped, &said);
            proptest::prop_assert_eq!(accepts(&json, &image, &signed), expected, "{} {}", mapped, said);
        }
    }
}
