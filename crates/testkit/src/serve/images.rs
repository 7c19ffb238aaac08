//! Files of one directory, with ranges and validators, as an ordinary web server gives them.

use std::io::SeekFrom;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{Body, text};

/// Answers one request for a file below `root`.
pub(super) async fn answer(root: &Path, request: Request<Incoming>) -> Result<Response<Body>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n"));
    }
    let Some(path) = below(root, request.uri().path()) else {
        return Ok(text(StatusCode::BAD_REQUEST, "no such path\n"));
    };
    let Ok(mut file) = tokio::fs::File::open(&path).await else {
        return Ok(text(StatusCode::NOT_FOUND, "no such file\n"));
    };
    let meta = file.metadata().await.context("cannot read the file's size")?;
    if !meta.is_file() {
        return Ok(text(StatusCode::NOT_FOUND, "not a file\n"));
    }
    let changed = meta
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let tag = format!(
        "\"{:x}-{:x}\"",
        meta.len(),
        changed.map_or(0, |time| time.as_nanos())
    );
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if header(IF_NONE_MATCH) == Some(&tag) {
        return Ok(Response::builder()
            .status(StatusCode::NOT_MODIFIED)
            .header(ETAG, tag)
            .body(empty())?);
    }

    // A range counts only while the file is the one that the client has the beginning of.
    let wanted = header(RANGE).filter(|_| header(IF_RANGE).is_none_or(|known| known == tag));
    let range = match wanted.map(|text| range(text, meta.len())) {
        None | Some(Range::NotUnderstood) => None,
        Some(Range::Bytes(first, last)) => Some((first, last)),
        Some(Range::Outside) => {
            let whole = format!("bytes */{}", meta.len());
            return Ok(Response::builder()
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(CONTENT_RANGE, whole)
                .body(empty())?);
        }
    };
    let (first, length) = range.map_or((0, meta.len()), |(first, last)| (first, last - first + 1));
    let mut response = Response::builder()
        .header(ACCEPT_RANGES, "bytes")
        .header(ETAG, tag)
        .header(CONTENT_LENGTH, length);
    if let Some((first, last)) = range {
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, format!("bytes {first}-{last}/{}", meta.len()));
    }
    if request.method() == Method::HEAD {
        return Ok(response.body(empty())?);
    }
    file.seek(SeekFrom::Start(first)).await.context("cannot seek")?;
    Ok(response.body(stream(file.take(length)))?)
}

fn empty() -> Body {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed()
}

/// A body that is read as it is sent.
pub(super) fn stream(source: impl tokio::io::AsyncRead + Send + Sync + 'static) -> Body {
    use futures::TryStreamExt;
    BodyExt::boxed(StreamBody::new(
        ReaderStream::with_capacity(source, 128 * 1024).map_ok(Frame::data),
    ))
}

/// The file that a URL's path names, if that is inside the directory.
pub(super) fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| root.join(relative))
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    NotUnderstood,
    Outside,
    Bytes(u64, u64),
}

/// One range of bytes (RFC 9110, 14.1.2); several at once are answered with the whole file, as is allowed.
fn range(header: &str, size: u64) -> Range {
    let Some((first, last)) = header
        .strip_prefix("bytes=")
        .filter(|set| !set.contains(','))
        .and_then(|set| set.split_once('-'))
    else {
        return Range::NotUnderstood;
    };
    match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), _) if first >= size => Range::Outside,
        (Some(first), Some(last)) if last >= first => Range::Bytes(first, last.min(size - 1)),
        (Some(first), None) if last.is_empty() => Range::Bytes(first, size - 1),
        (None, Some(tail)) if first.is_empty() && tail > 0 && size > 0 => {
            Range::Bytes(size.saturating_sub(tail), size - 1)
        }
        (None, Some(_)) if first.is_empty() => Range::Outside,
        _ => Range::NotUnderstood,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=0-0", 10), Range::Bytes(0, 0));
        assert_eq!(range("bytes=5-", 10), Range::Bytes(5, 9));
        assert_eq!(range("bytes=5-99", 10), Range::Bytes(5, 9));
        assert_eq!(range("bytes=-3", 10), Range::Bytes(7, 9));
        assert_eq!(range("bytes=10-", 10), Range::Outside);
        assert_eq!(range("bytes=-3", 0), Range::Outside);
        for odd in ["bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=a-b"] {
            assert_eq!(range(odd, 10), Range::NotUnderstood, "{odd}");
        }
    }

    #[test]
    fn a_path_stays_inside() {
        let root = Path::new("/images");
        assert_eq!(below(root, "/a/b.ova"), Some(PathBuf::from("/images/a/b.ova")));
        for bad in ["/../etc/passwd", "/a/../../x", "//etc/../x"] {
            assert_eq!(below(root, bad), None, "{bad}");
        }
    }
}
