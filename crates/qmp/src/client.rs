//! A connection to QMP.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::{
    net::UnixStream,
    sync::{broadcast, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::codec::Framed;

use crate::{
    codec::{self, JsonLines},
    message::{Event, Message, Refusal},
};

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Greatest line, in bytes.
    pub line: usize,
    /// Events kept for a receiver that is behind; older ones are dropped and the receiver is told.
    pub events: usize,
    /// Requests that wait to be sent.
    pub requests: usize,
    /// How long a reply, or the greeting, may take.
    pub reply: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: codec::MAX_LINE,
            events: 256,
            requests: 32,
            reply: Duration::from_secs(10),
        }
    }
}

/// Why a connection or a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no QEMU behind the socket.
    #[error("can't connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The other side is no QMP server, or the line is damaged.
    #[error("bad data on the connection")]
    Protocol(#[from] codec::Error),
    /// A line is no JSON.
    #[error("bad data on the connection")]
    Line(#[from] codec::NotJson),
    /// The first line was no greeting.
    #[error("the first line is no QMP greeting")]
    NoGreeting,
    /// QEMU refused the command.
    #[error("{command} was refused: {description} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// The error class.
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// The answer does not have the shape that it should have.
    #[error("the answer to {command} has no {field}")]
    Shape {
        /// The command.
        command: &'static str,
        /// What is missing.
        field: &'static str,
    },
    /// The connection has ended, most likely with QEMU itself.
    #[error("the QMP connection is closed")]
    Closed,
    /// No answer in time.
    #[error("no answer to {command} within {seconds} s")]
    Timeout {
        /// The command.
        command: String,
        /// The bound.
        seconds: u64,
    },
}

impl Error {
    /// Whether QEMU refused with this class, for example `DeviceNotFound`.
    #[must_use]
    pub fn is_class(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { class, .. } if class == wanted)
    }
}

/// A connection to QMP that has been negotiated. Cheap to clone; the connection ends with the last clone.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    events: broadcast::WeakSender<Arc<Event>>,
    open: watch::Receiver<bool>,
    version: Arc<str>,
    reply: Duration,
}

#[derive(Debug)]
struct Request {
    command: String,
    arguments: Value,
    answer: oneshot::Sender<Result<Value, Refusal>>,
}

/// Events as they come. On `Lagged` ask for the state anew: something was missed.
pub type Events = broadcast::Receiver<Arc<Event>>;

impl Client {
    /// Connects and negotiates. The receiver has every event since the connection was made.
    pub async fn connect(path: &Path, limits: Limits) -> Result<(Self, Events), Error> {
        let connect = |source| Error::Connect {
            path: path.into(),
            source,
        };
        let stream = UnixStream::connect(path).await.map_err(connect)?;
        Self::over(stream, limits).await
    }

    /// The same over a stream that is connected already.
    pub async fn over(stream: UnixStream, limits: Limits) -> Result<(Self, Events), Error> {
        let mut lines = Framed::new(stream, JsonLines::new(limits.line));
        let late = |command: &str| Error::Timeout {
            command: command.into(),
            seconds: limits.reply.as_secs(),
        };
        let first = timeout(limits.reply, lines.next())
            .await
            .map_err(|_| late("the greeting"))?;
        let greeting = match Message::of(first.ok_or(Error::Closed)???) {
            Message::Greeting(greeting) => greeting,
            _ => return Err(Error::NoGreeting),
        };
        let (event_sender, events) = broadcast::channel(limits.events.max(1));
        let (requests, request_receiver) = mpsc::channel(limits.requests.max(1));
        let (open_sender, open) = watch::channel(true);
        let client = Self {
            requests,
            events: event_sender.downgrade(),
            open,
            version: version(&greeting).into(),
            reply: limits.reply,
        };
        tokio::spawn(run(lines, request_receiver, event_sender, open_sender));
        client.execute("qmp_capabilities", Value::Null).await?;
        Ok((client, events))
    }

    /// QEMU's version as `major.minor.micro`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Executes a command. `arguments` is an object, or null for none.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, Error> {
        let (answer, reply) = oneshot::channel();
        let request = Request {
            command: command.into(),
            arguments,
            answer,
        };
        let exchange = async {
            self.requests.send(request).await.map_err(|_| Error::Closed)?;
            reply.await.map_err(|_| Error::Closed)
        };
        let late = |_| Error::Timeout {
            command: command.into(),
            seconds: self.reply.as_secs(),
        };
        timeout(self.reply, exchange)
            .await
            .map_err(late)??
            .map_err(|refusal| Error::Refused {
                command: command.into(),
                class: refusal.class,
                description: refusal.description,
            })
    }

    /// Events from now on. A receiver of a connection that has ended says so at once.
    #[must_use]
    pub fn events(&self) -> Events {
        match self.events.upgrade() {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    /// Resolves when the connection has ended.
    pub async fn closed(&self) {
        // An error means that the task is gone, which is the same.
        let _ = self.open.clone().wait_for(|open| !open).await;
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !*self.open.borrow() || self.open.has_changed().is_err()
    }
}

fn version(greeting: &Value) -> String {
    let qemu = &greeting["version"]["qemu"];
    let part = |name: &str| qemu[name].as_u64().unwrap_or(0);
    format!("{}.{}.{}", part("major"), part("minor"), part("micro"))
}

/// Owns the connection until either side ends it. What it holds is dropped at its end, which fails the
/// waiting requests, ends the event streams and marks the connection closed.
async fn run(
    lines: Framed<UnixStream, JsonLines>,
    mut requests: mpsc::Receiver<Request>,
    events: broadcast::Sender<Arc<Event>>,
    open: watch::Sender<bool>,
) {
    let (mut sink, mut stream) = lines.split();
    let mut waiting: HashMap<u64, oneshot::Sender<Result<Value, Refusal>>> = HashMap::new();
    let mut next_id = 0u64;
    loop {
        tokio::select! {
            line = stream.next() => match line {
                Some(Ok(Ok(line))) => match Message::of(line) {
                    Message::Event(event) => {
                        tracing::debug!(event = event.name, data = %event.data, "qmp event");
                        // No receiver is fine: nobody listens just now.
                        let _ = events.send(Arc::new(event));
                    }
                    Message::Reply { id: Some(id), result } => {
                        if let Some(answer) = waiting.remove(&id) {
                            let _ = answer.send(result);
                        }
                    }
                    other => tracing::debug!(message = ?other, "qmp message without a reader"),
                },
                Some(Ok(Err(error))) => {
                    tracing::debug!(%error, "qmp connection failed");
                    break;
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "qmp connection failed");
                    break;
                }
                None => break,
            },
            request = requests.recv() => {
                let Some(Request { command, arguments, answer }) = request else { break };
                waiting.retain(|_, answer| !answer.is_closed());
                next_id += 1;
                let mut line = Map::from_iter([("execute".into(), json!(command)), ("id".into(), json!(next_id))]);
                if !arguments.is_null() {
                    line.insert("arguments".into(), arguments);
                }
                waiting.insert(next_id, answer);
                if let Err(error) = sink.send(Value::Object(line)).await {
                    tracing::debug!(%error, "qmp connection failed");
                    break;
                }
            }
        }
    }
    open.send_replace(false);
}
