//! Finds the first layer that is broken between this machine and a coordinator. It changes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use ollama_coordinator_common::base_url::{BaseUrl, InvalidBaseUrl};
use ollama_coordinator_common::dial::Dial;
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpResponse, HttpTimeouts};
use ollama_coordinator_common::probe::{COORDINATOR_SERVICE, WebPage};
use serde::{Deserialize, Serialize};

use crate::config::DEFAULT_COORDINATOR_PORT;
use crate::error_chain;

const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(3),
    answer: Duration::from_secs(5),
};

/// One thing that has to work. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The text is a URL.
    Url,
    /// The host's name is known.
    Dns,
    /// The proxy that the environment names lets the connection through.
    Proxy,
    /// Somebody accepts connections there.
    Tcp,
    /// They speak HTTP.
    Http,
    /// They are a coordinator.
    Coordinator,
}

impl Step {
    /// All of them, in the order in which one needs the other.
    pub const ALL: [Self; 6] = [
        Self::Url,
        Self::Dns,
        Self::Proxy,
        Self::Tcp,
        Self::Http,
        Self::Coordinator,
    ];

    /// Returns its name, as in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Dns => "dns",
            Self::Proxy => "proxy",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Coordinator => "coordinator",
        }
    }
}

/// What is known of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It works.
    Yes,
    /// It does not.
    No,
    /// It could not be tried, because something before it does not work.
    Unknown,
}

/// One step with what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub step: Step,
    /// Whether it works.
    pub answer: Answer,
    /// What was seen, in one line.
    pub detail: String,
    /// What to do, when it does not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Everything that was found, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// One finding for each step.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Returns the first step that does not work; `None`: all do.
    pub fn broken(&self) -> Option<&Finding> {
        let mut findings = self.findings.iter();
        findings.find(|finding| finding.answer == Answer::No)
    }
}

/// Tries a coordinator, as somebody wrote its URL.
pub async fn try_coordinator(text: &str, dial: &Dial) -> Diagnosis {
    let url = match BaseUrl::parse(text.trim(), DEFAULT_COORDINATOR_PORT) {
        Ok(url) => url,
        Err(error) => return not_a_url(&error),
    };
    let mut way = Way {
        proxy: dial.proxy_of(&url),
        peer: None,
        url,
    };
    let mut client = HttpClient::new(way.url.clone(), TIMEOUTS).with_dial(dial.clone());
    match client.connect().await {
        Ok(ends) => way.peer = Some(ends.peer),
        Err(error) => return way.fails_at(&error),
    }
    match client.get("/healthz").await {
        Ok(answer) => {
            let is_ollama = !is_coordinator(&answer) && answers_as_ollama(&mut client).await;
            way.leads_to(&answer, is_ollama)
        }
        Err(error) => way.fails_at(&error),
    }
}

async fn answers_as_ollama(client: &mut HttpClient) -> bool {
    let answer = client.get("/api/version").await;
    let body = answer.and_then(|answer| answer.json::<serde_json::Value>());
    body.is_ok_and(|body| body["version"].is_string())
}

fn not_a_url(error: &InvalidBaseUrl) -> Diagnosis {
    let remedy = "Write it as the coordinator prints it, such as http://192.168.1.10:11400";
    up_to(Vec::new(), Step::Url, error.to_string(), remedy.to_owned())
}

/// How far one came.
#[derive(Debug)]
struct Way {
    url: BaseUrl,
    proxy: Option<String>,
    peer: Option<SocketAddr>,
}

impl Way {
    /// Returns what works when `step` is the first that does not.
    fn before(&self, step: Step) -> Vec<Finding> {
        let earlier = Step::ALL.into_iter().filter(|earlier| *earlier < step);
        let finding = |step| Finding {
            step,
            answer: Answer::Yes,
            detail: self.detail(step),
            remedy: None,
        };
        earlier.map(finding).collect()
    }

    fn detail(&self, step: Step) -> String {
        let host = self.url.host();
        match (step, &self.proxy, self.peer) {
            (Step::Url, _, _) => self.url.to_string(),
            (Step::Dns, Some(_), _) => format!("the proxy looks {host} up"),
            (Step::Dns, None, _) => format!("{host} is known"),
            (Step::Proxy, Some(proxy), _) => format!("through {proxy}"),
            (Step::Proxy, None, _) => "none in between".to_owned(),
            (Step::Tcp, _, Some(peer)) => format!("connected to {peer}"),
            (Step::Tcp, _, None) => "connected".to_owned(),
            (Step::Http | Step::Coordinator, _, _) => "it answers".to_owned(),
        }
    }

    fn fails_at(&self, error: &HttpError) -> Diagnosis {
        let (host, port) = (self.url.host(), self.url.port());
        let (step, remedy) = match error {
            HttpError::Resolve { .. } => (
                Step::Dns,
                "Check the spelling, or write the machine's address instead of its name".to_owned(),
            ),
            HttpError::Proxy { .. } => (
                Step::Proxy,
                format!("Add {host} to NO_PROXY, or correct the proxy's URL"),
            ),
            HttpError::Connect { source, .. } => (Step::Tcp, unconnected(&self.url, source)),
            HttpError::Timeout { .. } | HttpError::Exchange(_) if self.peer.is_some() => (
                Step::Http,
                format!(
                    "Something else uses port {port} there; a coordinator is usually on port \
                     {DEFAULT_COORDINATOR_PORT}"
                ),
            ),
            HttpError::Timeout { .. } | HttpError::Exchange(_) => (Step::Tcp, no_answer(&self.url)),
            HttpError::TooLarge { .. } | HttpError::UnexpectedBody { .. } => {
                (Step::Coordinator, elsewhere())
            }
        };
        up_to(self.before(step), step, error_chain(error), remedy)
    }

    fn leads_to(&self, answer: &HttpResponse, is_ollama: bool) -> Diagnosis {
        let mut findings = self.before(Step::Coordinator);
        if let Some(version) = coordinator_version(answer) {
            findings.push(Finding {
                step: Step::Coordinator,
                answer: Answer::Yes,
                detail: format!("Ollama Coordinator {version}"),
                remedy: None,
            });
            return Diagnosis { findings };
        }
        let status = answer.status;
        let seen = match WebPage::detect(answer) {
            _ if is_ollama => "what answers is Ollama, not a coordinator".to_owned(),
            Some(page) => format!("what answers is {page}, not a coordinator"),
            None if status.is_server_error() => {
                format!("what answers says status {status}: a proxy whose coordinator is away?")
            }
            None => format!("what answers (status {status}) is something else"),
        };
        up_to(findings, Step::Coordinator, seen, elsewhere())
    }
}

/// What a coordinator says of itself.
#[derive(Debug, Deserialize)]
struct Health {
    service: String,
    version: String,
}

fn coordinator_version(answer: &HttpResponse) -> Option<String> {
    let health = answer.json::<Health>().ok()?;
    (health.service == COORDINATOR_SERVICE).then_some(health.version)
}

fn is_coordinator(answer: &HttpResponse) -> bool {
    coordinator_version(answer).is_some()
}

fn unconnected(url: &BaseUrl, error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::ConnectionRefused {
        return format!(
            "That machine is there, but nothing listens on its port {}: is ollama-coordinator \
             running, and on this port?",
            url.port()
        );
    }
    no_answer(url)
}

fn no_answer(url: &BaseUrl) -> String {
    format!(
        "Check that the machine is on and in the same network, and that its firewall lets port {} in",
        url.port()
    )
}

fn elsewhere() -> String {
    "Enter the URL that ollama-coordinator prints when it starts; its port is usually 11400"
        .to_owned()
}

/// Adds the step that does not work, and those of which nothing is known.
fn up_to(mut findings: Vec<Finding>, broken: Step, detail: String, remedy: String) -> Diagnosis {
    findings.push(Finding {
        step: broken,
        answer: Answer::No,
        detail,
        remedy: Some(remedy),
    });
    let later = Step::ALL.into_iter().filter(|step| *step > broken);
    findings.extend(later.map(|step| Finding {
        step,
        answer: Answer::Unknown,
        detail: "not tried".to_owned(),
        remedy: None,
    }));
    Diagnosis { findings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rstest::rstest;

    fn way() -> Way {
        Way {
            url: BaseUrl::parse("gpu-hub:11400", 1).unwrap(),
            proxy: None,
            peer: None,
        }
    }

    fn answer(status: u16, content_type: &str, body: &'static str) -> HttpResponse {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", content_type.parse().unwrap());
        HttpResponse {
            status: http::StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[rstest]
    #[case(
        200,
        "application/json",
        r#"{"service":"ollama-coordinator","version":"1.2"}"#,
        None,
        "1.2"
    )]
    #[case(
        200,
        "text/html",
        "<title>Campus login</title>",
        Some(Step::Coordinator),
        "Campus login"
    )]
    #[case(502, "text/plain", "bad gateway", Some(Step::Coordinator), "a proxy")]
    #[case(
        200,
        "application/json",
        "{}",
        Some(Step::Coordinator),
        "something else"
    )]
    fn who_answers_is_told(
        #[case] status: u16,
        #[case] content_type: &str,
        #[case] body: &'static str,
        #[case] broken: Option<Step>,
        #[case] expected: &str,
    ) {
        let diagnosis = way().leads_to(&answer(status, content_type, body), false);

        assert_eq!(diagnosis.broken().map(|finding| finding.step), broken);
        let last = diagnosis.findings.last().unwrap();
        assert!(last.detail.contains(expected), "{last:?}");
    }

    #[test]
    fn first_broken_layer_is_named_and_nothing_is_claimed_of_those_behind_it() {
        let source = std::io::ErrorKind::ConnectionRefused.into();
        let addr = "127.0.0.1:11400".parse().unwrap();

        let diagnosis = way().fails_at(&HttpError::Connect { addr, source });

        let answers = diagnosis.findings.iter().map(|f| (f.step, f.answer));
        let expected = [
            (Step::Url, Answer::Yes),
            (Step::Dns, Answer::Yes),
            (Step::Proxy, Answer::Yes),
            (Step::Tcp, Answer::No),
            (Step::Http, Answer::Unknown),
            (Step::Coordinator, Answer::Unknown),
        ];
        assert!(answers.eq(expected), "{diagnosis:?}");
        let remedy = diagnosis.broken().unwrap().remedy.as_deref().unwrap();
        assert!(
            remedy.contains("nothing listens on its port 11400"),
            "{remedy}"
        );
    }

    #[tokio::test]
    async fn text_that_is_no_url_is_not_tried() {
        let diagnosis = try_coordinator("https://gpu-hub", &Dial::default()).await;

        let broken = diagnosis.broken().unwrap();
        assert_eq!((broken.step, broken.step.id()), (Step::Url, "url"));
        assert!(broken.detail.contains("https"), "{broken:?}");
    }
}
