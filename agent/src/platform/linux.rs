//! Linux: AMD's graphics cards as the kernel lists them in `/sys/class/drm`; sockets; what systemd
//! tells Ollama; a desktop's programs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ollama_coordinator_common::protocol::system::Gpu;
use ollama_coordinator_common::protocol::tunnel::{NOT_SENT, PING_EVERY, PING_TIMEOUT};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::config::config_home;
use crate::system::GpuReading;

const CARDS: &str = "/sys/class/drm";
const AMD: &str = "0x1002";
/// Where units are, the ones that win last.
const UNITS: [&str; 3] = [
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/etc/systemd/system",
];
const STARTED: &str = "/etc/systemd/system/multi-user.target.wants/ollama-agent.service";
const STARTED_FOR_USER: &str = "systemd/user/default.target.wants/ollama-agent.service";
const OLLAMA_UNIT: &str = "ollama.service";
const OLLAMA_HOST: &str = "OLLAMA_HOST=";

/// Returns the cards that the kernel's own files describe, or `None` without a graphics subsystem.
///
/// NVIDIA's driver tells nothing here; Intel's cards do not tell built-in from discrete.
pub(crate) fn graphics_cards() -> Option<Vec<GpuReading>> {
    cards_in(Path::new(CARDS))
}

/// Has the system hold little that is not sent yet, so that no bulk delays what is urgent, and give
/// up a peer that acknowledges nothing.
pub(crate) fn keep_little_unsent(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(PING_EVERY + PING_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(NOT_SENT)
}

/// Returns the entries by which systemd starts the agent, of the machine and of this user.
pub(crate) fn service_entries() -> Vec<PathBuf> {
    let user = config_home().map(|home| home.join(STARTED_FOR_USER));
    [PathBuf::from(STARTED)].into_iter().chain(user).collect()
}

/// Returns `OLLAMA_HOST` as Ollama's own service has it, which this process does not see.
pub(crate) fn ollama_service_host() -> Option<String> {
    ollama_host_in(&UNITS.map(Path::new))
}

fn ollama_host_in(units: &[&Path]) -> Option<String> {
    // A whole unit replaces those before it; changes add up.
    let mut whole = units.iter().rev().map(|units| units.join(OLLAMA_UNIT));
    let whole = whole.find(|path| path.exists());
    let changes = units
        .iter()
        .map(|units| units.join(format!("{OLLAMA_UNIT}.d")));
    let mut changes: Vec<_> = changes
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(|entries| entries.filter_map(Result::ok))
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    changes.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let texts = whole
        .into_iter()
        .chain(changes)
        .filter_map(|path| fs::read_to_string(path).ok());
    texts.filter_map(|text| ollama_host_of(&text)).next_back()
}

/// Reads `Environment="OLLAMA_HOST=0.0.0.0:8080"`, with or without quotes, among others.
fn ollama_host_of(unit: &str) -> Option<String> {
    let lines = unit
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Environment="));
    let words = lines.flat_map(str::split_whitespace);
    let mut values = words.filter_map(|word| {
        let word = word.trim_matches(['"', '\'']);
        word.strip_prefix(OLLAMA_HOST)
    });
    values.rfind(|value| !value.is_empty()).map(str::to_owned)
}

/// Returns the program that shows a page or a file as the user wants it.
pub(crate) fn opener() -> Command {
    let mut command = Command::new("xdg-open");
    command.process_group(0);
    command
}

/// Returns programs that put what they read into the clipboard; which of them are there, and work in
/// this session, is found by trying.
pub(crate) fn clipboards() -> Vec<Command> {
    let mut xclip = Command::new("xclip");
    xclip.args(["-selection", "clipboard"]);
    let mut xsel = Command::new("xsel");
    xsel.args(["--clipboard", "--input"]);
    vec![Command::new("wl-copy"), xclip, xsel]
}

fn cards_in(root: &Path) -> Option<Vec<GpuReading>> {
    let entries = fs::read_dir(root).ok()?.filter_map(Result::ok);
    let mut cards: Vec<_> = entries
        .filter(|entry| is_card(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    cards.sort();
    Some(
        cards
            .iter()
            .filter_map(|card| amd_card(&card.join("device")))
            .collect(),
    )
}

/// `card0` is a card, `card0-DP-1` one of its connectors.
fn is_card(name: &str) -> bool {
    name.strip_prefix("card")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn amd_card(device: &Path) -> Option<GpuReading> {
    let text = |file: &str| {
        let text = fs::read_to_string(device.join(file)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    if text("vendor")? != AMD {
        return None;
    }
    let number = |file: &str| text(file)?.parse::<u64>().ok();
    Some(GpuReading {
        gpu: Gpu {
            name: text("product_name").unwrap_or_else(|| "AMD GPU".to_owned()),
            memory_bytes: number("mem_info_vram_total"),
            driver: Some("amdgpu".to_owned()),
        },
        busy_percent: text("gpu_busy_percent").and_then(|text| text.parse().ok()),
        memory_used_bytes: number("mem_info_vram_used"),
        temperature_celsius: temperature(&device.join("hwmon")),
    })
}

fn temperature(sensors: &Path) -> Option<f32> {
    let sensors = fs::read_dir(sensors).ok()?.filter_map(Result::ok);
    let mut readings = sensors.filter_map(|sensor| {
        let millidegrees = fs::read_to_string(sensor.path().join("temp1_input")).ok()?;
        millidegrees.trim().parse::<f32>().ok()
    });
    readings.next().map(|millidegrees| millidegrees / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amd_cards_are_read_and_connectors_are_not() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("card1/device");
        fs::create_dir_all(device.join("hwmon/hwmon3")).unwrap();
        fs::create_dir_all(root.path().join("card1-DP-1/device")).unwrap();
        fs::write(root.path().join("card1-DP-1/device/vendor"), "0x1002\n").unwrap();
        fs::write(device.join("vendor"), "0x1002\n").unwrap();
        fs::write(device.join("mem_info_vram_total"), "25753026560\n").unwrap();
        fs::write(device.join("mem_info_vram_used"), "1024\n").unwrap();
        fs::write(device.join("gpu_busy_percent"), "37\n").unwrap();
        fs::write(device.join("hwmon/hwmon3/temp1_input"), "51000\n").unwrap();

        let cards = cards_in(root.path()).unwrap();

        let expected = GpuReading {
            gpu: Gpu {
                name: "AMD GPU".to_owned(),
                memory_bytes: Some(25_753_026_560),
                driver: Some("amdgpu".to_owned()),
            },
            busy_percent: Some(37.0),
            memory_used_bytes: Some(1024),
            temperature_celsius: Some(51.0),
        };
        assert_eq!(cards, [expected]);
    }

    #[test]
    fn what_systemd_tells_ollama_is_read_as_systemd_does() {
        let root = tempfile::tempdir().unwrap();
        let [usr, etc] = ["usr", "etc"].map(|name| root.path().join(name));
        let units = [usr.as_path(), etc.as_path()];
        fs::create_dir_all(etc.join("ollama.service.d")).unwrap();
        fs::create_dir_all(&usr).unwrap();
        assert_eq!(ollama_host_in(&units), None);

        let unit = "[Service]\nEnvironment=\"PATH=/usr/bin\" OLLAMA_HOST=127.0.0.1:1\n";
        fs::write(usr.join("ollama.service"), unit).unwrap();
        assert_eq!(ollama_host_in(&units).as_deref(), Some("127.0.0.1:1"));

        let change = "[Service]\nEnvironment=\"OLLAMA_HOST=0.0.0.0:8080\"\n";
        fs::write(etc.join("ollama.service.d/override.conf"), change).unwrap();
        fs::write(etc.join("ollama.service.d/override.conf.orig"), unit).unwrap();
        assert_eq!(ollama_host_in(&units).as_deref(), Some("0.0.0.0:8080"));
    }

    #[test]
    fn no_cards_is_not_the_same_as_no_answer() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("card0/device")).unwrap();
        fs::write(root.path().join("card0/device/vendor"), "0x8086\n").unwrap();

        assert_eq!(cards_in(root.path()), Some(vec![]));
        assert_eq!(cards_in(&root.path().join("missing")), None);
    }
}
