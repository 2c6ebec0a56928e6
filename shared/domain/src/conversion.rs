//! Conversions: rewardable actions as a storefront reports them, in one normalized form, and what becomes of them.
//!
//! A conversion is the ordered list of the events accepted for it: at most one sale, any number of refunds, edits and
//! withdrawals, in the order of acceptance. What was charged and what went back is their fold ([`crate::order`]), never a
//! stored total.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::ids::Hash;
use crate::money::{Currency, Minor, MoneyError};

/// How far ahead of our clock a source's clock may be.
pub const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Items of one order. Larger orders are refused rather than cut.
pub const MAX_ITEMS: usize = 250;
/// Characters of any text a source sends that we keep.
pub const MAX_TEXT: usize = 200;

/// One event, as every source's payload is normalized to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversionEvent {
    /// The source's own id: of the order for a sale, of the refund for a refund.
    pub id: String,
    pub occurred_at: Timestamp,
    #[serde(flatten)]
    pub body: EventBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "most events are sales")]
pub enum EventBody {
    Sale(Sale),
    /// Money went back to the customer: by a refund or by a chargeback.
    Refund(Refund),
    /// The order is now another.
    Edit(Edit),
    /// A refund did not happen after all, or a dispute was won: what it took comes back.
    Withdrawal(Withdrawal),
}

/// The kinds of events whose ids are told apart: a refund may have the id of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Sale,
    Refund,
    Edit,
    Withdrawal,
}

impl EventKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sale => "sale",
            Self::Refund => "refund",
            Self::Edit => "edit",
            Self::Withdrawal => "withdrawal",
        }
    }
}

impl EventBody {
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Sale(_) => EventKind::Sale,
            Self::Refund(_) => EventKind::Refund,
            Self::Edit(_) => EventKind::Edit,
            Self::Withdrawal(_) => EventKind::Withdrawal,
        }
    }

    pub const fn sale(&self) -> Option<&Sale> {
        match self {
            Self::Sale(sale) => Some(sale),
            _ => None,
        }
    }
}

impl ConversionEvent {
    /// The order the event is about: the business key of its conversion.
    pub fn order(&self) -> &str {
        match &self.body {
            EventBody::Sale(_) => &self.id,
            EventBody::Refund(refund) => &refund.conversion,
            EventBody::Edit(edit) => &edit.conversion,
            EventBody::Withdrawal(withdrawal) => &withdrawal.conversion,
        }
    }

    /// `None` where the event names no amount.
    pub const fn currency(&self) -> Option<Currency> {
        match &self.body {
            EventBody::Sale(sale) => Some(sale.currency),
            EventBody::Refund(refund) => Some(refund.currency),
            EventBody::Edit(edit) => Some(edit.currency),
            EventBody::Withdrawal(_) => None,
        }
    }

    /// A hash of what moves money. Two events with one id are the same event exactly if this agrees: sources resend with
    /// other timestamps, statuses and metadata.
    pub fn content(&self) -> Hash {
        let content = match &self.body {
            EventBody::Sale(sale) => serde_json::json!({
                "type": sale.action, "currency": sale.currency, "total": sale.total, "tax": sale.tax, "shipping": sale.shipping,
                "discount": sale.discount, "storeCredit": sale.store_credit, "items": sale.items, "partner": sale.partner.as_ref().map(PartnerRef::normalized),
                "coupons": sale.coupon_codes().collect::<Vec<_>>(),
            }),
            EventBody::Refund(refund) => serde_json::json!({
                "type": "refund", "conversion": refund.conversion, "currency": refund.currency, "total": refund.total,
                "tax": refund.tax, "shipping": refund.shipping, "items": refund.items,
            }),
            EventBody::Edit(edit) => serde_json::json!({
                "type": "edit", "conversion": edit.conversion, "currency": edit.currency, "total": edit.total,
                "tax": edit.tax, "shipping": edit.shipping, "discount": edit.discount, "storeCredit": edit.store_credit,
                "items": edit.items,
            }),
            EventBody::Withdrawal(withdrawal) => serde_json::json!({
                "type": "withdrawal", "conversion": withdrawal.conversion, "refund": withdrawal.refund,
            }),
        };
        Hash::of(content.to_string().as_bytes())
    }

    /// Refuses what cannot be true, naming the field. `now` is when it was received.
    pub fn check(&self, now: Timestamp) -> Result<(), Impossible> {
        let refuse = |field, why: &str| Err(Impossible { field, why: why.to_owned() });
        if self.id.is_empty() || self.id.len() > MAX_TEXT {
            return refuse("/id", "must have 1 to 200 characters");
        }
        if self.order().is_empty() || self.order().len() > MAX_TEXT {
            return refuse("/conversion", "must have 1 to 200 characters");
        }
        if self.occurred_at > now + MAX_CLOCK_SKEW {
            return refuse("/occurredAt", "lies in the future");
        }
        if self.occurred_at.as_second() < 0 {
            return refuse("/occurredAt", "lies before 1970");
        }
        match &self.body {
            EventBody::Sale(sale) => sale.check(),
            EventBody::Refund(refund) => refund.check(),
            EventBody::Edit(edit) => edit.check(),
            EventBody::Withdrawal(withdrawal) if withdrawal.refund.is_empty() || withdrawal.refund.len() > MAX_TEXT => {
                refuse("/refund", "must have 1 to 200 characters")
            }
            EventBody::Withdrawal(_) => Ok(()),
        }
    }
}

/// An event that cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Impossible {
    /// A JSON pointer into our own event's form.
    pub field: &'static str,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sale {
    pub action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<PartnerRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coupons: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub click_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitor_id: Option<String>,
    #[serde(default, skip_serializing_if = "Customer::is_unknown")]
    pub customer: Customer,
    pub currency: Currency,
    /// What the customer was charged.
    pub total: Minor,
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub tax: Minor,
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub shipping: Minor,
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub discount: Minor,
    /// What of the total was paid with store credit.
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub store_credit: Minor,
    /// Empty where the source tells only totals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Sale {
    /// Goods after discounts, without tax and shipping. Bought gift cards are not goods.
    pub fn net(&self) -> Result<Minor, MoneyError> {
        net(&self.items, self.total, self.tax, self.shipping)
    }

    /// The evidence a coupon is matched by, as partners' codes are.
    pub fn coupon_codes(&self) -> impl Iterator<Item = Code> + '_ {
        self.coupons.iter().filter_map(|coupon| coupon.parse().ok())
    }

    fn check(&self) -> Result<(), Impossible> {
        let amounts = [self.total, self.tax, self.shipping, self.discount, self.store_credit];
        check_charge(amounts, &self.items, self.net())
    }
}

impl Edit {
    /// Goods after discounts, without tax and shipping, as [`Sale::net`].
    pub fn net(&self) -> Result<Minor, MoneyError> {
        net(&self.items, self.total, self.tax, self.shipping)
    }

    fn check(&self) -> Result<(), Impossible> {
        let amounts = [self.total, self.tax, self.shipping, self.discount, self.store_credit];
        check_charge(amounts, &self.items, self.net())
    }
}

fn net(items: &[Item], total: Minor, tax: Minor, shipping: Minor) -> Result<Minor, MoneyError> {
    if items.is_empty() {
        total.minus(tax)?.minus(shipping)
    } else {
        Minor::total(items.iter().filter(|item| !item.gift_card).map(|item| item.amount))
    }
}

/// Refuses amounts that no order has. `amounts` are total, tax, shipping, discount, store credit.
fn check_charge(amounts: [Minor; 5], items: &[Item], net: Result<Minor, MoneyError>) -> Result<(), Impossible> {
    let refuse = |field, why: &str| Err(Impossible { field, why: why.to_owned() });
    let fields = ["/amount/total", "/amount/tax", "/amount/shipping", "/amount/discount", "/amount/storeCredit"];
    for (field, amount) in fields.into_iter().zip(amounts) {
        if amount.is_negative() || !amount.is_credible() {
            return refuse(field, "must be from zero to 10^12 minor units");
        }
    }
    let [total, .., store_credit] = amounts;
    if store_credit > total {
        return refuse("/amount/storeCredit", "is more than the total");
    }
    if items.len() > MAX_ITEMS {
        return refuse("/items", "more than 250 items");
    }
    for item in items {
        if item.amount.is_negative() {
            return refuse("/items", "an item's amount must not be negative");
        }
        if item.quantity.is_sign_negative() {
            return refuse("/items", "an item's quantity must not be negative");
        }
    }
    match net {
        Ok(net) if net.is_negative() => refuse("/amount/total", "is less than tax and shipping"),
        Ok(net) if !net.is_credible() => refuse("/items", "sum to more than 10^12 minor units"),
        Ok(_) => Ok(()),
        Err(error) => refuse("/amount", &error.to_string()),
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    #[default]
    Sale,
    Lead,
    SignUp,
    Renewal,
    Custom,
}

impl Action {
    /// For serde, which passes references.
    pub const fn is_sale(&self) -> bool {
        matches!(self, Self::Sale)
    }

    /// Whether the customer bought something, first or again.
    pub const fn is_purchase(self) -> bool {
        matches!(self, Self::Sale | Self::Renewal)
    }
}

/// How a conversion names its partner outright.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PartnerRef {
    Id(String),
    Code(String),
}

impl PartnerRef {
    /// Codes differ by more than case.
    fn normalized(&self) -> Self {
        match self {
            Self::Code(code) => {
                Self::Code(code.parse::<Code>().map_or_else(|_| code.clone(), |code| code.as_str().to_owned()))
            }
            Self::Id(_) => self.clone(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Customer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// SHA-256 of the trimmed, lower-cased address, in hexadecimal. The address itself is never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<bool>,
}

impl Customer {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    pub quantity: Decimal,
    /// The line's total after discounts, without tax.
    pub amount: Minor,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gift_card: bool,
}

impl Item {
    /// Whether a refunded item is this one: by product id or SKU, whichever both have.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.sku, &other.sku, &self.product, &other.product) {
            (Some(mine), Some(theirs), _, _) | (_, _, Some(mine), Some(theirs)) => mine == theirs,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refund {
    /// The sale's own id at the same source.
    pub conversion: String,
    pub currency: Currency,
    /// What went back to the customer.
    pub total: Minor,
    /// `None` where the source does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<Minor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping: Option<Minor>,
    /// `None` where the source tells only amounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<Item>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The customer's bank took it back, rather than the merchant giving it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chargeback: bool,
}

/// An order as it is after it was edited: whole, not only what changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// The sale's own id at the same source.
    pub conversion: String,
    pub currency: Currency,
    pub total: Minor,
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub tax: Minor,
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub shipping: Minor,
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub discount: Minor,
    /// What of the total was paid with store credit.
    #[serde(default, skip_serializing_if = "Minor::is_zero_ref")]
    pub store_credit: Minor,
    /// Empty where the source tells only totals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
}

/// Takes a refund or chargeback back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Withdrawal {
    /// The sale's own id at the same source.
    pub conversion: String,
    /// The id of the refund that does not stand.
    pub refund: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Refund {
    fn check(&self) -> Result<(), Impossible> {
        let refuse = |field, why: &str| Err(Impossible { field, why: why.to_owned() });
        if self.total.is_negative() || !self.total.is_credible() {
            return refuse("/amount/total", "must be from zero to 10^12 minor units");
        }
        if self.tax.is_some_and(Minor::is_negative) || self.shipping.is_some_and(Minor::is_negative) {
            return refuse("/amount", "tax and shipping must not be negative");
        }
        let items = self.items.as_deref().unwrap_or_default();
        let wrong = |item: &Item| item.amount.is_negative() || !item.amount.is_credible();
        if items.len() > MAX_ITEMS || items.iter().any(wrong) {
            return refuse("/items", "at most 250 items, each from zero to 10^12 minor units");
        }
        Ok(())
    }
}

/// A referral or coupon code: 1 to 40 letters, digits, `-`, `_` or `.`; case does not matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code(String);

impl Code {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a code has 1 to 40 letters, digits, '-', '_' or '.'")]
pub struct BadCode;

impl std::str::FromStr for Code {
    type Err = BadCode;
    fn from_str(text: &str) -> Result<Self, BadCode> {
        let text = text.trim();
        let fine = (1..=40).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
        if fine { Ok(Self(text.to_ascii_uppercase())) } else { Err(BadCode) }
    }
}

impl TryFrom<String> for Code {
    type Error = BadCode;
    fn try_from(text: String) -> Result<Self, BadCode> {
        text.parse()
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn minor(units: i64) -> Minor {
        Minor::new(units).unwrap()
    }

    pub(crate) fn sale(total: i64, tax: i64, items: &[(&str, i64)]) -> Sale {
        Sale {
            action: Action::Sale,
            partner: None,
            coupons: vec![],
            click_id: None,
            visitor_id: None,
            customer: Customer::default(),
            currency: "USD".parse().unwrap(),
            total: minor(total),
            tax: minor(tax),
            shipping: Minor::ZERO,
            discount: Minor::ZERO,
            store_credit: Minor::ZERO,
            items: items
                .iter()
                .map(|(sku, amount)| Item {
                    sku: Some((*sku).to_owned()),
                    product: None,
                    category: None,
                    quantity: Decimal::ONE,
                    amount: minor(*amount),
                    gift_card: false,
                })
                .collect(),
            channel: None,
            campaign: None,
            country: None,
            metadata: BTreeMap::new(),
        }
    }

    pub(crate) fn refund(total: i64) -> Refund {
        Refund {
            conversion: "1".into(),
            currency: "USD".parse().unwrap(),
            total: minor(total),
            tax: None,
            shipping: None,
            items: None,
            reason: None,
            chargeback: false,
        }
    }

    const MOST: i64 = 1_000_000_000_000;

    fn received() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn event(body: EventBody) -> ConversionEvent {
        ConversionEvent { id: "1".into(), occurred_at: received(), body }
    }

    /// The field that is refused; empty: nothing is.
    fn refused(event: &ConversionEvent) -> &'static str {
        event.check(received()).map_or_else(|impossible| impossible.field, |()| "")
    }

    #[test]
    fn what_no_sale_and_no_edit_can_be_is_refused_by_its_field() {
        type Change = fn(&mut Sale);
        let cases: [(Change, &str); 22] = [
            (|_| {}, ""),
            (|sale| sale.total = minor(0), ""),
            (|sale| sale.total = minor(-1), "/amount/total"),
            (|sale| sale.total = minor(MOST), ""),
            (|sale| sale.total = minor(MOST + 1), "/amount/total"),
            (|sale| sale.tax = minor(-1), "/amount/tax"),
            (|sale| sale.shipping = minor(-1), "/amount/shipping"),
            (|sale| sale.discount = minor(-1), "/amount/discount"),
            (|sale| sale.discount = minor(MOST + 1), "/amount/discount"),
            (|sale| sale.tax = minor(10_000), ""),
            (|sale| sale.tax = minor(10_001), "/amount/total"),
            (|sale| (sale.tax, sale.shipping) = (minor(5_000), minor(5_001)), "/amount/total"),
            (|sale| sale.items = super::tests::sale(0, 0, &[("A", 0)]).items, ""),
            (|sale| sale.items = super::tests::sale(0, 0, &[("A", 5), ("B", -1)]).items, "/items"),
            (|sale| sale.items = vec![super::tests::sale(0, 0, &[("A", 1)]).items.remove(0); 250], ""),
            (|sale| sale.items = vec![super::tests::sale(0, 0, &[("A", 1)]).items.remove(0); 251], "/items"),
            (|sale| sale.items = super::tests::sale(0, 0, &[("A", MOST)]).items, ""),
            (|sale| sale.items = super::tests::sale(0, 0, &[("A", MOST), ("B", 1)]).items, "/items"),
            (|sale| sale.items = super::tests::sale(0, 0, &[("A", MOST + 1)]).items, "/items"),
            (|sale| (sale.items, sale.tax) = (super::tests::sale(0, 0, &[("A", 9)]).items, minor(99_999)), ""),
            (
                |sale| {
                    sale.items = vec![Item {
                        quantity: Decimal::NEGATIVE_ONE,
                        ..super::tests::sale(0, 0, &[("A", 1)]).items.remove(0)
                    }];
                },
                "/items",
            ),
            (
                |sale| {
                    sale.items =
                        vec![Item { quantity: Decimal::ZERO, ..super::tests::sale(0, 0, &[("A", 1)]).items.remove(0) }];
                },
                "",
            ),
        ];
        for (n, (change, field)) in cases.into_iter().enumerate() {
            let mut sale = sale(10_000, 0, &[]);
            change(&mut sale);
            let Sale { currency, total, tax, shipping, discount, store_credit, items, .. } = sale.clone();
            let edit = Edit { conversion: "1".into(), currency, total, tax, shipping, discount, store_credit, items };
            assert_eq!(edit.net(), sale.net(), "case {n}");
            assert_eq!(refused(&event(EventBody::Sale(sale))), field, "sale, case {n}");
            assert_eq!(refused(&event(EventBody::Edit(edit))), field, "edit, case {n}");
        }
    }

    #[test]
    fn what_no_refund_can_be_is_refused_by_its_field() {
        type Change = fn(&mut Refund);
        let items = |amounts: &[i64]| {
            let named: Vec<_> = amounts.iter().map(|amount| ("A", *amount)).collect();
            Some(sale(0, 0, &named).items)
        };
        let cases: [(Change, &str); 8] = [
            (|_| {}, ""),
            (|refund| refund.total = minor(-1), "/amount/total"),
            (|refund| refund.total = minor(MOST), ""),
            (|refund| refund.total = minor(MOST + 1), "/amount/total"),
            (|refund| refund.tax = Some(minor(-1)), "/amount"),
            (|refund| refund.shipping = Some(minor(-1)), "/amount"),
            (|refund| (refund.tax, refund.shipping) = (Some(minor(0)), Some(minor(0))), ""),
            (|refund| (refund.tax, refund.shipping) = (Some(minor(1)), Some(minor(-1))), "/amount"),
        ];
        for (n, (change, field)) in cases.into_iter().enumerate() {
            let mut back = refund(10_000);
            change(&mut back);
            assert_eq!(refused(&event(EventBody::Refund(back))), field, "case {n}");
        }
        for (amounts, field) in [
            (vec![0, MOST], ""),
            (vec![1, -1], "/items"),
            (vec![MOST + 1], "/items"),
            (vec![1; 250], ""),
            (vec![1; 251], "/items"),
        ] {
            let back = Refund { items: items(&amounts), ..refund(10_000) };
            assert_eq!(refused(&event(EventBody::Refund(back))), field, "{} items", amounts.len());
        }
    }

    #[test]
    fn ids_have_1_to_200_characters_and_events_happened_since_1970_and_not_later_than_our_clock_allows() {
        let (fine, long) = ("x".repeat(200), "x".repeat(201));
        let withdrawal = |refund: &str| {
            EventBody::Withdrawal(Withdrawal { conversion: "1".into(), refund: refund.to_owned(), reason: None })
        };
        let of = |order: &str| EventBody::Refund(Refund { conversion: order.to_owned(), ..refund(1) });
        for (id, body, field) in [
            (fine.as_str(), of(&fine), ""),
            ("", of("1"), "/id"),
            (&long, of("1"), "/id"),
            ("1", of(""), "/conversion"),
            ("1", of(&long), "/conversion"),
            ("1", withdrawal(&fine), ""),
            ("1", withdrawal(""), "/refund"),
            ("1", withdrawal(&long), "/refund"),
        ] {
            assert_eq!(refused(&ConversionEvent { id: id.to_owned(), ..event(body) }), field);
        }
        for (seconds, field) in [(0, ""), (300, ""), (301, "/occurredAt"), (-1, "")] {
            let occurred_at = received() + SignedDuration::from_secs(seconds);
            assert_eq!(refused(&ConversionEvent { occurred_at, ..event(of("1")) }), field, "{seconds}");
        }
        for (second, field) in [(0, ""), (-1, "/occurredAt"), (1, "")] {
            let occurred_at = Timestamp::from_second(second).unwrap();
            assert_eq!(refused(&ConversionEvent { occurred_at, ..event(of("1")) }), field, "{second}");
        }
    }

    #[test]
    fn an_event_names_its_order_its_kind_and_its_currency() {
        let Sale { currency, total, tax, shipping, discount, store_credit, items, .. } = sale(1, 0, &[]);
        let edit = Edit { conversion: "o".into(), currency, total, tax, shipping, discount, store_credit, items };
        let withdrawal = Withdrawal { conversion: "o".into(), refund: "r".into(), reason: None };
        let back = Refund { conversion: "o".into(), ..refund(1) };
        for (body, order, kind, has_currency) in [
            (EventBody::Sale(sale(1, 0, &[])), "1", "sale", true),
            (EventBody::Refund(back), "o", "refund", true),
            (EventBody::Edit(edit), "o", "edit", true),
            (EventBody::Withdrawal(withdrawal), "o", "withdrawal", false),
        ] {
            let event = event(body);
            assert_eq!((event.order(), event.body.kind().as_str()), (order, kind));
            assert_eq!(event.currency().is_some(), has_currency, "{kind}");
        }
        let purchases = [Action::Sale, Action::Renewal, Action::Lead, Action::SignUp, Action::Custom];
        assert_eq!(purchases.map(Action::is_purchase), [true, true, false, false, false]);
        assert_eq!(purchases.map(|action| action.is_sale()), [true, false, false, false, false]);
    }

    /// What goes without saying takes no room in the journal, and its bytes are hashed.
    #[test]
    fn an_event_is_kept_without_what_it_does_not_say() {
        let kept = serde_json::json!({"id": "1", "occurredAt": "2026-06-01T00:00:00Z", "type": "sale", "action": "sale",
            "currency": "USD", "total": 100});
        assert_eq!(serde_json::json!(event(EventBody::Sale(sale(100, 0, &[])))), kept);
        let mut told = sale(100, 1, &[]);
        (told.shipping, told.discount, told.customer.new) = (minor(2), minor(3), Some(true));
        let kept = serde_json::json!({"id": "1", "occurredAt": "2026-06-01T00:00:00Z", "type": "sale", "action": "sale",
            "currency": "USD", "total": 100, "tax": 1, "shipping": 2, "discount": 3, "customer": {"new": true}});
        assert_eq!(serde_json::json!(event(EventBody::Sale(told))), kept);
    }

    #[test]
    fn a_code_is_short_plain_and_the_same_in_any_case() {
        for (text, code) in
            [(" Anna-10_a.b ", Some("ANNA-10_A.B")), ("", None), ("a b", None), ("\u{e4}", None), ("-", Some("-"))]
        {
            let read = text.parse::<Code>().ok();
            assert_eq!(read.as_ref().map(Code::as_str), code, "{text:?}");
            assert_eq!(read.map(String::from).as_deref(), code);
        }
        assert!("x".repeat(40).parse::<Code>().is_ok() && "x".repeat(41).parse::<Code>().is_err());
    }

    #[test]
    fn content_ignores_what_moves_no_money() {
        let event = |sale: Sale, second: i64| ConversionEvent {
            id: "1".into(),
            occurred_at: Timestamp::from_second(second).unwrap(),
            body: EventBody::Sale(sale),
        };
        let plain = sale(10_000, 0, &[]);
        let mut noted = plain.clone();
        noted.metadata.insert("note".into(), "sent again".into());
        let mut dearer = plain.clone();
        dearer.total = minor(10_001);
        assert_eq!(event(plain.clone(), 1).content(), event(noted, 2).content());
        assert_ne!(event(plain, 1).content(), event(dearer, 1).content());
    }
}
