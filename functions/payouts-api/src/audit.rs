//! The audit trail: a commission's history with its hashes verified, and a program's commissions computed again from the journal.

use axum::Json;
use axum::extract::State;
use domain::ids::{LineId, ProgramId};
use serde::Deserialize;
use serde_json::{Value, json};
use workflows::replay::{MAX_OF_PROGRAM, of_program};

use crate::caller::Caller;
use crate::extract::{Filter, Id};
use crate::problem::{Answer, Problem};
use crate::{Shared, bulk, programs};

pub async fn commission(State(shared): State<Shared>, caller: Caller, Id(id): Id<LineId>) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    Ok(Json(json!(workflows::audit::trail(&shared.context, &id).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    program_id: Option<String>,
}

pub async fn replay(State(shared): State<Shared>, caller: Caller, Filter(of): Filter<Replayed>) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let Some(id) = &of.program_id else { return Err(Problem::malformed("", "name a programId")) };
    let program = programs::load(&shared, &bulk::parse::<ProgramId>(id, "program")?).await?;
    Ok(Json(json!(of_program(&shared.context, &program.id, MAX_OF_PROGRAM).await?)))
}
