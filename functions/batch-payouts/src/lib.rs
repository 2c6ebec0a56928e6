//! On a schedule: due payout runs are planned, one message per partner; what stopped half-way is driven on.

use lambda_runtime::{Error, LambdaEvent};
use serde_json::Value;
use workflows::Context;
use workflows::runs::{Ticked, tick};

/// Whatever the schedule sends means the same: do what is due.
pub async fn handle(context: &Context, event: LambdaEvent<Value>) -> Result<Ticked, Error> {
    let ticked = tick(context, runtime::time_left(event.context.deadline())).await?;
    tracing::info!(runs = ticked.runs_started, resumed = ticked.payouts_resumed, "ticked");
    Ok(ticked)
}
