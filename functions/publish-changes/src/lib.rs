//! From the table's stream: journal entries become domain events on the bus, and what is paid instantly is asked for. It writes nothing to the
//! table.

use aws_lambda_events::dynamodb::{Event, EventRecord};
use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use domain::ids::Hash;
use domain::journal::Entry;
use lambda_runtime::{Error, LambdaEvent};
use workflows::Context;
use workflows::instant::ask;
use workflows::publish::events_of;

pub async fn handle(context: &Context, event: LambdaEvent<Event>) -> Result<DynamoDbEventResponse, Error> {
    let mut response = DynamoDbEventResponse::default();
    for record in &event.payload.records {
        if let Err(reason) = publish(context, record).await {
            tracing::error!(record = %record.event_id, reason, "record failed and will come again");
            // The stream goes on from the first failure, so what follows is not tried.
            let mut failure = DynamoDbBatchItemFailure::default();
            failure.item_identifier.clone_from(&record.change.sequence_number);
            response.batch_item_failures.push(failure);
            break;
        }
    }
    Ok(response)
}

async fn publish(context: &Context, record: &EventRecord) -> Result<(), String> {
    let Some((entry, hash)) = entry(record)? else { return Ok(()) };
    context.bus.put(&events_of(&entry, &hash)).await.map_err(|error| error.to_string())?;
    ask(context, &entry).await.map_err(|error| error.to_string())
}

/// The journal entry a record inserted. The mapping's filter lets nothing else through; what comes anyway is passed over.
fn entry(record: &EventRecord) -> Result<Option<(Entry, String)>, String> {
    let image: serde_json::Value =
        serde_dynamo::from_item(record.change.new_image.clone()).map_err(|e| e.to_string())?;
    let is_entry = image["pk"].as_str().is_some_and(|pk| pk.starts_with("JRN#"));
    if record.event_name != "INSERT" || !is_entry {
        return Ok(None);
    }
    let text = image["text"].as_str().ok_or("the entry has no text")?;
    let entry = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(Some((entry, Hash::of(text.as_bytes()).to_string())))
}
