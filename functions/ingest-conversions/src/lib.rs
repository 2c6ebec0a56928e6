//! Deliveries from storefronts become conversions: read, attributed, rated, booked; or filed for a person.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use workflows::Context;
use workflows::deliver::{Undelivered, deliver};

pub async fn handle(context: &Context, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(runtime::each_record(event.payload, |body| async move { book(context, &body).await }).await)
}

/// Why a record comes again, and in the end goes to the dead-letter queue.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("not a delivery: {0}")]
    NotADelivery(serde_json::Error),
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
}

async fn book(context: &Context, record: &str) -> Result<(), Failed> {
    let delivery = serde_json::from_str(record).map_err(Failed::NotADelivery)?;
    Ok(deliver(context, &delivery).await?)
}
