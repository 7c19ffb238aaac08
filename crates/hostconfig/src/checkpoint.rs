//! Changing the host without cutting it off.
//!
//! ```text
//!            profile differs from the good one                 all reachable again
//!   good ───────────────────────────────────────► trying ───────────────────────────► good (the new one)
//!     ▲   write down what is reachable now,         │
//!     │   then change                               │ not within the time
//!     └──────── put the good profile back ◄─────────┘ the new one is quarantined until a layer changes
//! ```
//!
//! A profile that a section refused does not become the good one, however much is reachable.
//!
//! What is being tried is written down before anything is changed, so a daemon that is killed on the way, or a host
//! that reboots, takes the trial up again with the same list.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use reconcile::section::Section;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use telemetry::chain;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::{
    apply::{SectionResult, enforce},
    desired::{Desired, hash},
    layers::write_atomically,
};

/// How long a new configuration has until everything that was reachable is so again.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// Tells what can be reached over the network. Each answer should take a few seconds at most.
#[async_trait]
pub trait Connectivity: Send + Sync + 'static {
    /// What answers now, each as people call it: `gateway 10.0.0.1`, `Git server git.example.org`.
    async fn reachable(&self) -> BTreeSet<String>;
}

/// A configuration that was taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// SHA-256 of the profile.
    pub hash: String,
    /// The layers that differ from the good configuration, `namespace/name`; empty if a layer is gone.
    pub layers: Vec<String>,
    /// What was lost.
    pub message: String,
}

/// How enforcing went.
#[derive(Clone, Debug, Default)]
pub struct Enforcement {
    /// What each section did, with the profile that is in force now.
    pub results: Vec<SectionResult>,
    /// Set if the wanted profile is not in force because it cuts the host off.
    pub quarantine: Option<Quarantine>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    good: Option<Good>,
    trying: Option<Trying>,
    quarantine: Option<Quarantine>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Good {
    #[serde(with = "shared")]
    profile: Arc<Value>,
    /// Hash of each layer's part.
    layers: BTreeMap<String, String>,
    /// Hash of the profile. The file does without: nobody could make the two disagree.
    #[serde(skip)]
    hash: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Trying {
    hash: String,
    reachable: BTreeSet<String>,
}

/// What is shared here is written as if it were not.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(value: &Arc<Value>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Arc<Value>, D::Error> {
        Value::deserialize(deserializer).map(Arc::new)
    }
}

impl Record {
    /// Nothing is being tried, and nothing was taken back.
    fn settled(good: Option<Good>) -> Self {
        Self {
            good,
            ..Self::default()
        }
    }

    /// A file that is not there, or that a power cut left unreadable, says nothing.
    fn read(file: &Path) -> Self {
        let mut record: Self = std::fs::read(file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        if let Some(good) = &mut record.good {
            good.hash = hash(&good.profile);
        }
        record
    }
}

/// Enforces profiles, and takes back those that cut the host off.
pub(crate) struct Checkpoint {
    file: PathBuf,
    connectivity: Arc<dyn Connectivity>,
    /// What the file says. Nobody else writes it; after a write that failed it is read again.
    record: Mutex<Option<Record>>,
}

impl Checkpoint {
    pub(crate) fn new(file: PathBuf, connectivity: Arc<dyn Connectivity>) -> Self {
        Self {
            file,
            connectivity,
            record: Mutex::default(),
        }
    }

    /// Enforces what is desired, or keeps the good configuration in force if that was taken back before.
    pub(crate) async fn enforce(&self, sections: &[Arc<dyn Section>], desired: &Desired) -> Enforcement {
        let record = self.read();
        let good = record.good.clone();
        if let (Some(quarantine), Some(good)) = (record.quarantine.clone(), &good)
            && quarantine.hash == desired.hash
        {
            let results = enforce(sections, &good.profile).await;
            return Enforcement {
                results,
                quarantine: Some(quarantine),
            };
        }
        if good.as_ref().is_some_and(|good| good.hash == desired.hash) {
            self.write(&record, Record::settled(good)).await;
            return Enforcement {
                results: enforce(sections, &desired.merged.profile).await,
                quarantine: None,
            };
        }
        // A trial that a crash cut short may have cut the host off: what counts is what was reachable before it, also
        // if a layer has changed since.
        let before = match &record.trying {
            Some(trying) => trying.reachable.clone(),
            None => self.connectivity.reachable().await,
        };
        let trying = Trying {
            hash: desired.hash.clone(),
            reachable: before.clone(),
        };
        let record = self
            .write(
                &record,
                Record {
                    good: good.clone(),
                    trying: Some(trying),
                    quarantine: None,
                },
            )
            .await;
        let results = enforce(sections, &desired.merged.profile).await;
        let lost = self.lost(&before).await;
        if lost.is_empty() {
            // A configuration that a section refused, or could not carry out, has proved nothing: going back to it
            // would not bring the host back. The two halves of a change that comes in two layers are such.
            let refused = results.iter().any(|result| !result.report.problems.is_empty());
            if let (true, Some(good)) = (refused, good.clone()) {
                self.write(&record, Record::settled(Some(good))).await;
                return Enforcement {
                    results,
                    quarantine: None,
                };
            }
            let good = Good {
                profile: desired.merged.profile.clone(),
                layers: parts(desired),
                hash: desired.hash.clone(),
            };
            self.write(&record, Record::settled(Some(good))).await;
            return Enforcement {
                results,
                quarantine: None,
            };
        }
        let lost: Vec<&str> = lost.iter().map(String::as_str).collect();
        let Some(good) = good else {
            warn!(
                lost = lost.join(", "),
                "no longer reachable, and there is no earlier configuration to go back to"
            );
            return Enforcement {
                results,
                quarantine: None,
            };
        };
        let message = format!(
            "taken back: with it {} could not be reached any more; the configuration before it is in force until a layer changes",
            lost.join(", ")
        );
        warn!(hash = desired.hash, "{message}");
        let quarantine = Quarantine {
            hash: desired.hash.clone(),
            layers: differing(desired, &good),
            message,
        };
        // First what decides after a crash, then the change itself.
        self.write(
            &record,
            Record {
                good: Some(good.clone()),
                trying: None,
                quarantine: Some(quarantine.clone()),
            },
        )
        .await;
        let results = enforce(sections, &good.profile).await;
        Enforcement {
            results,
            quarantine: Some(quarantine),
        }
    }

    /// What of this can't be reached, after waiting for it.
    async fn lost(&self, before: &BTreeSet<String>) -> BTreeSet<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if before.is_empty() {
                return BTreeSet::new();
            }
            let now = self.connectivity.reachable().await;
            let lost: BTreeSet<String> = before.difference(&now).cloned().collect();
            if lost.is_empty() || Instant::now() >= until {
                return lost;
            }
            sleep(LOOK).await;
        }
    }

    fn read(&self) -> Record {
        let mut known = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| Record::read(&self.file)).clone()
    }

    /// Writes the record if it has changed, and waits until it is on the disk.
    async fn write(&self, old: &Record, new: Record) -> Record {
        if *old == new {
            return new;
        }
        let (file, bytes) = (self.file.clone(), serde_json::to_vec(&new).unwrap_or_default());
        let written = tokio::task::spawn_blocking(move || {
            if let Some(folder) = file.parent() {
                // A folder that can't be made shows when the file is written.
                let _ = std::fs::create_dir_all(folder);
            }
            write_atomically(&file, &bytes)
        });
        let written = written.await;
        if let Ok(Err(error)) = &written {
            warn!(error = %chain(error), "a reboot during this change would not take it back");
        }
        let mut known = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        *known = matches!(written, Ok(Ok(()))).then(|| new.clone());
        new
    }
}

/// Hash of each layer's part.
fn parts(desired: &Desired) -> BTreeMap<String, String> {
    let part =
        |layer: &crate::desired::DesiredLayer| Some((layer.name.clone(), hash(layer.in_force.as_ref()?)));
    desired.layers.iter().filter_map(part).collect()
}

fn differing(desired: &Desired, good: &Good) -> Vec<String> {
    parts(desired)
        .into_iter()
        .filter(|(name, hash)| good.layers.get(name) != Some(hash))
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests;
