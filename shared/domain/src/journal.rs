//! The journal: one immutable entry per change. An entry is named by the SHA-256 of its content, and every line it touches
//! points at it and is told which entry came before: edits, gaps and reordering show.
//!
//! Its postings are movements from one bucket to another, so an entry that does not balance cannot be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::balance::{BalanceChange, Bucket};
use crate::ids::{ConversionId, Hash, LineId, PartnerId, PayoutId};
use crate::line::{Line, LineKind, StateName};
use crate::money::{Currency, Minor, MoneyError};
use crate::payout::{OpenPayout, Payout, PayoutState, TaxLine};
use crate::tax::Withholding;

/// Where an entry stands and what it holds: `stream/position/hash`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryRef {
    pub stream: String,
    pub position: u32,
    pub hash: String,
}

impl EntryRef {
    /// Of something not yet written.
    pub const fn none() -> Self {
        Self { stream: String::new(), position: 0, hash: String::new() }
    }

    pub const fn is_none(&self) -> bool {
        self.stream.is_empty()
    }
}

impl fmt::Display for EntryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.stream, self.position, self.hash)
    }
}

impl fmt::Debug for EntryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not refer to a journal entry")]
pub struct BadEntryRef(String);

impl TryFrom<String> for EntryRef {
    type Error = BadEntryRef;
    fn try_from(text: String) -> Result<Self, BadEntryRef> {
        let mut parts = text.splitn(3, '/');
        match (parts.next(), parts.next().and_then(|n| n.parse().ok()), parts.next()) {
            (Some(stream), Some(position), Some(hash)) => {
                Ok(Self { stream: stream.to_owned(), position, hash: hash.to_owned() })
            }
            _ => Err(BadEntryRef(text)),
        }
    }
}

impl From<EntryRef> for String {
    fn from(entry: EntryRef) -> Self {
        entry.to_string()
    }
}

/// One change: who, why, when, and what it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// A conversion or payout, whose entries are numbered in order; or the one command that made the change.
    pub stream: String,
    /// Counts from 1 within the stream.
    pub position: u32,
    pub at: Timestamp,
    pub by: String,
    pub what: What,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The accepted event that caused it, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<crate::conversion::ConversionEvent>,
    /// When that event was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
    /// What lines were rated by besides event and rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circumstances: Option<crate::accrual::Circumstances>,
    /// The tallies that were read for it and were not zero.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tallies: Vec<(crate::tally::TallyKey, crate::tally::Tally)>,
    /// What else it depends on: lines that were looked at and not changed, and how far a conversion was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Seen>,
    /// What a person set, where the entry is an adjustment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjusted: Option<Adjusted>,
    /// Why an accepted event earned nothing, where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<LineChange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payouts: Vec<PayoutChange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub postings: Vec<Posting>,
}

/// The verbs of the journal; those about lines and payouts are also the names of the events published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Accrue,
    AwaitSale,
    Refund,
    Edit,
    /// A refund was withdrawn, or a dispute won.
    Withdraw,
    /// A person attributed it.
    Attribute,
    /// A person wrote a line for no conversion.
    Bonus,
    /// A run wrote off what a partner owed, by the program's policy.
    WriteOff,
    Adjust,
    Approve,
    Mature,
    Hold,
    Release,
    Reject,
    Reinstate,
    Draft,
    Claim,
    CloseDraft,
    ApprovePayout,
    SendBack,
    CancelPayout,
    MarkPaid,
    Settle,
    /// A person took lines out of a payout.
    Exclude,
    /// The partner's payout details changed.
    Redirect,
    /// About to leave: written before the first byte does.
    BeginSubmit,
    /// The rail took it.
    Submit,
    MarkFailed,
    MarkReturned,
    Retry,
    VoidPayout,
    /// A payment was undone.
    Unpay,
}

/// Something as it stood when an entry was written that depends on it and does not change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Seen {
    Line {
        line: LineId,
        version: u32,
    },
    /// A conversion with this many entries, for an entry of another stream.
    Conversion {
        conversion: ConversionId,
        entries: u32,
    },
}

/// Which line a person set to which gross amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjusted {
    pub line: LineId,
    pub amount: Minor,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineChange {
    pub id: LineId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<LineFacts>,
    pub to: LineFacts,
    /// The entry before this one in the line's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EntryRef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFacts {
    pub state: StateName,
    pub amount: Minor,
    pub net: Minor,
}

impl LineFacts {
    pub fn of(line: &Line) -> Result<Self, MoneyError> {
        Ok(Self { state: line.state.name(), amount: line.amount, net: line.net()? })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PayoutChange {
    pub id: PayoutId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PayoutState>,
    pub to: PayoutState,
    pub amount: Minor,
    pub paid: Minor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<Timestamp>,
    pub currency: Currency,
    /// What it is paid in, where that is another currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_in: Option<Currency>,
    pub version: u32,
    /// The tax in it, where there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxKept>,
    /// The entry before this one in the payout's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EntryRef>,
}

/// Tax kept back from a payout: all that its line is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaxKept {
    pub terms: Withholding,
    pub withheld: Minor,
    pub line: LineId,
    pub page: u32,
}

impl TaxKept {
    fn of(payout: &Payout) -> Option<Self> {
        let TaxLine { line, page } = payout.tax_line.clone()?;
        Some(Self { terms: payout.withholding.clone()?, withheld: payout.withheld, line, page })
    }
}

impl PayoutChange {
    /// What it comes to before tax.
    pub fn gross(&self) -> Result<Minor, MoneyError> {
        self.amount.plus(self.tax.as_ref().map_or(Minor::ZERO, |tax| tax.withheld))
    }
}

/// An amount moved from one bucket of a partner to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    pub partner: PartnerId,
    pub from: Bucket,
    pub to: Bucket,
    pub amount: Minor,
}

/// A line before and after; before is `None` for a new line.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub before: Option<Line>,
    pub after: Line,
}

impl Change {
    pub const fn new(line: Line) -> Self {
        Self { before: None, after: line }
    }

    pub const fn of(before: Line, after: Line) -> Self {
        Self { before: Some(before), after }
    }

    /// The movements that take the line from before to after.
    fn postings(&self) -> Result<Vec<(Bucket, Bucket, Minor)>, MoneyError> {
        let mut moves = Vec::new();
        if self.after.kind == LineKind::Withholding {
            let before = self.before.as_ref().map_or(Ok(Minor::ZERO), Line::net)?;
            moves.push((Bucket::Accrued, Bucket::Withheld, self.after.net()?.minus(before)?));
            moves.retain(|(.., amount)| !amount.is_zero());
            return Ok(moves);
        }
        let to = Bucket::of(self.after.state.name());
        let (from, taken_before) = match &self.before {
            None => (Bucket::Accrued, Minor::ZERO),
            Some(before) => {
                let from = Bucket::of(before.state.name());
                // Another amount is accrued where the line was.
                moves.push((Bucket::Accrued, from, self.after.amount.minus(before.amount)?));
                (from, before.taken_back)
            }
        };
        // What is taken back leaves through the bucket the line was in; what is given back returns the same way.
        let taken = self.after.taken_back.minus(taken_before)?;
        moves.push((from, Bucket::Reversed, taken));
        moves.push((from, to, self.after.net()?));
        moves.retain(|(from, to, amount)| from != to && !amount.is_zero());
        Ok(moves)
    }
}

/// An entry with its bytes, which are what the hash is of and what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    pub entry: Entry,
    pub text: String,
    pub at: EntryRef,
}

impl Sealed {
    /// The payouts that were open when this was written, of those whose lines it changed. For doing again what was done: writing needs the
    /// payout as it is now, and is conditional on it, whatever a token says.
    pub fn open_payouts(&self) -> BTreeMap<PayoutId, OpenPayout> {
        let were_open = self.entry.payouts.iter().filter(|payout| payout.from.is_some_and(PayoutState::is_open));
        were_open.map(|payout| (payout.id.clone(), OpenPayout::recorded(payout.id.clone()))).collect()
    }
}

impl Entry {
    /// What it says of the tax that a line is, if it is the tax of one of the entry's payouts.
    pub fn tax_of(&self, line: &LineId) -> Option<(&PayoutChange, &TaxKept)> {
        self.payouts
            .iter()
            .find_map(|payout| payout.tax.as_ref().filter(|tax| tax.line == *line).map(|tax| (payout, tax)))
    }

    pub fn new(stream: impl Into<String>, position: u32, at: Timestamp, by: impl Into<String>, what: What) -> Self {
        Self {
            stream: stream.into(),
            position,
            at,
            by: by.into(),
            what,
            why: None,
            event: None,
            received_at: None,
            circumstances: None,
            tallies: Vec::new(),
            seen: Vec::new(),
            adjusted: None,
            note: None,
            lines: Vec::new(),
            payouts: Vec::new(),
            postings: Vec::new(),
        }
    }

    /// What tells the entry apart from whatever else happens to its conversion: it becomes part of the identity of the lines that are
    /// written because of it.
    pub fn cause(&self) -> String {
        let event = self.event.as_ref().map_or("", |event| event.id.as_str());
        match self.what {
            What::Refund => event.to_owned(),
            What::Edit => format!("edit:{event}"),
            What::Withdraw => format!("withdrawal:{event}"),
            What::Attribute => format!("attribution:{}", self.position),
            What::Adjust => format!("adjust:{}", self.position),
            What::Reject | What::Reinstate => self.stream.clone(),
            _ => String::new(),
        }
    }

    /// Notes which of the lines that were looked at are not among the changes. Of true-ups, only what they were
    /// written with matters.
    pub fn note_seen(&mut self, lines: &[Line], changes: &[Change]) {
        let changed: BTreeSet<_> = changes.iter().map(|change| &change.after.id).collect();
        let unchanged = lines.iter().filter(|line| line.kind != LineKind::TrueUp && !changed.contains(&line.id));
        self.seen.extend(unchanged.map(|line| Seen::Line { line: line.id.clone(), version: line.version }));
    }

    /// Notes a payout's change.
    #[must_use]
    pub fn with_payout(mut self, before: Option<&Payout>, after: &Payout) -> Self {
        self.payouts.push(PayoutChange {
            id: after.id.clone(),
            from: before.map(|payout| payout.state),
            to: after.state,
            amount: after.amount,
            paid: after.paid,
            paid_at: after.paid_at,
            currency: after.currency,
            paid_in: Some(after.paid_in()).filter(|currency| *currency != after.currency),
            version: after.content_version,
            tax: TaxKept::of(after),
            after: before.map(|payout| payout.entry.clone()),
        });
        self
    }

    /// Fixes the content: fills in lines and postings, names the entry by its hash, and points the lines at it.
    pub fn seal(mut self, changes: &mut [Change]) -> Result<Sealed, MoneyError> {
        let mut postings: BTreeMap<(PartnerId, Bucket, Bucket), Minor> = BTreeMap::new();
        for change in changes.iter() {
            self.lines.push(LineChange {
                id: change.after.id.clone(),
                from: change.before.as_ref().map(LineFacts::of).transpose()?,
                to: LineFacts::of(&change.after)?,
                after: change.before.as_ref().map(|before| before.entry.clone()),
            });
            for (from, to, amount) in change.postings()? {
                let sum = postings.entry((change.after.partner.clone(), from, to)).or_default();
                *sum = sum.plus(amount)?;
            }
        }
        self.postings = postings
            .into_iter()
            .filter(|(_, amount)| !amount.is_zero())
            .map(|((partner, from, to), amount)| Posting { partner, from, to, amount })
            .collect();
        let text = serde_json::json!(self).to_string();
        let at = EntryRef {
            stream: self.stream.clone(),
            position: self.position,
            hash: Hash::of(text.as_bytes()).to_string(),
        };
        for change in changes {
            change.after.version = change.before.as_ref().map_or(1, |before| before.version + 1);
            change.after.entry = at.clone();
        }
        Ok(Sealed { entry: self, text, at })
    }
}

/// The balance changes of a set of line changes, per partner, currency and shard.
pub fn balance_changes(
    changes: &[Change],
) -> Result<BTreeMap<(PartnerId, Currency, String), BalanceChange>, MoneyError> {
    let mut sums: BTreeMap<(PartnerId, Currency, String), BalanceChange> = BTreeMap::new();
    for change in changes {
        let line = &change.after;
        let key = (line.partner.clone(), line.currency, line.id.shard().to_owned());
        let sum = sums.entry(key).or_default();
        for (from, to, amount) in change.postings()? {
            sum.shift(from, to, amount)?;
        }
        sum.count(change.before.as_ref().map(|before| before.state.name()), line.state.name());
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Balance;
    use crate::conversion::tests::minor;
    use crate::line::LineState;
    use crate::line::tests::{line, now};
    use proptest::prelude::*;

    fn entry() -> Entry {
        Entry::new("cnv_1", 1, now(), "ann", What::Approve)
    }

    #[test]
    fn an_entry_is_named_by_its_content_and_chained_by_its_lines() {
        let new = line(1_000, LineState::Pending, now());
        let mut changes = [Change::new(new)];
        let first = entry().seal(&mut changes).unwrap();
        assert_eq!(first.at.hash, Hash::of(first.text.as_bytes()).to_string());
        let [Change { after: written, .. }] = changes;
        assert_eq!((&written.entry, written.version), (&first.at, 1));
        let approved = written.clone().approve(now()).unwrap();
        let mut changes = [Change::of(written, approved)];
        let second = entry().seal(&mut changes).unwrap();
        assert_eq!(second.entry.lines[0].after.as_ref(), Some(&first.at));
        assert_eq!(changes[0].after.version, 2);
        assert_eq!(serde_json::from_str::<Entry>(&second.text).unwrap(), second.entry, "what is stored reads back");
    }

    #[test]
    fn a_partial_refund_moves_its_part_only() {
        let before = line(1_000, LineState::Approved, now());
        let after = before.clone().take_back(minor(400), None).unwrap();
        let sealed = entry().seal(&mut [Change::of(before, after)]).unwrap();
        let moved: Vec<_> = sealed.entry.postings.iter().map(|p| (p.from, p.to, p.amount.units())).collect();
        assert_eq!(moved, [(Bucket::Approved, Bucket::Reversed, 400)]);
    }

    #[test]
    fn an_entry_tells_what_it_saw_and_did_not_change() {
        let [seen, changed, true_up] = [1_000, 2_000, 3_000].map(|amount| line(amount, LineState::Pending, now()));
        let true_up = Line { kind: LineKind::TrueUp, ..true_up };
        let changes = [Change::of(changed.clone(), changed.clone().approve(now()).unwrap())];
        let mut entry = entry();
        entry.note_seen(&[seen.clone(), changed, true_up], &changes);
        let conversion: ConversionId = format!("cnv_{}", "0".repeat(24)).parse().unwrap();
        entry.seen.push(Seen::Conversion { conversion: conversion.clone(), entries: 3 });
        let expect = serde_json::json!([{"line": seen.id, "version": 1}, {"conversion": conversion, "entries": 3}]);
        assert_eq!(serde_json::json!(entry.seen), expect);
        assert_eq!(serde_json::from_value::<Vec<Seen>>(expect).unwrap(), entry.seen, "what is stored reads back");
    }

    #[test]
    fn only_payouts_that_were_open_are_open_again_when_an_entry_is_replayed() {
        for state in PayoutState::ALL {
            let before = Payout { state, ..crate::payout::tests::payout(1_000) };
            let sealed = entry().with_payout(Some(&before), &before).seal(&mut []).unwrap();
            assert_eq!(sealed.open_payouts().contains_key(&before.id), before.open().is_some(), "{state:?}");
        }
        let new = entry().with_payout(None, &crate::payout::tests::payout(1_000)).seal(&mut []).unwrap();
        assert!(new.open_payouts().is_empty());
    }

    proptest! {
        /// Whatever happens to a line, the fold of its postings is what it contributes by itself, and nothing is lost.
        #[test]
        fn the_fold_of_postings_is_the_sum_of_lines(amount in 1_i64..10_000, steps in prop::collection::vec(0_u8..9, 0..12), part in 1_i64..5_000) {
            let mut balance = Balance::default();
            let mut current = line(amount, LineState::Pending, now());
            let apply = |balance: &mut Balance, change: Change| {
                for sum in balance_changes(std::slice::from_ref(&change)).unwrap().values() {
                    balance.apply(sum).unwrap();
                }
                change.after
            };
            current = apply(&mut balance, Change::new(current));
            let payout = crate::payout::tests::payout(amount).id;
            for step in steps {
                let before = current.clone();
                let next = match step {
                    0 => before.clone().approve(now()),
                    1 => before.clone().hold("why", None),
                    2 => before.clone().release("ann", now()),
                    3 => before.clone().reject("why", None),
                    4 => before.clone().reinstate("ann"),
                    5 => before.clone().take_back(minor(part), None),
                    6 => before.clone().give_back(minor(part), None, now()),
                    7 => before.clone().claim(&payout, 0),
                    _ => before.clone().pay(&payout, now()),
                };
                if let Ok(after) = next {
                    current = apply(&mut balance, Change::of(before, after));
                }
                prop_assert_eq!(balance.amount(Bucket::of(current.state.name())).units()
                    + if current.state.name() == StateName::Reversed { 0 } else { balance.amount(Bucket::Reversed).units() }, amount);
                prop_assert_eq!(balance.total().unwrap(), minor(0));
                prop_assert_eq!(balance.lines(current.state.name()), 1);
            }
        }
    }
}
