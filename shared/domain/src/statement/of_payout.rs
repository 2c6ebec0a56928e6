//! What one payout is made of, and a receipt for what was paid of it.

use jiff::Timestamp;

use super::{MovementKind, PayoutStep, movements};
use crate::explain::brief;
use crate::ids::LineId;
use crate::line::{Line, LineKind};
use crate::money::{Minor, Money, MoneyError};
use crate::payout::{Payout, PayoutState};
use crate::rules::Rule;

/// When it was decided about a partner, and how far that reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    pub at: Timestamp,
    pub cut_off: Timestamp,
    /// Whether lines due at the cut-off itself are within.
    pub inclusive: bool,
}

impl Decided {
    /// Whether a line stood ready then, so that it was paid, or carried over.
    fn reached(&self, line: &Line) -> bool {
        let ready = line.created_at.max(line.approved_at.unwrap_or(line.created_at));
        let due = line.due_at < self.cut_off || (self.inclusive && line.due_at == self.cut_off);
        ready < self.at && (due || line.amount.is_negative())
    }
}

/// A payout's amount in its parts, each signed as it moves the amount:
/// `earnings + taken_back + carried_over + withheld` is what is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakdown {
    /// When it was last decided about the partner before this payout; `None`: never.
    pub since: Option<Timestamp>,
    pub until: Timestamp,
    pub earnings: Minor,
    pub taken_back: Minor,
    /// What stood ready when it was last decided about the partner and was not paid then: earnings below the minimum, or a debt.
    pub carried_over: Minor,
    pub withheld: Minor,
    pub lines: Vec<ClaimedRow>,
}

/// One line of a payout, as it is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedRow {
    pub line: LineId,
    pub occurred_at: Timestamp,
    pub order: Option<String>,
    pub kind: LineKind,
    pub amount: Minor,
    /// Zero or less.
    pub taken_back: Minor,
    pub net: Minor,
    pub carried_over: bool,
    /// One sentence.
    pub reason: String,
}

impl Breakdown {
    /// `decided` is when the payout itself was decided, `last` the time before.
    pub const fn new(decided: &Decided, last: Option<&Decided>) -> Self {
        Self {
            since: match last {
                Some(last) => Some(last.cut_off),
                None => None,
            },
            until: decided.cut_off,
            earnings: Minor::ZERO,
            taken_back: Minor::ZERO,
            carried_over: Minor::ZERO,
            withheld: Minor::ZERO,
            lines: Vec::new(),
        }
    }

    /// Takes in a line as it is, or was, in the payout. `rule` is the one that made it, `why` what the person said who wrote it.
    pub fn add(
        &mut self,
        line: &Line,
        last: Option<&Decided>,
        rule: Option<&Rule>,
        why: Option<&str>,
    ) -> Result<(), MoneyError> {
        let net = line.net()?;
        if line.kind == LineKind::Withholding {
            self.withheld = self.withheld.plus(net)?;
            return Ok(());
        }
        let carried_over = last.is_some_and(|last| last.reached(line));
        let taken_back = line.taken_back.negated();
        if carried_over {
            self.carried_over = self.carried_over.plus(net)?;
        } else if line.amount.is_negative() {
            self.taken_back = self.taken_back.plus(net)?;
        } else {
            self.earnings = self.earnings.plus(line.amount)?;
            self.taken_back = self.taken_back.plus(taken_back)?;
        }
        let mut reason = brief(line, rule, why);
        if !taken_back.is_zero() {
            reason = format!("{reason}; refunds took back {}", Money::new(line.taken_back, line.currency));
        }
        self.lines.push(ClaimedRow {
            line: line.id.clone(),
            occurred_at: line.occurred_at,
            order: line.order.clone(),
            kind: line.kind,
            amount: line.amount,
            taken_back,
            net,
            carried_over,
            reason: super::sentence(&reason),
        });
        Ok(())
    }

    pub fn total(&self) -> Result<Minor, MoneyError> {
        Minor::total([self.earnings, self.taken_back, self.carried_over, self.withheld])
    }
}

/// A receipt for one payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Counts the payout's payments from 1.
    pub number: usize,
    pub paid: Money,
    /// When it was made, else when it was told.
    pub at: Timestamp,
    pub reference: Option<String>,
    /// What of the payout had been paid with it.
    pub paid_so_far: Money,
    pub open: Money,
    /// When that payment, or one after it, came back.
    pub came_back: Option<Timestamp>,
}

impl Receipt {
    /// One for every payment of a payout that was ever told, by its entries, oldest first.
    pub fn all(payout: &Payout, steps: &[PayoutStep]) -> Result<Vec<Self>, MoneyError> {
        let whole = payout.pays()?;
        let money = |amount| Money::new(amount, whole.currency);
        let mut receipts: Vec<Self> = Vec::new();
        let mut so_far = Minor::ZERO;
        for movement in movements(payout, steps, 0, steps.len())? {
            match movement.kind {
                MovementKind::Payment => {
                    so_far = so_far.plus(movement.money.amount)?;
                    receipts.push(Self {
                        number: receipts.len() + 1,
                        paid: movement.money,
                        at: movement.made_at.unwrap_or(movement.at),
                        reference: movement.reference,
                        paid_so_far: money(so_far),
                        open: money(whole.amount.minus(so_far)?),
                        came_back: None,
                    });
                }
                MovementKind::PaymentReturned => {
                    so_far = so_far.minus(movement.money.amount)?;
                    // What came back is the latest first, as far as it reaches.
                    for receipt in receipts.iter_mut().filter(|receipt| receipt.came_back.is_none()) {
                        if receipt.paid_so_far.amount > so_far {
                            receipt.came_back = Some(movement.at);
                        }
                    }
                }
                MovementKind::TaxWithheld | MovementKind::TaxGivenBack => {}
            }
        }
        Ok(receipts)
    }
}

/// Why a payout failed or came back, by its entries, if that is how it stands.
impl PayoutStep {
    pub fn failure(steps: &[Self]) -> Option<&Self> {
        let last = steps.last()?;
        matches!(last.state, PayoutState::Failed | PayoutState::Returned).then_some(())?;
        let began = steps.iter().rposition(|step| step.state != last.state).map_or(0, |before| before + 1);
        steps.get(began)
    }
}
