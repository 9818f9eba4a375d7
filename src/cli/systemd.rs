//! What systemd and a service tell each other: sockets that are there already, and how we are.
//!
//! Sockets come as `sd_listen_fds(3)` says, states go as `sd_notify(3)` says. Without systemd both
//! are nothing.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::Context as _;
use listenfd::ListenFd;

use crate::config::Scheme;

/// Takes the sockets that systemd listens on for us, each with what `FileDescriptorName=http` or
/// `https` says is to be spoken there.
///
/// To be called first of all, while nobody else reads the environment: it changes it, so that
/// programs that we start do not take the sockets for theirs.
pub fn sockets() -> anyhow::Result<Vec<(TcpListener, Option<Scheme>)>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut given = ListenFd::from_env();
    (0..given.len())
        .map(|index| {
            let socket = given.take_tcp_listener(index).context("the socket from systemd")?;
            let socket = socket.context("a socket from systemd is there twice")?;
            socket.set_nonblocking(true)?;
            Ok((socket, names.next().and_then(Scheme::parse)))
        })
        .collect()
}

/// The service's line to systemd.
#[derive(Debug)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// Finds the line by `NOTIFY_SOCKET`.
    pub fn from_process() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self(None);
        };
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        let line = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        });
        Self(line.inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET is not usable")).ok())
    }

    /// Requests are answered from now on.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=serving");
    }

    /// The configuration is being read again; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The open requests are the last.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=finishing the open requests");
    }

    fn say(&self, state: &str) {
        if let Some((socket, address)) = &self.0
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::debug!(%error, "systemd does not hear");
        }
    }
}
