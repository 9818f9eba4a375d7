//! Which keys sign which new name.

use std::sync::Arc;

use crate::image::Reference;
use crate::openpgp::{Keyring, Signer};

/// A key ready to sign, and its own certificate to know its signatures again.
#[derive(Clone)]
pub struct SigningKey {
    /// Signs.
    pub signer: Arc<dyn Signer>,
    /// Verifies what the signer made.
    pub own: Keyring,
}

/// The keys of a job.
#[derive(Clone, Default)]
pub struct Keys {
    /// Sign every name that no route covers.
    pub general: Vec<SigningKey>,
    /// Keys for names at or below a prefix.
    pub routes: Vec<(String, SigningKey)>,
}

impl Keys {
    /// Returns the keys that sign a new name: those of the longest prefix that covers it at a path
    /// boundary, or else the general ones.
    pub fn for_name(&self, name: &Reference) -> Vec<&SigningKey> {
        let repository = name.repository().as_str();
        let covers =
            |prefix: &str| repository.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let longest = self
            .routes
            .iter()
            .map(|(prefix, _)| prefix.as_str())
            .filter(|prefix| covers(prefix))
            .max_by_key(|p| p.len());
        match longest {
            Some(longest) => self.routes.iter().filter(|(prefix, _)| prefix == longest).map(|(_, key)| key).collect(),
            None => self.general.iter().collect(),
        }
    }
}
