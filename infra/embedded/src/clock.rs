//! Time as the caller tells it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the services what time it is. It may stand still or jump forward.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The wall clock, for callers without a virtual one.
pub fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}

/// Milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Millis(pub u64);

impl Millis {
    pub(crate) fn now(clock: &Clock) -> Self {
        let since_epoch = clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(u64::from(seconds) * 1000))
    }

    pub(crate) fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Seconds with a fraction, as awsJson writes timestamps.
    #[allow(clippy::cast_precision_loss)] // exact until the year 287396
    pub(crate) fn timestamp(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}
