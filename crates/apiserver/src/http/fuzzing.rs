//! Doors for the fuzz targets, which stand outside of this crate. Only in their builds.

use super::{decode, negotiate, path::Target, query::Query};

/// What the head of a request is read into: its path, its query and what it accepts.
///
/// # Panics
/// When a path leads to a name that is itself a path.
pub fn request_head(path: &str, query: &str, accept: &str) {
    if let Target::Resource(resource) = Target::parse(path) {
        for part in [
            &resource.namespace,
            &resource.name,
            &resource.subresource,
            &resource.gvr.plural,
        ] {
            assert!(
                !part.contains(['/', '\0']) && part != "." && part != "..",
                "{part:?}"
            );
        }
    }
    if let Ok(query) = Query::parse(query) {
        let _ = negotiate::output(Some(accept), &query);
        let _ = (query.flag("watch"), query.number("limit"));
    }
    let _ = negotiate::aggregated(Some(accept));
    let _ = negotiate::wants_v2_protobuf(Some(accept));
    let _ = negotiate::takes_gzip(Some(accept));
}

/// The body of a request with this content type, as an object.
#[must_use]
pub fn request_body(content_type: &str, body: &[u8]) -> Option<serde_json::Value> {
    let format = negotiate::format(Some(content_type)).ok()?;
    Some(decode::object(body, format).ok()?.object)
}
