//! Downloads that go on where they were cut.
//!
//! What has come is kept in `<key>.part`, what it is in `<key>.json`. The next attempt, in this process or the next, asks
//! for the rest with `Range` and `If-Range`; a server whose file is another one by now, or that knows no ranges, sends all
//! of it, and the download begins anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use crate::import::blocking;
use crate::progress::{Phase, Progress, Report};
use crate::reference::without_password;
use crate::{Error, Limits, files};

/// How to speak to servers.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Certificates (PEM) that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for the next byte.
    pub idle_timeout: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// By what a server tells one content of a URL from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Validator {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
}

impl Validator {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Self {
            etag: text(ETAG),
            last_modified: text(LAST_MODIFIED),
        }
    }

    /// What `If-Range` may hold: a weak tag says nothing about bytes.
    fn for_range(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
        strong.or(self.last_modified.as_deref())
    }
}

/// A finished download.
pub(crate) struct Fetched {
    pub(crate) path: PathBuf,
    pub(crate) url: String,
    pub(crate) validator: Validator,
}

/// Why one address did not give the image.
pub(crate) enum Miss {
    /// It answered that there is none.
    NotFound,
    /// It did not answer, or not with the image.
    Failed(String),
    /// No other address can help.
    Fatal(Error),
}

/// How often a download that comes on is taken up again.
const MAX_CUTS: u32 = 100;
const MAX_REDIRECTS: usize = 10;
/// Written at once.
const BUFFER: usize = 1 << 20;

/// What `<key>.part` is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Partial {
    url: String,
    validator: Validator,
}

/// One download.
pub(crate) struct Download<'a> {
    pub(crate) client: &'a Client,
    pub(crate) image: &'a str,
    /// Without extension.
    pub(crate) base: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) report: Report<'a>,
}

enum Attempt {
    Done(Validator),
    /// The connection was cut; this much is there.
    Cut {
        have: u64,
        reason: String,
    },
    /// What is there does not fit any more.
    Restart,
}

/// A client for images.
pub(crate) fn client(options: &HttpOptions) -> Result<Client, String> {
    let mut builder = Client::builder()
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.idle_timeout)
        .user_agent(concat!("selvedge/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::custom(|attempt| {
            let was_secure = attempt
                .previous()
                .last()
                .is_some_and(|url| url.scheme() == "https");
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("too many redirects")
            } else if was_secure && attempt.url().scheme() == "http" {
                attempt.error("redirected from https to http")
            } else {
                attempt.follow()
            }
        }));
    if let Some(file) = &options.ca_file {
        let failed =
            |error: &dyn std::fmt::Display| format!("the CA file {} cannot be used: {error}", file.display());
        let pem = fs::read(file).map_err(|e| failed(&e))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| failed(&e))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder
        .build()
        .map_err(|e| format!("no HTTP client: {}", causes(&e)))
}

impl Download<'_> {
    fn part(&self) -> PathBuf {
        self.base.with_extension("part")
    }

    fn note(&self) -> PathBuf {
        self.base.with_extension("json")
    }

    /// Removes what has come so far.
    pub(crate) fn discard(&self) {
        let _ = fs::remove_file(self.note());
        let _ = fs::remove_file(self.part());
    }

    /// What an earlier attempt left of this URL.
    fn left_over(&self, url: &str) -> Option<(u64, Validator)> {
        let partial: Partial = serde_json::from_slice(&fs::read(self.note()).ok()?).ok()?;
        let have = fs::metadata(self.part()).ok()?.len();
        (partial.url == url && have > 0 && partial.validator.for_range().is_some())
            .then_some((have, partial.validator))
    }

    /// Downloads one URL.
    pub(crate) async fn run(&self, url: &str) -> Result<Fetched, Miss> {
        let mut known = self.left_over(url);
        let mut restarted = false;
        for _ in 0..MAX_CUTS {
            let had = known.as_ref().map_or(0, |(have, _)| *have);
            match self.attempt(url, known.as_ref()).await? {
                Attempt::Done(validator) => {
                    return Ok(Fetched {
                        path: self.part(),
                        url: without_password(url),
                        validator,
                    });
                }
                Attempt::Cut { have, reason } => {
                    known = self.left_over(url);
                    // Without anything new, or anything to go on with, trying at once is no use.
                    if have <= had || known.is_none() {
                        return Err(Miss::Failed(reason));
                    }
                    tracing::info!(image = self.image, have, reason, "download was cut, going on");
                }
                Attempt::Restart if restarted => {
                    return Err(Miss::Failed(
                        "the server refuses every range and the whole".into(),
                    ));
                }
                Attempt::Restart => {
                    restarted = true;
                    self.discard();
                    known = None;
                }
            }
        }
        Err(Miss::Failed("the connection was cut too often".into()))
    }

    async fn attempt(&self, url: &str, known: Option<&(u64, Validator)>) -> Result<Attempt, Miss> {
        (self.report)(Progress {
            phase: Phase::Connecting,
            ..Progress::default()
        });
        // Compressed on the wire, ranges would be of another file.
        let mut request = self.client.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some((have, validator)) = known {
            request = request
                .header(RANGE, format!("bytes={have}-"))
                .header(IF_RANGE, validator.for_range().unwrap_or_default());
        }
        let response = request.send().await.map_err(|error| {
            let reason = causes(&error);
            if is_certificate_error(&error) {
                return Miss::Fatal(Error::Unreachable {
                    image: self.image.into(),
                    reason: format!(
                        "{}: {reason}; trust its CA with the image CA file",
                        without_password(url)
                    ),
                });
            }
            Miss::Failed(reason)
        })?;
        let status = response.status();
        let (have, validator) = match (status, known) {
            (StatusCode::OK, _) => (0, Validator::of(response.headers())),
            (StatusCode::PARTIAL_CONTENT, Some((have, validator))) => {
                let range = content_range(response.headers());
                if range.is_none_or(|range| range.start != Some(*have)) {
                    return Ok(Attempt::Restart);
                }
                (*have, validator.clone())
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some((have, validator))) => {
                // Either it was complete already, or the file is another one.
                let whole = content_range(response.headers()).and_then(|range| range.total);
                return Ok(if whole == Some(*have) {
                    Attempt::Done(validator.clone())
                } else {
                    Attempt::Restart
                });
            }
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => return Err(Miss::NotFound),
            _ => return Err(Miss::Failed(format!("the server answered {status}"))),
        };
        self.receive(url, response, have, validator).await
    }

    /// Takes the body in.
    async fn receive(
        &self,
        url: &str,
        mut response: Response,
        have: u64,
        validator: Validator,
    ) -> Result<Attempt, Miss> {
        let total = response.content_length().and_then(|rest| rest.checked_add(have));
        let too_large = |size| {
            let (image, limit) = (self.image.into(), self.limits.download);
            Error::TooLarge {
                image,
                what: "the download",
                size,
                limit,
            }
        };
        if let Some(total) = total {
            if total > self.limits.download {
                return Err(Miss::Fatal(too_large(total)));
            }
            self.check_space(total - have)?;
        }
        let part = self.part();
        let mut file = self.begin(url, have, &validator).await?;
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut done = have;
        let reason = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    done += chunk.len() as u64;
                    if done > self.limits.download {
                        self.discard();
                        return Err(Miss::Fatal(too_large(done)));
                    }
                    buffer.extend_from_slice(&chunk);
                    if buffer.len() >= BUFFER {
                        file.write_all(&buffer)
                            .await
                            .map_err(|e| self.cannot_write(&part, e))?;
                        buffer.clear();
                    }
                    (self.report)(Progress {
                        phase: Phase::Downloading,
                        done,
                        total,
                    });
                }
                Ok(None) => break None,
                Err(error) => break Some(causes(&error)),
            }
        };
        file.write_all(&buffer)
            .await
            .map_err(|e| self.cannot_write(&part, e))?;
        file.flush().await.map_err(|e| self.cannot_write(&part, e))?;
        file.sync_data().await.map_err(|e| self.cannot_write(&part, e))?;
        match reason {
            None if total.is_none_or(|total| total == done) => Ok(Attempt::Done(validator)),
            None => Ok(Attempt::Cut {
                have: done,
                reason: "the server sent less than it said".into(),
            }),
            Some(reason) => Ok(Attempt::Cut { have: done, reason }),
        }
    }

    /// Opens the file at the place to go on, and notes down what it is before there is anything in it.
    async fn begin(&self, url: &str, have: u64, validator: &Validator) -> Result<tokio::fs::File, Miss> {
        let (part, note, image) = (self.part(), self.note(), self.image.to_owned());
        let partial = Partial {
            url: url.into(),
            validator: validator.clone(),
        };
        let file = blocking(self.image, move || {
            let open = || {
                if have > 0 {
                    return fs::OpenOptions::new().append(true).open(&part);
                }
                // In this order: a note of one content never stands beside bytes of another.
                let _ = fs::remove_file(&note);
                fs::File::create(&part)
            };
            let file = open().map_err(|e| files::write_error(&image, &part, e))?;
            if have == 0 {
                let text = serde_json::to_vec(&partial).unwrap_or_default();
                files::write_whole(&image, &note, &text)?;
            }
            Ok(file)
        });
        match file.await {
            Ok(file) => Ok(tokio::fs::File::from_std(file)),
            Err(error) => {
                if matches!(error, Error::DiskFull { .. }) {
                    self.discard();
                }
                Err(Miss::Fatal(error))
            }
        }
    }

    fn check_space(&self, needed: u64) -> Result<(), Miss> {
        let dir = self.base.parent().unwrap_or(&self.base);
        match files::free_space(dir) {
            Some(free) if free < needed => {
                self.discard();
                Err(Miss::Fatal(Error::DiskFull {
                    image: self.image.into(),
                    dir: dir.into(),
                    needed: format!(
                        "it needs {} MiB more and {} MiB are free",
                        (needed >> 20) + 1,
                        free >> 20
                    ),
                }))
            }
            _ => Ok(()),
        }
    }

    /// Nothing of it is kept when the disk is full, so that others can go on.
    fn cannot_write(&self, path: &Path, error: std::io::Error) -> Miss {
        if files::is_full(&error) {
            self.discard();
        }
        Miss::Fatal(files::write_error(self.image, path, error))
    }
}

/// `Content-Range: bytes 5-9/10`.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    start: Option<u64>,
    total: Option<u64>,
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (range, total) = headers
        .get(CONTENT_RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes ")?
        .split_once('/')?;
    let start = range.split_once('-').and_then(|(start, _)| start.parse().ok());
    Some(ContentRange {
        start,
        total: total.parse().ok(),
    })
}

/// An error with its causes, without repeating the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        next = cause.source();
    }
    if text.is_empty() {
        without_password(&error.to_string())
    } else {
        text
    }
}

/// Whether somebody is there whom we do not trust; falling back to plain HTTP would then be wrong.
fn is_certificate_error(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = next {
        let mut cause_or_inner = cause;
        // An I/O error hides what it is made of from `source`, and there may be one in another.
        while let Some(inner) = cause_or_inner
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            cause_or_inner = inner;
        }
        if matches!(
            cause_or_inner.downcast_ref(),
            Some(rustls::Error::InvalidCertificate(_))
        ) {
            return true;
        }
        next = cause.source();
    }
    false
}
