//! What concerns all services: restarts, the HTTP endpoint, and wrappers between SDK and services.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use bytes::Bytes;
use embedded::{CallFuture, Embedded, Service};
use http::{Request, Response, StatusCode};
use serde_json::json;

const TABLE: &str = "payouts";

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn create_table(client: &aws_sdk_dynamodb::Client) {
    let attribute = AttributeDefinition::builder().attribute_name("pk").attribute_type(ScalarAttributeType::S);
    let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash);
    let request = client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
    let request = request.attribute_definitions(attribute.build().unwrap()).key_schema(key.build().unwrap());
    request.send().await.unwrap();
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let directory = Directory::new("restart");
    let clock = common::FakeClock::new();
    let (url, id);
    {
        let embedded = Embedded::open(directory.path(), clock.clock()).unwrap();
        let config = embedded.sdk_config();
        let database = aws_sdk_dynamodb::Client::new(&config);
        create_table(&database).await;
        let item = AttributeValue::S("a".to_owned());
        database.put_item().table_name(TABLE).item("pk", item).send().await.unwrap();
        let queues = aws_sdk_sqs::Client::new(&config);
        url = queues.create_queue().queue_name("q").send().await.unwrap().queue_url.unwrap();
        let sent = queues.send_message().queue_url(&url).message_body("kept").send().await.unwrap();
        id = sent.message_id.unwrap();
        let received = queues.receive_message().queue_url(&url).send().await.unwrap();
        assert_eq!(received.messages().len(), 1);
        let secrets = aws_sdk_secretsmanager::Client::new(&config);
        secrets.create_secret().name("s").secret_string("kept").send().await.unwrap();
        let events = aws_sdk_eventbridge::Client::new(&config);
        events.create_event_bus().name("b").send().await.unwrap();
        events.put_rule().name("r").event_bus_name("b").event_pattern(r#"{"source":["x"]}"#).send().await.unwrap();
        let schedule = json!({
            "ScheduleExpression": "rate(1 day)",
            "FlexibleTimeWindow": { "Mode": "OFF" },
            "Target": { "Arn": "a", "RoleArn": "r" },
        });
        assert!(common::rest(&embedded, "POST", "/schedules/x", &schedule).0.is_success());
    }
    let embedded = Embedded::open(directory.path(), clock.clock()).unwrap();
    let config = embedded.sdk_config();
    let database = aws_sdk_dynamodb::Client::new(&config);
    assert_eq!(database.scan().table_name(TABLE).send().await.unwrap().count, 1);
    let queues = aws_sdk_sqs::Client::new(&config);
    assert!(queues.receive_message().queue_url(&url).send().await.unwrap().messages.is_none(), "still in flight");
    clock.advance(30);
    let received = queues.receive_message().queue_url(&url).send().await.unwrap();
    assert_eq!(received.messages()[0].message_id(), Some(id.as_str()));
    let secrets = aws_sdk_secretsmanager::Client::new(&config);
    let secret = secrets.get_secret_value().secret_id("s").send().await.unwrap();
    assert_eq!(secret.secret_string(), Some("kept"));
    let events = aws_sdk_eventbridge::Client::new(&config);
    assert_eq!(events.list_rules().event_bus_name("b").send().await.unwrap().rules().len(), 1);
    assert_eq!(embedded.schedules().len(), 1);
}

/// Sends a batch of ten, receives it, and deletes nine of the ten.
async fn take_nine_of_ten(queues: &aws_sdk_sqs::Client, url: &str, body: &str) {
    for _ in 0..10 {
        queues.send_message().queue_url(url).message_body(body).send().await.unwrap();
    }
    let received = queues.receive_message().queue_url(url).max_number_of_messages(10).send().await.unwrap();
    for message in &received.messages()[1..] {
        queues.delete_message().queue_url(url).receipt_handle(message.receipt_handle().unwrap()).send().await.unwrap();
    }
}

#[tokio::test]
async fn a_request_costs_the_same_however_many_messages_wait_and_the_file_stays_small() {
    let directory = Directory::new("many-messages");
    let clock = common::FakeClock::new();
    let file = directory.path().join("services.jsonl");
    let length = || std::fs::metadata(&file).unwrap().len();
    {
        let embedded = Embedded::open(directory.path(), clock.clock()).unwrap();
        let queues = aws_sdk_sqs::Client::new(&embedded.sdk_config());
        let url = queues.create_queue().queue_name("q").send().await.unwrap().queue_url.unwrap();
        queues
            .send_message()
            .queue_url(&url)
            .message_body("x".repeat(900_000))
            .delay_seconds(900)
            .send()
            .await
            .unwrap();
        let before = length();
        queues.send_message().queue_url(&url).message_body("small").delay_seconds(900).send().await.unwrap();
        assert!(length() - before < 2_000, "{} bytes for a small message", length() - before);
        for _ in 0..12 {
            take_nine_of_ten(&queues, &url, &"y".repeat(100_000)).await;
        }
        assert!(length() < 20 << 20, "{} bytes though most messages are gone", length());
    }
    let embedded = Embedded::open(directory.path(), clock.clock()).unwrap();
    let queues = aws_sdk_sqs::Client::new(&embedded.sdk_config());
    let url = queues.get_queue_url().queue_name("q").send().await.unwrap().queue_url.unwrap();
    clock.advance(1_000);
    let mut waiting = Vec::new();
    while let received = queues.receive_message().queue_url(&url).max_number_of_messages(10).send().await.unwrap()
        && !received.messages().is_empty()
    {
        waiting.extend(received.messages().iter().map(|message| message.body().unwrap().len()));
    }
    assert_eq!(waiting, [&[900_000, 5][..], &[100_000; 12]].concat());
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_not_there() {
    let directory = Directory::new("half-written");
    let clock = common::FakeClock::new();
    let file = directory.path().join("services.jsonl");
    let sends = async |bodies: &[&str]| {
        let embedded = Embedded::open(directory.path(), clock.clock()).unwrap();
        let queues = aws_sdk_sqs::Client::new(&embedded.sdk_config());
        let url = queues.create_queue().queue_name("q").send().await.unwrap().queue_url.unwrap();
        for body in bodies {
            queues.send_message().queue_url(&url).message_body(*body).send().await.unwrap();
        }
        let counted = queues.get_queue_attributes().queue_url(&url).attribute_names("All".into()).send().await.unwrap();
        counted.attributes.unwrap()[&aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessages].clone()
    };
    assert_eq!(sends(&["a", "b"]).await, "2");
    let saved = std::fs::read(&file).unwrap();
    std::fs::write(&file, &saved[..saved.len() - 10]).unwrap();
    assert_eq!(sends(&["c"]).await, "2");
    assert_eq!(sends(&[]).await, "2");
}

#[tokio::test]
async fn the_endpoint_serves_the_same_services() {
    let (embedded, _) = common::memory();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = {
        let embedded = embedded.clone();
        tokio::spawn(async move { embedded.serve(listener, async { drop(stopped.await) }).await })
    };
    // A client with the SDK's own HTTP stack.
    let config = aws_sdk_sqs::config::Builder::new()
        .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
        .region(aws_sdk_sqs::config::Region::new("us-east-1"))
        .credentials_provider(aws_credential_types::Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(&endpoint)
        .build();
    let queues = aws_sdk_sqs::Client::from_conf(config);
    let url = queues.create_queue().queue_name("q").send().await.unwrap().queue_url.unwrap();
    assert_eq!(url, format!("{endpoint}/000000000000/q"));
    queues.send_message().queue_url(&url).message_body("over the wire").send().await.unwrap();
    let in_process = aws_sdk_sqs::Client::new(&embedded.sdk_config());
    let received = in_process.receive_message().queue_url(&url).send().await.unwrap();
    assert_eq!(received.messages()[0].body(), Some("over the wire"));
    stop.send(()).unwrap();
    server.await.unwrap();
}

/// Refuses the first requests as a busy service would.
#[derive(Debug)]
struct Busy {
    inner: Embedded,
    refusals: Arc<AtomicU32>,
}

impl Service for Busy {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_> {
        let refused =
            self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if refused {
            let mut response = Response::new(Bytes::from_static(br#"{"__type":"ThrottlingException"}"#));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return Box::pin(async move { Ok(response) });
        }
        self.inner.call(request)
    }
}

#[tokio::test]
async fn wrappers_sit_below_the_retries_of_the_sdk() {
    let (embedded, _) = common::memory();
    let refusals = Arc::new(AtomicU32::new(1));
    let config = embedded.sdk_config_through(|inner| Busy { inner, refusals: Arc::clone(&refusals) });
    let client = aws_sdk_dynamodb::Client::new(&config);
    create_table(&client).await;
    assert_eq!(refusals.load(Ordering::SeqCst), 0);
    assert_eq!(client.list_tables().send().await.unwrap().table_names(), [TABLE]);
}
