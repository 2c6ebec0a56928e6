//! A partner's balance, and why what is in it is not paid yet.

use domain::balance::{Balance, Bucket, NotPayable, Standing, not_payable_because};
use domain::line::StateName;
use domain::money::Minor;
use domain::program::{Partner, PartnerStatus, Program};
use domain::rules::RuleSet;
use domain::tax;
use jiff::Timestamp;

use crate::context::Context;
use crate::error::Result;
use crate::sales::Sales;

const OPERATION: &str = "balance";
/// How many of the newest lines are looked through for the next to mature.
const NEXT_DUE_LINES: usize = 500;

#[derive(Debug, Clone)]
pub struct PartnerBalance {
    pub balance: Balance,
    pub not_payable_because: Vec<NotPayable>,
    /// How much of what is payable too few sales hold back.
    pub blocked: Minor,
}

pub async fn of(context: &Context, program: &Program, partner: &Partner) -> Result<PartnerBalance> {
    let balance = context.store.balance(OPERATION, &partner.id, program.currency).await?;
    let sales = if balance.amount(Bucket::Payable).is_zero() && balance.lines(StateName::Payable) == 0 {
        Sales::default()
    } else {
        blocked(context, program, partner).await?
    };
    let waiting = !balance.amount(Bucket::Approved).is_zero();
    let method = partner.preferred_method().map(|method| method.kind);
    let payable = balance.amount(Bucket::Payable).is_positive();
    let tax = if payable { crate::tax::terms(context, program, partner, method).await? } else { tax::Terms::Clear };
    let standing = Standing {
        currency: program.currency,
        suspended: partner.status == PartnerStatus::Suspended,
        has_method: method.is_some(),
        tax,
        minimum: partner.minimum_payout_in(program),
        next_run: program.next_run(context.now()),
        next_due: if waiting { next_due(context, partner).await? } else { None },
        blocked: sales.blocked,
        missing_sales: sales.missing,
    };
    let not_payable_because = not_payable_because(&balance, &standing)?;
    Ok(PartnerBalance { balance, not_payable_because, blocked: sales.blocked })
}

/// Nothing is read where neither the program nor any of its rules asks for minimum sales.
async fn blocked(context: &Context, program: &Program, partner: &Partner) -> Result<Sales> {
    let asks = |set: &RuleSet| set.draft.rules.iter().any(|rule| rule.minimum_sales.is_some_and(|count| count > 0));
    if program.minimum_sales == 0 && !context.store.rule_sets(OPERATION, &program.id).await?.iter().any(asks) {
        return Ok(Sales::default());
    }
    let mut payable = context.store.payable_lines(OPERATION, &partner.id).await?;
    payable.retain(|line| line.state.name() == StateName::Payable);
    crate::sales::of(context, OPERATION, program, partner, &payable).await
}

/// Waiting lines are among the newest, since a hold period is a matter of weeks.
async fn next_due(context: &Context, partner: &Partner) -> Result<Option<Timestamp>> {
    let (lines, _) = context.store.partner_lines(OPERATION, partner, None, NEXT_DUE_LINES).await?;
    Ok(lines.iter().filter(|line| line.state.name() == StateName::Approved).map(|line| line.due_at).min())
}
