//! Payout runs: when they happen, what they decide, what they tell, and that nothing can disturb them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;

use local::Storage;
use serde_json::{Value, json};
use tests::blow::{Blow, copied, struck};
use tests::{ADMIN, FINANCE, MANAGER, Plan, Request, World, temporary_directory};
use workflows::Context;
use workflows::queues::DraftRequest;
use workflows::runs::{serve, tick};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

async fn report(world: &World, run: &str) -> Value {
    world.get(FINANCE, &format!("/runs/{run}")).await.ok()
}

/// The latest run, as it is listed.
async fn latest(world: &World) -> Value {
    world.get(FINANCE, &format!("/runs?programId={}", world.program)).await.ok()["data"][0].clone()
}

async fn patch(world: &World, partner: &str, fields: Value) {
    let request = Request::patch(&format!("/partners/{partner}"), &fields);
    world.send(world.by(MANAGER, request).await).await.ok();
}

// --- Schedules --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn schedules_missed_for_weeks_catch_up_once() {
    let schedule = json!({"frequency": "weekly", "runDay": 1});
    let world = Plan::new().program("schedule", schedule).start().await;
    world.sale("o1", "100.00").await;
    world.clock_at("2026-03-18T12:00:00Z");
    world.tick().await;
    world.tick().await;
    let runs = world.all(FINANCE, &format!("/runs?programId={}", world.program)).await;
    let periods: Vec<_> = runs.iter().map(|run| text(&run["period"])).collect();
    assert_eq!(periods, ["2026-03-16"]);
    assert_eq!(world.only_payout().await["amount"]["minor"], 1_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_scheduled_payout_has_a_pay_date_and_tells_it_as_the_reason() {
    let schedule = json!({"frequency": "monthly", "runDay": 31, "payDays": 10});
    let world = Plan::new().program("schedule", schedule).start().await;
    world.sale("o1", "100.00").await;
    world.clock_at("2026-02-28T00:20:00Z");
    world.tick().await;
    let payout = world.only_payout().await;
    assert_eq!((&payout["payOn"], &payout["createdAt"]), (&json!("2026-03-10"), &json!("2026-02-28T00:20:00Z")));
    let reasons = &world.balance().await["notPayableBecause"];
    assert_eq!((&reasons[0]["code"], &reasons[0]["until"]), (&json!("in_payout"), &json!("2026-03-10")));
    let of_line = &world.line_of("o1").await["notPayableBecause"];
    assert_eq!(of_line, &json!({"code": "in_payout", "until": "2026-03-10"}));
    world.sale("o2", "100.00").await;
    let by_hand = world.request_payout().await;
    assert_eq!(by_hand["payOn"], Value::Null, "nobody scheduled it");
    world.pay(&payout["id"]).await;
    assert_eq!(world.line_of("o1").await["notPayableBecause"], Value::Null, "paid");
    world.audit_holds().await;
}

#[tokio::test]
async fn the_next_run_is_foretold_with_what_will_have_matured_and_comes_true() {
    let schedule = json!({"frequency": "monthly", "runDay": 1, "cutOffDays": 2, "payDays": 5});
    let plan = Plan::new().program("schedule", schedule).hold_days(10).minimum("5.00");
    let world = plan.start().await;
    world.sale("in", "100.00").await;
    let names = ["BEN", "CLEO", "DORA"];
    let mut others = Vec::new();
    for name in names {
        others.push(world.add_partner(&json!({"code": name})).await);
    }
    let sold = async |order: &str, partner: &str, total: &str| {
        let sale = json!({"id": order, "type": "sale", "partner": {"id": partner}, "amount": {"total": total}});
        world.report(&world.event(sale)).await.ok();
    };
    sold("small", &others[0], "10.00").await;
    world.clock_at("2026-01-21T00:00:00Z");
    sold("after the cut-off", &others[1], "100.00").await;
    let path = format!("/programs/{}/next-run", world.program);
    let foretold = world.get(FINANCE, &format!("{path}?limit=3")).await.ok();
    for (field, expect) in [
        ("date", "2026-02-01"),
        ("startsAt", "2026-02-01T00:00:00Z"),
        ("cutOff", "2026-01-30T00:00:00Z"),
        ("payOn", "2026-02-06"),
    ] {
        assert_eq!(foretold[field], expect, "{field}");
    }
    assert_eq!(foretold["total"]["partners"], 3);
    let mut rows = foretold["data"].as_array().unwrap().clone();
    let cursor = text(&foretold["nextCursor"]);
    let rest = world.get(FINANCE, &format!("{path}?limit=3&cursor={cursor}")).await.ok();
    assert_eq!(rest["total"], json!({"partners": 4, "payouts": 1, "amount": foretold["data"][0]["amount"]}));
    rows.extend(rest["data"].as_array().unwrap().iter().cloned());
    let told: BTreeMap<_, _> =
        rows.iter().map(|row| (text(&row["partnerId"]), row["reason"].as_str().unwrap_or("paid").to_owned())).collect();
    assert_eq!(told[world.partner.as_str()], "paid");
    assert_eq!(told[others[0].as_str()], "below_threshold");
    assert_eq!(told[others[1].as_str()], "nothing_payable", "its hold period ends after the cut-off");

    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    let run = report(&world, text(&latest(&world).await["id"])).await;
    let paid = run["payouts"].as_array().unwrap().iter().map(|payout| (text(&payout["partnerId"]), "paid".to_owned()));
    let carried = run["carried"].as_array().unwrap().iter();
    let carried = carried.map(|carried| (text(&carried["partnerId"]), text(&carried["reason"]).to_owned()));
    assert_eq!(paid.chain(carried).collect::<BTreeMap<_, _>>(), told);
    let until = &world.get(FINANCE, &format!("/balances?partnerId={}", others[1])).await.ok()["data"][0];
    assert_eq!(until["notPayableBecause"][0]["code"], "next_run");
    world.audit_holds().await;
}

#[tokio::test]
async fn without_a_schedule_there_is_no_next_run() {
    for frequency in ["on_demand", "instant"] {
        let world = Plan::new().program("schedule", json!({"frequency": frequency})).start().await;
        let shown = world.get(FINANCE, &format!("/programs/{}/next-run", world.program)).await.ok();
        assert_eq!((&shown["date"], &shown["data"]), (&Value::Null, &json!([])), "{frequency}");
    }
}

// --- Instant ----------------------------------------------------------------------------------------------------------

fn instant() -> Plan {
    let schedule = json!({"frequency": "instant", "payDays": 1});
    Plan::new().program("schedule", schedule).partner("trusted", true)
}

#[tokio::test]
async fn a_trusted_partner_is_paid_as_soon_as_something_is_payable() {
    let world = instant().hold_days(7).start().await;
    world.sale("o1", "100.00").await;
    world.settle().await;
    assert_eq!(world.payouts().await.len(), 0, "the hold period holds");
    world.pass("7d");
    world.fire("mature-commissions").await;
    world.settle().await;
    let payout = world.only_payout().await;
    assert_eq!(
        (&payout["state"], &payout["amount"]["minor"], &payout["payOn"]),
        (&json!("pending"), &json!(1_000), &json!("2026-01-09"))
    );
    let run = report(&world, text(&payout["runId"])).await;
    assert_eq!((&run["kind"], &run["state"]), (&json!("instant"), &json!("completed")));
    assert_eq!(run["period"], world.line_of("o1").await["id"], "a line gives it its name");
    world.tick().await;
    world.only_payout().await;
    world.audit_holds().await;
}

#[tokio::test]
async fn instant_is_for_trusted_partners_and_after_approval_only() {
    let world = instant().reviewed().start().await;
    world.sale("o1", "100.00").await;
    let other = world.add_partner(&json!({"code": "BEN20", "trusted": false})).await;
    let sale = json!({"id": "o2", "type": "sale", "partner": {"id": other}, "amount": {"total": "100.00"}});
    world.report(&world.event(sale)).await.ok();
    world.tick().await;
    assert_eq!(world.payouts().await.len(), 0, "nobody approved it");
    let line = world.line_id("o1").await;
    let others = world.all(ADMIN, &format!("/commissions?partnerId={other}")).await;
    world.reviewed("approve", &[&line, text(&others[0]["id"])]).await;
    world.settle().await;
    assert_eq!(world.only_payout().await["partnerId"], json!(world.partner));
    assert_eq!(world.all(ADMIN, &format!("/payouts?partnerId={other}")).await.len(), 0);
    world.tick().await;
    assert_eq!(world.all(ADMIN, &format!("/payouts?partnerId={other}")).await.len(), 0, "nor by the tick");
    world.audit_holds().await;
}

#[tokio::test]
async fn what_could_not_be_paid_instantly_is_paid_by_the_next_tick_after_it_can() {
    let world = instant().minimum("50.00").start().await;
    world.sale("o1", "100.00").await;
    world.tick().await;
    assert_eq!(world.payouts().await.len(), 0, "below the minimum");
    assert_eq!(world.unpaid_because().await, [("below_threshold".to_owned(), 1_000)]);
    patch(&world, &world.partner.clone(), json!({"minimumPayout": "10.00"})).await;
    world.pass("1h");
    world.tick().await;
    assert_eq!(world.only_payout().await["amount"]["minor"], 1_000);
    world.sale("o2", "400.00").await;
    world.sale("o3", "500.00").await;
    world.settle().await;
    let sum: i64 = world.payouts().await.iter().map(|payout| payout["amount"]["minor"].as_i64().unwrap()).sum();
    assert_eq!(sum, 10_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn an_instant_payout_that_somebody_cancelled_is_not_drafted_again_by_itself() {
    let world = instant().start().await;
    world.sale("o1", "100.00").await;
    world.settle().await;
    let id = world.only_payout().await["id"].clone();
    assert_eq!(world.payout_call(ADMIN, "cancel", &id, &json!({"reason": "wrong account"})).await, 200);
    for _ in 0..3 {
        world.pass("1h");
        world.tick().await;
    }
    assert_eq!(world.payouts().await.len(), 1);
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    world.sale("o2", "100.00").await;
    world.settle().await;
    let payouts = world.payouts().await;
    assert_eq!((payouts.len(), &payouts[0]["amount"]["minor"]), (2, &json!(2_000)), "with whatever comes next");
    world.audit_holds().await;
}

// --- By hand ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_partners_a_run_names_must_be_the_programs_and_on_one_list() {
    let world = Plan::new().start().await;
    let stranger = Plan::new().start().await.partner;
    let own = &world.partner;
    for (lists, pointer) in [
        (json!({"include": [own, stranger]}), "/include/1"),
        (json!({"exclude": [stranger]}), "/exclude/0"),
        (json!({"include": ["nonsense"]}), "/include/0"),
        (json!({"include": [own], "exclude": [own]}), "/exclude/0"),
        (json!({"cutOff": "2026-01-01T00:00:01Z"}), "/cutOff"),
    ] {
        let mut run = lists.clone();
        run["programId"] = json!(world.program);
        for preview in [true, false] {
            run["preview"] = json!(preview);
            let refused = world.post(FINANCE, "/runs", &run).await.refused(422);
            assert_eq!(refused.pointers(), [pointer], "{lists}");
        }
    }
    let too_many = json!({"programId": world.program, "include": vec![own; 1_001]});
    world.post(FINANCE, "/runs", &too_many).await.refused(422);
    assert_eq!(world.all(FINANCE, &format!("/runs?programId={}", world.program)).await.len(), 0);
}

#[tokio::test]
async fn a_run_tells_in_numbers_and_one_by_one_whom_it_paid_and_why_not() {
    let world = Plan::new().minimum("5.00").start().await;
    world.sale("o1", "100.00").await;
    let mut carried = Vec::new();
    for n in 0..5 {
        let partner = world.add_partner(&json!({"code": format!("SMALL{n}")})).await;
        let sale =
            json!({"id": format!("s{n}"), "type": "sale", "partner": {"id": partner}, "amount": {"total": "10.00"}});
        world.report(&world.event(sale)).await.ok();
        carried.push(partner);
    }
    world.clock_at("2026-02-01T00:20:00Z");
    world.fire("batch-payouts").await;
    let id = text(&latest(&world).await["id"]).to_owned();
    let asked = report(&world, &id).await;
    assert_eq!((&asked["state"], &asked["summary"]["undecided"]), (&json!("drafting"), &json!(6)));
    world.settle().await;
    let done = report(&world, &id).await;
    assert_eq!((&done["state"], &done["payOn"]), (&json!("completed"), &json!("2026-02-01")));
    let money = |minor: i64| done["summary"]["amount"]["minor"] == minor;
    assert!(money(1_000), "{done}");
    assert_eq!(done["summary"]["carried"][0]["reason"], "below_threshold");
    assert_eq!(done["summary"]["carried"][0]["partners"], 5);
    assert_eq!(done["summary"]["carried"][0]["payable"]["minor"], 500);
    assert_eq!((&done["payouts"][0]["amount"]["minor"], &done["partners"]), (&json!(1_000), &json!(6)));
    let path = format!("/runs/{id}/decisions");
    assert_eq!(world.all(FINANCE, &format!("{path}?limit=2")).await.len(), 6);
    for (query, expect) in [
        ("outcome=payout", 1),
        ("outcome=carried", 5),
        ("outcome=carried&reason=below_threshold", 5),
        ("reason=negative_balance", 0),
        ("outcome=undecided", 0),
    ] {
        assert_eq!(world.all(FINANCE, &format!("{path}?limit=2&{query}")).await.len(), expect, "{query}");
    }
    world.get(FINANCE, &format!("{path}?outcome=nonsense")).await.refused(400);
    world.fire("batch-payouts").await;
    let listed = latest(&world).await;
    assert_eq!((&listed["state"], &listed["summary"]), (&json!("completed"), &done["summary"]));
    world.audit_holds().await;
}

#[tokio::test]
async fn the_end_of_a_run_is_told_once_and_in_numbers() {
    let world = Plan::new().minimum("5.00").start().await;
    world.sale("o1", "100.00").await;
    world.add_partner(&json!({"code": "NONE"})).await;
    world.clock_at("2026-02-01T00:20:00Z");
    world.fire("batch-payouts").await;
    world.settle().await;
    assert_eq!(world.events("run.completed").len(), 0, "decided, but nobody has looked yet whether that was all");
    world.pass("1h");
    world.tick().await;
    world.tick().await;
    let told = world.events("run.completed");
    assert_eq!(told.len(), 1);
    let (run, listed) = (&told[0]["detail"]["run"], latest(&world).await);
    assert_eq!((&run["id"], &run["period"], &run["kind"]), (&listed["id"], &json!("2026-02-01"), &json!("monthly")));
    assert_eq!(
        (&run["partners"], &run["payouts"], &run["carried"], &run["undecided"]),
        (&json!(2), &json!(1), &json!(1), &json!(0))
    );
    assert_eq!(run["amount"], listed["summary"]["amount"]);
    assert_eq!(told[0]["detail"]["at"], "2026-02-01T01:20:00Z");
    world.request_payout_with(&json!({})).await.refused(409);
    world.sale("o2", "100.00").await;
    world.request_payout().await;
    world.tick().await;
    assert_eq!(world.events("run.completed").len(), 1, "what is about one partner is told by its payout");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_partner_whose_message_was_lost_shows_as_undecided_and_is_asked_again() {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    world.fire("batch-payouts").await;
    let queues = &world.system.context.queues;
    queues.sqs.purge_queue().queue_url(&queues.drafts_url).send().await.unwrap();
    let id = text(&latest(&world).await["id"]).to_owned();
    world.pass("30m");
    world.tick().await;
    assert_eq!(report(&world, &id).await["state"], "drafting");
    let undecided = world.all(FINANCE, &format!("/runs/{id}/decisions?outcome=undecided")).await;
    assert_eq!(undecided[0]["partnerId"], json!(world.partner));
    let late = world.add_partner(&json!({"code": "LATE"})).await;
    world.pass("30m");
    world.tick().await;
    assert_eq!(report(&world, &id).await["state"], "completed");
    assert_eq!(world.only_payout().await["amount"]["minor"], 1_000);
    let decided = world.all(FINANCE, &format!("/runs/{id}/decisions")).await;
    assert!(decided.iter().all(|decision| decision["partnerId"] != json!(late)), "who came later was not asked");
    world.audit_holds().await;
}

#[tokio::test]
async fn whoever_is_asked_only_when_a_run_asks_again_is_waited_for_too() {
    let world = Plan::new().start().await;
    world.clock_at("2026-02-01T00:00:00Z");
    world.fire("batch-payouts").await;
    let id = text(&latest(&world).await["id"]).to_owned();
    // Of the moment when the run was due, as if the index had not shown it then.
    world.add_partner(&json!({"code": "LATE"})).await;
    assert_eq!(report(&world, &id).await["partners"], 1);
    world.pass("1h");
    world.fire("batch-payouts").await;
    assert_eq!(report(&world, &id).await["summary"]["undecided"], 2);
    world.tick().await;
    let done = report(&world, &id).await;
    assert_eq!((&done["state"], &done["partners"]), (&json!("completed"), &json!(2)));
    assert_eq!(done["summary"]["carried"][0]["partners"], 2);
    world.audit_holds().await;
}

#[tokio::test]
async fn whoever_joins_after_a_run_was_due_is_not_asked_however_late_it_is_planned() {
    let world = Plan::new().start().await;
    world.clock_at("2026-02-03T00:20:00Z");
    let late = world.add_partner(&json!({"code": "LATE"})).await;
    world.sale("o1", "100.00").await;
    world.tick().await;
    let run = latest(&world).await;
    assert_eq!(
        (&run["period"], &run["partners"], &run["state"]),
        (&json!("2026-02-01"), &json!(1), &json!("completed"))
    );
    let decided = world.all(FINANCE, &format!("/runs/{}/decisions", text(&run["id"]))).await;
    assert_eq!(decided.len(), 1);
    assert_ne!(decided[0]["partnerId"], json!(late));
    world.audit_holds().await;
}

#[tokio::test]
async fn after_a_day_a_run_no_longer_waits_for_those_who_cannot_be_decided_about() {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    world.fire("batch-payouts").await;
    let queues = &world.system.context.queues;
    for _ in 0..25 {
        queues.sqs.purge_queue().queue_url(&queues.drafts_url).send().await.unwrap();
        world.pass("1h");
        world.fire("batch-payouts").await;
    }
    queues.sqs.purge_queue().queue_url(&queues.drafts_url).send().await.unwrap();
    let run = latest(&world).await;
    assert_eq!((&run["state"], &run["summary"]["undecided"]), (&json!("incomplete"), &json!(1)));
    let undecided = world.all(FINANCE, &format!("/runs/{}/decisions?outcome=undecided", text(&run["id"]))).await;
    assert_eq!(undecided.len(), 1);
    assert_eq!(world.fire("batch-payouts").await["runsCompleted"], 0, "it is left alone");
    world.audit_holds().await;
}

// --- What is claimed, and what a report says of it --------------------------------------------------------------------

#[tokio::test]
async fn a_run_takes_what_was_payable_when_it_was_planned_and_no_more_when_it_is_caught_up_on() {
    let world = Plan::new().reviewed().minimum("0").start().await;
    for order in ["in time", "on its day", "late", "stopped", "owes"] {
        world.sale(order, "100.00").await;
    }
    let line = async |order: &str| world.line_id(order).await;
    world.reviewed("approve", &[&line("in time").await, &line("stopped").await]).await;
    world.clock_at("2026-02-01T14:00:00Z");
    world.reviewed("approve", &[&line("on its day").await]).await;
    world.clock_at("2026-02-05T00:00:00Z");
    world.reviewed("approve", &[&line("late").await]).await;
    world.reviewed("hold", &[&line("stopped").await]).await;
    world.reviewed("release", &[&line("stopped").await]).await;
    let bonus = json!({"partnerId": world.partner, "programId": world.program, "amount": "-1.00", "reason": "owed"});
    world.post(MANAGER, "/commissions", &bonus).await.ok();
    world.clock_at("2026-02-10T00:20:00Z");
    world.tick().await;
    let run = latest(&world).await;
    assert_eq!((&run["period"], &run["payableBy"]), (&json!("2026-02-01"), &json!("2026-02-02T00:00:00Z")));
    let payout = world.only_payout().await;
    assert_eq!(payout["amount"]["minor"], 1_900, "what was payable by the end of its day, less every debt");
    for (order, expect) in
        [("in time", "in_payout"), ("on its day", "in_payout"), ("late", "payable"), ("stopped", "payable")]
    {
        assert_eq!(world.line_of(order).await["state"], expect, "{order}");
    }
    world.clock_at("2026-03-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.payouts().await[0]["amount"]["minor"], 2_000, "the next run takes them");
    world.audit_holds().await;
}

#[tokio::test]
async fn what_is_freed_between_planning_and_decision_waits_for_the_next_run() {
    let world = Plan::new().minimum("0").start().await;
    world.sale("o1", "100.00").await;
    let earlier = world.request_payout().await["id"].clone();
    world.sale("o2", "50.00").await;
    world.pass("1m");
    let run = world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
    world.pass("30s");
    assert_eq!(world.payout_call(ADMIN, "cancel", &earlier, &json!({"reason": "wrong"})).await, 200);
    world.settle().await;
    assert_eq!(report(&world, &run).await["payouts"][0]["amount"]["minor"], 500);
    assert_eq!(world.line_of("o1").await["state"], "payable");
    world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
    world.settle().await;
    assert_eq!(world.line_of("o1").await["state"], "in_payout");
    world.audit_holds().await;
}

/// Serves the message of the run's only partner in a process that dies at one of its writes.
async fn die_drafting(world: &World, run: &str, at: usize) {
    let decide = async |context: &Context| {
        let request = DraftRequest::Decide { run: run.parse().unwrap(), partner: world.partner.parse().unwrap() };
        serve(context, &request, &|| true).await
    };
    assert!(struck(world, Blow::Death, at, decide).await.answer.is_none());
    assert_eq!(world.payouts().await[0]["state"], "drafting");
}

#[tokio::test]
async fn a_report_says_what_is_paid_after_tax_however_many_pages_that_takes() {
    for (sales, total) in [(1, "5000.00"), (46, "100.00")] {
        let plan = Plan::new().program("taxPayer", "US").program("withoutTaxNumber", "withhold");
        let world = plan.rules([tests::percent("100")]).start().await;
        for n in 0..sales {
            world.sale(&format!("o{n}"), total).await;
        }
        let request = json!({"programId": world.program, "preview": true});
        let foreseen = world.post(FINANCE, "/runs", &request).await.ok()["wouldPay"][0]["amount"].clone();
        let run = world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
        if sales > 45 {
            die_drafting(&world, &run, 1).await;
            let drafting = report(&world, &run).await;
            assert_eq!((&drafting["summary"]["drafting"], &drafting["payouts"][0]["amount"]), (&json!(1), &foreseen));
        }
        world.pass("181s");
        world.settle().await;
        let payout = world.only_payout().await;
        assert!(payout["withheld"]["minor"].as_i64().unwrap() > 0, "{payout}");
        let told = report(&world, &run).await;
        assert_eq!((&told["payouts"][0]["amount"], &told["summary"]["amount"]), (&payout["amount"], &payout["amount"]));
        assert_eq!(foreseen, payout["amount"], "{sales}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_draft_of_which_too_little_is_left_is_told_as_carried() {
    let world = Plan::new().minimum("40.00").start().await;
    for n in 0..46 {
        world.sale(&format!("o{n}"), "10.00").await;
    }
    let run = world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
    die_drafting(&world, &run, 1).await;
    let mut ids: Vec<_> = Vec::new();
    for n in 0..10 {
        ids.push(world.line_id(&format!("o{n}")).await);
    }
    world.reviewed("hold", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.pass("181s");
    world.settle().await;
    world.tick().await;
    let payout = world.only_payout().await;
    assert_eq!(payout["state"], "cancelled");
    let told = report(&world, &run).await;
    assert_eq!((&told["state"], &told["payouts"]), (&json!("completed"), &json!([])));
    let carried = json!([{"partnerId": world.partner, "reason": "below_threshold", "payable": {"amount": "36.00", "minor": 3_600, "currency": "USD"}}]);
    assert_eq!(told["carried"], carried);
    assert_eq!((&told["summary"]["payouts"], &told["summary"]["amount"]["minor"]), (&json!(0), &json!(0)));
    let decisions = world.all(FINANCE, &format!("/runs/{run}/decisions?reason=below_threshold")).await;
    assert_eq!(decisions[0]["payoutId"], payout["id"]);
    assert_eq!(world.buckets().await, [("payable", 3_600), ("held", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_run_waits_for_a_draft_in_progress_and_tells_so_until_it_decides() {
    let world = Plan::new().minimum("0").start().await;
    for n in 0..46 {
        world.sale(&format!("o{n}"), "10.00").await;
    }
    let first = world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
    die_drafting(&world, &first, 1).await;
    let queues = &world.system.context.queues;
    queues.sqs.purge_queue().queue_url(&queues.drafts_url).send().await.unwrap();
    world.sale("more", "100.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    // Not the tick, which would go on with the draft.
    let context = &world.system.context;
    tick(context, || true).await.unwrap();
    let scheduled = text(&latest(&world).await["id"]).to_owned();
    let request = DraftRequest::Decide { run: scheduled.parse().unwrap(), partner: world.partner.parse().unwrap() };
    for _ in 0..2 {
        serve(context, &request, &|| true).await.unwrap_err();
    }
    let waits = report(&world, &scheduled).await;
    assert_eq!((&waits["state"], &waits["carried"]), (&json!("drafting"), &json!([])));
    let why = "a payout to this partner is being drafted";
    assert_eq!((&waits["failed"][0]["partnerId"], &waits["failed"][0]["reason"]), (&json!(world.partner), &json!(why)));
    let numbers = ["asked", "decided", "failed", "undecided"].map(|name| waits["summary"][name].as_u64().unwrap());
    assert_eq!(numbers, [1, 0, 1, 0]);
    let path = format!("/runs/{scheduled}/decisions");
    for (query, expect) in [("outcome=failed", 1), ("outcome=undecided", 0), ("outcome=carried", 0), ("limit=5", 1)] {
        assert_eq!(world.all(FINANCE, &format!("{path}?{query}")).await.len(), expect, "{query}");
    }
    world.pass("1h");
    world.tick().await;
    world.pass("1h");
    world.tick().await;
    let done = report(&world, &scheduled).await;
    assert_eq!((&done["state"], &done["failed"]), (&json!("completed"), &json!([])));
    assert_eq!(done["payouts"][0]["amount"]["minor"], 1_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_partner_who_cannot_be_decided_about_for_a_day_is_told_with_the_reason_and_decided_later() {
    let world = Plan::new().minimum("0").start().await;
    for n in 0..46 {
        world.sale(&format!("o{n}"), "10.00").await;
    }
    let first = world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
    die_drafting(&world, &first, 1).await;
    world.sale("more", "100.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    let (context, queues) = (&world.system.context, &world.system.context.queues);
    tick(context, || true).await.unwrap();
    let scheduled = text(&latest(&world).await["id"]).to_owned();
    let request = DraftRequest::Decide { run: scheduled.parse().unwrap(), partner: world.partner.parse().unwrap() };
    for _ in 0..26 {
        queues.sqs.purge_queue().queue_url(&queues.drafts_url).send().await.unwrap();
        serve(context, &request, &|| true).await.unwrap_err();
        world.pass("1h");
        tick(context, || true).await.unwrap();
    }
    let given_up = report(&world, &scheduled).await;
    assert_eq!((&given_up["state"], &given_up["summary"]["failed"]), (&json!("incomplete"), &json!(1)));
    assert_eq!(given_up["failed"][0]["reason"], "a payout to this partner is being drafted");
    queues.sqs.purge_queue().queue_url(&queues.drafts_url).send().await.unwrap();
    world.settle().await;
    let told = world.events("run.completed");
    let of_run = told.iter().find(|told| told["detail"]["run"]["id"] == json!(scheduled)).unwrap();
    let numbers = ["partners", "payouts", "carried", "failed", "undecided"];
    let numbers = numbers.map(|name| of_run["detail"]["run"][name].as_u64().unwrap());
    assert_eq!(numbers, [1, 0, 0, 1, 0]);
    let drafted = DraftRequest::Decide { run: first.parse().unwrap(), partner: world.partner.parse().unwrap() };
    serve(context, &drafted, &|| true).await.unwrap();
    serve(context, &request, &|| true).await.unwrap();
    let done = report(&world, &scheduled).await;
    assert_eq!(
        (&done["state"], &done["summary"]["failed"], &done["summary"]["payouts"]),
        (&json!("completed"), &json!(0), &json!(1))
    );
    world.audit_holds().await;
}

// --- Thresholds -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn dust_is_swept_by_the_scheduled_run_after_its_days_and_says_so() {
    let world = Plan::new().minimum("50.00").program("dustSweepDays", 45).start().await;
    world.sale("o1", "100.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.payouts().await.len(), 0, "31 days");
    world.sale("o2", "100.00").await;
    world.request_payout_with(&json!({})).await.refused(409);
    world.clock_at("2026-03-01T00:20:00Z");
    world.request_payout_with(&json!({})).await.refused(409);
    world.tick().await;
    let payout = world.only_payout().await;
    assert_eq!(payout["amount"]["minor"], 2_000, "all of it, for the oldest");
    assert!(text(&payout["belowMinimum"]).starts_with("dust policy: "), "{payout}");
    world.refund("r1", "o2", "50.00").await;
    assert_eq!(world.payout(&payout["id"]).await["state"], "pending", "a change inside does not cancel it");
    world.pay(&payout["id"]).await;
    world.audit_holds().await;
}

#[tokio::test]
async fn an_old_debt_is_written_off_by_a_line_that_nets_it() {
    let plan = Plan::new().program("debtWriteOffDays", 60);
    let world = plan.start().await;
    world.sale("o1", "100.00").await;
    world.pay_everything().await;
    world.refund("r1", "o1", "100.00").await;
    world.clock_at("2026-03-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.unpaid_because().await, [("negative_balance".to_owned(), -1_000)], "59 days");
    world.clock_at("2026-04-01T00:20:00Z");
    world.tick().await;
    let netted = world.payouts().await.remove(0);
    assert_eq!(
        (&netted["state"], &netted["amount"]["minor"], &netted["lineCount"]),
        (&json!("paid"), &json!(0), &json!(2))
    );
    let lines = world.lines().await;
    let written_off = lines.iter().find(|line| line["kind"] == "write_off").unwrap();
    assert_eq!((&written_off["amount"]["minor"], &written_off["state"]), (&json!(1_000), &json!("paid")));
    let path = format!("/commissions/{}/explanation", text(&written_off["id"]));
    assert!(world.get(ADMIN, &path).await.ok().to_string().contains("debt policy"));
    assert_eq!(world.unpaid_because().await, []);
    world.tick().await;
    assert_eq!(world.lines().await.len(), 3, "once");
    let replayed = world.get(ADMIN, &format!("/audit/replay?programId={}", world.program)).await.ok();
    assert_eq!(replayed["differing"], json!([]));
    // What is clawed back later is a debt of its own.
    world.sale("o2", "100.00").await;
    world.pay_everything().await;
    world.refund("r2", "o2", "100.00").await;
    world.clock_at("2026-05-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.unpaid_because().await, [("negative_balance".to_owned(), -1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_debt_is_not_written_off_while_the_partner_may_still_earn_it() {
    let world = Plan::new().program("debtWriteOffDays", 30).reviewed().start().await;
    world.sale("o1", "100.00").await;
    world.reviewed("approve", &[&world.line_id("o1").await]).await;
    world.pay_everything().await;
    world.refund("r1", "o1", "100.00").await;
    world.sale("waits for review", "50.00").await;
    world.clock_at("2026-04-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.balance().await["payable"]["minor"], -1_000);
    world.reviewed("reject", &[&world.line_id("waits for review").await]).await;
    world.clock_at("2026-05-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.balance().await["payable"]["minor"], 0);
    world.audit_holds().await;
}

#[tokio::test]
async fn days_of_policies_are_checked() {
    let world = Plan::new().start().await;
    for field in ["dustSweepDays", "debtWriteOffDays"] {
        for bad in [0, 3_651] {
            let refused = world.post(ADMIN, "/programs", &json!({"name": "P", field: bad})).await.refused(422);
            assert_eq!(refused.pointers(), [format!("/{field}")]);
        }
        assert_eq!(world.post(ADMIN, "/programs", &json!({"name": "P", field: null})).await.ok()[field], Value::Null);
    }
}

// --- Reasons ----------------------------------------------------------------------------------------------------------

/// Every commission's reason, summed by code, is the balance's.
async fn reasons_agree(world: &World, case: &str) {
    let mut by_line: BTreeMap<String, i64> = BTreeMap::new();
    for line in world.lines().await {
        let alone = world.get(ADMIN, &format!("/commissions/{}", text(&line["id"]))).await.ok();
        assert_eq!(alone["notPayableBecause"], line["notPayableBecause"], "{case}");
        let ended = ["paid", "rejected", "reversed"].contains(&text(&line["state"]));
        assert_eq!(line["notPayableBecause"].is_null(), ended, "{case}: {line}");
        if !ended {
            let code = text(&line["notPayableBecause"]["code"]).to_owned();
            *by_line.entry(code).or_default() += line["net"]["minor"].as_i64().unwrap();
        }
    }
    by_line.retain(|_, sum| *sum != 0);
    assert_eq!(by_line, world.unpaid_because().await.into_iter().collect::<BTreeMap<_, _>>(), "{case}");
}

#[tokio::test]
async fn each_line_has_its_reason_and_the_sums_agree() {
    let world = Plan::new().reviewed().hold_days(30).minimum("15.00").start().await;
    for order in ["paid", "in payout", "payable", "waits", "held", "new", "no"] {
        world.sale(order, "100.00").await;
        world.pass("1m");
    }
    reasons_agree(&world, "all in review").await;
    let ids = async |orders: &[&str]| {
        let mut ids = Vec::new();
        for order in orders {
            ids.push(world.line_id(order).await);
        }
        ids
    };
    let decide = async |verdict: &str, orders: &[&str]| {
        let ids = ids(orders).await;
        world.reviewed(verdict, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    };
    decide("approve", &["paid", "in payout", "payable", "waits"]).await;
    decide("hold", &["held"]).await;
    decide("reject", &["no"]).await;
    let waits = &world.line_of("waits").await;
    assert_eq!(waits["notPayableBecause"], json!({"code": "hold_period", "until": waits["dueAt"]}));
    reasons_agree(&world, "waiting").await;
    world.clock_at("2026-01-31T00:02:30Z");
    world.fire("mature-commissions").await;
    let override_ = json!({"override": "test", "amount": "10.00"});
    let first = world.request_payout_with(&override_).await.ok();
    world.pay(&first["id"]).await;
    world.request_payout_with(&override_).await.ok();
    let payable = &world.line_of("payable").await["notPayableBecause"];
    assert_eq!((&payable["code"], &payable["missing"]["minor"]), (&json!("below_threshold"), &json!(500)));
    reasons_agree(&world, "below the minimum").await;
    world.refund("r1", "paid", "100.00").await;
    reasons_agree(&world, "a debt").await;
    world.pass("1d");
    world.fire("mature-commissions").await;
    reasons_agree(&world, "more").await;
    patch(&world, &world.partner.clone(), json!({"minimumPayout": "0.00"})).await;
    let payable = &world.line_of("waits").await["notPayableBecause"];
    assert_eq!(payable["code"], "next_run");
    reasons_agree(&world, "enough").await;
    world.post(MANAGER, &format!("/partners/{}/suspend", world.partner), &json!({})).await.ok();
    reasons_agree(&world, "suspended").await;
    world.audit_holds().await;
}

#[tokio::test]
async fn a_line_after_the_cut_off_waits_for_the_run_that_takes_it() {
    let schedule = json!({"frequency": "monthly", "runDay": 1, "cutOffDays": 10});
    let world = Plan::new().program("schedule", schedule).start().await;
    world.sale("this", "100.00").await;
    world.clock_at("2026-01-25T00:00:00Z");
    world.sale("next", "100.00").await;
    let until = async |order| world.line_of(order).await["notPayableBecause"]["until"].clone();
    assert_eq!((until("this").await, until("next").await), (json!("2026-02-01"), json!("2026-03-01")));
}

// --- Disturbed --------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_at_once_and_the_same_run_twice_pay_once() {
    let world = Plan::new().start().await;
    for n in 0..3 {
        world.sale(&format!("o{n}"), "100.00").await;
    }
    let run = json!({"programId": world.program});
    let keyed = async |key: &str| world.by(FINANCE, Request::post("/runs", &run).header("idempotency-key", key)).await;
    let requests = vec![keyed("a").await, keyed("a").await, keyed("b").await, keyed("c").await];
    for reply in world.together(requests).await {
        // The same key at the same moment may be told to wait.
        assert!([202, 409].contains(&reply.status), "{}", reply.text);
    }
    world.clock_at("2026-02-01T00:20:00Z");
    world.tick().await;
    world.tick().await;
    let payout = world.only_payout().await;
    assert_eq!((&payout["amount"]["minor"], &payout["lineCount"]), (&json!(3_000), &json!(3)));
    let runs = world.all(FINANCE, &format!("/runs?programId={}", world.program)).await;
    assert_eq!(runs.len(), 4, "a, b, c and the schedule's");
    assert!(runs.iter().all(|run| run["state"] == "completed"), "{runs:?}");
    world.audit_holds().await;
}

/// Fires the schedule and serves its messages, in a process that dies at a write. Whether it came to its end.
async fn run_until(world: &World, partners: &[String], last: usize) -> bool {
    let whole = async |context: &Context| {
        tick(context, || true).await.unwrap();
        let runs = context.store.runs("test", &world.program.parse().unwrap(), None, 1).await.unwrap();
        for partner in partners {
            let request = DraftRequest::Decide { run: runs.items[0].id.clone(), partner: partner.parse().unwrap() };
            serve(context, &request, &|| true).await.unwrap();
        }
    };
    struck(world, Blow::Death, last, whole).await.answer.is_some()
}

/// What a run came to: payouts and decisions by partner, and the books.
async fn outcome(world: &World, partners: &[String]) -> Vec<Value> {
    let mut came_to = Vec::new();
    let fields = ["id", "state", "amount", "lineCount", "linesHash", "belowMinimum"];
    for partner in partners {
        let mut payouts = world.all(ADMIN, &format!("/payouts?partnerId={partner}")).await;
        payouts.sort_by_key(|payout| text(&payout["id"]).to_owned());
        let shown = |payout: &Value| fields.map(|field| payout[field].clone());
        let payouts: Vec<_> = payouts.iter().map(shown).collect();
        came_to.push(json!([partner, payouts, world.buckets_of(partner).await]));
    }
    came_to.push(latest(world).await["summary"].clone());
    came_to
}

/// A process that dies at any write of a run leaves nothing half done: whoever repeats the run comes to the same payouts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_at_any_step_and_repeated_gives_the_same_payouts() {
    let prepared = temporary_directory("prepared");
    let plan = Plan::new().program("debtWriteOffDays", 20);
    let world = plan.clone().stored(Storage::Directory(prepared.clone())).start().await;
    // Two pages of lines; one; a debt that nets; an old debt; nothing to be paid by.
    for n in 0..46 {
        world.sale(&format!("o{n}"), "10.00").await;
    }
    let mut partners = vec![world.partner.clone()];
    for (code, methods) in [("ONE", true), ("NETS", true), ("OWES", true), ("NONE", false)] {
        let mut fields = json!({"code": code});
        if !methods {
            fields["payoutMethods"] = json!([]);
        }
        let of = World { partner: world.add_partner(&fields).await, ..world.clone() };
        of.sale(code, "100.00").await;
        if code == "NETS" || code == "OWES" {
            of.pay_everything().await;
            of.refund(&format!("refund {code}"), code, "100.00").await;
        }
        if code == "NETS" {
            of.sale("nets", "100.00").await;
        }
        partners.push(of.partner);
    }
    let program = world.program.clone();
    drop(world);
    let again = async |directory: &Path| {
        let plan = plan.clone().at("2026-02-01T00:20:00Z").stored(Storage::Directory(directory.to_owned()));
        plan.start_again(&program, &partners[0]).await
    };
    let mut expected = None;
    for last in (0..).map(|n| if n == 0 { usize::MAX } else { n - 1 }) {
        let directory = copied(&prepared, "killed");
        let world = again(&directory).await;
        let whole = run_until(&world, &partners, last).await;
        // Messages that were taken come again, and the schedule fires again.
        world.pass("181s");
        world.settle().await;
        world.tick().await;
        let found = outcome(&world, &partners).await;
        let expect = expected.get_or_insert_with(|| found.clone());
        assert_eq!(found, *expect, "killed after {last} writes");
        world.audit_holds().await;
        drop(world);
        std::fs::remove_dir_all(&directory).unwrap();
        if whole && last != usize::MAX {
            assert!(last > 10, "a run makes more writes than {last}");
            break;
        }
    }
    std::fs::remove_dir_all(&prepared).unwrap();
}
