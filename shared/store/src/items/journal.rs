//! Journal entries: written once, never changed. The text that was hashed is what is kept.

use domain::ids::Hash;
use domain::journal::{Entry, EntryRef, Sealed};
use serde::{Deserialize, Serialize};

use crate::keys::{Key, journal_partition};
use crate::table::{Item, Range, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredEntry {
    /// Known to the writer; a reader finds both in the text.
    #[serde(skip)]
    stream: String,
    #[serde(skip)]
    position: u32,
    hash: String,
    text: String,
}

impl Item for StoredEntry {
    fn key(&self) -> Key {
        Key::entry(&self.stream, self.position)
    }
}

impl StoredEntry {
    pub(crate) fn open(self) -> Result<Sealed, StoreError> {
        let entry: Entry = serde_json::from_str(&self.text).map_err(StoreError::corrupt)?;
        let (stream, position) = (entry.stream.clone(), entry.position);
        if Hash::of(self.text.as_bytes()).as_str() != self.hash {
            return Err(StoreError::Corrupt(format!("journal entry {stream}/{position} was altered")));
        }
        Ok(Sealed { entry, text: self.text, at: EntryRef { stream, position, hash: self.hash } })
    }
}

/// The entries of one conversion, payout or command, in order.
pub type Chain = Vec<Sealed>;

impl Transaction {
    /// Fails if the position in the stream is taken: then somebody else changed the same thing first.
    pub fn entry(&mut self, sealed: &Sealed) -> Result<(), StoreError> {
        self.create(&StoredEntry {
            stream: sealed.at.stream.clone(),
            position: sealed.at.position,
            hash: sealed.at.hash.clone(),
            text: sealed.text.clone(),
        })
    }
}

impl Store {
    /// Every entry is checked against its hash.
    pub async fn chain(&self, operation: &'static str, stream: &str) -> Result<Chain, StoreError> {
        let stored: Vec<StoredEntry> = self.query_all(operation, Range::all(journal_partition(stream))).await?;
        stored.into_iter().map(StoredEntry::open).collect()
    }

    /// Whether an entry stands at this position of a stream.
    pub async fn is_written(&self, operation: &'static str, stream: &str, position: u32) -> Result<bool, StoreError> {
        let stored: Option<StoredEntry> = self.get(operation, &Key::entry(stream, position)).await?;
        Ok(stored.is_some())
    }

    /// Many at once, each checked against its hash, in the order they are named; those that do not exist are left out.
    pub async fn entries(&self, operation: &'static str, at: &[EntryRef]) -> Result<Vec<Sealed>, StoreError> {
        let keys: Vec<_> = at.iter().map(|at| Key::entry(&at.stream, at.position)).collect();
        let stored: Vec<StoredEntry> = self.get_many(operation, &keys).await?;
        stored.into_iter().map(StoredEntry::open).collect()
    }

    pub async fn entry(&self, operation: &'static str, at: &EntryRef) -> Result<Option<Sealed>, StoreError> {
        let stored: Option<StoredEntry> = self.get(operation, &Key::entry(&at.stream, at.position)).await?;
        stored.map(StoredEntry::open).transpose()
    }
}
