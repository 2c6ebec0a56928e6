//! What changed in QuickBooks is looked at there, and payouts follow what is found. One message per event, from `qbo-webhook`.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use workflows::quickbooks::events::apply;
use workflows::rails::Rails;
use workflows::{Context, Refusal};

pub async fn handle(context: &Context, rails: &Rails, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(runtime::each_record(event.payload, |body| async move { look(context, rails, &body).await }).await)
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("it is no event of QuickBooks: {0}")]
    NoEvent(serde_json::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

async fn look(context: &Context, rails: &Rails, record: &str) -> Result<(), Failed> {
    let event = serde_json::from_str(record).map_err(Failed::NoEvent)?;
    Ok(apply(context, rails, &event).await?)
}
