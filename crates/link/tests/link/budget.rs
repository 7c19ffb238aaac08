//! What an idle host costs on the wire.

use std::{process::Command, time::Duration};

use link::message::{HostMessage, ServerMessage, Welcome};
use serde_json::json;

use super::lab::{Host, Lab};

/// IPv4 or IPv6 header and TCP header with time stamps, for each segment.
const HEADERS: u64 = 40 + 32;
/// The stated budget, both directions together.
const BUDGET: u64 = 2000;

/// Bytes and segments of a connection as the kernel counts them: acknowledgements too.
#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    bytes: u64,
    segments: u64,
}

fn wire(server_port: u16) -> Wire {
    // The accepted side only: the listener and the client's side have other ends.
    let filter = format!("sport = :{server_port}");
    let out = Command::new("ss")
        .args(["-t", "-i", "-n", "-H", "-O", "state", "established", &filter])
        .output()
        .expect("ss, of iproute2, reads the kernel's counters");
    let text = String::from_utf8(out.stdout).unwrap();
    let field = |name: &str| {
        let found = text.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    Wire {
        bytes: field("bytes_sent:") + field("bytes_received:"),
        segments: field("segs_out:") + field("segs_in:"),
    }
}

#[tokio::test]
async fn an_idle_host_costs_less_than_two_kilobytes_a_minute() {
    let lab = Lab::new().await;
    let mut options = lab.options("host-1");
    options.coalesce = Duration::from_secs(1);
    let book = options.status.clone();
    book.set("health", json!({"state": "healthy"}));
    let _host = Host::run(options);
    let (mut link, _) = lab.accept().await;
    let handle = link.handle();
    // Once a second instead of twice a minute; a beat costs the same.
    let welcome = Welcome {
        status_generation: 0,
        heartbeat: 1,
    };
    handle.send(&ServerMessage::Welcome(welcome)).unwrap();
    let (mut start, mut beats) = (None, 0);
    loop {
        match link.next().await.unwrap() {
            HostMessage::Status(status) => {
                let generation = status.generation;
                handle.send(&ServerMessage::Ack { generation }).unwrap();
            }
            // Counted from one beat's end to another's.
            HostMessage::Beat {} if start.is_none() => start = Some(wire(lab.address.port())),
            HostMessage::Beat {} => beats += 1,
            _ => {}
        }
        if beats == 6 {
            break;
        }
    }
    let (start, end) = (start.unwrap(), wire(lab.address.port()));
    let bytes = end.bytes - start.bytes;
    let segments = end.segments - start.segments;
    assert!(bytes > 0 && segments > 0, "the kernel's counters were not read");
    let beat = (bytes + segments * HEADERS) / beats;
    // Two beats, and of the five minutes' `usage` a fifth.
    let usage = json!({"t": "status", "generation": 123_456, "base": 123_455, "set": {"usage": {
        "time": "2026-01-02T03:04:05Z", "cpu": 0.123, "memory": 0.456, "disk": 0.789,
        "rxBytes": 123_456_789_012_u64, "txBytes": 123_456_789_012_u64}}});
    let usage = usage.to_string().len() as u64 + 40 + 60 + 4 * HEADERS;
    let minute = 2 * beat + usage / 5;
    println!(
        "a beat with its answer: {beat} bytes in {} segments; an idle minute: {minute} bytes",
        segments / beats
    );
    assert!(minute < BUDGET, "{minute} bytes a minute");
}
