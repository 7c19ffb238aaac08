//! The lab's servers: Git repositories over smart HTTP, and images over HTTP with ranges.

mod git;
mod images;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Serve {
    /// The directory of bare repositories.
    pub git: PathBuf,
    /// Where they are served.
    pub git_listen: SocketAddr,
    /// `http://host:port/path` of each listener that is told about a push.
    pub hooks: Vec<String>,
    /// The directory of images.
    pub images: PathBuf,
    /// Where they are served.
    pub images_listen: SocketAddr,
}

/// A response's body: a file or a program's output, as it comes.
type Body = BoxBody<Bytes, std::io::Error>;

/// Serves until the process ends.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn serve(what: Serve) -> Result<()> {
    let git = listen(what.git_listen).await?;
    let images = listen(what.images_listen).await?;
    let git_config = git::Git {
        root: what.git,
        hooks: what.hooks,
    };
    let image_root = what.images;
    tokio::join!(
        accept(git, move |request| {
            let config = git_config.clone();
            async move { git::answer(&config, request).await }
        }),
        accept(images, move |request| {
            let root = image_root.clone();
            async move { images::answer(&root, request).await }
        }),
    );
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

async fn accept<F, R>(listener: TcpListener, handler: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<Body>>> + Send + 'static,
{
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            continue;
        };
        let handler = handler.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let handler = handler.clone();
                let what = format!("{peer} {} {}", request.method(), request.uri());
                async move {
                    let response = handler(request).await.unwrap_or_else(|error| {
                        eprintln!("{what}: {error:#}");
                        text(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "the server failed; see its log\n",
                        )
                    });
                    eprintln!("{what} {}", response.status());
                    Ok::<_, Infallible>(response)
                }
            });
            // A client that goes away is its own affair.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn text(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = Response::new(
        Full::new(Bytes::from_static(message.as_bytes()))
            .map_err(|never| match never {})
            .boxed(),
    );
    *response.status_mut() = status;
    response
}
