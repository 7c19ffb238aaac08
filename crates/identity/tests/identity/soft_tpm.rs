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
    machine: bool,
}

impl SoftTpm {
    pub(crate) fn new() -> Self {
        Self::with(false)
    }

    /// For QEMU, which speaks with it through the control socket alone.
    #[allow(dead_code, reason = "not every test has a machine")]
    pub(crate) fn for_a_machine() -> Self {
        Self::with(true)
    }

    fn with(machine: bool) -> Self {
        let mut tpm = Self {
            dir: tempfile::tempdir().unwrap(),
            process: None,
            machine,
        };
        tpm.on();
        tpm
    }

    /// Where it is spoken with.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("tpm")
    }

    /// Where it is ruled.
    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("tpm.ctrl")
    }

    /// Where its files are.
    #[allow(dead_code, reason = "not every test looks")]
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Switches it on, as the machine that it is in.
    pub(crate) fn on(&mut self) {
        let (socket, control) = (self.socket(), self.control());
        let mut swtpm = Command::new("swtpm");
        swtpm
            .args(["socket", "--tpm2"])
            .arg(format!("--tpmstate=dir={}", self.dir.path().display()))
            .arg(format!("--ctrl=type=unixio,path={}", control.display()));
        if !self.machine {
            swtpm
                .args(["--flags", "not-need-init,startup-clear"])
                .arg(format!("--server=type=unixio,path={}", socket.display()));
        }
        let process = swtpm
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm runs (scripts/setup installs it)");
        self.process = Some(process);
        let end = Instant::now() + Duration::from_secs(20);
        while !(control.exists() && (self.machine || socket.exists())) {
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
        let _ = fs::remove_file(self.control());
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        self.off();
    }
}
