//! Durations as people write them in flags and environment variables.

use std::time::Duration;

/// Parses `500ms`, `5s`, `2m`, or a bare number of seconds such as `10` or `0.5`.
///
/// # Errors
/// Says what was expected when the text is none of these, negative, or not finite.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds)
            .map_err(|_out_of_range| InvalidDuration(text.to_owned()));
    }
    humantime::parse_duration(text).map_err(|_unreadable| InvalidDuration(text.to_owned()))
}

/// The text is not a duration.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a duration; write `500ms`, `5s`, `2m` or a number of seconds")]
pub struct InvalidDuration(String);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("500ms", 500)]
    #[case("5s", 5_000)]
    #[case("10", 10_000)]
    #[case("0.5", 500)]
    #[case(" 2m ", 120_000)]
    #[case("0", 0)]
    fn durations_are_read_as_people_write_them(#[case] text: &str, #[case] ms: u64) {
        assert_eq!(parse(text).unwrap(), Duration::from_millis(ms));
    }

    #[rstest]
    #[case("")]
    #[case("-1")]
    #[case("NaN")]
    #[case("inf")]
    #[case("1e400")]
    #[case("5 parsecs")]
    #[case("99999999999999999999s")]
    fn nonsense_is_refused(#[case] text: &str) {
        assert!(parse(text).is_err(), "{text}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in prop_oneof!["-?[0-9.e]{0,12} ?(ms|s|m|h|d|y)?", any::<String>()]) {
            drop(parse(&text));
        }

        #[test]
        fn what_is_written_is_what_is_read(ms in 0_u64..10_000_000_000) {
            prop_assert_eq!(parse(&format!("{ms}ms")).unwrap(), Duration::from_millis(ms));
        }
    }
}
