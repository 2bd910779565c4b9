//! A look into a client's body, plain, packed or a form: nothing panics, and of JSON that says
//! one thing once, the same is found as by a JSON parser.
#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use ollama_coordinator::proxy::peek::{Peek, Prefix};
use serde_json::Value;

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, body) = input;
    let mut headers = HeaderMap::new();
    match kind % 4 {
        0 => {
            let form = HeaderValue::from_static("multipart/form-data; boundary=x");
            headers.insert(header::CONTENT_TYPE, form);
        }
        1 => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        }
        _ => {}
    }
    let prefix = if kind & 4 == 0 { Prefix::Wanted } else { Prefix::Ignored };
    let found = Peek::of(&headers, body, prefix);
    if kind % 4 < 2 {
        return;
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return;
    };
    let named = |wanted: &str| {
        let same = fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(wanted));
        same.map(|(_, value)| value).collect::<Vec<_>>()
    };
    // A key that stands twice is there once in a `Value`, so it is counted in the text.
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    let is_said_once = |key: &str| text.matches(key).count() == 1 && !text.contains('\\');
    if let ([Value::String(model)], true, []) = (&*named("model"), is_said_once("model"), &*named("name"))
        && named("stream").iter().all(|value| value.is_boolean() || value.is_null())
    {
        assert_eq!(&found.expect("it is JSON").model, model);
    }
});
