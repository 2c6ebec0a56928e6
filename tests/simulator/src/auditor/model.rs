//! What the auditor believes there is: lines, payouts, conversions and balances, in its own words.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;

use super::Entry;
use super::order::Order;
use super::rates::{Ratio, Standing};
use super::tax::Terms;
use crate::told::{Edit, Refund, Rule, Sale};
use crate::ways::Way;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Pending,
    Approved,
    Payable,
    InPayout,
    Paid,
    Held,
    Rejected,
    Reversed,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Payable => "payable",
            Self::InPayout => "in_payout",
            Self::Paid => "paid",
            Self::Held => "held",
            Self::Rejected => "rejected",
            Self::Reversed => "reversed",
        }
    }

    /// The two gates.
    pub fn at_gates(reviewed: bool, due_at: Timestamp, now: Timestamp) -> Self {
        match (reviewed, now >= due_at) {
            (false, _) => Self::Pending,
            (true, false) => Self::Approved,
            (true, true) => Self::Payable,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Commission,
    Clawback,
    TrueUp,
    Bonus,
    Adjustment,
    Reinstatement,
    /// Tax that is kept back from a payout.
    Withholding,
    /// What is given up of what a partner owes.
    WriteOff,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commission => "commission",
            Self::Clawback => "clawback",
            Self::TrueUp => "true_up",
            Self::Bonus => "bonus",
            Self::Adjustment => "adjustment",
            Self::Reinstatement => "reinstatement",
            Self::Withholding => "withholding",
            Self::WriteOff => "write_off",
        }
    }
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Line {
    pub kind: Kind,
    pub partner: String,
    /// Empty for a bonus, as the rule is.
    pub conversion: String,
    pub rule: String,
    pub rule_set: Option<u32>,
    /// Which of its conversion's earnings it belongs to; true-ups and bonuses to none.
    pub earning: Option<usize>,
    /// The edit it came of, and the entry by which a person gave the conversion away.
    pub edit: Option<String>,
    pub attribution: u64,
    /// Overrides the program's.
    pub minimum_sales: Option<u32>,
    /// Counts from 1; only commissions are slices.
    pub slice: Option<usize>,
    /// The line an adjustment belongs to.
    pub of: Option<String>,
    /// A true-up by what was just sold, and not by what became of an earlier sale.
    pub crossed: bool,
    /// What a cap kept back of a true-up, by tier.
    pub kept: BTreeMap<i64, i128>,
    pub amount: i128,
    pub taken: i128,
    /// Refunds that wait for it to be reinstated.
    pub recorded: i128,
    pub state: State,
    pub reviewed: bool,
    /// Somebody looked at it who released or reinstated it.
    pub released: bool,
    /// By whom it is reviewed since then.
    pub approved_at: Timestamp,
    /// Whether it was held when it was reversed.
    pub was_held: bool,
    /// Payout and page, while it is in one.
    pub payout: Option<(String, usize)>,
    pub hands: BTreeSet<String>,
    pub occurred_at: Timestamp,
    pub due_at: Timestamp,
    /// The world's time when it was last seen to become payable.
    pub payable_since: Timestamp,
    /// When that was, by the clock of whoever wrote it; where a hold period ended, when it did.
    pub ready_at: Timestamp,
    /// The tick at which it last changed.
    pub changed: usize,
    /// The world's time when it was first seen, and when it was last seen to be rejected or reversed.
    pub seen_at: Timestamp,
    pub fell_at: Timestamp,
    pub version: u64,
    pub entry: String,
}

impl Line {
    /// A line of no conversion, payable at once unless said otherwise.
    pub fn alone(entry: &Entry, kind: Kind, partner: String, amount: i128) -> Self {
        Self {
            kind,
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
            crossed: false,
            kept: BTreeMap::new(),
            amount,
            taken: 0,
            recorded: 0,
            state: State::Payable,
            reviewed: true,
            released: false,
            approved_at: entry.at,
            was_held: false,
            payout: None,
            hands: BTreeSet::new(),
            occurred_at: entry.at,
            due_at: entry.at,
            payable_since: entry.now,
            ready_at: entry.at,
            changed: 0,
            seen_at: entry.now,
            fell_at: Timestamp::MAX,
            version: 0,
            entry: String::new(),
        }
    }

    pub const fn net(&self) -> i128 {
        self.amount - self.taken
    }

    /// How much of its earning refunds took back through it.
    pub const fn reversed(&self) -> i128 {
        match self.kind {
            Kind::Clawback | Kind::Reinstatement => -self.amount + self.taken + self.recorded,
            _ => self.taken + self.recorded,
        }
    }

    /// How much of its earning it is.
    pub const fn earned(&self) -> i128 {
        match self.kind {
            Kind::Commission | Kind::Adjustment => self.amount,
            _ => 0,
        }
    }

    pub const fn stands(&self) -> bool {
        !matches!(self.state, State::Rejected | State::Reversed)
    }

    /// As entries tell it.
    pub fn facts(&self) -> (&'static str, i128, i128) {
        (self.state.as_str(), self.amount, self.net())
    }
}

#[derive(Debug, Clone)]
pub struct Claimed {
    pub line: String,
    pub amount: i128,
    pub due_at: Timestamp,
    pub ready_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drafted {
    /// What was claimed and is payable again.
    GivenUp(i128),
    Stands(i128),
}

#[derive(Debug, Clone)]
pub struct PageLine {
    pub id: String,
    pub net: i128,
    /// It is tax that is kept back.
    pub withheld: bool,
    pub hands: BTreeSet<String>,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Payout {
    pub partner: String,
    pub currency: &'static str,
    /// The currency it is sent in, which `paid`, payments and parts are in.
    pub paid_in: &'static str,
    /// What a minor unit of it may have been found to be worth in that currency when it was drafted: one of these holds.
    pub rates: Vec<Ratio>,
    pub state: &'static str,
    pub paid: i128,
    pub version: u64,
    pub minimum: i128,
    pub method: &'static str,
    /// Where it goes; nowhere without a way to pay the partner.
    pub place: Option<Way>,
    /// It goes elsewhere than when it was drafted.
    pub redirected: bool,
    /// The kinds of ways that whoever asked for it may have named.
    pub named: Vec<Option<&'static str>>,
    /// The partner has nowhere to be paid to: debts and earnings must come to zero.
    pub must_net: bool,
    /// Whether somebody overrode the minimum; unknown for requests, until what was written tells.
    pub overridden: Option<bool>,
    /// It was less than the minimum when it was drafted, and nobody asked for it: then it takes the program's policy.
    pub swept: bool,
    pub approvals: Vec<String>,
    pub pages: Vec<Vec<PageLine>>,
    /// The page whose lines follow next.
    pub settling: Option<usize>,
    /// Everything it ever claimed.
    pub claimed: Vec<Claimed>,
    /// Once it is drafted: whether it was given up then, and else what it came to after tax.
    pub drafted: Option<Drafted>,
    /// What else was payable when it was closed: line, amount, since when, and when that was due.
    pub left: Vec<(String, i128, Timestamp, Timestamp)>,
    /// What is paid of it under which reference, as long as it is not back.
    pub payments: Vec<(String, i128)>,
    /// All that is paid, part by part, and when.
    pub parts: Vec<(i128, Timestamp)>,
    /// What tax may have been found to ask when it was drafted: one of these holds.
    pub terms: Vec<Option<Terms>>,
    /// What was ever booked because somebody attested it: who, under which reference, how much.
    pub attested: Vec<(String, Option<String>, i128)>,
    /// How often it was begun anew.
    pub attempts: u32,
    /// When the attempt to send it began that is under way or was the last, and what was paid of it before.
    pub sent_at: Option<Timestamp>,
    pub paid_before: i128,
    /// A rail was asked to pay it: then nobody sends it by hand.
    pub at_rail: bool,
    /// PayPal's own id of the batch that pays it, once that is known.
    pub batch: Option<String>,
    /// Its Bill in QuickBooks, once that is known to be there.
    pub bill: Option<String>,
    /// The batch whose files it went out in.
    pub export: Option<String>,
    pub drafted_at: Timestamp,
    /// The world's time when it was last seen to change, and the tick.
    pub changed_at: Timestamp,
    pub changed: usize,
    /// The most it ever was.
    pub highest: i128,
    pub entries: u64,
    pub entry: String,
}

impl Payout {
    pub fn lines(&self) -> impl Iterator<Item = &PageLine> {
        self.pages.iter().flatten()
    }

    pub fn amount(&self) -> i128 {
        self.lines().map(|line| line.net).sum()
    }

    /// What is sent, in the currency it is sent in.
    pub fn due(&self) -> i128 {
        self.rates.first().map_or(0, |rate| Ratio::from(self.amount()).times(*rate).round())
    }

    /// What that may be by each of the rates.
    pub fn dues(&self) -> Vec<i128> {
        self.rates.iter().map(|rate| Ratio::from(self.amount()).times(*rate).round()).collect()
    }

    /// Keeps the rates by which so much of it is all, or not all.
    pub fn narrow(&mut self, paid: i128, all: bool) {
        let amount = Ratio::from(self.amount());
        let fits = |rate: &Ratio| {
            let due = amount.times(*rate).round();
            if all { due == paid } else { due > paid }
        };
        if self.rates.iter().any(fits) {
            self.rates.retain(fits);
        }
    }

    /// An attempt to send it begins.
    pub fn leaves(&mut self, entry: &Entry) {
        self.sent_at = Some(entry.at);
        self.paid_before = self.paid;
    }

    pub fn is_drafted(&mut self) {
        let given_up = self.state == "cancelled";
        self.drafted = Some(if given_up { Drafted::GivenUp(self.gross()) } else { Drafted::Stands(self.amount()) });
    }

    /// What is kept back of it.
    pub fn withheld(&self) -> i128 {
        -self.lines().filter(|line| line.withheld).map(|line| line.net).sum::<i128>()
    }

    /// Before tax.
    pub fn gross(&self) -> i128 {
        self.amount() + self.withheld()
    }

    pub fn hands(&self) -> BTreeSet<&str> {
        self.lines().flat_map(|line| &line.hands).map(String::as_str).collect()
    }

    /// Whether its lines may still change.
    pub fn is_open(&self) -> bool {
        matches!(self.state, "drafting" | "pending" | "approved") && self.settling.is_none()
    }
}

#[derive(Debug, Clone)]
pub struct Conversion {
    /// The program's id.
    pub program: String,
    pub source: String,
    pub order: String,
    pub sale: Option<Sale>,
    /// The tick at which its sale was read.
    pub sold: usize,
    pub received_at: Timestamp,
    pub refunds: Vec<Refund>,
    pub edits: Vec<Edit>,
    /// Ids of refunds that do not stand.
    pub withdrawn: BTreeSet<String>,
    pub standing: Standing,
    /// Whose it is, by how many parts.
    pub credits: Vec<(String, i128)>,
    /// Whose it was when its sale came.
    pub made_by: Vec<String>,
    /// The entry by which a person last gave it to them; zero: nobody had to.
    pub attribution: u64,
    /// The channels of the links by which partners were found: rules that ask for one take it where the sale tells none.
    pub channels: BTreeMap<String, &'static str>,
    /// Where partners stood under rules when the sale was rated.
    pub before: BTreeMap<(String, String), i128>,
    /// Why its lines are born held.
    pub suspicious: bool,
    pub earnings: Vec<Earning>,
    pub lines: Vec<String>,
}

impl Conversion {
    pub fn new(source: &str, order: &str, received_at: Timestamp) -> Self {
        Self {
            program: String::new(),
            source: source.to_owned(),
            order: order.to_owned(),
            sale: None,
            sold: 0,
            received_at,
            refunds: Vec::new(),
            edits: Vec::new(),
            withdrawn: BTreeSet::new(),
            standing: Standing::default(),
            credits: Vec::new(),
            made_by: Vec::new(),
            attribution: 0,
            channels: BTreeMap::new(),
            before: BTreeMap::new(),
            suspicious: false,
            earnings: Vec::new(),
            lines: Vec::new(),
        }
    }

    pub fn order(&self) -> Option<Order> {
        Some(Order::of(self.sale.as_ref()?, &self.edits, &self.refunds, &self.withdrawn))
    }
}

/// What is known of somebody who buys in a program.
#[derive(Debug, Clone, Default)]
pub struct Customer {
    pub bought: bool,
    pub first_attributed: Option<Attributed>,
    /// Who followed links.
    pub visitors: BTreeSet<String>,
    /// Source, total and time of every sale.
    pub sales: Vec<(String, i64, &'static str, Timestamp)>,
    /// When it was last told of something that was bought.
    pub learned: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct Attributed {
    pub stream: String,
    pub at: Timestamp,
    pub credits: Vec<(String, i128)>,
}

/// What one partner earns of one part of an order under one rule.
#[derive(Debug, Clone)]
pub struct Earning {
    pub partner: String,
    pub rule: Rule,
    pub rule_set: u32,
    /// The partner's part of the conversion, and the whole.
    pub share: (i128, i128),
    /// The entry by which a person gave the conversion to the partner.
    pub attribution: u64,
    /// Which part of the order, and which of its items.
    pub part: usize,
    pub items: Vec<usize>,
    /// The partner's part of what was sold, in minor units.
    pub base: i128,
    /// The day it counts on, in the program's time zone.
    pub date: Date,
    pub due_at: Timestamp,
    /// What the rule gave.
    pub earned: i128,
    /// By tier of a retroactive rule, what caps keep back of what it comes to there.
    pub kept: BTreeMap<i64, i128>,
    /// The conversion was given to somebody else: all of it is taken back.
    pub given_away: bool,
}

/// How far a partner, or a program, has come under a rule in a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub count: i128,
    pub revenue: i128,
    pub commission: i128,
    /// What retroactive tiers rate again, by rule set version.
    pub bases: BTreeMap<u32, Base>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base {
    pub count: i128,
    /// How many of them the partner has which part of, where that is not all.
    pub shared: BTreeMap<(i128, i128), i128>,
    pub revenue: i128,
    pub earned: i128,
    pub partial: i128,
    /// What caps keep back, by tier: of what was sold, and of true-ups.
    pub kept: BTreeMap<i64, i128>,
    pub lacking: BTreeMap<i64, i128>,
}

/// Partner or program, rule, and instance of a window.
pub type TallyKey = (String, String, String);

impl Tally {
    pub fn add(&mut self, other: &Self, sign: i128) {
        self.count += sign * other.count;
        self.revenue += sign * other.revenue;
        self.commission += sign * other.commission;
        for (version, base) in &other.bases {
            let own = self.bases.entry(*version).or_default();
            own.count += sign * base.count;
            for (share, count) in &base.shared {
                *own.shared.entry(*share).or_default() += sign * count;
            }
            own.shared.retain(|_, count| *count != 0);
            own.revenue += sign * base.revenue;
            own.earned += sign * base.earned;
            own.partial += sign * base.partial;
            for (own, other) in [(&mut own.kept, &base.kept), (&mut own.lacking, &base.lacking)] {
                for (tier, kept) in other {
                    *own.entry(*tier).or_default() += sign * kept;
                }
                own.retain(|_, kept| *kept != 0);
            }
        }
        self.bases.retain(|_, base| *base != Base::default());
    }
}

/// Sums per bucket, and counts of lines per state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    pub amounts: BTreeMap<String, i128>,
    pub counts: BTreeMap<String, i128>,
}

impl Balance {
    pub fn add(&mut self, bucket: &str, amount: i128) {
        *self.amounts.entry(bucket.to_owned()).or_default() += amount;
    }

    pub fn count(&mut self, state: &str, count: i128) {
        *self.counts.entry(state.to_owned()).or_default() += count;
    }

    /// What stands in the books for a line: what is left of it where it is, what was taken in `reversed`, and all of it against
    /// `accrued`.
    pub fn book(&mut self, line: &Line, sign: i128) {
        if line.kind == Kind::Withholding {
            // Tax is nobody's earning, and what is not kept back after all leaves no trace.
            self.add("withheld", sign * line.net());
            self.add("accrued", -sign * line.net());
            self.count(line.state.as_str(), sign);
            return;
        }
        self.add(line.state.as_str(), sign * line.net());
        self.add("reversed", sign * line.taken);
        self.add("accrued", -sign * line.amount);
        self.count(line.state.as_str(), sign);
    }

    pub fn merge(&mut self, other: &Self) {
        other.amounts.iter().for_each(|(bucket, amount)| self.add(bucket, *amount));
        other.counts.iter().for_each(|(state, count)| self.count(state, *count));
    }

    /// Without what is zero.
    pub fn trimmed(mut self) -> Self {
        self.amounts.retain(|_, amount| *amount != 0);
        self.counts.retain(|_, count| *count != 0);
        self
    }
}
