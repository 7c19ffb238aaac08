//! The figures for people and for programs. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    figures::{Bound, Figure, GROUPS, Judged, Unit},
    measured::{Machine, Outcome},
};

/// What was found out of each figure.
type Outcomes<'a> = [(&'a Figure, Outcome)];

/// The names of all figures.
pub(crate) fn list() -> String {
    let mut rows = vec![["GROUP", "FIGURE", "WHAT"].map(str::to_owned).to_vec()];
    for group in GROUPS {
        rows.extend(
            group
                .figures
                .iter()
                .map(|figure| [group.name, figure.name, figure.what].map(str::to_owned).to_vec()),
        );
    }
    columns(&rows)
}

/// The table, and what there is to say below it.
pub(crate) fn table(machine: &Machine, outcomes: &Outcomes) -> String {
    let heads = ["FIGURE", "OURS", "MIN..MAX", "RUNS", "BOUND", "MET", "WHAT"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let (mut peers, mut notes) = (String::new(), String::new());
    for (figure, outcome) in outcomes {
        let bound = match figure.bound {
            None => "-".to_owned(),
            Some(Bound::Below(bound)) => format!("< {}", value(figure.unit, bound)),
            Some(Bound::AtLeast(bound)) => format!("≥ {}", value(figure.unit, bound)),
        };
        let (ours, range, runs, met) = match outcome {
            Outcome::Failed(because) => {
                let _ = writeln!(notes, "  {}: {because}", figure.name);
                ("failed".to_owned(), "-".to_owned(), "-".to_owned(), "?")
            }
            Outcome::Measured(measured) => {
                let [least, _, greatest] = measured.spread();
                let met = match measured.met(figure) {
                    None => "-",
                    Some(true) => "yes",
                    Some(false) => "NO",
                };
                if !measured.note.is_empty() {
                    let _ = writeln!(notes, "  {}: {}", figure.name, measured.note);
                }
                (
                    value(figure.unit, measured.value(figure.judged)),
                    format!("{}..{}", number(least), number(greatest)),
                    measured.runs().to_string(),
                    met,
                )
            }
        };
        if !figure.peer.is_empty() {
            let _ = writeln!(peers, "  {}: {}", figure.name, figure.peer);
        }
        rows.push(vec![
            figure.name.to_owned(),
            ours,
            range,
            runs,
            bound,
            met.to_owned(),
            figure.what.to_owned(),
        ]);
    }
    let mut text = columns(&rows);
    let _ = write!(
        text,
        "\nOURS is the median; of memory, idle and uplink-loss it is the worst. Measured on {} cores with a userspace\n\
         switch; the machine's load was {:.1} when it began.\n",
        machine.cores, machine.load
    );
    for (title, lines) in [("Others have:", peers), ("Notes:", notes)] {
        if !lines.is_empty() {
            let _ = write!(text, "\n{title}\n{lines}");
        }
    }
    text
}

/// The same as JSON.
pub(crate) fn json(machine: &Machine, outcomes: &Outcomes) -> Value {
    let one = |(figure, outcome): &(&Figure, Outcome)| {
        let mut object = json!({
            "name": figure.name,
            "what": figure.what,
            "unit": unit(figure.unit),
            "below": match figure.bound { Some(Bound::Below(bound)) => Some(bound), _ => None },
            "atLeast": match figure.bound { Some(Bound::AtLeast(bound)) => Some(bound), _ => None },
            "judgedBy": match figure.judged { Judged::Median => "median", Judged::Worst => "worst" },
            "peer": figure.peer,
        });
        match outcome {
            Outcome::Failed(because) => object["error"] = json!(because),
            Outcome::Measured(measured) => {
                let [least, median, greatest] = measured.spread();
                object["min"] = json!(least);
                object["median"] = json!(median);
                object["max"] = json!(greatest);
                object["runs"] = json!(measured.runs());
                object["met"] = json!(measured.met(figure));
                object["note"] = json!(measured.note);
            }
        }
        object
    };
    json!({
        "cores": machine.cores,
        "load": machine.load,
        "figures": outcomes.iter().map(one).collect::<Vec<_>>(),
    })
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Milliseconds => "ms",
        Unit::Megabytes => "MB",
        Unit::Kilobytes => "kB",
        Unit::Percent => "%",
        Unit::PerSecond => "/s",
    }
}

fn value(of: Unit, amount: f64) -> String {
    format!("{} {}", number(amount), unit(of))
}

/// Three digits that count, and no more than there are before the point.
fn number(amount: f64) -> String {
    let digits = match amount.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{amount:.digits$}");
    match text.split_once('.') {
        Some((whole, part)) if part.bytes().all(|byte| byte == b'0') => whole.to_owned(),
        _ => text,
    }
}

/// Rows as columns, two spaces between.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..count)
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::Measured;

    #[test]
    fn numbers_are_as_long_as_they_tell_something() {
        for (amount, text) in [(1234.5, "1234"), (50.0, "50"), (12.34, "12.3"), (0.456, "0.46")] {
            assert_eq!(number(amount), text);
        }
    }

    #[test]
    fn the_table_marks_what_is_missed_and_what_failed() {
        let all: Vec<&Figure> = GROUPS.iter().flat_map(|group| group.figures).collect();
        let [first, second, third] = [all[0], all[1], all[2]];
        let machine = Machine { cores: 2, load: 0.5 };
        let text = table(
            &machine,
            &[
                (first, Outcome::Measured(Measured::new(first.name, vec![1.0], ""))),
                (
                    second,
                    Outcome::Measured(Measured::new(second.name, vec![1e9], "slow")),
                ),
                (third, Outcome::Failed("no lab".to_owned())),
            ],
        );
        let line = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default()
        };
        assert!(line(first.name).contains("  yes  "), "{text}");
        assert!(line(second.name).contains("  NO  "), "{text}");
        assert!(line(third.name).contains("failed"), "{text}");
        assert!(text.contains("no lab") && text.contains("slow"), "{text}");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = GROUPS
            .iter()
            .flat_map(|group| group.figures.iter().map(|f| f.name).chain([group.name]))
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
