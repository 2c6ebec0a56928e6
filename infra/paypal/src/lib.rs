//! What stands for PayPal where there is no PayPal: its Payouts API over real HTTP on this machine, with the manners that matter.
//!
//! A batch of a name that was used before is refused as PayPal refuses it, with a link to the first; tokens end; items change their
//! state when they are told to, and then a webhook is made, signed so that only `verify-webhook-signature` here takes it. What goes wrong
//! is switched on and off by [`Counterpart::set_faults`].
//!
//! What it never does: forget by itself (PayPal forgets names after 30 days), take money, or call anybody.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use data_encoding::{BASE32, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tower::ServiceExt;

/// The app that may sign in.
pub const CLIENT_ID: &str = "counterpart-client";
pub const CLIENT_SECRET: &str = "counterpart-secret";
/// The webhook its deliveries are signed for.
pub const WEBHOOK_ID: &str = "1JE4291016473214C";
/// Calls that one access token is good for, where tokens end early.
const SHORT_LIFE: u32 = 1;

/// How likely each thing is, from 0 to 1. What is left out does not happen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// The same seed and the same calls give the same faults.
    pub seed: u64,
    /// The connection breaks before anything was done.
    pub lost_before_apply: f64,
    /// It was done, and the connection breaks before the answer.
    pub lost_after_apply: f64,
    /// 500, before anything was done.
    pub server_error: f64,
    /// 503, and yet it was done.
    pub server_error_after_apply: f64,
    /// 429.
    pub throttle: f64,
    /// The access token is not good any more.
    pub expire_token: f64,
}

impl Faults {
    /// The first that is no probability.
    pub fn wrong(&self) -> Option<&'static str> {
        [
            ("lostBeforeApply", self.lost_before_apply),
            ("lostAfterApply", self.lost_after_apply),
            ("serverError", self.server_error),
            ("serverErrorAfterApply", self.server_error_after_apply),
            ("throttle", self.throttle),
            ("expireToken", self.expire_token),
        ]
        .into_iter()
        .find_map(|(name, odds)| (!(0.0..=1.0).contains(&odds)).then_some(name))
    }
}

/// One payment that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    pub payout_item_id: String,
    pub payout_batch_id: String,
    /// The sender's names of batch and item.
    pub sender_batch_id: String,
    pub sender_item_id: String,
    pub recipient_type: String,
    pub receiver: String,
    pub recipient_wallet: String,
    pub value: String,
    pub currency: String,
    pub note: String,
    /// Like `SUCCESS`.
    pub transaction_status: String,
    pub transaction_id: Option<String>,
    /// What it says where it failed.
    pub error: Option<(String, String)>,
}

#[derive(Debug)]
struct Books {
    /// In the order in which they were asked for.
    items: Vec<Item>,
    /// Tokens, and the calls each is still good for.
    tokens: BTreeMap<String, u32>,
    issued: u64,
    faults: Faults,
    chance: fastrand::Rng,
    /// What the next batches are refused with: name, message, status.
    refuse: Option<(String, String, u16)>,
    /// How a payment stands as soon as it is taken.
    at_once: String,
    /// Names of batches that are not known again.
    forgotten: BTreeSet<String>,
    calls: u64,
}

/// Clones share the books.
#[derive(Debug, Clone)]
pub struct Counterpart(Arc<Mutex<Books>>);

impl Default for Counterpart {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Books {
            items: Vec::new(),
            tokens: BTreeMap::new(),
            issued: 0,
            faults: Faults::default(),
            chance: fastrand::Rng::with_seed(0),
            refuse: None,
            at_once: "PENDING".to_owned(),
            forgotten: BTreeSet::new(),
            calls: 0,
        })))
    }
}

/// A webhook delivery: headers and body.
pub type Delivery = (HeaderMap, String);

impl Counterpart {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_faults(&self, faults: Faults) {
        let mut books = self.books();
        books.chance = fastrand::Rng::with_seed(faults.seed);
        books.faults = faults;
    }

    /// Refuses batches with this from now on; `None`: takes them.
    pub fn refuse(&self, with: Option<(&str, &str, u16)>) {
        self.books().refuse = with.map(|(name, message, status)| (name.to_owned(), message.to_owned(), status));
    }

    /// How payments stand as soon as they are taken: `PENDING` unless said otherwise.
    pub fn settle_at_once(&self, status: &str) {
        status.clone_into(&mut self.books().at_once);
    }

    /// A batch of this name is not known again, as after 30 days. What came of it stays.
    pub fn forget(&self, sender_batch: &str) {
        self.books().forgotten.insert(sender_batch.to_owned());
    }

    pub fn items(&self) -> Vec<Item> {
        self.books().items.clone()
    }

    /// Calls received so far, sign-ins among them.
    pub fn calls(&self) -> u64 {
        self.books().calls
    }

    /// An item whose sender's name begins so changes its state; the webhook that tells it.
    pub fn set(&self, sender_item: &str, status: &str, error: Option<(&str, &str)>) -> Option<Delivery> {
        let mut books = self.books();
        let item = books.items.iter_mut().rev().find(|item| item.sender_item_id.starts_with(sender_item))?;
        item.become_(status);
        item.error = error.map(|(name, message)| (name.to_owned(), message.to_owned()));
        let item = item.clone();
        drop(books);
        Some(delivery(&item))
    }

    /// The API.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/payments/payouts", post(create))
            .route("/v1/payments/payouts/{id}", get(batch))
            .route("/v1/payments/payouts-item/{id}", get(item))
            .route("/v1/notifications/verify-webhook-signature", post(verify))
            .route_layer(from_fn_with_state(self.clone(), authorize))
            .route("/v1/oauth2/token", post(token))
            .fallback(|| async { problem(StatusCode::NOT_FOUND, "RESOURCE_NOT_FOUND", "no such route", None) })
            .layer(from_fn_with_state(self.clone(), misbehave))
            .with_state(self.clone())
    }

    /// Answers a request in process, as over a connection; `None`: that breaks.
    pub async fn answer(&self, request: http::Request<Bytes>) -> Option<http::Response<Bytes>> {
        let answer = self.router().oneshot(request.map(axum::body::Body::from)).await;
        let answer = answer.unwrap_or_else(|never: Infallible| match never {});
        if answer.extensions().get::<Lost>().is_some() {
            return None;
        }
        let (parts, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.ok()?;
        Some(http::Response::from_parts(parts, body))
    }

    /// Serves for as long as it is polled. Unlike axum's own server it can break a connection without an answer.
    pub async fn serve(&self, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let router = self.router();
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let router = router.clone();
                async move {
                    let answer = router.oneshot(request.map(axum::body::Body::new)).await;
                    let answer = answer.unwrap_or_else(|never: Infallible| match never {});
                    if answer.extensions().get::<Lost>().is_some() {
                        return Err(std::io::Error::other("the connection breaks"));
                    }
                    Ok(answer)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }
}

impl Item {
    fn become_(&mut self, status: &str) {
        status.clone_into(&mut self.transaction_status);
        if status == "SUCCESS" {
            let id = BASE32.encode(&Sha256::digest(&self.payout_item_id)[..10]);
            self.transaction_id = Some(id);
        }
    }

    fn shown(&self) -> Value {
        let errors = self.error.as_ref().map(|(name, message)| json!({"name": name, "message": message}));
        json!({
            "payout_item_id": self.payout_item_id, "payout_batch_id": self.payout_batch_id,
            "sender_batch_id": self.sender_batch_id, "transaction_status": self.transaction_status,
            "transaction_id": self.transaction_id, "errors": errors,
            "payout_item": {
                "sender_item_id": self.sender_item_id, "recipient_type": self.recipient_type, "receiver": self.receiver,
                "recipient_wallet": self.recipient_wallet, "amount": {"value": self.value, "currency": self.currency},
                "note": self.note,
            },
        })
    }
}

/// Marks an answer that the caller shall never see.
#[derive(Clone, Copy)]
struct Lost;

fn lost() -> Response {
    let mut response = Response::default();
    response.extensions_mut().insert(Lost);
    response
}

fn problem(status: StatusCode, name: &str, message: &str, details: Option<Value>) -> Response {
    let body = json!({
        "name": name, "message": message, "debug_id": "71d8b4a4a6ca4",
        "information_link": "https://developer.paypal.com/docs/api/payments.payouts-batch/#errors",
        "details": details.unwrap_or_else(|| json!([])),
    });
    (status, Json(body)).into_response()
}

/// Strikes a call before or after it is done, as the switches say.
async fn misbehave(State(counterpart): State<Counterpart>, request: Request, next: Next) -> Response {
    let strikes = {
        let mut books = counterpart.books();
        books.calls += 1;
        let faults = books.faults.clone();
        let mut happens = |odds: f64| odds > 0.0 && books.chance.f64() < odds;
        [
            happens(faults.lost_before_apply),
            happens(faults.server_error),
            happens(faults.throttle),
            happens(faults.lost_after_apply),
            happens(faults.server_error_after_apply),
        ]
    };
    let [lost_before, error_before, throttled, lost_after, error_after] = strikes;
    let failed = |status| problem(status, "INTERNAL_SERVER_ERROR", "An internal server error occurred.", None);
    if lost_before {
        return lost();
    }
    if error_before {
        return failed(StatusCode::INTERNAL_SERVER_ERROR);
    }
    if throttled {
        return problem(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_REACHED", "Too many requests.", None);
    }
    let answer = next.run(request).await;
    if lost_after {
        return lost();
    }
    if error_after { failed(StatusCode::SERVICE_UNAVAILABLE) } else { answer }
}

async fn token(State(counterpart): State<Counterpart>, headers: HeaderMap) -> Response {
    let basic = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    let given = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given != Some(&format!("Basic {basic}")) {
        let body = json!({"error": "invalid_client", "error_description": "Client Authentication failed"});
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    let mut books = counterpart.books();
    books.issued += 1;
    let token = format!("A21AA{:08}", books.issued);
    let odds = books.faults.expire_token;
    let short = odds > 0.0 && books.chance.f64() < odds;
    books.tokens.insert(token.clone(), if short { SHORT_LIFE } else { u32::MAX });
    Json(json!({"access_token": token, "token_type": "Bearer", "expires_in": 31_668})).into_response()
}

async fn authorize(State(counterpart): State<Counterpart>, request: Request, next: Next) -> Response {
    let given = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    let good = {
        let mut books = counterpart.books();
        books.tokens.get_mut(&token).is_some_and(|left| {
            let good = *left > 0;
            *left = left.saturating_sub(1);
            good
        })
    };
    if good {
        next.run(request).await
    } else {
        let body = json!({"error": "invalid_token", "error_description": "Token signature verification failed"});
        (StatusCode::UNAUTHORIZED, Json(body)).into_response()
    }
}

async fn create(State(counterpart): State<Counterpart>, Json(body): Json<Value>) -> Response {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&body["sender_batch_header"]["sender_batch_id"]);
    let asked = body["items"].as_array().cloned().unwrap_or_default();
    if name.is_empty() || asked.is_empty() || name.len() > 256 {
        return problem(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", "Invalid request - see details", None);
    }
    let mut books = counterpart.books();
    let known = |item: &&Item| item.sender_batch_id == name;
    if let Some(first) = books.items.iter().rev().find(known).filter(|_| !books.forgotten.contains(&name)) {
        let href = format!("https://api.sandbox.paypal.com/v1/payments/payouts/{}", first.payout_batch_id);
        let details = json!([{
            "field": "SENDER_BATCH_ID", "location": "body", "issue": "Batch with given sender_batch_id already exists",
            "link": [{"href": href, "rel": "self", "method": "GET", "encType": "application/json"}],
        }]);
        return problem(StatusCode::BAD_REQUEST, "USER_BUSINESS_ERROR", "User business error.", Some(details));
    }
    if let Some((name, message, status)) = books.refuse.clone() {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
        return problem(status, &name, &message, None);
    }
    let id = |of: &str| BASE32.encode(&Sha256::digest(of)[..10])[..13].to_owned();
    // One that was forgotten is another.
    let times = books.items.iter().filter(known).count();
    let batch = id(&format!("batch {name} {times}"));
    let at_once = books.at_once.clone();
    for (n, asked) in asked.iter().enumerate() {
        let mut item = Item {
            payout_item_id: id(&format!("item {batch} {n}")),
            payout_batch_id: batch.clone(),
            sender_batch_id: name.clone(),
            sender_item_id: text(&asked["sender_item_id"]),
            recipient_type: text(&asked["recipient_type"]),
            receiver: text(&asked["receiver"]),
            recipient_wallet: text(&asked["recipient_wallet"]),
            value: text(&asked["amount"]["value"]),
            currency: text(&asked["amount"]["currency"]),
            note: text(&asked["note"]),
            transaction_status: String::new(),
            transaction_id: None,
            error: None,
        };
        item.become_(&at_once);
        books.items.push(item);
    }
    books.forgotten.remove(&name);
    let header = json!({
        "payout_batch_id": batch, "batch_status": "PENDING", "sender_batch_header": {"sender_batch_id": name},
    });
    (StatusCode::CREATED, Json(json!({"batch_header": header}))).into_response()
}

async fn batch(State(counterpart): State<Counterpart>, Path(id): Path<String>) -> Response {
    let books = counterpart.books();
    let items: Vec<_> = books.items.iter().filter(|item| item.payout_batch_id == id).collect();
    let Some(first) = items.first() else {
        return problem(StatusCode::NOT_FOUND, "INVALID_RESOURCE_ID", "Requested resource ID was not found.", None);
    };
    let ended = items.iter().all(|item| item.transaction_status != "PENDING");
    let header = json!({
        "payout_batch_id": id, "batch_status": if ended { "SUCCESS" } else { "PROCESSING" },
        "sender_batch_header": {"sender_batch_id": first.sender_batch_id},
    });
    let items: Vec<_> = items.iter().map(|item| item.shown()).collect();
    Json(json!({"batch_header": header, "items": items})).into_response()
}

async fn item(State(counterpart): State<Counterpart>, Path(id): Path<String>) -> Response {
    let books = counterpart.books();
    match books.items.iter().find(|item| item.payout_item_id == id) {
        Some(item) => Json(item.shown()).into_response(),
        None => problem(StatusCode::NOT_FOUND, "INVALID_RESOURCE_ID", "Requested resource ID was not found.", None),
    }
}

/// Signatures only this program can make: over the transmission's id and time, the webhook and the body as it was written.
fn signature(id: &str, time: &str, webhook: &str, body: &str) -> String {
    let signed = format!("{id}|{time}|{webhook}|{}", HEXLOWER.encode(&Sha256::digest(body)));
    let mut mac = Hmac::<Sha256>::new_from_slice(b"counterpart").unwrap_or_else(|never| unreachable!("{never}"));
    mac.update(signed.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn delivery(item: &Item) -> Delivery {
    let kind = match item.transaction_status.as_str() {
        "SUCCESS" => "SUCCEEDED",
        "ONHOLD" => "HELD",
        other => other,
    };
    let body = json!({
        "id": format!("WH-{}", item.payout_item_id), "event_version": "1.0", "resource_type": "payouts_item",
        "event_type": format!("PAYMENT.PAYOUTS-ITEM.{kind}"), "summary": "A payout item changed.", "resource": item.shown(),
    })
    .to_string();
    let (id, time) = (format!("tr-{}-{}", item.payout_item_id, item.transaction_status), "2026-01-01T00:00:00Z");
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("paypal-auth-algo", "SHA256withRSA".to_owned()),
        ("paypal-cert-url", "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-360caa42".to_owned()),
        ("paypal-transmission-id", id.clone()),
        ("paypal-transmission-time", time.to_owned()),
        ("paypal-transmission-sig", signature(&id, time, WEBHOOK_ID, &body)),
        ("content-type", "application/json".to_owned()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    (headers, body)
}

/// The event is compared as it was written, which is why its text is cut out of the question.
async fn verify(body: Bytes) -> Response {
    let text = String::from_utf8_lossy(&body);
    let asked: Value = serde_json::from_str(&text).unwrap_or_default();
    let given = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    let event = text.split_once("\"webhook_event\":").map_or("", |(_, rest)| rest.strip_suffix('}').unwrap_or(rest));
    let expect = signature(&given("transmission_id"), &given("transmission_time"), &given("webhook_id"), event);
    let status = if given("transmission_sig") == expect { "SUCCESS" } else { "FAILURE" };
    Json(json!({"verification_status": status})).into_response()
}
