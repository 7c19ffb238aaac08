//! What is held in memory about one virtual machine while this process runs. Everything here can be lost: it
//! is found again, or it starts anew.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle, time::Instant};

use crate::{
    images::Images,
    monitor::{Monitor, Wake},
    plan::ImageState,
    process::Running,
};

/// A wait that doubles with each failure in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
            until: None,
        }
    }

    /// It failed: the next try waits.
    pub(crate) fn failed(&mut self) -> Duration {
        let wait = self
            .first
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(Instant::now() + wait);
        wait
    }

    /// It went well: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
        self.until = None;
    }

    /// How long to wait still.
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.until
            .map(|until| until.saturating_duration_since(Instant::now()))
            .filter(|wait| !wait.is_zero())
    }
}

/// A virtual machine that ran this long is stable: when it ends, it is started again as if for the first time.
const STABLE: Duration = Duration::from_secs(60);
/// A guest that stands still because of a disk is let go on after this time.
const DISK_RETRY: Duration = Duration::from_secs(60);

/// What is held in memory about one virtual machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// QEMU and what watches it; none when there is none or it has not been looked for yet.
    pub(crate) running: Option<(Running, Monitor)>,
    /// The image's state.
    pub(crate) image: Fetch,
    /// Back-off of starts.
    pub(crate) starts: Backoff,
    /// Why the last start failed.
    pub(crate) start_error: Option<String>,
    /// QEMU's word for the end of the last one.
    pub(crate) last_shutdown: Option<String>,
    started: Option<Instant>,
    disk_tried: Option<Instant>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            running: None,
            image: Fetch::default(),
            starts: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
            start_error: None,
            last_shutdown: None,
            started: None,
            disk_tried: None,
        }
    }
}

impl Machine {
    /// Its QEMU is gone: waits until the process is, and keeps what was said at the end.
    pub(crate) async fn lost(&mut self) {
        if let Some((running, monitor)) = self.running.take() {
            running.ended().await;
            self.last_shutdown = monitor.last_shutdown().await;
        }
    }

    /// It runs now.
    pub(crate) fn started(&mut self) {
        self.started = Some(Instant::now());
        self.start_error = None;
        self.last_shutdown = None;
        self.disk_tried = None;
    }

    /// It ended though it should run. How long the next start waits.
    pub(crate) fn ended(&mut self) -> Duration {
        if self.started.take().is_some_and(|at| at.elapsed() >= STABLE) {
            self.starts.reset();
        }
        self.starts.failed()
    }

    /// It is let go on after a disk failed.
    pub(crate) fn disk_tried(&mut self) {
        self.disk_tried = Some(Instant::now());
    }

    /// How long to wait before it is let go on again.
    pub(crate) fn disk_wait(&self) -> Option<Duration> {
        self.disk_tried.map(|at| DISK_RETRY.saturating_sub(at.elapsed()))
    }
}

/// The fetching of an image, in a task of its own so that nobody waits for it.
#[derive(Debug)]
pub(crate) struct Fetch {
    shared: Arc<Mutex<ImageState>>,
    backoff: Backoff,
    task: Option<AbortHandle>,
    /// Whether the last failure has been counted.
    counted: bool,
}

impl Default for Fetch {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
        Self {
            shared: Arc::default(),
            backoff,
            task: None,
            counted: true,
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn lock(state: &Mutex<ImageState>) -> MutexGuard<'_, ImageState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image that is in the cache is found in less.
const CACHED: Duration = Duration::from_millis(100);
/// People do not read faster.
const PROGRESS_PERIOD: Duration = Duration::from_secs(2);

impl Fetch {
    /// The state, and how long to wait before the next try.
    pub(crate) fn state(&mut self) -> (ImageState, Option<Duration>) {
        let state = lock(&self.shared).clone();
        if !matches!(state, ImageState::Failed(_)) {
            return (state, None);
        }
        if !self.counted {
            self.counted = true;
            self.backoff.failed();
        }
        match self.backoff.wait() {
            Some(wait) => (state, Some(wait)),
            None => (ImageState::Unasked, None),
        }
    }

    /// Begins to fetch, and waits a moment: an image that is in the cache is there at once.
    pub(crate) async fn begin(&mut self, images: Arc<dyn Images>, reference: String, wake: Wake) {
        self.counted = false;
        *lock(&self.shared) = ImageState::Working(format!("image {reference:?} is being fetched"));
        let shared = self.shared.clone();
        let task = tokio::spawn(async move {
            let (progress, mut told) = watch::channel(String::new());
            let mut fetch = std::pin::pin!(images.ensure(&reference, &progress));
            let result = loop {
                tokio::select! {
                    result = &mut fetch => break result,
                    Ok(()) = told.changed() => {
                        let text = told.borrow_and_update().clone();
                        *lock(&shared) = ImageState::Working(format!("image {reference:?}: {text}"));
                        wake();
                        // What is told meanwhile is told at the end of the wait; the fetch goes on.
                        tokio::select! {
                            result = &mut fetch => break result,
                            () = tokio::time::sleep(PROGRESS_PERIOD) => {}
                        }
                    }
                }
            };
            *lock(&shared) = match result {
                Ok(image) => ImageState::Ready(image),
                Err(error) => ImageState::Failed(error),
            };
            wake();
        });
        self.task = Some(task.abort_handle());
        let _ = tokio::time::timeout(CACHED, task).await;
    }

    /// Forgets the image: its disks have been made.
    pub(crate) fn forget(&mut self) {
        *lock(&self.shared) = ImageState::Unasked;
        self.backoff.reset();
    }
}
