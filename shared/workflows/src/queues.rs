//! The queues: events from storefronts and from QuickBooks, what is to be drafted, and payouts that a rail must be asked about.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use domain::ids::{LineId, PartnerId, PayoutId, RunId, SourceId};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use quickbooks::webhook::Notification;
use serde::{Deserialize, Serialize};

use crate::error::{Refusal, Result};

/// Messages in one send, by SQS' own limit.
const BATCH: usize = 10;
/// Seconds, by SQS' own limit.
const MAX_DELAY: i32 = 900;
/// Batches on their way at once.
const SENDS: usize = 8;

#[derive(Debug, Clone)]
pub struct Queues {
    pub sqs: Client,
    pub conversions_url: String,
    pub drafts_url: String,
    pub submissions_url: String,
    pub quickbooks_url: String,
}

/// A storefront's delivery, as received: nothing is interpreted before it is safe in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    pub source: SourceId,
    pub received_at: Timestamp,
    /// The headers that tell what the body is, lower-case names.
    pub headers: Vec<(String, String)>,
    /// Base64 of the raw bytes.
    pub body: String,
}

/// What the queue of drafts is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DraftRequest {
    /// A run's decision about one partner.
    Decide { run: RunId, partner: PartnerId },
    /// An instant payout, because this line became payable.
    Instant { line: LineId },
    /// To go on asking a run's partners.
    Plan { plan: RunId },
}

/// A payout to submit, or to look after. The bus puts its events into the same queue, so this has the form of one: what is read is
/// `detail.payout.id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    pub detail: SubmissionDetail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionDetail {
    pub payout: SubmissionPayout,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionPayout {
    pub id: PayoutId,
    /// When its turn is, where a rail takes only so much at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Timestamp>,
}

/// Something changed in a company in QuickBooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuickbooksEvent {
    pub notification: Notification,
    /// When its turn is: calls there are paced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Timestamp>,
}

impl Submission {
    pub const fn of(id: PayoutId) -> Self {
        Self { detail: SubmissionDetail { payout: SubmissionPayout { id, slot: None } } }
    }
}

impl Queues {
    pub async fn send_submission(&self, payout: &PayoutId) -> Result<()> {
        let body = serde_json::json!(Submission::of(payout.clone())).to_string();
        let sent = self.sqs.send_message().queue_url(&self.submissions_url).message_body(body).send().await;
        sent.map(drop).map_err(unavailable)
    }

    /// To come back when its turn is, or after the longest delay there is.
    pub async fn send_submission_at(&self, payout: &PayoutId, slot: Timestamp, now: Timestamp) -> Result<()> {
        let mut submission = Submission::of(payout.clone());
        submission.detail.payout.slot = Some(slot);
        let sent = self.sqs.send_message().queue_url(&self.submissions_url).delay_seconds(delay(slot, now));
        sent.message_body(serde_json::json!(submission).to_string()).send().await.map(drop).map_err(unavailable)
    }

    pub async fn send_delivery(&self, delivery: &Delivery) -> Result<()> {
        let body = serde_json::json!(delivery).to_string();
        let sent = self.sqs.send_message().queue_url(&self.conversions_url).message_body(body).send().await;
        sent.map(drop).map_err(unavailable)
    }

    pub async fn send_drafts(&self, requests: &[DraftRequest]) -> Result<()> {
        self.send_all(&self.drafts_url, requests).await
    }

    pub async fn send_quickbooks_events(&self, events: &[QuickbooksEvent]) -> Result<()> {
        self.send_all(&self.quickbooks_url, events).await
    }

    pub async fn send_quickbooks_event_at(
        &self,
        event: &QuickbooksEvent,
        slot: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        let sent = self.sqs.send_message().queue_url(&self.quickbooks_url).delay_seconds(delay(slot, now));
        sent.message_body(serde_json::json!(event).to_string()).send().await.map(drop).map_err(unavailable)
    }

    async fn send_all<T: Serialize + Sync>(&self, url: &str, messages: &[T]) -> Result<()> {
        let batches: Vec<_> = messages.chunks(BATCH).map(|batch| self.send_batch(url, batch)).collect();
        futures::stream::iter(batches).buffer_unordered(SENDS).try_collect().await
    }

    async fn send_batch<T: Serialize + Sync>(&self, url: &str, batch: &[T]) -> Result<()> {
        let entries = batch
            .iter()
            .enumerate()
            .map(|(n, message)| {
                SendMessageBatchRequestEntry::builder()
                    .id(n.to_string())
                    .message_body(serde_json::json!(message).to_string())
                    .build()
            })
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| Refusal::Service("the queue", error.to_string()))?;
        let sent = self.sqs.send_message_batch().queue_url(url).set_entries(Some(entries)).send().await;
        let sent = sent.map_err(unavailable)?;
        // SQS may take some of a batch and refuse the rest; all of it is sent again, which is harmless.
        match sent.failed.first() {
            Some(failed) => Err(Refusal::Service("the queue", failed.code.clone())),
            None => Ok(()),
        }
    }
}

/// Whole seconds until then, never too few, and never more than SQS takes.
fn delay(slot: Timestamp, now: Timestamp) -> i32 {
    let wait = slot.duration_since(now).as_millis().max(0).unsigned_abs().div_ceil(1_000);
    i32::try_from(wait).unwrap_or(i32::MAX).min(MAX_DELAY)
}

fn unavailable<E: ProvideErrorMetadata, R>(error: aws_sdk_sqs::error::SdkError<E, R>) -> Refusal {
    Refusal::Service("the queue", error.code().map_or_else(|| error.to_string(), str::to_owned))
}
