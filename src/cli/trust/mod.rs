//! `countersign trust`: Docker Content Trust (Notary v1).

mod fetch;
mod progress;
mod stamp;

use clap::{Args, Subcommand};

use super::output::{Answer, Format};

/// Save what a trust server (Docker Content Trust, Notary v1) has
#[derive(Debug, Args)]
pub struct TrustCommand {
    #[command(subcommand)]
    command: Trust,
}

#[derive(Debug, Subcommand)]
enum Trust {
    /// Copy trust data from a trust server into a folder, byte for byte
    Fetch(Box<fetch::FetchArgs>),
    Stamp(stamp::StampArgs),
}

impl TrustCommand {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        match self.command {
            Trust::Fetch(args) => args.run(format).await,
            Trust::Stamp(args) => args.run(format).await,
        }
    }
}
