//! Replay: every line once more, from nothing but the journal, the rule sets, and who is who.
//!
//! Each entry is done again by the very functions that did it, to the versions of lines that it was done to, and sealed again: it must come
//! out under the hash it has. What the lines are in the end is compared with what is stored, as bytes of JSON. So a line that was
//! changed beside the journal shows, and so does a rule of money that today's code computes otherwise than yesterday's.
//!
//! Nothing is taken from the stored lines, and nothing is written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use domain::accrual::Circumstances;
use domain::booking::{Booking, RulesByVersion, State, note_true_ups, tallies_of};
use domain::ids::{ConversionId, LineId, PartnerId, PayoutId, ProgramId, RunId};
use domain::journal::{Change, Entry, EntryRef, LineChange, PayoutChange, Sealed, Seen, What};
use domain::line::{Line, LineError, LineKind, StateName};
use domain::money::{Currency, Minor};
use domain::payout::OpenPayout;
use domain::program::{Partner, Program};
use domain::tally::Tallies;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use store::{Everything, StoreError};

use crate::adjust::adjusted;
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::history::{Moment, order_of};

const OPERATION: &str = "replay";
/// Commissions, and journal entries, of one program that are read into memory while the caller waits.
pub const MAX_OF_PROGRAM: usize = 5_000;
/// Streams read at once.
const READS: usize = 16;

/// What was replayed, and what came out otherwise than it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    pub lines: usize,
    pub entries: usize,
    pub differing: Vec<Difference>,
}

/// A line or an entry that comes out different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<LineId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryRef>,
    /// The first field that differs, stored and replayed; or why it could not be replayed.
    pub differs: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.line, &self.entry) {
            (Some(line), _) => write!(f, "{line}: {}", self.differs),
            (None, Some(entry)) => write!(f, "entry {entry}: {}", self.differs),
            (None, None) => f.write_str(&self.differs),
        }
    }
}

/// Replays everything that was read.
pub fn replay(all: &Everything) -> Replayed {
    let mut replay = Replay::of(all);
    replay.run();
    replay.compare(all);
    let unreadable = all.damaged.iter().map(|why| Difference { line: None, entry: None, differs: why.clone() });
    Replayed {
        lines: all.lines.len(),
        entries: all.entries.len(),
        differing: unreadable.chain(replay.differing).collect(),
    }
}

/// Replays one program, at most so many commissions and entries: of more, [`replay`] takes the whole table.
///
/// Reading takes a while, and things happen meanwhile. So what differs is read once more, and counts if it still does.
pub async fn of_program(context: &Context, program: &ProgramId, most: usize) -> Result<Replayed> {
    let mut replayed = replay(&Reading::of_program(context, program, most).await?.all);
    if !replayed.differing.is_empty() {
        let again = replay(&Reading::of_program(context, program, most).await?.all);
        replayed.differing.retain(|difference| again.differing.contains(difference));
    }
    Ok(replayed)
}

/// An entry by its stream and its place among the stream's entries.
type Place<'a> = (&'a str, usize);

/// What must have been replayed before an entry can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Entry(String, u32),
    Version(LineId, u32),
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entry(stream, position) => write!(f, "entry {stream}/{position}"),
            Self::Version(line, version) => write!(f, "version {version} of {line}"),
        }
    }
}

struct Replay<'a> {
    programs: BTreeMap<&'a ProgramId, &'a Program>,
    partners: BTreeMap<&'a PartnerId, &'a Partner>,
    rules: BTreeMap<&'a ProgramId, RulesByVersion>,
    /// Entries by stream, in order.
    streams: BTreeMap<&'a str, Vec<&'a Sealed>>,
    replayed: BTreeSet<(&'a str, u32)>,
    /// Every version of every line, oldest first.
    versions: BTreeMap<LineId, Vec<Line>>,
    differing: Vec<Difference>,
}

/// The entry does not say what it takes to do it again, or says what cannot be.
fn amiss(what: impl Into<String>) -> Refusal {
    StoreError::Corrupt(what.into()).into()
}

impl<'a> Replay<'a> {
    fn of(all: &'a Everything) -> Self {
        let programs: BTreeMap<_, _> = all.programs.iter().map(|program| (&program.id, program)).collect();
        let mut rules: BTreeMap<_, RulesByVersion> = BTreeMap::new();
        for set in &all.rule_sets {
            let resolved = programs.get(&set.program).and_then(|program| set.draft.resolve(program.currency).ok());
            if let Some(resolved) = resolved {
                rules.entry(&set.program).or_default().insert(set.version, resolved);
            }
        }
        let mut streams: BTreeMap<&str, Vec<&Sealed>> = BTreeMap::new();
        for sealed in &all.entries {
            streams.entry(&sealed.entry.stream).or_default().push(sealed);
        }
        for entries in streams.values_mut() {
            entries.sort_by_key(|sealed| sealed.entry.position);
        }
        Self {
            programs,
            partners: all.partners.iter().map(|partner| (&partner.id, partner)).collect(),
            rules,
            streams,
            replayed: BTreeSet::new(),
            versions: BTreeMap::new(),
            differing: Vec::new(),
        }
    }

    /// Does one entry after the other, each as soon as what it rests on is done.
    fn run(&mut self) {
        let places = self.streams.iter().flat_map(|(stream, entries)| (0..entries.len()).map(|at| (*stream, at)));
        let mut ready: VecDeque<Place<'a>> = places.collect();
        let mut waiting: BTreeMap<Need, Vec<Place<'a>>> = BTreeMap::new();
        while let Some(place) = ready.pop_front() {
            match self.need(place) {
                Some(need) => waiting.entry(need).or_default().push(place),
                None => {
                    for met in self.redo(place) {
                        ready.extend(waiting.remove(&met).unwrap_or_default());
                    }
                }
            }
        }
        for (need, places) in waiting {
            for (stream, at) in places {
                let entry =
                    self.streams.get(stream).and_then(|entries| entries.get(at)).map(|sealed| sealed.at.clone());
                let differs = format!("it rests on {need}, which does not come out");
                self.differing.push(Difference { line: None, entry, differs });
            }
        }
    }

    /// The first thing an entry rests on that is not done yet.
    fn need(&self, (stream, at): Place<'a>) -> Option<Need> {
        let entries = self.streams.get(stream)?;
        let entry = &entries.get(at)?.entry;
        let earlier = at.checked_sub(1).and_then(|before| entries.get(before));
        let earlier = earlier.map(|sealed| (sealed.entry.stream.as_str(), sealed.entry.position));
        let changed = entry.lines.iter().filter_map(|change| change.after.as_ref());
        let changed = changed.map(|after| (after.stream.as_str(), after.position));
        let read = entry.seen.iter().filter_map(|seen| match seen {
            Seen::Conversion { conversion, entries } => Some((conversion.as_str(), *entries)),
            Seen::Line { .. } => None,
        });
        let missing = earlier.into_iter().chain(changed).chain(read).find(|place| !self.replayed.contains(place));
        if let Some((stream, position)) = missing {
            return Some(Need::Entry(stream.to_owned(), position));
        }
        entry.seen.iter().find_map(|seen| match seen {
            Seen::Line { line, version } if self.version(line, *version).is_none() => {
                Some(Need::Version(line.clone(), *version))
            }
            _ => None,
        })
    }

    fn version(&self, line: &LineId, version: u32) -> Option<&Line> {
        let at = usize::try_from(version.checked_sub(1)?).ok()?;
        self.versions.get(line)?.get(at)
    }

    /// Does an entry again, and tells what others may have waited for.
    fn redo(&mut self, (stream, at): Place<'a>) -> Vec<Need> {
        let Some(entries) = self.streams.get(stream).and_then(|entries| entries.get(..=at)) else { return Vec::new() };
        let Some(sealed) = entries.last().copied() else { return Vec::new() };
        let differing = |differs| Difference { line: None, entry: Some(sealed.at.clone()), differs };
        let again = self.changes(entries, sealed).and_then(|mut changes| {
            let unsealed = Entry { lines: Vec::new(), postings: Vec::new(), ..sealed.entry.clone() };
            Ok((unsealed.seal(&mut changes)?, changes))
        });
        let (again, mut changes) = match again {
            Ok(again) => again,
            Err(refusal) => {
                self.differing.push(differing(refusal.to_string()));
                return Vec::new();
            }
        };
        if again.text != sealed.text {
            let differs = first_difference(&parsed(&sealed.text), &parsed(&again.text));
            self.differing.push(differing(differs.unwrap_or_else(|| "its text differs".to_owned())));
            // What it says of lines is followed all the same, so that what comes after it is looked at, too.
            changes.retain(|change| sealed.entry.lines.iter().any(|told| told.id == change.after.id));
            for change in &mut changes {
                change.after.entry = sealed.at.clone();
            }
        }
        self.replayed.insert((stream, sealed.entry.position));
        let mut met = vec![Need::Entry(stream.to_owned(), sealed.entry.position)];
        for Change { after, .. } in changes {
            met.push(Need::Version(after.id.clone(), after.version));
            self.versions.entry(after.id.clone()).or_default().push(after);
        }
        met
    }

    /// What the last of a stream's entries did, done again: to the lines it is about, then to the tax of the payouts that they are in.
    fn changes(&self, entries: &[&Sealed], sealed: &Sealed) -> Result<Vec<Change>> {
        let Some((_, earlier)) = entries.split_last() else { return Ok(Vec::new()) };
        let entry = &sealed.entry;
        // In a payout's own stream it follows the payout like every other line, but for where it was written first.
        let is_followed = payout_of(entry).is_ok_and(|payout| payout.id.as_str() == entry.stream);
        let is_tax = |told: &LineChange| entry.tax_of(&told.id).is_some() && (!is_followed || told.from.is_none());
        let taxes = entry.lines.iter().filter(|told| is_tax(told)).map(|told| self.taxed(entry, told));
        let taxes = taxes.collect::<Result<Vec<_>>>()?;
        if taxes.is_empty() {
            return self.without_tax(entries, sealed);
        }
        let mut untaxed = sealed.clone();
        untaxed.entry.lines.retain(|told| !is_tax(told));
        let mut changes = self.without_tax(&[earlier, &[&untaxed]].concat(), &untaxed)?;
        changes.extend(taxes);
        Ok(changes)
    }

    /// The tax of a payout, as its terms say.
    fn taxed(&self, entry: &Entry, told: &LineChange) -> Result<Change> {
        let (payout, tax) = entry.tax_of(&told.id).ok_or_else(|| amiss("it names no tax"))?;
        let due = tax.terms.of(payout.gross()?)?;
        if told.from.is_some() {
            let before = self.before(told)?;
            return Ok(Change::of(before.clone(), before.clone().withhold(due)?));
        }
        let id = payout.id.partner();
        let partner = self.partners.get(&id).ok_or_else(|| amiss(format!("nothing is known of {id}")))?;
        let line = Line::withholding(&payout.id, tax.page, partner, payout.currency, due, entry.at);
        // The partner may have more shards by now.
        Ok(Change::new(Line { id: told.id.clone(), ..line }))
    }

    fn without_tax(&self, entries: &[&Sealed], sealed: &Sealed) -> Result<Vec<Change>> {
        let Sealed { entry, .. } = sealed;
        let open = sealed.open_payouts();
        let why = entry.why.as_deref().unwrap_or_default();
        let token = |line: &Line| line.payout().and_then(|(payout, _)| open.get(payout));
        match entry.what {
            What::AwaitSale => Ok(Vec::new()),
            What::Accrue | What::Refund | What::Edit | What::Withdraw | What::Attribute => self.booked(entries, &open),
            What::Adjust if entry.stream.parse::<ConversionId>().is_ok() => self.booked(entries, &open),
            What::Adjust => self.adjusted_bonus(entries, entry, &open),
            What::Bonus => self.written(entry, |partner, currency, amount| {
                Line::bonus(partner, currency, amount, "", &entry.by, entry.at)
            }),
            What::WriteOff => self.written(entry, |partner, currency, amount| {
                let run = RunId::derive(&partner.program, "", "");
                Line::write_off(partner, currency, amount, (&run, entry.at), entry.at)
            }),
            What::Approve => self.each(entry, |line| line.approve(entry.at)),
            What::Mature => self.each(entry, |line| line.mature(entry.at)),
            What::Hold => self.each(entry, |line| {
                let token = token(&line);
                line.hold(why, token)
            }),
            What::Release => self.each(entry, |line| line.release(&entry.by, entry.at)),
            What::Reject => self.reviewed(entry, &open, |line| {
                let token = token(&line);
                line.reject(why, token)
            }),
            What::Reinstate => self.reviewed(entry, &open, |line| line.reinstate(&entry.by)),
            What::Draft | What::Claim => {
                let earlier = entries.iter().filter(|earlier| matches!(earlier.entry.what, What::Draft | What::Claim));
                let page = u32::try_from(earlier.count() - 1).unwrap_or(u32::MAX);
                let PayoutChange { id, .. } = payout_of(entry)?;
                self.each(entry, |line| line.claim(id, page))
            }
            What::Exclude => {
                let PayoutChange { id, .. } = payout_of(entry)?;
                self.each(entry, |line| {
                    let token = token(&line);
                    line.exclude(id, token, entry.at)
                })
            }
            What::CloseDraft
            | What::ApprovePayout
            | What::SendBack
            | What::BeginSubmit
            | What::Submit
            | What::Retry => self.each(entry, Ok),
            What::CancelPayout
            | What::Redirect
            | What::MarkPaid
            | What::MarkFailed
            | What::MarkReturned
            | What::VoidPayout
            | What::Unpay
            | What::Settle => {
                let PayoutChange { id, to, paid_at, .. } = payout_of(entry)?;
                self.each(entry, |line| line.follow(id, *to, paid_at.unwrap_or(entry.at)))
            }
        }
    }

    /// The line that an entry changed, as it was before.
    fn before(&self, change: &LineChange) -> Result<&Line> {
        let latest = self.versions.get(&change.id).and_then(|versions| versions.last());
        let before = latest.filter(|line| Some(&line.entry) == change.after.as_ref());
        before.ok_or_else(|| amiss(format!("{} was not at the entry before", change.id)))
    }

    /// The same for every line that the entry names.
    fn each(&self, entry: &Entry, step: impl Fn(Line) -> Result<Line, LineError>) -> Result<Vec<Change>> {
        let change = |told| {
            let before = self.before(told)?;
            Ok(Change::of(before.clone(), step(before.clone())?))
        };
        entry.lines.iter().map(change).collect()
    }

    /// The lines of some entries' making, as another entry found them. True-ups have no part in what becomes of other lines.
    fn looked_at<'e>(&self, made_by: impl IntoIterator<Item = &'e Entry>, entry: &Entry) -> Result<Vec<Line>> {
        let made = made_by.into_iter().flat_map(|entry| &entry.lines).filter(|change| change.from.is_none());
        let mut ids: VecDeque<_> = made.map(|change| change.id.clone()).collect();
        let mut lines: Vec<Line> = Vec::new();
        while let Some(id) = ids.pop_front() {
            let seen = entry.seen.iter().find_map(|seen| match seen {
                Seen::Line { line, version } if *line == id => self.version(line, *version),
                _ => None,
            });
            // What it was written with stays, whatever becomes of it.
            let true_up = || self.version(&id, 1).filter(|line| line.kind == LineKind::TrueUp);
            let line = match (entry.lines.iter().find(|change| change.id == id), seen) {
                (Some(change), _) => self.before(change)?,
                (None, Some(seen)) => seen,
                (None, None) => true_up().ok_or_else(|| amiss(format!("it does not say how it found {id}")))?,
            };
            ids.extend(line.true_ups.iter().cloned());
            lines.push(line.clone());
        }
        Ok(lines)
    }

    fn program_of(&self, partner: &PartnerId) -> Result<(&'a Program, &RulesByVersion)> {
        let program = self.partners.get(partner).and_then(|partner| self.programs.get(&partner.program));
        let program = program.ok_or_else(|| amiss(format!("nothing is known of {partner}")))?;
        let rules = self.rules.get(&program.id).ok_or_else(|| amiss(format!("{} has no rules", program.id)))?;
        Ok((program, rules))
    }

    /// An event or a person's decision, in the stream of its conversion.
    fn booked(&self, entries: &[&Sealed], open: &BTreeMap<PayoutId, OpenPayout>) -> Result<Vec<Change>> {
        let entries: Vec<_> = entries.iter().map(|sealed| &sealed.entry).collect();
        let (Some((entry, earlier)), Some(moment)) = (entries.split_last(), Moment::of(&entries)?) else {
            return Ok(Vec::new());
        };
        let lines = self.looked_at(earlier.iter().copied(), entry)?;
        let accruing = moment.accruing();
        let credited = accruing.iter().flat_map(|accruing| &accruing.circumstances.partners).map(|of| &of.partner);
        // Of what is due to nobody, nothing comes.
        let Some(partner) = credited.chain(lines.iter().map(|line| &line.partner)).next() else {
            return Ok(Vec::new());
        };
        let (program, rules) = self.program_of(partner)?;
        if let (Some(accruing), Some(sold_at)) = (&accruing, moment.sold_at()) {
            attributed_again(accruing.circumstances, sold_at)?;
        }
        let decided = if entry.what == What::Adjust { adjusted_again(entry, &lines, open)? } else { lines.clone() };
        let conversion: ConversionId = entry.stream.parse().map_err(|_| amiss("its stream is no conversion"))?;
        let cause = entry.cause();
        let booking = moment.booking(program, &conversion, rules, open, &cause);
        Ok(booking.book(&lines, decided, accruing.as_ref(), &mut tallies_read(entry))?)
    }

    /// Lines written for no conversion.
    fn written(&self, entry: &Entry, line: impl Fn(&Partner, Currency, Minor) -> Line) -> Result<Vec<Change>> {
        let written = |told: &LineChange| {
            let partner = self.partners.get(&told.id.partner());
            let partner = partner.ok_or_else(|| amiss(format!("nothing is known of {}", told.id.partner())))?;
            let program = self.programs.get(&partner.program);
            let program = program.ok_or_else(|| amiss(format!("nothing is known of {}", partner.program)))?;
            let line = line(partner, program.currency, told.to.amount);
            // Its origin is chance, or the run that wrote it; nothing but the id comes of it.
            Ok(Change::new(Line { id: told.id.clone(), ..line }))
        };
        entry.lines.iter().map(written).collect()
    }

    fn adjusted_bonus(
        &self,
        entries: &[&Sealed],
        entry: &Entry,
        open: &BTreeMap<PayoutId, OpenPayout>,
    ) -> Result<Vec<Change>> {
        let earlier = entries.iter().map(|sealed| &sealed.entry).filter(|earlier| earlier.position < entry.position);
        let lines = self.looked_at(earlier, entry)?;
        let after = adjusted_again(entry, &lines, open)?;
        Ok(domain::reversal::changes(&lines, after))
    }

    /// Rejections and reinstatements, with what they cause in the conversions whose lines count in tallies.
    fn reviewed(
        &self,
        entry: &Entry,
        open: &BTreeMap<PayoutId, OpenPayout>,
        verdict: impl Fn(Line) -> Result<Line, LineError>,
    ) -> Result<Vec<Change>> {
        let mut all = Vec::new();
        let mut tallied: BTreeMap<ProgramId, BTreeMap<ConversionId, Vec<Line>>> = BTreeMap::new();
        // Whatever else changed was a consequence: only people reject and reinstate.
        let rejected = |state| state == StateName::Rejected;
        let decided =
            |told: &&LineChange| told.from.as_ref().is_some_and(|from| rejected(from.state) != rejected(told.to.state));
        for told in entry.lines.iter().filter(decided) {
            let before = self.before(told)?.clone();
            let after = verdict(before.clone())?;
            match &after.conversion {
                Some(conversion) if tallies_of(&after).next().is_some() => {
                    let of_program = tallied.entry(after.program.clone()).or_default();
                    of_program.entry(conversion.clone()).or_default().push(after);
                }
                _ => all.push(Change::of(before, after)),
            }
        }
        for conversions in tallied.into_values() {
            let mut tallies = tallies_read(entry);
            for (conversion, decided) in conversions {
                all.extend(self.reviewed_conversion(entry, open, &conversion, &decided, &mut tallies)?);
            }
        }
        Ok(all)
    }

    fn reviewed_conversion(
        &self,
        entry: &Entry,
        open: &BTreeMap<PayoutId, OpenPayout>,
        conversion: &ConversionId,
        verdicts: &[Line],
        tallies: &mut Tallies,
    ) -> Result<Vec<Change>> {
        let read = entry.seen.iter().find_map(|seen| match seen {
            Seen::Conversion { conversion: of, entries } if of == conversion => Some(*entries),
            _ => None,
        });
        let read = read.ok_or_else(|| amiss(format!("it does not say how it found {conversion}")))?;
        let told = self.streams.get(conversion.as_str()).into_iter().flatten().map(|sealed| &sealed.entry);
        let told: Vec<_> = told.filter(|earlier| earlier.position <= read).collect();
        let lines = self.looked_at(told.iter().copied(), entry)?;
        let (order, attribution) = order_of(&told)?;
        let state = State { order: order.as_ref(), attribution };
        let partner = lines.first().map(|line| &line.partner);
        let (program, rules) = self.program_of(partner.ok_or_else(|| amiss("its conversion has no lines"))?)?;
        let booking = Booking {
            program,
            conversion,
            order: "",
            rules,
            before: state,
            after: state,
            open,
            cause: &entry.cause(),
            received_at: entry.at,
            now: entry.at,
        };
        let verdict = |line: &Line| verdicts.iter().find(|decided| decided.id == line.id).unwrap_or(line).clone();
        let decided = lines.iter().map(verdict).collect();
        let mut booked = booking.book(&lines, decided, None, tallies)?;
        note_true_ups(&mut booked);
        Ok(booked)
    }

    /// Each stored line against what it came to.
    fn compare(&mut self, all: &Everything) {
        let stored: BTreeMap<_, _> = all.lines.iter().map(|line| (&line.id, line)).collect();
        for (id, line) in &stored {
            let differs = match self.versions.get(*id).and_then(|versions| versions.last()) {
                None => Some("nothing in the journal makes it".to_owned()),
                Some(again) if bytes(again) == bytes(line) => None,
                Some(again) => first_difference(&serde_json::json!(line), &serde_json::json!(again)),
            };
            let line = || Some((*id).clone());
            self.differing.extend(differs.map(|differs| Difference { line: line(), entry: None, differs }));
        }
        let missing: Vec<_> = self.versions.keys().filter(|id| !stored.contains_key(id)).cloned().collect();
        self.differing.extend(missing.into_iter().map(|id| Difference {
            line: Some(id),
            entry: None,
            differs: "the journal makes it, and it is not stored".to_owned(),
        }));
    }
}

/// Touches that decided whose it is decide so again.
fn attributed_again(circumstances: &Circumstances, sold_at: Timestamp) -> Result<()> {
    let Some(again) = circumstances.by_touches(sold_at) else { return Ok(()) };
    let told: Vec<_> = circumstances.partners.iter().map(|of| format!("{} of {}", of.part, of.partner)).collect();
    let again: Vec<_> = again.iter().map(|of| format!("{} of {}", of.part, of.partner)).collect();
    if told == again {
        return Ok(());
    }
    Err(amiss(format!("its partners are {}, and by its touches {}", told.join(", "), again.join(", "))))
}

fn payout_of(entry: &Entry) -> Result<&PayoutChange> {
    entry.payouts.first().ok_or_else(|| amiss("it names no payout"))
}

fn tallies_read(entry: &Entry) -> Tallies {
    Tallies::new(entry.tallies.iter().cloned().collect())
}

fn adjusted_again(entry: &Entry, lines: &[Line], open: &BTreeMap<PayoutId, OpenPayout>) -> Result<Vec<Line>> {
    let set = entry.adjusted.as_ref().ok_or_else(|| amiss("it does not say what was set"))?;
    adjusted(lines, &set.line, set.amount, &entry.by, open, entry.at).map(|(lines, _)| lines)
}

fn bytes(line: &Line) -> String {
    serde_json::json!(line).to_string()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// The first field in which two values differ, with both values.
fn first_difference(stored: &Value, replayed: &Value) -> Option<String> {
    fn within(path: &str, stored: Option<&Value>, replayed: Option<&Value>) -> Option<String> {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match (stored, replayed) {
            (Some(Value::Object(one)), Some(Value::Object(other))) => {
                let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
                names.into_iter().find_map(|name| within(&below(name), one.get(name), other.get(name)))
            }
            (Some(Value::Array(one)), Some(Value::Array(other))) => (0..one.len().max(other.len()))
                .find_map(|at| within(&below(&at.to_string()), one.get(at), other.get(at))),
            (one, other) if one == other => None,
            (one, other) => {
                let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
                Some(format!("{path} is {} and was replayed as {}", shown(one), shown(other)))
            }
        }
    }
    within("", Some(stored), Some(replayed))
}

/// Everything that one program's lines rest on, read by following the lines and their entries. Where a person decided about lines of
/// several programs at once, the others' are read, too.
struct Reading<'a> {
    context: &'a Context,
    most: usize,
    all: Everything,
    lines: BTreeSet<LineId>,
    streams: BTreeSet<String>,
    /// Streams yet to be read.
    ahead: Vec<String>,
}

impl<'a> Reading<'a> {
    async fn of_program(context: &'a Context, program: &ProgramId, most: usize) -> Result<Self> {
        let mut reading = Self {
            context,
            most,
            all: Everything::default(),
            lines: BTreeSet::new(),
            streams: BTreeSet::new(),
            ahead: Vec::new(),
        };
        let mut after: Option<String> = None;
        loop {
            let page = context.store.partners(OPERATION, program, after.as_deref(), 100).await?;
            for partner in page.items {
                reading.lines_of(&partner).await?;
                reading.all.partners.push(partner);
            }
            after = page.after;
            if after.is_none() {
                break;
            }
        }
        while !reading.ahead.is_empty() {
            reading.follow().await?;
        }
        reading.terms().await?;
        Ok(reading)
    }

    async fn lines_of(&mut self, partner: &Partner) -> Result<()> {
        let mut after = None;
        loop {
            let (lines, next) = self.context.store.partner_lines(OPERATION, partner, after.as_ref(), 200).await?;
            self.take_in(lines)?;
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn take_in(&mut self, lines: Vec<Line>) -> Result<()> {
        for line in lines {
            if self.lines.insert(line.id.clone()) {
                self.look_ahead(line.stream());
                self.look_ahead(&line.entry.stream);
                self.all.lines.push(line);
            }
        }
        self.within_bounds()
    }

    fn look_ahead(&mut self, stream: &str) {
        if self.streams.insert(stream.to_owned()) {
            self.ahead.push(stream.to_owned());
        }
    }

    fn within_bounds(&self) -> Result<()> {
        if self.all.lines.len().max(self.all.entries.len()) <= self.most {
            return Ok(());
        }
        let why =
            format!("has more than {} commissions or journal entries, the most that are replayed at once", self.most);
        Err(Refusal::invalid("/programId", why))
    }

    /// Reads the streams ahead, and finds what their entries name.
    async fn follow(&mut self) -> Result<()> {
        let store = &self.context.store;
        let chains: Vec<_> = futures::stream::iter(std::mem::take(&mut self.ahead))
            .map(|stream| async move {
                match store.chain(OPERATION, &stream).await {
                    Err(StoreError::Corrupt(why)) => Ok(Err(format!("{stream}: {why}"))),
                    other => other.map(Ok),
                }
            })
            .buffer_unordered(READS)
            .try_collect()
            .await?;
        let mut unknown = BTreeSet::new();
        for chain in chains {
            match chain {
                Ok(chain) => {
                    for change in chain.iter().flat_map(|sealed| &sealed.entry.lines) {
                        if let Some(after) = &change.after {
                            self.look_ahead(&after.stream);
                        }
                        if !self.lines.contains(&change.id) {
                            unknown.insert(change.id.clone());
                        }
                    }
                    self.all.entries.extend(chain);
                }
                Err(why) => self.all.damaged.push(why),
            }
            self.within_bounds()?;
        }
        let unknown: Vec<_> = unknown.into_iter().collect();
        let lines = self.context.store.lines(OPERATION, &unknown).await?;
        self.take_in(lines)
    }

    /// Programs, rule sets and partners.
    async fn terms(&mut self) -> Result<()> {
        let store = &self.context.store;
        let known: BTreeSet<_> = self.all.partners.iter().map(|partner| partner.id.clone()).collect();
        let others: BTreeSet<_> = self.lines.iter().map(LineId::partner).filter(|id| !known.contains(id)).collect();
        let others: Vec<_> = others.into_iter().collect();
        self.all.partners.extend(store.partners_by_id(OPERATION, &others).await?);
        let programs: BTreeSet<_> = self.all.partners.iter().map(|partner| partner.program.clone()).collect();
        for program in programs {
            self.all.rule_sets.extend(store.rule_sets(OPERATION, &program).await?);
            self.all.programs.extend(store.program(OPERATION, &program).await?);
        }
        Ok(())
    }
}
