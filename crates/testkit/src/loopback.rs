//! Orchestrators on the loopback interface, with no lab around them: for crowds of simulated hosts.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Programs;
use crate::cli::Cli;
use crate::simulate::Hub;
use crate::tool;
use crate::wait::wait_for;

/// The organisation.
pub const TENANT: &str = "acme";
/// Its owner's password.
pub const PASSWORD: &str = "a long password of a crowd";
/// How long a start may take.
const START: Duration = Duration::from_secs(60);

/// An orchestrator, and what it keeps; killed when dropped.
#[derive(Debug)]
pub struct Loopback {
    program: String,
    dir: PathBuf,
    port: u16,
    url: String,
    child: Child,
}

impl Loopback {
    /// Starts one that keeps what it has below `dir`, on a port that is free now. `more` is appended to its
    /// configuration: it begins inside `[server]`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(programs: &Programs, dir: &Path, more: &str) -> Result<Self> {
        let port = free_port()?;
        Self::start_as(programs, dir, port, &format!("https://127.0.0.1:{port}"), more)
    }

    /// Starts one of several processes on a database that `more` names: hosts and people call them all by one `url`, that
    /// of a balancer. It has the keys of the first, if that is given.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_behind(
        programs: &Programs,
        dir: &Path,
        url: &str,
        more: &str,
        first: Option<&Self>,
    ) -> Result<Self> {
        if let Some(first) = first {
            fs::create_dir_all(dir.join("data"))?;
            for file in ["master.key", "ca.pem", "ca.key"] {
                let from = first.dir.join("data").join(file);
                fs::copy(&from, dir.join("data").join(file))
                    .with_context(|| format!("cannot copy {}", from.display()))?;
            }
        }
        let port = free_port()?;
        let more = format!("peer = \"127.0.0.1:{port}\"\n{more}");
        Self::start_as(programs, dir, port, url, &more)
    }

    fn start_as(programs: &Programs, dir: &Path, port: u16, url: &str, more: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let text = format!(
            "[server]\nurl = \"{url}\"\nlisten = [\"127.0.0.1:{port}\"]\ndata = \"{}\"\n{more}\n\
             [limits]\nconnections_per_address = 100000\n",
            dir.join("data").display()
        );
        fs::write(dir.join("orchestrator.toml"), text)?;
        let program = programs.orchestrator()?.to_owned();
        let child = run(&program, dir)?;
        let started = Self {
            program,
            dir: dir.to_owned(),
            port,
            url: url.to_owned(),
            child,
        };
        started.wait()?;
        Ok(started)
    }

    fn wait(&self) -> Result<()> {
        let ready = format!("https://127.0.0.1:{}/readyz", self.port);
        wait_for("the orchestrator", START, || {
            // It listens before it has made its authority.
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--insecure"]);
            curl.args(["--noproxy", "*", "--max-time", "2"]);
            let output = tool::output(curl.arg(&ready))?;
            Ok(if output.status.success() {
                Ok(())
            } else {
                Err(tool::complaint(&output))
            })
        })
        .map(drop)
        .with_context(|| format!("see {}", self.dir.join("log").display()))
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after [`Loopback::kill`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = run(&self.program, &self.dir)?;
        self.wait()
    }

    /// Makes the first organisation and its owner, and logs in as that owner.
    ///
    /// # Errors
    /// When the orchestrator refuses.
    pub fn found(&self, programs: &Programs) -> Result<Cli> {
        let password = self.dir.join("password");
        fs::write(&password, PASSWORD)?;
        let password = password.to_str().context("a path that is not UTF-8")?;
        let mut admin = Command::new(&self.program);
        admin.arg("--config").arg(self.dir.join("orchestrator.toml"));
        admin.args(["admin", "create", "--tenant", TENANT, "--user", "ada"]);
        tool::run(admin.args(["--password-file", password]))?;
        self.log_in(programs, &self.url())
    }

    /// Logs its owner in, at this address of it.
    ///
    /// # Errors
    /// When the orchestrator refuses.
    pub fn log_in(&self, programs: &Programs, url: &str) -> Result<Cli> {
        let port = url.rsplit_once(':').map_or(url, |(_, port)| port);
        let cli = Cli::new(programs.cli()?, self.dir.join(format!("cli-{port}.toml")));
        let password = self.dir.join("password");
        fs::write(&password, PASSWORD)?;
        let given = format!("@{}", password.display());
        let authority = self.authority();
        let authority = authority.to_str().context("a path that is not UTF-8")?;
        let login = ["login", url, "--user", "ada", "--password", &given];
        cli.run(login.into_iter().chain(["--ca-file", authority]))?;
        Ok(cli)
    }

    /// The port of this very process.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it serves.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The file with its authority.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.join("data/ca.pem")
    }

    /// Where simulated hosts find it.
    ///
    /// # Errors
    /// When its authority can't be read.
    pub fn hub(&self) -> Result<Hub> {
        Ok(Hub {
            url: self.url(),
            authority: fs::read_to_string(self.authority())?,
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        // Either it runs and is killed, or it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn run(program: &str, dir: &Path) -> Result<Child> {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    Command::new(program)
        .arg("--config")
        .arg(dir.join("orchestrator.toml"))
        .arg("run")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("can't start {program}"))
}
