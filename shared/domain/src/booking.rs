//! Booking: what one more event, or a person's decision, does to all lines of a conversion and to the tallies they count in.
//!
//! One function for everything that moves a conversion's money, so that a sale, a refund, an edit, an attribution by hand and an
//! adjustment cannot disagree about cents: new parts of the order accrue, the reversal brings every earning to its target, tallies move by
//! what each earning's contribution moved, and what retroactive tiers then owe is trued up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::accrual::{Accrual, Circumstances, EarlierParts, Moved, Terms, true_ups};
use crate::ids::{ConversionId, PayoutId};
use crate::journal::Change;
use crate::line::{Line, LineError, LineKind, LineState};
use crate::money::MoneyError;
use crate::order::{Order, Part};
use crate::payout::OpenPayout;
use crate::program::Program;
use crate::rating::Applied;
use crate::reversal::{EarningKey, Reversal, changes, share};
use crate::rules::Rule;
use crate::tally::{Owner, Tallies, TallyKey, contribution};

/// The resolved rules of the rule set versions in play.
pub type RulesByVersion = BTreeMap<u32, Vec<Rule>>;

/// A conversion between two of its states.
#[derive(Debug, Clone, Copy)]
pub struct Booking<'a> {
    pub program: &'a Program,
    pub conversion: &'a ConversionId,
    /// The source's own id of the order.
    pub order: &'a str,
    pub rules: &'a RulesByVersion,
    pub before: State<'a>,
    pub after: State<'a>,
    /// The payouts whose lines may still change.
    pub open: &'a BTreeMap<PayoutId, OpenPayout>,
    /// What happens, told apart from whatever else happens to the conversion; it becomes part of the identity of what is written.
    pub cause: &'a str,
    pub received_at: Timestamp,
    pub now: Timestamp,
}

/// What is known of a conversion's order at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct State<'a> {
    /// `None` until the sale arrives.
    pub order: Option<&'a Order>,
    /// The entry by which a person last attributed it; zero: nobody had to.
    pub attribution: u32,
}

/// For whom new parts of the order accrue.
#[derive(Debug, Clone, Copy)]
pub struct Accruing<'a> {
    pub circumstances: &'a Circumstances,
    pub by_hand: Option<&'a str>,
}

/// Of a decision that is told in a stream of its own: notes on the lines decided about which true-ups it caused, so that whoever reads the
/// conversion finds those, too.
pub fn note_true_ups(changes: &mut [Change]) {
    let rule = |line: &Line| line.basis.as_ref().map(|basis| basis.rule.clone());
    let caused = changes.iter().filter(|change| change.before.is_none() && change.after.kind == LineKind::TrueUp);
    let caused: Vec<_> = caused.map(|change| change.after.clone()).collect();
    for true_up in caused {
        let by = changes.iter_mut().find(|change| {
            let line = &change.after;
            change.before.is_some() && line.partner == true_up.partner && rule(line) == rule(&true_up)
        });
        if let Some(by) = by {
            by.after.true_ups.push(true_up.id);
        }
    }
}

impl<'a> Booking<'a> {
    /// The parts that have not accrued yet: what an edit added; all of it for a new sale or a new attribution.
    fn new_parts(&self) -> impl Iterator<Item = &'a Part> + use<'a> {
        let State { order: before, attribution } = self.before;
        let anew = self.after.attribution > attribution;
        let parts = self.after.order.map(Order::parts).unwrap_or_default();
        parts.iter().filter(move |part| anew || before.is_none_or(|before| before.part(part.edit.as_deref()).is_none()))
    }

    fn accrual<'b>(&'b self, accruing: &Accruing<'b>, part: &'b Part, earlier: &'b EarlierParts) -> Accrual<'b> {
        let first = self.after.order.and_then(|order| order.parts().first()).unwrap_or(part);
        let version = accruing.circumstances.rule_set;
        Accrual {
            program: self.program,
            circumstances: accruing.circumstances,
            rules: self.rules.get(&version).map(Vec::as_slice).unwrap_or_default(),
            conversion: self.conversion,
            order: self.order,
            sale: &part.sale,
            whole: &first.sale,
            edit: part.edit.as_deref(),
            attribution: self.after.attribution,
            by_hand: accruing.by_hand,
            sold_at: first.occurred_at,
            occurred_at: part.occurred_at,
            received_at: self.received_at,
            now: self.now,
            earlier,
        }
    }

    /// Whether the rules of its version rate a renewal that was begun under them, at whatever time it occurs.
    pub fn keeps_version(&self, accruing: &Accruing<'_>) -> Result<bool, MoneyError> {
        let none = EarlierParts::new();
        self.new_parts().next().map_or(Ok(false), |part| self.accrual(accruing, part, &none).keeps_version())
    }

    /// The tallies that must be read before booking: single ones, and for rolling windows ranges, both ends inclusive.
    pub fn reads(
        &self,
        lines: &[Line],
        accruing: Option<&Accruing<'_>>,
    ) -> Result<Vec<(TallyKey, TallyKey)>, MoneyError> {
        let mut reads: BTreeSet<_> = lines.iter().flat_map(tallies_of).map(|key| (key.clone(), key)).collect();
        if let Some(accruing) = accruing {
            for part in self.new_parts() {
                reads.extend(self.accrual(accruing, part, &EarlierParts::new()).reads()?);
            }
        }
        Ok(reads.into_iter().collect())
    }

    /// Books. `lines` are all lines of the conversion, `decided` the same after what a person decided about some of them. What is to be
    /// added to tallies goes into `tallies`.
    pub fn book(
        &self,
        lines: &[Line],
        decided: Vec<Line>,
        accruing: Option<&Accruing<'_>>,
        tallies: &mut Tallies,
    ) -> Result<Vec<Change>, LineError> {
        // What is attributed anew frees its positions and caps before it is earned again.
        let by_hand = accruing.and_then(|accruing| accruing.by_hand);
        let freed = if self.after.attribution > self.before.attribution {
            self.reverse(decided.clone(), by_hand)?
        } else {
            Vec::new()
        };
        let nothing_new = BTreeSet::new();
        let mut moved = self.moved(self.before, &lines.iter().collect::<Vec<_>>(), &nothing_new, &freed, tallies)?;
        let (from, known, decided) =
            if freed.is_empty() { (self.before, lines, decided) } else { (self.after, &freed[..], freed.clone()) };
        let new = match accruing {
            Some(accruing) => self.accrue(&decided, accruing, tallies)?,
            None => Vec::new(),
        };
        let accrued: BTreeSet<_> = new.iter().filter_map(Line::earning).collect();
        let gross = [decided, new].concat();
        let mut all = self.reverse(gross.clone(), by_hand)?;
        let before: Vec<_> =
            gross.iter().filter(|line| line.earning().is_some_and(|key| accrued.contains(&key))).chain(known).collect();
        moved.extend(self.moved(from, &before, &accrued, &all, tallies)?);
        for one in &mut moved {
            one.of = self.foremost(one.of, &all);
        }
        let terms = Terms::of(self.program);
        let mut trued_up = true_ups(&moved, &all, self.program, &terms, tallies, self.cause, self.now)?;
        let objection = accruing.and_then(|accruing| accruing.circumstances.objection.as_ref());
        for line in &mut trued_up {
            line.hands = by_hand.map(str::to_owned).into_iter().collect();
            // As all that is earned of a sale that somebody should look at.
            let of = Line { kind: LineKind::Commission, ..line.clone() };
            if let Some(why) = objection.filter(|_| line.amount.is_positive())
                && of.earning().is_some_and(|key| accrued.contains(&key))
            {
                line.approved_at = None;
                line.state = LineState::Held { reviewed: false, why: why.clone() };
            }
        }
        all.extend(trued_up);
        Ok(changes(lines, all))
    }

    /// All lines once what went back came off them.
    fn reverse(&self, lines: Vec<Line>, by_hand: Option<&str>) -> Result<Vec<Line>, LineError> {
        let Some(order) = self.after.order else { return Ok(lines) };
        let attribution = self.after.attribution;
        let reversal = Reversal { order, attribution, open: self.open, event: self.cause, by_hand, now: self.now };
        reversal.apply(lines)
    }

    /// What new parts of the order earn, before anything of it went back.
    pub fn accrue(
        &self,
        lines: &[Line],
        accruing: &Accruing<'_>,
        tallies: &mut Tallies,
    ) -> Result<Vec<Line>, MoneyError> {
        let mut new: Vec<Line> = Vec::new();
        for part in self.new_parts() {
            let earlier = self.earlier(lines.iter().chain(&new))?;
            new.extend(self.accrual(accruing, part, &earlier).lines(tallies)?);
        }
        Ok(new)
    }

    /// What the parts of the order that accrued before came to, for whom it is now due to.
    fn earlier<'b>(&self, lines: impl Iterator<Item = &'b Line>) -> Result<EarlierParts, MoneyError> {
        let mut parts = EarlierParts::new();
        for line in lines.filter(|line| is_head(line)).filter(|line| line.attribution == self.after.attribution) {
            let Some(basis) = &line.basis else { continue };
            let (part, whole) = match self.after.order {
                Some(order) => share(order, self.after.attribution, line)?,
                None => (0, 1),
            };
            let stands = basis.earned.minus(basis.earned.proportion(part, whole)?)?;
            let earlier = parts.entry((line.partner.clone(), basis.rule.clone())).or_default();
            earlier.earned = earlier.earned.plus(stands)?;
            if line.edit.is_none()
                && let Applied::Tiered { before, .. } = &basis.reward
            {
                earlier.position = Some(*before);
            }
        }
        Ok(parts)
    }

    fn rule(&self, line: &Line) -> Option<&'a Rule> {
        let rules = self.rules.get(&line.rule_set?)?;
        rules.iter().find(|rule| rule_of(line) == Some(&rule.key))
    }

    /// Moves the tallies by what the contributions of the earnings moved. New earnings stand in `before` as they accrued, which their
    /// tallies have already.
    fn moved<'b>(
        &self,
        from: State<'_>,
        before: &[&Line],
        accrued: &BTreeSet<EarningKey>,
        after: &'b [Line],
        tallies: &mut Tallies,
    ) -> Result<Vec<Moved<'b>>, MoneyError>
    where
        'a: 'b,
    {
        let sold_at =
            self.after.order.and_then(|order| order.parts().first()).map_or(self.now, |sale| sale.occurred_at);
        let mut moved = Vec::new();
        for of in heads(after) {
            let (Some(key), Some(rule)) = (of.earning(), self.rule(of)) else { continue };
            if tallies_of(of).next().is_none() {
                continue;
            }
            let share_before = match from.order {
                Some(order) if !accrued.contains(&key) => share(order, from.attribution, of)?,
                _ => (0, 1),
            };
            let share_after = match self.after.order {
                Some(order) => share(order, self.after.attribution, of)?,
                None => (0, 1),
            };
            let retroactive = rule.retroactive().is_some();
            let of_earning = |line: &&Line| line.earning().as_ref() == Some(&key);
            let was = contribution(before.iter().copied().filter(of_earning), share_before, retroactive)?;
            let is = contribution(after.iter().filter(of_earning), share_after, retroactive)?;
            let step = is.minus(&was)?;
            if step.is_zero() {
                continue;
            }
            for key in tallies_of(of) {
                tallies.add(&key, &step)?;
            }
            moved.push(Moved { of, rule, sold_at });
        }
        Ok(moved)
    }

    /// The earning that speaks for all that a partner has of the conversion under a rule: by the latest attribution, and the sale's own
    /// before what edits added.
    fn foremost<'b>(&self, of: &'b Line, lines: &'b [Line]) -> &'b Line {
        let parts = self.after.order.map(Order::parts).unwrap_or_default();
        let alike = heads(lines).filter(|line| line.partner == of.partner && rule_of(line) == rule_of(of));
        let part = |line: &Line| parts.iter().position(|part| part.edit == line.edit).unwrap_or(usize::MAX);
        let place = |line: &&Line| (Reverse(line.attribution), part(line));
        alike.min_by_key(place).unwrap_or(of)
    }
}

fn rule_of(line: &Line) -> Option<&str> {
    line.basis.as_ref().map(|basis| basis.rule.as_str())
}

/// The first slice of each earning.
fn heads(lines: &[Line]) -> impl Iterator<Item = &Line> {
    lines.iter().filter(|line| is_head(line))
}

fn is_head(line: &Line) -> bool {
    line.kind == LineKind::Commission && line.slice.is_none_or(|slice| slice == 1)
}

/// The tallies that a line's earning counts in.
pub fn tallies_of(line: &Line) -> impl Iterator<Item = TallyKey> + '_ {
    let basis = line.basis.iter().filter(|_| line.kind != LineKind::TrueUp);
    basis.flat_map(|basis| basis.counted.iter().map(move |counted| (basis, counted))).map(|(basis, counted)| TallyKey {
        owner: if counted.program { Owner::Program } else { Owner::Partner(line.partner.clone()) },
        rule: basis.rule.clone(),
        window: counted.window.clone(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
