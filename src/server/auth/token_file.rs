//! Named tokens of a file: `name:token`, or `name:` and the token's SHA-256 in 64 hex digits.

use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest as _, Sha256};

use crate::server::auth::reloading_file::{CredentialsFileError, ReloadingFile, entries};

/// A shorter token can be guessed.
const LEAST_LENGTH: usize = 16;

/// A name and the SHA-256 of its token.
type Named = (String, [u8; 32]);

/// One token file.
pub(crate) struct TokenFile {
    tokens: ReloadingFile<Vec<Named>>,
}

impl TokenFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { tokens: ReloadingFile::new(path, parse) }
    }

    /// Reads the file, to find what is wrong with it.
    ///
    /// # Errors
    /// [`CredentialsFileError`].
    pub(crate) fn check(&self) -> Result<(), CredentialsFileError> {
        self.tokens.get().map(drop)
    }

    /// Finds whose token this is. Every entry is compared, each in constant time.
    ///
    /// # Errors
    /// [`CredentialsFileError`] when nobody can be checked.
    pub(crate) fn whose(&self, token: &[u8]) -> Result<Option<String>, CredentialsFileError> {
        let tokens = self.tokens.get()?;
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (name, known) in tokens.iter() {
            if verify_slices_are_equal(known, &hash).is_ok() {
                found = Some(name);
            }
        }
        Ok(found.cloned())
    }
}

fn parse(text: &str) -> Result<Vec<Named>, (usize, String)> {
    let mut tokens: Vec<Named> = Vec::new();
    for (line, entry) in entries(text) {
        let Some((name, token)) = entry else { return Err((line, "it is no `name:token`".to_owned())) };
        let mut hash = [0; 32];
        if hex::decode_to_slice(token, &mut hash).is_err() {
            if token.len() < LEAST_LENGTH || !token.bytes().all(|b| b.is_ascii_graphic()) {
                let reason = format!("the token of {name:?} must have {LEAST_LENGTH} or more visible ASCII characters");
                return Err((line, reason));
            }
            hash = Sha256::digest(token).into();
        }
        if let Some((other, _)) = tokens.iter().find(|(_, known)| *known == hash) {
            return Err((line, format!("the token of {name:?} is {other:?}'s too, so nobody could tell who writes")));
        }
        tokens.push((name.to_owned(), hash));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_their_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let hashed = hex::encode(Sha256::digest("another-long-token"));
        std::fs::write(&path, format!("# ours\nci:a-token:with-colons\nrobot:{hashed}\n")).unwrap();
        let file = TokenFile::new(&path);
        assert_eq!(file.whose(b"a-token:with-colons"), Ok(Some("ci".to_owned())));
        assert_eq!(file.whose(b"another-long-token"), Ok(Some("robot".to_owned())));
        for wrong in [&b""[..], b"a-token", hashed.as_bytes(), b"a-token:with-colons\n"] {
            assert_eq!(file.whose(wrong), Ok(None));
        }
        std::fs::write(&path, "ci:rotated-rotated-rotated\n").unwrap();
        assert_eq!(file.whose(b"a-token:with-colons"), Ok(None));
    }

    #[test]
    fn says_what_is_wrong_without_the_token() {
        for (text, said) in [
            ("ci", "no `name:token`"),
            (":0123456789abcdef", "no `name:token`"),
            ("ci:short-secret", "16 or more"),
            ("ci:secret with a space in it", "16 or more"),
            ("ci:secret-secret-secret\nx:secret-secret-secret", "\"ci\"'s too"),
        ] {
            let (_, reason) = parse(text).unwrap_err();
            assert!(reason.contains(said) && !reason.contains("secret"), "{text}: {reason}");
        }
    }
}
