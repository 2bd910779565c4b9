//! systemd: the unit, as closed as the binary bears it, and what `systemctl` has to do.

use std::fmt::Write as _;
use std::path::Path;

use super::ServiceError;
use super::place::{Place, Scope};
use super::plan::{Action, Found, Run, Step, Unit, installed, refuse, removed};

pub(super) const SYSTEMCTL: &str = "systemctl";

/// What every unit is closed to, also a user's.
///
/// Memory that is written and then run, kernel interfaces and further privileges are of no use here;
/// `AF_NETLINK` lists the interfaces, `AF_UNIX` reaches systemd and name services.
const CLOSED: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
UMask=0077
";

/// What only the machine's service manager can close.
///
/// NVIDIA's devices stay open because `nvidia-smi` tells what the GPUs do, and `/proc` because it
/// tells what the machine does.
const CLOSED_BY_ROOT: &str = "\
CapabilityBoundingSet=
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
KeyringMode=private
PrivateTmp=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
";

/// Returns the unit that a package installs for the machine.
pub(super) fn packaged(unit: &Unit<'_>, program: &Path) -> String {
    text(unit, program, Scope::System)
}

/// Returns what is to be done.
pub(super) fn steps(
    action: Action,
    unit: &Unit<'_>,
    place: &Place,
    found: Found,
) -> Result<Vec<Step>, ServiceError> {
    refuse(action, unit, (place, &found))?;
    let systemctl = Systemctl { unit, place };
    Ok(match action {
        Action::Install => systemctl.install(&found),
        Action::Uninstall => vec![
            // An install that failed half-way has left no more than its file.
            Step::Run(systemctl.unit_command(&["disable", "--now"]).or_go_on()),
            Step::Remove {
                path: place.file(unit.product.name),
            },
            systemctl.run(&["daemon-reload"]),
            Step::Say(removed(unit, place)),
        ],
        Action::Start => vec![systemctl.on_unit(&["start"])],
        Action::Stop => vec![systemctl.on_unit(&["stop"])],
        Action::Status => vec![systemctl.on_unit(&["status", "--no-pager"])],
    })
}

/// The commands for one service.
struct Systemctl<'a> {
    unit: &'a Unit<'a>,
    place: &'a Place,
}

impl Systemctl<'_> {
    fn install(&self, found: &Found) -> Vec<Step> {
        let contents = self.contents();
        let said = installed(self.unit, found, &contents);
        let mut steps = Vec::new();
        let is_same = *found == Found::Ours(contents.clone());
        if !is_same {
            let path = self.place.file(self.unit.product.name);
            steps.push(Step::Write { path, contents });
            steps.push(self.run(&["daemon-reload"]));
        }
        steps.push(self.on_unit(&["enable", "--now"]));
        if !is_same && matches!(found, Found::Ours(_)) {
            steps.push(self.on_unit(&["restart"]));
        }
        steps.push(Step::Say(format!("{said} Its log: {}", self.log())));
        if self.place.scope == Scope::User {
            steps.push(Step::Say(
                "It runs while you are logged in; `loginctl enable-linger` has it run always."
                    .to_owned(),
            ));
        }
        steps
    }

    fn contents(&self) -> String {
        let text = text(self.unit, &self.place.program, self.place.scope);
        format!("# {}\n{text}", self.unit.mark())
    }

    fn on_unit(&self, words: &[&str]) -> Step {
        Step::Run(self.unit_command(words).or_see(self.log()))
    }

    fn unit_command(&self, words: &[&str]) -> Run {
        let service = format!("{}.service", self.unit.product.name);
        self.command(&[words, &[service.as_str()]].concat())
    }

    fn run(&self, words: &[&str]) -> Step {
        Step::Run(self.command(words))
    }

    fn command(&self, words: &[&str]) -> Run {
        match self.place.scope {
            Scope::User => Run::new(SYSTEMCTL, &[&["--user"], words].concat()),
            Scope::System => Run::new(SYSTEMCTL, words),
        }
    }

    fn log(&self) -> String {
        let name = self.unit.product.name;
        match self.place.scope {
            Scope::User => format!("journalctl --user -u {name}"),
            Scope::System => format!("journalctl -u {name}"),
        }
    }
}

fn text(unit: &Unit<'_>, program: &Path, scope: Scope) -> String {
    let product = unit.product;
    let name = product.name;
    let mut command = quoted(&program.to_string_lossy());
    for flag in &unit.flags {
        command.push(' ');
        command.push_str(&quoted(flag));
    }
    let stop = unit.stops_within().as_secs();
    let mut text = format!(
        "[Unit]\nDescription={}\nDocumentation=man:{name}(1)\n",
        product.description
    );
    if scope == Scope::System {
        text.push_str("Wants=network-online.target\nAfter=network-online.target\n");
    }
    text.push_str("\n[Service]\nType=notify\n");
    if scope == Scope::System {
        for (setting, below) in product.paths {
            let path = Path::new("%S").join(name).join(below);
            // What is written into a string cannot fail.
            let _infallible = writeln!(
                text,
                "Environment={}={}",
                product.variable(setting),
                path.display().to_string().trim_end_matches('/')
            );
        }
        let _infallible = write!(
            text,
            "EnvironmentFile=-/etc/default/{name}\nDynamicUser=yes\nStateDirectory={name}\n\
             StateDirectoryMode=0700\nWorkingDirectory=%S/{name}\nLimitNOFILE=1048576\n"
        );
    }
    let _infallible = write!(
        text,
        "ExecStart={command}\nRestart=on-failure\nRestartSec=5\nRestartPreventExitStatus=2 78\n\
         TimeoutStopSec={stop}\n\n{CLOSED}"
    );
    let target = match scope {
        Scope::System => {
            text.push_str(CLOSED_BY_ROOT);
            "multi-user.target"
        }
        Scope::User => "default.target",
    };
    let _infallible = write!(text, "\n[Install]\nWantedBy={target}\n");
    text
}

/// Returns a word as a command in a unit has it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = String::from('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' | '$' => quoted.extend([c, c]),
            c if c.is_ascii_control() => {
                let _infallible = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::place::Manager;
    use super::super::place::tests::place;
    use super::super::plan::OnFailure;
    use super::super::plan::tests::unit;
    use super::*;

    const FLAGS: [&str; 2] = [
        "--coordinator=http://hub:11400",
        "--machine-name=GPU \"1\" 50%",
    ];

    #[rstest]
    #[case("unit_of_the_machine", Scope::System)]
    #[case("unit_of_a_user", Scope::User)]
    fn unit_is_as_closed_as_it_can_be(#[case] name: &str, #[case] scope: Scope) {
        let place = place(Manager::Systemd, scope);

        let text = text(&unit(&FLAGS), &place.program, scope);

        insta::assert_snapshot!(name, text);
    }

    #[rstest]
    #[case("/usr/bin/x", "/usr/bin/x")]
    #[case("", "\"\"")]
    #[case("a b", "\"a b\"")]
    #[case("say \"%h\" \\ $HOME", "\"say \\\"%%h\\\" \\\\ $$HOME\"")]
    #[case("two\nlines", "\"two\\x0alines\"")]
    #[case("GPU 一号", "\"GPU 一号\"")]
    fn words_are_quoted_so_that_they_stay_as_they_are(#[case] word: &str, #[case] expected: &str) {
        assert_eq!(quoted(word), expected);
    }

    fn commands(action: Action, scope: Scope, found: Found) -> Vec<String> {
        let place = place(Manager::Systemd, scope);
        let steps = steps(action, &unit(&FLAGS), &place, found).unwrap();
        let shown = steps.into_iter().map(|step| match step {
            Step::Write { path, .. } => format!("write {}", path.display()),
            Step::Remove { path } => format!("remove {}", path.display()),
            Step::Run(run) => format!("{} {}", run.program, run.args.join(" ")),
            Step::Wait(wait) => format!("wait {:?}", wait.until),
            Step::Say(text) => format!("say {text}"),
        });
        shown.collect()
    }

    #[test]
    fn first_install_writes_the_unit_enables_and_starts_it() {
        let commands = commands(Action::Install, Scope::System, Found::Nothing);

        assert_eq!(
            commands,
            [
                "write /etc/systemd/system/ollama-agent.service",
                "systemctl daemon-reload",
                "systemctl enable --now ollama-agent.service",
                "say ollama-agent is installed and runs. Its log: journalctl -u ollama-agent",
            ]
        );
    }

    #[test]
    fn second_install_with_other_flags_restarts_it() {
        let before = Found::Ours("# before".to_owned());

        let commands = commands(Action::Install, Scope::User, before);

        assert_eq!(
            commands[..4],
            [
                "write /home/me/.config/systemd/user/ollama-agent.service",
                "systemctl --user daemon-reload",
                "systemctl --user enable --now ollama-agent.service",
                "systemctl --user restart ollama-agent.service",
            ]
        );
        assert!(commands[4].contains("with the new flags"), "{commands:?}");
        assert!(commands[5].contains("enable-linger"), "{commands:?}");
    }

    #[test]
    fn same_install_again_only_sees_to_it_that_it_runs() {
        let place = place(Manager::Systemd, Scope::System);
        let unit = unit(&FLAGS);
        let same = Systemctl {
            unit: &unit,
            place: &place,
        };

        let commands = commands(Action::Install, Scope::System, Found::Ours(same.contents()));

        assert_eq!(commands[0], "systemctl enable --now ollama-agent.service");
        assert!(
            commands[1].contains("already, just like this"),
            "{commands:?}"
        );
    }

    #[test]
    fn uninstall_removes_what_a_failed_install_has_left() {
        let (unit, place) = (unit(&FLAGS), place(Manager::Systemd, Scope::User));
        let ours = Found::Ours("# ours".to_owned());

        let steps = steps(Action::Uninstall, &unit, &place, ours).unwrap();

        let [Step::Run(disable), Step::Remove { .. }, ..] = &steps[..] else {
            panic!("{steps:?}");
        };
        assert_eq!(disable.on_failure, OnFailure::GoOn);
    }

    #[test]
    fn uninstall_says_where_the_rest_is() {
        let ours = Found::Ours("# ours".to_owned());

        let commands = commands(Action::Uninstall, Scope::System, ours);

        assert_eq!(
            commands,
            [
                "systemctl disable --now ollama-agent.service",
                "remove /etc/systemd/system/ollama-agent.service",
                "systemctl daemon-reload",
                "say ollama-agent is removed. What it has stored stays in /var/lib/ollama-agent.",
            ]
        );
    }
}
