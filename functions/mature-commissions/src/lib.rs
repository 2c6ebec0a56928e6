//! On a schedule: lines whose hold period ended become payable.

use lambda_runtime::{Error, LambdaEvent};
use serde_json::Value;
use workflows::Context;
use workflows::mature::{Matured, mature};

/// Whatever the schedule sends means the same: do what is due.
pub async fn handle(context: &Context, event: LambdaEvent<Value>) -> Result<Matured, Error> {
    let matured = mature(context, runtime::time_left(event.context.deadline())).await?;
    tracing::info!(lines = matured.lines, unfinished = matured.unfinished, "matured");
    Ok(matured)
}
