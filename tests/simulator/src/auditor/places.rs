//! Where payouts go: to the payout details they were approved for, or nowhere.
//!
//! Whoever drafts, approves or sends reads a partner's details some time before writing, so there can be several answers; what is written
//! must be one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::model::Payout;
use super::{
    Auditor, Checked, Effect, Entry, Invariant, days, ensure, hash, program_of, reaches_minimum, skew, text, violation,
};
use crate::told::{About, Partner, Told};
use crate::ways::{Way, Ways};

/// Nothing is sent to changed details before so many days are over.
const COOLING_OFF: i64 = 3;

/// A destination as payouts carry it, and as hashes cover it.
pub fn fingerprint(way: Option<&Way>) -> String {
    match way {
        Some(way) => {
            let details: Vec<_> = way.details.iter().collect();
            hash(json!([way.kind, details]).to_string().as_bytes())
        }
        None => hash(b""),
    }
}

/// How a partner may have been paid for whoever began at a tick.
fn ways_since<'a>(told: &Told, partner: &'a Partner) -> &'a [Ways] {
    let (since, _) = told.since;
    let from = partner.ways.partition_point(|ways| ways.since <= since).saturating_sub(1);
    &partner.ways[from.min(partner.ways.len())..]
}

/// Whether nobody can have seen other details than the present ones.
pub fn is_settled(told: &Told, partner: &Partner) -> bool {
    ways_since(told, partner).len() <= 1
}

impl Auditor {
    /// Notes where a payout goes as it is stored, before the entry is read that says what was done.
    pub fn note_place(&mut self, stored: &Value) {
        let place = (text(stored, "method").to_owned(), text(stored, "destination").to_owned());
        self.places.insert(text(stored, "id").to_owned(), place);
    }

    /// Which of these ways was written, if any was. Of what is not stored, the first.
    fn written_of(
        &self,
        id: &str,
        possible: &[(Option<Way>, Option<&'static str>)],
    ) -> Vec<(Option<Way>, Option<&'static str>)> {
        let Some((method, destination)) = self.places.get(id) else {
            return possible.iter().take(1).cloned().collect();
        };
        let same = |(way, _): &&(Option<Way>, Option<&'static str>)| {
            let kind = way.as_ref().map_or("manual", |way| way.kind);
            kind == method && fingerprint(way.as_ref()) == *destination
        };
        possible.iter().filter(same).cloned().collect()
    }

    /// Where a payout goes that is drafted: to the kind of way that was asked for, else to the preferred one. With the kinds that somebody
    /// may have asked for.
    pub(super) fn place(
        &self,
        told: &Told,
        entry: &Entry,
        partner: &Partner,
    ) -> Checked<(Option<Way>, Vec<Option<&'static str>>)> {
        let requested = entry.by != "draft-payout";
        let kinds: BTreeSet<Option<&'static str>> = if requested {
            let asked = told.commands.iter().filter(|command| {
                (command.about, command.verb, command.by.as_str()) == (About::Partners, "payouts", entry.by)
                    && command.ids.contains(&partner.id)
            });
            asked.map(|command| command.method).collect()
        } else {
            BTreeSet::from([None])
        };
        let mut possible = Vec::new();
        for ways in ways_since(told, partner) {
            for kind in &kinds {
                let way = kind.map_or_else(|| ways.preferred(), |kind| ways.of(kind));
                possible.push((way.cloned(), *kind));
            }
        }
        let written = self.written_of(entry.stream, &possible);
        let name = entry.name();
        let Some((way, _)) = written.first().cloned() else {
            let found = self.places.get(entry.stream);
            return violation(
                Invariant::OnePayment,
                format!("{name}: is to go to {found:?}, and possible are {possible:?}"),
            );
        };
        Ok((way, written.into_iter().map(|(_, kind)| kind).collect()))
    }

    /// The partner is paid otherwise from now on: what was not sent goes there, and waits to be approved anew.
    pub(super) fn redirect(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, mut payout) = (entry.name(), self.payout(entry, &["drafting", "pending", "approved"])?);
        let (partner, _) = program_of(told, &payout.partner)?;
        let by_them = told.commands.iter().any(|command| {
            (command.about, command.verb, command.by.as_str()) == (About::Partners, "details", entry.by)
                && command.ids.contains(&partner.id)
        });
        // Whoever changes anything else of a partner sees to what an earlier change left to be done.
        let sees_to_it = entry.by == "settlement" || !partner.suspended.is_empty();
        ensure!(by_them || sees_to_it, Access, "{name}: changed nothing");
        let mut possible = Vec::new();
        for ways in ways_since(told, partner) {
            let way = ways.of(payout.method).or_else(|| ways.preferred());
            let stays = ways.of(payout.method).is_some_and(|way| payout.goes_to(Some(way)));
            if !(stays || payout.must_net && way.is_none()) {
                possible.push((way.cloned(), None));
            }
        }
        let Some((way, _)) = self.written_of(entry.stream, &possible).into_iter().next() else {
            let found = self.places.get(entry.stream);
            return violation(
                Invariant::OnePayment,
                format!("{name}: goes to {found:?}, and possible are {possible:?}"),
            );
        };
        payout.goes(way);
        payout.must_net |= payout.place.is_none();
        payout.redirected = true;
        payout.version += 1;
        payout.approvals.clear();
        if payout.state != "drafting" {
            payout.state = "pending";
            if payout.place.is_none() || !reaches_minimum(&mut payout, entry, entry.stream) {
                payout.state = "cancelled";
                payout.settling = Some(0);
            }
        }
        self.follow(entry, payout)
    }

    /// Nobody approves what goes elsewhere than the partner says, or to where they themselves had it go.
    pub(super) fn approves_place(told: &Told, entry: &Entry, payout: &Payout) -> Checked {
        let (partner, _) = program_of(told, &payout.partner)?;
        let same = |ways: &Ways| ways.of(payout.method).filter(|way| payout.goes_to(Some(way))).cloned();
        let by_others = |way: &Way| way.changed.as_ref().is_none_or(|(by, _)| by != entry.by);
        let fits = ways_since(told, partner).iter().filter_map(same).any(|way| by_others(&way));
        ensure!(fits, Access, "{}: approves what goes to {:?}, of {:?}", entry.name(), payout.place, partner.ways);
        Ok(())
    }

    /// What is sent goes to where the partner is paid, and has been for some days.
    pub(super) fn leaves_for(told: &Told, entry: &Entry, payout: &Payout) -> Checked {
        let (partner, _) = program_of(told, &payout.partner)?;
        let same = |ways: &Ways| ways.of(payout.method).filter(|way| payout.goes_to(Some(way))).cloned();
        let cooled =
            |way: &Way| way.changed.as_ref().is_none_or(|(_, at)| *at + days(COOLING_OFF) <= entry.at + skew());
        let fits = ways_since(told, partner).iter().filter_map(same).any(|way| cooled(&way));
        let name = entry.name();
        ensure!(
            fits,
            OnePayment,
            "{name}: is sent to {:?}, and the partner is paid by {:?}",
            payout.place,
            partner.ways
        );
        Ok(())
    }

    /// Somebody was told that a partner is paid otherwise, and they are.
    pub(super) fn details_given(told: &Told) -> Checked {
        let mut given: BTreeMap<&str, &Partner> = BTreeMap::new();
        given.extend(told.partners.iter().map(|partner| (partner.id.as_str(), partner)));
        for command in told.commands.iter().filter(|command| command.verb == "details") {
            let done = command.answer.as_ref().is_some_and(|answer| (200..300).contains(&answer.status));
            let Some(partner) = command.ids.first().and_then(|id| given.get(id.as_str())).filter(|_| done) else {
                continue;
            };
            let like = |ways: &Ways| {
                let same = |(one, other): (&Way, &Way)| one.leads_where(other) && one.preferred == other.preferred;
                ways.all.len() == command.ways.len() && ways.all.iter().zip(&command.ways).all(same)
            };
            ensure!(
                partner.ways.iter().any(like),
                Converges,
                "{}: was told {:?}, and never was",
                partner.id,
                command.ways
            );
        }
        Ok(())
    }
}

impl Payout {
    pub fn goes(&mut self, way: Option<Way>) {
        self.method = way.as_ref().map_or("manual", |way| way.kind);
        self.place = way;
    }

    pub fn goes_to(&self, way: Option<&Way>) -> bool {
        match (&self.place, way) {
            (Some(place), Some(way)) => place.leads_where(way),
            (place, way) => place.is_none() && way.is_none(),
        }
    }
}
