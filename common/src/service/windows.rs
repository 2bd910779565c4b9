//! Windows: what `sc.exe` has to do. Windows keeps services in its registry, so there is no file.

use super::ServiceError;
use super::command_line::quoted;
use super::place::Place;
use super::plan::{Action, Found, Run, Step, Unit, Until, Wait, refuse, removed};

pub(super) const SC: &str = "sc.exe";
/// Who runs the service.
pub(super) const USER: &str = "LocalService";
/// An account that may do little, under its own name and under the one that no language translates.
const ACCOUNT: &str = r"NT AUTHORITY\LocalService";
const ACCOUNT_SID: &str = "*S-1-5-19";

/// Returns what is to be done.
pub(super) fn steps(
    action: Action,
    unit: &Unit<'_>,
    place: &Place,
    found: Found,
) -> Result<Vec<Step>, ServiceError> {
    refuse(action, unit, (place, &found))?;
    let name = unit.product.name;
    let sc = |words: &[&str]| Step::Run(Run::new(SC, words));
    Ok(match action {
        Action::Install => install(unit, place, &found),
        Action::Uninstall => vec![
            Step::Run(Run::new(SC, &["stop", name]).or_go_on()),
            wait(unit),
            sc(&["delete", name]),
            Step::Say(removed(unit, place)),
        ],
        Action::Start => vec![sc(&["start", name])],
        Action::Stop => vec![sc(&["stop", name])],
        Action::Status => vec![sc(&["query", name])],
    })
}

fn install(unit: &Unit<'_>, place: &Place, found: &Found) -> Vec<Step> {
    let product = unit.product;
    let name = product.name;
    let dir = place.system_state(product.name);
    let command = command_line(unit, place);
    let may_change = format!("{ACCOUNT_SID}:(OI)(CI)M");
    let verb = match found {
        Found::Ours(_) => "config",
        Found::Nothing | Found::Foreign | Found::Packaged(_) => "create",
    };
    let created = [
        verb,
        name,
        "binPath=",
        &command,
        "start=",
        "delayed-auto",
        "obj=",
        ACCOUNT,
        "DisplayName=",
        product.description,
    ];
    let restarts = "restart/5000/restart/5000/restart/60000";
    let mut steps = vec![
        Step::Run(Run::new("cmd.exe", &["/c", "mkdir", &dir]).or_go_on()),
        Step::Run(Run::new(
            "icacls.exe",
            &[
                &dir,
                "/inheritance:r",
                "/grant:r",
                "*S-1-5-18:(OI)(CI)F",
                "*S-1-5-32-544:(OI)(CI)F",
                &may_change,
            ],
        )),
        Step::Run(Run::new(SC, &created)),
        Step::Run(Run::new(SC, &["description", name, product.description])),
        Step::Run(Run::new(
            SC,
            &["failure", name, "reset=", "86400", "actions=", restarts],
        )),
        Step::Run(Run::new(SC, &["failureflag", name, "1"])),
    ];
    if verb == "config" {
        steps.push(Step::Run(Run::new(SC, &["stop", name]).or_go_on()));
        steps.push(wait(unit));
    }
    steps.push(Step::Run(Run::new(SC, &["start", name])));
    let said = match verb {
        "config" => "was installed already; it starts with these flags",
        _ => "is installed and starts",
    };
    steps.push(Step::Say(format!(
        "{name} {said}. It keeps what it stores in {dir}."
    )));
    steps
}

/// `stop` only asks for it, and a service that is still stopping cannot be started; one that is
/// deleted then stays in the way of the next.
fn wait(unit: &Unit<'_>) -> Step {
    Step::Wait(Wait {
        ask: Run::new(SC, &["query", unit.product.name]),
        until: Until::Says("STOPPED"),
        within: unit.stops_within(),
    })
}

/// Returns how Windows starts it.
fn command_line(unit: &Unit<'_>, place: &Place) -> String {
    let program = place.program.to_string_lossy().into_owned();
    let paths = place.system_paths(unit.product).into_iter();
    let paths = paths.flat_map(|(setting, path)| [format!("--{setting}"), path]);
    let words = std::iter::once(program)
        .chain(["service", "run"].map(str::to_owned))
        .chain(paths)
        .chain(unit.flags.iter().cloned());
    words
        .map(|word| quoted(&word))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::perform::shown;
    use super::super::place::tests::place;
    use super::super::place::{Manager, Scope};
    use super::super::plan::tests::unit;
    use super::*;

    #[rstest]
    #[case("windows_install", Action::Install, Found::Nothing)]
    #[case("windows_install_again", Action::Install, Found::Ours(String::new()))]
    #[case("windows_uninstall", Action::Uninstall, Found::Ours(String::new()))]
    fn commands_are_shown(#[case] name: &str, #[case] action: Action, #[case] found: Found) {
        let place = place(Manager::Windows, Scope::System);
        let unit = unit(&["--coordinator=http://hub:11400", "--machine-name=GPU 1"]);

        let steps = steps(action, &unit, &place, found).unwrap();

        insta::assert_snapshot!(name, shown(&steps));
    }
}
