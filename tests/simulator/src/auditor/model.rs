//! What the auditor believes there is: lines, payouts, conversions and balances, in its own words.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::told::{Refund, Sale};

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

#[derive(Debug, Clone)]
pub struct Line {
    pub partner: String,
    pub conversion: String,
    pub rule: String,
    pub rule_set: u32,
    /// Whether the rule counts conversions.
    pub tiered: bool,
    /// Of the sale, which the rule rated.
    pub items: Vec<usize>,
    /// Counts from 1; a clawback is no slice.
    pub slice: Option<usize>,
    pub amount: i128,
    pub taken: i128,
    /// Refunds that wait for it to be reinstated.
    pub recorded: i128,
    pub state: State,
    pub reviewed: bool,
    /// Payout and page, while it is in one.
    pub payout: Option<(String, usize)>,
    pub hands: BTreeSet<String>,
    pub occurred_at: Timestamp,
    pub due_at: Timestamp,
    /// The world's time when it was last seen to become payable.
    pub payable_since: Timestamp,
    pub version: u64,
    pub entry: String,
}

impl Line {
    pub const fn net(&self) -> i128 {
        self.amount - self.taken
    }

    /// How much of its earning refunds took back through it.
    pub const fn reversed(&self) -> i128 {
        if self.slice.is_some() { self.taken + self.recorded } else { -self.amount }
    }

    /// Whether it lets its conversion count for a tier.
    pub fn counts(&self) -> bool {
        self.tiered && self.slice.is_some() && !matches!(self.state, State::Rejected | State::Reversed)
    }

    /// As entries tell it.
    pub fn facts(&self) -> (&'static str, i128, i128) {
        (self.state.as_str(), self.amount, self.net())
    }
}

#[derive(Debug, Clone)]
pub struct PageLine {
    pub id: String,
    pub net: i128,
    pub hands: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub struct Payout {
    pub partner: String,
    pub currency: &'static str,
    pub state: &'static str,
    pub paid: i128,
    pub version: u64,
    pub minimum: i128,
    /// The partner has nowhere to be paid to: debts and earnings must come to zero.
    pub must_net: bool,
    /// Whether somebody overrode the minimum; unknown for requests, until what was written tells.
    pub overridden: Option<bool>,
    pub approvals: Vec<String>,
    pub pages: Vec<Vec<PageLine>>,
    /// The page whose lines follow next.
    pub settling: Option<usize>,
    /// Everything it ever claimed: line, amount and when that was due.
    pub claimed: Vec<(String, i128, Timestamp)>,
    /// What else was payable when it was closed: line, amount, since when, and when that was due.
    pub left: Vec<(String, i128, Timestamp, Timestamp)>,
    pub drafted_at: Timestamp,
    /// The world's time when it was last seen to change.
    pub changed_at: Timestamp,
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
    pub source: String,
    pub order: String,
    pub sale: Option<Sale>,
    pub partner: Option<String>,
    pub refunds: Vec<Refund>,
    pub lines: Vec<String>,
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
