use domain::conversion::Action;
use serde_json::json;
use storefronts::{Kind, Reading, Unreadable};

use crate::{ZOE, amounts, code, currency, headers, ignored, minor, only, refused, sale, told, with};

const SESSION: &str = include_str!("../fixtures/stripe/session_paid.json");
const INVOICE: &str = include_str!("../fixtures/stripe/invoice_renewal.json");

fn read(body: &str) -> Result<Reading, Unreadable> {
    storefronts::read(Kind::Stripe, &headers(&[]), body.as_bytes())
}

#[test]
fn a_paid_session_is_a_sale() {
    let event = only(read(SESSION));
    assert_eq!((event.id.as_str(), event.occurred_at), ("cs_test_a1CagZ1X", "2026-01-01T00:00:00Z".parse().unwrap()));
    let sale = sale(&event);
    assert_eq!((amounts(sale), sale.net().unwrap()), ([11_800, 1_800, 800, 1_000], minor(9_200)));
    assert_eq!((sale.partner.clone(), sale.coupons.as_slice()), (code("ANNA10"), ["promo_1Abc".to_owned()].as_slice()));
    assert_eq!((sale.customer.id.as_deref(), sale.customer.email_hash.as_deref()), (Some("cus_NSPHp4"), Some(ZOE)));
    assert_eq!(sale.country.as_deref(), Some("DE"));
    // The address among the metadata is left out; the payment is kept for tracing.
    let metadata: Vec<_> = sale.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(metadata, [("payment_intent", "pi_3MhUT5"), ("plan", "starter")]);
}

#[test]
fn yen_have_no_decimals() {
    let event = only(read(include_str!("../fixtures/stripe/session_jpy.json")));
    let sale = sale(&event);
    assert_eq!((sale.total, sale.currency), (minor(5_200), currency("JPY")));
    assert_eq!((sale.partner.clone(), sale.click_id.as_deref()), (None, Some("X1")));
}

#[test]
fn one_payment_accrues_once() {
    ignored(read(include_str!("../fixtures/stripe/session_subscription.json")));
    ignored(read(&with(SESSION, &[("/data/object/invoice", json!("in_1"))])));
    ignored(read(&with(SESSION, &[("/data/object/invoice_creation/enabled", json!(true))])));
    ignored(read(&with(SESSION, &[("/type", json!("payment_intent.succeeded"))])));
    ignored(read(&with(INVOICE, &[("/type", json!("invoice.payment_succeeded"))])));
}

#[test]
fn what_is_not_paid_does_not_accrue() {
    ignored(read(include_str!("../fixtures/stripe/session_unpaid.json")));
    ignored(read(&with(SESSION, &[("/data/object/payment_status", json!("no_payment_required"))])));
    ignored(read(&with(
        SESSION,
        &[("/data/object/amount_total", json!(0)), ("/data/object/total_details", json!(null))],
    )));
    ignored(read(&with(SESSION, &[("/data/object/mode", json!("setup"))])));
    ignored(read(&with(INVOICE, &[("/data/object/amount_paid", json!(0))])));
    ignored(read(&with(INVOICE, &[("/data/object/status", json!("open"))])));
    // Paid later, by a method that takes its time: the same session.
    let later = only(read(&with(SESSION, &[("/type", json!("checkout.session.async_payment_succeeded"))])));
    assert_eq!(later.content(), only(read(SESSION)).content());
}

#[test]
fn a_renewals_invoice_has_items_and_its_subscriptions_evidence() {
    let event = only(read(INVOICE));
    assert_eq!((event.id.as_str(), event.occurred_at), ("in_1MhUT5", "2025-12-31T23:59:55Z".parse().unwrap()));
    let sale = sale(&event);
    assert_eq!((sale.action, sale.customer.new), (Action::Renewal, Some(false)));
    assert_eq!((amounts(sale), sale.partner.clone()), ([11_800, 1_800, 0, 1_000], code("ANNA10")));
    assert_eq!(
        told(&sale.items),
        [(None, Some("prod_A"), "3".into(), 8_000), (None, Some("prod_B"), "1".into(), 2_000)]
    );
}

#[test]
fn older_invoices_read_alike() {
    let event = only(read(include_str!("../fixtures/stripe/invoice_before_basil.json")));
    let sale = sale(&event);
    assert_eq!((sale.action, amounts(sale)), (Action::Sale, [5_900, 900, 0, 0]));
    assert_eq!(told(&sale.items), [(None, Some("prod_A"), "1".into(), 5_000)]);
    assert_eq!(sale.coupons, ["AUTUMN25"]);
    assert_eq!(sale.click_id.as_deref(), Some("8ae1ab3b-9a1c-4a73-8a3a-2a1c5a4f6b7d"));
    assert_eq!(event.occurred_at, "2026-01-01T00:00:00Z".parse().unwrap());
}

#[test]
fn lines_that_do_not_make_up_the_charge_are_not_told() {
    for change in [
        ("/data/object/lines/has_more", json!(true)),
        ("/data/object/lines/data/0/amount", json!(-9_000)),
        ("/data/object/lines/data/0/amount", json!(9_001)),
    ] {
        let event = only(read(&with(INVOICE, &[change])));
        assert!(sale(&event).items.is_empty());
        assert_eq!(sale(&event).net().unwrap(), minor(10_000));
    }
}

#[test]
fn only_what_was_charged_counts() {
    // Half of it was paid by a balance from before.
    let event = only(read(&with(INVOICE, &[("/data/object/amount_paid", json!(5_900))])));
    assert_eq!((amounts(sale(&event)), sale(&event).net().unwrap()), ([5_900, 900, 0, 1_000], minor(5_000)));
    let outside = [("/data/object/amount_paid", json!(0)), ("/data/object/paid_out_of_band", json!(true))];
    assert_eq!(sale(&only(read(&with(INVOICE, &outside)))).total, minor(11_800));
}

#[test]
fn refunds_are_never_passed_over() {
    let body = include_str!("../fixtures/stripe/charge_refunded.json");
    assert_eq!(refused(read(body)), ["/data/object/payment_intent"]);
    let dispute =
        |status: &str| with(body, &[("/type", json!("charge.dispute.closed")), ("/data/object/status", json!(status))]);
    assert_eq!(refused(read(&dispute("lost"))), ["/data/object/payment_intent"]);
    ignored(read(&dispute("won")));
}

#[test]
fn nonsense_is_refused_at_its_place() {
    for (pointer, value, expect) in [
        ("/data/object/amount_total", json!(11_800.5), "/data/object/amount_total"),
        ("/data/object/amount_total", json!("11800"), "/data/object/amount_total"),
        ("/data/object/amount_total", json!(i64::MAX), "/data/object/amount_total"),
        ("/data/object/currency", json!("usdc"), "/data/object/currency"),
        ("/data/object/mode", json!(null), "/data/object/mode"),
        ("/data/object/payment_status", json!("maybe"), "/data/object/payment_status"),
        ("/created", json!(i64::MAX), "/created"),
        ("/data/object", json!([]), "/data/object"),
        ("/type", json!(1), "/type"),
    ] {
        assert_eq!(refused(read(&with(SESSION, &[(pointer, value)]))), [expect], "{pointer}");
    }
    let fraction = [("/data/object/currency", json!("isk")), ("/data/object/amount_total", json!(11_850))];
    assert_eq!(refused(read(&with(SESSION, &fraction))), ["/data/object/amount_total"]);
}
