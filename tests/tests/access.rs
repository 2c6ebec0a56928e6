//! Who may see and do what, and how lists are paged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use tests::contract::Contract;
use tests::{ADMIN, ANALYST, APPROVER, FINANCE, MANAGER, Plan, REVIEWER, Request, Who, World};

/// Everybody who works for the merchant, besides an admin.
const STAFF: &[&str] = &["program-manager", "reviewer", "approver", "finance", "analyst"];

/// Every way to read something, and who may, besides an admin and perhaps a partner.
const READS: [(&str, &[&str]); 55] = [
    ("/programs", STAFF),
    ("/programs/{program}", STAFF),
    ("/programs/{program}/next-run", STAFF),
    ("/programs/{program}/paypal", STAFF),
    ("/programs/{program}/rule-sets", STAFF),
    ("/programs/{program}/rule-sets/1", STAFF),
    ("/programs/{program}/rule-sets/1/diff?against=1", STAFF),
    ("/partners?programId={program}", STAFF),
    ("/partners/{partner}", STAFF),
    ("/partners/{partner}/statements", STAFF),
    ("/partners/{partner}/statements/2026-01", STAFF),
    ("/partners/{partner}/tax-form", &["finance"]),
    ("/links?programId={program}", STAFF),
    ("/sources?programId={program}", STAFF),
    ("/conversions?programId={program}&status=unattributed", STAFF),
    ("/conversions/{conversion}", STAFF),
    ("/commissions", STAFF),
    ("/commissions/{commission}", STAFF),
    ("/commissions/{commission}/explanation", STAFF),
    ("/balances?partnerId={partner}", STAFF),
    ("/runs?programId={program}", STAFF),
    ("/runs/{run}", STAFF),
    ("/runs/{run}/decisions", STAFF),
    ("/payouts", STAFF),
    ("/payouts/{payout}", STAFF),
    ("/payouts/{payout}/lines", STAFF),
    ("/payouts/{payout}/statement", STAFF),
    ("/payouts/{payout}/statement.csv", STAFF),
    ("/payouts/{payout}/statement.pdf", STAFF),
    ("/payouts/{payout}/receipt", STAFF),
    ("/payouts/{payout}/receipt.pdf", STAFF),
    ("/exchange-rates?date=2026-01-01", STAFF),
    ("/payouts/export?format=payouts", STAFF),
    ("/payouts/export?format=accounting", STAFF),
    ("/commissions/export", STAFF),
    ("/exports?programId={program}", STAFF),
    ("/exports/{export}", STAFF),
    ("/exports/{export}/left-out", STAFF),
    ("/exports/{export}/files/0", &["finance"]),
    ("/exceptions", STAFF),
    ("/exceptions/{exception}", STAFF),
    ("/audit/replay?programId={program}", STAFF),
    ("/audit/commissions/{commission}", STAFF),
    ("/tax/totals?year=2026", &["finance", "analyst"]),
    ("/tax/totals/export?year=2026", &["finance", "analyst"]),
    ("/tax/near-limit?year=2026", &["finance", "analyst"]),
    ("/tax/payer", &["finance", "analyst"]),
    ("/programs/{program}/quickbooks", STAFF),
    ("/quickbooks/app", STAFF),
    ("/quickbooks/settings", STAFF),
    ("/quickbooks/connect", &["finance"]),
    ("/quickbooks/connections", STAFF),
    ("/quickbooks/connections/9130000000000001", STAFF),
    ("/quickbooks/connections/9130000000000001/choices", &["finance"]),
    ("/quickbooks/connections/9130000000000001/reconciliations", STAFF),
];

/// Every way to change something, with the roles that may besides an admin. A partner may for themselves.
const WRITES: [(&str, &[&str]); 47] = [
    ("POST /programs", &["program-manager"]),
    ("PUT /programs/{program}/paypal", &["finance"]),
    ("POST /programs/{program}/rule-sets", &["program-manager"]),
    ("POST /programs/{program}/rule-sets/1/sign-off", &["program-manager"]),
    ("POST /programs/{program}/rule-sets/1/publish", &["program-manager"]),
    ("POST /programs/{program}/rule-sets/1/dry-run", &["program-manager", "finance", "analyst"]),
    ("POST /partners", &["program-manager"]),
    ("PATCH /partners/{partner}", &["program-manager"]),
    ("POST /partners/{partner}/suspend", &["program-manager"]),
    ("POST /partners/{partner}/activate", &["program-manager"]),
    ("PUT /partners/{partner}/tax-form", &["finance", "partner"]),
    ("POST /partners/{partner}/tax-form/revoke", &["finance"]),
    ("POST /partners/import?programId={program}", &["program-manager"]),
    ("PUT /tax/payer", &["finance"]),
    ("POST /links", &["program-manager", "partner"]),
    ("POST /sources", &["program-manager"]),
    ("POST /conversions", &[]),
    ("POST /conversions/import?programId={program}", &[]),
    ("POST /conversions/{conversion}/attribute", &["program-manager", "reviewer"]),
    ("POST /conversions/attribute", &["program-manager", "reviewer"]),
    ("POST /exchange-rates/import", &["finance"]),
    ("POST /commissions", &["reviewer", "program-manager"]),
    ("POST /commissions/adjust", &["reviewer"]),
    ("POST /commissions/approve", &["reviewer"]),
    ("POST /commissions/hold", &["reviewer"]),
    ("POST /commissions/release", &["reviewer"]),
    ("POST /commissions/reject", &["reviewer"]),
    ("POST /commissions/reinstate", &["reviewer"]),
    ("POST /runs", &["approver", "finance"]),
    ("POST /payouts", &["approver", "finance", "partner"]),
    ("POST /payouts/approve", &["approver"]),
    ("POST /payouts/send-back", &["approver"]),
    ("POST /payouts/cancel", &["approver"]),
    ("POST /payouts/exclude", &["approver"]),
    ("POST /payouts/mark-paid", &["approver", "finance"]),
    ("POST /payouts/mark-failed", &["approver", "finance"]),
    ("POST /payouts/mark-returned", &["approver", "finance"]),
    ("POST /payouts/retry", &["approver", "finance"]),
    ("POST /payouts/void", &["approver", "finance"]),
    ("POST /exports", &["finance"]),
    ("POST /exceptions/{exception}/resolve", &["program-manager", "reviewer", "finance"]),
    ("POST /exceptions/{exception}/replay", &["program-manager", "reviewer", "finance"]),
    ("PUT /programs/{program}/quickbooks", &["finance"]),
    ("PUT /quickbooks/app", &["finance"]),
    ("PUT /quickbooks/settings", &["finance"]),
    ("POST /quickbooks/connections/9130000000000001/reconciliations", &["finance"]),
    ("POST /quickbooks/connections/9130000000000001/disconnect", &["finance"]),
];

/// What a partner gets to read: whoever it belongs to, another one, and one who is nobody's partner.
const PARTNERS_READ: [(&str, [u16; 3]); 65] = [
    ("/programs", [403; 3]),
    ("/programs/{program}", [403; 3]),
    ("/programs/{program}/next-run", [403; 3]),
    ("/programs/{program}/paypal", [403; 3]),
    ("/programs/{program}/rule-sets", [403; 3]),
    ("/programs/{program}/rule-sets/1", [403; 3]),
    ("/programs/{program}/rule-sets/1/diff?against=1", [403; 3]),
    ("/partners?programId={program}", [403; 3]),
    ("/sources?programId={program}", [403; 3]),
    ("/conversions?programId={program}&status=unattributed", [403; 3]),
    ("/conversions/{conversion}", [403; 3]),
    ("/runs?programId={program}", [403; 3]),
    ("/runs/{run}", [403; 3]),
    ("/runs/{run}/decisions", [403; 3]),
    ("/exchange-rates?date=2026-01-01", [403; 3]),
    ("/exports?programId={program}", [403; 3]),
    ("/exports/{export}", [403; 3]),
    ("/exports/{export}/left-out", [403; 3]),
    ("/exports/{export}/files/0", [403; 3]),
    ("/payouts/export?format=accounting", [403; 3]),
    ("/payouts/export?format=payouts", [200, 200, 403]),
    ("/payouts/export?format=payouts&partnerId={partner}", [200, 404, 404]),
    ("/commissions/export", [200, 200, 403]),
    ("/commissions/export?partnerId={partner}", [200, 404, 404]),
    ("/exceptions", [403; 3]),
    ("/exceptions/{exception}", [403; 3]),
    ("/audit/replay?programId={program}", [403; 3]),
    ("/audit/commissions/{commission}", [403; 3]),
    ("/tax/totals?year=2026", [403; 3]),
    ("/tax/totals/export?year=2026", [403; 3]),
    ("/tax/near-limit?year=2026", [403; 3]),
    ("/tax/payer", [403; 3]),
    ("/programs/{program}/quickbooks", [403; 3]),
    ("/quickbooks/app", [403; 3]),
    ("/quickbooks/settings", [403; 3]),
    ("/quickbooks/connect", [403; 3]),
    ("/quickbooks/connections", [403; 3]),
    ("/quickbooks/connections/9130000000000001", [403; 3]),
    ("/quickbooks/connections/9130000000000001/choices", [403; 3]),
    ("/quickbooks/connections/9130000000000001/reconciliations", [403; 3]),
    ("/partners/{partner}", [200, 404, 404]),
    ("/partners/{partner}/statements", [200, 404, 404]),
    ("/partners/{partner}/statements/2026-01", [200, 404, 404]),
    ("/partners/{partner}/tax-form", [200, 404, 404]),
    ("/commissions?partnerId={partner}", [200, 404, 404]),
    ("/commissions/{commission}", [200, 404, 404]),
    ("/commissions/{commission}/explanation", [200, 404, 404]),
    ("/balances?partnerId={partner}", [200, 404, 404]),
    ("/links?partnerId={partner}", [200, 404, 404]),
    ("/payouts?partnerId={partner}", [200, 404, 404]),
    ("/payouts/{payout}", [200, 404, 404]),
    ("/payouts/{payout}/lines", [200, 404, 404]),
    ("/payouts/{payout}/statement", [200, 404, 404]),
    ("/payouts/{payout}/statement.csv", [200, 404, 404]),
    ("/payouts/{payout}/statement.pdf", [406, 404, 404]),
    ("/payouts/{payout}/receipt", [200, 404, 404]),
    ("/payouts/{payout}/receipt.pdf", [406, 404, 404]),
    ("/commissions", [200, 200, 403]),
    ("/payouts", [200, 200, 403]),
    ("/balances", [200, 200, 403]),
    ("/links", [200, 200, 403]),
    ("/commissions?programId={program}", [200, 200, 403]),
    ("/payouts?programId={program}", [200, 200, 403]),
    ("/balances?programId={program}", [200, 200, 403]),
    ("/links?programId={program}", [200, 200, 403]),
];

/// The method and path of an entry of [`WRITES`].
fn parts(write: &str) -> (Method, &str) {
    let (method, path) = write.split_once(' ').unwrap();
    (method.parse().unwrap(), path)
}

#[test]
fn every_route_stands_in_these_tables() {
    let contract = Contract::get();
    let described = |reading: bool| -> BTreeSet<String> {
        let secured = contract.operations().filter(|operation| operation.described["security"] != json!([]));
        let of_kind = secured.filter(|operation| (operation.method == "get") == reading);
        of_kind.map(|operation| format!("{} {}", operation.method.to_uppercase(), operation.path)).collect()
    };
    let route = |method: &Method, pattern: &str| {
        let path = format!("/api/v1{}", pattern.split('?').next().unwrap());
        format!("{method} {}", contract.path_of(&path).unwrap_or(&path))
    };
    let read = |patterns: &[&str]| patterns.iter().map(|pattern| route(&Method::GET, pattern)).collect::<BTreeSet<_>>();
    assert_eq!(read(&READS.map(|(pattern, _)| pattern)), described(true));
    assert_eq!(read(&PARTNERS_READ.map(|(pattern, _)| pattern)), described(true));
    let written = WRITES.iter().map(|(write, _)| parts(write)).map(|(method, path)| route(&method, path));
    assert_eq!(written.collect::<BTreeSet<_>>(), described(false));
}

/// A world in which one of everything exists, and the paths to it.
struct Furnished {
    world: World,
    ids: Vec<(&'static str, String)>,
    other: String,
}

impl Furnished {
    async fn new() -> Self {
        let world = Plan::new().start().await;
        let by_paypal = json!([{"kind": "paypal", "details": {"email": "ben@partners.example"}, "preferred": true}]);
        let other = world.add_partner(&json!({"code": "BEN20", "payoutMethods": by_paypal})).await;
        world.sale("o1", "100.00").await;
        let of_other = World { partner: other.clone(), ..world.clone() };
        of_other.sale("o2", "200.00").await;
        let exported = of_other.request_payout().await;
        assert_eq!(world.approve_payout(APPROVER, &exported["id"]).await, 200);
        world.report(&world.sale_event("o1", "200.00")).await.refused(409);
        let payout = world.request_payout().await;
        world.pay(&payout["id"]).await;
        let line = world.line_of("o1").await;
        let connection = json!({"environment": "sandbox", "clientId": "c", "clientSecret": "s", "webhookId": "w"});
        let connect = Request::new(Method::PUT, &format!("/programs/{}/paypal", world.program));
        let connect = connect.header("content-type", "application/json").body(connection.to_string());
        world.send(world.by(ADMIN, connect).await).await.ok();
        let export = json!({"format": "paypal", "programId": world.program});
        let export = world.post(ADMIN, "/exports", &export).await.ok();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ids = vec![
            ("{program}", world.program.clone()),
            ("{partner}", world.partner.clone()),
            ("{conversion}", text(&line["conversionId"])),
            ("{commission}", text(&line["id"])),
            ("{run}", text(&payout["runId"])),
            ("{payout}", text(&payout["id"])),
            ("{export}", text(&export["id"])),
            ("{exception}", text(&world.exceptions().await[0]["id"])),
        ];
        Self { world, ids, other }
    }

    fn path(&self, pattern: &str) -> String {
        self.ids.iter().fold(pattern.to_owned(), |path, (name, id)| path.replace(name, id))
    }
}

#[tokio::test]
async fn without_a_good_token_nothing_answers() {
    let furnished = Furnished::new().await;
    let world = &furnished.world;
    let (good, elsewhere) = (world.token(ADMIN).await, Plan::new().start().await.token(ADMIN).await);
    let (weak, tag) = (world.token(ANALYST).await, good.split_once('.').unwrap().1.to_owned());
    let swapped = format!("{}.{tag}", weak.split_once('.').unwrap().0);
    let mut tokens: Vec<Option<String>> = vec![None, Some(String::new()), Some("x".into()), Some(format!("{good}x"))];
    tokens.extend([Some(swapped), Some(good[1..].to_owned()), Some(elsewhere)]);
    let writes = WRITES.iter().map(|(write, _)| parts(write));
    for (method, pattern) in READS.iter().map(|(pattern, _)| (Method::GET, *pattern)).chain(writes) {
        for token in &tokens {
            let mut request = Request::new(method.clone(), &furnished.path(pattern));
            request = request.header("content-type", "application/json").body("{nonsense");
            if let Some(token) = token {
                request = request.token(token);
            }
            for request in [request.clone(), request.header("idempotency-key", "k")] {
                let reply = world.send(request).await;
                assert_eq!(reply.status, 401, "{method} {pattern} with {token:?}");
                assert_eq!(reply.headers["content-type"], "application/problem+json");
            }
        }
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn roles_are_checked_before_bodies() {
    let furnished = Furnished::new().await;
    let world = &furnished.world;
    let partner = world.partner_signs_in(&world.partner).await;
    for (write, allowed) in &WRITES {
        let (method, pattern) = parts(write);
        for who in [ADMIN, MANAGER, REVIEWER, APPROVER, FINANCE, ANALYST, partner, Who::new("nobody", "nell")] {
            let request = world.by(who, Request::new(method.clone(), &furnished.path(pattern))).await;
            let may = who.role == "admin" || allowed.contains(&who.role);
            for (kind, body) in [("application/json", "{nonsense"), ("text/plain", "hello"), ("application/json", "[]")]
            {
                let reply = world.send(request.clone().header("content-type", kind).body(body)).await;
                let what = format!("{} {write}: {}", who.role, reply.text);
                // What somebody may not see looks like what is not there.
                let hidden = reply.status == 403 || (reply.status == 404 && who.role == "nobody");
                assert_eq!(!hidden, may, "{what}");
                // These take no body.
                let bare = ["/suspend", "/activate", "/disconnect", "/reconciliations"]
                    .iter()
                    .any(|ending| write.ends_with(ending));
                let bare = reply.status == 200 && bare;
                assert!(bare || hidden || matches!(reply.status, 400 | 409 | 415), "{what}");
            }
        }
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn everybody_who_works_for_the_merchant_reads_everything_but_tax_and_files_with_payout_details() {
    let furnished = Furnished::new().await;
    for who in [ADMIN, MANAGER, REVIEWER, APPROVER, FINANCE, ANALYST] {
        for (pattern, allowed) in READS {
            let reply = furnished.world.get(who, &furnished.path(pattern)).await;
            let may = who.role == "admin" || allowed.contains(&who.role);
            // No renderer is here.
            let expect = if pattern.split('.').nth(1) == Some("pdf") { 406 } else { 200 };
            assert_eq!(reply.status, if may { expect } else { 403 }, "{} {pattern}: {}", who.role, reply.text);
        }
    }
    furnished.world.audit_holds().await;
}

#[tokio::test]
async fn a_partner_reads_their_own_data_only() {
    let furnished = Furnished::new().await;
    let world = &furnished.world;
    let (own, foreign) = (world.partner_signs_in(&world.partner).await, world.partner_signs_in(&furnished.other).await);
    let without_partner = Who::new("partner", "unknown");
    for (pattern, expected) in PARTNERS_READ {
        for (who, expect) in [own, foreign, without_partner].into_iter().zip(expected) {
            let reply = world.get(who, &furnished.path(pattern)).await;
            assert_eq!(reply.status, expect, "{pattern} for {}", who.subject);
            let elsewhere = reply.body["data"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|one| one.get("partnerId").is_some_and(|partner| partner != who.subject));
            assert!(!elsewhere, "{pattern} shows {} what is not theirs", who.subject);
        }
    }
    assert_eq!(world.all(own, "/commissions").await.len(), 1);
    assert_eq!(world.all(foreign, "/payouts").await.len(), 1);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_a_partner_may_not_see_looks_like_what_does_not_exist() {
    let furnished = Furnished::new().await;
    let world = &furnished.world;
    let foreign = world.partner_signs_in(&furnished.other).await;
    for (pattern, id) in [("/commissions/{commission}", 3), ("/payouts/{payout}", 5), ("/partners/{partner}", 1)] {
        let hidden = world.get(foreign, &furnished.path(pattern)).await;
        let id = &furnished.ids[id].1;
        let unknown = format!("{}{}", &id[..id.len() - 8], "v".repeat(8));
        let missing = world.get(ADMIN, &pattern.replace(&pattern[pattern.find('{').unwrap()..], &unknown)).await;
        assert_eq!((hidden.status, &hidden.body), (404, &missing.body), "{pattern}");
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn a_cursor_opens_only_the_query_and_the_view_it_came_from() {
    let world = Plan::new().start().await;
    let other = world.add_partner(&json!({"code": "BEN20"})).await;
    for order in ["o1", "o2", "o3"] {
        world.sale(order, "100.00").await;
        let mut event = world.sale_event(&format!("ben's {order}"), "100.00");
        event["partner"] = json!({"id": other});
        world.report(&event).await.ok();
    }
    let (anna, ben) = (world.partner_signs_in(&world.partner).await, world.partner_signs_in(&other).await);
    let cursor_of = async |who, path: &str| world.get(who, path).await.ok()["nextCursor"].as_str().unwrap().to_owned();
    let of_anna = format!("/commissions?partnerId={}&limit=1", world.partner);
    let staffs = cursor_of(ADMIN, &of_anna).await;
    let annas = cursor_of(anna, &of_anna).await;
    let altered = format!("{}{}", if staffs.starts_with('A') { "B" } else { "A" }, &staffs[1..]);
    for (who, path, cursor, status) in [
        (ADMIN, of_anna.clone(), &staffs, 200),
        (ANALYST, of_anna.clone(), &staffs, 200),
        (ADMIN, of_anna.replace("limit=1", "limit=2"), &staffs, 200),
        (anna, of_anna.clone(), &annas, 200),
        (anna, of_anna.clone(), &staffs, 400),
        (ADMIN, of_anna.clone(), &annas, 400),
        (ben, "/commissions?limit=1".to_owned(), &annas, 400),
        (anna, "/commissions?limit=1".to_owned(), &annas, 400),
        (ADMIN, format!("{of_anna}&state=payable"), &staffs, 400),
        (ADMIN, format!("/commissions?partnerId={other}"), &staffs, 400),
        (ADMIN, "/commissions".to_owned(), &staffs, 400),
        (ADMIN, format!("/payouts?partnerId={}", world.partner), &staffs, 400),
        (ADMIN, of_anna.clone(), &altered, 400),
        (ADMIN, of_anna.clone(), &"nonsense".to_owned(), 400),
        (ADMIN, of_anna.clone(), &String::new(), 400),
    ] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let reply = world.get(who, &format!("{path}{separator}cursor={cursor}")).await;
        assert_eq!(reply.status, status, "{} {path}: {}", who.role, reply.text);
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_while_more_comes_in() {
    let world = Plan::new().at("2026-06-01T00:00:00Z").start().await;
    for number in 10..20 {
        world.sale(&format!("o{number}"), "100.00").await;
        world.pass("1m");
    }
    let listed: Vec<_> = world.lines().await.iter().rev().map(|line| line["id"].clone()).collect();
    for path in [format!("/commissions?partnerId={}&limit=3", world.partner), "/commissions?limit=3".to_owned()] {
        let (mut seen, mut cursor, mut late) = (Vec::new(), String::new(), 0);
        loop {
            let page = world.get(ADMIN, &format!("{path}{cursor}")).await.ok();
            let data = page["data"].as_array().unwrap();
            assert!(data.len() <= 3);
            seen.extend(data.iter().map(|line| line["id"].clone()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            late += 1;
            world.sale(&format!("late {late} {}", path.len()), "1.00").await;
            world.pass("1m");
        }
        let of_before: Vec<_> = seen.iter().filter(|id| listed.contains(id)).cloned().collect();
        assert_eq!(of_before, listed, "{path}");
        assert_eq!(seen.len(), seen.iter().map(Value::to_string).collect::<std::collections::BTreeSet<_>>().len());
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn a_page_has_1_to_100_entries_and_50_by_default() {
    let world = Plan::new().start().await;
    for number in 0..60 {
        world.sale(&format!("o{number}"), "1.00").await;
    }
    for list in ["/programs", "/commissions", "/payouts", "/exceptions", "/partners?programId={}", "/runs?programId={}"]
    {
        let list = list.replace("{}", &world.program);
        let separator = if list.contains('?') { '&' } else { '?' };
        for (limit, status) in [("0", 400), ("101", 400), ("-1", 400), ("x", 400), ("", 400), ("1", 200), ("100", 200)]
        {
            let reply = world.get(ADMIN, &format!("{list}{separator}limit={limit}")).await;
            assert_eq!(reply.status, status, "{list} limit={limit}");
        }
    }
    let count = async |path: &str| world.get(ADMIN, path).await.ok()["data"].as_array().unwrap().len();
    assert_eq!((count("/commissions").await, count("/commissions?limit=100").await), (50, 60));
    world.audit_holds().await;
}

#[tokio::test]
async fn commissions_are_found_by_the_words_other_systems_use() {
    let world = Plan::new().at("2026-03-01T00:00:00Z").reviewed().hold_days(30).start().await;
    let mut orders = Vec::new();
    for (order, occurred, verdicts) in [
        ("pending", "2026-01-01T00:00:00Z", vec![]),
        ("held", "2026-01-01T00:00:00Z", vec!["hold"]),
        ("approved", "2026-03-01T00:00:00Z", vec!["approve"]),
        ("rejected", "2026-01-01T00:00:00Z", vec!["reject"]),
        ("reversed", "2026-01-01T00:00:00Z", vec![]),
        ("paid", "2026-01-01T00:00:00Z", vec!["approve", "pay"]),
        ("in_payout", "2026-01-01T00:00:00Z", vec!["approve", "request"]),
        ("payable", "2026-01-01T00:00:00Z", vec!["approve"]),
    ] {
        orders.push(order);
        let mut event = world.sale_event(order, "100.00");
        event["occurredAt"] = json!(occurred);
        world.report(&event).await.ok();
        for verdict in verdicts {
            match verdict {
                "pay" => drop(world.pay_everything().await),
                "request" => drop(world.request_payout().await),
                _ => world.reviewed(verdict, &[&world.line_id(order).await]).await,
            }
        }
    }
    world.refund("r1", "reversed", "100.00").await;
    let found = async |filter: &str| {
        let lines = world.all(ADMIN, &format!("/commissions?partnerId={}&{filter}&limit=2", world.partner)).await;
        let mut found: Vec<_> = lines.iter().map(|line| line["orderId"].as_str().unwrap().to_owned()).collect();
        found.sort();
        found
    };
    for (status, states) in [
        ("pending", vec!["held", "pending"]),
        ("approved", vec!["approved", "in_payout", "payable"]),
        ("paid", vec!["paid"]),
        ("rejected", vec!["rejected", "reversed"]),
    ] {
        assert_eq!(found(&format!("status={status}")).await, states);
    }
    for state in orders {
        assert_eq!(found(&format!("state={state}")).await, [state]);
    }
    assert_eq!(found("status=paid&state=held").await, [""; 0]);
    let balance = world.balance().await;
    let shown = ["earned", "reserve", "due", "paid"].map(|sum| balance[sum]["minor"].as_i64().unwrap());
    assert_eq!(shown, [6_000, 3_000, 2_000, 1_000]);
    world.audit_holds().await;
}
