//! Payouts: what they claim, who approves them, how they end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use tests::{ADMIN, APPROVER, FINANCE, Plan, Request, SECOND_ADMIN, World, result_codes};

/// Sales of 100.00, of which 10.00 each is payable.
async fn payable(sales: usize) -> World {
    with_sales(Plan::new(), sales).await
}

async fn with_sales(plan: Plan, sales: usize) -> World {
    let world = plan.start().await;
    for number in 0..sales {
        world.sale(&format!("o{number}"), "100.00").await;
    }
    world
}

#[tokio::test]
async fn a_small_payout_is_approved_by_naming_it() {
    let world = payable(1).await;
    let id = world.request_payout().await["id"].clone();
    let listed = world.get(ADMIN, &format!("/payouts?partnerId={}&status=pending", world.partner)).await.ok();
    assert_eq!(listed["data"][0]["id"], id);
    let reply = world.post(APPROVER, "/payouts/approve", &json!({"payoutIds": [id, "nonsense", id]})).await;
    assert_eq!(result_codes(&reply), [200, 404, 409]);
    assert_eq!(
        world.payout_stands(&id).await,
        ("approved".to_owned(), 1_000, 1, 1),
        "an approval does not raise the version"
    );
    world.audit_holds().await;
}

#[tokio::test]
async fn an_approval_of_something_else_is_stale() {
    let world = payable(2).await;
    let seen = world.request_payout().await;
    let other_hash = "0".repeat(seen["linesHash"].as_str().unwrap().len());
    for (field, value) in [("version", json!(2)), ("amount", json!("20.01")), ("linesHash", json!(other_hash))] {
        let mut form =
            json!({"version": seen["version"], "amount": seen["amount"]["amount"], "linesHash": seen["linesHash"]});
        form[field] = value;
        let code = world.payout_call(APPROVER, "approve", &seen["id"], &form).await;
        assert_eq!(code, 412, "{field}");
    }
    world.refund("r1", "o1", "50.00").await;
    let form = json!({"version": 1, "amount": "20.00", "linesHash": seen["linesHash"]});
    let reply = world
        .post(
            APPROVER,
            "/payouts/approve",
            &json!({"payouts": [{"id": seen["id"], "version": 1, "amount": "20.00", "linesHash": seen["linesHash"]}]}),
        )
        .await;
    let problem = &reply.body["results"][0]["problem"];
    assert_eq!((&problem["status"], &problem["type"]), (&json!(412), &json!("/problems/stale")));
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3, "tells what changed: {problem}");
    assert_eq!(world.payout_call(APPROVER, "approve", &seen["id"], &form).await, 412);
    assert_eq!(world.approve_payout(APPROVER, &seen["id"]).await, 200);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_large_payout_takes_two_people_who_name_what_they_saw() {
    let world = with_sales(Plan::new().program("largePayoutLimit", "20.00"), 2).await;
    let id = world.request_payout().await["id"].clone();
    let by_id = async |who| result_codes(&world.post(who, "/payouts/approve", &json!({"payoutIds": [id]})).await)[0];
    assert_eq!(by_id(APPROVER).await, 409);
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 2_000, 1, 1));
    assert_eq!(world.approve_payout(APPROVER, &id).await, 409, "the same person twice");
    assert_eq!(by_id(ADMIN).await, 409);
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &json!({})).await, 409);
    assert_eq!(world.approve_payout(ADMIN, &id).await, 200);
    assert_eq!(world.payout_stands(&id).await, ("approved".to_owned(), 2_000, 1, 2));
    world.audit_holds().await;
}

#[tokio::test]
async fn payouts_of_30_days_add_up_to_a_large_one() {
    for (days, needed) in [("29d", "pending"), ("31d", "approved")] {
        let world = with_sales(Plan::new().program("largePayoutLimit", "20.00"), 1).await;
        world.pay_everything().await;
        world.pass(days);
        world.sale("later", "100.00").await;
        let id = world.request_payout().await["id"].clone();
        assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
        assert_eq!(world.payout(&id).await["state"], needed, "after {days}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_payout_sent_back_is_approved_again() {
    let world = payable(1).await;
    let id = world.request_payout().await["id"].clone();
    let reason = json!({"reason": "ask her first"});
    assert_eq!(world.payout_call(APPROVER, "send-back", &id, &reason).await, 409);
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    assert_eq!(world.payout_call(APPROVER, "send-back", &id, &json!({})).await, 422);
    assert_eq!(world.payout_call(APPROVER, "send-back", &id, &reason).await, 200);
    let (state, _, _, approvals) = world.payout_stands(&id).await;
    assert_eq!((state.as_str(), approvals), ("pending", 0));
    world.pay(&id).await;
    world.audit_holds().await;
}

#[tokio::test]
async fn a_cancelled_payout_frees_its_lines() {
    for approved in [false, true] {
        let world = payable(50).await;
        let id = world.request_payout().await["id"].clone();
        if approved {
            assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
        }
        assert_eq!(world.payout_call(APPROVER, "cancel", &id, &json!({})).await, 422, "without a reason");
        assert_eq!(world.payout_call(APPROVER, "cancel", &id, &json!({"reason": "wrong"})).await, 200);
        assert_eq!(world.payout_call(APPROVER, "cancel", &id, &json!({"reason": "wrong"})).await, 409);
        assert_eq!(world.approve_payout(APPROVER, &id).await, 409);
        assert_eq!(world.buckets().await, [("payable", 50_000)]);
        let again = world.request_payout().await;
        assert_ne!(again["id"], id);
        assert_eq!(again["amount"]["minor"], 50_000);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_payout_may_be_paid_in_parts() {
    let world = payable(2).await;
    let id = world.request_payout().await["id"].clone();
    let pay = async |amount: Value| {
        world.payout_call(FINANCE, "mark-paid", &id, &json!({"reference": "wire", "amount": amount})).await
    };
    assert_eq!(pay(Value::Null).await, 409, "not approved");
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    for bad in ["0", "20.01", "-1.00", "0.001"] {
        assert_eq!(pay(json!(bad)).await, 422, "{bad}");
    }
    assert_eq!(pay(json!("5.00")).await, 200);
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("partially_paid"), &json!(500)));
    assert_eq!(world.buckets().await, [("inPayout", 2_000)]);
    assert_eq!(world.payout_call(APPROVER, "cancel", &id, &json!({"reason": "late"})).await, 409);
    assert_eq!(pay(json!("15.01")).await, 422);
    assert_eq!(pay(json!("15.00")).await, 200);
    let payout = world.payout(&id).await;
    assert_eq!(
        (&payout["state"], &payout["paid"]["minor"], &payout["reference"]),
        (&json!("paid"), &json!(2_000), &json!("wire"))
    );
    assert_eq!(world.buckets().await, [("paid", 2_000)]);
    assert_eq!(pay(Value::Null).await, 409, "paid once");
    world.audit_holds().await;
}

#[tokio::test]
async fn the_day_of_payment_is_attested_and_not_in_the_future() {
    let world = payable(1).await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    world.pass("3d");
    let future = json!({"paidAt": "2026-01-05T00:00:00Z"});
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &future).await, 422);
    let past = json!({"paidAt": "2026-01-02T09:00:00Z", "reference": "wire"});
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &past).await, 200);
    assert_eq!(world.payout(&id).await["paidAt"], "2026-01-02T09:00:00Z");
    assert_eq!(world.line_of("o0").await["paidAt"], "2026-01-02T09:00:00Z");
    world.audit_holds().await;
}

#[tokio::test]
async fn only_quickbooks_settles_a_quickbooks_payout() {
    let methods = json!([{"kind": "quickbooks", "preferred": true}]);
    let world = with_sales(Plan::new().partner("payoutMethods", methods), 1).await;
    let payout = world.request_payout().await;
    assert_eq!(payout["method"], "quickbooks");
    assert_eq!(world.approve_payout(APPROVER, &payout["id"]).await, 200);
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &payout["id"], &json!({})).await, 409);
    assert_eq!(world.payout(&payout["id"]).await["state"], "approved");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payout_of_many_lines_is_the_sum_of_them_all() {
    let world = payable(130).await;
    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    let payout = world.only_payout().await;
    assert_eq!(
        (&payout["state"], &payout["lineCount"], &payout["amount"]["minor"]),
        (&json!("pending"), &json!(130), &json!(130_000))
    );
    let path = format!("/payouts/{}/lines", payout["id"].as_str().unwrap());
    assert!(world.get(ADMIN, &path).await.ok()["nextCursor"].is_string(), "more than one page");
    let sum = |lines: &[Value]| lines.iter().map(|line| line["net"]["minor"].as_i64().unwrap()).sum::<i64>();
    let lines = world.all(ADMIN, &path).await;
    assert_eq!((lines.len(), sum(&lines)), (130, 130_000));
    assert!(lines.iter().all(|line| line["payoutId"] == payout["id"] && line["state"] == "in_payout"));
    let mut ids: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 130);

    world.reviewed("hold", &ids[..3]).await;
    let smaller = world.payout(&payout["id"]).await;
    assert_ne!(smaller["linesHash"], payout["linesHash"]);
    let lines = world.all(ADMIN, &path).await;
    assert_eq!((lines.len(), sum(&lines)), (127, 127_000));
    world.pay(&payout["id"]).await;
    assert_eq!(world.buckets().await, [("held", 3_000), ("paid", 127_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_requested_amount_takes_the_oldest_lines_that_fit() {
    // Sales of these commissions, the amount asked for: what the payout is.
    for (commissions, amount, expect) in [
        (vec!["10.00", "20.00", "30.00"], "30.00", Ok(3_000)),
        (vec!["10.00", "20.00", "30.00"], "59.99", Ok(3_000)),
        (vec!["10.00", "20.00", "30.00"], "60.00", Ok(6_000)),
        (vec!["10.00", "20.00", "5.00"], "16.00", Ok(1_000)),
        (vec!["10.00", "20.00"], "30.01", Err(409)),
        (vec!["10.00"], "9.99", Err(409)),
        (vec!["10.00"], "0", Err(422)),
        (vec!["10.00"], "-1.00", Err(422)),
        (vec!["10.00"], "0.001", Err(422)),
    ] {
        let world = Plan::new().rules([tests::percent("100")]).start().await;
        for (n, commission) in commissions.iter().enumerate() {
            world.sale(&format!("o{n}"), commission).await;
            world.pass("1m");
        }
        let reply = world.request_payout_with(&json!({"amount": amount})).await;
        match expect {
            Ok(minor) => assert_eq!(reply.ok()["amount"]["minor"], minor, "{amount} of {commissions:?}"),
            Err(status) => drop(reply.refused(status)),
        }
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_requested_amount_takes_all_negative_lines_first() {
    let world = payable(1).await;
    world.pay_everything().await;
    world.refund("r1", "o0", "100.00").await;
    for order in ["a", "b", "c"] {
        world.pass("1m");
        world.sale(order, "100.00").await;
    }
    let payout = world.request_payout_with(&json!({"amount": "10.00"})).await.ok();
    assert_eq!((&payout["amount"]["minor"], &payout["lineCount"]), (&json!(1_000), &json!(3)));
    assert_eq!(world.buckets().await, [("payable", 1_000), ("inPayout", 1_000), ("paid", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_requested_amount_of_many_lines_is_claimed_whole() {
    let world = payable(60).await;
    let payout = world.request_payout_with(&json!({"amount": "505.00"})).await.ok();
    assert_eq!((&payout["amount"]["minor"], &payout["lineCount"]), (&json!(50_000), &json!(50)));
    assert_eq!(world.buckets().await, [("payable", 10_000), ("inPayout", 50_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn below_the_minimum_only_an_override_with_a_reason_pays() {
    let world = with_sales(Plan::new().minimum("50.00"), 1).await;
    for (fields, status) in [
        (json!({}), 409),
        (json!({"amount": "10.00"}), 409),
        (json!({"override": " "}), 422),
        (json!({"override": {"reason": ""}}), 422),
    ] {
        world.request_payout_with(&fields).await.refused(status);
    }
    let payout = world.request_payout_with(&json!({"override": "leaving the program"})).await.ok();
    assert_eq!(payout["amount"]["minor"], 1_000);
    world.pay(&payout["id"]).await;
    world.audit_holds().await;
}

#[tokio::test]
async fn a_partners_own_minimum_goes_before_the_programs() {
    for (own, paid) in [("10.00", true), ("10.01", false)] {
        let world = with_sales(Plan::new().minimum("50.00").partner("minimumPayout", own), 1).await;
        assert_eq!(world.request_payout_with(&json!({})).await.status == 201, paid, "{own}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_partner_without_payout_method_is_carried() {
    let world = with_sales(Plan::new().partner("payoutMethods", json!([])), 1).await;
    world.request_payout_with(&json!({})).await.refused(409);
    assert_eq!(world.unpaid_because().await, [("no_payout_method".to_owned(), 1_000)]);
    let run = world.post(ADMIN, "/runs", &json!({"programId": world.program})).await.refused(202).body["id"].clone();
    world.settle().await;
    let report = world.get(ADMIN, &format!("/runs/{}", run.as_str().unwrap())).await.ok();
    assert_eq!((&report["state"], &report["payouts"]), (&json!("completed"), &json!([])));
    assert_eq!(report["carried"][0]["reason"], "no_payout_method");
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_request_may_name_one_of_the_partners_methods() {
    let methods =
        json!([{"kind": "manual"}, {"kind": "paypal", "details": {"email": "a@x.example"}, "preferred": true}]);
    let world = with_sales(Plan::new().partner("payoutMethods", methods), 1).await;
    world.request_payout_with(&json!({"method": "wise"})).await.refused(422);
    assert_eq!(world.request_payout_with(&json!({"method": "manual"})).await.ok()["method"], "manual");
    world.sale("more", "100.00").await;
    assert_eq!(world.request_payout().await["method"], "paypal");
    world.audit_holds().await;
}

#[tokio::test]
async fn what_nets_to_zero_is_settled_without_a_rail() {
    let world = payable(1).await;
    world.pay_everything().await;
    world.refund("r1", "o0", "100.00").await;
    world.sale("more", "100.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    let netted = world.payouts().await.remove(0);
    assert_eq!(
        (&netted["state"], &netted["amount"]["minor"], &netted["reference"], &netted["lineCount"]),
        (&json!("paid"), &json!(0), &json!("netted"), &json!(2))
    );
    assert_eq!(world.buckets().await, [("paid", 1_000)]);
    assert!(world.lines().await.iter().all(|line| line["state"] == "paid"));
    world.audit_holds().await;
}

#[tokio::test]
async fn lines_of_zero_alone_are_never_claimed() {
    let world = Plan::new().rules([tests::percent("0")]).start().await;
    assert_eq!(world.sale("o1", "100.00").await, "applied");
    assert_eq!(world.sale("o1", "100.00").await, "already_applied");
    assert_eq!(world.states_of("o1").await, [("payable".to_owned(), 0)]);
    world.request_payout_with(&json!({})).await.refused(409);
    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.payouts().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_run_takes_what_is_due_before_its_cut_off_and_every_negative_line() {
    let schedule = json!({"frequency": "monthly", "runDay": 1, "cutOffDays": 10});
    let world = Plan::new().program("schedule", schedule).start().await;
    world.sale("early", "200.00").await;
    world.sale("taken back", "50.00").await;
    world.pay_everything().await;
    world.clock_at("2026-01-21T23:59:59Z");
    world.sale("last in", "100.00").await;
    world.clock_at("2026-01-22T00:00:00Z");
    world.sale("first out", "100.00").await;
    world.refund("r1", "taken back", "50.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    let payout = world.payouts().await.remove(0);
    assert_eq!((&payout["amount"]["minor"], &payout["lineCount"]), (&json!(500), &json!(2)));
    assert_eq!(world.line_of("first out").await["state"], "payable");
    world.audit_holds().await;
}

#[tokio::test]
async fn run_dates_are_those_of_the_programs_time_zone() {
    let world = with_sales(Plan::new().program("timeZone", "Europe/Berlin"), 1).await;
    world.clock_at("2026-01-31T22:59:00Z");
    world.tick().await;
    assert_eq!(world.payouts().await.len(), 0);
    world.clock_at("2026-01-31T23:00:00Z");
    world.tick().await;
    assert_eq!(world.only_payout().await["amount"]["minor"], 1_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_preview_changes_nothing_and_a_run_does_what_it_showed() {
    let world = payable(2).await;
    let other = world.add_partner(&json!({"code": "BEN20"})).await;
    let preview = json!({"programId": world.program, "preview": true});
    let shown = world.post(FINANCE, "/runs", &preview).await.ok();
    assert_eq!(shown["wouldPay"][0]["partnerId"], world.partner);
    assert_eq!(shown["wouldPay"][0]["amount"]["minor"], 2_000);
    assert_eq!(
        (&shown["carried"][0]["partnerId"], &shown["carried"][0]["reason"]),
        (&json!(other), &json!("nothing_payable"))
    );
    world.settle().await;
    assert_eq!(world.payouts().await.len(), 0);
    for (fields, payouts) in [
        (json!({"exclude": [world.partner]}), 0),
        (json!({"include": [other]}), 0),
        (json!({"cutOff": "2025-12-31T23:59:59Z"}), 0),
        (json!({"include": [world.partner], "cutOff": "2026-01-01T00:00:00Z"}), 1),
    ] {
        let mut run = fields.clone();
        run["programId"] = json!(world.program);
        world.post(FINANCE, "/runs", &run).await.refused(202);
        world.settle().await;
        assert_eq!(world.payouts().await.len(), payouts, "{fields}");
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payout_tells_the_world_once_what_became_of_it() {
    let world = payable(1).await;
    let id = world.pay_everything().await;
    world.settle().await;
    for kind in ["payout.created", "payout.approved", "payout.paid", "commission.paid"] {
        assert_eq!(world.events(kind).len(), 1, "{kind}");
    }
    assert_eq!(world.events("payout.paid")[0]["detail"]["payout"]["id"], id);
    world.audit_holds().await;
}

#[tokio::test]
async fn payouts_are_found_by_the_words_other_systems_use() {
    let world = payable(1).await;
    let id = world.request_payout().await["id"].clone();
    let found_by = async |filter: &str| {
        world.get(ADMIN, &format!("/payouts?partnerId={}&{filter}", world.partner)).await.ok()["data"]
            .as_array()
            .unwrap()
            .len()
    };
    let words = ["pending", "approved", "processing", "completed", "paid", "failed", "cancelled"];
    let matching = async || {
        let mut found = Vec::new();
        for word in words {
            if found_by(&format!("status={word}")).await == 1 {
                found.push(word);
            }
        }
        found
    };
    assert_eq!(matching().await, ["pending"]);
    assert_eq!(world.approve_payout(SECOND_ADMIN, &id).await, 200);
    assert_eq!(matching().await, ["approved"]);
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &json!({"amount": "1.00"})).await, 200);
    assert_eq!(matching().await, ["processing"]);
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &json!({})).await, 200);
    assert_eq!(matching().await, ["completed", "paid"]);
    assert_eq!((found_by("state=paid").await, found_by("state=pending").await), (1, 0));
    world.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_payout_marked_paid_by_many_at_once_is_paid_once() {
    let world = payable(50).await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    let body = json!({"payouts": [{"id": id, "reference": "wire"}]});
    let request = world.by(FINANCE, Request::post("/payouts/mark-paid", &body)).await;
    let replies = world.together(vec![request; 8]).await;
    let mut codes: Vec<_> = replies.iter().map(|reply| result_codes(reply)[0]).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(world.buckets().await, [("paid", 50_000)]);
    world.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_to_a_payout_at_once_the_books_agree() {
    for round in 0..4 {
        let world = payable(50).await;
        let payout = world.request_payout().await;
        let id = &payout["id"];
        let lines: Vec<_> = world.lines().await.iter().map(|line| line["id"].clone()).collect();
        let refund = world.refund_event("r1", "o3", "100.00");
        let seen =
            json!({"id": id, "version": 1, "amount": payout["amount"]["amount"], "linesHash": payout["linesHash"]});
        let mut calls = vec![
            ("/payouts/approve", json!({"payouts": [seen]})),
            ("/conversions", refund),
            ("/commissions/hold", json!({"ids": [lines[0], lines[49]], "reason": "look"})),
            ("/commissions/reject", json!({"ids": [lines[1]], "reason": "no"})),
            ("/payouts/mark-paid", json!({"payouts": [{"id": id, "reference": "wire"}]})),
            ("/payouts", world.payout_request(&json!({}))),
        ];
        if round % 2 == 0 {
            calls.push(("/payouts/cancel", json!({"payouts": [{"id": id, "reason": "wrong"}]})));
        }
        let mut requests = Vec::new();
        for (path, body) in calls {
            requests.push(world.by(ADMIN, Request::post(path, &body)).await);
        }
        let replies = world.together(requests).await;
        assert!(replies.iter().all(|reply| reply.status < 500), "{replies:?}");
        // All but the refunded sale's 10.00 is still there, wherever it stands.
        let all: i64 = world.buckets().await.iter().map(|(_, sum)| sum).filter(|sum| **sum > 0).sum();
        assert_eq!(all, 50_000, "{replies:?}");
        world.tick().await;
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn the_oldest_payout_that_waits_to_be_paid_is_known() {
    let world = payable(2).await;
    let unpaid_since = async || world.system.context.store.unpaid_since("test").await.unwrap();
    assert_eq!(unpaid_since().await, None);
    let first = world.request_payout_with(&json!({"amount": "10.00"})).await.ok();
    let created = first["createdAt"].as_str().unwrap().parse().unwrap();
    world.pass("5d");
    let second = world.request_payout_with(&json!({"amount": "10.00"})).await.ok();
    assert_eq!(unpaid_since().await, Some(created), "pending");
    assert_eq!(world.approve_payout(APPROVER, &first["id"]).await, 200);
    assert_eq!(unpaid_since().await, Some(created), "approved");
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &first["id"], &json!({"amount": "4.00"})).await, 200);
    assert_eq!(unpaid_since().await, Some(created), "paid in part");
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &first["id"], &json!({})).await, 200);
    assert_eq!(unpaid_since().await, Some(second["createdAt"].as_str().unwrap().parse().unwrap()));
    assert_eq!(world.payout_call(APPROVER, "cancel", &second["id"], &json!({"reason": "not now"})).await, 200);
    assert_eq!(unpaid_since().await, None);
    world.audit_holds().await;
}
