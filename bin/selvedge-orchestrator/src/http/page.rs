//! The web page: files built from `web/`, embedded in the binary.
//!
//! A checkout without a built page still compiles; it then shows a plain page that says how to build one.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Mutex, OnceLock, PoisonError},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use super::problem::Problem;

#[derive(rust_embed::RustEmbed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Dist;

/// What is shown when there is no built page.
const FALLBACK: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>Selvedge</title></head>\
<body><h1>Selvedge orchestrator</h1><p>This binary was built without its web page: run \
<code>npm ci &amp;&amp; npm run build</code> in <code>web/</code> and build again. The API is at \
<code>/api/v1</code>, described by <a href=\"/api/v1/openapi.json\">its OpenAPI document</a>, and the \
<code>selvedge</code> command uses it.</p></body></html>\n";

/// Below this a compressed answer is no shorter on the wire.
const WORTH_COMPRESSING: usize = 1_400;

/// Paths that programs use: a page in their place would only hide the mistake.
const PROGRAMS: [&str; 8] = [
    "/api", "/git", "/hooks", "/enroll", "/k8s", "/link", "/metrics", "/peer",
];

/// Any path that no other route takes.
pub(crate) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response<Body> {
    use axum::response::IntoResponse;

    let path = uri.path();
    if PROGRAMS.iter().any(|prefix| {
        path == *prefix
            || path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with('/'))
    }) {
        return Problem::not_found().into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, "a page can only be read").into_response();
    }
    let name = path.trim_start_matches('/');
    if let Some(file) = Dist::get(name).filter(|_| !name.is_empty()) {
        return answer(
            name,
            file.data.as_ref(),
            &hex(&file.metadata.sha256_hash()),
            &headers,
        );
    }
    // A file that is not there is an error; anything else is a place within the page.
    if name.starts_with("assets/") {
        return Problem::not_found().into_response();
    }
    match Dist::get("index.html") {
        Some(file) => answer(
            "index.html",
            file.data.as_ref(),
            &hex(&file.metadata.sha256_hash()),
            &headers,
        ),
        None => answer("index.html", FALLBACK.as_bytes(), "fallback", &headers),
    }
}

fn answer(name: &str, data: &[u8], hash: &str, headers: &HeaderMap) -> Response<Body> {
    let accepts = |coding: &str| {
        headers
            .get(header::ACCEPT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| {
                value.split(',').any(|item| {
                    let mut parts = item.split(';').map(str::trim);
                    parts.next() == Some(coding) && !parts.any(|part| part == "q=0" || part == "q=0.0")
                })
            })
    };
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    let (body, coding) = if let (true, Some(brotli)) = (accepts("br"), Dist::get(&format!("{name}.br"))) {
        (Bytes::from(brotli.data.into_owned()), Some("br"))
    } else if accepts("gzip") && data.len() >= WORTH_COMPRESSING && is_text(name) {
        (gzip(hash, data), Some("gzip"))
    } else {
        (Bytes::copy_from_slice(data), None)
    };
    let tag = format!(
        "\"{}{}\"",
        &hash[..hash.len().min(32)],
        coding.unwrap_or_default()
    );
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(header::ETAG, tag);
    }
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|item| item.trim() == tag));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    if let Some(coding) = coding {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    *response.body_mut() = Body::from(body);
    response
}

/// Each file is compressed once in the life of the process.
fn gzip(hash: &str, data: &[u8]) -> Bytes {
    static DONE: OnceLock<Mutex<HashMap<String, Bytes>>> = OnceLock::new();
    let done = DONE.get_or_init(Mutex::default);
    if let Some(found) = done.lock().unwrap_or_else(PoisonError::into_inner).get(hash) {
        return found.clone();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to a Vec can't fail.
    let _ = encoder.write_all(data);
    let packed = Bytes::from(encoder.finish().unwrap_or_default());
    done.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(hash.to_owned(), packed.clone());
    packed
}

fn is_text(name: &str) -> bool {
    matches!(
        name.rsplit('.').next(),
        Some("html" | "js" | "css" | "svg" | "json" | "map" | "txt" | "webmanifest")
    )
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("wasm") => "application/wasm",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(path: &str, headers: &[(&'static str, &str)]) -> Response<Body> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        serve(Method::GET, path.parse().unwrap(), map).await
    }

    #[tokio::test]
    async fn any_place_is_the_page_but_not_those_of_programs() {
        let page = get("/t/acme/sites", &[]).await;
        assert_eq!(page.status(), 200);
        assert!(page.headers()["content-type"].to_str().unwrap().contains("html"));
        assert_eq!(page.headers()["cache-control"], "no-cache");
        for path in ["/api/v2/x", "/git/a", "/assets/none.js"] {
            assert_eq!(get(path, &[]).await.status(), 404, "{path}");
        }
        assert_eq!(get("/gitops", &[]).await.status(), 200);
    }

    #[tokio::test]
    async fn what_is_known_is_not_sent_again() {
        let first = get("/", &[]).await;
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(get("/", &[("if-none-match", &tag)]).await.status(), 304);
        assert_eq!(get("/", &[("if-none-match", "\"other\"")]).await.status(), 200);
    }
}
