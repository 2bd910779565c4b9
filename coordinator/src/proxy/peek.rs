//! A look into a request's body for what routing needs; everything else in it is passed over.
//!
//! The rules are those of the runtimes: a field's case does not matter, of two fields with one
//! name the later counts, `name` stands for `model`.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::io::Read as _;

use axum::http::{HeaderMap, header};
use ruzstd::decoding::StreamingDecoder;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::ProxyError;

/// The most bytes that a packed body is unpacked to; the runtimes take no more either.
const MAX_UNPACKED_BYTES: u64 = 20 * 1024 * 1024;
/// How much of a prompt tells conversations apart.
const PREFIX_BYTES: usize = 1024;
/// How many messages tell conversations apart: the system's and the first of the user.
const PREFIX_MESSAGES: usize = 2;

/// What a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peek {
    /// The model; empty: the request names none.
    pub model: String,
    /// Whether the answer is to be streamed, when the request says so.
    pub stream: Option<bool>,
    /// A hash of the beginning of the conversation.
    pub prefix: Option<u64>,
}

/// Whether the beginning of the conversation is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// It is.
    Wanted,
    /// It is not: looking for it takes time.
    Ignored,
}

impl Peek {
    /// Looks into the body of a request with these headers.
    pub fn of(headers: &HeaderMap, body: &[u8], prefix: Prefix) -> Result<Self, ProxyError> {
        let content_type = headers.get(header::CONTENT_TYPE);
        let is_form = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/"));
        if is_form {
            return Ok(Self::form(body));
        }
        let encoding = headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"zstd")) {
            return Self::json(&unpacked(body, MAX_UNPACKED_BYTES)?, prefix);
        }
        Self::json(body, prefix)
    }

    /// Looks into a form: the field that is named `model`.
    fn form(body: &[u8]) -> Self {
        let field = find(body, b"name=\"model\"").map_or(&body[..0], |at| &body[at..]);
        let value = find(field, b"\r\n\r\n").map_or(&field[..0], |at| &field[at + 4..]);
        let value = find(value, b"\r\n").map_or(&value[..0], |end| &value[..end]);
        Self {
            model: String::from_utf8_lossy(value).into_owned(),
            ..Self::default()
        }
    }

    /// Looks into a body of JSON.
    pub fn json(body: &[u8], prefix: Prefix) -> Result<Self, ProxyError> {
        if body.is_empty() {
            return Err(ProxyError::BadBody("missing request body"));
        }
        // What follows the first value is of no interest to the runtimes either.
        let mut json = serde_json::Deserializer::from_slice(body);
        let fields = match prefix {
            Prefix::Ignored => Fields::<'_, false>::deserialize(&mut json).map(Self::from_fields),
            Prefix::Wanted => Fields::<'_, true>::deserialize(&mut json).map(Self::from_fields),
        };
        fields.map_err(ProxyError::NotJson)
    }

    fn from_fields<const PREFIX: bool>(fields: Fields<'_, PREFIX>) -> Self {
        let name = fields.model.filter(|model| !model.is_empty());
        Self {
            model: name.or(fields.name).unwrap_or_default().into_owned(),
            stream: fields.stream,
            prefix: fields.prefix,
        }
    }
}

/// Unpacks the beginning of a body, of which the runtime gets the packed bytes.
fn unpacked(body: &[u8], limit: u64) -> Result<Vec<u8>, ProxyError> {
    const CANNOT: ProxyError = ProxyError::BadBody("the body cannot be unpacked");
    let Ok(decoder) = StreamingDecoder::new(body) else {
        return Err(CANNOT);
    };
    let mut unpacked = Vec::new();
    match decoder.take(limit).read_to_end(&mut unpacked) {
        Ok(_) => Ok(unpacked),
        Err(_damaged) => Err(CANNOT),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[derive(Default)]
struct Fields<'a, const PREFIX: bool> {
    model: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    stream: Option<bool>,
    prefix: Option<u64>,
}

/// A string, borrowed where it has no escapes; anything else is nothing.
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text(None))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de: 'a, 'a, const PREFIX: bool> Deserialize<'de> for Fields<'a, PREFIX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor<const PREFIX: bool>;
        impl<'de, const PREFIX: bool> Visitor<'de> for FieldsVisitor<PREFIX> {
            type Value = Fields<'de, PREFIX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Text(Some(key))) = map.next_key()? {
                    let is = |name: &str| key.eq_ignore_ascii_case(name);
                    if is("model") {
                        fields.model = map.next_value::<Text<'de>>()?.0.or(fields.model);
                    } else if is("name") {
                        fields.name = map.next_value::<Text<'de>>()?.0.or(fields.name);
                    } else if is("stream") {
                        fields.stream = map.next_value::<Option<bool>>()?.or(fields.stream);
                    } else if PREFIX && (is("messages") || is("prompt") || is("input")) {
                        fields.prefix = Some(beginning(map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor::<PREFIX>)
    }
}

/// Hashes the first messages of a list, or the first bytes of a text.
fn beginning(value: &RawValue) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    match serde_json::from_str::<FirstMessages<'_>>(value.get()) {
        Ok(messages) => messages.0.iter().for_each(|m| m.get().hash(&mut hasher)),
        Err(_no_list) => {
            let text = value.get().as_bytes();
            hasher.write(text.get(..PREFIX_BYTES).unwrap_or(text));
        }
    }
    hasher.finish()
}

struct FirstMessages<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for FirstMessages<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstVisitor;
        impl<'de> Visitor<'de> for FirstVisitor {
            type Value = FirstMessages<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::with_capacity(PREFIX_MESSAGES);
                while first.len() < PREFIX_MESSAGES
                    && let Some(message) = list.next_element()?
                {
                    first.push(message);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstMessages(first))
            }
        }
        deserializer.deserialize_seq(FirstVisitor)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn peek(body: &str) -> Peek {
        Peek::json(body.as_bytes(), Prefix::Ignored).unwrap()
    }

    #[rstest]
    #[case(
        r#"{"model":"a:1b","stream":true,"unknown":[1,{"model":"b"}]}"#,
        "a:1b",
        Some(true)
    )]
    #[case(r#"{"model":"a","name":"x","stream":false}"#, "a", Some(false))]
    #[case(r#"{"name":"x"}"#, "x", None)]
    #[case(r#"{"name":"x","model":""}"#, "x", None)]
    #[case(r#"{"Model":"a","STREAM":true}"#, "a", Some(true))]
    #[case(r#"{"model":"a","model":"b"}"#, "b", None)]
    #[case(r#"{"model":"\u00e9","stream":null}"#, "é", None)]
    #[case("{}", "", None)]
    #[case(r#"{"model":null}"#, "", None)]
    #[case(r#"{"model":"a"} x"#, "a", None)]
    #[case(r#"{"model":"a","prompt":"\ud800"}"#, "a", None)]
    fn model_is_found_as_the_runtimes_find_it(
        #[case] body: &str,
        #[case] model: &str,
        #[case] stream: Option<bool>,
    ) {
        let found = peek(body);

        assert_eq!((&*found.model, found.stream), (model, stream));
    }

    #[rstest]
    #[case("")]
    #[case(r#"{"model":7}"#)]
    #[case("not json")]
    #[case("[]")]
    fn what_is_no_request_is_refused(#[case] body: &str) {
        assert!(Peek::json(body.as_bytes(), Prefix::Ignored).is_err());
    }

    #[test]
    fn packed_body_is_looked_into() {
        let body = compress_to_vec(&br#"{"model":"a"}"#[..], CompressionLevel::Fastest);
        let long = compress_to_vec(io::repeat(b' ').take(9_999), CompressionLevel::Fastest);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "zstd".parse().unwrap());
        let look = |body: &[u8]| Peek::of(&headers, body, Prefix::Ignored);

        assert_eq!(look(&body).unwrap().model, "a");
        assert!(look(b"{}").is_err());
        assert!(look(&body[..body.len() / 2]).is_err());
        assert_eq!(unpacked(&long, 99).unwrap().len(), 99);
    }

    fn prefix(body: &str) -> Option<u64> {
        Peek::json(body.as_bytes(), Prefix::Wanted).unwrap().prefix
    }

    #[test]
    fn conversation_keeps_its_prefix_while_it_goes_on() {
        let first = r#"{"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"1"}]}"#;
        let later = r#"{"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"1"},{"role":"assistant","content":"2"},{"role":"user","content":"3"}]}"#;
        let other = first.replace("\"1\"", "\"9\"");

        assert!(prefix(first).is_some());
        assert_eq!(prefix(first), prefix(later));
        assert_ne!(prefix(first), prefix(&other));
    }

    #[test]
    fn long_prompt_is_known_by_its_beginning() {
        let text = "x".repeat(PREFIX_BYTES);
        let ask = |end: &str| prefix(&format!(r#"{{"prompt":"{text}{end}"}}"#));

        assert_eq!(ask("a"), ask("b"));
        assert_ne!(ask("a"), prefix(r#"{"prompt":"y"}"#));
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_json_parser_finds(
            model in any::<String>(), stream in prop::option::of(any::<bool>()),
            other in any::<String>(), number in any::<i64>(), spaces in "[ \\t\\r\\n]{0,5}",
        ) {
            let body = serde_json::json!({
                "options": {"model": other, "stream": number}, "prompt": other, "model": model,
                "stream": stream,
            });
            let body = format!("{spaces}{body}{spaces}");

            let found = peek(&body);

            prop_assert_eq!((found.model, found.stream), (model, stream));
        }

        #[test]
        fn no_bytes_make_it_panic(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "[{}\\[\\]\":,a-z0-9\\\\u]{0,80}".prop_map(String::into_bytes),
            ],
            kind in 0..3,
        ) {
            let mut headers = HeaderMap::new();
            match kind {
                0 => drop(headers.insert(header::CONTENT_ENCODING, "zstd".parse().unwrap())),
                1 => drop(headers.insert(header::CONTENT_TYPE, "multipart/x".parse().unwrap())),
                _ => {}
            }
            for prefix in [Prefix::Wanted, Prefix::Ignored] {
                drop(Peek::of(&headers, &body, prefix));
            }
        }

        #[test]
        fn damaged_package_is_refused_or_read_and_never_panics(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let body = br#"{"model":"a","messages":[{"role":"user","content":"aaaaaaaaaaaaaaaaaaaa"}]}"#;
            let mut packed = compress_to_vec(&body[..], CompressionLevel::Fastest);
            *at.get_mut(&mut packed) = byte;
            packed.truncate(cut.index(packed.len()) + 1);

            drop(unpacked(&packed, MAX_UNPACKED_BYTES));
        }
    }
}
