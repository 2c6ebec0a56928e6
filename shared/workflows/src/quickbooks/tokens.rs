//! Tokens and their renewal. A refresh token used twice at once may end the connection, so one worker at a time renews, under a lease in
//! the table; the others wait for what it writes. What is given out is written before it is used: beside the current tokens first, and
//! whoever finds it there, because its writer came no further, makes it the current ones.

use std::time::Duration;

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use jiff::SignedDuration;
use quickbooks::oauth::{SignInError, Tokens};
use serde::{Deserialize, Serialize};
use store::{QuickbooksLease, QuickbooksState, StoreError, Transaction};

use super::connection::broken;
use super::{CURRENT, Failed, Quickbooks, SERVICE, read_secret, secrets_failed, write_secret};
use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "renew quickbooks tokens";
/// A renewal is one call of at most 30 seconds and two writes; whoever has not come back after this is dead.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// How often a worker without the lease looks whether new tokens are there.
const WAITS: usize = 12;
const WAIT: Duration = Duration::from_millis(250);
/// The label of tokens between being given out and being the current ones.
const RENEWED: &str = "RENEWED";

/// Tokens, and which version of the secret they are.
#[derive(Debug, Clone)]
pub struct Held {
    pub tokens: Tokens,
    pub version: String,
}

/// Tokens beside the current ones, with the version they were made from. Those that were made from another are of no use: they were made
/// current before, or a new consent came in between.
#[derive(Debug, Serialize, Deserialize)]
struct Renewed {
    #[serde(default)]
    from: String,
    #[serde(flatten)]
    tokens: Tokens,
}

fn name(context: &Context, realm: &str) -> String {
    format!("{}/quickbooks/realms/{realm}", context.secret_prefix)
}

/// `None`: it was never connected, or was disconnected.
async fn read(context: &Context, realm: &str) -> Result<Option<Held>> {
    let read = read_secret::<Option<Tokens>>(context, &name(context, realm), CURRENT).await?;
    Ok(read.and_then(|read| Some(Held { tokens: read.value?, version: read.version })))
}

impl Quickbooks {
    fn keep(&self, realm: &str, held: Option<&Held>) {
        if let Ok(mut known) = self.tokens.lock() {
            match held {
                Some(held) => drop(known.insert(realm.to_owned(), held.clone())),
                None => drop(known.remove(realm)),
            }
        }
    }

    /// The first tokens of a consent, or a new one's.
    pub(super) async fn take_tokens(&self, context: &Context, realm: &str, tokens: Tokens) -> Result<()> {
        write_secret(context, &name(context, realm), &Some(tokens)).await?;
        self.keep(realm, None);
        Ok(())
    }

    /// Has Intuit end the connection. Why it did not, where it was to and did not.
    pub(super) async fn revoke_tokens(&self, context: &Context, realm: &str) -> Result<Option<String>> {
        let Some(held) = read(context, realm).await? else { return Ok(None) };
        let Some(registration) = self.registration(context).await? else {
            return Ok(Some("there is no registration with Intuit".to_owned()));
        };
        let revoked = self.sign_in(&registration).revoke(&held.tokens.refresh).await;
        if revoked.is_err() {
            self.doubt_registration();
        }
        Ok(revoked.err().map(|error| error.to_string()))
    }

    /// From then on the company cannot be reached from here, whatever Intuit would still let in.
    pub(super) async fn forget_tokens(&self, context: &Context, realm: &str) -> Result<()> {
        if read(context, realm).await?.is_some() {
            write_secret(context, &name(context, realm), &None::<Tokens>).await?;
        }
        self.keep(realm, None);
        Ok(())
    }

    /// Tokens that are good for some minutes at least.
    pub(super) async fn tokens(&self, context: &Context, realm: &str) -> Result<Held, Failed> {
        let known = self.tokens.lock().ok().and_then(|known| known.get(realm).cloned());
        let held = match known {
            Some(held) => held,
            None => read(context, realm).await?.ok_or_else(|| Failed::Unusable("it has no tokens".to_owned()))?,
        };
        if held.tokens.are_due(self.wire_now()) {
            return Box::pin(self.renew(context, realm, &held.version)).await;
        }
        self.keep(realm, Some(&held));
        Ok(held)
    }

    /// Tokens other than these, which are ended or about to.
    pub(super) async fn renew(&self, context: &Context, realm: &str, ended: &str) -> Result<Held, Failed> {
        for _ in 0..WAITS {
            let lease = take_lease(context, realm).await?;
            let held = read(context, realm).await?.ok_or_else(|| Failed::Unusable("it has no tokens".to_owned()))?;
            // Somebody else renewed them.
            let is_new = |held: &Held| held.version != ended && !held.tokens.are_due(self.wire_now());
            let Some(lease) = lease else {
                if is_new(&held) {
                    self.keep(realm, Some(&held));
                    return Ok(held);
                }
                tokio::time::sleep(WAIT).await;
                continue;
            };
            let renewed = match promoted(context, realm, held).await {
                Ok(held) if is_new(&held) => Ok(held),
                Ok(held) => self.renew_alone(context, realm, held).await,
                Err(failed) => Err(failed),
            };
            release(context, &lease).await;
            let renewed = renewed?;
            self.keep(realm, Some(&renewed));
            return Ok(renewed);
        }
        Err(Refusal::Service(SERVICE, "somebody else has been renewing the tokens for too long".to_owned()).into())
    }

    async fn renew_alone(&self, context: &Context, realm: &str, held: Held) -> Result<Held, Failed> {
        let registration = self.registered(context).await?;
        let sign_in = self.sign_in(&registration);
        match sign_in.refresh(&held.tokens.refresh, self.wire_now()).await {
            Ok(tokens) => {
                // Not every answer tells it, and it does not change.
                let consent_until = tokens.consent_until.or(held.tokens.consent_until);
                swap(context, realm, &held, Tokens { consent_until, ..tokens }).await
            }
            Err(SignInError::InvalidGrant) => {
                self.keep(realm, None);
                // Somebody who held the lease longer than it lasts may have renewed them a moment ago.
                let now = match read(context, realm).await? {
                    Some(now) => Some(promoted(context, realm, now).await?),
                    None => None,
                };
                match now {
                    Some(now) if now.version != held.version => Ok(now),
                    _ => {
                        let why = "Intuit does not accept the refresh token any more";
                        broken(context, realm, QuickbooksState::ReauthorizationRequired, why).await?;
                        Err(Failed::Unusable(why.to_owned()))
                    }
                }
            }
            // The same token is tried again the next time: it is good unless new ones were given out and lost, and then nothing else is.
            Err(error) => {
                self.doubt_registration();
                Err(Refusal::Service(SERVICE, error.to_string()).into())
            }
        }
    }
}

/// The current tokens, or those that were made from them, where whoever made them came no further than putting them beside these.
async fn promoted(context: &Context, realm: &str, current: Held) -> Result<Held, Failed> {
    let renewed = read_secret::<Renewed>(context, &name(context, realm), RENEWED).await?;
    match renewed.filter(|renewed| renewed.value.from == current.version) {
        Some(renewed) => {
            let renewed = Held { tokens: renewed.value.tokens, version: renewed.version };
            promote(context, realm, &current, renewed).await
        }
        None => Ok(current),
    }
}

/// Puts new tokens in the place of those they were made from, and of no others.
async fn swap(context: &Context, realm: &str, before: &Held, tokens: Tokens) -> Result<Held, Failed> {
    let renewed = Renewed { from: before.version.clone(), tokens };
    let text = serde_json::to_string(&renewed).map_err(|_| secrets_failed(Some("unwritable secret")))?;
    let version = uuid::Uuid::from_u128(context.clock.random()).to_string();
    let put = context.secrets.put_secret_value().secret_id(name(context, realm)).client_request_token(&version);
    let put = put.secret_string(text).version_stages(RENEWED).send().await;
    put.map_err(|error| secrets_failed(error.code()))?;
    promote(context, realm, before, Held { tokens: renewed.tokens, version }).await
}

/// Makes tokens that were put beside the current ones the current ones.
async fn promote(context: &Context, realm: &str, before: &Held, renewed: Held) -> Result<Held, Failed> {
    let moved = context
        .secrets
        .update_secret_version_stage()
        .secret_id(name(context, realm))
        .version_stage(CURRENT)
        .remove_from_version_id(&before.version)
        .move_to_version_id(&renewed.version)
        .send()
        .await;
    match moved {
        Ok(_) => Ok(renewed),
        Err(error) => {
            let failed = secrets_failed(error.code());
            // Either somebody else was faster, and theirs are the ones, or the answer was lost and ours are.
            match read(context, realm).await? {
                Some(now) if now.version != before.version => Ok(now),
                _ => Err(failed.into()),
            }
        }
    }
}

/// `None`: somebody else has it.
async fn take_lease(context: &Context, realm: &str) -> Result<Option<QuickbooksLease>> {
    let read = context.store.quickbooks_lease(OPERATION, realm).await?;
    let now = context.now();
    if read.as_ref().is_some_and(|lease| lease.until > now) {
        return Ok(None);
    }
    let lease = QuickbooksLease {
        realm: realm.to_owned(),
        holder: format!("{:032x}", context.clock.random()),
        until: now + LEASE,
        version: read.as_ref().map_or(1, |read| read.version + 1),
    };
    let mut transaction = Transaction::new(OPERATION);
    transaction.set_quickbooks_lease(&lease, read.as_ref())?;
    match context.store.commit(transaction).await {
        Ok(()) => Ok(Some(lease)),
        Err(StoreError::Stale) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A lease that cannot be given back ends by itself.
async fn release(context: &Context, lease: &QuickbooksLease) {
    let mut transaction = Transaction::new(OPERATION);
    transaction.release_quickbooks_lease(lease);
    if let Err(error) = context.store.commit(transaction).await {
        tracing::warn!(realm = lease.realm, %error, "the lease of the tokens was not given back");
    }
}
