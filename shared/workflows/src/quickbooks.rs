//! QuickBooks Online: approved payouts become Bills there, and what became of a Bill is read there.
//!
//! What must never happen is that a payout is billed twice. So what is sent is written down before it is sent, and sent again as it is;
//! before that, and whenever an outcome is unknown, the Bill is looked for by its number and by the payout's id in its memo. What a
//! webhook says is a reason to look, never the news itself.

mod bills;
pub mod connection;
pub mod events;
mod pace;
pub mod reconcile;
mod session;
mod tokens;
mod vendors;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use domain::ids::ProgramId;
use jiff::Timestamp;
use outbound::Outbound;
use quickbooks::oauth::{App, Endpoints, SignIn};
use quickbooks::{ApiError, Client, Company, Environment, Secret};
use serde::{Deserialize, Serialize};
use store::{QuickbooksEnvironment, QuickbooksSettings};

use crate::context::Context;
use crate::error::{Refusal, Result};

pub(crate) use bills::{attend, void};
pub use pace::{Pace, Slot};

const SERVICE: &str = "QuickBooks";
/// How long our registration is kept before it is read again.
const KEPT: Duration = Duration::from_mins(1);

/// Tells the time that tokens live by: the wall clock's, whatever the business clock says.
pub type WireClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The way to Intuit, and what was read lately.
pub struct Quickbooks {
    outbound: Outbound,
    /// Instead of Intuit's own addresses: where a counterpart is, in the local system and tests.
    endpoint: Option<String>,
    wire_clock: WireClock,
    pace: Pace,
    registration: Mutex<Option<(Instant, Registration)>>,
    /// When a bad signature last had the registration read again.
    doubted: Mutex<Option<Instant>>,
    tokens: Mutex<BTreeMap<String, tokens::Held>>,
}

impl std::fmt::Debug for Quickbooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quickbooks").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// The secrets of our registration with Intuit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppSecret {
    pub client_secret: Secret,
    /// Intuit signs webhooks with it.
    pub verifier: Secret,
}

/// Our registration, whole.
#[derive(Debug, Clone)]
struct Registration {
    app: App,
    redirect_uri: String,
    environment: QuickbooksEnvironment,
    verifier: Secret,
}

/// Why something in QuickBooks was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Somebody must connect the company again; whatever is to be done there waits.
    #[error("the company in QuickBooks cannot be reached: {0}")]
    Unusable(String),
    /// For good, and nothing was done: what a person must know.
    #[error("{0}")]
    Permanent(String),
    /// Somebody else is at it until then.
    #[error("somebody else is sending it")]
    Busy(Timestamp),
    #[error(transparent)]
    Api(ApiError),
    #[error(transparent)]
    Refusal(#[from] Refusal),
}

impl From<store::StoreError> for Failed {
    fn from(error: store::StoreError) -> Self {
        Self::Refusal(error.into())
    }
}

impl From<domain::money::MoneyError> for Failed {
    fn from(error: domain::money::MoneyError) -> Self {
        Self::Refusal(error.into())
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refusal(refusal) => refusal,
            Failed::Unusable(why) | Failed::Permanent(why) => Self::Service(SERVICE, why),
            Failed::Busy(_) => Self::Service(SERVICE, failed.to_string()),
            Failed::Api(error) => Self::Service(SERVICE, error.to_string()),
        }
    }
}

impl Quickbooks {
    pub fn new(outbound: Outbound, endpoint: Option<String>, wire_clock: WireClock, pace: Pace) -> Self {
        Self {
            outbound,
            endpoint,
            wire_clock,
            pace,
            registration: Mutex::new(None),
            doubted: Mutex::new(None),
            tokens: Mutex::new(BTreeMap::new()),
        }
    }

    fn wire_now(&self) -> Timestamp {
        (self.wire_clock)()
    }

    /// Our registration with Intuit; `None` where there is none yet.
    async fn registration(&self, context: &Context) -> Result<Option<Registration>> {
        let known = self.registration.lock().ok().and_then(|known| known.clone());
        if let Some((_, registration)) = known.filter(|(since, _)| since.elapsed() < KEPT) {
            return Ok(Some(registration));
        }
        let operation = "quickbooks registration";
        let Some(app) = context.store.quickbooks_app(operation).await? else { return Ok(None) };
        let Some(secret) = read_secret::<AppSecret>(context, &app_secret_name(context), CURRENT).await? else {
            return Ok(None);
        };
        let registration = Registration {
            app: App { client_id: app.client_id, client_secret: secret.value.client_secret },
            redirect_uri: app.redirect_uri,
            environment: app.environment,
            verifier: secret.value.verifier,
        };
        if let Ok(mut known) = self.registration.lock() {
            *known = Some((Instant::now(), registration.clone()));
        }
        Ok(Some(registration))
    }

    /// Has it read again before it is used again.
    fn doubt_registration(&self) {
        if let Ok(mut known) = self.registration.lock() {
            *known = None;
        }
    }

    /// What Intuit signs webhooks with. `again`: not as it was known, since a signature did not fit.
    pub async fn verifier(&self, context: &Context, again: bool) -> Result<Option<Secret>> {
        if again && self.may_doubt() {
            self.doubt_registration();
        }
        Ok(self.registration(context).await?.map(|registration| registration.verifier))
    }

    /// Once a minute: strangers must not have us read secrets as often as they like.
    fn may_doubt(&self) -> bool {
        let Ok(mut doubted) = self.doubted.lock() else { return false };
        let may = doubted.is_none_or(|at| at.elapsed() >= KEPT);
        if may {
            *doubted = Some(Instant::now());
        }
        may
    }

    async fn registered(&self, context: &Context) -> Result<Registration> {
        let none =
            || Refusal::Illegal("there is no registration with Intuit yet: PUT /quickbooks/app first".to_owned());
        self.registration(context).await?.ok_or_else(none)
    }

    fn sign_in(&self, registration: &Registration) -> SignIn {
        let endpoints = self.endpoint.as_deref().map_or_else(Endpoints::intuit, Endpoints::under);
        SignIn { outbound: self.outbound.clone(), endpoints, app: registration.app.clone() }
    }

    fn client(&self, registration: &Registration, realm: &str, access: &Secret) -> Client {
        let company = Company { environment: self.environment(registration), realm: realm.to_owned() };
        Client::new(self.outbound.clone(), company, access.clone())
    }

    fn environment(&self, registration: &Registration) -> Environment {
        match (&self.endpoint, registration.environment) {
            (Some(endpoint), _) => Environment(endpoint.clone()),
            (None, QuickbooksEnvironment::Production) => Environment::production(),
            (None, QuickbooksEnvironment::Sandbox) => Environment::sandbox(),
        }
    }
}

/// A program's settings, or those of all without their own.
pub async fn settings_of(
    context: &Context,
    operation: &'static str,
    program: &ProgramId,
) -> Result<Option<QuickbooksSettings>> {
    let own = context.store.quickbooks_settings(operation, Some(program)).await?;
    Ok(match own {
        Some(own) => Some(own),
        None => context.store.quickbooks_settings(operation, None).await?,
    })
}

fn app_secret_name(context: &Context) -> String {
    format!("{}/quickbooks/app", context.secret_prefix)
}

/// A secret, and which version of it was read.
#[derive(Debug, Clone)]
struct ReadSecret<T> {
    value: T,
    version: String,
}

fn secrets_failed(code: Option<&str>) -> Refusal {
    Refusal::Service("Secrets Manager", code.unwrap_or("no answer").to_owned())
}

const CURRENT: &str = "AWSCURRENT";

async fn read_secret<T: serde::de::DeserializeOwned>(
    context: &Context,
    name: &str,
    stage: &str,
) -> Result<Option<ReadSecret<T>>> {
    match context.secrets.get_secret_value().secret_id(name).version_stage(stage).send().await {
        Ok(read) => {
            let text = read.secret_string.unwrap_or_default();
            // Never put the text into an error: it is the secret.
            let value = serde_json::from_str(&text).map_err(|_| secrets_failed(Some("unreadable secret")))?;
            Ok(Some(ReadSecret { value, version: read.version_id.unwrap_or_default() }))
        }
        Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
        Err(error) => Err(secrets_failed(error.code())),
    }
}

/// Writes a secret, whatever it was.
async fn write_secret<T: Serialize>(context: &Context, name: &str, value: &T) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|_| secrets_failed(Some("unwritable secret")))?;
    match context.secrets.create_secret().name(name).secret_string(&text).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ResourceExistsException") => {
            let put = context.secrets.put_secret_value().secret_id(name).secret_string(&text).send().await;
            put.map(drop).map_err(|error| secrets_failed(error.code()))
        }
        Err(error) => Err(secrets_failed(error.code())),
    }
}
