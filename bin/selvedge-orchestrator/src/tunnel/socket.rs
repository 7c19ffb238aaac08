//! A browser's WebSocket on one side, a stream of a link on the other: consoles.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::interval,
};

/// Keeps proxies from closing a silent console.
const PING: Duration = Duration::from_secs(25);

/// Copies bytes both ways until one side ends. Each binary message is bytes; text is taken as its bytes.
pub(crate) async fn run<S>(socket: WebSocket, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let from_host = async {
        let mut ping = interval(PING);
        ping.reset();
        let mut chunk = vec![0; 16 << 10];
        loop {
            tokio::select! {
                read = reader.read(&mut chunk) => match read {
                    Ok(n @ 1..) => {
                        if sink.send(Message::Binary(Bytes::copy_from_slice(&chunk[..n]))).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {
                        let _ = sink.send(Message::Close(None)).await;
                        return;
                    }
                    Err(error) => {
                        let reason: String = error.to_string().chars().take(100).collect();
                        let frame = axum::extract::ws::CloseFrame { code: 1011, reason: reason.into() };
                        let _ = sink.send(Message::Close(Some(frame))).await;
                        return;
                    }
                },
                _ = ping.tick() => {
                    if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let from_browser = async {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    tokio::select! {
        () = from_host => {}
        () = from_browser => {}
    }
}
