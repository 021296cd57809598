//! The table for people and the file for programs.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::figure::{Figure, Measured};

/// A line a figure, columns aligned, and below each its note.
pub fn table(measured: &[Measured]) -> String {
    let head = ["figure", "value", "baseline", "unit", "ratio", "target", ""].map(str::to_owned);
    let rows = measured.iter().map(|Measured { figure, target }| {
        let ratio = figure.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let met = if target.is_met_by(figure) { "met" } else { "NOT MET" };
        [figure.name.clone(), short(figure.value), short(figure.baseline), figure.unit.clone(), ratio, target.to_string(), met.to_owned()]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let widths = rows.iter().fold([0; 7], |mut widths, row| {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
        widths
    });
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    for Measured { figure, .. } in measured {
        text.extend(["\n", &figure.name, ": ", &figure.note, "\n"]);
    }
    text
}

/// Three digits or more, whatever the size.
fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// Writes the figures into the file. What the file holds of other figures stays as it is.
pub fn merge(file: &Path, measured: &[Measured]) -> Result<()> {
    let mut figures: Vec<Figure> = match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).context("the file holds no figures; remove it")?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    for Measured { figure, .. } in measured {
        match figures.iter_mut().find(|held| held.name == figure.name) {
            Some(held) => *held = figure.clone(),
            None => figures.push(figure.clone()),
        }
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let part = file.with_extension("json.part");
    fs::write(&part, serde_json::to_string_pretty(&figures)? + "\n")?;
    Ok(fs::rename(&part, file)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Target;

    fn measured(name: &str, value: f64) -> Measured {
        Measured { figure: Figure::new(name, value, "1/min", 100.0, "how".to_owned()), target: Target::RatioAtLeast(5.0) }
    }

    #[test]
    fn a_missed_target_is_said() {
        let text = table(&[measured("rate", 512.0), measured("slow", 12.34)]);
        assert_eq!(
            text,
            "figure  value  baseline  unit   ratio  target\n\
             rate    512    100       1/min  5.12   ratio >= 5  met\n\
             slow    12.34  100       1/min  0.12   ratio >= 5  NOT MET\n\
             \nrate: how\n\nslow: how\n"
        );
    }

    #[test]
    fn other_figures_keep_their_last_result() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/bench.json");
        merge(&file, &[measured("one", 1.0), measured("two", 2.0)]).unwrap();
        merge(&file, &[measured("two", 3.0), measured("three", 4.0)]).unwrap();
        let held: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let values: Vec<(&str, f64)> = held.iter().map(|held| (held["name"].as_str().unwrap(), held["value"].as_f64().unwrap())).collect();
        assert_eq!(values, [("one", 1.0), ("two", 3.0), ("three", 4.0)]);
        let mut keys: Vec<&String> = held[0].as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["baseline", "name", "note", "ratio", "unit", "value"]);
    }

    #[test]
    fn a_file_of_something_else_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bench.json");
        fs::write(&file, "{}").unwrap();
        assert!(merge(&file, &[measured("one", 1.0)]).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    }
}
