//! `selvedge kubeconfig`: a site's API for kubectl, through the orchestrator; and a console through it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{at, done};
use crate::{
    commands::vm::{Keys, Machine, RawTerminal},
    fleet::{Fleet, contexts::Credential, segment},
};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  selvedge kubeconfig shop-17 > shop-17.kubeconfig\n  kubectl --kubeconfig <(selvedge kubeconfig shop-17) get vm -A\n  selvedge kubeconfig shop-17 --exec --write ~/.kube/shop-17"
)]
pub(crate) struct Args {
    /// The site.
    site: String,
    /// One of its hosts, if it has several.
    #[arg(long)]
    host: Option<String>,
    /// Writes a file (mode 0600) instead of printing.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Puts no token into it: kubectl calls `selvedge` for it each time.
    #[arg(long)]
    exec: bool,
}

/// The version in which kubectl asks for a credential: the oldest of Debian 12 knows it, the newest still does.
const EXEC: &str = "client.authentication.k8s.io/v1beta1";

/// What kubectl calls.
pub(crate) fn credential(fleet: &Fleet) -> anyhow::Result<ExitCode> {
    let token = token(fleet)?;
    let answer = json!({"apiVersion": asked_in(), "kind": "ExecCredential", "status": {"token": token}});
    Ok(done(&answer.to_string()))
}

/// The version that kubectl wants the answer in: it says so to the program that it calls.
fn asked_in() -> String {
    let info = std::env::var("KUBERNETES_EXEC_INFO").unwrap_or_default();
    let info: Value = serde_json::from_str(&info).unwrap_or_default();
    let version = info["apiVersion"].as_str().unwrap_or(EXEC);
    version.to_owned()
}

/// What kubectl sends.
fn token(fleet: &Fleet) -> anyhow::Result<String> {
    let credential = fleet.context.credential.as_ref();
    Ok(credential
        .context("log in with `selvedge login`")?
        .bearer()
        .to_owned())
}

pub(crate) async fn run(fleet: &Fleet, args: &Args, context: Option<&str>) -> anyhow::Result<ExitCode> {
    let token = token(fleet)?;
    // A site that is not there shall not become a file that does not work.
    let site = fleet
        .get(&fleet.path(&format!("sites/{}", segment(&args.site)))?)
        .await?;
    let site = at(&site, "/name");
    let tenant = fleet.context.tenant.as_deref().unwrap_or_default();
    let mut server = format!("{}/k8s/{}/{}", fleet.context.url, segment(tenant), segment(&site));
    if let Some(host) = &args.host {
        server.push('/');
        server.push_str(&segment(host));
    }
    // A session ends some day, and the next login is another.
    let session = matches!(fleet.context.credential, Some(Credential::Session { .. }));
    let user = if args.exec || session {
        let program = std::env::current_exe().context("where is this program?")?;
        let mut arguments = vec!["kube-credential".to_owned()];
        if let Some(context) = context {
            arguments.extend(["--context".to_owned(), context.to_owned()]);
        }
        json!({"exec": {"apiVersion": EXEC, "command": program, "args": arguments,
            "interactiveMode": "Never"}})
    } else {
        json!({"token": token})
    };
    let mut cluster = json!({"server": server});
    if let Some(ca) = &fleet.context.ca {
        cluster["certificate-authority-data"] = STANDARD.encode(ca).into();
    }
    let name = format!("{tenant}-{site}");
    let file = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    });
    let text = serde_saphyr::to_string(&file)?;
    match &args.write {
        None => Ok(done(text.trim_end())),
        Some(path) => {
            let write = || -> std::io::Result<()> {
                let mut options = std::fs::OpenOptions::new();
                std::os::unix::fs::OpenOptionsExt::mode(
                    options.write(true).create(true).truncate(true),
                    0o600,
                );
                let mut file = options.open(path)?;
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
                std::io::Write::write_all(&mut file, text.as_bytes())
            };
            write().with_context(|| format!("can't write {}", path.display()))?;
            Ok(done(&format!("wrote {}", path.display())))
        }
    }
}

/// The serial console of a virtual machine of a site.
pub(crate) async fn console(fleet: &Fleet, site: &str, machine: &Machine) -> anyhow::Result<ExitCode> {
    let host = host_of(fleet, site, machine).await?;
    let path = format!(
        "hosts/{}/vms/{}/{}/serial",
        segment(&host),
        segment(machine.namespace()),
        segment(machine.name())
    );
    let (mut to, mut from) = fleet.socket(&fleet.path(&path)?).await?.split();
    eprintln!("connected to {machine} of {site}; leave with Ctrl-]");
    let raw = RawTerminal::enter();
    let mut keys = Keys::new();
    let mut output = tokio::io::stdout();
    let ended = loop {
        tokio::select! {
            message = from.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    use tokio::io::AsyncWriteExt;
                    output.write_all(&bytes).await?;
                    output.flush().await?;
                }
                Some(Ok(Message::Close(Some(frame)))) if !frame.reason.is_empty() => break Err(frame.reason.to_string()),
                Some(Ok(Message::Close(_))) | None => break Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error.to_string()),
            },
            typed = keys.next() => match typed? {
                Some(bytes) => to.send(Message::Binary(bytes.into())).await?,
                None => break Ok(()),
            },
        }
    };
    drop(raw);
    eprintln!();
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(why) => bail!("the console was closed: {why}"),
    }
}

/// The host of a site that has a virtual machine.
async fn host_of(fleet: &Fleet, site: &str, machine: &Machine) -> anyhow::Result<String> {
    let hosts = fleet.list(&fleet.path("hosts")?, &[("site", site)], 16).await?;
    let section = format!("vm/{}/{}", machine.namespace(), machine.name());
    for host in &hosts {
        let name = at(host, "/name");
        let host: Value = fleet
            .get(&fleet.path(&format!("hosts/{}", segment(&name)))?)
            .await?;
        if host["status"].get(&section).is_some() {
            return Ok(name);
        }
    }
    if hosts.is_empty() {
        bail!("the site {site} has no host");
    }
    bail!("no host of {site} reports a virtual machine {machine}")
}
