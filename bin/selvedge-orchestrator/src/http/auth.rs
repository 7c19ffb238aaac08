//! Who asks: a session's cookie (with its CSRF token when something is changed) or an API token.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, Method, header, request::Parts},
};
use fleet::Caller;

use super::problem::Problem;
use crate::{app::Shared, config::Config, hooks::same, serve::From};

/// The cookie of a session.
pub(crate) const COOKIE: &str = "selvedge_session";
/// The header that repeats the session's CSRF token.
pub(crate) const CSRF: &str = "x-csrf-token";

/// Who asks, before it is known in which tenant.
pub(crate) enum Who {
    /// A person with a browser or the command line.
    Session {
        /// What the database knows of it.
        session: fleet::people::Session,
        /// What the cookie holds.
        secret: String,
        /// From where.
        from: String,
    },
    /// A program.
    Token(Box<Caller>),
}

impl Who {
    /// The caller in a tenant, by name or id. A stranger there is told that there is no such tenant.
    pub(crate) async fn within(&self, app: &Shared, asked: &str) -> Result<Caller, Problem> {
        let found = app.fleet.tenants().find(asked).await?;
        let Some(tenant) = found else {
            return Err(no_tenant(asked));
        };
        match self {
            Self::Token(caller) if caller.tenant == tenant.id => Ok((**caller).clone()),
            Self::Token(_) => Err(no_tenant(asked)),
            Self::Session { session, from, .. } => {
                match app.fleet.sessions().caller(session, &tenant.id, from).await {
                    Err(
                        fleet::Error::NotFound { .. }
                        | fleet::Error::Denied { .. }
                        | fleet::Error::Forbidden { .. },
                    ) => Err(no_tenant(asked)),
                    other => Ok(other?),
                }
            }
        }
    }

    /// The caller in the tenant that the credentials are of.
    pub(crate) async fn at_home(&self, app: &Shared) -> Result<Caller, Problem> {
        match self {
            Self::Token(caller) => Ok((**caller).clone()),
            Self::Session { session, from, .. } => Ok(app
                .fleet
                .sessions()
                .caller(session, &session.tenant_id, from)
                .await?),
        }
    }
}

fn no_tenant(name: &str) -> Problem {
    fleet::Error::not_found("tenant", name).into()
}

impl FromRequestParts<Shared> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        identify(parts, app).await
    }
}

async fn identify(parts: &Parts, app: &Shared) -> Result<Who, Problem> {
    let from = address(parts, &app.config);
    if let Some(token) = bearer(&parts.headers) {
        return by_bearer(app, token, &from).await;
    }
    let Some(secret) = cookie(&parts.headers, COOKIE) else {
        return Err(Problem::unauthorized("sign in, or send an API token")
            .next("POST /api/v1/session, or send Authorization: Bearer TOKEN"));
    };
    let Some(session) = app.fleet.sessions().find(&secret).await? else {
        return Err(Problem::unauthorized("the session is over; sign in again"));
    };
    let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if safe {
        // A WebSocket is opened by any page with our cookie: the origin tells.
        if parts.headers.contains_key(header::UPGRADE) {
            require_origin(&parts.headers, &app.config)?;
        }
    } else {
        let sent = parts.headers.get(CSRF).and_then(|value| value.to_str().ok());
        if !sent.is_some_and(|sent| same(sent, &session.csrf)) {
            return Err(Problem::forbidden("the request lacks the session's CSRF token")
                .next("send the csrf of POST /session or GET /me as X-CSRF-Token"));
        }
    }
    Ok(Who::Session {
        session,
        secret,
        from,
    })
}

/// Who sent `Authorization: Bearer`: a program with its token, or a person's own tool with their session. A header is
/// never sent by a browser on its own, so it needs no CSRF token.
pub(crate) async fn by_bearer(app: &Shared, token: &str, from: &str) -> Result<Who, Problem> {
    if token.starts_with("slv_") {
        let caller = program(app, token, from).await?;
        return Ok(Who::Token(Box::new(caller)));
    }
    let Some(session) = app.fleet.sessions().find(token).await? else {
        return Err(Problem::unauthorized(
            "the token or session is not known, or over",
        ));
    };
    Ok(Who::Session {
        session,
        secret: token.to_owned(),
        from: from.to_owned(),
    })
}

/// The caller that an API token stands for. Tokens that are for Git open nothing else.
pub(crate) async fn program(app: &Shared, token: &str, from: &str) -> Result<Caller, Problem> {
    let caller = app.fleet.tokens().authenticate(token, from).await?;
    if crate::git::credential::of(&caller).is_some() {
        return Err(Problem::forbidden("this token is for Git only"));
    }
    Ok(caller)
}

/// Refuses a request that a page of another site made.
pub(crate) fn require_origin(headers: &HeaderMap, config: &Config) -> Result<(), Problem> {
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let good = match origin {
        // Not a browser.
        None => true,
        Some(origin) => {
            origin == config.url() || host.is_some_and(|host| origin == format!("https://{host}"))
        }
    };
    if good {
        Ok(())
    } else {
        Err(Problem::forbidden("the request comes from another site's page"))
    }
}

/// The address that a request came from; a trusted proxy may say whom it stands for.
pub(crate) fn address(parts: &Parts, config: &Config) -> String {
    let Some(From(direct)) = parts.extensions.get::<From>() else {
        return String::new();
    };
    let direct = direct.to_canonical();
    if config.server.trusted_proxies.contains(&direct)
        && let Some(list) = parts.headers.get("x-forwarded-for").and_then(|v| v.to_str().ok())
        && let Some(last) = list.rsplit(',').map(str::trim).find_map(|item| {
            let address: std::net::IpAddr = item.parse().ok()?;
            (!config.server.trusted_proxies.contains(&address)).then_some(address)
        })
    {
        return last.to_string();
    }
    direct.to_string()
}

/// The token in `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A cookie.
pub(crate) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// The caller in the tenant that the path names.
pub(crate) struct In(pub(crate) Caller);

impl FromRequestParts<Shared> for In {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        // The idempotency layer asked already.
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(Self(caller.clone()));
        }
        let who = identify(parts, app).await?;
        let path = RawPathParams::from_request_parts(parts, app)
            .await
            .map_err(|_| Problem::not_found())?;
        let tenant = path
            .iter()
            .find(|(key, _)| *key == "tenant")
            .map(|(_, value)| value.to_owned())
            .ok_or_else(Problem::not_found)?;
        who.within(app, &tenant).await.map(Self)
    }
}

/// The address that a request came from.
pub(crate) struct Address(pub(crate) String);

impl FromRequestParts<Shared> for Address {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Self::Rejection> {
        Ok(Self(address(parts, &app.config)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_and_tokens_are_found() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; selvedge_session=x=y".parse().unwrap());
        headers.append(header::COOKIE, "b=2".parse().unwrap());
        assert_eq!(cookie(&headers, COOKIE).unwrap(), "x=y");
        assert_eq!(cookie(&headers, "b").unwrap(), "2");
        assert_eq!(cookie(&headers, "session"), None);
        headers.insert(header::AUTHORIZATION, "bearer slv_1".parse().unwrap());
        assert_eq!(bearer(&headers), Some("slv_1"));
        headers.insert(header::AUTHORIZATION, "Basic slv_1".parse().unwrap());
        assert_eq!(bearer(&headers), None);
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let config: Config =
            toml::from_str("[server]\nurl = \"https://o\"\ntrusted_proxies = [\"10.0.0.1\"]\n").unwrap();
        let parts = |direct: &str, forwarded: &str| {
            let mut request = axum::http::Request::builder()
                .header("x-forwarded-for", forwarded)
                .body(())
                .unwrap();
            request.extensions_mut().insert(From(direct.parse().unwrap()));
            request.into_parts().0
        };
        assert_eq!(
            address(&parts("10.0.0.1", "1.2.3.4, 5.6.7.8"), &config),
            "5.6.7.8"
        );
        assert_eq!(
            address(&parts("10.0.0.1", "5.6.7.8, 10.0.0.1"), &config),
            "5.6.7.8"
        );
        assert_eq!(address(&parts("10.0.0.2", "1.2.3.4"), &config), "10.0.0.2");
        assert_eq!(address(&parts("10.0.0.1", "nonsense"), &config), "10.0.0.1");
        assert_eq!(address(&parts("::ffff:10.0.0.9", ""), &config), "10.0.0.9");
    }
}
