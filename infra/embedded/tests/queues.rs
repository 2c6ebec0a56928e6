//! SQS under the SDK, with a clock that moves only when told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::ProvideErrorMetadata as _;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageAttributeValue,
    MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry, SendMessageBatchResultEntry,
};

async fn create(client: &Client, name: &str) -> String {
    client.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap()
}

async fn send(client: &Client, url: &str, body: &str) {
    client.send_message().queue_url(url).message_body(body).send().await.unwrap();
}

async fn receive(client: &Client, url: &str) -> Vec<Message> {
    let request = client.receive_message().queue_url(url).max_number_of_messages(10);
    let request = request.message_system_attribute_names(MessageSystemAttributeName::All);
    request.message_attribute_names("All").send().await.unwrap().messages.unwrap_or_default()
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.body().unwrap()).collect()
}

#[tokio::test]
async fn messages_hide_while_in_flight_and_come_back() {
    let (embedded, clock) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let url = create(&client, "work").await;
    send(&client, &url, "one").await;
    let first = receive(&client, &url).await;
    assert_eq!(bodies(&first), ["one"]);
    assert_eq!(first[0].md5_of_body(), Some("f97c5d29941bfb1b2fdab0874906ab82"));
    let attributes = first[0].attributes().unwrap();
    assert_eq!(attributes[&MessageSystemAttributeName::SentTimestamp], "1700000000000");
    assert_eq!(attributes[&MessageSystemAttributeName::ApproximateReceiveCount], "1");

    clock.advance(29);
    assert!(receive(&client, &url).await.is_empty());
    clock.advance(1);
    let second = receive(&client, &url).await;
    assert_eq!(second[0].attributes().unwrap()[&MessageSystemAttributeName::ApproximateReceiveCount], "2");

    // The first receipt handle has lost its power, the second has not.
    client.delete_message().queue_url(&url).receipt_handle(first[0].receipt_handle().unwrap()).send().await.unwrap();
    let handle = second[0].receipt_handle().unwrap();
    let change = client.change_message_visibility().queue_url(&url).receipt_handle(handle).visibility_timeout(0);
    change.send().await.unwrap();
    let third = receive(&client, &url).await;
    assert_eq!(bodies(&third), ["one"]);
    client.delete_message().queue_url(&url).receipt_handle(third[0].receipt_handle().unwrap()).send().await.unwrap();
    clock.advance(1000);
    assert!(receive(&client, &url).await.is_empty());
}

#[tokio::test]
async fn delays_hold_messages_back_and_are_counted() {
    let (embedded, clock) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let url = create(&client, "later").await;
    client.send_message().queue_url(&url).message_body("late").delay_seconds(60).send().await.unwrap();
    send(&client, &url, "now").await;
    assert_eq!(bodies(&receive(&client, &url).await), ["now"]);
    let attributes = client.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::All);
    let attributes = attributes.send().await.unwrap().attributes.unwrap();
    assert_eq!(attributes[&QueueAttributeName::ApproximateNumberOfMessages], "0");
    assert_eq!(attributes[&QueueAttributeName::ApproximateNumberOfMessagesNotVisible], "1");
    assert_eq!(attributes[&QueueAttributeName::ApproximateNumberOfMessagesDelayed], "1");
    assert_eq!(attributes[&QueueAttributeName::QueueArn], "arn:aws:sqs:us-east-1:000000000000:later");
    assert_eq!(attributes[&QueueAttributeName::VisibilityTimeout], "30");
    clock.advance(60);
    assert_eq!(receive(&client, &url).await.len(), 2);
}

#[tokio::test]
async fn messages_received_too_often_move_to_the_dead_letter_queue() {
    let (embedded, clock) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let dead = create(&client, "dead").await;
    let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":"2"}"#;
    let url = client.create_queue().queue_name("work").attributes(QueueAttributeName::RedrivePolicy, policy);
    let url = url.send().await.unwrap().queue_url.unwrap();
    send(&client, &url, "poison").await;
    for _ in 0..2 {
        assert_eq!(bodies(&receive(&client, &url).await), ["poison"]);
        clock.advance(30);
    }
    assert!(receive(&client, &url).await.is_empty());
    let letters = receive(&client, &dead).await;
    assert_eq!(bodies(&letters), ["poison"]);
    let source = &letters[0].attributes().unwrap()[&MessageSystemAttributeName::DeadLetterQueueSourceArn];
    assert_eq!(source, "arn:aws:sqs:us-east-1:000000000000:work");
}

#[tokio::test]
async fn batches_succeed_and_fail_entry_by_entry() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let url = create(&client, "batch").await;
    let entry = |id: &str, body: &str| {
        let entry = SendMessageBatchRequestEntry::builder().id(id).message_body(body);
        let region = MessageAttributeValue::builder().data_type("String").string_value("eu").build().unwrap();
        entry.message_attributes("region", region).build().unwrap()
    };
    let sent = client.send_message_batch().queue_url(&url).entries(entry("a", "1")).entries(entry("b", ""));
    let sent = sent.entries(entry("c", "3")).send().await.unwrap();
    assert_eq!(sent.successful().iter().map(SendMessageBatchResultEntry::id).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(sent.failed()[0].id(), "b");
    assert!(sent.failed()[0].sender_fault());

    let messages = receive(&client, &url).await;
    assert_eq!(bodies(&messages), ["1", "3"]);
    assert_eq!(messages[0].message_attributes().unwrap()["region"].string_value(), Some("eu"));
    assert_eq!(messages[0].md5_of_message_attributes(), sent.successful()[0].md5_of_message_attributes());
    let back = ChangeMessageVisibilityBatchRequestEntry::builder().id("a").visibility_timeout(0);
    let back = back.receipt_handle(messages[0].receipt_handle().unwrap()).build().unwrap();
    client.change_message_visibility_batch().queue_url(&url).entries(back).send().await.unwrap();
    let gone = DeleteMessageBatchRequestEntry::builder().id("c");
    let gone = gone.receipt_handle(messages[1].receipt_handle().unwrap()).build().unwrap();
    let wrong = DeleteMessageBatchRequestEntry::builder().id("x").receipt_handle("x").build().unwrap();
    let deleted = client.delete_message_batch().queue_url(&url).entries(gone).entries(wrong).send().await.unwrap();
    assert_eq!((deleted.successful().len(), deleted.failed().len()), (1, 1));
    assert_eq!(bodies(&receive(&client, &url).await), ["1"]);

    let eleven = (0..11).map(|number| entry(&number.to_string(), "x")).collect();
    let error = client.send_message_batch().queue_url(&url).set_entries(Some(eleven)).send().await.unwrap_err();
    assert!(error.into_service_error().is_too_many_entries_in_batch_request());
    client.purge_queue().queue_url(&url).send().await.unwrap();
}

#[tokio::test]
async fn queues_are_created_once_found_and_deleted() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let url = create(&client, "one").await;
    assert_eq!(create(&client, "one").await, url);
    assert_eq!(url, "https://sqs.us-east-1.amazonaws.com/000000000000/one");
    assert_eq!(client.get_queue_url().queue_name("one").send().await.unwrap().queue_url(), Some(url.as_str()));
    assert_eq!(client.list_queues().send().await.unwrap().queue_urls(), std::slice::from_ref(&url));
    let other = client.create_queue().queue_name("one").attributes(QueueAttributeName::VisibilityTimeout, "5");
    assert!(other.send().await.unwrap_err().into_service_error().is_queue_name_exists());
    let set = client.set_queue_attributes().queue_url(&url).attributes(QueueAttributeName::VisibilityTimeout, "5");
    set.send().await.unwrap();
    client.delete_queue().queue_url(&url).send().await.unwrap();
    let error = client.send_message().queue_url(&url).message_body("x").send().await.unwrap_err().into_service_error();
    assert!(error.is_queue_does_not_exist(), "{error:?}");
    assert_eq!(error.code(), Some("AWS.SimpleQueueService.NonExistentQueue"));
    let fifo = client.create_queue().queue_name("one.fifo").send().await.unwrap_err();
    assert_eq!(fifo.code(), Some("AWS.SimpleQueueService.UnsupportedOperation"));
}

#[tokio::test]
async fn equal_histories_give_equal_ids() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (embedded, _) = common::memory();
        let client = Client::new(&embedded.sdk_config());
        let url = create(&client, "same").await;
        send(&client, &url, "x").await;
        let message = receive(&client, &url).await.remove(0);
        ids.push((message.message_id.unwrap(), message.receipt_handle.unwrap()));
    }
    assert_eq!(ids[0], ids[1]);
}
