//! What happens to a payout after it is drafted: approval, settlement, cancellation, and its lines following it.

use domain::ids::PayoutId;
use domain::journal::{Change, Entry, What};
use domain::line::{Line, LineState};
use domain::money::Minor;
use domain::payout::{Payout, PayoutState, Seen};
use jiff::{SignedDuration, Timestamp};
use store::{Store, StoreError, Transaction};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};

/// The time over which payouts to one partner add up towards the large-payout limit.
const LARGE_PAYOUT_WINDOW: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A change of one payout: how it is named, and what it does.
struct Step<'a> {
    operation: &'static str,
    what: What,
    by: &'a str,
    why: Option<&'a str>,
}

/// One person's approval of a payout. `seen` is what they looked at; without it only small payouts can be approved.
pub async fn approve(context: &Context, id: &PayoutId, seen: Option<&Seen>, by: &str) -> Result<Payout> {
    let operation = "approve payout";
    until_fresh(|| async {
        let payout = load(&context.store, operation, id).await?;
        if let Some(seen) = seen {
            let differences = seen.differences(&payout);
            if !differences.is_empty() {
                return Err(Refusal::Stale(differences));
            }
        }
        let large = is_large(context, operation, &payout).await?;
        if large && seen.is_none() {
            return Err(Refusal::Illegal(
                "this payout reaches the large-payout limit: name its version, amount and linesHash".to_owned(),
            ));
        }
        let approved = payout.clone().approve(by, context.now(), if large { 2 } else { 1 })?;
        let step = Step { operation, what: What::ApprovePayout, by, why: None };
        change(context, &payout, approved, &step).await
    })
    .await
}

/// Whether this payout and the partner's others of the last 30 days reach the program's limit.
async fn is_large(context: &Context, operation: &'static str, payout: &Payout) -> Result<bool> {
    let program = context.store.program(operation, &payout.program).await?.ok_or(Refusal::NotFound("program"))?;
    let since = context.now() - LARGE_PAYOUT_WINDOW;
    let mut sum = payout.amount;
    let mut after: Option<String> = None;
    loop {
        if sum >= program.large_payout_limit {
            return Ok(true);
        }
        let page = context.store.partner_payouts(operation, &payout.partner, after.as_deref(), 50).await?;
        for other in &page.items {
            let counts = other.id != payout.id
                && other.currency == payout.currency
                && !matches!(other.state, PayoutState::Cancelled | PayoutState::Void | PayoutState::Drafting);
            if counts && other.created_at >= since {
                sum = sum.plus(other.amount)?;
            }
        }
        // Newest first: once past the window, nothing younger follows.
        let past = page.items.last().is_none_or(|last| last.created_at < since);
        after = page.after.filter(|_| !past);
        if after.is_none() {
            return Ok(sum >= program.large_payout_limit);
        }
    }
}

pub async fn send_back(context: &Context, id: &PayoutId, why: &str, by: &str) -> Result<Payout> {
    let step = Step { operation: "send back payout", what: What::SendBack, by, why: Some(why) };
    transition(context, id, &step, Payout::send_back).await
}

/// Ends a payout before it was sent anywhere; its lines are payable again.
pub async fn cancel(context: &Context, id: &PayoutId, why: &str, by: &str) -> Result<Payout> {
    let step = Step { operation: "cancel payout", what: What::CancelPayout, by, why: Some(why) };
    let cancelled = transition(context, id, &step, |payout| {
        if payout.state == PayoutState::Drafting {
            // Its claims are still being written; it will be closed in a moment.
            return Err(domain::payout::PayoutError::Settling);
        }
        payout.cancel()
    })
    .await?;
    follow_later(context, &cancelled.id).await;
    Ok(cancelled)
}

/// A payment as a person attests it.
#[derive(Debug, Clone)]
pub struct Attested<'a> {
    pub reference: Option<&'a str>,
    /// `None`: now.
    pub paid_at: Option<Timestamp>,
    /// `None`: all that is open.
    pub amount: Option<Minor>,
}

pub async fn mark_paid(context: &Context, id: &PayoutId, attested: &Attested<'_>, by: &str) -> Result<Payout> {
    let step = Step { operation: "pay", what: What::MarkPaid, by, why: attested.reference };
    let at = attested.paid_at.unwrap_or_else(|| context.now());
    let paid = until_fresh(|| async {
        let payout = load(&context.store, step.operation, id).await?;
        // The same part under the same reference is the same payment, said twice.
        if payout.state == PayoutState::PartiallyPaid && payout.knows_payment(attested.reference, attested.amount) {
            return Ok(payout);
        }
        let after = payout.clone().mark_paid(attested.reference, at, attested.amount)?;
        change(context, &payout, after, &step).await
    })
    .await?;
    follow_later(context, &paid.id).await;
    Ok(paid)
}

async fn load(store: &Store, operation: &'static str, id: &PayoutId) -> Result<Payout> {
    store.payout(operation, id).await?.ok_or(Refusal::NotFound("payout"))
}

async fn transition(
    context: &Context,
    id: &PayoutId,
    step: &Step<'_>,
    apply: impl Fn(Payout) -> Result<Payout, domain::payout::PayoutError>,
) -> Result<Payout> {
    until_fresh(|| async {
        let payout = load(&context.store, step.operation, id).await?;
        let after = apply(payout.clone())?;
        change(context, &payout, after, step).await
    })
    .await
}

/// Writes a payout's change, and with it the first page of lines that follow it, if any do.
async fn change(context: &Context, before: &Payout, mut after: Payout, step: &Step<'_>) -> Result<Payout> {
    after.entries += 1;
    let mut changes = follow_page(context, step.operation, &mut after).await?;
    let mut entry = Entry::new(before.id.as_str(), after.entries, context.now(), step.by, step.what);
    entry.why = step.why.map(str::to_owned);
    let sealed = entry.with_payout(Some(before), &after).seal(&mut changes)?;
    after.entry = sealed.at.clone();
    let mut transaction = Transaction::new(step.operation);
    transaction.replace_payout(&after, before)?;
    transaction.change(&changes, &sealed)?;
    match context.store.commit(transaction).await {
        Ok(()) => Ok(after),
        // It may be only the answer that was lost.
        Err(error @ StoreError::Unavailable(_)) => {
            let stands = context.store.payout(step.operation, &after.id).await?;
            if stands.is_some_and(|payout| payout.entry == after.entry) { Ok(after) } else { Err(error.into()) }
        }
        Err(error) => Err(error.into()),
    }
}

/// The next page of lines goes where the payout went.
async fn follow_page(context: &Context, operation: &'static str, payout: &mut Payout) -> Result<Vec<Change>> {
    let Some(number) = payout.settling else { return Ok(Vec::new()) };
    payout.settling = (number + 1 < payout.pages).then_some(number + 1);
    let Some(page) = context.store.page(operation, &payout.id, number).await? else { return Ok(Vec::new()) };
    let ids: Vec<_> = page.lines.iter().map(|line| line.id.clone()).collect();
    let lines = context.store.lines(operation, &ids).await?;
    let paid_at = payout.paid_at.unwrap_or_else(|| context.now());
    let follow = |line: Line| match payout.state {
        PayoutState::Paid => line.pay(&payout.id, paid_at),
        _ => line.free(&payout.id),
    };
    lines
        .into_iter()
        // A line that went before a crash is there already.
        .filter(|line| matches!(&line.state, LineState::InPayout { payout: of, .. } if *of == payout.id))
        .map(|line| Ok(Change::of(line.clone(), follow(line)?)))
        .collect()
}

/// Follows after something that is done and must be reported as done. What fails here is driven on by the next tick.
pub async fn follow_later(context: &Context, id: &PayoutId) {
    if let Err(error) = follow(context, id).await {
        tracing::warn!(payout = %id, %error, "its lines will follow later");
    }
}

/// Takes all remaining pages of lines to where their payout went. Safe to repeat, and to run twice at once.
pub async fn follow(context: &Context, id: &PayoutId) -> Result<Payout> {
    let step = Step { operation: "settle lines", what: What::Settle, by: "settlement", why: None };
    loop {
        let payout = load(&context.store, step.operation, id).await?;
        if payout.settling.is_none() {
            return Ok(payout);
        }
        match change(context, &payout, payout.clone(), &step).await {
            Ok(_) | Err(Refusal::Store(StoreError::Stale)) => {}
            Err(refusal) => return Err(refusal),
        }
    }
}
