//! Signing in and out, and what one may change of oneself.

use axum::{
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use fleet::model::{Tenant, Time, User};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    http::{
        auth::{Address, COOKIE, Who, cookie},
        body::Json,
        problem::Problem,
    },
};

/// The cookie of a sign-in at a provider that is under way.
const OIDC_COOKIE: &str = "selvedge_oidc";

/// The largest body of a request here.
pub(super) const BODY: usize = 16 << 10;

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(sign_in, sign_out))
        .routes(routes!(me))
        .routes(routes!(password))
        .routes(routes!(totp_start, totp_confirm))
        .routes(routes!(oidc_start))
        .routes(routes!(oidc_callback))
}

/// Name and password.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct SignIn {
    /// User name.
    username: String,
    /// Password.
    password: String,
    /// Code of the second factor, if there is one.
    totp: Option<String>,
    /// Tenant; needed only if the name is known in several.
    tenant: Option<String>,
}

/// Who is signed in.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Me {
    /// The person; none for a token.
    user: Option<User>,
    /// The token's name; none for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Tenants that may be seen.
    tenants: Vec<Tenant>,
    /// To be sent as `X-CSRF-Token` with every change.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf: Option<String>,
    /// When the session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
}

/// Signs in; sets the cookie `selvedge_session`.
#[utoipa::path(post, path = "/session", tag = "session", operation_id = "signIn",
    request_body = SignIn,
    responses((status = 200, description = "Signed in", body = Me)))]
async fn sign_in(
    State(app): State<Shared>,
    Address(from): Address,
    headers: HeaderMap,
    Json(sent): Json<SignIn>,
) -> Result<Response, Problem> {
    crate::http::auth::require_origin(&headers, &app.config)?;
    let person = app
        .fleet
        .people()
        .sign_in(
            sent.tenant.as_deref().filter(|name| !name.is_empty()),
            &sent.username,
            &sent.password,
            sent.totp.as_deref().filter(|code| !code.is_empty()),
            &from,
        )
        .await?;
    open(&app, &person, &from).await.map(IntoResponse::into_response)
}

async fn open(
    app: &Shared,
    person: &fleet::people::Person,
    from: &str,
) -> Result<impl IntoResponse + use<>, Problem> {
    let new = app.fleet.sessions().create(person, from).await?;
    let session = app
        .fleet
        .sessions()
        .find(&new.secret)
        .await?
        .ok_or_else(|| Problem::unauthorized("the session ended at once"))?;
    let who = Who::Session {
        session,
        secret: new.secret.clone(),
        from: from.to_owned(),
    };
    let me = describe(app, &who).await?;
    Ok((
        [(
            header::SET_COOKIE,
            set_cookie(COOKIE, &new.secret, "Strict", "/", None)?,
        )],
        axum::Json(me),
    ))
}

async fn describe(app: &Shared, who: &Who) -> Result<Me, Problem> {
    let caller = who.at_home(app).await?;
    let tenants = app.fleet.tenants().list(&caller).await?;
    Ok(match who {
        Who::Token(caller) => Me {
            user: None,
            token: Some(caller.actor.clone()),
            tenants,
            csrf: None,
            expires_at: None,
        },
        Who::Session { session, .. } => Me {
            user: Some(app.fleet.sessions().user(session).await?),
            token: None,
            tenants,
            csrf: Some(session.csrf.clone()),
            expires_at: Some(session.expires_at),
        },
    })
}

fn set_cookie(
    name: &str,
    value: &str,
    same_site: &str,
    path: &str,
    age: Option<u32>,
) -> Result<HeaderValue, Problem> {
    let age = age.map(|age| format!("; Max-Age={age}")).unwrap_or_default();
    HeaderValue::from_str(&format!(
        "{name}={value}; Path={path}; HttpOnly; Secure; SameSite={same_site}{age}"
    ))
    .map_err(|error| Problem::internal(&error))
}

/// Signs out.
#[utoipa::path(delete, path = "/session", tag = "session", operation_id = "signOut",
    responses((status = 204, description = "Signed out")))]
async fn sign_out(State(app): State<Shared>, who: Who) -> Result<Response, Problem> {
    if let Who::Session { secret, .. } = &who {
        app.fleet.sessions().end(secret).await?;
    }
    let gone = set_cookie(COOKIE, "", "Strict", "/", Some(0))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response())
}

/// Who one is, and the CSRF token.
#[utoipa::path(get, path = "/me", tag = "session", operation_id = "getMe",
    responses((status = 200, description = "Who is signed in", body = Me)))]
async fn me(State(app): State<Shared>, who: Who) -> Result<Response, Problem> {
    Ok(axum::Json(describe(&app, &who).await?).into_response())
}

fn person(who: &Who) -> Result<(&fleet::people::Session, &str), Problem> {
    match who {
        Who::Session { session, from, .. } => Ok((session, from)),
        Who::Token(_) => Err(Problem::forbidden("this is for people, not for tokens")),
    }
}

/// A change of password.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Passwords {
    /// The password until now.
    current: String,
    /// The one from now on.
    new: String,
    /// Code of the second factor, if there is one.
    totp: Option<String>,
}

/// Changes one's password; ends all other sessions.
#[utoipa::path(post, path = "/me/password", tag = "session", operation_id = "changePassword",
    request_body = Passwords,
    responses((status = 200, description = "Changed; this is a new session", body = Me)))]
async fn password(
    State(app): State<Shared>,
    who: Who,
    Json(sent): Json<Passwords>,
) -> Result<Response, Problem> {
    let (session, from) = person(&who)?;
    let caller = who.at_home(&app).await?;
    app.fleet
        .people()
        .set_own_password(&caller, &sent.current, &sent.new)
        .await?;
    let person = app
        .fleet
        .people()
        .sign_in(
            Some(&session.tenant_id),
            &session.username,
            &sent.new,
            sent.totp.as_deref(),
            from,
        )
        .await?;
    open(&app, &person, from).await.map(IntoResponse::into_response)
}

/// The second factor before it counts.
#[derive(Serialize, utoipa::ToSchema)]
struct Totp {
    /// The secret in base32, for typing.
    secret: String,
    /// The same as a URL, for a QR code.
    url: String,
}

/// Begins a second factor.
#[utoipa::path(post, path = "/me/totp", tag = "session", operation_id = "startTotp",
    responses((status = 200, description = "To be put into an authenticator", body = Totp)))]
async fn totp_start(State(app): State<Shared>, who: Who) -> Result<Response, Problem> {
    person(&who)?;
    let caller = who.at_home(&app).await?;
    let start = app.fleet.people().start_totp(&caller).await?;
    Ok(axum::Json(Totp {
        secret: start.secret,
        url: start.url,
    })
    .into_response())
}

/// A code of the authenticator.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Code {
    /// Six digits.
    code: String,
}

/// Makes the second factor count, by a code of it.
#[utoipa::path(put, path = "/me/totp", tag = "session", operation_id = "confirmTotp",
    request_body = Code,
    responses((status = 204, description = "It is asked from now on")))]
async fn totp_confirm(
    State(app): State<Shared>,
    who: Who,
    Json(sent): Json<Code>,
) -> Result<Response, Problem> {
    person(&who)?;
    let caller = who.at_home(&app).await?;
    app.fleet.people().confirm_totp(&caller, &sent.code).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Where to go after a sign-in.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Start {
    /// A place in the page, as `/t/acme`.
    next: Option<String>,
}

fn provider(app: &Shared) -> Result<&crate::oidc::Provider, Problem> {
    app.oidc
        .as_ref()
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no OpenID Connect provider is set up here"))
}

/// Why nobody came in by the provider. A browser is shown it by the page at `/login`; its words are the page's, so that
/// no link can put others there.
struct Refusal {
    why: &'static str,
    problem: Problem,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let why = match problem.status() {
            StatusCode::FORBIDDEN => "role",
            StatusCode::CONFLICT => "taken",
            _ => "failed",
        };
        Self { why, problem }
    }
}

impl From<fleet::Error> for Refusal {
    fn from(error: fleet::Error) -> Self {
        let disabled = matches!(error, fleet::Error::Unauthenticated);
        let mut refusal = Self::from(Problem::from(error));
        if disabled {
            refusal.why = "disabled";
        }
        refusal
    }
}

impl Refusal {
    fn answer(self, headers: &HeaderMap) -> Response {
        let person = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
        if person {
            Redirect::to(&format!("/login?oidc={}", self.why)).into_response()
        } else {
            self.problem.into_response()
        }
    }
}

/// Sends the browser to the provider.
#[utoipa::path(get, path = "/oidc/start", tag = "session", operation_id = "startOidc", params(Start),
    responses((status = 303, description = "To the provider")))]
async fn oidc_start(State(app): State<Shared>, headers: HeaderMap, Query(start): Query<Start>) -> Response {
    match to_provider(&app, start).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(&headers),
    }
}

async fn to_provider(app: &Shared, start: Start) -> Result<Response, Refusal> {
    let provider = provider(app)?;
    let next = start.next.unwrap_or_default();
    let (url, sealed) = provider.start(&next).await.map_err(|error| {
        tracing::warn!(error = %format!("{error:#}"), "the OIDC provider can't be used");
        Refusal {
            why: "away",
            problem: Problem::busy(
                StatusCode::BAD_GATEWAY,
                "the sign-in provider can't be reached; the log says why",
                10,
            ),
        }
    })?;
    let cookie = set_cookie(OIDC_COOKIE, &sealed, "Lax", "/api/v1/oidc", Some(600))?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&url)).into_response())
}

/// What the provider sends back.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Callback {
    /// The code.
    code: Option<String>,
    /// What we sent.
    state: Option<String>,
    /// Why not.
    error: Option<String>,
}

/// Takes the browser back from the provider.
#[utoipa::path(get, path = "/oidc/callback", tag = "session", operation_id = "finishOidc", params(Callback),
    responses((status = 303, description = "To the page, signed in")))]
async fn oidc_callback(
    State(app): State<Shared>,
    Address(from): Address,
    parts: Parts,
    Query(sent): Query<Callback>,
) -> Response {
    match from_provider(&app, &from, &parts.headers, sent).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(&parts.headers),
    }
}

async fn from_provider(
    app: &Shared,
    from: &str,
    headers: &HeaderMap,
    sent: Callback,
) -> Result<Response, Refusal> {
    let provider = provider(app)?;
    if sent.error.is_some() {
        return Err(Refusal {
            why: "declined",
            problem: Problem::unauthorized("the provider did not sign you in"),
        });
    }
    let (Some(code), Some(state)) = (sent.code, sent.state) else {
        return Err(Problem::bad_request("code and state are missing").into());
    };
    let sealed = cookie(headers, OIDC_COOKIE).unwrap_or_default();
    let (found, next) = provider.finish(&sealed, &state, &code).await.map_err(|error| {
        tracing::warn!(error = %format!("{error:#}"), from, "a sign-in by OIDC failed");
        Problem::unauthorized(error.to_string())
    })?;
    let tenant = app
        .fleet
        .tenants()
        .find(provider.tenant())
        .await?
        .ok_or_else(|| Problem::conflict("oidc.tenant names no tenant that is here"))?;
    let person = app
        .fleet
        .people()
        .sign_in_oidc(
            &tenant.id,
            &fleet::people::OidcPerson {
                issuer: provider.issuer().to_owned(),
                subject: found.subject,
                username: found.username,
                email: found.email,
                display_name: found.name,
                admitted: found.role.is_some(),
            },
            from,
        )
        .await?;
    // What the provider's groups say counts from this sign-in on.
    if !give_role(app, &tenant.id, &person.user, found.role, provider.gives_roles()).await? {
        return Err(
            Problem::forbidden("no group of yours gives you a role here: ask an owner for one").into(),
        );
    }
    let new = app.fleet.sessions().create(&person, from).await?;
    let mut response = Redirect::to(&next).into_response();
    for cookie in [
        set_cookie(COOKIE, &new.secret, "Strict", "/", None)?,
        set_cookie(OIDC_COOKIE, "", "Lax", "/api/v1/oidc", Some(0))?,
    ] {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Makes the role in the whole tenant what the provider's groups say, if they say anything of roles here; what an owner
/// gave for parts of the tenant stays. False when there is no role at all.
async fn give_role(
    app: &Shared,
    tenant: &str,
    user: &User,
    role: Option<fleet::Role>,
    by_groups: bool,
) -> Result<bool, Problem> {
    let system = fleet::Caller::system(tenant, "oidc");
    let (mut has, mut other) = (false, false);
    for binding in &user.bindings {
        if !by_groups || binding.scope != fleet::Scope::All {
            other = true;
        } else if Some(binding.role) == role {
            has = true;
        } else {
            app.fleet.bindings().delete(&system, &binding.id, None).await?;
        }
    }
    let Some(role) = role.filter(|_| !has) else {
        return Ok(has || other);
    };
    let spec = fleet::model::BindingSpec {
        user: user.username.clone(),
        role,
        scope: fleet::Scope::All,
    };
    app.fleet.bindings().create(&system, &spec).await?;
    Ok(true)
}
