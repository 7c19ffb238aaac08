//! An API server by itself, to try clients on: `cargo run -p apiserver --example serve -- <folder> [port]`.
//!
//! Keys, kubeconfigs and the store are in the folder. Ends with Ctrl-C.

use std::{error::Error, path::PathBuf, sync::Arc};

use apiserver::{
    Api,
    http::{Listeners, Server, ServerOptions},
    tls::{Tls, TlsOptions},
};
use kinds::registry::Registry;
use store::{Options, SqliteStore};
use telemetry::{Clock, Metrics};
use tokio::net::{TcpListener, UnixListener};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    telemetry::init(telemetry::Format::Text, "info");
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: serve <folder> [port]")?);
    let port: u16 = arguments.next().map_or(Ok(6443), |port| port.parse())?;
    std::fs::create_dir_all(&dir)?;
    let clock = Clock::system();
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    let options = TlsOptions {
        dir: dir.join("pki"),
        config_dir: dir.clone(),
        names: Vec::new(),
        server: format!("https://{address}"),
        cluster: "try".into(),
    };
    let tls = Arc::new(Tls::open(options, &clock)?);
    let socket = dir.join("api.sock");
    let _ = std::fs::remove_file(&socket);
    let unix = UnixListener::bind(&socket)?;
    let store = Arc::new(SqliteStore::open(dir.join("site.db"), Options::default())?);
    let api = Api::new(Arc::new(Registry::builtin()), store, clock);
    api.ensure_namespaces(&["default", "kube-system"]).await?;
    let ending = tokio::spawn({
        let api = api.clone();
        async move { api.run_namespaces().await }
    });
    let server = Server::new(api, &Metrics::new(), ServerOptions::default());
    println!("https://{address}");
    println!("export KUBECONFIG={}", tls.admin_kubeconfig().display());
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    server
        .run(
            Listeners {
                tls: Some((vec![listener], tls)),
                unix: Some(unix),
            },
            stop,
        )
        .await;
    ending.abort();
    Ok(())
}
