//! What people may decide about commissions, and what comes of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use tests::{ADMIN, APPROVER, Plan, REVIEWER, Request, SECOND_ADMIN, World, result_codes, tiered};

const VERDICTS: [&str; 5] = ["approve", "hold", "release", "reject", "reinstate"];

/// A reviewed program of 30 hold days, and one commission in the given state.
async fn one_in(state: &str) -> World {
    let world = Plan::new().at("2026-03-01T00:00:00Z").reviewed().hold_days(30).start().await;
    let occurred = if state == "approved" { "2026-03-01T00:00:00Z" } else { "2026-01-01T00:00:00Z" };
    let mut event = world.sale_event("o1", "100.00");
    event["occurredAt"] = json!(occurred);
    world.report(&event).await.ok();
    let id = world.line_id("o1").await;
    let verdicts: &[&str] = match state {
        "pending" | "reversed" => &[],
        "held" => &["hold"],
        "rejected" => &["reject"],
        _ => &["approve"],
    };
    for verdict in verdicts {
        world.reviewed(verdict, &[&id]).await;
    }
    match state {
        "reversed" => drop(world.refund("r1", "o1", "100.00").await),
        "in_payout" => drop(world.request_payout().await),
        "in_closed_payout" => {
            let payout = world.request_payout().await["id"].clone();
            assert_eq!(world.approve_payout(APPROVER, &payout).await, 200);
            assert_eq!(world.payout_call(APPROVER, "mark-paid", &payout, &json!({"amount": "1.00"})).await, 200);
        }
        "paid" => drop(world.pay_everything().await),
        _ => {}
    }
    let shown = if state == "in_closed_payout" { "in_payout" } else { state };
    assert_eq!(world.line_of("o1").await["state"], shown);
    world
}

#[tokio::test]
async fn only_the_transitions_of_the_table_happen() {
    // For every state what each verdict makes of it; `-` is refused.
    for (state, [approve, hold, release, reject, reinstate]) in [
        ("pending", ["payable", "held", "-", "rejected", "-"]),
        ("approved", ["-", "held", "-", "rejected", "-"]),
        ("payable", ["-", "held", "-", "rejected", "-"]),
        ("in_payout", ["-", "held", "-", "rejected", "-"]),
        ("in_closed_payout", ["-", "-", "-", "-", "-"]),
        ("paid", ["-", "-", "-", "-", "-"]),
        ("held", ["-", "-", "pending", "rejected", "-"]),
        ("rejected", ["-", "-", "-", "-", "pending"]),
        ("reversed", ["-", "-", "-", "-", "-"]),
    ] {
        for (verdict, expect) in VERDICTS.into_iter().zip([approve, hold, release, reject, reinstate]) {
            let world = one_in(state).await;
            let before = world.line_of("o1").await;
            let reply = world.review(REVIEWER, verdict, &[before["id"].as_str().unwrap()]).await;
            let after = world.line_of("o1").await;
            if expect == "-" {
                assert_eq!(result_codes(&reply), [409], "{verdict} {state}");
                assert_eq!(after, before, "{verdict} {state}");
            } else {
                assert_eq!(result_codes(&reply), [200], "{verdict} {state}");
                assert_eq!(after["state"], expect, "{verdict} {state}");
            }
            world.audit_holds().await;
        }
    }
}

#[tokio::test]
async fn a_released_line_returns_to_the_state_it_left_with_maturity_evaluated_anew() {
    for (state, released) in
        [("pending", "pending"), ("approved", "payable"), ("payable", "payable"), ("in_payout", "payable")]
    {
        let world = one_in(state).await;
        let id = world.line_id("o1").await;
        world.reviewed("hold", &[&id]).await;
        assert_eq!(world.line_of("o1").await["reason"], "test");
        world.pass("30d");
        world.fire("mature-commissions").await;
        assert_eq!(world.line_of("o1").await["state"], "held", "nothing but a person releases it");
        world.reviewed("release", &[&id]).await;
        assert_eq!(world.line_of("o1").await["state"], released, "{state}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_reinstated_line_is_reviewed_again_and_its_hold_clock_is_not_restarted() {
    let world = one_in("approved").await;
    let (id, due) = (world.line_id("o1").await, world.line_of("o1").await["dueAt"].clone());
    world.reviewed("reject", &[&id]).await;
    assert_eq!(world.line_of("o1").await["reason"], "test");
    world.pass("29d");
    world.reviewed("reinstate", &[&id]).await;
    assert_eq!(world.line_of("o1").await["dueAt"], due);
    world.pass("1d");
    world.reviewed("approve", &[&id]).await;
    assert_eq!(world.line_of("o1").await["state"], "payable");
    world.audit_holds().await;
}

#[tokio::test]
async fn hold_reject_and_reinstate_need_a_reason() {
    let world = one_in("pending").await;
    let id = world.line_id("o1").await;
    for verdict in ["hold", "reject", "reinstate"] {
        for reason in [json!(null), json!(""), json!("  "), json!("x".repeat(501))] {
            let body = json!({"ids": [id], "reason": reason});
            let reply = world.post(REVIEWER, &format!("/commissions/{verdict}"), &body).await.refused(422);
            assert_eq!(reply.pointers(), ["/reason"], "{verdict}");
        }
    }
    world.audit_holds().await;
}

/// Sales of 10.00 each that wait for review, and their commissions.
async fn waiting(sales: usize) -> (World, Vec<String>) {
    let world = Plan::new().reviewed().start().await;
    for number in 0..sales {
        world.sale(&format!("o{number}"), "100.00").await;
    }
    let ids = world.lines().await.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    (world, ids)
}

fn refs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_bulk_call_answers_for_each_id_in_the_order_asked() {
    let (world, ids) = waiting(96).await;
    let done: Vec<&str> = ids.iter().step_by(10).map(String::as_str).collect();
    world.reviewed("approve", &done).await;
    let unknown = format!("{}{}", &ids[0][..ids[0].len() - 8], "00000000");
    let mut asked = refs(&ids);
    asked.splice(50..50, ["nonsense", unknown.as_str(), "", ids[50].as_str()]);
    assert_eq!(asked.len(), 100);
    let reply = world.review(REVIEWER, "approve", &asked).await;
    let answered: Vec<_> =
        reply.body["results"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(answered, asked);
    for (at, (id, code)) in asked.iter().zip(result_codes(&reply)).enumerate() {
        let expect = match at {
            50..=52 => 404,
            _ if done.contains(id) => 409,
            _ => 200,
        };
        assert_eq!(code, expect, "{at}: {id}");
    }
    assert_eq!(world.buckets().await, [("payable", 96_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn an_id_named_twice_is_decided_once() {
    let (world, ids) = waiting(2).await;
    let reply = world.review(REVIEWER, "approve", &[&ids[0], &ids[1], &ids[0]]).await;
    assert_eq!(result_codes(&reply), [200, 200, 409]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_bulk_call_takes_1_to_100_ids_and_an_atomic_one_40() {
    let (world, ids) = waiting(1).await;
    for (count, atomic, expect) in
        [(0, false, 422), (101, false, 422), (0, true, 422), (41, true, 422), (1, false, 200)]
    {
        let body = json!({"ids": vec![&ids[0]; count], "atomic": atomic});
        let reply = world.post(REVIEWER, "/commissions/approve", &body).await;
        assert_eq!(reply.status, expect, "{count} {atomic}");
        if expect == 422 {
            assert_eq!(reply.pointers(), ["/ids"]);
        }
    }
    world.audit_holds().await;
}

async fn atomically(world: &World, verdict: &str, ids: &[&str]) -> Vec<u16> {
    let body = json!({"ids": ids, "reason": "test"});
    result_codes(&world.post(REVIEWER, &format!("/commissions/{verdict}?atomic=true"), &body).await)
}

#[tokio::test]
async fn an_atomic_call_does_all_or_nothing() {
    let (world, ids) = waiting(40).await;
    world.reviewed("approve", &[&ids[7]]).await;
    let before = world.lines().await;
    assert_eq!(atomically(&world, "approve", &refs(&ids)).await, [409; 40]);
    assert_eq!(atomically(&world, "approve", &[&ids[0], "nonsense"]).await, [409, 404]);
    assert_eq!(atomically(&world, "approve", &[&ids[0], &ids[1], &ids[0]]).await, [409; 3], "named twice");
    assert_eq!(world.lines().await, before);
    world.reviewed("reject", &[&ids[7]]).await;
    world.reviewed("reinstate", &[&ids[7]]).await;
    assert_eq!(atomically(&world, "approve", &refs(&ids)).await, [200; 40]);
    assert_eq!(world.buckets().await, [("payable", 40_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_held_line_leaves_its_pending_payout() {
    for verdict in ["hold", "reject"] {
        let world = Plan::new().program("largePayoutLimit", "15.00").start().await;
        world.sale("o1", "100.00").await;
        world.sale("o2", "100.00").await;
        let id = world.request_payout().await["id"].clone();
        assert_eq!(world.approve_payout(ADMIN, &id).await, 200);
        assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 2_000, 1, 1));
        world.reviewed(verdict, &[&world.line_id("o1").await]).await;
        assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 1_000, 2, 0), "{verdict}");
        assert_eq!(world.line_of("o1").await["payoutId"], Value::Null);
        world.pay(&id).await;
        assert_eq!(world.line_of("o2").await["state"], "paid");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn lines_of_one_payout_may_leave_it_together() {
    for atomic in [false, true] {
        let world = Plan::new().start().await;
        for order in ["o1", "o2", "o3"] {
            world.sale(order, "100.00").await;
        }
        let id = world.request_payout().await["id"].clone();
        let lines = [world.line_id("o1").await, world.line_id("o2").await];
        let body = json!({"ids": lines, "reason": "look", "atomic": atomic});
        assert_eq!(result_codes(&world.post(REVIEWER, "/commissions/hold", &body).await), [200, 200]);
        assert_eq!(world.payout_stands(&id).await.1, 1_000);
        world.reviewed("hold", &[&world.line_id("o3").await]).await;
        assert_eq!(world.payout(&id).await["state"], "cancelled", "nothing is left in it");
        assert_eq!(world.buckets().await, [("held", 3_000)]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn whoever_released_or_reinstated_a_line_does_not_approve_its_payout() {
    for verdicts in [vec!["hold", "release"], vec!["reject", "reinstate", "approve"]] {
        let world = Plan::new().start().await;
        world.sale("o1", "100.00").await;
        let id = world.line_id("o1").await;
        for verdict in verdicts {
            let reply = world.review(ADMIN, verdict, &[&id]).await;
            assert_eq!(result_codes(&reply), [200], "{verdict}");
        }
        let payout = world.request_payout().await["id"].clone();
        assert_eq!(world.approve_payout(ADMIN, &payout).await, 409);
        assert_eq!(world.approve_payout(SECOND_ADMIN, &payout).await, 200);
        world.audit_holds().await;
    }
}

/// The first two sales earn 10 %, later ones 20 %.
async fn ladder(sales: usize) -> World {
    let world = Plan::new().rules([tiered(&[("0", "10"), ("2", "20")])]).start().await;
    for number in 1..=sales {
        world.sale(&format!("o{number}"), "100.00").await;
    }
    world
}

/// What the next sale would earn, in percent.
async fn next_rate(world: &World) -> i64 {
    world.sale("next", "1.00").await;
    world.line_of("next").await["amount"]["minor"].as_i64().unwrap()
}

#[tokio::test]
async fn a_rejected_sale_gives_its_tier_position_back_and_a_reinstated_one_takes_it_again() {
    let world = ladder(2).await;
    let id = world.line_id("o1").await;
    world.reviewed("reject", &[&id]).await;
    world.reviewed("reinstate", &[&id]).await;
    world.reviewed("reject", &[&id]).await;
    assert_eq!(next_rate(&world).await, 10);
    world.audit_holds().await;
    let world = ladder(2).await;
    let id = world.line_id("o1").await;
    world.reviewed("reject", &[&id]).await;
    world.reviewed("reinstate", &[&id]).await;
    assert_eq!(next_rate(&world).await, 20);
    world.audit_holds().await;
}

#[tokio::test]
async fn several_sales_rejected_together_give_all_their_positions_back() {
    for atomic in [false, true] {
        let world = ladder(4).await;
        let ids: Vec<_> = world.lines().await.iter().map(|line| line["id"].clone()).collect();
        let body = json!({"ids": ids[..3], "reason": "test", "atomic": atomic});
        assert_eq!(
            result_codes(&world.post(REVIEWER, "/commissions/reject", &body).await),
            [200; 3],
            "atomic: {atomic}"
        );
        assert_eq!(next_rate(&world).await, 10, "atomic: {atomic}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn slices_of_one_sale_rejected_together_give_one_position_back() {
    for atomic in [false, true] {
        let mut rule = tiered(&[("0", "10"), ("2", "20")]);
        rule["slices"] = json!([{"share": "50", "days": 0}, {"share": "50", "days": 0}]);
        let world = Plan::new().rules([rule]).start().await;
        for order in ["o1", "o2", "o3"] {
            world.sale(order, "100.00").await;
        }
        let ids: Vec<_> = world.lines_of("o1").await.iter().map(|line| line["id"].clone()).collect();
        let body = json!({"ids": ids, "reason": "test", "atomic": atomic});
        assert_eq!(
            result_codes(&world.post(REVIEWER, "/commissions/reject", &body).await),
            [200; 2],
            "atomic: {atomic}"
        );
        world.sale("next", "100.00").await;
        let earned: i64 = world.states_of("next").await.iter().map(|(_, net)| net).sum();
        assert_eq!(earned, 2_000, "the third again; atomic: {atomic}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn what_becomes_of_a_commission_is_told() {
    let world = Plan::new().reviewed().hold_days(30).start().await;
    let other = world.add_partner(&json!({"name": "Other", "code": "OTHER"})).await;
    world.sale("o1", "100.00").await;
    let id = world.line_id("o1").await;
    for verdict in ["hold", "release", "reject", "reinstate"] {
        world.reviewed(verdict, &[&id]).await;
    }
    let adjusted = json!({"id": id, "amount": "8.00", "reason": "agreed"});
    world.post(ADMIN, "/commissions/adjust", &adjusted).await.ok();
    world.refund("r1", "o1", "50.00").await;
    let withdrawn = json!({"programId": world.program, "id": "w1", "type": "refund_withdrawn", "conversion": "o1",
        "refund": "r1", "occurredAt": world.system.context.now()});
    world.report(&withdrawn).await.ok();
    let conversion = world.line_of("o1").await["conversionId"].as_str().unwrap().to_owned();
    let due = json!({"partnerId": other, "reason": "it was theirs"});
    world.post(ADMIN, &format!("/conversions/{conversion}/attribute"), &due).await.ok();
    world.settle().await;
    let told = |kind: &str| {
        let mut events = world.events(&format!("commission.{kind}"));
        events.retain(|event| event["detail"]["commission"]["id"] == id);
        events.len()
    };
    let kinds = ["accrued", "held", "released", "rejected", "reinstated", "adjusted", "reversed"];
    // By a person and by the shop, it was reinstated; by a refund and by becoming another's, reversed.
    assert_eq!(kinds.map(told), [1, 1, 1, 1, 2, 1, 2]);
    assert_eq!(world.events("commission.accrued").len(), 2, "and another's");
}

fn several(ids: &[String], amount: &str) -> Vec<Value> {
    ids.iter().map(|id| json!({"id": id, "amount": amount, "reason": "agreed"})).collect()
}

#[tokio::test]
async fn several_commissions_are_adjusted_each_by_itself() {
    let (world, ids) = waiting(3).await;
    let mut asked = several(&ids, "8.00");
    asked[1]["reason"] = json!(" ");
    asked.extend([
        json!({"id": "nonsense", "amount": "1.00", "reason": "x"}),
        json!({"id": ids[2], "amount": "7.00", "reason": "x"}),
        json!({"id": ids[1], "amount": "1.001", "reason": "x"}),
    ]);
    let reply = world.post(REVIEWER, "/commissions/adjust", &json!({"adjustments": asked})).await;
    assert_eq!(result_codes(&reply), [200, 422, 200, 404, 409, 422], "{}", reply.text);
    assert_eq!(world.buckets().await, [("pending", 2_600)]);
    assert_eq!(world.lines().await[0]["amount"]["amount"], "8.00");
    for (count, atomic, expect) in [(0, false, 422), (101, false, 422), (41, true, 422)] {
        let body = json!({"adjustments": vec![&several(&ids, "9.00")[0]; count], "atomic": atomic});
        let reply = world.post(REVIEWER, "/commissions/adjust", &body).await.refused(expect);
        assert_eq!(reply.pointers(), ["/adjustments"], "{count} {atomic}");
    }
    world.post(APPROVER, "/commissions/adjust", &json!({"adjustments": several(&ids, "9.00")})).await.refused(403);
    world.audit_holds().await;
}

#[tokio::test]
async fn forty_commissions_are_adjusted_together_or_not_at_all() {
    let (world, ids) = waiting(40).await;
    let all = |amount: &str| json!({"adjustments": several(&ids, amount), "atomic": true});
    world.reviewed("reject", &[&ids[7]]).await;
    let before = world.lines().await;
    let reply = world.post(REVIEWER, "/commissions/adjust", &all("8.00")).await;
    assert_eq!(result_codes(&reply), [409; 40]);
    let why = |n: usize| reply.body["results"][n]["problem"]["detail"].as_str().unwrap().to_owned();
    assert!(why(0).contains("another commission") && !why(7).contains("another"), "{} {}", why(0), why(7));
    let twice = [ids[0].clone(), ids[1].clone(), ids[0].clone()];
    let twice = json!({"adjustments": several(&twice, "8.00"), "atomic": true});
    assert_eq!(result_codes(&world.post(REVIEWER, "/commissions/adjust", &twice).await), [409; 3]);
    assert_eq!(world.lines().await, before);
    world.reviewed("reinstate", &[&ids[7]]).await;
    let key = Request::post("/commissions/adjust?atomic=true", &all("8.00")).header("idempotency-key", "adjust-1");
    let first = world.send(world.by(REVIEWER, key.clone()).await).await;
    assert_eq!(result_codes(&first), [200; 40], "{}", first.text);
    assert_eq!(world.send(world.by(REVIEWER, key).await).await.text, first.text);
    assert_eq!(world.buckets().await, [("pending", 32_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn lines_of_one_payout_one_order_and_one_ladder_are_adjusted_together() {
    let tiers = json!([{"after": "0", "rate": "10"}, {"after": "15.00", "rate": "20"}]);
    let rule = json!({"name": "Ladder", "slices": [{"share": "50", "days": 0}, {"share": "50", "days": 0}], "reward": {
        "kind": "tiered", "metric": "commission", "window": "lifetime", "shape": "marginal_by_order", "tiers": tiers}});
    let world = Plan::new().rules([rule]).start().await;
    for order in ["o1", "o2"] {
        world.sale(order, "100.00").await;
    }
    let payout = world.request_payout().await["id"].clone();
    assert_eq!(world.payout_stands(&payout).await.1, 2_000);
    let ids: Vec<_> = world.lines().await.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    let body = json!({"adjustments": several(&ids, "2.00"), "atomic": true});
    let reply = world.post(REVIEWER, "/commissions/adjust", &body).await;
    assert_eq!(result_codes(&reply), [200; 4], "{}", reply.text);
    assert_eq!(world.payout_stands(&payout).await.1, 800);
    world.audit_holds().await;
    world.sale("next", "100.00").await;
    let earned: i64 = world.states_of("next").await.iter().map(|(_, net)| net).sum();
    assert_eq!(earned, 1_000, "10 %, with 8.00 of 15.00 earned");
    world.audit_holds().await;
}

#[tokio::test]
async fn several_conversions_are_given_to_somebody_else_each_by_itself_or_together() {
    for atomic in [false, true] {
        let (world, _) = waiting(2).await;
        let ben = world.add_partner(&json!({"code": "BEN10", "name": "Ben"})).await;
        let conversions: Vec<_> = world.lines().await.iter().map(|line| line["conversionId"].clone()).collect();
        let one = |id: &Value, to: &str| json!({"id": id, "partnerId": to, "reason": "it was theirs"});
        let shares = json!([{"partnerId": ben, "percent": "60"}, {"partnerId": world.partner, "percent": "40"}]);
        let mut asked = vec![
            one(&conversions[0], &ben),
            json!({"id": conversions[1], "shares": shares, "reason": "together"}),
            one(&json!("cnv_000000000000000000000000"), &ben),
            one(&conversions[0], &ben),
        ];
        let call = async |asked: &[Value]| {
            let body = json!({"conversions": asked, "atomic": atomic});
            result_codes(&world.post(tests::MANAGER, "/conversions/attribute", &body).await)
        };
        if atomic {
            assert_eq!(call(&asked).await, [409; 4], "named twice");
            assert_eq!(call(&asked[..3]).await, [409, 409, 404]);
            assert_eq!(world.buckets_of(&ben).await, []);
            asked.truncate(2);
            assert_eq!(call(&asked).await, [200, 200]);
        } else {
            assert_eq!(call(&asked).await, [200, 200, 404, 409]);
        }
        assert_eq!(world.buckets_of(&ben).await, [("pending", 1_600)]);
        assert_eq!(world.buckets().await, [("pending", 400), ("reversed", 2_000)]);
        let count = json!({"conversions": [], "atomic": atomic});
        assert_eq!(world.post(ADMIN, "/conversions/attribute", &count).await.refused(422).pointers(), ["/conversions"]);
        world.post(APPROVER, "/conversions/attribute", &json!({"conversions": asked})).await.refused(403);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn what_does_not_fit_one_transaction_is_refused_with_how_much_it_is() {
    let slices: Vec<_> = (0..6).map(|n| json!({"share": if n == 0 { "50" } else { "10" }, "days": n})).collect();
    let rule = json!({"name": "Share", "reward": {"kind": "percent", "rate": "10"}, "slices": slices});
    let world = Plan::new().reviewed().rules([rule]).start().await;
    let ben = world.add_partner(&json!({"code": "BEN10", "name": "Ben"})).await;
    for n in 0..10 {
        world.sale(&format!("o{n}"), "100.00").await;
    }
    let lines = world.lines().await;
    let conversions: Vec<_> = lines.iter().filter(|line| line["amount"]["minor"] == 500).collect();
    let conversions: Vec<_> = conversions.iter().map(|line| line["conversionId"].clone()).collect();
    let asked = |count: usize| {
        let one = |id: &Value| json!({"id": id, "partnerId": ben, "reason": "theirs"});
        json!({"conversions": conversions[..count].iter().map(one).collect::<Vec<_>>(), "atomic": true})
    };
    let reply = world.post(ADMIN, "/conversions/attribute", &asked(10)).await;
    assert_eq!(result_codes(&reply), [409; 10]);
    let why = reply.body["results"][0]["problem"]["detail"].as_str().unwrap();
    assert!(why.contains("together it takes 13") && why.contains("name fewer"), "{why}");
    assert_eq!(world.buckets_of(&ben).await, []);
    assert_eq!(result_codes(&world.post(ADMIN, "/conversions/attribute", &asked(7)).await), [200; 7]);
    world.audit_holds().await;
}
