//! Rule sets: drafts, sign-off, publishing.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::ids::ProgramId;
use domain::program::Program;
use domain::rules::{RuleSet, RuleSetDraft};
use serde_json::{Value, json};
use workflows::Refusal;

use crate::caller::{Caller, Role};
use crate::extract::{Body, Id, IfMatch, Tagged};
use crate::problem::{Answer, Problem};
use crate::programs::load;
use crate::{Shared, show};

fn tagged(set: &RuleSet) -> Tagged {
    Tagged { tag: format!("\"{}-{}\"", set.version, set.state.name()), shown: show::rule_set(set) }
}

pub async fn draft(
    State(shared): State<Shared>,
    caller: Caller,
    Id(program): Id<ProgramId>,
    draft: Body<RuleSetDraft>,
) -> Answer<(StatusCode, Tagged)> {
    caller.must_be(&[Role::ProgramManager])?;
    let draft = draft.get()?;
    let program = load(&shared, &program).await?;
    let set = workflows::rules::draft(&shared.context, &program, draft, &caller.subject).await?;
    Ok((StatusCode::CREATED, tagged(&set)))
}

pub async fn list(State(shared): State<Shared>, caller: Caller, Id(program): Id<ProgramId>) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    load(&shared, &program).await?;
    let sets = shared.context.store.rule_sets("rules", &program).await?;
    let data: Vec<_> = sets.iter().map(show::rule_set).collect();
    Ok(Json(json!({"data": data, "nextCursor": null})))
}

/// A program and a version of it, named in the path.
async fn version(shared: &Shared, path: &(String, String)) -> Answer<(Program, u32)> {
    let id: ProgramId = path.0.parse().map_err(|_| Problem::not_found("program"))?;
    let version = path.1.parse().map_err(|_| Problem::not_found("rule set"))?;
    Ok((load(shared, &id).await?, version))
}

async fn load_version(shared: &Shared, program: &Program, version: u32) -> Answer<RuleSet> {
    let set = shared.context.store.rule_set("rules", &program.id, version).await?;
    Ok(set.ok_or(Refusal::NotFound("rule set"))?)
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Path(path): Path<(String, String)>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    let (program, version) = version(&shared, &path).await?;
    Ok(tagged(&load_version(&shared, &program, version).await?))
}

pub async fn sign_off(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Path(path): Path<(String, String)>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager])?;
    let (program, version) = version(&shared, &path).await?;
    if_match.check(&tagged(&load_version(&shared, &program, version).await?).tag)?;
    let set = workflows::rules::sign_off(&shared.context, &program.id, version, &caller.subject).await?;
    Ok(tagged(&set))
}

pub async fn publish(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Path(path): Path<(String, String)>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager])?;
    let (program, version) = version(&shared, &path).await?;
    if_match.check(&tagged(&load_version(&shared, &program, version).await?).tag)?;
    let set = workflows::rules::publish(&shared.context, &program, version, &caller.subject).await?;
    Ok(tagged(&set))
}
