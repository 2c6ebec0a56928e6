//! Payouts: sent as batches of one item, so that each has an identity of its own and its fate is nobody else's.

use bytes::Bytes;
use http::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::Client;
use crate::error::{ApiError, is_id};

/// Whom a payment is for.
#[derive(Clone, PartialEq, Eq)]
pub enum Recipient {
    Email(String),
    PayerId(String),
    Phone(String),
    /// In Venmo.
    Handle(String),
}

/// It is nobody's business in a log.
impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recipient(..)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wallet {
    Paypal,
    Venmo,
}

/// One payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The sender's own name for this payment, at most 63 characters: PayPal pays one batch of this name within 30 days.
    pub name: String,
    pub recipient: Recipient,
    pub wallet: Wallet,
    /// Decimal, as the currency is written.
    pub value: String,
    pub currency: String,
    /// At most 4,000 characters.
    pub note: String,
}

/// How an item stands. <https://developer.paypal.com/docs/payouts/standard/reference/payout-status/>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ItemStatus {
    /// The recipient has it.
    Success,
    /// Nothing was sent.
    Failed,
    Pending,
    /// The recipient has no account; they have 30 days to open one.
    Unclaimed,
    /// They did not: the money came back.
    Returned,
    /// PayPal looks into it.
    Onhold,
    /// PayPal will not send it.
    Blocked,
    /// The recipient sent it back.
    Refunded,
    /// PayPal took it back.
    Reversed,
    /// The sender withdrew it before it was claimed, or the whole batch.
    #[serde(alias = "CANCELLED")]
    Canceled,
    Denied,
    /// Something PayPal has thought of since.
    #[serde(other)]
    New,
}

/// What became of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatBecame {
    /// PayPal's own id of the batch.
    pub batch: String,
    pub status: ItemStatus,
    /// PayPal's id of the transaction, once there is one.
    pub transaction: Option<String>,
    /// PayPal's words where it failed.
    pub why: String,
    /// The sender's own name.
    pub name: String,
}

#[derive(Deserialize)]
struct Batch {
    batch_header: Header,
    #[serde(default)]
    items: Vec<ItemTold>,
}

#[derive(Deserialize)]
struct Header {
    payout_batch_id: String,
    #[serde(default)]
    batch_status: Option<ItemStatus>,
}

#[derive(Deserialize)]
pub(crate) struct ItemTold {
    #[serde(default)]
    payout_batch_id: String,
    #[serde(default)]
    transaction_id: Option<String>,
    #[serde(default)]
    transaction_status: Option<ItemStatus>,
    #[serde(default)]
    payout_item: Named,
    #[serde(default)]
    sender_batch_id: String,
    #[serde(default)]
    errors: Option<Trouble>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    sender_item_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Trouble {
    name: String,
    message: String,
}

impl ItemTold {
    fn became(self) -> WhatBecame {
        let trouble = self.errors.unwrap_or_default();
        let name = if self.payout_item.sender_item_id.is_empty() {
            self.sender_batch_id
        } else {
            self.payout_item.sender_item_id
        };
        WhatBecame {
            batch: self.payout_batch_id,
            status: self.transaction_status.unwrap_or(ItemStatus::Pending),
            transaction: self.transaction_id.filter(|id| !id.is_empty()),
            why: [trouble.name, trouble.message]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join(": "),
            name,
        }
    }
}

impl Client {
    /// Sends one payment. The same name again, whatever became of the first time, is the same payment: the answer is PayPal's id of the
    /// batch either way.
    pub async fn pay(&self, item: &Item) -> Result<String, ApiError> {
        let (kind, receiver) = match &item.recipient {
            Recipient::Email(to) => ("EMAIL", to),
            Recipient::PayerId(to) => ("PAYPAL_ID", to),
            Recipient::Phone(to) => ("PHONE", to),
            Recipient::Handle(to) => ("USER_HANDLE", to),
        };
        let wallet = match item.wallet {
            Wallet::Paypal => "PAYPAL",
            Wallet::Venmo => "VENMO",
        };
        let body = json!({
            "sender_batch_header": {"sender_batch_id": item.name},
            "items": [{
                "sender_item_id": item.name, "recipient_type": kind, "receiver": receiver, "recipient_wallet": wallet,
                "amount": {"value": item.value, "currency": item.currency}, "note": item.note,
            }],
        });
        let body = Bytes::from(body.to_string());
        match self.send(&Method::POST, "/v1/payments/payouts", Some(&item.name), &body).await {
            Ok(answer) => {
                let batch: Batch = read(answer.body())?;
                Ok(batch.batch_header.payout_batch_id)
            }
            Err(ApiError::Refused(refusal)) if refusal.is_of_duplicate() => match refusal.duplicate_of() {
                Some(id) => Ok(id.to_owned()),
                None => Err(ApiError::Unknown(format!("it was taken before, under an id that is not told: {refusal}"))),
            },
            Err(error) => Err(error),
        }
    }

    /// What became of the one item of a batch; `None`: PayPal knows no such batch.
    pub async fn payment(&self, batch: &str) -> Result<Option<WhatBecame>, ApiError> {
        if !is_id(batch) {
            return Ok(None);
        }
        let path = format!("/v1/payments/payouts/{batch}?page_size=1&fields=batch_header,items");
        let Some(told) = self.found::<Batch>(&path).await? else { return Ok(None) };
        let header = told.batch_header;
        let item = told.items.into_iter().next().map(ItemTold::became);
        // A batch that is denied as a whole has no items that say so.
        let whole = header.batch_status.filter(|status| matches!(status, ItemStatus::Denied | ItemStatus::Canceled));
        let became = item.unwrap_or(WhatBecame {
            batch: String::new(),
            status: ItemStatus::Pending,
            transaction: None,
            why: String::new(),
            name: String::new(),
        });
        Ok(Some(WhatBecame { status: whole.unwrap_or(became.status), batch: header.payout_batch_id, ..became }))
    }

    /// What became of an item, by PayPal's own id of it.
    pub async fn item(&self, id: &str) -> Result<Option<WhatBecame>, ApiError> {
        if !is_id(id) {
            return Ok(None);
        }
        let told = self.found::<ItemTold>(&format!("/v1/payments/payouts-item/{id}")).await?;
        Ok(told.map(ItemTold::became))
    }

    async fn found<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ApiError> {
        match self.send(&Method::GET, path, None, &Bytes::new()).await {
            Ok(answer) => read(answer.body()).map(Some),
            Err(ApiError::Refused(refusal))
                if matches!(refusal.name.as_str(), "404" | "INVALID_RESOURCE_ID" | "RESOURCE_NOT_FOUND") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

pub(crate) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::Unknown(format!("PayPal answered what cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_an_item_is_read() {
        let told = r#"{"payout_item_id":"8AELMXH8UB2P8","transaction_id":"0C413693MN970190K","transaction_status":"FAILED",
            "payout_batch_id":"Q8KVJG9TZTNN4","payout_item":{"sender_item_id":"pay_1-1","receiver":"r@x.example"},
            "errors":{"name":"RECEIVER_UNREGISTERED","message":"Receiver is unregistered"}}"#;
        let became = serde_json::from_str::<ItemTold>(told).unwrap().became();
        let expect = WhatBecame {
            batch: "Q8KVJG9TZTNN4".into(),
            status: ItemStatus::Failed,
            transaction: Some("0C413693MN970190K".into()),
            why: "RECEIVER_UNREGISTERED: Receiver is unregistered".into(),
            name: "pay_1-1".into(),
        };
        assert_eq!(became, expect);
        for (word, status) in
            [("ONHOLD", ItemStatus::Onhold), ("CANCELLED", ItemStatus::Canceled), ("THAWED", ItemStatus::New)]
        {
            assert_eq!(serde_json::from_str::<ItemStatus>(&format!("{word:?}")).unwrap(), status);
        }
    }
}
