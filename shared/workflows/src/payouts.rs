//! What happens to a payout after it is drafted: approval, settlement, cancellation, and its lines following it.

use domain::ids::{ExceptionId, PayoutId};
use domain::journal::{Change, Entry, What};
use domain::line::{Line, LineState};
use domain::money::Minor;
use domain::payout::{Payout, PayoutAction, PayoutError, PayoutState, Retallied, Seen, SentTo, Teller, Unsendable};
use domain::program::{Partner, PayoutMethod, Program};
use domain::tax::Terms;
use jiff::{SignedDuration, Timestamp};
use store::{Departures, ExceptionCode, Store, StoreError, Transaction};

use crate::changes::{command_stream, until_fresh};
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exceptions::{file_in, resolve_in};
use crate::tax::{self, Leaving, Validity};

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
        let partner = partner_of(context, operation, &payout).await?;
        let changed = match payout.destination_of(&partner) {
            Some(method) => method.changed.as_ref(),
            None if payout.state == PayoutState::Pending => return Err(redirected(context, &payout, &partner).await?),
            None => None,
        };
        let large = is_large(context, operation, &payout).await?;
        if large && seen.is_none() {
            return Err(Refusal::Illegal(
                "this payout reaches the large-payout limit: name its version, amount and linesHash".to_owned(),
            ));
        }
        let approved = payout.clone().approve(by, context.now(), if large { 2 } else { 1 }, changed)?;
        let step = Step { operation, what: What::ApprovePayout, by, why: None };
        change(context, &payout, approved, &step).await
    })
    .await
}

/// Whether this payout and the partner's others of the last 30 days, before tax, reach the program's limit. Reads no further back than
/// that.
async fn is_large(context: &Context, operation: &'static str, payout: &Payout) -> Result<bool> {
    let program = context.store.program(operation, &payout.program).await?.ok_or(Refusal::NotFound("program"))?;
    let since = context.now() - LARGE_PAYOUT_WINDOW;
    let mut sum = payout.gross()?;
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
                sum = sum.plus(other.gross()?)?;
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
    transition(context, id, &step, Payout::cancel).await
}

/// What is checked again before a payout is sent, with one answer for every way of sending it: where to, or why not and until when. `paid_at`
/// is when its money leaves, or left, as somebody says: tax asks what it asks of a payment of that day. Where the payout details are no longer
/// those that were approved, the payout is redirected and must be approved anew. The departures, if any, go into the write that sends it.
pub async fn may_be_sent(
    context: &Context,
    payout: &Payout,
    paid_at: Timestamp,
) -> Result<(PayoutMethod, Option<Departures>)> {
    let operation = "may be sent";
    let partner = partner_of(context, operation, payout).await?;
    let program = context.store.program(operation, &payout.program).await?.ok_or(Refusal::NotFound("program"))?;
    match payout.sendable(&partner, &program, context.now()) {
        Ok(method) => {
            let leaving = Leaving { at: paid_at, along: Minor::ZERO };
            Ok((method.clone(), tax_stands(context, &program, &partner, payout, leaving).await?))
        }
        Err(Unsendable::OtherDetails) => Err(redirected(context, payout, &partner).await?),
        Err(unsendable) => Err(Refusal::Illegal(unsendable.to_string())),
    }
}

/// Refuses to send a payout that tax forbids to pay now. Where something else is to be withheld than was approved, it is brought to that
/// and must be approved anew.
pub async fn tax_stands(
    context: &Context,
    program: &Program,
    partner: &Partner,
    payout: &Payout,
    leaving: Leaving,
) -> Result<Option<Departures>> {
    match tax::valid_for(context, program, partner, payout, leaving).await? {
        Validity::Stands(departures) => Ok(departures),
        Validity::Blocked { why } => Err(Refusal::Illegal(why)),
        Validity::Changed { why, .. } if payout.open().is_none() => {
            Err(Refusal::Illegal(format!("{why}: void it, and its commissions are paid on the new terms")))
        }
        Validity::Changed { terms, why } => Err(taxed_anew(context, &payout.id, &terms, why).await?),
    }
}

/// The refusal of a payout that was about to be sent with another tax than is due, after the payout follows what is due.
async fn taxed_anew(context: &Context, id: &PayoutId, terms: &Terms, why: String) -> Result<Refusal> {
    let step = Step { operation: "tax payout", what: What::SendBack, by: "settlement", why: Some(&why) };
    let now = until_fresh(|| async {
        let payout = load(&context.store, step.operation, id).await?;
        if payout.open().is_none() || terms.withheld(payout.gross()?)? == payout.withheld {
            return Ok(payout);
        }
        let mut pages = context.store.pages(step.operation, id).await?;
        let now = context.now();
        let (mut after, mut changes) = match payout.clone().tax_anew(terms, &pages)? {
            // What is left is worth nothing in the currency that is sent.
            Retallied::Cancelled(after) => {
                let ended = change(context, &payout, after, &Step { what: What::CancelPayout, ..step }).await?;
                return done(context, ended).await;
            }
            Retallied::Stands(after) => {
                let taxed = crate::changes::tax(&context.store, step.operation, &after, &mut pages, now).await?;
                taxed.map_or((after, Vec::new()), |(taxed, change)| (taxed, vec![change]))
            }
        };
        after.entries += 1;
        // Not in the payout's own stream, where its tax follows it like every other line.
        let stream = command_stream(step.what, now, step.by, &changes);
        let mut entry = Entry::new(&stream, 1, now, step.by, step.what);
        entry.why = Some(why.clone());
        let sealed = entry.with_payout(Some(&payout), &after).seal(&mut changes)?;
        after.entry = sealed.at.clone();
        let mut transaction = Transaction::new(step.operation);
        transaction.replace_payout(&after, &payout)?;
        for page in pages.iter().filter(|page| page.lines.iter().any(|line| line.withheld)) {
            transaction.write_page(page)?;
        }
        transaction.change(&changes, &sealed)?;
        commit(context, transaction, step.operation, after).await
    })
    .await?;
    let version = format!("version is now {}", now.content_version);
    Ok(Refusal::Stale(vec![why.clone(), version, format!("it is {}", now.state.as_str())]))
}

/// One conditional write before the first byte leaves; from here on nothing inside changes. What is on its way already may go on: then the
/// outcome of an earlier attempt is not known. Returns where it goes.
pub async fn begin_submit(context: &Context, id: &PayoutId, by: &str) -> Result<(Payout, PayoutMethod)> {
    let step = Step { operation: "begin submit", what: What::BeginSubmit, by, why: None };
    until_fresh(|| async {
        let payout = load(&context.store, step.operation, id).await?;
        if payout.state == PayoutState::Submitting {
            let gone = || Refusal::Illegal("the payout details it was approved for are gone".to_owned());
            let SentTo(details) = payout.goes_to.clone().ok_or_else(gone)?;
            let method = PayoutMethod { kind: payout.method, details, preferred: false, changed: None };
            return Ok((payout, method));
        }
        let now = context.now();
        let (method, departures) = match payout.state {
            PayoutState::Approved => may_be_sent(context, &payout, now).await?,
            from => return Err(PayoutError::Illegal { from, action: PayoutAction::BeginSubmit }.into()),
        };
        let after = payout.clone().begin_submit(&method, now)?;
        Ok((leave(context, &payout, after, &step, departures).await?, method))
    })
    .await
}

/// The rail took it. Saying so again changes nothing.
pub async fn submit(context: &Context, id: &PayoutId, reference: Option<&str>, by: &str) -> Result<Payout> {
    let step = Step { operation: "submit payout", what: What::Submit, by, why: reference };
    let now = context.now();
    transition(context, id, &step, |payout| match payout.state {
        PayoutState::Submitted if payout.reference.as_deref() == reference => Ok(payout),
        // The checks come before `submitting`.
        PayoutState::Approved => Err(PayoutError::Illegal { from: payout.state, action: PayoutAction::Submit }),
        _ => payout.submit(reference, now),
    })
    .await
}

/// A processor took it, under a name of its own. Saying so again changes nothing.
pub async fn taken(context: &Context, id: &PayoutId, processor: &str, by: &str) -> Result<Payout> {
    let step = Step { operation: "submit payout", what: What::Submit, by, why: Some(processor) };
    let now = context.now();
    transition(context, id, &step, |payout| match payout.state {
        PayoutState::Submitting => payout.taken(processor, now),
        // It was taken before, and may be further on by now.
        _ if payout.processor.as_deref() == Some(processor) => Ok(payout),
        from => Err(PayoutError::Illegal { from, action: PayoutAction::Submit }),
    })
    .await
}

/// How much the rail says is paid in all. Saying so again changes nothing; less than before: a payment was undone.
pub async fn report(
    context: &Context,
    id: &PayoutId,
    paid: Minor,
    reference: Option<&str>,
    at: Timestamp,
    by: &str,
) -> Result<Payout> {
    until_fresh(|| async {
        let payout = settled(context, "report", id).await?;
        if payout.paid == paid {
            return Ok(payout);
        }
        let what = if paid < payout.paid { What::Unpay } else { What::MarkPaid };
        let step = Step { operation: "report", what, by, why: reference };
        let after = payout.clone().reported(paid, reference, at)?;
        done(context, change(context, &payout, after, &step).await?).await
    })
    .await
}

/// The rail refused it for good. It goes to the exceptions.
pub async fn fail(context: &Context, id: &PayoutId, why: &str, teller: Teller<'_>) -> Result<Payout> {
    let step = Step { operation: "fail payout", what: What::MarkFailed, by: teller.name(), why: Some(why) };
    transition(context, id, &step, |payout| payout.fail(teller)).await
}

/// The same as a rail said when it was asked about the attempt as seen. It says nothing of where the payout went on to meanwhile: another
/// process may have had it taken, or somebody begun it anew.
pub async fn fail_as_seen(context: &Context, seen: &Payout, why: &str, by: &str) -> Result<Payout> {
    let step = Step { operation: "fail payout", what: What::MarkFailed, by, why: Some(why) };
    as_seen(context, seen, &step, |payout| payout.fail(Teller::Rail(by))).await
}

/// The same of money that came back.
pub async fn come_back_as_seen(context: &Context, seen: &Payout, why: &str, by: &str) -> Result<Payout> {
    let step = Step { operation: "return payout", what: What::MarkReturned, by, why: Some(why) };
    let now = context.now();
    as_seen(context, seen, &step, |payout| payout.come_back(now)).await
}

/// A transition of a payout that is as it was seen; of any other, none.
async fn as_seen(
    context: &Context,
    seen: &Payout,
    step: &Step<'_>,
    apply: impl Fn(Payout) -> Result<Payout, PayoutError>,
) -> Result<Payout> {
    transition(context, &seen.id, step, |payout| {
        if (payout.state, payout.attempts) == (seen.state, seen.attempts) { apply(payout) } else { Ok(payout) }
    })
    .await
}

/// The money came back. It goes to the exceptions.
pub async fn come_back(context: &Context, id: &PayoutId, why: &str, by: &str) -> Result<Payout> {
    let step = Step { operation: "return payout", what: What::MarkReturned, by, why: Some(why) };
    let now = context.now();
    transition(context, id, &step, |payout| payout.come_back(now)).await
}

/// Once more on its way, under the same identity and to the same details.
pub async fn retry(context: &Context, id: &PayoutId, why: &str, by: &str) -> Result<Payout> {
    let step = Step { operation: "retry payout", what: What::Retry, by, why: Some(why) };
    let again = until_fresh(|| async {
        let payout = settled(context, step.operation, id).await?;
        let partner = partner_of(context, step.operation, &payout).await?;
        let program = context.store.program(step.operation, &payout.program).await?;
        let program = program.ok_or(Refusal::NotFound("program"))?;
        if !matches!(payout.state, PayoutState::Failed | PayoutState::Returned) {
            return Err(PayoutError::Illegal { from: payout.state, action: PayoutAction::Retry }.into());
        }
        let now = context.now();
        let method = payout.sendable(&partner, &program, now).map_err(|unsendable| match unsendable {
            Unsendable::OtherDetails => {
                let why = "the payout details changed since: void it, and its commissions are paid to the new ones";
                Refusal::Illegal(why.to_owned())
            }
            other => Refusal::Illegal(other.to_string()),
        })?;
        let leaving = Leaving { at: now, along: Minor::ZERO };
        let departures = tax_stands(context, &program, &partner, &payout, leaving).await?;
        let after = payout.clone().retry(method, now)?;
        leave(context, &payout, after, &step, departures).await
    })
    .await?;
    let sent = if again.is_sent_by_people() {
        hand_over(context, &again).await
    } else {
        context.queues.send_submission(id).await.map(|()| again.clone())
    };
    // It is on its way again, whatever became of that.
    Ok(sent.unwrap_or_else(|error| {
        tracing::warn!(payout = %id, %error, "the next tick has it sent");
        again
    }))
}

/// Goes on with a payout that is on its way again and that people send: they have its file or its details, so it is theirs at once.
pub async fn hand_over(context: &Context, payout: &Payout) -> Result<Payout> {
    submit(context, &payout.id, payout.reference.as_deref(), "settlement").await
}

/// Ends a payout with proof that no money moved: the rail's, or a person's word and reason. Its lines are payable again.
pub async fn void(context: &Context, id: &PayoutId, why: &str, teller: Teller<'_>) -> Result<Payout> {
    let step = Step { operation: "void payout", what: What::VoidPayout, by: teller.name(), why: Some(why) };
    transition(context, id, &step, |payout| payout.void(teller)).await
}

/// Ends a payout of which its rail shows that no money moved, unless it went on since its rail was asked.
pub(crate) async fn void_as_seen(context: &Context, seen: &Payout, why: &str, by: &str) -> Result<Payout> {
    let step = Step { operation: "void payout", what: What::VoidPayout, by, why: Some(why) };
    transition(context, &seen.id, &step, |payout| {
        if (payout.state, payout.attempts) != (seen.state, seen.attempts) {
            return Err(PayoutError::Illegal { from: payout.state, action: PayoutAction::Void });
        }
        payout.void(Teller::Rail(by))
    })
    .await
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
    until_fresh(|| async {
        let payout = settled(context, step.operation, id).await?;
        // The same part under the same reference is the same payment, said twice.
        let is_out = matches!(payout.state, PayoutState::Submitted | PayoutState::PartiallyPaid);
        if is_out && payout.knows_payment(attested.reference, attested.amount) {
            return Ok(payout);
        }
        let after = payout.clone().mark_paid(attested.reference, at, attested.amount)?;
        // Nobody has sent it so far: whoever does now is held to the same as a rail.
        let departures = match payout.state {
            PayoutState::Approved => may_be_sent(context, &payout, at).await?.1,
            _ => None,
        };
        done(context, leave(context, &payout, after, &step, departures).await?).await
    })
    .await
}

async fn load(store: &Store, operation: &'static str, id: &PayoutId) -> Result<Payout> {
    store.payout(operation, id).await?.ok_or(Refusal::NotFound("payout"))
}

/// The payout, after its lines have followed where it went last.
async fn settled(context: &Context, operation: &'static str, id: &PayoutId) -> Result<Payout> {
    let payout = load(&context.store, operation, id).await?;
    if payout.settling.is_some() { follow(context, id).await } else { Ok(payout) }
}

async fn partner_of(context: &Context, operation: &'static str, payout: &Payout) -> Result<Partner> {
    context.store.partner(operation, &payout.partner).await?.ok_or(Refusal::NotFound("partner"))
}

async fn transition(
    context: &Context,
    id: &PayoutId,
    step: &Step<'_>,
    apply: impl Fn(Payout) -> Result<Payout, PayoutError>,
) -> Result<Payout> {
    until_fresh(|| async {
        let payout = settled(context, step.operation, id).await?;
        let after = apply(payout.clone())?;
        if after == payout {
            return Ok(payout);
        }
        done(context, change(context, &payout, after, step).await?).await
    })
    .await
}

/// After a transition: its lines follow.
async fn done(context: &Context, payout: Payout) -> Result<Payout> {
    if payout.settling.is_some() {
        follow_later(context, &payout.id).await;
    }
    Ok(payout)
}

/// Writes a payout's change, and with it the first page of lines that follow it, if any do.
async fn change(context: &Context, before: &Payout, after: Payout, step: &Step<'_>) -> Result<Payout> {
    leave(context, before, after, step, None).await
}

/// The same of a payout that leaves, unless others of the partner departed since that was allowed.
async fn leave(
    context: &Context,
    before: &Payout,
    mut after: Payout,
    step: &Step<'_>,
    departures: Option<Departures>,
) -> Result<Payout> {
    let (mut transaction, now) = (Transaction::new(step.operation), context.now());
    if let Some(departures) = departures {
        transaction.departs(&departures)?;
    }
    after.entries += 1;
    after.trouble = trouble(context, &mut transaction, before, &after, step).await?;
    let mut changes = follow_page(context, step.operation, &mut after, now).await?;
    let mut entry = Entry::new(before.id.as_str(), after.entries, now, step.by, step.what);
    entry.why = step.why.map(str::to_owned);
    let sealed = entry.with_payout(Some(before), &after).seal(&mut changes)?;
    after.entry = sealed.at.clone();
    transaction.replace_payout(&after, before)?;
    transaction.change(&changes, &sealed)?;
    commit(context, transaction, step.operation, after).await
}

async fn commit(context: &Context, transaction: Transaction, operation: &'static str, after: Payout) -> Result<Payout> {
    match context.store.commit(transaction).await {
        Ok(()) => Ok(after),
        // It may be only the answer that was lost.
        Err(error @ StoreError::Unavailable(_)) => {
            let stands = context.store.payout(operation, &after.id).await?;
            if stands.is_some_and(|payout| payout.entry == after.entry) { Ok(after) } else { Err(error.into()) }
        }
        Err(error) => Err(error.into()),
    }
}

/// A payout that fails or comes back is filed for somebody to deal with; that is done once it goes on or ends.
async fn trouble(
    context: &Context,
    transaction: &mut Transaction,
    before: &Payout,
    after: &Payout,
    step: &Step<'_>,
) -> Result<Option<ExceptionId>> {
    let code = match after.state {
        PayoutState::Failed => ExceptionCode::PayoutFailed,
        PayoutState::Returned => ExceptionCode::PayoutReturned,
        _ => {
            if let Some(filed) = &before.trouble {
                let how = format!("the payout is {}", after.state.as_str());
                resolve_in(context, transaction, step.operation, filed, step.by, &how).await?;
            }
            return Ok(None);
        }
    };
    if after.state == before.state {
        return Ok(before.trouble.clone());
    }
    let detail = format!("payout {} is {}: {}", after.id.number(), after.state.as_str(), step.why.unwrap_or_default());
    let about = [after.id.as_str(), &after.entries.to_string()];
    Ok(Some(file_in(context, transaction, code, Some(&after.program), &about, detail)?))
}

/// The next page of lines goes where the payout went.
async fn follow_page(
    context: &Context,
    operation: &'static str,
    payout: &mut Payout,
    now: Timestamp,
) -> Result<Vec<Change>> {
    let Some(number) = payout.settling else { return Ok(Vec::new()) };
    payout.settling = (number + 1 < payout.pages).then_some(number + 1);
    let Some(page) = context.store.page(operation, &payout.id, number).await? else { return Ok(Vec::new()) };
    let ids: Vec<_> = page.lines.iter().map(|line| line.id.clone()).collect();
    let lines = context.store.lines(operation, &ids).await?;
    let at = payout.paid_at.unwrap_or(now);
    // A line that went before a crash is there already; it may even be in another payout by now.
    let waits = |line: &Line| match &line.state {
        LineState::InPayout { payout: of, .. } => *of == payout.id && payout.state.is_end(),
        LineState::Paid { payout: of, .. } => *of == payout.id && !payout.state.is_end(),
        _ => false,
    };
    let lines = lines.into_iter().filter(waits);
    lines.map(|line| Ok(Change::of(line.clone(), line.follow(&payout.id, payout.state, at)?))).collect()
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

/// Gives every open payout of a partner the present payout details: it is approved anew. Safe to repeat; what a crash leaves to be done is
/// done by whoever next approves or sends such a payout.
pub async fn redirect_open(context: &Context, partner: &Partner, by: &str) -> Result<()> {
    let operation = "redirect payouts";
    let mut after: Option<String> = None;
    loop {
        let page = context.store.partner_payouts(operation, &partner.id, after.as_deref(), 100).await?;
        for payout in page.items.iter().filter(|payout| payout.open().is_some()) {
            redirect(context, &payout.id, by).await?;
        }
        after = page.after;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// One payout to the partner's present details, if it is open and goes elsewhere. `None` if nothing changed.
async fn redirect(context: &Context, id: &PayoutId, by: &str) -> Result<Option<Payout>> {
    let step = Step { operation: "redirect payout", what: What::Redirect, by, why: None };
    until_fresh(|| async {
        let payout = load(&context.store, step.operation, id).await?;
        let partner = partner_of(context, step.operation, &payout).await?;
        let as_drafted =
            payout.destination_of(&partner).is_some() || (payout.must_net && partner.payout_methods.is_empty());
        if as_drafted || payout.open().is_none() {
            return Ok(None);
        }
        let pages = context.store.pages(step.operation, id).await?;
        let (Retallied::Stands(after) | Retallied::Cancelled(after)) = payout.clone().redirect(&partner, &pages)?;
        let redirected = change(context, &payout, after, &step).await?;
        done(context, redirected).await.map(Some)
    })
    .await
}

/// The refusal of something that was about to go to details which are not the partner's any more, after the payout follows them.
async fn redirected(context: &Context, payout: &Payout, partner: &Partner) -> Result<Refusal> {
    let method = partner.method(payout.method).or_else(|| partner.preferred_method());
    let by = method.and_then(|method| method.changed.as_ref()).map_or("settlement", |change| change.by.as_str());
    let now = redirect(context, &payout.id, by).await?;
    let mut differences = vec!["the partner's payout details changed".to_owned()];
    if let Some(now) = now {
        let version = format!("version is {}, not {}", now.content_version, payout.content_version);
        differences.extend([version, format!("it is {}", now.state.as_str())]);
    }
    Ok(Refusal::Stale(differences))
}
