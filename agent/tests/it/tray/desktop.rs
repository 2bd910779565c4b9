//! A desktop of the test's own: a virtual display, a session bus, a panel whose tray is a real
//! `StatusNotifier` host, and the agent, started as from a menu.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ollama_agent::panel::PanelFile;
use ollama_coordinator_common::base_url::BaseUrl;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use super::item::{Item, proxy};
use crate::support::DEADLINE;

const WATCHER: &str = "org.kde.StatusNotifierWatcher";
const PROGRAMS: [&str; 3] = ["Xvfb", "dbus-daemon", "xfce4-panel"];

/// One panel with nothing but a tray.
const PANEL: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="length" type="uint" value="100"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="size" type="uint" value="32"/>
      <property name="plugin-ids" type="array"><value type="int" value="1"/></property>
    </property>
  </property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="systray"/>
  </property>
</channel>
"#;

/// Stands in for the programs of a desktop: notes what it was asked to show, or to copy.
const OPENER: &str = "#!/bin/sh\necho \"$1\" >> \"$HOME/opened\"\n";
const CLIPBOARD: &str = "#!/bin/sh\ncat > \"$HOME/clipboard\"\n";
const BROKEN: &str = "#!/bin/sh\nexit 1\n";

/// A desktop without a display: somebody's home, and what is started there.
#[derive(Debug)]
pub(crate) struct Desktop {
    home: TempDir,
    display: String,
    _server: Option<Child>,
    bus: Option<Child>,
}

impl Desktop {
    /// Starts a display and a session bus; says loudly when they cannot be had here.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        if let Some(missing) = PROGRAMS.iter().find(|program| !is_installed(program)) {
            say(&format!("SKIPPED {test}: {missing} is not installed"));
            return None;
        }
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "800x400x24"])
            .args(["-nolisten", "tcp"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let number = first_line(&mut server).await;
        let mut desktop = Self {
            display: format!(":{number}"),
            _server: Some(server),
            ..Self::without_display()
        };
        desktop.start_bus().await;
        Some(desktop)
    }

    /// Makes a home whose session has neither display nor bus, though it is said to have.
    pub(crate) fn without_display() -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("xfce4/xfconf/xfce-perchannel-xml");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("xfce4-panel.xml"), PANEL).unwrap();
        fs::create_dir(home.path().join("run")).unwrap();
        fs::set_permissions(home.path().join("run"), Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(home.path().join("bin")).unwrap();
        let desktop = Self {
            home,
            display: ":4711".to_owned(),
            _server: None,
            bus: None,
        };
        desktop.install("xdg-open", OPENER);
        desktop.install("wl-copy", BROKEN);
        desktop.install("xclip", CLIPBOARD);
        desktop.install("xsel", BROKEN);
        desktop
    }

    /// Takes the program for the clipboard away.
    pub(crate) fn break_clipboard(&self) {
        self.install("xclip", BROKEN);
    }

    fn install(&self, program: &str, script: &str) {
        let path = self.home.path().join("bin").join(program);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    }

    pub(crate) async fn start_bus(&mut self) {
        let mut bus = self
            .program("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .arg(format!("--address={}", self.bus_address()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        first_line(&mut bus).await;
        self.bus = Some(bus);
    }

    pub(crate) async fn stop_bus(&mut self) {
        let mut bus = self.bus.take().unwrap();
        bus.kill().await.unwrap();
        fs::remove_file(self.home.path().join("run/bus")).unwrap();
    }

    /// Starts the panel and waits until its tray takes items.
    pub(crate) async fn start_panel(&self) -> Child {
        let panel = self
            .program("xfce4-panel")
            .arg("--disable-wm-check")
            .spawn()
            .unwrap();
        let bus = self.connect().await;
        let names = DBusProxy::new(&bus).await.unwrap();
        let watcher = BusName::try_from(WATCHER).unwrap();
        eventually("a tray", async || {
            let has_owner = names.name_has_owner(watcher.clone()).await.unwrap();
            has_owner.then_some(())
        })
        .await;
        panel
    }

    /// Waits until the agent's icon is in the tray.
    pub(crate) async fn item(&self, agent: &Child) -> Item {
        let bus = self.connect().await;
        let names = format!("org.kde.StatusNotifierItem-{}-", agent.id().unwrap());
        let name = eventually("the agent's icon", async || {
            let tray = proxy(&bus, WATCHER, "/StatusNotifierWatcher", WATCHER).await;
            let items = tray.get_property("RegisteredStatusNotifierItems").await;
            let items: Vec<String> = items.unwrap_or_default();
            let mut parts = items.iter().flat_map(|item| item.split('/'));
            parts
                .find(|part| part.starts_with(&names))
                .map(str::to_owned)
        })
        .await;
        Item::new(bus, name)
    }

    /// Starts the agent as a desktop's menu would: with nobody who reads what it writes.
    pub(crate) fn start_agent(&self, coordinator: &BaseUrl, runtime: &BaseUrl) -> Child {
        self.program(env!("CARGO_BIN_EXE_ollama-agent"))
            .env("OLLAMA_AGENT_COORDINATOR", coordinator.to_string())
            .env("OLLAMA_AGENT_RUNTIME", runtime.to_string())
            .env("OLLAMA_AGENT_STATE_DIR", self.home.path().join("state"))
            .env("OLLAMA_AGENT_MACHINE_NAME", "gpu_02 & <co>")
            .env("OLLAMA_AGENT_PANEL", "0")
            .stderr(self.log())
            .spawn()
            .unwrap()
    }

    /// Returns what the agent left for programs.
    pub(crate) fn panel(&self) -> PanelFile {
        let file = PanelFile::read(&self.home.path().join("state"));
        file.unwrap().expect("the agent has a panel")
    }

    fn program(&self, program: &str) -> Command {
        let home = self.home.path();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", home.join("bin").display()),
            )
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home)
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("DISPLAY", &self.display)
            .env("DBUS_SESSION_BUS_ADDRESS", self.bus_address())
            .env("NO_AT_BRIDGE", "1")
            .env("GTK_A11Y", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn bus_address(&self) -> String {
        format!("unix:path={}", self.home.path().join("run/bus").display())
    }

    pub(crate) async fn connect(&self) -> Connection {
        let address = self.bus_address();
        let builder = zbus::connection::Builder::address(address.as_str()).unwrap();
        builder.build().await.unwrap()
    }

    /// Returns what was written into a file in this home, once it ends with a whole line.
    pub(crate) async fn written(&self, name: &str) -> String {
        let path = self.home.path().join(name);
        eventually(name, async || {
            let text = fs::read_to_string(&path).ok();
            text.filter(|text| text.ends_with('\n'))
        })
        .await
    }

    pub(crate) fn forget(&self, name: &str) {
        fs::remove_file(self.home.path().join(name)).unwrap();
    }

    pub(crate) fn agent_log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    fn log(&self) -> fs::File {
        fs::File::create(self.home.path().join("log")).unwrap()
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        let mut turns = tokio::time::interval(Duration::from_millis(20));
        loop {
            turns.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    let answered = tokio::time::timeout(DEADLINE, asking).await;
    answered.unwrap_or_else(|_elapsed| panic!("{what} was never there"))
}

async fn first_line(process: &mut Child) -> String {
    let output = BufReader::new(process.stdout.take().unwrap());
    let mut lines = output.lines();
    let line = tokio::time::timeout(DEADLINE, lines.next_line()).await;
    line.unwrap().unwrap().unwrap()
}

fn is_installed(program: &str) -> bool {
    ["/usr/bin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}

/// Writes a line where no test harness hides it.
fn say(line: &str) {
    let line = format!("{line}\n");
    let written = std::io::stderr().write_all(line.as_bytes());
    written.expect("standard error is open");
}
