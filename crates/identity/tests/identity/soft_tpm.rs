//! A TPM in software: swtpm. Tests of other crates take this file too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::Instant;

/// A TPM in a folder of its own.
pub(crate) struct SoftTpm {
    dir: tempfile::TempDir,
    process: Option<Child>,
}

impl SoftTpm {
    pub(crate) fn new() -> Self {
        let mut tpm = Self {
            dir: tempfile::tempdir().unwrap(),
            process: None,
        };
        tpm.on();
        tpm
    }

    /// Where it is spoken with.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("tpm")
    }

    /// Where its files are.
    #[allow(dead_code, reason = "not every test looks")]
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Switches it on, as the machine that it is in.
    pub(crate) fn on(&mut self) {
        let (state, socket) = (self.dir.path().display(), self.socket());
        let at = socket.display();
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg(format!("--tpmstate=dir={state}"))
            .arg(format!("--server=type=unixio,path={at}"))
            .arg(format!("--ctrl=type=unixio,path={at}.ctrl"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm runs (scripts/setup installs it)");
        self.process = Some(process);
        let end = Instant::now() + Duration::from_secs(20);
        while !(socket.exists() && socket.with_extension("ctrl").exists()) {
            assert!(Instant::now() < end, "swtpm does not listen");
            std::thread::yield_now();
        }
    }

    /// Switches it off: what was loaded is gone, what was kept stays.
    pub(crate) fn off(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.socket().with_extension("ctrl"));
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        self.off();
    }
}
