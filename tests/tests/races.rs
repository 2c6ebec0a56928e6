//! What one command read may change before it writes: then it reads again, and the books stay in order.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use domain::ids::{LineId, PayoutId, ProgramId, SourceId};
use embedded::{CallFuture, Embedded, Service};
use http::Request;
use serde_json::json;
use tests::books::REALM;
use tests::{ADMIN, APPROVER, FINANCE, Plan, REVIEWER, World, percent};
use workflows::Context;
use workflows::Refusal;
use workflows::ingest::{Incoming, UnknownPartner, ingest};
use workflows::payouts::{self, Attested, begin_submit, mark_paid};
use workflows::review::{Verdict, review};

type Meanwhile = Box<dyn FnOnce() + Send>;

/// The services, between which and a workflow something else happens once: after the first request that says this is answered.
struct Interrupted {
    embedded: Embedded,
    after: [String; 2],
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Service for Interrupted {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_> {
        Box::pin(async move {
            let target = request.headers().get("x-amz-target").map_or("", |target| target.to_str().unwrap()).to_owned();
            let said = format!("{target} {}", String::from_utf8_lossy(request.body()));
            let answer = self.embedded.call(request).await;
            if self.after.iter().all(|word| said.contains(word.as_str()))
                && let Some(meanwhile) = self.meanwhile.lock().unwrap().take()
            {
                // Somebody else's function has a thread of its own.
                std::thread::spawn(meanwhile).join().unwrap();
            }
            answer
        })
    }
}

/// The world's context, with something else happening within the first workflow that uses it.
fn interrupted(world: &World, after: [&str; 2], meanwhile: impl AsyncFnOnce(World) + Send + 'static) -> Context {
    let other = world.clone();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { meanwhile(other).await });
    };
    let after = after.map(str::to_owned);
    let meanwhile = Mutex::new(Some(Box::new(run) as Meanwhile));
    let config = world.system.embedded.sdk_config_through(|embedded| Interrupted { embedded, after, meanwhile });
    let context = &world.system.context;
    Context { store: context.store.under(aws_sdk_dynamodb::Client::new(&config)), ..context.clone() }
}

/// One sale in two slices, under a rule that counts sales.
async fn counted_in_slices() -> (Arc<World>, Vec<String>) {
    let rule = json!({"name": "Ladder", "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}], "reward": {
        "kind": "tiered", "metric": "count", "window": "lifetime", "shape": "marginal_by_order",
        "tiers": [{"after": "0", "rate": "10"}, {"after": "1", "rate": "20"}]}});
    let world = Plan::new().reviewed().rules([rule]).start().await;
    world.sale("o1", "100.00").await;
    let mut lines = world.lines_of("o1").await;
    lines.sort_by_key(|line| line["dueAt"].as_str().unwrap().to_owned());
    let ids = lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    (Arc::new(world), ids)
}

async fn rejected(context: &Context, id: &str) {
    let id: LineId = id.parse().unwrap();
    let verdict = Verdict::Reject { why: "no".to_owned() };
    let results = Box::pin(review(context, &[id], &verdict, "rita")).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test]
async fn slices_rejected_at_once_give_their_tier_position_back() {
    let (world, ids) = counted_in_slices().await;
    let second = ids[1].clone();
    let place = second.parse::<LineId>().unwrap().position().to_owned();
    // The lines of the conversion are read, but not yet its tallies.
    let context = interrupted(&world, ["BatchGetItem", &place], async move |world| {
        assert_eq!(world.review(REVIEWER, "reject", &[&second]).await.status, 200);
    });
    rejected(&context, &ids[0]).await;
    assert!(world.lines_of("o1").await.iter().all(|line| line["state"] == "rejected"));
    world.audit_holds().await;
    world.sale("o2", "100.00").await;
    assert_eq!(
        world.states_of("o2").await.iter().map(|(_, net)| net).sum::<i64>(),
        1_000,
        "it is the first that counts"
    );
}

#[tokio::test]
async fn a_refund_while_a_slice_is_rejected_is_not_undone() {
    let (world, ids) = counted_in_slices().await;
    // Its events are read, but not yet its lines.
    let context = interrupted(&world, ["Query", "JRN#cnv_"], async move |world| {
        assert_eq!(world.refund("r1", "o1", "30.00").await, "applied");
    });
    rejected(&context, &ids[0]).await;
    let mut stand = world.states_of("o1").await;
    stand.sort();
    assert_eq!(stand, [("pending".to_owned(), 300), ("rejected".to_owned(), 400)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn sales_of_two_days_of_a_rolling_window_count_for_each_other_though_booked_at_once() {
    let rule = json!({"name": "Ladder", "reward": {
        "kind": "tiered", "metric": "count", "window": "rolling:30", "shape": "marginal_by_order",
        "tiers": [{"after": "0", "rate": "10"}, {"after": "1", "rate": "20"}]}});
    let world = Plan::new().reviewed().rules([rule]).start().await;
    let earlier = world.sale_event("o1", "100.00");
    world.pass("1d");
    let later = world.sale_event("o2", "100.00");
    let event = &storefronts::standard::parse(later.to_string().as_bytes()).unwrap().event;
    let program = &world.program.parse::<ProgramId>().unwrap();
    // The days of its window are read, and what stands for all of them was before.
    let context = interrupted(&world, ["Query", "TLY#"], async move |world| {
        world.report(&earlier).await.ok();
    });
    let incoming = Incoming {
        program: &context.store.program("accrue", program).await.unwrap().unwrap(),
        source: &SourceId::of_api(program),
        event,
        received_at: context.now(),
        unknown_partner: UnknownPartner::Refuse,
        headers: &[],
        body: None,
    };
    assert_eq!(Box::pin(ingest(&context, incoming)).await.unwrap().as_str(), "applied");
    assert_eq!(world.states_of("o1").await, [("pending".to_owned(), 1_000)]);
    assert_eq!(world.states_of("o2").await, [("pending".to_owned(), 2_000)], "it is the second");
    world.audit_holds().await;
}

#[tokio::test]
async fn of_two_versions_published_at_once_only_one_is_the_first() {
    let world = Plan::new().start().await;
    let program = json!({"name": "Other", "ruleSignOff": false});
    let id = world.post(ADMIN, "/programs", &program).await.id();
    let sets = format!("/programs/{id}/rule-sets");
    for _ in 0..2 {
        let draft = json!({"rationale": "r", "effectiveFrom": "2020-01-01T00:00:00Z", "rules": [tests::percent("20")]});
        world.post(ADMIN, &sets, &draft).await.ok();
    }
    let path = format!("{sets}/1/publish");
    // The versions are read: none is published.
    let context = interrupted(&world, ["Query", "RUL#"], async move |world| {
        world.post(ADMIN, &path, &json!({})).await.ok();
    });
    let program = context.store.program("rules", &id.parse().unwrap()).await.unwrap().unwrap();
    let refused = workflows::rules::publish(&context, &program, 2, "ben").await.unwrap_err();
    assert!(refused.to_string().contains("less than five minutes"), "{refused}");
    let states = world.all(ADMIN, &sets).await.into_iter().map(|set| set["state"].clone()).collect::<Vec<_>>();
    assert_eq!(states, ["published", "draft"]);
}

#[tokio::test]
async fn a_refund_while_several_lines_are_adjusted_together_is_not_undone() {
    let (world, ids) = counted_in_slices().await;
    let lines: Vec<LineId> = ids.iter().map(|id| id.parse().unwrap()).collect();
    // The first adjustment is made, but nothing of it is written yet.
    let context = interrupted(&world, ["BatchGetItem", "JRN#cnv_"], async move |world| {
        assert_eq!(world.refund("r1", "o1", "50.00").await, "applied");
    });
    let adjust = |context: Context, id: LineId| async move {
        let amount = domain::money::Minor::new(100).unwrap();
        workflows::adjust::adjust(&context, &id, None, amount, "agreed", "rita").await.map(drop)
    };
    let results = workflows::together::together(&context, "adjust lines", "commission", &lines, adjust).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let mut nets: Vec<_> = world.states_of("o1").await.into_iter().map(|(_, net)| net).collect();
    nets.sort_unstable();
    assert_eq!(nets, [0, 100], "half of 2.00 came off the newest slice");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_bill_made_of_a_payout_that_ended_meanwhile_is_told() {
    let world = Plan::new().paid_in_quickbooks().start().await;
    world.sale("o1", "100.00").await;
    world.settle().await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    let ended = id.clone();
    // It is begun, and nothing has been asked of QuickBooks. Another worker is refused, and the payout ended.
    let context = interrupted(&world, ["TransactWriteItems", "begin_submit"], async move |world| {
        world.company(REALM, |company, _| company.books_closed = Some("2026-12-31".parse().unwrap()));
        world.settle().await;
        world.company(REALM, |company, _| company.books_closed = None);
        assert_eq!(world.payout_call(FINANCE, "void", &ended, &json!({"reason": "will not be paid"})).await, 200);
    });
    let submission = json!({"detail": {"payout": {"id": id}}}).to_string();
    let event = json!({"Records": [{"messageId": "m1", "body": submission}]});
    let functions = world.system.functions_under(context);
    let deadline = std::time::SystemTime::now() + std::time::Duration::from_mins(1);
    let answer = Box::pin(functions.invoke("submit-payouts", event.clone(), deadline)).await.unwrap();
    assert_eq!(answer["batchItemFailures"][0]["itemIdentifier"], "m1", "it comes again: {answer}");
    assert_eq!((world.state_of_payout(&id).await.as_str(), world.entities(REALM, "Bill").len()), ("void", 1));
    assert_eq!(world.exceptions().await, [] as [serde_json::Value; 0]);
    world.system.invoke("submit-payouts", event).await.unwrap();
    let told = world.exceptions().await;
    assert!(told.iter().any(|one| one["detail"].as_str().unwrap().contains("delete it")), "{told:?}");
    let bill = world.bill_id(&id);
    world.there(|company, now| company.delete_bill(&bill, now)).await;
    assert_eq!(world.exceptions().await, [] as [serde_json::Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn of_two_payouts_that_leave_at_once_the_second_is_held_to_what_both_come_to() {
    let plan = Plan::new().at("2026-06-01T12:00:00Z").program("taxPayer", "US").program("withoutTaxNumber", "block");
    let world = Arc::new(plan.rules([percent("100")]).start().await);
    let mut ids: Vec<PayoutId> = Vec::new();
    for order in ["o1", "o2"] {
        world.sale(order, "1200.00").await;
        let id = world.request_payout().await["id"].clone();
        assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
        ids.push(id.as_str().unwrap().parse().unwrap());
    }
    let other = ids[1].clone();
    // What is on its way to the partner is looked at, and nothing is.
    let context = interrupted(&world, ["Query", "PAY#"], async move |world| {
        begin_submit(&world.system.context, &other, "rail").await.unwrap();
    });
    let wired = Attested { reference: Some("wire 1"), paid_at: None, amount: None };
    let refused = Box::pin(mark_paid(&context, &ids[0], &wired, "fred")).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Illegal(why) if why.contains("tax form")), "{refused:?}");
    assert_eq!(world.payout_stands(&json!(ids[0])).await.0, "approved");
    world.audit_holds().await;
}

#[tokio::test]
async fn what_a_rail_said_of_an_attempt_is_not_said_of_what_the_payout_went_on_to() {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    let (context, state) = (&world.system.context, async || world.payout_stands(&id).await.0);
    let id: &PayoutId = &id.as_str().unwrap().parse().unwrap();
    let (begun, _) = begin_submit(context, id, "rail").await.unwrap();
    let taken = payouts::taken(context, id, "1", "rail").await.unwrap();
    // A slower process was refused what another had taken meanwhile.
    payouts::fail_as_seen(context, &begun, "no funds", "rail").await.unwrap();
    assert_eq!(state().await, "submitted");
    payouts::fail_as_seen(context, &taken, "cancelled", "rail").await.unwrap();
    let again = payouts::retry(context, id, "now there are", "fred").await.unwrap();
    assert_eq!((again.attempts, state().await.as_str()), (1, "submitted"), "people send it");
    // Whoever looked before that heard of the attempt before.
    payouts::come_back_as_seen(context, &taken, "nobody took it", "rail").await.unwrap();
    payouts::fail_as_seen(context, &begun, "no funds", "rail").await.unwrap();
    assert_eq!(state().await, "submitted");
    world.audit_holds().await;
}
