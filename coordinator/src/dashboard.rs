//! The web page at `/` for browsers: built by Vite, embedded here, each file in three encodings.
//!
//! A browser says that it takes HTML; Ollama's clients do not, and get Ollama's answer at `/`.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
};
use rust_embed::{Embed, EmbeddedFile};

use crate::proxy::body::ProxyBody;

const ASSETS: &str = "/assets/";
const INDEX: &str = "index.html";
/// Files below [`ASSETS`] have a hash of their content in their names.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'self'";
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
    <title>Ollama Coordinator</title><h1>The dashboard is not part of this build</h1>\
    <p>Run <code>make dashboard</code>, which needs Node, and build again. \
    Everything else works: <code>ollama-coordinator agents</code> lists the machines.</p>";

#[derive(Embed)]
#[folder = "../dashboard/dist/site"]
#[allow_missing = true]
struct Site;

/// Returns whether a request is for the dashboard.
pub fn owns<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let is_page = path == "/" && takes_html(request.headers());
    (is_page || path.starts_with(ASSETS)) && matches!(*request.method(), Method::GET | Method::HEAD)
}

/// Answers a request that [`owns`] took.
pub fn answer<B>(request: &Request<B>) -> Response<ProxyBody> {
    let path = request.uri().path();
    let name = path.strip_prefix('/').filter(|name| !name.is_empty());
    match (find(name.unwrap_or(INDEX), request.headers()), name) {
        (Some(found), Some(_)) => file(&found, IMMUTABLE, request.headers()),
        (Some(found), None) => file(&found, "no-cache", request.headers()),
        (None, Some(_)) => page(
            StatusCode::NOT_FOUND,
            "<!doctype html><p>There is no such file.",
        ),
        (None, None) => page(StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT),
    }
}

fn takes_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

/// A file of the dashboard as it is sent.
struct Found {
    file: EmbeddedFile,
    encoding: Option<&'static str>,
    content_type: &'static str,
}

/// Finds a file in the best encoding that the browser takes.
fn find(name: &str, headers: &HeaderMap) -> Option<Found> {
    let content_type = content_type(name)?;
    let accepted = headers.get(header::ACCEPT_ENCODING);
    let accepted = accepted.and_then(|value| value.to_str().ok()).unwrap_or("");
    let takes = |encoding: &str| {
        let mut offered = accepted.split(',').map(str::trim);
        offered.any(|offer| {
            let (name, weight) = offer.split_once(';').unwrap_or((offer, ""));
            name.trim() == encoding && !matches!(weight.trim(), "q=0" | "q=0.0")
        })
    };
    let compressed = [("br", ".br"), ("gzip", ".gz")];
    let mut compressed = compressed
        .into_iter()
        .filter(|(encoding, _)| takes(encoding));
    let best = compressed.find_map(|(encoding, suffix)| {
        Some((Site::get(&format!("{name}{suffix}"))?, Some(encoding)))
    });
    let (file, encoding) = best.or_else(|| Some((Site::get(name)?, None)))?;
    Some(Found {
        file,
        encoding,
        content_type,
    })
}

fn content_type(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

fn file(found: &Found, cache: &'static str, asked: &HeaderMap) -> Response<ProxyBody> {
    let tag = entity_tag(found);
    let is_known = asked.get(header::IF_NONE_MATCH) == Some(&tag);
    let (status, body) = if is_known {
        (StatusCode::NOT_MODIFIED, ProxyBody::whole(""))
    } else {
        (StatusCode::OK, ProxyBody::whole(found.file.data.to_vec()))
    };
    let mut response = respond(status, body, found.content_type);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::ETAG, tag);
    if let Some(encoding) = found.encoding {
        let encoding = HeaderValue::from_static(encoding);
        headers.insert(header::CONTENT_ENCODING, encoding);
    }
    response
}

fn entity_tag(found: &Found) -> HeaderValue {
    let hash = found.file.metadata.sha256_hash();
    let start = u64::from_be_bytes(*hash.first_chunk().expect("a SHA-256 has eight bytes"));
    HeaderValue::from_str(&format!("\"{start:016x}\"")).expect("digits are a header value")
}

fn page(status: StatusCode, html: &'static str) -> Response<ProxyBody> {
    let mut response = respond(status, ProxyBody::whole(html), "text/html; charset=utf-8");
    let uncached = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, uncached);
    response
}

fn respond(status: StatusCode, body: ProxyBody, content_type: &'static str) -> Response<ProxyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::VARY, "accept, accept-encoding"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
