//! `Idempotency-Key`: the same request again gets the stored answer.
//!
//! What makes a request safe to repeat is the identity of what it does; this spares clients from telling apart whether they were first, and
//! gives an identity to what has none: the chance that ids are made of, and the moment, stand with the key before the request runs. So
//! when a function dies half-way, the key may be taken over and the request run again: what it made is found made.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use domain::ids::Hash;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use store::{Answer, Remembered, StoreError, Transaction};
use workflows::Beginning;

use crate::caller::Caller;
use crate::problem::Problem;
use crate::{MAX_BODY, Shared};

pub const HEADER: &str = "idempotency-key";
const OPERATION: &str = "idempotency";
const MAX_KEY: usize = 255;
/// Longer than any request can run.
const TAKE_OVER_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Larger answers are not stored; the request's own identity still protects it.
const MAX_ANSWER: usize = 300_000;

pub async fn remember(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let key = request.headers().get(HEADER).cloned();
    match key {
        Some(key) if request.method() == Method::POST => {
            with_key(&shared, &key, request, next).await.unwrap_or_else(IntoResponse::into_response)
        }
        _ => next.run(request).await,
    }
}

/// How the request began: under a key that was taken before, as it began then.
#[derive(Debug)]
pub struct Begun(pub Beginning);

impl FromRequestParts<Shared> for Begun {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Beginning>().cloned().unwrap_or_else(|| shared.context.begin())))
    }
}

async fn with_key(shared: &Shared, key: &HeaderValue, request: Request, next: Next) -> Result<Response, Problem> {
    let fits = |key: &&str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|c| (b' '..=b'~').contains(&c));
    let key = key.to_str().ok().filter(fits);
    let key = key.ok_or_else(|| Problem::malformed("", "an Idempotency-Key has 1 to 255 ASCII characters"))?.to_owned();
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, shared).await?;
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| Problem::too_large())?;
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let digest = Hash::of(&[parts.method.as_str().as_bytes(), b" ", path.as_bytes(), b"\n", &body].concat());
    let beginning = shared.context.begin();
    // Transport time, whatever the business clock says.
    let begun = Remembered {
        caller: caller.subject,
        key,
        request: digest.to_string(),
        started_at: Timestamp::now(),
        revision: 1,
        answer: running(&beginning),
    };
    match begin(shared, begun, beginning).await? {
        Turn::Answered(answer) => Ok(answer),
        Turn::Ours(begun, beginning) => {
            parts.extensions.insert(beginning.clone());
            let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
            Ok(keep(shared, begun, &beginning, answer).await)
        }
    }
}

fn running(beginning: &Beginning) -> Answer {
    let Beginning { at, uuid, random, secret, again: _ } = beginning;
    Answer::Running { at: *at, chance: [*uuid, *random, secret[0], secret[1]].map(|part| format!("{part:032x}")) }
}

/// As it was begun before.
fn begun_again(at: Timestamp, chance: &[String; 4]) -> Result<Beginning, Problem> {
    let part = |n: usize| u128::from_str_radix(&chance[n], 16);
    match (part(0), part(1), part(2), part(3)) {
        (Ok(uuid), Ok(random), Ok(a), Ok(b)) => Ok(Beginning { at, uuid, random, secret: [a, b], again: true }),
        _ => Err(StoreError::Corrupt("a remembered request".to_owned()).into()),
    }
}

/// Whose turn it is.
enum Turn {
    /// The request was answered before.
    Answered(Response),
    /// The key is this request's.
    Ours(Remembered, Beginning),
}

/// Takes the key, or finds what was answered under it.
async fn begin(shared: &Shared, begun: Remembered, beginning: Beginning) -> Result<Turn, Problem> {
    let store = &shared.context.store;
    let mut transaction = Transaction::new(OPERATION);
    transaction.remember(&begun)?;
    match store.commit(transaction).await {
        Ok(()) => return Ok(Turn::Ours(begun, beginning)),
        Err(StoreError::Stale) => {}
        Err(error) => return Err(error.into()),
    }
    // Forgotten this very moment: whoever asks again finds the key free.
    let earlier = store.remembered(OPERATION, &begun.caller, &begun.key).await?.ok_or_else(Problem::still_running)?;
    if earlier.request != begun.request {
        return Err(Problem::reused_key());
    }
    let (at, chance) = match earlier.answer {
        Answer::Given { status, body, etag } => return Ok(Turn::Answered(given(status, body, etag))),
        Answer::Running { at, chance } => (at, chance),
    };
    if begun.started_at.duration_since(earlier.started_at) < TAKE_OVER_AFTER {
        return Err(Problem::still_running());
    }
    let beginning = begun_again(at, &chance)?;
    let taken = Remembered { revision: earlier.revision + 1, answer: running(&beginning), ..begun };
    let mut transaction = Transaction::new(OPERATION);
    transaction.remember_again(&taken, earlier.revision)?;
    match store.commit(transaction).await {
        Ok(()) => Ok(Turn::Ours(taken, beginning)),
        // Of several who would take it over, one does.
        Err(StoreError::Stale) => Err(Problem::still_running()),
        Err(error) => Err(error.into()),
    }
}

fn given(status: u16, body: String, etag: Option<String>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.extend(etag.and_then(|etag| Some((header::ETAG, etag.parse().ok()?))));
    response
}

/// Whether asking again could turn out better: the service, or what the caller may do, can be another then.
fn is_transient(status: StatusCode, answer: &str) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
        || has_transient_result(answer)
}

/// Whether a bulk call's answer holds one that could turn out better.
fn has_transient_result(answer: &str) -> bool {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let transient = |status: u64| status >= 500 || status == 429;
    results.iter().any(|result| result["problem"]["status"].as_u64().is_some_and(transient))
}

/// Keeps the answer, unless asking again could turn out better.
async fn keep(shared: &Shared, begun: Remembered, beginning: &Beginning, answer: Response) -> Response {
    let (parts, body) = answer.into_parts();
    let bytes: Bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let revision = begun.revision + 1;
    let kept = if is_transient(parts.status, &text) || text.len() > MAX_ANSWER {
        // As if it had died: the next try may run at once, and finds what this one did.
        let long_ago = begun.started_at.saturating_sub(TAKE_OVER_AFTER).unwrap_or(begun.started_at);
        Remembered { started_at: long_ago, revision, answer: running(beginning), ..begun }
    } else {
        let etag = parts.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let answer = Answer::Given { status: parts.status.as_u16(), body: text, etag };
        Remembered { revision, answer, ..begun }
    };
    let mut transaction = Transaction::new(OPERATION);
    let kept = match transaction.remember_again(&kept, revision - 1) {
        Ok(()) => shared.context.store.commit(transaction).await,
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        // What was done is done, and the client hears of it. A repeat is run again when the key may be taken over.
        tracing::warn!(%error, "an answer could not be remembered");
    }
    Response::from_parts(parts, Body::from(bytes))
}
