//! The audit: recomputes everything from the lines and the journal, and tells which invariants hold. It reads the whole
//! table and trusts no index, no balance and no stored sum.

use std::collections::{BTreeMap, BTreeSet};

use domain::accrual::true_up_step;
use domain::balance::Balance;
use domain::booking::tallies_of;
use domain::ids::{LineId, ProgramId};
use domain::journal::{Entry, EntryRef, LineChange, LineFacts};
use domain::line::{Line, LineKind, LineState};
use domain::money::Minor;
use domain::payout::{Page, Payout, PayoutState};
use domain::reversal::{EarningKey, share};
use domain::rules::Rule;
use domain::tally::{Tally, TallyKey, contribution};
use domain::tax::{Counted, counted};
use serde::Serialize;
use store::{Everything, Store, StoreError};

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::history::order_of;
use crate::replay::{Replayed, replay};

const TRAIL: &str = "trail";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invariant {
    pub name: &'static str,
    pub holds: bool,
    /// What was checked, or what is wrong.
    pub detail: String,
}

/// A line's history as the journal has it, and whether it can be trusted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trail {
    pub commission: LineId,
    /// Oldest first.
    pub entries: Vec<Step>,
    /// Every entry has the hash that the next one, and in the end the line, names it by; each starts from where the one before it led; and
    /// there is one for every version of the line.
    pub verified: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// An entry and where it stands; the last part of that is the SHA-256 of its content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub at: EntryRef,
    pub entry: Entry,
}

/// Entries of one line that are read. A line has a handful.
pub const MAX_TRAIL: usize = 500;

/// Follows a line's chain of entries back to its first, and verifies it.
pub async fn trail(context: &Context, id: &LineId) -> Result<Trail> {
    let line = context.store.line(TRAIL, id).await?.ok_or(Refusal::NotFound("commission"))?;
    let mut entries = Vec::new();
    let mut facts = LineFacts::of(&line)?;
    let mut next = Some(line.entry.clone());
    let mut broken = None;
    while let Some(at) = next.take() {
        if entries.len() == MAX_TRAIL {
            return Err(Refusal::invalid(
                "/id",
                format!("has more than {MAX_TRAIL} entries, the most that are read at once"),
            ));
        }
        let entry = match context.store.entry(TRAIL, &at).await {
            Ok(Some(sealed)) if sealed.at == at => sealed.entry,
            Ok(Some(sealed)) => {
                broken = Some(format!("in the place of entry {at} stands {}", sealed.at));
                break;
            }
            Ok(None) => {
                broken = Some(format!("entry {at} is missing"));
                break;
            }
            Err(StoreError::Corrupt(why)) => {
                broken = Some(why);
                break;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(change) = change_of(&entry, &line) else {
            broken = Some(format!("entry {at} does not tell of it"));
            break;
        };
        if change.to != facts {
            broken = Some(format!("entry {at} does not lead to what follows"));
        }
        next.clone_from(&change.after);
        if let Some(from) = &change.from {
            facts = from.clone();
        }
        entries.push(Step { at, entry });
    }
    entries.reverse();
    if broken.is_none() && u32::try_from(entries.len()) != Ok(line.version) {
        broken = Some(format!("{} entries tell of {} versions", entries.len(), line.version));
    }
    Ok(Trail { commission: line.id, entries, verified: broken.is_none(), broken })
}

/// A check: how many things it looked at, or the first few that are wrong.
type Findings = (usize, Vec<String>);

/// Every invariant that can be recomputed so far.
pub async fn audit(store: &Store) -> Result<Vec<Invariant>> {
    let all = store.everything().await?;
    let books = Books::of(&all);
    let checks: [(&'static str, Findings); 15] = [
        ("every item can be read and no journal entry was altered", (all.entries.len(), all.damaged.clone())),
        ("each conversion event has one effect", books.one_effect()),
        ("a conversion's entries are numbered without gaps", books.no_gaps()),
        ("every line's chain of entries leads to its current state", books.chains_lead_to_lines()),
        ("balance = fold of journal entries = sum of lines", books.balances()),
        ("postings of every entry sum to zero", books.postings_sum_to_zero()),
        ("payout amount = sum of its lines, and no two payouts share a line", books.payouts()),
        ("a line is paid exactly if its payout is", books.lines_follow_payouts()),
        ("a payout stands where its last entry left it", books.payouts_follow_entries()),
        ("a payout is paid exactly if all of it is, and never more", books.payments()),
        ("tax kept back is what its terms say", books.taxes()),
        ("what refunds took back is the cumulative target", books.reversals()),
        ("every tally is the sum of what its earnings contribute", books.tallies()),
        ("what partners were paid in a year is the sum of their payouts", books.tax_years()),
        ("replaying the journal gives every line again, byte for byte", replayed(&all)),
    ];
    Ok(checks
        .into_iter()
        .map(|(name, (checked, wrong))| Invariant {
            name,
            holds: wrong.is_empty(),
            detail: if wrong.is_empty() {
                format!("{checked} checked")
            } else {
                wrong.into_iter().take(5).collect::<Vec<_>>().join("; ")
            },
        })
        .collect())
}

struct Books<'a> {
    all: &'a Everything,
    lines: BTreeMap<&'a str, &'a Line>,
    by_conversion: BTreeMap<&'a str, Vec<&'a Line>>,
    rules: BTreeMap<(ProgramId, u32), Vec<Rule>>,
    /// Entries by stream, in order.
    streams: BTreeMap<&'a str, Vec<&'a Entry>>,
}

impl<'a> Books<'a> {
    fn of(all: &'a Everything) -> Self {
        let mut streams: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for sealed in &all.entries {
            streams.entry(&sealed.entry.stream).or_default().push(&sealed.entry);
        }
        for entries in streams.values_mut() {
            entries.sort_by_key(|entry| entry.position);
        }
        let mut by_conversion: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
        for line in &all.lines {
            if let Some(conversion) = &line.conversion {
                by_conversion.entry(conversion.as_str()).or_default().push(line);
            }
        }
        let currency = |program: &ProgramId| all.programs.iter().find(|of| of.id == *program).map(|of| of.currency);
        let resolve = |set: &domain::rules::RuleSet| {
            let rules = set.draft.resolve(currency(&set.program)?).ok()?;
            Some(((set.program.clone(), set.version), rules))
        };
        let rules = all.rule_sets.iter().filter_map(resolve).collect();
        Self {
            all,
            lines: all.lines.iter().map(|line| (line.id.as_str(), line)).collect(),
            by_conversion,
            rules,
            streams,
        }
    }

    fn conversions(&self) -> impl Iterator<Item = (&'a str, &Vec<&'a Entry>)> {
        self.streams.iter().filter(|(stream, _)| stream.starts_with("cnv_")).map(|(stream, entries)| (*stream, entries))
    }

    fn one_effect(&self) -> Findings {
        let (mut checked, mut wrong) = (0, Vec::new());
        for (conversion, entries) in self.conversions() {
            let mut seen = BTreeSet::new();
            for event in entries.iter().filter_map(|entry| entry.event.as_ref()) {
                checked += 1;
                if !seen.insert((event.body.kind(), &event.id)) {
                    wrong.push(format!("{conversion}: event {} twice", event.id));
                }
            }
        }
        (checked, wrong)
    }

    fn no_gaps(&self) -> Findings {
        let numbered = |entries: &[&Entry]| (1..).zip(entries).all(|(position, entry)| entry.position == position);
        let wrong = self.conversions().filter(|(_, entries)| !numbered(entries)).map(|(id, _)| id.to_owned()).collect();
        (self.conversions().count(), wrong)
    }

    fn chains_lead_to_lines(&self) -> Findings {
        let by_place: BTreeMap<String, &Entry> =
            self.all.entries.iter().map(|sealed| (sealed.at.to_string(), &sealed.entry)).collect();
        let mut wrong = Vec::new();
        for line in &self.all.lines {
            let mut at = Some(line.entry.to_string());
            let mut expect: Option<(domain::line::StateName, Minor)> =
                Some((line.state.name(), line.net().unwrap_or_default()));
            let mut versions = 0;
            while let Some(place) = at.take() {
                let Some(change) = by_place.get(&place).and_then(|entry| change_of(entry, line)) else {
                    wrong.push(format!("{}: no entry {place}", line.id));
                    break;
                };
                versions += 1;
                if expect.is_some_and(|expect| expect != (change.to.state, change.to.net)) {
                    wrong.push(format!("{}: entry {place} does not lead to what follows", line.id));
                }
                expect = change.from.as_ref().map(|facts| (facts.state, facts.net));
                at = change.after.as_ref().map(ToString::to_string);
            }
            if versions != line.version {
                wrong.push(format!("{}: {versions} entries for version {}", line.id, line.version));
            }
        }
        (self.all.lines.len(), wrong)
    }

    fn balances(&self) -> Findings {
        let mut from_lines: BTreeMap<(String, String), Balance> = BTreeMap::new();
        for line in &self.all.lines {
            let sum = from_lines.entry((line.partner.to_string(), line.currency.to_string())).or_default();
            let _ = Balance::of_line(line).and_then(|of_line| sum.apply(&of_line));
        }
        let mut from_journal: BTreeMap<String, Balance> = BTreeMap::new();
        for posting in self.all.entries.iter().flat_map(|sealed| &sealed.entry.postings) {
            let sum = from_journal.entry(posting.partner.to_string()).or_default();
            let _ = sum.add_amount(posting.from, posting.amount.negated());
            let _ = sum.add_amount(posting.to, posting.amount);
        }
        let mut wrong = Vec::new();
        let keys: BTreeSet<_> = from_lines.keys().chain(self.all.balances.keys()).collect();
        for key in &keys {
            let none = Balance::default();
            let stored = self.all.balances.get(*key).unwrap_or(&none);
            let lines = from_lines.get(*key).unwrap_or(&none);
            let journal = from_journal.get(&key.0).unwrap_or(&none);
            let same_amounts = |a: &Balance, b: &Balance| a.amounts().eq(b.amounts());
            if !same_amounts(stored, lines) || !stored.counts().eq(lines.counts()) {
                wrong.push(format!("{} {}: the balance is not the sum of the lines", key.0, key.1));
            }
            if !same_amounts(stored, journal) {
                wrong.push(format!("{} {}: the balance is not the fold of the journal", key.0, key.1));
            }
        }
        (keys.len(), wrong)
    }

    fn postings_sum_to_zero(&self) -> Findings {
        let unbalanced = |balance: &Balance| balance.total() != Ok(Minor::ZERO);
        let wrong = self.all.balances.iter().filter(|(_, balance)| unbalanced(balance)).map(|(key, _)| key.0.clone());
        (self.all.entries.len(), wrong.collect())
    }

    fn payouts(&self) -> Findings {
        let mut wrong = Vec::new();
        let mut claimed = BTreeSet::new();
        for payout in &self.all.payouts {
            let mut pages: Vec<Page> = self.all.pages.iter().filter(|page| page.payout == payout.id).cloned().collect();
            pages.sort_by_key(|page| page.number);
            let on_pages: Vec<_> = pages.iter().flat_map(|page| &page.lines).collect();
            let sum = Minor::total(on_pages.iter().map(|line| line.net));
            // While lines are being claimed the hash is not yet taken.
            let closed = payout.state != PayoutState::Drafting;
            if sum != Ok(payout.amount) || (closed && payout.content_hash(&pages) != payout.lines_hash) {
                wrong.push(format!("{}: amount or hash is not that of its lines", payout.id));
            }
            if matches!(payout.state, PayoutState::Cancelled | PayoutState::Void) {
                continue;
            }
            for on_page in on_pages {
                let line = self.lines.get(on_page.id.as_str());
                let held = line.is_some_and(|line| {
                    line.payout().is_some_and(|(id, _)| *id == payout.id) && line.net() == Ok(on_page.net)
                });
                if !held {
                    wrong.push(format!("{}: {} is on a page but not in the payout", payout.id, on_page.id));
                }
                if !claimed.insert(on_page.id.clone()) {
                    wrong.push(format!("{} is in two payouts", on_page.id));
                }
            }
        }
        (self.all.payouts.len(), wrong)
    }

    fn lines_follow_payouts(&self) -> Findings {
        let payouts: BTreeMap<&str, _> = self.all.payouts.iter().map(|payout| (payout.id.as_str(), payout)).collect();
        let mut wrong = Vec::new();
        for line in &self.all.lines {
            let Some((id, _)) = line.payout() else { continue };
            let Some(payout) = payouts.get(id.as_str()) else {
                wrong.push(format!("{} is in a payout that does not exist", line.id));
                continue;
            };
            let paid = matches!(line.state, LineState::Paid { .. });
            let settled = payout.settling.is_none();
            let ended = matches!(payout.state, PayoutState::Cancelled | PayoutState::Void);
            // Until all lines have followed it, some are where they were.
            if (ended && (paid || settled)) || (settled && paid != (payout.state == PayoutState::Paid)) {
                wrong.push(format!(
                    "{} is {} in a payout that is {}",
                    line.id,
                    line.state.name().as_str(),
                    payout.state.as_str()
                ));
            }
        }
        (self.all.lines.len(), wrong)
    }

    fn payouts_follow_entries(&self) -> Findings {
        let by_place: BTreeMap<String, &Entry> =
            self.all.entries.iter().map(|sealed| (sealed.at.to_string(), &sealed.entry)).collect();
        let mut wrong = Vec::new();
        for payout in &self.all.payouts {
            let entry = by_place.get(&payout.entry.to_string());
            let told = entry.and_then(|entry| entry.payouts.iter().find(|told| told.id == payout.id));
            let stands = (payout.state, payout.amount, payout.paid, payout.content_version);
            if told.is_none_or(|told| (told.to, told.amount, told.paid, told.version) != stands) {
                wrong.push(format!("{}: its last entry does not lead to where it stands", payout.id));
            }
        }
        (self.all.payouts.len(), wrong)
    }

    fn payments(&self) -> Findings {
        let wrong = self.all.payouts.iter().filter(|payout| {
            let sent = payout.pays().map(|sent| sent.amount).unwrap_or_default();
            let (none, all) = (payout.paid.is_zero(), payout.paid == sent);
            let part = !payout.paid.is_negative() && payout.paid < sent;
            !match payout.state {
                PayoutState::Paid => all,
                PayoutState::PartiallyPaid => part && !none,
                PayoutState::Submitting | PayoutState::Submitted | PayoutState::Failed => none || part,
                _ => none,
            }
        });
        let told = |payout: &Payout| {
            format!("{}: {} is paid, and it is {}", payout.id, payout.paid.units(), payout.state.as_str())
        };
        (self.all.payouts.len(), wrong.map(told).collect())
    }

    fn taxes(&self) -> Findings {
        let ended = |payout: &&Payout| matches!(payout.state, PayoutState::Cancelled | PayoutState::Void);
        let taxed = self.all.payouts.iter().filter(|payout| payout.state != PayoutState::Drafting && !ended(payout));
        // What nets to zero has nothing to keep back from.
        let wrong = taxed.filter(|payout| payout.tax_due() != Ok(payout.withheld));
        let told = |payout: &Payout| format!("{}: {} is withheld", payout.id, payout.withheld.units());
        (self.all.payouts.len(), wrong.map(told).collect())
    }

    /// What counts for the returns of a year.
    fn tax_years(&self) -> Findings {
        let mut sums: BTreeMap<(&str, i16), Counted> = BTreeMap::new();
        let mut wrong = Vec::new();
        for payout in &self.all.payouts {
            match counted(payout) {
                Ok(years) => {
                    for (year, part) in years {
                        let sum = sums.entry((payout.partner.as_str(), year)).or_default();
                        *sum = sum.plus(part).unwrap_or_default();
                    }
                }
                Err(error) => wrong.push(format!("{}: {error}", payout.id)),
            }
        }
        for (year, stored) in &self.all.tax_years {
            let sum = sums.remove(&(stored.partner.as_str(), *year)).unwrap_or_default();
            if sum != stored.counted {
                wrong.push(format!("{} in {year}: {:?}, but payouts make {sum:?}", stored.partner, stored.counted));
            }
        }
        let missing = sums.iter().filter(|(_, sum)| !sum.is_zero());
        wrong.extend(missing.map(|((partner, year), sum)| format!("{partner} in {year}: {sum:?} is missing")));
        (self.all.tax_years.len(), wrong)
    }

    /// The lines of each earning of a conversion.
    fn earnings(&self, conversion: &str) -> BTreeMap<EarningKey, Vec<&'a Line>> {
        let mut earnings: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in self.by_conversion.get(conversion).into_iter().flatten() {
            if let Some(key) = line.earning() {
                earnings.entry(key).or_default().push(*line);
            }
        }
        earnings
    }

    fn reversals(&self) -> Findings {
        let (mut checked, mut wrong) = (0, Vec::new());
        for (conversion, entries) in self.conversions() {
            let Ok((Some(order), attribution)) = order_of(entries) else { continue };
            for (key, lines) in self.earnings(conversion) {
                checked += 1;
                let gross =
                    Minor::total(lines.iter().filter(|line| line.kind.is_part_of_gross()).map(|line| line.amount));
                let back = Minor::total(lines.iter().map(|line| match (line.kind, &line.state) {
                    (LineKind::Clawback | LineKind::Reinstatement, _) => line.amount.negated(),
                    (_, LineState::Rejected { refunded, .. }) => line.taken_back.plus(*refunded).unwrap_or_default(),
                    _ => line.taken_back,
                }));
                let of = lines.iter().find(|line| line.kind == LineKind::Commission);
                let share = of.map_or(Ok((0, 1)), |of| share(&order, attribution, of));
                let target = share.and_then(|(part, whole)| gross?.proportion(part, whole));
                if target != back {
                    wrong.push(format!("{conversion} {key:?}: {back:?} taken back, {target:?} should be"));
                }
            }
        }
        (checked, wrong)
    }

    fn rules(&self, line: &Line) -> Option<&Rule> {
        let rules = self.rules.get(&(line.program.clone(), line.rule_set?))?;
        rules.iter().find(|rule| line.basis.as_ref().is_some_and(|basis| basis.rule == rule.key))
    }

    /// What every earning and every true-up contributes, summed, is what the tallies say.
    fn tallies(&self) -> Findings {
        let mut sums: BTreeMap<(ProgramId, TallyKey), Tally> = BTreeMap::new();
        let mut wrong = Vec::new();
        let mut add = |line: &Line, keys: Vec<TallyKey>, step: &Tally| {
            for key in keys {
                let sum = sums.entry((line.program.clone(), key)).or_default();
                *sum = sum.clone().plus(step).unwrap_or_default();
            }
        };
        for (conversion, entries) in self.conversions() {
            let Ok((Some(order), attribution)) = order_of(entries) else { continue };
            for lines in self.earnings(conversion).values() {
                let Some(of) = lines.iter().find(|line| line.kind == LineKind::Commission) else { continue };
                let retroactive = self.rules(of).and_then(Rule::retroactive);
                let part = share(&order, attribution, of)
                    .and_then(|share| contribution(lines.iter().copied(), share, retroactive));
                match part {
                    Ok(part) => add(of, tallies_of(of).collect(), &part),
                    Err(error) => wrong.push(format!("{conversion}: {error}")),
                }
            }
        }
        for line in self.all.lines.iter().filter(|line| line.kind == LineKind::TrueUp) {
            let commission = Line { kind: LineKind::Commission, ..line.clone() };
            let Some(basis) = &line.basis else { continue };
            let step = true_up_step(line.rule_set.unwrap_or_default(), basis);
            add(line, tallies_of(&commission).collect(), &step);
        }
        for stored in &self.all.tallies {
            let sum = sums.remove(&(stored.program.clone(), stored.key.clone())).unwrap_or_default();
            if sum != stored.tally {
                wrong.push(format!("{:?} is {:?}, its earnings make {sum:?}", stored.key, stored.tally));
            }
        }
        wrong.extend(sums.iter().filter(|(_, sum)| !sum.is_zero()).map(|((_, key), _)| format!("{key:?} is missing")));
        (self.all.tallies.len(), wrong)
    }
}

fn replayed(all: &Everything) -> Findings {
    let Replayed { lines, differing, .. } = replay(all);
    (lines, differing.iter().map(ToString::to_string).collect())
}

fn change_of<'e>(entry: &'e Entry, line: &Line) -> Option<&'e LineChange> {
    entry.lines.iter().find(|change| change.id == line.id)
}
