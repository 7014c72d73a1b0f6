//! RFC 4180: a header, fields quoted where they must be, CRLF at the end of lines.
//!
//! A text that a spreadsheet would run as a formula (it begins with `=`, `+`, `-`, `@`, a tab or a return) begins with
//! `'` instead, and control characters are shown as their codes: process names are chosen by whoever runs them.

use super::text::escape;

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A number: stands as it is.
    Number(u64),
    /// A text from anywhere.
    Text(String),
    /// Not known: empty.
    Unknown,
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Field {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Field {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Field {
    fn from(flag: bool) -> Self {
        Self::Text(flag.to_string())
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Field {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl<T> From<&Option<T>> for Field
where
    T: Clone + Into<FieldValue>,
{
    fn from(value: &Option<T>) -> Self {
        value.clone().map_or(Self::Unknown, |value| value.into().0)
    }
}

/// A field that is known; lets `Option`s of texts and numbers become fields.
#[derive(Debug)]
pub struct FieldValue(Field);

impl From<u16> for FieldValue {
    fn from(number: u16) -> Self {
        Self(Field::Number(number.into()))
    }
}

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        Self(Field::Text(text))
    }
}

impl From<u32> for FieldValue {
    fn from(number: u32) -> Self {
        Self(number.into())
    }
}

impl From<u64> for FieldValue {
    fn from(number: u64) -> Self {
        Self(number.into())
    }
}

/// A line with its end.
pub fn line<'a>(fields: impl IntoIterator<Item = &'a Field>) -> String {
    let mut line = String::new();
    for (index, field) in fields.into_iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        match field {
            Field::Number(number) => line.push_str(&number.to_string()),
            Field::Text(text) => push_text(&mut line, text),
            Field::Unknown => {}
        }
    }
    line.push_str("\r\n");
    line
}

/// The header's line.
pub fn header(names: &[&str]) -> String {
    line(&names.iter().map(|name| Field::from(*name)).collect::<Vec<_>>())
}

fn push_text(line: &mut String, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = escape(text);
    let quoted = text.contains([',', '"']) || text.starts_with(' ') || text.ends_with(' ');
    if quoted {
        line.push('"');
    }
    if formula {
        line.push('\'');
    }
    if quoted {
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let fields = [
            Field::from("plain"),
            Field::from("a,b"),
            Field::from("say \"hi\""),
            Field::from(&None::<u32>),
            Field::from(&Some(7u64)),
            Field::from(18_446_744_073_709_551_615u64),
            Field::from("two\nlines"),
        ];
        assert_eq!(line(&fields), "plain,\"a,b\",\"say \"\"hi\"\"\",,7,18446744073709551615,two\\nlines\r\n");
    }

    #[test]
    fn a_text_is_never_a_formula() {
        let fields = ["=1+1", "+1", "-bash", "@x", "\t=1", "=HYPERLINK(\"a\",\"b\")", "a=b"].map(Field::from);
        assert_eq!(line(&fields), "'=1+1,'+1,'-bash,'@x,'\\t=1,\"'=HYPERLINK(\"\"a\"\",\"\"b\"\")\",a=b\r\n");
    }
}
