//! What to call this machine.

const MAX_CHARS: usize = 255;
const NAMELESS: &str = "unnamed";

/// Returns the first candidate with something to read in it, made fit for one line.
pub(super) fn choose(candidates: impl IntoIterator<Item = Option<String>>) -> String {
    let mut usable = candidates.into_iter().flatten().map(|name| one_line(&name));
    usable
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| NAMELESS.to_owned())
}

fn one_line(name: &str) -> String {
    let printable = name.trim().chars().filter(|c| !c.is_control());
    printable.take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_name_that_says_something_wins() {
        let candidates = [
            None,
            Some(String::new()),
            Some("  ".to_owned()),
            Some("gpu-02".to_owned()),
        ];

        assert_eq!(choose(candidates), "gpu-02");
    }

    #[test]
    fn name_fits_on_one_line() {
        assert_eq!(choose([Some(" a\nb\u{1b}c ".to_owned())]), "abc");
        assert_eq!(choose([Some("é".repeat(300))]).chars().count(), 255);
        assert_eq!(choose([None]), "unnamed");
    }
}
