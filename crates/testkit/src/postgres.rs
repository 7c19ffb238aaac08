//! A PostgreSQL of our own: Debian's programs, a cluster in a temporary directory, a unix socket and no port.
//!
//! A shell holds the other end of a pipe: when this process ends, however it does, the shell stops the server and removes
//! the directory.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::tool;

/// Whether what is written survives a power cut; a test that ends with its process has no use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As in production: each commit is on the disk.
    Synced,
    /// Nothing is waited for.
    None,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
    durability: Durability,
    made: AtomicU32,
    // Its end of the pipe closes when this process does.
    keeper: Child,
}

/// `program` as the user that PostgreSQL insists on when we are root.
fn as_postgres(program: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// The newest that is installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .max()
}

impl Cluster {
    /// Makes and starts one.
    ///
    /// # Errors
    /// When Debian's package `postgresql` is missing, or the server does not start.
    pub fn start(durability: Durability) -> Result<Self> {
        let bin = programs().context("Debian's package postgresql-15 is missing: see scripts/setup")?;
        let dir = tool::run(as_postgres(Path::new("mktemp")).args(["-d", "/tmp/selvedge-pg-XXXXXX"]))?;
        let dir = PathBuf::from(dir.trim());
        // First the keeper: from now on nothing is left behind.
        let stop = format!(
            "cat >/dev/null; {} -D '{dir}/data' -m immediate stop >/dev/null 2>&1; rm -rf '{dir}'",
            bin.join("pg_ctl").display(),
            dir = dir.display()
        );
        let keeper = as_postgres(Path::new("setsid"))
            .args(["sh", "-c", &stop])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start a shell")?;
        let cluster = Self {
            dir,
            bin,
            durability,
            made: AtomicU32::new(0),
            keeper,
        };
        let mut make = as_postgres(&cluster.bin.join("initdb"));
        make.args([
            "-D",
            &cluster.data(),
            "-U",
            "selvedge",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]);
        tool::run(make.args(["--locale=C.UTF-8", "--no-sync", "--no-instructions"]))?;
        cluster.up()?;
        Ok(cluster)
    }

    fn data(&self) -> String {
        self.dir.join("data").display().to_string()
    }

    fn ctl(&self, args: &[&str]) -> Result<()> {
        let mut command = as_postgres(&self.bin.join("pg_ctl"));
        command.args(["-D", &self.data(), "-w"]).args(args);
        tool::run(&mut command).map(drop)
    }

    /// Starts the server.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn up(&self) -> Result<()> {
        let fsync = match self.durability {
            Durability::Synced => "on",
            Durability::None => "off",
        };
        let settings = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c max_connections=400 -c fsync={fsync}",
            self.dir.display()
        );
        let log = self.dir.join("log").display().to_string();
        self.ctl(&["-l", &log, "-o", &settings, "start"])
    }

    /// Stops it, cutting all connections.
    ///
    /// # Errors
    /// When it does not end.
    pub fn down(&self) -> Result<()> {
        self.ctl(&["-m", "immediate", "stop"])
    }

    /// A new empty database: its URL.
    ///
    /// # Errors
    /// When the server is down.
    pub fn database(&self) -> Result<String> {
        let name = format!("t{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!(
            "postgres://selvedge@localhost/{name}?host={}",
            self.dir.display()
        ))
    }

    /// Runs SQL as `psql` does.
    ///
    /// # Errors
    /// What the server says against it.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut child = Command::new(self.bin.join("psql"))
            .args(["-h", &self.dir.display().to_string(), "-U", "selvedge"])
            .args(["-d", database, "-v", "ON_ERROR_STOP=1", "-qAt", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't run psql")?;
        child
            .stdin
            .take()
            .context("psql has no input")?
            .write_all(sql.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "psql: {sql}: {}",
            tool::complaint(&output)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input is its signal.
        drop(self.keeper.stdin.take());
        // It has ended, or it never will.
        let _ = self.keeper.wait();
    }
}
