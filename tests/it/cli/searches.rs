//! Which policy.json and which registries.d count, for both generations of clients.

use countersign::image::Digest;
use serde_json::{Value, json};

use super::{Desk, MANIFEST};
use crate::support::client::text;

#[test]
fn which_policy_counts() {
    let desk = Desk::new();
    let manifest = desk.host.write("manifest.json", MANIFEST);
    let signature = desk.sign("s", "q.io/x:1", "alice", &Digest::sha256(MANIFEST));
    let policy = |name: &str| desk.policy(name, json!([{"type": "insecureAcceptAnything"}]));
    let home = policy(".config/containers/policy.json");
    let xdg = policy("xdg/containers/policy.json");
    let named = policy("named.json");
    let xdg_home = desk.path("xdg");
    let used = |variables: &[(&str, &str)], search: &str| {
        let ran = desk.run_with(
            variables,
            &[
                "--format",
                "json",
                "verify",
                "q.io/x:1",
                "--manifest",
                text(&manifest),
                "--signature",
                text(&signature),
                "--config-search",
                search,
            ],
        );
        let verdict: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:#?}"));
        verdict["policy"].as_str().unwrap().to_owned()
    };
    let both = [("XDG_CONFIG_HOME", text(&xdg_home)), ("CONTAINERS_POLICY_JSON", text(&named))];
    assert_eq!(used(&[], "podman6"), text(&home));
    assert_eq!(used(&[("CONTAINERS_POLICY_JSON", "")], "podman6"), text(&home), "empty is unset");
    assert_eq!(used(&both[..1], "podman6"), text(&xdg));
    assert_eq!(used(&both, "podman6"), text(&named));
    assert_eq!(used(&both, "podman5"), text(&home), "Podman 5 knows no variable");

    let fails = |variables: &[(&str, &str)]| {
        let ran = desk.run_with(variables, &["verify", "q.io/x:1", "--manifest", text(&manifest)]);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        ran.stderr
    };
    assert_eq!(
        fails(&[("CONTAINERS_POLICY_JSON", "/nowhere/p.json")]),
        "countersign: open /nowhere/p.json: no such file or directory\n"
    );
    // A broken file of higher priority is not passed over.
    std::fs::write(&xdg, "{}").unwrap();
    assert_eq!(
        fails(&both[..1]),
        format!("countersign: invalid policy in \"{}\": Default policy is missing\n", text(&xdg))
    );
}

#[test]
fn no_policy_at_all() {
    // Only where this machine has none of its own.
    if ["/etc/containers/policy.json", "/usr/share/containers/policy.json"]
        .iter()
        .any(|p| std::path::Path::new(p).exists())
    {
        return;
    }
    let desk = Desk::new();
    let home = desk.host.path().display();
    let ran = desk.run(&["verify", "q.io/x:1"]);
    let tried = format!(
        "[\"{home}/.config/containers/policy.json\" \"/etc/containers/policy.json\" \"/usr/share/containers/policy.json\"]"
    );
    assert_eq!(
        (ran.code, ran.stderr),
        (Some(2), format!("countersign: config file not found: no policy.json file found; searched paths: {tried}\n"))
    );
    let ran = desk.run(&["verify", "q.io/x:1", "--config-search", "podman5"]);
    assert_eq!(
        ran.stderr,
        format!(
            "countersign: no policy.json file found at any of the following: \"{home}/.config/containers/policy.json\", \"/etc/containers/policy.json\"\n"
        )
    );
}

#[test]
fn which_registries_d_counts() {
    let desk = Desk::new();
    let policy = desk.policy("policy.json", json!([{"type": "reject"}]));
    let home = desk.host.write(".config/containers/registries.d/a.yaml", "docker: {q.io: {lookaside: 'file:///home'}}");
    let xdg = desk.host.write("xdg/containers/registries.d/a.yaml", "docker: {q.io: {lookaside: 'file:///xdg'}}");
    let own = desk.host.write("own/a.yaml", "docker: {q.io: {lookaside: 'file:///own'}}");
    let (xdg_home, own_folder) = (desk.path("xdg"), desk.path("own"));
    let read = |variables: &[(&str, &str)], extra: &[&str]| {
        let args = ["--format", "json", "resolve", "q.io/x", "--policy", text(&policy)];
        let ran = desk.run_with(variables, &[&args, extra].concat()).accepted();
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        let read = &value["lookaside"]["read"];
        (read["url"].as_str().unwrap().to_owned(), read["from"].as_str().unwrap().to_owned())
    };
    let answer = |url: &str, from: &std::path::Path| (url.to_owned(), text(from).to_owned());
    let variables = [("XDG_CONFIG_HOME", text(&xdg_home))];
    assert_eq!(read(&[], &[]), answer("file:///home", &home));
    assert_eq!(read(&variables, &[]), answer("file:///xdg", &xdg));
    assert_eq!(read(&variables, &["--config-search", "podman5"]), answer("file:///home", &home));
    for search in ["podman5", "podman6"] {
        let extra = ["--config-search", search, "--registries-d", text(&own_folder)];
        assert_eq!(read(&variables, &extra), answer("file:///own", &own));
    }
    // A folder named like a file: passed over by one, fatal for the other.
    std::fs::create_dir(own_folder.join("z.yaml")).unwrap();
    read(&[], &["--registries-d", text(&own_folder)]);
    let ran = desk.run(&["resolve", "q.io/x", "--registries-d", text(&own_folder), "--config-search", "podman5"]);
    assert_eq!(
        (ran.code, ran.stderr),
        (Some(2), format!("countersign: read {}/z.yaml: is a directory\n", text(&own_folder)))
    );
}
