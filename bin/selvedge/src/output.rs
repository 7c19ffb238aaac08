//! Printing: tables for people, JSON and YAML for programs.

use std::{borrow::Cow, io::Write};

use clap::ValueEnum;
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Yaml,
}

impl Output {
    /// Prints a value as JSON or YAML, or calls `table` for people.
    pub(crate) fn print<T: Serialize>(self, value: &T, table: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = match self {
            Self::Table => table(),
            Self::Json => serde_json::to_string_pretty(value)?,
            Self::Yaml => serde_saphyr::to_string(value)?,
        };
        let mut out = std::io::stdout().lock();
        // A reader that has gone (`| head`) is no error.
        let _ = writeln!(out, "{}", harmless(text.trim_end()));
        Ok(())
    }
}

/// A text without what a terminal would obey: names and reasons come from hosts, guests and people.
/// JSON and YAML have only line breaks of their own; all else stands escaped in them already.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            // Marks that turn the order of what is read.
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(obeyed) {
        text.replace(obeyed, "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// More of one value is not for a table; JSON has all of it.
const LONGEST_CELL: usize = 4_000;

/// A cell in one line: a line break in it would make a row that nobody wrote.
fn in_a_row(cell: String) -> String {
    let mut cell = cell.replace(['\n', '\t'], " ");
    if let Some((end, _)) = cell.char_indices().nth(LONGEST_CELL) {
        cell.truncate(end);
        cell.push('…');
    }
    cell
}

/// Columns side by side, as kubectl prints them: no lines, no colour.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![header.iter().map(ToString::to_string).collect()];
    lines.extend(
        rows.into_iter()
            .map(|row| row.into_iter().map(in_a_row).collect()),
    );
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let print = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| {
            let rest = width.saturating_sub(cell.chars().count());
            format!("{cell}{}", " ".repeat(rest))
        });
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    lines.iter().map(print).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nobody() {
        let evil = "\u{1b}]0;pwned\u{7}\u{1b}[2J\r\u{9b}31m\u{202e}x";
        let rows = vec![vec![evil.to_owned(), "a\nFORGED   row".to_owned()]];
        let text = table(&["NAME", "REASON"], rows);
        let text = harmless(&text);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}'));
        assert!(matches!(harmless("größer\n"), Cow::Borrowed("größer\n")));
    }

    #[test]
    fn a_long_value_breaks_no_table() {
        let rows = vec![vec!["x".repeat(200_000), "end".to_owned()], vec!["y".to_owned()]];
        let text = table(&["FIELD", "VALUE"], rows);
        assert_eq!(text.lines().count(), 3);
        assert!(text.len() < 20_000 && text.contains("x…   end"), "{}", text.len());
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned()],
            vec!["größer".to_owned(), "2".to_owned()],
        ];
        assert_eq!(table(&["NAME", "N"], rows), "NAME     N\na        1\ngrößer   2");
    }
}
