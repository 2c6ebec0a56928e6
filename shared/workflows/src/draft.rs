//! Drafting: one run's decision about one partner, and the claim of the lines it pays. Resumable at every step.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::balance::{Balance, Bucket};
use domain::exchange::ExchangeRate;
use domain::ids::{Hash, PartnerId, PayoutId};
use domain::journal::{Change, Entry, EntryRef, Sealed, What};
use domain::line::{Line, StateName};
use domain::money::{Minor, Money};
use domain::payout::{PAGE_LINES, Page, PageLine, Payout, PayoutState};
use domain::program::{MethodKind, Partner, PartnerStatus, PayoutMethod, Program};
use domain::selection::{CarriedBecause, CutOff, MAX_LINES, Selection, Terms, select, write_off};
use domain::tax;
use jiff::{SignedDuration, Timestamp};
use store::{Decision, Outcome, Run, StoreError, Transaction};

use crate::changes::{self, OpenPayouts, until_fresh, write};
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exchange::{day_of, rate};

const OPERATION: &str = "claim";
const CLOSE: &str = "close draft";
const WRITE_OFF: &str = "write off debt";
/// How often an index that lags behind the balance is read again.
const INDEX_TRIES: u32 = 8;
/// Characters of the reason why deciding failed.
const MAX_WHY: usize = 500;

/// Decides about a partner within a run and drafts the payout, or goes on where an earlier attempt stopped.
pub async fn draft(context: &Context, run: &Run, partner: &PartnerId, by: &str) -> Result<Outcome> {
    let decision = until_fresh(|| async {
        match context.store.decision(OPERATION, &run.id, partner).await? {
            Some(decision) if !decision.outcome.is_failed() => Ok(decision),
            failed => Box::pin(decide(context, run, partner, failed.as_ref(), by)).await,
        }
    })
    .await?;
    match decision.outcome {
        Outcome::Payout { payout, drafting: true, .. } => outcome(&Box::pin(finish(context, run, &payout, by)).await?),
        decided => Ok(decided),
    }
}

/// Notes why a run could not decide about a partner, where it has not decided: for its report, until somebody asks again.
pub async fn note_failure(context: &Context, run: &Run, partner: &PartnerId, refusal: &Refusal) -> Result<()> {
    let earlier = context.store.decision(OPERATION, &run.id, partner).await?;
    if run.of_one || earlier.as_ref().is_some_and(|earlier| !earlier.outcome.is_failed()) {
        return Ok(());
    }
    let failed = Decision {
        run: run.id.clone(),
        partner: partner.clone(),
        outcome: Outcome::Failed { why: refusal.to_string().chars().take(MAX_WHY).collect() },
        at: context.now(),
        failures: earlier.as_ref().map_or(0, |earlier| earlier.failures) + 1,
    };
    let mut transaction = Transaction::new(OPERATION);
    transaction.decide(&failed, earlier.as_ref())?;
    match context.store.commit(transaction).await {
        // It was decided meanwhile, or failed again.
        Ok(()) | Err(StoreError::Stale) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What a run has decided by a payout that is drafted.
fn outcome(drafted: &Payout) -> Result<Outcome> {
    let payout = drafted.id.clone();
    if drafted.state != PayoutState::Cancelled {
        return Ok(Outcome::Payout {
            payout,
            amount: drafted.money(),
            drafting: drafted.state == PayoutState::Drafting,
        });
    }
    let payable = Money::new(drafted.gross()?, drafted.currency);
    Ok(Outcome::Carried { because: drafted.given_up_because()?, payable, payout: Some(payout) })
}

/// What a run decides by about one partner.
#[derive(Debug)]
pub struct Considered {
    payable: Vec<Line>,
    balance: Balance,
    terms: Terms,
    conversion: Conversion,
}

/// How what a partner is paid is converted.
#[derive(Debug, Clone)]
enum Conversion {
    None,
    By(ExchangeRate),
    Missing,
}

impl Conversion {
    fn rate(&self) -> Option<ExchangeRate> {
        match self {
            Self::By(rate) => Some(rate.clone()),
            Self::None | Self::Missing => None,
        }
    }
}

impl Considered {
    /// What tax asks of what is selected.
    pub const fn tax(&self) -> &tax::Terms {
        &self.terms.tax
    }

    pub fn select(self) -> Result<Selection> {
        Ok(match (select(self.payable, &self.terms)?, self.conversion) {
            (Selection::Lines { total: payable, .. }, Conversion::Missing) => {
                Selection::Carried { because: CarriedBecause::ExchangeRateMissing, payable }
            }
            (selected, _) => selected,
        })
    }
}

/// Reads what a run decides by. Where `at` lies ahead, what will have matured by then counts as payable; nothing is written.
pub async fn consider(
    context: &Context,
    run: &Run,
    partner: &Partner,
    program: &Program,
    at: Timestamp,
) -> Result<Considered> {
    let (mut payable, balance) = payable_lines(context, partner, program).await?;
    if at > context.now() {
        let waiting = crate::balances::waiting_lines(context, OPERATION, partner, &balance, MAX_LINES).await?;
        payable.extend(waiting.into_iter().filter_map(|line| line.mature(at).ok()));
    }
    let sales = crate::sales::of(context, OPERATION, program, partner, &payable, at).await?;
    let days_before = |days: u16| run.planned_at.checked_sub(SignedDuration::from_hours(i64::from(days) * 24)).ok();
    let method = method(run, partner);
    let tax = crate::tax::terms(context, program, partner, method.map(|method| method.kind)).await?;
    let conversion = conversion(context, run, partner, program).await?;
    let terms = Terms {
        payable_by: run.payable_by,
        cut_off: if run.cut_off_inclusive { CutOff::UpTo(run.cut_off) } else { CutOff::Before(run.cut_off) },
        limit: run.request.amount,
        minimum: run.request.below_minimum.is_none().then(|| partner.minimum_payout_in(program)),
        swept_since: program.dust_sweep_days.filter(|_| crate::runs::is_scheduled(run)).and_then(days_before),
        suspended: partner.status == PartnerStatus::Suspended,
        excluded: run.exclude.contains(&partner.id) || (!run.include.is_empty() && !run.include.contains(&partner.id)),
        has_method: method.is_some(),
        tax,
        sales: sales.count,
        minimum_sales: program.minimum_sales,
    };
    Ok(Considered { payable, balance, terms, conversion })
}

/// By the rate of the day of drafting. What nets to nothing for want of a destination goes nowhere, so that it needs none.
async fn conversion(context: &Context, run: &Run, partner: &Partner, program: &Program) -> Result<Conversion> {
    let (from, today) = (program.currency, day_of(context.now()));
    let to = partner.payout_currency.filter(|to| *to != from && method(run, partner).is_some());
    let Some(to) = to else { return Ok(Conversion::None) };
    Ok(rate(context, OPERATION, from, to, today).await?.map_or(Conversion::Missing, Conversion::By))
}

/// The method a request names, else the one the partner prefers.
fn method<'a>(run: &Run, partner: &'a Partner) -> Option<&'a PayoutMethod> {
    match run.request.method {
        Some(kind) => partner.method(kind),
        None => partner.preferred_method(),
    }
}

/// Every payable line, as far as one payout takes so many. The index may lag for a moment; the balance, which does not, tells when it is
/// whole.
async fn payable_lines(context: &Context, partner: &Partner, program: &Program) -> Result<(Vec<Line>, Balance)> {
    for attempt in 0..INDEX_TRIES {
        let balance = context.store.balance(OPERATION, &partner.id, program.currency).await?;
        let lines = context.store.payable_lines(OPERATION, &partner.id, MAX_LINES).await?;
        let sum = Minor::total(lines.iter().map(Line::net).collect::<Result<Vec<_>, _>>()?)?;
        let (count, expected) = (lines.len(), balance.lines(StateName::Payable));
        let whole = i64::try_from(count).is_ok_and(|count| count == expected) && sum == balance.amount(Bucket::Payable);
        // Of more than one payout takes, the rest waits for the next run, and so does what the index does not show yet.
        if whole || (count == MAX_LINES && i64::try_from(count).is_ok_and(|count| count < expected)) {
            return Ok((lines, balance));
        }
        tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
    }
    Err(Refusal::Store(StoreError::Contention))
}

async fn decide(
    context: &Context,
    run: &Run,
    partner: &PartnerId,
    failed: Option<&Decision>,
    by: &str,
) -> Result<Decision> {
    let now = context.now();
    let partner = context.store.partner(OPERATION, partner).await?.ok_or(Refusal::NotFound("partner"))?;
    let program = context.store.program(OPERATION, &run.program).await?.ok_or(Refusal::NotFound("program"))?;
    // A decision is final for its run, so it must not depend on which schedule fired first.
    crate::mature::mature_partner(context, &partner).await?;
    let considered = consider(context, run, &partner, &program, now).await?;
    if write_off_old_debt(context, run, &partner, &program, &considered, by).await? {
        return Err(StoreError::Stale.into());
    }
    let withholding = considered.terms.tax.withholding().cloned();
    let conversion = considered.conversion.rate();
    let tax = considered.tax().clone();
    let selected = considered.select()?;
    let failures = failed.map_or(0, |failed| failed.failures);
    let decided = |outcome| Decision { run: run.id.clone(), partner: partner.id.clone(), outcome, at: now, failures };
    let carried = |because, payable| {
        decided(Outcome::Carried { because, payable: Money::new(payable, program.currency), payout: None })
    };
    let (lines, total, swept) = match selected {
        Selection::Carried { because, payable } => return carry(context, run, carried(because, payable), failed).await,
        Selection::Lines { lines, total, swept } => (lines, total, swept),
    };
    if is_being_drafted(context, run, &partner, &program).await? {
        return carry(context, run, carried(CarriedBecause::DraftInProgress, Minor::ZERO), failed).await;
    }
    let method = method(run, &partner);
    let id = PayoutId::derive(&run.id, &partner.id, run.planned_at);
    let dust = || program.dust_sweep_days.filter(|_| swept);
    let swept_because = dust().map(|days| format!("dust policy: some of it has been payable for {days} days or more"));
    let empty = Payout {
        id: id.clone(),
        program: program.id.clone(),
        partner: partner.id.clone(),
        run: run.id.clone(),
        currency: program.currency,
        state: PayoutState::Drafting,
        amount: Minor::ZERO,
        line_count: 0,
        planned: u32::try_from(lines.len()).unwrap_or(u32::MAX),
        pages: 0,
        lines_hash: Hash::of(b""),
        content_version: 1,
        method: method.map_or(MethodKind::Manual, |method| method.kind),
        destination: method.map_or_else(|| Hash::of(b""), PayoutMethod::fingerprint),
        conversion,
        withholding,
        withheld: Minor::ZERO,
        tax_line: None,
        tax_calendar: program.tax.map(|_| program.time_zone.clone()),
        must_net: method.is_none(),
        below_minimum: run.request.below_minimum.clone().or(swept_because),
        minimum: partner.minimum_payout_in(&program),
        approvals: Vec::new(),
        hands: BTreeSet::new(),
        payments: Vec::new(),
        pay_on: run.pay_on,
        created_at: now,
        approved_at: None,
        submitted_at: None,
        paid_at: None,
        submitting_at: None,
        goes_to: None,
        at_rail: false,
        attempts: 0,
        processor: None,
        export: None,
        reference: None,
        paid: Minor::ZERO,
        trouble: None,
        settling: None,
        entries: 0,
        entry: EntryRef::none(),
    };
    // What fits one page is claimed and closed at once. What nets to zero is claimed first and then settled, as lines go one step at a time.
    let at_once = total.is_positive() && lines.len() <= PAGE_LINES;
    let mut transaction = Transaction::new(OPERATION);
    if run.of_one {
        transaction.create_run(run)?;
    }
    if !at_once {
        transaction.lock_draft(&empty)?;
    }
    if lines.len() > PAGE_LINES {
        let ids: Vec<_> = lines.iter().map(|line| line.id.clone()).collect();
        transaction.plan(&id, &ids)?;
    }
    let page = lines.into_iter().take(PAGE_LINES).collect();
    let claiming = claim(context, None, empty, page, at_once, by).await?;
    let mut outcome = outcome(&claiming.after)?;
    if let Outcome::Payout { amount, drafting: true, .. } = &mut outcome {
        *amount = Money::new(tax.after(total)?, program.currency);
    }
    let decision = decided(outcome);
    transaction.decide(&decision, failed)?;
    let drafted = claiming.commit(context, transaction, None).await?;
    if drafted.settling.is_some() {
        crate::payouts::follow_later(context, &drafted.id).await;
    }
    Ok(decision)
}

/// One draft at a time: what it claims is not for another. What is left is for this run, as soon as that is done; only who asks for one partner
/// is told to ask again.
async fn is_being_drafted(context: &Context, run: &Run, partner: &Partner, program: &Program) -> Result<bool> {
    let is_locked = context.store.draft_lock(OPERATION, &partner.id, program.currency).await?.is_some();
    if is_locked && !run.of_one {
        return Err(crate::runs::not_payable(CarriedBecause::DraftInProgress));
    }
    Ok(is_locked)
}

/// A run decides once, and writes it down. What is asked for one partner and not paid leaves nothing behind, so that it can be asked for
/// again; unless the same request, sent twice at once, is getting it just now.
async fn carry(context: &Context, run: &Run, decision: Decision, failed: Option<&Decision>) -> Result<Decision> {
    if run.of_one {
        let decided = context.store.decision(OPERATION, &run.id, &decision.partner).await?;
        return if decided.is_some() { Err(StoreError::Stale.into()) } else { Ok(decision) };
    }
    let mut transaction = Transaction::new(OPERATION);
    transaction.decide(&decision, failed)?;
    context.store.commit(transaction).await?;
    Ok(decision)
}

/// Writes off what the partner owes, where the program's policy says so: the run then nets it with the debts. Whether it did.
async fn write_off_old_debt(
    context: &Context,
    run: &Run,
    partner: &Partner,
    program: &Program,
    considered: &Considered,
    by: &str,
) -> Result<bool> {
    let Some(days) = program.debt_write_off_days.filter(|_| crate::runs::is_scheduled(run)) else { return Ok(false) };
    let Ok(since) = run.planned_at.checked_sub(SignedDuration::from_hours(i64::from(days) * 24)) else {
        return Ok(false);
    };
    let Considered { payable, balance, terms, conversion: _ } = considered;
    let Some(amount) = write_off(payable, balance, terms, since)? else { return Ok(false) };
    let now = context.now();
    let line = Line::write_off(partner, program.currency, amount, (&run.id, run.planned_at), now);
    let mut entry = Entry::new(line.stream(), 1, now, by, What::WriteOff);
    entry.why = Some(format!("debt policy: all of it is {days} days old or older, and nothing else is under way"));
    let changes = vec![Change::new(line)];
    let transaction = Transaction::new(WRITE_OFF);
    write(&context.store, transaction, WRITE_OFF, entry, changes, &OpenPayouts::default()).await?;
    Ok(true)
}

/// A page of lines about to be claimed.
struct Claiming {
    after: Payout,
    pages: Vec<Page>,
    changes: Vec<Change>,
    sealed: Sealed,
}

impl Claiming {
    /// Claims it with what else the transaction has, unless anything changed.
    async fn commit(self, context: &Context, mut transaction: Transaction, before: Option<&Payout>) -> Result<Payout> {
        let Self { after, pages, changes, sealed } = self;
        match before {
            None => transaction.create_payout(&after)?,
            Some(before) => transaction.replace_payout(&after, before)?,
        }
        for page in &pages {
            transaction.write_page(page)?;
        }
        transaction.change(&changes, &sealed)?;
        context.store.commit(transaction).await?;
        Ok(after)
    }
}

/// Prepares to claim one page of lines. `before` is the payout as read; `None` where it is written for the first time, and `at_once` closes it,
/// too.
async fn claim(
    context: &Context,
    before: Option<&Payout>,
    payout: Payout,
    lines: Vec<Line>,
    at_once: bool,
    by: &str,
) -> Result<Claiming> {
    let now = context.now();
    let number = payout.pages;
    let on_page = |line: &Line| {
        Ok(PageLine { id: line.id.clone(), net: line.net()?, withheld: false, hands: line.hands.clone() })
    };
    let on_page = lines.iter().map(on_page).collect::<Result<Vec<_>>>()?;
    let mut pages = vec![Page { payout: payout.id.clone(), number, lines: on_page }];
    let mut changes = lines
        .into_iter()
        .map(|line| Ok(Change::of(line.clone(), line.claim(&payout.id, number)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut after = payout.take_in(&pages[0])?;
    if at_once {
        after = after.close_draft(&pages, now)?;
        if let Some((taxed, change)) = changes::tax(&context.store, OPERATION, &after, &mut pages, now).await? {
            after = taxed;
            changes.push(change);
        }
    }
    after.entries += 1;
    let what = if before.is_none() { What::Draft } else { What::Claim };
    let entry = Entry::new(after.id.as_str(), after.entries, now, by, what);
    let sealed = entry.with_payout(before, &after).seal(&mut changes)?;
    after.entry = sealed.at.clone();
    Ok(Claiming { after, pages, changes, sealed })
}

/// Claims what was planned page by page, then closes the draft. Does nothing to a payout that is past drafting.
async fn finish(context: &Context, run: &Run, id: &PayoutId, by: &str) -> Result<Payout> {
    let planned = context.store.planned_lines(OPERATION, id).await?;
    let closed = until_fresh(|| async {
        loop {
            let payout = context.store.payout(OPERATION, id).await?.ok_or(Refusal::NotFound("payout"))?;
            if payout.state != PayoutState::Drafting {
                return Ok(payout);
            }
            let page = usize::try_from(payout.pages).unwrap_or(usize::MAX);
            let Some(ids) = planned.chunks(PAGE_LINES).nth(page) else {
                return close(context, &payout, by).await;
            };
            // What was stopped or refunded since it was planned stays out, released again or not; the page is shorter for it.
            let mut lines = context.store.lines(OPERATION, ids).await?;
            lines.retain(|line| line.state.name() == StateName::Payable && line.is_payable_by(run.payable_by));
            let claiming = claim(context, Some(&payout), payout.clone(), lines, false, by).await?;
            claiming.commit(context, Transaction::new(OPERATION), Some(&payout)).await?;
        }
    })
    .await?;
    if closed.settling.is_some() {
        crate::payouts::follow_later(context, id).await;
    }
    Ok(closed)
}

async fn close(context: &Context, payout: &Payout, by: &str) -> Result<Payout> {
    let now = context.now();
    let mut pages = context.store.pages(CLOSE, &payout.id).await?;
    let mut closed = payout.clone().close_draft(&pages, now)?;
    let mut changes = Vec::new();
    let mut transaction = Transaction::new(CLOSE);
    if let Some((taxed, change)) = changes::tax(&context.store, CLOSE, &closed, &mut pages, now).await? {
        closed = taxed;
        changes.push(change);
        if let Some(page) = pages.last() {
            transaction.write_page(page)?;
        }
    }
    closed.entries += 1;
    let entry = Entry::new(closed.id.as_str(), closed.entries, now, by, What::CloseDraft);
    let sealed = entry.with_payout(Some(payout), &closed).seal(&mut changes)?;
    closed.entry = sealed.at.clone();
    transaction.replace_payout(&closed, payout)?;
    transaction.unlock_draft(payout);
    let (run, partner, outcome) = (closed.run.clone(), closed.partner.clone(), outcome(&closed)?);
    transaction.conclude(&Decision { run, partner, outcome, at: closed.created_at, failures: 0 })?;
    transaction.change(&changes, &sealed)?;
    context.store.commit(transaction).await?;
    Ok(closed)
}
