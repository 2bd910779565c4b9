//! What may stand in a name: one line, of which people see all there is.

/// More characters no name has.
pub const MAX_CHARS: usize = 255;

/// Returns whether a character is not seen, or changes how others are.
pub fn is_hidden(c: char) -> bool {
    let reorders = matches!(
        c,
        '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || reorders
}

/// Refuses what cannot be a name.
///
/// # Errors
/// It is too long, or not all of it can be seen.
pub fn check(text: &str) -> Result<(), InvalidName> {
    if text.chars().count() > MAX_CHARS {
        Err(InvalidName::TooLong)
    } else if text.chars().any(is_hidden) {
        Err(InvalidName::Hidden)
    } else {
        Ok(())
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It is too long.
    #[error("must have at most {MAX_CHARS} characters")]
    TooLong,
    /// Not all of it can be seen.
    #[error("must not contain control or text-direction characters")]
    Hidden,
}
