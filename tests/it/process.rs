//! What the server does to its own process, and which rights its files get.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use countersign::image::Digest;

use crate::support::client::text;
use crate::support::http;
use crate::support::server::Server;

const TOKEN: &str = "writer-token-of-many-letters";

/// Starts a server by a shell with this umask.
fn serve(umask: &str, args: &[&str]) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", "umask \"$1\"; shift; exec \"$@\"", "sh", umask, env!("CARGO_BIN_EXE_countersign")]);
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(args);
    Server::of(command)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Stores a signature below `repository` and tells the rights of the new file, of its folders, and of
/// the audit log.
fn modes(umask: &str, config: &str, args: &[&str], repository: &str) -> (u32, Vec<u32>, u32) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: String| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        text(&path).to_owned()
    };
    let tokens = write("tokens", format!("ci:{TOKEN}\n"));
    let (store, audit) = (folder.path().join("store"), folder.path().join("audit.jsonl"));
    let config = config.replace("TOKENS", &format!("{{token: {tokens}}}"));
    let config = write("c.yaml", format!("{config}\ngate: {{mode: off}}\naudit_log: {}\n", text(&audit)));
    let server = serve(umask, &[&["--store", text(&store), "--config", &config], args].concat());
    let set = format!("{repository}@{}", Digest::sha256(b"image").path_form());
    let path = format!("/lookaside/{set}/signature-new?token={TOKEN}");
    let answer = http::request(&server.address, "PUT", &path, &[], b"\xc2 signature");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let file = store.join(set).join("signature-1");
    let folders = file.ancestors().skip(1).take_while(|above| above.starts_with(&store)).map(mode).collect();
    (mode(&file), folders, mode(&audit))
}

#[test]
fn others_cannot_read_on_the_disk_what_is_not_for_everybody() {
    let secret = "access:\n  write: [TOKENS]\n  namespaces: {secret/: {read: [TOKENS]}}";
    let open = "access: {write: [TOKENS]}";
    assert_eq!(modes("022", open, &[], "a/b"), (0o644, vec![0o755; 3], 0o640), "as before");
    assert_eq!(modes("022", secret, &[], "secret/b"), (0o640, vec![0o750; 3], 0o640));
    assert_eq!(modes("022", &format!("{secret}\numask: \"022\""), &[], "secret/b"), (0o644, vec![0o755; 3], 0o640));
    assert_eq!(modes("000", &format!("{open}\numask: \"077\""), &[], "a/b"), (0o600, vec![0o700; 3], 0o600));
    let args = ["--umask", "027"];
    assert_eq!(modes("077", &format!("{open}\numask: \"022\""), &args, "a/b"), (0o640, vec![0o750; 3], 0o640));
    assert_eq!(modes("077", secret, &[], "secret/b"), (0o600, vec![0o700; 3], 0o600), "never looser than it was");
}

#[test]
fn a_mask_that_is_none_is_refused() {
    for (mask, said) in [("27", "three octal digits"), ("700", "from the owner"), ("rwx", "three octal digits")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        let output = command.args(["serve", "--umask", mask]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains(said), "{mask}: {error}");
    }
}

#[test]
fn no_core_is_dumped_and_the_server_can_still_look_at_itself() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // As nobody, too, to whom /proc of such a process belongs no more.
    for user in [None, Some("65534")] {
        let mut command = Command::new(if user.is_some() { "setpriv" } else { env!("CARGO_BIN_EXE_countersign") });
        if let Some(user) = user {
            let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()];
            command.args(ids).arg(env!("CARGO_BIN_EXE_countersign"));
        }
        let store = folder.path().join(user.unwrap_or("root"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store", text(&store)]);
        if user.is_some() && (rustix::process::geteuid().as_raw() != 0 || !may_run_as_nobody()) {
            eprintln!("SKIPPED: nobody else can run the program here");
            continue;
        }
        let server = Server::of(command);
        let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
        let metrics = http::get(&server.admin(), "/metrics").text();
        for name in ["process_open_fds ", "process_max_fds ", "process_resident_memory_bytes ", "process_cpu_seconds"] {
            assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} for {user:?}: {metrics}");
        }
    }
}

/// The folders above the program may be root's own.
fn may_run_as_nobody() -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_countersign"), "--version"]);
    command.output().is_ok_and(|output| output.status.success())
}

/// An ext4 file system that takes upper and lower case for the same, where the kernel has one.
struct Casefolded(tempfile::TempDir);

impl Casefolded {
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let image = disk.0.path().join("image");
        let folder = disk.folder();
        fs::create_dir(&folder).unwrap();
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let run = |program: &str, args: &[&str]| {
            Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
        };
        let mounted = run("mkfs.ext4", &["-q", "-O", "casefold", "-E", "encoding=utf8", text(&image)])
            && run("mount", &["-o", "loop", text(&image), text(&folder)])
            && run("chattr", &["+F", text(&folder)]);
        if !mounted {
            eprintln!("SKIPPED: no casefolded ext4 can be mounted here (the kernel needs CONFIG_UNICODE)");
        }
        mounted.then_some(disk)
    }

    fn folder(&self) -> std::path::PathBuf {
        self.0.path().join("disk")
    }
}

impl Drop for Casefolded {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder()).output();
    }
}

#[test]
fn a_file_system_without_case_is_refused() {
    let Some(disk) = Casefolded::mount() else { return };
    for to in ["", "below"] {
        let store = disk.folder().join(to);
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        let output = command.args(["serve", "--listen", "127.0.0.1:0", "--store", text(&store)]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains("upper and lower case"), "{error}");
    }
}
