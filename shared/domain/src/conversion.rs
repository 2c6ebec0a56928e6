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
                "discount": sale.discount, "items": sale.items, "partner": sale.partner.as_ref().map(PartnerRef::normalized),
                "coupons": sale.coupon_codes().collect::<Vec<_>>(),
            }),
            EventBody::Refund(refund) => serde_json::json!({
                "type": "refund", "conversion": refund.conversion, "currency": refund.currency, "total": refund.total,
                "tax": refund.tax, "shipping": refund.shipping, "items": refund.items,
            }),
            EventBody::Edit(edit) => serde_json::json!({
                "type": "edit", "conversion": edit.conversion, "currency": edit.currency, "total": edit.total,
                "tax": edit.tax, "shipping": edit.shipping, "discount": edit.discount, "items": edit.items,
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
        check_charge([self.total, self.tax, self.shipping, self.discount], &self.items, self.net())
    }
}

impl Edit {
    /// Goods after discounts, without tax and shipping, as [`Sale::net`].
    pub fn net(&self) -> Result<Minor, MoneyError> {
        net(&self.items, self.total, self.tax, self.shipping)
    }

    fn check(&self) -> Result<(), Impossible> {
        check_charge([self.total, self.tax, self.shipping, self.discount], &self.items, self.net())
    }
}

fn net(items: &[Item], total: Minor, tax: Minor, shipping: Minor) -> Result<Minor, MoneyError> {
    if items.is_empty() {
        total.minus(tax)?.minus(shipping)
    } else {
        Minor::total(items.iter().filter(|item| !item.gift_card).map(|item| item.amount))
    }
}

/// Refuses amounts that no order has. `amounts` are total, tax, shipping, discount.
fn check_charge(amounts: [Minor; 4], items: &[Item], net: Result<Minor, MoneyError>) -> Result<(), Impossible> {
    let refuse = |field, why: &str| Err(Impossible { field, why: why.to_owned() });
    for (field, amount) in
        ["/amount/total", "/amount/tax", "/amount/shipping", "/amount/discount"].into_iter().zip(amounts)
    {
        if amount.is_negative() || !amount.is_credible() {
            return refuse(field, "must be from zero to 10^12 minor units");
        }
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Sale,
    Lead,
    SignUp,
    Renewal,
    Custom,
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

/// What has gone back to the customer so far, kept exact: named items apart from what must be prorated.
///
/// A refund counts by what is known of it: its items; else its goods, where tax and shipping are told; else a share of the total,
/// in proportion to what goods were of the sale's total (less tax, or less shipping, where only that one is told).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refunded {
    /// Refunded amount per item position of the sale, gift cards included.
    per_item: BTreeMap<usize, i128>,
    /// Goods refunded without naming items, in base.
    goods: i128,
    /// Totals of which nothing else is known.
    mixed: i128,
    /// Totals less tax.
    mixed_without_tax: i128,
    /// Totals less shipping.
    mixed_without_shipping: i128,
    /// Everything that went back, goods or not.
    cash: i128,
    /// Some refund went beyond what was charged.
    pub beyond_charge: bool,
}

impl Refunded {
    /// Folds all refunds accepted for a sale, in any order.
    pub fn of<'a>(sale: &Sale, refunds: impl IntoIterator<Item = &'a Refund>) -> Self {
        let mut refunded = Self::default();
        for refund in refunds {
            refunded.add(sale, refund);
        }
        refunded.clamp(sale);
        refunded
    }

    fn add(&mut self, sale: &Sale, refund: &Refund) {
        let total = i128::from(refund.total.units());
        let less = |aside: Minor| (total - i128::from(aside.units())).max(0);
        self.cash += total;
        match (&refund.items, refund.tax, refund.shipping) {
            (Some(items), ..) => {
                for item in items {
                    self.add_item(sale, item);
                }
            }
            (None, Some(tax), Some(shipping)) => self.goods += (less(tax) - i128::from(shipping.units())).max(0),
            (None, Some(tax), None) => self.mixed_without_tax += less(tax),
            (None, None, Some(shipping)) => self.mixed_without_shipping += less(shipping),
            (None, None, None) => self.mixed += total,
        }
    }

    fn add_item(&mut self, sale: &Sale, refunded: &Item) {
        // One product may stand on several lines: fill them in turn, so that returning both ends at both.
        let mut left = i128::from(refunded.amount.units());
        let mut last = None;
        for (position, item) in sale.items.iter().enumerate().filter(|(_, item)| item.is(refunded)) {
            let taken = self.per_item.entry(position).or_default();
            let step = left.min(i128::from(item.amount.units()) - *taken).max(0);
            *taken += step;
            left -= step;
            last = Some(position);
        }
        match last {
            Some(position) => *self.per_item.entry(position).or_default() += left,
            // Of a gift card nothing was earned, so nothing is taken back.
            None if refunded.gift_card => {}
            None => self.goods += left,
        }
    }

    fn clamp(&mut self, sale: &Sale) {
        for (position, taken) in &mut self.per_item {
            let Some(item) = sale.items.get(*position) else { continue };
            let whole = i128::from(item.amount.units());
            if *taken > whole {
                // More than the item cost: the rest comes off the whole order, unless it was no goods at all.
                if !item.gift_card {
                    self.goods += *taken - whole;
                }
                *taken = whole;
            }
        }
        self.beyond_charge = self.cash > i128::from(sale.total.units());
    }

    fn named(&self, sale: &Sale, counts: impl Fn(usize) -> bool) -> i128 {
        let goods = self.per_item.iter().filter(|(position, _)| {
            counts(**position) && sale.items.get(**position).is_some_and(|item| !item.gift_card)
        });
        goods.map(|(_, taken)| *taken).sum()
    }

    /// Goods refunded without naming items. What is prorated is rounded to whole minor units, once per kind, on its sum.
    fn general(&self, sale: &Sale) -> Result<i128, MoneyError> {
        let (net, charged) = (sale.net()?, sale.total);
        let mut general = self.goods;
        for (part, whole) in [
            (self.mixed, charged),
            (self.mixed_without_tax, charged.minus(sale.tax)?),
            (self.mixed_without_shipping, charged.minus(sale.shipping)?),
        ] {
            // Gift cards may leave less to charge than tax and shipping alone.
            let whole = i128::from(whole.units()).max(0);
            general += i128::from(net.proportion(part.min(whole), whole)?.units());
        }
        Ok(general)
    }

    /// The refunded share of some of the sale's items (all of it where `items` is empty), as an exact fraction between
    /// zero and one: (numerator, denominator).
    ///
    /// Items that cost nothing share the order's fate. An order that cost nothing is refunded when all that was charged
    /// for it, which may be nothing either, has gone back.
    pub fn share(&self, sale: &Sale, items: &[usize]) -> Result<(i128, i128), MoneyError> {
        let net = i128::from(sale.net()?.units());
        if net == 0 {
            let refunded = *self != Self::default() && self.cash >= i128::from(sale.total.units());
            return Ok((i128::from(refunded), 1));
        }
        let general = self.general(sale)?;
        let amounts = items.iter().filter_map(|position| sale.items.get(*position)).map(|item| item.amount);
        let part = i128::from(Minor::total(amounts)?.units());
        let (numerator, denominator) = if part == 0 {
            (self.named(sale, |_| true) + general, net)
        } else {
            // (named + general x part / net) / part
            (self.named(sale, |position| items.contains(&position)) * net + general * part, part * net)
        };
        Ok((numerator.min(denominator), denominator))
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

    fn reduction(earned: i64, sale: &Sale, refunds: &[Refund]) -> i64 {
        let (numerator, denominator) = Refunded::of(sale, refunds).share(sale, &[]).unwrap();
        minor(earned).proportion(numerator, denominator).unwrap().units()
    }

    #[test]
    fn a_total_only_refund_is_prorated_into_base() {
        // 118.00 with 18.00 tax, 30 % earned; 40.00 back is 33.90 of base, so 10.17.
        assert_eq!(reduction(3_000, &sale(11_800, 1_800, &[]), &[refund(4_000)]), 1_017);
        // 25 % of 100.00, then 40.00 refunded.
        assert_eq!(reduction(2_500, &sale(10_000, 0, &[]), &[refund(4_000)]), 1_000);
        // Earning 2, charge 3, refund 1.
        assert_eq!(reduction(2, &sale(3, 0, &[]), &[refund(1)]), 1);
    }

    #[test]
    fn tax_or_shipping_alone_takes_nothing_back() {
        let mut tax_only = refund(1_800);
        tax_only.tax = Some(minor(1_800));
        assert_eq!(reduction(3_000, &sale(11_800, 1_800, &[]), &[tax_only]), 0);
    }

    #[test]
    fn any_sequence_of_partials_ends_at_the_whole() {
        let order = sale(11_800, 1_800, &[]);
        for step in [1, 7, 590, 3_933] {
            let mut refunds = vec![refund(step); 11_800 / usize::try_from(step).unwrap()];
            refunds.push(refund(11_800 % step));
            assert_eq!(reduction(2_999, &order, &refunds), 2_999, "in steps of {step}");
        }
    }

    #[test]
    fn beyond_the_charge_is_clamped_and_told() {
        let order = sale(10_000, 0, &[]);
        let refunded = Refunded::of(&order, &[refund(9_000), refund(2_000)]);
        assert!(refunded.beyond_charge);
        assert_eq!(reduction(2_500, &order, &[refund(9_000), refund(2_000)]), 2_500);
    }

    #[test]
    fn a_named_item_takes_back_only_what_was_earned_on_it() {
        let order = sale(10_000, 0, &[("A", 4_000), ("B", 6_000)]);
        let mut back = refund(4_000);
        back.items = Some(order.items[..1].to_vec());
        let refunded = Refunded::of(&order, &[back]);
        let of = |items: &[usize]| {
            let (n, d) = refunded.share(&order, items).unwrap();
            minor(1_000).proportion(n, d).unwrap().units()
        };
        assert_eq!((of(&[0]), of(&[1]), of(&[])), (1_000, 0, 400));
    }

    #[test]
    fn a_refunded_gift_card_takes_nothing_back() {
        let mut order = sale(10_000, 0, &[("CARD", 5_000), ("A", 5_000)]);
        order.items[0].gift_card = true;
        let mut back = refund(5_000);
        // Our own form names the item and not what kind it is.
        back.items = Some(vec![Item { gift_card: false, ..order.items[0].clone() }]);
        let (part, whole) = Refunded::of(&order, &[back]).share(&order, &[1]).unwrap();
        assert_eq!(minor(500).proportion(part, whole).unwrap(), minor(0));
    }

    #[test]
    fn what_is_not_told_of_a_refund_is_prorated() {
        let order = sale(11_800, 1_800, &[]);
        let with = |total, tax: Option<i64>, shipping: Option<i64>| {
            let mut back = refund(total);
            (back.tax, back.shipping) = (tax.map(minor), shipping.map(minor));
            back
        };
        assert_eq!(reduction(3_000, &order, &[with(4_000, None, Some(0))]), 1_017);
        assert_eq!(reduction(3_000, &order, &[with(4_000, Some(610), None)]), 1_017);
        assert_eq!(reduction(3_000, &order, &[with(4_000, Some(610), Some(0))]), 1_017);
        let whole = with(11_800, None, Some(0));
        assert!(!Refunded::of(&order, [&whole]).beyond_charge);
        assert_eq!(reduction(3_000, &order, &[whole]), 3_000);
        assert!(Refunded::of(&order, [&with(500_000, Some(500_000), None)]).beyond_charge);
    }

    #[test]
    fn an_order_paid_by_gift_card_is_not_refunded_by_itself() {
        let mut order = sale(1_000, 1_800, &[("A", 10_000)]);
        order.shipping = minor(1_500);
        assert_eq!(reduction(1_000, &order, &[]), 0);
        let mut shipping_only = refund(500);
        shipping_only.shipping = Some(minor(500));
        assert_eq!(reduction(1_000, &order, &[shipping_only]), 0);
        let mut goods = refund(5_000);
        goods.items = Some(vec![Item { amount: minor(5_000), ..order.items[0].clone() }]);
        assert_eq!(reduction(1_000, &order, &[goods]), 500);
    }

    #[test]
    fn what_cost_nothing_shares_the_fate_of_its_order() {
        let order = sale(10_000, 0, &[("FREE", 0), ("A", 10_000)]);
        let of = |refunds: &[Refund], items: &[usize]| Refunded::of(&order, refunds).share(&order, items).unwrap();
        let (part, whole) = of(&[refund(10_000)], &[0]);
        assert_eq!(part, whole);
        let (part, whole) = of(&[refund(5_000)], &[0]);
        assert_eq!(part * 2, whole);
        let free = sale(0, 0, &[]);
        assert_eq!(Refunded::of(&free, []).share(&free, &[]).unwrap(), (0, 1));
        assert_eq!(Refunded::of(&free, &[refund(0)]).share(&free, &[]).unwrap(), (0, 1), "nothing happened");
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
