//! The counterpart on a port: its API, a page that shows a company's vendors and Bills with a button to pay each, and switches for tests.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use jiff::civil::Date;
use outbound::{Limits, Outbound};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::company::amount;
use crate::query::text_of;
use crate::{Counterpart, Faults};

/// Bodies are a batch of Bills at most.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// How often what happened is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Serves until the listener's task is dropped.
pub async fn serve(listener: TcpListener, counterpart: Counterpart) -> std::io::Result<()> {
    axum::serve(listener, router(counterpart)).await
}

pub fn router(counterpart: Counterpart) -> Router {
    Router::new()
        .route("/", get(books))
        .route("/_pay", post(pay))
        .route("/_faults", post(faults))
        .route("/_company", post(company))
        .route("/_revoke", post(revoke))
        .fallback(api)
        .with_state(counterpart)
}

/// Tells a webhook endpoint what happens, for as long as the task runs. An endpoint that does not answer is told again.
pub async fn notify(counterpart: Counterpart, to: String) {
    let Ok(outbound) = Outbound::loopback(Limits::SMALL) else { return };
    let mut waiting = Vec::new();
    loop {
        waiting.extend(counterpart.webhooks(10));
        let mut unheard = Vec::new();
        for webhook in waiting.drain(..) {
            let request = http::Request::post(&to)
                .header("content-type", "application/cloudevents+json")
                .header("intuit-signature", &webhook.signature)
                .body(Bytes::from(webhook.body.clone()));
            let Ok(request) = request else { return };
            let (late, twice) = counterpart.delivery();
            if twice {
                let _ = outbound.call(request.clone()).await;
            }
            let heard = !late && outbound.call(request).await.is_ok_and(|answer| answer.status() == StatusCode::OK);
            if !heard {
                unheard.push(webhook);
            }
        }
        waiting = unheard;
        tokio::time::sleep(TELL_EVERY).await;
    }
}

async fn api(State(counterpart): State<Counterpart>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match counterpart.answer(&http::Request::from_parts(parts, body)) {
        Ok(answer) => answer.map(Body::from),
        // A body that breaks off closes the connection without an answer.
        Err(_) => Response::new(Body::from_stream(futures::stream::once(async {
            Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
        }))),
    }
}

async fn pay(State(counterpart): State<Counterpart>, form: Bytes) -> Response {
    let form = crate::parameters(&form);
    let bill = form.get("bill").cloned().unwrap_or_default();
    let part = form.get("amount").and_then(|amount| amount.trim().parse::<Decimal>().ok());
    let realm = counterpart.settings().realm;
    match counterpart.company(&realm, |company, now| company.pay(&bill, part, now)) {
        Some(Ok(_)) => Redirect::to("/").into_response(),
        Some(Err(refusal)) => (StatusCode::CONFLICT, refusal.detail).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn faults(State(counterpart): State<Counterpart>, axum::Json(faults): axum::Json<Faults>) -> axum::Json<Value> {
    counterpart.fail(faults);
    axum::Json(serde_json::json!({}))
}

/// What somebody changes in a company. What is left out stays.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    /// Left out: the company that whoever consents connects.
    realm: Option<String>,
    /// Nothing dated up to this day changes any more; an empty text opens the books.
    books_closed: Option<String>,
    /// Whether the subscription has ended.
    suspended: Option<bool>,
    /// A vendor, by its id, that is made inactive.
    inactive: Option<String>,
}

async fn company(State(counterpart): State<Counterpart>, axum::Json(change): axum::Json<Change>) -> Response {
    let Change { realm, books_closed, suspended, inactive } = change;
    let realm = realm.unwrap_or_else(|| counterpart.settings().realm);
    let closed = match books_closed.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(date) => match date.parse::<Date>() {
            Ok(date) => Some(Some(date)),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        },
    };
    let done = counterpart.company(&realm, |company, now| {
        company.books_closed = closed.unwrap_or(company.books_closed);
        company.suspended = suspended.unwrap_or(company.suspended);
        inactive.is_none_or(|vendor| company.deactivate(&vendor, now))
    });
    match done {
        Some(true) => axum::Json(serde_json::json!({})).into_response(),
        Some(false) => (StatusCode::CONFLICT, "there is no such vendor").into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whoever consented takes it back: no token is good any more.
async fn revoke(State(counterpart): State<Counterpart>) -> axum::Json<Value> {
    counterpart.revoke_all();
    axum::Json(serde_json::json!({}))
}

fn escaped(value: &Value) -> String {
    let text = text_of(value).unwrap_or_default();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

async fn books(State(counterpart): State<Counterpart>) -> Html<String> {
    let realm = counterpart.settings().realm;
    let shown = counterpart.company(&realm, |company, _| {
        let mut html = String::from(HEAD);
        let _ = write!(html, "<h1>Company {realm}</h1><h2>Bills</h2><table><tr><th>No.</th><th>Vendor</th><th>Date</th><th>Due</th><th class=m>Total</th><th class=m>Open</th><th></th></tr>");
        for bill in company.all("Bill") {
            let open = amount(&bill["Balance"]).unwrap_or_default();
            let action = if open.is_zero() {
                "paid".to_owned()
            } else {
                format!(
                    "<form method=post action=/_pay><input type=hidden name=bill value=\"{}\"><label>Amount <input name=amount value=\"{open}\" size=8></label> <button>Pay Bill</button></form>",
                    escaped(&bill["Id"])
                )
            };
            let _ = write!(
                html,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=m>{}</td><td class=m>{}</td><td>{action}</td></tr>",
                escaped(&bill["DocNumber"]),
                escaped(&bill["VendorRef"]["name"]),
                escaped(&bill["TxnDate"]),
                escaped(&bill["DueDate"]),
                escaped(&bill["TotalAmt"]),
                escaped(&bill["Balance"]),
            );
        }
        html.push_str("</table><h2>Vendors</h2><table><tr><th>Id</th><th>Name</th><th>Active</th></tr>");
        for vendor in company.all("Vendor") {
            let _ = write!(html, "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", escaped(&vendor["Id"]), escaped(&vendor["DisplayName"]), escaped(&vendor["Active"]));
        }
        html.push_str("</table>");
        html
    });
    Html(shown.unwrap_or_default())
}

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>QuickBooks counterpart</title><style>body{font:16px/1.5 system-ui;margin:2rem;color-scheme:light dark}table{border-collapse:collapse}td,th{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #8886}.m{text-align:right;font-variant-numeric:tabular-nums}form{margin:0}</style>";

/// The address a server listens on, for whoever asked for any free port.
pub async fn listen(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
