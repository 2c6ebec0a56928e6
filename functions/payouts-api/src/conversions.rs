//! Conversions reported by the API, in our own event form.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::ids::{ConversionId, SourceId};
use domain::rules::FieldError;
use serde_json::{Value, json};
use store::ExceptionCode;
use storefronts::{Unreadable, standard};
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
    let source = SourceId::of_api(&program.id);
    let context = &shared.context;
    let text = String::from_utf8_lossy(&body);
    let incoming = Incoming {
        program: &program,
        source: &source,
        event: &parsed.event,
        received_at: context.now(),
        unknown_partner: UnknownPartner::Refuse,
        body: Some(&text),
    };
    let id = conversion_id(&incoming);
    let outcome = match ingest(context, incoming).await {
        Ok(outcome) => outcome,
        Err(not_booked) => {
            if not_booked.exception() == Some(ExceptionCode::Contradiction) {
                let trouble = Trouble {
                    code: ExceptionCode::Contradiction,
                    detail: not_booked.to_string(),
                    program: Some(&program.id),
                    source: Some(&source),
                    order: Some(parsed.event.order()),
                    body: Some(&text),
                };
                file(context, trouble).await?;
            }
            return Err(not_booked.into());
        }
    };
    let told = match outcome {
        Ingested::Applied { .. } => "applied",
        Ingested::AlreadyApplied => "already_applied",
        Ingested::AwaitingSale => "awaiting_sale",
        Ingested::Unattributed => "unattributed",
    };
    Ok((StatusCode::ACCEPTED, Json(json!({"id": id, "outcome": told}))))
}

fn refused(unreadable: Unreadable) -> Problem {
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
