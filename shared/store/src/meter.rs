//! Capacity units consumed, by operation, as DynamoDB itself reports them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::types::ConsumedCapacity;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Units {
    pub calls: u64,
    pub read: f64,
    pub write: f64,
}

/// Shared by all clones of a store.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<BTreeMap<&'static str, Units>>>);

impl Meter {
    pub fn totals(&self) -> BTreeMap<&'static str, Units> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn reset(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn record_read(&self, operation: &'static str, consumed: &[ConsumedCapacity]) {
        self.record(operation, |units| units.read += total(consumed));
    }

    pub(crate) fn record_write(&self, operation: &'static str, consumed: &[ConsumedCapacity]) {
        self.record(operation, |units| units.write += total(consumed));
    }

    fn record(&self, operation: &'static str, add: impl FnOnce(&mut Units)) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let units = totals.entry(operation).or_default();
        units.calls += 1;
        add(units);
    }
}

fn total(consumed: &[ConsumedCapacity]) -> f64 {
    consumed.iter().filter_map(|capacity| capacity.capacity_units).sum()
}
