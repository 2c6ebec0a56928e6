//! A process that stops keeps nothing in its head: everything is found again in the directory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use local::Storage;
use serde_json::json;
use tests::sign::Connection;
use tests::{ADMIN, Plan, World, temporary_directory};

const ORDER: &str = include_str!("../../shared/storefronts/tests/fixtures/shopify/order.json");
const START: &str = "2026-06-01T00:00:00Z";

fn plan(directory: &Path, now: &str) -> Plan {
    Plan::new().at(now).stored(Storage::Directory(directory.to_owned()))
}

/// Stops the process and starts another over the same directory.
async fn restarted(world: World, directory: &Path, now: &str) -> World {
    let (program, partner) = (world.program.clone(), world.partner.clone());
    drop(world);
    plan(directory, now).start_again(&program, &partner).await
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let directory = temporary_directory("everything");
    let world = plan(&directory, START).start().await;
    let source = world.connect("shopify", Some("shpss_0123456789abcdef")).await;
    world.deliver(&source, "orders/paid", ORDER).await;
    world.sale("o1", "100.00").await;
    world.sale("o2", "100.00").await;
    world.refund("r1", "o1", "40.00").await;
    world.reviewed("hold", &[&world.line_id("o2").await]).await;
    let paid = world.pay_everything().await;
    world.refund("r2", "o1", "10.00").await;
    world.refund("early", "o9", "10.00").await;
    let seen = async |world: &World| {
        let sets = world.get(ADMIN, &format!("/programs/{}/rule-sets", world.program)).await.ok();
        json!([world.balance().await, world.lines().await, world.payouts().await, sets, world.exceptions().await])
    };
    let (before, token) = (seen(&world).await, world.token(ADMIN).await);
    world.settle().await;
    let world = restarted(world, &directory, START).await;
    assert_eq!(seen(&world).await, before);
    world.audit_holds().await;
    // What was done stays done, and goes on where it was.
    assert_eq!(world.sale("o1", "100.00").await, "already_applied");
    assert_eq!(world.refund("r1", "o1", "40.00").await, "already_applied");
    world.deliver(&source, "orders/paid", ORDER).await;
    assert_eq!(seen(&world).await, before);
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &paid, &json!({})).await, 409);
    world.sale("o9", "100.00").await;
    assert_eq!(world.states_of("o9").await, [("payable".to_owned(), 900)]);
    assert_eq!(world.send(tests::Request::get("/programs").token(&token)).await.status, 401, "sessions end");
    world.audit_holds().await;
    drop(world);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_cursor_and_an_idempotency_key_outlive_a_restart() {
    let directory = temporary_directory("keys");
    let world = plan(&directory, START).start().await;
    world.sale("o1", "100.00").await;
    world.sale("o2", "100.00").await;
    let page = format!("/commissions?partnerId={}&limit=1", world.partner);
    let cursor = world.get(ADMIN, &page).await.ok()["nextCursor"].as_str().unwrap().to_owned();
    let pay = async |world: &World| {
        let request =
            tests::Request::post("/payouts", &world.payout_request(&json!({}))).header("idempotency-key", "k");
        world.send(world.by(ADMIN, request).await).await
    };
    let first = pay(&world).await;
    let world = restarted(world, &directory, START).await;
    assert_eq!(world.get(ADMIN, &format!("{page}&cursor={cursor}")).await.ok()["data"].as_array().unwrap().len(), 1);
    assert_eq!(pay(&world).await.body, first.body);
    world.only_payout().await;
    world.audit_holds().await;
    drop(world);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn the_stream_goes_on_after_the_last_event_delivered() {
    let directory = temporary_directory("stream");
    let world = plan(&directory, START).start().await;
    world.sale("o1", "100.00").await;
    world.settle().await;
    assert_eq!(world.events("commission.accrued").len(), 1);
    // The process ends before these are published.
    world.sale("o2", "100.00").await;
    world.sale("o3", "100.00").await;
    let expect = [world.line_id("o2").await, world.line_id("o3").await];
    let world = restarted(world, &directory, START).await;
    world.settle().await;
    let accrued = world.events("commission.accrued");
    let published: Vec<_> = accrued.iter().map(|event| event["detail"]["commission"]["id"].as_str().unwrap()).collect();
    assert_eq!(published, expect);
    world.audit_holds().await;
    drop(world);
    std::fs::remove_dir_all(directory).unwrap();
}

async fn with_a_delivery_in_the_queue(directory: &Path) -> (World, Connection) {
    let world = plan(directory, START).start().await;
    let source = world.connect("shopify", Some("shpss_0123456789abcdef")).await;
    assert_eq!(world.send(source.delivery("orders/paid", ORDER)).await.status, 200);
    (world, source)
}

#[tokio::test]
async fn a_delivery_left_in_the_queue_is_worked_off_after_a_restart() {
    let directory = temporary_directory("queue");
    let (world, _) = with_a_delivery_in_the_queue(&directory).await;
    assert_eq!(world.buckets().await, vec![]);
    let world = restarted(world, &directory, START).await;
    world.settle().await;
    assert_eq!(world.buckets().await, [("payable", 800)]);
    world.audit_holds().await;
    drop(world);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_delivery_taken_by_a_process_that_died_comes_again() {
    let directory = temporary_directory("in-flight");
    let (world, _) = with_a_delivery_in_the_queue(&directory).await;
    let queues = &world.system.context.queues;
    let taken = queues.sqs.receive_message().queue_url(&queues.conversions_url).send().await.unwrap();
    assert_eq!(taken.messages().len(), 1);
    let world = restarted(world, &directory, START).await;
    world.settle().await;
    assert_eq!(world.buckets().await, vec![], "somebody may still be at it");
    world.pass("181s");
    world.settle().await;
    assert_eq!(world.buckets().await, [("payable", 800)]);
    world.audit_holds().await;
    drop(world);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_run_planned_before_a_restart_is_drafted_after_it() {
    let directory = temporary_directory("run");
    let world = plan(&directory, START).start().await;
    for number in 0..60 {
        world.sale(&format!("o{number}"), "100.00").await;
    }
    world.clock_at("2026-07-01T00:20:00Z");
    world.fire("batch-payouts").await;
    let world = restarted(world, &directory, "2026-07-01T01:20:00Z").await;
    world.tick().await;
    let payout = world.only_payout().await;
    assert_eq!((&payout["state"], &payout["amount"]["minor"]), (&json!("pending"), &json!(60_000)));
    world.audit_holds().await;
    drop(world);
    std::fs::remove_dir_all(directory).unwrap();
}
