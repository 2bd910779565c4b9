//! The command line: settings, and what to do instead of serving.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStr, Resettable};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser};

use super::face::{FaceArgs, StartedBy};
use super::{Args, Given, Origin, Setting};
use crate::commands::Command;
use crate::face::Face;

/// What is said where a coordinator is needed and nobody names one.
pub const MISSING_COORDINATOR: &str = "\
no coordinator is given, so there is nobody to register with

  flag:         ollama-agent --coordinator http://192.168.1.10:11400
  environment:  OLLAMA_AGENT_COORDINATOR=http://192.168.1.10:11400
  in a browser: ollama-agent --panel 11401

  The address is printed by `ollama-coordinator` when it starts.";

/// The command that takes the settings, too.
const DOCTOR: &str = "doctor";

const AFTER_HELP: &str = "\
Examples:
  ollama-agent --coordinator http://192.168.1.10:11400
  ollama-agent --coordinator gpu-hub --runtime 127.0.0.1:8080 --machine-name gpu-02
  ollama-agent config show --origin
  ollama-agent doctor
  ollama-agent service install --coordinator http://192.168.1.10:11400

A flag wins over its environment variable, that wins over the settings file, that wins over the
default. A variable that is set to nothing counts as not set.

The agent's identity (an id and a secret) lives in agent.json in the state directory. Keep the
directory and the machine stays the same agent; remove it and the machine joins as a new one.
Never copy it to another machine.

The coordinator is reached through the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names, unless
NO_PROXY excepts it or it is on this machine or its network. The runtime is always reached directly.

OLLAMA_NUM_PARALLEL, when it is set as for Ollama, says how many requests Ollama serves at once.

Durations are written as 500ms, 5s, 2m or a number of seconds. Log levels are set by RUST_LOG.

Exit status: 0 stopped as asked, 1 unexpected failure, 2 unusable flag or setting,
3 no registration within --register-max-attempts, or no agent to ask; status: not connected, 4 status: no
agent runs; doctor: something is broken, 6 another agent uses the state directory, 7 status: the runtime
does not answer.
";

/// Registers this machine's model runtime (Ollama, or any server with the OpenAI API) with an
/// Ollama Coordinator and keeps it registered.
///
/// The agent looks at the runtime and says how it is; it never changes the runtime's models or
/// settings. It waits for a coordinator or runtime that is not there yet, and comes back by itself
/// when either was away. The coordinator's requests come over a connection that the agent opens, so
/// no port has to be opened here.
#[derive(Debug, Parser)]
#[command(name = "ollama-agent", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// How to serve.
    #[command(flatten)]
    pub settings: Args,

    /// The settings file; it need not exist [default: settings.toml in the user's `ollama-agent`
    /// configuration directory]
    #[arg(
        long = "config",
        env = "OLLAMA_AGENT_CONFIG",
        value_name = "FILE",
        global = true
    )]
    pub settings_file: Option<PathBuf>,

    /// How to be seen.
    #[command(flatten)]
    pub face: FaceArgs,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What a process was asked to do.
#[derive(Debug)]
pub struct Invocation {
    /// What to do instead of serving.
    pub command: Option<Command>,
    /// The settings, as far as flags and environment say them.
    pub given: Given,
    /// How to be seen while serving.
    pub face: Face,
    /// What started it.
    pub started_by: StartedBy,
}

impl Cli {
    /// Reads these flags, and the environment.
    ///
    /// # Errors
    /// Help or version was asked for, or a value is unusable; print it and use its exit code.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
        // The variables are read once, by the flags of the program itself.
        let mut command = deaf_to_empty_variables(Self::command())
            .mut_subcommand(DOCTOR, |doctor| {
                doctor.mut_args(|arg| arg.env(Resettable::Reset))
            });
        let matches = command.try_get_matches_from_mut(arguments)?;
        let said_after = matches.subcommand_matches(DOCTOR);
        let said_by = Setting::ALL.into_iter().filter_map(|setting| {
            let after = said_after.and_then(|matches| origin(setting, matches));
            Some((setting, after.or_else(|| origin(setting, &matches))?))
        });
        let said_by = said_by.collect::<BTreeMap<_, _>>();
        let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let settings = match &cli.command {
            Some(Command::Doctor(doctor)) => doctor.settings.clone().or(cli.settings),
            Some(_) | None => cli.settings,
        };
        let file = cli.settings_file;
        Ok(Invocation {
            command: cli.command,
            given: Given::new(settings, said_by, file),
            face: cli.face.face(),
            started_by: cli.face.started_by(),
        })
    }
}

/// A variable that is set to nothing says nothing: service files and shells make such ones.
fn deaf_to_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.to_string_lossy().trim().is_empty())
    };
    command
        .mut_args(|arg| {
            if is_empty(&arg) {
                arg.env(Resettable::<OsStr>::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(deaf_to_empty_variables)
}

fn origin(setting: Setting, matches: &ArgMatches) -> Option<Origin> {
    let source = matches.value_source(setting.key())?;
    if source == ValueSource::CommandLine {
        Some(Origin::Flag)
    } else if source == ValueSource::EnvVariable {
        Some(Origin::Environment(setting.variable()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_worth_reading() {
        let help = Cli::command()
            .term_width(100)
            .render_long_help()
            .to_string();

        insta::assert_snapshot!(without_environment(&help));
    }

    #[test]
    fn every_setting_has_the_flag_and_the_variable_of_its_name() {
        let command = Cli::command();
        for setting in Setting::ALL {
            let arg = command
                .get_arguments()
                .find(|arg| arg.get_id() == setting.key());
            let arg = arg.unwrap();

            assert_eq!(format!("--{}", arg.get_long().unwrap()), setting.flag());
            assert_eq!(arg.get_env().unwrap(), setting.variable().as_str());
        }
    }

    /// Help shows the values of variables that happen to be set: `[env: NAME=value]`.
    fn without_environment(help: &str) -> String {
        let lines = help.lines().map(|line| match line.split_once("[env: ") {
            Some((before, rest)) => {
                let name = rest.split(['=', ']']).next().unwrap_or_default();
                format!("{before}[env: {name}]")
            }
            None => line.trim_end().to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
