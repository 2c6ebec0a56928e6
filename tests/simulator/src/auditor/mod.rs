//! The auditor: the rules of money once more, in code of its own, simple rather than fast. It imports nothing of the product.
//!
//! The journal's order of commitment is the order in which everything happened. For each entry the auditor takes what the world told,
//! applies the rules to its own model, and compares the outcome with what the entry says was done; later, with what is stored.

mod accrual;
mod anomalies;
mod calls;
mod decisions;
mod events;
mod hands;
mod model;
mod order;
mod paypal;
mod places;
mod quickbooks;
mod rates;
mod reversal;
mod settlement;
mod statements;
mod stored;
mod tallies;
mod tax;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE32_DNSSEC;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::told::{About, Command, Partner, Program, SKEW_SECONDS, Told};
use crate::ways::Way;
use anomalies::Pulse;
pub use calls::in_order;
use model::{Balance, Claimed, Conversion, Customer, Kind, Line, PageLine, Payout, State, Tally, TallyKey};
use quickbooks::RAIL;
use rates::Ratio;

/// What must never break. The numbers are those of the design's list; its other one, about bytes sent over the wire, is not for this
/// model to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    OneEffect,
    SameContent,
    OneState,
    PayoutIsItsLines,
    Balances,
    ExactCents,
    Converges,
    Runs,
    RecordsEnd,
    OneBill,
    OnePayment,
    History,
    Access,
}

impl Invariant {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneEffect => "1: each event has one effect",
            Self::SameContent => "2: the same id with other content moves nothing",
            Self::OneState => "3: a line is in one state and at most one payout, and moves as the table allows",
            Self::PayoutIsItsLines => "4: a payout's amount is the sum of its lines, which no other payout has",
            Self::Balances => "5: balance = fold of the journal = sum of the lines",
            Self::ExactCents => "6: every cent is the one the rules give",
            Self::Converges => "7: what was answered as done is done",
            Self::Runs => "8: a run pays a partner once, everything that was due",
            Self::RecordsEnd => "9: each event ends applied, or as an exception",
            Self::OneBill => "10: a payout has one Bill, and is paid when that is",
            Self::OnePayment => {
                "10: a payout is sent once, to where it was approved for, and is paid when its rail says so"
            }
            Self::History => "11: the journal is whole and leads to what is stored",
            Self::Access => "12: nothing is changed by whom it must not be",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

type Checked<T = ()> = Result<T, Violation>;

fn violation<T>(invariant: Invariant, what: impl Into<String>) -> Checked<T> {
    Err(Violation { invariant, what: what.into() })
}

macro_rules! ensure {
    ($holds:expr, $invariant:ident, $($what:tt)+) => {
        if !$holds {
            return $crate::auditor::violation($crate::auditor::Invariant::$invariant, format!($($what)+));
        }
    };
}
use ensure;

/// Lines on one page of a payout, at most.
const PAGE_LINES: usize = 45;
/// Over how many days payouts add up to a large one.
const LARGE_DAYS: i64 = 30;

const fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(days * 24)
}

const fn skew() -> SignedDuration {
    SignedDuration::from_secs(SKEW_SECONDS)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn int(value: &Value, field: &str) -> i128 {
    i128::from(value[field].as_i64().unwrap_or_default())
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn time(value: &Value, field: &str) -> Checked<Timestamp> {
    let parsed = text(value, field).parse();
    parsed.or_else(|_| violation(Invariant::History, format!("{field} is no time in {value}")))
}

fn hash(bytes: &[u8]) -> String {
    BASE32_DNSSEC.encode(&Sha256::digest(bytes))
}

/// Lines and payouts carry their partner in their ids.
fn partner_in(id: &str) -> String {
    format!("par_{}", id.get(4..30).unwrap_or_default())
}

/// The second in a payout's id: when its run was planned.
fn planned_in(payout: &str) -> Option<Timestamp> {
    second_in(payout.get(30..38)?)
}

/// The second in a line's id, after the shard: of what is written off, when the run was planned that did.
fn planned_in_line(line: &str) -> Option<Timestamp> {
    second_in(line.get(32..40)?)
}

fn second_in(digits: &str) -> Option<Timestamp> {
    let mut digits = digits.chars().map(|c| c.to_digit(32));
    let second = digits.try_fold(0_i64, |sum, digit| Some(sum * 32 + i64::from(digit?)))?;
    Timestamp::from_second(second).ok()
}

fn program_of<'a>(told: &'a Told, partner: &str) -> Checked<(&'a Partner, &'a Program)> {
    let partner_told = told.partners.iter().find(|told| told.id == partner);
    match partner_told.and_then(|partner| Some((partner, told.programs.get(partner.program)?))) {
        Some(found) => Ok(found),
        None => violation(Invariant::OneEffect, format!("nobody told of partner {partner}")),
    }
}

fn minimum_sales(line: &Line, program: &Program) -> usize {
    line.minimum_sales.unwrap_or(program.minimum_sales) as usize
}

/// A journal entry, opened.
struct Entry<'a> {
    value: &'a Value,
    stream: &'a str,
    position: u64,
    hash: &'a str,
    at: Timestamp,
    /// The world's time when it was read.
    now: Timestamp,
    by: &'a str,
    what: &'a str,
}

impl Entry<'_> {
    fn reference(&self) -> String {
        format!("{}/{}/{}", self.stream, self.position, self.hash)
    }

    fn name(&self) -> String {
        format!("{} {}/{} by {} at {}", self.what, self.stream, self.position, self.by, self.at)
    }

    /// Without those that are the tax of a payout: they change as the payout does.
    fn line_ids(&self) -> Vec<&str> {
        list(self.value, "lines").iter().map(|line| text(line, "id")).filter(|id| !self.is_tax(id)).collect()
    }

    fn is_tax(&self, line: &str) -> bool {
        list(self.value, "payouts").iter().any(|payout| payout["tax"]["line"] == line)
    }
}

/// What an entry must have done: lines (new ones without an id) and payouts as they are afterwards.
#[derive(Default)]
struct Effect {
    lines: Vec<(Option<String>, Line)>,
    payouts: BTreeMap<String, Payout>,
}

#[derive(Debug, Default)]
pub struct Auditor {
    lines: BTreeMap<String, Line>,
    payouts: BTreeMap<String, Payout>,
    /// By stream.
    conversions: BTreeMap<String, Conversion>,
    /// Which stream an order of a source has.
    orders: BTreeMap<(String, String), String>,
    /// Which stream an event of a source, of a kind, belongs to.
    claims: BTreeMap<(String, String, String), String>,
    /// By program, and id or address.
    customers: BTreeMap<(usize, String), Customer>,
    /// What partners' sales were like so far.
    pulses: BTreeMap<String, Pulse>,
    tallies: BTreeMap<TallyKey, Tally>,
    /// What each stream adds to tallies.
    contributed: BTreeMap<String, Vec<(TallyKey, Tally)>>,
    balances: BTreeMap<String, Balance>,
    /// What was owed for a line, and what was settled by a payout, after each entry about it.
    owed: BTreeMap<String, Vec<(Timestamp, i128)>>,
    /// The tick at which something of a partner last changed.
    moved: BTreeMap<String, usize>,
    /// Decisions of runs that were looked at.
    known_decisions: BTreeSet<(String, String)>,
    /// Where partners stood with tax, from which tick of the world on.
    standing: BTreeMap<String, Vec<(usize, tax::Position)>>,
    /// Entries so far, of streams other than payouts'.
    positions: BTreeMap<String, u64>,
    entries: usize,
    /// Who did what to which line or payout.
    done: BTreeSet<(String, String, String)>,
    /// What was done for which reason to which line or conversion.
    made: BTreeSet<(String, String)>,
    /// Calls whose answers were looked at.
    heard: BTreeSet<usize>,
    /// Where payouts go as they are stored: method and destination.
    places: BTreeMap<String, (String, String)>,
    /// What must be published: stream and event id, entry by entry.
    events: Vec<(String, Vec<String>)>,
}

/// A payout before anything is claimed for it.
fn begun(
    entry: &Entry,
    partner: &Partner,
    program: &Program,
    requested: bool,
    (place, named): (Option<Way>, Vec<Option<&'static str>>),
) -> Payout {
    Payout {
        partner: partner.id.clone(),
        currency: program.currency,
        paid_in: partner.paid_in.filter(|_| place.is_some()).unwrap_or(program.currency),
        rates: Vec::new(),
        state: "drafting",
        paid: 0,
        version: 1,
        minimum: partner.minimum_payout.unwrap_or(program.minimum_payout).into(),
        method: place.as_ref().map_or("manual", |way| way.kind),
        must_net: place.is_none(),
        place,
        redirected: false,
        named,
        overridden: if requested || program.dust_sweep_days.is_some() { None } else { Some(false) },
        swept: false,
        approvals: Vec::new(),
        pages: Vec::new(),
        settling: None,
        claimed: Vec::new(),
        drafted: None,
        left: Vec::new(),
        payments: Vec::new(),
        terms: Vec::new(),
        parts: Vec::new(),
        attested: Vec::new(),
        attempts: 0,
        sent_at: None,
        paid_before: 0,
        at_rail: false,
        batch: None,
        export: None,
        bill: None,
        drafted_at: entry.at,
        changed_at: entry.now,
        changed: 0,
        highest: 0,
        entries: 0,
        entry: String::new(),
    }
}

impl Auditor {
    /// Reads one entry as it is stored; `now` is the world's time, at or after the entry was committed.
    pub fn read(&mut self, told: &Told, now: Timestamp, stored: &Value) -> Checked {
        let kept = text(stored, "text");
        let value: Value = serde_json::from_str(kept)
            .or_else(|error| violation(Invariant::History, format!("an entry cannot be read: {error}: {stored}")))?;
        let position = value["position"].as_u64().unwrap_or_default();
        let entry = Entry {
            value: &value,
            stream: text(&value, "stream"),
            position,
            hash: text(stored, "hash"),
            at: time(&value, "at")?,
            now,
            by: text(&value, "by"),
            what: text(&value, "what"),
        };
        let name = entry.name();
        ensure!(hash(kept.as_bytes()) == entry.hash, History, "{name}: its hash is not that of its text");
        let place = (format!("JRN#{}", entry.stream), format!("{position:06}"));
        let found = (text(stored, "pk"), text(stored, "sk"));
        ensure!(found == (&place.0, &place.1), History, "{name}: stands at {found:?}, not {place:?}");
        ensure!(entry.at <= now + skew(), History, "{name}: lies in the future, now is {now}");
        let before = match self.payouts.get(entry.stream) {
            Some(payout) => payout.entries,
            None => self.positions.get(entry.stream).copied().unwrap_or_default(),
        };
        ensure!(position == before + 1, History, "{name}: follows position {before}");

        let effect = match entry.what {
            "accrue" | "await_sale" | "refund" | "edit" | "withdraw" => self.event(told, &entry)?,
            "adjust" => self.adjust(told, &entry)?,
            "bonus" => Self::bonus(told, &entry)?,
            "attribute" => self.give(told, &entry)?,
            "approve" | "hold" | "release" | "reject" | "reinstate" => self.review(told, &entry)?,
            "mature" => self.mature(&entry)?,
            "draft" | "claim" => self.claim(told, &entry)?,
            "close_draft" => self.close(told, &entry)?,
            "approve_payout" => self.approve(told, &entry)?,
            "send_back" => self.send_back(told, &entry)?,
            "cancel_payout" => self.cancel(told, &entry)?,
            "exclude" => self.exclude(told, &entry)?,
            "redirect" => self.redirect(told, &entry)?,
            "begin_submit" => self.begin_submit(told, &entry)?,
            "mark_paid" if entry.by == RAIL && self.is_sent_by_paypal(entry.stream) => {
                self.arrived_there(told, &entry)?
            }
            "mark_paid" if entry.by == RAIL => self.reported(told, &entry)?,
            "unpay" => self.reported(told, &entry)?,
            "mark_paid" => self.mark_paid(told, &entry)?,
            "mark_failed" if entry.by == RAIL && self.is_sent_by_paypal(entry.stream) => self.not_sent(told, &entry)?,
            "mark_failed" if entry.by == RAIL => self.refused(told, &entry)?,
            "mark_failed" => self.mark_failed(told, &entry)?,
            "mark_returned" if entry.by == RAIL => self.back_there(told, &entry)?,
            "mark_returned" => self.mark_returned(told, &entry)?,
            "retry" => self.retry(told, &entry)?,
            "submit" if entry.by == RAIL && self.is_sent_by_paypal(entry.stream) => {
                self.accepted_there(told, &entry)?
            }
            "submit" if entry.by == RAIL => self.taken(told, &entry)?,
            "submit" => self.submit(told, &entry)?,
            "void_payout" if self.is_billed(entry.stream) => self.ended(told, &entry)?,
            "void_payout" => self.void(told, &entry)?,
            "settle" => self.settle(&entry)?,
            "write_off" => self.write_off(told, &entry)?,
            _ => return violation(Invariant::OneState, format!("{name}: the rules know no such change")),
        };
        self.apply(told, &entry, effect)?;
        if !self.payouts.contains_key(entry.stream) {
            self.positions.insert(entry.stream.to_owned(), position);
        }
        self.entries += 1;
        Ok(())
    }

    // --- Review and maturation ------------------------------------------------------------------------------------

    fn line(&self, entry: &Entry, id: &str) -> Checked<&Line> {
        match self.lines.get(id) {
            Some(line) => Ok(line),
            None => violation(Invariant::OneState, format!("{}: there is no line {id}", entry.name())),
        }
    }

    fn mature(&self, entry: &Entry) -> Checked<Effect> {
        let mut effect = Effect::default();
        for id in entry.line_ids() {
            let (name, mut line) = (entry.name(), self.line(entry, id)?.clone());
            ensure!(line.state == State::Approved, OneState, "{name}: {id} is {}", line.state.as_str());
            ensure!(line.due_at <= entry.at, OneState, "{name}: {id} is due at {}", line.due_at);
            line.state = State::Payable;
            effect.lines.push((Some(id.to_owned()), line));
        }
        Ok(effect)
    }

    /// What becomes of the open payouts that changed lines were in.
    fn retally(&self, entry: &Entry, mut effect: Effect) -> Effect {
        let mut taxes = Vec::new();
        for (id, after) in &effect.lines {
            let Some(id) = id else { continue };
            let before = &self.lines[id];
            let Some((payout, number)) = before.payout.as_ref().filter(|_| before.state == State::InPayout) else {
                continue;
            };
            let payout = effect.payouts.entry(payout.clone()).or_insert_with(|| self.payouts[payout].clone());
            let page = &mut payout.pages[*number];
            if after.state == State::InPayout {
                page.iter_mut().filter(|line| line.id == *id).for_each(|line| line.net = after.net());
            } else {
                page.retain(|line| line.id != *id);
            }
        }
        for (id, payout) in &mut effect.payouts {
            payout.version += 1;
            payout.approvals.clear();
            if payout.state != "drafting" {
                payout.state = "pending";
                if !reaches_minimum(payout, entry, id) {
                    payout.state = "cancelled";
                    payout.settling = Some(0);
                }
            }
            Self::tax(entry, id, payout, &mut taxes, &self.lines);
        }
        effect.lines.extend(taxes);
        effect
    }

    /// What is still to be sent of a payout, and the currency that is in.
    pub fn open(&self, payout: &str) -> Option<(i128, &'static str)> {
        self.payouts.get(payout).map(|payout| (payout.due() - payout.paid, payout.paid_in))
    }

    // --- Payouts --------------------------------------------------------------------------------------------------

    fn claim(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, id) = (entry.name(), entry.stream);
        let partner_id = partner_in(id);
        let (partner, program) = program_of(told, &partner_id)?;
        let requested = entry.by != "draft-payout";
        if requested {
            caused(told, entry, About::Partners, "payouts", &[&partner_id])?;
        }
        let mut payout = match (entry.what, self.payouts.get(id)) {
            ("claim", Some(payout)) if payout.state == "drafting" => payout.clone(),
            ("draft", None) => begun(entry, partner, program, requested, self.place(told, entry, partner)?),
            (_, found) => {
                let state = found.map(|payout| payout.state);
                return violation(Invariant::OneState, format!("{name}: {id} is {state:?}"));
            }
        };
        let other = |(other, payout): &(&String, &Payout)| {
            payout.partner == partner_id && payout.state == "drafting" && *other != id
        };
        if let Some((other, _)) = self.payouts.iter().find(other) {
            return violation(Invariant::OneState, format!("{name}: {other} is being drafted for the same partner"));
        }
        let mut effect = Effect::default();
        let mut page = Vec::new();
        for line_id in entry.line_ids() {
            let mut line = self.line(entry, line_id)?.clone();
            let state = line.state.as_str();
            ensure!(line.state == State::Payable, OneState, "{name}: {line_id} is {state} in {:?}", line.payout);
            ensure!(line.partner == partner_id, Access, "{name}: {line_id} is of {}", line.partner);
            let planned = planned_in(id).unwrap_or(entry.at);
            let (minimum, sold) = (minimum_sales(&line, program), self.sold_at_most(&partner_id, planned, entry.at));
            let gated = line.amount > 0 && sold < minimum;
            ensure!(!gated, PayoutIsItsLines, "{name}: claims {line_id} after {sold} of {minimum} sales");
            line.state = State::InPayout;
            line.payout = Some((id.to_owned(), payout.pages.len()));
            let (net, hands) = (line.net(), line.hands.clone());
            page.push(PageLine { id: line_id.to_owned(), net, withheld: false, hands });
            // What writes debts off is claimed whatever the cut-off, and whenever it came, as they are.
            let wipes = line.kind == Kind::WriteOff;
            let whenever = |at: Timestamp| if wipes { Timestamp::MIN } else { at };
            payout.claimed.push(Claimed {
                line: line_id.to_owned(),
                amount: line.amount,
                due_at: whenever(line.due_at),
                ready_at: whenever(line.ready_at),
            });
            effect.lines.push((Some(line_id.to_owned()), line));
        }
        ensure!(page.len() <= PAGE_LINES, PayoutIsItsLines, "{name}: claims {} lines at once", page.len());
        payout.pages.push(page);
        if entry.what == "draft" && payout.lines().count() < PAGE_LINES {
            // All there is: it must be worth a payout.
            let (amount, minimum) = (payout.amount(), payout.minimum);
            let nets = amount == 0 && payout.claimed.iter().any(|claimed| claimed.amount < 0);
            payout.swept = !requested && amount < minimum && !nets && program.dust_sweep_days.is_some();
            let enough = amount > 0 && !payout.must_net && (requested || amount >= minimum || payout.swept);
            ensure!(nets || enough, PayoutIsItsLines, "{name}: drafts {amount} where the minimum is {minimum}");
        }
        if entry.what == "draft" {
            payout.rates = drafted_at(told, entry, &payout);
            let (from, to) = (payout.currency, payout.paid_in);
            ensure!(!payout.rates.is_empty(), ExactCents, "{name}: no rate from {from} to {to} is known");
            let whole = payout.lines().count() < PAGE_LINES;
            payout.terms = self.drafted_on(told, entry, &payout, whole)?;
        }
        // What fits one page is closed at once; of a full one, nobody can tell whether more was to come.
        let fits = payout.lines().count() < PAGE_LINES || closes(entry);
        if entry.what == "draft" && payout.amount() > 0 && fits {
            // What is less than the least of the other currency cannot be sent.
            (payout.state, payout.settling) = if payout.due() > 0 { ("pending", None) } else { ("cancelled", Some(0)) };
            let claimed = entry.line_ids();
            payout.left = self.left_out(&payout, program, entry, |id| claimed.contains(&id));
            Self::tax(entry, id, &mut payout, &mut effect.lines, &self.lines);
            payout.is_drafted();
        }
        effect.payouts.insert(id.to_owned(), payout);
        Ok(effect)
    }

    /// Sales of a partner that nobody stopped and whose hold is over. Whoever plans a payout reads them some time between planning and
    /// claiming, by a clock that may be off.
    fn sold_at_most(&self, partner: &str, planned: Timestamp, at: Timestamp) -> usize {
        let counts = |line: &&Line| line.due_at <= at + skew() && line.fell_at >= planned - skew();
        self.sold(partner, counts)
    }

    fn sold_at_least(&self, partner: &str, planned: Timestamp) -> usize {
        let counts = |line: &&Line| {
            line.stands() && line.due_at + skew() + skew() <= planned && line.seen_at + skew() + skew() <= planned
        };
        self.sold(partner, counts)
    }

    fn sold(&self, partner: &str, counts: impl Fn(&&Line) -> bool) -> usize {
        let is_sale = |line: &&Line| {
            let conversion = self.conversions.get(&line.conversion);
            line.kind == Kind::Commission
                && conversion.and_then(|conversion| conversion.sale.as_ref()).is_some_and(|sale| sale.action == "sale")
        };
        let lines = self.lines.values().filter(|line| line.partner == partner).filter(is_sale).filter(counts);
        lines.map(|line| &line.conversion).collect::<BTreeSet<_>>().len()
    }

    /// The payout an entry is about, in one of these states and with no lines on their way.
    fn payout(&self, entry: &Entry, states: &[&str]) -> Checked<Payout> {
        let payout = self.payouts.get(entry.stream);
        if let Some(payout) = payout.filter(|payout| states.contains(&payout.state) && payout.settling.is_none()) {
            return Ok(payout.clone());
        }
        let found = payout.map(|payout| (payout.state, payout.settling));
        violation(Invariant::OneState, format!("{}: it is {found:?}, not one of {states:?}", entry.name()))
    }

    fn alone(entry: &Entry, payout: Payout) -> Effect {
        Effect { lines: Vec::new(), payouts: BTreeMap::from([(entry.stream.to_owned(), payout)]) }
    }

    fn close(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let mut payout = self.payout(entry, &["drafting"])?;
        let debts = payout.lines().any(|line| line.net < 0);
        if debts && payout.amount() == 0 {
            payout.state = "paid";
            payout.settling = Some(0);
        } else if !payout.must_net && reaches_minimum(&mut payout, entry, entry.stream) {
            payout.state = "pending";
        } else {
            payout.state = "cancelled";
            payout.settling = Some(0);
        }
        let (_, program) = program_of(told, &payout.partner)?;
        payout.left = self.left_out(&payout, program, entry, |_| false);
        let mut lines = Vec::new();
        Self::tax(entry, entry.stream, &mut payout, &mut lines, &self.lines);
        payout.is_drafted();
        Ok(Effect { lines, ..Self::alone(entry, payout) })
    }

    /// What was payable and is not in the payout: amounts, since when, and due when.
    fn left_out(
        &self,
        payout: &Payout,
        program: &Program,
        entry: &Entry,
        claimed: impl Fn(&str) -> bool,
    ) -> Vec<(String, i128, Timestamp, Timestamp)> {
        let sold = self.sold_at_least(&payout.partner, planned_in(entry.stream).unwrap_or(entry.at));
        let claimable = |line: &Line| {
            let of_partner = line.partner == payout.partner && line.state == State::Payable;
            of_partner && (line.amount < 0 || sold >= minimum_sales(line, program))
        };
        let left = self.lines.iter().filter(|(id, line)| claimable(line) && !claimed(id));
        let due_at = |line: &Line| if line.kind == Kind::WriteOff { Timestamp::MIN } else { line.due_at };
        left.map(|(id, line)| (id.clone(), line.amount, line.payable_since, due_at(line))).collect()
    }

    fn approve(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, mut payout) = (entry.name(), self.payout(entry, &["pending"])?);
        let command = caused(told, entry, About::Payouts, "approve", &[entry.stream])?;
        let named = (entry.stream.to_owned(), payout.version);
        let fresh = told.commands.iter().any(|command| {
            let of_payout = command.ids.iter().any(|id| id == entry.stream) && command.by == entry.by;
            // What was asked before the oldest function under way began has been answered.
            let approves = (command.about, command.verb) == (About::Payouts, "approve") && command.at >= told.since.1;
            approves && of_payout && (command.versions.is_empty() || command.versions.contains(&named))
        });
        ensure!(fresh, Access, "{name}: nobody has seen version {} of it", payout.version);
        ensure!(!payout.hands().contains(entry.by), Access, "{name}: has a hand in one of its lines");
        let again = payout.approvals.iter().any(|by| by == entry.by);
        ensure!(!again, Access, "{name}: has approved it before");
        Self::approves_place(told, entry, &payout)?;
        payout.approvals.push(entry.by.to_owned());
        let (_, program) = program_of(told, &payout.partner)?;
        let (surely, perhaps) = self.recently(entry, &payout, command.at);
        let to = list(entry.value, "payouts").first().map_or("", |change| text(change, "to"));
        let (one, limit) = (payout.approvals.len() < 2, i128::from(program.large_payout_limit));
        ensure!(!(one && surely >= limit && to == "approved"), Access, "{name}: {surely} of {limit}, by one person");
        let asked_twice = to == "pending" && (!one || perhaps < limit);
        ensure!(!asked_twice, OneState, "{name}: {perhaps} of {limit} needs nobody else");
        payout.state = if to == "pending" { "pending" } else { "approved" };
        Ok(Self::alone(entry, payout))
    }

    /// What was paid out to the partner within the days that add up, with this payout: at least, and at most. Whoever approves reads
    /// the other payouts some time between the command and the entry, so what changed in between may count or not.
    fn recently(&self, entry: &Entry, payout: &Payout, asked_at: Timestamp) -> (i128, i128) {
        let (mut least, mut most) = (payout.gross(), payout.gross());
        for (id, other) in self.payouts.iter().filter(|(id, other)| {
            *id != entry.stream && other.partner == payout.partner && other.currency == payout.currency
        }) {
            let counts = !matches!(other.state, "cancelled" | "void" | "drafting");
            let planned = planned_in(id).unwrap_or(Timestamp::MIN);
            let settled = other.changed_at < asked_at;
            if counts && settled && planned >= entry.at - days(LARGE_DAYS) + skew() + skew() {
                least += other.gross();
            }
            let possible = (counts || !settled) && other.drafted_at >= asked_at - skew() - days(LARGE_DAYS);
            if possible {
                most += other.highest;
            }
        }
        (least, most)
    }

    fn send_back(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        if !self.payouts.contains_key(entry.stream) {
            return self.taxed_anew(told, entry);
        }
        let mut payout = self.payout(entry, &["approved"])?;
        caused(told, entry, About::Payouts, "send-back", &[entry.stream])?;
        payout.state = "pending";
        payout.approvals.clear();
        Ok(Self::alone(entry, payout))
    }

    fn cancel(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let mut payout = self.payout(entry, &["pending", "approved"])?;
        caused(told, entry, About::Payouts, "cancel", &[entry.stream])?;
        payout.state = "cancelled";
        payout.settling = Some(0);
        self.follow(entry, payout)
    }

    // --- Comparing an entry with what it must have done -------------------------------------------------------------

    fn apply(&mut self, told: &Told, entry: &Entry, effect: Effect) -> Checked {
        let name = entry.name();
        let changes = list(entry.value, "lines");
        let (expected, found) = (effect.lines.len(), changes.len());
        if expected != found {
            let expected: Vec<_> = effect.lines.iter().map(|(id, line)| (id, line.facts())).collect();
            return violation(Invariant::ExactCents, format!("{name}: expected lines {expected:?}, found {changes:?}"));
        }
        let mut moved: BTreeMap<String, Balance> = BTreeMap::new();
        let mut fresh: Vec<&Value> = changes.iter().filter(|change| change["from"].is_null()).collect();
        let mut touched = BTreeSet::from([entry.stream.to_owned()]);
        for (id, mut line) in effect.lines {
            touched.insert(line.conversion.clone());
            let change = match &id {
                Some(id) => changes.iter().find(|change| text(change, "id") == id),
                None => next_for(&line, &mut fresh),
            };
            let Some(change) = change else {
                let what = format!("{name}: expected {id:?} {:?}, found {changes:?}", line.facts());
                return violation(Invariant::ExactCents, what);
            };
            let id = text(change, "id").to_owned();
            let before = self.lines.get(&id);
            compare_line(&name, &id, change, before, &line)?;
            ensure!(partner_in(&id) == line.partner, ExactCents, "{name}: {id} is to be of {}", line.partner);
            let delta = moved.entry(line.partner.clone()).or_default();
            if let Some(before) = before {
                delta.book(before, -1);
            } else if let Some(conversion) = self.conversions.get_mut(&line.conversion) {
                conversion.lines.push(id.clone());
            }
            delta.book(&line, 1);
            let payable_before = before.is_some_and(|before| before.state == State::Payable);
            if line.state == State::Payable && !payable_before {
                line.payable_since = entry.now;
                line.ready_at = if entry.what == "mature" { line.due_at } else { entry.at };
            }
            let before = self.lines.get(&id);
            if line.reviewed && !before.is_some_and(|before| before.reviewed) {
                line.approved_at = entry.at;
            }
            line.changed = told.tick;
            self.moved.insert(line.partner.clone(), told.tick);
            self.note_owed(entry, &id, &line);
            line.fell_at = if line.stands() { Timestamp::MAX } else { line.fell_at.min(entry.now) };
            line.version += 1;
            line.entry = entry.reference();
            self.done.insert((entry.what.to_owned(), entry.by.to_owned(), id.clone()));
            self.lines.insert(id, line);
        }
        for stream in touched {
            self.retell(&stream);
        }
        compare_postings(entry, &moved)?;
        for (partner, delta) in &moved {
            self.balances.entry(partner.clone()).or_default().merge(delta);
        }
        let partners: BTreeSet<String> = effect.payouts.values().map(|payout| payout.partner.clone()).collect();
        self.apply_payouts(told.tick, entry, effect.payouts)?;
        for partner in partners {
            self.note_position(told, &partner)?;
        }
        self.events.push((entry.stream.to_owned(), stored::events_of(entry)));
        Ok(())
    }

    fn apply_payouts(&mut self, tick: usize, entry: &Entry, payouts: BTreeMap<String, Payout>) -> Checked {
        let (name, changes) = (entry.name(), list(entry.value, "payouts"));
        let mut changes: Vec<_> = changes.iter().collect();
        changes.sort_by_key(|change| text(change, "id"));
        let ids: Vec<_> = changes.iter().map(|change| text(change, "id")).collect();
        let expected: Vec<_> = payouts.keys().map(String::as_str).collect();
        ensure!(ids == expected, PayoutIsItsLines, "{name}: expected payouts {expected:?}, found {ids:?}");
        for ((id, mut payout), change) in payouts.into_iter().zip(changes) {
            let before = self.payouts.get(&id);
            let paid_in = Some(payout.paid_in).filter(|currency| *currency != payout.currency);
            let version = i128::from(payout.version);
            let facts = (payout.state, payout.amount(), payout.paid, payout.currency, paid_in, version);
            let found = (
                text(change, "to"),
                int(change, "amount"),
                int(change, "paid"),
                text(change, "currency"),
                change["paidIn"].as_str(),
                int(change, "version"),
            );
            ensure!(found == facts, PayoutIsItsLines, "{name}: expected {id} to be {facts:?}, found {found:?}");
            let from = (change["from"].as_str(), change["after"].as_str());
            let was = (before.map(|before| before.state), before.map(|before| before.entry.as_str()));
            ensure!(from == was, History, "{name}: expected {id} to have been {was:?}, found {from:?}");
            self.moved.insert(payout.partner.clone(), tick);
            self.note_settled(entry, &id, &payout);
            payout.changed = tick;
            payout.highest = payout.highest.max(payout.gross());
            payout.changed_at = entry.now;
            payout.entries += 1;
            payout.entry = entry.reference();
            self.done.insert((entry.what.to_owned(), entry.by.to_owned(), id.clone()));
            self.payouts.insert(id, payout);
        }
        Ok(())
    }
}

/// Which of the new lines this is: its partner's next, of the same facts if there is one.
fn next_for<'a>(line: &Line, fresh: &mut Vec<&'a Value>) -> Option<&'a Value> {
    let of_partner = |change: &&Value| partner_in(text(change, "id")) == line.partner;
    let same = |change: &&Value| {
        let to = &change["to"];
        of_partner(change) && (text(to, "state"), int(to, "amount"), int(to, "net")) == line.facts()
    };
    let at = fresh.iter().position(same).or_else(|| fresh.iter().position(of_partner))?;
    Some(fresh.remove(at))
}

/// A line that leaves its payout, if it is in one.
fn leave_for(line: &mut Line, state: State) {
    line.state = state;
    line.payout = None;
}

/// Whether the payout waits for approval by this entry.
fn closes(entry: &Entry) -> bool {
    list(entry.value, "payouts").iter().any(|change| text(change, "to") == "pending")
}

/// What a minor unit of a payout may be worth in the currency it is sent in, by the rates of the days on which it may be drafted: whoever
/// drafts it reads them some time before, by a clock that may be off.
fn drafted_at(told: &Told, entry: &Entry, payout: &Payout) -> Vec<Ratio> {
    let (since, since_at) = told.since;
    let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    let (first, last) = (date(since_at.min(entry.at) - skew()), date(entry.now + skew()));
    let days = std::iter::successors(Some(first), |day| day.tomorrow().ok()).take_while(|day| *day <= last);
    let ticks = told.rates.iter().map(|rate| rate.since).filter(|tick| *tick > since);
    let ticks: BTreeSet<usize> = ticks.chain([since, usize::MAX]).collect();
    let mut rates: Vec<Ratio> = Vec::new();
    for (day, tick) in days.flat_map(|day| ticks.iter().map(move |tick| (day, *tick))) {
        let known = told.rates.iter().filter(move |rate| rate.since <= tick);
        let rate = rates::exchange(known, payout.currency, payout.paid_in, day);
        rates.extend(rate.filter(|rate| !rates.contains(rate)));
    }
    rates
}

/// Whether a payout may stand. Where it takes an override that nobody told the auditor of, what was written tells, and is held
/// against what is stored.
fn reaches_minimum(payout: &mut Payout, entry: &Entry, id: &str) -> bool {
    let amount = payout.gross();
    if amount <= 0 || (payout.paid_in != payout.currency && payout.due() <= 0) {
        return false;
    }
    if amount >= payout.minimum {
        return true;
    }
    let changes = list(entry.value, "payouts");
    let stands = || changes.iter().any(|change| text(change, "id") == id && text(change, "to") == "pending");
    *payout.overridden.get_or_insert_with(stands)
}

fn compare_line(name: &str, id: &str, change: &Value, before: Option<&Line>, after: &Line) -> Checked {
    let facts =
        |side: &'static str| (text(&change[side], "state"), int(&change[side], "amount"), int(&change[side], "net"));
    let known = !change["from"].is_null();
    ensure!(
        known == before.is_some(),
        OneEffect,
        "{name}: {id} is new: {}, known before: {}",
        !known,
        before.is_some()
    );
    if let Some(before) = before {
        let (found, expected) = (facts("from"), before.facts());
        ensure!(found == expected, History, "{name}: expected {id} to have been {expected:?}, found {found:?}");
        let link = text(change, "after");
        ensure!(link == before.entry, History, "{name}: expected {id} to follow {}, found {link}", before.entry);
    } else {
        ensure!(change["after"].is_null(), History, "{name}: {id} is new and follows {}", change["after"]);
    }
    let (found, expected) = (facts("to"), after.facts());
    let what =
        format!("{name}: expected {id} ({}, slice {:?}) to be {expected:?}, found {found:?}", after.rule, after.slice);
    ensure!((found.1, found.2) == (expected.1, expected.2), ExactCents, "{what}");
    ensure!(found.0 == expected.0, OneState, "{what}");
    Ok(())
}

/// Whatever movements they are written as, postings must sum to what moved.
fn compare_postings(entry: &Entry, moved: &BTreeMap<String, Balance>) -> Checked {
    let mut posted: BTreeMap<String, Balance> = BTreeMap::new();
    for posting in list(entry.value, "postings") {
        let (from, to, amount) = (text(posting, "from"), text(posting, "to"), int(posting, "amount"));
        ensure!(from != to && amount != 0, Balances, "{}: a posting moves nothing: {posting}", entry.name());
        let partner = posted.entry(text(posting, "partner").to_owned()).or_default();
        partner.add(from, -amount);
        partner.add(to, amount);
    }
    let amounts = |balances: &BTreeMap<String, Balance>| -> BTreeMap<String, BTreeMap<String, i128>> {
        let trimmed = balances.iter().map(|(partner, balance)| (partner.clone(), balance.clone().trimmed().amounts));
        trimmed.filter(|(_, amounts)| !amounts.is_empty()).collect()
    };
    let (expected, found) = (amounts(moved), amounts(&posted));
    ensure!(expected == found, Balances, "{}: expected postings of {expected:?}, found {found:?}", entry.name());
    Ok(())
}

/// The first command that may have caused an entry.
fn caused<'a>(told: &'a Told, entry: &Entry, about: About, verb: &str, ids: &[&str]) -> Checked<&'a Command> {
    let same = |command: &&Command| {
        (command.about, command.verb, command.by.as_str()) == (about, verb, entry.by)
            && ids.iter().all(|id| command.ids.iter().any(|told| told == id))
            && command.at - skew() <= entry.at
            && (entry.value["why"].is_null()
                || command.reason.is_none()
                || entry.value["why"].as_str() == command.reason.as_deref())
    };
    let distinct = ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
    match told.commands.iter().find(same).filter(|_| distinct && !ids.is_empty()) {
        Some(command) => Ok(command),
        None => violation(Invariant::Access, format!("{}: nobody commanded {verb} of {ids:?}", entry.name())),
    }
}
