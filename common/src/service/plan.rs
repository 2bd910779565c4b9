//! What is to be done with a service, as a value: the same on every system, shown or performed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;

use super::place::{Manager, Place, Scope};
use super::{Product, ServiceError, Told};

/// The first words of every file that `install` writes; `uninstall` removes no other.
pub(super) const MARK: &str = "Written by `";

/// Beyond what the binary takes at most to stop.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// What a service of the machine cannot see.
const HIDDEN_FROM_SERVICES: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Install and start.
    Install,
    /// Stop and remove.
    Uninstall,
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// Show.
    Status,
}

/// What is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// What `install` wrote, with these contents where there is a file.
    Ours(String),
    /// Somebody else's file.
    Foreign,
    /// A package's service.
    Packaged(PathBuf),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this file.
    Write {
        /// Where.
        path: PathBuf,
        /// What.
        contents: String,
    },
    /// Remove this file.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Run this command.
    Run(Run),
    /// Wait until the service has stopped.
    Wait(Wait),
    /// Say this when all before it is done.
    Say(String),
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The program.
    pub(super) program: &'static str,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// Whether it matters.
    pub(super) on_failure: OnFailure,
}

/// Waiting for a stop that a command has only begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    /// Asks how the service is.
    pub(super) ask: Run,
    /// What it answers in the end.
    pub(super) until: Until,
    /// How long it may take.
    pub(super) within: Duration,
}

/// What stands for a service that has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The answer has this word in it.
    Says(&'static str),
    /// There is no such service any more, so that asking fails.
    Fails,
}

/// What a command's failure means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// The end; where to look for the reason.
    Stop(String),
    /// Nothing.
    GoOn,
}

impl Run {
    /// Returns a command that has to succeed.
    pub(super) fn new(program: &'static str, args: &[&str]) -> Self {
        Self {
            program,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            on_failure: OnFailure::Stop(String::new()),
        }
    }

    /// Says where to look when it fails.
    pub(super) fn or_see(mut self, hint: String) -> Self {
        self.on_failure = OnFailure::Stop(format!("; see {hint}"));
        self
    }

    /// Its failure means that there was nothing to do.
    pub(super) fn or_go_on(mut self) -> Self {
        self.on_failure = OnFailure::GoOn;
        self
    }
}

/// The service as it is to be.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    /// Of which binary.
    pub(super) product: &'a Product,
    /// How it runs.
    pub(super) flags: Vec<String>,
}

impl Unit<'_> {
    /// Returns how long a stop may take before the service manager ends the process.
    pub(super) fn stops_within(&self) -> Duration {
        self.product.stops_within + STOP_MARGIN
    }

    /// Returns what says who wrote a file.
    pub(super) fn mark(&self) -> String {
        let name = self.product.name;
        format!("{MARK}{name} service install`, which replaces it, and `uninstall` removes it.")
    }

    /// Checks the flags as the service itself will read them, so without this process's
    /// environment, that the service can use its program and its directory, and that with its own
    /// `variables` it lacks nothing.
    pub(super) fn check(
        &self,
        command: clap::Command,
        place: &Place,
        variables: BTreeMap<String, String>,
    ) -> Result<(), ServiceError> {
        let name = self.product.name;
        let mut command = command
            .color(clap::ColorChoice::Never)
            .mut_args(|arg| arg.env(None::<&'static str>));
        let words = std::iter::once(name).chain(self.flags.iter().map(String::as_str));
        let matches = command
            .try_get_matches_from_mut(words)
            .map_err(|error| ServiceError::Flags(first_words(&error)))?;
        if let Some(subcommand) = matches.subcommand_name() {
            let reason = format!("`{subcommand}` is a command, not a flag");
            return Err(ServiceError::Flags(reason));
        }
        for &(setting, _below) in self.product.paths {
            let is_it = |arg: &&clap::Arg| arg.get_long() == Some(setting);
            let Some(id) = command.get_arguments().find(is_it).map(clap::Arg::get_id) else {
                continue;
            };
            if matches.value_source(id.as_str()) != Some(ValueSource::CommandLine) {
                continue;
            }
            if place.scope == Scope::System {
                let dir = place.system_state(self.product.name);
                return Err(ServiceError::FixedPath { setting, dir });
            }
            if matches
                .get_one::<PathBuf>(id.as_str())
                .is_some_and(|path| path.is_relative())
            {
                return Err(ServiceError::RelativePath { setting });
            }
        }
        visible(place)?;
        let paths = match place.scope {
            Scope::System => place.system_paths(self.product).into_iter().collect(),
            Scope::User => BTreeMap::new(),
        };
        let flags = &matches;
        let told = Told {
            flags,
            variables,
            paths,
        };
        match (self.product.lacks)(&told) {
            Some(lack) => Err(ServiceError::Flags(lack)),
            None => Ok(()),
        }
    }
}

/// Returns what is wrong with flags, without what is said of the whole command line.
fn first_words(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text = text.split("\n\nUsage:").next().unwrap_or(text);
    let text = text
        .split("\n\nFor more information")
        .next()
        .unwrap_or(text);
    text.trim_end().to_owned()
}

fn visible(place: &Place) -> Result<(), ServiceError> {
    let is_below = |dir: &&str| place.program.starts_with(Path::new(*dir));
    let is_hidden = HIDDEN_FROM_SERVICES.iter().any(is_below);
    if (place.manager, place.scope) == (Manager::Systemd, Scope::System) && is_hidden {
        return Err(ServiceError::HiddenProgram {
            program: place.program.clone(),
        });
    }
    Ok(())
}

/// Refuses what must not be done with what is there.
pub(super) fn refuse(
    action: Action,
    unit: &Unit<'_>,
    (place, found): (&Place, &Found),
) -> Result<(), ServiceError> {
    let name = unit.product.name;
    match (found, action) {
        (Found::Packaged(path), Action::Install | Action::Uninstall) => {
            let path = path.clone();
            Err(ServiceError::Packaged { name, path })
        }
        (Found::Foreign, Action::Install | Action::Uninstall) => Err(ServiceError::Foreign {
            path: place.file(unit.product.name),
        }),
        (Found::Nothing, Action::Uninstall | Action::Start | Action::Stop | Action::Status) => {
            Err(ServiceError::NotInstalled { name })
        }
        (Found::Nothing, Action::Install)
        | (Found::Ours(_), _)
        | (Found::Foreign | Found::Packaged(_), Action::Start | Action::Stop | Action::Status) => {
            Ok(())
        }
    }
}

/// Returns what is said after an installation.
pub(super) fn installed(unit: &Unit<'_>, found: &Found, contents: &str) -> String {
    let name = unit.product.name;
    match found {
        Found::Ours(before) if before == contents => {
            format!("{name} was installed already, just like this; it runs.")
        }
        Found::Ours(_) => format!("{name} was installed already; it runs with the new flags."),
        Found::Nothing | Found::Foreign | Found::Packaged(_) => {
            format!("{name} is installed and runs.")
        }
    }
}

/// Returns what is said after a removal.
pub(super) fn removed(unit: &Unit<'_>, place: &Place) -> String {
    let name = unit.product.name;
    match place.scope {
        Scope::System => {
            let dir = place.system_state(unit.product.name);
            format!("{name} is removed. What it has stored stays in {dir}.")
        }
        Scope::User => format!("{name} is removed. What it has stored stays."),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use clap::{Arg, Command, value_parser};
    use rstest::rstest;

    use super::super::place::tests::place;
    use super::*;

    /// A binary like ours.
    pub(in super::super) const PRODUCT: Product = Product {
        name: "ollama-agent",
        description: "Ollama Coordinator agent",
        paths: &[("state-dir", ""), ("config", "settings.toml")],
        stops_within: Duration::from_secs(31),
        lacks: |told| {
            let is_told = told.flags.contains_id("coordinator")
                || told.variables.contains_key("OLLAMA_AGENT_COORDINATOR");
            (!is_told).then(|| "--coordinator is missing".to_owned())
        },
        serve: |_flags, _shutdown| 0,
    };

    /// Makes the service with these flags.
    pub(in super::super) fn unit(flags: &[&str]) -> Unit<'static> {
        Unit {
            product: &PRODUCT,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        }
    }

    fn command() -> Command {
        Command::new("ollama-agent")
            .args_conflicts_with_subcommands(true)
            .arg(Arg::new("coordinator").long("coordinator"))
            .arg(
                Arg::new("state_dir")
                    .long("state-dir")
                    .value_parser(value_parser!(PathBuf)),
            )
            .arg(
                Arg::new("file")
                    .long("config")
                    .value_parser(value_parser!(PathBuf)),
            )
            .subcommand(Command::new("man"))
    }

    fn check(flags: &[&str], scope: Scope, program: &str) -> Result<(), ServiceError> {
        let mut place = place(Manager::Systemd, scope);
        place.program = PathBuf::from(program);
        unit(flags).check(command(), &place, BTreeMap::new())
    }

    #[test]
    fn what_the_services_own_variables_say_does_not_lack() {
        let variables = [("OLLAMA_AGENT_COORDINATOR".to_owned(), "hub".to_owned())];
        let place = place(Manager::Systemd, Scope::System);

        let checked = unit(&[]).check(command(), &place, BTreeMap::from(variables));

        checked.unwrap();
    }

    #[test]
    fn flags_that_the_binary_takes_are_taken() {
        for scope in [Scope::User, Scope::System] {
            check(&["--coordinator", "hub"], scope, "/usr/local/bin/x").unwrap();
        }
        let flags = ["--coordinator=hub", "--state-dir=/srv/agent"];
        check(&flags, Scope::User, "/home/me/bin/x").unwrap();
    }

    #[rstest]
    #[case(&[], Scope::User, "/x", "--coordinator")]
    #[case(&["--coordinater=hub"], Scope::User, "/x", "--coordinater")]
    #[case(&["man"], Scope::User, "/x", "`man` is a command")]
    #[case(&["--coordinator=hub", "--state-dir=here"], Scope::User, "/x", "absolute path")]
    #[case(&["--coordinator=hub", "--state-dir=/srv"], Scope::System, "/x", "/var/lib/ollama-agent")]
    #[case(&["--coordinator=hub", "--config=a.toml"], Scope::User, "/x", "--config needs")]
    #[case(&["--coordinator=hub"], Scope::System, "/home/me/x", "sudo install /home/me/x")]
    #[case(&["--coordinator=hub"], Scope::System, "/tmp/x", "copy it first")]
    fn what_the_service_could_not_run_with_is_refused(
        #[case] flags: &[&str],
        #[case] scope: Scope,
        #[case] program: &str,
        #[case] reason: &str,
    ) {
        let error = check(flags, scope, program).unwrap_err();

        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(reason), "{error}");
    }

    #[rstest]
    #[case(Action::Install, &Found::Nothing, true)]
    #[case(Action::Install, &Found::Foreign, false)]
    #[case(Action::Install, &Found::Packaged("/usr/lib/x".into()), false)]
    #[case(Action::Uninstall, &Found::Nothing, false)]
    #[case(Action::Uninstall, &Found::Ours(String::new()), true)]
    #[case(Action::Uninstall, &Found::Foreign, false)]
    #[case(Action::Uninstall, &Found::Packaged("/usr/lib/x".into()), false)]
    #[case(Action::Start, &Found::Nothing, false)]
    #[case(Action::Start, &Found::Foreign, true)]
    #[case(Action::Stop, &Found::Packaged("/usr/lib/x".into()), true)]
    #[case(Action::Status, &Found::Nothing, false)]
    fn only_what_install_wrote_is_changed(
        #[case] action: Action,
        #[case] found: &Found,
        #[case] may: bool,
    ) {
        let place = place(Manager::Systemd, Scope::System);

        let refused = refuse(action, &unit(&[]), (&place, found));

        assert_eq!(refused.is_ok(), may, "{refused:?}");
    }
}
