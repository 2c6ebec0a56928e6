//! Payout runs.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use domain::ids::{PartnerId, ProgramId, RunId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use workflows::runs::{Manual, Report, manual_run, preview_run, report, start_manual};

use crate::bulk;
use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Id, Paging};
use crate::idempotency::HEADER;
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::tagged::Tagged;
use crate::{Shared, programs, show};

/// Partners that may be named in one run; a run over all names none.
const MAX_NAMED: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    program_id: String,
    #[serde(default)]
    cut_off: Option<Timestamp>,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    preview: bool,
}

/// What tells this request from others: the client's key, or nothing that ever comes again.
pub fn request_key(shared: &Shared, headers: &HeaderMap, caller: &Caller) -> String {
    match headers.get(HEADER).and_then(|key| key.to_str().ok()) {
        Some(key) => format!("{}/{key}", caller.subject),
        None => format!("{:032x}", shared.context.clock.uuid()),
    }
}

async fn named(shared: &Shared, program: &ProgramId, pointer: &str, ids: &[String]) -> Answer<Vec<PartnerId>> {
    let mut fields = Fields::default();
    fields.check(ids.len() <= MAX_NAMED, pointer, "names too many partners");
    let mut parsed: Vec<PartnerId> =
        ids.iter().enumerate().filter_map(|(n, id)| fields.take(&format!("{pointer}/{n}"), id.parse())).collect();
    fields.done()?;
    parsed.sort();
    parsed.dedup();
    let found = shared.context.store.partners_by_id("runs", &parsed).await?;
    let mut fields = Fields::default();
    for id in &parsed {
        let known = found.iter().any(|partner| partner.id == *id && partner.program == *program);
        let at = ids.iter().position(|given| given == id.as_str()).unwrap_or_default();
        fields.check(known, &format!("{pointer}/{at}"), "no partner of the program has this id");
    }
    fields.done()?;
    Ok(parsed)
}

pub async fn start(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    input: Body<Input>,
) -> Answer<(StatusCode, Json<Value>)> {
    caller.must_be(&[Role::Approver, Role::Finance])?;
    let input = input.get()?;
    let program = programs::required(&shared, &input.program_id, "/programId").await?;
    let now = shared.context.now();
    if input.cut_off.is_some_and(|cut_off| cut_off > now) {
        return Err(Problem::invalid_field("/cutOff", "lies in the future"));
    }
    let key = request_key(&shared, &headers, &caller);
    let manual = Manual {
        key: &key,
        cut_off: input.cut_off,
        include: named(&shared, &program.id, "/include", &input.include).await?,
        exclude: named(&shared, &program.id, "/exclude", &input.exclude).await?,
    };
    if input.preview {
        let run = manual_run(&shared.context, &program.id, &manual, &caller.subject);
        let (would_pay, report) = preview_run(&shared.context, run).await?;
        let mut shown = show::run(&report);
        shown["id"] = Value::Null;
        let would_pay: Vec<_> =
            would_pay.iter().map(|(partner, amount)| json!({"partnerId": partner, "amount": amount})).collect();
        shown["wouldPay"] = json!(would_pay);
        return Ok((StatusCode::OK, Json(shown)));
    }
    let run = start_manual(&shared.context, &program.id, &manual, &caller.subject).await?;
    let report = report(&shared.context, &run.id).await?;
    Ok((StatusCode::ACCEPTED, Json(show::run(&report))))
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<RunId>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    Ok(Tagged::whole(show::run(&report(&shared.context, &id).await?)))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[serde(deny_unknown_fields)]
pub struct ListFilter {
    program_id: String,
}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let program = bulk::parse::<ProgramId>(&filter.program_id, "program")?;
    programs::load(&shared, &program).await?;
    let query = Query::new(&shared, &caller, "runs", &filter, paging);
    let store = &shared.context.store;
    let page = query.fetch(async |after, limit| store.runs("runs", &program, after.as_deref(), limit).await).await?;
    let mut data = Vec::with_capacity(page.items.len());
    for run in page.items {
        let full: Report = report(&shared.context, &run.id).await?;
        data.push(show::run(&full));
    }
    query.page(data, page.after).await
}
