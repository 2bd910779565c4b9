//! Which headers pass: all but those that belong to one connection, or to the coordinator's address.
//!
//! To a browser all runtimes are one site, the coordinator's: what one of them says of cookies and
//! of other origins would hold for all.

use axum::http::{HeaderMap, HeaderName, header};

/// Headers of one connection, by RFC 9110 and by long custom.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What `Access-Control-Allow-Origin` and its like begin with.
const CROSS_ORIGIN: &str = "access-control-";

/// Removes from a request what is not for the runtime.
pub fn strip_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::COOKIE);
}

/// Removes from an answer what is not for the client.
pub fn strip_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::SET_COOKIE);
    let of_origins: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(CROSS_ORIGIN))
        .cloned()
        .collect();
    for name in &of_origins {
        headers.remove(name);
    }
}

/// Removes the headers of one connection, and those that `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn cookies_pass_neither_way_and_rules_for_origins_not_to_clients() {
        let mut headers = HeaderMap::new();
        for name in ["cookie", "set-cookie", "access-control-allow-origin"] {
            headers.append(name, HeaderValue::from_static("x"));
            headers.append(name, HeaderValue::from_static("y"));
        }
        let names = |headers: &HeaderMap| -> BTreeSet<String> {
            headers.keys().map(ToString::to_string).collect()
        };
        let (mut request, mut response) = (headers.clone(), headers);

        strip_request(&mut request);
        strip_response(&mut response);

        let kept = ["access-control-allow-origin", "set-cookie"].map(str::to_owned);
        assert_eq!(names(&request), kept.into());
        assert_eq!(names(&response), ["cookie".to_owned()].into());
    }

    proptest! {
        #[test]
        fn headers_of_one_connection_never_pass(
            names in proptest::collection::vec("[a-z]{1,8}", 0..5), kept in "x-[a-z]{9,12}",
        ) {
            let mut headers = HeaderMap::new();
            for name in HOP_BY_HOP {
                headers.append(name, HeaderValue::from_static("x"));
            }
            for name in &names {
                let name = HeaderName::try_from(name.as_str()).unwrap();
                headers.append(name, HeaderValue::from_static("x"));
            }
            let kept = HeaderName::try_from(kept).unwrap();
            headers.insert(&kept, HeaderValue::from_static("kept"));
            let listed = HeaderValue::try_from(names.join(", ")).unwrap();
            headers.append(header::CONNECTION, listed);

            for strip in [strip_request, strip_response] {
                let mut headers = headers.clone();
                strip(&mut headers);

                prop_assert_eq!(headers.len(), 1, "{:?}", headers);
                prop_assert_eq!(headers.get(&kept).unwrap(), "kept");
            }
        }
    }
}
