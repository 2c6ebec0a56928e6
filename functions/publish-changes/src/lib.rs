//! From the table's stream: journal entries and the ends of runs become domain events on the bus, and what is paid instantly is asked for. It
//! writes nothing to the table.

use aws_lambda_events::dynamodb::{Event, EventRecord};
use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use domain::ids::Hash;
use domain::journal::Entry;
use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent};
use serde_json::Value;
use workflows::Context;
use workflows::instant::ask;
use workflows::publish::{event_of_run, events_of};

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

/// The mapping's filter lets nothing else through; what comes anyway is passed over.
async fn publish(context: &Context, record: &EventRecord) -> Result<(), String> {
    let image: Value = serde_dynamo::from_item(record.change.new_image.clone()).map_err(|error| error.to_string())?;
    let key = |name: &str| image[name].as_str().unwrap_or_default();
    if record.event_name == "INSERT" && key("pk").starts_with("JRN#") {
        let text = image["text"].as_str().ok_or("the entry has no text")?;
        let entry: Entry = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let events = events_of(&entry, &Hash::of(text.as_bytes()).to_string());
        context.bus.put(&events).await.map_err(|error| error.to_string())?;
        ask(context, &entry).await.map_err(|error| error.to_string())?;
    } else if record.event_name == "MODIFY" && key("pk").starts_with("RUN#") && key("sk") == "RUN" {
        let at = Timestamp::from_second(record.change.approximate_creation_date_time.timestamp());
        let run = serde_json::from_value(image).map_err(|error| error.to_string())?;
        let event = event_of_run(context, &run, at.map_err(|error| error.to_string())?).await;
        let events: Vec<_> = event.map_err(|error| error.to_string())?.into_iter().collect();
        context.bus.put(&events).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
