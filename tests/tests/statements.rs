//! Statements and receipts: what they tell, to whom, and that a closed month is closed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use tests::{ADMIN, ANALYST, Plan, Reply, World, golden, percent};

async fn month(world: &World, month: &str) -> Value {
    world.get(ADMIN, &format!("/partners/{}/statements/{month}", world.partner)).await.ok()
}

async fn month_csv(world: &World, month: &str) -> String {
    let reply = world.get(ADMIN, &format!("/partners/{}/statements/{month}.csv", world.partner)).await;
    assert_eq!((reply.status, reply.headers["content-type"].as_bytes()), (200, &b"text/csv; charset=utf-8"[..]));
    reply.text
}

/// Opening, earned, taken back, paid, withheld, closing; what they sum to is checked.
fn sums(statement: &Value) -> [i64; 6] {
    let minor = |name: &str| statement[name]["minor"].as_i64().unwrap();
    let sums = ["opening", "earned", "takenBack", "paid", "withheld", "closing"].map(minor);
    assert_eq!(sums[..5].iter().sum::<i64>(), sums[5], "{statement}");
    let parts: i64 =
        statement["ofClosing"].as_object().unwrap().values().map(|part| part["minor"].as_i64().unwrap()).sum();
    assert_eq!(parts, sums[5], "{statement}");
    sums
}

/// What is unpaid by the partner's balance, less what was paid of it in part.
async fn unpaid(world: &World) -> i64 {
    world
        .buckets()
        .await
        .into_iter()
        .filter(|(bucket, _)| !["paid", "reversed", "rejected"].contains(bucket))
        .map(|(_, sum)| sum)
        .sum()
}

async fn sale(world: &World, order: &str, total: &str) {
    world.sale(order, total).await;
    world.pass("1s");
}

/// Three months of a partner in New York: sales, refunds before and after payment, a declined one, a bonus, a payment.
async fn story() -> (World, Value) {
    let world = Plan::new()
        .at("2026-01-10T12:00:00Z")
        .program("name", "Acme \"Best\" Partners")
        .program("timeZone", "America/New_York")
        .hold_days(10)
        .start()
        .await;
    sale(&world, "1001", "100.00").await;
    sale(&world, "=1002", "250.00").await;
    sale(&world, "1003", "40.00").await;
    world.refund("r1", "1001", "33.33").await;
    world.pass("1s");
    let declined = world.line_id("1003").await;
    world
        .post(ADMIN, "/commissions/reject", &json!({"ids": [declined], "reason": "+ Own order, see terms."}))
        .await
        .ok();
    // Midnight in New York is not midnight in UTC: this one is January's.
    world.clock_at("2026-02-01T04:59:59Z");
    sale(&world, "1004", "10.00").await;
    // And this one is February's.
    sale(&world, "1005", "20.00").await;
    world.clock_at("2026-02-15T12:00:00Z");
    let bonus = json!({"partnerId": world.partner, "programId": world.program, "amount": "5.00", "reason": "Best of the month"});
    world.post(ADMIN, "/commissions", &bonus).await.ok();
    world.pass("1s");
    let payout = world.pay_everything().await;
    world.pass("1d");
    world.refund("r2", "=1002", "250.00").await;
    (world, payout)
}

#[tokio::test]
async fn a_statement_tells_what_was_owed_earned_taken_back_paid_and_is_owed() {
    let (world, _) = story().await;
    assert_eq!(sums(&month(&world, "2026-01").await), [0, 4_000, -733, 0, 0, 3_267]);
    let february = month(&world, "2026-02").await;
    assert_eq!(sums(&february), [3_267, 700, -2_500, -3_467, 0, -2_000]);
    assert_eq!(february["lines"].as_array().unwrap().len(), 3, "the sale, the bonus and the clawback");
    assert_eq!(sums(&february)[5], unpaid(&world).await);
    golden("month-document.json", &pretty(&february));
    golden("statement-2026-01.csv", &month_csv(&world, "2026-01").await);
    golden("statement-2026-02.csv", &month_csv(&world, "2026-02").await);
    world.audit_holds().await;
}

/// What the renderer's own tests print.
fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

#[tokio::test]
async fn a_closed_month_is_the_same_for_ever_and_its_closing_is_the_next_opening() {
    let (world, payout) = story().await;
    world.clock_at("2026-03-01T05:59:59Z");
    assert_eq!(month(&world, "2026-02").await["final"], false, "what began in its last moment may still be written");
    world.pass("1s");
    let (json, csv) = (month(&world, "2026-02").await, month_csv(&world, "2026-02").await);
    let (breakdown, of_payout) = (payout_statement(&world, &payout).await, payout_csv(&world, &payout).await);
    assert_eq!(json["final"], true);
    let rename = json!({"name": "Anna & Sons"});
    let path = format!("/partners/{}", world.partner);
    let request = tests::Request::patch(&path, &rename);
    assert_eq!(world.send(world.by(ADMIN, request).await).await.status, 200);
    for (refund, order, total) in [("r3", "1001", "66.67"), ("r4", "1004", "10.00")] {
        world.refund(refund, order, total).await;
    }
    let line = world.line_id("1005").await;
    let hold = json!({"ids": [line], "reason": "Looked at"});
    world.post(ADMIN, "/commissions/hold", &hold).await.ok();
    world.post(ADMIN, "/commissions/release", &hold).await.ok();
    sale(&world, "1006", "1000.00").await;
    assert_eq!(month(&world, "2026-02").await, json);
    assert_eq!(month_csv(&world, "2026-02").await, csv);
    assert_eq!(payout_statement(&world, &payout).await, breakdown);
    assert_eq!(payout_csv(&world, &payout).await, of_payout);
    let march = month(&world, "2026-03").await;
    assert_eq!(march["opening"], json["closing"]);
    assert_eq!((&march["partner"]["name"], &json["partner"]["name"]), (&json!("Anna & Sons"), &json!("Anna")));
    assert_eq!(sums(&march)[5], unpaid(&world).await);
    world.audit_holds().await;
}

async fn payout_statement(world: &World, id: &Value) -> Value {
    world.get(ADMIN, &format!("/payouts/{}/statement", id.as_str().unwrap())).await.ok()
}

async fn payout_csv(world: &World, id: &Value) -> String {
    let reply = world.get(ADMIN, &format!("/payouts/{}/statement.csv", id.as_str().unwrap())).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.text
}

/// Earnings, taken back, carried over, withheld, and what they come to.
fn parts(statement: &Value) -> [i64; 5] {
    let parts = ["earnings", "takenBack", "carriedOver", "withheld", "amount"];
    let parts = parts.map(|name| statement[name]["minor"].as_i64().unwrap());
    assert_eq!(parts[..4].iter().sum::<i64>(), parts[4], "{statement}");
    parts
}

#[tokio::test]
async fn a_payout_is_its_earnings_less_what_was_taken_back_and_carried_over() {
    let schedule = json!({"frequency": "monthly", "runDay": 1});
    let world = Plan::new().at("2026-01-05T00:00:00Z").program("schedule", schedule).start().await;
    sale(&world, "1001", "480.00").await;
    world.clock_at("2026-02-01T00:00:00Z");
    world.tick().await;
    let first = world.only_payout().await["id"].clone();
    world.pay(&first).await;
    assert_eq!(parts(&payout_statement(&world, &first).await), [4_800, 0, 0, 0, 4_800]);
    world.clock_at("2026-02-10T00:00:00Z");
    world.refund("r1", "1001", "480.00").await;
    // In March nothing is paid: a debt is carried.
    world.clock_at("2026-03-01T00:00:00Z");
    world.tick().await;
    assert_eq!(world.payouts().await.len(), 1);
    world.clock_at("2026-03-10T00:00:00Z");
    sale(&world, "1002", "1000.00").await;
    world.refund("r2", "1002", "100.00").await;
    world.clock_at("2026-04-01T00:00:00Z");
    world.tick().await;
    let second = world.payouts().await[0]["id"].clone();
    let statement = payout_statement(&world, &second).await;
    assert_eq!(parts(&statement), [10_000, -1_000, -4_800, 0, 4_200]);
    assert_eq!((&statement["firstDate"], &statement["lastDate"]), (&json!("2026-03-01"), &json!("2026-03-31")));
    golden("payout-document.json", &pretty(&statement));
    golden("statement-of-payout.csv", &payout_csv(&world, &second).await);
    // What was in it is told of a payout that has ended, too, whatever has become of its lines.
    assert_eq!(world.payout_call(ADMIN, "cancel", &second, &json!({"reason": "Wrong month"})).await, 200);
    world.pass("1s");
    world.refund("r3", "1002", "900.00").await;
    assert_eq!(parts(&payout_statement(&world, &second).await), [10_000, -1_000, -4_800, 0, 4_200]);
    world.audit_holds().await;
}

#[tokio::test]
async fn every_payment_has_a_receipt_that_later_ones_do_not_change() {
    let world = Plan::new().start().await;
    sale(&world, "1001", "1000.00").await;
    let id = world.request_payout().await["id"].clone();
    let receipt =
        async |query: &str| world.get(ADMIN, &format!("/payouts/{}/receipt{query}", id.as_str().unwrap())).await;
    assert_eq!(receipt("").await.status, 409, "nothing has been paid");
    world.approve_payout(tests::APPROVER, &id).await;
    let part = json!({"reference": "wire 1", "amount": "40.00"});
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &part).await, 200);
    let owed = sums(&month(&world, "2026-01").await);
    assert_eq!(owed, [0, 10_000, 0, -4_000, 0, 6_000]);
    let first = receipt("").await.ok();
    assert_eq!(
        (&first["payment"], &first["paid"]["minor"], &first["open"]["minor"]),
        (&json!(1), &json!(4_000), &json!(6_000))
    );
    world.pass("1d");
    let rest = json!({"reference": "wire 2", "paidAt": "2026-01-01T09:00:00Z"});
    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &rest).await, 200);
    let second = receipt("").await.ok();
    assert_eq!(
        (&second["paid"]["minor"], &second["open"]["minor"], &second["reference"]),
        (&json!(6_000), &json!(0), &json!("wire 2"))
    );
    assert_eq!(second["at"], "2026-01-01T09:00:00Z", "when it was made, and not when it was told");
    golden("receipt-document.json", &pretty(&second));
    assert_eq!(receipt("?payment=1").await.ok(), first);
    assert_eq!([receipt("?payment=3").await.status, receipt("?payment=x").await.status], [404, 400]);
    world.audit_holds().await;
}

#[tokio::test]
async fn statements_are_for_staff_and_the_partner_alone() {
    let (world, payout) = story().await;
    let other = world.add_partner(&json!({"code": "OTHER1", "name": "Other", "email": "other@partners.example"})).await;
    let (own, stranger) = (world.partner.clone(), other);
    let (own, stranger) = (world.partner_signs_in(&own).await, world.partner_signs_in(&stranger).await);
    let (partner, payout) = (&world.partner, payout.as_str().unwrap());
    for path in [
        format!("/partners/{partner}/statements"),
        format!("/partners/{partner}/statements/2026-01"),
        format!("/partners/{partner}/statements/2026-01.csv"),
        format!("/partners/{partner}/statements/2026-01.pdf"),
        format!("/payouts/{payout}/statement"),
        format!("/payouts/{payout}/statement.csv"),
        format!("/payouts/{payout}/statement.pdf"),
        format!("/payouts/{payout}/receipt"),
        format!("/payouts/{payout}/receipt.pdf"),
    ] {
        assert_eq!(world.get(stranger, &path).await.status, 404, "{path}");
        let without = world.send(tests::Request::get(&path)).await;
        assert_eq!(without.status, 401, "{path}");
        for who in [own, ANALYST] {
            answered(&path, &world.get(who, &path).await);
        }
    }
}

/// A PDF is there where the renderer is built; where it is not, the answer says how to build it.
#[track_caller]
fn answered(path: &str, reply: &Reply) {
    if path.strip_suffix(".pdf").is_none() {
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    } else if reply.status == 406 {
        assert_eq!(reply.body["type"], "/problems/no-printer");
        assert!(reply.text.contains("functions/render-documents"), "{}", reply.text);
    } else {
        assert_eq!((reply.status, &reply.headers["content-type"]), (200, &"application/pdf".parse().unwrap()));
        assert!(reply.text.starts_with("%PDF-"));
    }
}

#[tokio::test]
async fn there_is_a_statement_of_every_month_since_the_partner_joined_and_of_no_other() {
    let world = Plan::new().at("2025-12-20T00:00:00Z").start().await;
    world.clock_at("2026-02-10T00:00:00Z");
    let list = async |query: &str| {
        let path = format!("/partners/{}/statements{query}", world.partner);
        let listed = world.get(ADMIN, &path).await.ok();
        let months = listed["data"].as_array().unwrap().clone();
        months.iter().map(|one| (one["month"].as_str().unwrap().to_owned(), one["final"] == true)).collect::<Vec<_>>()
    };
    let told = |month: &str, is_final| (month.to_owned(), is_final);
    assert_eq!(list("").await, [told("2026-02", false), told("2026-01", true)]);
    assert_eq!(list("?year=2025").await, [told("2025-12", true)]);
    assert_eq!(list("?year=1999").await, []);
    for document in ["2025-11", "2026-03", "2026-13", "2026-1", "nonsense", "2026-01.xls", "2026-01.pdf.csv", "9999-12"]
    {
        let reply = world.get(ADMIN, &format!("/partners/{}/statements/{document}", world.partner)).await;
        assert_eq!(reply.status, 404, "{document}: {}", reply.text);
    }
    assert_eq!(sums(&month(&world, "2025-12").await), [0; 6]);
}

/// Many lines share their entries, and pages of a payout, runs of a day and months follow one another.
#[tokio::test]
async fn what_many_sales_and_payouts_come_to_agrees_with_the_balance_in_every_month() {
    let world = Plan::new().rules([percent("7.5")]).at("2026-01-30T00:00:00Z").hold_days(3).start().await;
    let mut closing = 0;
    for (n, month_of) in [(0, "2026-01"), (1, "2026-02"), (2, "2026-03")] {
        for order in 0..60 {
            world.sale(&format!("{n}-{order}"), &format!("{}.99", 3 + order * 7)).await;
            if order % 5 == 0 {
                world.refund(&format!("{n}-{order}-r"), &format!("{n}-{order}"), "1.37").await;
            }
        }
        if n > 0 {
            world.pass("4d");
            world.fire("mature-commissions").await;
            world.pay_everything().await;
            for order in 0..4 {
                world.refund(&format!("{n}-{order}-late"), &format!("{n}-{order}"), "2.00").await;
            }
        }
        let statement = month(&world, month_of).await;
        assert_eq!(sums(&statement)[0], closing);
        closing = sums(&statement)[5];
        assert_eq!(closing, unpaid(&world).await, "{month_of}");
        world.clock_at(["2026-02-02T00:00:00Z", "2026-03-02T00:00:00Z", "2026-04-02T00:00:00Z"][n]);
        assert_eq!(sums(&month(&world, month_of).await)[5], closing);
    }
}
