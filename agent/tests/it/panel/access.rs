//! Who gets in, and what others get.

use http::header::{AUTHORIZATION, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use http::{HeaderName, Method, StatusCode};
use rstest::rstest;

use super::start;
use crate::support::panel::{Browser, panel_of, send, ticket, ticket_for};
use crate::support::process::{command, ended, messages};

#[rstest]
#[case::no_token(&[], StatusCode::UNAUTHORIZED)]
#[case::wrong_token(&[(AUTHORIZATION, "Bearer 0123456789abcdef0123456789abcdef")], StatusCode::UNAUTHORIZED)]
#[case::other_name(&[(HOST, "rebound.example")], StatusCode::MISDIRECTED_REQUEST)]
#[tokio::test]
async fn strangers_get_nothing(
    #[case] headers: &[(HeaderName, &str)],
    #[case] expected: StatusCode,
) {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let file = panel_of(state_dir.path()).await;

    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/status"),
        (Method::POST, "/ticket"),
        (Method::POST, "/pause"),
        (Method::GET, "/p/0123456789abcdef/"),
        (Method::POST, "/p/0123456789abcdef/settings"),
    ] {
        let page = send(&file, (method, path), headers, "").await;

        assert_eq!(page.status, expected, "{path}");
        assert!(!page.text.contains("Coordinator</label>"), "{}", page.text);
        assert_eq!(page.header(SET_COOKIE), None);
    }
}

#[rstest]
#[case("http://evil.example")]
#[case("http://127.0.0.1:1")]
#[case("null")]
#[tokio::test]
async fn other_pages_change_nothing_even_with_the_cookie(#[case] origin: &str) {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let file = panel_of(state_dir.path()).await;
    let browser = Browser::open(file.clone()).await;
    let headers = [browser.host(), (COOKIE, browser.cookie()), (ORIGIN, origin)];

    for path in ["pause", "resume", "settings"] {
        let path = format!("{}{path}", browser.page());
        let page = send(&file, (Method::POST, &path), &headers, "").await;

        assert_eq!(page.status, StatusCode::FORBIDDEN, "{path}");
    }
    let page = browser.get("").await.text;
    assert!(!page.contains("Resume sharing"), "{page}");
}

/// Ports share cookies: what another web server on this host may have got.
#[tokio::test]
async fn stolen_cookie_opens_nothing() {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let file = panel_of(state_dir.path()).await;
    let browser = Browser::open(file.clone()).await;
    let (_, secret) = browser.cookie().split_once('=').unwrap();
    let bearer = format!("Bearer {secret}");
    let guess = format!("/p/{secret}/");

    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/status"),
        (Method::POST, "/pause"),
        (Method::POST, "/ticket"),
        (Method::GET, &*guess),
    ] {
        let headers = [
            (COOKIE, browser.cookie()),
            (AUTHORIZATION, &*bearer),
            (ORIGIN, &*file.url),
        ];
        let page = send(&file, (method, path), &headers, "").await;

        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_ne!(secret, file.token);
}

#[tokio::test]
async fn cookie_is_sent_to_the_page_only_and_the_page_needs_it() {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let file = panel_of(state_dir.path()).await;

    let opened = send(&file, (Method::GET, &ticket(&file).await), &[], "").await;

    let page = opened.header(LOCATION).unwrap();
    let cookie = opened.header(SET_COOKIE).unwrap();
    let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
    let path = format!("Path={page}");
    assert_eq!(attributes, [&*path, "HttpOnly", "SameSite=Strict"]);
    let without = send(&file, (Method::GET, page), &[], "").await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn every_answer_forbids_to_be_kept_framed_or_read_elsewhere() {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let browser = Browser::open(panel_of(state_dir.path()).await).await;

    let file = panel_of(state_dir.path()).await;
    for path in [
        browser.page(),
        "/",
        "/status",
        "/open/0123456789abcdef",
        "/panel.css",
        "/panel.js",
        "/nothing",
    ] {
        let headers = [browser.host(), (COOKIE, browser.cookie())];
        let page = send(&file, (Method::GET, path), &headers, "").await;

        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(page.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(
            page.header("cross-origin-resource-policy"),
            Some("same-origin")
        );
        assert_eq!(page.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn link_opens_the_panel_once_and_leads_to_an_address_that_holds_nothing() {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let file = panel_of(state_dir.path()).await;
    let link = ticket(&file).await;
    let secret = link.rsplit('/').next().unwrap();

    let opened = send(&file, (Method::GET, &link), &[], "").await;
    let again = send(&file, (Method::GET, &link), &[], "").await;

    assert_eq!(opened.status, StatusCode::SEE_OTHER);
    let address = opened.header(LOCATION).unwrap();
    assert!(!address.contains(secret), "{address}");
    assert!(!address.contains(&file.token), "{address}");
    assert_eq!(again.status, StatusCode::GONE);
    assert_eq!(again.header(SET_COOKIE), None);
    assert!(again.text.contains("ollama-agent panel"), "{}", again.text);
    let bearer = format!("Bearer {secret}");
    let headers = [(AUTHORIZATION, &*bearer)];
    let page = send(&file, (Method::GET, "/status"), &headers, "").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
}

/// Who sees a link among the arguments of a program can be faster than that program.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn link_that_the_desktop_is_given_opens_nothing_for_another_user() {
    const NOBODY: u32 = 65_534;
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let file = panel_of(state_dir.path()).await;
    let ask_as_another = async |link: &str| {
        let (host, port) = file
            .url
            .trim_start_matches("http://")
            .split_once(':')
            .unwrap();
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port}; \
             printf 'GET {link} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3"
        );
        let mut shell = tokio::process::Command::new("/bin/bash");
        let asked = shell
            .args(["-c", &script])
            .uid(NOBODY)
            .current_dir("/")
            .output()
            .await;
        asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let link = ticket_for(&file, "own").await;
    let Ok(answer) = ask_as_another(&link).await else {
        // Only root starts programs as another user.
        return;
    };
    let shown = ticket(&file).await;

    let opened_by_both = ask_as_another(&shown).await.unwrap();
    let opened = send(&file, (Method::GET, &link), &[], "").await;

    assert!(answer.starts_with("HTTP/1.1 410"), "{answer}");
    assert!(
        opened_by_both.starts_with("HTTP/1.1 303"),
        "{opened_by_both}"
    );
    assert_eq!(opened.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn token_of_programs_opens_no_link() {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let file = panel_of(state_dir.path()).await;

    for path in ["/open/", "/?token=", "/?ticket="] {
        let path = format!("{path}{}", file.token);
        let page = send(&file, (Method::GET, &path), &[], "").await;

        assert!(page.status.is_client_error(), "{path}");
        assert_eq!(page.header(SET_COOKIE), None);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn address_of_the_panel_is_for_the_owner_and_goes_with_the_agent() {
    use std::os::unix::fs::PermissionsExt as _;

    let state_dir = tempfile::tempdir().unwrap();
    let agent = start(state_dir.path(), &[]);
    let file = panel_of(state_dir.path()).await;
    let path = state_dir.path().join("panel.json");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;

    let link = ended(command(state_dir.path()).arg("panel").spawn().unwrap()).await;
    let pid = agent.id().unwrap().to_string();
    let mut kill = tokio::process::Command::new("kill");
    kill.args(["-TERM", &pid]).status().await.unwrap();
    let output = ended(agent).await;

    assert_eq!(mode, 0o600);
    let link = String::from_utf8(link.stdout).unwrap();
    assert!(link.starts_with(&format!("{}/open/", file.url)), "{link}");
    assert!(!link.contains(&file.token), "{link}");
    assert!(output.status.success(), "{}", messages(&output));
    assert!(!path.exists());
    assert!(!messages(&output).contains(&file.token));
}
