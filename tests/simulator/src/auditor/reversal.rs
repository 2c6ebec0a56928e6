//! What refunds take back of earnings, and what comes back when they do not stand.

use std::collections::BTreeSet;

use super::accrual::Work;
use super::model::{Kind, Line, Payout, State};
use super::rates;
use super::{Auditor, Checked, Entry, ensure, leave_for};

/// Who gives a conversion to others has a hand in whatever that takes and gives.
pub fn author(entry: &Entry) -> BTreeSet<String> {
    (entry.what == "attribute").then(|| entry.by.to_owned()).into_iter().collect()
}

impl Auditor {
    /// Brings every earning to its cumulative target. What is missing comes off the newest slice first, and in the end as a
    /// clawback; what is too much goes back to the oldest first, and in the end as a reinstatement.
    pub(super) fn reverse(&self, entry: &Entry, work: &mut Work) -> Checked {
        let Some(order) = work.conversion.order() else { return Ok(()) };
        for n in 0..work.conversion.earnings.len() {
            let earning = &work.conversion.earnings[n];
            let (part, whole) = if earning.given_away { (1, 1) } else { order.refunded(earning.part, &earning.items) };
            let own = |line: &Line| line.earning == Some(n) && line.kind != Kind::TrueUp;
            let of_earning: Vec<usize> = (0..work.all.len()).filter(|at| own(&work.all[*at].1)).collect();
            // Silent in the rules: what people added goes first, the latest of it before the rest.
            let mut shrinking = of_earning.clone();
            shrinking.retain(|at| matches!(work.all[*at].1.kind, Kind::Commission | Kind::Adjustment));
            shrinking.sort_by_key(|at| {
                let line = &work.all[*at].1;
                std::cmp::Reverse((line.kind == Kind::Adjustment, line.slice, *at))
            });
            let newest = shrinking.iter().map(|at| &work.all[*at].1).find(|line| line.slice.is_some());
            let Some(newest) = newest.cloned() else { continue };
            let earned: i128 = of_earning.iter().map(|at| work.all[*at].1.earned()).sum();
            let reversed: i128 = of_earning.iter().map(|at| work.all[*at].1.reversed()).sum();
            let left = rates::round(earned * part, whole) - reversed;
            let all = part == whole;
            if left >= 0 || all {
                // Of what all went back of, what is nothing goes too, whatever else comes back.
                let left = self.take(entry, work, &shrinking, left.max(0), all)?;
                if left > 0 {
                    let line = work.line_of(entry, n, Kind::Clawback, -left);
                    work.add(Line { hands: author(entry), ..line });
                }
            }
            // What all went back of gives back only where a person made it less.
            if left < 0 || (left == 0 && !all) {
                shrinking.reverse();
                let back = self.give_back(entry, work, &shrinking, -left, all);
                if back > 0 {
                    // Silent in the rules: of several slices, due with the newest.
                    let state = State::at_gates(true, newest.due_at, entry.at);
                    let line = work.line_of(entry, n, Kind::Reinstatement, back);
                    let (hands, due_at) = (author(entry), newest.due_at);
                    work.add(Line { state, hands, due_at, ..line });
                }
            }
        }
        Ok(())
    }

    /// Whether a line's payout has gone too far for it to change.
    fn is_late(&self, line: &Line) -> bool {
        let payout = line.payout.as_ref().and_then(|(payout, _)| self.payouts.get(payout));
        match line.state {
            State::Paid => true,
            State::InPayout => !payout.is_some_and(Payout::is_open),
            _ => false,
        }
    }

    fn take(&self, entry: &Entry, work: &mut Work, slices: &[usize], mut left: i128, whole: bool) -> Checked<i128> {
        let written = entry.line_ids();
        for at in slices {
            let (id, line) = &mut work.all[*at];
            let step = left.min(line.net() - line.recorded).max(0);
            let zero = line.amount == 0 && whole;
            if step == 0 && !zero {
                continue;
            }
            let payout = line.payout.as_ref().and_then(|(payout, _)| self.payouts.get(payout));
            // Silent in the rules: what a cancelled payout has yet to free is freed first.
            let freeing = line.state == State::InPayout
                && payout.is_some_and(|payout| matches!(payout.state, "cancelled" | "void"));
            ensure!(!freeing, OneState, "{}: {id:?} was to be freed before", entry.name());
            // There is nothing to record, so whether that is written does not matter.
            let idle = line.state == State::Rejected && zero && !id.as_deref().is_some_and(|id| written.contains(&id));
            if idle || line.state == State::Reversed || self.is_late(line) {
                continue;
            }
            left -= step;
            work.changed.insert(*at);
            if line.state == State::Rejected {
                line.recorded += step;
                continue;
            }
            line.taken += step;
            if line.net() == 0 {
                line.was_held = line.state == State::Held;
                leave_for(line, State::Reversed);
            }
        }
        Ok(left)
    }

    fn give_back(&self, entry: &Entry, work: &mut Work, slices: &[usize], mut left: i128, whole: bool) -> i128 {
        let written = entry.line_ids();
        for at in slices {
            let (id, line) = &mut work.all[*at];
            let step = left.min(line.taken + line.recorded);
            // Of a rejected line of nothing there is nothing to forget, so whether that is written does not matter.
            let idle = line.state == State::Rejected && id.as_deref().is_some_and(|id| written.contains(&id));
            let zero = line.amount == 0 && !whole && (line.state == State::Reversed || idle);
            if (step == 0 && !zero) || self.is_late(line) {
                continue;
            }
            left -= step;
            work.changed.insert(*at);
            let forgotten = step.min(line.recorded);
            line.recorded -= forgotten;
            line.taken -= step - forgotten;
            if line.state == State::Reversed {
                line.state =
                    if line.was_held { State::Held } else { State::at_gates(line.reviewed, line.due_at, entry.at) };
            }
        }
        left
    }
}
