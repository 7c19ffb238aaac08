//! The client: one task that owns the connection, handles that talk to it.

mod session;

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    datum::Row,
    framer::FrameError,
    table::{MonitorSpec, Snapshot},
    transaction::Transaction,
};

/// Where the server is and how patient to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's unix socket.
    pub socket: PathBuf,
    /// After this time without a word from the server an echo is sent; without an answer in the same time
    /// again the connection is given up.
    pub keepalive: Duration,
    /// The first pause before connecting again; it doubles up to sixteen times this.
    pub reconnect: Duration,
    /// The longest message that is accepted.
    pub max_message: usize,
}

impl Config {
    /// The usual patience for a local server.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            keepalive: Duration::from_secs(5),
            reconnect: Duration::from_millis(100),
            max_message: 64 << 20,
        }
    }
}

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Not connected yet.
    Connecting,
    /// Connected.
    Connected,
    /// Lost, or never made, for this reason; it is being tried again.
    Disconnected(String),
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection now.
    #[error("not connected to the database at {socket}: {reason}")]
    NotConnected {
        /// The server's socket.
        socket: String,
        /// Why.
        reason: String,
    },
    /// The connection was lost while waiting; whether the request was carried out is not known.
    #[error("the connection to the database was lost before the answer")]
    Lost,
    /// The server refused the request.
    #[error("the database refused {method}: {error}")]
    Refused {
        /// The request's method.
        method: String,
        /// The server's words.
        error: String,
    },
    /// An operation of a transaction failed; nothing of it was done.
    #[error("operation {index} of the transaction failed: {error}: {details}")]
    Operation {
        /// Index of the operation; the number of operations if the commit itself failed.
        index: usize,
        /// The server's word for it, for example `constraint violation`.
        error: String,
        /// The server's details.
        details: String,
    },
    /// The answer is not what the protocol says.
    #[error("the database gave an answer to {method} that makes no sense")]
    BadAnswer {
        /// The request's method.
        method: String,
    },
}

impl Error {
    /// Whether a `wait` operation found something else than it was told to expect.
    #[must_use]
    pub fn is_guard(&self) -> bool {
        matches!(self, Self::Operation { error, .. } if error == "timed out")
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the server sent a message that is not JSON-RPC")]
    BadMessage,
    #[error("the server closed the connection")]
    Closed,
    #[error("the server does not answer")]
    Silent,
    #[error("the server refused to monitor: {0}")]
    Monitor(String),
}

pub(crate) enum Command {
    Call {
        method: &'static str,
        params: Value,
        reply: oneshot::Sender<Result<Value, Error>>,
    },
    Monitor {
        database: String,
        spec: MonitorSpec,
        snapshots: watch::Sender<Option<Snapshot>>,
    },
}

/// A handle to the connection; cheap to clone. The task ends when the last handle and the last monitor's
/// receiver is gone.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<ConnectionState>,
    socket: String,
}

impl Client {
    /// Starts the task that connects, and connects again whenever the connection is lost.
    #[must_use]
    pub fn spawn(config: Config) -> Self {
        let (commands, receiver) = mpsc::channel(64);
        let (state, watch) = watch::channel(ConnectionState::Connecting);
        let socket = config.socket.display().to_string();
        tokio::spawn(session::run(config, receiver, state));
        Self {
            commands,
            state: watch,
            socket,
        }
    }

    /// How the connection is, and every change of that.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Waits until there is a connection.
    pub async fn connected(&self) {
        // The sender lives as long as the task, and the task as long as this handle.
        let _ = self
            .state
            .clone()
            .wait_for(|state| *state == ConnectionState::Connected)
            .await;
    }

    /// The names of the server's databases.
    ///
    /// # Errors
    /// No connection, or no sensible answer.
    pub async fn list_dbs(&self) -> Result<Vec<String>, Error> {
        let answer = self.call("list_dbs", json!([])).await?;
        serde_json::from_value(answer).map_err(|_| Error::BadAnswer {
            method: "list_dbs".into(),
        })
    }

    /// A database's schema as the server gives it.
    ///
    /// # Errors
    /// No connection, or no such database.
    pub async fn get_schema(&self, database: &str) -> Result<Value, Error> {
        self.call("get_schema", json!([database])).await
    }

    /// Carries out a transaction, and gives one result per operation.
    ///
    /// # Errors
    /// No connection, or an operation failed: then nothing was done.
    pub async fn transact(&self, database: &str, transaction: &Transaction) -> Result<Vec<Value>, Error> {
        let mut params = vec![json!(database)];
        params.extend_from_slice(transaction.operations());
        let answer = self.call("transact", Value::Array(params)).await?;
        let Value::Array(results) = answer else {
            return Err(Error::BadAnswer {
                method: "transact".into(),
            });
        };
        for (index, result) in results.iter().enumerate() {
            if let Some(error) = result.get("error").and_then(Value::as_str) {
                let details = result.get("details").and_then(Value::as_str).unwrap_or_default();
                return Err(Error::Operation {
                    index,
                    error: error.into(),
                    details: details.into(),
                });
            }
        }
        Ok(results)
    }

    /// The rows that a `select` (or another operation that returns rows) gave.
    #[must_use]
    pub fn rows_of(result: &Value) -> Vec<Row> {
        result
            .get("rows")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Row::from_json)
            .collect()
    }

    /// Follows tables. The receiver holds `None` until the first answer, then a consistent copy after every
    /// change; after a lost connection the last copy stays until the new one is there.
    pub async fn monitor(&self, database: &str, spec: MonitorSpec) -> watch::Receiver<Option<Snapshot>> {
        let (snapshots, receiver) = watch::channel(None);
        let _ = self
            .commands
            .send(Command::Monitor {
                database: database.into(),
                spec,
                snapshots,
            })
            .await;
        receiver
    }

    /// Sends any request and gives its result.
    ///
    /// # Errors
    /// No connection, or the server refused.
    pub async fn call(&self, method: &'static str, params: Value) -> Result<Value, Error> {
        if let ConnectionState::Disconnected(reason) = &*self.state.borrow() {
            return Err(Error::NotConnected {
                socket: self.socket.clone(),
                reason: reason.clone(),
            });
        }
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Call {
                method,
                params,
                reply,
            })
            .await
            .map_err(|_| Error::Lost)?;
        answer.await.map_err(|_| Error::Lost)?
    }
}
