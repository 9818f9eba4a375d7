//! Nothing bypasses the escaping of strings from outside: what prints, what writes JSON and what logs
//! does so in the few files that escape, and whatever else a file of the sources does is found here.

use std::path::{Path, PathBuf};

/// Words that print or write, why they are watched, and the only files that may say them.
const WATCHED: [(&str, &[&str]); 18] = [
    ("println!", &[]),
    ("print!(", &[]),
    ("eprintln!", &[]),
    ("eprint!(", &[]),
    ("dbg!(", &[]),
    ("stdout()", &["cli/output.rs", "cli/stream.rs"]),
    ("stderr()", &["cli/output.rs", "cli/stream.rs", "cli/progress.rs", "telemetry/line.rs"]),
    ("io::stderr", &["cli/output.rs", "cli/stream.rs", "cli/progress.rs", "telemetry/"]),
    ("io::stdout", &["cli/output.rs", "cli/stream.rs"]),
    ("rustix::stdio", &[]),
    ("/dev/std", &[]),
    ("/dev/tty", &[]),
    // Clap prints of itself: only what was escaped before.
    (".print()", &["cli/arguments.rs"]),
    ("Cli::parse", &[]),
    ("tracing_subscriber::fmt", &["telemetry/"]),
    // JSON for people goes through escape::json. The others write what is sent, and compared by the byte.
    ("serde_json::to_", &["escape/json.rs", "registry/extension.rs"]),
    (
        "Serializer::new",
        &[
            "server/upstream/repository_names.rs",
            "server/proxy/token_endpoint.rs",
            "server/upstream/request.rs",
            "registry/token.rs",
        ],
    ),
    (
        "json!(",
        &[
            "cli/requirement.rs",
            "cli/resign/audit.rs",
            "cli/resign/merge.rs",
            "server/error.rs",
            "server/proxy/token_endpoint.rs",
            "signature/attachment.rs",
            "signature/payload.rs",
        ],
    ),
];

/// Files of the command line that may write the end of a line in their code: the others hand over
/// lines, and a value with a line end in it is escaped for that.
const ENDS_OF_LINES: [&str; 5] = ["cli/doctor.rs", "cli/keys.rs", "cli/output.rs", "cli/stream.rs", "cli/systemd.rs"];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let of_tests = ["tests.rs", "testing.rs", "fake.rs", "faults.rs"].iter().any(|end| name.ends_with(end));
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !of_tests && !name.contains("/tests/") {
                found.push((name, code_of(&std::fs::read_to_string(&path).unwrap())));
            }
        }
    }
    assert!(found.len() > 100, "the sources were not found");
    found
}

/// Drops comments, and the unit tests at a file's end.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn allowed(name: &str, files: &[&str]) -> bool {
    files.iter().any(|file| name == *file || (file.ends_with('/') && name.starts_with(file)))
}

fn wrong(name: &str, code: &str) -> Vec<String> {
    let watched = WATCHED.iter().filter(|(word, files)| code.contains(word) && !allowed(name, files));
    let mut wrong: Vec<String> = watched.map(|(word, _)| format!("{name}: {word}")).collect();
    if name.starts_with("cli/") && !allowed(name, &ENDS_OF_LINES) && code.contains("\\n") {
        wrong.push(format!("{name}: an end of a line in code that hands over lines"));
    }
    // Each format of the subscriber is wrapped.
    if name.starts_with("telemetry/") {
        let formats = code.matches("tracing_subscriber::fmt()").count() + code.matches("fmt::layer()").count();
        let wrapped = code.matches(".map_event_format(line::").count();
        if wrapped != formats * 2 || code.contains("with_ansi(true)") {
            wrong.push(format!("{name}: log lines that line.rs does not escape"));
        }
    }
    wrong
}

#[test]
fn what_prints_escapes() {
    let all: Vec<String> = sources().iter().flat_map(|(name, code)| wrong(name, code)).collect();
    assert!(all.is_empty(), "print lines by cli::output, write JSON by escape::json:\n{}", all.join("\n"));
}

#[test]
fn the_check_sees_what_it_must() {
    for (name, code) in [
        ("doctor/report.rs", "println!(\"{}\", x)"),
        ("cli/verify.rs", "writeln!(std::io::stdout(), \"{}\", x)"),
        ("cli/verify.rs", "output::talk(&format!(\"a {x}\\nb\"))"),
        ("server/audit.rs", "serde_json::to_vec(&line)"),
        ("server/page.rs", "json!({\"a\": x}).to_string()"),
        ("telemetry/mod.rs", "tracing_subscriber::fmt().try_init()"),
    ] {
        assert!(!wrong(name, code).is_empty(), "{name}: {code}");
    }
    assert_eq!(code_of("a();\n// println!\n#[cfg(test)]\nmod tests { println!() }"), "a();");
}
