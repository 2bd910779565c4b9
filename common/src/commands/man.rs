//! Man pages, one for the binary and one for each of its commands.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

/// Flags and variables are not cut into halves.
const UNBROKEN: &str = ".nh\n.ad l\n";

/// Where the pages go.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write the pages of all commands into this directory instead
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Returns the page of the binary.
pub(super) fn render(command: Command) -> io::Result<Vec<u8>> {
    page(&Man::new(built(command)))
}

/// Writes the pages of the binary and its commands.
pub(super) fn write_all(command: Command, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    write(&built(command), dir)
}

fn write(command: &Command, dir: &Path) -> io::Result<()> {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for subcommand in shown {
        write(subcommand, dir)?;
    }
    let man = Man::new(command.clone());
    fs::write(dir.join(man.get_filename()), page(&man)?)
}

/// Gives every command its full name; each has a page, so `help` has none.
fn built(command: Command) -> Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

fn page(man: &Man) -> io::Result<Vec<u8>> {
    let mut roff = Vec::new();
    man.render(&mut roff)?;
    Ok(as_written(&String::from_utf8_lossy(&roff)).into_bytes())
}

/// Keeps indented lines as they are: examples are to be typed.
fn as_written(roff: &str) -> String {
    let mut page = String::new();
    let mut is_indented = false;
    for line in roff.lines() {
        if line.starts_with(' ') != is_indented {
            page.push_str(if is_indented { ".fi\n" } else { ".nf\n" });
            is_indented = !is_indented;
        }
        page.push_str(line);
        page.push('\n');
        if line.starts_with(".TH ") {
            page.push_str(UNBROKEN);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_stay_as_they_are_written() {
        let page = as_written(".TH x 1\nExamples:\n  x --one\n  x --two\nMore.\n");

        assert_eq!(
            page,
            ".TH x 1\n.nh\n.ad l\nExamples:\n.nf\n  x --one\n  x --two\n.fi\nMore.\n"
        );
    }
}
