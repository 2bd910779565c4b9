//! What shells and `man` read of the command line.

use std::process::Stdio;

use rstest::rstest;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::process::{binary, finish};
use crate::support::skip;

#[rstest]
#[case("bash", "ollama-coordinator")]
#[case("zsh", "#compdef ollama-coordinator")]
#[case("fish", "complete -c ollama-coordinator")]
#[case("powershell", "Register-ArgumentCompleter")]
#[case("elvish", "edit:completion")]
#[tokio::test]
async fn completions_are_printed_for_every_shell(#[case] shell: &str, #[case] word: &str) {
    let home = tempfile::tempdir().unwrap();
    let mut command = binary(home.path());
    command.args(["completions", shell]);

    let ended = finish(command).await;

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains(word), "{}", ended.stdout);
    assert!(ended.stdout.contains("data-dir"), "{}", ended.stdout);
}

#[tokio::test]
async fn bash_completes_commands_and_flags() {
    let home = tempfile::tempdir().unwrap();
    let mut command = binary(home.path());
    command.args(["completions", "bash"]);
    let completions = finish(command).await.stdout;
    let script = format!(
        "{completions}\n\
         COMP_WORDS=(ollama-coordinator service in) COMP_CWORD=2\n\
         _ollama__coordinator ollama-coordinator in service; echo \"${{COMPREPLY[*]}}\"\n\
         COMP_WORDS=(ollama-coordinator --hos) COMP_CWORD=1\n\
         _ollama__coordinator ollama-coordinator --hos ''; echo \"${{COMPREPLY[*]}}\"\n"
    );

    let Ok(bash) = Command::new("bash").args(["-c", &script]).output().await else {
        return skip("completions in bash", "bash is not installed");
    };

    assert_eq!(String::from_utf8_lossy(&bash.stdout), "install\n--host\n");
}

#[tokio::test]
async fn man_pages_of_all_commands_are_written_and_render_without_complaints() {
    let home = tempfile::tempdir().unwrap();
    let mut command = binary(home.path());
    command.args(["man", "--dir"]).arg(home.path().join("man1"));

    let ended = finish(command).await;

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let dir = std::fs::read_dir(home.path().join("man1")).unwrap();
    let mut pages: Vec<_> = dir.map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    let names: Vec<_> = pages
        .iter()
        .map(|page| page.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    for name in [
        "ollama-coordinator.1",
        "ollama-coordinator-service-install.1",
    ] {
        assert!(names.iter().any(|page| page == name), "{names:?}");
    }
    assert!(
        !names.iter().any(|page| page.contains("service-run")),
        "{names:?}"
    );
    for page in &pages {
        let roff = std::fs::read(page).unwrap();
        let Some((rendered, complaints)) = groff(&roff).await else {
            return skip("man pages", "groff is not installed");
        };
        assert_eq!(complaints, "", "{}", page.display());
        assert!(rendered.contains("SYNOPSIS"), "{rendered}");
    }
}

#[tokio::test]
async fn man_page_says_what_help_says() {
    let home = tempfile::tempdir().unwrap();
    let mut command = binary(home.path());
    command.arg("man");

    let page = finish(command).await.stdout;

    let Some((rendered, _)) = groff(page.as_bytes()).await else {
        return skip("the man page", "groff is not installed");
    };
    for word in [
        "--heartbeat-interval",
        "OLLAMA_COORDINATOR_PORT",
        "Exit codes",
        "agents",
    ] {
        assert!(rendered.contains(word), "{word} is missing: {rendered}");
    }
}

/// Renders a page as `man` does; returns it and what was complained about.
async fn groff(page: &[u8]) -> Option<(String, String)> {
    let mut groff = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut stdin = groff.stdin.take().expect("it is piped");
    stdin.write_all(page).await.expect("it reads");
    drop(stdin);
    let output = groff.wait_with_output().await.expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}
