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
#[cfg(target_os = "linux")]
mod sockets_linux;
#[cfg(not(target_os = "linux"))]
mod sockets_unlisted;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{
    clipboards, graphics_cards, keep_little_unsent, ollama_service_host, opener, service_entries,
};
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use self::macos::{
    clipboards, graphics_cards, keep_little_unsent, ollama_service_host, opener, service_entries,
};
#[cfg(target_os = "linux")]
pub(crate) use self::sockets_linux::is_of_another_user;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::sockets_unlisted::is_of_another_user;
#[cfg(unix)]
pub(crate) use self::unix::{
    clipboard_bytes, create_private_dir, leave_console, make_private, output,
};
#[cfg(windows)]
pub(crate) use self::windows::{
    clipboard_bytes, clipboards, create_private_dir, graphics_cards, keep_little_unsent,
    leave_console, make_private, ollama_service_host, opener, output, service_entries,
};
