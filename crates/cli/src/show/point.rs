//! A parameter's text with a caret under the character at which it went wrong.

use super::text::escape;
use unicode_width::UnicodeWidthStr;

/// Characters of the text that stand on either side of the place.
const AROUND: usize = 50;
/// Columns of the lines with what was expected.
const WIDTH: usize = 78;

/// The reason, the text with the caret, and what could stand there: lines without the last one's end. `column` is counted
/// from 1.
pub fn pointed(reason: &str, text: &str, column: usize, expected: &[String]) -> String {
    let characters: Vec<char> = text.chars().collect();
    let place = column.saturating_sub(1).min(characters.len());
    let (from, to) = (place.saturating_sub(AROUND), (place + AROUND).min(characters.len()));
    let shown = |part: &[char]| escape(&part.iter().collect::<String>()).into_owned();
    let before = format!("{}{}", if from > 0 { "..." } else { "" }, shown(&characters[from..place]));
    let after = format!("{}{}", shown(&characters[place..to]), if to < characters.len() { "..." } else { "" });
    let mut lines = format!("{reason}\n  {before}{after}\n  {}^", " ".repeat(before.width()));
    if expected.is_empty() {
        return lines;
    }
    let mut line = "\n  expected:".to_owned();
    for (index, word) in expected.iter().enumerate() {
        let word = format!(" {word}{}", if index + 1 < expected.len() { "," } else { "" });
        if line.width() + word.width() > WIDTH {
            lines.push_str(&line);
            "\n   ".clone_into(&mut line);
        }
        line.push_str(&word);
    }
    lines + &line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_its_character() {
        let expected = ["a".to_owned(), "b".to_owned()];
        assert_eq!(pointed("no", "name= x", 6, &expected), "no\n  name= x\n       ^\n  expected: a, b");
        assert_eq!(pointed("no", "name=", 6, &[]), "no\n  name=\n       ^");
        assert_eq!(pointed("no", "漢\u{1b}=", 3, &[]), "no\n  漢\\x1b=\n        ^", "wide and escaped characters");
        assert_eq!(pointed("no", "ab", 99, &[]), "no\n  ab\n    ^");
    }

    #[test]
    fn a_long_text_is_shown_around_the_place_and_a_long_list_in_lines() {
        let text = format!("{}!{}", "a".repeat(200), "b".repeat(200));
        let shown = pointed("no", &text, 201, &vec!["namespace".to_owned(); 20]);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.width() <= 2 + 3 + 2 * AROUND + 3), "{shown}");
        assert_eq!(lines[1].chars().nth(lines[2].chars().count() - 1), Some('!'), "{shown}");
        assert!(lines.len() > 4 && lines[4].starts_with("    namespace"), "{shown}");
    }
}
