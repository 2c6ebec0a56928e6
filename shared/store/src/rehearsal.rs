//! Rehearsing: a store that reads the table, and keeps what is written to itself.
//!
//! What runs on it takes the very path it would take in earnest, to the conditions of its transactions, and reads what it
//! wrote; nothing reaches the table. Two things are not rehearsed: indexes do not show what was written (they may lag in
//! earnest, too), and nobody else's writes are waited for. It costs a read of each item that would be written.
//!
//! A rehearsal that gathers can be had in earnest afterwards: all that was written, as one transaction under the conditions that each item
//! was first written under.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::keys::Key;
use crate::table::{Attributes, Order, Range, Store, StoreError, key_attributes, number, text, text_of};
use crate::transaction::{Action, Condition, Transaction};

type Gathered = Vec<(Key, Action)>;

/// What was written since it began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rehearsal {
    written: Arc<Mutex<BTreeMap<Key, Written>>>,
    /// What wrote it, oldest first, where it may be had in earnest.
    gathered: Option<Arc<Mutex<Gathered>>>,
}

/// What a write left.
#[derive(Debug, Clone)]
pub(crate) enum Written {
    Item(Attributes),
    Nothing,
}

impl Written {
    pub fn item(self) -> Option<Attributes> {
        match self {
            Self::Item(item) => Some(item),
            Self::Nothing => None,
        }
    }
}

impl Rehearsal {
    fn written(&self) -> MutexGuard<'_, BTreeMap<Key, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gather(&self, actions: impl Iterator<Item = (Key, Action)>) {
        if let Some(gathered) = &self.gathered {
            gathered.lock().unwrap_or_else(PoisonError::into_inner).extend(actions);
        }
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
                Written::Item(item) => page.insert(key.sk.clone(), item.clone()),
                Written::Nothing => page.remove(position),
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

    /// The same, to be had in earnest by [`Store::commit_gathered`].
    #[must_use]
    pub fn gathering(&self) -> Self {
        let gathered = Some(Arc::default());
        Self { rehearsal: Some(Rehearsal { gathered, ..Rehearsal::default() }), ..self.clone() }
    }

    /// Writes all that was written to a gathering rehearsal of this store, or nothing: [`StoreError::Stale`] if something it rests on has
    /// changed meanwhile, [`StoreError::TooLarge`] if it is more than one transaction takes.
    pub async fn commit_gathered(&self, operation: &'static str, gathering: &Self) -> Result<(), StoreError> {
        let gathered = gathering.rehearsal.as_ref().and_then(|rehearsal| rehearsal.gathered.as_ref());
        let gathered = gathered.map(|gathered| gathered.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let mut together: BTreeMap<Key, Action> = BTreeMap::new();
        for (key, action) in gathered.unwrap_or_default() {
            match together.entry(key) {
                Entry::Vacant(first) => drop(first.insert(action)),
                Entry::Occupied(mut earlier) => {
                    let both = earlier.get().clone().and_then(action, earlier.key())?;
                    drop(earlier.insert(both));
                }
            }
        }
        let created = together.iter().find_map(|(key, action)| match action {
            Action::Put { item, condition: Condition::Nothing } => Some((key.clone(), item.clone())),
            _ => None,
        });
        match self.commit(Transaction::of(operation, together.into_values().collect())).await {
            // It may be only the answer that was lost: what it made, which nobody else makes so, tells.
            Err(error @ StoreError::Unavailable(_)) => {
                let Some((key, item)) = created else { return Err(error) };
                let mut standing = HashMap::new();
                self.get_batch(operation, std::slice::from_ref(&key), &mut standing).await?;
                if standing.get(&key) == Some(&item) { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    /// What was written there, if anything was.
    pub(crate) fn rehearsed(&self, key: &Key) -> Option<Written> {
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
        for (key, action) in keys.iter().zip(&actions) {
            let stands = written.get(key).cloned().map_or_else(|| standing.get(key).cloned(), Written::item);
            let after = action.clone().applied_to(key, stands)?;
            applied.push((key.clone(), after));
        }
        written.extend(applied);
        rehearsal.gather(keys.into_iter().zip(actions));
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

    /// One action in the place of this and the next on the same item: a transaction has room for one.
    fn and_then(self, next: Self, key: &Key) -> Result<Self, StoreError> {
        match (self, next) {
            (Self::Put { condition, .. }, Self::Put { item, .. }) => Ok(Self::Put { item, condition }),
            (Self::Put { item, condition }, add @ Self::Add { .. }) => match add.applied_to(key, Some(item))? {
                Written::Item(item) => Ok(Self::Put { item, condition }),
                Written::Nothing => Err(StoreError::Corrupt(format!("{key:?} is gone"))),
            },
            (Self::Add { key, mut sums }, Self::Add { sums: more, .. }) => {
                for (attribute, step) in more {
                    match sums.iter_mut().find(|(known, _)| *known == attribute) {
                        Some((_, sum)) => *sum += step,
                        None => sums.push((attribute, step)),
                    }
                }
                Ok(Self::Add { key, sums })
            }
            _ => Err(StoreError::Corrupt(format!("{key:?} cannot be written and deleted at once"))),
        }
    }

    /// What it leaves; `Stale` if its condition does not hold.
    fn applied_to(self, key: &Key, stands: Option<Attributes>) -> Result<Written, StoreError> {
        match self {
            Self::Put { item, condition } => {
                let holds = match condition {
                    Condition::Anything => true,
                    Condition::Nothing => stands.is_none(),
                    Condition::Revision(revision) => {
                        stands.is_some_and(|stands| stands.get("rev") == Some(&number(revision)))
                    }
                };
                if holds { Ok(Written::Item(item)) } else { Err(StoreError::Stale) }
            }
            Self::Delete { attribute, value, .. } => {
                let holds = stands.is_some_and(|stands| stands.get(&attribute) == Some(&text(value)));
                if holds { Ok(Written::Nothing) } else { Err(StoreError::Stale) }
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
                Ok(Written::Item(after))
            }
        }
    }
}
