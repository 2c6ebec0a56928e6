//! Who may see and do what, and how lists are paged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use http::Method;
use serde_json::{Value, json};
use tests::{ADMIN, ANALYST, APPROVER, FINANCE, MANAGER, Plan, REVIEWER, Request, Who, World};

const READS: [&str; 28] = [
    "/programs",
    "/programs/{program}",
    "/programs/{program}/rule-sets",
    "/programs/{program}/rule-sets/1",
    "/partners?programId={program}",
    "/partners/{partner}",
    "/links?programId={program}",
    "/sources?programId={program}",
    "/conversions/{conversion}",
    "/commissions",
    "/commissions/{commission}",
    "/commissions/{commission}/explanation",
    "/balances?partnerId={partner}",
    "/runs?programId={program}",
    "/runs/{run}",
    "/payouts",
    "/payouts/{payout}",
    "/payouts/{payout}/lines",
    "/exchange-rates?date=2026-01-01",
    "/payouts/export?format=payouts",
    "/payouts/export?format=accounting",
    "/commissions/export",
    "/exports?programId={program}",
    "/exports/{export}",
    "/exceptions",
    "/exceptions/{exception}",
    "/audit/replay?programId={program}",
    "/audit/commissions/{commission}",
];

/// Every way to change something, with the roles that may besides an admin.
const WRITES: [(&str, &[&str]); 28] = [
    ("/programs", &["program-manager"]),
    ("/programs/{program}/rule-sets", &["program-manager"]),
    ("/programs/{program}/rule-sets/1/sign-off", &["program-manager"]),
    ("/programs/{program}/rule-sets/1/publish", &["program-manager"]),
    ("/partners", &["program-manager"]),
    ("/links", &["program-manager", "partner"]),
    ("/partners/import?programId={program}", &["program-manager"]),
    ("/conversions/import?programId={program}", &[]),
    ("/exchange-rates/import", &["finance"]),
    ("/sources", &["program-manager"]),
    ("/conversions", &[]),
    ("/commissions/approve", &["reviewer"]),
    ("/commissions/hold", &["reviewer"]),
    ("/commissions/release", &["reviewer"]),
    ("/commissions/reject", &["reviewer"]),
    ("/commissions/reinstate", &["reviewer"]),
    ("/runs", &["approver", "finance"]),
    // A partner for themselves.
    ("/payouts", &["approver", "finance", "partner"]),
    ("/payouts/approve", &["approver"]),
    ("/payouts/send-back", &["approver"]),
    ("/payouts/cancel", &["approver"]),
    ("/payouts/exclude", &["approver"]),
    ("/payouts/mark-paid", &["approver", "finance"]),
    ("/payouts/mark-failed", &["approver", "finance"]),
    ("/payouts/mark-returned", &["approver", "finance"]),
    ("/payouts/retry", &["approver", "finance"]),
    ("/payouts/void", &["approver", "finance"]),
    ("/exports", &["finance"]),
];

/// A world in which one of everything exists, and the paths to it.
struct Furnished {
    world: World,
    ids: Vec<(&'static str, String)>,
    other: String,
}

impl Furnished {
    async fn new() -> Self {
        let world = Plan::new().start().await;
        let other = world.add_partner(&json!({"code": "BEN20"})).await;
        world.sale("o1", "100.00").await;
        let mut event = world.sale_event("o2", "200.00");
        event["partner"] = json!({"id": other});
        world.report(&event).await.ok();
        world.report(&world.sale_event("o1", "200.00")).await.refused(409);
        let payout = world.request_payout().await;
        let line = world.line_of("o1").await;
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
    let exception = ["resolve", "replay"].map(|call| (format!("/exceptions/{{exception}}/{call}"), &[] as &[&str]));
    let exception: Vec<_> = exception.iter().map(|(pattern, roles)| (pattern.as_str(), *roles)).collect();
    let writes = WRITES.iter().chain(&exception).map(|(pattern, _)| (Method::POST, *pattern));
    for (method, pattern) in READS.iter().map(|pattern| (Method::GET, *pattern)).chain(writes) {
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
    let settling: &[&str] = &["program-manager", "reviewer", "finance"];
    let settle = [("/exceptions/{exception}/resolve", settling), ("/exceptions/{exception}/replay", settling)];
    for (pattern, allowed) in WRITES.iter().chain(&settle) {
        for who in [ADMIN, MANAGER, REVIEWER, APPROVER, FINANCE, ANALYST, partner, Who::new("nobody", "nell")] {
            let request = world.by(who, Request::new(Method::POST, &furnished.path(pattern))).await;
            let may = who.role == "admin" || allowed.contains(&who.role);
            for (kind, body) in [("application/json", "{nonsense"), ("text/plain", "hello"), ("application/json", "[]")]
            {
                let reply = world.send(request.clone().header("content-type", kind).body(body)).await;
                assert_eq!(reply.status != 403, may, "{} {pattern}: {}", who.role, reply.text);
                // Resolving an exception needs no body.
                let bare = body.is_empty() && pattern.ends_with("/resolve") && reply.status == 200;
                assert!(
                    bare || matches!(reply.status, 400 | 403 | 409 | 415),
                    "{} {pattern}: {}",
                    who.role,
                    reply.text
                );
            }
        }
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn everybody_who_works_for_the_merchant_reads_everything() {
    let furnished = Furnished::new().await;
    for who in [ADMIN, MANAGER, REVIEWER, APPROVER, FINANCE, ANALYST] {
        for pattern in READS {
            let reply = furnished.world.get(who, &furnished.path(pattern)).await;
            assert_eq!(reply.status, 200, "{} {pattern}", who.role);
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
    // What the partner it belongs to gets, what another partner gets, and what one who is nobody's partner gets.
    for (pattern, to_own, to_foreign, to_none) in [
        ("/programs", 403, 403, 403),
        ("/programs/{program}", 403, 403, 403),
        ("/programs/{program}/rule-sets", 403, 403, 403),
        ("/programs/{program}/rule-sets/1", 403, 403, 403),
        ("/partners?programId={program}", 403, 403, 403),
        ("/sources?programId={program}", 403, 403, 403),
        ("/conversions/{conversion}", 403, 403, 403),
        ("/runs?programId={program}", 403, 403, 403),
        ("/runs/{run}", 403, 403, 403),
        ("/exchange-rates?date=2026-01-01", 403, 403, 403),
        ("/exports?programId={program}", 403, 403, 403),
        ("/exports/{export}", 403, 403, 403),
        ("/exports/{export}/left-out", 403, 403, 403),
        ("/exports/{export}/files/0", 403, 403, 403),
        ("/payouts/export?format=accounting", 403, 403, 403),
        ("/payouts/export?format=payouts", 200, 200, 403),
        ("/payouts/export?format=payouts&partnerId={partner}", 200, 404, 404),
        ("/commissions/export", 200, 200, 403),
        ("/commissions/export?partnerId={partner}", 200, 404, 404),
        ("/exceptions", 403, 403, 403),
        ("/exceptions/{exception}", 403, 403, 403),
        ("/audit/replay?programId={program}", 403, 403, 403),
        ("/audit/commissions/{commission}", 403, 403, 403),
        ("/partners/{partner}", 200, 404, 404),
        ("/commissions?partnerId={partner}", 200, 404, 404),
        ("/commissions/{commission}", 200, 404, 404),
        ("/commissions/{commission}/explanation", 200, 404, 404),
        ("/balances?partnerId={partner}", 200, 404, 404),
        ("/links?partnerId={partner}", 200, 404, 404),
        ("/payouts?partnerId={partner}", 200, 404, 404),
        ("/payouts/{payout}", 200, 404, 404),
        ("/payouts/{payout}/lines", 200, 404, 404),
        ("/commissions", 200, 200, 403),
        ("/payouts", 200, 200, 403),
        ("/balances", 200, 200, 403),
        ("/links", 200, 200, 403),
        ("/commissions?programId={program}", 200, 200, 403),
        ("/payouts?programId={program}", 200, 200, 403),
        ("/balances?programId={program}", 200, 200, 403),
        ("/links?programId={program}", 200, 200, 403),
    ] {
        for (who, expect) in [(own, to_own), (foreign, to_foreign), (without_partner, to_none)] {
            let reply = world.get(who, &furnished.path(pattern)).await;
            assert_eq!(reply.status, expect, "{pattern} for {}", who.subject);
            let elsewhere =
                reply.body["data"].as_array().into_iter().flatten().any(|one| one["partnerId"] != who.subject);
            assert!(!elsewhere, "{pattern} shows {} what is not theirs", who.subject);
        }
    }
    assert_eq!(world.all(own, "/commissions").await.len(), 1);
    assert_eq!(world.all(foreign, "/payouts").await.len(), 0);
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
