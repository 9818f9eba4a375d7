//! Connections as the system gives them, and how they are accepted.
//!
//! The runtime hears of a connection only once there is something to wait for. Deployed clients
//! connect for one request: mostly it is there when the connection is accepted, and the answer ends
//! it. To begin and end waiting for what never waits costs two system calls and the kernel's
//! bookkeeping, which is more than the answer costs. Where the client asks for one thing only, without
//! TLS, a short answer, the end, and the word that the question has arrived are one packet, not three.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::sockopt::set_tcp_quickack;
use rustix::net::{SendFlags, SocketFlags, acceptfrom_with, send};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A listening socket in a runtime.
pub(super) struct Acceptor(AsyncFd<std::net::TcpListener>);

impl Acceptor {
    /// Brings a socket into the present runtime.
    ///
    /// # Errors
    /// When the socket cannot be waited for.
    #[expect(deprecated, reason = "what replaces it is unsafe, for the sake of types that could lose their descriptor")]
    pub(super) fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Taken over by each connection, see `Said`. Some kinds of sockets refuse it, and none needs it.
        let _ = set_tcp_quickack(&socket, false);
        AsyncFd::new(socket).map(Self)
    }

    /// Accepts a connection, with the address of the other end.
    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(ClientStream, SocketAddr)>> {
        loop {
            let mut waiting = ready!(self.0.poll_read_ready(context))?;
            if let Ok(accepted) = waiting.try_io(|socket| accept(socket.get_ref())) {
                return Poll::Ready(accepted);
            }
        }
    }
}

/// Unlike that of `std`, which needs one more system call to have a socket that never blocks.
fn accept(socket: &std::net::TcpListener) -> io::Result<(ClientStream, SocketAddr)> {
    let accepted = retry_on_intr(|| acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC));
    let (accepted, peer) = accepted?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((ClientStream { stage: Stage::Fresh(accepted.into()), said: Said::Nothing }, peer))
}

/// A connection from a client.
pub(super) struct ClientStream {
    stage: Stage,
    said: Said,
}

/// How much the client has said.
///
/// The packet that acknowledges the first piece is that of the answer, which follows at once. Whoever
/// looks for a second piece may wait for a client that sends it only when the first is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    FirstPiece,
    /// From here on what comes is acknowledged at once, as the kernel does with any new connection.
    More,
}

enum Stage {
    /// Nothing was read yet.
    Fresh(std::net::TcpStream),
    /// Nothing was there yet: the client is at work on it, and has time while others are served.
    Expected(std::net::TcpStream),
    /// The first bytes were there at once. Whatever is read next is waited for by the runtime,
    /// which also sees to it that no client keeps a thread busy alone.
    Begun(std::net::TcpStream),
    /// The runtime waits for it.
    Known(TcpStream),
    /// The runtime would not have it.
    Lost,
}

impl ClientStream {
    /// Has the runtime wait for it from now on.
    fn known(&mut self) -> io::Result<&mut TcpStream> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Lost) {
            Stage::Fresh(stream) | Stage::Expected(stream) | Stage::Begun(stream) => {
                Stage::Known(TcpStream::from_std(stream)?)
            }
            stage => stage,
        };
        match &mut self.stage {
            Stage::Known(stream) => Ok(stream),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The connection as long as the runtime has not heard of it.
    fn unknown(&self) -> Option<&std::net::TcpStream> {
        match &self.stage {
            Stage::Fresh(stream) | Stage::Expected(stream) | Stage::Begun(stream) => Some(stream),
            Stage::Known(_) | Stage::Lost => None,
        }
    }

    /// Does something on the connection if that needs no waiting, as long as the runtime has not
    /// heard of it.
    fn at_once<T>(&self, mut work: impl FnMut(&std::net::TcpStream) -> io::Result<T>) -> Option<io::Result<T>> {
        self.unknown().and_then(|stream| at_once(|| work(stream)))
    }

    /// Reads, without the runtime as long as nothing was read yet and its turn may come by itself.
    fn poll_piece(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (Stage::Fresh(stream) | Stage::Expected(stream)) = &self.stage else {
            return Pin::new(self.known()?).poll_read(context, into);
        };
        let read = at_once(|| (&*stream).read(into.initialize_unfilled()));
        match (std::mem::replace(&mut self.stage, Stage::Lost), read) {
            (Stage::Fresh(stream) | Stage::Expected(stream), Some(read)) => {
                self.stage = Stage::Begun(stream);
                into.advance(read?);
                Poll::Ready(Ok(()))
            }
            (Stage::Fresh(stream), None) => {
                self.stage = Stage::Expected(stream);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            (stage, _) => {
                self.stage = stage;
                Pin::new(self.known()?).poll_read(context, into)
            }
        }
    }

    /// Writes what is the last of the connection, which the caller closes right afterwards. What does
    /// not fill a packet the kernel keeps for that, for 200 ms at most.
    pub(super) fn poll_write_last(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        if let Some(written) = self.at_once(|stream| Ok(send(stream, bytes, flags)?)) {
            return Poll::Ready(written);
        }
        let stream: &TcpStream = self.known()?;
        loop {
            ready!(stream.poll_write_ready(context))?;
            let written = at_once(|| stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, flags)?)));
            if let Some(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    /// Tells whether the runtime waits for it, so that waiting may take long.
    pub(super) fn is_waiting(&self) -> bool {
        self.unknown().is_none()
    }

    /// Has what was not sent yet thrown away when the connection ends.
    pub(super) fn set_zero_linger(&self) -> io::Result<()> {
        match &self.stage {
            Stage::Known(stream) => stream.set_zero_linger(),
            _ => self.unknown().map_or(Ok(()), |stream| SockRef::from(stream).set_linger(Some(Duration::ZERO))),
        }
    }
}

/// Does something without waiting; `None` if it would have to wait.
fn at_once<T>(mut work: impl FnMut() -> io::Result<T>) -> Option<io::Result<T>> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Some(done),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.said == Said::FirstPiece {
            let _ = set_tcp_quickack(this.known()?, true);
            this.said = Said::More;
        }
        let read = this.poll_piece(context, into);
        if read.is_ready() && this.said == Said::Nothing {
            this.said = Said::FirstPiece;
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(written) = this.at_once(|mut stream| stream.write(bytes)) {
            return Poll::Ready(written);
        }
        Pin::new(this.known()?).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(written) = this.at_once(|mut stream| stream.write_vectored(pieces)) {
            return Poll::Ready(written);
        }
        Pin::new(this.known()?).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: no byte is held back but by `poll_write_last`, and those go with the end.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().known()?).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rustix::net::sockopt::tcp_quickack;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A connection, and its client's end.
    async fn pair() -> (ClientStream, std::net::TcpStream) {
        let acceptor = Acceptor::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let client = std::net::TcpStream::connect(acceptor.0.get_ref().local_addr().unwrap()).unwrap();
        let (stream, peer) = poll_fn(|context| acceptor.poll_accept(context)).await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        (stream, client)
    }

    #[tokio::test]
    async fn what_is_there_is_read_and_answered_without_the_runtime() {
        let (mut stream, mut client) = pair().await;
        client.write_all(b"ping").unwrap();
        let mut read = [0; 16];
        assert_eq!(stream.read(&mut read).await.unwrap(), 4);
        stream.write_all(b"pong").await.unwrap();
        assert!(matches!(stream.stage, Stage::Begun(_)));
        drop(stream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "pong");
    }

    #[tokio::test]
    async fn what_is_not_there_is_waited_for() {
        let (mut stream, mut client) = pair().await;
        let sender = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            client.write_all(b"ping").unwrap();
            client
        });
        let mut read = [0; 16];
        assert_eq!(stream.read(&mut read).await.unwrap(), 4);
        assert!(matches!(stream.stage, Stage::Known(_)));
        let mut client = sender.join().unwrap();
        client.write_all(b"again").unwrap();
        assert_eq!(stream.read(&mut read).await.unwrap(), 5);
        drop(client);
        assert_eq!(stream.read(&mut read).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_needs_more_than_one_piece_is_acknowledged_at_once() {
        let (mut stream, mut client) = pair().await;
        // Looked at before anything comes, and before anything is waited for: after 40 ms the kernel
        // acknowledges by itself.
        assert!(!tcp_quickack(stream.unknown().unwrap()).unwrap());
        client.write_all(b"pi").unwrap();
        let mut read = [0; 16];
        assert_eq!(stream.read(&mut read).await.unwrap(), 2);
        let acknowledged = poll_fn(|context| {
            let polled = Pin::new(&mut stream).poll_read(context, &mut ReadBuf::new(&mut read));
            Poll::Ready(polled.is_pending() && tcp_quickack(stream.known().unwrap()).unwrap())
        });
        assert!(acknowledged.await);
        client.write_all(b"ng").unwrap();
        assert_eq!(stream.read(&mut read).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_waited_for() {
        for last in [false, true] {
            let (mut stream, mut client) = pair().await;
            client.write_all(b"ping").unwrap();
            let mut read = [0; 16];
            assert_eq!(stream.read(&mut read).await.unwrap(), 4);
            let much: Vec<u8> = (0..16 << 20).map(|at: u32| (at % 251) as u8).collect();
            let (full, is_full) = std::sync::mpsc::channel();
            let reader = std::thread::spawn(move || {
                is_full.recv().unwrap();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).unwrap();
                answer
            });
            let mut rest = &much[..];
            let writing = poll_fn(|context| {
                while !rest.is_empty() {
                    let polled = if last {
                        stream.poll_write_last(context, rest)
                    } else {
                        Pin::new(&mut stream).poll_write(context, rest)
                    };
                    if polled.is_pending() {
                        let _ = full.send(());
                    }
                    rest = &rest[ready!(polled)?..];
                }
                Poll::Ready(io::Result::Ok(()))
            });
            writing.await.unwrap();
            assert!(matches!(stream.stage, Stage::Known(_)));
            drop(stream);
            assert!(reader.join().unwrap() == much, "last: {last}");
        }
    }

    #[tokio::test]
    async fn the_last_words_go_with_the_end() {
        let mut kept_back = false;
        // The kernel keeps them for 200 ms, and this machine may be busy.
        for _ in 0..10 {
            let (mut stream, mut client) = pair().await;
            client.write_all(b"ping").unwrap();
            let mut read = [0; 16];
            assert_eq!(stream.read(&mut read).await.unwrap(), 4);
            assert_eq!(poll_fn(|context| stream.poll_write_last(context, b"pong")).await.unwrap(), 4);
            client.set_nonblocking(true).unwrap();
            kept_back |= client.peek(&mut read).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            drop(stream);
            client.set_nonblocking(false).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "pong");
        }
        assert!(kept_back);
    }
}
