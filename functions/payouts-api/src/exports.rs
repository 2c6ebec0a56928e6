//! Export batches: payouts that go out in files, and the files.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use domain::ids::{ExportId, ProgramId};
use domain::remittance::RemittanceFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Export, ExportProgress, LeftOut, Whose};
use workflows::exports::Asked;
use workflows::files::CSV;

use crate::caller::{Caller, Role};
use crate::extract::{Body, Filter, Id, Paging};
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::tagged::Tagged;
use crate::{Shared, bulk, programs, reports, runs};

const OPERATION: &str = "exports";
/// For gathering, of the 29 seconds a call may take. A batch that is not whole by then goes on by itself.
const GATHERING: Duration = Duration::from_secs(20);
/// Payouts left out that are told with the batch itself; the list has them all.
const TOLD: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    program_id: String,
    format: RemittanceFormat,
    #[serde(default = "all")]
    method: Whose,
}

const fn all() -> Whose {
    Whose::All
}

/// Takes what is approved and in no batch yet into files.
pub async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    input: Body<Input>,
) -> Answer<(StatusCode, Tagged)> {
    caller.must_be(&[Role::Finance])?;
    let input = input.get()?;
    let program = programs::required(&shared, &input.program_id, "/programId").await?;
    let key = runs::request_key(&shared, &headers, &caller);
    let asked = Asked { key: &key, program: &program.id, format: input.format, whose: input.method };
    let until = Instant::now() + GATHERING;
    let time_left = || Instant::now() < until;
    let export = workflows::exports::export(&shared.context, &asked, &caller.subject, time_left).await?;
    Ok((StatusCode::CREATED, Tagged::whole(shown(&shared, &export).await?)))
}

async fn load(shared: &Shared, id: &ExportId) -> Answer<Export> {
    let export = shared.context.store.export(OPERATION, id).await?;
    export.ok_or_else(|| Problem::not_found("export"))
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<ExportId>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    let export = load(&shared, &id).await?;
    Ok(Tagged::whole(shown(&shared, &export).await?))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListFilter {
    program_id: String,
}

/// Newest first.
pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let program = bulk::parse::<ProgramId>(&filter.program_id, "program")?;
    programs::load(&shared, &program).await?;
    let query = Query::new(&shared, &caller, OPERATION, &filter, paging);
    let store = &shared.context.store;
    let page =
        query.fetch(async |after, limit| store.exports(OPERATION, &program, after.as_deref(), limit).await).await?;
    query.page(page.items.iter().map(summary).collect(), page.after).await
}

/// The payouts that would have fitted and stayed, each with its reason.
pub async fn left_out(
    State(shared): State<Shared>,
    caller: Caller,
    Id(id): Id<ExportId>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let export = load(&shared, &id).await?;
    let query = Query::new(&shared, &caller, "left out", &id, paging);
    // A page of the batch is a page of the list.
    let from: u32 = query.start().await?;
    let (found, next) = left_out_from(&shared, &export, from, 1).await?;
    query.page(found.iter().map(show_left_out).collect(), next).await
}

/// Those on the first pages from this number on that have any.
async fn left_out_from(
    shared: &Shared,
    export: &Export,
    from: u32,
    at_least: usize,
) -> Answer<(Vec<LeftOut>, Option<u32>)> {
    let (mut found, mut next) = (Vec::new(), from);
    while found.len() < at_least && next < export.pages {
        let pages = shared.context.store.export_pages(OPERATION, &export.id, next, 1).await?;
        found.extend(pages.into_iter().flat_map(|page| page.left_out));
        next += 1;
    }
    Ok((found, (next < export.pages).then_some(next)))
}

#[derive(Debug, Deserialize)]
pub struct FileOf {
    id: String,
    number: usize,
}

pub async fn file(
    State(shared): State<Shared>,
    caller: Caller,
    path: Result<Path<FileOf>, axum::extract::rejection::PathRejection>,
) -> Answer<Response> {
    // It tells where people get their money.
    caller.must_be(&[Role::Finance])?;
    let Path(FileOf { id, number }) = path.map_err(|_| Problem::not_found("file"))?;
    let id = bulk::parse::<ExportId>(&id, "export")?;
    let delivered = workflows::exports::file(&shared.context, &shared.files, &id, number).await?;
    Ok(reports::answer(&format!("{id}-{number}.csv"), CSV, delivered)?)
}

fn summary(export: &Export) -> Value {
    let complete = export.progress == ExportProgress::Complete;
    let numbers = 0..if complete { export.files.len() } else { 0 };
    let files: Vec<_> = numbers.map(|n| format!("/api/v1/exports/{}/files/{n}", export.id)).collect();
    json!({
        "id": export.id, "programId": export.program, "format": export.format, "method": export.whose,
        "state": if complete { "complete" } else { "gathering" }, "payouts": export.payouts,
        "leftOutCount": export.left_out, "files": files, "createdAt": export.created_at, "createdBy": export.created_by,
    })
}

fn show_left_out(left_out: &LeftOut) -> Value {
    json!({"payoutId": left_out.payout, "code": left_out.because, "detail": left_out.detail})
}

async fn shown(shared: &Shared, export: &Export) -> Answer<Value> {
    let mut shown = summary(export);
    let wanted = TOLD.min(usize::try_from(export.left_out).unwrap_or(TOLD));
    let (mut left_out, _) = left_out_from(shared, export, 0, wanted).await?;
    left_out.truncate(TOLD);
    shown["leftOut"] = left_out.iter().map(show_left_out).collect();
    Ok(shown)
}
