//! Rule sets: drafts, sign-off, publishing.

use std::num::NonZeroU32;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::ids::ProgramId;
use domain::program::Program;
use domain::rules::{Example, RuleSet, RuleSetDraft};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use workflows::Refusal;
use workflows::dry_run::{self, MAX_SALES};

use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Id, PartOf};
use crate::idempotency::Begun;
use crate::problem::{Answer, Problem};
use crate::programs::load;
use crate::tagged::{IfMatch, Tagged};
use crate::{Shared, show};

/// A rule set is one item of the table: 400 kB with what the table adds to it.
const MAX_DRAFT: usize = 200_000;
/// Our own event form nests three levels.
const MAX_EXAMPLE_DEPTH: u32 = 8;

/// Refuses what the table cannot keep: an example may hold anything besides our own form.
fn check_storable(draft: &RuleSetDraft) -> Answer<()> {
    let mut fields = Fields::default();
    fields.check(json!(draft).to_string().len() <= MAX_DRAFT, "", "a rule set is at most 200 kB");
    for (n, Example { input, .. }) in draft.examples.iter().enumerate() {
        let detail = "nests too deeply, or has a number that is too large or too small";
        fields.check(is_storable(input, MAX_EXAMPLE_DEPTH), &format!("/examples/{n}/input"), detail);
    }
    fields.done()
}

fn is_storable(value: &Value, depth: u32) -> bool {
    match value {
        Value::Array(list) => depth > 0 && list.iter().all(|value| is_storable(value, depth - 1)),
        Value::Object(fields) => depth > 0 && fields.values().all(|value| is_storable(value, depth - 1)),
        // DynamoDB's numbers go only a little further.
        Value::Number(number) => {
            number.as_f64().is_some_and(|number| number == 0.0 || (1e-100..1e100).contains(&number.abs()))
        }
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn tagged(set: &RuleSet) -> Tagged {
    Tagged { tag: format!("\"{}-{}\"", set.version, set.state.name()), shown: show::rule_set(set) }
}

pub async fn draft(
    State(shared): State<Shared>,
    caller: Caller,
    Begun(begun): Begun,
    Id(program): Id<ProgramId>,
    draft: Body<RuleSetDraft>,
) -> Answer<(StatusCode, Tagged)> {
    caller.must_be(&[Role::ProgramManager])?;
    let draft = draft.get()?;
    check_storable(&draft)?;
    let program = load(&shared, &program).await?;
    let set = workflows::rules::draft(&shared.context, &program, draft, &caller.subject, &begun).await?;
    Ok((StatusCode::CREATED, tagged(&set)))
}

pub async fn list(State(shared): State<Shared>, caller: Caller, Id(program): Id<ProgramId>) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    load(&shared, &program).await?;
    let sets = shared.context.store.rule_sets("rules", &program).await?;
    let data: Vec<_> = sets.iter().map(show::rule_set).collect();
    Ok(Json(json!({"data": data, "nextCursor": null})))
}

async fn load_version(shared: &Shared, program: &Program, version: u32) -> Answer<RuleSet> {
    let set = shared.context.store.rule_set("rules", &program.id, version).await?;
    Ok(set.ok_or(Refusal::NotFound("rule set"))?)
}

pub async fn read(State(shared): State<Shared>, caller: Caller, path: PartOf<ProgramId, u32>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    let PartOf(program, version) = path;
    let program = load(&shared, &program).await?;
    Ok(tagged(&load_version(&shared, &program, version).await?))
}

pub async fn sign_off(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    PartOf(program, version): PartOf<ProgramId, u32>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager])?;
    let program = load(&shared, &program).await?;
    if_match.check(&tagged(&load_version(&shared, &program, version).await?).tag)?;
    let set = workflows::rules::sign_off(&shared.context, &program.id, version, &caller.subject).await?;
    Ok(tagged(&set))
}

pub async fn publish(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    PartOf(program, version): PartOf<ProgramId, u32>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager])?;
    let program = load(&shared, &program).await?;
    if_match.check(&tagged(&load_version(&shared, &program, version).await?).tag)?;
    let set = workflows::rules::publish(&shared.context, &program, version, &caller.subject).await?;
    Ok(tagged(&set))
}

#[derive(Debug, Deserialize)]
pub struct Period {
    from: Timestamp,
    to: Timestamp,
}

/// What the version would have paid for the sales of a past period, against what was paid. Writes nothing.
pub async fn dry_run(
    State(shared): State<Shared>,
    caller: Caller,
    PartOf(program, version): PartOf<ProgramId, u32>,
    period: Body<Period>,
) -> Answer<Json<Value>> {
    caller.must_be(&[Role::ProgramManager, Role::Finance, Role::Analyst])?;
    let Period { from, to } = period.get()?;
    if from >= to {
        return Err(Problem::invalid_field("/to", "must be after from"));
    }
    let program = load(&shared, &program).await?;
    let set = load_version(&shared, &program, version).await?;
    let told = dry_run::dry_run(&shared.context, &program, &set, from, to, MAX_SALES).await?;
    let partners: Vec<_> = told
        .partners
        .iter()
        .map(|partner| {
            json!({
                "partnerId": partner.partner, "conversions": partner.conversions, "before": partner.sums.before,
                "after": partner.sums.after, "difference": partner.sums.difference,
            })
        })
        .collect();
    Ok(Json(json!({
        "version": version, "from": from, "to": to, "conversions": told.conversions,
        "total": {"before": told.total.before, "after": told.total.after, "difference": told.total.difference},
        "changed": told.changed, "partners": partners, "sentence": told.sentence,
    })))
}

#[derive(Debug, Deserialize)]
pub struct Against {
    /// The version to compare with; left out, the one before.
    against: Option<NonZeroU32>,
}

/// In words, what is different from another version.
pub async fn diff(
    State(shared): State<Shared>,
    caller: Caller,
    PartOf(program, version): PartOf<ProgramId, u32>,
    Filter(Against { against }): Filter<Against>,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let program = load(&shared, &program).await?;
    let set = load_version(&shared, &program, version).await?;
    let none = || Problem::invalid_field("", "there is no earlier version to compare with");
    let against = against.or(NonZeroU32::new(version.saturating_sub(1))).ok_or_else(none)?.get();
    let other = load_version(&shared, &program, against).await?;
    let changes = domain::rules::differences(&other.draft, &set.draft);
    Ok(Json(json!({"version": version, "against": against, "changes": changes})))
}
