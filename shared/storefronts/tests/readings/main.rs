//! Hand-written payloads, shaped like each storefront's, and what is read from them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::doc_markdown)]

mod shopify;
mod standard;
mod stripe;
mod total;
mod woocommerce;

use domain::conversion::{ConversionEvent, Edit, EventBody, Item, PartnerRef, Refund, Sale, Withdrawal};
use domain::money::{Currency, Minor};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use storefronts::{Reading, Unreadable};

/// SHA-256 of `zoe@example.com`.
const ZOE: &str = "3e693cf7e5b67880bff33b2d2626dadb7bf1d4bc737192e47cf8baa89acf2250";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let parse =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    pairs.iter().map(parse).collect()
}

/// Changes one field of a fixture, by JSON pointer.
fn with(body: &str, changes: &[(&str, Value)]) -> String {
    let mut json: Value = serde_json::from_str(body).unwrap();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match json.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
            parent => parent[key] = value.clone(),
        }
    }
    json.to_string()
}

fn events(reading: Result<Reading, Unreadable>) -> Vec<ConversionEvent> {
    match reading.unwrap() {
        Reading::Events(events) => events,
        Reading::Ignored(why) => panic!("ignored: {why}"),
    }
}

fn only(reading: Result<Reading, Unreadable>) -> ConversionEvent {
    let mut events = events(reading);
    assert_eq!(events.len(), 1);
    let event = events.remove(0);
    event.check("2027-01-01T00:00:00Z".parse().unwrap()).unwrap();
    event
}

fn sale(event: &ConversionEvent) -> &Sale {
    let EventBody::Sale(sale) = &event.body else { panic!("not a sale") };
    sale
}

fn refund(event: &ConversionEvent) -> &Refund {
    let EventBody::Refund(refund) = &event.body else { panic!("not a refund") };
    refund
}

fn edit(event: &ConversionEvent) -> &Edit {
    let EventBody::Edit(edit) = &event.body else { panic!("not an edit") };
    edit
}

fn withdrawal(event: &ConversionEvent) -> &Withdrawal {
    let EventBody::Withdrawal(withdrawal) = &event.body else { panic!("not a withdrawal") };
    withdrawal
}

fn ignored(reading: Result<Reading, Unreadable>) -> &'static str {
    match reading.unwrap() {
        Reading::Ignored(why) => why,
        Reading::Events(events) => panic!("read: {events:?}"),
    }
}

/// Where the faults are.
fn refused(reading: Result<Reading, Unreadable>) -> Vec<String> {
    reading.unwrap_err().problems().iter().map(|problem| problem.pointer.clone()).collect()
}

fn minor(units: i64) -> Minor {
    Minor::new(units).unwrap()
}

fn currency(code: &str) -> Currency {
    code.parse().unwrap()
}

#[allow(clippy::unnecessary_wraps, reason = "compared with a field that is optional")]
fn code(text: &str) -> Option<PartnerRef> {
    Some(PartnerRef::Code(text.into()))
}

/// What is told of each item: SKU, product, quantity, amount.
fn told(items: &[Item]) -> Vec<(Option<&str>, Option<&str>, String, i64)> {
    let tell = |item: &Item| item.quantity.to_string();
    items.iter().map(|i| (i.sku.as_deref(), i.product.as_deref(), tell(i), i.amount.units())).collect()
}

/// Total, tax, shipping, discount.
fn amounts(sale: &Sale) -> [i64; 4] {
    [sale.total, sale.tax, sale.shipping, sale.discount].map(Minor::units)
}
