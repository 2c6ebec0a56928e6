//! What the tests share: a clock that moves only when told, and raw calls for what has no SDK client here.
#![allow(dead_code)] // each test binary uses a part

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use embedded::{Clock, Embedded};
use http::{Request, StatusCode};
use serde_json::Value;

#[derive(Clone)]
pub struct FakeClock(Arc<AtomicU64>);

impl FakeClock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_700_000_000)))
    }

    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst)))
    }
}

pub fn memory() -> (Embedded, FakeClock) {
    let clock = FakeClock::new();
    (Embedded::memory(clock.clock()).unwrap(), clock)
}

/// An awsJson request without an SDK.
pub fn call(embedded: &Embedded, target: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::post("/").header("x-amz-target", target).body(Bytes::from(body.to_string())).unwrap();
    send(embedded, request)
}

/// A REST request without an SDK.
pub fn rest(embedded: &Embedded, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Bytes::from(body.to_string())).unwrap();
    send(embedded, request)
}

fn send(embedded: &Embedded, request: Request<Bytes>) -> (StatusCode, Value) {
    let response = embedded.handle(request);
    let body = serde_json::from_slice(response.body()).unwrap();
    (response.status(), body)
}
