//! Whatever arrives is answered, never a panic, and what is read from it can be kept.

use domain::conversion::ConversionEvent;
use jiff::Timestamp;
use proptest::prelude::*;
use storefronts::{Kind, Reading, is_woocommerce_ping, read, verify};

use crate::headers;

const FIXTURES: [&str; 34] = [
    include_str!("../fixtures/shopify/order.json"),
    include_str!("../fixtures/shopify/order_tax_included.json"),
    include_str!("../fixtures/shopify/order_gift_card.json"),
    include_str!("../fixtures/shopify/order_presentment_jpy.json"),
    include_str!("../fixtures/shopify/order_jpy.json"),
    include_str!("../fixtures/shopify/refund.json"),
    include_str!("../fixtures/shopify/refund_tax_included.json"),
    include_str!("../fixtures/shopify/refund_shipping_only.json"),
    include_str!("../fixtures/shopify/refund_discrepancy_more.json"),
    include_str!("../fixtures/shopify/refund_discrepancy_less.json"),
    include_str!("../fixtures/shopify/refund_typed_amount.json"),
    include_str!("../fixtures/shopify/refund_unexplained.json"),
    include_str!("../fixtures/shopify/refund_presentment_jpy.json"),
    include_str!("../fixtures/shopify/refund_no_money.json"),
    include_str!("../fixtures/woocommerce/order.json"),
    include_str!("../fixtures/woocommerce/order_refunded_twice.json"),
    include_str!("../fixtures/stripe/session_paid.json"),
    include_str!("../fixtures/stripe/session_unpaid.json"),
    include_str!("../fixtures/stripe/session_jpy.json"),
    include_str!("../fixtures/stripe/session_subscription.json"),
    include_str!("../fixtures/stripe/invoice_renewal.json"),
    include_str!("../fixtures/stripe/invoice_before_basil.json"),
    include_str!("../fixtures/stripe/charge_refunded.json"),
    include_str!("../fixtures/standard/sale.json"),
    include_str!("../fixtures/standard/refund.json"),
    include_str!("../fixtures/standard/edit.json"),
    include_str!("../fixtures/standard/refund_withdrawn.json"),
    include_str!("../fixtures/shopify/dispute.json"),
    include_str!("../fixtures/shopify/order_edit.json"),
    include_str!("../fixtures/shopify/order_edited_unpaid.json"),
    include_str!("../fixtures/stripe/charge_refunded_with_list.json"),
    include_str!("../fixtures/stripe/refund_created.json"),
    include_str!("../fixtures/stripe/dispute_created.json"),
    include_str!("../fixtures/stripe/dispute_reinstated.json"),
];

/// Tokens that stand where another value was.
const STRANGE: [&str; 14] = [
    "null",
    "true",
    "-1",
    "1e999",
    "0.000000000000000000000000000000001",
    "99999999999999999999999999999999999999999",
    "9223372036854775807",
    "-9223372036854775808",
    "\"\"",
    "\"-79228162514264337593543950335\"",
    "\"\\u0000\u{1F4B8}\"",
    "[]",
    "{}",
    "[[{}]]",
];

fn ask(body: &[u8]) {
    for topic in ["orders/paid", "refunds/create", "disputes/update", "orders/edited", "order.updated"] {
        let headers = headers(&[("x-shopify-topic", topic), ("x-wc-webhook-topic", topic)]);
        for kind in Kind::ALL {
            match read(kind, &headers, body) {
                // An event is kept as its JSON: it must come out of it the same.
                Ok(Reading::Events(events)) => {
                    for event in events {
                        let kept = serde_json::to_string(&event).unwrap();
                        assert_eq!(serde_json::from_str::<ConversionEvent>(&kept).unwrap(), event);
                    }
                }
                Ok(Reading::Ignored(_)) => {}
                Err(unreadable) => assert!(!unreadable.problems().is_empty()),
            }
        }
        let _ = is_woocommerce_ping(&headers, body);
    }
}

/// The positions at which a value ends, and where it began.
fn values(text: &str) -> Vec<(usize, usize)> {
    let starts = text.match_indices(": ").map(|(at, _)| at + 2);
    starts.filter_map(|start| text[start..].find([',', '\n']).map(|length| (start, start + length))).collect()
}

proptest! {
    #[test]
    fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
        ask(&body);
    }

    #[test]
    fn cut_and_flipped_fixtures_are_answered(
        fixture in prop::sample::select(FIXTURES.to_vec()),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut body = fixture.as_bytes().to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if cut {
            body.truncate(at);
        }
        ask(&body);
    }

    #[test]
    fn fixtures_with_strange_values_are_answered(
        fixture in prop::sample::select(FIXTURES.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(STRANGE.to_vec())), 1..4),
    ) {
        let mut body = fixture.to_owned();
        for (at, value) in changes {
            let values = values(&body);
            if let Some((start, end)) = values.get(at.index(values.len().max(1))) {
                body.replace_range(*start..*end, value);
            }
        }
        ask(body.as_bytes());
    }

    #[test]
    fn any_headers_are_answered(
        text in "[ -~]{0,80}",
        time in "[0-9+-]{0,22}",
        secret in "[ -~]{0,40}",
        body in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let stripe = format!("t={time},v1={text}");
        let headers = headers(&[
            ("x-shopify-hmac-sha256", &text),
            ("x-wc-webhook-signature", &text),
            ("stripe-signature", &stripe),
            ("webhook-id", &text),
            ("webhook-timestamp", &time),
            ("webhook-signature", &format!("v1,{text}")),
        ]);
        for kind in Kind::ALL {
            prop_assert!(verify(kind, &[&secret, ""], &headers, &body, Timestamp::MAX).is_err());
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("{{\"id\":{}", "[".repeat(200_000));
    ask(deep.as_bytes());
    let ignored = format!("{{\"unknown\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    ask(ignored.as_bytes());
}
