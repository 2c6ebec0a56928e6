//! Setting up: programs, partners, and storefront connections with their secrets.

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use domain::ids::SourceId;
use domain::program::{Partner, Program};
use serde::{Deserialize, Serialize};
use store::{Link, Source, StoreError, Transaction};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};

/// The secret of a storefront connection. Both are accepted while it is being rotated.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSecret {
    pub current: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

impl std::fmt::Debug for SourceSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourceSecret(..)")
    }
}

pub fn secret_name(context: &Context, source: &SourceId) -> String {
    format!("{}/sources/{source}", context.secret_prefix)
}

/// Returns the program, which may have been made before by the same request.
pub async fn create_program(context: &Context, program: &Program) -> Result<Program> {
    const OPERATION: &str = "create program";
    let mut transaction = Transaction::new(OPERATION);
    transaction.create_program(program)?;
    match context.store.commit(transaction).await {
        Ok(()) => Ok(program.clone()),
        Err(StoreError::Stale) => Ok(context.store.program(OPERATION, &program.id).await?.ok_or(StoreError::Stale)?),
        Err(error) => Err(error.into()),
    }
}

/// The partner's code is also its first link, unless another program's link has it: codes are unique in a program, links
/// everywhere. Returns the partner, who may have been made before by the same request.
pub async fn create_partner(context: &Context, partner: &Partner) -> Result<Partner> {
    const OPERATION: &str = "create partner";
    until_fresh(async || {
        let store = &context.store;
        match store.partner_with_code(OPERATION, &partner.program, &partner.code).await? {
            Some(known) if known.id == partner.id => return Ok(known),
            Some(_) => return Err(Refusal::invalid("/code", "another partner of the program has this code")),
            None => {}
        }
        let mut transaction = Transaction::new(OPERATION);
        transaction.create_partner(partner)?;
        if store.link(OPERATION, &partner.code).await?.is_none() {
            transaction.create_link(&Link::of(partner))?;
        }
        store.commit(transaction).await?;
        Ok(partner.clone())
    })
    .await
}

/// Open payouts follow changed payout details, also those that an earlier attempt did not come to.
pub async fn change_partner(context: &Context, partner: &Partner, read: &Partner, by: &str) -> Result<()> {
    let mut transaction = Transaction::new("change partner");
    transaction.replace_partner(partner, read)?;
    match context.store.commit(transaction).await {
        Err(StoreError::Stale) => Err(Refusal::Stale(vec!["somebody changed the partner meanwhile".to_owned()])),
        other => Ok(other?),
    }?;
    crate::payouts::redirect_open(context, partner, by).await
}

/// The secret first: a connection without one would refuse everything, a secret without a connection harms nobody. Nobody else makes a
/// source of this id, so what is there of it already was made before by the same request, from the same chance.
pub async fn create_source(context: &Context, source: &Source, secret: &SourceSecret) -> Result<()> {
    let text = serde_json::json!(secret).to_string();
    let made = context.secrets.create_secret().name(secret_name(context, &source.id)).secret_string(text).send().await;
    match made {
        Ok(_) => {}
        Err(error) if error.code() == Some("ResourceExistsException") => {}
        Err(error) => {
            return Err(Refusal::Service("Secrets Manager", error.code().unwrap_or("no answer").to_owned()));
        }
    }
    let mut transaction = Transaction::new("create source");
    transaction.create_source(source)?;
    match context.store.commit(transaction).await {
        Ok(()) | Err(StoreError::Stale) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `None` where the connection has no secret.
pub async fn source_secret(context: &Context, source: &SourceId) -> Result<Option<SourceSecret>> {
    let answer = context.secrets.get_secret_value().secret_id(secret_name(context, source)).send().await;
    let text = match answer {
        Ok(value) => value.secret_string.unwrap_or_default(),
        Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(None),
        Err(error) => {
            return Err(Refusal::Service("Secrets Manager", error.code().unwrap_or("no answer").to_owned()));
        }
    };
    // Never put the text into an error: it is the secret.
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|_| Refusal::Service("Secrets Manager", "unreadable secret".to_owned()))
}
