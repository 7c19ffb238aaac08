//! Hosts that are connected to this process, and how to reach those that are connected to another.
//!
//! ```text
//! host ── TLS, ALPN selvedge-link/1 ──▶ serve ──▶ session (one task a host) ──▶ status::Ingest, assignments
//!                                                    │ Handle
//! change log ──▶ tell (assignments, revocations) ────┤
//! API, tunnels ──▶ reach ── here ────────────────────┘
//!                     └──── on another process ──▶ peer (ALPN selvedge-peer/1) ──▶ its reach
//! ```

pub(crate) mod peer;
pub(crate) mod reach;
pub(crate) mod session;
pub(crate) mod tell;
pub(crate) mod trust;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use link::{
    close::{Close, FORBIDDEN, REPLACED, RESTART},
    message::{ServerMessage, Signal},
    server::Handle,
};

/// The hosts that are connected here.
#[derive(Default)]
pub(crate) struct Links {
    hosts: Mutex<HashMap<String, Connected>>,
    next: AtomicU64,
    /// Repositories whose hosts here were told of a push, and when.
    pushes: Mutex<HashMap<String, Instant>>,
}

/// A push that was told of by its hook is found again when its head is read; within this it is the same.
const LATELY: Duration = Duration::from_secs(10);

struct Connected {
    number: u64,
    tenant: Arc<str>,
    handle: Handle,
    /// When its certificate ends.
    until: Timestamp,
    /// The assignment that it was sent last.
    sent: Option<u64>,
}

impl Links {
    /// Adds a host's link; one that it had before is closed. Gives the link's number.
    pub(crate) fn add(&self, host: &str, tenant: Arc<str>, handle: Handle, until: Timestamp) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let before = self.lock().insert(
            host.to_owned(),
            Connected {
                number,
                tenant,
                handle,
                until,
                sent: None,
            },
        );
        if let Some(before) = before {
            before
                .handle
                .close(Close::new(REPLACED, "the host has a newer connection"));
        }
        number
    }

    /// Takes a link away, unless a newer one of the same host is there. Whether it was the host's last.
    pub(crate) fn remove(&self, host: &str, number: u64) -> bool {
        let mut hosts = self.lock();
        let same = hosts
            .get(host)
            .is_some_and(|connected| connected.number == number);
        if same {
            hosts.remove(host);
        }
        same
    }

    /// A hand on a host's link, if the host is connected here.
    pub(crate) fn get(&self, host: &str) -> Option<Handle> {
        self.lock()
            .get(host)
            .map(|connected| connected.handle.clone())
            .filter(|handle| !handle.is_closed())
    }

    /// A host was sent an assignment.
    fn note_sent(&self, host: &str, generation: u64) {
        if let Some(connected) = self.lock().get_mut(host) {
            connected.sent = Some(generation);
        }
    }

    /// The assignment that a host was sent last over the link that it has now.
    fn sent(&self, host: &str) -> Option<u64> {
        self.lock().get(host).and_then(|connected| connected.sent)
    }

    /// How many are connected.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Hosts of a tenant that are connected here.
    pub(crate) fn of_tenant(&self, tenant: &str) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|(_, connected)| &*connected.tenant == tenant)
            .map(|(host, _)| host.clone())
            .collect()
    }

    /// All of them: tenant and host.
    pub(crate) fn all(&self) -> Vec<(Arc<str>, String)> {
        self.lock()
            .iter()
            .map(|(host, connected)| (connected.tenant.clone(), host.clone()))
            .collect()
    }

    /// Ends the link of a host that was revoked.
    pub(crate) fn cut_host(&self, host: &str) {
        if let Some(handle) = self.get(host) {
            let _ = handle.send(&ServerMessage::Signal {
                what: Signal::Revoked,
            });
            handle.close(Close::new(FORBIDDEN, "the host was revoked"));
        }
    }

    /// Ends links whose certificate ended while they lasted: the host comes back with a renewed one.
    pub(crate) fn sweep(&self, now: Timestamp) {
        let grace = i64::try_from(identity::verify::EXPIRY_GRACE.as_secs()).unwrap_or(300);
        for connected in self.lock().values() {
            if now.as_second() > connected.until.as_second() + grace {
                connected
                    .handle
                    .close(Close::new(RESTART, "the host's certificate ended; renew it"));
            }
        }
    }

    /// Ends the links of a tenant that is gone.
    pub(crate) fn cut_tenant(&self, tenant: &str) {
        for host in self.of_tenant(tenant) {
            self.cut_host(&host);
        }
    }

    /// Tells all hosts to connect elsewhere, spread over `spread`.
    pub(crate) fn drain(&self, spread: Duration) {
        let handles: Vec<Handle> = self.lock().values().map(|c| c.handle.clone()).collect();
        for handle in handles {
            let after = spread.mul_f64(identity::backoff::random_fraction());
            handle.close(Close::new(RESTART, "this orchestrator process stops").retry_after(after));
        }
    }

    /// The hosts of a repository were told of a push.
    fn note_push(&self, repository: &str) {
        let mut pushes = self.pushes.lock().unwrap_or_else(PoisonError::into_inner);
        pushes.retain(|_, at| at.elapsed() < LATELY);
        pushes.insert(repository.to_owned(), Instant::now());
    }

    /// Whether they were told a moment ago.
    fn told_lately(&self, repository: &str) -> bool {
        let pushes = self.pushes.lock().unwrap_or_else(PoisonError::into_inner);
        pushes.get(repository).is_some_and(|at| at.elapsed() < LATELY)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Connected>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
