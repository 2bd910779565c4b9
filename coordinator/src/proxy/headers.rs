//! Which headers pass: all but those that belong to one connection.

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

/// Removes the headers of one connection, and those that `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
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
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

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

            strip_hop_by_hop(&mut headers);

            prop_assert_eq!(headers.len(), 1, "{:?}", headers);
            prop_assert_eq!(headers.get(&kept).unwrap(), "kept");
        }
    }
}
