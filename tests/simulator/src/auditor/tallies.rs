//! Tallies: what conversions contribute to tier positions, caps and retroactive targets, and what true-ups bring up to date.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::accrual::{Occasion, Work};
use super::model::{Base, Conversion, Earning, Kind, Line, State, Tally, TallyKey};
use super::rates::{self, Ratio, Sold, WHOLE, round};
use super::reversal::author;
use super::{Auditor, Entry};
use crate::told::{Metric, Pay, Program, Reward, Rule, Shape, Tiers, Window};

/// The tiers of a retroactive rule.
const fn retroactive(rule: &Rule) -> Option<&Tiers> {
    match &rule.reward {
        Reward::Tiered(tiers) if matches!(tiers.shape, Shape::Retroactive) => Some(tiers),
        _ => None,
    }
}

fn by_rates(rule: &Rule) -> bool {
    matches!(&rule.reward, Reward::Tiered(tiers) if tiers.steps.iter().any(|(_, pay)| matches!(pay, Pay::Rate(_))))
}

/// Silent in the rules: only conversions that were rated by tiers, or under a cap, count for them.
fn keys(earning: &Earning, program: &str) -> Vec<TallyKey> {
    let key = |owner: &str, window: String| (owner.to_owned(), earning.rule.key.clone(), window);
    let mut keys = Vec::new();
    if let Reward::Tiered(tiers) = &earning.rule.reward {
        keys.push(key(&earning.partner, rates::window_key(tiers.window, earning.date)));
        if matches!(tiers.window, Window::Rolling(_)) {
            keys.push(key(&earning.partner, "rolling".to_owned()));
        }
    }
    if earning.rule.caps.partner_month.is_some() {
        keys.push(key(&earning.partner, rates::month_key(earning.date)));
    }
    if earning.rule.caps.program_month.is_some() {
        keys.push(key(program, rates::month_key(earning.date)));
    }
    keys.dedup();
    keys
}

/// A conversion by the partner's part of it, where that is not all.
fn shared(earning: &Earning, count: i128) -> BTreeMap<(i128, i128), i128> {
    let share = Some(earning.share).filter(|share| count != 0 && *share != (1, 1));
    share.into_iter().map(|share| (share, count)).collect()
}

/// An earning as it was rated: before caps, under the cap on its order, and in the end.
pub struct Kept {
    pub sold: Sold,
    pub weight: Ratio,
    pub before: i128,
    pub added: bool,
    pub exact: i128,
    pub of_order: i128,
    pub earned: i128,
}

impl Kept {
    /// Silent in the rules: what caps kept back stays so when the window is rated at another tier. The cap on an order holds at every
    /// tier; that on a month kept back no more than what the sale was rated at. `spent` is what the order earned before at a tier.
    pub fn by_tier(&self, rule: &Rule, spent: impl Fn(i64, Pay) -> i128) -> BTreeMap<i64, i128> {
        let Some(tiers) = retroactive(rule) else { return BTreeMap::new() };
        let rated = tier_number(tiers, rates::reached(tiers, self.sold, self.weight, self.before, self.added));
        let of_tier = |(n, (after, pay)): (usize, &(i64, Pay))| {
            let there = rates::at_tier(*pay, self.sold, self.added).times(self.weight).round();
            let left = rates::order_caps(rule, self.weight, (0, spent(*after, *pay))).map(|(_, left)| left.round());
            let (exact, of_order) = if n == rated {
                (self.exact, self.of_order)
            } else {
                (there, left.map_or(there, |left| there.min(left)))
            };
            (*after, exact - of_order + (of_order.min(self.of_order) - self.earned).max(0))
        };
        tiers.steps.iter().enumerate().map(of_tier).filter(|(_, kept)| *kept != 0).collect()
    }
}

/// What a conversion's earnings add to which tallies.
pub fn contributions(conversion: &Conversion, lines: &[&Line]) -> Vec<(TallyKey, Tally)> {
    let mut all = Vec::new();
    let Some(order) = conversion.order() else { return all };
    for (n, earning) in conversion.earnings.iter().enumerate() {
        let keys = keys(earning, &conversion.program);
        if keys.is_empty() {
            continue;
        }
        let (part, whole) = if earning.given_away { (1, 1) } else { order.refunded(earning.part, &earning.items) };
        let own = || lines.iter().filter(|line| line.earning == Some(n));
        let counts = part < whole && own().any(|line| line.kind == Kind::Commission && line.stands());
        let standing = || own().filter(|line| line.stands());
        // A true-up was decided by what the window owed: whoever rejects it does not make it owed again.
        let trued_up: i128 = own().filter(|line| line.kind == Kind::TrueUp).map(|line| line.amount).sum();
        let of_earning = || standing().filter(|line| line.kind != Kind::TrueUp);
        let commission = of_earning().map(|line| line.net()).sum::<i128>() + trued_up;
        let count = i128::from(counts && earning.part == 0);
        let revenue = if counts { earning.base - round(earning.base * part, whole) } else { 0 };
        let mut tally = Tally { count, revenue, commission, bases: BTreeMap::new() };
        if retroactive(&earning.rule).is_some() {
            // Silent in the rules: what a person sets or takes of a conversion that counts is meant so, and an amount per conversion that
            // was refunded in part is not due again.
            let partial = if counts { round(earning.earned * part, whole) } else { 0 };
            let given = if counts { earning.earned - partial } else { 0 };
            let shared = shared(earning, count);
            // What is due by rates shrinks with what was sold; what is due for each that counts does not.
            let back = |kept: i128| if by_rates(&earning.rule) { round(kept * part, whole) } else { 0 };
            let mut kept = BTreeMap::new();
            for (tier, amount) in earning.kept.iter().filter(|_| counts) {
                *kept.entry(*tier).or_default() += amount - back(*amount);
            }
            kept.retain(|_, amount| *amount != 0);
            let mut lacking = BTreeMap::new();
            for (tier, amount) in own().filter(|line| line.kind == Kind::TrueUp).flat_map(|line| &line.kept) {
                *lacking.entry(*tier).or_default() += amount;
            }
            let base = Base { count, shared, revenue, earned: given + trued_up, partial, kept, lacking };
            tally.bases.insert(earning.rule_set, base);
        }
        all.extend(keys.into_iter().map(|key| (key, tally.clone())));
    }
    all
}

impl Auditor {
    /// Counts a conversion anew.
    pub(super) fn retell(&mut self, stream: &str) {
        let Some(conversion) = self.conversions.get(stream) else { return };
        let lines: Vec<_> = conversion.lines.iter().map(|id| &self.lines[id]).collect();
        let now = contributions(conversion, &lines);
        let before = self.contributed.remove(stream).unwrap_or_default();
        for (contributed, sign) in [(&before, -1), (&now, 1)] {
            for (key, tally) in contributed {
                self.tallies.entry(key.clone()).or_default().add(tally, sign);
            }
        }
        self.contributed.insert(stream.to_owned(), now);
    }

    /// A tally as it is with what is being worked on.
    pub(super) fn tally<'w>(&self, works: impl IntoIterator<Item = &'w Work>, key: &TallyKey) -> Tally {
        let mut tally = self.tallies.get(key).cloned().unwrap_or_default();
        for work in works {
            let of_key = |contributed: &[(TallyKey, Tally)], sign: i128, tally: &mut Tally| {
                contributed.iter().filter(|(other, _)| other == key).for_each(|(_, part)| tally.add(part, sign));
            };
            of_key(self.contributed.get(&work.stream).map_or(&[], Vec::as_slice), -1, &mut tally);
            of_key(&contributions(&work.conversion, &work.lines()), 1, &mut tally);
        }
        tally
    }

    /// A tally while a conversion accrues: nothing of what is new went back yet.
    pub(super) fn accrued(&self, work: &Work, key: &TallyKey) -> Tally {
        let mut tally = self.tallies.get(key).cloned().unwrap_or_default();
        let steps = work.freed.iter().chain(&work.fresh);
        steps.filter(|(other, _)| other == key).for_each(|(_, step)| tally.add(step, 1));
        tally
    }

    /// What taking back what was given away took off tallies.
    pub(super) fn free(&self, work: &mut Work) {
        for (contributed, sign) in [
            (self.contributed.get(&work.stream).cloned().unwrap_or_default(), -1),
            (contributions(&work.conversion, &work.lines()), 1),
        ] {
            for (key, part) in contributed {
                let mut step = Tally::default();
                step.add(&part, sign);
                work.freed.push((key, step));
            }
        }
    }

    /// Counts what was just earned.
    pub(super) fn count(work: &mut Work, earning: usize) {
        let of = &work.conversion.earnings[earning];
        let (count, revenue, earned) = (i128::from(of.part == 0), of.base, of.earned);
        let mut step = Tally { count, revenue, commission: earned, bases: BTreeMap::new() };
        if retroactive(&of.rule).is_some() {
            let (shared, kept) = (shared(of, count), of.kept.clone());
            step.bases.insert(of.rule_set, Base { count, shared, revenue, earned, kept, ..Base::default() });
        }
        let keys = keys(of, &work.conversion.program);
        work.fresh.extend(keys.into_iter().map(|key| (key, step.clone())));
    }

    /// Reaching a tier that pays for the whole open window again: one line, within what caps have left. What an edit adds settles what
    /// the window lacks even where it reaches none.
    pub(super) fn cross(&self, entry: &Entry, work: &mut Work, occasion: &Occasion, earning: usize, before: i128) {
        let program = occasion.program;
        let of = work.conversion.earnings[earning].clone();
        let Some(tiers) = retroactive(&of.rule) else { return };
        let window = rates::window_key(tiers.window, of.date);
        let tally = self.accrued(work, &(of.partner.clone(), of.rule.key.clone(), window));
        let crossed = tier_number(tiers, before) != reached(tiers, &tally, of.rule_set);
        if !(crossed || of.part > 0) || !rates::is_open(tiers.window, of.date, today(entry, program)) {
            return;
        }
        let all = outstanding(tiers, &tally, of.rule_set);
        if all == 0 {
            return;
        }
        let mut owed = all;
        for (cap, owner) in [(of.rule.caps.partner_month, &of.partner), (of.rule.caps.program_month, &program.id)] {
            let Some(cap) = cap else { continue };
            let key = (owner.clone(), of.rule.key.clone(), rates::month_key(of.date));
            owed = owed.min((i128::from(cap) - self.accrued(work, &key).commission).max(0));
        }
        let kept = kept_of(tiers, &tally, of.rule_set, all, owed);
        let base = Base { earned: owed, lacking: kept.clone(), ..Base::default() };
        let step = Tally { commission: owed, bases: BTreeMap::from([(of.rule_set, base)]), ..Tally::default() };
        let keys = keys(&of, &work.conversion.program);
        work.fresh.extend(keys.into_iter().map(|key| (key, step.clone())));
        let mut line = Line { crossed: true, kept, ..true_up_line(entry, program, work, earning, owed) };
        // It happened when what crossed was sold.
        let slice = work.all.iter().map(|(_, line)| line).find(|line| line.earning == Some(earning));
        line.occurred_at = slice.map_or(entry.at, |line| line.occurred_at);
        if work.conversion.suspicious && owed >= 0 {
            (line.state, line.reviewed) = (State::Held, false);
        }
        line.hands.extend(occasion.hand.map(str::to_owned));
        work.add(line);
    }

    /// Where a partner stands under a tiered rule, in conversions or minor units.
    pub(super) fn position(&self, work: &Work, (rule, rule_set): (&Rule, u32), partner: &str, date: Date) -> i128 {
        let Reward::Tiered(tiers) = &rule.reward else { return 0 };
        let first = match tiers.window {
            Window::Rolling(days) => i64::from(days) - 1,
            _ => 0,
        };
        let of_day = |back: i64| {
            let date = date.checked_sub(jiff::Span::new().days(back)).unwrap_or(date);
            let key = (partner.to_owned(), rule.key.clone(), rates::window_key(tiers.window, date));
            at(tiers.metric, &self.accrued(work, &key), rule_set)
        };
        (0..=first).map(of_day).sum()
    }

    /// What retroactive tiers owe, or have too much of, once something went back or returned: one line each, while the window is open.
    /// Silent in the rules: it is told by the conversion's latest attribution and the sale itself before its edits; and what a cap kept
    /// back is not owed, the month pays what it has left, and what was taken for this conversion returns.
    pub(super) fn true_up(&self, entry: &Entry, program: &Program, settled: &[Work], work: &mut Work) {
        let today = today(entry, program);
        let mut seen = Vec::new();
        let mut foremost: Vec<usize> = (0..work.conversion.earnings.len()).collect();
        foremost.sort_by_key(|n| {
            let earning = &work.conversion.earnings[*n];
            (std::cmp::Reverse(earning.attribution), earning.part)
        });
        for n in foremost {
            let earning = work.conversion.earnings[n].clone();
            let Some(tiers) = retroactive(&earning.rule) else { continue };
            let window = rates::window_key(tiers.window, earning.date);
            let key = (earning.partner.clone(), earning.rule.key.clone(), window);
            if seen.contains(&(key.clone(), earning.rule_set)) {
                continue;
            }
            seen.push((key.clone(), earning.rule_set));
            let mut before = self.tally(settled, &key);
            work.fresh.iter().filter(|(other, _)| *other == key).for_each(|(_, step)| before.add(step, 1));
            let after = self.tally(settled.iter().chain([&*work]), &key);
            if before == after || !rates::is_open(tiers.window, earning.date, today) {
                continue;
            }
            let all = outstanding(tiers, &after, earning.rule_set);
            let mut owed = all;
            let caps = &earning.rule.caps;
            for (cap, owner) in [(caps.partner_month, &earning.partner), (caps.program_month, &program.id)] {
                let Some(cap) = cap else { continue };
                let month = (owner.clone(), earning.rule.key.clone(), rates::month_key(earning.date));
                let left = i128::from(cap) - self.tally(settled.iter().chain([&*work]), &month).commission;
                let same = |line: &&Line| {
                    let of = line.earning.map(|n| &work.conversion.earnings[n]);
                    line.kind == Kind::TrueUp
                        && !(line.crossed && line.amount > 0)
                        && of.is_some_and(|of| of.partner == earning.partner && of.rule.key == earning.rule.key)
                };
                let moved: i128 = work.lines().into_iter().filter(same).map(|line| line.amount).sum();
                owed = owed.min((-moved).max(0).max(left));
            }
            let kept = kept_of(tiers, &after, earning.rule_set, all, owed);
            if owed != 0 || !kept.is_empty() {
                let line = Line { kept, ..true_up_line(entry, program, work, n, owed) };
                work.add(line);
            }
        }
    }
}

/// How far a version's sales came, with those before. Silent in the rules: what later versions sold is no step of theirs where the whole
/// window is rated again.
fn at(metric: Metric, tally: &Tally, rule_set: u32) -> i128 {
    let come = |all: i128, of: &dyn Fn(&Base) -> i128| {
        all - tally.bases.iter().filter(|(version, _)| **version > rule_set).map(|(_, base)| of(base)).sum::<i128>()
    };
    match metric {
        Metric::Count => come(tally.count, &|base| base.count),
        Metric::Revenue => come(tally.revenue, &|base| base.revenue),
        Metric::Commission => come(tally.commission, &|base| base.earned),
    }
}

/// What the window lacks for all of it to have been rated at the tier it reached.
fn outstanding(tiers: &Tiers, tally: &Tally, rule_set: u32) -> i128 {
    let tier = tiers.steps.get(reached(tiers, tally, rule_set));
    tier.map_or(0, |(after, pay)| outstanding_at(*after, *pay, tally, rule_set))
}

/// Which tier a window has reached that is rated as a whole. Silent in the rules: what is earned counts for itself, so by commission it is the
/// first tier that does not earn enough for the next.
fn reached(tiers: &Tiers, tally: &Tally, rule_set: u32) -> usize {
    if tiers.metric != Metric::Commission {
        return tier_number(tiers, at(tiers.metric, tally, rule_set));
    }
    let is_enough = |of: &[(i64, Pay)]| {
        let (after, pay) = of[0];
        at(tiers.metric, tally, rule_set) + outstanding_at(after, pay, tally, rule_set) > i128::from(of[1].0)
    };
    tiers.steps.windows(2).take_while(|of| is_enough(of)).count()
}

/// What caps keep back of a true-up, at each tier. Silent in the rules: it stays so, even all of it.
fn kept_of(tiers: &Tiers, tally: &Tally, rule_set: u32, all: i128, owed: i128) -> BTreeMap<i64, i128> {
    let kept_at =
        |(after, pay): &(i64, Pay)| (*after, (outstanding_at(*after, *pay, tally, rule_set).min(all) - owed).max(0));
    tiers.steps.iter().map(kept_at).filter(|(_, kept)| *kept != 0).collect()
}

fn outstanding_at(after: i64, pay: Pay, tally: &Tally, rule_set: u32) -> i128 {
    let base = tally.bases.get(&rule_set).cloned().unwrap_or_default();
    let kept = base.kept.get(&after).copied().unwrap_or_default();
    let lacks = match pay {
        Pay::Rate(rate) => round(base.revenue * i128::from(rate), WHOLE) - base.earned - kept,
        Pay::Amount(amount) => {
            // Silent in the rules: of a conversion that is shared the share is due, and shares that are alike are rounded together.
            let alone = base.count - base.shared.values().sum::<i128>();
            let by_share =
                base.shared.iter().map(|((part, whole), count)| round(i128::from(amount) * part * count, *whole));
            i128::from(amount) * alone + by_share.sum::<i128>() - base.earned - base.partial - kept
        }
    };
    // Silent in the rules: what a month kept back of a true-up may be lacking.
    lacks - lacks.clamp(0, base.lacking.get(&after).copied().unwrap_or_default())
}

fn today(entry: &Entry, program: &Program) -> Date {
    let zone = TimeZone::get(program.time_zone).unwrap_or(TimeZone::UTC);
    entry.at.to_zoned(zone).date()
}

fn tier_number(tiers: &Tiers, position: i128) -> usize {
    tiers.steps.iter().rposition(|(after, _)| position > i128::from(*after)).unwrap_or(0)
}

fn true_up_line(entry: &Entry, program: &Program, work: &Work, earning: usize, owed: i128) -> Line {
    let of = &work.conversion.earnings[earning];
    // What is due waits for the conversion that crossed; nothing waits to be taken back.
    let due_at: Timestamp = if owed < 0 { entry.at } else { of.due_at };
    let reviewed = owed < 0 || program.approves_automatically;
    let sold_now = earning >= work.earlier;
    // Of a sale that somebody should look at, all that could be paid waits.
    let stopped = owed > 0 && sold_now && work.conversion.suspicious;
    let reviewed = reviewed && !stopped;
    let state = if owed < 0 {
        State::Payable
    } else if stopped {
        State::Held
    } else {
        State::at_gates(reviewed, due_at, entry.at)
    };
    let mut line = work.line_of(entry, earning, Kind::TrueUp, owed);
    (line.state, line.reviewed, line.due_at, line.hands) = (state, reviewed, due_at, author(entry));
    line
}
