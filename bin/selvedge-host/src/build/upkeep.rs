//! What is done now and then: the store and the heap kept small, the disk looked at, the predefined classes there.

use std::{sync::Arc, time::Duration};

use apiserver::{
    Api, Caller,
    api::{Target, WriteOptions},
};
use kinds::{gvr, vm::predefined_classes};
use store::SqliteStore;
use telemetry::chain;
use tokio::time::{MissedTickBehavior, interval};

use super::disk::Disk;
/// How often memory is given back: what a burst of work took should not stay.
const TRIM: Duration = Duration::from_secs(10);

/// How often the rest is done, in the same ticks.
const TIDY: u32 = 6;

/// Runs for ever; the first time at once.
pub(super) async fn run(api: Api, store: Arc<SqliteStore>, mut disk: Disk) {
    let mut ticks = interval(TRIM);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in (0..TIDY).cycle() {
        ticks.tick().await;
        if tick == 0 {
            ensure_classes(&api).await;
            if let Err(error) = store.maintain().await {
                tracing::warn!(error = %chain(&error), "can't tidy the store");
            }
        }
        disk.look().await;
        heap::trim();
    }
}

/// The classes that manifests use without defining them. One that is there stays as it is: Git may define
/// a class of the same name.
async fn ensure_classes(api: &Api) {
    let (caller, gvr) = (Caller::system("classes"), gvr::virtual_machine_classes());
    for class in predefined_classes() {
        let namespace = kinds::object::namespace(&class).to_owned();
        let name = kinds::object::name(&class).to_owned();
        let target = Target::new(&gvr, &namespace, "");
        let options = WriteOptions {
            manager: "selvedge".into(),
            ..WriteOptions::default()
        };
        match api.create(&caller, target, class, &options).await {
            Err(status) if !status.is_already_exists() => {
                tracing::warn!(class = name, error = %status, "can't make a predefined class");
            }
            _ => {}
        }
    }
}
