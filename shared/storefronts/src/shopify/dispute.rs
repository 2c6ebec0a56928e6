//! `disputes/create` and `disputes/update`: a chargeback takes the disputed amount, a won one gives it back.
//!
//! Both topics carry the dispute as it is (shopify.dev, REST Admin API, "Dispute"). It is booked under its own id, so that
//! telling it again has no effect. An inquiry takes nothing: what it may end in is a refund, which reports itself.

use domain::conversion::{ConversionEvent, EventBody, Refund, Withdrawal};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::payload::{Exact, Id, currency, cut, required, time};
use crate::{Reading, Unreadable};

#[derive(Debug, Deserialize)]
pub struct Dispute {
    id: Id,
    order_id: Option<Id>,
    #[serde(rename = "type")]
    kind: String,
    amount: Exact,
    currency: String,
    reason: Option<String>,
    status: String,
    initiated_at: String,
    finalized_on: Option<String>,
}

impl Dispute {
    pub fn read(&self) -> Result<Reading, Unreadable> {
        match self.kind.as_str() {
            "chargeback" => {}
            "inquiry" => return Ok(Reading::Ignored("an inquiry, which moves no money")),
            _ => return Err(Unreadable::invalid("/type", "is neither chargeback nor inquiry")),
        }
        let event = match self.status.as_str() {
            "needs_response" | "under_review" | "accepted" | "lost" => self.taken()?,
            "won" => self.won()?,
            "charge_refunded" | "prevented" => {
                let detail = "whether the dispute or a refund took the money is not told: look it up, and adjust the \
                              commission by hand";
                return Err(Unreadable::invalid("/status", detail));
            }
            _ => return Err(Unreadable::invalid("/status", "is unknown")),
        };
        Ok(Reading::Events(vec![event]))
    }

    /// Apart from the ids of refunds: Shopify counts each kind of thing by itself.
    fn id(&self) -> Result<String, Unreadable> {
        required(Some(self.id.as_str()), "/id").map(|id| format!("dispute_{id}"))
    }

    fn order(&self) -> Result<String, Unreadable> {
        required(self.order_id.as_ref().map(Id::as_str), "/order_id")
    }

    fn taken(&self) -> Result<ConversionEvent, Unreadable> {
        let currency = currency(&self.currency, "/currency")?;
        let body = EventBody::Refund(Refund {
            conversion: self.order()?,
            currency,
            total: self.amount.minor(currency, || "/amount".into())?,
            tax: None,
            shipping: None,
            items: None,
            reason: self.reason.as_deref().map(cut),
            chargeback: true,
        });
        Ok(ConversionEvent { id: self.id()?, occurred_at: time(&self.initiated_at, "/initiated_at")?, body })
    }

    fn won(&self) -> Result<ConversionEvent, Unreadable> {
        let body = EventBody::Withdrawal(Withdrawal {
            conversion: self.order()?,
            refund: self.id()?,
            reason: Some("dispute won".to_owned()),
        });
        let initiated = time(&self.initiated_at, "/initiated_at")?;
        let finalized = self.finalized_on.as_deref().map(finalized).transpose()?;
        Ok(ConversionEvent { id: self.id()?, occurred_at: finalized.unwrap_or(initiated).max(initiated), body })
    }
}

/// A day, or a time on it.
fn finalized(text: &str) -> Result<Timestamp, Unreadable> {
    let day = || text.trim().parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|start| start.timestamp());
    time(text, "/finalized_on").or_else(|refused| day().ok_or(refused))
}
