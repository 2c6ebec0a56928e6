//! Shopify: `orders/paid` is a sale, `refunds/create` a refund; disputes are in [`dispute`], edits in [`edit`].
//! Everything is kept in the shop's currency.
//!
//! Field meanings: shopify.dev, REST Admin API, "Order" and "Refund", whose shape the webhooks have.
//!
//! - The topic stands in a header, and headers are not signed. So an order must also say itself that it is paid, and
//!   neither payload can be read as the other.
//! - Goods are summed from the lines: `price` x `quantity` - the line's discount allocations, and without the tax in it
//!   where prices include tax. `subtotal_price` and a line's `total_discount` are something else.
//! - An order edited before it was paid still lists its old quantities, and what was taken off as refunds without
//!   money: that was never paid, and is no part of the sale.
//! - A cancelled order that was paid stays a sale until its money goes back, which its refund reports.
//! - Subscription apps bill by orders whose `source_name` says so; the first one comes from the checkout.

mod dispute;
mod edit;

use domain::conversion::{Action, ConversionEvent, Customer, EventBody, Item, Refund, Sale};
use domain::money::{Currency, Minor, MoneyError};
use http::HeaderMap;
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;

use crate::evidence::{Evidence, country, email_hash};
use crate::payload::{Exact, Id, currency, cut, list, money, name, parse, required, time};
use crate::{Reading, Unreadable, header};

pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Reading, Unreadable> {
    if header(headers, &["x-shopify-test", "shopify-test"]) == Some("true") {
        return Ok(Reading::Ignored("a test notification"));
    }
    match header(headers, &["x-shopify-topic", "shopify-topic"]) {
        Some("orders/paid") => parse::<Order>(body)?.read(),
        Some("refunds/create") => parse::<RefundOrder>(body)?.read(),
        Some("disputes/create" | "disputes/update") => parse::<dispute::Dispute>(body)?.read(),
        Some("orders/edited") => parse::<edit::Edited>(body)?.read(),
        Some("orders/cancelled") => Ok(Reading::Ignored("what a cancelled order gives back, its refund reports")),
        Some("orders/updated") => Ok(Reading::Ignored("restates the order, whose payment and refunds are reported")),
        Some(_) => Ok(Reading::Ignored("a topic that moves no money, or another one reports it")),
        None => Err(Unreadable::invalid("", "has no X-Shopify-Topic header")),
    }
}

/// Shopify states an amount plainly, in the shop's currency, and as a pair with the customer's.
#[derive(Debug, Deserialize)]
struct Pair {
    shop_money: Option<Money>,
    presentment_money: Option<Money>,
}

#[derive(Debug, Deserialize)]
struct Money {
    amount: Exact,
    currency_code: String,
}

/// One side of all pairs.
#[derive(Debug, Clone, Copy)]
struct Side {
    currency: Currency,
    shop: bool,
}

impl Side {
    const fn shop(currency: Currency) -> Self {
        Self { currency, shop: true }
    }

    /// The amount on this side; `None` where it is not given at all.
    fn of(self, pair: Option<&Pair>, plain: Option<&Exact>, pointer: &str) -> Result<Option<Minor>, Unreadable> {
        let money = pair.and_then(|pair| if self.shop { &pair.shop_money } else { &pair.presentment_money }.as_ref());
        let at = || pointer.to_owned();
        match (money, plain) {
            (Some(money), _) if !money.currency_code.eq_ignore_ascii_case(self.currency.code()) => {
                Err(Unreadable::invalid(pointer, format!("is not in {}", self.currency)))
            }
            (Some(money), _) => money.amount.minor(self.currency, at).map(Some),
            (None, Some(plain)) if self.shop => plain.minor(self.currency, at).map(Some),
            (None, Some(_)) => Err(Unreadable::invalid(pointer, format!("is not given in {}", self.currency))),
            (None, None) => Ok(None),
        }
    }
}

/// The id at the end of `gid://shopify/Order/1`, else the plain one: copies of a payload that passed through doubles
/// have lost digits of the latter.
fn id(gid: Option<&str>, plain: &Id, pointer: &str) -> Result<String, Unreadable> {
    let tail = gid
        .and_then(|gid| gid.strip_prefix("gid://shopify/"))
        .and_then(|gid| gid.rsplit_once('/'))
        .map(|(_, tail)| tail)
        .filter(|tail| !tail.is_empty() && tail.bytes().all(|c| c.is_ascii_digit()));
    required(Some(tail.unwrap_or(plain.as_str())), pointer)
}

fn when(processed: Option<&str>, created: Option<&str>) -> Result<Timestamp, Unreadable> {
    match (processed, created) {
        (Some(text), _) => time(text, "/processed_at"),
        (None, Some(text)) => time(text, "/created_at"),
        (None, None) => Err(Unreadable::invalid("/processed_at", "is missing")),
    }
}

#[derive(Debug, Deserialize)]
struct Order {
    id: Id,
    admin_graphql_api_id: Option<String>,
    test: Option<bool>,
    cancelled_at: Option<String>,
    financial_status: Option<String>,
    processed_at: Option<String>,
    created_at: Option<String>,
    currency: String,
    taxes_included: Option<bool>,
    total_price: Exact,
    total_price_set: Option<Pair>,
    total_tax: Option<Exact>,
    total_tax_set: Option<Pair>,
    /// With what was edited and refunded since.
    current_total_price: Option<Exact>,
    current_total_price_set: Option<Pair>,
    current_total_tax: Option<Exact>,
    current_total_tax_set: Option<Pair>,
    total_shipping_price_set: Option<Pair>,
    shipping_lines: Option<Vec<ShippingLine>>,
    line_items: Vec<Line>,
    #[serde(default, deserialize_with = "list")]
    refunds: Vec<Return>,
    #[serde(default, deserialize_with = "list")]
    discount_codes: Vec<DiscountCode>,
    #[serde(default, deserialize_with = "list")]
    note_attributes: Vec<Attribute>,
    landing_site: Option<String>,
    source_name: Option<String>,
    email: Option<String>,
    contact_email: Option<String>,
    customer: Option<Buyer>,
    shipping_address: Option<Address>,
    billing_address: Option<Address>,
}

#[derive(Debug, Deserialize)]
struct ShippingLine {
    price: Option<Exact>,
    price_set: Option<Pair>,
    discounted_price: Option<Exact>,
    discounted_price_set: Option<Pair>,
    #[serde(default, deserialize_with = "list")]
    tax_lines: Vec<TaxLine>,
    is_removed: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Line {
    id: Option<Id>,
    sku: Option<String>,
    product_id: Option<Id>,
    /// As placed.
    quantity: Exact,
    /// Without what was taken off or refunded since.
    current_quantity: Option<Exact>,
    price: Exact,
    price_set: Option<Pair>,
    gift_card: Option<bool>,
    /// Set on the line a tip is booked as.
    tip: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "list")]
    discount_allocations: Vec<Allocation>,
    #[serde(default, deserialize_with = "list")]
    tax_lines: Vec<TaxLine>,
}

#[derive(Debug, Deserialize)]
struct Allocation {
    amount: Exact,
    amount_set: Option<Pair>,
}

#[derive(Debug, Deserialize)]
struct TaxLine {
    price: Exact,
    price_set: Option<Pair>,
}

#[derive(Debug, Deserialize)]
struct DiscountCode {
    code: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    name: Option<String>,
    /// Apps may leave other JSON than text.
    value: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Buyer {
    id: Option<Id>,
    email: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Address {
    country_code: Option<String>,
}

/// A refund as its order repeats it.
#[derive(Debug, Deserialize)]
struct Return {
    #[serde(default, deserialize_with = "list")]
    transactions: Vec<Transaction>,
    #[serde(default, deserialize_with = "list")]
    refund_line_items: Vec<RefundLine>,
}

impl Return {
    fn moved_money(&self) -> bool {
        let moved = |status: &str| matches!(status, "success" | "pending");
        let mut refunds = self.transactions.iter().filter(|transaction| transaction.is_refund());
        refunds.any(|refund| refund.status.as_deref().is_some_and(moved))
    }

    /// Whether it only took items off the order.
    fn takes_off(&self) -> bool {
        !self.refund_line_items.is_empty() && !self.moved_money()
    }
}

/// What one line comes to, or a part of it.
#[derive(Debug, Clone, Copy)]
struct LineSum {
    quantity: Decimal,
    net: Minor,
    discount: Minor,
}

impl LineSum {
    fn less(self, part: Self) -> Result<Self, MoneyError> {
        Ok(Self {
            quantity: self.quantity.checked_sub(part.quantity).ok_or(MoneyError::Overflow)?,
            net: self.net.minus(part.net)?,
            discount: self.discount.minus(part.discount)?,
        })
    }
}

impl Order {
    fn read(&self) -> Result<Reading, Unreadable> {
        if self.test == Some(true) {
            return Ok(Reading::Ignored("a test order"));
        }
        if self.cancelled_at.is_some() {
            return Ok(Reading::Ignored("the order is cancelled"));
        }
        match self.financial_status.as_deref() {
            // Paid, whatever has gone back since: refunds come on their own.
            Some("paid" | "partially_refunded" | "refunded") => {}
            Some("partially_paid") => return Ok(Reading::Ignored("the order is not fully paid")),
            Some("authorized") => return Ok(Reading::Ignored("the payment is only authorized")),
            Some("pending" | "voided" | "expired" | "unpaid") => return Ok(Reading::Ignored("the order is not paid")),
            _ => return Err(Unreadable::invalid("/financial_status", "is missing or unknown")),
        }
        let event = ConversionEvent {
            id: id(self.admin_graphql_api_id.as_deref(), &self.id, "/id")?,
            occurred_at: when(self.processed_at.as_deref(), self.created_at.as_deref())?,
            body: EventBody::Sale(self.sale()?),
        };
        Ok(Reading::Events(vec![event]))
    }

    fn sale(&self) -> Result<Sale, Unreadable> {
        let currency = currency(&self.currency, "/currency")?;
        let side = Side::shop(currency);
        let (items, discount) = self.items(side)?;
        let (total, tax) = self.charged(side)?;
        let evidence = self.evidence();
        Ok(Sale {
            action: if self.is_renewal() { Action::Renewal } else { Action::Sale },
            partner: evidence.partner,
            coupons: self.coupons()?,
            click_id: evidence.click_id,
            visitor_id: evidence.visitor_id,
            customer: self.buyer()?,
            currency,
            total,
            tax,
            shipping: self.shipping(side)?,
            discount,
            store_credit: Minor::ZERO,
            items,
            channel: name(self.source_name.as_deref(), || "/source_name".into())?,
            campaign: evidence.campaign,
            country: country(
                [&self.shipping_address, &self.billing_address]
                    .map(|address| address.as_ref().and_then(|address| address.country_code.as_deref())),
            ),
            metadata: std::collections::BTreeMap::new(),
        })
    }

    /// Total and tax, without what was taken off before it was paid.
    fn charged(&self, side: Side) -> Result<(Minor, Minor), Unreadable> {
        if !self.refunds.iter().any(Return::takes_off) {
            let total = side.of(self.total_price_set.as_ref(), Some(&self.total_price), "/total_price")?;
            let tax = side.of(self.total_tax_set.as_ref(), self.total_tax.as_ref(), "/total_tax")?;
            return Ok((total.unwrap_or_default(), tax.unwrap_or_default()));
        }
        if self.refunds.iter().any(Return::moved_money) {
            let detail = "the order was edited and refunded before it was paid, and what was charged is not told";
            return Err(Unreadable::invalid("/refunds", detail));
        }
        let at = "/current_total_price";
        let total = side.of(self.current_total_price_set.as_ref(), self.current_total_price.as_ref(), at)?;
        let total = total.ok_or_else(|| Unreadable::invalid(at, "is missing, though the order was edited"))?;
        let at = "/current_total_tax";
        let tax = side.of(self.current_total_tax_set.as_ref(), self.current_total_tax.as_ref(), at)?;
        Ok((total, tax.unwrap_or_default()))
    }

    /// The items, and what was taken off them. Other discounts were on the shipping.
    fn items(&self, side: Side) -> Result<(Vec<Item>, Minor), Unreadable> {
        let mut items = Vec::with_capacity(self.line_items.len());
        let mut discount = Minor::ZERO;
        for (k, line) in self.line_items.iter().enumerate().filter(|(_, line)| line.tip.is_none()) {
            let at = format!("/line_items/{k}");
            let placed = line.sum(side, self.taxes_included == Some(true), &at)?;
            let Some(sum) = self.paid(line, placed, side, &at)? else { continue };
            discount = discount.plus(sum.discount).map_err(|error| money(|| at.clone(), &error))?;
            items.push(Item {
                sku: name(line.sku.as_deref(), || format!("{at}/sku"))?,
                product: name(line.product_id.as_ref().map(Id::as_str), || format!("{at}/product_id"))?,
                category: None,
                quantity: sum.quantity,
                amount: sum.net,
                gift_card: line.gift_card == Some(true),
            });
        }
        Ok((items, discount))
    }

    /// A line without what was taken off it before the order was paid; `None` if that was all of it.
    fn paid(&self, line: &Line, placed: LineSum, side: Side, at: &str) -> Result<Option<LineSum>, Unreadable> {
        let refuse = |error: MoneyError| money(|| at.to_owned(), &error);
        let (mut paid, mut left) = (placed, placed.quantity);
        for back in &self.refunds {
            for part in back.refund_line_items.iter().filter(|part| part.is_of(line)) {
                let quantity =
                    part.quantity.as_ref().map_or(Ok(Decimal::ONE), |part| part.decimal(|| at.to_owned()))?;
                left = left.checked_sub(quantity).ok_or(MoneyError::Overflow).map_err(refuse)?;
                if !back.moved_money() {
                    paid = paid.less(self.taken_off(line, part, quantity, side)?).map_err(refuse)?;
                }
            }
        }
        let told = line.current_quantity.as_ref().map(|told| told.decimal(|| format!("{at}/current_quantity")));
        if told.transpose()?.is_some_and(|told| told < left) && self.is_less_now(side)? {
            let detail = "less is left of the line than its refunds explain: what was paid for it is not told";
            return Err(Unreadable::invalid(format!("{at}/current_quantity"), detail));
        }
        Ok(Some(paid).filter(|paid| !paid.quantity.is_zero() || placed.quantity.is_zero()))
    }

    /// Whether the order has become cheaper since it was placed.
    fn is_less_now(&self, side: Side) -> Result<bool, Unreadable> {
        let pair = self.current_total_price_set.as_ref();
        let now = side.of(pair, self.current_total_price.as_ref(), "/current_total_price")?;
        let placed = side.of(self.total_price_set.as_ref(), Some(&self.total_price), "/total_price")?;
        Ok(now.is_some() && now < placed)
    }

    /// What one entry of a refund without money took off its line.
    fn taken_off(&self, line: &Line, part: &RefundLine, quantity: Decimal, side: Side) -> Result<LineSum, Unreadable> {
        let at = "/refunds";
        let refuse = |error: MoneyError| money(|| at.to_owned(), &error);
        let goods = side.of(part.subtotal_set.as_ref(), part.subtotal.as_ref(), at)?;
        let goods = goods.ok_or_else(|| Unreadable::invalid(at, "has a line without its amount"))?;
        let tax = side.of(part.total_tax_set.as_ref(), part.total_tax.as_ref(), at)?.unwrap_or_default();
        let net = if self.taxes_included == Some(true) { goods.minus(tax).map_err(refuse)? } else { goods };
        let discount = line.price_of(quantity, side, at)?.minus(goods).map_err(refuse)?;
        Ok(LineSum { quantity, net, discount })
    }

    /// Orders by which a subscription is billed after its first one. Apps do not all give the same name.
    fn is_renewal(&self) -> bool {
        matches!(self.source_name.as_deref(), Some("subscription_contract" | "subscription_contract_checkout_one"))
    }

    /// Shipping after its discounts, without the tax in it.
    fn shipping(&self, side: Side) -> Result<Minor, Unreadable> {
        let Some(lines) = &self.shipping_lines else {
            let pair = self.total_shipping_price_set.as_ref();
            return Ok(side.of(pair, None, "/total_shipping_price_set")?.unwrap_or_default());
        };
        let mut total = Minor::ZERO;
        for (k, line) in lines.iter().enumerate().filter(|(_, line)| line.is_removed != Some(true)) {
            let at = format!("/shipping_lines/{k}");
            let discounted = side.of(line.discounted_price_set.as_ref(), line.discounted_price.as_ref(), &at)?;
            let price = match discounted {
                Some(price) => price,
                None => side.of(line.price_set.as_ref(), line.price.as_ref(), &at)?.unwrap_or_default(),
            };
            let included = self.taxes_included == Some(true);
            let tax = if included { taxes(&line.tax_lines, side, &at)? } else { Minor::ZERO };
            total = price.minus(tax).and_then(|net| total.plus(net)).map_err(|error| money(|| at, &error))?;
        }
        Ok(total)
    }

    fn coupons(&self) -> Result<Vec<String>, Unreadable> {
        let codes = self.discount_codes.iter().enumerate();
        codes
            .filter_map(|(k, code)| name(code.code.as_deref(), || format!("/discount_codes/{k}/code")).transpose())
            .collect()
    }

    fn evidence(&self) -> Evidence {
        let mut evidence = Evidence::default();
        for Attribute { name, value } in &self.note_attributes {
            if let (Some(name), Some(value)) = (name, value.as_ref().and_then(|value| value.as_str())) {
                evidence.named(name, value);
            }
        }
        if let Some(landing) = &self.landing_site {
            evidence.landing(landing);
        }
        evidence
    }

    fn buyer(&self) -> Result<Customer, Unreadable> {
        let buyer = self.customer.as_ref();
        let id = buyer.and_then(|buyer| buyer.id.as_ref()).map(Id::as_str);
        let in_profile = buyer.and_then(|buyer| buyer.email.as_deref());
        Ok(Customer {
            id: name(id, || "/customer/id".into())?,
            email_hash: email_hash([self.email.as_deref(), self.contact_email.as_deref(), in_profile]),
            // Not told since webhook version 2025-01; `orders_count` before was counted while orders came in. But who
            // renews has bought before.
            new: self.is_renewal().then_some(false),
        })
    }
}

impl Line {
    fn price_of(&self, quantity: Decimal, side: Side, at: &str) -> Result<Minor, Unreadable> {
        let unit = side.of(self.price_set.as_ref(), Some(&self.price), at)?.unwrap_or_default();
        let price = Decimal::from(unit.units()).checked_mul(quantity).ok_or(MoneyError::Overflow);
        price.and_then(Minor::round).map_err(|error| money(|| at.to_owned(), &error))
    }

    fn sum(&self, side: Side, tax_included: bool, at: &str) -> Result<LineSum, Unreadable> {
        let refuse = |error: MoneyError| money(|| at.to_owned(), &error);
        let quantity = self.quantity.decimal(|| format!("{at}/quantity"))?;
        let price = self.price_of(quantity, side, at)?;
        let mut discount = Minor::ZERO;
        for allocation in &self.discount_allocations {
            let amount = side.of(allocation.amount_set.as_ref(), Some(&allocation.amount), at)?.unwrap_or_default();
            discount = discount.plus(amount).map_err(refuse)?;
        }
        let tax = if tax_included { taxes(&self.tax_lines, side, at)? } else { Minor::ZERO };
        let net = price.minus(discount).and_then(|left| left.minus(tax)).map_err(refuse)?;
        Ok(LineSum { quantity, net, discount })
    }
}

fn taxes(lines: &[TaxLine], side: Side, at: &str) -> Result<Minor, Unreadable> {
    let mut total = Minor::ZERO;
    for line in lines {
        let tax = side.of(line.price_set.as_ref(), Some(&line.price), at)?.unwrap_or_default();
        total = total.plus(tax).map_err(|error| money(|| at.to_owned(), &error))?;
    }
    Ok(total)
}

/// A refund of an order.
#[derive(Debug, Deserialize)]
struct RefundOrder {
    id: Id,
    admin_graphql_api_id: Option<String>,
    order_id: Id,
    processed_at: Option<String>,
    created_at: Option<String>,
    note: Option<String>,
    transactions: Vec<Transaction>,
    #[serde(default, deserialize_with = "list")]
    refund_line_items: Vec<RefundLine>,
    #[serde(default, deserialize_with = "list")]
    refund_shipping_lines: Vec<RefundShipping>,
    #[serde(default, deserialize_with = "list")]
    order_adjustments: Vec<Adjustment>,
    total_duties_set: Option<Pair>,
}

#[derive(Debug, Deserialize)]
struct Transaction {
    kind: Option<String>,
    status: Option<String>,
    amount: Option<Exact>,
    currency: Option<String>,
}

impl Transaction {
    fn is_refund(&self) -> bool {
        self.kind.as_deref() == Some("refund")
    }
}

#[derive(Debug, Deserialize)]
struct RefundLine {
    line_item_id: Option<Id>,
    quantity: Option<Exact>,
    subtotal: Option<Exact>,
    subtotal_set: Option<Pair>,
    total_tax: Option<Exact>,
    total_tax_set: Option<Pair>,
    line_item: Option<RefundedLine>,
}

impl RefundLine {
    fn is_of(&self, line: &Line) -> bool {
        self.line_item_id.is_some() && self.line_item_id == line.id
    }
}

#[derive(Debug, Deserialize)]
struct RefundedLine {
    sku: Option<String>,
    product_id: Option<Id>,
    gift_card: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RefundShipping {
    subtotal_amount_set: Option<Pair>,
    tax_amount_set: Option<Pair>,
}

#[derive(Debug, Deserialize)]
struct Adjustment {
    kind: Option<String>,
    amount: Option<Exact>,
    amount_set: Option<Pair>,
    tax_amount: Option<Exact>,
    tax_amount_set: Option<Pair>,
}

/// The parts of a refund, on one side.
#[derive(Debug, Default)]
struct Parts {
    /// Per refunded line: after discounts, and its tax.
    lines: Vec<(Minor, Minor)>,
    shipping: Minor,
    /// Given back beyond the lines and the shipping; negative where a part of their price was kept.
    extra: Minor,
    /// Tax on the shipping and on `extra`.
    aside_tax: Minor,
}

/// How the parts make up the cash. A refund does not tell whether the shop's prices include tax; the sum does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaxForm {
    Apart,
    WithinLines,
    WithinAll,
}

impl Parts {
    fn sum(&self, form: TaxForm) -> Result<Minor, MoneyError> {
        let goods = Minor::total(self.lines.iter().map(|(goods, _)| *goods))?;
        let sum = goods.plus(self.shipping)?.plus(self.extra)?;
        match form {
            TaxForm::Apart => sum.plus(self.line_tax()?)?.plus(self.aside_tax),
            TaxForm::WithinLines => sum.plus(self.aside_tax),
            TaxForm::WithinAll => Ok(sum),
        }
    }

    fn line_tax(&self) -> Result<Minor, MoneyError> {
        Minor::total(self.lines.iter().map(|(_, tax)| *tax))
    }

    /// The form in which the parts are the cash; `None` where they are not (duties, tips, rounding, another tender).
    fn form(&self, cash: Minor) -> Result<Option<TaxForm>, MoneyError> {
        for form in [TaxForm::Apart, TaxForm::WithinLines, TaxForm::WithinAll] {
            if self.sum(form)? == cash {
                return Ok(Some(form));
            }
        }
        Ok(None)
    }
}

impl RefundOrder {
    fn read(&self) -> Result<Reading, Unreadable> {
        if self.refunds().any(|transaction| transaction.status.as_deref() == Some("pending")) {
            return Err(Unreadable::invalid("/transactions", "the refund is still under way at the payment provider"));
        }
        let Some((cash, paid_in)) = self.cash()? else {
            return Ok(Reading::Ignored("no money went back"));
        };
        let event = ConversionEvent {
            id: id(self.admin_graphql_api_id.as_deref(), &self.id, "/id")?,
            occurred_at: when(self.processed_at.as_deref(), self.created_at.as_deref())?,
            body: EventBody::Refund(self.refund(cash, paid_in)?),
        };
        Ok(Reading::Events(vec![event]))
    }

    fn refunds(&self) -> impl Iterator<Item = &Transaction> {
        self.transactions.iter().filter(|transaction| transaction.is_refund())
    }

    /// What went back, in the currency it was paid in, which is the customer's. `None` where nothing did: an order that
    /// was edited or cancelled unpaid has refunds without transactions.
    fn cash(&self) -> Result<Option<(Minor, Currency)>, Unreadable> {
        let mut cash: Option<(Minor, Currency)> = None;
        for transaction in self.refunds().filter(|transaction| transaction.status.as_deref() == Some("success")) {
            let paid_in = currency(transaction.currency.as_deref().unwrap_or_default(), "/transactions")?;
            let at = || "/transactions".to_owned();
            let amount = transaction.amount.as_ref().ok_or_else(|| Unreadable::invalid(at(), "has no amount"))?;
            let (so_far, first) = cash.unwrap_or((Minor::ZERO, paid_in));
            if first != paid_in {
                return Err(Unreadable::invalid(at(), "went back in several currencies"));
            }
            let sum = so_far.plus(amount.minor(paid_in, at)?).map_err(|error| money(at, &error))?;
            cash = Some((sum, paid_in));
        }
        Ok(cash.filter(|(sum, _)| !sum.is_zero()))
    }

    fn refund(&self, cash: Minor, paid_in: Currency) -> Result<Refund, Unreadable> {
        let refuse = |error: MoneyError| money(String::new, &error);
        let shop = Side::shop(self.shop_currency()?.unwrap_or(paid_in));
        let parts = self.parts(shop)?;
        let form = if shop.currency == paid_in {
            parts.as_ref().map_or(Ok(None), |parts| parts.form(cash)).map_err(refuse)?
        } else {
            let theirs = self.parts(Side { currency: paid_in, shop: false })?;
            theirs.map_or(Ok(None), |parts| parts.form(cash)).map_err(refuse)?
        };
        let (total, told) = match (parts, form) {
            (Some(parts), Some(form)) => {
                let total = parts.sum(form).map_err(refuse)?;
                (total, self.told(&parts, form)?)
            }
            // The cash is certain, how it divides is not: prorating it never takes back more than went back.
            _ if shop.currency == paid_in => (cash, Told::default()),
            _ => {
                let detail = format!("went back in {paid_in}; what that is in {} is not told", shop.currency);
                return Err(Unreadable::invalid("/transactions", detail));
            }
        };
        Ok(Refund {
            conversion: required(Some(self.order_id.as_str()), "/order_id")?,
            currency: shop.currency,
            total,
            tax: told.tax,
            shipping: told.shipping,
            items: told.items,
            reason: self.note.as_deref().filter(|note| !note.trim().is_empty()).map(cut),
            chargeback: false,
        })
    }

    /// The refund does not name the shop's currency, but every pair does.
    fn shop_currency(&self) -> Result<Option<Currency>, Unreadable> {
        let lines = self.refund_line_items.iter().map(|line| &line.subtotal_set);
        let shipping = self.refund_shipping_lines.iter().map(|line| &line.subtotal_amount_set);
        let adjustments = self.order_adjustments.iter().map(|adjustment| &adjustment.amount_set);
        let mut pairs = lines.chain(shipping).chain(adjustments).chain([&self.total_duties_set]).flatten();
        let money = pairs.find_map(|pair| pair.shop_money.as_ref());
        money.map(|money| currency(&money.currency_code, "/refund_line_items")).transpose()
    }

    /// `None` where the lines carry no amounts, as in API versions before 2018.
    fn parts(&self, side: Side) -> Result<Option<Parts>, Unreadable> {
        let mut parts = Parts::default();
        for (k, line) in self.refund_line_items.iter().enumerate() {
            let at = format!("/refund_line_items/{k}");
            let Some(goods) = side.of(line.subtotal_set.as_ref(), line.subtotal.as_ref(), &at)? else {
                return Ok(None);
            };
            let tax = side.of(line.total_tax_set.as_ref(), line.total_tax.as_ref(), &at)?;
            parts.lines.push((goods, tax.unwrap_or_default()));
        }
        self.add_shipping(&mut parts, side)?;
        self.add_adjustments(&mut parts, side)?;
        Ok(Some(parts))
    }

    fn add_shipping(&self, parts: &mut Parts, side: Side) -> Result<(), Unreadable> {
        let at = "/refund_shipping_lines";
        for line in &self.refund_shipping_lines {
            let amount = side.of(line.subtotal_amount_set.as_ref(), None, at)?.unwrap_or_default();
            let tax = side.of(line.tax_amount_set.as_ref(), None, at)?.unwrap_or_default();
            parts.shipping = parts.shipping.plus(amount).map_err(|error| money(|| at.into(), &error))?;
            parts.aside_tax = parts.aside_tax.plus(tax).map_err(|error| money(|| at.into(), &error))?;
        }
        Ok(())
    }

    /// Adjustments are signed from the shop's books: -5.00 went to the customer.
    fn add_adjustments(&self, parts: &mut Parts, side: Side) -> Result<(), Unreadable> {
        let at = "/order_adjustments";
        for adjustment in &self.order_adjustments {
            let shipping = adjustment.kind.as_deref() == Some("shipping_refund");
            if shipping && !self.refund_shipping_lines.is_empty() {
                // Versions from 2024-10 on state one shipping refund in both places.
                continue;
            }
            let amount = side.of(adjustment.amount_set.as_ref(), adjustment.amount.as_ref(), at)?.unwrap_or_default();
            let tax = side.of(adjustment.tax_amount_set.as_ref(), adjustment.tax_amount.as_ref(), at)?;
            let slot = if shipping { &mut parts.shipping } else { &mut parts.extra };
            *slot = slot.minus(amount).map_err(|error| money(|| at.into(), &error))?;
            let aside = parts.aside_tax.minus(tax.unwrap_or_default());
            parts.aside_tax = aside.map_err(|error| money(|| at.into(), &error))?;
        }
        Ok(())
    }

    /// How the refund divides.
    fn told(&self, parts: &Parts, form: TaxForm) -> Result<Told, Unreadable> {
        let refuse = |error: MoneyError| money(String::new, &error);
        if parts.lines.is_empty() {
            return Ok(without_lines(parts));
        }
        let mut amounts = Vec::with_capacity(parts.lines.len());
        for (goods, tax) in &parts.lines {
            let net = if form == TaxForm::Apart { *goods } else { goods.minus(*tax).map_err(refuse)? };
            amounts.push(net);
        }
        let goods = Minor::total(amounts.iter().copied()).map_err(refuse)?;
        if goods.plus(parts.extra).map_err(refuse)?.is_negative() {
            // More was kept than the goods were worth, so it was kept from the shipping too: nothing can be told apart.
            return Ok(Told::default());
        }
        if parts.extra.is_negative() {
            amounts = scaled(&amounts, goods, parts.extra).map_err(refuse)?;
        }
        let tax = parts.line_tax().and_then(|tax| tax.plus(parts.aside_tax)).map_err(refuse)?;
        let items = self.items(&amounts, parts.extra)?;
        Ok(Told { tax: known(tax), shipping: known(parts.shipping), items: Some(items) })
    }

    fn items(&self, amounts: &[Minor], extra: Minor) -> Result<Vec<Item>, Unreadable> {
        let mut items = Vec::with_capacity(amounts.len());
        for (k, (line, amount)) in self.refund_line_items.iter().zip(amounts).enumerate() {
            let at = |field: &str| format!("/refund_line_items/{k}/{field}");
            let quantity = line.quantity.as_ref().map(|quantity| quantity.decimal(|| at("quantity"))).transpose()?;
            let of = line.line_item.as_ref();
            items.push(Item {
                sku: name(of.and_then(|line| line.sku.as_deref()), || at("line_item/sku"))?,
                product: name(of.and_then(|line| line.product_id.as_ref()).map(Id::as_str), || {
                    at("line_item/product_id")
                })?,
                category: None,
                quantity: quantity.unwrap_or(Decimal::ONE),
                amount: *amount,
                gift_card: of.and_then(|line| line.gift_card) == Some(true),
            });
        }
        if extra.is_positive() {
            items.push(unnamed(extra));
        }
        Ok(items)
    }
}

/// What a refund tells beside its total. Nothing told means it is prorated.
#[derive(Debug, Default)]
struct Told {
    tax: Option<Minor>,
    shipping: Option<Minor>,
    items: Option<Vec<Item>>,
}

/// Shipping given back, an amount typed in by hand, or both.
fn without_lines(parts: &Parts) -> Told {
    let shipping = known(parts.shipping);
    if parts.extra.is_positive() {
        // Nobody knows how much of a typed amount is tax.
        return Told { tax: None, shipping: shipping.filter(|shipping| shipping.is_positive()), items: None };
    }
    Told { tax: known(parts.aside_tax), shipping, items: None }
}

/// Parts that make no sense are not told.
fn known(amount: Minor) -> Option<Minor> {
    Some(amount).filter(|amount| !amount.is_negative())
}

/// Goods given back beyond the lines: no item of the order, but its base.
fn unnamed(amount: Minor) -> Item {
    Item { sku: None, product: None, category: None, quantity: Decimal::ZERO, amount, gift_card: false }
}

/// Spreads what was kept over the lines, in proportion; the parts sum to what is left.
fn scaled(amounts: &[Minor], goods: Minor, kept: Minor) -> Result<Vec<Minor>, MoneyError> {
    let left = goods.plus(kept)?;
    let (mut so_far, mut taken) = (Minor::ZERO, Minor::ZERO);
    let mut scaled = Vec::with_capacity(amounts.len());
    for amount in amounts {
        so_far = so_far.plus(*amount)?;
        let target = left.proportion(so_far.units().into(), goods.units().into())?;
        scaled.push(target.minus(taken)?);
        taken = target;
    }
    Ok(scaled)
}
