//! Exceptions: what needs a person, with the body it came with.

use axum::Json;
use axum::extract::State;
use domain::ids::{ExceptionId, ProgramId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Exception, ExceptionCode, ExceptionStatus};
use workflows::Refusal;

use crate::caller::{Caller, Role};
use crate::extract::{Fields, Filter, Id, OptionalBody, Paging};
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::tagged::{IfMatch, Tagged};
use crate::{Shared, bulk, show};

const OPERATION: &str = "exceptions";

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListFilter {
    status: Option<String>,
    code: Option<ExceptionCode>,
    program_id: Option<String>,
}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let status = match filter.status.as_deref() {
        None | Some("open") => ExceptionStatus::Open,
        Some("resolved") => ExceptionStatus::Resolved,
        Some(_) => return Err(Problem::malformed("", "status is open or resolved")),
    };
    let program = filter.program_id.as_deref().map(|id| bulk::parse::<ProgramId>(id, "program")).transpose()?;
    let wanted = |exception: &&Exception| {
        filter.code.is_none_or(|code| code == exception.code)
            && program.as_ref().is_none_or(|program| exception.program.as_ref() == Some(program))
    };
    let query = Query::new(&shared, &caller, "exceptions", &filter, paging);
    let store = &shared.context.store;
    let page =
        query.fetch(async |after, limit| store.exceptions(OPERATION, status, after.as_deref(), limit).await).await?;
    query.page(page.items.iter().filter(wanted).map(show::exception).collect(), page.after).await
}

fn tag(exception: &Exception) -> String {
    format!("\"{}\"", exception.status.as_str())
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<ExceptionId>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    let store = &shared.context.store;
    let exception = store.exception(OPERATION, &id).await?.ok_or(Refusal::NotFound("exception"))?;
    let body = store.exception_body(OPERATION, &id).await?;
    let mut shown = show::exception(&exception);
    shown["body"] = json!(body);
    Ok(Tagged { tag: tag(&exception), shown })
}

#[derive(Debug, Deserialize)]
pub struct Resolve {
    /// What was done about it.
    #[serde(default)]
    resolution: Option<String>,
}

pub async fn resolve(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(id): Id<ExceptionId>,
    input: OptionalBody<Resolve>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager, Role::Reviewer, Role::Finance])?;
    let input = input.get()?;
    let mut fields = Fields::default();
    let resolution = input.resolution.as_deref().map(|text| fields.text("/resolution", text));
    fields.done()?;
    let seen = shared.context.store.exception(OPERATION, &id).await?.ok_or(Refusal::NotFound("exception"))?;
    if_match.check(&tag(&seen))?;
    let resolved = workflows::exceptions::resolve(&shared.context, &id, &caller.subject, resolution.as_deref()).await?;
    Ok(Tagged { tag: tag(&resolved), shown: show::exception(&resolved) })
}

/// Books the kept body again, as it was received.
pub async fn replay(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(id): Id<ExceptionId>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager, Role::Reviewer, Role::Finance])?;
    let seen = shared.context.store.exception(OPERATION, &id).await?.ok_or(Refusal::NotFound("exception"))?;
    if_match.check(&tag(&seen))?;
    let resolved = workflows::deliver::replay(&shared.context, &id, &caller.subject).await?;
    Ok(Tagged { tag: tag(&resolved), shown: show::exception(&resolved) })
}
