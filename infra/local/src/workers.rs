//! Event source mappings: queues and the stream, delivered to their functions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_sqs::types::MessageSystemAttributeName;
use bytes::Bytes;
use embedded::Embedded;
use serde_json::{Value, json};

use crate::events::{schedule_event, sqs_event, stream_event};
use crate::functions::Failed;
use crate::system::{CONVERSIONS, DRAFTS, SUBMISSIONS, System, TABLE};
use workflows::Clock;

/// Messages in one invocation, as in the template.
const BATCH: i32 = 10;
/// How often a batch of the stream is tried, as in the template.
const STREAM_TRIES: usize = 50;
/// How often a running system looks for work that nobody waits for.
const IDLE: Duration = Duration::from_millis(100);
/// How often schedules fire while the clock runs by itself.
const SCHEDULE: Duration = Duration::from_mins(1);
/// Functions that schedules fire. The last one calls somebody else's server, so nothing fires it here by itself.
pub const SCHEDULED: [&str; 3] = ["mature-commissions", "batch-payouts", "fetch-rates"];

/// Where the stream has been read to.
#[derive(Debug)]
pub struct Stream {
    arn: String,
    shard: String,
    /// The last record delivered.
    after: Option<String>,
    /// Remembers it across restarts.
    file: Option<PathBuf>,
}

impl Stream {
    pub fn open(embedded: &Embedded, directory: Option<&Path>) -> Result<Self, Failed> {
        let streams = ask(embedded, "ListStreams", &json!({"TableName": TABLE}))?;
        let arn = streams["Streams"][0]["StreamArn"].as_str().ok_or(Failed("the table has no stream".to_owned()))?;
        let described = ask(embedded, "DescribeStream", &json!({"StreamArn": arn}))?;
        let shard = described["StreamDescription"]["Shards"][0]["ShardId"].as_str();
        let shard = shard.ok_or(Failed("the stream has no shard".to_owned()))?;
        let file = directory.map(|directory| directory.join("stream-position"));
        let after = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).filter(|after| !after.is_empty());
        Ok(Self { arn: arn.to_owned(), shard: shard.to_owned(), after, file })
    }

    /// The records that come next, at most a hundred.
    pub fn next(&self, embedded: &Embedded) -> Result<Vec<Value>, Failed> {
        let mut start = json!({"StreamArn": self.arn, "ShardId": self.shard, "ShardIteratorType": "TRIM_HORIZON"});
        if let Some(after) = &self.after {
            start["ShardIteratorType"] = json!("AFTER_SEQUENCE_NUMBER");
            start["SequenceNumber"] = json!(after);
        }
        let iterator = ask(embedded, "GetShardIterator", &start)?;
        let page = ask(embedded, "GetRecords", &json!({"ShardIterator": iterator["ShardIterator"], "Limit": 100}))?;
        Ok(page["Records"].as_array().cloned().unwrap_or_default())
    }

    /// What the mapping's filter lets through: journal entries, and the ends of runs.
    fn is_news(record: &Value) -> bool {
        Self::is_inserted_entry(record) || Self::is_completed_run(record)
    }

    pub fn is_inserted_entry(record: &Value) -> bool {
        let pk = record["dynamodb"]["Keys"]["pk"]["S"].as_str().unwrap_or_default();
        record["eventName"] == "INSERT" && pk.starts_with("JRN#")
    }

    fn is_completed_run(record: &Value) -> bool {
        let changed = &record["dynamodb"];
        let pk = changed["Keys"]["pk"]["S"].as_str().unwrap_or_default();
        let of_run = pk.starts_with("RUN#") && changed["Keys"]["sk"]["S"] == "RUN";
        record["eventName"] == "MODIFY" && of_run && changed["NewImage"]["state"]["S"] == "completed"
    }

    pub fn delivered(&mut self, sequence: &str) -> Result<(), Failed> {
        self.after = Some(sequence.to_owned());
        match &self.file {
            Some(file) => std::fs::write(file, sequence).map_err(|error| Failed(error.to_string())),
            None => Ok(()),
        }
    }
}

fn ask(embedded: &Embedded, operation: &str, body: &Value) -> Result<Value, Failed> {
    let request = http::Request::post("/")
        .header("x-amz-target", format!("DynamoDBStreams_20120810.{operation}"))
        .header("content-type", "application/x-amz-json-1.0")
        .body(Bytes::from(body.to_string()))
        .map_err(|error| Failed(error.to_string()))?;
    let answer = embedded.handle(request);
    let ok = answer.status().is_success();
    let body = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    if ok { Ok(body) } else { Err(Failed(format!("{operation}: {body}"))) }
}

impl System {
    /// Delivers everything that can be delivered at the present moment, until nothing is left. How many batches went out.
    pub async fn settle(&self) -> Result<usize, Failed> {
        let mut batches = 0;
        loop {
            let delivered = self.deliver_once().await?;
            if delivered == 0 {
                return Ok(batches);
            }
            batches += delivered;
        }
    }

    async fn deliver_once(&self) -> Result<usize, Failed> {
        // One deliverer at a time: whoever settles waits until what a background tick took is done.
        let mut stream = self.stream.lock().await;
        let mut batches = 0;
        let queues = &self.plain.queues;
        for (queue, url, function) in [
            (CONVERSIONS, &queues.conversions_url, "ingest-conversions"),
            (DRAFTS, &queues.drafts_url, "draft-payout"),
            (SUBMISSIONS, &queues.submissions_url, "submit-payouts"),
        ] {
            batches += usize::from(self.deliver_queue(queue, url, function).await?);
        }
        Ok(batches + usize::from(self.deliver_stream(&mut stream).await?))
    }

    async fn deliver_queue(&self, queue: &str, url: &str, function: &str) -> Result<bool, Failed> {
        let failed = |error: String| Failed(format!("{queue}: {error}"));
        let sqs = &self.plain.queues.sqs;
        let received = sqs
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(BATCH)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await
            .map_err(|error| failed(error.to_string()))?;
        let mut messages = received.messages.unwrap_or_default();
        if messages.is_empty() {
            return Ok(false);
        }
        self.faults.shuffle(&mut messages);
        let again: Vec<_> = messages.iter().filter(|_| self.faults.duplicates()).cloned().collect();
        if !again.is_empty()
            && let Err(error) = self.invoke(function, sqs_event(queue, &again)).await
        {
            tracing::warn!(function, %error, "an extra delivery failed");
        }
        let answer = match self.invoke(function, sqs_event(queue, &messages)).await {
            Ok(answer) => answer,
            Err(error) => {
                // The whole batch comes again when its visibility time-out ends.
                tracing::error!(function, %error, "invocation failed");
                return Ok(true);
            }
        };
        let failures: Vec<&str> = answer["batchItemFailures"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|failure| failure["itemIdentifier"].as_str())
            .collect();
        for message in &messages {
            if !failures.contains(&message.message_id().unwrap_or_default()) {
                let handle = message.receipt_handle().unwrap_or_default();
                let deleted = sqs.delete_message().queue_url(url).receipt_handle(handle).send().await;
                deleted.map_err(|error| failed(error.to_string()))?;
            }
        }
        Ok(true)
    }

    async fn deliver_stream(&self, stream: &mut Stream) -> Result<bool, Failed> {
        let records = stream.next(&self.embedded)?;
        let Some(last) = records.last().and_then(|record| sequence(record)).map(str::to_owned) else {
            return Ok(false);
        };
        let matching: Vec<Value> = records.into_iter().filter(Stream::is_news).collect();
        if !matching.is_empty() {
            self.publish(stream_event(&stream.arn, matching)).await?;
        }
        stream.delivered(&last)?;
        Ok(true)
    }

    /// A batch of the stream holds up those behind it, so it is tried until it is published.
    async fn publish(&self, event: Value) -> Result<(), Failed> {
        let mut failed = Failed(String::new());
        for _ in 0..STREAM_TRIES {
            failed = match self.invoke("publish-changes", event.clone()).await {
                Ok(answer) => match answer["batchItemFailures"][0]["itemIdentifier"].as_str() {
                    None => return Ok(()),
                    Some(failure) => Failed(format!("publish-changes failed at record {failure}")),
                },
                Err(failed) => failed,
            };
        }
        Err(failed)
    }

    /// Fires a schedule now, and returns what its function answers.
    pub async fn fire(&self, function: &str) -> Result<Value, Failed> {
        self.invoke(function, schedule_event(function, self.clock.now())).await
    }

    /// Delivers in the background, and fires the schedules while the clock runs by itself, for as long as it is polled.
    pub async fn run(&self) {
        let mut fired = tokio::time::Instant::now();
        loop {
            if let Err(error) = self.settle().await {
                tracing::error!(%error, "delivery failed");
            }
            if !self.clock.is_virtual() && fired.elapsed() >= SCHEDULE {
                fired = tokio::time::Instant::now();
                for function in SCHEDULED.into_iter().filter(|function| *function != "fetch-rates") {
                    if let Err(error) = self.fire(function).await {
                        tracing::error!(function, %error, "schedule failed");
                    }
                }
            }
            tokio::time::sleep(IDLE).await;
        }
    }

    /// E-mails and outgoing webhooks do not exist yet; the events they will be made from do.
    pub fn events_published(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for accepted in self.embedded.events() {
            let kind = accepted.event["detail-type"].as_str().unwrap_or_default().to_owned();
            *counts.entry(kind).or_default() += 1;
        }
        counts
    }
}

fn sequence(record: &Value) -> Option<&str> {
    record["dynamodb"]["SequenceNumber"].as_str()
}
