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
async fn an_explanation_says_which_rule_came_next_and_what_the_base_is_part_of() {
    let mut product = percent("30");
    product["name"] = json!("Product");
    product["match"] = json!({"products": ["A"]});
    product["excludeStoreCredit"] = json!(true);
    let world = Plan::new().rules([percent("10"), product]).start().await;
    let mut event = world.sale_event("o1", "118.00");
    event["amount"] = json!({"total": "118.00", "tax": "18.00", "storeCredit": "59.00", "currency": "USD"});
    event["items"] = json!([{"product": "A", "quantity": 1, "amount": "100.00"}]);
    world.report(&event).await.ok();
    world.refund("r1", "o1", "59.00").await;
    let told = world.get(ADMIN, &format!("/commissions/{}/explanation", world.line_id("o1").await)).await.ok();
    let over = json!({"rule": "share", "wonBy": "program_default", "decidedBy": "specificity"});
    assert_eq!(told["calculation"]["wonOver"], over);
    let parts =
        ["total", "tax", "shipping", "giftCards", "discount", "goods", "rated", "storeCredit", "base", "refunded"];
    let parts = parts.map(|part| told["base"][part]["amount"].as_str().unwrap());
    assert_eq!(parts, ["118.00", "18.00", "0.00", "0.00", "0.00", "100.00", "100.00", "50.00", "50.00", "25.00"]);
    let sentence = told["sentence"].as_str().unwrap();
    for part in [
        "because it names the product, before rule \"Share\", which is the program's default",
        "118.00 USD were charged with 18.00 USD tax",
        "50.00 USD of the goods were paid with store credit",
    ] {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert_eq!((&told["agrees"], &told["recomputed"]["amount"]), (&json!(true), &json!("15.00")));
    let bonus =
        json!({"partnerId": world.partner, "programId": world.program, "amount": "5.00", "reason": "well done"});
    let bonus = world.post(ADMIN, "/commissions", &bonus).await.id();
    let told = world.get(ADMIN, &format!("/commissions/{bonus}/explanation")).await.ok();
    assert_eq!((&told["agrees"], &told["base"]), (&Value::Null, &Value::Null), "no rule made it");
    world.audit_holds().await;
}

#[tokio::test]
async fn when_a_partner_was_suspended_is_shown() {
    let world = Plan::new().start().await;
    let path = format!("/partners/{}", world.partner);
    let call = async |call: &str| world.post(MANAGER, &format!("{path}/{call}"), &json!({})).await.ok();
    call("suspend").await;
    let again = call("suspend").await;
    assert_eq!(again["suspensions"], json!([{"from": "2026-01-01T00:00:00Z", "until": null}]), "being so already");
    world.pass("2d");
    let request = Request::patch(&path, &json!({"status": "active"}));
    let shown = world.send(world.by(ADMIN, request).await).await.ok();
    let suspension = json!({"from": "2026-01-01T00:00:00Z", "until": "2026-01-03T00:00:00Z"});
    assert_eq!(shown["suspensions"], json!([suspension]));
}

#[tokio::test]
async fn a_dry_run_of_more_sales_than_it_takes_is_refused_whole() {
    let world = Plan::new().start().await;
    for n in 1..=60 {
        world.sale(&format!("o{n}"), "100.00").await;
    }
    world.refund("r1", "o7", "50.00").await;
    let context = &world.system.context;
    let program = context.store.program("test", &world.program.parse().unwrap()).await.unwrap().unwrap();
    let set = context.store.rule_set("test", &program.id, 1).await.unwrap().unwrap();
    let (from, to) = (YEAR.0.parse().unwrap(), YEAR.1.parse().unwrap());
    let run = async |most: usize| workflows::dry_run::dry_run(context, &program, &set, from, to, most).await;
    let refused = run(59).await.unwrap_err().to_string();
    assert_eq!(refused, "/from: the period has more than 59 sales, the most of a dry run; choose a shorter one");
    let told = run(60).await.unwrap();
    assert_eq!((told.conversions, told.total.before.amount.units(), told.changed), (60, 59_500, 0));
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
async fn an_example_is_by_the_partner_it_names_and_may_be_in_another_currency_or_to_a_known_customer() {
    let world = Plan::new().partner("group", "gold").start().await;
    world.add_partner(&json!({"code": "BEN20"})).await;
    let rule = |name: &str, rate: &str, matches: Value| json!({"name": name, "reward": {"kind": "percent", "rate": rate}, "match": matches});
    let mut year = rule("Year", "1", json!({"products": ["Y"]}));
    year["recurrence"] = json!("months:12");
    let rules = json!([
        rule("Everybody", "10", json!({})),
        rule("Gold", "20", json!({"groups": ["gold"]})),
        rule("Anna on the phone", "30", json!({"partners": [world.partner], "channels": ["phone"]})),
        rule("Again", "5", json!({"customer": "returning", "products": ["R"]})),
        year,
    ]);
    let example = |expect: &[&str], more: Value, beside: Value| {
        let mut input = json!({"id": "x", "type": "sale", "occurredAt": "2026-06-01T00:00:00Z",
            "amount": {"total": "100.00", "currency": "USD"}});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut example = json!({"input": input, "expect": expect});
        example.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
        example
    };
    let item = |product: &str| json!([{"product": product, "quantity": 1, "amount": "100.00"}]);
    let examples = json!([
        example(&["10.00"], json!({}), json!({})),
        example(&["10.00"], json!({"partner": {"code": "BEN20"}}), json!({})),
        example(&["20.00"], json!({"partner": {"code": "ANNA10"}}), json!({})),
        example(&["20.00"], json!({"coupon": "ANNA10"}), json!({})),
        example(&["30.00"], json!({"partner": {"id": world.partner}, "channel": "phone"}), json!({})),
        example(&["5.00"], json!({"customer": {"id": "c", "new": false}, "items": item("R")}), json!({})),
        example(&["5.00"], json!({"items": item("R")}), json!({"customerSince": "2026-01-01T00:00:00Z"})),
        example(&["1.00"], json!({"items": item("Y")}), json!({"customerSince": "2025-06-02T00:00:00Z"})),
        example(&["10.00"], json!({"items": item("Y")}), json!({"customerSince": "2025-06-01T00:00:00Z"})),
        example(&["11.20"], json!({"amount": {"total": "100.00", "currency": "EUR"}}), json!({"rate": "1.12"})),
    ]);
    let sets = format!("/programs/{}/rule-sets", world.program);
    let draft =
        json!({"rationale": "r", "effectiveFrom": "2027-01-01T00:00:00Z", "rules": rules, "examples": examples});
    let drafted = world.post(ADMIN, &sets, &draft).await.refused(201);
    assert_eq!(drafted.body["examples"][9]["rate"], "1.12");
    // By the time it is to be published, Anna is in no group.
    let change = Request::patch(&format!("/partners/{}", world.partner), &json!({"group": null}));
    world.send(world.by(ADMIN, change).await).await.refused(200);
    let (version, empty) = (&drafted.body["version"], json!({}));
    world.post(tests::SECOND_ADMIN, &format!("{sets}/{version}/sign-off"), &empty).await.refused(200);
    let refused = world.post(ADMIN, &format!("{sets}/{version}/publish"), &empty).await.refused(422);
    assert_eq!(refused.pointers(), ["/examples/2/expect", "/examples/3/expect"]);
}

#[tokio::test]
async fn who_the_partner_of_an_example_is_need_not_be_known_where_no_rule_asks() {
    let world = Plan::new().start().await;
    let sets = format!("/programs/{}/rule-sets", world.program);
    let input = json!({"id": "x", "type": "sale", "occurredAt": "2026-06-01T00:00:00Z", "partner": {"code": "LATER"},
        "amount": {"total": "100.00", "currency": "USD"}});
    let draft = json!({"rationale": "r", "effectiveFrom": "2027-01-01T00:00:00Z", "rules": [percent("10")],
        "examples": [{"input": input, "expect": ["10.00"]}]});
    world.post(ADMIN, &sets, &draft).await.refused(201);
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
