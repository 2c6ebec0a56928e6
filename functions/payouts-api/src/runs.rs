//! Payout runs.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use domain::ids::{PartnerId, ProgramId, RunId};
use domain::money::Minor;
use domain::program::Program;
use domain::selection::CarriedBecause;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Decision, Listing, Outcome};
use workflows::Refusal;
use workflows::report::{report, report_in_numbers, undecided};
use workflows::runs::{Foreseen, Manual, manual_run, next_run, preview, start_manual};

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
    /// Where a preview goes on.
    #[serde(default)]
    cursor: Option<String>,
}

/// How long a request asks partners itself; API Gateway waits for 30 seconds. The queue goes on with the rest.
const PLANNING: Duration = Duration::from_secs(10);
/// Partners that one call of a preview looks at.
const PREVIEWED: usize = 500;
/// Decisions looked through for one page of a filtered list; what is left comes with the next.
const MAX_EXAMINED: usize = 2_000;

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
    if let Some(both) = manual.include.iter().find(|partner| manual.exclude.contains(partner)) {
        let at = input.exclude.iter().position(|id| id == both.as_str()).unwrap_or_default();
        return Err(Problem::invalid_field(format!("/exclude/{at}"), "is named in /include, too"));
    }
    if input.preview {
        return Ok((StatusCode::OK, previewed(&shared, &caller, &program, &manual, input.cursor).await?));
    }
    let started = Instant::now();
    let time_left = || started.elapsed() < PLANNING;
    let id = start_manual(&shared.context, &program.id, &manual, &caller.subject, time_left).await?;
    Ok((StatusCode::ACCEPTED, Json(show::run(&report(&shared.context, &id).await?))))
}

/// A page of partners, and what a run by hand would do about them.
async fn previewed(
    shared: &Shared,
    caller: &Caller,
    program: &Program,
    manual: &Manual<'_>,
    cursor: Option<String>,
) -> Answer<Json<Value>> {
    let asked = json!([program.id, manual.cut_off, manual.include, manual.exclude]);
    let query = Query::new(shared, caller, "preview", &asked, Paging { limit: PREVIEWED, cursor });
    let run = manual_run(&shared.context, &program.id, manual, &caller.subject);
    let now = run.planned_at;
    let (after, limit) = (query.start::<Option<String>>().await?, i32::try_from(PREVIEWED).unwrap_or(i32::MAX));
    let seen = preview(&shared.context, program, run, now, after.as_deref(), limit).await?;
    let mut shown = show::preview(&seen);
    shown["nextCursor"] = query.page(Vec::new(), seen.after).await?.0["nextCursor"].take();
    Ok(Json(shown))
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<RunId>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    Ok(Tagged::whole(show::run(&report(&shared.context, &id).await?)))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
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
        data.push(show::run_in_numbers(&report_in_numbers(&shared.context, run).await?));
    }
    query.page(data, page.after).await
}

#[derive(Debug, Deserialize, Serialize)]
pub struct DecisionFilter {
    outcome: Option<Decided>,
    reason: Option<CarriedBecause>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Decided {
    Payout,
    Carried,
    /// Could not be decided so far.
    Failed,
    /// Partners who were asked, and of whom nothing was heard.
    Undecided,
}

impl DecisionFilter {
    fn lets_through(&self, decision: &Decision) -> bool {
        match &decision.outcome {
            Outcome::Payout { .. } => {
                self.reason.is_none() && self.outcome.is_none_or(|wanted| wanted == Decided::Payout)
            }
            Outcome::Failed { .. } => {
                self.reason.is_none() && self.outcome.is_none_or(|wanted| wanted == Decided::Failed)
            }
            Outcome::Carried { because, .. } => {
                self.outcome.is_none_or(|wanted| wanted == Decided::Carried)
                    && self.reason.is_none_or(|reason| reason == *because)
            }
        }
    }
}

/// A run's decisions, one by one.
pub async fn decisions(
    State(shared): State<Shared>,
    caller: Caller,
    Id(id): Id<RunId>,
    Filter(filter): Filter<DecisionFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let store = &shared.context.store;
    let run = store.run("runs", &id).await?.ok_or(Refusal::NotFound("run"))?;
    let query = Query::new(&shared, &caller, "decisions", &json!([id, filter]), paging);
    if filter.outcome == Some(Decided::Undecided) {
        let (after, limit) = (query.start::<Option<String>>().await?, i32::try_from(query.limit()).unwrap_or(i32::MAX));
        let page = undecided(&shared.context, &run, after.as_deref(), limit).await?;
        let unheard_of = page.items.iter().filter(|undecided| !undecided.failed);
        let data = unheard_of.map(|undecided| json!({"partnerId": undecided.partner, "outcome": "undecided"}));
        return query.page(data.collect(), page.after).await;
    }
    let mut after: Option<String> = query.start().await?;
    let (mut data, mut examined) = (Vec::new(), 0);
    loop {
        let room = i32::try_from(query.limit() - data.len()).unwrap_or(i32::MAX);
        let page: Listing<Decision> = store.decisions("runs", &id, after.as_deref(), Some(room)).await?;
        examined += page.items.len();
        data.extend(page.items.iter().filter(|decision| filter.lets_through(decision)).map(show::decision));
        after = page.after;
        if after.is_none() || data.len() >= query.limit() || examined >= MAX_EXAMINED {
            return query.page(data, after).await;
        }
    }
}

/// Where a preview of the next run goes on, and what it came to so far.
#[derive(Debug, Default, Deserialize, Serialize)]
struct NextRunPosition {
    after: Option<String>,
    so_far: Foretold,
}

/// Sums over the partners looked at so far.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
pub struct Foretold {
    pub partners: u32,
    pub payouts: u32,
    pub amount: Minor,
}

/// The program's next scheduled run, and what it would decide, page by page.
pub async fn next(
    State(shared): State<Shared>,
    caller: Caller,
    Id(id): Id<ProgramId>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let program = programs::load(&shared, &id).await?;
    let query = Query::new(&shared, &caller, "next run", &id, paging);
    let NextRunPosition { after, mut so_far } = query.start().await?;
    let limit = i32::try_from(query.limit()).unwrap_or(i32::MAX);
    let Some((run, seen)) = next_run(&shared.context, &program, after.as_deref(), limit).await? else {
        let mut shown = query.page(Vec::new(), None::<String>).await?;
        shown.0["date"] = Value::Null;
        return Ok(shown);
    };
    for (_, foreseen) in &seen.decisions {
        so_far.partners += 1;
        if let Foreseen::Paid(amount) = foreseen {
            so_far.payouts += 1;
            so_far.amount = so_far.amount.plus(amount.amount).map_err(Refusal::from)?;
        }
    }
    let data = seen.decisions.iter().map(show::foreseen).collect();
    let next = seen.after.map(|after| NextRunPosition { after: Some(after), so_far });
    let mut shown = query.page(data, next).await?;
    for (name, value) in [
        ("programId", json!(program.id)),
        ("date", json!(run.date)),
        ("startsAt", json!(run.starts_at)),
        ("cutOff", json!(run.cut_off)),
        ("payOn", json!(run.pay_on)),
        ("total", show::foretold(so_far, &program)),
    ] {
        shown.0[name] = value;
    }
    Ok(shown)
}
