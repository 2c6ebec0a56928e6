//! What becomes of a payout once it is approved: sent, paid, failed, come back, tried again, ended; and its commissions with it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use domain::ids::PayoutId;
use domain::money::Minor;
use domain::payout::Teller;
use serde_json::{Value, json};
use tests::{ADMIN, APPROVER, FINANCE, MANAGER, Plan, REVIEWER, Request, SECOND_ADMIN, World, result_codes};
use workflows::{Refusal, payouts};

/// Sales of 100.00, of which 10.00 each is payable.
async fn with_sales(plan: Plan, sales: usize) -> World {
    let world = plan.start().await;
    for number in 0..sales {
        world.sale(&format!("o{number}"), "100.00").await;
    }
    world
}

/// An approved payout of so many sales.
async fn approved(plan: Plan, sales: usize) -> (World, Value) {
    let world = with_sales(plan, sales).await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    (world, id)
}

fn parsed(id: &Value) -> PayoutId {
    id.as_str().unwrap().parse().unwrap()
}

async fn sent(world: &World, id: &Value) {
    let context = &world.system.context;
    payouts::begin_submit(context, &parsed(id), "rail").await.unwrap();
    assert_eq!(world.payout(id).await["state"], "submitting");
    payouts::submit(context, &parsed(id), Some("batch 1"), "rail").await.unwrap();
    assert_eq!(world.payout(id).await["state"], "submitted");
}

const REASONED: [&str; 6] = ["send-back", "cancel", "retry", "void", "mark-failed", "mark-returned"];

/// What every call about a payout answers; nothing it refuses changes anything.
async fn refused_but(world: &World, id: &Value, allowed: &[&str]) {
    let before = world.payout(id).await;
    for call in REASONED {
        if !allowed.contains(&call) {
            assert_eq!(world.payout_call(ADMIN, call, id, &json!({"reason": "test"})).await, 409, "{call} {before}");
        }
    }
    if !allowed.contains(&"mark-paid") {
        assert_eq!(world.payout_call(ADMIN, "mark-paid", id, &json!({})).await, 409, "mark-paid {before}");
    }
    if !allowed.contains(&"approve") {
        assert_eq!(world.approve_payout(SECOND_ADMIN, id).await, 409, "approve {before}");
    }
    if !allowed.contains(&"exclude") {
        let line = world.lines().await[0]["id"].as_str().unwrap().to_owned();
        assert!(matches!(world.exclude(ADMIN, id, &[&line]).await[0], 409 | 422), "exclude {before}");
    }
    assert_eq!(world.payout(id).await, before);
}

async fn turn(world: &World, call: &str, id: &Value) {
    assert_eq!(world.payout_call(FINANCE, call, id, &json!({"reason": "the bank says so"})).await, 200, "{call}");
}

#[tokio::test]
async fn in_each_state_only_the_transitions_of_the_table_are_taken() {
    let world = with_sales(Plan::new(), 2).await;
    let id = world.request_payout().await["id"].clone();
    refused_but(&world, &id, &["cancel", "approve", "exclude"]).await;
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    refused_but(&world, &id, &["send-back", "cancel", "mark-paid", "exclude"]).await;
    payouts::begin_submit(&world.system.context, &parsed(&id), "rail").await.unwrap();
    refused_but(&world, &id, &[]).await;
    payouts::submit(&world.system.context, &parsed(&id), Some("b"), "rail").await.unwrap();
    refused_but(&world, &id, &["mark-paid", "mark-failed", "mark-returned", "void"]).await;
    turn(&world, "mark-failed", &id).await;
    refused_but(&world, &id, &["retry", "void"]).await;
    turn(&world, "retry", &id).await;
    assert_eq!(world.payout(&id).await["state"], "submitted", "people have it in hand, at once");
    refused_but(&world, &id, &["mark-paid", "mark-failed", "mark-returned", "void"]).await;
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({"amount": "5.00"})).await, 200);
    // Money went out, so it cannot be voided before it is back.
    refused_but(&world, &id, &["mark-paid", "mark-failed", "mark-returned"]).await;
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({})).await, 200);
    refused_but(&world, &id, &["mark-returned"]).await;
    assert_eq!(world.buckets().await, [("paid", 2_000)]);
    turn(&world, "mark-returned", &id).await;
    refused_but(&world, &id, &["retry", "void"]).await;
    assert_eq!(world.buckets().await, [("inPayout", 2_000)]);
    turn(&world, "void", &id).await;
    refused_but(&world, &id, &[]).await;
    assert_eq!(world.buckets().await, [("payable", 2_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payment_that_comes_back_takes_every_commission_back_into_its_payout() {
    for sales in [1, 50, 100] {
        let (world, id) = approved(Plan::new(), sales).await;
        let all = 1_000 * i64::try_from(sales).unwrap();
        assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({"reference": "w1"})).await, 200);
        assert_eq!(world.buckets().await, [("paid", all)]);
        turn(&world, "mark-returned", &id).await;
        let payout = world.payout(&id).await;
        assert_eq!(
            (&payout["state"], &payout["paid"]["minor"], &payout["paidAt"]),
            (&json!("returned"), &json!(0), &Value::Null)
        );
        assert_eq!(world.buckets().await, [("inPayout", all)]);
        assert!(world.lines().await.iter().all(|line| line["paidAt"].is_null() && line["payoutId"] == id));
        assert_eq!(world.exception_codes().await, ["payout_returned"]);
        world.audit_holds().await;
        turn(&world, "retry", &id).await;
        assert_eq!(world.exception_codes().await, [] as [&str; 0], "it is dealt with");
        world.tick().await;
        assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({"reference": "w1"})).await, 200);
        assert_eq!(world.buckets().await, [("paid", all)]);
        assert_eq!(world.payouts().await.len(), 1, "under the same identity");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_payment_that_was_told_before_a_retry_counts_once() {
    let (world, id) = approved(Plan::new(), 1).await;
    let part = json!({"reference": "w1", "amount": "4.00"});
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &part).await, 200);
    turn(&world, "mark-failed", &id).await;
    turn(&world, "retry", &id).await;
    world.tick().await;
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &part).await, 200);
    assert_eq!(
        (&world.payout(&id).await["state"], &world.payout(&id).await["paid"]["minor"]),
        (&json!("submitted"), &json!(400))
    );
    world.audit_holds().await;
}

#[tokio::test]
async fn a_rail_reports_how_much_is_paid_and_its_word_goes_both_ways() {
    let (world, id) = approved(Plan::new(), 60).await;
    let context = &world.system.context;
    sent(&world, &id).await;
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    for (paid, state, bucket) in [
        (0, "submitted", "inPayout"),
        (20_000, "partially_paid", "inPayout"),
        (60_000, "paid", "paid"),
        (60_000, "paid", "paid"),
        (30_000, "partially_paid", "inPayout"),
        (60_000, "paid", "paid"),
        (0, "submitted", "inPayout"),
    ] {
        payouts::report(context, &parsed(&id), Minor::new(paid).unwrap(), Some("txn"), at, "rail").await.unwrap();
        let payout = world.payout(&id).await;
        assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!(state), &json!(paid)));
        assert_eq!(world.buckets().await, [(bucket, 60_000)]);
        world.audit_holds().await;
    }
    let more = payouts::report(context, &parsed(&id), Minor::new(60_001).unwrap(), None, at, "rail").await;
    assert!(matches!(more, Err(Refusal::Invalid(_))), "{more:?}");
    payouts::void(context, &parsed(&id), "the Bill is gone", Teller::Rail("rail")).await.unwrap();
    assert_eq!(world.buckets().await, [("payable", 60_000)]);
    world.settle().await;
    for (kind, times) in [("payout.submitted", 2), ("payout.partially_paid", 2), ("payout.paid", 2), ("payout.void", 1)]
    {
        assert_eq!(world.events(kind).len(), times, "{kind}");
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn what_a_void_payout_frees_is_paid_by_the_next_one() {
    let (world, id) = approved(Plan::new(), 50).await;
    sent(&world, &id).await;
    turn(&world, "void", &id).await;
    world.sale("more", "100.00").await;
    let next = world.request_payout().await;
    assert_ne!(next["id"], id);
    assert_eq!(next["amount"]["minor"], 51_000);
    world.pay(&next["id"]).await;
    assert_eq!(world.buckets().await, [("paid", 51_000)]);
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({})).await, 409, "void is void");
    world.audit_holds().await;
}

#[tokio::test]
async fn refunds_while_a_payout_is_on_its_way_are_clawed_back_whatever_becomes_of_it() {
    for end in ["void", "mark-returned"] {
        let (world, id) = approved(Plan::new(), 2).await;
        sent(&world, &id).await;
        world.refund("r1", "o0", "100.00").await;
        assert_eq!(world.buckets().await, [("payable", -1_000), ("inPayout", 2_000)]);
        if end == "mark-returned" {
            assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({})).await, 200);
            turn(&world, "mark-returned", &id).await;
            world.refund("r2", "o1", "50.00").await;
            assert_eq!(world.buckets().await, [("payable", -1_500), ("inPayout", 2_000)]);
            turn(&world, "void", &id).await;
            assert_eq!(world.buckets().await, [("payable", 500)]);
        } else {
            turn(&world, "void", &id).await;
            assert_eq!(world.buckets().await, [("payable", 1_000)]);
            // Free again, it shrinks by itself.
            world.refund("r2", "o1", "50.00").await;
            assert_eq!(world.buckets().await, [("payable", 500), ("reversed", 500)]);
        }
        assert_eq!(world.request_payout().await["amount"]["minor"], 500);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn what_was_settled_at_zero_cannot_come_back() {
    let world = with_sales(Plan::new(), 1).await;
    world.pay_everything().await;
    world.refund("r1", "o0", "100.00").await;
    world.sale("more", "100.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    let netted = world.payouts().await.remove(0);
    assert_eq!(netted["reference"], "netted");
    assert_eq!(world.payout_call(FINANCE, "mark-returned", &netted["id"], &json!({"reason": "x"})).await, 409);
    world.audit_holds().await;
}

#[tokio::test]
async fn only_quickbooks_says_what_became_of_a_quickbooks_payout() {
    let methods = json!([{"kind": "quickbooks", "preferred": true}]);
    let nobody = local::QuickbooksOptions { connected: false, ..local::QuickbooksOptions::default() };
    let (world, id) = approved(Plan::new().quickbooks(nobody).partner("payoutMethods", methods), 1).await;
    sent(&world, &id).await;
    refused_but(&world, &id, &[]).await;
    let context = &world.system.context;
    payouts::fail(context, &parsed(&id), "no such vendor", Teller::Rail("quickbooks")).await.unwrap();
    turn(&world, "retry", &id).await;
    world.tick().await;
    assert_eq!(world.payout(&id).await["state"], "submitting", "until the rail takes it");
    payouts::submit(context, &parsed(&id), Some("bill 7"), "quickbooks").await.unwrap();
    payouts::void(context, &parsed(&id), "the Bill was deleted", Teller::Rail("quickbooks")).await.unwrap();
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn each_turn_is_told_once() {
    let (world, id) = approved(Plan::new(), 1).await;
    assert_eq!(world.payout_call(APPROVER, "send-back", &id, &json!({"reason": "wait"})).await, 200);
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    sent(&world, &id).await;
    turn(&world, "mark-failed", &id).await;
    turn(&world, "retry", &id).await;
    world.tick().await;
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({"amount": "1.00"})).await, 200);
    turn(&world, "mark-returned", &id).await;
    turn(&world, "void", &id).await;
    world.settle().await;
    for (kind, times) in [
        ("payout.created", 1),
        ("payout.approved", 2),
        ("payout.sent_back", 1),
        ("payout.submitted", 2),
        ("payout.partially_paid", 1),
        ("payout.failed", 1),
        ("payout.returned", 1),
        ("payout.void", 1),
        ("payout.paid", 0),
        ("payout.cancelled", 0),
    ] {
        assert_eq!(world.events(kind).len(), times, "{kind}");
    }
    world.audit_holds().await;
}

// --- Excluding ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_excluded_commission_is_payable_again_and_the_rest_is_approved_anew() {
    let (world, id) = approved(Plan::new(), 3).await;
    let line = world.line_id("o1").await;
    assert_eq!(world.exclude(APPROVER, &id, &[&line]).await, [200]);
    assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 2_000, 2, 0));
    assert_eq!(world.line_of("o1").await["state"], "payable");
    assert_eq!(world.exclude(APPROVER, &id, &[&line]).await, [422], "it is not in it any more");
    world.settle().await;
    assert_eq!(world.events("payout.sent_back").len(), 1);
    let other = world.request_payout().await;
    assert_eq!(other["amount"]["minor"], 1_000);
    assert_eq!(world.exclude(APPROVER, &id, &[&line]).await, [422], "it is in another");
    world.pay(&id).await;
    world.pay(&other["id"]).await;
    assert_eq!(world.buckets().await, [("paid", 3_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn excluding_takes_all_that_is_named_or_nothing() {
    let (world, id) = approved(Plan::new(), 2).await;
    world.sale("later", "100.00").await;
    let (inside, outside) = (world.line_id("o0").await, world.line_id("later").await);
    let nobody = "com_000000000000000000000000000000000000000000000000";
    for (named, codes) in [
        (vec![inside.as_str(), outside.as_str()], vec![409, 422]),
        (vec![inside.as_str(), "nonsense"], vec![409, 404]),
        (vec![inside.as_str(), nobody], vec![409, 404]),
        (vec![inside.as_str(), inside.as_str()], vec![409, 409]),
    ] {
        assert_eq!(world.exclude(APPROVER, &id, &named).await, codes, "{named:?}");
    }
    assert_eq!(world.payout_stands(&id).await, ("approved".to_owned(), 2_000, 1, 1));
    assert_eq!(world.exclude(APPROVER, &json!("pay_nonsense"), &[&inside]).await, [404]);
    let asked = json!({"id": id, "commissionIds": [inside]});
    world.post(APPROVER, "/payouts/exclude", &asked).await.refused(422);
    let asked = json!({"id": id, "commissionIds": [], "reason": "none"});
    world.post(APPROVER, "/payouts/exclude", &asked).await.refused(422);
    world.audit_holds().await;
}

#[tokio::test]
async fn an_exclusion_below_the_minimum_cancels_unless_that_was_overridden() {
    for (overridden, excluded, state, amount) in [
        (false, 1, "pending", 2_000),
        (false, 2, "cancelled", 1_000),
        (true, 2, "pending", 1_000),
        (true, 3, "cancelled", 0),
        (false, 3, "cancelled", 0),
    ] {
        let world = with_sales(Plan::new().minimum("20.00"), 3).await;
        let fields = if overridden { json!({"override": "leaving"}) } else { json!({}) };
        let id = world.request_payout_with(&fields).await.ok()["id"].clone();
        let lines: Vec<_> = world.lines().await.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
        let named: Vec<&str> = lines.iter().take(excluded).map(String::as_str).collect();
        assert_eq!(world.exclude(APPROVER, &id, &named).await, vec![200; excluded]);
        let (stands, sum, ..) = world.payout_stands(&id).await;
        assert_eq!((stands.as_str(), sum), (state, amount), "{excluded} of 3, overridden: {overridden}");
        let free = if state == "cancelled" { 3_000 } else { 3_000 - amount };
        let buckets = world.buckets().await;
        assert_eq!(buckets.iter().find(|(name, _)| *name == "payable"), Some(&("payable", free)));
        world.audit_holds().await;
    }
}

// --- Payout details ------------------------------------------------------------------------------------------------

fn paypal(email: &str) -> Value {
    json!([{"kind": "paypal", "details": {"email": email}, "preferred": true}])
}

#[tokio::test]
async fn changed_payout_details_send_an_approved_payout_back_and_wait_out_the_cooling_off() {
    let (world, id) = approved(Plan::new().partner("payoutMethods", paypal("a@x.example")), 1).await;
    let before = world.payout(&id).await;
    world.change_methods(MANAGER, &paypal("a@x.example")).await;
    assert_eq!(world.payout(&id).await, before, "nothing changed");
    world.change_methods(MANAGER, &paypal("b@x.example")).await;
    assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 1_000, 2, 0));
    assert_ne!(world.payout(&id).await["linesHash"], before["linesHash"]);
    let seen = json!({"version": before["version"], "amount": "10.00", "linesHash": before["linesHash"]});
    assert_eq!(world.payout_call(APPROVER, "approve", &id, &seen).await, 412);
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    // The days have not passed.
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({})).await, 409);
    let early = payouts::begin_submit(&world.system.context, &parsed(&id), "rail").await.unwrap_err();
    assert!(early.to_string().contains("2026-01-04T00:00:00Z"), "{early}");
    world.pass("3d");
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({})).await, 200);
    world.audit_holds().await;
}

#[tokio::test]
async fn whoever_changed_the_details_does_not_approve_what_is_paid_to_them() {
    let world = with_sales(Plan::new().partner("payoutMethods", paypal("a@x.example")), 1).await;
    world.change_methods(ADMIN, &paypal("b@x.example")).await;
    world.pass("9d");
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(ADMIN, &id).await, 409);
    assert_eq!(world.approve_payout(SECOND_ADMIN, &id).await, 200);
    world.audit_holds().await;
}

#[tokio::test]
async fn the_first_details_are_free_and_all_others_are_a_change() {
    let world = with_sales(Plan::new().partner("payoutMethods", json!([])), 1).await;
    let changed = async || {
        let partner = world.get(ADMIN, &format!("/partners/{}", world.partner)).await.ok();
        let methods = partner["payoutMethods"].as_array().unwrap().clone();
        methods.iter().map(|method| !method["changedAt"].is_null()).collect::<Vec<_>>()
    };
    world.change_methods(ADMIN, &paypal("a@x.example")).await;
    assert_eq!(changed().await, [false]);
    let two = json!([{"kind": "paypal", "details": {"email": "a@x.example"}}, {"kind": "manual", "preferred": true}]);
    world.change_methods(ADMIN, &two).await;
    assert_eq!(changed().await, [false, true], "what is added is a change");
    world.change_methods(ADMIN, &json!([])).await;
    world.change_methods(ADMIN, &paypal("a@x.example")).await;
    assert_eq!(changed().await, [true], "also after all were taken away");
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(ADMIN, &id).await, 409);
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({})).await, 409);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payout_follows_to_another_method_and_to_none_it_is_cancelled() {
    let (world, id) = approved(Plan::new().partner("payoutMethods", paypal("a@x.example")), 50).await;
    let bank = json!([{"kind": "bank", "details": {"name": "Anna", "iban": "DE89370400440532013000"}}]);
    world.change_methods(MANAGER, &bank).await;
    let payout = world.payout(&id).await;
    assert_eq!(
        (&payout["state"], &payout["method"], &payout["version"]),
        (&json!("pending"), &json!("bank"), &json!(2))
    );
    world.change_methods(MANAGER, &json!([])).await;
    assert_eq!(world.payout(&id).await["state"], "cancelled");
    assert_eq!(world.buckets().await, [("payable", 50_000)]);
    assert_eq!(world.unpaid_because().await, [("no_payout_method".to_owned(), 50_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn details_changed_on_the_way_change_nothing_but_a_retry() {
    let (world, id) = approved(Plan::new().partner("payoutMethods", paypal("a@x.example")), 1).await;
    sent(&world, &id).await;
    world.change_methods(MANAGER, &paypal("b@x.example")).await;
    assert_eq!(world.payout(&id).await["state"], "submitted");
    turn(&world, "mark-returned", &id).await;
    assert_eq!(
        world.payout_call(FINANCE, "retry", &id, &json!({"reason": "again"})).await,
        409,
        "to where it came back from"
    );
    turn(&world, "void", &id).await;
    assert_eq!(world.request_payout().await["amount"]["minor"], 1_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn nothing_is_sent_to_a_suspended_partner() {
    let (world, id) = approved(Plan::new(), 1).await;
    let path = format!("/partners/{}", world.partner);
    world.post(MANAGER, &format!("{path}/suspend"), &json!({})).await.ok();
    let refused = payouts::begin_submit(&world.system.context, &parsed(&id), "rail").await.unwrap_err();
    assert!(refused.to_string().contains("suspended"), "{refused}");
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({})).await, 409);
    world.post(MANAGER, &format!("{path}/activate"), &json!({})).await.ok();
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &json!({})).await, 200);
    world.audit_holds().await;
}

// --- Approval --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn nobody_approves_what_they_wrote_adjusted_released_reinstated_or_attributed() {
    for hand in ["bonus", "adjust", "release", "reinstate", "attribute", "attribute again"] {
        let world = Plan::new().start().await;
        world.sale("o1", "100.00").await;
        let line = world.line_id("o1").await;
        let other = world.add_partner(&json!({"code": "BEN20"})).await;
        match hand {
            "bonus" => {
                let bonus =
                    json!({"partnerId": world.partner, "programId": world.program, "amount": "5.00", "reason": "x"});
                let line = world.post(ADMIN, "/commissions", &bonus).await.id();
                world.reviewed("approve", &[&line]).await;
            }
            "adjust" => {
                let adjusted = json!({"id": line, "amount": "9.00", "reason": "x"});
                world.post(ADMIN, "/commissions/adjust", &adjusted).await.ok();
            }
            "release" => {
                world.reviewed("hold", &[&line]).await;
                world.review(ADMIN, "release", &[&line]).await.ok();
            }
            "reinstate" => {
                world.reviewed("reject", &[&line]).await;
                world.review(ADMIN, "reinstate", &[&line]).await.ok();
                world.reviewed("approve", &[&line]).await;
            }
            _ => {
                let conversion = world.line_of("o1").await["conversionId"].as_str().unwrap().to_owned();
                let path = format!("/conversions/{conversion}/attribute");
                let partners = if hand == "attribute" { vec![&world.partner] } else { vec![&other, &world.partner] };
                for partner in partners {
                    world.post(ADMIN, &path, &json!({"partnerId": partner, "reason": "x"})).await.ok();
                }
            }
        }
        let id = world.request_payout().await["id"].clone();
        let by_id = world.post(ADMIN, "/payouts/approve", &json!({"payoutIds": [id]})).await;
        assert_eq!(result_codes(&by_id), [409], "{hand}");
        assert_eq!(world.approve_payout(ADMIN, &id).await, 409, "{hand}");
        assert_eq!(world.approve_payout(SECOND_ADMIN, &id).await, 200, "{hand}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn what_a_new_attribution_takes_back_from_a_partner_is_its_authors_work() {
    let world = with_sales(Plan::new(), 1).await;
    let other = world.add_partner(&json!({"code": "BEN20"})).await;
    world.pay_everything().await;
    let conversion = world.line_of("o0").await["conversionId"].as_str().unwrap().to_owned();
    let path = format!("/conversions/{conversion}/attribute");
    world.post(ADMIN, &path, &json!({"partnerId": other, "reason": "x"})).await.ok();
    assert_eq!(world.buckets().await, [("payable", -1_000), ("paid", 1_000)]);
    for order in ["o1", "o2"] {
        world.sale(order, "100.00").await;
    }
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(ADMIN, &id).await, 409);
    assert_eq!(world.approve_payout(SECOND_ADMIN, &id).await, 200);
    world.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_approvals_at_once_by_one_person_count_once() {
    let world = with_sales(Plan::new().program("largePayoutLimit", "10.00"), 1).await;
    let seen = world.request_payout().await;
    let id = &seen["id"];
    let form = json!({"payouts": [{
        "id": id, "version": seen["version"], "amount": seen["amount"]["amount"], "linesHash": seen["linesHash"],
    }]});
    let request = world.by(APPROVER, Request::post("/payouts/approve", &form)).await;
    let replies = world.together(vec![request; 4]).await;
    let mut codes: Vec<_> = replies.iter().map(|reply| result_codes(reply)[0]).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 409, 409, 409]);
    assert_eq!(world.payout_stands(id).await, ("pending".to_owned(), 1_000, 1, 1));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_partner_asks_for_their_own_money_alone() {
    let world = with_sales(Plan::new().minimum("10.00"), 2).await;
    let other = world.add_partner(&json!({"code": "BEN20"})).await;
    let anna = world.partner_signs_in(&world.partner).await;
    let asked = async |fields: Value| world.post(anna, "/payouts", &world.payout_request(&fields)).await;
    asked(json!({"partnerId": other})).await.refused(404);
    asked(json!({"override": "please"})).await.refused(422);
    asked(json!({"method": "wise"})).await.refused(422);
    asked(json!({"amount": "20.01"})).await.refused(409);
    let path = format!("/partners/{}", world.partner);
    world.post(MANAGER, &format!("{path}/suspend"), &json!({})).await.ok();
    asked(json!({})).await.refused(409);
    world.post(MANAGER, &format!("{path}/activate"), &json!({})).await.ok();
    let request = Request::post("/payouts", &world.payout_request(&json!({"amount": "10.00"})));
    let request = world.by(anna, request.header("idempotency-key", "k1")).await;
    let payout = world.send(request.clone()).await.refused(201).body;
    assert_eq!(world.send(request).await.body["id"], payout["id"]);
    assert_eq!((&payout["amount"]["minor"], &payout["approvals"]), (&json!(1_000), &json!([])));
    for call in ["cancel", "approve", "mark-paid", "void"] {
        let form = json!({"payouts": [{"id": payout["id"], "reason": "x"}]});
        world.post(anna, &format!("/payouts/{call}"), &form).await.refused(403);
    }
    world.pay(&payout["id"]).await;
    world.audit_holds().await;
}

#[tokio::test]
async fn below_the_minimum_a_partner_gets_nothing() {
    let world = with_sales(Plan::new().minimum("50.00"), 2).await;
    let anna = world.partner_signs_in(&world.partner).await;
    world.post(anna, "/payouts", &world.payout_request(&json!({}))).await.refused(409);
    assert_eq!(world.payouts().await, [] as [Value; 0]);
    let review = world.review(REVIEWER, "hold", &[&world.line_id("o0").await]).await;
    assert_eq!(result_codes(&review), [200]);
    world.audit_holds().await;
}
