//! Many payouts at once, against QuickBooks' limits, second by second: as fast as these allow, and never beyond.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::SignedDuration;
use local::QuickbooksOptions;
use quickbooks_counterpart::{Blow, Exchange, Strike};
use serde_json::{Value, json};
use tests::books::{REALM, in_quickbooks};
use tests::{ADMIN, APPROVER, Plan, World, result_codes};

/// Calls a minute that payouts may take together: Intuit's 500, less what is kept for people.
const PER_MINUTE: usize = 480;
/// A payout to a vendor that is known: a look, and the Bill.
const CALLS: usize = 2;
/// The same to somebody new: two looks for the vendor, and making it, besides.
const FIRST_CALLS: usize = 5;

/// A company whose limits hold, and so many partners who are paid there.
async fn limited(partners: usize) -> (World, Vec<String>) {
    let options = QuickbooksOptions { limits: true, ..QuickbooksOptions::default() };
    let world = Plan::new().quickbooks(options).paid_in_quickbooks().start().await;
    let mut ids = Vec::with_capacity(partners);
    for n in 0..partners {
        let partner = json!({"name": format!("Partner {n}"), "code": format!("P{n}"), "email": format!("p{n}@partners.example"), "payoutMethods": in_quickbooks()});
        ids.push(world.add_partner(&partner).await);
    }
    (world, ids)
}

/// Payouts of each partner, approved; nothing of them is sent yet.
async fn approved(world: &World, partners: &[String], each: usize) -> usize {
    let mut payouts = Vec::with_capacity(partners.len() * each);
    for partner in partners {
        for n in 0..each {
            let mut sale = world.sale_event(&format!("{partner}-{n}-{}", payouts.len()), "100.00");
            sale["id"] = json!(format!("{}-{}", sale["id"].as_str().unwrap(), world.entities(REALM, "Bill").len()));
            sale["partner"] = json!({"id": partner});
            world.report(&sale).await.ok();
            let request = json!({"partnerId": partner, "programId": world.program});
            payouts.push(world.post(ADMIN, "/payouts", &request).await.ok()["id"].clone());
        }
    }
    for payouts in payouts.chunks(100) {
        let reply = world.post(APPROVER, "/payouts/approve", &json!({"payoutIds": payouts})).await;
        assert!(result_codes(&reply).iter().all(|code| *code == 200), "{}", reply.text);
    }
    payouts.len()
}

/// Second by second until so many Bills are there. How many seconds that took.
async fn sent(world: &World, bills: usize) -> usize {
    let mut seconds = 0;
    loop {
        world.settle().await;
        let are = world.company(REALM, |company, _| company.all("Bill").count());
        assert!(are <= bills, "{are} Bills");
        if are == bills {
            return seconds;
        }
        assert!(seconds < 7_200, "{are} of {bills} Bills after two hours");
        world.pass("1s");
        seconds += 1;
    }
}

/// The most requests within any such time.
fn busiest(seen: &[Exchange], time: SignedDuration) -> usize {
    let mut from = 0;
    let within = seen.iter().enumerate().map(|(to, last)| {
        while last.at.duration_since(seen[from].at) >= time {
            from += 1;
        }
        to - from + 1
    });
    within.max().unwrap_or_default()
}

fn throttled(seen: &[Exchange]) -> usize {
    seen.iter().filter(|one| one.status == Some(429)).count()
}

/// A first payout of each partner, and then so many more.
async fn are_paced(partners: usize, each: usize) {
    let (world, partners) = limited(partners).await;
    let mut bills = 0;
    for (each, calls) in [(1, FIRST_CALLS), (each, CALLS)] {
        let payouts = approved(&world, &partners, each).await;
        world.pass("2m");
        world.system.quickbooks.watch(Vec::new());
        bills += payouts;
        let seconds = sent(&world, bills).await;
        let seen = world.system.quickbooks.seen();
        assert_eq!(throttled(&seen), 0);
        assert_eq!(seen.len(), payouts * calls, "requests of {payouts} payouts");
        assert!(busiest(&seen, SignedDuration::from_secs(1)) <= 10);
        assert!(busiest(&seen, SignedDuration::from_secs(60)) <= 500);
        // As long as the limit has it take, and a few seconds.
        let least = seen.len() * 60 / PER_MINUTE;
        assert!((least.saturating_sub(2)..=least + 5).contains(&seconds), "{seconds} s for {} requests", seen.len());
    }
    world.settle().await;
    let submitted = world.all(ADMIN, "/payouts?state=submitted&limit=100").await;
    assert_eq!((submitted.len(), world.exceptions().await.len()), (bills, 0));
    world.audit_holds().await;
}

#[tokio::test]
async fn payouts_are_sent_as_fast_as_intuit_takes_them_and_never_faster() {
    are_paced(10, 15).await;
}

/// Some minutes: `cargo test --workspace --test end_to_end quickbooks_pace -- --ignored`.
#[tokio::test]
#[ignore = "takes minutes"]
async fn five_thousand_payouts_are_sent_as_fast_as_intuit_takes_them_and_never_faster() {
    are_paced(50, 100).await;
}

#[tokio::test]
async fn once_intuit_asks_to_wait_nobody_calls_for_a_minute() {
    let (world, partners) = limited(8).await;
    let first = approved(&world, &partners, 1).await;
    sent(&world, first).await;
    let payouts = approved(&world, &partners, 10).await;
    world.pass("2m");
    let asked_to_wait = Strike { step: "create Bill".to_owned(), nth: 20, blow: Blow::Throttled };
    world.system.quickbooks.watch(vec![asked_to_wait]);
    let seconds = sent(&world, first + payouts).await;
    let seen = world.system.quickbooks.seen();
    assert_eq!(throttled(&seen), 1);
    let at = seen.iter().position(|one| one.status == Some(429)).unwrap();
    let quiet = seen[at + 1].at.duration_since(seen[at].at);
    assert!(quiet >= SignedDuration::from_secs(60), "{quiet}");
    assert!(busiest(&seen, SignedDuration::from_secs(1)) <= 10);
    // Its own message comes again after the visibility time-out; it is looked for, and made.
    assert_eq!(seen.len(), payouts * CALLS + CALLS);
    assert!(seconds < 240, "{seconds} s");
    world.settle().await;
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}
