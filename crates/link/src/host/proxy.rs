//! HTTP proxies: a tunnel with CONNECT (RFC 9110, section 9.3.6).

use std::{env, fmt, io};

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The longest answer head of a proxy that is read.
const HEAD_MAX: usize = 8 * 1024;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

/// Why a proxy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Not an address of an HTTP proxy.
    #[error(
        "the proxy's address is not like http://proxy.example:3128 (user:password@ may stand before the name)"
    )]
    Address,
    /// It wants a name and password, or others.
    #[error("the proxy wants a user name and password, or others than it was given")]
    Authorization,
    /// It said no.
    #[error("the proxy refused the tunnel: {0}")]
    Refused(String),
    /// It speaks no HTTP.
    #[error("what answers at the proxy's address is no HTTP proxy")]
    Nonsense,
    /// The connection to it broke.
    #[error("the connection to the proxy broke")]
    Io(#[from] io::Error),
}

impl Proxy {
    /// Reads `http://user:password@proxy:3128`.
    pub fn parse(url: &str) -> Result<Self, ProxyError> {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        if rest.contains("://") {
            return Err(ProxyError::Address);
        }
        let rest = rest.trim_end_matches('/');
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (host, port) = split_address(address, 3128).ok_or(ProxyError::Address)?;
        let authorization = user.map(|user| {
            let user = percent_decode_str(user).collect::<Vec<u8>>();
            format!("Basic {}", STANDARD.encode(user))
        });
        Ok(Self {
            host,
            port,
            authorization,
        })
    }

    /// What the environment says for a server: `HTTPS_PROXY`, else `ALL_PROXY`, unless `NO_PROXY` names it (upper or
    /// lower case).
    pub fn from_env(host: &str) -> Result<Option<Self>, ProxyError> {
        let get = |name: &str| {
            let value = env::var(name).or_else(|_| env::var(name.to_ascii_lowercase()));
            value.ok().filter(|value| !value.is_empty())
        };
        Self::choose(host, &get)
    }

    fn choose(host: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, ProxyError> {
        let Some(url) = get("HTTPS_PROXY").or_else(|| get("ALL_PROXY")) else {
            return Ok(None);
        };
        if get("NO_PROXY").is_some_and(|list| is_excepted(&list, host)) {
            return Ok(None);
        }
        Self::parse(&url).map(Some)
    }

    /// Asks for a tunnel on a connection to the proxy.
    pub(crate) async fn tunnel(&self, tcp: &mut TcpStream, host: &str, port: u16) -> Result<(), ProxyError> {
        let bracketed = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.into()
        };
        let target = format!("{bracketed}:{port}");
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request += &format!("Proxy-Authorization: {authorization}\r\n");
        }
        request += "\r\n";
        tcp.write_all(request.as_bytes()).await?;
        let head = read_head(tcp).await?;
        let line = head.lines().next().unwrap_or_default();
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        let code = words.next().and_then(|code| code.parse::<u16>().ok());
        match code {
            Some(code) if version.starts_with("HTTP/1.") => match code {
                200..=299 => Ok(()),
                // tinyproxy says 401 to a wrong password, against the RFC.
                401 | 407 => Err(ProxyError::Authorization),
                _ => Err(ProxyError::Refused(line.chars().take(120).collect())),
            },
            _ => Err(ProxyError::Nonsense),
        }
    }
}

/// Reads to the empty line and not a byte further: what follows is the server's.
async fn read_head(tcp: &mut TcpStream) -> Result<String, ProxyError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX {
            return Err(ProxyError::Nonsense);
        }
        head.push(tcp.read_u8().await?);
    }
    String::from_utf8(head).map_err(|_| ProxyError::Nonsense)
}

/// Splits `name:port`, `name`, `[v6]:port`.
pub(crate) fn split_address(address: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, rest.strip_prefix(':'))
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default,
    };
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '@');
    (!host.is_empty() && !host.contains(bad)).then(|| (host.into(), port))
}

/// Whether `NO_PROXY` names a host: itself, a domain that it is in, or `*`.
fn is_excepted(list: &str, host: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            let entry = entry.trim_start_matches('.');
            let under = host.len() > entry.len()
                && host.is_char_boundary(host.len() - entry.len())
                && host[host.len() - entry.len()..].eq_ignore_ascii_case(entry)
                && host.as_bytes()[host.len() - entry.len() - 1] == b'.';
            entry == "*" || host.eq_ignore_ascii_case(entry) || under
        })
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proxies_are_read_and_passwords_are_not_shown() {
        let proxy = Proxy::parse("http://ada:s%40cret@proxy.example:8080/").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 8080));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic YWRhOnNAY3JldA=="));
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.example:8080)");
        assert_eq!(Proxy::parse("proxy.example").unwrap().port, 3128);
        for bad in [
            "",
            "https://proxy.example",
            "socks5://x",
            "http://a b",
            "http://a:x",
            "http://a/path",
        ] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environment_is_followed() {
        let choose = |host: &str, settings: &[(&str, &str)]| {
            let settings: Vec<(String, String)> = settings
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect();
            let get = |name: &str| {
                settings
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value.clone())
            };
            Proxy::choose(host, &get).unwrap().map(|proxy| proxy.host)
        };
        assert_eq!(choose("fleet.example", &[]), None);
        assert_eq!(
            choose(
                "fleet.example",
                &[("HTTPS_PROXY", "http://a:1"), ("ALL_PROXY", "http://b:1")]
            ),
            Some("a".into())
        );
        assert_eq!(
            choose("fleet.example", &[("ALL_PROXY", "http://b:1")]),
            Some("b".into())
        );
        for (list, direct) in [
            ("*", true),
            ("fleet.example", true),
            (".example", true),
            ("example", true),
            ("other, FLEET.example", true),
            ("leet.example", false),
            ("xample", false),
            ("", false),
        ] {
            let chosen = choose(
                "fleet.example",
                &[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", list)],
            );
            assert_eq!(chosen.is_none(), direct, "{list}");
        }
    }
}
