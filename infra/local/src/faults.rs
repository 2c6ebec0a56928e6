//! `POST /_local/faults`: the switches of what goes wrong between functions and services, and in the queues.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use embedded::{CallFuture, Embedded, Fate, Fault, Faulty, Service, ServiceName};
use http::Request;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::functions::Failed;

const BEFORE: [Fault; 4] = [Fault::Throttled, Fault::Conflict, Fault::Unavailable, Fault::Unreachable];
const AFTER: [Fault; 2] = [Fault::AnswerLost, Fault::FailedAfter];

/// How likely each thing is, from 0 to 1. What is left out does not happen.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Odds {
    /// The same seed and the same calls give the same faults.
    pub seed: u64,
    /// A queue message is delivered twice.
    pub duplicate: f64,
    /// Messages of a batch come in any order.
    pub reorder: bool,
    /// A call to the database fails before it did anything.
    pub store_fails: f64,
    /// It fails, or its answer is lost, after it did everything.
    pub store_fails_after_apply: f64,
    /// The function's process ends at a call to any service.
    pub crash: f64,
}

impl Odds {
    /// The first that is no probability.
    pub fn wrong(&self) -> Option<&'static str> {
        [
            ("duplicate", self.duplicate),
            ("storeFails", self.store_fails),
            ("storeFailsAfterApply", self.store_fails_after_apply),
            ("crash", self.crash),
        ]
        .into_iter()
        .find_map(|(name, odds)| (!(0.0..=1.0).contains(&odds)).then_some(name))
    }
}

#[derive(Debug)]
struct State {
    odds: Odds,
    chance: fastrand::Rng,
}

/// The switches; clones share them.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Mutex<State>>);

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { odds: Odds::default(), chance: fastrand::Rng::with_seed(0) })))
    }
}

tokio::task_local! {
    /// Told when the invocation that is running shall end here.
    static CRASH: Arc<Notify>;
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, odds: Odds) {
        *self.state() = State { chance: fastrand::Rng::with_seed(odds.seed), odds };
    }

    fn happens(&self, odds: impl Fn(&Odds) -> f64) -> bool {
        let mut state = self.state();
        let odds = odds(&state.odds);
        odds > 0.0 && state.chance.f64() < odds
    }

    pub fn duplicates(&self) -> bool {
        self.happens(|odds| odds.duplicate)
    }

    pub fn shuffle<T>(&self, messages: &mut [T]) {
        let mut state = self.state();
        if state.odds.reorder {
            state.chance.shuffle(messages);
        }
    }

    /// Puts the switches between functions and services.
    pub fn between(&self, embedded: Embedded) -> impl Service + 'static {
        Crashing { faults: self.clone(), service: Faulty::new(embedded, self.clone()) }
    }

    /// Runs one invocation, which may crash.
    pub async fn invocation<T>(&self, run: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let crash = Arc::new(Notify::new());
        CRASH
            .scope(Arc::clone(&crash), async {
                tokio::select! {
                    done = run => done,
                    () = crash.notified() => Err(Failed("the function crashed, as /_local/faults asks for".to_owned())),
                }
            })
            .await
    }
}

impl Fate for Faults {
    fn strike(&self, service: ServiceName, possible: &[Fault]) -> Option<Fault> {
        if service != ServiceName::DynamoDb {
            return None;
        }
        let from: &[Fault] = if self.happens(|odds| odds.store_fails) {
            &BEFORE
        } else if self.happens(|odds| odds.store_fails_after_apply) {
            &AFTER
        } else {
            return None;
        };
        let fitting: Vec<Fault> = from.iter().copied().filter(|fault| possible.contains(fault)).collect();
        let picked = self.state().chance.usize(..fitting.len().max(1));
        fitting.get(picked).copied()
    }
}

#[derive(Debug)]
struct Crashing<S> {
    faults: Faults,
    service: S,
}

impl<S: Service> Service for Crashing<S> {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_> {
        Box::pin(async move {
            if self.faults.happens(|odds| odds.crash)
                && let Ok(crash) = CRASH.try_with(Arc::clone)
            {
                crash.notify_one();
                std::future::pending::<()>().await;
            }
            self.service.call(request).await
        })
    }
}
