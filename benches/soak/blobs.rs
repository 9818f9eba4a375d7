//! Blobs and manifests through the proxy, and clients that make trouble with them.

use std::io::{BufReader, Read as _, Write as _};
use std::time::Duration;

use countersign::image::Digest;

use crate::Random;
use crate::connection::{Ask, Connection, read};
use crate::tally::Tally;
use crate::world::World;

const REPOSITORY: &str = "soak/blobs";

/// One of the things that pushes and pulls consist of.
pub fn turn(world: &World, tally: &Tally, to: &mut Connection, random: &mut Random) -> Result<(), String> {
    if random.below(3) == 0 {
        to.renew();
    }
    let n = random.below(world.blobs.len());
    match random.below(10) {
        0..2 => upload(world, tally, to, n),
        2..7 => download(world, tally, to, n),
        _ => manifest(world, tally, to, random),
    }
}

fn upload(world: &World, tally: &Tally, to: &mut Connection, n: usize) -> Result<(), String> {
    let blob = &world.blobs[n];
    let mut uploaded = blob.uploaded.write().unwrap();
    let alice = [("Authorization", world.alice.as_str())];
    let start = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let opened = to.ask(Ask { method: "POST", path: &start, headers: &alice, body: b"" })?;
    let place = opened.header("location").filter(|_| opened.status == 202);
    let place = place.ok_or_else(|| format!("POST {start}: {} {}", opened.status, opened.text()))?;
    let place = place.find("/v2/").map_or(place, |at| &place[at..]);
    let path = format!("{place}&digest={}", blob.digest.to_string().replace(':', "%3A"));
    let done = to.ask(Ask::put(&path, &alice, &blob.bytes))?;
    if done.status != 201 || done.header("docker-content-digest") != Some(&blob.digest.to_string()) {
        return Err(format!("PUT {path}: {} {}", done.status, done.text()));
    }
    *uploaded = true;
    tally.uploads.add();
    Ok(())
}

fn path(digest: &Digest) -> String {
    format!("/v2/{REPOSITORY}/blobs/{digest}")
}

fn download(world: &World, tally: &Tally, to: &mut Connection, n: usize) -> Result<(), String> {
    let blob = &world.blobs[n];
    let uploaded = blob.uploaded.read().unwrap();
    let answer = to.ask(Ask::get(&path(&blob.digest), &[("Authorization", &world.alice)]))?;
    let right = match answer.status {
        200 => answer.body == blob.bytes,
        404 => !*uploaded,
        _ => false,
    };
    if !right {
        let start: String = answer.text().chars().take(200).collect();
        let (got, wanted) = (answer.body.len(), blob.bytes.len());
        return Err(format!("blob {n}: {} with {got} bytes of {wanted}: {start}", answer.status));
    }
    tally.downloads.add();
    Ok(())
}

fn manifest(world: &World, tally: &Tally, to: &mut Connection, random: &mut Random) -> Result<(), String> {
    let image = &world.model.exact[random.below(world.model.exact.len())];
    let path = format!("/v2/{}/manifests/{}", image.repository, image.digest);
    let accept = ("Accept", "application/vnd.docker.distribution.manifest.v2+json");
    let answer = to.ask(Ask::get(&path, &[("Authorization", &world.alice), accept]))?;
    if answer.status != 200 || answer.body != image.manifest {
        return Err(format!("GET {path}: {} {}", answer.status, answer.text()));
    }
    tally.manifests.add();
    Ok(())
}

/// Clients that hang up, that are slow, or that speak no HTTP.
pub fn trouble(world: &World, tally: &Tally, to: &mut Connection, random: &mut Random) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let n = random.below(world.blobs.len());
    let blob = &world.blobs[n];
    let alice = [("Authorization", world.alice.as_str())];
    let path = path(&blob.digest);
    let head = Ask::get(&path, &alice).head(&world.server.address);
    let mut stream = to.fresh().map_err(failed)?;
    match random.below(5) {
        // Hangs up in the middle of a download.
        0 | 1 => {
            stream.write_all(head.as_bytes()).map_err(failed)?;
            // Also none at all: a stop of the whole process interrupts it.
            let _ = stream.read(&mut [0; 512]);
            tally.abandoned.add();
        }
        // And of an upload.
        2 => {
            let start = format!("/v2/{REPOSITORY}/blobs/uploads/");
            let opened = to.ask(Ask { method: "POST", path: &start, headers: &alice, body: b"" })?;
            let place = opened.header("location").unwrap_or_default();
            let place = place.find("/v2/").map_or(place, |at| &place[at..]);
            let path = format!("{place}&digest={}", blob.digest);
            let head = Ask::put(&path, &alice, &blob.bytes).head(&world.server.address);
            stream.write_all(head.as_bytes()).map_err(failed)?;
            stream.write_all(&blob.bytes[..blob.bytes.len() / 2]).map_err(failed)?;
            tally.abandoned.add();
        }
        // Takes its time to ask, and to read.
        3 => {
            let uploaded = blob.uploaded.read().unwrap();
            for piece in head.as_bytes().chunks(16) {
                stream.write_all(piece).map_err(failed)?;
                std::thread::sleep(Duration::from_millis(50));
            }
            std::thread::sleep(Duration::from_millis(500));
            let answer = read(&mut BufReader::with_capacity(1024, stream), "GET").map_err(failed)?;
            if answer.status == 200 && answer.body != blob.bytes || answer.status != 200 && *uploaded {
                return Err(format!("slow GET {path}: {} with {} bytes", answer.status, answer.body.len()));
            }
            tally.slow.add();
        }
        _ => {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").map_err(failed)?;
            let answer = read(&mut BufReader::new(stream), "GET").map_err(failed)?;
            if answer.status != 400 {
                return Err(format!("two hosts: {} {}", answer.status, answer.text()));
            }
            tally.refused.add();
        }
    }
    Ok(())
}
