//! The icon in a real panel's tray on a display without a screen, asked and clicked over D-Bus.

mod clicks;
mod desktop;
mod item;
mod presence;
