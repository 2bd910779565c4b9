//! What differs between operating systems: the same functions in each file, chosen here.

#[cfg(unix)]
#[path = "platform/autostart_file.rs"]
pub(crate) mod autostart;
#[cfg(windows)]
#[path = "platform/autostart_windows.rs"]
pub(crate) mod autostart;
#[cfg(target_os = "linux")]
#[path = "platform/autostart_linux.rs"]
mod autostart_text;
#[cfg(all(unix, not(target_os = "linux")))]
#[path = "platform/autostart_macos.rs"]
mod autostart_text;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(all(unix, not(target_os = "linux")))]
mod macos;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{
    graphics_cards, keep_little_unsent, ollama_service_host, service_entries,
};
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use self::macos::{
    graphics_cards, keep_little_unsent, ollama_service_host, service_entries,
};
#[cfg(unix)]
pub(crate) use self::unix::{create_private_dir, make_private};
#[cfg(windows)]
pub(crate) use self::windows::{
    create_private_dir, graphics_cards, keep_little_unsent, make_private, ollama_service_host,
    service_entries,
};
