//! The connection's life: connect, serve until it breaks, wait, again.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{Command, Config, ConnectionState, Error, SessionError};
use crate::{
    framer::Framer,
    table::{MonitorSpec, Snapshot},
};

/// Monitored columns are flat; this leaves room for any schema.
const MAX_DEPTH: usize = 64;

struct Monitor {
    database: String,
    spec: MonitorSpec,
    snapshots: watch::Sender<Option<Snapshot>>,
}

enum Pending {
    Call {
        method: &'static str,
        reply: oneshot::Sender<Result<Value, Error>>,
    },
    Monitor(usize),
    Echo,
}

pub(super) async fn run(
    config: Config,
    mut commands: mpsc::Receiver<Command>,
    state: watch::Sender<ConnectionState>,
) {
    let mut monitors = Vec::new();
    let mut pause = config.reconnect;
    loop {
        let ended = match UnixStream::connect(&config.socket).await {
            Ok(stream) => {
                let mut session = Session::new(stream, &config);
                let result = session.serve(&mut commands, &mut monitors, &state).await;
                if session.heard {
                    pause = config.reconnect;
                }
                result
            }
            Err(error) => Err(error.into()),
        };
        let reason = match ended {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        tracing::debug!(socket = %config.socket.display(), reason, "no connection to the database");
        state.send_replace(ConnectionState::Disconnected(reason.clone()));
        if !idle(&config, &mut commands, &mut monitors, &reason, pause).await {
            return;
        }
        pause = (pause * 2).min(config.reconnect * 16);
    }
}

/// Waits before the next attempt, and says no to requests meanwhile. False when nobody is left to serve.
async fn idle(
    config: &Config,
    commands: &mut mpsc::Receiver<Command>,
    monitors: &mut Vec<Monitor>,
    reason: &str,
    pause: Duration,
) -> bool {
    let until = Instant::now() + pause;
    loop {
        tokio::select! {
            () = sleep_until(until) => return !commands.is_closed() || !orphaned(monitors),
            command = commands.recv(), if !commands.is_closed() || !commands.is_empty() => match command {
                Some(Command::Call { reply, .. }) => {
                    let socket = config.socket.display().to_string();
                    let _ = reply.send(Err(Error::NotConnected { socket, reason: reason.into() }));
                }
                Some(Command::Monitor { database, spec, snapshots }) => {
                    monitors.push(Monitor { database, spec, snapshots });
                }
                None => {}
            },
        }
    }
}

fn orphaned(monitors: &[Monitor]) -> bool {
    monitors.iter().all(|m| m.snapshots.is_closed())
}

struct Session {
    stream: UnixStream,
    framer: Framer,
    pending: HashMap<u64, Pending>,
    next_id: u64,
    keepalive: Duration,
    /// Whether the server has said anything in this session.
    heard: bool,
}

impl Session {
    fn new(stream: UnixStream, config: &Config) -> Self {
        let framer = Framer::new(config.max_message, MAX_DEPTH);
        Self {
            stream,
            framer,
            pending: HashMap::new(),
            next_id: 0,
            keepalive: config.keepalive,
            heard: false,
        }
    }

    /// Serves until the connection breaks, or (`Ok`) until nobody needs it any more.
    async fn serve(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        monitors: &mut Vec<Monitor>,
        state: &watch::Sender<ConnectionState>,
    ) -> Result<(), SessionError> {
        for (index, monitor) in monitors.iter().enumerate() {
            self.send_monitor(index, monitor).await?;
        }
        state.send_replace(ConnectionState::Connected);
        let mut buffer = vec![0; 64 << 10];
        let mut deadline = Instant::now() + self.keepalive;
        let mut asked = false;
        loop {
            tokio::select! {
                read = self.stream.read(&mut buffer) => {
                    let length = read?;
                    if length == 0 {
                        return Err(SessionError::Closed);
                    }
                    (deadline, asked, self.heard) = (Instant::now() + self.keepalive, false, true);
                    self.framer.feed(&buffer[..length]);
                    while let Some(message) = self.framer.next_message()? {
                        let message = serde_json::from_slice(&message).map_err(|_| SessionError::BadMessage)?;
                        self.receive(message, monitors).await?;
                    }
                }
                command = commands.recv(), if !commands.is_closed() || !commands.is_empty() => match command {
                    Some(Command::Call { method, params, reply }) => {
                        self.request(method, &params, Pending::Call { method, reply }).await?;
                    }
                    Some(Command::Monitor { database, spec, snapshots }) => {
                        monitors.push(Monitor { database, spec, snapshots });
                        let index = monitors.len() - 1;
                        self.send_monitor(index, &monitors[index]).await?;
                    }
                    None => {}
                },
                () = sleep_until(deadline) => {
                    if commands.is_closed() && orphaned(monitors) {
                        return Ok(());
                    }
                    if asked {
                        return Err(SessionError::Silent);
                    }
                    (deadline, asked) = (Instant::now() + self.keepalive, true);
                    self.request("echo", &json!([]), Pending::Echo).await?;
                }
            }
            if commands.is_closed() && commands.is_empty() && orphaned(monitors) {
                return Ok(());
            }
        }
    }

    async fn receive(&mut self, mut message: Value, monitors: &[Monitor]) -> Result<(), SessionError> {
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                let answer = json!({"id": message["id"], "result": message["params"], "error": null});
                self.write(&answer).await
            }
            Some("update") => {
                let index = message["params"][0]
                    .as_u64()
                    .and_then(|i| usize::try_from(i).ok());
                let monitor = index
                    .and_then(|i| monitors.get(i))
                    .ok_or(SessionError::BadMessage)?;
                let mut understood = None;
                monitor.snapshots.send_modify(|snapshot| {
                    understood = snapshot.get_or_insert_default().update(&message["params"][1]);
                });
                understood.ok_or(SessionError::BadMessage)
            }
            // Notifications of kinds that were not asked for.
            Some(_) => Ok(()),
            None => {
                let id = message
                    .get("id")
                    .and_then(Value::as_u64)
                    .ok_or(SessionError::BadMessage)?;
                let pending = self.pending.remove(&id).ok_or(SessionError::BadMessage)?;
                let error = message.get("error").filter(|e| !e.is_null()).map(error_text);
                let result = message.get_mut("result").map(Value::take).unwrap_or_default();
                Self::answer(pending, error, result, monitors)
            }
        }
    }

    fn answer(
        pending: Pending,
        error: Option<String>,
        result: Value,
        monitors: &[Monitor],
    ) -> Result<(), SessionError> {
        match (pending, error) {
            (Pending::Echo, _) => {}
            (Pending::Call { method, reply }, Some(error)) => {
                let _ = reply.send(Err(Error::Refused {
                    method: method.into(),
                    error,
                }));
            }
            (Pending::Call { reply, .. }, None) => {
                let _ = reply.send(Ok(result));
            }
            (Pending::Monitor(_), Some(error)) => return Err(SessionError::Monitor(error)),
            (Pending::Monitor(index), None) => {
                let mut snapshot = Snapshot::default();
                snapshot.update(&result).ok_or(SessionError::BadMessage)?;
                if let Some(monitor) = monitors.get(index) {
                    monitor.snapshots.send_replace(Some(snapshot));
                }
            }
        }
        Ok(())
    }

    async fn send_monitor(&mut self, index: usize, monitor: &Monitor) -> Result<(), SessionError> {
        let tables: serde_json::Map<String, Value> = monitor
            .spec
            .iter()
            .map(|(table, columns)| {
                let request = if columns.is_empty() {
                    json!({})
                } else {
                    json!({"columns": columns})
                };
                (table.clone(), request)
            })
            .collect();
        let params = json!([monitor.database, index, tables]);
        self.request("monitor", &params, Pending::Monitor(index)).await
    }

    async fn request(&mut self, method: &str, params: &Value, pending: Pending) -> Result<(), SessionError> {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, pending);
        self.write(&json!({"id": id, "method": method, "params": params}))
            .await
    }

    async fn write(&mut self, message: &Value) -> Result<(), SessionError> {
        Ok(self.stream.write_all(message.to_string().as_bytes()).await?)
    }
}

/// The error of an answer is a string or an object with `error` and `details`.
fn error_text(error: &Value) -> String {
    match (error.as_str(), error.get("error").and_then(Value::as_str)) {
        (Some(text), _) => text.into(),
        (None, Some(word)) => match error.get("details").and_then(Value::as_str) {
            Some(details) => format!("{word}: {details}"),
            None => word.into(),
        },
        (None, None) => error.to_string(),
    }
}
