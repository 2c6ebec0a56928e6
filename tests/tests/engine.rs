//! What people do with rules and partners, beyond single cents: rehearse a version over the past, compare versions, change partners.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use tests::{ADMIN, MANAGER, Plan, Request, World, percent};

async fn draft(world: &World, rules: &Value) -> u64 {
    let sets = format!("/programs/{}/rule-sets", world.program);
    let draft = json!({"rationale": "another", "effectiveFrom": "2027-01-01T00:00:00Z", "rules": rules});
    world.post(ADMIN, &sets, &draft).await.refused(201).body["version"].as_u64().unwrap()
}

async fn dry_run(world: &World, version: u64, from: &str, to: &str) -> Value {
    let path = format!("/programs/{}/rule-sets/{version}/dry-run", world.program);
    world.post(ADMIN, &path, &json!({"from": from, "to": to})).await.refused(200).body
}

const YEAR: (&str, &str) = ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");

#[tokio::test]
async fn a_dry_run_tells_what_a_version_would_have_paid_and_writes_nothing() {
    let world = Plan::new().rules([percent("10")]).start().await;
    let ben = world.add_partner(&json!({"code": "BEN20"})).await;
    world.sale("o1", "100.00").await;
    let mut of_ben = world.sale_event("o2", "200.00");
    of_ben["partner"] = json!({"code": "BEN20"});
    world.report(&of_ben).await.ok();
    world.refund("r1", "o2", "50.00").await;
    let before = (world.all(ADMIN, "/commissions").await, world.buckets().await);

    let version = draft(&world, &json!([percent("12")])).await;
    let told = dry_run(&world, version, YEAR.0, YEAR.1).await;
    let sums = |of: &Value| ["before", "after", "difference"].map(|sum| of[sum]["minor"].as_i64().unwrap());
    assert_eq!(sums(&told["total"]), [2_500, 3_000, 500], "10.00 and 15.00 become 12.00 and 18.00");
    assert_eq!(told["changed"], 2);
    let of_ben = told["partners"].as_array().unwrap().iter().find(|partner| partner["partnerId"] == ben.as_str());
    assert_eq!(sums(of_ben.unwrap()), [1_500, 1_800, 300]);
    assert!(told["sentence"].as_str().unwrap().contains("5.00 USD more for the 2 sales"), "{}", told["sentence"]);

    assert_eq!(dry_run(&world, version, "2026-06-01T00:00:00Z", YEAR.1).await["conversions"], 0, "outside the period");
    assert_eq!((world.all(ADMIN, "/commissions").await, world.buckets().await), before);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_dry_run_of_the_rules_in_force_changes_nothing() {
    let tiers = json!([{"after": "0", "amount": "2.50"}, {"after": "2", "amount": "2.75"}]);
    let rule = json!({"name": "Tiers", "reward": {"kind": "tiered", "metric": "count", "window": "lifetime",
        "shape": "retroactive", "tiers": tiers}, "caps": {"perPartnerMonth": "9.00"}});
    let world = Plan::new().rules([rule]).start().await;
    for n in 1..=4 {
        // A dry run takes them in the order in which they were accepted.
        world.pass("1m");
        world.sale(&format!("o{n}"), "100.00").await;
    }
    world.refund("r1", "o4", "30.00").await;
    let told = dry_run(&world, 1, YEAR.0, YEAR.1).await;
    assert_eq!(told["total"]["after"], told["total"]["before"], "{told}");
}

#[tokio::test]
async fn a_dry_run_knows_sales_that_no_rule_rated_and_leaves_what_people_rejected() {
    let mut only_a = percent("10");
    only_a["match"] = json!({"products": ["A"]});
    let world = Plan::new().rules([only_a]).start().await;
    world.sale("none", "100.00").await;
    let listed = world.all(ADMIN, &format!("/conversions?programId={}&status=no_rule", world.program)).await;
    assert_eq!(listed.len(), 1);
    let mut of_a = world.sale_event("a", "100.00");
    of_a["items"] = json!([{"product": "A", "quantity": 1, "amount": "100.00"}]);
    world.report(&of_a).await.ok();
    world.review(ADMIN, "reject", &[&world.line_id("a").await]).await;
    let version = draft(&world, &json!([percent("20")])).await;
    let told = dry_run(&world, version, YEAR.0, YEAR.1).await;
    assert_eq!(told["total"]["before"]["minor"], 0);
    assert_eq!(told["total"]["after"]["minor"], 2_000, "the sale no rule rated; the rejected one stays so");
}

#[tokio::test]
async fn a_dry_run_needs_a_period_and_a_role() {
    let world = Plan::new().start().await;
    let path = format!("/programs/{}/rule-sets/1/dry-run", world.program);
    let backwards = json!({"from": YEAR.1, "to": YEAR.0});
    assert_eq!(world.post(ADMIN, &path, &backwards).await.refused(422).pointers(), ["/to"]);
    let period = json!({"from": YEAR.0, "to": YEAR.1});
    world.post(tests::REVIEWER, &path, &period).await.refused(403);
    world.post(MANAGER, &path, &period).await.refused(200);
    world.post(ADMIN, &path.replace("/1/", "/9/"), &period).await.refused(404);
}

#[tokio::test]
async fn the_difference_of_versions_is_told_in_words() {
    let world = Plan::new().rules([json!({"name": "Ten", "reward": {"kind": "percent", "rate": "10"}})]).start().await;
    let version = draft(&world, &json!([{"name": "Ten", "reward": {"kind": "percent", "rate": "12"}}])).await;
    let differs = world.get(ADMIN, &format!("/programs/{}/rule-sets/{version}/diff", world.program)).await;
    let changes = differs.body["changes"].as_array().unwrap();
    assert!(changes.contains(&json!("Rule \"Ten\": reward rate is 12 instead of 10.")), "{changes:?}");
    world.get(ADMIN, &format!("/programs/{}/rule-sets/1/diff", world.program)).await.refused(422);
}

#[tokio::test]
async fn a_partner_changes_for_later_sales_only_and_not_unseen() {
    let mut gold = percent("20");
    gold["name"] = json!("Gold");
    gold["match"] = json!({"groups": ["gold"]});
    let world = Plan::new().rules([percent("10"), gold]).start().await;
    world.sale("before", "100.00").await;
    let path = format!("/partners/{}", world.partner);
    let change = json!({"group": "gold", "customerId": "c_anna"});
    let request = Request::patch(&path, &change).header("if-match", "\"9\"");
    assert_eq!(world.send(world.by(ADMIN, request).await).await.status, 412);
    let request = Request::patch(&path, &change).header("if-match", "\"1\"");
    let changed = world.send(world.by(ADMIN, request).await).await.refused(200);
    assert_eq!((&changed.body["group"], &changed.body["customerId"]), (&json!("gold"), &json!("c_anna")));
    world.sale("after", "100.00").await;
    assert_eq!(world.states_of("before").await[0].1, 1_000);
    assert_eq!(world.states_of("after").await[0].1, 2_000);
    let mut own = world.sale_event("own", "100.00");
    own["customer"] = json!({"id": "c_anna"});
    assert_eq!(world.report(&own).await.refused(422).pointers(), ["/customer/id"]);
    let request = Request::patch(&path, &json!({"group": null}));
    assert_eq!(world.send(world.by(ADMIN, request).await).await.body["group"], Value::Null);
    world.audit_holds().await;
}
