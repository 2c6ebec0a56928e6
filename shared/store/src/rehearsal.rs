//! Rehearsing: a store that reads the table, and keeps what is written to itself.
//!
//! What runs on it takes the very path it would take in earnest, to the conditions of its transactions, and reads what it
//! wrote; nothing reaches the table. Two things are not rehearsed: indexes do not show what was written (they may lag in
//! earnest, too), and nobody else's writes are waited for. It costs a read of each item that would be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::keys::Key;
use crate::table::{Attributes, Order, Range, Store, StoreError, key_attributes, number, text, text_of};
use crate::transaction::{Action, Condition};

/// What was written, or deleted, since it began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rehearsal(Arc<Mutex<BTreeMap<Key, Option<Attributes>>>>);

impl Rehearsal {
    fn written(&self) -> MutexGuard<'_, BTreeMap<Key, Option<Attributes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Corrects a page of a partition, as read from the table, by what was written. `end` is where the page ends, if another
    /// follows.
    pub fn show(&self, range: &Range<'_>, end: Option<&str>, items: &mut Vec<Attributes>) -> Result<(), StoreError> {
        let forward = range.order == Order::Forward;
        let mut page = BTreeMap::new();
        for item in items.drain(..) {
            page.insert(text_of(&item, "sk")?, item);
        }
        let start = Key { pk: range.partition.clone(), sk: String::new() };
        for (key, item) in self.written().range(start..).take_while(|(key, _)| key.pk == range.partition) {
            let position = key.sk.as_str();
            let on_page = end.is_none_or(|end| if forward { position <= end } else { position >= end });
            if !on_page || !range.continues_with(position) || range.up_to.is_some_and(|up_to| position > up_to) {
                continue;
            }
            match item {
                Some(item) => page.insert(key.sk.clone(), item.clone()),
                None => page.remove(position),
            };
        }
        items.extend(page.into_values());
        if !forward {
            items.reverse();
        }
        Ok(())
    }
}

impl Store {
    /// The same table, on which nothing is changed: writes are seen by this store and its clones alone.
    #[must_use]
    pub fn rehearsal(&self) -> Self {
        Self { rehearsal: Some(Rehearsal::default()), ..self.clone() }
    }

    /// What stands there by what was written; `None` if nothing was.
    pub(crate) fn rehearsed(&self, key: &Key) -> Option<Option<Attributes>> {
        self.rehearsal.as_ref()?.written().get(key).cloned()
    }

    pub(crate) async fn rehearse(
        &self,
        rehearsal: &Rehearsal,
        operation: &'static str,
        actions: Vec<Action>,
    ) -> Result<(), StoreError> {
        let mut standing = HashMap::with_capacity(actions.len());
        let keys = actions.iter().map(Action::key).collect::<Result<Vec<_>, _>>()?;
        self.get_batch(operation, &keys, &mut standing).await?;
        let mut written = rehearsal.written();
        let mut applied = Vec::with_capacity(actions.len());
        for (key, action) in keys.into_iter().zip(actions) {
            let stands = written.get(&key).cloned().unwrap_or_else(|| standing.get(&key).cloned());
            let after = action.applied_to(&key, stands)?;
            applied.push((key, after));
        }
        written.extend(applied);
        Ok(())
    }
}

impl Action {
    fn key(&self) -> Result<Key, StoreError> {
        match self {
            Self::Put { item, .. } => Ok(Key { pk: text_of(item, "pk")?, sk: text_of(item, "sk")? }),
            Self::Delete { key, .. } | Self::Add { key, .. } => Ok(key.clone()),
        }
    }

    /// What stands there afterwards; `Stale` if its condition does not hold.
    fn applied_to(self, key: &Key, stands: Option<Attributes>) -> Result<Option<Attributes>, StoreError> {
        match self {
            Self::Put { item, condition } => {
                let holds = match condition {
                    Condition::Anything => true,
                    Condition::Nothing => stands.is_none(),
                    Condition::Revision(revision) => {
                        stands.is_some_and(|stands| stands.get("rev") == Some(&number(revision)))
                    }
                };
                if holds { Ok(Some(item)) } else { Err(StoreError::Stale) }
            }
            Self::Delete { attribute, value, .. } => {
                let holds = stands.is_some_and(|stands| stands.get(&attribute) == Some(&text(value)));
                if holds { Ok(None) } else { Err(StoreError::Stale) }
            }
            Self::Add { sums, .. } => {
                let mut after = stands.unwrap_or_else(|| key_attributes(key));
                for (attribute, step) in sums {
                    let before = match after.get(&attribute) {
                        Some(AttributeValue::N(before)) => before.parse::<i64>().map_err(StoreError::corrupt)?,
                        _ => 0,
                    };
                    let sum = before.checked_add(step);
                    let sum = sum.ok_or_else(|| StoreError::Corrupt(format!("{attribute} is beyond its range")))?;
                    after.insert(attribute, number(sum));
                }
                Ok(Some(after))
            }
        }
    }
}
