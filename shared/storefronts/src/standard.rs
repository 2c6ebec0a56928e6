//! Our own event: what the JSON API takes, and what a webhook signed by Standard Webhooks carries.
//!
//! Money is a decimal string in major units. A field left out, or `null`, takes its default: no tax, shipping, discount or
//! store credit of a sale or an edit; tax, shipping and items of a refund not known. Fields that are not ours are ignored.
//!
//! - A chargeback has the form of a refund.
//! - An edit states the order as it is after it: whole, not only what changed.
//! - A withdrawal names the refund or chargeback that does not stand (`refund`), and no amount: it comes back as it went.

use std::collections::BTreeMap;

use domain::conversion::{
    Action, ConversionEvent, Customer, Edit, EventBody, Item, MAX_TEXT, PartnerRef, Refund, Sale, Withdrawal,
};
use domain::money::{Currency, Minor};
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;

use crate::payload::{Exact, cut, parse as parse_json};
use crate::{Problem, Unreadable};

/// Entries of one event's metadata.
const MAX_METADATA: usize = 50;
/// Faults told of one event: with more, what is told would be larger than what it is about.
const MAX_FAULTS: usize = 100;
/// Every value of `type`.
const TYPES: &str = "sale, lead, sign_up, renewal, custom, refund, chargeback, edit, refund_withdrawn or dispute_won";

/// An event as its sender states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandardEvent {
    /// As sent; the API requires it, a webhook's source already knows its program.
    pub program_id: Option<String>,
    pub event: ConversionEvent,
}

/// Reads one event. All faults of a well-formed one are told together, up to [`MAX_FAULTS`].
pub fn parse(body: &[u8]) -> Result<StandardEvent, Unreadable> {
    let form: Form = parse_json(body)?;
    let mut faults = Faults::default();
    let event = form.event(&mut faults);
    match event {
        Some(event) if faults.0.is_empty() => Ok(StandardEvent { program_id: form.program_id, event }),
        _ => Err(Unreadable::Invalid(faults.0)),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    program_id: Option<String>,
    occurred_at: Option<String>,
    partner: Option<FormPartner>,
    coupon: Option<String>,
    click_id: Option<String>,
    visitor_id: Option<String>,
    customer: Option<FormCustomer>,
    amount: Option<FormAmount>,
    items: Option<Vec<FormItem>>,
    channel: Option<String>,
    campaign: Option<String>,
    country: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    conversion: Option<String>,
    refund: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FormPartner {
    id: Option<String>,
    code: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormCustomer {
    id: Option<String>,
    email_hash: Option<String>,
    new: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormAmount {
    total: Option<String>,
    tax: Option<String>,
    shipping: Option<String>,
    discount: Option<String>,
    store_credit: Option<String>,
    currency: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormItem {
    sku: Option<String>,
    product: Option<String>,
    category: Option<String>,
    quantity: Option<Exact>,
    amount: Option<String>,
    gift_card: Option<bool>,
}

/// The amounts and items of an order.
struct Charge {
    currency: Currency,
    total: Minor,
    tax: Minor,
    shipping: Minor,
    discount: Minor,
    store_credit: Minor,
    items: Vec<Item>,
}

#[derive(Debug, Default)]
struct Faults(Vec<Problem>);

impl Faults {
    fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(Problem { pointer: pointer.into(), detail: detail.into() });
        }
    }

    /// Text that is given, not blank and not too long.
    fn name(&mut self, text: Option<&String>, pointer: &str) -> Option<String> {
        let text = text?.trim();
        if text.is_empty() || text.chars().count() > MAX_TEXT {
            self.add(pointer, format!("must have 1 to {MAX_TEXT} characters"));
            return None;
        }
        Some(text.to_owned())
    }

    fn required<T>(&mut self, value: Option<T>, pointer: &str) -> Option<T> {
        if value.is_none() {
            self.add(pointer, "is required");
        }
        value
    }

    fn total(&mut self, text: Option<&String>, currency: Currency) -> Option<Minor> {
        let text = self.required(text, "/amount/total")?;
        self.money(Some(text), currency, "/amount/total")
    }

    fn money(&mut self, text: Option<&String>, currency: Currency, pointer: &str) -> Option<Minor> {
        match Minor::parse(text?, currency) {
            Ok(amount) if amount.is_negative() => {
                self.add(pointer, "must not be negative");
                None
            }
            Ok(amount) => Some(amount),
            Err(error) => {
                self.add(pointer, cut(&error.to_string()));
                None
            }
        }
    }
}

impl Form {
    fn event(&self, faults: &mut Faults) -> Option<ConversionEvent> {
        let id = faults.required(self.id.as_ref(), "/id").and_then(|id| faults.name(Some(id), "/id"));
        let occurred_at = self.occurred_at(faults);
        let body = self.body(faults);
        Some(ConversionEvent { id: id?, occurred_at: occurred_at?, body: body? })
    }

    fn occurred_at(&self, faults: &mut Faults) -> Option<Timestamp> {
        let text = faults.required(self.occurred_at.as_ref(), "/occurredAt")?;
        let time = text.parse().ok();
        if time.is_none() {
            faults.add("/occurredAt", "is not an RFC 3339 time");
        }
        time
    }

    fn body(&self, faults: &mut Faults) -> Option<EventBody> {
        let kind = faults.required(self.kind.as_deref(), "/type")?;
        let action = match kind {
            "sale" => Action::Sale,
            "lead" => Action::Lead,
            "sign_up" => Action::SignUp,
            "renewal" => Action::Renewal,
            "custom" => Action::Custom,
            "refund" => return self.refund(false, faults).map(EventBody::Refund),
            "chargeback" => return self.refund(true, faults).map(EventBody::Refund),
            "edit" => return self.edit(faults).map(EventBody::Edit),
            "refund_withdrawn" | "dispute_won" => return self.withdrawal(faults).map(EventBody::Withdrawal),
            _ => {
                faults.add("/type", format!("must be {TYPES}"));
                return None;
            }
        };
        self.sale(action, faults).map(EventBody::Sale)
    }

    fn sale(&self, action: Action, faults: &mut Faults) -> Option<Sale> {
        let partner = self.partner(faults);
        let coupon = faults.name(given(self.coupon.as_ref()), "/coupon");
        let click_id = faults.name(given(self.click_id.as_ref()), "/clickId");
        let visitor_id = faults.name(given(self.visitor_id.as_ref()), "/visitorId");
        let customer = self.customer(faults);
        let channel = faults.name(given(self.channel.as_ref()), "/channel");
        let campaign = faults.name(given(self.campaign.as_ref()), "/campaign");
        let country = self.country(faults);
        let metadata = self.metadata(faults);
        // What was only asked for or signed up to may be worth nothing yet.
        let may_be_free = matches!(action, Action::Lead | Action::SignUp | Action::Custom);
        let Charge { currency, total, tax, shipping, discount, store_credit, items } =
            self.charge(may_be_free, faults)?;
        Some(Sale {
            action,
            partner,
            coupons: coupon.into_iter().collect(),
            click_id,
            visitor_id,
            customer,
            currency,
            total,
            tax,
            shipping,
            discount,
            store_credit,
            items,
            channel,
            campaign,
            country,
            metadata,
        })
    }

    /// What was charged, as a sale or an edit states it.
    fn charge(&self, may_be_free: bool, faults: &mut Faults) -> Option<Charge> {
        let (amount, currency) = self.amount(faults)?;
        let total = match &amount.total {
            None if may_be_free => Some(Minor::ZERO),
            total => faults.total(total.as_ref(), currency),
        };
        let tax = faults.money(amount.tax.as_ref(), currency, "/amount/tax").unwrap_or_default();
        let shipping = faults.money(amount.shipping.as_ref(), currency, "/amount/shipping").unwrap_or_default();
        let discount = faults.money(amount.discount.as_ref(), currency, "/amount/discount").unwrap_or_default();
        let store_credit = faults.money(amount.store_credit.as_ref(), currency, "/amount/storeCredit");
        let store_credit = store_credit.unwrap_or_default();
        let items = self.items(currency, faults);
        Some(Charge { currency, total: total?, tax, shipping, discount, store_credit, items })
    }

    fn edit(&self, faults: &mut Faults) -> Option<Edit> {
        let conversion = self.conversion(faults);
        let Charge { currency, total, tax, shipping, discount, store_credit, items } = self.charge(false, faults)?;
        Some(Edit { conversion: conversion?, currency, total, tax, shipping, discount, store_credit, items })
    }

    fn withdrawal(&self, faults: &mut Faults) -> Option<Withdrawal> {
        let conversion = self.conversion(faults);
        let refund = faults.required(self.refund.as_ref(), "/refund");
        let refund = refund.and_then(|refund| faults.name(Some(refund), "/refund"));
        Some(Withdrawal { conversion: conversion?, refund: refund?, reason: self.reason() })
    }

    /// The sale that the event is about.
    fn conversion(&self, faults: &mut Faults) -> Option<String> {
        let order = faults.required(self.conversion.as_ref(), "/conversion")?;
        faults.name(Some(order), "/conversion")
    }

    fn reason(&self) -> Option<String> {
        self.reason.as_deref().filter(|reason| !reason.trim().is_empty()).map(cut)
    }

    fn refund(&self, chargeback: bool, faults: &mut Faults) -> Option<Refund> {
        let conversion = self.conversion(faults);
        let (amount, currency) = self.amount(faults)?;
        let total = faults.total(amount.total.as_ref(), currency);
        let tax = faults.money(amount.tax.as_ref(), currency, "/amount/tax");
        let shipping = faults.money(amount.shipping.as_ref(), currency, "/amount/shipping");
        let items = self.items(currency, faults);
        Some(Refund {
            conversion: conversion?,
            currency,
            total: total?,
            tax,
            shipping,
            // An empty list names no item, which is not the same as giving no goods back.
            items: Some(items).filter(|items| !items.is_empty()),
            reason: self.reason(),
            chargeback,
        })
    }

    fn amount(&self, faults: &mut Faults) -> Option<(&FormAmount, Currency)> {
        let amount = faults.required(self.amount.as_ref(), "/amount")?;
        let code = faults.required(amount.currency.as_deref(), "/amount/currency")?;
        match code.parse() {
            Ok(currency) => Some((amount, currency)),
            Err(error) => {
                faults.add("/amount/currency", error.to_string());
                None
            }
        }
    }

    fn partner(&self, faults: &mut Faults) -> Option<PartnerRef> {
        let partner = self.partner.as_ref()?;
        let id = faults.name(given(partner.id.as_ref()), "/partner/id");
        let code = faults.name(given(partner.code.as_ref()), "/partner/code");
        match (id, code) {
            (Some(_), Some(_)) => {
                faults.add("/partner", "has an id and a code: give one of them");
                None
            }
            (Some(id), None) => Some(PartnerRef::Id(id)),
            (None, code) => code.map(PartnerRef::Code),
        }
    }

    fn customer(&self, faults: &mut Faults) -> Customer {
        let Some(customer) = &self.customer else { return Customer::default() };
        let hash = given(customer.email_hash.as_ref()).map(|hash| hash.trim().to_ascii_lowercase());
        let is_hash = |hash: &String| hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit());
        if hash.as_ref().is_some_and(|hash| !is_hash(hash)) {
            faults.add("/customer/emailHash", "is not a SHA-256 in hexadecimal");
        }
        Customer { id: faults.name(given(customer.id.as_ref()), "/customer/id"), email_hash: hash, new: customer.new }
    }

    fn country(&self, faults: &mut Faults) -> Option<String> {
        let code = given(self.country.as_ref())?.trim();
        if code.len() == 2 && code.bytes().all(|c| c.is_ascii_alphabetic()) {
            return Some(code.to_ascii_uppercase());
        }
        faults.add("/country", "is not an ISO 3166 code of two letters");
        None
    }

    fn metadata(&self, faults: &mut Faults) -> BTreeMap<String, String> {
        let Some(metadata) = &self.metadata else { return BTreeMap::new() };
        if metadata.len() > MAX_METADATA {
            faults.add("/metadata", format!("has more than {MAX_METADATA} entries"));
        }
        if metadata.keys().any(|key| key.is_empty() || key.chars().count() > MAX_TEXT) {
            faults.add("/metadata", format!("a key must have 1 to {MAX_TEXT} characters"));
        }
        metadata.iter().map(|(key, value)| (key.clone(), cut(value))).collect()
    }

    fn items(&self, currency: Currency, faults: &mut Faults) -> Vec<Item> {
        let items = self.items.iter().flatten().enumerate();
        items.filter_map(|(k, item)| item.read(&format!("/items/{k}"), currency, faults)).collect()
    }
}

impl FormItem {
    fn read(&self, at: &str, currency: Currency, faults: &mut Faults) -> Option<Item> {
        let sku = faults.name(given(self.sku.as_ref()), &format!("{at}/sku"));
        let product = faults.name(given(self.product.as_ref()), &format!("{at}/product"));
        let category = faults.name(given(self.category.as_ref()), &format!("{at}/category"));
        let quantity = self.quantity(&format!("{at}/quantity"), faults);
        let amount = faults.required(self.amount.as_ref(), &format!("{at}/amount"))?;
        let amount = faults.money(Some(amount), currency, &format!("{at}/amount"))?;
        Some(Item { sku, product, category, quantity: quantity?, amount, gift_card: self.gift_card == Some(true) })
    }

    fn quantity(&self, pointer: &str, faults: &mut Faults) -> Option<Decimal> {
        let Some(quantity) = &self.quantity else { return Some(Decimal::ONE) };
        match quantity.decimal(String::new) {
            Ok(quantity) if !quantity.is_sign_negative() => Some(quantity),
            _ => {
                faults.add(pointer, "is not a decimal number of at least 0");
                None
            }
        }
    }
}

/// Blank text is as good as none where none is fine.
fn given(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.trim().is_empty())
}
