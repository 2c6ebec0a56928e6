//! Payouts sent by PayPal's API, over real HTTP to its counterpart: once each, whatever the network does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use http::Method;
use paypal_counterpart::{CLIENT_ID, CLIENT_SECRET, Faults, Item, WEBHOOK_ID};
use serde_json::{Value, json};
use tests::rail::{Storm, storms};
use tests::{ADMIN, ANALYST, APPROVER, FINANCE, Plan, Request, World};
use tokio::net::TcpListener;

/// A program that asks PayPal to pay, and a partner with two sales of 100.00.
async fn connected() -> World {
    let world = unconnected().await;
    connect(&world, json!({})).await;
    world
}

async fn unconnected() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let method = json!([{"kind": "paypal", "details": {"email": "anna@partners.example"}, "preferred": true}]);
    let world = Plan::new().paypal_at(&endpoint).partner("payoutMethods", method).start().await;
    let counterpart = world.system.paypal.clone();
    tokio::spawn(async move { counterpart.serve(listener).await });
    for order in ["o1", "o2"] {
        world.sale(order, "100.00").await;
    }
    world
}

async fn connect(world: &World, fields: Value) {
    let mut connection = json!({
        "environment": "sandbox", "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "webhookId": WEBHOOK_ID,
    });
    connection.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    put(world, &connection).await.ok();
}

async fn put(world: &World, connection: &Value) -> tests::Reply {
    let path = format!("/programs/{}/paypal", world.program);
    let request =
        Request::new(Method::PUT, &path).header("content-type", "application/json").body(connection.to_string());
    world.send(world.by(FINANCE, request).await).await
}

/// PayPal changes a payment and tells by its webhook. What the webhook answered.
async fn becomes(world: &World, id: &Value, status: &str) -> u16 {
    let (headers, body) = world.system.paypal.set(id.as_str().unwrap(), status, None).unwrap();
    let answer = deliver(world, &world.program, headers, body).await;
    world.settle().await;
    answer
}

async fn deliver(world: &World, program: &str, headers: http::HeaderMap, body: String) -> u16 {
    let request = Request { headers, ..Request::new(Method::POST, &format!("/webhooks/paypal/{program}")) };
    world.send(request.body(body)).await.status
}

fn items(world: &World) -> Vec<Item> {
    world.system.paypal.items()
}

#[tokio::test]
async fn an_approved_payout_is_sent_and_paid_when_paypal_says_so() {
    let world = connected().await;
    let id = world.send_payout().await;
    let sent = items(&world);
    assert_eq!(sent.len(), 1);
    let item = &sent[0];
    assert_eq!((item.receiver.as_str(), item.recipient_type.as_str()), ("anna@partners.example", "EMAIL"));
    assert_eq!(
        (item.value.as_str(), item.currency.as_str(), item.recipient_wallet.as_str()),
        ("20.00", "USD", "PAYPAL")
    );
    assert_eq!(item.sender_batch_id, format!("{}-1", id.as_str().unwrap()), "a name of its own");
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["reference"]), (&json!("submitted"), &json!(item.payout_batch_id)));
    assert_eq!(becomes(&world, &id, "UNCLAIMED").await, 200);
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    assert_eq!(becomes(&world, &id, "SUCCESS").await, 200);
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("paid"), &json!(2_000)));
    assert_eq!(payout["reference"], json!(items(&world)[0].transaction_id));
    assert_eq!(world.buckets().await, [("paid", 2_000)]);
    assert_eq!(becomes(&world, &id, "SUCCESS").await, 200, "told again");
    assert_eq!(world.buckets().await, [("paid", 2_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn without_a_connection_payouts_wait_for_their_file() {
    let world = unconnected().await;
    let id = world.send_payout().await;
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), items(&world).len()), ("approved", 0));
    // Connected and switched off again is the same.
    connect(&world, json!({"enabled": false})).await;
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), items(&world).len()), ("approved", 0));
    let export = world.post(FINANCE, "/exports", &json!({"format": "paypal", "programId": world.program})).await.ok();
    assert_eq!(export["payouts"], 1);
    // What is in a file is never sent besides.
    connect(&world, json!({"enabled": true})).await;
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), items(&world).len()), ("submitted", 0));
    world.audit_holds().await;
}

#[tokio::test]
async fn what_was_approved_before_the_connection_is_sent_by_the_next_tick_and_what_webhooks_missed_is_read() {
    let world = unconnected().await;
    let id = world.send_payout().await;
    connect(&world, json!({})).await;
    world.fire("batch-payouts").await;
    world.settle().await;
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    world.system.paypal.set(id.as_str().unwrap(), "SUCCESS", None).unwrap();
    world.wait().await;
    assert_eq!(world.state_of_payout(&id).await, "paid");
    assert_eq!(items(&world).len(), 1);
    world.audit_holds().await;
}

/// What a payment becomes, and what then becomes of the payout.
#[tokio::test]
async fn every_item_state_has_its_meaning() {
    for (status, expect, exceptions) in [
        ("PENDING", "submitted", 0),
        ("UNCLAIMED", "submitted", 0),
        ("ONHOLD", "submitted", 0),
        ("SUCCESS", "paid", 0),
        ("FAILED", "failed", 1),
        ("BLOCKED", "failed", 1),
        ("DENIED", "failed", 1),
        ("CANCELED", "failed", 1),
        ("RETURNED", "returned", 1),
        ("REFUNDED", "returned", 1),
        ("REVERSED", "returned", 1),
    ] {
        let world = connected().await;
        let id = world.send_payout().await;
        assert_eq!(becomes(&world, &id, status).await, 200);
        assert_eq!(world.state_of_payout(&id).await, expect, "{status}");
        let told = world.exceptions().await;
        assert_eq!(told.len(), exceptions, "{status}: {told:?}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn money_that_comes_back_after_it_was_paid_is_taken_out_of_paid_again() {
    for status in ["REFUNDED", "REVERSED"] {
        let world = connected().await;
        let id = world.send_payout().await;
        becomes(&world, &id, "SUCCESS").await;
        assert_eq!(world.buckets().await, [("paid", 2_000)]);
        becomes(&world, &id, status).await;
        assert_eq!(world.state_of_payout(&id).await, "returned");
        assert_eq!(world.buckets().await, [("inPayout", 2_000)]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_refusal_for_good_fails_and_a_retry_is_a_payment_of_its_own() {
    let world = connected().await;
    world.system.paypal.refuse(Some(("INSUFFICIENT_FUNDS", "Sender does not have sufficient funds.", 422)));
    let id = world.send_payout().await;
    assert_eq!(world.state_of_payout(&id).await, "failed");
    let told = world.exceptions().await;
    assert!(told[0]["detail"].as_str().unwrap().contains("INSUFFICIENT_FUNDS"), "{told:?}");
    world.system.paypal.refuse(None);
    assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "topped up"})).await, 200);
    world.settle().await;
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    assert_eq!(items(&world)[0].sender_batch_id, format!("{}-2", id.as_str().unwrap()));
    assert_eq!(world.exceptions().await, [] as [Value; 0], "dealt with");
    becomes(&world, &id, "FAILED").await;
    assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "once more"})).await, 200);
    world.settle().await;
    becomes(&world, &id, "SUCCESS").await;
    let names: Vec<_> = items(&world).iter().map(|item| item.sender_batch_id.clone()).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(items(&world).iter().filter(|item| item.transaction_status == "SUCCESS").count(), 1);
    assert_eq!(world.state_of_payout(&id).await, "paid");
    world.audit_holds().await;
}

#[tokio::test]
async fn what_is_on_its_way_when_paypal_is_switched_off_waits_and_is_nobody_elses_to_pay() {
    let world = connected().await;
    world.system.paypal.set_faults(Faults { lost_after_apply: 1.0, ..Faults::default() });
    let id = world.send_payout().await;
    let connection =
        json!({"environment": "sandbox", "clientId": CLIENT_ID, "webhookId": WEBHOOK_ID, "enabled": false});
    put(&world, &connection).await.ok();
    world.system.paypal.set_faults(Faults::default());
    world.wait().await;
    assert_eq!(world.state_of_payout(&id).await, "submitting", "PayPal may have paid it");
    put(&world, &json!({"environment": "sandbox", "clientId": CLIENT_ID, "webhookId": WEBHOOK_ID})).await.ok();
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), items(&world).len()), ("submitted", 1));
    world.audit_holds().await;
}

#[tokio::test]
async fn what_paypal_pays_whole_is_paid_though_a_part_was_paid_by_hand_meanwhile() {
    let world = connected().await;
    let id = world.send_payout().await;
    let part = json!({"payouts": [{"id": id, "reference": "wire 1", "amount": "5.00"}]});
    assert_eq!(world.post(FINANCE, "/payouts/mark-paid", &part).await.ok()["results"][0]["ok"], true);
    becomes(&world, &id, "SUCCESS").await;
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("paid"), &json!(2_000)));
    world.audit_holds().await;
}

#[tokio::test]
async fn of_what_is_paid_in_part_by_hand_paypal_is_asked_for_the_rest() {
    let world = connected().await;
    let id = world.send_payout().await;
    let part = json!({"payouts": [{"id": id, "reference": "wire 1", "amount": "5.00"}]});
    assert_eq!(world.post(FINANCE, "/payouts/mark-paid", &part).await.ok()["results"][0]["ok"], true);
    becomes(&world, &id, "FAILED").await;
    assert_eq!(world.state_of_payout(&id).await, "failed");
    assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "the rest"})).await, 200);
    world.settle().await;
    let values: Vec<_> = items(&world).iter().map(|item| item.value.clone()).collect();
    assert_eq!(values, ["20.00", "15.00"]);
    becomes(&world, &id, "SUCCESS").await;
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("paid"), &json!(2_000)));
    world.audit_holds().await;
}

#[tokio::test]
async fn what_somebody_calls_failed_is_not_sent_twice_while_paypal_has_it() {
    let world = connected().await;
    let id = world.send_payout().await;
    assert_eq!(world.payout_call(FINANCE, "mark-failed", &id, &json!({"reason": "no answer"})).await, 200);
    assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "again"})).await, 200);
    world.settle().await;
    assert_eq!(items(&world).len(), 1, "it is still on its way at PayPal");
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    let codes = world.exception_codes().await;
    assert!(codes.contains(&"payout_contradicted".to_owned()), "{codes:?}");
    becomes(&world, &id, "SUCCESS").await;
    assert_eq!(world.state_of_payout(&id).await, "paid");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payment_that_is_made_although_it_was_given_up_is_told() {
    let world = connected().await;
    let id = world.send_payout().await;
    assert_eq!(world.payout_call(FINANCE, "mark-failed", &id, &json!({"reason": "no answer"})).await, 200);
    becomes(&world, &id, "SUCCESS").await;
    assert_eq!(world.state_of_payout(&id).await, "failed", "what a person decided is not undone behind their back");
    let told = world.exceptions().await;
    assert!(told.iter().any(|one| one["code"] == "payout_contradicted"), "{told:?}");
    world.audit_holds().await;
}

/// Storms on the way to PayPal: in the end exactly one payment, and it is paid.
#[tokio::test]
async fn whatever_the_network_does_exactly_one_payment_is_made() {
    for seed in 0..3 {
        for (name, storm) in storms(seed) {
            let world = connected().await;
            world.system.paypal.settle_at_once("SUCCESS");
            let id = world.send_payout_through(storm, |storm| world.system.paypal.set_faults(faults(storm))).await;
            assert_eq!(world.state_of_payout(&id).await, "paid", "{name}, seed {seed}");
            assert_eq!(items(&world).len(), 1, "{name}, seed {seed}");
            assert_eq!(world.exceptions().await.len(), 0, "{name}, seed {seed}");
            world.audit_holds().await;
        }
    }
}

fn faults(storm: Storm) -> Faults {
    Faults {
        seed: storm.seed,
        lost_before_apply: storm.lost_before,
        lost_after_apply: storm.lost_after,
        server_error: storm.server_error,
        server_error_after_apply: storm.server_error_after,
        throttle: storm.throttle,
        expire_token: storm.expire_token,
    }
}

/// Each kind of loss at each call, one at a time.
#[tokio::test]
async fn a_call_that_is_lost_leaves_the_payout_on_its_way_and_is_repeated_under_the_same_name() {
    for (name, faults) in [
        ("before", Faults { lost_before_apply: 1.0, ..Faults::default() }),
        ("after", Faults { lost_after_apply: 1.0, ..Faults::default() }),
        ("500", Faults { server_error: 1.0, ..Faults::default() }),
        ("503, done", Faults { server_error_after_apply: 1.0, ..Faults::default() }),
        ("429", Faults { throttle: 1.0, ..Faults::default() }),
    ] {
        for sign_in_works in [false, true] {
            let world = connected().await;
            if sign_in_works {
                // A payout before it has the token fetched.
                let earlier = world
                    .add_partner(&json!({"code": "FIRST", "payoutMethods": [
                        {"kind": "paypal", "details": {"email": "first@partners.example"}, "preferred": true},
                    ]}))
                    .await;
                let mut sale = world.sale_event("first", "100.00");
                sale["partner"] = json!({"id": earlier});
                world.report(&sale).await.ok();
                let request = json!({"partnerId": earlier, "programId": world.program});
                let first = world.post(ADMIN, "/payouts", &request).await.ok()["id"].clone();
                assert_eq!(world.approve_payout(APPROVER, &first).await, 200);
                world.settle().await;
            }
            world.system.paypal.set_faults(faults.clone());
            let id = world.send_payout().await;
            assert_eq!(world.state_of_payout(&id).await, "submitting", "{name}: nobody knows");
            let cancelled = world.payout_call(APPROVER, "cancel", &id, &json!({"reason": "no"})).await;
            assert_eq!(cancelled, 409, "{name}: it may have been sent");
            world.system.paypal.set_faults(Faults::default());
            world.wait().await;
            assert_eq!(world.state_of_payout(&id).await, "submitted", "{name}");
            let names: BTreeSet<_> = items(&world).into_iter().map(|item| item.sender_batch_id).collect();
            assert_eq!(names.len(), 1 + usize::from(sign_in_works), "{name}");
            assert_eq!(items(&world).len(), names.len(), "{name}");
            world.audit_holds().await;
        }
    }
}

#[tokio::test]
async fn wrong_credentials_pay_nobody_and_are_mended() {
    let world = unconnected().await;
    connect(&world, json!({"clientSecret": "wrong"})).await;
    let id = world.send_payout().await;
    assert_eq!(world.state_of_payout(&id).await, "submitting");
    put(&world, &json!({"environment": "sandbox", "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "webhookId": WEBHOOK_ID}))
        .await
        .ok();
    assert_eq!(items(&world).len(), 0);
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), items(&world).len()), ("submitted", 1));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_webhook_is_believed_only_where_paypal_vouches_for_it() {
    let world = connected().await;
    let id = world.send_payout().await;
    let (headers, body) = world.system.paypal.set(id.as_str().unwrap(), "SUCCESS", None).unwrap();
    let mut forged = headers.clone();
    forged.insert("paypal-transmission-sig", "AAAA".parse().unwrap());
    let mut without = headers.clone();
    without.remove("paypal-transmission-id");
    for (headers, body, program) in [
        (forged, body.clone(), world.program.clone()),
        (without, body.clone(), world.program.clone()),
        (headers.clone(), body.replace("SUCCESS", "FAILED"), world.program.clone()),
        (headers.clone(), "nonsense".to_owned(), world.program.clone()),
        (headers.clone(), body.clone(), "prg_00000000000000000000000000".to_owned()),
        (headers.clone(), body.clone(), "nonsense".to_owned()),
    ] {
        assert_eq!(deliver(&world, &program, headers, body).await, 401);
    }
    world.settle().await;
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    assert_eq!(deliver(&world, &world.program, headers.clone(), "x".repeat(70_000)).await, 413);
    world.system.paypal.set_faults(Faults { server_error: 1.0, ..Faults::default() });
    assert_eq!(deliver(&world, &world.program, headers.clone(), body.clone()).await, 503, "PayPal sends it again");
    world.system.paypal.set_faults(Faults::default());
    assert_eq!(deliver(&world, &world.program, headers, body).await, 200);
    world.settle().await;
    assert_eq!(world.state_of_payout(&id).await, "paid");
}

#[tokio::test]
async fn the_connection_is_shown_without_its_secret_and_changed_by_finance_alone() {
    let world = unconnected().await;
    let path = format!("/programs/{}/paypal", world.program);
    world.get(ANALYST, &path).await.refused(404);
    let connection = json!({"environment": "live", "clientId": "c", "webhookId": "w"});
    put(&world, &connection).await.refused(422);
    let request =
        Request::new(Method::PUT, &path).header("content-type", "application/json").body(connection.to_string());
    world.send(world.by(ANALYST, request).await).await.refused(403);
    connect(&world, json!({})).await;
    let shown = world.get(ANALYST, &path).await;
    assert!(!shown.text.contains(CLIENT_SECRET), "{}", shown.text);
    assert_eq!((&shown.body["enabled"], &shown.body["clientId"]), (&json!(true), &json!(CLIENT_ID)));
    // The secret stays where only the rest is changed.
    put(&world, &json!({"environment": "sandbox", "clientId": CLIENT_ID, "webhookId": WEBHOOK_ID})).await.ok();
    let id = world.send_payout().await;
    assert_eq!(world.state_of_payout(&id).await, "submitted");
}

#[tokio::test]
async fn a_currency_paypal_does_not_pay_fails_with_the_reason_and_nothing_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let method = json!([{"kind": "paypal", "details": {"email": "anna@partners.example"}, "preferred": true}]);
    let plan = Plan::new().paypal_at(&endpoint).program("currency", "KWD").program("largePayoutLimit", "100000");
    let world = plan.partner("payoutMethods", method).start().await;
    let counterpart = world.system.paypal.clone();
    tokio::spawn(async move { counterpart.serve(listener).await });
    connect(&world, json!({})).await;
    let sale = json!({"id": "o1", "type": "sale", "amount": {"total": "100.000", "currency": "KWD"}});
    world.report(&world.event(sale)).await.ok();
    let id = world.send_payout().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), items(&world).len()), ("failed", 0));
    assert!(world.exceptions().await[0]["detail"].as_str().unwrap().contains("currency"));
    world.audit_holds().await;
}
