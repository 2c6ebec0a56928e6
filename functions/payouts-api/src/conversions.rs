//! Conversions: reported by the API in our own event form, read, and attributed by hand.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::attribution::MAX_PARTNERS;
use domain::conversion::ConversionEvent;
use domain::ids::{ConversionId, PartnerId, SourceId};
use domain::journal::Sealed;
use domain::money::parse_decimal;
use domain::program::Program;
use domain::rules::FieldError;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Because, ExceptionCode};
use storefronts::{Unreadable, standard};
use workflows::Context;
use workflows::attribution::{Part, by_hand};
use workflows::exceptions::{Trouble, file};
use workflows::ingest::{Incoming, Ingested, UnknownPartner, conversion_id, ingest};
use workflows::review::{MAX_ATOMIC, MAX_BULK};

use crate::bulk::{self, check_count};
use crate::caller::{Caller, Role};
use crate::commissions::Mode;
use crate::extract::{Body, Fields, Filter, Id, Paging, RawJson};
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::tagged::{IfMatch, Tagged};
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

/// The events of a conversion.
async fn chain(shared: &Shared, id: &ConversionId) -> Answer<Vec<Sealed>> {
    let chain = shared.context.store.chain("conversion", id.as_str()).await?;
    if chain.is_empty() { Err(Problem::not_found("conversion")) } else { Ok(chain) }
}

/// Its version: every change of a conversion appends an event.
fn events(chain: &[Sealed]) -> u32 {
    chain.last().map_or(0, |sealed| sealed.entry.position)
}

fn tagged(id: &ConversionId, chain: &[Sealed]) -> Tagged {
    Tagged::version(events(chain), show::conversion(id, chain))
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<ConversionId>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    Ok(tagged(&id, &chain(&shared, &id).await?))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListFilter {
    program_id: String,
    status: Status,
}

/// Only conversions that made no commission are kept as a list; the others are found by theirs.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Unattributed,
    NoRule,
}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let because = match filter.status {
        Status::Unattributed => Because::Unattributed,
        Status::NoRule => Because::NoRule,
    };
    let id = filter.program_id.parse().map_err(|_| Problem::not_found("program"))?;
    programs::load(&shared, &id).await?;
    let query = Query::new(&shared, &caller, "conversions", &filter, paging);
    let store = &shared.context.store;
    let page = query
        .fetch(async |after, limit| store.unrewarded("conversions", &id, because, after.as_deref(), limit).await)
        .await?;
    query.page(page.items.iter().map(show::unrewarded).collect(), page.after).await
}

/// Whom a conversion is due to: one partner, or several with shares in percent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attribute {
    #[serde(default)]
    partner_id: Option<String>,
    #[serde(default)]
    shares: Vec<ShareInput>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShareInput {
    partner_id: String,
    percent: String,
}

impl Attribute {
    fn parts(&self, fields: &mut Fields) -> Vec<Part> {
        match (&self.partner_id, self.shares.as_slice()) {
            (Some(id), []) => {
                let partner = fields.take("/partnerId", id.parse::<PartnerId>());
                partner.into_iter().map(|partner| Part { partner, part: 1 }).collect()
            }
            (None, shares @ [_, ..]) => {
                let mut parts = Vec::with_capacity(shares.len());
                let mut sum = Decimal::ZERO;
                for (n, share) in shares.iter().enumerate() {
                    let partner = fields.take(&format!("/shares/{n}/partnerId"), share.partner_id.parse::<PartnerId>());
                    let percent = parse_decimal(&share.percent).ok().filter(Decimal::is_sign_positive);
                    // Six decimals of a percent are kept as whole parts.
                    let part =
                        percent.map(|percent| percent * Decimal::from(1_000_000)).filter(|part| part.fract().is_zero());
                    let part = part.and_then(|part| part.to_u64()).filter(|part| *part > 0);
                    fields.check(
                        part.is_some(),
                        &format!("/shares/{n}/percent"),
                        "must be a percentage above 0 with at most six decimals",
                    );
                    sum += percent.unwrap_or_default();
                    parts.extend(partner.zip(part).map(|(partner, part)| Part { partner, part }));
                }
                fields.check(sum == Decimal::ONE_HUNDRED, "/shares", "percentages must sum to 100");
                fields.check(shares.len() <= MAX_PARTNERS, "/shares", "at most 6 partners");
                parts
            }
            _ => {
                fields.refuse("/partnerId", "name either partnerId or shares");
                Vec::new()
            }
        }
    }
}

impl Attribute {
    /// Whom it is due to, and why.
    fn checked(self) -> Answer<(Vec<Part>, String)> {
        let mut fields = Fields::default();
        let parts = self.parts(&mut fields);
        let reason = fields.text("/reason", self.reason.as_deref().unwrap_or_default());
        fields.done()?;
        Ok((parts, reason))
    }
}

/// A person says whom it is due to. What it earned others so far is taken back.
pub async fn attribute(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(id): Id<ConversionId>,
    input: Body<Attribute>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager, Role::Reviewer])?;
    let (parts, reason) = input.get()?.checked()?;
    let seen = if_match.check_version(events(&chain(&shared, &id).await?))?;
    by_hand(&shared.context, &id, seen, &parts, &reason, &caller.subject).await?;
    Ok(tagged(&id, &chain(&shared, &id).await?))
}

#[derive(Debug, Deserialize)]
struct Attributions {
    conversions: Vec<AttributeOne>,
    #[serde(default)]
    atomic: bool,
}

#[derive(Debug, Deserialize)]
struct AttributeOne {
    id: String,
    #[serde(flatten)]
    due: Attribute,
}

/// The same of several, with a result for each.
pub async fn attribute_several(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(mode): Filter<Mode>,
    body: RawJson,
) -> Answer<Json<Value>> {
    caller.must_be(&[Role::ProgramManager, Role::Reviewer])?;
    let asked: Attributions = crate::extract::parse(&body.get()?)?;
    let atomic = asked.atomic || mode.atomic;
    check_count(asked.conversions.len(), if atomic { MAX_ATOMIC } else { MAX_BULK }, "/conversions")?;
    let asked = asked.conversions.into_iter().map(|AttributeOne { id, due }| {
        let parsed = bulk::parse::<ConversionId>(&id, "conversion");
        let parsed = parsed.and_then(|known| due.checked().map(|(parts, reason)| (known, parts, reason)));
        (id, parsed)
    });
    let by = &caller.subject;
    let change = |context: Context, (id, parts, why): (ConversionId, Vec<Part>, String)| async move {
        by_hand(&context, &id, None, &parts, &why, by).await
    };
    bulk::each(&shared.context, "attribute several", "conversion", asked.collect(), atomic, change).await
}
