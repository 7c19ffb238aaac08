//! Git over smart HTTP: `git http-backend` behind the few lines of CGI (RFC 3875) that it needs.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{Body, images, text};

/// Headers of a CGI answer are short; more than this is not one.
const HEADER_LIMIT: usize = 64;

/// The server's configuration.
#[derive(Clone, Debug)]
pub(super) struct Git {
    /// The directory of bare repositories.
    pub(super) root: PathBuf,
    /// Who is told about a push.
    pub(super) hooks: Vec<String>,
}

/// Answers one request.
pub(super) async fn answer(config: &Git, request: Request<Incoming>) -> Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    if images::below(&config.root, &path).is_none() {
        return Ok(text(StatusCode::BAD_REQUEST, "no such path\n"));
    }
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let pushed = path.ends_with("/git-receive-pack") && request.method() == hyper::Method::POST;
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &config.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // The lab's owner may not be the one whom Git takes for the repository's owner.
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env(
            "GIT_PROTOCOL",
            header(hyper::header::HeaderName::from_static("git-protocol")),
        )
        .env("PATH_INFO", &path)
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("REQUEST_METHOD", request.method().as_str())
        .env("CONTENT_TYPE", header(CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", header(CONTENT_ENCODING))
        .env("REMOTE_USER", "lab")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run git http-backend")?;
    let mut stdin = backend.stdin.take().context("git http-backend has no input")?;
    let mut output = BufReader::new(backend.stdout.take().context("git http-backend has no output")?);

    let mut body = request.into_body();
    let feed = tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let Ok(Ok(data)) = frame.map(hyper::body::Frame::into_data) else {
                break;
            };
            if stdin.write_all(&data).await.is_err() {
                break;
            }
        }
    });
    let response = cgi_head(&mut output).await?;
    if !pushed {
        // The program ends by itself when its output is read or the reader is gone.
        tokio::spawn(async move { backend.wait().await });
        return Ok(response.body(images::stream(output))?);
    }
    // A push is small news: wait until it is in the repository, then tell those who wait for it.
    let mut rest = Vec::new();
    output
        .read_to_end(&mut rest)
        .await
        .context("git http-backend broke off")?;
    feed.await.context("the request broke off")?;
    let status = backend.wait().await.context("git http-backend was lost")?;
    if status.success() {
        for hook in config.hooks.clone() {
            tokio::spawn(async move {
                if let Err(error) = notify(&hook).await {
                    eprintln!("hook {hook}: {error:#}");
                }
            });
        }
    }
    Ok(response.body(images::stream(std::io::Cursor::new(rest)))?)
}

/// The header lines of a CGI answer.
async fn cgi_head(output: &mut (impl AsyncBufRead + Unpin)) -> Result<hyper::http::response::Builder> {
    let mut response = Response::builder();
    for _ in 0..HEADER_LIMIT {
        let mut line = String::new();
        let length = output
            .read_line(&mut line)
            .await
            .context("no header from git http-backend")?;
        anyhow::ensure!(length > 0, "git http-backend said nothing");
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(response);
        }
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("not a header: {line:?}"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            response = response.status(value.split(' ').next().unwrap_or("500"));
        } else {
            response = response.header(name, value);
        }
    }
    anyhow::bail!("git http-backend gives more than {HEADER_LIMIT} headers")
}

/// Posts to a hook, as a Git server does after a push.
async fn notify(url: &str) -> Result<()> {
    let rest = url.strip_prefix("http://").context("only http:// hooks")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let exchange = async {
        let mut stream = TcpStream::connect(authority).await.context("cannot connect")?;
        stream
            .write_all(request.as_bytes())
            .await
            .context("cannot send")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.context("no answer")?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        anyhow::ensure!(answer.starts_with("HTTP/1.1 2"), "answered {answer}");
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(5), exchange)
        .await
        .context("no answer in 5 s")?
}
