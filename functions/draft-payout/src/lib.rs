//! One message per partner of a run: decide, and claim the lines of one payout.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use workflows::queues::DraftRequest;
use workflows::runs::draft_one;
use workflows::{Context, Refusal};

pub async fn handle(context: &Context, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(runtime::each_record(event.payload, |body| async move { draft(context, &body).await }).await)
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("not a request to draft: {0}")]
    NotARequest(serde_json::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

async fn draft(context: &Context, record: &str) -> Result<(), Failed> {
    let request: DraftRequest = serde_json::from_str(record).map_err(Failed::NotARequest)?;
    let outcome = draft_one(context, &request).await?;
    tracing::info!(run = %request.run, partner = %request.partner, ?outcome, "decided");
    Ok(())
}
