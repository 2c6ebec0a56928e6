//! One business key, one effect: whatever is repeated, reordered or happens at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Barrier};

use jiff::SignedDuration;
use local::Odds;
use serde_json::{Value, json};
use store::{Answer, Remembered, Transaction};
use tests::{ADMIN, FINANCE, MANAGER, Plan, REVIEWER, Reply, Request, Who, World};
use tokio::runtime::Handle;

#[tokio::test]
async fn the_same_event_again_has_no_effect() {
    let world = Plan::new().start().await;
    let event = world.sale_event("o1", "100.00");
    let first = world.report(&event).await.ok();
    for (field, value) in [
        ("occurredAt", json!("2025-12-31T00:00:00Z")),
        ("channel", json!("web")),
        ("metadata", json!({"sent": "twice"})),
        ("amount", json!({"total": "100.000", "tax": "0", "currency": "USD"})),
    ] {
        let mut again = event.clone();
        again[field] = value;
        let reply = world.report(&again).await.ok();
        assert_eq!((&reply["id"], &reply["outcome"]), (&first["id"], &json!("already_applied")), "{field}");
    }
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    assert_eq!(world.exception_codes().await, [""; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn the_same_sale_with_other_content_moves_nothing_and_is_filed() {
    let world = Plan::new().start().await;
    let event = world.sale_event("o1", "100.00");
    world.report(&event).await.ok();
    for (pointer, value) in [
        ("/amount/total", json!("100.01")),
        ("/amount/tax", json!("1.00")),
        ("/amount/shipping", json!("1.00")),
        ("/partner", json!({"code": "ANNA10"})),
        ("/coupon", json!("OTHER")),
    ] {
        let mut other = event.clone();
        match pointer.strip_prefix("/amount/") {
            Some(field) => other["amount"][field] = value,
            None => other[&pointer[1..]] = value,
        }
        world.report(&other).await.refused(409);
    }
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    assert_eq!(world.exception_codes().await, ["contradiction"; 5]);
    world.audit_holds().await;
}

#[tokio::test]
async fn the_same_refund_with_other_content_moves_nothing_and_is_filed() {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    world.refund("r1", "o1", "40.00").await;
    world.report(&world.refund_event("r1", "o1", "41.00")).await.refused(409);
    assert_eq!(world.buckets().await, [("payable", 600), ("reversed", 400)]);
    assert_eq!(world.exception_codes().await, ["contradiction"]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_refund_id_used_for_another_order_moves_nothing_and_is_filed() {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    world.sale("o2", "100.00").await;
    world.refund("r1", "o1", "40.00").await;
    world.report(&world.refund_event("r1", "o2", "40.00")).await.refused(409);
    assert_eq!(world.buckets().await, [("payable", 1_600), ("reversed", 400)]);
    assert_eq!(world.exception_codes().await, ["contradiction"]);
    world.audit_holds().await;
}

fn outcomes(replies: &[Reply], outcome: &str) -> usize {
    replies.iter().filter(|reply| reply.status == 202 && reply.body["outcome"] == outcome).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_identical_sales_at_once_are_one() {
    let world = Plan::new().start().await;
    let request = world.by(ADMIN, Request::post("/conversions", &world.sale_event("o1", "100.00"))).await;
    let replies = world.together(vec![request; 20]).await;
    assert_eq!((outcomes(&replies, "applied"), outcomes(&replies, "already_applied")), (1, 19), "{replies:?}");
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sale_and_its_refund_at_once_come_to_the_same_balance_in_either_order() {
    let world = Plan::new().start().await;
    let mut requests = Vec::new();
    for number in 0..15 {
        let order = format!("o{number}");
        let sale = world.by(ADMIN, Request::post("/conversions", &world.sale_event(&order, "100.00"))).await;
        let refund = world.refund_event(&format!("r{number}"), &order, "40.00");
        let refund = world.by(ADMIN, Request::post("/conversions", &refund)).await;
        requests.extend(if number % 2 == 0 { [sale, refund] } else { [refund, sale] });
    }
    let replies = world.together(requests).await;
    assert!(replies.iter().all(|reply| reply.status == 202), "{replies:?}");
    assert_eq!(world.buckets().await, [("payable", 15 * 600), ("reversed", 15 * 400)]);
    world.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_sales_of_one_partner_at_once_are_all_booked() {
    for rule in [tests::percent("10"), tests::tiered(&[("0", "10"), ("25", "20")])] {
        let tiers = rule["reward"]["kind"] == "tiered";
        let world = Plan::new().rules([rule]).start().await;
        let mut requests = Vec::new();
        for number in 0..50 {
            let event = world.sale_event(&format!("o{number}"), "100.00");
            requests.push(world.by(ADMIN, Request::post("/conversions", &event)).await);
        }
        let mut waiting = requests;
        // A tier's positions are taken one after the other: whoever is told to try again does.
        for _ in 0..20 {
            let replies = world.together(waiting.clone()).await;
            assert!(replies.iter().all(|reply| matches!(reply.status, 202 | 503)), "{replies:?}");
            assert!(tiers || replies.iter().all(|reply| reply.status == 202), "{replies:?}");
            waiting =
                waiting.into_iter().zip(replies).filter(|(_, reply)| reply.status == 503).map(|(one, _)| one).collect();
            if waiting.is_empty() {
                break;
            }
        }
        let expect = if tiers { 25 * 1_000 + 25 * 2_000 } else { 50 * 1_000 };
        assert_eq!(world.buckets().await, [("payable", expect)]);
        world.audit_holds().await;
    }
}

/// A partner whose 10.00 the run of February 1 will pay.
async fn before_a_run() -> World {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    world.clock_at("2026-02-01T00:20:00Z");
    world
}

#[tokio::test]
async fn a_schedule_that_fires_twice_is_one_run() {
    let world = before_a_run().await;
    assert_eq!(world.fire("batch-payouts").await["runsStarted"], 1);
    assert_eq!(world.fire("batch-payouts").await["runsStarted"], 0);
    world.settle().await;
    world.pass("1h");
    world.tick().await;
    assert_eq!(world.only_payout().await["amount"]["minor"], 1_000);
    world.audit_holds().await;
}

/// Runs jobs at the same moment, each on a thread of its own.
async fn at_once<F: Future<Output = ()>>(
    world: &World,
    jobs: usize,
    job: impl Fn(World) -> F + Clone + Send + 'static,
) {
    let barrier = Arc::new(Barrier::new(jobs));
    let threads: Vec<_> = (0..jobs)
        .map(|_| {
            let (world, barrier, job) = (world.clone(), Arc::clone(&barrier), job.clone());
            tokio::task::spawn_blocking(move || {
                barrier.wait();
                Handle::current().block_on(job(world));
            })
        })
        .collect();
    for thread in threads {
        thread.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn schedules_that_fire_at_once_give_one_payout() {
    let world = before_a_run().await;
    at_once(&world, 8, |world| async move {
        world.fire("batch-payouts").await;
    })
    .await;
    world.settle().await;
    assert_eq!(world.only_payout().await["amount"]["minor"], 1_000);
    assert_eq!(world.all(ADMIN, &format!("/runs?programId={}", world.program)).await.len(), 1);
    world.audit_holds().await;
}

fn draft_event(run: &Value, partner: &str, copies: usize) -> Value {
    let body = json!({"run": run, "partner": partner}).to_string();
    let records: Vec<_> = (0..copies).map(|n| json!({"messageId": format!("m{n}"), "body": body})).collect();
    json!({ "Records": records })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_draft_message_delivered_twice_is_one_payout() {
    let world = before_a_run().await;
    world.fire("batch-payouts").await;
    let run = world.all(ADMIN, &format!("/runs?programId={}", world.program)).await[0]["id"].clone();
    let event = draft_event(&run, &world.partner, 2);
    let same = event.clone();
    at_once(&world, 4, move |world| {
        let event = same.clone();
        async move {
            let answer = world.system.invoke("draft-payout", event).await.unwrap();
            assert_eq!(answer["batchItemFailures"], json!([]), "{answer}");
        }
    })
    .await;
    // The queue's own copy, and a late one.
    world.settle().await;
    world.system.invoke("draft-payout", event).await.unwrap();
    assert_eq!(world.only_payout().await["amount"]["minor"], 1_000);
    assert_eq!(world.get(ADMIN, &format!("/runs/{}", run.as_str().unwrap())).await.ok()["state"], "completed");
    world.audit_holds().await;
}

#[tokio::test]
async fn lines_freed_after_a_run_wait_for_the_next_one() {
    let world = before_a_run().await;
    world.tick().await;
    let id = world.only_payout().await["id"].clone();
    assert_eq!(world.payout_call(ADMIN, "cancel", &id, &json!({"reason": "wrong month"})).await, 200);
    world.pass("1d");
    world.tick().await;
    assert_eq!(world.payouts().await.len(), 1, "the run of the month has decided");
    world.clock_at("2026-03-01T00:20:00Z");
    world.tick().await;
    assert_eq!(world.payouts().await.len(), 2);
    assert_eq!(world.buckets().await, [("inPayout", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn the_same_key_and_body_get_the_stored_answer() {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    for (key, who, path, body) in [
        ("a program", MANAGER, "/programs", json!({"name": "Once"})),
        ("a payout", FINANCE, "/payouts", world.payout_request(&json!({}))),
        ("a refusal", FINANCE, "/payouts", world.payout_request(&json!({"amount": "1000.00"}))),
    ] {
        let request = world.by(who, Request::post(path, &body)).await.header("idempotency-key", key);
        let first = world.send(request.clone()).await;
        let again = world.send(request).await;
        assert_eq!((first.status, &first.body), (again.status, &again.body), "{path}");
        assert_eq!(first.headers["content-type"], again.headers["content-type"]);
    }
    let programs = world.all(ADMIN, "/programs").await;
    assert_eq!(programs.iter().filter(|program| program["name"] == "Once").count(), 1);
    world.only_payout().await;
    world.audit_holds().await;
}

/// As if the key had been taken a minute ago by a function that died since.
async fn a_minute_passes_for(world: &World, who: Who<'_>, key: &str) {
    let store = &world.system.context.store;
    let Some(remembered) = store.remembered("test", who.subject, key).await.unwrap() else { return };
    if matches!(remembered.answer, Answer::Running { .. }) {
        let revision = remembered.revision;
        let started_at = remembered.started_at - SignedDuration::from_secs(61);
        let mut transaction = Transaction::new("test");
        transaction.remember_again(&Remembered { started_at, ..remembered }, revision).unwrap();
        store.commit(transaction).await.unwrap();
    }
}

/// Wherever the function dies: before its effect, after it, or before its answer is stored.
#[tokio::test]
async fn what_died_half_way_is_run_again_under_its_key_and_makes_nothing_twice() {
    let world = Plan::new().start().await;
    let (program, partner) = (world.program.clone(), world.partner.clone());
    let rules = json!([tests::percent("20")]);
    let mut died = 0;
    for (who, path, list, body) in [
        (MANAGER, "/programs".to_owned(), "/programs".to_owned(), json!({"name": "#"})),
        (
            MANAGER,
            "/partners".to_owned(),
            format!("/partners?programId={program}"),
            json!({"programId": program, "name": "#", "email": "a@b.example", "code": "C#"}),
        ),
        (
            MANAGER,
            "/sources".to_owned(),
            format!("/sources?programId={program}"),
            json!({"programId": program, "kind": "standard", "name": "#"}),
        ),
        (
            MANAGER,
            "/links".to_owned(),
            format!("/links?partnerId={partner}"),
            json!({"partnerId": partner, "code": "LINK-#"}),
        ),
        (
            MANAGER,
            format!("/programs/{program}/rule-sets"),
            format!("/programs/{program}/rule-sets"),
            json!({"rationale": "#", "effectiveFrom": "2030-01-01T00:00:00Z", "rules": rules}),
        ),
        (
            REVIEWER,
            "/commissions".to_owned(),
            format!("/commissions?partnerId={partner}"),
            json!({"partnerId": partner, "amount": "1.00", "reason": "#"}),
        ),
        (FINANCE, "/runs".to_owned(), format!("/runs?programId={program}"), json!({"programId": program})),
        (
            FINANCE,
            "/exports".to_owned(),
            format!("/exports?programId={program}"),
            json!({"programId": program, "format": "paypal"}),
        ),
    ] {
        for seed in 0..8 {
            let key = format!("{path} {seed}");
            let body: Value = serde_json::from_str(&body.to_string().replace('#', &seed.to_string())).unwrap();
            let request = world.by(who, Request::post(&path, &body)).await.header("idempotency-key", &key);
            let before = world.all(ADMIN, &list).await.len();
            world.system.faults.set(Odds { seed, crash: 0.25, ..Odds::default() });
            let first = world.try_send(request.clone()).await;
            world.system.faults.set(Odds::default());
            died += u32::from(first.is_none());
            if first.is_none() && world.all(ADMIN, &list).await.len() > before {
                let still = world.send(request.clone()).await.refused(409);
                assert_eq!(still.body["type"], "/problems/still-running");
                assert!(still.headers.contains_key("retry-after"));
            }
            // The clock goes on; what is made keeps the moment it began at.
            world.pass("1m");
            a_minute_passes_for(&world, who, &key).await;
            let second = world.send(request.clone()).await;
            assert!((200..300).contains(&second.status), "{path}: {}", second.text);
            assert_eq!(world.send(request).await.body, second.body, "{path}");
            assert!(first.is_none_or(|first| first.body == second.body), "{path}");
            assert_eq!(world.all(ADMIN, &list).await.len(), before + 1, "{path} {seed}");
        }
    }
    assert!(died > 20, "{died}");
    world.settle().await;
    world.audit_holds().await;
}

#[tokio::test]
async fn refusals_that_another_try_could_better_are_not_kept() {
    let world = Plan::new().start().await;
    let nobody = Who::new("nobody", "nell");
    let request = Request::post("/programs", &json!({"name": "Later"})).header("idempotency-key", "k");
    world.send(world.by(nobody, request.clone()).await).await.refused(403);
    // The same person, meanwhile in another role.
    let now = Who::new("program-manager", "nell");
    world.send(world.by(now, request).await).await.ok();
    world.audit_holds().await;
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_caller() {
    let world = Plan::new().start().await;
    let create = async |who, name: &str, key: &str| {
        let request = world.by(who, Request::post("/programs", &json!({"name": name}))).await;
        world.send(request.header("idempotency-key", key)).await.status
    };
    assert_eq!(create(MANAGER, "One", "k").await, 201);
    assert_eq!(create(MANAGER, "Other", "k").await, 422);
    assert_eq!(create(ADMIN, "Other", "k").await, 201, "somebody else's key");
    assert_eq!(create(MANAGER, "Third", &"k".repeat(256)).await, 400);
    let request = world.by(MANAGER, Request::post("/sources", &json!({"programId": world.program}))).await;
    assert_eq!(world.send(request.header("idempotency-key", "k")).await.status, 422, "another route");
    world.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_with_one_key_at_once_are_one() {
    let world = Plan::new().start().await;
    let request = world.by(MANAGER, Request::post("/programs", &json!({"name": "Once"}))).await;
    let replies = world.together(vec![request.header("idempotency-key", "k"); 10]).await;
    let made: Vec<_> = replies.iter().filter(|reply| reply.status == 201).map(|reply| &reply.body["id"]).collect();
    assert!(!made.is_empty() && made.iter().all(|id| *id == made[0]), "{replies:?}");
    assert!(replies.iter().all(|reply| matches!(reply.status, 201 | 409)), "{replies:?}");
    assert_eq!(world.all(ADMIN, "/programs").await.len(), 2);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_the_stream_delivered_is_not_published_again() {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    world.settle().await;
    let before = world.events("commission.accrued");
    assert_eq!(before.len(), 1);
    world.settle().await;
    assert_eq!(world.events("commission.accrued"), before);
    world.audit_holds().await;
}
