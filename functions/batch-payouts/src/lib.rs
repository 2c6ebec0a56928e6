//! On a schedule: due payout runs are planned, one message per partner; what stopped half-way is driven on.

use lambda_runtime::{Error, LambdaEvent};
use serde_json::{Value, json};
use workflows::Context;
use workflows::runs::{Ticked, tick};

/// Whatever the schedule sends means the same: do what is due.
pub async fn handle(context: &Context, event: LambdaEvent<Value>) -> Result<Ticked, Error> {
    let ticked = tick(context, runtime::time_left(event.context.deadline())).await?;
    tracing::info!(runs = ticked.runs_started, resumed = ticked.payouts_resumed, "ticked");
    Ok(ticked)
}

/// How long the payout has been waiting that has waited longest to be paid, in the form that a log is searched for metrics:
/// it needs neither a permission nor a call.
pub async fn unpaid_age(context: &Context, function: &str) -> Result<Value, Error> {
    let since = context.store.unpaid_since("measure unpaid age").await?;
    let now = context.now();
    let age = since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
    Ok(json!({
        "_aws": {
            "Timestamp": now.as_millisecond(),
            "CloudWatchMetrics": [{
                "Namespace": "PartnerPayouts",
                "Dimensions": [["FunctionName"]],
                "Metrics": [{"Name": "UnpaidAge", "Unit": "Seconds"}],
            }],
        },
        "FunctionName": function,
        "UnpaidAge": age,
    }))
}
