//! The JSON API under `/api/v1`: one file per resource. A handler checks the role, parses, calls one workflow, and shows
//! the result; rules of money are elsewhere.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod audit;
mod balances;
mod bulk;
mod caller;
mod commissions;
mod conversions;
mod document;
mod exceptions;
mod exchange_rates;
mod exports;
mod extract;
mod idempotency;
mod import;
mod links;
mod listing;
mod partners;
mod payouts;
mod paypal;
mod problem;
mod programs;
mod quickbooks;
mod reports;
mod rules;
mod runs;
mod show;
mod sources;
mod statements;
mod tagged;
mod tax;

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use serde_json::Value;
use store::CursorKey;
use tokio::sync::OnceCell;
use workflows::files::Files;
use workflows::rails::Rails;
use workflows::{Context, Refusal};

pub use crate::document::DOCUMENT;
use crate::problem::Problem;

/// API Gateway would take 10 MB; nothing of ours needs more than this.
const MAX_BODY: usize = 1024 * 1024;

/// What all handlers share.
#[derive(Debug)]
pub struct Api {
    context: Context,
    files: Files,
    cursor_secret: String,
    cursor_key: OnceCell<CursorKey>,
    rails: Arc<Rails>,
    printer: Option<Arc<dyn Printer>>,
}

/// Makes a PDF of a statement or receipt, which comes as the API shows it. Apart from the API, because a renderer is ten times its
/// size.
pub trait Printer: std::fmt::Debug + Send + Sync {
    fn print(&self, document: Value) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, PrintError>> + Send + '_>>;
}

/// Why a document could not be printed: for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PrintError(pub String);

type Shared = Arc<Api>;

impl Api {
    /// Read when the first list is paged, not at start-up.
    async fn cursor_key(&self) -> Result<&CursorKey, Refusal> {
        self.cursor_key
            .get_or_try_init(|| async {
                let secret = self.context.secrets.get_secret_value().secret_id(&self.cursor_secret).send().await;
                let secret = secret.ok().and_then(|value| value.secret_string).filter(|secret| secret.len() >= 32);
                secret.map(CursorKey::new).ok_or_else(|| {
                    Refusal::Service("Secrets Manager", format!("{} is missing or too short", self.cursor_secret))
                })
            })
            .await
    }
}

/// The whole API. Files too large to answer with go to `files`; `cursor_secret` names the secret that list cursors are authenticated with.
/// Without a printer it makes no PDF.
#[expect(clippy::too_many_lines, reason = "one for each route")]
pub fn api(
    context: Context,
    files: Files,
    cursor_secret: String,
    rails: Arc<Rails>,
    printer: Option<Arc<dyn Printer>>,
) -> Router {
    let shared = Arc::new(Api { context, files, cursor_secret, cursor_key: OnceCell::new(), rails, printer });
    let routes = Router::new()
        .route("/openapi.json", get(document::json))
        .route("/docs", get(document::page))
        .route("/programs", post(programs::create).get(programs::list))
        .route("/programs/{id}", get(programs::read))
        .route("/programs/{id}/next-run", get(runs::next))
        .route("/programs/{id}/paypal", put(paypal::connect).get(paypal::read))
        .route(
            "/programs/{id}/quickbooks",
            put(quickbooks::put_program_settings).get(quickbooks::read_program_settings),
        )
        .route("/programs/{id}/rule-sets", post(rules::draft).get(rules::list))
        .route("/programs/{id}/rule-sets/{version}", get(rules::read))
        .route("/programs/{id}/rule-sets/{version}/sign-off", post(rules::sign_off))
        .route("/programs/{id}/rule-sets/{version}/publish", post(rules::publish))
        .route("/programs/{id}/rule-sets/{version}/dry-run", post(rules::dry_run))
        .route("/programs/{id}/rule-sets/{version}/diff", get(rules::diff))
        .route("/partners", post(partners::create).get(partners::list))
        .route("/partners/import", post(import::partners))
        .route("/partners/{id}", get(partners::read).patch(partners::change))
        .route("/partners/{id}/statements", get(statements::list))
        .route("/partners/{id}/statements/{document}", get(statements::of_month))
        .route("/partners/{id}/suspend", post(partners::suspend))
        .route("/partners/{id}/activate", post(partners::activate))
        .route("/partners/{id}/tax-form", get(tax::read_form).put(tax::put_form))
        .route("/partners/{id}/tax-form/revoke", post(tax::revoke_form))
        .route("/tax/totals", get(tax::list_totals))
        .route("/tax/totals/export", get(tax::export))
        .route("/tax/near-limit", get(tax::near_limit))
        .route("/tax/payer", get(tax::read_payer).put(tax::put_payer))
        .route("/links", post(links::create).get(links::list))
        .route("/sources", post(sources::create).get(sources::list))
        .route("/conversions", post(conversions::report).get(conversions::list))
        .route("/conversions/attribute", post(conversions::attribute_several))
        .route("/conversions/import", post(import::conversions))
        .route("/conversions/{id}", get(conversions::read))
        .route("/conversions/{id}/attribute", post(conversions::attribute))
        .route("/exchange-rates", get(exchange_rates::list))
        .route("/exchange-rates/import", post(import::exchange_rates))
        .route("/commissions", get(commissions::list).post(commissions::bonus))
        .route("/commissions/adjust", post(commissions::adjust))
        .route("/commissions/approve", post(commissions::approve))
        .route("/commissions/hold", post(commissions::hold))
        .route("/commissions/release", post(commissions::release))
        .route("/commissions/reject", post(commissions::reject))
        .route("/commissions/reinstate", post(commissions::reinstate))
        .route("/commissions/export", get(reports::commissions))
        .route("/commissions/{id}", get(commissions::read))
        .route("/commissions/{id}/explanation", get(commissions::explanation))
        .route("/audit/replay", get(audit::replay))
        .route("/audit/commissions/{id}", get(audit::commission))
        .route("/balances", get(balances::list))
        .route("/runs", post(runs::start).get(runs::list))
        .route("/runs/{id}", get(runs::read))
        .route("/runs/{id}/decisions", get(runs::decisions))
        .route("/payouts", post(payouts::request).get(payouts::list))
        .route("/payouts/approve", post(payouts::approve))
        .route("/payouts/send-back", post(payouts::send_back))
        .route("/payouts/cancel", post(payouts::cancel))
        .route("/payouts/retry", post(payouts::retry))
        .route("/payouts/void", post(payouts::void))
        .route("/payouts/mark-paid", post(payouts::mark_paid))
        .route("/payouts/mark-failed", post(payouts::mark_failed))
        .route("/payouts/mark-returned", post(payouts::mark_returned))
        .route("/payouts/exclude", post(payouts::exclude))
        .route("/payouts/export", get(reports::payouts))
        .route("/payouts/{id}", get(payouts::read))
        .route("/payouts/{id}/lines", get(payouts::lines))
        .route("/payouts/{id}/statement", get(statements::of_payout))
        .route("/payouts/{id}/statement.csv", get(statements::of_payout_csv))
        .route("/payouts/{id}/statement.pdf", get(statements::of_payout_pdf))
        .route("/payouts/{id}/receipt", get(statements::receipt))
        .route("/payouts/{id}/receipt.pdf", get(statements::receipt_pdf))
        .route("/exports", post(exports::create).get(exports::list))
        .route("/exports/{id}", get(exports::read))
        .route("/exports/{id}/left-out", get(exports::left_out))
        .route("/exports/{id}/files/{number}", get(exports::file))
        .route("/exceptions", get(exceptions::list))
        .route("/exceptions/{id}", get(exceptions::read))
        .route("/exceptions/{id}/resolve", post(exceptions::resolve))
        .route("/exceptions/{id}/replay", post(exceptions::replay))
        .route("/quickbooks/app", put(quickbooks::put_app).get(quickbooks::read_app))
        .route("/quickbooks/settings", put(quickbooks::put_settings).get(quickbooks::read_settings))
        .route("/quickbooks/connect", get(quickbooks::connect))
        .route("/quickbooks/callback", get(quickbooks::callback))
        .route("/quickbooks/connections", get(quickbooks::list))
        .route("/quickbooks/connections/{realmId}", get(quickbooks::read))
        .route("/quickbooks/connections/{realmId}/choices", get(quickbooks::choices))
        .route("/quickbooks/connections/{realmId}/disconnect", post(quickbooks::disconnect))
        .route(
            "/quickbooks/connections/{realmId}/reconciliations",
            post(quickbooks::reconcile).get(quickbooks::reports),
        )
        .route_layer(from_fn(document::refuse_unknown_parameters))
        .fallback(|| async { Problem::not_found("route") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn_with_state(Arc::clone(&shared), idempotency::remember))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared);
    Router::new().nest("/api/v1", routes).fallback(|| async { Problem::not_found("route") })
}
