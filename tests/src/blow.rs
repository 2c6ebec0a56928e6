//! Processes that are struck at one of their writes. Between two writes nothing is kept, so whoever dies at a read has come as far as whoever dies
//! at the write after it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use embedded::{CallFuture, Embedded, Service};
use tokio::sync::Notify;
use workflows::Context;
use workflows::queues::Queues;

use crate::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The process ends: the write is not made, nor anything after it.
    Death,
    /// The write is made, and the connection breaks before the answer.
    LostAnswer,
}

/// What came of a process.
#[derive(Debug)]
pub struct Struck<T> {
    /// What it answered, unless it died.
    pub answer: Option<T>,
    /// The blow came: it made so many writes.
    pub hit: bool,
}

const READS: [&str; 5] = ["GetItem", "BatchGetItem", "TransactGetItems", "Query", "Scan"];

struct Services {
    embedded: Embedded,
    blow: Blow,
    at: usize,
    writes: Arc<AtomicUsize>,
    ended: Arc<Notify>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services")
    }
}

impl Service for Services {
    fn call(&self, request: http::Request<Bytes>) -> CallFuture<'_> {
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let reads = target.rsplit('.').next().is_some_and(|operation| READS.contains(&operation));
        let strikes = !reads && self.writes.fetch_add(1, Ordering::SeqCst) == self.at;
        Box::pin(async move {
            match self.blow {
                Blow::Death if strikes => {
                    self.ended.notify_one();
                    std::future::pending().await
                }
                Blow::LostAnswer if strikes => {
                    self.embedded.call(request).await?;
                    Err(ConnectorError::io("the connection broke before the answer".into()))
                }
                Blow::Death | Blow::LostAnswer => self.embedded.call(request).await,
            }
        })
    }
}

/// Runs something in a process of its own, which this befalls at its write number `at`, counted from 0.
pub async fn struck<T>(world: &World, blow: Blow, at: usize, run: impl AsyncFnOnce(&Context) -> T) -> Struck<T> {
    let (writes, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let config = world.system.embedded.sdk_config_through(|embedded| Services {
        embedded,
        blow,
        at,
        writes: Arc::clone(&writes),
        ended: Arc::clone(&ended),
    });
    let plain = &world.system.context;
    let context = Context {
        store: plain.store.under(aws_sdk_dynamodb::Client::new(&config)),
        queues: Queues { sqs: aws_sdk_sqs::Client::new(&config), ..plain.queues.clone() },
        ..plain.clone()
    };
    let answer = tokio::select! {
        answer = run(&context) => Some(answer),
        () = ended.notified() => None,
    };
    Struck { answer, hit: writes.load(Ordering::SeqCst) > at }
}

/// A copy of a directory, for one test that spoils it.
pub fn copied(from: &std::path::Path, name: &str) -> std::path::PathBuf {
    let to = crate::temporary_directory(name);
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    to
}
