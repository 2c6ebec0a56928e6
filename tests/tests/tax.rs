//! Tax: forms, what is withheld or blocked for want of one, and what is reported of a year.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use base64::Engine as _;
use domain::money::Minor;
use http::Method;
use serde_json::{Value, json};
use tests::{ADMIN, ANALYST, APPROVER, FINANCE, MANAGER, Plan, REVIEWER, Reply, Request, Who, World, percent};
use workflows::tax::{Leaving, Validity};

const SSN: &str = "123-45-6789";

/// A program of a US payer that pays a partner everything of a sale, on the first of June 2026 in New York.
fn plan(without: &str) -> Plan {
    Plan::new()
        .at("2026-06-01T12:00:00Z")
        .program("taxPayer", "US")
        .program("timeZone", "America/New_York")
        .program("withoutTaxNumber", without)
        .rules([percent("100")])
}

fn w9() -> Value {
    json!({"form": "w9", "name": "Anna Smith", "signedOn": "2026-05-01", "taxNumber": {"kind": "ssn", "number": SSN}})
}

fn w8() -> Value {
    json!({"form": "w8ben", "name": "Anna Schmidt", "country": "DE", "signedOn": "2026-05-01", "services": "us",
           "taxNumber": {"kind": "foreign", "number": "12 345 678 901"}})
}

fn with(mut form: Value, field: &str, value: Value) -> Value {
    form[field] = value;
    form
}

async fn put(world: &World, who: Who<'_>, path: &str, body: &Value) -> Reply {
    let request = Request::new(Method::PUT, path).header("content-type", "application/json").body(body.to_string());
    world.send(world.by(who, request).await).await
}

async fn give(world: &World, form: &Value) -> Value {
    put(world, FINANCE, &format!("/partners/{}/tax-form", world.partner), form).await.ok()
}

async fn totals(world: &World, year: u16) -> Vec<Value> {
    world.all(FINANCE, &format!("/tax/totals?year={year}&limit=2")).await
}

/// Everything anybody could read by the API or find in the table about tax numbers.
fn never_shows(text: &str) {
    for secret in ["123456789", SSN, "12345678901", "12 345 678 901"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Names one of the parts of what a payee's year comes to.
fn part(payee: &Value, name: &str) -> i64 {
    payee[name]["minor"].as_i64().unwrap()
}

async fn valid(world: &World, payout: &Value) -> Validity {
    let context = &world.system.context;
    let payout = context.store.payout("test", &payout.as_str().unwrap().parse().unwrap()).await.unwrap().unwrap();
    let partner = context.store.partner("test", &payout.partner).await.unwrap().unwrap();
    let program = context.store.program("test", &payout.program).await.unwrap().unwrap();
    let leaving = Leaving { at: context.now(), along: Minor::ZERO };
    workflows::tax::valid_for(context, &program, &partner, &payout, leaving).await.unwrap()
}

#[tokio::test]
async fn without_a_form_nothing_is_paid_that_reaches_the_limit_and_every_cent_says_so() {
    let world = plan("block").start().await;
    world.sale("o1", "1999.99").await;
    world.pay_everything().await;
    world.sale("o2", "0.01").await;
    assert_eq!(world.unpaid_because().await, [("tax_form_missing".to_owned(), 1)]);
    world.request_payout_with(&json!({})).await.refused(409);
    let run = world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.ok();
    world.settle().await;
    let run = world.get(FINANCE, &format!("/runs/{}", run["id"].as_str().unwrap())).await.ok();
    assert_eq!(run["carried"][0]["reason"], "tax_form_missing");
    let due = world.all(ADMIN, &format!("/partners?programId={}&payment=due_incomplete", world.program)).await;
    assert_eq!(due.len(), 1);
    give(&world, &w9()).await;
    assert_eq!(world.unpaid_because().await, [("next_run".to_owned(), 1)]);
    world.pay_everything().await;
    assert_eq!(part(&totals(&world, 2026).await[0], "paid"), 200_000);
    world.audit_holds().await;
}

#[tokio::test]
async fn the_limit_is_that_of_the_year_of_payment_in_the_programs_calendar() {
    // 2025 by New York, 2026 by Greenwich.
    let world = plan("block").at("2026-01-01T03:00:00Z").start().await;
    world.sale("o1", "600.00").await;
    assert_eq!(world.unpaid_because().await, [("tax_form_missing".to_owned(), 60_000)]);
    world.clock_at("2026-01-01T05:00:00Z");
    assert_eq!(world.unpaid_because().await, [("next_run".to_owned(), 60_000)]);
    world.pay_everything().await;
    assert_eq!((totals(&world, 2025).await.len(), totals(&world, 2026).await.len()), (0, 1));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payment_is_held_to_what_tax_asks_in_its_own_year_whenever_it_is_told() {
    // From 600 on in 2025, from 2,000 on in 2026.
    let world = plan("withhold").at("2025-12-20T12:00:00Z").start().await;
    world.sale("o1", "700.00").await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.payout_stands(&id).await.1, 53_200, "24 % is kept back from 600 on");
    assert_eq!(world.approve_payout(ADMIN, &id).await, 200);
    world.clock_at("2026-01-02T12:00:00Z");
    let wired = json!({"reference": "wire 1", "paidAt": "2026-01-01T04:59:59Z"});
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &wired).await, 200, "the last second of 2025 in New York");
    let found = totals(&world, 2025).await;
    assert_eq!((part(&found[0], "paid"), part(&found[0], "withheld")), (70_000, 16_800));
    assert_eq!(totals(&world, 2026).await.len(), 0);
    world.audit_holds().await;
}

#[tokio::test]
async fn tax_that_is_kept_back_is_there_and_has_no_amount_that_a_person_may_set() {
    let world = plan("withhold").at("2025-12-20T12:00:00Z").start().await;
    world.sale("o1", "700.00").await;
    world.request_payout().await;
    let lines = world.lines().await;
    let withheld = lines.iter().find(|line| line["kind"] == "withholding").unwrap();
    let body = json!({"id": withheld["id"], "amount": "1.00", "reason": "agreed"});
    let refused = world.post(ADMIN, "/commissions/adjust", &body).await.refused(409);
    assert!(refused.text.contains("cannot be adjusted"), "{}", refused.text);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payment_told_of_the_new_year_is_held_to_the_new_years_limit() {
    let world = plan("withhold").at("2025-12-20T12:00:00Z").start().await;
    world.sale("o1", "700.00").await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(ADMIN, &id).await, 200);
    world.clock_at("2026-01-02T12:00:00Z");
    let wired = json!({"reference": "wire 1", "paidAt": "2026-01-01T05:00:00Z"});
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &wired).await, 412, "700 is below the limit of 2026");
    assert_eq!(world.payout_stands(&id).await, ("pending".to_owned(), 70_000, 2, 0));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_part_that_arrived_counts_once_when_the_rest_is_sent_again() {
    let world = plan("block").start().await;
    world.sale("o1", "1500.00").await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(ADMIN, &id).await, 200);
    let part = json!({"reference": "wire 1", "amount": "1000.00"});
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &part).await, 200);
    for turn in ["mark-failed", "retry"] {
        let why = json!({"reason": "the bank says so"});
        assert_eq!(world.payout_call(ADMIN, turn, &id, &why).await, 200, "{turn}: 1,500 of 2,000 in all");
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn who_was_reportable_last_year_is_blocked_from_the_first_cent() {
    let world = plan("block").at("2025-12-01T12:00:00Z").start().await;
    give(&world, &with(w9(), "signedOn", json!("2025-11-01"))).await;
    world.sale("o1", "600.00").await;
    world.pay_everything().await;
    let revoked = format!("/partners/{}/tax-form/revoke", world.partner);
    let form = world.post(FINANCE, &revoked, &json!({"reason": "the IRS says the number is wrong"})).await.ok();
    assert_eq!(form["status"], "revoked");
    world.clock_at("2026-02-01T12:00:00Z");
    world.sale("o2", "1.00").await;
    assert_eq!(world.unpaid_because().await, [("tax_form_missing".to_owned(), 100)]);
    world.clock_at("2027-02-01T12:00:00Z");
    assert_eq!(world.unpaid_because().await, [("next_run".to_owned(), 100)], "nothing was paid in 2026");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_foreign_payee_gives_a_w8_before_the_first_cent() {
    let world = plan("withhold").partner("country", "DE").start().await;
    world.sale("o1", "1.00").await;
    assert_eq!(world.unpaid_because().await, [("tax_form_missing".to_owned(), 100)]);
    give(&world, &with(w8(), "services", json!("foreign"))).await;
    assert_eq!(world.unpaid_because().await, [("next_run".to_owned(), 100)]);
    // To the last day of the third year after the one it was signed in.
    world.clock_at("2030-01-01T04:59:59Z");
    assert_eq!(world.unpaid_because().await, [("next_run".to_owned(), 100)]);
    world.clock_at("2030-01-01T05:00:00Z");
    assert_eq!(world.unpaid_because().await, [("tax_form_missing".to_owned(), 100)]);
    let form = world.get(FINANCE, &format!("/partners/{}/tax-form", world.partner)).await.ok();
    assert_eq!((form["status"].as_str(), form["validUntil"].as_str()), (Some("expired"), Some("2029-12-31")));
    world.audit_holds().await;
}

#[tokio::test]
async fn terms_are_frozen_in_the_payout_and_checked_again_before_money_leaves() {
    let world = plan("withhold").start().await;
    world.sale("o1", "1000.00").await;
    let first = world.request_payout().await["id"].clone();
    world.sale("o2", "1500.00").await;
    let second = world.request_payout().await["id"].clone();
    assert!(matches!(valid(&world, &first).await, Validity::Stands(_)));
    assert!(matches!(valid(&world, &second).await, Validity::Stands(_)), "nothing was paid or sent so far");
    world.pay(&first).await;
    let Validity::Changed { terms, why } = valid(&world, &second).await else { panic!("unchanged") };
    let withholding = serde_json::to_value(terms.withholding()).unwrap();
    assert_eq!((withholding["kind"].as_str(), withholding["from"].as_i64()), (Some("backup"), Some(100_000)));
    assert!(why.contains("360.00 USD is to be withheld, not 0.00 USD"), "{why}");
    give(&world, &w9()).await;
    assert!(matches!(valid(&world, &second).await, Validity::Stands(_)));
    give(&world, &w8()).await;
    assert!(matches!(valid(&world, &second).await, Validity::Changed { .. }), "thirty percent");
    world.clock_at("2030-01-01T05:00:00Z");
    assert!(matches!(valid(&world, &second).await, Validity::Blocked { .. }), "it ended");
}

#[tokio::test]
async fn payouts_that_leave_in_one_file_count_for_each_other() {
    let world = plan("block").start().await;
    let details = json!({"name": "Ann", "accountNumber": "000123456", "routingNumber": "021000021"});
    let bank = json!([{"kind": "bank", "details": details, "preferred": true}]);
    let ann = json!({"code": "ANN", "name": "Ann", "email": "ann@partners.example", "payoutMethods": bank});
    let partner = world.add_partner(&ann).await;
    for order in ["o1", "o2"] {
        let mut sale = world.sale_event(order, "1200.00");
        sale["partner"] = json!({"id": partner});
        world.report(&sale).await.ok();
        let request = json!({"partnerId": partner, "programId": world.program});
        let id = world.post(ADMIN, "/payouts", &request).await.ok()["id"].clone();
        assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    }
    let export = world.post(FINANCE, "/exports", &json!({"format": "bank", "programId": world.program})).await.ok();
    assert_eq!((&export["payouts"], &export["leftOut"][0]["code"]), (&json!(1), &json!("may_not_submit")));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_payout_whose_tax_changed_goes_back_to_be_approved_with_what_is_due_now() {
    let world = plan("withhold").start().await;
    world.sale("o1", "1000.00").await;
    let first = world.request_payout().await["id"].clone();
    world.sale("o2", "1500.00").await;
    let second = world.request_payout().await["id"].clone();
    world.pay(&first).await;
    assert_eq!(world.approve_payout(ADMIN, &second).await, 200);
    let paid = json!({"payouts": [{"id": second, "reference": "wire 2"}]});
    let reply = world.post(ADMIN, "/payouts/mark-paid", &paid).await.ok();
    let problem = &reply["results"][0]["problem"];
    assert_eq!(problem["status"], 412);
    assert!(problem["detail"].as_str().unwrap().contains("360.00 USD is to be withheld, not 0.00 USD"), "{problem}");
    assert_eq!(world.payout_stands(&second).await, ("pending".to_owned(), 114_000, 2, 0));
    world.audit_holds().await;
    // A number came in: nothing is withheld any more, and somebody approves that, too.
    assert_eq!(world.approve_payout(ADMIN, &second).await, 200);
    give(&world, &w9()).await;
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &second, &json!({})).await, 412);
    assert_eq!(world.payout_stands(&second).await, ("pending".to_owned(), 150_000, 3, 0));
    world.pay(&second).await;
    let found = totals(&world, 2026).await;
    assert_eq!((part(&found[0], "paid"), part(&found[0], "withheld")), (250_000, 0));
    world.audit_holds().await;
}

#[tokio::test]
async fn what_is_withheld_is_counted_when_it_is_paid_and_makes_a_return_of_it() {
    let world = plan("withhold").start().await;
    world.sale("o1", "2000.00").await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.payout_stands(&id).await.1, 152_000);
    assert_eq!(totals(&world, 2026).await.len(), 0, "nothing is paid yet");
    world.pay(&id).await;
    let found = totals(&world, 2026).await;
    assert_eq!((found[0]["return"].as_str(), found[0]["taxNumber"].as_str()), (Some("1099-NEC"), None));
    assert_eq!((part(&found[0]["boxes"], "1"), part(&found[0]["boxes"], "4")), (200_000, 48_000));
    assert_eq!(world.balance().await["withheld"]["minor"], -48_000);
    // It came back: it counts no more.
    assert_eq!(world.payout_call(ADMIN, "mark-returned", &id, &json!({"reason": "account closed"})).await, 200);
    assert_eq!(totals(&world, 2026).await.len(), 0);
    world.audit_holds().await;
}

#[tokio::test]
async fn nothing_leaves_for_a_payee_whose_form_ended_meanwhile() {
    let world = plan("block").at("2026-12-31T12:00:00Z").partner("country", "DE").start().await;
    give(&world, &with(with(w8(), "services", json!("foreign")), "signedOn", json!("2023-02-01"))).await;
    world.sale("o1", "100.00").await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(ADMIN, &id).await, 200);
    world.clock_at("2027-01-01T12:00:00Z");
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &json!({})).await, 409);
    assert_eq!(world.payout_stands(&id).await, ("approved".to_owned(), 10_000, 1, 1));
    give(&world, &with(with(w8(), "services", json!("foreign")), "signedOn", json!("2027-01-01"))).await;
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &json!({})).await, 200);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_program_without_a_payer_of_taxes_asks_for_nothing_and_takes_no_form() {
    let world = Plan::new().partner("country", "DE").rules([percent("100")]).start().await;
    world.sale("o1", "9000.00").await;
    assert_eq!(world.unpaid_because().await, [("next_run".to_owned(), 900_000)]);
    world.pay_everything().await;
    assert_eq!(totals(&world, 2026).await.len(), 0);
    let path = format!("/partners/{}/tax-form", world.partner);
    put(&world, FINANCE, &path, &w9()).await.refused(409);
    assert_eq!(world.get(FINANCE, &path).await.ok()["applies"], false);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_was_paid_is_one_sum_per_tax_number_over_programs_and_comes_off_when_it_comes_back() {
    let world = plan("block").start().await;
    world.sale("o1", "1500.00").await;
    world.pay_everything().await;
    // The same person in another program of the payer, and somebody else there.
    let mut elsewhere = world.clone();
    let program = json!({"name": "Second", "taxPayer": "US", "approval": "automatic", "holdDays": 0,
                         "minimumPayout": "0", "largePayoutLimit": "1000000.00"});
    elsewhere.program = world.post(ADMIN, "/programs", &program).await.id();
    elsewhere.publish(&[percent("100")]).await;
    elsewhere.partner = elsewhere.add_partner(&json!({"code": "ANNA20", "name": "Anna elsewhere"})).await;
    elsewhere.sale("o2", "700.00").await;
    elsewhere.pay_everything().await;
    let other =
        World { partner: elsewhere.add_partner(&json!({"code": "BEN20", "name": "=Ben"})).await, ..elsewhere.clone() };
    other.sale("o3", "300.00").await;
    other.pay_everything().await;
    let paid = |found: &[Value]| {
        let mut paid: Vec<_> =
            found.iter().map(|payee| (part(payee, "paid"), payee["partnerIds"].as_array().unwrap().len())).collect();
        paid.sort_unstable();
        paid
    };
    assert_eq!(paid(&totals(&world, 2026).await), [(30_000, 1), (70_000, 1), (150_000, 1)], "nobody gave a number");
    assert_eq!(world.all(ANALYST, "/tax/near-limit?year=2026").await.len(), 0);
    give(&world, &w9()).await;
    give(&elsewhere, &w9()).await;
    let found = totals(&world, 2026).await;
    assert_eq!(paid(&found), [(30_000, 1), (220_000, 2)], "a number given later merges what was counted before");
    let anna = found.iter().find(|payee| payee["partnerIds"].as_array().unwrap().len() == 2).unwrap();
    assert_eq!((anna["return"].as_str(), part(&anna["boxes"], "1")), (Some("1099-NEC"), 220_000));
    assert_eq!((anna["taxNumber"].as_str(), anna["taxNumberKind"].as_str()), (Some("***-**-6789"), Some("ssn")));
    let near = world.all(ANALYST, "/tax/near-limit?year=2026").await;
    assert_eq!((near.len(), part(&near[0], "reportingLimit")), (1, 200_000));
    assert_eq!(world.all(ANALYST, "/tax/near-limit?year=2026&share=15").await.len(), 2);
    // A corporation is left out, with the reason.
    let corporation = json!({"form": "w9", "name": "Ben Inc.", "entity": "corporation", "signedOn": "2026-05-01",
                             "taxNumber": {"kind": "ein", "number": "12-3456789"}});
    give(&other, &corporation).await;
    other.sale("o4", "5000.00").await;
    other.pay_everything().await;
    let found = totals(&world, 2026).await;
    let ben = found.iter().find(|payee| payee["name"] == "Ben Inc.").unwrap();
    assert_eq!((ben["return"].as_str(), ben["excludedBecause"].as_str()), (None, Some("corporation")));
    assert_eq!((part(ben, "excluded"), part(ben, "withheld")), (530_000, 0));
    // A refund after payment is a debt: what was paid stays paid, and less is paid next time.
    elsewhere.refund("r1", "o2", "100.00").await;
    assert_eq!(paid(&totals(&world, 2026).await).last().unwrap().0, 530_000);
    elsewhere.sale("o5", "150.00").await;
    elsewhere.pay_everything().await;
    assert_eq!(paid(&totals(&world, 2026).await)[0], (225_000, 2));
    world.audit_holds().await;
}

#[tokio::test]
async fn what_the_processor_reports_is_left_out_and_needs_no_number() {
    let world = plan("block")
        .partner("payoutMethods", json!([{"kind": "paypal", "details": {"email": "anna@partners.example"}}]))
        .start()
        .await;
    world.sale("o1", "9000.00").await;
    world.pay_everything().await;
    let found = totals(&world, 2026).await;
    assert_eq!((found[0]["return"].as_str(), found[0]["excludedBecause"].as_str()), (None, Some("processor_reported")));
    assert_eq!((part(&found[0], "paid"), part(&found[0], "paidByProcessors")), (900_000, 900_000));
    assert_eq!(world.all(FINANCE, "/tax/near-limit?year=2026").await.len(), 0);
    world.audit_holds().await;
}

#[tokio::test]
async fn limits_of_years_to_come_are_the_payers_to_set() {
    let world = plan("block").at("2027-06-01T12:00:00Z").start().await;
    let payer = world.get(FINANCE, "/tax/payer").await.ok();
    let year = |payer: &Value, n: usize| {
        let year = &payer["inForce"][n];
        (year["year"].as_i64().unwrap(), part(year, "reportingLimit"), year["settled"].as_bool().unwrap())
    };
    assert_eq!([0, 1].map(|n| year(&payer, n)), [(2026, 200_000, true), (2027, 200_000, false)]);
    world.sale("o1", "2050.00").await;
    assert_eq!(world.unpaid_because().await[0].0, "tax_form_missing");
    let set = json!({"name": "Acme Inc.", "years": [{"year": 2027, "reportingLimit": "2100.00"}]});
    let payer = put(&world, FINANCE, "/tax/payer", &set).await;
    assert_eq!(payer.headers["etag"], "\"1\"");
    assert_eq!(year(&payer.ok(), 1), (2027, 210_000, true));
    assert_eq!(world.unpaid_because().await[0].0, "next_run");
    let stale = Request::new(Method::PUT, "/tax/payer").header("content-type", "application/json");
    let stale = stale.header("if-match", "\"0\"").body(set.to_string());
    world.send(world.by(FINANCE, stale).await).await.refused(412);
    for (years, pointer) in [
        (json!([{"year": 1999}]), "/years/0/year"),
        (json!([{"year": 2027}, {"year": 2027}]), "/years/1/year"),
        (json!([{"year": 2027, "reportingLimit": "0"}]), "/years/0/reportingLimit"),
        (json!([{"year": 2027, "reportingLimit": "x"}]), "/years/0/reportingLimit"),
        (json!([{"year": 2027, "backupRate": "101"}]), "/years/0/backupRate"),
        (json!([{"year": 2027, "nonresidentRate": "-1"}]), "/years/0/nonresidentRate"),
    ] {
        let refused = put(&world, FINANCE, "/tax/payer", &json!({"years": years})).await.refused(422);
        assert_eq!(refused.pointers(), [pointer]);
    }
    put(&world, ANALYST, "/tax/payer", &set).await.refused(403);
}

#[tokio::test]
async fn a_form_that_cannot_be_is_refused_by_field_and_its_number_is_in_no_answer() {
    let world = plan("block").start().await;
    let path = format!("/partners/{}/tax-form", world.partner);
    let number = |kind: &str, number: Value| json!({"kind": kind, "number": number});
    for (form, status, pointers) in [
        (with(w9(), "taxNumber", number("ssn", json!("000-12-3456"))), 422, vec!["/taxNumber/number"]),
        (with(w9(), "taxNumber", number("ssn", json!("12345678"))), 422, vec!["/taxNumber/number"]),
        (with(w9(), "taxNumber", number("ein", json!("07-1234567"))), 422, vec!["/taxNumber/number"]),
        (with(w9(), "taxNumber", number("itin", json!("912-66-1234"))), 422, vec!["/taxNumber/number"]),
        (with(w9(), "taxNumber", number("foreign", json!("1234567"))), 422, vec!["/taxNumber/kind"]),
        (with(w9(), "taxNumber", Value::Null), 422, vec!["/taxNumber"]),
        (with(w9(), "signedOn", json!("2026-06-02")), 422, vec!["/signedOn"]),
        (with(w8(), "signedOn", json!("2022-12-31")), 422, vec!["/signedOn"]),
        (with(w8(), "country", json!("XX")), 422, vec!["/country"]),
        (with(w8(), "services", Value::Null), 422, vec!["/services"]),
        // What cannot even be read must not be quoted.
        (with(w9(), "taxNumber", number("ssn", json!(123_456_789))), 400, vec!["/taxNumber/number"]),
        (with(w9(), "taxNumber", json!(SSN)), 400, vec!["/taxNumber"]),
        (with(w9(), "taxNumber", number(SSN, json!("x"))), 400, vec!["/taxNumber/kind"]),
        (with(w9(), "form", json!(SSN)), 400, vec!["/form"]),
        (with(w9(), "signedOn", json!(SSN)), 400, vec!["/signedOn"]),
    ] {
        let refused = put(&world, FINANCE, &path, &form).await.refused(status);
        assert_eq!(refused.pointers(), pointers, "{form}");
        never_shows(&refused.text);
    }
    assert_eq!(world.get(FINANCE, &path).await.ok()["status"], "missing");
    let kept = give(&world, &w9()).await;
    never_shows(&kept.to_string());
    assert_eq!(kept["taxNumber"], json!({"kind": "ssn", "number": "***-**-6789"}));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_tax_number_is_nowhere_in_the_table_and_the_events_and_opens_for_its_partner_only() {
    let world = plan("block").start().await;
    give(&world, &w9()).await;
    world.sale("o1", "2500.00").await;
    world.pay_everything().await;
    let table = aws_sdk_dynamodb::Client::new(&world.system.embedded.sdk_config());
    let scan = format!("{:?}", table.scan().table_name("partner-payouts").send().await.unwrap());
    assert!(scan.contains("6789"), "its last digits are kept");
    never_shows(&scan);
    never_shows(&format!("{:?}", world.system.embedded.events()));
    // Sealed for one partner: under another's name it does not open.
    let context = &world.system.context;
    let id = world.partner.parse().unwrap();
    let form = context.store.tax_form("test", &id).await.unwrap().unwrap();
    let sealed = form.number.unwrap().sealed;
    let blob = aws_sdk_kms::primitives::Blob::new(base64::engine::general_purpose::STANDARD.decode(sealed).unwrap());
    let open = |partner: &str| {
        let decrypt = context.vault.kms.decrypt().key_id(&context.vault.key).ciphertext_blob(blob.clone());
        decrypt.encryption_context("partner", partner).send()
    };
    assert_eq!(open(&world.partner).await.unwrap().plaintext.unwrap().into_inner(), b"123456789");
    assert!(open("par_other").await.is_err());
}

#[tokio::test]
async fn partners_see_and_change_their_own_form_only_and_staff_by_role() {
    let world = plan("block").start().await;
    let other = world.add_partner(&json!({"code": "BEN20"})).await;
    let anna = world.partner_signs_in(&world.partner).await;
    let own = format!("/partners/{}/tax-form", world.partner);
    let theirs = format!("/partners/{other}/tax-form");
    let form = put(&world, anna, &own, &w9()).await;
    assert_eq!(form.headers["etag"], "\"1\"");
    let form = form.ok();
    assert_eq!((form["taxNumber"]["number"].as_str(), form["changedBy"].as_str()), (Some("***-**-6789"), None));
    assert_eq!(world.get(anna, &own).await.ok()["name"], "Anna Smith");
    world.get(anna, &theirs).await.refused(404);
    put(&world, anna, &theirs, &w9()).await.refused(404);
    world.post(anna, &format!("{own}/revoke"), &json!({"reason": "x"})).await.refused(403);
    for who in [ANALYST, MANAGER, REVIEWER, APPROVER] {
        world.get(who, &own).await.refused(403);
        put(&world, who, &own, &json!("nonsense")).await.refused(403);
        world.post(who, &format!("{own}/revoke"), &json!({"reason": "x"})).await.refused(403);
    }
    for path in ["/tax/totals?year=2026", "/tax/near-limit?year=2026", "/tax/totals/export?year=2026", "/tax/payer"] {
        world.get(FINANCE, path).await.ok();
        world.get(ANALYST, path).await.ok();
        world.get(anna, path).await.refused(403);
        world.get(REVIEWER, path).await.refused(403);
    }
    for path in ["/tax/totals?year=1999", "/tax/totals", "/tax/near-limit?year=2026&share=0", "/tax/totals?year=x"] {
        world.get(FINANCE, path).await.refused(400);
    }
    let stale = Request::new(Method::PUT, &own).header("content-type", "application/json").header("if-match", "\"0\"");
    world.send(world.by(FINANCE, stale.body(w9().to_string())).await).await.refused(412);
}

#[tokio::test]
async fn the_years_file_has_whole_numbers_and_everything_else_has_masked_ones() {
    let world = plan("withhold").partner("name", "=Anna").start().await;
    world.sale("o1", "2500.00").await;
    give(&world, &with(w9(), "name", json!("=Anna, \"Smith\""))).await;
    world.pay_everything().await;
    let masked = world.get(FINANCE, "/tax/totals/export?year=2026").await;
    assert_eq!(masked.status, 200);
    never_shows(&masked.text);
    let rows: Vec<_> = masked.text.lines().collect();
    assert_eq!(rows.len(), 2);
    assert!(rows[0].starts_with("year,name,taxNumberKind,taxNumber,"), "{}", rows[0]);
    assert!(rows[1].starts_with("2026,\"'=Anna, \"\"Smith\"\"\",ssn,***-**-6789,"), "{}", rows[1]);
    let filed = world.system.invoke("tax-filing", json!({"year": 2026})).await.unwrap();
    assert_eq!((filed["returns"].as_i64(), filed["withoutNumber"].as_i64()), (Some(1), Some(0)));
    let again = world.system.invoke("tax-filing", json!({"year": 2026})).await.unwrap();
    assert_eq!(filed, again, "the same content has the same place");
    let key = filed["key"].as_str().unwrap();
    assert!(key.starts_with("tax/2026/returns-"), "{key}");
    let files = &world.system.files;
    let file = files.s3.get_object().bucket(&files.bucket).key(key).send().await.unwrap();
    let text = String::from_utf8(file.body.collect().await.unwrap().to_vec()).unwrap();
    assert!(text.contains("1099-NEC,\"'=Anna, \"\"Smith\"\"\",ssn,123456789,individual,US,"), "{text}");
    assert!(world.system.invoke("tax-filing", json!({"year": 1})).await.is_err());
}

#[tokio::test]
async fn a_us_payer_is_told_apart_from_none_and_pays_in_dollars() {
    let world = Plan::new().start().await;
    let program = |fields: Value| {
        let mut program = json!({"name": "Second"});
        fields.as_object().unwrap().iter().for_each(|(name, value)| program[name] = value.clone());
        program
    };
    let made = world.post(ADMIN, "/programs", &program(json!({"taxPayer": "US"}))).await.ok();
    assert_eq!((made["taxPayer"].as_str(), made["withoutTaxNumber"].as_str()), (Some("US"), Some("block")));
    let made = world.post(ADMIN, "/programs", &program(json!({"taxPayer": "none"}))).await.ok();
    assert_eq!(made["taxPayer"], Value::Null);
    for fields in [json!({"taxPayer": "DE"}), json!({"taxPayer": "US", "currency": "EUR"})] {
        let refused = world.post(ADMIN, "/programs", &program(fields)).await.refused(422);
        assert_eq!(refused.pointers(), ["/taxPayer"]);
    }
    let partner =
        json!({"programId": world.program, "name": "B", "email": "b@x.example", "code": "B20", "country": "XX"});
    assert_eq!(world.post(ADMIN, "/partners", &partner).await.refused(422).pointers(), ["/country"]);
}
