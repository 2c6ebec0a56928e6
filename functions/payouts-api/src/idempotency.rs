//! `Idempotency-Key`: the same request again gets the stored answer.
//!
//! What makes a request safe to repeat is the identity of what it does; this only spares clients from telling apart
//! whether they were first. So when a function dies half-way, the key may be taken over and the request run again.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use domain::ids::Hash;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use store::{Answer, Remembered, StoreError, Transaction};

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

async fn with_key(shared: &Shared, key: &HeaderValue, request: Request, next: Next) -> Result<Response, Problem> {
    let key = key.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
    let key = key
        .ok_or_else(|| Problem::malformed("", "an Idempotency-Key has 1 to 255 visible ASCII characters"))?
        .to_owned();
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, shared).await?;
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| Problem::too_large())?;
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let digest = Hash::of(&[parts.method.as_str().as_bytes(), b" ", path.as_bytes(), b"\n", &body].concat());
    // Transport time, whatever the business clock says.
    let begun = Remembered {
        caller: caller.subject,
        key,
        request: digest.to_string(),
        started_at: Timestamp::now(),
        answer: Answer::Running,
    };
    if let Some(answer) = begin(shared, &begun).await? {
        return Ok(answer);
    }
    let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
    store(shared, begun, answer).await
}

/// Takes the key, or returns the answer that was given under it.
async fn begin(shared: &Shared, begun: &Remembered) -> Result<Option<Response>, Problem> {
    let store = &shared.context.store;
    let mut transaction = Transaction::new(OPERATION);
    transaction.remember(begun)?;
    match store.commit(transaction).await {
        Ok(()) => return Ok(None),
        Err(StoreError::Stale) => {}
        Err(error) => return Err(error.into()),
    }
    let Some(earlier) = store.remembered(OPERATION, &begun.caller, &begun.key).await? else { return Ok(None) };
    if earlier.request != begun.request {
        return Err(Problem::reused_key());
    }
    match earlier.answer {
        Answer::Given { status, body } => Ok(Some(given(status, body))),
        Answer::Running if begun.started_at.duration_since(earlier.started_at) < TAKE_OVER_AFTER => {
            Err(Problem::still_running())
        }
        Answer::Running => {
            let mut transaction = Transaction::new(OPERATION);
            transaction.remember_again(begun)?;
            store.commit(transaction).await?;
            Ok(None)
        }
    }
}

fn given(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Whether a bulk call's answer holds one that could turn out better.
fn has_transient_result(answer: &str) -> bool {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    results.iter().any(|result| result["problem"]["status"].as_u64().is_some_and(|status| status >= 500))
}

/// Keeps the answer, unless asking again could turn out better.
async fn store(shared: &Shared, begun: Remembered, answer: Response) -> Result<Response, Problem> {
    let (parts, body) = answer.into_parts();
    let bytes: Bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let transient = parts.status.is_server_error() || has_transient_result(&text);
    let mut transaction = Transaction::new(OPERATION);
    if transient {
        // Forgotten at once: the next try may run.
        let long_ago = begun.started_at.saturating_sub(TAKE_OVER_AFTER).unwrap_or(begun.started_at);
        transaction.remember_again(&Remembered { started_at: long_ago, ..begun })?;
    } else if text.len() <= MAX_ANSWER {
        let answer = Answer::Given { status: parts.status.as_u16(), body: text };
        transaction.remember_again(&Remembered { answer, ..begun })?;
    }
    shared.context.store.commit(transaction).await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}
