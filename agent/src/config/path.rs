//! Where settings and state are by default.

use std::path::{Path, PathBuf};

const FILE: &str = "settings.toml";

/// Returns a variable that says something.
pub(super) fn environment(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    value.filter(|value| !value.trim().is_empty())
}

/// Returns where this user's settings are, by the rules of the platform.
pub(super) fn default_settings_file() -> Option<PathBuf> {
    Some(config_home()?.join("ollama-agent").join(FILE))
}

/// Returns where this user's programs keep their settings.
pub(crate) fn config_home() -> Option<PathBuf> {
    let absolute = |name| {
        environment(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if cfg!(windows) {
        absolute("APPDATA")
    } else if cfg!(target_os = "macos") {
        Some(home()?.join("Library/Application Support"))
    } else {
        absolute("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")))
    }
}

/// Returns where the agent keeps its state.
pub(super) fn default_state_dir() -> Option<PathBuf> {
    Some(home()?.join(".ollama-coordinator").join("agent"))
}

/// Returns this user's home directory.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home != Path::new(""))
}
