//! Which partner a signed-in person belongs to. An item of ours: attributes of an identity provider can often be written by
//! the person they describe.

use domain::ids::PartnerId;
use serde::{Deserialize, Serialize};

use crate::keys::Key;
use crate::table::{Item, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The token's subject.
    pub subject: String,
    pub partner: PartnerId,
}

impl Item for Membership {
    fn key(&self) -> Key {
        Key::membership(&self.subject)
    }
}

impl Transaction {
    /// Replaces an earlier membership: a person belongs to one partner.
    pub fn set_membership(&mut self, membership: &Membership) -> Result<(), StoreError> {
        self.write(membership)
    }
}

impl Store {
    pub async fn membership(&self, operation: &'static str, subject: &str) -> Result<Option<Membership>, StoreError> {
        self.get(operation, &Key::membership(subject)).await
    }
}
