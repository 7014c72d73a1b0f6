//! Reading: characters to a [`Filter`], and where it went wrong.
//!
//! One pass without a separate list of tokens, by recursive descent. Everything is bounded: characters, comparisons, and
//! how deep parentheses and `not` may stand in each other.

use super::field::{self, ATTRIBUTE, Ends, Known, Level, Place, Scope, Values};
use super::glob::Glob;
use super::{Comparison, Filter, Joined, Operator, Value};
use ipnet::IpNet;
use std::net::IpAddr;

/// The longest filter, characters: some hundred names.
pub const TEXT_MAX: usize = 4_000;
/// The most comparisons: what they say of an end is kept in as many bits.
pub const PARTS_MAX: usize = 64;
/// How deep parentheses and `not` may stand in each other: far below what a stack holds, far above what people write.
const DEPTH_MAX: usize = 32;
/// Characters of what was found that an error repeats.
const FOUND_MAX: usize = 40;

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter, column {column}: {reason}")]
pub struct FilterError {
    /// Where, in characters, counted from 1; one more than there are where it ends too early.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
    /// What could stand there.
    pub expected: Vec<String>,
}

pub(super) fn parse(scope: Scope, text: &str) -> Result<Filter, FilterError> {
    let length = text.chars().count();
    if length > TEXT_MAX {
        let reason = format!("it has {length} characters, at most {TEXT_MAX} are read; write less, or use ~ with *");
        return Err(FilterError { column: TEXT_MAX + 1, reason, expected: Vec::new() });
    }
    let mut reader = Reader { scope, text, at: 0, depth: 0, comparisons: Vec::new() };
    let (joined, _) = reader.or()?;
    reader.skip_blanks();
    if reader.at < text.len() {
        return Err(reader.unexpected("after a comparison", &["and", "or", "the end"]));
    }
    Ok(Filter { comparisons: reader.comparisons, joined })
}

/// Whether a text can stand without quotes.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_plain) && !is_keyword(text)
}

/// What a word without quotes consists of.
fn is_plain(character: char) -> bool {
    !character.is_whitespace()
        && !character.is_control()
        && !matches!(character, '(' | ')' | '"' | '\'' | '\\' | '=' | '!' | '~' | '<' | '>')
}

fn is_keyword(word: &str) -> bool {
    ["and", "or", "not"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Of a part: when its comparisons can be decided.
#[derive(Clone, Copy)]
enum When {
    /// All at one level; the first begins here.
    One(Level, usize),
    /// Joined by `and` of several levels; the first of a row begins here.
    Mixed(usize),
}

struct Reader<'t> {
    scope: Scope,
    text: &'t str,
    /// Bytes that were read.
    at: usize,
    depth: usize,
    comparisons: Vec<Comparison>,
}

impl<'t> Reader<'t> {
    fn or(&mut self) -> Result<(Joined, When), FilterError> {
        let (first, mut when) = self.and()?;
        let mut parts = vec![first];
        while self.keyword("or") {
            let (part, next) = self.and()?;
            when = self.one_level(when, next)?;
            parts.push(part);
        }
        Ok((any(parts), when))
    }

    fn and(&mut self) -> Result<(Joined, When), FilterError> {
        let (first, mut when) = self.unary()?;
        let mut parts = vec![first];
        while self.keyword("and") {
            let (part, next) = self.unary()?;
            when = both(when, next);
            parts.push(part);
        }
        Ok((all(parts), when))
    }

    fn unary(&mut self) -> Result<(Joined, When), FilterError> {
        self.skip_blanks();
        let begin = self.at;
        if self.keyword("not") {
            self.enter(begin)?;
            let (part, when) = self.unary()?;
            self.depth -= 1;
            let when = self.one_level(when, when)?;
            return Ok((Joined::Not(Box::new(part)), when));
        }
        if self.eat("(") {
            self.enter(begin)?;
            let (part, when) = self.or()?;
            self.depth -= 1;
            self.skip_blanks();
            if !self.eat(")") {
                return Err(self.unexpected("in parentheses", &["and", "or", ")"]));
            }
            return Ok((part, when));
        }
        self.comparison()
    }

    fn enter(&mut self, begin: usize) -> Result<(), FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let reason =
                format!("parentheses and `not` stand more than {DEPTH_MAX} deep in each other; write it flatter");
            return Err(self.error(begin, reason, Vec::new()));
        }
        Ok(())
    }

    /// What `or` and `not` join is decided at once: of connections, or of a row's sums.
    fn one_level(&self, first: When, second: When) -> Result<When, FilterError> {
        match both(first, second) {
            When::Mixed(at) => {
                let word: String = self.text[at..].chars().take_while(|character| is_plain(*character)).collect();
                let reason = format!(
                    "`{word}` is of a whole row, the rest of what is summed up in it: join the two with `and`, outside of `or` \
                     and `not`"
                );
                Err(self.error(at, reason, Vec::new()))
            }
            one @ When::One(..) => Ok(one),
        }
    }

    fn comparison(&mut self) -> Result<(Joined, When), FilterError> {
        let begin = self.at;
        let (place, known) = self.field()?;
        self.skip_blanks();
        let operator = self.operator(&known)?;
        self.skip_blanks();
        let value = self.value(&known, operator)?;
        if self.comparisons.len() == PARTS_MAX {
            let reason = format!("more than {PARTS_MAX} comparisons; write less, or use ~ with *");
            return Err(self.error(begin, reason, Vec::new()));
        }
        let Known { word, field, level, .. } = known;
        self.comparisons.push(Comparison { place, field, operator, value, level, word });
        Ok((Joined::Is(self.comparisons.len() - 1), When::One(level, begin)))
    }

    fn field(&mut self) -> Result<(Place, Known), FilterError> {
        let begin = self.at;
        let written = self.word();
        let scope = self.scope;
        let words = || {
            let mut words: Vec<String> = field::fields(scope).iter().map(|known| known.word.to_owned()).collect();
            words.push(format!("{ATTRIBUTE}NAME"));
            words.extend(["not", "("].map(ToOwned::to_owned));
            words
        };
        if written.is_empty() {
            return Err(self.unexpected("where a field was expected", &words()));
        }
        if is_keyword(written) {
            let reason = format!("`{written}` stands where a field was expected");
            return Err(self.error(begin, reason, words()));
        }
        let (place, word) = match written.split_once('.') {
            Some(("client" | "src", word)) => (Place::Client, word),
            Some(("server" | "dst", word)) => (Place::Server, word),
            _ => (Place::Any, written),
        };
        let known = match word.strip_prefix(ATTRIBUTE) {
            Some(name) => {
                let name = if name.is_empty() && self.text[self.at..].starts_with('"') {
                    self.quoted()?
                } else {
                    name.to_owned()
                };
                if name.is_empty() {
                    return Err(self.unexpected(
                        "where an attribute's name was expected",
                        &["its name, for example attribute:team"],
                    ));
                }
                Some(field::attribute(self.scope, &name))
            }
            None => field::fields(self.scope).into_iter().find(|known| known.word == word),
        };
        let Some(known) = known else {
            let begin = begin + (written.len() - word.len());
            let reason = format!("{} have no field `{}`", self.scope.as_str(), shortened(word));
            return Err(self.error(begin, reason, words()));
        };
        let place = match (known.ends, place) {
            (Ends::Both, place) => place,
            (Ends::Server | Ends::None, Place::Any) | (Ends::Server, Place::Server) => Place::Any,
            (ends, _) => {
                let whose = if ends == Ends::None { "of neither end" } else { "the server's" };
                let reason = format!("`{}` is {whose} here", known.word);
                return Err(self.error(begin, reason, vec![known.word.to_owned()]));
            }
        };
        Ok((place, known))
    }

    fn operator(&mut self, known: &Known) -> Result<Operator, FilterError> {
        let begin = self.at;
        let allowed = |operator: Operator| match operator {
            Operator::Equal | Operator::NotEqual => true,
            Operator::Like | Operator::NotLike => matches!(known.values, Values::Text | Values::Address),
            _ => known.values.are_ordered(),
        };
        let expected = || -> Vec<String> {
            let order = [
                Operator::Equal,
                Operator::NotEqual,
                Operator::Like,
                Operator::NotLike,
                Operator::Less,
                Operator::LessOrEqual,
                Operator::Greater,
                Operator::GreaterOrEqual,
            ];
            order
                .into_iter()
                .filter(|operator| allowed(*operator))
                .map(|operator| operator.as_str().to_owned())
                .collect()
        };
        let Some(operator) =
            Operator::ALL.into_iter().find(|operator| self.text[begin..].starts_with(operator.as_str()))
        else {
            return Err(self.unexpected(&format!("after `{}`", known.word), &expected()));
        };
        if !allowed(operator) {
            let what = if known.values.are_ordered() { "a number" } else { "a text" };
            let what = if matches!(known.values, Values::Words(_)) { "a word" } else { what };
            let reason = format!("`{}` does not compare `{}`, which is {what}", operator.as_str(), known.word);
            return Err(self.error(begin, reason, expected()));
        }
        self.at += operator.as_str().len();
        Ok(operator)
    }

    fn value(&mut self, known: &Known, operator: Operator) -> Result<Value, FilterError> {
        let begin = self.at;
        let examples: Vec<String> = match known.values {
            Values::Text if matches!(operator, Operator::Like | Operator::NotLike) => {
                vec!["a pattern, for example pay* or \"a b*\"".to_owned()]
            }
            Values::Text => vec!["a value, for example shop or \"a b\"".to_owned()],
            Values::Words(words) => words.iter().map(|word| (*word).to_owned()).collect(),
            Values::Address if matches!(operator, Operator::Like | Operator::NotLike) => {
                vec!["a pattern, for example 10.0.*".to_owned()]
            }
            Values::Address => vec!["an address or a network, for example 10.0.0.7 or fd00::/8".to_owned()],
            Values::Number { max } => vec![format!("a number from 0 to {max}")],
            Values::Bytes => vec!["a number of bytes, for example 1500, 10kB or 1MiB".to_owned()],
            Values::Micros => vec!["a time in microseconds, or with a unit, for example 1500, 20ms or 1s".to_owned()],
        };
        let text = if self.text[begin..].starts_with('"') {
            self.quoted()?
        } else {
            let word = self.word();
            if word.is_empty() {
                return Err(self.unexpected(&format!("after `{}`", operator.as_str()), &examples));
            }
            if is_keyword(word) {
                let reason = format!("`{word}` joins comparisons; to look for it, write \"{word}\"");
                return Err(self.error(begin, reason, examples));
            }
            word.to_owned()
        };
        let value = if matches!(operator, Operator::Like | Operator::NotLike) {
            Some(Value::Glob(Glob::new(&text)))
        } else {
            match known.values {
                Values::Text => Some(Value::Text(text.to_lowercase())),
                Values::Words(words) => {
                    let text = text.to_lowercase();
                    words.contains(&text.as_str()).then_some(Value::Text(text))
                }
                Values::Address => {
                    let network = text.parse::<IpNet>().ok();
                    network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(Value::Network)
                }
                Values::Number { max } => {
                    text.parse().ok().filter(|number| *number <= max && is_digits(&text)).map(Value::Number)
                }
                Values::Bytes => scaled(&text, &BYTES).map(Value::Number),
                Values::Micros => scaled(&text, &MICROS).map(Value::Number),
            }
        };
        value.ok_or_else(|| {
            let reason = format!("`{}` is not what `{}` is compared with", shortened(&text), known.word);
            self.error(begin, reason, examples)
        })
    }

    /// The text in quotes that begins here.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let begin = self.at;
        let mut text = String::new();
        let mut characters = self.text[begin + 1..].char_indices();
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' => {
                    self.at = begin + 1 + offset + 1;
                    return Ok(text);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    Some(_) => {
                        let reason = "within quotes, \\ stands only before \" and \\".to_owned();
                        return Err(self.error(begin + 1 + offset, reason, vec!["\\\"".into(), "\\\\".into()]));
                    }
                    None => break,
                },
                _ => text.push(character),
            }
        }
        Err(self.error(begin, "this quote is never closed".to_owned(), vec!["\"".to_owned()]))
    }

    fn word(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let length = rest.find(|character| !is_plain(character)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Eats a joining word, if it stands here as a word of its own.
    fn keyword(&mut self, keyword: &str) -> bool {
        self.skip_blanks();
        let begin = self.at;
        if self.word().eq_ignore_ascii_case(keyword) {
            return true;
        }
        self.at = begin;
        false
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.text[self.at..].starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// What stands here was not expected.
    fn unexpected(&self, when: &str, expected: &[impl ToString]) -> FilterError {
        let rest = &self.text[self.at..];
        let found: String = match rest.chars().next() {
            None => "it ends".to_owned(),
            Some(first) if is_plain(first) => {
                let word: String = rest.chars().take_while(|character| is_plain(*character)).collect();
                format!("`{}` stands", shortened(&word))
            }
            Some(first) => format!("`{}` stands", first.escape_default()),
        };
        self.error(self.at, format!("{found} {when}"), expected.iter().map(ToString::to_string).collect())
    }

    fn error(&self, at: usize, reason: String, expected: Vec<String>) -> FilterError {
        FilterError { column: self.text[..at].chars().count() + 1, reason, expected }
    }
}

/// All of them.
fn all(parts: Vec<Joined>) -> Joined {
    let inner = |part| match part {
        Joined::And(inner) => inner,
        other => vec![other],
    };
    one_or(parts.into_iter().flat_map(inner).collect(), Joined::And)
}

/// One of them.
fn any(parts: Vec<Joined>) -> Joined {
    let inner = |part| match part {
        Joined::Or(inner) => inner,
        other => vec![other],
    };
    one_or(parts.into_iter().flat_map(inner).collect(), Joined::Or)
}

fn one_or(mut parts: Vec<Joined>, join: fn(Vec<Joined>) -> Joined) -> Joined {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            join(parts)
        }
    }
}

fn both(first: When, second: When) -> When {
    match (first, second) {
        (When::One(a, at), When::One(b, _)) if a == b => When::One(a, at),
        (When::Mixed(at), _)
        | (_, When::Mixed(at))
        | (When::One(Level::Row, at), When::One(..))
        | (When::One(..), When::One(_, at)) => When::Mixed(at),
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

const BYTES: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];
const MICROS: [(&str, u64); 4] = [("", 1), ("us", 1), ("ms", 1_000), ("s", 1_000_000)];

/// A whole number with one of the units, in any case.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let unit = text[digits..].to_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    text[..digits].parse::<u64>().ok()?.checked_mul(*factor)
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= FOUND_MAX {
        return text.escape_debug().to_string();
    }
    let head: String = text.chars().take(FOUND_MAX).collect();
    format!("{}...", head.escape_debug())
}
