//! Foreign text made harmless. Process names, addresses and error texts come from the machines that are watched: a
//! process may call itself `\x1b[2J`. What could steer a terminal, or look like other text than it is, is shown as its
//! code.

use std::borrow::Cow;

/// Whether a character could steer a terminal or disguise its surroundings: control characters (C0, DEL, C1), and the
/// characters that change direction, have no width, or separate lines (Unicode TR 36).
fn dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text in one line with nothing in it that a terminal obeys.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_but(text, |_| false)
}

/// As [`escape`], but line ends stay: for messages of several lines.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_but(text, |character| character == '\n')
}

fn escape_but(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|character| dangerous(character) && !keep(character)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            _ if keep(character) || !dangerous(character) => safe.push(character),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            _ if u32::from(character) < 0x100 => safe.extend(format!("\\x{:02x}", u32::from(character)).chars()),
            _ => safe.extend(format!("\\u{{{:x}}}", u32::from(character)).chars()),
        }
    }
    Cow::Owned(safe)
}

/// JSON text with the same characters as JSON escapes: the same value, and nothing that a terminal obeys. Line ends and
/// tabs between the tokens stay.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let unsafe_here = |character: char| dangerous(character) && !matches!(character, '\n' | '\r' | '\t');
    if !json.chars().any(unsafe_here) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if unsafe_here(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                safe.extend(format!("\\u{unit:04x}").chars());
            }
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_as_its_code() {
        assert_eq!(escape("a\u{1b}[31m\u{7}b\u{9b}2J\nc\u{202e}d"), "a\\x1b[31m\\x07b\\x9b2J\\nc\\u{202e}d");
        assert_eq!(escape_lines("a\nb\u{1b}"), "a\nb\\x1b");
        assert!(matches!(escape("gödel 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let json = serde_json::to_string("a\u{9b}\u{7f}\u{e0041}\u{202e}b").unwrap();
        let safe = escape_json(&json);
        assert!(safe.is_ascii(), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), serde_json::from_str::<String>(&safe).unwrap());
    }
}
