//! One host's link from its first byte to its last.

use std::{collections::VecDeque, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use fleet::status::Outcome;
use identity::verify::Peer;
use link::{
    close::{BUSY, Close, FORBIDDEN},
    message::{HostMessage, ServerMessage, Welcome},
    server::{Handle, Options, Session, accept},
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::app::Shared;

/// Messages of one host that wait to be kept; with more, the link is closed for a while.
const WAITING: usize = 16;

/// Takes in a host and stays with it.
pub(crate) async fn run(app: Shared, stream: TlsStream<TcpStream>, from: SocketAddr) {
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| Peer::read(chain.first()?));
    let Some(peer) = peer else {
        return;
    };
    let heartbeat = app.config.link.heartbeat;
    let options = Options {
        // Four heartbeats without a word and the host is offline: then the link is no use either.
        silence: heartbeat * 4,
        ..Options::default()
    };
    // Apart, so that what it needs is given back when it is done: there are tens of thousands of these.
    let session = match Box::pin(accept(stream, options)).await {
        Ok(session) => session,
        Err(error) => {
            tracing::debug!(host = peer.host, error = %telemetry::chain(&error), "a host did not get in");
            return;
        }
    };
    if app.stop.is_cancelled() {
        let close = Close::new(BUSY, "this orchestrator process stops");
        session.close(close.retry_after(Duration::from_secs(1))).await;
        return;
    }
    match app
        .fleet
        .hosts()
        .by_certificate(&peer.tenant, &peer.host, &peer.serial)
        .await
    {
        Ok(fleet::hosts::Standing::Known { .. }) => {}
        Ok(_) => {
            tracing::info!(host = peer.host, "a host came that may not be here");
            session
                .close(Close::new(
                    FORBIDDEN,
                    "the host is not enrolled here, or was revoked",
                ))
                .await;
            return;
        }
        Err(error) => {
            tracing::warn!(error = %telemetry::chain(&error), "a host can't be looked up");
            let close = Close::new(BUSY, "the database can't be used now");
            session.close(close.retry_after(Duration::from_secs(5))).await;
            return;
        }
    }
    let tenant: Arc<str> = peer.tenant.as_str().into();
    let number = app
        .links
        .add(&peer.host, tenant, session.handle(), peer.not_after);
    app.counters.connected.inc();
    if let Err(error) = Box::pin(stay(&app, &peer, session, from)).await {
        tracing::warn!(host = peer.host, error = %telemetry::chain(&error), "a host's link ended for a fault of ours");
    }
    app.counters.connected.dec();
    // Whether the host is gone is for its missing heartbeats to say: most come back at once.
    app.links.remove(&peer.host, number);
}

/// Notes that the host is here, and tells it what we have of it and what it should be; whether it is still there.
async fn welcome(
    app: &Shared,
    peer: &Peer,
    session: &Session<TlsStream<TcpStream>>,
    from: SocketAddr,
) -> Result<bool, fleet::Error> {
    let (tenant, host) = (peer.tenant.as_str(), peer.host.as_str());
    let (handle, hello) = (session.handle(), session.hello());
    let from = from.ip().to_canonical().to_string();
    let connected = app.ingest.connected(tenant, host, hello, &from).await?;
    let heartbeat = u32::try_from(app.config.link.heartbeat.as_secs()).unwrap_or(30);
    let welcome = ServerMessage::Welcome(Welcome {
        status_generation: connected.status_generation,
        heartbeat,
    });
    if handle.send(&welcome).is_err() {
        return Ok(false);
    }
    super::tell::said(app, tenant, host, &handle, hello.assignment_generation, None).await?;
    Ok(true)
}

async fn stay(
    app: &Shared,
    peer: &Peer,
    mut session: Session<TlsStream<TcpStream>>,
    from: SocketAddr,
) -> Result<(), fleet::Error> {
    let (tenant, host) = (peer.tenant.as_str(), peer.host.as_str());
    let handle = session.handle();
    // Apart, as above.
    if !Box::pin(welcome(app, peer, &session, from)).await? {
        return Ok(());
    }
    // What takes long is done beside the link's own work, one thing after the other.
    let mut waiting: VecDeque<HostMessage> = VecDeque::new();
    let mut working: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    loop {
        if working.is_none()
            && let Some(message) = waiting.pop_front()
        {
            working = Some(Box::pin(work(
                app.clone(),
                tenant.to_owned(),
                host.to_owned(),
                handle.clone(),
                message,
            )));
        }
        let next = tokio::select! {
            next = session.next() => next,
            () = async {
                match &mut working {
                    Some(work) => work.await,
                    None => std::future::pending().await,
                }
            } => {
                working = None;
                continue;
            }
        };
        match next {
            // Ended links are the network's daily life: only the log of details has them.
            Err(ended) => {
                tracing::debug!(host, error = %telemetry::chain(&ended), "a link ended");
                return Ok(());
            }
            Ok(HostMessage::Beat {}) => app.ingest.beat(tenant, host),
            Ok(message) if waiting.len() < WAITING => waiting.push_back(message),
            Ok(_) => {
                handle.close(
                    Close::new(BUSY, "more is reported than can be kept now")
                        .retry_after(Duration::from_secs(10)),
                );
            }
        }
    }
}

/// Keeps what a host said, and answers.
async fn work(app: Shared, tenant: String, host: String, handle: Handle, message: HostMessage) {
    let done = match message {
        HostMessage::Status(status) => match app.ingest.status(&tenant, &host, status).await {
            Ok(Outcome::Ack(generation)) => {
                let _ = handle.send(&ServerMessage::Ack { generation });
                Ok(())
            }
            Ok(Outcome::Resync) => {
                let _ = handle.send(&ServerMessage::Resync {});
                Ok(())
            }
            Err(error) => Err(error),
        },
        HostMessage::Events { items } => app.ingest.events(&tenant, &host, items).await,
        HostMessage::Assigned { generation, error } => {
            super::tell::said(&app, &tenant, &host, &handle, generation, error.as_deref()).await
        }
        HostMessage::Clock { time } => app.ingest.clock(&tenant, &host, &time).await,
        HostMessage::Hello(_) | HostMessage::Beat {} | HostMessage::Unknown => Ok(()),
    };
    if let Err(error) = done {
        // Not kept: the host sends everything again when it comes back.
        tracing::warn!(host, error = %telemetry::chain(&error), "what a host reported could not be kept");
        handle.close(Close::new(BUSY, "the database can't be used now").retry_after(Duration::from_secs(5)));
    }
}
