//! The commands we use, typed where we read the answer. Anything else goes through [`Client::execute`].

use serde_json::{Value, json};

use crate::client::{Client, Error};

/// What the virtual machine does, as QEMU's `RunState` has it. States of a newer QEMU are [`RunState::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It runs.
    Running,
    /// It stands still and can go on.
    Paused,
    /// It was made with `-S` and has not run yet.
    Prelaunch,
    /// The guest has switched itself off and QEMU was told to stay.
    Shutdown,
    /// The guest is suspended to memory.
    Suspended,
    /// A disk failed and the virtual machine was stopped because of it.
    IoError,
    /// The guest has crashed (pvpanic).
    GuestPanicked,
    /// Another state, by QEMU's name.
    Other(String),
}

impl RunState {
    fn of(name: &str) -> Self {
        match name {
            "running" => Self::Running,
            "paused" => Self::Paused,
            "prelaunch" => Self::Prelaunch,
            "shutdown" => Self::Shutdown,
            "suspended" => Self::Suspended,
            "io-error" => Self::IoError,
            "guest-panicked" => Self::GuestPanicked,
            other => Self::Other(other.into()),
        }
    }
}

/// The answer to `query-status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether virtual CPUs run.
    pub running: bool,
    /// The state.
    pub state: RunState,
}

impl Client {
    /// What the virtual machine does.
    pub async fn query_status(&self) -> Result<Status, Error> {
        const COMMAND: &str = "query-status";
        let answer = self.execute(COMMAND, Value::Null).await?;
        let state = answer["status"].as_str().ok_or(Error::Shape {
            command: COMMAND,
            field: "status",
        })?;
        Ok(Status {
            running: answer["running"].as_bool().unwrap_or(state == "running"),
            state: RunState::of(state),
        })
    }

    /// Block devices, as QEMU tells them.
    pub async fn query_block(&self) -> Result<Vec<Value>, Error> {
        const COMMAND: &str = "query-block";
        match self.execute(COMMAND, Value::Null).await? {
            Value::Array(list) => Ok(list),
            _ => Err(Error::Shape {
                command: COMMAND,
                field: "list",
            }),
        }
    }

    /// The virtual machine's UUID, for making sure that the right QEMU answers.
    pub async fn query_uuid(&self) -> Result<String, Error> {
        const COMMAND: &str = "query-uuid";
        let answer = self.execute(COMMAND, Value::Null).await?;
        answer["UUID"].as_str().map(Into::into).ok_or(Error::Shape {
            command: COMMAND,
            field: "UUID",
        })
    }

    /// Whether KVM is used.
    pub async fn query_kvm(&self) -> Result<bool, Error> {
        const COMMAND: &str = "query-kvm";
        let answer = self.execute(COMMAND, Value::Null).await?;
        answer["enabled"].as_bool().ok_or(Error::Shape {
            command: COMMAND,
            field: "enabled",
        })
    }

    /// Host thread of each virtual CPU.
    pub async fn query_cpu_threads(&self) -> Result<Vec<i64>, Error> {
        const COMMAND: &str = "query-cpus-fast";
        let answer = self.execute(COMMAND, Value::Null).await?;
        let list = answer.as_array().ok_or(Error::Shape {
            command: COMMAND,
            field: "list",
        })?;
        Ok(list.iter().filter_map(|cpu| cpu["thread-id"].as_i64()).collect())
    }

    /// Whether a character device (for example the guest agent's port) is opened by the guest.
    pub async fn query_frontend_open(&self, label: &str) -> Result<bool, Error> {
        let answer = self.execute("query-chardev", Value::Null).await?;
        let device = answer
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["label"] == label);
        Ok(device.is_some_and(|c| c["frontend-open"] == true))
    }

    /// Presses the power button.
    pub async fn system_powerdown(&self) -> Result<(), Error> {
        self.execute("system_powerdown", Value::Null).await.map(drop)
    }

    /// Presses the reset button.
    pub async fn system_reset(&self) -> Result<(), Error> {
        self.execute("system_reset", Value::Null).await.map(drop)
    }

    /// Halts the virtual CPUs.
    pub async fn stop(&self) -> Result<(), Error> {
        self.execute("stop", Value::Null).await.map(drop)
    }

    /// Lets the virtual CPUs go on.
    pub async fn cont(&self) -> Result<(), Error> {
        self.execute("cont", Value::Null).await.map(drop)
    }

    /// Ends QEMU. A connection that closes before the answer came has done what was asked.
    pub async fn quit(&self) -> Result<(), Error> {
        match self.execute("quit", Value::Null).await {
            Ok(_) | Err(Error::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets the size of a block device while the guest runs.
    pub async fn block_resize(&self, node: &str, bytes: u64) -> Result<(), Error> {
        self.execute("block_resize", json!({"node-name": node, "size": bytes}))
            .await
            .map(drop)
    }

    /// Adds a block node.
    pub async fn blockdev_add(&self, options: Value) -> Result<(), Error> {
        self.execute("blockdev-add", options).await.map(drop)
    }

    /// Removes a block node.
    pub async fn blockdev_del(&self, node: &str) -> Result<(), Error> {
        self.execute("blockdev-del", json!({"node-name": node}))
            .await
            .map(drop)
    }

    /// Plugs a device in.
    pub async fn device_add(&self, options: Value) -> Result<(), Error> {
        self.execute("device_add", options).await.map(drop)
    }

    /// Asks the guest to let go of a device; the event `DEVICE_DELETED` says when it has.
    pub async fn device_del(&self, id: &str) -> Result<(), Error> {
        self.execute("device_del", json!({"id": id})).await.map(drop)
    }

    /// Plugs or unplugs the cable of a network card.
    pub async fn set_link(&self, id: &str, up: bool) -> Result<(), Error> {
        self.execute("set_link", json!({"name": id, "up": up}))
            .await
            .map(drop)
    }
}
