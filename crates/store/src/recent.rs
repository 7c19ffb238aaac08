//! What is in memory: the recent changes of all resources, and the ephemeral objects.

mod objects;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::watch;

use self::objects::{Held, Objects};
use crate::{Change, Entry, Error, Key, ListPage, ListQuery, sqlite::Ephemeral};

/// How many changes a watcher takes at a time.
const TAKE: usize = 64;

/// Shared by the writer, the readers and the watchers.
pub(crate) struct Recent {
    state: Mutex<State>,
    /// The newest revision that may have been given to a write, published or not.
    issued: AtomicU64,
    /// Changes up to this revision are in the history no more.
    compacted: AtomicU64,
    max_count: usize,
    max_bytes: usize,
}

struct State {
    /// The newest published revision.
    revision: u64,
    /// The revision at the start of this process.
    start: u64,
    /// With the revision of each change's `previous`, 0 if there was none.
    ring: VecDeque<(Arc<Change>, u64)>,
    bytes: usize,
    topics: HashMap<Arc<str>, Topic>,
    closed: bool,
}

/// One resource.
struct Topic {
    /// The newest change.
    last: u64,
    /// The newest change that is no longer in the ring.
    dropped: u64,
    wake: watch::Sender<u64>,
    objects: Option<Objects>,
}

/// What a watcher finds.
pub(crate) enum Found {
    /// Changes after its place.
    Changes(Vec<Arc<Change>>),
    /// Nothing up to this revision.
    Nothing(u64),
    /// The ring no longer holds what it needs; the published revision.
    Behind(u64),
    /// The store is closed.
    Closed,
}

/// A write of an ephemeral object.
pub(crate) enum Write {
    Create,
    Update(u64),
    Delete(u64),
}

impl Recent {
    pub(crate) fn new(
        start: u64,
        compacted: u64,
        max_count: usize,
        max_bytes: usize,
        ephemeral: &[Ephemeral],
    ) -> Self {
        let topics = ephemeral
            .iter()
            .map(|limits| {
                let objects = Objects::new(limits);
                (
                    limits.resource.clone(),
                    Topic {
                        objects: Some(objects),
                        ..Topic::new(start)
                    },
                )
            })
            .collect();
        let state = State {
            revision: start,
            start,
            ring: VecDeque::new(),
            bytes: 0,
            topics,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            issued: AtomicU64::new(start),
            compacted: AtomicU64::new(compacted),
            max_count: max_count.max(1),
            max_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.lock().revision
    }

    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Acquire)
    }

    pub(crate) fn issue(&self, revision: u64) {
        self.issued.fetch_max(revision, Ordering::AcqRel);
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted.load(Ordering::Acquire)
    }

    pub(crate) fn set_compacted(&self, revision: u64) {
        self.compacted.fetch_max(revision, Ordering::AcqRel);
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for topic in state.topics.values() {
            topic.wake.send_modify(|_| {});
        }
    }

    /// Makes durable changes visible, oldest first.
    pub(crate) fn publish(&self, changes: Vec<(Change, u64)>) {
        let mut state = self.lock();
        let mut touched: Vec<Arc<str>> = Vec::new();
        for (change, before) in changes {
            if !touched.contains(&change.key.resource) {
                touched.push(change.key.resource.clone());
            }
            state.push(change, before);
        }
        state.trim(self.max_count, self.max_bytes);
        state.wake(&touched);
    }

    /// Whether a resource is ephemeral.
    pub(crate) fn is_ephemeral(&self, resource: &str) -> bool {
        self.lock()
            .topics
            .get(resource)
            .is_some_and(|topic| topic.objects.is_some())
    }

    /// Where a new watcher starts: a receiver that is woken by changes of the resource, and whether it is ephemeral.
    pub(crate) fn subscribe(
        &self,
        resource: &Arc<str>,
        after: u64,
    ) -> Result<(watch::Receiver<u64>, bool), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let newest = self.issued();
        if after > newest {
            return Err(Error::Future { asked: after, newest });
        }
        let topic = state.topic(resource);
        let ephemeral = topic.objects.is_some();
        let oldest = if ephemeral {
            topic.dropped
        } else {
            self.compacted()
        };
        if after < oldest {
            return Err(Error::TooOld { asked: after, oldest });
        }
        Ok((topic.wake.subscribe(), ephemeral))
    }

    /// What a watcher at `after` gets next.
    pub(crate) fn after(&self, resource: &str, after: u64) -> Found {
        let state = self.lock();
        if state.closed {
            return Found::Closed;
        }
        let Some(topic) = state.topics.get(resource) else {
            return Found::Nothing(state.revision);
        };
        if topic.last <= after {
            return Found::Nothing(state.revision.max(after));
        }
        if after < topic.dropped {
            return Found::Behind(state.revision);
        }
        let from = state.ring.partition_point(|(change, _)| change.revision <= after);
        let found: Vec<_> = state
            .ring
            .range(from..)
            .map(|(change, _)| change)
            .filter(|change| &*change.key.resource == resource)
            .take(TAKE)
            .cloned()
            .collect();
        if found.is_empty() {
            Found::Nothing(state.revision.max(after))
        } else {
            Found::Changes(found)
        }
    }

    /// The revision that a watcher at `after` has seen everything up to.
    pub(crate) fn progress(&self, resource: &str, after: u64) -> u64 {
        let state = self.lock();
        match state.topics.get(resource) {
            Some(topic) if topic.last > after => after,
            _ => state.revision.max(after),
        }
    }

    /// Reads an ephemeral object; `None` if the resource is not ephemeral.
    pub(crate) fn get(&self, key: &Key) -> Option<Option<Entry>> {
        let state = self.lock();
        let objects = state.topics.get(&key.resource)?.objects.as_ref()?;
        let held = objects.by_name.get(&(key.namespace.clone(), key.name.clone()));
        Some(held.map(|held| Entry {
            key: key.clone(),
            revision: held.revision,
            value: held.value.clone(),
        }))
    }

    /// Lists ephemeral objects; `None` if the resource is not ephemeral.
    pub(crate) fn list(&self, query: &ListQuery) -> Option<Result<ListPage, Error>> {
        let state = self.lock();
        let topic = state.topics.get(&query.resource)?;
        let objects = topic.objects.as_ref()?;
        let at = query.at.unwrap_or(state.revision);
        if at > state.revision {
            return Some(Err(Error::Future {
                asked: at,
                newest: state.revision,
            }));
        }
        if at < topic.dropped {
            return Some(Err(Error::TooOld {
                asked: at,
                oldest: topic.dropped,
            }));
        }
        Some(Ok(state.page(objects, query, at)))
    }

    /// Writes an ephemeral object. `revisions` are given out by `next`.
    pub(crate) fn write(
        &self,
        key: &Key,
        write: &Write,
        make: crate::Make,
        revision: u64,
        now: i64,
    ) -> Result<Entry, Error> {
        self.issue(revision);
        let mut state = self.lock();
        let topic = state.topic(&key.resource);
        let Some(objects) = topic.objects.as_mut() else {
            return Err(Error::Closed);
        };
        let name = (key.namespace.clone(), key.name.clone());
        let held = objects.by_name.get(&name);
        match (write, held) {
            (Write::Create, Some(_)) => return Err(Error::Exists(key.clone())),
            (Write::Create, None) => {
                if !objects.limits.evict && objects.by_name.len() >= objects.limits.max_count {
                    return Err(Error::Full {
                        resource: key.resource.clone(),
                        limit: objects.limits.max_count,
                    });
                }
            }
            (Write::Update(_) | Write::Delete(_), None) => return Err(Error::NotFound(key.clone())),
            (Write::Update(expected) | Write::Delete(expected), Some(held)) => {
                if held.revision != *expected {
                    let (expected, actual) = (*expected, held.revision);
                    return Err(Error::Conflict {
                        key: key.clone(),
                        expected,
                        actual,
                    });
                }
            }
        }
        let value = make(revision);
        let deleted = matches!(write, Write::Delete(_));
        let (previous, before) = objects
            .remove(&name)
            .map_or((None, 0), |held| (Some(held.value), held.revision));
        if !deleted {
            objects.insert(
                name,
                Held {
                    revision,
                    value: value.clone(),
                    written: now,
                },
            );
        }
        state.push(
            Change {
                key: key.clone(),
                revision,
                value: value.clone(),
                previous,
                deleted,
            },
            before,
        );
        state.trim(self.max_count, self.max_bytes);
        state.wake(std::slice::from_ref(&key.resource));
        Ok(Entry {
            key: key.clone(),
            revision,
            value,
        })
    }

    /// The next ephemeral object that must go: too old, or too many, or too large together.
    pub(crate) fn expired(&self, now: i64) -> Option<(Key, u64, Bytes)> {
        let state = self.lock();
        for (resource, topic) in &state.topics {
            let Some(objects) = &topic.objects else { continue };
            let Some((revision, name)) = objects.by_age.first_key_value() else {
                continue;
            };
            let Some(held) = objects.by_name.get(name) else {
                continue;
            };
            let limits = &objects.limits;
            let age = u64::try_from(now.saturating_sub(held.written)).unwrap_or(0);
            let too_old = limits.time_to_live.is_some_and(|ttl| age >= ttl.as_secs());
            let too_many = limits.evict
                && (objects.by_name.len() > limits.max_count || objects.bytes > limits.max_bytes)
                && objects.by_name.len() > 1;
            if too_old || too_many {
                let key = Key {
                    resource: resource.clone(),
                    namespace: name.0.clone(),
                    name: name.1.clone(),
                };
                return Some((key, *revision, held.value.clone()));
            }
        }
        None
    }
}

impl Topic {
    fn new(start: u64) -> Self {
        Self {
            last: start,
            dropped: start,
            wake: watch::Sender::new(start),
            objects: None,
        }
    }
}

impl State {
    fn topic(&mut self, resource: &Arc<str>) -> &mut Topic {
        let start = self.start;
        self.topics
            .entry(resource.clone())
            .or_insert_with(|| Topic::new(start))
    }

    fn push(&mut self, change: Change, before: u64) {
        self.revision = self.revision.max(change.revision);
        self.bytes += size(&change);
        let (resource, revision) = (change.key.resource.clone(), change.revision);
        self.ring.push_back((Arc::new(change), before));
        self.topic(&resource).last = revision;
    }

    fn trim(&mut self, max_count: usize, max_bytes: usize) {
        while self.ring.len() > max_count || (self.bytes > max_bytes && self.ring.len() > 1) {
            let Some((change, _)) = self.ring.pop_front() else {
                break;
            };
            self.bytes -= size(&change);
            self.topic(&change.key.resource).dropped = change.revision;
        }
    }

    fn wake(&self, resources: &[Arc<str>]) {
        for topic in resources.iter().filter_map(|resource| self.topics.get(resource)) {
            topic.wake.send_replace(topic.last);
        }
    }

    /// A page of ephemeral objects as they were at a revision: today's, with the later changes undone.
    fn page(&self, objects: &Objects, query: &ListQuery, at: u64) -> ListPage {
        let mut undone: HashMap<(&str, &str), Option<(u64, &Bytes)>> = HashMap::new();
        let later = self.ring.partition_point(|(change, _)| change.revision <= at);
        for (change, before) in self.ring.range(later..).rev() {
            if change.key.resource == query.resource {
                let previous = change.previous.as_ref().map(|value| (*before, value));
                undone.insert((&change.key.namespace, &change.key.name), previous);
            }
        }
        let start = match &query.after {
            Some((namespace, name)) => Bound::Excluded((namespace.clone(), name.clone())),
            None => Bound::Unbounded,
        };
        let mut names: BTreeMap<(&str, &str), (u64, &Bytes)> = objects
            .by_name
            .range((start, Bound::Unbounded))
            .map(|((namespace, name), held)| {
                ((namespace.as_str(), name.as_str()), (held.revision, &held.value))
            })
            .collect();
        for (name, previous) in undone {
            let after = query
                .after
                .as_ref()
                .is_none_or(|(ns, n)| name > (ns.as_str(), n.as_str()));
            match previous.filter(|_| after) {
                Some(held) => names.insert(name, held),
                None => names.remove(&name),
            };
        }
        let mut all = names.into_iter().filter(|((namespace, _), _)| {
            query
                .namespace
                .as_deref()
                .is_none_or(|wanted| wanted == *namespace)
        });
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let entries: Vec<Entry> = all
            .by_ref()
            .take(limit)
            .map(|((namespace, name), (revision, value))| Entry {
                key: Key {
                    resource: query.resource.clone(),
                    namespace: namespace.into(),
                    name: name.into(),
                },
                revision,
                value: value.clone(),
            })
            .collect();
        let remaining = all.count() as u64;
        ListPage {
            entries,
            revision: at,
            more: remaining > 0,
            remaining: Some(remaining),
        }
    }
}

fn size(change: &Change) -> usize {
    change.value.len() + change.previous.as_ref().map_or(0, Bytes::len)
}
