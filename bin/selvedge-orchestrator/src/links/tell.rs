//! What hosts are told: assignments that changed, revocations, pushes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fleet::{Kind, changes::Raw};
use link::{
    message::{Assignment, ServerMessage, Signal},
    server::Handle,
};

use crate::app::{App, Shared};

/// Hosts whose assignments are read together.
const AT_ONCE: usize = 500;

/// A host said which assignment it has: note it, and send the right one if it is another.
pub(crate) async fn said(
    app: &Shared,
    tenant: &str,
    host: &str,
    handle: &Handle,
    generation: u64,
    refused: Option<&str>,
) -> Result<(), fleet::Error> {
    // It obeys what it was told last: when there is more to tell, the change of it says so.
    if refused.is_none() && app.links.sent(host) == Some(generation) {
        return app.ingest.acknowledged(tenant, host, generation).await;
    }
    if let Some(numbered) = app
        .fleet
        .assignments()
        .said(tenant, host, generation, refused)
        .await?
    {
        send(app, host, handle, numbered);
    }
    Ok(())
}

fn send(app: &App, host: &str, handle: &Handle, numbered: fleet::assignments::Numbered) {
    let mut assignment = numbered.assignment;
    complete(app, host, &mut assignment);
    app.links.note_sent(host, numbered.generation);
    let sent = handle.send(&ServerMessage::Assign {
        generation: numbered.generation,
        assignment: Box::new(assignment),
    });
    if let Err(error) = sent {
        tracing::debug!(host, error = %telemetry::chain(&error), "an assignment could not be sent");
    }
}

/// Adds what only the server knows of repositories that it hosts: the host's own password, and whom to trust.
pub(crate) fn complete(app: &App, host: &str, assignment: &mut Assignment) {
    let Some(source) = &mut assignment.source else {
        return;
    };
    if !source.url.starts_with(&format!("{}/git/", app.config.url())) {
        return;
    }
    let (username, password) = git_credential(app, host);
    source.username = Some(username);
    source.password = Some(password);
    source.bearer = None;
    if source.ca.is_none() {
        source.ca = app.certificates.ca_pem().map(str::to_owned);
    }
}

/// The name and password by which a host pulls repositories that are hosted here.
pub(crate) fn git_credential(app: &App, host: &str) -> (String, String) {
    let key = hmac::Key::new(
        hmac::HMAC_SHA256,
        &app.fleet.master().derive("host git credential"),
    );
    let mac = hmac::sign(&key, host.as_bytes());
    (format!("host-{host}"), URL_SAFE_NO_PAD.encode(mac.as_ref()))
}

/// Sends each host that is connected here what changed for it. Runs as long as the process.
pub(crate) async fn run(app: Shared) {
    const KINDS: [Kind; 3] = [Kind::Assignment, Kind::Revocation, Kind::Repository];
    loop {
        // From now, and everything is compared once: so nothing that came while nobody listened is missed.
        let failed = match app.fleet.changes().tail(&KINDS, None).await {
            Ok(mut tail) => {
                if let Err(error) = assign(&app, app.links.all()).await {
                    tracing::warn!(error = %telemetry::chain(&error), "hosts could not all be told what they are");
                }
                loop {
                    let told = match tail.next().await {
                        Ok(changes) => tell(&app, &changes).await,
                        Err(error) => Err(error),
                    };
                    // What could not be told is found again when everything is compared.
                    if let Err(error) = told {
                        break error;
                    }
                }
            }
            Err(error) => error,
        };
        tracing::warn!(error = %telemetry::chain(&failed), "hosts can't be told of changes now");
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
}

/// Tells of changes that came together: each host hears once.
async fn tell(app: &Shared, changes: &[Raw]) -> Result<(), fleet::Error> {
    let mut concerned: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for change in changes {
        match change.kind {
            Kind::Assignment => {
                let what = (change.tenant.as_str(), change.name.as_str());
                concerned.entry(what).or_default().insert(&change.id);
            }
            // Its head moved, perhaps found by another process. Who was told a moment ago need not hear it twice.
            Kind::Repository if change.op == fleet::Op::Upsert && !app.links.told_lately(&change.id) => {
                fetch(app, &change.tenant, &change.id).await?;
            }
            Kind::Revocation => {
                super::trust::refresh(app).await?;
                app.links.cut_host(&change.id);
            }
            _ => {}
        }
    }
    let mut hosts = BTreeSet::new();
    for ((tenant, what), ids) in concerned {
        let of = app.fleet.assignments().hosts_of(tenant, what, ids).await?;
        let tenant: Arc<str> = tenant.into();
        hosts.extend(of.into_iter().map(|host| (tenant.clone(), host)));
    }
    assign(app, hosts).await
}

/// Sends hosts that are connected here what they should be told.
async fn assign(
    app: &Shared,
    hosts: impl IntoIterator<Item = (Arc<str>, String)>,
) -> Result<(), fleet::Error> {
    let mut by_tenant: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
    for (tenant, host) in hosts {
        if app.links.get(&host).is_some() {
            by_tenant.entry(tenant).or_default().push(host);
        }
    }
    for (tenant, hosts) in by_tenant {
        // So many at a time that the first hear of it before the last are read.
        for some in hosts.chunks(AT_ONCE) {
            for (host, numbered) in app.fleet.assignments().of_many(&tenant, some).await? {
                if let Some(handle) = app.links.get(&host) {
                    send(app, &host, &handle, numbered);
                }
            }
        }
    }
    Ok(())
}

/// Something was pushed: the hosts that follow the repository and are connected here look at it at once. Other
/// processes hear of it from the change log, when its new head is known.
pub(crate) async fn pushed(app: &Shared, tenant: &str, repository: &str) {
    app.links.note_push(repository);
    if let Err(error) = fetch(app, tenant, repository).await {
        tracing::warn!(error = %telemetry::chain(&error), "hosts could not be told of a push");
    }
}

async fn fetch(app: &Shared, tenant: &str, repository: &str) -> Result<(), fleet::Error> {
    let hosts = app
        .fleet
        .assignments()
        .hosts_of(tenant, "repository", [repository])
        .await?;
    for host in hosts {
        if let Some(handle) = app.links.get(&host) {
            let _ = handle.send(&ServerMessage::Signal { what: Signal::Fetch });
        }
    }
    Ok(())
}
