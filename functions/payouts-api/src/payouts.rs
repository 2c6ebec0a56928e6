//! Payouts: requested, listed, approved, settled.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use domain::ids::{Hash, PartnerId, PayoutId, ProgramId};
use domain::money::Minor;
use domain::payout::{Payout, PayoutState, Seen, Teller};
use domain::program::MethodKind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{PayoutRequest, QuickbooksBill, program_position};
use workflows::Refusal;
use workflows::balances::reasons_of_lines;
use workflows::payouts::Attested;
use workflows::review::{MAX_ATOMIC, MAX_BULK, Verdict};
use workflows::runs::OnDemand;

use crate::bulk::{self, One, check_count};
use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Id, Paging, RawJson, parse};
use crate::listing::{Query, Wanted};
use crate::problem::{Answer, Problem};
use crate::tagged::{IfMatch, Tagged};
use crate::{Shared, partners, programs, runs, show};

const OPERATION: &str = "payouts";
const MAX_EXAMINED: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    partner_id: String,
    program_id: String,
    #[serde(default)]
    amount: Option<String>,
    #[serde(default)]
    method: Option<MethodKind>,
    /// Why it may be below the minimum payout.
    #[serde(default)]
    r#override: Option<Override>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Override {
    Why(String),
    Reason { reason: String },
}

impl Override {
    fn why(&self) -> &str {
        let (Self::Why(why) | Self::Reason { reason: why }) = self;
        why
    }
}

/// A payout on demand: for any partner by who runs payouts, for themselves by a partner, who can override nothing.
pub async fn request(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    input: Body<Input>,
) -> Answer<(StatusCode, Tagged)> {
    let for_any = caller.must_be(&[Role::Approver, Role::Finance]);
    if for_any.is_err() && !caller.is_partner() {
        for_any.clone()?;
    }
    let input = input.get()?;
    if for_any.is_err() {
        own(&caller, &input)?;
    }
    let program = programs::required(&shared, &input.program_id, "/programId").await?;
    let mut fields = Fields::default();
    let partner = fields.take("/partnerId", input.partner_id.parse::<PartnerId>());
    let amount = input.amount.as_deref().map(|text| fields.amount("/amount", text, program.currency));
    let below_minimum = input.r#override.as_ref().map(|given| fields.text("/override", given.why()));
    let partner = crate::extract::finish(fields, partner)?;
    if shared.context.store.partner(OPERATION, &partner).await?.is_none() {
        return Err(Problem::invalid_field("/partnerId", "there is no such partner"));
    }
    let key = runs::request_key(&shared, &headers, &caller);
    let asked = OnDemand {
        key: &key,
        program: &program.id,
        partner: &partner,
        request: PayoutRequest { amount, method: input.method, below_minimum },
    };
    let id = workflows::runs::request(&shared.context, &asked, &caller.subject).await?;
    let payout = load(&shared, &id).await?;
    Ok((StatusCode::CREATED, tagged(&shared, &payout, &caller).await?))
}

/// What a partner may ask for: what is their own, above the minimum.
fn own(caller: &Caller, input: &Input) -> Answer<()> {
    match input.partner_id.parse::<PartnerId>() {
        Ok(partner) if !caller.is(&partner) => return Err(Problem::not_found("partner")),
        _ => {}
    }
    if input.r#override.is_some() {
        return Err(Problem::invalid_field("/override", "is not for partners to give"));
    }
    Ok(())
}

async fn load(shared: &Shared, id: &PayoutId) -> Answer<Payout> {
    shared.context.store.payout(OPERATION, id).await?.ok_or_else(|| Problem::not_found("payout"))
}

pub async fn visible(shared: &Shared, caller: &Caller, id: &PayoutId) -> Answer<Payout> {
    if caller.may_see(&id.partner()) { load(shared, id).await } else { Err(Problem::not_found("payout")) }
}

async fn tagged(shared: &Shared, payout: &Payout, caller: &Caller) -> Answer<Tagged> {
    let bills = bills(shared, std::slice::from_ref(payout)).await?;
    Ok(Tagged::version(payout.entries, show::payout(payout, bills.first(), caller.is_staff())))
}

/// What those of them are in QuickBooks that are paid there.
async fn bills(shared: &Shared, payouts: &[Payout]) -> Answer<Vec<QuickbooksBill>> {
    let there = payouts.iter().filter(|payout| payout.method == MethodKind::Quickbooks);
    let there: Vec<_> = there.map(|payout| payout.id.clone()).collect();
    Ok(shared.context.store.quickbooks_bills(OPERATION, &there).await?)
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<PayoutId>) -> Answer<Tagged> {
    tagged(&shared, &visible(&shared, &caller, &id).await?, &caller).await
}

/// The lines of a payout, page by page as they were claimed.
pub async fn lines(
    State(shared): State<Shared>,
    caller: Caller,
    Id(id): Id<PayoutId>,
    paging: Paging,
) -> Answer<Json<Value>> {
    let payout = visible(&shared, &caller, &id).await?;
    let query = Query::new(&shared, &caller, "payout lines", &id, paging);
    let number: u32 = query.start().await?;
    let store = &shared.context.store;
    let page = store.page(OPERATION, &id, number).await?;
    let ids: Vec<_> = page.map(|page| page.lines.into_iter().map(|line| line.id).collect()).unwrap_or_default();
    let lines = store.lines(OPERATION, &ids).await?;
    let next = (number + 1 < payout.pages).then_some(number + 1);
    let reasons = reasons_of_lines(&shared.context, &lines).await?;
    query.page(lines.iter().map(|line| show::line(line, reasons.get(&line.id))).collect(), next).await
}

/// Where a list goes on: after which program, and after which payout in the next one (or in the partner's).
#[derive(Debug, Default, Deserialize, Serialize)]
struct Position {
    program: Option<String>,
    payout: Option<String>,
}

/// Goes through payouts, newest first within each program.
pub struct Walk<'a> {
    shared: &'a Shared,
    states: Vec<PayoutState>,
    program: Option<ProgramId>,
    partner: Option<PartnerId>,
    at: Position,
}

/// Payouts read at once where a report is made of all of them.
const REPORTED: usize = 100;

impl<'a> Walk<'a> {
    /// Over those the caller wants and may see, from the first.
    pub async fn over(shared: &'a Shared, caller: &Caller, wanted: &Wanted) -> Answer<Self> {
        let states = wanted.states(&PayoutState::ALL, PayoutState::of_status, PayoutState::parse)?;
        let program = wanted.program()?;
        let partner = caller.scope(wanted.partner()?)?;
        match (&partner, &program) {
            (Some(id), _) => drop(partners::visible(shared, caller, id).await?),
            (None, Some(id)) => drop(programs::load(shared, id).await?),
            (None, None) => {}
        }
        Ok(Self { shared, states, program, partner, at: Position::default() })
    }

    /// Some that fit, and whether there may be more.
    pub async fn next(&mut self) -> Answer<(Vec<Payout>, bool)> {
        let (found, _, more) = self.step(REPORTED).await?;
        Ok((found, more))
    }

    /// Reads at most so many. Those that fit, how many were looked at, and whether there may be more.
    async fn step(&mut self, room: usize) -> Answer<(Vec<Payout>, usize, bool)> {
        let store = &self.shared.context.store;
        let room = i32::try_from(room).unwrap_or(i32::MAX);
        let after = self.at.payout.as_deref();
        let (page, in_program) = match (&self.partner, &self.program) {
            (Some(partner), _) => (store.partner_payouts(OPERATION, partner, after, room).await?, None),
            (None, Some(program)) => (store.program_payouts(OPERATION, program, after, room).await?, None),
            (None, None) => {
                let programs = store.programs(OPERATION, self.at.program.as_deref(), 1).await?;
                let Some(program) = programs.items.into_iter().next() else { return Ok((Vec::new(), 0, false)) };
                (store.program_payouts(OPERATION, &program.id, after, room).await?, Some(program))
            }
        };
        let examined = page.items.len().max(1);
        let fits = |payout: &Payout| {
            self.states.contains(&payout.state)
                && self.program.as_ref().is_none_or(|program| payout.program == *program)
        };
        let found = page.items.into_iter().filter(fits).collect();
        let more = match (page.after, in_program) {
            (Some(after), _) => {
                self.at.payout = Some(after);
                true
            }
            (None, Some(done)) => {
                self.at = Position { program: Some(program_position(&done)), payout: None };
                true
            }
            (None, None) => false,
        };
        Ok((found, examined, more))
    }
}

/// Newest first, within each program.
pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<Wanted>,
    paging: Paging,
) -> Answer<Json<Value>> {
    let mut walk = Walk::over(&shared, &caller, &filter).await?;
    let query = Query::new(&shared, &caller, "payouts", &filter, paging);
    walk.at = query.start().await?;
    let (mut found, mut examined, mut more) = (Vec::new(), 0, true);
    while more && found.len() < query.limit() && examined < MAX_EXAMINED {
        let (fitting, looked_at, then) = walk.step(query.limit() - found.len()).await?;
        found.extend(fitting);
        examined += looked_at;
        more = then;
    }
    let bills = bills(&shared, &found).await?;
    let bill = |payout: &Payout| bills.iter().find(|bill| bill.payout == payout.id);
    let data = found.iter().map(|payout| show::payout(payout, bill(payout), caller.is_staff())).collect();
    query.page(data, more.then_some(walk.at)).await
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Approve {
    #[serde(default)]
    payout_ids: Option<Vec<String>>,
    #[serde(default)]
    payouts: Option<Vec<ApproveOne>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApproveOne {
    id: String,
    version: u32,
    amount: String,
    lines_hash: Hash,
}

pub async fn approve(State(shared): State<Shared>, caller: Caller, body: RawJson) -> Answer<Json<Value>> {
    caller.must_be(&[Role::Approver])?;
    let asked: Approve = parse(&body.get()?)?;
    let context = &shared.context;
    let mut results: Vec<One> = Vec::new();
    match (asked.payout_ids, asked.payouts) {
        (Some(ids), None) => {
            check_count(ids.len(), MAX_BULK, "/payoutIds")?;
            for id in ids {
                let result = match parse_others(&caller, &id) {
                    Ok(parsed) => workflows::payouts::approve(context, &parsed, None, &caller.subject)
                        .await
                        .map(drop)
                        .map_err(Problem::from),
                    Err(problem) => Err(problem),
                };
                results.push((id, result));
            }
        }
        (None, Some(payouts)) => {
            check_count(payouts.len(), MAX_BULK, "/payouts")?;
            for one in payouts {
                let result = approve_seen(&shared, &caller, &one).await;
                results.push((one.id, result));
            }
        }
        _ => return Err(Problem::invalid_field("", "give either payoutIds or payouts")),
    }
    Ok(bulk::results(results))
}

/// Nobody approves what they are paid themselves.
fn parse_others(caller: &Caller, id: &str) -> Result<PayoutId, Problem> {
    let id = bulk::parse::<PayoutId>(id, "payout")?;
    if caller.is(&id.partner()) {
        Err(Problem::conflict("it is paid to you: somebody else approves it"))
    } else {
        Ok(id)
    }
}

async fn approve_seen(shared: &Shared, caller: &Caller, one: &ApproveOne) -> Result<(), Problem> {
    let id = parse_others(caller, &one.id)?;
    let payout = load(shared, &id).await?;
    let amount = Minor::parse(&one.amount, payout.currency);
    let amount = amount.map_err(|error| Problem::invalid_field("/amount", error.to_string()))?;
    let seen = Seen { version: one.version, amount, lines_hash: one.lines_hash.clone() };
    Ok(workflows::payouts::approve(&shared.context, &id, Some(&seen), &caller.subject).await.map(drop)?)
}

#[derive(Debug, Deserialize)]
struct WithReasons {
    payouts: Vec<WithReason>,
}

#[derive(Debug, Deserialize)]
struct WithReason {
    id: String,
    #[serde(default)]
    reason: Option<String>,
}

impl WithReason {
    fn reason(&self) -> Answer<&str> {
        reason(self.reason.as_deref())
    }
}

fn reason(given: Option<&str>) -> Answer<&str> {
    let reason = given.map(str::trim).unwrap_or_default();
    if (1..=500).contains(&reason.chars().count()) {
        Ok(reason)
    } else {
        Err(Problem::invalid_field("/reason", "needs 1 to 500 characters"))
    }
}

pub async fn send_back(state: State<Shared>, caller: Caller, body: RawJson) -> Answer<Json<Value>> {
    with_reasons(state, caller, body, Turn::SendBack).await
}

pub async fn cancel(state: State<Shared>, caller: Caller, body: RawJson) -> Answer<Json<Value>> {
    with_reasons(state, caller, body, Turn::Cancel).await
}

pub async fn retry(state: State<Shared>, caller: Caller, body: RawJson) -> Answer<Json<Value>> {
    with_reasons(state, caller, body, Turn::Retry).await
}

/// The caller attests that no money moved; of Bills, QuickBooks is asked.
pub async fn void(state: State<Shared>, caller: Caller, body: RawJson) -> Answer<Json<Value>> {
    with_reasons(state, caller, body, Turn::Void).await
}

pub async fn mark_failed(state: State<Shared>, caller: Caller, body: RawJson) -> Answer<Json<Value>> {
    with_reasons(state, caller, body, Turn::Fail).await
}

pub async fn mark_returned(state: State<Shared>, caller: Caller, body: RawJson) -> Answer<Json<Value>> {
    with_reasons(state, caller, body, Turn::Return).await
}

/// A turn that a payout takes for a reason.
#[derive(Debug, Clone, Copy)]
enum Turn {
    SendBack,
    Cancel,
    Retry,
    Void,
    Fail,
    Return,
}

impl Turn {
    /// Approvers decide about payouts; what becomes of the money afterwards finance tells, too.
    const fn roles(self) -> &'static [Role] {
        match self {
            Self::SendBack | Self::Cancel => &[Role::Approver],
            Self::Retry | Self::Void | Self::Fail | Self::Return => &[Role::Approver, Role::Finance],
        }
    }

    async fn take(self, shared: &Shared, id: &PayoutId, why: &str, by: &str) -> Result<(), Refusal> {
        use workflows::{payouts, rails};
        let context = &shared.context;
        match self {
            Self::SendBack => payouts::send_back(context, id, why, by).await,
            Self::Cancel => payouts::cancel(context, id, why, by).await,
            Self::Retry => payouts::retry(context, id, why, by).await,
            Self::Void => rails::void(context, &shared.rails, id, why, by).await,
            Self::Fail => payouts::fail(context, id, why, Teller::Person(by)).await,
            Self::Return => payouts::come_back(context, id, why, by).await,
        }
        .map(drop)
    }
}

async fn with_reasons(State(shared): State<Shared>, caller: Caller, body: RawJson, turn: Turn) -> Answer<Json<Value>> {
    caller.must_be(turn.roles())?;
    let asked: WithReasons = parse(&body.get()?)?;
    check_count(asked.payouts.len(), MAX_BULK, "/payouts")?;
    let mut results = Vec::new();
    for one in asked.payouts {
        let result = async {
            let id = bulk::parse::<PayoutId>(&one.id, "payout")?;
            Ok(turn.take(&shared, &id, one.reason()?, &caller.subject).await?)
        };
        let result = result.await;
        results.push((one.id, result));
    }
    Ok(bulk::results(results))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exclude {
    id: String,
    commission_ids: Vec<String>,
    #[serde(default)]
    reason: Option<String>,
}

/// Takes commissions out of an open payout: all of those named, or none. A result for each.
pub async fn exclude(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    body: RawJson,
) -> Answer<Json<Value>> {
    caller.must_be(&[Role::Approver])?;
    let asked: Exclude = parse(&body.get()?)?;
    check_count(asked.commission_ids.len(), MAX_ATOMIC, "/commissionIds")?;
    let why = reason(asked.reason.as_deref())?.to_owned();
    let payout = async {
        let id = bulk::parse::<PayoutId>(&asked.id, "payout")?;
        load(&shared, &id).await
    };
    match payout.await {
        Ok(Payout { id: payout, entries, .. }) => {
            let seen = if_match.check_version(entries)?;
            let verdict = Verdict::Exclude { payout, seen, why };
            bulk::decide(&shared.context, asked.commission_ids, &verdict, true, &caller.subject).await
        }
        Err(problem) if problem.status == 404 => {
            let refused = asked.commission_ids.into_iter().map(|id| (id, Err(problem.clone())));
            Ok(bulk::results(refused.collect()))
        }
        Err(problem) => Err(problem),
    }
}

#[derive(Debug, Deserialize)]
struct MarkPaid {
    payouts: Vec<MarkPaidOne>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkPaidOne {
    id: String,
    #[serde(default)]
    reference: Option<String>,
    #[serde(default)]
    paid_at: Option<Timestamp>,
    #[serde(default)]
    amount: Option<String>,
}

/// A person attests that money was paid outside QuickBooks.
pub async fn mark_paid(State(shared): State<Shared>, caller: Caller, body: RawJson) -> Answer<Json<Value>> {
    caller.must_be(&[Role::Approver, Role::Finance])?;
    let asked: MarkPaid = parse(&body.get()?)?;
    check_count(asked.payouts.len(), MAX_BULK, "/payouts")?;
    let mut results = Vec::new();
    for one in asked.payouts {
        let result = mark_one_paid(&shared, &caller, &one).await;
        results.push((one.id, result));
    }
    Ok(bulk::results(results))
}

async fn mark_one_paid(shared: &Shared, caller: &Caller, one: &MarkPaidOne) -> Result<(), Problem> {
    let id = bulk::parse::<PayoutId>(&one.id, "payout")?;
    let currency = load(shared, &id).await?.pays().map_err(Refusal::from)?.currency;
    let mut fields = Fields::default();
    let amount = one.amount.as_deref().map(|text| fields.amount("/amount", text, currency));
    let reference = one.reference.as_deref().map(|text| fields.text("/reference", text));
    let future = one.paid_at.is_some_and(|at| at > shared.context.now());
    fields.check(!future, "/paidAt", "lies in the future");
    fields.done()?;
    let attested = Attested { reference: reference.as_deref(), paid_at: one.paid_at, amount };
    Ok(workflows::payouts::mark_paid(&shared.context, &id, &attested, &caller.subject).await.map(drop)?)
}
