//! What to call this machine.

use ollama_coordinator_common::name::{self, InvalidName, MAX_CHARS};

use super::Origin;

const NAMELESS: &str = "unnamed";

/// Reads what `--machine-name` says: the rule by which the coordinator takes names. Nothing at all
/// leaves the name to the system.
pub(super) fn parse(text: &str) -> Result<String, InvalidName> {
    name::check(text)?;
    Ok(text.to_owned())
}

/// Returns the first candidate with something to read in it, made fit for one line, and who said it.
pub(super) fn choose(
    candidates: impl IntoIterator<Item = (Origin, Option<String>)>,
) -> (String, Origin) {
    let said = candidates
        .into_iter()
        .filter_map(|(origin, name)| Some((one_line(&name?), origin)));
    let mut usable = said.filter(|(name, _)| !name.is_empty());
    usable
        .next()
        .unwrap_or_else(|| (NAMELESS.to_owned(), Origin::Default))
}

fn one_line(name: &str) -> String {
    let printable = name.trim().chars().filter(|c| !name::is_hidden(*c));
    printable.take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: Option<String>) -> String {
        choose([(Origin::Flag, name)]).0
    }

    #[test]
    fn first_name_that_says_something_wins() {
        let candidates = [
            (Origin::Flag, None),
            (Origin::File, Some(String::new())),
            (Origin::File, Some("  ".to_owned())),
            (Origin::Default, Some("gpu-02".to_owned())),
        ];

        let expected = ("gpu-02".to_owned(), Origin::Default);
        assert_eq!(choose(candidates), expected);
    }

    #[test]
    fn name_fits_on_one_line() {
        assert_eq!(
            chosen(Some(" a\nb\u{1b}c\u{202e}\u{200b} ".to_owned())),
            "abc"
        );
        assert_eq!(chosen(Some("é".repeat(300))).chars().count(), 255);
        assert_eq!(chosen(None), "unnamed");
    }
}
