//! Help texts: what people read first.

use super::Desk;

#[test]
fn every_command_helps() {
    let desk = Desk::new();
    let all = desk.run(&["--help"]).accepted().stdout;
    for command in ["serve", "sign", "verify", "inspect", "resolve", "policy", "registries-d", "resign"] {
        assert!(all.contains(&format!("\n  {command} ")), "{command}: {all}");
        let own = desk.run(&[command, "--help"]).accepted().stdout;
        assert!(own.contains("Usage: countersign"), "{own}");
    }
    assert!(all.contains("Exit codes: 0 done or accepted; 1 the answer is no; 2 could not ask."));
}

fn help(args: &[&str]) -> String {
    let text = Desk::new().run(&[args, &["--help"]].concat()).accepted().stdout;
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn verify() {
    insta::assert_snapshot!(help(&["verify"]), @r#"
        Decide about an image as podman and skopeo would

        Usage: countersign verify [OPTIONS] <REFERENCE>

        Arguments:
          <REFERENCE>
                  The image's name, with or without docker://

        Options:
              --manifest <FILE>
                  The image's manifest, instead of asking the registry (`-` for stdin)

              --instance <FILE>
                  The manifest of one instance, if --manifest is a list

              --platform <PLATFORM>
                  Which instance of a list: os/architecture[/variant] [default: linux on this machine]

              --signature <FILE>
                  A signature file, instead of asking the registry or a lookaside; repeatable

              --lookaside <STORE>
                  Where signatures are, instead of what registries.d and the registry say: a folder,
                  file://, http(s)://, s3://

              --policy <FILE>
                  policy.json to decide by, instead of the host's

              --registries-d <DIR>
                  Folder of registries.d files, instead of the host's

              --config-search <WHOSE>
                  Whose search for the host's configuration files to follow

                  Possible values:
                  - podman6: Podman 6 and what is built with it
                  - podman5: Podman 5 and older, RHEL 8 and 9, OpenShift 4

                  [default: podman6]

              --tls-verify[=<BOOL>]
                  Check certificates of registries; if not, plain http is tried too

                  [default: true]
                  [possible values: true, false]

              --allow-weak
                  Accept signatures that use SHA-1 or RSA keys under 2048 bits

              --all
                  Decide about every instance of a list; one that is rejected rejects all

              --require-signed
                  Reject what the policy accepts without a signature

          -h, --help
                  Print help (see a summary with '-h')

        Options of every command:
              --format <FORMAT>
                  Form of results on stdout (and of log lines on stderr)

                  Possible values:
                  - text: For people
                  - json: One JSON document, for machines

                  [default: text]

              --log <LEVEL>
                  What to log: a level (error, warn, info, debug, trace) or a filter

                  [env: COUNTERSIGN_LOG=]

              --log-format <FORM>
                  Form of log lines on stderr [default: as --format]

                  Possible values:
                  - text: For people
                  - json: One JSON object a line, for machines

                  [env: COUNTERSIGN_LOG_FORMAT=]

              --config <FILE>
                  Configuration file of the server (YAML)

                  [env: COUNTERSIGN_CONFIG=]

        Examples:
          countersign verify us.icr.io/birds/bluebird:build1
          countersign verify us.icr.io/birds/bluebird:build1 --platform linux/s390x
          countersign verify us.icr.io/birds/bluebird:build1 --policy policy.json \
              --manifest manifest.json --signature signature-1
          countersign verify us.icr.io/birds/bluebird@sha256:… --lookaside s3://signatures

        Of a manifest list the instance is judged that a pull would choose, by signatures of that instance.
        With a digest and --signature or --lookaside no registry is asked, so a list is not noticed unless
        --platform or --all says that there is one.

        Exit codes: 0 accepted; 1 rejected; 2 could not ask.
        "#);
}

#[test]
fn inspect() {
    let text = help(&["inspect"]);
    insta::assert_snapshot!(text.split("Options:").next().unwrap(), @r#"
        Show what a signature says, unverified, or all signatures of an image

        Usage: countersign inspect [OPTIONS] <WHAT>

        Arguments:
          <WHAT>
                  A signature file (`-` for stdin), or the name of an image
        "#);
}

#[test]
fn resolve() {
    insta::assert_snapshot!(help(&["resolve"]), @r#"
        Show where the signatures of an image are looked for, and which policy speaks of it

        Usage: countersign resolve [OPTIONS] <REFERENCE>

        Arguments:
          <REFERENCE>
                  The image's name, with or without docker://

        Options:
              --manifest <FILE>
                  The image's manifest, instead of asking the registry (`-` for stdin)

              --instance <FILE>
                  The manifest of one instance, if --manifest is a list

              --platform <PLATFORM>
                  Which instance of a list: os/architecture[/variant] [default: linux on this machine]

              --digest <ALGO:HEX>
                  Digest of the image's manifest, for the addresses of its signatures

              --online
                  Ask the registry for the manifest, and whether it has the signature extension

              --policy <FILE>
                  policy.json to decide by, instead of the host's

              --registries-d <DIR>
                  Folder of registries.d files, instead of the host's

              --config-search <WHOSE>
                  Whose search for the host's configuration files to follow

                  Possible values:
                  - podman6: Podman 6 and what is built with it
                  - podman5: Podman 5 and older, RHEL 8 and 9, OpenShift 4

                  [default: podman6]

              --tls-verify[=<BOOL>]
                  Check certificates of registries; if not, plain http is tried too

                  [default: true]
                  [possible values: true, false]

          -h, --help
                  Print help (see a summary with '-h')

        Options of every command:
              --format <FORMAT>
                  Form of results on stdout (and of log lines on stderr)

                  Possible values:
                  - text: For people
                  - json: One JSON document, for machines

                  [default: text]

              --log <LEVEL>
                  What to log: a level (error, warn, info, debug, trace) or a filter

                  [env: COUNTERSIGN_LOG=]

              --log-format <FORM>
                  Form of log lines on stderr [default: as --format]

                  Possible values:
                  - text: For people
                  - json: One JSON object a line, for machines

                  [env: COUNTERSIGN_LOG_FORMAT=]

              --config <FILE>
                  Configuration file of the server (YAML)

                  [env: COUNTERSIGN_CONFIG=]

        Examples:
          countersign resolve us.icr.io/birds/bluebird:build1
          countersign resolve us.icr.io/birds/bluebird:build1 --online --platform linux/s390x
          countersign resolve us.icr.io/birds/bluebird@sha256:… --format json

        Without --online no registry is asked; the addresses then need a digest, --digest or --manifest.
        Exit codes: 0 resolved; 2 a configuration file is broken or missing, or the registry did not answer.
        "#);
}

#[test]
fn policy_check() {
    insta::assert_snapshot!(help(&["policy", "check"]), @r#"
        Read policy files as strictly as containers/image, and say what deserves a second look

        Usage: countersign policy check [OPTIONS] <FILE>...

        Arguments:
          <FILE>...
                  policy.json files

        Options:
          -h, --help
                  Print help (see a summary with '-h')

        Options of every command:
              --format <FORMAT>
                  Form of results on stdout (and of log lines on stderr)

                  Possible values:
                  - text: For people
                  - json: One JSON document, for machines

                  [default: text]

              --log <LEVEL>
                  What to log: a level (error, warn, info, debug, trace) or a filter

                  [env: COUNTERSIGN_LOG=]

              --log-format <FORM>
                  Form of log lines on stderr [default: as --format]

                  Possible values:
                  - text: For people
                  - json: One JSON object a line, for machines

                  [env: COUNTERSIGN_LOG_FORMAT=]

              --config <FILE>
                  Configuration file of the server (YAML)

                  [env: COUNTERSIGN_CONFIG=]

        Examples:
          countersign policy check /etc/containers/policy.json
          countersign policy check policy/*.json --format json

        Exit codes: 0 all valid; 1 one is invalid; 2 one cannot be read.
        "#);
}

#[test]
fn registries_d_check() {
    insta::assert_snapshot!(help(&["registries-d", "check"]), @r#"
        Read registries.d files as containers/image, and say what deserves a second look

        Usage: countersign registries-d check [OPTIONS] <DIR|FILE>...

        Arguments:
          <DIR|FILE>...
                  Folders, each read as a whole, and files, which are read as if they lay in one folder

        Options:
              --config-search <WHOSE>
                  By whose rules folders are read

                  Possible values:
                  - podman6: Podman 6 and what is built with it
                  - podman5: Podman 5 and older, RHEL 8 and 9, OpenShift 4

                  [default: podman6]

          -h, --help
                  Print help (see a summary with '-h')

        Options of every command:
              --format <FORMAT>
                  Form of results on stdout (and of log lines on stderr)

                  Possible values:
                  - text: For people
                  - json: One JSON document, for machines

                  [default: text]

              --log <LEVEL>
                  What to log: a level (error, warn, info, debug, trace) or a filter

                  [env: COUNTERSIGN_LOG=]

              --log-format <FORM>
                  Form of log lines on stderr [default: as --format]

                  Possible values:
                  - text: For people
                  - json: One JSON object a line, for machines

                  [env: COUNTERSIGN_LOG_FORMAT=]

              --config <FILE>
                  Configuration file of the server (YAML)

                  [env: COUNTERSIGN_CONFIG=]

        Examples:
          countersign registries-d check /etc/containers/registries.d
          countersign registries-d check registries.d/*.yaml --format json

        Exit codes: 0 all valid; 1 one is invalid; 2 one cannot be read.
        "#);
}
