//! The threads that serve: each accepts for itself, with a runtime of its own, and keeps what it
//! accepted. So a request is read, answered and written without a hop to another thread, which
//! costs more than the answer.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::server::listener::client_stream::Acceptor;
use crate::server::listener::tls::Tls;
use crate::server::listener::{Listener, ServeError, ServerContext};

/// Beyond so many, a new connection wakes more threads than it is worth.
const MOST: usize = 16;
/// How long a thread may need to stop when nobody waits for its work any more.
const LAST_MOMENT: Duration = Duration::from_millis(200);
/// How often each thread has something to do in any case. A clock that is set to go off before all
/// others makes the runtime wake itself up, with a system call or two; so there is always one that
/// goes off earlier than those of connections, which are set and dropped all the time.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A listening socket that is in nobody's runtime.
#[derive(Clone)]
struct Socket {
    socket: Arc<std::net::TcpListener>,
    tls: Option<Arc<Tls>>,
}

/// The threads of a server.
pub(super) struct Workers {
    accepting: TaskTracker,
    over: DropGuard,
    threads: Vec<(std::thread::JoinHandle<()>, oneshot::Receiver<()>)>,
}

impl Workers {
    /// Starts `count` threads, or as many as there are processors, that accept from all of
    /// `listeners` until the phase to stop.
    ///
    /// # Errors
    /// [`ServeError`] when a socket is not usable or a thread cannot be had.
    pub(super) fn start(
        server: &Arc<ServerContext>,
        listeners: Vec<Listener>,
        count: usize,
    ) -> Result<Self, ServeError> {
        let sockets = listeners.into_iter().map(Socket::of).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.map_err(ServeError::Listener)?;
        let over = CancellationToken::new();
        let mut workers = Self { accepting: TaskTracker::new(), over: over.clone().drop_guard(), threads: Vec::new() };
        let processors = || std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        for number in 0..if count == 0 { processors() } else { count } {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Thread)?;
            let loops = {
                let _inside = runtime.enter();
                let listener = |socket: &Socket| Ok((socket.open()?, socket.tls.clone()));
                sockets.iter().map(listener).collect::<io::Result<Vec<_>>>().map_err(ServeError::Listener)?
            };
            // Counts as accepting until the loops themselves do.
            let begun = workers.accepting.token();
            let (server, accepting, over) = (server.clone(), workers.accepting.clone(), over.clone());
            let (ended, end) = oneshot::channel();
            let serve = move || {
                runtime.block_on(async {
                    for (socket, tls) in loops {
                        accepting.spawn(server.clone().accept(socket, tls));
                    }
                    drop(begun);
                    while tokio::time::timeout(HEARTBEAT, over.cancelled()).await.is_err() {}
                });
                runtime.shutdown_timeout(LAST_MOMENT);
                let _ = ended.send(());
            };
            let thread = std::thread::Builder::new().name(format!("serve-{number}")).spawn(serve);
            workers.threads.push((thread.map_err(ServeError::Thread)?, end));
        }
        workers.accepting.close();
        Ok(workers)
    }

    /// Waits until nothing is accepted any more.
    pub(super) async fn closed(&self) {
        self.accepting.wait().await;
    }

    /// Ends all threads, and what is still running on them.
    pub(super) async fn end(self) {
        drop(self.over);
        for (thread, end) in self.threads {
            let _ = end.await;
            // It has said that it is at its end.
            let _ = thread.join();
        }
    }
}

impl Socket {
    /// Takes the socket out of the runtime that it is in.
    fn of(listener: Listener) -> io::Result<Self> {
        let socket: std::net::TcpListener = listener.socket.as_fd().try_clone_to_owned()?.into();
        // Answers are small and whole; waiting for more to send only delays them. What is accepted
        // takes this over from the listening socket.
        let _ = SockRef::from(&socket).set_tcp_nodelay(true);
        Ok(Self { socket: Arc::new(socket), tls: listener.tls })
    }

    /// Brings it into the present runtime, beside others.
    fn open(&self) -> io::Result<Acceptor> {
        Acceptor::new(self.socket.try_clone()?)
    }
}
