//! Approved payouts go to the rail that their program asks to pay them, and what became of them there is read. One message per payout,
//! from the bus when it is approved, from the API when it is retried, from webhooks, and from `batch-payouts` for what was missed.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use workflows::queues::Submission;
use workflows::rails::{Rails, attend};
use workflows::{Context, Refusal};

pub async fn handle(context: &Context, rails: &Rails, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(runtime::each_record(event.payload, |body| async move { submit(context, rails, &body).await }).await)
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("it names no payout: {0}")]
    NoPayout(serde_json::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

async fn submit(context: &Context, rails: &Rails, record: &str) -> Result<(), Failed> {
    let submission: Submission = serde_json::from_str(record).map_err(Failed::NoPayout)?;
    let asked = submission.detail.payout;
    let done = attend(context, rails, &asked).await?;
    tracing::info!(payout = %asked.id, ?done, "attended to");
    Ok(())
}
