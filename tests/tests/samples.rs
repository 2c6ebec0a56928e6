//! The sample events in `events/`: every file goes to the real handler of its function.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use lambda_http::Adapter;
use lambda_http::request::LambdaRequest;
use lambda_runtime::{LambdaEvent, Service, service_fn};
use serde_json::{Value, json};
use storefront_webhook::Webhook;
use tests::{Plan, World, percent};

const PROGRAM: &str = "prg_sample0program000000000000";
const PARTNER: &str = "par_sample0partner000000000000";
const SOURCE: &str = "src_sample0source0000000000000";
const SECRET: &str = "sample-secret";
/// When the order comes in, and when the schedules of the samples fire.
const BEFORE: &str = "2026-01-15T14:15:00Z";
const NOW: &str = "2026-02-01T00:20:00Z";
/// Functions that act at their time.
const TIMED: [&str; 3] = ["mature-commissions", "batch-payouts", "draft-payout"];

/// Every sample, and what its function answers in the world it was made for.
fn expected() -> Vec<(&'static str, Value)> {
    vec![
        ("storefront-webhook/shopify-order-paid.json", json!(200)),
        ("storefront-webhook/unknown-source.json", json!(401)),
        ("payouts-api/list-pending-payouts.json", json!(200)),
        ("payouts-api/report-sale.json", json!(202)),
        ("payouts-api/approve-payouts.json", json!(200)),
        ("payouts-api/without-token.json", json!(401)),
        ("ingest-conversions/shopify-order-paid.json", json!({"batchItemFailures": []})),
        ("ingest-conversions/unreadable-body.json", json!({"batchItemFailures": []})),
        (
            "ingest-conversions/not-a-delivery.json",
            json!({"batchItemFailures": [{"itemIdentifier": "11111111-0000-4000-8000-000000000002"}]}),
        ),
        ("mature-commissions/hourly.json", json!({"lines": 0, "failed": 0, "unfinished": false})),
        ("batch-payouts/hourly.json", json!({"runsStarted": 1, "payoutsResumed": 0, "failed": 0, "unfinished": false})),
        ("draft-payout/one-partner.json", json!({"batchItemFailures": []})),
        ("publish-changes/sale-booked.json", json!({"batchItemFailures": []})),
    ]
}

fn events() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
}

fn sample(file: &str) -> Value {
    let text = std::fs::read_to_string(events().join(file)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A world whose program, partner and source have the ids that stand in the samples.
async fn sampled() -> World {
    let world = World {
        system: Plan::new().at(BEFORE).system().await,
        program: PROGRAM.to_owned(),
        partner: PARTNER.to_owned(),
    };
    let context = &world.system.context;
    let made = json!({"createdAt": "2026-01-01T00:00:00Z", "createdBy": "ann", "name": "Sample"});
    let of = |fields: Value| {
        let mut all = made.clone();
        fields.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
        all
    };
    let program = of(json!({
        "id": PROGRAM, "currency": "USD", "timeZone": "UTC", "holdDays": 0, "minHoldDays": 0, "approval": "automatic",
        "minimumPayout": 0, "largePayoutLimit": 100_000, "ruleSignOff": true, "coolingOffDays": 3,
        "schedule": {"frequency": "monthly", "runDay": 1, "anchor": "2026-01-05", "cutOffDays": 0, "payDays": 0},
    }));
    workflows::setup::create_program(context, &serde_json::from_value(program).unwrap()).await.unwrap();
    let partner = of(json!({
        "id": PARTNER, "program": PROGRAM, "email": "anna@partners.example", "code": "ANNA10", "type": "affiliate",
        "group": null, "minimumPayout": null, "trusted": false, "status": "active", "shards": 1,
        "payoutMethods": [{"kind": "manual"}],
    }));
    workflows::setup::create_partner(context, &serde_json::from_value(partner).unwrap()).await.unwrap();
    let source = of(json!({"id": SOURCE, "program": PROGRAM, "kind": "shopify"}));
    let secret = serde_json::from_value(json!({"current": SECRET})).unwrap();
    workflows::setup::create_source(context, &serde_json::from_value(source).unwrap(), &secret).await.unwrap();
    world.publish(&[percent("10")]).await;
    world
}

/// What a function answers to an event; of an HTTP answer the status.
async fn invoke(world: &World, function: &str, event: Value) -> Value {
    if TIMED.contains(&function) {
        world.clock_at(NOW);
    }
    match function {
        "storefront-webhook" | "payouts-api" => over_http(world, function, event).await["statusCode"].clone(),
        _ => world.system.invoke(function, event).await.unwrap(),
    }
}

async fn over_http(world: &World, function: &str, event: Value) -> Value {
    let context = world.system.context.clone();
    let request: LambdaRequest = serde_json::from_value(event).unwrap();
    let event = LambdaEvent::new(request, lambda_runtime::Context::default());
    let response = if function == "payouts-api" {
        Adapter::from(payouts_api::api(context, "partner-payouts/cursor-key".to_owned())).call(event).await.unwrap()
    } else {
        let webhook = std::sync::Arc::new(Webhook::new(context));
        let service = service_fn(move |request| {
            let webhook = std::sync::Arc::clone(&webhook);
            async move { webhook.handle(request).await }
        });
        Adapter::from(service).call(event).await.unwrap()
    };
    serde_json::to_value(response).unwrap()
}

#[tokio::test]
async fn every_sample_is_answered_as_its_function_answers_it() {
    for (file, expect) in expected() {
        let world = sampled().await;
        let function = file.split('/').next().unwrap();
        if function == "draft-payout" {
            world.clock_at(NOW);
            world.fire("batch-payouts").await;
        }
        assert_eq!(invoke(&world, function, sample(file)).await, expect, "{file}");
        world.settle().await;
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn every_sample_is_listed_and_every_function_has_one() {
    let mut found = Vec::new();
    for function in std::fs::read_dir(events()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        for file in std::fs::read_dir(function.path()).unwrap() {
            found.push(format!("{}/{}", function.file_name().display(), file.unwrap().file_name().display()));
        }
    }
    let mut listed: Vec<_> = expected().iter().map(|(file, _)| (*file).to_owned()).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
    let functions = std::fs::read_dir(events().join("../functions")).unwrap().map(|entry| entry.unwrap().file_name());
    for function in functions {
        let prefix = format!("{}/", function.display());
        assert!(listed.iter().any(|file| file.starts_with(&prefix)), "{prefix}");
    }
}

#[tokio::test]
async fn the_samples_of_one_order_lead_from_the_storefront_to_a_payout() {
    let world = sampled().await;
    for file in ["storefront-webhook/shopify-order-paid.json", "ingest-conversions/shopify-order-paid.json"] {
        invoke(&world, file.split('/').next().unwrap(), sample(file)).await;
    }
    world.settle().await;
    assert_eq!(world.buckets().await, [("payable", 1_000)], "one delivery twice");
    for file in ["mature-commissions/hourly.json", "batch-payouts/hourly.json", "draft-payout/one-partner.json"] {
        invoke(&world, file.split('/').next().unwrap(), sample(file)).await;
    }
    world.settle().await;
    assert_eq!(world.only_payout().await["amount"]["minor"], 1_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_stream_record_delivered_twice_gives_events_with_the_same_id() {
    let world = sampled().await;
    for _ in 0..2 {
        invoke(&world, "publish-changes", sample("publish-changes/sale-booked.json")).await;
    }
    let events = world.events("commission.accrued");
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["detail"], events[1]["detail"]);
    world.audit_holds().await;
}
