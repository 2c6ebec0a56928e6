//! Several processes that deal with QuickBooks at once, and some that end in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use embedded::{CallFuture, Embedded, Service};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use jiff::Timestamp;
use outbound::{CallError, Limits, Transport};
use quickbooks_counterpart::Counterpart;
use serde_json::Value;
use tests::books::REALM;
use tests::{ADMIN, APPROVER, Plan, World};
use workflows::Context;
use workflows::queues::SubmissionPayout;
use workflows::quickbooks::connection::choices;
use workflows::rails::attend;

/// A way there on which something happens before the first Bill arrives.
struct Between {
    counterpart: Counterpart,
    before: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Transport for Between {
    fn call(&self, request: Request<Bytes>, limits: Limits) -> BoxFuture<'_, Result<Response<Bytes>, CallError>> {
        let makes = request.method() == Method::POST && request.uri().path().ends_with("/bill");
        let before = self.before.lock().unwrap().take_if(|_| makes);
        Box::pin(async move {
            if let Some(before) = before {
                before.await;
            }
            self.counterpart.call(request, limits).await
        })
    }
}

/// A company that knows neither document numbers nor requests again, and a payout that is approved and in nobody's hands.
async fn forgetful() -> (World, Value) {
    let world = Plan::new().paid_in_quickbooks().start().await;
    world.company(REALM, |company, _| company.unique_numbers = false);
    world.sale("o1", "100.00").await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    (world, id)
}

fn asked(id: &Value) -> SubmissionPayout {
    SubmissionPayout { id: id.as_str().unwrap().parse().unwrap(), slot: None }
}

#[tokio::test]
async fn two_that_send_a_payout_at_once_make_one_bill_even_where_all_is_forgotten() {
    let (world, id) = forgetful().await;
    let other = {
        let (context, rails, asked) = (world.system.context.clone(), world.another_process(), asked(&id));
        let counterpart = world.system.quickbooks.clone();
        async move {
            attend(&context, &rails, &asked).await.unwrap();
            counterpart.forget_requests();
        }
    };
    let before = Mutex::new(Some(Box::pin(other) as BoxFuture<'static, ()>));
    let way = Between { counterpart: world.system.quickbooks.clone(), before };
    let rails = world.process_over(way, Arc::new(Timestamp::now));
    attend(&world.system.context, &rails, &asked(&id)).await.unwrap();
    for _ in 0..2 {
        world.settle().await;
        assert_eq!(world.bills_of(REALM, &id).len(), 1);
        assert_eq!(world.state_of_payout(&id).await, "submitted");
        world.pass("4m");
    }
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_one_who_died_held_is_sent_by_another_some_minutes_later() {
    let (world, id) = forgetful().await;
    let died = Arc::new(tokio::sync::Notify::new());
    let before = {
        let died = Arc::clone(&died);
        async move {
            died.notify_one();
            std::future::pending::<()>().await;
        }
    };
    let before = Mutex::new(Some(Box::pin(before) as BoxFuture<'static, ()>));
    let way = Between { counterpart: world.system.quickbooks.clone(), before };
    let rails = world.process_over(way, Arc::new(Timestamp::now));
    let asked = asked(&id);
    tokio::select! {
        done = attend(&world.system.context, &rails, &asked) => panic!("{done:?}"),
        () = died.notified() => {}
    }
    world.settle().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), world.bills_of(REALM, &id).len()), ("submitting", 0));
    world.pass("4m");
    world.settle().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), world.bills_of(REALM, &id).len()), ("submitted", 1));
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

/// Each with its own tokens, read from where both are kept.
#[tokio::test]
async fn two_processes_that_renew_at_once_use_a_refresh_token_once() {
    let world = Plan::new().paid_in_quickbooks().start().await;
    let (one, other) = (world.another_process(), world.another_process());
    let context = &world.system.context;
    for round in 0..3 {
        world.system.quickbooks.expire_all();
        world.system.quickbooks.watch(Vec::new());
        let (first, second) =
            tokio::join!(choices(context, &one.quickbooks, REALM), choices(context, &other.quickbooks, REALM));
        assert!(first.is_ok() && second.is_ok(), "round {round}: {:?}, {:?}", first.err(), second.err());
        let seen = world.system.quickbooks.seen();
        assert_eq!(seen.iter().filter(|one| one.step == "refresh token").count(), 1, "round {round}");
    }
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
}

/// Secrets Manager, where a label cannot be moved while this is so.
struct Stuck {
    embedded: Embedded,
    is_stuck: Arc<AtomicBool>,
}

impl fmt::Debug for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stuck")
    }
}

impl Service for Stuck {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_> {
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let strikes = target.ends_with(".UpdateSecretVersionStage") && self.is_stuck.load(Ordering::SeqCst);
        Box::pin(async move {
            if strikes {
                return Err(ConnectorError::io("nobody listens".into()));
            }
            self.embedded.call(request).await
        })
    }
}

/// The one refresh token that is good is then beside the current tokens, and nowhere else.
#[tokio::test]
async fn tokens_that_were_given_out_and_not_made_current_are_not_lost() {
    let world = Plan::new().paid_in_quickbooks().start().await;
    let is_stuck = Arc::new(AtomicBool::new(true));
    let config =
        world.system.embedded.sdk_config_through(|embedded| Stuck { embedded, is_stuck: Arc::clone(&is_stuck) });
    let context = Context { secrets: aws_sdk_secretsmanager::Client::new(&config), ..world.system.context.clone() };
    for round in 0..2 {
        is_stuck.store(true, Ordering::SeqCst);
        world.system.quickbooks.expire_all();
        let ended = world.another_process();
        assert!(choices(&context, &ended.quickbooks, REALM).await.is_err(), "round {round}");
        is_stuck.store(false, Ordering::SeqCst);
        let next = world.another_process();
        let found = choices(&context, &next.quickbooks, REALM).await;
        assert!(found.is_ok(), "round {round}: {:?}", found.err());
    }
    let connection = world.get(ADMIN, &format!("/quickbooks/connections/{REALM}")).await.ok();
    assert_eq!(connection["state"], "connected");
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
}

/// What is left beside the current tokens is of no use to a new consent.
#[tokio::test]
async fn tokens_of_a_former_consent_do_not_come_back() {
    let world = Plan::new().paid_in_quickbooks().start().await;
    let is_stuck = Arc::new(AtomicBool::new(true));
    let config =
        world.system.embedded.sdk_config_through(|embedded| Stuck { embedded, is_stuck: Arc::clone(&is_stuck) });
    let context = Context { secrets: aws_sdk_secretsmanager::Client::new(&config), ..world.system.context.clone() };
    world.system.quickbooks.expire_all();
    let ended = world.another_process();
    assert!(choices(&context, &ended.quickbooks, REALM).await.is_err());
    world.system.quickbooks.revoke_all();
    world.connect_company(REALM).await;
    is_stuck.store(false, Ordering::SeqCst);
    world.system.quickbooks.expire_all();
    let next = world.another_process();
    let found = choices(&context, &next.quickbooks, REALM).await;
    assert!(found.is_ok(), "{:?}", found.err());
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
}

/// What is logged, as it was written.
#[derive(Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::field::Visit for Log {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0.lock().unwrap(), "{field}={value:?} ");
    }
}

impl tracing::Subscriber for Log {
    /// What functions log: below that, the AWS SDK writes out all that it is answered.
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        attributes.record(&mut Self(Arc::clone(&self.0)));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Self(Arc::clone(&self.0)));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Self(Arc::clone(&self.0)));
        self.0.lock().unwrap().push('\n');
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// By Intuit's own id of an exchange, their support finds it.
#[tokio::test]
async fn every_exchange_is_logged_with_intuits_id_and_nothing_secret_is() {
    let world = Plan::new().paid_in_quickbooks().start().await;
    world.sale("o1", "100.00").await;
    world.system.quickbooks.expire_all();
    world.system.quickbooks.watch(Vec::new());
    let log = Arc::new(Mutex::new(String::new()));
    let id = {
        let _guard = tracing::subscriber::set_default(Log(Arc::clone(&log)));
        let id = world.send_payout().await;
        world.pay_bill(&id, None).await;
        id
    };
    assert_eq!(world.state_of_payout(&id).await, "paid");
    let (log, seen) = (log.lock().unwrap().clone(), world.system.quickbooks.seen());
    assert!(seen.iter().any(|one| one.step == "refresh token") && seen.len() > 6, "{seen:?}");
    let exchanges: Vec<_> = log.lines().filter(|line| line.contains("intuit_tid=\"1-")).collect();
    assert_eq!(exchanges.len(), seen.len(), "{log}");
    assert!(exchanges.iter().any(|line| line.contains("QuickBooks sign-in")), "{log}");
    let settings = world.system.quickbooks.settings();
    // What the counterpart's codes, refresh tokens and access tokens begin with.
    for secret in ["AB0", "RT1-", "eyJ0", &settings.client_secret, &settings.verifier, "Bearer ", "Basic "] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
