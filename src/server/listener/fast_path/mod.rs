//! The short way through a connection: what pulls ask the lookaside for is read, answered and
//! written here without a protocol engine, which costs more than the answer.
//!
//! It knows one kind of question only (`message`): without a body, below `/lookaside/`. Everything
//! else goes to hyper with all that was read and not answered, and the connection stays there; so do
//! the orders to end, which hyper's side knows how to follow. To know which it is, the head of any
//! request is waited for here, if it is no longer than `QUESTION`. Every question passes the same
//! [`Door`], and whatever it is answered is decided behind it.

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
use crate::server::listener::fast_path::message::{Question, Reading};
use crate::server::listener::fast_path::rewind::Rewind;
use crate::server::listener::request::{Door, Outbound};
use crate::server::listener::shutdown::{Ear, Order};

/// The longest question, and the most that is read ahead; the limit of headers is never smaller.
const QUESTION: usize = 8192;
/// The longest body that is copied behind its head, so that both are sent at once. Longer ones are
/// shared by all who are sent them, however slowly they read.
const SHORT: usize = 16 * 1024;

thread_local! {
    /// Where questions are read to. Most connections hold no byte between two of them.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; QUESTION]);
    /// Where answers are written from.
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The second for which the date was written last.
    static TODAY: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Why no question comes next.
enum Else {
    /// Something that is not for the short way, or an order was given.
    Otherwise,
    /// The client said that there is no more.
    End,
}

/// Answers what may be answered the short way, and returns the connection if there is more; `None`
/// when it is at its end.
///
/// # Errors
/// Those of the connection.
pub(super) async fn serve<I>(mut io: I, door: &Arc<Door>) -> io::Result<Option<Rewind<I>>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let orders = &door.house.orders;
    let mut ear = orders.ear();
    // What was read and not answered yet.
    let mut more = Bytes::new();
    loop {
        // However many questions come together, it is also others' turn.
        tokio::task::consume_budget().await;
        // It may have come together with the one before.
        let come = if more.is_empty() { None } else { take(&mut more, &[]) };
        let asked = match come {
            Some(asked) => asked,
            None => poll_fn(|context| next(&mut io, &mut more, &mut ear, context)).await?,
        };
        let Question { request, last, .. } = match asked {
            Ok(question) => question,
            Err(Else::Otherwise) => return Ok(Some(Rewind::new(more, io))),
            Err(Else::End) => break,
        };
        let method = request.method().clone();
        // In blocks, so that what is done needs no room any more.
        let answer = {
            let answering = pin!(door.clone().answer(request.map(|()| None)));
            unless_stopped(&mut ear, answering, |context| hung_up(&mut io, &mut more, context)).await
        };
        // Dropped unanswered, it is in the log as such.
        let Some(answer) = answer else { return Ok(None) };
        // To close with something unread resets the connection, and drops what was kept for the close.
        // A client that asks for no more sends no more, but over TLS, where it may say that it ends.
        // (One that does, between our last read and the close, loses its answer.)
        if last && more.is_empty() && door.connection.scheme == Scheme::Http {
            door.pulse.end_with_this();
        }
        let last = last || orders.given().is_some() || answer.headers().contains_key(CONNECTION);
        let sent = {
            let sending = pin!(send(&mut io, answer, &method, last));
            unless_stopped(&mut ear, sending, |_| false).await
        };
        let Some(sent) = sent else { return Ok(None) };
        sent?;
        if last {
            break;
        }
    }
    // Over TLS the client is told.
    let leaving = pin!(io.shutdown());
    unless_stopped(&mut ear, leaving, |_| false).await.unwrap_or(Ok(())).map(|()| None)
}

/// Reads the next question. What is not answered here stands in `more` afterwards.
fn next<I>(
    io: &mut I,
    more: &mut Bytes,
    ear: &mut Ear<'_>,
    context: &mut Context<'_>,
) -> Poll<io::Result<Result<Question, Else>>>
where
    I: AsyncRead + Unpin,
{
    loop {
        // `take` leaves less than that in it.
        let room = QUESTION.saturating_sub(more.len());
        match read(io, room, context, |bytes| take(more, bytes))? {
            Poll::Ready(Some(Some(asked))) => return Poll::Ready(Ok(asked)),
            Poll::Ready(Some(None)) => {}
            Poll::Ready(None) if more.is_empty() => return Poll::Ready(Ok(Err(Else::End))),
            Poll::Ready(None) => return Poll::Ready(Ok(Err(Else::Otherwise))),
            Poll::Pending if ear.hear(context).is_some() => return Poll::Ready(Ok(Err(Else::Otherwise))),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Takes the question out of what there was and what has come, which are [`QUESTION`] bytes at most;
/// `None` when there is only a part.
fn take(more: &mut Bytes, come: &[u8]) -> Option<Result<Question, Else>> {
    let joined = !more.is_empty();
    if joined && !come.is_empty() {
        *more = [more, come].concat().into();
    }
    let all = if joined { &**more } else { come };
    let (taken, asked) = match message::read(all) {
        Reading::Question(question) => (question.length, Some(Ok(question))),
        Reading::Part if all.len() < QUESTION => (0, None),
        Reading::Part | Reading::Other => (0, Some(Err(Else::Otherwise))),
    };
    if taken >= all.len() {
        // Gives the memory back, too.
        *more = Bytes::new();
    } else if joined {
        more.advance(taken);
    } else {
        *more = Bytes::copy_from_slice(come.get(taken..).unwrap_or_default());
    }
    asked
}

/// Tells whether the client has gone while it was being answered; what else it says is kept.
fn hung_up<I>(io: &mut I, more: &mut Bytes, context: &mut Context<'_>) -> bool
where
    I: AsyncRead + Unpin,
{
    if !more.is_empty() {
        return false;
    }
    match read(io, QUESTION, context, |bytes| *more = Bytes::copy_from_slice(bytes)) {
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
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<Option<T>>>
where
    I: AsyncRead + Unpin,
{
    READ.with_borrow_mut(|room| {
        let mut read = ReadBuf::new(room.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(io).poll_read(context, &mut read))?;
        Poll::Ready(Ok(Some(read.filled()).filter(|bytes| !bytes.is_empty()).map(take)))
    })
}

/// Does something that only the order to stop may break off, and a client that is `gone`.
async fn unless_stopped<F: Future>(
    ear: &mut Ear<'_>,
    mut work: Pin<&mut F>,
    mut gone: impl FnMut(&mut Context<'_>) -> bool,
) -> Option<F::Output> {
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if ear.hear(context) >= Some(Order::Stop) || gone(context) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Writes an answer; as long as that takes, its request is in flight.
async fn send<I>(io: &mut I, answer: Response<Outbound>, asked: &Method, last: bool) -> io::Result<()>
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
    let follows = with_date(|date| message::write(&head, bytes.len(), asked, last, date, &mut written));
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
    TODAY.with_borrow_mut(|(known, text)| {
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
    fn taken<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
        let (mut more, mut asked, mut over) = (Bytes::new(), Vec::new(), false);
        for piece in pieces {
            if over {
                more = [&more, piece].concat().into();
                continue;
            }
            let mut come = piece;
            while let Some(next) = take(&mut more, std::mem::take(&mut come)) {
                match next {
                    Ok(question) => asked.push(question.request.uri().to_string()),
                    Err(_) => {
                        over = true;
                        break;
                    }
                }
            }
        }
        (asked, more.to_vec())
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
            let (asked, left) = taken(pieces);
            prop_assert_eq!(asked, paths.iter().map(|path| format!("/lookaside/{path}")).collect::<Vec<_>>());
            prop_assert_eq!(String::from_utf8(left).unwrap(), end);
        }
    }

    #[test]
    fn a_part_is_kept_up_to_the_longest_question() {
        let head = format!("GET /lookaside/a HTTP/1.1\r\nX: {}", "x".repeat(QUESTION));
        let (part, rest) = head.as_bytes()[..QUESTION].split_at(5000);
        let mut more = Bytes::new();
        assert!(take(&mut more, part).is_none());
        assert!(matches!(take(&mut more, rest), Some(Err(Else::Otherwise))));
        assert_eq!(more, head.as_bytes()[..QUESTION]);
    }
}
