//! Instant payouts: to trusted partners of programs that pay instantly, as soon as something becomes payable to them. Approval of lines,
//! hold periods and minimums hold as everywhere.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::balance::Bucket;
use domain::ids::{LineId, PartnerId, PayoutId, RunId};
use domain::journal::Entry;
use domain::line::{Line, StateName};
use domain::program::{Frequency, Partner, PartnerStatus, Program};
use domain::selection::CarriedBecause;
use jiff::{SignedDuration, Timestamp};
use store::{Outcome, Run};

use crate::context::Context;
use crate::draft::draft;
use crate::error::{Refusal, Result};
use crate::queues::DraftRequest;
use crate::runs::{not_payable, run_of_one};

const OPERATION: &str = "instant";
const DRAFTER: &str = "draft-payout";
/// Payable lines looked through for one that an instant payout can be named by.
const NAMING_LINES: usize = 200;
/// How long a program that does not pay instantly is taken not to.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(1);
const MOST_REMEMBERED: usize = 10_000;
/// Partners looked at in one go.
const PAGE: i32 = 100;

/// Partners whose programs do not pay instantly, remembered for a minute: most journal entries are about them. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Others(Arc<Mutex<HashMap<PartnerId, Timestamp>>>);

impl Others {
    fn known(&self) -> MutexGuard<'_, HashMap<PartnerId, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the partner is to be paid instantly.
async fn is_paid_instantly(context: &Context, id: &PartnerId) -> Result<bool> {
    let now = context.now();
    let since = context.others.known().get(id).copied();
    if since.is_some_and(|since| now.duration_since(since) < REMEMBERED) {
        return Ok(false);
    }
    let Some(partner) = context.store.partner(OPERATION, id).await? else { return Ok(false) };
    let Some(program) = context.store.program(OPERATION, &partner.program).await? else { return Ok(false) };
    if program.schedule.frequency != Frequency::Instant {
        let mut known = context.others.known();
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(id.clone(), now);
    }
    Ok(is_instant(&program, &partner))
}

/// Asks for instant payouts where a journal entry made something payable. Asking twice is harmless. What left a payout does not count: somebody
/// took it out, or ended the payout.
pub async fn ask(context: &Context, entry: &Entry) -> Result<()> {
    let became_payable = entry.lines.iter().filter(|line| {
        let from = line.from.as_ref().map(|from| from.state);
        let came = !matches!(from, Some(StateName::Payable | StateName::InPayout));
        came && line.to.state == StateName::Payable && line.to.net.is_positive()
    });
    let mut asked = BTreeSet::new();
    let mut requests = Vec::new();
    for line in became_payable {
        let partner = line.id.partner();
        if asked.insert(partner.clone()) && is_paid_instantly(context, &partner).await? {
            requests.push(DraftRequest::Instant { line: line.id.clone() });
        }
    }
    context.queues.send_drafts(&requests).await
}

/// Pays a trusted partner of an instant program everything payable, because a line became payable. Where it is not paid, nothing is written;
/// the tick asks again.
pub async fn pay(context: &Context, line: &LineId) -> Result<()> {
    let store = &context.store;
    let partner = store.partner(OPERATION, &line.partner()).await?.ok_or(Refusal::NotFound("partner"))?;
    let program = store.program(OPERATION, &partner.program).await?.ok_or(Refusal::NotFound("program"))?;
    if !is_instant(&program, &partner) {
        return Ok(());
    }
    let now = context.now();
    let kind = Frequency::Instant.name();
    let id = RunId::derive(&program.id, kind, line.as_str());
    let run = match store.run(OPERATION, &id).await? {
        Some(started) => started,
        None => Run {
            pay_on: program.pay_on(program.date_of(now)),
            ..run_of_one(context, &partner, id, kind, line.as_str())
        },
    };
    match draft(context, &run, &partner.id, DRAFTER).await? {
        // What is being drafted was chosen before; this line is not in it.
        Outcome::Carried { because: because @ CarriedBecause::DraftInProgress, .. } => Err(not_payable(because)),
        outcome => {
            tracing::info!(run = %run.id, partner = %partner.id, ?outcome, "decided");
            Ok(())
        }
    }
}

fn is_instant(program: &Program, partner: &Partner) -> bool {
    program.schedule.frequency == Frequency::Instant && partner.trusted
}

/// Asks for an instant payout wherever something is payable to a trusted partner that was never in a payout: it could not be paid when it
/// became payable. What a person took out of a payout, or a payout that somebody cancelled, is not drafted again by itself. Whether it
/// came to the end.
pub async fn sweep(
    context: &Context,
    program: &Program,
    time_left: &impl Fn() -> bool,
    asked: &mut usize,
) -> Result<bool> {
    let mut after: Option<String> = None;
    loop {
        if !time_left() {
            return Ok(false);
        }
        let page = context.store.partners(OPERATION, &program.id, after.as_deref(), PAGE).await?;
        let mut requests = Vec::new();
        for partner in page.items.iter().filter(|partner| is_instant(program, partner)) {
            let line = unpaid_instantly(context, program, partner).await?;
            requests.extend(line.map(|line| DraftRequest::Instant { line }));
        }
        context.queues.send_drafts(&requests).await?;
        *asked += requests.len();
        after = page.after;
        if after.is_none() {
            return Ok(true);
        }
    }
}

/// The line to name an instant payout by, if there is anything to be paid to the partner.
async fn unpaid_instantly(context: &Context, program: &Program, partner: &Partner) -> Result<Option<LineId>> {
    let store = &context.store;
    let balance = store.balance(OPERATION, &partner.id, program.currency).await?;
    let payable = balance.amount(Bucket::Payable);
    let payable_to = partner.status == PartnerStatus::Active && partner.preferred_method().is_some();
    let enough = payable.is_positive() && payable >= partner.minimum_payout_in(program);
    // What nets to zero is settled without a method.
    let nets = payable.is_zero() && balance.lines(StateName::Payable) > 1;
    if !(enough && payable_to || nets) {
        return Ok(None);
    }
    let never_in_a_payout = |line: &Line| line.entry.stream.parse::<PayoutId>().is_err();
    for line in store.payable_lines(OPERATION, &partner.id, NAMING_LINES).await? {
        if never_in_a_payout(&line) {
            let run = RunId::derive(&program.id, Frequency::Instant.name(), line.id.as_str());
            if store.run(OPERATION, &run).await?.is_none() {
                return Ok(Some(line.id));
            }
        }
    }
    Ok(None)
}
