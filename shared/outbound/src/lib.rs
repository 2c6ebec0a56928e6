//! HTTP calls to systems of others: rate sources, processors, accounting, webhooks.
//!
//! Whatever may be named in a setting is called under the same bounds: https only, a public address (the name is resolved once, and the
//! connection goes to what was looked at, so that no second answer can lead elsewhere), no redirects, a time limit, and an answer of
//! bounded size. Callers must be able to tell "nothing was sent" from "nobody knows", so that is what errors say.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod guard;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{Request, Response};

pub use guard::is_public;

/// How long one call may take, and how much it may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub time: Duration,
    pub answer_bytes: usize,
}

impl Limits {
    /// For addresses that anybody may have set: webhooks and rate sources.
    pub const SMALL: Self = Self { time: Duration::from_secs(5), answer_bytes: 64 * 1024 };
    /// For the APIs of processors and accounting systems.
    pub const API: Self = Self { time: Duration::from_secs(30), answer_bytes: 4 * 1024 * 1024 };
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent.
    #[error("the call was not made: {0}")]
    NotSent(String),
    /// It may have been received and acted upon.
    #[error("the call was made, and what came of it is unknown: {0}")]
    Unknown(String),
}

/// What carries a request. The real one is [`Outbound::guarded`]; the simulator has one without a network.
pub trait Transport: Send + Sync {
    fn call(&self, request: Request<Bytes>, limits: Limits) -> BoxFuture<'_, Result<Response<Bytes>, CallError>>;
}

/// The way out. Cheap to clone; connections are kept open between calls.
#[derive(Clone)]
pub struct Outbound {
    transport: Arc<dyn Transport>,
    limits: Limits,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Outbound {
    /// To public addresses, by https.
    pub fn guarded(limits: Limits) -> Result<Self, CallError> {
        Ok(Self::over(Client::new(guard::Reach::Public)?, limits))
    }

    /// To this machine and nowhere else: for the local system and tests, whose counterparts run beside them.
    pub fn loopback(limits: Limits) -> Result<Self, CallError> {
        Ok(Self::over(Client::new(guard::Reach::Loopback)?, limits))
    }

    pub fn over(transport: impl Transport + 'static, limits: Limits) -> Self {
        Self { transport: Arc::new(transport), limits }
    }

    /// The same way out under other limits.
    #[must_use]
    pub fn within(&self, limits: Limits) -> Self {
        Self { transport: Arc::clone(&self.transport), limits }
    }

    /// One call. Any answer is an answer, whatever its status.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        self.transport.call(request, self.limits).await
    }
}

struct Client {
    http: reqwest::Client,
    reach: guard::Reach,
}

impl Client {
    fn new(reach: guard::Reach) -> Result<Self, CallError> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(guard::Resolver(reach)))
            .no_proxy()
            .https_only(reach == guard::Reach::Public)
            .build()
            .map_err(not_sent)?;
        Ok(Self { http, reach })
    }

    async fn send(&self, request: Request<Bytes>, limits: Limits) -> Result<Response<Bytes>, CallError> {
        let mut request = reqwest::Request::try_from(request).map_err(not_sent)?;
        self.reach.check_host(request.url()).map_err(CallError::NotSent)?;
        *request.timeout_mut() = Some(limits.time);
        let sent = self.http.execute(request).await;
        let mut answer = sent
            .map_err(|error| if error.is_connect() || error.is_builder() { not_sent(error) } else { unknown(error) })?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(unknown)? {
            if body.len() + chunk.len() > limits.answer_bytes {
                return Err(CallError::Unknown(format!("its answer is over {} bytes", limits.answer_bytes)));
            }
            body.extend_from_slice(&chunk);
        }
        let mut whole = Response::new(body.freeze());
        *whole.status_mut() = answer.status();
        *whole.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(whole)
    }
}

impl Transport for Client {
    fn call(&self, request: Request<Bytes>, limits: Limits) -> BoxFuture<'_, Result<Response<Bytes>, CallError>> {
        Box::pin(self.send(request, limits))
    }
}

/// The address may hold what is secret, so it is left out.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(because) = cause {
        told = format!("{told}: {because}");
        cause = because.source();
    }
    told
}

fn not_sent(error: reqwest::Error) -> CallError {
    CallError::NotSent(told(error))
}

fn unknown(error: reqwest::Error) -> CallError {
    CallError::Unknown(told(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one connection with these bytes, or closes it once the request is read.
    async fn serve(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
        });
        at
    }

    fn get(url: String) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    #[tokio::test]
    async fn what_is_inside_is_never_called() {
        let at = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec()).await;
        let outbound = Outbound::guarded(Limits::SMALL).unwrap();
        for url in [
            format!("http://{at}/"),
            format!("https://{at}/"),
            format!("https://localhost:{}/", at.port()),
            "https://169.254.169.254/latest/meta-data/".to_owned(),
            "https://[::1]/".to_owned(),
            "https://[::ffff:127.0.0.1]/".to_owned(),
            "ftp://example.com/".to_owned(),
        ] {
            let refused = outbound.call(get(url.clone())).await;
            assert!(matches!(refused, Err(CallError::NotSent(_))), "{url}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_taken_as_it_is_and_redirects_are_not_followed() {
        let outbound = Outbound::loopback(Limits::SMALL).unwrap();
        let at =
            serve(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\nhi".to_vec()).await;
        let answer = outbound.call(get(format!("http://{at}/"))).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (302, b"hi".as_slice()));
    }

    #[tokio::test]
    async fn a_lost_answer_is_unknown_and_a_closed_port_is_not_sent() {
        let outbound = Outbound::loopback(Limits::SMALL).unwrap();
        let lost = outbound.call(get(format!("http://{}/", serve(Vec::new()).await))).await;
        assert!(matches!(lost, Err(CallError::Unknown(_))), "{lost:?}");
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let refused = outbound.call(get(format!("http://{closed}/"))).await;
        assert!(matches!(refused, Err(CallError::NotSent(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn an_answer_is_bounded_in_size_and_time() {
        let small = Limits { time: Duration::from_millis(300), answer_bytes: 10 };
        let outbound = Outbound::loopback(small).unwrap();
        let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{}", "x".repeat(11));
        let large = outbound.call(get(format!("http://{}/", serve(long.into_bytes()).await))).await;
        assert!(matches!(&large, Err(CallError::Unknown(why)) if why.contains("10 bytes")), "{large:?}");
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let late = outbound.call(get(format!("http://{}/", silent.local_addr().unwrap()))).await;
        assert!(matches!(late, Err(CallError::Unknown(_))), "{late:?}");
    }
}
