//! Storefronts' deliveries, signed as storefronts sign them, from the front door to the books.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use storefront_webhook::MAX_BODY;
use tests::sign::Connection;
use tests::{ADMIN, Plan, Request, World};

const SHOPIFY_ORDER: &str = include_str!("../../shared/storefronts/tests/fixtures/shopify/order.json");
const SHOPIFY_REFUND: &str = include_str!("../../shared/storefronts/tests/fixtures/shopify/refund.json");
const WOO_ORDER: &str = include_str!("../../shared/storefronts/tests/fixtures/woocommerce/order.json");
const STRIPE_SESSION: &str = include_str!("../../shared/storefronts/tests/fixtures/stripe/session_paid.json");
const STRIPE_REFUND: &str = include_str!("../../shared/storefronts/tests/fixtures/stripe/charge_refunded.json");
const OWN_SALE: &str = include_str!("../../shared/storefronts/tests/fixtures/standard/sale.json");
const OWN_REFUND: &str = include_str!("../../shared/storefronts/tests/fixtures/standard/refund.json");

/// Each kind of storefront with a sale of Anna's: topic, body, order, and what ten percent of it are.
const SALES: [(&str, &str, &str, &str, i64); 4] = [
    ("shopify", "orders/paid", SHOPIFY_ORDER, "9007199254740993", 800),
    ("woocommerce", "order.updated", WOO_ORDER, "727", 180),
    ("stripe", "", STRIPE_SESSION, "cs_test_a1CagZ1X", 920),
    ("standard", "", OWN_SALE, "ord_1001", 1_000),
];

async fn world() -> World {
    Plan::new().at("2026-12-01T00:00:00Z").start().await
}

async fn connected(world: &World, kind: &'static str) -> Connection {
    world.connect(kind, (kind == "shopify").then_some("shpss_0123456789abcdef")).await
}

/// A body with some fields changed.
fn with(body: &str, changes: &[(&str, Value)]) -> String {
    let mut body: Value = serde_json::from_str(body).unwrap();
    for (pointer, value) in changes {
        *body.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value.clone();
    }
    body.to_string()
}

#[tokio::test]
async fn a_signed_sale_is_booked_once_however_often_it_comes() {
    for (kind, topic, body, order, earned) in SALES {
        let world = world().await;
        let source = connected(&world, kind).await;
        world.deliver(&source, topic, body).await;
        assert_eq!(world.states_of(order).await, [("payable".to_owned(), earned)], "{kind}");
        world.deliver(&source, topic, body).await;
        for _ in 0..3 {
            assert_eq!(world.send(source.delivery(topic, body)).await.status, 200);
        }
        world.settle().await;
        assert_eq!(world.buckets().await, [("payable", earned)], "{kind}");
        assert_eq!(world.exception_codes().await, [""; 0], "{kind}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_bad_signature_and_an_unknown_source_look_the_same() {
    for (kind, topic, body, ..) in SALES {
        let world = world().await;
        let source = connected(&world, kind).await;
        let unknown = Connection { id: format!("src_{}", "0".repeat(26)), ..source.clone() };
        let nonsense = Connection { id: "nonsense".to_owned(), ..source.clone() };
        let forger = Connection { secret: "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3".to_owned(), ..source.clone() };
        let tampered = source.delivery(topic, body).body(format!("{body} "));
        let mut replies = Vec::new();
        for request in [
            source.unsigned(topic, body),
            forger.delivery(topic, body),
            tampered,
            unknown.delivery(topic, body),
            nonsense.delivery(topic, body),
        ] {
            replies.push(world.send(request).await);
        }
        assert!(replies.iter().all(|reply| reply.status == 401 && *reply == replies[0]), "{kind}: {replies:?}");
        world.settle().await;
        assert_eq!(world.lines().await, [] as [Value; 0]);
        assert_eq!(world.exception_codes().await, [""; 0]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn both_secrets_count_while_one_is_rotated() {
    let world = world().await;
    let source = connected(&world, "shopify").await;
    let rotated = json!({"current": "the next secret", "previous": source.secret}).to_string();
    let name = workflows::setup::secret_name(&world.system.context, &source.id.parse().unwrap());
    let secrets = &world.system.context.secrets;
    secrets.put_secret_value().secret_id(name).secret_string(rotated).send().await.unwrap();
    let next = Connection { secret: "the next secret".to_owned(), ..source.clone() };
    world.deliver(&next, "orders/paid", SHOPIFY_ORDER).await;
    world.deliver(&source, "refunds/create", SHOPIFY_REFUND).await;
    assert_eq!(world.buckets().await, [("payable", 533), ("reversed", 267)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let world = world().await;
    let source = connected(&world, "shopify").await;
    let largest = with(SHOPIFY_ORDER, &[("/name", json!(""))]);
    let largest = with(&largest, &[("/name", json!("x".repeat(MAX_BODY - largest.len())))]);
    assert_eq!(largest.len(), MAX_BODY);
    assert_eq!(world.send(source.delivery("orders/paid", &format!("{largest} "))).await.status, 413);
    world.deliver(&source, "orders/paid", &largest).await;
    assert_eq!(world.buckets().await, [("payable", 800)]);
    let nonsense = "x".repeat(MAX_BODY);
    world.deliver(&source, "orders/paid", &nonsense).await;
    let exception = &world.exceptions().await[0];
    let shown = world.get(ADMIN, &format!("/exceptions/{}", exception["id"].as_str().unwrap())).await.ok();
    assert_eq!(shown["body"], nonsense);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_good_signature_over_nonsense_is_taken_and_filed_with_its_body() {
    for (kind, topic, ..) in SALES {
        for body in ["nonsense", "{}", "[1,2", "null", "\u{fffd}\u{1F4A9}", "{\"id\": 1}"] {
            let world = world().await;
            let source = connected(&world, kind).await;
            world.deliver(&source, topic, body).await;
            world.deliver(&source, topic, body).await;
            assert_eq!(world.exception_codes().await, ["unreadable"], "{kind} {body}");
            let exception = world.exceptions().await.remove(0);
            assert_eq!(exception["sourceId"], source.id);
            let path = format!("/exceptions/{}", exception["id"].as_str().unwrap());
            assert_eq!(world.get(ADMIN, &path).await.ok()["body"], body);
            world.post(ADMIN, &format!("{path}/resolve"), &json!({"resolution": "told the shop"})).await.ok();
            world.post(ADMIN, &format!("{path}/resolve"), &json!({"resolution": "again"})).await.refused(409);
            assert_eq!(world.exception_codes().await, [""; 0]);
            world.audit_holds().await;
        }
    }
}

#[tokio::test]
async fn a_woocommerce_ping_is_answered_and_nothing_else_is_done() {
    let world = world().await;
    let (woo, shopify) = (connected(&world, "woocommerce").await, connected(&world, "shopify").await);
    for (source, body, status) in
        [(&woo, "webhook_id=7", 200), (&woo, "webhook_id=7&x=1", 401), (&shopify, "webhook_id=7", 401)]
    {
        let ping = Request::new(http::Method::POST, &format!("/webhooks/{}", source.id));
        let ping = ping.header("content-type", "application/x-www-form-urlencoded").body(body);
        assert_eq!(world.send(ping).await.status, status, "{} {body}", source.kind);
    }
    world.settle().await;
    assert_eq!(world.exception_codes().await, [""; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_shopify_refund_counts_before_its_order_and_after_it() {
    for deliveries in [["orders/paid", "refunds/create"], ["refunds/create", "orders/paid"]] {
        let world = world().await;
        let source = connected(&world, "shopify").await;
        for topic in deliveries.into_iter().chain(deliveries) {
            world.deliver(&source, topic, if topic == "orders/paid" { SHOPIFY_ORDER } else { SHOPIFY_REFUND }).await;
        }
        // 26.67 of 80.00 came back; ten percent of each.
        assert_eq!(world.buckets().await, [("payable", 533), ("reversed", 267)], "{deliveries:?}");
        assert_eq!(world.exception_codes().await, [""; 0]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn an_own_refund_counts_like_one_by_the_api() {
    let world = world().await;
    let source = connected(&world, "standard").await;
    world.deliver(&source, "", OWN_REFUND).await;
    world.deliver(&source, "", OWN_SALE).await;
    assert_eq!(world.buckets().await, [("payable", 661), ("reversed", 339)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn woocommerce_refunds_come_inside_their_order() {
    let world = world().await;
    let source = connected(&world, "woocommerce").await;
    let refunds = json!([{"id": 801, "reason": "", "total": "-29.35"}]);
    for body in [
        WOO_ORDER.to_owned(),
        with(WOO_ORDER, &[("/refunds", refunds.clone())]),
        with(WOO_ORDER, &[("/refunds", refunds)]),
    ] {
        world.deliver(&source, "order.updated", &body).await;
    }
    assert_eq!(world.buckets().await, [("reversed", 180)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_stripe_gave_back_is_filed_for_a_person() {
    let world = world().await;
    let source = connected(&world, "stripe").await;
    world.deliver(&source, "", STRIPE_SESSION).await;
    world.deliver(&source, "", STRIPE_REFUND).await;
    assert_eq!(world.buckets().await, [("payable", 920)]);
    assert_eq!(world.exception_codes().await, ["unreadable"]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_sale_that_names_no_partner_we_know_is_kept_unattributed() {
    let landing = ("/landing_site", json!("/"));
    for changes in [
        vec![landing.clone(), ("/note_attributes", json!([]))],
        vec![landing.clone(), ("/note_attributes/2/value", json!("NOBODY"))],
        vec![landing.clone(), ("/note_attributes", json!([])), ("/discount_codes/0/code", json!("SUMMER"))],
    ] {
        let world = world().await;
        let source = connected(&world, "shopify").await;
        world.deliver(&source, "orders/paid", &with(SHOPIFY_ORDER, &changes)).await;
        assert_eq!(world.lines().await, [] as [Value; 0], "{changes:?}");
        assert_eq!(world.exception_codes().await, [""; 0], "{changes:?}");
        let program = world.program.parse().unwrap();
        let id = domain::ids::ConversionId::derive(&program, &source.id.parse().unwrap(), "9007199254740993");
        assert_eq!(world.get(ADMIN, &format!("/conversions/{id}")).await.ok()["state"], "unattributed");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_coupon_names_the_partner_where_nothing_more_explicit_does() {
    let world = world().await;
    let source = connected(&world, "shopify").await;
    let by_coupon =
        [("/landing_site", json!("/")), ("/note_attributes", json!([])), ("/discount_codes/0/code", json!(" anna10 "))];
    world.deliver(&source, "orders/paid", &with(SHOPIFY_ORDER, &by_coupon)).await;
    assert_eq!(world.buckets().await, [("payable", 800)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_cannot_be_booked_is_filed_and_never_half_applied() {
    for (kind, topic, body, expect) in [
        ("stripe", "", with(STRIPE_SESSION, &[("/data/object/currency", json!("eur"))]), "exchange_rate_missing"),
        ("standard", "", with(OWN_SALE, &[("/amount/currency", json!("EUR"))]), "exchange_rate_missing"),
        ("standard", "", with(OWN_SALE, &[("/occurredAt", json!("2026-12-01T00:05:01Z"))]), "impossible"),
        ("standard", "", with(OWN_SALE, &[("/occurredAt", json!("2019-12-31T23:59:59Z"))]), "no_rules"),
        ("standard", "", with(OWN_SALE, &[("/amount/total", json!("-1.00"))]), "unreadable"),
        ("standard", "", with(OWN_SALE, &[("/amount/currency", json!("XXX"))]), "unreadable"),
        (
            "stripe",
            "",
            with(STRIPE_SESSION, &[("/data/object/customer_details/email", json!(" Anna@partners.example"))]),
            "impossible",
        ),
    ] {
        let world = world().await;
        let source = connected(&world, kind).await;
        world.deliver(&source, topic, &body).await;
        world.deliver(&source, topic, &body).await;
        assert_eq!(world.exception_codes().await, [expect], "{body}");
        assert_eq!(world.lines().await, [] as [Value; 0]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn the_same_order_with_other_content_moves_nothing_and_is_filed() {
    let world = world().await;
    let source = connected(&world, "shopify").await;
    world.deliver(&source, "orders/paid", SHOPIFY_ORDER).await;
    let other = with(SHOPIFY_ORDER, &[("/line_items/0/quantity", json!(3))]);
    world.deliver(&source, "orders/paid", &other).await;
    assert_eq!(world.buckets().await, [("payable", 800)]);
    assert_eq!(world.exception_codes().await, ["contradiction"]);
    world.audit_holds().await;
}

#[tokio::test]
async fn the_same_order_id_at_another_source_is_another_order() {
    let world = world().await;
    for _ in 0..2 {
        let source = connected(&world, "shopify").await;
        world.deliver(&source, "orders/paid", SHOPIFY_ORDER).await;
    }
    let open: i64 = world.buckets().await.iter().map(|(_, sum)| sum).sum();
    assert_eq!((open, world.lines().await.len()), (1_600, 2));
    world.audit_holds().await;
}

#[tokio::test]
async fn money_that_did_not_move_earns_nothing() {
    for (kind, topic, body) in [
        ("shopify", "orders/create", SHOPIFY_ORDER.to_owned()),
        ("shopify", "orders/paid", with(SHOPIFY_ORDER, &[("/financial_status", json!("pending"))])),
        ("shopify", "orders/paid", with(SHOPIFY_ORDER, &[("/test", json!(true))])),
        ("woocommerce", "order.updated", with(WOO_ORDER, &[("/status", json!("pending"))])),
        ("stripe", "", with(STRIPE_SESSION, &[("/data/object/payment_status", json!("unpaid"))])),
    ] {
        let world = world().await;
        let source = connected(&world, kind).await;
        world.deliver(&source, topic, &body).await;
        assert_eq!((world.lines().await, world.exceptions().await), (vec![], vec![]), "{kind} {topic}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn shopifys_newer_header_names_are_understood() {
    let world = world().await;
    let source = connected(&world, "shopify").await;
    let signed = source.delivery("orders/paid", SHOPIFY_ORDER);
    let request = Request::new(http::Method::POST, &format!("/webhooks/{}", source.id))
        .header("content-type", "application/json")
        .header("shopify-topic", "orders/paid")
        .header("shopify-hmac-sha256", &signed.header_of("x-shopify-hmac-sha256"))
        .body(SHOPIFY_ORDER);
    assert_eq!(world.send(request).await.status, 200);
    world.settle().await;
    assert_eq!(world.exception_codes().await, [""; 0]);
    assert_eq!(world.buckets().await, [("payable", 800)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_test_notification_from_shopifys_admin_earns_nothing() {
    for name in ["x-shopify-test", "shopify-test"] {
        let world = world().await;
        let source = connected(&world, "shopify").await;
        let notification = source.delivery("orders/paid", SHOPIFY_ORDER).header(name, "true");
        assert_eq!(world.send(notification).await.status, 200);
        world.settle().await;
        assert_eq!((world.buckets().await, world.exceptions().await), (vec![], vec![]), "{name}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn what_our_own_form_names_and_nobody_has_is_filed() {
    let world = Plan::new().start().await;
    let shop = world.connect("standard", None).await;
    let mut sale = world.sale_event("o1", "100.00");
    sale["partner"] = json!({"code": "NOBODY"});
    world.deliver(&shop, "", &sale.to_string()).await;
    world.deliver(&shop, "", &sale.to_string()).await;
    assert_eq!(world.exception_codes().await, ["unknown_partner"]);
    let mut astray = world.sale_event("o2", "100.00");
    astray["programId"] = json!("prg_00000000000000000000000000");
    world.deliver(&shop, "", &astray.to_string()).await;
    let mut codes = world.exception_codes().await;
    codes.sort();
    assert_eq!(codes, ["impossible", "unknown_partner"]);
    assert!(world.lines().await.is_empty());
    world.audit_holds().await;
}
