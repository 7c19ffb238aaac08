//! Which commits were taken back on this host. A quarantine is about layers; the orchestrator steers by commits: what
//! is remembered here, on disk, is which commit it was that brought the layers in.

use std::path::{Path, PathBuf};

use kinds::object::{self, Object};
use serde::{Deserialize, Serialize};

use crate::orchestrator::files;

/// A commit that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quarantined {
    pub(crate) commit: String,
    pub(crate) reason: String,
    /// RFC 3339.
    pub(crate) at: String,
    /// Of the profile that was taken back.
    #[serde(default)]
    pub(crate) profile: String,
}

/// The commits that are in quarantine now.
pub(crate) struct Quarantine {
    file: PathBuf,
    now: Vec<Quarantined>,
}

impl Quarantine {
    /// Reads what was remembered.
    pub(crate) fn open(state: &Path) -> Self {
        let file = state.join("orchestrator/quarantined.json");
        let read = std::fs::read(&file).ok();
        let now = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self {
            file,
            now: now.unwrap_or_default(),
        }
    }

    /// Looks at the layers, of which those from Git are as in `commit`.
    pub(crate) fn look(&mut self, layers: &[Object], commit: &str) -> &[Quarantined] {
        let found = layers.iter().find_map(|layer| {
            let conditions = layer.pointer("/status/conditions")?.as_array()?;
            let taken_back = conditions
                .iter()
                .find(|c| c["type"] == "Compliant" && c["reason"] == "Quarantined")?;
            let field = |name: &str| taken_back[name].as_str().unwrap_or_default().to_owned();
            let reason = format!(
                "{}: {}",
                object::name(layer),
                super::objects::line(&field("message"))
            );
            let hash = layer
                .pointer("/status/profileHash")
                .and_then(|hash| hash.as_str());
            Some((
                reason,
                field("lastTransitionTime"),
                hash.unwrap_or_default().to_owned(),
            ))
        });
        let next = match found {
            None => Vec::new(),
            // It is the same until the profile changes, whatever commits come after.
            Some((reason, at, profile)) => match self.now.iter().find(|known| known.profile == profile) {
                Some(known) => vec![known.clone()],
                None if commit.is_empty() => Vec::new(),
                None => vec![Quarantined {
                    commit: commit.into(),
                    reason,
                    at,
                    profile,
                }],
            },
        };
        if next != self.now {
            self.now = next;
            let bytes = serde_json::to_vec(&self.now).unwrap_or_default();
            if let Err(error) = files::write(&self.file, &bytes) {
                tracing::warn!(%error, "can't remember which commit was taken back");
            }
        }
        &self.now
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_commit_that_did_it_is_remembered_until_the_layers_change() {
        let dir = tempfile::tempdir().unwrap();
        let layer_of = |reason: &str, hash: &str| {
            json!({"metadata": {"name": "net"}, "status": {"profileHash": hash, "conditions": [
                {"type": "Compliant", "status": "False", "reason": reason, "message": "taken back", "lastTransitionTime": "t1"}]}})
        };
        let layer = |reason: &str| layer_of(reason, "p1");
        let mut quarantine = Quarantine::open(dir.path());
        assert!(quarantine.look(&[layer("Failed")], "c1").is_empty());
        assert_eq!(quarantine.look(&[layer("Quarantined")], "c2")[0].commit, "c2");
        // A commit that changes something else comes, and the daemon starts again.
        let mut quarantine = Quarantine::open(dir.path());
        assert_eq!(quarantine.look(&[layer("Quarantined")], "c3")[0].commit, "c2");
        // The next try is as bad.
        assert_eq!(
            quarantine.look(&[layer_of("Quarantined", "p2")], "c4")[0].commit,
            "c4"
        );
        assert!(quarantine.look(&[layer("Compliant")], "c5").is_empty());
        assert!(Quarantine::open(dir.path()).now.is_empty());
    }
}
