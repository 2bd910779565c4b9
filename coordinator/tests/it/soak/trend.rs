//! Whether something grows: the line that fits a series best.

use std::time::Duration;

/// Returns the slope per minute of the line that fits best by least squares; 0 if there is none.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts are far below what a float holds exactly"
)]
pub(super) fn per_minute(series: impl Iterator<Item = (Duration, u64)>) -> f64 {
    let points: Vec<(f64, f64)> = series
        .map(|(at, value)| (at.as_secs_f64() / 60.0, value as f64))
        .collect();
    let count = points.len() as f64;
    let mean_at = points.iter().map(|(at, _)| at).sum::<f64>() / count;
    let mean = points.iter().map(|(_, value)| value).sum::<f64>() / count;
    let spread: f64 = points.iter().map(|(at, _)| (at - mean_at).powi(2)).sum();
    let joint = points
        .iter()
        .map(|(at, value)| (at - mean_at) * (value - mean));
    let joint: f64 = joint.sum();
    if spread > 0.0 { joint / spread } else { 0.0 }
}

#[test]
fn slope_is_that_of_what_grows_and_zero_of_what_only_trembles() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let grows = (0..30).map(|n| (minutes(n), 1000 + 7 * n));
    let trembles = (0..31).map(|n| (minutes(n), if n % 2 == 0 { 10 } else { 20 }));
    let once = [(minutes(1), 9)].into_iter();

    assert!((per_minute(grows) - 7.0).abs() < 1e-9);
    assert!(per_minute(trembles).abs() < 1e-9);
    assert!(per_minute(once).abs() < 1e-9);
}
