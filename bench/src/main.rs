//! `make bench`: drives the release binaries and prints one table of figures.
//!
//! Every figure that depends on the machine is a ratio against an anchor that is measured next to
//! it in the same run. Read in this order: [`plan`] (what is measured, in which order), [`measures`]
//! (one file per subject), [`load`] and [`client`] (the load generator), [`process`] and
//! [`machine`] (what it costs), [`table`] (how it is shown). Nothing leaves this machine.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

mod anchor;
mod client;
mod coordinator;
mod fleet;
mod load;
mod machine;
mod measures;
mod plan;
mod process;
mod table;

/// Measures the coordinator and the agent side by side with anchors.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Less of everything: a minute instead of six, and coarser figures
    #[arg(long)]
    quick: bool,
    /// Only the measures whose subject contains this text
    #[arg(long)]
    only: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the anchor for small requests (the benchmark starts this itself)
    #[command(hide = true)]
    Anchor {
        /// Where to listen.
        addr: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    machine::raise_open_files()?;
    match cli.command {
        Some(Command::Anchor { addr }) => anchor::serve(addr).await,
        None => plan::run(plan::Scale::new(cli.quick), cli.only.as_deref()).await,
    }
}
