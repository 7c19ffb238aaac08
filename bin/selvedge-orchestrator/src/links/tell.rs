//! What hosts are told: assignments that changed, revocations, pushes.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fleet::Kind;
use link::{
    message::{Assignment, ServerMessage, Signal},
    server::Handle,
};

use crate::app::{App, Shared};

/// A host said which assignment it has: note it, and send the right one if it is another.
pub(crate) async fn said(
    app: &Shared,
    tenant: &str,
    host: &str,
    handle: &Handle,
    generation: u64,
    refused: Option<&str>,
) -> Result<(), fleet::Error> {
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
                everything(&app).await;
                loop {
                    match tail.next().await {
                        Ok(changes) => {
                            for change in &changes {
                                if let Err(error) = tell(&app, change).await {
                                    tracing::warn!(error = %telemetry::chain(&error), "hosts could not be told of a change");
                                }
                            }
                        }
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        tracing::warn!(error = %telemetry::chain(&failed), "the change log can't be read");
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
}

async fn tell(app: &Shared, change: &fleet::changes::Raw) -> Result<(), fleet::Error> {
    match change.kind {
        Kind::Assignment => {
            for host in app
                .fleet
                .assignments()
                .hosts_of(&change.tenant, &change.name, &change.id)
                .await?
            {
                if let Some(handle) = app.links.get(&host)
                    && let Some(numbered) = app.fleet.assignments().of(&change.tenant, &host).await?
                {
                    send(app, &host, &handle, numbered);
                }
            }
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
    Ok(())
}

/// Compares every host that is connected here with what it should be told.
async fn everything(app: &Shared) {
    for (tenant, host) in app.links.all() {
        if let Some(handle) = app.links.get(&host)
            && let Ok(Some(numbered)) = app.fleet.assignments().of(&tenant, &host).await
        {
            send(app, &host, &handle, numbered);
        }
    }
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
        .hosts_of(tenant, "repository", repository)
        .await?;
    for host in hosts {
        if let Some(handle) = app.links.get(&host) {
            let _ = handle.send(&ServerMessage::Signal { what: Signal::Fetch });
        }
    }
    Ok(())
}
