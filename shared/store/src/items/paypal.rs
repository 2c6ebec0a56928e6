//! A program's connection to PayPal's API: everything but the secret.

use domain::ids::ProgramId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::Key;
use crate::table::{Item, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaypalConnection {
    pub program: ProgramId,
    pub environment: PaypalEnvironment,
    pub client_id: String,
    /// PayPal's own id of the webhook that its deliveries are signed for.
    pub webhook_id: String,
    /// Off: payouts wait for a file, as if there were no connection.
    pub enabled: bool,
    pub changed_at: Timestamp,
    pub changed_by: String,
    pub version: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaypalEnvironment {
    Live,
    Sandbox,
}

impl Item for PaypalConnection {
    fn key(&self) -> Key {
        Key::paypal(&self.program)
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

impl Transaction {
    /// Fails unless it is as it was read; `None`: unless there is none.
    pub fn set_paypal(&mut self, new: &PaypalConnection, read: Option<&PaypalConnection>) -> Result<(), StoreError> {
        match read {
            None => self.create(new),
            Some(read) => self.replace(new, read.version),
        }
    }
}

impl Store {
    pub async fn paypal(
        &self,
        operation: &'static str,
        program: &ProgramId,
    ) -> Result<Option<PaypalConnection>, StoreError> {
        self.get(operation, &Key::paypal(program)).await
    }
}
