//! Start at login on macOS: an agent of the user's own launchd.

use std::path::PathBuf;

use crate::config::home;

const LABEL: &str = "ollama-coordinator.agent";

pub(super) fn file() -> Option<PathBuf> {
    let file = format!("Library/LaunchAgents/{LABEL}.plist");
    Some(home()?.join(file))
}

pub(super) fn text(words: &[String]) -> String {
    let words = words
        .iter()
        .map(|word| format!("    <string>{}</string>\n", escaped(word)));
    let words: String = words.collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n  <key>Label</key>\n  <string>{LABEL}</string>\n  \
         <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n  \
         <key>RunAtLoad</key>\n  <true/>\n  \
         <key>ProcessType</key>\n  <string>Interactive</string>\n</dict>\n</plist>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
