//! CSV as RFC 4180 defines it, for spreadsheets: UTF-8 with a byte order mark, so that they decode Japanese correctly.

use crate::show::escape_line;
use crate::{Day, Operation};

/// The byte order mark and the names of the columns.
pub const CSV_HEADER: &str = concat!(
    "\u{feff}sequence,time,phase,result,code,actor_kind,actor,from,service,method,function,operation,target,reason,",
    "duration_us,request_id,trace_id,detail,id\r\n"
);
const COLUMNS: usize = 19;
/// Spreadsheets cut cells after 32,767 characters, or break them.
const MAX_CELL: usize = 32_000;
const CUT: &str = "… (cut: the export as JSON Lines has all)";

/// Appends the row of an operation. Times are in JST.
pub fn csv_row(rows: &mut String, sequence: u64, operation: &Operation) {
    let detail: Vec<String> = operation.detail.iter().map(|(name, value)| format!("{name}={value}")).collect();
    row(
        rows,
        &[
            &sequence.to_string(),
            &operation.time.to_string(),
            operation.phase.as_str(),
            operation.result.as_str(),
            &operation.code,
            operation.actor.kind.as_str(),
            &operation.actor.id,
            &operation.from,
            &operation.service,
            &operation.method,
            &operation.function,
            operation.operation.as_str(),
            &operation.target,
            &operation.reason,
            &operation.duration_us.to_string(),
            &operation.request_id,
            &operation.trace_id,
            &detail.join("; "),
            &operation.id.to_string(),
        ],
    );
}

/// Appends the row of an entry whose day has expired.
pub fn csv_expired(rows: &mut String, sequence: u64, day: Day) {
    without_body(rows, sequence, &day.to_string(), "EXPIRED");
}

/// Appends the row of an entry that is damaged where it is stored.
pub fn csv_damaged(rows: &mut String, sequence: u64) {
    without_body(rows, sequence, "", "DAMAGED");
}

fn without_body(rows: &mut String, sequence: u64, day: &str, word: &str) {
    let sequence = sequence.to_string();
    let mut cells = [""; COLUMNS];
    cells.iter_mut().zip([sequence.as_str(), day, word]).for_each(|(cell, text)| *cell = text);
    row(rows, &cells);
}

fn row(rows: &mut String, cells: &[&str; COLUMNS]) {
    for (at, text) in cells.iter().enumerate() {
        if at > 0 {
            rows.push(',');
        }
        rows.push_str(&cell(text));
    }
    rows.push_str("\r\n");
}

/// One cell, escaped so that no spreadsheet reads it as a formula or as another row.
fn cell(text: &str) -> String {
    let mut text = escape_line(text);
    if let Some((end, _)) = text.char_indices().nth(MAX_CELL) {
        text.truncate(end);
        text.push_str(CUT);
    }
    // the full-width forms, too: a Japanese spreadsheet reads them as the half-width ones
    let formula = text.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    if formula {
        text.insert(0, '\'');
    }
    if text.contains([',', '"', ';', '\'']) || formula { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for (text, shown) in [
            ("=1+1", "\"'=1+1\""),
            ("+81", "\"'+81\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("  =1", "\"'  =1\""),
            ("\u{3000}＝1", "\"'\u{3000}＝1\""),
            ("\t=1", "\\t=1"),
            ("\r=1", "\\r=1"),
            ("a=b", "a=b"),
            ("東京,\"本社\"\n", "\"東京,\"\"本社\"\"\\n\""),
            ("", ""),
        ] {
            assert_eq!(cell(text), shown);
        }
    }

    #[test]
    fn a_long_cell_is_cut_where_spreadsheets_would_break_it() {
        let long = cell(&"=あ".repeat(30_000));
        assert!(long.starts_with("\"'=あ") && long.ends_with("has all)\""), "{}", &long[..20]);
        assert!(long.chars().count() < 32_767);
    }

    #[test]
    fn an_expired_entry_says_of_which_day_it_was() {
        let mut rows = String::new();
        csv_expired(&mut rows, 3, "2025-11-26".parse().unwrap());
        assert_eq!(rows, format!("3,2025-11-26,EXPIRED{}\r\n", ",".repeat(16)));
        assert_eq!(CSV_HEADER.split(',').count(), COLUMNS);
    }
}
