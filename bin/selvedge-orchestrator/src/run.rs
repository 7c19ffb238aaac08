//! `run`: everything, until a signal; then an orderly end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{App, Shared},
    config::Config,
    files, http, links,
    serve::{self, Others, Server},
    tasks,
    tls::Configs,
};

/// Requests under way have this long to end.
const DRAIN: Duration = Duration::from_secs(20);

/// Hosts and other processes, for the listener.
struct Sessions(Shared);

impl Others for Sessions {
    async fn link(self: Arc<Self>, stream: TlsStream<TcpStream>, from: SocketAddr) {
        links::session::run(self.0.clone(), stream, from).await;
    }

    async fn peer(self: Arc<Self>, stream: TlsStream<TcpStream>) {
        links::peer::serve(self.0.clone(), stream).await;
    }
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    serve::open_files::allow(config.limits.connections);
    let listeners = serve::bind(&config.server.listen).await?;
    // Nobody puts another database in the place of this one meanwhile.
    let _held = files::hold(&config.server.data, false)?;
    let app = App::build(config, stop.clone()).await?;
    links::trust::refresh(&app).await?;
    if app.fleet.tenants().authorities().await?.is_empty() {
        tracing::info!(
            "there is nobody yet: make the first owner with `selvedge-orchestrator admin create --tenant NAME --user NAME --password-file FILE`"
        );
    }
    let tracker = TaskTracker::new();
    tasks::start(&app, &tracker)?;
    let server = Server {
        configs: Configs::new(app.certificates.clone(), &app.verifier, &app.clock)?,
        router: http::router(&app),
        others: Arc::new(Sessions(app.clone())),
        limits: app.config.limits.clone(),
        stop: stop.clone(),
    };
    tracing::info!(
        listen = ?app.config.server.listen,
        url = app.config.url(),
        node = app.node,
        "ready"
    );
    let mut serving = tokio::spawn(server.run(listeners, DRAIN));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                if let Err(error) = app.certificates.look() {
                    tracing::warn!(error = %format!("{error:#}"), "the serving certificate can't be read");
                }
            }
            ended = &mut serving => anyhow::bail!("the server ended by itself: {ended:?}"),
        }
    }
    tracing::info!("stopping");
    stop.cancel();
    // Each host waits a while of its own: the other processes, or this one started again, are not overrun.
    app.links.drain(spread(app.links.count()));
    let _ = serving.await;
    tracker.close();
    let _ = tokio::time::timeout(Duration::from_secs(5), tracker.wait()).await;
    let _ = app.fleet.nodes().leave(&app.node).await;
    tracing::info!("stopped");
    Ok(())
}

/// Over how long hosts come back: at most 500 each second, and never longer than two minutes.
fn spread(hosts: usize) -> Duration {
    let seconds = u64::try_from(hosts / 500).unwrap_or(u64::MAX);
    Duration::from_secs(seconds.clamp(1, 120))
}
