//! The one table, and the arithmetic that rows share.

use std::fmt::{self, Display};
use std::time::Duration;

/// One figure.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) measure: String,
    /// What came out.
    pub(crate) result: String,
    /// What it is compared with, measured in the same run.
    pub(crate) anchor: String,
    /// What is aimed at and whether it is met.
    pub(crate) aim: Aim,
    /// Processors' worth of work of others meanwhile.
    pub(crate) foreign: Option<f64>,
}

/// What a figure is held to.
#[derive(Debug)]
pub(crate) enum Aim {
    /// Nothing: a figure to watch.
    None,
    /// Not more than `aim`.
    AtMost {
        aim: f64,
        is: f64,
        unit: &'static str,
    },
    /// Not less than `aim`.
    AtLeast {
        aim: f64,
        is: f64,
        unit: &'static str,
    },
}

impl Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, aim, is, unit, met) = match *self {
            Self::None => return f.write_str("– | –"),
            Self::AtMost { aim, is, unit } => ("≤", aim, is, unit, is <= aim),
            Self::AtLeast { aim, is, unit } => ("≥", aim, is, unit, is >= aim),
        };
        write!(f, "{sign} {aim}{unit} | ")?;
        if met {
            f.write_str("yes")
        } else {
            write!(f, "**no**, {:.2} x the aim", is / aim)
        }
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            measure,
            result,
            anchor,
            aim,
            foreign,
        } = self;
        let foreign = foreign.map_or_else(|| "–".to_owned(), |load| format!("{load:.1}"));
        write!(f, "| {measure} | {result} | {anchor} | {aim} | {foreign} |")
    }
}

/// The line above all rows.
pub(crate) const HEAD: &str = "| Measure | Result | Anchor in the same run | Aim | Met | Foreign CPUs |\n\
                               |---|---|---|---|---|---|";

/// Returns the middle one; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Returns the value that `per_cent` of all do not exceed; zero of none.
pub(crate) fn percentile(values: &[Duration], per_cent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Returns milliseconds to calculate with.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Returns `p50 / p99` in milliseconds.
pub(crate) fn spread(latencies: &[Duration]) -> String {
    let [p50, p99] = [50, 99].map(|per_cent| millis(percentile(latencies, per_cent)));
    format!("p50 {p50:.2} / p99 {p99:.2} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();

        let at = [1, 50, 99, 100].map(|per_cent| percentile(&values, per_cent).as_millis());

        assert_eq!(at, [2, 100, 198, 200]);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn missed_aim_says_by_how_much() {
        let aim = Aim::AtMost {
            aim: 2.0,
            is: 3.0,
            unit: " ms",
        };

        assert_eq!(aim.to_string(), "≤ 2 ms | **no**, 1.50 x the aim");
    }
}
