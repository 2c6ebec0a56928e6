//! How partners are paid, and how that changes at any time.

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use workflows::Clock;

use super::{Job, Outcome, PEOPLE, Reply, World, api_event, failure, text};
use crate::chance::Chance;
use crate::shop;
use crate::told::{About, Command, Partner, SKEW_SECONDS};
use crate::ways::{self, KINDS, Way, Ways};

/// Where the chance of second ways begins, which nothing else is decided by.
const SECOND: u64 = 1 << 47;

impl World {
    /// The ways of a partner who joins: this one, if any, and perhaps another.
    pub(super) fn first_ways(&self, kind: Option<&'static str>, number: usize, vendor: Option<&str>) -> Vec<Way> {
        let mut chance = Chance::of(self.seed, SECOND + number as u64);
        let Some(kind) = kind else { return Vec::new() };
        let mut all = vec![Way { preferred: true, ..shop::way(kind, number, 0, vendor) }];
        if chance.percent(35) {
            let others: Vec<_> = KINDS.into_iter().filter(|other| *other != "quickbooks" && *other != kind).collect();
            all.extend(chance.pick(&others).map(|other| shop::way(other, number, 0, None)));
        }
        all
    }

    /// Somebody has a partner paid otherwise: elsewhere, by something else, no more, or again as before.
    pub(super) fn change_details(&mut self, chance: &mut Chance) -> Outcome {
        // Of those that something waits to be sent to, if there are any.
        let waiting = self.payouts_in(&["drafting", "pending", "approved", "submitting", "failed"], false);
        let paid: Vec<_> = waiting.iter().map(|payout| text(&payout["partner"])).collect();
        let picked = chance.pick(&paid).filter(|_| chance.clone().percent(70)).cloned();
        let at = picked.and_then(|id| self.told.partners.iter().position(|partner| partner.id == id));
        let number = at.unwrap_or_else(|| chance.below(self.told.partners.len()));
        let partner = &self.told.partners[number];
        let Some(now) = partner.ways.last() else { return Ok(()) };
        self.orders += 1;
        let vendor = self.told.ledgers.named.get(&partner.id).map(String::as_str);
        let fresh = |kind: &'static str| shop::way(kind, number, self.orders, vendor);
        // Nobody is billed in another currency than their program's, and nobody where there is no company.
        let there = self.told.ledgers.realms.contains_key(&partner.program) && partner.paid_in.is_none();
        let kinds: Vec<_> = KINDS.into_iter().filter(|kind| there || *kind != "quickbooks").collect();
        let mut all: Vec<Way> = now.all.iter().map(|way| Way { changed: None, ..way.clone() }).collect();
        match (chance.below(12), chance.pick(&kinds).copied()) {
            (0..5, _) if !all.is_empty() => {
                let n = chance.below(all.len());
                all[n] = Way { preferred: all[n].preferred, ..fresh(all[n].kind) };
            }
            (5, _) => all.clear(),
            (6, _) => {
                let before = chance.pick(&partner.ways).map(|ways| ways.all.clone()).unwrap_or_default();
                all = before.into_iter().map(|way| Way { changed: None, ..way }).collect();
            }
            (7, _) if all.len() > 1 => drop(all.remove(chance.below(all.len()))),
            (_, Some(kind)) => {
                let kept = all.iter().position(|way| way.kind == kind).map(|at| all.remove(at));
                let prefers = chance.percent(70);
                for way in &mut all {
                    way.preferred &= !prefers;
                }
                all.push(Way { preferred: prefers, ..kept.unwrap_or_else(|| fresh(kind)) });
            }
            _ => {}
        }
        let id = partner.id.clone();
        let body = json!({"payoutMethods": all.iter().map(Way::body).collect::<Vec<_>>()});
        let by = chance.pick(&PEOPLE).copied().unwrap_or("ann");
        let path = format!("/partners/{id}");
        self.note(|| format!("  {by}: {path} {body}"));
        self.telling.ways = all;
        self.tell_command(by, About::Partners, "details", vec![id], &body);
        let event = api_event(by, "admin", &Method::PATCH, &path, Some(&body))?;
        // Often nobody comes so far as to have open payouts follow.
        let (functions, mut lot) = (self.instance(chance), Self::lot(chance));
        lot.mortal = *chance.pick(&[0, lot.mortal, 150]).unwrap_or(&0);
        let answer = async move { functions.http(event).await.map(Reply::Http) };
        self.tasks.start(Job::Command(self.told.commands.len() - 1), lot, Box::pin(answer));
        Ok(())
    }

    /// A partner was written: their details are as before, or as somebody gave them.
    pub(super) fn see_details(&mut self, item: &Value) -> Outcome {
        let (id, tick, now) = (text(&item["id"]), self.told.tick, self.clock.now());
        let Some(n) = self.told.partners.iter().position(|partner| partner.id == id) else { return Ok(()) };
        let found = ways::stored(item);
        let partner = &self.told.partners[n];
        if partner.ways.last().is_some_and(|ways| ways.all == found) {
            return Ok(());
        }
        let gave = |command: &&Command| command.verb == "details" && command.ids.first() == Some(&id);
        let explains = |command: &Command| as_given(partner, command, &found, now);
        if !self.told.commands.iter().filter(gave).any(explains) {
            let what = format!("{id} is paid by {found:?}, which nobody told; before, by {:?}", partner.ways.last());
            return Err(failure("12: payout details are those that somebody gave", what));
        }
        self.told.partners[n].ways.push(Ways { since: tick + 1, all: found });
        Ok(())
    }
}

/// Whether a command makes a partner's ways what they are.
fn as_given(partner: &Partner, command: &Command, found: &[Way], now: Timestamp) -> bool {
    let none = Ways { since: 0, all: Vec::new() };
    let before = partner.ways.last().unwrap_or(&none);
    let first = partner.ways.iter().all(|ways| ways.all.is_empty());
    let skew = SignedDuration::from_secs(SKEW_SECONDS);
    let times = found.iter().filter_map(|way| way.changed.as_ref()).map(|(_, at)| *at);
    let in_time = times.filter(|at| *at >= command.at - skew && *at <= now + skew);
    // When exactly it was, only what was written tells.
    in_time.chain([now]).any(|at| before.given(first, &command.ways, &(command.by.clone(), at)) == found)
}
