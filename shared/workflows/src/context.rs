//! What a workflow works with.

use std::sync::Arc;

use jiff::Timestamp;
use store::Store;
use uuid::Uuid;

/// Business time: holds and schedules. It may be virtual; what travels on the wire keeps the wall clock.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Timestamp;

    /// A fresh value for ids that have no business key; later ones sort later.
    fn uuid(&self) -> u128;

    /// 128 bits that nobody can guess, from the system's secure source.
    fn random(&self) -> u128;
}

#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uuid(&self) -> u128 {
        Uuid::now_v7().as_u128()
    }

    fn random(&self) -> u128 {
        // A version 4 UUID has 122 random bits from the same source; two of them fill the gaps.
        Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(64)
    }
}

#[derive(Debug, Clone)]
pub struct Context {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub queues: crate::queues::Queues,
    pub secrets: aws_sdk_secretsmanager::Client,
    /// What the names of a stack's secrets start with, so that several stacks have a place in one account.
    pub secret_prefix: String,
    pub bus: crate::publish::Bus,
    pub others: crate::instant::Others,
    /// Seals tax numbers.
    pub vault: crate::tax::forms::Vault,
}

impl Context {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same, but that the table is not changed: what is written is seen by this context and its clones alone.
    #[must_use]
    pub fn rehearsal(&self) -> Self {
        Self { store: self.store.rehearsal(), ..self.clone() }
    }
}
