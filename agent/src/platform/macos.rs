//! macOS and other Unixes: what Linux's `/sys` tells is not known here.

use std::io;

use tokio::net::TcpStream;

use crate::system::GpuReading;

/// Returns nothing: the GPU is part of the processor and its memory is the machine's.
pub(crate) fn graphics_cards() -> Option<Vec<GpuReading>> {
    None
}

/// Does nothing: the system has no such settings for one connection.
pub(crate) fn keep_little_unsent(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// Returns nothing: the app is started with the environment of the desktop.
pub(crate) fn ollama_service_host() -> Option<String> {
    None
}
