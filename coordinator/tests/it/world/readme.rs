//! What README.md tells people to type on their second machine.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::support::agent_process::AgentHome;
use crate::support::nat::Nat;
use crate::support::seen::ask;
use crate::support::skip;

const ADDRESS: &str = "ADDRESS-OF-THE-FIRST-MACHINE";

#[tokio::test]
async fn one_line_of_the_readme_makes_a_second_machine_serve() {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip("the README on a second machine", &reason),
    };
    let _coordinator = nat.machine.start().await;
    let on_second_machine = nat.home.enter();
    let _runtime = stock_runtime();
    let line = agent_line().replace(ADDRESS, Nat::ADDRESS);
    let mut words = line.split_whitespace();
    let program = words.next().map(Path::new).and_then(Path::file_name);
    assert_eq!(program.expect("it names a program"), "ollama-agent");
    let home = AgentHome::new("second");
    let _agent = home.start(&words.collect::<Vec<_>>(), &[]);
    drop(on_second_machine);

    nat.wait("second", "routable", |agent| agent.routable).await;

    assert_eq!(ask(nat.api(), "hi", true).await.seen.whole, 1);
}

/// Returns the line that starts an agent; there is one.
fn agent_line() -> &'static str {
    let readme = include_str!("../../../../README.md");
    let is_it = |line: &&str| line.contains("ollama-agent --coordinator");
    let lines: Vec<&str> = readme.lines().filter(is_it).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(ADDRESS), "{lines:?}");
    lines[0]
}

/// Starts the simulator as a process where Ollama listens as installed.
fn stock_runtime() -> Child {
    let coordinator = PathBuf::from(env!("CARGO_BIN_EXE_ollama-coordinator"));
    Command::new(coordinator.with_file_name("ollama-simulator"))
        .args(["runtime", "--port", "11434"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it was built: cargo build --workspace --bins")
}
