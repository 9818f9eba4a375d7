//! Docker Content Trust (Notary v1): fetching what a trust server has, byte for byte, before it is gone.
//!
//! Nothing is verified here but what keeps a copy whole: lengths and hashes that the metadata itself
//! states. Signatures, thresholds and expiry are judged later, over the copy.
//!
//! A repository is called by its GUN, the full name with its host (`us.icr.io/birds/bluebird`). Its
//! files lie in a folder as notary clients ask a static web server for them: `{gun}/_trust/tuf/root.json`,
//! by name, by hash (`snapshot.{sha256}.json`) and by version (`3.root.json`) (spec notary-dct 1, 2, 6).

mod current;
mod fetch;
mod folder;
mod gun;
mod guns;
mod job;
mod journal;
mod manifest;
mod metadata;
mod problem;
mod roots;

pub use fetch::FetchOptions;
pub use folder::{FileRecord, FolderError, GunRecord, State};
pub use gun::{Gun, GunError};
pub use guns::{GunListError, guns_in_client_folder, guns_in_list};
pub use job::{FAILURES_LIMIT, Fetch, Totals};
pub use journal::{Journal, JournalError};
pub use manifest::{MANIFEST, Manifest, ManifestError, keep_stamp, stamp_of, write_manifest};
pub use metadata::{Kind, Metadata, MetadataError, Named};
pub use problem::{Problem, ProblemKind};
