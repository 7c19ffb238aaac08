//! What goes on in the background, in every process or in the one that leads.
//!
//! | task | where | when |
//! |---|---|---|
//! | serving certificate: read again, or renewed | every process | each 30 s |
//! | this process's own beat | every process | each 3 s |
//! | authorities and revocations | every process | on changes, and each minute |
//! | assignments to hosts | every process, for its own hosts | on changes |
//! | look at repositories | the leader | each `repositories.poll` |
//! | give freed memory back | every process | each 30 s |
//! | forget what is old | the leader | each 10 min |
//! | rollouts, alerts | the leader (they hold their own lease) | on changes |

pub(crate) mod poll;

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use fleet::alert::{Smtp, SmtpTls};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use crate::{app::Shared, links, tls};

const BEAT: Duration = Duration::from_secs(3);
const TRUST: Duration = Duration::from_secs(60);
const TRIM: Duration = Duration::from_secs(30);
const FORGET: Duration = Duration::from_secs(600);
/// How long a leader leads after its last word.
pub(crate) const TERM: Duration = Duration::from_secs(10);

/// Starts them; each ends when the process shall.
pub(crate) fn start(app: &Shared, tasks: &TaskTracker) -> anyhow::Result<()> {
    let spawn = |name: &'static str, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stop = app.stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => tracing::error!(name, "a background task ended"),
            }
        });
    };
    let each = |name: &'static str, period: Duration, work: Work| {
        let app = app.clone();
        spawn(
            name,
            Box::pin(async move {
                let mut ticks = interval(period);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    if let Err(error) = work(app.clone()).await {
                        tracing::warn!(task = name, error = %format!("{error:#}"), "a background task failed; it is tried again");
                    }
                }
            }),
        );
    };
    each("certificate", tls::LOOK, |app| {
        Box::pin(async move {
            if app.certificates.look()? {
                tracing::info!("the serving certificate was renewed");
            }
            Ok(())
        })
    });
    each("beat", BEAT, |app| {
        Box::pin(async move {
            let peer = app.config.server.peer.clone().unwrap_or_default();
            Ok(app.fleet.nodes().beat(&app.node, &peer).await?)
        })
    });
    each("trust", TRUST, |app| {
        Box::pin(async move {
            app.links.sweep(app.clock.now());
            Ok(links::trust::refresh(&app).await?)
        })
    });
    each("repositories", app.config.repositories.poll, |app| {
        Box::pin(async move { poll::all(&app).await })
    });
    each("memory", TRIM, |_| {
        Box::pin(async move { Ok(tokio::task::spawn_blocking(heap::trim).await?) })
    });
    each("forget", FORGET, |app| {
        Box::pin(async move { forget(&app).await })
    });
    each("alone", BEAT, |app| {
        Box::pin(async move {
            if leads(&app).await? {
                app.fleet.nodes().reap(&app.node, TERM).await?;
                app.fleet.sweep().await?;
            }
            Ok(())
        })
    });
    let fleet = app.fleet.clone();
    spawn(
        "listen",
        Box::pin(async move {
            fleet.changes().listen().await;
            // On SQLite there is nobody to hear of.
            std::future::pending::<()>().await;
        }),
    );
    spawn("tell", Box::pin(links::tell::run(app.clone())));
    let driver = fleet::rollout::Driver::new(app.fleet.clone(), &app.node)
        .reading(Arc::new(poll::Source(app.clone())));
    spawn("rollouts", Box::pin(driver.run()));
    let watch = fleet::alert::Watch::new(app.fleet.clone(), &app.node, fleet::alert::Thresholds::default());
    spawn("alerts", Box::pin(watch.run()));
    let courier = fleet::alert::Courier::new(app.fleet.clone(), &app.node, smtp(app)?.as_ref(), None)
        .context("the courier of alerts can't be set up")?;
    spawn("courier", Box::pin(courier.run()));
    Ok(())
}

/// How mail leaves, if it does.
fn smtp(app: &Shared) -> anyhow::Result<Option<Smtp>> {
    let Some(smtp) = &app.config.smtp else {
        return Ok(None);
    };
    let (tls, port) = match smtp.security.as_str() {
        "none" => (SmtpTls::None, 25),
        "tls" => (SmtpTls::Tls, 465),
        _ => (SmtpTls::StartTls, 587),
    };
    let credentials = match (&smtp.username, &smtp.password_file) {
        (Some(user), Some(file)) => {
            let password = crate::config::read_secret(file).context("smtp.password_file")?;
            Some((user.clone(), password))
        }
        _ => None,
    };
    let ca_pem = match &smtp.ca_file {
        Some(file) => Some(
            std::fs::read_to_string(file)
                .with_context(|| format!("smtp.ca_file: can't read {}", file.display()))?,
        ),
        None => None,
    };
    Ok(Some(Smtp {
        host: smtp.host.clone(),
        port: smtp.port.unwrap_or(port),
        tls,
        credentials,
        from: smtp.from.clone(),
        ca_pem,
    }))
}

type Work = fn(Shared) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Whether this process leads.
pub(crate) async fn leads(app: &Shared) -> Result<bool, fleet::Error> {
    app.fleet.nodes().lead("server", &app.node, TERM).await
}

async fn forget(app: &Shared) -> anyhow::Result<()> {
    if leads(app).await? {
        app.fleet.usage().condense().await?;
        app.fleet.changes().prune().await?;
        app.fleet.people().forget_tries().await?;
    }
    Ok(())
}
