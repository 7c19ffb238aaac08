//! A WebSocket of the orchestrator: consoles.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::{
    ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::ServerName, pki_types::pem::PemObject,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, client::IntoClientRequest, http::HeaderValue},
};

use super::{Fleet, Refused, contexts::Context};

impl Fleet {
    /// Opens a WebSocket.
    pub(crate) async fn socket(&self, path: &str) -> anyhow::Result<WebSocketStream<TlsStream<TcpStream>>> {
        let context = &self.context;
        let address = context
            .url
            .strip_prefix("https://")
            .context("the orchestrator's address is not https://")?;
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse::<u16>().context("a port is a number")?)
            }
            _ => (address, 443),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, port))
            .await
            .with_context(|| format!("{} does not answer", context.url))?;
        tcp.set_nodelay(true)?;
        let name =
            ServerName::try_from(host.to_owned()).context("the orchestrator's name is no host name")?;
        let tls = TlsConnector::from(Arc::new(tls(context)?))
            .connect(name, tcp)
            .await
            .with_context(|| format!("no secure connection to {}", context.url))?;
        let mut request = format!("wss://{address}{path}").into_client_request()?;
        if let Some(credential) = &context.credential {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", credential.bearer()))
                .context("the stored credential can't be sent")?;
            value.set_sensitive(true);
            request.headers_mut().insert("authorization", value);
        }
        match client_async(request, tls).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let mut refused: Refused = serde_json::from_slice(&body).unwrap_or_default();
                refused.status = response.status().as_u16();
                Err(refused.into())
            }
            Err(error) => bail!("no console: {error}"),
        }
    }
}

fn tls(context: &Context) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &context.ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate.context("the orchestrator's CA is damaged")?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
