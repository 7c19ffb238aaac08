//! Where things are kept, and bounds.

use std::{path::PathBuf, time::Duration};

/// How GitOps runs on a host.
#[derive(Clone, Debug)]
pub struct Config {
    /// What must outlive a power cut: repositories are under `git/`.
    pub state_dir: PathBuf,
    /// Keys and certificates while a fetch runs, under `gitops/`.
    pub run_dir: PathBuf,
    /// The `git` program.
    pub git: PathBuf,
    /// HTTP proxies, each by the beginning of the URLs that it is for. Others go by `HTTPS_PROXY` and `NO_PROXY`.
    pub proxies: Vec<(String, String)>,
    /// Bytes of one file that are read.
    pub file_bytes: u64,
    /// So many objects of one Kustomization are written at a time; the store makes one commit of what waits.
    pub concurrency: usize,
    /// How often health is looked at while a Kustomization waits for it. Changes of its objects are seen at once.
    pub health_interval: Duration,
}

impl Config {
    /// The defaults for these folders.
    pub fn new(state_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            run_dir: run_dir.into(),
            git: "git".into(),
            proxies: Vec::new(),
            file_bytes: 16 << 20,
            concurrency: 64,
            health_interval: Duration::from_secs(10),
        }
    }
}
