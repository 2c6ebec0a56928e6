//! Payout runs: planned once per program, kind and period, one message per partner, decided once per partner.

use domain::ids::{PartnerId, PayoutId, ProgramId, RunId};
use domain::money::Money;
use domain::payout::{Payout, PayoutState};
use domain::program::{Frequency, Partner, Program};
use domain::schedule::ScheduledRun;
use domain::selection::{CarriedBecause, Selection};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use store::{ExportProgress, Outcome, PayoutRequest, Run, RunProgress, RunSummary, Store, StoreError, Transaction};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::draft::{consider, draft, note_failure};
use crate::error::{Refusal, Result};
use crate::instant;
use crate::queues::DraftRequest;
use crate::report::{Undecided, is_whole, partners_of, summarize, undecided};

const OPERATION: &str = "plan run";
const PREVIEW: &str = "preview run";
const ACTOR: &str = "batch-payouts";
const DRAFTER: &str = "draft-payout";
pub const ON_DEMAND: &str = "on_demand";
pub const MANUAL: &str = "manual";
/// Partners asked per write of the run's position.
const PAGE_PARTNERS: i32 = 500;
/// Partners, payouts and runs read at once where each is looked at.
const PAGE: i32 = 100;
/// Partners whose lines are read side by side.
const READS: usize = 8;
/// How long a partner has for a decision before it is asked for again, and how long after planning that goes on. Nobody is given up who
/// was not asked again: perhaps nothing ran at all.
const ASK_AGAIN: SignedDuration = SignedDuration::from_hours(1);
const GIVE_UP: SignedDuration = SignedDuration::from_hours(24);
/// What one tick of the schedule did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticked {
    pub runs_started: usize,
    pub runs_completed: usize,
    pub payouts_resumed: usize,
    /// Trusted partners of instant programs for whom an instant payout was asked.
    pub instant: usize,
    /// Payouts, programs and runs that failed and were passed over.
    pub failed: usize,
    pub unfinished: bool,
}

/// Whether the run has a date of its program's schedule.
pub fn is_scheduled(run: &Run) -> bool {
    run.kind != MANUAL && run.kind != ON_DEMAND && run.kind != Frequency::Instant.name()
}

/// Starts every scheduled run that is due, goes on with unfinished ones, re-drives payouts that stopped half-way, and pays instantly
/// what could not be paid when it became payable.
pub async fn tick(context: &Context, time_left: impl Fn() -> bool) -> Result<Ticked> {
    let mut ticked = Ticked::default();
    resume_all(context, &time_left, &mut ticked).await?;
    let mut asked = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = context.store.programs(OPERATION, after.as_deref(), 50).await?;
        for program in &page.items {
            if crate::rails::has_any(context, OPERATION, &program.id).await? {
                asked.push(program.id.clone());
            }
            match start_scheduled(context, program).await {
                Ok(started) => ticked.runs_started += usize::from(started),
                Err(error) => ticked.passed_over("program", program.id.as_str(), &error),
            }
            if program.schedule.frequency == Frequency::Instant {
                match instant::sweep(context, program, &time_left, &mut ticked.instant).await {
                    Ok(whole) => ticked.unfinished |= !whole,
                    Err(error) => ticked.passed_over("program", program.id.as_str(), &error),
                }
            }
        }
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    go_on(context, &time_left, &mut ticked).await?;
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

/// Drives on what stopped half-way, bucket by bucket.
async fn resume_all(context: &Context, time_left: &impl Fn() -> bool, ticked: &mut Ticked) -> Result<()> {
    for bucket in Store::payout_buckets() {
        let mut after: Option<String> = None;
        loop {
            if !time_left() {
                ticked.unfinished = true;
                return Ok(());
            }
            let page = context.store.unfinished_payouts(OPERATION, bucket, after.as_deref(), PAGE).await?;
            for payout in &page.items {
                match resume(context, payout).await {
                    Ok(()) => ticked.payouts_resumed += 1,
                    Err(error) => ticked.passed_over("payout", payout.id.as_str(), &error),
                }
            }
            after = page.after;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Drives on a payout that stopped half-way.
async fn resume(context: &Context, payout: &Payout) -> Result<()> {
    match payout.state {
        PayoutState::Drafting => {
            let request = DraftRequest::Decide { run: payout.run.clone(), partner: payout.partner.clone() };
            context.queues.send_drafts(&[request]).await
        }
        PayoutState::Submitting if payout.is_sent_by_people() => {
            crate::payouts::hand_over(context, payout).await.map(drop)
        }
        PayoutState::Submitting => context.queues.send_submission(&payout.id).await,
        _ => crate::payouts::follow(context, &payout.id).await.map(drop),
    }
}

/// Goes on with every run that is not completed. Before partners are asked, all lines that are due are matured: each decision matures what
/// its partner has due, which is found quickly only where little is.
async fn go_on(context: &Context, time_left: &impl Fn() -> bool, ticked: &mut Ticked) -> Result<()> {
    let mut matured = false;
    let mut after: Option<String> = None;
    loop {
        let page = context.store.unfinished_runs(OPERATION, after.as_deref(), PAGE).await?;
        for run in &page.items {
            if !matured && matches!(run.progress, RunProgress::Planning { .. }) {
                if crate::mature::mature(context, time_left).await?.unfinished {
                    ticked.unfinished = true;
                    return Ok(());
                }
                matured = true;
            }
            match one_on(context, run, time_left).await {
                Ok(Progress::Completed) => ticked.runs_completed += 1,
                Ok(Progress::UnderWay) => {}
                Ok(Progress::OutOfTime) => ticked.unfinished = true,
                Err(error) => ticked.passed_over("run", run.id.as_str(), &error),
            }
        }
        after = page.after;
        if after.is_none() {
            return Ok(());
        }
    }
}

enum Progress {
    OutOfTime,
    UnderWay,
    Completed,
}

async fn one_on(context: &Context, run: &Run, time_left: &impl Fn() -> bool) -> Result<Progress> {
    if !plan(context, &run.id, time_left).await? {
        return Ok(Progress::OutOfTime);
    }
    let run = context.store.run(OPERATION, &run.id).await?.ok_or(Refusal::NotFound("run"))?;
    let RunProgress::Planned { at, again } = run.progress else { return Ok(Progress::UnderWay) };
    let summary = summarize(context, &run.id, |_| {}).await?;
    if is_whole(&run, &summary) {
        return complete(context, &run, at, summary).await;
    }
    let now = context.now();
    if now.duration_since(again.unwrap_or(at)) < ASK_AGAIN {
        return Ok(Progress::UnderWay);
    }
    if again.is_some() && now.duration_since(at) >= GIVE_UP {
        return complete(context, &run, at, summary).await;
    }
    let Some(missing) = ask_again(context, &run, time_left).await? else { return Ok(Progress::OutOfTime) };
    // Whoever decided meanwhile would be counted twice, or not at all.
    if summarize(context, &run.id, |_| {}).await?.decided() != summary.decided() {
        return Ok(Progress::UnderWay);
    }
    let asked = run.asked.max(summary.decided().saturating_add(missing));
    let told = Run { asked, progress: RunProgress::Planned { at, again: Some(now) }, ..run.clone() };
    replace(context, told, &run, Progress::UnderWay).await
}

async fn complete(context: &Context, run: &Run, at: Timestamp, summary: RunSummary) -> Result<Progress> {
    let asked = run.asked.max(summary.decided());
    let completed = Run { progress: RunProgress::Completed { at, summary }, asked, ..run.clone() };
    replace(context, completed, run, Progress::Completed).await
}

async fn replace(context: &Context, after: Run, before: &Run, progress: Progress) -> Result<Progress> {
    let mut transaction = Transaction::new(OPERATION);
    transaction.replace_run(&Run { changes: before.changes + 1, ..after }, before)?;
    match context.store.commit(transaction).await {
        // Somebody else drove it on: as far, or the next tick does.
        Ok(()) | Err(StoreError::Stale) => Ok(progress),
        Err(error) => Err(error.into()),
    }
}

/// Asks everybody who has no decision yet, and says how many they are. The index may not have shown all of them when the run was planned.
async fn ask_again(context: &Context, run: &Run, time_left: &impl Fn() -> bool) -> Result<Option<u32>> {
    let (mut missing, mut after) = (0_u32, None::<String>);
    loop {
        let page = undecided(context, run, after.as_deref(), PAGE).await?;
        missing = missing.saturating_add(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
        let again = page.items.into_iter().map(|Undecided { partner, .. }| partner);
        let again = again.map(|partner| DraftRequest::Decide { run: run.id.clone(), partner });
        context.queues.send_drafts(&again.collect::<Vec<_>>()).await?;
        after = page.after;
        if after.is_none() {
            return Ok(Some(missing));
        }
        if !time_left() {
            return Ok(None);
        }
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
    let run = scheduled_run(program, &due, context.now());
    if context.store.run(OPERATION, &run.id).await?.is_some() {
        return Ok(false);
    }
    create(context, &run).await
}

/// Planned `now`, it takes what was payable then; planned later than on its day, what was payable by the end of that day. So a run that is
/// caught up on takes no more than it would have on its day.
fn scheduled_run(program: &Program, due: &ScheduledRun, now: Timestamp) -> Run {
    let (kind, period) = (program.schedule.frequency.name(), due.date.to_string());
    Run {
        id: RunId::derive(&program.id, kind, &period),
        program: program.id.clone(),
        kind: kind.to_owned(),
        period,
        planned_at: due.starts_at,
        cut_off: due.cut_off,
        cut_off_inclusive: false,
        payable_by: Some(now.clamp(due.starts_at, due.ends_at)),
        pay_on: Some(due.pay_on),
        created_by: ACTOR.to_owned(),
        progress: RunProgress::Planning { after: None },
        asked: 0,
        of_one: false,
        include: Vec::new(),
        exclude: Vec::new(),
        request: PayoutRequest::default(),
        changes: 1,
    }
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
        payable_by: Some(now),
        pay_on: None,
        created_by: by.to_owned(),
        progress: RunProgress::Planning { after: None },
        asked: 0,
        of_one: false,
        include: manual.include.clone(),
        exclude: manual.exclude.clone(),
        request: PayoutRequest::default(),
        changes: 1,
    }
}

/// Starts a run by hand, and asks as many of its partners as there is time for; the queue goes on with the rest.
pub async fn start_manual(
    context: &Context,
    program: &ProgramId,
    manual: &Manual<'_>,
    by: &str,
    time_left: impl Fn() -> bool,
) -> Result<RunId> {
    let run = manual_run(context, program, manual, by);
    create(context, &run).await?;
    go_on_planning(context, &run.id, &time_left).await?;
    Ok(run.id)
}

/// Asks a run's partners; where time runs out, a message sees to the rest.
pub async fn go_on_planning(context: &Context, id: &RunId, time_left: &impl Fn() -> bool) -> Result<()> {
    if plan(context, id, time_left).await? {
        return Ok(());
    }
    context.queues.send_drafts(&[DraftRequest::Plan { plan: id.clone() }]).await
}

/// Sends a message for every partner, remembering how far it came. Whether it came to the end.
pub async fn plan(context: &Context, id: &RunId, time_left: &impl Fn() -> bool) -> Result<bool> {
    loop {
        let run = context.store.run(OPERATION, id).await?.ok_or(Refusal::NotFound("run"))?;
        let RunProgress::Planning { after } = &run.progress else { return Ok(true) };
        if !time_left() {
            return Ok(false);
        }
        let page = partners_of(context, &run, after.as_deref(), PAGE_PARTNERS).await?;
        let ask = |partner| DraftRequest::Decide { run: run.id.clone(), partner };
        let requests: Vec<_> = page.items.into_iter().map(ask).collect();
        context.queues.send_drafts(&requests).await?;
        let progress = match page.after {
            Some(after) => RunProgress::Planning { after: Some(after) },
            None => RunProgress::Planned { at: context.now(), again: None },
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

/// Handles one message of the queue of drafts.
pub async fn serve(context: &Context, request: &DraftRequest, time_left: &impl Fn() -> bool) -> Result<()> {
    match request {
        DraftRequest::Decide { run, partner } => {
            let run = context.store.run(OPERATION, run).await?.ok_or(Refusal::NotFound("run"))?;
            match Box::pin(draft(context, &run, partner, DRAFTER)).await {
                Ok(outcome) => {
                    tracing::info!(run = %run.id, partner = %partner, ?outcome, "decided");
                    Ok(())
                }
                Err(refusal) => {
                    // The message comes again; should it not, the run's report says why.
                    if let Err(error) = note_failure(context, &run, partner, &refusal).await {
                        tracing::warn!(run = %run.id, partner = %partner, %error, "not noted");
                    }
                    Err(refusal)
                }
            }
        }
        DraftRequest::Instant { line } => instant::pay(context, line).await,
        DraftRequest::Plan { plan } => go_on_planning(context, plan, time_left).await,
    }
}

// --- On demand ----------------------------------------------------------------------------------------------------

/// A run about one partner, as of now. It is written together with its payout: where nothing is paid it leaves nothing behind.
pub(crate) fn run_of_one(context: &Context, partner: &Partner, id: RunId, kind: &str, period: &str) -> Run {
    let now = context.now();
    Run {
        id,
        program: partner.program.clone(),
        kind: kind.to_owned(),
        period: period.to_owned(),
        planned_at: now,
        cut_off: now,
        cut_off_inclusive: true,
        payable_by: None,
        pay_on: None,
        created_by: DRAFTER.to_owned(),
        progress: RunProgress::Planned { at: now, again: None },
        asked: 1,
        of_one: true,
        include: vec![partner.id.clone()],
        exclude: Vec::new(),
        request: PayoutRequest::default(),
        changes: 1,
    }
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
    let key = format!("{}/{}", partner.id, asked.key);
    let id = RunId::derive(&program.id, ON_DEMAND, &key);
    let run = if let Some(started) = store.run(OPERATION, &id).await? {
        started
    } else {
        let of_one = run_of_one(context, &partner, id, ON_DEMAND, &key);
        let run = Run { created_by: by.to_owned(), request: asked.request.clone(), ..of_one };
        refuse_more_than_payable(context, &run, &program, &partner).await?;
        run
    };
    match Box::pin(draft(context, &run, &partner.id, by)).await? {
        Outcome::Payout { payout, .. } => Ok(payout),
        Outcome::Carried { because, .. } => Err(not_payable(because)),
        Outcome::Failed { why } => Err(Refusal::Illegal(why)),
    }
}

/// A requested amount is a promise to somebody: less must not be paid in silence.
async fn refuse_more_than_payable(context: &Context, run: &Run, program: &Program, partner: &Partner) -> Result<()> {
    let Some(limit) = run.request.amount else { return Ok(()) };
    crate::mature::mature_partner(context, partner).await?;
    let unlimited = Run { request: PayoutRequest { amount: None, ..run.request.clone() }, ..run.clone() };
    let now = context.now();
    match consider(context, &unlimited, partner, program, now).await?.select()? {
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

// --- Previews -----------------------------------------------------------------------------------------------------

/// What a run would decide about some of its partners, without deciding it.
#[derive(Debug)]
pub struct Preview {
    pub run: Run,
    pub decisions: Vec<(PartnerId, Foreseen)>,
    /// Where to go on; `None` at the end.
    pub after: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub enum Foreseen {
    /// After tax.
    Paid(Money),
    Carried {
        because: CarriedBecause,
        payable: Money,
    },
}

/// Looks at a page of the run's partners as they stand `at` a moment.
pub async fn preview(
    context: &Context,
    program: &Program,
    run: Run,
    at: Timestamp,
    after: Option<&str>,
    limit: i32,
) -> Result<Preview> {
    let store = &context.store;
    let (partners, after) = if run.include.is_empty() {
        let page = store.partners(PREVIEW, &program.id, after, limit).await?;
        (page.items, page.after)
    } else {
        (store.partners_by_id(PREVIEW, &run.include).await?, None)
    };
    let (run_seen, money) = (&run, |amount| Money::new(amount, program.currency));
    let looked_at = futures::stream::iter(partners).map(async |partner| {
        let considered = until_fresh(|| consider(context, run_seen, &partner, program, at)).await?;
        let tax = considered.tax().clone();
        let foreseen = match considered.select()? {
            Selection::Lines { total, .. } => Foreseen::Paid(money(tax.after(total)?)),
            Selection::Carried { because, payable } => Foreseen::Carried { because, payable: money(payable) },
        };
        Ok::<_, Refusal>((partner.id, foreseen))
    });
    let decisions = looked_at.buffered(READS).try_collect().await?;
    Ok(Preview { run, decisions, after })
}

/// The program's next scheduled run, and a page of what it would decide, if nothing happened until then but time. `None` where the
/// program has no schedule.
pub async fn next_run(
    context: &Context,
    program: &Program,
    after: Option<&str>,
    limit: i32,
) -> Result<Option<(ScheduledRun, Preview)>> {
    let Some(next) = program.next_run(context.now()) else { return Ok(None) };
    let run = scheduled_run(program, &next, context.now());
    let preview = preview(context, program, run, next.starts_at, after, limit).await?;
    Ok(Some((next, preview)))
}
