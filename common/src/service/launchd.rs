//! launchd: the property list, and what `launchctl` has to do.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::ServiceError;
use super::place::{Place, Scope};
use super::plan::{Action, Found, Run, Step, Unit, Until, Wait, installed, refuse, removed};

pub(super) const LAUNCHCTL: &str = "launchctl";
/// Who runs the machine's service.
pub(super) const USER: &str = "nobody";

/// Returns what is to be done.
pub(super) fn steps(
    action: Action,
    unit: &Unit<'_>,
    place: &Place,
    found: Found,
) -> Result<Vec<Step>, ServiceError> {
    refuse(action, unit, (place, &found))?;
    let launchctl = Launchctl { unit, place };
    let target = launchctl.target();
    Ok(match action {
        Action::Install => launchctl.install(&found),
        Action::Uninstall => vec![
            launchctl.bootout(),
            launchctl.wait(),
            Step::Remove {
                path: place.file(unit.product.name),
            },
            Step::Say(removed(unit, place)),
        ],
        Action::Start => vec![launchctl.run(&["kickstart", &target])],
        Action::Stop => vec![launchctl.run(&["kill", "SIGTERM", &target])],
        Action::Status => vec![launchctl.run(&["print", &target])],
    })
}

/// The commands for one service.
struct Launchctl<'a> {
    unit: &'a Unit<'a>,
    place: &'a Place,
}

impl Launchctl<'_> {
    fn install(&self, found: &Found) -> Vec<Step> {
        let product = self.unit.product;
        let contents = self.contents();
        let said = installed(self.unit, found, &contents);
        let path = self.place.file(product.name);
        let target = self.target();
        let mut steps = Vec::new();
        if *found == Found::Ours(contents.clone()) {
            steps.push(self.run(&["kickstart", &target]));
        } else {
            if self.place.scope == Scope::System {
                let dir = self.place.system_state(product.name);
                let args = ["-d", "-m", "0700", "-o", USER, "-g", USER, &dir];
                steps.push(Step::Run(Run::new("install", &args)));
            }
            if matches!(found, Found::Ours(_)) {
                steps.extend([self.bootout(), self.wait()]);
            }
            let file = path.to_string_lossy().into_owned();
            steps.push(Step::Write { path, contents });
            steps.push(self.run(&["bootstrap", &self.domain(), &file]));
        }
        let log = self.log();
        steps.push(Step::Say(format!("{said} Its log: {}", log.display())));
        steps
    }

    fn bootout(&self) -> Step {
        Step::Run(Run::new(LAUNCHCTL, &["bootout", &self.target()]).or_go_on())
    }

    /// `bootout` may return before the process has ended, and then `bootstrap` fails.
    fn wait(&self) -> Step {
        Step::Wait(Wait {
            ask: Run::new(LAUNCHCTL, &["print", &self.target()]),
            until: Until::Fails,
            within: self.unit.stops_within(),
        })
    }

    fn run(&self, words: &[&str]) -> Step {
        let log = self.log().display().to_string();
        Step::Run(Run::new(LAUNCHCTL, words).or_see(log))
    }

    fn domain(&self) -> String {
        match self.place.scope {
            Scope::System => "system".to_owned(),
            Scope::User => format!("gui/{}", self.place.uid),
        }
    }

    fn target(&self) -> String {
        format!("{}/{}", self.domain(), self.unit.product.name)
    }

    fn log(&self) -> PathBuf {
        let name = self.unit.product.name;
        match self.place.scope {
            Scope::System => PathBuf::from(self.place.system_state(self.unit.product.name))
                .join(format!("{name}.log")),
            Scope::User => {
                let home = self.place.home.clone().unwrap_or_default();
                home.join(format!("Library/Logs/{name}.log"))
            }
        }
    }

    fn contents(&self) -> String {
        let product = self.unit.product;
        let program = self.place.program.to_string_lossy();
        let words = std::iter::once(program.as_ref())
            .chain(self.unit.flags.iter().map(String::as_str))
            .fold(String::new(), |words, word| {
                words + "\t\t<string>" + &escaped(word) + "</string>\n"
            });
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- {} -->\n\
             <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
             \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
             <plist version=\"1.0\">\n<dict>\n\
             \t<key>Label</key>\n\t<string>{}</string>\n\
             \t<key>ProgramArguments</key>\n\t<array>\n{words}\t</array>\n",
            self.unit.mark(),
            product.name,
        );
        if self.place.scope == Scope::System {
            text.push_str(&self.account());
        }
        // What is written into a string cannot fail.
        let _infallible = write!(
            text,
            "\t<key>RunAtLoad</key>\n\t<true/>\n\
             \t<key>KeepAlive</key>\n\t<dict>\n\
             \t\t<key>SuccessfulExit</key>\n\t\t<false/>\n\t</dict>\n\
             \t<key>ThrottleInterval</key>\n\t<integer>10</integer>\n\
             \t<key>ExitTimeOut</key>\n\t<integer>{}</integer>\n\
             \t<key>Umask</key>\n\t<integer>63</integer>\n\
             \t<key>StandardErrorPath</key>\n\t<string>{}</string>\n</dict>\n</plist>\n",
            self.unit.stops_within().as_secs(),
            escaped(&self.log().to_string_lossy()),
        );
        text
    }

    /// Returns whose the machine's service is, and where it keeps what it stores.
    fn account(&self) -> String {
        let paths = self.place.system_paths(self.unit.product).into_iter();
        let variables = paths.fold(String::new(), |variables, (setting, path)| {
            let variable = self.unit.product.variable(setting);
            let path = escaped(&path);
            variables + &format!("\t\t<key>{variable}</key>\n\t\t<string>{path}</string>\n")
        });
        format!(
            "\t<key>UserName</key>\n\t<string>{USER}</string>\n\
             \t<key>EnvironmentVariables</key>\n\t<dict>\n{variables}\t</dict>\n"
        )
    }
}

/// Returns text as XML has it.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::place::Manager;
    use super::super::place::tests::place;
    use super::super::plan::tests::unit;
    use super::*;

    const FLAGS: [&str; 2] = [
        "--coordinator=http://hub:11400",
        "--machine-name=<GPU> & \"more\"",
    ];

    #[rstest]
    #[case("daemon_of_the_machine", Scope::System, Found::Nothing)]
    #[case("agent_of_a_user", Scope::User, Found::Ours("<!-- before -->".to_owned()))]
    fn install_shows_the_file_and_the_commands(
        #[case] name: &str,
        #[case] scope: Scope,
        #[case] found: Found,
    ) {
        let place = place(Manager::Launchd, scope);

        let steps = steps(Action::Install, &unit(&FLAGS), &place, found).unwrap();

        insta::assert_snapshot!(name, super::super::perform::shown(&steps));
    }

    #[rstest]
    #[case(Action::Start, "launchctl kickstart gui/501/ollama-agent")]
    #[case(Action::Stop, "launchctl kill SIGTERM gui/501/ollama-agent")]
    #[case(Action::Status, "launchctl print gui/501/ollama-agent")]
    fn other_commands_name_the_service(#[case] action: Action, #[case] command: &str) {
        let place = place(Manager::Launchd, Scope::User);
        let ours = Found::Ours("<!-- ours -->".to_owned());

        let steps = steps(action, &unit(&[]), &place, ours).unwrap();

        assert_eq!(
            super::super::perform::shown(&steps),
            format!("$ {command}\n")
        );
    }
}
