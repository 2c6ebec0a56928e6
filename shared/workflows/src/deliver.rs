//! A storefront's delivery: read, and each event it tells booked; or filed for a person, who may have it replayed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::conversion::ConversionEvent;
use domain::ids::{ExceptionId, SourceId};
use domain::program::Program;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use store::{Exception, ExceptionCode};
use storefronts::{Kind, Reading, standard};

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exceptions::{Trouble, file, open, resolve};
use crate::ingest::{Incoming, Ingested, UnknownPartner, ingest};
use crate::queues::Delivery;

const OPERATION: &str = "accrue";

/// Why a delivery must come again, and in the end goes to the dead-letter queue.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    #[error("the delivery's body is not base64")]
    NotBase64,
    #[error("the delivery's source is of an unknown kind")]
    UnknownKind,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Books what a delivery tells. What cannot be booked is filed, and is no failure.
pub async fn deliver(context: &Context, delivery: &Delivery) -> Result<(), Undelivered> {
    let body = STANDARD.decode(&delivery.body).map_err(|_| Undelivered::NotBase64)?;
    let connection = Connection::of_source(context, &delivery.source).await?;
    let received = Received {
        context,
        connection: &connection,
        at: delivery.received_at,
        headers: &delivery.headers,
        // Kept with an exception as received: what is no text stays base64.
        text: std::str::from_utf8(&body).unwrap_or(&delivery.body),
        body: &body,
    };
    match received.read() {
        Ok(Reading::Ignored(why)) => {
            tracing::info!(source = %connection.source, why, "delivery moves no money");
        }
        Ok(Reading::Events(events)) => {
            for event in &events {
                match received.book(event).await? {
                    Ok(outcome) => {
                        tracing::info!(source = %connection.source, order = event.order(), ?outcome, "event ingested");
                    }
                    Err(trouble) => drop(file(context, trouble).await?),
                }
            }
        }
        Err(trouble) => drop(file(context, trouble).await?),
    }
    Ok(())
}

/// Books the body of an open exception once more, under the moment it was first received at, and resolves the exception.
/// [`Refusal::Illegal`] if any of it is refused again: then it stays open, and no other is filed about it.
pub async fn replay(context: &Context, id: &ExceptionId, by: &str) -> Result<Exception> {
    let exception = open(context, id).await?;
    let kept = context.store.exception_body("replay exception", id).await?;
    let text = kept.ok_or_else(|| {
        Refusal::Illegal("the body it came with is not kept any more; let its source send it again".to_owned())
    })?;
    let connection = match Connection::of_exception(context, &exception).await {
        Err(Undelivered::Refused(refusal)) if refusal.is_transient() => return Err(refusal),
        other => other.map_err(|undelivered| Refusal::Illegal(undelivered.to_string()))?,
    };
    let received = Received {
        context,
        connection: &connection,
        at: exception.received_at.unwrap_or(exception.created_at),
        headers: &exception.headers,
        body: text.as_bytes(),
        text: &text,
    };
    let (mut outcomes, mut refused) = (Vec::new(), Vec::new());
    match received.read() {
        Ok(Reading::Ignored(why)) => outcomes.push(format!("ignored, {why}")),
        Ok(Reading::Events(events)) => {
            for event in &events {
                match received.book(event).await? {
                    Ok(outcome) => outcomes.push(outcome.as_str().to_owned()),
                    Err(trouble) => refused.push(trouble.detail),
                }
            }
        }
        Err(trouble) => refused.push(trouble.detail),
    }
    if !refused.is_empty() {
        return Err(Refusal::Illegal(format!("it was refused again: {}", refused.join("; "))));
    }
    outcomes.dedup();
    resolve(context, id, by, Some(&format!("replayed: {}", outcomes.join(", ")))).await
}

/// Where events come from, and what is made of them.
struct Connection {
    program: Program,
    source: SourceId,
    kind: Kind,
    unknown_partner: UnknownPartner,
}

impl Connection {
    async fn of_source(context: &Context, id: &SourceId) -> Result<Self, Undelivered> {
        let source = context.store.source(OPERATION, id).await.map_err(Refusal::from)?;
        let source = source.ok_or(Refusal::NotFound("source"))?;
        let program = context.store.program(OPERATION, &source.program).await.map_err(Refusal::from)?;
        let program = program.ok_or(Refusal::NotFound("program"))?;
        let kind = serde_json::from_value(source.kind.into()).map_err(|_| Undelivered::UnknownKind)?;
        let unknown_partner = match kind {
            Kind::Standard => UnknownPartner::File,
            Kind::Shopify | Kind::Woocommerce | Kind::Stripe => UnknownPartner::Ignore,
        };
        Ok(Self { program, source: source.id, kind, unknown_partner })
    }

    /// What the API reports has a source without an item, in our own form.
    async fn of_exception(context: &Context, exception: &Exception) -> Result<Self, Undelivered> {
        let source = exception.source.as_ref().ok_or(Refusal::NotFound("source"))?;
        let api = exception.program.as_ref().filter(|program| SourceId::of_api(program) == *source);
        let Some(program) = api else { return Self::of_source(context, source).await };
        let program = context.store.program(OPERATION, program).await.map_err(Refusal::from)?;
        let program = program.ok_or(Refusal::NotFound("program"))?;
        Ok(Self { program, source: source.clone(), kind: Kind::Standard, unknown_partner: UnknownPartner::Refuse })
    }
}

/// A delivery whose connection is known.
struct Received<'a> {
    context: &'a Context,
    connection: &'a Connection,
    at: Timestamp,
    headers: &'a [(String, String)],
    body: &'a [u8],
    text: &'a str,
}

impl<'a> Received<'a> {
    fn read(&self) -> Result<Reading, Trouble<'a>> {
        let reading = storefronts::read(self.connection.kind, &headers(self.headers), self.body);
        let reading = reading.map_err(|error| self.trouble(ExceptionCode::Unreadable, error.to_string(), None))?;
        if matches!(reading, Reading::Events(_)) && self.is_for_another_program() {
            let detail = "the event names another program than its connection belongs to".to_owned();
            return Err(self.trouble(ExceptionCode::Impossible, detail, None));
        }
        Ok(reading)
    }

    /// Only our own form can say which program it is meant for.
    fn is_for_another_program(&self) -> bool {
        let named = match self.connection.kind {
            Kind::Standard => standard::parse(self.body).ok().and_then(|event| event.program_id),
            Kind::Shopify | Kind::Woocommerce | Kind::Stripe => None,
        };
        named.is_some_and(|named| named != self.connection.program.id.as_str())
    }

    /// What became of an event; the outer error is one that trying again may mend.
    async fn book<'e>(&self, event: &'e ConversionEvent) -> Result<Result<Ingested, Trouble<'e>>>
    where
        'a: 'e,
    {
        let incoming = Incoming {
            program: &self.connection.program,
            source: &self.connection.source,
            event,
            received_at: self.at,
            unknown_partner: self.connection.unknown_partner,
            headers: self.headers,
            body: Some(self.text),
        };
        let not_booked = match ingest(self.context, incoming).await {
            Ok(outcome) => return Ok(Ok(outcome)),
            Err(not_booked) => not_booked,
        };
        match not_booked.exception() {
            Some(code) => Ok(Err(self.trouble(code, not_booked.to_string(), Some(event.order())))),
            None => Err(Refusal::Service("the database", not_booked.to_string())),
        }
    }

    fn trouble<'e>(&self, code: ExceptionCode, detail: String, order: Option<&'e str>) -> Trouble<'e>
    where
        'a: 'e,
    {
        Trouble {
            code,
            detail,
            program: Some(&self.connection.program.id),
            source: Some(&self.connection.source),
            order,
            received_at: self.at,
            headers: self.headers,
            body: Some(self.text),
        }
    }
}

fn headers(kept: &[(String, String)]) -> HeaderMap {
    let parsed = kept
        .iter()
        .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?)));
    parsed.collect()
}
