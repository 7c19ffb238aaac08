//! `selvedge vm`: what is done on the host itself with a virtual machine.

use std::{
    fmt,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context, bail};
use nix::sys::termios::{self, SetArg, Termios};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Opens the serial console; leave with Ctrl-].
    #[command(
        after_help = "Examples:\n  selvedge vm console shop/till\n  selvedge vm console --site shop-17 shop/till"
    )]
    Console {
        /// namespace/name
        machine: Machine,
        /// The site, through the orchestrator; else on this host itself.
        #[arg(long)]
        site: Option<String>,
    },
}

/// `namespace/name`; a name alone is in `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    namespace: String,
    name: String,
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let good = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
                && !word.starts_with('.')
        };
        if good(namespace) && good(name) {
            Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            })
        } else {
            Err(format!("{text:?} is not namespace/name"))
        }
    }
}

/// The part of `host.toml` that says where virtual machines are.
#[derive(Deserialize)]
struct HostToml {
    #[serde(default)]
    paths: Paths,
}

#[derive(Deserialize)]
#[serde(default)]
struct Paths {
    state: PathBuf,
    run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state: "/var/lib/selvedge".into(),
            run: "/run/selvedge".into(),
        }
    }
}

fn paths(config: &Path) -> anyhow::Result<Paths> {
    if !config.exists() {
        bail!(
            "{} does not exist: this command works on the host itself; name its file with --config",
            config.display()
        );
    }
    let text = std::fs::read_to_string(config).with_context(|| format!("can't read {}", config.display()))?;
    Ok(toml::from_str::<HostToml>(&text)
        .with_context(|| format!("{} is damaged", config.display()))?
        .paths)
}

impl Machine {
    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where the serial console is written: the part before and the part now.
    pub(crate) fn console_logs(&self, config: &Path) -> anyhow::Result<[PathBuf; 2]> {
        let state = paths(config)?.state;
        vm::console_logs(&state, &self.namespace, &self.name)
            .with_context(|| format!("{self} is no virtual machine"))
    }

    fn console(&self, config: &Path) -> anyhow::Result<PathBuf> {
        let run = paths(config)?.run;
        vm::console_socket(&run, &self.namespace, &self.name)
            .with_context(|| format!("{self} is no virtual machine"))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

pub(crate) async fn run(command: &Command, config: &Path) -> anyhow::Result<ExitCode> {
    let Command::Console { machine, .. } = command;
    let path = machine.console(config)?;
    let stream = UnixStream::connect(&path).await.with_context(|| {
        format!(
            "no console at {}; is {}/{} powered on?",
            path.display(),
            machine.namespace,
            machine.name
        )
    })?;
    eprintln!(
        "connected to {}/{}; leave with Ctrl-]",
        machine.namespace, machine.name
    );
    let raw = RawTerminal::enter();
    let result = attach(stream).await;
    drop(raw);
    eprintln!();
    result?;
    Ok(ExitCode::SUCCESS)
}

const CTRL_RIGHT_BRACKET: u8 = 0x1d;

/// Carries bytes both ways until either side ends or Ctrl-] is typed.
async fn attach(stream: UnixStream) -> anyhow::Result<()> {
    let (mut from, mut to) = stream.into_split();
    let mut output = tokio::io::stdout();
    let mut shown = [0; 4096];
    let mut keys = Keys::new();
    loop {
        tokio::select! {
            read = from.read(&mut shown) => match read? {
                0 => return Ok(()),
                count => {
                    output.write_all(&shown[..count]).await?;
                    output.flush().await?;
                }
            },
            typed = keys.next() => match typed? {
                Some(bytes) => to.write_all(&bytes).await?,
                None => return Ok(()),
            },
        }
    }
}

/// What is typed, up to Ctrl-].
pub(crate) struct Keys {
    input: tokio::io::Stdin,
    buffer: [u8; 1024],
    typing: bool,
    /// Ctrl-] was typed after what was given out last.
    left: bool,
}

impl Keys {
    /// From standard input.
    pub(crate) fn new() -> Self {
        Self {
            input: tokio::io::stdin(),
            buffer: [0; 1024],
            typing: true,
            left: false,
        }
    }

    /// What is typed next; none after Ctrl-]. May be dropped before it is ready without loss.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        if self.left {
            return Ok(None);
        }
        if self.typing {
            let count = self.input.read(&mut self.buffer).await?;
            let bytes = &self.buffer[..count];
            if let Some(end) = bytes.iter().position(|byte| *byte == CTRL_RIGHT_BRACKET) {
                self.left = true;
                return Ok((end > 0).then(|| bytes[..end].to_vec()));
            }
            if count > 0 {
                return Ok(Some(bytes.to_vec()));
            }
            // The end of a pipe: go on showing what the machine writes.
            self.typing = false;
        }
        std::future::pending().await
    }
}

/// Standard input in raw mode until dropped; nothing if it is no terminal.
pub(crate) struct RawTerminal(Option<Termios>);

impl RawTerminal {
    pub(crate) fn enter() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = termios::tcgetattr(stdin.as_fd()) else {
            return Self(None);
        };
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        let set = termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw);
        Self(set.is_ok().then_some(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_namespace_and_name_and_never_a_path() {
        assert_eq!(
            "shop/till".parse(),
            Ok(Machine {
                namespace: "shop".into(),
                name: "till".into()
            })
        );
        assert_eq!(
            "till".parse(),
            Ok(Machine {
                namespace: "default".into(),
                name: "till".into()
            })
        );
        for bad in ["", "a/b/c", "../x", "a/..", "A/b"] {
            assert!(bad.parse::<Machine>().is_err(), "{bad:?}");
        }
    }
}
