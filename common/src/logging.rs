//! Structured logs on standard error; levels by `RUST_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line per event, coloured on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Starts logging for this process. A second call in one process changes nothing.
///
/// # Errors
/// `RUST_LOG` is set and cannot be read.
pub fn init(format: LogFormat) -> Result<(), InvalidLogFilter> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.trim().is_empty() => {
            EnvFilter::try_new(&text).map_err(|source| InvalidLogFilter { text, source })?
        }
        Ok(_) | Err(_) => EnvFilter::new("info"),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let already_started = match format {
        LogFormat::Human => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(colours_wanted())
                    .with_target(false),
            )
            .try_init()
            .is_err(),
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .with_writer(std::io::stderr),
            )
            .try_init()
            .is_err(),
    };
    if already_started {
        tracing::debug!("Logging was started before");
    }
    Ok(())
}

/// `RUST_LOG` is not a list of filters such as `info,ollama_agent=debug`.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is `{text}`, which is not a list of filters such as `info,ollama_agent=debug`")]
pub struct InvalidLogFilter {
    text: String,
    source: tracing_subscriber::filter::ParseError,
}

fn colours_wanted() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
