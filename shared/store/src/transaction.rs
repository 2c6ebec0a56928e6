//! Writing the table: everything that belongs together in one conditional transaction, retried where nothing was applied.

use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    Delete, Put, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use domain::balance::{Balance, Bucket};
use domain::ids::PartnerId;
use domain::journal::{Change, Sealed, balance_changes};
use domain::money::Currency;

use crate::keys::Key;
use crate::table::{Attributes, Item, Store, StoreError, attributes, key_attributes, number, text};

/// How often a transaction that lost against another is tried again.
const CONFLICT_TRIES: usize = 8;
/// Actions in one transaction, by DynamoDB's own limit.
const MAX_ACTIONS: usize = 100;

/// Actions that apply together or not at all.
#[derive(Debug)]
pub struct Transaction {
    operation: &'static str,
    actions: Vec<Action>,
}

#[derive(Debug, Clone)]
pub(crate) enum Action {
    Put {
        item: Attributes,
        condition: Condition,
    },
    /// Fails unless the item's attribute has the value.
    Delete {
        key: Key,
        attribute: String,
        value: String,
    },
    /// Adds to numbers; what is not there yet counts as zero.
    Add {
        key: Key,
        sums: Vec<(String, i64)>,
    },
}

/// What must stand where an item is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Anything,
    Nothing,
    Revision(u32),
}

impl Action {
    fn in_table(self, table: &str) -> Result<TransactWriteItem, StoreError> {
        let action = TransactWriteItem::builder();
        Ok(match self {
            Self::Put { item, condition } => {
                let put = Put::builder().table_name(table).set_item(Some(item));
                let put = match condition {
                    Condition::Anything => put,
                    Condition::Nothing => put.condition_expression("attribute_not_exists(pk)"),
                    Condition::Revision(revision) => {
                        put.condition_expression("rev = :rev").expression_attribute_values(":rev", number(revision))
                    }
                };
                action.put(put.build()?)
            }
            Self::Delete { key, attribute, value } => {
                let delete = Delete::builder()
                    .table_name(table)
                    .set_key(Some(key_attributes(&key)))
                    .condition_expression("#a = :a")
                    .expression_attribute_names("#a", attribute)
                    .expression_attribute_values(":a", text(value));
                action.delete(delete.build()?)
            }
            Self::Add { key, sums } => {
                let mut update = Update::builder().table_name(table).set_key(Some(key_attributes(&key)));
                let mut adds = Vec::with_capacity(sums.len());
                for (n, (attribute, value)) in sums.into_iter().enumerate() {
                    adds.push(format!("#a{n} :a{n}"));
                    update = update
                        .expression_attribute_names(format!("#a{n}"), attribute)
                        .expression_attribute_values(format!(":a{n}"), number(value));
                }
                action.update(update.update_expression(format!("ADD {}", adds.join(", "))).build()?)
            }
        }
        .build())
    }
}

impl Transaction {
    /// `operation` names it in the capacity report.
    pub const fn new(operation: &'static str) -> Self {
        Self { operation, actions: Vec::new() }
    }

    pub(crate) const fn of(operation: &'static str, actions: Vec<Action>) -> Self {
        Self { operation, actions }
    }

    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    pub fn len(&self) -> usize {
        self.actions.len()
    }

    /// Fails if the item exists.
    pub(crate) fn create<T: Item>(&mut self, item: &T) -> Result<(), StoreError> {
        self.put(item, Condition::Nothing)
    }

    /// Fails unless the item stands at the revision it was read at.
    pub(crate) fn replace<T: Item>(&mut self, item: &T, read_at: u32) -> Result<(), StoreError> {
        self.put(item, Condition::Revision(read_at))
    }

    /// Writes the item whatever stood there: for what only one writer can reach.
    pub(crate) fn write<T: Item>(&mut self, item: &T) -> Result<(), StoreError> {
        self.put(item, Condition::Anything)
    }

    /// Adds to numbers of an item; what is not there yet counts as zero.
    pub(crate) fn add(&mut self, key: Key, sums: Vec<(String, i64)>) {
        if !sums.is_empty() {
            self.actions.push(Action::Add { key, sums });
        }
    }

    fn put<T: Item>(&mut self, item: &T, condition: Condition) -> Result<(), StoreError> {
        self.actions.push(Action::Put { item: attributes(item)?, condition });
        Ok(())
    }

    /// Fails unless the item's attribute has the value.
    pub(crate) fn delete_if(&mut self, key: Key, attribute: &str, value: &str) {
        self.actions.push(Action::Delete { key, attribute: attribute.to_owned(), value: value.to_owned() });
    }

    /// Writes changed lines, each conditional on its version, the entry that tells it, and the balances that follow.
    pub fn change(&mut self, changes: &[Change], entry: &Sealed) -> Result<(), StoreError> {
        for change in changes {
            match &change.before {
                None => self.create(&change.after)?,
                Some(before) => self.replace(&change.after, before.version)?,
            }
        }
        self.entry(entry)?;
        for ((partner, currency, shard), sum) in balance_changes(changes)? {
            self.add_to_balance(&partner, currency, &shard, &sum);
        }
        Ok(())
    }

    fn add_to_balance(&mut self, partner: &PartnerId, currency: Currency, shard: &str, sum: &Balance) {
        let amounts = sum.amounts().map(|(bucket, amount)| (bucket.as_str().to_owned(), amount.units()));
        let counts = sum.counts().map(|(state, count)| (count_attribute(state), count));
        let sums: Vec<_> = amounts.chain(counts).collect();
        self.add(Key::balance(partner, currency, shard), sums);
    }
}

pub(crate) fn count_attribute(state: domain::line::StateName) -> String {
    format!("{}_lines", Bucket::of(state).as_str())
}

impl Store {
    /// Applies a transaction. [`StoreError::Stale`] if a condition failed: then nothing was applied.
    pub async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let Transaction { operation, actions } = transaction;
        if actions.is_empty() {
            return Ok(());
        }
        if actions.len() > MAX_ACTIONS {
            return Err(StoreError::TooLarge(actions.len()));
        }
        if let Some(rehearsal) = &self.rehearsal {
            return self.rehearse(rehearsal, operation, actions).await;
        }
        let actions = actions.into_iter().map(|action| action.in_table(&self.table));
        let actions = actions.collect::<Result<Vec<_>, _>>()?;
        if let [action] = actions.as_slice()
            && let Some(put) = &action.put
        {
            return self.put_alone(operation, put.clone()).await;
        }
        let mut token = fresh_token();
        for attempt in 0..CONFLICT_TRIES {
            pause(attempt).await;
            let answer = self
                .client
                .transact_write_items()
                .set_transact_items(Some(actions.clone()))
                .client_request_token(&token)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await;
            match answer {
                Ok(done) => {
                    self.meter.record_write(operation, done.consumed_capacity());
                    return Ok(());
                }
                Err(error) => match refusal(&error) {
                    // Nothing was applied, so it may be sent again, as a new transaction.
                    Refusal::Conflict => token = fresh_token(),
                    // This very transaction is under way: asking with its token tells how it ended.
                    Refusal::InProgress => {}
                    Refusal::Condition => return Err(StoreError::Stale),
                    Refusal::Other => return Err(StoreError::sdk(error)),
                },
            }
            tracing::debug!(operation, attempt, "transaction lost a race");
        }
        Err(StoreError::Contention)
    }

    /// One put needs no transaction, and costs half. It has no token, so after a lost answer the SDK's own retry meets the
    /// item it wrote itself: what stands there then is compared with what was to be written.
    async fn put_alone(&self, operation: &'static str, put: Put) -> Result<(), StoreError> {
        for attempt in 0..CONFLICT_TRIES {
            pause(attempt).await;
            let answer = self
                .client
                .put_item()
                .table_name(&put.table_name)
                .set_item(Some(put.item.clone()))
                .set_condition_expression(put.condition_expression.clone())
                .set_expression_attribute_values(put.expression_attribute_values.clone())
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await;
            let error = match answer {
                Ok(done) => {
                    self.meter.record_write(operation, done.consumed_capacity.as_slice());
                    return Ok(());
                }
                Err(error) => error,
            };
            match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    let ours = failed.item.as_ref() == Some(&put.item);
                    return if ours { Ok(()) } else { Err(StoreError::Stale) };
                }
                Some(PutItemError::TransactionConflictException(_)) => {}
                _ => return Err(StoreError::sdk(error)),
            }
        }
        Err(StoreError::Contention)
    }
}

/// Names one transaction to DynamoDB for ten minutes.
fn fresh_token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

enum Refusal {
    Conflict,
    InProgress,
    Condition,
    Other,
}

/// A failed condition outweighs a conflict beside it: what was read is out of date either way.
fn refusal<R>(error: &SdkError<TransactWriteItemsError, R>) -> Refusal {
    let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) = error.as_service_error() else {
        return if error.code() == Some("TransactionInProgressException") {
            Refusal::InProgress
        } else {
            Refusal::Other
        };
    };
    let codes: Vec<_> = canceled.cancellation_reasons().iter().filter_map(|reason| reason.code()).collect();
    if codes.contains(&"ConditionalCheckFailed") {
        Refusal::Condition
    } else if codes
        .iter()
        .any(|code| matches!(*code, "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded"))
    {
        Refusal::Conflict
    } else {
        Refusal::Other
    }
}

/// Full jitter: up to 20 ms, doubling, at most 1.3 s. The first attempt does not wait.
pub(crate) async fn pause(attempt: usize) {
    if attempt > 0 {
        let ceiling = 20_u64 << attempt.min(6);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..ceiling))).await;
    }
}
