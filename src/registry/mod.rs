//! The client side of registries and of http lookasides.
//!
//! [`RegistryClient`] talks to any number of registries: it pings, authenticates (Basic, Bearer
//! tokens), fetches manifests and lists, and reads and writes the signature extension.
//! [`LookasideReader`] reads signatures from web servers. Both follow containers/image's docker
//! transport, to its error sentences (spec containers-image 2, 3).

mod attachments;
mod authorization;
mod challenge;
mod client;
mod connection;
mod credentials;
mod deposit;
mod error;
mod extension;
mod fetch;
mod helper;
pub mod http;
mod insecure;
mod listing;
mod lookaside;
mod manifests;
mod own_certificate;
mod pace;
mod patience;
mod proxy_connector;
mod secret;
mod time_stamp;
mod tls;
mod token;
mod trust;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod faults;

pub use challenge::{Challenge, Realm, challenges, parse_challenges, realms};
pub use client::{CredentialSource, RegistryClient, RegistryOptions};
pub use connection::{Ping, SUPPORTS_SIGNATURES, announces_signatures};
pub use credentials::{AuthFiles, CredentialsError};
pub use deposit::{Deposit, DepositError};
pub use error::{CallError, ConnectError, Refusal, RegistryError, SignatureListError};
pub use extension::{ExtensionSignature, LIST_LIMIT, Uploaded, parse_signature_list};
pub use fetch::{FetchError, redact, redact_text};
pub use helper::HelperError;
pub use lookaside::{LookasideError, LookasideReader, SIGNATURE_LIMIT};
pub use manifests::{FetchedManifest, Selector, refuses_head};
pub use pace::Pace;
pub use secret::{Credential, Secret};
pub use tls::{CertificatesError, ClientIdentity, HostCertificates, system_roots};
pub use token::{TokenError, bearer_token};
pub use trust::{TrustAnswer, TrustLogin, TrustServer};
