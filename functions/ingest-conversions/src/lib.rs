//! Deliveries from storefronts become conversions: read, attributed, rated, booked; or filed for a person.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::conversion::ConversionEvent;
use domain::program::Program;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent};
use store::{ExceptionCode, Source};
use storefronts::{Kind, Reading, standard};
use workflows::exceptions::{Trouble, file};
use workflows::ingest::{Incoming, UnknownPartner, ingest};
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
    let received = Received { context, program: &program, source: &source, kind, at: delivery.received_at, text };
    match storefronts::read(kind, &headers(&delivery), &body) {
        Ok(Reading::Ignored(why)) => {
            tracing::info!(source = %source.id, why, "delivery moves no money");
            Ok(())
        }
        Ok(Reading::Events(_)) if received.is_for_another_program() => {
            let detail = "the event names another program than its connection belongs to";
            received.file(ExceptionCode::Impossible, detail, None).await
        }
        Ok(Reading::Events(events)) => {
            for event in &events {
                received.book(event).await?;
            }
            Ok(())
        }
        Err(unreadable) => received.file(ExceptionCode::Unreadable, &unreadable.to_string(), None).await,
    }
}

/// A delivery whose connection is known.
struct Received<'a> {
    context: &'a Context,
    program: &'a Program,
    source: &'a Source,
    kind: Kind,
    at: Timestamp,
    text: &'a str,
}

impl Received<'_> {
    /// Only our own form can say which program it is meant for.
    fn is_for_another_program(&self) -> bool {
        let named = match self.kind {
            Kind::Standard => standard::parse(self.text.as_bytes()).ok().and_then(|event| event.program_id),
            Kind::Shopify | Kind::Woocommerce | Kind::Stripe => None,
        };
        named.is_some_and(|named| named != self.program.id.as_str())
    }

    async fn book(&self, event: &ConversionEvent) -> Result<(), Failed> {
        let incoming = Incoming {
            program: self.program,
            source: &self.source.id,
            event,
            received_at: self.at,
            unknown_partner: match self.kind {
                Kind::Standard => UnknownPartner::File,
                Kind::Shopify | Kind::Woocommerce | Kind::Stripe => UnknownPartner::Ignore,
            },
            body: Some(self.text),
        };
        let not_booked = match ingest(self.context, incoming).await {
            Ok(outcome) => {
                tracing::info!(source = %self.source.id, order = event.order(), ?outcome, "event ingested");
                return Ok(());
            }
            Err(not_booked) => not_booked,
        };
        match not_booked.exception() {
            Some(code) => self.file(code, &not_booked.to_string(), Some(event.order())).await,
            None => Err(Refusal::Service("the database", not_booked.to_string()).into()),
        }
    }

    async fn file(&self, code: ExceptionCode, detail: &str, order: Option<&str>) -> Result<(), Failed> {
        let trouble = Trouble {
            code,
            detail: detail.to_owned(),
            program: Some(&self.program.id),
            source: Some(&self.source.id),
            order,
            body: Some(self.text),
        };
        Ok(file(self.context, trouble).await.map(drop)?)
    }
}

fn headers(delivery: &Delivery) -> HeaderMap {
    let parsed = delivery
        .headers
        .iter()
        .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?)));
    parsed.collect()
}
