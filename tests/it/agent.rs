//! Signing through gpg-agent: real agents with every kind of key, and invented ones with every kind
//! of trouble.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use countersign::openpgp::{AgentError, AgentSigner, GnuPg, Keyring, SignError, Signer, VerifyOptions, verify};

use crate::openpgp::gpg::{Home, KINDS, key};
use crate::support::client::{Host, text};
use crate::support::keys::{public, secret};

const CLAIM: &[u8] = br#"{"critical":{},"optional":{}}"#;
const NAME: &str = "us.icr.io/birds/bluebird:build1";
const WORD: &str = "correct horse 100% battery é";

fn load_with(home: &Home, name: &str, passphrase: Option<&str>) -> Result<AgentSigner, SignError> {
    let key = name.parse().unwrap();
    AgentSigner::load(&GnuPg::at(home.path()), &key, passphrase.map(str::as_bytes), SystemTime::now())
}

fn load(home: &Home, name: &str) -> Result<AgentSigner, SignError> {
    load_with(home, name, None)
}

/// Signs, and has gpg and our own judge look at it; returns who signed.
fn signs(home: &Home, signer: &AgentSigner, payload: &[u8]) -> String {
    let message = signer.sign(payload, SystemTime::now()).unwrap();
    assert_eq!(home.accepts(&message), Some((payload.to_vec(), signer.fingerprint().to_string())));
    let verified = verify(&message, signer.keyring(), &VerifyOptions::at(SystemTime::now())).unwrap();
    assert_eq!((&verified.content[..], &verified.signer), (payload, signer.fingerprint()));
    assert_eq!(verified.signing_key, *signer.signing_key());
    verified.signing_key.to_string()
}

fn agent(home: &Home, what: &str) {
    let status = Command::new("gpgconf").args([what, "gpg-agent"]).env("GNUPGHOME", home.path()).status().unwrap();
    assert!(status.success());
}

/// Restarts the agent with settings; it has no pinentry, so that no test waits for a person.
fn restart(home: &Home, settings: &str) {
    agent(home, "--kill");
    let conf = format!("pinentry-program /nonexistent\n{settings}");
    std::fs::write(home.path().join("gpg-agent.conf"), conf).unwrap();
    agent(home, "--launch");
}

/// Generates a key with a passphrase that the agent has forgotten again.
fn protected(home: &Home, algorithm: &str) -> String {
    let user = format!("Locked <{algorithm}@example.com>");
    home.ok_with(WORD, &["--quick-gen-key", &user, algorithm, "sign", "never"], b"");
    let public = home.public(&format!("{algorithm}@example.com"));
    restart(home, "");
    Keyring::parse([public]).fingerprints()[0].to_string()
}

#[test]
fn every_kind_of_key() {
    let keys: Vec<_> = KINDS.iter().map(|kind| key(kind)).collect();
    let home = Home::with(&keys);
    for exported in keys {
        let signer = load(&home, &exported.fingerprint).unwrap();
        for payload in [CLAIM, b"", b"\0\xFF\r\n", &[b' '; 10_000]] {
            assert_eq!(signs(&home, &signer, payload), exported.fingerprint);
        }
        assert!(format!("{signer:?}").starts_with("AgentSigner { primary: "));
    }
    for algorithm in ["nistp384", "nistp521", "rsa4096"] {
        let user = format!("Other <{algorithm}@example.com>");
        let fingerprint = home.generate(&[], &user, algorithm, "sign", "never");
        assert_eq!(signs(&home, &load(&home, &fingerprint.to_lowercase()).unwrap(), CLAIM), fingerprint);
    }
}

#[test]
fn leading_zeros_of_numbers() {
    let home = Home::with(&[key("ed25519"), key("nistp256")]);
    for kind in ["ed25519", "nistp256"] {
        let signer = load(&home, &key(kind).fingerprint).unwrap();
        for n in 0..600 {
            let message = signer.sign(format!("{n}").as_bytes(), SystemTime::now()).unwrap();
            verify(&message, signer.keyring(), &VerifyOptions::at(SystemTime::now())).unwrap();
        }
    }
}

#[test]
fn passphrases() {
    let home = Home::new();
    for algorithm in ["rsa2048", "ed25519"] {
        let fingerprint = protected(&home, algorithm);
        let locked = load(&home, &fingerprint).unwrap_err();
        assert!(matches!(locked, SignError::Agent(AgentError::CannotAsk { .. })), "{locked}");
        for wrong in ["", "wrong", "correct horse", &"x".repeat(1000)] {
            let error = load_with(&home, &fingerprint, Some(wrong)).unwrap_err();
            let expected = if wrong.len() < 1000 {
                matches!(error, SignError::PassphraseWrong { .. })
            } else {
                matches!(error, SignError::Agent(AgentError::Refused { .. }))
            };
            assert!(expected, "{wrong:?}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("horse"));
        }
        let signer = load_with(&home, &fingerprint, Some(WORD)).unwrap();
        assert_eq!(signs(&home, &signer, CLAIM), fingerprint);
        assert!(!format!("{signer:?}").contains("horse"));
        // Forgotten by the agent, told again by us.
        agent(&home, "--reload");
        assert_eq!(signs(&home, &signer, CLAIM), fingerprint);
    }
    // A passphrase for a key that needs none is not asked for.
    home.ok(&["--import"], &key("rsa2048").secret);
    load_with(&home, &key("rsa2048").fingerprint, Some("superfluous")).unwrap();
    restart(&home, "no-allow-loopback-pinentry\n");
    let error = load_with(&home, &key("rsa2048").fingerprint, Some("any")).unwrap_err();
    assert!(matches!(error, SignError::Agent(AgentError::Loopback { .. })), "{error}");
    load(&home, &key("rsa2048").fingerprint).unwrap();
}

#[test]
fn primary_keys_and_subkeys() {
    let home = Home::new();
    let old = ["--faked-system-time", "20240101T000000!"];
    let newer = ["--faked-system-time", "20240201T000000!"];
    let primary = home.generate(&old, "Sub <sub@example.com>", "ed25519", "sign", "never");
    let first = home.add_subkey(&old, &primary, "ed25519", "sign", "never");
    let second = home.add_subkey(&newer, &primary, "rsa2048", "sign", "never");
    let expired = home.add_subkey(&newer, &primary, "rsa2048", "sign", "2024-06-01");
    let encrypts = home.add_subkey(&newer, &primary, "cv25519", "encr", "never");
    let used = |name: &str| load(&home, name).map(|signer| signs(&home, &signer, CLAIM));
    assert_eq!(used(&primary).unwrap(), primary);
    assert_eq!(used(&format!("{primary}!")).unwrap(), primary);
    assert_eq!(used(&first).unwrap(), first);
    assert_eq!(used(&format!("{second}!")).unwrap(), second);
    for bad in [expired, encrypts] {
        let error = used(&bad).unwrap_err();
        assert!(matches!(&error, SignError::Key(_)) && error.to_string().contains(&bad), "{error}");
    }

    // The primary key offline.
    let listing = home.ok(&["--with-colons", "--with-keygrip", "-k", &primary], b"");
    let listing = String::from_utf8(listing).unwrap();
    let keygrip = listing.lines().find(|l| l.starts_with("grp:")).unwrap().split(':').nth(9).unwrap();
    std::fs::remove_file(home.path().join(format!("private-keys-v1.d/{keygrip}.key"))).unwrap();
    assert_eq!(used(&primary).unwrap(), second);
    let error = used(&format!("{primary}!")).unwrap_err();
    assert!(matches!(&error, SignError::Agent(AgentError::NoSecretKey { key }) if key.as_str() == primary), "{error}");
}

#[test]
fn many_threads_and_a_new_agent() {
    let home = Home::with(&[key("rsa2048")]);
    let signer = load(&home, &key("rsa2048").fingerprint).unwrap();
    let all_sign = || {
        std::thread::scope(|scope| {
            let work = |thread: usize| {
                for n in 0..20 {
                    let payload = format!("claim {thread}.{n}");
                    let message = signer.sign(payload.as_bytes(), SystemTime::now()).unwrap();
                    let verified = verify(&message, signer.keyring(), &VerifyOptions::at(SystemTime::now())).unwrap();
                    assert_eq!(verified.content, payload.as_bytes());
                }
            };
            // More threads than connections.
            let threads: Vec<_> = (0..12).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    };
    all_sign();
    agent(&home, "--kill");
    let error = signer.sign(CLAIM, SystemTime::now()).unwrap_err();
    assert!(matches!(error, SignError::Agent(AgentError::NotRunning { .. })), "{error}");
    agent(&home, "--launch");
    all_sign();
}

#[test]
fn keys_and_agents_that_are_not_there() {
    let home = Home::new();
    let name = &key("rsa2048").fingerprint;
    let error = load(&home, name).unwrap_err();
    assert!(matches!(error, SignError::Agent(AgentError::UnknownKey { .. })), "{error}");
    home.ok(&["--import"], &key("rsa2048").public);
    agent(&home, "--kill");
    let error = load(&home, name).unwrap_err();
    assert!(matches!(error, SignError::Agent(AgentError::NotRunning { .. })), "{error}");
    assert!(error.to_string().contains("gpgconf --launch gpg-agent"), "{error}");
    agent(&home, "--launch");
    let error = load(&home, name).unwrap_err();
    assert!(matches!(error, SignError::Agent(AgentError::NoSecretKey { .. })), "{error}");
}

/// An agent that answers each command as it is told to; anything else with `OK`.
fn invented(home: &Home, answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) {
    agent(home, "--kill");
    let socket = home.path().join("S.gpg-agent");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(socket).unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer): (UnixStream, _) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || {
                stream.write_all(b"OK Pleased to meet you\n").unwrap();
                for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                    let answer = answer(&line).unwrap_or_else(|| "OK\n".to_owned());
                    if stream.write_all(answer.as_bytes()).is_err() || answer.is_empty() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn agents_in_trouble() {
    let home = Home::new();
    home.ok(&["--import"], &key("rsa2048").public);
    let load = |passphrase| load_with(&home, &key("rsa2048").fingerprint, passphrase).unwrap_err();
    let with = |answer: &'static str| {
        invented(&home, move |command| command.starts_with("PKSIGN").then(|| answer.to_owned()));
        load(None)
    };
    // Numbers of scdaemon and pinentry as real ones send them.
    let error = with("ERR 100663406 Card removed <SCD>\n");
    assert!(matches!(error, SignError::Agent(AgentError::Card { .. })), "{error}");
    assert!(error.to_string().contains("Card removed <SCD>"), "{error}");
    let error = with("ERR 100663426 PIN blocked <SCD>\n");
    assert!(matches!(error, SignError::Agent(AgentError::CardLocked { .. })), "{error}");
    let error = with("ERR 83886179 Operation cancelled <Pinentry>\n");
    assert!(matches!(error, SignError::Agent(AgentError::Declined { .. })), "{error}");
    let error = with("ERR 83918950 Inappropriate ioctl for device <Pinentry>\n");
    assert!(matches!(error, SignError::Agent(AgentError::CannotAsk { .. })), "{error}");
    let error = with("ERR 67108924 Not supported\u{1b}[2J <GPG Agent>\n");
    assert!(matches!(error, SignError::Agent(AgentError::Refused { code: 60, .. })), "{error}");
    assert!(!error.to_string().contains('\u{1b}'));
    for nonsense in ["D (3:abc)\nOK\n", "OK\n", "D (7:sig-val(3:dsa(1:r1:a)(1:s1:b)))\nOK\n", "hello\n"] {
        let error = with(nonsense);
        assert!(matches!(error, SignError::Agent(AgentError::Protocol(_))), "{error}");
    }
    let error = with("");
    assert!(matches!(error, SignError::Agent(AgentError::Lost(_))), "{error}");
    // A signature that does not verify is found out before the key is used.
    let error = with("D (7:sig-val(3:rsa(1:s4:abcd)))\nOK\n");
    assert!(matches!(error, SignError::SelfTest(_)), "{error}");
}

#[test]
fn a_wrong_pin_is_told_once_in_all() {
    let home = Home::with(&[key("rsa2048")]);
    let real = load(&home, &key("rsa2048").fingerprint).unwrap();
    drop(real);
    let told = Arc::new(AtomicUsize::new(0));
    let counter = told.clone();
    invented(&home, move |command| {
        let answer = match command {
            "PKSIGN" => "INQUIRE PASSPHRASE\n",
            "D 1234" => {
                counter.fetch_add(1, Ordering::SeqCst);
                "# noted\n"
            }
            "END" => "INQUIRE PASSPHRASE\n",
            "CAN" => "ERR 100663383 Bad PIN <SCD>\n",
            _ => return None,
        };
        Some(answer.to_owned())
    });
    let error = load_with(&home, &key("rsa2048").fingerprint, Some("1234")).unwrap_err();
    assert!(matches!(error, SignError::PassphraseWrong { .. }), "{error}");
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[test]
fn the_command_line_signs_with_it() {
    let home = Home::new();
    let fingerprint = protected(&home, "rsa2048");
    let host = Host::new(home.path());
    let word = host.write("word", format!("{WORD}\nsecond line\n"));
    let output = host.path().join("signature-1");
    let digest = format!("sha256:{}", "0".repeat(64));
    let name = format!("gpg-agent:{fingerprint}");
    let sign = ["sign", NAME, "--digest", &digest, "--key", &name, "-o", text(&output)];
    let refused = host.countersign(&sign);
    assert!(refused.stderr.contains("--passphrase-file"), "{refused:?}");
    host.countersign(&[&sign[..], &["--passphrase-file", text(&word)]].concat()).accepted();
    let (claim, signer) = home.accepts(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(signer, fingerprint);
    assert!(String::from_utf8(claim).unwrap().contains(NAME));
}

#[test]
fn resigning_with_an_agent_and_a_file_each_for_its_names() {
    let home = Home::with(&[key("ed25519")]);
    let agents = format!("gpg-agent:{}", key("ed25519").fingerprint);
    let host = Host::new(home.path());
    let (alice, bob) = (secret("alice"), secret("bob"));
    let (old, new) = (host.path().join("old"), host.path().join("new"));
    let digest = format!("sha256:{}", "1".repeat(64));
    for name in ["old.example/birds/bluebird:1", "old.example/fish/cod:1"] {
        let args = ["sign", name, "--digest", &digest, "--key", text(&alice), "--to", text(&old)];
        host.countersign(&args).accepted();
    }
    let policy = host.signed_by_policy("policy.json", &public("alice"));
    let route = format!("new.example/birds={agents}");
    let args = ["resign", "--from", text(&old), "--to", text(&new), "--rename", "old.example=new.example"];
    let keys = ["--key", text(&alice), "--key", text(&bob), "--key-for", &route];
    let args = [&args[..], &["--policy", text(&policy), "--format", "json"], &keys].concat();
    let summary: serde_json::Value = serde_json::from_str(&host.countersign(&args).accepted().stdout).unwrap();
    assert_eq!((&summary["signed"], &summary["failed"]), (&2.into(), &0.into()), "{summary}");

    let ring = [std::fs::read(public("alice")), std::fs::read(public("bob")), Ok(key("ed25519").public.clone())];
    let ring = Keyring::parse(ring.map(Result::unwrap));
    let signers = |path: &str| {
        let folder = new.join(format!("{path}@sha256={}", "1".repeat(64)));
        let mut signers: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let blob = std::fs::read(entry.unwrap().path()).unwrap();
                verify(&blob, &ring, &VerifyOptions::at(SystemTime::now())).unwrap().signer.to_string()
            })
            .collect();
        signers.sort();
        signers
    };
    assert_eq!(signers("birds/bluebird"), [key("ed25519").fingerprint.as_str()]);
    let of = |name: &str| Keyring::parse([std::fs::read(public(name)).unwrap()]).fingerprints()[0].to_string();
    let mut both = [of("alice"), of("bob")];
    both.sort();
    assert_eq!(signers("fish/cod"), both);
    // Again, and there is nothing to do.
    let summary: serde_json::Value = serde_json::from_str(&host.countersign(&args).accepted().stdout).unwrap();
    assert_eq!((&summary["signed"], &summary["already"]), (&0.into(), &2.into()), "{summary}");
}
