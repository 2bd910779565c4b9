//! Does what is to be done, and says so; or only says it.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::ServiceError;
use super::place::{Manager, Place, Scope};
use super::plan::{Found, MARK, OnFailure, Run, Step, Unit, Until, Wait};
use super::windows::SC;

/// How far into a file its mark may be.
const MARKED_WITHIN: usize = 5;
/// How long a service that is stopping is left alone before it is asked again.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(250);

/// Looks what is there already.
pub(super) fn look(unit: &Unit<'_>, place: &Place) -> Result<Found, ServiceError> {
    if place.manager == Manager::Windows {
        return Ok(is_known_to_windows(unit.product.name));
    }
    let is_mark = |line: &str| line.contains(MARK);
    let path = place.file(unit.product.name);
    match fs::read_to_string(&path) {
        Ok(text) if text.lines().take(MARKED_WITHIN).any(is_mark) => Ok(Found::Ours(text)),
        Ok(_) => Ok(Found::Foreign),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(place
            .packaged(unit.product.name)
            .map_or(Found::Nothing, Found::Packaged)),
        Err(source) => Err(ServiceError::File {
            attempt: "read",
            path,
            source,
        }),
    }
}

/// Reads the variables that systemd reads for the machine's service.
pub(super) fn variables(
    unit: &Unit<'_>,
    place: &Place,
) -> Result<BTreeMap<String, String>, ServiceError> {
    if (place.manager, place.scope) != (Manager::Systemd, Scope::System) {
        return Ok(BTreeMap::new());
    }
    let path = Path::new("/etc/default").join(unit.product.name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(assignments(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(ServiceError::File {
            attempt: "read",
            path,
            source,
        }),
    }
}

fn assignments(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with(['#', ';']));
    let pairs = lines.filter_map(|line| line.split_once('='));
    let unquoted = |value: &str| value.trim().trim_matches(['"', '\'']).to_owned();
    pairs
        .map(|(name, value)| (name.trim().to_owned(), unquoted(value)))
        .collect()
}

/// Does one step after the other; the first that fails is the last.
pub(super) fn perform(steps: &[Step]) -> Result<(), ServiceError> {
    for step in steps {
        let program = match step {
            Step::Run(run) | Step::Wait(Wait { ask: run, .. }) => run.program,
            Step::Write { .. } | Step::Remove { .. } | Step::Say(_) => continue,
        };
        if !is_on_path(program) {
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
            Step::Wait(wait) => writeln!(text, "{}", waiting(wait)),
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
        Step::Wait(wait) => {
            say(&waiting(wait))?;
            await_stop(wait)
        }
        Step::Say(text) => say(text),
    }
}

/// Asks until the service has stopped, for as long as it may take.
fn await_stop(wait: &Wait) -> Result<(), ServiceError> {
    let most = wait.within.as_millis() / BETWEEN_QUESTIONS.as_millis();
    for _ in 0..=most {
        if has_stopped(wait)? {
            return Ok(());
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a command that does one thing after another; nothing else runs"
        )]
        std::thread::sleep(BETWEEN_QUESTIONS);
    }
    Err(ServiceError::StillRuns {
        command: typed(&wait.ask),
        seconds: wait.within.as_secs(),
    })
}

fn has_stopped(wait: &Wait) -> Result<bool, ServiceError> {
    let asked = Command::new(wait.ask.program)
        .args(&wait.ask.args)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ServiceError::Command {
            command: typed(&wait.ask),
            source,
        })?;
    Ok(match wait.until {
        Until::Says(word) => String::from_utf8_lossy(&asked.stdout).contains(word),
        Until::Fails => !asked.status.success(),
    })
}

fn waiting(wait: &Wait) -> String {
    let (command, seconds) = (typed(&wait.ask), wait.within.as_secs());
    match wait.until {
        Until::Says(word) => format!("Wait until `{command}` says {word}, {seconds} s at most"),
        Until::Fails => format!("Wait until `{command}` finds nothing, {seconds} s at most"),
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

/// Looks for a service that Windows has in its registry.
pub(super) fn is_known_to_windows(name: &str) -> Found {
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_systemd_does() {
        let read = assignments("# X=1\nA=b c\n\n; Y=2\nC = \"d=e\"\n");

        let expected = [("A", "b c"), ("C", "d=e")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, BTreeMap::from(expected));
    }

    fn ask(script: &str) -> Run {
        Run::new("sh", &["-c", script])
    }

    #[rstest::rstest]
    #[case(
        "echo STATE : $(cat state); echo 1 STOPPED >state",
        Until::Says("STOPPED")
    )]
    #[case("test ! -e gone; code=$?; touch gone; exit $code", Until::Fails)]
    fn next_step_comes_when_the_service_has_stopped(#[case] script: &str, #[case] until: Until) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state"), "3 STOP_PENDING").unwrap();
        let wait = Wait {
            ask: ask(&format!("cd '{}' && {script}", dir.path().display())),
            until,
            within: Duration::from_secs(20),
        };

        assert!(!has_stopped(&wait).unwrap());
        await_stop(&wait).unwrap();
    }

    #[test]
    fn service_that_does_not_stop_is_named_with_the_question() {
        let wait = Wait {
            ask: ask("echo RUNNING"),
            until: Until::Says("STOPPED"),
            within: Duration::ZERO,
        };

        let error = await_stop(&wait).unwrap_err();

        assert!(error.to_string().contains("echo RUNNING"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}
