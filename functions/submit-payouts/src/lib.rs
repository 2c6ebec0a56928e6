//! Approved payouts go to the rail that their program asks to pay them, and what became of them there is read. One message per payout,
//! from the bus when it is approved, from the API when it is retried, from PayPal's webhook, and from `batch-payouts` for what was missed.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use workflows::queues::Submission;
use workflows::rails::{Paypal, attend};
use workflows::{Context, Refusal};

pub async fn handle(
    context: &Context,
    paypal: &Paypal,
    event: LambdaEvent<SqsEvent>,
) -> Result<SqsBatchResponse, Error> {
    Ok(runtime::each_record(event.payload, |body| async move { submit(context, paypal, &body).await }).await)
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("it names no payout: {0}")]
    NoPayout(serde_json::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

async fn submit(context: &Context, paypal: &Paypal, record: &str) -> Result<(), Failed> {
    let submission: Submission = serde_json::from_str(record).map_err(Failed::NoPayout)?;
    let payout = submission.detail.payout.id;
    let done = attend(context, paypal, &payout).await?;
    tracing::info!(%payout, ?done, "attended to");
    Ok(())
}
