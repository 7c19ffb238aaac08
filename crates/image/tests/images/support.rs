//! What the tests of this crate share: a small HTTP server with moods, and images made on the spot.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use image::{Cache, HttpOptions, ImageRef, Library, Limits};
use sha2::Digest;
use telemetry::Clock;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How the server answers.
#[derive(Clone, Debug)]
pub struct Mood {
    pub body: Arc<Vec<u8>>,
    pub etag: Option<String>,
    /// Closes the connection after this many bytes of each body.
    pub cut_after: Option<usize>,
    /// Stops sending at this byte of the file, with the connection open.
    pub stall_after: Option<usize>,
    pub ranges: bool,
    pub path: &'static str,
}

impl Mood {
    pub fn new(body: Vec<u8>) -> Self {
        Self {
            body: Arc::new(body),
            etag: Some("\"one\"".into()),
            cut_after: None,
            stall_after: None,
            ranges: true,
            path: "/image",
        }
    }
}

/// A server on the loopback; stops when dropped.
pub struct Server {
    pub port: u16,
    pub mood: Arc<Mutex<Mood>>,
    /// Request lines with the `Range` header, if any.
    pub log: Arc<Mutex<Vec<String>>>,
    /// Body bytes sent so far.
    pub sent: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mood, log) = (Arc::new(Mutex::new(mood)), Arc::new(Mutex::new(Vec::new())));
        let (sender, sent) = watch::channel(0);
        let (shared_mood, shared_log, sender) = (mood.clone(), log.clone(), Arc::new(sender));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mood = shared_mood.lock().unwrap().clone();
                // Whoever speaks something else than HTTP, such as TLS, is dropped.
                tokio::spawn(answer(stream, mood, shared_log.clone(), sender.clone()));
            }
        });
        Self {
            port,
            mood,
            log,
            sent,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/image", self.port)
    }

    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.mood.lock().unwrap());
    }
}

async fn answer(
    stream: TcpStream,
    mood: Mood,
    log: Arc<Mutex<Vec<String>>>,
    sent: Arc<watch::Sender<usize>>,
) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let first = lines.next_line().await.ok()??;
    if !first.starts_with("GET ") {
        return None;
    }
    let (mut range, mut if_range) = (None, None);
    loop {
        let line = lines.next_line().await.ok()??;
        match line.split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = Some(value.to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("if-range") => if_range = Some(value.to_owned()),
            Some(_) => {}
        }
    }
    log.lock().unwrap().push(
        format!("{first} {}", range.clone().unwrap_or_default())
            .trim()
            .to_owned(),
    );
    let path = first.split(' ').nth(1)?;
    if path == "/moved" {
        let head = format!(
            "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
            mood.path
        );
        return write.write_all(head.as_bytes()).await.ok();
    }
    if path != mood.path {
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return write.write_all(head.as_bytes()).await.ok();
    }
    let total = mood.body.len();
    let start = range
        .as_deref()
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let fits = if_range.is_none() || if_range == mood.etag;
    let etag = mood
        .etag
        .map(|tag| format!("ETag: {tag}\r\n"))
        .unwrap_or_default();
    let (head, body) = match start.filter(|_| mood.ranges && fits) {
        Some(start) if start >= total => (
            format!("HTTP/1.1 416 No\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\n\r\n"),
            &mood.body[total..],
        ),
        Some(start) => (
            format!(
                "HTTP/1.1 206 Partial Content\r\n{etag}Content-Range: bytes {start}-{}/{total}\r\nContent-Length: {}\r\n\r\n",
                total - 1,
                total - start
            ),
            &mood.body[start..],
        ),
        None => (
            format!("HTTP/1.1 200 OK\r\n{etag}Content-Length: {total}\r\n\r\n"),
            &mood.body[..],
        ),
    };
    write.write_all(head.as_bytes()).await.ok()?;
    let stall = mood.stall_after.map(|at| at.saturating_sub(total - body.len()));
    let end = mood.cut_after.or(stall).unwrap_or(body.len()).min(body.len());
    for piece in body[..end].chunks(16 * 1024) {
        write.write_all(piece).await.ok()?;
        sent.send_modify(|sent| *sent += piece.len());
    }
    if mood.stall_after.is_some() && end < body.len() {
        std::future::pending::<()>().await;
    }
    write.shutdown().await.ok()
}

pub fn provider() {
    // A second test in the same process finds it there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

pub fn open(dir: &Path, libraries: Vec<Library>) -> Cache {
    open_with(dir, libraries, HttpOptions::default())
}

pub fn open_with(dir: &Path, libraries: Vec<Library>, http: HttpOptions) -> Cache {
    provider();
    let limits = Limits {
        download: 64 << 20,
        virtual_size: 1 << 30,
    };
    Cache::new(dir, libraries, http, limits, Clock::system()).unwrap()
}

pub fn reference(text: &str) -> ImageRef {
    ImageRef::parse(text).unwrap()
}

/// Bytes that look like a disk: a boot sector and noise that is the same every time.
pub fn raw_disk(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut disk: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .collect();
    disk[..4].copy_from_slice(&[0xeb, 0x58, 0x90, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

pub fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What `qemu-img info` says.
pub fn info(path: &Path) -> serde_json::Value {
    serde_json::from_str(&qemu_img(&["info", "--output=json", &path.display().to_string()])).unwrap()
}

/// A disk in another format, made from raw bytes by `qemu-img`.
pub fn converted(dir: &Path, raw: &[u8], format: &str, options: &str) -> PathBuf {
    let (from, to) = (dir.join("made.raw"), dir.join(format!("made.{format}")));
    std::fs::write(&from, raw).unwrap();
    let mut arguments = vec!["convert", "-f", "raw", "-O", format];
    if !options.is_empty() {
        arguments.extend(["-o", options]);
    }
    let (from_text, to_text) = (from.display().to_string(), to.display().to_string());
    arguments.extend([from_text.as_str(), to_text.as_str()]);
    qemu_img(&arguments);
    to
}

/// Whether a cached disk holds these bytes, as QEMU reads it.
pub fn same_content(dir: &Path, disk: &image::Disk, raw: &[u8]) -> bool {
    let back = dir.join("back.raw");
    let path = disk.path.display().to_string();
    qemu_img(&[
        "convert",
        "-f",
        disk.format.as_str(),
        "-O",
        "raw",
        &path,
        &back.display().to_string(),
    ]);
    std::fs::read(&back).unwrap() == raw
}

/// A tar archive.
pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Past the checks of the builder, as an attacker would.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

pub fn sha1(bytes: &[u8]) -> String {
    sha1::Sha1::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A description of a machine with one disk of a file.
pub fn ovf(file: &str, size: usize, capacity: usize) -> String {
    include_str!("support/machine.ovf")
        .replace("@FILE@", file)
        .replace("@SIZE@", &size.to_string())
        .replace("@CAPACITY@", &capacity.to_string())
}

/// An OVA with one disk and a manifest.
pub fn ova(disk: &[u8], capacity: usize) -> Vec<u8> {
    let ovf = ovf("disk.vmdk", disk.len(), capacity);
    let manifest = format!(
        "SHA256(m.ovf)= {}\nSHA256(disk.vmdk)= {}\n",
        sha256(ovf.as_bytes()),
        sha256(disk)
    );
    tar(&[
        ("m.ovf", ovf.as_bytes()),
        ("m.mf", manifest.as_bytes()),
        ("disk.vmdk", disk),
    ])
}
