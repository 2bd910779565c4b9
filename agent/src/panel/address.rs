//! Where the panel is, for commands of the same user: `panel.json` in the state directory.

use std::io;
use std::path::Path;

use ollama_coordinator_common::atomic_file;
use serde::{Deserialize, Serialize};

const FILE: &str = "panel.json";

/// What the file says; deliberately without `Debug` for the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanelFile {
    /// The panel's URL, without a path.
    pub url: String,
    /// What programs show there, as long as this process runs.
    pub token: String,
    /// The agent's process.
    pub pid: u32,
}

impl std::fmt::Debug for PanelFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PanelFile({}, process {})", self.url, self.pid)
    }
}

impl PanelFile {
    /// Reads it; `None`: no agent with a panel has left one.
    ///
    /// # Errors
    /// It exists and cannot be read.
    pub fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(state_dir.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Leaves it, for the owner only.
    pub(crate) fn leave(&self, state_dir: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        atomic_file::write(&state_dir.join(FILE), &json)
    }

    /// Takes it away, also that of a process which could not.
    pub(crate) fn remove(state_dir: &Path) {
        if let Err(error) = std::fs::remove_file(state_dir.join(FILE))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "The panel's address stays in the state directory");
        }
    }
}
