//! What the kernel says of a process.

/// A process by its number.
#[derive(Clone, Copy)]
pub struct Process(u32);

impl Process {
    pub fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// Memory in use, in KiB.
    pub fn resident(self) -> usize {
        self.number("VmRSS:")
    }

    /// The most memory that was ever in use, in KiB.
    pub fn peak(self) -> usize {
        self.number("VmHWM:")
    }

    #[allow(dead_code, reason = "not everybody counts threads")]
    pub fn threads(self) -> usize {
        self.number("Threads:")
    }

    /// Open descriptors.
    #[allow(dead_code, reason = "not everybody counts descriptors")]
    pub fn descriptors(self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0)).map_or(0, Iterator::count)
    }

    fn number(self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}
