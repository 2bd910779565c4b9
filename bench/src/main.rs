//! `make bench`: drives the release binaries and prints one table of figures.
//!
//! Every figure that depends on the machine is a ratio against an anchor that is measured next to
//! it in the same run. Read in this order: [`plan`] (what is measured, in which order), [`measures`]
//! (one file per subject), [`load`], [`streams`] and [`client`] (the load generator), [`peers`] and
//! [`upstream`] (what the proxy is compared with, and what stands behind it), [`process`] and
//! [`machine`] (what it costs), [`table`] (how it is shown). Nothing leaves this machine.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ollama_coordinator_common::duration;
use tokio::runtime::{Builder, Runtime};

mod anchor;
mod client;
mod coordinator;
mod fleet;
mod load;
mod machine;
mod measures;
mod peers;
mod plan;
mod process;
mod streams;
mod table;
mod upstream;

/// Measures the coordinator and the agent side by side with anchors.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Less of everything: three minutes instead of eleven, and coarser figures
    #[arg(long)]
    quick: bool,
    /// Only the measures whose subject contains this text
    #[arg(long)]
    only: Option<String>,
    /// How long programs with nothing to do are watched at least, such as 30s [default: 10m with
    /// `--only idle`, else as long as the rest takes]
    #[arg(long, value_parser = duration::parse)]
    idle_for: Option<Duration>,
    /// How many agents the largest fleet has
    #[arg(long, value_name = "AGENTS", value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    largest: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count the instructions of each hot path and compare them with those written down
    Instructions {
        /// Write down what is counted
        #[arg(long)]
        bless: bool,
    },
    /// Serve the anchor for small requests (the benchmark starts this itself)
    #[command(hide = true)]
    Anchor {
        /// Where to listen.
        addr: SocketAddr,
    },
    /// Serve what the proxies are measured in front of (the benchmark starts this itself)
    #[command(hide = true)]
    Upstream {
        /// Where to listen.
        addrs: Vec<SocketAddr>,
    },
}

impl Cli {
    fn scale(&self) -> plan::Scale {
        let usual = plan::Scale::new(self.quick);
        plan::Scale {
            largest: self.largest.unwrap_or(usual.largest),
            ..usual
        }
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    machine::raise_open_files()?;
    match cli.command {
        Some(Command::Anchor { addr }) => Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(anchor::serve(addr)),
        Some(Command::Upstream { addrs }) => one_thread()?.block_on(upstream::serve(&addrs)),
        Some(Command::Instructions { bless }) => {
            let table = one_thread()?.block_on(measures::instructions::measure(bless))?;
            plan::say(&table);
            Ok(())
        }
        None => Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(plan::run(cli.scale(), cli.only.as_deref(), cli.idle_for)),
    }
}

/// Returns a runtime that needs one processor only.
fn one_thread() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
