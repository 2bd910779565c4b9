//! Texts that people write: URLs, durations, model names, names of agents in a URI.
#![no_main]

use http::{Request, Uri};
use libfuzzer_sys::fuzz_target;
use ollama_coordinator::proxy::selector;
use ollama_coordinator::registry::snapshot::model_key;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::duration;
use ollama_coordinator_common::probe::models_in;

fuzz_target!(|text: &str| {
    if let Ok(url) = BaseUrl::parse(text, 11_400) {
        let again = BaseUrl::parse(&url.to_string(), 1).expect("what is shown can be read");
        assert_eq!(again, url);
        assert!(url.to_string().parse::<Uri>().is_ok());
    }
    let _ = duration::parse(text);
    let key = model_key(text).into_owned();
    assert_eq!(model_key(&text.to_ascii_uppercase()), key);
    let _ = models_in(text.as_bytes());
    if let Ok(uri) = text.parse::<Uri>() {
        let request = Request::builder().uri(uri).body(()).expect("a URI makes a request");
        let (mut head, ()) = request.into_parts();
        for name in selector::take(&mut head) {
            assert!(!name.is_empty());
        }
    }
});
