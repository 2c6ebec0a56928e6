//! Deliveries from storefronts become conversions: read, attributed, rated, booked; or filed for a person.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::program::Program;
use http::{HeaderMap, HeaderName, HeaderValue};
use lambda_runtime::{Error, LambdaEvent};
use store::{ExceptionCode, Source};
use storefronts::{Kind, Reading};
use workflows::exceptions::{Trouble, file};
use workflows::ingest::{Incoming, ingest};
use workflows::queues::Delivery;
use workflows::{Context, Refusal};

const OPERATION: &str = "accrue";

pub async fn handle(context: &Context, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(runtime::each_record(event.payload, |body| async move { deliver(context, &body).await }).await)
}

/// Why a record comes again, and in the end goes to the dead-letter queue.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("not a delivery: {0}")]
    NotADelivery(serde_json::Error),
    #[error("the delivery's body is not base64")]
    NotBase64,
    #[error("the delivery's source is of an unknown kind")]
    UnknownKind,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

async fn deliver(context: &Context, record: &str) -> Result<(), Failed> {
    let delivery: Delivery = serde_json::from_str(record).map_err(Failed::NotADelivery)?;
    let body = STANDARD.decode(&delivery.body).map_err(|_| Failed::NotBase64)?;
    let source = context.store.source(OPERATION, &delivery.source).await.map_err(Refusal::from)?;
    let source = source.ok_or(Refusal::NotFound("source"))?;
    let program = context.store.program(OPERATION, &source.program).await.map_err(Refusal::from)?;
    let program = program.ok_or(Refusal::NotFound("program"))?;
    let kind: Kind = serde_json::from_value(source.kind.clone().into()).map_err(|_| Failed::UnknownKind)?;
    // Kept with an exception as received: what is no text stays base64.
    let text = std::str::from_utf8(&body).unwrap_or(&delivery.body);
    match storefronts::read(kind, &headers(&delivery), &body) {
        Ok(Reading::Ignored(why)) => {
            tracing::info!(source = %source.id, why, "delivery moves no money");
            Ok(())
        }
        Ok(Reading::Events(events)) => {
            for event in &events {
                book(context, &program, &source, &delivery, event, text).await?;
            }
            Ok(())
        }
        Err(unreadable) => {
            let trouble = Trouble {
                code: ExceptionCode::Unreadable,
                detail: unreadable.to_string(),
                program: Some(&program.id),
                source: Some(&source.id),
                order: None,
                body: Some(text),
            };
            Ok(file(context, trouble).await.map(drop)?)
        }
    }
}

async fn book(
    context: &Context,
    program: &Program,
    source: &Source,
    delivery: &Delivery,
    event: &domain::conversion::ConversionEvent,
    body: &str,
) -> Result<(), Failed> {
    let incoming = Incoming {
        program,
        source: &source.id,
        event,
        received_at: delivery.received_at,
        partner_must_exist: false,
        body: Some(body),
    };
    let not_booked = match ingest(context, incoming).await {
        Ok(outcome) => {
            tracing::info!(source = %source.id, order = event.order(), ?outcome, "event ingested");
            return Ok(());
        }
        Err(not_booked) => not_booked,
    };
    let Some(code) = not_booked.exception() else {
        return Err(Refusal::Service("the database", not_booked.to_string()).into());
    };
    let trouble = Trouble {
        code,
        detail: not_booked.to_string(),
        program: Some(&program.id),
        source: Some(&source.id),
        order: Some(event.order()),
        body: Some(body),
    };
    Ok(file(context, trouble).await.map(drop)?)
}

fn headers(delivery: &Delivery) -> HeaderMap {
    let parsed = delivery
        .headers
        .iter()
        .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?)));
    parsed.collect()
}
