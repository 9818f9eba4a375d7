//! Users and passwords of an htpasswd file. Only bcrypt (`htpasswd -B`): the other forms that such
//! files may hold can be guessed from a stolen file.
//!
//! bcrypt is slow on purpose, and clients open a new connection for each signature, so verdicts
//! are remembered for a minute, under a salted hash of the credentials and of the line they were
//! checked against: a changed line counts at once. Strangers cannot keep the machine busy: few
//! checks run at once, a bounded number waits, and an address that fails too often has to wait.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::watched::{CredentialsFileError, Watched, entries};

/// How long a verdict is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many verdicts of each kind are remembered.
const VERDICTS: u64 = 10_000;
/// A hash of a higher cost takes minutes to check.
const MOST_COST: u32 = 16;
/// Longer names and passwords are wrong without looking; bcrypt reads 72 bytes of a password.
const NAME_LIMIT: usize = 256;
const PASSWORD_LIMIT: usize = 1024;
/// How many checks wait for their turn.
const QUEUE: usize = 64;
/// How long failures are held against an address.
pub(super) const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Failures in that time of one user at one address, and of one address.
const USER_FAILURES: u32 = 10;
const ADDRESS_FAILURES: u32 = 100;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The password is the user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// Not looked at: too many failures from there.
    TooMany,
    /// Not looked at: too many others wait.
    Busy,
}

/// Users and their hashes.
struct Users {
    hashes: HashMap<String, String>,
    /// Checked in the place of an unknown user's, so that the time does not tell who is known.
    some: Option<String>,
}

/// One htpasswd file.
pub(super) struct Passwords {
    users: Watched<Users>,
}

/// What is shared by all htpasswd files of a server: the turns, the memory, the failures.
pub(super) struct Desk {
    right: moka::future::Cache<[u8; 32], ()>,
    wrong: moka::future::Cache<[u8; 32], ()>,
    failures: moka::future::Cache<[u8; 32], Arc<AtomicU32>>,
    salt: [u64; 4],
    queue: Semaphore,
    turns: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Self {
        let seeds = RandomState::new();
        let verdicts = || moka::future::Cache::builder().max_capacity(VERDICTS).time_to_live(REMEMBERED).build();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            right: verdicts(),
            wrong: verdicts(),
            failures: moka::future::Cache::builder().max_capacity(VERDICTS).time_to_live(FAILURE_WINDOW).build(),
            salt: [0u8, 1, 2, 3].map(|part| seeds.hash_one(part)),
            queue: Semaphore::new(QUEUE),
            turns: Arc::new(Semaphore::new((cores / 2).max(1))),
        }
    }
}

impl Desk {
    fn key(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.salt.iter().for_each(|part| hash.update(part.to_be_bytes()));
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn failure_keys(&self, from: IpAddr, user: &str) -> [([u8; 32], u32); 2] {
        let from = network(from).to_string();
        let (address, user) =
            (self.key(&[b"address", from.as_bytes()]), self.key(&[b"user", from.as_bytes(), user.as_bytes()]));
        [(address, ADDRESS_FAILURES), (user, USER_FAILURES)]
    }

    /// Tells whether an address, or a user there, has failed too often lately.
    pub(super) async fn is_locked(&self, from: IpAddr, user: &str) -> bool {
        for (key, most) in self.failure_keys(from, user) {
            if self.failures.get(&key).await.is_some_and(|count| count.load(Ordering::Relaxed) >= most) {
                return true;
            }
        }
        false
    }

    /// Notes a failure.
    pub(super) async fn count_failure(&self, from: IpAddr, user: &str) {
        for (key, _) in self.failure_keys(from, user) {
            let count = self.failures.get_with(key, async { Arc::new(AtomicU32::new(0)) }).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One who has an IPv6 address has a whole network of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
        four => four,
    }
}

impl Passwords {
    pub(super) fn new(path: &Path) -> Self {
        Self { users: Watched::new(path, parse) }
    }

    /// Reads the file, to find what is wrong with it.
    ///
    /// # Errors
    /// [`CredentialsFileError`].
    pub(super) fn check(&self) -> Result<(), CredentialsFileError> {
        self.users.get().map(drop)
    }

    /// Tells whether the password is the user's.
    ///
    /// # Errors
    /// [`CredentialsFileError`] when nobody can be checked.
    pub(super) async fn verify(
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
        let key = desk.key(&[user.as_bytes(), password, hash.as_bytes(), &[u8::from(known.is_some())]]);
        if desk.right.get(&key).await.is_some() {
            return Ok(Verdict::Right);
        }
        if desk.wrong.get(&key).await.is_some() {
            return Ok(Verdict::Wrong);
        }
        let (password, hash) = (Zeroizing::new(password.to_vec()), hash.clone());
        // Those who ask the same at the same time share one check, one place and one failure.
        let right = desk.right.try_get_with(key, async {
            if desk.is_locked(from, user).await {
                return Err(Verdict::TooMany);
            }
            let Ok(_place) = desk.queue.try_acquire() else { return Err(Verdict::Busy) };
            let Ok(turn) = desk.turns.clone().acquire_owned().await else { return Err(Verdict::Busy) };
            let checked = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                bcrypt::verify(password.as_slice(), &hash).unwrap_or(false)
            });
            if checked.await.unwrap_or(false) && known.is_some() {
                return Ok(());
            }
            desk.wrong.insert(key, ()).await;
            desk.count_failure(from, user).await;
            Err(Verdict::Wrong)
        });
        Ok(right.await.map_or_else(|verdict| *verdict, |()| Verdict::Right))
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
        assert_eq!(passwords.verify(&desk, ("alice", b"x"), HERE).await, Ok(Verdict::Right));
        for n in 0..USER_FAILURES {
            let guess = format!("guess {n}");
            assert_eq!(passwords.verify(&desk, ("bob", guess.as_bytes()), HERE).await, Ok(Verdict::Wrong));
            // The same mistake again and again, as of a badly configured client, is one.
            assert_eq!(passwords.verify(&desk, ("bob", guess.as_bytes()), HERE).await, Ok(Verdict::Wrong));
        }
        assert_eq!(passwords.verify(&desk, ("bob", b"secret"), HERE).await, Ok(Verdict::TooMany));
        assert_eq!(passwords.verify(&desk, ("alice", b"x"), HERE).await, Ok(Verdict::Right));
        let there = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(passwords.verify(&desk, ("bob", b"secret"), there).await, Ok(Verdict::Right));
        for n in 0..ADDRESS_FAILURES {
            desk.count_failure(there, &n.to_string()).await;
        }
        assert_eq!(passwords.verify(&desk, ("alice", b"y"), there).await, Ok(Verdict::TooMany));
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

    #[test]
    fn an_address_is_a_network() {
        let (a, b) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:1".parse().unwrap());
        assert_eq!(network(a), network(b));
        assert_ne!(network(a), network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }
}
