//! Virtual time: one moment for the world, and clocks that are off by some seconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use workflows::Clock;

use crate::chance::Chance;

#[derive(Debug)]
struct Shared {
    now: Timestamp,
    chance: Chance,
    issued: u128,
}

#[derive(Debug, Clone)]
pub struct WorldClock {
    shared: Arc<Mutex<Shared>>,
    off_by: SignedDuration,
}

impl WorldClock {
    pub fn new(now: Timestamp, chance: Chance) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { now, chance, issued: 0 })), off_by: SignedDuration::ZERO }
    }

    /// The same time as read from a clock that is off.
    pub fn off_by(&self, seconds: i64) -> Self {
        Self { shared: Arc::clone(&self.shared), off_by: SignedDuration::from_secs(seconds) }
    }

    pub fn pass(&self, seconds: i64) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.now += SignedDuration::from_secs(seconds);
    }

    pub fn system_time(&self) -> SystemTime {
        self.now().into()
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).now + self.off_by
    }

    fn uuid(&self) -> u128 {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.issued += 1;
        let millis = u128::try_from(shared.now.as_millisecond()).unwrap_or_default();
        (millis << 80) | (shared.issued << 16) | (0x7_u128 << 76)
    }

    fn random(&self) -> u128 {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).chance.wide()
    }
}
