use domain::conversion::{Action, ConversionEvent};
use serde_json::json;
use storefronts::{Kind, Reading, Unreadable};

use crate::{
    ZOE, amounts, code, currency, events, headers, ignored, minor, only, refund, refused, sale, told, with, withdrawal,
};

const SESSION: &str = include_str!("../fixtures/stripe/session_paid.json");
const INVOICE: &str = include_str!("../fixtures/stripe/invoice_renewal.json");
const REFUND: &str = include_str!("../fixtures/stripe/refund_created.json");
const DISPUTE: &str = include_str!("../fixtures/stripe/dispute_created.json");
const REINSTATED: &str = include_str!("../fixtures/stripe/dispute_reinstated.json");

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
fn dinars_have_three_decimals() {
    let event = only(read(&with(SESSION, &[("/data/object/currency", json!("kwd"))])));
    assert_eq!((amounts(sale(&event)), sale(&event).currency), ([11_800, 1_800, 800, 1_000], currency("KWD")));
    assert_eq!(domain::money::Money::new(sale(&event).total, sale(&event).currency).decimal(), "11.800");
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
    assert_eq!((sale.customer.id.as_deref(), sale.customer.email_hash.as_deref()), (Some("cus_NSPHp4"), Some(ZOE)));
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
fn a_refund_is_booked_under_its_own_id_whichever_event_tells_it() {
    let event = only(read(REFUND));
    assert_eq!((event.id.as_str(), event.order()), ("re_1Nispe", "cs_test_a1CagZ1X"));
    assert_eq!(event.occurred_at, "2026-01-03T23:59:59Z".parse().unwrap());
    let back = refund(&event);
    assert_eq!((back.total, back.tax, back.shipping, &back.items), (minor(4_000), None, None, &None));
    assert_eq!((back.reason.as_deref(), back.chargeback), (Some("requested_by_customer"), false));
    // Once more with a status that changed, and once with a note that was added.
    for (kind, before) in
        [("refund.updated", json!({"status": "pending"})), ("charge.refund.updated", json!({"metadata": {}}))]
    {
        let again = only(read(&with(REFUND, &[("/type", json!(kind)), ("/data/previous_attributes", before)])));
        assert_eq!((again.id.as_str(), again.content()), ("re_1Nispe", event.content()));
    }
}

#[test]
fn a_refund_counts_once_it_has_gone_through() {
    for status in ["pending", "requires_action"] {
        ignored(read(&with(REFUND, &[("/data/object/status", json!(status))])));
    }
    // The payment was given up before it was taken: no sale ever was.
    ignored(read(&with(REFUND, &[("/data/object/reason", json!("expired_uncaptured_charge"))])));
    assert_eq!(refused(read(&with(REFUND, &[("/data/object/status", json!(null))]))), ["/data/object/status"]);
}

#[test]
fn a_refund_that_failed_is_withdrawn() {
    for (kind, status, why) in [
        ("refund.failed", "failed", "expired_or_canceled_card"),
        ("refund.updated", "failed", "expired_or_canceled_card"),
        ("refund.updated", "canceled", "canceled"),
    ] {
        let mut changes = vec![("/type", json!(kind)), ("/data/object/status", json!(status))];
        if status == "failed" {
            changes.push(("/data/object/failure_reason", json!(why)));
        }
        let event = only(read(&with(REFUND, &changes)));
        let back = withdrawal(&event);
        assert_eq!((event.order(), back.refund.as_str()), ("cs_test_a1CagZ1X", only(read(REFUND)).id.as_str()));
        assert_eq!((event.id.as_str(), back.reason.as_deref()), ("re_1Nispe", Some(why)));
        assert_eq!(event.occurred_at, "2026-01-04T00:00:00Z".parse().unwrap());
    }
}

#[test]
fn what_goes_back_is_never_passed_over() {
    let metadata = |body: &str| with(body, &[("/data/object/metadata", json!({"order_id": "6735", "invoice": 7}))]);
    for body in [REFUND, DISPUTE, REINSTATED] {
        assert_eq!(refused(read(&metadata(body))), ["/data/object/payment_intent"]);
    }
    let failed = [("/type", json!("refund.failed")), ("/data/object/status", json!("failed"))];
    assert_eq!(refused(read(&with(&metadata(REFUND), &failed))), ["/data/object/payment_intent"]);
    // A later status is news, a bank's reference or a dispute's evidence is not.
    let updated = with(&metadata(REFUND), &[("/type", json!("refund.updated"))]);
    ignored(read(&updated));
    let settled = with(&updated, &[("/data/previous_attributes", json!({"status": "pending"}))]);
    assert_eq!(refused(read(&settled)), ["/data/object/payment_intent"]);
    ignored(read(&with(&metadata(DISPUTE), &[("/type", json!("charge.dispute.updated"))])));
    let lost = [("/type", json!("charge.dispute.closed")), ("/data/object/status", json!("lost"))];
    assert_eq!(refused(read(&with(&metadata(DISPUTE), &lost))), ["/data/object/payment_intent"]);
}

#[test]
fn a_charge_tells_its_refunds_only_by_their_list() {
    assert_eq!(refused(read(include_str!("../fixtures/stripe/charge_refunded.json"))), ["/data/object/refunds"]);
    let body = include_str!("../fixtures/stripe/charge_refunded_with_list.json");
    let told = events(read(body));
    let of = |event: &ConversionEvent| (event.id.clone(), event.order().to_owned(), refund(event).total.units());
    // What is still under way is told when it has gone through.
    assert_eq!(
        told.iter().map(of).collect::<Vec<_>>(),
        [("re_2".into(), "in_1MhUT5".into(), 1_000), ("re_1".into(), "in_1MhUT5".into(), 4_000)]
    );
    let without = [("/data/object/invoice", json!(null))];
    assert_eq!(refused(read(&with(body, &without))), ["/data/object/payment_intent"]);
    let named = [("/data/object/metadata", json!({"checkout_session": "cs_9"}))];
    assert!(events(read(&with(&with(body, &without), &named))).iter().all(|event| event.order() == "cs_9"));
}

#[test]
fn a_dispute_takes_its_amount_once_it_took_money() {
    let event = only(read(DISPUTE));
    assert_eq!((event.id.as_str(), event.order()), ("dp_1Pgc71", "in_1MhUT5"));
    let taken = refund(&event);
    assert_eq!((taken.total, taken.currency, taken.chargeback), (minor(2_500), currency("USD"), true));
    assert_eq!(taken.reason.as_deref(), Some("fraudulent"));
    for kind in ["charge.dispute.funds_withdrawn", "charge.dispute.updated", "charge.dispute.closed"] {
        let again = only(read(&with(DISPUTE, &[("/type", json!(kind)), ("/data/object/status", json!("lost"))])));
        assert_eq!((again.id.as_str(), again.content()), ("dp_1Pgc71", event.content()), "{kind}");
    }
    // Where the withdrawal is not listed, the status tells.
    let unlisted = |status: &str| {
        with(DISPUTE, &[("/data/object/balance_transactions", json!([])), ("/data/object/status", json!(status))])
    };
    for status in ["needs_response", "under_review", "lost"] {
        assert_eq!(only(read(&unlisted(status))).content(), event.content(), "{status}");
    }
    for status in ["warning_needs_response", "warning_under_review", "warning_closed", "prevented", "charge_refunded"] {
        ignored(read(&unlisted(status)));
    }
    assert_eq!(refused(read(&unlisted("maybe"))), ["/data/object/status"]);
    // An inquiry that was escalated.
    let escalated = with(&unlisted("warning_closed"), &[("/type", json!("charge.dispute.funds_withdrawn"))]);
    assert_eq!(only(read(&escalated)).content(), event.content());
}

#[test]
fn a_dispute_that_was_won_gives_back_what_it_took() {
    let event = only(read(REINSTATED));
    let back = withdrawal(&event);
    assert_eq!((event.order(), back.refund.as_str()), ("in_1MhUT5", only(read(DISPUTE)).id.as_str()));
    assert_eq!(event.occurred_at, "2026-02-01T00:00:00Z".parse().unwrap());
    let closed = [("/type", json!("charge.dispute.closed")), ("/data/object/status", json!("won"))];
    let won = only(read(&with(DISPUTE, &closed)));
    assert_eq!((won.id.as_str(), won.content()), (event.id.as_str(), event.content()));
    // Given back while the case is still open.
    let early = with(REINSTATED, &[("/data/object/status", json!("under_review"))]);
    assert_eq!(only(read(&early)).content(), event.content());
}

#[test]
fn a_dispute_won_in_part_needs_a_person() {
    let part = [("/data/object/balance_transactions/1/amount", json!(1_000))];
    assert_eq!(refused(read(&with(REINSTATED, &part))), ["/data/object/balance_transactions"]);
    // In the account's own currency the day's rate makes the difference.
    let converted = [
        ("/data/object/balance_transactions/0/currency", json!("eur")),
        ("/data/object/balance_transactions/1/currency", json!("eur")),
        ("/data/object/balance_transactions/1/amount", json!(2_490)),
    ];
    withdrawal(&only(read(&with(REINSTATED, &converted))));
}

#[test]
fn what_goes_back_keeps_the_currencys_decimals() {
    for (code, sent, expect) in [("jpy", 5_200, 5_200), ("kwd", 1_230, 1_230), ("isk", 500, 5), ("mga", 7, 700)] {
        let money = [("/data/object/currency", json!(code)), ("/data/object/amount", json!(sent))];
        for body in [REFUND, DISPUTE] {
            let event = only(read(&with(body, &money)));
            assert_eq!(refund(&event).total, minor(expect), "{code}");
        }
    }
    let fraction = [("/data/object/currency", json!("isk")), ("/data/object/amount", json!(550))];
    assert_eq!(refused(read(&with(REFUND, &fraction))), ["/data/object/amount"]);
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
