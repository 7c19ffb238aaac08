//! A connection to the guest agent. Everything it says comes from the guest and is not trusted: lines,
//! lists and texts are bounded, and no answer is waited for without a limit.

use std::{net::IpAddr, path::Path, time::Duration};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixStream, time::timeout};
use tokio_util::codec::Framed;

use crate::{
    client::Error,
    codec::JsonLines,
    message::{Message, Refusal},
};

/// Greatest line taken from a guest.
const MAX_LINE: usize = 256 * 1024;
/// Greatest number of network cards taken from a guest, and of addresses on each.
const MAX_LIST: usize = 64;
/// Lines skipped while looking for the answer to a synchronisation.
const MAX_STALE: usize = 256;

/// A connection to the guest agent. One request at a time.
#[derive(Debug)]
pub struct Agent {
    lines: Framed<UnixStream, JsonLines>,
    reply: Duration,
    next_sync: i64,
    /// Set while an answer is outstanding; if a request was given up, the next one synchronises first.
    in_doubt: bool,
}

/// A network card as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestInterface {
    /// Name in the guest.
    pub name: String,
    /// Lower case with colons; empty if the guest did not say.
    pub mac: String,
    /// Addresses and prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Agent {
    /// Connects to the socket and makes sure that an agent answers. `reply` bounds each answer.
    pub async fn connect(path: &Path, reply: Duration) -> Result<Self, Error> {
        let connect = |source| Error::Connect {
            path: path.into(),
            source,
        };
        let stream = UnixStream::connect(path).await.map_err(connect)?;
        let lines = Framed::new(stream, JsonLines::new(MAX_LINE));
        let mut agent = Self {
            lines,
            reply,
            next_sync: 1,
            in_doubt: true,
        };
        agent.sync().await?;
        Ok(agent)
    }

    /// Gets into step with the agent, whatever was on the wire before.
    async fn sync(&mut self) -> Result<(), Error> {
        const COMMAND: &str = "guest-sync-delimited";
        let number = self.next_sync;
        self.next_sync += 1;
        let exchange = async {
            // The leading 0xFF makes the agent forget a request that was cut short.
            self.lines
                .get_mut()
                .write_all(&[0xff])
                .await
                .map_err(crate::codec::Error::Io)?;
            self.lines
                .send(json!({"execute": COMMAND, "arguments": {"id": number}}))
                .await?;
            for _ in 0..MAX_STALE {
                match self.lines.next().await.ok_or(Error::Closed)?? {
                    Ok(line) if line["return"] == number => return Ok(()),
                    // What is left of an earlier answer.
                    Ok(_) | Err(_) => {}
                }
            }
            Err(Error::Shape {
                command: COMMAND,
                field: "id",
            })
        };
        match timeout(self.reply, exchange).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(Error::Timeout {
                    command: COMMAND.into(),
                    seconds: self.reply.as_secs(),
                });
            }
        }
        self.in_doubt = false;
        Ok(())
    }

    /// Executes a command that answers.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        if self.in_doubt {
            self.sync().await?;
        }
        self.in_doubt = true;
        let reply = self.reply;
        let exchange = async {
            self.send(command, arguments).await?;
            let line = self.lines.next().await.ok_or(Error::Closed)???;
            match Message::of(line) {
                Message::Reply { result, .. } => Ok(result),
                _ => Err(Error::Shape {
                    command: "a guest agent command",
                    field: "return",
                }),
            }
        };
        let late = |_| Error::Timeout {
            command: command.into(),
            seconds: reply.as_secs(),
        };
        let result = timeout(reply, exchange).await.map_err(late)??;
        self.in_doubt = false;
        result.map_err(|Refusal { class, description }| Error::Refused {
            command: command.into(),
            class,
            description,
        })
    }

    async fn send(&mut self, command: &str, arguments: Value) -> Result<(), Error> {
        let mut request = json!({"execute": command});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        Ok(self.lines.send(request).await?)
    }

    /// Whether the agent lives.
    pub async fn ping(&mut self) -> Result<(), Error> {
        self.execute("guest-ping", Value::Null).await.map(drop)
    }

    /// The guest's host name.
    pub async fn host_name(&mut self) -> Result<String, Error> {
        let answer = self.execute("guest-get-host-name", Value::Null).await?;
        let name = answer["host-name"].as_str();
        name.map(|n| n.chars().take(255).collect()).ok_or(Error::Shape {
            command: "guest-get-host-name",
            field: "host-name",
        })
    }

    /// The guest's network cards.
    pub async fn network_interfaces(&mut self) -> Result<Vec<GuestInterface>, Error> {
        let answer = self.execute("guest-network-get-interfaces", Value::Null).await?;
        Ok(interfaces(&answer))
    }

    /// Asks the guest to switch off. The agent does not answer when it does.
    pub async fn shutdown(&mut self) -> Result<(), Error> {
        self.in_doubt = true;
        self.send("guest-shutdown", json!({"mode": "powerdown"})).await
    }
}

/// Reads the answer of `guest-network-get-interfaces`; what is odd is left out.
#[must_use]
pub fn interfaces(answer: &Value) -> Vec<GuestInterface> {
    let list = answer.as_array().into_iter().flatten().take(MAX_LIST);
    list.map(|card| {
        let text = |key: &str| {
            card[key]
                .as_str()
                .unwrap_or_default()
                .chars()
                .take(64)
                .collect::<String>()
        };
        let addresses = card["ip-addresses"]
            .as_array()
            .into_iter()
            .flatten()
            .take(MAX_LIST);
        let addresses = addresses.filter_map(|address| {
            let ip: IpAddr = address["ip-address"].as_str()?.parse().ok()?;
            let longest = if ip.is_ipv4() { 32 } else { 128 };
            let prefix = u8::try_from(address["prefix"].as_u64()?)
                .ok()
                .filter(|p| *p <= longest)?;
            Some((ip, prefix))
        });
        GuestInterface {
            name: text("name"),
            mac: text("hardware-address").to_ascii_lowercase(),
            addresses: addresses.collect(),
        }
    })
    .collect()
}
