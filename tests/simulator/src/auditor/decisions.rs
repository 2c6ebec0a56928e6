//! What runs decide about partners: who is carried and why, what policies of programs do, and who is paid without a run.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::model::{Kind, Line, Payout, State};
use super::places::is_settled;
use super::stored::{Items, by_hand, get};
use super::{
    Auditor, Checked, Effect, Entry, Invariant, days, ensure, int, list, minimum_sales, partner_in, planned_in_line,
    program_of, skew, text, time, violation,
};
use crate::told::{Program, Told};

/// Runs on a date of their program's schedule.
fn is_scheduled(run: &Value) -> bool {
    !matches!(text(run, "kind"), "manual" | "on_demand" | "instant")
}

/// Whether a debt or an earning is taken by a run, whatever sales it waits for.
fn within(run: &Value, line: &Line) -> Checked<bool> {
    let cut_off = time(run, "cutOff")?;
    let reached = line.due_at < cut_off || (run["cutOffInclusive"] == true && line.due_at == cut_off);
    let in_time = run["payableBy"].is_null() || line.ready_at <= time(run, "payableBy")?;
    Ok(line.amount < 0 || line.kind == Kind::WriteOff || (reached && in_time))
}

fn since_when(line: &Line) -> Timestamp {
    line.approved_at.max(line.due_at)
}

impl Auditor {
    pub(super) fn is_instant(told: &Told, partner: &str) -> Checked<bool> {
        let (partner, program) = program_of(told, partner)?;
        Ok(program.frequency == "instant" && partner.trusted)
    }

    /// Looks at what runs decided since this was last asked.
    pub fn decided(&mut self, told: &Told, now: Timestamp, items: &Items) -> Checked {
        let runs = items.range(("RUN#".to_owned(), String::new())..("RUN$".to_owned(), String::new()));
        let mut known = std::mem::take(&mut self.known_decisions);
        for ((pk, sk), decision) in runs.filter(|((_, sk), _)| sk.starts_with("PAR#")) {
            // It is asked again about whom deciding failed.
            if decision["outcome"] != "failed" && known.insert((pk.clone(), sk.clone())) {
                let name = format!("{pk} about {}", &sk[4..]);
                self.decision(told, now, &name, get(items, pk, "RUN"), &sk[4..], decision)?;
            }
        }
        self.known_decisions = known;
        Ok(())
    }

    fn decision(
        &self,
        told: &Told,
        now: Timestamp,
        name: &str,
        run: &Value,
        partner: &str,
        decision: &Value,
    ) -> Checked {
        let (_, program) = program_of(told, partner)?;
        ensure!(text(run, "program") == program.id, Runs, "{name}: the run is another program's: {run}");
        let because = decision["because"].as_str();
        if run["kind"] == "manual" {
            let Some(said) = by_hand(told, run) else {
                return violation(Invariant::Runs, format!("{name}: nobody started it so: {run}"));
            };
            let (asked, left_out) =
                (said.include.is_empty() || said.include.iter().any(|id| id == partner), !said.names(partner));
            ensure!(asked, Runs, "{name}: is not about them: {said:?}");
            ensure!(left_out == (because == Some("excluded")), Runs, "{name}: {said:?}, and decided was {decision}");
        }
        match because {
            None | Some("excluded") => Ok(()),
            // What a draft that was given up came to is seen with it.
            Some(_) if decision["payout"].is_string() => Ok(()),
            Some(because) => {
                // Only of who stood still since the oldest function began can anybody tell what it saw.
                let still = self.moved.get(partner).is_none_or(|tick| *tick < told.since.0);
                if still { self.carried(told, now, name, run, partner, because) } else { Ok(()) }
            }
        }
    }

    /// Why a partner is carried who could be paid or not as the auditor sees them.
    fn carried(&self, told: &Told, now: Timestamp, name: &str, run: &Value, partner: &str, because: &str) -> Checked {
        let (partner_told, program) = program_of(told, partner)?;
        let planned = time(run, "plannedAt")?;
        let payable: Vec<&Line> =
            self.lines.values().filter(|line| line.partner == partner && line.state == State::Payable).collect();
        let sold = (self.sold_at_least(partner, planned), self.sold_at_most(partner, planned, now + skew()));
        let mut taken = Vec::new();
        let mut blocked = false;
        for line in &payable {
            let wants = if line.amount < 0 { 0 } else { minimum_sales(line, program) };
            if (sold.0 < wants) != (sold.1 < wants) {
                // It depends on who looked when.
                return Ok(());
            }
            blocked |= sold.0 < wants;
            if sold.0 >= wants && within(run, line)? {
                taken.push(*line);
            }
        }
        let total: i128 = taken.iter().map(|line| line.net()).sum();
        let nets = total == 0 && taken.iter().any(|line| line.amount < 0);
        let entry =
            Entry { value: &Value::Null, stream: "", position: 0, hash: "", at: now, now, by: "", what: "decide" };
        if !is_settled(told, partner_told) {
            return Ok(());
        }
        let method = partner_told.method();
        let asked =
            self.asked(told, &Self::days(program, told, &entry, None), (partner, method.unwrap_or("")), "", 0)?;
        // What is payable in all, though this run may not take all of it, is blocked from its first cent.
        let untaxed =
            payable.iter().map(|line| line.net()).sum::<i128>() > 0 && asked.iter().any(|asked| asked.blocks(1));
        let minimum = i128::from(partner_told.minimum_payout.unwrap_or(program.minimum_payout));
        let swept = Self::is_dust(program, run, &taken)?;
        let drafting = self.payouts.values().any(|payout| payout.partner == partner && payout.state == "drafting");
        let holds = match because {
            "negative_balance" => total < 0 && method.is_some(),
            "nothing_payable" => total == 0 && !nets && !blocked,
            "minimum_sales" => total == 0 && !nets && blocked && method.is_some(),
            "no_payout_method" => method.is_none() && !nets && (total != 0 || blocked),
            "tax_form_missing" => {
                let blocks = asked.iter().any(|asked| asked.blocks(total.max(1)));
                ((total > 0 || blocked) && !nets && blocks) || (total < 0 && untaxed)
            }
            "below_threshold" => total > 0 && total < minimum && !swept,
            "exchange_rate_missing" => partner_told.paid_in.is_some() && total != 0,
            "draft_in_progress" => drafting,
            _ => false,
        };
        let seen: Vec<_> = payable.iter().map(|line| (line.net(), line.due_at)).collect();
        ensure!(
            holds,
            Runs,
            "{name}: is carried because {because}, and {total} of {seen:?} is to be paid, at least {minimum}, swept: {swept}"
        );
        let owed = because == "negative_balance" && self.is_given_up(program, run, partner)?;
        ensure!(!owed, Runs, "{name}: owes {total} for so long that it is to be written off: {run}");
        Ok(())
    }

    /// Whether a run pays what does not reach the minimum.
    fn is_dust(program: &Program, run: &Value, taken: &[&Line]) -> Checked<bool> {
        let Some(after) = program.dust_sweep_days.filter(|_| is_scheduled(run)) else { return Ok(false) };
        let since = time(run, "plannedAt")? - days(after.into());
        Ok(taken.iter().any(|line| line.amount > 0 && since_when(line) <= since))
    }

    /// What is paid below the minimum though nobody asked for it, is so because of the program's policy.
    pub(super) fn swept(&self, program: &Program, items: &Items, id: &str, payout: &Payout, item: &Value) -> Checked {
        let why = item["belowMinimum"].as_str();
        let by_policy = why.is_some_and(|why| why.starts_with("dust policy"));
        ensure!(by_policy || !payout.swept, PayoutIsItsLines, "{id}: is below the minimum, and nothing says why");
        if !by_policy || payout.state == "drafting" {
            return Ok(());
        }
        let run = get(items, &format!("RUN#{}", text(item, "run")), "RUN");
        let taken: Vec<&Line> = payout.claimed.iter().filter_map(|claimed| self.lines.get(&claimed.line)).collect();
        // What is reviewed anew later has been payable for less long by then.
        let known = taken.iter().all(|line| matches!(line.state, State::InPayout | State::Paid));
        let fits = is_scheduled(run) && (!known || Self::is_dust(program, run, &taken)?);
        ensure!(fits, PayoutIsItsLines, "{id}: {why:?}, and there is no such policy or dust: {run}, {taken:?}");
        Ok(())
    }

    /// Whether all of what a partner owes is old, and nothing is under way that it could be taken from.
    fn is_given_up(&self, program: &Program, run: &Value, partner: &str) -> Checked<bool> {
        let Some(after) = program.debt_write_off_days.filter(|_| is_scheduled(run)) else { return Ok(false) };
        let since = time(run, "plannedAt")? - days(after.into());
        let mut total = 0;
        for line in self.lines.values().filter(|line| line.partner == partner) {
            match line.state {
                State::Payable if line.amount < 0 && line.due_at > since => return Ok(false),
                State::Payable if !within(run, line)? => return Ok(false),
                State::Payable if line.amount > 0 && minimum_sales(line, program) > 0 => return Ok(false),
                State::Payable => total += line.net(),
                State::Paid | State::Rejected | State::Reversed => {}
                _ => return Ok(false),
            }
        }
        Ok(total < 0)
    }

    /// What a partner owes is given up, all of it at once. Whoever does so reads some time before, so that what changed meanwhile may
    /// count or not.
    pub(super) fn write_off(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, change) = (entry.name(), list(entry.value, "lines").first().unwrap_or(&Value::Null));
        let (id, amount) = (text(change, "id"), int(&change["to"], "amount"));
        let partner = partner_in(id);
        let (_, program) = program_of(told, &partner)?;
        ensure!(entry.by == "draft-payout" && entry.stream == id, Access, "{name}: is for nobody to say");
        ensure!(entry.value["why"].is_string(), Access, "{name}: has no reason");
        let Some(after) = program.debt_write_off_days else {
            return violation(Invariant::OneEffect, format!("{name}: the program has no such policy"));
        };
        let planned = planned_in_line(id).unwrap_or(entry.at);
        let since = planned - days(after.into()) + SignedDuration::from_secs(1);
        let known = |line: &&Line| line.changed < told.since.0;
        let own = self.lines.values().filter(|line| line.partner == partner);
        for line in own.clone().filter(known) {
            let elsewhere = matches!(line.state, State::Pending | State::Approved | State::Held | State::InPayout);
            let fresh = line.state == State::Payable && line.amount < 0 && line.due_at > since;
            ensure!(!elsewhere && !fresh, OneState, "{name}: {amount} is given up, and there is {line:?}");
        }
        let total = |lines: &mut dyn Iterator<Item = &Line>| lines.map(Line::net).sum::<i128>();
        let payable: Vec<&Line> = own.filter(|line| line.state == State::Payable).collect();
        let owed = -total(&mut payable.iter().copied());
        let still = self.moved.get(&partner).is_none_or(|tick| *tick < told.since.0);
        ensure!(amount > 0 && (!still || amount == owed), ExactCents, "{name}: {amount} is given up of {owed}");
        let line = Line { minimum_sales: Some(0), ..Line::alone(entry, Kind::WriteOff, partner, amount) };
        Ok(Effect { lines: vec![(None, line)], ..Effect::default() })
    }

    /// At the end, nothing waits that a trusted partner was to be paid at once.
    pub(super) fn paid_instantly(&self, told: &Told, now: Timestamp, items: &Items) -> Checked {
        let touched: BTreeSet<&str> =
            self.payouts.values().flat_map(|payout| &payout.claimed).map(|claimed| claimed.line.as_str()).collect();
        for partner in &told.partners {
            let Some(method) = partner.method() else { continue };
            if !Self::is_instant(told, &partner.id)? || partner.paid_in.is_some() {
                continue;
            }
            let (_, program) = program_of(told, &partner.id)?;
            let payable =
                || self.lines.iter().filter(|(_, line)| line.partner == partner.id && line.state == State::Payable);
            let sold = self.sold_at_least(&partner.id, now);
            let gated = payable().any(|(_, line)| line.amount > 0 && minimum_sales(line, program) > sold);
            let total: i128 = payable().map(|(_, line)| line.net()).sum();
            let minimum = i128::from(partner.minimum_payout.unwrap_or(program.minimum_payout));
            let asked_for = |id: &str| {
                items.iter().any(|((pk, sk), run)| {
                    pk.starts_with("RUN#") && sk == "RUN" && run["kind"] == "instant" && run["period"] == id
                })
            };
            let fresh: Vec<&String> = payable()
                .filter(|(id, _)| !touched.contains(id.as_str()) && !asked_for(id))
                .map(|(id, _)| id)
                .collect();
            let entry =
                Entry { value: &Value::Null, stream: "", position: 0, hash: "", at: now, now, by: "", what: "decide" };
            let asked = self.asked(told, &Self::days(program, told, &entry, None), (&partner.id, method), "", 0)?;
            let blocked = asked.iter().any(|asked| asked.blocks(total));
            let due = total > 0 && total >= minimum && !gated && !blocked && !fresh.is_empty();
            ensure!(!due, Runs, "{}: is to be paid {total} at once, and {fresh:?} wait", partner.id);
        }
        Ok(())
    }
}
