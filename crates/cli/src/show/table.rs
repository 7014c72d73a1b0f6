//! Aligned columns. Cells are escaped when they are made; a table that is wider than its terminal first shortens the
//! columns that may be shortened, then leaves out the least important ones.

use super::terminal::{Paint, Surface};
use super::text::escape;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: usize = 2;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// At the left: text.
    Left,
    /// At the right: numbers.
    Right,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Where its text stands.
    pub align: Align,
    /// The width that it may be shortened to; `usize::MAX` for never.
    pub shortest: usize,
    /// The least important column goes first; 0 never goes.
    pub goes: u8,
}

impl Column {
    /// Text that may be shortened to `shortest` columns and never goes.
    pub const fn text(title: &'static str, shortest: usize) -> Self {
        Self { title, align: Align::Left, shortest, goes: 0 }
    }

    /// A word that is shown whole.
    pub const fn word(title: &'static str) -> Self {
        Self { title, align: Align::Left, shortest: usize::MAX, goes: 0 }
    }

    /// A number.
    pub const fn number(title: &'static str) -> Self {
        Self { title, align: Align::Right, shortest: usize::MAX, goes: 0 }
    }

    /// The same column; of several that may go, the one with the highest number goes first.
    #[must_use]
    pub const fn goes(mut self, order: u8) -> Self {
        self.goes = order;
        self
    }
}

/// A cell's text, escaped, and its colour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// Any text, made harmless.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: escape(text.as_ref()).into_owned(), paint: Paint::Plain }
    }

    /// The same cell in a colour.
    #[must_use]
    pub fn painted(mut self, paint: Paint) -> Self {
        self.paint = paint;
        self
    }
}

/// Columns and rows.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// The columns that fit, with their widths: kept for a table that goes on.
#[derive(Clone, Debug)]
pub struct Layout(Vec<(usize, usize)>);

impl Table {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has a cell for each column.
    pub fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Without its columns that are empty in every row and may go.
    #[must_use]
    pub fn without_empty_columns(mut self) -> Self {
        let keep: Vec<bool> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| column.goes == 0 || self.rows.iter().any(|row| !row[index].text.is_empty()))
            .collect();
        let mut kept = keep.iter();
        self.columns.retain(|_| *kept.next().unwrap_or(&true));
        for row in &mut self.rows {
            let mut kept = keep.iter();
            row.retain(|_| *kept.next().unwrap_or(&true));
        }
        self
    }

    /// The same, its texts shortened to `width` columns at most: other columns go first.
    #[must_use]
    pub fn with_texts_of_at_least(mut self, width: usize) -> Self {
        for column in &mut self.columns {
            column.shortest = column.shortest.max(width);
        }
        self
    }

    /// Which columns fit and how wide they are.
    pub fn layout(&self, surface: &Surface) -> Layout {
        let natural: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().map(|row| row[index].text.width()).max().unwrap_or(0);
                cells.max(column.title.width())
            })
            .collect();
        let mut shown: Vec<(usize, usize)> = natural.into_iter().enumerate().collect();
        let Some(available) = surface.width else { return Layout(shown) };
        loop {
            let total = |shown: &[(usize, usize)]| {
                shown.iter().map(|(_, width)| width).sum::<usize>() + GAP * shown.len().saturating_sub(1)
            };
            let floor = |index: usize, width: usize| {
                let column = &self.columns[index];
                width.min(column.shortest.max(column.title.width()))
            };
            let least: Vec<(usize, usize)> =
                shown.iter().map(|(index, width)| (*index, floor(*index, *width))).collect();
            if total(&least) > available {
                let next = shown.iter().map(|(index, _)| *index).max_by_key(|index| self.columns[*index].goes);
                if let Some(next) = next.filter(|index| self.columns[*index].goes > 0) {
                    shown.retain(|(index, _)| *index != next);
                    continue;
                }
            }
            // The widest gives first, so that short texts stay whole.
            while total(&shown) > available {
                let widest = shown
                    .iter_mut()
                    .filter(|(index, width)| *width > floor(*index, *width))
                    .max_by_key(|(_, width)| *width);
                let Some((_, width)) = widest else { break };
                *width -= 1;
            }
            return Layout(shown);
        }
    }

    /// Whether the rows can be shown whole in a layout that was made for others; columns that may be shortened always
    /// can.
    pub fn fits(&self, layout: &Layout) -> bool {
        layout.0.iter().all(|(index, width)| {
            self.columns[*index].shortest != usize::MAX
                || self.rows.iter().all(|row| row[*index].text.width() <= *width)
        })
    }

    /// The heading's line.
    pub fn heading(&self, layout: &Layout, surface: &Surface) -> String {
        let pieces = self.heading_pieces(layout);
        Self::line(&pieces, surface)
    }

    /// The rows' lines.
    pub fn lines(&self, layout: &Layout, surface: &Surface) -> Vec<String> {
        self.rows.iter().map(|row| Self::line(&self.pieces(row, layout), surface)).collect()
    }

    /// Heading and rows, a line each.
    pub fn render(&self, surface: &Surface) -> String {
        let layout = self.layout(surface);
        let mut text = self.heading(&layout, surface);
        text.push('\n');
        for line in self.lines(&layout, surface) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// The heading's pieces: texts that fill their columns, gaps included, with their colours.
    pub fn heading_pieces(&self, layout: &Layout) -> Vec<(String, Paint)> {
        let cells: Vec<Cell> = self.columns.iter().map(|column| Cell::new(column.title).painted(Paint::Bold)).collect();
        self.pieces(&cells, layout)
    }

    /// A row's pieces, as [`Table::heading_pieces`].
    pub fn row_pieces(&self, row: usize, layout: &Layout) -> Vec<(String, Paint)> {
        self.rows.get(row).map_or_else(Vec::new, |cells| self.pieces(cells, layout))
    }

    fn pieces(&self, cells: &[Cell], layout: &Layout) -> Vec<(String, Paint)> {
        let mut pieces = Vec::with_capacity(3 * layout.0.len());
        for (place, (index, width)) in layout.0.iter().enumerate() {
            let (column, cell) = (&self.columns[*index], &cells[*index]);
            let text = shorten(&cell.text, *width);
            let padding = (" ".repeat(width.saturating_sub(text.width())), Paint::Plain);
            if place > 0 {
                pieces.push((" ".repeat(GAP), Paint::Plain));
            }
            let last = place + 1 == layout.0.len();
            match column.align {
                Align::Right => pieces.extend([padding, (text, cell.paint)]),
                Align::Left if last => pieces.push((text, cell.paint)),
                Align::Left => pieces.extend([(text, cell.paint), padding]),
            }
        }
        pieces
    }

    fn line(pieces: &[(String, Paint)], surface: &Surface) -> String {
        let mut line: String = pieces.iter().map(|(text, paint)| surface.paint(*paint, text)).collect();
        line.truncate(line.trim_end_matches(' ').len());
        line
    }
}

/// The text in at most `width` columns; what is missing is shown by an ellipsis.
pub fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > width {
            break;
        }
        short.push(character);
    }
    if width > 0 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            Column::text("NAME", 6),
            Column::number("BYTES"),
            Column::word("NOTE").goes(1),
            Column::word("EXTRA").goes(2),
        ]);
        table.push(vec![Cell::new("a-rather-long-name"), Cell::new("1"), Cell::new("note"), Cell::new("extra")]);
        table.push(vec![Cell::new("日本"), Cell::new("1234567"), Cell::new(""), Cell::new("")]);
        table
    }

    fn wide(width: usize) -> Surface {
        Surface { width: Some(width), ..Surface::plain() }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 15..60 {
            for line in table().render(&wide(width)).lines() {
                assert!(line.width() <= width, "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn long_text_is_shortened_before_a_column_goes() {
        insta::assert_snapshot!(table().render(&wide(30)));
    }

    #[test]
    fn the_least_important_column_goes_first() {
        let text = table().render(&wide(22));
        assert!(text.contains("NOTE") && !text.contains("EXTRA"), "{text}");
        let text = table().render(&wide(16));
        assert!(!text.contains("NOTE") && text.contains("a-rath…"), "{text}");
    }

    #[test]
    fn cells_cannot_steer_the_terminal() {
        let mut table = Table::new(&[Column::text("NAME", 6)]);
        table.push(vec![Cell::new("\u{1b}]0;title\u{7}\nnext")]);
        assert_eq!(table.render(&Surface::plain()), "NAME\n\\x1b]0;title\\x07\\nnext\n");
    }
}
