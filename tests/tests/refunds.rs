//! What refunds take back, from what, and in which order.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use tests::{ADMIN, APPROVER, Plan, SECOND_ADMIN, World, tiered};

fn nothing() -> Vec<(&'static str, i64)> {
    vec![]
}

#[tokio::test]
async fn a_refund_before_its_sale_waits_for_it() {
    // Refunded of 100.00 before the sale, and after: what remains.
    for (before, after, expect) in [
        (vec!["40.00"], vec![], vec![("payable", 600), ("reversed", 400)]),
        (vec!["40.00", "10.00"], vec![], vec![("payable", 500), ("reversed", 500)]),
        (vec!["40.00"], vec!["10.00"], vec![("payable", 500), ("reversed", 500)]),
        (vec!["100.00"], vec![], vec![("reversed", 1_000)]),
        (vec!["60.00", "40.00"], vec![], vec![("reversed", 1_000)]),
    ] {
        let world = Plan::new().start().await;
        for (n, amount) in before.iter().enumerate() {
            assert_eq!(world.refund(&format!("r{n}"), "o1", amount).await, "awaiting_sale");
        }
        assert_eq!(world.buckets().await, nothing());
        assert_eq!(world.sale("o1", "100.00").await, "applied");
        for (n, amount) in after.iter().enumerate() {
            assert_eq!(world.refund(&format!("later{n}"), "o1", amount).await, "applied");
        }
        assert_eq!(world.buckets().await, expect, "{before:?}, then {after:?}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_repeated_refund_takes_nothing_more() {
    let world = Plan::new().start().await;
    assert_eq!(world.refund("r0", "o1", "10.00").await, "awaiting_sale");
    assert_eq!(world.refund("r0", "o1", "10.00").await, "already_applied");
    world.sale("o1", "100.00").await;
    assert_eq!(world.refund("r0", "o1", "10.00").await, "already_applied");
    assert_eq!(world.refund("r1", "o1", "40.00").await, "applied");
    assert_eq!(world.refund("r1", "o1", "40.00").await, "already_applied");
    assert_eq!(world.buckets().await, [("payable", 500), ("reversed", 500)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn partial_refunds_in_any_steps_end_exactly_at_the_full_reversal() {
    for (rate, total, steps) in [
        ("33", "0.10", vec!["0.01"; 10]),
        ("25", "99.99", vec!["33.33"; 3]),
        ("7.77", "123.45", vec!["0.01", "100.00", "23.43", "0.01"]),
        ("10", "100.00", vec!["0.04", "0.04", "99.92"]),
    ] {
        let world = Plan::new().rules([tests::percent(rate)]).start().await;
        world.sale("o1", total).await;
        let earned = world.line_of("o1").await["amount"]["minor"].as_i64().unwrap();
        for (n, step) in steps.iter().enumerate() {
            world.refund(&format!("r{n}"), "o1", step).await;
        }
        assert_eq!(world.buckets().await, [("reversed", earned)], "{rate} % of {total}");
        assert_eq!(world.states_of("o1").await, [("reversed".to_owned(), 0)]);
        assert_eq!(world.exception_codes().await, [""; 0]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn before_payment_the_line_itself_shrinks_whatever_its_state() {
    for (plan, verdicts, bucket) in [
        (Plan::new().reviewed(), vec![], "pending"),
        (Plan::new().hold_days(30), vec![], "approved"),
        (Plan::new(), vec![], "payable"),
        (Plan::new(), vec!["hold"], "held"),
    ] {
        let world = plan.start().await;
        world.sale("o1", "100.00").await;
        for verdict in verdicts {
            world.reviewed(verdict, &[&world.line_id("o1").await]).await;
        }
        world.refund("r1", "o1", "40.00").await;
        assert_eq!(world.buckets().await, [(bucket, 600), ("reversed", 400)]);
        assert_eq!(world.line_of("o1").await["amount"]["minor"], 1_000, "the gross amount does not change");
        world.refund("r2", "o1", "60.00").await;
        assert_eq!(world.states_of("o1").await, [("reversed".to_owned(), 0)], "{bucket}");
        world.audit_holds().await;
    }
}

/// Two commissions of 40.00 in one pending payout. The minimum payout is 50.00, and 70.00 takes two people.
async fn eighty_in_a_payout() -> (World, Value) {
    let world = Plan::new().minimum("50.00").program("largePayoutLimit", "70.00").start().await;
    world.sale("o1", "400.00").await;
    world.sale("o2", "400.00").await;
    let id = world.request_payout().await["id"].clone();
    (world, id)
}

#[tokio::test]
async fn a_refund_inside_a_pending_payout_changes_its_amount_and_version_and_clears_approvals() {
    let (world, id) = eighty_in_a_payout().await;
    let hash = world.payout(&id).await["linesHash"].clone();
    assert_eq!(world.approve_payout(ADMIN, &id).await, 200);
    assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 8_000, 1, 1));
    world.refund("r1", "o2", "200.00").await;
    assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 6_000, 2, 0));
    assert_ne!(world.payout(&id).await["linesHash"], hash);
    assert_eq!(world.buckets().await, [("inPayout", 6_000), ("reversed", 2_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_refund_inside_an_approved_payout_sends_it_back() {
    let (world, id) = eighty_in_a_payout().await;
    for who in [ADMIN, SECOND_ADMIN] {
        assert_eq!(world.approve_payout(who, &id).await, 200);
    }
    assert_eq!(world.payout_stands(&id).await, ("approved".to_owned(), 8_000, 1, 2));
    world.refund("r1", "o2", "200.00").await;
    assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 6_000, 2, 0));
    assert_eq!(world.payout(&id).await["approvedAt"], Value::Null);
    world.pay(&id).await;
    assert_eq!(world.buckets().await, [("paid", 6_000), ("reversed", 2_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payout_that_no_longer_reaches_the_minimum_is_cancelled_and_frees_its_lines() {
    let (world, id) = eighty_in_a_payout().await;
    world.refund("r1", "o2", "400.00").await;
    assert_eq!(world.payout(&id).await["state"], "cancelled");
    assert_eq!(world.states_of("o1").await, [("payable".to_owned(), 4_000)]);
    assert_eq!(world.states_of("o2").await, [("reversed".to_owned(), 0)]);
    world.sale("o3", "100.00").await;
    world.pay_everything().await;
    assert_eq!(world.buckets().await, [("paid", 5_000), ("reversed", 4_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payout_below_the_minimum_by_override_survives_a_refund() {
    let world = Plan::new().minimum("50.00").start().await;
    world.sale("o1", "400.00").await;
    let id = world.request_payout_with(&json!({"override": "leaving the program"})).await.ok()["id"].clone();
    world.refund("r1", "o1", "100.00").await;
    assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 3_000, 2, 0));
    world.refund("r2", "o1", "300.00").await;
    assert_eq!(world.payout(&id).await["state"], "cancelled", "nothing is left to pay");
    world.audit_holds().await;
}

#[tokio::test]
async fn once_money_may_have_left_a_refund_claws_back() {
    for part in [None, Some("3.00")] {
        let world = Plan::new().start().await;
        world.sale("o1", "100.00").await;
        let id = world.request_payout().await["id"].clone();
        assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
        let paid = json!({"reference": "wire 1", "amount": part});
        assert_eq!(world.payout_call(APPROVER, "mark-paid", &id, &paid).await, 200);
        world.refund("r1", "o1", "40.00").await;
        world.refund("r2", "o1", "40.00").await;
        let state = if part.is_some() { "in_payout" } else { "paid" };
        let mut states = world.states_of("o1").await;
        states.sort();
        let expect = [(state, 1_000), ("payable", -400), ("payable", -400)].map(|(state, net)| (state.to_owned(), net));
        assert_eq!(states, expect);
        assert_eq!(world.payout_stands(&id).await.1, 1_000, "nothing inside the payout changes");
        if part.is_some() {
            assert_eq!(world.payout_call(APPROVER, "mark-paid", &id, &json!({})).await, 200);
        }
        assert_eq!(world.buckets().await, [("payable", -800), ("paid", 1_000)]);
        let clawback = world.lines().await.into_iter().find(|line| line["kind"] == "clawback").unwrap();
        assert_eq!(
            (&clawback["orderId"], &clawback["conversionId"]),
            (&json!("o1"), &world.line_of("o1").await["conversionId"])
        );
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_refund_beyond_the_charge_is_clamped_and_filed() {
    for (refunds, bucket) in
        [(vec!["150.00"], "payable"), (vec!["60.00", "60.00"], "payable"), (vec!["60.00", "60.00"], "paid")]
    {
        let world = Plan::new().start().await;
        world.sale("o1", "100.00").await;
        if bucket == "paid" {
            world.pay_everything().await;
        }
        for (n, amount) in refunds.iter().enumerate() {
            world.refund(&format!("r{n}"), "o1", amount).await;
        }
        let expect =
            if bucket == "paid" { vec![("payable", -1_000), ("paid", 1_000)] } else { vec![("reversed", 1_000)] };
        assert_eq!(world.buckets().await, expect, "{refunds:?}");
        assert_eq!(world.exception_codes().await, ["refund_beyond_charge"]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_refund_of_shipping_or_tax_alone_claws_nothing() {
    for aside in
        [json!({"total": "10.00", "shipping": "10.00"}), json!({"total": "18.00", "tax": "18.00", "shipping": "0"})]
    {
        let world = Plan::new().start().await;
        let sale =
            json!({"id": "o1", "type": "sale", "amount": {"total": "128.00", "tax": "18.00", "shipping": "10.00"}});
        world.report(&world.event(sale)).await.ok();
        let refund = json!({"id": "r1", "type": "refund", "conversion": "o1", "amount": aside});
        assert_eq!(world.report(&world.event(refund)).await.ok()["outcome"], "applied");
        assert_eq!(world.buckets().await, [("payable", 1_000)]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_refunded_item_takes_back_what_it_earned() {
    let rules = [
        json!({"name": "Rest", "reward": {"kind": "percent", "rate": "10"}}),
        json!({"name": "Books", "match": {"categories": ["books"]}, "reward": {"kind": "percent", "rate": "50"}}),
    ];
    let world = Plan::new().rules(rules).start().await;
    let book = json!({"sku": "B", "category": "books", "quantity": 1, "amount": "50.00"});
    let tea = json!({"sku": "T", "category": "tea", "quantity": 2, "amount": "50.00"});
    let sale = json!({"id": "o1", "type": "sale", "amount": {"total": "100.00"}, "items": [book, tea]});
    world.report(&world.event(sale)).await.ok();
    assert_eq!(world.buckets().await, [("payable", 3_000)]);
    let returned = json!({"sku": "T", "quantity": 1, "amount": "25.00"});
    let refund =
        json!({"id": "r1", "type": "refund", "conversion": "o1", "amount": {"total": "25.00"}, "items": [returned]});
    world.report(&world.event(refund)).await.ok();
    let mut nets: Vec<_> = world.states_of("o1").await.into_iter().map(|(_, net)| net).collect();
    nets.sort_unstable();
    assert_eq!(nets, [250, 2_500]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_refund_of_a_rejected_line_applies_when_it_is_reinstated() {
    for (refunded, state, net) in [("40.00", "pending", 600), ("100.00", "reversed", 0)] {
        let world = Plan::new().start().await;
        world.sale("o1", "100.00").await;
        let id = world.line_id("o1").await;
        world.reviewed("reject", &[&id]).await;
        world.refund("r1", "o1", refunded).await;
        assert_eq!(world.states_of("o1").await, [("rejected".to_owned(), 1_000)], "only recorded");
        world.reviewed("reinstate", &[&id]).await;
        assert_eq!(world.states_of("o1").await, [(state.to_owned(), net)]);
        world.audit_holds().await;
    }
}

/// 40 % of 10.00 at once, 60 % after 60 days.
async fn milestones() -> World {
    let rule = json!({"name": "Milestones", "reward": {"kind": "percent", "rate": "10"},
        "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}]});
    let world = Plan::new().rules([rule]).start().await;
    world.sale("o1", "100.00").await;
    world
}

#[tokio::test]
async fn a_refund_takes_from_the_newest_milestone_first() {
    let world = milestones().await;
    world.refund("r1", "o1", "50.00").await;
    assert_eq!(world.buckets().await, [("approved", 100), ("payable", 400), ("reversed", 500)]);
    world.refund("r2", "o1", "20.00").await;
    assert_eq!(world.buckets().await, [("payable", 300), ("reversed", 700)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_milestones_that_are_not_paid_cannot_cover_is_clawed_back() {
    let world = milestones().await;
    world.pay_everything().await;
    world.refund("r1", "o1", "50.00").await;
    assert_eq!(world.buckets().await, [("approved", 100), ("paid", 400), ("reversed", 500)]);
    world.refund("r2", "o1", "20.00").await;
    assert_eq!(world.buckets().await, [("payable", -100), ("paid", 400), ("reversed", 600)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_wholly_refunded_sale_gives_its_tier_position_back_and_others_keep_their_rate() {
    let world = Plan::new().rules([tiered(&[("0", "10"), ("2", "20")])]).start().await;
    for order in ["o1", "o2", "o3"] {
        world.sale(order, "100.00").await;
    }
    world.refund("r1", "o1", "50.00").await;
    world.sale("o4", "100.00").await;
    world.refund("r2", "o1", "50.00").await;
    world.refund("r3", "o2", "100.00").await;
    world.sale("o5", "100.00").await;
    // o3 stays at 20 % though it now is the first; o5 is the third again.
    for (order, net) in [("o3", 2_000), ("o4", 2_000), ("o5", 2_000)] {
        assert_eq!(world.states_of(order).await, [("payable".to_owned(), net)], "{order}");
    }
    world.refund("r4", "o3", "100.00").await;
    world.sale("o6", "100.00").await;
    world.refund("r5", "o6", "100.00").await;
    world.refund("r6", "o5", "100.00").await;
    world.sale("o7", "100.00").await;
    assert_eq!(world.states_of("o7").await, [("payable".to_owned(), 1_000)], "the second again");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_refund_of_an_unattributed_sale_is_kept_and_moves_nothing() {
    let world = Plan::new().start().await;
    let sale = world.event(json!({"id": "o1", "type": "sale", "amount": {"total": "100.00"}, "partner": null}));
    assert_eq!(world.report(&sale).await.ok()["outcome"], "unattributed");
    assert_eq!(world.refund("r1", "o1", "40.00").await, "applied");
    assert_eq!(world.refund("r1", "o1", "40.00").await, "already_applied");
    assert_eq!(world.lines().await, [] as [Value; 0]);
    world.audit_holds().await;
}
