//! Does what is to be done, and says so; or only says it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::ServiceError;
use super::place::{Manager, Place};
use super::plan::{Found, MARK, OnFailure, Run, Step, Unit};
use super::windows::SC;

/// How far into a file its mark may be.
const MARKED_WITHIN: usize = 5;

/// Looks what is there already.
pub(super) fn look(unit: &Unit<'_>, place: &Place) -> Result<Found, ServiceError> {
    if place.manager == Manager::Windows {
        return Ok(is_known_to_windows(unit.product.name));
    }
    let is_mark = |line: &str| line.contains(MARK);
    let path = place.file(unit.product);
    match fs::read_to_string(&path) {
        Ok(text) if text.lines().take(MARKED_WITHIN).any(is_mark) => Ok(Found::Ours(text)),
        Ok(_) => Ok(Found::Foreign),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(place
            .packaged(unit.product)
            .map_or(Found::Nothing, Found::Packaged)),
        Err(source) => Err(ServiceError::File {
            attempt: "read",
            path,
            source,
        }),
    }
}

/// Does one step after the other; the first that fails is the last.
pub(super) fn perform(steps: &[Step]) -> Result<(), ServiceError> {
    for step in steps {
        if let Step::Run(run) = step
            && !is_on_path(run.program)
        {
            let program = run.program;
            return Err(ServiceError::NoManager { program });
        }
    }
    steps.iter().try_for_each(perform_one)
}

/// Shows the steps and does nothing.
pub(super) fn show(steps: &[Step]) -> Result<(), ServiceError> {
    Ok(io::stdout().write_all(shown(steps).as_bytes())?)
}

/// Returns the steps as they are shown: files in full, commands as they are typed.
pub(super) fn shown(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        // What is written into a string cannot fail.
        let _infallible = match step {
            Step::Write { path, contents } => {
                writeln!(text, "Write {}:\n\n{contents}", path.display())
            }
            Step::Remove { path } => writeln!(text, "Remove {}", path.display()),
            Step::Run(run) => writeln!(text, "$ {}", typed(run)),
            Step::Say(_) => Ok(()),
        };
    }
    text
}

fn perform_one(step: &Step) -> Result<(), ServiceError> {
    match step {
        Step::Write { path, contents } => {
            say(&format!("Write {}", path.display()))?;
            let dir = path.parent().unwrap_or(Path::new("/"));
            let written = fs::create_dir_all(dir).and_then(|()| fs::write(path, contents));
            written.map_err(|source| ServiceError::File {
                attempt: "write",
                path: path.clone(),
                source,
            })
        }
        Step::Remove { path } => {
            say(&format!("Remove {}", path.display()))?;
            fs::remove_file(path).map_err(|source| ServiceError::File {
                attempt: "remove",
                path: path.clone(),
                source,
            })
        }
        Step::Run(run) => {
            say(&format!("$ {}", typed(run)))?;
            execute(run)
        }
        Step::Say(text) => say(text),
    }
}

fn execute(run: &Run) -> Result<(), ServiceError> {
    let status = Command::new(run.program)
        .args(&run.args)
        .stdin(Stdio::null())
        .status()
        .map_err(|source| ServiceError::Command {
            command: typed(run),
            source,
        })?;
    match &run.on_failure {
        OnFailure::Stop(hint) if !status.success() => Err(ServiceError::Failed {
            command: typed(run),
            hint: hint.clone(),
        }),
        OnFailure::Stop(_) | OnFailure::GoOn => Ok(()),
    }
}

fn say(line: &str) -> Result<(), ServiceError> {
    let mut out = io::stdout();
    Ok(writeln!(out, "{line}").and_then(|()| out.flush())?)
}

fn typed(run: &Run) -> String {
    let words = run.args.iter().map(|word| {
        if word.is_empty() || word.contains([' ', '"', '(', '*']) {
            format!("'{word}'")
        } else {
            word.clone()
        }
    });
    let words = std::iter::once(run.program.to_owned()).chain(words);
    words.collect::<Vec<_>>().join(" ")
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn is_known_to_windows(name: &str) -> Found {
    let queried = Command::new(SC)
        .args(["query", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if queried.is_ok_and(|status| status.success()) {
        Found::Ours(String::new())
    } else {
        Found::Nothing
    }
}
