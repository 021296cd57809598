//! Aligned columns, wide characters included.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::escape_line;

/// The side of its column to which a cell is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// A table with a header.
#[derive(Debug)]
pub struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub const fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| escape_line(if cell.is_empty() { "-" } else { &cell })));
    }

    pub fn render(&self) -> String {
        let header = self.columns.map(|(title, _)| title.to_owned());
        let lines = || std::iter::once(&header).chain(&self.rows);
        let mut widths = [0; N];
        for line in lines() {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.width());
            }
        }
        let mut text = String::new();
        for line in lines() {
            let mut row = String::new();
            for ((cell, (_, align)), width) in line.iter().zip(self.columns).zip(widths) {
                if !row.is_empty() {
                    row.push_str("  ");
                }
                let padding = " ".repeat(width.saturating_sub(cell.width()));
                match align {
                    Align::Left => row.extend([cell.as_str(), &padding]),
                    Align::Right => row.extend([padding.as_str(), cell]),
                }
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

/// As much of a line as fits into so many columns.
pub fn shortened(line: &str, columns: usize) -> String {
    let mut width = 0;
    let fits = |c: &char| {
        width += c.width().unwrap_or_default();
        width <= columns
    };
    line.chars().take_while(fits).collect()
}

/// A cell that is cut where the text is longer than `columns`, so that no text from outside displaces other cells.
pub fn short_cell(text: &str, columns: usize) -> String {
    let safe = escape_line(text);
    if safe.width() <= columns { safe } else { shortened(&safe, columns.saturating_sub(1)) + "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new([("NAME", Align::Left), ("BYTES", Align::Right), ("NOTE", Align::Left)]);
        table.row(["東京-1".into(), "12".into(), String::new()]);
        table.row(["osaka".into(), "12345".into(), "a\nb".into()]);
        insta::assert_snapshot!(table.render(), @r"
        NAME    BYTES  NOTE
        東京-1     12  -
        osaka   12345  a\nb
        ");
    }

    #[test]
    fn a_long_cell_is_cut_where_its_column_ends() {
        assert_eq!(short_cell("core-1", 6), "core-1");
        assert_eq!(short_cell("東京本社", 6), "東京…");
        assert_eq!(short_cell("\x1b[2J\u{202e}", 12), "\\u{1b}[2J\\u…");
    }
}
