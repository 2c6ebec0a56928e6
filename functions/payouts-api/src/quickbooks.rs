//! The connection to QuickBooks: registration with Intuit, consent, companies, and what programs write into their books.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use domain::ids::ProgramId;
use domain::money::Money;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{
    QuickbooksApp, QuickbooksConnection, QuickbooksDifference, QuickbooksEnvironment, QuickbooksReport,
    QuickbooksSettings,
};
use workflows::quickbooks::AppSecret;
use workflows::quickbooks::connection::{self, Returned};

use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Id, Paging};
use crate::idempotency::Begun;
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::tagged::{IfMatch, Tagged, tag};
use crate::{Shared, programs};

const OPERATION: &str = "quickbooks";
const VENDOR_NAME: &str = "{name}";
/// Of the half minute that a call has.
const COMPARING: Duration = Duration::from_secs(15);
const MEMO: &str = "{program}: payout {number}";

// --- Registration with Intuit -------------------------------------------------------------------------------------

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppInput {
    environment: QuickbooksEnvironment,
    client_id: String,
    /// Both stored ones stay where they are left out.
    #[serde(default)]
    client_secret: Option<String>,
    #[serde(default)]
    webhook_verifier: Option<String>,
    redirect_uri: String,
}

pub async fn put_app(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    input: Body<AppInput>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::Finance])?;
    let input = input.get()?;
    let read = shared.context.store.quickbooks_app(OPERATION).await?;
    if_match.check(&tag(read.as_ref().map_or(0, |read| read.version)))?;
    let mut fields = Fields::default();
    let client_id = fields.text("/clientId", &input.client_id);
    let redirect_uri = fields.text("/redirectUri", &input.redirect_uri);
    let is_address = redirect_uri.starts_with("https://") || redirect_uri.starts_with("http://localhost");
    fields.check(is_address, "/redirectUri", "must be an https address, as it is registered with Intuit");
    let secret = match (&input.client_secret, &input.webhook_verifier) {
        (None, None) => {
            fields.check(read.is_some(), "/clientSecret", "is needed to register");
            None
        }
        (client_secret, verifier) => {
            let mut both = |pointer, text: &Option<String>| {
                fields.check(text.is_some(), pointer, "is needed where the other secret is given");
                text.as_deref().map(|text| ::quickbooks::Secret::new(fields.text(pointer, text)))
            };
            let (client_secret, verifier) = (both("/clientSecret", client_secret), both("/webhookVerifier", verifier));
            client_secret.zip(verifier).map(|(client_secret, verifier)| AppSecret { client_secret, verifier })
        }
    };
    fields.done()?;
    let app = QuickbooksApp {
        environment: input.environment,
        client_id,
        redirect_uri,
        changed_at: shared.context.now(),
        changed_by: caller.subject.clone(),
        version: read.as_ref().map_or(1, |read| read.version + 1),
    };
    let quickbooks = &shared.rails.quickbooks;
    connection::register(&shared.context, quickbooks, &app, read.as_ref(), secret.as_ref()).await?;
    Ok(shown_app(&app))
}

pub async fn read_app(State(shared): State<Shared>, caller: Caller) -> Answer<Tagged> {
    caller.must_be_staff()?;
    let app = shared.context.store.quickbooks_app(OPERATION).await?;
    app.as_ref().map(shown_app).ok_or_else(|| Problem::not_found("registration with Intuit"))
}

/// Never a secret.
fn shown_app(app: &QuickbooksApp) -> Tagged {
    let shown = json!({
        "environment": app.environment, "clientId": app.client_id, "redirectUri": app.redirect_uri,
        "webhookUrl": "/webhooks/quickbooks", "changedAt": app.changed_at, "changedBy": app.changed_by,
    });
    Tagged::version(app.version, shown)
}

// --- Consent ------------------------------------------------------------------------------------------------------

/// Where to go to connect a company, or to connect it again.
pub async fn connect(State(shared): State<Shared>, caller: Caller, Begun(begun): Begun) -> Answer<Json<Value>> {
    caller.must_be(&[Role::Finance])?;
    let consent = connection::begin(&shared.context, &shared.rails.quickbooks, &begun, &caller.subject).await?;
    Ok(Json(json!({"url": consent.url, "expiresAt": consent.until})))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallbackQuery {
    #[serde(default)]
    state: String,
    code: Option<String>,
    realm_id: Option<String>,
    error: Option<String>,
    #[serde(rename = "error_description")]
    _error_description: Option<String>,
}

/// Intuit sends a browser here, which has no token of ours. What it may do is in the state: it was given to somebody of finance a few
/// minutes ago, cannot be guessed, and is good once.
pub async fn callback(State(shared): State<Shared>, Filter(returned): Filter<CallbackQuery>) -> Answer<Tagged> {
    let returned = Returned {
        state: &returned.state,
        code: returned.code.as_deref(),
        realm: returned.realm_id.as_deref(),
        error: returned.error.as_deref(),
    };
    let connection = connection::finish(&shared.context, &shared.rails.quickbooks, &returned).await?;
    Ok(shown_connection(&connection))
}

// --- Companies ----------------------------------------------------------------------------------------------------

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoFilter {}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<NoFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let query = Query::new(&shared, &caller, "quickbooks connections", &filter, paging);
    let store = &shared.context.store;
    let list =
        async |after: Option<String>, limit| store.quickbooks_connections(OPERATION, after.as_deref(), limit).await;
    let page = query.fetch(list).await?;
    query.page(page.items.iter().map(connection_json).collect(), page.after).await
}

async fn load(shared: &Shared, realm: &str) -> Answer<QuickbooksConnection> {
    let connection = shared.context.store.quickbooks_connection(OPERATION, realm).await?;
    connection.ok_or_else(|| Problem::not_found("connection to QuickBooks"))
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(realm): Id<String>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    Ok(shown_connection(&load(&shared, &realm).await?))
}

/// What can be chosen in the settings.
pub async fn choices(State(shared): State<Shared>, caller: Caller, Id(realm): Id<String>) -> Answer<Json<Value>> {
    caller.must_be(&[Role::Finance])?;
    load(&shared, &realm).await?;
    let (accounts, terms) = connection::choices(&shared.context, &shared.rails.quickbooks, &realm).await?;
    let accounts: Vec<_> = accounts
        .iter()
        .map(|account| {
            json!({
                "id": account.id, "name": account.name, "type": account.account_type,
                "classification": account.classification,
            })
        })
        .collect();
    let terms: Vec<_> =
        terms.iter().map(|term| json!({"id": term.id, "name": term.name, "dueDays": term.due_days})).collect();
    Ok(Json(json!({"accounts": accounts, "terms": terms})))
}

pub async fn disconnect(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(realm): Id<String>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::Finance])?;
    if_match.check(&tag(load(&shared, &realm).await?.version))?;
    let quickbooks = &shared.rails.quickbooks;
    let ended = connection::disconnect(&shared.context, quickbooks, &realm, &caller.subject).await?;
    Ok(shown_connection(&ended))
}

fn shown_connection(connection: &QuickbooksConnection) -> Tagged {
    Tagged::version(connection.version, connection_json(connection))
}

/// Never a token.
fn connection_json(connection: &QuickbooksConnection) -> Value {
    let company = &connection.company;
    json!({
        "realmId": connection.realm, "state": connection.state, "why": connection.why,
        "exceptionId": connection.trouble, "company": company.name, "country": company.country,
        "currency": company.currency, "multiCurrency": company.multi_currency,
        "booksClosedUntil": company.books_closed, "connectedAt": connection.connected_at,
        "connectedBy": connection.connected_by, "expiresUnusedAt": connection.refresh_until,
        "consentUntil": connection.consent_until, "seenUntil": connection.seen_until,
    })
}

/// Compares now what is otherwise compared every night. An API call has half a minute; what is not done then, the night does.
pub async fn reconcile(State(shared): State<Shared>, caller: Caller, Id(realm): Id<String>) -> Answer<Json<Value>> {
    caller.must_be(&[Role::Finance])?;
    load(&shared, &realm).await?;
    let begun = Instant::now();
    let time_left = || begun.elapsed() < COMPARING;
    let report = workflows::quickbooks::reconcile::reconcile(&shared.context, &shared.rails, &realm, &time_left);
    Ok(Json(report_json(&Box::pin(report).await?)))
}

/// Newest first.
pub async fn reports(
    State(shared): State<Shared>,
    caller: Caller,
    Id(realm): Id<String>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    load(&shared, &realm).await?;
    let query = Query::new(&shared, &caller, "quickbooks reports", &realm, paging);
    let store = &shared.context.store;
    let list =
        async |after: Option<String>, limit| store.quickbooks_reports(OPERATION, &realm, after.as_deref(), limit).await;
    let page = query.fetch(list).await?;
    query.page(page.items.iter().map(report_json).collect(), page.after).await
}

fn report_json(report: &QuickbooksReport) -> Value {
    let sides = |all: &[QuickbooksDifference]| -> Value {
        let side = |one: &QuickbooksDifference| json!({"payoutId": one.payout, "billId": one.bill, "ours": one.ours, "theirs": one.theirs});
        all.iter().map(side).collect()
    };
    let days = report.days.iter().map(|day| {
        json!({
            "date": day.date, "bills": day.bills, "ours": Money::new(day.ours, day.currency),
            "theirs": Money::new(day.theirs, day.currency),
        })
    });
    json!({
        "realmId": report.realm, "at": report.at, "since": report.since, "finished": report.finished,
        "compared": report.compared, "differing": sides(&report.differing), "orphans": sides(&report.orphans),
        "days": days.collect::<Value>(), "slowestSubmissionSeconds": report.slowest_submission_seconds,
    })
}

// --- Settings -----------------------------------------------------------------------------------------------------

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsInput {
    realm_id: String,
    expense_account: String,
    #[serde(default)]
    withholding_account: Option<String>,
    #[serde(default)]
    payable_account: Option<String>,
    #[serde(default)]
    term: Option<String>,
    #[serde(default)]
    vendor_name: Option<String>,
    #[serde(default)]
    memo: Option<String>,
    #[serde(default = "yes")]
    enabled: bool,
}

const fn yes() -> bool {
    true
}

pub async fn put_settings(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    input: Body<SettingsInput>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::Finance])?;
    set(&shared, &caller, &if_match, None, input.get()?).await
}

pub async fn put_program_settings(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(program): Id<ProgramId>,
    input: Body<SettingsInput>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::Finance])?;
    let input = input.get()?;
    programs::load(&shared, &program).await?;
    set(&shared, &caller, &if_match, Some(program), input).await
}

async fn set(
    shared: &Shared,
    caller: &Caller,
    if_match: &IfMatch,
    program: Option<ProgramId>,
    input: SettingsInput,
) -> Answer<Tagged> {
    let read = shared.context.store.quickbooks_settings(OPERATION, program.as_ref()).await?;
    if_match.check(&tag(read.as_ref().map_or(0, |read| read.version)))?;
    let mut fields = Fields::default();
    let mut text = |pointer, text: &str| fields.text(pointer, text);
    let settings = QuickbooksSettings {
        program,
        realm: text("/realmId", &input.realm_id),
        expense_account: text("/expenseAccount", &input.expense_account),
        withholding_account: input.withholding_account.as_deref().map(|id| text("/withholdingAccount", id)),
        payable_account: input.payable_account.as_deref().map(|id| text("/payableAccount", id)),
        term: input.term.as_deref().map(|id| text("/term", id)),
        vendor_name: text("/vendorName", input.vendor_name.as_deref().unwrap_or(VENDOR_NAME)),
        memo: text("/memo", input.memo.as_deref().unwrap_or(MEMO)),
        enabled: input.enabled,
        changed_at: shared.context.now(),
        changed_by: caller.subject.clone(),
        version: read.as_ref().map_or(1, |read| read.version + 1),
    };
    fields.done()?;
    connection::choose(&shared.context, &settings, read.as_ref()).await?;
    Ok(shown_settings(&settings))
}

pub async fn read_settings(State(shared): State<Shared>, caller: Caller) -> Answer<Tagged> {
    caller.must_be_staff()?;
    let settings = shared.context.store.quickbooks_settings(OPERATION, None).await?;
    settings.as_ref().map(shown_settings).ok_or_else(|| Problem::not_found("settings"))
}

/// The program's own, or else those of all without their own.
pub async fn read_program_settings(
    State(shared): State<Shared>,
    caller: Caller,
    Id(program): Id<ProgramId>,
) -> Answer<Tagged> {
    caller.must_be_staff()?;
    programs::load(&shared, &program).await?;
    let settings = workflows::quickbooks::settings_of(&shared.context, OPERATION, &program).await?;
    let settings = settings.ok_or_else(|| Problem::not_found("settings"))?;
    let shown = shown_settings(&settings);
    // What holds for all is no settings of its own yet.
    Ok(if settings.program.is_none() { Tagged::version(0, shown.shown) } else { shown })
}

fn shown_settings(settings: &QuickbooksSettings) -> Tagged {
    let shown = json!({
        "programId": settings.program, "realmId": settings.realm, "expenseAccount": settings.expense_account,
        "withholdingAccount": settings.withholding_account, "payableAccount": settings.payable_account,
        "term": settings.term, "vendorName": settings.vendor_name, "memo": settings.memo,
        "enabled": settings.enabled, "changedAt": settings.changed_at, "changedBy": settings.changed_by,
    });
    Tagged::version(settings.version, shown)
}
