//! Stripe: one payment is described by many objects, and accrues on exactly one of them: on its invoice where it has
//! one (`invoice.paid`), else on its checkout session (`checkout.session.completed`, or `.async_payment_succeeded` for
//! methods that pay later).
//!
//! Object meanings: docs.stripe.com/api, "The Checkout Session object", "The Invoice object". Both shapes of tax and
//! price on invoices are read, those before and since API version 2025-03-31 ("basil").
//!
//! - Events of the sandbox (`livemode: false`) are read like any other: merchants try their connection out with them,
//!   and each mode has its own endpoint and secret.
//! - What goes back is in [`returns`]. A sale keeps its payment in its metadata where that is told, to
//!   find it by.
//! - A promotion code is only named by its id, and is evidence as such: a partner may be given `promo_...` as a coupon.

mod returns;

use std::collections::BTreeMap;

use domain::conversion::{Action, ConversionEvent, Customer, EventBody, Item, MAX_TEXT, Sale};
use domain::money::{Currency, Minor, MoneyError};
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::evidence::{Evidence, country, email_hash};
use crate::payload::{currency, cut, list, money, name, parse, required};
use crate::{Reading, Unreadable};

pub fn read(body: &[u8]) -> Result<Reading, Unreadable> {
    let head: Event<IgnoredAny> = parse(body)?;
    match head.kind.as_str() {
        "checkout.session.completed" | "checkout.session.async_payment_succeeded" => event::<Session>(body)?.read(),
        "invoice.paid" => event::<Invoice>(body)?.read(),
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            event::<returns::RefundObject>(body)?.read()
        }
        "charge.refunded" => event::<returns::ChargeObject>(body)?.read(),
        "charge.dispute.created"
        | "charge.dispute.updated"
        | "charge.dispute.closed"
        | "charge.dispute.funds_withdrawn"
        | "charge.dispute.funds_reinstated" => event::<returns::DisputeObject>(body)?.read(),
        _ => Ok(Reading::Ignored("a type that moves no money here, or another event reports it")),
    }
}

fn event<T: DeserializeOwned>(body: &[u8]) -> Result<Event<T>, Unreadable> {
    parse(body)
}

#[derive(Debug, Deserialize)]
struct Event<T> {
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    data: Data<T>,
}

#[derive(Debug, Deserialize)]
struct Data<T> {
    object: T,
    /// What an update changed, as it was before.
    previous_attributes: Option<Value>,
}

impl<T> Data<T> {
    fn changed(&self, field: &str) -> bool {
        self.previous_attributes.as_ref().is_some_and(|before| before.get(field).is_some())
    }
}

type Metadata = Option<BTreeMap<String, Value>>;

#[derive(Debug, Deserialize)]
struct Session {
    id: String,
    mode: Option<String>,
    payment_status: Option<String>,
    payment_intent: Option<Value>,
    invoice: Option<Value>,
    invoice_creation: Option<InvoiceCreation>,
    currency: Option<String>,
    amount_total: Option<i64>,
    total_details: Option<TotalDetails>,
    client_reference_id: Option<String>,
    customer: Option<Value>,
    customer_email: Option<String>,
    customer_details: Option<CustomerDetails>,
    metadata: Metadata,
    #[serde(default, deserialize_with = "list")]
    discounts: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct InvoiceCreation {
    enabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct TotalDetails {
    #[serde(rename = "amount_tax")]
    tax: Option<i64>,
    #[serde(rename = "amount_shipping")]
    shipping: Option<i64>,
    #[serde(rename = "amount_discount")]
    discount: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct CustomerDetails {
    email: Option<String>,
    address: Option<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    country: Option<String>,
}

impl Event<Session> {
    fn read(&self) -> Result<Reading, Unreadable> {
        let session = &self.data.object;
        match session.payment_status.as_deref() {
            Some("paid") => {}
            Some("unpaid") => return Ok(Reading::Ignored("the session is not paid yet")),
            Some("no_payment_required") => return Ok(Reading::Ignored("nothing was to be paid")),
            _ => return Err(Unreadable::invalid("/data/object/payment_status", "is missing or unknown")),
        }
        match session.mode.as_deref() {
            Some("payment") if !session.has_invoice() => {}
            Some("payment" | "subscription") => return Ok(Reading::Ignored("its invoice reports the payment")),
            Some("setup") => return Ok(Reading::Ignored("a session that only sets up a payment method")),
            _ => return Err(Unreadable::invalid("/data/object/mode", "is missing or unknown")),
        }
        let sale = session.sale()?;
        if sale.total.is_zero() {
            return Ok(Reading::Ignored("nothing was charged"));
        }
        let event = ConversionEvent {
            id: required(Some(&session.id), "/data/object/id")?,
            occurred_at: when(self.created)?,
            body: EventBody::Sale(sale),
        };
        Ok(Reading::Events(vec![event]))
    }
}

impl Session {
    /// Also a one-off payment has an invoice, paid by the same payment, where the merchant asked for one.
    fn has_invoice(&self) -> bool {
        let asked = self.invoice_creation.as_ref().and_then(|creation| creation.enabled) == Some(true);
        asked || id_of(self.invoice.as_ref()).is_some()
    }

    fn sale(&self) -> Result<Sale, Unreadable> {
        let code = self.currency.as_deref().unwrap_or_default();
        let currency = currency(code, "/data/object/currency")?;
        let amount = |units: Option<i64>, field: &str| minor(units.unwrap_or(0), currency, field);
        let parts = self.total_details.as_ref();
        let address = self.customer_details.as_ref().and_then(|details| details.address.as_ref());
        let mut evidence = Evidence::default();
        evidence_in(&mut evidence, self.metadata.as_ref());
        if let Some(reference) = &self.client_reference_id {
            evidence.reference(reference);
        }
        let mut metadata = kept(self.metadata.as_ref())?;
        if let Some(payment) = id_of(self.payment_intent.as_ref()) {
            metadata.insert("payment_intent".into(), cut(payment));
        }
        Ok(Sale {
            action: Action::Sale,
            partner: evidence.partner,
            coupons: coupons(self.discounts.iter()),
            click_id: evidence.click_id,
            visitor_id: evidence.visitor_id,
            customer: self.customer()?,
            currency,
            total: amount(self.amount_total, "amount_total")?,
            tax: amount(parts.and_then(|parts| parts.tax), "total_details/amount_tax")?,
            shipping: amount(parts.and_then(|parts| parts.shipping), "total_details/amount_shipping")?,
            discount: amount(parts.and_then(|parts| parts.discount), "total_details/amount_discount")?,
            store_credit: Minor::ZERO,
            items: Vec::new(),
            channel: None,
            campaign: evidence.campaign,
            country: country([address.and_then(|address| address.country.as_deref())]),
            metadata,
        })
    }

    fn customer(&self) -> Result<Customer, Unreadable> {
        let entered = self.customer_details.as_ref().and_then(|details| details.email.as_deref());
        Ok(Customer {
            id: name(id_of(self.customer.as_ref()), || "/data/object/customer".into())?,
            email_hash: email_hash([entered, self.customer_email.as_deref()]),
            new: None,
        })
    }
}

#[derive(Debug, Deserialize)]
struct Invoice {
    id: String,
    status: Option<String>,
    billing_reason: Option<String>,
    currency: String,
    total: i64,
    amount_paid: i64,
    paid_out_of_band: Option<bool>,
    total_excluding_tax: Option<i64>,
    /// Before basil.
    tax: Option<i64>,
    total_tax_amounts: Option<Vec<Share>>,
    /// Since basil.
    total_taxes: Option<Vec<Share>>,
    total_discount_amounts: Option<Vec<Share>>,
    shipping_cost: Option<ShippingCost>,
    status_transitions: Option<Transitions>,
    customer: Option<Value>,
    customer_email: Option<String>,
    customer_address: Option<Address>,
    metadata: Metadata,
    /// Before basil.
    payment_intent: Option<Value>,
    /// Before basil.
    subscription_details: Option<SubscriptionDetails>,
    /// Since basil.
    parent: Option<Parent>,
    discount: Option<Value>,
    #[serde(default, deserialize_with = "list")]
    discounts: Vec<Value>,
    lines: Option<Lines>,
}

#[derive(Debug, Deserialize)]
struct Share {
    amount: i64,
    /// Before basil.
    inclusive: Option<bool>,
    /// Since basil.
    tax_behavior: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ShippingCost {
    amount_subtotal: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Transitions {
    paid_at: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Parent {
    subscription_details: Option<SubscriptionDetails>,
}

#[derive(Debug, Deserialize)]
struct SubscriptionDetails {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Lines {
    #[serde(default, deserialize_with = "list")]
    data: Vec<Line>,
    has_more: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Line {
    amount: i64,
    quantity: Option<i64>,
    discount_amounts: Option<Vec<Share>>,
    /// Before basil.
    tax_amounts: Option<Vec<Share>>,
    /// Since basil.
    taxes: Option<Vec<Share>>,
    /// Before basil.
    price: Option<Price>,
    /// Since basil.
    pricing: Option<Pricing>,
}

#[derive(Debug, Deserialize)]
struct Price {
    product: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Pricing {
    price_details: Option<Price>,
}

impl Event<Invoice> {
    fn read(&self) -> Result<Reading, Unreadable> {
        let invoice = &self.data.object;
        if invoice.status.as_deref().is_some_and(|status| status != "paid") {
            return Ok(Reading::Ignored("the invoice is not paid"));
        }
        if invoice.charged() == 0 {
            return Ok(Reading::Ignored("nothing was charged: a trial, or paid by credit"));
        }
        let paid_at = invoice.status_transitions.as_ref().and_then(|transitions| transitions.paid_at);
        let event = ConversionEvent {
            id: required(Some(&invoice.id), "/data/object/id")?,
            occurred_at: when(paid_at.unwrap_or(self.created))?,
            body: EventBody::Sale(invoice.sale()?),
        };
        Ok(Reading::Events(vec![event]))
    }
}

impl Invoice {
    /// What was charged for this invoice. A balance from before may have paid a part of it, or have been paid with it;
    /// money paid outside Stripe counts in full.
    fn charged(&self) -> i64 {
        if self.paid_out_of_band == Some(true) { self.total } else { self.amount_paid.min(self.total) }
    }

    fn sale(&self) -> Result<Sale, Unreadable> {
        let currency = currency(&self.currency, "/data/object/currency")?;
        let amount = |units: i64, field: &str| minor(units, currency, field);
        let whole = amount(self.total, "total")?;
        let total = amount(self.charged(), "amount_paid")?;
        // Of a part paid, the same part is tax and shipping.
        let share = |part: Minor| {
            let share = part.proportion(total.units().into(), whole.units().into());
            share.map_err(|error| money(|| "/data/object/total".into(), &error))
        };
        let shipping = self.shipping_cost.as_ref().and_then(|cost| cost.amount_subtotal).unwrap_or(0);
        let tax = share(amount(self.tax(), "total_taxes")?)?;
        let shipping = share(amount(shipping, "shipping_cost/amount_subtotal")?)?;
        let evidence = self.evidence();
        Ok(Sale {
            action: if self.is_renewal() { Action::Renewal } else { Action::Sale },
            partner: evidence.partner,
            coupons: coupons(self.discounts.iter().chain(&self.discount)),
            click_id: evidence.click_id,
            visitor_id: evidence.visitor_id,
            customer: self.customer()?,
            currency,
            total,
            tax,
            shipping,
            discount: amount(sum(self.total_discount_amounts.as_ref()), "total_discount_amounts")?,
            store_credit: Minor::ZERO,
            items: self.items(currency, [total, tax, shipping])?,
            channel: None,
            campaign: evidence.campaign,
            country: country([self.customer_address.as_ref().and_then(|address| address.country.as_deref())]),
            metadata: self.metadata()?,
        })
    }

    fn metadata(&self) -> Result<BTreeMap<String, String>, Unreadable> {
        let mut metadata = kept(self.metadata.as_ref())?;
        if let Some(payment) = id_of(self.payment_intent.as_ref()) {
            metadata.insert("payment_intent".into(), cut(payment));
        }
        Ok(metadata)
    }

    fn tax(&self) -> i64 {
        match (self.total_excluding_tax, &self.total_taxes, self.tax) {
            (Some(net), _, _) => self.total.saturating_sub(net),
            (None, Some(taxes), _) => sum(Some(taxes)),
            (None, None, Some(tax)) => tax,
            (None, None, None) => sum(self.total_tax_amounts.as_ref()),
        }
    }

    fn is_renewal(&self) -> bool {
        self.billing_reason.as_deref() == Some("subscription_cycle")
    }

    /// The invoice's own metadata, then its subscription's. The session's is not repeated here.
    fn evidence(&self) -> Evidence {
        let mut evidence = Evidence::default();
        evidence_in(&mut evidence, self.metadata.as_ref());
        let parents = self.parent.as_ref().and_then(|parent| parent.subscription_details.as_ref());
        for details in parents.into_iter().chain(&self.subscription_details) {
            evidence_in(&mut evidence, details.metadata.as_ref());
        }
        evidence
    }

    fn customer(&self) -> Result<Customer, Unreadable> {
        Ok(Customer {
            id: name(id_of(self.customer.as_ref()), || "/data/object/customer".into())?,
            email_hash: email_hash([self.customer_email.as_deref()]),
            // A first invoice may be the second subscription of an old customer; a renewal is certainly not the first.
            new: self.is_renewal().then_some(false),
        })
    }

    /// The lines, where all of them are here and they add up to the goods that were charged. Otherwise (a long invoice,
    /// a credit for unused time, a balance) the totals alone count.
    fn items(&self, currency: Currency, [total, tax, shipping]: [Minor; 3]) -> Result<Vec<Item>, Unreadable> {
        let Some(lines) = self.lines.as_ref().filter(|lines| lines.has_more != Some(true)) else {
            return Ok(Vec::new());
        };
        let mut items = Vec::with_capacity(lines.data.len());
        for (k, line) in lines.data.iter().enumerate() {
            items.push(line.item(k, currency)?);
        }
        let goods = total.minus(tax).and_then(|rest| rest.minus(shipping));
        let adds_up = Minor::total(items.iter().map(|item| item.amount)) == goods;
        let sound = adds_up && items.iter().all(|item| !item.amount.is_negative() && !item.quantity.is_sign_negative());
        Ok(if sound { items } else { Vec::new() })
    }
}

impl Line {
    fn item(&self, k: usize, currency: Currency) -> Result<Item, Unreadable> {
        let at = format!("lines/data/{k}");
        let taxes = self.taxes.iter().chain(&self.tax_amounts).flatten();
        let included = taxes.filter(|tax| tax.is_inclusive()).fold(0_i64, |sum, tax| sum.saturating_add(tax.amount));
        let discount = sum(self.discount_amounts.as_ref());
        let amount = self.amount.saturating_sub(discount).saturating_sub(included);
        let since_basil = self.pricing.as_ref().and_then(|pricing| pricing.price_details.as_ref());
        let product = since_basil.or(self.price.as_ref()).and_then(|price| price.product.as_ref());
        Ok(Item {
            sku: None,
            product: name(id_of(product), || format!("/data/object/{at}/price/product"))?,
            category: None,
            quantity: Decimal::from(self.quantity.unwrap_or(1)),
            amount: minor(amount, currency, &at)?,
            gift_card: false,
        })
    }
}

impl Share {
    fn is_inclusive(&self) -> bool {
        self.inclusive == Some(true) || self.tax_behavior.as_deref() == Some("inclusive")
    }
}

/// Saturates; what is that large is refused when it becomes an amount.
fn sum(shares: Option<&Vec<Share>>) -> i64 {
    shares.into_iter().flatten().fold(0, |sum, share| sum.saturating_add(share.amount))
}

fn when(second: i64) -> Result<Timestamp, Unreadable> {
    Timestamp::from_second(second).map_err(|_| Unreadable::invalid("/created", "is not a time"))
}

/// A reference is an id, or the object itself where the merchant's API version expands it.
fn id_of(reference: Option<&Value>) -> Option<&str> {
    let reference = reference?;
    reference.as_str().or_else(|| reference.get("id")?.as_str()).filter(|id| !id.is_empty())
}

fn evidence_in(evidence: &mut Evidence, metadata: Option<&BTreeMap<String, Value>>) {
    for (key, value) in metadata.into_iter().flatten() {
        if let Some(value) = value.as_str() {
            evidence.named(key, value);
        }
    }
}

/// The merchant's own facts, for rules to match. An e-mail address among them is not kept.
fn kept(metadata: Option<&BTreeMap<String, Value>>) -> Result<BTreeMap<String, String>, Unreadable> {
    let mut kept = BTreeMap::new();
    for (key, value) in metadata.into_iter().flatten() {
        if key.chars().count() > MAX_TEXT {
            return Err(Unreadable::invalid(
                "/data/object/metadata",
                format!("a key has more than {MAX_TEXT} characters"),
            ));
        }
        if let Some(value) = value.as_str().filter(|value| !value.contains('@')) {
            kept.insert(key.clone(), cut(value));
        }
    }
    Ok(kept)
}

/// The promotion code's id, else the coupon's: merchants often choose the latter themselves (`AUTUMN25`).
fn coupons<'a>(discounts: impl Iterator<Item = &'a Value>) -> Vec<String> {
    discounts
        .filter_map(|discount| id_of(discount.get("promotion_code")).or_else(|| id_of(discount.get("coupon"))))
        .filter(|id| id.chars().count() <= MAX_TEXT)
        .map(str::to_owned)
        .collect()
}

/// Currencies Stripe counts in whole units (docs.stripe.com/currencies, "zero-decimal"). ISO 4217 gives MGA two
/// decimals. ISK and UGX have none in ISO 4217, but Stripe states them in hundredths "to maintain backwards
/// compatibility" (ibid., "special cases"). HUF and TWD are special in payouts only.
const WHOLE_UNITS: [&str; 15] =
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"];
/// Currencies Stripe counts in thousandths; the last digit it sends is always 0.
const THOUSANDTHS: [&str; 5] = ["BHD", "JOD", "KWD", "OMR", "TND"];

/// Stripe's minor units as ours.
fn minor(units: i64, currency: Currency, field: &str) -> Result<Minor, Unreadable> {
    let theirs = match currency.code() {
        code if WHOLE_UNITS.contains(&code) => 0,
        code if THOUSANDTHS.contains(&code) => 3,
        _ => 2,
    };
    let ours = currency.exponent();
    let at = || format!("/data/object/{field}");
    let factor = 10_i64.pow(ours.abs_diff(theirs).min(9));
    let converted = if ours >= theirs { units.checked_mul(factor) } else { Some(units / factor) };
    if ours < theirs && units % factor != 0 {
        return Err(Unreadable::invalid(at(), format!("has a fraction, which {currency} does not")));
    }
    converted.ok_or(MoneyError::Overflow).and_then(Minor::new).map_err(|error| money(at, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_units_follow_stripe_where_it_differs_from_iso() {
        for (code, theirs, ours) in [
            ("USD", 2_000, Some(2_000)),
            ("JPY", 5_200, Some(5_200)),
            ("KWD", 1_230, Some(1_230)),
            ("MGA", 5_200, Some(520_000)),
            ("ISK", 500, Some(5)),
            ("ISK", 550, None),
            ("UGX", 500, Some(5)),
            ("HUF", 1_050, Some(1_050)),
            ("TWD", 80_045, Some(80_045)),
            ("USD", i64::MAX, None),
            ("MGA", i64::MIN, None),
        ] {
            let got = minor(theirs, code.parse().unwrap(), "amount_total").ok().map(Minor::units);
            assert_eq!(got, ours, "{code} {theirs}");
        }
    }
}
