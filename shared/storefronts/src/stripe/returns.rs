//! What goes back by Stripe: refunds and disputes.
//!
//! Several events tell of one movement: a refund is created, updated and may fail; a dispute opens, takes its funds,
//! closes and may give them back. Each is booked under the object's own id (`re_`, `dp_`) and with its own amount, whichever
//! of the events comes, so that telling it again has no effect, and a merchant may subscribe to any of them.
//!
//! - Neither names the session or invoice that accrued. It is known where the merchant's metadata names it
//!   (`checkout_session` or `invoice`, on the refund, the dispute or the charge), or where the charge still does
//!   (`charge.invoice`, before API version 2025-03-31). Otherwise a person is asked to name it there: Stripe then sends
//!   the object again as updated.
//! - A charge's `amount_refunded` is cumulative and names no refund, so only its list of refunds is read, which charges
//!   have before API version 2022-11-15.
//! - Whether a dispute took money is told by its `balance_transactions` ("zero, one, or two balance transactions that
//!   show funds withdrawn and reinstated"), and where they are left out by its status. An inquiry (`warning_...`)
//!   takes nothing until it is escalated, which `charge.dispute.funds_withdrawn` reports.

use domain::conversion::{ConversionEvent, EventBody, Refund, Withdrawal};
use serde::Deserialize;
use serde_json::Value;

use super::{Event, Metadata, id_of, minor, when};
use crate::payload::{currency, cut, list, required};
use crate::{Reading, Unreadable};

#[derive(Debug, Deserialize)]
pub struct RefundObject {
    id: String,
    amount: i64,
    currency: String,
    created: i64,
    status: Option<String>,
    reason: Option<String>,
    failure_reason: Option<String>,
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
pub struct ChargeObject {
    invoice: Option<Value>,
    metadata: Metadata,
    refunds: Option<Refunds>,
}

#[derive(Debug, Deserialize)]
struct Refunds {
    #[serde(default, deserialize_with = "list")]
    data: Vec<RefundObject>,
}

#[derive(Debug, Deserialize)]
pub struct DisputeObject {
    id: String,
    amount: i64,
    currency: String,
    created: i64,
    status: Option<String>,
    reason: Option<String>,
    metadata: Metadata,
    #[serde(default, deserialize_with = "list")]
    balance_transactions: Vec<BalanceTransaction>,
}

/// In the currency of the merchant's account, which may be another than the dispute's.
#[derive(Debug, Deserialize)]
struct BalanceTransaction {
    amount: i64,
    currency: Option<String>,
}

/// What became of the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Movement {
    Gone,
    Back,
    /// It did not move. Why.
    Stayed(&'static str),
}

impl Event<RefundObject> {
    pub fn read(&self) -> Result<Reading, Unreadable> {
        let refund = &self.data.object;
        let movement = refund.movement("/data/object/status")?;
        if let Movement::Stayed(why) = movement {
            return Ok(Reading::Ignored(why));
        }
        let Some(order) = named([&refund.metadata]) else {
            // Refunds are updated for many reasons: a reference of the bank, a note. Only another status moves money.
            let noted = self.kind.ends_with(".updated") && !self.data.changed("status");
            return if noted {
                Ok(Reading::Ignored("an update of a refund that moves no money"))
            } else {
                Err(unnamed())
            };
        };
        Ok(Reading::Events(vec![refund.event(movement, order, self.created, "/data/object")?]))
    }
}

impl RefundObject {
    fn movement(&self, pointer: &str) -> Result<Movement, Unreadable> {
        match (self.status.as_deref(), self.reason.as_deref()) {
            (_, Some("expired_uncaptured_charge")) => Ok(Movement::Stayed("a payment that was never captured")),
            (Some("succeeded"), _) => Ok(Movement::Gone),
            (Some("failed" | "canceled"), _) => Ok(Movement::Back),
            (Some("pending" | "requires_action"), _) => Ok(Movement::Stayed("the refund is still under way")),
            _ => Err(Unreadable::invalid(pointer, "is missing or unknown")),
        }
    }

    fn event(&self, movement: Movement, order: String, told: i64, at: &str) -> Result<ConversionEvent, Unreadable> {
        let id = required(Some(&self.id), &format!("{at}/id"))?;
        if movement == Movement::Back {
            return withdrawal(id, order, told, self.failure_reason.as_deref().or(self.status.as_deref()));
        }
        let amount = (self.amount, self.currency.as_str());
        returned(id, order, amount, self.created, self.reason.as_deref(), false)
    }
}

impl Event<ChargeObject> {
    pub fn read(&self) -> Result<Reading, Unreadable> {
        let charge = &self.data.object;
        let Some(refunds) = &charge.refunds else {
            let detail = "a charge does not tell which refund this is: let Stripe send refund.created, refund.updated \
                          and refund.failed to this address instead of charge.refunded. If it does already, nothing is \
                          missing";
            return Err(Unreadable::invalid("/data/object/refunds", detail));
        };
        let mut events = Vec::new();
        for (k, refund) in refunds.data.iter().enumerate() {
            let at = format!("/data/object/refunds/data/{k}");
            let movement = refund.movement(&format!("{at}/status"))?;
            if matches!(movement, Movement::Stayed(_)) {
                continue;
            }
            let order = named([&refund.metadata, &charge.metadata]).or_else(|| charge.invoice());
            events.push(refund.event(movement, order.ok_or_else(unnamed)?, self.created, &at)?);
        }
        Ok(if events.is_empty() { Reading::Ignored("no refund has gone through") } else { Reading::Events(events) })
    }
}

impl ChargeObject {
    fn invoice(&self) -> Option<String> {
        id_of(self.invoice.as_ref()).map(str::to_owned)
    }
}

impl Event<DisputeObject> {
    pub fn read(&self) -> Result<Reading, Unreadable> {
        let dispute = &self.data.object;
        let movement = self.movement()?;
        if let Movement::Stayed(why) = movement {
            return Ok(Reading::Ignored(why));
        }
        let Some(order) = named([&dispute.metadata]) else {
            // Updated mostly with evidence. What moves money is an event of its own.
            let noted = self.kind == "charge.dispute.updated" && movement == Movement::Gone;
            return if noted {
                Ok(Reading::Ignored("an update of a dispute that moves no money"))
            } else {
                Err(unnamed())
            };
        };
        let id = required(Some(&dispute.id), "/data/object/id")?;
        let event = if movement == Movement::Back {
            withdrawal(id, order, self.created, Some("dispute won"))
        } else {
            let amount = (dispute.amount, dispute.currency.as_str());
            returned(id, order, amount, dispute.created, dispute.reason.as_deref(), true)
        };
        Ok(Reading::Events(vec![event?]))
    }

    fn movement(&self) -> Result<Movement, Unreadable> {
        let dispute = &self.data.object;
        let status = dispute.status.as_deref();
        let (gone, back) = dispute.funds();
        if back > 0 || status == Some("won") || self.kind == "charge.dispute.funds_reinstated" {
            if dispute.is_part(gone, back) {
                let detail = "only a part of the disputed amount came back: adjust the commission by hand";
                return Err(Unreadable::invalid("/data/object/balance_transactions", detail));
            }
            return Ok(Movement::Back);
        }
        match status {
            _ if gone > 0 || self.kind == "charge.dispute.funds_withdrawn" => Ok(Movement::Gone),
            Some("needs_response" | "under_review" | "lost") => Ok(Movement::Gone),
            Some("warning_needs_response" | "warning_under_review" | "warning_closed" | "prevented") => {
                Ok(Movement::Stayed("an inquiry, which moves no money"))
            }
            Some("charge_refunded") => Ok(Movement::Stayed("the charge was refunded, which the refund reports")),
            _ => Err(Unreadable::invalid("/data/object/status", "is missing or unknown")),
        }
    }
}

impl DisputeObject {
    /// What was withdrawn and what was reinstated.
    fn funds(&self) -> (i64, i64) {
        self.balance_transactions.iter().fold((0_i64, 0_i64), |(gone, back), transaction| {
            (gone.saturating_sub(transaction.amount.min(0)), back.saturating_add(transaction.amount.max(0)))
        })
    }

    /// Whether less came back than had gone. In another currency the two differ by the days' rates, so there only the
    /// outcome tells.
    fn is_part(&self, gone: i64, back: i64) -> bool {
        let same = |other: &BalanceTransaction| {
            other.currency.as_ref().is_none_or(|code| code.eq_ignore_ascii_case(&self.currency))
        };
        if back == 0 {
            false
        } else if self.balance_transactions.iter().all(same) {
            back < gone
        } else {
            self.status.as_deref() != Some("won")
        }
    }
}

/// The session or invoice that the merchant names.
fn named<const N: usize>(metadata: [&Metadata; N]) -> Option<String> {
    let entries = metadata.into_iter().flatten().flatten();
    let mut orders = entries.filter_map(|(key, value)| {
        let key: String = key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        let names = matches!(key.as_str(), "checkoutsession" | "checkoutsessionid" | "invoice" | "invoiceid");
        let value = value.as_str()?.trim();
        (names && (value.starts_with("cs_") || value.starts_with("in_"))).then(|| value.to_owned())
    });
    orders.next()
}

fn unnamed() -> Unreadable {
    let detail = "money moved, but Stripe names only the payment: write the id of the session or invoice that was paid \
                  into the metadata of the refund or dispute, as checkout_session or invoice, and it is booked when \
                  Stripe sends the update";
    Unreadable::invalid("/data/object/payment_intent", detail)
}

fn returned(
    id: String,
    conversion: String,
    (amount, code): (i64, &str),
    created: i64,
    reason: Option<&str>,
    chargeback: bool,
) -> Result<ConversionEvent, Unreadable> {
    let currency = currency(code, "/data/object/currency")?;
    let total = minor(amount, currency, "amount")?;
    // Stripe does not divide what goes back into goods, tax and shipping.
    let body = EventBody::Refund(Refund {
        conversion,
        currency,
        total,
        tax: None,
        shipping: None,
        items: None,
        reason: reason.map(cut),
        chargeback,
    });
    Ok(ConversionEvent { id, occurred_at: when(created)?, body })
}

/// A refund fails once, and a dispute is won once: the withdrawal has the id of what it takes back.
fn withdrawal(id: String, conversion: String, told: i64, reason: Option<&str>) -> Result<ConversionEvent, Unreadable> {
    let body = EventBody::Withdrawal(Withdrawal { conversion, refund: id.clone(), reason: reason.map(cut) });
    Ok(ConversionEvent { id, occurred_at: when(told)?, body })
}
