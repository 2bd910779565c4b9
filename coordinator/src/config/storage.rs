//! Where the coordinator remembers.

use std::path::PathBuf;

use clap::Args;

use super::InvalidConfig;

/// Where to remember.
#[derive(Debug, Clone, Args)]
pub struct StorageArgs {
    /// Directory for the registry [default: ~/.ollama-coordinator; with --dev a temporary one]
    #[arg(long, env = "OLLAMA_COORDINATOR_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Returns `~/.ollama-coordinator`.
pub fn default_data_dir() -> Result<PathBuf, InvalidConfig> {
    home()
        .map(|home| home.join(".ollama-coordinator"))
        .ok_or_else(|| {
            InvalidConfig(
                "HOME is not set, so there is no place for the registry: say --data-dir DIR"
                    .to_owned(),
            )
        })
}

/// Returns the registry of the program that this one replaces, to be imported once.
pub fn import_path() -> Option<PathBuf> {
    home().map(|home| home.join(".llm-router").join("agents.json"))
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}
