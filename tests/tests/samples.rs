//! The sample events in `events/`: every file goes to the real handler of its function.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lambda_http::Adapter;
use lambda_http::request::LambdaRequest;
use lambda_runtime::{LambdaEvent, Service, service_fn};
use serde_json::Value;
use storefront_webhook::Webhook;
use tests::World;
use tests::samples::{NOW, events, expected, sample, sampled};

/// Functions that act at their time.
const TIMED: [&str; 3] = ["mature-commissions", "batch-payouts", "draft-payout"];

/// What a function answers to an event; of an HTTP answer the status.
async fn invoke(world: &World, function: &str, event: Value) -> Value {
    if TIMED.contains(&function) {
        world.clock_at(NOW);
    }
    match function {
        "storefront-webhook" | "payouts-api" | "render-documents" | "track-click" | "paypal-webhook"
        | "qbo-webhook" => over_http(world, function, event).await["statusCode"].clone(),
        _ => world.system.invoke(function, event).await.unwrap(),
    }
}

async fn over_http(world: &World, function: &str, event: Value) -> Value {
    let context = world.system.context.clone();
    let request: LambdaRequest = serde_json::from_value(event).unwrap();
    let event = LambdaEvent::new(request, lambda_runtime::Context::default());
    let response = match function {
        // The renderer is the same API with a press, which takes too long to build for this.
        "payouts-api" | "render-documents" => Adapter::from(payouts_api::api(
            context,
            world.system.files.clone(),
            "partner-payouts/cursor-key".to_owned(),
            std::sync::Arc::new(local::rails().unwrap()),
            None,
        ))
        .call(event)
        .await
        .unwrap(),
        "paypal-webhook" => {
            let rails = std::sync::Arc::new(local::rails().unwrap());
            let service = service_fn(move |request| {
                let (context, rails) = (context.clone(), std::sync::Arc::clone(&rails));
                async move { paypal_webhook::handle(&context, &rails.paypal, request).await }
            });
            Adapter::from(service).call(event).await.unwrap()
        }
        "qbo-webhook" => {
            let rails = std::sync::Arc::new(local::rails().unwrap());
            let service = service_fn(move |request| {
                let (context, rails) = (context.clone(), std::sync::Arc::clone(&rails));
                async move { qbo_webhook::handle(&context, &rails.quickbooks, request).await }
            });
            Adapter::from(service).call(event).await.unwrap()
        }
        "track-click" => {
            let service = service_fn(move |request| {
                let context = context.clone();
                async move { track_click::handle(&context, request).await }
            });
            Adapter::from(service).call(event).await.unwrap()
        }
        _ => {
            let webhook = std::sync::Arc::new(Webhook::new(context));
            let service = service_fn(move |request| {
                let webhook = std::sync::Arc::clone(&webhook);
                async move { webhook.handle(request).await }
            });
            Adapter::from(service).call(event).await.unwrap()
        }
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
