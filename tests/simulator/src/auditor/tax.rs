//! Tax: what is asked of a payout by who the partner is and what was paid so far, and what of it is kept back.
//!
//! Whoever decides reads forms and payments some time between beginning and writing, so there can be several answers; what is
//! written must be one of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::model::{Kind, Line, PageLine, Payout, State};
use super::rates::round;
use super::stored::Items;
use super::{Auditor, Checked, Effect, Entry, Invariant, ensure, int, list, skew, text, violation};
use crate::told::{Form, Program, Told};

/// In basis points: of payees who gave no number, and of foreign ones.
const BACKUP: i128 = 2_400;
const NONRESIDENT: i128 = 3_000;

/// What is kept back, from what amount on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub kind: &'static str,
    /// Basis points.
    pub rate: i128,
    pub from: i128,
}

impl Terms {
    pub fn of(&self, gross: i128) -> i128 {
        if gross > 0 && gross >= self.from { round(gross * self.rate, 10_000) } else { 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    /// Nothing that comes to so much may be paid.
    Blocked(i128),
    Keep(Terms),
}

impl Asked {
    pub fn blocks(&self, gross: i128) -> bool {
        matches!(self, Self::Blocked(from) if gross > 0 && gross >= *from)
    }

    fn keeps(&self, gross: i128) -> i128 {
        self.terms().map_or(0, |terms| terms.of(gross))
    }

    const fn terms(&self) -> Option<&Terms> {
        match self {
            Self::Keep(terms) => Some(terms),
            _ => None,
        }
    }
}

/// What a payout counts for in a year.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub direct: i128,
    pub processor: i128,
    pub backup: i128,
    pub nonresident: i128,
}

/// Where a partner stands: years as they were paid, and payouts that are on their way with what of them has not arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    years: BTreeMap<i16, Counted>,
    on_their_way: BTreeMap<String, i128>,
}

fn zone(program: &Program) -> TimeZone {
    TimeZone::get(program.time_zone).unwrap_or(TimeZone::UTC)
}

fn date(program: &Program, at: Timestamp) -> Date {
    at.to_zoned(zone(program)).date()
}

/// Payments of a payout by year: each part for its share of what it comes to before tax.
fn counted(program: &Program, payout: &Payout) -> BTreeMap<i16, Counted> {
    let mut years: BTreeMap<i16, Counted> = BTreeMap::new();
    let (whole, gross, withheld) = (payout.due(), payout.gross(), payout.withheld());
    let (mut before, mut so_far) = (0, 0);
    for (part, at) in &payout.parts {
        so_far += part;
        let share = |of: i128| round(of * so_far, whole) - round(of * before, whole);
        let year = years.entry(date(program, *at).year()).or_default();
        if payout.method == "paypal" {
            year.processor += share(gross);
        } else {
            year.direct += share(gross);
        }
        if payout.terms.iter().flatten().any(|terms| terms.kind == "nonresident") {
            year.nonresident += share(withheld);
        } else {
            year.backup += share(withheld);
        }
        before = so_far;
    }
    years
}

/// What of a payout arrived, in all years.
fn arrived(program: &Program, payout: &Payout) -> i128 {
    counted(program, payout).values().map(|year| year.direct).sum()
}

impl Auditor {
    fn position_with_tax(&self, program: &Program, partner: &str) -> Position {
        let mut position = Position::default();
        for (id, payout) in self.payouts.iter().filter(|(_, payout)| payout.partner == partner) {
            let years = counted(program, payout);
            let arrived: i128 = years.values().map(|year| year.direct).sum();
            for (year, count) in years {
                let sum = position.years.entry(year).or_default();
                sum.direct += count.direct;
                sum.processor += count.processor;
                sum.backup += count.backup;
                sum.nonresident += count.nonresident;
            }
            let under_way = matches!(payout.state, "submitting" | "submitted" | "partially_paid");
            if under_way && payout.method != "paypal" {
                position.on_their_way.insert(id.clone(), payout.gross() - arrived);
            }
        }
        position
    }

    /// Notes where the partner of a payout stands after an entry.
    pub(super) fn note_position(&mut self, told: &Told, partner: &str) -> Checked {
        let (_, program) = super::program_of(told, partner)?;
        if program.withholds.is_some() {
            let position = self.position_with_tax(program, partner);
            self.standing.entry(partner.to_owned()).or_default().push((told.tick + 1, position));
        }
        Ok(())
    }

    /// The days on which a payout may be found to be paid: `paid_at`, or whenever the entry is written.
    pub(super) fn days(program: &Program, told: &Told, entry: &Entry, paid_at: Option<Timestamp>) -> BTreeSet<Date> {
        let (_, since_at) = told.since;
        match paid_at {
            Some(at) => BTreeSet::from([date(program, at)]),
            None => BTreeSet::from([date(program, since_at.min(entry.at) - skew()), date(program, entry.at)]),
        }
    }

    /// Everything that tax may be found to ask on these days of a payout of the partner by this method. `besides` is not counted as on its
    /// way, and `along` goes out together with it.
    pub(super) fn asked(
        &self,
        told: &Told,
        dates: &BTreeSet<Date>,
        (partner, method): (&str, &str),
        besides: &str,
        along: i128,
    ) -> Checked<Vec<Asked>> {
        let (partner_told, program) = super::program_of(told, partner)?;
        let Some(withholds) = program.withholds else { return Ok(vec![Asked::Nothing]) };
        let (since, _) = told.since;
        let mut forms: Vec<Option<&Form>> = vec![None];
        for form in told.forms.iter().filter(|form| form.partner == partner) {
            if form.since <= since {
                forms.clear();
            }
            forms.push(Some(form));
        }
        let never = Position::default();
        let mut positions: Vec<&Position> = vec![&never];
        for (at, position) in self.standing.get(partner).into_iter().flatten() {
            if *at <= since {
                positions.clear();
            }
            positions.push(position);
        }
        let mut all = Vec::new();
        for (form, today) in forms.iter().flat_map(|form| dates.iter().map(move |date| (form, *date))) {
            let valid =
                form.filter(|form| !form.revoked && (form.kind == "w9" || today.year() <= form.signed_on.year() + 3));
            let foreign =
                form.is_some_and(|form| form.kind != "w9") || partner_told.country.is_some_and(|of| of != "US");
            match valid {
                Some(form) if form.kind == "w9" || form.abroad => all.push(Asked::Nothing),
                Some(form) => {
                    let rate = form.treaty.map_or(NONRESIDENT, i128::from);
                    let terms = Terms { kind: "nonresident", rate, from: 0 };
                    all.push(if rate == 0 { Asked::Nothing } else { Asked::Keep(terms) });
                }
                None if foreign => all.push(Asked::Blocked(0)),
                None if method == "paypal" => all.push(Asked::Nothing),
                None => all.extend(positions.iter().map(|position| {
                    let from = missing(told, position, today.year(), besides, along);
                    if withholds {
                        Asked::Keep(Terms { kind: "backup", rate: BACKUP, from })
                    } else {
                        Asked::Blocked(from)
                    }
                })),
            }
        }
        Ok(all)
    }

    /// On what terms a payout may be drafted. Of a draft of several pages nobody can tell what it will come to.
    pub(super) fn drafted_on(
        &self,
        told: &Told,
        entry: &Entry,
        payout: &Payout,
        whole: bool,
    ) -> Checked<Vec<Option<Terms>>> {
        let (_, program) = super::program_of(told, &payout.partner)?;
        let dates = Self::days(program, told, entry, None);
        let asked = self.asked(told, &dates, (&payout.partner, payout.method), entry.stream, 0)?;
        let gross = payout.gross();
        let may_be = |asked: &&Asked| !whole || !asked.blocks(gross);
        let terms: Vec<_> = asked.iter().filter(may_be).map(|asked| asked.terms().cloned()).collect();
        ensure!(!terms.is_empty(), PayoutIsItsLines, "{}: drafts {gross}, which tax forbids: {asked:?}", entry.name());
        Ok(terms)
    }

    /// What is sent now, or was at `paid_at`, keeps back what tax asks for then.
    pub(super) fn tax_stands(
        &self,
        told: &Told,
        entry: &Entry,
        (id, payout): (&str, &Payout),
        along: i128,
        paid_at: Option<Timestamp>,
    ) -> Checked {
        let (_, program) = super::program_of(told, &payout.partner)?;
        let dates = Self::days(program, told, entry, paid_at);
        let along = along - arrived(program, payout);
        let asked = self.asked(told, &dates, (&payout.partner, payout.method), id, along)?;
        let (gross, withheld) = (payout.gross(), payout.withheld());
        let stands = asked.iter().any(|asked| !asked.blocks(gross) && asked.keeps(gross) == withheld);
        ensure!(stands, ExactCents, "{}: sends {id}, of {gross} less {withheld}, and tax asks {asked:?}", entry.name());
        Ok(())
    }

    /// Brings the tax of a payout that waits to be sent to what its terms say; of several that may apply, to those that fit what was
    /// written.
    pub(super) fn tax(
        entry: &Entry,
        id: &str,
        payout: &mut Payout,
        effect: &mut Vec<(Option<String>, Line)>,
        lines: &BTreeMap<String, Line>,
    ) {
        if !matches!(payout.state, "pending" | "approved") {
            return;
        }
        let change =
            list(entry.value, "payouts").iter().find(|change| text(change, "id") == id).unwrap_or(&Value::Null);
        let gross = payout.gross();
        let due = |terms: &Option<Terms>| terms.as_ref().map_or(0, |terms| terms.of(gross));
        let found = gross - int(change, "amount");
        if payout.terms.iter().any(|terms| due(terms) == found) {
            payout.terms.retain(|terms| due(terms) == found);
        }
        let due = payout.terms.first().map_or(0, due);
        if due == payout.withheld() {
            return;
        }
        if let Some(on_page) = payout.pages.iter_mut().flatten().find(|line| line.withheld) {
            on_page.net = -due;
            if let Some(line) = lines.get(&on_page.id) {
                effect.push((Some(on_page.id.clone()), Line { amount: -due, ..line.clone() }));
            }
            return;
        }
        let line_id = text(&change["tax"], "line").to_owned();
        let place = Some((id.to_owned(), payout.pages.len()));
        payout.pages.push(vec![PageLine { id: line_id, net: -due, withheld: true, hands: BTreeSet::new() }]);
        let line = Line {
            state: State::InPayout,
            payout: place,
            ..Line::alone(entry, Kind::Withholding, payout.partner.clone(), -due)
        };
        effect.push((None, line));
    }

    /// What was about to be sent keeps back something else from now on, and waits to be approved anew.
    pub(super) fn taxed_anew(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let id = list(entry.value, "payouts").first().map_or("", |change| text(change, "id")).to_owned();
        let Some(mut payout) = self.payouts.get(&id).filter(|payout| payout.is_open()).cloned() else {
            return violation(Invariant::OneState, format!("{name}: {id} is not open"));
        };
        ensure!(entry.by == "settlement", Access, "{name}: is for nobody to say");
        // It may have been about to go out with others of the partner.
        let mut along = BTreeSet::from([0]);
        let others = |(other, payout): &(&String, &Payout)| **other != id && payout.state == "approved";
        for (_, other) in self.payouts.iter().filter(|(_, other)| other.partner == payout.partner).filter(others) {
            along.extend(along.clone().into_iter().map(|sum| sum + other.gross()));
        }
        // Or somebody attests that it was paid on an earlier day.
        let (_, program) = super::program_of(told, &payout.partner)?;
        let attested =
            told.commands.iter().flat_map(|command| &command.payments).filter(|payment| payment.payout == id);
        let days = attested.filter_map(|payment| payment.at).map(|at| date(program, at));
        let dates: BTreeSet<Date> = days.chain(Self::days(program, told, entry, None)).collect();
        let mut asked = Vec::new();
        for along in along {
            asked.extend(self.asked(told, &dates, (&payout.partner, payout.method), &id, along)?);
        }
        let former = payout.terms.first().cloned().flatten();
        let taxed = payout.pages.iter().flatten().any(|line| line.withheld);
        // Where nothing is kept back any more, the line stays and says so.
        let nothing = former.filter(|_| taxed).map(|former| Terms { rate: 0, ..former });
        payout.terms = asked.iter().map(|asked| asked.terms().cloned().or_else(|| nothing.clone())).collect();
        payout.version += 1;
        payout.approvals.clear();
        payout.state = "pending";
        let (before, mut lines) = (payout.withheld(), Vec::new());
        Self::tax(entry, &id, &mut payout, &mut lines, &self.lines);
        ensure!(payout.withheld() != before, OneState, "{name}: {id} keeps back {before} as before");
        Ok(Effect { lines, payouts: BTreeMap::from([(id, payout)]) })
    }

    /// What partners were paid in years, as it is stored, and the terms of payouts.
    pub(super) fn stored_tax(&self, told: &Told, items: &Items) -> Checked {
        let mut expected: BTreeMap<(String, String), Counted> = BTreeMap::new();
        for partner in &told.partners {
            let program = &told.programs[partner.program];
            if program.withholds.is_some() {
                for (year, counted) in self.position_with_tax(program, &partner.id).years {
                    expected.insert((year.to_string(), partner.id.clone()), counted);
                }
            }
        }
        expected.retain(|_, counted| *counted != Counted::default());
        let years = items.iter().filter(|((pk, _), _)| pk.starts_with("TAX#"));
        let mut found: BTreeMap<(String, String), Counted> = BTreeMap::new();
        for ((pk, partner), item) in years {
            let Some(year) = pk.split('#').nth(1).filter(|year| year.parse::<i16>().is_ok()) else { continue };
            let sum = |field: &str| int(item, field);
            let counted = Counted {
                direct: sum("direct"),
                processor: sum("processor"),
                backup: sum("backup"),
                nonresident: sum("nonresident"),
            };
            found.insert((year.to_owned(), partner.clone()), counted);
        }
        found.retain(|_, counted| *counted != Counted::default());
        ensure!(found == expected, ExactCents, "paid in years: expected {expected:?}, found {found:?}");
        Ok(())
    }

    /// A payout's terms as stored are those it was drafted on.
    pub(super) fn stored_terms(id: &str, payout: &Payout, item: &Value) -> Checked {
        let stored = &item["withholding"];
        let same = |terms: &Option<Terms>| match terms {
            None => stored.is_null(),
            Some(terms) => {
                let told = (text(stored, "kind"), percent(text(stored, "rate")), int(stored, "from"));
                told == (terms.kind, Some(terms.rate), terms.from)
            }
        };
        let known = payout.terms.iter().any(same);
        ensure!(known, ExactCents, "{id}: expected the terms of tax {:?}, found {stored}", payout.terms);
        let (withheld, found) = (payout.withheld(), int(item, "withheld"));
        ensure!(withheld == found, ExactCents, "{id}: expected {withheld} to be withheld, found {found}");
        Ok(())
    }
}

/// From what amount on tax asks something of somebody who gave no number.
fn missing(told: &Told, position: &Position, year: i16, besides: &str, along: i128) -> i128 {
    let last = position.years.get(&(year - 1)).copied().unwrap_or_default();
    if last.direct >= told.limit(year - 1) || last.backup > 0 {
        return 0;
    }
    let on_their_way: i128 =
        position.on_their_way.iter().filter(|(id, _)| *id != besides).map(|(_, amount)| amount).sum();
    let paid = position.years.get(&year).map_or(0, |year| year.direct);
    (told.limit(year) - paid - on_their_way - along).max(0)
}

/// A percentage in basis points.
fn percent(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{part:0<2}").parse().ok().filter(|_| part.len() <= 2)
}
