//! Payouts as Bills in QuickBooks, against its counterpart: one Bill each, whatever the network does, and paid when it is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use local::QuickbooksOptions;
use quickbooks_counterpart::company::{EXPENSE_ACCOUNT, Happened, WITHHOLDING_ACCOUNT};
use quickbooks_counterpart::{Blow, Faults, Strike};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tests::books::{REALM, in_quickbooks};
use tests::rail::{Storm, storms};
use tests::sign::intuits;
use tests::{ADMIN, APPROVER, FINANCE, Plan, Request, World, percent};

/// A program whose partner is paid in QuickBooks, with two sales of 100.00.
async fn world() -> World {
    with(Plan::new()).await
}

async fn with(plan: Plan) -> World {
    let world = plan.paid_in_quickbooks().start().await;
    for order in ["o1", "o2"] {
        world.sale(order, "100.00").await;
    }
    world.settle().await;
    world
}

fn all(world: &World, entity: &str) -> Vec<Value> {
    world.entities(REALM, entity)
}

fn only_bill(world: &World) -> Value {
    let mut bills = all(world, "Bill");
    assert_eq!(bills.len(), 1, "{bills:?}");
    bills.remove(0)
}

#[tokio::test]
async fn an_approved_payout_is_a_bill_and_paid_when_the_bill_is() {
    for legacy_webhooks in [false, true] {
        is_a_bill_and_paid(QuickbooksOptions { legacy_webhooks, ..QuickbooksOptions::default() }).await;
    }
}

async fn is_a_bill_and_paid(options: QuickbooksOptions) {
    let world = with(Plan::new().quickbooks(options)).await;
    let id = world.send_payout().await;
    let payout = world.payout(&id).await;
    let bill = only_bill(&world);
    assert_eq!(payout["state"], "submitted", "{payout}");
    assert_eq!(payout["quickbooks"], json!({"billId": bill["Id"], "vendorId": bill["VendorRef"]["value"]}));
    assert_eq!(bill["DocNumber"], payout["number"]);
    assert_eq!((&bill["TotalAmt"], &bill["Balance"]), (&json!(20), &json!(20)));
    assert!(bill["PrivateNote"].as_str().unwrap().contains(id.as_str().unwrap()), "{bill}");
    let vendors = all(&world, "Vendor");
    assert_eq!((vendors.len(), &vendors[0]["DisplayName"]), (1, &json!("Anna")));
    let first = world.pay_bill(&id, Some(5)).await;
    assert_eq!(world.state_of_payout(&id).await, "partially_paid");
    world.pay_bill(&id, None).await;
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("paid"), &json!(2_000)));
    assert_eq!(world.buckets().await, [("paid", 2_000)]);
    world.there(|company, now| company.void_payment(&first, now)).await;
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("partially_paid"), &json!(1_500)));
    assert_eq!(world.buckets().await, [("inPayout", 2_000)]);
    world.pay_bill(&id, None).await;
    assert_eq!(world.state_of_payout(&id).await, "paid");
    assert_eq!(all(&world, "Bill").len(), 1);
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_bill_that_is_deleted_or_zeroed_makes_the_payout_void_and_its_lines_payable() {
    for zeroed in [false, true] {
        for paid in [false, true] {
            let world = world().await;
            let id = world.send_payout().await;
            let bill = only_bill(&world)["Id"].as_str().unwrap().to_owned();
            if paid {
                let payment = world.pay_bill(&id, None).await;
                assert_eq!(world.state_of_payout(&id).await, "paid");
                if zeroed {
                    world.there(|company, now| company.void_payment(&payment, now)).await;
                }
            }
            if zeroed {
                assert!(world.there(|company, now| company.edit_bill(&bill, Decimal::ZERO, now)).await);
            } else {
                assert!(world.there(|company, now| company.delete_bill(&bill, now)).await);
            }
            assert_eq!(world.state_of_payout(&id).await, "void", "zeroed {zeroed}, paid {paid}");
            assert_eq!(world.buckets().await, [("payable", 2_000)]);
            world.audit_holds().await;
        }
    }
}

#[tokio::test]
async fn an_edited_amount_is_told_until_it_is_set_back() {
    let world = world().await;
    let id = world.send_payout().await;
    let bill = only_bill(&world)["Id"].as_str().unwrap().to_owned();
    world.there(|company, now| company.edit_bill(&bill, Decimal::from(25), now)).await;
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    let told = world.exceptions().await;
    assert_eq!((told.len(), &told[0]["code"]), (1, &json!("bill_differs")), "{told:?}");
    let detail = told[0]["detail"].as_str().unwrap();
    assert!(detail.contains("20.00 USD") && detail.contains("25"), "{detail}");
    world.there(|company, now| company.edit_bill(&bill, Decimal::from(20), now)).await;
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    // Each time anew: what was settled in between is news again.
    for _ in 0..2 {
        world.there(|company, now| company.edit_bill(&bill, Decimal::from(25), now)).await;
        let again = world.exceptions().await;
        assert_eq!((again.len(), &again[0]["detail"]), (1, &json!(detail)), "{again:?}");
        world.there(|company, now| company.edit_bill(&bill, Decimal::from(20), now)).await;
        assert_eq!(world.exceptions().await, [] as [Value; 0]);
    }
    world.pay_bill(&id, None).await;
    assert_eq!(world.state_of_payout(&id).await, "paid");
    world.audit_holds().await;
}

#[tokio::test]
async fn what_credits_settle_is_not_paid_and_told() {
    for kind in ["VendorCredit", "JournalEntry"] {
        for (cash, credit, state, open) in [
            (5, 15, "partially_paid", "nothing is open"),
            (0, 20, "submitted", "nothing is open"),
            (5, 5, "partially_paid", "10 is open"),
        ] {
            let name = format!("{kind}: {cash} and {credit}");
            let world = world().await;
            let id = world.send_payout().await;
            let bill = only_bill(&world);
            let (bill, vendor) = (bill["Id"].as_str().unwrap(), bill["VendorRef"]["value"].as_str().unwrap());
            let payment = world
                .there(|company, now| {
                    let owed = company.owe(kind, vendor, credit.into(), now);
                    company.settle(bill, cash.into(), (kind, &owed, credit.into()), now).unwrap()
                })
                .await;
            let payout = world.payout(&id).await;
            assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!(state), &json!(cash * 100)), "{name}");
            let told = world.exceptions().await;
            assert_eq!((told.len(), &told[0]["code"]), (1, &json!("bill_differs")), "{name}: {told:?}");
            let detail = told[0]["detail"].as_str().unwrap();
            assert!(detail.contains(open) && detail.contains("the rest by credits"), "{name}: {detail}");
            world.there(|company, now| company.void_payment(&payment, now)).await;
            assert_eq!(world.exceptions().await, [] as [Value; 0], "{name}");
            world.pay_bill(&id, None).await;
            assert_eq!(world.state_of_payout(&id).await, "paid", "{name}");
            world.audit_holds().await;
        }
    }
}

#[tokio::test]
async fn a_merged_vendor_is_the_partners_from_then_on() {
    let world = world().await;
    let id = world.send_payout().await;
    let into = world
        .there(|company, now| company.write("vendor", &json!({"DisplayName": "Anna Inc."}), None, None, now).unwrap())
        .await;
    let into = into["Vendor"]["Id"].as_str().unwrap().to_owned();
    let from = only_bill(&world)["VendorRef"]["value"].as_str().unwrap().to_owned();
    world.there(|company, now| company.merge_vendors(&from, &into, now)).await;
    world.pay_bill(&id, None).await;
    assert_eq!(world.payout(&id).await["quickbooks"]["vendorId"], into.as_str());
    assert_eq!(world.state_of_payout(&id).await, "paid");
    world.sale("o3", "100.00").await;
    let next = world.send_payout().await;
    assert_eq!(world.payout(&next).await["quickbooks"]["vendorId"], into.as_str());
    assert_eq!((all(&world, "Vendor").len(), world.exceptions().await.len()), (1, 0));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_merge_that_did_not_happen_changes_nothing() {
    let world = world().await;
    let id = world.send_payout().await;
    let vendor = only_bill(&world)["VendorRef"]["value"].as_str().unwrap().to_owned();
    let untrue =
        |at| Happened { entity: "Vendor", id: "999".into(), operation: "Merge", at, merged: Some(vendor.clone()) };
    world.there(|company, now| company.happened.push(untrue(now))).await;
    world.sale("o3", "100.00").await;
    let next = world.send_payout().await;
    assert_eq!(world.payout(&next).await["quickbooks"]["vendorId"], vendor.as_str());
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_made_unique_and_an_inactive_vendor_is_told() {
    let world = world().await;
    world
        .there(|company, now| {
            company.write("customer", &json!({"DisplayName": "Anna"}), None, None, now).unwrap();
        })
        .await;
    world.send_payout().await;
    let vendor = all(&world, "Vendor").remove(0);
    assert_eq!(vendor["DisplayName"], "Anna (ANNA10)");
    let vendor = vendor["Id"].as_str().unwrap().to_owned();
    world.there(|company, now| company.deactivate(&vendor, now)).await;
    world.sale("o3", "100.00").await;
    let next = world.send_payout().await;
    assert_eq!(world.state_of_payout(&next).await, "failed");
    let told = world.exceptions().await;
    assert!(told[0]["detail"].as_str().unwrap().contains("inactive in QuickBooks"), "{told:?}");
    assert_eq!(all(&world, "Bill").len(), 1);
    world.audit_holds().await;
}

/// QuickBooks puts "(deleted)" behind the name of who is made inactive.
#[tokio::test]
async fn an_inactive_vendor_of_the_partners_name_is_told_and_not_gone_round() {
    let world = world().await;
    let vendor = world
        .there(|company, now| {
            let made = company.write("vendor", &json!({"DisplayName": "Anna"}), None, None, now).unwrap();
            let id = made["Vendor"]["Id"].as_str().unwrap().to_owned();
            assert!(company.deactivate(&id, now));
            id
        })
        .await;
    let id = world.send_payout().await;
    assert_eq!(world.state_of_payout(&id).await, "failed");
    let told = world.exceptions().await;
    assert!(told[0]["detail"].as_str().unwrap().contains("inactive in QuickBooks: make it active there"), "{told:?}");
    let mut vendors = all(&world, "Vendor");
    assert_eq!((vendors.len(), &vendors[0]["DisplayName"]), (1, &json!("Anna (deleted)")), "{vendors:?}");
    let mut again = vendors.remove(0);
    again["Active"] = json!(true);
    again["DisplayName"] = json!("Anna");
    world.there(|company, now| company.write("vendor", &again, None, None, now).unwrap()).await;
    assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "active again"})).await, 200);
    world.settle().await;
    assert_eq!(world.payout(&id).await["quickbooks"]["vendorId"], vendor.as_str());
    assert_eq!((all(&world, "Vendor").len(), world.exceptions().await.len()), (1, 0));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_vendor_whose_making_comes_twice_is_one_vendor() {
    let world = world().await;
    world.system.quickbooks.watch(vec![Strike { step: "create Vendor".to_owned(), nth: 0, blow: Blow::Twice }]);
    let id = world.send_payout().await;
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    let vendors = all(&world, "Vendor");
    assert_eq!((vendors.len(), &vendors[0]["DisplayName"]), (1, &json!("Anna")), "{vendors:?}");
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

/// Storms on the way to QuickBooks: in the end exactly one Bill, and it is paid. Fault by fault and step by step: `quickbooks_matrix.rs`.
#[tokio::test]
async fn whatever_the_network_does_exactly_one_bill_is_made() {
    for seed in 0..2 {
        for (name, storm) in storms(seed) {
            let world = world().await;
            let id = world.send_payout_through(storm, |storm| world.system.quickbooks.fail(faults(storm))).await;
            assert_eq!(world.state_of_payout(&id).await, "submitted", "{name}, seed {seed}");
            assert_eq!(only_bill(&world)["TotalAmt"], json!(20), "{name}, seed {seed}");
            assert_eq!(all(&world, "Vendor").len(), 1, "{name}, seed {seed}");
            world.pay_bill(&id, None).await;
            assert_eq!(world.state_of_payout(&id).await, "paid", "{name}, seed {seed}");
            assert_eq!(world.exceptions().await, [] as [Value; 0], "{name}, seed {seed}");
            world.audit_holds().await;
        }
    }
}

fn faults(storm: Storm) -> Faults {
    Faults {
        seed: storm.seed,
        lost_before_apply: storm.lost_before,
        lost_after_apply: storm.lost_after,
        // Half of them come after the effect.
        server_error: storm.server_error.max(storm.server_error_after),
        throttle: storm.throttle,
        expire_token: storm.expire_token,
        ..Faults::default()
    }
}

#[tokio::test]
async fn closed_books_move_a_bill_to_the_day_it_was_approved_and_then_to_the_exceptions() {
    let world = with(Plan::new().at("2026-02-03T00:00:00Z")).await;
    world.company(REALM, |company, _| company.books_closed = Some("2026-02-02".parse().unwrap()));
    let id = world.send_payout().await;
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    assert_eq!(only_bill(&world)["TxnDate"], "2026-02-03");
    world.sale("o3", "100.00").await;
    world.company(REALM, |company, _| company.books_closed = Some("2026-12-31".parse().unwrap()));
    let next = world.send_payout().await;
    assert_eq!(world.state_of_payout(&next).await, "failed");
    let told = world.exceptions().await;
    let detail = told[0]["detail"].as_str().unwrap();
    assert!(detail.contains("6210") && detail.contains("open the period"), "{detail}");
    world.company(REALM, |company, _| company.books_closed = None);
    assert_eq!(world.payout_call(FINANCE, "retry", &next, &json!({"reason": "opened"})).await, 200);
    world.settle().await;
    assert_eq!(world.state_of_payout(&next).await, "submitted");
    assert_eq!((all(&world, "Bill").len(), world.exceptions().await.len()), (2, 0));
    world.audit_holds().await;
}

/// Whatever else had it written anew: which day stands on it, decides whether another is tried.
#[tokio::test]
async fn closed_books_move_a_bill_that_was_written_anew_for_another_vendor_too() {
    let world = with(Plan::new().at("2026-02-03T00:00:00Z")).await;
    world.send_payout().await;
    let vendor = only_bill(&world)["VendorRef"]["value"].as_str().unwrap().to_owned();
    world.company(REALM, |company, now| {
        let into = company.write("vendor", &json!({"DisplayName": "Anna Inc."}), None, None, now).unwrap();
        company.merge_vendors(&vendor, into["Vendor"]["Id"].as_str().unwrap(), now);
        company.happened.clear();
        company.books_closed = Some("2026-02-02".parse().unwrap());
    });
    world.sale("o3", "100.00").await;
    world.system.quickbooks.watch(Vec::new());
    let next = world.send_payout().await;
    let makes = world.system.quickbooks.seen().into_iter().filter(|seen| seen.step == "create Bill");
    let refused: Vec<_> = makes.map(|seen| seen.answered["Fault"]["Error"][0]["code"].clone()).collect();
    assert_eq!(refused, [json!("2500"), json!("6210"), Value::Null]);
    assert_eq!(world.state_of_payout(&next).await, "submitted");
    assert_eq!(world.bill_of(REALM, &next)["TxnDate"], "2026-02-03");
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_refusal_told_by_a_server_that_failed_is_no_refusal() {
    let world = world().await;
    let failed = Strike { step: "create Bill".to_owned(), nth: 0, blow: Blow::Refused("503") };
    world.system.quickbooks.watch(vec![failed]);
    let id = world.send_payout().await;
    assert_eq!(world.state_of_payout(&id).await, "submitting");
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), all(&world, "Bill").len()), ("submitted", 1));
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_is_typed_in_by_hand_under_our_number_is_not_billed_again() {
    let world = world().await;
    let id = world.request_payout().await["id"].clone();
    let number = world.payout(&id).await["number"].clone();
    world
        .there(|company, now| {
            let vendor = company.write("vendor", &json!({"DisplayName": "Somebody"}), None, None, now).unwrap();
            let bill = json!({
                "VendorRef": {"value": vendor["Vendor"]["Id"]}, "DocNumber": number,
                "Line": [{"Amount": 20, "DetailType": "AccountBasedExpenseLineDetail",
                          "AccountBasedExpenseLineDetail": {"AccountRef": {"value": "7"}}}],
            });
            company.write("bill", &bill, None, None, now).unwrap();
        })
        .await;
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    world.settle().await;
    assert_eq!(world.state_of_payout(&id).await, "failed");
    assert_eq!(all(&world, "Bill").len(), 1);
    let told = world.exceptions().await;
    assert!(told[0]["detail"].as_str().unwrap().contains("is not this payout's"), "{told:?}");
    world.audit_holds().await;
}

#[tokio::test]
async fn without_a_connection_payouts_wait_as_approved_and_go_on_when_it_is_there_again() {
    let world = world().await;
    let path = format!("/quickbooks/connections/{REALM}");
    let ended = world.post(FINANCE, &format!("{path}/disconnect"), &json!({})).await.ok();
    assert_eq!(ended["state"], "disconnected");
    let id = world.send_payout().await;
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), all(&world, "Bill").len()), ("approved", 0));
    world.connect_company(REALM).await;
    world.wait().await;
    assert_eq!(world.state_of_payout(&id).await, "submitted");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_consent_that_ended_is_told_and_mended_by_connecting_again() {
    let world = world().await;
    world.system.quickbooks.revoke_all();
    let id = world.send_payout().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), all(&world, "Bill").len()), ("approved", 0));
    let told = world.exceptions().await;
    assert_eq!((told.len(), &told[0]["code"]), (1, &json!("quickbooks_disconnected")), "{told:?}");
    assert_eq!(world.events("quickbooks.reauthorization_required").len(), 1);
    let path = format!("/quickbooks/connections/{REALM}");
    assert_eq!(world.get(ADMIN, &path).await.ok()["state"], "reauthorization_required");
    assert_eq!(world.connect_company(REALM).await["state"], "connected");
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), all(&world, "Bill").len()), ("submitted", 1));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_night_finds_what_webhooks_missed_and_bills_that_nobody_knows() {
    let world = world().await;
    let id = world.send_payout().await;
    let bill = only_bill(&world);
    let number = bill["Id"].as_str().unwrap().to_owned();
    // The webhooks of these are never delivered.
    world.company(REALM, |company, now| {
        company.pay(&number, Some(5.into()), now).unwrap();
        let mut copy = bill.clone();
        copy["DocNumber"] = json!("typed in");
        copy.as_object_mut().unwrap().remove("Id");
        company.write("bill", &copy, None, None, now).unwrap();
        company.happened.clear();
    });
    world.pass("1h");
    let compared = world.fire("reconcile").await;
    assert_eq!((&compared["compared"], &compared["orphans"]), (&json!(1), &json!(1)), "{compared}");
    assert_eq!(world.state_of_payout(&id).await, "partially_paid");
    assert_eq!(world.exception_codes().await, ["bill_orphaned"]);
    world.pass("1h");
    let path = format!("/quickbooks/connections/{REALM}/reconciliations");
    let report = world.post(FINANCE, &path, &json!({})).await.ok();
    assert_eq!((&report["compared"], &report["finished"]), (&json!(1), &json!(true)), "{report}");
    assert_eq!(report["days"][0]["ours"], report["days"][0]["theirs"]);
    assert_eq!(world.all(ADMIN, &path).await.len(), 2);
    assert_eq!(world.exception_codes().await, ["bill_orphaned"], "told once");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_bill_under_another_number_that_names_a_payout_on_its_way_is_told() {
    let world = world().await;
    let lost = Strike { step: "create Bill".to_owned(), nth: 0, blow: Blow::PageBefore };
    world.system.quickbooks.watch(vec![lost]);
    let id = world.send_payout().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), all(&world, "Bill").len()), ("submitting", 0));
    let memo = format!("by hand [{}]", id.as_str().unwrap());
    let bill = typed_in_as(&world, &json!("typed in"), &memo).await;
    let compared = world.fire("reconcile").await;
    assert_eq!(compared["orphans"], 1, "{compared}");
    let told = world.exceptions().await;
    assert_eq!((told.len(), &told[0]["code"]), (1, &json!("bill_orphaned")), "{told:?}");
    assert!(told[0]["detail"].as_str().unwrap().contains(&format!("Bill {bill} ")), "{told:?}");
    world.there(|company, now| company.delete_bill(&bill, now)).await;
    world.wait().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), all(&world, "Bill").len()), ("submitted", 1));
    world.audit_holds().await;
}

#[tokio::test]
async fn an_event_that_cannot_be_read_does_not_keep_back_the_others_of_its_delivery() {
    let world = world().await;
    let id = world.send_payout().await;
    let bill = world.bill_id(&id);
    world.company(REALM, |company, now| company.pay(&bill, None, now)).unwrap();
    let verifier = world.system.quickbooks.settings().verifier;
    let [webhook] = <[_; 1]>::try_from(world.system.quickbooks.webhooks(10)).unwrap();
    let mut events: Vec<Value> = serde_json::from_str(&webhook.body).unwrap();
    events.insert(0, json!({"type": "of another kind", "intuitentityid": "1", "intuitaccountid": REALM}));
    events.insert(1, json!({"type": "qbo.bill.updated.v1", "intuitaccountid": REALM}));
    let body = json!(events).to_string();
    for _ in 0..2 {
        let to = Request::new(Method::POST, "/webhooks/quickbooks");
        let to = to.header("intuit-signature", &intuits(&verifier, &body));
        assert_eq!(world.send(to.body(body.clone())).await.status, 200);
        world.settle().await;
    }
    assert_eq!(world.state_of_payout(&id).await, "paid");
    let told = world.exceptions().await;
    assert_eq!((told.len(), &told[0]["code"]), (1, &json!("unreadable")), "{told:?}");
    let detail = told[0]["detail"].as_str().unwrap();
    assert!(detail.contains("of another kind") && detail.contains("1 more"), "{detail}");
    world.audit_holds().await;
}

/// Everybody is told twice, the last first.
#[tokio::test]
async fn webhooks_that_come_twice_and_out_of_order_change_nothing() {
    let world = world().await;
    let id = world.send_payout().await;
    let bill = world.bill_id(&id);
    world.company(REALM, |company, now| {
        let first = company.pay(&bill, Some(5.into()), now).unwrap();
        company.pay(&bill, None, now).unwrap();
        company.void_payment(&first, now);
    });
    let mut webhooks = world.system.quickbooks.webhooks(1);
    assert!(webhooks.len() > 3, "{webhooks:?}");
    webhooks.reverse();
    for _ in 0..2 {
        for webhook in &webhooks {
            let to = Request::new(Method::POST, "/webhooks/quickbooks").header("intuit-signature", &webhook.signature);
            assert_eq!(world.send(to.body(webhook.body.clone())).await.status, 200);
            world.settle().await;
        }
    }
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("partially_paid"), &json!(1_500)));
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

/// Ids count up in each company for itself, so both Bills have the same.
#[tokio::test]
async fn two_companies_are_kept_apart_even_in_one_webhook() {
    const OTHER: &str = "9130000000000002";
    let one = world().await;
    one.system.quickbooks.open_company(OTHER, "USD");
    assert_eq!(one.connect_company(OTHER).await["realmId"], OTHER);
    let program = json!({"name": "Other", "approval": "automatic", "holdDays": 0, "minimumPayout": "0", "largePayoutLimit": "1000000"});
    let program = one.post(ADMIN, "/programs", &program).await.id();
    let mut other = World { system: Arc::clone(&one.system), program, partner: String::new() };
    other.publish(&[percent("30")]).await;
    let ben = json!({"name": "Ben", "email": "ben@partners.example", "code": "BEN", "payoutMethods": in_quickbooks()});
    other.partner = other.add_partner(&ben).await;
    let settings = json!({"realmId": OTHER, "expenseAccount": EXPENSE_ACCOUNT, "memo": "Other: {number}"});
    let path = format!("/programs/{}/quickbooks", other.program);
    let chosen = Request::new(Method::PUT, &path).header("content-type", "application/json").body(settings.to_string());
    other.send(other.by(FINANCE, chosen).await).await.ok();
    other.sale("o3", "100.00").await;
    let (first, second) = (one.send_payout().await, other.send_payout().await);
    assert_eq!((one.entities(REALM, "Bill").len(), one.entities(OTHER, "Bill").len()), (1, 1));
    let (bill, same) = (one.bill_of(REALM, &first), one.bill_of(OTHER, &second));
    assert_eq!((&bill["Id"], &bill["TotalAmt"], &same["TotalAmt"]), (&same["Id"], &json!(20), &json!(30)));
    assert!(same["PrivateNote"].as_str().unwrap().starts_with("Other: "), "{same}");
    let id = bill["Id"].as_str().unwrap();
    one.company(REALM, |company, now| company.pay(id, None, now)).unwrap();
    one.company(OTHER, |company, now| company.pay(id, Some(10.into()), now)).unwrap();
    one.settle().await;
    assert_eq!(one.state_of_payout(&first).await, "paid");
    let payout = other.payout(&second).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("partially_paid"), &json!(1_000)));
    one.company(OTHER, |company, now| company.delete_bill(id, now));
    one.settle().await;
    assert_eq!(
        (one.state_of_payout(&first).await.as_str(), one.state_of_payout(&second).await.as_str()),
        ("paid", "void")
    );
    assert_eq!(one.exceptions().await, [] as [Value; 0]);
    one.audit_holds().await;
}

#[tokio::test]
async fn who_is_paid_in_another_currency_is_a_vendor_of_it_and_billed_in_it() {
    let world = Plan::new().paid_in_quickbooks().partner("payoutCurrency", "EUR").start().await;
    let rates = "date,from,to,rate,source\n2025-12-31,EUR,USD,1.25,ECB\n";
    let rates = Request::new(Method::POST, "/exchange-rates/import").header("content-type", "text/csv").body(rates);
    world.send(world.by(FINANCE, rates).await).await.ok();
    world.sale("o1", "100.00").await;
    let id = world.send_payout().await;
    assert_eq!(world.state_of_payout(&id).await, "failed");
    let told = world.exceptions().await;
    assert!(told[0]["detail"].as_str().unwrap().contains("switch on multicurrency there"), "{told:?}");
    world.company(REALM, |company, _| company.multi_currency = true);
    assert_eq!(world.connect_company(REALM).await["multiCurrency"], true);
    assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "switched on"})).await, 200);
    world.settle().await;
    let bill = world.bill_of(REALM, &id);
    assert_eq!((&bill["TotalAmt"], &bill["CurrencyRef"]["value"]), (&json!(8), &json!("EUR")));
    assert_eq!(bill["ExchangeRate"], json!(1.25), "QuickBooks would take one for one");
    let vendor = &all(&world, "Vendor")[0];
    assert_eq!((&vendor["DisplayName"], &vendor["CurrencyRef"]["value"]), (&json!("Anna EUR"), &json!("EUR")));
    world.pay_bill(&id, None).await;
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["currency"]), (&json!("paid"), &json!("EUR")));
    assert_eq!(payout["paid"]["minor"], 800);
    // Who is paid in the company's own currency is billed in it, and says so.
    let ben = json!({"name": "Ben", "email": "ben@partners.example", "code": "BEN", "payoutMethods": in_quickbooks()});
    let ben = World { partner: world.add_partner(&ben).await, ..world.clone() };
    ben.sale("o2", "100.00").await;
    let own = ben.send_payout().await;
    let bill = world.bill_of(REALM, &own);
    assert_eq!((&bill["CurrencyRef"]["value"], &bill["ExchangeRate"]), (&json!("USD"), &Value::Null));
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn tax_that_is_kept_back_is_a_negative_line_and_what_is_open_is_the_rest() {
    let plan = Plan::new().at("2026-06-01T12:00:00Z").program("taxPayer", "US").program("timeZone", "America/New_York");
    let plan = plan.program("withoutTaxNumber", "withhold").rules([percent("100")]);
    let world = plan.paid_in_quickbooks().start().await;
    world.sale("o1", "2000.00").await;
    let id = world.send_payout().await;
    let bill = world.bill_of(REALM, &id);
    assert_eq!((&bill["TotalAmt"], &bill["Balance"]), (&json!(1_520), &json!(1_520)));
    let lines = bill["Line"].as_array().unwrap().iter();
    let lines: Vec<_> = lines
        .map(|line| (&line["Amount"], line["AccountBasedExpenseLineDetail"]["AccountRef"]["value"].as_str().unwrap()))
        .collect();
    assert!(bill["Line"][0]["Description"].as_str().unwrap().ends_with(": 1 commission"), "{bill}");
    assert_eq!(lines, [(&json!(2_000), EXPENSE_ACCOUNT), (&json!(-480), WITHHOLDING_ACCOUNT)]);
    world.pay_bill(&id, Some(1_000)).await;
    assert_eq!(world.state_of_payout(&id).await, "partially_paid");
    world.pay_bill(&id, None).await;
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("paid"), &json!(152_000)));
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_company_is_disconnected_whatever_intuit_answers() {
    for (blow, said) in [
        (None, None),
        (Some(Blow::Unauthorized { lower_case: true }), Some("invalid_client")),
        (Some(Blow::Unreachable), Some("nobody listens")),
        (Some(Blow::LostAfter), Some("the connection broke")),
        (Some(Blow::PageBefore), Some("502")),
        (Some(Blow::Throttled), Some("it asks to wait")),
    ] {
        let world = world().await;
        let strikes = blow.into_iter().map(|blow| Strike { step: "revoke".to_owned(), nth: 0, blow });
        world.system.quickbooks.watch(strikes.collect());
        let path = format!("/quickbooks/connections/{REALM}");
        let ended = world.post(FINANCE, &format!("{path}/disconnect"), &json!({})).await.ok();
        let why = ended["why"].as_str().unwrap();
        assert_eq!((&ended["state"], world.system.quickbooks.pending().len()), (&json!("disconnected"), 0));
        if let Some(said) = said {
            assert!(why.contains("nothing was revoked at Intuit") && why.contains(said), "{why}");
            assert!(why.contains("takes the app's access away there"), "{why}");
        } else {
            assert!(why.ends_with(" ended it"), "{why}");
        }
        assert_eq!(world.get(ADMIN, &path).await.ok()["why"], why);
        // Nothing calls there any more, and saying so again changes nothing.
        world.system.quickbooks.watch(Vec::new());
        let again = world.post(FINANCE, &format!("{path}/disconnect"), &json!({})).await.ok();
        assert_eq!(again, ended);
        world.get(FINANCE, &format!("{path}/choices")).await.refused(409);
        let id = world.send_payout().await;
        world.wait().await;
        assert_eq!(world.state_of_payout(&id).await, "approved");
        assert_eq!(world.system.quickbooks.seen(), []);
        assert_eq!(world.exceptions().await, [] as [Value; 0]);
        world.connect_company(REALM).await;
        world.wait().await;
        assert_eq!(world.state_of_payout(&id).await, "submitted");
    }
}

/// A payout that Intuit refused, since the books were closed; they are open again.
async fn failed() -> (World, Value) {
    let world = world().await;
    world.company(REALM, |company, _| company.books_closed = Some("2026-12-31".parse().unwrap()));
    let id = world.send_payout().await;
    world.company(REALM, |company, _| company.books_closed = None);
    assert_eq!(world.state_of_payout(&id).await, "failed");
    (world, id)
}

/// Somebody types in a Bill under the payout's number. Its id.
async fn typed_in(world: &World, payout: &Value, memo: &str) -> String {
    let number = world.payout(payout).await["number"].clone();
    typed_in_as(world, &number, memo).await
}

async fn typed_in_as(world: &World, number: &Value, memo: &str) -> String {
    let vendor = all(world, "Vendor")[0]["Id"].clone();
    let bill = json!({
        "VendorRef": {"value": vendor}, "DocNumber": number, "PrivateNote": memo,
        "Line": [{"Amount": 20, "DetailType": "AccountBasedExpenseLineDetail",
                  "AccountBasedExpenseLineDetail": {"AccountRef": {"value": EXPENSE_ACCOUNT}}}],
    });
    let made = world.there(|company, now| company.write("bill", &bill, None, None, now).unwrap()).await;
    made["Bill"]["Id"].as_str().unwrap().to_owned()
}

/// A program's accounts are of another company from now on.
async fn choose(world: &World, realm: &str) {
    let path = format!("/programs/{}/quickbooks", world.program);
    let settings = json!({"realmId": realm, "expenseAccount": EXPENSE_ACCOUNT});
    let chosen = Request::new(Method::PUT, &path).header("content-type", "application/json").body(settings.to_string());
    world.send(world.by(FINANCE, chosen).await).await.ok();
}

#[tokio::test]
async fn a_payout_that_was_begun_in_one_company_is_not_written_there_with_the_accounts_of_another() {
    const OTHER: &str = "9130000000000002";
    for voided in [false, true] {
        let (world, id) = failed().await;
        world.system.quickbooks.open_company(OTHER, "USD");
        world.connect_company(OTHER).await;
        choose(&world, OTHER).await;
        assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "opened"})).await, 200);
        world.settle().await;
        assert_eq!(world.state_of_payout(&id).await, "failed");
        let told = world.exceptions().await;
        assert_eq!((told.len(), &told[0]["code"]), (1, &json!("payout_failed")), "{told:?}");
        let detail = told[0]["detail"].as_str().unwrap();
        assert!(detail.contains(REALM) && detail.contains(OTHER) && detail.contains("or void it"), "{detail}");
        assert_eq!((all(&world, "Bill").len(), world.entities(OTHER, "Bill").len()), (0, 0));
        if voided {
            assert_eq!(void(&world, &id).await.0, 200);
            let next = world.send_payout().await;
            assert_eq!(world.state_of_payout(&next).await, "submitted");
            assert_eq!((all(&world, "Bill").len(), world.entities(OTHER, "Bill").len()), (0, 1));
        } else {
            choose(&world, REALM).await;
            assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "chosen again"})).await, 200);
            world.settle().await;
            assert_eq!(world.state_of_payout(&id).await, "submitted");
            assert_eq!((all(&world, "Bill").len(), world.entities(OTHER, "Bill").len()), (1, 0));
        }
        assert_eq!(world.exceptions().await, [] as [Value; 0]);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn who_comes_back_for_another_company_than_they_chose_breaks_no_connection() {
    const OTHER: &str = "9130000000000002";
    let world = world().await;
    world.system.quickbooks.open_company(OTHER, "USD");
    let callback = world.way_back(OTHER, REALM).await;
    let refused = world.send(Request::get(&callback)).await.refused(409);
    assert!(refused.text.contains("begin again, and choose the company"), "{}", refused.text);
    let id = world.send_payout().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), all(&world, "Bill").len()), ("submitted", 1));
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
}

/// What became of asking for its end: 200, or the status of a problem and what it says.
async fn void(world: &World, payout: &Value) -> (u64, String) {
    let asked = json!({"payouts": [{"id": payout, "reason": "will not be paid"}]});
    let reply = world.post(FINANCE, "/payouts/void", &asked).await.ok();
    let problem = &reply["results"][0]["problem"];
    world.settle().await;
    (problem["status"].as_u64().unwrap_or(200), problem["detail"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_failed_payout_becomes_void_only_where_its_bill_is_absent_or_zero() {
    let is_void = async |world: &World, id: &Value| {
        assert_eq!(void(world, id).await.0, 200);
        let state = world.state_of_payout(id).await;
        assert_eq!((state.as_str(), world.buckets().await), ("void", vec![("payable", 2_000)]));
        assert_eq!(world.exceptions().await, [] as [Value; 0]);
        world.audit_holds().await;
    };
    let is_refused = async |world: &World, id: &Value, status: u64, what_to_do: &str| {
        let (refused, detail) = void(world, id).await;
        assert!(refused == status && detail.contains(what_to_do), "{refused} {detail}");
        assert_eq!(world.state_of_payout(id).await, "failed");
        assert_eq!(world.buckets().await, [("inPayout", 2_000)]);
    };
    let (world, id) = failed().await;
    is_void(&world, &id).await;
    let marked = |id: &Value| format!("by hand [{}]", id.as_str().unwrap());
    for deleted in [true, false] {
        let (world, id) = failed().await;
        let bill = typed_in(&world, &id, &marked(&id)).await;
        is_refused(&world, &id, 409, "retry takes it over; or delete it there, and void it again").await;
        if deleted {
            world.there(|company, now| company.delete_bill(&bill, now)).await;
        } else {
            world.there(|company, now| company.edit_bill(&bill, Decimal::ZERO, now)).await;
        }
        is_void(&world, &id).await;
    }
    let (world, id) = failed().await;
    let bill = typed_in(&world, &id, &marked(&id)).await;
    is_refused(&world, &id, 409, "retry takes it over").await;
    assert_eq!(world.payout_call(FINANCE, "retry", &id, &json!({"reason": "it is there"})).await, 200);
    world.settle().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), world.bill_id(&id)), ("submitted", bill));
    assert_eq!(void(&world, &id).await.0, 409, "what becomes of a Bill, QuickBooks tells");
    let (world, id) = failed().await;
    let bill = typed_in(&world, &id, "no marker").await;
    is_refused(&world, &id, 409, "delete it there or give it another number, and void it again").await;
    world.there(|company, now| company.delete_bill(&bill, now)).await;
    let lost = Strike { step: "query Bill by DocNumber".to_owned(), nth: 0, blow: Blow::PageBefore };
    world.system.quickbooks.watch(vec![lost]);
    is_refused(&world, &id, 503, "try again in a moment").await;
    let path = format!("/quickbooks/connections/{REALM}/disconnect");
    world.post(FINANCE, &path, &json!({})).await.ok();
    is_refused(&world, &id, 409, "is not connected: connect it, and void it again").await;
    world.connect_company(REALM).await;
    is_void(&world, &id).await;
}

/// Two workers at once, each with a token that has just ended: one renews, and the connection stands.
#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_renew_at_once_keep_the_connection() {
    let world = world().await;
    for round in 0..3 {
        world.system.quickbooks.expire_all();
        let requests = {
            let path = format!("/quickbooks/connections/{REALM}/choices");
            let request = world.by(FINANCE, Request::get(&path)).await;
            vec![request.clone(), request.clone(), request]
        };
        for reply in world.together(requests).await {
            assert_eq!(reply.status, 200, "round {round}: {}", reply.text);
        }
    }
    let id = world.send_payout().await;
    assert_eq!((world.state_of_payout(&id).await.as_str(), world.exceptions().await.len()), ("submitted", 0));
}

/// Every body that is sent and every one that QuickBooks' counterpart returns, written to the folder that `QUICKBOOKS_BODIES` names: for
/// holding them against Intuit's schema, which is not part of this project.
#[tokio::test]
async fn bodies_are_those_of_the_entities() {
    let plan = Plan::new().at("2026-06-01T12:00:00Z").program("taxPayer", "US").program("withoutTaxNumber", "withhold");
    let world = plan.rules([percent("100")]).paid_in_quickbooks().start().await;
    world.company(REALM, |company, _| company.multi_currency = true);
    world.system.quickbooks.watch(Vec::new());
    world.connect_company(REALM).await;
    world.get(FINANCE, &format!("/quickbooks/connections/{REALM}/choices")).await.ok();
    world.sale("o1", "2000.00").await;
    let id = world.send_payout().await;
    world.pay_bill(&id, Some(5)).await;
    let payment = world.pay_bill(&id, None).await;
    world.there(|company, now| company.void_payment(&payment, now)).await;
    world.pass("1h");
    world.fire("reconcile").await;
    let mut bodies = Vec::new();
    for (n, exchange) in world.system.quickbooks.seen().into_iter().enumerate() {
        let name = |side: &str| format!("{n:02} {}, {side}.json", exchange.step);
        if let Some(entity) = exchange.step.strip_prefix("create ") {
            bodies.push((name("sent"), json!({entity: exchange.sent})));
        }
        if !exchange.answered["time"].is_null() {
            bodies.push((name("returned"), exchange.answered.clone()));
        }
    }
    let seen: BTreeSet<_> = world.system.quickbooks.seen().into_iter().map(|exchange| exchange.step).collect();
    for step in [
        "create Vendor",
        "create Bill",
        "read Bill",
        "read BillPayment",
        "query Preferences",
        "query CompanyInfo",
        "query Account",
        "cdc",
    ] {
        assert!(seen.contains(step), "{step} is missing: {seen:?}");
    }
    let Ok(folder) = std::env::var("QUICKBOOKS_BODIES") else { return };
    for (name, body) in bodies {
        std::fs::write(std::path::Path::new(&folder).join(name), body.to_string()).unwrap();
    }
}
