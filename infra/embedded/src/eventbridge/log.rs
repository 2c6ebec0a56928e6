//! The log of accepted events.

use std::collections::VecDeque;

use serde_json::Value;

const CAPACITY: usize = 10_000;

/// An event a bus accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct AcceptedEvent {
    pub bus: String,
    /// The envelope, as targets receive it.
    pub event: Value,
    /// One for each target of each rule that matched.
    pub deliveries: Vec<Delivery>,
}

/// What became of an event at one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub rule: String,
    pub target_id: String,
    pub target_arn: String,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In the target queue.
    Queued,
    /// In the dead-letter queue of the target, which itself does not exist.
    DeadLettered,
    /// Nowhere: neither the target queue nor a dead-letter queue exists.
    Lost,
    /// Here only: the target is no queue, and nothing else is called.
    Noted,
}

/// The latest events.
#[derive(Debug, Default)]
pub(crate) struct EventLog(VecDeque<AcceptedEvent>);

impl EventLog {
    pub(crate) fn push(&mut self, event: AcceptedEvent) {
        if self.0.len() == CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    pub(crate) fn all(&self) -> Vec<AcceptedEvent> {
        self.0.iter().cloned().collect()
    }
}
