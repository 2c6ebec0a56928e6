//! The services on one HTTP/1 endpoint, for programs that cannot be given a connector.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;

use crate::Embedded;
use crate::aws_json;

/// The largest request `DynamoDB` takes, and more than the others do.
const BODY_LIMIT: usize = 16 * 1024 * 1024;
/// How long a client may take to finish its request once the server shuts down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How long to wait when no connection can be accepted, typically for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn serve(embedded: Embedded, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    let connections = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let embedded = embedded.clone();
        let service = service_fn(move |request| answer(embedded.clone(), request));
        let connection = connections.watch(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    if tokio::time::timeout(SHUTDOWN_GRACE, connections.shutdown()).await.is_err() {
        tracing::debug!("a connection was still busy at shutdown");
    }
}

async fn answer(embedded: Embedded, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::GET && parts.uri.path() == "/" {
        // Scripts wait for the endpoint by asking for its root.
        return Ok(plain(StatusCode::OK, "ready\n"));
    }
    Ok(match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => embedded.handle(Request::from_parts(parts, body.to_bytes())).map(Full::new),
        Err(_) => plain(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large or was cut off.\n"),
    })
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    aws_json::response(status, "text/plain", Bytes::from_static(text.as_bytes())).map(Full::new)
}
