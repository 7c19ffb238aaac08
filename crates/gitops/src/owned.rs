//! What is remembered of the objects that Kustomizations applied, and the watch that sees at once when
//! somebody else writes one of them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use apiserver::{Client, client::WatchEvent};
use kinds::object::{Gvr, Object, ObjectKey};
use reconcile::{Key, Signal};
use tokio::task::JoinSet;

use crate::{desired::Hash, observe::fingerprint, plan::Known};

/// Shared by the runs of all Kustomizations and the watch. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Owned(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Whose each object is, and what it looked like when it was applied.
    objects: HashMap<ObjectKey, (Key, Known)>,
    /// Kustomizations that run now: what is written during a run may be its own.
    running: HashMap<Key, Vec<(ObjectKey, Option<Hash>)>>,
    /// Kustomizations that wait for the health of their objects.
    waiting: HashSet<Key>,
}

impl Owned {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A run of a Kustomization starts.
    pub(crate) fn start(&self, owner: &Key) {
        self.with(|state| state.running.insert(owner.clone(), Vec::new()));
    }

    /// A run ends. Whether somebody else wrote one of its objects meanwhile.
    pub(crate) fn end(&self, owner: &Key, waits: bool) -> bool {
        self.with(|state| {
            if waits {
                state.waiting.insert(owner.clone());
            } else {
                state.waiting.remove(owner);
            }
            let seen = state.running.remove(owner).unwrap_or_default();
            // Only the last event of each object counts: the ones before were passed over by it.
            let last: HashMap<ObjectKey, Option<Hash>> = seen.into_iter().collect();
            last.into_iter().any(|(key, seen)| match state.objects.get(&key) {
                Some((_, known)) => seen != Some(known.fingerprint),
                None => false,
            })
        })
    }

    pub(crate) fn known(&self, keys: impl IntoIterator<Item = ObjectKey>) -> HashMap<ObjectKey, Known> {
        self.with(|state| {
            keys.into_iter()
                .filter_map(|key| state.objects.get(&key).map(|(_, known)| (key.clone(), *known)))
                .collect()
        })
    }

    pub(crate) fn remember(&self, owner: &Key, known: Vec<(ObjectKey, Known)>) {
        self.with(|state| {
            for (key, known) in known {
                state.objects.insert(key, (owner.clone(), known));
            }
        });
    }

    /// Forgets objects of a Kustomization, unless another has them by now.
    pub(crate) fn forget<'k>(&self, owner: &Key, keys: impl IntoIterator<Item = &'k ObjectKey>) {
        self.with(|state| {
            for key in keys {
                if state.objects.get(key).is_some_and(|(whose, _)| whose == owner) {
                    state.objects.remove(key);
                }
            }
        });
    }

    /// Forgets a Kustomization.
    pub(crate) fn forget_all(&self, owner: &Key) {
        self.with(|state| {
            state.objects.retain(|_, (whose, _)| whose != owner);
            state.waiting.remove(owner);
        });
    }

    /// Takes an event in; gives the Kustomization to run, if any.
    fn event(&self, event: &WatchEvent) -> Option<Key> {
        let (object, gone) = match event {
            WatchEvent::Applied(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
        };
        let key = ObjectKey::of(object);
        self.with(|state| {
            let (owner, known) = state.objects.get(&key)?.clone();
            let now = (!gone).then(|| fingerprint(object));
            if let Some(seen) = state.running.get_mut(&owner) {
                seen.push((key, now));
                return None;
            }
            let foreign = now != Some(known.fingerprint);
            (foreign || state.waiting.contains(&owner)).then_some(owner)
        })
    }

    /// Follows every kind that the host serves, for ever.
    pub(crate) async fn follow(&self, client: &Client, signal: &Signal) {
        let mut watches = JoinSet::new();
        for kind in client
            .api()
            .registry()
            .iter()
            .filter(|k| !k.ephemeral && k.stored_as.is_none())
        {
            let (owned, client, signal, gvr) = (self.clone(), client.clone(), signal.clone(), kind.gvr());
            watches.spawn(async move { owned.follow_one(&client, &gvr, &signal).await });
        }
        while watches.join_next().await.is_some() {}
    }

    async fn follow_one(&self, client: &Client, gvr: &Gvr, signal: &Signal) {
        loop {
            match open(client, gvr).await {
                Ok((mut watch, listed)) => {
                    // What happened while nobody looked.
                    for object in listed {
                        self.event(&WatchEvent::Applied(object))
                            .into_iter()
                            .for_each(|key| signal.key(key));
                    }
                    while let Some(event) = watch.next().await {
                        self.event(&event).into_iter().for_each(|key| signal.key(key));
                    }
                }
                Err(status) => {
                    tracing::warn!(resource = %gvr, error = %status, "can't watch; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn open(
    client: &Client,
    gvr: &Gvr,
) -> Result<(apiserver::client::Watch, Vec<Object>), apiserver::Status> {
    let list = client.list(gvr, None).await?;
    let watch = client.watch(gvr, None, list.revision).await?;
    Ok((watch, list.items))
}
