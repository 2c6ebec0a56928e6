//! Reversal: what a refund takes back. From lines that are not being paid yet by shrinking them, newest slice first; the
//! rest, already paid or on its way, by a clawback that comes off the next payout.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::conversion::{Refunded, Sale};
use crate::ids::{LineId, PayoutId};
use crate::journal::{Change, EntryRef};
use crate::line::{Line, LineError, LineKind, LineState};
use crate::money::{Minor, MoneyError};
use crate::payout::OpenPayout;

/// Applies everything refunded so far to the lines of a conversion, and returns what changes. Cumulative: the target is
/// `round(earned x refunded share)`, and only the difference to what is already reversed moves. Applying it twice moves nothing.
///
/// `event` names the refund (it becomes part of a clawback's identity); `open` are the payouts whose lines may still change.
pub fn reverse(
    sale: &Sale,
    refunded: &Refunded,
    lines: &[Line],
    open: &BTreeMap<PayoutId, OpenPayout>,
    event: &str,
    now: Timestamp,
) -> Result<Vec<Change>, LineError> {
    let mut changes = Vec::new();
    for earning in earnings(lines) {
        let Some(basis) = earning.slices.iter().find_map(|line| line.basis.as_ref()) else { continue };
        let (part, whole) = refunded.share(sale, &basis.items)?;
        let target = earning.earned()?.proportion(part, whole)?;
        let mut left = target.minus(earning.reversed()?)?;
        for line in earning.newest_first() {
            let payout = line.payout().and_then(|(payout, _)| open.get(payout));
            if line.amount.is_zero() && part == whole {
                // What is paid or reversed stays so.
                let reversed = line.clone().reverse_zero(payout).ok();
                changes.extend(reversed.map(|after| Change::of(line.clone(), after)));
                continue;
            }
            let step = left.min(line.refundable()?);
            if !step.is_positive() {
                continue;
            }
            match line.clone().take_back(step, payout) {
                Ok(after) => {
                    left = left.minus(step)?;
                    changes.push(Change::of(line.clone(), after));
                }
                // Too late for this line: the next older one, and in the end a clawback.
                Err(LineError::PayoutClosed | LineError::Illegal { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if left.is_positive() {
            changes.extend(earning.clawback(left, event, now).map(Change::new));
        }
    }
    Ok(changes)
}

/// The lines of one partner under one rule: slices of one earning, and clawbacks of them.
struct Earning<'a> {
    slices: Vec<&'a Line>,
    clawbacks: Vec<&'a Line>,
}

fn earnings(lines: &[Line]) -> Vec<Earning<'_>> {
    let mut by_rule: BTreeMap<_, Earning> = BTreeMap::new();
    for line in lines {
        let Some(basis) = &line.basis else { continue };
        let earning = by_rule
            .entry((&line.partner, &basis.rule))
            .or_insert_with(|| Earning { slices: Vec::new(), clawbacks: Vec::new() });
        match line.kind {
            LineKind::Commission => earning.slices.push(line),
            LineKind::Clawback => earning.clawbacks.push(line),
        }
    }
    by_rule.into_values().collect()
}

impl<'a> Earning<'a> {
    fn earned(&self) -> Result<Minor, MoneyError> {
        Minor::total(self.slices.iter().map(|line| line.amount))
    }

    fn reversed(&self) -> Result<Minor, MoneyError> {
        let from_slices = self.slices.iter().map(|line| match &line.state {
            LineState::Rejected { refunded, .. } => line.taken_back.plus(*refunded),
            _ => Ok(line.taken_back),
        });
        let taken = Minor::total(from_slices.collect::<Result<Vec<_>, _>>()?)?;
        taken.minus(Minor::total(self.clawbacks.iter().map(|line| line.amount))?)
    }

    fn newest_first(&self) -> Vec<&'a Line> {
        let mut slices = self.slices.clone();
        slices.sort_by_key(|line| std::cmp::Reverse(line.slice));
        slices
    }

    /// Negative, reviewed and due at once: it ignores hold, cut-off and gates.
    fn clawback(&self, amount: Minor, event: &str, now: Timestamp) -> Option<Line> {
        let of = self.newest_first().into_iter().next()?;
        let rule = of.basis.as_ref().map(|basis| basis.rule.as_str()).unwrap_or_default();
        let origin = of.conversion.as_ref().map(super::ids::ConversionId::as_str).unwrap_or_default();
        // One shard serves a whole conversion, so the count only has to agree with that of the line it takes from.
        let id = LineId::derive_beside(&of.id, now, &[origin, rule, "clawback", event]);
        Some(Line {
            id,
            kind: LineKind::Clawback,
            amount: amount.negated(),
            taken_back: Minor::ZERO,
            state: LineState::Payable,
            occurred_at: now,
            created_at: now,
            due_at: now,
            approved_at: Some(now),
            paid_at: None,
            slice: None,
            hands: Vec::new(),
            version: 1,
            entry: EntryRef::none(),
            ..of.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accrual::Accrual;
    use crate::conversion::Refund;
    use crate::conversion::tests::{minor, refund, sale};
    use crate::ids::ConversionId;
    use crate::line::tests::now;
    use crate::line::{Evidence, StateName};
    use crate::payout::tests::payout;
    use crate::program::ApprovalMode;
    use crate::rating::tests::{partner, program};
    use crate::rules::RuleSetDraft;
    use proptest::prelude::*;
    use serde_json::json;

    fn lines(order: &Sale, rate: &str, slices: serde_json::Value) -> Vec<Line> {
        let draft: RuleSetDraft = serde_json::from_value(json!({
            "rationale": "test", "effectiveFrom": "2026-01-01T00:00:00Z",
            "rules": [{"name": "r", "reward": {"kind": "percent", "rate": rate}, "slices": slices}],
        }))
        .unwrap();
        let program = program(|p| p.approval = ApprovalMode::Automatic);
        let source = crate::ids::SourceId::of_api(&program.id);
        let accrual = Accrual {
            program: &program,
            partner: &partner(),
            evidence: &Evidence::PartnerId,
            rule_set: 1,
            rules: &draft.resolve(program.currency).unwrap(),
            conversion: &ConversionId::derive(&program.id, &source, "1"),
            order: "1",
            sale: order,
            occurred_at: now(),
            received_at: now(),
            now: now(),
        };
        accrual.lines(|_| 0).unwrap().lines
    }

    fn apply(lines: &mut Vec<Line>, order: &Sale, refunds: &[Refund], event: &str) {
        let refunded = Refunded::of(order, refunds);
        for change in reverse(order, &refunded, lines, &BTreeMap::new(), event, now()).unwrap() {
            match lines.iter_mut().find(|line| line.id == change.after.id) {
                Some(line) => *line = change.after,
                None => lines.push(change.after),
            }
        }
    }

    fn nets(lines: &[Line]) -> Vec<i64> {
        lines.iter().map(|line| line.net().unwrap().units()).collect()
    }

    fn paid(line: Line) -> Line {
        let payout = payout(1).id;
        Line { state: LineState::Payable, ..line }.claim(&payout, 0).unwrap().pay(&payout, now()).unwrap()
    }

    #[test]
    fn milestones_split_and_are_taken_back_from_the_newest() {
        let order = sale(1_000, 0, &[]);
        let mut lines = lines(&order, "100", json!([{"share": "40", "days": 0}, {"share": "60", "days": 60}]));
        assert_eq!(nets(&lines), [400, 600]);
        assert_eq!(lines[1].due_at.duration_since(lines[0].due_at).as_hours(), 30 * 24, "60 days against 30");
        apply(&mut lines, &order, &[refund(700)], "r1");
        assert_eq!(nets(&lines), [300, 0]);
        assert_eq!(lines[1].state.name(), StateName::Reversed);
        apply(&mut lines, &order, &[refund(700), refund(300)], "r2");
        assert_eq!(nets(&lines), [0, 0]);
    }

    #[test]
    fn what_is_paid_comes_back_as_a_clawback() {
        let order = sale(10_000, 0, &[]);
        let mut lines = lines(&order, "10", json!([]));
        lines[0] = paid(lines[0].clone());
        apply(&mut lines, &order, &[refund(4_000)], "r1");
        apply(&mut lines, &order, &[refund(4_000), refund(6_000)], "r2");
        assert_eq!(nets(&lines), [1_000, -400, -600]);
        assert!(lines[1..].iter().all(|line| line.state == LineState::Payable && line.due_at == now()));
    }

    #[test]
    fn a_zero_earning_is_reversed_with_its_sale() {
        let order = sale(10_000, 0, &[]);
        let mut lines = lines(&order, "0", json!([]));
        apply(&mut lines, &order, &[refund(4_000)], "r1");
        assert_eq!(lines[0].state.name(), StateName::Approved);
        apply(&mut lines, &order, &[refund(4_000), refund(6_000)], "r2");
        assert_eq!(lines[0].state.name(), StateName::Reversed);
        let before = lines.clone();
        apply(&mut lines, &order, &[refund(4_000), refund(6_000)], "r2");
        assert_eq!(lines, before);
    }

    #[test]
    fn applying_the_same_refunds_again_moves_nothing() {
        let order = sale(10_000, 0, &[]);
        let mut lines = lines(&order, "10", json!([]));
        apply(&mut lines, &order, &[refund(4_000)], "r1");
        let before = lines.clone();
        apply(&mut lines, &order, &[refund(4_000)], "r1");
        assert_eq!(lines, before);
    }

    proptest! {
        /// Whatever is refunded, in whatever steps, before or after payment: the parts sum to the cumulative target, and a
        /// full refund leaves nothing.
        #[test]
        fn partial_refunds_leave_no_remainder(
            total in 1_i64..50_000, rate in 1_u32..100, steps in prop::collection::vec(1_i64..20_000, 1..8), pay_after in 0_usize..8,
            split in prop::bool::ANY,
        ) {
            let order = sale(total, 0, &[]);
            let slices = if split { json!([{"share": "33.3", "days": 0}, {"share": "66.7", "days": 60}]) } else { json!([]) };
            let mut lines = lines(&order, &rate.to_string(), slices);
            let earned: i64 = nets(&lines).iter().sum();
            let mut refunds = Vec::new();
            for (n, step) in steps.iter().enumerate() {
                if n == pay_after && lines[0].net().unwrap().is_positive() && lines[0].state.name() == StateName::Approved {
                    lines[0] = paid(lines[0].clone());
                }
                refunds.push(refund(*step));
                apply(&mut lines, &order, &refunds, &n.to_string());
                let back: i64 = refunds.iter().map(|refund| refund.total.units()).sum::<i64>().min(total);
                let target = minor(earned).proportion(back.into(), total.into()).unwrap().units();
                prop_assert_eq!(nets(&lines).iter().sum::<i64>(), earned - target);
            }
            refunds.push(refund(total));
            apply(&mut lines, &order, &refunds, "last");
            prop_assert_eq!(nets(&lines).iter().sum::<i64>(), 0);
        }
    }
}
