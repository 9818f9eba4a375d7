//! The doctor: walks what podman, skopeo or CRI-O would do for one image on this host, step by
//! step, and explains why it fails and what to change.
//!
//! ```text
//! walk (asks registries, lookasides, the policy) -> steps, observations
//!                                                       |
//!                                     diagnose (pure) -> findings, each with its fix
//! ```
//!
//! Up to the point where a client would stop, the walk does what a client does and in its order.
//! After that it looks around a little more (steps called `probe`), only to tell causes apart.

mod diagnose;
mod finding;
mod fix;
mod observation;
mod report;
mod walk;

pub use diagnose::diagnose;
pub use finding::{Ailment, Finding, Severity};
pub use observation::{
    Judged, KeyFault, LookasideSeen, ManifestSeen, Observations, Paths, PlaceSeen, ReadFailure, ReadOutcome,
    SignatureSeen, SourceSeen, Stop, Untrusted, WriteSeen,
};
pub use report::{Outcome, Report, Step};
pub use walk::{Clients, Given, Walk};
