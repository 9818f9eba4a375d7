//! What a command does to its own process before anything else: no memory of it is ever written to
//! a disk, and others do not get rights to its files that they should not have.

use rustix::fs::Mode;
use rustix::process::{self, DumpableBehavior, Resource, Rlimit};

use crate::config::FileMask;

/// Switches core dumps off, for this process and for those that it starts: they would hold keys and
/// passwords. The first step also keeps the user's other processes out of this one's memory.
pub fn no_core_dumps() {
    // Not even a system that pipes dumps to a program gets one.
    if let Err(error) = process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::debug!(%error, "the process stays dumpable");
    }
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = process::setrlimit(Resource::Core, nothing) {
        tracing::debug!(%error, "the limit of core dumps stays as it is");
    }
}

/// Sets the mask of rights for files and folders that are made from now on.
pub fn set_umask(mask: FileMask) {
    process::umask(Mode::from_bits_truncate(mask.bits()));
}

/// Takes away these rights, too, whatever the process was started with.
pub fn add_umask(mask: FileMask) {
    let wanted = Mode::from_bits_truncate(mask.bits());
    let before = process::umask(wanted);
    process::umask(wanted | before);
}
