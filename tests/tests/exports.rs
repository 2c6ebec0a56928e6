//! Export batches: which payouts go out in which file, once and the same for ever.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use domain::ids::{ExportId, PartnerId, PayoutId, ProgramId, RunId};
use domain::payout::Payout;
use domain::program::{Partner, PayoutMethod};
use domain::remittance::RemittanceFormat;
use embedded::{CallFuture, Embedded, Service};
use http::Request as HttpRequest;
use local::Odds;
use serde_json::{Value, json};
use store::{Transaction, Whose};
use tests::{ADMIN, ANALYST, APPROVER, FINANCE, Plan, Reply, Request, World, golden};
use workflows::Context;
use workflows::exports::{Asked, export};
use workflows::files::{Delivered, Outgoing};

fn paypal(email: &str) -> Value {
    json!({"kind": "paypal", "details": {"email": email}, "preferred": true})
}

/// A partner who earned 10.00 for each sale of 100.00, and the payout of it, approved.
async fn approved(world: &World, code: &str, fields: Value, sales: usize, method: Option<&str>) -> Value {
    let mut partner = json!({"code": code, "name": code, "email": format!("{code}@partners.example")});
    partner.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let partner = world.add_partner(&partner).await;
    for n in 0..sales {
        let mut sale = world.sale_event(&format!("{code}-{n}"), "100.00");
        sale["partner"] = json!({"id": partner});
        world.report(&sale).await.ok();
    }
    let request = json!({"partnerId": partner, "programId": world.program, "method": method});
    let id = world.post(ADMIN, "/payouts", &request).await.ok()["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    id
}

async fn ask(world: &World, format: &str, method: &str, key: &str) -> Reply {
    let body = json!({"format": format, "programId": world.program, "method": method});
    let request = Request::post("/exports", &body).header("idempotency-key", key);
    world.send(world.by(FINANCE, request).await).await
}

async fn made(world: &World, format: &str, method: &str, key: &str) -> Value {
    let reply = ask(world, format, method, key).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.body
}

async fn file_of(world: &World, export: &Value, number: usize) -> String {
    let path = export["files"][number].as_str().unwrap().strip_prefix("/api/v1").unwrap();
    let reply = world.get(FINANCE, path).await;
    assert_eq!((reply.status, reply.headers["content-type"].as_bytes()), (200, &b"text/csv; charset=utf-8"[..]));
    reply.text
}

async fn state(world: &World, id: &Value) -> String {
    world.payout(id).await["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_format_writes_what_its_rail_reads() {
    let world = Plan::new().program("name", "Acme, \"Best\" Partners").start().await;
    let venmo = json!({"kind": "paypal", "preferred": true, "details": {
        "phone": "2125550100", "wallet": "VENMO", "venmoPrivacy": "FRIENDS_ONLY",
    }});
    let wise = json!({"kind": "wise", "preferred": true, "details": {
        "name": "Zoë \"Z\", Söhne\nund 木村", "email": "zoe@partners.example",
    }});
    let bank = json!({"kind": "bank", "preferred": true, "details": {
        "name": "O'Neill, Ann", "accountNumber": "000123456", "routingNumber": "021000021",
    }});
    let iban =
        json!({"kind": "bank", "preferred": true, "details": {"name": "Ben", "iban": "DE89 3704 0044 0532 0130 00"}});
    approved(&world, "VENMO1", json!({"payoutMethods": [venmo]}), 2, None).await;
    approved(&world, "WISE1", json!({"payoutMethods": [wise]}), 3, None).await;
    approved(&world, "BANK1", json!({"payoutMethods": [bank]}), 1, None).await;
    world.pass("1s");
    approved(&world, "IBAN1", json!({"payoutMethods": [iban]}), 1, None).await;
    let one = made(&world, "paypal", "all", "one").await;
    golden("paypal-venmo.csv", &file_of(&world, &one, 0).await);
    approved(&world, "PAYPAL1", json!({"payoutMethods": [paypal("one@partners.example")]}), 12, None).await;
    for format in ["masspay", "wise", "bank"] {
        let export = made(&world, format, "all", format).await;
        assert_eq!((&export["files"].as_array().unwrap().len(), &export["leftOutCount"]), (&1, &json!(0)), "{export}");
        let mut rows: Vec<_> = file_of(&world, &export, 0).await.split_inclusive("\r\n").map(str::to_owned).collect();
        // Payouts stand in eight partitions by hash of their drawn ids: the order within the file is any.
        let heading = usize::from(format != "masspay");
        rows[heading..].sort();
        golden(&format!("{format}.csv"), &rows.concat());
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn yen_have_no_decimals() {
    let world = Plan::new().program("currency", "JPY").program("largePayoutLimit", "1000000").start().await;
    let partner = world.add_partner(&json!({"code": "YEN", "payoutMethods": [paypal("yen@partners.example")]})).await;
    let sale = json!({"id": "o1", "type": "sale", "partner": {"id": partner}, "amount": {"total": "30500", "currency": "JPY"}});
    world.report(&world.event(sale)).await.ok();
    let request = json!({"partnerId": partner, "programId": world.program});
    let id = world.post(ADMIN, "/payouts", &request).await.ok()["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    let export = made(&world, "paypal", "all", "one").await;
    golden("paypal-jpy.csv", &file_of(&world, &export, 0).await);
}

#[tokio::test]
async fn a_batch_takes_what_is_approved_once_and_marks_nothing_paid() {
    let world = Plan::new().start().await;
    let nothing = made(&world, "paypal", "all", "empty").await;
    assert_eq!(
        (&nothing["payouts"], &nothing["files"], &nothing["state"]),
        (&json!(0), &json!([]), &json!("complete"))
    );
    let first = approved(&world, "ANN", json!({"payoutMethods": [paypal("ann@partners.example")]}), 1, None).await;
    let waiting = approved(&world, "BEN", json!({"payoutMethods": [paypal("ben@partners.example")]}), 1, None).await;
    assert_eq!(world.payout_call(APPROVER, "send-back", &waiting, &json!({"reason": "wait"})).await, 200);
    let other = approved(&world, "CY", json!({"payoutMethods": [{"kind": "manual"}]}), 1, None).await;

    let export = made(&world, "paypal", "all", "june").await;
    assert_eq!((&export["payouts"], &export["leftOut"]), (&json!(1), &json!([])));
    let payout = world.payout(&first).await;
    assert_eq!((&payout["state"], &payout["exportId"]), (&json!("submitted"), &export["id"]));
    assert!(payout["submittedAt"].is_string() && payout["paidAt"].is_null());
    assert_eq!((state(&world, &waiting).await, state(&world, &other).await), ("pending".into(), "approved".into()));
    let text = file_of(&world, &export, 0).await;
    assert_eq!(text.lines().count(), 1);

    assert_eq!(made(&world, "paypal", "all", "june").await, export, "the same key is the same batch");
    assert_eq!(ask(&world, "paypal", "preferred", "june").await.status, 422, "another request under the same key");
    let again = made(&world, "paypal", "all", "july").await;
    assert_eq!((&again["payouts"], &again["files"]), (&json!(0), &json!([])), "in exactly one batch");
    assert_eq!(made(&world, "masspay", "all", "august").await["payouts"], 0);

    world.post(ADMIN, &format!("/partners/{}/suspend", payout["partnerId"].as_str().unwrap()), &json!({})).await.ok();
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &first, &json!({"reference": "pp 1"})).await, 200);
    assert_eq!(state(&world, &first).await, "paid");
    assert_eq!(file_of(&world, &export, 0).await, text, "the same bytes for ever");
    world.settle().await;
    assert_eq!(world.events("payout.submitted").len(), 1);
    let listed = world.all(FINANCE, &format!("/exports?programId={}", world.program)).await;
    assert_eq!(listed.len(), 4);
    assert_eq!(world.get(ANALYST, &format!("/exports/{}", export["id"].as_str().unwrap())).await.ok(), export);
    world.audit_holds().await;
}

#[tokio::test]
async fn all_takes_the_payment_type_and_preferred_only_those_who_prefer_it() {
    let world = Plan::new().start().await;
    let both = json!({"payoutMethods": [
        {"kind": "paypal", "details": {"email": "both@partners.example"}},
        {"kind": "bank", "details": {"name": "Both", "iban": "DE89370400440532013000"}, "preferred": true},
    ]});
    let by_bank = approved(&world, "BANK", both.clone(), 1, None).await;
    let by_paypal = approved(&world, "ASKED", both, 1, Some("paypal")).await;
    let prefers = approved(&world, "PREFERS", json!({"payoutMethods": [paypal("p@partners.example")]}), 1, None).await;
    assert_eq!(made(&world, "paypal", "preferred", "one").await["payouts"], 1);
    assert_eq!(state(&world, &prefers).await, "submitted");
    assert_eq!(state(&world, &by_paypal).await, "approved");
    assert_eq!(made(&world, "paypal", "all", "two").await["payouts"], 1);
    assert_eq!(state(&world, &by_paypal).await, "submitted");
    // It was approved to go to a bank, and goes nowhere else.
    assert_eq!(state(&world, &by_bank).await, "approved");
    world.audit_holds().await;
}

#[tokio::test]
async fn what_must_not_go_out_stays_and_says_why() {
    let world = Plan::new().start().await;
    let wise = |name: &str| {
        json!({"payoutMethods": [
            {"kind": "wise", "details": {"name": name, "email": "w@partners.example"}, "preferred": true},
        ]})
    };
    let fine = approved(&world, "FINE", wise("Fine"), 1, None).await;
    let formula = approved(&world, "FORMULA", wise("=HYPERLINK(\"http://evil.example\")"), 1, None).await;
    let suspended = approved(&world, "GONE", wise("Gone"), 1, None).await;
    let partner = world.payout(&suspended).await["partnerId"].as_str().unwrap().to_owned();
    world.post(ADMIN, &format!("/partners/{partner}/suspend"), &json!({})).await.ok();
    let export = made(&world, "wise", "all", "one").await;
    assert_eq!((&export["payouts"], &export["leftOutCount"]), (&json!(1), &json!(2)));
    let left_out = export["leftOut"].as_array().unwrap();
    for (payout, expect) in [(&formula, "unsafe_text"), (&suspended, "may_not_submit")] {
        let told = left_out.iter().find(|left_out| left_out["payoutId"] == *payout).unwrap();
        assert_eq!(told["code"], expect, "{told}");
        assert_eq!(state(&world, payout).await, "approved", "nothing half done");
    }
    assert_eq!(state(&world, &fine).await, "submitted");
    let paged = world.all(FINANCE, &format!("/exports/{}/left-out", export["id"].as_str().unwrap())).await;
    assert_eq!(paged, *export["leftOut"].as_array().unwrap());
    world.post(ADMIN, &format!("/partners/{partner}/activate"), &json!({})).await.ok();
    let next = made(&world, "wise", "all", "two").await;
    assert_eq!((&next["payouts"], &next["leftOutCount"]), (&json!(1), &json!(1)));
    world.audit_holds().await;
}

#[tokio::test]
async fn nonsense_is_refused_precisely() {
    let world = Plan::new().start().await;
    for (body, status) in [
        (json!({"format": "pdf", "programId": world.program}), 400),
        (json!({"format": "paypal"}), 400),
        (json!({"format": "paypal", "programId": "prg_unknown"}), 422),
        (json!({"format": "paypal", "programId": world.program, "method": "some"}), 400),
    ] {
        world.post(FINANCE, "/exports", &body).await.refused(status);
    }
    let export = made(&world, "paypal", "all", "one").await;
    let id = export["id"].as_str().unwrap();
    for path in [format!("/exports/{id}/files/0"), format!("/exports/{id}/files/x"), "/exports/nonsense".to_owned()] {
        world.get(FINANCE, &path).await.refused(404);
    }
    world.get(ANALYST, &format!("/exports/{id}/files/0")).await.refused(403);
}

// --- Steps and races -----------------------------------------------------------------------------------------------

/// Services that answer so many calls, and then no more: what a process sees that is killed there.
#[derive(Debug)]
struct Killing {
    embedded: Embedded,
    left: AtomicUsize,
    /// Whether the last call is still done, and only its answer never seen.
    applied: bool,
}

impl Service for Killing {
    fn call(&self, request: HttpRequest<Bytes>) -> CallFuture<'_> {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return self.embedded.call(request);
        }
        if self.applied {
            drop(self.embedded.handle(request));
        }
        Box::pin(std::future::pending())
    }
}

fn killed_after(world: &World, calls: usize, applied: bool) -> Context {
    let config = world.system.embedded.sdk_config_through(|embedded| Killing { embedded, left: calls.into(), applied });
    let context = &world.system.context;
    Context { store: context.store.under(aws_sdk_dynamodb::Client::new(&config)), ..context.clone() }
}

#[tokio::test]
async fn a_batch_that_is_killed_at_any_step_goes_on_to_the_same_end() {
    for applied in [false, true] {
        let mut calls = 0;
        loop {
            let world = Plan::new().start().await;
            for code in ["ANN", "BEN"] {
                approved(&world, code, json!({"payoutMethods": [paypal("x@partners.example")]}), 1, None).await;
            }
            let program: ProgramId = world.program.parse().unwrap();
            let asked = Asked { key: "june", program: &program, format: RemittanceFormat::Paypal, whose: Whose::All };
            let killed = killed_after(&world, calls, applied);
            let survived =
                tokio::time::timeout(Duration::from_millis(60), export(&killed, &asked, "fay", || true)).await;
            // By itself, where it was begun; else whoever asked asks again.
            world.fire("batch-payouts").await;
            let whole = export(&world.system.context, &asked, "fay", || true).await.unwrap();
            assert_eq!((whole.payouts, whole.files.len()), (2, 1), "after {calls} calls");
            let states: Vec<_> =
                world.all(ADMIN, "/payouts").await.iter().map(|payout| payout["state"].clone()).collect();
            assert_eq!(states, ["submitted", "submitted"], "after {calls} calls");
            let Delivered::Whole(rows) =
                workflows::exports::file(&world.system.context, &world.system.files, &whole.id, 0).await.unwrap()
            else {
                panic!("a link")
            };
            assert_eq!(String::from_utf8(rows).unwrap().lines().count(), 2, "after {calls} calls");
            world.audit_holds().await;
            if survived.is_ok() {
                break;
            }
            calls += 1;
        }
        assert!(calls > 5, "it was killed at {calls} places only");
    }
}

#[tokio::test]
async fn faults_of_the_store_lose_and_double_nothing() {
    for seed in 0..2 {
        let world = Plan::new().start().await;
        for code in ["ANN", "BEN", "CY"] {
            approved(&world, code, json!({"payoutMethods": [paypal("x@partners.example")]}), 1, None).await;
        }
        world.system.faults.set(Odds { seed, store_fails: 0.1, store_fails_after_apply: 0.1, ..Odds::default() });
        let mut export = ask(&world, "paypal", "all", "june").await;
        while export.status != 201 {
            export = ask(&world, "paypal", "all", "june").await;
        }
        world.system.faults.set(Odds::default());
        assert_eq!(export.body["payouts"], 3);
        assert_eq!(file_of(&world, &export.body, 0).await.lines().count(), 3);
        world.audit_holds().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_at_once_share_out_the_payouts() {
    let world = Plan::new().start().await;
    for n in 0..8 {
        approved(&world, &format!("P{n}"), json!({"payoutMethods": [paypal("x@partners.example")]}), 1, None).await;
    }
    let mut requests = Vec::new();
    for key in ["a", "b", "a", "c"] {
        let body = json!({"format": "paypal", "programId": world.program});
        let request = Request::post("/exports", &body).header("idempotency-key", key);
        requests.push(world.by(FINANCE, request).await);
    }
    let replies = world.together(requests).await;
    let mut rows = 0;
    for export in world.all(FINANCE, &format!("/exports?programId={}", world.program)).await {
        for n in 0..export["files"].as_array().unwrap().len() {
            rows += file_of(&world, &export, n).await.lines().count();
        }
    }
    assert_eq!(rows, 8, "{replies:?}");
    world.audit_holds().await;
}

// --- Size ----------------------------------------------------------------------------------------------------------

/// More payouts like this one, each of a partner of its own, straight into the table: their lines are in no test's way.
async fn multiply(world: &World, like: &Value, count: usize, name: &str) {
    let store = &world.system.context.store;
    let id: PayoutId = like.as_str().unwrap().parse().unwrap();
    let payout = store.payout("test", &id).await.unwrap().unwrap();
    let partner = store.partner("test", &payout.partner).await.unwrap().unwrap();
    for n in 0..count {
        let id = PartnerId::from_uuid(n as u128);
        let details = std::collections::BTreeMap::from([
            ("name".to_owned(), name.to_owned()),
            ("email".to_owned(), format!("p{n}@partners.example")),
            ("iban".to_owned(), "DE89370400440532013000".to_owned()),
        ]);
        let method = PayoutMethod { details, ..partner.payout_methods[0].clone() };
        let run = RunId::derive(&payout.program, "manual", "multiplied");
        let another = Payout {
            id: PayoutId::derive(&run, &id, payout.created_at),
            partner: id.clone(),
            destination: method.fingerprint(),
            ..payout.clone()
        };
        let code = format!("M{n}").parse().unwrap();
        let mut transaction = Transaction::new("test");
        transaction.create_partner(&Partner { id, code, payout_methods: vec![method], ..partner.clone() }).unwrap();
        transaction.create_payout(&another).unwrap();
        store.commit(transaction).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_ends_at_the_rails_limit_and_the_next_goes_on() {
    let world = Plan::new().start().await;
    let wise = json!({"kind": "wise", "details": {"name": "One", "email": "w@partners.example"}, "preferred": true});
    let one = approved(&world, "ONE", json!({"payoutMethods": [wise]}), 1, None).await;
    multiply(&world, &one, 1_000, "Many").await;
    let export = made(&world, "wise", "all", "one").await;
    assert_eq!((&export["payouts"], export["files"].as_array().unwrap().len()), (&json!(1_001), 2));
    let (first, second) = (file_of(&world, &export, 0).await, file_of(&world, &export, 1).await);
    let heading = first.lines().next().unwrap();
    assert_eq!((first.lines().count(), second.lines().count(), second.lines().next()), (1_001, 2, Some(heading)));
    let rows: std::collections::BTreeSet<_> = first.lines().chain(second.lines()).skip(1).collect();
    assert_eq!(rows.len(), 1_002, "each once, and the heading");
}

#[tokio::test]
async fn what_is_too_large_to_answer_with_is_linked_to() {
    let world = Plan::new().start().await;
    let bank = json!({"kind": "bank", "details": {"name": "One", "iban": "DE89370400440532013000"}, "preferred": true});
    let one = approved(&world, "ONE", json!({"payoutMethods": [bank]}), 1, None).await;
    multiply(&world, &one, 600, &"木".repeat(2_500)).await;
    let export = made(&world, "bank", "all", "one").await;
    let path = export["files"][0].as_str().unwrap().strip_prefix("/api/v1").unwrap();
    let mut texts = Vec::new();
    for _ in 0..2 {
        let reply = world.get(FINANCE, path).await;
        assert_eq!((reply.status, reply.text.as_str()), (303, ""));
        let link = reply.headers["location"].to_str().unwrap().to_owned();
        assert!(link.contains("/exports/") && link.contains("X-Amz-Expires=300"), "{link}");
        let answer = world.system.embedded.handle(HttpRequest::get(link).body(Bytes::new()).unwrap());
        assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8");
        assert!(answer.headers()["content-disposition"].to_str().unwrap().starts_with("attachment; filename=\"exp_"));
        texts.push(String::from_utf8(answer.into_body().to_vec()).unwrap());
    }
    assert_eq!(texts[0].lines().count(), 602);
    assert!(texts[0] == texts[1], "the same bytes for ever");
    world.get(ANALYST, path).await.refused(403);
}

#[tokio::test]
async fn a_file_longer_than_one_part_is_uploaded_in_parts() {
    let world = Plan::new().start().await;
    let mut file = Outgoing::new(&world.system.context, &world.system.files, "long.csv");
    for n in 0..200_000 {
        file.row([format!("{n:06}"), "x".repeat(90)]).await.unwrap();
    }
    let Delivered::Link(link) = file.finish().await.unwrap() else { panic!("20 MB in one answer") };
    let answer = world.system.embedded.handle(HttpRequest::get(link).body(Bytes::new()).unwrap());
    let text = String::from_utf8(answer.into_body().to_vec()).unwrap();
    let rows: Vec<_> = text.split_terminator("\r\n").collect();
    assert_eq!((rows.len(), &rows[0][..6], &rows[199_999][..6]), (200_000, "000000", "199999"));
}

// --- Reports -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn reports_are_the_lists_as_files() {
    let world = Plan::new().start().await;
    let fields = json!({"name": "=cmd|' /C calc'!A0", "payoutMethods": [paypal("ann@partners.example")]});
    let paid = approved(&world, "ANN", fields, 1, None).await;
    world.pass("1d");
    let attested = json!({"reference": "@wire, \"1\"", "amount": "10.00"});
    assert_eq!(world.payout_call(FINANCE, "mark-paid", &paid, &attested).await, 200);
    world.sale("+49 151", "50.00").await;
    let pending = world.request_payout().await;
    for (path, file) in [
        ("/payouts/export?format=payouts", "payouts.csv"),
        ("/payouts/export?format=accounting&status=paid", "accounting.csv"),
        ("/commissions/export?status=paid", "commissions-paid.csv"),
        ("/commissions/export?state=in_payout", "commissions-in-payout.csv"),
    ] {
        let reply = world.get(ANALYST, path).await;
        assert_eq!((reply.status, reply.headers["content-type"].as_bytes()), (200, &b"text/csv; charset=utf-8"[..]));
        golden(file, &reply.text);
        assert_eq!(world.get(ANALYST, path).await.text, reply.text, "read-only");
    }
    assert_eq!(world.payout(&pending["id"]).await["state"], "pending");
    for (path, status) in [
        ("/payouts/export", 400),
        ("/payouts/export?format=pdf", 400),
        ("/payouts/export?format=payouts&status=nonsense", 400),
        ("/payouts/export?format=payouts&limit=1&colour=red", 400),
        ("/commissions/export?colour=red", 400),
        ("/payouts/export?format=payouts&programId=nonsense", 404),
    ] {
        world.get(ANALYST, path).await.refused(status);
    }
    let nobody = format!("/payouts/export?format=payouts&partnerId={}&status=failed", world.partner);
    assert_eq!(world.get(ANALYST, &nobody).await.ok(), Value::Null);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_partner_gets_files_of_their_own_only() {
    let world = Plan::new().start().await;
    approved(&world, "OTHER", json!({}), 2, None).await;
    world.sale("o1", "100.00").await;
    world.request_payout().await;
    let partner = world.partner.clone();
    let own = world.partner_signs_in(&partner).await;
    for path in ["/payouts/export?format=payouts", "/commissions/export"] {
        let text = world.get(own, path).await.text;
        assert_eq!((text.lines().count(), text.contains(&partner)), (2, true), "{path}");
    }
    world.get(own, "/payouts/export?format=accounting").await.refused(403);
    world.get(own, &format!("/exports?programId={}", world.program)).await.refused(403);
    let other = world.post(own, "/exports", &json!({"format": "paypal", "programId": world.program})).await;
    assert_eq!(other.status, 403);
}

#[tokio::test]
async fn a_report_has_every_row_however_many_pages_it_takes() {
    let world = Plan::new().start().await;
    let one = approved(&world, "ONE", json!({"payoutMethods": [paypal("a@partners.example")]}), 1, None).await;
    multiply(&world, &one, 250, "Many").await;
    for path in ["/payouts/export?format=payouts", "/payouts/export?format=accounting"] {
        let text = world.get(ANALYST, &format!("{path}&programId={}", world.program)).await.text;
        assert_eq!(text.lines().count(), 252, "{path}");
    }
}

#[test]
fn an_export_is_named_by_program_format_and_key() {
    let (one, two) = (ProgramId::from_uuid(1), ProgramId::from_uuid(2));
    let id = ExportId::derive(&one, "paypal", "fay/june");
    assert_eq!(id, ExportId::derive(&one, "paypal", "fay/june"));
    assert!(id.as_str().starts_with("exp_"));
    for other in [("paypal", "fay/july", &one), ("masspay", "fay/june", &one), ("paypal", "fay/june", &two)] {
        assert_ne!(id, ExportId::derive(other.2, other.0, other.1));
    }
}
