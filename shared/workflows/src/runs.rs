//! Payout runs: planned once per program, kind and period, one message per partner, decided once per partner.

use domain::ids::{PartnerId, PayoutId, ProgramId, RunId};
use domain::money::Money;
use domain::payout::{Payout, PayoutState};
use domain::program::Program;
use domain::selection::{CarriedBecause, Selection};
use jiff::Timestamp;
use serde::Serialize;
use store::{ExportProgress, Outcome, PayoutRequest, Run, RunProgress, StoreError, Transaction};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::draft::{draft, preview};
use crate::error::{Refusal, Result};
use crate::queues::DraftRequest;

const OPERATION: &str = "plan run";
const ACTOR: &str = "batch-payouts";
pub const ON_DEMAND: &str = "on_demand";
pub const MANUAL: &str = "manual";
/// Partners asked per write of the run's position.
const PAGE_PARTNERS: i32 = 100;

/// What one tick of the schedule did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticked {
    pub runs_started: usize,
    pub payouts_resumed: usize,
    /// Payouts, programs and runs that failed and were passed over.
    pub failed: usize,
    pub unfinished: bool,
}

/// Starts every scheduled run that is due, goes on with unfinished ones, and re-drives payouts that stopped half-way.
pub async fn tick(context: &Context, time_left: impl Fn() -> bool) -> Result<Ticked> {
    let mut ticked = Ticked::default();
    for payout in context.store.unfinished_payouts(OPERATION).await? {
        match resume(context, &payout).await {
            Ok(()) => ticked.payouts_resumed += 1,
            Err(error) => ticked.passed_over("payout", payout.id.as_str(), &error),
        }
    }
    let mut asked = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = context.store.programs(OPERATION, after.as_deref(), 50).await?;
        for program in &page.items {
            if context.store.paypal(OPERATION, &program.id).await?.is_some() {
                asked.push(program.id.clone());
            }
            match start_scheduled(context, program).await {
                Ok(started) => ticked.runs_started += usize::from(started),
                Err(error) => ticked.passed_over("program", program.id.as_str(), &error),
            }
        }
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    for run in context.store.unfinished_runs(OPERATION).await? {
        match plan(context, &run.id, &time_left).await {
            Ok(planned) => ticked.unfinished |= !planned,
            Err(error) => ticked.passed_over("run", run.id.as_str(), &error),
        }
    }
    for export in context.store.unfinished_exports(OPERATION).await? {
        match crate::exports::gather(context, &export.id, &time_left).await {
            Ok(gathered) => ticked.unfinished |= gathered.progress != ExportProgress::Complete,
            Err(error) => ticked.passed_over("export", export.id.as_str(), &error),
        }
    }
    // Without a program that has a rail asked, nothing is looked at.
    if !asked.is_empty() {
        match crate::rails::redrive(context, &asked, &time_left).await {
            Ok(_) => {}
            Err(error) => ticked.passed_over("rails", "payouts", &error),
        }
    }
    Ok(ticked)
}

/// Drives on a payout that stopped half-way.
async fn resume(context: &Context, payout: &Payout) -> Result<()> {
    match payout.state {
        PayoutState::Drafting => {
            let request = DraftRequest { run: payout.run.clone(), partner: payout.partner.clone() };
            context.queues.send_drafts(&[request]).await
        }
        PayoutState::Submitting if payout.is_sent_by_people() => {
            crate::payouts::hand_over(context, payout).await.map(drop)
        }
        PayoutState::Submitting => context.queues.send_submission(&payout.id).await,
        _ => crate::payouts::follow(context, &payout.id).await.map(drop),
    }
}

impl Ticked {
    /// One that fails must not keep the others waiting.
    fn passed_over(&mut self, what: &'static str, id: &str, error: &Refusal) {
        tracing::error!(what, id, %error, "passed over; the next tick tries again");
        self.failed += 1;
    }
}

/// Whether a run was started now. The same schedule firing again finds it started.
async fn start_scheduled(context: &Context, program: &Program) -> Result<bool> {
    let Some(due) = program.due_run(context.now()) else { return Ok(false) };
    let (kind, period) = (program.schedule.frequency.name(), due.date.to_string());
    let id = RunId::derive(&program.id, kind, &period);
    if context.store.run(OPERATION, &id).await?.is_some() {
        return Ok(false);
    }
    let run = Run {
        id,
        program: program.id.clone(),
        kind: kind.to_owned(),
        period,
        planned_at: due.starts_at,
        cut_off: due.cut_off,
        cut_off_inclusive: false,
        created_by: ACTOR.to_owned(),
        progress: RunProgress::Planning { after: None },
        asked: 0,
        include: Vec::new(),
        exclude: Vec::new(),
        request: PayoutRequest::default(),
        changes: 1,
    };
    create(context, &run).await
}

async fn create(context: &Context, run: &Run) -> Result<bool> {
    let mut transaction = Transaction::new(OPERATION);
    transaction.create_run(run)?;
    match context.store.commit(transaction).await {
        Ok(()) => Ok(true),
        Err(StoreError::Stale) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A run somebody starts by hand.
#[derive(Debug, Clone)]
pub struct Manual<'a> {
    /// Tells this run from others: a client's idempotency key, or a fresh value.
    pub key: &'a str,
    /// `None`: everything that is payable now.
    pub cut_off: Option<Timestamp>,
    pub include: Vec<PartnerId>,
    pub exclude: Vec<PartnerId>,
}

/// What a run by hand would be; nothing is written.
pub fn manual_run(context: &Context, program: &ProgramId, manual: &Manual<'_>, by: &str) -> Run {
    let now = context.now();
    Run {
        id: RunId::derive(program, MANUAL, manual.key),
        program: program.clone(),
        kind: MANUAL.to_owned(),
        period: manual.key.to_owned(),
        planned_at: now,
        cut_off: manual.cut_off.unwrap_or(now),
        cut_off_inclusive: true,
        created_by: by.to_owned(),
        progress: RunProgress::Planning { after: None },
        asked: 0,
        include: manual.include.clone(),
        exclude: manual.exclude.clone(),
        request: PayoutRequest::default(),
        changes: 1,
    }
}

pub async fn start_manual(context: &Context, program: &ProgramId, manual: &Manual<'_>, by: &str) -> Result<Run> {
    let run = manual_run(context, program, manual, by);
    create(context, &run).await?;
    plan(context, &run.id, &|| true).await?;
    context.store.run(OPERATION, &run.id).await?.ok_or(Refusal::NotFound("run"))
}

/// Sends a message for every partner, remembering how far it came. Whether it came to the end.
pub async fn plan(context: &Context, id: &RunId, time_left: &impl Fn() -> bool) -> Result<bool> {
    loop {
        let run = context.store.run(OPERATION, id).await?.ok_or(Refusal::NotFound("run"))?;
        let RunProgress::Planning { after } = &run.progress else { return Ok(true) };
        if !time_left() {
            return Ok(false);
        }
        let (partners, next) = if run.include.is_empty() {
            let page = context.store.partners(OPERATION, &run.program, after.as_deref(), PAGE_PARTNERS).await?;
            (page.items.into_iter().map(|partner| partner.id).collect(), page.after)
        } else {
            (run.include.clone(), None)
        };
        let requests: Vec<_> =
            partners.into_iter().map(|partner| DraftRequest { run: run.id.clone(), partner }).collect();
        context.queues.send_drafts(&requests).await?;
        let progress = match next {
            Some(after) => RunProgress::Planning { after: Some(after) },
            None => RunProgress::Planned,
        };
        let asked = run.asked + u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let planned = Run { progress, asked, changes: run.changes + 1, ..run.clone() };
        let mut transaction = Transaction::new(OPERATION);
        transaction.replace_run(&planned, &run)?;
        match context.store.commit(transaction).await {
            // Somebody else plans the same run: read how far they came.
            Ok(()) | Err(StoreError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Handles one message of a run.
pub async fn draft_one(context: &Context, request: &DraftRequest) -> Result<Outcome> {
    let run = context.store.run(OPERATION, &request.run).await?.ok_or(Refusal::NotFound("run"))?;
    draft(context, &run, &request.partner, "draft-payout").await
}

/// A payout somebody asks for, to one partner, now.
#[derive(Debug, Clone)]
pub struct OnDemand<'a> {
    pub key: &'a str,
    pub program: &'a ProgramId,
    pub partner: &'a PartnerId,
    pub request: PayoutRequest,
}

/// Drafts a payout on demand. What cannot be paid is refused, and may be asked for again.
pub async fn request(context: &Context, asked: &OnDemand<'_>, by: &str) -> Result<PayoutId> {
    let store = &context.store;
    let program = store.program(OPERATION, asked.program).await?.ok_or(Refusal::NotFound("program"))?;
    let partner = store.partner(OPERATION, asked.partner).await?.ok_or(Refusal::NotFound("partner"))?;
    if partner.program != program.id {
        return Err(Refusal::invalid("/partnerId", "the partner is not in this program"));
    }
    if let Some(kind) = asked.request.method
        && partner.method(kind).is_none()
    {
        return Err(Refusal::invalid("/method", "the partner has no such payout method"));
    }
    if asked.request.amount.is_some_and(|amount| !amount.is_positive()) {
        return Err(Refusal::invalid("/amount", "must be more than zero"));
    }
    let now = context.now();
    let key = format!("{}/{}", partner.id, asked.key);
    let run = Run {
        id: RunId::derive(&program.id, ON_DEMAND, &key),
        program: program.id.clone(),
        kind: ON_DEMAND.to_owned(),
        period: key,
        planned_at: now,
        cut_off: now,
        cut_off_inclusive: true,
        created_by: by.to_owned(),
        progress: RunProgress::Planned,
        asked: 1,
        include: vec![partner.id.clone()],
        exclude: Vec::new(),
        request: asked.request.clone(),
        changes: 1,
    };
    // The run is written together with its payout: a refused request leaves nothing behind, and may be asked for again.
    let run = if let Some(started) = store.run(OPERATION, &run.id).await? {
        started
    } else {
        refuse_more_than_payable(context, &run, &program, &partner).await?;
        run
    };
    match draft(context, &run, &partner.id, by).await? {
        Outcome::Payout { payout } => Ok(payout),
        Outcome::Carried { because, .. } => Err(not_payable(because)),
    }
}

/// A requested amount is a promise to somebody: less must not be paid in silence.
async fn refuse_more_than_payable(
    context: &Context,
    run: &Run,
    program: &Program,
    partner: &domain::program::Partner,
) -> Result<()> {
    let Some(limit) = run.request.amount else { return Ok(()) };
    crate::mature::mature_partner(context, partner).await?;
    let unlimited = Run { request: PayoutRequest { amount: None, ..run.request.clone() }, ..run.clone() };
    match preview(context, &unlimited, partner, program).await? {
        Selection::Lines { total, .. } if limit > total => Err(Refusal::Illegal(format!(
            "{} was asked for, but only {} is payable",
            Money::new(limit, program.currency),
            Money::new(total, program.currency)
        ))),
        _ => Ok(()),
    }
}

pub(crate) fn not_payable(because: CarriedBecause) -> Refusal {
    Refusal::Illegal(
        match because {
            CarriedBecause::NothingPayable => "nothing is payable to this partner",
            CarriedBecause::NegativeBalance => "the partner's payable balance is negative",
            CarriedBecause::BelowThreshold => "what is payable does not reach the minimum payout",
            CarriedBecause::PartnerSuspended => "the partner is suspended",
            CarriedBecause::TaxFormMissing => "the partner must give a tax form first",
            CarriedBecause::NoPayoutMethod => "the partner has no payout method",
            CarriedBecause::MinimumSales => "what is payable waits until the partner has made more sales",
            CarriedBecause::ExchangeRateMissing => {
                "there is no exchange rate of these days to the currency the partner is paid in"
            }
            CarriedBecause::Excluded => "the partner is excluded",
            CarriedBecause::DraftInProgress => "a payout to this partner is being drafted",
        }
        .to_owned(),
    )
}

/// A run with what it decided so far.
#[derive(Debug, Clone)]
pub struct Report {
    pub run: Run,
    pub state: &'static str,
    pub payouts: Vec<PayoutId>,
    pub carried: Vec<Carried>,
}

/// A partner who is not paid this time.
#[derive(Debug, Clone)]
pub struct Carried {
    pub partner: PartnerId,
    pub because: CarriedBecause,
    /// What stays payable.
    pub payable: Money,
}

pub async fn report(context: &Context, id: &RunId) -> Result<Report> {
    let run = context.store.run("report run", id).await?.ok_or(Refusal::NotFound("run"))?;
    let mut report = Report { run, state: "planning", payouts: Vec::new(), carried: Vec::new() };
    let mut after: Option<String> = None;
    loop {
        let page = context.store.decisions("report run", id, after.as_deref(), None).await?;
        for decision in page.items {
            match decision.outcome {
                Outcome::Payout { payout } => report.payouts.push(payout),
                Outcome::Carried { because, payable } => {
                    report.carried.push(Carried { partner: decision.partner, because, payable });
                }
            }
        }
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    let unfinished = context.store.unfinished_payouts("report run").await?;
    let drafting = unfinished.iter().any(|payout| payout.run == *id && payout.state == PayoutState::Drafting);
    let decided = u32::try_from(report.payouts.len() + report.carried.len()).unwrap_or(u32::MAX);
    // Of two that planned it side by side, the one that saw less of the index may have had the last word.
    report.run.asked = report.run.asked.max(decided);
    report.state = match report.run.progress {
        RunProgress::Planning { .. } => "planning",
        RunProgress::Planned if decided < report.run.asked || drafting => "drafting",
        RunProgress::Planned => "completed",
    };
    Ok(report)
}

/// What a run by hand would do, without doing it.
pub async fn preview_run(context: &Context, run: Run) -> Result<(Vec<(PartnerId, Money)>, Report)> {
    let program = context.store.program("preview run", &run.program).await?.ok_or(Refusal::NotFound("program"))?;
    let mut would_pay = Vec::new();
    let mut report = Report { run, state: "preview", payouts: Vec::new(), carried: Vec::new() };
    let mut after: Option<String> = None;
    loop {
        let page = context.store.partners("preview run", &program.id, after.as_deref(), PAGE_PARTNERS).await?;
        for partner in page.items {
            let selected = until_fresh(|| preview(context, &report.run, &partner, &program)).await?;
            match selected {
                Selection::Lines { total, .. } => would_pay.push((partner.id, Money::new(total, program.currency))),
                Selection::Carried { because, payable } => {
                    let payable = Money::new(payable, program.currency);
                    report.carried.push(Carried { partner: partner.id, because, payable });
                }
            }
        }
        after = page.after;
        if after.is_none() {
            return Ok((would_pay, report));
        }
    }
}
