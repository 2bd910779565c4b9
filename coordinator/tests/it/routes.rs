//! What holds for every route: origins, methods, paths.

use http::{Method, StatusCode, header};
use rstest::rstest;

use crate::support::api::request;
use crate::support::coordinator::TestCoordinator;

#[tokio::test]
async fn pages_of_other_origins_may_call_the_api() {
    let coordinator = TestCoordinator::new().await;
    let mut preflight = request(Method::OPTIONS, "/api/agents", "");
    for (name, value) in [
        (header::ORIGIN, "http://dashboard.example"),
        (header::ACCESS_CONTROL_REQUEST_METHOD, "PATCH"),
        (
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            "authorization,content-type",
        ),
    ] {
        preflight.headers_mut().insert(name, value.parse().unwrap());
    }
    let from_elsewhere = |path: &str| {
        let mut simple = request(Method::GET, path, "");
        let origin = "http://dashboard.example".parse().unwrap();
        simple.headers_mut().insert(header::ORIGIN, origin);
        simple
    };

    let allowed = coordinator.api.send(preflight).await;
    let listed = coordinator
        .api
        .send(from_elsewhere("/api/agents?limit=1"))
        .await;
    let refused = coordinator.api.send(from_elsewhere("/api/agents/x")).await;

    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(allowed.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    assert!(
        allowed
            .header(header::ACCESS_CONTROL_ALLOW_METHODS)
            .contains("PATCH")
    );
    let headers = allowed
        .header(header::ACCESS_CONTROL_ALLOW_HEADERS)
        .to_lowercase();
    assert_eq!(headers, "content-type,authorization");
    for answer in [listed, refused] {
        assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        let exposed = answer.header(header::ACCESS_CONTROL_EXPOSE_HEADERS);
        assert_eq!(exposed, "x-next-cursor,retry-after");
    }
}

#[rstest]
#[case("/api/chat", Method::POST)]
#[case("/v1/chat/completions", Method::POST)]
#[case("/api/tags", Method::GET)]
#[tokio::test]
async fn pages_of_other_origins_may_ask_a_model_with_any_header(
    #[case] path: &str,
    #[case] method: Method,
) {
    let coordinator = TestCoordinator::new().await;
    let mut preflight = request(Method::OPTIONS, path, "");
    let mut ask = request(method.clone(), path, "{}");
    let origin = header::HeaderValue::from_static("http://chat.example");
    for (name, value) in [
        (header::ACCESS_CONTROL_REQUEST_METHOD, method.as_str()),
        (
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            "authorization,x-stainless-lang",
        ),
    ] {
        preflight.headers_mut().insert(name, value.parse().unwrap());
    }
    for asked in [&mut preflight, &mut ask] {
        asked.headers_mut().insert(header::ORIGIN, origin.clone());
    }

    let allowed = coordinator.api.send(preflight).await;
    let answer = coordinator.api.send(ask).await;

    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(
        allowed.header(header::ACCESS_CONTROL_ALLOW_HEADERS),
        "authorization,x-stainless-lang"
    );
    for answer in [allowed, answer] {
        assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    }
}

#[rstest]
#[case("/")]
#[case("/healthz")]
#[case("/api/agents")]
#[case("/api/tags")]
#[case("/api/version")]
#[tokio::test]
async fn head_is_answered_as_get_without_a_body(#[case] path: &str) {
    let coordinator = TestCoordinator::new().await;

    let mut answer = coordinator.api.send(request(Method::HEAD, path, "")).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(answer.header(header::CONTENT_LENGTH), "");
    assert_eq!(answer.text().await, "");
}

#[tokio::test]
async fn unknown_path_is_answered_in_the_words_of_its_protocol() {
    let coordinator = TestCoordinator::new().await;

    let mut managed = coordinator.api.get("/api/agents/x/y/z").await;
    let mut other = coordinator.api.get("/wp-login.php").await;

    assert_eq!(managed.problem(404).await["code"], "not_found");
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    assert_eq!(other.text().await, "404 page not found");
}

#[rstest]
#[case(Method::PUT, "/api/agents", "GET,HEAD,POST")]
#[case(Method::POST, "/healthz", "GET,HEAD")]
#[case(Method::GET, "/api/agents/register", "POST")]
#[case(Method::GET, "/api/chat", "POST")]
#[case(Method::DELETE, "/api/tags", "GET,HEAD")]
#[tokio::test]
async fn unknown_method_is_refused_with_the_known_ones(
    #[case] method: Method,
    #[case] path: &str,
    #[case] allow: &str,
) {
    let coordinator = TestCoordinator::new().await;

    let answer = coordinator.api.send(request(method, path, "")).await;

    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.header(header::ALLOW), allow);
}
