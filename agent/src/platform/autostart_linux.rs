//! Start at login on a Linux desktop: an entry of the XDG autostart specification.

use std::path::PathBuf;

use crate::config::config_home;

pub(super) fn file() -> Option<PathBuf> {
    Some(config_home()?.join("autostart/ollama-agent.desktop"))
}

pub(super) fn text(words: &[String]) -> String {
    let words = words.iter().map(|word| quoted(word));
    let exec = words.collect::<Vec<_>>().join(" ");
    format!(
        "[Desktop Entry]\nType=Application\nName=Ollama Agent\n\
         Comment=Lends this machine's language models to an Ollama Coordinator\n\
         Exec={exec}\nTerminal=false\nX-GNOME-Autostart-enabled=true\n"
    )
}

/// Quotes a word as `Exec` keys want it: inside quotes as a shell would, then as any value.
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '`' | '$' => {
                text.push_str("\\\\");
                text.push(c);
            }
            '\\' => text.push_str("\\\\\\\\"),
            '%' => text.push_str("%%"),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_starts_the_program_wherever_it_is() {
        let words = [
            "/opt/my $tools/100%/ollama-agent".to_owned(),
            "--config".to_owned(),
        ];

        let text = text(&words);

        let exec = text.lines().find(|line| line.starts_with("Exec=")).unwrap();
        assert_eq!(
            exec,
            r#"Exec="/opt/my \\$tools/100%%/ollama-agent" "--config""#
        );
    }
}
