//! The `server-timing` header, written without the machinery of formatting.

use std::time::Duration;

use axum::http::HeaderValue;

/// Writes `queue;dur=0.0, attempt;dur=12.3`, in milliseconds.
pub(super) fn header(queue: Duration, attempt: Duration) -> HeaderValue {
    let mut text = Vec::with_capacity(64);
    text.extend_from_slice(b"queue;dur=");
    write_millis(queue, &mut text);
    text.extend_from_slice(b", attempt;dur=");
    write_millis(attempt, &mut text);
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).expect("it is ASCII")
}

fn write_millis(duration: Duration, text: &mut Vec<u8>) {
    let tenths = u64::try_from(duration.as_micros() / 100).unwrap_or(u64::MAX);
    let mut digits = [0; 20];
    let mut count = 0;
    let mut rest = tenths / 10;
    loop {
        digits[count] = digit(rest);
        count += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend(digits[..count].iter().rev());
    text.extend([b'.', digit(tenths)]);
}

fn digit(number: u64) -> u8 {
    b"0123456789"[usize::from(u8::try_from(number % 10).unwrap_or_default())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, "0.0")]
    #[case(99, "0.0")]
    #[case(100, "0.1")]
    #[case(12_345, "12.3")]
    #[case(600_000_000, "600000.0")]
    fn times_are_milliseconds_with_one_decimal(#[case] micros: u64, #[case] expected: &str) {
        let header = header(Duration::ZERO, Duration::from_micros(micros));

        assert_eq!(header, format!("queue;dur=0.0, attempt;dur={expected}"));
    }

    #[test]
    fn longest_time_can_be_written() {
        header(Duration::MAX, Duration::MAX);
    }
}
