//! The audit log as a stream: one line at a time, however long it is.

use std::io;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use fleet::Caller;
use futures::stream;

use crate::{app::Shared, http::problem::Problem};

/// Lines of one read.
const STEP: usize = 1_000;

/// All lines, oldest first.
pub(super) async fn audit(app: &Shared, caller: &Caller) -> Result<Response, Problem> {
    // The first read says whether the caller may at all.
    let first = app.fleet.audit().export(caller, 0, STEP).await?;
    let (app, caller) = (app.clone(), caller.clone());
    let lines = stream::try_unfold(Some(first), move |have| {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            let Some(entries) = have else {
                return Ok(None);
            };
            let Some(last) = entries.last().map(|entry| entry.seq) else {
                return Ok(None);
            };
            let mut text = Vec::new();
            for entry in &entries {
                serde_json::to_writer(&mut text, entry).map_err(io::Error::other)?;
                text.push(b'\n');
            }
            let next = if entries.len() < STEP {
                None
            } else {
                Some(
                    app.fleet
                        .audit()
                        .export(&caller, last, STEP)
                        .await
                        .map_err(io::Error::other)?,
                )
            };
            Ok::<_, io::Error>(Some((Bytes::from(text), next)))
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"audit.ndjson\""),
    );
    Ok(response)
}
