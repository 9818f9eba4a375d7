//! Our verdicts against those of the real skopeo, over all that a policy, a name, a key, a claim
//! and a message can be. Same verdict and same kind of reason, or a row in the table of
//! `differential/explained.rs`.
//!
//! `DIFFERENTIAL_SEED` and `DIFFERENTIAL_CASES` choose other random mixtures and their number.

mod cases;
mod claims;
mod clients;
mod explained;
mod keys;
mod messages;
mod policies;
mod random;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use countersign::policy::Policy;

use self::cases::{Case, TAGS, World};
use self::clients::{Answer, Folder, Manifests};
use self::explained::{Accepts, EXPLAINED, Trait};
use self::random::Random;
use crate::support::client::{Host, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::image_folder::ImageFolder;
use crate::support::keys::GpgHome;

/// At the same time; the machines that run the tests have two processors.
const WORKERS: usize = 2;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// What became of a case.
struct Outcome {
    theirs: Answer,
    ours: Answer,
    weak: Answer,
}

/// One test after the other, or there would be more skopeos at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Does all of it, so many at a time, and returns the results in their order.
fn all<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((item, result)) = items.iter().zip(&results).nth(next.fetch_add(1, Ordering::Relaxed)) {
                    *result.lock().unwrap() = Some(work(item));
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().unwrap().unwrap()).collect()
}

#[test]
fn verdicts_are_those_of_skopeo() {
    let seed = number("DIFFERENTIAL_SEED", 20_260_101);
    let mixtures = number("DIFFERENTIAL_CASES", 100);
    println!("DIFFERENTIAL_SEED={seed} DIFFERENTIAL_CASES={mixtures}");

    let registry = DockerRegistry::start();
    let (image, list) = (ImageFolder::image("differential"), ImageFolder::list("differential"));
    for tag in TAGS {
        image.push(&format!("{}/app:{tag}", registry.address()), &[]);
    }
    list.push(&format!("{}/app:list", registry.address()), &[]);
    let manifests = Manifests { image: image.manifest().to_vec(), instance: list.members()[0].clone().into_bytes() };
    let world = World::new(registry.address(), &manifests, &list.digest());
    let mut random = Random::new(u64::try_from(seed).unwrap());
    let mut cases = world.table(&mut random);
    cases.extend((0..mixtures).map(|number| world.random(number, &mut random)));
    let gnupg = tempfile::tempdir().unwrap();
    let host = clients::host(registry.address(), gnupg.path());
    let outcomes = all(&cases, |case| {
        let folder = Folder::of(case, &manifests);
        let theirs = folder.skopeo(&host, case);
        let ours = clients::countersign(case, &manifests, false);
        let weak = clients::countersign(case, &manifests, true);
        // The program knows no registries.conf, so it is asked where no name leads elsewhere.
        if case.image.starts_with(registry.address()) && case.number % 3 == 0 {
            assert_eq!(folder.program(&host, case), ours.accepted, "{}: library and program differ", case.label);
        }
        Outcome { theirs, ours, weak }
    });
    judge(&cases, &outcomes, EXPLAINED_HERE);
}

const EXPLAINED_HERE: &[Trait] = &[
    Trait::Sha1,
    Trait::Ripemd160,
    Trait::ShortKey,
    Trait::Trailing,
    Trait::OnePassFlag,
    Trait::Critical,
    Trait::Subkey,
];

/// `standalone-verify` looks at a message as it is, as clients do with what the extension sends.
#[test]
fn messages_by_themselves() {
    let image = ImageFolder::image("bare");
    let manifests = Manifests { image: image.manifest().to_vec(), instance: Vec::new() };
    let world = World::new("127.0.0.1:1", &manifests, &image.digest());
    let gpg = GpgHome::with(&["alice"]);
    let host = Host::new(gpg.path());
    let cases = world.bare(&mut Random::new(1));
    let outcomes = all(&cases, |case| {
        let signature = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(signature.path(), &case.signatures[0]).unwrap();
        let manifest = image.path().join("manifest.json");
        let fingerprint = &world.keys.exported("good").fingerprint;
        let ran =
            host.skopeo(&["standalone-verify", text(&manifest), &case.image, fingerprint, text(signature.path())]);
        assert!(ran.ok || ran.stderr.contains("Error verifying signature"), "{}: {ran:#?}", case.label);
        let theirs = Answer { accepted: ran.ok, kind: "", sentence: ran.stderr };
        let answer = |weak| Answer { kind: "", ..clients::bare(case, image.manifest(), weak) };
        Outcome { theirs, ours: answer(false), weak: answer(true) }
    });
    judge(&cases, &outcomes, &[Trait::Armour, Trait::Critical]);
}

#[test]
fn policy_files_are_read_as_skopeo_reads_them() {
    let image = ImageFolder::image("policies");
    let gnupg = tempfile::tempdir().unwrap();
    let host = Host::new(gnupg.path());
    let texts = policies::texts();
    let answers = all(&texts, |text| {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.json");
        std::fs::write(&policy, &text.text).unwrap();
        let out = folder.path().join("out");
        let from = format!("dir:{}", image.path().display());
        let ran =
            host.skopeo(&["--policy", policy.to_str().unwrap(), "copy", &from, &format!("dir:{}", out.display())]);
        assert!(ran.ok || ran.stderr.contains("invalid policy in"), "{}: {ran:#?}", text.text);
        (ran, Policy::parse(text.text.as_bytes()))
    });
    let mut wrong = Vec::new();
    for (text, (ran, parsed)) in texts.iter().zip(&answers) {
        let accepts = if ran.ok { Accepts::Skopeo } else { Accepts::Countersign };
        let explained = EXPLAINED.iter().any(|(row, who, _)| text.differs == Some(*row) && *who == accepts);
        if (ran.ok == parsed.is_ok()) == explained {
            wrong.push(format!("{}\n  skopeo: {} {}\n  countersign: {parsed:?}", text.text, ran.ok, ran.stderr));
        }
    }
    let good = answers.iter().filter(|(ran, _)| ran.ok).count();
    println!("{} texts, of which skopeo reads {good}", texts.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), texts.len(), wrong.join("\n"));
}

fn judge(cases: &[Case], outcomes: &[Outcome], expected: &[Trait]) {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (case, outcome) in cases.iter().zip(outcomes) {
        let (theirs, ours) = (&outcome.theirs, &outcome.ours);
        if theirs.accepted == ours.accepted {
            // A signature may be refused for another reason where an explanation is at work.
            if theirs.kind != ours.kind && case.traits.is_empty() {
                wrong.push(report("the reasons differ", case, outcome));
            }
            continue;
        }
        match explanation(case, theirs, &mut seen) {
            true if outcome.weak.accepted == theirs.accepted || !case.traits.iter().all(|t| is_weak(*t)) => {}
            true => wrong.push(report("--allow-weak makes no difference", case, outcome)),
            false => wrong.push(report("the verdicts differ", case, outcome)),
        }
    }
    let accepted = outcomes.iter().filter(|outcome| outcome.theirs.accepted).count();
    println!("{} cases, of which skopeo accepted {accepted}", cases.len());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(accepted * 5 > cases.len() && accepted * 5 < cases.len() * 4, "one-sided questions teach nothing");
    for row in expected {
        assert!(seen.contains(row), "no difference was seen by {row:?} any more, so it wants no explanation");
    }
}

/// Whether the table has a row for the difference.
fn explanation(case: &Case, theirs: &Answer, seen: &mut BTreeSet<Trait>) -> bool {
    let accepts = if theirs.accepted { Accepts::Skopeo } else { Accepts::Countersign };
    let rows = EXPLAINED.iter().filter(|(row, who, _)| *who == accepts && case.traits.contains(row));
    let rows: Vec<Trait> = rows.map(|(row, ..)| *row).collect();
    seen.extend(&rows);
    !rows.is_empty()
}

fn is_weak(differs: Trait) -> bool {
    matches!(differs, Trait::Sha1 | Trait::ShortKey)
}

fn report(what: &str, case: &Case, outcome: &Outcome) -> String {
    let (theirs, ours) = (&outcome.theirs, &outcome.ours);
    format!(
        "--- {}: {what}\n  image {}, policy {}\n  skopeo: {} {} {}\n  countersign: {} {} {}",
        case.label,
        case.image,
        case.policy,
        theirs.accepted,
        theirs.kind,
        theirs.sentence,
        ours.accepted,
        ours.kind,
        ours.sentence
    )
}
