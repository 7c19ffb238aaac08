//! HTTP over a stream of a link: one request, one stream. Answers flow as they come (watches, logs), and upgrades
//! (exec, attach, port-forward; SPDY or WebSocket alike) become a tunnel of bytes.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    time::timeout,
};

use crate::http::problem::Problem;

/// A host that has not begun to answer by then is not well.
const ANSWER: Duration = Duration::from_secs(60);

/// Headers of one hop (RFC 9110, 7.6.1), those by which one could be taken for another, and those by which a host's
/// answer would speak for the orchestrator to a browser.
const DROPPED: [&str; 17] = [
    "alt-svc",
    "authorization",
    "clear-site-data",
    "cookie",
    "set-cookie",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "x-csrf-token",
    "x-forwarded-for",
    "x-remote-user",
    "x-remote-group",
];

/// Sends a request through a stream and gives the answer.
pub(crate) async fn forward<S>(
    mut request: Request<Body>,
    path_and_query: &str,
    stream: S,
) -> Result<Response<Body>, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |_| Problem::new(StatusCode::BAD_GATEWAY, "the host broke off before it answered");
    let upgrade = wants_upgrade(request.headers());
    let mut inner = Request::builder()
        .method(request.method().clone())
        .uri(
            path_and_query
                .parse::<Uri>()
                .map_err(|_| Problem::bad_request("the path can't be sent to the host"))?,
        )
        .body(Body::empty())
        .map_err(|_| Problem::bad_request("the request can't be sent to the host"))?;
    *inner.headers_mut() = kept(request.headers(), upgrade);
    inner
        .headers_mut()
        .insert(header::HOST, HeaderValue::from_static("selvedge-host"));
    let ours = upgrade.then(|| hyper::upgrade::on(&mut request));
    *inner.body_mut() = std::mem::take(request.body_mut());
    let (mut sender, connection) = timeout(
        ANSWER,
        hyper::client::conn::http1::handshake(TokioIo::new(stream)),
    )
    .await
    .map_err(|_| slow())?
    .map_err(broken)?;
    // Ends when the answer has been read or its reader is gone.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let mut response = timeout(ANSWER, sender.send_request(inner))
        .await
        .map_err(|_| slow())?
        .map_err(broken)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(ours) = ours else {
            return Err(Problem::new(
                StatusCode::BAD_GATEWAY,
                "the host changed the protocol without being asked",
            ));
        };
        let theirs = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else {
                return;
            };
            let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
            let _ = copy_bidirectional(&mut ours, &mut theirs).await;
        });
        let (parts, _) = response.into_parts();
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = parts.headers;
        return Ok(answer);
    }
    let (mut parts, body) = response.into_parts();
    parts.headers = kept(&parts.headers, false);
    // The connection lives as long as somebody may send; the sender goes with the body.
    let body = Body::new(Held {
        body,
        _sender: sender,
    });
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    Ok(answer)
}

fn slow() -> Problem {
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        "the host did not answer within a minute",
    )
}

/// Whether a client asks to leave HTTP.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case("upgrade"))
}

/// The headers that go on.
fn kept(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    // What `Connection` names is of this hop too.
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|item| item.trim().to_ascii_lowercase())
        .collect();
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let of_hop = name == header::CONNECTION || name == header::UPGRADE;
        let dropped = DROPPED.contains(&name.as_str())
            || name.as_str().starts_with("impersonate-")
            || named.iter().any(|item| item == name.as_str());
        if (of_hop && upgrade) || (!of_hop && !dropped) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// A body that keeps its connection.
struct Held {
    body: hyper::body::Incoming,
    _sender: hyper::client::conn::http1::SendRequest<Body>,
}

impl hyper::body::Body for Held {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A header that a request must not have: the tunnel alone says who asks.
pub(crate) fn impersonates(headers: &HeaderMap) -> Option<&HeaderName> {
    headers
        .keys()
        .find(|name| name.as_str().starts_with("impersonate-"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A host: echoes what it got, or changes to a protocol that answers in capitals.
    fn host() -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(4_096);
        tokio::spawn(async move {
            let service = service_fn(|mut request: Request<hyper::body::Incoming>| async move {
                if wants_upgrade(request.headers()) {
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let mut io = TokioIo::new(upgrade.await.unwrap());
                        let mut chunk = [0; 64];
                        while let Ok(n @ 1..) = io.read(&mut chunk).await {
                            io.write_all(chunk[..n].to_ascii_uppercase().as_slice())
                                .await
                                .unwrap();
                        }
                        io.shutdown().await.unwrap();
                    });
                    let answer = Response::builder()
                        .status(101)
                        .header("connection", "Upgrade")
                        .header("upgrade", "SPDY/3.1")
                        .body(Body::empty())
                        .unwrap();
                    return Ok::<_, Infallible>(answer);
                }
                let seen = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
                let answer = Response::builder()
                    .header("set-cookie", "selvedge_session=hosts")
                    .header("warning", "299 - \"deprecated\"");
                Ok(answer.body(Body::from(seen)).unwrap())
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service)
                .with_upgrades()
                .await;
        });
        ours
    }

    #[tokio::test]
    async fn credentials_stay_here_and_the_path_goes_on() {
        let request = Request::builder()
            .uri("/k8s/acme/berlin/api/v1/pods?watch=1")
            .header("authorization", "Bearer slv_secret")
            .header("cookie", "selvedge_session=x")
            .header("impersonate-user", "system:admin")
            .header("connection", "x-odd")
            .header("x-odd", "1")
            .header("accept", "application/json")
            .body(Body::empty())
            .unwrap();
        assert_eq!(impersonates(request.headers()).unwrap(), "impersonate-user");
        let answer = forward(request, "/api/v1/pods?watch=1", host()).await.unwrap();
        // A host sets no cookies of ours.
        assert!(!answer.headers().contains_key("set-cookie"));
        assert!(answer.headers().contains_key("warning"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let seen = String::from_utf8(body.to_vec()).unwrap();
        assert!(seen.starts_with("GET /api/v1/pods?watch=1 "), "{seen}");
        assert!(seen.contains("application/json"), "{seen}");
        for gone in ["secret", "cookie", "impersonate", "x-odd"] {
            assert!(!seen.contains(gone), "{seen}");
        }
    }

    #[tokio::test]
    async fn an_upgrade_is_a_tunnel() {
        // A client of a server that forwards, as in life.
        let (client, server) = tokio::io::duplex(4_096);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let answer = forward(request.map(Body::new), "/exec", host()).await.unwrap();
                Ok::<_, Infallible>(answer)
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(server), service)
                .with_upgrades()
                .await;
        });
        let mut client = client;
        client
            .write_all(b"POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
            .await
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 101") && head.contains("spdy/3.1"),
            "{head}"
        );
        client.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HELLO");
    }

    #[tokio::test]
    async fn a_host_that_breaks_off_is_a_bad_gateway() {
        let (ours, theirs) = tokio::io::duplex(64);
        drop(theirs);
        let request = Request::builder().uri("/x").body(Body::empty()).unwrap();
        let problem = forward(request, "/x", ours).await.unwrap_err();
        assert_eq!(problem.status(), 502);
    }
}
