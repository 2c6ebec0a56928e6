//! What stands for QuickBooks Online here: a company that is connected from the start, and what people do in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::Timestamp;
use outbound::{Limits, Outbound};
use quickbooks::Secret;
use quickbooks_counterpart::company::{EXPENSE_ACCOUNT, PAYABLE_ACCOUNT, WITHHOLDING_ACCOUNT};
use quickbooks_counterpart::{Counterpart, Settings};
use store::{QuickbooksApp, QuickbooksEnvironment, QuickbooksSettings};
use workflows::quickbooks::connection::{Returned, begin, choose, finish, register};
use workflows::quickbooks::{AppSecret, Pace, Quickbooks};
use workflows::{Clock, Context, Refusal};

use crate::clock::LocalClock;
use crate::functions::Failed;
use crate::system::System;

/// Where somebody comes back to who consented.
const REDIRECT: &str = "http://127.0.0.1:8787/api/v1/quickbooks/callback";
/// Events of one webhook.
const EVENTS: usize = 10;
const ACTOR: &str = "local system";

/// How the counterpart of QuickBooks is set up.
#[derive(Debug, Clone)]
pub struct QuickbooksOptions {
    /// Where it is served for people and other programs, if it is.
    pub endpoint: Option<String>,
    /// Whether a company is connected from the start, with accounts chosen.
    pub connected: bool,
    /// Whether Intuit's limits hold. They are by the system's clock: where that stands still, so do calls beyond them.
    pub limits: bool,
    /// Webhooks in the form before `CloudEvents`.
    pub legacy_webhooks: bool,
}

impl Default for QuickbooksOptions {
    fn default() -> Self {
        Self { endpoint: None, connected: true, limits: false, legacy_webhooks: false }
    }
}

impl QuickbooksOptions {
    pub(crate) fn counterpart(&self, clock: &Arc<LocalClock>, directory: Option<&Path>) -> Counterpart {
        let settings = Settings { limits: self.limits, legacy_webhooks: self.legacy_webhooks, ..Settings::default() };
        let clock = Arc::clone(clock);
        let counterpart = Counterpart::new(settings, Arc::new(move || clock.now()));
        let counterpart = counterpart.signing_in_by(Arc::new(Timestamp::now));
        if let Some(file) = directory.map(books_file)
            && let Ok(books) = std::fs::read(file)
        {
            counterpart.open_books(&books);
        }
        counterpart
    }

    pub(crate) fn way_to(&self, counterpart: &Counterpart) -> Quickbooks {
        let pace = if self.limits { Pace::Limited } else { Pace::Unlimited };
        // Nothing listens there where it is not served; calls need no network.
        let endpoint = self.endpoint.clone().unwrap_or_else(|| "http://127.0.0.1:1".to_owned());
        let outbound = Outbound::over(counterpart.clone(), Limits::API);
        Quickbooks::new(outbound, Some(endpoint), Arc::new(Timestamp::now), pace)
    }
}

pub(crate) fn books_file(directory: &Path) -> PathBuf {
    directory.join("quickbooks.json")
}

/// Connects the counterpart's company as a person would. What was chosen before stays.
pub(crate) async fn connect(
    context: &Context,
    quickbooks: &Quickbooks,
    counterpart: &Counterpart,
) -> Result<(), Refusal> {
    let operation = "local quickbooks";
    let settings = counterpart.settings();
    let read = context.store.quickbooks_app(operation).await?;
    let app = QuickbooksApp {
        environment: QuickbooksEnvironment::Sandbox,
        client_id: settings.client_id,
        redirect_uri: REDIRECT.to_owned(),
        changed_at: context.now(),
        changed_by: ACTOR.to_owned(),
        version: read.as_ref().map_or(1, |read| read.version + 1),
    };
    let secret =
        AppSecret { client_secret: Secret::new(settings.client_secret), verifier: Secret::new(settings.verifier) };
    register(context, quickbooks, &app, read.as_ref(), Some(&secret)).await?;
    let consent = begin(context, quickbooks, &context.begin(), ACTOR).await?;
    let state = form_state(&consent.url);
    let code = counterpart.consent(&settings.realm, REDIRECT);
    let returned = Returned { state: &state, code: Some(&code), realm: Some(&settings.realm), error: None };
    finish(context, quickbooks, &returned).await?;
    if context.store.quickbooks_settings(operation, None).await?.is_none() {
        let chosen = QuickbooksSettings {
            program: None,
            realm: settings.realm,
            expense_account: EXPENSE_ACCOUNT.to_owned(),
            withholding_account: Some(WITHHOLDING_ACCOUNT.to_owned()),
            payable_account: Some(PAYABLE_ACCOUNT.to_owned()),
            term: None,
            vendor_name: "{name}".to_owned(),
            memo: "{program}: payout {number}".to_owned(),
            enabled: true,
            changed_at: context.now(),
            changed_by: ACTOR.to_owned(),
            version: 1,
        };
        choose(context, &chosen, None).await?;
    }
    Ok(())
}

fn form_state(url: &str) -> String {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let state = query.split('&').find_map(|pair| pair.strip_prefix("state="));
    state.unwrap_or_default().to_owned()
}

impl System {
    /// What happened in QuickBooks since, told as Intuit would. How many webhooks there were; one that is not taken is told again.
    pub(crate) async fn hear_from_quickbooks(&self) -> Result<usize, Failed> {
        let mut waiting = self.unheard.lock().await;
        waiting.extend(self.quickbooks.webhooks(EVENTS));
        let (mut heard, mut unheard) = (0, Vec::new());
        for webhook in waiting.drain(..) {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static("application/cloudevents+json"));
            headers.insert("intuit-signature", webhook.signature.parse().map_err(Failed::of)?);
            let body = Bytes::from(webhook.body.clone());
            let to = Uri::from_static("/webhooks/quickbooks");
            let (late, twice) = self.quickbooks.delivery();
            if late {
                unheard.push(webhook);
                continue;
            }
            if twice {
                // Whatever it is answered, it comes again.
                drop(self.http(&Method::POST, &to, &headers, &body).await);
            }
            let taken = self.http(&Method::POST, &to, &headers, &body).await;
            if taken.is_ok_and(|answer| answer.status.is_success()) {
                heard += 1;
            } else {
                unheard.push(webhook);
            }
        }
        *waiting = unheard;
        drop(waiting);
        if heard > 0 {
            self.keep_books()?;
        }
        Ok(heard)
    }

    fn keep_books(&self) -> Result<(), Failed> {
        match &self.books {
            Some(file) => std::fs::write(file, self.quickbooks.books()).map_err(Failed::of),
            None => Ok(()),
        }
    }
}
