//! What is refused, with which status, and at which field.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use http::Method;
use serde_json::{Value, json};
use tests::{ADMIN, Plan, Reply, Request, SECOND_ADMIN, World};

/// Sends changed copies of a fine body: where it is changed, to what, the status and the fields named.
async fn refused_at(world: &World, path: &str, fine: &Value, cases: &[(&str, Value, u16, &[&str])]) {
    for (pointer, value, status, pointers) in cases {
        let mut body = fine.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"))[field] = value.clone();
        let reply = world.post(ADMIN, path, &body).await;
        let case = format!("{path} with {pointer} = {value}: {}", reply.text);
        assert_eq!(reply.status, *status, "{case}");
        assert_eq!(reply.pointers(), *pointers, "{case}");
        is_problem(&reply);
    }
}

/// Every refusal is told the same way.
fn is_problem(reply: &Reply) {
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    let body = &reply.body;
    assert!(body["type"].as_str().is_some_and(|kind| kind.starts_with("/problems/")), "{body}");
    assert!(body["title"].is_string() && body["detail"].is_string() && body["status"] == reply.status, "{body}");
}

#[tokio::test]
async fn a_program_is_checked_field_by_field() {
    let world = Plan::new().start().await;
    let fine = json!({"name": "P", "schedule": {"frequency": "monthly"}, "attribution": {"model": "last_touch"}});
    let cases: &[(&str, Value, u16, &[&str])] = &[
        ("/name", json!(1), 400, &["/name"]),
        ("/name", json!(" "), 422, &["/name"]),
        ("/name", json!("x".repeat(201)), 422, &["/name"]),
        ("/currency", json!("ZZZ"), 422, &["/currency"]),
        ("/currency", json!("usd"), 422, &["/currency"]),
        ("/timeZone", json!("Mars/Olympus"), 422, &["/timeZone"]),
        ("/holdDays", json!("30"), 400, &["/holdDays"]),
        ("/holdDays", json!(-1), 400, &["/holdDays"]),
        ("/holdDays", json!(3_651), 422, &["/holdDays"]),
        ("/minHoldDays", json!(3_651), 422, &["/minHoldDays"]),
        ("/coolingOffDays", json!(3_651), 422, &["/coolingOffDays"]),
        ("/approval", json!("sometimes"), 400, &["/approval"]),
        ("/minimumPayout", json!(50), 400, &["/minimumPayout"]),
        ("/minimumPayout", json!("50.001"), 422, &["/minimumPayout"]),
        ("/minimumPayout", json!("-1"), 422, &["/minimumPayout"]),
        ("/minimumPayout", json!("1e3"), 422, &["/minimumPayout"]),
        ("/largePayoutLimit", json!("a lot"), 422, &["/largePayoutLimit"]),
        ("/minimumSales", json!(1_001), 422, &["/minimumSales"]),
        ("/schedule/frequency", json!("hourly"), 422, &["/schedule/frequency"]),
        ("/dustSweepDays", json!(0), 422, &["/dustSweepDays"]),
        ("/debtWriteOffDays", json!(3_651), 422, &["/debtWriteOffDays"]),
        ("/schedule/runDay", json!(0), 422, &["/schedule/runDay"]),
        ("/schedule/runDay", json!(32), 422, &["/schedule/runDay"]),
        ("/schedule/anchor", json!("2026-02-30"), 400, &["/schedule/anchor"]),
        ("/schedule/cutOffDays", json!(366), 422, &["/schedule/cutOffDays"]),
        ("/attribution/model", json!("best_touch"), 422, &["/attribution/model"]),
    ];
    refused_at(&world, "/programs", &fine, cases).await;
    let several = json!({"name": "", "currency": "ZZZ", "timeZone": "Mars", "holdDays": 9_999});
    let reply = world.post(ADMIN, "/programs", &several).await.refused(422);
    assert_eq!(reply.pointers(), ["/currency", "/timeZone", "/holdDays", "/name"], "all at once");
    assert_eq!(world.all(ADMIN, "/programs").await.len(), 1);
    world.audit_holds().await;
}

#[tokio::test]
async fn amounts_have_the_decimals_of_their_currency() {
    let world = Plan::new().start().await;
    for (currency, amount, status) in [
        ("USD", "0.010", 201),
        ("USD", "0.001", 422),
        ("JPY", "100", 201),
        ("JPY", "100.00", 201),
        ("JPY", "0.5", 422),
        ("KWD", "0.001", 201),
        ("KWD", "0.0001", 422),
    ] {
        let body = json!({"name": "P", "currency": currency, "minimumPayout": amount, "largePayoutLimit": "1000"});
        assert_eq!(world.post(ADMIN, "/programs", &body).await.status, status, "{amount} {currency}");
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn rules_are_checked_field_by_field() {
    let world = Plan::new().start().await;
    let fine = json!({"rationale": "r", "effectiveFrom": "2026-06-01T00:00:00Z", "examples": [], "rules": [{
        "name": "R", "match": {}, "caps": {}, "reward": {"kind": "percent", "rate": "10"},
        "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}],
    }, {"name": "Gold", "match": {"groups": ["gold"]}, "reward": {"kind": "percent", "rate": "20"}}]});
    let path = format!("/programs/{}/rule-sets", world.program);
    let tiered = |metric: &str, window: &str, shape: &str, tiers: Value| json!({"kind": "tiered", "metric": metric, "window": window, "shape": shape, "tiers": tiers});
    let ladder = || json!([{"after": "0", "rate": "10"}]);
    let by_count = |tiers| tiered("count", "lifetime", "marginal_by_order", tiers);
    let example = |expect: &str| {
        json!([{"input": {"id": "x", "type": "sale", "occurredAt": "2026-01-01T00:00:00Z",
            "amount": {"total": "100.00", "currency": "USD"}}, "expect": [expect, "6.00"]}])
    };
    let by = |currency: &str, more: &Value| {
        let mut input = json!({"id": "x", "type": "sale", "occurredAt": "2026-01-01T00:00:00Z",
            "amount": {"total": "100.00", "currency": currency}});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([{"input": input, "expect": ["4.00", "6.00"]}])
    };
    let cases: &[(&str, Value, u16, &[&str])] = &[
        ("/rationale", json!(" "), 422, &["/rationale"]),
        ("/effectiveFrom", json!("tomorrow"), 400, &["/effectiveFrom"]),
        ("/rules", json!([]), 422, &["/rules"]),
        ("/rules", json!({}), 400, &["/rules"]),
        ("/rules/0/name", json!("?!"), 422, &["/rules/0/name"]),
        ("/rules/0/holdDays", json!(3_651), 422, &["/rules/0/holdDays"]),
        ("/rules/0/minimumSales", json!(1_001), 422, &["/rules/0/minimumSales"]),
        ("/rules/0/recurrence", json!("twice"), 422, &["/rules/0/recurrence"]),
        ("/rules/0/caps/perOrder", json!("-5.00"), 422, &["/rules/0/caps/perOrder"]),
        ("/rules/0/match/minOrder", json!("0.001"), 422, &["/rules/0/match/minOrder"]),
        ("/rules/0/reward/rate", json!("100.01"), 422, &["/rules/0/reward/rate"]),
        ("/rules/0/reward/rate", json!("-1"), 422, &["/rules/0/reward/rate"]),
        ("/rules/0/reward/rate", json!("ten"), 422, &["/rules/0/reward/rate"]),
        ("/rules/0/reward", json!({"kind": "flat", "amount": "1.001"}), 422, &["/rules/0/reward/amount"]),
        ("/rules/0/reward", by_count(json!([])), 422, &["/rules/0/reward/tiers"]),
        ("/rules/0/reward", by_count(json!([{"after": "1", "rate": "10"}])), 422, &["/rules/0/reward/tiers/0/after"]),
        ("/rules/0/reward", by_count(json!([{"after": "0"}])), 422, &["/rules/0/reward/tiers/0/rate"]),
        (
            "/rules/0/reward",
            tiered("sales", "fortnight", "stepped", ladder()),
            422,
            &["/rules/0/reward/metric", "/rules/0/reward/window", "/rules/0/reward/shape"],
        ),
        ("/rules/0/slices/1/share", json!("50"), 422, &["/rules/0/slices"]),
        ("/rules/0/slices/0/days", json!(61), 422, &["/rules/0/slices"]),
        ("/rules/0/slices/0/share", json!("0"), 422, &["/rules/0/slices/0/share", "/rules/0/slices"]),
        ("/examples", example("5.00"), 422, &["/examples/0/expect"]),
        ("/examples", json!([{"input": {}, "expect": []}]), 422, &["/examples/0/input"]),
        ("/examples", by("USD", &json!({"partner": {"id": world.program}})), 422, &["/examples/0/input/partner/id"]),
        ("/examples", by("USD", &json!({"partner": {"code": "NOBODY"}})), 422, &["/examples/0/input/partner/code"]),
        ("/examples", by("EUR", &json!({})), 422, &["/examples/0/rate"]),
    ];
    refused_at(&world, &path, &fine, cases).await;
    let mut passing = fine.clone();
    passing["examples"] = example("4.00");
    assert_eq!(world.post(ADMIN, &path, &passing).await.refused(201).body["version"], 2);
    let mut twice = fine;
    twice["rules"] = json!([twice["rules"][0], twice["rules"][0]]);
    let reply = world.post(ADMIN, &path, &twice).await.refused(422);
    assert_eq!(reply.pointers(), ["/rules/1/key"]);
    world.audit_holds().await;
}

#[tokio::test]
async fn rule_sets_are_signed_off_by_a_second_person_and_published_in_time() {
    let world = Plan::new().start().await;
    let sets = format!("/programs/{}/rule-sets", world.program);
    let draft = |from: &str| json!({"rationale": "r", "effectiveFrom": from, "rules": [tests::percent("20")]});
    let reply = world.post(ADMIN, &sets, &draft("2026-01-01T00:04:59Z")).await.refused(422);
    assert_eq!(reply.pointers(), ["/effectiveFrom"], "it could never be published in time");
    for from in ["2026-01-01T00:05:00Z", "2026-01-01T00:05:01Z"] {
        world.post(ADMIN, &sets, &draft(from)).await.refused(201);
    }
    world.clock_at("2026-01-01T00:00:01Z");
    let step = async |who, version: u32, step: &str| {
        world.post(who, &format!("{sets}/{version}/{step}"), &json!({})).await.status
    };
    assert_eq!(step(ADMIN, 3, "publish").await, 409, "not signed off");
    assert_eq!(step(ADMIN, 3, "sign-off").await, 409, "by its author");
    assert_eq!(step(tests::MANAGER, 3, "sign-off").await, 200);
    assert_eq!(step(tests::MANAGER, 2, "sign-off").await, 200);
    assert_eq!(step(ADMIN, 2, "publish").await, 409, "too soon");
    assert_eq!(step(ADMIN, 3, "publish").await, 200);
    assert_eq!(step(ADMIN, 3, "publish").await, 409, "published once");
    assert_eq!(step(ADMIN, 4, "publish").await, 404);
    world.sale("before", "100.00").await;
    world.clock_at("2026-01-01T00:05:01Z");
    world.sale("after", "100.00").await;
    assert_eq!(world.states_of("before").await, [("payable".to_owned(), 1_000)]);
    assert_eq!(world.states_of("after").await, [("payable".to_owned(), 2_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_partner_is_checked_field_by_field() {
    let world = Plan::new().start().await;
    let method = |kind: &str, details: Value| json!([{"kind": kind, "details": details}]);
    let fine = json!({"programId": world.program, "name": "Ben", "email": "ben@x.example", "code": "BEN20"});
    let cases: &[(&str, Value, u16, &[&str])] = &[
        ("/programId", json!(null), 400, &["/programId"]),
        ("/programId", json!("nonsense"), 422, &["/programId"]),
        ("/programId", json!(format!("prg_{}", "0".repeat(26))), 422, &["/programId"]),
        ("/name", json!(""), 422, &["/name"]),
        ("/email", json!("ben"), 422, &["/email"]),
        ("/code", json!("has space"), 422, &["/code"]),
        ("/code", json!("x".repeat(41)), 422, &["/code"]),
        ("/code", json!("anna10"), 422, &["/code"]),
        ("/minimumPayout", json!("1.001"), 422, &["/minimumPayout"]),
        ("/trusted", json!("yes"), 400, &["/trusted"]),
        ("/payoutMethods", method("cash", json!({})), 400, &["/payoutMethods/0/kind"]),
        ("/payoutMethods", method("paypal", json!({})), 422, &["/payoutMethods/0/details"]),
        ("/payoutMethods", method("paypal", json!({"email": "nobody"})), 422, &["/payoutMethods/0/details"]),
        ("/payoutMethods", method("wise", json!({"email": "b@x.example"})), 422, &["/payoutMethods/0/details"]),
        (
            "/payoutMethods",
            method("bank", json!({"name": "B", "iban": "DE00370400440532013000"})),
            422,
            &["/payoutMethods/0/details"],
        ),
        ("/payoutMethods", json!([{"kind": "manual"}, {"kind": "manual"}]), 422, &["/payoutMethods/1/kind"]),
        (
            "/payoutMethods",
            json!([{"kind": "manual", "preferred": true}, {"kind": "quickbooks", "preferred": true}]),
            422,
            &["/payoutMethods"],
        ),
    ];
    refused_at(&world, "/partners", &fine, cases).await;
    world.post(ADMIN, "/partners", &fine).await.refused(201);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_source_is_checked_field_by_field() {
    let world = Plan::new().start().await;
    let fine = json!({"programId": world.program, "kind": "standard", "name": "Shop"});
    let cases: &[(&str, Value, u16, &[&str])] = &[
        ("/programId", json!("nonsense"), 422, &["/programId"]),
        ("/kind", json!("magento"), 400, &["/kind"]),
        ("/name", json!(""), 422, &["/name"]),
        ("/secret", json!("short"), 422, &["/secret", "/secret"]),
        ("/secret", json!("whsec_not base64 but long enough to be one"), 422, &["/secret"]),
    ];
    refused_at(&world, "/sources", &fine, cases).await;
    let made = world.post(ADMIN, "/sources", &fine).await.ok();
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    let listed = world.get(ADMIN, &format!("/sources?programId={}", world.program)).await.ok();
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["secret"]), (&made["id"], &Value::Null), "shown once");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_conversion_is_checked_field_by_field() {
    let world = Plan::new().start().await;
    let mut fine = world.sale_event("o1", "100.00");
    fine["items"] = json!([{"sku": "A", "quantity": 1, "amount": "100.00"}]);
    fine["customer"] = json!({});
    let own_address = domain::program::email_hash("anna@partners.example");
    let cases: &[(&str, Value, u16, &[&str])] = &[
        ("/programId", json!(null), 422, &["/programId"]),
        ("/programId", json!("nonsense"), 422, &["/programId"]),
        ("/id", json!(7), 400, &["/id"]),
        ("/id", json!(null), 422, &["/id"]),
        ("/id", json!("x".repeat(201)), 422, &["/id"]),
        ("/type", json!("purchase"), 422, &["/type"]),
        ("/type", json!("edit"), 422, &["/conversion"]),
        ("/type", json!("dispute_won"), 422, &["/conversion", "/refund"]),
        ("/occurredAt", json!("yesterday"), 422, &["/occurredAt"]),
        ("/occurredAt", json!("2026-01-01T00:05:01Z"), 422, &["/occurredAt"]),
        ("/occurredAt", json!("1969-12-31T23:59:59Z"), 422, &["/occurredAt"]),
        ("/occurredAt", json!("2019-12-31T23:59:59Z"), 422, &["/occurredAt"]),
        ("/partner", json!({"id": "nonsense"}), 422, &["/partner/id"]),
        ("/partner", json!({"id": format!("par_{}", "0".repeat(26))}), 422, &["/partner/id"]),
        ("/partner", json!({"code": "NOBODY"}), 422, &["/partner/code"]),
        ("/amount/total", json!(100), 400, &["/amount/total"]),
        ("/amount/total", json!("100.001"), 422, &["/amount/total"]),
        ("/amount/total", json!("-100.00"), 422, &["/amount/total"]),
        ("/amount/total", json!("1e2"), 422, &["/amount/total"]),
        ("/amount/total", json!("99999999999.99"), 422, &["/amount/total"]),
        ("/amount/currency", json!("ZZZ"), 422, &["/amount/currency"]),
        ("/amount/currency", json!("EUR"), 422, &["/amount/currency"]),
        ("/items/0/amount", json!("0.001"), 422, &["/items/0/amount"]),
        ("/items/0/quantity", json!(-1), 422, &["/items/0/quantity"]),
        ("/items", json!("none"), 400, &["/items"]),
        ("/customer/emailHash", json!(own_address), 422, &["/customer/emailHash"]),
    ];
    refused_at(&world, "/conversions", &fine, cases).await;
    let without_items =
        json!({"id": "o2", "type": "sale", "amount": {"total": "10.00", "tax": "8.00", "shipping": "3.00"}});
    let reply = world.report(&world.event(without_items)).await.refused(422);
    assert_eq!(reply.pointers(), ["/amount/total"]);
    assert_eq!(world.lines().await, [] as [Value; 0]);
    world.report(&fine).await.refused(202);
    let mut at_the_edge = world.sale_event("o3", "1.00");
    at_the_edge["occurredAt"] = json!("2026-01-01T00:05:00Z");
    world.report(&at_the_edge).await.refused(202);
    let unknown_coupon =
        json!({"id": "o4", "type": "sale", "amount": {"total": "1.00"}, "partner": null, "coupon": "SUMMER"});
    assert_eq!(world.report(&world.event(unknown_coupon)).await.ok()["outcome"], "unattributed");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_refund_is_checked_field_by_field() {
    let world = Plan::new().start().await;
    world.sale("o1", "100.00").await;
    let fine = world.refund_event("r1", "o1", "40.00");
    let cases: &[(&str, Value, u16, &[&str])] = &[
        ("/conversion", json!(null), 422, &["/conversion"]),
        ("/conversion", json!(""), 422, &["/conversion"]),
        ("/amount/total", json!(null), 422, &["/amount/total"]),
        ("/amount/total", json!("-1.00"), 422, &["/amount/total"]),
        ("/amount/tax", json!("-1.00"), 422, &["/amount/tax"]),
        ("/amount/currency", json!("EUR"), 422, &["/amount/currency"]),
        ("/occurredAt", json!("2027-01-01T00:00:00Z"), 422, &["/occurredAt"]),
    ];
    refused_at(&world, "/conversions", &fine, cases).await;
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn payouts_and_runs_are_checked_field_by_field() {
    let world = Plan::new().start().await;
    let nobody = format!("par_{}", "0".repeat(26));
    let cases: &[(&str, Value, u16, &[&str])] = &[
        ("/partnerId", json!("nonsense"), 422, &["/partnerId"]),
        ("/partnerId", json!(nobody), 422, &["/partnerId"]),
        ("/programId", json!("nonsense"), 422, &["/programId"]),
        ("/amount", json!("0.001"), 422, &["/amount"]),
        ("/amount", json!(1), 400, &["/amount"]),
        ("/method", json!("cash"), 400, &["/method"]),
    ];
    refused_at(&world, "/payouts", &world.payout_request(&json!({})), cases).await;
    let run = json!({"programId": world.program});
    let cases: &[(&str, Value, u16, &[&str])] = &[
        ("/programId", json!("nonsense"), 422, &["/programId"]),
        ("/cutOff", json!("soon"), 400, &["/cutOff"]),
        ("/cutOff", json!("2026-01-01T00:00:01Z"), 422, &["/cutOff"]),
        ("/include", json!([world.partner, "nonsense"]), 422, &["/include/1"]),
        ("/exclude", json!([nobody]), 422, &["/exclude/0"]),
    ];
    refused_at(&world, "/runs", &run, cases).await;
    for (path, body, pointers) in [
        ("/payouts/approve", json!({}), vec![""]),
        ("/payouts/approve", json!({"payoutIds": [], "payouts": []}), vec![""]),
        ("/payouts/approve", json!({"payoutIds": []}), vec!["/payoutIds"]),
        ("/payouts/approve", json!({"payouts": []}), vec!["/payouts"]),
        ("/payouts/cancel", json!({"payouts": []}), vec!["/payouts"]),
        ("/payouts/mark-paid", json!({"payouts": vec![json!({"id": "x"}); 101]}), vec!["/payouts"]),
    ] {
        let reply = world.post(ADMIN, path, &body).await.refused(422);
        assert_eq!(reply.pointers(), pointers, "{path}");
    }
    assert_eq!(world.all(ADMIN, &format!("/runs?programId={}", world.program)).await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_body_is_json_of_limited_size() {
    let world = Plan::new().start().await;
    let large = json!({"name": "x".repeat(1024 * 1024)}).to_string();
    for path in ["/programs", "/conversions", "/commissions/approve", "/payouts/approve"] {
        let request = world.by(ADMIN, Request::new(Method::POST, path)).await;
        for (kind, body, status) in [
            ("application/json", "", 400),
            ("application/json", "{", 400),
            ("application/json", "[]", 400),
            ("application/json", "null", 400),
            ("application/json", "{} {}", 400),
            ("application/json", large.as_str(), 413),
            ("text/plain", "{}", 415),
            ("application/x-www-form-urlencoded", "name=x", 415),
            ("text/json", "{}", 415),
        ] {
            let reply = world.send(request.clone().header("content-type", kind).body(body.to_owned())).await;
            assert_eq!(reply.status, status, "{path} {kind} {:.40}: {}", body, reply.text);
            is_problem(&reply);
        }
        let bytes = request.clone().header("content-type", "application/json").body(vec![b'"', 0xff, b'"']);
        assert_eq!(world.send(bytes).await.status, 400, "{path}: not UTF-8");
    }
    // Half of a surrogate pair, where nobody reads it.
    let cut = |fine: &Value| fine.to_string().replacen('{', r#"{"unknown": "\ud83d","#, 1);
    let program = world.by(ADMIN, Request::post("/programs", &Value::Null).body(cut(&json!({"name": "P"})))).await;
    assert_eq!(world.send(program).await.status, 400);
    let sale =
        world.by(ADMIN, Request::post("/conversions", &Value::Null).body(cut(&world.sale_event("o1", "100.00")))).await;
    assert_eq!(world.send(sale).await.status, 202, "what a storefront cut off costs nobody a commission");
    let created = Request::new(Method::POST, "/programs").header("content-type", "Application/JSON; charset=utf-8");
    let created = world.by(ADMIN, created.body(r#"{"name":"P"}"#)).await;
    assert_eq!(world.send(created).await.status, 201);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let world = Plan::new().start().await;
    for path in [
        "/nothing",
        "/programs/nonsense",
        "/programs/prg_00000000000000000000000000",
        "/programs/prg_00000000000000000000000000/rule-sets",
        "/programs/{program}/rule-sets/9",
        "/programs/{program}/rule-sets/x",
        "/partners/nonsense",
        "/partners/par_00000000000000000000000000",
        "/partners?programId=nonsense",
        "/partners?programId=prg_00000000000000000000000000",
        "/conversions/nonsense",
        "/conversions/cnv_000000000000000000000000",
        "/commissions/nonsense",
        "/commissions/nonsense/explanation",
        "/commissions?partnerId=nonsense",
        "/commissions?programId=prg_00000000000000000000000000",
        "/payouts?programId=prg_00000000000000000000000000",
        "/sources?programId=prg_00000000000000000000000000",
        "/runs?programId=prg_00000000000000000000000000",
        "/balances?partnerId=par_00000000000000000000000000",
        "/runs/nonsense",
        "/runs/run_000000000000000000000000",
        "/payouts/nonsense",
        "/payouts/nonsense/lines",
        "/exceptions/nonsense",
        "/exceptions/exc_000000000000000000000000",
    ] {
        let reply = world.get(ADMIN, &path.replace("{program}", &world.program)).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text);
        is_problem(&reply);
    }
    let elsewhere = world.by(ADMIN, Request::get("/programs")).await;
    let mut elsewhere = elsewhere;
    for path in ["/", "/api", "/api/v1", "/api/v2/programs", "/webhook"] {
        elsewhere = elsewhere.at(path);
        assert_eq!(world.send(elsewhere.clone()).await.status, 404, "{path}");
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let world = Plan::new().start().await;
    for (method, path) in [
        (Method::DELETE, "/programs"),
        (Method::PUT, "/programs/{program}"),
        (Method::DELETE, "/partners/{partner}"),
        (Method::GET, "/commissions/approve/x"),
        (Method::PUT, "/conversions"),
        (Method::POST, "/exceptions"),
        (Method::POST, "/balances"),
        (Method::DELETE, "/payouts"),
    ] {
        let path = path.replace("{program}", &world.program).replace("{partner}", &world.partner);
        let reply = world.send(world.by(ADMIN, Request::new(method.clone(), &path)).await).await;
        let expect = if path.ends_with("/x") { 404 } else { 405 };
        assert_eq!(reply.status, expect, "{method} {path}");
        is_problem(&reply);
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn filters_are_checked() {
    let world = Plan::new().start().await;
    for (path, status) in [
        ("/commissions?status=lost", 400),
        ("/commissions?state=lost", 400),
        ("/payouts?status=lost", 400),
        ("/payouts?state=lost", 400),
        ("/exceptions?status=lost", 400),
        ("/balances", 400),
        (&format!("/partners/{}/statements?year=-1", world.partner), 400),
        (&format!("/partners/{}/statements?year=10000", world.partner), 400),
        (&format!("/programs/{}/rule-sets/1/diff?against=0", world.program), 400),
        (&format!("/programs/{}/rule-sets/1/diff", world.program), 422),
        ("/partners", 400),
        ("/runs", 400),
        ("/sources", 400),
    ] {
        let reply = world.get(ADMIN, path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
        is_problem(&reply);
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn a_change_of_what_was_not_seen_is_refused() {
    let world = Plan::new().start().await;
    let draft = json!({
        "rationale": "next", "effectiveFrom": "2027-01-01T00:00:00Z",
        "rules": [{"name": "Standard", "reward": {"kind": "percent", "rate": "5"}}],
    });
    let sets = format!("/programs/{}/rule-sets", world.program);
    let version = world.post(ADMIN, &sets, &draft).await.ok()["version"].clone();
    let sign_off = Request::post(&format!("{sets}/{version}/sign-off"), &json!({}));
    for (tag, status) in [
        ("\"nonsense\"", 412),
        ("", 412),
        (&format!("W/\"{version}-draft\""), 412),
        (&format!("{version}-draft"), 400),
        ("{}", 400),
        (&format!("\"{version}-signed_off\""), 412),
        (&format!("\"a,b\", \"{version}-draft\""), 200),
    ] {
        let request = world.by(SECOND_ADMIN, sign_off.clone().header("if-match", tag)).await;
        let reply = world.send(request).await;
        assert_eq!(reply.status, status, "{tag}: {}", reply.text);
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn what_a_schema_calls_an_integer_and_fields_that_are_not_known_are_taken() {
    let world = Plan::new().start().await;
    let path = "/programs";
    for (body, status) in [
        (r#"{"name": "P", "holdDays": 7.0, "schedule": {"frequency": "monthly", "runDay": 1.0}}"#, 201),
        (r#"{"name": "P", "holdDays": 7.5}"#, 400),
        (r#"{"name": "P", "": [], "[]": [[]], "x": {"": [1]}}"#, 201),
        (r#"{"name": "P", "schedule": []}"#, 400),
        ("[]", 400),
    ] {
        let request = Request::new(Method::POST, path).header("content-type", "application/json").body(body);
        let reply = world.send(world.by(ADMIN, request).await).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        if body.contains("7.0") {
            assert_eq!(reply.body["holdDays"], 7);
        }
    }
    world.audit_holds().await;
}
