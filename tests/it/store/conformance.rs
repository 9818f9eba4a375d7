//! What every back end must do: one list of cases, each a function of a [`Bench`].

use super::*;

pub async fn appends_and_reads(bench: &Bench) {
    let store = &bench.store;
    let at = image("org/app", "append");
    assert_eq!(store.signatures(&at).await.unwrap(), []);
    assert_eq!(store.append(&at, b"one").await.unwrap(), Appended::Created(1));
    assert_eq!(store.append(&at, b"two").await.unwrap(), Appended::Created(2));
    assert_eq!(store.append(&at, b"one").await.unwrap(), Appended::AlreadyThere(1));
    assert_eq!(store.append(&at, b"TWO").await.unwrap(), Appended::Created(3));
    assert_eq!(contents(&bench.other, &at).await, [b"one", b"two", b"TWO"]);
    let release = SetAddress::release(path("openshift/release"), at.digest().clone());
    assert_eq!(store.signatures(&release).await.unwrap(), []);
    assert_eq!(store.append(&release, b"r").await.unwrap(), Appended::Created(1));
    let bare = SetAddress::release(StorePath::root(), at.digest().clone());
    assert_eq!(store.append(&bare, b"b").await.unwrap(), Appended::Created(1));
    assert_eq!(contents(store, &bare).await, [b"b"]);
    let long = Digest::from_parts(Algorithm::Sha512, &"0a".repeat(64)).unwrap();
    let long = SetAddress::image(path("host:5000/a.b_c-d"), long).unwrap();
    store.append(&long, b"x").await.unwrap();
    assert_eq!(contents(store, &long).await, [b"x"]);
}

pub async fn refuses_what_no_client_reads(bench: &Bench) {
    let at = image("org/app", "refuse");
    assert!(matches!(bench.store.append(&at, b"").await, Err(StoreError::Empty)));
    let largest = vec![0xA3; BLOB_LIMIT];
    assert_eq!(bench.store.append(&at, &largest).await.unwrap(), Appended::Created(1));
    assert_eq!(contents(&bench.store, &at).await, std::slice::from_ref(&largest));
    let larger = vec![0xA3; BLOB_LIMIT + 1];
    assert!(matches!(bench.store.append(&at, &larger).await, Err(StoreError::TooLarge(_))));
    (bench.put)(&format!("{at}/signature-2"), &larger);
    let error = bench.store.signatures(&at).await.unwrap_err();
    assert!(error.to_string().contains("/signature-2 is longer than") && !error.is_unavailable(), "{error}");
}

pub async fn sixty_four_at_once_lose_nothing(bench: &Bench) {
    let at = image("org/app", "many");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..64 {
        let store = if number % 2 == 0 { bench.store.clone() } else { bench.other.clone() };
        let at = at.clone();
        tasks.spawn(async move { store.append(&at, &blob(number)).await.unwrap() });
    }
    let answered: BTreeSet<u32> = tasks
        .join_all()
        .await
        .into_iter()
        .map(|appended| match appended {
            Appended::Created(number) => number,
            // A conflict and a retried request look the same; what counts is that it is there.
            Appended::AlreadyThere(number) => number,
        })
        .collect();
    assert_eq!(answered, dense(64).into_iter().collect());
    assert_eq!(numbers(&bench.store, &at).await, dense(64));
    let found: BTreeSet<Vec<u8>> = contents(&bench.store, &at).await.into_iter().collect();
    assert_eq!(found, (0..64).map(blob).collect());
}

pub async fn sixty_four_times_the_same_is_one(bench: &Bench) {
    let at = image("org/app", "same");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..64 {
        let store = if number % 2 == 0 { bench.store.clone() } else { bench.other.clone() };
        let at = at.clone();
        tasks.spawn(async move { store.append(&at, b"same").await.unwrap() });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| matches!(answer, Appended::Created(1) | Appended::AlreadyThere(1))));
    assert_eq!(contents(&bench.store, &at).await, [b"same"]);
}

pub async fn removes_and_closes_the_gap(bench: &Bench) {
    let store = &bench.store;
    let at = image("org/app", "remove");
    for bytes in [b"a", b"b", b"c", b"d"] {
        store.append(&at, bytes).await.unwrap();
    }
    assert_eq!(store.remove(&at, &Digest::sha256(b"b")).await.unwrap(), Removed::Done(1));
    assert_eq!(store.remove(&at, &Digest::sha256(b"b")).await.unwrap(), Removed::NotThere);
    assert_eq!(numbers(store, &at).await, dense(3));
    assert_eq!(contents(store, &at).await, [b"a", b"c", b"d"]);
    assert_eq!(store.remove(&at, &Digest::sha256(b"d")).await.unwrap(), Removed::Done(1));
    assert_eq!(store.remove(&at, &Digest::sha256(b"a")).await.unwrap(), Removed::Done(1));
    assert_eq!(store.signatures(&at).await.unwrap()[0].number, 1);
    assert_eq!(store.append(&at, b"e").await.unwrap(), Appended::Created(2));
    for bytes in [b"c", b"e"] {
        store.remove(&at, &Digest::sha256(bytes)).await.unwrap();
    }
    assert_eq!(store.signatures(&at).await.unwrap(), []);
    assert_eq!(walked(store, "org/app").await.iter().filter(|set| **set == at.to_string()).count(), 0);
    assert_eq!(store.append(&at, b"f").await.unwrap(), Appended::Created(1));
    let missing = image("org/none", "x");
    assert_eq!(store.remove(&missing, &Digest::sha256(b"x")).await.unwrap(), Removed::NotThere);
    assert_eq!(store.repair(&missing).await.unwrap(), Repaired::default());
}

pub async fn removes_every_copy(bench: &Bench) {
    let at = image("org/app", "copies");
    for (number, bytes) in [(1, b"a"), (2, b"b"), (4, b"a"), (7, b"c")] {
        (bench.put)(&format!("{at}/signature-{number}"), bytes);
    }
    assert_eq!(bench.store.remove(&at, &Digest::sha256(b"a")).await.unwrap(), Removed::Done(2));
    assert_eq!(contents(&bench.store, &at).await, [b"b", b"c"]);
    assert_eq!(numbers(&bench.store, &at).await, dense(2));
}

pub async fn reads_a_gap_densely_and_repairs_it(bench: &Bench) {
    let store = &bench.store;
    let at = image("org/app", "gap");
    for (number, bytes) in [(2, b"a"), (10, b"c"), (9, b"b"), (100, b"a")] {
        (bench.put)(&format!("{at}/signature-{number}"), bytes);
    }
    assert_eq!(numbers(store, &at).await, [2, 9, 10, 100]);
    assert_eq!(contents(store, &at).await, [b"a", b"b", b"c", b"a"]);
    assert_eq!(store.append(&at, b"d").await.unwrap(), Appended::Created(101));
    let repaired = store.repair(&at).await.unwrap();
    assert_eq!((repaired.moved, repaired.duplicates), (4, 1));
    assert_eq!(numbers(store, &at).await, dense(4));
    assert_eq!(contents(store, &at).await, [b"a", b"b", b"c", b"d"]);
    assert_eq!(store.repair(&at).await.unwrap(), Repaired::default());
}

pub async fn passes_over_foreign_files(bench: &Bench) {
    let at = image("org/app", "foreign");
    for name in [
        "signature-01",
        "signature-0",
        "signature-",
        "signature-1.bak",
        "signature-x",
        "Signature-1",
        "index.html",
        "signature-5/signature-1",
        ".countersign-lock.old",
        "signature-99999999999",
    ] {
        (bench.put)(&format!("{at}/{name}"), b"foreign");
    }
    (bench.put)("org/app@sha256=abc/signature-1", b"foreign");
    (bench.put)(&format!("org/we ird@sha256={}/signature-1", at.digest().hex()), b"foreign");
    assert_eq!(bench.store.signatures(&at).await.unwrap(), []);
    assert!(!walked(&bench.store, "").await.contains(&at.to_string()));
    assert_eq!(bench.store.append(&at, b"own").await.unwrap(), Appended::Created(1));
    assert_eq!(contents(&bench.store, &at).await, [b"own"]);
}

pub async fn walks_everything_once(bench: &Bench) {
    let store = &bench.store;
    let deep = "w/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p";
    let mut expected = Vec::new();
    for repository in ["w/app", "w/app/sub", "w/app2", "w/ap", "w/app-x", deep] {
        for content in ["1", "2"] {
            let at = image(repository, content);
            for bytes in [b"a", b"b"] {
                store.append(&at, bytes).await.unwrap();
            }
            expected.push(at.to_string());
        }
    }
    for prefix in ["w", "w/app"] {
        let at = SetAddress::release(path(prefix), Digest::sha256(b"r"));
        store.append(&at, b"a").await.unwrap();
        expected.push(at.to_string());
    }
    expected.sort();
    assert_eq!(walked(store, "w").await, expected);
    let all = walked(store, "").await;
    assert!(expected.iter().all(|set| all.contains(set)));
    assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
    let below_app: Vec<_> = expected
        .iter()
        .filter(|key| SetAddress::parse_key(key).unwrap().path().is_within(&path("w/app")))
        .cloned()
        .collect();
    assert_eq!(below_app.len(), 5);
    assert_eq!(walked(store, "w/app").await, below_app);
    assert_eq!(walked(store, "w/nothing").await, [""; 0]);
}

/// Keepers must never be missed by a reader, nobody may be lost, no gap stays at rest.
pub async fn racing_appends_and_removals(bench: &Bench) {
    let at = image("org/app", "race");
    let keepers: Vec<Vec<u8>> = (0..4).map(|number| format!("keeper {number}").into_bytes()).collect();
    for (number, keeper) in keepers.iter().enumerate() {
        bench.store.append(&at, &blob(number)).await.unwrap();
        bench.store.append(&at, keeper).await.unwrap();
    }
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = {
        let (store, at, keepers, done) = (bench.other.clone(), at.clone(), keepers.clone(), done.clone());
        tokio::spawn(async move {
            let mut looks = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let seen = contents(&store, &at).await;
                assert!(keepers.iter().all(|keeper| seen.contains(keeper)), "a reader missed a keeper");
                looks += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            looks
        })
    };
    // All of them together stay below the number that no client reads any more.
    let additions = (bench.rounds / 4).min(25);
    let mut tasks = tokio::task::JoinSet::new();
    for remover in 0..2 {
        let (store, at, rounds) =
            (if remover == 0 { &bench.store } else { &bench.other }.clone(), at.clone(), bench.rounds);
        tasks.spawn(async move {
            for number in (remover..rounds).step_by(2) {
                store.append(&at, &blob(number)).await.unwrap();
                store.remove(&at, &Digest::sha256(&blob(number))).await.unwrap_or_else(|error| panic!("{error}"));
            }
        });
    }
    for appender in 0..4 {
        let (store, at) = (if appender % 2 == 0 { &bench.store } else { &bench.other }.clone(), at.clone());
        tasks.spawn(async move {
            for number in 0..additions {
                store.append(&at, format!("added {appender} {number}").as_bytes()).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0);
    let found = contents(&bench.store, &at).await;
    let unique: BTreeSet<_> = found.iter().cloned().collect();
    for appender in 0..4 {
        for number in 0..additions {
            assert!(unique.contains(format!("added {appender} {number}").as_bytes()), "{appender} {number} is lost");
        }
    }
    assert!(keepers.iter().all(|keeper| unique.contains(keeper)));
    assert_eq!(unique.len(), found.len(), "a duplicate stayed");
    assert_eq!(numbers(&bench.store, &at).await, dense(found.len()), "a gap stayed");
    assert_eq!(bench.store.repair(&at).await.unwrap(), Repaired::default());
}

pub async fn all(bench: &Bench) {
    appends_and_reads(bench).await;
    refuses_what_no_client_reads(bench).await;
    sixty_four_at_once_lose_nothing(bench).await;
    sixty_four_times_the_same_is_one(bench).await;
    removes_and_closes_the_gap(bench).await;
    removes_every_copy(bench).await;
    reads_a_gap_densely_and_repairs_it(bench).await;
    passes_over_foreign_files(bench).await;
    walks_everything_once(bench).await;
    racing_appends_and_removals(bench).await;
}
