//! `EventBridge` under the SDK.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, Target};
use embedded::Outcome;
use serde_json::{Value, json};

const QUEUE_ARN: &str = "arn:aws:sqs:us-east-1:000000000000:approved";

fn entry(bus: &str, kind: &str, detail: &Value) -> PutEventsRequestEntry {
    let entry = PutEventsRequestEntry::builder().event_bus_name(bus).source("payouts").detail_type(kind);
    entry.detail(detail.to_string()).build()
}

fn target(id: &str, arn: &str) -> Target {
    Target::builder().id(id).arn(arn).build().unwrap()
}

#[tokio::test]
async fn rules_send_matching_events_to_queues() {
    let (embedded, _) = common::memory();
    let config = embedded.sdk_config();
    let (events, queues) = (Client::new(&config), aws_sdk_sqs::Client::new(&config));
    let url = queues.create_queue().queue_name("approved").send().await.unwrap().queue_url.unwrap();
    events.create_event_bus().name("payouts").send().await.unwrap();
    let pattern = json!({ "detail-type": ["payout.approved"], "detail": { "currency": [{ "anything-but": "USD" }] } });
    let rule = events.put_rule().name("approved").event_bus_name("payouts").event_pattern(pattern.to_string());
    assert_eq!(
        rule.send().await.unwrap().rule_arn(),
        Some("arn:aws:events:us-east-1:000000000000:rule/payouts/approved")
    );
    let put = events
        .put_targets()
        .rule("approved")
        .event_bus_name("payouts")
        .targets(target("function", "arn:aws:lambda:us-east-1:000000000000:function:notify"))
        .targets(target("missing", "arn:aws:sqs:us-east-1:000000000000:missing"))
        .targets(target("queue", QUEUE_ARN));
    assert_eq!(put.send().await.unwrap().failed_entry_count(), 0);

    let sent = events
        .put_events()
        .entries(entry("payouts", "payout.approved", &json!({ "id": "p1", "currency": "EUR" })))
        .entries(entry("payouts", "payout.approved", &json!({ "id": "p2", "currency": "USD" })))
        .entries(entry("nowhere", "payout.approved", &json!({})))
        .entries(PutEventsRequestEntry::builder().source("s").detail_type("t").detail("no json").build())
        .send()
        .await
        .unwrap();
    assert_eq!(sent.failed_entry_count(), 2);
    let codes: Vec<_> = sent.entries().iter().map(|entry| entry.error_code()).collect();
    assert_eq!(codes, [None, None, Some("ResourceNotFoundException"), Some("MalformedDetail")]);

    let received = queues.receive_message().queue_url(&url).max_number_of_messages(10).send().await.unwrap();
    assert_eq!(received.messages().len(), 1);
    let event: Value = serde_json::from_str(received.messages()[0].body().unwrap()).unwrap();
    assert_eq!(event["detail"]["id"], "p1");
    assert_eq!(event["time"], "2023-11-14T22:13:20Z");
    assert_eq!(event["id"].as_str(), sent.entries()[0].event_id());

    let log = embedded.events();
    assert_eq!(log.len(), 2);
    let outcomes: Vec<_> = log[0].deliveries.iter().map(|delivery| delivery.outcome).collect();
    assert_eq!(outcomes, [Outcome::Noted, Outcome::Lost, Outcome::Queued]);
    assert!(log[1].deliveries.is_empty());
}

#[tokio::test]
async fn buses_rules_and_targets_are_listed_and_removed() {
    let (embedded, _) = common::memory();
    let events = Client::new(&embedded.sdk_config());
    events.create_event_bus().name("payouts").send().await.unwrap();
    let again = events.create_event_bus().name("payouts").send().await.unwrap_err();
    assert!(again.into_service_error().is_resource_already_exists_exception());
    let buses = events.list_event_buses().send().await.unwrap();
    assert_eq!(buses.event_buses().iter().map(|bus| bus.name().unwrap()).collect::<Vec<_>>(), ["default", "payouts"]);
    assert!(events.describe_event_bus().name("payouts").send().await.unwrap().creation_time().is_some());

    let wrong = events.put_rule().name("wrong").event_pattern(r#"{"source":[{"wildcard":"*"}]}"#).send().await;
    assert!(wrong.unwrap_err().into_service_error().is_invalid_event_pattern_exception());
    events.put_rule().name("all").event_pattern(r#"{"source":[{"prefix":""}]}"#).send().await.unwrap();
    events.put_targets().rule("all").targets(target("t", QUEUE_ARN)).send().await.unwrap();
    let rules = events.list_rules().send().await.unwrap();
    assert_eq!(rules.rules()[0].name(), Some("all"));
    let targets = events.list_targets_by_rule().rule("all").send().await.unwrap();
    assert_eq!(targets.targets()[0].arn(), QUEUE_ARN);
    events.delete_rule().name("all").send().await.unwrap_err();
    events.remove_targets().rule("all").ids("t").send().await.unwrap();
    events.delete_rule().name("all").send().await.unwrap();
    assert!(events.list_rules().send().await.unwrap().rules().is_empty());
    let eleven = (0..11).map(|_| entry("default", "t", &json!({}))).collect();
    events.put_events().set_entries(Some(eleven)).send().await.unwrap_err();
}
