//! Applying with a check: what a section did must still be so when it looks again.

use reconcile::section::{Problem, Section, SectionReport};
use serde_json::Value;

/// Runs a section and, if it changed something, runs it again: a change that is needed a second time had no lasting
/// effect, and that is a problem.
pub(crate) async fn run_and_verify(section: &dyn Section, profile: &Value) -> SectionReport {
    let mut first = section.reconcile(profile).await;
    if first.changes.is_empty() || !first.problems.is_empty() {
        return first;
    }
    let second = section.reconcile(profile).await;
    // Others may have changed the system in between, so only what was needed twice counts.
    let lost = second
        .changes
        .iter()
        .filter(|change| first.changes.iter().any(|c| c.message == change.message));
    let lost = lost.map(|change| Problem {
        path: String::new(),
        reason: "NotVerified".into(),
        message: format!("this change did not last: {}", change.message),
    });
    let lost: Vec<Problem> = lost.collect();
    let new: Vec<_> = second
        .changes
        .iter()
        .filter(|change| !first.changes.contains(change))
        .cloned()
        .collect();
    first.changes.extend(new);
    first.problems = second.problems;
    first.problems.extend(lost);
    first.not_enforced = second.not_enforced;
    first.pending = second.pending;
    first
}
