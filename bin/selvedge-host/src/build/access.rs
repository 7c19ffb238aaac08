//! The ways into the API: its addresses, certificates and kubeconfigs.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use apiserver::{
    http::Listeners,
    tls::{Tls, TlsOptions},
};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen as start_listening,
        setsockopt, socket, sockopt,
    },
};
use telemetry::Clock;
use tokio::net::UnixListener;

use crate::config::Config;

/// Opens the API's sockets and certificates, and writes the kubeconfigs.
pub(super) fn listen(config: &Config, clock: &Clock) -> anyhow::Result<Listeners> {
    let addresses: Vec<IpAddr> = getifaddrs()
        .context("can't read the host's addresses")?
        .filter_map(|interface| ip(interface.address.as_ref()?))
        .filter(|address| !address.is_loopback())
        .collect();
    let (names, server) = names(config, &addresses);
    let options = TlsOptions {
        dir: config.paths.config.join("pki"),
        config_dir: config.paths.config.clone(),
        names,
        server,
        cluster: config.host.name.clone(),
    };
    let tls = Arc::new(Tls::open(options, clock).context("can't open the API's certificates")?);
    let mut tcp = Vec::new();
    for address in &config.api.listen {
        let listener =
            tcp_listener(*address).with_context(|| format!("api.listen: can't listen on {address}"))?;
        tcp.push(tokio::net::TcpListener::from_std(listener)?);
    }
    let unix = unix_listener(&config.paths.run.join("api.sock"))?;
    Ok(Listeners {
        tls: Some((tcp, tls)),
        unix: Some(unix),
    })
}

/// The names and addresses of the serving certificate, and the server that kubeconfigs name.
fn names(config: &Config, addresses: &[IpAddr]) -> (Vec<String>, String) {
    let mut names = BTreeSet::from([config.host.name.clone()]);
    names.extend(config.api.names.iter().cloned());
    let mut server = None;
    for listen in &config.api.listen {
        let here: Vec<IpAddr> = if listen.ip().is_unspecified() {
            addresses.to_vec()
        } else {
            vec![listen.ip()]
        };
        names.extend(here.iter().map(ToString::to_string));
        let best = here.iter().find(|a| a.is_ipv4()).or(here.first());
        server = server.or(best.map(|address| SocketAddr::new(*address, listen.port())));
    }
    let port = config.api.listen.first().map_or(6443, SocketAddr::port);
    let server = server.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)));
    (names.into_iter().collect(), format!("https://{server}"))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    // Link-local addresses are no use without their interface.
    address
        .as_sockaddr_in6()
        .map(|v6| v6.ip())
        .filter(|ip| !ip.is_unicast_link_local())
        .map(IpAddr::from)
}

/// A listener on an address that need not be there yet: the network may come up, or move to another
/// interface, after the daemon.
fn tcp_listener(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrStorage::from(address),
    )?;
    start_listening(&socket, Backlog::new(1024)?)?;
    Ok(TcpListener::from(socket))
}

/// The local socket. Whoever held it before is gone: the store's lock says that there is only one daemon.
fn unix_listener(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't remove the old socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("can't listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
