//! Batches of queue messages: each record on its own. One that cannot be read, fails or panics is reported as failed and
//! comes again; its neighbors are done.

use std::panic::AssertUnwindSafe;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures::FutureExt;

/// Hands every record's body to `handle`. An empty body is a failure: acknowledging it would lose whatever it was.
pub async fn each_record<E: std::fmt::Display, F: Future<Output = Result<(), E>>>(
    event: SqsEvent,
    mut handle: impl FnMut(String) -> F,
) -> SqsBatchResponse {
    let mut failures = Vec::new();
    for record in event.records {
        let id = record.message_id.clone().unwrap_or_default();
        if let Err(reason) = one(&record, &mut handle).await {
            tracing::error!(message = %id, %reason, "record failed and will come again");
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id;
            failures.push(failure);
        }
    }
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = failures;
    response
}

async fn one<E: std::fmt::Display, F: Future<Output = Result<(), E>>>(
    record: &SqsMessage,
    handle: &mut impl FnMut(String) -> F,
) -> Result<(), String> {
    let body = record.body.clone().filter(|body| !body.is_empty()).ok_or("the record has no body")?;
    match AssertUnwindSafe(async { Box::pin(handle(body)).await }).catch_unwind().await {
        Ok(done) => done.map_err(|error| error.to_string()),
        // The panic's own message may hold data; it went to standard error.
        Err(_) => Err("the handler panicked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_bad_or_panicking_record_fails_only_itself() {
        let event: SqsEvent = serde_json::from_value(serde_json::json!({"Records": [
            {"messageId": "fine", "body": "ok"},
            {"messageId": "panics", "body": "panic"},
            {"messageId": "empty", "body": ""},
            {"messageId": "missing"},
            {"messageId": "refused", "body": "no"},
            {"messageId": "also fine", "body": "ok"},
        ]}))
        .unwrap();
        let done = std::cell::Cell::new(0);
        let response = each_record(event, async |body: String| match body.as_str() {
            "ok" => {
                done.set(done.get() + 1);
                Ok(())
            }
            "panic" => panic!("boom"),
            _ => Err("refused"),
        })
        .await;
        let failed: Vec<_> =
            response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
        assert_eq!((done.get(), failed), (2, vec!["panics", "empty", "missing", "refused"]));
    }
}
