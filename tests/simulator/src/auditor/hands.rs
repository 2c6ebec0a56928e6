//! People: what their commands about commissions and conversions must have done.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::accrual::{Occasion, Work};
use super::model::{Kind, Line, Payout, State};
use super::{Auditor, Checked, Effect, Entry, Invariant, caused, ensure, leave_for, list, text, violation};
use crate::told::{About, Told};

impl Auditor {
    /// Whether a line may be stopped or changed in its amount.
    fn is_open(&self, line: &Line) -> bool {
        match (&line.state, &line.payout) {
            (State::Pending | State::Approved | State::Payable, _) => true,
            (State::InPayout, Some((payout, _))) => self.payouts.get(payout).is_some_and(Payout::is_open),
            _ => false,
        }
    }

    pub(super) fn review(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, ids) = (entry.name(), entry.line_ids());
        let judged: Vec<&str> = ids.into_iter().filter(|id| self.lines.contains_key(*id)).collect();
        caused(told, entry, About::Commissions, entry.what, &judged)?;
        let needs_reason = matches!(entry.what, "hold" | "reject" | "reinstate");
        ensure!(!needs_reason || entry.value["why"].is_string(), Access, "{name}: has no reason");
        let mut lines = Vec::new();
        for id in judged {
            let mut line = self.line(entry, id)?.clone();
            let stoppable = self.is_open(&line);
            let legal = match entry.what {
                "approve" => line.state == State::Pending,
                "hold" => stoppable,
                "release" => line.state == State::Held,
                "reject" => stoppable || line.state == State::Held,
                _ => line.state == State::Rejected,
            };
            ensure!(legal, OneState, "{name}: {id} is {} and cannot change so", line.state.as_str());
            match entry.what {
                "hold" => leave_for(&mut line, State::Held),
                "reject" => leave_for(&mut line, State::Rejected),
                "reinstate" => {
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
                self.true_up(entry, program, &mut works);
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

    pub(super) fn adjust(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        // A closed payout's line stays as it is, and the entry has only the new one.
        let known = entry.line_ids().into_iter().filter(|id| self.lines.contains_key(*id)).collect::<Vec<_>>();
        let commanded = told.commands.iter().filter(|command| {
            (command.about, command.verb, command.by.as_str()) == (About::Commissions, "adjust", entry.by)
                && command.ids.iter().all(|id| {
                    self.lines.get(id).is_some_and(|line| {
                        let own_stream =
                            if line.conversion.is_empty() { id.as_str() } else { line.conversion.as_str() };
                        own_stream == entry.stream && (known.is_empty() || known == [id.as_str()])
                    })
                })
        });
        let mut last = violation(Invariant::Access, format!("{name}: nobody commanded it"));
        for command in commanded {
            let Some((id, amount)) = command.ids.first().zip(command.amount) else { continue };
            let effect = self.adjusted(told, entry, id, i128::from(amount))?;
            // Of several commands, whichever tells the same.
            if tells(entry, &effect) {
                return Ok(effect);
            }
            last = Ok(effect);
        }
        last
    }

    fn adjusted(&self, told: &Told, entry: &Entry, id: &str, amount: i128) -> Checked<Effect> {
        let (name, mut line) = (entry.name(), self.line(entry, id)?.clone());
        let legal = !matches!(line.state, State::Rejected | State::Reversed);
        ensure!(legal, OneState, "{name}: {id} is {} and cannot be adjusted", line.state.as_str());
        if self.is_open(&line) || line.state == State::Held {
            let up = amount.abs() > line.amount.abs();
            if line.taken.abs() > amount.abs() {
                line.taken = amount;
            }
            line.amount = amount;
            line.hands.insert(entry.by.to_owned());
            if up {
                line.reviewed = false;
                // Silent in the rules: what a person stopped stays stopped.
                let state = if line.state == State::Held { State::Held } else { State::Pending };
                leave_for(&mut line, state);
            }
            return self.settled(told, entry, Some(id.to_owned()), line);
        }
        let adjustments = self.lines.values().filter(|other| other.of.as_deref() == Some(id));
        let current = line.amount + adjustments.map(|other| other.amount).sum::<i128>();
        let amount = amount - current;
        let reviewed = amount < 0;
        let line = Line {
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
        };
        self.settled(told, entry, None, line)
    }

    /// What was refunded of the earning is refunded of what it is now.
    fn settled(&self, told: &Told, entry: &Entry, id: Option<String>, line: Line) -> Checked<Effect> {
        let conversion = self.conversions.get(&line.conversion);
        let Some((conversion, program)) = conversion.and_then(|of| Some((of, super::events::program_of(told, of)?)))
        else {
            return Ok(self.retally(entry, Effect { lines: vec![(id, line)], ..Effect::default() }));
        };
        let mut work = self.work(&line.conversion, conversion.clone());
        match work.all.iter().position(|(known, _)| id.is_some() && *known == id) {
            Some(at) => {
                work.changed.insert(at);
                work.all[at].1 = line;
            }
            None => work.add(line),
        }
        self.reverse(entry, &mut work)?;
        self.true_up(entry, program, std::slice::from_mut(&mut work));
        Ok(self.retally(entry, Effect { lines: work.into_changed(), ..Effect::default() }))
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
            kind: Kind::Bonus,
            partner,
            conversion: String::new(),
            rule: String::new(),
            rule_set: None,
            earning: None,
            edit: None,
            attribution: 0,
            minimum_sales: None,
            slice: None,
            of: None,
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
            payable_since: entry.now,
            seen_at: entry.now,
            fell_at: Timestamp::MAX,
            version: 0,
            entry: String::new(),
        };
        Ok(Effect { lines: vec![(None, line)], ..Effect::default() })
    }

    /// A conversion is given to others: what was earned is taken back whole, and earned by them.
    pub(super) fn give(&mut self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let Some(mut conversion) = self.conversions.get(entry.stream).cloned() else {
            return violation(Invariant::OneEffect, format!("{name}: there is no such conversion"));
        };
        let commands: Vec<_> = told
            .commands
            .iter()
            .filter(|command| {
                (command.about, command.verb, command.by.as_str()) == (About::Conversions, "attribute", entry.by)
                    && command.ids.iter().any(|id| id == entry.stream)
            })
            .collect();
        let new = list(entry.value, "lines")
            .iter()
            .filter(|line| line["from"].is_null() && super::int(&line["to"], "amount") >= 0);
        let to: BTreeSet<String> = new.map(|line| super::partner_in(text(line, "id"))).collect();
        let fits = |command: &&&crate::told::Command| {
            to.iter().all(|partner| command.shares.iter().any(|(id, _)| id == partner))
        };
        let Some(command) = commands.iter().rfind(fits) else {
            return violation(Invariant::Access, format!("{name}: nobody commanded it"));
        };
        let Some((sale, program)) =
            conversion.sale.clone().and_then(|sale| Some((sale.clone(), told.programs.get(sale.program)?)))
        else {
            return violation(Invariant::OneState, format!("{name}: its sale has not come"));
        };
        for earning in &mut conversion.earnings {
            earning.given_away = true;
        }
        conversion.credits = command.shares.iter().map(|(id, share)| (id.clone(), i128::from(*share))).collect();
        conversion.before.clear();
        conversion.channels.clear();
        conversion.standing.first_attributed = self.first_attributed(&sale, entry.stream);
        // Silent in the rules: a person looked at it.
        conversion.suspicious = false;
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
        self.true_up(entry, program, std::slice::from_mut(&mut work));
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
}

fn tells(entry: &Entry, effect: &Effect) -> bool {
    let changes = list(entry.value, "lines");
    let told = |line: &Line| {
        changes.iter().any(|change| {
            let to = &change["to"];
            (text(to, "state"), super::int(to, "amount"), super::int(to, "net")) == line.facts()
        })
    };
    changes.len() == effect.lines.len() && effect.lines.iter().all(|(_, line)| told(line))
}
