//! Accrual: from a sale to the lines it earns, and the tier positions it takes.

use jiff::Timestamp;

use crate::conversion::Sale;
use crate::ids::{ConversionId, LineId};
use crate::journal::EntryRef;
use crate::line::{Evidence, Line, LineKind, LineState};
use crate::money::{Minor, MoneyError};
use crate::program::{ApprovalMode, Partner, Program};
use crate::rating::rate;
use crate::rules::Rule;
use crate::schedule::{due_at, is_matured};

/// Products that a line names; the conversion has them all.
const MAX_PRODUCTS: usize = 5;

/// A sale about to be booked for one partner.
#[derive(Debug)]
pub struct Accrual<'a> {
    pub program: &'a Program,
    pub partner: &'a Partner,
    pub evidence: &'a Evidence,
    pub rule_set: u32,
    pub rules: &'a [Rule],
    pub conversion: &'a ConversionId,
    pub order: &'a str,
    pub sale: &'a Sale,
    pub occurred_at: Timestamp,
    pub received_at: Timestamp,
    pub now: Timestamp,
}

/// What a sale earns a partner.
#[derive(Debug, Clone, PartialEq)]
pub struct Accrued {
    pub lines: Vec<Line>,
    /// Keys of the tiered rules in which the sale takes one more position.
    pub counted: Vec<String>,
}

impl Accrual<'_> {
    /// `position` tells how many conversions of a rule's key the partner had before.
    pub fn lines(&self, position: impl Fn(&str) -> u64) -> Result<Accrued, MoneyError> {
        let mut accrued = Accrued { lines: Vec::new(), counted: Vec::new() };
        for earning in rate(self.sale, self.rules, self.partner, position)? {
            if earning.rule.is_tiered() {
                accrued.counted.push(earning.rule.key.clone());
            }
            let shares: Vec<_> = earning.rule.slices.iter().map(|slice| slice.share).collect();
            let amounts = earning.basis.earned.split(&shares)?;
            for (n, (slice, amount)) in earning.rule.slices.iter().zip(amounts).enumerate() {
                let number = u8::try_from(n + 1).unwrap_or(u8::MAX);
                accrued.lines.push(self.line(&earning, number, slice.days, amount)?);
            }
        }
        Ok(accrued)
    }

    fn line(&self, earning: &crate::rating::Earning, slice: u8, days: u16, amount: Minor) -> Result<Line, MoneyError> {
        let hold_days = earning.rule.hold_days.unwrap_or(self.program.hold_days);
        let due_at = due_at(self.occurred_at, self.received_at, hold_days, days, self.program.min_hold_days)?;
        let (state, approved_at) = match self.program.approval {
            ApprovalMode::Manual => (LineState::Pending, None),
            ApprovalMode::Automatic if is_matured(due_at, self.now) => (LineState::Payable, Some(self.now)),
            ApprovalMode::Automatic => (LineState::Approved, Some(self.now)),
        };
        let key = [self.conversion.as_str(), &earning.rule.key, &slice.to_string()];
        Ok(Line {
            id: LineId::derive(&self.partner.id, self.partner.shards, self.occurred_at, &key),
            program: self.program.id.clone(),
            partner: self.partner.id.clone(),
            currency: self.program.currency,
            kind: LineKind::Commission,
            conversion: Some(self.conversion.clone()),
            order: Some(self.order.to_owned()),
            products: self.products(&earning.basis.items),
            amount,
            taken_back: Minor::ZERO,
            state,
            occurred_at: self.occurred_at,
            created_at: self.now,
            due_at,
            approved_at,
            paid_at: None,
            rule_set: Some(self.rule_set),
            basis: Some(earning.basis.clone()),
            evidence: Some(self.evidence.clone()),
            slice: Some(slice),
            hands: Vec::new(),
            version: 1,
            entry: EntryRef::none(),
        })
    }

    fn products(&self, items: &[usize]) -> Vec<String> {
        let named = items.iter().filter_map(|at| self.sale.items.get(*at));
        named.filter_map(|item| item.product.clone().or_else(|| item.sku.clone())).take(MAX_PRODUCTS).collect()
    }
}
