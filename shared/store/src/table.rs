//! Reading the table. Everything is read strongly consistent, except through indexes, which only ever yield keys.

use std::collections::{HashMap, HashSet};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::keys::{Key, Place};
use crate::meter::Meter;
use crate::rehearsal::{Rehearsal, Written};
use crate::schema::{LIST_INDEX, WORK_INDEX};

/// Keys in one `BatchGetItem`, by its own limit.
const BATCH_KEYS: usize = 100;
/// How often keys that DynamoDB left unprocessed are asked for again.
const BATCH_TRIES: usize = 6;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something changed since it was read: read again, decide again.
    #[error("the data changed meanwhile")]
    Stale,
    /// Contention that bounded retries did not outlast.
    #[error("too many writers at once; try again")]
    Contention,
    #[error("{0} actions do not fit one transaction")]
    TooLarge(usize),
    #[error("an item in the table cannot be read: {0}")]
    Corrupt(String),
    #[error("the database refused or did not answer: {0}")]
    Unavailable(String),
}

impl StoreError {
    /// Keeps the service's own code and message, not the whole debug form, which may hold data.
    pub(crate) fn sdk<E: ProvideErrorMetadata, R>(error: SdkError<E, R>) -> Self {
        let told = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => error.to_string(),
        };
        Self::Unavailable(told)
    }

    /// Whether the database refused because it was asked for too much at once.
    pub fn is_throttled(&self) -> bool {
        let Self::Unavailable(told) = self else { return false };
        ["ProvisionedThroughputExceeded", "RequestLimitExceeded", "Throttling"]
            .iter()
            .any(|code| told.starts_with(code))
    }

    pub(crate) fn corrupt(error: impl std::fmt::Display) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<BuildError> for StoreError {
    fn from(error: BuildError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<domain::money::MoneyError> for StoreError {
    fn from(error: domain::money::MoneyError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// Something kept in the table.
pub(crate) trait Item: Serialize + DeserializeOwned {
    fn key(&self) -> Key;

    /// A number that every change raises; writes are conditional on it.
    fn revision(&self) -> u32 {
        1
    }

    fn list_place(&self) -> Option<Place> {
        None
    }

    fn work_place(&self) -> Option<Place> {
        None
    }

    /// When DynamoDB may forget it, in seconds since 1970.
    fn expires(&self) -> Option<i64> {
        None
    }
}

pub(crate) type Attributes = HashMap<String, AttributeValue>;

pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn number(value: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn key_attributes(key: &Key) -> Attributes {
    HashMap::from([("pk".to_owned(), text(&key.pk)), ("sk".to_owned(), text(&key.sk))])
}

/// All attributes of an item: its own, its key, its revision and its places in the indexes.
pub(crate) fn attributes<T: Item>(item: &T) -> Result<Attributes, StoreError> {
    let mut all: Attributes = serde_dynamo::to_item(item).map_err(StoreError::corrupt)?;
    // Absent and null are the same to us, and absent is smaller.
    all.retain(|_, value| !matches!(value, AttributeValue::Null(_)));
    all.extend(key_attributes(&item.key()));
    all.insert("rev".to_owned(), number(item.revision()));
    for (place, pk, sk) in [(item.list_place(), "lpk", "lsk"), (item.work_place(), "wpk", "wsk")] {
        if let Some(place) = place {
            all.insert(pk.to_owned(), text(place.pk));
            all.insert(sk.to_owned(), text(place.sk));
        }
    }
    if let Some(seconds) = item.expires() {
        all.insert("ttl".to_owned(), number(seconds));
    }
    Ok(all)
}

pub(crate) fn read<T: DeserializeOwned>(attributes: Attributes) -> Result<T, StoreError> {
    serde_dynamo::from_item(attributes).map_err(StoreError::corrupt)
}

/// One page of keys from an index or partition, in order.
#[derive(Debug, Clone)]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// The sort key after which the next page starts; `None` at the end.
    pub after: Option<String>,
}

/// The table, under a client. Clones are cheap and share the meter.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) client: Client,
    pub(crate) table: String,
    pub(crate) meter: Meter,
    pub(crate) rehearsal: Option<Rehearsal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Forward,
    Backward,
}

/// Which part of a partition to read.
#[derive(Debug, Clone)]
pub(crate) struct Range<'a> {
    pub partition: String,
    pub prefix: Option<&'a str>,
    /// Exclusive: only what comes after this, in the direction of reading.
    pub after: Option<&'a str>,
    /// Inclusive upper bound, forward reading only.
    pub up_to: Option<&'a str>,
    pub order: Order,
    pub limit: Option<i32>,
}

impl<'a> Range<'a> {
    pub fn all(partition: String) -> Self {
        Self { partition, prefix: None, after: None, up_to: None, order: Order::Forward, limit: None }
    }

    pub fn prefix(partition: String, prefix: &'a str) -> Self {
        Self { prefix: Some(prefix), ..Self::all(partition) }
    }

    /// Whether a sort key comes after where reading starts, and under the prefix.
    pub fn continues_with(&self, position: &str) -> bool {
        let forward = self.order == Order::Forward;
        let after = self.after.is_none_or(|after| if forward { position > after } else { position < after });
        after && self.prefix.is_none_or(|prefix| position.starts_with(prefix))
    }
}

impl Store {
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into(), meter: Meter::default(), rehearsal: None }
    }

    /// The same table and meter under another client.
    #[must_use]
    pub fn under(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    pub const fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        key: &Key,
    ) -> Result<Option<T>, StoreError> {
        if let Some(written) = self.rehearsed(key) {
            return written.item().map(read).transpose();
        }
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key_attributes(key)))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(StoreError::sdk)?;
        self.meter.record_read(operation, answer.consumed_capacity.as_slice());
        answer.item.map(read).transpose()
    }

    /// Items in the order of their keys; those that do not exist are left out.
    pub(crate) async fn get_many<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        keys: &[Key],
    ) -> Result<Vec<T>, StoreError> {
        let mut read_already = HashSet::with_capacity(keys.len());
        let mut items = Vec::with_capacity(keys.len());
        // Batch by batch: as it comes from the database, an item takes several times the room.
        for chunk in keys.chunks(BATCH_KEYS) {
            let chunk: Vec<_> = chunk.iter().filter(|key| read_already.insert(*key)).cloned().collect();
            let mut found: HashMap<Key, Attributes> = HashMap::with_capacity(chunk.len());
            self.get_batch(operation, &chunk, &mut found).await?;
            for key in &chunk {
                let item = match self.rehearsed(key) {
                    Some(Written::Item(item)) => Some(item),
                    Some(Written::Nothing) => None,
                    None => found.remove(key),
                };
                items.extend(item.map(read).transpose()?);
            }
        }
        Ok(items)
    }

    pub(crate) async fn get_batch(
        &self,
        operation: &'static str,
        keys: &[Key],
        found: &mut HashMap<Key, Attributes>,
    ) -> Result<(), StoreError> {
        // The database refuses a batch that names a key twice.
        let mut named = HashSet::with_capacity(keys.len());
        let mut wanted: Vec<Attributes> = keys.iter().filter(|key| named.insert(*key)).map(key_attributes).collect();
        for attempt in 0..BATCH_TRIES {
            if wanted.is_empty() {
                return Ok(());
            }
            crate::transaction::pause(attempt).await;
            let request = KeysAndAttributes::builder()
                .set_keys(Some(std::mem::take(&mut wanted)))
                .consistent_read(true)
                .build()?;
            let answer = self
                .client
                .batch_get_item()
                .request_items(&self.table, request)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(StoreError::sdk)?;
            self.meter.record_read(operation, answer.consumed_capacity());
            for item in answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default() {
                found.insert(key_of(&item)?, item);
            }
            wanted = answer
                .unprocessed_keys
                .unwrap_or_default()
                .remove(&self.table)
                .map(|rest| rest.keys)
                .unwrap_or_default();
        }
        if wanted.is_empty() { Ok(()) } else { Err(StoreError::Contention) }
    }

    /// One page of a partition of the table itself.
    pub(crate) async fn query<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        range: Range<'_>,
    ) -> Result<Listing<T>, StoreError> {
        let (items, after) = self.query_raw(operation, None, range).await?;
        Ok(Listing { items: items.into_iter().map(read).collect::<Result<_, _>>()?, after })
    }

    /// A whole part of a partition: for parts that are bounded by nature.
    pub(crate) async fn query_all<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        range: Range<'_>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        let mut after = range.after.map(str::to_owned);
        loop {
            let page = self.query(operation, Range { after: after.as_deref(), ..range.clone() }).await?;
            all.extend(page.items);
            after = page.after;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    pub(crate) async fn list(&self, operation: &'static str, range: Range<'_>) -> Result<Listing<Key>, StoreError> {
        self.keys(operation, LIST_INDEX, range).await
    }

    pub(crate) async fn work(&self, operation: &'static str, range: Range<'_>) -> Result<Listing<Key>, StoreError> {
        self.keys(operation, WORK_INDEX, range).await
    }

    async fn keys(
        &self,
        operation: &'static str,
        index: &'static str,
        range: Range<'_>,
    ) -> Result<Listing<Key>, StoreError> {
        let (items, after) = self.query_raw(operation, Some(index), range).await?;
        Ok(Listing { items: items.iter().map(key_of).collect::<Result<_, _>>()?, after })
    }

    async fn query_raw(
        &self,
        operation: &'static str,
        index: Option<&'static str>,
        range: Range<'_>,
    ) -> Result<(Vec<Attributes>, Option<String>), StoreError> {
        let (pk, sk) = match index {
            Some(LIST_INDEX) => ("lpk", "lsk"),
            Some(_) => ("wpk", "wsk"),
            None => ("pk", "sk"),
        };
        let forward = range.order == Order::Forward;
        // A sort key takes one condition. Bounds that a condition cannot say besides are applied to what comes back.
        let (condition, values) = sort_condition(&range, forward);
        let mut query = self
            .client
            .query()
            .table_name(&self.table)
            .set_index_name(index.map(str::to_owned))
            .key_condition_expression(format!("#pk = :pk{condition}"))
            .expression_attribute_names("#pk", pk)
            .expression_attribute_values(":pk", text(&range.partition))
            .scan_index_forward(forward)
            .set_limit(range.limit)
            .consistent_read(index.is_none())
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        if !values.is_empty() {
            query = query.expression_attribute_names("#sk", sk);
        }
        for (name, value) in values {
            query = query.expression_attribute_values(name, text(value));
        }
        let answer = query.send().await.map_err(StoreError::sdk)?;
        self.meter.record_read(operation, answer.consumed_capacity.as_slice());
        let mut items = answer.items.unwrap_or_default();
        let mut more = answer.last_evaluated_key.is_some();
        let last = items.last().map(|item| text_of(item, sk)).transpose()?;
        let within = |item: &Attributes| text_of(item, sk).map_or(true, |position| range.continues_with(&position));
        // Once outside the prefix, there is nothing more to come.
        if range.prefix.is_some_and(|prefix| last.as_deref().is_some_and(|last| !last.starts_with(prefix))) {
            more = false;
        }
        items.retain(within);
        let after = if more { last } else { None };
        if let (Some(rehearsal), None) = (&self.rehearsal, index) {
            rehearsal.show(&range, after.as_deref(), &mut items)?;
        }
        Ok((items, after))
    }
}

fn sort_condition<'a>(range: &'a Range<'_>, forward: bool) -> (&'static str, Vec<(&'static str, &'a str)>) {
    match (range.after, range.up_to, range.prefix) {
        (Some(after), Some(up_to), _) if forward => (" AND #sk BETWEEN :a AND :b", vec![(":a", after), (":b", up_to)]),
        (Some(after), _, _) if forward => (" AND #sk > :a", vec![(":a", after)]),
        (Some(after), _, _) => (" AND #sk < :a", vec![(":a", after)]),
        (None, Some(up_to), _) => (" AND #sk <= :b", vec![(":b", up_to)]),
        (None, None, Some(prefix)) => (" AND begins_with(#sk, :a)", vec![(":a", prefix)]),
        (None, None, None) => ("", vec![]),
    }
}

pub(crate) fn text_of(item: &Attributes, name: &str) -> Result<String, StoreError> {
    match item.get(name) {
        Some(AttributeValue::S(value)) => Ok(value.clone()),
        _ => Err(StoreError::Corrupt(format!("an item has no {name}"))),
    }
}

fn key_of(item: &Attributes) -> Result<Key, StoreError> {
    Ok(Key { pk: text_of(item, "pk")?, sk: text_of(item, "sk")? })
}
