//! Users and passwords of an htpasswd file. Only bcrypt (`htpasswd -B`): the other forms that such
//! files may hold can be guessed from a stolen file.
//!
//! bcrypt is slow on purpose, and clients open a new connection for each signature, so verdicts
//! are remembered for a minute, under a salted hash of the credentials and of the line they were
//! checked against: a changed line counts at once. Strangers cannot keep the machine busy: few
//! checks run at once, clients take turns (`fair`), a bounded number waits for a bounded time, and an
//! address that fails too often has to wait (`tries`).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::server::auth::attempts::{Begun, Tried, Tries, Try};
use crate::server::auth::reloading_file::{CredentialsFileError, Watched, entries};
use crate::server::client_address::client_network;
use crate::server::fair_queue::{Bounds, FairPlaces, NoTurn};

/// How long a verdict is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many verdicts of each kind are remembered.
const VERDICTS: u64 = 10_000;
/// A hash of a higher cost takes minutes to check.
const MOST_COST: u32 = 16;
/// Longer names and passwords are wrong without looking; bcrypt reads 72 bytes of a password.
const NAME_LIMIT: usize = 256;
const PASSWORD_LIMIT: usize = 1024;
/// How many checks wait for their turn, of one client and in all: a large cluster that starts at once.
const WAITING_PER_CLIENT: usize = 64;
const WAITING: usize = 4096;
/// How long a check waits for its turn; clients do not wait much longer for their answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long those who ask the same at the same time share one check.
const SHARED: Duration = Duration::from_secs(1);

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The password is the user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// Not looked at: too many failures from there.
    TooMany,
    /// Not looked at: too many others of the same client wait.
    Crowded,
    /// Not looked at: too many others wait, or it took too long until there was a turn.
    Busy,
}

/// Users and their hashes.
struct Users {
    hashes: HashMap<String, String>,
    /// Checked in the place of an unknown user's, so that the time does not tell who is known.
    some: Option<String>,
}

/// One htpasswd file.
pub(crate) struct Passwords {
    users: Watched<Users>,
}

/// What is shared by all htpasswd files of a server: the turns, the memory, the failures.
pub(crate) struct Desk {
    right: moka::future::Cache<[u8; 32], ()>,
    wrong: moka::future::Cache<[u8; 32], ()>,
    /// Checks under way, by credentials and client.
    checks: moka::future::Cache<[u8; 32], ()>,
    tries: Tries,
    salt: [u64; 4],
    turns: Arc<FairPlaces>,
}

impl Default for Desk {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((cores / 2).max(1))
    }
}

impl Desk {
    /// Makes a desk where so many passwords are checked at once.
    fn new(places: usize) -> Self {
        let seeds = RandomState::new();
        let verdicts = |life| moka::future::Cache::builder().max_capacity(VERDICTS).time_to_live(life).build();
        let bounds =
            Bounds { places, places_per_client: places, waiting: WAITING, waiting_per_client: WAITING_PER_CLIENT };
        Self {
            right: verdicts(REMEMBERED),
            wrong: verdicts(REMEMBERED),
            checks: verdicts(SHARED),
            tries: Tries::default(),
            salt: [0u8, 1, 2, 3].map(|part| seeds.hash_one(part)),
            turns: FairPlaces::new(bounds),
        }
    }

    /// Returns a hash that nobody else can compute.
    pub(crate) fn key(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.salt.iter().for_each(|part| hash.update(part.to_be_bytes()));
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn tried(&self, from: IpAddr, user: &str, password: &[u8]) -> Tried {
        let from = client_network(from).to_string();
        // To some registries these are the same user.
        let folded = user.trim().to_lowercase();
        Tried {
            address: self.key(&[b"address", from.as_bytes()]),
            user: self.key(&[b"user", from.as_bytes(), folded.as_bytes()]),
            credentials: self.key(&[b"credentials", user.as_bytes(), password]),
        }
    }

    /// Begins to try credentials that are checked elsewhere; `None` when too many others from there
    /// were wrong.
    pub(crate) async fn begin(&self, from: IpAddr, user: &str, password: &[u8]) -> Option<Try> {
        match self.tries.begin(&self.tried(from, user, password), false).await {
            Begun::Tried(attempt) | Begun::OnlyRemembered(attempt) => Some(attempt),
            Begun::Locked => None,
        }
    }

    /// Remembers credentials that were found right elsewhere, under a key that tells where.
    pub(crate) async fn note_right(&self, key: [u8; 32]) {
        self.right.insert(key, ()).await;
    }

    /// Tells whether credentials were found right elsewhere lately.
    pub(crate) async fn is_right(&self, key: &[u8; 32]) -> bool {
        self.right.get(key).await.is_some()
    }
}

impl Passwords {
    pub(crate) fn new(path: &Path) -> Self {
        Self { users: Watched::new(path, parse) }
    }

    /// Reads the file, to find what is wrong with it.
    ///
    /// # Errors
    /// [`CredentialsFileError`].
    pub(crate) fn check(&self) -> Result<(), CredentialsFileError> {
        self.users.get().map(drop)
    }

    /// Tells whether the password is the user's.
    ///
    /// # Errors
    /// [`CredentialsFileError`] when nobody can be checked.
    pub(crate) async fn verify(
        &self,
        desk: &Desk,
        (user, password): (&str, &[u8]),
        from: IpAddr,
    ) -> Result<Verdict, CredentialsFileError> {
        let users = self.users.get()?;
        // A NUL would end the password early for bcrypt.
        if user.len() > NAME_LIMIT || password.len() > PASSWORD_LIMIT || password.contains(&0) {
            return Ok(Verdict::Wrong);
        }
        let known = users.hashes.get(user);
        let Some(hash) = known.or(users.some.as_ref()) else { return Ok(Verdict::Wrong) };
        let key = desk.key(&[b"htpasswd", user.as_bytes(), password, hash.as_bytes(), &[u8::from(known.is_some())]]);
        // Before the memory, which would tell a guess that is right as well.
        let (attempt, check) = match desk.tries.begin(&desk.tried(from, user, password), known.is_some()).await {
            Begun::Tried(attempt) => (attempt, true),
            Begun::OnlyRemembered(attempt) => (attempt, false),
            Begun::Locked => return Ok(Verdict::TooMany),
        };
        let verdict = match desk.remembered(&key).await {
            Some(remembered) => remembered,
            None if check => desk.check(key, (password, hash, known.is_some()), client_network(from)).await,
            None => Verdict::TooMany,
        };
        // Also what there was no turn for was compared with what is remembered.
        if verdict == Verdict::Right {
            attempt.right();
        } else {
            attempt.wrong();
        }
        Ok(verdict)
    }
}

impl Desk {
    async fn remembered(&self, key: &[u8; 32]) -> Option<Verdict> {
        if self.right.get(key).await.is_some() {
            return Some(Verdict::Right);
        }
        self.wrong.get(key).await.map(|()| Verdict::Wrong)
    }

    /// Checks a password, when it is the client's turn. Those of one client who ask the same at the
    /// same time share one check and one place.
    async fn check(&self, key: [u8; 32], (password, hash, is_known): (&[u8], &str, bool), client: IpAddr) -> Verdict {
        let (password, hash) = (Zeroizing::new(password.to_vec()), hash.to_owned());
        let shared = self.key(&[&key, client.to_string().as_bytes()]);
        let right = self.checks.try_get_with(shared, async {
            let turn = match tokio::time::timeout(PATIENCE, self.turns.take(client)).await {
                Ok(Ok(turn)) => turn,
                Ok(Err(NoTurn::Client)) => return Err(Verdict::Crowded),
                Ok(Err(NoTurn::All)) | Err(_) => return Err(Verdict::Busy),
            };
            // Another client may have asked the same meanwhile.
            match self.remembered(&key).await {
                Some(Verdict::Right) => return Ok(()),
                Some(verdict) => return Err(verdict),
                None => {}
            }
            let checked = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                bcrypt::verify(password.as_slice(), &hash).unwrap_or(false)
            });
            if checked.await.unwrap_or(false) && is_known {
                self.right.insert(key, ()).await;
                return Ok(());
            }
            self.wrong.insert(key, ()).await;
            Err(Verdict::Wrong)
        });
        right.await.map_or_else(|verdict| *verdict, |()| Verdict::Right)
    }
}

/// Reads `user:hash` lines.
fn parse(text: &str) -> Result<Users, (usize, String)> {
    let mut users = Users { hashes: HashMap::new(), some: None };
    for (line, entry) in entries(text) {
        let Some((name, hash)) = entry else { return Err((line, "it is no `user:hash`".to_owned())) };
        let is_bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|start| hash.starts_with(start));
        if !is_bcrypt {
            let reason = format!("the password of {name:?} is not hashed by bcrypt; make it anew by `htpasswd -B`");
            return Err((line, reason));
        }
        let parts =
            bcrypt::HashParts::from_str(hash).map_err(|error| (line, format!("the hash of {name:?}: {error}")))?;
        if parts.get_cost() > MOST_COST {
            let reason =
                format!("the hash of {name:?} has cost {}; more than {MOST_COST} takes too long", parts.get_cost());
            return Err((line, reason));
        }
        if users.hashes.insert(name.to_owned(), hash.to_owned()).is_some() {
            return Err((line, format!("the user {name:?} is there twice")));
        }
        users.some.get_or_insert_with(|| hash.to_owned());
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::attempts::{ADDRESS_FAILURES, USER_FAILURES};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn hash(password: &str) -> String {
        bcrypt::hash(password, 4).unwrap()
    }

    fn file(content: &str) -> (tempfile::TempDir, std::path::PathBuf, Passwords) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        std::fs::write(&path, content).unwrap();
        let passwords = Passwords::new(&path);
        (dir, path, passwords)
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user() {
        // What `htpasswd -Bbn bob secret` of Apache 2.4 wrote.
        let (_dir, path, passwords) =
            file(&format!("# comment\n\nbob:{}\nalice:{}\n", hash("secret").replace("$2b$", "$2y$"), hash("other")));
        let desk = Desk::default();
        let verdict =
            async |user: &str, password: &str| passwords.verify(&desk, (user, password.as_bytes()), HERE).await;
        assert_eq!(verdict("bob", "secret").await, Ok(Verdict::Right));
        assert_eq!(verdict("bob", "secret").await, Ok(Verdict::Right), "remembered");
        for (user, password) in
            [("bob", "other"), ("alice", "secret"), ("carol", "secret"), ("", ""), ("bob", ""), ("bob", "secret\0x")]
        {
            assert_eq!(verdict(user, password).await, Ok(Verdict::Wrong), "{user}:{password}");
        }
        // A changed file counts at once, for the remembered too.
        std::fs::write(&path, format!("bob:{}\n", hash("new"))).unwrap();
        assert_eq!(verdict("bob", "secret").await, Ok(Verdict::Wrong));
        assert_eq!(verdict("bob", "new").await, Ok(Verdict::Right));
        std::fs::write(&path, "bob:broken").unwrap();
        assert!(verdict("bob", "new").await.is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(verdict("bob", "new").await.is_err());
    }

    #[tokio::test]
    async fn guessing_comes_to_an_end() {
        let (_dir, _, passwords) = file(&format!("bob:{}\nalice:{}\n", hash("secret"), hash("x")));
        let desk = Desk::default();
        let verify = async |user: &str, password: &str, from| {
            passwords.verify(&desk, (user, password.as_bytes()), from).await.unwrap()
        };
        assert_eq!(verify("alice", "x", HERE).await, Verdict::Right);
        for n in 0..USER_FAILURES {
            let guess = format!("guess {n}");
            assert_eq!(verify("bob", &guess, HERE).await, Verdict::Wrong);
            // The same mistake again and again, as of a badly configured client, is one.
            assert_eq!(verify("bob", &guess, HERE).await, Verdict::Wrong);
        }
        assert_eq!(verify("bob", "secret", HERE).await, Verdict::TooMany);
        assert_eq!(verify("alice", "x", HERE).await, Verdict::Right);
        let there = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(verify("bob", "secret", there).await, Verdict::Right);
        // What is remembered elsewhere is no way to guess without end.
        assert_eq!(verify("bob", "secret", HERE).await, Verdict::TooMany);
        for n in 0..ADDRESS_FAILURES {
            assert_eq!(verify(&n.to_string(), "x", there).await, Verdict::Wrong);
        }
        assert_eq!(verify("alice", "y", there).await, Verdict::TooMany);
        assert_eq!(verify("bob", "secret", there).await, Verdict::Right, "remembered");
        for n in 0..USER_FAILURES {
            assert_eq!(verify("bob", &n.to_string(), there).await, Verdict::TooMany);
        }
        assert_eq!(verify("bob", "secret", there).await, Verdict::TooMany, "ten guesses at what is remembered");
    }

    #[tokio::test]
    async fn guesses_that_come_together_are_no_more_than_others() {
        let (_dir, _, passwords) = file(&format!("bob:{}\n", hash("secret")));
        let (passwords, desk) = (Arc::new(passwords), Arc::new(Desk::default()));
        let crowd: Vec<_> = (0..60)
            .map(|n| {
                let (passwords, desk) = (passwords.clone(), desk.clone());
                tokio::spawn(async move { passwords.verify(&desk, ("bob", format!("{n}").as_bytes()), HERE).await })
            })
            .collect();
        let mut wrong = 0;
        for one in crowd {
            match one.await.unwrap().unwrap() {
                Verdict::Wrong => wrong += 1,
                other => assert_eq!(other, Verdict::TooMany),
            }
        }
        assert_eq!(wrong, USER_FAILURES, "as many are tried as the limit says");
    }

    #[tokio::test]
    async fn what_is_remembered_is_no_way_to_guess_many_at_once() {
        let (_dir, _, passwords) = file(&format!("bob:{}\n", hash("secret")));
        let desk = Desk::new(1);
        let there = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(passwords.verify(&desk, ("bob", b"secret"), there).await, Ok(Verdict::Right));
        // None of these has an answer yet when the right one comes.
        let _hold = desk.turns.take(there).await.unwrap();
        let guesses: Vec<_> = (0..USER_FAILURES).map(|n| n.to_string()).collect();
        let mut waiting: Vec<_> =
            guesses.iter().map(|guess| Box::pin(passwords.verify(&desk, ("bob", guess.as_bytes()), HERE))).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        assert_eq!(passwords.verify(&desk, ("bob", b"secret"), HERE).await, Ok(Verdict::TooMany));
        assert_eq!(passwords.verify(&desk, ("bob", b"secret"), there).await, Ok(Verdict::Right));
    }

    #[tokio::test]
    async fn a_thousand_guesses_of_one_network_keep_nobody_waiting() {
        // As `htpasswd -B` makes them: a few milliseconds each.
        let hash = |password| bcrypt::hash(password, 6).unwrap();
        let (_dir, _, passwords) = file(&format!("bob:{}\nann:{}\n", hash("secret"), hash("x")));
        let (passwords, desk) = (Arc::new(passwords), Arc::new(Desk::new(1)));
        let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let ask = |user: String, password: &'static str, from: IpAddr| {
            let (passwords, desk, done) = (passwords.clone(), desk.clone(), done.clone());
            tokio::spawn(async move {
                let verdict = passwords.verify(&desk, (&user, password.as_bytes()), from).await.unwrap();
                let _ = done.send((from, verdict));
            })
        };
        let hold = desk.turns.take(IpAddr::from([198, 51, 100, 7])).await.unwrap();
        for n in 0..1000u16 {
            ask(format!("user {n}"), "x", std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, n, 0, 0, n).into());
        }
        tokio::task::yield_now().await;
        let here = IpAddr::from([192, 0, 2, 9]);
        ask("bob".to_owned(), "secret", here);
        drop(hold);
        let (mut wrong, mut before) = (0, None);
        for _ in 0..1001 {
            match ended.recv().await.unwrap() {
                (from, verdict) if from == here => {
                    assert_eq!(verdict, Verdict::Right);
                    before = Some(wrong);
                }
                (_, Verdict::Wrong) => wrong += 1,
                (_, verdict) => assert!(matches!(verdict, Verdict::Crowded | Verdict::TooMany), "{verdict:?}"),
            }
        }
        assert!(before.unwrap() <= 2, "{before:?} guesses were checked before the password from elsewhere");
        // Some may come late, when there is room again.
        assert!((WAITING_PER_CLIENT..=ADDRESS_FAILURES).contains(&wrong), "{wrong}");
    }

    #[tokio::test]
    async fn a_crowd_with_one_password_is_one_check() {
        let (_dir, _, passwords) = file(&format!("bob:{}\n", bcrypt::hash("secret", 8).unwrap()));
        let (passwords, desk) = (Arc::new(passwords), Arc::new(Desk::default()));
        let crowd: Vec<_> = (0..50)
            .map(|_| {
                let (passwords, desk) = (passwords.clone(), desk.clone());
                tokio::spawn(async move { passwords.verify(&desk, ("bob", b"secret"), HERE).await })
            })
            .collect();
        for one in crowd {
            assert_eq!(one.await.unwrap(), Ok(Verdict::Right));
        }
    }

    #[test]
    fn other_hashes_are_refused_by_name() {
        for (text, line, said) in [
            ("bob:$apr1$x$y", 1, "`htpasswd -B`"),
            ("#\n\nbob:{SHA}x", 3, "`htpasswd -B`"),
            ("bob:secret", 1, "`htpasswd -B`"),
            ("bob:$2x$04$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1, "`htpasswd -B`"),
            ("bob:$2b$04$aaa", 1, "hash"),
            (":$2b$04$aaa", 1, "no `user:hash`"),
            ("bob", 1, "no `user:hash`"),
            (&format!("bob:{0}\nbob:{0}", hash("x")), 2, "there twice"),
            (&format!("bob:{}", hash("x").replace("$04$", "$17$")), 1, "cost 17"),
        ] {
            let Err((at, reason)) = parse(text) else { panic!("{text}") };
            assert!(at == line && reason.contains(said), "{text}: {at} {reason}");
            assert!(!reason.contains("secret"), "{reason}");
        }
    }
}
