use domain::conversion::Action;
use serde_json::{Value, json};
use storefronts::{Kind, Reading, Unreadable, is_woocommerce_ping, read};

use crate::{ZOE, amounts, code, events, headers, ignored, minor, only, refund, refused, sale, told, with};

const ORDER: &str = include_str!("../fixtures/woocommerce/order.json");
const REFUNDED: &str = include_str!("../fixtures/woocommerce/order_refunded_twice.json");

fn updated(body: &str) -> Result<Reading, Unreadable> {
    read(Kind::Woocommerce, &headers(&[("X-WC-Webhook-Topic", "order.updated")]), body.as_bytes())
}

#[test]
fn an_order_in_processing_is_a_sale() {
    let event = only(updated(ORDER));
    assert_eq!((event.id.as_str(), event.occurred_at), ("727", "2026-03-22T19:28:08Z".parse().unwrap()));
    let sale = sale(&event);
    assert_eq!((sale.action, amounts(sale)), (Action::Sale, [2_935, 135, 1_000, 300]));
    assert_eq!(
        told(&sale.items),
        [(None, Some("93"), "1.5".into(), 600), (Some("4711"), Some("22"), "1".into(), 1_200)]
    );
    assert_eq!(sale.net().unwrap(), minor(1_800));
    assert_eq!((sale.partner.clone(), sale.coupons.as_slice()), (code("anna"), ["anna10".to_owned()].as_slice()));
    assert_eq!((sale.click_id.as_deref(), sale.campaign.as_deref()), (Some("01JQ8ZK7V3"), Some("spring")));
    assert_eq!((sale.customer.id.as_deref(), sale.customer.email_hash.as_deref()), (None, Some(ZOE)));
    assert_eq!(sale.country.as_deref(), Some("CA"));
}

#[test]
fn each_refund_of_an_order_is_an_event_of_its_own() {
    let events = events(updated(REFUNDED));
    let ids: Vec<_> = events.iter().map(|event| (event.id.as_str(), event.order())).collect();
    assert_eq!(ids, [("727", "727"), ("730", "727"), ("731", "727")]);
    let (first, second) = (refund(&events[1]), refund(&events[2]));
    assert_eq!((first.total, first.tax, first.items.as_ref()), (minor(900), None, None));
    assert_eq!((second.total, second.reason.as_deref()), (minor(535), Some("did not like it")));
    assert_eq!(events[1].occurred_at, "2026-04-01T08:00:00Z".parse().unwrap());
    assert_eq!(sale(&events[0]).customer.id.as_deref(), Some("11"));
}

#[test]
fn a_fully_refunded_order_still_tells_its_refunds() {
    let events = events(updated(&with(REFUNDED, &[("/status", json!("refunded"))])));
    assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["730", "731"]);
}

#[test]
fn other_statuses_and_topics_do_not_accrue() {
    for status in ["pending", "on-hold", "checkout-draft", "auto-draft", "some-plugin"] {
        ignored(updated(&with(ORDER, &[("/status", json!(status))])));
    }
    let unpaid = [("/status", json!("cancelled")), ("/date_paid_gmt", json!(null))];
    ignored(updated(&with(ORDER, &unpaid)));
    let deleted = headers(&[("X-WC-Webhook-Topic", "order.deleted")]);
    ignored(read(Kind::Woocommerce, &deleted, br#"{"id":727}"#));
    let coupon = headers(&[("X-WC-Webhook-Topic", "coupon.created")]);
    ignored(read(Kind::Woocommerce, &coupon, br#"{"id":1}"#));
}

#[test]
fn giving_up_a_paid_order_needs_a_person() {
    assert_eq!(refused(updated(&with(ORDER, &[("/status", json!("cancelled"))]))), ["/status"]);
    let refunded = [("/status", json!("cancelled")), ("/refunds", json!([{"id": 730, "total": "-29.35"}]))];
    assert_eq!(events(updated(&with(ORDER, &refunded))).len(), 1);
}

#[test]
fn a_subscriptions_order_is_a_renewal() {
    let order = with(ORDER, &[("/customer_id", json!(11))]);
    let action = |value: Value| {
        let meta = json!([{"id": 1, "key": "_subscription_renewal", "value": value}]);
        sale(&only(updated(&with(&order, &[("/meta_data", meta)])))).clone()
    };
    for value in [json!(55), json!("55")] {
        let renewal = action(value);
        assert_eq!(renewal.action, Action::Renewal);
        assert_eq!((renewal.customer.id.as_deref(), renewal.customer.new), (Some("11"), Some(false)));
        assert_eq!(renewal.customer.email_hash.as_deref(), Some(ZOE));
    }
    for value in [json!(""), json!(false), json!(null)] {
        let first = action(value);
        assert_eq!((first.action, first.customer.new), (Action::Sale, None));
    }
}

#[test]
fn nonsense_is_refused_at_its_place() {
    for (pointer, value, expect) in [
        ("/total", json!("29,35"), "/total"),
        ("/total", json!(""), "/total"),
        ("/total", json!("2.9E1"), "/total"),
        ("/line_items/1/total", json!("12.005"), "/line_items/1/total"),
        ("/line_items/1/sku", json!({}), "/line_items/1/sku"),
        ("/line_items/0/quantity", json!(true), "/line_items/0/quantity"),
        ("/id", json!(""), "/id"),
        ("/currency", json!("EURO"), "/currency"),
        ("/date_paid_gmt", json!("soon"), "/date_created_gmt"),
    ] {
        assert_eq!(refused(updated(&with(ORDER, &[(pointer, value)]))), [expect], "{pointer}");
    }
    assert_eq!(refused(updated(r#"{"id":727}"#)), [""]);
}

#[test]
fn only_the_form_encoded_ping_is_a_ping() {
    let form = headers(&[("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")]);
    let signed = headers(&[("Content-Type", "application/x-www-form-urlencoded"), ("X-WC-Webhook-Signature", "AAAA")]);
    assert!(is_woocommerce_ping(&form, b"webhook_id=4"));
    for body in ["webhook_id=", "webhook_id=4&x=1", "{}", "", "id=4"] {
        assert!(!is_woocommerce_ping(&form, body.as_bytes()), "{body}");
    }
    assert!(!is_woocommerce_ping(&signed, b"webhook_id=4"));
    assert!(!is_woocommerce_ping(&headers(&[("Content-Type", "application/json")]), b"webhook_id=4"));
}

#[test]
fn bought_gift_cards_are_not_goods() {
    for (key, value, card) in [
        ("wc_gc_giftcard_amount", json!("12"), true),
        ("pw_gift_card_amount", json!(12), true),
        ("pw_gift_card_amount", json!(""), false),
        ("gift_wrap", json!("12"), false),
    ] {
        let meta = json!([{"id": 7, "key": key, "value": value}]);
        let event = only(updated(&with(ORDER, &[("/line_items/1/meta_data", meta)])));
        assert_eq!(sale(&event).items[1].gift_card, card, "{key}");
        assert_eq!(sale(&event).net().unwrap(), minor(if card { 600 } else { 1_800 }));
    }
}

#[test]
fn yen_have_no_decimals_and_dinars_three() {
    let order = |code: &str, total: &str, refund: &str| {
        let body = with(
            ORDER,
            &[
                ("/currency", json!(code)),
                ("/total", json!(total)),
                ("/total_tax", json!("0")),
                ("/shipping_total", json!("0.00")),
                ("/discount_total", json!("0")),
                ("/line_items", json!([{"product_id": 93, "quantity": 1, "total": total}])),
                ("/refunds", json!([{"id": 730, "total": refund}])),
            ],
        );
        updated(&body)
    };
    for (code, total, back, expect) in [
        ("JPY", "5200", "-1300", (5_200, 1_300)),
        ("JPY", "5200.00", "-1300.00", (5_200, 1_300)),
        ("KWD", "5.200", "-1.305", (5_200, 1_305)),
    ] {
        let events = events(order(code, total, back));
        assert_eq!(sale(&events[0]).net().unwrap(), minor(expect.0), "{code} {total}");
        assert_eq!((sale(&events[0]).total, refund(&events[1]).total), (minor(expect.0), minor(expect.1)));
    }
    assert_eq!(refused(order("JPY", "5200.50", "0")), ["/total"]);
}

#[test]
fn a_deleted_refund_is_not_guessed_from_its_absence() {
    let whole = events(updated(REFUNDED));
    let fewer = with(REFUNDED, &[("/refunds", json!([{"id": 731, "reason": "did not like it", "total": "-5.35"}]))]);
    let fewer = events(updated(&fewer));
    assert_eq!(fewer.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["727", "731"]);
    assert_eq!(fewer[1].content(), whole[2].content());
}

#[test]
fn a_failed_or_trashed_paid_order_needs_a_person_until_it_is_refunded() {
    for status in ["failed", "trash", "wc-cancelled"] {
        assert_eq!(refused(updated(&with(ORDER, &[("/status", json!(status))]))), ["/status"]);
        let part = [("/status", json!(status)), ("/refunds", json!([{"id": 730, "total": "-9.35"}]))];
        assert_eq!(refused(updated(&with(ORDER, &part))), ["/status"]);
    }
}
