//! The queue of drafts: one message per partner of a run: decide, and claim the lines of one payout.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use workflows::queues::DraftRequest;
use workflows::runs::serve;
use workflows::{Context, Refusal};

pub async fn handle(context: &Context, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    let time_left = &runtime::time_left(event.context.deadline());
    Ok(runtime::each_record(event.payload, |body| async move { draft(context, &body, time_left).await }).await)
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("not a request to draft: {0}")]
    NotARequest(serde_json::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

async fn draft(context: &Context, record: &str, time_left: &impl Fn() -> bool) -> Result<(), Failed> {
    let request: DraftRequest = serde_json::from_str(record).map_err(Failed::NotARequest)?;
    Ok(serve(context, &request, time_left).await?)
}
