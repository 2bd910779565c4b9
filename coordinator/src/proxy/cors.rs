//! Pages of any origin may call: there is no access control yet.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};

use super::body::ProxyBody;

/// What a page of another origin may read beside the usual headers.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-coordinator-agent,x-coordinator-attempts,x-coordinator-request,server-timing,retry-after",
);
const ANY: HeaderValue = HeaderValue::from_static("*");
const METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD,POST,DELETE");
const AN_HOUR: HeaderValue = HeaderValue::from_static("3600");

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A page in a browser.
    Page,
    /// No browser said so.
    Unknown,
}

impl Origin {
    /// Reads it from a request.
    pub fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::ORIGIN) {
            Self::Page
        } else {
            Self::Unknown
        }
    }

    /// Lets the page read the answer.
    pub fn mark(self, headers: &mut HeaderMap) {
        match self {
            Self::Page => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
            Self::Unknown => {}
        }
    }
}

/// Answers a browser that asks whether it may send a request.
pub fn preflight(head: &Parts) -> Option<Response<ProxyBody>> {
    let is_preflight = head.method == Method::OPTIONS
        && head
            .headers
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight {
        return None;
    }
    let mut response = Response::new(ProxyBody::Whole(None));
    let mut allow = |name: HeaderName, value| response.headers_mut().insert(name, value);
    allow(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    allow(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    allow(header::ACCESS_CONTROL_MAX_AGE, AN_HOUR);
    if let Some(asked) = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        allow(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    Some(response)
}
