//! A line: one signed amount of one partner, in exactly one state. Lines are the truth; balances are their fold.
//!
//! Two independent gates lead to payment: review by a person (or a rule), and the hold period. A line is payable when it is
//! past both. Every transition is a method that consumes the line, and refuses what the table of transitions does not have.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attribution::Model;
use crate::conversion::Action;
use crate::ids::{ClickId, ConversionId, LineId, PartnerId, PayoutId, ProgramId, RunId};
use crate::journal::EntryRef;
use crate::money::{Currency, Minor, Money, MoneyError};
use crate::payout::{OpenPayout, PayoutState};
use crate::program::Partner;
use crate::rating::Basis;
use crate::schedule::is_matured;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub id: LineId,
    pub program: ProgramId,
    pub partner: PartnerId,
    pub currency: Currency,
    pub kind: LineKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversion: Option<ConversionId>,
    /// The source's own id of the order, as partners and merchants know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Products or SKUs of the items it was earned on, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<String>,
    /// What it was when written. Refunds do not change it.
    pub amount: Minor,
    /// How much of the amount refunds have taken back, with the amount's sign.
    pub taken_back: Minor,
    #[serde(flatten)]
    pub state: LineState,
    pub occurred_at: Timestamp,
    pub created_at: Timestamp,
    pub due_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<Timestamp>,
    /// When it last became payable again, after it was held or reversed or in a payout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_at: Option<Timestamp>,
    /// Which rule set version rated it, for lines that a rule made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_set: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Counts from 1; which slice of its earning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<u8>,
    /// What the customer did.
    #[serde(default, skip_serializing_if = "Action::is_sale")]
    pub action: Action,
    /// The edit that added to the order what it was earned on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<String>,
    /// The entry of the conversion's stream by which a person attributed it; zero: nobody had to.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attribution: u32,
    /// Overrides the program's, where its rule does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_sales: Option<u32>,
    /// The line it adjusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<LineId>,
    /// True-ups that decisions about it caused: they stand in the streams of those decisions, and not in its conversion's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub true_ups: Vec<LineId>,
    /// People whose hand is in the line, who must not approve its payout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hands: Vec<String>,
    /// Counts changes, from 1.
    pub version: u32,
    /// The latest journal entry about the line.
    pub entry: EntryRef,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// A slice of an earning.
    Commission,
    /// Takes back what was paid, or is being paid.
    Clawback,
    /// What a retroactive tier pays besides, or takes back, when it is reached or left.
    TrueUp,
    /// Written by a person, for no conversion.
    Bonus,
    /// A person's change to a line that is paid or being paid.
    Adjustment,
    /// Gives back what a clawback took.
    Reinstatement,
    /// Tax kept back from a payout. It lives and ends with that payout.
    Withholding,
    /// What a partner owed and no longer does, by the program's policy. It goes with the debts that it settles.
    WriteOff,
}

impl LineKind {
    /// Whether its amount is part of what was earned, before anything was taken back.
    pub const fn is_part_of_gross(self) -> bool {
        matches!(self, Self::Commission | Self::Adjustment)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How the partner was found, most explicit first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Evidence {
    PartnerId,
    Code(String),
    Coupon(String),
    Click(ClickId),
    /// The customer's touches within the window, shared out by the program's model.
    #[serde(rename_all = "camelCase")]
    Touches {
        model: Model,
        window_days: u16,
    },
    /// A renewal: whoever the customer's first attributed sale was due to.
    Customer,
    /// A person said so.
    ByHand,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LineState {
    /// Waits for review; the hold period may or may not have ended.
    Pending,
    /// Reviewed, hold period still running.
    Approved,
    /// Reviewed and matured: a run may claim it.
    Payable,
    /// Claimed by exactly one payout.
    InPayout { payout: PayoutId, page: u32 },
    /// Its payout was paid.
    Paid { payout: PayoutId, page: u32 },
    /// Stopped by a person, a dispute or an anomaly rule; remembers whether it was reviewed.
    Held { reviewed: bool, why: String },
    /// Declined, for a reason the partner can read. What was refunded meanwhile applies when it is reinstated.
    Rejected {
        why: String,
        refunded: Minor,
        /// The whole sale went back meanwhile, which no amount can tell of a line of zero.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        whole: bool,
    },
    /// Fully cancelled by refunds before payment; remembers the state it left.
    Reversed { reviewed: bool, held: Option<String> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    Pending,
    Approved,
    Payable,
    InPayout,
    Paid,
    Held,
    Rejected,
    Reversed,
}

impl StateName {
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Approved,
        Self::Payable,
        Self::InPayout,
        Self::Paid,
        Self::Held,
        Self::Rejected,
        Self::Reversed,
    ];

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

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The states behind a word that affiliate systems commonly filter by.
    pub fn of_status(status: &str) -> Option<&'static [Self]> {
        match status {
            "pending" => Some(&[Self::Pending, Self::Held]),
            "approved" => Some(&[Self::Approved, Self::Payable, Self::InPayout]),
            "paid" => Some(&[Self::Paid]),
            "rejected" => Some(&[Self::Rejected, Self::Reversed]),
            _ => None,
        }
    }
}

impl LineState {
    pub const fn name(&self) -> StateName {
        match self {
            Self::Pending => StateName::Pending,
            Self::Approved => StateName::Approved,
            Self::Payable => StateName::Payable,
            Self::InPayout { .. } => StateName::InPayout,
            Self::Paid { .. } => StateName::Paid,
            Self::Held { .. } => StateName::Held,
            Self::Rejected { .. } => StateName::Rejected,
            Self::Reversed { .. } => StateName::Reversed,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("a commission that is {} cannot be {action}", from.as_str())]
    Illegal { from: StateName, action: &'static str },
    #[error("the commission is in a payout that is past approval")]
    PayoutClosed,
    #[error("it is the tax of its payout, and changes with that alone")]
    OfPayout,
    #[error("the commission is not in this payout")]
    NotInPayout,
    #[error("the hold period ends at {0}")]
    NotMatured(Timestamp),
    #[error("more would be taken back than is left")]
    TooMuch,
    #[error("a {} cannot be adjusted: adjust the commission it belongs to", kind_words(*.0))]
    NotAdjustable(LineKind),
    #[error("an adjusted amount keeps its sign and differs from the present one, {0}")]
    BadAdjustment(Money),
    #[error(transparent)]
    Money(#[from] MoneyError),
}

const fn kind_words(kind: LineKind) -> &'static str {
    match kind {
        LineKind::Commission => "commission",
        LineKind::Clawback => "clawback",
        LineKind::TrueUp => "true-up",
        LineKind::Bonus => "bonus",
        LineKind::Adjustment => "adjustment",
        LineKind::Reinstatement => "reinstatement",
        LineKind::Withholding => "withholding",
        LineKind::WriteOff => "write-off",
    }
}

impl Line {
    /// The journal stream in which its origin stands: its conversion's, or its own.
    pub fn stream(&self) -> &str {
        self.conversion.as_ref().map_or(self.id.as_str(), ConversionId::as_str)
    }

    /// What a person gives or takes for no conversion. Due at once; what is given is looked at by another person first. `origin` is the
    /// id of the act.
    pub fn bonus(partner: &Partner, currency: Currency, amount: Minor, origin: &str, by: &str, now: Timestamp) -> Self {
        let (state, approved_at) =
            if amount.is_negative() { (LineState::Payable, Some(now)) } else { (LineState::Pending, None) };
        Self {
            id: LineId::derive(&partner.id, partner.shards, now, &[origin, "bonus"]),
            program: partner.program.clone(),
            partner: partner.id.clone(),
            currency,
            kind: LineKind::Bonus,
            conversion: None,
            order: None,
            products: Vec::new(),
            amount,
            taken_back: Minor::ZERO,
            state,
            occurred_at: now,
            created_at: now,
            due_at: now,
            approved_at,
            paid_at: None,
            back_at: None,
            rule_set: None,
            basis: None,
            evidence: None,
            slice: None,
            action: Action::Custom,
            edit: None,
            attribution: 0,
            minimum_sales: None,
            of: None,
            true_ups: Vec::new(),
            hands: vec![by.to_owned()],
            version: 1,
            entry: EntryRef::none(),
        }
    }

    /// What a partner owed and no longer does, as a run decided by the program's policy: payable at once, so that the run nets it
    /// with the debts. The same run, planned when it was, writes it once.
    pub fn write_off(
        partner: &Partner,
        currency: Currency,
        amount: Minor,
        (run, planned_at): (&RunId, Timestamp),
        now: Timestamp,
    ) -> Self {
        let key = [run.as_str(), "write_off"];
        Self {
            id: LineId::derive(&partner.id, partner.shards, planned_at, &key),
            kind: LineKind::WriteOff,
            state: LineState::Payable,
            approved_at: Some(now),
            minimum_sales: Some(0),
            hands: Vec::new(),
            ..Self::bonus(partner, currency, amount, "", "", now)
        }
    }

    /// Tax kept back from a payout: a negative amount on a page of its own.
    pub fn withholding(
        payout: &PayoutId,
        page: u32,
        partner: &Partner,
        currency: Currency,
        withheld: Minor,
        now: Timestamp,
    ) -> Self {
        Self {
            id: LineId::derive(&partner.id, partner.shards, now, &[payout.as_str(), "withholding"]),
            kind: LineKind::Withholding,
            state: LineState::InPayout { payout: payout.clone(), page },
            approved_at: None,
            hands: Vec::new(),
            ..Self::bonus(partner, currency, withheld.negated(), "", "", now)
        }
    }

    /// The tax of a payout whose content changed.
    pub fn withhold(mut self, withheld: Minor) -> Result<Self, LineError> {
        match (self.kind, &self.state) {
            (LineKind::Withholding, LineState::InPayout { .. }) => {
                self.amount = withheld.negated();
                Ok(self)
            }
            _ => self.illegal("withheld anew"),
        }
    }

    /// Another line of the same origin, as yet without a history.
    pub(crate) fn fresh(&self, now: Timestamp) -> Self {
        Self {
            taken_back: Minor::ZERO,
            created_at: now,
            paid_at: None,
            back_at: None,
            slice: None,
            of: None,
            true_ups: Vec::new(),
            hands: Vec::new(),
            version: 1,
            entry: EntryRef::none(),
            ..self.clone()
        }
    }

    /// What is left of the amount.
    pub fn net(&self) -> Result<Minor, MoneyError> {
        self.amount.minus(self.taken_back)
    }

    pub fn amount_money(&self) -> Money {
        Money::new(self.amount, self.currency)
    }

    pub fn payout(&self) -> Option<(&PayoutId, u32)> {
        match &self.state {
            LineState::InPayout { payout, page } | LineState::Paid { payout, page } => Some((payout, *page)),
            _ => None,
        }
    }

    /// Whether the partner has too few sales for this line to be paid. What takes back is never held back.
    pub fn lacks_sales(&self, sales: u32, of_program: u32) -> bool {
        !self.amount.is_negative() && self.minimum_sales.unwrap_or(of_program) > sales
    }

    /// A debt, or what writes debts off: a payout takes these first, and whatever the cut-off.
    pub fn settles_debts(&self) -> bool {
        self.amount.is_negative() || self.kind == LineKind::WriteOff
    }

    /// When a payable line was first payable: it took review and the end of the hold period.
    pub fn first_payable(&self) -> Timestamp {
        self.approved_at.map_or(self.due_at, |approved| approved.max(self.due_at))
    }

    /// Since when a payable line has been payable, without a break. When its hold period ended counts, and not when a schedule saw that.
    pub fn payable_since(&self) -> Timestamp {
        self.back_at.map_or(self.first_payable(), |back| back.max(self.first_payable()))
    }

    /// Whether a run that was planned at that moment may claim the payable line: earnings that became payable later wait for the next.
    pub fn is_payable_by(&self, planned: Option<Timestamp>) -> bool {
        self.settles_debts() || planned.is_none_or(|planned| self.payable_since() <= planned)
    }

    /// The reason a person gave for the state it is in.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            LineState::Held { why, .. } | LineState::Rejected { why, .. } => Some(why),
            _ => None,
        }
    }

    fn illegal<T>(&self, action: &'static str) -> Result<T, LineError> {
        Err(LineError::Illegal { from: self.state.name(), action })
    }

    fn into_state(mut self, state: LineState) -> Self {
        self.state = state;
        self
    }

    /// Where a line stands that is neither stopped nor claimed: the two gates, evaluated anew.
    fn at_gates(&self, reviewed: bool, now: Timestamp) -> LineState {
        match (reviewed, is_matured(self.due_at, now)) {
            (false, _) => LineState::Pending,
            (true, false) => LineState::Approved,
            (true, true) => LineState::Payable,
        }
    }

    /// Past what kept it from the gates.
    fn back_at_gates(mut self, reviewed: bool, now: Timestamp) -> Self {
        let state = self.at_gates(reviewed, now);
        if state == LineState::Payable {
            self.back_at = Some(now);
        }
        self.into_state(state)
    }

    /// Whether the line passed review, where its state lets that be asked.
    const fn reviewed(&self) -> bool {
        matches!(
            self.state,
            LineState::Approved
                | LineState::Payable
                | LineState::InPayout { .. }
                | LineState::Paid { .. }
                | LineState::Held { reviewed: true, .. }
                | LineState::Reversed { reviewed: true, .. }
        )
    }

    /// While a line is in a payout it may be stopped or shrunk only as long as that payout is open. What tax took goes with its payout alone.
    fn unless_closed(&self, open: Option<&OpenPayout>) -> Result<(), LineError> {
        if self.kind == LineKind::Withholding {
            return Err(LineError::OfPayout);
        }
        match (&self.state, open) {
            (LineState::InPayout { payout, .. }, Some(open)) if open.id() == payout => Ok(()),
            (LineState::InPayout { .. }, _) => Err(LineError::PayoutClosed),
            _ => Ok(()),
        }
    }

    pub fn approve(mut self, now: Timestamp) -> Result<Self, LineError> {
        if self.state != LineState::Pending {
            return self.illegal("approved");
        }
        self.approved_at = Some(now);
        let state = self.at_gates(true, now);
        Ok(self.into_state(state))
    }

    pub fn mature(self, now: Timestamp) -> Result<Self, LineError> {
        match self.state {
            LineState::Approved if is_matured(self.due_at, now) => Ok(self.into_state(LineState::Payable)),
            LineState::Approved => Err(LineError::NotMatured(self.due_at)),
            _ => self.illegal("matured"),
        }
    }

    /// A line in an open payout leaves it first; the caller retallies that payout.
    pub fn hold(self, why: &str, open: Option<&OpenPayout>) -> Result<Self, LineError> {
        self.unless_closed(open)?;
        let reviewed = self.reviewed();
        match self.state {
            LineState::Pending | LineState::Approved | LineState::Payable | LineState::InPayout { .. } => {
                Ok(self.into_state(LineState::Held { reviewed, why: why.to_owned() }))
            }
            _ => self.illegal("held"),
        }
    }

    pub fn release(mut self, by: &str, now: Timestamp) -> Result<Self, LineError> {
        let LineState::Held { reviewed, .. } = self.state else { return self.illegal("released") };
        self.add_hand(by);
        Ok(self.back_at_gates(reviewed, now))
    }

    pub fn reject(self, why: &str, open: Option<&OpenPayout>) -> Result<Self, LineError> {
        self.unless_closed(open)?;
        match self.state {
            LineState::Pending
            | LineState::Approved
            | LineState::Payable
            | LineState::Held { .. }
            | LineState::InPayout { .. } => {
                Ok(self.into_state(LineState::Rejected { why: why.to_owned(), refunded: Minor::ZERO, whole: false }))
            }
            _ => self.illegal("rejected"),
        }
    }

    /// Back into review. The hold clock is not restarted, and refunds recorded meanwhile apply.
    pub fn reinstate(mut self, by: &str) -> Result<Self, LineError> {
        let LineState::Rejected { refunded, whole, .. } = self.state else { return self.illegal("reinstated") };
        self.add_hand(by);
        self.approved_at = None;
        self.taken_back = self.taken_back.plus(refunded)?;
        let gone = whole || (!self.amount.is_zero() && self.net()?.is_zero());
        let state = if gone { LineState::Reversed { reviewed: false, held: None } } else { LineState::Pending };
        Ok(self.into_state(state))
    }

    fn add_hand(&mut self, by: &str) {
        if !self.hands.iter().any(|hand| hand == by) {
            self.hands.push(by.to_owned());
        }
    }

    /// A refund takes back part or all of what is left. Taking nothing is not a change and is refused.
    pub fn take_back(mut self, part: Minor, open: Option<&OpenPayout>) -> Result<Self, LineError> {
        self.unless_closed(open)?;
        let reviewed = self.reviewed();
        if part.is_zero() || part.is_negative() || part > self.refundable()? {
            return Err(LineError::TooMuch);
        }
        if let LineState::Rejected { refunded, .. } = &mut self.state {
            *refunded = refunded.plus(part)?;
            return Ok(self);
        }
        self.taken_back = self.taken_back.plus(part)?;
        let gone = self.net()?.is_zero();
        match &self.state {
            LineState::Paid { .. } | LineState::Reversed { .. } => self.illegal("reduced"),
            LineState::Held { why, .. } if gone => {
                let held = Some(why.clone());
                Ok(self.into_state(LineState::Reversed { reviewed, held }))
            }
            _ if gone => Ok(self.into_state(LineState::Reversed { reviewed, held: None })),
            _ => Ok(self),
        }
    }

    /// Its sale was refunded whole. A line of zero has nothing to take back, but it must not stand as if the sale did. A rejected
    /// one remembers it for when it is reinstated.
    pub fn reverse_zero(self, open: Option<&OpenPayout>) -> Result<Self, LineError> {
        self.unless_closed(open)?;
        let reviewed = self.reviewed();
        if !self.amount.is_zero() {
            return Err(LineError::TooMuch);
        }
        match &self.state {
            LineState::Held { why, .. } => {
                let held = Some(why.clone());
                Ok(self.into_state(LineState::Reversed { reviewed, held }))
            }
            LineState::Pending | LineState::Approved | LineState::Payable | LineState::InPayout { .. } => {
                Ok(self.into_state(LineState::Reversed { reviewed, held: None }))
            }
            LineState::Rejected { whole: false, why, refunded } => {
                let state = LineState::Rejected { why: why.clone(), refunded: *refunded, whole: true };
                Ok(self.into_state(state))
            }
            LineState::Paid { .. } | LineState::Rejected { .. } | LineState::Reversed { .. } => {
                self.illegal("reversed")
            }
        }
    }

    /// How much a refund could still take back from this line itself.
    pub fn refundable(&self) -> Result<Minor, MoneyError> {
        match &self.state {
            LineState::Rejected { refunded, .. } => self.net()?.minus(*refunded),
            _ => self.net(),
        }
    }

    /// A refund was withdrawn or a dispute won: the state it left, maturity evaluated anew. A rejected line stays so.
    pub fn give_back(mut self, part: Minor, open: Option<&OpenPayout>, now: Timestamp) -> Result<Self, LineError> {
        self.unless_closed(open)?;
        if part.is_zero() || part.is_negative() || part > self.returnable()? {
            return Err(LineError::TooMuch);
        }
        // What is only recorded is forgotten before what was taken earlier comes back.
        let forgotten = match &mut self.state {
            LineState::Rejected { refunded, .. } => {
                let forgotten = part.min(*refunded);
                *refunded = refunded.minus(forgotten)?;
                forgotten
            }
            _ => Minor::ZERO,
        };
        self.taken_back = self.taken_back.minus(part.minus(forgotten)?)?;
        self.back_from_reversed(now)
    }

    /// How much of what was taken back could return to this line itself.
    pub fn returnable(&self) -> Result<Minor, MoneyError> {
        match &self.state {
            LineState::Rejected { refunded, .. } => self.taken_back.plus(*refunded),
            LineState::Paid { .. } => Ok(Minor::ZERO),
            _ => Ok(self.taken_back),
        }
    }

    /// Its sale is no longer refunded whole: a line of zero comes back.
    pub fn restore_zero(mut self, now: Timestamp) -> Result<Self, LineError> {
        if !self.amount.is_zero() {
            return Err(LineError::TooMuch);
        }
        match &mut self.state {
            LineState::Rejected { whole, .. } if *whole => {
                *whole = false;
                Ok(self)
            }
            LineState::Reversed { .. } => self.back_from_reversed(now),
            _ => self.illegal("restored"),
        }
    }

    fn back_from_reversed(self, now: Timestamp) -> Result<Self, LineError> {
        match self.state.clone() {
            LineState::Reversed { reviewed, held: Some(why) } => Ok(self.into_state(LineState::Held { reviewed, why })),
            LineState::Reversed { reviewed, held: None } => Ok(self.back_at_gates(reviewed, now)),
            LineState::Paid { .. } => self.illegal("restored"),
            _ => Ok(self),
        }
    }

    /// A person sets another amount. Up, it is looked at again, also where less is owed than before; down, it stays where it is. What refunds took is not recomputed here:
    /// [`crate::reversal`] brings it to the share of the new amount.
    pub fn adjust(mut self, gross: Minor, by: &str, open: Option<&OpenPayout>) -> Result<Self, LineError> {
        self.check_adjustment(gross, self.amount)?;
        self.unless_closed(open)?;
        if matches!(self.state, LineState::Paid { .. } | LineState::Rejected { .. } | LineState::Reversed { .. }) {
            return self.illegal("adjusted");
        }
        let up = gross > self.amount;
        self.amount = gross;
        self.taken_back = self.taken_back.clamp(gross.min(Minor::ZERO), gross.max(Minor::ZERO));
        self.add_hand(by);
        if !up {
            return Ok(self);
        }
        self.approved_at = None;
        let state = match &self.state {
            LineState::Held { why, .. } => LineState::Held { reviewed: false, why: why.clone() },
            _ => LineState::Pending,
        };
        Ok(self.into_state(state))
    }

    /// What a person changes about a line that is paid or being paid: another line with the difference to what stands at present,
    /// which is the line and its earlier adjustments.
    pub fn adjustment(
        &self,
        gross: Minor,
        present: Minor,
        by: &str,
        number: usize,
        now: Timestamp,
    ) -> Result<Self, LineError> {
        self.check_adjustment(gross, present)?;
        if !matches!(self.state, LineState::Paid { .. } | LineState::InPayout { .. }) {
            return self.illegal("adjusted by another line");
        }
        let amount = gross.minus(present)?;
        let (state, approved_at) =
            if amount.is_negative() { (LineState::Payable, Some(now)) } else { (LineState::Pending, None) };
        let key = [self.stream(), self.id.as_str(), "adjustment", &number.to_string()];
        Ok(Self {
            id: LineId::derive_beside(&self.id, now, &key),
            kind: LineKind::Adjustment,
            amount,
            state,
            occurred_at: now,
            due_at: now,
            approved_at,
            of: Some(self.id.clone()),
            hands: vec![by.to_owned()],
            ..self.fresh(now)
        })
    }

    /// Only what is earned or given has an amount that a person may set.
    pub const fn unless_fixed(&self) -> Result<(), LineError> {
        match self.kind {
            LineKind::Commission | LineKind::Bonus => Ok(()),
            fixed => Err(LineError::NotAdjustable(fixed)),
        }
    }

    fn check_adjustment(&self, gross: Minor, present: Minor) -> Result<(), LineError> {
        self.unless_fixed()?;
        let flips = gross.units().signum() * self.amount.units().signum() < 0
            || (self.kind == LineKind::Commission && gross.is_negative());
        if flips || gross == present {
            return Err(LineError::BadAdjustment(Money::new(present, self.currency)));
        }
        Ok(())
    }

    pub fn claim(self, payout: &PayoutId, page: u32) -> Result<Self, LineError> {
        match self.state {
            LineState::Payable => Ok(self.into_state(LineState::InPayout { payout: payout.clone(), page })),
            _ => self.illegal("claimed"),
        }
    }

    /// A person takes it out of a payout that is still open; it is payable again.
    pub fn exclude(self, payout: &PayoutId, open: Option<&OpenPayout>, now: Timestamp) -> Result<Self, LineError> {
        match &self.state {
            LineState::InPayout { payout: of, .. } | LineState::Paid { payout: of, .. } if of == payout => {}
            _ => return Err(LineError::NotInPayout),
        }
        self.unless_closed(open)?;
        self.free(payout, now)
    }

    /// It goes where its payout went: `at` is when that was paid, if it was, else now.
    pub fn follow(self, payout: &PayoutId, to: PayoutState, at: Timestamp) -> Result<Self, LineError> {
        match to {
            PayoutState::Paid => self.pay(payout, at),
            PayoutState::Cancelled | PayoutState::Void => self.free(payout, at),
            _ => self.unpay(payout),
        }
    }

    /// Its payout was cancelled or void, or the line was excluded from it. Then no tax is kept back either.
    pub fn free(mut self, payout: &PayoutId, now: Timestamp) -> Result<Self, LineError> {
        match &self.state {
            LineState::InPayout { payout: of, .. } if of == payout && self.kind == LineKind::Withholding => {
                self.taken_back = self.amount;
                Ok(self.into_state(LineState::Reversed { reviewed: true, held: None }))
            }
            LineState::InPayout { payout: of, .. } if of == payout => {
                self.back_at = Some(now);
                Ok(self.into_state(LineState::Payable))
            }
            _ => self.illegal("freed"),
        }
    }

    pub fn pay(mut self, payout: &PayoutId, paid_at: Timestamp) -> Result<Self, LineError> {
        match self.state.clone() {
            LineState::InPayout { payout: of, page } if of == *payout => {
                self.paid_at = Some(paid_at);
                Ok(self.into_state(LineState::Paid { payout: of, page }))
            }
            _ => self.illegal("paid"),
        }
    }

    /// Its payout's payment came back.
    pub fn unpay(mut self, payout: &PayoutId) -> Result<Self, LineError> {
        match self.state.clone() {
            LineState::Paid { payout: of, page } if of == *payout => {
                self.paid_at = None;
                Ok(self.into_state(LineState::InPayout { payout: of, page }))
            }
            _ => self.illegal("unpaid"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::conversion::tests::minor;
    use crate::ids::RunId;
    use crate::payout::Payout;

    pub(crate) fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    pub(crate) fn line(amount: i64, state: LineState, due_at: Timestamp) -> Line {
        let partner = PartnerId::from_uuid(2);
        Line {
            id: LineId::derive(&partner, 1, now(), &["cnv", "rule", &amount.to_string()]),
            program: ProgramId::from_uuid(1),
            partner,
            currency: "USD".parse().unwrap(),
            kind: LineKind::Commission,
            conversion: None,
            order: None,
            products: vec![],
            amount: minor(amount),
            taken_back: Minor::ZERO,
            state,
            occurred_at: now(),
            created_at: now(),
            due_at,
            approved_at: None,
            paid_at: None,
            back_at: None,
            rule_set: None,
            basis: None,
            evidence: None,
            slice: None,
            action: Action::Sale,
            edit: None,
            attribution: 0,
            minimum_sales: None,
            of: None,
            true_ups: vec![],
            hands: vec![],
            version: 1,
            entry: EntryRef::none(),
        }
    }

    #[test]
    fn a_line_of_the_same_origin_has_no_history() {
        let due = line(100, LineState::Payable, now());
        let old = Line { back_at: Some(now()), true_ups: vec![due.id.clone()], version: 7, ..due };
        let fresh = old.fresh(now());
        assert_eq!((fresh.back_at, fresh.true_ups.as_slice(), fresh.version), (None, &[][..], 1));
    }

    fn payout_id() -> PayoutId {
        let run = RunId::derive(&ProgramId::from_uuid(1), "monthly", "2026-06-01");
        PayoutId::derive(&run, &PartnerId::from_uuid(2), now())
    }

    fn states() -> Vec<LineState> {
        let payout = payout_id();
        vec![
            LineState::Pending,
            LineState::Approved,
            LineState::Payable,
            LineState::InPayout { payout: payout.clone(), page: 0 },
            LineState::Paid { payout, page: 0 },
            LineState::Held { reviewed: false, why: "look".into() },
            LineState::Held { reviewed: true, why: "look".into() },
            LineState::Rejected { why: "no".into(), refunded: Minor::ZERO, whole: false },
            LineState::Reversed { reviewed: true, held: None },
            LineState::Reversed { reviewed: false, held: Some("look".into()) },
        ]
    }

    fn open(state: PayoutState) -> Option<OpenPayout> {
        let payout = Payout { id: payout_id(), state, ..crate::payout::tests::payout(1_000) };
        payout.open()
    }

    /// One row per transition of the table; every pair not listed is refused and leaves nothing behind.
    #[test]
    fn only_the_transitions_of_the_table_happen() {
        use StateName::{Approved, Held, InPayout, Paid, Payable, Pending, Rejected, Reversed};
        let before = now() - jiff::SignedDuration::from_hours(1);
        let after = now() + jiff::SignedDuration::from_hours(1);
        let open = open(PayoutState::Pending);
        type Step<'a> = (&'static str, Box<dyn Fn(Line) -> Result<Line, LineError> + 'a>, Vec<(StateName, StateName)>);
        let steps = |matured: bool| -> Vec<Step<'_>> {
            let gate = if matured { Payable } else { Approved };
            let open = open.clone();
            let (open2, open3) = (open.clone(), open.clone());
            vec![
                ("approve", Box::new(|l: Line| l.approve(now())), vec![(Pending, gate)]),
                (
                    "mature",
                    Box::new(|l: Line| l.mature(now())),
                    if matured { vec![(Approved, Payable)] } else { vec![] },
                ),
                (
                    "hold",
                    Box::new(move |l: Line| l.hold("why", open.as_ref())),
                    vec![(Pending, Held), (Approved, Held), (Payable, Held), (InPayout, Held)],
                ),
                (
                    "reject",
                    Box::new(move |l: Line| l.reject("why", open2.as_ref())),
                    vec![
                        (Pending, Rejected),
                        (Approved, Rejected),
                        (Payable, Rejected),
                        (Held, Rejected),
                        (InPayout, Rejected),
                    ],
                ),
                ("reinstate", Box::new(|l: Line| l.reinstate("ann")), vec![(Rejected, Pending)]),
                (
                    "reverse",
                    Box::new(move |l: Line| {
                        let all = l.net().unwrap();
                        l.take_back(all, open3.as_ref())
                    }),
                    vec![
                        (Pending, Reversed),
                        (Approved, Reversed),
                        (Payable, Reversed),
                        (Held, Reversed),
                        (InPayout, Reversed),
                        (Rejected, Rejected),
                    ],
                ),
                ("claim", Box::new(|l: Line| l.claim(&payout_id(), 0)), vec![(Payable, InPayout)]),
                ("free", Box::new(|l: Line| l.free(&payout_id(), now())), vec![(InPayout, Payable)]),
                ("pay", Box::new(|l: Line| l.pay(&payout_id(), now())), vec![(InPayout, Paid)]),
                ("unpay", Box::new(|l: Line| l.unpay(&payout_id())), vec![(Paid, InPayout)]),
            ]
        };
        for matured in [true, false] {
            for state in states() {
                for (name, step, legal) in steps(matured) {
                    let mut line = line(1_000, state.clone(), if matured { before } else { after });
                    if matches!(state, LineState::Reversed { .. }) {
                        line.taken_back = line.amount;
                    }
                    let expect = legal.iter().find(|(from, _)| *from == state.name()).map(|(_, to)| *to);
                    let got = step(line).ok().map(|line| line.state.name());
                    assert_eq!(got, expect, "{name} from {state:?}, matured: {matured}");
                }
            }
        }
    }

    #[test]
    fn release_and_restore_return_to_the_state_they_left() {
        let before = now() - jiff::SignedDuration::from_hours(1);
        let after = now() + jiff::SignedDuration::from_hours(1);
        for (reviewed, due, expect) in [
            (false, before, StateName::Pending),
            (true, after, StateName::Approved),
            (true, before, StateName::Payable),
        ] {
            let held = line(1_000, LineState::Held { reviewed, why: "look".into() }, due);
            assert_eq!(held.clone().release("ann", now()).unwrap().state.name(), expect);
            assert_eq!(held.clone().release("ann", now()).unwrap().hands, ["ann"]);
            let all = held.amount;
            let restored = held.take_back(all, None).unwrap().give_back(minor(400), None, now()).unwrap();
            assert_eq!((restored.state.name(), restored.net().unwrap()), (StateName::Held, minor(400)));
            let mut reversed = line(1_000, LineState::Reversed { reviewed, held: None }, due);
            reversed.taken_back = reversed.amount;
            assert_eq!(reversed.give_back(all, None, now()).unwrap().state.name(), expect);
        }
    }

    #[test]
    fn past_approval_a_payout_keeps_its_lines() {
        let claimed = line(1_000, LineState::InPayout { payout: payout_id(), page: 0 }, now());
        for state in [PayoutState::Submitting, PayoutState::Submitted, PayoutState::Paid, PayoutState::Cancelled] {
            let open = open(state);
            assert_eq!(claimed.clone().hold("why", open.as_ref()), Err(LineError::PayoutClosed), "{state:?}");
            assert_eq!(claimed.clone().reject("why", open.as_ref()), Err(LineError::PayoutClosed), "{state:?}");
            assert_eq!(claimed.clone().take_back(minor(1), open.as_ref()), Err(LineError::PayoutClosed), "{state:?}");
        }
        for state in [PayoutState::Drafting, PayoutState::Pending, PayoutState::Approved] {
            assert!(claimed.clone().take_back(minor(1), open(state).as_ref()).is_ok(), "{state:?}");
        }
    }

    #[test]
    fn a_refund_of_a_rejected_line_applies_when_it_is_reinstated() {
        let rejected =
            line(1_000, LineState::Rejected { why: "no".into(), refunded: Minor::ZERO, whole: false }, now());
        let part = rejected.clone().take_back(minor(400), None).unwrap();
        assert_eq!(part.net().unwrap(), minor(1_000), "it is only recorded");
        let back = part.clone().reinstate("ann").unwrap();
        assert_eq!((back.state.name(), back.net().unwrap()), (StateName::Pending, minor(600)));
        let gone = part.take_back(minor(600), None).unwrap().reinstate("ann").unwrap();
        assert_eq!(gone.state.name(), StateName::Reversed);
    }

    #[test]
    fn a_rejected_line_of_zero_remembers_that_its_sale_went_back() {
        let rejected = line(0, LineState::Rejected { why: "no".into(), refunded: Minor::ZERO, whole: false }, now());
        assert_eq!(rejected.clone().reinstate("ann").unwrap().state.name(), StateName::Pending);
        let gone = rejected.reverse_zero(None).unwrap();
        assert_eq!(gone.state.name(), StateName::Rejected, "it is only recorded");
        assert!(gone.clone().reverse_zero(None).is_err(), "and only once");
        assert_eq!(gone.reinstate("ann").unwrap().state.name(), StateName::Reversed);
    }

    #[test]
    fn a_rejected_line_forgets_what_was_recorded_before_it_takes_back_what_was_taken() {
        let before = line(1_000, LineState::Pending, now()).take_back(minor(400), None).unwrap();
        let rejected = before.reject("no", None).unwrap().take_back(minor(300), None).unwrap();
        assert_eq!((rejected.refundable().unwrap(), rejected.returnable().unwrap()), (minor(300), minor(700)));
        let back = rejected.clone().give_back(minor(200), None, now()).unwrap();
        assert_eq!((back.net().unwrap(), back.refundable().unwrap()), (minor(600), minor(500)));
        let back = back.give_back(minor(400), None, now()).unwrap();
        assert_eq!((back.state.name(), back.net().unwrap()), (StateName::Rejected, minor(900)));
        assert_eq!(back.reinstate("ann").unwrap().net().unwrap(), minor(900));
        for bad in [0, -1, 701] {
            assert_eq!(rejected.clone().give_back(minor(bad), None, now()), Err(LineError::TooMuch), "{bad}");
        }
    }

    #[test]
    fn what_is_paid_gives_nothing_back_and_takes_nothing_more() {
        let paid = line(1_000, LineState::Paid { payout: payout_id(), page: 0 }, now());
        let part = Line { taken_back: minor(300), ..paid };
        assert_eq!(part.returnable().unwrap(), Minor::ZERO);
        assert_eq!(part.clone().give_back(minor(1), None, now()), Err(LineError::TooMuch));
        assert!(part.take_back(minor(1), None).is_err());
    }

    #[test]
    fn only_lines_of_zero_come_and_go_without_an_amount() {
        for state in states() {
            let one = line(1, state.clone(), now());
            assert!(one.clone().restore_zero(now()).is_err() && one.reverse_zero(None).is_err(), "{state:?}");
        }
        let reversed = line(0, LineState::Reversed { reviewed: true, held: None }, now());
        assert_eq!(reversed.restore_zero(now()).unwrap().state.name(), StateName::Payable);
        let rejected = |whole| LineState::Rejected { why: "no".into(), refunded: Minor::ZERO, whole };
        assert_eq!(line(0, rejected(true), now()).restore_zero(now()).unwrap().state, rejected(false));
        assert!(line(0, rejected(false), now()).restore_zero(now()).is_err());
        assert!(line(0, LineState::Pending, now()).restore_zero(now()).is_err());
    }

    #[test]
    fn an_amount_set_by_hand_goes_up_through_review_and_down_at_once() {
        let hand = |amount: i64, state: LineState| line(1_000, state, now()).adjust(minor(amount), "ann", None);
        let up = hand(1_001, LineState::Approved).unwrap();
        assert_eq!(
            (up.state, up.amount, up.hands, up.approved_at),
            (LineState::Pending, minor(1_001), vec!["ann".to_owned()], None)
        );
        let down = Line { approved_at: Some(now()), ..line(1_000, LineState::Approved, now()) };
        let down = down.adjust(minor(999), "ann", None).unwrap();
        assert_eq!((down.state.name(), down.amount, down.approved_at), (StateName::Approved, minor(999), Some(now())));
        let held = hand(2_000, LineState::Held { reviewed: true, why: "look".into() }).unwrap();
        assert_eq!(held.state, LineState::Held { reviewed: false, why: "look".into() });
        let debt = |amount: i64| {
            let debt = Line { kind: LineKind::Bonus, ..line(-1_000, LineState::Payable, now()) };
            debt.adjust(minor(amount), "ann", None).unwrap().state.name()
        };
        assert_eq!(
            (debt(-1_500), debt(-500)),
            (StateName::Payable, StateName::Pending),
            "less of a debt gives, and is looked at; more of it is payable at once, as what is written anew"
        );
        for state in [
            LineState::Paid { payout: payout_id(), page: 0 },
            LineState::Rejected { why: "no".into(), refunded: Minor::ZERO, whole: false },
            LineState::Reversed { reviewed: true, held: None },
        ] {
            assert!(matches!(hand(2_000, state), Err(LineError::Illegal { .. })));
        }
    }

    #[test]
    fn what_refunds_took_never_exceeds_the_amount_set_by_hand() {
        let part = line(1_000, LineState::Approved, now()).take_back(minor(400), None).unwrap();
        let taken = |amount: i64| part.clone().adjust(minor(amount), "ann", None).unwrap().taken_back.units();
        assert_eq!([500, 400, 399, 0].map(taken), [400, 400, 399, 0]);
    }

    #[test]
    fn an_adjusted_amount_keeps_its_sign_and_differs() {
        let set = |of: i64, kind: LineKind, to: i64| {
            Line { kind, ..line(of, LineState::Pending, now()) }.adjust(minor(to), "ann", None).map(|_| ())
        };
        let bad = |of: i64| Err(LineError::BadAdjustment(Money::new(minor(of), "USD".parse().unwrap())));
        use LineKind::{Bonus, Clawback, Commission, TrueUp};
        for (of, kind, to, expect) in [
            (1_000, Commission, 0, Ok(())),
            (1_000, Commission, -1, bad(1_000)),
            (1_000, Commission, 1_000, bad(1_000)),
            (0, Commission, -1, bad(0)),
            (0, Commission, 1, Ok(())),
            (1_000, Bonus, -1, bad(1_000)),
            (-1_000, Bonus, 1, bad(-1_000)),
            (-1_000, Bonus, -2, Ok(())),
            (0, Bonus, -1, Ok(())),
            (1_000, Clawback, 1, Err(LineError::NotAdjustable(Clawback))),
            (1_000, TrueUp, 1, Err(LineError::NotAdjustable(TrueUp))),
        ] {
            assert_eq!(set(of, kind, to), expect, "{kind:?} of {of} to {to}");
        }
        let words = LineError::NotAdjustable(TrueUp).to_string();
        assert_eq!(words, "a true-up cannot be adjusted: adjust the commission it belongs to");
    }

    #[test]
    fn of_what_is_paid_only_the_difference_is_written_and_that_is_a_line_of_its_own() {
        let paid_line = Line {
            slice: Some(1),
            paid_at: Some(now()),
            version: 7,
            taken_back: minor(3),
            occurred_at: now() - jiff::SignedDuration::from_hours(99),
            created_at: now() - jiff::SignedDuration::from_hours(98),
            ..line(1_000, LineState::Paid { payout: payout_id(), page: 0 }, now() - jiff::SignedDuration::from_hours(9))
        };
        let written =
            |gross: i64, number| paid_line.adjustment(minor(gross), minor(1_200), "ann", number, now()).unwrap();
        let (up, down) = (written(1_500, 1), written(900, 2));
        assert_eq!((up.amount, &up.state, up.approved_at), (minor(300), &LineState::Pending, None));
        assert_eq!((down.amount, &down.state, down.approved_at), (minor(-300), &LineState::Payable, Some(now())));
        for line in [&up, &down] {
            assert_eq!(
                (line.kind, line.of.as_ref(), line.slice, line.paid_at),
                (LineKind::Adjustment, Some(&paid_line.id), None, None)
            );
            assert_eq!((line.due_at, line.occurred_at, line.created_at), (now(), now(), now()));
            assert_eq!(
                (&line.hands, line.version, line.taken_back, &line.entry),
                (&vec!["ann".to_owned()], 1, Minor::ZERO, &EntryRef::none())
            );
        }
        assert!(up.id != down.id && up.id != paid_line.id);
        assert!(matches!(
            line(1_000, LineState::Pending, now()).adjustment(minor(5), minor(1_000), "ann", 1, now()),
            Err(LineError::Illegal { .. })
        ));
    }

    #[test]
    fn a_hand_is_remembered_once() {
        let held = |hands: &[&str]| Line {
            hands: hands.iter().map(|hand| (*hand).to_owned()).collect(),
            ..line(1_000, LineState::Held { reviewed: true, why: "look".into() }, now())
        };
        assert_eq!(held(&["ann"]).release("ann", now()).unwrap().hands, ["ann"]);
        assert_eq!(held(&["ann"]).release("ben", now()).unwrap().hands, ["ann", "ben"]);
    }

    #[test]
    fn a_state_has_a_name_a_reason_and_a_payout() {
        let words = ["pending", "approved", "payable", "in_payout", "paid", "held", "rejected", "reversed"];
        assert_eq!(StateName::ALL.map(StateName::as_str), words);
        for (name, state) in words.iter().zip(StateName::ALL) {
            assert_eq!(StateName::parse(name), Some(state));
        }
        assert_eq!(StateName::parse("lost"), None);
        use StateName::{Approved, Held, InPayout, Paid, Payable, Pending, Rejected, Reversed};
        for (status, expect) in [
            ("pending", Some(&[Pending, Held] as &[_])),
            ("approved", Some(&[Approved, Payable, InPayout])),
            ("paid", Some(&[Paid])),
            ("rejected", Some(&[Rejected, Reversed])),
            ("payable", None),
        ] {
            assert_eq!(StateName::of_status(status), expect, "{status}");
        }
        for state in states() {
            let line = line(1_000, state.clone(), now());
            let (reason, payout) = match state.name() {
                Held => (Some("look"), None),
                Rejected => (Some("no"), None),
                InPayout | Paid => (None, Some((payout_id(), 0))),
                _ => (None, None),
            };
            assert_eq!(
                (line.reason(), line.payout().map(|(of, page)| (of.clone(), page))),
                (reason, payout),
                "{state:?}"
            );
            assert_eq!(line.stream(), line.id.as_str(), "of no conversion");
        }
    }

    #[test]
    fn a_line_that_is_stopped_remembers_whether_it_was_reviewed() {
        let open = open(PayoutState::Pending);
        for (state, expect) in [
            (LineState::Pending, false),
            (LineState::Approved, true),
            (LineState::Payable, true),
            (LineState::InPayout { payout: payout_id(), page: 0 }, true),
        ] {
            let held = line(1_000, state.clone(), now()).hold("why", open.as_ref()).unwrap();
            assert_eq!(held.state, LineState::Held { reviewed: expect, why: "why".into() }, "{state:?}");
            let gone = line(1_000, state, now()).take_back(minor(1_000), open.as_ref()).unwrap();
            assert_eq!(gone.state, LineState::Reversed { reviewed: expect, held: None });
        }
        let early = line(1_000, LineState::Approved, now() + jiff::SignedDuration::from_secs(1));
        assert_eq!(early.clone().mature(now()), Err(LineError::NotMatured(early.due_at)));
    }

    #[test]
    fn a_line_obeys_its_own_payout_only() {
        let run = RunId::derive(&ProgramId::from_uuid(1), "monthly", "2026-07-01");
        let other = PayoutId::derive(&run, &PartnerId::from_uuid(2), now());
        let inside = line(1_000, LineState::InPayout { payout: payout_id(), page: 0 }, now());
        let paid = line(1_000, LineState::Paid { payout: payout_id(), page: 0 }, now());
        assert!(inside.clone().free(&other, now()).is_err() && inside.clone().pay(&other, now()).is_err());
        assert!(paid.unpay(&other).is_err());
        let open = Payout { id: other, ..crate::payout::tests::payout(1_000) }.open();
        assert_eq!(inside.hold("why", open.as_ref()), Err(LineError::PayoutClosed));
    }

    #[test]
    fn a_line_goes_where_its_payout_goes() {
        let at = |state| line(1_000, state, now());
        let (inside, paid) = (
            at(LineState::InPayout { payout: payout_id(), page: 4 }),
            at(LineState::Paid { payout: payout_id(), page: 4 }),
        );
        let later = now() + jiff::SignedDuration::from_hours(1);
        let to = |line: &Line, state| line.clone().follow(&payout_id(), state, later);
        assert_eq!(to(&inside, PayoutState::Paid).unwrap(), Line { paid_at: Some(later), ..paid.clone() });
        for ended in [PayoutState::Cancelled, PayoutState::Void] {
            let freed = to(&inside, ended).unwrap();
            assert_eq!((freed.state.clone(), freed.payable_since()), (LineState::Payable, later), "{ended:?}");
            assert_eq!(freed.first_payable(), now());
        }
        let was_paid = Line { paid_at: Some(now()), ..paid };
        for back in [PayoutState::Returned, PayoutState::Submitted] {
            assert_eq!(to(&was_paid, back).unwrap(), inside, "{back:?}");
        }
    }

    #[test]
    fn withheld_tax_lives_and_ends_with_its_payout() {
        let payout = crate::payout::tests::payout(1_000);
        let partner = crate::rating::tests::partner();
        let tax = Line::withholding(&payout.id, payout.pages, &partner, payout.currency, minor(240), now());
        assert_eq!(
            (tax.kind, tax.amount, tax.payout()),
            (LineKind::Withholding, minor(-240), Some((&payout.id, payout.pages)))
        );
        assert!(tax.hands.is_empty() && tax.approved_at.is_none());
        let key = [payout.id.as_str(), "withholding"];
        assert_eq!(tax.id, LineId::derive(&partner.id, partner.shards, now(), &key), "for ever");
        assert_eq!(tax.clone().withhold(minor(300)).unwrap().amount, minor(-300));
        assert_eq!(tax.clone().hold("why", None), Err(LineError::OfPayout));
        let freed = tax.free(&payout.id, now()).unwrap();
        assert_eq!((freed.state.name(), freed.net().unwrap()), (StateName::Reversed, Minor::ZERO));
        assert!(line(1_000, LineState::InPayout { payout: payout.id, page: 0 }, now()).withhold(minor(1)).is_err());
    }

    #[test]
    fn a_debt_is_written_off_at_once_by_nobodys_hand_and_once_a_run() {
        let partner = crate::rating::tests::partner();
        let run = |day: &str| RunId::derive(&ProgramId::from_uuid(1), "monthly", day);
        let later = now() + jiff::SignedDuration::from_hours(1);
        let of = |day: &str, at| Line::write_off(&partner, "USD".parse().unwrap(), minor(700), (&run(day), now()), at);
        let written = of("2026-06-01", later);
        assert_eq!(
            (written.kind, written.amount, &written.state),
            (LineKind::WriteOff, minor(700), &LineState::Payable)
        );
        assert_eq!((written.approved_at, written.due_at, written.minimum_sales), (Some(later), later, Some(0)));
        assert!(written.hands.is_empty() && !written.lacks_sales(0, 9));
        assert_eq!(written.id, of("2026-06-01", now()).id, "the run that is tried again");
        assert_ne!(written.id, of("2026-07-01", later).id);
    }

    #[test]
    fn what_is_written_beside_a_line_has_no_history() {
        let later = now() + jiff::SignedDuration::from_hours(1);
        let plain = line(1_000, LineState::Payable, now());
        let old = Line {
            taken_back: minor(1),
            paid_at: Some(now()),
            slice: Some(2),
            of: Some(plain.id.clone()),
            hands: vec!["ann".into()],
            version: 7,
            entry: EntryRef { stream: "s".into(), position: 3, hash: "h".into() },
            ..plain.clone()
        };
        assert_eq!(old.fresh(later), Line { created_at: later, ..plain });
    }

    #[test]
    fn only_an_attribution_by_hand_is_kept_with_a_line() {
        let kept = |attribution| {
            let line = Line { attribution, ..line(1_000, LineState::Pending, now()) };
            let kept = serde_json::json!(line);
            assert_eq!(serde_json::from_value::<Line>(kept.clone()).unwrap(), line);
            kept.get("attribution").cloned()
        };
        assert_eq!((kept(0), kept(3)), (None, Some(3.into())));
    }

    #[test]
    fn a_line_is_excluded_from_the_payout_it_is_in_while_that_is_open() {
        let run = RunId::derive(&ProgramId::from_uuid(1), "monthly", "2026-07-01");
        let other = PayoutId::derive(&run, &PartnerId::from_uuid(2), now());
        let open = open(PayoutState::Pending);
        let inside = line(1_000, LineState::InPayout { payout: payout_id(), page: 0 }, now());
        assert_eq!(inside.clone().exclude(&payout_id(), open.as_ref(), now()).unwrap().state, LineState::Payable);
        assert_eq!(inside.clone().exclude(&payout_id(), None, now()), Err(LineError::PayoutClosed));
        assert_eq!(inside.exclude(&other, open.as_ref(), now()), Err(LineError::NotInPayout));
        let outside = line(1_000, LineState::Payable, now());
        assert_eq!(outside.exclude(&payout_id(), open.as_ref(), now()), Err(LineError::NotInPayout));
        let paid = line(1_000, LineState::Paid { payout: payout_id(), page: 0 }, now());
        assert!(matches!(paid.exclude(&payout_id(), None, now()), Err(LineError::Illegal { .. })));
    }

    #[test]
    fn a_line_knows_since_when_it_has_been_payable_without_a_break() {
        let (soon, later) = (now() + jiff::SignedDuration::from_secs(60), now() + jiff::SignedDuration::from_hours(1));
        let since = |line: Result<Line, LineError>| line.unwrap().payable_since();
        let approved = |due_at| Line { approved_at: Some(now()), ..line(1_000, LineState::Approved, due_at) };
        assert_eq!(since(approved(soon).mature(later)), soon, "when its hold period ended, whenever that was seen");
        assert_eq!(since(line(1_000, LineState::Pending, now()).approve(later)), later);
        let payable = Line { state: LineState::Payable, ..approved(now()) };
        assert_eq!(since(payable.clone().take_back(minor(1), None)), now(), "less of it is left");
        let held = payable.clone().hold("look", None).unwrap();
        assert_eq!(since(held.clone().release("ann", later)), later);
        let gone = payable.clone().take_back(minor(1_000), None).unwrap();
        assert_eq!(since(gone.give_back(minor(1), None, later)), later);
        let inside = payable.claim(&payout_id(), 0).unwrap();
        let open = open(PayoutState::Pending);
        assert_eq!(since(inside.exclude(&payout_id(), open.as_ref(), later)), later);
        let waits = Line { due_at: later, ..held }.release("ann", soon).unwrap();
        assert_eq!(since(waits.mature(later)), later, "released before its hold period ended");
    }

    #[test]
    fn no_more_is_taken_back_than_is_left() {
        let pending = line(1_000, LineState::Pending, now());
        for bad in [0, -1, 1_001] {
            assert_eq!(pending.clone().take_back(minor(bad), None), Err(LineError::TooMuch), "{bad}");
        }
        for state in [LineState::Pending, LineState::Held { reviewed: true, why: "look".into() }] {
            let part = line(1_000, state.clone(), now()).take_back(minor(999), None).unwrap();
            assert_eq!((part.net().unwrap(), part.state), (minor(1), state), "what is left stays where it is");
        }
    }
}
