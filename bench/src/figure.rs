//! One figure beside its peer's.

use serde_json::json;

/// Prints a figure as one JSON line.
#[derive(Debug)]
pub struct Figure<'a> {
    /// What was done.
    pub case: &'a str,
    /// What was measured.
    pub metric: &'a str,
    /// In which unit.
    pub unit: &'a str,
    /// Our value.
    pub value: f64,
    /// What it is compared with, and its value.
    pub peer: Option<(&'a str, f64)>,
    /// The goal in words, and whether it is met.
    pub goal: Option<(&'a str, bool)>,
}

impl Figure<'_> {
    /// Prints it.
    pub fn print(&self, bench: &str) {
        let rounded = |value: f64| (value * 1_000.0).round() / 1_000.0;
        let line = json!({
            "bench": bench,
            "case": self.case,
            "metric": self.metric,
            "unit": self.unit,
            "value": rounded(self.value),
            "peer": self.peer.map(|(name, _)| name),
            "peer_value": self.peer.map(|(_, value)| rounded(value)),
            "ratio": self.peer.map(|(_, value)| rounded(self.value / value)),
            "goal": self.goal.map(|(words, _)| words),
            "met": self.goal.map(|(_, met)| met),
        });
        println!("{line}");
    }
}

/// The value that a share of the sorted values does not exceed.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
