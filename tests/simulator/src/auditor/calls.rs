//! Calls about several commissions or conversions: which of them are refused, and whether all is done or nothing where that was asked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::model::{Line, State};
use super::{Auditor, Checked, Entry, Invariant, ensure, list, skew, text, violation};
use crate::told::{Asked, Call, Said, Told};

/// What must become of one of those that a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// With this status.
    Refused(u16),
    /// Somebody else may have changed that meanwhile.
    Unknown,
}

impl Fate {
    const fn refused_unless(may: bool, status: u16) -> Self {
        if may { Self::Done } else { Self::Refused(status) }
    }
}

/// Verdicts whose entries do not say why.
fn is_silent(verb: &str) -> bool {
    matches!(verb, "approve" | "release")
}

impl Auditor {
    /// The call that an entry comes of, as far as it is about the first of these, which are all that the entry does.
    pub(super) fn called<'a>(
        &mut self,
        told: &'a Told,
        entry: &Entry,
        ids: &[&str],
        fits: impl Fn(&Asked) -> bool,
    ) -> Checked<&'a Asked> {
        let name = entry.name();
        let why = entry.value["why"].as_str();
        let about = |call: &'a Call, id: &str| call.asked.iter().find(|asked| asked.id == id && fits(asked));
        let is_it = |call: &&'a Call| {
            let said_so = (call.verb, call.by.as_str()) == (entry.what, entry.by) && call.at - skew() <= entry.at;
            let for_it = if is_silent(call.verb) { why.is_none() } else { why == Some(&call.reason) };
            // Verdicts are written together; other changes each by itself, and counted.
            let each = matches!(call.verb, "adjust" | "attribute");
            let whole = !call.atomic || each || ids.len() == names(call).len();
            said_so && for_it && whole && ids.iter().all(|id| about(call, id).is_some())
        };
        let call = told.calls.iter().find(is_it);
        let Some((call, asked)) = call.and_then(|call| Some((call, about(call, ids.first()?)?))) else {
            return violation(Invariant::Access, format!("{name}: nobody asked for that of {ids:?}"));
        };
        for id in ids {
            let fresh = self.made.insert((call.reason.clone(), (*id).to_owned()));
            ensure!(fresh || is_silent(call.verb), OneEffect, "{name}: what was asked once of {id} is done twice");
        }
        Ok(asked)
    }

    /// Whether what was asked was done as it was asked: looked at when everything is read that was written so far.
    pub fn calls(&mut self, told: &Told) -> Checked {
        for (n, call) in told.calls.iter().enumerate() {
            let done = |id: &str| self.made.contains(&(call.reason.clone(), id.to_owned()));
            if call.atomic && !is_silent(call.verb) {
                let (all, made) = (names(call).len(), names(call).into_iter().filter(|id| done(id)).count());
                ensure!(made == 0 || made == all, OneEffect, "{made} of {all} were done of {call:?}");
            }
            let Some(said) = call.said.as_ref().filter(|_| !self.heard.contains(&n)) else { continue };
            self.answered_as_asked(told, call, said)?;
            self.heard.insert(n);
        }
        Ok(())
    }

    /// Refused is what must be, where nobody changed it meanwhile, and nothing else; and what is said to be done is done, and nothing else.
    fn answered_as_asked(&self, told: &Told, call: &Call, said: &[Said]) -> Checked {
        let in_order = call.asked.iter().map(|asked| &asked.id).eq(said.iter().map(|said| &said.id));
        ensure!(in_order, Converges, "expected answers to {call:?}");
        let expected = |(n, asked)| self.fate(told, call, n, asked);
        let known: Vec<Fate> = call.asked.iter().enumerate().map(expected).collect();
        // Something refuses all of it, or may.
        let refused = known.iter().any(|expected| *expected != Fate::Done);
        let first = |n: usize| call.asked[..n].iter().all(|earlier| earlier.id != call.asked[n].id);
        let was_done = |id: &str| {
            if is_silent(call.verb) {
                self.done.contains(&(call.verb.to_owned(), call.by.clone(), id.to_owned()))
            } else {
                self.made.contains(&(call.reason.clone(), id.to_owned()))
            }
        };
        let all_done = said.iter().all(is_done);
        ensure!(!call.atomic || all_done || !said.iter().any(is_done), OneEffect, "not all or nothing of {call:?}");
        for (n, (said, expected)) in said.iter().zip(&known).enumerate() {
            let (id, is) = (said.id.as_str(), said.status);
            if is >= 500 || is == 429 {
                continue;
            }
            let what =
                || format!("{} of {id} by {}: expected {expected:?}, found {said:?} of {call:?}", call.verb, call.by);
            if is_done(said) {
                ensure!(was_done(id), Converges, "{}: nothing was done", what());
            } else if first(n) && !is_silent(call.verb) {
                ensure!(!was_done(id), OneEffect, "{}: it was done all the same", what());
            }
            let holds = match expected {
                Fate::Unknown => true,
                // What is done was held against the rules when it was read.
                Fate::Done if is_done(said) => true,
                Fate::Done if call.atomic => is == 409 && refused || is_too_much(said),
                Fate::Done => is_too_much(said),
                Fate::Refused(status) => is == *status || call.atomic && is == 409,
            };
            ensure!(holds, Converges, "{}", what());
        }
        Ok(())
    }

    /// What must become of one of them by itself.
    fn fate(&self, told: &Told, call: &Call, n: usize, asked: &Asked) -> Fate {
        let twice = call.asked[..n].iter().any(|earlier| earlier.id == asked.id);
        let prefix = if call.verb == "attribute" { "cnv_" } else { "com_" };
        if !asked.id.starts_with(prefix) {
            return Fate::Refused(404);
        }
        let own = if call.verb == "attribute" {
            self.not_given(told, call, asked)
        } else {
            let Some(line) = self.lines.get(&asked.id) else { return Fate::Refused(404) };
            if asked.senseless {
                return Fate::Refused(422);
            }
            if !self.stood_still(call, &asked.id, line) {
                return Fate::Unknown;
            }
            let may = match asked.amount {
                // What became of others of the same order by the same call is not known here.
                Some(_) if self.beside(call, n, line) => return Fate::Unknown,
                Some(amount) => self.may_become(&asked.id, line, amount.into()),
                None => self.may_be(call.verb, line),
            };
            Fate::refused_unless(may, 409)
        };
        if !twice {
            return own;
        }
        let is_verdict = asked.amount.is_none() && asked.shares.is_empty();
        match own {
            // Verdicts one after the other find what the first did.
            Fate::Done if is_verdict && !call.atomic => Fate::Unknown,
            // What cannot be done as it is told is refused for that before it is looked for.
            Fate::Refused(_) | Fate::Unknown if is_verdict || asked.senseless => own,
            _ => Fate::Refused(409),
        }
    }

    /// Whether nothing about a line changed since a call was made.
    fn stood_still(&self, call: &Call, id: &str, line: &Line) -> bool {
        let payout = line.payout.as_ref().and_then(|(payout, _)| self.payouts.get(payout));
        // Lines of a payout that ended are free before anything is done to them.
        let settles = line.state == State::InPayout && payout.is_some_and(|payout| payout.settling.is_some());
        let adjusted = self.lines.values().any(|other| other.of.as_deref() == Some(id) && other.changed >= call.since);
        let moved = line.changed >= call.since || payout.is_some_and(|payout| payout.changed >= call.since);
        !moved && !settles && !adjusted
    }

    fn beside(&self, call: &Call, n: usize, line: &Line) -> bool {
        call.asked.iter().enumerate().any(|(other, asked)| {
            let of = self.lines.get(&asked.id);
            let same = |of: &Line| !of.conversion.is_empty() && of.conversion == line.conversion;
            other != n && (call.asked[n].id == asked.id || of.is_some_and(same))
        })
    }

    fn not_given(&self, told: &Told, call: &Call, asked: &Asked) -> Fate {
        if asked.senseless {
            return Fate::Refused(422);
        }
        let Some(conversion) = self.conversions.get(&asked.id) else { return Fate::Refused(404) };
        let Some(sale) = &conversion.sale else { return Fate::Refused(409) };
        if conversion.sold >= call.since {
            return Fate::Unknown;
        }
        let earns = |(id, _): &(String, u32)| {
            let partner = told.partners.iter().find(|partner| partner.id == *id);
            partner.is_some_and(|partner| {
                let own = Some(&partner.email_hash) == sale.customer.email_hash.as_ref();
                partner.program == sale.program && !own && !partner.was_suspended(sale.occurred_at)
            })
        };
        Fate::refused_unless(asked.shares.iter().all(earns), 422)
    }
}

fn is_done(said: &Said) -> bool {
    (200..300).contains(&said.status)
}

/// Whether it is more than can be written at once: how much that is, is nothing of the rules.
fn is_too_much(said: &Said) -> bool {
    said.why.contains("name fewer") || said.status == 422 && said.why.contains("at once")
}

fn names(call: &Call) -> BTreeSet<&str> {
    call.asked.iter().map(|asked| asked.id.as_str()).collect()
}

/// Entries in the order in which they came about. Those of one transaction have none of their own: what several changes came to together is
/// read in the order in which they were asked for, and nothing before what it follows.
pub fn in_order(calls: &[Call], entries: Vec<(Value, Value)>) -> Vec<(Value, Value)> {
    let place = |entry: &Value| {
        let why = entry["why"].as_str()?;
        let (n, call) = calls.iter().enumerate().find(|(_, call)| call.atomic && call.reason == why)?;
        let id = entry["adjusted"]["line"].as_str().unwrap_or_else(|| text(entry, "stream"));
        Some((n, call.asked.iter().position(|asked| asked.id == id)?))
    };
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, (_, entry)) in entries.iter().enumerate() {
        if let Some((call, _)) = place(entry) {
            places.entry(call).or_default().push(at);
        }
    }
    if places.values().all(|places| places.len() < 2) {
        return entries;
    }
    let mut slots: Vec<Option<(Value, Value)>> = entries.into_iter().map(Some).collect();
    for places in places.into_values() {
        let mut own: Vec<_> = places.iter().filter_map(|at| slots[*at].take()).collect();
        own.sort_by_key(|(_, entry)| place(entry));
        for (at, entry) in places.into_iter().zip(own) {
            slots[at] = Some(entry);
        }
    }
    let mut left: Vec<_> = slots.into_iter().flatten().collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let coming: BTreeSet<String> = left.iter().map(|(stored, entry)| reference(stored, entry)).collect();
        let changes = |entry: &Value| [list(entry, "lines").to_vec(), list(entry, "payouts").to_vec()].concat();
        let waits = |entry: &Value| changes(entry).iter().any(|change| coming.contains(text(change, "after")));
        let next = left.iter().position(|(_, entry)| !waits(entry)).unwrap_or_default();
        ordered.push(left.remove(next));
    }
    ordered
}

fn reference(stored: &Value, entry: &Value) -> String {
    format!("{}/{}/{}", text(entry, "stream"), entry["position"], text(stored, "hash"))
}
