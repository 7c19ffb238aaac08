//! A PostgreSQL of our own: Debian's programs, a cluster in a temporary directory, a unix socket and no port.
//!
//! It is started once for all tests of this binary. A shell holds the other end of a pipe: when this process ends, however
//! it does, the shell stops the server and removes the directory.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

/// A running cluster.
pub(crate) struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
    made: AtomicU32,
    // Its end of the pipe closes when this process does.
    _keeper: Mutex<Child>,
}

/// The cluster that all tests share.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

/// `program` as the user that PostgreSQL insists on when we are root.
fn as_postgres(program: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt as _;
        me.uid() == 0
    });
    if root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Cluster {
    /// Makes and starts one.
    pub(crate) fn start() -> Self {
        let bin = std::fs::read_dir("/usr/lib/postgresql")
            .expect("Debian's package postgresql is needed: see scripts/setup")
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|bin| bin.join("initdb").exists())
            .max()
            .expect("Debian's package postgresql is needed: see scripts/setup");
        let dir = run(as_postgres(Path::new("mktemp")).args(["-d", "/tmp/selvedge-pg-XXXXXX"]));
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
            .unwrap();
        let cluster = Self {
            dir,
            bin,
            made: AtomicU32::new(0),
            _keeper: Mutex::new(keeper),
        };
        run(as_postgres(&cluster.bin.join("initdb")).args([
            "-D",
            &cluster.data(),
            "-U",
            "selvedge",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]));
        cluster.up();
        cluster
    }

    fn data(&self) -> String {
        self.dir.join("data").display().to_string()
    }

    fn ctl(&self, args: &[&str]) {
        run(as_postgres(&self.bin.join("pg_ctl"))
            .args(["-D", &self.data(), "-w"])
            .args(args));
    }

    /// Starts the server.
    pub(crate) fn up(&self) {
        let settings = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c max_connections=400 -c fsync=off",
            self.dir.display()
        );
        let log = self.dir.join("log").display().to_string();
        self.ctl(&["-l", &log, "-o", &settings, "start"]);
    }

    /// Stops it, cutting all connections.
    pub(crate) fn down(&self) {
        self.ctl(&["-m", "immediate", "stop"]);
    }

    /// A new empty database.
    pub(crate) fn database(&self) -> String {
        let name = format!("t{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://selvedge@localhost/{name}?host={}", self.dir.display())
    }

    /// Runs SQL as `psql` does.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let mut child = Command::new(self.bin.join("psql"))
            .args([
                "-h",
                &self.dir.display().to_string(),
                "-U",
                "selvedge",
                "-d",
                database,
            ])
            .args(["-v", "ON_ERROR_STOP=1", "-qAt", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "psql: {sql}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
