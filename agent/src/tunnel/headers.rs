//! Which headers pass: all but those that belong to one connection.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};

/// Those that belong to one connection by RFC 9110 and by long custom.
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

/// Removes what belongs to one connection, and what `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(names).collect();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    for name in named {
        headers.remove(name);
    }
}

fn names(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let options = value.as_bytes().split(|byte| *byte == b',');
    options.filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_go_and_the_others_stay() {
        let mut headers = HeaderMap::new();
        for name in HOP_BY_HOP.into_iter().chain(["x-named", "x-kept", "te"]) {
            headers.append(name, HeaderValue::from_static("x"));
        }
        headers.append(
            CONNECTION,
            HeaderValue::from_static("close, X-Named,,(odd)"),
        );

        strip(&mut headers);

        let kept: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(kept, ["x-kept"]);
    }
}
