//! Values that were measured, and the verdict on them. Pure.

use std::time::Duration;

use crate::figures::{Bound, Figure, Judged};

/// A figure's values, one for each time that it was measured.
pub(crate) struct Measured {
    /// The figure's name.
    pub(crate) name: &'static str,
    /// In the figure's unit, sorted, at least one.
    values: Vec<f64>,
    /// What else there is to know.
    pub(crate) note: String,
}

/// Where it was measured.
pub(crate) struct Machine {
    pub(crate) cores: usize,
    /// What others had to do there when the measurement began.
    pub(crate) load: f64,
}

/// What became of a figure.
pub(crate) enum Outcome {
    /// It was measured.
    Measured(Measured),
    /// It could not be; why.
    Failed(String),
}

impl Measured {
    /// Values of a figure, at least one.
    pub(crate) fn new(name: &'static str, mut values: Vec<f64>, note: impl Into<String>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            name,
            values,
            note: note.into(),
        }
    }

    /// Times, in milliseconds.
    pub(crate) fn times(name: &'static str, times: &[Duration], note: impl Into<String>) -> Self {
        Self::new(name, times.iter().map(milliseconds).collect(), note)
    }

    /// How often it was measured.
    pub(crate) fn runs(&self) -> usize {
        self.values.len()
    }

    /// Least, middle (of two, the worse) and greatest value.
    pub(crate) fn spread(&self) -> [f64; 3] {
        let at = |index: usize| self.values.get(index).copied().unwrap_or(f64::NAN);
        [
            at(0),
            at(self.values.len() / 2),
            at(self.values.len().saturating_sub(1)),
        ]
    }

    /// The value that counts.
    pub(crate) fn value(&self, judged: Judged) -> f64 {
        let [_, median, worst] = self.spread();
        match judged {
            Judged::Median => median,
            Judged::Worst => worst,
        }
    }

    /// Whether the bound is met, if there is one.
    pub(crate) fn met(&self, figure: &Figure) -> Option<bool> {
        let value = self.value(figure.judged);
        figure.bound.map(|bound| match bound {
            Bound::Below(bound) => value < bound,
            Bound::AtLeast(bound) => value >= bound,
        })
    }
}

/// A time in milliseconds.
pub(crate) fn milliseconds(time: &Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The value that so many percent of sorted values do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((sorted.len() * percent / 100).min(last))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Unit;

    fn figure(judged: Judged) -> Figure {
        Figure {
            name: "f",
            what: "",
            unit: Unit::Milliseconds,
            bound: Some(Bound::Below(3.0)),
            judged,
            peer: "",
        }
    }

    #[test]
    fn the_value_that_counts_decides() {
        let measured = Measured::new("f", vec![9.0, 1.0, 2.0], "");
        assert_eq!(measured.spread(), [1.0, 2.0, 9.0]);
        assert_eq!(measured.met(&figure(Judged::Median)), Some(true));
        assert_eq!(measured.met(&figure(Judged::Worst)), Some(false));
        let even = Measured::new("f", vec![1.0, 3.0], "");
        assert_eq!(
            even.met(&figure(Judged::Median)),
            Some(false),
            "of two, the worse; a bound is not met by equality"
        );
    }

    #[test]
    fn some_figures_should_be_high() {
        let rate = Figure {
            bound: Some(Bound::AtLeast(3.0)),
            ..figure(Judged::Median)
        };
        assert_eq!(Measured::new("f", vec![3.0], "").met(&rate), Some(true));
        assert_eq!(Measured::new("f", vec![2.9], "").met(&rate), Some(false));
    }

    #[test]
    fn percentiles_stay_inside() {
        let times: Vec<Duration> = (1..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(6));
        assert_eq!(percentile(&times, 99), Duration::from_millis(10));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
