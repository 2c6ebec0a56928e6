//! A partner's balance, and why what is in it is not paid yet: as a whole, and line by line.

use std::collections::{BTreeMap, BTreeSet};

use domain::balance::{Balance, Bucket, NotPayable, Reason, Standing, line_not_payable_because, not_payable_because};
use domain::ids::LineId;
use domain::line::{Line, StateName};
use domain::money::Minor;
use domain::payout::PayoutState;
use domain::program::{Partner, PartnerStatus, Program};
use domain::rules::RuleSet;
use domain::selection::MAX_LINES;
use domain::tax;
use jiff::civil::Date;
use store::Store;

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::sales::Sales;

const OPERATION: &str = "balance";
/// How many of the newest lines are looked through for the next to mature.
const NEXT_DUE_LINES: usize = 500;
/// How many of the newest payouts are looked through for the first that is to be paid.
const UNDER_WAY: i32 = 10;
const PAGE: usize = 50;

#[derive(Debug, Clone)]
pub struct PartnerBalance {
    pub balance: Balance,
    pub not_payable_because: Vec<NotPayable>,
    /// How much of what is payable too few sales hold back.
    pub blocked: Minor,
}

pub async fn of(context: &Context, program: &Program, partner: &Partner) -> Result<PartnerBalance> {
    let balance = context.store.balance(OPERATION, &partner.id, program.currency).await?;
    let mut standing = standing(context, program, partner, &balance).await?;
    if !balance.amount(Bucket::Approved).is_zero() {
        let waiting = waiting_lines(context, OPERATION, partner, &balance, NEXT_DUE_LINES).await?;
        standing.next_due = waiting.iter().map(|line| line.due_at).min();
    }
    // Else a payout is to be paid on the day it is drafted, which is past.
    if program.schedule.pay_days > 0 && balance.lines(StateName::InPayout) > 0 {
        standing.pay_on = pay_on(&context.store, partner).await?;
    }
    let not_payable_because = not_payable_because(&balance, &standing)?;
    Ok(PartnerBalance { balance, not_payable_because, blocked: standing.blocked })
}

/// What decides about payable money.
async fn standing(context: &Context, program: &Program, partner: &Partner, balance: &Balance) -> Result<Standing> {
    let none_payable = balance.amount(Bucket::Payable).is_zero() && balance.lines(StateName::Payable) == 0;
    let sales = if none_payable { Sales::default() } else { blocked(context, program, partner).await? };
    let method = partner.preferred_method().map(|method| method.kind);
    let payable = balance.amount(Bucket::Payable).is_positive();
    let tax = if payable { crate::tax::terms(context, program, partner, method).await? } else { tax::Terms::Clear };
    Ok(Standing {
        currency: program.currency,
        suspended: partner.status == PartnerStatus::Suspended,
        has_method: method.is_some(),
        tax,
        minimum: partner.minimum_payout_in(program),
        next_run: program.next_run(context.now()).map(|run| run.date),
        next_due: None,
        pay_on: None,
        blocked: sales.blocked,
        missing_sales: sales.missing,
        sales: sales.count,
        minimum_sales: program.minimum_sales,
    })
}

/// Nothing is read where neither the program nor any of its rules asks for minimum sales.
async fn blocked(context: &Context, program: &Program, partner: &Partner) -> Result<Sales> {
    let asks = |set: &RuleSet| set.draft.rules.iter().any(|rule| rule.minimum_sales.is_some_and(|count| count > 0));
    if program.minimum_sales == 0 && !context.store.rule_sets(OPERATION, &program.id).await?.iter().any(asks) {
        return Ok(Sales::default());
    }
    let payable = context.store.payable_lines(OPERATION, &partner.id, MAX_LINES).await?;
    crate::sales::of(context, OPERATION, program, partner, &payable, context.now()).await
}

/// Lines whose hold period is running. They are among the newest, since a hold period is a matter of weeks; the balance tells when all are
/// found, and at most so many lines are looked at.
pub(crate) async fn waiting_lines(
    context: &Context,
    operation: &'static str,
    partner: &Partner,
    balance: &Balance,
    most: usize,
) -> Result<Vec<Line>> {
    let expected = usize::try_from(balance.lines(StateName::Approved)).unwrap_or_default();
    let (mut waiting, mut looked_at, mut after) = (Vec::new(), 0, None);
    while waiting.len() < expected && looked_at < most {
        let (lines, next) = context.store.partner_lines(operation, partner, after.as_ref(), PAGE).await?;
        looked_at += lines.len();
        waiting.extend(lines.into_iter().filter(|line| line.state.name() == StateName::Approved));
        after = next;
        if after.is_none() {
            break;
        }
    }
    Ok(waiting)
}

async fn pay_on(store: &Store, partner: &Partner) -> Result<Option<Date>> {
    let payouts = store.partner_payouts(OPERATION, &partner.id, None, UNDER_WAY).await?.items;
    let ended = |state| matches!(state, PayoutState::Paid | PayoutState::Cancelled | PayoutState::Void);
    Ok(payouts.iter().filter(|payout| !ended(payout.state)).filter_map(|payout| payout.pay_on).min())
}

/// Why each of these lines is not paid yet; of lines that are paid, or never will be, nothing is said. What is read depends on how many
/// partners and payouts they are of, not on how many lines.
pub async fn reasons_of_lines(context: &Context, lines: &[Line]) -> Result<BTreeMap<LineId, Reason>> {
    let store = &context.store;
    let in_state = |state| lines.iter().filter(move |line| line.state.name() == state);
    let payouts: BTreeSet<_> =
        in_state(StateName::InPayout).filter_map(|line| line.payout()).map(|(id, _)| id).collect();
    let payouts: Vec<_> = payouts.into_iter().cloned().collect();
    let payouts = store.payouts(OPERATION, &payouts).await?;
    let pay_on: BTreeMap<_, _> = payouts.iter().map(|payout| (&payout.id, payout.pay_on)).collect();
    let partners: BTreeSet<_> = in_state(StateName::Payable).map(|line| &line.partner).collect();
    let partners: Vec<_> = partners.into_iter().cloned().collect();
    let mut standings = BTreeMap::new();
    let mut programs: BTreeMap<_, Program> = BTreeMap::new();
    for partner in store.partners_by_id(OPERATION, &partners).await? {
        if !programs.contains_key(&partner.program) {
            let program = store.program(OPERATION, &partner.program).await?.ok_or(Refusal::NotFound("program"))?;
            programs.insert(partner.program.clone(), program);
        }
        let Some(program) = programs.get(&partner.program) else { continue };
        let balance = store.balance(OPERATION, &partner.id, program.currency).await?;
        let standing = standing(context, program, &partner, &balance).await?;
        let free = balance.amount(Bucket::Payable).minus(standing.blocked)?;
        standings.insert(partner.id, (standing, free));
    }
    let mut reasons = BTreeMap::new();
    for line in lines {
        let until = match line.state.name() {
            StateName::InPayout => line.payout().and_then(|(payout, _)| *pay_on.get(payout)?),
            StateName::Payable => {
                let program = programs.get(&line.program);
                program.and_then(|program| program.next_run_with(line.due_at, context.now())).map(|run| run.date)
            }
            _ => None,
        };
        let of_partner = standings.get(&line.partner).map(|(standing, free)| (standing, *free));
        let reason = line_not_payable_because(line, of_partner, until)?;
        reasons.extend(reason.map(|reason| (line.id.clone(), reason)));
    }
    Ok(reasons)
}
