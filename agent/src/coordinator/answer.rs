//! Reads what a refusal means; pure.

use std::time::Duration;

use http::header::RETRY_AFTER;
use ollama_coordinator_common::doctor::impostor::Impostor;
use ollama_coordinator_common::http::HttpResponse;
use ollama_coordinator_common::protocol::error::{ErrorCode, Problem};

use super::CoordinatorError;

const MAX_DETAIL_CHARS: usize = 300;

/// Maps an answer that is not the one hoped for.
pub(super) fn refusal(answer: &HttpResponse) -> CoordinatorError {
    let Ok(problem) = answer.json::<Problem>() else {
        return without_problem(answer);
    };
    let detail = one_line(&problem.detail);
    match problem.code {
        ErrorCode::UnknownAgent => CoordinatorError::UnknownAgent,
        ErrorCode::WrongSecret => CoordinatorError::WrongSecret,
        ErrorCode::DuplicateIdentity => CoordinatorError::DuplicateIdentity,
        ErrorCode::UpgradeRequired => CoordinatorError::NotUpgraded,
        ErrorCode::AgentTooOld => CoordinatorError::TooOld { detail },
        ErrorCode::RequestTimeout
        | ErrorCode::RegistryFull
        | ErrorCode::StorageUnavailable
        | ErrorCode::TooManyRequests
        | ErrorCode::Unavailable
        | ErrorCode::Internal => busy(answer, detail),
        ErrorCode::InvalidRequest
        | ErrorCode::AddressNotAllowed
        | ErrorCode::PayloadTooLarge
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::NotFound
        | ErrorCode::UnknownRequest
        | ErrorCode::RequestEnded
        | ErrorCode::MethodNotAllowed => CoordinatorError::Invalid { detail },
        ErrorCode::Unrecognised if is_temporary(answer) => busy(answer, detail),
        ErrorCode::Unrecognised => CoordinatorError::Invalid { detail },
    }
}

/// A proxy in between may answer for a coordinator that is away, in its own words.
fn without_problem(answer: &HttpResponse) -> CoordinatorError {
    if is_temporary(answer) {
        return busy(answer, format!("status {}", answer.status));
    }
    CoordinatorError::NotACoordinator(Impostor::behind(answer))
}

fn is_temporary(answer: &HttpResponse) -> bool {
    let never_changes = [
        http::StatusCode::NOT_IMPLEMENTED,
        http::StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    ];
    let is_servers_fault =
        answer.status.is_server_error() && !never_changes.contains(&answer.status);
    is_servers_fault || answer.status == http::StatusCode::TOO_MANY_REQUESTS
}

fn busy(answer: &HttpResponse, detail: String) -> CoordinatorError {
    let seconds = answer
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let seconds = seconds.and_then(|text| text.trim().parse().ok());
    CoordinatorError::Busy {
        detail,
        retry_after: seconds.map(Duration::from_secs),
    }
}

fn one_line(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_DETAIL_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn problem(status: u16, code: &str, detail: &str) -> HttpResponse {
        let body = json!({
            "type": "about:blank", "title": "t", "status": status, "detail": detail, "code": code,
            "request_id": "00000000-0000-0000-0000-000000000000",
        });
        answer(status, "application/problem+json", body.to_string())
    }

    fn answer(status: u16, content_type: &'static str, body: String) -> HttpResponse {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        HttpResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.into(),
        }
    }

    #[rstest]
    #[case(404, "unknown_agent", "does not know this agent")]
    #[case(403, "wrong_secret", "another secret")]
    #[case(409, "duplicate_identity", "another process")]
    #[case(426, "upgrade_required", "reverse proxy")]
    #[case(400, "agent_too_old", "because; update ollama-agent")]
    #[case(400, "address_not_allowed", "refuses: because")]
    #[case(503, "storage_unavailable", "cannot do this now: because")]
    #[case(503, "invented_later", "cannot do this now: because")]
    #[case(418, "invented_later", "refuses: because")]
    fn codes_are_understood(#[case] status: u16, #[case] code: &str, #[case] expected: &str) {
        let error = refusal(&problem(status, code, "because")).to_string();

        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn retry_after_is_kept() {
        let error = refusal(&problem(429, "too_many_requests", "slow down"));

        let CoordinatorError::Busy { retry_after, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn details_fit_on_one_line() {
        let long = format!("a\r\n\u{1b}[2Jb{}", "x".repeat(1_000));

        let error = refusal(&problem(400, "invalid_request", &long)).to_string();

        assert!(
            error.starts_with("the coordinator refuses: a[2Jbxxx"),
            "{error}"
        );
        assert!(error.len() < 400, "{error}");
    }

    #[test]
    fn strangers_are_named() {
        let page = "<title>Campus login</title>".to_owned();

        let page = refusal(&answer(200, "text/html", page)).to_string();
        let other = refusal(&answer(404, "text/plain", "404 page not found".to_owned()));
        let gateway = refusal(&answer(502, "text/html", "<h1>Bad Gateway</h1>".to_owned()));

        assert!(
            page.contains("a web page (title \"Campus login\"), not an Ollama"),
            "{page}"
        );
        assert!(matches!(
            other,
            CoordinatorError::NotACoordinator(Impostor::Unknown {
                status: StatusCode::NOT_FOUND,
                ..
            })
        ));
        assert!(
            matches!(gateway, CoordinatorError::Busy { .. }),
            "{gateway:?}"
        );
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_fills_more_than_one_line(
            status in 100_u16..1_000, code in "[a-z_]{0,20}", detail in any::<String>(),
            body in prop::option::of(any::<String>()),
        ) {
            let answer = match body {
                Some(body) => answer(status, "text/html", body),
                None => problem(status, &code, &detail),
            };

            let shown = crate::error_chain(&refusal(&answer));

            prop_assert!(!shown.chars().any(char::is_control), "{shown:?}");
            prop_assert!(shown.chars().count() < 700, "{shown}");
        }
    }
}
