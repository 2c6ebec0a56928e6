//! Statements: what a partner was owed at the start, earned, had taken back, was paid, and is owed now; and what one payout is made of.
//!
//! What is **owed** at a moment is what was left at it of every line that was not declined, less what had been paid and the tax kept
//! back of it: in review, in the hold period, held, ready and being paid alike. A month's opening is what was owed when it began, its
//! closing what was owed when it ended.
//!
//! All of it is told by the journal, and an entry belongs to the month in which it was *written*. That a payment was made, or a sale
//! happened, some days before it was told, changes the month in which it was told, and never one that is closed. So a closed
//! month's statement is the same for ever, and its closing is the next one's opening.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::explain::brief;
use crate::ids::{LineId, PayoutId};
use crate::journal::{Entry, EntryRef, LineFacts, What};
use crate::line::{Line, LineKind, StateName};
use crate::money::{Currency, Minor, Money, MoneyError};
use crate::payout::{Payout, PayoutState};
use crate::rules::Rule;

/// Clauses in one line's reason; what happened to it more often is counted.
const MAX_CLAUSES: usize = 4;

/// A month of a calendar, written `2026-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(Date);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a month like 2026-01")]
pub struct BadMonth(String);

impl FromStr for Month {
    type Err = BadMonth;

    fn from_str(text: &str) -> Result<Self, BadMonth> {
        let bad = || BadMonth(text.chars().take(20).collect());
        let (year, month) = text.split_once('-').ok_or_else(bad)?;
        let plain = |part: &str, digits| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(year, 4) || !plain(month, 2) {
            return Err(bad());
        }
        let (year, month) = (year.parse().map_err(|_| bad())?, month.parse().map_err(|_| bad())?);
        Date::new(year, month, 1).map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

impl Month {
    /// The month that a moment is in.
    pub fn of(moment: Timestamp, zone: &TimeZone) -> Self {
        Self(moment.to_zoned(zone.clone()).date().first_of_month())
    }

    pub fn year(self) -> i16 {
        self.0.year()
    }

    /// `None` at the end of the calendar.
    pub fn next(self) -> Option<Self> {
        self.0.last_of_month().tomorrow().ok().map(Self)
    }

    /// From its first midnight to the next month's.
    pub fn period(self, zone: &TimeZone) -> Option<Period> {
        let midnight = |month: Self| month.0.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
        Some(Period { from: midnight(self)?, until: midnight(self.next()?)? })
    }
}

/// Of which entries a statement tells: `until` is outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// One entry about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineStep {
    pub at: Timestamp,
    pub what: What,
    pub why: Option<String>,
    /// How it left the line.
    pub facts: LineFacts,
}

impl LineStep {
    /// What an entry says of a line, and the line's entry before it. `None`: nothing.
    pub fn of(entry: &Entry, line: &LineId) -> Option<(Self, Option<EntryRef>)> {
        let change = entry.lines.iter().find(|change| change.id == *line)?;
        let step = Self { at: entry.at, what: entry.what, why: entry.why.clone(), facts: change.to.clone() };
        Some((step, change.after.clone()))
    }
}

/// One entry about a payout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayoutStep {
    pub at: Timestamp,
    pub what: What,
    pub why: Option<String>,
    pub state: PayoutState,
    /// What is sent, after tax.
    pub amount: Minor,
    pub withheld: Minor,
    /// So far, in the currency it is paid in.
    pub paid: Minor,
    /// When the whole was paid, as it was told.
    pub paid_at: Option<Timestamp>,
}

impl PayoutStep {
    /// What an entry says of a payout. `None`: nothing.
    pub fn of(entry: &Entry, payout: &PayoutId) -> Option<Self> {
        let change = entry.payouts.iter().find(|change| change.id == *payout)?;
        Some(Self {
            at: entry.at,
            what: entry.what,
            why: entry.why.clone(),
            state: change.to,
            amount: change.amount,
            withheld: change.tax.as_ref().map_or(Minor::ZERO, |tax| tax.withheld),
            paid: change.paid,
            paid_at: change.paid_at,
        })
    }

    /// How much money is out, in the currency it is paid in.
    const fn out(&self) -> Minor {
        match self.state {
            PayoutState::Cancelled | PayoutState::Void | PayoutState::Returned => Minor::ZERO,
            _ => self.paid,
        }
    }

    /// How much of what was owed it settled: by payment, and by tax. Tax is kept back when the whole is paid.
    fn settled(&self, payout: &Payout) -> Result<(Minor, Minor), MoneyError> {
        if self.state == PayoutState::Paid {
            return Ok((self.amount, self.withheld));
        }
        let whole = match &payout.conversion {
            Some(rate) => rate.convert(self.amount)?.amount,
            None => self.amount,
        };
        let part = self.amount.proportion(self.out().units().into(), whole.units().into())?;
        Ok((part, Minor::ZERO))
    }
}

/// How many of the steps had been taken before a moment: all up to the last one that was. Clocks differ by moments from machine to
/// machine; what counts is the order of the chain.
fn before<T>(steps: &[T], at: impl Fn(&T) -> Timestamp, moment: Timestamp) -> usize {
    steps.iter().rposition(|step| at(step) < moment).map_or(0, |last| last + 1)
}

/// What a line is in what is owed.
fn owed(facts: Option<&LineFacts>) -> Minor {
    facts.filter(|facts| facts.state != StateName::Rejected).map_or(Minor::ZERO, |facts| facts.net)
}

/// A month of a partner's account. Every amount is signed as it moves what is owed, so that
/// `opening + earned + taken_back + paid + withheld = closing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub period: Period,
    pub currency: Currency,
    pub opening: Minor,
    pub earned: Minor,
    pub taken_back: Minor,
    pub paid: Minor,
    pub withheld: Minor,
    pub closing: Minor,
    pub of_closing: Parts,
    /// Every line whose amount moved, in the order in which that began.
    pub lines: Vec<Row>,
    /// In order.
    pub payments: Vec<Movement>,
}

/// Where what is owed stands; they sum to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    pub in_review: Minor,
    /// The hold period runs.
    pub waiting: Minor,
    pub held: Minor,
    pub ready: Minor,
    /// In a payout, and not yet paid.
    pub being_paid: Minor,
}

/// What happened to one line within the period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub at: Timestamp,
    pub line: LineId,
    pub order: Option<String>,
    pub kind: LineKind,
    /// What was added, zero or more.
    pub earned: Minor,
    /// What was taken away, zero or less.
    pub taken_back: Minor,
    /// At the end of the period.
    pub state: StateName,
    /// When its hold period ends, where it waits for that.
    pub until: Option<Timestamp>,
    /// One sentence.
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MovementKind {
    Payment,
    /// A payment came back, or was undone.
    PaymentReturned,
    TaxWithheld,
    TaxGivenBack,
}

/// Money, or tax, that went to or came from the partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// When it was told.
    pub at: Timestamp,
    pub kind: MovementKind,
    pub payout: PayoutId,
    pub reference: Option<String>,
    /// When it was made, where that was told.
    pub made_at: Option<Timestamp>,
    /// What it did to what is owed.
    pub change: Minor,
    /// What was sent or came back, in the currency it was sent in; always positive. Of tax: how much.
    pub money: Money,
}

/// What moved with each of a payout's entries from one to another; the one at `from` is within.
fn movements(payout: &Payout, steps: &[PayoutStep], from: usize, until: usize) -> Result<Vec<Movement>, MoneyError> {
    let sent_in = payout.pays()?.currency;
    let mut found = Vec::new();
    for n in from..until {
        let Some(step) = steps.get(n) else { continue };
        let earlier = n.checked_sub(1).and_then(|earlier| steps.get(earlier));
        let (paid, tax) = step.settled(payout)?;
        let (paid_before, tax_before) =
            earlier.map_or(Ok((Minor::ZERO, Minor::ZERO)), |earlier| earlier.settled(payout))?;
        let sent = step.out().minus(earlier.map_or(Minor::ZERO, PayoutStep::out))?;
        let mut push = |kind, change: Minor, money: Money| {
            if !change.is_zero() || !money.amount.is_zero() {
                found.push(Movement {
                    at: step.at,
                    kind,
                    payout: payout.id.clone(),
                    reference: step.why.clone().filter(|_| kind == MovementKind::Payment),
                    made_at: step.paid_at.filter(|_| kind == MovementKind::Payment),
                    change,
                    money,
                });
            }
        };
        let size = |amount: Minor| if amount.is_negative() { amount.negated() } else { amount };
        let (change, tax_change) = (paid_before.minus(paid)?, tax_before.minus(tax)?);
        let kind = if sent.is_negative() { MovementKind::PaymentReturned } else { MovementKind::Payment };
        push(kind, change, Money::new(size(sent), sent_in));
        let kind = if tax_change.is_negative() { MovementKind::TaxWithheld } else { MovementKind::TaxGivenBack };
        push(kind, tax_change, Money::new(size(tax_change), payout.currency));
    }
    Ok(found)
}

impl Statement {
    /// Of a partner of whom nothing is known yet.
    pub fn new(period: Period, currency: Currency) -> Self {
        Self {
            period,
            currency,
            opening: Minor::ZERO,
            earned: Minor::ZERO,
            taken_back: Minor::ZERO,
            paid: Minor::ZERO,
            withheld: Minor::ZERO,
            closing: Minor::ZERO,
            of_closing: Parts::default(),
            lines: Vec::new(),
            payments: Vec::new(),
        }
    }

    /// Takes in a line of the partner's, by its entries up to the end of the period and, oldest first, from any of before it on. Those of
    /// after it change nothing. `rule` is the one that made it.
    pub fn add_line(&mut self, line: &Line, steps: &[LineStep], rule: Option<&Rule>) -> Result<(), MoneyError> {
        // It is told by its payout.
        if line.kind == LineKind::Withholding {
            return Ok(());
        }
        let at = |step: &LineStep| step.at;
        let (open, close) = (before(steps, at, self.period.from), before(steps, at, self.period.until));
        let facts = |step: usize| step.checked_sub(1).and_then(|step| steps.get(step)).map(|step| &step.facts);
        let (was, is) = (owed(facts(open)), owed(facts(close)));
        self.opening = self.opening.plus(was)?;
        self.closing = self.closing.plus(is)?;
        let Some(now) = facts(close) else { return Ok(()) };
        let part = match now.state {
            StateName::Pending => &mut self.of_closing.in_review,
            StateName::Approved => &mut self.of_closing.waiting,
            StateName::Held => &mut self.of_closing.held,
            StateName::Payable => &mut self.of_closing.ready,
            // Nothing is owed for the last two.
            StateName::InPayout | StateName::Paid | StateName::Reversed | StateName::Rejected => {
                &mut self.of_closing.being_paid
            }
        };
        *part = part.plus(is)?;
        let within = steps.get(open..close).unwrap_or_default();
        let is_new = open == 0;
        let mut row = Row {
            at: line.created_at,
            line: line.id.clone(),
            order: line.order.clone(),
            kind: line.kind,
            earned: Minor::ZERO,
            taken_back: Minor::ZERO,
            state: now.state,
            until: (now.state == StateName::Approved).then_some(line.due_at),
            reason: String::new(),
        };
        let mut moves = Vec::new();
        let mut last = was;
        for step in within {
            let change = owed(Some(&step.facts)).minus(last)?;
            last = owed(Some(&step.facts));
            if change.is_negative() {
                row.taken_back = row.taken_back.plus(change)?;
            } else {
                row.earned = row.earned.plus(change)?;
            }
            if !change.is_zero() {
                moves.push((step, change));
            }
        }
        let first = if is_new { within.first() } else { moves.first().map(|(step, _)| *step) };
        let Some(first) = first else { return Ok(()) };
        row.at = first.at;
        row.reason = reason(line, now, is_new.then_some(first), &moves, rule)?;
        self.earned = self.earned.plus(row.earned)?;
        self.taken_back = self.taken_back.plus(row.taken_back)?;
        self.lines.push(row);
        Ok(())
    }

    /// Takes in a payout to the partner, by all its entries, oldest first.
    pub fn add_payout(&mut self, payout: &Payout, steps: &[PayoutStep]) -> Result<(), MoneyError> {
        let at = |step: &PayoutStep| step.at;
        let (open, close) = (before(steps, at, self.period.from), before(steps, at, self.period.until));
        let settled = |step: usize| match step.checked_sub(1).and_then(|step| steps.get(step)) {
            Some(step) => step.settled(payout).and_then(|(paid, tax)| paid.plus(tax)),
            None => Ok(Minor::ZERO),
        };
        let (was, is) = (settled(open)?, settled(close)?);
        self.opening = self.opening.minus(was)?;
        self.closing = self.closing.minus(is)?;
        // Of its lines this much is no longer being paid, whether or not they have followed it yet.
        self.of_closing.being_paid = self.of_closing.being_paid.minus(is)?;
        for movement in movements(payout, steps, open, close)? {
            let sum = match movement.kind {
                MovementKind::Payment | MovementKind::PaymentReturned => &mut self.paid,
                MovementKind::TaxWithheld | MovementKind::TaxGivenBack => &mut self.withheld,
            };
            *sum = sum.plus(movement.change)?;
            self.payments.push(movement);
        }
        Ok(())
    }

    /// Whatever order its parts came in.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.lines.sort_by(|a, b| (a.at, &a.line).cmp(&(b.at, &b.line)));
        // Stable: tax follows its payment.
        self.payments.sort_by(|a, b| (a.at, &a.payout).cmp(&(b.at, &b.payout)));
        self
    }
}

/// Why a line's amount is or became what it is, in one sentence. `made` is the step that wrote it, if that is within the period.
fn reason(
    line: &Line,
    now: &LineFacts,
    made: Option<&LineStep>,
    moves: &[(&LineStep, Minor)],
    rule: Option<&Rule>,
) -> Result<String, MoneyError> {
    let mut clauses: Vec<String> = Vec::new();
    if let Some(made) = made {
        let as_of = Line { amount: now.amount, taken_back: now.amount.minus(now.net)?, ..line.clone() };
        let by_person = matches!(made.what, What::Bonus | What::Adjust);
        clauses.push(brief(&as_of, rule, made.why.as_deref().filter(|_| by_person)));
    }
    let later = moves.iter().filter(|(step, _)| made.is_none_or(|made| !std::ptr::eq(*step, made)));
    let mut more = 0;
    for (step, change) in later {
        if clauses.len() < MAX_CLAUSES {
            clauses.push(what_happened(line, step, *change));
        } else {
            more += 1;
        }
    }
    if more > 0 {
        clauses.push(format!("and {more} more changes"));
    }
    Ok(sentence(&clauses.join("; ")))
}

/// A clause as a sentence. What people wrote in it may end in a full stop of their own.
fn sentence(clause: &str) -> String {
    let clause = clause.trim_end_matches(['.', ' ']);
    let mut rest = clause.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", rest.as_str())
}

fn what_happened(line: &Line, step: &LineStep, change: Minor) -> String {
    let size = Money::new(if change.is_negative() { change.negated() } else { change }, line.currency);
    let why = step.why.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    let taken = change.is_negative() != line.amount.is_negative();
    match (step.what, step.facts.state, taken) {
        (What::Refund, _, true) => format!("a refund took back {size}"),
        (What::Refund | What::Withdraw, _, false) => format!("{size} came back because a refund does not stand"),
        (What::Edit, _, true) => format!("a change of the order took back {size}"),
        (What::Edit, _, false) => format!("a change of the order added {size}"),
        (What::Attribute, ..) => "the sale is due to another partner now".to_owned(),
        (What::Adjust, ..) => format!("adjusted by {}{why}", Money::new(change, line.currency)),
        (What::Reject, StateName::Rejected, _) => format!("declined{why}"),
        (What::Reinstate, StateName::Pending, _) => "taken up for review again".to_owned(),
        (_, _, true) => format!("{size} less because another sale changed"),
        (_, _, false) => format!("{size} more because another sale changed"),
    }
}

mod of_payout;
pub use of_payout::{Breakdown, ClaimedRow, Decided, Receipt};

#[cfg(test)]
mod tests;
