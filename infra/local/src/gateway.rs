//! The front door: the product's own routes through the functions, and `/_local/*`, which only exists here.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::ids::PayoutId;
use http::{HeaderMap, Method, StatusCode, Uri};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use workflows::Clock;

use crate::faults::Odds;
use crate::functions::Failed;
use crate::system::System;
use crate::workers::SCHEDULED;

type Shared = Arc<System>;

/// API Gateway's own limit.
const MAX_BODY: usize = 10 * 1024 * 1024;

/// Serves until `shutdown` resolves.
pub async fn serve(
    system: Shared,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/_local/token", post(token))
        .route("/_local/clock", post(clock))
        .route("/_local/run/{function}", post(run))
        .route("/_local/settle", post(settle))
        .route("/_local/faults", post(faults))
        .route("/_local/paypal/payouts", get(paypal_payouts))
        .route("/_local/paypal/set", post(paypal_set))
        .route("/_local/paypal/faults", post(paypal_faults))
        .route("/_local/quickbooks/bills", get(quickbooks_bills))
        .route("/_local/quickbooks/vendors", get(quickbooks_vendors))
        .route("/_local/quickbooks/payments", get(quickbooks_payments))
        .route("/_local/quickbooks/pay", post(quickbooks_pay))
        .route("/_local/quickbooks/void-payment", post(quickbooks_void_payment))
        .route("/_local/quickbooks/delete-bill", post(quickbooks_delete_bill))
        .route("/_local/quickbooks/faults", post(quickbooks_faults))
        .route("/_local/audit", get(audit))
        .route("/_local/replay", get(replay))
        .route("/_local/outbox", get(outbox))
        .route("/_local/events", get(events))
        .route("/_local/capacity", get(capacity))
        .route("/", get(welcome))
        .fallback(product)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(system);
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

/// A request that cannot be served here, said plainly.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, failed.0)
    }
}

type Answer = Result<Json<Value>, Refused>;

fn parse<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Refused> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn product(
    State(system): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    let answer = system.http(&method, &uri, &headers, &body).await?;
    let mut response = Response::new(axum::body::Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().remove(http::header::CONTENT_LENGTH);
    Ok(response)
}

const ROLES: [&str; 7] = ["admin", "program-manager", "reviewer", "approver", "finance", "analyst", "partner"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenInput {
    role: String,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    partner_id: Option<String>,
}

async fn token(State(system): State<Shared>, body: Bytes) -> Answer {
    let input: TokenInput = parse(&body)?;
    if !ROLES.contains(&input.role.as_str()) {
        return Err(Refused(StatusCode::BAD_REQUEST, format!("role is one of {}", ROLES.join(", "))));
    }
    let subject = input.subject.unwrap_or_else(|| input.role.clone());
    let token = system.token(&input.role, &subject, input.partner_id.as_deref()).await;
    let token = token.map_err(|failed| Refused(StatusCode::BAD_REQUEST, failed.0))?;
    Ok(Json(json!({ "token": token })))
}

#[derive(Deserialize)]
struct ClockInput {
    #[serde(default)]
    now: Option<Timestamp>,
    #[serde(default)]
    advance: Option<String>,
}

async fn clock(State(system): State<Shared>, body: Bytes) -> Answer {
    let input: ClockInput = parse(&body)?;
    let moved = match (input.now, input.advance) {
        (Some(now), None) => system.clock.set(now),
        (None, Some(by)) => system.clock.advance(&by),
        (None, None) => Ok(system.clock.now()),
        (Some(_), Some(_)) => {
            return Err(Refused(StatusCode::BAD_REQUEST, "give either now or advance".to_owned()));
        }
    };
    let now = moved.map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(json!({ "now": now })))
}

async fn run(State(system): State<Shared>, Path(function): Path<String>) -> Answer {
    if !SCHEDULED.contains(&function.as_str()) {
        let detail = format!("no schedule fires {function}; {} have one", SCHEDULED.join(", "));
        return Err(Refused(StatusCode::NOT_FOUND, detail));
    }
    Ok(Json(system.fire(&function).await?))
}

async fn settle(State(system): State<Shared>) -> Answer {
    Ok(Json(json!({ "batches": system.settle().await? })))
}

async fn faults(State(system): State<Shared>, body: Bytes) -> Answer {
    let odds: Odds = parse(&body)?;
    if let Some(name) = odds.wrong() {
        return Err(Refused(StatusCode::BAD_REQUEST, format!("{name} is a probability from 0 to 1")));
    }
    system.faults.set(odds.clone());
    Ok(Json(json!(odds)))
}

/// The payments PayPal's counterpart was asked for, oldest first.
async fn paypal_payouts(State(system): State<Shared>) -> Answer {
    Ok(Json(json!({ "payouts": system.paypal.items() })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PaypalSet {
    payout_id: PayoutId,
    /// Like `SUCCESS`, `FAILED` or `RETURNED`.
    status: String,
}

/// A payment changes its state at PayPal, and PayPal tells by its webhook. Returns what the webhook answered.
async fn paypal_set(State(system): State<Shared>, body: Bytes) -> Answer {
    let PaypalSet { payout_id, status } = parse(&body)?;
    let delivery = system.paypal.set(payout_id.as_str(), &status, None);
    let none = || Refused(StatusCode::NOT_FOUND, "PayPal was not asked to pay this payout".to_owned());
    let (headers, body) = delivery.ok_or_else(none)?;
    let payout = system.plain.store.payout("paypal", &payout_id).await;
    let payout = payout.map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let program = payout.ok_or_else(none)?.program;
    let uri: Uri = format!("/webhooks/paypal/{program}").parse().map_err(Failed::of)?;
    let answer = system.http(&Method::POST, &uri, &headers, &Bytes::from(body)).await?;
    Ok(Json(json!({ "answered": answer.status.as_u16() })))
}

async fn paypal_faults(State(system): State<Shared>, body: Bytes) -> Answer {
    let faults: paypal_counterpart::Faults = parse(&body)?;
    if let Some(name) = faults.wrong() {
        return Err(Refused(StatusCode::BAD_REQUEST, format!("{name} is a probability from 0 to 1")));
    }
    system.paypal.set_faults(faults.clone());
    Ok(Json(json!(faults)))
}

/// What is in QuickBooks' counterpart, as QuickBooks would return it.
fn in_quickbooks(system: &System, entity: &str, name: &str) -> Json<Value> {
    let realm = system.quickbooks.settings().realm;
    let all = system.quickbooks.company(&realm, |company, _| company.all(entity).cloned().collect::<Vec<_>>());
    Json(json!({ name: all.unwrap_or_default() }))
}

async fn quickbooks_bills(State(system): State<Shared>) -> Json<Value> {
    in_quickbooks(&system, "Bill", "bills")
}

async fn quickbooks_vendors(State(system): State<Shared>) -> Json<Value> {
    in_quickbooks(&system, "Vendor", "vendors")
}

async fn quickbooks_payments(State(system): State<Shared>) -> Json<Value> {
    in_quickbooks(&system, "BillPayment", "payments")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuickbooksPay {
    bill_id: String,
    /// All that is open where it is left out.
    #[serde(default)]
    amount: Option<Value>,
}

/// Somebody pays a Bill in QuickBooks. QuickBooks tells by its webhook, with the next delivery.
async fn quickbooks_pay(State(system): State<Shared>, body: Bytes) -> Answer {
    let QuickbooksPay { bill_id, amount } = parse(&body)?;
    let amount = match &amount {
        None | Some(Value::Null) => None,
        Some(told) => {
            let told = quickbooks_counterpart::company::amount(told).filter(|amount| !amount.is_sign_negative());
            Some(told.ok_or_else(|| Refused(StatusCode::BAD_REQUEST, "amount is a decimal number".to_owned()))?)
        }
    };
    let realm = system.quickbooks.settings().realm;
    match system.quickbooks.company(&realm, |company, now| company.pay(&bill_id, amount, now)) {
        Some(Ok(payment)) => Ok(Json(json!({ "paymentId": payment }))),
        Some(Err(refusal)) => Err(Refused(StatusCode::CONFLICT, refusal.detail)),
        None => Err(no_such("company")),
    }
}

fn no_such(what: &str) -> Refused {
    Refused(StatusCode::NOT_FOUND, format!("there is no such {what} in QuickBooks"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuickbooksPayment {
    payment_id: String,
}

async fn quickbooks_void_payment(State(system): State<Shared>, body: Bytes) -> Answer {
    let QuickbooksPayment { payment_id } = parse(&body)?;
    let realm = system.quickbooks.settings().realm;
    match system.quickbooks.company(&realm, |company, now| company.void_payment(&payment_id, now)) {
        Some(true) => Ok(Json(json!({ "paymentId": payment_id }))),
        _ => Err(no_such("payment")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuickbooksBillId {
    bill_id: String,
}

async fn quickbooks_delete_bill(State(system): State<Shared>, body: Bytes) -> Answer {
    let QuickbooksBillId { bill_id } = parse(&body)?;
    let realm = system.quickbooks.settings().realm;
    match system.quickbooks.company(&realm, |company, now| company.delete_bill(&bill_id, now)) {
        Some(true) => Ok(Json(json!({ "billId": bill_id }))),
        _ => Err(no_such("Bill")),
    }
}

async fn quickbooks_faults(State(system): State<Shared>, body: Bytes) -> Answer {
    let faults: quickbooks_counterpart::Faults = parse(&body)?;
    if let Some(name) = faults.wrong() {
        return Err(Refused(StatusCode::BAD_REQUEST, format!("{name} is a probability from 0 to 1")));
    }
    system.quickbooks.fail(faults);
    Ok(Json(json!(faults)))
}

async fn audit(State(system): State<Shared>) -> Answer {
    let invariants = workflows::audit::audit(&system.plain.store).await;
    let invariants = invariants.map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(json!({ "invariants": invariants })))
}

/// Every line rebuilt from the journal, and which of them are stored otherwise.
async fn replay(State(system): State<Shared>) -> Answer {
    let all = system.plain.store.everything().await;
    let all = all.map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(json!(workflows::replay::replay(&all))))
}

async fn outbox(State(_): State<Shared>) -> Answer {
    Ok(Json(json!({"emails": [], "webhooks": []})))
}

/// The domain events on the bus, newest last.
async fn events(State(system): State<Shared>) -> Answer {
    let events: Vec<_> = system.embedded.events().into_iter().map(|accepted| json!(accepted.event)).collect();
    Ok(Json(json!({ "events": events })))
}

/// Capacity units consumed so far, by operation.
async fn capacity(State(system): State<Shared>) -> Answer {
    let totals: Vec<_> = system
        .context
        .store
        .meter()
        .totals()
        .into_iter()
        .map(|(operation, units)| {
            json!({"operation": operation, "calls": units.calls, "read": units.read, "write": units.write})
        })
        .collect();
    Ok(Json(json!({ "operations": totals })))
}

async fn welcome(State(system): State<Shared>) -> Answer {
    Ok(Json(json!({
        "name": "Partner Payouts, local system",
        "now": system.clock.now(),
        "api": "/api/v1",
        "try": ["POST /_local/token", "GET /_local/audit", "GET /_local/replay", "GET /_local/events", "GET /_local/capacity"],
    })))
}
