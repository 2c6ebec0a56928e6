//! Exceptions: found by what they are about, and replayed once what was in the way is gone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use tests::sign::Connection;
use tests::{ADMIN, ANALYST, APPROVER, FINANCE, MANAGER, Plan, REVIEWER, Request, World};

const SHOPIFY_ORDER: &str = include_str!("../../shared/storefronts/tests/fixtures/shopify/order.json");
const OWN_SALE: &str = include_str!("../../shared/storefronts/tests/fixtures/standard/sale.json");

/// A moment before those sales, which are told too early then.
const BEFORE: &str = "2026-01-01T00:00:00Z";

async fn connected(world: &World, kind: &'static str) -> Connection {
    world.connect(kind, (kind == "shopify").then_some("shpss_0123456789abcdef")).await
}

async fn only(world: &World) -> Value {
    let mut open = world.exceptions().await;
    assert_eq!(open.len(), 1, "{open:?}");
    open.remove(0)
}

fn replay_path(exception: &Value) -> String {
    format!("/exceptions/{}/replay", exception["id"].as_str().unwrap())
}

/// A world with one exception: a sale that lies in the future.
async fn too_early(kind: &'static str) -> (World, Value) {
    let world = Plan::new().at(BEFORE).start().await;
    let source = connected(&world, kind).await;
    let (topic, body) = if kind == "shopify" { ("orders/paid", SHOPIFY_ORDER) } else { ("", OWN_SALE) };
    world.deliver(&source, topic, body).await;
    let exception = only(&world).await;
    assert_eq!((&exception["code"], &exception["receivedAt"]), (&json!("impossible"), &json!(BEFORE)));
    (world, exception)
}

#[tokio::test]
async fn what_can_be_booked_by_now_is_booked_and_resolved_by_whoever_replays_it() {
    for (kind, order, earned) in [("shopify", "9007199254740993", 800), ("standard", "ord_1001", 1_000)] {
        for who in [ADMIN, MANAGER, REVIEWER, FINANCE] {
            let (world, exception) = too_early(kind).await;
            world.clock_at("2026-12-01T00:00:00Z");
            let resolved = world.post(who, &replay_path(&exception), &json!({})).await.ok();
            assert_eq!(
                [&resolved["status"], &resolved["resolution"], &resolved["resolvedBy"]],
                ["resolved", "replayed: applied", who.subject],
                "{kind}"
            );
            assert_eq!(world.states_of(order).await, [("payable".to_owned(), earned)], "{kind}");
            assert_eq!(world.exceptions().await, [] as [Value; 0]);
            world.post(who, &replay_path(&exception), &json!({})).await.refused(409);
            assert_eq!(world.buckets().await, [("payable", earned)]);
            world.audit_holds().await;
        }
    }
}

#[tokio::test]
async fn what_is_refused_again_stays_open_and_is_not_filed_twice() {
    let (world, exception) = too_early("shopify").await;
    for _ in 0..2 {
        let reply = world.post(ADMIN, &replay_path(&exception), &json!({})).await.refused(409);
        assert!(reply.text.contains("lies in the future"), "{}", reply.text);
        assert_eq!(only(&world).await, exception);
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn what_was_booked_meanwhile_is_resolved_without_effect() {
    let (world, exception) = too_early("standard").await;
    world.clock_at("2026-12-01T00:00:00Z");
    let source = exception["sourceId"].as_str().unwrap().to_owned();
    // The sale comes again by itself; then somebody replays the exception.
    let delivery = workflows::queues::Delivery {
        source: source.parse().unwrap(),
        received_at: "2026-12-01T00:00:00Z".parse().unwrap(),
        headers: vec![],
        body: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, OWN_SALE),
    };
    world.system.context.queues.send_delivery(&delivery).await.unwrap();
    world.settle().await;
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    let resolved = world.post(ADMIN, &replay_path(&exception), &json!({})).await.ok();
    assert_eq!(resolved["resolution"], "replayed: already_applied");
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_contradiction_by_the_api_is_refused_again_until_a_person_resolves_it() {
    let world = Plan::new().start().await;
    world.sale("o1", "10.00").await;
    world.report(&world.sale_event("o1", "20.00")).await.refused(409);
    let exception = only(&world).await;
    let reply = world.post(ADMIN, &replay_path(&exception), &json!({})).await.refused(409);
    assert!(reply.text.contains("with other content"), "{}", reply.text);
    assert_eq!(only(&world).await, exception);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_body_that_was_forgotten_cannot_be_replayed() {
    let (world, exception) = too_early("standard").await;
    let client = aws_sdk_dynamodb::Client::new(&world.system.embedded.sdk_config());
    let key = [("pk", format!("EXC#{}", exception["id"].as_str().unwrap())), ("sk", "BODY#000".to_owned())];
    let mut delete = client.delete_item().table_name(local::TABLE).return_values("ALL_OLD".into());
    for (name, value) in key {
        delete = delete.key(name, AttributeValue::S(value));
    }
    assert!(delete.send().await.unwrap().attributes.is_some());
    let reply = world.post(ADMIN, &replay_path(&exception), &json!({})).await.refused(409);
    assert!(reply.text.contains("not kept any more"), "{}", reply.text);
}

#[tokio::test]
async fn a_replay_needs_the_role_an_exception_and_what_was_seen() {
    let (world, exception) = too_early("standard").await;
    for who in [ANALYST, APPROVER] {
        world.post(who, &replay_path(&exception), &json!({})).await.refused(403);
    }
    world.post(ADMIN, "/exceptions/exc_000000000000000000000000/replay", &json!({})).await.refused(404);
    let stale = Request::post(&replay_path(&exception), &json!({})).header("if-match", "\"resolved\"");
    world.send(world.by(ADMIN, stale).await).await.refused(412);
}

#[tokio::test]
async fn exceptions_are_found_by_code_and_program() {
    let (world, impossible) = too_early("standard").await;
    let other = world.post(ADMIN, "/programs", &json!({"name": "Another"})).await.id();
    world.report(&world.sale_event("o1", "10.00")).await.ok();
    world.report(&world.sale_event("o1", "20.00")).await.refused(409);
    let contradiction = world.all(ADMIN, "/exceptions?code=contradiction").await;
    assert_eq!(contradiction.len(), 1);
    assert_eq!(world.all(ADMIN, "/exceptions?code=impossible").await, [impossible.clone()]);
    assert_eq!(world.all(ADMIN, "/exceptions?code=no_rules").await, [] as [Value; 0]);
    let of_program = format!("/exceptions?programId={}", world.program);
    assert_eq!(world.all(ADMIN, &of_program).await.len(), 2);
    assert_eq!(world.all(ADMIN, &format!("{of_program}&code=impossible&limit=1")).await, [impossible]);
    assert_eq!(world.all(ADMIN, &format!("/exceptions?programId={other}")).await, [] as [Value; 0]);
    world.get(ADMIN, "/exceptions?code=lost").await.refused(400);
    world.get(ADMIN, "/exceptions?programId=nonsense").await.refused(404);
}
