//! What the doctor can find: each ailment with a stable name for machines.

use serde::{Serialize, Serializer};

/// Whether an ailment is why a client fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A client fails because of it.
    Fails,
    /// Clients go on, but somebody should know.
    Note,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub ailment: Ailment,
    /// Whether it is why a client fails.
    pub severity: Severity,
    /// What is wrong, where, in one or two sentences.
    pub sentence: String,
    /// Lines to paste; comments in them say where.
    pub fix: String,
}

macro_rules! ailments {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// What the doctor knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Ailment {
            $($(#[$doc])* $variant,)*
        }

        impl Ailment {
            /// Every ailment.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the name for machines, which does not change.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

ailments! {
    /// There is no policy.json.
    PolicyMissing => "policy-missing",
    /// policy.json cannot be read.
    PolicyInvalid => "policy-invalid",
    /// registries.d cannot be read, which fails all docker images.
    RegistriesDInvalid => "registries-d-invalid",
    /// registries.conf cannot be read, or gives an impossible name.
    RegistriesConfInvalid => "registries-conf-invalid",
    /// registries.conf blocks the registry.
    RegistryBlocked => "registry-blocked",
    /// No answer to the ping.
    RegistryUnreachable => "registry-unreachable",
    /// The registry speaks plain http, and may not.
    RegistryPlainHttp => "registry-plain-http",
    /// The registry's certificate is not trusted.
    RegistryCertificate => "registry-certificate-not-trusted",
    /// The registry has no such manifest, or does not give it.
    ManifestUnavailable => "manifest-unavailable",
    /// The list has no image for this platform.
    NoInstance => "no-instance-for-platform",
    /// The extension's header makes clients overlook the configured lookaside.
    ExtensionHidesLookaside => "extension-hides-lookaside",
    /// The extension's header is only on answers to those who are logged in.
    HeaderMissingOn401 => "header-missing-on-401",
    /// The extension's header has another value than `1`.
    HeaderValue => "header-value-not-1",
    /// The extension's list cannot be read.
    ExtensionFails => "extension-fails",
    /// A lookaside answers 403 for what is not there.
    LookasideForbidden => "lookaside-forbidden",
    /// A lookaside answers with a web page.
    LookasideHtml => "lookaside-html",
    /// A lookaside answers 200 with nothing.
    LookasideEmptyBody => "lookaside-empty-body",
    /// A lookaside answers with something else that is no signature.
    LookasideNotASignature => "lookaside-not-a-signature",
    /// A lookaside answers with another status than 200 and 404.
    LookasideStatus => "lookaside-unexpected-status",
    /// A lookaside does not answer.
    LookasideUnreachable => "lookaside-unreachable",
    /// A file of a lookaside cannot be read.
    LookasideUnreadable => "lookaside-unreadable",
    /// A lookaside's URL cannot be used.
    LookasideUrl => "lookaside-url-unusable",
    /// A lookaside's base ends in a slash, and the signatures are where it would not.
    LookasideDoubledSlash => "lookaside-doubled-slash",
    /// The policy wants a sigstore signature, and clients do not look for one.
    AttachmentsNotUsed => "attachments-not-used",
    /// The image has no sigstore signature.
    AttachmentMissing => "attachment-missing",
    /// The sigstore attachments cannot be read.
    AttachmentsUnreadable => "attachments-unreadable",
    /// The signature is for the repository, and the policy wants the tag.
    SignedWithoutTag => "signed-without-tag",
    /// A lookaside has no end.
    LookasideEndless => "lookaside-too-many-signatures",
    /// No lookaside is configured, so an empty folder of this host is looked into.
    LookasideNotConfigured => "lookaside-not-configured",
    /// The folder that signing would write to cannot be written.
    DefaultLookasideUnwritable => "default-lookaside-unwritable",
    /// Signatures lie under another path than the mirror's.
    MirrorPathDiffers => "mirror-path-differs",
    /// The list is signed, its member is not.
    InstanceNotSigned => "instance-not-signed",
    /// There is no signature.
    NotSigned => "not-signed",
    /// The signer's key has expired.
    KeyExpired => "key-expired",
    /// The signer's key is revoked.
    KeyRevoked => "key-revoked",
    /// The signer's key is not in the keyring.
    KeyMissing => "key-missing",
    /// The signer's key may not sign for another reason.
    KeyUnusable => "key-unusable",
    /// The keyring cannot be read.
    KeyringUnreadable => "keyring-unreadable",
    /// The keyring has no key.
    KeyringEmpty => "keyring-empty",
    /// The signature has expired.
    SignatureExpired => "signature-expired",
    /// The signature uses cryptography that is refused.
    SignatureWeak => "signature-weak",
    /// The signature is broken.
    SignatureBroken => "signature-broken",
    /// A subkey signed, which older clients refuse.
    SubkeySignature => "subkey-signature",
    /// The policy has a scope for this image that never matches.
    ScopeNeverMatches => "scope-never-matches",
    /// The signature is for the name under an old domain.
    OldDomain => "old-domain",
    /// The signature is for another name.
    OtherName => "signed-for-another-name",
    /// The signature is for another manifest.
    OtherDigest => "signed-for-another-digest",
    /// The policy rejects the image whatever its signatures.
    RejectedByPolicy => "rejected-by-policy",
    /// The policy accepts the image whatever its signatures.
    NotVerified => "signatures-not-required",
}

impl Serialize for Ailment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl std::fmt::Display for Ailment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_for_machines() {
        let mut names: Vec<_> = Ailment::ALL.iter().map(|ailment| ailment.name()).collect();
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Ailment::ALL.len());
    }
}
