//! Connections to one gpg-agent, so that several threads sign at the same time.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::agent_error::AgentError;
use super::assuan::{Connection, Trouble};

/// More connections would only wait within the agent.
const CONNECTIONS: usize = 8;

/// A bounded set of connections, opened when needed and kept.
pub(super) struct Pool {
    socket: PathBuf,
    /// What is said on each new connection.
    options: Vec<String>,
    /// Whether passphrases come from us instead of pinentry.
    loopback: bool,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    open: usize,
}

/// Why there is no result.
pub(super) enum PoolError {
    /// No connection could be had.
    Agent(AgentError),
    /// The command failed.
    Command(Trouble),
}

/// A connection in use. Dropped without being given back, it is closed.
struct Lease<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    fresh: bool,
}

impl Pool {
    pub fn new(socket: PathBuf, options: Vec<String>, loopback: bool) -> Self {
        Self { socket, options, loopback, state: Mutex::default(), freed: Condvar::new() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs `work` on a connection. A connection that lay idle may be dead, since agents are
    /// restarted: then `work` is tried once more on a new one.
    pub fn run<T>(&self, work: impl Fn(&mut Connection) -> Result<T, Trouble>) -> Result<T, PoolError> {
        loop {
            let mut lease = self.lease()?;
            let Some(mut connection) = lease.connection.take() else { continue };
            match work(&mut connection) {
                Err(Trouble::Lost(_)) if !lease.fresh => {
                    self.lock().forget_idle();
                }
                Err(trouble) => {
                    if matches!(trouble, Trouble::Refused(_)) {
                        lease.connection = Some(connection);
                    }
                    return Err(PoolError::Command(trouble));
                }
                Ok(value) => {
                    lease.connection = Some(connection);
                    return Ok(value);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self) -> Result<Lease<'_>, PoolError> {
        let mut state = self.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(Lease { pool: self, connection: Some(connection), fresh: false });
            }
            if state.open < CONNECTIONS {
                state.open += 1;
                break;
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let mut lease = Lease { pool: self, connection: None, fresh: true };
        lease.connection = Some(self.open().map_err(PoolError::Agent)?);
        Ok(lease)
    }

    fn open(&self) -> Result<Connection, AgentError> {
        let general = |trouble: Trouble| match trouble {
            Trouble::Lost(reason) => AgentError::NotRunning { socket: self.socket.clone(), reason },
            Trouble::Silent => AgentError::Silent,
            Trouble::Protocol(what) => AgentError::Protocol(what),
            Trouble::Refused(refusal) => AgentError::NotRunning { socket: self.socket.clone(), reason: refusal.text },
        };
        let mut connection = Connection::open(&self.socket).map_err(general)?;
        for option in &self.options {
            match connection.command(option, None) {
                // Each agent knows its own options, and none of these is needed.
                Ok(_) | Err(Trouble::Refused(_)) => {}
                Err(trouble) => return Err(general(trouble)),
            }
        }
        if self.loopback {
            connection.command("OPTION pinentry-mode=loopback", None).map_err(|trouble| match trouble {
                Trouble::Refused(refusal) => AgentError::Loopback { reason: refusal.text },
                trouble => general(trouble),
            })?;
        }
        Ok(connection)
    }
}

impl State {
    /// One connection of a restarted agent is dead, so all are.
    fn forget_idle(&mut self) {
        self.open = self.open.saturating_sub(self.idle.len());
        self.idle.clear();
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        match self.connection.take() {
            Some(connection) => state.idle.push(connection),
            None => state.open = state.open.saturating_sub(1),
        }
        drop(state);
        self.pool.freed.notify_one();
    }
}
