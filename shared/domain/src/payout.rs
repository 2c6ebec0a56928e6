//! A payout: lines of one program, partner and currency, paid together. Its amount is always the sum of its lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::exchange::ExchangeRate;
use crate::ids::{ExceptionId, ExportId, Hash, LineId, PartnerId, PayoutId, ProgramId, RunId};
use crate::journal::EntryRef;
use crate::money::{Currency, Minor, Money, MoneyError, Percent};
use crate::program::{DetailsChange, MethodKind, Partner, PartnerStatus, PayoutMethod, Program, Zone};
use crate::selection::CarriedBecause;
use crate::tax::{Terms, Withholding};

/// Lines on one page. A page and its lines are claimed in one transaction of at most 100 actions.
pub const PAGE_LINES: usize = 45;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payout {
    pub id: PayoutId,
    pub program: ProgramId,
    pub partner: PartnerId,
    pub run: RunId,
    pub currency: Currency,
    pub state: PayoutState,
    pub amount: Minor,
    pub line_count: u32,
    /// Lines it was decided to claim. Some may be gone when their turn comes.
    pub planned: u32,
    /// Pages written so far; they are numbered from 0.
    pub pages: u32,
    /// Covers every line, the method and the destination: what an approval is bound to.
    pub lines_hash: Hash,
    /// Counts changes of the content. An approval does not raise it.
    pub content_version: u32,
    pub method: MethodKind,
    pub destination: Hash,
    /// How it is converted, where the partner is paid in another currency: once, by the rate of the day it was drafted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversion: Option<ExchangeRate>,
    /// What tax is kept back, where any may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withholding: Option<Withholding>,
    /// The tax that is kept back: minus the sum of its withholding lines.
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub withheld: Minor,
    /// The line that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_line: Option<TaxLine>,
    /// Where its payments count towards a payer's information returns: whose calendar dates them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_calendar: Option<Zone>,
    /// Why it may be below the minimum payout, if somebody decided so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_minimum: Option<String>,
    /// It was drafted to come to zero, for a partner without a destination: it settles at zero or not at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub must_net: bool,
    /// The minimum that applied when it was drafted; below it, a payout that shrinks is cancelled.
    pub minimum: Minor,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// People whose hand is in one of its lines.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hands: BTreeSet<String>,
    /// What people attested so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<Payment>,
    /// When it is to be paid, where the program's schedule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay_on: Option<Date>,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<Timestamp>,
    /// When the attempt to send it began that is under way or was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitting_at: Option<Timestamp>,
    /// Where that attempt goes, until the rail took it: what is asked for again goes nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goes_to: Option<SentTo>,
    /// A rail was asked to pay it, or was about to be: from then on only the rail knows, and people do not send it besides.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_rail: bool,
    /// Attempts before that one. Each ended with somebody's word that no money moved.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub attempts: u32,
    /// A processor's own name for it, where one was asked to pay it and took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// The files it went out in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<ExportId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// How much has been paid, in the currency it is paid in.
    pub paid: Minor,
    /// What was filed when it failed or came back, until that is dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<ExceptionId>,
    /// How many pages' lines have followed the payout to its end, while some have not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settling: Option<u32>,
    /// Journal entries about this payout so far: the position of the next one.
    pub entries: u32,
    pub entry: EntryRef,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_none_yet(attempts: &u32) -> bool {
    *attempts == 0
}

/// Payout details as they were when something was sent to them. They are for no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SentTo(pub BTreeMap<String, String>);

impl fmt::Debug for SentTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentTo(..)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub by: String,
    pub at: Timestamp,
}

/// Where the line of tax stands in a payout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaxLine {
    pub line: LineId,
    pub page: u32,
}

/// Who tells what became of the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller<'a> {
    /// Somebody who attests it.
    Person(&'a str),
    /// The rail itself, asked by the program of this name.
    Rail(&'a str),
}

impl<'a> Teller<'a> {
    pub const fn name(self) -> &'a str {
        let (Self::Person(name) | Self::Rail(name)) = self;
        name
    }
}

/// Money that a person or a rail says was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub amount: Minor,
    pub at: Timestamp,
}

/// A page of claimed lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    pub payout: PayoutId,
    pub number: u32,
    pub lines: Vec<PageLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageLine {
    pub id: LineId,
    pub net: Minor,
    /// It is the tax kept back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
    /// People whose hand is in the line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hands: Vec<String>,
}

impl Page {
    pub fn hash(&self) -> Hash {
        let lines: Vec<_> = self.lines.iter().map(|line| (&line.id, line.net)).collect();
        Hash::of(serde_json::json!(lines).to_string().as_bytes())
    }

    pub fn total(&self) -> Result<Minor, MoneyError> {
        Minor::total(self.lines.iter().map(|line| line.net))
    }

    fn withheld(&self) -> Result<Minor, MoneyError> {
        Ok(Minor::total(self.lines.iter().filter(|line| line.withheld).map(|line| line.net))?.negated())
    }

    fn tax_line(&self) -> Option<TaxLine> {
        let line = self.lines.iter().find(|line| line.withheld)?;
        Some(TaxLine { line: line.id.clone(), page: self.number })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayoutState {
    /// Claiming lines.
    Drafting,
    /// Waits for approval.
    Pending,
    /// Approved by whom it takes; waits for the rail.
    Approved,
    /// Set before the first byte leaves; from here on nothing inside changes.
    Submitting,
    /// The rail accepted it.
    Submitted,
    PartiallyPaid,
    Paid,
    /// The rail refused it.
    Failed,
    /// The money came back.
    Returned,
    /// Ended before `submitting`.
    Cancelled,
    /// Ended after it, with proof that no money moved.
    Void,
}

impl PayoutState {
    pub const ALL: [Self; 11] = [
        Self::Drafting,
        Self::Pending,
        Self::Approved,
        Self::Submitting,
        Self::Submitted,
        Self::PartiallyPaid,
        Self::Paid,
        Self::Failed,
        Self::Returned,
        Self::Cancelled,
        Self::Void,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drafting => "drafting",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Submitting => "submitting",
            Self::Submitted => "submitted",
            Self::PartiallyPaid => "partially_paid",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Returned => "returned",
            Self::Cancelled => "cancelled",
            Self::Void => "void",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The states behind a word that payout systems commonly filter by.
    pub fn of_status(status: &str) -> Option<&'static [Self]> {
        match status {
            "pending" => Some(&[Self::Drafting, Self::Pending]),
            "approved" => Some(&[Self::Approved]),
            "processing" => Some(&[Self::Submitting, Self::Submitted, Self::PartiallyPaid]),
            "completed" | "paid" => Some(&[Self::Paid]),
            "failed" => Some(&[Self::Failed, Self::Returned]),
            "cancelled" => Some(&[Self::Cancelled, Self::Void]),
            _ => None,
        }
    }

    /// Whether lines go elsewhere with it: paid, or free again. In every other state they are in the payout.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Paid | Self::Cancelled | Self::Void)
    }

    /// Whether its lines may still change.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Drafting | Self::Pending | Self::Approved)
    }
}

/// What can happen to a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PayoutAction {
    CloseDraft,
    /// Positives and negatives came to zero: settled without a rail.
    Net,
    Cancel,
    Approve,
    SendBack,
    BeginSubmit,
    Submit,
    PayPart,
    Pay,
    Fail,
    Return,
    Void,
    /// A payment was undone, and none or a part of the money is still out.
    Unpay,
    Retry,
}

impl PayoutAction {
    pub const ALL: [Self; 14] = [
        Self::CloseDraft,
        Self::Net,
        Self::Cancel,
        Self::Approve,
        Self::SendBack,
        Self::BeginSubmit,
        Self::Submit,
        Self::PayPart,
        Self::Pay,
        Self::Fail,
        Self::Return,
        Self::Void,
        Self::Unpay,
        Self::Retry,
    ];

    pub const fn words(self) -> &'static str {
        match self {
            Self::CloseDraft => "closed",
            Self::Net => "netted",
            Self::Cancel => "cancelled",
            Self::Approve => "approved",
            Self::SendBack => "sent back",
            Self::BeginSubmit | Self::Submit => "submitted",
            Self::PayPart | Self::Pay => "marked paid",
            Self::Fail => "marked failed",
            Self::Return => "marked returned",
            Self::Void => "voided",
            Self::Unpay => "unpaid",
            Self::Retry => "retried",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayoutError {
    #[error("a payout that is {} cannot be {}", from.as_str(), action.words())]
    Illegal { from: PayoutState, action: PayoutAction },
    #[error("{0} approved this payout already; it takes a different person")]
    ApprovedBySame(String),
    #[error("{0} has a hand in one of its commissions, and so must not approve the payout")]
    HandInLine(String),
    #[error("{0} changed the payout details, and so must not approve what is paid to them")]
    ChangedDetails(String),
    #[error("its commissions are still being settled; try again")]
    Settling,
    #[error("it is still being drafted; try again in a moment")]
    StillDrafting,
    #[error("QuickBooks payouts are settled by QuickBooks alone")]
    SettledByRail,
    #[error("{0} of it is paid, and that must come back before it can be voided")]
    CashApplied(Money),
    #[error("it was settled at zero: no money was sent that could come back")]
    NothingSent,
    #[error("the amount must be more than zero and at most the {0} still open")]
    BadAmount(Money),
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// Why an approved payout must not be sent now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    #[error("the partner is suspended: nothing is sent until that is lifted")]
    Suspended,
    /// What was approved is not what would be paid: it must be [redirected](Payout::redirect).
    #[error("the partner's payout details changed since it was drafted")]
    OtherDetails,
    #[error("the payout details were changed at {changed}: nothing is sent to the new ones before {until}")]
    CoolingOff { changed: Timestamp, until: Timestamp },
}

impl PayoutState {
    /// The table of transitions; everything else is refused.
    pub const fn next(self, action: PayoutAction) -> Result<Self, PayoutError> {
        use PayoutAction as A;
        Ok(match (self, action) {
            (Self::Drafting, A::CloseDraft) => Self::Pending,
            (Self::Drafting, A::Net) => Self::Paid,
            (Self::Drafting | Self::Pending | Self::Approved, A::Cancel) => Self::Cancelled,
            (Self::Pending, A::Approve) => Self::Approved,
            (Self::Approved, A::SendBack) => Self::Pending,
            (Self::Approved, A::BeginSubmit) | (Self::Failed | Self::Returned, A::Retry) => Self::Submitting,
            (Self::Approved | Self::Submitting, A::Submit) => Self::Submitted,
            (Self::Approved | Self::Submitted | Self::PartiallyPaid, A::PayPart) => Self::PartiallyPaid,
            (Self::Approved | Self::Submitted | Self::PartiallyPaid, A::Pay) => Self::Paid,
            (Self::Submitting | Self::Submitted | Self::PartiallyPaid, A::Fail) => Self::Failed,
            (Self::Submitted | Self::PartiallyPaid | Self::Paid, A::Return) => Self::Returned,
            (Self::Submitted | Self::PartiallyPaid | Self::Failed | Self::Returned, A::Void) => Self::Void,
            (Self::Paid | Self::PartiallyPaid, A::Unpay) => Self::Submitted,
            (Self::Paid, A::PayPart) => Self::PartiallyPaid,
            _ => return Err(PayoutError::Illegal { from: self, action }),
        })
    }
}

/// Proof that a payout's lines may still change.
#[derive(Debug, Clone)]
pub struct OpenPayout(PayoutId);

impl OpenPayout {
    pub const fn id(&self) -> &PayoutId {
        &self.0
    }

    /// By the journal's word: it *was* open when an entry was written. For replaying that entry, and only [`crate::journal`] gives it out.
    pub(crate) const fn recorded(id: PayoutId) -> Self {
        Self(id)
    }
}

/// A payout's new content after a line left it or shrank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retallied {
    /// It stands, smaller; approvals are gone.
    Stands(Payout),
    /// It no longer reaches its minimum: its lines must be freed.
    Cancelled(Payout),
}

impl Payout {
    pub const fn money(&self) -> Money {
        Money::new(self.amount, self.currency)
    }

    /// What it comes to before tax: what minimum and limits look at.
    pub fn gross(&self) -> Result<Minor, MoneyError> {
        self.amount.plus(self.withheld)
    }

    /// The tax to keep back of what it comes to now.
    pub fn tax_due(&self) -> Result<Minor, MoneyError> {
        self.withholding.as_ref().map_or(Ok(Minor::ZERO), |terms| terms.of(self.gross()?))
    }

    /// The currency that is sent.
    pub fn paid_in(&self) -> Currency {
        self.conversion.as_ref().map_or(self.currency, |rate| rate.to)
    }

    /// What is sent, in the currency it is sent in.
    pub fn pays(&self) -> Result<Money, MoneyError> {
        match &self.conversion {
            Some(rate) => rate.convert(self.amount),
            None => Ok(self.money()),
        }
    }

    /// What is still to be sent of it, in the currency it is sent in.
    pub fn unsent(&self) -> Result<Money, MoneyError> {
        let whole = self.pays()?;
        Ok(Money::new(whole.amount.minus(self.paid)?, whole.currency))
    }

    pub fn open(&self) -> Option<OpenPayout> {
        (self.state.is_open() && self.settling.is_none()).then(|| OpenPayout(self.id.clone()))
    }

    fn step(mut self, action: PayoutAction) -> Result<Self, PayoutError> {
        if self.settling.is_some() {
            return Err(PayoutError::Settling);
        }
        self.state = self.state.next(action)?;
        Ok(self)
    }

    /// The hash an approval is bound to: every page, the method, the destination, the currency, its rate, and the terms of tax.
    pub fn content_hash(&self, pages: &[Page]) -> Hash {
        let page_hashes: Vec<_> = pages.iter().map(Page::hash).collect();
        let terms =
            serde_json::json!([self.method, self.destination, self.currency, self.conversion, self.withholding]);
        let terms = Hash::of(terms.to_string().as_bytes());
        Hash::chain(page_hashes.iter().chain(std::iter::once(&terms)))
    }

    /// Takes in one more page, while drafting: sums only, so that a claim need not read the pages before it.
    pub fn take_in(mut self, page: &Page) -> Result<Self, MoneyError> {
        self.amount = self.amount.plus(page.total()?)?;
        self.line_count += u32::try_from(page.lines.len()).unwrap_or(u32::MAX);
        self.hands.extend(page.lines.iter().flat_map(|line| line.hands.iter().cloned()));
        self.pages += 1;
        Ok(self)
    }

    /// Takes amount, count, people and hash from the pages, the one place they come from.
    pub fn tally(mut self, pages: &[Page]) -> Result<Self, MoneyError> {
        self.amount = Minor::total(pages.iter().map(Page::total).collect::<Result<Vec<_>, _>>()?)?;
        self.withheld = Minor::total(pages.iter().map(Page::withheld).collect::<Result<Vec<_>, _>>()?)?;
        self.tax_line = pages.iter().find_map(Page::tax_line);
        self.line_count = u32::try_from(pages.iter().map(|page| page.lines.len()).sum::<usize>()).unwrap_or(u32::MAX);
        self.hands = pages.iter().flat_map(|page| &page.lines).flat_map(|line| line.hands.iter().cloned()).collect();
        self.lines_hash = self.content_hash(pages);
        self.pages = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        Ok(self)
    }

    /// Ends the claiming: waits for approval, settles at zero, or is cancelled where too little was left to claim.
    pub fn close_draft(self, pages: &[Page], now: Timestamp) -> Result<Self, PayoutError> {
        let claimed = self.tally(pages)?;
        let has_negative = pages.iter().flat_map(|page| &page.lines).any(|line| line.net.is_negative());
        if has_negative && claimed.amount.is_zero() {
            let mut netted = claimed.step(PayoutAction::Net)?;
            netted.paid_at = Some(now);
            netted.reference = Some("netted".to_owned());
            return Ok(netted.settle());
        }
        if claimed.reaches_minimum()? && !claimed.must_net {
            claimed.step(PayoutAction::CloseDraft)
        } else {
            claimed.end_as(PayoutAction::Cancel)
        }
    }

    fn reaches_minimum(&self) -> Result<bool, MoneyError> {
        let gross = self.gross()?;
        // What is worth less than the smallest unit of the other currency cannot be sent.
        let sends = self.conversion.is_none() || self.pays()?.amount.is_positive();
        Ok(sends && gross.is_positive() && (self.below_minimum.is_some() || gross >= self.minimum))
    }

    /// Why a draft that came to too little is given up, in the order in which a run names reasons.
    pub fn given_up_because(&self) -> Result<CarriedBecause, MoneyError> {
        let gross = self.gross()?;
        Ok(if gross.is_zero() {
            CarriedBecause::NothingPayable
        } else if self.must_net {
            CarriedBecause::NoPayoutMethod
        } else if gross.is_negative() {
            CarriedBecause::NegativeBalance
        } else {
            CarriedBecause::BelowThreshold
        })
    }

    /// Lines follow their payout to its end page by page; there is nothing to follow with where no page is.
    fn settle(mut self) -> Self {
        self.settling = (self.pages > 0).then_some(0);
        self
    }

    fn end_as(self, action: PayoutAction) -> Result<Self, PayoutError> {
        Ok(self.step(action)?.settle())
    }

    /// A person ends it before it is sent anywhere. A draft claims its lines first: it ends by itself or can be cancelled in a moment.
    pub fn cancel(self) -> Result<Self, PayoutError> {
        if self.state == PayoutState::Drafting {
            return Err(PayoutError::StillDrafting);
        }
        self.end_as(PayoutAction::Cancel)
    }

    /// One more approval. `needed` is one, or two at or above the large-payout limit; `changed` is the last change of the details that it is
    /// paid to.
    pub fn approve(
        mut self,
        by: &str,
        at: Timestamp,
        needed: usize,
        changed: Option<&DetailsChange>,
    ) -> Result<Self, PayoutError> {
        if self.state != PayoutState::Pending {
            return Err(PayoutError::Illegal { from: self.state, action: PayoutAction::Approve });
        }
        if self.hands.contains(by) {
            return Err(PayoutError::HandInLine(by.to_owned()));
        }
        if changed.is_some_and(|change| change.by == by) {
            return Err(PayoutError::ChangedDetails(by.to_owned()));
        }
        if self.approvals.iter().any(|approval| approval.by == by) {
            return Err(PayoutError::ApprovedBySame(by.to_owned()));
        }
        self.approvals.push(Approval { by: by.to_owned(), at });
        if self.approvals.len() < needed {
            return Ok(self);
        }
        self.approved_at = Some(at);
        self.step(PayoutAction::Approve)
    }

    pub fn send_back(self) -> Result<Self, PayoutError> {
        let mut back = self.step(PayoutAction::SendBack)?;
        back.clear_approvals();
        Ok(back)
    }

    fn clear_approvals(&mut self) {
        self.approvals.clear();
        self.approved_at = None;
    }

    /// To be written before the first byte leaves to a rail: from here on nothing inside changes.
    pub fn begin_submit(self, to: &PayoutMethod, at: Timestamp) -> Result<Self, PayoutError> {
        let leaving = self.step(PayoutAction::BeginSubmit)?.leaving(to, at);
        Ok(Self { at_rail: true, ..leaving })
    }

    fn leaving(mut self, to: &PayoutMethod, at: Timestamp) -> Self {
        self.submitting_at = Some(at);
        self.goes_to = Some(SentTo(to.details.clone()));
        self
    }

    /// The rail took it. `reference` is the rail's own name for it.
    pub fn submit(self, reference: Option<&str>, at: Timestamp) -> Result<Self, PayoutError> {
        let mut submitted = self.step(PayoutAction::Submit)?;
        submitted.submitted_at = Some(at);
        submitted.reference = reference.map(str::to_owned).or(submitted.reference);
        submitted.goes_to = None;
        Ok(submitted)
    }

    /// It goes out in a file, once and for ever the same.
    pub fn submit_in(self, export: &ExportId, at: Timestamp) -> Result<Self, PayoutError> {
        if self.state != PayoutState::Approved {
            return Err(PayoutError::Illegal { from: self.state, action: PayoutAction::Submit });
        }
        let mut submitted = self.step(PayoutAction::Submit)?;
        submitted.export = Some(export.clone());
        submitted.submitted_at = Some(at);
        Ok(submitted)
    }

    /// A processor took it, under this name of its own.
    pub fn taken(self, processor: &str, at: Timestamp) -> Result<Self, PayoutError> {
        let mut taken = self.submit(Some(processor), at)?;
        taken.processor = Some(processor.to_owned());
        Ok(taken)
    }

    /// Whether people send the money, so that no program knows more of it than they tell.
    pub const fn is_sent_by_people(&self) -> bool {
        match self.method {
            MethodKind::Manual | MethodKind::Bank | MethodKind::Wise => true,
            MethodKind::Paypal => !self.at_rail,
            MethodKind::Quickbooks => false,
        }
    }

    const fn not_quickbooks(&self) -> Result<(), PayoutError> {
        if matches!(self.method, MethodKind::Quickbooks) { Err(PayoutError::SettledByRail) } else { Ok(()) }
    }

    /// A person attests a payment outside QuickBooks. `part`: all that is open where left out; in the currency that is sent.
    pub fn mark_paid(self, reference: Option<&str>, at: Timestamp, part: Option<Minor>) -> Result<Self, PayoutError> {
        self.not_quickbooks()?;
        let unsent = self.unsent()?;
        let open = unsent.amount;
        let part = part.unwrap_or(open);
        let action = if part == open { PayoutAction::Pay } else { PayoutAction::PayPart };
        // `paid` is left only when the payment comes back.
        if self.state == PayoutState::Paid {
            return Err(PayoutError::Illegal { from: self.state, action });
        }
        let so_far = self.paid.plus(part)?;
        let payment = Payment { reference: reference.map(str::to_owned), amount: part, at };
        let payments = [self.payments.as_slice(), &[payment]].concat();
        let paid = self.pay_up_to(action, so_far, payments, at)?;
        if !part.is_positive() || part > open {
            return Err(PayoutError::BadAmount(unsent));
        }
        Ok(paid)
    }

    /// What the rail says has been paid of it in all, in the currency that is sent. Less than before: a payment was undone.
    pub fn reported(self, paid: Minor, reference: Option<&str>, at: Timestamp) -> Result<Self, PayoutError> {
        let sent = self.pays()?;
        if paid.is_negative() || paid > sent.amount {
            return Err(PayoutError::BadAmount(sent));
        }
        let action = if paid.is_zero() {
            PayoutAction::Unpay
        } else if paid == sent.amount {
            PayoutAction::Pay
        } else {
            PayoutAction::PayPart
        };
        // A rail reports about what it was given.
        if self.state == PayoutState::Approved {
            return Err(PayoutError::Illegal { from: self.state, action });
        }
        let payment = Payment { reference: reference.map(str::to_owned), amount: paid, at };
        let payments = if paid.is_zero() { Vec::new() } else { vec![payment] };
        self.pay_up_to(action, paid, payments, at)
    }

    /// So much of it is paid from now on. Its lines follow where it becomes `paid`, or is `paid` no more.
    fn pay_up_to(
        self,
        action: PayoutAction,
        paid: Minor,
        payments: Vec<Payment>,
        at: Timestamp,
    ) -> Result<Self, PayoutError> {
        let was_paid = self.state == PayoutState::Paid;
        let mut after = self.step(action)?;
        after.reference = payments.last().and_then(|payment| payment.reference.clone()).or(after.reference);
        after.paid = paid;
        after.payments = payments;
        let is_paid = after.state == PayoutState::Paid;
        after.paid_at = is_paid.then_some(at);
        if !paid.is_zero() {
            after.submitted_at = after.submitted_at.or(Some(at));
        }
        Ok(if was_paid == is_paid { after } else { after.settle() })
    }

    /// The rail refused it for good; its lines stay. While it is on its way only the rail itself knows.
    pub fn fail(self, teller: Teller<'_>) -> Result<Self, PayoutError> {
        if let Teller::Person(_) = teller {
            self.not_quickbooks()?;
            if self.state == PayoutState::Submitting {
                return Err(PayoutError::Illegal { from: self.state, action: PayoutAction::Fail });
            }
        }
        self.step(PayoutAction::Fail)
    }

    /// All of the money came back; its lines stay. What QuickBooks undoes is [reported](Self::reported).
    pub fn come_back(self, at: Timestamp) -> Result<Self, PayoutError> {
        self.not_quickbooks()?;
        if self.state == PayoutState::Paid && self.paid.is_zero() {
            return Err(PayoutError::NothingSent);
        }
        self.pay_up_to(PayoutAction::Return, Minor::ZERO, Vec::new(), at)
    }

    /// Once more on its way, under the same identity.
    pub fn retry(self, to: &PayoutMethod, at: Timestamp) -> Result<Self, PayoutError> {
        let mut again = self.step(PayoutAction::Retry)?.leaving(to, at);
        again.attempts += 1;
        Ok(again)
    }

    /// Ends it with proof that no money moved; its lines are payable again.
    pub fn void(self, teller: Teller<'_>) -> Result<Self, PayoutError> {
        if let Teller::Person(_) = teller {
            self.not_quickbooks()?;
        }
        let (paid, currency) = (self.paid, self.pays()?.currency);
        let void = self.end_as(PayoutAction::Void)?;
        if paid.is_zero() { Ok(void) } else { Err(PayoutError::CashApplied(Money::new(paid, currency))) }
    }

    /// Whether a person attested this very payment before: the same part under the same reference.
    pub fn knows_payment(&self, reference: Option<&str>, part: Option<Minor>) -> bool {
        let same = |payment: &Payment| payment.reference.as_deref() == reference && Some(payment.amount) == part;
        reference.is_some() && self.payments.iter().any(same)
    }

    /// What was inside changed: new sums, no approvals, and `pending` again, or `cancelled` below the minimum.
    pub fn retally(self, pages: &[Page]) -> Result<Retallied, PayoutError> {
        if self.open().is_none() {
            return Err(PayoutError::Illegal { from: self.state, action: PayoutAction::SendBack });
        }
        let mut changed = self.tally(pages)?;
        changed.content_version += 1;
        changed.clear_approvals();
        if changed.state == PayoutState::Drafting {
            return Ok(Retallied::Stands(changed));
        }
        changed.state = PayoutState::Pending;
        if changed.reaches_minimum()? {
            Ok(Retallied::Stands(changed))
        } else {
            Ok(Retallied::Cancelled(changed.cancel()?))
        }
    }

    /// Where its money goes now, if that is still what it was drafted for.
    pub fn destination_of<'p>(&self, partner: &'p Partner) -> Option<&'p PayoutMethod> {
        partner.method(self.method).filter(|method| method.fingerprint() == self.destination)
    }

    /// The partner's payout details changed: it goes to the new ones of its method, else to the method the partner prefers now, and is
    /// approved anew. To nobody who has none: then it is cancelled.
    pub fn redirect(mut self, partner: &Partner, pages: &[Page]) -> Result<Retallied, PayoutError> {
        if let Some(method) = partner.method(self.method).or_else(|| partner.preferred_method()) {
            self.method = method.kind;
            self.destination = method.fingerprint();
            return self.retally(pages);
        }
        self.method = MethodKind::Manual;
        self.destination = Hash::of(b"");
        self.must_net = true;
        match self.retally(pages)? {
            Retallied::Stands(payout) if payout.state == PayoutState::Pending => {
                Ok(Retallied::Cancelled(payout.cancel()?))
            }
            other => Ok(other),
        }
    }

    /// Tax asks for something else than when it was drafted: it is retallied on these terms, and approved anew. Where nothing is kept back any
    /// more, the terms of its line say so.
    pub fn tax_anew(mut self, terms: &Terms, pages: &[Page]) -> Result<Retallied, PayoutError> {
        let former = self.withholding.take().filter(|_| self.tax_line.is_some());
        let nothing = former.map(|former| Withholding { rate: Percent::new(Decimal::ZERO), ..former });
        self.withholding = terms.withholding().cloned().or(nothing);
        self.retally(pages)
    }

    /// What is checked again before it is sent: where to, or why not now. Nothing that is held or disputed is inside: what is stopped leaves
    /// its payout.
    pub fn sendable<'p>(
        &self,
        partner: &'p Partner,
        program: &Program,
        now: Timestamp,
    ) -> Result<&'p PayoutMethod, Unsendable> {
        if partner.status != PartnerStatus::Active {
            return Err(Unsendable::Suspended);
        }
        let method = self.destination_of(partner).ok_or(Unsendable::OtherDetails)?;
        let cooling_off = SignedDuration::from_hours(24 * i64::from(program.cooling_off_days));
        match &method.changed {
            Some(change) if now < change.at + cooling_off => {
                Err(Unsendable::CoolingOff { changed: change.at, until: change.at + cooling_off })
            }
            _ => Ok(method),
        }
    }
}

/// What an approver saw: stale if the payout has changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub version: u32,
    pub amount: Minor,
    pub lines_hash: Hash,
}

impl Seen {
    /// What differs now, in words; empty where nothing does.
    pub fn differences(&self, payout: &Payout) -> Vec<String> {
        let mut differences = Vec::new();
        if self.version != payout.content_version {
            differences.push(format!("version is {}, not {}", payout.content_version, self.version));
        }
        if self.amount != payout.amount {
            differences.push(format!("amount is {}, not {}", payout.money(), Money::new(self.amount, payout.currency)));
        }
        if self.lines_hash != payout.lines_hash {
            differences.push("its commissions or destination changed".to_owned());
        }
        differences
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::conversion::tests::minor;
    use crate::line::tests::now;

    pub(crate) fn payout(amount: i64) -> Payout {
        let partner = PartnerId::from_uuid(2);
        let run = RunId::derive(&ProgramId::from_uuid(1), "monthly", "2026-06-01");
        let id = PayoutId::derive(&run, &partner, now());
        let line = LineId::derive(&partner, 1, now(), &["cnv", "rule", "1"]);
        let page = Page {
            payout: id.clone(),
            number: 0,
            lines: vec![PageLine { id: line, net: minor(amount), withheld: false, hands: vec![] }],
        };
        let empty = Payout {
            id,
            program: ProgramId::from_uuid(1),
            partner,
            run,
            currency: "USD".parse().unwrap(),
            state: PayoutState::Pending,
            amount: Minor::ZERO,
            line_count: 0,
            planned: 1,
            pages: 0,
            lines_hash: Hash::of(b""),
            content_version: 1,
            method: MethodKind::Manual,
            destination: Hash::of(b""),
            below_minimum: None,
            must_net: false,
            conversion: None,
            withholding: None,
            withheld: Minor::ZERO,
            tax_line: None,
            tax_calendar: None,
            minimum: minor(500),
            approvals: vec![],
            hands: BTreeSet::new(),
            payments: vec![],
            pay_on: None,
            created_at: now(),
            approved_at: None,
            submitted_at: None,
            paid_at: None,
            submitting_at: None,
            goes_to: None,
            at_rail: false,
            attempts: 0,
            processor: None,
            export: None,
            reference: None,
            paid: Minor::ZERO,
            trouble: None,
            settling: None,
            entries: 1,
            entry: EntryRef::none(),
        };
        empty.tally(&[page]).unwrap()
    }

    fn pages(amounts: &[i64]) -> Vec<Page> {
        let payout = payout(0);
        let lines = amounts.iter().enumerate().map(|(n, amount)| PageLine {
            id: LineId::derive(&payout.partner, 1, now(), &["cnv", "rule", &n.to_string()]),
            net: minor(*amount),
            withheld: false,
            hands: vec![],
        });
        vec![Page { payout: payout.id.clone(), number: 0, lines: lines.collect() }]
    }

    #[test]
    fn only_the_transitions_of_the_table_happen() {
        use PayoutAction as A;
        use PayoutState as S;
        let legal = [
            (S::Drafting, A::CloseDraft, S::Pending),
            (S::Drafting, A::Net, S::Paid),
            (S::Drafting, A::Cancel, S::Cancelled),
            (S::Pending, A::Approve, S::Approved),
            (S::Pending, A::Cancel, S::Cancelled),
            (S::Approved, A::SendBack, S::Pending),
            (S::Approved, A::Cancel, S::Cancelled),
            (S::Approved, A::BeginSubmit, S::Submitting),
            (S::Approved, A::Submit, S::Submitted),
            (S::Approved, A::PayPart, S::PartiallyPaid),
            (S::Approved, A::Pay, S::Paid),
            (S::Submitting, A::Submit, S::Submitted),
            (S::Submitting, A::Fail, S::Failed),
            (S::Submitted, A::PayPart, S::PartiallyPaid),
            (S::Submitted, A::Pay, S::Paid),
            (S::Submitted, A::Fail, S::Failed),
            (S::Submitted, A::Return, S::Returned),
            (S::Submitted, A::Void, S::Void),
            (S::PartiallyPaid, A::PayPart, S::PartiallyPaid),
            (S::PartiallyPaid, A::Pay, S::Paid),
            (S::PartiallyPaid, A::Fail, S::Failed),
            (S::PartiallyPaid, A::Return, S::Returned),
            (S::PartiallyPaid, A::Void, S::Void),
            (S::PartiallyPaid, A::Unpay, S::Submitted),
            (S::Paid, A::Unpay, S::Submitted),
            (S::Paid, A::PayPart, S::PartiallyPaid),
            (S::Paid, A::Return, S::Returned),
            (S::Failed, A::Retry, S::Submitting),
            (S::Failed, A::Void, S::Void),
            (S::Returned, A::Retry, S::Submitting),
            (S::Returned, A::Void, S::Void),
        ];
        for from in S::ALL {
            for action in A::ALL {
                let expect = legal.iter().find(|(f, a, _)| (*f, *a) == (from, action)).map(|(.., to)| *to);
                assert_eq!(from.next(action).ok(), expect, "{from:?} {action:?}");
            }
        }
    }

    #[test]
    fn two_people_approve_and_neither_twice() {
        let once = payout(1_000).approve("ann", now(), 2, None).unwrap();
        assert_eq!(once.state, PayoutState::Pending);
        assert_eq!(once.clone().approve("ann", now(), 2, None), Err(PayoutError::ApprovedBySame("ann".into())));
        let twice = once.approve("ben", now(), 2, None).unwrap();
        assert_eq!((twice.state, twice.content_version), (PayoutState::Approved, 1));
        assert!(matches!(twice.approve("cy", now(), 2, None), Err(PayoutError::Illegal { .. })));
    }

    #[test]
    fn nobody_approves_what_they_had_a_hand_in() {
        let mut touched = payout(1_000);
        touched.hands.insert("ann".into());
        assert_eq!(touched.approve("ann", now(), 1, None), Err(PayoutError::HandInLine("ann".into())));
    }

    #[test]
    fn a_change_inside_asks_for_approval_again() {
        let approved = payout(1_000).approve("ann", now(), 1, None).unwrap();
        let Retallied::Stands(changed) = approved.clone().retally(&pages(&[900])).unwrap() else { panic!("cancelled") };
        assert_eq!((changed.state, changed.amount, changed.content_version), (PayoutState::Pending, minor(900), 2));
        assert!(changed.approvals.is_empty());
        assert_ne!(changed.lines_hash, approved.lines_hash);
        assert!(matches!(approved.clone().retally(&pages(&[400])).unwrap(), Retallied::Cancelled(_)));
        let mut overridden = approved;
        overridden.below_minimum = Some("closing the account".into());
        assert!(matches!(overridden.retally(&pages(&[400])).unwrap(), Retallied::Stands(_)));
    }

    #[test]
    fn a_draft_closes_by_its_sum() {
        let draft = |amounts: &[i64]| {
            let draft = Payout { state: PayoutState::Drafting, ..payout(0) };
            draft.close_draft(&pages(amounts), now()).unwrap()
        };
        assert_eq!(draft(&[500]).state, PayoutState::Pending);
        assert_eq!(draft(&[499]).state, PayoutState::Cancelled);
        let netted = draft(&[500, -500]);
        assert_eq!((netted.state, netted.settling), (PayoutState::Paid, Some(0)));
        let no_destination = Payout { state: PayoutState::Drafting, must_net: true, ..payout(0) };
        let closed = |amounts: &[i64]| no_destination.clone().close_draft(&pages(amounts), now()).unwrap().state;
        assert_eq!((closed(&[500, -500]), closed(&[500])), (PayoutState::Paid, PayoutState::Cancelled));
        assert_eq!(draft(&[0, 0]).state, PayoutState::Cancelled, "zero lines alone settle nothing");
    }

    #[test]
    fn marking_paid_takes_parts_and_never_more_than_is_open() {
        let approved = payout(1_000).approve("ann", now(), 1, None).unwrap();
        let part = approved.clone().mark_paid(Some("tx 1"), now(), Some(minor(400))).unwrap();
        assert_eq!((part.state, part.paid, part.settling), (PayoutState::PartiallyPaid, minor(400), None));
        assert!(part.knows_payment(Some("tx 1"), Some(minor(400))));
        assert!(
            !part.knows_payment(Some("tx 2"), Some(minor(400))) && !part.knows_payment(Some("tx 1"), Some(minor(1)))
        );
        assert!(matches!(part.clone().mark_paid(None, now(), Some(minor(601))), Err(PayoutError::BadAmount(_))));
        let all = part.mark_paid(Some("tx 2"), now(), None).unwrap();
        assert_eq!((all.state, all.paid, all.settling), (PayoutState::Paid, minor(1_000), Some(0)));
        assert!(payout(1_000).mark_paid(None, now(), None).is_err(), "not before it is approved");
        let qbo = Payout { method: MethodKind::Quickbooks, ..approved };
        assert_eq!(qbo.mark_paid(None, now(), None), Err(PayoutError::SettledByRail));
    }

    #[test]
    fn what_an_approver_saw_is_compared_in_words() {
        let payout = payout(1_000);
        let seen = Seen { version: 1, amount: payout.amount, lines_hash: payout.lines_hash.clone() };
        assert!(seen.differences(&payout).is_empty());
        let stale = Seen { version: 2, amount: minor(1), lines_hash: Hash::of(b"other") };
        assert_eq!(stale.differences(&payout).len(), 3);
    }
}
