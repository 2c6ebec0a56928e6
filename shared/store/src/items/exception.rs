//! Exceptions: what needs a person. Nothing that was refused is lost: the body it came with is kept beside it for 30 days.

use domain::ids::{ExceptionId, ProgramId, SourceId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::{BODIES, Key, Place, exception_partition, exceptions_list, sortable};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

/// Days a raw body is kept.
const BODY_DAYS: i64 = 30;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    pub id: ExceptionId,
    pub code: ExceptionCode,
    pub detail: String,
    pub program: Option<ProgramId>,
    pub source: Option<SourceId>,
    /// The source's id of the order it is about.
    pub order: Option<String>,
    pub status: ExceptionStatus,
    /// When what it is about was received.
    #[serde(default)]
    pub received_at: Option<Timestamp>,
    /// Of what was received: those that reading the body needs.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    pub created_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    pub resolved_by: Option<String>,
    pub resolution: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExceptionCode {
    /// A good signature over something that cannot be read.
    Unreadable,
    /// Cannot be true, or cannot be booked as it is.
    Impossible,
    /// A currency other than the program's, and no exchange rate of its day.
    ExchangeRateMissing,
    /// The rate source told what cannot be taken: it contradicts what was told, or cannot be true.
    ExchangeRateRefused,
    /// A refund or edit in another currency than its sale.
    OtherCurrency,
    /// The same id with other content.
    Contradiction,
    /// More was refunded than was charged; the reversal was clamped.
    RefundBeyondCharge,
    /// A sale names a partner the program does not have.
    UnknownPartner,
    /// No published rule set was in force.
    NoRules,
    /// The rail refused a payout for good.
    PayoutFailed,
    /// A payout's money came back.
    PayoutReturned,
    /// The rail says other than the books: it paid what is not to be paid, or has what was to be sent anew.
    PayoutContradicted,
    /// A company in QuickBooks can no longer be reached: somebody must connect it again.
    QuickbooksDisconnected,
    /// The connection to a company in QuickBooks ends by itself in some days: somebody must connect it again before.
    QuickbooksEnding,
    /// A Bill in QuickBooks is not as it was sent, or was not settled with money.
    BillDiffers,
    /// A Bill in QuickBooks that no payout knows.
    BillOrphaned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExceptionStatus {
    Open,
    Resolved,
}

impl ExceptionStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resolved => "resolved",
        }
    }
}

impl Item for Exception {
    fn key(&self) -> Key {
        Key::exception(&self.id)
    }

    fn revision(&self) -> u32 {
        match self.status {
            ExceptionStatus::Open => 1,
            ExceptionStatus::Resolved => 2,
        }
    }

    fn list_place(&self) -> Option<Place> {
        let order = format!("{}#{}", sortable(self.created_at), self.id);
        Some(Place::new(exceptions_list(self.status.as_str()), order))
    }
}

/// A part of the body an exception came with: an item holds less than a body may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BodyPart {
    exception: ExceptionId,
    part: u32,
    text: String,
    received_at: Timestamp,
}

/// Bytes of one part.
const PART_BYTES: usize = 300_000;

impl Item for BodyPart {
    fn key(&self) -> Key {
        Key::exception_body(&self.exception, self.part)
    }

    fn expires(&self) -> Option<i64> {
        Some(self.received_at.as_second() + BODY_DAYS * 24 * 3_600)
    }
}

/// Cuts between characters.
fn parts(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let (part, rest) = text.split_at(text.floor_char_boundary(PART_BYTES));
        parts.push(part);
        text = rest;
    }
    parts
}

impl Transaction {
    /// Fails if it was filed already.
    pub fn file(&mut self, exception: &Exception, body: Option<&str>) -> Result<(), StoreError> {
        self.create(exception)?;
        for (part, text) in (0..).zip(parts(body.unwrap_or_default())) {
            self.create(&BodyPart {
                exception: exception.id.clone(),
                part,
                text: text.to_owned(),
                received_at: exception.created_at,
            })?;
        }
        Ok(())
    }

    pub fn replace_exception(&mut self, exception: &Exception, read: &Exception) -> Result<(), StoreError> {
        self.replace(exception, read.revision())
    }
}

impl Store {
    pub async fn exception(&self, operation: &'static str, id: &ExceptionId) -> Result<Option<Exception>, StoreError> {
        self.get(operation, &Key::exception(id)).await
    }

    /// The body it came with, as received; `None` where there was none, or it has been forgotten.
    pub async fn exception_body(
        &self,
        operation: &'static str,
        id: &ExceptionId,
    ) -> Result<Option<String>, StoreError> {
        let parts: Vec<BodyPart> = self.query_all(operation, Range::prefix(exception_partition(id), BODIES)).await?;
        Ok((!parts.is_empty()).then(|| parts.into_iter().map(|part| part.text).collect()))
    }

    /// Newest first.
    pub async fn exceptions(
        &self,
        operation: &'static str,
        status: ExceptionStatus,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Exception>, StoreError> {
        let range =
            Range { after, order: Order::Backward, limit: Some(limit), ..Range::all(exceptions_list(status.as_str())) };
        let keys = self.list(operation, range).await?;
        let mut items: Vec<Exception> = self.get_many(operation, &keys.items).await?;
        // The index may still show what was resolved a moment ago.
        items.retain(|exception| exception.status == status);
        Ok(Listing { items, after: keys.after })
    }
}
