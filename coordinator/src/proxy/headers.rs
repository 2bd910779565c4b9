//! Which headers pass: all but those that belong to one connection, or to the coordinator's address.
//!
//! To a browser all runtimes are one site, the coordinator's: what one of them says of cookies and
//! of other origins would hold for all.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Removes from a request what is not for the runtime.
pub fn strip_request(headers: &mut HeaderMap) {
    strip(headers, |name| {
        matches!(name, "host" | "content-length" | "expect" | "cookie")
    });
}

/// Removes from an answer what is not for the client. What another coordinator says of the way to
/// its agents is not what this one says of the way to its own.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers, |name| {
        name == "set-cookie"
            || name.starts_with("access-control-")
            || name.starts_with("x-coordinator-")
    });
}

/// Removes what `is_unwanted` and the headers of one connection, those that `Connection` names too.
///
/// The names are looked at in one pass for each that goes, which are few: nothing is allocated, and
/// only what goes is searched for in the map.
fn strip(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let is_option = |(name, value): &(&HeaderName, &HeaderValue)| {
        *name == header::CONNECTION && !is_usual(value.as_bytes())
    };
    let options: Vec<HeaderValue> = headers
        .iter()
        .filter(is_option)
        .map(|(_, value)| value.clone())
        .collect();
    let goes = |name: &HeaderName| {
        is_hop_by_hop(name.as_str())
            || is_unwanted(name.as_str())
            || options.iter().any(|option| names(option, name))
    };
    while let Some(name) = headers.keys().find(|name| goes(name)).cloned() {
        headers.remove(name);
    }
}

/// Returns whether a header belongs to one connection, by RFC 9110 and by long custom.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Returns whether a `Connection` header names no header that could be there.
fn is_usual(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

/// Returns whether a `Connection` header names `name`.
fn names(value: &HeaderValue, name: &HeaderName) -> bool {
    let mut options = value.as_bytes().split(|byte| *byte == b',');
    options.any(|option| {
        option
            .trim_ascii()
            .eq_ignore_ascii_case(name.as_str().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    const HOP_BY_HOP: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];

    #[test]
    fn what_another_coordinator_says_of_its_agents_does_not_pass() {
        let mut headers = HeaderMap::new();
        headers.insert("x-coordinator-agent", HeaderValue::from_static("x"));
        headers.insert("x-kept", HeaderValue::from_static("x"));

        strip_response(&mut headers);

        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("x-kept"));
    }

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
