//! Users and passwords of an htpasswd file. Only bcrypt (`htpasswd -B`): the other forms that such
//! files may hold can be guessed from a stolen file.
//!
//! bcrypt is slow on purpose, and clients open a new connection for each signature, so verdicts
//! are remembered for a minute, under a salted hash of the credentials and of the line they were
//! checked against: a changed line counts at once. Strangers cannot keep the machine busy: few
//! checks run at once, clients take turns (`fair`), a bounded number waits for a bounded time, and an
//! address that fails too often has to wait (`attempts`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::server::auth::attempts::{Attempt, AttemptKeys, AttemptStart, LoginAttempts};
use crate::server::auth::reloading_file::{CredentialsFileError, ReloadingFile, entries};
use crate::server::client_address::client_network;
use crate::server::fair_queue::{FairQueue, QueueFull, QueueLimits};
use crate::server::salted_hash::{SaltedHash, SaltedHasher};

/// How long a verdict is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many verdicts of each kind are remembered.
const VERDICTS: u64 = 10_000;
/// A hash of a higher cost takes minutes to check.
const MAX_COST: u32 = 16;
/// Longer names and passwords are wrong without looking; bcrypt reads 72 bytes of a password.
const NAME_LIMIT: usize = 256;
const PASSWORD_LIMIT: usize = 1024;
/// How many checks wait for their turn, of one client and in all: a large cluster that starts at once.
const WAITING_PER_CLIENT: usize = 64;
const WAITING: usize = 4096;
/// How long a check waits for its turn; clients do not wait much longer for their answer.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long those who ask the same at the same time share one check.
const SHARED: Duration = Duration::from_secs(1);

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasswordCheck {
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
pub(crate) struct HtpasswdFile {
    users: ReloadingFile<Users>,
}

/// What is shared by all htpasswd files of a server: the turns, the memory, the failures.
pub(crate) struct PasswordChecker {
    right: moka::future::Cache<SaltedHash, ()>,
    wrong: moka::future::Cache<SaltedHash, ()>,
    /// Checks under way, by credentials and client.
    checks: moka::future::Cache<SaltedHash, ()>,
    attempts: LoginAttempts,
    hasher: SaltedHasher,
    queue: Arc<FairQueue>,
}

impl Default for PasswordChecker {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((cores / 2).max(1))
    }
}

impl PasswordChecker {
    /// Makes a desk where so many passwords are checked at once.
    fn new(places: usize) -> Self {
        let verdicts = |life| moka::future::Cache::builder().max_capacity(VERDICTS).time_to_live(life).build();
        let bounds = QueueLimits {
            permits: places,
            permits_per_client: places,
            waiting: WAITING,
            waiting_per_client: WAITING_PER_CLIENT,
        };
        Self {
            right: verdicts(REMEMBERED),
            wrong: verdicts(REMEMBERED),
            checks: verdicts(SHARED),
            attempts: LoginAttempts::default(),
            hasher: SaltedHasher::default(),
            queue: FairQueue::new(bounds),
        }
    }

    /// Returns a hash that nobody else can compute.
    pub(crate) fn key(&self, parts: &[&[u8]]) -> SaltedHash {
        self.hasher.hash(parts)
    }

    fn attempt_keys(&self, from: IpAddr, user: &str, password: &[u8]) -> AttemptKeys {
        let from = client_network(from).to_string();
        // To some registries these are the same user.
        let folded = user.trim().to_lowercase();
        AttemptKeys {
            address: self.key(&[b"address", from.as_bytes()]),
            user: self.key(&[b"user", from.as_bytes(), folded.as_bytes()]),
            credentials: self.key(&[b"credentials", user.as_bytes(), password]),
        }
    }

    /// Begins to try credentials that are checked elsewhere; `None` when too many others from there
    /// were wrong.
    pub(crate) async fn begin(&self, from: IpAddr, user: &str, password: &[u8]) -> Option<Attempt> {
        match self.attempts.begin(&self.attempt_keys(from, user, password), false).await {
            AttemptStart::Allowed(attempt) | AttemptStart::CachedOnly(attempt) => Some(attempt),
            AttemptStart::Locked => None,
        }
    }

    /// Remembers credentials that were found right elsewhere, under a key that tells where.
    pub(crate) async fn note_right(&self, key: SaltedHash) {
        self.right.insert(key, ()).await;
    }

    /// Tells whether credentials were found right elsewhere lately.
    pub(crate) async fn is_right(&self, key: &SaltedHash) -> bool {
        self.right.get(key).await.is_some()
    }
}

impl HtpasswdFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { users: ReloadingFile::new(path, parse) }
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
        checker: &PasswordChecker,
        (user, password): (&str, &[u8]),
        from: IpAddr,
    ) -> Result<PasswordCheck, CredentialsFileError> {
        let users = self.users.get()?;
        // A NUL would end the password early for bcrypt.
        if user.len() > NAME_LIMIT || password.len() > PASSWORD_LIMIT || password.contains(&0) {
            return Ok(PasswordCheck::Wrong);
        }
        let known = users.hashes.get(user);
        let Some(hash) = known.or(users.some.as_ref()) else { return Ok(PasswordCheck::Wrong) };
        let key = checker.key(&[b"htpasswd", user.as_bytes(), password, hash.as_bytes(), &[u8::from(known.is_some())]]);
        // Before the memory, which would tell a guess that is right as well.
        let (attempt, check) =
            match checker.attempts.begin(&checker.attempt_keys(from, user, password), known.is_some()).await {
                AttemptStart::Allowed(attempt) => (attempt, true),
                AttemptStart::CachedOnly(attempt) => (attempt, false),
                AttemptStart::Locked => return Ok(PasswordCheck::TooMany),
            };
        let verdict = match checker.remembered(&key).await {
            Some(remembered) => remembered,
            None if check => checker.check(key, (password, hash, known.is_some()), client_network(from)).await,
            None => PasswordCheck::TooMany,
        };
        // Also what there was no turn for was compared with what is remembered.
        if verdict == PasswordCheck::Right {
            attempt.right();
        } else {
            attempt.wrong();
        }
        Ok(verdict)
    }
}

impl PasswordChecker {
    async fn remembered(&self, key: &SaltedHash) -> Option<PasswordCheck> {
        if self.right.get(key).await.is_some() {
            return Some(PasswordCheck::Right);
        }
        self.wrong.get(key).await.map(|()| PasswordCheck::Wrong)
    }

    /// Checks a password, when it is the client's turn. Those of one client who ask the same at the
    /// same time share one check and one place.
    async fn check(
        &self,
        key: SaltedHash,
        (password, hash, is_known): (&[u8], &str, bool),
        client: IpAddr,
    ) -> PasswordCheck {
        let (password, hash) = (Zeroizing::new(password.to_vec()), hash.to_owned());
        let shared = self.key(&[key.as_bytes(), client.to_string().as_bytes()]);
        let right = self.checks.try_get_with(shared, async {
            let turn = match tokio::time::timeout(QUEUE_TIMEOUT, self.queue.take(client)).await {
                Ok(Ok(turn)) => turn,
                Ok(Err(QueueFull::Client)) => return Err(PasswordCheck::Crowded),
                Ok(Err(QueueFull::All)) | Err(_) => return Err(PasswordCheck::Busy),
            };
            // Another client may have asked the same meanwhile.
            match self.remembered(&key).await {
                Some(PasswordCheck::Right) => return Ok(()),
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
            Err(PasswordCheck::Wrong)
        });
        right.await.map_or_else(|verdict| *verdict, |()| PasswordCheck::Right)
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
        if parts.get_cost() > MAX_COST {
            let reason =
                format!("the hash of {name:?} has cost {}; more than {MAX_COST} takes too long", parts.get_cost());
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

    fn file(content: &str) -> (tempfile::TempDir, std::path::PathBuf, HtpasswdFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        std::fs::write(&path, content).unwrap();
        let passwords = HtpasswdFile::new(&path);
        (dir, path, passwords)
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user() {
        // What `htpasswd -Bbn bob secret` of Apache 2.4 wrote.
        let (_dir, path, passwords) =
            file(&format!("# comment\n\nbob:{}\nalice:{}\n", hash("secret").replace("$2b$", "$2y$"), hash("other")));
        let checker = PasswordChecker::default();
        let verdict =
            async |user: &str, password: &str| passwords.verify(&checker, (user, password.as_bytes()), HERE).await;
        assert_eq!(verdict("bob", "secret").await, Ok(PasswordCheck::Right));
        assert_eq!(verdict("bob", "secret").await, Ok(PasswordCheck::Right), "remembered");
        for (user, password) in
            [("bob", "other"), ("alice", "secret"), ("carol", "secret"), ("", ""), ("bob", ""), ("bob", "secret\0x")]
        {
            assert_eq!(verdict(user, password).await, Ok(PasswordCheck::Wrong), "{user}:{password}");
        }
        // A changed file counts at once, for the remembered too.
        std::fs::write(&path, format!("bob:{}\n", hash("new"))).unwrap();
        assert_eq!(verdict("bob", "secret").await, Ok(PasswordCheck::Wrong));
        assert_eq!(verdict("bob", "new").await, Ok(PasswordCheck::Right));
        std::fs::write(&path, "bob:broken").unwrap();
        assert!(verdict("bob", "new").await.is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(verdict("bob", "new").await.is_err());
    }

    #[tokio::test]
    async fn guessing_comes_to_an_end() {
        let (_dir, _, passwords) = file(&format!("bob:{}\nalice:{}\n", hash("secret"), hash("x")));
        let checker = PasswordChecker::default();
        let verify = async |user: &str, password: &str, from| {
            passwords.verify(&checker, (user, password.as_bytes()), from).await.unwrap()
        };
        assert_eq!(verify("alice", "x", HERE).await, PasswordCheck::Right);
        for n in 0..USER_FAILURES {
            let guess = format!("guess {n}");
            assert_eq!(verify("bob", &guess, HERE).await, PasswordCheck::Wrong);
            // The same mistake again and again, as of a badly configured client, is one.
            assert_eq!(verify("bob", &guess, HERE).await, PasswordCheck::Wrong);
        }
        assert_eq!(verify("bob", "secret", HERE).await, PasswordCheck::TooMany);
        assert_eq!(verify("alice", "x", HERE).await, PasswordCheck::Right);
        let there = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(verify("bob", "secret", there).await, PasswordCheck::Right);
        // What is remembered elsewhere is no way to guess without end.
        assert_eq!(verify("bob", "secret", HERE).await, PasswordCheck::TooMany);
        for n in 0..ADDRESS_FAILURES {
            assert_eq!(verify(&n.to_string(), "x", there).await, PasswordCheck::Wrong);
        }
        assert_eq!(verify("alice", "y", there).await, PasswordCheck::TooMany);
        assert_eq!(verify("bob", "secret", there).await, PasswordCheck::Right, "remembered");
        for n in 0..USER_FAILURES {
            assert_eq!(verify("bob", &n.to_string(), there).await, PasswordCheck::TooMany);
        }
        assert_eq!(verify("bob", "secret", there).await, PasswordCheck::TooMany, "ten guesses at what is remembered");
    }

    #[tokio::test]
    async fn guesses_that_come_together_are_no_more_than_others() {
        let (_dir, _, passwords) = file(&format!("bob:{}\n", hash("secret")));
        let (passwords, checker) = (Arc::new(passwords), Arc::new(PasswordChecker::default()));
        let crowd: Vec<_> = (0..60)
            .map(|n| {
                let (passwords, checker) = (passwords.clone(), checker.clone());
                tokio::spawn(async move { passwords.verify(&checker, ("bob", format!("{n}").as_bytes()), HERE).await })
            })
            .collect();
        let mut wrong = 0;
        for one in crowd {
            match one.await.unwrap().unwrap() {
                PasswordCheck::Wrong => wrong += 1,
                other => assert_eq!(other, PasswordCheck::TooMany),
            }
        }
        assert_eq!(wrong, USER_FAILURES, "as many are tried as the limit says");
    }

    #[tokio::test]
    async fn what_is_remembered_is_no_way_to_guess_many_at_once() {
        let (_dir, _, passwords) = file(&format!("bob:{}\n", hash("secret")));
        let checker = PasswordChecker::new(1);
        let there = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(passwords.verify(&checker, ("bob", b"secret"), there).await, Ok(PasswordCheck::Right));
        // None of these has an answer yet when the right one comes.
        let _hold = checker.queue.take(there).await.unwrap();
        let guesses: Vec<_> = (0..USER_FAILURES).map(|n| n.to_string()).collect();
        let mut waiting: Vec<_> =
            guesses.iter().map(|guess| Box::pin(passwords.verify(&checker, ("bob", guess.as_bytes()), HERE))).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        assert_eq!(passwords.verify(&checker, ("bob", b"secret"), HERE).await, Ok(PasswordCheck::TooMany));
        assert_eq!(passwords.verify(&checker, ("bob", b"secret"), there).await, Ok(PasswordCheck::Right));
    }

    #[tokio::test]
    async fn a_thousand_guesses_of_one_network_keep_nobody_waiting() {
        // As `htpasswd -B` makes them: a few milliseconds each.
        let hash = |password| bcrypt::hash(password, 6).unwrap();
        let (_dir, _, passwords) = file(&format!("bob:{}\nann:{}\n", hash("secret"), hash("x")));
        let (passwords, checker) = (Arc::new(passwords), Arc::new(PasswordChecker::new(1)));
        let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let ask = |user: String, password: &'static str, from: IpAddr| {
            let (passwords, checker, done) = (passwords.clone(), checker.clone(), done.clone());
            tokio::spawn(async move {
                let verdict = passwords.verify(&checker, (&user, password.as_bytes()), from).await.unwrap();
                let _ = done.send((from, verdict));
            })
        };
        let hold = checker.queue.take(IpAddr::from([198, 51, 100, 7])).await.unwrap();
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
                    assert_eq!(verdict, PasswordCheck::Right);
                    before = Some(wrong);
                }
                (_, PasswordCheck::Wrong) => wrong += 1,
                (_, verdict) => {
                    assert!(matches!(verdict, PasswordCheck::Crowded | PasswordCheck::TooMany), "{verdict:?}")
                }
            }
        }
        assert!(before.unwrap() <= 2, "{before:?} guesses were checked before the password from elsewhere");
        // Some may come late, when there is room again.
        assert!((WAITING_PER_CLIENT..=ADDRESS_FAILURES).contains(&wrong), "{wrong}");
    }

    #[tokio::test]
    async fn a_crowd_with_one_password_is_one_check() {
        let (_dir, _, passwords) = file(&format!("bob:{}\n", bcrypt::hash("secret", 8).unwrap()));
        let (passwords, checker) = (Arc::new(passwords), Arc::new(PasswordChecker::default()));
        let crowd: Vec<_> = (0..50)
            .map(|_| {
                let (passwords, checker) = (passwords.clone(), checker.clone());
                tokio::spawn(async move { passwords.verify(&checker, ("bob", b"secret"), HERE).await })
            })
            .collect();
        for one in crowd {
            assert_eq!(one.await.unwrap(), Ok(PasswordCheck::Right));
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
