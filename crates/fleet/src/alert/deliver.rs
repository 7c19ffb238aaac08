//! Sending one message.

use std::time::Duration;

use aws_lc_rs::hmac;
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::header::ContentType,
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};
use serde_json::Value;

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The server for e-mail.
#[derive(Clone)]
pub struct Smtp {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: SmtpTls,
    /// User name and password, if it wants them.
    pub credentials: Option<(String, String)>,
    /// Whom messages come from, `Selvedge <alerts@example.com>`.
    pub from: String,
    /// Certificates to trust beside the system's, PEM.
    pub ca_pem: Option<String>,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// How a connection to a server for e-mail is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// Not at all: for a server on the same machine.
    None,
    /// STARTTLS, required.
    StartTls,
    /// From the first byte.
    Tls,
}

/// Why a message was not delivered. Carries neither secrets nor what the other side answered beyond its status.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The address or the message is wrong: trying again is of no use.
    #[error("{0}")]
    Wrong(String),
    /// The webhook answered something else than success.
    #[error("the webhook answered {0}")]
    Status(u16),
    /// The webhook could not be reached.
    #[error("the webhook can't be reached")]
    Http(#[source] reqwest::Error),
    /// The mail server could not be reached or refused.
    #[error("the mail server did not take it")]
    Smtp(#[source] lettre::transport::smtp::Error),
    /// There is no server for e-mail.
    #[error("no server for e-mail is configured")]
    NoSmtp,
    /// It took too long.
    #[error("there was no answer within {} s", PATIENCE.as_secs())]
    TooSlow,
}

/// The value of `X-Selvedge-Signature`.
#[must_use]
pub fn signature(secret: &[u8], seconds: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    format!("t={seconds},v1={}", crate::log::hex(tag.as_ref()))
}

/// Posts a message to a webhook.
pub(super) async fn webhook(
    client: &reqwest::Client,
    url: &str,
    secret: &[u8],
    id: &str,
    body: &str,
    seconds: i64,
) -> Result<(), DeliverError> {
    let request = client
        .post(url)
        .timeout(PATIENCE)
        .header("Content-Type", "application/json")
        .header("X-Selvedge-Delivery", id)
        .header("X-Selvedge-Signature", signature(secret, seconds, body))
        .body(body.to_owned());
    // The address may carry a secret of the receiver's.
    let answer = request
        .send()
        .await
        .map_err(|e| DeliverError::Http(e.without_url()))?;
    let status = answer.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(DeliverError::Status(status.as_u16()))
    }
}

/// The connection to the server for e-mail.
pub(super) fn transport(smtp: &Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>, DeliverError> {
    let wrong = |e: lettre::transport::smtp::Error| DeliverError::Wrong(format!("smtp: {e}"));
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .timeout(Some(PATIENCE));
    if smtp.tls != SmtpTls::None {
        let mut parameters = TlsParameters::builder(smtp.host.clone());
        if let Some(pem) = &smtp.ca_pem {
            let certificate =
                lettre::transport::smtp::client::Certificate::from_pem(pem.as_bytes()).map_err(wrong)?;
            parameters = parameters.add_root_certificate(certificate);
        }
        let parameters = parameters.build().map_err(wrong)?;
        builder = builder.tls(if smtp.tls == SmtpTls::Tls {
            Tls::Wrapper(parameters)
        } else {
            Tls::Required(parameters)
        });
    }
    if let Some((user, password)) = &smtp.credentials {
        builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
    }
    Ok(builder.build())
}

/// Sends a message as e-mail.
pub(super) async fn email(
    transport: &AsyncSmtpTransport<Tokio1Executor>,
    from: &str,
    to: &[String],
    id: &str,
    body: &str,
) -> Result<(), DeliverError> {
    let wrong = |e: &dyn std::fmt::Display| DeliverError::Wrong(format!("e-mail: {e}"));
    let value: Value = serde_json::from_str(body).map_err(|e| wrong(&e))?;
    let alert = &value["alert"];
    let text = |key: &str| alert[key].as_str().unwrap_or_default();
    let event = match value["event"].as_str() {
        Some("resolved") => "resolved".to_owned(),
        _ => text("severity").to_owned(),
    };
    // A line break in a title must not become a header; lettre encodes, and this keeps the subject readable.
    let title: String = text("title")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut message = Message::builder()
        .from(from.parse().map_err(|e| wrong(&e))?)
        .subject(format!("[{event}] {title}"))
        .message_id(Some(format!("<{id}@selvedge>")))
        .header(ContentType::TEXT_PLAIN);
    for address in to {
        message = message.to(address.parse().map_err(|e| wrong(&e))?);
    }
    let mut lines = vec![
        text("title").to_owned(),
        String::new(),
        text("message").to_owned(),
        String::new(),
    ];
    for (name, value) in [
        ("tenant", value["tenant"].as_str()),
        ("site", alert["site"].as_str()),
        ("host", alert["host"].as_str()),
        ("since", alert["firstAt"].as_str()),
        ("over since", alert["resolvedAt"].as_str()),
    ] {
        lines.extend(value.map(|value| format!("{name}: {value}")));
    }
    let message = message.body(lines.join("\r\n")).map_err(|e| wrong(&e))?;
    match tokio::time::timeout(PATIENCE, transport.send(message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is_permanent() => {
            // The server's own words, as `535: bad credentials`, say what to change.
            let said: String = error.to_string().chars().take(200).collect();
            Err(DeliverError::Wrong(format!("the mail server refuses it: {said}")))
        }
        Ok(Err(error)) => Err(DeliverError::Smtp(error)),
        Err(_) => Err(DeliverError::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn signatures_are_plain_hmac() {
        // printf '1.{}' | openssl dgst -sha256 -hmac key
        let hex = "1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224";
        let signed = super::signature(b"key", 1, "{}");
        assert_eq!(signed, format!("t=1,v1={hex}"));
        assert_ne!(signed, super::signature(b"key2", 1, "{}"));
        assert_ne!(
            signed[7..],
            super::signature(b"key", 2, "{}")[7..],
            "the time is signed too"
        );
    }
}
