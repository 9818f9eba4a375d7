//! Claims as nobody writes them: a good one, and one edit each.

/// What is signed and what is said about it.
pub struct Edit {
    pub label: &'static str,
    /// The text of a good claim that is replaced, and by what. Bytes, for not all of it is UTF-8.
    from: &'static str,
    to: &'static [u8],
}

const OPTIONAL: &str = r#","optional":{"creator":"atomic test","timestamp":1700000000}"#;
const CREATOR: &str = r#""atomic test""#;
const TIME: &str = "1700000000";
const TYPE: &str = r#""atomic container signature""#;
/// In the place of the digest and the name while a claim is edited.
const DIGEST: &str = "<digest>";
const NAME: &str = "<name>";

/// A claim for `name` (a JSON value) and `digest`.
pub fn good(name: &str, digest: &str) -> Vec<u8> {
    fill(template().into_bytes(), name, digest)
}

fn template() -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":{NAME}}},"image":{{"docker-manifest-digest":"{DIGEST}"}},"type":{TYPE}}}{OPTIONAL}}}"#
    )
}

fn fill(text: Vec<u8>, name: &str, digest: &str) -> Vec<u8> {
    let text = replace(text, NAME, name.as_bytes());
    replace(text, DIGEST, digest.as_bytes())
}

/// Replaces the first occurrence, if there is one.
fn replace(text: Vec<u8>, from: &str, to: &[u8]) -> Vec<u8> {
    match text.windows(from.len()).position(|window| window == from.as_bytes()) {
        Some(at) => [&text[..at], to, &text[at + from.len()..]].concat(),
        None => text,
    }
}

impl Edit {
    pub fn of(&self, name: &str, digest: &str) -> Vec<u8> {
        let template = template().into_bytes();
        let edited = match (self.from, self.label) {
            ("^", _) => [self.to, &template].concat(),
            ("$", _) => [&template, self.to].concat(),
            ("optional 10001 deep", _) => nested(10_001 - 2),
            ("optional 9000 deep", _) => nested(9_000),
            (from, label) => {
                assert!(template.windows(from.len()).any(|w| w == from.as_bytes()), "{label} edits nothing");
                replace(template, from, self.to)
            }
        };
        fill(edited, name, digest)
    }
}

fn nested(depth: usize) -> Vec<u8> {
    let deep = format!(r#"{}{}"#, "[".repeat(depth), "]".repeat(depth));
    replace(template().into_bytes(), TIME, format!(r#"1,"x":{deep}"#).as_bytes())
}

const fn edit(label: &'static str, from: &'static str, to: &'static [u8]) -> Edit {
    Edit { label, from, to }
}

/// Every edit; what each leads to is for the real clients to say.
#[rustfmt::skip]
pub const EDITS: &[Edit] = &[
    edit("no optional", OPTIONAL, b""),
    edit("optional null", OPTIONAL, br#","optional":null"#),
    edit("optional empty", OPTIONAL, br#","optional":{}"#),
    edit("optional a list", OPTIONAL, br#","optional":[]"#),
    edit("optional a string", OPTIONAL, br#","optional":"x""#),
    edit("optional twice", OPTIONAL, br#","optional":{},"optional":{}"#),
    edit("optional unknown members", CREATOR, br#""c","x":[1,{"y":null}],"z":true"#),
    edit("optional unknown member twice", CREATOR, br#""c","x":1,"x":1"#),
    edit("optional creator twice", CREATOR, br#""c","creator":"c""#),
    edit("optional duplicate deeper", CREATOR, br#""c","x":{"y":1,"y":2}"#),
    edit("optional Creator in capitals", CREATOR, br#""c","Creator":1"#),
    edit("optional escaped key twice", CREATOR, br#""c","creato\u0072":"c""#),
    edit("optional empty key", CREATOR, br#""c","":1"#),
    edit("optional 10001 deep", "optional 10001 deep", b""),
    edit("optional 9000 deep", "optional 9000 deep", b""),
    edit("optional number over range", CREATOR, br#""c","x":1e999"#),
    edit("creator null", CREATOR, b"null"),
    edit("creator a number", CREATOR, b"1"),
    edit("creator a list", CREATOR, b"[]"),
    edit("creator lone surrogate", CREATOR, br#""\ud800""#),
    edit("creator NUL escaped", CREATOR, br#""\u0000""#),
    edit("creator raw control character", CREATOR, b"\"a\x01b\""),
    edit("creator raw DEL", CREATOR, b"\"a\x7fb\""),
    edit("creator invalid UTF-8", CREATOR, b"\"a\xff\xc0b\""),
    edit("creator bad escape", CREATOR, br#""\x41""#),
    edit("creator unfinished escape", CREATOR, br#""\u00""#),
    edit("timestamp null", TIME, b"null"),
    edit("timestamp 1.0", TIME, b"1.0"),
    edit("timestamp 1e9", TIME, b"1e9"),
    edit("timestamp 1E+2", TIME, b"1E+2"),
    edit("timestamp 1e-2", TIME, b"1e-2"),
    edit("timestamp 0.5", TIME, b"0.5"),
    edit("timestamp -1", TIME, b"-1"),
    edit("timestamp -0", TIME, b"-0"),
    edit("timestamp 1e300", TIME, b"1e300"),
    edit("timestamp 1e999", TIME, b"1e999"),
    edit("timestamp max", TIME, b"9223372036854775807"),
    edit("timestamp below max", TIME, b"9223372036854774784"),
    edit("timestamp min", TIME, b"-9223372036854775808"),
    edit("timestamp below min", TIME, b"-9223372036854777856"),
    edit("timestamp odd float", TIME, b"9007199254740993"),
    edit("timestamp a string", TIME, br#""1""#),
    edit("timestamp 01", TIME, b"01"),
    edit("timestamp 1.", TIME, b"1."),
    edit("timestamp +1", TIME, b"+1"),
    edit("timestamp .5", TIME, b".5"),
    edit("timestamp NaN", TIME, b"NaN"),
    edit("timestamp missing value", TIME, b""),
    edit("no timestamp, no creator, an x", OPTIONAL, br#","optional":{"x":0}"#),
    edit("top unknown", OPTIONAL, br#","optional":{},"x":0"#),
    edit("top null", OPTIONAL, br#","optional":{},"x":null"#),
    edit("critical in capitals", r#""critical""#, br#""Critical""#),
    edit("critical escaped", r#""critical""#, br#""\u0063ritical""#),
    edit("critical a list", r#"{"critical":{"#, br#"{"critical":[],"x":{"#),
    edit("critical twice", r#"{"critical":{"#, br#"{"critical":{},"critical":{"#),
    edit("critical null first", r#"{"critical":{"#, br#"{"critical":null,"critical":{"#),
    edit("critical unknown", r#""type":"#, br#""x":0,"type":"#),
    edit("critical type twice", r#""type":"#, br#""type":"atomic container signature","type":"#),
    edit("type missing", r#","type":"atomic container signature""#, b""),
    edit("type wrong", TYPE, br#""cosign container image signature""#),
    edit("type in capitals", TYPE, br#""Atomic container signature""#),
    edit("type null", TYPE, b"null"),
    edit("type a number", TYPE, b"1"),
    edit("type escaped", TYPE, br#""\u0061tomic container signature""#),
    edit("type with a space", TYPE, br#""atomic container signature ""#),
    edit("identity null", r#"{"docker-reference":<name>}"#, b"null"),
    edit("identity empty", r#"{"docker-reference":<name>}"#, b"{}"),
    edit("identity unknown", r#"{"docker-reference":"#, br#"{"x":0,"docker-reference":"#),
    edit("identity twice", r#"{"docker-reference":"#, br#"{"docker-reference":"x/y:z","docker-reference":"#),
    edit("image null", r#"{"docker-manifest-digest":"<digest>"}"#, b"null"),
    edit("image empty", r#"{"docker-manifest-digest":"<digest>"}"#, b"{}"),
    edit("image unknown", r#"{"docker-manifest-digest":"#, br#"{"x":0,"docker-manifest-digest":"#),
    edit("image twice", r#"{"docker-manifest-digest":"#, br#"{"docker-manifest-digest":"<digest>","docker-manifest-digest":"#),
    edit("digest null", r#""<digest>""#, b"null"),
    edit("digest a number", r#""<digest>""#, b"1"),
    edit("digest empty", DIGEST, b""),
    edit("digest with a space", DIGEST, b"<digest> "),
    edit("digest too long", DIGEST, b"<digest>0"),
    edit("digest md5", DIGEST, b"md5:d41d8cd98f00b204e9800998ecf8427e"),
    edit("digest without algorithm", DIGEST, b"a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"),
    edit("digest another", DIGEST, b"sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"),
    edit("digest another in capitals", DIGEST, b"sha256:A3ED95CAEB02FFE68CDD9FD84406680AE93D633CB16422D00E8A7C22955B46D4"),
    edit("name null", NAME, b"null"),
    edit("name a number", NAME, b"1"),
    edit("name a list", NAME, b"[<name>]"),
    edit("name invalid UTF-8", NAME, b"\"a\xff\""),
    edit("leading white space", "^", b" \t\r\n"),
    edit("trailing white space", "$", b" \t\r\n"),
    edit("leading form feed", "^", b"\x0c"),
    edit("leading BOM", "^", b"\xef\xbb\xbf"),
    edit("leading comment", "^", b"/**/"),
    edit("trailing object", "$", b"{}"),
    edit("trailing brace", "$", b"}"),
    edit("trailing NUL", "$", b"\0"),
    edit("trailing comma", "$", b","),
    edit("comma inside", r#"{"critical""#, br#"{,"critical""#),
    edit("no-break space", r#"{"critical""#, b"{\xc2\xa0\"critical\""),
];
