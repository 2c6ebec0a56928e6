//! A program's connection to PayPal: with one, approved PayPal payouts are sent by PayPal's API; without, they wait for a file.

use axum::extract::State;
use domain::ids::ProgramId;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{PaypalConnection, PaypalEnvironment};
use workflows::rails::connect_paypal;

use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Id};
use crate::problem::{Answer, Problem};
use crate::tagged::{IfMatch, Tagged, tag};
use crate::{Shared, programs};

const OPERATION: &str = "paypal";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    environment: PaypalEnvironment,
    client_id: String,
    /// The stored one stays where it is left out.
    #[serde(default)]
    client_secret: Option<String>,
    webhook_id: String,
    #[serde(default = "yes")]
    enabled: bool,
}

const fn yes() -> bool {
    true
}

/// Connects, changes the connection, or switches it off.
pub async fn connect(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(program): Id<ProgramId>,
    input: Body<Input>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::Finance])?;
    let input = input.get()?;
    programs::load(&shared, &program).await?;
    let read = shared.context.store.paypal(OPERATION, &program).await?;
    if_match.check(&tag(read.as_ref().map_or(0, |read| read.version)))?;
    let mut fields = Fields::default();
    let client_id = fields.text("/clientId", &input.client_id);
    let webhook_id = fields.text("/webhookId", &input.webhook_id);
    let secret = input.client_secret.as_deref().map(|secret| fields.text("/clientSecret", secret));
    fields.check(secret.is_some() || read.is_some(), "/clientSecret", "is needed to connect");
    fields.done()?;
    let connection = PaypalConnection {
        program,
        environment: input.environment,
        client_id,
        webhook_id,
        enabled: input.enabled,
        changed_at: shared.context.now(),
        changed_by: caller.subject.clone(),
        version: read.as_ref().map_or(1, |read| read.version + 1),
    };
    connect_paypal(&shared.context, &connection, read.as_ref(), secret.as_deref()).await?;
    Ok(shown(&connection))
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(program): Id<ProgramId>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    let connection = shared.context.store.paypal(OPERATION, &program).await?;
    connection.as_ref().map(shown).ok_or_else(|| Problem::not_found("connection to PayPal"))
}

/// Never the secret.
fn shown(connection: &PaypalConnection) -> Tagged {
    let shown: Value = json!({
        "programId": connection.program, "environment": connection.environment, "clientId": connection.client_id,
        "webhookId": connection.webhook_id, "webhookUrl": format!("/webhooks/paypal/{}", connection.program),
        "enabled": connection.enabled, "changedAt": connection.changed_at, "changedBy": connection.changed_by,
    });
    Tagged::version(connection.version, shown)
}
