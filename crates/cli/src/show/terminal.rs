//! What we write to: a terminal or not, how wide, in colour or not.

use crate::args::Colour;
use std::io::IsTerminal;

/// One of the standard streams as a place for tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surface {
    /// Whether a person looks at it.
    pub is_terminal: bool,
    /// Columns; absent where lines may be as long as they like.
    pub width: Option<usize>,
    /// Rows; absent where there is no screen.
    pub height: Option<usize>,
    /// Whether to colour.
    pub colour: bool,
}

impl Surface {
    /// Standard output.
    pub fn stdout(colour: Colour) -> Self {
        Self::of(&std::io::stdout(), terminal_size::terminal_size_of(std::io::stdout()), colour)
    }

    /// Standard error.
    pub fn stderr(colour: Colour) -> Self {
        Self::of(&std::io::stderr(), terminal_size::terminal_size_of(std::io::stderr()), colour)
    }

    fn of(
        stream: &impl IsTerminal,
        size: Option<(terminal_size::Width, terminal_size::Height)>,
        colour: Colour,
    ) -> Self {
        let is_terminal = stream.is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            is_terminal,
            width: size.filter(|_| is_terminal).map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0),
            height: size.filter(|_| is_terminal).map(|(_, height)| usize::from(height.0)).filter(|height| *height > 0),
            colour: match colour {
                Colour::Always => true,
                Colour::Never => false,
                Colour::Auto => is_terminal && !dumb && !set("NO_COLOR"),
            },
        }
    }

    /// A file or a pipe: no width, no colour.
    pub fn plain() -> Self {
        Self { is_terminal: false, width: None, height: None, colour: false }
    }

    /// `text` in `paint`, where colour is wanted.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        match paint.code().filter(|_| self.colour) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }
}

/// A meaning that has a colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    /// None.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Beside the point.
    Dim,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

impl Paint {
    /// The SGR parameters (ECMA-48 8.3.117).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}
