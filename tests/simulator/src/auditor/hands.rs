//! People: what their commands about commissions and conversions must have done.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::accrual::{Occasion, Work};
use super::model::{Kind, Line, Payout, State};
use super::{Auditor, Checked, Effect, Entry, Invariant, caused, ensure, leave_for, list, text, violation};
use crate::told::{About, Asked, Told};

impl Auditor {
    /// Whether a line may be stopped or changed in its amount.
    fn is_open(&self, line: &Line) -> bool {
        match (&line.state, &line.payout) {
            (State::Pending | State::Approved | State::Payable, _) => true,
            (State::InPayout, Some((payout, _))) => self.payouts.get(payout).is_some_and(Payout::is_open),
            _ => false,
        }
    }

    /// Whether a verdict about a line means anything.
    pub(super) fn may_be(&self, verdict: &str, line: &Line) -> bool {
        let stoppable = self.is_open(line) && line.kind != Kind::Withholding;
        match verdict {
            "approve" => line.state == State::Pending,
            "hold" => stoppable,
            "release" => line.state == State::Held,
            "reject" => stoppable || line.state == State::Held,
            _ => line.state == State::Rejected,
        }
    }

    /// Whether a line may be given another amount, itself or by an adjustment beside it. Silent in the rules: it keeps its sign, and only
    /// what is earned or given is adjusted.
    pub(super) fn may_become(&self, id: &str, line: &Line, amount: i128) -> bool {
        let adjustable = matches!(line.kind, Kind::Commission | Kind::Bonus);
        let stands = line.stands();
        let signed = amount.signum() * line.amount.signum() >= 0 && (line.kind == Kind::Bonus || amount >= 0);
        let present =
            if self.is_open(line) || line.state == State::Held { line.amount } else { self.adjusted(id, line) };
        adjustable && stands && signed && amount != present
    }

    /// What a line comes to with its adjustments.
    fn adjusted(&self, id: &str, line: &Line) -> i128 {
        let adjustments = self.lines.values().filter(|other| other.of.as_deref() == Some(id));
        line.amount + adjustments.map(|other| other.amount).sum::<i128>()
    }

    pub(super) fn review(&mut self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, ids) = (entry.name(), entry.line_ids());
        let judged: Vec<&str> = ids.into_iter().filter(|id| self.lines.contains_key(*id)).collect();
        self.called(told, entry, &judged, |_| true)?;
        let needs_reason = matches!(entry.what, "hold" | "reject" | "reinstate");
        ensure!(!needs_reason || entry.value["why"].is_string(), Access, "{name}: has no reason");
        let mut lines = Vec::new();
        for id in judged {
            let mut line = self.line(entry, id)?.clone();
            let legal = self.may_be(entry.what, &line);
            ensure!(legal, OneState, "{name}: {id} is {} and cannot change so", line.state.as_str());
            match entry.what {
                "hold" => leave_for(&mut line, State::Held),
                "reject" => leave_for(&mut line, State::Rejected),
                "reinstate" => {
                    line.released = true;
                    line.hands.insert(entry.by.to_owned());
                    line.reviewed = false;
                    line.taken += std::mem::take(&mut line.recorded);
                    let gone = if line.amount == 0 { self.wholly_refunded(&line) } else { line.net() == 0 };
                    line.state = if gone { State::Reversed } else { State::Pending };
                    line.was_held = false;
                }
                verb => {
                    if verb == "approve" {
                        line.reviewed = true;
                    } else {
                        line.released = true;
                        line.hands.insert(entry.by.to_owned());
                    }
                    line.state = State::at_gates(line.reviewed, line.due_at, entry.at);
                }
            }
            lines.push((id.to_owned(), line));
        }
        let lines = self.with_true_ups(told, entry, lines);
        Ok(self.retally(entry, Effect { lines, ..Effect::default() }))
    }

    /// Lines taken out of an open payout are free again.
    pub(super) fn exclude(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, mut lines) = (entry.name(), Vec::new());
        let mut out_of = BTreeSet::new();
        let excluded = entry.line_ids();
        ensure!(entry.value["why"].is_string(), Access, "{name}: has no reason");
        for id in excluded.iter().copied() {
            let mut line = self.line(entry, id)?.clone();
            let inside = line.state == State::InPayout && self.is_open(&line);
            ensure!(inside, OneState, "{name}: {id} is {}, in {:?}", line.state.as_str(), line.payout);
            out_of.extend(line.payout.as_ref().map(|(payout, _)| payout.clone()));
            leave_for(&mut line, State::Payable);
            lines.push((Some(id.to_owned()), line));
        }
        ensure!(out_of.len() == 1, OneState, "{name}: takes them out of {out_of:?}");
        let commanded: Vec<&str> = excluded.into_iter().chain(out_of.iter().map(String::as_str)).collect();
        caused(told, entry, About::Payouts, "exclude", &commanded)?;
        Ok(self.retally(entry, Effect { lines, ..Effect::default() }))
    }

    /// Rejecting and reinstating moves tallies, and so what retroactive tiers owe.
    fn with_true_ups(&self, told: &Told, entry: &Entry, lines: Vec<(String, Line)>) -> Vec<(Option<String>, Line)> {
        let mut works: BTreeMap<String, Vec<Work>> = BTreeMap::new();
        let mut others = Vec::new();
        for (id, line) in lines {
            let Some(conversion) = self.conversions.get(&line.conversion) else {
                others.push((Some(id), line));
                continue;
            };
            let of_program = works.entry(conversion.program.clone()).or_default();
            if !of_program.iter().any(|work| work.stream == line.conversion) {
                of_program.push(self.work(&line.conversion, conversion.clone()));
            }
            let Some(work) = of_program.iter_mut().find(|work| work.stream == line.conversion) else { continue };
            if let Some(at) = work.all.iter().position(|(known, _)| known.as_ref() == Some(&id)) {
                work.changed.insert(at);
                work.all[at].1 = line;
            }
        }
        for (program, mut works) in works {
            let program = told.programs.iter().find(|told| told.id == program);
            if let Some(program) = program.filter(|_| matches!(entry.what, "reject" | "reinstate")) {
                // One conversion after the other, by name.
                works.sort_by(|one, other| one.stream.cmp(&other.stream));
                for at in 0..works.len() {
                    let (settled, rest) = works.split_at_mut(at);
                    if let Some(work) = rest.first_mut() {
                        self.true_up(entry, program, settled, work);
                    }
                }
            }
            others.extend(works.into_iter().flat_map(Work::into_changed));
        }
        others
    }

    fn wholly_refunded(&self, line: &Line) -> bool {
        let Some(conversion) = self.conversions.get(&line.conversion) else { return false };
        let earning = line.earning.and_then(|n| conversion.earnings.get(n));
        let order = conversion.order();
        earning.zip(order).is_some_and(|(earning, order)| {
            let (part, whole) = order.refunded(earning.part, &earning.items);
            earning.given_away || part == whole
        })
    }

    // --- Amounts set by hand --------------------------------------------------------------------------------------

    pub(super) fn adjust(&mut self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let set = &entry.value["adjusted"];
        let (id, amount) = (text(set, "line"), super::int(set, "amount"));
        self.called(told, entry, &[id], |asked| asked.amount.map(i128::from) == Some(amount))?;
        let mut line = self.line(entry, id)?.clone();
        let own_stream = if line.conversion.is_empty() { id } else { line.conversion.as_str() };
        ensure!(own_stream == entry.stream, OneEffect, "{name}: is about {id}, of {own_stream}");
        let legal = self.may_become(id, &line, amount);
        ensure!(legal, OneState, "{name}: {id} is {} and cannot be adjusted", line.state.as_str());
        let changed = if self.is_open(&line) || line.state == State::Held {
            let up = amount > line.amount;
            line.amount = amount;
            line.taken = line.taken.min(amount.max(0));
            line.hands.insert(entry.by.to_owned());
            if up {
                line.reviewed = false;
                // Silent in the rules: what a person stopped stays stopped.
                let state = if line.state == State::Held { State::Held } else { State::Pending };
                leave_for(&mut line, state);
            }
            (Some(id.to_owned()), line)
        } else {
            (None, self.adjustment(entry, id, line, amount))
        };
        // What went back is measured in the whole earning, so that it may come off another of its lines.
        let lines = match self.conversions.get(&changed.1.conversion) {
            None => vec![changed],
            Some(conversion) => {
                let mut work = self.work(entry.stream, conversion.clone());
                match work.all.iter().position(|(known, _)| changed.0.is_some() && *known == changed.0) {
                    Some(at) => {
                        work.changed.insert(at);
                        work.all[at] = changed;
                    }
                    None => work.add(changed.1),
                }
                self.reverse(entry, &mut work)?;
                if let Some(program) = super::events::program_of(told, conversion) {
                    self.true_up(entry, program, &[], &mut work);
                }
                work.into_changed()
            }
        };
        Ok(self.retally(entry, Effect { lines, ..Effect::default() }))
    }

    /// What is paid or being paid stays as it is; another line has the difference.
    fn adjustment(&self, entry: &Entry, id: &str, line: Line, amount: i128) -> Line {
        let amount = amount - self.adjusted(id, &line);
        let reviewed = amount < 0;
        Line {
            kind: Kind::Adjustment,
            slice: None,
            of: Some(id.to_owned()),
            amount,
            taken: 0,
            recorded: 0,
            state: if reviewed { State::Payable } else { State::Pending },
            reviewed,
            was_held: false,
            payout: None,
            hands: BTreeSet::from([entry.by.to_owned()]),
            occurred_at: entry.at,
            due_at: entry.at,
            seen_at: entry.now,
            fell_at: Timestamp::MAX,
            version: 0,
            entry: String::new(),
            ..line
        }
    }

    pub(super) fn bonus(told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let partner = super::partner_in(entry.stream);
        let line = list(entry.value, "lines").first();
        let amount = line.map_or(0, |line| super::int(&line["to"], "amount"));
        let commanded = told.commands.iter().any(|command| {
            (command.about, command.verb, command.by.as_str()) == (About::Partners, "bonus", entry.by)
                && command.ids.contains(&partner)
                && command.amount.map(i128::from) == Some(amount)
        });
        ensure!(commanded, Access, "{name}: nobody commanded it");
        let reviewed = amount < 0;
        let line = Line {
            state: if reviewed { State::Payable } else { State::Pending },
            reviewed,
            hands: BTreeSet::from([entry.by.to_owned()]),
            ..Line::alone(entry, Kind::Bonus, partner, amount)
        };
        Ok(Effect { lines: vec![(None, line)], ..Effect::default() })
    }

    /// A conversion is given to others: what was earned is taken back whole, and earned by them.
    pub(super) fn give(&mut self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let Some(mut conversion) = self.conversions.get(entry.stream).cloned() else {
            return violation(Invariant::OneEffect, format!("{name}: there is no such conversion"));
        };
        let credited = list(&entry.value["circumstances"], "partners");
        let whole: i128 = credited.iter().map(|of| super::int(of, "part")).sum();
        let fits = |asked: &Asked| {
            let all: i128 = asked.shares.iter().map(|(_, share)| i128::from(*share)).sum();
            let is_told = |(id, share): &(String, _)| {
                credited
                    .iter()
                    .any(|of| text(of, "partner") == id && super::int(of, "part") * all == i128::from(*share) * whole)
            };
            asked.shares.len() == credited.len() && asked.shares.iter().all(is_told)
        };
        let asked = self.called(told, entry, &[entry.stream], fits)?;
        let Some((sale, program)) =
            conversion.sale.clone().and_then(|sale| Some((sale.clone(), told.programs.get(sale.program)?)))
        else {
            return violation(Invariant::OneState, format!("{name}: its sale has not come"));
        };
        // Silent in the rules: what somebody should look at is not looked at by giving it to others. That it was released settles it, unless
        // something else of it waits still.
        let latest = |line: &&Line| line.kind == Kind::Commission && line.attribution == conversion.attribution;
        let own = || conversion.lines.iter().filter_map(|id| self.lines.get(id)).filter(latest);
        let waits = |line: &Line| {
            !line.released && (line.state == State::Held || line.state == State::Reversed && line.was_held)
        };
        conversion.suspicious &= own().any(waits) || own().all(|line| line.state == State::Rejected);
        for earning in &mut conversion.earnings {
            earning.given_away = true;
        }
        conversion.credits = asked.shares.iter().map(|(id, share)| (id.clone(), i128::from(*share))).collect();
        let suspended = |(id, _): &(String, i128)| {
            told.partners.iter().any(|partner| partner.id == *id && partner.was_suspended(sale.occurred_at))
        };
        ensure!(!conversion.credits.iter().any(suspended), ExactCents, "{name}: whoever gets it was suspended then");
        conversion.attribution = entry.position;
        conversion.before.clear();
        conversion.channels.clear();
        conversion.standing.first_attributed = self.first_attributed(&sale, entry.stream);
        self.remember_credits(&sale, entry.stream, &conversion.credits);
        let mut work = self.work(entry.stream, conversion);
        self.reverse(entry, &mut work)?;
        self.free(&mut work);
        let parts = work.conversion.order().map(|order| order.parts).unwrap_or_default();
        for (n, part) in parts.iter().enumerate() {
            let edit = work.conversion.edits.iter().find(|edit| Some(&edit.id) == part.edit.as_ref());
            let occasion = Occasion {
                program,
                part: n,
                attribution: entry.position,
                occurred_at: edit.map_or(sale.occurred_at, |edit| edit.occurred_at),
                received_at: work.conversion.received_at,
                hand: Some(entry.by),
            };
            self.earn(told, entry, &mut work, &occasion)?;
        }
        self.reverse(entry, &mut work)?;
        self.true_up(entry, program, &[], &mut work);
        self.conversions.insert(entry.stream.to_owned(), work.conversion.clone());
        Ok(self.retally(entry, Effect { lines: work.into_changed(), ..Effect::default() }))
    }

    /// Conversions whose sale has come, or only those that are nobody's, with their program.
    pub fn conversions_of(&self, told: &Told, nobodys: bool) -> Vec<(String, usize)> {
        let known = self.conversions.iter().filter(|(_, conversion)| !nobodys || conversion.credits.is_empty());
        let with_program =
            known.filter_map(|(stream, conversion)| Some((stream.clone(), conversion.sale.as_ref()?.program)));
        with_program.filter(|(_, program)| told.programs.len() > *program).collect()
    }

    /// Conversions of which only what came later is known.
    pub fn without_sale(&self) -> Vec<String> {
        self.conversions.iter().filter(|(_, known)| known.sale.is_none()).map(|(stream, _)| stream.clone()).collect()
    }
}
