//! Completions for shells.

use clap::Args;
use clap_complete::Shell;

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that reads them
    pub shell: Shell,
}

/// Returns what the shell reads.
pub(super) fn render(args: CompletionsArgs, mut command: clap::Command) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut completions = Vec::new();
    clap_complete::generate(args.shell, &mut command, name.as_str(), &mut completions);
    if args.shell == Shell::Bash {
        with_one_label(&String::from_utf8_lossy(&completions), &name).into_bytes()
    } else {
        completions
    }
}

/// For bash, `clap_complete` 4.6 writes the hyphen of a program's name in two ways, so that nothing is
/// completed behind a command.
fn with_one_label(completions: &str, name: &str) -> String {
    completions.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
}
