//! Commissions: lines, listed and reviewed.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::ids::{LineId, PartnerId, ProgramId};
use domain::line::{Line, StateName};
use domain::money::Minor;
use domain::program::Partner;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{LinePosition, partner_position, program_position};
use workflows::Context;
use workflows::balances::reasons_of_lines;
use workflows::review::{MAX_ATOMIC, MAX_BULK, Verdict};

use crate::bulk::{self, check_count};
use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Id, Paging, RawJson, finish};
use crate::idempotency::Begun;
use crate::listing::{Query, Wanted};
use crate::problem::{Answer, Problem};
use crate::tagged::{IfMatch, Tagged};
use crate::{Shared, partners, show};

const OPERATION: &str = "commissions";
/// Lines looked at for one page of a filtered list; what is left comes with the next page.
const MAX_EXAMINED: usize = 1_000;
/// Partners looked at for one page of a list over a whole program.
const MAX_PARTNERS: usize = 100;

/// Where a list goes on: in which partner's lines, and after which.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Position {
    /// The last program that is done, and the last partner of the next one that is.
    program: Option<String>,
    partner: Option<String>,
    line: Option<LinePosition>,
}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<Wanted>,
    paging: Paging,
) -> Answer<Json<Value>> {
    let mut walk = Walk::over(&shared, &caller, &filter).await?;
    let query = Query::new(&shared, &caller, "commissions", &filter, paging);
    walk.limit = query.limit();
    walk.at = query.start().await?;
    let (found, more) = walk.next().await?;
    let reasons = reasons_of_lines(&shared.context, &found).await?;
    let shown = found.iter().map(|line| show::line(line, reasons.get(&line.id))).collect();
    query.page(shown, more.then_some(walk.at)).await
}

/// Goes through lines until a page is full or enough was looked at. Each step tells whether there may be more.
pub struct Walk<'a> {
    shared: &'a Shared,
    states: Vec<StateName>,
    program: Option<ProgramId>,
    /// Of this one only.
    of: Option<Partner>,
    limit: usize,
    examined: usize,
    found: Vec<Line>,
    at: Position,
}

impl<'a> Walk<'a> {
    /// Over those the caller wants and may see, from the first, as many at once as a report is made from.
    pub async fn over(shared: &'a Shared, caller: &Caller, wanted: &Wanted) -> Answer<Self> {
        let states = wanted.states(&StateName::ALL, StateName::of_status, StateName::parse)?;
        let program = wanted.program()?;
        let of = match caller.scope(wanted.partner()?)? {
            Some(id) => Some(partners::visible(shared, caller, &id).await?),
            None => None,
        };
        Ok(Self {
            shared,
            states,
            program,
            of,
            limit: MAX_EXAMINED,
            examined: 0,
            found: Vec::new(),
            at: Position::default(),
        })
    }

    /// Some that fit, and whether there may be more.
    pub async fn next(&mut self) -> Answer<(Vec<Line>, bool)> {
        self.examined = 0;
        let more = match self.of.clone() {
            Some(partner) if self.program.as_ref().is_some_and(|program| *program != partner.program) => false,
            Some(partner) => self.partner(&partner).await?,
            None => self.programs(self.program.clone().as_ref()).await?,
        };
        Ok((std::mem::take(&mut self.found), more))
    }
}

impl Walk<'_> {
    fn is_full(&self) -> bool {
        self.found.len() >= self.limit || self.examined >= MAX_EXAMINED
    }

    async fn partner(&mut self, partner: &Partner) -> Answer<bool> {
        loop {
            if self.is_full() {
                return Ok(true);
            }
            // Read no further than the page can take, so that the position is that of the last line shown.
            let room = self.limit - self.found.len();
            let (lines, next) =
                self.shared.context.store.partner_lines(OPERATION, partner, self.at.line.as_ref(), room).await?;
            self.examined += lines.len().max(1);
            self.found.extend(lines.into_iter().filter(|line| self.states.contains(&line.state.name())));
            self.at.line = next;
            if self.at.line.is_none() {
                return Ok(false);
            }
        }
    }

    async fn programs(&mut self, only: Option<&ProgramId>) -> Answer<bool> {
        let store = &self.shared.context.store;
        if let Some(id) = only {
            return match store.program(OPERATION, id).await? {
                Some(_) => self.program(id).await,
                None => Err(Problem::not_found("program")),
            };
        }
        loop {
            let page = store.programs(OPERATION, self.at.program.as_deref(), 1).await?;
            let Some(program) = page.items.first() else { return Ok(false) };
            if self.program(&program.id).await? {
                return Ok(true);
            }
            self.at = Position { program: Some(program_position(program)), ..Position::default() };
        }
    }

    async fn program(&mut self, id: &ProgramId) -> Answer<bool> {
        for _ in 0..MAX_PARTNERS {
            let store = &self.shared.context.store;
            let page = store.partners(OPERATION, id, self.at.partner.as_deref(), 1).await?;
            let Some(partner) = page.items.first() else { return Ok(false) };
            if self.partner(partner).await? {
                return Ok(true);
            }
            self.at.partner = Some(partner_position(partner));
            self.at.line = None;
            if self.is_full() {
                return Ok(true);
            }
        }
        Ok(true)
    }
}

async fn visible(shared: &Shared, caller: &Caller, id: &LineId) -> Answer<Line> {
    let line = if caller.may_see(&id.partner()) { shared.context.store.line(OPERATION, id).await? } else { None };
    line.ok_or_else(|| Problem::not_found("commission"))
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<LineId>) -> Answer<Tagged> {
    tagged(&shared, visible(&shared, &caller, &id).await?).await
}

/// With why it is not paid yet.
async fn tagged(shared: &Shared, line: Line) -> Answer<Tagged> {
    let reasons = reasons_of_lines(&shared.context, std::slice::from_ref(&line)).await?;
    Ok(Tagged::version(line.version, show::line(&line, reasons.get(&line.id))))
}

pub async fn explanation(State(shared): State<Shared>, caller: Caller, Id(id): Id<LineId>) -> Answer<Json<Value>> {
    visible(&shared, &caller, &id).await?;
    let mut explained = workflows::explain::of_line(&shared.context, &id).await?;
    if !caller.is_staff() {
        explained.hide_staff();
    }
    Ok(Json(json!(explained)))
}

#[derive(Debug, Deserialize)]
pub struct Bulk {
    ids: Vec<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    atomic: bool,
}

#[derive(Debug, Deserialize)]
pub struct Mode {
    #[serde(default)]
    pub atomic: bool,
}

pub async fn approve(state: State<Shared>, caller: Caller, mode: Filter<Mode>, body: RawJson) -> Answer<Json<Value>> {
    decide(state, caller, mode, body, |_| Ok(Verdict::Approve)).await
}

pub async fn release(state: State<Shared>, caller: Caller, mode: Filter<Mode>, body: RawJson) -> Answer<Json<Value>> {
    decide(state, caller, mode, body, |_| Ok(Verdict::Release)).await
}

pub async fn hold(state: State<Shared>, caller: Caller, mode: Filter<Mode>, body: RawJson) -> Answer<Json<Value>> {
    decide(state, caller, mode, body, |why| Ok(Verdict::Hold { why: reason(why)? })).await
}

pub async fn reject(state: State<Shared>, caller: Caller, mode: Filter<Mode>, body: RawJson) -> Answer<Json<Value>> {
    decide(state, caller, mode, body, |why| Ok(Verdict::Reject { why: reason(why)? })).await
}

pub async fn reinstate(state: State<Shared>, caller: Caller, mode: Filter<Mode>, body: RawJson) -> Answer<Json<Value>> {
    decide(state, caller, mode, body, |why| Ok(Verdict::Reinstate { why: reason(why)? })).await
}

fn reason(given: Option<String>) -> Answer<String> {
    let given = given.unwrap_or_default().trim().to_owned();
    if (1..=500).contains(&given.chars().count()) {
        Ok(given)
    } else {
        Err(Problem::invalid_field("/reason", "needs 1 to 500 characters; the partner reads it"))
    }
}

async fn decide(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(mode): Filter<Mode>,
    body: RawJson,
    verdict: impl FnOnce(Option<String>) -> Answer<Verdict>,
) -> Answer<Json<Value>> {
    caller.must_be(&[Role::Reviewer])?;
    let asked: Bulk = crate::extract::parse(&body.get()?)?;
    let atomic = asked.atomic || mode.atomic;
    check_count(asked.ids.len(), if atomic { MAX_ATOMIC } else { MAX_BULK }, "/ids")?;
    let verdict = verdict(asked.reason)?;
    bulk::decide(&shared.context, asked.ids, &verdict, atomic, &caller.subject).await
}

/// One adjustment, or several.
#[derive(Debug, Deserialize)]
struct Adjustments {
    #[serde(default)]
    adjustments: Option<Vec<Adjust>>,
    #[serde(default)]
    atomic: bool,
}

#[derive(Debug, Deserialize)]
struct Adjust {
    id: String,
    amount: String,
    #[serde(default)]
    reason: Option<String>,
}

/// Sets other gross amounts: of one commission, which is shown, or of several, with a result for each.
pub async fn adjust(
    state: State<Shared>,
    caller: Caller,
    Filter(mode): Filter<Mode>,
    if_match: IfMatch,
    body: RawJson,
) -> Answer<Response> {
    caller.must_be(&[Role::Reviewer])?;
    let body = body.get()?;
    let asked: Adjustments = crate::extract::parse(&body)?;
    match asked.adjustments {
        Some(several) => {
            let atomic = asked.atomic || mode.atomic;
            Ok(adjust_several(&state, &caller, several, atomic).await?.into_response())
        }
        None => Ok(adjust_one(&state, &caller, &if_match, crate::extract::parse(&body)?).await?.into_response()),
    }
}

/// Shows the line that changed; past its payout's approval, the line that was written.
async fn adjust_one(shared: &Shared, caller: &Caller, if_match: &IfMatch, input: Adjust) -> Answer<Tagged> {
    let id: LineId = bulk::parse(&input.id, "commission")?;
    let reason = reason(input.reason)?;
    let line = shared.context.store.line(OPERATION, &id).await?.ok_or_else(|| Problem::not_found("commission"))?;
    let amount = gross(&line, &input.amount)?;
    let seen = if_match.check_version(line.version)?;
    let line = workflows::adjust::adjust(&shared.context, &id, seen, amount, &reason, &caller.subject).await?;
    tagged(shared, line).await
}

fn gross(line: &Line, amount: &str) -> Answer<Minor> {
    let mut fields = Fields::default();
    let amount = fields.take("/amount", Minor::parse(amount, line.currency));
    finish(fields, amount)
}

async fn adjust_several(shared: &Shared, caller: &Caller, several: Vec<Adjust>, atomic: bool) -> Answer<Json<Value>> {
    check_count(several.len(), if atomic { MAX_ATOMIC } else { MAX_BULK }, "/adjustments")?;
    let ids: Vec<LineId> = several.iter().filter_map(|one| one.id.parse().ok()).collect();
    let lines = shared.context.store.lines(OPERATION, &ids).await?;
    let asked = several.into_iter().map(|Adjust { id, amount, reason: why }| {
        let parsed = || {
            let known: LineId = bulk::parse(&id, "commission")?;
            let line = lines.iter().find(|line| line.id == known).ok_or_else(|| Problem::not_found("commission"))?;
            Ok((known, gross(line, &amount)?, reason(why)?))
        };
        let parsed = parsed();
        (id, parsed)
    });
    let change = |context: Context, (id, amount, why): (LineId, Minor, String)| async move {
        workflows::adjust::adjust(&context, &id, None, amount, &why, &caller.subject).await.map(drop)
    };
    bulk::each(&shared.context, "adjust lines", "commission", asked.collect(), atomic, change).await
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bonus {
    partner_id: String,
    #[serde(default)]
    program_id: Option<String>,
    amount: String,
    #[serde(default)]
    reason: Option<String>,
}

/// A line for no conversion: a bonus, or with a negative amount what is taken back.
pub async fn bonus(
    State(shared): State<Shared>,
    caller: Caller,
    Begun(begun): Begun,
    input: Body<Bonus>,
) -> Answer<(StatusCode, Tagged)> {
    caller.must_be(&[Role::Reviewer, Role::ProgramManager])?;
    let input = input.get()?;
    let reason = reason(input.reason)?;
    let unknown = || Problem::invalid_field("/partnerId", "there is no such partner");
    let partner: PartnerId = input.partner_id.parse().map_err(|_| unknown())?;
    let partner = shared.context.store.partner(OPERATION, &partner).await?.ok_or_else(unknown)?;
    if input.program_id.is_some_and(|program| program != partner.program.as_str()) {
        return Err(Problem::invalid_field("/programId", "is not the partner's program"));
    }
    let program = crate::programs::load(&shared, &partner.program).await?;
    let mut fields = Fields::default();
    let amount = fields.take("/amount", Minor::parse(&input.amount, program.currency));
    fields.check(amount.is_none_or(|amount| !amount.is_zero()), "/amount", "must not be zero");
    let amount = finish(fields, amount)?;
    let by = &caller.subject;
    let line = workflows::adjust::bonus(&shared.context, &program, &partner, amount, &reason, by, &begun).await?;
    Ok((StatusCode::CREATED, tagged(&shared, line).await?))
}
