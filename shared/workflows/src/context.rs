//! What a workflow works with.

use std::sync::Arc;

use jiff::Timestamp;
use store::Store;
use uuid::Uuid;

/// Business time: holds and schedules. It may be virtual; what travels on the wire keeps the wall clock.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Timestamp;

    /// A fresh random value for ids that have no business key.
    fn uuid(&self) -> u128;
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
}

#[derive(Debug, Clone)]
pub struct Context {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub queues: crate::queues::Queues,
    pub secrets: aws_sdk_secretsmanager::Client,
    pub bus: crate::publish::Bus,
}

impl Context {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
