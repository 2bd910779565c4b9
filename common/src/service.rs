//! The binary as a service of systemd, launchd or Windows: installed, started, stopped, removed.
//!
//! Read in this order: [`place`] (where and for whom), [`plan`] (what is to be done, as a value),
//! [`systemd`], [`launchd`] and [`windows`] (pure: the files and commands of each; [`command_line`] is
//! how Windows has one), [`perform`]
//! (does it, or only shows it), [`installed`] (what is there, for others), [`notify`] (the running
//! service's word to systemd). What a service has stored is never removed.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, Subcommand};

use crate::shutdown::Shutdown;

pub mod command_line;
pub mod installed;
mod launchd;
pub mod notify;
mod perform;
mod place;
mod plan;
mod scm;
mod systemd;
mod windows;

use place::{Manager, Place, Scope};
use plan::{Action, Unit};

/// What may stand between `install` and the flags for the service.
const OWN_FLAGS: [&str; 4] = ["--user", "--system", "--dry-run", "--"];

/// Serves with these flags until the end, and returns the exit code.
pub type Serve = fn(Vec<String>, Shutdown) -> u8;

/// What a binary says about itself as a service.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Its name, also that of the service.
    pub name: &'static str,
    /// What it is, in a few words.
    pub description: &'static str,
    /// The settings that are paths, as in their flags without the dashes, and where each is below
    /// the directory in which the machine's service keeps what it stores.
    pub paths: &'static [(&'static str, &'static str)],
    /// How long it may take to stop.
    pub stops_within: Duration,
    /// Says what a service that is told no more than this would end for at once.
    pub lacks: Lacks,
    /// How Windows starts it.
    pub serve: Serve,
}

/// Says what a service lacks, and what to do.
pub type Lacks = fn(&Told<'_>) -> Option<String>;

/// What a service will be told, besides what it keeps in its own files.
#[derive(Debug)]
pub struct Told<'a> {
    /// Its flags.
    pub flags: &'a ArgMatches,
    /// Variables that its file for settings sets.
    pub variables: BTreeMap<String, String>,
    /// The settings that are paths, when the machine decides them.
    pub paths: BTreeMap<&'static str, String>,
}

impl Product {
    /// Returns the environment variable of a setting.
    fn variable(&self, setting: &str) -> String {
        format!("{}-{setting}", self.name)
            .replace('-', "_")
            .to_ascii_uppercase()
    }
}

/// What is to be done with the service.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Install it, start it, and have it started with the machine
    Install(InstallArgs),
    /// Stop and remove it; what it has stored stays
    Uninstall(TargetArgs),
    /// Start it
    Start(TargetArgs),
    /// Stop it until it is started again, or the machine is
    Stop(TargetArgs),
    /// Show how it is
    Status(TargetArgs),
    /// Print the unit that a package installs
    #[command(hide = true)]
    Unit(UnitArgs),
    /// Run as Windows starts it
    #[command(hide = true)]
    Run(RunArgs),
}

/// Whose service, and whether only to show what would be done.
#[derive(Debug, Args)]
struct TargetArgs {
    /// The service of this user [default: unless root asks, or it is the machine's]
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// The service of this machine
    #[arg(long)]
    system: bool,
    /// Print the files and commands, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl TargetArgs {
    fn scope(&self) -> Option<Scope> {
        match (self.user, self.system) {
            (true, _) => Some(Scope::User),
            (false, true) => Some(Scope::System),
            (false, false) => None,
        }
    }
}

#[derive(Debug, Args)]
struct InstallArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// How the service is to run: the flags of this program, after those of `install`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FLAGS"
    )]
    flags: Vec<String>,
}

#[derive(Debug, Args)]
struct UnitArgs {
    /// Where the package installs the program.
    #[arg(long)]
    program: PathBuf,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Why the service could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The flags for the service cannot be used.
    #[error("the service cannot run like this: {0}")]
    Flags(String),
    /// The service of the machine keeps what it stores where the system says.
    #[error(
        "--{setting} cannot be set for the service of this machine: it keeps everything in {dir}; mount \
         another disk there if it has to be elsewhere"
    )]
    FixedPath {
        /// The setting.
        setting: &'static str,
        /// Where it keeps it.
        dir: String,
    },
    /// A path that would mean another place in the service.
    #[error("--{setting} needs an absolute path: the service runs in another directory")]
    RelativePath {
        /// The setting.
        setting: &'static str,
    },
    /// The service could not see its own program.
    #[error(
        "the service of this machine cannot run {}, because it sees no home and no temporary \
         directory: copy it first, `sudo install {} /usr/local/bin/`, and install the service with \
         that copy",
        program.display(), program.display()
    )]
    HiddenProgram {
        /// The program.
        program: PathBuf,
    },
    /// Windows has no services of a user.
    #[error("Windows has no services of one user; leave --user out")]
    NoUserServices,
    /// There is nobody's service to look at.
    #[error("the home directory is unknown; set HOME, or say --system")]
    HomeUnknown,
    /// This program's own path cannot be found.
    #[error("cannot find out where this program is")]
    ProgramUnknown(#[source] io::Error),
    /// There is no such service.
    #[error("{name} is not installed as a service; `{name} service install` does that")]
    NotInstalled {
        /// Its name.
        name: &'static str,
    },
    /// A package brought the service.
    #[error(
        "{} came with a package, which starts and removes it; put settings into /etc/default/{name} \
         and restart it",
        path.display()
    )]
    Packaged {
        /// Its name.
        name: &'static str,
        /// The package's file.
        path: PathBuf,
    },
    /// Somebody else's file.
    #[error("{} was not written by this program, so it is left alone; remove it by hand", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Nothing here starts services.
    #[error("{program} is not found: there is nothing here that starts services")]
    NoManager {
        /// What was looked for.
        program: &'static str,
    },
    /// Only Windows does this.
    #[error("only Windows starts services like this")]
    NotWindows,
    /// The system's service manager did not take the process for a service.
    #[error("cannot run as a service: {0}")]
    Scm(String),
    /// A file cannot be read, written or removed.
    #[error(
        "cannot {attempt} {}{}", path.display(),
        if source.kind() == io::ErrorKind::PermissionDenied {
            "; the service of the machine is for root (sudo), yours needs --user"
        } else { "" }
    )]
    File {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A command cannot be started.
    #[error("cannot run {command}")]
    Command {
        /// The command.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A command failed; it has said why.
    #[error("`{command}` failed{hint}")]
    Failed {
        /// The command.
        command: String,
        /// Where to look.
        hint: String,
    },
    /// A service was asked to stop and has not.
    #[error("the service has not stopped within {seconds} s; `{command}` shows how it is")]
    StillRuns {
        /// Shows it.
        command: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl ServiceError {
    /// Returns the exit code that the help text promises.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Flags(_)
            | Self::FixedPath { .. }
            | Self::RelativePath { .. }
            | Self::HiddenProgram { .. }
            | Self::NoUserServices
            | Self::NotWindows => 2,
            Self::HomeUnknown
            | Self::ProgramUnknown(_)
            | Self::NotInstalled { .. }
            | Self::Packaged { .. }
            | Self::Foreign { .. }
            | Self::NoManager { .. }
            | Self::Scm(_)
            | Self::File { .. }
            | Self::Command { .. }
            | Self::Failed { .. }
            | Self::StillRuns { .. }
            | Self::Output(_) => 1,
        }
    }
}

/// Does what was asked for with the service of the binary that has this command line.
pub(crate) fn run(
    args: ServiceArgs,
    command: clap::Command,
    product: &Product,
) -> Result<(), ServiceError> {
    let words = env::args_os().map(|word| word.to_string_lossy().into_owned());
    let flags = flags_for_service(&words.collect::<Vec<_>>(), &command);
    let (action, target) = match args.command {
        ServiceCommand::Install(args) => (Action::Install, args.target),
        ServiceCommand::Uninstall(target) => (Action::Uninstall, target),
        ServiceCommand::Start(target) => (Action::Start, target),
        ServiceCommand::Stop(target) => (Action::Stop, target),
        ServiceCommand::Status(target) => (Action::Status, target),
        ServiceCommand::Unit(args) => return print_unit(product, args),
        ServiceCommand::Run(_) => return scm::serve(product, flags),
    };
    let place = Place::find(product, target.scope(), action)?;
    let unit = Unit { product, flags };
    if action == Action::Install {
        unit.check(command, &place, perform::variables(&unit, &place)?)?;
    }
    let found = perform::look(&unit, &place)?;
    let steps = match place.manager {
        Manager::Systemd => systemd::steps(action, &unit, &place, found),
        Manager::Launchd => launchd::steps(action, &unit, &place, found),
        Manager::Windows => windows::steps(action, &unit, &place, found),
    }?;
    if target.dry_run {
        perform::show(&steps)
    } else {
        perform::perform(&steps)
    }
}

/// Returns what stands before `service`, and what follows its command and that command's flags.
///
/// Some flags are the binary's own wherever they stand; they are meant for the service here.
fn flags_for_service(words: &[String], command: &clap::Command) -> Vec<String> {
    let at = position_of_service(words, command);
    let before = words.iter().take(at).skip(1);
    let after = words.iter().skip(at + 2);
    let after = after.skip_while(|word| OWN_FLAGS.contains(&word.as_str()));
    before.chain(after).cloned().collect()
}

/// Returns where `service` is the command, and not what a flag before it is set to.
fn position_of_service(words: &[String], command: &clap::Command) -> usize {
    let mut command = command
        .clone()
        .mut_args(|arg| arg.env(None::<&'static str>));
    let mut is_whole = |words: &[String]| command.try_get_matches_from_mut(words).is_ok();
    let mut places = (1..words.len()).filter(|&at| words.get(at).is_some_and(|w| w == "service"));
    let found = places.find(|&at| words.get(..at).is_some_and(&mut is_whole));
    found.unwrap_or(words.len())
}

fn print_unit(product: &Product, args: UnitArgs) -> Result<(), ServiceError> {
    use io::Write as _;

    let unit = Unit {
        product,
        flags: Vec::new(),
    };
    let text = systemd::packaged(&unit, &args.program);
    Ok(io::stdout().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("x service install", "")]
    #[case("x service install --user --dry-run", "")]
    #[case(
        "x service install --user --state-dir /srv --user",
        "--state-dir /srv --user"
    )]
    #[case("x service install -- --coordinator hub", "--coordinator hub")]
    #[case("x service run --state-dir C:/x", "--state-dir C:/x")]
    #[case("x --coordinator hub service install", "--coordinator hub")]
    #[case(
        "x --coordinator service service install --user --state-dir /srv",
        "--coordinator service --state-dir /srv"
    )]
    fn everything_but_the_commands_own_flags_is_for_the_service(
        #[case] words: &str,
        #[case] flags: &str,
    ) {
        let command = clap::Command::new("x").arg(clap::Arg::new("hub").long("coordinator"));
        let words = words.split(' ').map(str::to_owned).collect::<Vec<_>>();

        let found = flags_for_service(&words, &command);

        assert_eq!(found.join(" "), flags);
    }
}
