//! Smart HTTP over `git http-backend`: the few lines of CGI (RFC 3875) that it needs, and bounds on everything.
//!
//! The output is pumped by a task of its own: a client that goes away during a push does not stop it half-way, and
//! whoever waits for the push (the rollouts, the hosts) hears of it in any case.

use std::{io, path::Path, process::Stdio, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use bytes::Bytes;
use flate2::write::GzDecoder;
use futures::StreamExt;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    process::ChildStdout,
    sync::mpsc,
    time::timeout,
};

use super::{Git, GitError, Group, Store};

/// Headers of a CGI answer are short; more than this is not one.
const HEADER_LIMIT: usize = 64;
/// A client that sends nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// A client that takes nothing of an answer for this long holds a place that others wait for.
const STALLED: Duration = Duration::from_secs(300);
/// The largest thing that git may want memory for at once: bombs are larger, and larger files are streamed.
const ALLOCATION: &str = "512m";
/// So much of a packed request is unpacked at a time: it may become a thousand times as much.
const PACKED: usize = 4 << 10;
/// No clone and no push takes longer.
const WHOLE: Duration = Duration::from_secs(3600);

/// What is asked of a hosted repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// `GET info/refs?service=…`
    Refs,
    /// `POST git-upload-pack`
    Fetch,
    /// `POST git-receive-pack`
    Push,
}

/// What a path below `REPO.git/` asks for, and whether it leads to a write. The old "dumb" protocol is not served.
pub(crate) fn ask(method: &Method, rest: &str, query: &str) -> Option<(Ask, bool)> {
    match (method, rest, query) {
        (&Method::GET, "info/refs", "service=git-upload-pack") => Some((Ask::Refs, false)),
        (&Method::GET, "info/refs", "service=git-receive-pack") => Some((Ask::Refs, true)),
        (&Method::POST, "git-upload-pack", _) => Some((Ask::Fetch, false)),
        (&Method::POST, "git-receive-pack", _) => Some((Ask::Push, true)),
        _ => None,
    }
}

/// One request to a hosted repository, already allowed.
pub(crate) struct Request<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) ask: Ask,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) user: &'a str,
    pub(crate) body: Body,
}

/// Answers, and calls `pushed` when a push is in the repository.
pub(crate) async fn serve(
    store: &Store,
    request: Request<'_>,
    pushed: impl FnOnce() + Send + 'static,
) -> Result<Response<Body>, GitError> {
    let permit = store.permit().await?;
    let mut git = Git::new();
    for (key, value) in [
        ("http.receivepack", "true"),
        ("http.uploadpack", "true"),
        ("receive.fsckObjects", "true"),
        ("receive.autogc", "false"),
        ("receive.denyDeleteCurrent", "true"),
        ("receive.unpackLimit", "100"),
        ("uploadpack.allowFilter", "true"),
        // A host that is pinned to a commit asks for it by its hash.
        ("uploadpack.allowReachableSHA1InWant", "true"),
        ("core.fsync", "committed"),
        // Branches and tags are what there is to push; all else would lie here unseen.
        ("receive.hideRefs", "refs"),
        ("receive.hideRefs", "!refs/heads"),
        ("receive.hideRefs", "!refs/tags"),
    ] {
        git.config(key, value);
    }
    git.config("receive.maxInputSize", store.push_limit.to_string());
    let text = |name: header::HeaderName| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let rest = match request.ask {
        Ask::Refs => "info/refs",
        Ask::Fetch => "git-upload-pack",
        Ask::Push => "git-receive-pack",
    };
    let folder = store.hosted(request.tenant, request.repository);
    let relative = folder
        .strip_prefix(store.hosted_root())
        .unwrap_or(Path::new("none"));
    let mut command = git.command();
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", store.hosted_root())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env(
            "GIT_PROTOCOL",
            text(header::HeaderName::from_static("git-protocol")),
        )
        .env("PATH_INFO", format!("/{}/{rest}", relative.display()))
        .env("QUERY_STRING", request.query)
        .env(
            "REQUEST_METHOD",
            if request.ask == Ask::Refs { "GET" } else { "POST" },
        )
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("GIT_ALLOC_LIMIT", ALLOCATION)
        .env("REMOTE_USER", request.user)
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|error| GitError(format!("can't run git: {error}; install it")))?;
    let group = Group::of(&child);
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(GitError("git was started without pipes".into()));
    };
    let push = request.ask == Ask::Push;
    let limit = if push { store.push_limit } else { 32 << 20 };
    // Unpacked here and not by git, so that what it becomes is bounded too.
    let packed = matches!(text(header::CONTENT_ENCODING).as_str(), "gzip" | "x-gzip");
    let feed = tokio::spawn(feed(request.body, packed, stdin, limit));
    let mut output = BufReader::new(stdout);
    let head = timeout(WHOLE, head(&mut output)).await;
    let response = match head {
        Ok(Ok(response)) => response,
        failed => {
            let fed = feed.await.unwrap_or(Err(TooMuch::Broken));
            drop(group);
            if matches!(fed, Err(TooMuch::TooLarge)) {
                return Ok(too_large(limit));
            }
            return match failed {
                Ok(Err(error)) => Err(GitError(format!("git http-backend gave no answer: {error}"))),
                _ => Err(GitError("git http-backend took too long".into())),
            };
        }
    };
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    tokio::spawn(async move {
        let _permit = permit;
        let pump = pump(output, sender, push);
        let whole = timeout(WHOLE, pump).await;
        let fed = feed.await;
        if !matches!(whole, Ok(true)) || !matches!(fed, Ok(Ok(()))) {
            drop(group);
            let _ = child.wait().await;
            return;
        }
        let status = child.wait().await;
        group.over();
        if push && status.is_ok_and(|status| status.success()) {
            pushed();
        }
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    });
    response
        .body(Body::from_stream(stream.boxed()))
        .map_err(|error| GitError(format!("git http-backend gave a bad header: {error}")))
}

fn too_large(limit: u64) -> Response<Body> {
    let mut response = Response::new(Body::from(format!(
        "the push is larger than {} MiB; the orchestrator's git.push_mib is the limit\n",
        limit >> 20
    )));
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    response
}

enum TooMuch {
    TooLarge,
    Broken,
}

/// The request's body into the program.
async fn feed(
    mut body: Body,
    packed: bool,
    mut stdin: impl AsyncWrite + Unpin,
    limit: u64,
) -> Result<(), TooMuch> {
    let mut sum = 0_u64;
    let mut unpack = packed.then(|| GzDecoder::new(Vec::new()));
    loop {
        let Ok(frame) = timeout(SILENCE, body.frame()).await else {
            return Err(TooMuch::Broken);
        };
        let data = match frame {
            None => break,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => continue,
            },
            Some(Err(_)) => return Err(TooMuch::Broken),
        };
        let step = if packed { PACKED } else { data.len().max(1) };
        for some in data.chunks(step) {
            let some = match &mut unpack {
                Some(unpack) => {
                    io::Write::write_all(unpack, some).map_err(|_| TooMuch::Broken)?;
                    std::mem::take(unpack.get_mut())
                }
                None => some.to_vec(),
            };
            sum = sum.saturating_add(some.len() as u64);
            if sum > limit {
                return Err(TooMuch::TooLarge);
            }
            if stdin.write_all(&some).await.is_err() {
                // The program has heard enough: its answer says why.
                return Ok(());
            }
        }
    }
    if let Some(mut unpack) = unpack {
        unpack.try_finish().map_err(|_| TooMuch::Broken)?;
        if stdin.write_all(unpack.get_ref()).await.is_err() {
            return Ok(());
        }
    }
    let _ = stdin.shutdown().await;
    Ok(())
}

/// The program's output to the client; whether the program's end was reached.
async fn pump(
    mut output: BufReader<ChildStdout>,
    sender: mpsc::Sender<io::Result<Bytes>>,
    to_end: bool,
) -> bool {
    let mut open = true;
    let mut chunk = vec![0; 32 << 10];
    loop {
        match output.read(&mut chunk).await {
            Ok(0) => return true,
            Ok(n) if open => {
                let data = Bytes::copy_from_slice(&chunk[..n]);
                open = matches!(timeout(STALLED, sender.send(Ok(data))).await, Ok(Ok(())));
                if !open && !to_end {
                    return false;
                }
            }
            Ok(_) => {}
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return false;
            }
        }
    }
}

/// The header lines of a CGI answer.
async fn head(output: &mut BufReader<ChildStdout>) -> io::Result<axum::http::response::Builder> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut response = Response::builder();
    for _ in 0..HEADER_LIMIT {
        let mut line = String::new();
        let length = (&mut *output).take(8 << 10).read_line(&mut line).await?;
        if length == 0 {
            return Err(bad("nothing was said"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(response);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("not a header"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            response = response.status(value.split(' ').next().unwrap_or("500"));
        } else {
            response = response.header(name, value);
        }
    }
    Err(bad("too many headers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_smart_protocol_is_asked() {
        let get = |rest, query| ask(&Method::GET, rest, query);
        assert_eq!(
            get("info/refs", "service=git-upload-pack"),
            Some((Ask::Refs, false))
        );
        assert_eq!(
            get("info/refs", "service=git-receive-pack"),
            Some((Ask::Refs, true))
        );
        for (rest, query) in [
            ("info/refs", ""),
            ("HEAD", ""),
            ("objects/info/packs", ""),
            ("../other.git/info/refs", "service=git-upload-pack"),
            ("info/refs", "service=git-upload-archive"),
        ] {
            assert_eq!(get(rest, query), None, "{rest}");
        }
        assert_eq!(
            ask(&Method::POST, "git-receive-pack", ""),
            Some((Ask::Push, true))
        );
        assert_eq!(ask(&Method::PUT, "git-receive-pack", ""), None);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::Write::write_all(&mut packed, bytes).unwrap();
        packed.finish().unwrap()
    }

    #[tokio::test]
    async fn what_a_packed_request_becomes_is_bounded() {
        let wants = b"0032want 0123\n".repeat(2000);
        let mut heard = Vec::new();
        let fed = feed(Body::from(gzip(&wants)), true, &mut heard, 1 << 20).await;
        assert!(fed.is_ok());
        assert_eq!(heard, wants);

        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        let mut heard = Vec::new();
        let fed = feed(Body::from(bomb), true, &mut heard, 1 << 20).await;
        assert!(matches!(fed, Err(TooMuch::TooLarge)));
        assert!(heard.len() <= 1 << 20);

        let mut heard = Vec::new();
        let fed = feed(Body::from("not packed"), true, &mut heard, 1 << 20).await;
        assert!(matches!(fed, Err(TooMuch::Broken)));
    }
}
