//! Webhooks: PayPal's word that something happened, checked with PayPal itself.
//!
//! Whether a delivery is theirs, their own API tells (`verify-webhook-signature`). The alternative, to fetch a certificate from the
//! address that the delivery names and to check an RSA signature over its CRC-32, would have a stranger choose what we fetch. What a
//! delivery says is only a reason to look: what became of a payment is read from the API.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client::Client;
use crate::error::ApiError;
use crate::payouts::read;

/// A delivery as it came.
#[derive(Debug, Clone)]
pub struct Delivery<'a> {
    pub headers: &'a HeaderMap,
    pub body: &'a str,
}

#[derive(Serialize)]
struct Question<'a> {
    auth_algo: &'a str,
    cert_url: &'a str,
    transmission_id: &'a str,
    transmission_sig: &'a str,
    transmission_time: &'a str,
    webhook_id: &'a str,
    /// As it came: another order of its members would have another signature.
    webhook_event: &'a RawValue,
}

#[derive(Deserialize)]
struct Verdict {
    verification_status: String,
}

/// What a delivery is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Like `PAYMENT.PAYOUTS-ITEM.SUCCEEDED`.
    pub kind: String,
    /// The sender's own name of the payment.
    pub name: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    resource: Resource,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    sender_batch_id: Option<String>,
    payout_item: Option<Inner>,
    batch_header: Option<Outer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Inner {
    sender_item_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outer {
    sender_batch_header: Option<SenderHeader>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SenderHeader {
    sender_batch_id: Option<String>,
}

impl Delivery<'_> {
    /// `None`: not a delivery of PayPal's form.
    pub fn notice(&self) -> Option<Notice> {
        let event: Event = serde_json::from_str(self.body).ok()?;
        let resource = event.resource;
        let of_item = resource.payout_item.and_then(|item| item.sender_item_id);
        let of_batch = resource.batch_header.and_then(|header| header.sender_batch_header);
        let of_batch = of_batch.and_then(|header| header.sender_batch_id);
        Some(Notice { kind: event.event_type, name: of_item.or(resource.sender_batch_id).or(of_batch) })
    }
}

impl Client {
    /// Whether a delivery to this webhook is PayPal's.
    pub async fn sent(&self, delivery: &Delivery<'_>, webhook_id: &str) -> Result<bool, ApiError> {
        let header = |name: &str| {
            delivery.headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| text.len() <= 2_000)
        };
        let Ok(webhook_event) = serde_json::from_str::<&RawValue>(delivery.body) else { return Ok(false) };
        let (Some(auth_algo), Some(cert_url), Some(transmission_id), Some(transmission_sig), Some(transmission_time)) = (
            header("paypal-auth-algo"),
            header("paypal-cert-url"),
            header("paypal-transmission-id"),
            header("paypal-transmission-sig"),
            header("paypal-transmission-time"),
        ) else {
            return Ok(false);
        };
        let question = Question {
            auth_algo,
            cert_url,
            transmission_id,
            transmission_sig,
            transmission_time,
            webhook_id,
            webhook_event,
        };
        let question = serde_json::to_vec(&question).map_err(|error| ApiError::NotSent(error.to_string()))?;
        let path = "/v1/notifications/verify-webhook-signature";
        match self.send(&Method::POST, path, None, &Bytes::from(question)).await {
            Ok(answer) => Ok(read::<Verdict>(answer.body())?.verification_status == "SUCCESS"),
            // What they cannot even read was not written by them.
            Err(ApiError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_names_the_payment_by_our_own_name() {
        let headers = HeaderMap::new();
        let name = |body: &str| Delivery { headers: &headers, body }.notice().and_then(|notice| notice.name);
        let item = r#"{"event_type":"PAYMENT.PAYOUTS-ITEM.SUCCEEDED","resource":{"payout_item":{"sender_item_id":"pay_1-1"},"sender_batch_id":"b"}}"#;
        assert_eq!(name(item).as_deref(), Some("pay_1-1"));
        let batch = r#"{"event_type":"PAYMENT.PAYOUTSBATCH.DENIED","resource":{"batch_header":{"sender_batch_header":{"sender_batch_id":"pay_1-1"}}}}"#;
        assert_eq!(name(batch).as_deref(), Some("pay_1-1"));
        assert_eq!(name(r#"{"event_type":"OTHER"}"#), None);
        assert!(Delivery { headers: &headers, body: "nonsense" }.notice().is_none());
    }
}
