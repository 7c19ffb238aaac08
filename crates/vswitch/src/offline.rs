//! Checking a profile without a host: for `selvedge validate`.

use reconcile::section::Problem;
use serde_json::Value;

use crate::desired::{Desired, NicDevices};

/// What is wrong with the network part of a merged profile `{"esx": {…}}`, on a host that has every NIC the
/// profile names.
#[must_use]
pub fn validate(profile: &Value) -> Vec<Problem> {
    let switches = profile
        .pointer("/esx/network_vss/switches")
        .and_then(Value::as_array);
    let nics: NicDevices = switches
        .into_iter()
        .flatten()
        .filter_map(|switch| switch.pointer("/bridge/nics")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .map(|nic| (nic.to_owned(), nic.to_owned()))
        .collect();
    Desired::read(profile, &nics, "offline").err().unwrap_or_default()
}
