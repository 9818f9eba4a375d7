//! policy.json: what it says, which part of it speaks of an image, and what follows for the image
//! and its signatures. The one engine that decides whether something may be vouched for.
//!
//! Pure: no cryptography (asked for through [`Mechanism`]), no clock, and no file but the policy
//! itself, at [`Policy::load`] and [`load_default`]. The rules and sentences are those of
//! containers/image (spec containers-image 5).
//!
//! ```text
//! search -> document -> requirement, sigstore, identity       (what the file says)
//!           scope                                             (which part applies)
//!           decision, author -> examine -> mechanism, evidence (what follows)
//! ```

mod author;
mod decision;
mod document;
mod evidence;
mod examine;
mod identity;
mod mechanism;
mod reason;
mod requirement;
mod scope;
mod search;
mod sigstore;

pub use author::{AcceptedAuthor, Refusal, author_accepted};
pub use decision::{Decision, Options, SignatureVerdict, decide};
pub use document::{LoadError, POLICY_LIMIT, Policy, PolicyError};
pub use evidence::{Image, ManifestEvidence, Origin, SignatureBlob, Signatures};
pub use identity::IdentityMatch;
pub use mechanism::{Mechanism, MechanismError, SignedContent};
pub use reason::Reason;
pub use requirement::{KeySource, KeyType, Requirement, SignedBaseLayer, SignedBy};
pub use scope::ScopeMatch;
pub use search::{SearchError, SearchPath, load_default, search_path};
pub use sigstore::{Fulcio, Material, Pki, SigstoreKeys, SigstoreSigned, SigstoreTrust};
