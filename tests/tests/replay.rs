//! The journal alone makes every commission again, byte for byte; and whoever changes a commission beside it is found out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use domain::ids::{ConversionId, LineId, SourceId};
use domain::journal::{Sealed, What};
use domain::line::{Line, LineKind};
use local::{LocalClock, Options, QuickbooksOptions, Storage, System};
use serde_json::{Value, json};
use store::Everything;
use tests::{ADMIN, APPROVER, Plan, Request, SECOND_ADMIN, Who, World, percent, result_codes};
use workflows::Clock;
use workflows::replay::{Replayed, of_program, replay};

/// Whose hand is in what is adjusted, and who must not approve its payout.
const HANDS_ON: Who<'static> = Who::new("admin", "meg");

/// One rule for each thing that a rule can do, by the product that it is for.
fn rules() -> Vec<Value> {
    let tiers = |product: &str, metric: &str, window: &str, shape: &str, tiers: Value| {
        json!({"name": product, "match": {"products": [product]}, "reward": {
            "kind": "tiered", "metric": metric, "window": window, "shape": shape, "tiers": tiers}})
    };
    let by_rate = json!([{"after": "0", "rate": "10"}, {"after": "100", "rate": "15"}]);
    let capped = json!({"name": "capped", "match": {"products": ["capped"]}, "reward": {"kind": "percent", "rate": "50"},
        "caps": {"perOrder": "40.00", "perPartnerMonth": "60.00", "perProgramMonth": "90.00"}});
    vec![
        tiers(
            "kit",
            "count",
            "month",
            "retroactive",
            json!([
            {"after": "0", "amount": "250.00"}, {"after": "2", "amount": "275.00"}, {"after": "4", "amount": "300.00"}]),
        ),
        tiers("ladder", "revenue", "lifetime", "marginal_by_amount", by_rate.clone()),
        tiers(
            "rolling",
            "count",
            "rolling:30",
            "marginal_by_order",
            json!([{"after": "0", "rate": "10"}, {"after": "1", "rate": "20"}]),
        ),
        tiers("rated", "revenue", "quarter", "retroactive", by_rate),
        capped,
        json!({"name": "plan", "match": {"products": ["plan"]}, "reward": {"kind": "percent", "rate": "33.3"},
            "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}]}),
        json!({"name": "free", "match": {"products": ["free"]}, "reward": {"kind": "flat", "amount": "0.00"}}),
        percent("10"),
    ]
}

/// What people and storefronts do, in the words of the stories below.
struct Story {
    world: World,
    other: String,
}

impl Story {
    async fn new() -> Self {
        let plan = Plan::new().at("2026-01-05T09:30:00Z").program("timeZone", "America/New_York");
        let world = plan.reviewed().hold_days(14).rules(rules()).start().await;
        let other = world.add_partner(&json!({"code": "BEN20", "email": "ben@partners.example"})).await;
        Self { world, other }
    }

    async fn event(&self, event: Value) {
        let event = self.world.event(event);
        Box::pin(self.world.report(&event)).await.ok();
    }

    async fn sold(&self, order: &str, product: &str, total: &str) {
        self.sold_to(order, product, total, &self.world.partner).await;
    }

    async fn sold_to(&self, order: &str, product: &str, total: &str, partner: &str) {
        self.event(json!({"id": order, "type": "sale", "amount": {"total": total}, "partner": {"id": partner},
            "items": [{"product": product, "quantity": 1, "amount": total}]}))
            .await;
    }

    async fn edited(&self, edit: &str, order: &str, product: &str, total: &str) {
        self.event(json!({"id": edit, "type": "edit", "conversion": order, "amount": {"total": total},
            "items": [{"product": product, "quantity": 1, "amount": total}]}))
            .await;
    }

    async fn refunded(&self, refund: &str, order: &str, total: &str) {
        self.event(json!({"id": refund, "type": "refund", "conversion": order, "amount": {"total": total}})).await;
    }

    async fn charged_back(&self, dispute: &str, order: &str, total: &str) {
        self.event(json!({"id": dispute, "type": "chargeback", "conversion": order, "amount": {"total": total}})).await;
    }

    async fn withdrawn(&self, withdrawal: &str, kind: &str, order: &str, refund: &str) {
        let now = self.world.system.clock.now();
        let event = json!({"id": withdrawal, "type": kind, "conversion": order, "refund": refund, "occurredAt": now,
            "programId": self.world.program, "reason": "it did not stand"});
        self.world.report(&event).await.ok();
    }

    /// Moments in which anything happens differ.
    fn later(&self) {
        self.world.pass("1h");
    }

    async fn ids_of(&self, order: &str) -> Vec<String> {
        let lines = self.world.lines_of(order).await;
        lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
    }

    async fn review(&self, verdict: &str, order: &str) {
        let ids = self.ids_of(order).await;
        self.world.reviewed(verdict, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }

    async fn approve_everything(&self) {
        let waiting = self.world.all(ADMIN, "/commissions?state=pending&limit=100").await;
        let ids: Vec<_> = waiting.iter().map(|line| line["id"].as_str().unwrap()).collect();
        for ids in ids.chunks(100) {
            self.world.reviewed("approve", ids).await;
        }
    }

    /// Sets a gross amount. Tells which commission changed or was written.
    async fn adjusted(&self, id: &str, gross: &str) -> String {
        let body = json!({"id": id, "amount": gross, "reason": "agreed"});
        self.world.post(HANDS_ON, "/commissions/adjust", &body).await.id()
    }

    async fn bonus(&self, amount: &str) -> String {
        let body = json!({"partnerId": self.world.partner, "amount": amount, "reason": "well done"});
        self.world.post(HANDS_ON, "/commissions", &body).await.id()
    }

    async fn attributed(&self, order: &str, shares: &[(&str, &str)]) {
        let source = SourceId::of_api(&self.world.program.parse().unwrap());
        let conversion = ConversionId::derive(&self.world.program.parse().unwrap(), &source, order);
        let share = |(partner, percent): &(&str, &str)| json!({"partnerId": partner, "percent": percent});
        let body = json!({"shares": shares.iter().map(share).collect::<Vec<_>>(), "reason": "he wrote"});
        self.world.post(HANDS_ON, &format!("/conversions/{conversion}/attribute"), &body).await.ok();
    }

    async fn everything(&self) -> Everything {
        self.world.system.context.store.everything().await.unwrap()
    }

    /// The books are in order, and the journal makes them again.
    async fn replays(&self) -> Replayed {
        let replayed = replay(&self.everything().await);
        assert_eq!(replayed.differing, [], "{} lines", replayed.lines);
        self.world.audit_holds().await;
        replayed
    }
}

/// Everything that can happen to commissions, in one program.
async fn everything_happens() -> Story {
    let story = Story::new().await;
    events_of_every_kind(&story).await;
    tiers_and_caps(&story).await;
    let given = people_intervene(&story).await;
    payouts(&story).await;
    after_payment(&story, &given).await;
    story
}

/// Events in any order, and of every kind.
async fn events_of_every_kind(story: &Story) {
    story.refunded("early", "plan-1", "12.34").await;
    story.edited("early edit", "plan-2", "plan", "150.00").await;
    for order in ["plan-1", "plan-2", "plan-3", "plan-4"] {
        story.sold(order, "plan", "100.01").await;
        story.later();
    }
    story.refunded("r1", "plan-3", "33.33").await;
    story.charged_back("d1", "plan-3", "66.68").await;
    story.later();
    story.withdrawn("w1", "dispute_won", "plan-3", "d1").await;
    story.edited("e1", "plan-4", "plan", "240.00").await;
    story.later();
    story.edited("e2", "plan-4", "plan", "180.00").await;
    story.event(json!({"id": "nobody", "type": "sale", "amount": {"total": "10.00"}, "partner": null, "coupon": "nobody's"})).await;
    story.refunded("r of nobody", "nobody", "5.00").await;
}

/// Tiers of every shape, and what leaves and enters them.
async fn tiers_and_caps(story: &Story) {
    let (world, other) = (&story.world, story.other.as_str());
    for n in 1..=6 {
        story.sold(&format!("kit-{n}"), "kit", "999.00").await;
        story.sold(&format!("ladder-{n}"), "ladder", "30.00").await;
        story.sold(&format!("rolling-{n}"), "rolling", "10.00").await;
        story.sold(&format!("rated-{n}"), "rated", "25.00").await;
        story.sold_to(&format!("capped-{n}"), "capped", "50.00", if n % 2 == 0 { other } else { &world.partner }).await;
        story.later();
    }
    story.sold("free-1", "free", "10.00").await;
    story.sold("free-2", "free", "10.00").await;
    story.refunded("kit back", "kit-2", "999.00").await;
    story.refunded("kit in part", "kit-3", "99.90").await;
    story.refunded("rated back", "rated-1", "25.00").await;
    story.refunded("free back", "free-1", "10.00").await;
    story.later();
    story.withdrawn("rated stays", "refund_withdrawn", "rated-1", "rated back").await;
    story.withdrawn("free stays", "refund_withdrawn", "free-1", "free back").await;
    story.edited("kit more", "kit-5", "kit", "1200.00").await;
    let kit = |line: &&Value| line["kind"] == "commission";
    for (verdict, order) in
        [("reject", "kit-1"), ("reject", "rated-2"), ("reject", "capped-1"), ("hold", "kit-4"), ("reject", "free-2")]
    {
        let lines = world.lines_of(order).await;
        let ids: Vec<_> = lines.iter().filter(kit).map(|line| line["id"].as_str().unwrap()).collect();
        world.reviewed(verdict, &ids).await;
        story.later();
    }
    story.refunded("while rejected", "kit-1", "499.50").await;
    story.refunded("free back again", "free-2", "10.00").await;
    for (verdict, order) in
        [("reinstate", "kit-1"), ("reinstate", "rated-2"), ("release", "kit-4"), ("reinstate", "free-2")]
    {
        let lines = world.lines_of(order).await;
        let ids: Vec<_> = lines.iter().filter(kit).map(|line| line["id"].as_str().unwrap()).collect();
        world.reviewed(verdict, &ids).await;
        story.later();
    }
}

/// People attribute and adjust before anything is paid. Tells which commission is a bonus.
async fn people_intervene(story: &Story) -> String {
    let (world, other) = (&story.world, story.other.as_str());
    story.attributed("nobody", &[(&world.partner, "60"), (other, "40")]).await;
    story.attributed("kit-6", &[(other, "50"), (&world.partner, "50")]).await;
    story.later();
    story.attributed("plan-2", &[(other, "100")]).await;
    story.refunded("after attribution", "plan-2", "10.00").await;
    story.adjusted(&story.ids_of("plan-1").await[0], "10.00").await;
    story.adjusted(&story.ids_of("ladder-4").await[0], "6.00").await;
    story.later();
    story.adjusted(&story.ids_of("ladder-4").await[0], "3.00").await;
    let given = story.bonus("25.00").await;
    story.bonus("-3.00").await;
    story.adjusted(&given, "20.00").await;
    given
}

/// Payouts of several pages: some cancelled, shrunk, sent back, paid.
async fn payouts(story: &Story) {
    let world = &story.world;
    for n in 0..40 {
        story.sold(&format!("small-{n}"), "thing", "12.30").await;
    }
    story.approve_everything().await;
    world.pass("20d");
    world.fire("mature-commissions").await;
    let first = world.request_payout().await["id"].clone();
    assert_eq!(world.payout_call(APPROVER, "cancel", &first, &json!({"reason": "too early"})).await, 200);
    let second = world.request_payout().await["id"].clone();
    story.later();
    story.review("hold", "small-1").await;
    story.review("reject", "small-2").await;
    story.refunded("inside", "small-3", "6.15").await;
    story.refunded("inside, whole", "small-4", "12.30").await;
    story.adjusted(&story.ids_of("small-5").await[0], "1.00").await;
    story.adjusted(&story.ids_of("small-6").await[0], "2.00").await;
    story.later();
    story.withdrawn("inside again", "refund_withdrawn", "small-3", "inside").await;
    assert_eq!(world.approve_payout(APPROVER, &second).await, 200);
    assert_eq!(world.payout_call(APPROVER, "send-back", &second, &json!({"reason": "look again"})).await, 200);
    world.pay(&second).await;
    world.settle().await;
    world.fire("batch-payouts").await;
    world.settle().await;
}

/// What is paid is clawed back, reinstated, adjusted and given to others beside it.
async fn after_payment(story: &Story, given: &str) {
    let (world, other) = (&story.world, story.other.as_str());
    story.later();
    story.refunded("late", "small-10", "4.00").await;
    story.charged_back("late, whole", "small-11", "12.30").await;
    story.refunded("late kit", "kit-3", "99.90").await;
    story.later();
    story.withdrawn("late again", "dispute_won", "small-11", "late, whole").await;
    story.adjusted(&story.ids_of("small-12").await[0], "5.00").await;
    story.later();
    story.adjusted(&story.ids_of("small-12").await[0], "0.50").await;
    story.adjusted(&story.ids_of("small-12").await[0], "1.50").await;
    story.refunded("of the adjusted", "small-12", "6.15").await;
    story.adjusted(given, "27.50").await;
    story.adjusted(given, "17.50").await;
    story.attributed("small-13", &[(other, "66.666666"), (&world.partner, "33.333334")]).await;
    story.edited("late edit", "kit-4", "kit", "1500.00").await;
    story.review("release", "small-1").await;
    story.review("reinstate", "small-2").await;
    story.approve_everything().await;
    world.pass("60d");
    world.tick().await;
    let third = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(SECOND_ADMIN, &third).await, 200);
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &third, &json!({"amount": "1.00", "reference": "a"})).await, 200);
    story.refunded("while being paid", "small-1", "12.30").await;
}

#[tokio::test]
async fn everything_that_can_happen_replays_to_the_same_bytes() {
    let story = Box::pin(everything_happens()).await;
    let all = story.everything().await;
    let done: BTreeSet<_> = all.entries.iter().map(|sealed| sealed.entry.what).collect();
    let expected = [
        What::Accrue,
        What::AwaitSale,
        What::Refund,
        What::Edit,
        What::Withdraw,
        What::Attribute,
        What::Bonus,
        What::Adjust,
        What::Approve,
        What::Mature,
        What::Hold,
        What::Release,
        What::Reject,
        What::Reinstate,
        What::Draft,
        What::Claim,
        What::CloseDraft,
        What::ApprovePayout,
        What::SendBack,
        What::CancelPayout,
        What::MarkPaid,
        What::Settle,
    ];
    assert_eq!(expected.into_iter().filter(|what| !done.contains(what)).collect::<Vec<_>>(), []);
    for kind in [
        LineKind::Commission,
        LineKind::Clawback,
        LineKind::TrueUp,
        LineKind::Bonus,
        LineKind::Adjustment,
        LineKind::Reinstatement,
    ] {
        assert!(all.lines.iter().any(|line| line.kind == kind), "{kind:?}");
    }
    let replayed = story.replays().await;
    assert_eq!((replayed.lines, replayed.entries), (all.lines.len(), all.entries.len()));
    let path = format!("/audit/replay?programId={}", story.world.program);
    let of_program = story.world.get(ADMIN, &path).await.ok();
    assert_eq!((&of_program["lines"], &of_program["differing"]), (&json!(all.lines.len()), &json!([])));
}

#[tokio::test]
async fn a_program_that_is_too_large_to_replay_at_once_is_refused_with_the_limit() {
    let story = Story::new().await;
    for n in 0..4 {
        story.sold(&format!("thing-{n}"), "thing", "100.00").await;
    }
    let (context, program) = (&story.world.system.context, story.world.program.parse().unwrap());
    assert_eq!(of_program(context, &program, 4).await.unwrap().lines, 4);
    let refused = of_program(context, &program, 3).await.unwrap_err().to_string();
    assert!(refused.contains("more than 3 commissions or journal entries"), "{refused}");
    story.world.get(ADMIN, "/audit/replay").await.refused(400);
    story.world.get(ADMIN, "/audit/replay?programId=prg_nonsense").await.refused(404);
}

/// What a replay takes, with other lines or entries.
fn books(all: &Everything, lines: Vec<Line>, entries: Vec<Sealed>) -> Everything {
    let (programs, partners, rule_sets) = (all.programs.clone(), all.partners.clone(), all.rule_sets.clone());
    Everything { lines, entries, programs, partners, rule_sets, ..Everything::default() }
}

#[tokio::test]
async fn no_field_of_a_commission_can_be_altered_unseen() {
    let story = Story::new().await;
    story.sold("plan-1", "plan", "100.01").await;
    story.refunded("r1", "plan-1", "33.33").await;
    for n in 1..=3 {
        story.sold(&format!("kit-{n}"), "kit", "999.00").await;
    }
    story.adjusted(&story.ids_of("kit-1").await[0], "200.00").await;
    story.bonus("5.00").await;
    story.review("hold", "kit-2").await;
    story.approve_everything().await;
    let all = story.everything().await;
    let mut altered_fields = BTreeSet::new();
    for at in 0..all.lines.len() {
        let Value::Object(fields) = json!(all.lines[at]) else { panic!("a line is an object") };
        for (name, value) in &fields {
            let other = match value {
                Value::Number(number) => json!(number.as_i64().unwrap() + 1),
                Value::Array(items) if items.is_empty() => json!(["eve"]),
                Value::Array(_) => json!([]),
                Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => json!("2026-06-06T06:06:06Z"),
                Value::String(text) => json!(text.replace(['a', 'e', 'o', '0', '1'], "2")),
                Value::Object(inner) => {
                    let mut inner = inner.clone();
                    let Some(number) = inner.values_mut().find(|value| value.is_i64()) else { continue };
                    *number = json!(number.as_i64().unwrap() + 1);
                    Value::Object(inner)
                }
                _ => continue,
            };
            let mut altered = fields.clone();
            altered.insert(name.clone(), other);
            // Not everything that can be written reads as a line.
            let Ok(line) = serde_json::from_value::<Line>(Value::Object(altered)) else { continue };
            if line == all.lines[at] {
                continue;
            }
            let mut lines = all.lines.clone();
            lines[at] = line;
            let differing = replay(&books(&all, lines, all.entries.clone())).differing;
            assert!(!differing.is_empty(), "{name} of {}", all.lines[at].id);
            let told = differing[0].to_string();
            assert!(name == "id" || (told.contains(name.as_str()) && differing.len() == 1), "{name}: {told}");
            altered_fields.insert(name.clone());
        }
    }
    for field in
        ["amount", "takenBack", "dueAt", "occurredAt", "approvedAt", "hands", "why", "version", "ruleSet", "basis"]
    {
        assert!(altered_fields.contains(field), "{field} was never altered");
    }
}

#[tokio::test]
async fn an_entry_that_is_gone_shows() {
    let story = Story::new().await;
    story.refunded("early", "plan-1", "12.34").await;
    story.sold("plan-1", "plan", "100.01").await;
    story.refunded("r1", "plan-1", "33.33").await;
    for n in 1..=3 {
        story.sold(&format!("kit-{n}"), "kit", "999.00").await;
    }
    story.review("reject", "kit-1").await;
    story.approve_everything().await;
    let all = story.everything().await;
    for at in 0..all.entries.len() {
        let mut entries = all.entries.clone();
        let gone = entries.remove(at);
        assert!(!replay(&books(&all, all.lines.clone(), entries)).differing.is_empty(), "{}", gone.at);
    }
}

#[tokio::test]
async fn rules_that_were_changed_under_a_commission_show() {
    let story = Story::new().await;
    story.sold("thing-1", "thing", "100.00").await;
    let mut all = story.everything().await;
    for set in &mut all.rule_sets {
        let mut draft = json!(set.draft);
        draft["rules"][7]["reward"]["rate"] = json!("11");
        set.draft = serde_json::from_value(draft).unwrap();
    }
    let told: Vec<_> = replay(&all).differing.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|told| told.contains("amount is 1000 and was replayed as 1100")), "{told:?}");
}

#[tokio::test]
async fn weights_and_touches_that_were_changed_under_a_sale_show() {
    let weights = json!({"model": "position_based", "weights": {"first": "60", "middle": "10", "last": "30"}});
    let plan = Plan::new().at("2026-03-01T12:00:00Z").program("landingPage", "https://shop.example/");
    let world = plan.program("attribution", weights).start().await;
    world.add_partner(&json!({"code": "BEN20", "email": "ben@partners.example"})).await;
    let mut cookie = String::new();
    for code in ["ANNA10", "BEN20"] {
        let visit = Request::get("")
            .at(&format!("/r/{code}"))
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0");
        let reply = world.send(visit.header("cookie", &cookie)).await;
        assert_eq!(reply.status, 302, "{}", reply.text);
        cookie = reply.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        world.pass("1h");
    }
    let visitor = cookie.split_once('=').unwrap().1;
    let sale =
        json!({"id": "o1", "type": "sale", "partner": null, "amount": {"total": "100.00"}, "visitorId": visitor});
    world.report(&world.event(sale)).await.ok();
    let all = world.system.context.store.everything().await.unwrap();
    assert_eq!((all.lines.len(), replay(&all).differing), (2, Vec::new()));
    let accrued = all.entries.iter().position(|sealed| sealed.entry.what == What::Accrue).unwrap();
    let told = json!(all.entries[accrued].entry.circumstances);
    let (mut other_weights, mut other_order) = (told.clone(), told.clone());
    other_weights["weights"] = json!({"first": "30", "middle": "10", "last": "60"});
    other_order["touches"][0]["at"] = json!("2026-03-01T13:30:00Z");
    other_order["touches"].as_array_mut().unwrap().swap(0, 1);
    for altered in [other_weights, other_order] {
        let mut entries = all.entries.clone();
        entries[accrued].entry.circumstances = serde_json::from_value(altered.clone()).unwrap();
        let differing = replay(&books(&all, all.lines.clone(), entries)).differing;
        let differing: Vec<_> = differing.iter().map(ToString::to_string).collect();
        assert!(differing.iter().any(|told| told.contains("and by its touches")), "{altered}: {differing:?}");
    }
}

#[tokio::test]
async fn a_commission_changed_in_the_table_is_found_by_audit_and_replay() {
    let story = Story::new().await;
    story.sold("thing-1", "thing", "100.00").await;
    story.sold("thing-2", "thing", "100.00").await;
    let world = &story.world;
    let id: LineId = world.line_id("thing-1").await.parse().unwrap();
    let table = aws_sdk_dynamodb::Client::new(&world.system.embedded.sdk_config());
    let text = |text: String| aws_sdk_dynamodb::types::AttributeValue::S(text);
    table
        .update_item()
        .table_name(local::TABLE)
        .key("pk", text(format!("LIN#{}#{}", id.partner(), id.shard())))
        .key("sk", text(id.position().to_owned()))
        .update_expression("SET dueAt = :at")
        .expression_attribute_values(":at", text("2026-01-05T09:30:00Z".to_owned()))
        .send()
        .await
        .unwrap();
    let invariants = workflows::audit::audit(&world.system.context.store).await.unwrap();
    let broken: Vec<_> =
        invariants.iter().filter(|invariant| !invariant.holds).map(|invariant| invariant.name).collect();
    assert_eq!(broken, ["replaying the journal gives every line again, byte for byte"]);
    let told = world.get(ADMIN, &format!("/audit/replay?programId={}", world.program)).await.ok();
    assert_eq!((&told["lines"], &told["differing"].as_array().unwrap().len()), (&json!(2), &1));
    assert_eq!(told["differing"][0]["line"], json!(id));
    assert!(told["differing"][0]["differs"].as_str().unwrap().starts_with("dueAt is"), "{told}");
}

#[tokio::test]
async fn a_commissions_history_is_read_whole_and_verified() {
    let story = Story::new().await;
    let world = &story.world;
    story.sold("thing-1", "thing", "100.00").await;
    story.refunded("r1", "thing-1", "40.00").await;
    story.review("hold", "thing-1").await;
    story.review("release", "thing-1").await;
    story.review("approve", "thing-1").await;
    let id = world.line_id("thing-1").await;
    let trail = world.get(ADMIN, &format!("/audit/commissions/{id}")).await.ok();
    let told: Vec<_> = trail["entries"].as_array().unwrap().iter().map(|step| step["entry"]["what"].clone()).collect();
    assert_eq!(told, ["accrue", "refund", "hold", "release", "approve"]);
    assert_eq!((&trail["commission"], &trail["verified"]), (&json!(id), &json!(true)));
    // Each entry has the hash it is named by.
    for step in trail["entries"].as_array().unwrap() {
        let hash = domain::ids::Hash::of(step["entry"].to_string().as_bytes());
        assert!(step["at"].as_str().unwrap().ends_with(hash.as_str()), "{step}");
    }
    let at = trail["entries"][2]["at"].as_str().unwrap().split('/').next().unwrap().to_owned();
    let table = aws_sdk_dynamodb::Client::new(&world.system.embedded.sdk_config());
    let text = |text: String| aws_sdk_dynamodb::types::AttributeValue::S(text);
    let held = trail["entries"][2]["entry"].to_string();
    table
        .update_item()
        .table_name(local::TABLE)
        .key("pk", text(format!("JRN#{at}")))
        .key("sk", text("000001".to_owned()))
        .update_expression("SET #text = :text")
        .expression_attribute_names("#text", "text")
        .expression_attribute_values(":text", text(held.replace("rita", "eve")))
        .send()
        .await
        .unwrap();
    let trail = world.get(ADMIN, &format!("/audit/commissions/{id}")).await.ok();
    assert_eq!(trail["verified"], false);
    assert!(trail["broken"].as_str().unwrap().contains("was altered"), "{trail}");
    assert_eq!(trail["entries"].as_array().unwrap().len(), 2, "what follows can be trusted");
}

#[tokio::test]
async fn lines_of_several_conversions_and_programs_decided_at_once_replay() {
    let story = Story::new().await;
    let world = &story.world;
    for n in 1..=4 {
        story.sold(&format!("kit-{n}"), "kit", "999.00").await;
        story.sold(&format!("capped-{n}"), "capped", "50.00").await;
    }
    story.sold("thing-1", "thing", "100.00").await;
    let elsewhere = world.post(ADMIN, "/programs", &json!({"name": "Other", "currency": "EUR"})).await.id();
    let second = World { program: elsewhere, ..world.clone() };
    second.publish(&rules()).await;
    let partner = second.add_partner(&json!({"code": "CARL"})).await;
    let second = World { partner, ..second };
    for order in ["kit-1", "kit-2", "kit-3"] {
        let mut sale = second
            .event(json!({"id": order, "type": "sale", "amount": {"total": "999.00", "currency": "EUR"},
            "items": [{"product": "kit", "quantity": 1, "amount": "999.00"}]}));
        sale["partner"] = json!({"id": second.partner});
        second.report(&sale).await.ok();
    }
    let mut ids = Vec::new();
    for (of, order) in [(world, "kit-2"), (&second, "kit-1"), (world, "thing-1"), (world, "kit-3"), (world, "capped-1")]
    {
        ids.push(of.line_id(order).await);
    }
    for verdict in ["reject", "reinstate"] {
        let asked = json!({"ids": ids, "reason": "test", "atomic": true});
        let reply = world.post(ADMIN, &format!("/commissions/{verdict}"), &asked).await;
        assert!(result_codes(&reply).iter().all(|code| *code == 200), "{}", reply.text);
        story.replays().await;
    }
    for of in [world, &second] {
        let replayed = of.get(ADMIN, &format!("/audit/replay?programId={}", of.program)).await.ok();
        assert_eq!(replayed["differing"], json!([]));
    }
}

#[tokio::test]
async fn the_demos_history_replays() {
    let clock = LocalClock::standing_at(local::demo::start().unwrap());
    let system = System::start(Options {
        storage: Storage::Memory,
        clock,
        aws: None,
        paypal: None,
        quickbooks: QuickbooksOptions::default(),
    })
    .await
    .unwrap();
    local::demo::play(&system, &mut Vec::new()).await.unwrap();
    let replayed = replay(&system.context.store.everything().await.unwrap());
    assert_eq!(replayed.differing, []);
    assert!(replayed.lines > 10 && replayed.entries > 30, "{replayed:?}");
}
