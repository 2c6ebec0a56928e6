//! Every night: what companies in QuickBooks have against what is here.

use lambda_runtime::{Error, LambdaEvent};
use serde_json::Value;
use workflows::Context;
use workflows::quickbooks::reconcile::{Reconciled, reconcile_all};
use workflows::rails::Rails;

/// Whatever the schedule sends means the same: compare all of them.
pub async fn handle(context: &Context, rails: &Rails, event: LambdaEvent<Value>) -> Result<Reconciled, Error> {
    let done = reconcile_all(context, rails, runtime::time_left(event.context.deadline())).await?;
    tracing::info!(companies = done.companies, compared = done.compared, differing = done.differing, "reconciled");
    Ok(done)
}
