//! How fast a client is: the activity of a connection, and time limits on its reads and writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::metrics::{self, Open};
use crate::server::listener::client_stream::ClientStream;

/// How long what a client still sends is taken after it was told that nobody listens.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How many bytes of it.
const LAST_BYTES: usize = 32 << 20;

/// What a connection is about, told by its requests and answers.
pub(in crate::server) struct ConnectionActivity {
    born: Instant,
    /// HTTP/2, where reads and writes say nothing about single requests.
    multiplexed: AtomicBool,
    /// A request's body was left unread.
    unread: AtomicBool,
    /// What is written now is the last that is, and may go with the connection's end.
    last: AtomicBool,
    /// Requests that ever began.
    begun: AtomicUsize,
    /// Requests in flight.
    open: AtomicUsize,
    /// Answers of which the connection has a piece, or could have one, and did not come for the next yet.
    handed: AtomicUsize,
    /// When something of this happened last, in milliseconds since `born`; HTTP/2 only.
    moved: AtomicU64,
}

impl ConnectionActivity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            multiplexed: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            last: AtomicBool::new(false),
            begun: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            handed: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
        })
    }

    pub(super) fn multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
        self.moved();
    }

    /// A request was answered before its body had been read.
    pub(in crate::server) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// The connection, which is not TLS, is closed as soon as the answer at hand is written.
    pub(super) fn end_with_this(&self) {
        self.last.store(true, Ordering::Relaxed);
    }

    fn moved(&self) {
        if self.multiplexed.load(Ordering::Relaxed) {
            let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.moved.store(now, Ordering::Relaxed);
        }
    }

    /// Tells whether there was a request.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    pub(super) fn begin(&self) {
        // An earlier one's body, if there was any, is gone.
        self.unread.store(false, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.moved();
    }

    pub(super) fn end(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.moved();
    }

    pub(super) fn hand(&self) {
        self.handed.fetch_add(1, Ordering::Relaxed);
        self.moved();
    }

    pub(super) fn taken(&self) {
        self.handed.fetch_sub(1, Ordering::Relaxed);
        self.moved();
    }

    fn still(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)))
    }

    /// How long nothing has been asked for, on HTTP/2.
    pub(super) fn idle(&self) -> Option<Duration> {
        (self.open.load(Ordering::Relaxed) == 0).then(|| self.still())
    }

    /// How long the client has not come for more of any answer that has more, on HTTP/2.
    pub(super) fn stalled(&self) -> Option<Duration> {
        (self.handed.load(Ordering::Relaxed) > 0).then(|| self.still())
    }
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For a header, from its first byte, or the first that does not come together with something
    /// else; for the first one, from the connection's begin.
    pub(super) header: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// To take something of what is written.
    pub(super) write: Duration,
}

/// A connection with time limits: requests must come, a header that has begun must end, and what is
/// written must be taken. Stands below TLS.
pub(super) struct TimedStream {
    stream: ClientStream,
    activity: Arc<ConnectionActivity>,
    timeouts: Timeouts,
    /// Until when what is awaited must have come: a header, or a request's first byte.
    due: Option<Instant>,
    /// A header has begun, or is the connection's first one.
    in_header: bool,
    begun: usize,
    reading: Timer,
    /// Until when something of what is being written must have been taken.
    write_due: Option<Instant>,
    writing: Timer,
    /// Until when what the client still sends is taken, at the end, and how much of it.
    leaving: Option<(Instant, usize)>,
    _counted: Open,
}

impl TimedStream {
    pub(super) fn new(stream: ClientStream, activity: Arc<ConnectionActivity>, timeouts: Timeouts) -> Self {
        let due = Some(activity.born + timeouts.header);
        let (reading, writing) = (Timer::default(), Timer::default());
        Self {
            stream,
            activity,
            timeouts,
            due,
            in_header: true,
            begun: 0,
            reading,
            write_due: None,
            writing,
            leaving: None,
            _counted: metrics::CONNECTIONS_OPEN.open(),
        }
    }

    /// HTTP/2 has its own clock, see `drive`; within a request the body has one.
    fn is_busy(&self) -> bool {
        self.activity.multiplexed.load(Ordering::Relaxed) || self.activity.open.load(Ordering::Relaxed) > 0
    }

    /// After a request another one is awaited.
    fn note_requests(&mut self) {
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if begun != self.begun {
            (self.begun, self.due, self.in_header) = (begun, None, false);
        }
    }

    /// Says what does not come in time, if so; else the task is woken when it is late.
    fn overdue(&mut self, context: &mut Context<'_>) -> Option<&'static str> {
        if self.is_busy() {
            return None;
        }
        let limit = if self.in_header { self.timeouts.header } else { self.timeouts.idle };
        let due = *self.due.get_or_insert_with(|| Instant::now() + limit);
        let what = if self.in_header { "the request's header comes too slowly" } else { "nothing is asked for" };
        self.reading.passed(context, due).then_some(what)
    }

    /// Turns a write that waits into one that fails when it waits too long.
    fn written<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_due = None;
            return polled;
        }
        let due = *self.write_due.get_or_insert_with(|| Instant::now() + self.timeouts.write);
        if self.writing.passed(context, due) {
            // What is left in the kernel's buffers is nothing that this client wants.
            let _ = self.stream.set_zero_linger();
            return Poll::Ready(Err(slow("the client does not read its answer")));
        }
        Poll::Pending
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.note_requests();
        let before = into.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, into);
        if polled.is_pending() {
            if !this.stream.is_waiting() {
                return Poll::Pending;
            }
            return this.overdue(context).map_or(Poll::Pending, |what| Poll::Ready(Err(slow(what))));
        }
        if into.filled().len() > before && !this.in_header && !this.is_busy() {
            // Mostly the whole of it has come, and nobody will look at the clock.
            (this.due, this.in_header) = (None, true);
        }
        polled
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = if this.activity.last.load(Ordering::Relaxed) {
            this.stream.poll_write_last(context, bytes)
        } else {
            Pin::new(&mut this.stream).poll_write(context, bytes)
        };
        this.written(context, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.written(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        // After an answer hyper does not look for the next request until something wakes it.
        this.note_requests();
        if polled.is_ready() && this.overdue(context).is_some() {
            context.waker().wake_by_ref();
        }
        polled
    }

    /// Mostly nothing: the socket is closed at once afterwards, and that says the same to the client.
    ///
    /// But a client that is still sending would be reset by that, and lose the answer that says reason
    /// it is not listened to: it is given a moment to hear it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.activity.unread.load(Ordering::Relaxed) || this.activity.multiplexed.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let (due, left) = match &mut this.leaving {
            Some(leaving) => leaving,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                this.leaving.insert((Instant::now() + LAST_WORDS, LAST_BYTES))
            }
        };
        let mut room = [0; 8192];
        while *left > 0 && !this.writing.passed(context, *due) {
            let mut read = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            match read.filled().len() {
                0 => break,
                length => *left = left.saturating_sub(length),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn slow(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// A time limit that costs nothing until something waits, and little when it is moved on: the
/// runtime's clock is set again only when it goes off, or must go off earlier.
#[derive(Default)]
pub(in crate::server) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Tells whether it is `due`; else the task is woken when it is, at the latest.
    pub(in crate::server) fn passed(&mut self, context: &mut Context<'_>, due: Instant) -> bool {
        let due = tokio::time::Instant::from(due);
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline() >= due {
                return true;
            }
            sleep.as_mut().reset(due);
        }
        false
    }
}
