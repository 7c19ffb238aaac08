//! What changes, as it changes: server-sent events, resumed by `Last-Event-ID`.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use fleet::changes::Subscription;
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    http::{auth::In, problem::Problem},
};

/// A comment that often, so that proxies keep the stream.
const ALIVE: Duration = Duration::from_secs(15);
/// Roles and sessions are looked at again by beginning anew: whoever lost theirs sees no more than this.
const LIFE: Duration = Duration::from_secs(300);

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// The data of a `change` event.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Change {
    /// Place in the log; also the event's id.
    seq: i64,
    /// What kind of object.
    kind: fleet::Kind,
    /// `upsert` or `delete`.
    op: fleet::Op,
    /// The object as lists have it; of one that is gone, id and name.
    #[schema(value_type = Object)]
    object: Value,
}

/// Changes of what the caller may see: `event: change` with a Change, `event: reset` when what came after
/// `Last-Event-ID` is no longer kept and everything must be read again.
#[utoipa::path(get, path = "/tenants/{tenant}/stream", tag = "overview", operation_id = "streamChanges",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("last-event-id" = Option<String>, Header, description = "The last id that was read")),
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream", body = Change)))]
async fn watch(State(app): State<Shared>, In(caller): In, headers: HeaderMap) -> Result<Response, Problem> {
    let after = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse::<i64>().ok());
    let events = match app.fleet.changes().subscribe(&caller, after).await {
        Ok(subscription) => events(app.clone(), subscription).boxed(),
        Err(fleet::Error::TooOld { .. }) => {
            // Then from now on; what was missed is read anew.
            let subscription = app.fleet.changes().subscribe(&caller, None).await?;
            let newest = app.fleet.changes().newest().await?;
            stream::iter([Ok(reset(newest))])
                .chain(events(app.clone(), subscription))
                .boxed()
        }
        Err(error) => return Err(error.into()),
    };
    let stop = app.stop.clone();
    let until = Instant::now() + LIFE;
    let events = events.take_until(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    });
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(ALIVE).text(""))
        .into_response();
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

fn reset(seq: i64) -> Event {
    Event::default().event("reset").id(seq.to_string()).data("{}")
}

/// Changes as they come; after a `reset` or a failure the stream ends, and the browser begins a new one.
fn events(app: Shared, subscription: Subscription) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some(subscription), move |subscription| {
        let app = app.clone();
        async move {
            let mut subscription = subscription?;
            match subscription.next().await {
                Ok(changes) => {
                    let events: Vec<_> = changes.iter().map(|change| Ok(event(change))).collect();
                    Some((stream::iter(events), Some(subscription)))
                }
                Err(fleet::Error::TooOld { .. }) => {
                    let newest = app.fleet.changes().newest().await.unwrap_or_default();
                    Some((stream::iter(vec![Ok(reset(newest))]), None))
                }
                Err(error) => {
                    tracing::debug!(error = %telemetry::chain(&error), "a stream of changes ended");
                    None
                }
            }
        }
    })
    .flatten()
}

fn event(change: &fleet::changes::Change) -> Event {
    Event::default()
        .event("change")
        .id(change.seq.to_string())
        .json_data(Change {
            seq: change.seq,
            kind: change.kind,
            op: change.op,
            object: Value::clone(&change.object),
        })
        .unwrap_or_else(|_| Event::default().comment("unreadable"))
}
