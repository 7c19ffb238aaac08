//! One connection of a host.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use identity::backoff::{jittered, random_fraction};
use jiff::{SignedDuration, Timestamp};
use telemetry::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_tungstenite::WebSocketStream;

use super::{Handler, Options};
use crate::{
    handle,
    message::{Assignment, Hello, HostMessage, Open, PROTOCOL, ServerMessage, Signal},
    mux::{SendError, Shared},
    socket::{Ended, Event, Meter, Socket},
    status::StatusBook,
    stream::Stream,
};

/// How long the orchestrator may take for its welcome.
pub(super) const WELCOME_TIME: Duration = Duration::from_secs(30);
/// Beats that may be unanswered before the connection is given up.
const BEATS: u32 = 3;
/// Heartbeats that an orchestrator may ask for, in seconds.
const HEARTBEAT: std::ops::RangeInclusive<u32> = 1..=600;
/// The host's clock is told with every so many beats,
const CLOCK_BEATS: u32 = 10;
/// or if it went so much further than time did.
const JUMP: SignedDuration = SignedDuration::from_secs(5);
/// Heartbeats are this much earlier or later.
const JITTER: f64 = 0.1;

/// A connection of a host.
pub(super) struct Session<IO> {
    socket: Box<Socket<IO>>,
    status: StatusBook,
    coalesce: Duration,
    version: String,
    boot_id: String,
    heartbeat: Duration,
    next_beat: Instant,
    unanswered: u32,
    clock: Clock,
    /// The host's clock as it was told last, when that was, and beats since then.
    told: (Timestamp, Instant, u32),
    /// Up to which event each beat under way confirms when it is answered.
    beats: VecDeque<u64>,
    /// Whether there may be something to report, and when the next report may go.
    dirty: bool,
    next_report: Instant,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Session<IO> {
    pub(super) fn new(ws: WebSocketStream<Meter<IO>>, options: &Options) -> Self {
        let shared = Arc::new(Shared::new(false, options.max_streams));
        let now = Instant::now();
        Self {
            // Silence is judged by beats; this is only above the longest heartbeat there can be.
            socket: Box::new(Socket::new(ws, shared, Duration::from_mins(45))),
            status: options.status.clone(),
            coalesce: options.coalesce,
            version: options.version.clone(),
            boot_id: options.boot_id.clone(),
            heartbeat: Duration::from_secs(30),
            next_beat: now,
            unanswered: 0,
            clock: options.clock.clone(),
            told: (options.clock.now(), now, 0),
            beats: VecDeque::new(),
            dirty: false,
            next_report: now,
        }
    }

    /// Says hello and waits for the welcome.
    pub(super) async fn begin<H: Handler>(&mut self, work: &mut Work<H>) -> Result<(), Ended> {
        self.told = (self.clock.now(), Instant::now(), 0);
        self.send(&HostMessage::Hello(Hello {
            protocol: PROTOCOL,
            version: self.version.clone(),
            boot_id: self.boot_id.clone(),
            status_generation: self.status.generation(),
            assignment_generation: work.handler.assignment_generation(),
            time: self.clock.now_rfc3339(),
        }))?;
        loop {
            if let ServerMessage::Welcome(welcome) = self.message(work).await? {
                let seconds = welcome.heartbeat.clamp(*HEARTBEAT.start(), *HEARTBEAT.end());
                self.heartbeat = Duration::from_secs(u64::from(seconds));
                self.next_beat = Instant::now() + self.heartbeat.mul_f64(random_fraction());
                self.status.welcome(welcome.status_generation);
                return Ok(());
            }
        }
    }

    /// Serves until the connection is over.
    pub(super) async fn serve<H: Handler>(&mut self, work: &mut Work<H>) -> Ended {
        loop {
            if let Err(ended) = self.step(work).await {
                return ended;
            }
        }
    }

    async fn step<H: Handler>(&mut self, work: &mut Work<H>) -> Result<(), Ended> {
        let status = self.status.clone();
        let (dirty, next_report, next_beat) = (self.dirty, self.next_report, self.next_beat);
        tokio::select! {
            message = self.message(work) => match message? {
                ServerMessage::Beat {} => {
                    self.unanswered = 0;
                    if let Some(before) = self.beats.pop_front() {
                        status.events_confirmed(before);
                    }
                }
                ServerMessage::Ack { generation } => status.acknowledged(generation),
                ServerMessage::Resync {} => status.resync(),
                // The rest is handled where it comes in; a second welcome says nothing new.
                _ => {}
            },
            () = sleep_until(next_beat) => self.beat()?,
            () = status.changed(), if !dirty => self.dirty = true,
            () = sleep_until(next_report), if dirty => self.report()?,
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<(), Ended> {
        if self.unanswered >= BEATS {
            return Err(Ended::Silent(self.heartbeat * BEATS));
        }
        self.unanswered += 1;
        self.beats.push_back(self.status.events_sent());
        self.next_beat = Instant::now() + jittered(self.heartbeat, JITTER);
        self.send(&HostMessage::Beat {})?;
        let (told, at, beats) = self.told;
        let steady = SignedDuration::try_from(at.elapsed()).unwrap_or_default();
        let jump = self.clock.now().duration_since(told) - steady;
        self.told.2 = beats + 1;
        if beats + 1 < CLOCK_BEATS && jump.abs() < JUMP {
            return Ok(());
        }
        self.told = (self.clock.now(), Instant::now(), 0);
        self.send(&HostMessage::Clock {
            time: self.clock.now_rfc3339(),
        })
    }

    fn report(&mut self) -> Result<(), Ended> {
        self.dirty = false;
        self.next_report = Instant::now() + self.coalesce;
        if let Some(status) = self.status.next_status() {
            self.send(&status)?;
        }
        while let Some(events) = self.status.next_events() {
            self.send(&events)?;
        }
        Ok(())
    }

    /// The next message, after what it asks for was begun.
    async fn message<H: Handler>(&mut self, work: &mut Work<H>) -> Result<ServerMessage, Ended> {
        loop {
            let event = tokio::select! {
                event = poll_fn(|cx| self.socket.poll_event(cx)) => event?,
                result = work.finished() => {
                    self.send(&result)?;
                    continue;
                }
            };
            let payload = match event {
                Event::Control(payload) => payload,
                Event::Open(payload, stream) => {
                    work.open(&payload, stream);
                    continue;
                }
            };
            let Ok(message) = serde_json::from_slice(&payload) else {
                // The orchestrator is told, and the next round gives the reason.
                self.socket.end(Ended::Message("not one that this host reads"));
                continue;
            };
            return Ok(match message {
                ServerMessage::Assign {
                    generation,
                    assignment,
                } => {
                    work.assign(generation, *assignment);
                    ServerMessage::Unknown
                }
                ServerMessage::Signal { what } => {
                    work.signal(what);
                    ServerMessage::Unknown
                }
                other => other,
            });
        }
    }

    fn send(&self, message: &HostMessage) -> Result<(), Ended> {
        match handle::send(self.socket.shared(), message) {
            Err(SendError::Full) => Err(Ended::Stalled),
            Err(error @ (SendError::TooLong(_) | SendError::Json)) => {
                tracing::error!(%error, "a message was left out");
                Ok(())
            }
            // That the link is closed, and why, comes out of the socket.
            _ => Ok(()),
        }
    }
}

/// What the handler is doing. Outlives connections.
pub(super) struct Work<H> {
    handler: Arc<H>,
    assigning: Option<(u64, JoinHandle<Result<(), String>>)>,
    /// What came while another was being taken.
    next: Option<(u64, Assignment)>,
    revoked: bool,
}

impl<H: Handler> Work<H> {
    pub(super) fn new(handler: Arc<H>) -> Self {
        Self {
            handler,
            assigning: None,
            next: None,
            revoked: false,
        }
    }

    /// The orchestrator does not want this host.
    pub(super) fn turned_away(&self) {
        self.handler.turned_away();
    }

    /// Whether the orchestrator said that the host was revoked, since last asked.
    pub(super) fn take_revoked(&mut self) -> bool {
        std::mem::take(&mut self.revoked)
    }

    fn assign(&mut self, generation: u64, assignment: Assignment) {
        if self.assigning.is_some() {
            self.next = Some((generation, assignment));
            return;
        }
        let handler = self.handler.clone();
        let task = tokio::spawn(async move { handler.assign(generation, assignment).await });
        self.assigning = Some((generation, task));
    }

    /// Waits for the assignment that is being taken; for ever if there is none. Cancel safe.
    async fn finished(&mut self) -> HostMessage {
        let Some((generation, task)) = &mut self.assigning else {
            return std::future::pending().await;
        };
        let generation = *generation;
        let result = task.await;
        self.assigning = None;
        if let Some((generation, assignment)) = self.next.take() {
            self.assign(generation, assignment);
        }
        let error = match result {
            Ok(result) => result.err(),
            Err(_) => Some("taking the assignment failed inside the host's daemon".into()),
        };
        HostMessage::Assigned { generation, error }
    }

    fn signal(&mut self, what: Signal) {
        self.revoked |= what == Signal::Revoked;
        let handler = self.handler.clone();
        tokio::spawn(async move { handler.signal(what).await });
    }

    fn open(&self, payload: &Bytes, stream: Stream) {
        match serde_json::from_slice(payload) {
            Ok(Open::Unknown) | Err(_) => stream.reset("this host does not know the service"),
            Ok(request) => {
                let handler = self.handler.clone();
                tokio::spawn(async move { handler.open(request, stream).await });
            }
        }
    }
}
