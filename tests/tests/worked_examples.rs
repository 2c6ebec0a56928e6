//! The worked examples of the rules of money, end to end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use tests::{ADMIN, Plan, Request, World, percent, tiered};

/// What one sale earns under one rule, in minor units.
async fn earned(rule: Value, event: Value) -> i64 {
    let world = Plan::new().rules([rule]).start().await;
    world.report(&world.event(event)).await.ok();
    let amount = world.line_of("o1").await["amount"]["minor"].as_i64().unwrap();
    world.audit_holds().await;
    amount
}

fn sale_of(total: &str) -> Value {
    json!({"id": "o1", "type": "sale", "amount": {"total": total}})
}

#[tokio::test]
async fn a_rate_rounds_half_away_from_zero_and_a_flat_amount_does_not_depend_on_the_order() {
    let flat = || json!({"name": "Flat", "reward": {"kind": "flat", "amount": "15.00"}});
    for (rule, total, expect) in [
        (percent("30"), "100.00", 3_000),
        (flat(), "50.00", 1_500),
        (flat(), "500.00", 1_500),
        (percent("20"), "0.07", 1),
        (percent("20"), "0.02", 0),
        (percent("20"), "0.03", 1),
        (percent("10"), "0.15", 2),
        (percent("50"), "0.01", 1),
        (percent("2.9"), "5.00", 15),
        (percent("15"), "10.05", 151),
    ] {
        assert_eq!(earned(rule.clone(), sale_of(total)).await, expect, "{rule} of {total}");
    }
}

#[tokio::test]
async fn items_under_one_rule_are_summed_before_they_are_rounded() {
    let item = || json!({"sku": "A", "quantity": 1, "amount": "0.15"});
    let event = json!({"id": "o1", "type": "sale", "amount": {"total": "0.45"}, "items": [item(), item(), item()]});
    assert_eq!(earned(percent("10"), event).await, 5);
}

#[tokio::test]
async fn a_partial_refund_takes_its_share() {
    // Rate, total and tax of the sale, total refunded: what is taken back, what remains.
    for (rate, total, tax, refunded, taken, left) in [
        ("25", "100.00", "0", "40.00", 1_000, 1_500),
        ("30", "118.00", "18.00", "40.00", 1_017, 1_983),
        ("66.666667", "0.03", "0", "0.01", 1, 1),
    ] {
        let world = Plan::new().rules([percent(rate)]).start().await;
        let sale = json!({"id": "o1", "type": "sale", "amount": {"total": total, "tax": tax}});
        world.report(&world.event(sale)).await.ok();
        world.refund("r1", "o1", refunded).await;
        assert_eq!(world.buckets().await, [("payable", left), ("reversed", taken)], "{rate} % of {total}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn what_is_refunded_after_payment_is_owed_back() {
    let world = Plan::new().reviewed().start().await;
    let owed =
        async || world.buckets().await.iter().find(|(bucket, _)| *bucket == "payable").map_or(0, |(_, sum)| *sum);
    world.sale("o1", "100.00").await;
    assert_eq!(owed().await, 0);
    world.reviewed("approve", &[&world.line_id("o1").await]).await;
    assert_eq!(owed().await, 1_000);
    world.pay_everything().await;
    assert_eq!(owed().await, 0);
    world.refund("r1", "o1", "100.00").await;
    assert_eq!(owed().await, -1_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_hold_period_ends_with_its_last_moment_included() {
    let world = Plan::new().at("2026-03-28T23:30:00Z").hold_days(30).start().await;
    world.sale("o1", "100.00").await;
    assert_eq!(world.line_of("o1").await["dueAt"], "2026-04-27T23:30:00Z");
    for (now, matured, state) in [
        ("2026-04-27T23:29:59Z", 0, "approved"),
        ("2026-04-27T23:30:00Z", 1, "payable"),
        ("2026-04-27T23:31:00Z", 0, "payable"),
    ] {
        world.clock_at(now);
        assert_eq!(world.fire("mature-commissions").await["lines"], matured, "{now}");
        assert_eq!(world.line_of("o1").await["state"], state, "{now}");
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn a_tier_starts_with_the_sale_after_its_number() {
    let world = Plan::new().rules([tiered(&[("0", "10"), ("100", "15")])]).start().await;
    for number in 1..=150 {
        world.sale(&format!("o{number}"), "10.00").await;
    }
    for (order, expect) in [("o1", 100), ("o100", 100), ("o101", 150), ("o150", 150)] {
        assert_eq!(world.states_of(order).await, [("payable".to_owned(), expect)], "{order}");
    }
    assert_eq!(world.buckets().await, [("payable", 17_500)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_does_not_reach_the_minimum_payout_is_carried_to_the_next_run() {
    let world = Plan::new().at("2026-11-10T00:00:00Z").minimum("50.00").start().await;
    world.sale("o1", "400.00").await;
    world.clock_at("2026-12-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.payouts().await, [] as [Value; 0]);
    assert_eq!(world.unpaid_because().await, [("below_threshold".to_owned(), 4_000)]);
    world.clock_at("2026-12-20T12:00:00Z");
    world.sale("o2", "200.00").await;
    assert_eq!(world.unpaid_because().await, [("next_run".to_owned(), 6_000)]);
    world.clock_at("2027-01-01T00:20:00Z");
    world.tick().await;
    let payout = world.only_payout().await;
    assert_eq!((&payout["amount"]["amount"], &payout["state"]), (&json!("60.00"), &json!("pending")));
    assert_eq!(payout["createdAt"], "2027-01-01T00:20:00Z");
    world.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_payouts_of_everything_asked_for_at_once_one_succeeds() {
    for _ in 0..5 {
        let world = Plan::new().start().await;
        world.sale("o1", "500.00").await;
        let request =
            world.by(ADMIN, Request::post("/payouts", &world.payout_request(&json!({"amount": "50.00"})))).await;
        let replies = world.together(vec![request.clone(), request]).await;
        let mut codes: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        codes.sort_unstable();
        assert_eq!(codes, [201, 409], "{replies:?}");
        assert_eq!(world.buckets().await, [("inPayout", 5_000)]);
        world.audit_holds().await;
    }
}

/// A partner who was paid 15.00 for what was refunded since, and earned 10.00 more.
async fn owing_more_than_earned() -> World {
    let world = Plan::new().start().await;
    world.sale("o1", "150.00").await;
    world.pay_everything().await;
    world.refund("r1", "o1", "150.00").await;
    world.sale("o2", "100.00").await;
    world
}

#[tokio::test]
async fn a_negative_balance_is_carried_and_never_lost() {
    let world = owing_more_than_earned().await;
    assert_eq!(world.buckets().await, [("payable", -500), ("paid", 1_500)]);
    assert_eq!(world.unpaid_because().await, [("negative_balance".to_owned(), -500)]);
    world.request_payout_with(&json!({})).await.refused(409);
    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.payouts().await.len(), 1);
    assert_eq!(world.buckets().await, [("payable", -500), ("paid", 1_500)]);
    world.sale("o3", "600.00").await;
    world.clock_at("2026-03-01T00:20:00Z");
    world.tick().await;
    let payouts = world.payouts().await;
    assert_eq!((payouts.len(), &payouts[0]["amount"]["amount"]), (2, &json!("55.00")));
    world.audit_holds().await;
}

#[tokio::test]
async fn milestones_are_paid_in_their_time() {
    let rule = json!({"name": "Milestones", "reward": {"kind": "percent", "rate": "10"},
        "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}]});
    let world = Plan::new().rules([rule]).start().await;
    world.sale("o1", "100.00").await;
    assert_eq!(world.buckets().await, [("approved", 600), ("payable", 400)]);
    world.pay_everything().await;
    world.pass("60d");
    world.fire("mature-commissions").await;
    assert_eq!(world.buckets().await, [("payable", 600), ("paid", 400)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn slices_sum_to_the_whole() {
    let quarter = || json!({"share": "25", "days": 0});
    let two = |first: &str, second: &str| vec![json!({"share": first}), json!({"share": second})];
    for (total, slices, expect) in [
        ("0.20", vec![quarter(), quarter(), quarter(), quarter()], vec![1, 0, 1, 0]),
        ("33.30", two("40", "60"), vec![133, 200]),
    ] {
        let rule = json!({"name": "Slices", "reward": {"kind": "percent", "rate": "10"}, "slices": slices});
        let world = Plan::new().rules([rule]).start().await;
        world.sale("o1", total).await;
        let mut amounts: Vec<_> =
            world.lines_of("o1").await.iter().map(|line| line["amount"]["minor"].as_i64().unwrap()).collect();
        // Slices of one moment are listed in no particular order.
        amounts.sort_unstable();
        let mut expect = expect.clone();
        expect.sort_unstable();
        assert_eq!(amounts, expect, "{total}");
        world.audit_holds().await;
    }
}
