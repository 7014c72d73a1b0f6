//! The filter language: which rows of an answer are wanted, in one line of text.
//!
//! `namespace=shop and (port=443 or server.workload~"pay*") and not certainty=unknown`. The same text is the API's
//! parameter `filter`, the command line's `--filter` and the page's field; `docs/queries.md` explains it to people.
//! [`Filter::parse`] reads it for one answer ([`Scope`]) and refuses what that answer does not have, with the character at
//! which it went wrong. What a row has is not known here: whoever answers decides each [`Comparison`], and
//! [`Filter::passes`] joins the decisions.
//!
//! ```text
//! or         = and { "or" and }
//! and        = unary { "and" unary }
//! unary      = "not" unary | "(" or ")" | comparison
//! comparison = [ ("client" | "src" | "server" | "dst") "." ] field operator value
//! operator   = "=" | "!=" | "~" | "!~" | "<" | "<=" | ">" | ">="
//! value      = word | '"' { character | '\"' | '\\' } '"'
//! ```

mod field;
mod glob;
mod parse;

#[cfg(test)]
mod tests;

pub use field::{Field, Level, Place, Scope, Values};
pub use glob::Glob;
pub use parse::{FilterError, PARTS_MAX, TEXT_MAX};

use ipnet::IpNet;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`: the same text in any case, the same number, an address within the network.
    Equal,
    /// `!=`: not `=`.
    NotEqual,
    /// `~`: fits the pattern, in which `*` stands for any characters.
    Like,
    /// `!~`: not `~`.
    NotLike,
    /// `<`.
    Less,
    /// `<=`.
    LessOrEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterOrEqual,
}

impl Operator {
    /// All of them, the longer before those that they begin with.
    pub(crate) const ALL: [Self; 8] = [
        Self::NotEqual,
        Self::NotLike,
        Self::LessOrEqual,
        Self::GreaterOrEqual,
        Self::Equal,
        Self::Like,
        Self::Less,
        Self::Greater,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Like => "~",
            Self::NotLike => "!~",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    fn is_negative(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotLike)
    }
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text in lower case.
    Text(String),
    /// A pattern.
    Glob(Glob),
    /// A number in the field's own unit.
    Number(u64),
    /// A network; an address is one of itself.
    Network(IpNet),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Of which end.
    pub place: Place,
    /// What is looked at.
    pub field: Field,
    /// How.
    pub operator: Operator,
    /// With what.
    pub value: Value,
    /// When it can be decided.
    pub level: Level,
    /// The field as it is written.
    word: &'static str,
}

impl Comparison {
    /// Whether one of a row's texts is meant, `!=` and `!~` taken as `=` and `~`. No text at all is the empty one.
    pub fn is_text<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> bool {
        let mut texts = texts.into_iter().peekable();
        if texts.peek().is_none() {
            return self.is_one("");
        }
        texts.any(|text| self.is_one(text))
    }

    fn is_one(&self, text: &str) -> bool {
        match &self.value {
            Value::Text(wanted) => text.to_lowercase() == *wanted,
            Value::Glob(glob) => glob.matches(text),
            Value::Network(network) => text.parse::<IpAddr>().is_ok_and(|address| network.contains(&address)),
            Value::Number(_) => false,
        }
    }

    /// Whether a row's number is meant, `!=` taken as `=`. A number that is not known fits nothing.
    pub fn is_number(&self, number: Option<u64>) -> bool {
        let (Some(number), Value::Number(wanted)) = (number, &self.value) else { return false };
        match self.operator {
            Operator::Equal | Operator::NotEqual => number == *wanted,
            Operator::Less => number < *wanted,
            Operator::LessOrEqual => number <= *wanted,
            Operator::Greater => number > *wanted,
            Operator::GreaterOrEqual => number >= *wanted,
            Operator::Like | Operator::NotLike => false,
        }
    }
}

/// Comparisons and how they are joined. `Is` has a comparison's place in [`Filter::comparisons`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Joined {
    And(Vec<Joined>),
    Or(Vec<Joined>),
    Not(Box<Joined>),
    Is(usize),
}

/// A filter that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// In the order in which they are written: at most [`PARTS_MAX`].
    comparisons: Vec<Comparison>,
    joined: Joined,
}

impl Filter {
    /// Reads a filter for one answer.
    ///
    /// # Errors
    /// Where it went wrong, what stands there, and what could.
    pub fn parse(scope: Scope, text: &str) -> Result<Self, FilterError> {
        parse::parse(scope, text)
    }

    /// Its comparisons, in the order in which they are written. There are at most 64.
    pub fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }

    /// Whether everything that can be decided at `level` lets a row through. `decide` answers a comparison and its place in
    /// [`Self::comparisons`], as [`Comparison::is_text`] and [`Comparison::is_number`] do: without the `!` of its operator.
    pub fn passes(&self, level: Level, mut decide: impl FnMut(usize, &Comparison) -> bool) -> bool {
        let parts = match &self.joined {
            Joined::And(parts) => parts.as_slice(),
            whole => std::slice::from_ref(whole),
        };
        parts.iter().filter(|part| self.level(part) == level).all(|part| self.holds(part, &mut decide))
    }

    /// Of a part that is not joined by `and` on the outside: all its comparisons have one level.
    fn level(&self, part: &Joined) -> Level {
        match part {
            Joined::And(parts) | Joined::Or(parts) => parts.first().map_or(Level::Part, |first| self.level(first)),
            Joined::Not(part) => self.level(part),
            Joined::Is(place) => self.comparisons[*place].level,
        }
    }

    fn holds(&self, part: &Joined, decide: &mut impl FnMut(usize, &Comparison) -> bool) -> bool {
        match part {
            Joined::And(parts) => parts.iter().all(|part| self.holds(part, decide)),
            Joined::Or(parts) => parts.iter().any(|part| self.holds(part, decide)),
            Joined::Not(part) => !self.holds(part, decide),
            Joined::Is(place) => {
                let comparison = &self.comparisons[*place];
                decide(*place, comparison) != comparison.operator.is_negative()
            }
        }
    }

    fn print(&self, part: &Joined, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match part {
            Joined::And(parts) => self.print_list(parts, " and ", f),
            Joined::Or(parts) => self.print_list(parts, " or ", f),
            Joined::Not(part) => {
                f.write_str("not ")?;
                self.print_within(part, f)
            }
            Joined::Is(place) => write!(f, "{}", self.comparisons[*place]),
        }
    }

    fn print_list(&self, parts: &[Joined], between: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                f.write_str(between)?;
            }
            self.print_within(part, f)?;
        }
        Ok(())
    }

    fn print_within(&self, part: &Joined, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(part, Joined::And(_) | Joined::Or(_)) {
            f.write_str("(")?;
            self.print(part, f)?;
            return f.write_str(")");
        }
        self.print(part, f)
    }
}

/// The filter as it could have been written: read again it is the same.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(&self.joined, f)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        match &self.field {
            Field::Attribute(name) => {
                f.write_str(field::ATTRIBUTE)?;
                print_text(name, f)?;
            }
            _ => f.write_str(self.word)?,
        }
        f.write_str(self.operator.as_str())?;
        match &self.value {
            Value::Text(text) => print_text(text, f),
            Value::Glob(glob) => print_text(glob.pattern(), f),
            Value::Number(number) => write!(f, "{number}"),
            Value::Network(network) => write!(f, "{network}"),
        }
    }
}

fn print_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if parse::is_word(text) {
        return f.write_str(text);
    }
    f.write_char('"')?;
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    f.write_char('"')
}
