//! Webhooks: a Git server tells of a push, and the hosts that follow it hear of it at once.
//!
//! What a hook carries is not believed beyond "look again": the repository is then looked at with our own
//! credentials. So a forged hook costs a look, and still each kind is verified, bounded and counted once.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};

use crate::{app::Shared, http::problem::Problem};

/// Hooks carry a list of commits: more than this is not one.
pub(crate) const LIMIT: usize = 2 << 20;
/// Deliveries that are remembered, to do each once.
const REMEMBERED: usize = 4_096;

/// The route.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/hooks/{tenant}/{repository}/{secret}", post(receive))
        .layer(DefaultBodyLimit::max(LIMIT))
}

async fn receive(
    State(app): State<Shared>,
    Path((tenant, repository, secret)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let found = app
        .fleet
        .repositories()
        .by_webhook(&tenant, &repository, &secret)
        .await?;
    let Some((tenant, repository)) = found else {
        return Err(Problem::not_found());
    };
    match judge(&headers, &body, &secret) {
        Verdict::Forged => Err(Problem::forbidden("the hook's signature is not right")),
        Verdict::Nothing => Ok(StatusCode::NO_CONTENT),
        Verdict::Push => {
            let again =
                delivery(&headers).is_some_and(|mark| !app.seen.first(format!("{}/{mark}", repository.id)));
            if !again {
                app.counters.hooks.inc();
                tokio::spawn(async move {
                    crate::tasks::poll::pushed(&app, &tenant, &repository.id).await;
                });
            }
            Ok(StatusCode::ACCEPTED)
        }
    }
}

/// What became of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look at the repository. Of the branch, if it says which.
    Push,
    /// Nothing to do: a ping, a push of a tag, an issue.
    Nothing,
    /// Not signed as it should be.
    Forged,
}

/// Which server sent it, by its headers, and whether it is to be believed. The path carried `secret` too; servers
/// that can sign must, if they sign at all, sign with it.
pub(crate) fn judge(headers: &HeaderMap, body: &[u8], secret: &str) -> Verdict {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(event) = text("x-gitea-event").or_else(|| text("x-forgejo-event")) {
        let signature = text("x-gitea-signature").or_else(|| text("x-forgejo-signature"));
        return signed(signature, "", body, secret).then_event(event == "push");
    }
    if let Some(event) = text("x-github-event") {
        return signed(text("x-hub-signature-256"), "sha256=", body, secret).then_event(event == "push");
    }
    if let Some(event) = text("x-gitlab-event") {
        return match text("x-gitlab-token") {
            Some(token) if !same(token, secret) => Verdict::Forged,
            // None was set there: the secret in the path was right.
            _ => Trust::Believed.then_event(event == "Push Hook"),
        };
    }
    Verdict::Push
}

/// The sender's own mark of this delivery, if it gives one.
pub(crate) fn delivery(headers: &HeaderMap) -> Option<String> {
    [
        "x-github-delivery",
        "x-gitea-delivery",
        "x-gitlab-event-uuid",
        "x-forgejo-delivery",
    ]
    .iter()
    .find_map(|name| headers.get(*name))
    .and_then(|value| value.to_str().ok())
    .filter(|value| value.len() <= 128)
    .map(str::to_owned)
}

enum Trust {
    Believed,
    Forged,
}

impl Trust {
    fn then_event(self, push: bool) -> Verdict {
        match (self, push) {
            (Self::Forged, _) => Verdict::Forged,
            (Self::Believed, true) => Verdict::Push,
            (Self::Believed, false) => Verdict::Nothing,
        }
    }
}

fn signed(signature: Option<&str>, prefix: &str, body: &[u8], secret: &str) -> Trust {
    let Some(signature) = signature.filter(|text| !text.is_empty()) else {
        // No secret was set there: the one in the path was right.
        return Trust::Believed;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let good = signature
        .strip_prefix(prefix)
        .and_then(unhex)
        .is_some_and(|mac| hmac::verify(&key, body, &mac).is_ok());
    if good { Trust::Believed } else { Trust::Forged }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

/// Deliveries that were taken already.
#[derive(Default)]
pub(crate) struct Seen(Mutex<(HashSet<String>, VecDeque<String>)>);

impl Seen {
    /// Whether this is the first time.
    pub(crate) fn first(&self, delivery: String) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.0.insert(delivery.clone()) {
            return false;
        }
        seen.1.push_back(delivery);
        if seen.1.len() > REMEMBERED
            && let Some(old) = seen.1.pop_front()
        {
            seen.0.remove(&old);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    // GitHub's own example: docs "Validating webhook deliveries".
    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const MAC: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn github_signs() {
        let good = format!("sha256={MAC}");
        let with = |signature: &str, body: &[u8]| {
            judge(
                &headers(&[("x-github-event", "push"), ("x-hub-signature-256", signature)]),
                body,
                SECRET,
            )
        };
        assert_eq!(with(&good, BODY), Verdict::Push);
        assert_eq!(with(&good, b"Hello, world!"), Verdict::Forged);
        assert_eq!(with(MAC, BODY), Verdict::Forged);
        assert_eq!(with("sha256=00", BODY), Verdict::Forged);
        assert_eq!(
            judge(
                &headers(&[("x-github-event", "ping"), ("x-hub-signature-256", &good)]),
                BODY,
                SECRET
            ),
            Verdict::Nothing
        );
    }

    #[test]
    fn gitea_signs_and_also_says_that_it_is_github() {
        let with = |signature: &str| {
            judge(
                &headers(&[
                    ("x-gitea-event", "push"),
                    ("x-github-event", "push"),
                    ("x-gitea-signature", signature),
                ]),
                BODY,
                SECRET,
            )
        };
        assert_eq!(with(MAC), Verdict::Push);
        assert_eq!(with(&MAC.replace('7', "8")), Verdict::Forged);
    }

    #[test]
    fn gitlab_sends_the_secret() {
        let with = |token: &str, event: &str| {
            judge(
                &headers(&[("x-gitlab-event", event), ("x-gitlab-token", token)]),
                BODY,
                SECRET,
            )
        };
        assert_eq!(with(SECRET, "Push Hook"), Verdict::Push);
        assert_eq!(with(SECRET, "Tag Push Hook"), Verdict::Nothing);
        assert_eq!(with("guess", "Push Hook"), Verdict::Forged);
    }

    #[test]
    fn a_delivery_is_taken_once() {
        let seen = Seen::default();
        assert!(seen.first("a".into()) && !seen.first("a".into()) && seen.first("b".into()));
        for n in 0..REMEMBERED {
            seen.first(n.to_string());
        }
        assert_eq!(seen.0.lock().unwrap().0.len(), REMEMBERED);
    }
}
