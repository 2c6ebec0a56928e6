//! What three storefronts post, in the shapes they really have, signed as they sign.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

/// A delivery: headers and body, signed.
#[derive(Debug)]
pub struct Post {
    pub headers: HeaderMap,
    pub body: String,
}

/// An order of one product.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub id: u64,
    pub at: Timestamp,
    pub product: &'a str,
    /// In major units.
    pub goods: &'a str,
    pub tax: &'a str,
    pub total: &'a str,
    pub coupon: &'a str,
}

fn mac(secret: &str, bytes: &[u8]) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return Vec::new() };
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

fn post(body: &Value, headers: &[(&'static str, String)]) -> Post {
    let headers = headers
        .iter()
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?)));
    Post { headers: headers.collect(), body: body.to_string() }
}

fn shopify(topic: &str, body: &Value, secret: &str) -> Post {
    let signature = STANDARD.encode(mac(secret, body.to_string().as_bytes()));
    post(
        body,
        &[
            ("content-type", "application/json".to_owned()),
            ("x-shopify-topic", topic.to_owned()),
            ("x-shopify-shop-domain", "demo-store.myshopify.com".to_owned()),
            ("x-shopify-hmac-sha256", signature),
        ],
    )
}

pub fn shopify_order(order: Order<'_>, secret: &str) -> Post {
    let body = json!({
        "id": order.id, "admin_graphql_api_id": format!("gid://shopify/Order/{}", order.id), "name": format!("#{}", order.id),
        "created_at": order.at.to_string(), "processed_at": order.at.to_string(), "currency": "USD", "presentment_currency": "USD",
        "financial_status": "paid", "cancelled_at": null, "test": false, "taxes_included": false,
        "total_price": order.total, "subtotal_price": order.goods, "total_tax": order.tax, "total_discounts": "0.00",
        "discount_codes": [{"code": order.coupon, "amount": "0.00", "type": "percentage"}],
        "note_attributes": [], "landing_site": "/", "shipping_lines": [], "refunds": [],
        "customer": {"id": 7_000_000_000_000_u64 + order.id},
        "line_items": [{
            "id": order.id * 10, "sku": order.product, "product_id": 632_910_392, "variant_id": 808_950_810, "quantity": 1,
            "price": order.goods, "total_discount": "0.00", "discount_allocations": [], "gift_card": false,
            "tax_lines": [{"price": order.tax, "rate": 0.2, "title": "VAT"}],
        }],
    });
    shopify("orders/paid", &body, secret)
}

pub fn shopify_refund(id: u64, order: Order<'_>, at: Timestamp, secret: &str) -> Post {
    let money = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    let body = json!({
        "id": id, "order_id": order.id, "created_at": at.to_string(), "processed_at": at.to_string(), "note": "returned",
        // Shopify sends these two as numbers, everything else as text.
        "refund_line_items": [{
            "id": id * 10, "line_item_id": order.id * 10, "quantity": 1, "subtotal": money(order.goods), "total_tax": money(order.tax),
            "line_item": {
                "id": order.id * 10, "sku": order.product, "product_id": 632_910_392, "quantity": 1, "price": order.goods,
                "gift_card": false,
            },
        }],
        "transactions": [{
            "id": id * 100, "order_id": order.id, "kind": "refund", "status": "success", "amount": order.total, "currency": "USD",
        }],
        "order_adjustments": [], "refund_shipping_lines": [],
    });
    shopify("refunds/create", &body, secret)
}

pub fn woocommerce_order(order: Order<'_>, secret: &str) -> Post {
    let paid = order.at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let body = json!({
        "id": order.id, "number": order.id.to_string(), "order_key": format!("wc_order_{}", order.id), "status": "processing",
        "currency": "USD", "date_created_gmt": paid, "date_paid_gmt": paid, "prices_include_tax": false,
        "total": order.total, "total_tax": order.tax, "shipping_total": "0.00", "shipping_tax": "0.00", "discount_total": "0.00",
        "customer_id": order.id, "billing": {"email": format!("customer{}@shop.example", order.id), "country": "DE"},
        "coupon_lines": [{"id": 1, "code": order.coupon.to_lowercase(), "discount": "0.00"}],
        "line_items": [{
            "id": order.id * 10, "name": order.product, "sku": order.product, "product_id": 93, "variation_id": 0, "quantity": 1,
            "subtotal": order.goods, "total": order.goods, "total_tax": order.tax, "price": 1,
        }],
        "shipping_lines": [], "fee_lines": [], "refunds": [], "meta_data": [],
    });
    let signature = STANDARD.encode(mac(secret, body.to_string().as_bytes()));
    post(
        &body,
        &[
            ("content-type", "application/json".to_owned()),
            ("x-wc-webhook-topic", "order.updated".to_owned()),
            ("x-wc-webhook-signature", signature),
        ],
    )
}

/// `minor` and `tax_minor` in cents, as Stripe sends them; `code` is the partner's, in the client's reference.
pub fn stripe_session(id: u64, at: Timestamp, minor: i64, tax_minor: i64, code: &str, secret: &str) -> Post {
    let body = json!({
        "id": format!("evt_{id}"), "object": "event", "type": "checkout.session.completed", "created": at.as_second(),
        "livemode": true, "api_version": "2025-03-31.basil",
        "data": {"object": {
            "id": format!("cs_live_{id}"), "object": "checkout.session", "mode": "payment", "payment_status": "paid",
            "status": "complete", "currency": "usd", "amount_total": minor, "amount_subtotal": minor - tax_minor,
            "total_details": {"amount_tax": tax_minor, "amount_shipping": 0, "amount_discount": 0},
            "payment_intent": format!("pi_{id}"), "client_reference_id": code, "created": at.as_second(),
            "customer": format!("cus_{id}"), "customer_details": {"email": format!("buyer{id}@shop.example")}, "metadata": {},
        }},
    });
    // Transport time: a signature is minutes old at most, whatever the business clock says.
    let now = Timestamp::now().as_second();
    let tag = data_encoding::HEXLOWER.encode(&mac(secret, format!("{now}.{body}").as_bytes()));
    post(&body, &[("content-type", "application/json".to_owned()), ("stripe-signature", format!("t={now},v1={tag}"))])
}
