//! Command lines as Windows has them: one text, which each program takes apart itself.

/// Returns a word as Windows programs take their command line apart: backslashes count only before
/// a quotation mark.
pub fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"']) {
        return word.to_owned();
    }
    let mut quoted = String::from('"');
    let mut backslashes = 0;
    for c in word.chars() {
        match c {
            '\\' => backslashes += 1,
            '"' => {
                quoted.extend(std::iter::repeat_n('\\', backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        quoted.push(c);
    }
    quoted.extend(std::iter::repeat_n('\\', backslashes));
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("plain", "plain")]
    #[case("", "\"\"")]
    #[case(r"C:\Program Files\x.exe", r#""C:\Program Files\x.exe""#)]
    #[case(r#"say "hi""#, r#""say \"hi\"""#)]
    #[case(r"ends with \", r#""ends with \\""#)]
    #[case(r#"a \" b"#, r#""a \\\" b""#)]
    fn words_are_quoted_as_windows_reads_them(#[case] word: &str, #[case] expected: &str) {
        assert_eq!(quoted(word), expected);
    }
}
