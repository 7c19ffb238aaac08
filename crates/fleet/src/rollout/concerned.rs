//! Which sites a new commit concerns: those whose objects it changes, and those of which that can't be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    View,
    store::{self, Line},
    turns::short,
};
use crate::{
    Error, Fleet,
    plan::{Planner, Source, Wanted},
};

/// Beyond this every site is concerned that was not looked at: a commit shall not wait for its own preview.
const LONGEST: Duration = Duration::from_secs(20);

/// Sites that are held at a commit which is the same for them as the new one, each with that commit.
pub(super) type Same = BTreeMap<String, String>;

/// Finds them. What can't be read, or not in time, is taken for a change.
pub(super) async fn same(
    fleet: &Fleet,
    line: &Line,
    commit: &str,
    view: &View,
    source: &Arc<dyn Source>,
) -> Result<Same, Error> {
    if view.values().all(|site| site.pin.is_none()) {
        return Ok(Same::new());
    }
    let mut folders = store::folders(fleet, line).await?;
    let sites: Vec<(String, String, String)> = view
        .iter()
        .filter_map(|(id, site)| Some((id.clone(), site.pin.clone()?, folders.remove(id)?)))
        .collect();
    let wanted = Wanted {
        repository: line.repository.clone(),
        tenant: line.tenant.clone(),
        to: commit.to_owned(),
        branch: line.branch.clone(),
    };
    let stop = Arc::new(Stop::default());
    let (now, ended) = (fleet.clock().now(), Arc::clone(&stop));
    let (to, source) = (commit.to_owned(), Arc::clone(source));
    let work = async move {
        let folder = source.holding(&wanted).await?;
        let look = tokio::task::spawn_blocking(move || {
            let mut planner = Planner::open(&folder, &to, &to, now)
                .map_err(|error| telemetry::chain(&error).to_string())?;
            let mut same = Same::new();
            for (id, pin, path) in sites {
                if ended.0.load(Ordering::Relaxed) {
                    break;
                }
                if planner.same(&pin, &path) {
                    same.insert(id, pin);
                }
            }
            Ok(same)
        });
        look.await.map_err(|_| "it was cut off".to_owned())?
    };
    let _ends = Ends(stop);
    let why = match tokio::time::timeout(LONGEST, work).await {
        Ok(Ok(same)) => return Ok(same),
        Ok(Err(why)) => why,
        Err(_) => format!("it took longer than {} s", LONGEST.as_secs()),
    };
    tracing::warn!(
        repository = line.repository,
        commit = short(commit),
        why,
        "can't tell which sites a commit concerns: its rollout goes to all of them"
    );
    Ok(Same::new())
}

/// Those of them that are still held where they were when it was found out.
pub(super) fn still(same: &Same, view: &View) -> BTreeSet<String> {
    let held =
        |(id, pin): &(&String, &String)| view.get(*id).is_some_and(|site| site.pin.as_ref() == Some(pin));
    same.iter().filter(held).map(|(id, _)| id.clone()).collect()
}

#[derive(Default)]
struct Stop(AtomicBool);

/// Tells a look that nobody waits for it any more.
struct Ends(Arc<Stop>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
