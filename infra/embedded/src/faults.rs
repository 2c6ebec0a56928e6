//! Faults between the SDK and the services, as networks and services make them: refused before anything was done, applied with
//! the answer lost, done in part, or answered from an index that lags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::aws_json::{self, JSON_1_0};
use crate::connector::{CallFuture, Service};
use crate::{dynamodb, eventbridge, sqs};

/// What can go wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Refused: too many requests. Nothing was done.
    Throttled,
    /// Refused: another transaction holds an item. Nothing was done.
    Conflict,
    /// The service failed before it did anything.
    Unavailable,
    /// No connection. Nothing was done.
    Unreachable,
    /// It was done, and the connection broke before the answer.
    AnswerLost,
    /// It was done, and yet the service answered that it failed.
    FailedAfter,
    /// A part of a batch was done, the rest was left.
    InPart,
    /// An index answered as it was some time ago.
    Stale,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::Throttled,
        Self::Conflict,
        Self::Unavailable,
        Self::Unreachable,
        Self::AnswerLost,
        Self::FailedAfter,
        Self::InPart,
        Self::Stale,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Unreachable => "unreachable",
            Self::AnswerLost => "answer_lost",
            Self::FailedAfter => "failed_after",
            Self::InPart => "in_part",
            Self::Stale => "stale",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

/// Which service a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceName {
    DynamoDb,
    Other,
}

/// Decides which requests are struck.
pub trait Fate: Send + Sync + fmt::Debug {
    /// One of the faults that are possible for the request at hand to a service, or none.
    fn strike(&self, service: ServiceName, possible: &[Fault]) -> Option<Fault>;
}

/// A service that fails as its [`Fate`] decides.
#[derive(Debug)]
pub struct Faulty<S, F> {
    service: S,
    fate: F,
    /// The last answer to each question asked of an index.
    answered: Mutex<BTreeMap<String, Response<Bytes>>>,
    /// Transactions that may be done though nobody was told.
    untold: Mutex<BTreeSet<String>>,
}

impl<S: Service, F: Fate> Faulty<S, F> {
    pub fn new(service: S, fate: F) -> Self {
        Self { service, fate, answered: Mutex::default(), untold: Mutex::default() }
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ConnectorError> {
        let Some((service, operation)) = aws_json::target(request.headers()) else {
            return self.service.call(request).await;
        };
        let (service, operation) = (service.to_owned(), operation.to_owned());
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let question = (operation == "Query").then(|| question(&body)).flatten();
        let earlier = question.as_ref().and_then(|question| self.answered().get(question).cloned());
        let mut possible = possible(&service, &operation, &body, earlier.is_some());
        let transaction = body["ClientRequestToken"].as_str().filter(|_| operation == "TransactWriteItems");
        // What is done is not cancelled by being asked for once more.
        if transaction.is_some_and(|transaction| self.untold().contains(transaction)) {
            possible.retain(|fault| *fault != Fault::Conflict);
        }
        let name = if service == dynamodb::TARGET { ServiceName::DynamoDb } else { ServiceName::Other };
        match self.fate.strike(name, &possible) {
            None => {}
            Some(Fault::Throttled) => return Ok(throttled(&service)),
            Some(Fault::Conflict) => return Ok(conflict(&operation, &body)),
            Some(Fault::Unavailable) => return Ok(aws_json::internal_failure(JSON_1_0, "struck before it was done")),
            Some(Fault::Unreachable) => return Err(ConnectorError::io("no route to the service".into())),
            Some(Fault::AnswerLost) => {
                self.untold().extend(transaction.map(str::to_owned));
                self.service.call(request).await?;
                return Err(ConnectorError::io("the connection broke before the answer".into()));
            }
            Some(Fault::FailedAfter) => {
                self.untold().extend(transaction.map(str::to_owned));
                self.service.call(request).await?;
                return Ok(aws_json::internal_failure(JSON_1_0, "struck after it was done"));
            }
            Some(Fault::InPart) => return self.in_part(request, &operation, body).await,
            Some(Fault::Stale) => {
                if let Some(earlier) = earlier {
                    return Ok(earlier);
                }
            }
        }
        let answer = self.service.call(request).await?;
        if let Some(question) = question
            && answer.status().is_success()
        {
            self.answered().insert(question, answer.clone());
        }
        Ok(answer)
    }

    /// Half of a batch, rounded down, is done; the rest is said to be left.
    async fn in_part(
        &self,
        request: Request<Bytes>,
        operation: &str,
        mut body: Value,
    ) -> Result<Response<Bytes>, ConnectorError> {
        let member = batch_member(&mut body, operation);
        let all = member.as_array().cloned().unwrap_or_default();
        let (done, left) = all.split_at(all.len() / 2);
        *member = json!(done);
        let mut answer = if done.is_empty() {
            json!({})
        } else {
            let (parts, _) = request.into_parts();
            let answer = self.service.call(Request::from_parts(parts, body.to_string().into())).await?;
            if !answer.status().is_success() {
                return Ok(answer);
            }
            serde_json::from_slice(answer.body()).unwrap_or_default()
        };
        match operation {
            "BatchGetItem" => {
                *batch_member(&mut body, operation) = json!(left);
                answer["UnprocessedKeys"] = body["RequestItems"].take();
            }
            "PutEvents" => {
                let refused =
                    left.iter().map(|_| json!({"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}));
                extend(&mut answer["Entries"], refused);
                answer["FailedEntryCount"] = json!(left.len());
            }
            _ => {
                let refused =
                    left.iter().map(|entry| json!({"Id": entry["Id"], "SenderFault": false, "Code": "InternalError"}));
                extend(&mut answer["Failed"], refused);
            }
        }
        Ok(aws_json::response(StatusCode::OK, JSON_1_0, answer.to_string().into()))
    }

    fn untold(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) -> MutexGuard<'_, BTreeMap<String, Response<Bytes>>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Service, F: Fate> Service for Faulty<S, F> {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_> {
        Box::pin(self.answer(request))
    }
}

fn possible(service: &str, operation: &str, body: &Value, asked_before: bool) -> Vec<Fault> {
    use Fault::{AnswerLost, Conflict, FailedAfter, InPart, Stale, Throttled, Unavailable, Unreachable};
    let mut possible = vec![Throttled, Unavailable, Unreachable, AnswerLost, FailedAfter];
    let database = service == dynamodb::TARGET;
    if database && matches!(operation, "TransactWriteItems" | "PutItem" | "UpdateItem" | "DeleteItem") {
        possible.push(Conflict);
    }
    let batch = matches!(operation, "PutEvents" | "SendMessageBatch")
        || operation == "BatchGetItem" && body["RequestItems"].as_object().is_some_and(|tables| tables.len() == 1);
    if batch {
        possible.push(InPart);
    }
    if asked_before {
        possible.push(Stale);
    }
    possible
}

/// The index and partition a query asks for from its start; `None` where consistency is promised.
fn question(body: &Value) -> Option<String> {
    let index = body["IndexName"].as_str()?;
    body["ExclusiveStartKey"].is_null().then(|| {
        format!("{index} {} {} {}", body["ExpressionAttributeValues"][":pk"], body["ScanIndexForward"], body["Limit"])
    })
}

fn throttled(service: &str) -> Response<Bytes> {
    let shape = match service {
        dynamodb::TARGET => "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
        sqs::TARGET => "com.amazonaws.sqs#RequestThrottled",
        eventbridge::TARGET => "com.amazonaws.eventbridge#ThrottlingException",
        _ => "com.amazon.coral.service#ThrottlingException",
    };
    refusal(shape, &json!({"message": "slow down"}))
}

fn conflict(operation: &str, body: &Value) -> Response<Bytes> {
    if operation != "TransactWriteItems" {
        let shape = "com.amazonaws.dynamodb.v20120810#TransactionConflictException";
        return refusal(shape, &json!({"message": "Transaction is ongoing for the item"}));
    }
    let actions = body["TransactItems"].as_array().map_or(0, Vec::len);
    let reasons: Vec<Value> = (0..actions)
        .map(|n| match n {
            0 => json!({"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}),
            _ => json!({"Code": "None"}),
        })
        .collect();
    let shape = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    let message = "Transaction cancelled, please refer cancellation reasons for specific reasons";
    refusal(shape, &json!({"Message": message, "CancellationReasons": reasons}))
}

fn refusal(shape: &str, members: &Value) -> Response<Bytes> {
    let mut body = members.clone();
    body["__type"] = json!(shape);
    aws_json::response(StatusCode::BAD_REQUEST, JSON_1_0, body.to_string().into())
}

/// The list of a batch request that may be done in part.
fn batch_member<'a>(body: &'a mut Value, operation: &str) -> &'a mut Value {
    if operation == "BatchGetItem" {
        let table =
            body["RequestItems"].as_object().and_then(|tables| tables.keys().next().cloned()).unwrap_or_default();
        &mut body["RequestItems"][table]["Keys"]
    } else {
        &mut body["Entries"]
    }
}

fn extend(list: &mut Value, more: impl Iterator<Item = Value>) {
    let mut all = list.as_array().cloned().unwrap_or_default();
    all.extend(more);
    *list = Value::Array(all);
}
