//! Where skopeo 1.9.3 and we are meant to differ, and why. A difference that is not in this table
//! fails the test; so does a row that is not seen any more.

/// What a case has in it about which the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trait {
    Sha1,
    Ripemd160,
    ShortKey,
    Trailing,
    OnePassFlag,
    Critical,
    Subkey,
    Armour,
    Later,
    NoAtomic,
    EmptyKeyPath,
}

/// Which of the two accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    Skopeo,
    Countersign,
}

/// The table.
pub const EXPLAINED: &[(Trait, Accepts, &str)] = &[
    (Trait::Sha1, Accepts::Skopeo, "gpg 2.2 accepts SHA-1 data signatures; we do with --allow-weak only (spec 4.3)"),
    (Trait::Ripemd160, Accepts::Skopeo, "gpg accepts RIPEMD-160; x/crypto and Sequoia do not, nor do we (spec 4.3)"),
    (Trait::ShortKey, Accepts::Skopeo, "gpg accepts RSA keys of 1024 bits; we do with --allow-weak only (spec 4.3)"),
    (
        Trait::Trailing,
        Accepts::Skopeo,
        "gpg ignores what follows a compressed packet; a second message there is a forger's (spec 4.3)",
    ),
    (
        Trait::OnePassFlag,
        Accepts::Skopeo,
        "the last octet of a lone one-pass packet promises another; x/crypto refuses it too (spec 4.3)",
    ),
    (
        Trait::Critical,
        Accepts::Skopeo,
        "gpg knows some critical subpackets that x/crypto refuses; a document's signature needs none of them (spec 4.3)",
    ),
    (
        Trait::Armour,
        Accepts::Skopeo,
        "gpgme takes armour and cleartext where no format is detected first; the format's description forbids both (spec 4.3)",
    ),
    (
        Trait::Later,
        Accepts::Countersign,
        "members of sigstoreSigned that came after 2022 (spec 9); we reject when evaluating",
    ),
    (
        Trait::NoAtomic,
        Accepts::Skopeo,
        "Debian's skopeo does not know the transport, so it does not check its scopes (spec 5.2)",
    ),
    (
        Trait::EmptyKeyPath,
        Accepts::Skopeo,
        "an empty keyPath of sigstoreSigned is refused at reading since 2024-08 (spec 5.2, 9)",
    ),
    (
        Trait::Subkey,
        Accepts::Countersign,
        "clients before 2025-07-22 compare the subkey's own fingerprint with the policy's primary ones; later ones, like us, map it to its primary (spec 4.4)",
    ),
];
