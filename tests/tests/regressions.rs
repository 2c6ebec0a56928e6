//! Defects that were found once, each as the smallest story that showed it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use tests::{ADMIN, APPROVER, Plan, REVIEWER, Request, SECOND_ADMIN, percent, result_codes, tiered};

fn items(items: &[(&str, &str, bool)]) -> Value {
    let item = |(sku, amount, gift): &(&str, &str, bool)| json!({"sku": sku, "quantity": 1, "amount": amount, "giftCard": gift});
    items.iter().map(item).collect()
}

#[tokio::test]
async fn refunding_a_gift_card_takes_nothing_back() {
    let world = Plan::new().start().await;
    let mut sale = world.sale_event("o1", "100.00");
    sale["items"] = items(&[("CARD", "50.00", true), ("A", "50.00", false)]);
    world.report(&sale).await.ok();
    let mut refund = world.refund_event("r1", "o1", "50.00");
    refund["items"] = items(&[("CARD", "50.00", false)]);
    world.report(&refund).await.ok();
    assert_eq!(world.buckets().await, [("payable", 500)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn refunded_sales_that_earned_nothing_leave_their_tier() {
    let world = Plan::new().rules([tiered(&[("0", "0"), ("2", "10")])]).start().await;
    for order in ["o1", "o2"] {
        world.sale(order, "100.00").await;
        world.refund(&format!("r-{order}"), order, "100.00").await;
    }
    // Refunded before it arrives, it takes no place either.
    world.refund("r-o3", "o3", "100.00").await;
    world.sale("o3", "100.00").await;
    world.sale("o4", "100.00").await;
    assert_eq!(world.states_of("o4").await, [("payable".to_owned(), 0)]);
    assert_eq!(world.states_of("o1").await, [("reversed".to_owned(), 0)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_partner_may_earn_more_than_any_single_amount() {
    let world = Plan::new().program("currency", "IDR").rules([percent("100")]).start().await;
    for order in ["o1", "o2", "o3"] {
        let mut sale = world.sale_event(order, "9000000000.00");
        sale["amount"]["currency"] = json!("IDR");
        world.report(&sale).await.ok();
    }
    assert_eq!(world.buckets().await, [("payable", 2_700_000_000_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_run_sees_what_is_due_whichever_schedule_fired_first() {
    let world = Plan::new().hold_days(5).minimum("10.00").start().await;
    world.sale("o1", "1000.00").await;
    world.clock_at("2026-02-01T00:30:00Z");
    world.fire("batch-payouts").await;
    world.settle().await;
    assert_eq!(world.only_payout().await["amount"]["minor"], 10_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_becomes_payable_after_the_decision_waits_for_the_next_payout() {
    let world = Plan::new().minimum("0").start().await;
    for n in 0..60 {
        world.sale(&format!("o{n}"), "10.00").await;
    }
    let selling = async {
        for n in 0..20 {
            world.sale(&format!("later{n}"), "10.00").await;
        }
    };
    let (payout, ()) = tokio::join!(world.request_payout(), selling);
    let lines = payout["lineCount"].as_u64().unwrap();
    assert!((60..80).contains(&lines), "{lines} lines");
    let rest = 80 - i64::try_from(lines).unwrap();
    assert_eq!(world.buckets().await, [("payable", rest * 100), ("inPayout", (80 - rest) * 100)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_sale_of_too_many_parts_is_refused_and_not_tried_for_ever() {
    let slices: Value = (0..6).map(|n| json!({"share": if n == 0 { "50" } else { "10" }, "days": n})).collect();
    let rules: Vec<Value> = (0..7)
        .map(|n| {
            let matches = json!({"products": [format!("P{n}")]});
            json!({"name": format!("rule {n}"), "match": matches, "reward": {"kind": "percent", "rate": "10"}, "slices": slices})
        })
        .collect();
    let world = Plan::new().rules(rules).start().await;
    let mut sale = world.sale_event("o1", "70.00");
    sale["items"] = (0..7).map(|n| json!({"sku": format!("P{n}"), "quantity": 1, "amount": "10.00"})).collect();
    assert_eq!(world.report(&sale).await.refused(422).pointers(), ["/items"]);
    let shop = world.connect("standard", None).await;
    world.deliver(&shop, "", &sale.to_string()).await;
    assert_eq!(world.exception_codes().await, ["impossible"]);
    world.audit_holds().await;
}

#[tokio::test]
async fn large_nonsense_is_kept_whole() {
    let world = Plan::new().start().await;
    let shop = world.connect("shopify", None).await;
    let body = "é".repeat(170_000);
    world.deliver(&shop, "orders/paid", &body).await;
    let exceptions = world.exceptions().await;
    assert_eq!(exceptions.len(), 1);
    let id = exceptions[0]["id"].as_str().unwrap();
    let kept = world.get(ADMIN, &format!("/exceptions/{id}")).await.ok();
    assert_eq!(kept["body"].as_str(), Some(body.as_str()));
}

#[tokio::test]
async fn a_test_notification_is_no_sale() {
    let world = Plan::new().start().await;
    let shop = world.connect("shopify", None).await;
    let order = json!({
        "id": 1, "currency": "USD", "financial_status": "paid", "processed_at": "2026-01-01T00:00:00Z", "total_price": "100.00",
        "total_tax": "0.00", "discount_codes": [{"code": "ANNA10"}], "line_items": [],
    });
    let delivery = shop.delivery("orders/paid", &order.to_string()).header("x-shopify-test", "true");
    assert_eq!(world.send(delivery).await.status, 200);
    world.settle().await;
    assert!(world.lines().await.is_empty());
}

#[tokio::test]
async fn a_partner_named_twice_is_asked_once() {
    let world = Plan::new().minimum("0").start().await;
    world.sale("o1", "10.00").await;
    let run = json!({"programId": world.program, "include": [world.partner, world.partner]});
    let run = world.post(APPROVER, "/runs", &run).await.ok();
    world.settle().await;
    let report = world.get(APPROVER, &format!("/runs/{}", run["id"].as_str().unwrap())).await.ok();
    assert_eq!((&report["state"], &report["partners"]), (&json!("completed"), &json!(1)));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_hand_in_a_line_that_left_does_not_bind_the_payout() {
    let world = Plan::new().minimum("0").start().await;
    world.sale("o1", "100.00").await;
    world.sale("o2", "100.00").await;
    let line = world.line_id("o1").await;
    world.reviewed("hold", &[&line]).await;
    world.review(SECOND_ADMIN, "release", &[&line]).await.ok();
    let payout = world.request_payout().await;
    assert_eq!(world.approve_payout(SECOND_ADMIN, &payout["id"]).await, 409);
    world.reviewed("hold", &[&line]).await;
    assert_eq!(world.approve_payout(SECOND_ADMIN, &payout["id"]).await, 200);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_refused_request_leaves_no_run_behind() {
    let world = Plan::new().minimum("50.00").start().await;
    world.sale("o1", "10.00").await;
    world.request_payout_with(&json!({})).await.refused(409);
    assert!(world.all(ADMIN, &format!("/runs?programId={}", world.program)).await.is_empty());
}

#[tokio::test]
async fn debts_that_cancel_out_need_no_payout_method() {
    let world = Plan::new().minimum("0").partner("payoutMethods", json!([{"kind": "manual"}])).start().await;
    world.sale("o1", "100.00").await;
    world.pay_everything().await;
    world.refund("r1", "o1", "100.00").await;
    world.sale("o2", "100.00").await;
    let netted = world.request_payout().await;
    assert_eq!((&netted["state"], &netted["reference"]), (&json!("paid"), &json!("netted")));
    world.audit_holds().await;
}

#[tokio::test]
async fn partners_do_not_read_who_did_what() {
    let world = Plan::new().minimum("0").reviewed().start().await;
    world.sale("o1", "100.00").await;
    let line = world.line_id("o1").await;
    world.review(REVIEWER, "hold", &[&line]).await.ok();
    world.review(REVIEWER, "release", &[&line]).await.ok();
    world.review(REVIEWER, "approve", &[&line]).await.ok();
    let payout = world.request_payout().await;
    assert_eq!(world.approve_payout(APPROVER, &payout["id"]).await, 200);
    let partner = world.partner_signs_in(&world.partner).await;
    let own = world.get(partner, &format!("/payouts/{}", payout["id"].as_str().unwrap())).await.ok();
    assert_eq!(own["approvals"], json!([]));
    let explained = world.get(partner, &format!("/commissions/{line}/explanation")).await.ok();
    let steps = explained["history"].as_array().unwrap();
    assert!(!steps.is_empty() && steps.iter().all(|step| step.get("by").is_none() && step.get("why").is_none()));
}

#[tokio::test]
async fn the_same_part_under_the_same_reference_is_paid_once() {
    let world = Plan::new().minimum("0").start().await;
    world.sale("o1", "1000.00").await;
    let payout = world.request_payout().await;
    world.approve_payout(APPROVER, &payout["id"]).await;
    let part = json!({"payouts": [{"id": payout["id"], "reference": "bank 1", "amount": "40.00"}]});
    let mut requests = Vec::new();
    for _ in 0..6 {
        requests.push(world.by(APPROVER, Request::post("/payouts/mark-paid", &part)).await);
    }
    // At once, and then once more.
    for reply in world.together(requests.clone()).await.into_iter().chain([world.send(requests.remove(0)).await]) {
        assert_eq!(result_codes(&reply), [200]);
    }
    assert_eq!(world.payout(&payout["id"]).await["paid"]["minor"], 4_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn case_makes_no_other_code_and_another_action_is_another_event() {
    let world = Plan::new().start().await;
    let partner = world.get(ADMIN, &format!("/partners/{}", world.partner)).await.ok();
    let code = partner["code"].as_str().unwrap();
    let mut sale = world.sale_event("o1", "100.00");
    sale["partner"] = json!({ "code": code });
    world.report(&sale).await.ok();
    let mut lower = sale.clone();
    lower["partner"]["code"] = json!(code.to_lowercase());
    assert_eq!(world.report(&lower).await.ok()["outcome"], "already_applied");
    let mut renewal = sale;
    renewal["type"] = json!("renewal");
    world.report(&renewal).await.refused(409);
    world.audit_holds().await;
}

/// Found by the simulator: such a line came back to life, and took a tier position for a sale that was wholly refunded.
#[tokio::test]
async fn a_rejected_commission_of_zero_stays_gone_when_its_sale_went_back() {
    let world = Plan::new().rules([tiered(&[("0", "0"), ("1", "10")])]).reviewed().start().await;
    world.sale("o1", "100.00").await;
    let line = world.line_id("o1").await;
    world.reviewed("reject", &[&line]).await;
    world.refund("r1", "o1", "100.00").await;
    world.reviewed("reinstate", &[&line]).await;
    assert_eq!(world.states_of("o1").await, [("reversed".to_owned(), 0)]);
    world.sale("o2", "100.00").await;
    assert_eq!(world.states_of("o2").await, [("pending".to_owned(), 0)], "it is the first, not the second");
    world.audit_holds().await;
}
