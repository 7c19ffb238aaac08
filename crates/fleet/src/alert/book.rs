//! From findings and open alerts to what is to be done. Pure.

use std::collections::BTreeMap;

use crate::model::{Severity, Time};

/// Seconds that the reason of an alert must be gone before it is resolved.
const QUIET: i64 = 120;
/// The same, at most, for one that comes and goes.
const LONGEST_QUIET: i64 = 1800;

/// Something that is the matter now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What makes two of them one, for example `site-offline/ID`.
    pub key: String,
    /// The rule that found it.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The site's id and name.
    pub site: Option<(String, String)>,
    /// The host's id and name.
    pub host: Option<(String, String)>,
    /// One line.
    pub title: String,
    /// More.
    pub message: String,
}

/// An alert that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// How bad it was.
    pub severity: Severity,
    /// What it says.
    pub title: String,
    /// What it says.
    pub message: String,
    /// How often it came.
    pub count: i64,
    /// Since when its reason is gone.
    pub quiet_at: Option<Time>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// A new alert; channels are told.
    Raise(Finding),
    /// It is still or again the matter, and something about it changed. `tell`: it is worse, so channels are told.
    Again {
        /// The alert.
        id: String,
        /// How it is now.
        finding: Finding,
        /// How often it came.
        count: i64,
        /// Whether channels are told.
        tell: bool,
    },
    /// Its reason is gone for now.
    Quiet {
        /// The alert.
        id: String,
    },
    /// It is over; channels are told.
    Resolve {
        /// The alert.
        id: String,
    },
}

/// Compares what is the matter now with the open alerts, by key.
#[must_use]
pub fn fold(open: &BTreeMap<String, Known>, findings: Vec<Finding>, now: Time) -> Vec<Move> {
    let mut moves = Vec::new();
    let mut now_by_key: BTreeMap<String, Finding> = BTreeMap::new();
    for finding in findings {
        match now_by_key.get(&finding.key) {
            Some(there) if there.severity >= finding.severity => {}
            _ => drop(now_by_key.insert(finding.key.clone(), finding)),
        }
    }
    for (key, known) in open {
        if now_by_key.contains_key(key) {
            continue;
        }
        match known.quiet_at {
            None => moves.push(Move::Quiet { id: known.id.clone() }),
            Some(since) if since.plus_seconds(quiet(known.count)) <= now => {
                moves.push(Move::Resolve { id: known.id.clone() });
            }
            Some(_) => {}
        }
    }
    for (key, finding) in now_by_key {
        let Some(known) = open.get(&key) else {
            moves.push(Move::Raise(finding));
            continue;
        };
        let came_back = known.quiet_at.is_some();
        let same = (known.severity, &known.title, &known.message)
            == (finding.severity, &finding.title, &finding.message);
        if came_back || !same {
            moves.push(Move::Again {
                id: known.id.clone(),
                tell: finding.severity > known.severity,
                count: known.count + i64::from(came_back),
                finding,
            });
        }
    }
    moves
}

/// How long the reason of an alert that came so often must be gone.
fn quiet(count: i64) -> i64 {
    let doubled = u32::try_from(count.clamp(1, 10) - 1).unwrap_or(0);
    (QUIET << doubled).min(LONGEST_QUIET)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finding(key: &str, severity: Severity) -> Finding {
        Finding {
            key: key.into(),
            rule: "test",
            severity,
            site: None,
            host: None,
            title: "t".into(),
            message: String::new(),
        }
    }

    /// What the database does with moves.
    #[derive(Default)]
    struct Book {
        open: BTreeMap<String, Known>,
        told: Vec<String>,
        next: usize,
    }

    impl Book {
        fn look(&mut self, findings: Vec<Finding>, seconds: i64) {
            let now = Time::from_millis(seconds * 1000);
            for step in fold(&self.open, findings, now) {
                match step {
                    Move::Raise(f) => {
                        self.next += 1;
                        self.told.push(format!("{seconds} {} {:?}", f.key, f.severity));
                        let known = Known {
                            id: self.next.to_string(),
                            severity: f.severity,
                            title: f.title,
                            message: f.message,
                            count: 1,
                            quiet_at: None,
                        };
                        assert!(self.open.insert(f.key, known).is_none());
                    }
                    Move::Again {
                        id,
                        finding,
                        count,
                        tell,
                    } => {
                        let known = self.open.get_mut(&finding.key).unwrap();
                        assert_eq!(known.id, id);
                        (known.severity, known.count, known.quiet_at) = (finding.severity, count, None);
                        if tell {
                            self.told
                                .push(format!("{seconds} {} {:?}", finding.key, finding.severity));
                        }
                    }
                    Move::Quiet { id } => {
                        self.open.values_mut().find(|k| k.id == id).unwrap().quiet_at = Some(now);
                    }
                    Move::Resolve { id } => {
                        let key = self.open.iter().find(|(_, k)| k.id == id).unwrap().0.clone();
                        self.told.push(format!("{seconds} {key} resolved"));
                        self.open.remove(&key);
                    }
                }
            }
        }
    }

    #[test]
    fn told_once_and_when_it_is_over() {
        let mut book = Book::default();
        for second in (0..600).step_by(15) {
            let there = second < 200;
            book.look(
                if there {
                    vec![finding("a", Severity::Warning)]
                } else {
                    vec![]
                },
                second,
            );
        }
        assert_eq!(book.told, ["0 a Warning", "330 a resolved"]);
    }

    #[test]
    fn worse_is_told_and_better_is_not() {
        let mut book = Book::default();
        for (second, severity) in [
            (0, Severity::Warning),
            (15, Severity::Critical),
            (30, Severity::Warning),
        ] {
            // The same thing found twice counts as its worst.
            book.look(vec![finding("a", severity), finding("a", Severity::Info)], second);
        }
        assert_eq!(book.told, ["0 a Warning", "15 a Critical"]);
    }

    #[test]
    fn what_flaps_is_damped() {
        let mut book = Book::default();
        // A minute there, three minutes away, for two hours.
        for second in (0..7200).step_by(15) {
            book.look(
                if second % 240 < 60 {
                    vec![finding("a", Severity::Warning)]
                } else {
                    vec![]
                },
                second,
            );
        }
        // Three minutes are longer than the first patience, so it is told to be over each time...
        assert_eq!(book.told.len(), 60);
        let mut book = Book::default();
        for second in (0..7200).step_by(15) {
            book.look(
                if second % 120 < 60 {
                    vec![finding("a", Severity::Warning)]
                } else {
                    vec![]
                },
                second,
            );
        }
        // ... one minute is not: it is told once in two hours.
        assert_eq!(book.told, ["0 a Warning"]);
        assert_eq!(book.open["a"].count, 60);
    }

    proptest! {
        /// Whatever comes and goes: each key is told open and resolved in turns, and ends resolved when all is quiet.
        #[test]
        fn open_and_over_take_turns(looks in proptest::collection::vec(proptest::collection::vec((0..3_u8, 0..3_u8), 0..4), 1..60)) {
            let mut book = Book::default();
            let mut second = 0;
            for look in &looks {
                let findings = look.iter().map(|(key, severity)| {
                    let severity = [Severity::Info, Severity::Warning, Severity::Critical][usize::from(*severity)];
                    finding(&key.to_string(), severity)
                });
                book.look(findings.collect(), second);
                second += 40;
            }
            for _ in 0..200 {
                book.look(vec![], second);
                second += 40;
            }
            prop_assert!(book.open.is_empty());
            for key in ["0", "1", "2"] {
                let of_key: Vec<bool> = book.told.iter().filter(|t| t.split(' ').nth(1) == Some(key)).map(|t| t.ends_with("resolved")).collect();
                prop_assert!(!of_key.windows(2).any(|pair| pair[0] && pair[1]));
                prop_assert!(of_key.last().is_none_or(|last| *last));
            }
        }
    }
}
