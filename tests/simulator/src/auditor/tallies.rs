//! Tallies: what conversions contribute to tier positions, caps and retroactive targets, and what true-ups bring up to date.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::accrual::Work;
use super::model::{Base, Conversion, Earning, Kind, Line, State, Tally, TallyKey};
use super::rates::{self, WHOLE, round};
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

/// Silent in the rules: only conversions that were rated by tiers, or under a cap, count for them.
fn keys(earning: &Earning, program: &str) -> Vec<TallyKey> {
    let key = |owner: &str, window: String| (owner.to_owned(), earning.rule.key.clone(), window);
    let mut keys = Vec::new();
    if let Reward::Tiered(tiers) = &earning.rule.reward {
        keys.push(key(&earning.partner, rates::window_key(tiers.window, earning.date)));
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
        let commission: i128 = standing().map(|line| line.net()).sum();
        let count = i128::from(counts && earning.part == 0);
        let revenue = if counts { earning.base - round(earning.base * part, whole) } else { 0 };
        let mut tally = Tally { count, revenue, commission, bases: BTreeMap::new() };
        if retroactive(&earning.rule).is_some() {
            // Silent in the rules: an amount per conversion that was refunded in part is not due again.
            let of_earning = || standing().filter(|line| line.kind != Kind::TrueUp);
            let partial = of_earning().map(|line| line.earned() - line.net()).sum();
            let base = Base { count, revenue, earned: commission, partial: if counts { partial } else { 0 } };
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
    pub(super) fn tally(&self, works: &[Work], key: &TallyKey) -> Tally {
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

    /// Where a partner stands under a tiered rule, in conversions or minor units.
    pub(super) fn position(&self, works: &[Work], rule: &Rule, partner: &str, date: jiff::civil::Date) -> i128 {
        let Reward::Tiered(tiers) = &rule.reward else { return 0 };
        let first = match tiers.window {
            Window::Rolling(days) => i64::from(days) - 1,
            _ => 0,
        };
        let of_day = |back: i64| {
            let date = date.checked_sub(jiff::Span::new().days(back)).unwrap_or(date);
            let key = (partner.to_owned(), rule.key.clone(), rates::window_key(tiers.window, date));
            at(tiers.metric, &self.tally(works, &key))
        };
        (0..=first).map(of_day).sum()
    }

    /// What retroactive tiers owe, or have too much of, after changes: one line each. A sale owes only where it crosses.
    pub(super) fn true_up(&self, entry: &Entry, program: &Program, works: &mut [Work], sale: bool) {
        let zone = TimeZone::get(program.time_zone).unwrap_or(TimeZone::UTC);
        let today = entry.at.to_zoned(zone).date();
        let mut seen = Vec::new();
        for w in (0..works.len()).rev() {
            for n in (0..works[w].conversion.earnings.len()).rev() {
                let earning = works[w].conversion.earnings[n].clone();
                let Some(tiers) = retroactive(&earning.rule) else { continue };
                let window = rates::window_key(tiers.window, earning.date);
                let key = (earning.partner.clone(), earning.rule.key.clone(), window);
                if seen.contains(&(key.clone(), earning.rule_set)) {
                    continue;
                }
                seen.push((key.clone(), earning.rule_set));
                let before = self.tallies.get(&key).cloned().unwrap_or_default();
                let after = self.tally(works, &key);
                let reached = |tally: &Tally| rates::tier_at(tiers, at(tiers.metric, tally));
                let crossed =
                    tier_number(tiers, at(tiers.metric, &before)) != tier_number(tiers, at(tiers.metric, &after));
                let due =
                    if sale { crossed } else { before != after && rates::is_open(tiers.window, earning.date, today) };
                if !due {
                    continue;
                }
                let base = after.bases.get(&earning.rule_set).copied().unwrap_or_default();
                let owed = match reached(&after) {
                    Pay::Rate(rate) => round(base.revenue * i128::from(rate), WHOLE) - base.earned,
                    Pay::Amount(amount) => i128::from(amount) * base.count - base.earned - base.partial,
                };
                if owed != 0 {
                    let line = true_up_line(entry, program, &works[w], n, owed);
                    works[w].add(line);
                }
            }
        }
    }
}

pub const fn at(metric: Metric, tally: &Tally) -> i128 {
    match metric {
        Metric::Count => tally.count,
        Metric::Revenue => tally.revenue,
        Metric::Commission => tally.commission,
    }
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
    // Where something was sold, it happened then; where something else moved what is owed, it happens now.
    let sold = work.all.iter().map(|(_, line)| line).find(|line| line.earning == Some(earning));
    line.occurred_at = sold.filter(|_| sold_now).map_or(entry.at, |line| line.occurred_at);
    line
}
