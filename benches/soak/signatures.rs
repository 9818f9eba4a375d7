//! Signatures: read and written by both faces, and compared with the model.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::RwLock;
use std::time::Instant;

use countersign::image::Digest;

use crate::Random;
use crate::connection::{Ask, Connection};
use crate::model::{Image, Known};
use crate::support::http::Answer;
use crate::support::registry_api::{entry, listed, signatures};
use crate::tally::Tally;
use crate::world::{TOKEN, World};

type Exact = Image<RwLock<Known>>;

/// One of many things that clients of signatures do.
pub fn turn(world: &World, tally: &Tally, to: &mut Connection, random: &mut Random) -> Result<(), String> {
    if random.below(3) == 0 {
        to.renew();
    }
    let image = &world.model.exact[random.below(world.model.exact.len())];
    match random.below(100) {
        0..35 => read(world, tally, to, image, random.below(2) == 0),
        35..50 => unsigned(world, tally, to, random),
        50..72 => add(world, tally, to, image, random),
        72..88 => remove(world, tally, to, image, random),
        88..93 => abandon(world, tally, to, image, random),
        93..97 => refused(world, tally, to, image),
        _ => release(world, tally, to, image),
    }
}

/// Many write to one image, all at once; what one was told is there for all others.
pub fn crowd(world: &World, tally: &Tally, to: &mut Connection, random: &mut Random) -> Result<(), String> {
    let image = &world.model.crowded[random.below(world.model.crowded.len())];
    let n = random.below(image.pool.len());
    if random.below(4) == 0 {
        let is_known = image.state.lock().unwrap().contains(&n);
        let created = put(world, to, image, n, random.below(2) == 0)?;
        if is_known && created == Some(true) {
            return Err(image.about(&format!("took signature {n} for new, but it was acknowledged before")));
        }
        image.state.lock().unwrap().insert(n);
        tally.repeated.add();
    }
    let before = image.state.lock().unwrap().clone();
    let found = if random.below(2) == 0 { walk(world, to, image)? } else { list(world, to, image)? };
    tally.lists.add();
    let seen = image.recognise(&found)?;
    let lost: Vec<_> = before.difference(&seen).collect();
    if lost.is_empty() { Ok(()) } else { Err(image.about(&format!("lacks {lost:?}, which were acknowledged"))) }
}

/// Reads everything once more, when nobody writes.
pub fn all(world: &World, tally: &Tally, to: &mut Connection) -> Result<(), String> {
    for image in &world.model.exact {
        read(world, tally, to, image, true)?;
        read(world, tally, to, image, false)?;
    }
    Ok(())
}

fn expect(answer: &Answer, wanted: &[u16], what: &str) -> Result<(), String> {
    if wanted.contains(&answer.status) {
        return Ok(());
    }
    Err(format!("{what}: {} instead of {wanted:?}: {}", answer.status, answer.text()))
}

/// What a client of the lookaside does: 1, 2, 3, … until 404.
fn walk<S>(world: &World, to: &mut Connection, image: &Image<S>) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    loop {
        let number = found.len() + 1;
        // By name and password, or by token.
        let (path, headers) = match number % 2 {
            0 => (image.path(&format!("{number}?token={TOKEN}")), vec![]),
            _ => (image.path(&number.to_string()), vec![("Authorization", world.bob.as_str())]),
        };
        let answer = to.ask(Ask::get(&path, &headers))?;
        expect(&answer, &[200, 404], &path)?;
        if answer.status == 404 {
            return Ok(found);
        }
        found.push(answer.body);
    }
}

fn list<S>(world: &World, to: &mut Connection, image: &Image<S>) -> Result<Vec<Vec<u8>>, String> {
    let path = signatures(&image.repository, &image.digest);
    let answer = to.ask(Ask::get(&path, &[("Authorization", &world.alice)]))?;
    expect(&answer, &[200], &path)?;
    Ok(listed(&answer))
}

fn read(world: &World, tally: &Tally, to: &mut Connection, image: &Exact, walks: bool) -> Result<(), String> {
    let known = image.state.read().unwrap();
    let found = if walks { walk(world, to, image)? } else { list(world, to, image)? };
    if walks {
        tally.walks.add()
    } else {
        tally.lists.add()
    }
    let arrived = known.agrees(&image.recognise(&found)?).map_err(|what| image.about(&what))?;
    let writes = known.writes;
    drop(known);
    let mut known = image.state.write().unwrap();
    if known.writes == writes {
        known.confirm(&arrived);
    }
    Ok(())
}

fn unsigned(world: &World, tally: &Tally, to: &mut Connection, random: &mut Random) -> Result<(), String> {
    let digest = Digest::sha256(&random.below(usize::MAX).to_be_bytes());
    let path = format!("/lookaside/soak/app1@{}/signature-1", digest.path_form());
    expect(&to.ask(Ask::get(&path, &[("Authorization", &world.bob)]))?, &[404], &path)?;
    let path = signatures("soak/app1", &digest);
    let answer = to.ask(Ask::get(&path, &[("Authorization", &world.alice)]))?;
    expect(&answer, &[200], &path)?;
    if !listed(&answer).is_empty() {
        return Err(format!("{path}: signatures of an image that is not there"));
    }
    tally.absences.add();
    Ok(())
}

/// Stores a signature; tells whether it is new, as far as the face says so.
fn put<S>(
    world: &World,
    to: &mut Connection,
    image: &Image<S>,
    n: usize,
    plainly: bool,
) -> Result<Option<bool>, String> {
    let blob = &image.pool[n];
    if plainly {
        let path = image.path(["new", "1"][n % 2]);
        let answer = to.ask(Ask::put(&path, &[("Authorization", &world.bob)], blob))?;
        expect(&answer, &[201, 204], &path)?;
        return Ok(Some(answer.status == 201));
    }
    let path = signatures(&image.repository, &image.digest);
    let body = entry(&image.digest, blob);
    expect(&to.ask(Ask::put(&path, &[("Authorization", &world.alice)], &body))?, &[201], &path)?;
    Ok(None)
}

fn add(world: &World, tally: &Tally, to: &mut Connection, image: &Exact, random: &mut Random) -> Result<(), String> {
    let plainly = random.below(2) == 0;
    let mut known = image.state.write().unwrap();
    known.writes += 1;
    let again = known.present.iter().copied().find(|_| random.below(8) == 0);
    let from = random.below(image.pool.len());
    let Some(n) = again.or_else(|| known.absent(from, image.pool.len())) else { return Ok(()) };
    let created = put(world, to, image, n, plainly)?;
    if created.is_some_and(|created| created == again.is_some()) {
        return Err(image.about(&format!("signature {n}: new is {created:?}, and it was there: {}", again.is_some())));
    }
    known.present.insert(n);
    match (again, plainly) {
        (Some(_), _) => tally.repeated.add(),
        (None, true) => tally.stored.add(),
        (None, false) => tally.extended.add(),
    }
    Ok(())
}

fn remove(world: &World, tally: &Tally, to: &mut Connection, image: &Exact, random: &mut Random) -> Result<(), String> {
    let mut known = image.state.write().unwrap();
    known.writes += 1;
    let bob = [("Authorization", world.bob.as_str())];
    let path = image.path(&(1 + random.below(known.present.len())).to_string());
    let shown = to.ask(Ask::get(&path, &bob))?;
    expect(&shown, if known.present.is_empty() { &[200, 404] } else { &[200] }, &path)?;
    if shown.status == 404 {
        return Ok(());
    }
    let seen = image.recognise(std::slice::from_ref(&shown.body))?;
    // Another than this one must not be removed, so the tag goes with it.
    let etag = shown.header("etag").unwrap_or_default().to_owned();
    let headers = [bob[0], ("If-Match", &etag)];
    let answer = to.ask(Ask { method: "DELETE", path: &path, headers: &headers, body: b"" })?;
    expect(&answer, &[204], &format!("DELETE {path}"))?;
    for n in seen {
        if !known.present.remove(&n) && known.maybe.remove(&n).is_none() {
            return Err(image.about(&format!("showed signature {n}, which was removed or never sent")));
        }
    }
    tally.removed.add();
    Ok(())
}

/// Hangs up within the body, or after it and before the answer.
fn abandon(
    world: &World,
    tally: &Tally,
    to: &mut Connection,
    image: &Exact,
    random: &mut Random,
) -> Result<(), String> {
    let mut known = image.state.write().unwrap();
    known.writes += 1;
    let Some(n) = known.absent(random.below(image.pool.len()), image.pool.len()) else { return Ok(()) };
    let blob = &image.pool[n];
    let path = image.path("new");
    let headers = [("Authorization", world.bob.as_str())];
    let head = Ask::put(&path, &headers, blob).head(&world.server.address);
    let whole = random.below(2) == 0;
    let sent = if whole { &blob[..] } else { &blob[..blob.len() / 2] };
    if whole {
        known.maybe.insert(n, Instant::now());
    }
    let mut stream = to.fresh().map_err(|e| e.to_string())?;
    stream.write_all(&[head.as_bytes(), sent].concat()).map_err(|e| e.to_string())?;
    tally.abandoned.add();
    Ok(())
}

fn refused(world: &World, tally: &Tally, to: &mut Connection, image: &Exact) -> Result<(), String> {
    let address = signatures(&image.repository, &image.digest);
    let (alice, bob) = (world.alice.as_str(), world.bob.as_str());
    let another = entry(&Digest::sha256(b"another"), &image.pool[0]);
    let long = vec![b'x'; 5 << 20];
    // Signatures of other images, no signatures, no rights: none of it is stored.
    let foreign = &world.model.crowded[0].pool[0];
    let (one, new) = (image.path("1"), image.path("new"));
    for (method, path, authorization, body, wanted) in [
        ("PUT", &new, "", &image.pool[0][..], 401),
        ("DELETE", &one, "", b"", 401),
        ("GET", &one, "", b"", 401),
        ("GET", &address, "", b"", 401),
        ("GET", &address, "Basic YWxpY2U6d3Jvbmc=", b"", 401),
        ("PUT", &address, "Basic YWxpY2U6d3Jvbmc=", &another, 401),
        ("PUT", &address, alice, &another, 400),
        ("PUT", &address, alice, b"{", 400),
        ("PUT", &new, bob, foreign, 400),
        ("PUT", &new, bob, b"\xa3no signature", 400),
        ("PUT", &new, bob, &long, 413),
        ("POST", &one, bob, b"", 405),
        ("GET", &"/lookaside/../etc/passwd".to_owned(), bob, b"", 404),
        ("GET", &image.path("0"), bob, b"", 404),
    ] {
        let headers = [("Authorization", authorization)];
        let headers = if authorization.is_empty() { &[][..] } else { &headers };
        // Who is refused before the body was read may lose the connection.
        to.renew();
        match to.ask(Ask { method, path, headers, body }) {
            Ok(answer) => expect(&answer, &[wanted], &format!("{method} {path}"))?,
            Err(_) if wanted == 413 => {}
            Err(what) => return Err(what),
        }
        tally.refused.add();
    }
    to.renew();
    Ok(())
}

/// The release layout looks through a whole tree; what it shows is a signature of the image.
fn release(world: &World, tally: &Tally, to: &mut Connection, image: &Exact) -> Result<(), String> {
    let path = format!("/lookaside/soak/{}/signature-1", image.digest.path_form());
    let answer = to.ask(Ask::get(&path, &[("Authorization", &world.bob)]))?;
    expect(&answer, &[200, 404], &path)?;
    if answer.status == 200 {
        let _: BTreeSet<usize> = image.recognise(&[answer.body])?;
    }
    tally.releases.add();
    Ok(())
}
