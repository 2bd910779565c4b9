//! The page for browsers, beside what Ollama's clients get from the same path.

use http::{HeaderValue, Method};

use crate::support::api::{Answer, request};
use crate::support::coordinator::TestCoordinator;

const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

async fn browse(coordinator: &TestCoordinator, path: &str, encoding: &str) -> Answer {
    let mut request = request(Method::GET, path, "");
    let headers = request.headers_mut();
    headers.insert("accept", HeaderValue::from_static(BROWSER));
    headers.insert(
        "accept-encoding",
        HeaderValue::from_str(encoding).expect("it is a header value"),
    );
    coordinator.api.send(request).await
}

#[tokio::test]
async fn browsers_get_a_page_and_clients_get_ollamas_answer() {
    let coordinator = TestCoordinator::new().await;

    let mut page = browse(&coordinator, "/", "identity").await;
    let mut plain = coordinator.api.get("/").await;

    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'none'")
    );
    assert!(page.header("vary").contains("accept"));
    assert!(page.text().await.starts_with("<!doctype html>"));
    assert_eq!(plain.text().await, "Ollama is running");
}

#[tokio::test]
async fn missing_file_is_not_the_page() {
    let coordinator = TestCoordinator::new().await;

    let missing = browse(&coordinator, "/assets/none.js", "gzip").await;

    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn browser_behind_a_proxy_that_leaves_a_prefix_on_is_told_what_to_change() {
    let coordinator = TestCoordinator::new().await;

    let mut page = browse(&coordinator, "/a/b/", "identity").await;
    let mut plain = coordinator.api.get("/a/b/").await;

    assert_eq!((page.status.as_u16(), plain.status.as_u16()), (404, 404));
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text().await.contains("must take the prefix off"));
    assert_eq!(plain.text().await, "404 page not found");
}

#[tokio::test]
async fn built_dashboard_is_compressed_and_kept_by_the_browser() {
    let coordinator = TestCoordinator::new().await;
    let mut page = browse(&coordinator, "/", "identity").await;
    if page.status == 503 {
        println!("SKIPPED built_dashboard: the dashboard is not built, `make dashboard` does it");
        return;
    }
    let page = page.text().await;
    let start = page.find("assets/index-").expect("the page has a script");
    let script = page.split_at(start).1.split('"').next().unwrap();

    for (offered, expected) in [("gzip, deflate, br", "br"), ("gzip, deflate", "gzip")] {
        let answer = browse(&coordinator, &format!("/{script}"), offered).await;

        assert_eq!(answer.header("content-encoding"), expected);
        assert_eq!(
            answer.header("content-type"),
            "text/javascript; charset=utf-8"
        );
        assert!(answer.header("cache-control").contains("immutable"));
    }
}
