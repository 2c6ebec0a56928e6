//! The connection to companies: registration with Intuit, consent, what is known of a company, and its end.

use domain::ids::{ExceptionId, Hash};
use domain::money::Currency;
use jiff::SignedDuration;
use quickbooks::oauth::SignInError;
use quickbooks::{ApiError, Client, CompanyInfo, Entity, Preferences, Query};
use store::{
    CONSENT_MINUTES, ExceptionCode, QuickbooksApp, QuickbooksCompany, QuickbooksConnection, QuickbooksConsent,
    QuickbooksSettings, QuickbooksState, StoreError, Transaction,
};

use super::session::Session;
use super::{AppSecret, Failed, Quickbooks, SERVICE, app_secret_name, write_secret};
use crate::changes::until_fresh;
use crate::context::{Beginning, Context};
use crate::error::{Refusal, Result};
use crate::exceptions::{file_in, resolve_in};
use crate::publish::DomainEvent;

const OPERATION: &str = "connect quickbooks";
/// Whoever the record says resolved what a new connection settles.
const ACTOR: &str = "quickbooks";
/// How long before a connection ends by itself somebody is told.
const TOLD_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 14);
/// How far back what changed in a company can be asked for, and a day less.
const SEEN_BACK: SignedDuration = SignedDuration::from_hours(24 * 29);

/// Where somebody goes to consent.
#[derive(Debug, Clone)]
pub struct Consent {
    pub url: String,
    pub until: jiff::Timestamp,
}

/// What somebody brings back from Intuit.
#[derive(Debug, Clone, Copy)]
pub struct Returned<'a> {
    pub state: &'a str,
    pub code: Option<&'a str>,
    pub realm: Option<&'a str>,
    /// Intuit's word for why there is no code.
    pub error: Option<&'a str>,
}

/// Registers us, or changes the registration. The secrets first: they alone do nothing.
pub async fn register(
    context: &Context,
    quickbooks: &Quickbooks,
    new: &QuickbooksApp,
    read: Option<&QuickbooksApp>,
    secret: Option<&AppSecret>,
) -> Result<()> {
    if let Some(secret) = secret {
        write_secret(context, &app_secret_name(context), secret).await?;
    }
    let mut transaction = Transaction::new("register with intuit");
    transaction.set_quickbooks_app(new, read)?;
    quickbooks.doubt_registration();
    changed(context.store.commit(transaction).await, "the registration")
}

pub async fn choose(context: &Context, new: &QuickbooksSettings, read: Option<&QuickbooksSettings>) -> Result<()> {
    let connection = context.store.quickbooks_connection(OPERATION, &new.realm).await?;
    if connection.is_none() {
        return Err(Refusal::invalid("/realmId", "no such company is connected"));
    }
    let mut transaction = Transaction::new("choose quickbooks settings");
    transaction.set_quickbooks_settings(new, read)?;
    changed(context.store.commit(transaction).await, "the settings")
}

fn changed(committed: Result<(), StoreError>, what: &str) -> Result<()> {
    match committed {
        Err(StoreError::Stale) => Err(Refusal::Stale(vec![format!("somebody changed {what} meanwhile")])),
        other => Ok(other?),
    }
}

/// Begins a consent: it is good once, for some minutes, and says who began it.
pub async fn begin(context: &Context, quickbooks: &Quickbooks, begun: &Beginning, by: &str) -> Result<Consent> {
    let registration = quickbooks.registered(context).await?;
    let state = format!("{:032x}", begun.random);
    let consent = QuickbooksConsent { state_hash: Hash::of(state.as_bytes()), by: by.to_owned(), at: begun.at };
    let mut transaction = Transaction::new(OPERATION);
    transaction.begin_quickbooks_consent(&consent)?;
    match context.store.commit(transaction).await {
        Ok(()) | Err(StoreError::Stale) => {}
        Err(error) => return Err(error.into()),
    }
    let url = quickbooks.sign_in(&registration).consent_url(&registration.redirect_uri, &state);
    Ok(Consent { url, until: begun.at + SignedDuration::from_mins(CONSENT_MINUTES) })
}

/// Somebody comes back from Intuit: the company they chose is connected, or connected again.
pub async fn finish(
    context: &Context,
    quickbooks: &Quickbooks,
    returned: &Returned<'_>,
) -> Result<QuickbooksConnection> {
    let gone = || Refusal::Illegal("this consent was used before, or has expired: begin again".to_owned());
    let state_hash = Hash::of(returned.state.as_bytes());
    let consent = context.store.quickbooks_consent(OPERATION, &state_hash).await?.ok_or_else(gone)?;
    let mut transaction = Transaction::new(OPERATION);
    transaction.end_quickbooks_consent(&consent);
    match context.store.commit(transaction).await {
        Err(StoreError::Stale) => return Err(gone()),
        other => other?,
    }
    if context.now() > consent.at + SignedDuration::from_mins(CONSENT_MINUTES) {
        return Err(gone());
    }
    let (code, realm) = match (returned.code, returned.realm, returned.error) {
        (Some(code), Some(realm), None) => (code, realm),
        (_, _, error) => {
            let why: String = error.unwrap_or("no company").chars().filter(|c| !c.is_control()).take(100).collect();
            return Err(Refusal::Illegal(format!("Intuit did not connect a company: {why}")));
        }
    };
    if realm.is_empty() || realm.len() > 30 || !realm.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::invalid("/realmId", "is no company's id"));
    }
    let registration = quickbooks.registered(context).await?;
    let sign_in = quickbooks.sign_in(&registration);
    let tokens = sign_in.exchange(code, &registration.redirect_uri, quickbooks.wire_now()).await;
    let tokens = tokens.map_err(|error| match error {
        SignInError::InvalidGrant => {
            Refusal::Illegal("Intuit does not know this code (any more): begin again".to_owned())
        }
        other => Refusal::Service(SERVICE, other.to_string()),
    })?;
    // Whether they open the company that is named, comes first: those of one that is connected must not be lost for tokens of another.
    let client = quickbooks.client(&registration, realm, &tokens.access);
    let company = facts(client).await.map_err(|error| match error {
        ApiError::Unauthorized | ApiError::Forbidden(_) => Refusal::Illegal(format!(
            "what Intuit gave out does not open the company {realm} ({error}): begin again, and choose the company that is to be connected"
        )),
        ApiError::Suspended(_) => Refusal::Illegal(error.to_string()),
        other => Failed::Api(other).into(),
    })?;
    let company = company_of(company)?;
    let (refresh_until, consent_until) = (tokens.refresh_until, tokens.consent_until);
    quickbooks.take_tokens(context, realm, tokens).await?;
    connected(context, realm, |read, now| QuickbooksConnection {
        realm: realm.to_owned(),
        state: QuickbooksState::Connected,
        why: None,
        trouble: None,
        ending: None,
        company: company.clone(),
        connected_at: now,
        connected_by: consent.by.clone(),
        refresh_until,
        consent_until,
        seen_until: read.map_or(now - SEEN_BACK, |read| read.seen_until),
        version: read.map_or(1, |read| read.version + 1),
    })
    .await
}

/// What of a company decides how its Bills must look.
pub(super) async fn company(session: &Session<'_>) -> Result<QuickbooksCompany, Failed> {
    company_of(session.call(|client| Box::pin(facts(client))).await?)
}

async fn facts(client: Client) -> Result<(Preferences, CompanyInfo), ApiError> {
    let preferences = client.preferences().await?;
    let info = client.query::<CompanyInfo>(&Query::of(CompanyInfo::NAME)).await?;
    Ok((preferences, info.into_iter().next().unwrap_or_default()))
}

fn company_of((preferences, info): (Preferences, CompanyInfo)) -> Result<QuickbooksCompany, Failed> {
    let Preferences { accounting_info_prefs, currency_prefs, .. } = preferences;
    let home = currency_prefs.home_currency.map(|home| home.value).unwrap_or_default();
    let currency = home.parse::<Currency>();
    let currency = currency.map_err(|_| Failed::Permanent(format!("its home currency {home:?} is not known here")))?;
    Ok(QuickbooksCompany {
        name: info.company_name,
        country: info.country,
        currency,
        multi_currency: currency_prefs.multi_currency_enabled,
        books_closed: accounting_info_prefs.book_close_date,
    })
}

/// Writes what was just read of a company, until when it stays connected, and how far its changes were seen. Somebody is told some days
/// before the connection ends by itself.
pub(super) async fn seen(
    context: &Context,
    quickbooks: &Quickbooks,
    realm: &str,
    company: &QuickbooksCompany,
    until: jiff::Timestamp,
) -> Result<()> {
    let tokens = quickbooks.tokens(context, realm).await?.tokens;
    until_fresh(async || {
        let Some(read) = context.store.quickbooks_connection(OPERATION, realm).await? else { return Ok(()) };
        let mut transaction = Transaction::new(OPERATION);
        let consent_until = tokens.consent_until.or(read.consent_until);
        let ends = consent_until.map_or(tokens.refresh_until, |consent| consent.min(tokens.refresh_until));
        let is_near = ends.duration_since(quickbooks.wire_now()) <= TOLD_BEFORE;
        let ending = match (&read.ending, is_near) {
            (None, true) => {
                let about = ["quickbooks ends", realm, &read.version.to_string()];
                let detail = format!(
                    "the connection to the company {} ({realm}) in QuickBooks ends on {}: connect it again before then (GET /quickbooks/connect), \
                     else payouts wait until somebody does",
                    company.name,
                    ends.to_zoned(jiff::tz::TimeZone::UTC).date()
                );
                let code = ExceptionCode::QuickbooksEnding;
                Some(file_in(context, &mut transaction, code, None, &about, detail)?)
            }
            (Some(filed), false) => {
                resolve_in(context, &mut transaction, OPERATION, filed, ACTOR, "it stays connected for longer now").await?;
                None
            }
            (same, _) => same.clone(),
        };
        let seen = QuickbooksConnection {
            company: company.clone(),
            refresh_until: tokens.refresh_until,
            consent_until,
            ending,
            seen_until: read.seen_until.max(until),
            version: read.version + 1,
            ..read.clone()
        };
        transaction.set_quickbooks_connection(&seen, Some(&read))?;
        Ok(context.store.commit(transaction).await?)
    })
    .await
}

/// Writes that a company is connected, tells so, and settles what was filed while it was not.
pub(super) async fn connected(
    context: &Context,
    realm: &str,
    make: impl Fn(Option<&QuickbooksConnection>, jiff::Timestamp) -> QuickbooksConnection,
) -> Result<QuickbooksConnection> {
    let connection = until_fresh(async || {
        let read = context.store.quickbooks_connection(OPERATION, realm).await?;
        let connection = make(read.as_ref(), context.now());
        let mut transaction = Transaction::new(OPERATION);
        let filed = |read: &QuickbooksConnection| [read.trouble.clone(), read.ending.clone()];
        for filed in read.as_ref().into_iter().flat_map(filed).flatten().filter(|filed| !is_kept(&connection, filed)) {
            let how = "the company is connected again";
            resolve_in(context, &mut transaction, OPERATION, &filed, ACTOR, how).await?;
        }
        transaction.set_quickbooks_connection(&connection, read.as_ref())?;
        context.store.commit(transaction).await?;
        Ok(connection)
    })
    .await?;
    tell(context, "quickbooks.connected", &connection, None).await;
    Ok(connection)
}

/// Whether what was filed stays open.
fn is_kept(connection: &QuickbooksConnection, filed: &ExceptionId) -> bool {
    connection.trouble.as_ref() == Some(filed) || connection.ending.as_ref() == Some(filed)
}

/// The connection ended, or is interrupted: what is to be done there waits, and somebody is told.
pub(super) async fn broken(context: &Context, realm: &str, state: QuickbooksState, why: &str) -> Result<()> {
    const OPERATION: &str = "quickbooks disconnected";
    let connection = until_fresh(async || {
        let Some(read) = context.store.quickbooks_connection(OPERATION, realm).await? else { return Ok(None) };
        // Somebody who ended it needs no telling, and neither does anybody who was told.
        if read.state != QuickbooksState::Connected {
            return Ok(None);
        }
        let what = match state {
            QuickbooksState::Suspended => "end the suspension at Intuit, or connect the company again",
            _ => "connect it again (GET /quickbooks/connect)",
        };
        let detail = format!(
            "the company {} ({realm}) in QuickBooks cannot be reached: {why}; {what}. Nothing is lost: payouts wait until then",
            read.company.name
        );
        let mut transaction = Transaction::new(OPERATION);
        let about = ["quickbooks", realm, &read.version.to_string()];
        let code = ExceptionCode::QuickbooksDisconnected;
        let filed = file_in(context, &mut transaction, code, None, &about, detail)?;
        let broken = QuickbooksConnection {
            state,
            why: Some(why.to_owned()),
            trouble: Some(filed),
            version: read.version + 1,
            ..read.clone()
        };
        transaction.set_quickbooks_connection(&broken, Some(&read))?;
        context.store.commit(transaction).await?;
        Ok(Some(broken))
    })
    .await?;
    if let Some(connection) = connection {
        tracing::warn!(realm, why, "a company in QuickBooks cannot be reached");
        tell(context, "quickbooks.reauthorization_required", &connection, Some(why)).await;
    }
    Ok(())
}

/// Ends the connection: here in any case, and at Intuit if it can be asked. Saying so again changes nothing.
pub async fn disconnect(
    context: &Context,
    quickbooks: &Quickbooks,
    realm: &str,
    by: &str,
) -> Result<QuickbooksConnection> {
    const OPERATION: &str = "disconnect quickbooks";
    let unrevoked = quickbooks.revoke_tokens(context, realm).await?;
    let why = match &unrevoked {
        None => format!("{by} ended it"),
        Some(error) => format!(
            "{by} ended it here, and its tokens are forgotten; nothing was revoked at Intuit ({error}): whoever administers the company \
             takes the app's access away there, in QuickBooks under Apps, My apps"
        ),
    };
    let ended = until_fresh(async || {
        let read = context.store.quickbooks_connection(OPERATION, realm).await?;
        let read = read.ok_or(Refusal::NotFound("connection to QuickBooks"))?;
        if read.state == QuickbooksState::Disconnected {
            return Ok(read);
        }
        let mut transaction = Transaction::new(OPERATION);
        for filed in read.trouble.iter().chain(&read.ending) {
            resolve_in(context, &mut transaction, OPERATION, filed, by, "somebody ended the connection").await?;
        }
        let ended = QuickbooksConnection {
            state: QuickbooksState::Disconnected,
            why: Some(why.clone()),
            trouble: None,
            ending: None,
            version: read.version + 1,
            ..read.clone()
        };
        transaction.set_quickbooks_connection(&ended, Some(&read))?;
        context.store.commit(transaction).await?;
        Ok(ended)
    })
    .await?;
    // Last: where this fails, it is all done again.
    quickbooks.forget_tokens(context, realm).await?;
    Ok(ended)
}

/// What can be chosen in a company: its accounts and terms that are in use.
pub async fn choices(
    context: &Context,
    quickbooks: &Quickbooks,
    realm: &str,
) -> Result<(Vec<quickbooks::Account>, Vec<quickbooks::Term>)> {
    let connection = context.store.quickbooks_connection(OPERATION, realm).await?;
    let connection = connection.ok_or(Refusal::NotFound("connection to QuickBooks"))?;
    if connection.state != QuickbooksState::Connected {
        return Err(Refusal::Illegal("the company is not connected".to_owned()));
    }
    let session = Session::open(context, quickbooks, realm).await?;
    let accounts = session.query(&Query::of(quickbooks::Account::NAME)).await?;
    let terms = session.query(&Query::of(quickbooks::Term::NAME)).await?;
    Ok((accounts, terms))
}

/// Tells on the bus. The exception that is filed is the notice that must not be missed.
async fn tell(context: &Context, kind: &'static str, connection: &QuickbooksConnection, why: Option<&str>) {
    let cause = format!("{}/{}/{kind}", connection.realm, connection.version);
    let detail = serde_json::json!({
        "id": format!("evt_{}", Hash::of(cause.as_bytes())), "at": context.now(), "why": why,
        "quickbooks": {"realmId": connection.realm, "company": connection.company.name, "state": connection.state},
    });
    if let Err(error) = context.bus.put(&[DomainEvent { kind, detail }]).await {
        tracing::warn!(realm = connection.realm, %error, "nobody was told on the bus");
    }
}
