//! Sentences that name the clients which refuse what others accept. Where the table of
//! spec containers-image 4.3 says "accept" although one mechanism refuses, every acceptance
//! carries one of them.

/// Says that clients with x/crypto refuse it, and why.
pub(super) fn x_crypto_refuses(why: &str) -> String {
    format!("clients built with the containers_image_openpgp tag (x/crypto), such as oc-mirror, refuse this: {why}")
}

/// Says that clients with Sequoia refuse it, and why.
pub(super) fn sequoia_refuses(why: &str) -> String {
    format!("clients built with the containers_image_sequoia tag refuse this: {why}")
}
