//! Conversions reported by the API, in our own event form.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::conversion::ConversionEvent;
use domain::ids::{ConversionId, SourceId};
use domain::program::Program;
use domain::rules::FieldError;
use serde_json::{Value, json};
use store::ExceptionCode;
use storefronts::{Unreadable, standard};
use workflows::Context;
use workflows::exceptions::{Trouble, file};
use workflows::ingest::{Incoming, Ingested, UnknownPartner, conversion_id, ingest};

use crate::caller::Caller;
use crate::extract::{Id, RawJson};
use crate::problem::{Answer, Problem};
use crate::{Shared, programs, show};

/// A sale or refund. Reporting the same again succeeds without effect.
pub async fn report(State(shared): State<Shared>, caller: Caller, body: RawJson) -> Answer<(StatusCode, Json<Value>)> {
    caller.must_be(&[])?;
    let body = body.get()?;
    let parsed = standard::parse(&body).map_err(refused)?;
    let program_id = parsed.program_id.as_deref();
    let program_id = program_id.ok_or_else(|| Problem::invalid_field("/programId", "is needed"))?;
    let program = programs::required(&shared, program_id, "/programId").await?;
    let text = String::from_utf8_lossy(&body);
    let (id, outcome) = book(&shared.context, &program, &parsed.event, &text).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"id": id, "outcome": outcome.as_str()}))))
}

/// Books an event under the program's API source. A contradiction is filed, too: somebody must find out which of the two is
/// right.
pub async fn book(
    context: &Context,
    program: &Program,
    event: &ConversionEvent,
    body: &str,
) -> Answer<(ConversionId, Ingested)> {
    let source = SourceId::of_api(&program.id);
    let incoming = Incoming {
        program,
        source: &source,
        event,
        received_at: context.now(),
        unknown_partner: UnknownPartner::Refuse,
        headers: &[],
        body: Some(body),
    };
    let received_at = incoming.received_at;
    let id = conversion_id(&incoming);
    let not_booked = match ingest(context, incoming).await {
        Ok(outcome) => return Ok((id, outcome)),
        Err(not_booked) => not_booked,
    };
    if not_booked.exception() == Some(ExceptionCode::Contradiction) {
        let trouble = Trouble {
            code: ExceptionCode::Contradiction,
            detail: not_booked.to_string(),
            program: Some(&program.id),
            source: Some(&source),
            order: Some(event.order()),
            received_at,
            headers: &[],
            body: Some(body),
        };
        file(context, trouble).await?;
    }
    Err(not_booked.into())
}

pub fn refused(unreadable: Unreadable) -> Problem {
    let errors: Vec<_> =
        unreadable.problems().iter().map(|problem| FieldError::new(&problem.pointer, &problem.detail)).collect();
    match unreadable {
        Unreadable::Malformed(_) => {
            let first = errors.first().cloned().unwrap_or_else(|| FieldError::new("", "cannot be read"));
            Problem { errors, ..Problem::malformed(first.pointer, first.detail) }
        }
        Unreadable::Invalid(_) => Problem::invalid(errors),
    }
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<ConversionId>) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let chain = shared.context.store.chain("conversion", id.as_str()).await?;
    if chain.is_empty() {
        return Err(Problem::not_found("conversion"));
    }
    Ok(Json(show::conversion(&id, &chain)))
}
