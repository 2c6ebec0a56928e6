//! A partner's pulse: what anomaly rules judge the next conversion by. Kept only where a program has such rules.

use domain::anomaly::Pulse;
use domain::ids::PartnerId;
use serde::{Deserialize, Serialize};

use crate::keys::Key;
use crate::table::{Item, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPulse {
    partner: PartnerId,
    pub pulse: Pulse,
    changes: u32,
}

impl Item for StoredPulse {
    fn key(&self) -> Key {
        Key::pulse(&self.partner)
    }

    fn revision(&self) -> u32 {
        self.changes
    }
}

impl Store {
    pub async fn pulse(&self, operation: &'static str, partner: &PartnerId) -> Result<StoredPulse, StoreError> {
        let stored = self.get(operation, &Key::pulse(partner)).await?;
        Ok(stored.unwrap_or_else(|| StoredPulse { partner: partner.clone(), pulse: Pulse::default(), changes: 0 }))
    }
}

impl Transaction {
    pub fn pulse(&mut self, read: &StoredPulse, pulse: Pulse) -> Result<(), StoreError> {
        let after = StoredPulse { pulse, changes: read.changes + 1, ..read.clone() };
        if read.changes == 0 { self.create(&after) } else { self.replace(&after, read.changes) }
    }
}
