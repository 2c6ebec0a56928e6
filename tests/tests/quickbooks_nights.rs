//! Nights: what QuickBooks has is held against what is known, and no more is asked there than differs; also where much changed, and where time
//! or Intuit's patience ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use quickbooks_counterpart::{Blow, Clock, Strike};
use serde_json::{Value, json};
use tests::books::REALM;
use tests::{ADMIN, FINANCE, Plan, World};
use workflows::quickbooks::reconcile::reconcile;

/// Payouts of one partner, each of one sale of 100.00, which are Bills.
async fn billed(payouts: usize) -> (World, Vec<Value>) {
    let world = Plan::new().paid_in_quickbooks().start().await;
    let mut ids = Vec::new();
    for n in 0..payouts {
        world.sale(&format!("o{n}"), "100.00").await;
        ids.push(world.send_payout().await);
    }
    world.pass("1h");
    (world, ids)
}

/// Somebody pays these, and nobody tells.
fn paid_unheard(world: &World, payouts: &[Value]) {
    for payout in payouts {
        let bill = world.bill_id(payout);
        world.company(REALM, |company, now| company.pay(&bill, None, now)).unwrap();
    }
    world.company(REALM, |company, _| company.happened.clear());
}

async fn states(world: &World, payouts: &[Value]) -> Vec<String> {
    let mut states = Vec::new();
    for payout in payouts {
        states.push(world.state_of_payout(payout).await);
    }
    states
}

async fn seen_until(world: &World) -> Timestamp {
    let connection = world.get(ADMIN, &format!("/quickbooks/connections/{REALM}")).await.ok();
    connection["seenUntil"].as_str().unwrap().parse().unwrap()
}

/// What a night asks there, the same once.
async fn asked(world: &World) -> Vec<String> {
    world.system.quickbooks.watch(Vec::new());
    let night = world.fire("reconcile").await;
    assert_eq!(night["failed"], 0, "{night}");
    let mut steps: Vec<_> = world.system.quickbooks.seen().into_iter().map(|seen| seen.step).collect();
    // Open payouts are read in several parts, a query each.
    steps.dedup();
    steps
}

const TOLD: [&str; 3] = ["query Preferences", "query CompanyInfo", "cdc"];

#[tokio::test]
async fn bills_that_are_as_they_are_known_are_not_asked_for() {
    let (world, ids) = billed(4).await;
    world.pay_bill(&ids[0], None).await;
    world.pay_bill(&ids[1], Some(4)).await;
    // All four were made, and two paid, since the last night; whatever is open is asked for in one query.
    assert_eq!(asked(&world).await, [&TOLD[..], &["query Bill by Id"]].concat());
    paid_unheard(&world, &ids[2..3]);
    assert_eq!(
        asked(&world).await,
        [&TOLD[..], &["read Bill", "query BillPayment by Id", "query Bill by Id"]].concat()
    );
    assert_eq!(states(&world, &ids).await, ["paid", "partially_paid", "paid", "submitted"]);
    assert_eq!(asked(&world).await, [&TOLD[..], &["query Bill by Id"]].concat(), "what was looked at is known");
    // A payment that is voided takes back what is known, also of a payout that is not open.
    let payment = world.bill_of(REALM, &ids[0])["LinkedTxn"][0]["TxnId"].as_str().unwrap().to_owned();
    world.company(REALM, |company, now| {
        company.void_payment(&payment, now);
        company.happened.clear();
    });
    assert_eq!(asked(&world).await, [&TOLD[..], &["read Bill", "query Bill by Id"]].concat());
    assert_eq!(states(&world, &ids).await, ["submitted", "partially_paid", "paid", "submitted"]);
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_night_that_is_asked_to_wait_goes_on_and_the_next_does_not_begin_before_what_was_not_seen() {
    let (world, ids) = billed(3).await;
    world.fire("reconcile").await;
    let paid_at = world.system.context.now();
    paid_unheard(&world, &ids);
    world.pass("1h");
    let throttled = Strike { step: "read Bill".to_owned(), nth: 1, blow: Blow::Throttled };
    world.system.quickbooks.watch(vec![throttled]);
    let night = world.fire("reconcile").await;
    assert_eq!((&night["failed"], &night["differing"]), (&json!(0), &json!(2)), "{night}");
    assert_eq!(states(&world, &ids).await.iter().filter(|state| *state == "paid").count(), 1);
    assert!(seen_until(&world).await <= paid_at);
    // The others wait in the queue for their turn.
    world.settle().await;
    assert_eq!(states(&world, &ids).await, ["paid", "paid", "paid"]);
    world.fire("reconcile").await;
    assert!(seen_until(&world).await > paid_at);
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_there_is_no_time_to_look_at_is_looked_at_in_its_turn() {
    let (world, ids) = billed(3).await;
    world.fire("reconcile").await;
    let (rails, paid_at) = (world.another_process(), world.system.context.now());
    paid_unheard(&world, &ids);
    world.pass("1h");
    // Time for what changed to be read, and for one look.
    let left = Cell::new(2);
    let time_left = || left.replace(left.get() - 1) > 0;
    let report = reconcile(&world.system.context, &rails, REALM, &time_left).await.unwrap();
    assert!(!report.finished);
    assert_eq!(states(&world, &ids).await.iter().filter(|state| *state == "paid").count(), 1);
    assert!(seen_until(&world).await <= paid_at);
    world.settle().await;
    assert_eq!(states(&world, &ids).await, ["paid", "paid", "paid"]);
    let report = reconcile(&world.system.context, &rails, REALM, &|| true).await.unwrap();
    assert!(report.finished && seen_until(&world).await > paid_at);
    world.audit_holds().await;
}

#[tokio::test]
async fn more_than_a_hundred_open_payouts_are_compared_page_by_page_while_there_is_time() {
    const PAYOUTS: u32 = 130;
    let (world, ids) = billed(PAYOUTS as usize).await;
    let rails = world.another_process();
    let bill = world.bill_id(&ids[0]);
    world.there(|company, now| company.edit_bill(&bill, 25.into(), now)).await;
    let mut compared = Vec::new();
    for looks in 0.. {
        let left = Cell::new(looks);
        let time_left = || left.replace(left.get() - 1) > 0;
        let report = reconcile(&world.system.context, &rails, REALM, &time_left).await.unwrap();
        compared.push(report.compared);
        let bills: u32 = report.days.iter().map(|day| day.bills).sum();
        assert_eq!(bills, report.compared);
        if report.finished {
            assert_eq!((report.differing.len(), report.compared), (1, PAYOUTS));
            break;
        }
    }
    assert!(compared.is_sorted() && compared.len() > 2 && compared[0] == 0, "{compared:?}");
    assert_eq!(states(&world, &ids).await.iter().filter(|state| *state == "submitted").count(), ids.len());
    assert_eq!(world.exception_codes().await, ["bill_differs"]);
}

/// Intuit tells a thousand changes at once, and what is gone after what is there.
#[tokio::test]
async fn a_deletion_is_found_among_more_changes_than_are_told_at_once() {
    let (world, ids) = billed(4).await;
    for paid in &ids[..2] {
        world.pay_bill(paid, None).await;
    }
    world.fire("reconcile").await;
    world.pass("1h");
    let bills: Vec<_> = ids.iter().map(|id| world.bill_id(id)).collect();
    let vendor = world.bill_of(REALM, &ids[0])["VendorRef"]["value"].clone();
    world.company(REALM, |company, now| {
        company.delete_bill(&bills[0], now);
        company.delete_bill(&bills[2], now);
    });
    world.pass("2h");
    paid_unheard(&world, &ids[3..]);
    world.company(REALM, |company, now| {
        let line = json!({"Amount": 1, "DetailType": "AccountBasedExpenseLineDetail", "AccountBasedExpenseLineDetail": {"AccountRef": {"value": "7"}}});
        let others = json!({"VendorRef": {"value": vendor}, "Line": [line]});
        for _ in 0..1_001 {
            company.write("bill", &others, None, None, now).unwrap();
        }
        company.happened.clear();
    });
    world.pass("1h");
    let night = world.fire("reconcile").await;
    assert_eq!(night["failed"], 0, "{night}");
    assert_eq!(states(&world, &ids).await, ["void", "paid", "void", "paid"]);
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn the_sums_of_a_night_count_what_is_open_and_what_was_paid_since() {
    let (world, ids) = billed(3).await;
    world.pay_bill(&ids[0], None).await;
    paid_unheard(&world, &ids[1..2]);
    world.pass("1h");
    let path = format!("/quickbooks/connections/{REALM}/reconciliations");
    let night = async || {
        let report = world.post(FINANCE, &path, &json!({})).await.ok();
        let days = report["days"].as_array().unwrap();
        let sum = |side: &str| days.iter().map(|day| day[side]["minor"].as_i64().unwrap()).sum::<i64>();
        let bills: i64 = days.iter().map(|day| day["bills"].as_i64().unwrap()).sum();
        (
            report["compared"].as_i64().unwrap(),
            bills,
            sum("ours"),
            sum("theirs"),
            report["slowestSubmissionSeconds"].clone(),
        )
    };
    assert_eq!(night().await, (1, 3, 3_000, 3_000, json!(0)));
    world.pass("1h");
    assert_eq!(night().await, (1, 1, 1_000, 1_000, json!(0)), "each is counted in the night after it was paid");
    world.pay_bill(&ids[2], None).await;
    world.pass("1h");
    assert_eq!(night().await, (0, 1, 1_000, 1_000, json!(0)));
    world.pass("1h");
    assert_eq!(night().await, (0, 0, 0, 0, Value::Null));
}

#[tokio::test]
async fn renewing_moves_the_end_of_a_connection_and_somebody_is_told_before_consent_ends() {
    let world = Plan::new().paid_in_quickbooks().start().await;
    let now = Arc::new(Mutex::new(Timestamp::now()));
    let clock: Clock = {
        let now = Arc::clone(&now);
        Arc::new(move || *now.lock().unwrap())
    };
    let rails = world.process_at(clock);
    let path = format!("/quickbooks/connections/{REALM}");
    let until =
        async |field: &str| world.get(ADMIN, &path).await.ok()[field].as_str().unwrap().parse::<Timestamp>().unwrap();
    let consent = until("consentUntil").await;
    let day = SignedDuration::from_hours(24);
    let mut told_at = None;
    while told_at.is_none() {
        *now.lock().unwrap() += day * 7;
        let at = *now.lock().unwrap();
        assert!(at < consent, "nobody was told");
        reconcile(&world.system.context, &rails, REALM, &|| true).await.unwrap();
        assert!(until("expiresUnusedAt").await >= at + day * 99, "each renewal moves it on");
        assert!((until("consentUntil").await.duration_since(consent)).abs() < SignedDuration::from_secs(5));
        told_at = world.exceptions().await.first().map(|told| (at, told.clone()));
    }
    let (at, told) = told_at.unwrap();
    assert!((day * 7..=day * 14).contains(&consent.duration_since(at)), "{at}, and {consent}");
    let detail = told["detail"].as_str().unwrap();
    assert_eq!(told["code"], "quickbooks_ending", "{detail}");
    assert!(detail.contains("connect it again before then (GET /quickbooks/connect)"), "{detail}");
    reconcile(&world.system.context, &rails, REALM, &|| true).await.unwrap();
    assert_eq!(world.exceptions().await.len(), 1, "told once");
    world.connect_company(REALM).await;
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
}
