//! The cloud between functions and services: every call may be interleaved with others, struck by a fault, or the last thing its
//! function ever does.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_smithy_async::rt::sleep::{AsyncSleep, Sleep};
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use bytes::Bytes;
use embedded::{CallFuture, Embedded, Fate, Fault, Faulty, Service, ServiceName};
use http::Request;
use workflows::publish::Bus;
use workflows::queues::Queues;

use crate::chance::Chance;

/// What strikes the function that is being polled, and what struck so far.
#[derive(Debug)]
pub struct Weather {
    pub chance: Chance,
    /// Of a thousand calls.
    pub odds: u32,
    pub struck: BTreeMap<&'static str, u64>,
    /// Of the function that is being polled.
    pub struck_here: u32,
}

impl Weather {
    pub fn note(&mut self, what: &'static str) {
        *self.struck.entry(what).or_default() += 1;
    }
}

#[derive(Debug, Clone)]
pub struct Sky(Arc<Mutex<Weather>>);

impl Sky {
    pub fn new() -> Self {
        let weather = Weather { chance: Chance::new(0), odds: 0, struck: BTreeMap::new(), struck_here: 0 };
        Self(Arc::new(Mutex::new(weather)))
    }

    pub fn weather(&self) -> MutexGuard<'_, Weather> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fate for Sky {
    fn strike(&self, _: ServiceName, possible: &[Fault]) -> Option<Fault> {
        let mut weather = self.weather();
        let odds = weather.odds;
        if !weather.chance.permille(odds) {
            return None;
        }
        // What only few requests can meet would hardly ever strike if all were equally likely.
        let rare: Vec<Fault> = possible
            .iter()
            .copied()
            .filter(|fault| matches!(fault, Fault::InPart | Fault::Stale | Fault::Conflict))
            .collect();
        let rarely = !rare.is_empty() && weather.chance.percent(50);
        let fault = weather.chance.pick(if rarely { &rare } else { possible }).copied()?;
        weather.note(fault.name());
        weather.struck_here += 1;
        Some(fault)
    }
}

/// Gives way before each call and after it, so that other functions run in between, and a function can end there.
#[derive(Debug)]
struct Crossing<S>(S);

impl<S: Service> Service for Crossing<S> {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_> {
        Box::pin(async move {
            give_way().await;
            let answer = self.0.call(request).await;
            give_way().await;
            answer
        })
    }
}

pub fn give_way() -> impl Future<Output = ()> {
    struct GiveWay(bool);
    impl Future for GiveWay {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
    GiveWay(false)
}

/// The SDK waits between its tries for as long as others take a turn.
#[derive(Debug)]
struct Turn;

impl AsyncSleep for Turn {
    fn sleep(&self, _: Duration) -> Sleep {
        Sleep::new(give_way())
    }
}

/// A context whose every call goes through the weather. `plain` has the same services without.
pub fn context_under(sky: &Sky, embedded: &Embedded, plain: &workflows::Context) -> workflows::Context {
    let config = embedded.sdk_config_through(|embedded| Crossing(Faulty::new(embedded, sky.clone())));
    let config: SdkConfig =
        config.into_builder().sleep_impl(Turn).retry_config(RetryConfig::standard().with_max_attempts(3)).build();
    // Each world has tries of its own: the SDK's default is one allowance for the whole process.
    let tries =
        || RetryPartition::custom("world").token_bucket(TokenBucket::builder().capacity(1_000_000).build()).build();
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(&config).retry_partition(tries()).build();
    let sqs = aws_sdk_sqs::config::Builder::from(&config).retry_partition(tries()).build();
    let events = aws_sdk_eventbridge::config::Builder::from(&config).retry_partition(tries()).build();
    let secrets = aws_sdk_secretsmanager::config::Builder::from(&config).retry_partition(tries()).build();
    workflows::Context {
        store: plain.store.under(aws_sdk_dynamodb::Client::from_conf(dynamodb)),
        queues: Queues { sqs: aws_sdk_sqs::Client::from_conf(sqs), ..plain.queues.clone() },
        secrets: aws_sdk_secretsmanager::Client::from_conf(secrets),
        bus: Bus { events: aws_sdk_eventbridge::Client::from_conf(events), ..plain.bus.clone() },
        clock: Arc::clone(&plain.clock),
        ..plain.clone()
    }
}
