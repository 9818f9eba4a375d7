//! Bodies made to exhaust: endless, nested, packed, or too many. Memory is measured.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use countersign::image::Digest;

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::keys;
use crate::support::process::Process;
use crate::support::registry_api::{entry, listed, push_image, signatures};
use crate::support::server::Server;

const REPOSITORY: &str = "birds/bluebird";
const TOKEN: &str = "writer-token-of-many-letters";
const GIB: usize = 1 << 30;

struct World {
    server: Server,
    host: Host,
    digest: Digest,
    _registry: DockerRegistry,
}

impl World {
    fn new(gate: &str) -> Self {
        let registry = DockerRegistry::start();
        let digest = Digest::sha256(&push_image(registry.address(), REPOSITORY, &[], "one"));
        let host = Host::new(Path::new("/nonexistent"));
        let tokens = host.write("tokens", format!("ci:{TOKEN}\n"));
        let policy = host.signed_by_policy("policy.json", &keys::public("alice"));
        let gate = gate.replace("POLICY", text(&policy));
        let config = format!("access: {{write: [{{token: {}}}]}}\ngate: {gate}\n", text(&tokens));
        let config = host.write("c.yaml", config);
        let store = host.path().join("store");
        let args = ["--store", text(&store), "--config", text(&config), "--upstream", &registry.url()];
        Self { server: Server::start(&args), host, digest, _registry: registry }
    }

    fn address(&self) -> &str {
        &self.server.address
    }

    fn process(&self) -> Process {
        Process::of(self.server.pid())
    }

    fn path(&self, last: &str) -> String {
        format!("/lookaside/{REPOSITORY}@{}/signature-{last}", self.digest.path_form())
    }

    fn put(&self, body: &[u8]) -> http::Answer {
        http::request(self.address(), "PUT", &signatures(REPOSITORY, &self.digest), &[], body)
    }

    fn put_plainly(&self, blob: &[u8]) -> http::Answer {
        http::request(self.address(), "PUT", &self.path(&format!("new?token={TOKEN}")), &[], blob)
    }

    fn lives(&self) {
        assert_eq!(http::get(self.address(), "/").status, 200);
        let log = self.server.log();
        assert!(!log.contains("panicked") && log.len() < 1 << 20, "{}", &log[..log.len().min(2000)]);
    }
}

/// Sends a gibibyte, unless it is stopped; returns how much went, and the answer.
fn flood(address: &str, path: &str, framing: &str) -> (usize, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let heard = std::thread::spawn(move || {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: {address}\r\n{framing}\r\n\r\n").unwrap();
    let chunk = if framing.contains("chunked") {
        [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat()
    } else {
        vec![b' '; 0x10000]
    };
    let mut sent = 0;
    while sent < GIB && !heard.is_finished() && stream.write_all(&chunk).is_ok() {
        sent += 0x10000;
    }
    let _ = stream.shutdown(Shutdown::Both);
    (sent, heard.join().unwrap())
}

#[test]
fn a_gibibyte_is_not_read() {
    let world = World::new("{mode: claim}");
    let paths = [signatures(REPOSITORY, &world.digest), world.path(&format!("new?token={TOKEN}"))];
    assert_eq!(world.put(b"{}").status, 400);
    let before = world.process().resident();
    for path in &paths {
        for framing in [format!("Content-Length: {GIB}"), "Transfer-Encoding: chunked".to_owned()] {
            let floods: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| flood(world.address(), path, &framing))).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            for (sent, answer) in floods {
                // Of an announced gibibyte not a byte is wanted; what is under way fills buffers.
                assert!(sent < 64 << 20, "{framing}: {sent} bytes were taken");
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{framing}: {answer}");
            }
        }
    }
    // Who waits for the answer before it sends more is told.
    for path in &paths {
        let mut stream = TcpStream::connect(world.address()).unwrap();
        write!(stream, "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {GIB}\r\n\r\n").unwrap();
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 413 "), "{:?}", String::from_utf8_lossy(&answer));
    }
    let grown = world.process().peak().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more than before");
    world.lives();
}

#[test]
fn json_bombs() {
    const MOST: usize = 6 * 1024 * 1024;
    let world = World::new("{mode: claim}");
    assert_eq!(world.put(b"{}").status, 400);
    let before = world.process().resident();
    let many = |one: &str| one.repeat((MOST - 100) / one.len());
    let keys: String = (0..350_000).map(|n| format!("\"k{n}\":{n},")).collect();
    let nested = |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let digest = &world.digest;
    let with = |more: &str| format!("{{\"schemaVersion\":2,\"name\":\"{digest}@a\",\"content\":\"owA=\",{more}}}");
    let bombs: Vec<(&str, Vec<u8>)> = vec![
        ("arrays that never end", many("[").into_bytes()),
        ("objects that never end", many("{\"a\":").into_bytes()),
        ("deep arrays beside the rest", with(&format!("\"x\":{}", nested("[", "]", 2_000_000))).into_bytes()),
        ("deep objects beside the rest", with(&format!("\"x\":{}", nested("{\"a\":[", "]}", 700_000))).into_bytes()),
        ("a number of six million digits", format!("{{\"schemaVersion\":{}}}", many("9")).into_bytes()),
        ("a fraction without end", format!("{{\"schemaVersion\":2.{}1}}", "0".repeat(MOST - 100)).into_bytes()),
        ("an exponent", with("\"schemaVersion\":1e999999999999").into_bytes()),
        ("many exponents", with(&format!("\"x\":[{}0]", "1e999999,".repeat(500_000))).into_bytes()),
        ("many members", with(&format!("{keys}\"z\":0")).into_bytes()),
        ("one member again and again", with(&format!("{}\"z\":0", "\"name\":\"x\",".repeat(400_000))).into_bytes()),
        ("escapes", format!("{{\"content\":\"{}\"}}", many("\\u0041")).into_bytes()),
        ("a name of megabytes", with(&format!("\"name\":\"{}\"", "é".repeat(MOST / 3))).into_bytes()),
        ("content of megabytes", with(&format!("\"content\":\"{}\"", "o".repeat(5 << 20))).into_bytes()),
        ("a type of megabytes", with(&format!("\"type\":\"{}\"", "\u{1F600}".repeat(MOST / 5))).into_bytes()),
        ("a string that never ends", many("\"").into_bytes()),
        ("no text", vec![0xff; MOST - 1]),
        ("nothing but space", many(" ").into_bytes()),
    ];
    for (what, bomb) in &bombs {
        assert!(bomb.len() <= MOST, "{what}");
        let begun = Instant::now();
        let answer = world.put(bomb);
        assert_eq!(answer.status, 400, "{what}: {}", &answer.text()[..answer.body.len().min(500)]);
        assert_eq!(answer.json()["errors"][0]["code"], "SIGNATURE_INVALID", "{what}");
        assert!(answer.body.len() < 64 << 10, "{what}: {} bytes of reason", answer.body.len());
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {:?}", begun.elapsed());
    }
    let grown = world.process().peak().saturating_sub(before);
    // A body, its text, what was taken out of it; a few times six mebibytes in all.
    assert!(grown < 96 << 10, "{grown} KiB more than before");
    world.lives();
}

/// A packet of the new format with a length of four bytes.
fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&[0xC0 | tag, 0xFF], length.to_be_bytes().as_slice(), body].concat()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(vec![2], flate2::Compression::best());
    out.write_all(body).unwrap();
    packet(8, &out.finish().unwrap())
}

/// Messages that say little and unpack to much.
fn packed_bombs() -> Vec<(&'static str, Vec<u8>)> {
    const MUCH: usize = 256 << 20;
    // A literal of so many zeros, then nothing: no reader knows before it has read them.
    let head = [&[0xC0 | 11, 0xFF], u32::try_from(MUCH + 6).unwrap().to_be_bytes().as_slice(), b"b\0\0\0\0\0"].concat();
    let zeros = vec![0; 1 << 20];
    let fill = |out: &mut dyn std::io::Write| {
        out.write_all(&head).unwrap();
        (0..MUCH >> 20).for_each(|_| out.write_all(&zeros).unwrap());
    };
    let mut deflate = flate2::write::DeflateEncoder::new(vec![1], flate2::Compression::best());
    fill(&mut deflate);
    let mut inflated = flate2::write::ZlibEncoder::new(vec![2], flate2::Compression::best());
    fill(&mut inflated);
    let mut bzip = bzip2::write::BzEncoder::new(vec![3], bzip2::Compression::best());
    fill(&mut bzip);
    let (deflate, inflated, bzip) = (deflate.finish().unwrap(), inflated.finish().unwrap(), bzip.finish().unwrap());
    let once = packet(8, &bzip);
    let mut deep = once.clone();
    (0..500).for_each(|_| deep = zlib(&deep));
    let markers = zlib(&packet(10, b"PGP").repeat(1_000_000));
    vec![
        ("deflate", packet(8, &deflate)),
        ("zlib", packet(8, &inflated)),
        ("bzip2", once.clone()),
        ("packed twice", zlib(&once)),
        ("packed five hundred times", deep),
        ("a million small packets", markers),
    ]
}

#[test]
fn openpgp_bombs_at_the_gate_and_on_the_command_line() {
    let bombs = packed_bombs();
    for gate in ["{mode: claim}", "{policy: POLICY}"] {
        let world = World::new(gate);
        assert_eq!(world.put(&entry(&world.digest, b"\xa3x")).status, 400);
        let before = world.process().resident();
        for (what, bomb) in &bombs {
            assert!(bomb.len() < 2 << 20, "{what}: {} bytes", bomb.len());
            let begun = Instant::now();
            for answer in [world.put(&entry(&world.digest, bomb)), world.put_plainly(bomb)] {
                assert!([400, 403].contains(&answer.status), "{what}: {answer:?}");
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
        }
        let grown = world.process().peak().saturating_sub(before);
        assert!(grown < 64 << 10, "{gate}: {grown} KiB more than before");
        assert_eq!(http::get(world.address(), &world.path("1")).status, 404);
        world.lives();
    }
    let host = Host::new(Path::new("/nonexistent"));
    let policy = host.signed_by_policy("policy.json", &keys::public("alice"));
    let manifest = host.write("manifest.json", b"{\"schemaVersion\":2}");
    for (what, bomb) in &bombs {
        let file = host.write("bomb", bomb);
        let verify = ["verify", "r.example/x:1", "--manifest", text(&manifest), "--signature", text(&file)];
        let verify = [&verify[..], &["--policy", text(&policy)]].concat();
        for args in [&verify[..], &["inspect", text(&file)]] {
            // More than enough for the program, and less than what is in a bomb.
            let limited = Command::new("sh")
                .args(["-c", "ulimit -d 150000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_countersign")])
                .args(args)
                .env("HOME", host.path())
                .output();
            let ran = Ran::of(limited.unwrap());
            assert!(matches!(ran.code, Some(1 | 2)), "{what}: {ran:?}");
            assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("memory allocation"), "{what}: {ran:?}");
        }
    }
}

#[test]
fn ten_thousand_signatures_of_one_image_are_served_and_no_more_taken() {
    let world = World::new("{mode: off}");
    let folder = world.host.path().join(format!("store/{REPOSITORY}@{}", world.digest.path_form()));
    std::fs::create_dir_all(&folder).unwrap();
    let blob = |n: usize| {
        let mut blob = format!("\u{3}{n}").into_bytes();
        blob[0] = 0xa3;
        blob.resize(560, b'.');
        blob
    };
    let write = |n: usize| std::fs::write(folder.join(format!("signature-{n}")), blob(n)).unwrap();
    (1..=10_000).for_each(write);
    let get = |last: &str| http::get(world.address(), &world.path(last));
    for n in [1, 2, 127] {
        assert_eq!(get(&n.to_string()).body, blob(n));
    }
    // Clients take a 128th for a fault.
    for n in ["128", "10000", "10001"] {
        assert_eq!(get(n).status, 404, "{n}");
    }
    let path = signatures(REPOSITORY, &world.digest);
    let list = http::get(world.address(), &path);
    let found = listed(&list);
    assert!(list.body.len() < 4 << 20 && found.len() > 3000, "{} in {} bytes", found.len(), list.body.len());
    assert_eq!(found[..], (1..=found.len()).map(blob).collect::<Vec<_>>());

    for answer in [world.put_plainly(b"\xa3more"), world.put(&entry(&world.digest, b"\xa3more"))] {
        assert!(answer.status == 403 && answer.text().contains("signatures already"), "{answer:?}");
    }
    assert_eq!(world.put_plainly(&blob(9_999)).status, 204);
    // One more than is ever read: nobody is told that there are none.
    write(10_001);
    std::thread::sleep(Duration::from_secs(6));
    let deadline = Instant::now() + Duration::from_secs(10);
    while get("1").status == 200 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(get("1").status, 503);
    assert_eq!(http::get(world.address(), &path).status, 503);
    let told = world.put_plainly(b"\xa3more");
    assert!(told.status == 403 && told.text().contains("10000 signatures"), "{told:?}");
    world.lives();
}

#[test]
fn what_breaks_off_is_not_stored() {
    let world = World::new("{mode: off}");
    for path in [signatures(REPOSITORY, &world.digest), world.path(&format!("new?token={TOKEN}"))] {
        for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
            let body = if framing.contains("chunked") { "5\r\n\u{7f}half\r\n" } else { "\u{7f}half" };
            let mut half = TcpStream::connect(world.address()).unwrap();
            half.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            write!(half, "PUT {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}").unwrap();
            half.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            let ended = half.read_to_string(&mut answer);
            assert!(ended.is_ok() || answer.is_empty(), "{ended:?}");
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{path} {framing}: {answer}");
        }
    }
    assert_eq!(http::get(world.address(), &world.path("1")).status, 404);
    assert!(!world.host.path().join("store/birds").exists());
    world.lives();
}

#[test]
fn no_path_leads_out_when_writing() {
    let world = World::new("{mode: off}");
    world.host.write("secret@sha256=x/signature-1", "secret");
    let hex = world.digest.hex();
    let set = |name: &str| format!("/lookaside/{name}@sha256={hex}");
    for folder in [
        set(".."),
        set("../x"),
        set("x/../../y"),
        set("%2e%2e/x"),
        set("%2E%2E%2Fx"),
        set("x%2fy"),
        set("x%5c..%5cy"),
        set("x%00"),
        set("x%0a"),
        set("."),
        set("./x"),
        set("x%20y"),
        set("%C3%A9"),
        set("e%CC%81"),
        set("%E2%80%AE"),
        set("%FF"),
        set("%"),
        set("%zz"),
        set("x#y"),
        set(&"n".repeat(300)),
        set(&"n/".repeat(2100)),
        set(&"%41".repeat(1000)),
        format!("/lookaside/x@sha256={hex}/../../y@sha256={hex}"),
        format!("/lookaside/x@sha512={hex}"),
        "/lookaside/../secret@sha256=x".to_owned(),
    ] {
        for (method, last) in
            [("PUT", "1"), ("PUT", "new"), ("DELETE", "1"), ("PUT", "1%23"), ("PUT", "../signature-1")]
        {
            let path = format!("{folder}/signature-{last}?token={TOKEN}");
            let answer = http::request(world.address(), method, &path, &[], b"\xa3x");
            let shown = &path[..path.len().min(120)];
            assert!((400..500).contains(&answer.status), "{method} {shown}: {answer:?}");
            let told = answer.text();
            assert!(!told.contains(text(world.host.path())), "{method} {shown}: {told}");
        }
    }
    let names: Vec<_> = std::fs::read_dir(world.host.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    assert_eq!(std::fs::read(world.host.path().join("secret@sha256=x/signature-1")).unwrap(), b"secret");
    let store = world.host.path().join("store");
    let left: Vec<_> = std::fs::read_dir(&store).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    // The same address in another spelling is the same set.
    for same in [format!("/lookaside//x@sha256={hex}"), format!("/lookaside/x%40sha256%3D{hex}")] {
        let answer =
            http::request(world.address(), "PUT", &format!("{same}/signature-new?token={TOKEN}"), &[], b"\xa3x");
        assert!([201, 204].contains(&answer.status), "{same}: {answer:?}");
    }
    assert_eq!(std::fs::read_dir(&store).unwrap().count(), 1);
    world.lives();
}
