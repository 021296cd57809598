//! Rows are written many at a time: one statement for up to 256 of them, as text that never changes, so that it is parsed once.

use std::fmt::Write as _;
use std::sync::OnceLock;

use tsujiban_database::Backend;

/// The most rows that one statement has.
const MOST: usize = 256;
/// 1, 2, 4, ... 256.
const SIZES: usize = 9;

/// A statement with a list of rows in it.
pub struct Statement {
    before: &'static str,
    columns: usize,
    after: &'static str,
    /// SQLite: `?`. It searches for numbered parameters linearly, which for thousands of them takes longer than the writing.
    plain: [OnceLock<String>; SIZES],
    /// PostgreSQL: `$1`.
    numbered: [OnceLock<String>; SIZES],
}

impl Statement {
    pub const fn new(before: &'static str, columns: usize, after: &'static str) -> Self {
        Self { before, columns, after, plain: [const { OnceLock::new() }; SIZES], numbered: [const { OnceLock::new() }; SIZES] }
    }

    /// The text for a number of rows that [`portions`] gave.
    pub fn text<S, P>(&'static self, backend: &Backend<S, P>, rows: usize) -> &'static str {
        let (texts, numbered) = match backend {
            Backend::Sqlite(_) => (&self.plain, false),
            Backend::Postgres(_) => (&self.numbered, true),
        };
        let size = usize::try_from(rows.trailing_zeros()).unwrap_or_default();
        texts.get(size).map_or("", |text| text.get_or_init(|| self.write(1 << size, numbered)))
    }

    fn write(&self, rows: usize, numbered: bool) -> String {
        let mut text = String::from(self.before);
        for row in 0..rows {
            text.push_str(if row == 0 { " (" } else { ", (" });
            for column in 0..self.columns {
                let comma = if column == 0 { "" } else { ", " };
                if numbered {
                    let _ = write!(text, "{comma}${}", row * self.columns + column + 1);
                } else {
                    let _ = write!(text, "{comma}?");
                }
            }
            text.push(')');
        }
        text.push(' ');
        text.push_str(self.after);
        text
    }
}

/// The sizes of the portions for so many rows: powers of two, so that there are few texts.
pub fn portions(mut rows: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let portion = if rows >= MOST { MOST } else { rows.checked_ilog2().map(|power| 1 << power)? };
        rows -= portion;
        Some(portion)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_both_databases() {
        static STATEMENT: Statement = Statement::new("INSERT INTO t (a, b) VALUES", 2, "ON CONFLICT DO NOTHING");
        let (sqlite, postgres) = (Backend::<(), ()>::Sqlite(()), Backend::<(), ()>::Postgres(()));
        assert_eq!(STATEMENT.text(&sqlite, 2), "INSERT INTO t (a, b) VALUES (?, ?), (?, ?) ON CONFLICT DO NOTHING");
        assert_eq!(STATEMENT.text(&postgres, 2), "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING");
        assert_eq!(STATEMENT.text(&postgres, 256).matches('(').count(), 257);
    }

    #[test]
    fn portions_make_up_the_whole() {
        assert_eq!(portions(0).count(), 0);
        assert_eq!(portions(600).collect::<Vec<_>>(), [256, 256, 64, 16, 8]);
        assert!((0..2000).all(|rows| portions(rows).sum::<usize>() == rows));
    }
}
