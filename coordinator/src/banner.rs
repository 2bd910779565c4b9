//! What the operator reads at the start and at the end, on standard error: plain text, or log
//! events where every line has to be JSON.

pub mod addresses;

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeReport};

use crate::config::{Config, LogFormat};
use crate::storage::recovery::Recovery;

/// Where the operator's text goes.
#[derive(Debug, Clone, Copy)]
pub struct Banner(LogFormat);

impl Banner {
    /// Makes the banner for this configuration.
    pub fn new(config: &Config) -> Self {
        Self(config.log_format)
    }

    fn print(self, text: &str) {
        match self.0 {
            // Nobody can be told when standard error is closed.
            LogFormat::Human => drop(std::io::stderr().write_all(text.as_bytes())),
            LogFormat::Json => tracing::info!(text = text.trim(), "Notice"),
        }
    }

    /// Says what runs, where, what it remembers and how to add a machine.
    pub fn started(self, config: &Config, local: SocketAddr, data_dir: &Path, recovery: &Recovery) {
        self.print(&start_text(config, local, data_dir, recovery));
    }

    /// Says that this machine's runtime takes part.
    pub fn runtime_found(self, coordinator: &BaseUrl, runtime: &BaseUrl, report: &RuntimeReport) {
        let version = report.version.as_deref().unwrap_or("of unknown version");
        let name = match report.kind {
            RuntimeKind::Ollama => "Ollama",
            RuntimeKind::Openai => "A server with the OpenAI API",
        };
        let models = report.models.len();
        self.print(&format!(
            "  {name} {version} found at {runtime}, models: {models}. It takes part.\n\n{}",
            try_text(
                coordinator,
                report.models.first().map(|model| model.name.as_str())
            )
        ));
    }

    /// Says that this machine's runtime does not answer yet.
    pub fn runtime_missing(self, runtime: &BaseUrl, error: &dyn Error) {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(why, ": {error}").expect("writing to a String cannot fail");
            cause = error.source();
        }
        self.print(&format!(
            "  No runtime at {runtime} ({why}).\n  It takes part as soon as it answers; \
             --no-local-agent leaves this machine out.\n\n"
        ));
    }

    /// Says that what answers is simulated.
    pub fn simulating(self, coordinator: &BaseUrl, runtime: &BaseUrl, count: usize) {
        self.print(&format!(
            "  No runtime answers at {runtime}, so {count} SIMULATED machines take part: their \
             answers are made-up words.\n\n{}",
            try_text(coordinator, Some("simulated-small:latest"))
        ));
    }

    /// Says that a stop was asked for.
    pub fn stopping(self, in_flight: usize) {
        self.print(&match in_flight {
            0 => "Stopping.\n".to_owned(),
            running => format!(
                "Stopping. Requests running: {running}, waiting up to 30 s. Ctrl-C again to stop now.\n"
            ),
        });
    }

    /// Says that everything has ended.
    pub fn stopped(self) {
        self.print("Stopped.\n");
    }
}

fn try_text(coordinator: &BaseUrl, model: Option<&str>) -> String {
    model.map_or_else(String::new, |model| {
        format!(
            "  Try it:  curl {coordinator}/api/chat -d \
             '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n\n"
        )
    })
}

fn start_text(config: &Config, local: SocketAddr, data_dir: &Path, recovery: &Recovery) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mode = if config.dev {
        " (--dev: nothing is kept)"
    } else {
        ""
    };
    let here = BaseUrl::from_addr(from_this_machine(local)).to_string();
    let mut text = format!("ollama-coordinator {version}{mode}\n\n");
    let mut line = |label: &str, value: &str| {
        writeln!(text, "  {label:<12} {value}").expect("writing to a String cannot fail");
    };
    line("Ollama API", &here);
    line("OpenAI API", &format!("{here}/v1"));
    line("Agents", &format!("{here}/api/agents"));
    line("Data", &format!("{} ({recovery})", data_dir.display()));
    line("Listening", &listening(local));
    text.push('\n');
    text.push_str(&join_text(config, local));
    text
}

fn listening(local: SocketAddr) -> String {
    if local.ip().is_loopback() {
        format!("{local}, this machine only")
    } else if local.ip().is_unspecified() {
        format!(
            "port {} on every interface: whoever reaches it can use it",
            local.port()
        )
    } else {
        format!("{local}: whoever reaches it can use it")
    }
}

fn join_text(config: &Config, local: SocketAddr) -> String {
    if local.ip().is_loopback() {
        let how = if config.dev {
            "without --dev"
        } else {
            "with a --host that they can reach"
        };
        return format!("  Only this machine can reach it. To add others, start it {how}.\n\n");
    }
    let mut urls = Vec::new();
    if local.ip().is_unspecified() {
        let addresses = addresses::for_other_machines();
        urls.extend(addresses.iter().map(|ip| url(*ip, local.port())));
    } else {
        urls.push(url(local.ip(), local.port()));
    }
    let placeholder = format!("http://ADDRESS-OF-THIS-MACHINE:{}", local.port());
    let first = urls.first().unwrap_or(&placeholder);
    let mut text = format!(
        "  Add another machine. Run this on it:\n\n    ollama-agent --coordinator {first}\n\n"
    );
    if let Some(others) = urls.get(1..).filter(|others| !others.is_empty()) {
        let others = others.join(" ");
        writeln!(text, "  Also reached at {others}\n").expect("writing to a String cannot fail");
    }
    text
}

fn url(ip: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::new(ip, port))
}

/// Returns where the coordinator is reached from this machine.
pub fn from_this_machine(local: SocketAddr) -> SocketAddr {
    let ip = local.ip();
    let ip = if ip.is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        ip
    };
    SocketAddr::new(ip, local.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cli;
    use clap::Parser as _;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.1:11400", "http://127.0.0.1:11400")]
    #[case("[::]:11400", "http://127.0.0.1:11400")]
    #[case("[::1]:7", "http://[::1]:7")]
    #[case("192.168.1.10:11400", "http://192.168.1.10:11400")]
    fn shown_address_is_one_that_answers(#[case] local: SocketAddr, #[case] url: &str) {
        let config = Cli::parse_from(["ollama-coordinator"]).config;

        let text = start_text(&config, local, Path::new("/data"), &Recovery::New);

        assert!(text.contains(&format!("Ollama API   {url}\n")), "{text}");
    }
}
