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

/// When a request began, and the chance it was given. Run again, it has the same, so that it makes nothing twice.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// By the business clock.
    pub at: Timestamp,
    /// For ids that have no business key.
    pub uuid: u128,
    /// For an id that nobody must guess.
    pub random: u128,
    /// For a secret.
    pub secret: [u128; 2],
    /// It began before, and may have been done.
    pub again: bool,
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
    /// For a request that was not begun before.
    pub fn begin(&self) -> Beginning {
        let Self { clock, .. } = self;
        let secret = [clock.random(), clock.random()];
        Beginning { at: clock.now(), uuid: clock.uuid(), random: clock.random(), secret, again: false }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same, but that the table is not changed: what is written is seen by this context and its clones alone.
    #[must_use]
    pub fn rehearsal(&self) -> Self {
        Self { store: self.store.rehearsal(), ..self.clone() }
    }
}
