//! A part of the host's configuration that one domain enforces.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

/// What a change costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impact {
    /// Nothing is interrupted.
    #[default]
    None,
    /// Virtual machines must be stopped or moved.
    Maintenance,
    /// The host must be restarted.
    Reboot,
}

/// A domain that enforces a part of the merged host profile. `hostconfig` calls it; the daemon registers it.
#[async_trait]
pub trait Section: Send + Sync + 'static {
    /// Name in conditions and metrics, for example `vswitch`.
    fn name(&self) -> &'static str;

    /// The paths under `esx` that it enforces, for example `network_vss` and `network.vmknics`. What no section
    /// claims is listed in the status as not yet enforced.
    fn claims(&self) -> &'static [&'static str];

    /// Makes its part of the host as the merged profile says (`{"esx": {…}}`), and says how that went.
    /// Idempotent; a bad profile changes nothing and is reported as problems.
    ///
    /// As long as no layer changes it is given the same `Arc` again: a section that keeps what it made of the profile
    /// tells by comparing the two that it need not read it again. What is true on the host it looks at every time.
    async fn reconcile(&self, profile: &Arc<Value>) -> SectionReport;
}

/// How a run of a section went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionReport {
    /// What is wrong; empty when the host is as wanted.
    pub problems: Vec<Problem>,
    /// Paths inside the claimed part that are accepted but not enforced yet.
    pub not_enforced: Vec<String>,
    /// What was changed in this run, a sentence each, with why. `drift` marks corrections of what somebody else
    /// changed on the system; each becomes an Event.
    pub changes: Vec<Applied>,
    /// The greatest impact among the steps that wait for a permission that is not there.
    pub pending: Impact,
}

/// Something wrong with, or because of, the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path in the profile, for example `esx.network_vss.switches[vSwitch1].bridge.nics[0]`; empty if none fits.
    pub path: String,
    /// A word in camel case: `UnknownNic`, `InvalidVlan`, `ApplyFailed`, …
    pub reason: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What was done and why.
    pub message: String,
    /// Whether it put right what somebody else had changed.
    pub drift: bool,
}
