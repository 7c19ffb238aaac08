//! Reaching a host, wherever it is connected.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::StatusCode;
use link::{
    message::{Open, ServerMessage, Signal},
    stream::Stream,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peer;
use crate::{app::Shared, http::problem::Problem};

/// A stream to a host: of a link here, or through another process.
pub(crate) enum Reached {
    /// Of a link here.
    Here(Stream),
    /// Through another process.
    There(Box<peer::Hop>),
}

/// Opens a stream on a host.
pub(crate) async fn open(app: &Shared, tenant: &str, host: &str, what: &Open) -> Result<Reached, Problem> {
    if let Some(handle) = app.links.get(host) {
        return handle.open(what).map(Reached::Here).map_err(|error| {
            Problem::busy(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the host can't take another stream: {error}"),
                2,
            )
        });
    }
    let Some(node) = elsewhere(app, tenant, host).await? else {
        return Err(Problem::busy(
            StatusCode::SERVICE_UNAVAILABLE,
            "the host is not connected",
            10,
        ));
    };
    peer::open(app, &node, host, what)
        .await
        .map(|hop| Reached::There(Box::new(hop)))
        .map_err(|error| {
            tracing::warn!(node, error = %format!("{error:#}"), "another process can't be reached");
            Problem::busy(
                StatusCode::BAD_GATEWAY,
                "the orchestrator process that the host is connected to can't be reached",
                2,
            )
        })
}

/// Sends a signal to a host; whether it was sent.
pub(crate) async fn signal(app: &Shared, tenant: &str, host: &str, what: Signal) -> bool {
    if let Some(handle) = app.links.get(host) {
        return handle.send(&ServerMessage::Signal { what }).is_ok();
    }
    match elsewhere(app, tenant, host).await {
        Ok(Some(node)) => peer::signal(app, &node, host, what).await.is_ok(),
        _ => false,
    }
}

/// The address of the other process that has the host's link.
async fn elsewhere(app: &Shared, tenant: &str, host: &str) -> Result<Option<String>, Problem> {
    // SQLite has one process: there is no elsewhere.
    if !app.fleet.db().shared() {
        return Ok(None);
    }
    let node = app.fleet.nodes().of_host(tenant, host).await?;
    Ok(node
        .filter(|(id, url)| *id != app.node && !url.is_empty())
        .map(|(_, url)| url))
}

impl AsyncRead for Reached {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Here(stream) => Pin::new(stream).poll_read(cx, out),
            Self::There(hop) => Pin::new(hop).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Reached {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Here(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::There(hop) => Pin::new(hop).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Here(stream) => Pin::new(stream).poll_flush(cx),
            Self::There(hop) => Pin::new(hop).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Here(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::There(hop) => Pin::new(hop).poll_shutdown(cx),
        }
    }
}
