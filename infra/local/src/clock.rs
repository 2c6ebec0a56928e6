//! Business time: the wall clock, or one that stands still until it is moved.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use uuid::Uuid;
use workflows::Clock;

#[derive(Debug)]
pub struct LocalClock(Option<Mutex<Timestamp>>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    #[error("the clock runs by itself; start with --clock to move it")]
    RunsByItself,
    #[error("the clock stands at {0}; it never goes backwards")]
    Backwards(Timestamp),
    #[error("{0:?} is not a time like 2026-02-01T00:00:00Z or a span like 30d")]
    Unreadable(String),
}

impl LocalClock {
    pub const fn wall() -> Self {
        Self(None)
    }

    pub const fn standing_at(start: Timestamp) -> Self {
        Self(Some(Mutex::new(start)))
    }

    pub const fn is_virtual(&self) -> bool {
        self.0.is_some()
    }

    /// Moves to a later time, or to the same. Nothing fires by it.
    pub fn set(&self, to: Timestamp) -> Result<Timestamp, ClockError> {
        let Some(clock) = &self.0 else { return Err(ClockError::RunsByItself) };
        let mut now = clock.lock().unwrap_or_else(PoisonError::into_inner);
        if to < *now {
            return Err(ClockError::Backwards(*now));
        }
        *now = to;
        Ok(to)
    }

    /// Moves on by a span like `30d` or `2h 30m`. Days have 24 hours.
    pub fn advance(&self, by: &str) -> Result<Timestamp, ClockError> {
        let unreadable = || ClockError::Unreadable(by.to_owned());
        let span: Span = by.parse().map_err(|_| unreadable())?;
        let by: SignedDuration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| unreadable())?;
        self.set(self.now().checked_add(by).map_err(|_| unreadable())?)
    }

    pub fn system_time(&self) -> SystemTime {
        self.now().into()
    }
}

impl Clock for LocalClock {
    fn now(&self) -> Timestamp {
        match &self.0 {
            Some(clock) => *clock.lock().unwrap_or_else(PoisonError::into_inner),
            None => Timestamp::now(),
        }
    }

    fn uuid(&self) -> u128 {
        Uuid::now_v7().as_u128()
    }

    fn random(&self) -> u128 {
        workflows::SystemClock.random()
    }
}
