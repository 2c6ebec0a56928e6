//! WooCommerce: an order in status `processing` or `completed` is a sale; each entry of its `refunds` a refund.
//!
//! The body is the order as REST API v3 shows it (woocommerce.github.io, "Order properties"), built when it is
//! delivered: one order comes many times, always whole. There is no topic for refunds; they only ever show in the
//! order.
//!
//! - Line totals are after coupons and without tax, also where the shop's prices include tax. Fees are not goods. An
//!   order's total is what was left to pay after gift cards, which are tender.
//! - A refund in the order tells only its total, tax and shipping included.
//! - A refund that is deleted merely disappears from the order. One payload cannot tell that from an older one, so
//!   nothing is read from it: a person takes the refund back.
//! - A paid order that is cancelled, has failed or lies in the trash may be taken up again, and says nothing about its
//!   money. Nothing is taken back until a refund is recorded; a person is asked to.
//! - Gift cards are lines that gift card plugins mark with the card's value.

use std::collections::BTreeMap;

use domain::conversion::{Action, ConversionEvent, Customer, EventBody, Item, Refund, Sale};
use domain::money::{Currency, Minor};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::evidence::{Evidence, country, email_hash};
use crate::payload::{Exact, Id, currency, cut, list, money, name, parse, required, time};
use crate::{Reading, Unreadable, header};

/// Whether this is the unsigned, form-encoded `webhook_id=N` with which WooCommerce tries a new webhook
/// (`WC_Webhook::deliver_ping`). It wants a plain 200, and nothing else done.
pub fn is_ping(headers: &HeaderMap, body: &[u8]) -> bool {
    let form = header(headers, &["content-type"])
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let number = body.trim_ascii().strip_prefix(b"webhook_id=");
    form && !headers.contains_key("x-wc-webhook-signature")
        && number.is_some_and(|digits| (1..=20).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit))
}

pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Reading, Unreadable> {
    match header(headers, &["x-wc-webhook-topic"]) {
        Some("order.deleted") => Ok(Reading::Ignored("a deleted order tells nothing but its id")),
        Some(topic) if !topic.starts_with("order.") => Ok(Reading::Ignored("not about an order")),
        _ => parse::<Order>(body)?.read(),
    }
}

#[derive(Debug, Deserialize)]
struct Order {
    id: Id,
    status: String,
    currency: String,
    date_created_gmt: Option<String>,
    date_modified_gmt: Option<String>,
    date_paid_gmt: Option<String>,
    total: Exact,
    total_tax: Option<Exact>,
    shipping_total: Option<Exact>,
    discount_total: Option<Exact>,
    customer_id: Option<Id>,
    billing: Option<Address>,
    shipping: Option<Address>,
    line_items: Vec<Line>,
    #[serde(default, deserialize_with = "list")]
    coupon_lines: Vec<Coupon>,
    #[serde(default, deserialize_with = "list")]
    meta_data: Vec<Meta>,
    #[serde(default, deserialize_with = "list")]
    refunds: Vec<RefundEntry>,
}

#[derive(Debug, Deserialize)]
struct Address {
    country: Option<String>,
    email: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Line {
    /// Text, empty text, and from some plugins a number.
    sku: Option<Id>,
    product_id: Option<Id>,
    /// A whole number in core; plugins sell by weight.
    quantity: Exact,
    total: Exact,
    /// Plugins' own; whatever shape they leave it in must not keep the order from being counted.
    meta_data: Option<Value>,
}

impl Line {
    /// The plugins "WooCommerce Gift Cards" and "PW Gift Cards" keep the value of the card on its line.
    fn is_gift_card(&self) -> bool {
        let marks = |meta: &Value| {
            let key = meta.get("key").and_then(Value::as_str);
            matches!(key, Some("wc_gc_giftcard_amount" | "pw_gift_card_amount")) && is_set(meta.get("value"))
        };
        self.meta_data.as_ref().and_then(Value::as_array).into_iter().flatten().any(marks)
    }
}

#[derive(Debug, Deserialize)]
struct Coupon {
    code: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Meta {
    key: Option<String>,
    /// Anything a plugin stored. No money is read from it.
    value: Option<Value>,
}

/// Plugins leave empty values behind.
fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

#[derive(Debug, Deserialize)]
struct RefundEntry {
    id: Id,
    reason: Option<String>,
    total: Exact,
}

/// The first time that is given. They are in UTC, and do not say so.
fn when<'a>(times: impl IntoIterator<Item = &'a Option<String>>) -> Result<Timestamp, Unreadable> {
    let text = times.into_iter().flatten().map(|text| text.trim()).find(|text| !text.is_empty());
    let text = text.ok_or_else(|| Unreadable::invalid("/date_created_gmt", "is missing"))?;
    text.parse().or_else(|_| time(&format!("{text}Z"), "/date_created_gmt"))
}

impl Order {
    fn read(&self) -> Result<Reading, Unreadable> {
        let accrues = match self.status.strip_prefix("wc-").unwrap_or(&self.status) {
            "processing" | "completed" => true,
            "cancelled" | "failed" | "trash" if self.paid_without_refund()? => {
                let detail = "a paid order was given up, and not all of it is refunded: record the refund in WooCommerce \
                              if the money went back";
                return Err(Unreadable::invalid("/status", detail));
            }
            _ => false,
        };
        let currency = currency(&self.currency, "/currency")?;
        let mut events = Vec::new();
        if accrues {
            events.push(ConversionEvent {
                id: self.id()?,
                occurred_at: when([&self.date_paid_gmt, &self.date_created_gmt])?,
                body: EventBody::Sale(self.sale(currency)?),
            });
        }
        for k in 0..self.refunds.len() {
            events.extend(self.refund(k, currency)?);
        }
        if events.is_empty() {
            return Ok(Reading::Ignored("the order's status is neither processing nor completed"));
        }
        Ok(Reading::Events(events))
    }

    fn id(&self) -> Result<String, Unreadable> {
        required(Some(self.id.as_str()), "/id")
    }

    /// Giving up a paid order does not say what became of the money: a person has to.
    fn paid_without_refund(&self) -> Result<bool, Unreadable> {
        let paid = self.date_paid_gmt.as_deref().is_some_and(|date| !date.trim().is_empty());
        if !paid {
            return Ok(false);
        }
        let currency = currency(&self.currency, "/currency")?;
        let mut left = self.total.minor(currency, || "/total".into())?;
        for (k, entry) in self.refunds.iter().enumerate() {
            let back = entry.amount(k, currency)?;
            left = left.minus(back).map_err(|error| money(|| format!("/refunds/{k}/total"), &error))?;
        }
        Ok(left.is_positive())
    }

    fn sale(&self, currency: Currency) -> Result<Sale, Unreadable> {
        let part = |amount: &Option<Exact>, pointer: &str| {
            amount.as_ref().map_or(Ok(Minor::ZERO), |amount| amount.minor(currency, || pointer.to_owned()))
        };
        let evidence = self.evidence();
        let codes = self.coupon_lines.iter().enumerate();
        Ok(Sale {
            action: if self.is_renewal() { Action::Renewal } else { Action::Sale },
            partner: evidence.partner,
            coupons: codes
                .filter_map(|(k, line)| name(line.code.as_deref(), || format!("/coupon_lines/{k}/code")).transpose())
                .collect::<Result<_, _>>()?,
            click_id: evidence.click_id,
            visitor_id: evidence.visitor_id,
            customer: self.customer()?,
            currency,
            total: self.total.minor(currency, || "/total".into())?,
            tax: part(&self.total_tax, "/total_tax")?,
            shipping: part(&self.shipping_total, "/shipping_total")?,
            discount: part(&self.discount_total, "/discount_total")?,
            store_credit: Minor::ZERO,
            items: self.items(currency)?,
            channel: None,
            campaign: evidence.campaign,
            country: country(
                [&self.shipping, &self.billing]
                    .map(|address| address.as_ref().and_then(|address| address.country.as_deref())),
            ),
            metadata: BTreeMap::new(),
        })
    }

    fn items(&self, currency: Currency) -> Result<Vec<Item>, Unreadable> {
        let lines = self.line_items.iter().enumerate();
        lines
            .map(|(k, line)| {
                let at = |field: &str| format!("/line_items/{k}/{field}");
                Ok(Item {
                    sku: name(line.sku.as_ref().map(Id::as_str), || at("sku"))?,
                    product: name(line.product_id.as_ref().map(Id::as_str).filter(|id| *id != "0"), || {
                        at("product_id")
                    })?,
                    category: None,
                    quantity: line.quantity.decimal(|| at("quantity"))?,
                    amount: line.total.minor(currency, || at("total"))?,
                    gift_card: line.is_gift_card(),
                })
            })
            .collect()
    }

    fn customer(&self) -> Result<Customer, Unreadable> {
        // 0 is a guest.
        let id = self.customer_id.as_ref().map(Id::as_str).filter(|id| *id != "0");
        Ok(Customer {
            id: name(id, || "/customer_id".into())?,
            email_hash: email_hash([self.billing.as_ref().and_then(|billing| billing.email.as_deref())]),
            // A renewal is certainly not the first; of other orders it is not told.
            new: self.is_renewal().then_some(false),
        })
    }

    fn meta(&self) -> impl Iterator<Item = (&str, &str)> {
        self.meta_data.iter().filter_map(|meta| Some((meta.key.as_deref()?, meta.value.as_ref()?.as_str()?)))
    }

    /// Fields of referral plugins, then what the core remembers of the visit ("order attribution").
    fn evidence(&self) -> Evidence {
        let mut evidence = Evidence::default();
        for (key, value) in self.meta() {
            evidence.named(key, value);
        }
        for (key, value) in self.meta() {
            match key {
                "_wc_order_attribution_session_entry" => evidence.landing(value),
                "_wc_order_attribution_utm_campaign" => evidence.campaign(value),
                _ => {}
            }
        }
        evidence
    }

    /// WooCommerce Subscriptions marks an order it created with the subscription's id, as text or number.
    fn is_renewal(&self) -> bool {
        self.meta_data
            .iter()
            .any(|meta| meta.key.as_deref() == Some("_subscription_renewal") && is_set(meta.value.as_ref()))
    }

    /// `None` for a refund of nothing, which only restocks.
    fn refund(&self, k: usize, currency: Currency) -> Result<Option<ConversionEvent>, Unreadable> {
        let Some(entry) = self.refunds.get(k) else { return Ok(None) };
        let total = entry.amount(k, currency)?;
        if total.is_zero() {
            return Ok(None);
        }
        Ok(Some(ConversionEvent {
            id: required(Some(entry.id.as_str()), &format!("/refunds/{k}/id"))?,
            // An entry has no time of its own; it came with, or before, the last change.
            occurred_at: when([&self.date_modified_gmt, &self.date_paid_gmt, &self.date_created_gmt])?,
            body: EventBody::Refund(Refund {
                conversion: self.id()?,
                currency,
                total,
                tax: None,
                shipping: None,
                items: None,
                reason: entry.reason.as_deref().filter(|reason| !reason.trim().is_empty()).map(cut),
                chargeback: false,
            }),
        }))
    }
}

impl RefundEntry {
    /// Negative in the order, positive in the refund's own resource: always what went back.
    fn amount(&self, k: usize, currency: Currency) -> Result<Minor, Unreadable> {
        let total = self.total.minor(currency, || format!("/refunds/{k}/total"))?;
        Ok(if total.is_negative() { total.negated() } else { total })
    }
}
