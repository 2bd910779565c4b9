//! Which coordinators a request has passed, so that one that comes back is not sent round again.
//!
//! Every coordinator adds its instance to a header; one that finds itself there refuses.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ollama_coordinator_common::id::InstanceId;

/// The header that lists the coordinators passed.
const HOP_HEADER: HeaderName = HeaderName::from_static("x-coordinator-hop");

/// Returns whether a request has passed the coordinator `own`.
pub fn has_passed(headers: &HeaderMap, own: InstanceId) -> bool {
    if !headers.contains_key(HOP_HEADER) {
        return false;
    }
    let own = own.to_string();
    headers
        .get_all(HOP_HEADER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|hop| hop.trim().eq_ignore_ascii_case(&own))
}

/// Returns how a coordinator calls itself to the next one.
pub fn value(own: InstanceId) -> HeaderValue {
    HeaderValue::from_str(own.encode(&mut [0; 36])).expect("a UUID is a header value")
}

/// Returns the hops that a request has arrived with.
pub fn passed(arrived: &HeaderMap) -> Vec<HeaderValue> {
    arrived.get_all(HOP_HEADER).iter().cloned().collect()
}

/// Adds `own` to the hops that a request arrived with, even if its `Connection` disowned them.
pub fn add(forwarded: &mut HeaderMap, passed: Vec<HeaderValue>, own: &HeaderValue) {
    forwarded.remove(HOP_HEADER);
    for hop in passed {
        forwarded.append(HOP_HEADER, hop);
    }
    forwarded.append(HOP_HEADER, own.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_knows_every_coordinator_that_it_has_passed() {
        let [first, second, other] = std::array::from_fn(|_| InstanceId::new());
        let (mut once, mut twice) = (HeaderMap::new(), HeaderMap::new());

        add(&mut once, Vec::new(), &value(first));
        add(&mut twice, passed(&once), &value(second));

        assert!(has_passed(&twice, first) && has_passed(&twice, second));
        assert!(!has_passed(&twice, other) && !has_passed(&once, second));
    }

    #[test]
    fn hops_that_a_proxy_has_joined_are_found() {
        let own = InstanceId::new();
        let mut headers = HeaderMap::new();
        let joined = format!("{}, {own} ,x", InstanceId::new());
        headers.insert(HOP_HEADER, joined.parse().unwrap());

        assert!(has_passed(&headers, own));
    }
}
