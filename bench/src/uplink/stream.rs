//! A stream of numbered packets from one end to another: when each was sent, and when it arrived.
//!
//! A busy machine must not look like a bad switch. So the sender's thread has a real-time priority, and notes when it
//! really sent each packet; the moment of an arrival is the kernel's, whenever the receiver gets to read it.

use std::{
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::socket::{
        ControlMessageOwned, MsgFlags, recvmsg, setsockopt,
        sockopt::{RcvBufForce, ReceiveTimestampns},
    },
    time::{ClockId, ClockNanosleepFlags, clock_nanosleep},
    unistd::gettid,
};
use testkit::tool::tool;

/// The time between two packets.
pub(super) const SPACING: Duration = Duration::from_millis(1);
/// A packet that is not there so long after the last one was sent is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a receiver can be behind without losing anything.
const BUFFER: usize = 8 << 20;
/// Above the switches, so that packets are sent on time.
const PRIORITY: &str = "50";

/// A packet, in the order of sending. Times are since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) sent: Duration,
    /// `None` if it was lost.
    pub(super) arrived: Option<Duration>,
}

/// The clock of [`Packet`]s.
pub(super) fn now() -> Result<Duration> {
    Ok(ClockId::CLOCK_REALTIME.now()?.into())
}

/// A socket inside a network namespace: it stays there, whoever uses it.
pub(super) fn socket(namespace: &Path, address: &str) -> Result<UdpSocket> {
    let namespace =
        std::fs::File::open(namespace).with_context(|| format!("there is no {}", namespace.display()))?;
    let address: SocketAddr = address.parse()?;
    // A thread's namespace is its own, and this one ends here.
    let made = thread::spawn(move || -> Result<UdpSocket> {
        setns(&namespace, CloneFlags::CLONE_NEWNET).context("can't enter a network namespace")?;
        let socket = UdpSocket::bind(address).with_context(|| format!("can't use the address {address}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(SPACING))?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        Ok(socket)
    });
    joined(made)
}

/// Gives a thread a real-time priority; with `--all-tasks` the whole process.
pub(super) fn hurry(which: &[&str], id: i32, priority: &str) -> Result<()> {
    let id = id.to_string();
    let arguments = which.iter().copied().chain(["--fifo", "--pid", priority, &id]);
    tool("chrt", arguments).map(drop)
}

/// A stream that is being sent.
pub(super) struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<Vec<Duration>>>,
    receiver: JoinHandle<Result<Vec<(usize, Duration)>>>,
}

impl Stream {
    /// Starts to send.
    pub(super) fn start(from: &UdpSocket, to: &UdpSocket) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let target = to.local_addr()?;
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let sender = thread::spawn({
            let stop = stop.clone();
            move || send(&from, target, &stop)
        });
        let receiver = thread::spawn({
            let stop = stop.clone();
            move || receive(&to, &stop)
        });
        Ok(Self {
            stop,
            sender,
            receiver,
        })
    }

    /// Ends it; its packets.
    pub(super) fn stop(self) -> Result<Vec<Packet>> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = joined(self.sender)?;
        let mut packets: Vec<Packet> = sent
            .into_iter()
            .map(|sent| Packet { sent, arrived: None })
            .collect();
        for (number, arrived) in joined(self.receiver)? {
            if let Some(packet) = packets.get_mut(number) {
                packet.arrived.get_or_insert(arrived);
            }
        }
        Ok(packets)
    }
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread of the measurement panicked"),
    }
}

fn send(from: &UdpSocket, target: SocketAddr, stop: &AtomicBool) -> Result<Vec<Duration>> {
    hurry(&[], gettid().as_raw(), PRIORITY)?;
    let mut sent = Vec::new();
    let mut next: Duration = ClockId::CLOCK_MONOTONIC.now()?.into();
    while !stop.load(Ordering::Relaxed) {
        let number = u64::try_from(sent.len())?.to_be_bytes();
        sent.push(now()?);
        // One that can't be sent is one that does not arrive.
        let _ = from.send_to(&number, target);
        // A tick that was missed is left out: what was not sent can't be lost.
        let after: Duration = ClockId::CLOCK_MONOTONIC.now()?.into();
        next = (next + SPACING).max(after);
        clock_nanosleep(
            ClockId::CLOCK_MONOTONIC,
            ClockNanosleepFlags::TIMER_ABSTIME,
            &next.into(),
        )?;
    }
    Ok(sent)
}

/// The numbers of the packets that came, and when, until the stream has stopped and no more come.
fn receive(to: &UdpSocket, stop: &AtomicBool) -> Result<Vec<(usize, Duration)>> {
    let mut came = Vec::new();
    let mut number = [0; 8];
    let mut space = nix::cmsg_space!(nix::sys::time::TimeSpec);
    loop {
        let mut parts = [IoSliceMut::new(&mut number)];
        let when = match recvmsg::<()>(to.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()) {
            Ok(message) => message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(when) => Some(Duration::from(when)),
                _ => None,
            }),
            Err(Errno::EAGAIN) if stop.load(Ordering::Relaxed) => return Ok(came),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("packets can't be received"),
        };
        let when = when.context("the kernel does not tell when a packet arrived")?;
        came.push((usize::try_from(u64::from_be_bytes(number))?, when));
    }
}
