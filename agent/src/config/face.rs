//! `--tray` and `--no-tray`: which face the agent is asked to show.

use clap::builder::BoolishValueParser;

use super::path::environment;
use crate::face::{self, Face, Process};
use crate::platform;

/// What flags and environment say.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct FaceArgs {
    /// Show an icon in the tray [default: when started from a desktop]
    #[arg(
        long,
        env = "OLLAMA_AGENT_TRAY",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        overrides_with = "no_tray"
    )]
    tray: Option<bool>,

    /// Show no icon in the tray
    #[arg(long, overrides_with = "tray")]
    no_tray: bool,

    /// Started by the desktop at a login, so that nobody waits to see it
    #[arg(long, hide = true)]
    at_login: bool,
}

/// What started the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartedBy {
    /// A person or a service manager, as far as is known.
    Somebody,
    /// The desktop, at a login.
    Login,
}

impl FaceArgs {
    /// Returns the face of this process.
    pub(super) fn face(self) -> Face {
        let process = Process {
            system: std::env::consts::OS,
            id: std::process::id(),
            output: platform::output(),
        };
        face::choose(self.asked(), process, environment)
    }

    /// Returns what started this process.
    pub(super) fn started_by(self) -> StartedBy {
        if self.at_login {
            StartedBy::Login
        } else {
            StartedBy::Somebody
        }
    }

    fn asked(self) -> Option<Face> {
        if self.no_tray {
            return Some(Face::CommandLine);
        }
        let face = |tray| if tray { Face::Tray } else { Face::CommandLine };
        self.tray.map(face)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use rstest::rstest;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        face: FaceArgs,
    }

    #[rstest]
    #[case("", None)]
    #[case("--tray", Some(Face::Tray))]
    #[case("--tray=true", Some(Face::Tray))]
    #[case("--tray=off", Some(Face::CommandLine))]
    #[case("--no-tray", Some(Face::CommandLine))]
    #[case("--tray --no-tray", Some(Face::CommandLine))]
    #[case("--no-tray --tray", Some(Face::Tray))]
    fn last_flag_wins(#[case] flags: &str, #[case] expected: Option<Face>) {
        let parsed =
            Alone::parse_from(["ollama-agent"].into_iter().chain(flags.split_whitespace()));

        assert_eq!(parsed.face.asked(), expected);
    }
}
