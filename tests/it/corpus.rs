//! What fuzzing has found worth keeping, once more with every test run.

use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
pub mod targets;

#[test]
fn every_kept_input_keeps_its_promises() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut inputs: Vec<_> =
            std::fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 10, "the corpus of {name} is lost");
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            assert!(std::panic::catch_unwind(|| target(&bytes)).is_ok(), "{}", input.display());
        }
    }
    let folders = std::fs::read_dir(&corpora).unwrap().count();
    assert_eq!(folders, targets::TARGETS.len(), "a corpus without a target");
}

/// Changes nobody thought of, a little of what libFuzzer does: each kept input, one octet changed.
#[test]
fn so_does_every_neighbour() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        for entry in std::fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let step = bytes.len().div_ceil(16).max(1);
            for at in (0..bytes.len()).step_by(step) {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                assert!(
                    std::panic::catch_unwind(|| target(&changed)).is_ok(),
                    "{} with octet {at} changed",
                    path.display()
                );
            }
        }
    }
}
