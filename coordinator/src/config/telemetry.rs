//! What is remembered and told of requests.

use clap::Args;

use super::InvalidConfig;
use crate::proxy::story::{StorySettings, TraceSettings};

const SERVICE_NAME: &str = "ollama-coordinator";
const STANDARD: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_PATH: &str = "/v1/traces";
const MAX_REQUEST_LOG: u64 = 1_000_000;
const MAX_HISTORY_MIB: u32 = 65_536;

/// What is remembered and told of requests.
#[derive(Debug, Clone, Args)]
pub struct TelemetryArgs {
    /// How many requests are remembered after their end, 0 to 1000000; their prompts and answers
    /// never are
    #[arg(long, env = "OLLAMA_COORDINATOR_REQUEST_LOG", value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(..=MAX_REQUEST_LOG))]
    pub request_log: u64,
    /// MiB of memory for the load of the last day, 0 to 65536; the more machines, the coarser
    #[arg(long, env = "OLLAMA_COORDINATOR_HISTORY_MEMORY", value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_HISTORY_MIB)))]
    pub history_memory: u32,
    /// Where to send OpenTelemetry traces: the http:// URL of a collector that takes OTLP over HTTP
    /// [default: what `OTEL_EXPORTER_OTLP_ENDPOINT` says, else none are sent]
    #[arg(long, env = "OLLAMA_COORDINATOR_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

impl TelemetryArgs {
    /// Returns how many bytes the load of the last day may take.
    pub fn history_bytes(&self) -> usize {
        usize::try_from(self.history_memory).map_or(usize::MAX, |mib| mib.saturating_mul(1 << 20))
    }

    /// Returns what these settings and the standard environment variables ask for.
    pub fn settings(&self) -> Result<StorySettings, InvalidConfig> {
        self.settings_in(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn settings_in(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<StorySettings, InvalidConfig> {
        let ours = self.otlp_endpoint.clone().filter(|url| !url.is_empty());
        let standard = || Some((STANDARD, environment(STANDARD)?));
        let named = ours.map(|url| ("--otlp-endpoint", url)).or_else(standard);
        let traces = named.map(|(name, url)| {
            Ok(TraceSettings {
                endpoint: endpoint(name, &url)?,
                service_name: environment("OTEL_SERVICE_NAME")
                    .unwrap_or_else(|| SERVICE_NAME.to_owned()),
            })
        });
        Ok(StorySettings {
            request_log: usize::try_from(self.request_log).unwrap_or(usize::MAX),
            traces: traces.transpose()?,
        })
    }
}

/// Returns the URL for traces of a collector.
fn endpoint(name: &str, url: &str) -> Result<String, InvalidConfig> {
    let parsed = url.parse::<axum::http::Uri>().ok();
    let is_usable = parsed.is_some_and(|uri| {
        uri.scheme_str() == Some("http") && uri.host().is_some() && uri.query().is_none()
    });
    if !is_usable {
        return Err(InvalidConfig(format!(
            "{name} {url} cannot be used: say the http:// URL of a collector, such as \
             http://127.0.0.1:4318"
        )));
    }
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix(TRACES_PATH).unwrap_or(base);
    Ok(format!("{base}{TRACES_PATH}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn args(otlp_endpoint: Option<&str>) -> TelemetryArgs {
        TelemetryArgs {
            request_log: 1_000,
            history_memory: 64,
            otlp_endpoint: otlp_endpoint.map(str::to_owned),
        }
    }

    fn standard(name: &str) -> Option<String> {
        match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://standard:4318".to_owned()),
            "OTEL_SERVICE_NAME" => Some("mine".to_owned()),
            _ => None,
        }
    }

    #[rstest]
    #[case("http://127.0.0.1:4318")]
    #[case("http://127.0.0.1:4318/")]
    #[case("http://127.0.0.1:4318/v1/traces")]
    fn endpoint_is_the_collectors_or_that_for_traces(#[case] url: &str) {
        let settings = args(Some(url)).settings_in(|_| None).unwrap();

        let traces = settings.traces.unwrap();
        assert_eq!(traces.endpoint, "http://127.0.0.1:4318/v1/traces");
        assert_eq!(traces.service_name, "ollama-coordinator");
    }

    #[test]
    fn standard_variables_hold_where_nothing_else_is_said() {
        let theirs = args(None).settings_in(standard).unwrap().traces.unwrap();
        let ours = args(Some("http://ours/base")).settings_in(standard);

        assert_eq!(theirs.endpoint, "http://standard:4318/v1/traces");
        assert_eq!(theirs.service_name, "mine");
        assert_eq!(
            ours.unwrap().traces.unwrap().endpoint,
            "http://ours/base/v1/traces"
        );
    }

    #[test]
    fn nothing_is_sent_unless_it_is_asked_for() {
        assert!(args(None).settings_in(|_| None).unwrap().traces.is_none());
    }

    #[rstest]
    #[case("https://127.0.0.1:4318")]
    #[case("127.0.0.1:4318")]
    #[case("http://")]
    #[case("http://collector?key=1")]
    fn unusable_endpoint_is_refused_by_name(#[case] url: &str) {
        let error = args(Some(url)).settings_in(|_| None).unwrap_err();

        assert!(error.0.contains("--otlp-endpoint"), "{error}");
    }
}
