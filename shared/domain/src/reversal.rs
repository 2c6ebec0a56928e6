//! Reversal: what went back to the customer comes off what was earned, and what turned out not to go back returns.
//!
//! From lines that are not being paid yet by shrinking them, newest slice first; the rest, already paid or on its way, by a clawback that
//! comes off the next payout. Back the same way: to the lines it was taken from, oldest slice first, and what was clawed back by a
//! reinstatement.
//!
//! Always cumulative: the target is `round(earned x refunded share)`, and only the difference to what is already reversed moves.
//! Applying it twice moves nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::ids::{LineId, PartnerId, PayoutId};
use crate::journal::Change;
use crate::line::{Line, LineError, LineKind, LineState};
use crate::money::{Minor, MoneyError};
use crate::order::Order;
use crate::payout::OpenPayout;
use crate::schedule::is_matured;

/// An order as it now is, and what may still change.
#[derive(Debug)]
pub struct Reversal<'a> {
    pub order: &'a Order,
    /// The entry by which a person last attributed the conversion; lines of an earlier attribution are taken back whole.
    pub attribution: u32,
    /// The payouts whose lines may still change.
    pub open: &'a BTreeMap<PayoutId, OpenPayout>,
    /// Names the event; it becomes part of the identity of what it writes.
    pub event: &'a str,
    /// Who attributes the conversion by hand, if that is what happens: what it takes back from others is that person's work.
    pub by_hand: Option<&'a str>,
    pub now: Timestamp,
}

impl Reversal<'_> {
    /// How much of an earning went back, as a fraction.
    pub fn share(&self, of: &Line) -> Result<(i128, i128), MoneyError> {
        share(self.order, self.attribution, of)
    }

    /// All lines of a conversion as they are after it.
    pub fn apply(&self, mut lines: Vec<Line>) -> Result<Vec<Line>, LineError> {
        let mut written = Vec::new();
        for mut earning in earnings(&mut lines) {
            let Some(of) = earning.commissions.first().map(|line| (**line).clone()) else { continue };
            let (part, whole) = self.share(&of)?;
            earning.zeros(part == whole, self);
            let target = earning.gross()?.proportion(part, whole)?;
            let difference = target.minus(earning.reversed()?)?;
            let left = if difference.is_negative() {
                earning.give_back(difference.negated(), self)?.negated()
            } else {
                earning.take_back(difference, self)?
            };
            if !left.is_zero() {
                let origin = earning.commissions.last().map_or(&of, |line| &**line);
                written.push(compensation(origin, left, self));
            }
        }
        lines.extend(written);
        Ok(lines)
    }
}

/// How much of the earning a line belongs to went back. All of it, where somebody else got the conversion since.
pub fn share(order: &Order, attribution: u32, of: &Line) -> Result<(i128, i128), MoneyError> {
    if of.attribution < attribution {
        return Ok((1, 1));
    }
    let items = of.basis.as_ref().map(|basis| basis.items.as_slice()).unwrap_or_default();
    order.share(of.edit.as_deref(), items)
}

/// What tells the earnings of one conversion apart: partner, rule, and what was sold and attributed when.
pub type EarningKey = (PartnerId, String, Option<String>, u32);

impl Line {
    /// Which earning of its conversion the line belongs to; none where no rule made it.
    pub fn earning(&self) -> Option<EarningKey> {
        let basis = self.basis.as_ref().filter(|_| self.kind != LineKind::TrueUp)?;
        Some((self.partner.clone(), basis.rule.clone(), self.edit.clone(), self.attribution))
    }
}

/// What changed, and what is new.
pub fn changes(before: &[Line], after: Vec<Line>) -> Vec<Change> {
    let known: BTreeMap<&LineId, &Line> = before.iter().map(|line| (&line.id, line)).collect();
    let change = |line: Line| match known.get(&line.id) {
        Some(old) if **old == line => None,
        Some(old) => Some(Change::of((*old).clone(), line)),
        None => Some(Change::new(line)),
    };
    after.into_iter().filter_map(change).collect()
}

/// The lines of one earning: its slices, oldest first, what people adjusted, and what was clawed back and reinstated.
#[derive(Default)]
struct Earning<'a> {
    commissions: Vec<&'a mut Line>,
    others: Vec<&'a mut Line>,
}

fn earnings(lines: &mut [Line]) -> Vec<Earning<'_>> {
    let mut by_key: BTreeMap<EarningKey, Earning> = BTreeMap::new();
    for line in lines {
        let Some(key) = line.earning() else { continue };
        let earning = by_key.entry(key).or_default();
        if line.kind == LineKind::Commission { earning.commissions.push(line) } else { earning.others.push(line) }
    }
    let mut earnings: Vec<_> = by_key.into_values().collect();
    for earning in &mut earnings {
        earning.commissions.sort_by_key(|line| line.slice);
    }
    earnings
}

impl Earning<'_> {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.commissions.iter().chain(&self.others).map(|line| &**line)
    }

    fn gross(&self) -> Result<Minor, MoneyError> {
        Minor::total(self.lines().filter(|line| line.kind.is_part_of_gross()).map(|line| line.amount))
    }

    fn reversed(&self) -> Result<Minor, MoneyError> {
        let of = |line: &Line| match (line.kind, &line.state) {
            (LineKind::Clawback | LineKind::Reinstatement, _) => Ok(line.amount.negated()),
            (_, LineState::Rejected { refunded, .. }) => line.taken_back.plus(*refunded),
            _ => Ok(line.taken_back),
        };
        Minor::total(self.lines().map(of).collect::<Result<Vec<_>, _>>()?)
    }

    /// What can shrink and grow, in the order in which it shrinks: adjustments, then slices, the newest first.
    fn newest_first(&mut self) -> impl DoubleEndedIterator<Item = &mut Line> {
        let adjustments = self.others.iter_mut().filter(|line| line.kind == LineKind::Adjustment);
        self.commissions.iter_mut().chain(adjustments).map(|line| &mut **line).rev()
    }

    /// Lines of zero have nothing to take back, but must not stand as if their sale did.
    fn zeros(&mut self, whole: bool, of: &Reversal<'_>) {
        for line in self.newest_first().filter(|line| line.amount.is_zero()) {
            let payout = line.payout().and_then(|(payout, _)| of.open.get(payout));
            let changed = if whole { line.clone().reverse_zero(payout) } else { line.clone().restore_zero(of.now) };
            // What is paid, or as it should be, stays so.
            if let Ok(changed) = changed {
                *line = changed;
            }
        }
    }

    /// Returns what could not be taken from the lines themselves.
    fn take_back(&mut self, mut left: Minor, of: &Reversal<'_>) -> Result<Minor, LineError> {
        for line in self.newest_first() {
            let payout = line.payout().and_then(|(payout, _)| of.open.get(payout));
            let step = left.min(line.refundable()?);
            if !step.is_positive() {
                continue;
            }
            match line.clone().take_back(step, payout) {
                Ok(after) => {
                    left = left.minus(step)?;
                    *line = after;
                }
                // Too late for this line: the next older one, and in the end a clawback.
                Err(LineError::PayoutClosed | LineError::Illegal { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    /// Returns what could not be given back to the lines themselves.
    fn give_back(&mut self, mut left: Minor, of: &Reversal<'_>) -> Result<Minor, LineError> {
        for line in self.newest_first().rev() {
            let payout = line.payout().and_then(|(payout, _)| of.open.get(payout));
            let step = left.min(line.returnable()?);
            if !step.is_positive() {
                continue;
            }
            match line.clone().give_back(step, payout, of.now) {
                Ok(after) => {
                    left = left.minus(step)?;
                    *line = after;
                }
                Err(LineError::PayoutClosed | LineError::Illegal { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }
}

/// A clawback of what is still to be taken, or, for a negative amount, a reinstatement of what is still to be given back. Both are
/// reviewed. A clawback is due at once: it ignores hold, cut-off and gates. A reinstatement is due when the original was.
fn compensation(origin: &Line, left: Minor, of: &Reversal<'_>) -> Line {
    let rule = origin.basis.as_ref().map(|basis| basis.rule.as_str()).unwrap_or_default();
    let (kind, word, due_at) = if left.is_positive() {
        (LineKind::Clawback, "clawback", of.now)
    } else {
        (LineKind::Reinstatement, "reinstatement", origin.due_at)
    };
    let attribution = origin.attribution.to_string();
    let mut key = vec![origin.stream(), rule, word, of.event];
    if origin.edit.is_some() || origin.attribution > 0 {
        key.extend([origin.edit.as_deref().unwrap_or_default(), &attribution]);
    }
    Line {
        // One shard serves a whole conversion, so the count only has to agree with that of the line it takes from.
        id: LineId::derive_beside(&origin.id, of.now, &key),
        kind,
        amount: left.negated(),
        state: if is_matured(due_at, of.now) { LineState::Payable } else { LineState::Approved },
        occurred_at: of.now,
        due_at,
        approved_at: Some(of.now),
        hands: of.by_hand.map(str::to_owned).into_iter().collect(),
        ..origin.fresh(of.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accrual::{Accrual, Circumstances, Credited, Terms};
    use crate::conversion::Refund;
    use crate::conversion::Sale;
    use crate::conversion::tests::{minor, refund, sale};
    use crate::ids::ConversionId;
    use crate::line::tests::now;
    use crate::line::{Evidence, StateName};
    use crate::order::tests::order as order_of;
    use crate::payout::tests::payout;
    use crate::program::ApprovalMode;
    use crate::rating::tests::{partner, program};
    use crate::rules::RuleSetDraft;
    use crate::tally::Tallies;
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
        let circumstances = Circumstances {
            rule_set: 1,
            terms: Terms::of(&program),
            evidence: Evidence::PartnerId,
            touches: vec![],
            weights: None,
            partners: vec![Credited::new(&partner(), 1)],
            customer: crate::rating::Standing::default(),
            exchange: None,
            objection: None,
        };
        let accrual = Accrual {
            program: &program,
            circumstances: &circumstances,
            rules: &draft.resolve(program.currency).unwrap(),
            conversion: &ConversionId::derive(&program.id, &source, "1"),
            order: "1",
            sale: order,
            whole: order,
            edit: None,
            attribution: 0,
            by_hand: None,
            sold_at: now(),
            occurred_at: now(),
            received_at: now(),
            now: now(),
            earlier: &BTreeMap::new(),
        };
        accrual.lines(&mut Tallies::default()).unwrap()
    }

    fn apply(lines: &mut Vec<Line>, order: &Sale, refunds: &[Refund], event: &str) {
        let order = order_of(order, refunds);
        let reversal =
            Reversal { order: &order, attribution: 0, open: &BTreeMap::new(), event, by_hand: None, now: now() };
        *lines = reversal.apply(std::mem::take(lines)).unwrap();
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
    fn what_was_attributed_before_is_taken_back_whole_and_what_is_new_in_its_share() {
        let goods = sale(10_000, 0, &[]);
        let order = order_of(&goods, &[refund(2_500)]);
        let of = |attribution| Line { attribution, ..lines(&goods, "10", json!([]))[0].clone() };
        assert_eq!(share(&order, 2, &of(1)).unwrap(), (1, 1));
        let quarter = |attribution| {
            let (part, whole) = share(&order, 2, &of(attribution)).unwrap();
            part * 4 == whole
        };
        assert!(quarter(2) && quarter(3));
    }

    #[test]
    fn what_did_not_change_is_no_change() {
        let goods = sale(10_000, 0, &[]);
        let before = lines(&goods, "10", json!([]));
        let mut after = before.clone();
        after.push(Line {
            kind: LineKind::Bonus,
            id: LineId::derive(&before[0].partner, 1, now(), &["b"]),
            ..before[0].clone()
        });
        let kinds: Vec<_> = changes(&before, after).iter().map(|change| change.after.kind).collect();
        assert_eq!(kinds, [LineKind::Bonus]);
    }

    #[test]
    fn what_was_recorded_while_a_line_was_rejected_counts_as_taken() {
        let goods = sale(10_000, 0, &[]);
        let mut lines = lines(&goods, "10", json!([]));
        lines[0] = lines[0].clone().reject("no", None).unwrap();
        apply(&mut lines, &goods, &[refund(4_000)], "r1");
        apply(&mut lines, &goods, &[refund(4_000), refund(1_000)], "r2");
        assert_eq!(lines.len(), 1, "nothing is clawed back of what was never paid");
        assert_eq!(lines[0].refundable().unwrap(), minor(500));
        apply(&mut lines, &goods, &[refund(1_000)], "w");
        assert_eq!((lines.len(), lines[0].refundable().unwrap()), (1, minor(900)));
    }

    #[test]
    fn an_adjustment_gives_before_its_slices_do() {
        let goods = sale(10_000, 0, &[]);
        let mut lines = lines(&goods, "10", json!([]));
        lines[0] = paid(lines[0].clone());
        let added = lines[0].adjustment(minor(1_600), minor(1_000), "ann", 1, now()).unwrap();
        lines.push(added);
        apply(&mut lines, &goods, &[refund(2_500)], "r1");
        assert_eq!(nets(&lines), [1_000, 200], "a quarter of 16.00 comes off what is not paid");
        apply(&mut lines, &goods, &[refund(10_000)], "r2");
        assert_eq!(nets(&lines), [1_000, 0, -1_000]);
    }

    #[test]
    fn what_is_written_besides_has_its_own_id_and_time() {
        let goods = sale(10_000, 0, &[]);
        let later = now() + jiff::SignedDuration::from_hours(1);
        let of = |edit: Option<&str>, attribution: u32| {
            let origin =
                Line { edit: edit.map(str::to_owned), attribution, ..paid(lines(&goods, "10", json!([]))[0].clone()) };
            let reversal = Reversal {
                order: &order_of(&goods, []),
                attribution,
                open: &BTreeMap::new(),
                event: "e",
                by_hand: None,
                now: later,
            };
            compensation(&origin, minor(100), &reversal)
        };
        let ids: std::collections::BTreeSet<_> =
            [of(None, 0), of(None, 1), of(None, 2), of(Some("e1"), 0), of(Some("e1"), 1)].map(|line| line.id).into();
        assert_eq!(ids.len(), 5);
        let written = of(None, 0);
        let origin = &lines(&goods, "10", json!([]))[0];
        let beside = |key: &[&str]| LineId::derive_beside(&origin.id, later, key);
        assert_eq!(written.id, beside(&[origin.stream(), "r", "clawback", "e"]), "for ever");
        assert_eq!(of(Some("e1"), 2).id, beside(&[origin.stream(), "r", "clawback", "e", "e1", "2"]));
        assert_eq!((written.occurred_at, written.due_at, written.approved_at), (later, later, Some(later)));
        assert_eq!((written.amount, written.paid_at, written.version), (minor(-100), None, 1));
    }

    #[test]
    fn what_is_taken_back_is_the_work_of_whoever_attributes_by_hand() {
        let goods = sale(10_000, 0, &[]);
        let hands = |by_hand| {
            let reversal = Reversal {
                order: &order_of(&goods, []),
                attribution: 1,
                open: &BTreeMap::new(),
                event: "e",
                by_hand,
                now: now(),
            };
            let after = reversal.apply(vec![paid(lines(&goods, "10", json!([]))[0].clone())]).unwrap();
            assert_eq!(nets(&after), [1_000, -1_000]);
            after[1].hands.clone()
        };
        assert_eq!(hands(Some("ann")), ["ann"]);
        assert!(hands(None).is_empty(), "a refund is nobody's work");
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
