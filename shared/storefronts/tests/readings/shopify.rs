use domain::conversion::{Action, Refund};
use serde_json::json;
use storefronts::{Kind, Reading, Unreadable, read};

use crate::{
    ZOE, amounts, code, currency, headers, ignored, minor, only, refund, refused, sale, told, with, withdrawal,
};

const ORDER: &str = include_str!("../fixtures/shopify/order.json");
const REFUND: &str = include_str!("../fixtures/shopify/refund.json");
const DISPUTE: &str = include_str!("../fixtures/shopify/dispute.json");
const EDITED_UNPAID: &str = include_str!("../fixtures/shopify/order_edited_unpaid.json");

fn paid(body: &str) -> Result<Reading, Unreadable> {
    read(Kind::Shopify, &headers(&[("X-Shopify-Topic", "orders/paid")]), body.as_bytes())
}

fn given_back(body: &str) -> Result<Reading, Unreadable> {
    read(Kind::Shopify, &headers(&[("X-Shopify-Topic", "refunds/create")]), body.as_bytes())
}

fn told_by(topic: &str, body: &str) -> Result<Reading, Unreadable> {
    read(Kind::Shopify, &headers(&[("X-Shopify-Topic", topic)]), body.as_bytes())
}

fn only_refund(body: &str) -> Refund {
    refund(&only(given_back(body))).clone()
}

#[test]
fn a_paid_order_is_a_sale() {
    let event = only(paid(ORDER));
    assert_eq!(event.id, "9007199254740993");
    assert_eq!(event.occurred_at, "2026-03-02T14:14:58Z".parse().unwrap());
    let sale = sale(&event);
    assert_eq!(sale.action, Action::Sale);
    assert_eq!((amounts(sale), sale.currency), ([9_830, 830, 1_000, 1_000], currency("USD")));
    assert_eq!(
        told(&sale.items),
        [(Some("POT-1"), Some("632910392"), "2".into(), 5_333), (None, None, "1".into(), 2_667)]
    );
    assert_eq!(sale.net().unwrap(), minor(8_000));
    assert_eq!((sale.partner.clone(), sale.coupons.as_slice()), (code("ANNA10"), ["TENOFF".to_owned()].as_slice()));
    assert_eq!((sale.click_id.as_deref(), sale.campaign.as_deref()), (Some("01JQ8ZK7V3"), Some("autumn")));
    assert_eq!(
        (sale.customer.id.as_deref(), sale.customer.email_hash.as_deref()),
        (Some("9007199254740995"), Some(ZOE))
    );
    assert_eq!((sale.country.as_deref(), sale.channel.as_deref()), (Some("DE"), Some("web")));
    // Cart attributes may hold anything about a person, so none are kept.
    assert!(sale.metadata.is_empty());
}

#[test]
fn tax_in_prices_is_taken_out_of_goods_and_shipping() {
    let event = only(paid(include_str!("../fixtures/shopify/order_tax_included.json")));
    assert_eq!(amounts(sale(&event)), [12_500, 2_083, 417, 0]);
    assert_eq!(sale(&event).net().unwrap(), minor(10_000));
}

#[test]
fn bought_gift_cards_and_tips_are_not_goods() {
    let event = only(paid(include_str!("../fixtures/shopify/order_gift_card.json")));
    let items = &sale(&event).items;
    assert_eq!(items.iter().map(|item| item.gift_card).collect::<Vec<_>>(), [true, false]);
    assert_eq!(sale(&event).net().unwrap(), minor(2_500));
}

#[test]
fn the_shops_currency_counts() {
    let event = only(paid(include_str!("../fixtures/shopify/order_presentment_jpy.json")));
    let abroad = sale(&event);
    assert_eq!((amounts(abroad), abroad.currency), ([3_300, 300, 0, 0], currency("USD")));
    assert_eq!(abroad.partner, code("kenji"));
    let event = only(paid(include_str!("../fixtures/shopify/order_jpy.json")));
    assert_eq!((amounts(sale(&event)), sale(&event).net().unwrap()), ([5_200, 472, 0, 0], minor(4_728)));
}

#[test]
fn what_is_not_paid_does_not_accrue() {
    for (pointer, value) in [
        ("/test", json!(true)),
        ("/cancelled_at", json!("2026-03-02T10:00:00-05:00")),
        ("/financial_status", json!("authorized")),
        ("/financial_status", json!("pending")),
        ("/financial_status", json!("partially_paid")),
        ("/financial_status", json!("voided")),
    ] {
        ignored(paid(&with(ORDER, &[(pointer, value)])));
    }
    let created = headers(&[("X-Shopify-Topic", "orders/create")]);
    ignored(read(Kind::Shopify, &created, ORDER.as_bytes()));
    let test = headers(&[("X-Shopify-Topic", "orders/paid"), ("X-Shopify-Test", "true")]);
    ignored(read(Kind::Shopify, &test, ORDER.as_bytes()));
    // Paid, and something went back since: the refund comes on its own.
    only(paid(&with(ORDER, &[("/financial_status", json!("partially_refunded"))])));
}

#[test]
fn a_swapped_topic_is_not_believed() {
    assert_eq!(refused(paid(REFUND)), [""]);
    assert_eq!(refused(given_back(ORDER)), [""]);
    assert_eq!(refused(read(Kind::Shopify, &headers(&[]), ORDER.as_bytes())), [""]);
    for body in [ORDER, REFUND] {
        assert_eq!(refused(told_by("disputes/create", body)), [""]);
        assert_eq!(refused(told_by("orders/edited", body)), [""]);
    }
    assert_eq!(refused(given_back(DISPUTE)), [""]);
    assert_eq!(refused(paid(DISPUTE)), [""]);
}

#[test]
fn nonsense_is_refused_at_its_place() {
    for (pointer, value, expect) in [
        ("/currency", json!("XXX"), "/currency"),
        ("/total_price_set/shop_money/amount", json!("1e3"), "/total_price"),
        ("/total_price_set/shop_money/currency_code", json!("EUR"), "/total_price"),
        ("/line_items/1/quantity", json!("two"), "/line_items/1/quantity"),
        ("/line_items/0/price_set/shop_money/amount", json!("0.001"), "/line_items/0"),
        ("/line_items/0/quantity", json!("9999999999999999999999999999"), "/line_items/0"),
        ("/line_items/0/product_id", json!(1.5), "/line_items/0/product_id"),
        ("/line_items/0/sku", json!("x".repeat(201)), "/line_items/0/sku"),
        ("/line_items", json!({}), "/line_items"),
        ("/processed_at", json!("yesterday"), "/processed_at"),
        ("/financial_status", json!(null), "/financial_status"),
    ] {
        assert_eq!(refused(paid(&with(ORDER, &[(pointer, value)]))), [expect], "{pointer}");
    }
}

#[test]
fn a_refund_names_its_items() {
    let event = only(given_back(REFUND));
    assert_eq!((event.id.as_str(), event.order()), ("509562969", "9007199254740993"));
    let back = refund(&event);
    assert_eq!((back.total, back.tax, back.shipping), (minor(2_917), Some(minor(250)), Some(minor(0))));
    assert_eq!(told(back.items.as_deref().unwrap()), [(Some("POT-1"), Some("632910392"), "1".into(), 2_667)]);
    assert_eq!(back.reason.as_deref(), Some("broke on the way"));
}

#[test]
fn the_cash_tells_whether_refunded_prices_include_tax() {
    let back = only_refund(include_str!("../fixtures/shopify/refund_tax_included.json"));
    assert_eq!((back.total, back.tax, back.currency), (minor(6_000), Some(minor(1_000)), currency("EUR")));
    assert_eq!(told(back.items.as_deref().unwrap())[0].3, 5_000);
}

#[test]
fn shipping_is_refunded_apart_and_once() {
    let back = only_refund(include_str!("../fixtures/shopify/refund_shipping_only.json"));
    assert_eq!((back.total, back.tax, back.shipping), (minor(1_000), Some(minor(0)), Some(minor(1_000))));
    assert_eq!((back.items, back.reason), (None, None));
}

#[test]
fn a_discrepancy_changes_the_goods() {
    let more = only_refund(include_str!("../fixtures/shopify/refund_discrepancy_more.json"));
    assert_eq!(
        told(more.items.as_deref().unwrap()),
        [(Some("POT-1"), Some("632910392"), "1".into(), 2_667), (None, None, "0".into(), 500)]
    );
    // 8.00 of 80.00 kept: a tenth off each line.
    let less = only_refund(include_str!("../fixtures/shopify/refund_discrepancy_less.json"));
    let amounts: Vec<i64> = less.items.unwrap().iter().map(|item| item.amount.units()).collect();
    assert_eq!((less.total, amounts), (minor(7_950), vec![4_800, 2_400]));
}

#[test]
fn cash_without_a_matching_division_is_only_a_total() {
    for (body, total) in [
        (include_str!("../fixtures/shopify/refund_typed_amount.json"), 4_000),
        (include_str!("../fixtures/shopify/refund_unexplained.json"), 2_090),
    ] {
        let back = only_refund(body);
        assert_eq!((back.total, back.tax, back.shipping, back.items), (minor(total), None, None, None));
    }
}

#[test]
fn cash_in_the_customers_currency_is_restated_in_the_shops() {
    let body = include_str!("../fixtures/shopify/refund_presentment_jpy.json");
    let back = only_refund(body);
    assert_eq!((back.total, back.currency, back.tax), (minor(3_300), currency("USD"), Some(minor(300))));
    assert_eq!(told(back.items.as_deref().unwrap())[0].3, 3_000);
    // A part of it: how much that is in the shop's currency stands nowhere.
    let part = with(body, &[("/transactions/0/amount", json!("1000"))]);
    assert_eq!(refused(given_back(&part)), ["/transactions"]);
}

#[test]
fn no_money_is_no_refund() {
    ignored(given_back(include_str!("../fixtures/shopify/refund_no_money.json")));
    ignored(given_back(&with(REFUND, &[("/transactions/0/status", json!("failure"))])));
    assert_eq!(refused(given_back(&with(REFUND, &[("/transactions/0/status", json!("pending"))]))), ["/transactions"]);
}

#[test]
fn dinars_have_three_decimals() {
    let body = with(DISPUTE, &[("/currency", json!("KWD")), ("/amount", json!("12.345"))]);
    let event = only(told_by("disputes/create", &body));
    assert_eq!((refund(&event).total, refund(&event).currency), (minor(12_345), currency("KWD")));
    let more = with(&body, &[("/amount", json!("12.3456"))]);
    assert_eq!(refused(told_by("disputes/create", &more)), ["/amount"]);
}

#[test]
fn an_order_edited_before_it_was_paid_counts_as_it_was_paid() {
    let event = only(paid(EDITED_UNPAID));
    assert_eq!(amounts(sale(&event)), [6_913, 580, 1_000, 667]);
    assert_eq!(told(&sale(&event).items), [(Some("POT-1"), Some("632910392"), "2".into(), 5_333)]);
    // One of two: its share of the discount goes with it.
    let part = [
        ("/refunds/0/refund_line_items/0/line_item_id", json!(1)),
        ("/line_items/0/current_quantity", json!(1)),
        ("/line_items/1/current_quantity", json!(1)),
    ];
    let event = only(paid(&with(EDITED_UNPAID, &part)));
    assert_eq!(amounts(sale(&event)), [6_913, 580, 1_000, 667]);
    assert_eq!(
        told(&sale(&event).items),
        [(Some("POT-1"), Some("632910392"), "1".into(), 2_666), (None, None, "1".into(), 2_667)]
    );
    let included = with(&with(EDITED_UNPAID, &part), &[("/taxes_included", json!(true))]);
    assert_eq!(told(&sale(&only(paid(&included))).items)[0].3, 5_333 - 500 - (2_667 - 250));
}

#[test]
fn what_went_back_after_payment_is_no_part_of_the_sale() {
    let money = json!([{"kind": "refund", "status": "success", "amount": "29.17", "currency": "USD"}]);
    let event = only(paid(&with(EDITED_UNPAID, &[("/refunds/0/transactions", money)])));
    assert_eq!(event.content(), only(paid(ORDER)).content());
}

#[test]
fn an_edit_that_cannot_be_taken_apart_needs_a_person() {
    let unexplained = [("/line_items/0/current_quantity", json!(1)), ("/current_total_price", json!("69.13"))];
    assert_eq!(refused(paid(&with(ORDER, &unexplained))), ["/line_items/0/current_quantity"]);
    // As much was charged as before, so nothing was taken off.
    only(paid(&with(ORDER, &unexplained[..1])));
    let untold = [("/current_total_price", json!(null))];
    assert_eq!(refused(paid(&with(EDITED_UNPAID, &untold))), ["/current_total_price"]);
    let amountless = [("/refunds/0/refund_line_items/0/subtotal", json!(null))];
    assert_eq!(refused(paid(&with(EDITED_UNPAID, &amountless))), ["/refunds"]);
    let mut both: serde_json::Value = serde_json::from_str(EDITED_UNPAID).unwrap();
    let cash = json!({"transactions": [{"kind": "refund", "status": "success", "amount": "5.00", "currency": "USD"}]});
    both["refunds"].as_array_mut().unwrap().push(cash);
    assert_eq!(refused(paid(&both.to_string())), ["/refunds"]);
}

#[test]
fn an_edit_takes_nothing_that_its_refund_takes_too() {
    let edit = include_str!("../fixtures/shopify/order_edit.json");
    let cheaper = ignored(told_by("orders/edited", edit));
    assert_eq!(cheaper, "what an edit takes off an order, its refund reports");
    let delta = json!([{"id": 1, "delta": 1}]);
    for change in ["/order_edit/line_items/additions", "/order_edit/discounts/line_item/removals"] {
        assert_eq!(refused(told_by("orders/edited", &with(edit, &[(change, delta.clone())]))), [change]);
    }
    // The order as it is now mixes edits with refunds, each of which is told apart.
    ignored(told_by("orders/updated", EDITED_UNPAID));
}

#[test]
fn a_cancelled_order_gives_back_what_its_refund_says() {
    let cancelled = [("/cancelled_at", json!("2026-03-02T10:00:00-05:00"))];
    ignored(told_by("orders/cancelled", &with(ORDER, &cancelled)));
    assert_eq!(only_refund(REFUND).total, minor(2_917));
}

#[test]
fn a_chargeback_takes_the_disputed_amount() {
    let event = only(told_by("disputes/create", DISPUTE));
    assert_eq!((event.id.as_str(), event.order()), ("dispute_285332461850802057", "9007199254740993"));
    assert_eq!(event.occurred_at, "2026-04-01T14:00:00Z".parse().unwrap());
    let taken = refund(&event);
    assert_eq!((taken.total, taken.currency, taken.chargeback), (minor(4_000), currency("USD"), true));
    assert_eq!((taken.tax, taken.shipping, taken.items.as_ref()), (None, None, None));
    for status in ["under_review", "accepted", "lost"] {
        let again = only(told_by("disputes/update", &with(DISPUTE, &[("/status", json!(status))])));
        assert_eq!((again.id.as_str(), again.content()), (event.id.as_str(), event.content()), "{status}");
    }
}

#[test]
fn a_chargeback_that_was_won_is_taken_back() {
    let won = [("/status", json!("won")), ("/finalized_on", json!("2026-05-02"))];
    let event = only(told_by("disputes/update", &with(DISPUTE, &won)));
    assert_eq!(withdrawal(&event).refund, only(told_by("disputes/create", DISPUTE)).id);
    assert_eq!((event.order(), event.occurred_at), ("9007199254740993", "2026-05-02T00:00:00Z".parse().unwrap()));
    let timed = with(DISPUTE, &[("/status", json!("won")), ("/finalized_on", json!("2026-05-02T10:00:00-05:00"))]);
    let timed = only(told_by("disputes/update", &timed));
    assert_eq!(timed.occurred_at, "2026-05-02T15:00:00Z".parse().unwrap());
    // The day it began, where the day it ended is not told.
    let undated = only(told_by("disputes/update", &with(DISPUTE, &[("/status", json!("won"))])));
    assert_eq!(undated.occurred_at, "2026-04-01T14:00:00Z".parse().unwrap());
}

#[test]
fn a_dispute_that_does_not_say_what_it_took_is_not_guessed() {
    ignored(told_by("disputes/create", &with(DISPUTE, &[("/type", json!("inquiry"))])));
    for (pointer, value) in [
        ("/status", json!("charge_refunded")),
        ("/status", json!("prevented")),
        ("/status", json!("unheard")),
        ("/type", json!("question")),
        ("/order_id", json!(null)),
        ("/amount", json!("1e3")),
        ("/currency", json!("XXX")),
        ("/initiated_at", json!("then")),
    ] {
        assert_eq!(refused(told_by("disputes/update", &with(DISPUTE, &[(pointer, value)]))), [pointer]);
    }
    let won = [("/status", json!("won")), ("/finalized_on", json!("soon"))];
    assert_eq!(refused(told_by("disputes/update", &with(DISPUTE, &won))), ["/finalized_on"]);
}

#[test]
fn a_subscriptions_order_is_a_renewal() {
    for source in ["subscription_contract", "subscription_contract_checkout_one"] {
        let event = only(paid(&with(ORDER, &[("/source_name", json!(source))])));
        assert_eq!(sale(&event).action, Action::Renewal);
        assert_eq!(
            (sale(&event).customer.id.as_deref(), sale(&event).customer.new),
            (Some("9007199254740995"), Some(false))
        );
    }
}
