//! What a host has to report: sections with generation numbers, and events.
//!
//! The daemon's parts put in what is true now; the connector takes out what the orchestrator doesn't have yet. Each
//! message makes a generation, builds on one that was acknowledged, and the next one waits for its acknowledgement:
//! however often a section changes meanwhile, it is sent once, as it is then.
//!
//! ```text
//!            set/remove              acknowledged
//!   in step ────────────▶ changed ──────┐
//!      ▲                     │ 1 s      │
//!      │                     ▼          │
//!      └──────────────── in flight ◀────┘ (more changed)
//!                            │ connection lost, welcome {g}
//!                            ▼
//!                        changed since g, or everything when g isn't of this run
//! ```
//!
//! Generations go up for ever: a run of the daemon begins above what the orchestrator has, so that two runs never give
//! one number to two states. After a restart everything is sent once. An orchestrator that was restored from an old
//! backup names an old generation, and gets what changed since, or everything.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::message::{Event, HostMessage, Sections, Status};

/// A status message carries at most about this much JSON; what is more comes in the next.
const MESSAGE_TARGET: usize = 128 * 1024;
/// A section longer than this is replaced by a note of its length.
const SECTION_MAX: usize = 64 * 1024;
/// Events that are kept until they are delivered; then the oldest are dropped.
pub const EVENTS_MAX: usize = 256;
/// Events in one message.
const EVENTS_BATCH: usize = 64;
/// Characters of an event's message that are kept.
const EVENT_TEXT_MAX: usize = 1024;
/// Sections that are remembered as removed.
const TOMBSTONES_MAX: usize = 1024;

/// Changed, and in no message yet.
const PENDING: u64 = u64::MAX;

/// The host's status. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub struct StatusBook(Arc<Shared>);

#[derive(Default)]
struct Shared {
    book: Mutex<Book>,
    changed: Notify,
}

#[derive(Default)]
struct Book {
    held: bool,
    sections: BTreeMap<String, Section>,
    /// Removed sections, by when.
    removed: BTreeMap<String, u64>,
    /// The newest generation that a message made.
    generation: u64,
    /// The first generation of this run's numbering from which changes can be told; none before the first welcome.
    floor: Option<u64>,
    /// What the orchestrator has; 0 for nothing that counts. None while not connected.
    base: Option<u64>,
    in_flight: Option<u64>,

    events: VecDeque<Event>,
    /// The number of the first event in `events`.
    first_event: u64,
    /// Events before this number were sent on this connection.
    sent_events: u64,
    dropped_events: u64,
}

struct Section {
    value: Value,
    changed: u64,
}

impl StatusBook {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty book of which nothing is sent before [`StatusBook::release`]: for a daemon that starts, so that its
    /// first message doesn't say that all but three sections are gone.
    #[must_use]
    pub fn held() -> Self {
        let book = Self::new();
        book.lock().held = true;
        book
    }

    /// The first full picture is in: send.
    pub fn release(&self) {
        self.lock().held = false;
        self.0.changed.notify_one();
    }

    /// Sets a section. The same value again changes nothing and costs nothing on the wire.
    pub fn set(&self, section: &str, value: Value) {
        let mut book = self.lock();
        match book.sections.get_mut(section) {
            Some(known) if known.value == value => return,
            Some(known) => {
                known.value = value;
                known.changed = PENDING;
            }
            None => {
                let changed = PENDING;
                book.sections.insert(section.into(), Section { value, changed });
            }
        }
        book.removed.remove(section);
        drop(book);
        self.0.changed.notify_one();
    }

    /// Removes a section.
    pub fn remove(&self, section: &str) {
        let mut book = self.lock();
        if book.sections.remove(section).is_none() {
            return;
        }
        book.removed.insert(section.into(), PENDING);
        drop(book);
        self.0.changed.notify_one();
    }

    /// Makes the sections whose names begin with `prefix` exactly these (names without the prefix): `vm/`, `nic/`.
    pub fn replace(&self, prefix: &str, mut sections: BTreeMap<String, Value>) {
        let gone: Vec<String> = {
            let book = self.lock();
            let under = book.sections.range(prefix.to_owned()..).map(|(name, _)| name);
            let under = under.take_while(|name| name.starts_with(prefix));
            under
                .filter(|name| !sections.contains_key(&name[prefix.len()..]))
                .cloned()
                .collect()
        };
        for name in gone {
            self.remove(&name);
        }
        while let Some((name, value)) = sections.pop_first() {
            self.set(&format!("{prefix}{name}"), value);
        }
    }

    /// A section as it is now.
    #[must_use]
    pub fn get(&self, section: &str) -> Option<Value> {
        self.lock()
            .sections
            .get(section)
            .map(|section| section.value.clone())
    }

    /// Adds an event. When [`EVENTS_MAX`] are waiting, the oldest is dropped.
    pub fn event(&self, mut event: Event) {
        if let Some((end, _)) = event.message.char_indices().nth(EVENT_TEXT_MAX) {
            event.message.truncate(end);
        }
        let mut book = self.lock();
        if book.events.len() >= EVENTS_MAX {
            book.events.pop_front();
            book.first_event += 1;
            book.dropped_events += 1;
        }
        book.events.push_back(event);
        drop(book);
        self.0.changed.notify_one();
    }

    /// How many events were dropped because nobody took them.
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.lock().dropped_events
    }

    /// The newest generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Whether the orchestrator has acknowledged everything.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        let book = self.lock();
        let pending = book.sections.values().any(|section| section.changed == PENDING)
            || book.removed.values().any(|at| *at == PENDING);
        !pending && book.in_flight.is_none() && book.base.is_some_and(|base| base == book.generation)
    }

    /// Waits until something changed since it was last asked.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// A connection is there, or isn't any more: nothing is known of what the orchestrator has.
    pub(crate) fn disconnected(&self) {
        let mut book = self.lock();
        book.base = None;
        book.in_flight = None;
        // What was sent and not confirmed is sent again.
        book.sent_events = book.first_event;
    }

    /// The orchestrator has `generation`.
    pub(crate) fn welcome(&self, generation: u64) {
        let mut book = self.lock();
        book.in_flight = None;
        let known = book.floor.is_some_and(|floor| floor <= generation);
        if known && generation <= book.generation {
            book.base = Some(generation);
        } else {
            book.generation = book.generation.max(generation);
            book.start_over();
        }
        drop(book);
        self.0.changed.notify_one();
    }

    /// The orchestrator wants everything.
    pub(crate) fn resync(&self) {
        let mut book = self.lock();
        book.in_flight = None;
        book.start_over();
        drop(book);
        self.0.changed.notify_one();
    }

    /// The orchestrator has taken `generation`.
    pub(crate) fn acknowledged(&self, generation: u64) {
        let mut book = self.lock();
        if book.in_flight != Some(generation) {
            return;
        }
        book.in_flight = None;
        book.base = Some(generation);
        drop(book);
        self.0.changed.notify_one();
    }

    /// The next status message, if one is due and none is in flight.
    pub(crate) fn next_status(&self) -> Option<HostMessage> {
        self.lock().next_status().map(HostMessage::Status)
    }

    /// The next events, if there are any that weren't sent on this connection.
    pub(crate) fn next_events(&self) -> Option<HostMessage> {
        let mut book = self.lock();
        book.base?;
        let skip = usize::try_from(book.sent_events.saturating_sub(book.first_event)).ok()?;
        let items: Vec<Event> = book
            .events
            .iter()
            .skip(skip)
            .take(EVENTS_BATCH)
            .cloned()
            .collect();
        if items.is_empty() {
            return None;
        }
        book.sent_events = book.sent_events.max(book.first_event) + items.len() as u64;
        Some(HostMessage::Events { items })
    }

    /// Up to which number events were sent: to be confirmed when a beat that is sent now is answered, because the
    /// orchestrator reads in order.
    pub(crate) fn events_sent(&self) -> u64 {
        self.lock().sent_events
    }

    /// Events before this number were read by the orchestrator.
    pub(crate) fn events_confirmed(&self, before: u64) {
        let mut book = self.lock();
        while book.first_event < before && book.events.pop_front().is_some() {
            book.first_event += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// The next message shall hold everything.
    fn start_over(&mut self) {
        self.base = Some(0);
        self.floor = Some(self.generation + 1);
        self.removed.clear();
        for section in self.sections.values_mut() {
            section.changed = PENDING;
        }
    }

    fn next_status(&mut self) -> Option<Status> {
        if self.held || self.in_flight.is_some() {
            return None;
        }
        let base = self.base?;
        let everything = base == 0;
        let due = |changed: u64| everything || changed > base;
        let generation = self.generation + 1;
        let (mut set, mut size, mut any) = (Sections::new(), 0, false);
        for (name, section) in &mut self.sections {
            if !due(section.changed) {
                continue;
            }
            any = true;
            let (value, length) = bounded(&section.value);
            // What doesn't fit waits for the next message; one always fits.
            if size > 0 && size + length > MESSAGE_TARGET {
                section.changed = PENDING;
                continue;
            }
            size += length + name.len();
            section.changed = generation;
            set.insert(name.clone(), value);
        }
        let mut remove = Vec::new();
        for (name, at) in &mut self.removed {
            if due(*at) {
                *at = generation;
                remove.push(name.clone());
            }
        }
        if !any && remove.is_empty() {
            return None;
        }
        if self.removed.len() > TOMBSTONES_MAX {
            // Who is behind this message gets everything.
            self.removed.clear();
            self.floor = Some(generation);
        }
        self.generation = generation;
        self.in_flight = Some(generation);
        Some(Status {
            generation,
            base,
            set,
            remove,
        })
    }
}

fn bounded(value: &Value) -> (Value, usize) {
    let length = serde_json::to_vec(value).map_or(0, |text| text.len());
    if length > SECTION_MAX {
        (json!({ "tooLong": length }), 32)
    } else {
        (value.clone(), length)
    }
}

impl fmt::Debug for StatusBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let book = self.lock();
        f.debug_struct("StatusBook")
            .field("generation", &book.generation)
            .field("sections", &book.sections.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
