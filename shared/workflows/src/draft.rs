//! Drafting: one run's decision about one partner, and the claim of the lines it pays. Resumable at every step.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::balance::Bucket;
use domain::exchange::ExchangeRate;
use domain::ids::{Hash, PartnerId, PayoutId};
use domain::journal::{Change, Entry, EntryRef, What};
use domain::line::{Line, StateName};
use domain::money::{Minor, Money};
use domain::payout::{PAGE_LINES, Page, PageLine, Payout, PayoutState};
use domain::program::{MethodKind, Partner, PartnerStatus, PayoutMethod, Program};
use domain::selection::{CarriedBecause, CutOff, Selection, Terms, select};
use domain::tax;
use store::{Decision, Outcome, Run, StoreError, Transaction};

use crate::changes::{tax, until_fresh};
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exchange::{day_of, rate};

const OPERATION: &str = "claim";
const CLOSE: &str = "close draft";
/// How often an index that lags behind the balance is read again.
const INDEX_TRIES: u32 = 8;

/// Decides about a partner within a run and drafts the payout, or goes on where an earlier attempt stopped.
pub async fn draft(context: &Context, run: &Run, partner: &PartnerId, by: &str) -> Result<Outcome> {
    let decision = until_fresh(|| async {
        if let Some(decision) = context.store.decision(OPERATION, &run.id, partner).await? {
            return Ok(decision);
        }
        decide(context, run, partner, by).await
    })
    .await?;
    if let Outcome::Payout { payout } = &decision.outcome {
        finish(context, payout, by).await?;
    }
    Ok(decision.outcome)
}

/// What the run would decide now, without writing.
pub async fn preview(context: &Context, run: &Run, partner: &Partner, program: &Program) -> Result<Selection> {
    Ok(selected(context, run, partner, program).await?.0)
}

/// What the run takes of the partner's lines, and on what terms of tax.
async fn selected(
    context: &Context,
    run: &Run,
    partner: &Partner,
    program: &Program,
) -> Result<(Selection, tax::Terms)> {
    let payable = payable_lines(context, partner, program).await?;
    let sales = crate::sales::of(context, OPERATION, program, partner, &payable).await?;
    let method = method(run, partner);
    let tax = crate::tax::terms(context, program, partner, method.map(|method| method.kind)).await?;
    let terms = Terms {
        cut_off: if run.cut_off_inclusive { CutOff::UpTo(run.cut_off) } else { CutOff::Before(run.cut_off) },
        limit: run.request.amount,
        minimum: run.request.below_minimum.is_none().then(|| partner.minimum_payout_in(program)),
        suspended: partner.status == PartnerStatus::Suspended,
        excluded: run.exclude.contains(&partner.id) || (!run.include.is_empty() && !run.include.contains(&partner.id)),
        has_method: method.is_some(),
        tax: tax.clone(),
        sales: sales.count,
        minimum_sales: program.minimum_sales,
    };
    let selected = select(payable, &terms)?;
    if let Selection::Lines { total, .. } = &selected
        && let Conversion::Missing = conversion(context, run, partner, program).await?
    {
        return Ok((Selection::Carried { because: CarriedBecause::ExchangeRateMissing, payable: *total }, tax));
    }
    Ok((selected, tax))
}

/// How what a partner is paid is converted.
enum Conversion {
    None,
    By(ExchangeRate),
    Missing,
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

/// Every payable line. The index may lag for a moment; the balance, which does not, tells when it is whole.
async fn payable_lines(context: &Context, partner: &Partner, program: &Program) -> Result<Vec<Line>> {
    for attempt in 0..INDEX_TRIES {
        let balance = context.store.balance(OPERATION, &partner.id, program.currency).await?;
        let mut lines = context.store.payable_lines(OPERATION, &partner.id).await?;
        lines.retain(|line| line.state.name() == StateName::Payable);
        let sum = Minor::total(lines.iter().map(Line::net).collect::<Result<Vec<_>, _>>()?)?;
        let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
        if (sum, count) == (balance.amount(Bucket::Payable), balance.lines(StateName::Payable)) {
            return Ok(lines);
        }
        tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
    }
    Err(Refusal::Store(StoreError::Contention))
}

async fn decide(context: &Context, run: &Run, partner: &PartnerId, by: &str) -> Result<Decision> {
    let now = context.now();
    let partner = context.store.partner(OPERATION, partner).await?.ok_or(Refusal::NotFound("partner"))?;
    let program = context.store.program(OPERATION, &run.program).await?.ok_or(Refusal::NotFound("program"))?;
    let on_demand = run.kind == crate::runs::ON_DEMAND;
    // A decision is final for its run, so it must not depend on which schedule fired first.
    crate::mature::mature_partner(context, &partner).await?;
    let (selected, tax) = selected(context, run, &partner, &program).await?;
    let decided = |outcome| Decision { run: run.id.clone(), partner: partner.id.clone(), outcome, at: now };
    let mut transaction = Transaction::new(OPERATION);
    let mut lines = match selected {
        Selection::Carried { because, .. } if on_demand => {
            return unless_decided(context, run, &partner.id, crate::runs::not_payable(because)).await;
        }
        Selection::Carried { because, payable } => {
            let decision = decided(Outcome::Carried { because, payable: Money::new(payable, program.currency) });
            transaction.decide(&decision)?;
            context.store.commit(transaction).await?;
            return Ok(decision);
        }
        Selection::Lines { lines, .. } => lines,
    };
    if context.store.draft_lock(OPERATION, &partner.id, program.currency).await?.is_some() {
        return refuse_second_draft(context, transaction, run, &partner.id, &decided, &program).await;
    }
    let conversion = match conversion(context, run, &partner, &program).await? {
        Conversion::None => None,
        Conversion::By(rate) => Some(rate),
        // It was there a moment ago, and what is told stays.
        Conversion::Missing => return Err(StoreError::Stale.into()),
    };
    let method = method(run, &partner);
    let id = PayoutId::derive(&run.id, &partner.id, run.planned_at);
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
        withholding: tax.withholding().cloned(),
        withheld: Minor::ZERO,
        tax_line: None,
        tax_calendar: program.tax.map(|_| program.time_zone.clone()),
        must_net: method.is_none(),
        below_minimum: run.request.below_minimum.clone(),
        minimum: partner.minimum_payout_in(&program),
        approvals: Vec::new(),
        hands: BTreeSet::new(),
        payments: Vec::new(),
        created_at: now,
        approved_at: None,
        submitted_at: None,
        paid_at: None,
        submitting_at: None,
        goes_to: None,
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
    if on_demand {
        transaction.create_run(run)?;
    }
    if lines.len() > PAGE_LINES {
        let ids: Vec<_> = lines.iter().map(|line| line.id.clone()).collect();
        transaction.plan(&id, &ids)?;
    }
    let decision = decided(Outcome::Payout { payout: id });
    transaction.decide(&decision)?;
    transaction.lock_draft(&empty)?;
    lines.truncate(PAGE_LINES);
    claim(context, transaction, None, empty, lines, by).await?;
    Ok(decision)
}

/// A refusal, unless it is for what the same request, sent twice at once, is getting just now.
async fn unless_decided(context: &Context, run: &Run, partner: &PartnerId, refusal: Refusal) -> Result<Decision> {
    let decided = context.store.decision(OPERATION, &run.id, partner).await?;
    Err(if decided.is_some() { StoreError::Stale.into() } else { refusal })
}

/// One draft at a time: a scheduled run carries the partner over, a request is refused and may be repeated.
async fn refuse_second_draft(
    context: &Context,
    mut transaction: Transaction,
    run: &Run,
    partner: &PartnerId,
    decided: &impl Fn(Outcome) -> Decision,
    program: &Program,
) -> Result<Decision> {
    if run.kind == crate::runs::ON_DEMAND {
        let refusal = Refusal::Illegal("a payout to this partner is being drafted".to_owned());
        return unless_decided(context, run, partner, refusal).await;
    }
    let decision = decided(Outcome::Carried {
        because: CarriedBecause::DraftInProgress,
        payable: Money::new(Minor::ZERO, program.currency),
    });
    transaction.decide(&decision)?;
    context.store.commit(transaction).await?;
    Ok(decision)
}

/// Claims one page of lines. `before` is the payout as read; `None` writes it for the first time.
async fn claim(
    context: &Context,
    mut transaction: Transaction,
    before: Option<&Payout>,
    payout: Payout,
    lines: Vec<Line>,
    by: &str,
) -> Result<Payout> {
    let number = payout.pages;
    let on_page = |line: &Line| {
        Ok(PageLine { id: line.id.clone(), net: line.net()?, withheld: false, hands: line.hands.clone() })
    };
    let page =
        Page { payout: payout.id.clone(), number, lines: lines.iter().map(on_page).collect::<Result<Vec<_>>>()? };
    let mut changes = lines
        .into_iter()
        .map(|line| Ok(Change::of(line.clone(), line.claim(&payout.id, number)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut after = payout.take_in(&page)?;
    after.entries += 1;
    let what = if before.is_none() { What::Draft } else { What::Claim };
    let entry = Entry::new(after.id.as_str(), after.entries, context.now(), by, what);
    let sealed = entry.with_payout(before, &after).seal(&mut changes)?;
    after.entry = sealed.at.clone();
    match before {
        None => transaction.create_payout(&after)?,
        Some(before) => transaction.replace_payout(&after, before)?,
    }
    transaction.write_page(&page)?;
    transaction.change(&changes, &sealed)?;
    context.store.commit(transaction).await?;
    Ok(after)
}

/// Claims what was planned page by page, then closes the draft. Does nothing to a payout that is past drafting.
pub async fn finish(context: &Context, id: &PayoutId, by: &str) -> Result<()> {
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
            // What was stopped or refunded since it was planned stays out; the page is shorter for it.
            let mut lines = context.store.lines(OPERATION, ids).await?;
            lines.retain(|line| line.state.name() == StateName::Payable);
            claim(context, Transaction::new(OPERATION), Some(&payout), payout.clone(), lines, by).await?;
        }
    })
    .await?;
    if closed.settling.is_some() {
        crate::payouts::follow_later(context, id).await;
    }
    Ok(())
}

async fn close(context: &Context, payout: &Payout, by: &str) -> Result<Payout> {
    let now = context.now();
    let mut pages = context.store.pages(CLOSE, &payout.id).await?;
    let mut closed = payout.clone().close_draft(&pages, now)?;
    let mut changes = Vec::new();
    let mut transaction = Transaction::new(CLOSE);
    if let Some((taxed, change)) = tax(&context.store, CLOSE, &closed, &mut pages, now).await? {
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
    transaction.change(&changes, &sealed)?;
    context.store.commit(transaction).await?;
    Ok(closed)
}
