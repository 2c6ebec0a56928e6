//! Tallies: how many conversions of a tiered rule a partner has, changed in the transaction of the conversion.

use domain::ids::PartnerId;
use serde::{Deserialize, Serialize};

use crate::keys::Key;
use crate::table::{Item, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub partner: PartnerId,
    pub rule: String,
    pub count: u64,
    /// Zero where it does not exist yet.
    pub changes: u32,
}

impl Item for Tally {
    fn key(&self) -> Key {
        Key::tally(&self.partner, &self.rule)
    }

    fn revision(&self) -> u32 {
        self.changes
    }
}

impl Store {
    /// A tally that does not exist stands at zero.
    pub async fn tally(&self, operation: &'static str, partner: &PartnerId, rule: &str) -> Result<Tally, StoreError> {
        let stored = self.get(operation, &Key::tally(partner, rule)).await?;
        Ok(stored.unwrap_or_else(|| Tally { partner: partner.clone(), rule: rule.to_owned(), count: 0, changes: 0 }))
    }
}

impl Transaction {
    /// Moves a tally as it was read by `step`.
    pub fn tally(&mut self, read: &Tally, step: i64) -> Result<(), StoreError> {
        let moved = Tally { count: read.count.saturating_add_signed(step), changes: read.changes + 1, ..read.clone() };
        if read.changes == 0 { self.create(&moved) } else { self.replace(&moved, read.changes) }
    }
}
