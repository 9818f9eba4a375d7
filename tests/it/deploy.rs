//! What is shipped under `deploy/` fits the program: configuration, flags, variables, metrics.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::config::ServerConfig;
use serde_yaml::Value;

use crate::support::http;
use crate::support::server::Server;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn documents(path: &str) -> Vec<Value> {
    let text = read(path);
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap_or_else(|e| panic!("{path}: {e}")))
        .collect()
}

fn countersign(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Lists of strings that belong to a key, wherever it is.
fn lists(value: &Value, key: &str, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Mapping(map) => {
            for (name, value) in map {
                let list: Option<Vec<_>> =
                    value.as_sequence().and_then(|s| s.iter().map(|v| v.as_str().map(str::to_owned)).collect());
                match list {
                    Some(list) if name.as_str() == Some(key) => found.push(list),
                    _ => lists(value, key, found),
                }
            }
        }
        Value::Sequence(all) => all.iter().for_each(|value| lists(value, key, found)),
        _ => {}
    }
}

/// Every command line of the program that is shipped: subcommand first.
fn command_lines() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for file in ["kubernetes/deployment.yaml", "kubernetes/resign-job.yaml"] {
        documents(file).iter().for_each(|document| lists(document, "args", &mut found));
    }
    lists(&documents("compose/compose.yaml")[0]["services"]["countersign"], "command", &mut found);
    let unit = read("systemd/countersign.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    found.push(start.split_whitespace().skip(1).map(str::to_owned).collect());
    let container = read("Containerfile");
    let command = container.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    found.push(serde_json::from_str(command).unwrap());
    found
}

#[test]
fn sample_configurations_are_read() {
    for file in ["countersign.yaml", "compose/countersign.yaml", "kubernetes/countersign.yaml"] {
        let config = ServerConfig::load(&deploy(file)).unwrap();
        config.gate.rules().unwrap();
        assert!(config.admin.listen.is_some(), "{file}");
    }
    // Grace periods are longer than the server takes to go.
    let config = ServerConfig::load(&deploy("kubernetes/countersign.yaml")).unwrap();
    let grace = documents("kubernetes/deployment.yaml")[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap();
    assert!(grace > config.admin.leave_seconds + config.drain_seconds);
}

#[test]
fn every_flag_and_variable_exists() {
    let lines = command_lines();
    assert_eq!(lines.len(), 5, "{lines:?}");
    for line in &lines {
        let help = countersign(&[&line[0], "--help"]);
        for flag in line.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap();
            let known = help.split([' ', '\n', ',']).any(|word| word == flag);
            assert!(known, "countersign {} has no {flag}", line[0]);
        }
    }
    let help = countersign(&["resign", "--help"]) + &countersign(&["serve", "--help"]);
    for file in ["kubernetes/resign-job.yaml", "kubernetes/deployment.yaml", "compose/compose.yaml"] {
        for word in read(file).split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            assert!(!word.starts_with("COUNTERSIGN_") || help.contains(word), "{file}: {word}");
        }
    }
}

#[test]
fn the_job_has_as_many_pods_as_parts() {
    let documents = documents("kubernetes/resign-job.yaml");
    let job = documents.iter().find(|document| document["kind"] == "Job").unwrap();
    let spec = &job["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    let container = &spec["template"]["spec"]["containers"][0];
    let shards = container["env"].as_sequence().unwrap().iter().find(|v| v["name"] == "COUNTERSIGN_SHARDS").unwrap();
    assert_eq!(shards["value"].as_str().unwrap().parse::<u64>().ok(), spec["completions"].as_u64());
}

#[test]
fn every_metric_exists() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(&["--store", store.path().to_str().unwrap(), "--admin", "127.0.0.1:0"]);
    let text = http::get(&server.admin(), "/metrics").text();
    let known: BTreeSet<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).filter_map(|l| l.split(' ').next()).collect();
    let mut seen = 0;
    for file in ["prometheus/alerts.yaml", "grafana/countersign.json"] {
        let text = read(file);
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("countersign_") || word.starts_with("process_") {
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
                assert!(known.contains(word) || family.is_some_and(|family| known.contains(family)), "{file}: {word}");
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
    let dashboard = read("grafana/countersign.json") + &read("prometheus/alerts.yaml");
    for name in known.iter().filter(|name| name.starts_with("countersign_")) {
        assert!(dashboard.contains(name), "nobody looks at {name}");
    }
}

#[test]
fn client_files_are_read_as_clients_do() {
    countersign(&["policy", "check", deploy("clients/policy.json").to_str().unwrap()]);
    countersign(&["registries-d", "check", deploy("clients/registries.d").to_str().unwrap()]);
    let conf = read("clients/registries.conf.d/50-countersign.conf");
    toml::from_str::<toml::Table>(&conf).unwrap();
}

#[test]
fn the_image_has_every_library() {
    let Ok(ldd) = Command::new("ldd").arg(env!("CARGO_BIN_EXE_countersign")).output() else { return };
    let container = read("Containerfile");
    for line in String::from_utf8(ldd.stdout).unwrap().lines() {
        let file = line.trim().split([' ', '.']).next().unwrap().rsplit('/').next().unwrap();
        // Of the distroless image `cc`.
        let given = ["linux-vdso", "ld-linux-x86-64", "ld-linux-aarch64", "libc", "libm", "libgcc_s"].contains(&file);
        assert!(given || container.contains(file), "{file} is not in the image");
    }
}

#[test]
fn the_tools_agree() {
    let script = deploy("../scripts/check-deploy");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
