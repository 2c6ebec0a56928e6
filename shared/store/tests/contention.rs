//! What an embedded engine never does by itself: conflicts, and answers that are lost after the write was applied.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use domain::ids::ProgramId;
use domain::journal::{Entry, What};
use embedded::{CallFuture, Embedded, Service, system_clock};
use http::{Request, Response};
use store::{Store, StoreError, Transaction, create_table};

/// What goes wrong with the next writes.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// Refused before anything happens, as when another transaction holds an item.
    Conflict,
    /// Applied, but the caller never hears of it.
    AnswerLost,
}

#[derive(Debug, Clone)]
struct Troubled {
    inner: Embedded,
    trouble: Trouble,
    times_left: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
}

impl Service for Troubled {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_> {
        Box::pin(async move {
            let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok());
            let writes = ["DynamoDB_20120810.TransactWriteItems", "DynamoDB_20120810.PutItem"];
            if !target.is_some_and(|target| writes.contains(&target)) {
                return Ok(self.inner.handle(request));
            }
            self.writes.fetch_add(1, Ordering::SeqCst);
            let strikes =
                self.times_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            match (strikes, self.trouble) {
                (false, _) => Ok(self.inner.handle(request)),
                (true, Trouble::Conflict) => Ok(conflict()),
                (true, Trouble::AnswerLost) => {
                    self.inner.handle(request);
                    Err(ConnectorError::io("the connection broke".into()))
                }
            }
        })
    }
}

fn conflict() -> Response<Bytes> {
    let body = serde_json::json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons [TransactionConflict, None]",
        "CancellationReasons": [{"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}, {"Code": "None"}],
    });
    Response::builder()
        .status(400)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Bytes::from(body.to_string()))
        .unwrap()
}

async fn troubled(trouble: Trouble, times: usize) -> (Store, Arc<AtomicUsize>) {
    let embedded = Embedded::memory(system_clock()).unwrap();
    create_table(&aws_sdk_dynamodb::Client::new(&embedded.sdk_config()), "contention").await.unwrap();
    let transactions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&transactions);
    let config = embedded.sdk_config_through(move |inner| Troubled {
        inner,
        trouble,
        times_left: Arc::new(AtomicUsize::new(times)),
        writes: counted,
    });
    (Store::new(aws_sdk_dynamodb::Client::new(&config), "contention"), transactions)
}

/// Two entries, since a single put would not be a transaction.
fn two_entries() -> Transaction {
    let mut transaction = Transaction::new("test");
    for position in 1..=2 {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let entry = Entry::new(ProgramId::from_uuid(1).as_str(), position, at, "ann", What::Accrue);
        transaction.entry(&entry.seal(&mut []).unwrap()).unwrap();
    }
    transaction
}

#[tokio::test]
async fn a_transaction_that_loses_against_another_is_sent_again() {
    let (store, transactions) = troubled(Trouble::Conflict, 3).await;
    store.commit(two_entries()).await.unwrap();
    assert_eq!(transactions.load(Ordering::SeqCst), 4);
    assert_eq!(store.chain("t", ProgramId::from_uuid(1).as_str()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn contention_that_does_not_end_is_told_and_leaves_nothing() {
    let (store, transactions) = troubled(Trouble::Conflict, usize::MAX).await;
    assert!(matches!(store.commit(two_entries()).await, Err(StoreError::Contention)));
    assert_eq!(transactions.load(Ordering::SeqCst), 8, "bounded");
    assert!(store.chain("t", ProgramId::from_uuid(1).as_str()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_applied_twice() {
    let (store, transactions) = troubled(Trouble::AnswerLost, 1).await;
    store.commit(two_entries()).await.unwrap();
    assert_eq!(transactions.load(Ordering::SeqCst), 2, "the SDK sends the same transaction with the same token");
    assert_eq!(store.chain("t", ProgramId::from_uuid(1).as_str()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_single_put_whose_answer_was_lost_is_known_again() {
    let (store, puts) = troubled(Trouble::AnswerLost, 1).await;
    let entry = |by: &str| {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        Entry::new("act_1", 1, at, by, What::Accrue).seal(&mut []).unwrap()
    };
    let put = |by: &str| {
        let mut transaction = Transaction::new("test");
        transaction.entry(&entry(by)).unwrap();
        transaction
    };
    store.commit(put("ann")).await.unwrap();
    assert_eq!(puts.load(Ordering::SeqCst), 2, "the SDK sends it again and meets its own item");
    assert!(matches!(store.commit(put("ben")).await, Err(StoreError::Stale)), "another's item is not ours");
}
