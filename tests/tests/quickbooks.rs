//! Payouts as Bills in QuickBooks, against its counterpart: one Bill each, whatever the network does, and paid when it is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use quickbooks_counterpart::Faults;
use quickbooks_counterpart::company::Company;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tests::{ADMIN, APPROVER, FINANCE, Plan, World};

const REALM: &str = "9130000000000001";

fn method() -> Value {
    json!([{"kind": "quickbooks", "preferred": true}])
}

/// A program whose partner is paid in QuickBooks, with two sales of 100.00.
async fn world() -> World {
    with(Plan::new()).await
}

async fn with(plan: Plan) -> World {
    let world = plan.partner("payoutMethods", method()).start().await;
    for order in ["o1", "o2"] {
        world.sale(order, "100.00").await;
    }
    world.settle().await;
    world
}

/// The payout of everything payable, approved, and everything delivered that then is to be.
async fn approve(world: &World) -> Value {
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    world.settle().await;
    id
}

async fn state(world: &World, id: &Value) -> String {
    world.payout(id).await["state"].as_str().unwrap().to_owned()
}

/// What somebody does in QuickBooks, told by its webhooks.
async fn there<T>(world: &World, act: impl FnOnce(&mut Company, jiff::Timestamp) -> T) -> T {
    let done = world.system.quickbooks.company(REALM, act).unwrap();
    world.settle().await;
    done
}

fn all(world: &World, entity: &str) -> Vec<Value> {
    world.system.quickbooks.company(REALM, |company, _| company.all(entity).cloned().collect()).unwrap()
}

fn only_bill(world: &World) -> Value {
    let mut bills = all(world, "Bill");
    assert_eq!(bills.len(), 1, "{bills:?}");
    bills.remove(0)
}

async fn pay(world: &World, part: Option<i64>) -> String {
    let bill = only_bill(world)["Id"].as_str().unwrap().to_owned();
    there(world, |company, now| company.pay(&bill, part.map(Decimal::from), now)).await.unwrap()
}

/// Failed messages come again after the visibility time-out, and what was set aside by the next tick.
async fn wait(world: &World) {
    for _ in 0..12 {
        world.pass("1h");
        world.fire("batch-payouts").await;
        world.settle().await;
    }
}

#[tokio::test]
async fn an_approved_payout_is_a_bill_and_paid_when_the_bill_is() {
    let world = world().await;
    let id = approve(&world).await;
    let payout = world.payout(&id).await;
    let bill = only_bill(&world);
    assert_eq!(payout["state"], "submitted", "{payout}");
    assert_eq!(payout["quickbooks"], json!({"billId": bill["Id"], "vendorId": bill["VendorRef"]["value"]}));
    assert_eq!(bill["DocNumber"], payout["number"]);
    assert_eq!((&bill["TotalAmt"], &bill["Balance"]), (&json!(20), &json!(20)));
    assert!(bill["PrivateNote"].as_str().unwrap().contains(id.as_str().unwrap()), "{bill}");
    let vendors = all(&world, "Vendor");
    assert_eq!((vendors.len(), &vendors[0]["DisplayName"]), (1, &json!("Anna")));
    let first = pay(&world, Some(5)).await;
    assert_eq!(state(&world, &id).await, "partially_paid");
    pay(&world, None).await;
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("paid"), &json!(2_000)));
    assert_eq!(world.buckets().await, [("paid", 2_000)]);
    there(&world, |company, now| company.void_payment(&first, now)).await;
    let payout = world.payout(&id).await;
    assert_eq!((&payout["state"], &payout["paid"]["minor"]), (&json!("partially_paid"), &json!(1_500)));
    assert_eq!(world.buckets().await, [("inPayout", 2_000)]);
    pay(&world, None).await;
    assert_eq!(state(&world, &id).await, "paid");
    assert_eq!(all(&world, "Bill").len(), 1);
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_bill_that_is_deleted_or_zeroed_makes_the_payout_void_and_its_lines_payable() {
    for zeroed in [false, true] {
        for paid in [false, true] {
            let world = world().await;
            let id = approve(&world).await;
            let bill = only_bill(&world)["Id"].as_str().unwrap().to_owned();
            if paid {
                let payment = pay(&world, None).await;
                assert_eq!(state(&world, &id).await, "paid");
                if zeroed {
                    there(&world, |company, now| company.void_payment(&payment, now)).await;
                }
            }
            if zeroed {
                assert!(there(&world, |company, now| company.edit_bill(&bill, Decimal::ZERO, now)).await);
            } else {
                assert!(there(&world, |company, now| company.delete_bill(&bill, now)).await);
            }
            assert_eq!(state(&world, &id).await, "void", "zeroed {zeroed}, paid {paid}");
            assert_eq!(world.buckets().await, [("payable", 2_000)]);
            world.audit_holds().await;
        }
    }
}

#[tokio::test]
async fn an_edited_amount_is_told_until_it_is_set_back() {
    let world = world().await;
    let id = approve(&world).await;
    let bill = only_bill(&world)["Id"].as_str().unwrap().to_owned();
    there(&world, |company, now| company.edit_bill(&bill, Decimal::from(25), now)).await;
    assert_eq!(state(&world, &id).await, "submitted");
    let told = world.exceptions().await;
    assert_eq!((told.len(), &told[0]["code"]), (1, &json!("bill_differs")), "{told:?}");
    let detail = told[0]["detail"].as_str().unwrap();
    assert!(detail.contains("20.00 USD") && detail.contains("25"), "{detail}");
    there(&world, |company, now| company.edit_bill(&bill, Decimal::from(20), now)).await;
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    pay(&world, None).await;
    assert_eq!(state(&world, &id).await, "paid");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_merged_vendor_is_the_partners_from_then_on() {
    let world = world().await;
    let id = approve(&world).await;
    let into = there(&world, |company, now| {
        company.write("vendor", &json!({"DisplayName": "Anna Inc."}), None, None, now).unwrap()
    })
    .await;
    let into = into["Vendor"]["Id"].as_str().unwrap().to_owned();
    let from = only_bill(&world)["VendorRef"]["value"].as_str().unwrap().to_owned();
    there(&world, |company, now| company.merge_vendors(&from, &into, now)).await;
    pay(&world, None).await;
    assert_eq!(world.payout(&id).await["quickbooks"]["vendorId"], into.as_str());
    assert_eq!(state(&world, &id).await, "paid");
    world.sale("o3", "100.00").await;
    let next = approve(&world).await;
    assert_eq!(world.payout(&next).await["quickbooks"]["vendorId"], into.as_str());
    assert_eq!((all(&world, "Vendor").len(), world.exceptions().await.len()), (1, 0));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_made_unique_and_an_inactive_vendor_is_told() {
    let world = world().await;
    there(&world, |company, now| {
        company.write("customer", &json!({"DisplayName": "Anna"}), None, None, now).unwrap();
    })
    .await;
    approve(&world).await;
    let vendor = all(&world, "Vendor").remove(0);
    assert_eq!(vendor["DisplayName"], "Anna (ANNA10)");
    let vendor = vendor["Id"].as_str().unwrap().to_owned();
    there(&world, |company, now| company.deactivate(&vendor, now)).await;
    world.sale("o3", "100.00").await;
    let next = approve(&world).await;
    assert_eq!(state(&world, &next).await, "failed");
    let told = world.exceptions().await;
    assert!(told[0]["detail"].as_str().unwrap().contains("inactive in QuickBooks"), "{told:?}");
    assert_eq!(all(&world, "Bill").len(), 1);
    world.audit_holds().await;
}

/// Faults of the way to QuickBooks: in the end exactly one Bill, and it is paid.
#[tokio::test]
async fn whatever_the_network_does_exactly_one_bill_is_made() {
    let some = |seed| Faults { seed, ..Faults::default() };
    let storms = |seed| {
        [
            ("lost before", Faults { lost_before_apply: 0.4, ..some(seed) }),
            ("lost after", Faults { lost_after_apply: 0.4, ..some(seed) }),
            ("5xx", Faults { server_error: 0.4, ..some(seed) }),
            ("throttled", Faults { throttle: 0.4, ..some(seed) }),
            ("tokens end", Faults { expire_token: 0.5, ..some(seed) }),
            (
                "all at once",
                Faults {
                    lost_before_apply: 0.1,
                    lost_after_apply: 0.1,
                    server_error: 0.1,
                    throttle: 0.1,
                    expire_token: 0.2,
                    ..some(seed)
                },
            ),
        ]
    };
    for seed in 0..2 {
        for (name, faults) in storms(seed) {
            let world = world().await;
            world.system.quickbooks.fail(faults);
            let id = approve(&world).await;
            wait(&world).await;
            world.system.quickbooks.fail(Faults::default());
            wait(&world).await;
            assert_eq!(state(&world, &id).await, "submitted", "{name}, seed {seed}");
            assert_eq!(only_bill(&world)["TotalAmt"], json!(20), "{name}, seed {seed}");
            assert_eq!(all(&world, "Vendor").len(), 1, "{name}, seed {seed}");
            pay(&world, None).await;
            assert_eq!(state(&world, &id).await, "paid", "{name}, seed {seed}");
            assert_eq!(world.exceptions().await, [] as [Value; 0], "{name}, seed {seed}");
            world.audit_holds().await;
        }
    }
}

#[tokio::test]
async fn closed_books_move_a_bill_to_the_day_it_was_approved_and_then_to_the_exceptions() {
    let world = with(Plan::new().at("2026-02-03T00:00:00Z")).await;
    world.system.quickbooks.company(REALM, |company, _| company.books_closed = Some("2026-02-02".parse().unwrap()));
    let id = approve(&world).await;
    assert_eq!(state(&world, &id).await, "submitted");
    assert_eq!(only_bill(&world)["TxnDate"], "2026-02-03");
    world.sale("o3", "100.00").await;
    world.system.quickbooks.company(REALM, |company, _| company.books_closed = Some("2026-12-31".parse().unwrap()));
    let next = approve(&world).await;
    assert_eq!(state(&world, &next).await, "failed");
    let told = world.exceptions().await;
    let detail = told[0]["detail"].as_str().unwrap();
    assert!(detail.contains("6210") && detail.contains("open the period"), "{detail}");
    world.system.quickbooks.company(REALM, |company, _| company.books_closed = None);
    assert_eq!(world.payout_call(FINANCE, "retry", &next, &json!({"reason": "opened"})).await, 200);
    world.settle().await;
    assert_eq!(state(&world, &next).await, "submitted");
    assert_eq!((all(&world, "Bill").len(), world.exceptions().await.len()), (2, 0));
    world.audit_holds().await;
}

#[tokio::test]
async fn what_is_typed_in_by_hand_under_our_number_is_not_billed_again() {
    let world = world().await;
    let id = world.request_payout().await["id"].clone();
    let number = world.payout(&id).await["number"].clone();
    there(&world, |company, now| {
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
    assert_eq!(state(&world, &id).await, "failed");
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
    let id = approve(&world).await;
    wait(&world).await;
    assert_eq!((state(&world, &id).await.as_str(), all(&world, "Bill").len()), ("approved", 0));
    reconnect(&world).await;
    wait(&world).await;
    assert_eq!(state(&world, &id).await, "submitted");
    world.audit_holds().await;
}

/// Somebody goes to Intuit and comes back.
async fn reconnect(world: &World) -> Value {
    let begun = world.get(FINANCE, "/quickbooks/connect").await.ok();
    let url = begun["url"].as_str().unwrap();
    let field = |name: &str| {
        let query = url.split_once('?').unwrap().1.as_bytes().to_vec();
        form_urlencoded::parse(&query).find(|(is, _)| is == name).unwrap().1.into_owned()
    };
    let code = world.system.quickbooks.consent(REALM, &field("redirect_uri"));
    let callback = format!("/quickbooks/callback?code={code}&state={}&realmId={REALM}", field("state"));
    let done = world.send(tests::Request::get(&callback)).await.ok();
    world.send(tests::Request::get(&callback)).await.refused(409);
    done
}

#[tokio::test]
async fn a_consent_that_ended_is_told_and_mended_by_connecting_again() {
    let world = world().await;
    world.system.quickbooks.revoke_all();
    let id = approve(&world).await;
    assert_eq!((state(&world, &id).await.as_str(), all(&world, "Bill").len()), ("approved", 0));
    let told = world.exceptions().await;
    assert_eq!((told.len(), &told[0]["code"]), (1, &json!("quickbooks_disconnected")), "{told:?}");
    assert_eq!(world.events("quickbooks.reauthorization_required").len(), 1);
    let path = format!("/quickbooks/connections/{REALM}");
    assert_eq!(world.get(ADMIN, &path).await.ok()["state"], "reauthorization_required");
    assert_eq!(reconnect(&world).await["state"], "connected");
    assert_eq!(world.exceptions().await, [] as [Value; 0]);
    wait(&world).await;
    assert_eq!((state(&world, &id).await.as_str(), all(&world, "Bill").len()), ("submitted", 1));
    world.audit_holds().await;
}

#[tokio::test]
async fn a_night_finds_what_webhooks_missed_and_bills_that_nobody_knows() {
    let world = world().await;
    let id = approve(&world).await;
    let bill = only_bill(&world);
    let number = bill["Id"].as_str().unwrap().to_owned();
    // The webhooks of these are never delivered.
    world.system.quickbooks.company(REALM, |company, now| {
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
    assert_eq!(state(&world, &id).await, "partially_paid");
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

/// Two workers at once, each with a token that has just ended: one renews, and the connection stands.
#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_renew_at_once_keep_the_connection() {
    let world = world().await;
    for round in 0..3 {
        world.system.quickbooks.expire_all();
        let requests = {
            let path = format!("/quickbooks/connections/{REALM}/choices");
            let request = world.by(FINANCE, tests::Request::get(&path)).await;
            vec![request.clone(), request.clone(), request]
        };
        for reply in world.together(requests).await {
            assert_eq!(reply.status, 200, "round {round}: {}", reply.text);
        }
    }
    let id = approve(&world).await;
    assert_eq!((state(&world, &id).await.as_str(), world.exceptions().await.len()), ("submitted", 0));
}

/// What is sent and what QuickBooks' counterpart returns, written to the folder that `QUICKBOOKS_BODIES` names: for holding it against
/// Intuit's schema, which is not part of this project.
#[tokio::test]
async fn bodies_are_those_of_the_entities() {
    let world = world().await;
    let id = approve(&world).await;
    pay(&world, Some(5)).await;
    let payment = pay(&world, None).await;
    there(&world, |company, now| company.void_payment(&payment, now)).await;
    let payout = id.as_str().unwrap().parse().unwrap();
    let sent = world.system.context.store.quickbooks_bill("test", &payout).await.unwrap().unwrap();
    let sent: Value = serde_json::from_str(&sent.body).unwrap();
    assert_eq!(sent["DocNumber"], only_bill(&world)["DocNumber"]);
    let mut bodies = vec![("Bill.sent.json".to_owned(), json!({"Bill": sent}))];
    for entity in ["Bill", "Vendor", "BillPayment", "Account", "Term", "CompanyInfo"] {
        for (n, body) in all(&world, entity).into_iter().enumerate() {
            bodies.push((format!("{entity}.{n}.json"), json!({entity: body})));
        }
    }
    let Ok(folder) = std::env::var("QUICKBOOKS_BODIES") else { return };
    for (name, body) in bodies {
        std::fs::write(std::path::Path::new(&folder).join(name), body.to_string()).unwrap();
    }
}
