//! Answers remembered under a client's idempotency key. Transport time: these live by the wall clock.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::Key;
use crate::table::{Item, Store, StoreError};
use crate::transaction::Transaction;

/// How long an answer is kept at least.
const KEEP_HOURS: i64 = 48;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    pub caller: String,
    pub key: String,
    /// Hash of method, path and body.
    pub request: String,
    pub started_at: Timestamp,
    /// Raised by every change: of several who would take the key over, one does.
    pub revision: u32,
    #[serde(flatten)]
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// When it first began by the business clock, and the chance it was given, in hexadecimal. Whoever runs it again has the same.
    Running { at: Timestamp, chance: [String; 4] },
    Given {
        status: u16,
        body: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        etag: Option<String>,
    },
}

impl Item for Remembered {
    fn key(&self) -> Key {
        Key::idempotency(&self.caller, &self.key)
    }

    fn revision(&self) -> u32 {
        self.revision
    }

    fn expires(&self) -> Option<i64> {
        Some(self.started_at.as_second() + KEEP_HOURS * 3_600)
    }
}

impl Transaction {
    /// Fails if the key is in use.
    pub fn remember(&mut self, remembered: &Remembered) -> Result<(), StoreError> {
        self.create(remembered)
    }

    /// Fails unless it is as it was read.
    pub fn remember_again(&mut self, remembered: &Remembered, read_at: u32) -> Result<(), StoreError> {
        self.replace(remembered, read_at)
    }
}

impl Store {
    pub async fn remembered(
        &self,
        operation: &'static str,
        caller: &str,
        key: &str,
    ) -> Result<Option<Remembered>, StoreError> {
        self.get(operation, &Key::idempotency(caller, key)).await
    }
}
