//! Requests to machines rather than to models.

use axum::http::Response;
use axum::http::request::Parts;
use hyper::body::Incoming;

use super::body::ProxyBody;
use super::route::Machine;
use super::{Proxy, error};

/// Has a machine answer.
pub async fn answer(
    proxy: &Proxy,
    machine: Machine,
    head: Parts,
    body: Incoming,
) -> Response<ProxyBody> {
    let _unused = (proxy, machine, head, body);
    error::page_not_found()
}
