//! The short way through a connection: what pulls ask the lookaside for is read, answered and
//! written here without a protocol engine, which costs unparsed than the answer.
//!
//! It knows one kind of question only (`message`): without a body, below `/lookaside/`. Everything
//! else goes to hyper with all that was read and not answered, and the connection stays there; so do
//! the shutdown_signal to end, which hyper's side knows how to follow. To know which it is, the head of any
//! request is waited for here, if it is no longer than `HEAD_LIMIT`. Every question passes the same
//! [`RequestHandler`], and whatever it is answered is decided behind it.

pub(in crate::server) mod message;
pub(super) mod rewind;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, Bytes};
use http::header::CONNECTION;
use http::{Method, Response};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::config::Scheme;
use crate::server::listener::fast_path::message::{ParsedHead, RequestHead};
use crate::server::listener::fast_path::rewind::Rewind;
use crate::server::listener::request::{RequestHandler, TrackedBody};
use crate::server::listener::shutdown::{ShutdownPhase, ShutdownReceiver};

/// The longest question, and the most that is read ahead; the limit of headers is never smaller.
const HEAD_LIMIT: usize = 8192;
/// The longest body that is copied behind its head, so that both are sent at once. Longer ones are
/// shared by all who are sent them, however slowly they read.
const SHORT: usize = 16 * 1024;

thread_local! {
    /// Where questions are read to. Most connections hold no byte between two of them.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; HEAD_LIMIT]);
    /// Where answers are written from.
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The second for which the date was written last.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Why no question comes next.
enum NoRequest {
    /// Something that is not for the short way, or an phase was given.
    HandOver,
    /// The client said that there is no unparsed.
    End,
}

/// Answers what may be answered the short way, and returns the connection if there is unparsed; `None`
/// when it is at its end.
///
/// # Errors
/// Those of the connection.
pub(super) async fn serve<I>(mut io: I, handler: &Arc<RequestHandler>) -> io::Result<Option<Rewind<I>>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut receiver = handler.server.shutdown_signal.subscribe();
    // What was read and not answered yet.
    let mut unparsed = Bytes::new();
    loop {
        // A client that pipelines many requests must not keep other tasks from running.
        tokio::task::consume_budget().await;
        // The request may have arrived together with the previous one.
        let received = if unparsed.is_empty() { None } else { take_request(&mut unparsed, &[]) };
        let parsed = match received {
            Some(parsed) => parsed,
            None => poll_fn(|context| next(&mut io, &mut unparsed, &mut receiver, context)).await?,
        };
        let RequestHead { request, last, .. } = match parsed {
            Ok(head) => head,
            Err(NoRequest::HandOver) => return Ok(Some(Rewind::new(unparsed, io))),
            Err(NoRequest::End) => break,
        };
        let method = request.method().clone();
        // Blocks end the life of each future, so that the connection's future needs no room for both.
        let answer = {
            let answering = pin!(handler.clone().answer(request.map(|()| None)));
            unless_stopped(&mut receiver, answering, |context| client_closed(&mut io, &mut unparsed, context)).await
        };
        // Dropped unanswered, it is in the log as such.
        let Some(answer) = answer else { return Ok(None) };
        // Closing with unread data sends RST and discards our buffered response. A client that asks for
        // no further response sends nothing further, except over TLS, where it may send close_notify.
        // (A client that sends between our last read and the close loses its response.)
        if last && unparsed.is_empty() && handler.connection.scheme == Scheme::Http {
            handler.activity.end_with_this();
        }
        let last = last || receiver.phase().is_some() || answer.headers().contains_key(CONNECTION);
        let sent = {
            let sending = pin!(send(&mut io, answer, &method, last));
            unless_stopped(&mut receiver, sending, |_| false).await
        };
        let Some(sent) = sent else { return Ok(None) };
        sent?;
        if last {
            break;
        }
    }
    // Over TLS this sends close_notify.
    let leaving = pin!(io.shutdown());
    unless_stopped(&mut receiver, leaving, |_| false).await.unwrap_or(Ok(())).map(|()| None)
}

/// Reads the next question. What is not answered here stands in `unparsed` afterwards.
fn next<I>(
    io: &mut I,
    unparsed: &mut Bytes,
    receiver: &mut ShutdownReceiver,
    context: &mut Context<'_>,
) -> Poll<io::Result<Result<RequestHead, NoRequest>>>
where
    I: AsyncRead + Unpin,
{
    loop {
        // `take_request` leaves less than that in it.
        let room = HEAD_LIMIT.saturating_sub(unparsed.len());
        match read(io, room, context, |bytes| take_request(unparsed, bytes))? {
            Poll::Ready(Some(Some(parsed))) => return Poll::Ready(Ok(parsed)),
            Poll::Ready(Some(None)) => {}
            Poll::Ready(None) if unparsed.is_empty() => return Poll::Ready(Ok(Err(NoRequest::End))),
            Poll::Ready(None) => return Poll::Ready(Ok(Err(NoRequest::HandOver))),
            Poll::Pending if receiver.poll(context).is_some() => return Poll::Ready(Ok(Err(NoRequest::HandOver))),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Takes the question out of what there was and what has received, which are [`HEAD_LIMIT`] bytes at most;
/// `None` when there is only a part.
fn take_request(unparsed: &mut Bytes, received: &[u8]) -> Option<Result<RequestHead, NoRequest>> {
    let joined = !unparsed.is_empty();
    if joined && !received.is_empty() {
        *unparsed = [unparsed, received].concat().into();
    }
    let all = if joined { &**unparsed } else { received };
    let (consumed, parsed) = match message::read(all) {
        ParsedHead::Request(question) => (question.length, Some(Ok(question))),
        ParsedHead::Partial if all.len() < HEAD_LIMIT => (0, None),
        ParsedHead::Partial | ParsedHead::Other => (0, Some(Err(NoRequest::HandOver))),
    };
    if consumed >= all.len() {
        // Gives the memory back, too.
        *unparsed = Bytes::new();
    } else if joined {
        unparsed.advance(consumed);
    } else {
        *unparsed = Bytes::copy_from_slice(received.get(consumed..).unwrap_or_default());
    }
    parsed
}

/// Tells whether the client has gone while it was being answered; what else it says is kept.
fn client_closed<I>(io: &mut I, unparsed: &mut Bytes, context: &mut Context<'_>) -> bool
where
    I: AsyncRead + Unpin,
{
    if !unparsed.is_empty() {
        return false;
    }
    match read(io, HEAD_LIMIT, context, |bytes| *unparsed = Bytes::copy_from_slice(bytes)) {
        Poll::Ready(Ok(said)) => said.is_none(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// Hands out what comes next, `most` bytes of it; `None` at the end.
fn read<I, T>(
    io: &mut I,
    most: usize,
    context: &mut Context<'_>,
    consume: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<Option<T>>>
where
    I: AsyncRead + Unpin,
{
    READ.with_borrow_mut(|room| {
        let mut read = ReadBuf::new(room.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(io).poll_read(context, &mut read))?;
        Poll::Ready(Ok(Some(read.filled()).filter(|bytes| !bytes.is_empty()).map(consume)))
    })
}

/// Does something that only the phase to stop may break off, and a client that is `gone`.
async fn unless_stopped<F: Future>(
    receiver: &mut ShutdownReceiver,
    mut work: Pin<&mut F>,
    mut gone: impl FnMut(&mut Context<'_>) -> bool,
) -> Option<F::Output> {
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if receiver.poll(context) >= Some(ShutdownPhase::Stop) || gone(context) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Writes an answer; as long as that takes, its request is in flight.
async fn send<I>(io: &mut I, answer: Response<TrackedBody>, parsed: &Method, last: bool) -> io::Result<()>
where
    I: AsyncWrite + Unpin,
{
    let (head, mut body) = answer.into_parts();
    let Some(bytes) = body.whole() else {
        // Nothing below the lookaside is passed on from elsewhere.
        tracing::error!("an answer of the lookaside has no end");
        return Err(io::Error::other("the answer has no end"));
    };
    let mut written = WRITE.take();
    written.clear();
    let follows = with_date(|date| message::write(&head, bytes.len(), parsed, last, date, &mut written));
    let rest = if !follows {
        Bytes::new()
    } else if bytes.len() > SHORT {
        bytes
    } else {
        written.extend_from_slice(&bytes);
        Bytes::new()
    };
    io.write_all(&written).await?;
    WRITE.set(written);
    io.write_all(&rest).await?;
    io.flush().await
}

/// Hands out the date in the form of HTTP (RFC 9110 5.6.7), which is written once a second.
fn with_date<T>(use_it: impl FnOnce(&[u8]) -> T) -> T {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(known, text)| {
        if *known != second {
            let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
            let time = time.unwrap_or(Timestamp::UNIX_EPOCH);
            // Fails only before the year 0.
            *text = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default();
            *known = second;
        }
        use_it(text.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes all questions out of what comes in these pieces: their targets, and what is left.
    fn consumed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
        let (mut unparsed, mut parsed, mut over) = (Bytes::new(), Vec::new(), false);
        for piece in pieces {
            if over {
                unparsed = [&unparsed, piece].concat().into();
                continue;
            }
            let mut received = piece;
            while let Some(next) = take_request(&mut unparsed, std::mem::take(&mut received)) {
                match next {
                    Ok(question) => parsed.push(question.request.uri().to_string()),
                    Err(_) => {
                        over = true;
                        break;
                    }
                }
            }
        }
        (parsed, unparsed.to_vec())
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_is_taken_and_nothing_is_lost(
            paths in proptest::collection::vec("[a-z]{0,30}", 0..6),
            end in "(POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc)?|GET /look|\r\n",
            cuts in proptest::collection::vec(0_usize..400, 0..8),
        ) {
            let heads = paths.iter().map(|path| format!("GET /lookaside/{path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            let text = heads.collect::<String>() + &end;
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            let pieces = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]);
            let (parsed, left) = consumed(pieces);
            prop_assert_eq!(parsed, paths.iter().map(|path| format!("/lookaside/{path}")).collect::<Vec<_>>());
            prop_assert_eq!(String::from_utf8(left).unwrap(), end);
        }
    }

    #[test]
    fn a_part_is_kept_up_to_the_longest_question() {
        let head = format!("GET /lookaside/a HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LIMIT));
        let (part, rest) = head.as_bytes()[..HEAD_LIMIT].split_at(5000);
        let mut unparsed = Bytes::new();
        assert!(take_request(&mut unparsed, part).is_none());
        assert!(matches!(take_request(&mut unparsed, rest), Some(Err(NoRequest::HandOver))));
        assert_eq!(unparsed, head.as_bytes()[..HEAD_LIMIT]);
    }
}
