//! `/healthz`, `/livez`, `/readyz`: `ok`, or what is not.

use std::fmt::Write;

use super::{
    State,
    query::Query,
    respond::{Answer, not_found, refusal, text},
};

/// Answers a health path; `check` is the one that was asked for, or all.
pub(super) fn answer(state: &State, path: &str, check: Option<&str>, query: &Query) -> Answer {
    let mut results: Vec<(&str, Result<(), String>)> = vec![("ping", Ok(()))];
    if path != "livez" {
        results.extend(state.checks.iter().map(|(name, check)| (name.as_str(), check())));
    }
    if path == "readyz" {
        let stopping = state
            .draining
            .is_cancelled()
            .then(|| "the server is stopping".to_owned());
        results.push(("shutdown", stopping.map_or(Ok(()), Err)));
    }
    let excluded = query.all("exclude");
    results.retain(|(name, _)| {
        check.is_none_or(|wanted| *name == wanted) && !excluded.iter().any(|e| e == name)
    });
    if check.is_some() && results.is_empty() {
        return refusal(&not_found());
    }
    let failed = results.iter().any(|(_, result)| result.is_err());
    if !failed && !query.has("verbose") {
        return text(200, "ok");
    }
    let mut body = String::new();
    for (name, result) in &results {
        // Writing to a String can't fail.
        let _ = match result {
            Ok(()) => writeln!(body, "[+]{name} ok"),
            Err(why) => writeln!(body, "[-]{name} failed: {why}"),
        };
    }
    let _ = writeln!(body, "{path} check {}", if failed { "failed" } else { "passed" });
    text(if failed { 500 } else { 200 }, body)
}
