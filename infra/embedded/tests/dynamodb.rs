//! `DynamoDB` and its streams under the SDK.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::time::Instant;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConditionCheck, KeySchemaElement, KeyType, Put,
    ReturnConsumedCapacity, ScalarAttributeType, StreamSpecification, StreamViewType, TransactWriteItem,
};
use embedded::Embedded;
use serde_json::json;

const TABLE: &str = "payouts";

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn key(name: &str, kind: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
}

fn attribute(name: &str) -> AttributeDefinition {
    AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build().unwrap()
}

async fn create_table(client: &Client) {
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::NewAndOldImages)
        .build()
        .unwrap();
    client
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("pk"))
        .attribute_definitions(attribute("sk"))
        .key_schema(key("pk", KeyType::Hash))
        .key_schema(key("sk", KeyType::Range))
        .stream_specification(stream)
        .send()
        .await
        .unwrap();
}

async fn put(client: &Client, pk: &str, sk: &str) {
    client.put_item().table_name(TABLE).item("pk", text(pk)).item("sk", text(sk)).send().await.unwrap();
}

#[tokio::test]
async fn items_are_put_read_and_queried_with_their_capacity() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    create_table(&client).await;
    let written = client
        .put_item()
        .table_name(TABLE)
        .item("pk", text("a"))
        .item("sk", text("1"))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    assert_eq!(written.consumed_capacity.unwrap().capacity_units, Some(1.0));
    put(&client, "a", "2").await;
    put(&client, "b", "1").await;

    let read = client.get_item().table_name(TABLE).key("pk", text("a")).key("sk", text("1")).send().await.unwrap();
    assert_eq!(read.item.unwrap()["sk"], text("1"));
    let found = client
        .query()
        .table_name(TABLE)
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", text("a"))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    assert_eq!(found.count, 2);
    assert_eq!(found.consumed_capacity.unwrap().capacity_units, Some(0.5));

    let missing = client.get_item().table_name("other").key("pk", text("a")).send().await.unwrap_err();
    assert!(missing.into_service_error().is_resource_not_found_exception());
}

#[tokio::test]
async fn transactions_apply_whole_or_tell_why_not() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    create_table(&client).await;
    let insert = |pk: &str| {
        let put = Put::builder().table_name(TABLE).item("pk", text(pk)).item("sk", text("0"));
        let put = put.condition_expression("attribute_not_exists(pk)").build().unwrap();
        TransactWriteItem::builder().put(put).build()
    };
    let applied = client
        .transact_write_items()
        .transact_items(insert("a"))
        .transact_items(insert("b"))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    assert_eq!(applied.consumed_capacity.unwrap()[0].capacity_units, Some(4.0));

    let check = ConditionCheck::builder()
        .table_name(TABLE)
        .key("pk", text("a"))
        .key("sk", text("0"))
        .condition_expression("attribute_exists(pk)")
        .build()
        .unwrap();
    let error = client
        .transact_write_items()
        .transact_items(insert("c"))
        .transact_items(insert("b"))
        .transact_items(TransactWriteItem::builder().condition_check(check).build())
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_transaction_canceled_exception(), "{error:?}");
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
        canceled,
    ) = error
    else {
        unreachable!()
    };
    let codes: Vec<_> = canceled.cancellation_reasons().iter().map(|reason| reason.code().unwrap()).collect();
    assert_eq!(codes, ["None", "ConditionalCheckFailed", "None"]);
    let absent = client.get_item().table_name(TABLE).key("pk", text("c")).key("sk", text("0")).send().await.unwrap();
    assert!(absent.item.is_none());
}

#[tokio::test]
async fn conditions_fail_with_the_exception_of_the_sdk() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    create_table(&client).await;
    put(&client, "a", "1").await;
    let error = client
        .put_item()
        .table_name(TABLE)
        .item("pk", text("a"))
        .item("sk", text("1"))
        .condition_expression("attribute_not_exists(pk)")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("ConditionalCheckFailedException"));
}

#[tokio::test]
async fn streams_hold_every_change_in_order_at_the_time_of_the_clock() {
    let (embedded, clock) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    create_table(&client).await;
    put(&client, "a", "1").await;
    clock.advance(60);
    put(&client, "b", "1").await;

    let records = read_stream(&embedded);
    let keys: Vec<_> = records.iter().map(|record| record["dynamodb"]["Keys"]["pk"]["S"].as_str().unwrap()).collect();
    assert_eq!(keys, ["a", "b"]);
    let times: Vec<_> =
        records.iter().map(|record| record["dynamodb"]["ApproximateCreationDateTime"].as_f64().unwrap()).collect();
    assert!((times[1] - times[0] - 60.0).abs() < 0.001, "{times:?}");
}

fn read_stream(embedded: &Embedded) -> Vec<serde_json::Value> {
    let streams = |operation: &str, body: serde_json::Value| {
        let (status, answer) = common::call(embedded, &format!("DynamoDBStreams_20120810.{operation}"), &body);
        assert!(status.is_success(), "{answer}");
        answer
    };
    let arn = streams("ListStreams", json!({ "TableName": TABLE }))["Streams"][0]["StreamArn"].clone();
    let described = streams("DescribeStream", json!({ "StreamArn": arn }));
    let shard = &described["StreamDescription"]["Shards"][0]["ShardId"];
    let from = json!({ "StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
    let iterator = streams("GetShardIterator", from)["ShardIterator"].clone();
    let answer = streams("GetRecords", json!({ "ShardIterator": iterator }));
    answer["Records"].as_array().unwrap().clone()
}

#[tokio::test]
async fn unknown_operations_are_refused_in_the_shape_of_the_protocol() {
    let (embedded, _) = common::memory();
    for target in ["DynamoDB_20120810.Dream", "AmazonSQS.Dream", "Nothing.Known"] {
        let (status, answer) = common::call(&embedded, target, &json!({}));
        assert_eq!(status.as_u16(), 400);
        assert_eq!(answer["__type"], "com.amazon.coral.service#UnknownOperationException");
    }
    let (status, answer) = common::call(&embedded, "DynamoDB_20120810.GetItem", &json!({ "TableName": 5 }));
    assert_eq!(status.as_u16(), 400);
    assert_eq!(answer["__type"], "com.amazon.coral.service#SerializationException");
}

/// Not a check: prints what a write with streams costs. `cargo test -p embedded -- --ignored --nocapture latency`
#[tokio::test]
#[ignore = "a measurement"]
async fn latency_of_writes() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("latency");
    let clock = common::FakeClock::new();
    let opened = Instant::now();
    let memory = Embedded::memory(clock.clock()).unwrap();
    println!("opened in memory in {:?}", opened.elapsed());
    let file = Embedded::open(&directory, clock.clock()).unwrap();
    for (name, embedded) in [("memory", memory), ("file", file)] {
        let client = Client::new(&embedded.sdk_config());
        create_table(&client).await;
        for round in 0..4 {
            let began = Instant::now();
            for number in 0..2500 {
                put(&client, &format!("{round}"), &format!("{number}")).await;
            }
            println!("{name}, after {} records: {:?} a put", round * 2500, began.elapsed() / 2500);
        }
        let item = json!({ "TableName": TABLE, "Item": { "pk": { "S": "raw" }, "sk": { "S": "1" } } });
        let began = Instant::now();
        for _ in 0..2500 {
            common::call(&embedded, "DynamoDB_20120810.PutItem", &item);
        }
        println!("{name}, without the SDK: {:?} a put", began.elapsed() / 2500);
    }
    std::fs::remove_dir_all(directory).unwrap();
}
