//! What becomes of the money: payments as people attest them, failures, returns, voids, and export batches with their files.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::model::{Kind, Payout, State};
use super::stored::Items;
use super::{Auditor, Checked, Effect, Entry, Invariant, caused, ensure, int, leave_for, list, text, time, violation};
use crate::told::{About, Payment, Told, exponent};

/// Of payout details, those that say who has the money.
const RECIPIENT: [&str; 5] = ["email", "payerId", "phone", "iban", "accountNumber"];

/// Whose payouts a file of this format is for.
fn method_of(format: &str) -> &str {
    if format == "masspay" { "paypal" } else { format }
}

/// Minor units as files write them.
pub(super) fn written(amount: i128, exponent: u32) -> String {
    let one = 10_i128.pow(exponent);
    let (sign, amount) = (if amount < 0 { "-" } else { "" }, amount.abs());
    match exponent {
        0 => format!("{sign}{amount}"),
        _ => format!("{sign}{}.{:0width$}", amount / one, amount % one, width = exponent as usize),
    }
}

impl Auditor {
    pub(super) fn mark_paid(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let mut payout = self.payout(entry, &["approved", "submitted", "partially_paid"])?;
        ensure!(payout.method != "quickbooks", OneBill, "{name}: only its Bill says what is paid of it");
        let paid = list(entry.value, "payouts").first().map_or(0, |change| int(change, "paid"));
        let all = list(entry.value, "payouts").first().is_some_and(|change| change["to"] == "paid");
        payout.narrow(paid, all);
        let (before, due) = (payout.paid, payout.due());
        let part = paid - before;
        ensure!(part > 0 && paid <= due, ExactCents, "{name}: {paid} is paid after {before} of {due}");
        let reference = entry.value["why"].as_str();
        let fits = |payment: &&Payment| {
            let all = payment.amount.map_or(paid == due, |told| i128::from(told) == part);
            payment.payout == entry.stream && payment.reference.as_deref() == reference && all
        };
        let by_them = told.commands.iter().filter(|command| {
            (command.about, command.verb, command.by.as_str()) == (About::Payouts, "mark-paid", entry.by)
                && command.at - super::skew() <= entry.at
        });
        let told_times = by_them.clone().flat_map(|command| &command.payments).filter(fits).count();
        ensure!(told_times > 0, Access, "{name}: {} attested no {part} under {reference:?}", entry.by);
        let booking = (entry.by.to_owned(), reference.map(str::to_owned), part);
        let booked = payout.attested.iter().filter(|earlier| **earlier == booking).count();
        ensure!(booked < told_times, OneEffect, "{name}: {part} under {reference:?} was attested {told_times} time(s)");
        let known = reference.is_some_and(|reference| payout.payments.contains(&(reference.to_owned(), part)));
        ensure!(!known, OneEffect, "{name}: {part} under {reference:?} counts twice");
        let change = list(entry.value, "payouts").first();
        let said = by_them.flat_map(|command| &command.payments).filter(fits).find_map(|payment| payment.at);
        let attested_at = change.and_then(|change| time(change, "paidAt").ok()).or(said);
        if payout.state == "approved" {
            Self::leaves_for(told, entry, &payout)?;
            self.tax_stands(told, entry, (entry.stream, &payout), 0, attested_at)?;
        }
        let at = attested_at.unwrap_or(entry.at);
        payout.parts.push((part, at));
        payout.attested.push(booking);
        payout.payments.extend(reference.map(|reference| (reference.to_owned(), part)));
        payout.paid = paid;
        payout.state = if paid == due { "paid" } else { "partially_paid" };
        if paid == due {
            payout.settling = Some(0);
        }
        self.follow(entry, payout)
    }

    /// What a person tells of a payout for a reason.
    fn told_of(&self, told: &Told, entry: &Entry, verb: &str, states: &[&str]) -> Checked<Payout> {
        let payout = self.payout(entry, states)?;
        caused(told, entry, About::Payouts, verb, &[entry.stream])?;
        let reason = entry.value["why"].as_str().is_some_and(|why| !why.is_empty());
        ensure!(reason, Access, "{}: has no reason", entry.name());
        Ok(payout)
    }

    pub(super) fn mark_failed(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let mut payout = self.told_of(told, entry, "mark-failed", &["submitted", "partially_paid"])?;
        ensure!(payout.method != "quickbooks", OneBill, "{}: only its Bill says so", entry.name());
        payout.state = "failed";
        Ok(Self::alone(entry, payout))
    }

    /// All of it came back, so that nothing is paid; lines that were are in the payout again.
    pub(super) fn mark_returned(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let states = ["submitted", "partially_paid", "paid"];
        let payout = self.told_of(told, entry, "mark-returned", &states)?;
        ensure!(payout.method != "quickbooks", OneBill, "{}: only its Bill says so", entry.name());
        self.comes_back(entry, payout)
    }

    pub(super) fn comes_back(&self, entry: &Entry, mut payout: Payout) -> Checked<Effect> {
        let sent = payout.state != "paid" || payout.paid > 0;
        ensure!(sent, OneState, "{}: nothing was sent that could come back", entry.name());
        if payout.state == "paid" {
            payout.settling = Some(0);
        }
        payout.state = "returned";
        payout.paid = 0;
        payout.payments.clear();
        payout.parts.clear();
        self.follow(entry, payout)
    }

    pub(super) fn retry(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let mut payout = self.told_of(told, entry, "retry", &["failed", "returned"])?;
        Self::leaves_for(told, entry, &payout)?;
        self.tax_stands(told, entry, (entry.stream, &payout), 0, None)?;
        payout.state = "submitting";
        payout.attempts += 1;
        payout.leaves(entry);
        Ok(Self::alone(entry, payout))
    }

    /// Only where no money is out may somebody attest that none moved.
    pub(super) fn void(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let states = ["submitted", "partially_paid", "failed", "returned"];
        let mut payout = self.told_of(told, entry, "void", &states)?;
        let out = payout.paid;
        ensure!(out == 0, OneState, "{}: {out} of it is paid", entry.name());
        payout.state = "void";
        payout.settling = Some(0);
        self.follow(entry, payout)
    }

    /// On its way again, by hand; or out in a file with others.
    pub(super) fn submit(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        if !entry.stream.starts_with("exp_") {
            let mut payout = self.payout(entry, &["submitting"])?;
            ensure!(entry.by == "settlement", Access, "{}: is for nobody to say", entry.name());
            ensure!(!payout.is_remitted(), OnePayment, "{}: is PayPal's to send", entry.name());
            payout.state = "submitted";
            return Ok(Self::alone(entry, payout));
        }
        let name = entry.name();
        let mut effect = Effect::default();
        let mut along: BTreeMap<String, i128> = BTreeMap::new();
        for change in list(entry.value, "payouts") {
            let id = text(change, "id");
            let Some(mut payout) = self.payouts.get(id).cloned() else {
                return violation(Invariant::OneState, format!("{name}: there is no payout {id}"));
            };
            let waits = payout.state == "approved" && payout.settling.is_none();
            ensure!(waits, OneState, "{name}: {id} is {}", payout.state);
            let other = &payout.export;
            ensure!(other.is_none(), PayoutIsItsLines, "{name}: {id} is in {other:?} already");
            let (_, program) = super::program_of(told, &payout.partner)?;
            let asked = told.commands.iter().any(|command| {
                let format = command.format.map(method_of);
                (command.about, command.verb, command.by.as_str()) == (About::Programs, "exports", entry.by)
                    && command.ids.contains(&program.id)
                    && format == Some(payout.method)
                    && command.at - super::skew() <= entry.at
            });
            ensure!(asked, Access, "{name}: nobody asked for {id}, which is paid by {}", payout.method);
            Self::leaves_for(told, entry, &payout)?;
            let along = along.entry(payout.partner.clone()).or_default();
            self.tax_stands(told, entry, (id, &payout), *along, None)?;
            if payout.method != "paypal" {
                *along += payout.gross();
            }
            payout.export = Some(entry.stream.to_owned());
            payout.state = "submitted";
            let twice = effect.payouts.insert(id.to_owned(), payout).is_some();
            ensure!(!twice, PayoutIsItsLines, "{name}: has {id} twice");
        }
        Ok(effect)
    }

    pub(super) fn settle(&self, entry: &Entry) -> Checked<Effect> {
        match self.payouts.get(entry.stream).filter(|payout| payout.settling.is_some()) {
            Some(payout) => self.follow(entry, payout.clone()),
            None => violation(Invariant::OneState, format!("{}: nothing is to be settled", entry.name())),
        }
    }

    /// The next page of lines goes where the payout went.
    pub(super) fn follow(&self, entry: &Entry, mut payout: Payout) -> Checked<Effect> {
        let Some(number) = payout.settling else { return Ok(Self::alone(entry, payout)) };
        payout.settling = Some(number + 1).filter(|next| *next < payout.pages.len());
        let from = if matches!(payout.state, "paid" | "cancelled" | "void") { State::InPayout } else { State::Paid };
        let mut lines = Vec::new();
        for on_page in &payout.pages[number] {
            let mut line = self.line(entry, &on_page.id)?.clone();
            let inside = line.state == from && line.payout.as_ref().is_some_and(|of| of.0 == entry.stream);
            ensure!(inside, OneState, "{}: {} is {} elsewhere", entry.name(), on_page.id, line.state.as_str());
            match payout.state {
                "paid" => line.state = State::Paid,
                "cancelled" | "void" if line.kind == Kind::Withholding => {
                    line.taken = line.amount;
                    leave_for(&mut line, State::Reversed);
                }
                "cancelled" | "void" => leave_for(&mut line, State::Payable),
                _ => line.state = State::InPayout,
            }
            lines.push((Some(on_page.id.clone()), line));
        }
        Ok(Effect { lines, ..Self::alone(entry, payout) })
    }

    // --- Export batches -------------------------------------------------------------------------------------------

    /// Every payout that went out in files is on one row of its batch, as much as it is.
    pub(super) fn stored_exports(&self, items: &Items) -> Checked {
        let mut rows: BTreeMap<&str, &str> = BTreeMap::new();
        let pages = items.iter().filter(|((pk, sk), _)| pk.starts_with("EXP#") && sk.starts_with("PAG#"));
        for (_, page) in pages {
            let export = text(page, "export");
            for row in list(page, "rows") {
                let id = text(row, "payout");
                let payout = self.payouts.get(id).filter(|payout| payout.export.as_deref() == Some(export));
                let Some(payout) = payout else {
                    return violation(
                        Invariant::PayoutIsItsLines,
                        format!("{export}: {id} is on a row, and not in it"),
                    );
                };
                let amount = written(payout.due(), exponent(payout.paid_in));
                let says = list(row, "cells").iter().any(|cell| *cell == amount);
                ensure!(says, ExactCents, "{export}: {id} is {amount}, and its row says {row}");
                let to = payout
                    .place
                    .iter()
                    .flat_map(|way| &way.details)
                    .filter(|(name, _)| RECIPIENT.contains(&name.as_str()));
                let missing: Vec<_> = to.filter(|(_, to)| !list(row, "cells").iter().any(|cell| cell == *to)).collect();
                ensure!(
                    missing.is_empty(),
                    OnePayment,
                    "{export}: {id} is to go to {missing:?}, and its row says {row}"
                );
                let other = rows.insert(id, export);
                ensure!(other.is_none(), PayoutIsItsLines, "{id}: is on two rows, of {export} and {other:?}");
            }
        }
        let out = self.payouts.iter().filter(|(_, payout)| payout.export.is_some()).map(|(id, _)| id.as_str());
        let missing: Vec<_> = out.filter(|id| !rows.contains_key(id)).collect();
        ensure!(missing.is_empty(), PayoutIsItsLines, "no file has {missing:?}, though they went out in one");
        for ((_, _), export) in items.iter().filter(|((pk, sk), _)| pk.starts_with("EXP#") && sk == "EXP") {
            let id = text(export, "id");
            let count = rows.values().filter(|of| **of == id).count();
            let found = int(export, "payouts");
            ensure!(found == count as i128, PayoutIsItsLines, "{id}: says {found} payouts and has {count}");
        }
        Ok(())
    }

    /// A batch's files together: each of its payouts on one row, in order, each as much as it is, so that sums agree.
    pub fn files(&self, items: &Items, export: &str, files: &[String]) -> Checked {
        let place = format!("EXP#{export}");
        let format = items.get(&(place.clone(), "EXP".to_owned())).map_or("", |export| text(export, "format"));
        let heading = usize::from(matches!(format, "bank" | "wise"));
        let (amount_at, id_at) = match format {
            "bank" => (4, Some(8)),
            "wise" => (4, None),
            _ => (1, None),
        };
        let found: Vec<Vec<String>> = files.iter().flat_map(|file| cells(file).into_iter().skip(heading)).collect();
        let pages = items.range((place.clone(), "PAG#".to_owned())..(place, "PAG$".to_owned()));
        let ids: Vec<&str> = pages.flat_map(|(_, page)| list(page, "rows")).map(|row| text(row, "payout")).collect();
        let (rows, expected) = (found.len(), ids.len());
        ensure!(rows == expected, PayoutIsItsLines, "{export}: its files have {rows} rows instead of {expected}");
        let mut amounts: Vec<String> = Vec::new();
        for id in &ids {
            let Some(payout) = self.payouts.get(*id) else { continue };
            amounts.push(written(payout.due(), exponent(payout.paid_in)));
        }
        let of_files = found.iter().filter_map(|row| row.get(amount_at)).cloned();
        let mut of_files: Vec<String> = of_files.collect();
        if matches!(format, "paypal" | "masspay") {
            // Files of one currency each have them in another order.
            of_files.sort_unstable();
            amounts.sort_unstable();
        }
        ensure!(of_files == amounts, ExactCents, "{export}: its files say {of_files:?}, its payouts are {amounts:?}");
        if let Some(at) = id_at {
            let named: BTreeSet<_> = found.iter().filter_map(|row| row.get(at)).map(String::as_str).collect();
            let expected: BTreeSet<_> = ids.into_iter().collect();
            ensure!(named == expected, PayoutIsItsLines, "{export}: its files name {named:?} instead of {expected:?}");
        }
        Ok(())
    }

    /// After everything was exported in fair weather, what is approved and would fit a file was left out of one for a reason.
    pub fn left_out_of_files(&self, items: &Items) -> Checked {
        let pages = items.iter().filter(|((pk, sk), _)| pk.starts_with("EXP#") && sk.starts_with("PAG#"));
        let left_out: Vec<&Value> = pages.flat_map(|(_, page)| list(page, "leftOut")).collect();
        for (id, payout) in &self.payouts {
            if payout.state != "approved" || matches!(payout.method, "manual" | "quickbooks") {
                continue;
            }
            let refused = payout.method == "paypal" && payout.is_unpayable();
            let because: Vec<_> =
                left_out.iter().filter(|left| text(left, "payout") == id).map(|left| text(left, "because")).collect();
            let stays = because.contains(&"may_not_submit")
                || (refused && (because.contains(&"currency") || because.contains(&"venmo")));
            ensure!(stays, Converges, "{id}: is approved, by {}, and was left out because {because:?}", payout.method);
        }
        Ok(())
    }
}

/// A file's rows: commas between cells, and quotes around those that need them.
fn cells(file: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = file.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => cell.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            _ => cell.push(character),
        }
    }
    rows
}
