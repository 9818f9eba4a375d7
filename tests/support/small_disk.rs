//! A small file system of a test's own, to be filled or made read-only.

use std::path::Path;
use std::process::Command;

/// A small file system of its own, gone with the test.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not allowed; says so loudly.
    pub fn mount(kib: usize) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(disk.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("SKIPPED: no tmpfs can be mounted here, so no disk can be filled");
        }
        mounted.then_some(disk)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn grow(&self, kib: usize) {
        self.remount(&format!("size={kib}k"));
    }

    /// Takes away the right to write, or gives it back.
    pub fn read_only(&self, yes: bool) {
        self.remount(if yes { "ro" } else { "rw" });
    }

    fn remount(&self, option: &str) {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.path()).status();
        assert!(mounted.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}
