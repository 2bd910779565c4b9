//! What can be wrong between here and the coordinator.

use chrono::{TimeDelta, Utc};
use ollama_coordinator_common::doctor::{Answer, CheckId};
use rstest::rstest;
use serde_json::json;

#[cfg(target_os = "linux")]
use super::host;
use super::runtime;
use crate::doctor::support::{Patient, Stranger};
#[cfg(target_os = "linux")]
use crate::support::network::Host;
use crate::support::port::ReservedPort;
use crate::support::skip;

#[tokio::test]
async fn wrong_port_is_a_matter_of_tcp() {
    let (nobody, runtime) = (ReservedPort::new(), runtime().await);
    let patient = Patient::new(&format!("http://{}", nobody.addr()), runtime.addr());

    let examined = patient.examine().await;

    examined.assert_broken(
        CheckId::Tcp,
        "127.0.0.1 means this machine, and no coordinator runs here",
        "use the address of the coordinator's machine",
    );
    assert_eq!(examined.check(CheckId::Runtime).answer, Answer::Ok);
}

#[rstest]
#[case::web_page(
    200,
    "text/html",
    "<title>Campus login</title>",
    "\"Campus login\"",
    "in a browser"
)]
#[case::login(
    401,
    "text/plain",
    "who are you",
    "wants a login",
    "have the reverse proxy let"
)]
#[case::gateway(
    502,
    "text/html",
    "<h1>Bad gateway</h1>",
    "reverse proxy",
    "start the coordinator"
)]
#[case::other(
    404,
    "text/plain",
    "not found",
    "(status 404 Not Found)",
    "usually on port 11400"
)]
#[tokio::test]
async fn something_else_in_place_of_a_coordinator_is_described(
    #[case] status: u16,
    #[case] content_type: &'static str,
    #[case] body: &'static str,
    #[case] found: &str,
    #[case] remedy: &str,
) {
    let stranger = Stranger::answering(status, content_type, body).await;
    let runtime = runtime().await;

    let examined = Patient::new(&stranger.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_broken(CheckId::Coordinator, found, remedy);
}

#[tokio::test]
async fn ollama_in_place_of_a_coordinator_is_described() {
    let runtime = runtime().await;
    let url = format!("http://{}", runtime.addr());

    let examined = Patient::new(&url, runtime.addr()).examine().await;

    examined.assert_broken(
        CheckId::Coordinator,
        "it is Ollama",
        "usually on port 11400",
    );
}

#[rstest]
#[case::tls(&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46], "speaks TLS")]
#[case::ssh(b"SSH-2.0-OpenSSH_9.2\r\n", "is an SSH server")]
#[tokio::test]
async fn another_language_is_a_matter_of_http(#[case] bytes: &'static [u8], #[case] found: &str) {
    let stranger = Stranger::saying(bytes).await;
    let runtime = runtime().await;

    let examined = Patient::new(&stranger.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_broken(CheckId::Http, found, "with http://");
}

#[tokio::test]
async fn proxy_that_refuses_is_named_with_its_variable() {
    let refusal = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    let (proxy, runtime) = (Stranger::saying(refusal).await, runtime().await);
    let patient =
        Patient::new("http://hub.invalid:11400", runtime.addr()).with("HTTPS_PROXY", &proxy.url());

    let examined = patient.examine().await;

    examined.assert_broken(
        CheckId::Proxy,
        &format!(
            "HTTPS_PROXY={} is set, so hub.invalid is asked through it",
            proxy.url()
        ),
        "add hub.invalid to NO_PROXY",
    );
}

#[tokio::test]
async fn old_version_is_a_matter_of_version() {
    let coordinator = Stranger::coordinator(json!({ "oldest_agent": "9.0.0" }), None).await;
    let runtime = runtime().await;

    let examined = Patient::new(&coordinator.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_broken(CheckId::Version, "(needs 9.0.0 or newer)", "update");
}

#[tokio::test]
async fn clock_skew_is_a_warning() {
    let theirs = Utc::now() + TimeDelta::minutes(6);
    let date = theirs.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let coordinator = Stranger::coordinator(json!({}), Some(date)).await;
    let runtime = runtime().await;

    let examined = Patient::new(&coordinator.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_warned(CheckId::Clock, "behind the coordinator's");
}

#[tokio::test]
async fn reverse_proxy_without_upgrades_is_a_matter_of_the_tunnel() {
    let coordinator = Stranger::coordinator(json!({ "lets_upgrade": false }), None).await;
    let runtime = runtime().await;

    let examined = Patient::new(&coordinator.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_broken(CheckId::Tunnel, "lets no tunnel through", "`Upgrade`");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn wrong_host_is_a_matter_of_its_name() {
    let Some(host) = host("a host name that is not known") else {
        return;
    };
    let inside = host.enter();
    let runtime = runtime().await;

    let examined = Patient::new("http://gpu-hub.invalid:11400", runtime.addr())
        .examine()
        .await;

    drop(inside);
    examined.assert_broken(
        CheckId::Name,
        "`gpu-hub.invalid` is not found",
        "IP address",
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn firewall_that_drops_is_a_matter_of_tcp() {
    let hosts = ["here", "hub"].map(Host::new);
    let [here, hub] = match hosts {
        [Ok(here), Ok(hub)] => [here, hub],
        [Err(reason), _] | [_, Err(reason)] => return skip("a firewall that drops", &reason),
    };
    here.connect(("eth0", "10.9.0.20/24"), &hub, ("eth0", "10.9.0.10/24"))
        .unwrap();
    let rules = "table inet filter { chain into { type filter hook input priority 0; \
        tcp dport 11400 drop; }; }";
    hub.nft(rules).unwrap();
    let inside = here.enter();
    let runtime = runtime().await;

    let examined = Patient::new("http://10.9.0.10:11400", runtime.addr())
        .examine()
        .await;

    drop(inside);
    examined.assert_broken(
        CheckId::Tcp,
        "10.9.0.10:11400",
        "allow TCP port 11400 there",
    );
}
